// How the best assignment is found, in three steps.
//
// 1. How many partitions each node gets at most and at least (`shares`). Units are dealt one by one to the node whose load over
//    capacity stays lowest, a zone being full at one copy of every partition: that is the assignment with the lowest largest
//    load, without any graph, because any zone loads up to the number of partitions can be realised with distinct zones
//    (McNaughton's wrap-around). Whoever would have stayed under the last ratio dealt may take the tie; nobody goes below the
//    whole part of its exact share.
// 2. Which partitions keep which replicas (`moves`): a flow of partitions to nodes whose cost is the number of new replicas.
//    Partitions with the same replicas are one vertex, and new replicas of a zone share a way, so the graph stays small.
// 3. Which node takes which (`deal`): the flow's numbers, spread by hash so that a home's partners are many.
//
// Source: Jefferson's method of apportionment; McNaughton, "Scheduling with deadlines and loss functions" (1959).
#include <algorithm>
#include <queue>

#include "layout/flow.h"
#include "layout/rules.h"

namespace grenier::layout {
namespace {

__extension__ typedef unsigned __int128 wide;

constexpr std::size_t arcs_aim = 300'000;
constexpr std::int64_t beyond_share = 1000;  // the cost of a unit above a node's exact share: more than any detour

struct place {
  node_id node;
  std::uint32_t zone = 0;
  std::uint64_t capacity = 0;
  std::int64_t least = 0, most = 0;
  std::int64_t dealt = 0;
  std::int64_t gains = 0;  // new replicas, as the flow says
};

struct cluster {
  std::size_t partitions = 0, copies = 0;
  std::vector<place> places;          // that store something, by node
  std::vector<std::uint64_t> zones;   // hashes of their names, by name
  std::vector<std::int64_t> zone_dealt;
  double exact_ratio = 0;             // the lowest largest load over capacity if partitions could be divided
  std::optional<std::uint32_t> index(const node_id& n) const {
    auto at = std::lower_bound(places.begin(), places.end(), n, [](const place& p, const node_id& id) { return p.node < id; });
    if (at == places.end() || at->node != n) return std::nullopt;
    return static_cast<std::uint32_t>(at - places.begin());
  }
};

cluster make_cluster(const std::vector<member>& members, std::size_t partitions) {
  cluster c;
  c.partitions = partitions;
  c.copies = copies_of(members);
  std::map<std::string, std::uint32_t> zones;
  for (const auto& m : members)
    if (stores(m)) zones.emplace(m.zone, 0);
  for (auto& [name, index] : zones) {
    index = static_cast<std::uint32_t>(c.zones.size());
    c.zones.push_back(xxh3_64(name));
  }
  for (const auto& m : members)
    if (stores(m)) c.places.push_back({m.node, zones[m.zone], m.capacity_bytes});
  c.zone_dealt.resize(c.zones.size());
  return c;
}

// ------------------------------------------------------------------------------------------------- 1. shares

// Zones too large for their share hold one copy of everything; the others divide the rest in proportion.
void exact_shares(cluster& c) {
  std::vector<wide> capacity(c.zones.size());
  wide rest = 0;
  for (const auto& p : c.places) capacity[p.zone] += p.capacity, rest += p.capacity;
  std::vector<std::uint32_t> order(c.zones.size());
  for (std::uint32_t z = 0; z < order.size(); ++z) order[z] = z;
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return capacity[a] != capacity[b] ? capacity[a] > capacity[b] : a < b; });
  std::vector<bool> full(c.zones.size());
  std::size_t left = c.copies;
  for (auto z : order) {
    if (left == 0 || capacity[z] * left < rest) break;
    full[z] = true;
    --left;
    rest -= capacity[z];
    c.exact_ratio = static_cast<double>(c.partitions) / static_cast<double>(capacity[z]);  // grows from zone to zone
  }
  if (left > 0) c.exact_ratio = static_cast<double>(c.partitions * left) / static_cast<double>(rest);
  for (auto& p : c.places) {
    const wide units = full[p.zone] ? c.partitions : c.partitions * left;
    const wide of = full[p.zone] ? capacity[p.zone] : rest;
    p.least = of ? static_cast<std::int64_t>(p.capacity * units / of) : 0;
  }
}

// Is a's load, with one unit more, a larger part of its capacity than b's?
bool fuller(const place& a, const place& b) {
  const wide x = static_cast<wide>(a.dealt + 1) * b.capacity, y = static_cast<wide>(b.dealt + 1) * a.capacity;
  return x != y ? x > y : b.node < a.node;
}

