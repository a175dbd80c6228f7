// The coordinator's operations on rows that are registers or merge.
#include <algorithm>

#include "table/run.h"

namespace grenier::table {
namespace {

constexpr std::size_t slow_at_once = 16;

}  // namespace

task<result<row>> coordinator::row_of(run_ptr r, bool with_body) {
  const outcome& o = r->op.result();
  CO_TRY(auto u, unpack(o.value.packed));
  row found{o.written, {.present = u.present, .row = bytes(u.row), .body = o.value.body}};
  if (!with_body || !u.has_body || found.value.body) co_return found;
  auto attempt = r->attempts.find(o.written);
  if (attempt == r->attempts.end()) co_return fail(errc::internal, "a value without an attempt");
  const attempt_id id = attempt->second;
  found.value.body = co_await fetch_body(r, id);
  if (!found.value.body) co_return fail(errc::conflict, "overwritten while it was read");
  co_return found;
}

task<result<row>> coordinator::read(row_key key, op_options o) {
  CO_TRY_VOID(check(key));
  if (core_.merges(key.table)) co_return fail(errc::invalid_argument, "a merge table is not read by row");
  if (!layout_.known()) co_return fail(errc::unavailable, "this node has no layout yet");
  const auto p = partition_of(key, layout_.state().partition_count());
  for (;;) {
    CO_TRY_VOID(co_await wait_for_enough(p, o.deadline));
    auto v = look(p);
    auto r = begin(operation::read(terms_of(v)), key, p, v, o);
    r->early = std::exchange(o.early, nullptr);
    co_await perform(r, r->op.start());
    if (r->op.result().what != outcome::kind::done) co_return fail(failed(*r, true));
    auto found = co_await row_of(r, o.with_body);
    // A body that was overwritten between the answer and its fetching: the row is another one now.
    if (found.failed_with(errc::conflict) && core_.rt.now() < o.deadline) continue;
    // What a quorum says of a small row is newer than this home's copy may be.
    if (found && core_.everywhere(key.table)) {
      // From now on, also where the disk is full; one that hangs is not waited for.
      fan_out<result<void>> kept(core_.rt, core_.tasks);
      kept.start(0, copies_.keep(key.table, key.partition_key, *found));
      (void)co_await kept.next(std::min(o.deadline, core_.rt.now() + 1s));
    }
    co_return found;
  }
}

task<result<coordinator::settled_row>> coordinator::settle(row_key key, node_id for_whom, mono_time deadline) {
  const auto p = partition_of(key, layout_.state().partition_count());
  CO_TRY_VOID(co_await wait_for_enough(p, deadline));
  auto v = look(p);
  op_options o{.deadline = deadline, .priority = wire::priority::background, .fence = {}, .with_body = true, .early = {}};
  auto r = begin(operation::read(terms_of(v)), key, p, v, o);
  // Asked like the others, it would show its old row, and get the new one a first time by being brought to a quorum.
  r->asked_last = for_whom;
  co_await perform(r, r->op.start());
  if (r->op.result().what != outcome::kind::done) co_return fail(failed(*r, true));
  settled_row s;
  s.written = r->op.result().written;
  if (!s.written) co_return s;
  // Where nothing is decided without it (two homes), it has just said that it holds the row.
  const auto at_whom = static_cast<std::size_t>(std::find(r->v->replicas.begin(), r->v->replicas.end(), for_whom) - r->v->replicas.begin());
  if (at_whom < r->v->replicas.size() && r->accepting && (r->yes >> at_whom & 1)) {
    s.there = true;
    co_return s;
  }
  CO_TRY(row found, co_await row_of(r, true));
  auto at = r->attempts.find(s.written);
  if (at == r->attempts.end()) co_return fail(errc::internal, "a value without an attempt");
  fill_accept(s.accept, r->key, s.written, at->second, {r->op.result().value.packed, found.value.body});
  s.accept.set_chosen(true);
  co_return s;
}

task<result<void>> coordinator::raise(row_key key, mono_time deadline, bool beyond, ballot stray) {
  const auto p = partition_of(key, layout_.state().partition_count());
  CO_TRY_VOID(co_await wait_for_enough(p, deadline));
  auto v = look(p);
  op_options o{.deadline = deadline, .priority = wire::priority::background, .fence = {}, .with_body = true, .early = {}};
  auto r = begin(stray ? operation::supersede(terms_of(v), stray, {pack({}), nullptr}) : operation::raise(terms_of(v), beyond), key, p, v, o);
  co_await perform(r, r->op.start());
  if (r->op.result().what != outcome::kind::done) co_return fail(failed(*r, true));
  watch_stragglers(*r);
  co_return result<void>();
}

task<result<row>> coordinator::compare_and_swap(row_key key, judge j, op_options o) {
  CO_TRY_VOID(check(key));
  if (core_.merges(key.table)) co_return fail(errc::invalid_argument, "a merge table has no compare-and-swap");
  if (!layout_.known()) co_return fail(errc::unavailable, "this node has no layout yet");
  const auto p = partition_of(key, layout_.state().partition_count());
  CO_TRY_VOID(co_await wait_for_enough(p, o.deadline));
  auto v = look(p);
  register_judge inner = [j = std::move(j)](const ballot& written, const register_value& current) mutable -> result<register_value> {
    TRY(auto u, unpack(current.packed));
    TRY(row_value wanted, j(row{written, {u.present, bytes(u.row), current.body}}));
    TRY_VOID(check(wanted));
    return register_value{pack(wanted), wanted.present ? wanted.body : nullptr};
  };
  auto r = begin(operation::compare_and_swap(terms_of(v), std::move(inner)), key, p, v, o);
  co_await perform(r, r->op.start());
  const outcome& out = r->op.result();
  if (out.what == outcome::kind::refused) co_return fail(out.refusal);
  if (out.what != outcome::kind::done) co_return fail(failed(*r, false));
  watch_stragglers(*r);
  CO_TRY(auto u, unpack(out.value.packed));
  row now{out.written, {.present = u.present, .row = bytes(u.row), .body = out.value.body}};
  if (core_.everywhere(key.table)) co_await spread(std::move(key), now);
  co_return now;
}

// A change of a small table goes to everybody, without anybody waiting.
task<void> coordinator::spread(row_key key, row now) {
  bytes k = key.partition_key;
  const table_id t = key.table;
  if (co_await copies_.keep(t, k, std::move(now))) copies_.push(t, k);
}

task<result<std::vector<result<ballot>>>> coordinator::write(std::vector<write_item> items, op_options o) {
  if (items.empty() || items.size() > rows_max) co_return fail(errc::invalid_argument, "a write of no rows, or of too many");
  if (!layout_.known()) co_return fail(errc::unavailable, "this node has no layout yet");
  const auto p = partition_of(items[0].key, layout_.state().partition_count());
  std::set<row_key> keys;
  for (const auto& i : items) {
    CO_TRY_VOID(check(i.key));
    CO_TRY_VOID(check(i.value));
    if (core_.merges(i.key.table)) co_return fail(errc::invalid_argument, "a merge table is not written by row");
    if (partition_of(i.key, layout_.state().partition_count()) != p) co_return fail(errc::invalid_argument, "rows of several partitions in one write");
    if (!keys.insert(i.key).second) co_return fail(errc::invalid_argument, "a row twice in one write");
  }
  CO_TRY_VOID(co_await wait_for_enough(p, o.deadline));
  auto v = look(p);
  auto t = terms_of(v);
  std::vector<run_ptr> runs;
  std::vector<action> actions;
  for (auto& i : items) {
    auto r = begin(operation::write(t, {pack(i.value), i.value.present ? i.value.body : nullptr}), i.key, p, v, o);
    actions.push_back(r->op.start());
    runs.push_back(std::move(r));
  }
  if (runs.size() > 1) co_await write_together(runs, actions);
  fan_out<bool> slow(core_.rt, core_.tasks);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (slow.outstanding() >= slow_at_once) co_await slow.next();
    if (runs.size() == 1) co_await perform(runs[i], std::move(actions[i]));
    else if (actions[i].what != action::kind::end) slow.start(i, perform_one(runs[i], std::move(actions[i])));
  }
  while (co_await slow.next()) {
  }
  std::vector<result<ballot>> done;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    run& r = *runs[i];
    if (r.op.result().what != outcome::kind::done) {
      done.push_back(fail(failed(r, false)));
      continue;
    }
    done.push_back(r.op.result().written);
    watch_stragglers(r);
    if (core_.everywhere(r.key.table)) {
      row now{r.op.result().written, std::move(items[i].value)};
      co_await spread(r.key, std::move(now));
    }
  }
  co_return done;
}

