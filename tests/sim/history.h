// tests/sim/history.h: what clients saw of one key, and whether a register that takes one operation at a time could have shown it.
//
//   Source    Wing and Gong, "Testing and verifying concurrent objects" (1993), with Lowe's memory of configurations (2017).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace grenier::sim {

struct operation {
  // open, close: of a bucket with one key in it (history_of::bucket).
  enum class kind : std::uint8_t { write, read, write_if_absent, write_if_equal, open, close } what = kind::read;
  std::uint64_t value = 0;      // written; 0: deleted / absent
  std::uint64_t expected = 0;   // write_if_equal
  std::uint64_t seen = 0;       // read; close that was refused: 1 when the bucket was not empty
  std::int64_t invoked = 0, returned = 0;  // virtual nanoseconds
  enum class outcome : std::uint8_t { pending, done, refused, unknown, failed } result = outcome::pending;
  // pending and unknown: it may have happened at any time after it was invoked, or never. failed: it surely did not happen.
  int client = 0;
};

// bucket: refused writes and reads met no bucket; open is refused where there is one, close where there is none or something in it.
// Values are 2 or more there.
enum class history_of : std::uint8_t { key, bucket };

// Empty when the history is linearizable from an absent value; else a description of it. gave_up is set when it took too long to tell.
std::string check_linearizable(std::vector<operation> history, bool& gave_up, history_of = history_of::key);

}  // namespace grenier::sim
