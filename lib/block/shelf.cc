#include "block/shelf.h"

#include <algorithm>

namespace grenier::block {

namespace {

bytes encode(const location& at) {
  bytes b{1, static_cast<char>(at.zstd)};
  append_u16(b, at.drive);
  append_u64(b, at.stored_bytes);
  return b;
}

std::optional<location> decode(bytes_view v) {
  if (v.size() != 12 || v[0] != 1) return std::nullopt;
  return location{read_u16(v.substr(2)), v[1] != 0, read_u64(v.substr(4))};
}

std::uint64_t in_ms(nanoseconds d) { return static_cast<std::uint64_t>(std::chrono::duration_cast<milliseconds>(d).count()); }

}  // namespace

shelf::shelf(runtime& rt, kv::store& kv, table::replicated& t, node_id self, std::vector<drive> d)
    : disks(rt, std::move(d)),
      missing(rt, kv, row_kind::missing),
      guests(rt, kv, row_kind::guest),
      garbage(rt, kv, row_kind::garbage),
      rt_(rt), kv_(kv), table_(t), self_(self), locks_(rt) {}

task<result<void>> shelf::load() {
  co_await disks.refresh();
  for (block_hash after;;) {
    CO_TRY(auto rows, co_await files_from(after, 1000));
    if (rows.empty()) break;
    for (const auto& [hash, at] : rows)
      if (here_.insert(hash)) {
        ++blocks;
        disks.add_used(at);
      }
    after = rows.back().first;
  }
  co_await disks.refresh();  // used bytes are part of what the disks say already
  CO_TRY_VOID(co_await missing.load());
  CO_TRY_VOID(co_await guests.load());
  co_return co_await garbage.load();
}

task<result<std::vector<std::pair<block_hash, location>>>> shelf::files_from(block_hash after, std::size_t max) {
  bytes from = row_of(row_kind::file, after);
  if (after) from += '\0';
  CO_TRY(auto rows, co_await kv_.scan(kv::family::block, {.from = from, .until = bytes(1, static_cast<char>(row_kind::file) + 1), .entries_max = max}));
  std::vector<std::pair<block_hash, location>> out;
  for (const auto& r : rows) {
    auto h = block_hash::from_bytes(bytes_view(r.key).substr(1));
    auto at = decode(r.value);
    if (h && at) out.emplace_back(*h, *at);
  }
  co_return out;
}

task<result<bytes>> shelf::setting(std::string name) {
  bytes key = static_cast<char>(row_kind::setting) + name;
  CO_TRY(auto v, co_await kv_.get(kv::family::block, key));
  co_return v.value_or(bytes());
}

void shelf::set_setting(kv::batch& b, std::string name, bytes value) {
  b.put(kv::family::block, static_cast<char>(row_kind::setting) + name, std::move(value));
}

// ------------------------------------------------------------------------------------------------- references

bool shelf::is_home(const block_hash& h) const { return table_.is_replica(table_.partition_of(h.view())); }

bool shelf::is_replica_of_any_version(const block_hash& h) const {
  auto all = table_.layout().all_replicas(table_.partition_of(h.view()));
  return std::find(all.begin(), all.end(), self_) != all.end();
}

void shelf::define_references(nanoseconds grace_period, nanoseconds resync_delay) {
  grace_period_ = grace_period;
  resync_delay_ = resync_delay;
  table_.define(table::table_id::reference, {.join = join_references});
  table_.on_apply(table::table_id::reference, [this](const table::change& c, kv::batch& b) { on_reference(c, b); });
}

void shelf::on_reference(const table::change& c, kv::batch& b) {
  auto hash = block_hash::from_bytes(c.key.partition_key);
  if (!hash || !table_.is_replica(c.partition)) return;
  auto live = [](bool present, bytes_view v) {
    auto r = decode_reference(v);
    return present && r && !r->withdrawn;
  };
  bool before = live(c.before_present, c.before), after = live(c.after_present, c.after);
  if (after && !before && !storing_.contains(*hash)) {
    // Whether the file is here is looked up later, under the lock: a deletion may be under way just now.
    todo t{.hash = *hash, .due_ms = rt_.wall_ms() + in_ms(resync_delay_)};
    if (auto told = telling_.find(*hash); told != telling_.end()) t.origin = told->second;
    missing.add(b, t);
  } else if (!after && (before || !c.before_present)) {
    garbage.add(b, {.hash = *hash, .due_ms = rt_.wall_ms() + in_ms(grace_period_)});
    // What was looked for here may not be wanted any more (a write that failed): that is seen now, not when a grown pause is over.
    if (before && missing.contains(*hash)) missing.add(b, {.hash = *hash, .due_ms = rt_.wall_ms()});
  }
}

task<result<shelf::references>> shelf::references_of(block_hash h) {
  CO_TRY(auto rows, co_await table_.scan_here(table::table_id::reference, h.str()));
  references r;
  std::set<node_id> named;
  for (const auto& row : rows) {
    auto v = decode_reference(row.second);
    if (!v || v->withdrawn) continue;
    ++r.live;
    named.insert(v->guests.begin(), v->guests.end());
  }
  r.guests.assign(named.begin(), named.end());
  co_return r;
}

struct shelf::mark {
  std::set<block_hash>& in;
  block_hash hash;
  mark(std::set<block_hash>& s, const block_hash& h) : in(s), hash(h) { in.insert(h); }
  ~mark() { in.erase(hash); }
};

task<result<void>> shelf::commit_with(const block_hash& h, kv::batch b, std::optional<table::write_item> reference) {
  mark m(storing_, h);
  if (reference) {
    std::vector<table::write_item> items;
    items.push_back(std::move(*reference));
    co_return co_await table_.merge_here(std::move(items), std::move(b));
  }
  if (b.empty()) co_return result<void>();
  co_return co_await kv_.commit(std::move(b));
}

// ------------------------------------------------------------------------------------------------- reading

task<result<std::optional<location>>> shelf::find(block_hash h) {
  bytes key = row_of(row_kind::file, h);
  CO_TRY(auto v, co_await kv_.get(kv::family::block, key));
  co_return v ? decode(*v) : std::nullopt;
}

task<result<block_bytes>> shelf::open(block_hash h, location at) {
  CO_TRY(auto form, co_await disks.read(h, at));
  if (unproved_ && !form.zstd) co_return block_bytes{form, form.data};
  auto plain = co_await offload(rt_, rt_.cpu_pool(), [form, h] { return decode(form, h); });
  if (!plain) co_return fail(errc::corrupt, plain.error().detail);
  co_return block_bytes{form, std::move(*plain)};
}

// Under the lock.
task<result<block_bytes>> shelf::open_or_report(block_hash h, location at) {
  auto r = co_await open(h, at);
  if (!r) {
    co_await report_damage(h, at, r.error());
    co_return fail(errc::corrupt, r.error().detail);
  }
  co_return r;
}

// The row goes, so that nobody is told any more that the block is here; a good copy is fetched by the queue.
task<void> shelf::report_damage(block_hash h, location at, error why) {
  ++corrupt_found;
  scrub.failed(rt_.now(), h.str(), self_, "block " + h.short_hex() + " is damaged here: " + why.to_string());
  rt_.log(log_level::warning, "a damaged block " + h.short_hex() + ": " + why.to_string());
  kv::batch b;
  b.remove(kv::family::block, row_of(row_kind::file, h));
  missing.add(b, {.hash = h, .due_ms = rt_.wall_ms()});
  if (!co_await kv_.commit(std::move(b))) co_return;
  damaged_.insert(h);
  if (here_.erase(h)) {
    --blocks;
    disks.take_used(at);
  }
  if (why == errc::corrupt) (void)co_await disks.remove(h, at);
}

task<result<stored>> shelf::left_behind(block_hash h) {
  CO_TRY(auto form, co_await disks.read_anywhere(h));
  auto plain = co_await offload(rt_, rt_.cpu_pool(), [form, h] { return decode(form, h); });
  if (!plain) co_return fail(errc::corrupt, plain.error().detail);
  co_return form;
}

task<void> shelf::discard(block_hash h) {
  if (damaged_.contains(h)) co_await disks.remove_everywhere(h);
  forget_damage(h);
}

void shelf::forget_damage(const block_hash& h) {
  damaged_.erase(h);
  scrub.mended(h.str());
}

std::unexpected<error> shelf::absent(const block_hash& h) const {
  if (damaged_.contains(h)) return fail(errc::corrupt, "block " + h.short_hex() + " was damaged here");
  return fail(errc::not_found, "block " + h.short_hex() + " is not here");
}

task<result<block_bytes>> shelf::read(block_hash h, mono_time deadline) {
  CO_TRY(auto at, co_await find(h));
  if (!at) co_return absent(h);
  auto r = co_await open(h, *at);
  if (r) co_return r;
  // It may have been freed or replaced meanwhile: what is said of damage is said under the lock.
  auto guard = co_await lock(h, deadline);
  if (!guard) co_return fail(errc::timed_out, "waiting for block " + h.short_hex());
  CO_TRY(at, co_await find(h));
  if (!at) co_return absent(h);
  co_return co_await open_or_report(h, *at);
}

// ------------------------------------------------------------------------------------------------- storing

task<result<bool>> shelf::store(incoming in, mono_time deadline) {
  auto guard = co_await lock(in.hash, deadline);
  if (!guard) co_return fail(errc::timed_out, "waiting for block " + in.hash.short_hex());
  CO_TRY(auto old, co_await find(in.hash));
  bool had = false;
  if (old) had = (co_await open_or_report(in.hash, *old)).has_value();
  location at = old.value_or(location{});
  if (!had) {
    CO_TRY(at, co_await disks.write(in.hash, in.form));
  }
  kv::batch b;
  if (!had) b.put(kv::family::block, row_of(row_kind::file, in.hash), encode(at));
  if (missing.contains(in.hash)) missing.remove(b, in.hash);
  // Again also for one that is kept already: its time of grace begins anew.
  if (in.guest) guests.add(b, {.hash = in.hash, .due_ms = rt_.wall_ms() + 2000});
  auto done = co_await commit_with(in.hash, std::move(b), std::move(in.reference));
  if (!done) {
    if (!had) disks.take_used(at);
    co_return fail(done.error());
  }
  // The layout may have changed meanwhile, and whoever looks through the blocks for guests may have passed this one.
  if (!is_home(in.hash) && !guests.contains(in.hash)) {
    kv::batch late;
    guests.add(late, {.hash = in.hash, .due_ms = rt_.wall_ms() + 2000});
    CO_TRY_VOID(co_await kv_.commit(std::move(late)));
  }
  if (had) {
    ++deduplicated;
    co_return true;
  }
  if (here_.insert(in.hash)) ++blocks;
  if (damaged_.erase(in.hash)) ++repaired;
  scrub.mended(in.hash.str());
  co_return false;
}

task<result<shelf::confirmation>> shelf::confirm(question q, mono_time deadline) {
  auto guard = co_await lock(q.hash, deadline);
  if (!guard) co_return fail(errc::timed_out, "waiting for block " + q.hash.short_hex());
  confirmation c;
  // The row's own hook queues the block as well, and must not forget who told us.
  struct telling {
    std::map<block_hash, node_id>& all;
    block_hash hash;
    ~telling() { all.erase(hash); }
  } t{telling_, q.hash};
  telling_[q.hash] = q.origin;
  CO_TRY(auto at, co_await find(q.hash));
  c.file = at.has_value();
  kv::batch b;
  if (q.reference && !c.file && is_home(q.hash))
    missing.add(b, {.hash = q.hash, .due_ms = rt_.wall_ms() + in_ms(q.fetch_after), .origin = q.origin});
  if (q.verify && c.file && guests.contains(q.hash)) {
    CO_TRY(auto kept, co_await guests.find(q.hash));
    if (kept) {
      kept->since_ms = rt_.wall_ms();
      guests.add(b, *kept);
    }
  }
  c.referenced = q.reference.has_value();
  CO_TRY_VOID(co_await commit_with(q.hash, std::move(b), std::move(q.reference)));
  if (c.file && q.verify && !unlooked_) c.file = (co_await open_or_report(q.hash, *at)).has_value();
  CO_TRY(auto refs, co_await references_of(q.hash));
  c.live = refs.live > 0;
  c.guests = std::move(refs.guests);
  co_return c;
}

// ------------------------------------------------------------------------------------------------- freeing

task<result<bool>> shelf::free(block_hash h, std::move_only_function<task<result<bool>>()> may_go, mono_time deadline) {
  auto guard = co_await lock(h, deadline);
  if (!guard) co_return fail(errc::timed_out, "waiting for block " + h.short_hex());
  CO_TRY(bool go, co_await may_go());
  if (!go) co_return false;
  CO_TRY(auto at, co_await find(h));
  kv::batch b;
  b.remove(kv::family::block, row_of(row_kind::file, h));
  guests.remove(b, h);
  garbage.remove(b, h);
  const bool left = !at && damaged_.contains(h);
  forget_damage(h);
  // The row first: a file without a row is found by the sweep, a row without its file would be damage.
  CO_TRY_VOID(co_await kv_.commit(std::move(b)));
  if (left) co_await disks.remove_everywhere(h);
  if (!at) co_return true;
  if (here_.erase(h)) {
    --blocks;
    disks.take_used(*at);
  }
  CO_TRY_VOID(co_await disks.remove(h, *at));
  co_return true;
}

task<void> shelf::adopt(drives::found f) {
  auto guard = co_await lock(f.hash, never);
  if (f.leftover) {
    (void)co_await disks.remove(f);
    co_return;
  }
  auto at = co_await find(f.hash);
  if (!at) co_return;
  if (*at) {
    if ((*at)->drive == f.where.drive && (*at)->zstd == f.where.zstd) co_return;
    auto there = co_await disks.has(f.hash, **at);
    if (!there) co_return;
    if (*there) {  // a second copy that nobody would find
      (void)co_await disks.remove(f);
      co_return;
    }
    // The drives were given in another order: the row follows the file.
    disks.take_used(**at);
    here_.erase(f.hash);
    --blocks;
  }
  auto size = co_await disks.size(f);
  if (!size) co_return;
  f.where.stored_bytes = *size;
  if (!*at) {
    // Nobody knows whether it was synced before the crash: what a row says is here must be here after the next one too.
    auto form = co_await disks.read(f.hash, f.where);
    if (!form) co_return;
    auto proved = co_await offload(rt_, rt_.cpu_pool(), [form = *form, h = f.hash] { return decode(form, h); });
    if (!proved) {
      (void)co_await disks.remove(f);
      co_return;
    }
    auto placed = co_await disks.write(f.hash, *form);
    if (!placed) co_return;
    if (placed->drive != f.where.drive || placed->zstd != f.where.zstd) (void)co_await disks.remove(f);
    disks.take_used(*placed);
    f.where = *placed;
  }
  kv::batch b;
  b.put(kv::family::block, row_of(row_kind::file, f.hash), encode(f.where));
  if (!*at && is_home(f.hash)) garbage.add(b, {.hash = f.hash, .due_ms = rt_.wall_ms() + in_ms(grace_period_)});
  if (!*at && !is_home(f.hash)) guests.add(b, {.hash = f.hash, .due_ms = rt_.wall_ms() + 2000});
  if (!co_await kv_.commit(std::move(b))) co_return;
  if (here_.insert(f.hash)) {
    ++blocks;
    disks.add_used(f.where);
  }
}

}  // namespace grenier::block
