// store/fake_backend.h: rows and blocks in memory and in virtual time, for the store's unit tests. A round trip takes `rtt`; replicas are
// one; what may go wrong is told beforehand.
#pragma once

#include <deque>
#include <random>
#include <set>

#include "store/backend.h"

namespace grenier::store {

inline auto fake_key(const held_block& h) { return std::tuple(h.hash, h.version, h.owner); }

class fake_backend final : public backend {
 public:
  fake_backend(runtime& rt, hybrid_clock& clock) : rt_(rt), clock_(clock) {}

  nanoseconds rtt = 50ms;
  struct fault {
    std::string operation;   // "write", "swap", "read", "list", "put", "refer", "withdraw"
    errc code{};
    bool applied = false;    // it happens all the same
    std::string detail = {};
  };
  std::deque<fault> faults;  // each hits the next operation of its name
  bool copies_frozen = false;
  bool dark = false;         // the quorum is, and known to be
  std::set<table::row_key> unheard_of;  // by this home
  std::size_t page_max = 1000;
  bool space = true;
  std::optional<std::size_t> replica_rank = 0;
  std::function<std::vector<std::pair<node_id, bytes>>(bytes)> more_answers;
  std::optional<table::row> early_row;  // what the nearest replica shows early, if not the row

  std::map<table::row_key, table::row> rows;
  std::map<block_hash, shared_bytes> blocks;
  std::set<block_hash> here;            // of these, those on this node
  std::set<std::tuple<block_hash, version_id, table::row_key>> references;
  std::map<std::string, int> calls;
  std::size_t puts_now = 0, puts_most = 0;
  std::set<block_hash> doubtful;        // nobody vouches for these
  std::function<void(const table::row_key&)> before_write;

  // Live references of a block.
  std::size_t referrers(const block_hash& h) const {
    std::size_t n = 0;
    for (const auto& r : references) n += std::get<0>(r) == h;
    return n;
  }
  bool all_kept(const model::object_row& o) const {
    for (const auto& b : o.blocks)
      if (referrers(b.hash) == 0) return false;
    return true;
  }

  void define(table::table_id t, table::table_rules r) override { rules_[t] = std::move(r); }
  void on_apply(table::table_id t, table::apply_hook h) override { hooks_[t] = std::move(h); }

