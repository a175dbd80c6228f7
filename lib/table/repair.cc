#include "table/repair.h"

#include <algorithm>

#include "table/keys.h"

namespace grenier::table {
namespace {

constexpr std::size_t hints_max = 100000, undelivered_max = 16, hints_at_once = 16, rows_a_message = 256, bytes_a_message = 1 << 20, leaves_a_question = 512, syncs_at_once = 8;

constexpr std::uint64_t promise_ms_max = 10'000;  // afterwards it is in nobody's way if another one goes above it

bool has(const layout::replica_set& s, const node_id& n) { return std::find(s.begin(), s.end(), n) != s.end(); }

wire::call_options background(core& c, nanoseconds d) { return {.priority = wire::priority::background, .deadline = c.rt.now() + d}; }

}  // namespace

void repair::start() {
  core_.tasks.spawn("repair.hints", hint_loop());
  core_.tasks.spawn("repair.merkle", merkle_loop());
  core_.tasks.spawn("repair.returned", returned_loop());
  core_.tasks.spawn("repair.sync", sync_loop());
  layout_.on_change([this](const layout::state&) { to_sync_.wake_all(); });
}

void repair::now() {
  asked_ = true;
  hurry_.wake_all();
}

// ------------------------------------------------------------------------------------------------- hints

void repair::hint(node_id n, layout::partition p, const row_key& k) {
  if (core_.status.hints >= hints_max) return;
  // Each is counted once, also when two requests miss the same row at the same time.
  bytes key = n.str() + place(p, k);
  if (recording_.insert(key).second) core_.tasks.spawn("repair.hint", record(std::move(key)));
}

task<void> repair::record(bytes key) {
  auto known = co_await core_.store.get(kv::family::hint, key);
  if (known && !*known) {
    kv::batch b;
    b.put(kv::family::hint, key, {});
    if (co_await core_.store.commit(std::move(b))) ++core_.status.hints;
  }
  recording_.erase(key);
}

task<void> repair::hint_loop() {
  // Those of an earlier start are counted once.
  struct counter {
    std::size_t n = 0;
  };
  auto c = std::make_shared<counter>();
  (void)co_await core_.store.walk(kv::family::hint, {}, {}, [c](bytes_view, bytes_view) { return ++c->n, kv::store::step{}; });
  core_.status.hints += c->n;
  for (;;) {
    co_await sleep_for(core_.rt, core_.options.hint_interval);
    if (core_.status.hints == 0) {
      core_.status.handoff.troubles.clear();
      continue;
    }
    for (const auto& n : core_.peers.up_members())
      if (n != core_.self) co_await deliver_to(n);
    // Those of nodes that were taken out are of no use any more.
    const auto known = layout_.snapshot();
    for (const auto& n : known->removed) {
      auto old = co_await core_.store.scan(kv::family::hint, {.from = n.str(), .until = after_prefix(n.str())});
      if (!old || old->empty()) continue;
      kv::batch b;
      for (auto& e : *old) b.remove(kv::family::hint, std::move(e.key));
      if (co_await core_.store.commit(std::move(b))) core_.status.hints -= std::min(core_.status.hints, old->size());
      break;
    }
  }
}

// Several at once: each takes a round trip to those who decide and one to whom it is for.
task<void> repair::deliver_to(node_id n) {
  bytes from = n.str();
  if (auto at = hints_from_.find(n); at != hints_from_.end()) from = hints_from_.extract(at).mapped();
  const bool from_the_first = from == n.str();
  bool silent = false;
  std::size_t kept = 0;
  while (!silent && kept < undelivered_max) {
    auto page = co_await core_.store.scan(kv::family::hint, {.from = from, .until = after_prefix(n.str()), .entries_max = 64});
    if (!page || page->empty()) {
      if (kept == 0) core_.hints_stuck.erase(n);
      if (page && kept == 0 && from_the_first) core_.status.handoff.mended(n.str());
      co_return;
    }
    kv::batch done;
    std::size_t delivered = 0;
    fan_out<delivery_outcome> out(core_.rt, core_.tasks);
    for (std::size_t next = 0;;) {
      for (; next < page->size() && !silent && kept < undelivered_max && out.outstanding() < hints_at_once; ++next) {
        from = (*page)[next].key + '\0';
        out.start(next, deliver(n, (*page)[next].key.substr(node_id::size_bytes)));
      }
      auto said = co_await out.next();
      if (!said) break;
      auto& [i, what] = *said;
      if (what.done) {
        done.remove(kv::family::hint, std::move((*page)[i].key));
        ++delivered;
        continue;
      }
      core_.status.handoff.failed(core_.rt.now(), n.str(), n, "bringing a row that it missed: " + what.done.error().to_string());
      silent = silent || what.silent;
      ++kept;
      if (!what.silent) core_.hints_stuck.insert(n);
    }
    if (delivered && co_await core_.store.commit(std::move(done))) {
      core_.status.hints -= std::min(core_.status.hints, delivered);
      core_.status.handoff.did(core_.rt.now(), delivered);
    }
  }
  // The next round goes on after those that could not be delivered in this one.
  hints_from_[n] = std::move(from);
}

// Names, not values: what is delivered is what a quorum holds now.
task<repair::delivery_outcome> repair::deliver(node_id to, bytes where) {
  auto l = locate(where);
  if (!l) co_return delivery_outcome{};
  const layout::partition p = partition_of(l->key, layout_.state().partition_count());
  if (!has(layout_.state().all_replicas(p), to)) co_return delivery_outcome{};
  if (core_.merges(l->key.table)) {
    auto sent = co_await send(to, p, {place(p, l->key)});
    co_return delivery_outcome{.silent = !sent, .done = sent};
  }
  auto row = co_await coordinator_.settle(l->key, to, core_.rt.now() + 20s);
  if (!row) co_return delivery_outcome{.silent = false, .done = fail(row.error())};
  const ballot written = row->written;
  if (!written || row->there) co_return delivery_outcome{.written = written};
  pb::accept_request q;
  *q.mutable_judged() = layout_.context(p);
  *q.add_rows() = std::move(row->accept);
  bytes raw = q.SerializeAsString();
  core_.status.handoff.bytes += raw.size();
  auto a = to == core_.self ? co_await replica_.accept(replica_.local(core_.rt.now() + 20s), std::move(q))
                            : co_await core::call<pb::register_answers>(core_, to, wire::method::table_accept, std::move(raw), background(core_, 20s));
  if (!a) co_return delivery_outcome{.silent = true, .done = fail(a.error())};
  if (a->has_refused()) co_return delivery_outcome{.silent = true, .done = fail(errc::unavailable, "refused")};
  if (a->rows_size() != 1) co_return delivery_outcome{.silent = false, .done = fail(errc::protocol, "an answer of the wrong size")};
  if (a->rows(0).error()) co_return delivery_outcome{.silent = false, .done = fail(static_cast<errc>(a->rows(0).error()), a->rows(0).detail())};
  if (auto by = kept_from(a->rows(0), written)) {
    if (!over(*by)) co_return delivery_outcome{.silent = false, .done = fail(errc::unavailable, "another operation on this row is under way")};
    co_return delivery_outcome{.silent = false, .done = co_await coordinator_.raise(std::move(l->key), core_.rt.now() + 20s, core_.clock.too_far_ahead(by->time)), .written = written};
  }
  ++core_.status.rows_sent;
  co_return delivery_outcome{.written = written};
}

// ------------------------------------------------------------------------------------------------- anti-entropy

task<result<pb::merkle_answer>> repair::ask(node_id peer, pb::merkle_request q) {
  bytes raw = q.SerializeAsString();
  core_.status.bytes_sent += raw.size();
  CO_TRY(auto a, co_await core::call<pb::merkle_answer>(core_, peer, wire::method::table_merkle, std::move(raw), background(core_, 60s)));
  if (a.has_refused()) {
    if (!a.refused().layout().empty()) CO_TRY_VOID(co_await layout_.adopt_bytes(a.refused().layout()));
    co_return fail(errc::stale_layout, "the layout went on");
  }
  co_return a;
}

task<result<pb::pull_answer>> repair::ask(node_id peer, pb::pull_request q) {
  bytes raw = q.SerializeAsString();
  core_.status.bytes_sent += raw.size();
  CO_TRY(auto a, co_await core::call<pb::pull_answer>(core_, peer, wire::method::table_pull, std::move(raw), background(core_, 120s)));
  if (a.has_refused()) {
    if (!a.refused().layout().empty()) CO_TRY_VOID(co_await layout_.adopt_bytes(a.refused().layout()));
    co_return fail(errc::stale_layout, "the layout went on");
  }
  co_return a;
}

task<void> repair::merkle_loop() {
  for (;;) {
    if (!asked_) {
      const auto pause = core_.options.merkle_interval;
      co_await hurry_.wait(core_.rt.now() + pause + nanoseconds(static_cast<std::int64_t>(core_.rt.random().below(static_cast<std::uint64_t>(pause.count() / 8 + 1)))));
    }
    const bool hurried = std::exchange(asked_, false);
    if (!layout_.known()) continue;
    for (const auto& n : core_.peers.up_members()) {
      if (n == core_.self) continue;
      // Who came back is told by name first; the comparison follows then (below).
      if (!hurried && returned_.contains(n)) continue;
      told(n, co_await exchange(n));
    }
    ++core_.status.merkle_rounds;
  }
}

// Somebody still has names of rows that this node or that one missed: what they bring would cross the line twice.
task<bool> repair::told_by_name(node_id n) {
  if (co_await replica_.has_hints_for(n)) co_return true;
  pb::merkle_request q;
  *q.mutable_judged() = layout_.context(0);
  q.set_level(pb::merkle_request::hints);
  q.set_from(n.str() + core_.self.str());
  const bytes raw = q.SerializeAsString();
  fan_out<result<pb::merkle_answer>> out(core_.rt, core_.tasks);
  for (const auto& other : core_.peers.up_members())
    if (other != core_.self) out.start(0, core::call<pb::merkle_answer>(core_, other, wire::method::table_merkle, raw, background(core_, 2s)));
  bool some = false;
  while (auto said = co_await out.next()) some = some || (said->second && !said->second->has_refused() && !said->second->same());
  co_return some;
}

// Whoever was away missed more than hints can name (the gateway that would have written one may hold no such row, or was killed): it is
// compared with as soon as it is there, not at the next round. One of the two asks, so that nothing crosses the line twice: of two that
// were there all the time the smaller one; the other, and who was away itself, only when nobody has asked.
task<void> repair::returned_loop() {
  const mono_time started = core_.rt.now();
  const nanoseconds lead = core_.options.hint_interval, follow = 5 * lead;
  for (;;) {
    co_await sleep_for(core_.rt, std::min<nanoseconds>(1s, lead));
    if (!layout_.known()) continue;
    const mono_time now = core_.rt.now();
    std::set<node_id> up;
    for (const auto& n : core_.peers.up_members())
      if (n != core_.self) up.insert(n);
    std::erase_if(compared_, [&](const node_id& n) { return !up.contains(n); });
    std::erase_if(returned_, [&](const auto& r) { return !up.contains(r.first); });
    const bool was_away = now < started + lead;
    for (const auto& n : up)
      if (!compared_.contains(n)) returned_.try_emplace(n, returned{now, now + (core_.self < n && !was_away ? lead : follow)});
    node_id due;
    for (const auto& [n, r] : returned_) {
      if (replica_.compared_by(n) > r.since) {
        compared_.insert(n);
      } else if (r.due <= now) {
        due = n;
        break;
      }
    }
    std::erase_if(returned_, [&](const auto& r) { return compared_.contains(r.first); });
    core_.status.homes_to_compare = returned_.size();
    if (due == node_id()) continue;
    // What it is told by name already is not offered a second time.
    auto at = returned_.find(due);
    if (now < at->second.since + 10min && co_await told_by_name(due)) {
      if (at = returned_.find(due); at != returned_.end()) at->second.due = core_.rt.now() + 1s;
      continue;
    }
    auto r = co_await exchange(due);
    if (r) compared_.insert(due), returned_.erase(due);
    else if (at = returned_.find(due); at != returned_.end()) at->second.due = core_.rt.now() + lead;
    told(due, r);
    core_.status.homes_to_compare = returned_.size();
  }
}

void repair::told(node_id peer, const result<void>& r) {
  if (r) {
    core_.status.comparison.did(core_.rt.now());
    core_.status.comparison.mended(peer.str());
  } else {
    core_.status.comparison.failed(core_.rt.now(), peer.str(), peer, "comparing rows: " + r.error().to_string());
  }
}

task<result<void>> repair::exchange(node_id peer) {
  if (core_.skips("no_anti_entropy")) co_return result<void>();
  const mono_time begun = core_.rt.now();
  std::vector<layout::partition> shared;
  auto s = layout_.snapshot();
  for (std::size_t i = 0; i < s->partition_count(); ++i) {
    const auto all = s->all_replicas(static_cast<layout::partition>(i));
    if (has(all, peer) && has(all, core_.self)) shared.push_back(static_cast<layout::partition>(i));
  }
  if (!shared.empty()) {
    CO_TRY(auto different, co_await differing(peer, std::move(shared), nullptr));
    for (auto p : different) CO_TRY_VOID(co_await reconcile(peer, p));
  }
  // All rows were compared: what was passed over, or held by a promise, would have been met again.
  core_.status.comparison.mended(rows_held_back(peer), begun);
  core_.status.other.mended(rows_passed_over(peer), begun);
  co_return result<void>();
}

task<result<std::vector<layout::partition>>> repair::differing(node_id peer, std::vector<layout::partition> all, std::set<layout::partition>* unsynced) {
  std::vector<std::uint64_t> mine;
  bytes together;
  pb::merkle_request q;
  *q.mutable_judged() = layout_.context(0);
  q.set_level(pb::merkle_request::roots);
  for (auto p : all) {
    CO_TRY(std::uint64_t root, co_await replica_.root(p));
    mine.push_back(root);
    append_u64(together, root);
    q.add_partitions(p);
  }
  q.set_digest(xxh3_64(together));
  CO_TRY(auto a, co_await ask(peer, std::move(q)));
  if (unsynced) unsynced->insert(a.unsynced().begin(), a.unsynced().end());
  std::vector<layout::partition> different;
  if (a.same()) co_return different;
  if (static_cast<std::size_t>(a.hashes_size()) != all.size()) co_return fail(errc::protocol, "digests are missing");
  for (std::size_t i = 0; i < all.size(); ++i)
    if (a.hashes(static_cast<int>(i)) != mine[i]) different.push_back(all[i]);
  co_return different;
}

task<result<void>> repair::reconcile(node_id peer, layout::partition p) {
  pb::merkle_request q;
  *q.mutable_judged() = layout_.context(p);
  q.add_partitions(p);
  q.set_level(pb::merkle_request::inner);
  CO_TRY(auto inner, co_await ask(peer, q));
  CO_TRY(auto mine, co_await replica_.inner(p));
  if (static_cast<std::size_t>(inner.hashes_size()) != mine.size()) co_return fail(errc::protocol, "digests are missing");
  q.set_level(pb::merkle_request::leaves);
  for (std::size_t i = 0; i < mine.size(); ++i)
    if (inner.hashes(static_cast<int>(i)) != mine[i]) q.add_indexes(static_cast<std::uint32_t>(i));
  if (q.indexes_size() == 0) co_return result<void>();
  CO_TRY(auto theirs, co_await ask(peer, q));
  constexpr std::size_t each = merkle_leaves / merkle_inner;
  if (static_cast<std::size_t>(theirs.hashes_size()) != each * static_cast<std::size_t>(q.indexes_size())) co_return fail(errc::protocol, "digests are missing");
  std::set<std::uint16_t> leaves;
  for (int k = 0; k < q.indexes_size(); ++k) {
    CO_TRY(auto here, co_await replica_.leaves(p, q.indexes(k)));
    for (std::size_t i = 0; i < each; ++i)
      if (theirs.hashes(static_cast<int>(static_cast<std::size_t>(k) * each + i)) != here[i]) leaves.insert(static_cast<std::uint16_t>(q.indexes(k) * each + i));
  }
  while (!leaves.empty()) {
    std::set<std::uint16_t> some;
    while (!leaves.empty() && some.size() < leaves_a_question) some.insert(leaves.extract(leaves.begin()));
    CO_TRY_VOID(co_await reconcile_rows(peer, p, std::move(some)));
  }
  co_return result<void>();
}

task<result<void>> repair::reconcile_rows(node_id peer, layout::partition p, std::set<std::uint16_t> leaves) {
  pb::merkle_request q;
  *q.mutable_judged() = layout_.context(p);
  q.add_partitions(p);
  q.set_level(pb::merkle_request::rows);
  for (auto l : leaves) q.add_indexes(l);
  bool differ = false;
  for (bytes from = partition_prefix(p);;) {
    q.set_from(from);
    CO_TRY(auto theirs, co_await ask(peer, q));
    const bytes until = theirs.next().empty() ? after_prefix(partition_prefix(p)) : theirs.next();
    if (!theirs.next().empty() && theirs.next() <= from) co_return fail(errc::protocol, "a page that goes nowhere");
    std::map<bytes, std::pair<bytes, std::uint64_t>> here;
    for (bytes at = from; !at.empty();) {
      CO_TRY(auto mine, co_await replica_.rows_of(p, leaves, at, until));
      for (const auto& r : mine.rows()) here[r.place()] = {r.written(), r.digest()};
      at = mine.next();
    }
    std::vector<bytes> wanted, offered;
    for (const auto& r : theirs.rows()) {
      auto at = here.find(r.place());
      if (at == here.end()) {
        wanted.push_back(r.place());
        continue;
      }
      if (at->second.second != r.digest()) {
        const bool merged = r.written().empty();
        if (merged || at->second.first < r.written()) wanted.push_back(r.place());
        if (merged || at->second.first > r.written()) offered.push_back(r.place());
      }
      here.erase(at);
    }
    for (auto& [k, v] : here) offered.push_back(k);
    differ = differ || !wanted.empty() || !offered.empty();
    CO_TRY_VOID(co_await pull(peer, p, std::move(wanted)));
    CO_TRY_VOID(co_await send(peer, p, std::move(offered)));
    if (theirs.next().empty()) break;
    from = until;
  }
  // Digests that differ time and again where no rows do: one of the two kept a wrong one from a commit that failed.
  if (differ) suspicious_.erase(p);
  else if (++suspicious_[p] >= 3) {
    suspicious_.erase(p);
    CO_TRY_VOID(co_await replica_.count_anew(p));
  }
  co_return result<void>();
}

task<result<void>> repair::pull(node_id peer, layout::partition p, std::vector<bytes> places) {
  for (std::size_t i = 0; i < places.size();) {
    pb::pull_request q;
    *q.mutable_judged() = layout_.context(p);
    for (; i < places.size() && q.places_size() < static_cast<int>(rows_a_message); ++i) q.add_places(places[i]);
    while (q.places_size() > 0) {
      CO_TRY(auto a, co_await ask(peer, q));
      const int told = a.rows_size();
      std::vector<blocked_row> blocked;
      CO_TRY_VOID(co_await replica_.take(p, peer, std::move(a), blocked));
      co_await raise(peer, core_.self, std::move(blocked));
      // Large rows come in several answers; those that are gone meanwhile are passed over.
      if (told == 0 || told >= q.places_size()) break;
      q.mutable_places()->DeleteSubrange(0, told);
    }
  }
  co_return result<void>();
}

task<result<void>> repair::pull_all(node_id peer, layout::partition p) {
  for (bytes from = partition_prefix(p);;) {
    pb::pull_request q;
    *q.mutable_judged() = layout_.context(p);
    q.set_from(from);
    CO_TRY(auto a, co_await ask(peer, std::move(q)));
    bytes next = a.next();
    if (!next.empty() && next <= from) co_return fail(errc::protocol, "a page that goes nowhere");
    std::vector<blocked_row> blocked;
    CO_TRY_VOID(co_await replica_.take(p, peer, std::move(a), blocked));
    co_await raise(peer, core_.self, std::move(blocked));
    if (next.empty()) co_return result<void>();
    from = std::move(next);
  }
}

task<result<void>> repair::send(node_id peer, layout::partition p, std::vector<bytes> places) {
  for (std::size_t i = 0; i < places.size();) {
    pb::accept_request q;
    *q.mutable_judged() = layout_.context(p);
    std::size_t size = 0;
    for (; i < places.size() && q.rows_size() < static_cast<int>(rows_a_message) && size < bytes_a_message; ++i) {
      CO_TRY(auto row, co_await replica_.accept_of(places[i]));
      if (!row) continue;
      size += row->ByteSizeLong();
      *q.add_rows() = std::move(*row);
    }
    if (q.rows_size() == 0) continue;
    core_.status.rows_sent += static_cast<std::uint64_t>(q.rows_size());
    core_.status.bytes_sent += size;
    CO_TRY(auto a, co_await core::call<pb::register_answers>(core_, peer, wire::method::table_accept, q.SerializeAsString(), background(core_, 120s)));
    if (a.has_refused()) co_return fail(errc::stale_layout, "the layout went on");
    if (a.rows_size() != q.rows_size()) co_return fail(errc::protocol, "answers are missing");
    std::vector<blocked_row> blocked;
    for (int n = 0; n < a.rows_size(); ++n) {
      const auto& r = a.rows(n);
      const auto& k = q.rows(n).key();
      const auto sent = ballot::decode(q.rows(n).ballot());
      if (!r.error()) {
        if (auto by = sent ? kept_from(r, *sent) : std::nullopt) blocked.push_back({{static_cast<table_id>(k.table()), k.partition_key(), k.sort_key()}, *by});
        continue;
      }
      if (static_cast<errc>(r.error()) == errc::clock_skew && sent) {
        blocked.push_back({{static_cast<table_id>(k.table()), k.partition_key(), k.sort_key()}, *sent, true});
        continue;
      }
      // One row that cannot be taken does not keep the others away; what its disk cannot take now will come again.
      error why(static_cast<errc>(r.error()), r.detail());
      if (why != errc::corrupt) co_return fail(std::move(why));
      replica_.passed_over(peer, why);
    }
    co_await raise(peer, peer, std::move(blocked));
  }
  co_return result<void>();
}

// ------------------------------------------------------------------------------------------------- past a promise

// The promise that kept this value from a replica which holds an older one; none: it took it, or needs nothing.
std::optional<ballot> repair::kept_from(const pb::register_answer& a, const ballot& sent) {
  if (a.error() || a.answer().empty()) return std::nullopt;
  auto said = answer::decode(a.answer());
  if (!said || said->yes || said->accepted >= sent || said->promised <= sent) return std::nullopt;
  return said->promised;
}

// Whoever asked for it has long had its answer; of a promise from far ahead nobody can tell, and its time is hours away.
bool repair::over(const ballot& promise) const {
  return promise.time.ms() + promise_ms_max < core_.rt.wall_ms() || core_.clock.too_far_ahead(promise.time);
}

// A row from hours ahead: what a quorum took then is to be had here, too. What one home alone took is overtaken: in two hours it would come up
// again, and undo what was acknowledged since.
task<void> repair::bring(node_id peer, node_id to, blocked_row b) {
  auto d = co_await deliver(to, place(partition_of(b.key, layout_.state().partition_count()), b.key));
  if (d.done && d.written < b.by) d.done = co_await coordinator_.raise(b.key, core_.rt.now() + 20s, true, b.by);
  if (!d.done) replica_.passed_over(peer, d.done.error());
}

// A promise to an operation that came to nothing would keep the row from this replica until somebody writes it: for good, perhaps.
task<void> repair::raise(node_id peer, node_id at, std::vector<blocked_row> all) {
  for (auto& b : all) {
    if (b.too_far) {
      co_await bring(peer, at, std::move(b));
      continue;
    }
    if (!over(b.by)) continue;
    auto r = co_await coordinator_.raise(std::move(b.key), core_.rt.now() + 20s, core_.clock.too_far_ahead(b.by.time));
    if (r) continue;
    core_.status.comparison.failed(core_.rt.now(), rows_held_back(peer), peer, "bringing a row past a promise: " + r.error().to_string());
    co_return;  // the next comparison meets them again
  }
}

// ------------------------------------------------------------------------------------------------- partitions new here

struct repair::sync_state {
  sync_state(runtime& rt, std::shared_ptr<const layout::state> s) : layout(std::move(s)), at_once(rt, syncs_at_once) {}
  std::shared_ptr<const layout::state> layout;
  std::map<layout::partition, std::set<node_id>> merged;  // from whom
  semaphore at_once;
};

// From a read quorum of the current version; who counts in that one already is part of it.
bool repair::merged_enough(const sync_state& s, layout::partition p) const {
  auto from = s.merged.at(p);
  if (layout_.counts(p) & 1) from.insert(core_.self);
  return layout::is_quorum(s.layout->current, p, from, {core_.self});
}

task<bool> repair::sync_one(node_id source, layout::partition p) {
  auto empty = co_await replica_.empty(p);
  auto r = empty && *empty ? co_await pull_all(source, p) : co_await reconcile(source, p);
  const bytes subject = source.str() + std::to_string(p);
  if (r) {
    core_.status.merging.did(core_.rt.now());
    core_.status.merging.mended(subject);
  } else {
    core_.status.merging.failed(core_.rt.now(), subject, source, "merging partition " + std::to_string(p) + ": " + r.error().to_string());
  }
  co_return r.has_value();
}

task<void> repair::sync_from(node_id source, std::shared_ptr<sync_state> s) {
  auto enough = [this, &s](layout::partition p) { return merged_enough(*s, p); };
  std::vector<layout::partition> ask_for;
  for (const auto& [p, from] : s->merged)
    if (has(s->layout->current.replicas(p), source) && !enough(p)) ask_for.push_back(p);
  if (ask_for.empty()) co_return;
  std::set<layout::partition> unsynced;
  auto different = co_await differing(source, ask_for, &unsynced);
  if (!different) {
    core_.status.merging.failed(core_.rt.now(), source.str(), source, "merging rows: " + different.error().to_string());
    co_return;
  }
  core_.status.merging.mended(source.str());
  for (auto p : ask_for)
    if (!unsynced.contains(p) && !std::binary_search(different->begin(), different->end(), p)) s->merged[p].insert(source);
  fan_out<bool> out(core_.rt, core_.tasks);
  std::size_t next = 0, running = 0;
  for (;;) {
    while (running < syncs_at_once && next < different->size()) {
      const auto p = (*different)[next];
      if (!unsynced.contains(p)) {
        out.start(next, sync_one(source, p));
        ++running;
      }
      ++next;
    }
    auto a = co_await out.next();
    if (!a) break;
    --running;
    if (a->second && layout_.revision() == s->layout->revision) s->merged[(*different)[a->first]].insert(source);
  }
}

task<void> repair::sync_round() {
  auto s = std::make_shared<sync_state>(core_.rt, layout_.snapshot());
  std::set<node_id> sources;
  for (auto p : layout_.unsynced()) {
    s->merged[p];
    for (const auto& n : s->layout->current.replicas(p))
      if (n != core_.self && core_.peers.up(n)) sources.insert(n);
  }
  core_.status.partitions_to_sync = s->merged.size();
  if (s->merged.empty()) {
    core_.status.merging.troubles.clear();
    co_return;
  }
  for (const auto& n : core_.peers.by_quality({sources.begin(), sources.end()})) {
    co_await sync_from(n, s);
    if (layout_.revision() != s->layout->revision) co_return;
  }
  std::vector<layout::partition> done;
  for (const auto& [p, from] : s->merged)
    if (merged_enough(*s, p)) done.push_back(p);
  if (done.empty()) co_return;
  // What was merged from a quorum of the current version counts there, too.
  if (s->layout->next) {
    std::vector<layout::partition> both;
    for (auto p : done)
      if (has(s->layout->current.replicas(p), core_.self)) both.push_back(p);
    if (!both.empty()) (void)co_await layout_.mark_synced(s->layout->current.number, std::move(both));
  }
  if (auto r = co_await layout_.mark_synced(s->layout->newest().number, done); !r) core_.status.merging.failed(core_.rt.now(), "mark", {}, r.error().to_string());
  else core_.status.merging.mended("mark");
  core_.status.partitions_to_sync = layout_.unsynced().size();
}

task<void> repair::sync_loop() {
  for (;;) {
    if (layout_.known()) co_await sync_round();
    co_await to_sync_.wait(core_.rt.now() + (core_.status.partitions_to_sync ? 1s : 10s));
  }
}

}  // namespace grenier::table
