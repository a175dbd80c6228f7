#include "block/placement.h"

#include <algorithm>

namespace grenier::block {

void sort_candidates(std::vector<candidate>& c) {
  auto cost = [](const candidate& x) { return x.home ? x.seconds : x.seconds + x.sending / 2 + 0.02; };
  // Stable: equals stay in the caller's order.
  std::vector<std::pair<std::tuple<bool, double, std::size_t>, candidate>> order;
  for (auto& x : c) order.push_back({{x.late, x.self ? -1.0 : cost(x), order.size()}, std::move(x)});
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  c.clear();
  for (auto& o : order) c.push_back(std::move(o.second));
}

placement::placement(const layout::state& s, layout::partition p, std::vector<candidate> sorted)
    : layout_(&s), partition_(p), candidates_(std::move(sorted)) {
  for (const auto& c : candidates_) zone_[c.node] = c.zone;
  set_layout(s);
}

void placement::set_layout(const layout::state& s) {
  layout_ = &s;
  auto all = s.all_replicas(partition_);
  homes_ = {all.begin(), all.end()};
}

std::size_t placement::zones_needed() const {
  const auto& v = layout_->newest();
  std::size_t copies = v.copies();
  if (one_zone_) return 1;
  if (copies >= 3) return 2;
  if (copies < 2) return 1;
  // Two homes: both while both are up; the one with the casting vote goes on alone.
  std::set<std::string> up;
  for (const auto& m : v.members)
    if (m.capacity_bytes && !dark_.contains(m.node)) up.insert(m.zone);
  return std::clamp<std::size_t>(up.size(), 1, 2);
}

std::set<std::string> placement::zones_of(const std::set<node_id>& nodes) const {
  std::set<std::string> z;
  for (const auto& n : nodes)
    if (auto at = zone_.find(n); at != zone_.end()) z.insert(at->second);
  return z;
}

std::optional<candidate> placement::next_target(bool more, const std::function<bool(const candidate&)>& good) {
  std::set<node_id> busy = holders_;
  busy.insert(sending_.begin(), sending_.end());
  auto zones = zones_of(busy);
  if (zones.size() >= zones_needed() + (more ? 1 : 0)) return std::nullopt;
  for (const auto& c : candidates_)
    if (!tried_.contains(c.node) && !zones.contains(c.zone) && (!good || good(c))) {
      tried_.insert(c.node);
      sending_.insert(c.node);
      return c;
    }
  return std::nullopt;
}

void placement::bytes_stored(const node_id& n) {
  sending_.erase(n);
  holders_.insert(n);
}

void placement::bytes_failed(const node_id& n) { sending_.erase(n); }

std::vector<node_id> placement::guests() const {
  std::vector<node_id> g;
  for (const auto& s : {holders_, sending_})
    for (const auto& n : s)
      if (!homes_.contains(n)) g.push_back(n);
  std::sort(g.begin(), g.end());
  return g;
}

std::vector<node_id> placement::to_be_told() const {
  std::vector<node_id> out;
  auto all = guests();
  for (const auto& h : homes_) {
    if (being_told_.contains(h) || sending_.contains(h) || refused_.contains(h)) continue;
    auto at = named_.find(h);
    if (at == named_.end() || !std::all_of(all.begin(), all.end(), [&](const auto& g) { return at->second.contains(g); })) out.push_back(h);
  }
  return out;
}

void placement::told(const node_id& n, std::vector<node_id> named) {
  being_told_.erase(n);
  named_[n].insert(named.begin(), named.end());
}

void placement::not_told(const node_id& n) {
  being_told_.erase(n);
  refused_.insert(n);
}

std::set<node_id> placement::voters() const {
  std::set<node_id> v;
  for (const auto& [home, named] : named_) {
    bool complete = true;
    for (const auto& h : holders_) complete &= homes_.contains(h) || named.contains(h);
    if (complete) v.insert(home);
  }
  return v;
}

bool placement::durable() const {
  if (wants_bytes()) return false;
  if (no_references_) return true;
  auto yes = voters();
  for (const auto* v : layout_->write_versions())
    if (!layout::is_quorum(*v, partition_, yes, dark_)) return false;
  return true;
}

bool placement::hopeless() const {
  for (const auto* v : layout_->write_versions())
    if (!layout::can_be_quorum(*v, partition_, refused_, dark_)) return true;
  if (!wants_bytes() || !sending_.empty()) return false;
  auto zones = zones_of(holders_);
  return std::none_of(candidates_.begin(), candidates_.end(),
                      [&](const auto& c) { return !tried_.contains(c.node) && !zones.contains(c.zone); });
}

}  // namespace grenier::block
