// store/backend.h: what the store stands on: replicated rows and blocks. One real form (over table/ and block/), and an
// in-memory one for unit tests.
#pragma once

#include "block/block.h"
#include "model/model.h"

namespace grenier::store {

// A reference to a block, with its owner's row key in clear.
struct held_block {
  block_hash hash;
  version_id version;
  table::row_key owner;
};

class backend {
 public:
  virtual ~backend() = default;

  // Rows: as table::replicated.
  virtual void define(table::table_id, table::table_rules) = 0;
  virtual void on_apply(table::table_id, table::apply_hook) = 0;
  virtual task<result<table::row>> read(table::row_key, table::op_options) = 0;
  virtual task<result<std::vector<result<ballot>>>> write(std::vector<table::write_item>, table::op_options) = 0;
  virtual task<result<table::row>> compare_and_swap(table::row_key, table::judge, table::op_options) = 0;
  virtual task<result<table::list_page>> list(table::list_request, table::op_options) = 0;
  virtual task<result<table::any_row>> read_any(table::row_key, table::op_options) = 0;
  virtual task<result<table::any_page>> list_any(table::list_request, table::op_options) = 0;
  virtual bool quorum_is_dark(layout::partition) const = 0;
  virtual task<result<table::row>> find_copy(table::table_id, bytes key, mono_time deadline) = 0;
  virtual std::vector<std::pair<bytes, table::row>> all_copies(table::table_id) const = 0;
  virtual task<result<void>> publish(table::table_id, bytes key, layout::partition fenced, mono_time deadline) = 0;
  virtual task<result<std::vector<std::pair<node_id, bytes>>>> query(layout::partition, std::uint16_t question, bytes argument,
                                                                     table::op_options) = 0;
  virtual void answer_query(std::uint16_t question,
                            std::move_only_function<task<result<bytes>>(layout::partition, bytes argument)>) = 0;
  virtual layout::partition partition_of(bytes_view key) const = 0;
  // This node's place among the partition's replicas, 0 first: who works on it first, who steps in. Nothing: no replica.
  virtual std::optional<std::size_t> rank(layout::partition) const = 0;

  // Blocks: as block::manager.
  virtual task<result<void>> put(held_block, shared_bytes content, mono_time deadline) = 0;
  virtual task<result<void>> add_references(std::vector<held_block>, mono_time deadline) = 0;
  virtual task<result<shared_bytes>> get(block_hash, wire::priority, mono_time deadline) = 0;
  virtual bool is_here(const block_hash&) const = 0;
  virtual task<result<void>> withdraw(std::vector<held_block>, mono_time deadline) = 0;
  virtual bool has_space(std::uint64_t bytes) const = 0;
  // How many blocks to have on their way ahead of a reader: what the lines hold in flight. 1..8.
  virtual std::size_t read_ahead(std::size_t block_size) const = 0;
};

std::unique_ptr<backend> make_backend(table::replicated&, block::manager&, cluster::directory&);

}  // namespace grenier::store
