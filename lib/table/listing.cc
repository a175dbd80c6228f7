// The coordinator's questions to several replicas at once: pages of rows, and counters.
#include <algorithm>

#include "table/run.h"

namespace grenier::table {
namespace {

constexpr unsigned depth_max = 4;
constexpr std::size_t settled_at_once = 64, disputed_few = 16, empty_pages_max = 16;

}  // namespace

task<result<pb::list_answer>> coordinator::ask_list(node_id to, std::shared_ptr<const pb::list_request> q, wire::call_options o) {
  if (to == core_.self) {
    pb::list_request mine = *q;
    co_return co_await replica_.list(replica_.local(o.deadline), std::move(mine));
  }
  co_return co_await core::call<pb::list_answer>(core_, to, wire::method::table_list, q->SerializeAsString(), o);
}

task<result<std::vector<list_told>>> coordinator::ask_lists(list_request q, std::shared_ptr<view>* seen, mono_time deadline, wire::priority priority,
                                                            std::optional<fence> judged_by, bool hidden) {
  const auto p = partition_of({q.table, q.partition_key, {}}, layout_.state().partition_count());
  for (int tries = 0; tries < 8; ++tries) {
    CO_TRY_VOID(co_await wait_for_enough(p, deadline));
    auto v = look(p);
    *seen = v;
    auto message = std::make_shared<pb::list_request>();
    *message->mutable_judged() = context(*v, judged_by);
    message->set_table(static_cast<std::uint32_t>(q.table));
    message->set_partition_key(q.partition_key);
    message->set_prefix(q.prefix);
    message->set_delimiter(q.delimiter);
    message->set_start(q.start);
    message->set_entries_max(static_cast<std::uint32_t>(q.entries_max));
    message->set_hidden(hidden);
    std::deque<std::size_t> queue;
    for (const auto& n : core_.peers.by_quality(v->layout->all_replicas(p), cluster::reads::lists))
      queue.push_back(static_cast<std::size_t>(std::find(v->replicas.begin(), v->replicas.end(), n) - v->replicas.begin()));
    fan_out<result<pb::list_answer>> out(core_.rt, core_.tasks);
    replica_mask asked = 0, heard = 0, answered = 0;
    nanoseconds slowest = 5ms;
    const wire::call_options o{.priority = priority, .deadline = deadline};
    auto ask_one = [&] {
      const std::size_t i = queue.front();
      queue.pop_front();
      asked |= replica_mask{1} << i;
      slowest = std::max(slowest, core_.peers.hedge_delay(v->replicas[i]));
      out.start(i, ask_list(v->replicas[i], message, o));
    };
    // While rows move, a list asks a quorum of the new version too: what it shows, and what it leaves out, must be so there.
    auto would_do = [&] {
      auto would = *v;
      std::fill(would.counts.begin(), would.counts.end(), 3u);
      return would.read_quorum(asked) && would.quorum(asked);
    };
    while (!queue.empty() && !would_do()) ask_one();
    // The others' word spares work, but is not waited for longer than that of those who must answer.
    const nanoseconds slowest_needed = slowest;
    while (hidden && !queue.empty() && core_.peers.up(v->replicas[queue.front()])) ask_one();
    slowest = slowest_needed;
    hedges_ = std::min(hedges_ + 0.05, 20.0);
    std::vector<list_told> told;
    bool again = false;
    error last(errc::unavailable);
    mono_time hedge_at = core_.rt.now() + 2 * slowest + 20ms;
    const mono_time good = hedge_at;
    auto enough = [&] { return v->read_quorum(answered) && v->quorum(answered); };
    while (!again) {
      auto said = co_await out.next(std::min(deadline, queue.empty() && !enough() ? never : hedge_at));
      if (!said) {
        if (enough()) co_return told;
        if (core_.rt.now() >= deadline) co_return fail(errc::timed_out, "too few homes answered in time");
        if (queue.empty()) {
          if (out.outstanding()) continue;
          break;
        }
        for (const auto& n : v->of(asked & ~heard)) core_.peers.read_missed(n, cluster::reads::lists);
        hedge_at = core_.rt.now() + 2 * slowest + 20ms;
        if (out.outstanding() == 0 || hedge_allowed()) ask_one();
        else hedge_at = deadline;
        continue;
      }
      auto& a = said->second;
      heard |= replica_mask{1} << said->first;
      if (a && core_.rt.now() <= good) core_.peers.read_answered(v->replicas[said->first], cluster::reads::lists);
      if (!a) {
        last = a.error();
        if (!queue.empty()) ask_one();
      } else if (a->has_refused()) {
        const bool fenced = a->refused().has_fence();
        CO_TRY_VOID(co_await adopt(std::move(*a->mutable_refused()), deadline));
        if (fenced) {
          co_return fail(errc::conflict, "the request was judged by an old row");
        }
        again = true;
      } else if (!answers(q, *a)) {
        last = error(errc::protocol, "an answer to another question");
        if (!queue.empty()) ask_one();
      } else {
        answered |= replica_mask{1} << said->first;
        v->counts[said->first] = a->counts();
        told.push_back({v->replicas[said->first], std::move(*a)});
        if (enough() && !hidden) co_return told;
        if (out.outstanding() == 0 && !queue.empty() && !enough()) ask_one();
      }
      if (enough() && out.outstanding() == 0 && !again) co_return told;
    }
    if (!again) {
      if (core_.rt.now() + 100ms >= deadline) co_return fail(errc::timed_out, "too few homes answered in time");
      if (tries >= 3) co_return fail(errc::unavailable, "too few homes answered (" + last.to_string() + ")");
      co_await sleep_for(core_.rt, 50ms);
    }
  }
  co_return fail(errc::unavailable, "the layout keeps changing");
}

// A key or common prefix on which replicas differ: what a quorum says of it.
task<result<std::optional<list_entry>>> coordinator::settle_entry(list_request q, list_entry e, mono_time deadline, wire::priority priority, unsigned depth) {
  if (!e.is_prefix) {
    CO_TRY(row r, co_await read({q.table, q.partition_key, e.key}, {.deadline = deadline, .priority = priority}));
    if (!r.value.present) co_return std::optional<list_entry>();
    std::optional<bytes> shown = r.value.row;
    if (auto at = core_.tables.find(q.table); at != core_.tables.end() && at->second.rules.projection) shown = at->second.rules.projection(r.value.row);
    if (!shown) co_return std::optional<list_entry>();
    e.written = r.written;
    e.projection = std::move(*shown);
    co_return e;
  }
  // Alive if any row below it is.
  list_request below{.table = q.table, .partition_key = q.partition_key, .prefix = e.key, .delimiter = {}, .start = {}, .entries_max = 4};
  for (;;) {
    CO_TRY(auto page, co_await list_once(below, deadline, priority, {}, depth + 1));
    if (!page.entries.empty()) {
      e.written = page.entries.front().written;
      co_return e;
    }
    if (!page.truncated) co_return std::optional<list_entry>();
    below.start = page.next;
    below.entries_max = 64;
  }
}

task<result<list_page>> coordinator::list_once(list_request q, mono_time deadline, wire::priority priority, std::optional<fence> judged_by, unsigned depth) {
  if (depth > depth_max) co_return fail(errc::internal, "a list within a list within a list");
  std::shared_ptr<view> v;
  CO_TRY(auto told, co_await ask_lists(q, &v, deadline, priority, judged_by, false));
  auto agree = [&](const std::set<node_id>& who) {
    replica_mask m = 0;
    for (std::size_t i = 0; i < v->replicas.size(); ++i)
      if (who.contains(v->replicas[i])) m |= replica_mask{1} << i;
    return v->read_quorum(m) && v->quorum(m);
  };
  if (core_.skips("list_overrun")) {
    bytes furthest;
    for (const auto& t : told) furthest = std::max(furthest, t.answer.until());
    for (auto& t : told)
      if (t.answer.more()) t.answer.set_until(furthest);
  }
  list_merged all = table::merge(told, agree);
  // Deletions that they do not have alike, or much else: the third home's word may spare reading many rows one by one.
  if ((!all.same_hidden || all.disputed > disputed_few) && !core_.skips("list_hidden_unasked")) {
    CO_TRY(told, co_await ask_lists(q, &v, deadline, priority, judged_by, true));
    all = table::merge(told, agree);
  }
  std::vector<std::optional<list_entry>> shown(all.items.size());
  fan_out<result<std::optional<list_entry>>> out(core_.rt, core_.tasks);
  std::size_t running = 0;
  std::optional<error> failed;
  auto take = [&](std::pair<std::size_t, result<std::optional<list_entry>>> s) {
    --running;
    if (!s.second) failed = s.second.error();
    else shown[s.first] = std::move(*s.second);
  };
  for (std::size_t i = 0; i < all.items.size() && !failed; ++i) {
    if (all.items[i].agreed || core_.skips("list_unsettled")) {
      shown[i] = std::move(all.items[i].entry);
      continue;
    }
    while (running >= settled_at_once) {
      auto s = co_await out.next();
      if (s) take(std::move(*s));
    }
    ++running;
    out.start(i, settle_entry(q, all.items[i].entry, deadline, priority, depth));
  }
  while (running) {
    auto s = co_await out.next();
    if (s) take(std::move(*s));
  }
  if (failed) co_return fail(*failed);
  co_return make_page(std::move(shown), all, q.entries_max);
}

list_page coordinator::make_page(std::vector<std::optional<list_entry>> shown, const list_merged& all, std::size_t entries_max) {
  list_page page;
  for (auto& e : shown) {
    if (!e) continue;
    if (page.entries.size() == entries_max) {
      page.truncated = true;
      break;
    }
    page.entries.push_back(std::move(*e));
  }
  if (page.truncated) {
    page.next = after(page.entries.back());
  } else if (all.more) {
    page.truncated = true;
    page.next = all.until;
    // What is below a common prefix has been told with it.
    if (!page.entries.empty()) page.next = std::max(page.next, after(page.entries.back()));
  }
  if (page.truncated && page.next.empty()) page.truncated = false;
  return page;
}

task<result<list_page>> coordinator::list(list_request q, op_options o) {
  CO_TRY_VOID(check(row_key{q.table, q.partition_key, q.prefix}));
  if (core_.merges(q.table)) co_return fail(errc::invalid_argument, "a merge table is not listed");
  if (q.entries_max == 0 || q.entries_max > 1000) q.entries_max = 1000;
  if (!layout_.known()) co_return fail(errc::unavailable, "this node has no layout yet");
  list_page page;
  for (std::size_t i = 0; i < empty_pages_max; ++i) {
    CO_TRY(page, co_await list_once(q, o.deadline, o.priority, o.fence, 0));
    if (!page.entries.empty() || !page.truncated) break;
    q.start = page.next;
  }
  co_return page;
}

task<result<pb::counters_answer>> coordinator::ask_count(node_id to, std::shared_ptr<const pb::counters_request> q, wire::call_options o) {
  if (to == core_.self) {
    pb::counters_request mine = *q;
    co_return co_await replica_.count(replica_.local(o.deadline), std::move(mine));
  }
  co_return co_await core::call<pb::counters_answer>(core_, to, wire::method::table_counters, q->SerializeAsString(), o);
}

task<result<std::vector<std::pair<node_id, bytes>>>> coordinator::query(layout::partition p, std::uint16_t question, bytes argument, op_options o) {
  if (!layout_.known() || p >= layout_.state().partition_count()) co_return fail(errc::invalid_argument, "there is no such partition");
  for (int tries = 0; tries < 4; ++tries) {
    CO_TRY_VOID(co_await wait_for_enough(p, o.deadline));
    auto v = look(p);
    auto q = std::make_shared<pb::counters_request>();
    *q->mutable_judged() = context(*v, o.fence);
    q->set_question(question);
    q->set_argument(argument);
    fan_out<result<pb::counters_answer>> out(core_.rt, core_.tasks);
    for (std::size_t i = 0; i < v->replicas.size(); ++i)
      out.start(i, ask_count(v->replicas[i], q, {.priority = o.priority, .deadline = o.deadline}));
    std::vector<std::pair<node_id, bytes>> said;
    replica_mask answered = 0;
    bool again = false;
    error last(errc::unavailable);
    // All are waited for, but once a quorum has answered not for long.
    mono_time until = o.deadline;
    while (auto a = co_await out.next(until)) {
      if (!a->second) {
        last = a->second.error();
      } else if (a->second->has_refused()) {
        (void)co_await adopt(a->second->refused(), o.deadline);
        again = true;
      } else {
        // What a newcomer has counted so far is not what its partition holds.
        v->counts[a->first] = a->second->counts();
        if (!v->read_by(a->first)) {
          last = error(errc::not_synced, "a home has not merged its rows yet");
          continue;
        }
        answered |= replica_mask{1} << a->first;
        said.emplace_back(v->replicas[a->first], a->second->answer());
        if (until == o.deadline && v->read_quorum(answered)) until = std::min(until, core_.rt.now() + 500ms);
      }
    }
    if (v->read_quorum(answered)) co_return said;
    if (!again) co_return fail(errc::unavailable, "too few homes answered (" + last.to_string() + ")");
  }
  co_return fail(errc::unavailable, "the layout keeps changing");
}

}  // namespace grenier::table
