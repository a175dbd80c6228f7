// kv/bounds.h: what every form of the store refuses, and how scans are made of walks.
#pragma once

#include "kv/kv.h"

namespace grenier::kv {

inline constexpr std::size_t key_bytes_max = 4 << 10;
inline constexpr std::size_t value_bytes_max = 16 << 20;
inline constexpr std::size_t batch_bytes_max = 64 << 20;

// too_large, saying what; checked before anything is queued.
result<void> check(const batch&);

// Collects entries up to the bounds of a scan.
struct collector {
  explicit collector(scan_options o) : options(std::move(o)) {}
  store::step operator()(bytes_view key, bytes_view value);
  scan_options options;
  std::vector<entry> entries;
  std::size_t bytes_taken = 0;
};

}  // namespace grenier::kv
