#include "headers.h"

#include <algorithm>
#include <charconv>
#include <set>

namespace grenier::s3 {

namespace {

using crypto::hash_kind;

constexpr checksum_name names[] = {
    {hash_kind::crc32, "CRC32", "ChecksumCRC32", "x-amz-checksum-crc32"},
    {hash_kind::crc32c, "CRC32C", "ChecksumCRC32C", "x-amz-checksum-crc32c"},
    {hash_kind::crc64nvme, "CRC64NVME", "ChecksumCRC64NVME", "x-amz-checksum-crc64nvme"},
    {hash_kind::sha1, "SHA1", "ChecksumSHA1", "x-amz-checksum-sha1"},
    {hash_kind::sha256, "SHA256", "ChecksumSHA256", "x-amz-checksum-sha256"},
};

constexpr std::string_view meta_prefix = "x-amz-meta-";
constexpr std::size_t metadata_max = 2 << 10;

constexpr std::string_view storage_classes[] = {"STANDARD",   "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA",       "INTELLIGENT_TIERING",
                                                "GLACIER",    "DEEP_ARCHIVE",       "OUTPOSTS",    "GLACIER_IR",       "SNOW",
                                                "EXPRESS_ONEZONE"};

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

std::vector<std::string_view> comma_list(std::string_view s) {
  std::vector<std::string_view> out;
  while (!s.empty()) {
    auto comma = s.find(',');
    if (auto item = trim(s.substr(0, comma)); !item.empty()) out.push_back(item);
    s = comma == s.npos ? std::string_view() : s.substr(comma + 1);
  }
  return out;
}

// aws-chunked is how the body came, not how it is stored.
std::string stored_encoding(std::string_view sent) {
  auto items = comma_list(sent);
  auto is_chunked = [](std::string_view i) { return lower(i) == "aws-chunked"; };
  if (std::ranges::none_of(items, is_chunked)) return std::string(sent);
  std::string out;
  for (std::string_view i : items) {
    if (is_chunked(i)) continue;
    if (!out.empty()) out += ", ";
    out += i;
  }
  return out;
}

bool is_clean(std::string_view s) {
  return std::ranges::all_of(s, [](unsigned char c) { return (c >= 0x20 && c != 0x7f) || c == '\t'; });
}

std::size_t characters(std::string_view utf8) {
  return static_cast<std::size_t>(std::ranges::count_if(utf8, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

outcome<void> read_metadata(const http::headers& h, model::object_headers& to) {
  std::size_t total = 0;
  for (const http::header& one : h.all()) {
    std::string name = lower(one.name);
    if (!name.starts_with(meta_prefix)) continue;
    name.erase(0, meta_prefix.size());
    if (name.empty()) return refuse(code::invalid_argument, "A metadata header has no name.");
    if (!is_clean(one.value)) return refuse(code::invalid_argument, "A metadata header holds control characters.");
    total += name.size() + one.value.size();
    auto same = std::ranges::find(to.metadata, name, &model::tag::key);
    if (same != to.metadata.end())
      (same->value += ',') += one.value;
    else
      to.metadata.push_back({name, one.value});
  }
  if (total > metadata_max) return refuse(code::metadata_too_large);
  return {};
}

}  // namespace

// ------------------------------------------------------------------------------------------------- numbers and dates

std::optional<std::uint64_t> parse_number(std::string_view s, std::uint64_t max) {
  std::uint64_t v = 0;
  auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), v);
  if (s.empty() || ec != std::errc() || end != s.data() + s.size() || v > max) return std::nullopt;
  return v;
}

std::string format_iso(std::uint64_t ms) {
  std::string t = format_timestamp(ms);  // 20091012T175030Z
  char fraction[8];
  std::snprintf(fraction, sizeof fraction, ".%03uZ", static_cast<unsigned>(ms % 1000));
  return t.substr(0, 4) + "-" + t.substr(4, 2) + "-" + t.substr(6, 2) + "T" + t.substr(9, 2) + ":" + t.substr(11, 2) + ":" + t.substr(13, 2) +
         fraction;
}

std::string quoted_etag(std::string_view etag) { return "\"" + std::string(etag) + "\""; }

std::string bare_etag(std::string_view s) {
  s = trim(s);
  if (s.size() >= 2 && s.front() == '"' && s.back() == '"') s = s.substr(1, s.size() - 2);
  return std::string(s);
}

bool is_utf8(std::string_view s) noexcept {
  for (std::size_t i = 0; i < s.size();) {
    auto at = [&](std::size_t k) { return i + k < s.size() ? static_cast<unsigned char>(s[i + k]) : 0u; };
    auto tail = [&](std::size_t k) { return (at(k) & 0xC0u) == 0x80u; };
    unsigned c = at(0);
    if (c < 0x80) {
      i += 1;
    } else if (c >= 0xC2 && c <= 0xDF && tail(1)) {
      i += 2;
    } else if (c >= 0xE0 && c <= 0xEF && tail(1) && tail(2) && (c != 0xE0 || at(1) >= 0xA0) && (c != 0xED || at(1) < 0xA0)) {
      i += 3;
    } else if (c >= 0xF0 && c <= 0xF4 && tail(1) && tail(2) && tail(3) && (c != 0xF0 || at(1) >= 0x90) && (c != 0xF4 || at(1) < 0x90)) {
      i += 4;
    } else {
      return false;
    }
  }
  return true;
}

std::optional<std::string_view> find(const query_list& q, std::string_view name) {
  for (const auto& [n, v] : q)
    if (n == name) return v;
  return std::nullopt;
}

// ------------------------------------------------------------------------------------------------- checksums

std::span<const checksum_name> checksum_names() noexcept { return names; }

const checksum_name* find_checksum(hash_kind k) noexcept {
  for (const checksum_name& n : names)
    if (n.kind == k) return &n;
  return nullptr;
}

std::optional<hash_kind> checksum_of_header(std::string_view header) noexcept {
  for (const checksum_name& n : names)
    if (n.header == header) return n.kind;
  return std::nullopt;
}

std::optional<hash_kind> checksum_of_algorithm(std::string_view algorithm) noexcept {
  auto same = [&](std::string_view a) {
    return a.size() == algorithm.size() && std::equal(a.begin(), a.end(), algorithm.begin(), [](char x, char y) {
             return x == (y >= 'a' && y <= 'z' ? static_cast<char>(y - 32) : y);
           });
  };
  for (const checksum_name& n : names)
    if (same(n.algorithm)) return n.kind;
  return std::nullopt;
}

std::string checksum_text(const store::checksum& c) {
  std::string out = to_base64(c.value);
  if (c.composite && c.parts > 0) (out += '-') += std::to_string(c.parts);
  return out;
}

std::optional<store::checksum> parse_checksum(hash_kind kind, std::string_view text) {
  store::checksum c{.kind = kind};
  if (auto dash = text.find('-'); dash != text.npos) {
    auto parts = parse_number(text.substr(dash + 1), 10000);
    if (!parts || *parts == 0) return std::nullopt;
    c.composite = true;
    c.parts = static_cast<std::uint32_t>(*parts);
    text = text.substr(0, dash);
  }
  auto raw = from_base64(text);
  if (!raw || raw->size() != crypto::digest_size(kind)) return std::nullopt;
  c.value = std::move(*raw);
  return c;
}

outcome<given_checksums> read_checksums(const http::headers& h) {
  given_checksums g;
  for (const checksum_name& n : names) {
    auto v = h.find(n.header);
    if (!v) continue;
    auto c = parse_checksum(n.kind, *v);
    if (!c) return refuse(code::invalid_request, "The value of " + std::string(n.header) + " is no checksum of that kind.");
    g.values.push_back(std::move(*c));
  }
  if (auto t = h.find("x-amz-trailer"))
    for (std::string_view item : comma_list(*t)) {
      std::string name = lower(item);
      auto kind = checksum_of_header(name);
      if (!kind) return refuse(code::invalid_request, "x-amz-trailer may only name checksums.");
      g.trailers.push_back(name);
      g.compute = *kind;
    }
  if (g.values.size() + g.trailers.size() > 1) return refuse(code::invalid_request, "Only one checksum may be given.");
  for (std::string_view header : {"x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm"}) {
    auto a = h.find(header);
    if (!a || a->empty()) continue;
    auto kind = checksum_of_algorithm(*a);
    if (!kind) return refuse(code::invalid_request, "The checksum algorithm should be CRC32, CRC32C, CRC64NVME, SHA1 or SHA256.");
    if ((!g.values.empty() && g.values[0].kind != *kind) || (g.compute && *g.compute != *kind))
      return refuse(code::invalid_request, "The checksum is not of the algorithm that was named.");
    g.compute = *kind;
  }
  return g;
}

void add_checksums(http::headers& to, std::span<const store::checksum> checksums) {
  const store::checksum* last = nullptr;
  for (const store::checksum& c : checksums)
    if (const checksum_name* n = find_checksum(c.kind)) {
      to.set(n->header, checksum_text(c));
      last = &c;
    }
  if (last) to.set("x-amz-checksum-type", last->composite ? "COMPOSITE" : "FULL_OBJECT");
}

outcome<std::optional<bytes>> read_content_md5(const http::headers& h) {
  auto v = h.find("content-md5");
  if (!v) return std::nullopt;
  auto raw = from_base64(*v);
  if (!raw || raw->size() != 16) return refuse(code::invalid_digest);
  return std::move(*raw);
}

// ------------------------------------------------------------------------------------------------- objects

outcome<model::object_headers> read_object_headers(const http::headers& h) {
  model::object_headers o;
  o.content_type = h.get("content-type");
  o.content_encoding = stored_encoding(h.get("content-encoding"));
  o.content_disposition = h.get("content-disposition");
  o.content_language = h.get("content-language");
  o.cache_control = h.get("cache-control");
  o.expires = h.get("expires");
  o.storage_class = h.get("x-amz-storage-class");
  o.website_redirect = h.get("x-amz-website-redirect-location");
  for (std::string_view v : {std::string_view(o.content_type), std::string_view(o.content_encoding), std::string_view(o.content_disposition),
                             std::string_view(o.content_language), std::string_view(o.cache_control), std::string_view(o.expires),
                             std::string_view(o.website_redirect)}) {
    if (!is_clean(v)) return refuse(code::invalid_argument, "A header holds control characters.");
    if (v.size() > 2048) return refuse(code::invalid_argument, "A header is longer than 2 KiB.");
  }
  if (!o.storage_class.empty() && std::ranges::find(storage_classes, o.storage_class) == std::end(storage_classes))
    return refuse(code::invalid_storage_class);
  const std::string& w = o.website_redirect;
  if (!w.empty() && !w.starts_with('/') && !w.starts_with("http://") && !w.starts_with("https://"))
    return refuse(code::invalid_argument, "x-amz-website-redirect-location must start with /, http:// or https://.");
  S3_TRY_VOID(read_metadata(h, o));
  return o;
}

void add_stale_headers(http::headers& to) {
  to.add("x-grenier-possibly-stale", "true");
  to.add("Warning", "110 - \"Response is Stale\"");
}

void add_object_headers(http::headers& to, const store::object_meta& m) {
  const model::object_headers& o = m.headers;
  auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) to.add(name, value);
  };
  to.add("ETag", quoted_etag(m.etag));
  to.add("Last-Modified", http::format_date(m.modified_ms));
  to.add("Accept-Ranges", "bytes");
  to.add("Content-Type", o.content_type.empty() ? "binary/octet-stream" : o.content_type);
  add("Content-Encoding", o.content_encoding);
  add("Content-Disposition", o.content_disposition);
  add("Content-Language", o.content_language);
  add("Cache-Control", o.cache_control);
  add("Expires", o.expires);
  add("x-amz-website-redirect-location", o.website_redirect);
  if (o.storage_class != "STANDARD") add("x-amz-storage-class", o.storage_class);
  for (const model::tag& t : o.metadata) to.add(std::string(meta_prefix) + t.key, t.value);
  if (!m.tags.empty()) to.add("x-amz-tagging-count", std::to_string(m.tags.size()));
}

