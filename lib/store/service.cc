#include "store/impl.h"

namespace grenier::store {

attempt::attempt(std::shared_ptr<attempts> all, version_id v) : version(v), all_(std::move(all)) { ++all_->under_way; }
attempt::~attempt() {
  --all_->under_way;
  if (has_blocks) all_->over.push_back({version, row_sent, settled, {}});
}

service::impl::impl(runtime& r, kv::store& k, std::unique_ptr<backend> b, hybrid_clock& c, options o)
    : rt(r), kv(k), below(std::move(b)), clock(c), opts(o), tasks(r),
      memory_in(std::make_shared<semaphore>(r, o.memory_budget_bytes / 8 * 3)), memory_out(std::make_shared<semaphore>(r, o.memory_budget_bytes / 8 * 3)),
      memory_visitors(std::make_shared<semaphore>(r, o.memory_budget_bytes / 4)), visited(o.visited_bytes, o.staleness), wake(r) {}

service::service(runtime& rt, kv::store& kv, std::unique_ptr<backend> below, hybrid_clock& clock, options o)
    : impl_(std::make_unique<impl>(rt, kv, std::move(below), clock, o)) {}
service::~service() = default;

result<void> service::prepare() {
  table::table_rules everywhere;
  everywhere.everywhere = true;
  for (table_id t : {table_id::bucket, table_id::bucket_alias, table_id::key}) impl_->below->define(t, everywhere);
  table::table_rules objects;
  objects.projection = [](bytes_view row) { return model::list_projection(row); };
  objects.feed = true;
  impl_->below->define(table_id::object, objects);
  table::table_rules uploads;  // those that are over are nobody's business
  uploads.projection = [](bytes_view row) -> std::optional<bytes> {
    auto u = model::decode_upload(row);
    if (!u || u->state != model::upload_row::status::open) return std::nullopt;
    return bytes(row);
  };
  impl_->below->define(table_id::upload, uploads);
  impl_->below->define(table_id::part, {});
  impl_->install_hooks();
  return {};
}

task<result<void>> service::start() {
  impl_->started = impl_->rt.now();
  CO_TRY_VOID(co_await impl_->load_counters());
  CO_TRY_VOID(co_await impl_->find_left_intents());
  impl_->tasks.spawn("store work", impl_->work_loop());
  co_return result<void>();
}

task<void> service::stop() {
  impl_->tasks.cancel();
  co_await impl_->tasks.join();
}

// ------------------------------------------------------------------------------------------------- rows

table::op_options service::impl::reading(mono_time deadline, const bucket* judged_by) {
  table::op_options o;
  o.deadline = deadline;
  if (judged_by) o.fence = table::fence{table_id::bucket, judged_by->id.str(), judged_by->seen};
  return o;
}

table::op_options service::impl::writing(mono_time deadline, const bucket* judged_by) {
  return reading(row_deadline(deadline), judged_by);
}

task<result<void>> service::impl::write_rows(std::vector<table::write_item> items, table::op_options o) {
  const std::size_t rows = items.size();
  CO_TRY(auto answers, co_await below->write(std::move(items), std::move(o)));
  if (answers.size() != rows) co_return fail(errc::internal, "a write was answered for another number of rows");
  // Of several failures the one that leaves most open: whoever hears it must not believe more than is known.
  const error* worst = nullptr;
  for (const auto& a : answers)
    if (!a && (!worst || a.error().code == errc::outcome_unknown)) worst = &a.error();
  if (worst) co_return fail(*worst);
  co_return result<void>();
}

task<result<void>> service::impl::write_row(table::row_key key, table::row_value value, table::op_options o) {
  std::vector<table::write_item> one;
  one.push_back({std::move(key), std::move(value)});
  co_return co_await write_rows(std::move(one), std::move(o));
}

task<void> service::impl::read_into(table::row_key key, table::op_options o, one_shot<result<table::row>> to) {
  to.set(co_await below->read(std::move(key), std::move(o)));
}

one_shot<result<table::row>> service::impl::start_reading(table::row_key key, table::op_options o) {
  one_shot<result<table::row>> r(rt);
  tasks.spawn("read row", read_into(std::move(key), std::move(o), r));
  return r;
}

}  // namespace grenier::store
