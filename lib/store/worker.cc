// The background's to-do list: entries put there by hooks (together with the row that makes them due) and by puts that did not end well.
#include "store/receive.h"
#include "store/work.h"

namespace grenier::store {

namespace {

constexpr std::size_t at_once = 8;
constexpr std::size_t round_entries = 200;
// No entry waits for so long: one that would was put there while the clock was wrong.
constexpr std::uint64_t ahead_max_ms = 2 * 3600 * 1000;

nanoseconds retry_delay(std::uint32_t attempts) {
  return std::min<nanoseconds>(30s * (1u << std::min(attempts, 7u)), std::chrono::hours(1));
}

bytes due_key(std::uint64_t wall_ms, std::uint64_t unique) {
  bytes k = work_prefix;
  append_u64(k, wall_ms);
  append_u64(k, unique);
  return k;
}

}  // namespace

bytes encode(const work& w) {
  pb::Work m;
  m.set_format(1);
  m.set_kind(static_cast<std::uint32_t>(w.kind));
  m.set_table(static_cast<std::uint32_t>(w.row.table));
  m.set_partition_key(w.row.partition_key);
  m.set_sort_key(w.row.sort_key);
  m.set_before(w.before);
  if (w.before_written) m.set_before_ballot(w.before_written.encode());
  m.set_final_seen(w.final_seen);
  m.set_attempts(w.attempts);
  return m.SerializeAsString();
}

result<work> decode_work(bytes_view from) {
  pb::Work m;
  if (!m.ParseFromArray(from.data(), static_cast<int>(from.size())) || m.format() == 0) return fail(errc::corrupt, "no work entry");
  if (m.format() > 1 || m.kind() < 1 || m.kind() > 2) return fail(errc::protocol, "a newer version wrote this work entry");
  work w;
  w.kind = static_cast<work::kind_type>(m.kind());
  w.row = {static_cast<table_id>(m.table()), m.partition_key(), m.sort_key()};
  w.before = m.before();
  TRY(w.before_written, ballot::decode(m.before_ballot()));
  w.final_seen = m.final_seen();
  w.attempts = m.attempts();
  return w;
}

// The first replica acts first; the others, after it had its time, find it done or do it.
void service::impl::queue_work(kv::batch& b, const work& w, nanoseconds delay) {
  const std::size_t rank = below->rank(below->partition_of(w.row.partition_key)).value_or(0);
  if (rank > 0)
    delay += opts.fallback_delay * static_cast<std::int64_t>(rank) +
             nanoseconds(rt.random().below(static_cast<std::uint64_t>(opts.fallback_delay.count() / 4 + 1)));
  bytes key = due_key(rt.wall_ms() + whole_ms(delay), rt.random().next());
  not_before[key] = rt.now() + delay;
  b.if_lost([this, key] { not_before.erase(key); });
  b.put(kv::family::task_queue, std::move(key), encode(w));
}

task<void> service::impl::work_loop() {
  for (;;) {
    co_await wake.wait(rt.now() + opts.sweep_interval);
    co_await settle_attempts();
    while (co_await work_round()) {
    }
  }
}

// What is due now; true when there may be more.
task<bool> service::impl::work_round() {
  kv::scan_options range{work_prefix, due_key(rt.wall_ms() + 1, 0), round_entries};
  auto entries = co_await kv.scan(kv::family::task_queue, range);
  if (!entries) co_return false;
  auto misdated = co_await kv.scan(kv::family::task_queue, {due_key(rt.wall_ms() + ahead_max_ms, 0), end_of(work_prefix), round_entries});
  if (misdated) std::ranges::move(*misdated, std::back_inserter(*entries));
  fan_out<result<void>> f(rt, tasks);
  std::size_t started_now = 0;
  for (auto& e : *entries) {
    // The wall clock orders the list; how long an entry has to wait is not left to it.
    auto at = not_before.find(e.key);
    if (rt.now() < (at == not_before.end() ? started + opts.withdraw_delay : at->second)) continue;
    while (f.outstanding() >= at_once) (void)co_await f.next();
    f.start(started_now++, do_entry(std::move(e)));
  }
  while (co_await f.next()) {
  }
  co_return started_now >= round_entries;
}

task<result<void>> service::impl::do_entry(kv::entry e) {
  kv::batch b;
  b.remove(kv::family::task_queue, e.key);
  auto w = decode_work(e.value);
  if (w) {
    auto done = co_await do_work(*w);
    if (!done) rt.log(log_level::debug, "store: background work is tried again later: " + done.error().to_string());
    if (!done || !*done) {
      const nanoseconds delay = std::max(retry_delay(w->attempts), w->attempts == 0 ? opts.withdraw_delay : 0ns);
      ++w->attempts;
      bytes key = due_key(rt.wall_ms() + whole_ms(delay), rt.random().next());
      not_before[key] = rt.now() + delay;
      b.if_lost([this, key] { not_before.erase(key); });
      b.put(kv::family::task_queue, std::move(key), encode(*w));
    }
  } else {
    rt.log(log_level::warning, "store: an entry of the background's list is dropped: " + w.error().to_string());
  }
  CO_TRY_VOID(co_await kv.commit(std::move(b)));
  not_before.erase(e.key);
  co_return result<void>();
}

task<result<bool>> service::impl::do_work(work& w) {
  if (w.kind == work::kind_type::upload) co_return co_await look_after_upload(w);
  if (w.row.table == table_id::object) co_return co_await release_object(w);
  if (w.row.table == table_id::part) co_return co_await release_part(w);
  co_return true;
}

// ------------------------------------------------------------------------------------------------- puts that left something

task<result<void>> service::impl::find_left_intents() {
  kv::scan_options range{intent_prefix, end_of(intent_prefix)};
  std::optional<version_id> last;
  for (;;) {
    CO_TRY(auto entries, co_await kv.scan(kv::family::task_queue, range));
    if (entries.empty()) co_return result<void>();
    for (const auto& e : entries) {
      auto v = version_id::from_bytes(bytes_view(e.key).substr(intent_prefix.size(), version_id::size_bytes));
      if (!v || last == *v) continue;
      last = *v;
      puts->over.push_back({*v, true, false, rt.now() + opts.withdraw_delay});
    }
    range.from = entries.back().key + '\0';
  }
}

task<void> service::impl::settle_attempts() {
  auto over = std::exchange(puts->over, {});
  for (auto& a : over) {
    // One whose row may exist has time to come to rest before it is judged.
    if (a.due == mono_time{}) a.due = a.row_sent && !a.settled && !skips("failed_put_withdraws") ? rt.now() + opts.withdraw_delay : rt.now();
    if (rt.now() < a.due || !co_await settle_attempt(a)) {
      a.due = std::max(a.due, rt.now() + opts.sweep_interval);
      puts->over.push_back(a);
    }
  }
}

task<result<void>> service::impl::settle_attempt(attempts::ended a) {
  const bytes prefix = intent_prefix + a.version.str();
  kv::scan_options range{prefix, prefix + bytes(9, '\xff')};
  std::vector<held_block> held;
  kv::batch forget;
  for (;;) {
    CO_TRY(auto entries, co_await kv.scan(kv::family::task_queue, range));
    if (entries.empty()) break;
    for (const auto& e : entries) {
      forget.remove(kv::family::task_queue, e.key);
      pb::Intent m;
      if (!m.ParseFromString(e.value) || m.format() != 1) continue;
      CO_TRY(auto hash, block_hash::from_bytes(m.hash()));
      held.push_back({hash, a.version, {static_cast<table_id>(m.table()), m.partition_key(), m.sort_key()}});
    }
    range.from = entries.back().key + '\0';
  }
  if (held.empty()) co_return result<void>();
  if (!a.settled) {
    CO_TRY(bool gone, a.row_sent ? co_await is_given_up(a.version, held.front().owner) : result<bool>(true));
    const auto& owner = held.front().owner;
    if (gone && a.row_sent && owner.table == table_id::part) {
      // Its upload decides, as for a part that was replaced.
      model::part_row part;
      CO_TRY(part.number, model::part_number_of(owner.sort_key));
      part.version = a.version;
      for (const auto& h : held) part.blocks.push_back({h.hash, 1});
      part.size = part.blocks.size();
      queue_work(forget, {work::kind_type::replaced, owner, model::encode(part), {}}, 0ns);
    } else if (gone) {
      CO_TRY_VOID(co_await withdraw(std::move(held)));
    }
  }
  co_return co_await kv.commit(std::move(forget));
}

// Whether a version whose row was sent can never be there any more. Its row is written again as it is, above every ballot that the
// attempt can have used: what then is not that version will not become it.
task<result<bool>> service::impl::is_given_up(version_id version, table::row_key where) {
  if (skips("failed_put_withdraws")) co_return true;
  const bool part = where.table == table_id::part;
  table::judge judge = [part](const table::row& current) -> result<table::row_value> {
    if (current.value.present && !part) {
      TRY(auto row, model::decode_object(current.value.row));
      if (row.inline_body && (current.value.body ? current.value.body->size() : 0) != row.meta.size)
        return fail(errc::internal, "the body is not at hand, and would be lost");
    }
    return current.value;
  };
  auto o = writing(rt.now() + step_time);
  o.with_body = true;
  o.priority = wire::priority::background;
  CO_TRY(table::row now, co_await below->compare_and_swap(where, std::move(judge), std::move(o)));
  if (!now.value.present) co_return true;
  if (part) {
    CO_TRY(auto row, model::decode_part(now.value.row));
    co_return row.version != version;
  }
  CO_TRY(auto row, model::decode_object(now.value.row));
  co_return row.meta.version != version;
}

}  // namespace grenier::store
