// store/store.h: the one face of the store: buckets, keys, objects, uploads. Gateways and embedders call this and nothing below.
//
// Every call is judged by authorize() for its principal: what no rule allows is denied. Bodies stream with bounded memory; objects up
// to 64 KiB live in their row, larger ones in blocks.
//
//   Owns      nothing but its background work (withdrawing references of replaced versions, finishing given-up uploads).
//   Runs on   its home thread.
//   Durable   when a change returns a value it is on disk in two zones (or all there are).
//   Cancel    a cancelled put leaves the old object or the new one.
//   Errors    access_denied, no_such_bucket, no_such_key, no_such_upload, condition_failed, invalid_range, bad_digest,
//             checksum_mismatch, incomplete_body, invalid_part, invalid_part_order, part_too_small, too_large, already_exists,
//             bucket_already_owned_by_you, bucket_not_empty, no_space, unavailable, outcome_unknown, timed_out, invalid_argument.
//             conflict: the bucket is being deleted, or changed too often meanwhile. overloaded: the memory budget stayed in use.
//             A body that goes out fails with unavailable where a block of it cannot be had.
//   Limits    key 1..1024 bytes of UTF-8; object to 5 TiB; 10000 parts of 5 MiB..5 GiB (the last may be smaller); user metadata 2 KiB... 8 KiB
//             in all; 10 tags.
//   Not here  HTTP, XML, signatures (s3-gateway/).
//   Source    the S3 API reference, operation by operation.
#pragma once

#include "block/block.h"
#include "model/model.h"

