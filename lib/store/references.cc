// When references end. A version's references are withdrawn only after a quorum is known to hold something newer, and after every attempt
// that could still bring the version back has come to its end. Parts of an upload belong to whatever object row lists them: the upload
// must be over, for as long, and the object's row must not list them.
#include <algorithm>

#include "store/work.h"

namespace grenier::store {

using status = model::upload_row::status;

namespace {

std::vector<held_block> hold(const std::vector<model::block_entry>& blocks, const version_id& v, const table::row_key& owner) {
  std::vector<held_block> held;
  for (const auto& b : blocks) held.push_back({b.hash, v, owner});
  return held;
}

bool lists_part(const std::optional<model::object_row>& o, const upload_id& u, std::uint32_t number, const version_id& v) {
  return o && o->upload == u &&
         std::ranges::any_of(o->meta.parts, [&](const auto& p) { return p.number == number && p.version == v; });
}

// An object made of parts: each block is the reference of its part.
result<std::vector<held_block>> hold_parts(const table::row_key& object, const model::object_row& row,
                                           const std::vector<model::block_entry>& blocks) {
  TRY(auto bucket, bucket_id::from_bytes(object.partition_key));
  std::vector<held_block> held;
  std::size_t at = 0;
  for (const auto& p : row.meta.parts) {
    const auto owner = model::part_key(bucket, object.sort_key, row.upload, p.number);
    if (p.blocks > blocks.size() - at) return fail(errc::corrupt, "an object's parts have more blocks than it has");
    for (std::uint32_t i = 0; i < p.blocks; ++i) held.push_back({blocks[at++].hash, p.version, owner});
  }
  return held;
}

table::row_key object_of_upload(const table::row_key& upload, std::string_view key) {
  return {table_id::object, upload.partition_key, bytes(key)};
}

}  // namespace

task<result<void>> service::impl::withdraw(std::vector<held_block> held) {
  constexpr std::size_t chunk = 500;
  std::ranges::sort(held, {}, [](const held_block& h) { return std::tie(h.hash, h.version, h.owner); });
  auto same = [](const held_block& a, const held_block& b) { return a.hash == b.hash && a.version == b.version && a.owner == b.owner; };
  held.erase(std::ranges::unique(held, same).begin(), held.end());
  for (std::size_t at = 0; at < held.size(); at += chunk) {
    const auto from = held.begin() + static_cast<std::ptrdiff_t>(at);
    const auto to = held.begin() + static_cast<std::ptrdiff_t>(std::min(at + chunk, held.size()));
    CO_TRY_VOID(co_await below->withdraw(std::vector<held_block>(from, to), rt.now() + block_patience));
  }
  co_return result<void>();
}

task<result<std::optional<model::object_row>>> service::impl::current_object(table::row_key where) {
  CO_TRY(table::row r, co_await below->read(std::move(where), reading(rt.now() + step_time)));
  std::optional<model::object_row> o;
  if (r.value.present) {
    CO_TRY(o, model::decode_object(r.value.row));
  }
  co_return o;
}

task<result<bool>> service::impl::is_long_over(work& w, table::row_key where, bool end_it) {
  CO_TRY(table::row r, co_await below->read(where, reading(rt.now() + step_time)));
  bool over = true;
  if (r.value.present) {
    CO_TRY(auto u, model::decode_upload(r.value.row));
    over = u.state == status::completed || u.state == status::aborted;
  }
  if (!over && end_it) {
    table::judge judge = [](const table::row& current) -> result<table::row_value> {
      if (!current.value.present) return current.value;
      TRY(auto u, model::decode_upload(current.value.row));
      if (u.state == status::open || u.state == status::completing) u.state = status::aborted;
      return table::row_value{true, model::encode(u), nullptr};
    };
    CO_TRY_VOID(co_await below->compare_and_swap(where, std::move(judge), writing(rt.now() + step_time)));
    over = true;
  }
  if (!over) co_return false;
  if (w.final_seen) co_return true;
  w.final_seen = true;
  w.attempts = 0;
  co_return false;
}

// A version of an object was replaced here.
task<result<bool>> service::impl::release_object(work& w) {
  CO_TRY(auto old, model::decode_object(w.before));
  CO_TRY(table::row r, co_await below->read(w.row, reading(rt.now() + step_time)));
  std::optional<model::object_row> now;
  if (r.value.present) {
    CO_TRY(now, model::decode_object(r.value.row));
  }
  const bool at_once = skips("withdrawn_at_once");
  if (now && now->meta.version == old.meta.version && !at_once) co_return true;  // it stands after all
  if (!at_once && !(r.written > w.before_written)) co_return false;              // nothing newer is known to a quorum yet
  auto held = hold(old.manifests, old.meta.version, w.row);
  if (!old.upload.is_zero() && now && now->upload == old.upload) {
    // Completed twice: the parts are the other's now, and replaced ones have entries of their own.
    CO_TRY_VOID(co_await withdraw(std::move(held)));
    co_return true;
  }
  if (!old.upload.is_zero()) {
    CO_TRY(auto bucket, bucket_id::from_bytes(w.row.partition_key));
    CO_TRY(bool over, co_await is_long_over(w, model::upload_key(bucket, w.row.sort_key, old.upload), true));
    if (!over) co_return false;
  }
  auto blocks = co_await all_blocks(old, wire::priority::background);
  if (blocks.failed_with(errc::not_found)) {
    rt.log(log_level::warning, "store: a manifest is gone, its blocks' references stay");
    co_return true;
  }
  if (!blocks) co_return fail(blocks.error());
  if (old.upload.is_zero()) {
    auto plain = hold(*blocks, old.meta.version, w.row);
    held.insert(held.end(), plain.begin(), plain.end());
  } else {
    CO_TRY(auto of_parts, hold_parts(w.row, old, *blocks));
    held.insert(held.end(), of_parts.begin(), of_parts.end());
  }
  CO_TRY_VOID(co_await withdraw(std::move(held)));
  co_return true;
}

// A part was replaced or removed here.
task<result<bool>> service::impl::release_part(work& w) {
  CO_TRY(auto old, model::decode_part(w.before));
  CO_TRY(table::row r, co_await below->read(w.row, reading(rt.now() + step_time)));
  if (r.value.present) {
    CO_TRY(auto now, model::decode_part(r.value.row));
    if (now.version == old.version) co_return true;
  }
  if (!(r.written > w.before_written)) co_return false;
  CO_TRY(auto bucket, bucket_id::from_bytes(w.row.partition_key));
  CO_TRY(auto named, model::split_upload_key(bytes_view(w.row.sort_key).substr(0, w.row.sort_key.size() - 4)));
  CO_TRY(bool over, co_await is_long_over(w, model::upload_key(bucket, named.first, named.second), false));
  if (!over) co_return false;
  CO_TRY(auto object, co_await current_object(model::object_key(bucket, named.first)));
  if (lists_part(object, named.second, old.number, old.version) && !skips("parts_forgotten")) co_return true;  // the object's row speaks for it now
  CO_TRY_VOID(co_await withdraw(hold(old.blocks, old.version, w.row)));
  co_return true;
}

// An upload is completing or over: it becomes final, its parts' rows go, and after a day its own.
task<result<bool>> service::impl::look_after_upload(work& w) {
  CO_TRY(table::row r, co_await below->read(w.row, reading(rt.now() + step_time)));
  if (!r.value.present) co_return true;
  CO_TRY(auto u, model::decode_upload(r.value.row));
  CO_TRY(auto bucket, bucket_id::from_bytes(w.row.partition_key));
  if (u.state == status::open) co_return true;
  if (u.state == status::completing) {
    CO_TRY(auto object, co_await current_object(object_of_upload(w.row, u.key)));
    const bool arrived = object && object->meta.version == u.became;
    const std::uint64_t sent_ms = read_u64(u.became.view()) >> 16;
    // Of the future: begun where the clock was ahead, and that home is asked for by looking again and again instead.
    const bool misdated = sent_ms > rt.wall_ms() + static_cast<std::uint64_t>(hybrid_clock::ahead_max.count());
    if (!arrived && rt.wall_ms() < sent_ms + whole_ms(opts.withdraw_delay) && !(misdated && w.attempts >= 6)) co_return false;
    // Not there, and no attempt is under way: open again, so that it can be completed or aborted. (Or it was there and is replaced
    // already: then it ends when the replaced version's references do.)
    auto next = u;
    next.state = arrived ? status::completed : status::open;
    table::judge judge = [u, next](const table::row& current) -> result<table::row_value> {
      if (!current.value.present) return fail(errc::condition_failed);
      TRY(auto now, model::decode_upload(current.value.row));
      if (now.state != status::completing || now.became != u.became) return fail(errc::condition_failed);
      return table::row_value{true, model::encode(next), nullptr};
    };
    auto swapped = co_await below->compare_and_swap(w.row, std::move(judge), writing(rt.now() + step_time));
    if (!swapped && !swapped.failed_with(errc::condition_failed)) co_return fail(swapped.error());
    co_return swapped && !arrived;
  }
  CO_TRY_VOID(co_await remove_parts(bucket, u.key, u.id, rt.now() + step_time));
  if (r.written.time.ms() + whole_ms(opts.finished_upload_kept) > rt.wall_ms()) co_return false;
  co_return (co_await write_row(w.row, {}, writing(rt.now() + step_time))).has_value();
}

}  // namespace grenier::store
