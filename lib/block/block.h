// block/block.h: content-addressed blocks: kept as files on this node's drives, replicated by hash over the cluster.
//
// A block is named by the SHA-256 of its bytes. Whoever receives one checks it, whoever stores one re-checks it, and a reader never
// gets bytes that do not match. A block lives as long as a reference to it does: a merge row (block hash; version, owner) on the
// block's own replicas, sent in the same message as the bytes. A gateway stores a block in the two best zones it can reach, itself first, as a guest
// where it is not at home; the block's home replicas then fetch it by themselves from whoever has the best line to them.
//
//   Owns      the drives given to open(); families block of the kv::store; the table `reference`.
//   Runs on   its home thread; hashing and zstd on the cpu pool, files on the disk pool.
//   Durable   when put() returns, two zones (or all there are) have the synced bytes and a quorum of the block's replicas the synced reference.
//   Cancel    a cancelled put() may leave the block, whole, or not; its reference is withdrawn by its version's owner.
//   Errors    not_found (no copy answers), unavailable, no_space, corrupt (no intact copy answered), timed_out.
//   Limits    1 byte to 4 MiB a block. Blocks in memory are bounded by a budget (callers wait).
//   Not here  when a version's references end (store/); where the layout puts a block (layout/).
//   Source    DESIGN sections 3 and 4, rules 5b.10-12; FIPS 180-4; RFC 8878 (zstd).
#pragma once

#include "table/table.h"

namespace grenier::block {

inline constexpr std::size_t block_size_default = 1 << 20;
inline constexpr std::size_t block_size_max = 4 << 20;

struct drive {
  std::unique_ptr<grenier::disk> disk;
  std::uint64_t capacity_bytes = 0;  // what may be used of it
};

// One reference: this version of this owner's row uses the block.
struct reference {
  block_hash hash;
  version_id version;
  bytes owner;  // encoded row key of the object or part; see encode_owner()
};
bytes encode_owner(const table::row_key&);
result<table::row_key> decode_owner(bytes_view);

struct statistics {
  std::uint64_t blocks = 0, stored_bytes = 0, capacity_bytes = 0, free_bytes = 0;
  std::size_t resync_queue = 0;   // blocks this node should have and has not
  std::size_t nowhere = 0;        // of these, those that no home that is up has, so far as it was found out
  std::size_t guests = 0;         // blocks kept here until their home replicas have them
  std::size_t garbage_queue = 0;  // unreferenced blocks in their grace period
  std::uint64_t corrupt_found = 0, repaired = 0, sent = 0, received = 0, deduplicated = 0;
  std::uint64_t scrubbed = 0;
  table::work resync;             // items: blocks fetched
  table::work handing_over;       // items: guests let go
  table::work scrub;              // items: blocks read and found whole; an error: one that was damaged
  table::work other;
};

class manager {
 public:
  struct options {
    int zstd_level = 1;                        // 0: never compress
    std::size_t memory_budget_bytes = 32 << 20;
    nanoseconds grace_period = 10min;          // of an unreferenced block
    nanoseconds resync_delay = 500ms;          // before a home replica fetches what it was only told of
    std::size_t resync_parallel = 2;
    nanoseconds scrub_period = std::chrono::days(30);
    // Steps left out on purpose, for tests of the tests; empty in production.
    std::vector<std::string> mutations;
  };
  manager(runtime&, kv::store&, wire::endpoint&, cluster::directory&, table::replicated&, node_id self, std::vector<drive>, options);
  ~manager();
  // Before table::replicated::start(): defines the table `reference` and registers handlers.
  result<void> prepare();
  task<result<void>> start();
  task<void> stop();

  // ------------------------------------------------------------------------------- coordinator
  // The caller has hashed the bytes (hash_block). A block that its replicas have already is not sent again over lines where asking is cheaper.
  task<result<void>> put(reference, shared_bytes content, mono_time deadline);
  // References without bytes (COPY, same content uploaded again): ok when a quorum of the replicas of every block has the file, verified
  // under its lock, and the reference; not_found when some block's replicas cannot say so: nothing may be built on it then.
  task<result<void>> add_references(std::vector<reference>, mono_time deadline);
  // From this node if it is here, else from the best replica or guest, hedged; verified. foreground or background.
  task<result<shared_bytes>> get(block_hash, wire::priority, mono_time deadline);
  bool is_here(const block_hash&) const;
  // Joined on a quorum of each block's replicas. For whoever knows that the version's row was replaced (5b.10).
  task<result<void>> withdraw(std::vector<reference>, mono_time deadline);

  statistics stats() const;
  // False: writes are refused with no_space (a reserve is kept for rows). A gateway, which stores nothing, always has.
  bool has_space(std::uint64_t bytes) const;
  void repair_now();
  void scrub_now();

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace grenier::block