void whole_shares(cluster& c) {
  auto later = [&](std::uint32_t a, std::uint32_t b) { return fuller(c.places[a], c.places[b]); };
  std::priority_queue<std::uint32_t, std::vector<std::uint32_t>, decltype(later)> queue(later);
  for (std::uint32_t i = 0; i < c.places.size(); ++i) queue.push(i);
  struct ratio {
    std::uint64_t units = 0, capacity = 1;
  } last;
  std::vector<ratio> zone_last(c.zones.size());
  const auto full = static_cast<std::int64_t>(c.partitions);
  for (std::size_t units = c.partitions * c.copies; units > 0; --units) {
    std::uint32_t i;
    do {  // there is room: at least as many zones as copies
      i = queue.top();
      queue.pop();
    } while (c.zone_dealt[c.places[i].zone] == full);
    auto& p = c.places[i];
    ++c.zone_dealt[p.zone];
    zone_last[p.zone] = last = {static_cast<std::uint64_t>(++p.dealt), p.capacity};
    queue.push(i);
  }
  for (auto& p : c.places) {
    const ratio& r = c.zone_dealt[p.zone] == full ? zone_last[p.zone] : last;
    p.most = std::min<std::int64_t>(full, static_cast<std::int64_t>(static_cast<wide>(p.capacity) * r.units / r.capacity));
    p.least = std::min(p.least, p.most);
  }
}

// ------------------------------------------------------------------------------------------------- 2. moves

// Partitions whose replicas (those that still store) are the same.
struct group {
  std::vector<std::uint32_t> keeps;   // places
  std::vector<std::uint32_t> partitions;
  // What the flow says: of each zone, how many get a replica there, and how many of those keep one.
  std::map<std::uint32_t, std::int64_t> in_zone;
  std::map<std::uint32_t, std::int64_t> kept;   // by place
};

std::vector<group> make_groups(const cluster& c, const version& from) {
  std::map<std::vector<std::uint32_t>, group> by_set;
  for (std::uint32_t p = 0; p < c.partitions; ++p) {
    std::vector<std::uint32_t> keeps;
    for (const auto& n : from.assignment[p])
      if (auto i = c.index(n)) keeps.push_back(*i);
    std::sort(keeps.begin(), keeps.end());
    by_set[keeps].partitions.push_back(p);
  }
  std::vector<group> r;
  for (auto& [keeps, g] : by_set) {
    g.keeps = keeps;
    r.push_back(std::move(g));
  }
  return r;
}

// Where a group may get new replicas: everywhere, unless that makes the graph too large; then in `width` zones that lack
// partitions, chosen by hash.
std::vector<std::uint32_t> candidates(const cluster& c, const std::vector<std::int64_t>& lack, std::int64_t lack_all,
                                      const group& g, std::size_t width) {
  std::vector<std::uint32_t> r;
  if (width >= c.zones.size() || lack_all == 0) {
    for (std::uint32_t z = 0; z < c.zones.size(); ++z) r.push_back(z);
    return r;
  }
  for (auto i : g.keeps) r.push_back(c.places[i].zone);
  for (std::size_t n = 0; n < width; ++n) {
    bytes seed;
    append_u32(seed, g.partitions.front());
    append_u32(seed, static_cast<std::uint32_t>(n));
    auto at = static_cast<std::int64_t>(xxh3_64(seed) % static_cast<std::uint64_t>(lack_all));
    std::uint32_t z = 0;
    while (at >= lack[z]) at -= lack[z++];
    r.push_back(z);
  }
  std::sort(r.begin(), r.end());
  r.erase(std::unique(r.begin(), r.end()), r.end());
  return r;
}

// The graph: source -> group -> (group, zone) -> place kept, or zone -> place; place -> sink.
class graph_of_moves {
 public:
  graph_of_moves(cluster& c, std::vector<group>& groups) : c_(c), groups_(groups) {
    next_ = 2 + static_cast<std::uint32_t>(c.places.size() + c.zones.size());
    for (std::uint32_t i = 0; i < c.places.size(); ++i) {
      const auto& p = c.places[i];
      if (p.most == 0) continue;
      add(place(i), sink, p.least, 0);
      add(place(i), sink, p.most - p.least, beyond_share);
    }
    first_gain_ = arcs_.size();
    for (std::uint32_t i = 0; i < c.places.size(); ++i) add(zone(c.places[i].zone), place(i), c.places[i].most, 0);
  }