outcome<void> check_tags(std::span<const model::tag> tags) {
  if (tags.size() > 10) return refuse(code::invalid_tag, "An object may have 10 tags.");
  std::set<std::string_view> seen;
  for (const model::tag& t : tags) {
    if (t.key.empty() || characters(t.key) > 128) return refuse(code::invalid_tag, "A tag's key has 1 to 128 characters.");
    if (characters(t.value) > 256) return refuse(code::invalid_tag, "A tag's value has at most 256 characters.");
    if (!is_utf8(t.key) || !is_utf8(t.value) || !is_clean(t.key) || !is_clean(t.value))
      return refuse(code::invalid_tag, "A tag is no clean text.");
    if (!seen.insert(t.key).second) return refuse(code::invalid_tag, "Two tags have the same key.");
  }
  return {};
}

outcome<std::vector<model::tag>> read_tagging(const http::headers& h) {
  std::vector<model::tag> tags;
  auto v = h.find("x-amz-tagging");
  if (!v) return tags;
  auto pairs = http::parse_query(*v);
  if (!pairs) return refuse(code::invalid_argument, "x-amz-tagging should look like key1=value1&key2=value2.");
  for (auto& [name, value] : *pairs) tags.push_back({std::move(name), std::move(value)});
  S3_TRY_VOID(check_tags(tags));
  return tags;
}