// The first round of many rows: one message to each replica. Rows that need more go on by themselves.
task<void> coordinator::write_together(std::vector<run_ptr> runs, std::vector<action>& actions) {
  const auto v = runs[0]->v;
  const mono_time deadline = runs[0]->deadline;
  pb::accept_request q;
  *q.mutable_judged() = context(*v, runs[0]->judged_by);
  replica_mask to = 0;
  std::vector<std::uint32_t> rounds;
  for (std::size_t n = 0; n < runs.size(); ++n) {
    action& a = actions[n];
    ASSERT(a.what == action::kind::send && a.request == request::accept);
    fill_accept(*q.add_rows(), runs[n]->key, a.at, a.attempt, *a.value);
    runs[n]->attempts[a.at] = a.attempt;
    to |= a.to;
    rounds.push_back(a.round);
    a = action{};
  }
  auto raw = std::make_shared<bytes>(q.SerializeAsString());
  const wire::call_options o{.priority = runs[0]->priority, .deadline = std::min(deadline, core_.rt.now() + 20s)};
  auto out = std::make_shared<fan_out<heard>>(core_.rt, core_.tasks);
  for (std::size_t i = 0; i < v->replicas.size(); ++i)
    if (to >> i & 1) out->start(i, ask(v->replicas[i], 0, v->layout->revision, wire::method::table_accept, raw, o));
  std::uint64_t liveness = liveness_;
  auto waiting = [&] { return std::any_of(actions.begin(), actions.end(), [](const action& a) { return a.what == action::kind::wait; }); };
  while (waiting()) {
    auto said = co_await out->next(std::min(deadline, core_.rt.now() + 250ms));
    if (!said) {
      const bool over = core_.rt.now() >= deadline || out->outstanding() == 0;
      for (std::size_t n = 0; n < runs.size(); ++n)
        if (actions[n].what == action::kind::wait) {
          if (over && core_.rt.now() >= deadline) actions[n] = runs[n]->op.give_up();
          else if (liveness != liveness_) actions[n] = runs[n]->op.reconsider();
        }
      liveness = liveness_;
      if (out->outstanding() == 0 && core_.rt.now() < deadline) break;  // each goes on waiting by itself
      continue;
    }
    const std::size_t i = said->first;
    heard& h = said->second;
    const bool refused = h.answers && h.answers->has_refused();
    if (refused) {
      auto taken = co_await adopt(h.answers->refused(), deadline);
      runs[0]->fenced_off = runs[0]->fenced_off || h.answers->refused().has_fence();
      if (!taken) runs[0]->last = taken.error();
    }
    const bool moved = layout_.revision() > v->layout->revision;
    for (std::size_t n = 0; n < runs.size(); ++n) {
      run& r = *runs[n];
      if (r.op.ended()) continue;
      if (actions[n].what != action::kind::wait) continue;
      if (refused && moved) {
        r.v = look(r.p, r.v.get());
        actions[n] = r.op.rebase(terms_of(r.v));
      } else if (refused) {
        r.fenced_off = r.fenced_off || h.answers->refused().has_fence();
        actions[n] = r.op.on_silent(rounds[n], i, h.answers->refused().has_fence() ? delivery::none : delivery::unsure);
      } else if (!h.answers) {
        r.last = h.answers.error();
        actions[n] = r.op.on_silent(rounds[n], i, delivery_of(r.last.code));
      } else if (h.answers->rows_size() != static_cast<int>(runs.size())) {
        actions[n] = r.op.on_silent(rounds[n], i, delivery::unsure);
      } else {
        h.round = rounds[n];
        r.v->counts[i] = h.answers->counts();
        actions[n] = hear_row(r, i, h, *h.answers->mutable_rows(static_cast<int>(n)));
      }
    }
    if (!h.answers)
      for (auto& r : runs) missed(*v, i, r->key);
  }
  std::vector<row_key> keys;
  for (auto& r : runs) keys.push_back(r->key);
  out->drain([this, v, keys](std::size_t i, heard h) {
    if (!h.answers || h.answers->has_refused())
      for (const auto& k : keys) missed(*v, i, k);
  });
}

