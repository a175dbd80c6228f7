// Cards: ours and the others', and how they travel.
#include <algorithm>

#include "cluster.pb.h"
#include "cluster/impl.h"

namespace grenier::cluster {
namespace {

constexpr std::size_t message_max_bytes = 256 * 1024;
constexpr std::size_t cards_max_bytes = 160 * 1024;  // in one message; the rest comes in the next round
constexpr nanoseconds push_after = 20ms;             // several changes at once travel together
constexpr nanoseconds quiet_every = 10s;
constexpr std::size_t push_to = 3;
constexpr std::size_t gossip_to = 2;

bool parse(const wire::message& m, pb::Gossip& to) {
  return m.head.size() <= message_max_bytes && to.ParseFromString(m.head) &&
         static_cast<std::size_t>(to.digest_size()) <= nodes_max && static_cast<std::size_t>(to.wanted_size()) <= nodes_max &&
         static_cast<std::size_t>(to.cards_size()) <= nodes_max;
}
wire::message pack(const pb::Gossip& m) { return {m.SerializeAsString(), nullptr}; }

task<void> push_later(runtime& rt, std::move_only_function<void()> push) {
  co_await sleep_for(rt, push_after);
  push();
}

}  // namespace

// ------------------------------------------------------------------------------------------------- our own card

void directory::impl::changed(bool urgent) {
  if (!urgent) {
    if (!quiet_change) quiet_at = rt.now() + quiet_every;
    quiet_change = true;
    return;
  }
  quiet_change = false;
  own.incarnation = std::min(incarnation_max, std::max(own.incarnation + 1, (static_cast<std::uint64_t>(own.info.start) << 32) + 1));
  own_encoded.clear();
  if (push_planned || !running) return;
  push_planned = true;
  group.spawn("push", push_later(rt, [this] {
    push_planned = false;
    std::vector<node_id> near;
    for (const auto& [n, p] : peers)
      if (p.connected) near.push_back(n);
    for (std::size_t i = 0; i < push_to && !near.empty(); ++i) {
      const auto k = rt.random().below(near.size());
      exchange_with(near[k]);
      near.erase(near.begin() + static_cast<std::ptrdiff_t>(k));
    }
  }));
}

const bytes& directory::impl::own_raw() {
  if (own_encoded.empty()) {
    card c = own;
    c.info.addresses = own_addresses();
    own_encoded = encode(c);
  }
  return own_encoded;
}

// Somebody has a card of ours that is newer than ours: from a life that we do not remember, or made up. Ours must win.
void directory::impl::refute(std::uint64_t seen) {
  if (seen <= own.incarnation || seen >= incarnation_max || own.incarnation == 0) return;
  own.incarnation = seen;
  changed();
}

// ------------------------------------------------------------------------------------------------- which cards are known

std::uint64_t directory::impl::held_incarnation(node_id n) const {
  if (n == self) return own.incarnation;
  auto at = cards.find(n);
  return at == cards.end() ? 0 : at->second.card.incarnation;
}

std::vector<std::pair<node_id, std::uint64_t>> directory::impl::tellable() const {
  std::vector<std::pair<node_id, std::uint64_t>> r;
  bool told_self = own.incarnation == 0;
  for (const auto& [n, held] : cards) {
    if (!told_self && self < n) r.emplace_back(self, own.incarnation), told_self = true;
    auto p = peers.find(n);
    if (is_member(n) || (p != peers.end() && p->second.connected)) r.emplace_back(n, held.card.incarnation);
  }
  if (!told_self) r.emplace_back(self, own.incarnation);
  return r;
}

std::uint64_t directory::impl::summary() const {
  bytes all;
  for (const auto& [n, incarnation] : tellable()) {
    all.append(n.view());
    append_u64(all, incarnation);
  }
  return xxh3_64(all);
}

bool directory::impl::accepts(node_id from, const card& c) const {
  if (removed.contains(c.id)) return false;
  auto held = cards.find(c.id);
  auto p = peers.find(c.id);
  if (from == c.id) {
    // Its own word counts, whatever others may have made of it before.
    return held == cards.end() || c.incarnation > held->second.card.incarnation ||
           (!held->second.direct && c.incarnation != held->second.card.incarnation);
  }
  if (!is_member(from) && !members.empty()) return false;
  if (held != cards.end() && c.incarnation <= held->second.card.incarnation) return false;
  // Whoever is on the line says itself how far its card is.
  return p == peers.end() || !p->second.connected || p->second.told == 0 || c.incarnation <= p->second.told;
}

// Place for one more node that is no member; the one unheard of for longest, if nobody is connected to it, gives way.
bool directory::impl::make_room(node_id n) {
  if (is_member(n) || peers.contains(n)) return true;
  std::size_t others = 0;
  const std::pair<const node_id, peer>* oldest = nullptr;
  for (const auto& entry : peers) {
    if (is_member(entry.first)) continue;
    ++others;
    if (!entry.second.connected && !entry.second.dial && (!oldest || entry.second.mentioned < oldest->second.mentioned)) oldest = &entry;
  }
  if (others < (members.empty() ? nodes_max : others_max)) return true;
  if (!oldest || rt.now() - oldest->second.mentioned < 10s) return false;
  drop(oldest->first);
  return true;
}

bool directory::impl::take_card(node_id from, bytes_view raw) {
  auto c = decode_card(raw);
  if (!c) return false;
  if (c->id == self) {
    if (is_member(from) || members.empty()) refute(c->incarnation);
    return true;
  }
  if (!accepts(from, *c) || !make_room(c->id)) return true;
  const node_id n = c->id;
  auto& held = cards[n];
  held.card = std::move(*c);
  held.raw = bytes(raw);
  held.direct = from == n;
  know(n).mentioned = rt.now();
  learn_address(n);
  keep(n);
  const node now = describe(n);
  for (std::size_t i = 0; i < card_listeners.size(); ++i) (*card_listeners[i])(now);
  return true;
}

// ------------------------------------------------------------------------------------------------- exchanges

void directory::impl::gossip_round() {
  std::vector<node_id> near;
  for (const auto& [n, p] : peers)
    if (p.connected && (is_member(n) || members.empty())) near.push_back(n);
  for (std::size_t i = 0; i < gossip_to && !near.empty(); ++i) {
    const auto k = rt.random().below(near.size());
    exchange_with(near[k]);
    near.erase(near.begin() + static_cast<std::ptrdiff_t>(k));
  }
}

void directory::impl::exchange_with(node_id n) {
  auto at = peers.find(n);
  if (!running || at == peers.end() || at->second.exchanging || !at->second.connected) return;
  at->second.exchanging = true;
  group.spawn("gossip", exchange(n));
}

task<void> directory::impl::exchange(node_id n) {
  auto p = peers.find(n);
  if (p == peers.end()) co_return;
  pb::Gossip first;
  if (p->second.knows < own.incarnation) first.add_cards(own_raw());
  first.set_summary(summary());
  const wire::call_options how{wire::priority::metadata, rt.now() + 20s};
  auto answer = co_await ep.call(n, wire::method::gossip, pack(first), how);
  pb::Gossip theirs;
  if (answer && parse(*answer, theirs)) {
    for (const auto& raw : theirs.cards()) take_card(n, raw);
    if (theirs.has_digest()) {
      pb::Gossip second;
      compare(theirs, n, second);
      if (second.cards_size() || second.wanted_size()) {
        auto rest = co_await ep.call(n, wire::method::gossip, pack(second), how);
        pb::Gossip more;
        if (rest && parse(*rest, more))
          for (const auto& raw : more.cards()) take_card(n, raw);
      }
    }
  }
  if (auto at = peers.find(n); at != peers.end()) at->second.exchanging = false;
}

void directory::impl::compare(const pb::Gossip& theirs, node_id from, pb::Gossip& to) {
  std::map<node_id, std::uint64_t> known;
  for (const auto& k : theirs.digest())
    if (auto id = node_id::from_bytes(k.node())) known[*id] = k.incarnation();
  const bool trusted = is_member(from) || members.empty();
  for (const auto& [n, incarnation] : known) {
    if (n == self) {
      if (trusted) refute(incarnation);
      continue;
    }
    if (auto p = peers.find(n); trusted && p != peers.end()) p->second.mentioned = rt.now();
    card asked;
    asked.id = n;
    asked.incarnation = incarnation;
    if (incarnation > 0 && incarnation <= incarnation_max && accepts(from, asked)) to.add_wanted(n.str());
  }
  std::size_t size = 0;
  for (const auto& [n, incarnation] : tellable()) {
    auto at = known.find(n);
    if (n == from || (at != known.end() && at->second >= incarnation)) continue;
    const bytes& raw = n == self ? own_raw() : cards.at(n).raw;
    if ((size += raw.size()) > cards_max_bytes) break;
    to.add_cards(raw);
  }
}

task<result<wire::message>> directory::impl::answer_gossip(wire::caller from, wire::message m) {
  if (!running) co_return fail(errc::unavailable, "stopping");
  if (turn_away(from)) co_return fail(errc::access_denied, "not a member");
  pb::Gossip theirs;
  if (!parse(m, theirs)) co_return fail(errc::protocol, "these bytes are no gossip");
  for (const auto& raw : theirs.cards())
    if (!take_card(from.node, raw)) co_return fail(errc::protocol, "a card that is none");
  pb::Gossip answer;
  std::size_t size = 0;
  for (const auto& name : theirs.wanted()) {
    auto n = node_id::from_bytes(name);
    if (!n) continue;
    auto held = cards.find(*n);
    if (*n != self && held == cards.end()) continue;
    const bytes& raw = *n == self ? own_raw() : held->second.raw;
    if ((size += raw.size()) > cards_max_bytes) break;
    answer.add_cards(raw);
  }
  if (theirs.has_summary() && theirs.summary() != summary()) {
    answer.set_has_digest(true);
    for (const auto& [n, incarnation] : tellable()) {
      auto* k = answer.add_digest();
      k->set_node(n.str());
      k->set_incarnation(incarnation);
    }
  }
  co_return pack(answer);
}

}  // namespace grenier::cluster
