#include "gallery/queue.h"

#include <algorithm>

namespace grenier::gallery {

namespace {

constexpr std::size_t page_max = 256, next_max = 4096, wanted_max = 64;
constexpr std::uint64_t pass_ms = 5000;
const bytes job_prefix = "gallery/j/";
enum : std::uint64_t { flag_rest = 1, flag_check = 2 };

// The first key after all those with the prefix, which does not end in 0xff.
bytes after_prefix(bytes prefix) {
  ++prefix.back();
  return prefix;
}

void add_to(queue::lengths& l, const job& j, int by) {
  auto& n = j.looks ? l.standing_by : j.rest || j.check ? l.rests : l.waiting;
  n = by < 0 && n == 0 ? 0 : n + static_cast<std::uint64_t>(by);
}

}  // namespace

bytes queue::row_of(const bucket_id& b, std::string_view key) { return job_prefix + b.str() + bytes(key); }
bytes queue::row_of(const job& j) { return row_of(j.bucket, j.key); }

bytes queue::encode(const job& j) {
  bytes v;
  append_u64(v, j.since_ms);
  append_u64(v, j.due_ms);
  append_u64(v, j.attempts);
  append_u64(v, j.looks);
  append_u64(v, (j.rest ? flag_rest : 0) | (j.check ? flag_check : 0));
  return v;
}

std::optional<job> queue::decode(bytes_view row, bytes_view value) {
  row.remove_prefix(job_prefix.size());
  auto id = bucket_id::from_bytes(row.substr(0, bucket_id::size_bytes));
  // A row of 32 bytes is of a version that had no flags, and made all sizes at once: what it waits for is a first. It grows when it is
  // written next.
  if (!id || (value.size() != 40 && value.size() != 32)) return std::nullopt;
  const std::uint64_t flags = value.size() == 40 ? read_u64(value.substr(32)) : 0;
  return job{*id, std::string(row.substr(bucket_id::size_bytes)), read_u64(value), read_u64(value.substr(8)), static_cast<std::uint32_t>(read_u64(value.substr(16))),
             static_cast<std::uint32_t>(read_u64(value.substr(24))), (flags & flag_rest) != 0, (flags & flag_check) != 0};
}

queue::lengths queue::of(const bucket_id& b) const {
  auto at = lengths_.find(b);
  return at == lengths_.end() ? lengths() : at->second;
}

void queue::count(const std::optional<job>& j, int by) {
  if (j) add_to(lengths_[j->bucket], *j, by);
}

task<result<void>> queue::open() {
  cursor_ = job_prefix;
  auto seen = std::make_shared<std::map<bucket_id, lengths>>();
  CO_TRY_VOID(co_await kv_.walk(kv::family::task_queue, job_prefix, after_prefix(job_prefix), [seen](bytes_view k, bytes_view v) {
    if (auto j = decode(k, v)) add_to((*seen)[j->bucket], *j, 1);
    return kv::store::step();
  }));
  lengths_ = std::move(*seen);
  co_return result<void>();
}

// Rows that find no room are found on disk again.
void queue::line_up(bytes row, bool rest) {
  auto& to = rest ? rests_ : next_;
  if (to.size() < next_max) to.push_back(std::move(row));
  else due_ms_ = 0;
}

void queue::leave(const bytes& row) {
  auto at = busy_.find(row);
  if (at == busy_.end()) return;
  rests_busy_ -= at->second;
  busy_.erase(at);
}

task<result<void>> queue::add(std::vector<entry> what) {
  auto alone = co_await noting_.acquire();  // what it finds there is what it counts
  kv::batch b;
  for (auto& e : what) {
    bytes row = row_of(e.bucket, e.key);
    CO_TRY(auto raw, co_await kv_.get(kv::family::task_queue, row));
    auto old = raw ? decode(row, *raw) : std::nullopt;
    if (e.check && old && (old->check || !old->rest)) continue;
    job j{e.bucket, std::move(e.key), rt_.wall_ms(), rt_.wall_ms(), 0, 0, e.check && old && old->rest, e.check};
    b.put(kv::family::task_queue, row, encode(j));
    count(old, -1), count(j, 1);
    if (busy_.contains(row)) again_.insert(row);
    // What is only to be checked is no more urgent than what is only to be completed.
    line_up(std::move(row), j.rest || j.check);
  }
  if (b.empty()) co_return result<void>();
  CO_TRY_VOID(co_await kv_.commit(std::move(b)));
  wake_.wake_all();
  co_return result<void>();
}

task<result<bool>> queue::raise(entry e) {
  bytes row = row_of(e.bucket, e.key);
  if (wanted_.contains(row) || busy_.contains(row)) co_return true;
  if (e.check) {
    std::vector<entry> one;
    one.push_back(std::move(e));
    CO_TRY_VOID(co_await add(std::move(one)));
  }
  CO_TRY(auto raw, co_await kv_.get(kv::family::task_queue, row));
  if (!raw || !decode(row, *raw) || wanted_.size() >= wanted_max) co_return false;
  if (busy_.contains(row) || !wanted_.insert(row).second) co_return true;
  next_.push_front(std::move(row));
  wake_.wake_all();
  co_return true;
}

task<void> queue::done_with(std::vector<job> jobs) {
  auto alone = co_await noting_.acquire();
  kv::batch b;
  for (const auto& j : jobs) {
    bytes row = row_of(j);
    const bool came_again = again_.erase(row) > 0;
    if (came_again) {
      leave(row);
      line_up(std::move(row), false);
      continue;
    }
    count(j, -1);
    b.remove(kv::family::task_queue, row);
  }
  if (!b.empty()) (void)co_await kv_.commit(std::move(b));
  for (const auto& j : jobs)
    if (bytes row = row_of(j); !again_.contains(row)) leave(row);
  wake_.wake_all();
}

task<void> queue::put_off(job j, nanoseconds pause, bool failed) {
  auto alone = co_await noting_.acquire();
  bytes row = row_of(j);
  if (again_.erase(row)) {
    leave(row);
    line_up(std::move(row), false);
    wake_.wake_all();
    co_return;
  }
  const job before = j;
  j.due_ms = rt_.wall_ms() + static_cast<std::uint64_t>(pause / 1ms);
  failed ? ++j.attempts : ++j.looks;
  count(before, -1), count(j, 1);
  due_ms_ = std::min(due_ms_, j.due_ms);
  kv::batch b;
  b.put(kv::family::task_queue, row, encode(j));
  (void)co_await kv_.commit(std::move(b));
  leave(row);
  wake_.wake_all();
}

task<void> queue::turn_to_rest(job j) {
  auto alone = co_await noting_.acquire();
  bytes row = row_of(j);
  if (again_.erase(row)) {
    leave(row);
    line_up(std::move(row), false);
    wake_.wake_all();
    co_return;
  }
  const job before = j;
  j.rest = true;
  j.attempts = 0;
  j.due_ms = rt_.wall_ms();
  count(before, -1), count(j, 1);
  kv::batch b;
  b.put(kv::family::task_queue, row, encode(j));
  (void)co_await kv_.commit(std::move(b));
  leave(row);
  line_up(std::move(row), true);
  wake_.wake_all();
}

void queue::hurry() {
  hurry_ = true;
  cursor_ = job_prefix;
  due_ms_ = 0;
  wake_.wake_all();
}

// Rows that are due, from where the last page ended; at the end of them all the time of the next one is known. Rests that it passes are
// kept for later: it goes on until it has a first, or has seen all.
task<void> queue::look_for_more() {
  const std::uint64_t now = rt_.wall_ms();
  if (cursor_ == job_prefix) {
    earliest_ms_ = due_ms_ = UINT64_MAX;
    counted_.clear();
    rests_.clear();  // found again
  }
  while (next_.empty()) {
    auto page = co_await kv_.scan(kv::family::task_queue, {.from = cursor_, .until = after_prefix(job_prefix), .entries_max = page_max});
    if (!page || page->empty()) {
      cursor_ = job_prefix;
      hurry_ = false;
      passed_ms_ = now;
      if (page) lengths_ = counted_;
      due_ms_ = page ? std::min(due_ms_, earliest_ms_) : now + pass_ms;
      co_return;
    }
    for (auto& e : *page) {
      auto j = decode(e.key, e.value);
      if (!j) continue;
      add_to(counted_[j->bucket], *j, 1);
      if (busy_.contains(e.key)) continue;
      if (j->due_ms > now && !hurry_) {
        earliest_ms_ = std::min(earliest_ms_, j->due_ms);
      } else if (!(j->rest || j->check) || j->looks) {
        next_.push_back(e.key);
      } else if (rests_.size() < next_max) {
        rests_.push_back(e.key);
      } else {
        earliest_ms_ = now;
      }
    }
    cursor_ = page->back().key + '\0';
  }
  due_ms_ = 0;  // goes on there
}

task<job> queue::take(std::function<bool()> rest_too) {
  for (;;) {
    const bool rest = next_.empty();
    auto& from = rest ? rests_ : next_;
    if (!from.empty() && (!rest || rest_too())) {
      bytes row = std::move(from.front());
      from.pop_front();
      wanted_.erase(row);
      if (busy_.contains(row)) continue;
      busy_[row] = false;
      auto value = co_await kv_.get(kv::family::task_queue, row);
      auto j = value && *value ? decode(row, **value) : std::nullopt;
      if (!j || (rest && j->due_ms > rt_.wall_ms() && !hurry_)) {  // done meanwhile; or it stood there twice, and was put off
        leave(row);
        continue;
      }
      if (j->rest || j->check) busy_[row] = true, ++rests_busy_;
      co_return std::move(*j);
    }
    const std::uint64_t now = rt_.wall_ms();
    const bool unsure = std::any_of(lengths_.begin(), lengths_.end(), [](const auto& l) { return l.second.waiting || l.second.rests || l.second.standing_by; });
    // Rests that there is no room for are no reason to look again at once.
    if (next_.empty() && (cursor_ != job_prefix || (rests_.empty() && due_ms_ <= now) || ((unsure || due_ms_ <= now) && passed_ms_ + pass_ms <= now))) {
      co_await look_for_more();
      continue;
    }
    const std::uint64_t wait_ms = due_ms_ <= now ? 200 : std::min<std::uint64_t>(due_ms_ - now, pass_ms);
    co_await wake_.wait(rt_.now() + milliseconds(wait_ms));
  }
}

}  // namespace grenier::gallery
