#include "gallery/roles.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "crypto/crypto.h"

namespace grenier::gallery {

namespace {

constexpr double default_ms = 1000, size_of_a_page = 64 * 1024;
constexpr std::size_t seen_enough = 8;

double milliseconds_of(nanoseconds d) { return static_cast<double>(d.count()) / 1e6; }

// Milliseconds until something small is here: what a choice is made by.
double cost(const offer& o) {
  double ms = milliseconds_of(o.rtt);
  if (!o.self && o.rtt.count() == 0) ms += 100;  // not measured
  if (o.throughput > 0) ms += size_of_a_page / o.throughput * 1000;
  if (o.role == thumb_hub) ms += o.photos_per_minute > 0 ? 60'000 / o.photos_per_minute : default_ms;
  return (ms + 1) * (1 + std::max(0.0, o.load));
}

// In steps, so that homes that hear of it at different times seldom disagree.
double idle_part(double load) {
  const double steps = std::round(std::clamp(load, 0.0, 4.0) * 2) / 2;
  return 1 / (1 + steps);
}

offer offer_of(const cluster::directory& d, const cluster::node& n, const std::string& role) {
  offer o;
  o.node = n.id;
  o.zone = n.info.zone;
  o.role = role;
  o.self = n.id == d.self();
  o.up = n.up || o.self;
  o.load = n.info.load;
  if (!o.self) o.rtt = d.rtt(n.id), o.throughput = d.rate_to(n.id);
  if (role == thumb_hub)
    if (auto ms = d.announced_number(n.id, pace_name); ms && *ms > 0) o.photos_per_minute = 60'000.0 / static_cast<double>(std::min<std::uint64_t>(*ms, 3'600'000));
  return o;
}

}  // namespace

std::vector<offer> offers(const cluster::directory& d) {
  std::vector<offer> all;
  const auto nodes = d.nodes();
  for (const auto& role : roles) {
    const auto begin = static_cast<std::ptrdiff_t>(all.size());
    for (const auto& n : nodes)
      if (n.info.services.contains(role)) all.push_back(offer_of(d, n, role));
    std::sort(all.begin() + begin, all.end(), [](const offer& a, const offer& b) { return std::tuple(!a.up, cost(a), a.node) < std::tuple(!b.up, cost(b), b.node); });
  }
  return all;
}

void pace::took(nanoseconds n) {
  smoothed_ = seen_++ ? (smoothed_ * 7 + n) / 8 : n;
}

std::uint64_t pace::announced_ms() {
  if (seen_ < seen_enough) return 0;
  const double ms = std::max(1.0, milliseconds_of(smoothed_));
  // Half an octave beyond what was told, or it was never told.
  if (told_ms_ == 0 || std::abs(std::log2(ms / static_cast<double>(told_ms_))) > 0.75)
    told_ms_ = static_cast<std::uint64_t>(std::lround(std::exp2(std::round(std::log2(ms) * 2) / 2)));
  return told_ms_;
}

std::vector<node_id> order_of(const cluster::directory& d, const std::vector<node_id>& of, std::string_view work) {
  std::vector<std::pair<double, node_id>> order;
  const std::uint64_t seed = xxh3_64(work);
  for (const auto& n : of) {
    auto card = d.find(n);
    if (!d.up(n) || !card || !card->info.services.contains(thumb_hub)) continue;
    const auto said = d.announced_number(n, pace_name);
    const double ms = said && *said > 0 ? static_cast<double>(std::min<std::uint64_t>(*said, 3'600'000)) : default_ms;
    const double weight = 1 / ms * idle_part(card ? card->info.load : 0);
    // Uniform in (0, 1]; the larger the weight, the nearer to 0 is what is compared.
    const double u = (static_cast<double>(xxh3_64(n.view(), seed) >> 11) + 1) * 0x1p-53;
    order.emplace_back(-std::log(u) / weight, n);
  }
  std::sort(order.begin(), order.end());
  std::vector<node_id> nodes;
  for (const auto& [score, n] : order) nodes.push_back(n);
  return nodes;
}

}  // namespace grenier::gallery
