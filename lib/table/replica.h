// table/replica.h: this node's own rows: what it answers when it is asked to promise, to accept, to tell.
//
// Requests that change rows take the rows' locks, read, let the register machine decide, and commit once for all rows of a
// message; an answer goes out only when what it says is synced. Reads take no lock: the store shows what is synced.
//
//   Owns      families row, body and merkle; each value that is taken is told to the change log, in the batch that takes it.
//   Errors    for a message: access_denied, unavailable, invalid_argument, protocol; for a row: clock_skew, no_space, io_failed.
//   Source    docs/design/0003-registers.md; DESIGN rules 5b.1-8, 5b.14.
#pragma once

#include "table/change_log.h"
#include "table/copies.h"
#include "table/keys.h"
#include "table/lists.h"
#include "table/merkle.h"
#include "table/register.h"

namespace grenier::table {

// A row whose newer value could not be taken, and the promise that was in its way; or, too far ahead, the time of that value.
struct blocked_row {
  row_key key;
  ballot by;
  bool too_far = false;
};

class replica {
 public:
  replica(core&, layout_keeper&, copies&, change_log&);
  void serve();

  task<result<pb::register_answers>> accept(wire::caller, pb::accept_request);
  task<result<pb::register_answers>> prepare(wire::caller, pb::prepare_request);
  task<result<pb::register_answers>> read(wire::caller, pb::read_request);
  task<result<pb::list_answer>> list(wire::caller, pb::list_request);
  task<result<pb::counters_answer>> count(wire::caller, pb::counters_request);
  // Rows that it missed are written down here by name, and it takes what it is brought.
  task<bool> has_hints_for(node_id);
  task<result<pb::merkle_answer>> compare(wire::caller, pb::merkle_request);
  task<result<pb::pull_answer>> pull(wire::caller, pb::pull_request);
  // This node as the caller of its own replica.
  wire::caller local(mono_time deadline) const { return {.node = core_.self, .session = 0, .deadline = deadline, .by_invite = false, .invite_id = {}}; }

  task<result<void>> merge_here(std::vector<write_item>, kv::batch extra);
  task<result<std::vector<std::pair<bytes, bytes>>>> scan_here(table_id, bytes partition_key);
  // A register row as it is here.
  task<result<row>> row_here(layout::partition, row_key, bool with_body);
  task<result<std::vector<bytes>>> keys_here(table_id, layout::partition, bytes after, std::size_t keys_max);
  using answerer = std::move_only_function<task<result<bytes>>(layout::partition, bytes)>;
  void answer_query(std::uint16_t question, answerer a) { questions_[question] = std::move(a); }

  // For repair. Rows of another replica, through the gate; promises come along. One whose time is too far ahead is passed over, except by a newcomer.
  task<result<void>> take(layout::partition, node_id from_whom, pb::pull_answer, std::vector<blocked_row>& blocked);
  void passed_over(node_id peer, const error& why);
  // What is held of a row, as an accept to somebody else; nothing when nothing is.
  task<result<std::optional<pb::accept_row>>> accept_of(bytes place);
  task<result<bool>> empty(layout::partition);
  task<result<std::uint64_t>> root(layout::partition);
  task<result<std::vector<std::uint64_t>>> inner(layout::partition);
  task<result<std::vector<std::uint64_t>>> leaves(layout::partition, std::size_t inner);
  // Rows of these leaves in [from, until), a page.
  task<result<pb::merkle_answer>> rows_of(layout::partition, std::set<std::uint16_t> leaves, bytes from, bytes until);
  task<result<void>> count_anew(layout::partition);
  // When that home last compared its rows with these; never: mono_time().
  mono_time compared_by(const node_id& n) const {
    auto at = compared_by_.find(n);
    return at == compared_by_.end() ? mono_time() : at->second;
  }

 private:
  struct change_set;
  task<result<std::optional<pb::refusal>>> admit(wire::caller, pb::context);
  std::optional<pb::refusal> refuses(const pb::context&) const;
  result<void> name_rows(change_set&, const pb::context&, std::vector<pb::row_id>) const;
  task<result<void>> lock(change_set&, mono_time deadline);
  task<result<void>> commit(change_set&);
  result<void> check_accept(const pb::accept_row&) const;
  void accept_one(change_set&, std::size_t i, pb::accept_row& in, pb::register_answer& out);
  void take_value(change_set&, std::size_t i, const cell& before, const cell& after, const bytes& body);
  void merge_one(change_set&, std::size_t i, bytes_view value);
  void tell_hooks(const change_set&, const row_key&, const ballot& before_written, bytes_view before, const ballot& after_written, bytes_view after, kv::batch&);
  result<void> not_too_far(const ballot&, const cell&);
  // A register row with the body that belongs to its value.
  struct held {
    bytes raw;
    cell what;
    shared_bytes body;
  };
  task<result<held>> hold(bytes place, bytes raw, bool with_body);
  task<void> older_finished();

  core& core_;
  layout_keeper& layout_;
  copies& copies_;
  change_log& changes_;
  table::mutations mutations_;
  merkle merkle_;
  key_lock locks_;
  std::map<std::uint64_t, std::size_t> under_way_;  // commits, by the revision that they were admitted at
  std::map<layout::partition, std::size_t> busy_;           // messages that change rows of it
  wait_list finished_;
  std::set<layout::partition> closed_;                      // its digests are being summed up anew
  wait_list opened_;
  std::map<std::uint16_t, answerer> questions_;
  std::map<node_id, mono_time> compared_by_;                // members only
};

}  // namespace grenier::table
