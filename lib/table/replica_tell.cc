// What a replica tells others of its rows: digests, pages, rows for repair.
#include <algorithm>

#include "table/replica.h"

namespace grenier::table {
namespace {

constexpr std::size_t page_bytes = 1 << 20, page_rows = 500, compared_rows = 2000, looked_at_max = 50000;

// A page of a partition's rows, of some leaves only.
struct compare_scan {
  std::set<std::uint16_t> leaves;
  std::set<table_id> merged;
  pb::merkle_answer answer;
  std::size_t seen = 0;

  kv::store::step visit(bytes_view key, bytes_view value) {
    if (++seen > looked_at_max || static_cast<std::size_t>(answer.rows_size()) >= compared_rows) {
      answer.set_next(bytes(key));
      return {kv::store::step::kind::stop, {}};
    }
    if (key.size() < 4 || !leaves.contains(merkle::leaf_of(key))) return {};
    if (merged.contains(static_cast<table_id>(key[2]))) {
      auto d = merkle::digest(key, value);
      auto& r = *answer.add_rows();
      r.set_place(bytes(key));
      r.set_digest(d.high ^ d.low);
      return {};
    }
    auto c = cell_view::decode(value);
    if (!c || !c->accepted) return {};
    auto d = merkle::digest(key, c->accepted, c->attempt.view(), unpack(c->accepted_value).value_or(unpacked{}).present);
    auto& r = *answer.add_rows();
    r.set_place(bytes(key));
    r.set_written(c->accepted.encode());
    r.set_digest(d.high ^ d.low);
    return {};
  }
};

struct page_scan {
  std::vector<kv::entry> rows;
  bytes next;
  std::size_t size = 0;
  kv::store::step visit(bytes_view key, bytes_view value) {
    if (rows.size() >= page_rows || size > page_bytes) {
      next = bytes(key);
      return {kv::store::step::kind::stop, {}};
    }
    size += key.size() + value.size();
    rows.push_back({bytes(key), bytes(value)});
    return {};
  }
};

}  // namespace

task<result<std::uint64_t>> replica::root(layout::partition p) {
  if (auto known = merkle_.known_root(p)) co_return *known;
  CO_TRY_VOID(co_await merkle_.load(p));
  co_return merkle_.root(p);
}

task<result<std::vector<std::uint64_t>>> replica::inner(layout::partition p) {
  CO_TRY_VOID(co_await merkle_.load(p));
  co_return merkle_.inner(p);
}

task<result<std::vector<std::uint64_t>>> replica::leaves(layout::partition p, std::size_t i) {
  if (i >= merkle_inner) co_return fail(errc::protocol, "there is no such digest");
  CO_TRY_VOID(co_await merkle_.load(p));
  co_return merkle_.leaves(p, i);
}

task<result<bool>> replica::empty(layout::partition p) {
  CO_TRY(auto some, co_await core_.store.scan(kv::family::row, {.from = partition_prefix(p), .until = after_prefix(partition_prefix(p)), .entries_max = 1}));
  co_return some.empty();
}

task<result<pb::merkle_answer>> replica::rows_of(layout::partition p, std::set<std::uint16_t> leaves, bytes from, bytes until) {
  auto s = std::make_shared<compare_scan>();
  s->leaves = std::move(leaves);
  for (const auto& [t, d] : core_.tables)
    if (d.rules.join) s->merged.insert(t);
  const bytes first = partition_prefix(p), last = after_prefix(first);
  from = std::max(from, first);
  if (until.empty() || (!last.empty() && until > last)) until = last;
  if (!until.empty() && from >= until) co_return std::move(s->answer);
  CO_TRY_VOID(co_await core_.store.walk(kv::family::row, from, until, [s](bytes_view k, bytes_view v) { return s->visit(k, v); }));
  co_return std::move(s->answer);
}

// Digests that a commit which failed left wrong on disk: summed up again from the rows, while the partition's writers wait.
task<result<void>> replica::count_anew(layout::partition p) {
  CO_TRY_VOID(co_await merkle_.load(p));
  merkle::hold held(merkle_, p);
  if (closed_.contains(p)) co_return result<void>();
  struct opening {
    replica& r;
    layout::partition p;
    ~opening() {
      r.closed_.erase(p);
      r.opened_.wake_all();
    }
  };
  closed_.insert(p);
  opening later{*this, p};
  for (mono_time until = core_.rt.now() + 10s; busy_.contains(p);) {
    if (core_.rt.now() >= until) co_return fail(errc::timed_out, "a partition's writers do not end");
    co_await finished_.wait(until);
  }
  core_.rt.log(log_level::warning, "partition " + std::to_string(p) + ": digests are summed up anew");
  struct sum {
    std::vector<u128> leaves = std::vector<u128>(merkle_leaves);
    std::set<table_id> merged;
    kv::store::step visit(bytes_view key, bytes_view value) {
      if (key.size() < 4) return {};
      u128& leaf = leaves[merkle::leaf_of(key)];
      if (merged.contains(static_cast<table_id>(key[2]))) leaf ^= merkle::digest(key, value);
      else if (auto c = cell_view::decode(value))
        leaf ^= merkle::digest(key, c->accepted, c->attempt.view(), unpack(c->accepted_value).value_or(unpacked{}).present);
      return {};
    }
  };
  auto s = std::make_shared<sum>();
  for (const auto& [t, d] : core_.tables)
    if (d.rules.join) s->merged.insert(t);
  CO_TRY_VOID(co_await core_.store.walk(kv::family::row, partition_prefix(p), after_prefix(partition_prefix(p)),
                                        [s](bytes_view k, bytes_view v) { return s->visit(k, v); }));
  kv::batch b;
  merkle_.replace(p, std::move(s->leaves), b);
  co_return co_await core_.store.commit(std::move(b));
}

task<bool> replica::has_hints_for(node_id n) {
  if (core_.hints_stuck.contains(n)) co_return false;
  auto one = co_await core_.store.scan(kv::family::hint, {.from = n.str(), .until = after_prefix(n.str()), .entries_max = 1});
  co_return one && !one->empty();
}

task<result<pb::merkle_answer>> replica::compare(wire::caller from, pb::merkle_request q) {
  CO_TRY(auto refused, co_await layout_.admit(from, q.judged()));
  pb::merkle_answer a;
  if (refused) {
    *a.mutable_refused() = std::move(*refused);
    co_return a;
  }
  if (q.level() == pb::merkle_request::hints) {
    constexpr std::size_t nodes_max = 8;
    if (q.from().size() % node_id::size_bytes || q.from().size() > nodes_max * node_id::size_bytes) co_return fail(errc::protocol, "no list of nodes");
    a.set_same(true);
    for (std::size_t i = 0; i < q.from().size() && a.same(); i += node_id::size_bytes)
      a.set_same(!co_await has_hints_for(*node_id::from_bytes(bytes_view(q.from()).substr(i, node_id::size_bytes))));
    co_return a;
  }
  if (layout_.state().find(from.node)) compared_by_[from.node] = core_.rt.now();
  co_await older_finished();
  const std::size_t count = layout_.state().partition_count();
  if (q.partitions_size() == 0 || (q.level() != pb::merkle_request::roots && q.partitions_size() != 1)) co_return fail(errc::protocol, "no partition named");
  for (auto p : q.partitions())
    if (p >= count) co_return fail(errc::protocol, "there is no such partition");
  const auto p = static_cast<layout::partition>(q.partitions(0));
  if (q.level() == pb::merkle_request::roots) {
    bytes together;
    for (auto each : q.partitions()) {
      CO_TRY(std::uint64_t r, co_await root(static_cast<layout::partition>(each)));
      append_u64(together, r);
      a.add_hashes(r);
      if (!(layout_.counts(static_cast<layout::partition>(each)) & 1)) a.add_unsynced(each);
    }
    if (xxh3_64(together) == q.digest()) {
      a.set_same(true);
      a.clear_hashes();
    }
  } else if (q.level() == pb::merkle_request::inner) {
    CO_TRY(auto all, co_await inner(p));
    for (auto h : all) a.add_hashes(h);
  } else if (q.level() == pb::merkle_request::leaves) {
    if (q.indexes_size() > static_cast<int>(merkle_inner)) co_return fail(errc::protocol, "too many digests asked for");
    for (auto i : q.indexes()) {
      CO_TRY(auto all, co_await leaves(p, i));
      for (auto h : all) a.add_hashes(h);
    }
  } else {
    std::set<std::uint16_t> wanted;
    for (auto i : q.indexes())
      if (i < merkle_leaves) wanted.insert(static_cast<std::uint16_t>(i));
    CO_TRY(a, co_await rows_of(p, std::move(wanted), q.from(), {}));
  }
  if (auto stale = layout_.stale(q.judged())) {
    a.Clear();
    *a.mutable_refused() = std::move(*stale);
  }
  co_return a;
}

task<result<pb::pull_answer>> replica::pull(wire::caller from, pb::pull_request q) {
  CO_TRY(auto refused, co_await layout_.admit(from, q.judged()));
  pb::pull_answer a;
  if (refused) {
    *a.mutable_refused() = std::move(*refused);
    co_return a;
  }
  co_await older_finished();
  const auto p = static_cast<layout::partition>(q.judged().partition());
  a.set_unsynced(!(layout_.counts(p) & 1));
  const bytes prefix = partition_prefix(p);
  auto page = std::make_shared<page_scan>();
  if (q.places_size() == 0) {
    bytes first = std::max(q.from(), prefix), last = after_prefix(prefix);
    if (last.empty() || first < last)
      CO_TRY_VOID(co_await core_.store.walk(kv::family::row, first, last, [page](bytes_view k, bytes_view v) { return page->visit(k, v); }));
  } else {
    if (q.places_size() > 1000) co_return fail(errc::protocol, "too many rows asked for");
    for (const auto& k : q.places()) {
      if (!k.starts_with(prefix)) co_return fail(errc::protocol, "a row of another partition");
      if (page->size > page_bytes) break;  // asked for again
      CO_TRY(auto v, co_await core_.store.get(kv::family::row, k));
      page->size += k.size() + (v ? v->size() : 0);
      page->rows.push_back({k, v ? std::move(*v) : bytes()});
    }
  }
  std::size_t size = 0;
  for (auto& e : page->rows) {
    if (size > page_bytes) {
      // Bodies made the answer large: what is left comes in the next one.
      if (q.places_size() == 0) page->next = e.key;
      break;
    }
    auto& r = *a.add_rows();
    r.set_place(e.key);
    if (e.value.size() && !core_.merges(static_cast<table_id>(e.key[2]))) {
      CO_TRY(auto h, co_await hold(e.key, std::move(e.value), true));
      e.value = std::move(h.raw);
      if (h.body) {
        r.mutable_with()->set_content(*h.body);
        size += h.body->size();
      }
    }
    size += e.key.size() + e.value.size();
    r.set_cell(std::move(e.value));
  }
  a.set_next(page->next);
  if (auto stale = layout_.stale(q.judged())) {
    a.Clear();
    *a.mutable_refused() = std::move(*stale);
  }
  co_return a;
}

}  // namespace grenier::table
