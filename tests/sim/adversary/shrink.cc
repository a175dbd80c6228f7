#include "sim/adversary/shrink.h"

#include <algorithm>

namespace grenier::sim {

std::string command_of(const wishes& w) {
  auto joined = [](const std::set<std::string>& names) {
    std::string s;
    for (const auto& n : names) s += (s.empty() ? "" : ",") + n;
    return s;
  };
  std::string c = "scripts/sim --seeds 1 --seed " + std::to_string(w.seed);
  if (!w.shape.empty()) c += " --shape " + w.shape;
  if (w.faults) c += " --faults " + (w.faults->empty() ? "none" : joined(*w.faults));
  if (w.workloads) c += " --workload " + joined(*w.workloads);
  if (w.checks) c += " --checks " + joined(*w.checks);
  if (!w.mutation.empty()) c += " --mutation " + w.mutation;
  if (w.keep) {
    std::string s;
    for (auto n : *w.keep) s += (s.empty() ? "" : ",") + std::to_string(n);
    c += " --keep " + (s.empty() ? "none" : s);
  }
  if (w.clients) c += " --clients " + std::to_string(*w.clients);
  if (w.until) c += " --until " + std::to_string(*w.until / 1ms);
  return c;
}

shrunk shrink(wishes w, std::string failure, std::size_t tries_max) {
  shrunk best{w, std::move(failure), {}, 0};
  auto still_fails = [&](const wishes& less) {
    if (best.tries >= tries_max) return false;
    ++best.tries;
    scene s(less);
    tally t;
    std::string bad = s.play(t);
    if (bad.empty()) return false;
    best.smallest = less;
    best.failure = std::move(bad);
    return true;
  };
  scene whole(w);
  std::vector<std::size_t> left;
  for (const auto& s : whole.plan())
    if ((!w.keep || w.keep->contains(s.number)) && (!w.faults || w.faults->contains(s.kind))) left.push_back(s.number);
  // A shorter history first: what comes after the failure costs time in every further try.
  for (nanoseconds length = whole.planned_length(); length > 500ms && best.tries < tries_max;) {
    wishes less = best.smallest;
    less.until = length * 2 / 3;
    if (!still_fails(less)) break;
    length = *less.until;
  }
  // Halves, quarters ... of the faults; then each.
  for (std::size_t piece = std::max<std::size_t>(left.size(), 1); piece > 0; piece /= 2)
    for (std::size_t at = 0; at < left.size() && best.tries < tries_max;) {
      std::vector<std::size_t> fewer;
      for (std::size_t i = 0; i < left.size(); ++i)
        if (i < at || i >= at + piece) fewer.push_back(left[i]);
      wishes less = best.smallest;
      less.keep = {fewer.begin(), fewer.end()};
      if (still_fails(less)) left = std::move(fewer);
      else at += piece;
    }
  for (std::size_t n = whole.planned_clients(); n > 1;) {
    wishes less = best.smallest;
    less.clients = --n;
    if (!still_fails(less)) break;
  }
  for (const auto& s : whole.plan())
    if (std::find(left.begin(), left.end(), s.number) != left.end() && (!best.smallest.until || s.at < *best.smallest.until)) best.strikes.push_back(s);
  return best;
}

}  // namespace grenier::sim
