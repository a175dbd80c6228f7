#include "table/merkle.h"

namespace grenier::table {
namespace {

bytes leaf_key(layout::partition p, std::uint16_t leaf) {
  bytes b;
  append_u16(b, p);
  append_u16(b, leaf);
  return b;
}

std::uint64_t fold(const u128* first, std::size_t n) noexcept {
  return xxh3_64({reinterpret_cast<const char*>(first), n * sizeof(u128)});
}

}  // namespace

std::uint16_t merkle::leaf_of(bytes_view place) noexcept { return static_cast<std::uint16_t>(xxh3_64(place, 1) >> 52); }

u128 merkle::digest(bytes_view place, const ballot& b, bytes_view attempt, bool present) noexcept {
  if (!b) return {};
  bytes all(place);
  all.append(b.encode());
  all.append(attempt);
  all.push_back(present ? '\1' : '\0');
  return xxh3_128(all);
}

u128 merkle::digest(bytes_view place, bytes_view merged) noexcept {
  bytes all(place);
  all.push_back('\2');
  all.append(merged);
  return xxh3_128(all);
}

task<result<void>> merkle::load(layout::partition p) {
  auto guard = co_await loading_.lock(partition_prefix(p));
  if (auto known = loaded_.find(p); known != loaded_.end()) {
    known->second.used = ++uses_;
    co_return result<void>();
  }
  tree t{.leaves = std::vector<u128>(merkle_leaves), .holds = 0, .used = 0};
  kv::scan_options s{.from = leaf_key(p, 0), .until = after_prefix(partition_prefix(p)), .entries_max = merkle_leaves};
  CO_TRY(auto all, co_await store_.scan(kv::family::merkle, std::move(s)));
  for (const auto& e : all) {
    if (e.key.size() != 4 || e.value.size() != 16 || read_u16(bytes_view(e.key).substr(2)) >= merkle_leaves) continue;
    t.leaves[read_u16(bytes_view(e.key).substr(2))] = {read_u64(e.value), read_u64(bytes_view(e.value).substr(8))};
  }
  make_room();
  t.used = ++uses_;
  loaded_.emplace(p, std::move(t));
  co_return result<void>();
}

void merkle::make_room() {
  while (loaded_.size() >= merkle_loaded_max) {
    auto oldest = loaded_.end();
    for (auto at = loaded_.begin(); at != loaded_.end(); ++at)
      if (at->second.holds == 0 && (oldest == loaded_.end() || at->second.used < oldest->second.used)) oldest = at;
    if (oldest == loaded_.end()) return;
    loaded_.erase(oldest);
  }
}

merkle::tree& merkle::at(layout::partition p) {
  auto found = loaded_.find(p);
  ASSERT(found != loaded_.end());
  return found->second;
}

void merkle::write(layout::partition p, std::uint16_t n, const u128& leaf, kv::batch& b) {
  if (leaf == u128{}) return b.remove(kv::family::merkle, leaf_key(p, n));
  bytes v;
  append_u64(v, leaf.high);
  append_u64(v, leaf.low);
  b.put(kv::family::merkle, leaf_key(p, n), std::move(v));
}

void merkle::change(layout::partition p, bytes_view place, u128 before, u128 after, kv::batch& b) {
  if (before == after) return;
  const std::uint16_t n = leaf_of(place);
  u128& leaf = at(p).leaves[n];
  leaf ^= before;
  leaf ^= after;
  roots_.erase(p);
  write(p, n, leaf, b);
  b.if_lost([this, p, n, before, after] {
    auto found = loaded_.find(p);
    if (found == loaded_.end()) return;
    u128& changed = found->second.leaves[n];
    changed ^= before;
    changed ^= after;
    roots_.erase(p);
  });
}

void merkle::replace(layout::partition p, std::vector<u128> leaves, kv::batch& b) {
  ASSERT(leaves.size() == merkle_leaves);
  auto& kept = at(p).leaves;
  b.if_lost([this, p, old = kept] {
    if (auto found = loaded_.find(p); found != loaded_.end()) found->second.leaves = old;
    roots_.erase(p);
  });
  kept = std::move(leaves);
  roots_.erase(p);
  for (std::size_t n = 0; n < merkle_leaves; ++n) write(p, static_cast<std::uint16_t>(n), kept[n], b);
}

std::vector<std::uint64_t> merkle::leaves(layout::partition p, std::size_t i) {
  ASSERT(i < merkle_inner);
  const auto& all = at(p).leaves;
  std::vector<std::uint64_t> r;
  for (std::size_t k = 0; k < merkle_leaves / merkle_inner; ++k) {
    const u128& l = all[i * (merkle_leaves / merkle_inner) + k];
    r.push_back(l.high ^ l.low);
  }
  return r;
}

std::vector<std::uint64_t> merkle::inner(layout::partition p) {
  const auto& all = at(p).leaves;
  std::vector<std::uint64_t> r;
  constexpr std::size_t each = merkle_leaves / merkle_inner;
  for (std::size_t i = 0; i < merkle_inner; ++i) r.push_back(fold(all.data() + i * each, each));
  return r;
}

std::optional<std::uint64_t> merkle::known_root(layout::partition p) const {
  auto known = roots_.find(p);
  return known == roots_.end() ? std::nullopt : std::optional(known->second);
}

std::uint64_t merkle::root(layout::partition p) {
  if (auto known = roots_.find(p); known != roots_.end()) return known->second;
  const auto& all = at(p).leaves;
  return roots_[p] = fold(all.data(), all.size());
}

}  // namespace grenier::table