task<result<void>> coordinator::merge(std::vector<write_item> items, op_options o) {
  if (items.empty() || items.size() > rows_max) co_return fail(errc::invalid_argument, "a merge of no rows, or of too many");
  if (!layout_.known()) co_return fail(errc::unavailable, "this node has no layout yet");
  const auto p = partition_of(items[0].key, layout_.state().partition_count());
  pb::accept_request q;
  for (const auto& i : items) {
    CO_TRY_VOID(check(i.key));
    CO_TRY_VOID(check(i.value));
    if (!core_.merges(i.key.table)) co_return fail(errc::invalid_argument, "not a merge table");
    if (partition_of(i.key, layout_.state().partition_count()) != p) co_return fail(errc::invalid_argument, "rows of several partitions in one merge");
    auto& r = *q.add_rows();
    *r.mutable_key() = id_of(i.key);
    r.set_value(i.value.row);
  }
  error last(errc::unavailable, "too few homes answered");
  for (int tries = 0; tries < 6; ++tries) {
    CO_TRY_VOID(co_await wait_for_enough(p, o.deadline));
    auto v = look(p);
    *q.mutable_judged() = context(*v, o.fence);
    auto raw = std::make_shared<bytes>(q.SerializeAsString());
    auto out = std::make_shared<fan_out<heard>>(core_.rt, core_.tasks);
    for (std::size_t i = 0; i < v->replicas.size(); ++i)
      out->start(i, ask(v->replicas[i], 0, v->layout->revision, wire::method::table_accept, raw, {.priority = o.priority, .deadline = o.deadline}));
    replica_mask yes = 0;
    bool again = false;
    while (!again) {
      auto said = co_await out->next(std::min(o.deadline, core_.rt.now() + 250ms));
      if (!said && (core_.rt.now() >= o.deadline || out->outstanding() == 0)) break;
      if (said) {
        heard& h = said->second;
        if (!h.answers) {
          last = h.answers.error();
          for (const auto& i : items) missed(*v, said->first, i.key);
        } else if (h.answers->has_refused()) {
          (void)co_await adopt(h.answers->refused(), o.deadline);
          if (h.answers->refused().has_fence()) {
            co_return fail(errc::conflict, "the request was judged by an old row");
          }
          again = true;
        } else {
          bool all = true;
          for (const auto& a : h.answers->rows())
            if (a.error()) all = false, last = error(static_cast<errc>(a.error()), a.detail());
          if (all) yes |= replica_mask{1} << said->first;
        }
      }
      if (v->quorum(yes)) {
        std::vector<row_key> keys;
        for (const auto& i : items) keys.push_back(i.key);
        out->drain([this, v, keys](std::size_t i, heard h) {
          if (!h.answers || h.answers->has_refused())
            for (const auto& k : keys) missed(*v, i, k);
        });
        co_return result<void>();
      }
    }
    if (core_.rt.now() + 100ms >= o.deadline) break;
    if (!again) co_await sleep_for(core_.rt, 100ms);
  }
  if (last == errc::no_space || last == errc::clock_skew) co_return fail(last);
  co_return fail(errc::outcome_unknown, "too few homes confirmed: " + last.to_string());
}

}  // namespace grenier::table
