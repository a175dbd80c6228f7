// block/shelf: the blocks of this node: their files, the rows that say where they are, and what is still to be done about them.
//
// Everything that stores, confirms or frees a block holds the one lock of its hash, so that "I have it" is a fact and a block is
// not freed under somebody who was just told that it is here (rule 5b.11). Order: file, its folder, then row (rule 5b.6).
//
//   Owns      drives, and kv family block.
//   Runs on   its home thread.
//   Durable   when store() or confirm() returns a value.
//   Errors    not_found, corrupt, no_space, io_failed, timed_out (the lock).
#pragma once

#include <map>
#include <set>

#include "block/drives.h"
#include "block/reference_row.h"
#include "block/todo.h"

namespace grenier::block {

struct block_bytes {
  stored form;
  shared_bytes plain;
};

class shelf {
 public:
  shelf(runtime&, kv::store&, table::replicated&, node_id self, std::vector<drive>);
  // What is here, by the rows. Before anything else.
  task<result<void>> load();
  // The rules of the table `reference`, with the hook that turns references that come and go into work.
  void define_references(nanoseconds grace_period, nanoseconds resync_delay);

  struct incoming {
    block_hash hash;
    stored form;
    std::optional<table::write_item> reference;  // joined in the same commit
    bool guest = false;                          // until the home replicas have it
  };
  // True when the block was here already, and intact.
  task<result<bool>> store(incoming, mono_time deadline);

  struct confirmation {
    bool referenced = false, file = false, live = false;
    std::vector<node_id> guests;  // that references here name
  };
  // Joins the reference (if any), then says whether the file is here; with verify, only after reading it against its hash.
  // A missing file is queued, with the node that told us of it. Guests keep what they confirmed for another grace period.
  struct question {
    block_hash hash;
    std::optional<table::write_item> reference;
    bool verify = false;
    node_id origin;
    nanoseconds fetch_after{};
  };
  task<result<confirmation>> confirm(question, mono_time deadline);

  // Verified. not_found: no such block here; corrupt: it was, and is queued for repair.
  task<result<block_bytes>> read(block_hash, mono_time deadline);
  task<result<std::optional<location>>> find(block_hash);
  void forget_damage(const block_hash&);  // it is whole again, or nobody wants it any more
  bool was_damaged(const block_hash& h) const { return damaged_.contains(h); }
  // A file whose row went because it could not be read, or that no row knew: its block, verified. not_found: there is none.
  task<result<stored>> left_behind(block_hash);
  // Under its lock: what is left of a block that has no row and that nobody wants any more.
  task<void> discard(block_hash);
  bool is_here(const block_hash& h) const { return here_.contains(h); }

  // Steps left out on purpose, for tests of the tests.
  void leave_out(bool looking, bool proving) { unlooked_ = looking, unproved_ = proving; }
  struct references {
    std::size_t live = 0;
    std::vector<node_id> guests;
  };
  task<result<references>> references_of(block_hash);

  // Frees the block if may_go() still says so under the lock.
  task<result<bool>> free(block_hash, std::move_only_function<task<result<bool>>()> may_go, mono_time deadline);
  // A file without a row: taken in as a guest or as garbage, so that the ordinary checks decide about it.
  task<void> adopt(drives::found);
  task<result<void>> commit(kv::batch b) { return kv_.commit(std::move(b)); }
  task<key_lock::guard> lock(block_hash h, mono_time deadline) { return locks_.lock(h.str(), deadline); }
  // Rows 'f' from this hash on.
  task<result<std::vector<std::pair<block_hash, location>>>> files_from(block_hash after, std::size_t max);
  task<result<bytes>> setting(std::string name);
  void set_setting(kv::batch&, std::string name, bytes value);

  bool is_home(const block_hash&) const;
  bool is_replica_of_any_version(const block_hash&) const;

  drives disks;
  todo_queue missing, guests, garbage;
  std::uint64_t blocks = 0, corrupt_found = 0, repaired = 0, deduplicated = 0;
  table::work scrub;  // what was found damaged, by the scrub or by readers

 private:
  struct mark;
  task<result<void>> commit_with(const block_hash&, kv::batch, std::optional<table::write_item>);
  task<result<block_bytes>> open(block_hash, location);
  task<result<block_bytes>> open_or_report(block_hash, location);
  std::unexpected<error> absent(const block_hash&) const;
  task<void> report_damage(block_hash, location, error);
  void on_reference(const table::change&, kv::batch&);

  runtime& rt_;
  kv::store& kv_;
  table::replicated& table_;
  node_id self_;
  key_lock locks_;
  hash_set here_, damaged_;
  std::set<block_hash> storing_;  // under their locks: their references need no queue entry
  std::map<block_hash, node_id> telling_;  // references that are being taken, and who sent them
  nanoseconds grace_period_{}, resync_delay_{};
  bool unlooked_ = false, unproved_ = false;
};

}  // namespace grenier::block