  task<result<table::row>> read(table::row_key k, table::op_options o) override {
    ++calls["read"];
    if (dark) co_return fail(errc::unavailable, "too few homes are up");
    ASSERT(o.deadline != never);
    if (o.early) o.early(early_row ? *early_row : show(k, o.with_body));
    co_await sleep_for(rt_, rtt);
    if (auto f = next_fault("read")) co_return fail(f->code, f->detail);
    CO_TRY_VOID(check_fence(o));
    co_return show(k, o.with_body);
  }
  task<result<std::vector<result<ballot>>>> write(std::vector<table::write_item> items, table::op_options o) override {
    ++calls["write"];
    if (dark) co_return fail(errc::unavailable, "too few homes are up");
    ASSERT(o.deadline != never);
    co_await sleep_for(rt_, rtt / 2);
    std::vector<result<ballot>> answers;
    if (auto fenced = check_fence(o); !fenced) {
      co_await sleep_for(rt_, rtt / 2);
      co_return fail(fenced.error());
    }
    for (auto& i : items) {
      if (before_write) before_write(i.key);
      auto f = next_fault("write");
      if (!f || f->applied) apply(i.key, std::move(i.value));
      if (f)
        answers.push_back(fail(f->code));
      else
        answers.push_back(rows[i.key].written);
    }
    co_await sleep_for(rt_, rtt / 2);
    co_return answers;
  }
  task<result<table::row>> compare_and_swap(table::row_key k, table::judge judge, table::op_options o) override {
    ++calls["swap"];
    if (dark) co_return fail(errc::unavailable, "too few homes are up");
    ASSERT(o.deadline != never);
    co_await sleep_for(rt_, rtt);
    CO_TRY_VOID(check_fence(o));
    if (before_write) before_write(k);
    auto next = judge(show(k, o.with_body));
    if (!next) co_return fail(next.error());
    auto f = next_fault("swap");
    if (!f || f->applied) apply(k, std::move(*next));
    co_await sleep_for(rt_, rtt);
    if (f) co_return fail(f->code);
    co_return show(k, true);
  }
  task<result<table::list_page>> list(table::list_request q, table::op_options o) override {
    ++calls["list"];
    if (dark) co_return fail(errc::unavailable, "too few homes are up");
    co_await sleep_for(rt_, rtt);
    if (auto f = next_fault("list")) co_return fail(f->code);
    CO_TRY_VOID(check_fence(o));
    table::list_page page;
    bytes from = std::max(q.start, q.prefix);
    for (auto at = rows.lower_bound({q.table, q.partition_key, from});
         at != rows.end() && at->first.table == q.table && at->first.partition_key == q.partition_key; ++at) {
      const bytes& key = at->first.sort_key;
      if (!key.starts_with(q.prefix)) break;
      if (!at->second.value.present) continue;
      const auto& rule = rules_[q.table];
      auto projection = rule.projection ? rule.projection(at->second.value.row) : std::optional(at->second.value.row);
      if (!projection) continue;
      bytes common;
      if (!q.delimiter.empty())
        if (auto d = key.find(q.delimiter, q.prefix.size()); d != key.npos) common = key.substr(0, d + q.delimiter.size());
      if (!common.empty() && !page.entries.empty() && page.entries.back().is_prefix && page.entries.back().key == common) continue;
      if (page.entries.size() >= std::min(q.entries_max, page_max)) {
        page.truncated = true;
        page.next = key;
        break;
      }
      if (common.empty())
        page.entries.push_back({false, key, at->second.written, *projection});
      else
        page.entries.push_back({true, common, {}, {}});
    }
    co_return page;
  }
  task<result<table::any_row>> read_any(table::row_key k, table::op_options o) override {
    ++calls["read_any"];
    ASSERT(o.deadline != never);
    co_return table::any_row{unheard_of.contains(k) ? table::row() : show(k, o.with_body), true};
  }
  task<result<table::any_page>> list_any(table::list_request q, table::op_options o) override {
    ++calls["list_any"];
    const bool was = std::exchange(dark, false);
    o.fence.reset();
    auto page = co_await list(std::move(q), std::move(o));
    dark = was;
    --calls["list"];
    if (!page) co_return fail(page.error());
    co_return table::any_page{std::move(*page), true};
  }
  bool quorum_is_dark(layout::partition) const override { return dark; }
  task<result<table::row>> find_copy(table::table_id t, bytes key, mono_time) override {
    if (auto at = copies_.find({t, key}); at != copies_.end()) co_return at->second;
    co_await sleep_for(rt_, rtt);
    co_return show({t, key, {}}, false);
  }
  std::vector<std::pair<bytes, table::row>> all_copies(table::table_id t) const override {
    std::vector<std::pair<bytes, table::row>> all;
    for (const auto& [k, r] : copies_)
      if (k.first == t) all.emplace_back(k.second, r);
    return all;
  }
  task<result<void>> publish(table::table_id t, bytes key, layout::partition, mono_time) override {
    ++calls["publish"];
    co_await sleep_for(rt_, rtt);
    copies_[{t, key}] = show({t, key, {}}, false);
    co_return result<void>();
  }
  task<result<std::vector<std::pair<node_id, bytes>>>> query(layout::partition p, std::uint16_t question, bytes argument,
                                                             table::op_options) override {
    CO_TRY(bytes answer, co_await questions_.at(question)(p, argument));
    std::vector<std::pair<node_id, bytes>> all{{node_id(), answer}};
    if (more_answers)
      for (auto& a : more_answers(answer)) all.push_back(a);
    co_return all;
  }
  void answer_query(std::uint16_t question, std::move_only_function<task<result<bytes>>(layout::partition, bytes)> fn) override {
    questions_[question] = std::move(fn);
  }
  layout::partition partition_of(bytes_view key) const override { return layout::partition(xxh3_64(key) >> 56); }
  std::optional<std::size_t> rank(layout::partition) const override { return replica_rank; }

