// store/impl.h: what the operations of the store share.
#pragma once

#include <algorithm>

#include "store/backend.h"
#include "store/conditions.h"
#include "store/store.h"
#include "store/visited.h"

namespace grenier::store {

using table::table_id;
inline constexpr int fence_retries = 5;
inline constexpr std::size_t part_blocks_max = 20000;  // what fits in a part's row
inline constexpr std::uint16_t count_question = 0x0501;
inline constexpr nanoseconds block_patience = 60s;  // with one block on its way to a reader

// A PUT or part upload whose blocks may have references before its row exists. It is known as under way until this goes; what
// it leaves behind then is looked after by the background (references.cc).
struct attempts;
class attempt {
 public:
  attempt(std::shared_ptr<attempts>, version_id);
  ~attempt();
  attempt(const attempt&) = delete;
  version_id version;
  bool row_sent = false;  // its row may exist
  bool settled = false;   // its row does exist
  bool has_blocks = false;
 private:
  std::shared_ptr<attempts> all_;
};
// What ended since the last look.
struct attempts {
  struct ended {
    version_id version;
    bool row_sent = false, settled = false;
    mono_time due{};
  };
  std::vector<ended> over;
  std::uint64_t under_way = 0;
};

// What is said of a body before it comes, and what is to be made of it.
struct expected_body {
  std::optional<bytes> md5, sha256;
  std::vector<checksum> checksums;
  std::optional<crypto::hash_kind> compute, also;  // checksums to compute and keep
  bool may_be_inline = true;
  std::uint64_t size_max = object_size_max;
  // Of a part: its upload's row, asked for while the body arrives.
  std::optional<one_shot<result<table::row>>> upload;
};
struct received_body {
  std::shared_ptr<store::attempt> attempt;
  hlc_time at;
  version_id version;
  std::uint64_t size = 0;
  std::string etag;
  std::vector<checksum> checksums;
  std::optional<content_id> content;
  shared_bytes inline_body;  // null: blocks
  std::vector<model::block_entry> blocks;
  std::optional<model::upload_row> upload;
};

// Blocks listed in the row or in manifests.
struct block_lists {
  std::vector<model::block_entry> blocks, manifests;
  std::uint64_t manifest_blocks = 0;
};

struct receiving;
struct work;

// What comes after every key that begins so. (With 0xff behind it, keys that go on with 0xff would be left out.)
inline bytes end_of(bytes prefix) {
  ++prefix.back();
  return prefix;
}

struct service::impl {
  impl(runtime&, kv::store&, std::unique_ptr<backend>, hybrid_clock&, options);

  runtime& rt;
  kv::store& kv;
  std::unique_ptr<backend> below;
  hybrid_clock& clock;
  options opts;
  std::shared_ptr<store::attempts> puts = std::make_shared<store::attempts>();
  task_group tasks;
  std::shared_ptr<semaphore> memory_in, memory_out, memory_visitors;
  store::visited visited;

  // A step left out on purpose.
  bool skips(std::string_view step) const { return std::find(opts.mutations.begin(), opts.mutations.end(), step) != opts.mutations.end(); }

  // ----------------------------------------------------------------------------- rows (service.cc)
  // At least step_time from now; for the steps of what streams.
  mono_time step_deadline(const call& c) const { return std::max(c.deadline, rt.now() + step_time); }
  // No attempt to write a row lives longer than step_time: what background work may count on.
  mono_time row_deadline(mono_time wanted) const { return std::min(wanted, rt.now() + step_time); }
  // What a new version says of its time: the clock's, which never goes back, unless this machine's clock was ahead and has been set
  // right: then what is written now does not say that it is of the future.
  hlc_time stamp();
  table::op_options reading(mono_time, const bucket* judged_by = nullptr);
  table::op_options writing(mono_time, const bucket* judged_by = nullptr);
  task<result<void>> write_rows(std::vector<table::write_item>, table::op_options);
  task<result<void>> write_row(table::row_key, table::row_value, table::op_options);
  task<void> read_into(table::row_key, table::op_options, one_shot<result<table::row>>);
  one_shot<result<table::row>> start_reading(table::row_key, table::op_options);

