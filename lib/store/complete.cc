// Completing an upload. The object's row tells whether it happened; the upload's row follows it. `completing` goes out with the object's
// row (so that no list shows a finished upload) and becomes `completed` once the object's row was decided; where that never comes, the
// background opens the upload again (worker.cc).
#include "store/complete.h"

#include <algorithm>

#include "store/impl.h"

namespace grenier::store {

using model::action;
using status = model::upload_row::status;

namespace {

put_result answer_of(const model::upload_row& u) { return {u.etag, u.checksums, u.size}; }

std::unexpected<error> no_such_upload() { return fail(errc::no_such_upload, "there is no such upload, or it is over"); }

model::upload_row becoming(model::upload_row u, const model::object_row& o, status state) {
  u.state = state;
  u.became = o.meta.version;
  u.etag = o.meta.etag;
  u.checksums = o.meta.checksums;
  u.size = o.meta.size;
  return u;
}

table::row_value value_of(const model::upload_row& u) { return {true, model::encode(u), nullptr}; }

}  // namespace

// The object's row was decided: the upload is over for good.
task<void> service::impl::settle_upload(table::row_key where, model::upload_row completed) {
  completed.state = status::completed;
  table::judge judge = [completed](const table::row& current) -> result<table::row_value> {
    if (!current.value.present) return fail(errc::condition_failed);
    TRY(auto u, model::decode_upload(current.value.row));
    const bool mine = u.state == status::open || (u.state == status::completing && u.became == completed.became);
    if (!mine) return fail(errc::condition_failed);
    return value_of(completed);
  };
  auto r = co_await below->compare_and_swap(where, std::move(judge), writing(rt.now() + step_time));
  if (!r && r.error().code != errc::condition_failed)
    rt.log(log_level::debug, "store: a completed upload is left to the background: " + r.error().to_string());
}

// An upload that was sent to its object's row before. An answer, if it arrived there; else it may be sent again, once no other
// attempt can count on it: its row changes hands by compare-and-swap.
task<result<std::optional<put_result>>> service::impl::completed_before(bucket b, complete_request q, model::upload_row& u,
                                                                        mono_time deadline) {
  const std::optional<put_result> not_yet;
  if (u.state == status::open) co_return not_yet;
  if (u.state == status::completed) co_return answer_of(u);
  if (u.state == status::aborted) co_return no_such_upload();
  CO_TRY(auto object, co_await current_object(model::object_key(b.id, q.key)));
  if (object && object->meta.version == u.became) co_return answer_of(u);
  model::upload_row again = u;
  again.state = status::open;
  table::judge judge = [seen = u.became, again](const table::row& current) -> result<table::row_value> {
    if (!current.value.present) return no_such_upload();
    TRY(auto now, model::decode_upload(current.value.row));
    if (now.state != status::completing || now.became != seen) return fail(errc::conflict, "somebody else completes this upload");
    return value_of(again);
  };
  CO_TRY_VOID(co_await below->compare_and_swap(model::upload_key(b.id, q.key, q.upload), std::move(judge), writing(deadline, &b)));
  u = std::move(again);
  co_return not_yet;
}

// One message: the object's row, and its upload's. What counts is the object's.
task<result<put_result>> service::impl::write_completed(call c, complete_request q, bucket b, model::upload_row u, model::object_row row) {
  const auto object = model::object_key(b.id, q.key), upload = model::upload_key(b.id, q.key, q.upload);
  const auto over = becoming(std::move(u), row, status::completing);
  for (int i = 0;; ++i) {
    std::vector<table::write_item> items;
    items.push_back({object, {true, model::encode(row), nullptr}});
    items.push_back({upload, value_of(over)});
    auto answers = co_await below->write(std::move(items), writing(c.deadline, &b));
    result<void> r;
    if (!answers)
      r = fail(answers.error());
    else if (answers->size() != 2)
      r = fail(errc::internal, "a write was answered for another number of rows");
    else if (!answers->front())
      r = fail(answers->front().error());
    if (r) {
      tasks.spawn("settle upload", settle_upload(upload, over));
      co_return answer_of(over);
    }
    if (r.error().code != errc::conflict || i + 1 == fence_retries) co_return fail(r.error());
    const bucket_id same = b.id;
    CO_TRY(b, co_await admit(c, q.bucket, action::put_object));
    if (b.id != same) co_return fail(errc::unavailable, "the bucket was deleted, and one of its name made, meanwhile");
  }
}

// With conditions the object's row is decided first.
task<result<put_result>> service::impl::complete_conditionally(call c, complete_request q, bucket b, model::upload_row u,
                                                               model::object_row row) {
  const auto object = model::object_key(b.id, q.key);
  for (int i = 0;; ++i) {
    table::judge judge = [when = q.when, row, unconditionally = skips("complete_unconditionally")](const table::row& current) -> result<table::row_value> {
      std::optional<model::object_row> now;
      if (current.value.present) {
        TRY(now, model::decode_object(current.value.row));
      }
      if (now && now->delete_marker) now.reset();
      if (now && now->upload == row.upload && now->meta.etag == row.meta.etag)  // an earlier answer was lost
        return table::row_value{true, current.value.row, current.value.body};
      if (!unconditionally) TRY_VOID(check_write(when, now ? &now->meta : nullptr));
      return table::row_value{true, model::encode(row), nullptr};
    };
    auto r = co_await below->compare_and_swap(object, std::move(judge), writing(c.deadline, &b));
    if (r) {
      CO_TRY(auto decided, model::decode_object(r->value.row));
      const auto over = becoming(u, decided, status::completing);
      co_await settle_upload(model::upload_key(b.id, q.key, q.upload), over);
      co_return answer_of(over);
    }
    if (r.error().code != errc::conflict || i + 1 == fence_retries) co_return fail(r.error());
    const bucket_id same = b.id;
    CO_TRY(b, co_await admit(c, q.bucket, action::put_object));
    if (b.id != same) co_return fail(errc::unavailable, "the bucket was deleted, and one of its name made, meanwhile");
  }
}

task<result<put_result>> service::complete_upload(call c, complete_request q) {
  impl& s = *impl_;
  CO_TRY_VOID(check_key(q.key));
  if (q.parts.empty()) co_return fail(errc::invalid_argument, "an upload is completed with at least one part");
  for (std::size_t i = 1; i < q.parts.size(); ++i)
    if (q.parts[i].number <= q.parts[i - 1].number) co_return fail(errc::invalid_part_order, "the parts are not in ascending order");
  if (q.parts.front().number < 1 || q.parts.back().number > part_number_max)
    co_return fail(errc::invalid_part, "a part's number is 1 to 10000");
  // From the look at the upload to the end of the object's row: no longer than one attempt may live.
  c.deadline = s.row_deadline(c.deadline);
  CO_TRY(bucket b, co_await s.admit(c, q.bucket, action::put_object));
  const auto upload_at = model::upload_key(b.id, q.key, q.upload);
  auto asked = s.start_reading(upload_at, s.reading(c.deadline));  // the write is what the bucket's row judges
  std::vector<std::uint32_t> numbers;
  for (const auto& p : q.parts) numbers.push_back(p.number);
  auto parts = co_await s.read_parts(b.id, q.key, q.upload, std::move(numbers), c.deadline);
  auto found = co_await asked.wait(c.deadline);
  if (!found) co_return fail(errc::timed_out, "the upload's row was not answered in time");
  CO_TRY(table::row upload_row, std::move(*found));
  if (!upload_row.value.present) co_return no_such_upload();
  CO_TRY(auto u, model::decode_upload(upload_row.value.row));
  CO_TRY(auto before, co_await s.completed_before(b, q, u, c.deadline));
  if (before) co_return *before;
  if (!parts) co_return fail(parts.error());

  CO_TRY(auto whole, assemble(u, *parts, q, s.opts.part_size_min));
  model::object_row row = std::move(whole.row);
  const hlc_time at = s.stamp();
  row.meta.version = model::make_version(at, s.rt.random());
  row.meta.modified_ms = at.ms();
  auto under = std::make_shared<attempt>(s.puts, row.meta.version);  // of manifests, should there be any
  under->has_blocks = whole.blocks.size() > model::manifest_entries_max;
  CO_TRY(block_lists lists, co_await s.list_blocks(model::object_key(b.id, q.key), row.meta.version, std::move(whole.blocks), c.deadline));
  row.blocks = std::move(lists.blocks);
  row.manifests = std::move(lists.manifests);
  row.manifest_blocks = lists.manifest_blocks;
  under->row_sent = true;
  auto r = q.when.any() ? co_await s.complete_conditionally(c, q, b, u, row) : co_await s.write_completed(c, q, b, u, row);
  // With conditions it may be an earlier attempt's row that stands: then the background looks which.
  under->settled = r.has_value() && !q.when.any();
  co_return r;
}

}  // namespace grenier::store