namespace grenier::store {

using model::access_key;
using model::bucket;
using model::checksum;
using model::object_meta;

// Who asks. Anonymous: no key.
struct principal {
  std::optional<access_key> key;
  bool admin = false;  // storagectl on this machine
};

// What streams (bodies) has at least step_time for each block and for the row, whatever is left of the deadline; a body_source
// has its own patience with its client.
struct call {
  principal who;
  mono_time deadline = never;  // REQUIRED
  // Of a site: bodies go out of the visitors' share of the memory, and what this home keeps no copy of may be options::staleness old.
  bool visitor = false;
};
inline constexpr nanoseconds step_time = 30s;

// A body as it comes in.
class body_source {
 public:
  virtual ~body_source() = default;
  // Bytes, or 0 at the end. An error ends the put with it (incomplete_body, bad_digest of a signed chunk ...).
  virtual task<result<std::size_t>> read(std::span<char> to) = 0;
  // Known total, if it is; the put fails with incomplete_body when fewer or more come.
  virtual std::optional<std::uint64_t> size() const = 0;
  // After the end: checksums that came as trailers. Of kinds that the request announced (its `compute`, or its upload's kind);
  // others are refused with invalid_argument.
  virtual std::vector<checksum> trailers() const { return {}; }
};

// A body as it goes out: pieces in order; null at the end. Prefetches by the line's bandwidth and delay.
class body_reader {
 public:
  virtual ~body_reader() = default;
  virtual task<result<shared_bytes>> next() = 0;
};

struct conditions {
  std::optional<std::string> if_match, if_none_match;              // header values: "*", or quoted ETags
  std::optional<std::uint64_t> if_modified_since_ms, if_unmodified_since_ms;
  bool any() const { return if_match || if_none_match || if_modified_since_ms || if_unmodified_since_ms; }
};

struct put_request {
  std::string bucket, key;
  model::object_headers headers;                // content type, metadata ...
  std::vector<model::tag> tags;
  std::optional<bytes> content_md5;             // 16 bytes
  std::optional<bytes> content_sha256;          // 32 bytes: what the client signed
  std::vector<checksum> checksums;              // to be checked and kept
  std::optional<crypto::hash_kind> compute;     // checksum to compute and keep even if none came
  bool composite = false;                       // create_upload: the whole's checksum is of the parts' (SHA-1, SHA-256: always)
  conditions when;
};
struct put_result {
  std::string etag;                             // without quotes
  std::vector<checksum> checksums;
  std::uint64_t size = 0;
};

// How sure the rows that are read have to be. (Blocks are what their names say, wherever they come from.)
enum class consistency : std::uint8_t {
  strong,        // what a quorum agrees on, or unavailable
  strong_if_up,  // the same while a quorum is up; when it is known to be dark, what the nearest home holds, which may be stale (5b.15)
  any,           // what the nearest home holds, this one first: no round trip. What it never heard of is asked of the quorum
};
// For a visitor (call::visitor) at a home without a copy each of the three may be an answer that was right at most options::staleness ago.

struct get_request {
  std::string bucket, key;
  conditions when;
  std::optional<std::string> range;             // raw header
  // The range counts only of the version of this strong ETag (as sent, quoted), or of one that was modified in this very second.
  std::optional<std::string> if_range_etag;
  std::optional<std::uint64_t> if_range_ms;
  std::optional<std::uint32_t> part_number;
  bool head = false;                            // no body wanted
  consistency how = consistency::strong;
};
struct get_result {
  object_meta meta;
  std::uint64_t first = 0, length = 0;          // of the answer within the object
  bool partial = false;
  bool not_modified = false;                    // 304: meta is set, there is no body
  std::uint32_t parts = 0;                      // when asked by part number
  bool stale_possible = false;                  // no quorum was asked
  std::unique_ptr<body_reader> body;            // null for head
};

struct copy_request {
  std::string from_bucket, from_key;
  conditions from_when;
  std::string bucket, key;
  bool replace_headers = false;                 // else the source's, but for storage class and website redirect
  model::object_headers headers;
  bool replace_tags = false;
  std::vector<model::tag> tags;
  std::optional<crypto::hash_kind> compute;
  conditions when;
};
struct copy_result {
  std::string etag;
  std::uint64_t modified_ms = 0;
  std::vector<checksum> checksums;
};

struct list_request {
  std::string bucket, prefix, delimiter;
  std::string start_after;                      // strictly after
  std::size_t entries_max = 1000;
  consistency how = consistency::strong;
};
struct list_result {
  struct item {
    std::string key;
    object_meta meta;                           // size, etag, time, checksums' kinds; no user metadata
  };
  std::vector<item> items;
  std::vector<std::string> prefixes;
  bool truncated = false;
  std::string last;                             // go on after this
  bool stale_possible = false;                  // no quorum was asked
};

struct upload_part_request {
  std::string bucket, key;
  upload_id upload;
  std::uint32_t number = 0;                     // 1..10000
  std::optional<bytes> content_md5, content_sha256;
  std::vector<checksum> checksums;
  std::optional<crypto::hash_kind> compute;     // as of a put; the upload's kind is computed anyway
};
struct upload_part_copy_request {
  std::string bucket, key;
  upload_id upload;
  std::uint32_t number = 0;
  std::string from_bucket, from_key;
  conditions from_when;
  std::optional<std::string> range;             // "bytes=a-b", must lie inside
};
struct part_info {
  std::uint32_t number = 0;
  std::string etag;
  std::uint64_t size = 0, modified_ms = 0;
  std::vector<checksum> checksums;
};
struct complete_request {
  std::string bucket, key;
  upload_id upload;
  std::vector<part_info> parts;                 // number, etag, checksums as the client listed them
  std::vector<checksum> checksums;              // of the whole object, if given
  conditions when;
};
struct upload_info {
  std::string key;
  upload_id upload;
  std::uint64_t started_ms = 0;
  std::string owner;
  model::object_headers headers;
  std::optional<crypto::hash_kind> checksum_kind;
};
struct list_uploads_result {
  std::vector<upload_info> uploads;
  std::vector<std::string> prefixes;
  bool truncated = false;
  std::string last_key;
  upload_id last_upload;
};

struct counters {
  std::int64_t objects = 0, bytes = 0, uploads = 0;
};

class backend;

class service {
 public:
  struct options {
    std::size_t block_size = block::block_size_default;
    std::size_t inline_max = 64 << 10;
    // Of bodies under way: 3/8 for those that come in, 3/8 for those that go out, 1/4 for those that go out to visitors of sites, so that
    // none of them can take another's. What fits in a row (inline_max) is not counted, nor the first of a block that still comes in.
    std::size_t memory_budget_bytes = 48 << 20;
    // What visitors look at and this home has no copy of is kept in so much memory; a row for so long. 0: not at all.
    std::size_t visited_bytes = 0;
    nanoseconds staleness = 0ns;
    std::size_t part_size_min = 5 << 20;
    // A replaced version's references go this much later: longer than any attempt to write its row lives (step_time, and a minute
    // for what is on the line), because such an attempt may still win. Then a quorum read decides.
    nanoseconds withdraw_delay = 100s;
    nanoseconds sweep_interval = 5s;             // of the background work's list
    nanoseconds fallback_delay = 10min;          // before the next replica does what the first one should have
    nanoseconds finished_upload_kept = 24h;      // so that completing twice answers the same
    // Steps left out on purpose, for tests of the tests; empty in production.
    std::vector<std::string> mutations;
  };
  service(runtime&, kv::store&, table::replicated&, block::manager&, cluster::directory&, hybrid_clock&, options);
  // Over another foundation (tests).
  service(runtime&, kv::store&, std::unique_ptr<backend>, hybrid_clock&, options);
  ~service();
  result<void> prepare();      // before table::replicated::start(): rules and hooks of the tables
  task<result<void>> start();  // reads this node's kv::store only; best before table::replicated::start()
  task<void> stop();

