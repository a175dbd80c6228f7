#include "table/change_log.h"

#include <algorithm>

#include "table/keys.h"
#include "table/register.h"

namespace grenier::table {
namespace {

// Keys of the family are all of one form: 10 bytes.
constexpr std::size_t readers_max = 16, noted_max = 16384, swept_at_once = 4096, looked_at_max = 20000, names_max_ever = 1000;
const bytes reader_prefix = "feed/reader/", place_prefix = "feed/at/";

bytes entry_key(layout::partition p, std::uint64_t number) {
  bytes k = partition_prefix(p);
  append_u64(k, number);
  return k;
}

bytes place_key(const std::string& reader, layout::partition p) {
  bytes k = place_prefix + reader;
  k.push_back('\0');
  append_u16(k, p);
  return k;
}

bool is_name(std::string_view n) {
  return !n.empty() && n.size() <= 64 && std::all_of(n.begin(), n.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
  });
}

}  // namespace

// Where a reader is in a partition: in the walk, at the row `from`; or behind the change of that number. While it walks, the number
// is the one that the changes begin after.
struct change_log::position {
  bool walk = true;
  bytes from;
  std::uint64_t number = 0;

  bytes encode() const {
    bytes b(1, '\1');
    b.push_back(walk ? '\1' : '\0');
    append_u64(b, number);
    return b + from;
  }
  static result<position> decode(bytes_view b) {
    if (b.size() < 10 || b[0] != '\1') return fail(errc::corrupt, "a reader's place of an unknown form");
    return position{b[1] != '\0', bytes(b.substr(10)), read_u64(b.substr(2))};
  }
};

struct feed::reader {
  explicit reader(runtime& rt) : more(rt) {}
  struct place {
    std::uint64_t epoch = 0;          // of this place: marks of an earlier one say nothing
    change_log::position done, given; // acknowledged; given out
  };
  std::string name;
  std::set<table_id> tables;
  std::map<layout::partition, place> places;
  std::set<layout::partition> news, dirty;  // there may be something to tell; the place on disk is an older one
  layout::partition turn = 0;
  wait_list more;
  bool lacks = true;      // places in partitions that are kept here
  bool at_work = false, forgotten = false;
  std::uint64_t times_dropped = 0;
};

feed::~feed() { reader_->at_work = false; }
task<result<std::optional<feed_page>>> feed::next(mono_time deadline, std::size_t n) {
  return log_.next(reader_, deadline, std::clamp<std::size_t>(n, 1, names_max_ever));
}
void feed::acknowledge(const feed_mark& m) { log_.acknowledge(*reader_, m); }

// ------------------------------------------------------------------------------------------------- starting

task<result<void>> change_log::load() {
  for (bytes from = reader_prefix;;) {
    CO_TRY(auto page, co_await core_.store.scan(kv::family::meta, {.from = from, .until = after_prefix(reader_prefix)}));
    if (page.empty()) break;
    from = page.back().key + '\0';
    for (const auto& e : page) {
      auto r = std::make_shared<reader>(core_.rt);
      r->name = e.key.substr(reader_prefix.size());
      for (char t : e.value) r->tables.insert(static_cast<table_id>(t));
      readers_[r->name] = std::move(r);
    }
  }
  for (bytes from = place_prefix;;) {
    CO_TRY(auto page, co_await core_.store.scan(kv::family::meta, {.from = from, .until = after_prefix(place_prefix)}));
    if (page.empty()) break;
    from = page.back().key + '\0';
    for (const auto& e : page) {
      const std::size_t end = e.key.size() < 3 ? 0 : e.key.size() - 3;
      if (end < place_prefix.size()) continue;
      auto at = readers_.find(e.key.substr(place_prefix.size(), end - place_prefix.size()));
      auto where = position::decode(e.value);
      if (at == readers_.end() || !where) continue;
      const auto p = read_u16(bytes_view(e.key).substr(end + 1));
      numbers_[p].last = std::max(numbers_[p].last, where->number);
      at->second->places[p] = {++epochs_, *where, *where};
    }
  }
  struct counter {
    std::map<layout::partition, numbers> found;
    std::uint64_t n = 0;
  };
  auto c = std::make_shared<counter>();
  CO_TRY_VOID(co_await core_.store.walk(kv::family::feed, {}, {}, [c](bytes_view key, bytes_view) {
    if (key.size() != 10) return kv::store::step{};
    const std::uint64_t number = read_u64(key.substr(2));
    auto [at, fresh] = c->found.try_emplace(read_u16(key));
    if (fresh) at->second.swept = number - 1;
    at->second.last = number;
    ++c->n;
    return kv::store::step{};
  }));
  entries_ = c->n;
  for (auto& [p, n] : numbers_) n.swept = n.last;
  for (const auto& [p, n] : c->found) {
    numbers_[p] = {std::max(numbers_[p].last, n.last), n.swept};
    to_sweep_.insert(p);
  }
  co_return result<void>();
}

