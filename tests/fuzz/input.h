// input.h: fuzzed bytes taken apart: numbers, and pieces of bytes that say their own length.
#pragma once

#include "base/base.h"

namespace grenier::fuzz {

class input {
 public:
  input(const std::uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}
  bool empty() const { return rest_.empty(); }
  std::uint8_t byte() {
    if (rest_.empty()) return 0;
    auto b = static_cast<std::uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    return b;
  }
  // So many, or what is left.
  bytes_view take(std::size_t n) {
    bytes_view p = rest_.substr(0, n);
    rest_.remove_prefix(p.size());
    return p;
  }
  // Exactly so many: what is missing is zero.
  bytes exactly(std::size_t n) {
    bytes p(take(n));
    p.resize(n);
    return p;
  }
  // Two bytes of length, then that.
  bytes_view piece() {
    const std::size_t n = byte();
    return take(n << 8 | byte());
  }

 private:
  bytes_view rest_;
};

}  // namespace grenier::fuzz
