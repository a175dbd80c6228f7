// table/repair.h: what brings replicas together without being asked: hints for those that were away, anti-entropy for the rest,
// and the merging of partitions that this node is new to.
//
// All of it goes through the same gate as writes do, in the background, a bounded message at a time.
//
//   Owns      family hint: node, then the row's place.
//   Durable   hints are recorded without waiting; one that is lost is found by anti-entropy.
//   Limits    100000 hints; messages of some hundred rows or about 1 MiB.
//   Source    DESIGN rules 5b.4, 5b.5, 5b.14; DeCandia et al., "Dynamo" (2007).
#pragma once

#include "table/coordinator.h"

namespace grenier::table {

class repair {
 public:
  repair(core& c, layout_keeper& l, replica& r, coordinator& co) : core_(c), layout_(l), replica_(r), coordinator_(co), hurry_(c.rt), to_sync_(c.rt) {}
  void start();
  void now();
  // That node did not take a row which this one holds: it is told when it is there again.
  void hint(node_id, layout::partition, const row_key&);

 private:
  task<void> record(bytes key);
  task<void> hint_loop();
  task<void> deliver_to(node_id);
  struct delivery_outcome {
    bool silent = false;  // nothing can be delivered to that node now
    result<void> done = {};
    ballot written = {};  // what a quorum holds of it
  };
  task<delivery_outcome> deliver(node_id, bytes place);

  task<void> merkle_loop();
  task<void> returned_loop();
  task<bool> told_by_name(node_id);
  task<result<void>> exchange(node_id peer);
  void told(node_id peer, const result<void>&);
  // The partitions of these on which the peer and this node differ; those that it has not merged itself are in `unsynced`.
  task<result<std::vector<layout::partition>>> differing(node_id peer, std::vector<layout::partition>, std::set<layout::partition>* unsynced);
  task<result<void>> reconcile(node_id peer, layout::partition);
  task<result<void>> reconcile_rows(node_id peer, layout::partition, std::set<std::uint16_t> leaves);
  task<result<void>> pull(node_id peer, layout::partition, std::vector<bytes> places);
  task<result<void>> pull_all(node_id peer, layout::partition);
  task<result<void>> send(node_id peer, layout::partition, std::vector<bytes> places);
  static std::optional<ballot> kept_from(const pb::register_answer&, const ballot& sent);
  bool over(const ballot& promise) const;
  task<void> raise(node_id peer, node_id at, std::vector<blocked_row>);
  task<void> bring(node_id peer, node_id to, blocked_row);
  task<result<pb::merkle_answer>> ask(node_id peer, pb::merkle_request);
  task<result<pb::pull_answer>> ask(node_id peer, pb::pull_request);

  task<void> sync_loop();
  task<void> sync_round();
  struct sync_state;
  bool merged_enough(const sync_state&, layout::partition) const;
  task<void> sync_from(node_id source, std::shared_ptr<sync_state>);
  task<bool> sync_one(node_id source, layout::partition);

  core& core_;
  layout_keeper& layout_;
  replica& replica_;
  coordinator& coordinator_;
  wait_list hurry_, to_sync_;
  bool asked_ = false;
  std::map<layout::partition, int> suspicious_;
  std::map<node_id, bytes> hints_from_;
  std::set<bytes> recording_;
  struct returned {
    mono_time since, due;
  };
  std::map<node_id, returned> returned_;  // up again, and not compared since
  std::set<node_id> compared_;            // up, and compared since they came
};

}  // namespace grenier::table