  // ------------------------------------------------------------------------------- keys (0 R to read)
  task<result<access_key>> find_key(std::string id, mono_time deadline);
  task<result<access_key>> create_key(call, access_key wanted);    // empty id and secret: made here. already_exists
  task<result<void>> delete_key(call, std::string id);
  std::vector<access_key> list_keys() const;

  // ------------------------------------------------------------------------------- buckets
  task<result<bucket>> find_bucket(std::string name, mono_time deadline);    // by name or alias; no_such_bucket
  task<result<bucket>> create_bucket(call, std::string name, std::string region);
  task<result<void>> delete_bucket(call, std::string name);
  task<result<bucket>> head_bucket(call, std::string name);
  std::vector<bucket> list_buckets(const principal&) const;        // those that the principal owns or may read
  // Changes the bucket row by compare-and-swap and returns when it binds everywhere it must. Owner or admin.
  task<result<bucket>> change_bucket(call, std::string name, std::function<result<void>(bucket&)> edit);
  // What the bucket's replicas count; of differing answers the one that two share, else that of the replica which took most changes.
  task<result<counters>> count(call, std::string bucket);

  // ------------------------------------------------------------------------------- objects
  task<result<put_result>> put(call, put_request, body_source&);
  task<result<get_result>> get(call, get_request);
  task<result<copy_result>> copy(call, copy_request);
  task<result<void>> remove(call, std::string bucket, std::string key);
  // One result a key; at most 1000.
  task<result<std::vector<result<void>>>> remove_many(call, std::string bucket, std::vector<std::string> keys);
  task<result<list_result>> list(call, list_request);
  task<result<std::vector<model::tag>>> get_tags(call, std::string bucket, std::string key);
  task<result<void>> set_tags(call, std::string bucket, std::string key, std::vector<model::tag>);

  // ------------------------------------------------------------------------------- multipart
  task<result<upload_id>> create_upload(call, put_request);        // headers, tags, compute; conditions unused
  task<result<put_result>> upload_part(call, upload_part_request, body_source&);
  task<result<copy_result>> upload_part_copy(call, upload_part_copy_request);
  task<result<put_result>> complete_upload(call, complete_request);
  task<result<void>> abort_upload(call, std::string bucket, std::string key, upload_id);
  struct list_parts_result {
    upload_info upload;
    std::vector<part_info> parts;
    bool truncated = false;
  };
  task<result<list_parts_result>> list_parts(call, std::string bucket, std::string key, upload_id, std::uint32_t after, std::size_t max);
  task<result<list_uploads_result>> list_uploads(call, std::string bucket, std::string prefix, std::string delimiter, std::string after_key,
                                                 upload_id after_upload, std::size_t max);

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace grenier::store