  // ----------------------------------------------------------------------------- buckets (buckets.cc)
  task<result<bucket>> look_up(std::string name, mono_time deadline, bool for_certain = false);
  // Looks up, judges, and refuses changes to a bucket that is being deleted. The one place where requests are let in.
  task<result<bucket>> admit(call, std::string name, model::action);
  task<result<bucket>> reopen(bucket, mono_time deadline);
  task<result<void>> claim_name(std::string name, bucket_id, call);
  task<void> release_name(std::string name, bucket_id, mono_time deadline);
  task<result<bool>> is_empty(bucket_id, mono_time deadline);
  task<result<void>> disallow(bucket, std::string key_id, mono_time deadline);
  task<result<void>> change_names(bucket, std::vector<std::string> added, call);
  layout::partition partition_of(const bucket& b) const { return below->partition_of(b.id.view()); }

  // ----------------------------------------------------------------------------- bodies in (put.cc, receive.cc)
  task<result<received_body>> receive(table::row_key owner, expected_body, body_source&, call);
  task<result<void>> store_block(std::shared_ptr<receiving>, std::size_t index, shared_bytes, semaphore::permit);
  task<result<void>> put_noted(held_block, shared_bytes, std::uint64_t index, mono_time deadline);
  // More blocks than a row lists go to manifests (blocks of their own, with references of the same version).
  task<result<block_lists>> list_blocks(table::row_key owner, version_id, std::vector<model::block_entry>, mono_time deadline);
  task<result<void>> write_object(call, std::string bucket_name, table::row_key, model::object_row, shared_bytes body, conditions,
                                  std::shared_ptr<attempt>);
  task<result<bytes>> next_piece(body_source&, std::size_t wanted, semaphore::permit&, const call&);
  task<result<void>> wait_for_upload(expected_body&, received_body&, mono_time deadline);
  task<result<void>> finish_body(std::shared_ptr<receiving>, const expected_body&, std::vector<checksum> trailers, received_body&);
  static result<void> check_upload(const result<table::row>&, expected_body&, received_body&);

  // ----------------------------------------------------------------------------- bodies out (get.cc, reader.cc)
  struct found_object {
    model::object_row row;
    shared_bytes body;
    model::bucket bucket;
    bool stale_possible = false;
  };
  task<result<found_object>> find_object(call, std::string bucket_name, std::string key, model::action, bool with_body,
                                         std::function<void(const table::row&)> early, consistency how = consistency::strong);
  task<result<table::any_row>> read_as(table::row_key, table::op_options, consistency);
  // The same for a visitor: not older than opts.staleness where this home has no copy.
  task<result<table::any_row>> read_for_visitor(table::row_key, table::op_options, consistency);
  // first, length: within the object. `prefetched`: what an early look at the local copy started, with its hash.
  struct prefetched_block {
    block_hash hash;
    std::optional<one_shot<result<shared_bytes>>> arriving;
    semaphore::permit memory;
  };
  class block_reader;
  // memory: where it is taken from; null for what this home reads for itself.
  std::unique_ptr<body_reader> read_body(const model::object_row&, shared_bytes body, byte_range, std::shared_ptr<prefetched_block>,
                                         std::shared_ptr<semaphore> memory);
  task<void> fetch(block_hash, one_shot<result<shared_bytes>>, wire::priority, bool visitor = false);
  task<result<std::vector<model::block_entry>>> all_blocks(const model::object_row&, wire::priority);