store::conditions read_conditions(const http::headers& h, std::string_view prefix) {
  store::conditions c;
  auto value = [&](std::string_view name) { return h.find(std::string(prefix) + std::string(name)); };
  auto date = [&](std::string_view name) -> std::optional<std::uint64_t> {
    auto v = value(name);
    return v ? http::parse_date(*v) : std::nullopt;  // an unreadable date is no condition (RFC 9110)
  };
  if (auto v = value("if-match")) c.if_match = *v;
  if (auto v = value("if-none-match")) c.if_none_match = *v;
  c.if_modified_since_ms = date("if-modified-since");
  c.if_unmodified_since_ms = date("if-unmodified-since");
  return c;
}

outcome<copy_source> read_copy_source(const http::headers& h) {
  std::string_view raw = h.get("x-amz-copy-source");
  if (auto version = raw.rfind("?versionId="); version != raw.npos) {
    if (raw.substr(version + 11) != "null") return refuse(code::no_such_version);
    raw = raw.substr(0, version);
  }
  // Some clients do not encode it at all: what is no encoding is taken as it stands.
  std::string source = http::percent_decode(raw).value_or(std::string(raw));
  std::string_view s = source;
  if (s.starts_with('/')) s.remove_prefix(1);
  auto slash = s.find('/');
  if (slash == s.npos || slash == 0 || slash + 1 == s.size())
    return refuse(code::invalid_argument, "x-amz-copy-source should look like bucket/key.");
  copy_source c{std::string(s.substr(0, slash)), std::string(s.substr(slash + 1))};
  S3_TRY_VOID(check_key(c.key));
  return c;
}