  // False when there are too few candidates to place every copy.
  bool solve(std::size_t width) {
    std::vector<std::int64_t> lack = c_.zone_dealt;
    for (const auto& g : groups_)
      for (auto i : g.keeps) lack[c_.places[i].zone] -= static_cast<std::int64_t>(g.partitions.size());
    std::int64_t all = 0;
    for (auto& l : lack) all += l = std::max<std::int64_t>(l, 0);
    for (auto& g : groups_) add_group(g, candidates(c_, lack, all, g, width));
    const auto flow = cheapest_largest_flow(next_, arcs_, source, sink);
    std::int64_t total = 0;
    for (const auto& [arc, g, z, i] : roles_) {
      if (flow[arc] == 0) continue;
      total += flow[arc];
      g->in_zone[z] += flow[arc];
      if (i) g->kept[*i] += flow[arc];
    }
    for (std::size_t i = 0; i < c_.places.size(); ++i) c_.places[i].gains = flow[first_gain_ + i];
    return total == static_cast<std::int64_t>(c_.partitions * c_.copies);
  }

 private:
  static constexpr std::uint32_t source = 0, sink = 1;
  struct role {
    std::size_t arc;
    group* of;
    std::uint32_t zone;
    std::optional<std::uint32_t> kept;
  };
  std::uint32_t place(std::uint32_t i) const { return 2 + i; }
  std::uint32_t zone(std::uint32_t z) const { return 2 + static_cast<std::uint32_t>(c_.places.size()) + z; }
  std::size_t add(std::uint32_t from, std::uint32_t to, std::int64_t capacity, std::int64_t cost) {
    arcs_.push_back({from, to, capacity, cost});
    return arcs_.size() - 1;
  }
  void add_group(group& g, const std::vector<std::uint32_t>& zones) {
    const auto size = static_cast<std::int64_t>(g.partitions.size());
    const auto v = next_++;
    add(source, v, size * static_cast<std::int64_t>(c_.copies), 0);
    for (auto z : zones) {
      auto from = v;
      for (auto i : g.keeps) {
        if (c_.places[i].zone != z || c_.places[i].most == 0) continue;
        if (from == v) add(v, from = next_++, size, 0);
        roles_.push_back({add(from, place(i), size, 0), &g, z, i});
      }
      roles_.push_back({add(from, zone(z), size, 1), &g, z, std::nullopt});
    }
  }
  cluster& c_;
  std::vector<group>& groups_;
  std::uint32_t next_ = 0;
  std::size_t first_gain_ = 0;
  std::vector<flow_arc> arcs_;
  std::vector<role> roles_;
};

void find_moves(cluster& c, std::vector<group>& groups) {
  for (std::size_t width = std::max<std::size_t>(4, arcs_aim / groups.size());; width *= 2) {
    if (graph_of_moves(c, groups).solve(width)) return;
    ASSERT(width < c.zones.size());  // with every zone a candidate there is always a solution
    for (auto& g : groups) g.in_zone.clear(), g.kept.clear();
  }
}

// ------------------------------------------------------------------------------------------------- 3. deal

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  bytes seed;
  append_u64(seed, a);
  append_u64(seed, b);
  return xxh3_64(seed);
}

// The zones of one of `left` partitions of a group: those that need all that are left, then others by weight.
std::vector<std::uint32_t> choose_zones(const cluster& c, group& g, std::uint32_t partition, std::int64_t left) {
  std::vector<std::uint32_t> chosen;
  auto take = [&](std::map<std::uint32_t, std::int64_t>::iterator at) {
    chosen.push_back(at->first);
    --at->second;
  };
  for (auto at = g.in_zone.begin(); at != g.in_zone.end(); ++at)
    if (at->second == left) take(at);
  while (chosen.size() < c.copies) {
    std::vector<std::map<std::uint32_t, std::int64_t>::iterator> open;
    std::int64_t weight = 0;
    for (auto at = g.in_zone.begin(); at != g.in_zone.end(); ++at)
      if (at->second > 0 && std::find(chosen.begin(), chosen.end(), at->first) == chosen.end()) {
        open.push_back(at);
        weight += at->second;
      }
    ASSERT(weight > 0);
    auto x = static_cast<std::int64_t>(mix(partition, chosen.size()) % static_cast<std::uint64_t>(weight));
    std::size_t k = 0;
    while (x >= open[k]->second) x -= open[k++]->second;
    take(open[k]);
  }
  return chosen;
}

