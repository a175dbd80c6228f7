// gallery/roles.h: the services that a gallery is made of, which any home may offer, and who of those that do is chosen.
//
//   photohub   gives a photo's original by its content id
//   thumbhub   renders: gives a photo's small pictures by content id and size
//   metahub    gives a photo's record and the catalogue
//   webui      gives the pages
//
// A home announces what it offers as services of its card (cluster/), beside its load and its lines; a thumbhub also its pace. What is
// given is objects, so whoever gives them reads the nearest copies (the store's order by quality). Work has to be shared out without a
// word between homes: each thumbhub takes a part of the photos as large as it is fast and idle (by weighted rendezvous), and all that
// know the same cards agree who is first, second, third.
//
//   Runs on   its home thread; no I/O.
//   Not here  who reads which copy (cluster::directory::by_quality).
//   Source    Schindelhauer, Schomaker, "Weighted Distributed Hash Tables" (2005).
#pragma once

#include "cluster/cluster.h"

namespace grenier::gallery {

inline const std::string photo_hub = "photohub", thumb_hub = "thumbhub", meta_hub = "metahub", web_ui = "webui";
inline const std::array<std::string, 4> roles = {photo_hub, thumb_hub, meta_hub, web_ui};

// A home in a role, as this home sees it.
struct offer {
  node_id node;
  std::string zone, role;
  bool self = false, up = false;
  nanoseconds rtt{};            // 0: this home, or not measured
  double throughput = 0;        // bytes/s of the line to it; 0: this home, or not measured
  double photos_per_minute = 0; // of a thumbhub: what one of its lanes does; 0: not measured
  double load = 0;              // 0 idle .. 1 busy
};
// Of all roles, those that are dark too; by role, the best first.
std::vector<offer> offers(const cluster::directory&);

// A thumbhub's pace: how long a photo takes, from the first byte that is read of it to the last one written, smoothed.
class pace {
 public:
  void took(nanoseconds);
  nanoseconds of_a_photo() const noexcept { return smoothed_; }
  // What is worth to be told: in steps of a half, and only when it has left its step clearly; 0: not known.
  std::uint64_t announced_ms();

 private:
  nanoseconds smoothed_{};
  std::size_t seen_ = 0;
  std::uint64_t told_ms_ = 0;
};
inline const std::string pace_name = "thumbhub/ms";

// The order of thumbhubs for a piece of work, out of these homes; those that are dark or do not offer it are left out.
std::vector<node_id> order_of(const cluster::directory&, const std::vector<node_id>& of, std::string_view work);

}  // namespace grenier::gallery
