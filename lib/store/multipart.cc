// Multipart uploads: parts are rows of their own; their blocks are referred to as the part's for as long as the object lives.
#include <algorithm>

#include "store/impl.h"

namespace grenier::store {

using model::action;
using status = model::upload_row::status;

namespace {

std::unexpected<error> no_such_upload() { return fail(errc::no_such_upload, "there is no such upload, or it is over"); }

}  // namespace

result<model::upload_row> service::impl::open_upload(const result<table::row>& row) {
  if (!row) return fail(row.error());
  if (!row->value.present) return no_such_upload();
  TRY(auto u, model::decode_upload(row->value.row));
  if (u.state != status::open) return no_such_upload();
  return u;
}

task<result<upload_id>> service::create_upload(call c, put_request q) {
  CO_TRY_VOID(check_key(q.key));
  CO_TRY_VOID(check_headers(q.headers));
  CO_TRY_VOID(check_tags(q.tags));
  impl& s = *impl_;
  model::upload_row u;
  u.id = s.rt.random().make_id<upload_id>();
  u.key = q.key;
  u.started_ms = s.rt.wall_ms();
  u.headers = q.headers;
  u.tags = q.tags;
  u.checksum_kind = q.compute;
  // A whole's checksum can be made of its parts' only for CRCs; the gateway may ask for composite ones of these too.
  const bool hash = q.compute && (*q.compute == crypto::hash_kind::sha1 || *q.compute == crypto::hash_kind::sha256);
  u.checksum_composite = hash || q.composite;
  for (int i = 0;; ++i) {
    CO_TRY(bucket b, co_await s.admit(c, q.bucket, action::put_object));
    u.owner_id = b.owner_id;
    u.owner_name = b.owner_name;
    auto r = co_await s.write_row(model::upload_key(b.id, q.key, u.id), {true, model::encode(u), nullptr}, s.writing(c.deadline, &b));
    if (r) co_return u.id;
    if (r.error().code != errc::conflict || i + 1 == fence_retries) co_return fail(r.error());
  }
}

// ------------------------------------------------------------------------------------------------- parts

task<result<void>> service::impl::write_part(call c, std::string bucket_name, table::row_key where, model::part_row part,
                                             std::shared_ptr<attempt> under) {
  if (part.blocks.size() > part_blocks_max) co_return fail(errc::too_large, "a part of so many blocks does not fit in its row");
  const table::row_value value{true, model::encode(part), nullptr};
  for (int i = 0;; ++i) {
    CO_TRY(bucket b, co_await admit(c, bucket_name, action::put_object));
    if (b.id.view() != where.partition_key) co_return fail(errc::unavailable, "the bucket was deleted, and one of its name made, meanwhile");
    under->row_sent = true;
    auto r = co_await write_row(where, value, writing(c.deadline, &b));
    if (r) under->settled = true;
    if (r || r.error().code != errc::conflict || i + 1 == fence_retries) co_return r;
  }
}

task<result<put_result>> service::upload_part(call c, upload_part_request q, body_source& from) {
  impl& s = *impl_;
  CO_TRY_VOID(check_key(q.key));
  if (q.number < 1 || q.number > part_number_max) co_return fail(errc::invalid_argument, "a part's number is 1 to 10000");
  CO_TRY(bucket b, co_await s.admit(c, q.bucket, action::put_object));
  const auto where = model::part_key(b.id, q.key, q.upload, q.number);
  expected_body expected{.md5 = q.content_md5, .sha256 = q.content_sha256, .checksums = q.checksums, .compute = q.compute, .may_be_inline = false,
                         .size_max = part_size_max};
  // The upload's row comes while the first block does.
  expected.upload = s.start_reading(model::upload_key(b.id, q.key, q.upload), s.reading(s.step_deadline(c)));
  CO_TRY(received_body got, co_await s.receive(where, std::move(expected), from, c));
  model::part_row part;
  part.number = q.number;
  part.version = got.version;
  part.size = got.size;
  part.modified_ms = got.at.ms();
  part.etag = got.etag;
  part.checksums = got.checksums;
  part.blocks = std::move(got.blocks);
  c.deadline = s.step_deadline(c);
  CO_TRY_VOID(co_await s.write_part(c, q.bucket, where, std::move(part), got.attempt));
  s.tasks.spawn("late part", s.check_late_part(b.id, q.key, q.upload, q.number));
  co_return put_result{got.etag, got.checksums, got.size};
}

// A part whose upload ended while it came is nobody's: its row goes, and its blocks after it.
task<void> service::impl::check_late_part(bucket_id b, std::string key, upload_id upload, std::uint32_t number) {
  auto o = reading(rt.now() + step_time);
  o.priority = wire::priority::background;
  auto row = co_await below->read(model::upload_key(b, key, upload), std::move(o));
  if (!row) co_return;
  if (auto u = row->value.present ? model::decode_upload(row->value.row) : result<model::upload_row>(model::upload_row{.state = status::aborted});
      !u || u->state == status::open || u->state == status::completing)
    co_return;
  (void)co_await write_row(model::part_key(b, key, upload, number), {}, writing(rt.now() + step_time));
}

// ------------------------------------------------------------------------------------------------- abort

task<result<void>> service::abort_upload(call c, std::string bucket_name, std::string key, upload_id upload) {
  impl& s = *impl_;
  CO_TRY_VOID(check_key(key));
  for (int i = 0;; ++i) {
    CO_TRY(bucket b, co_await s.admit(c, bucket_name, action::abort_upload));
    // What the object's row already became stays: the background looks there before it gives blocks back.
    table::judge judge = [](const table::row& current) -> result<table::row_value> {
      if (!current.value.present) return no_such_upload();
      TRY(auto u, model::decode_upload(current.value.row));
      if (u.state == status::completed) return no_such_upload();
      u.state = status::aborted;
      return table::row_value{true, model::encode(u), nullptr};
    };
    auto r = co_await s.below->compare_and_swap(model::upload_key(b.id, key, upload), std::move(judge), s.writing(c.deadline, &b));
    if (r) co_return result<void>();
    if (r.error().code != errc::conflict || i + 1 == fence_retries) co_return fail(r.error());
  }
}

// ------------------------------------------------------------------------------------------------- reading and removing parts

task<result<std::map<std::uint32_t, model::part_row>>> service::impl::read_part_range(bucket_id b, std::string key, upload_id upload,
                                                                                      std::uint32_t first, std::uint32_t last,
                                                                                      mono_time deadline) {
  std::map<std::uint32_t, model::part_row> parts;
  table::list_request q{table_id::part, b.str(), model::upload_key(b, key, upload).sort_key, {}, {}, last - first + 1};
  q.start = model::part_key(b, key, upload, first).sort_key;
  for (;;) {
    CO_TRY(auto page, co_await below->list(q, reading(deadline)));
    for (const auto& e : page.entries) {
      CO_TRY(auto p, model::decode_part(e.projection));
      if (p.number > last) co_return parts;
      parts.emplace(p.number, std::move(p));
    }
    if (!page.truncated) co_return parts;
    q.start = page.next;
  }
}

// Ranges of the numbers listed, side by side, so that large part rows do not meet in one message.
task<result<std::map<std::uint32_t, model::part_row>>> service::impl::read_parts(bucket_id b, std::string key, upload_id upload,
                                                                                 std::vector<std::uint32_t> numbers, mono_time deadline) {
  constexpr std::size_t chunk = 100, at_once = 8;
  std::map<std::uint32_t, model::part_row> parts;
  fan_out<result<std::map<std::uint32_t, model::part_row>>> f(rt, tasks);
  for (std::size_t at = 0; at < numbers.size() || f.outstanding() > 0;) {
    if (at < numbers.size() && f.outstanding() < at_once) {
      const std::size_t last = std::min(at + chunk, numbers.size()) - 1;
      f.start(at, read_part_range(b, key, upload, numbers[at], numbers[last], deadline));
      at = last + 1;
      continue;
    }
    auto a = co_await f.next();
    if (!a) break;
    CO_TRY(auto some, std::move(a->second));
    parts.merge(some);
  }
  // What came while nothing was outstanding any more.
  while (auto a = co_await f.next()) {
    CO_TRY(auto some, std::move(a->second));
    parts.merge(some);
  }
  co_return parts;
}

task<result<void>> service::impl::remove_parts(bucket_id b, std::string key, upload_id upload, mono_time deadline) {
  table::list_request q{table_id::part, b.str(), model::upload_key(b, key, upload).sort_key, {}, {}, 100};
  for (;;) {
    CO_TRY(auto page, co_await below->list(q, reading(deadline)));
    std::vector<table::write_item> items;
    for (const auto& e : page.entries) items.push_back({{table_id::part, b.str(), e.key}, {}});
    if (!items.empty()) CO_TRY_VOID(co_await write_rows(std::move(items), writing(deadline)));
    if (!page.truncated) co_return result<void>();
    q.start = page.next;
  }
}

}  // namespace grenier::store
