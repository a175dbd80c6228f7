// block/drives: block files on this node's drives: ab/cd/<hash in hex>, with .zst behind it in compressed form.
//
// A block prefers drives by rendezvous hashing weighted by capacity, so that it is found again without an index even when drives
// were given in another order; full and failed drives are passed over.
//
//   Owns      the drives' content.
//   Runs on   its home thread; files on the disk pool.
//   Durable   when write() returns a value, file and directory are synced.
//   Errors    no_space (no drive has room), io_failed, not_found.
#pragma once

#include "block/codec.h"

namespace grenier::block {

struct location {
  std::uint16_t drive = 0;
  bool zstd = false;
  std::uint64_t stored_bytes = 0;
  friend bool operator==(const location&, const location&) = default;
};

class drives {
 public:
  drives(runtime&, std::vector<drive>);
  // Asks the disks how much room there really is.
  task<void> refresh();
  // What was written counts as used from then on; whoever does not keep it calls take_used().
  // A drive that fails to write is out until the next start: what a failed sync left behind cannot be told.
  task<result<location>> write(block_hash, stored);
  // Unverified. Looks at the other drives too when the file is not where it should be.
  task<result<stored>> read(block_hash, location);
  task<result<void>> remove(block_hash, location);
  // Wherever it lies, in either form.
  task<result<stored>> read_anywhere(block_hash);
  task<void> remove_everywhere(block_hash);
  task<result<bool>> has(block_hash, location);  // exactly there

  // What lies on the drives, one directory "ab" after the other: every file that looks like a block or the rest of a write.
  struct found {
    std::string path;
    block_hash hash;
    location where;
    bool leftover = false;  // an unfinished write
  };
  std::size_t count() const noexcept { return drives_.size(); }
  task<result<std::vector<std::string>>> directories(std::size_t drive);
  task<result<std::vector<found>>> files(std::size_t drive, std::string directory);
  task<result<void>> remove(found);
  task<result<std::uint64_t>> size(found);

  void add_used(const location&);
  void take_used(const location&);
  std::uint64_t capacity_bytes() const;
  std::uint64_t used_bytes() const;
  std::uint64_t free_bytes() const;          // after the reserve
  bool has_room(std::uint64_t size_bytes) const;  // for that much, in blocks
  bool any_failed() const;

 private:
  struct board {
    std::unique_ptr<grenier::disk> disk;
    std::uint64_t capacity_bytes = 0, used_bytes = 0, really_free_bytes = 0;
    bool asked = false, failed = false;
    std::uint64_t free_bytes() const;
  };
  std::vector<std::size_t> preferred(const block_hash&) const;
  static std::string path_of(const block_hash&, bool zstd);
  runtime& rt_;
  std::vector<board> drives_;
};

}  // namespace grenier::block
