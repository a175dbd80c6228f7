// COPY: references, not bytes. Bytes are read and written again only where a checksum is wanted that nobody knows, a range cuts
// through blocks, or a block's replicas cannot vouch for it any more.
#include <algorithm>

#include "store/impl.h"

namespace grenier::store {

using model::action;

namespace {

// An object's bytes as the body of a new one.
class read_again final : public body_source {
 public:
  read_again(std::unique_ptr<body_reader> from, std::uint64_t size) : from_(std::move(from)), size_(size) {}
  task<result<std::size_t>> read(std::span<char> to) override {
    while (!piece_ || at_ == piece_->size()) {
      CO_TRY(piece_, co_await from_->next());
      at_ = 0;
      if (!piece_) co_return std::size_t{0};
    }
    const std::size_t n = std::min(to.size(), piece_->size() - at_);
    std::memcpy(to.data(), piece_->data() + at_, n);
    at_ += n;
    co_return n;
  }
  std::optional<std::uint64_t> size() const override { return size_; }

 private:
  std::unique_ptr<body_reader> from_;
  std::uint64_t size_;
  shared_bytes piece_;
  std::size_t at_ = 0;
};

bool has_checksum(const object_meta& m, crypto::hash_kind k) {
  return std::ranges::any_of(m.checksums, [k](const checksum& c) { return c.kind == k && !c.composite; });
}

// The blocks that make up exactly these bytes; nothing when a block is cut.
std::optional<std::vector<model::block_entry>> whole_blocks(const std::vector<model::block_entry>& all, byte_range range) {
  std::vector<model::block_entry> inside;
  std::uint64_t at = 0;
  for (const auto& b : all) {
    const std::uint64_t end = at + b.size;
    if (end > range.first && at < range.first + range.length) {
      if (at < range.first || end > range.first + range.length) return std::nullopt;
      inside.push_back(b);
    }
    at = end;
  }
  return inside;
}

}  // namespace

// Notes what it refers to first, so that references of a row that never came are found again.
task<result<void>> service::impl::refer(table::row_key owner, std::shared_ptr<attempt> under, std::vector<model::block_entry> blocks,
                                        std::uint64_t first_index, mono_time deadline) {
  constexpr std::size_t chunk = 1000;
  under->has_blocks = true;
  for (std::size_t at = 0; at < blocks.size(); at += chunk) {
    const std::size_t n = std::min(chunk, blocks.size() - at);
    std::vector<held_block> held;
    for (std::size_t i = at; i < at + n; ++i) held.push_back({blocks[i].hash, under->version, owner});
    // The same bytes twice in an object are one reference.
    std::ranges::sort(held, {}, &held_block::hash);
    held.erase(std::ranges::unique(held, {}, &held_block::hash).begin(), held.end());
    CO_TRY_VOID(co_await note_intents(held, first_index + at));
    if (!skips("copy_unreferenced")) CO_TRY_VOID(co_await below->add_references(std::move(held), deadline));
  }
  co_return result<void>();
}

task<result<received_body>> service::impl::receive_again(table::row_key owner, model::object_row from, shared_bytes body, byte_range range,
                                                         expected_body expected, call c) {
  read_again source(read_body(from, std::move(body), range, nullptr, nullptr), range.length);
  co_return co_await receive(std::move(owner), std::move(expected), source, std::move(c));
}

// The blocks of an object as those of another; false when their replicas cannot vouch for all of them.
task<result<bool>> service::impl::share_blocks(table::row_key owner, std::shared_ptr<attempt> under, model::object_row from, mono_time deadline) {
  CO_TRY(auto blocks, co_await all_blocks(from, wire::priority::foreground));
  blocks.insert(blocks.end(), from.manifests.begin(), from.manifests.end());
  auto r = co_await refer(owner, under, std::move(blocks), 0, deadline);
  if (r.failed_with(errc::not_found)) co_return false;
  if (!r) co_return fail(r.error());
  co_return true;
}

task<result<copy_result>> service::copy(call c, copy_request q) {
  impl& s = *impl_;
  CO_TRY_VOID(check_key(q.key));
  CO_TRY_VOID(check_headers(q.headers));
  CO_TRY_VOID(check_tags(q.tags));
  const bool changes = q.replace_headers || q.replace_tags || q.compute || !q.headers.storage_class.empty() || !q.headers.website_redirect.empty();
  if (q.from_bucket == q.bucket && q.from_key == q.key && !changes)
    co_return fail(errc::invalid_argument,
                   "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, "
                   "storage class, website redirect location or encryption attributes.");
  CO_TRY(bucket b, co_await s.admit(c, q.bucket, action::put_object));
  CO_TRY(auto source, co_await s.find_object(c, q.from_bucket, q.from_key, action::get_object, true, {}));
  CO_TRY_VOID(check_source(q.from_when, source.row.meta));

  const auto where = model::object_key(b.id, q.key);
  c.deadline = source.row.inline_body ? c.deadline : s.step_deadline(c);
  model::object_row row = source.row;
  const hlc_time at = s.stamp();
  row.meta.version = model::make_version(at, s.rt.random());
  row.meta.modified_ms = at.ms();
  row.meta.owner_id = b.owner_id;
  row.meta.owner_name = b.owner_name;
  row.upload = {};
  for (auto& p : row.meta.parts) p.version = {}, p.blocks = 0;
  if (q.replace_headers) row.meta.headers = q.headers;
  row.meta.headers.storage_class = q.headers.storage_class;  // these two are never the source's
  row.meta.headers.website_redirect = q.headers.website_redirect;
  if (q.replace_tags) row.meta.tags = q.tags;

  auto under = std::make_shared<attempt>(s.puts, row.meta.version);
  shared_bytes body = source.body;
  bool rewrite = q.compute && !has_checksum(row.meta, *q.compute);
  if (!rewrite && !row.inline_body) {
    CO_TRY(bool shared, co_await s.share_blocks(where, under, source.row, c.deadline));
    rewrite = !shared;
  }
  if (rewrite) {
    expected_body expected{.compute = q.compute};
    CO_TRY(received_body got, co_await s.receive_again(where, source.row, source.body, {0, source.row.meta.size}, expected, c));
    CO_TRY(block_lists lists, co_await s.list_blocks(where, got.version, std::move(got.blocks), c.deadline));
    row.meta.version = got.version;
    row.meta.etag = got.etag;
    row.meta.checksums = got.checksums;
    row.meta.content = got.content;
    row.meta.parts.clear();
    row.inline_body = static_cast<bool>(got.inline_body);
    row.blocks = std::move(lists.blocks);
    row.manifests = std::move(lists.manifests);
    row.manifest_blocks = lists.manifest_blocks;
    body = got.inline_body;
    under = got.attempt;
  }
  copy_result r{row.meta.etag, row.meta.modified_ms, row.meta.checksums};
  CO_TRY_VOID(co_await s.write_object(c, q.bucket, where, std::move(row), body, q.when, under));
  co_return r;
}

// ------------------------------------------------------------------------------------------------- a part from an object

// A part of whole blocks, by references. Its ETag is no MD5 then (nobody read the bytes) but the digest of their blocks' names.
task<result<std::optional<model::part_row>>> service::impl::refer_part(table::row_key owner, std::shared_ptr<attempt> under,
                                                                       model::object_row from, byte_range range, mono_time deadline) {
  const std::optional<model::part_row> no;
  if (from.inline_body || range.length == 0) co_return no;
  CO_TRY(auto all, co_await all_blocks(from, wire::priority::foreground));
  auto blocks = whole_blocks(all, range);
  if (!blocks || blocks->size() > part_blocks_max) co_return no;
  auto r = co_await refer(owner, under, *blocks, 0, deadline);
  if (r.failed_with(errc::not_found)) co_return no;
  if (!r) co_return fail(r.error());
  model::part_row part;
  part.version = under->version;
  part.size = range.length;
  bytes names;
  for (const auto& b : *blocks) names += b.hash.view();
  const bool whole = range.length == from.meta.size && from.meta.etag.size() == 32;
  part.etag = whole ? from.meta.etag : to_hex(crypto::digest(crypto::hash_kind::md5, names));
  part.blocks = std::move(*blocks);
  co_return part;
}

task<result<copy_result>> service::upload_part_copy(call c, upload_part_copy_request q) {
  impl& s = *impl_;
  if (q.number < 1 || q.number > part_number_max) co_return fail(errc::invalid_argument, "a part's number is 1 to 10000");
  CO_TRY(bucket b, co_await s.admit(c, q.bucket, action::put_object));
  auto upload_row = s.start_reading(model::upload_key(b.id, q.key, q.upload), s.reading(c.deadline));
  CO_TRY(auto source, co_await s.find_object(c, q.from_bucket, q.from_key, action::get_object, true, {}));
  CO_TRY_VOID(check_source(q.from_when, source.row.meta));
  byte_range range{0, source.row.meta.size};
  if (q.range) {
    CO_TRY(range, parse_copy_range(*q.range, source.row.meta.size));
  }
  if (range.length > part_size_max) co_return fail(errc::too_large, "a part has at most 5 GiB");
  auto upload = co_await upload_row.wait(c.deadline);
  if (!upload) co_return fail(errc::timed_out, "the upload's row was not answered in time");
  CO_TRY(auto open, impl::open_upload(*upload));

  c.deadline = s.step_deadline(c);
  const auto where = model::part_key(b.id, q.key, q.upload, q.number);
  const hlc_time at = s.stamp();
  auto under = std::make_shared<attempt>(s.puts, model::make_version(at, s.rt.random()));
  std::optional<model::part_row> part;
  if (!open.checksum_kind) {
    CO_TRY(part, co_await s.refer_part(where, under, source.row, range, c.deadline));
  }
  if (!part) {
    expected_body expected{.compute = open.checksum_kind, .may_be_inline = false, .size_max = part_size_max};
    CO_TRY(received_body got, co_await s.receive_again(where, source.row, source.body, range, expected, c));
    part = model::part_row{.version = got.version, .size = got.size, .etag = got.etag, .checksums = got.checksums, .blocks = got.blocks};
    under = got.attempt;
  }
  part->number = q.number;
  part->modified_ms = at.ms();
  const copy_result r{part->etag, part->modified_ms, part->checksums};
  CO_TRY_VOID(co_await s.write_part(c, q.bucket, where, std::move(*part), under));
  s.tasks.spawn("late part", s.check_late_part(b.id, q.key, q.upload, q.number));
  co_return r;
}

}  // namespace grenier::store
