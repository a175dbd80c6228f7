// The real form of what the store stands on.
#include "store/backend.h"

#include <algorithm>

#include "store/store.h"

namespace grenier::store {

namespace {

block::reference as_reference(const held_block& h) { return {h.hash, h.version, block::encode_owner(h.owner)}; }

std::vector<block::reference> as_references(const std::vector<held_block>& held) {
  std::vector<block::reference> r;
  r.reserve(held.size());
  for (const held_block& h : held) r.push_back(as_reference(h));
  return r;
}

class real_backend final : public backend {
 public:
  real_backend(table::replicated& rows, block::manager& blocks, cluster::directory& nodes)
      : rows_(rows), blocks_(blocks), nodes_(nodes) {}

  void define(table::table_id t, table::table_rules r) override { rows_.define(t, std::move(r)); }
  void on_apply(table::table_id t, table::apply_hook h) override { rows_.on_apply(t, std::move(h)); }
  task<result<table::row>> read(table::row_key k, table::op_options o) override { return rows_.read(std::move(k), std::move(o)); }
  task<result<std::vector<result<ballot>>>> write(std::vector<table::write_item> w, table::op_options o) override {
    return rows_.write(std::move(w), std::move(o));
  }
  task<result<table::row>> compare_and_swap(table::row_key k, table::judge j, table::op_options o) override {
    return rows_.compare_and_swap(std::move(k), std::move(j), std::move(o));
  }
  task<result<table::list_page>> list(table::list_request q, table::op_options o) override {
    return rows_.list(std::move(q), std::move(o));
  }
  task<result<table::any_row>> read_any(table::row_key k, table::op_options o) override { return rows_.read_any(std::move(k), std::move(o)); }
  task<result<table::any_page>> list_any(table::list_request q, table::op_options o) override {
    return rows_.list_any(std::move(q), std::move(o));
  }
  bool quorum_is_dark(layout::partition p) const override { return rows_.quorum_is_dark(p); }
  task<result<table::row>> find_copy(table::table_id t, bytes key, mono_time deadline) override {
    return rows_.find_copy(t, std::move(key), deadline);
  }
  std::vector<std::pair<bytes, table::row>> all_copies(table::table_id t) const override { return rows_.all_copies(t); }
  task<result<void>> publish(table::table_id t, bytes key, layout::partition fenced, mono_time deadline) override {
    return rows_.publish(t, std::move(key), fenced, deadline);
  }
  task<result<std::vector<std::pair<node_id, bytes>>>> query(layout::partition p, std::uint16_t question, bytes argument,
                                                             table::op_options o) override {
    return rows_.query(p, question, std::move(argument), std::move(o));
  }
  void answer_query(std::uint16_t question, std::move_only_function<task<result<bytes>>(layout::partition, bytes)> fn) override {
    rows_.answer_query(question, std::move(fn));
  }
  layout::partition partition_of(bytes_view key) const override { return rows_.partition_of(key); }
  std::optional<std::size_t> rank(layout::partition p) const override {
    auto replicas = rows_.layout().all_replicas(p);
    auto at = std::ranges::find(replicas, nodes_.self());
    if (at == replicas.end()) return std::nullopt;
    return static_cast<std::size_t>(at - replicas.begin());
  }

  task<result<void>> put(held_block h, shared_bytes content, mono_time deadline) override {
    return blocks_.put(as_reference(h), std::move(content), deadline);
  }
  task<result<void>> add_references(std::vector<held_block> held, mono_time deadline) override {
    return blocks_.add_references(as_references(held), deadline);
  }
  task<result<shared_bytes>> get(block_hash h, wire::priority p, mono_time deadline) override { return blocks_.get(h, p, deadline); }
  bool is_here(const block_hash& h) const override { return blocks_.is_here(h); }
  task<result<void>> withdraw(std::vector<held_block> held, mono_time deadline) override {
    return blocks_.withdraw(as_references(held), deadline);
  }
  bool has_space(std::uint64_t n) const override { return blocks_.has_space(n); }
  std::size_t read_ahead(std::size_t block_size) const override {
    double in_flight = 0;  // bytes, on the best filled line
    for (const node_id& n : nodes_.up_members())
      if (n != nodes_.self())
        in_flight = std::max(in_flight, nodes_.rate_to(n) * std::chrono::duration<double>(nodes_.rtt(n)).count());
    return std::clamp<std::size_t>(2 + static_cast<std::size_t>(in_flight / static_cast<double>(block_size)), 2, 8);
  }

 private:
  table::replicated& rows_;
  block::manager& blocks_;
  cluster::directory& nodes_;
};

}  // namespace

std::unique_ptr<backend> make_backend(table::replicated& rows, block::manager& blocks, cluster::directory& nodes) {
  return std::make_unique<real_backend>(rows, blocks, nodes);
}

service::service(runtime& rt, kv::store& kv, table::replicated& rows, block::manager& blocks, cluster::directory& nodes, hybrid_clock& clock,
                 options o)
    : service(rt, kv, make_backend(rows, blocks, nodes), clock, o) {}

}  // namespace grenier::store
