#include "body.h"

namespace grenier::bench {

namespace {
std::uint64_t check(bytes_view body, std::string_view key) noexcept { return xxh3_64(body.substr(0, body.size() - 8), xxh3_64(key)); }
}  // namespace

void fill_body(bytes& to, std::size_t size_bytes, std::string_view key, std::uint64_t seed) {
  ASSERT(size_bytes >= 16);
  to.resize(size_bytes);
  // splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014): a counter, mixed.
  std::uint64_t state = xxh3_64(key, seed);
  for (std::size_t at = 0; at < size_bytes; at += 8) {
    std::uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    std::memcpy(to.data() + at, &z, std::min<std::size_t>(8, size_bytes - at));
  }
  std::uint64_t last = check(to, key);
  std::memcpy(to.data() + size_bytes - 8, &last, 8);
}

bool is_body_of(bytes_view body, std::string_view key) noexcept {
  if (body.size() < 16) return false;
  std::uint64_t last = 0;
  std::memcpy(&last, body.data() + body.size() - 8, 8);
  return last == check(body, key);
}

}  // namespace grenier::bench
