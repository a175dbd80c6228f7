// Peers: connections, heartbeats, who is up, how near they are, where they can be dialled.
#include <algorithm>
#include <cmath>

#include "cluster.pb.h"
#include "cluster/impl.h"

namespace grenier::cluster {
namespace {

constexpr nanoseconds tick = 250ms;
constexpr unsigned pings_max = 8;  // unanswered, a peer
constexpr nanoseconds report_every = 5s;
constexpr unsigned doubts_enough = 3;
constexpr nanoseconds carried_after = 10s;  // without a connection
constexpr std::size_t carriers_max = 3;

// So nearly the same that nobody needs to be told.
bool similar(const link& a, const link& b) {
  auto near = [](double x, double y, double part) { return std::abs(x - y) <= part * std::max(x, y); };
  return a.dialled == b.dialled && near(static_cast<double>(a.rtt.count()), static_cast<double>(b.rtt.count()), 0.25) &&
         near(a.send_rate, b.send_rate, 0.5);
}

}  // namespace

task<void> directory::impl::run() {
  auto next_ping = rt.now();
  auto next_gossip = rt.now() + nanoseconds(rt.random().below(static_cast<std::uint64_t>(opt.gossip_every.count())));
  auto next_links = rt.now() + 5s;
  for (;;) {
    const auto due = rt.now() + std::min(tick, opt.heartbeat_every / 2);
    co_await sleep_until(rt, due);
    const auto now = rt.now();
    if (const auto late = now - due; late > tick)  // this machine slept or was overloaded
      for (auto& [n, p] : peers) p.det.excuse(late), p.since += late;
    judge();
    if (now >= next_ping) {
      next_ping = std::max(next_ping + opt.heartbeat_every, now);
      heartbeat();
    }
    if (quiet_change && now >= quiet_at) changed();
    if (now >= next_gossip) {
      next_gossip = now + opt.gossip_every;
      rank();
      forget_others();
      find_carriers();
      gossip_round();
    }
    if (now >= next_links) {
      next_links = now + opt.links_every;
      measure_links();
    }
    tell_liveness();
  }
}

// ------------------------------------------------------------------------------------------------- connections

void directory::impl::connection(node_id n, bool connected) {
  if (!running || outcast || n == self || removed.contains(n)) return;
  if (!peers.contains(n) && !is_member(n) && !members.empty() && !make_room(n)) return;
  auto& p = know(n);
  p.connected = connected;
  p.asked.reset();
  p.since = rt.now();
  p.told = p.knows = 0;
  p.reading_of = {};
  if (auto held = cards.find(n); held != cards.end()) held->second.direct = false;
  if (!connected) return;
  p.mentioned = rt.now();
  learn_address(n);
  group.spawn("ping", ping(n));
}

// Where a connection comes from says where its node lives now; its card says at which port it listens.
void directory::impl::learn_address(node_id n) {
  auto at = peers.find(n);
  if (at == peers.end() || !at->second.connected) return;
  const std::string from = ep.peer_address(n);
  const auto host = host_of(from);
  auto held = cards.find(n);
  if (host.empty()) return;
  std::string address;
  if (held != cards.end() && held->second.card.info.rpc_port) {
    address = std::string(host) + ":" + std::to_string(held->second.card.info.rpc_port);
  } else if (std::find(at->second.kept.begin(), at->second.kept.end(), from) != at->second.kept.end()) {
    address = from;
  }
  if (valid_address(address)) remember(at->second.seen, address);
  keep(n);
}

void directory::impl::keep(node_id n) {
  auto& p = know(n);
  if (!p.dial) return;
  std::vector<std::string> all = p.seen;
  if (auto held = cards.find(n); held != cards.end())
    for (const auto& a : held->second.card.info.addresses)
      if (all.size() < addresses_max && std::find(all.begin(), all.end(), a) == all.end()) all.push_back(a);
  for (const auto& by : p.carriers) all.push_back(wire::relay_address(by, n));
  if (all == p.kept) return;
  p.kept = all;
  ep.keep(n, std::move(all));
}

// Two homes that only dial out, or whose line to each other is cut, speak through a third one (rule 5b.17): the nearest that this home
// has a straight line to. Whether they have one to the other end, they say when asked.
void directory::impl::find_carriers() {
  auto usable = [&](node_id by) {
    auto at = peers.find(by);
    return at != peers.end() && at->second.up && at->second.connected && is_member(by) && !ep.carried_by(by);
  };
  for (auto& [n, p] : peers) {
    if (!p.dial || p.connected || rt.now() - p.since < carried_after) continue;
    // Those that say that they have a line to it come first: several neighbours behind one router may all be unable.
    auto reaches = [&, to = n](node_id by) {
      auto held = cards.find(by);
      return held != cards.end() && held->second.card.links.contains(to);
    };
    auto could = [&, to = n](const auto& q) { return q.first != to && usable(q.first) && reaches(q.first); };
    const bool better = std::none_of(p.carriers.begin(), p.carriers.end(), reaches) && std::any_of(peers.begin(), peers.end(), could);
    if (!better && !p.carriers.empty() && std::all_of(p.carriers.begin(), p.carriers.end(), usable)) continue;
    std::vector<std::tuple<bool, nanoseconds, node_id>> nearest;
    for (const auto& [by, q] : peers)
      if (by != n && usable(by)) nearest.emplace_back(!reaches(by), q.rank, by);
    std::sort(nearest.begin(), nearest.end());
    if (nearest.size() > carriers_max) nearest.resize(carriers_max);
    p.carriers.clear();
    for (const auto& [unable, distance, by] : nearest) p.carriers.push_back(by);
    keep(n);
  }
}

void directory::impl::measure_links() {
  std::map<node_id, link> now;
  for (const auto& [n, p] : peers) {
    if (!p.connected || now.size() == links_max) continue;
    const auto q = ep.quality(n);
    auto held = cards.find(n);
    const auto port = port_of(ep.peer_address(n));
    link l{q.rtt, q.send_rate, held != cards.end() && port != 0 && port == held->second.card.info.rpc_port};
    auto before = own.links.find(n);
    now[n] = before != own.links.end() && similar(before->second, l) ? before->second : l;
  }
  if (now == own.links) return;
  own.links = std::move(now);
  changed();
}

// Nodes that are no members and that nobody sees any more.
void directory::impl::forget_others() {
  std::vector<node_id> old;
  for (const auto& [n, p] : peers)
    if (!is_member(n) && !p.connected && !(members.empty() && p.dial) && rt.now() - p.mentioned > opt.others_kept) old.push_back(n);
  for (const auto& n : old) drop(n);
}

// ------------------------------------------------------------------------------------------------- heartbeats

void directory::impl::heartbeat() {
  std::vector<node_id> due;
  for (const auto& [n, p] : peers)
    if (p.connected && p.pings < pings_max) due.push_back(n);
  for (const auto& n : due) group.spawn("ping", ping(n));
}

wire::message directory::impl::make_ping(node_id to) {
  pb::Ping m;
  m.set_incarnation(own.incarnation);
  m.set_known(held_incarnation(to));
  m.set_seen_at(std::string(host_of(ep.peer_address(to))));
  return {m.SerializeAsString(), nullptr};
}

task<void> directory::impl::ping(node_id n) {
  auto at = peers.find(n);
  if (at == peers.end()) co_return;
  ++at->second.pings;
  if (!at->second.asked) at->second.asked = rt.now();
  auto answer = co_await ep.call(n, wire::method::ping, make_ping(n), {wire::priority::control, rt.now() + 5s});
  at = peers.find(n);
  if (at == peers.end()) co_return;
  if (at->second.pings > 0) --at->second.pings;
  if (answer.failed_with(errc::access_denied) && is_member(n)) {
    for (std::size_t i = 0; i < refusal_listeners.size(); ++i) (*refusal_listeners[i])(n);
    co_return;
  }
  if (!answer || !take_ping(n, *answer)) co_return;
  at = peers.find(n);
  if (at == peers.end()) co_return;
  auto& p = at->second;
  if (!p.up) p.det.reset();
  p.asked.reset();
  if (p.pings > 0) p.asked = rt.now();  // one that was sent after it may be on its way
  p.det.heard(rt.now());
  p.mentioned = rt.now();
  if (p.connected) set_up(n, p, true);
  tell_liveness();
}

task<result<wire::message>> directory::impl::answer_ping(wire::caller from, wire::message m) {
  if (!running) co_return fail(errc::unavailable, "stopping");
  if (turn_away(from)) co_return fail(errc::access_denied, "not a member");
  if (from.node != self && peers.contains(from.node) && !take_ping(from.node, m))
    co_return fail(errc::protocol, "these bytes are no heartbeat");
  co_return make_ping(from.node);
}

bool directory::impl::turn_away(const wire::caller& from) {
  if (from.by_invite || outcast) return true;
  if (!removed.contains(from.node)) return false;
  if (turned_away.insert(from.node).second)
    rt.log(log_level::warning, "cluster: " + from.node.short_hex() + " was removed from the cluster and calls again: it is told so, and takes no part");
  return true;
}

bool directory::impl::take_ping(node_id from, const wire::message& m) {
  pb::Ping ping;
  if (m.head.size() > 1024 || !ping.ParseFromString(m.head) || ping.incarnation() > incarnation_max) return false;
  auto at = peers.find(from);
  if (at == peers.end()) return true;
  auto& p = at->second;
  p.told = ping.incarnation();
  p.knows = ping.known();
  p.mentioned = rt.now();
  if (is_member(from) || members.empty()) refute(ping.known());
  take_report(from, ping.seen_at());
  if (p.told != held_incarnation(from) || p.knows != own.incarnation) exchange_with(from);
  return true;
}

// A peer says which address we have: after a change of provider it is the only way to know.
void directory::impl::take_report(node_id from, std::string host) {
  if (!valid_address(host + ":1") || !(is_member(from) || members.empty())) return;
  auto& said = reports[from];
  if (said == host) return;
  const auto before = own_addresses();
  said = std::move(host);
  if (own_addresses() == before || own.incarnation == 0) return;
  // One that says something else each time does not make us talk each time.
  if (rt.now() - report_told < report_every && report_told != mono_time{}) {
    quiet_at = quiet_change ? quiet_at : report_told + report_every;
    quiet_change = true;
    return;
  }
  report_told = rt.now();
  changed();
}

// ------------------------------------------------------------------------------------------------- up and down

void directory::impl::judge() {
  for (auto& [n, p] : peers) {
    const bool there = ep.connected(n);
    if (there != p.connected) p.connected = there, p.since = rt.now();
    if (!p.up) continue;
    const bool gone = !p.connected && rt.now() - p.since >= opt.heal_within;
    if (gone || p.det.phi(rt.now()) >= opt.suspicion_limit) set_up(n, p, false);
  }
}

void directory::impl::set_up(node_id n, peer& p, bool up) {
  if (p.up == up) return;
  p.up = up;
  if (rt.logs(log_level::info)) rt.log(log_level::info, "cluster: " + n.short_hex() + (up ? " is up" : " is down"));
  news.emplace_back(n, up);
}

void directory::impl::tell_liveness() {
  while (!news.empty()) {
    const auto [n, up] = news.front();
    news.erase(news.begin());
    for (std::size_t i = 0; i < liveness_listeners.size(); ++i) (*liveness_listeners[i])(n, up);
  }
}

// The rank by which peers are sorted follows the measured round trip only when that has really changed, and stays so.
void directory::impl::rank() {
  for (auto& [n, p] : peers) {
    const auto now = ep.quality(n).rtt;
    if (!p.connected || now.count() <= 0) continue;
    const auto off = now > p.rank ? now - p.rank : p.rank - now;
    if (p.rank.count() == 0) {
      p.rank = now;
    } else if (off <= std::max<nanoseconds>(p.rank / 4, 2ms)) {
      p.rank_doubts = 0;
    } else if (++p.rank_doubts >= doubts_enough) {
      p.rank = now;
      p.rank_doubts = 0;
    }
  }
}

}  // namespace grenier::cluster
