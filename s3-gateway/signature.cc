#include "signature.h"

#include <algorithm>
#include <charconv>

#include "crypto/crypto.h"

namespace grenier::s3 {

namespace {

constexpr std::string_view algorithm = "AWS4-HMAC-SHA256";
constexpr std::uint64_t skew_max_ms = 15 * 60 * 1000;
constexpr std::uint64_t expires_max_s = 7 * 24 * 3600;

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

bool is_lower_hex(std::string_view s) {
  return std::ranges::all_of(s, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// Trimmed, runs of spaces become one.
std::string canonical_value(std::string_view s) {
  std::string out;
  bool space = false;
  for (char c : trim(s)) {
    if (c == ' ' || c == '\t') {
      space = true;
      continue;
    }
    if (space) out += ' ';
    space = false;
    out += c;
  }
  return out;
}

std::optional<std::string_view> find(const query_list& q, std::string_view name) {
  for (const auto& [n, v] : q)
    if (n == name) return v;
  return std::nullopt;
}

std::optional<unsigned> number(std::string_view s) {
  unsigned v = 0;
  for (char c : s) {
    if (c < '0' || c > '9') return std::nullopt;
    v = v * 10 + static_cast<unsigned>(c - '0');
  }
  return v;
}

std::vector<std::string_view> split(std::string_view s, char at) {
  std::vector<std::string_view> out;
  for (std::size_t from = 0;;) {
    auto to = s.find(at, from);
    out.push_back(s.substr(from, to == s.npos ? s.npos : to - from));
    if (to == s.npos) return out;
    from = to + 1;
  }
}

outcome<void> read_scope(std::string_view text, credentials& c, code malformed) {
  auto parts = split(text, '/');
  if (parts.size() < 5) return refuse(malformed, "The credential should be key/date/region/s3/aws4_request.");
  std::size_t n = parts.size();  // a key id may hold slashes
  if (parts[n - 1] != "aws4_request" || parts[n - 2] != "s3")
    return refuse(malformed, "The credential's scope should end with s3/aws4_request.");
  c.region = parts[n - 3];
  c.date = parts[n - 4];
  std::size_t tail = c.date.size() + c.region.size() + std::string_view("///s3/aws4_request").size();
  c.key_id = text.substr(0, text.size() - tail);
  if (c.key_id.empty() || c.key_id.size() > 256 || c.region.size() > 128 || c.date.size() != 8)
    return refuse(malformed, "The credential cannot be read.");
  return {};
}

outcome<void> read_signed_headers(std::string_view text, credentials& c, code malformed) {
  for (std::string_view h : split(text, ';')) {
    if (h.empty()) return refuse(malformed, "SignedHeaders cannot be read.");
    c.signed_headers.push_back(lower(h));
  }
  if (std::ranges::find(c.signed_headers, "host") == c.signed_headers.end())
    return refuse(malformed, "The host header must be signed.");
  return {};
}

outcome<void> read_signature(std::string_view text, credentials& c, code malformed) {
  if (text.size() != 64 || !is_lower_hex(text)) return refuse(malformed, "The signature should be 64 hexadecimal digits.");
  c.signature = text;
  return {};
}

outcome<void> read_payload(std::string_view text, credentials& c) {
  c.payload_text = text;
  if (text == "UNSIGNED-PAYLOAD") {
    c.payload = payload::unsigned_body;
  } else if (text == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") {
    c.payload = payload::streaming_signed;
  } else if (text == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER") {
    c.payload = payload::streaming_signed_trailer;
  } else if (text == "STREAMING-UNSIGNED-PAYLOAD-TRAILER") {
    c.payload = payload::streaming_unsigned_trailer;
  } else if (text.starts_with("STREAMING-AWS4-ECDSA")) {
    return refuse(code::not_implemented, "Asymmetric signatures are not implemented.");
  } else if (auto raw = text.size() == 64 ? from_hex(text) : fail(errc::invalid_argument)) {
    c.payload = payload::signed_hash;
    c.content_sha256 = std::move(*raw);
  } else {
    return refuse(code::invalid_argument,
                  "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING payload or a SHA-256 in hexadecimal.");
  }
  return {};
}

// The Date header; some clients write the zone as -0000.
std::optional<std::uint64_t> parse_http_date(std::string_view s) {
  std::string date(s);
  if (date.ends_with(" -0000") || date.ends_with(" +0000")) date.replace(date.size() - 5, 5, "GMT");
  return http::parse_date(date);
}

outcome<credentials> from_header(const http::request& r, std::string_view value) {
  constexpr code bad = code::authorization_header_malformed;
  credentials c;
  value.remove_prefix(algorithm.size());
  std::optional<std::string_view> credential, headers, signature;
  for (std::string_view item : split(value, ',')) {
    item = trim(item);
    auto eq = item.find('=');
    if (eq == item.npos) return refuse(bad);
    std::string_view name = item.substr(0, eq), v = item.substr(eq + 1);
    auto* slot = name == "Credential" ? &credential : name == "SignedHeaders" ? &headers : name == "Signature" ? &signature : nullptr;
    if (!slot || *slot) return refuse(bad);
    *slot = v;
  }
  if (!credential || !headers || !signature) return refuse(bad, "Credential, SignedHeaders and Signature are all needed.");
  S3_TRY_VOID(read_scope(*credential, c, bad));
  S3_TRY_VOID(read_signed_headers(*headers, c, bad));
  S3_TRY_VOID(read_signature(*signature, c, bad));

  std::optional<std::uint64_t> ms;
  if (auto amz = r.headers.find("x-amz-date")) {
    ms = parse_timestamp(*amz);
    if (!ms) ms = parse_http_date(*amz);
  } else if (auto date = r.headers.find("date")) {
    ms = parse_http_date(*date);
    if (!ms) ms = parse_timestamp(*date);
  }
  if (!ms) return refuse(code::access_denied, "A signed request needs a valid x-amz-date or Date header.");
  c.time_ms = *ms;
  c.timestamp = format_timestamp(*ms);
  auto hash = r.headers.find("x-amz-content-sha256");
  if (!hash) return refuse(code::invalid_request, "The header x-amz-content-sha256 is missing.");
  S3_TRY_VOID(read_payload(*hash, c));
  return c;
}

outcome<credentials> from_query(const http::request& r, const query_list& q) {
  constexpr code bad = code::authorization_query_parameters_error;
  credentials c;
  c.presigned = true;
  if (find(q, "X-Amz-Algorithm") != algorithm) return refuse(bad, "X-Amz-Algorithm must be AWS4-HMAC-SHA256.");
  auto credential = find(q, "X-Amz-Credential"), headers = find(q, "X-Amz-SignedHeaders"), signature = find(q, "X-Amz-Signature"),
       date = find(q, "X-Amz-Date"), expires = find(q, "X-Amz-Expires");
  if (!credential || !headers || !signature || !date || !expires)
    return refuse(bad, "A presigned request needs X-Amz-Credential, -Date, -Expires, -SignedHeaders and -Signature.");
  S3_TRY_VOID(read_scope(*credential, c, bad));
  S3_TRY_VOID(read_signed_headers(*headers, c, bad));
  S3_TRY_VOID(read_signature(*signature, c, bad));
  auto ms = parse_timestamp(*date);
  if (!ms) return refuse(bad, "X-Amz-Date should look like 20130524T000000Z.");
  c.time_ms = *ms;
  c.timestamp = *date;
  auto [end, ec] = std::from_chars(expires->data(), expires->data() + expires->size(), c.expires_s);
  if (ec != std::errc() || end != expires->data() + expires->size() || c.expires_s < 1 || c.expires_s > expires_max_s)
    return refuse(code::access_denied, "X-Amz-Expires must be between 1 and 604800 seconds.");
  std::string_view hash = "UNSIGNED-PAYLOAD";
  if (auto h = find(q, "X-Amz-Content-Sha256"))
    hash = *h;
  else if (std::ranges::find(c.signed_headers, "x-amz-content-sha256") != c.signed_headers.end())
    hash = r.headers.get("x-amz-content-sha256");
  S3_TRY_VOID(read_payload(hash, c));
  return c;
}

std::string canonical_query(const query_list& q, bool presigned) {
  query_list encoded;
  for (const auto& [n, v] : q)
    if (!presigned || n != "X-Amz-Signature") encoded.emplace_back(http::percent_encode(n), http::percent_encode(v));
  std::ranges::sort(encoded);
  std::string out;
  for (const auto& [n, v] : encoded) {
    if (!out.empty()) out += '&';
    ((out += n) += '=') += v;
  }
  return out;
}

// What an intermediary or a holder of a presigned address could add must not change what the request does.
outcome<void> check_all_signed(const http::request& r, const credentials& c) {
  for (const http::header& h : r.headers.all()) {
    std::string name = lower(h.name);
    if (!name.starts_with("x-amz-") || name == "x-amz-content-sha256" || name == "x-amz-date" || name == "x-amz-user-agent") continue;
    if (std::ranges::find(c.signed_headers, name) == c.signed_headers.end())
      return refuse(code::access_denied, "The header " + name + " is not signed.");
  }
  return {};
}

}  // namespace

std::optional<std::uint64_t> parse_timestamp(std::string_view s) {
  if (s.size() != 16 || s[8] != 'T' || s[15] != 'Z') return std::nullopt;
  auto y = number(s.substr(0, 4)), mo = number(s.substr(4, 2)), d = number(s.substr(6, 2)), h = number(s.substr(9, 2)),
       mi = number(s.substr(11, 2)), se = number(s.substr(13, 2));
  if (!y || !mo || !d || !h || !mi || !se || *h > 23 || *mi > 59 || *se > 59) return std::nullopt;
  namespace ch = std::chrono;
  ch::year_month_day day{ch::year(static_cast<int>(*y)), ch::month(*mo), ch::day(*d)};
  if (!day.ok() || *y < 1970) return std::nullopt;
  auto days = static_cast<std::uint64_t>(ch::sys_days(day).time_since_epoch().count());
  return ((days * 24 + *h) * 60 + *mi) * 60'000 + *se * 1000ull;
}

std::string format_timestamp(std::uint64_t ms) {
  namespace ch = std::chrono;
  std::uint64_t s = ms / 1000, of_day = s % 86400;
  ch::year_month_day day{ch::sys_days(ch::days(static_cast<int>(s / 86400)))};
  char out[32];
  std::snprintf(out, sizeof out, "%04d%02u%02uT%02u%02u%02uZ", static_cast<int>(day.year()) % 10000,
                static_cast<unsigned>(day.month()) % 100, static_cast<unsigned>(day.day()) % 100,
                static_cast<unsigned>(of_day / 3600) % 100, static_cast<unsigned>(of_day / 60 % 60), static_cast<unsigned>(of_day % 60));
  return out;
}

outcome<std::optional<credentials>> read_credentials(const http::request& r, const query_list& q) {
  auto header = r.headers.find("authorization");
  if (header && trim(*header).empty()) header.reset();
  bool query = find(q, "X-Amz-Algorithm") || find(q, "X-Amz-Signature") || find(q, "X-Amz-Credential");
  if ((header && query) || r.headers.count("authorization") > 1)
    return refuse(code::invalid_argument, "Only one way of signing may be used at once.");
  bool version_2 = (header && header->starts_with("AWS ")) || (find(q, "AWSAccessKeyId") && find(q, "Signature"));
  if (version_2)
    return refuse(code::invalid_request, "Signature Version 2 is not supported. Please sign with AWS4-HMAC-SHA256.");
  if (query) {
    S3_TRY(credentials c, from_query(r, q));
    return c;
  }
  if (!header) return std::nullopt;
  if (!header->starts_with(algorithm) || header->size() == algorithm.size() || (*header)[algorithm.size()] != ' ')
    return refuse(code::invalid_argument, "This kind of authorization is not supported. Please sign with AWS4-HMAC-SHA256.");
  S3_TRY(credentials c, from_header(r, *header));
  return c;
}

outcome<void> check_time(const credentials& c, std::uint64_t now_ms) {
  bool ahead = c.time_ms > now_ms + skew_max_ms;
  if (c.presigned) {
    if (ahead) return refuse(code::access_denied, "The request is not valid yet.");
    if (now_ms > c.time_ms + c.expires_s * 1000) return refuse(code::access_denied, "The request has expired.");
  } else if (ahead || now_ms > c.time_ms + skew_max_ms) {
    return refuse(code::request_time_too_skewed);
  }
  return {};
}

bytes derive_key(std::string_view secret, std::string_view date, std::string_view region) {
  bytes k = crypto::hmac_sha256("AWS4" + std::string(secret), date);
  k = crypto::hmac_sha256(k, region);
  k = crypto::hmac_sha256(k, "s3");
  return crypto::hmac_sha256(k, "aws4_request");
}

std::string canonical_path(std::string_view raw) {
  auto decoded = http::percent_decode(raw);
  return decoded ? http::percent_encode(*decoded, true) : std::string(raw);
}

std::string canonical_request(const http::request& r, const query_list& q, const credentials& c, std::string_view path) {
  std::string out = r.method;
  ((((out += '\n') += path) += '\n') += canonical_query(q, c.presigned)) += '\n';
  std::string names;
  for (const std::string& name : c.signed_headers) {
    (out += name) += ':';
    bool first = true;
    for (const http::header& h : r.headers.all()) {
      if (h.name.size() != name.size() || lower(h.name) != name) continue;
      if (!first) out += ',';
      first = false;
      out += canonical_value(h.value);
    }
    out += '\n';
    if (!names.empty()) names += ';';
    names += name;
  }
  (((out += '\n') += names) += '\n') += c.payload_text;
  return out;
}

std::string sign(const credentials& c, std::string_view canonical, bytes_view key) {
  std::string to_sign(algorithm);
  (((((to_sign += '\n') += c.timestamp) += '\n') += c.scope()) += '\n') += to_hex(crypto::digest(crypto::hash_kind::sha256, canonical));
  return to_hex(crypto::hmac_sha256(key, to_sign));
}

outcome<void> verify(const http::request& r, const query_list& q, const credentials& c, bytes_view key) {
  if (c.timestamp.substr(0, 8) != c.date)
    return refuse(c.presigned ? code::authorization_query_parameters_error : code::authorization_header_malformed,
                  "The credential's date is not that of the request.");
  std::string path = canonical_path(r.path);
  bool same = crypto::equal_constant_time(sign(c, canonical_request(r, q, c, path), key), c.signature);
  if (!same && path != r.path) same = crypto::equal_constant_time(sign(c, canonical_request(r, q, c, r.path), key), c.signature);
  if (!same) return refuse(code::signature_does_not_match);
  return check_all_signed(r, c);
}

bytes key_cache::get(std::string_view key_id, std::string_view secret, std::string_view date, std::string_view region) {
  std::string name(key_id);
  (((name += '\n') += date) += '\n') += region;
  if (auto it = by_name_.find(name); it != by_name_.end()) {
    order_.splice(order_.begin(), order_, it->second);
    entry& e = *it->second;
    if (e.secret != secret) e = {name, std::string(secret), derive_key(secret, date, region)};  // the key was made anew
    return e.key;
  }
  order_.push_front({name, std::string(secret), derive_key(secret, date, region)});
  by_name_[name] = order_.begin();
  if (by_name_.size() > entries_max_) {
    by_name_.erase(order_.back().name);
    order_.pop_back();
  }
  return order_.front().key;
}

}  // namespace grenier::s3
