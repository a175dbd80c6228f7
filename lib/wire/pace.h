// wire/pace.h: how much to hand to a socket, as a machine without I/O: acknowledged bytes and round trips in, a cap out.
//
// What is in the socket cannot be overtaken any more, so it is capped by time: what the line carries in its shortest round trip
// and 50 ms on top. The surplus keeps the line full while its rate is being learned: an estimate that is too low lets more
// through than it says, and is corrected upwards at once; downwards slowly.
//
//   Source    Brakmo and Peterson, "TCP Vegas" (1995), and Cardwell et al., "BBR" (2016), for the idea; rule 5b.19.
#pragma once

#include "async/async.h"

namespace grenier::wire {

class pacer {
 public:
  static constexpr nanoseconds surplus = 50ms;
  static constexpr nanoseconds minimum_kept = 15s;
  static constexpr std::size_t segment_bytes = 1448;  // acknowledgements come in steps of these
  static constexpr double slow_rate = 125e3;   // 1 Mbit/s: shorter frames
  static constexpr double quick_rate = 12.5e6;  // 100 Mbit/s: longer ones, for the processor's sake

  explicit pacer(double known_rate = 0) : rate_(known_rate) {}  // as an earlier connection measured it
  // Of a ping. `alone`: nothing to speak of was in the socket before it; only such samples replace a smaller one that is old.
  void round_trip(nanoseconds sample, bool alone, mono_time now);
  // No ping went alone for long: the socket should be left to drain before the next one, or the queue that this end makes itself
  // would be taken for the line, and grow with each look.
  bool wants_drain(mono_time now) const noexcept { return now - minimum_since_ > 2 * minimum_kept; }
  void wrote(std::size_t size_bytes, std::size_t unsent_before) noexcept;
  // Call now and then while there is something to send.
  void observe(std::size_t unsent, mono_time now);
  // Nothing to send: the time until the next wrote() says nothing about the line.
  void idle() noexcept { busy_ = false; }

  double rate() const noexcept { return rate_; }  // bytes/s; 0: not known
  nanoseconds round_trip_min() const noexcept { return std::min(minimum_, minimum_before_); }
  std::size_t cap_bytes() const noexcept;     // write no more while so much is unsent
  std::size_t record_bytes() const noexcept;  // plaintext of one record
  std::size_t batch_bytes() const noexcept;   // of one write
  nanoseconds pause(std::size_t unsent) const noexcept;  // 0: write; else look again after it

 private:
  static constexpr nanoseconds unknown = nanoseconds::max();
  bool quick() const noexcept;
  void sample(double rate) noexcept;
  double rate_ = 0;
  bool learning_ = true;
  nanoseconds minimum_ = unknown, minimum_before_ = unknown;  // of this while, and of the one before
  mono_time minimum_since_{};
  std::uint64_t written_ = 0;
  bool busy_ = false, anchored_ = false;
  std::uint64_t anchor_acked_ = 0;
  mono_time anchor_{};
};

// Bytes per second over all peers. Takes first, then says how long to wait: a frame is never split.
class rate_limit {
 public:
  explicit rate_limit(std::uint64_t bytes_per_second) : rate_(static_cast<double>(bytes_per_second)) {}
  bool limited() const noexcept { return rate_ > 0; }
  void take(std::size_t size_bytes, mono_time now) noexcept;
  nanoseconds wait(mono_time now) const noexcept { return limited() && free_ > now ? free_ - now : 0ns; }
  // What 50 ms carry; at least 2 KiB.
  std::size_t batch_bytes() const noexcept;

 private:
  double rate_;
  mono_time free_{};
};

}  // namespace grenier::wire