// Each partition's places.
std::vector<std::vector<std::uint32_t>> deal(const cluster& c, std::vector<group>& groups) {
  std::vector<std::vector<std::uint32_t>> r(c.partitions);
  std::vector<std::vector<std::pair<std::uint64_t, std::uint32_t>>> open(c.zones.size());  // (hash, partition)
  for (auto& g : groups) {
    auto left = static_cast<std::int64_t>(g.partitions.size());
    for (auto p : g.partitions) {
      for (auto z : choose_zones(c, g, p, left)) {
        auto kept = std::find_if(g.kept.begin(), g.kept.end(), [&](auto& k) { return k.second > 0 && c.places[k.first].zone == z; });
        if (kept == g.kept.end()) {
          open[z].emplace_back(mix(p, c.zones[z]), p);
        } else {
          --kept->second;
          r[p].push_back(kept->first);
        }
      }
      --left;
    }
  }
  for (auto& o : open) std::sort(o.begin(), o.end());
  std::vector<std::size_t> at(c.zones.size());
  for (std::uint32_t i = 0; i < c.places.size(); ++i) {
    const auto z = c.places[i].zone;
    for (auto n = c.places[i].gains; n > 0; --n) r[open[z].at(at[z]++).second].push_back(i);
  }
  return r;
}

}  // namespace

// ------------------------------------------------------------------------------------------------- members

result<void> check_members(const std::vector<member>& members) {
  if (members.size() > members_max) return fail(errc::invalid_argument, "a layout has at most 1000 members");
  bool some = false;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto& m = members[i];
    const bool named = !m.zone.empty() && m.zone.size() <= 64 && std::all_of(m.zone.begin(), m.zone.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    });
    if (!named) return fail(errc::invalid_argument, "a zone is named by 1 to 64 of a-z, 0-9 and -");
    if (!m.node) return fail(errc::invalid_argument, "a member without an identity");
    if (i > 0 && !(members[i - 1].node < m.node)) return fail(errc::invalid_argument, "two members are one node, or they are not sorted");
    some = some || stores(m);
  }
  if (!some) return fail(errc::invalid_argument, "no member stores anything");
  return {};
}

std::size_t copies_of(const std::vector<member>& members) {
  std::set<std::string_view> zones;
  for (const auto& m : members)
    if (stores(m)) zones.insert(m.zone);
  return std::min(zones.size(), replicas_max);
}

namespace {

// Of two zones the home that has been there longest: it may go on alone.
node_id casting_of(const version& from, const version& next) {
  auto stays = [&](const node_id& n) {
    const member* m = next.find(n);
    return m && stores(*m);
  };
  if (from.casting && stays(from.casting)) return from.casting;
  for (const auto& m : from.members)
    if (stores(m) && stays(m.node)) return m.node;
  for (const auto& m : next.members)
    if (stores(m)) return m.node;
  return {};
}

}  // namespace

result<plan> assign(const version& from, std::vector<member> members) {
  std::sort(members.begin(), members.end(), [](const member& a, const member& b) { return a.node < b.node; });
  TRY_VOID(check_members(members));
  ASSERT(!from.assignment.empty());
  cluster c = make_cluster(members, from.assignment.size());
  exact_shares(c);
  whole_shares(c);
  auto groups = make_groups(c, from);
  find_moves(c, groups);
  const auto places = deal(c, groups);

  plan r;
  r.next.number = from.number + 1;
  r.next.members = std::move(members);
  r.next.assignment.resize(c.partitions);
  for (const auto& p : c.places) r.partitions_of[p.node] = 0;
  for (std::size_t p = 0; p < c.partitions; ++p) {
    ASSERT(places[p].size() == c.copies);
    const auto& old = from.assignment[p];
    for (auto i : places[p]) {
      const auto& n = c.places[i].node;
      r.next.assignment[p].push_back(n);
      ++r.partitions_of[n];
      if (std::find(old.begin(), old.end(), n) == old.end()) ++r.moved;
    }
    std::sort(r.next.assignment[p].begin(), r.next.assignment[p].end());
  }
  double worst = 0;
  for (const auto& p : c.places)
    worst = std::max(worst, static_cast<double>(r.partitions_of[p.node]) / static_cast<double>(p.capacity));
  r.used_fraction = std::min(1.0, c.exact_ratio / worst);
  if (c.copies == 2) r.next.casting = casting_of(from, r.next);
  return r;
}

}  // namespace grenier::layout