void change_log::start() {
  on_layout();
  layout_.on_change([this](const layout::state&) { on_layout(); });
  core_.tasks.spawn("changes.keep", keep());
}

bool change_log::is_mine(layout::partition p) const {
  const auto all = layout_.state().all_replicas(p);
  return std::find(all.begin(), all.end(), core_.self) != all.end();
}

// What is not kept here any more is told elsewhere: its new replicas take every row as a change. What is new here begins with a walk.
void change_log::on_layout() {
  if (!layout_.known()) return;
  for (auto& [name, r] : readers_) {
    std::vector<layout::partition> gone;
    for (const auto& [p, place] : r->places)
      if (p >= layout_.state().partition_count() || !is_mine(p)) gone.push_back(p);
    for (auto p : gone) lose(*r, p);
    r->lacks = true;
    r->more.wake_all();
  }
}

// ------------------------------------------------------------------------------------------------- changes

void change_log::add(ticket& t, layout::partition p, const bytes& place, const ballot& written, kv::batch& b) {
  if (readers_.empty()) return;
  const auto table = static_cast<table_id>(place[2]);
  const bool wanted = std::any_of(readers_.begin(), readers_.end(),
                                  [&](const auto& r) { return r.second->tables.contains(table) && r.second->places.contains(p); });
  if (!wanted || core_.skips("feed_entry")) return;
  const std::uint64_t number = ++numbers_[p].last;
  ticket::entry e{p, number, place, false};
  if (noted_.size() >= noted_max) noted_.clear();
  if (auto [at, fresh] = noted_.try_emplace(place, number); !fresh) {
    b.remove(kv::family::feed, entry_key(p, at->second));
    at->second = number;
    e.replaced = true;
    --entries_;
  }
  bytes v = written.encode();
  v.append(place, 2);
  b.put(kv::family::feed, entry_key(p, number), std::move(v));
  ++entries_;
  t.entries.push_back(std::move(e));
}

void change_log::ended(ticket& t, bool committed) {
  for (const auto& e : t.entries) {
    if (!committed) {
      if (auto at = noted_.find(e.place); at != noted_.end() && at->second == e.number) noted_.erase(at);
      if (!e.replaced) --entries_;
      continue;
    }
    const auto table = static_cast<table_id>(e.place[2]);
    for (auto& [name, r] : readers_)
      if (r->tables.contains(table) && r->places.contains(e.p) && r->news.insert(e.p).second) r->more.wake_all();
    // Only for a reader that lost its place meanwhile.
    if (needed_after(e.p) < e.number) continue;
    numbers_[e.p].swept = std::min(numbers_[e.p].swept, e.number - 1);
    to_sweep_.insert(e.p);
    dirty_ = true;
  }
  if (dirty_ || (!t.entries.empty() && entries_ > core_.options.feed_entries_max)) hurry_.wake_all();
}

// ------------------------------------------------------------------------------------------------- readers

task<result<std::unique_ptr<feed>>> change_log::follow(std::string name, std::set<table_id> tables) {
  if (!is_name(name) || tables.empty()) co_return fail(errc::invalid_argument, "a reader of changes has a name of 1 to 64 letters, and tables");
  for (auto t : tables)
    if (auto at = core_.tables.find(t); at == core_.tables.end() || !at->second.rules.feed || at->second.rules.join)
      co_return fail(errc::invalid_argument, "a table without a feed of changes");
  auto known = readers_.find(name);
  if (known != readers_.end() && known->second->at_work) co_return fail(errc::conflict, "somebody follows the changes as '" + name + "' already");
  if (known == readers_.end() && readers_.size() >= readers_max) co_return fail(errc::overloaded, "too many readers of changes");
  reader_ptr r = known != readers_.end() ? known->second : std::make_shared<reader>(core_.rt);
  const bool renewed = r->tables != tables;
  if (renewed)
    while (!r->places.empty()) lose(*r, r->places.begin()->first);
  r->name = name;
  r->tables = std::move(tables);
  r->at_work = true;
  r->lacks = true;
  readers_[name] = r;
  r->news.clear();
  for (auto& [p, place] : r->places) {
    place.given = place.done;
    if (place.done.walk || place.done.number < last(p)) r->news.insert(p);
  }
  std::unique_ptr<feed> session(new feed(*this, r));
  if (renewed) {
    kv::batch b;
    bytes v;
    for (auto t : r->tables) v.push_back(static_cast<char>(t));
    b.put(kv::family::meta, reader_prefix + name, std::move(v));
    if (auto done = co_await core_.store.commit(std::move(b)); !done) {
      r->tables.clear();
      co_return fail(done.error());
    }
  }
  co_return session;
}

