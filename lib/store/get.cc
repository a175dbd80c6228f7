// GET, HEAD and tags. The local copy of the first block is read while the row's quorum is in flight.
#include <algorithm>

#include "store/impl.h"

namespace grenier::store {

using model::action;

namespace {

struct wanted_bytes {
  byte_range range;
  bool partial = false;
  std::uint32_t parts = 0;
};

result<wanted_bytes> bytes_of_part(const object_meta& m, std::uint32_t number) {
  if (m.parts.empty() && number == 1) return wanted_bytes{{0, m.size}, true, 0};
  std::uint64_t at = 0;
  for (const auto& p : m.parts) {
    if (p.number == number) return wanted_bytes{{at, p.size}, true, static_cast<std::uint32_t>(m.parts.size())};
    at += p.size;
  }
  return fail(errc::invalid_range, "the object has no part of this number");
}

// RFC 9110, 13.1.5: only what is sure to be the same version goes on where the client stopped.
bool range_counts(const object_meta& m, const get_request& q) {
  if (q.if_range_etag) return *q.if_range_etag == "\"" + m.etag + "\"";
  return !q.if_range_ms || *q.if_range_ms / 1000 == m.modified_ms / 1000;
}

result<wanted_bytes> choose_bytes(const object_meta& m, const get_request& q) {
  if (q.part_number) {
    if (q.range) return fail(errc::invalid_argument, "a range and a part number cannot be asked for together");
    return bytes_of_part(m, *q.part_number);
  }
  if (q.range && range_counts(m, q)) {
    TRY(auto range, parse_range(*q.range, m.size));
    if (range) return wanted_bytes{*range, true, 0};
  }
  return wanted_bytes{{0, m.size}, false, 0};
}

const model::block_entry* block_at(const model::object_row& row, std::uint64_t offset) {
  for (const auto& b : row.blocks) {
    if (offset < b.size) return &b;
    offset -= b.size;
  }
  return nullptr;
}

std::unexpected<error> no_such_key() { return fail(errc::no_such_key, "there is no object of this key"); }

}  // namespace

task<result<table::any_row>> service::impl::read_as(table::row_key key, table::op_options o, consistency how) {
  const auto p = below->partition_of(key.partition_key);
  table::op_options plain{.deadline = o.deadline, .priority = o.priority, .fence = {}, .with_body = o.with_body, .early = {}};
  if (how == consistency::any) {
    auto here = co_await below->read_any(key, std::move(plain));
    if (here && here->row.written) co_return here;
    auto asked = co_await below->read(key, std::move(o));
    if (asked) co_return table::any_row{std::move(*asked), false};
    if (here && asked.failed_with(errc::unavailable)) co_return here;
    co_return fail(asked.error());
  }
  if (how == consistency::strong || !below->quorum_is_dark(p)) {
    auto agreed = co_await below->read(key, std::move(o));
    if (agreed) co_return table::any_row{std::move(*agreed), false};
    if (how == consistency::strong || !agreed.failed_with(errc::unavailable) || !below->quorum_is_dark(p)) co_return fail(agreed.error());
  }
  CO_TRY(auto here, co_await below->read_any(std::move(key), std::move(plain)));
  // That it was never heard of here does not say that it is not there.
  if (!here.row.written) co_return fail(errc::unavailable, "too few homes are up, and this one does not know the object");
  co_return here;
}

task<result<table::any_row>> service::impl::read_for_visitor(table::row_key key, table::op_options o, consistency how) {
  if (!visited.keeps_rows() || below->rank(below->partition_of(key.partition_key))) co_return co_await read_as(std::move(key), std::move(o), how);
  if (auto known = visited.row(key, rt.now())) {
    known->stale_possible = true;
    co_return std::move(*known);
  }
  const mono_time asked_at = rt.now();
  const bool whole = o.with_body;
  CO_TRY(auto row, co_await read_as(key, std::move(o), how));
  // That something is not there is asked each time: it may be on its way, and who waits for it shall not wait longer.
  if (whole && row.row.value.present) visited.keep(key, row, asked_at);
  co_return row;
}

task<result<service::impl::found_object>> service::impl::find_object(call c, std::string bucket_name, std::string key, action a,
                                                                     bool with_body, std::function<void(const table::row&)> early,
                                                                     consistency how) {
  CO_TRY_VOID(check_key(key));
  for (int i = 0;; ++i) {
    CO_TRY(bucket b, co_await admit(c, bucket_name, a));
    auto o = reading(c.deadline, &b);
    o.with_body = with_body;
    if (early) o.early = early;
    auto r = c.visitor ? co_await read_for_visitor(model::object_key(b.id, key), std::move(o), how) : co_await read_as(model::object_key(b.id, key), std::move(o), how);
    if (r.failed_with(errc::conflict) && i + 1 < fence_retries) continue;
    if (!r) co_return fail(r.error());
    const table::row_value& value = r->row.value;
    if (!value.present) co_return no_such_key();
    CO_TRY(auto row, model::decode_object(value.row));
    if (row.delete_marker) co_return no_such_key();
    if (with_body && row.inline_body && (value.body ? value.body->size() : 0) != row.meta.size)
      co_return fail(errc::corrupt, "the object's body is not as long as its row says");
    co_return found_object{std::move(row), value.body, std::move(b), r->stale_possible};
  }
}

task<result<get_result>> service::get(call c, get_request q) {
  impl& s = *impl_;
  const auto memory = c.visitor ? s.memory_visitors : s.memory_out;
  auto prefetched = std::make_shared<impl::prefetched_block>();
  std::function<void(const table::row&)> early;
  if (!q.head)
    early = [&s, prefetched, q, memory](const table::row& r) {
      if (prefetched->arriving || !r.value.present) return;
      auto row = model::decode_object(r.value.row);
      if (!row || row->blocks.empty() || !check_read(q.when, row->meta)) return;
      auto wanted = choose_bytes(row->meta, q);
      const auto* block = wanted ? block_at(*row, wanted->range.first) : nullptr;
      if (!block || !s.below->is_here(block->hash)) return;
      prefetched->memory = memory->try_acquire(block->size);
      if (!prefetched->memory) return;
      prefetched->hash = block->hash;
      prefetched->arriving.emplace(s.rt);
      s.tasks.spawn("prefetch", s.fetch(block->hash, *prefetched->arriving, wire::priority::foreground));
    };
  CO_TRY(auto found, co_await s.find_object(c, q.bucket, q.key, action::get_object, !q.head, early, q.how));
  get_result r;
  r.stale_possible = found.stale_possible;
  auto holds = check_read(q.when, found.row.meta);
  if (holds.failed_with(errc::not_modified)) {
    r.not_modified = true;
    r.meta = std::move(found.row.meta);
    co_return r;
  }
  CO_TRY_VOID(std::move(holds));
  CO_TRY(wanted_bytes wanted, choose_bytes(found.row.meta, q));
  r.first = wanted.range.first;
  r.length = wanted.range.length;
  r.partial = wanted.partial;
  r.parts = wanted.parts;
  if (!q.head) r.body = s.read_body(found.row, found.body, wanted.range, prefetched, memory);
  r.meta = std::move(found.row.meta);
  co_return r;
}

// ------------------------------------------------------------------------------------------------- tags

task<result<std::vector<model::tag>>> service::get_tags(call c, std::string bucket_name, std::string key) {
  CO_TRY(auto found, co_await impl_->find_object(std::move(c), std::move(bucket_name), std::move(key), action::read_object_tags, false, {}));
  co_return std::move(found.row.meta.tags);
}

task<result<void>> service::set_tags(call c, std::string bucket_name, std::string key, std::vector<model::tag> tags) {
  CO_TRY_VOID(check_key(key));
  CO_TRY_VOID(check_tags(tags));
  impl& s = *impl_;
  for (int i = 0;; ++i) {
    CO_TRY(bucket b, co_await s.admit(c, bucket_name, action::write_object_tags));
    // The version stays, and with it the blocks' references.
    table::judge judge = [tags](const table::row& current) -> result<table::row_value> {
      if (!current.value.present) return no_such_key();
      TRY(auto row, model::decode_object(current.value.row));
      if (row.delete_marker) return no_such_key();
      if (row.inline_body && (current.value.body ? current.value.body->size() : 0) != row.meta.size)
        return fail(errc::internal, "the body is not at hand, and would be lost");
      row.meta.tags = tags;
      return table::row_value{true, model::encode(row), current.value.body};
    };
    auto o = s.writing(c.deadline, &b);
    o.with_body = true;
    auto r = co_await s.below->compare_and_swap(model::object_key(b.id, key), std::move(judge), std::move(o));
    if (r) co_return result<void>();
    if (r.error().code != errc::conflict || i + 1 == fence_retries) co_return fail(r.error());
  }
}

}  // namespace grenier::store
