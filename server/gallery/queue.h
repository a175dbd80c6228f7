// gallery/queue.h: private to the worker: what a home has to look at, on its disk, and what of it comes next.
//
// Three things are told apart: what somebody waits for at this moment, what was never shown (firsts), and larger sizes of what is shown
// already (rests). They come in this order; a rest only when the caller has room for one.
//
//   Owns      entries "gallery/j/..." of kv family task_queue: a bucket and a key, and what is known of the work.
//   Runs on   its home thread.
//   Durable   when add(), put_off() or turn_to_rest() returns; what take() gave is still in the queue until done_with().
//   Errors    of the store of rows.
//   Limits    4096 rows a kind in memory, 64 that somebody waits for; the others are found again on disk when these are done.
#pragma once

#include <deque>
#include <map>
#include <set>

#include "async/async.h"
#include "kv/kv.h"

namespace grenier::gallery {

struct job {
  bucket_id bucket;
  std::string key;
  std::uint64_t since_ms = 0, due_ms = 0;  // wall clock
  std::uint32_t attempts = 0, looks = 0;   // that failed; at what another home should do
  bool rest = false;                       // it is shown, and has its smallest size
  bool check = false;                      // what should be there is looked for, piece by piece
};

class queue {
 public:
  struct lengths {
    std::uint64_t waiting = 0, rests = 0, standing_by = 0;  // rests: not part of waiting
  };
  queue(runtime& rt, kv::store& kv) : rt_(rt), kv_(kv), noting_(rt, 1), wake_(rt) {}
  // Counts what is there: before anything else.
  task<result<void>> open();

  struct entry {
    bucket_id bucket;
    std::string key;
    bool check = false;
  };
  // What is there already begins anew, unless it is only to be checked.
  task<result<void>> add(std::vector<entry>);
  // Somebody waits for it: it is next, if it is in the queue (or `check`: then it is put there). False: it is not, or too many wait.
  task<result<bool>> raise(entry);

  // The next row to work on, which is under way from then on; waits for it. rest_too is asked whenever something changed.
  task<job> take(std::function<bool()> rest_too);
  task<void> done_with(std::vector<job>);
  task<void> put_off(job, nanoseconds pause, bool failed);
  // It is shown now; what is left of it comes when nothing more urgent waits.
  task<void> turn_to_rest(job);
  // Everything is looked at soon, whatever was put off.
  void hurry();
  void changed() { wake_.wake_all(); }

  lengths of(const bucket_id&) const;
  // Under way, by kind.
  std::size_t firsts_busy() const noexcept { return busy_.size() - rests_busy_; }
  std::size_t rests_busy() const noexcept { return rests_busy_; }

 private:
  static bytes row_of(const job&);
  static bytes row_of(const bucket_id&, std::string_view key);
  static bytes encode(const job&);
  static std::optional<job> decode(bytes_view row, bytes_view value);
  void count(const std::optional<job>&, int by);
  void line_up(bytes row, bool rest);
  void leave(const bytes& row);
  task<void> look_for_more();

  runtime& rt_;
  kv::store& kv_;
  semaphore noting_;
  wait_list wake_;
  std::map<bytes, bool> busy_;      // under way, by key of their rows; whether it is a rest
  std::size_t rests_busy_ = 0;
  std::set<bytes> again_;           // came once more while they were under way
  std::set<bytes> wanted_;          // of next_: somebody waits
  std::deque<bytes> next_, rests_;  // what came just now is before what has waited for long
  bytes cursor_;
  std::uint64_t due_ms_ = 0, earliest_ms_ = UINT64_MAX;  // when rows are to be looked through; of those seen in this pass
  bool hurry_ = false;              // in this pass everything is due
  std::map<bucket_id, lengths> lengths_, counted_;  // counted_: in this pass
  std::uint64_t passed_ms_ = 0;     // when the last one ended
};

}  // namespace grenier::gallery
