#include "cluster/cluster.h"

#include <algorithm>

#include "cluster.pb.h"
#include "cluster/impl.h"

namespace grenier::cluster {

namespace {
constexpr nanoseconds late_min = 150ms;  // of a process that waits for the processor or its disk, not for the line

// Space and load alone are not worth a message each time.
bool only_amounts_differ(self_info a, const self_info& b) {
  a.space_free_bytes = b.space_free_bytes;
  a.space_total_bytes = b.space_total_bytes;
  a.load = b.load;
  return a == b;
}
}  // namespace

directory::impl::impl(runtime& r, wire::endpoint& e, node_id s, options o) : rt(r), ep(e), self(s), opt(o), group(r) {
  own.id = s;
  // The endpoint may outlive this by a little: then nobody answers any more.
  auto gone = [](wire::caller, wire::message) -> task<result<wire::message>> { co_return fail(errc::unavailable, "stopping"); };
  std::weak_ptr<bool> here = alive;
  ep.serve(wire::method::ping, [this, here, gone](wire::caller c, wire::message m) {
    return here.expired() ? gone(std::move(c), std::move(m)) : answer_ping(std::move(c), std::move(m));
  });
  ep.serve(wire::method::gossip, [this, here, gone](wire::caller c, wire::message m) {
    return here.expired() ? gone(std::move(c), std::move(m)) : answer_gossip(std::move(c), std::move(m));
  });
  ep.on_connection([this, here](node_id n, bool connected) {
    if (!here.expired()) connection(n, connected);
  });
}

// ------------------------------------------------------------------------------------------------- this node

std::vector<std::string> directory::impl::own_addresses() const {
  std::vector<std::string> r;
  // Where others see us, the most often first; loopback only when there is nothing else.
  std::map<std::string, std::size_t> hosts;
  if (own.info.rpc_port)
    for (const auto& [from, host] : reports) ++hosts[host];
  std::vector<std::pair<std::size_t, std::string>> order;
  for (const auto& [host, count] : hosts)
    if (!is_loopback(host)) order.emplace_back(hosts.size() + reports.size() - count, host);
  std::sort(order.begin(), order.end());
  if (order.size() > addresses_max / 2) order.resize(addresses_max / 2);
  for (const auto& [rank, host] : order) r.push_back(host + ":" + std::to_string(own.info.rpc_port));
  for (const auto& a : own.info.addresses)
    if (r.size() < addresses_max && valid_address(a) && std::find(r.begin(), r.end(), a) == r.end()) r.push_back(a);
  if (r.empty() && !hosts.empty()) r.push_back(hosts.begin()->first + ":" + std::to_string(own.info.rpc_port));
  return r;
}

void directory::impl::set_self(self_info i) {
  if (i == own.info) return;
  const bool quiet = own.incarnation > 0 && only_amounts_differ(i, own.info);
  own.info = std::move(i);
  if (!valid_zone(own.info.zone)) own.info.zone.clear();
  while (own.info.services.size() > services_max) own.info.services.erase(std::prev(own.info.services.end()));
  changed(!quiet);
}

// ------------------------------------------------------------------------------------------------- the others

peer& directory::impl::know(node_id n) {
  ASSERT(n != self);
  auto [at, fresh] = peers.try_emplace(n, opt.heartbeat_every);
  if (fresh) {
    at->second.since = at->second.mentioned = rt.now();
    at->second.connected = ep.connected(n);
  }
  return at->second;
}

void directory::impl::drop(node_id n) {
  ep.forget(n);
  if (auto at = peers.find(n); at != peers.end()) {
    if (at->second.up) news.emplace_back(n, false);
    peers.erase(at);
  }
  cards.erase(n);
  reports.erase(n);
}

void directory::impl::set_members(std::vector<node_id> now, std::vector<node_id> out) {
  const auto before = std::move(members);
  members = std::set<node_id>(now.begin(), now.end());
  removed = std::set<node_id>(out.begin(), out.end());
  for (const auto& n : members) removed.erase(n);
  outcast = removed.erase(self) != 0;
  if (outcast) {
    members = {self};
    while (!peers.empty()) drop(peers.begin()->first);
    cards.clear();
    return tell_liveness();
  }
  for (const auto& n : removed)
    if (peers.contains(n) || cards.contains(n)) drop(n);
  for (const auto& n : before)
    if (!members.contains(n) && n != self && peers.contains(n)) drop(n);
  for (const auto& n : members) {
    if (n == self) continue;
    know(n).dial = true;
    keep(n);
  }
  tell_liveness();
}

bool directory::impl::is_up(node_id n) const {
  if (n == self) return true;
  auto at = peers.find(n);
  return at != peers.end() && at->second.up;
}

node directory::impl::describe(node_id n) const {
  node r;
  r.id = n;
  r.member = members.contains(n);
  r.up = is_up(n);
  auto held = cards.find(n);
  const card* c = n == self ? &own : held != cards.end() ? &held->second.card : nullptr;
  if (c) {
    r.info = c->info;
    r.announced = c->announced;
    r.links = c->links;
    r.incarnation = c->incarnation;
  }
  if (n == self) r.info.addresses = own_addresses();
  if (auto p = peers.find(n); p != peers.end())
    for (auto a = p->second.seen.rbegin(); a != p->second.seen.rend(); ++a) remember(r.info.addresses, *a);
  auto dialled = [&](const card& by) {
    auto l = by.links.find(n);
    return l != by.links.end() && l->second.dialled;
  };
  r.reachable = dialled(own) || std::any_of(cards.begin(), cards.end(), [&](const auto& h) { return dialled(h.second.card); });
  return r;
}

bool directory::impl::is_late(node_id n) const {
  if (n == self) return false;
  auto at = peers.find(n);
  if (at == peers.end() || !at->second.up) return true;
  return at->second.asked && rt.now() - *at->second.asked > late_min + 3 * ep.quality(n).rtt;
}

// ------------------------------------------------------------------------------------------------- what reads meet

namespace {
constexpr unsigned misses_enough = 3;
constexpr nanoseconds first_pause = 5s, pause_max = 60s;
}  // namespace

void directory::impl::read_answered(node_id n, reads kind) {
  if (auto at = peers.find(n); at != peers.end()) at->second.reading_of[static_cast<std::size_t>(kind)] = {};
}

void directory::impl::read_missed(node_id n, reads kind) {
  auto at = peers.find(n);
  if (n == self || at == peers.end()) return;
  auto& r = at->second.reading_of[static_cast<std::size_t>(kind)];
  if (r.missed < misses_enough) {
    if (++r.missed < misses_enough) return;
    r.pause = first_pause;
  } else if (std::exchange(r.tried, false)) {
    r.pause = std::min(2 * r.pause, pause_max);
  } else {
    return;  // it was asked before all this
  }
  r.try_again = rt.now() + r.pause;
}

bool directory::impl::misses_reads(node_id n, reads kind) const {
  auto at = peers.find(n);
  return at != peers.end() && at->second.reading_of[static_cast<std::size_t>(kind)].missed >= misses_enough;
}

std::vector<node_id> directory::impl::by_quality(std::vector<node_id> of, reads reading) {
  // Of those that missed reads, one at a time is tried again.
  bool trying = false;
  auto put_off = [&](peer& p) {
    auto& r = p.reading_of[static_cast<std::size_t>(reading)];
    if (r.missed < misses_enough) return false;
    if (trying || rt.now() < r.try_again) return true;
    trying = r.tried = true;
    r.try_again = rt.now() + r.pause;
    return false;
  };
  struct entry {
    int kind;  // 0 self, 1 connected, 2 up but its connection is gone, or it is late or misses reads, 3 down
    nanoseconds rank;
    std::size_t index;
    auto operator<=>(const entry&) const = default;
  };
  std::vector<entry> order;
  for (std::size_t i = 0; i < of.size(); ++i) {
    auto p = peers.find(of[i]);
    if (of[i] == self) {
      order.push_back({0, {}, i});
    } else if (p == peers.end() || !p->second.up) {
      order.push_back({3, p == peers.end() ? nanoseconds::max() : p->second.rank, i});
    } else {
      order.push_back({p->second.connected && !is_late(of[i]) && !put_off(p->second) ? 1 : 2, p->second.rank.count() ? p->second.rank : nanoseconds(1s), i});
    }
  }
  std::sort(order.begin(), order.end());
  std::vector<node_id> r;
  for (const auto& e : order) r.push_back(of[e.index]);
  return r;
}

// ------------------------------------------------------------------------------------------------- the public face

directory::directory(runtime& rt, wire::endpoint& ep, node_id self, options o) : impl_(std::make_unique<impl>(rt, ep, self, o)) {}
directory::~directory() = default;

void directory::start() {
  impl_->running = true;
  for (const auto& n : impl_->ep.peers()) impl_->connection(n, true);
  impl_->group.spawn("cluster", impl_->run());
}

task<void> directory::stop() {
  impl_->running = false;
  impl_->group.cancel();
  co_await impl_->group.join();
}

node_id directory::self() const noexcept { return impl_->self; }
void directory::set_self(self_info i) { impl_->set_self(std::move(i)); }
const self_info& directory::self_information() const noexcept { return impl_->own.info; }

void directory::set_layout_revision(std::uint64_t r) {
  if (impl_->own.info.layout_revision == r) return;
  impl_->own.info.layout_revision = r;
  impl_->changed();
}

result<void> directory::announce(std::string name, bytes value) {
  if (name.empty() || name.size() > 64 || std::any_of(name.begin(), name.end(), [](char c) { return c <= 32 || c >= 127; }))
    return fail(errc::invalid_argument, "what a node announces has a name of 1 to 64 printable characters");
  auto& all = impl_->own.announced;
  auto next = all;
  if (value.empty()) {
    next.erase(name);
  } else {
    next[name] = std::move(value);
  }
  if (announced_size(next) > announced_max_bytes) return fail(errc::too_large, "a node cannot announce that much");
  if (next == all) return {};
  all = std::move(next);
  impl_->changed();
  return {};
}

result<void> directory::announce_number(std::string name, std::uint64_t value) {
  bytes b;
  append_u64(b, value);
  return announce(std::move(name), std::move(b));
}

void directory::set_members(std::vector<node_id> members, std::vector<node_id> removed) {
  impl_->set_members(std::move(members), std::move(removed));
}

void directory::add_peer(node_id n, std::vector<std::string> addresses) {
  if (n == impl_->self || !n || impl_->outcast || impl_->removed.contains(n)) return;
  auto& p = impl_->know(n);
  p.dial = true;
  for (auto a = addresses.rbegin(); a != addresses.rend(); ++a)
    if (valid_address(*a)) remember(p.seen, *a);
  impl_->keep(n);
}

std::optional<node> directory::find(node_id n) const {
  if (n != impl_->self && !impl_->cards.contains(n) && !impl_->peers.contains(n)) return std::nullopt;
  return impl_->describe(n);
}

std::vector<node> directory::nodes() const {
  std::set<node_id> ids{impl_->self};
  for (const auto& [n, c] : impl_->cards) ids.insert(n);
  for (const auto& [n, p] : impl_->peers) ids.insert(n);
  std::vector<node> r;
  for (const auto& n : ids) r.push_back(impl_->describe(n));
  return r;
}

std::vector<node_id> directory::members() const { return {impl_->members.begin(), impl_->members.end()}; }

std::optional<bytes> directory::announced(node_id n, const std::string& name) const {
  auto held = impl_->cards.find(n);
  const card* c = n == impl_->self ? &impl_->own : held != impl_->cards.end() ? &held->second.card : nullptr;
  if (!c) return std::nullopt;
  auto at = c->announced.find(name);
  if (at == c->announced.end()) return std::nullopt;
  return at->second;
}

std::optional<std::uint64_t> directory::announced_number(node_id n, const std::string& name) const {
  auto b = announced(n, name);
  if (!b || b->size() != 8) return std::nullopt;
  return read_u64(*b);
}

std::vector<node_id> directory::offering(const std::string& service) const {
  std::vector<node_id> r;
  if (impl_->own.info.services.contains(service)) r.push_back(impl_->self);
  for (const auto& [n, held] : impl_->cards)
    if (held.card.info.services.contains(service) && impl_->is_up(n)) r.push_back(n);
  return impl_->by_quality(std::move(r), reads::rows);
}

bytes directory::export_peers() const {
  pb::Peers to;
  for (const auto& [n, p] : impl_->peers) {
    const auto known = impl_->describe(n).info.addresses;
    if (known.empty() || !(p.dial || impl_->is_member(n))) continue;
    auto* x = to.add_peers();
    x->set_node(n.str());
    for (const auto& a : known) x->add_addresses(a);
  }
  return to.SerializeAsString();
}

result<void> directory::import_peers(bytes_view b) {
  pb::Peers from;
  if (b.size() > (8u << 20) || !from.ParseFromArray(b.data(), static_cast<int>(b.size())) ||
      static_cast<std::size_t>(from.peers_size()) > nodes_max)
    return fail(errc::invalid_argument, "these bytes are no list of peers");
  for (const auto& x : from.peers()) {
    TRY(node_id n, node_id::from_bytes(x.node()));
    if (static_cast<std::size_t>(x.addresses_size()) > addresses_max)
      return fail(errc::invalid_argument, "a peer in the list has too many addresses");
    add_peer(n, {x.addresses().begin(), x.addresses().end()});
  }
  return {};
}

bool directory::up(node_id n) const { return impl_->is_up(n); }

double directory::suspicion(node_id n) const {
  if (n == impl_->self) return 0;
  auto at = impl_->peers.find(n);
  const double limit = impl_->opt.suspicion_limit;
  if (at == impl_->peers.end() || !at->second.up) return limit;
  const double phi = at->second.det.phi(impl_->rt.now());
  return at->second.connected ? phi : std::max(phi, limit / 2);
}

bool directory::late(node_id n) const { return impl_->is_late(n); }

std::optional<mono_time> directory::down_since(node_id n) const {
  auto at = impl_->peers.find(n);
  if (n == impl_->self || at == impl_->peers.end() || at->second.up) return std::nullopt;
  return at->second.det.last().value_or(at->second.since);
}

std::vector<node_id> directory::up_members() const {
  std::vector<node_id> r;
  for (const auto& n : impl_->members)
    if (up(n)) r.push_back(n);
  return r;
}

std::vector<node_id> directory::down_members() const {
  std::vector<node_id> r;
  for (const auto& n : impl_->members)
    if (!up(n)) r.push_back(n);
  return r;
}

std::vector<node_id> directory::by_quality(std::vector<node_id> of, reads kind) const { return impl_->by_quality(std::move(of), kind); }
void directory::read_answered(node_id n, reads kind) { impl_->read_answered(n, kind); }
void directory::read_missed(node_id n, reads kind) { impl_->read_missed(n, kind); }
bool directory::misses_reads(node_id n, reads kind) const { return impl_->misses_reads(n, kind); }

nanoseconds directory::hedge_delay(node_id n) const {
  const auto p95 = n == impl_->self ? nanoseconds(1) : impl_->ep.quality(n).rtt_p95;
  return p95.count() > 0 ? std::clamp<nanoseconds>(p95, 5ms, 500ms) : nanoseconds(500ms);
}

double directory::rate_to(node_id n) const { return n == impl_->self ? 0 : impl_->ep.quality(n).send_rate; }
nanoseconds directory::rtt(node_id n) const { return n == impl_->self ? nanoseconds(0) : impl_->ep.quality(n).rtt; }

void directory::on_liveness(std::move_only_function<void(node_id, bool up)> f) {
  impl_->liveness_listeners.push_back(std::make_unique<std::move_only_function<void(node_id, bool)>>(std::move(f)));
}
void directory::on_refused(std::move_only_function<void(node_id by)> f) {
  impl_->refusal_listeners.push_back(std::make_unique<std::move_only_function<void(node_id)>>(std::move(f)));
}
void directory::on_card(std::move_only_function<void(const node&)> f) {
  impl_->card_listeners.push_back(std::make_unique<std::move_only_function<void(const node&)>>(std::move(f)));
}

}  // namespace grenier::cluster
