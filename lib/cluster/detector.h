// cluster/detector.h: does a peer still live? Accrual over the gaps between its answers. Private to cluster/.
//
//   Source    Hayashibara, Defago, Yared, Katayama, "The phi Accrual Failure Detector" (2004).
#pragma once

#include "async/async.h"

namespace grenier::cluster {

// REQUIRES: a heartbeat is sent each `every`, from the first heard() on.
class detector {
 public:
  explicit detector(nanoseconds every) : every_(every) {}
  // An answer came.
  void heard(mono_time now);
  // Forgets how the line was; the peer was away.
  void reset() { gaps_.clear(), sum_ = squares_ = 0, last_.reset(); }
  // This node itself stood still for so long: not the peer's fault.
  void excuse(nanoseconds d) {
    if (last_) *last_ += d;
  }
  // -log10 of how likely a gap as long as the present one is, on a line as it was; 0 before the first answer.
  double phi(mono_time now) const;
  std::optional<mono_time> last() const { return last_; }

 private:
  static constexpr std::size_t window = 64;
  // Lost packets and busy moments of either side, beyond what the gaps of late have shown.
  static constexpr nanoseconds pause = 700ms;
  static constexpr double deviation_min_s = 0.1;
  nanoseconds every_;
  std::deque<double> gaps_;  // seconds
  double sum_ = 0, squares_ = 0;
  std::optional<mono_time> last_;
};

}  // namespace grenier::cluster
