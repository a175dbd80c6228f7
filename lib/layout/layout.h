// layout/layout.h: which node holds what. Pure: no I/O, no clock, no randomness.
//
// A cluster has members (node, zone, capacity). A layout version assigns every partition 1 to 3 replicas in distinct zones: as
// many as there are zones with capacity, three at most. It is computed: maximum flow uses the capacity as fully as the zones
// allow, minimum cost moves as little as possible. Changing it goes through numbered revisions of one state:
//
//   settled(v)      rows of a partition are read and written by quorums of v
//   moving(v, w)    written by quorums of v and of w. What is newest is known from a quorum of v, but a value is shown, and a list is
//                   complete, only when a quorum of w agrees; where it does not, the value is first written back to both. New
//                   replicas of w merge rows from quorums of v
//   joint(v, w)     written and read by quorums of both: every partition of w has a quorum of synced replicas
//   settled(w)      v has ended; entered when, in every partition, enough replicas of v know joint(v, w) that those
//                   that do not cannot form a quorum of v
//
// A change that is `moving` may also be taken back: settled(v) again, with a new revision.
//
// Every request carries the revision that its sender knows; a replica that knows a newer one refuses and hands it over; one
// that knows an older one fetches it first. So requests of neighbouring revisions share a version in which both need a
// quorum, and requests two revisions apart cannot both succeed. Blocks never hold a version: they follow `newest()`.
//
//   Limits    256 to 16384 partitions (a power of two), 1000 members; 4096 removed nodes are remembered. assign() computes for
//             milliseconds in a cluster of homes, for seconds at the limits: then it is work for a pool.
//   Source    DESIGN rules 5b.5, 5b.13, 5b.15; max-flow/min-cost: Ahuja, Magnanti, Orlin, "Network Flows" (1993), ch. 9.
#pragma once

#include <map>
#include <set>

#include "base/base.h"

namespace grenier::layout {

using partition = std::uint16_t;
inline constexpr std::size_t replicas_max = 3;

struct member {
  node_id node;
  std::string zone;                  // 1..64 of [a-z0-9-]
  std::uint64_t capacity_bytes = 0;  // 0: a gateway, which stores nothing
  friend bool operator==(const member&, const member&) = default;
};

// A partition's replicas, in distinct zones, in no particular order of preference.
using replica_set = std::vector<node_id>;

struct version {
  std::uint64_t number = 0;              // the revision that introduced it: never used twice
  std::vector<member> members;           // sorted by node; gateways included
  std::vector<replica_set> assignment;   // one for each partition
  node_id casting;                       // of two zones, the home that may go on alone (5b.15); zero when not two copies
  friend bool operator==(const version&, const version&) = default;
  const member* find(const node_id&) const;
  const replica_set& replicas(partition p) const { return assignment[p]; }
  std::size_t copies() const;            // replicas a partition has: 1, 2 or 3
};

enum class phase : std::uint8_t { settled, moving, joint };

struct state {
  std::uint64_t revision = 0;
  cluster_id cluster;
  layout::phase phase = layout::phase::settled;
  version current;                 // v
  std::optional<version> next;     // w, when moving or joint
  std::vector<node_id> removed;    // taken out by a person; their rows are never merged (5b.14)
  friend bool operator==(const state&, const state&) = default;

  std::size_t partition_count() const { return current.assignment.size(); }
  const version& newest() const { return next ? *next : current; }
  // Versions in which a write, a prepare or a promise needs a quorum; and those that a read needs.
  std::vector<const version*> write_versions() const;
  std::vector<const version*> read_versions() const;
  // Every replica of p in a version in use, each once, those of `current` first.
  std::vector<node_id> all_replicas(partition p) const;
  const member* find(const node_id&) const;      // in the newest version that has it
};

// Top bits of XXH3 of the key.
partition partition_of(bytes_view key, std::size_t partition_count);
inline partition partition_of(const block_hash& h, std::size_t n) { return partition_of(h.view(), n); }

// Does this set of answers make a quorum of p in v? Three replicas: two. Two: the casting home (p's replica in the zone of
// `casting`), and the other one unless it is known to be dark (`dark`). One: that one.
bool is_quorum(const version& v, partition p, const std::set<node_id>& answered, const std::set<node_id>& dark);
// Could any set of the remaining answers still make one?
bool can_be_quorum(const version& v, partition p, const std::set<node_id>& failed, const std::set<node_id>& dark);

// The first state of a cluster of one.
state found(cluster_id, member first, std::size_t partition_count = 256);

struct plan {
  version next;
  std::size_t moved = 0;                 // replicas that are new in next
  double used_fraction = 0;              // of the capacity that the zones allow to be used
  std::map<node_id, std::uint64_t> partitions_of;  // how many each node holds
};
// The best assignment for these members: distinct zones; capacity used as fully as possible (the smallest share of load over
// capacity is maximal, in proportion to capacity); then the fewest moves from `from`. invalid_argument: no member stores anything,
// a name is wrong, two members are one node.
result<plan> assign(const version& from, std::vector<member> members);

// A removed node never becomes a member again (it joins with a new key); removed ones leave `members`: invalid_argument.
// The steps. Each returns the next state (revision + 1) or conflict with the reason why not now.
result<state> start_change(const state&, std::vector<member> members, std::vector<node_id> removed = {});
// synced(p) = replicas of p in `next` that have merged p's rows.
result<state> to_joint(const state&, const std::function<std::set<node_id>(partition)>& synced);
// knows = nodes that are known to know the joint revision.
result<state> to_settled(const state&, const std::set<node_id>& knows);
// Takes a change back while it is `moving` (a new home vanished before it had its rows): settled(v) again. Every request of
// the change needed a quorum of v too, so nothing is lost. `removed`: who was to join and is never to come; a member of v is
// invalid_argument (it leaves by a change of its own).
result<state> abandon(const state&, const std::vector<node_id>& removed = {});
// For people: which nodes a step waits for.
std::set<node_id> waits_for(const state&, const std::function<std::set<node_id>(partition)>& synced, const std::set<node_id>& knows);

// Byte form (Protobuf, versioned); decode checks everything (hostile bytes): invalid_argument.
bytes encode(const state&);
result<state> decode(bytes_view);

}  // namespace grenier::layout
