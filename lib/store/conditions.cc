#include "store/conditions.h"

#include <algorithm>
#include <charconv>
#include <set>

namespace grenier::store {

namespace {

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// Dates in headers have whole seconds.
bool modified_after(const object_meta& m, std::uint64_t ms) { return m.modified_ms / 1000 > ms / 1000; }

std::optional<std::uint64_t> number(std::string_view s) {
  std::uint64_t n = 0;
  auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), n);
  if (s.empty() || ec != std::errc() || end != s.data() + s.size()) return std::nullopt;
  return n;
}

std::unexpected<error> unsatisfiable() { return fail(errc::invalid_range, "the object has no such bytes"); }

bool is_utf8(std::string_view s) {
  for (std::size_t i = 0; i < s.size();) {
    auto c = static_cast<unsigned char>(s[i]);
    std::size_t more = c < 0x80 ? 0 : (c & 0xe0) == 0xc0 ? 1 : (c & 0xf0) == 0xe0 ? 2 : (c & 0xf8) == 0xf0 ? 3 : 4;
    if (more == 4 || i + more >= s.size() + (more == 0)) return false;
    std::uint32_t code = more == 0 ? c : c & (0x3f >> more);
    for (std::size_t j = 1; j <= more; ++j) {
      auto d = static_cast<unsigned char>(s[i + j]);
      if ((d & 0xc0) != 0x80) return false;
      code = code << 6 | (d & 0x3f);
    }
    constexpr std::uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};
    if (code < smallest[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    i += more + 1;
  }
  return true;
}

}  // namespace

bool etag_matches(std::string_view header, std::string_view etag) {
  if (trim(header) == "*") return true;
  while (!header.empty()) {
    auto comma = std::min(header.find(','), header.size());
    auto one = trim(header.substr(0, comma));
    header.remove_prefix(std::min(comma + 1, header.size()));
    if (one.starts_with("W/")) one.remove_prefix(2);
    if (one.size() >= 2 && one.front() == '"' && one.back() == '"') one = one.substr(1, one.size() - 2);
    if (one == etag) return true;
  }
  return false;
}

// The order of RFC 9110, 13.2.2: a date counts only where the ETag condition beside it is absent.
result<void> check_read(const conditions& c, const object_meta& m) {
  if (c.if_match) {
    if (!etag_matches(*c.if_match, m.etag)) return fail(errc::condition_failed, "If-Match: the object has another ETag");
  } else if (c.if_unmodified_since_ms && modified_after(m, *c.if_unmodified_since_ms)) {
    return fail(errc::condition_failed, "If-Unmodified-Since: the object was changed after that");
  }
  if (c.if_none_match) {
    if (etag_matches(*c.if_none_match, m.etag)) return fail(errc::not_modified);
  } else if (c.if_modified_since_ms && !modified_after(m, *c.if_modified_since_ms)) {
    return fail(errc::not_modified);
  }
  return {};
}

result<void> check_source(const conditions& c, const object_meta& m) {
  auto r = check_read(c, m);
  if (r.failed_with(errc::not_modified)) return fail(errc::condition_failed, "the copy's source is what was not wanted");
  return r;
}

result<void> check_write(const conditions& c, const object_meta* current) {
  if (c.if_match) {
    if (!current) return fail(errc::no_such_key, "If-Match: there is no object of this name");
    if (!etag_matches(*c.if_match, current->etag)) return fail(errc::condition_failed, "If-Match: the object has another ETag");
  } else if (c.if_unmodified_since_ms && current && modified_after(*current, *c.if_unmodified_since_ms)) {
    return fail(errc::condition_failed, "If-Unmodified-Since: the object was changed after that");
  }
  if (c.if_none_match && current && etag_matches(*c.if_none_match, current->etag))
    return fail(errc::condition_failed, "If-None-Match: there is such an object");
  return {};
}

result<std::optional<byte_range>> parse_range(std::string_view header, std::uint64_t size) {
  const std::optional<byte_range> ignored;
  header = trim(header);
  if (!header.starts_with("bytes=")) return ignored;
  header = trim(header.substr(6));
  auto dash = header.find('-');
  if (dash == header.npos || header.find(',') != header.npos) return ignored;
  auto from = trim(header.substr(0, dash)), to = trim(header.substr(dash + 1));
  if (from.empty()) {
    auto last = number(to);
    if (!last) return ignored;
    if (*last == 0 || size == 0) return unsatisfiable();
    auto n = std::min(*last, size);
    return std::optional(byte_range{size - n, n});
  }
  auto first = number(from);
  auto last = to.empty() ? std::optional<std::uint64_t>(~0ull) : number(to);
  if (!first || !last || *last < *first) return ignored;
  if (*first >= size) return unsatisfiable();
  return std::optional(byte_range{*first, std::min<std::uint64_t>(*last, size - 1) - *first + 1});
}

result<byte_range> parse_copy_range(std::string_view header, std::uint64_t size) {
  header = trim(header);
  auto dash = header.find('-');
  if (!header.starts_with("bytes=") || dash == header.npos)
    return fail(errc::invalid_argument, "the range of a part's copy is bytes=FIRST-LAST");
  auto first = number(header.substr(6, dash - 6)), last = number(header.substr(dash + 1));
  if (!first || !last || *last < *first) return fail(errc::invalid_argument, "the range of a part's copy is bytes=FIRST-LAST");
  if (*last >= size) return fail(errc::invalid_range, "the range goes beyond the source's end");
  return byte_range{*first, *last - *first + 1};
}

result<void> check_key(std::string_view key) {
  if (key.empty()) return fail(errc::invalid_argument, "an object's key is not empty");
  if (key.size() > key_size_max) return fail(errc::invalid_argument, "an object's key has at most 1024 bytes");
  if (key.find('\0') != key.npos || !is_utf8(key)) return fail(errc::invalid_argument, "an object's key is UTF-8 without zero bytes");
  return {};
}

result<void> check_headers(const model::object_headers& h) {
  std::size_t total = 0;
  for (const auto& t : h.metadata) total += t.key.size() + t.value.size();
  if (total > 8192) return fail(errc::too_large, "an object's own metadata has at most 8 KiB");
  for (const auto* s : {&h.content_type, &h.content_encoding, &h.content_disposition, &h.content_language, &h.cache_control, &h.expires,
                        &h.website_redirect, &h.storage_class})
    if (s->size() > 8192) return fail(errc::too_large, "a header of an object has at most 8 KiB");
  return {};
}

result<void> check_tags(const std::vector<model::tag>& tags) {
  if (tags.size() > 10) return fail(errc::invalid_argument, "an object has at most 10 tags");
  std::set<std::string_view> seen;
  for (const auto& t : tags) {
    if (t.key.empty() || t.key.size() > 4 * 128 || t.value.size() > 4 * 256)
      return fail(errc::invalid_argument, "a tag's key has 1 to 128 characters, its value at most 256");
    if (!seen.insert(t.key).second) return fail(errc::invalid_argument, "two tags have the same key");
  }
  return {};
}

}  // namespace grenier::store
