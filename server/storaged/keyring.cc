#include "storaged/keyring.h"

#include <nlohmann/json.hpp>

namespace grenier::storaged {

namespace {

using json = nlohmann::json;

constexpr std::string_view keyring_name = "cluster/keyring", key_name = "cluster/key";  // key_name: the current one alone, as versions without a keyring wrote it
constexpr std::string_view announced = "cluster_key";
constexpr std::size_t keyring_bytes_max = 1 << 20, without_max = 4096;  // as many as a layout remembers
// Whoever removed a home changes the key himself when the layout's change has ended; the others wait so long before they do it for him.
constexpr nanoseconds change_pause_min = 10s, change_pause_spread = 20s;
constexpr nanoseconds look_interval = 1s, call_time = 5s, change_time = 15s;

table::row_key row_of_keyring() { return {table::table_id::setting, "cluster key", {}}; }

}  // namespace

// ------------------------------------------------------------------------------------------------- the row

bytes keyring::encode() const {
  json j = {{"changes", changes}, {"keys", json::array()}, {"without", json::array()}};
  for (const auto& k : keys) j["keys"].push_back(to_hex(k));
  for (const auto& n : without) j["without"].push_back(n.hex());
  return j.dump();
}

result<keyring> keyring::decode(bytes_view b) {
  const auto wrong = fail(errc::protocol, "this is no keyring of a cluster");
  if (b.size() > keyring_bytes_max) return wrong;
  const json j = json::parse(b, nullptr, false);
  if (!j.is_object()) return wrong;
  auto changes = j.find("changes"), keys = j.find("keys"), without = j.find("without");
  if (changes == j.end() || !changes->is_number_unsigned() || keys == j.end() || !keys->is_array() || without == j.end() || !without->is_array()) return wrong;
  if (keys->empty() || keys->size() > 1 + wire::former_keys_max || without->size() > without_max) return wrong;
  keyring r;
  r.changes = changes->get<std::uint64_t>();
  for (const auto& k : *keys) {
    auto raw = from_hex(k.is_string() ? k.get<std::string>() : std::string());
    if (!raw || raw->size() != 32) return wrong;
    r.keys.push_back(std::move(*raw));
  }
  for (const auto& n : *without) {
    auto raw = from_hex(n.is_string() ? n.get<std::string>() : std::string());
    if (!raw) return wrong;
    TRY(node_id id, node_id::from_bytes(*raw));
    r.without.insert(id);
  }
  return r;
}

// ------------------------------------------------------------------------------------------------- this home's copy

key_keeper::key_keeper(runtime& rt, kv::store& kv) : rt_(rt), kv_(kv), adopting_(rt, 1) {}

keyring key_keeper::first(random_source& r) {
  keyring k;
  k.keys.emplace_back(32, '\0');
  r.fill(k.keys[0].data(), k.keys[0].size());
  return k;
}

task<result<void>> key_keeper::load() {
  CO_TRY(auto whole, co_await kv_.get(kv::family::meta, bytes(keyring_name)));
  if (whole) {
    CO_TRY(ring_, keyring::decode(*whole));
    co_return result<void>();
  }
  CO_TRY(auto key, co_await kv_.get(kv::family::meta, bytes(key_name)));
  if (!key || key->size() != 32) co_return fail(errc::io_failed, "the cluster's key in the database is damaged");
  ring_ = {0, {std::move(*key)}, {}};
  co_return result<void>();
}

void key_keeper::begin(keyring r, kv::batch& b) {
  ring_ = std::move(r);
  b.put(kv::family::meta, bytes(keyring_name), ring_.encode());
  b.put(kv::family::meta, bytes(key_name), ring_.keys[0]);
}

task<result<void>> key_keeper::adopt(keyring r) {
  auto alone = co_await adopting_.acquire();
  if (r.changes <= ring_.changes) co_return result<void>();
  kv::batch b;
  b.put(kv::family::meta, bytes(keyring_name), r.encode());
  b.put(kv::family::meta, bytes(key_name), r.keys[0]);
  CO_TRY_VOID(co_await kv_.commit(std::move(b)));
  ring_ = std::move(r);
  rt_.log(log_level::info, "the cluster has a new key (change " + std::to_string(ring_.changes) + "): a home was removed");
  s_->wire.set_cluster_keys(ring_.keys);
  for (const auto& n : ring_.without) s_->wire.forget(n);  // connections that stand go on, but not theirs
  (void)s_->directory.announce_number(std::string(announced), ring_.changes);
  co_return result<void>();
}

// ------------------------------------------------------------------------------------------------- between homes

void key_keeper::prepare(services s, std::function<void()> removed) {
  s_.emplace(s);
  removed_ = std::move(removed);
  (void)s_->directory.announce_number(std::string(announced), ring_.changes);
  s_->wire.on_former_key([this](node_id n) {
    return running_ && (s_->tables.layout().find(n) || is_removed(n));
  });
  s_->wire.serve(wire::method::member_info, [this](wire::caller from, wire::message m) { return answer(std::move(from), std::move(m)); });
}

task<result<wire::message>> key_keeper::answer(wire::caller from, wire::message) {
  if (!running_) co_return fail(errc::unavailable, "not ready yet");
  const layout::state& now = s_->tables.layout();
  json j = {{"layout", now.revision}};
  if (is_removed(from.node)) {
    j["removed"] = true;
    if (told_.insert(from.node).second)
      rt_.log(log_level::warning, "cluster: " + from.node.short_hex() + " was removed from the cluster and calls again: it is told so, and takes no part");
  } else if (now.find(from.node)) {
    j["keyring"] = ring_.encode();
  } else {
    co_return fail(errc::access_denied, "not a member");
  }
  co_return wire::message{j.dump(), nullptr};
}

task<void> key_keeper::ask(node_id n) {
  auto r = co_await s_->wire.call(n, wire::method::member_info, {"{}", nullptr}, {wire::priority::control, rt_.now() + call_time});
  if (!r) co_return;
  const json j = json::parse(r->head, nullptr, false);
  if (!j.is_object()) co_return;
  if (auto gone = j.find("removed"); gone != j.end() && gone->is_boolean() && gone->get<bool>()) co_return removed_();
  auto at = j.find("keyring");
  if (at == j.end() || !at->is_string()) co_return;
  auto ring = keyring::decode(at->get_ref<const std::string&>());
  if (!ring) {
    rt_.log(log_level::warning, "cluster key: " + n.short_hex() + " answers with something else: " + ring.error().detail);
    co_return;
  }
  if (auto ok = co_await adopt(std::move(*ring)); !ok) rt_.log(log_level::warning, "cluster key: " + ok.error().to_string());
}

std::vector<node_id> key_keeper::who_knows_more() const {
  std::vector<node_id> all = s_->wire.newer_key_at();
  for (const auto& m : s_->directory.members())
    if (m != s_->directory.self() && s_->directory.up(m) && s_->directory.announced_number(m, std::string(announced)).value_or(0) > ring_.changes &&
        std::ranges::find(all, m) == all.end())
      all.push_back(m);
  return all;
}

std::set<node_id> key_keeper::owed(const keyring& r) const {
  std::set<node_id> all;
  for (const auto& n : s_->tables.layout().removed)
    if (!r.without.contains(n) && !s_->tables.layout().find(n)) all.insert(n);
  return all;
}

// While the layout changes, a removed home is still in the version that ends.
bool key_keeper::is_removed(node_id n) const {
  const auto& gone = s_->tables.layout().removed;
  return std::ranges::find(gone, n) != gone.end();
}

bool key_keeper::is_current() const { return s_ && owed(ring_).empty() && who_knows_more().empty(); }

task<void> key_keeper::run() {
  running_ = true;
  for (mono_time change_at = never;;) {
    co_await sleep_for(rt_, look_interval);
    if (!is_removed(s_->directory.self()) && s_->tables.layout().find(s_->directory.self()) && !owed(ring_).empty()) {
      if (change_at == never)
        change_at = rt_.now() + change_pause_min + nanoseconds(rt_.random().below(static_cast<std::uint64_t>(change_pause_spread.count())));
      if (rt_.now() >= change_at) {
        change_at = never;
        if (auto r = co_await change(rt_.now() + change_time); !r)
          rt_.log(log_level::warning, "the cluster's key is not changed yet though a home was removed, it is tried again: " + r.error().to_string());
      }
    } else {
      change_at = never;
    }
    for (const auto& n : who_knows_more()) co_await ask(n);
  }
}

task<result<void>> key_keeper::change(mono_time deadline) {
  if (owed(ring_).empty()) co_return result<void>();
  for (const auto& n : s_->directory.up_members())
    if (n != s_->directory.self() && !s_->directory.announced_number(n, std::string(announced)))
      co_return fail(errc::conflict, "home " + s_->directory.find(n).value_or(cluster::node{}).info.zone + " (" + n.short_hex() + ") runs a version that could not follow: upgrade it");
  const bytes fresh = first(rt_.random()).keys[0];
  auto judge = [this, fresh](const table::row& current) -> result<table::row_value> {
    keyring r = ring_;
    if (current.value.present) {
      TRY(keyring there, keyring::decode(current.value.row));
      if (there.changes >= r.changes) r = std::move(there);
    }
    const auto missing = owed(r);
    if (missing.empty() && current.value.present) return current.value;
    r.changes += 1;
    r.keys.insert(r.keys.begin(), fresh);
    if (r.keys.size() > 1 + wire::former_keys_max) r.keys.resize(1 + wire::former_keys_max);
    r.without.insert(missing.begin(), missing.end());
    std::erase_if(r.without, [&](const node_id& n) { return r.without.size() > without_max && !is_removed(n); });
    return table::row_value{true, r.encode(), nullptr};
  };
  CO_TRY(auto row, co_await s_->tables.compare_and_swap(row_of_keyring(), std::move(judge), {.deadline = deadline}));
  CO_TRY(keyring r, keyring::decode(row.value.row));
  co_return co_await adopt(std::move(r));
}

}  // namespace grenier::storaged
