#include "wire/pace.h"

#include "crypto/crypto.h"
#include "wire/frame.h"

namespace grenier::wire {

namespace {
constexpr std::size_t batch_max = 64 << 10;
double in_seconds(nanoseconds d) { return static_cast<double>(d.count()) * 1e-9; }
}  // namespace

void pacer::round_trip(nanoseconds s, bool alone, mono_time now) {
  if (alone && now - minimum_since_ > minimum_kept) {
    minimum_before_ = minimum_;
    minimum_ = unknown;
    minimum_since_ = now;
  }
  minimum_ = std::min(minimum_, s);
}

void pacer::wrote(std::size_t size_bytes, std::size_t unsent_before) noexcept {
  if (!busy_) {
    busy_ = true;
    anchored_ = false;
    anchor_acked_ = written_ - std::min<std::uint64_t>(written_, unsent_before);
  }
  written_ += size_bytes;
}

void pacer::observe(std::size_t unsent, mono_time now) {
  if (!busy_) return;
  std::uint64_t acked = written_ - std::min<std::uint64_t>(written_, unsent);
  if (!anchored_) {  // the first acknowledgement starts the measurement: the round trip before it is not the line's rate
    if (acked <= anchor_acked_) return;
    anchored_ = true;
    anchor_acked_ = acked;
    anchor_ = now;
    return;
  }
  if (acked <= anchor_acked_) return;
  std::uint64_t bytes_acked = acked - anchor_acked_;
  nanoseconds took = now - anchor_;
  nanoseconds round = round_trip_min() == unknown ? 50ms : round_trip_min();
  bool enough = took >= 100ms || (bytes_acked >= 256 << 10 && took >= std::max<nanoseconds>(1ms, round)) ||
                (learning_ && bytes_acked >= 16 << 10 && took >= std::max<nanoseconds>(10ms, round * 3 / 2));
  if (!enough) return;
  sample(static_cast<double>(bytes_acked) / in_seconds(took));
  anchor_acked_ = acked;
  anchor_ = now;
}

void pacer::sample(double r) noexcept {
  if (rate_ > 0 && r < rate_ * 1.25) learning_ = false;
  if (r >= rate_)
    rate_ = r;
  else
    rate_ += (r - rate_) / 8;
}

bool pacer::quick() const noexcept { return rate_ > 0 ? rate_ > quick_rate : round_trip_min() < 2ms; }

std::size_t pacer::cap_bytes() const noexcept {
  if (rate_ <= 0) return round_trip_min() < 2ms ? 4 << 20 : 16 << 10;
  nanoseconds round = round_trip_min() == unknown ? 50ms : round_trip_min();
  auto by_time = static_cast<std::size_t>(rate_ * in_seconds(round + surplus));
  return std::max<std::size_t>(by_time + 2 * segment_bytes, rate_ < slow_rate ? 0 : 16 << 10);
}

std::size_t pacer::record_bytes() const noexcept {
  if (quick()) return 64 << 10;
  if (rate_ <= 0 || rate_ >= slow_rate) return 8 << 10;
  return 2 * segment_bytes - record_prefix_bytes - crypto::seal_overhead_bytes;  // fills its segments: headers cost 4 % already
}

std::size_t pacer::batch_bytes() const noexcept {
  if (rate_ > 0 && rate_ < slow_rate) return record_bytes();
  return std::clamp(cap_bytes() / 2, record_bytes(), batch_max);
}

nanoseconds pacer::pause(std::size_t unsent) const noexcept {
  std::size_t cap = cap_bytes();
  if (unsent < cap) return 0ns;
  if (rate_ <= 0) return 2ms;
  auto d = nanoseconds(static_cast<std::int64_t>(static_cast<double>(unsent - cap) / rate_ * 1e9));
  return std::clamp<nanoseconds>(d, 1ms, 10ms);
}

void rate_limit::take(std::size_t size_bytes, mono_time now) noexcept {
  if (!limited()) return;
  // Up to 50 ms of unused time is kept, so that a burst after a pause passes.
  free_ = std::max(free_, now - 50ms) + nanoseconds(static_cast<std::int64_t>(static_cast<double>(size_bytes) / rate_ * 1e9));
}

std::size_t rate_limit::batch_bytes() const noexcept {
  return std::max<std::size_t>(2 << 10, static_cast<std::size_t>(rate_ * 0.05));
}

}  // namespace grenier::wire
