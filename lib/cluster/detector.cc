#include "cluster/detector.h"

#include <algorithm>
#include <cmath>

namespace grenier::cluster {

void detector::heard(mono_time now) {
  if (last_) {
    const double gap = std::chrono::duration<double>(now - *last_).count();
    gaps_.push_back(gap);
    sum_ += gap;
    squares_ += gap * gap;
    if (gaps_.size() > window) {
      sum_ -= gaps_.front();
      squares_ -= gaps_.front() * gaps_.front();
      gaps_.pop_front();
    }
  }
  last_ = std::max(now, last_.value_or(now));
}

static constexpr double phi_max = 100;

double detector::phi(mono_time now) const {
  if (!last_) return 0;
  const double every = std::chrono::duration<double>(every_).count();
  // The sending interval itself counts as a few gaps, so that the first answers alone do not decide.
  constexpr double known = 4;
  const double n = static_cast<double>(gaps_.size()) + known;
  const double mean = (sum_ + known * every) / n;
  const double variance = std::max(0.0, (squares_ + known * (every * every * 1.0625)) / n - mean * mean);
  const double deviation = std::max(deviation_min_s, std::sqrt(variance));
  const double late = std::chrono::duration<double>(now - *last_ - pause).count();
  const double y = (late - mean) / deviation;
  if (y > 100) return phi_max;
  // log10 of the normal distribution's tail, by the logistic approximation; for large y the tail is the exponent itself.
  const double x = y * (1.5976 + 0.070566 * y * y);
  const double tail_log = x > 30 ? -x : -std::log1p(std::exp(x));
  return std::clamp(-tail_log / std::log(10.0), 0.0, phi_max);
}

}  // namespace grenier::cluster
