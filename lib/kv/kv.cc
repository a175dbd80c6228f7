#include "kv/kv.h"

#include "kv/bounds.h"

namespace grenier::kv {

std::string_view to_string(family f) noexcept {
  switch (f) {
    case family::meta: return "meta";
    case family::row: return "row";
    case family::body: return "body";
    case family::merkle: return "merkle";
    case family::hint: return "hint";
    case family::reference: return "reference";
    case family::block: return "block";
    case family::task_queue: return "task_queue";
    case family::feed: return "feed";
    case family::count_: break;
  }
  return "unknown";
}

std::size_t batch::size_bytes() const noexcept {
  std::size_t n = 0;
  for (const auto& o : ops_) n += o.key.size() + o.value.size() + 16;
  return n;
}

void undo_list::append(undo_list other) {
  for (auto& fn : std::exchange(other.all_, {})) all_.push_back(std::move(fn));
}

void undo_list::run() {
  while (!all_.empty()) {
    auto fn = std::move(all_.back());
    all_.pop_back();
    fn();
  }
}

void batch::append(batch other) {
  undo_.append(other.take_undo());
  ops_.insert(ops_.end(), std::make_move_iterator(other.ops_.begin()), std::make_move_iterator(other.ops_.end()));
}

result<void> check(const batch& b) {
  for (const auto& o : b.ops()) {
    if (o.key.size() > key_bytes_max) return fail(errc::too_large, "a key of more than 4 KiB");
    if (o.value.size() > value_bytes_max) return fail(errc::too_large, "a value of more than 16 MiB");
  }
  if (b.size_bytes() > batch_bytes_max) return fail(errc::too_large, "a batch of more than 64 MiB");
  return {};
}

store::step collector::operator()(bytes_view key, bytes_view value) {
  std::size_t size = key.size() + value.size();
  if (!entries.empty() && bytes_taken + size > options.bytes_max) return {store::step::kind::stop, {}};
  if (entries.size() >= options.entries_max) return {store::step::kind::stop, {}};
  bytes_taken += size;
  entries.push_back({bytes(key), bytes(value)});
  return {entries.size() >= options.entries_max ? store::step::kind::stop : store::step::kind::next, {}};
}

}  // namespace grenier::kv
