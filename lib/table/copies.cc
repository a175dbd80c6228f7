#include "table/copies.h"

#include "table/keys.h"

namespace grenier::table {
namespace {

constexpr std::size_t page_copies = 256;
constexpr nanoseconds first_pause = 3s;
constexpr unsigned older_max = 5;

bytes meta_key(table_id t, bytes_view key) {
  bytes k = "copy/";
  k.push_back(static_cast<char>(t));
  k.append(key);
  return k;
}

void fill(pb::copy& c, table_id t, const bytes& key, const row& r) {
  c.set_table(static_cast<std::uint32_t>(t));
  c.set_key(key);
  c.set_written(r.written.encode());
  c.set_present(r.value.present);
  c.set_row(r.value.row);
}

}  // namespace

void copies::serve() { core_.serve<pb::push_request>(wire::method::table_push, this, &copies::answer); }

task<result<void>> copies::load() {
  bytes from = "copy/";
  for (;;) {
    CO_TRY(auto page, co_await core_.store.scan(kv::family::meta, {.from = from, .until = after_prefix("copy/")}));
    for (auto& e : page) {
      if (e.key.size() < 6 || e.value.size() < 21) continue;
      auto written = ballot::decode(bytes_view(e.value).substr(0, 20));
      if (!written) continue;
      row r{*written, {.present = e.value[20] != 0, .row = e.value.substr(21), .body = nullptr}};
      rows_[{static_cast<table_id>(e.key[5]), e.key.substr(6)}] = std::move(r);
    }
    if (page.empty()) co_return result<void>();
    from = page.back().key + '\0';
  }
}

const row* copies::find(table_id t, const bytes& key) const {
  auto at = rows_.find({t, key});
  return at == rows_.end() ? nullptr : &at->second;
}

std::vector<std::pair<bytes, row>> copies::all(table_id t) const {
  std::vector<std::pair<bytes, row>> r;
  for (auto at = rows_.lower_bound({t, {}}); at != rows_.end() && at->first.first == t; ++at)
    if (at->second.value.present) r.emplace_back(at->first.second, at->second);
  return r;
}

void copies::take(const place& p, row r) {
  row& mine = rows_[p];
  if (r.written > mine.written) mine = std::move(r);
}

task<result<void>> copies::keep(table_id t, bytes key, row r) {
  if (!r.written) co_return result<void>();
  r.value.body = nullptr;
  const row* mine = find(t, key);
  if (mine && (mine->written > r.written || (mine->written == r.written && !syncing_.contains({t, key})))) co_return result<void>();
  bytes v = r.written.encode();
  v.push_back(r.value.present ? '\1' : '\0');
  v.append(r.value.row);
  // Seen at once, so that a fence holds from now on; a commit that comes later in the queue is the newer one.
  take({t, key}, std::move(r));
  kv::batch b;
  b.put(kv::family::meta, meta_key(t, key), std::move(v));
  auto under_way = syncing_.insert({t, key});
  auto done = co_await core_.store.commit(std::move(b));
  syncing_.erase(under_way);
  co_return done;
}

task<result<void>> copies::keep(const pb::copy& c) {
  if (!core_.everywhere(static_cast<table_id>(c.table()))) co_return fail(errc::protocol, "a copy of a table that is not copied");
  CO_TRY(ballot b, ballot::decode(c.written()));
  if (c.key().size() > partition_key_max || c.row().size() > row_max) co_return fail(errc::too_large, "a copy");
  const auto t = static_cast<table_id>(c.table());
  if (core_.clock.observe(b.time)) co_return co_await keep(t, c.key(), {b, {.present = c.present(), .row = c.row(), .body = nullptr}});
  // Of a home that was alone while its clock was wrong, or nobody's: what the quorum says is kept, whatever its time.
  CO_TRY(row r, co_await read_({t, c.key(), {}}, {.deadline = core_.rt.now() + 5s}));
  const bool reached = r.written >= b;
  CO_TRY_VOID(co_await keep(t, c.key(), std::move(r)));
  if (!reached) co_return fail(errc::clock_skew, "a copy of a time far ahead that no quorum holds");
  co_return result<void>();
}

// ------------------------------------------------------------------------------------------------- handing on

task<result<void>> copies::tell(node_id to, pb::push_request q, mono_time deadline) {
  CO_TRY(auto a, co_await core::call<pb::push_answer>(core_, to, wire::method::table_push, q.SerializeAsString(),
                                                      {.priority = wire::priority::metadata, .deadline = deadline}));
  (void)a;
  co_return result<void>();
}

task<void> copies::tell_and_forget(node_id to, pb::push_request q) { (void)co_await tell(to, std::move(q), core_.rt.now() + 10s); }

void copies::push(table_id t, const bytes& key) {
  const row* r = find(t, key);
  if (!r) return;
  pb::push_request q;
  fill(*q.add_copies(), t, key, *r);
  for (const auto& n : core_.peers.up_members())
    if (n != core_.self) core_.tasks.spawn("copies.push", tell_and_forget(n, q));
}

task<result<void>> copies::publish(table_id t, bytes key, layout::partition fenced, mono_time deadline) {
  const row* r = find(t, key);
  if (!r) co_return fail(errc::not_found, "there is no copy to publish");
  auto s = layout_.snapshot();
  if (fenced >= s->partition_count()) co_return fail(errc::invalid_argument, "there is no such partition");
  pb::push_request q;
  fill(*q.add_copies(), t, key, *r);
  const auto replicas = s->all_replicas(fenced);
  std::set<node_id> told, dark;
  fan_out<result<void>> out(core_.rt, core_.tasks);
  for (std::size_t i = 0; i < replicas.size(); ++i) {
    if (replicas[i] == core_.self) told.insert(core_.self);
    else out.start(i, tell(replicas[i], q, deadline));
    if (!core_.peers.up(replicas[i])) dark.insert(replicas[i]);
  }
  for (const auto& n : core_.peers.up_members())
    if (n != core_.self && std::find(replicas.begin(), replicas.end(), n) == replicas.end())
      core_.tasks.spawn("copies.push", tell_and_forget(n, q));
  for (;;) {
    bool enough = true;
    for (const auto* v : s->write_versions()) enough = enough && layout::is_quorum(*v, fenced, told, dark);
    if (enough || core_.skips("publish_unawaited")) co_return result<void>();
    auto a = co_await out.next(deadline);
    if (!a) co_return fail(errc::outcome_unknown, "the change is made, but too few homes confirmed that they know it");
    if (a->second) told.insert(replicas[a->first]);
  }
}

task<result<row>> copies::read_through(table_id t, bytes key, mono_time deadline) {
  if (const row* mine = find(t, key)) co_return *mine;
  CO_TRY(row r, co_await read_({t, key, {}}, {.deadline = deadline}));
  CO_TRY_VOID(co_await keep(t, key, r));
  co_return r;
}

std::optional<pb::copy> copies::fenced_off(const pb::context& c) {
  if (!c.has_judged_by()) return std::nullopt;
  const auto t = static_cast<table_id>(c.judged_by().table());
  auto seen = ballot::decode(c.judged_by().seen());
  const row* mine = find(t, c.judged_by().key());
  if (!seen) return std::nullopt;
  if (mine && mine->written > *seen && !core_.skips("fence")) {
    pb::copy newer;
    fill(newer, t, c.judged_by().key(), *mine);
    return newer;
  }
  if ((!mine || mine->written < *seen) && core_.everywhere(t)) {
    if (awaited_.size() < 1000 && c.judged_by().key().size() <= partition_key_max) await({t, c.judged_by().key()}, *seen, 0ns);
  }
  return std::nullopt;
}

void copies::expect(table_id t, const bytes& key, const ballot& b) { await({t, key}, b, first_pause); }

void copies::await(place p, const ballot& b, nanoseconds after) {
  auto [at, fresh] = awaited_.try_emplace(p, b);
  if (!fresh) at->second = std::max(at->second, b);
  else core_.tasks.spawn("copies.refresh", refresh(std::move(p), after));
}

// Until the copy is as new as what was heard of. A quorum that says time and again that there is nothing so new ends it: then nobody was told that
// it is written, and whoever takes it later waits for it anew.
task<void> copies::refresh(place p, nanoseconds after) {
  nanoseconds pause = first_pause;
  auto reached = [this, &p] {
    const row* mine = find(p.first, p.second);
    return mine && mine->written >= awaited_[p];
  };
  ballot wanted;
  for (unsigned older = 0; older < older_max;) {
    if (after > 0ns) co_await sleep_for(core_.rt, after);
    if (reached()) break;
    if (wanted < awaited_[p]) wanted = awaited_[p], older = 0;
    const row* mine = find(p.first, p.second);
    const ballot before = mine ? mine->written : ballot{};
    auto r = co_await read_({p.first, p.second, {}}, {.deadline = core_.rt.now() + 10s});
    if (r && co_await keep(p.first, p.second, *r)) {
      if (r->written > before) push(p.first, p.second);
      if (reached()) break;
      ++older;
    }
    after = std::exchange(pause, std::min<nanoseconds>(2 * pause, 60s));
  }
  awaited_.erase(p);
}

// ------------------------------------------------------------------------------------------------- comparing

std::uint64_t copies::digest() const {
  bytes all;
  for (const auto& [p, r] : rows_) {
    if (!r.written) continue;
    all.push_back(static_cast<char>(p.first));
    append_u16(all, static_cast<std::uint16_t>(p.second.size()));
    all.append(p.second);
    all.append(r.written.encode());
  }
  return xxh3_64(all);
}

task<result<pb::push_answer>> copies::answer(wire::caller from, pb::push_request q) {
  if (!layout_.known()) co_return fail(errc::unavailable, "this node has no layout yet");
  if (!layout_.state().find(from.node)) co_return fail(errc::access_denied, "node " + from.node.short_hex() + " is no member");
  std::optional<error> failed;  // one that cannot be kept does not keep the others away
  for (const auto& c : q.copies())
    if (auto r = co_await keep(c); !r && !failed) failed = std::move(r).error();
  if (failed) co_return fail(std::move(*failed));
  pb::push_answer a;
  if (q.compare()) {
    a.set_same(q.digest() == digest());
    if (!a.same())
      for (const auto& [p, r] : rows_) {
        if (!r.written) continue;
        auto& id = *a.add_held();
        id.set_table(static_cast<std::uint32_t>(p.first));
        id.set_key(p.second);
        id.set_written(r.written.encode());
      }
  }
  for (const auto& w : q.wanted()) {
    if (a.copies_size() >= static_cast<int>(page_copies)) break;
    const auto t = static_cast<table_id>(w.table());
    if (const row* r = find(t, w.key())) fill(*a.add_copies(), t, w.key(), *r);
  }
  co_return a;
}

task<void> copies::exchange_once(node_id peer) {
  const wire::call_options o{.priority = wire::priority::background, .deadline = core_.rt.now() + 60s};
  pb::push_request q;
  q.set_compare(true);
  q.set_digest(digest());
  auto a = co_await core::call<pb::push_answer>(core_, peer, wire::method::table_push, q.SerializeAsString(), o);
  if (!a || a->same()) co_return;
  std::map<place, ballot> theirs;
  for (const auto& h : a->held())
    if (auto b = ballot::decode(h.written())) theirs[{static_cast<table_id>(h.table()), h.key()}] = *b;
  std::vector<pb::push_request> messages(1);
  auto room = [&]() -> pb::push_request& {
    if (messages.back().wanted_size() + messages.back().copies_size() >= static_cast<int>(page_copies)) messages.emplace_back();
    return messages.back();
  };
  for (const auto& [p, b] : theirs) {
    const row* mine = find(p.first, p.second);
    if (mine && mine->written >= b) continue;
    auto& w = *room().add_wanted();
    w.set_table(static_cast<std::uint32_t>(p.first));
    w.set_key(p.second);
  }
  for (const auto& [p, r] : rows_)
    if (auto at = theirs.find(p); r.written && (at == theirs.end() || at->second < r.written)) fill(*room().add_copies(), p.first, p.second, r);
  for (auto& m : messages) {
    if (m.wanted_size() == 0 && m.copies_size() == 0) continue;
    auto got = co_await core::call<pb::push_answer>(core_, peer, wire::method::table_push, m.SerializeAsString(), o);
    if (!got) co_return;
    for (const auto& c : got->copies())
      if (auto r = co_await keep(c); r.failed_with(errc::io_failed) || r.failed_with(errc::no_space)) co_return;
  }
}

task<void> copies::exchange_loop() {
  for (;;) {
    std::vector<node_id> now = std::move(fresh_peers_);
    fresh_peers_.clear();
    if (now.empty()) {
      auto all = core_.peers.up_members();
      std::erase(all, core_.self);
      if (!all.empty()) now.push_back(all[core_.rt.random().below(all.size())]);
    }
    for (const auto& n : now) co_await exchange_once(n);
    if (fresh_peers_.empty()) co_await told_.wait(core_.rt.now() + 30s);
  }
}

void copies::start(read_row read) {
  read_ = std::move(read);
  core_.peers.on_liveness([this](node_id n, bool up) {
    if (!up || fresh_peers_.size() > 1000) return;
    fresh_peers_.push_back(n);
    told_.wake_all();
  });
  core_.tasks.spawn("copies.exchange", exchange_loop());
}

}  // namespace grenier::table
