// table/merkle.h: digests of what this node holds of each partition, for finding differences with another replica cheaply.
//
// A leaf is the XOR of the digests of its rows; a row's leaf is decided by a hash of its key. Leaves are written in the same
// batch as the row they count; what is above them is computed.
//
//   Owns      family merkle.
//   Limits    256 partitions in memory (16 MiB), besides those that are held: those used longest ago give way.
//   Runs on   its home thread; change() is called between the row's lock and its commit, in the order of the commits.
//   Not here  the exchange (repair).
#pragma once

#include "table/keys.h"

namespace grenier::table {

inline constexpr std::size_t merkle_leaves = 4096, merkle_inner = 64, merkle_loaded_max = 256;

class merkle {
 public:
  merkle(runtime& rt, kv::store& s) : store_(s), loading_(rt) {}

  // Before anything else is asked of a partition; cheap while it stays in memory: until the next suspension, or as long as it is held.
  task<result<void>> load(layout::partition);
  class hold {
   public:
    hold() = default;
    hold(merkle& m, layout::partition p) : in_(&m), p_(p) { ++m.at(p).holds; }
    hold(hold&& o) noexcept : in_(std::exchange(o.in_, nullptr)), p_(o.p_) {}
    hold& operator=(hold&& o) noexcept {
      std::swap(in_, o.in_), std::swap(p_, o.p_);
      return *this;
    }
    ~hold() {
      if (in_) --in_->at(p_).holds;
    }

   private:
    merkle* in_ = nullptr;
    layout::partition p_ = 0;
  };
  std::size_t partitions_in_memory() const noexcept { return loaded_.size(); }

  static std::uint16_t leaf_of(bytes_view place) noexcept;
  // Of a register's accepted value; zero for a row that holds none.
  static u128 digest(bytes_view place, const ballot&, bytes_view attempt, bool present) noexcept;
  static u128 digest(bytes_view place, bytes_view merged) noexcept;

  // REQUIRES: held, from here until the batch is committed. The leaf's new value goes into the batch.
  void change(layout::partition, bytes_view place, u128 before, u128 after, kv::batch&);
  // Digests summed up anew; what differs from what is on disk goes into the batch. REQUIRES: held, and no change is under way.
  void replace(layout::partition, std::vector<u128>, kv::batch&);
  // Without loading, if nothing changed since it was asked last.
  std::optional<std::uint64_t> known_root(layout::partition) const;
  // REQUIRES: loaded.
  std::uint64_t root(layout::partition);
  std::vector<std::uint64_t> inner(layout::partition);
  std::vector<std::uint64_t> leaves(layout::partition, std::size_t inner);

 private:
  struct tree {
    std::vector<u128> leaves;
    std::size_t holds = 0;
    std::uint64_t used = 0;  // when, by the count of uses
  };
  tree& at(layout::partition);
  void make_room();
  static void write(layout::partition, std::uint16_t leaf, const u128&, kv::batch&);
  kv::store& store_;
  key_lock loading_;
  std::map<layout::partition, tree> loaded_;
  std::uint64_t uses_ = 0;
  std::map<layout::partition, std::uint64_t> roots_;  // those that have not changed since
};

}  // namespace grenier::table
