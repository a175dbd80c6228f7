// The coordinator's reads of one replica, for what may be stale.
#include <algorithm>

#include "table/run.h"

namespace grenier::table {
namespace {

constexpr nanoseconds own_disk_patience = 250ms, dark_after = 3s;
constexpr std::size_t empty_pages_max = 16;

}  // namespace

bool coordinator::quorum_is_dark(layout::partition p) const {
  if (!layout_.known() || p >= layout_.state().partition_count()) return false;
  return core_.rt.now() >= liveness_at_ + dark_after && !enough_up(*look(p));
}

bool coordinator::decides_alone(layout::partition p) const {
  const auto all = layout_.state().all_replicas(p);
  return all.size() == 1 && all[0] == core_.self && layout_.counts(p);
}

// This node first, if it has merged the partition (5b.5); then those that are up, the nearest first.
std::deque<node_id> coordinator::who_may_tell(layout::partition p) const {
  std::deque<node_id> r;
  for (const auto& n : core_.peers.by_quality(layout_.state().all_replicas(p)))
    if (n != core_.self && core_.peers.up(n)) r.push_back(n);
  const auto all = layout_.state().all_replicas(p);
  if (layout_.counts(p) && std::find(all.begin(), all.end(), core_.self) != all.end()) r.push_front(core_.self);
  return r;
}

// Whoever answers first, of those asked one after the other, each as soon as the one before failed or is slower than it should be.
template <class T>
task<result<T>> coordinator::nearest(layout::partition p, mono_time deadline, std::function<task<result<T>>(node_id)> ask) {
  error last(errc::unavailable, "no home that keeps it is up");
  for (int tries = 0; tries < 4; ++tries) {
    const auto revision = layout_.revision();
    std::deque<node_id> queue = who_may_tell(p);
    fan_out<result<T>> out(core_.rt, core_.tasks);
    while (!queue.empty() || out.outstanding()) {
      mono_time until = deadline;
      if (!queue.empty()) {
        const node_id n = queue.front();
        queue.pop_front();
        out.start(0, ask(n));
        if (!queue.empty()) until = std::min(deadline, core_.rt.now() + (n == core_.self ? own_disk_patience : core_.peers.hedge_delay(n) + 20ms));
      }
      auto said = co_await out.next(until);
      if (!said && core_.rt.now() >= deadline) co_return fail(errc::timed_out, "no home that keeps it answered in time");
      if (!said) continue;
      if (said->second) co_return std::move(said->second);
      last = said->second.error();
    }
    if (layout_.revision() == revision) break;  // else somebody knew a newer one
  }
  co_return fail(errc::unavailable, "nobody who keeps it can be asked (" + last.to_string() + ")");
}

task<result<row>> coordinator::row_of_one(node_id n, row_key key, layout::partition p, bool with_body, wire::call_options o) {
  if (n == core_.self) co_return co_await replica_.row_here(p, std::move(key), with_body);
  pb::read_request q;
  *q.mutable_judged() = layout_.context(p);
  *q.add_keys() = id_of(key);
  q.set_with_body(with_body);
  CO_TRY(auto a, co_await core::call<pb::register_answers>(core_, n, wire::method::table_read, q.SerializeAsString(), o));
  if (a.has_refused()) {
    CO_TRY_VOID(co_await adopt(a.refused(), o.deadline));
    co_return fail(errc::stale_layout, "the layout went on");
  }
  if (!a.counts()) co_return fail(errc::not_synced, "a home has not merged its rows yet");
  if (a.rows_size() != 1) co_return fail(errc::protocol, "an answer of the wrong size");
  auto& told = *a.mutable_rows(0);
  if (told.error()) co_return fail(static_cast<errc>(told.error()), told.detail());
  CO_TRY(auto held, answer::decode(told.answer()));
  CO_TRY(auto u, unpack(held.value));
  if (with_body && u.has_body && !told.has_with()) co_return fail(errc::protocol, "a body is missing");
  row r{held.accepted, {.present = u.present, .row = bytes(u.row), .body = nullptr}};
  if (told.has_with()) r.value.body = share(std::move(*told.mutable_with()->mutable_content()));
  co_return r;
}

task<result<any_row>> coordinator::read_any(row_key key, op_options o) {
  CO_TRY_VOID(check(key));
  if (core_.merges(key.table)) co_return fail(errc::invalid_argument, "a merge table is not read by row");
  if (o.deadline == never) co_return fail(errc::invalid_argument, "an operation without a deadline");
  if (!layout_.known()) co_return fail(errc::unavailable, "this node has no layout yet");
  const auto p = partition_of(key, layout_.state().partition_count());
  const wire::call_options how{.priority = o.priority, .deadline = o.deadline};
  std::function<task<result<row>>(node_id)> ask = [this, key, p, body = o.with_body, how](node_id n) { return row_of_one(n, key, p, body, how); };
  CO_TRY(row found, co_await nearest(p, o.deadline, std::move(ask)));
  co_return any_row{std::move(found), !decides_alone(p)};
}

task<result<list_page>> coordinator::page_of_one(node_id n, list_request q, layout::partition p, wire::call_options o) {
  list_told told{n, {}};
  if (n == core_.self) {
    CO_TRY(told.answer, co_await list_here(core_, p, q));
  } else {
    auto message = std::make_shared<pb::list_request>();
    *message->mutable_judged() = layout_.context(p);
    message->set_table(static_cast<std::uint32_t>(q.table));
    message->set_partition_key(q.partition_key);
    message->set_prefix(q.prefix);
    message->set_delimiter(q.delimiter);
    message->set_start(q.start);
    message->set_entries_max(static_cast<std::uint32_t>(q.entries_max));
    CO_TRY(told.answer, co_await ask_list(n, std::move(message), o));
    if (told.answer.has_refused()) {
      CO_TRY_VOID(co_await adopt(told.answer.refused(), o.deadline));
      co_return fail(errc::stale_layout, "the layout went on");
    }
    if (!told.answer.counts()) co_return fail(errc::not_synced, "a home has not merged its rows yet");
    if (!answers(q, told.answer)) co_return fail(errc::protocol, "an answer to another question");
  }
  std::vector<list_told> one;
  one.push_back(std::move(told));
  list_merged all = table::merge(one, [](const std::set<node_id>&) { return true; });
  std::vector<std::optional<list_entry>> shown;
  for (auto& i : all.items) shown.emplace_back(std::move(i.entry));
  co_return make_page(std::move(shown), all, q.entries_max);
}

task<result<any_page>> coordinator::list_any(list_request q, op_options o) {
  CO_TRY_VOID(check(row_key{q.table, q.partition_key, q.prefix}));
  if (core_.merges(q.table)) co_return fail(errc::invalid_argument, "a merge table is not listed");
  if (q.entries_max == 0 || q.entries_max > 1000) q.entries_max = 1000;
  if (o.deadline == never) co_return fail(errc::invalid_argument, "an operation without a deadline");
  if (!layout_.known()) co_return fail(errc::unavailable, "this node has no layout yet");
  const auto p = partition_of({q.table, q.partition_key, {}}, layout_.state().partition_count());
  const wire::call_options how{.priority = o.priority, .deadline = o.deadline};
  any_page r;
  for (std::size_t i = 0; i < empty_pages_max; ++i) {
    std::function<task<result<list_page>>(node_id)> ask = [this, q, p, how](node_id n) { return page_of_one(n, q, p, how); };
    CO_TRY(r.page, co_await nearest(p, o.deadline, std::move(ask)));
    if (!r.page.entries.empty() || !r.page.truncated) break;
    q.start = r.page.next;
  }
  r.stale_possible = !decides_alone(p);
  co_return r;
}

}  // namespace grenier::table
