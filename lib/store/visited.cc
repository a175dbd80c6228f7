#include "store/visited.h"

namespace grenier::store {

namespace {
constexpr std::size_t entry_cost = 512;  // what keeping anything takes beside its bytes
}

std::optional<table::any_row> visited::row(const table::row_key& key, mono_time now) {
  auto at = rows_.find(key);
  if (at == rows_.end()) return std::nullopt;
  if (at->second->asked_at + staleness_ <= now) {
    remove(at->second);
    return std::nullopt;
  }
  all_.splice(all_.begin(), all_, at->second);
  return at->second->row;
}

void visited::keep(const table::row_key& key, const table::any_row& row, mono_time asked_at) {
  if (!keeps_rows()) return;
  if (auto old = rows_.find(key); old != rows_.end()) {
    if (old->second->asked_at > asked_at) return;
    remove(old->second);
  }
  entry e;
  e.key = key;
  e.row = row;
  e.asked_at = asked_at;
  e.size = entry_cost + key.partition_key.size() + key.sort_key.size() + row.row.value.row.size() + (row.row.value.body ? row.row.value.body->size() : 0);
  add(std::move(e));
}

shared_bytes visited::block(const block_hash& hash) {
  auto at = blocks_.find(hash);
  if (at == blocks_.end()) return nullptr;
  all_.splice(all_.begin(), all_, at->second);
  return at->second->content;
}

void visited::keep(const block_hash& hash, shared_bytes content) {
  if (!keeps_blocks() || blocks_.contains(hash)) return;
  entry e;
  e.hash = hash;
  e.size = entry_cost + content->size();
  e.content = std::move(content);
  add(std::move(e));
}

void visited::add(entry e) {
  if (e.size > bytes_max_ / 4) return;
  while (bytes_ + e.size > bytes_max_ && !all_.empty()) remove(std::prev(all_.end()));
  bytes_ += e.size;
  all_.push_front(std::move(e));
  const auto& now = all_.front();
  if (now.key) rows_.emplace(*now.key, all_.begin());
  else blocks_.emplace(now.hash, all_.begin());
}

void visited::remove(place at) {
  bytes_ -= at->size;
  if (at->key) rows_.erase(*at->key);
  else blocks_.erase(at->hash);
  all_.erase(at);
}

}  // namespace grenier::store
