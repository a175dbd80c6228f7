#include "layout/layout.h"

#include <algorithm>
#include <bit>

#include "layout/rules.h"

namespace grenier::layout {
namespace {

bool contains(const replica_set& set, const node_id& n) { return std::find(set.begin(), set.end(), n) != set.end(); }

// The replicas of p that are not in `these`.
std::set<node_id> others(const version& v, partition p, const std::set<node_id>& these) {
  std::set<node_id> r;
  for (const auto& n : v.replicas(p))
    if (!these.contains(n)) r.insert(n);
  return r;
}

// Those that do not know the joint revision could still make a quorum of v between them, whoever is dark.
bool still_decides(const version& v, partition p, const std::set<node_id>& knows) {
  const auto& all = v.replicas(p);
  return is_quorum(v, p, others(v, p, knows), std::set<node_id>(all.begin(), all.end()));
}

state step(const state& s, layout::phase to) {
  state r = s;
  ++r.revision;
  r.phase = to;
  return r;
}

// The oldest are forgotten beyond the bound.
void remember_removed(state& s, const node_id& n) {
  if (std::find(s.removed.begin(), s.removed.end(), n) != s.removed.end()) return;
  s.removed.push_back(n);
  if (s.removed.size() > removed_remembered_max) s.removed.erase(s.removed.begin(), s.removed.end() - removed_remembered_max);
}

}  // namespace

const member* version::find(const node_id& n) const {
  auto at = std::lower_bound(members.begin(), members.end(), n, [](const member& m, const node_id& id) { return m.node < id; });
  return at != members.end() && at->node == n ? &*at : nullptr;
}

std::size_t version::copies() const { return assignment.empty() ? 0 : assignment.front().size(); }

std::vector<const version*> state::write_versions() const {
  if (phase == phase::settled) return {&current};
  return {&current, &*next};
}

std::vector<const version*> state::read_versions() const {
  if (phase == phase::joint) return {&current, &*next};
  return {&current};
}

std::vector<node_id> state::all_replicas(partition p) const {
  std::vector<node_id> r = current.replicas(p);
  if (next)
    for (const auto& n : next->replicas(p))
      if (!contains(r, n)) r.push_back(n);
  return r;
}

const member* state::find(const node_id& n) const {
  if (next)
    if (const auto* m = next->find(n)) return m;
  return current.find(n);
}

partition partition_of(bytes_view key, std::size_t partition_count) {
  ASSERT(std::has_single_bit(partition_count) && partition_count > 1 && partition_count <= 65536);
  return static_cast<partition>(xxh3_64(key) >> (64 - std::countr_zero(partition_count)));
}

bool is_quorum(const version& v, partition p, const std::set<node_id>& answered, const std::set<node_id>& dark) {
  const auto& replicas = v.replicas(p);
  if (replicas.size() != 2) {
    const auto yes = std::count_if(replicas.begin(), replicas.end(), [&](const node_id& n) { return answered.contains(n); });
    return static_cast<std::size_t>(yes) * 2 > replicas.size();
  }
  const member* casting = v.find(v.casting);
  if (!casting) return false;
  for (const auto& n : replicas) {
    const member* m = v.find(n);
    const bool decides = m && m->zone == casting->zone;
    if (!answered.contains(n) && (decides || !dark.contains(n))) return false;
  }
  return true;
}

bool can_be_quorum(const version& v, partition p, const std::set<node_id>& failed, const std::set<node_id>& dark) {
  return is_quorum(v, p, others(v, p, failed), dark);
}

state found(cluster_id cluster, member first, std::size_t partition_count) {
  ASSERT(std::has_single_bit(partition_count) && partition_count >= 256 && partition_count <= 16384);
  state s;
  s.revision = 1;
  s.cluster = cluster;
  s.current.number = 1;
  s.current.assignment.assign(partition_count, {first.node});
  s.current.members.push_back(std::move(first));
  return s;
}

result<state> start_change(const state& s, std::vector<member> members, std::vector<node_id> removed) {
  if (s.phase != phase::settled) return fail(errc::conflict, "another change of the layout is under way");
  state r = step(s, phase::moving);
  for (const auto& n : removed) remember_removed(r, n);
  for (const auto& m : members)
    if (std::find(r.removed.begin(), r.removed.end(), m.node) != r.removed.end())
      return fail(errc::invalid_argument, "node " + m.node.short_hex() + " was removed; it can only join again with a new key");
  TRY(plan p, assign(s.current, std::move(members)));
  if (p.next.members == s.current.members && r.removed == s.removed)
    return fail(errc::conflict, "these are the members already");
  p.next.number = r.revision;
  r.next = std::move(p.next);
  return r;
}

result<state> to_joint(const state& s, const std::function<std::set<node_id>(partition)>& synced) {
  if (s.phase != phase::moving) return fail(errc::conflict, "no change is moving");
  for (std::size_t p = 0; p < s.partition_count(); ++p)
    if (!is_quorum(*s.next, static_cast<partition>(p), synced(static_cast<partition>(p)), {}))
      return fail(errc::conflict, "partition " + std::to_string(p) + " has no quorum of synced replicas yet");
  return step(s, phase::joint);
}

result<state> to_settled(const state& s, const std::set<node_id>& knows) {
  if (s.phase != phase::joint) return fail(errc::conflict, "no change is joint");
  for (std::size_t p = 0; p < s.partition_count(); ++p)
    if (still_decides(s.current, static_cast<partition>(p), knows))
      return fail(errc::conflict, "in partition " + std::to_string(p) + " replicas that do not know of the change could still decide");
  state r = step(s, phase::settled);
  r.current = std::move(*r.next);
  r.next.reset();
  return r;
}

result<state> abandon(const state& s, const std::vector<node_id>& removed) {
  if (s.phase != phase::moving) return fail(errc::conflict, "no change is moving");
  state r = step(s, phase::settled);
  r.next.reset();
  std::erase_if(r.removed, [&](const node_id& n) { return r.current.find(n) != nullptr; });
  for (const auto& n : removed) {
    if (r.current.find(n)) return fail(errc::invalid_argument, "node " + n.short_hex() + " was a member before this change");
    remember_removed(r, n);
  }
  return r;
}

std::set<node_id> waits_for(const state& s, const std::function<std::set<node_id>(partition)>& synced, const std::set<node_id>& knows) {
  std::set<node_id> r;
  if (s.phase == phase::settled) return r;
  for (std::size_t i = 0; i < s.partition_count(); ++i) {
    const auto p = static_cast<partition>(i);
    if (s.phase == phase::moving) {
      const auto have = synced(p);
      if (!is_quorum(*s.next, p, have, {})) r.merge(others(*s.next, p, have));
    } else if (still_decides(s.current, p, knows)) {
      r.merge(others(s.current, p, knows));
    }
  }
  return r;
}

}  // namespace grenier::layout
