// kv/kv.h: the local ordered store of one node: column families of sorted keys, one log, group-committed batches.
//
// Many callers of commit() share one log write and one sync. A batch is applied whole or not at all, and nothing of it is
// seen before it is synced, so what a reader was shown survives power loss.
//
//   Owns      the directory given to open(); locked against a second process.
//   Runs on   its home thread; the log is written by one thread of its own, reads that miss the caches go to the disk pool.
//   Durable   when commit() returns a value. Batches become visible in the order of the calls.
//   Cancel    commit() is not cut short: a caller that lets go of its locks afterwards knows what is on disk. The next wait throws.
//   Errors    open(): io_failed (unusable, or damaged: detail says which and what to do), already_exists (locked by
//             another process), protocol (written by a newer version). Later: io_failed (final: the store refuses all
//             writes after a failed write or sync of its log; reads go on), no_space (nothing written; reads go on).
//             Batches that are waiting when one fails fail with it: they may have been made of what it left in memory.
//   Limits    keys to 4 KiB, values to 16 MiB, a batch to 64 MiB; more is refused with too_large.
//   Not here  what rows mean (model/), which node holds them (table/, layout/).
#pragma once

#include "async/async.h"

namespace grenier::kv {

// Fixed at compile time; a family keeps its number for ever (numbers are on disk as names).
enum class family : std::uint8_t {
  meta,       // of this node: identity, versions, start number, layout, small state
  row,        // replicated rows: partition, table, partition key, sort key -> register state without bodies
  body,       // bodies up to 64 KiB that live beside their rows (listing never reads them)
  merkle,     // anti-entropy digests
  hint,       // rows that a silent replica still has to be told
  reference,  // block references
  block,      // what this node knows of its block files: guests, queue of missing ones, queue of superfluous ones
  task_queue, // durable to-do lists of background work
  feed,       // names of changed rows that a reader still has to be told, by partition, in the order of the changes
  count_
};
inline constexpr std::size_t family_count = static_cast<std::size_t>(family::count_);
std::string_view to_string(family) noexcept;

struct entry {
  bytes key, value;
};

// Takes back what was changed in memory on the strength of a batch, last change first, unless forget() was called.
class undo_list {
 public:
  undo_list() = default;
  undo_list(undo_list&& o) noexcept : all_(std::exchange(o.all_, {})) {}
  undo_list& operator=(undo_list&& o) noexcept {
    if (this != &o) {
      run();
      all_ = std::exchange(o.all_, {});
    }
    return *this;
  }
  ~undo_list() { run(); }
  void add(std::move_only_function<void()> fn) { all_.push_back(std::move(fn)); }
  void append(undo_list other);  // other's changes came after these
  void run();
  void forget() { all_.clear(); }

 private:
  std::vector<std::move_only_function<void()>> all_;
};

class batch {
 public:
  // Memory that says what this batch will have made true: fn takes it back when the batch fails or is dropped, on the home thread and
  // before anything else runs there. fn must not wait, nor throw; what it uses must outlive the tasks of its node.
  void if_lost(std::move_only_function<void()> fn) { undo_.add(std::move(fn)); }
  undo_list take_undo() { return std::move(undo_); }
  void put(family f, bytes key, bytes value) { ops_.push_back({f, false, std::move(key), std::move(value)}); }
  void remove(family f, bytes key) { ops_.push_back({f, true, std::move(key), {}}); }
  bool empty() const noexcept { return ops_.empty(); }
  std::size_t size_bytes() const noexcept;
  void append(batch other);  // other's operations after these
  struct op {
    family where;
    bool removal;
    bytes key, value;
  };
  const std::vector<op>& ops() const noexcept { return ops_; }
  std::vector<op> take() && { return std::move(ops_); }

 private:
  std::vector<op> ops_;
  undo_list undo_;
};

struct scan_options {
  bytes from;                    // first key at or after this
  bytes until;                   // keys before this; empty: to the end
  std::size_t entries_max = 1000;
  std::size_t bytes_max = 4 << 20;  // of keys and values; at least one entry comes back if there is one
};

struct statistics {
  std::uint64_t commits = 0, batches = 0;  // log writes (syncs), and batches that shared them
  std::uint64_t memory_bytes = 0;          // memtables and block cache
  std::uint64_t live_bytes = 0;            // on disk, estimated
  std::string damage;                      // the first damage that was met since the start, in words for people; empty: none
};

class store {
 public:
  virtual ~store() = default;
  // Nothing when the key is absent.
  virtual task<result<std::optional<bytes>>> get(family, bytes key) = 0;
  // In key order; consistent within one call.
  virtual task<result<std::vector<entry>>> scan(family, scan_options) = 0;
  // The same, but fn sees each entry (views valid during the call) and says where to go on, so that a lister can seek
  // over what it skips: it returns keep_on, stop, or a later key to seek to. fn may run on another thread and must not
  // touch anything but what it captured by value or owns until the call returns.
  struct step {
    enum class kind : std::uint8_t { next, seek, stop } what = kind::next;
    bytes to;  // for seek; must be after the current key
  };
  using visitor = std::move_only_function<step(bytes_view key, bytes_view value)>;
  virtual task<result<void>> walk(family, bytes from, bytes until, visitor fn) = 0;
  // Applied and synced when it returns.
  virtual task<result<void>> commit(batch) = 0;
  virtual statistics stats() const = 0;
  // Waits for what is under way; afterwards only destruction.
  virtual task<void> stop() = 0;
};

struct rocks_options {
  std::size_t memory_budget_bytes = 64 << 20;  // block cache and memtables together, one budget for all families
  // With less than this free on its disk, commits fail with no_space (those of meta and of removals alone still go), so
  // that the database itself, which must compact, never meets a full disk.
  std::size_t free_reserve_bytes = 64 << 20;
};
// Blocking; called once at start. `path` is made if missing.
result<std::unique_ptr<store>> open_rocks(runtime&, std::string path, rocks_options = {});

// The simulated store: an ordered map with a log that loses what was not synced. Its content outlives a crash of the
// node that uses it: make one simulated_disk per machine, open it at each start. Commit takes commit_delay of virtual time.
class simulated_disk {
 public:
  simulated_disk();
  ~simulated_disk();
  struct faults {
    nanoseconds commit_delay = 300us;
    bool full = false;        // commits fail with no_space
    bool broken = false;      // everything fails with io_failed
    // Of the batches that a crash meets while they are written, so many are whole on the disk, though nobody was told.
    std::size_t survive = 0;
    bool sync = true;         // false: commits say that they are synced before they are (for tests of the tests)
  } behaviour;
  // Everything synced, for checkers.
  const std::map<bytes, bytes>& content(family) const;
  void wipe();  // the disk was replaced

 private:
  friend class simulated_store;
  struct impl;
  std::unique_ptr<impl> impl_;
};
std::unique_ptr<store> open_simulated(runtime&, simulated_disk&);

}  // namespace grenier::kv
