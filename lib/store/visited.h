// store/visited.h: private to the store: what was fetched for visitors of sites and has no copy at this home, kept for a little while, so
// that a page that many look at costs no round trip here.
//
// A row is given for `staleness` from the moment on at which it was asked for: nobody sees anything older. A block is what its name says,
// at any age. Who may look is not kept here: that is judged by the bucket's row, each time.
//
//   Owns      memory only.
//   Runs on   its home thread; no I/O.
//   Limits    bytes_max in all, a quarter of it for one thing; what was not looked at for longest goes first.
#pragma once

#include <list>

#include "table/table.h"

namespace grenier::store {

class visited {
 public:
  visited(std::size_t bytes_max, nanoseconds staleness) : bytes_max_(bytes_max), staleness_(staleness) {}
  bool keeps_rows() const noexcept { return bytes_max_ > 0 && staleness_ > 0ns; }
  bool keeps_blocks() const noexcept { return bytes_max_ > 0; }

  // With its body. Nothing: it is not here, or too old.
  std::optional<table::any_row> row(const table::row_key&, mono_time now);
  void keep(const table::row_key&, const table::any_row&, mono_time asked_at);
  shared_bytes block(const block_hash&);  // null: it is not here
  void keep(const block_hash&, shared_bytes);
  std::size_t bytes_kept() const noexcept { return bytes_; }

 private:
  struct entry {
    std::optional<table::row_key> key;  // else a block
    block_hash hash;
    table::any_row row;
    mono_time asked_at{};
    shared_bytes content;
    std::size_t size = 0;
  };
  using place = std::list<entry>::iterator;
  void add(entry);
  void remove(place);
  std::size_t bytes_max_, bytes_ = 0;
  nanoseconds staleness_;
  std::list<entry> all_;  // what was looked at last is first
  std::map<table::row_key, place> rows_;
  std::map<block_hash, place> blocks_;
};

}  // namespace grenier::store
