// table/coordinator.h: runs operations on rows: carries the register machine's requests to the replicas and their answers back.
//
// Writes and promises go to every replica at once and are answered at a quorum; reads go to the nearest quorum and are hedged. A
// replica that knows a newer layout hands it over, and the operation goes on under it. What stragglers missed becomes a hint.
//
//   Errors    as table.h says. While too few homes are up it fails after a second, not at the deadline.
//   Source    docs/design/0003-registers.md; DESIGN rules 5b.1-3, 5b.7, 5b.9, 5b.15, 5b.20.
#pragma once

#include "table/replica.h"

namespace grenier::table {

class coordinator {
 public:
  coordinator(core&, layout_keeper&, replica&, copies&);
  void start();
  void on_missed(std::function<void(node_id, layout::partition, const row_key&)> fn) { missed_ = std::move(fn); }

  task<result<row>> read(row_key, op_options);
  task<result<std::vector<result<ballot>>>> write(std::vector<write_item>, op_options);
  task<result<row>> compare_and_swap(row_key, judge, op_options);
  task<result<list_page>> list(list_request, op_options);
  task<result<void>> merge(std::vector<write_item>, op_options);
  task<result<std::vector<std::pair<node_id, bytes>>>> query(layout::partition, std::uint16_t question, bytes argument, op_options);

  // Of one replica, the nearest that answers (any.cc).
  task<result<any_row>> read_any(row_key, op_options);
  task<result<any_page>> list_any(list_request, op_options);
  bool quorum_is_dark(layout::partition) const;

  // What a quorum holds of a row, as an accept to whoever missed it.
  struct settled_row {
    ballot written;
    bool there = false;  // it took the row while this was found out; there is no accept then
    pb::accept_row accept;
  };
  task<result<settled_row>> settle(row_key, node_id for_whom, mono_time deadline);
  // Brings what a quorum holds to all replicas, above their promises.
  task<result<void>> raise(row_key, mono_time deadline, bool beyond = false, ballot stray = {});

 private:
  // The replicas of one partition under one layout, as an operation numbers them.
  struct view {
    const coordinator* owner = nullptr;
    std::shared_ptr<const layout::state> layout;
    layout::partition p = 0;
    std::vector<node_id> replicas;
    std::vector<std::uint32_t> counts;  // in which versions each counts for reading, so far as it said
    std::set<node_id> of(replica_mask) const;
    std::set<node_id> dark() const;
    bool votes(std::size_t replica) const;
    bool read_by(std::size_t replica) const;  // it counts in a version that is read
    bool quorum(replica_mask) const;
    bool read_quorum(replica_mask) const;
    bool maybe_quorum(replica_mask) const;
  };
  // What one replica said to one message.
  struct heard {
    std::uint32_t round = 0;
    std::uint64_t revision = 0;
    result<pb::register_answers> answers;
  };
  struct run;  // one operation under way
  using run_ptr = std::shared_ptr<run>;

  std::shared_ptr<view> look(layout::partition, const view* before = nullptr) const;
  std::shared_ptr<const terms> terms_of(std::shared_ptr<view>);
  ballot fresh_ballot(const ballot& above);
  std::pair<std::uint32_t, hlc_time> next_time();
  pb::context context(const view&, const std::optional<fence>&) const;
  run_ptr begin(operation, row_key, layout::partition, std::shared_ptr<view>, const op_options&) const;

  task<heard> ask(node_id, std::uint32_t round, std::uint64_t revision, wire::method, std::shared_ptr<const bytes> request, wire::call_options);
  task<result<pb::register_answers>> ask_here(wire::method, std::shared_ptr<const bytes>, mono_time deadline);
  task<void> perform(run_ptr, action);
  task<bool> perform_one(run_ptr, action);
  task<action> wait(run_ptr);
  task<action> pause(run_ptr, action);
  task<action> send(run_ptr, action);
  void send_read(run&, const action&);
  bool ask_next(run&);
  task<action> hear(run_ptr, std::size_t replica, heard);
  action hear_row(run&, std::size_t replica, const heard&, pb::register_answer&);
  task<shared_bytes> fetch_body(run_ptr, attempt_id);
  task<result<void>> adopt(pb::refusal, mono_time deadline);
  task<result<void>> adopt_here(pb::refusal);
  task<void> write_together(std::vector<run_ptr>, std::vector<action>&);

  bool enough_up(const view&) const;
  task<result<void>> wait_for_enough(layout::partition, mono_time deadline);
  error failed(const run&, bool reading) const;
  task<result<row>> row_of(run_ptr, bool with_body);
  void watch_stragglers(run&);
  void missed(const view&, std::size_t replica, const row_key&) const;
  task<void> spread(row_key, row);
  bool hedge_allowed();
  // Rule 8, this home's side: with a clock that is far ahead it would keep what all others refuse, and the row could not be read until that
  // time has come. So its own replica takes the first ballot only when another home's clock has agreed, and again after its clock was set.
  bool clock_proved() const;
  std::size_t others_up() const;
  void judge_clock(node_id by, const pb::register_answers&);
  task<result<void>> prove_clock(mono_time deadline);

  // hidden: of everybody who is up, with the rows that are not shown named.
  task<result<std::vector<list_told>>> ask_lists(list_request, std::shared_ptr<view>*, mono_time deadline, wire::priority, std::optional<fence>, bool hidden);
  task<result<pb::list_answer>> ask_list(node_id, std::shared_ptr<const pb::list_request>, wire::call_options);
  task<result<list_page>> list_once(list_request, mono_time deadline, wire::priority, std::optional<fence>, unsigned depth);
  task<result<std::optional<list_entry>>> settle_entry(list_request, list_entry, mono_time deadline, wire::priority, unsigned depth);
  static list_page make_page(std::vector<std::optional<list_entry>> shown, const list_merged&, std::size_t entries_max);
  template <class T>
  task<result<T>> nearest(layout::partition, mono_time deadline, std::function<task<result<T>>(node_id)> ask);
  std::deque<node_id> who_may_tell(layout::partition) const;
  bool decides_alone(layout::partition) const;
  task<result<row>> row_of_one(node_id, row_key, layout::partition, bool with_body, wire::call_options);
  task<result<list_page>> page_of_one(node_id, list_request, layout::partition, wire::call_options);
  task<result<pb::counters_answer>> ask_count(node_id, std::shared_ptr<const pb::counters_request>, wire::call_options);

  core& core_;
  layout_keeper& layout_;
  replica& replica_;
  copies& copies_;
  table::mutations mutations_;
  std::function<void(node_id, layout::partition, const row_key&)> missed_;
  std::uint64_t liveness_ = 0;  // counts changes
  mono_time liveness_at_{};     // the last one
  wait_list liveness_changed_;
  static constexpr std::uint32_t eras_max = 15;
  std::vector<hlc_time> eras_;     // the last time given in each
  std::set<std::pair<std::uint32_t, std::uint64_t>> ahead_;  // times used that were ahead of the clock, by era
  double hedges_ = 10;             // tokens
  std::optional<std::int64_t> proved_ms_;  // wall clock less the steady one when another home's clock was not far behind this one's
  std::set<node_id> doubters_;     // whose clock was, since
  wait_list clock_judged_;
};

}  // namespace grenier::table