  // ----------------------------------------------------------------------------- copies and lists (copy.cc, list.cc)
  task<result<void>> refer(table::row_key owner, std::shared_ptr<attempt>, std::vector<model::block_entry>, std::uint64_t first_index,
                           mono_time deadline);
  task<result<void>> note_intents(std::vector<held_block>, std::uint64_t first_index);
  task<result<bool>> share_blocks(table::row_key owner, std::shared_ptr<attempt>, model::object_row from, mono_time deadline);
  task<result<received_body>> receive_again(table::row_key owner, model::object_row from, shared_bytes body, byte_range, expected_body, call);
  task<result<std::optional<model::part_row>>> refer_part(table::row_key owner, std::shared_ptr<attempt>, model::object_row from, byte_range,
                                                          mono_time deadline);
  task<result<table::any_page>> list_rows(call, std::string bucket_name, model::action, table::list_request, consistency = consistency::strong);
  task<result<table::any_page>> list_as(table::list_request, table::op_options, consistency);

  // ----------------------------------------------------------------------------- multipart (multipart.cc, complete.cc)
  static result<model::upload_row> open_upload(const result<table::row>&);
  task<result<std::map<std::uint32_t, model::part_row>>> read_parts(bucket_id, std::string key, upload_id, std::vector<std::uint32_t> numbers,
                                                                    mono_time deadline);
  task<result<std::map<std::uint32_t, model::part_row>>> read_part_range(bucket_id, std::string key, upload_id, std::uint32_t first,
                                                                         std::uint32_t last, mono_time deadline);
  task<result<put_result>> write_completed(call, complete_request, bucket, model::upload_row, model::object_row);
  task<result<put_result>> complete_conditionally(call, complete_request, bucket, model::upload_row, model::object_row);
  task<result<std::optional<put_result>>> completed_before(bucket, complete_request, model::upload_row&, mono_time deadline);
  task<result<void>> write_part(call, std::string bucket_name, table::row_key, model::part_row, std::shared_ptr<attempt>);
  task<void> settle_upload(table::row_key, model::upload_row completed);
  task<void> check_late_part(bucket_id, std::string key, upload_id, std::uint32_t number);
  task<result<void>> remove_parts(bucket_id, std::string key, upload_id, mono_time deadline);

  // ----------------------------------------------------------------------------- changes of rows here (hooks.cc)
  void install_hooks();
  void object_changed(const table::change&, kv::batch&);
  void part_changed(const table::change&, kv::batch&);
  void upload_changed(const table::change&, kv::batch&);
  void count_change(const table::change&, kv::batch&, std::int64_t objects, std::int64_t bytes, std::int64_t uploads);
  task<result<bytes>> answer_count(layout::partition, bytes argument);
  task<result<void>> load_counters();

  // ----------------------------------------------------------------------------- background (worker.cc, references.cc)
  void queue_work(kv::batch&, const work&, nanoseconds delay);
  task<void> work_loop();
  task<bool> work_round();
  task<result<void>> do_entry(kv::entry);
  task<result<bool>> do_work(work&);  // true: done; false: look again later
  task<result<bool>> release_object(work&);
  task<result<bool>> release_part(work&);
  task<result<bool>> look_after_upload(work&);
  // Whether the upload is over, and was when looked at withdraw_delay ago, so that nobody can count on its parts any more.
  task<result<bool>> is_long_over(work&, table::row_key upload, bool end_it);
  task<result<std::optional<model::object_row>>> current_object(table::row_key);
  task<result<void>> withdraw(std::vector<held_block>);
  task<void> settle_attempts();
  task<result<void>> settle_attempt(attempts::ended);
  task<result<bool>> is_given_up(version_id, table::row_key);
  task<result<void>> find_left_intents();

  struct count_state {
    std::int64_t objects = 0, bytes = 0, uploads = 0;
    std::uint64_t changes = 0;
  };
  std::map<bytes, count_state> counts;            // by bucket id
  bool counts_loaded = false;
  std::map<bytes, mono_time> not_before;          // of work queued since this start
  mono_time started{};
  hlc_time stamped;                               // the last one after the clock was set back
  wait_list wake;
};

}  // namespace grenier::store
