#include "block/manager_impl.h"

namespace grenier::block {

shared_bytes recent_blocks::find(const block_hash& h) {
  auto at = at_.find(h);
  if (at == at_.end()) return nullptr;
  order_.splice(order_.begin(), order_, at->second);
  return at->second->second;
}

void recent_blocks::add(const block_hash& h, shared_bytes b) {
  if (b->size() > bytes_max_ || at_.contains(h)) return;
  bytes_ += b->size();
  order_.emplace_front(h, std::move(b));
  at_[h] = order_.begin();
  while (bytes_ > bytes_max_) {
    bytes_ -= order_.back().second->size();
    at_.erase(order_.back().first);
    order_.pop_back();
  }
}

void recent_blocks::drop(const block_hash& h) {
  auto at = at_.find(h);
  if (at == at_.end()) return;
  bytes_ -= at->second->second->size();
  order_.erase(at->second);
  at_.erase(at);
}

// ------------------------------------------------------------------------------------------------- the manager

// Puts and fetches wait for other nodes, the bytes served to others never do: budgets apart, or two nodes could wait for each other.
manager::impl::impl(runtime& r, kv::store& kv, wire::endpoint& e, cluster::directory& d, table::replicated& t, node_id s,
                    std::vector<drive> dr, options o)
    : rt(r), endpoint(e), directory(d), table(t), self(s), opt(o),
      here(r, kv, t, s, std::move(dr)),
      group(r),
      sending(r, std::max<std::size_t>(o.memory_budget_bytes / 4, block_size_max)),
      serving(r, std::max<std::size_t>(o.memory_budget_bytes / 4, block_size_max)),
      resyncing(r, std::max<std::size_t>(o.resync_parallel, 1)),
      fetching(r, std::max<std::size_t>(o.memory_budget_bytes / 4, block_size_max)),
      recent(o.memory_budget_bytes / 4),
      layout_changed(r),
      scrub_asked(r) {
  here.leave_out(skips("have_unverified"), skips("read_unproved"));
}

statistics manager::impl::stats() const {
  statistics s;
  s.blocks = here.blocks;
  s.stored_bytes = here.disks.used_bytes();
  s.capacity_bytes = here.disks.capacity_bytes();
  s.free_bytes = here.disks.free_bytes();
  s.resync_queue = here.missing.size();
  s.nowhere = static_cast<std::size_t>(std::ranges::count_if(nowhere, [&](const block_hash& h) { return here.missing.contains(h); }));
  s.guests = here.guests.size();
  s.garbage_queue = here.garbage.size();
  s.corrupt_found = here.corrupt_found;
  s.repaired = here.repaired;
  s.deduplicated = here.deduplicated;
  s.sent = n_sent;
  s.received = n_received;
  s.scrubbed = n_scrubbed;
  s.resync = resync_work;
  std::erase_if(s.resync.troubles, [this](const auto& t) { return !still_missing(t.first); });  // a put has brought it meanwhile, say
  s.handing_over = hand_over_work;
  s.scrub = here.scrub;
  s.other = layout_work;
  return s;
}

std::uint64_t manager::impl::ms_from_now(nanoseconds d) const {
  return rt.wall_ms() + static_cast<std::uint64_t>(std::chrono::duration_cast<milliseconds>(d).count());
}

// Pauses grow fourfold, and no two nodes come back at the same moment.
void manager::impl::later(todo_queue& q, todo t, nanoseconds pause_max) {
  nanoseconds pause = 1s;
  for (std::uint32_t i = 0; i < t.attempts && pause < pause_max; ++i) pause *= 4;
  pause = std::min(pause, pause_max);
  t.due_ms = ms_from_now(pause + nanoseconds(rt.random().below(static_cast<std::uint64_t>(pause.count() / 4 + 1))));
  ++t.attempts;
  kv::batch b;
  q.add(b, t);
  group.spawn("block later", [](impl& m, kv::batch what) -> task<void> { (void)co_await m.here.commit(std::move(what)); }(*this, std::move(b)));
}

task<result<wire::message>> manager::impl::call(node_id to, wire::method m, wire::message msg, wire::priority p, mono_time deadline) {
  co_return co_await endpoint.call(to, m, std::move(msg), {p, deadline});
}

// A peer's layout is newer: ours comes by itself.
task<bool> manager::impl::know_revision(std::uint64_t revision, mono_time deadline) {
  while (table.layout().revision < revision) {
    if (rt.now() + 20ms > deadline) co_return false;
    co_await sleep_for(rt, 20ms);
  }
  co_return true;
}

void manager::impl::spawn_loops() {
  group.spawn("block resync", resync_loop());
  group.spawn("block guests", guest_loop());
  group.spawn("block layout", layout_loop());
  group.spawn("block garbage", garbage_loop());
  group.spawn("block scrub", scrub_loop());
  group.spawn("block sweep", sweep());
  group.spawn("block space", space_loop());
  group.spawn("block peers", peers_loop());
}

manager::manager(runtime& rt, kv::store& kv, wire::endpoint& e, cluster::directory& dir, table::replicated& t, node_id self,
                 std::vector<drive> d, options o)
    : impl_(std::make_unique<impl>(rt, kv, e, dir, t, self, std::move(d), o)) {}
manager::~manager() = default;

result<void> manager::prepare() {
  impl_->here.define_references(impl_->opt.grace_period, impl_->opt.resync_delay);
  impl_->serve();
  impl_->table.on_layout([m = impl_.get()](const layout::state&) { m->layout_changed.wake_all(); });
  return {};
}

task<result<void>> manager::start() {
  CO_TRY_VOID(co_await impl_->here.load());
  impl_->started = true;
  impl_->spawn_loops();
  co_return result<void>();
}

task<void> manager::stop() {
  impl_->stopping = true;
  impl_->group.cancel();
  co_await impl_->group.join();
}

task<result<void>> manager::put(reference r, shared_bytes content, mono_time deadline) {
  return impl_->put(std::move(r), std::move(content), deadline);
}
task<result<void>> manager::add_references(std::vector<reference> r, mono_time deadline) {
  return impl_->add_references(std::move(r), deadline);
}
task<result<shared_bytes>> manager::get(block_hash h, wire::priority p, mono_time deadline) { return impl_->get(h, p, deadline); }
bool manager::is_here(const block_hash& h) const { return impl_->here.is_here(h); }
task<result<void>> manager::withdraw(std::vector<reference> r, mono_time deadline) {
  return impl_->withdraw(std::move(r), deadline);
}
statistics manager::stats() const { return impl_->stats(); }
bool manager::has_space(std::uint64_t size_bytes) const {
  const auto* m = impl_->table.layout().find(impl_->self);
  return (m && m->capacity_bytes == 0) || impl_->here.disks.has_room(size_bytes);
}
void manager::repair_now() {
  impl_->here.missing.hurry();
  impl_->here.guests.hurry();
}
void manager::scrub_now() {
  impl_->scrub_hurries = true;
  impl_->scrub_asked.wake_all();
}

}  // namespace grenier::block
