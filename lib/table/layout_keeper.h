// table/layout_keeper.h: the layout state that this node knows: kept, handed on, asked for; and the steps of a change.
//
//   Owns      keys "layout" and "synced/..." of family meta; "table.synced" among what this node announces.
//   Durable   a state is known only once it is on disk: what this node tells others about its knowledge survives power loss.
//   Not here  what a state means (layout/).
//   Source    docs/design/0003-registers.md; DESIGN rules 5b.5, 5b.13.
#pragma once

#include "table/core.h"

namespace grenier::table {

class layout_keeper {
 public:
  using compare_and_swap = std::function<task<result<row>>(row_key, judge, op_options)>;
  using read_row = std::function<task<result<row>>(row_key, op_options)>;

  explicit layout_keeper(core& c) : core_(c), adopting_(c.rt), changed_(c.rt) {}
  void serve();
  // not_found: there is none yet.
  task<result<void>> load();
  void start(compare_and_swap, read_row);

  bool known() const noexcept { return state_->revision != 0; }
  const layout::state& state() const noexcept { return *state_; }
  std::shared_ptr<const layout::state> snapshot() const noexcept { return state_; }
  std::uint64_t revision() const noexcept { return state_->revision; }

  // Takes a state over if it is newer; synced before it is known. A founder has every row there is.
  task<result<void>> adopt(layout::state, bool founding = false);
  task<result<void>> adopt_bytes(bytes encoded);
  task<result<void>> fetch_from(node_id, mono_time deadline);
  void on_change(std::move_only_function<void(const layout::state&)> fn) { listeners_.push_back(std::move(fn)); }

  // Is this sender one that may ask, and does it judge by our layout? Nothing: yes. A sender that knows more is asked first, if it is
  // a member; who became one by what it knows is known to other members. The cluster key alone makes nobody's layout ours: a home that was
  // taken out has it too.
  task<result<std::optional<pb::refusal>>> admit(wire::caller, pb::context);
  // The same without waiting, for just before a change is made and just after.
  std::optional<pb::refusal> stale(const pb::context&) const;
  pb::context context(layout::partition) const;

  // In which versions in use does this node count for reading, having merged the partition? 1 current, 2 next.
  std::uint32_t counts(layout::partition) const;
  task<result<void>> mark_synced(std::uint64_t version, std::vector<layout::partition>);
  // Partitions still to be merged for the newest version.
  std::vector<layout::partition> unsynced() const;
  bool said_synced(node_id, const layout::version&, layout::partition) const;
  std::set<node_id> waits_for() const;

  task<result<void>> change(std::function<result<layout::state>(const layout::state&)> step, mono_time deadline);

 private:
  task<void> drive();
  task<void> follow(node_id);
  task<result<void>> catch_up(node_id sender, std::uint64_t revision, mono_time deadline);
  task<result<void>> drive_once();
  bool drives() const;
  std::set<node_id> synced_of_next(layout::partition) const;
  std::set<node_id> knowing() const;
  void announce();
  bool may_stay(const layout::state&, layout::partition) const;
  bool has_bit(std::uint64_t version, layout::partition) const;
  static bool bit(bytes_view map, layout::partition p);

  core& core_;
  semaphore one_{core_.rt, 1};
  key_lock adopting_;
  std::shared_ptr<const layout::state> state_ = std::make_shared<layout::state>();
  bytes encoded_;
  std::map<std::uint64_t, bytes> synced_;  // version number -> bitmap of partitions
  std::map<node_id, std::uint32_t> starts_;
  std::set<node_id> following_;
  std::vector<std::move_only_function<void(const layout::state&)>> listeners_;
  wait_list changed_;
  mono_time looked_{};
  compare_and_swap swap_;
  read_row read_;
};

}  // namespace grenier::table
