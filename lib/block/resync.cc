// Bringing blocks home: fetching what should be here and is not; handing over what is here as a guest.
#include <algorithm>

#include "block/manager_impl.h"
#include "block/block.pb.h"

namespace grenier::block {

namespace {
constexpr double slow_rate = 250e3;      // bytes/s: below, a block should not cross the line twice
constexpr double quick_rate = 6.25e6;    // 50 Mbit/s: above, who has it does not feel a copy more
constexpr std::uint32_t patient_attempts = 5;  // for so many, a slow home that is still sending the block elsewhere is left alone
constexpr std::uint32_t anybody_after = 2;
constexpr nanoseconds retry_max = 1h, retry_soon_max = 4min, retry_each = 10ms, hand_over_max = 10min, source_max = 5min;
}  // namespace

// ------------------------------------------------------------------------------------------------- what is missing here

// As that node measures its line to us; else as we have seen it.
double manager::impl::rate_from(const node_id& n) const {
  if (auto card = directory.find(n))
    if (auto l = card->links.find(self); l != card->links.end() && l->second.send_rate > 0) return l->second.send_rate;
  return endpoint.quality(n).receive_rate;
}

task<void> manager::impl::resync_loop() {
  for (;;) {
    auto due = co_await here.missing.next(16);
    std::erase_if(resync_work.troubles, [&](const auto& t) { return !still_missing(t.first); });
    if (nowhere.size() > here.missing.size()) std::erase_if(nowhere, [&](const block_hash& h) { return !here.missing.contains(h); });
    for (auto& t : due) here.missing.set_busy(t.hash, true);
    for (auto& t : due) group.spawn("block resync one", resync_one(t, co_await resyncing.acquire()));
  }
}

task<void> manager::impl::resync_one(todo t, semaphore::permit) {
  auto done = co_await fetch_missing(t);
  if (done.failed_with(errc::not_found))
    nowhere.insert(t.hash);
  else if (done)
    nowhere.erase(t.hash);
  if (!done) {
    here.missing.set_busy(t.hash, false);
    resync_work.failed(rt.now(), t.hash.str(), {}, "block " + t.hash.short_hex() + " is missing here: " + done.error().to_string());
    later(here.missing, t, retry_pause_max());
    co_return;
  }
  told_of.erase(t.hash);
  auto guard = co_await here.lock(t.hash, never);
  auto at = co_await here.find(t.hash);
  auto refs = co_await here.references_of(t.hash);
  // A reference that came since then queued it anew: that entry stays.
  bool again = here.missing.came_again(t.hash);
  here.missing.set_busy(t.hash, false);
  if (!at || !refs || (!*at && (again || refs->live || here.guests.contains(t.hash)))) {
    guard.release();
    later(here.missing, t, retry_pause_max());
    co_return;
  }
  kv::batch b;
  here.missing.remove(b, t.hash);
  if (!co_await here.commit(std::move(b))) co_return;
  // Fetched, or not wanted any more.
  resync_work.mended(t.hash.str());
  if (at->has_value()) here.forget_damage(t.hash);
  else co_await here.discard(t.hash);
  if (at->has_value()) resync_work.did(rt.now(), 1, (*at)->stored_bytes);
}

// A few blocks that are missing are asked for every few minutes, whatever was in their way; of very many each is asked for less often.
nanoseconds manager::impl::retry_pause_max() const {
  return std::clamp<nanoseconds>(static_cast<std::int64_t>(here.missing.size()) * retry_each, retry_soon_max, retry_max);
}

bool manager::impl::still_missing(const bytes& subject) const {
  const auto h = block_hash::from_bytes(subject);
  return h && here.missing.contains(*h);
}

// Nothing more to do: it is here now, or is not wanted any more. Else why not; not_found: no home that is up has it.
task<result<bool>> manager::impl::fetch_missing(const todo& t) {
  CO_TRY(auto at, co_await here.find(t.hash));
  if (at) co_return true;
  bool guest = here.guests.contains(t.hash);
  CO_TRY(auto refs, co_await here.references_of(t.hash));
  if (!guest && (refs.live == 0 || !here.is_replica_of_any_version(t.hash))) co_return true;
  // What could not be read once may be readable again: no line is as near as this home's own disk.
  if (t.attempts > 0 || here.was_damaged(t.hash))
    if (auto form = co_await here.left_behind(t.hash)) {
      CO_TRY_VOID(co_await here.store({t.hash, std::move(*form), std::nullopt, false}, rt.now() + 5min));
      co_return true;
    }
  if (!here.disks.has_room(block_size_default)) co_return fail(errc::no_space, "this home is full");
  CO_TRY(auto sources, co_await sources_of(t));
  error last(errc::not_found, "no home that is up has it");
  std::set<node_id> asked_nodes(sources.begin(), sources.end());
  std::deque<node_id> queue(sources.begin(), sources.end());
  while (!queue.empty()) {
    node_id n = queue.front();
    queue.pop_front();
    // Alone, and with the time that its line takes: hedging would send the same bytes over two lines.
    auto a = co_await ask_for(n, t.hash, wire::priority::background, rt.now() + patience_with(n, t.attempts));
    if (a.answered) directory.read_answered(n, cluster::reads::blocks);
    else if (a.why == errc::timed_out) directory.read_missed(n, cluster::reads::blocks);
    if (a.found) {
      shelf::incoming in{t.hash, std::move(a.block.form), std::nullopt, false};
      CO_TRY_VOID(co_await here.store(std::move(in), rt.now() + 5min));
      co_return true;
    }
    if (!a.answered) last = a.why.code == errc::not_found ? error(errc::unavailable, a.why.detail) : a.why;
    for (const auto& g : a.guests)
      if (g != self && !(g == t.origin && spare_origin(t, rate_from(g))) && directory.up(g) && asked_nodes.insert(g).second)
        queue.push_back(g);
  }
  // Not everybody was asked yet.
  if (last.code == errc::not_found && (t.attempts < anybody_after || (directory.up(t.origin) && !asked_nodes.contains(t.origin)))) last.code = errc::unavailable;
  co_return fail(last);
}

// What a block takes on the line as it was measured, though others are fetched over it too; more each time, for lines that
// have become slower, or are full of what comes first.
nanoseconds manager::impl::patience_with(const node_id& n, std::uint32_t attempts) const {
  const double rate = rate_from(n), at_once = static_cast<double>(resyncing.total_units() - resyncing.free_units());
  if (rate <= 0) return std::min<nanoseconds>(1min * (1u << std::min(attempts, 3u)), source_max);
  const double seconds = 10 + 3 * std::max(at_once, 1.0) * block_size_default / rate;
  const double most = std::chrono::duration<double>(source_max).count();
  return nanoseconds(static_cast<std::int64_t>(std::min(seconds * (1u << std::min(attempts, 5u)), most) * 1e9));
}

// The home that the block comes from is sending it to somebody just now, who will pass it on: its uplink belongs to whoever
// waits for that upload. A line that was never measured may be a slow one.
bool manager::impl::spare_origin(const todo& t, double rate) const {
  if (rate <= 0 && is_near(t.origin)) rate = assumed_rate(t.origin);
  if (rate < slow_rate) return t.attempts < patient_attempts;
  return rate < quick_rate && t.attempts < anybody_after;
}

// Whoever may have it and is up, the best line first.
task<result<std::vector<node_id>>> manager::impl::sources_of(const todo& t) {
  auto all = table.layout().all_replicas(table.partition_of(t.hash.view()));
  CO_TRY(auto refs, co_await here.references_of(t.hash));
  all.insert(all.end(), refs.guests.begin(), refs.guests.end());
  if (auto at = told_of.find(t.hash); at != told_of.end()) all.insert(all.end(), at->second.begin(), at->second.end());
  std::set<node_id> seen{self};
  if (t.attempts >= anybody_after) {
    auto more = other_members({all.begin(), all.end()});
    all.insert(all.end(), more.begin(), more.end());
  }
  struct source {
    bool silent;  // it lets reads wait: the last to be asked
    double seconds;
    node_id node;
    auto operator<=>(const source&) const = default;
  };
  std::vector<source> scored;
  for (const auto& n : all) {
    if (!seen.insert(n).second || !directory.up(n) || !table.layout().find(n)) continue;
    double rate = rate_from(n);
    if (n == t.origin && spare_origin(t, rate)) continue;
    const double takes = std::chrono::duration<double>(directory.rtt(n)).count() + block_size_default / (rate > 0 ? rate : assumed_rate(n));
    scored.push_back({directory.misses_reads(n, cluster::reads::blocks), takes, n});
  }
  std::sort(scored.begin(), scored.end());
  std::vector<node_id> out;
  for (const auto& s : scored) out.push_back(s.node);
  co_return out;
}

// ------------------------------------------------------------------------------------------------- what is here as a guest

task<void> manager::impl::guest_loop() {
  for (;;) {
    auto due = co_await here.guests.next(200);
    std::map<layout::replica_set, std::vector<todo>> by_homes;
    for (auto& t : due) {
      auto homes = table.layout().newest().replicas(table.partition_of(t.hash.view()));
      std::sort(homes.begin(), homes.end());
      by_homes[homes].push_back(t);
    }
    for (auto& [homes, some] : by_homes) co_await hand_over_some(homes, std::move(some));
  }
}

task<manager::impl::home_answers> manager::impl::ask_homes(std::vector<block_hash> hashes, std::vector<node_id> homes, bool verify) {
  home_answers out;
  out.homes = homes.size();
  out.have.resize(hashes.size());
  out.want_nothing.resize(hashes.size());
  pb::ItemsRequest q;
  q.set_revision(table.layout().revision);
  q.set_verify(verify);
  for (const auto& h : hashes) q.add_items()->set_hash(h.str());
  bytes head = q.SerializeAsString();
  fan_out<result<wire::message>> answers(rt, group);
  mono_time deadline = rt.now() + (verify ? nanoseconds(5min) : nanoseconds(30s));
  for (std::size_t i = 0; i < homes.size(); ++i)
    answers.start(i, call(homes[i], wire::method::block_guests, {head, nullptr}, wire::priority::background, deadline));
  while (auto a = co_await answers.next(deadline)) {
    pb::ItemsAnswer all;
    if (!a->second || !all.ParseFromString(a->second->head) || static_cast<std::size_t>(all.items_size()) != hashes.size()) continue;
    for (std::size_t i = 0; i < hashes.size(); ++i) {
      const auto& item = all.items(static_cast<int>(i));
      if (!item.home()) continue;
      if (item.file() && item.live()) out.have[i].insert(homes[a->first]);
      if (!item.live()) out.want_nothing[i].insert(homes[a->first]);
    }
  }
  co_return out;
}

task<void> manager::impl::hand_over_some(layout::replica_set homes, std::vector<todo> some) {
  if (std::find(homes.begin(), homes.end(), self) != homes.end()) {
    std::vector<std::pair<todo, bool>> known;
    for (const auto& t : some)  // at home by now
      if (auto refs = co_await here.references_of(t.hash)) known.emplace_back(t, refs->live > 0);
    // At once, from here on: a newer layout may have made it a guest again, by a batch that must not come before this one.
    kv::batch b;
    for (const auto& [t, live] : known) {
      if (!here.is_home(t.hash)) {
        later(here.guests, t, hand_over_max);
        continue;
      }
      here.guests.remove(b, t.hash);
      if (!live) here.garbage.add(b, {.hash = t.hash, .due_ms = ms_from_now(opt.grace_period)});
    }
    (void)co_await here.commit(std::move(b));
    co_return;
  }
  std::uint64_t revision = table.layout().revision;
  bool settled = table.layout().phase == layout::phase::settled;
  std::vector<block_hash> hashes;
  for (const auto& t : some) hashes.push_back(t.hash);
  auto first = co_await ask_homes(hashes, homes, false);
  std::vector<todo> ready;
  for (std::size_t i = 0; i < some.size(); ++i) {
    auto p = table.partition_of(some[i].hash.view());
    bool unwanted = settled && rt.wall_ms() > some[i].since_ms + static_cast<std::uint64_t>(opt.grace_period / 1ms) && table.layout().revision == revision &&
                    layout::is_quorum(table.layout().current, p, first.want_nothing[i], {});
    if (unwanted) co_await let_go(some[i], revision);
    else if (skips("guest_let_go")) co_await let_go(some[i], revision);
    else if (first.have[i].size() == homes.size()) ready.push_back(some[i]);
    else later(here.guests, some[i], hand_over_max);
  }
  if (ready.empty()) co_return;
  // All say that they have it: now they look.
  hashes.clear();
  for (const auto& t : ready) hashes.push_back(t.hash);
  auto second = co_await ask_homes(hashes, homes, true);
  for (std::size_t i = 0; i < ready.size(); ++i) {
    if (second.have[i].size() == homes.size()) co_await let_go(ready[i], revision);
    else later(here.guests, ready[i], hand_over_max);
  }
}

task<void> manager::impl::let_go(todo t, std::uint64_t revision) {
  auto gone = co_await here.free(t.hash, [this, t, revision] { return guest_may_go(t, revision); }, rt.now() + 60s);
  if (gone && *gone) {
    recent.drop(t.hash);
    hand_over_work.did(rt.now());
  } else {
    later(here.guests, t, hand_over_max);
  }
}

// Under the lock: still a guest, nobody was told meanwhile that it is here, and the homes are those that were asked.
task<result<bool>> manager::impl::guest_may_go(todo t, std::uint64_t revision) {
  CO_TRY(auto now, co_await here.guests.find(t.hash));
  co_return now && now->since_ms == t.since_ms && table.layout().revision == revision && !here.is_home(t.hash);
}

// ------------------------------------------------------------------------------------------------- a new layout

task<void> manager::impl::layout_loop() {
  for (;;) {
    auto done = co_await look_for_guests();
    if (done) {
      layout_work.did(rt.now());
      layout_work.mended("layout");
    } else {
      layout_work.failed(rt.now(), "layout", {}, "looking for blocks whose home is elsewhere now: " + done.error().to_string());
    }
    co_await layout_changed.wait(rt.now() + 60s);
  }
}

// Blocks whose home is elsewhere now are kept as guests until they were fetched.
task<result<void>> manager::impl::look_for_guests() {
  if (table.layout().partition_count() == 0) co_return result<void>();
  std::uint64_t number = table.layout().newest().number;
  bytes wanted;
  append_u64(wanted, number);
  CO_TRY(bytes seen, co_await here.setting("layout"));
  if (seen == wanted) co_return result<void>();
  for (block_hash after;;) {
    CO_TRY(auto files, co_await here.files_from(after, 500));
    if (files.empty()) break;
    kv::batch b;
    for (const auto& f : files) {
      bool guest = here.guests.contains(f.first);
      if (here.is_home(f.first) && guest) {
        CO_TRY(auto refs, co_await here.references_of(f.first));
        here.guests.remove(b, f.first);
        if (refs.live == 0) here.garbage.add(b, {.hash = f.first, .due_ms = ms_from_now(opt.grace_period)});
      } else if (!here.is_home(f.first) && !guest) {
        here.guests.add(b, {.hash = f.first, .due_ms = ms_from_now(5s)});
      }
    }
    if (!b.empty()) CO_TRY_VOID(co_await here.commit(std::move(b)));
    after = files.back().first;
    co_await sleep_for(rt, 20ms);
  }
  CO_TRY_VOID(co_await look_for_missing());
  if (table.layout().newest().number != number) co_return result<void>();
  kv::batch b;
  here.set_setting(b, "layout", wanted);
  co_return co_await here.commit(std::move(b));
}

// References that were here before this node became a home again say nothing new to anybody: their blocks are looked for here.
task<result<void>> manager::impl::look_for_missing() {
  for (layout::partition p = 0; p < table.layout().partition_count(); ++p) {
    for (bytes after; table.is_replica(p);) {
      CO_TRY(auto keys, co_await table.keys_here(table::table_id::reference, p, after, 500));
      if (keys.empty()) break;
      after = keys.back();
      kv::batch b;
      for (const auto& k : keys) {
        auto h = block_hash::from_bytes(k);
        if (!h || here.is_here(*h) || here.missing.contains(*h)) continue;
        CO_TRY(auto refs, co_await here.references_of(*h));
        if (refs.live && !here.is_here(*h)) here.missing.add(b, {.hash = *h, .due_ms = rt.wall_ms()});
      }
      if (!b.empty()) CO_TRY_VOID(co_await here.commit(std::move(b)));
      co_await sleep_for(rt, 5ms);
    }
  }
  co_return result<void>();
}

}  // namespace grenier::block
