#include "table/table.h"

#include "table/change_log.h"
#include "table/repair.h"

namespace grenier::table {

struct replicated::impl {
  impl(runtime& rt, kv::store& s, wire::endpoint& w, cluster::directory& d, hybrid_clock& c, node_id self, options o)
      : shared(rt, s, w, d, c, self, std::move(o)), layout(shared), small(shared, layout), changes(shared, layout), here(shared, layout, small, changes),
        coordinating(shared, layout, here, small), repairing(shared, layout, here, coordinating) {}
  core shared;
  layout_keeper layout;
  copies small;
  change_log changes;
  replica here;
  coordinator coordinating;
  repair repairing;
  bool loaded = false, started = false;

  task<result<void>> load() {
    if (loaded) co_return result<void>();
    auto r = co_await layout.load();
    if (!r && !r.failed_with(errc::not_found)) co_return r;
    CO_TRY_VOID(co_await small.load());
    CO_TRY_VOID(co_await changes.load());
    loaded = true;
    co_return result<void>();
  }
};

replicated::replicated(runtime& rt, kv::store& s, wire::endpoint& w, cluster::directory& d, hybrid_clock& c, node_id self, options o)
    : impl_(std::make_unique<impl>(rt, s, w, d, c, self, std::move(o))) {
  impl_->layout.serve();
  impl_->small.serve();
  impl_->here.serve();
}
replicated::~replicated() = default;

void replicated::define(table_id t, table_rules r) { impl_->shared.tables[t].rules = std::move(r); }
void replicated::on_apply(table_id t, apply_hook h) { impl_->shared.tables[t].hooks.push_back(std::move(h)); }

task<result<void>> replicated::start() {
  impl& i = *impl_;
  CO_TRY_VOID(co_await i.load());
  if (!i.layout.known()) co_return fail(errc::not_found, "this node has no layout yet");
  i.shared.ready = true;
  if (std::exchange(i.started, true)) co_return result<void>();
  i.coordinating.on_missed([&i](node_id n, layout::partition p, const row_key& k) { i.repairing.hint(n, p, k); });
  i.coordinating.start();
  i.layout.start([&i](row_key k, judge j, op_options o) { return i.coordinating.compare_and_swap(std::move(k), std::move(j), std::move(o)); },
                 [&i](row_key k, op_options o) { return i.coordinating.read(std::move(k), std::move(o)); });
  i.small.start([&i](row_key k, op_options o) { return i.coordinating.read(std::move(k), std::move(o)); });
  i.changes.start();
  i.repairing.start();
  co_return result<void>();
}

task<void> replicated::stop() {
  impl_->shared.tasks.cancel();
  co_await impl_->shared.tasks.join();
}

task<result<row>> replicated::read(row_key k, op_options o) { return impl_->coordinating.read(std::move(k), std::move(o)); }
task<result<std::vector<result<ballot>>>> replicated::write(std::vector<write_item> w, op_options o) {
  return impl_->coordinating.write(std::move(w), std::move(o));
}
task<result<row>> replicated::compare_and_swap(row_key k, judge j, op_options o) {
  return impl_->coordinating.compare_and_swap(std::move(k), std::move(j), std::move(o));
}
task<result<list_page>> replicated::list(list_request q, op_options o) { return impl_->coordinating.list(std::move(q), std::move(o)); }
task<result<void>> replicated::merge(std::vector<write_item> w, op_options o) { return impl_->coordinating.merge(std::move(w), std::move(o)); }

task<result<any_row>> replicated::read_any(row_key k, op_options o) { return impl_->coordinating.read_any(std::move(k), std::move(o)); }
task<result<any_page>> replicated::list_any(list_request q, op_options o) { return impl_->coordinating.list_any(std::move(q), std::move(o)); }
bool replicated::quorum_is_dark(layout::partition p) const { return impl_->coordinating.quorum_is_dark(p); }

task<result<row>> replicated::find_copy(table_id t, bytes key, mono_time deadline) { return impl_->small.read_through(t, std::move(key), deadline); }
std::vector<std::pair<bytes, row>> replicated::all_copies(table_id t) const { return impl_->small.all(t); }
task<result<void>> replicated::publish(table_id t, bytes key, layout::partition fenced, mono_time deadline) {
  return impl_->small.publish(t, std::move(key), fenced, deadline);
}

bool replicated::is_replica(layout::partition p) const {
  const auto& s = impl_->layout.state();
  if (!impl_->layout.known() || p >= s.partition_count()) return false;
  for (const auto& n : s.newest().replicas(p))
    if (n == impl_->shared.self) return true;
  return false;
}
task<result<void>> replicated::merge_here(std::vector<write_item> rows, kv::batch extra) { return impl_->here.merge_here(std::move(rows), std::move(extra)); }
void replicated::missed_by(node_id n, const row_key& k) {
  const auto p = partition_of(k.partition_key);
  if (impl_->started && is_replica(p)) impl_->repairing.hint(n, p, k);
}
task<result<std::vector<std::pair<bytes, bytes>>>> replicated::scan_here(table_id t, bytes key) { return impl_->here.scan_here(t, std::move(key)); }
task<result<std::vector<bytes>>> replicated::keys_here(table_id t, layout::partition p, bytes after, std::size_t keys_max) {
  return impl_->here.keys_here(t, p, std::move(after), keys_max);
}
task<result<std::vector<std::pair<node_id, bytes>>>> replicated::query(layout::partition p, std::uint16_t question, bytes argument, op_options o) {
  return impl_->coordinating.query(p, question, std::move(argument), std::move(o));
}
void replicated::answer_query(std::uint16_t question, std::move_only_function<task<result<bytes>>(layout::partition, bytes)> a) {
  impl_->here.answer_query(question, std::move(a));
}

task<result<std::unique_ptr<feed>>> replicated::follow(std::string reader, std::set<table_id> tables) {
  if (!impl_->started) return change_log::not_started();
  return impl_->changes.follow(std::move(reader), std::move(tables));
}
task<result<void>> replicated::forget_reader(std::string reader) { return impl_->changes.forget(std::move(reader)); }
std::vector<feed_status> replicated::feeds() const { return impl_->changes.status(); }

const layout::state& replicated::layout() const { return impl_->layout.state(); }
layout::partition replicated::partition_of(bytes_view key) const {
  return impl_->layout.known() ? layout::partition_of(key, impl_->layout.state().partition_count()) : layout::partition{0};
}

task<result<void>> replicated::found(layout::state s) {
  impl& i = *impl_;
  CO_TRY_VOID(co_await i.load());
  if (i.layout.known()) co_return fail(errc::already_exists, "this node has a layout already");
  co_return co_await i.layout.adopt(std::move(s), true);
}
task<result<void>> replicated::adopt(layout::state s) {
  impl& i = *impl_;
  CO_TRY_VOID(co_await i.load());
  co_return co_await i.layout.adopt(std::move(s));
}

task<result<void>> replicated::change_members(std::function<result<std::vector<layout::member>>(const layout::state&)> edit,
                                              std::vector<node_id> removed, mono_time deadline) {
  return impl_->layout.change(
      [edit = std::move(edit), removed = std::move(removed)](const layout::state& now) -> result<layout::state> {
        if (now.phase != layout::phase::settled) return fail(errc::conflict, "another change of the layout is under way");
        TRY(auto members, edit(now));
        return layout::start_change(now, std::move(members), removed);
      },
      deadline);
}
task<result<void>> replicated::abandon_change(std::vector<node_id> removed, mono_time deadline) {
  return impl_->layout.change([removed = std::move(removed)](const layout::state& now) { return layout::abandon(now, removed); }, deadline);
}
std::set<node_id> replicated::layout_waits_for() const { return impl_->layout.waits_for(); }
void replicated::on_layout(std::move_only_function<void(const layout::state&)> fn) { impl_->layout.on_change(std::move(fn)); }

repair_status replicated::status() const {
  auto s = impl_->shared.status;
  s.comparison.bytes = s.bytes_sent;
  if (s.hints == 0) s.handoff.troubles.clear();
  if (s.partitions_to_sync == 0) s.merging.troubles.clear();
  // Nothing is to be done any more with a home that has left.
  if (impl_->layout.known())
    for (work* w : {&s.handoff, &s.comparison, &s.merging, &s.other})
      std::erase_if(w->troubles, [this](const auto& t) { return t.second.with && !impl_->layout.state().find(t.second.with); });
  return s;
}

void replicated::repair_now() { impl_->repairing.now(); }

}  // namespace grenier::table