  task<result<void>> put(held_block h, shared_bytes content, mono_time) override {
    ++calls["put"];
    puts_most = std::max(puts_most, ++puts_now);
    co_await sleep_for(rt_, rtt);
    --puts_now;
    ASSERT(crypto::hash_block(*content) == h.hash);
    auto f = next_fault("put");
    if (!f || f->applied) {
      blocks[h.hash] = content;
      references.insert(fake_key(h));
    }
    if (f) co_return fail(f->code);
    co_return result<void>();
  }
  task<result<void>> add_references(std::vector<held_block> held, mono_time) override {
    ++calls["refer"];
    co_await sleep_for(rt_, rtt);
    if (auto f = next_fault("refer")) co_return fail(f->code);
    for (const auto& h : held) {
      if (!blocks.contains(h.hash) || doubtful.contains(h.hash)) co_return fail(errc::not_found);
      references.insert(fake_key(h));
    }
    co_return result<void>();
  }
  task<result<shared_bytes>> get(block_hash h, wire::priority, mono_time) override {
    ++calls["get"];
    co_await sleep_for(rt_, here.contains(h) ? nanoseconds(1ms) : rtt);
    auto at = blocks.find(h);
    if (at == blocks.end()) co_return fail(errc::not_found);
    co_return at->second;
  }
  bool is_here(const block_hash& h) const override { return here.contains(h); }
  task<result<void>> withdraw(std::vector<held_block> held, mono_time) override {
    ++calls["withdraw"];
    co_await sleep_for(rt_, rtt);
    if (auto f = next_fault("withdraw")) co_return fail(f->code);
    for (const auto& h : held) references.erase(fake_key(h));
    co_return result<void>();
  }
  bool has_space(std::uint64_t) const override { return space; }
  std::size_t read_ahead(std::size_t) const override { return 3; }

  // Another coordinator's write: no round trip of ours.
  void apply(const table::row_key& k, table::row_value v) {
    table::row& r = rows[k];
    const ballot at{clock_.now(), 1, 1};
    if (auto hook = hooks_.find(k.table); hook != hooks_.end()) {
      kv::batch b;
      hook->second({k, partition_of(k.partition_key), r.written, at, r.value.present, v.present, r.value.row, v.row}, b);
      b.take_undo().forget();
      for (auto& op : std::move(b).take()) pending_.push_back(std::move(op));
    }
    r = {at, std::move(v)};
    if (rules_[k.table].everywhere && !copies_frozen) copies_[{k.table, k.partition_key}] = r;
  }
  // What hooks put in batches, to be committed by the test's loop.
  kv::batch take_pending() {
    kv::batch b;
    for (auto& op : pending_) op.removal ? b.remove(op.where, op.key) : b.put(op.where, op.key, op.value);
    pending_.clear();
    return b;
  }
  bool has_pending() const { return !pending_.empty(); }

 private:
  table::row show(const table::row_key& k, bool with_body) const {
    auto at = rows.find(k);
    if (at == rows.end()) return {};
    table::row r = at->second;
    if (!with_body) r.value.body = nullptr;
    return r;
  }
  result<void> check_fence(const table::op_options& o) {
    if (!o.fence) return {};
    auto at = rows.find({o.fence->table, o.fence->key, {}});
    if (at == rows.end() || !(at->second.written > o.fence->seen)) return {};
    copies_[{o.fence->table, o.fence->key}] = show({o.fence->table, o.fence->key, {}}, false);
    return fail(errc::conflict, "a newer fence is known");
  }
  std::optional<fault> next_fault(const std::string& operation) {
    if (faults.empty() || faults.front().operation != operation) return std::nullopt;
    auto f = faults.front();
    faults.pop_front();
    return f;
  }

  runtime& rt_;
  hybrid_clock& clock_;
  std::map<table::table_id, table::table_rules> rules_;
  std::map<table::table_id, table::apply_hook> hooks_;
  std::map<std::pair<table::table_id, bytes>, table::row> copies_;
  std::map<std::uint16_t, std::move_only_function<task<result<bytes>>(layout::partition, bytes)>> questions_;
  std::vector<kv::batch::op> pending_;
};

}  // namespace grenier::store