task<result<void>> change_log::forget(std::string name) {
  auto at = readers_.find(name);
  if (at == readers_.end()) co_return fail(errc::not_found, "there is no such reader of changes");
  reader_ptr r = at->second;
  kv::batch b;
  b.remove(kv::family::meta, reader_prefix + name);
  for (const auto& [p, place] : r->places) r->dirty.insert(p);
  for (auto p : r->dirty) {
    b.remove(kv::family::meta, place_key(name, p));
    to_sweep_.insert(p);
  }
  r->places.clear();
  r->dirty.clear();
  r->forgotten = true;
  readers_.erase(at);
  r->more.wake_all();
  dirty_ = true;
  hurry_.wake_all();
  co_return co_await core_.store.commit(std::move(b));
}

// A place in each partition that is kept here and has none. The commit is what the walk waits for, too.
task<result<void>> change_log::begin(reader_ptr r) {
  kv::batch b;
  std::vector<std::pair<layout::partition, std::uint64_t>> begun;
  for (std::size_t i = 0; i < layout_.state().partition_count(); ++i) {
    const auto p = static_cast<layout::partition>(i);
    if (r->places.contains(p) || !is_mine(p)) continue;
    const position start{.walk = true, .from = {}, .number = last(p)};
    r->places[p] = {++epochs_, start, start};
    r->dirty.erase(p);
    begun.emplace_back(p, epochs_);
    b.put(kv::family::meta, place_key(r->name, p), start.encode());
  }
  r->lacks = false;
  if (begun.empty()) co_return result<void>();
  if (core_.skips("feed_barrier")) {
    for (const auto& [p, epoch] : begun) r->news.insert(p);
    co_return result<void>();
  }
  auto done = co_await core_.store.commit(std::move(b));
  for (const auto& [p, epoch] : begun) {
    auto at = r->places.find(p);
    if (at == r->places.end() || at->second.epoch != epoch) continue;
    if (done) r->news.insert(p);
    else lose(*r, p);
  }
  if (!done) r->lacks = true;
  co_return done;
}

task<result<std::optional<feed_page>>> change_log::next(reader_ptr r, mono_time deadline, std::size_t names_max) {
  for (;;) {
    if (core_.tasks.cancelled()) co_return fail(errc::unavailable, "this node is stopping");
    if (r->forgotten) co_return fail(errc::not_found, "this reader of changes was taken out");
    if (r->lacks) CO_TRY_VOID(co_await begin(r));
    if (r->news.empty()) {
      if (core_.rt.now() >= deadline) co_return std::optional<feed_page>();
      (void)co_await r->more.wait(deadline);
      continue;
    }
    // Each partition in its turn.
    auto at = r->news.upper_bound(r->turn);
    if (at == r->news.end()) at = r->news.begin();
    const auto p = r->turn = *at;
    r->news.erase(at);
    auto page = co_await page_of(r, p, names_max);
    if (!page) {
      if (r->places.contains(p)) r->news.insert(p);
      co_return fail(page.error());
    }
    if (*page) co_return page;
  }
}

task<result<std::optional<feed_page>>> change_log::page_of(reader_ptr r, layout::partition p, std::size_t names_max) {
  std::optional<feed_page> nothing;
  auto at = r->places.find(p);
  if (at == r->places.end()) co_return nothing;
  const position from = at->second.given;
  feed_page page;
  page.partition = p;
  page.walk = from.walk;
  page.start_over = from.walk && from.from.empty();
  page.mark = {.partition = p, .epoch = at->second.epoch, .number = from.number, .walk = false, .from = {}};
  bool more = false;
  if (from.walk) CO_TRY_VOID(co_await walk_rows(*r, from, page, names_max, &more));
  else CO_TRY_VOID(co_await read_changes(*r, from, page, names_max, &more));
  at = r->places.find(p);
  if (at == r->places.end() || at->second.epoch != page.mark.epoch) co_return nothing;  // lost meanwhile
  if (more) r->news.insert(p);
  const bool caught_up = at->second.done.walk == from.walk && at->second.done.from == from.from && at->second.done.number == from.number;
  at->second.given = {.walk = page.mark.walk, .from = page.mark.from, .number = page.mark.number};
  if (!page.names.empty() || page.start_over) co_return page;
  if (caught_up) acknowledge(*r, page.mark);
  co_return nothing;
}

