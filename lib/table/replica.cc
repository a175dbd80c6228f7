#include "table/replica.h"

#include <algorithm>

namespace grenier::table {
namespace {

bool has(const std::vector<node_id>& s, const node_id& n) { return std::find(s.begin(), s.end(), n) != s.end(); }

row_key key_of(const pb::row_id& r) { return {static_cast<table_id>(r.table()), r.partition_key(), r.sort_key()}; }

void put_error(pb::register_answer& a, const error& e) {
  a.set_error(static_cast<std::uint32_t>(e.code));
  a.set_detail(e.detail);
}

}  // namespace

// What one message changes: its rows locked, read, judged, and put into one batch.
struct replica::change_set {
  struct item {
    row_key key;
    bytes place;
    bytes raw;        // as it is on disk; empty: nothing
    bytes changed;    // as it will be; empty: as it is
    u128 before, after;
    ballot taken;     // of the value that is taken; none: the value stays
    bool dropped = false;  // the row goes (a step left out on purpose)
  };
  pb::context judged;
  layout::partition p = 0;
  std::vector<item> items;
  std::vector<key_lock::guard> guards;
  kv::batch batch;
  kv::batch hooked;   // what the hooks add
  merkle::hold digests;     // of the partition, in memory
  replica* busy = nullptr;  // counted among those that change the partition

