// table/change_log.h: the feed of changes, as replica and readers see it: entries in the rows' own batches, places of readers, trimming.
//
// An entry is written only for a partition in which a reader has a place. A place begins with a walk over the rows, and with a commit of
// its own: the store shows batches in the order in which they were given to it, so when that commit is over, every row whose batch went
// without an entry is there to be walked over, and every later one has its entry.
//
//   Owns      family feed (u16 partition | u64 number -> ballot | the row's place without its partition); keys "feed/..." of meta.
//   Durable   places are written, and what no reader needs any more is removed, in one batch a second at most, and none while nothing
//             changes. What is lost of them in a crash is told again.
//   Limits    feed_entries_max entries, then the reader that is furthest behind loses its places; 16384 rows are remembered as
//             having an entry, which their next change replaces; 16 readers.
//   Not here  what readers do with it.
#pragma once

#include "table/layout_keeper.h"

namespace grenier::table {

class change_log {
 public:
  change_log(core& c, layout_keeper& l) : core_(c), layout_(l), hurry_(c.rt) {}
  task<result<void>> load();
  void start();

  // What one batch adds.
  struct ticket {
    struct entry {
      layout::partition p = 0;
      std::uint64_t number = 0;
      bytes place;
      bool replaced = false;
    };
    std::vector<entry> entries;
  };
  // REQUIRES: the row's lock is held; the batch is committed without a suspension in between.
  void add(ticket&, layout::partition, const bytes& place, const ballot&, kv::batch&);
  void ended(ticket&, bool committed);

  task<result<std::unique_ptr<feed>>> follow(std::string name, std::set<table_id>);
  task<result<void>> forget(std::string name);
  std::vector<feed_status> status() const;
  static task<result<std::unique_ptr<feed>>> not_started() { co_return fail(errc::unavailable, "this node is starting"); }

 private:
  friend class feed;
  using reader = feed::reader;
  using reader_ptr = std::shared_ptr<reader>;
  struct position;

  task<result<std::optional<feed_page>>> next(reader_ptr, mono_time deadline, std::size_t names_max);
  task<result<std::optional<feed_page>>> page_of(reader_ptr, layout::partition, std::size_t names_max);
  task<result<void>> read_changes(const reader&, const position&, feed_page&, std::size_t names_max, bool* more);
  task<result<void>> walk_rows(const reader&, const position&, feed_page&, std::size_t names_max, bool* more);
  void acknowledge(reader&, const feed_mark&);
  task<result<void>> begin(reader_ptr);

  task<void> keep();
  task<result<void>> write_places();
  struct sweeping {
    std::map<layout::partition, std::uint64_t> partitions;  // from where
    std::size_t looked_at = 0;
    std::uint64_t removed = 0;
  };
  task<result<void>> sweep(layout::partition, kv::batch&, sweeping&);
  void drop_one();
  void lose(reader&, layout::partition);
  void on_layout();
  bool is_mine(layout::partition) const;
  std::uint64_t last(layout::partition p) const {
    auto at = numbers_.find(p);
    return at == numbers_.end() ? 0 : at->second.last;
  }
  std::uint64_t needed_after(layout::partition) const;
  std::uint64_t waiting(const reader&) const;
  void mark_dirty(reader&, layout::partition);

  core& core_;
  layout_keeper& layout_;
  struct numbers {
    std::uint64_t last = 0, swept = 0;  // given to an entry; up to here none is left
  };
  std::map<layout::partition, numbers> numbers_;
  std::map<bytes, std::uint64_t> noted_;          // rows that have an entry, and its number: as many as are remembered
  std::uint64_t entries_ = 0;                     // about as many as there are on disk
  std::map<std::string, reader_ptr> readers_;
  std::set<layout::partition> to_sweep_;
  std::uint64_t epochs_ = 0;
  bool dirty_ = false;
  wait_list hurry_;
};

}  // namespace grenier::table