task<result<void>> change_log::read_changes(const reader& r, const position& from, feed_page& page, std::size_t names_max, bool* more) {
  const bytes prefix = partition_prefix(page.partition);
  CO_TRY(auto found, co_await core_.store.scan(kv::family::feed, {.from = entry_key(page.partition, from.number + 1), .until = after_prefix(prefix),
                                                                  .entries_max = names_max}));
  for (const auto& e : found) {
    if (e.key.size() != 10 || e.value.size() < 22) co_return fail(errc::corrupt, "a change that cannot be read");
    page.mark.number = read_u64(bytes_view(e.key).substr(2));
    CO_TRY(auto written, ballot::decode(bytes_view(e.value).substr(0, 20)));
    CO_TRY(auto where, locate(prefix + e.value.substr(20)));
    if (r.tables.contains(where.key.table)) page.names.push_back({std::move(where.key), written});
  }
  *more = !found.empty();  // what there is after them shows in the next look
  co_return result<void>();
}

task<result<void>> change_log::walk_rows(const reader& r, const position& from, feed_page& page, std::size_t names_max, bool* more) {
  struct scan {
    std::set<table_id> tables;
    std::vector<std::pair<bytes, ballot>> rows;
    std::size_t rows_max = 0, seen = 0;
    bytes next;
    bool corrupt = false;
    kv::store::step visit(bytes_view key, bytes_view value) {
      if (rows.size() >= rows_max || ++seen > looked_at_max) {
        next = bytes(key);
        return {kv::store::step::kind::stop, {}};
      }
      if (key.size() < 4) return {};
      if (const auto t = static_cast<table_id>(key[2]); !tables.contains(t)) {
        auto wanted = tables.upper_bound(t);
        if (wanted == tables.end()) return {kv::store::step::kind::stop, {}};
        return {kv::store::step::kind::seek, bytes(key.substr(0, 2)) + static_cast<char>(*wanted)};
      }
      auto c = cell_view::decode(value);
      // What cannot be read is passed over here as it is in a list: whoever reads the row learns of it.
      if (c && c->accepted) rows.emplace_back(bytes(key), c->accepted);
      return {};
    }
  };
  auto s = std::make_shared<scan>();
  s->tables = r.tables;
  s->rows_max = names_max;
  const bytes prefix = partition_prefix(page.partition);
  CO_TRY_VOID(co_await core_.store.walk(kv::family::row, std::max(from.from, prefix), after_prefix(prefix),
                                        [s](bytes_view k, bytes_view v) { return s->visit(k, v); }));
  for (auto& [key, written] : s->rows) {
    CO_TRY(auto where, locate(key));
    page.names.push_back({std::move(where.key), written});
  }
  page.mark.walk = !s->next.empty();
  page.mark.from = std::move(s->next);
  *more = true;
  co_return result<void>();
}

void change_log::acknowledge(reader& r, const feed_mark& m) {
  auto at = r.places.find(m.partition);
  if (at == r.places.end() || at->second.epoch != m.epoch) return;
  position& done = at->second.done;
  const bool onward = done.walk ? !m.walk || m.from > done.from : !m.walk && m.number > done.number;
  if (!onward) return;
  done = {.walk = m.walk, .from = m.from, .number = m.number};
  mark_dirty(r, m.partition);
}

// ------------------------------------------------------------------------------------------------- keeping

void change_log::mark_dirty(reader& r, layout::partition p) {
  r.dirty.insert(p);
  to_sweep_.insert(p);
  dirty_ = true;
  hurry_.wake_all();
}

void change_log::lose(reader& r, layout::partition p) {
  r.places.erase(p);
  r.news.erase(p);
  r.lacks = true;
  mark_dirty(r, p);
}

// Up to this number no reader needs an entry any more.
std::uint64_t change_log::needed_after(layout::partition p) const {
  std::uint64_t least = last(p);
  for (const auto& [name, r] : readers_)
    if (auto at = r->places.find(p); at != r->places.end()) least = std::min(least, at->second.done.number);
  return least;
}

std::uint64_t change_log::waiting(const reader& r) const {
  std::uint64_t n = 0;
  for (const auto& [p, place] : r.places) n += last(p) - std::min(place.done.number, last(p));
  return n;
}

