#include "base/base.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace grenier {

namespace {

struct errc_name {
  errc code;
  std::string_view name;
};
constexpr errc_name names[] = {
#define X(n) {errc::n, #n}
    X(invalid_argument), X(access_denied), X(not_implemented), X(too_large), X(not_found), X(no_such_bucket),
    X(no_such_key), X(no_such_upload), X(already_exists), X(bucket_already_owned_by_you), X(bucket_not_empty),
    X(bad_digest), X(checksum_mismatch), X(incomplete_body), X(invalid_part), X(invalid_part_order),
    X(part_too_small), X(invalid_range), X(condition_failed), X(not_modified), X(conflict), X(unavailable),
    X(timed_out), X(outcome_unknown), X(stale_layout), X(not_synced), X(overloaded), X(no_space), X(quota_exceeded),
    X(clock_skew), X(corrupt), X(io_failed), X(cancelled), X(protocol), X(internal),
#undef X
};
constexpr auto codes = [] {
  std::array<errc, std::size(names)> a{};
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = names[i].code;
  return a;
}();
static_assert(static_cast<std::size_t>(errc::internal) == std::size(names), "a code without a name");

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

constexpr std::string_view base64_alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

template <class T>
void append_big_endian(bytes& to, T v) {
  char b[sizeof(T)];
  for (std::size_t i = 0; i < sizeof(T); ++i) b[i] = static_cast<char>(v >> (8 * (sizeof(T) - 1 - i)));
  to.append(b, sizeof(T));
}

template <class T>
T read_big_endian(bytes_view b) {
  ASSERT(b.size() >= sizeof(T));
  T v = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) v = static_cast<T>((v << 8) | static_cast<unsigned char>(b[i]));
  return v;
}

}  // namespace

std::string_view to_string(errc c) noexcept {
  for (const auto& n : names)
    if (n.code == c) return n.name;
  return "unknown";
}

std::span<const errc> all_errcs() noexcept { return codes; }

std::string error::to_string() const {
  std::string s(grenier::to_string(code));
  if (!detail.empty()) s.append(": ").append(detail);
  return s;
}

void assertion_failed(const char* what, const char* file, int line) {
  std::fprintf(stderr, "grenier: broken invariant: %s (%s:%d)\n", what, file, line);
  std::fflush(stderr);
  std::abort();
}

std::string to_hex(bytes_view b) {
  constexpr char digits[] = "0123456789abcdef";
  std::string s;
  s.reserve(b.size() * 2);
  for (unsigned char c : b) {
    s.push_back(digits[c >> 4]);
    s.push_back(digits[c & 15]);
  }
  return s;
}

result<bytes> from_hex(std::string_view h) {
  if (h.size() % 2) return fail(errc::invalid_argument, "hex digits come in pairs");
  bytes b;
  b.reserve(h.size() / 2);
  for (std::size_t i = 0; i < h.size(); i += 2) {
    int hi = hex_digit(h[i]), lo = hex_digit(h[i + 1]);
    if (hi < 0 || lo < 0) return fail(errc::invalid_argument, "not a hex digit");
    b.push_back(static_cast<char>(hi * 16 + lo));
  }
  return b;
}

std::string to_base64(bytes_view b) {
  std::string s;
  s.reserve((b.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < b.size(); i += 3) {
    std::uint32_t v = 0;
    std::size_t n = std::min<std::size_t>(3, b.size() - i);
    for (std::size_t j = 0; j < 3; ++j) v = v << 8 | (j < n ? static_cast<unsigned char>(b[i + j]) : 0);
    for (std::size_t j = 0; j < 4; ++j) s.push_back(j <= n ? base64_alphabet[v >> (18 - 6 * j) & 63] : '=');
  }
  return s;
}

result<bytes> from_base64(std::string_view s) {
  if (s.size() % 4) return fail(errc::invalid_argument, "base64 comes in groups of four");
  bytes b;
  b.reserve(s.size() / 4 * 3);
  for (std::size_t i = 0; i < s.size(); i += 4) {
    std::uint32_t v = 0;
    int pad = 0;
    for (std::size_t j = 0; j < 4; ++j) {
      char c = s[i + j];
      auto at = base64_alphabet.find(c);
      if (c == '=' && i + 4 == s.size() && j >= 2) {
        ++pad;
        at = 0;
      } else if (at == std::string_view::npos || pad) {
        return fail(errc::invalid_argument, "not base64");
      }
      v = v << 6 | static_cast<std::uint32_t>(at);
    }
    for (int j = 0; j < 3 - pad; ++j) b.push_back(static_cast<char>(v >> (16 - 8 * j)));
  }
  return b;
}

void append_u16(bytes& to, std::uint16_t v) { append_big_endian(to, v); }
void append_u32(bytes& to, std::uint32_t v) { append_big_endian(to, v); }
void append_u64(bytes& to, std::uint64_t v) { append_big_endian(to, v); }
std::uint16_t read_u16(bytes_view b) { return read_big_endian<std::uint16_t>(b); }
std::uint32_t read_u32(bytes_view b) { return read_big_endian<std::uint32_t>(b); }
std::uint64_t read_u64(bytes_view b) { return read_big_endian<std::uint64_t>(b); }

std::uint64_t xxh3_64(bytes_view b, std::uint64_t seed) noexcept {
  return XXH3_64bits_withSeed(b.data(), b.size(), seed);
}

u128 xxh3_128(bytes_view b) noexcept {
  XXH128_hash_t h = XXH3_128bits(b.data(), b.size());
  return {h.high64, h.low64};
}

result<std::uint64_t> parse_size(std::string_view s) {
  auto wrong = [&] {
    return fail(errc::invalid_argument, "'" + std::string(s) + "' is not a size (examples: 10G, 512M, 64KiB, 1.5T)");
  };
  double number = 0;
  auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), number, std::chars_format::fixed);
  if (ec != std::errc() || !(number >= 0)) return wrong();
  std::string_view unit = s.substr(static_cast<std::size_t>(end - s.data()));
  if (!unit.empty() && (unit.back() == 'B' || unit.back() == 'b')) unit.remove_suffix(1);
  double base = 1000;
  if (unit.size() == 2 && unit[1] == 'i') {
    base = 1024;
    unit.remove_suffix(1);
  }
  double factor = 1;
  if (unit.size() == 1) {
    auto power = std::string_view("KMGTP").find(static_cast<char>(unit[0] & ~0x20));
    if (power == std::string_view::npos) return wrong();
    factor = std::pow(base, static_cast<double>(power + 1));
  } else if (!unit.empty()) {
    return wrong();
  }
  double total = number * factor;
  if (total >= 9.2e18) return wrong();
  return static_cast<std::uint64_t>(std::llround(total));
}

std::string format_size(std::uint64_t n) {
  if (n < 1024) return std::to_string(n) + " B";
  constexpr const char* units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double v = static_cast<double>(n);
  int u = -1;
  while (v >= 1024 && u < 5) v /= 1024, ++u;
  char buf[32];
  std::snprintf(buf, sizeof buf, v < 10 ? "%.1f %s" : "%.0f %s", v, units[u]);
  return buf;
}

bytes ballot::encode() const {
  bytes b;
  b.reserve(20);
  append_u64(b, time.value);
  append_u64(b, node);
  append_u32(b, start);
  return b;
}

result<ballot> ballot::decode(bytes_view b) {
  if (b.empty()) return ballot{};
  if (b.size() != 20) return fail(errc::invalid_argument, "a ballot has 20 bytes");
  return ballot{{read_u64(b)}, read_u64(b.substr(8)), read_u32(b.substr(16))};
}

}  // namespace grenier
