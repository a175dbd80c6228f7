// block/todo: durable to-do lists of background work, one entry a block: blocks that are missing, blocks kept as a guest, blocks
// that nothing refers to. Rows of kv family block; entries are put in the batch of what causes them.
//
//   Runs on   its home thread.
//   Durable   with the batch that an entry was added by.
//   Limits    memory: 8 to 16 bytes an entry, and up to 1024 whole ones that are due soon; the rest is found by passes over the rows.
#pragma once

#include <boost/unordered/unordered_flat_set.hpp>

#include <deque>

#include "block/block.h"

namespace grenier::block {

// The first byte of a key in family block. On disk: never reuse one.
enum class row_kind : char { file = 'f', missing = 'q', guest = 'u', garbage = 'g', setting = 's' };
bytes row_of(row_kind, const block_hash&);

// Block hashes by their first 8 bytes: good for counting and for hints, not for proofs.
class hash_set {
 public:
  bool insert(const block_hash& h) { return set_.insert(key(h)).second; }
  bool erase(const block_hash& h) { return set_.erase(key(h)) != 0; }
  bool contains(const block_hash& h) const { return set_.contains(key(h)); }
  std::size_t size() const noexcept { return set_.size(); }

 private:
  static std::uint64_t key(const block_hash& h) { return read_u64(h.view()); }
  boost::unordered_flat_set<std::uint64_t> set_;
};

struct todo {
  block_hash hash;
  std::uint64_t due_ms = 0;    // wall clock
  std::uint64_t since_ms = 0;  // when it was added
  std::uint32_t attempts = 0;
  node_id origin;              // who told us; zero when nobody did
};

class todo_queue {
 public:
  todo_queue(runtime& rt, kv::store& kv, row_kind kind) : rt_(rt), kv_(kv), kind_(kind), added_(rt) {}
  task<result<void>> load();
  void add(kv::batch&, todo);
  void remove(kv::batch&, const block_hash&);
  task<result<std::optional<todo>>> find(block_hash);
  bool contains(const block_hash& h) const { return known_.contains(h); }
  std::size_t size() const noexcept { return known_.size(); }
  // The next due entries that are not marked busy: at least one, so it may wait for long.
  task<std::vector<todo>> next(std::size_t max);
  void set_busy(const block_hash& h, bool busy) {
    busy ? void(busy_.insert(h)) : void(busy_.erase(h));
    again_.erase(h);
  }
  // An entry came while this one was busy, in a batch that may not be visible yet: what was just found out is not enough.
  bool came_again(const block_hash& h) const { return again_.contains(h); }
  // Everything is due now.
  void hurry();

 private:
  // Has the wall clock been set since this was asked last?
  bool clock_was_set();
  // What was noted while the clock was ahead, as it would have been noted now.
  bool rebase(todo&) const;
  task<bool> take_fresh(std::vector<todo>& to, std::size_t max);
  task<void> pass(std::vector<todo>& to, std::size_t max);
  runtime& rt_;
  kv::store& kv_;
  row_kind kind_;
  wait_list added_;
  hash_set known_, busy_, again_;
  std::deque<std::pair<std::uint64_t, block_hash>> fresh_;  // due soon, in no order
  bool look_again_ = true;          // a pass may find something
  std::uint64_t earliest_ms_ = 0;   // of what the last pass saw and did not take
  bool hurry_ = false, hurrying_ = false;  // asked for; and being done: in this pass everything is due
  bytes cursor_;
  std::size_t passed_ = 0;          // entries that this pass met
  mono_time passed_at_{};           // when it began
  std::optional<std::int64_t> wall_less_steady_ms_;
};

}  // namespace grenier::block