std::vector<feed_status> change_log::status() const {
  std::vector<feed_status> all;
  for (const auto& [name, r] : readers_) {
    feed_status s{.reader = name, .waiting = std::min(waiting(*r), entries_), .walking = 0, .times_dropped = r->times_dropped, .at_work = r->at_work};
    for (const auto& [p, place] : r->places) s.walking += place.done.walk;
    all.push_back(std::move(s));
  }
  return all;
}

void change_log::drop_one() {
  reader* furthest = nullptr;
  std::uint64_t most = 0;
  for (auto& [name, r] : readers_)
    if (const std::uint64_t n = waiting(*r); n > most) furthest = r.get(), most = n;
  if (!furthest) return;
  core_.rt.log(log_level::warning, "changes: " + std::to_string(most) + " wait for '" + furthest->name + "', which is too many: it starts over when it comes back");
  ++furthest->times_dropped;
  while (!furthest->places.empty()) lose(*furthest, furthest->places.begin()->first);
  furthest->more.wake_all();
}

task<void> change_log::keep() {
  for (;;) {
    if (to_sweep_.empty() && entries_ > core_.options.feed_entries_max) drop_one();
    if (!dirty_ && to_sweep_.empty()) {
      co_await hurry_.wait();
      continue;
    }
    // What is left of the last round goes at once.
    co_await sleep_for(core_.rt, dirty_ ? nanoseconds(1s) : nanoseconds(20ms));
    dirty_ = false;
    if (auto r = co_await write_places(); !r) {
      core_.status.other.failed(core_.rt.now(), "places of readers", {}, "keeping the places of readers: " + r.error().to_string());
      dirty_ = true;
      co_await sleep_for(core_.rt, 5s);
    } else {
      core_.status.other.mended("places of readers");
    }
  }
}

task<result<void>> change_log::write_places() {
  kv::batch b;
  sweeping round;
  for (auto p : std::exchange(to_sweep_, {})) round.partitions[p] = numbers_[p].swept;
  result<void> done;
  for (const auto& [p, from] : round.partitions)
    if (done) done = co_await sweep(p, b, round);
  // As they are now, and with what was removed because of them.
  std::vector<std::pair<reader_ptr, std::set<layout::partition>>> written;
  for (auto& [name, r] : readers_) {
    if (!done || r->dirty.empty()) continue;
    for (auto p : r->dirty) {
      auto at = r->places.find(p);
      if (at == r->places.end()) b.remove(kv::family::meta, place_key(name, p));
      else b.put(kv::family::meta, place_key(name, p), at->second.done.encode());
    }
    written.emplace_back(r, std::exchange(r->dirty, {}));
  }
  if (done && !b.empty()) done = co_await core_.store.commit(std::move(b));
  if (done) {
    entries_ -= std::min(entries_, round.removed);
    co_return done;
  }
  for (auto& [r, all] : written)
    if (!r->forgotten) r->dirty.insert(all.begin(), all.end());
  for (const auto& [p, from] : round.partitions) {
    numbers_[p].swept = std::min(numbers_[p].swept, from);
    to_sweep_.insert(p);
  }
  co_return done;
}

// Entries that no reader needs go into the batch, as many as there is room for in this round.
task<result<void>> change_log::sweep(layout::partition p, kv::batch& b, sweeping& round) {
  const std::uint64_t until = needed_after(p), from = numbers_[p].swept;
  if (until <= from) co_return result<void>();
  const std::size_t room = swept_at_once - std::min(swept_at_once, round.looked_at);
  if (room == 0) {
    to_sweep_.insert(p);
    co_return result<void>();
  }
  kv::scan_options o{.from = entry_key(p, from + 1), .until = entry_key(p, until + 1), .entries_max = room, .bytes_max = 32 << 20};
  CO_TRY(auto found, co_await core_.store.scan(kv::family::feed, std::move(o)));
  round.looked_at += found.size();
  numbers& n = numbers_[p];
  if (found.size() < room) {
    n.swept = until;
  } else {
    n.swept = read_u64(bytes_view(found.back().key).substr(2));
    to_sweep_.insert(p);
  }
  for (auto& e : found) {
    const std::uint64_t number = read_u64(bytes_view(e.key).substr(2));
    auto at = e.value.size() > 20 ? noted_.find(partition_prefix(p) + e.value.substr(20)) : noted_.end();
    // One with a newer number was replaced just now, and is not counted any more.
    if (at == noted_.end() || at->second == number) ++round.removed;
    if (at != noted_.end() && at->second == number) noted_.erase(at);
    b.remove(kv::family::feed, std::move(e.key));
  }
  co_return result<void>();
}

}  // namespace grenier::table
