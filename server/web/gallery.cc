#include "web/gallery.h"

#include <algorithm>

#include "crypto/crypto.h"

namespace grenier::web {

namespace {

constexpr std::string_view cookie_name = "grenier_gallery";
constexpr std::size_t token_max = 128;
constexpr std::uint64_t year_ms = 365ull * 24 * 3600 * 1000;

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// q=0.8 in thousandths; 0 for what is no weight.
int weight_of(std::string_view q) {
  if (q.empty() || (q[0] != '0' && q[0] != '1') || q.size() > 5) return 0;
  int w = (q[0] - '0') * 1000;
  if (q.size() > 1 && q[1] != '.') return 0;
  for (std::size_t i = 2, scale = 100; i < q.size(); ++i, scale /= 10) {
    if (q[i] < '0' || q[i] > '9') return 0;
    w += (q[i] - '0') * static_cast<int>(scale);
  }
  return std::min(w, 1000);
}

bool is_language(std::string_view range, std::string_view code) {
  if (range.size() < code.size()) return false;
  for (std::size_t i = 0; i < code.size(); ++i)
    if ((range[i] | 0x20) != code[i]) return false;
  return range.size() == code.size() || range[code.size()] == '-';
}

}  // namespace

bool prefers_french(std::string_view header) {
  int french = -1, english = -1, any = -1;
  header = header.substr(0, 1000);
  while (!header.empty()) {
    auto comma = header.find(',');
    auto one = trim(header.substr(0, comma));
    header = comma == std::string_view::npos ? std::string_view() : header.substr(comma + 1);
    auto semicolon = one.find(';');
    auto range = trim(one.substr(0, semicolon));
    int weight = 1000;
    if (semicolon != std::string_view::npos) {
      auto parameter = trim(one.substr(semicolon + 1));
      if (parameter.starts_with("q=") || parameter.starts_with("Q=")) weight = weight_of(trim(parameter.substr(2)));
    }
    if (is_language(range, "fr")) french = std::max(french, weight);
    else if (is_language(range, "en")) english = std::max(english, weight);
    else if (range == "*") any = std::max(any, weight);
  }
  // What is not named has the weight of "*", or none; of equals English is first.
  if (french < 0) french = std::max(any, 0);
  if (english < 0) english = std::max(any, 0);
  return french > english;
}

std::optional<shown_token> token_of(const http::request& r) {
  if (r.has_query)
    if (auto q = http::parse_query(r.query))
      for (auto& [name, value] : *q)
        if (name == "key" && !value.empty() && value.size() <= token_max) return shown_token{std::move(value), true};
  auto cookies = r.headers.find("cookie");
  for (std::string_view rest = cookies ? std::string_view(*cookies) : std::string_view(); !rest.empty();) {
    auto end = rest.find(';');
    auto one = trim(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (one.size() > cookie_name.size() + 1 && one.starts_with(cookie_name) && one[cookie_name.size()] == '=' && one.size() <= cookie_name.size() + 1 + token_max)
      return shown_token{std::string(one.substr(cookie_name.size() + 1)), false};
  }
  return std::nullopt;
}

const model::gallery_link* find_link(const model::gallery_pages& g, std::string_view token, std::uint64_t wall_ms) {
  const bytes hash = crypto::digest(crypto::hash_kind::sha256, token);
  const model::gallery_link* found = nullptr;
  for (const auto& l : g.links)
    if (crypto::equal_constant_time(l.token_sha256, hash) && (!l.expires_ms || l.expires_ms > wall_ms)) found = &l;
  return found;
}

std::string cookie_for(const shown_token& t, const model::gallery_link& l, std::uint64_t wall_ms) {
  const std::uint64_t left = l.expires_ms ? std::min(l.expires_ms - wall_ms, year_ms) : year_ms;
  return std::string(cookie_name) + "=" + http::percent_encode(t.token) + "; Path=/; Max-Age=" + std::to_string(left / 1000) + "; HttpOnly; SameSite=Lax";
}

std::string local_path(std::string_view path) {
  const auto begins = path.find_first_not_of('/');
  return "/" + std::string(begins == path.npos ? std::string_view() : path.substr(begins));
}

std::string without_token(const http::request& r) {
  std::string rest;
  if (auto q = http::parse_query(r.query))
    for (const auto& [name, value] : *q)
      if (name != "key") rest += (rest.empty() ? "?" : "&") + http::percent_encode(name) + "=" + http::percent_encode(value);
  return local_path(r.path) + rest;
}

std::optional<original_name> parse_original(std::string_view key) {
  constexpr std::size_t digits = 2 * gallery::photo_id::size_bytes;
  if (!key.starts_with("o/") || key.size() < 2 + digits + 2 || key[2 + digits] != '/') return std::nullopt;
  auto id = gallery::photo_id::from_hex(key.substr(2, digits));
  if (!id) return std::nullopt;
  return original_name{*id, std::string(key.substr(2 + digits + 1))};
}

std::optional<std::string> source_key(const gallery::record& r, std::string_view file) {
  for (const auto& n : r.names)
    if (gallery::base_name(n.key) == file) return n.key;
  if (r.names.empty()) return std::nullopt;
  return r.names.front().key;
}

std::string_view media_type(std::string_view format) {
  if (format == "jpeg") return "image/jpeg";
  if (format == "png") return "image/png";
  if (format == "webp") return "image/webp";
  if (format == "gif") return "image/gif";
  if (format == "avif") return "image/avif";
  if (format == "heic") return "image/heic";
  return {};
}

void add_protection(http::headers& h) {
  h.add("Content-Security-Policy", "default-src 'none'; img-src 'self' data: blob:; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
                                   "form-action 'none'; frame-ancestors 'none'");
  h.add("Referrer-Policy", "no-referrer");
  h.add("Cross-Origin-Resource-Policy", "same-site");
}

}  // namespace grenier::web