  change_set() = default;
  change_set(const change_set&) = delete;
  ~change_set() {
    if (!busy) return;
    if (--busy->busy_[p] == 0) busy->busy_.erase(p);
    busy->finished_.wake_all();
  }
};

replica::replica(core& c, layout_keeper& l, copies& co, change_log& changes)
    : core_(c), layout_(l), copies_(co), changes_(changes), merkle_(c.rt, c.store), locks_(c.rt), finished_(c.rt), opened_(c.rt) {
  mutations_ = mutations_named(c.options.mutations);
}

void replica::serve() {
  core_.serve<pb::accept_request>(wire::method::table_accept, this, &replica::accept);
  core_.serve<pb::prepare_request>(wire::method::table_prepare, this, &replica::prepare);
  core_.serve<pb::read_request>(wire::method::table_read, this, &replica::read);
  core_.serve<pb::list_request>(wire::method::table_list, this, &replica::list);
  core_.serve<pb::counters_request>(wire::method::table_counters, this, &replica::count);
  core_.serve<pb::merkle_request>(wire::method::table_merkle, this, &replica::compare);
  core_.serve<pb::pull_request>(wire::method::table_pull, this, &replica::pull);
}

// ------------------------------------------------------------------------------------------------- the gate

std::optional<pb::refusal> replica::refuses(const pb::context& c) const {
  if (auto r = layout_.stale(c)) return r;
  if (auto newer = copies_.fenced_off(c)) {
    pb::refusal r;
    *r.mutable_fence() = std::move(*newer);
    return r;
  }
  return std::nullopt;
}

task<result<std::optional<pb::refusal>>> replica::admit(wire::caller from, pb::context c) {
  CO_TRY(auto stale, co_await layout_.admit(from, c));
  if (stale) co_return stale;
  if (!has(layout_.state().all_replicas(static_cast<layout::partition>(c.partition())), core_.self))
    co_return fail(errc::unavailable, "this node is no replica of the partition");
  co_return refuses(c);
}

// ------------------------------------------------------------------------------------------------- changing rows

task<result<void>> replica::lock(change_set& c, mono_time deadline) {
  std::vector<bytes> places;
  for (const auto& i : c.items) places.push_back(i.place);
  std::sort(places.begin(), places.end());
  if (std::adjacent_find(places.begin(), places.end()) != places.end()) co_return fail(errc::invalid_argument, "a row twice in one message");
  for (auto& p : places) {
    auto g = co_await locks_.lock(p, deadline);
    if (!g) co_return fail(errc::timed_out, "waiting for a row");
    c.guards.push_back(std::move(g));
  }
  CO_TRY_VOID(co_await merkle_.load(c.p));
  c.digests = merkle::hold(merkle_, c.p);
  while (closed_.contains(c.p))
    if (!co_await opened_.wait(deadline)) co_return fail(errc::timed_out, "waiting for a partition");
  ++busy_[c.p];
  c.busy = this;
  for (auto& i : c.items) {
    CO_TRY(auto raw, co_await core_.store.get(kv::family::row, i.place));
    if (raw) i.raw = std::move(*raw);
  }
  co_return result<void>();
}

task<result<void>> replica::commit(change_set& c) {
  for (const auto& i : c.items) {
    if (i.changed.empty()) continue;
    if (i.dropped) c.batch.remove(kv::family::row, i.place);
    else c.batch.put(kv::family::row, i.place, i.changed);
    merkle_.change(c.p, i.place, i.before, i.after, c.batch);
  }
  c.batch.append(std::move(c.hooked));
  change_log::ticket told;
  for (const auto& i : c.items)
    if (i.taken) changes_.add(told, c.p, i.place, i.taken, c.batch);
  if (c.batch.empty()) co_return result<void>();
  const std::uint64_t revision = layout_.revision();
  ++under_way_[revision];
  auto r = co_await core_.store.commit(std::move(c.batch));
  if (--under_way_[revision] == 0) {
    under_way_.erase(revision);
    finished_.wake_all();
  }
  changes_.ended(told, r.has_value());
  co_return r;
}

// What was admitted by an older layout is on disk, or was not done, before a newcomer is told what is here.
task<void> replica::older_finished() {
  while (!under_way_.empty() && under_way_.begin()->first < layout_.revision()) co_await finished_.wait(core_.rt.now() + 1s);
}

void replica::tell_hooks(const change_set& c, const row_key& key, const ballot& before_written, bytes_view before, const ballot& after_written,
                         bytes_view after, kv::batch& to) {
  auto at = core_.tables.find(key.table);
  if (at == core_.tables.end() || at->second.hooks.empty()) return;
  const bool merged = static_cast<bool>(at->second.rules.join);
  unpacked b{.present = !before.empty(), .has_body = false, .row = before}, a{.present = true, .has_body = false, .row = after};
  if (!merged) {
    b = unpack(before).value_or(unpacked{});
    a = unpack(after).value_or(unpacked{});
  }
  change what{.key = key, .partition = c.p, .before_written = before_written, .after_written = after_written,
              .before_present = b.present, .after_present = a.present, .before = b.row, .after = a.row};
  for (auto& hook : at->second.hooks) hook(what, to);
}

// The row takes a value: its digest, its body, and what hooks add go with it.
void replica::take_value(change_set& c, std::size_t n, const cell& before, const cell& after, const bytes& body) {
  auto& i = c.items[n];
  i.taken = after.accepted;
  const auto was = unpack(before.accepted_value).value_or(unpacked{}), is = unpack(after.accepted_value).value_or(unpacked{});
  i.before = merkle::digest(i.place, before.accepted, before.attempt.view(), was.present);
  i.after = merkle::digest(i.place, after.accepted, after.attempt.view(), is.present);
  if (!is.present && core_.skips("tombstone_early")) i.after = u128{}, i.dropped = true;
  if (is.has_body) c.batch.put(kv::family::body, i.place, after.accepted.encode() + body);
  else if (was.has_body) c.batch.remove(kv::family::body, i.place);
  tell_hooks(c, i.key, before.accepted, before.accepted_value, after.accepted, after.accepted_value, c.hooked);
  if (core_.everywhere(i.key.table)) copies_.expect(i.key.table, i.key.partition_key, after.accepted);
}

void replica::merge_one(change_set& c, std::size_t n, bytes_view value) {
  auto& i = c.items[n];
  const auto& join = core_.tables.find(i.key.table)->second.rules.join;
  bytes joined = i.raw.empty() ? join({}, value) : join(i.raw, value);
  if (joined == i.raw) return;
  i.before = i.raw.empty() ? u128{} : merkle::digest(i.place, i.raw);
  i.after = merkle::digest(i.place, joined);
  tell_hooks(c, i.key, {}, i.raw, {}, joined, c.hooked);
  i.changed = std::move(joined);
}

// ------------------------------------------------------------------------------------------------- accept, prepare, read

result<void> replica::name_rows(change_set& c, const pb::context& judged, std::vector<pb::row_id> rows) const {
  if (rows.empty() || rows.size() > rows_max) return fail(errc::invalid_argument, "a message of no rows, or of too many");
  c.judged = judged;
  c.p = static_cast<layout::partition>(judged.partition());
  for (const auto& r : rows) {
    row_key k = key_of(r);
    TRY_VOID(check(k));
    if (partition_of(k, layout_.state().partition_count()) != c.p) return fail(errc::protocol, "a row of another partition");
    bytes at = place(c.p, k);
    c.items.push_back({.key = std::move(k), .place = std::move(at), .raw = {}, .changed = {}, .before = {}, .after = {}, .taken = {}});
  }
  return {};
}

result<void> replica::check_accept(const pb::accept_row& r) const {
  if (r.value().size() > row_max + 1 || r.with().content().size() > body_max) return fail(errc::too_large, "a row or body is too large");
  if (r.ballot().empty() != core_.merges(static_cast<table_id>(r.key().table()))) return fail(errc::protocol, "a row that is not of its table's kind");
  if (r.ballot().empty()) return {};
  TRY(auto b, ballot::decode(r.ballot()));
  TRY(auto a, attempt_id::from_bytes(r.attempt()));
  if (!b || !a) return fail(errc::protocol, "an accept without ballot or attempt");
  TRY(auto u, unpack(r.value()));
  if (u.has_body != r.has_with()) return fail(errc::protocol, "a body is missing, or there is one too many");
  return {};
}

// Rule 8: a clock that is wrong cannot shut others out; a retry above what is here already must go through.
result<void> replica::not_too_far(const ballot& b, const cell& c) {
  constexpr std::uint64_t just_above = std::uint64_t{1000} << 16;
  const bool retry = b.time.value <= std::max(c.promised.time.value, c.accepted.time.value) + just_above;
  if (retry && core_.clock.too_far_ahead(b.time)) return {};
  return core_.clock.observe(b.time);
}

void replica::accept_one(change_set& c, std::size_t n, pb::accept_row& in, pb::register_answer& out) {
  auto& i = c.items[n];
  if (in.ballot().empty()) return merge_one(c, n, in.value());
  auto before = i.raw.empty() ? result<cell>(cell{}) : cell::decode(i.raw);
  if (!before) return put_error(out, before.error());
  const ballot at = *ballot::decode(in.ballot());
  // What a quorum agreed on stands, whatever the clocks of those homes were: kept out, it would be missing here until that time has come.
  if (auto ok = not_too_far(at, *before); !ok && !in.chosen()) return put_error(out, ok.error());
  if (at.time > time_max) return put_error(out, error(errc::protocol, "a row with a time that cannot be"));
  cell now = *before;
  reply r = table::accept(now, at, *attempt_id::from_bytes(in.attempt()), in.value(), &mutations_);
  if (r.took) take_value(c, n, *before, now, in.with().content());
  if (r.changed) i.changed = now.encode();
  out.set_answer(r.answer.encode());
}

// Whether this node counts is asked before its rows are: what is merged in between is not in the answer.

task<result<pb::register_answers>> replica::accept(wire::caller from, pb::accept_request q) {
  pb::register_answers a;
  CO_TRY(auto refused, co_await admit(from, q.judged()));
  const auto counts = refused ? 0 : layout_.counts(static_cast<layout::partition>(q.judged().partition()));
  change_set c;
  if (!refused) {
    std::vector<pb::row_id> rows;
    for (const auto& r : q.rows()) {
      CO_TRY_VOID(check_accept(r));
      rows.push_back(r.key());
    }
    CO_TRY_VOID(name_rows(c, q.judged(), std::move(rows)));
    CO_TRY_VOID(co_await lock(c, from.deadline));
    refused = refuses(q.judged());
  }
  if (refused) {
    *a.mutable_refused() = std::move(*refused);
    co_return a;
  }
  if (core_.rt.now() >= from.deadline) co_return fail(errc::timed_out, "too late to begin");
  for (std::size_t i = 0; i < c.items.size(); ++i) accept_one(c, i, *q.mutable_rows(static_cast<int>(i)), *a.add_rows());
  if (auto done = co_await commit(c); !done) {
    for (auto& r : *a.mutable_rows())
      if (!r.error()) put_error(r, done.error());
    co_return a;
  }
  if (auto stale = layout_.stale(q.judged())) {
    a.Clear();
    *a.mutable_refused() = std::move(*stale);
    co_return a;
  }
  a.set_counts(counts);
  a.set_wall_ms(core_.rt.wall_ms());
  co_return a;
}

task<result<pb::register_answers>> replica::prepare(wire::caller from, pb::prepare_request q) {
  pb::register_answers a;
  CO_TRY(auto refused, co_await admit(from, q.judged()));
  const auto counts = refused ? 0 : layout_.counts(static_cast<layout::partition>(q.judged().partition()));
  CO_TRY(ballot at, ballot::decode(q.ballot()));
  change_set c;
  if (!refused) {
    if (core_.merges(static_cast<table_id>(q.key().table()))) co_return fail(errc::protocol, "merge rows have no ballots");
    CO_TRY_VOID(name_rows(c, q.judged(), {q.key()}));
    CO_TRY_VOID(co_await lock(c, from.deadline));
    refused = refuses(q.judged());
  }
  if (refused) {
    *a.mutable_refused() = std::move(*refused);
    co_return a;
  }
  auto& i = c.items[0];
  auto& out = *a.add_rows();
  cell now;
  if (!i.raw.empty()) {
    CO_TRY(now, cell::decode(i.raw));
  }
  if (at.time > time_max) co_return fail(errc::protocol, "a ballot with a time that cannot be");
  if (auto ok = not_too_far(at, now); !ok && !q.beyond()) {
    put_error(out, ok.error());
    a.set_wall_ms(core_.rt.wall_ms());
    co_return a;
  }
  reply r = table::prepare(now, at);
  if (r.changed) i.changed = now.encode();
  CO_TRY_VOID(co_await commit(c));
  out.set_answer(r.answer.encode());
  if (q.with_body() && now.accepted) {
    CO_TRY(auto h, co_await hold(i.place, now.encode(), true));
    if (h.body && h.what.accepted == now.accepted) out.mutable_with()->set_content(*h.body);
  }
  if (auto stale = layout_.stale(q.judged())) {
    a.Clear();
    *a.mutable_refused() = std::move(*stale);
    co_return a;
  }
  a.set_counts(counts);
  a.set_wall_ms(core_.rt.wall_ms());
  co_return a;
}

task<result<replica::held>> replica::hold(bytes at, bytes raw, bool with_body) {
  held h;
  for (int tries = 0; tries < 8; ++tries) {
    h.raw = std::move(raw);
    if (h.raw.empty()) co_return h;
    CO_TRY(h.what, cell::decode(h.raw));
    CO_TRY(auto u, unpack(h.what.accepted_value));
    if (!with_body || !u.has_body) co_return h;
    CO_TRY(auto body, co_await core_.store.get(kv::family::body, at));
    if (body && body->size() >= 20 && bytes_view(*body).substr(0, 20) == h.what.accepted.encode()) {
      h.body = share(body->substr(20));
      co_return h;
    }
    // Overwritten between the two: as it is now.
    CO_TRY(auto again, co_await core_.store.get(kv::family::row, at));
    raw = again ? std::move(*again) : bytes();
  }
  co_return fail(errc::corrupt, "a row's body does not belong to it");
}

task<result<pb::register_answers>> replica::read(wire::caller from, pb::read_request q) {
  pb::register_answers a;
  CO_TRY(auto refused, co_await admit(from, q.judged()));
  const auto counts = refused ? 0 : layout_.counts(static_cast<layout::partition>(q.judged().partition()));
  change_set c;
  if (!refused) {
    CO_TRY_VOID(name_rows(c, q.judged(), {q.keys().begin(), q.keys().end()}));
    for (auto& i : c.items) {
      CO_TRY(auto raw, co_await core_.store.get(kv::family::row, i.place));
      CO_TRY(auto h, co_await hold(i.place, raw ? std::move(*raw) : bytes(), q.with_body()));
      auto& out = *a.add_rows();
      out.set_answer(table::read(h.what).encode());
      if (h.body) out.mutable_with()->set_content(*h.body);
    }
    refused = refuses(q.judged());
  }
  if (refused) {
    a.Clear();
    *a.mutable_refused() = std::move(*refused);
    co_return a;
  }
  a.set_counts(counts);
  a.set_wall_ms(core_.rt.wall_ms());
  co_return a;
}

task<result<pb::list_answer>> replica::list(wire::caller from, pb::list_request q) {
  pb::list_answer a;
  CO_TRY(auto refused, co_await admit(from, q.judged()));
  if (!refused) {
    row_key k{static_cast<table_id>(q.table()), q.partition_key(), q.prefix()};
    CO_TRY_VOID(check(k));
    if (core_.merges(k.table) || q.start().size() > sort_key_max + 1 || q.delimiter().size() > 16) co_return fail(errc::invalid_argument, "no such list");
    const auto p = static_cast<layout::partition>(q.judged().partition());
    if (partition_of(k, layout_.state().partition_count()) != p) co_return fail(errc::protocol, "a row of another partition");
    list_request wanted{.table = k.table, .partition_key = q.partition_key(), .prefix = q.prefix(), .delimiter = q.delimiter(), .start = q.start(),
                        .entries_max = std::min<std::size_t>(q.entries_max(), 1000)};
    const auto counts = layout_.counts(p);
    CO_TRY(a, co_await list_here(core_, p, std::move(wanted), q.hidden()));
    a.set_counts(counts);
    refused = refuses(q.judged());
  }
  if (refused) {
    a.Clear();
    *a.mutable_refused() = std::move(*refused);
  }
  co_return a;
}

task<result<pb::counters_answer>> replica::count(wire::caller from, pb::counters_request q) {
  pb::counters_answer a;
  CO_TRY(auto refused, co_await admit(from, q.judged()));
  if (refused) {
    *a.mutable_refused() = std::move(*refused);
    co_return a;
  }
  auto at = questions_.find(static_cast<std::uint16_t>(q.question()));
  if (at == questions_.end() || q.question() > 0xffff) co_return fail(errc::not_implemented, "nobody here answers this question");
  const auto p = static_cast<layout::partition>(q.judged().partition());
  a.set_counts(layout_.counts(p));
  CO_TRY(bytes said, co_await at->second(p, q.argument()));
  a.set_answer(std::move(said));
  if (auto stale = layout_.stale(q.judged())) {
    a.Clear();
    *a.mutable_refused() = std::move(*stale);
  }
  co_return a;
}

// ------------------------------------------------------------------------------------------------- merge rows, and rows from others

task<result<void>> replica::merge_here(std::vector<write_item> rows, kv::batch extra) {
  // By partition: a lock's order and a commit's digests are of one; `extra` goes with the last.
  std::map<layout::partition, std::vector<write_item>> parts;
  for (auto& r : rows) {
    CO_TRY_VOID(check(r.key));
    if (!core_.merges(r.key.table)) co_return fail(errc::invalid_argument, "not a merge table");
    parts[partition_of(r.key, layout_.state().partition_count())].push_back(std::move(r));
  }
  if (parts.empty()) co_return extra.empty() ? result<void>() : co_await core_.store.commit(std::move(extra));
  for (auto at = parts.begin(); at != parts.end(); ++at) {
    change_set c;
    c.p = at->first;
    for (auto& r : at->second) {
      bytes where = place(c.p, r.key);
      c.items.push_back({.key = std::move(r.key), .place = std::move(where), .raw = {}, .changed = {}, .before = {}, .after = {}, .taken = {}});
    }
    CO_TRY_VOID(co_await lock(c, never));
    for (std::size_t i = 0; i < c.items.size(); ++i) merge_one(c, i, at->second[i].value.row);
    if (std::next(at) == parts.end()) c.hooked.append(std::exchange(extra, {}));
    CO_TRY_VOID(co_await commit(c));
  }
  co_return result<void>();
}

task<result<std::vector<std::pair<bytes, bytes>>>> replica::scan_here(table_id t, bytes partition_key) {
  std::vector<std::pair<bytes, bytes>> all;
  if (partition_key.size() > partition_key_max) co_return fail(errc::too_large, "a partition key");
  const bytes prefix = group_prefix(partition_of({t, partition_key, {}}, layout_.state().partition_count()), t, partition_key);
  for (bytes from = prefix;;) {
    CO_TRY(auto page, co_await core_.store.scan(kv::family::row, {.from = from, .until = after_prefix(prefix)}));
    if (page.empty()) co_return all;
    from = page.back().key + '\0';
    for (auto& e : page) all.emplace_back(e.key.substr(prefix.size()), std::move(e.value));
  }
}

task<result<row>> replica::row_here(layout::partition p, row_key k, bool with_body) {
  const bytes at = place(p, k);
  CO_TRY(auto raw, co_await core_.store.get(kv::family::row, at));
  CO_TRY(auto h, co_await hold(at, raw ? std::move(*raw) : bytes(), with_body));
  CO_TRY(auto u, unpack(h.what.accepted_value));
  co_return row{h.what.accepted, {.present = u.present, .row = bytes(u.row), .body = h.body}};
}

task<result<std::vector<bytes>>> replica::keys_here(table_id t, layout::partition p, bytes after, std::size_t keys_max) {
  bytes table = partition_prefix(p);
  table.push_back(static_cast<char>(t));
  std::vector<bytes> keys;
  // Keys are ordered by their length first, then by their bytes.
  for (bytes from = after.empty() ? table : after_prefix(group_prefix(p, t, after)); keys.size() < keys_max;) {
    CO_TRY(auto page, co_await core_.store.scan(kv::family::row, {.from = from, .until = after_prefix(table), .entries_max = keys_max}));
    if (page.empty()) break;
    from = page.back().key + '\0';
    for (const auto& e : page) {
      CO_TRY(auto l, locate(e.key));
      if (keys.size() < keys_max && (keys.empty() || keys.back() != l.key.partition_key)) keys.push_back(std::move(l.key.partition_key));
    }
  }
  co_return keys;
}

void replica::passed_over(node_id peer, const error& why) {
  ++core_.status.rows_passed_over;
  core_.status.other.failed(core_.rt.now(), rows_passed_over(peer), peer, "a row that one of two homes cannot take: " + why.to_string());
}

task<result<void>> replica::take(layout::partition p, node_id from_whom, pb::pull_answer from, std::vector<blocked_row>& blocked) {
  const bytes prefix = partition_prefix(p);
  change_set c;
  std::vector<pb::pulled_row*> rows;
  for (auto& r : *from.mutable_rows()) {
    if (r.cell().empty()) continue;
    if (!r.place().starts_with(prefix)) co_return fail(errc::protocol, "a row of another partition");
    CO_TRY(auto l, locate(r.place()));
    CO_TRY_VOID(check(l.key));
    if (partition_of(l.key, layout_.state().partition_count()) != p) co_return fail(errc::protocol, "a row of another partition");
    c.items.push_back({.key = std::move(l.key), .place = r.place(), .raw = {}, .changed = {}, .before = {}, .after = {}, .taken = {}});
    rows.push_back(&r);
  }
  if (rows.empty()) co_return result<void>();
  c.p = p;
  CO_TRY_VOID(co_await lock(c, core_.rt.now() + 30s));
  // A newcomer takes what a quorum may have agreed on, whatever its own clock says: it would answer for rows that it passed over.
  const bool newcomer = (layout_.counts(p) & (layout_.state().next ? 2 : 1)) == 0;
  for (std::size_t n = 0; n < rows.size(); ++n) {
    auto& i = c.items[n];
    if (core_.merges(i.key.table)) {
      merge_one(c, n, rows[n]->cell());
      continue;
    }
    CO_TRY(cell theirs, cell::decode(rows[n]->cell()));
    cell before;
    if (!i.raw.empty()) {
      CO_TRY(before, cell::decode(i.raw));
    }
    if (theirs.promised.time > time_max) co_return fail(errc::protocol, "a row with a time that cannot be");
    if (!newcomer) {
      if (core_.clock.too_far_ahead(theirs.promised.time)) theirs.promised = theirs.accepted;  // a promise need not come along
      if (auto ok = not_too_far(theirs.accepted, before); !ok) {
        blocked.push_back({i.key, theirs.accepted, true});
        continue;
      }
    }
    CO_TRY(auto u, unpack(theirs.accepted_value));
    if (u.has_body != rows[n]->has_with()) co_return fail(errc::protocol, "a body is missing, or there is one too many");
    cell now = before;
    reply r = table::merge(now, theirs, newcomer);
    if (r.took) take_value(c, n, before, now, rows[n]->with().content());
    if (now.accepted < theirs.accepted) blocked.push_back({i.key, now.promised});
    if (core_.skips("feed_repair")) i.taken = {};
    if (r.changed) i.changed = now.encode();
  }
  core_.status.rows_received += rows.size();
  co_return co_await commit(c);
}

task<result<std::optional<pb::accept_row>>> replica::accept_of(bytes at) {
  CO_TRY(auto l, locate(at));
  CO_TRY(auto raw, co_await core_.store.get(kv::family::row, at));
  if (!raw) co_return std::optional<pb::accept_row>();
  pb::accept_row r;
  r.mutable_key()->set_table(static_cast<std::uint32_t>(l.key.table));
  r.mutable_key()->set_partition_key(l.key.partition_key);
  r.mutable_key()->set_sort_key(l.key.sort_key);
  if (core_.merges(l.key.table)) {
    r.set_value(std::move(*raw));
    co_return r;
  }
  CO_TRY(auto h, co_await hold(at, std::move(*raw), true));
  if (!h.what.accepted) co_return std::optional<pb::accept_row>();
  r.set_ballot(h.what.accepted.encode());
  r.set_attempt(h.what.attempt.str());
  r.set_value(h.what.accepted_value);
  if (h.body) r.mutable_with()->set_content(*h.body);
  co_return r;
}

}  // namespace grenier::table
