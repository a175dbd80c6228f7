// Bodies as they come in: cut in blocks, hashed on the cpu pool while the next bytes arrive and the former blocks are stored.
#include <algorithm>

#include "store/receive.h"

namespace grenier::store {

namespace {

constexpr std::size_t blocks_in_flight = 4;  // of one request: what it may take of the memory budget
constexpr std::size_t hash_here_max = 16 << 10;

// Up to `wanted` bytes; fewer only at the end.
task<result<std::size_t>> fill(body_source& from, char* to, std::size_t wanted) {
  std::size_t have = 0;
  while (have < wanted) {
    CO_TRY(std::size_t n, co_await from.read({to + have, wanted - have}));
    if (n == 0) break;
    if (n > wanted - have) co_return fail(errc::internal, "a body gave more bytes than asked");
    have += n;
  }
  co_return have;
}

}  // namespace

body_hashes::body_hashes(const expected_body& e, bool one_block) : md5_(crypto::hash_kind::md5), one_block_(one_block) {
  auto want = [this](crypto::hash_kind k) {
    if (k == crypto::hash_kind::md5) return;  // the ETag is computed anyway
    if (k == crypto::hash_kind::sha256 && one_block_) {
      want_block_hash_ = true;
      return;
    }
    if (std::ranges::find(others_, k, &std::pair<crypto::hash_kind, crypto::hasher>::first) == others_.end())
      others_.emplace_back(k, crypto::hasher(k));
  };
  if (e.sha256) want(crypto::hash_kind::sha256);
  for (const checksum& c : e.checksums) want(c.kind);
  for (const auto& kind : {e.compute, e.also})
    if (kind) want(*kind);
}

void body_hashes::update(bytes_view b) {
  md5_.update(b);
  for (auto& [kind, h] : others_) h.update(b);
}

void body_hashes::finish(const block_hash* only_block) {
  digests_[crypto::hash_kind::md5] = md5_.finish();
  for (auto& [kind, h] : others_) digests_[kind] = h.finish();
  if (want_block_hash_) digests_[crypto::hash_kind::sha256] = only_block ? only_block->str() : crypto::digest(crypto::hash_kind::sha256, {});
}

const bytes* body_hashes::find(crypto::hash_kind k) const {
  auto at = digests_.find(k);
  return at == digests_.end() ? nullptr : &at->second;
}

result<void> body_hashes::check(const expected_body& e, std::vector<checksum> trailers, std::vector<checksum>& keep) const {
  if (e.md5 && *e.md5 != *find(crypto::hash_kind::md5)) return fail(errc::bad_digest, "Content-MD5 is not that of the body");
  if (e.sha256 && *e.sha256 != *find(crypto::hash_kind::sha256))
    return fail(errc::bad_digest, "the body is not the one that was signed");
  auto add = [&](crypto::hash_kind k, const bytes& v) {
    if (std::ranges::find(keep, k, &checksum::kind) == keep.end()) keep.push_back({k, v});
  };
  for (const std::vector<checksum>* list : {&e.checksums, static_cast<const std::vector<checksum>*>(&trailers)}) {
    for (const checksum& c : *list) {
      const bytes* mine = find(c.kind);
      if (!mine) return fail(errc::invalid_argument, "a checksum came as a trailer that was not announced");
      if (c.value != *mine) return fail(errc::checksum_mismatch, "a checksum is not that of the body");
      add(c.kind, *mine);
    }
  }
  for (const auto& kind : {e.compute, e.also})
    if (kind) add(*kind, *find(*kind));
  return {};
}

// ------------------------------------------------------------------------------------------------- blocks

task<result<void>> service::impl::note_intents(std::vector<held_block> held, std::uint64_t first_index) {
  kv::batch b;
  for (const held_block& h : held) {
    pb::Intent m;
    m.set_format(1);
    m.set_table(static_cast<std::uint32_t>(h.owner.table));
    m.set_partition_key(h.owner.partition_key);
    m.set_sort_key(h.owner.sort_key);
    m.set_hash(h.hash.str());
    b.put(kv::family::task_queue, intent_key(h.version, first_index++), m.SerializeAsString());
  }
  co_return co_await kv.commit(std::move(b));
}

// The note (whose reference this is, should the row never come) first: a reference that nobody knows of would keep its block for ever.
task<result<void>> service::impl::put_noted(held_block h, shared_bytes content, std::uint64_t index, mono_time deadline) {
  CO_TRY_VOID(co_await note_intents({h}, index));
  co_return co_await below->put(h, content, deadline);
}

task<result<void>> service::impl::store_block(std::shared_ptr<receiving> r, std::size_t index, shared_bytes content,
                                              semaphore::permit memory_in_use) {
  // The block's own hash does not wait for its turn; the hashes of the whole do.
  block_hash hash = co_await offload(rt, rt.cpu_pool(), [content] { return crypto::hash_block(*content); });
  while (r->hashed != index) co_await r->turn.wait();
  co_await offload(rt, rt.cpu_pool(), [r, content] { r->hashes.update(*content); });
  ++r->hashed;
  r->turn.wake_all();
  r->blocks[index] = {hash, static_cast<std::uint32_t>(content->size())};
  const mono_time deadline = std::max(r->deadline, rt.now() + step_time);
  co_return co_await put_noted({hash, r->version, r->owner}, std::move(content), index, deadline);
}

task<result<block_lists>> service::impl::list_blocks(table::row_key owner, version_id version, std::vector<model::block_entry> blocks,
                                                     mono_time deadline) {
  block_lists lists;
  if (blocks.size() <= model::manifest_entries_max) {
    lists.blocks = std::move(blocks);
    co_return lists;
  }
  lists.manifest_blocks = blocks.size();
  std::uint64_t index = blocks.size();
  for (std::size_t at = 0; at < blocks.size();) {
    // An entry says how many bytes its blocks hold, in 32 bits.
    std::uint64_t covered = 0;
    std::size_t n = 0;
    while (at + n < blocks.size() && n < model::manifest_entries_max && covered + blocks[at + n].size <= 0xffffffff)
      covered += blocks[at + n++].size;
    auto content = share(model::encode_manifest(std::span(blocks).subspan(at, n)));
    block_hash hash = co_await offload(rt, rt.cpu_pool(), [content] { return crypto::hash_block(*content); });
    lists.manifests.push_back({hash, static_cast<std::uint32_t>(covered)});
    CO_TRY_VOID(co_await put_noted({hash, version, owner}, content, index++, deadline));
    at += n;
  }
  co_return lists;
}

// ------------------------------------------------------------------------------------------------- a whole body

result<void> service::impl::check_upload(const result<table::row>& row, expected_body& expected, received_body& got) {
  TRY(got.upload, open_upload(row));
  expected.also = got.upload->checksum_kind;
  return {};
}

namespace {

// Whether the size that was announced can be right.
result<void> check_size(const expected_body& e, std::uint64_t have, std::optional<std::uint64_t> said, bool at_end) {
  if (have > e.size_max) return fail(errc::too_large, "the body is larger than what may be stored in one request");
  if (said && (have > *said || (at_end && have < *said))) return fail(errc::incomplete_body, "the body's length is not the one announced");
  return {};
}

}  // namespace

namespace {
// Bytes that are filled at once: zeros would be written for nothing.
void lengthen(bytes& b, std::size_t n) {
  b.resize_and_overwrite(n, [n](char*, std::size_t) { return n; });
}
}  // namespace

// The next piece of a body, with the memory it takes; fewer bytes than `wanted` at its end. What fits in a row takes no turn; and
// nobody waits for a client, or because of one, that has not sent as much yet.
task<result<bytes>> service::impl::next_piece(body_source& from, std::size_t wanted, semaphore::permit& memory_in_use, const call& c) {
  constexpr std::size_t step = 16 << 10;
  const std::size_t uncounted = std::min(wanted, opts.inline_max + 1);
  bytes piece;
  std::size_t have = 0;
  while (have < uncounted) {
    const std::size_t more = have ? uncounted - have : std::min(step, uncounted);
    lengthen(piece, have + more);
    CO_TRY(std::size_t n, co_await fill(from, piece.data() + have, more));
    have += n;
    if (n < more) break;
  }
  if (have == uncounted && have < wanted) {
    memory_in_use = co_await memory_in->acquire(wanted, step_deadline(c));
    if (!memory_in_use) co_return fail(errc::overloaded, "the memory for bodies under way is in use");
    lengthen(piece, wanted);
    CO_TRY(std::size_t n, co_await fill(from, piece.data() + have, wanted - have));
    have += n;
  }
  piece.resize(have);
  co_return piece;
}

task<result<void>> service::impl::wait_for_upload(expected_body& expected, received_body& got, mono_time deadline) {
  if (!expected.upload) co_return result<void>();
  auto row = co_await expected.upload->wait(deadline);
  if (!row) co_return fail(errc::timed_out, "the upload's row was not answered in time");
  co_return check_upload(*row, expected, got);
}

task<result<void>> service::impl::finish_body(std::shared_ptr<receiving> r, const expected_body& expected, std::vector<checksum> trailers,
                                              received_body& got) {
  if (got.inline_body) {
    auto hash = [r, body = got.inline_body] {
      r->hashes.update(*body);
      block_hash h;
      if (r->hashes.wants_block_hash()) h = crypto::hash_block(*body);
      r->hashes.finish(&h);
    };
    if (got.size > hash_here_max)
      co_await offload(rt, rt.cpu_pool(), std::move(hash));
    else
      hash();
  } else {
    r->hashes.finish(r->blocks.size() == 1 ? &r->blocks[0].hash : nullptr);
  }
  CO_TRY_VOID(r->hashes.check(expected, std::move(trailers), got.checksums));
  got.etag = to_hex(*r->hashes.find(crypto::hash_kind::md5));
  if (auto* sha = r->hashes.find(crypto::hash_kind::sha256)) got.content = *content_id::from_bytes(*sha);
  got.blocks = std::move(r->blocks);
  co_return result<void>();
}

hlc_time service::impl::stamp() {
  const hlc_time t = clock.now();
  if (!clock.too_far_ahead(t)) return t;
  stamped = {stamped.value + 1};
  const hlc_time wall = hlc_time::from_ms(rt.wall_ms());
  if (stamped < wall || clock.too_far_ahead(stamped)) stamped = wall;
  return stamped;
}

task<result<received_body>> service::impl::receive(table::row_key owner, expected_body expected, body_source& from, call c) {
  received_body got;
  got.at = stamp();
  got.version = model::make_version(got.at, rt.random());
  got.attempt = std::make_shared<store::attempt>(puts, got.version);
  const auto said = from.size();
  CO_TRY_VOID(check_size(expected, said.value_or(0), said, false));
  if (said && !below->has_space(*said)) co_return fail(errc::no_space, "there is no room left for this");

  std::shared_ptr<receiving> r;
  fan_out<result<void>> storing(rt, tasks);
  for (bool at_end = false; !at_end;) {
    while (storing.outstanding() >= blocks_in_flight)
      if (auto a = co_await storing.next(); a && !a->second) co_return fail(a->second.error());
    // One byte more than was announced is asked for, to see that it does not come.
    const std::size_t wanted = said ? std::min<std::uint64_t>(opts.block_size, *said - got.size + 1) : opts.block_size;
    semaphore::permit memory_in_use;
    CO_TRY(bytes piece, co_await next_piece(from, wanted, memory_in_use, c));
    got.size += piece.size();
    at_end = piece.size() < wanted;
    CO_TRY_VOID(check_size(expected, got.size, said, at_end));
    if (!r) {
      CO_TRY_VOID(co_await wait_for_upload(expected, got, step_deadline(c)));
      const bool one_block = at_end || (said && *said <= opts.block_size);
      r = std::make_shared<receiving>(rt, body_hashes(expected, one_block), got.attempt, owner, c.deadline);
      if (at_end && expected.may_be_inline && got.size <= opts.inline_max) {
        got.inline_body = share(std::move(piece));
        break;
      }
    }
    if (piece.empty()) continue;
    const std::size_t index = r->blocks.size();
    r->blocks.emplace_back();
    got.attempt->has_blocks = true;
    storing.start(index, store_block(r, index, share(std::move(piece)), std::move(memory_in_use)));
  }
  while (auto a = co_await storing.next())
    if (!a->second) co_return fail(a->second.error());
  CO_TRY_VOID(co_await finish_body(r, expected, from.trailers(), got));
  co_return got;
}

}  // namespace grenier::store
