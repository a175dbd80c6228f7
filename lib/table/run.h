// table/run.h: one operation under way, for the coordinator's sources.
#pragma once

#include "table/coordinator.h"

namespace grenier::table {

struct coordinator::run {
  run(runtime& rt, task_group& group, operation o) : op(std::move(o)), out(rt, group) {}
  row_key key;
  layout::partition p = 0;
  operation op;
  std::shared_ptr<view> v;
  fan_out<heard> out;
  mono_time deadline = never, began{};
  wire::priority priority{};
  std::optional<fence> judged_by;
  bool with_body = false, body_asked = false, fenced_off = false;
  std::move_only_function<void(const row&)> early;
  std::size_t started = 0, taken = 0;
  // reads: who may still be asked
  std::uint32_t reading = 0;
  replica_mask unheard = 0;  // asked, and not answered yet
  std::deque<std::size_t> queue;
  mono_time hedge_at = never;
  node_id asked_last;        // who is known to hold something older: not asked while others decide
  // the latest accept
  std::uint32_t accepting = 0;
  replica_mask sent = 0, yes = 0, waiting_for = 0, failed_mask = 0;
  std::map<ballot, attempt_id> attempts;
  std::map<attempt_id, shared_bytes> bodies;
  std::map<attempt_id, std::vector<std::size_t>> shown_by;  // which replicas held it, in the order of their answers
  error last;
  unsigned rebases = 0;
  std::uint64_t liveness = 0;

  bool out_has_answers() const { return started > taken + out.outstanding(); }
};

inline pb::row_id id_of(const row_key& k) {
  pb::row_id r;
  r.set_table(static_cast<std::uint32_t>(k.table));
  r.set_partition_key(k.partition_key);
  r.set_sort_key(k.sort_key);
  return r;
}

inline void fill_accept(pb::accept_row& r, const row_key& key, const ballot& at, const attempt_id& attempt, const register_value& value) {
  *r.mutable_key() = id_of(key);
  r.set_ballot(at.encode());
  r.set_attempt(attempt.str());
  // A row that was never written, brought to a quorum as such.
  r.set_value(value.packed);
  if (value.body) r.mutable_with()->set_content(*value.body);
}

// Which failures say that the request did nothing, and never will. Not `protocol`: an answer that cannot be read may say yes.
inline delivery delivery_of(errc c) {
  switch (c) {
    case errc::unavailable:
    case errc::access_denied:
    case errc::not_implemented:
    case errc::invalid_argument:
    case errc::too_large:
    case errc::clock_skew:
    case errc::no_space:
    case errc::overloaded:
    case errc::stale_layout: return delivery::none;
    default: return delivery::unsure;
  }
}

}  // namespace grenier::table
