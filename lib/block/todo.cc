#include "block/todo.h"

#include <algorithm>

namespace grenier::block {

namespace {
constexpr std::size_t fresh_max = 1024;
constexpr std::size_t slice = 512;
constexpr nanoseconds pass_at_least_each = 10min, clock_looked_at_each = 1min;
// More than any clock is corrected by bit by bit in a minute.
constexpr std::int64_t clock_step_ms = 5000;

// How long a pause may be after so many attempts (manager::impl::later): four times longer each, up to an hour, and a quarter more at random.
std::uint64_t pause_max_ms(std::uint32_t attempts) {
  if (attempts == 0) return UINT64_MAX / 2;
  return (std::min<std::uint64_t>(3'600'000, std::uint64_t{1000} << 2 * std::min(attempts - 1, 6u)) * 5) / 4 + 1000;
}

bytes encode(const todo& t) {
  bytes b;
  append_u64(b, t.due_ms);
  append_u64(b, t.since_ms);
  append_u32(b, t.attempts);
  return b + t.origin.str();
}

std::optional<todo> decode(bytes_view key, bytes_view value) {
  if (key.size() != 33 || value.size() != 52) return std::nullopt;
  return todo{*block_hash::from_bytes(key.substr(1)), read_u64(value), read_u64(value.substr(8)), read_u32(value.substr(16)),
              *node_id::from_bytes(value.substr(20))};
}

bytes end_of(row_kind k) { return bytes(1, static_cast<char>(static_cast<char>(k) + 1)); }
}  // namespace

bytes row_of(row_kind k, const block_hash& h) { return bytes(1, static_cast<char>(k)) + h.str(); }

task<result<void>> todo_queue::load() {
  for (bytes from(1, static_cast<char>(kind_));;) {
    CO_TRY(auto rows, co_await kv_.scan(kv::family::block, {.from = from, .until = end_of(kind_)}));
    for (const auto& r : rows)
      if (auto t = decode(r.key, r.value)) known_.insert(t->hash);
    if (rows.empty()) co_return result<void>();
    from = rows.back().key + '\0';
  }
}

void todo_queue::add(kv::batch& b, todo t) {
  if (t.since_ms == 0) t.since_ms = rt_.wall_ms();
  b.put(kv::family::block, row_of(kind_, t.hash), encode(t));
  if (known_.insert(t.hash)) b.if_lost([this, h = t.hash] { known_.erase(h); });
  if (busy_.contains(t.hash)) again_.insert(t.hash);
  // The row is not visible yet: whoever takes a fresh entry looks for it a little later.
  if (fresh_.size() < fresh_max && t.due_ms < rt_.wall_ms() + 60'000)
    fresh_.emplace_back(std::max(t.due_ms, rt_.wall_ms() + 20), t.hash);
  else
    earliest_ms_ = earliest_ms_ ? std::min(earliest_ms_, t.due_ms) : t.due_ms;
  added_.wake_all();
}

void todo_queue::remove(kv::batch& b, const block_hash& h) {
  if (known_.erase(h)) b.if_lost([this, h] { known_.insert(h); });
  b.remove(kv::family::block, row_of(kind_, h));
}

task<result<std::optional<todo>>> todo_queue::find(block_hash h) {
  bytes key = row_of(kind_, h);
  CO_TRY(auto v, co_await kv_.get(kv::family::block, key));
  co_return v ? decode(key, *v) : std::nullopt;
}

void todo_queue::hurry() {
  hurry_ = true;
  look_again_ = true;
  cursor_.clear();
  added_.wake_all();
}

bool todo_queue::clock_was_set() {
  const auto now = static_cast<std::int64_t>(rt_.wall_ms()) - std::chrono::duration_cast<milliseconds>(rt_.now().time_since_epoch()).count();
  const bool step = wall_less_steady_ms_ && std::abs(now - *wall_less_steady_ms_) > clock_step_ms;
  if (step || !wall_less_steady_ms_) wall_less_steady_ms_ = now;
  return step;
}

// A clock that was wrong once must not put work off for hours. The pauses stay what they were.
bool todo_queue::rebase(todo& t) const {
  const std::uint64_t now = rt_.wall_ms();
  if (t.since_ms <= now + static_cast<std::uint64_t>(clock_step_ms)) return false;
  t.due_ms = now + (t.due_ms > t.since_ms ? t.due_ms - t.since_ms : 0);
  t.since_ms = now;
  return true;
}

task<bool> todo_queue::take_fresh(std::vector<todo>& to, std::size_t max) {
  std::uint64_t now = rt_.wall_ms();
  std::vector<block_hash> due;
  std::erase_if(fresh_, [&](const auto& f) {
    if (f.first > now || due.size() >= max || busy_.contains(f.second)) return false;
    due.push_back(f.second);
    return true;
  });
  for (const auto& h : due) {
    auto t = co_await find(h);
    if (t && *t && !busy_.contains(h)) {
      if ((*t)->due_ms <= rt_.wall_ms()) to.push_back(**t);
      else fresh_.emplace_back((*t)->due_ms, h);
    } else if (t && !*t && known_.contains(h)) {
      fresh_.emplace_back(rt_.wall_ms() + 1000, h);  // its batch is slow, and no pass would see it either
    } else if (!t) {
      look_again_ = true;
    }
  }
  co_return !to.empty();
}

task<void> todo_queue::pass(std::vector<todo>& to, std::size_t max) {
  if (cursor_.empty()) {
    cursor_ = bytes(1, static_cast<char>(kind_));
    earliest_ms_ = 0;
    passed_ = 0;
    passed_at_ = rt_.now();
    hurrying_ = std::exchange(hurry_, false);
  }
  while (to.size() < max) {
    auto rows = co_await kv_.scan(kv::family::block, {.from = cursor_, .until = end_of(kind_), .entries_max = slice});
    if (!rows || rows->empty()) {
      cursor_.clear();
      look_again_ = hurry_;
      // An entry that was not met may be in a batch that is slow, and nothing else would lead to it.
      const std::uint64_t soon = rt_.wall_ms() + 10'000;
      if (!rows || passed_ < known_.size()) earliest_ms_ = earliest_ms_ ? std::min(earliest_ms_, soon) : soon;
      co_return;
    }
    std::uint64_t now = rt_.wall_ms();
    kv::batch anew;
    for (const auto& r : *rows) {
      if (to.size() >= max) break;
      cursor_ = r.key + '\0';
      ++passed_;
      auto t = decode(r.key, r.value);
      if (!t || busy_.contains(t->hash)) continue;
      if (rebase(*t)) anew.put(kv::family::block, r.key, encode(*t));
      // Longer than such a pause is: put off by a clock that was ahead.
      if (t->due_ms <= now || t->due_ms > now + pause_max_ms(t->attempts) || hurrying_)
        to.push_back(*t);
      else
        earliest_ms_ = earliest_ms_ ? std::min(earliest_ms_, t->due_ms) : t->due_ms;
    }
    if (!anew.empty()) (void)co_await kv_.commit(std::move(anew));
  }
}

task<std::vector<todo>> todo_queue::next(std::size_t max) {
  for (;;) {
    std::vector<todo> to;
    if (clock_was_set()) {
      fresh_.clear();
      cursor_.clear();
      look_again_ = true;
    }
    if (co_await take_fresh(to, max)) co_return to;
    if (look_again_) co_await pass(to, max);
    if (!to.empty()) co_return to;
    std::uint64_t now = rt_.wall_ms(), wake = now + (known_.size() ? clock_looked_at_each : pass_at_least_each) / 1ms;
    // Not more often than each second: a pass over a long queue is work.
    if (earliest_ms_) wake = std::min(wake, std::max(earliest_ms_, now + 1000));
    for (const auto& f : fresh_) wake = std::min(wake, std::max(f.first, now + 5));
    if (look_again_) wake = std::min(wake, now + 1000);
    co_await added_.wait(rt_.now() + milliseconds(wake - now));
    // Now and then whatever the times say: the clock they were made by may have been ahead.
    if ((earliest_ms_ && earliest_ms_ <= rt_.wall_ms()) || (known_.size() && rt_.now() >= passed_at_ + pass_at_least_each)) look_again_ = true;
  }
}

}  // namespace grenier::block
