// Values of HTTP: headers, percent-encoding, dates, ranges.
#include <cctype>
#include <charconv>
#include <cstdio>
#include <ctime>

#include "http/http.h"

namespace grenier::http {

namespace {

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
         });
}

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = static_cast<char>(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

constexpr const char* days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
constexpr const char* months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

template <class T>
bool number(std::string_view s, T& v) {
  auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), v);
  return !s.empty() && ec == std::errc() && end == s.data() + s.size() && s[0] != '-';
}

}  // namespace

void headers::set(std::string_view name, std::string value) {
  for (auto& h : list_)
    if (same_name(h.name, name)) {
      h.value = std::move(value);
      return;
    }
  add(std::string(name), std::move(value));
}

void headers::remove(std::string_view name) {
  std::erase_if(list_, [&](const header& h) { return same_name(h.name, name); });
}

std::optional<std::string_view> headers::find(std::string_view name) const {
  for (const auto& h : list_)
    if (same_name(h.name, name)) return h.value;
  return std::nullopt;
}

std::size_t headers::count(std::string_view name) const {
  return static_cast<std::size_t>(std::count_if(list_.begin(), list_.end(), [&](const header& h) { return same_name(h.name, name); }));
}

std::string request::host() const {
  std::string h(headers.get("host"));
  auto colon = h.rfind(':');
  if (colon != std::string::npos && h.find(']', colon) == std::string::npos) h.resize(colon);
  for (char& c : h) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return h;
}

std::optional<std::string> percent_decode(std::string_view s, bool plus_is_space) {
  std::string out;
  out.reserve(s.size());
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '%') {
      if (i + 2 >= s.size() || digit(s[i + 1]) < 0 || digit(s[i + 2]) < 0) return std::nullopt;
      out.push_back(static_cast<char>(digit(s[i + 1]) * 16 + digit(s[i + 2])));
      i += 2;
    } else {
      out.push_back(plus_is_space && s[i] == '+' ? ' ' : s[i]);
    }
  }
  return out;
}

std::string percent_encode(std::string_view s, bool keep_slash) {
  constexpr char hex[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(s.size() + s.size() / 4);
  for (unsigned char c : s) {
    bool keep = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' ||
                c == '~' || (keep_slash && c == '/');
    if (keep) {
      out.push_back(static_cast<char>(c));
    } else {
      out.push_back('%');
      out.push_back(hex[c >> 4]);
      out.push_back(hex[c & 15]);
    }
  }
  return out;
}

std::optional<std::vector<std::pair<std::string, std::string>>> parse_query(std::string_view raw) {
  std::vector<std::pair<std::string, std::string>> pairs;
  while (!raw.empty()) {
    auto end = raw.find('&');
    std::string_view one = raw.substr(0, end);
    raw = end == std::string_view::npos ? std::string_view() : raw.substr(end + 1);
    if (one.empty()) continue;
    auto eq = one.find('=');
    auto name = percent_decode(one.substr(0, eq), true);
    auto value = eq == std::string_view::npos ? std::string() : percent_decode(one.substr(eq + 1), true);
    if (!name || !value) return std::nullopt;
    pairs.emplace_back(std::move(*name), std::move(*value));
  }
  return pairs;
}

std::string format_date(std::uint64_t ms_since_1970) {
  auto t = static_cast<std::time_t>(ms_since_1970 / 1000);
  std::tm tm{};
  ::gmtime_r(&t, &tm);
  char b[64];
  std::snprintf(b, sizeof b, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900,
                tm.tm_hour, tm.tm_min, tm.tm_sec);
  return b;
}

std::optional<std::uint64_t> parse_date(std::string_view s) {
  // IMF-fixdate; the obsolete forms are not sent by anything alive.
  if (s.size() != 29 || s.substr(3, 2) != ", " || s.substr(25) != " GMT" || s[16] != ' ' || s[19] != ':' || s[22] != ':') return std::nullopt;
  std::tm tm{};
  int month = -1;
  for (int i = 0; i < 12; ++i)
    if (s.substr(8, 3) == months[i]) month = i;
  if (month < 0 || !number(s.substr(5, 2), tm.tm_mday) || !number(s.substr(12, 4), tm.tm_year) || !number(s.substr(17, 2), tm.tm_hour) ||
      !number(s.substr(20, 2), tm.tm_min) || !number(s.substr(23, 2), tm.tm_sec))
    return std::nullopt;
  if (tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_year < 1970 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60) return std::nullopt;
  tm.tm_mon = month;
  tm.tm_year -= 1900;
  std::time_t t = ::timegm(&tm);
  return t < 0 ? std::nullopt : std::optional(static_cast<std::uint64_t>(t) * 1000);
}

result<std::optional<byte_range>> parse_range(std::string_view header, std::uint64_t size) {
  std::optional<byte_range> none;
  if (!header.starts_with("bytes=")) return none;
  header.remove_prefix(6);
  auto dash = header.find('-');
  if (dash == std::string_view::npos || header.find(',') != std::string_view::npos) return none;
  std::string_view a = header.substr(0, dash), b = header.substr(dash + 1);
  std::uint64_t first = 0, last = 0;
  if (a.empty()) {
    if (!number(b, last)) return none;
    if (last == 0 || size == 0) return fail(errc::invalid_range, "the range is empty");
    return std::optional(byte_range{size - std::min(size, last), size - 1});
  }
  if (!number(a, first) || (!b.empty() && !number(b, last))) return none;
  if (!b.empty() && last < first) return none;
  if (first >= size) return fail(errc::invalid_range, "the range begins beyond the end");
  return std::optional(byte_range{first, b.empty() ? size - 1 : std::min(last, size - 1)});
}

std::string_view reason(int status) noexcept {
  switch (status) {
    case 100: return "Continue";
    case 200: return "OK";
    case 201: return "Created";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 416: return "Range Not Satisfiable";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    default: return "Unknown";
  }
}

}  // namespace grenier::http