outcome<void> check_key(std::string_view key) {
  if (key.empty()) return refuse(code::invalid_argument, "The key is empty.");
  if (key.size() > 1024) return refuse(code::key_too_long);
  if (key.find('\0') != key.npos || !is_utf8(key)) return refuse(code::invalid_argument, "A key must be valid UTF-8 without NUL.");
  return {};
}

outcome<void> refuse_unsupported(const http::headers& h) {
  for (const http::header& one : h.all()) {
    std::string name = lower(one.name);
    if (name.starts_with("x-amz-server-side-encryption") || name.starts_with("x-amz-copy-source-server-side-encryption"))
      return refuse(code::not_implemented, "Encryption by the server is not implemented.");
    if (name.starts_with("x-amz-object-lock-") || (name == "x-amz-bucket-object-lock-enabled" && lower(one.value) != "false"))
      return refuse(code::not_implemented, "Object lock is not implemented.");
    if (name.starts_with("x-amz-grant-")) return refuse(code::not_implemented, "Grants are not implemented.");
    if (name == "x-amz-write-offset-bytes") return refuse(code::not_implemented, "Appending is not implemented.");
    if (name != "x-amz-acl") continue;
    if (one.value == "private" || one.value == "bucket-owner-full-control" || one.value == "bucket-owner-read") continue;
    static constexpr std::string_view known[] = {"public-read", "public-read-write", "authenticated-read", "aws-exec-read", "log-delivery-write"};
    if (std::ranges::find(known, one.value) != std::end(known))
      return refuse(code::not_implemented, "Of the canned ACLs only the private ones are implemented.");
    return refuse(code::invalid_argument, "This is no canned ACL.");
  }
  return {};
}

}  // namespace grenier::s3
