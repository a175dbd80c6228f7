// table/copies.h: the small tables that every node holds in full: read without a round trip, handed on when they change.
//
// A copy is what a quorum agreed on some time ago: newer ones replace older ones, by ballot. What decides is the row itself.
//
//   Owns      keys "copy/..." of family meta.
//   Durable   a copy is told as held only when it is on disk.
//   Source    DESIGN rule 5b.9.
#pragma once

#include "table/layout_keeper.h"

namespace grenier::table {

class copies {
 public:
  using read_row = std::function<task<result<row>>(row_key, op_options)>;

  copies(core& c, layout_keeper& l) : core_(c), layout_(l), told_(c.rt) {}
  void serve();
  task<result<void>> load();
  void start(read_row);

  // Nothing when there is no copy.
  const row* find(table_id, const bytes& key) const;
  std::vector<std::pair<bytes, row>> all(table_id) const;
  // Keeps a row that a quorum is known to hold, if it is newer. Synced when it returns.
  task<result<void>> keep(table_id, bytes key, row);
  // To every member that is up, without waiting.
  void push(table_id, const bytes& key);
  // Returns when a quorum of the partition's replicas holds it.
  task<result<void>> publish(table_id, bytes key, layout::partition fenced, mono_time deadline);
  // A miss asks the quorum.
  task<result<row>> read_through(table_id, bytes key, mono_time deadline);

  // The newer row that a judge did not know; nothing when the fence holds.
  std::optional<pb::copy> fenced_off(const pb::context&);
  task<result<void>> keep(const pb::copy&);
  // A replica took a value of such a row: if nobody hands it on soon, its coordinator is gone, and the quorum is asked, until it answers.
  void expect(table_id, const bytes& key, const ballot&);

 private:
  using place = std::pair<table_id, bytes>;
  task<result<pb::push_answer>> answer(wire::caller, pb::push_request);
  task<result<void>> tell(node_id, pb::push_request, mono_time deadline);
  task<void> tell_and_forget(node_id, pb::push_request);
  task<void> exchange_loop();
  task<void> exchange_once(node_id);
  void await(place, const ballot&, nanoseconds after);
  task<void> refresh(place, nanoseconds after);
  void take(const place&, row);
  std::uint64_t digest() const;

  core& core_;
  layout_keeper& layout_;
  std::map<place, row> rows_;
  std::map<place, ballot> awaited_;  // the newest that was heard of; each has a task
  std::multiset<place> syncing_;
  wait_list told_;
  std::vector<node_id> fresh_peers_;
  read_row read_;
};

}  // namespace grenier::table
