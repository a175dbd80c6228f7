// Freeing what nothing refers to; reading everything again now and then; finding files that no row knows.
#include <algorithm>

#include "block/manager_impl.h"
#include "block/block.pb.h"

namespace grenier::block {

// ------------------------------------------------------------------------------------------------- garbage

task<void> manager::impl::garbage_loop() {
  for (;;) {
    auto due = co_await here.garbage.next(64);
    for (auto& t : due) co_await free_unreferenced(std::move(t));
  }
}

// A quorum says that nothing refers to it, whoever is absent; then this node looks once more, under the lock.
task<void> manager::impl::free_unreferenced(todo t) {
  nanoseconds pause_max = std::max<nanoseconds>(opt.grace_period, 1s);
  auto at = co_await here.find(t.hash);
  auto refs = co_await here.references_of(t.hash);
  if (!at || !refs) co_return later(here.garbage, t, pause_max);
  if (!*at || (refs->live && !skips("freed_unchecked"))) {
    kv::batch b;
    here.garbage.remove(b, t.hash);
    (void)co_await here.commit(std::move(b));
    co_return;
  }
  if (!here.is_replica_of_any_version(t.hash)) {  // its homes decide
    kv::batch b;
    here.garbage.remove(b, t.hash);
    here.guests.add(b, {.hash = t.hash, .due_ms = rt.wall_ms()});
    (void)co_await here.commit(std::move(b));
    co_return;
  }
  std::uint64_t revision = table.layout().revision;
  auto nobody = co_await nobody_refers(t.hash);
  if (!nobody || !*nobody) co_return later(here.garbage, t, pause_max);
  auto gone = co_await here.free(t.hash, [this, t, revision] { return none_refers_here(t.hash, revision); }, rt.now() + 60s);
  if (gone && *gone) recent.drop(t.hash);
  else later(here.garbage, t, pause_max);
}

task<bool> manager::impl::has_no_reference(node_id n, block_hash h, mono_time deadline) {
  pb::ItemsRequest q;
  q.add_items()->set_hash(h.str());
  auto r = co_await call(n, wire::method::block_count, {q.SerializeAsString(), nullptr}, wire::priority::background, deadline);
  pb::ItemsAnswer a;
  co_return r && a.ParseFromString(r->head) && a.items_size() == 1 && a.items(0).home() && !a.items(0).live() &&
      a.revision() == table.layout().revision;
}

task<result<bool>> manager::impl::nobody_refers(block_hash h) {
  // While rows move, a quorum of one version alone need not have met every reference.
  if (skips("freed_unasked")) co_return true;
  const auto& s = table.layout();
  if (s.phase != layout::phase::settled || !knows_references()) co_return false;
  auto p = table.partition_of(h.view());
  std::set<node_id> none;
  std::vector<node_id> others = s.current.replicas(p);
  if (std::erase(others, self)) none.insert(self);
  fan_out<bool> answers(rt, group);
  mono_time deadline = rt.now() + 30s;
  for (std::size_t i = 0; i < others.size(); ++i) answers.start(i, has_no_reference(others[i], h, deadline));
  while (auto a = co_await answers.next(deadline))
    if (a->second) none.insert(others[a->first]);
  co_return layout::is_quorum(table.layout().current, p, none, {});
}

task<result<bool>> manager::impl::none_refers_here(block_hash h, std::uint64_t revision) {
  if (skips("freed_unchecked")) co_return true;
  CO_TRY(auto refs, co_await here.references_of(h));
  co_return refs.live == 0 && table.layout().revision == revision;
}

// ------------------------------------------------------------------------------------------------- scrub

task<void> manager::impl::scrub_loop() {
  block_hash after;
  if (auto saved = co_await here.setting("scrub"); saved && saved->size() == block_hash::size_bytes) after = *block_hash::from_bytes(*saved);
  bool hurrying = false;
  for (;;) {
    if (scrub_hurries && !hurrying) {
      hurrying = true;
      scrub_hurries = false;
      after = {};
    }
    auto files = co_await here.files_from(after, 64);
    if (!files || files->empty()) {
      hurrying = false;
      after = {};
      if (!scrub_hurries) co_await scrub_asked.wait(rt.now() + 60s);
      continue;
    }
    for (const auto& f : *files) {
      if (scrub_hurries && !hurrying) break;
      if (!hurrying) {
        auto pause = opt.scrub_period / static_cast<std::int64_t>(std::max<std::uint64_t>(here.blocks, 1));
        if (co_await scrub_asked.wait(rt.now() + std::clamp<nanoseconds>(pause, 20ms, 1h))) break;
      } else {
        co_await sleep_for(rt, 1ms);
      }
      // Damage is reported and queued there.
      if (auto whole = co_await here.read(f.first, rt.now() + 10min)) {
        here.scrub.did(rt.now(), 1, f.second.stored_bytes);
        here.forget_damage(f.first);
      }
      ++n_scrubbed;
      after = f.first;
    }
    kv::batch b;
    here.set_setting(b, "scrub", after.str());
    (void)co_await here.commit(std::move(b));
  }
}

// ------------------------------------------------------------------------------------------------- files without rows

// Once after each start: what a crash left behind between a file and its row, and what was never finished.
task<void> manager::impl::sweep() {
  for (std::size_t d = 0; d < here.disks.count(); ++d) {
    auto directories = co_await here.disks.directories(d);
    if (!directories) continue;
    for (const auto& name : *directories) {
      auto files = co_await here.disks.files(d, name);
      if (!files) continue;
      for (const auto& f : *files) co_await here.adopt(f);
      co_await sleep_for(rt, 10ms);
    }
  }
}

// Who comes back may have what is missing here, or miss what is a guest here: that is not left to a pause that had grown while it was dark.
task<void> manager::impl::peers_loop() {
  for (std::set<node_id> up;;) {
    std::set<node_id> now;
    for (const auto& m : table.layout().newest().members)
      if (directory.up(m.node)) now.insert(m.node);
    if (!std::includes(up.begin(), up.end(), now.begin(), now.end())) {
      here.missing.hurry();
      here.guests.hurry();
    }
    up = std::move(now);
    co_await sleep_for(rt, 2s);
  }
}

task<void> manager::impl::space_loop() {
  bool failed = false, full = false;
  for (;;) {
    co_await sleep_for(rt, 10s);
    co_await here.disks.refresh();
    // Room again: what waits for it does not wait for a pause that had grown.
    if (std::exchange(full, !here.disks.has_room(block_size_default)) && !full) here.missing.hurry();
    // What lay on a drive that failed is fetched from the other copies.
    if (!std::exchange(failed, here.disks.any_failed()) && failed) {
      scrub_hurries = true;
      scrub_asked.wake_all();
    }
  }
}

}  // namespace grenier::block
