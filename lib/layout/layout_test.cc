#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "layout/layout.h"

using namespace grenier;
using namespace grenier::layout;

namespace {

node_id node(unsigned n) {
  node_id i;
  i.data()[0] = static_cast<std::uint8_t>(n);
  i.data()[31] = 1;
  return i;
}
member home(unsigned n, const std::string& zone, std::uint64_t gigabytes = 100) { return {node(n), zone, gigabytes * 1'000'000'000}; }
cluster_id some_cluster() {
  cluster_id c;
  c.data()[3] = 9;
  return c;
}

// All subsets of a partition's replicas in the versions given.
std::vector<std::set<node_id>> subsets(const std::vector<node_id>& of) {
  std::vector<std::set<node_id>> r;
  for (unsigned bits = 0; bits < 1u << of.size(); ++bits) {
    std::set<node_id> s;
    for (std::size_t i = 0; i < of.size(); ++i)
      if (bits >> i & 1) s.insert(of[i]);
    r.push_back(s);
  }
  return r;
}

bool meet(const std::set<node_id>& a, const std::set<node_id>& b) {
  return std::any_of(a.begin(), a.end(), [&](const node_id& n) { return b.contains(n); });
}

std::set<node_id> of_partition(const version& v, partition p) { return {v.replicas(p).begin(), v.replicas(p).end()}; }

std::function<std::set<node_id>(partition)> all_synced(const state& s) {
  return [&s](partition p) { return of_partition(*s.next, p); };
}
std::set<node_id> all_know(const state& s) {
  std::set<node_id> r;
  for (const auto& m : s.current.members) r.insert(m.node);
  return r;
}

state finish(state s) {
  if (s.phase == phase::moving) s = *to_joint(s, all_synced(s));
  if (s.phase == phase::joint) s = *to_settled(s, all_know(s));
  return s;
}

// Could a set of answers be enough for this request?
bool enough(const state& s, partition p, bool write, const std::set<node_id>& answered, const std::set<node_id>& dark) {
  const auto versions = write ? s.write_versions() : s.read_versions();
  return std::all_of(versions.begin(), versions.end(), [&](const version* v) { return is_quorum(*v, p, answered, dark); });
}

// The promise of revisions: a write of one and a read or write of another cannot miss each other. Either every pair of quorums
// meets, or the older request finds no quorum among the replicas that had not heard of the newer one's revision when the
// latter was entered.
void check_pair(const state& older, const state& newer, partition p, const std::set<node_id>& heard) {
  std::vector<node_id> all = older.all_replicas(p);
  for (const auto& n : newer.all_replicas(p))
    if (std::find(all.begin(), all.end(), n) == all.end()) all.push_back(n);
  const std::set<node_id> dark(all.begin(), all.end());  // the worst that may be believed
  std::set<node_id> deaf;
  for (const auto& n : all)
    if (!heard.contains(n)) deaf.insert(n);
  for (auto [first_writes, second_writes] : {std::pair(true, true), std::pair(true, false), std::pair(false, true)}) {
    if (!enough(older, p, first_writes, deaf, dark)) continue;  // refused by somebody it needs
    for (const auto& a : subsets(all)) {
      if (!enough(older, p, first_writes, a, dark)) continue;
      for (const auto& b : subsets(all))
        if (enough(newer, p, second_writes, b, dark)) CHECK(meet(a, b));
    }
  }
}

}  // namespace

TEST_CASE("partitions are the top bits of the hash") {
  std::vector<int> seen(256);
  for (int i = 0; i < 20000; ++i) {
    const auto key = "key" + std::to_string(i);
    const auto p = partition_of(key, 256);
    CHECK(p == (xxh3_64(key) >> 56));
    CHECK((partition_of(key, 16384) >> 6) == p);
    ++seen[p];
  }
  CHECK(*std::min_element(seen.begin(), seen.end()) > 30);
}

TEST_CASE("two quorums of one version always meet, whoever is dark") {
  for (std::size_t zones = 1; zones <= 5; ++zones) {
    state s = found(some_cluster(), home(0, "z0"));
    std::vector<member> members;
    for (unsigned n = 0; n < 2 * zones; ++n) members.push_back(home(n, "z" + std::to_string(n % zones)));
    s = finish(*start_change(s, members));
    for (partition p = 0; p < 256; ++p) {
      const auto& all = s.current.replicas(p);
      for (const auto& dark : subsets(all))
        for (const auto& a : subsets(all))
          for (const auto& b : subsets(all))
            if (is_quorum(s.current, p, a, dark) && is_quorum(s.current, p, b, dark)) CHECK(meet(a, b));
      const std::set<node_id> everyone(all.begin(), all.end());
      CHECK(is_quorum(s.current, p, everyone, {}));
      CHECK(!is_quorum(s.current, p, {}, everyone));
      CHECK(can_be_quorum(s.current, p, {}, {}));
      CHECK(!can_be_quorum(s.current, p, everyone, everyone));
    }
  }
}

TEST_CASE("three copies need two; one needs that one; strangers do not count") {
  state s = found(some_cluster(), home(0, "a"));
  CHECK(is_quorum(s.current, 0, {node(0)}, {}));
  CHECK(!is_quorum(s.current, 0, {node(5)}, {}));
  s = finish(*start_change(s, {home(0, "a"), home(1, "b"), home(2, "c")}));
  CHECK(is_quorum(s.current, 0, {node(0), node(2)}, {}));
  CHECK(!is_quorum(s.current, 0, {node(0), node(7)}, {}));
  CHECK(can_be_quorum(s.current, 0, {node(1)}, {}));
  CHECK(!can_be_quorum(s.current, 0, {node(1), node(0)}, {}));
}

TEST_CASE("of two homes the first goes on alone when the other is dark, the second never") {
  state s = found(some_cluster(), home(4, "a"));
  s = finish(*start_change(s, {home(4, "a"), home(1, "b"), home(2, "b"), home(3, "a")}));
  CHECK(s.current.casting == node(4));
  for (partition p = 0; p < 256; ++p) {
    node_id first, second;
    for (const auto& n : s.current.replicas(p)) (s.current.find(n)->zone == "a" ? first : second) = n;
    CHECK(is_quorum(s.current, p, {first, second}, {}));
    CHECK(!is_quorum(s.current, p, {first}, {}));
    CHECK(is_quorum(s.current, p, {first}, {second}));
    CHECK(!is_quorum(s.current, p, {second}, {first}));
    CHECK(!is_quorum(s.current, p, {second}, {first, second}));
    CHECK(can_be_quorum(s.current, p, {second}, {second}));
    CHECK(!can_be_quorum(s.current, p, {second}, {}));
    CHECK(!can_be_quorum(s.current, p, {first}, {first}));
  }
}

TEST_CASE("a change goes through moving and joint, each step with the next revision") {
  state s = found(some_cluster(), home(0, "a"));
  CHECK(s.revision == 1);
  CHECK(s.write_versions() == std::vector<const version*>{&s.current});
  CHECK(to_joint(s, all_synced(s)).failed_with(errc::conflict));
  CHECK(to_settled(s, {}).failed_with(errc::conflict));
  CHECK(start_change(s, {home(0, "a")}).failed_with(errc::conflict));

  state moving = *start_change(s, {home(0, "a"), home(1, "b"), home(2, "c")});
  CHECK(moving.revision == 2);
  CHECK(moving.phase == phase::moving);
  CHECK(moving.next->number == 2);
  CHECK(moving.write_versions().size() == 2);
  CHECK(moving.read_versions() == std::vector<const version*>{&moving.current});
  CHECK(moving.all_replicas(3) == std::vector{node(0), node(1), node(2)});
  CHECK(moving.find(node(2)) != nullptr);
  CHECK(start_change(moving, {home(0, "a")}).failed_with(errc::conflict));
  CHECK(to_settled(moving, all_know(moving)).failed_with(errc::conflict));

  auto only_old = [](partition) { return std::set{node(0)}; };
  CHECK(to_joint(moving, only_old).failed_with(errc::conflict));
  CHECK(waits_for(moving, only_old, {}) == std::set{node(1), node(2)});
  auto one_late = [](partition p) { return p == 77 ? std::set{node(0)} : std::set{node(0), node(1)}; };
  CHECK(to_joint(moving, one_late).failed_with(errc::conflict));
  auto with_second = [](partition) { return std::set{node(0), node(1)}; };  // the third is dead: that blocks nothing
  CHECK(waits_for(moving, with_second, {}).empty());
  state joint = *to_joint(moving, with_second);
  CHECK(joint.revision == 3);
  CHECK(joint.read_versions().size() == 2);
  CHECK(to_settled(joint, {node(1), node(2)}).failed_with(errc::conflict));
  CHECK(waits_for(joint, only_old, {node(1)}) == std::set{node(0)});
  state settled = *to_settled(joint, {node(0)});
  CHECK(settled.revision == 4);
  CHECK(settled.current == *joint.next);
  CHECK(!settled.next);
  CHECK(waits_for(settled, only_old, {}).empty());

  // one of the three is dead: two that know are enough
  joint = *to_joint(*start_change(settled, {home(0, "a"), home(1, "b"), home(3, "d")}, {node(2)}),
                    [](partition) { return std::set{node(0), node(1)}; });
  CHECK(to_settled(joint, {node(0)}).failed_with(errc::conflict));
  CHECK(to_settled(joint, {node(0), node(1)}));
}

TEST_CASE("of two homes, the casting one must know before the former version ends") {
  state s = finish(*start_change(found(some_cluster(), home(0, "a")), {home(0, "a"), home(1, "b")}));
  state joint = *start_change(s, {home(0, "a"), home(1, "b"), home(2, "c")});
  joint = *to_joint(joint, all_synced(joint));
  CHECK(to_settled(joint, {node(1)}).failed_with(errc::conflict));
  CHECK(to_settled(joint, {node(0)}));
}

TEST_CASE("a moving change can be taken back, a joint one cannot") {
  state s = finish(*start_change(found(some_cluster(), home(0, "a")), {home(0, "a"), home(1, "b")}));
  state moving = *start_change(s, {home(0, "a")}, {node(1)});
  state back = *abandon(moving);
  CHECK(back.revision == moving.revision + 1);
  CHECK(back.current == s.current);
  CHECK(back.removed.empty());
  CHECK(decode(encode(back)));
  state joining = *start_change(s, {home(0, "a"), home(1, "b"), home(2, "c")});
  state never = *abandon(joining, {node(2)});
  CHECK(never.current == s.current);
  CHECK(never.removed == std::vector{node(2)});
  CHECK(start_change(never, {home(0, "a"), home(1, "b"), home(2, "c")}).failed_with(errc::invalid_argument));
  CHECK(abandon(joining, {node(1)}).failed_with(errc::invalid_argument));
  state again = *start_change(back, {home(0, "a"), home(1, "b"), home(2, "c")});
  CHECK(again.next->number > moving.next->number);
  CHECK(abandon(*to_joint(again, all_synced(again))).failed_with(errc::conflict));
  CHECK(abandon(s).failed_with(errc::conflict));
}

TEST_CASE("who was removed does not come back under its old key") {
  state s = finish(*start_change(found(some_cluster(), home(0, "a")), {home(0, "a"), home(1, "b")}));
  s = finish(*start_change(s, {home(0, "a")}, {node(1)}));
  CHECK(s.removed == std::vector{node(1)});
  CHECK(start_change(s, {home(0, "a"), home(1, "b")}).failed_with(errc::invalid_argument));
  CHECK(start_change(s, {home(0, "a")}, {node(0)}).failed_with(errc::invalid_argument));
}

TEST_CASE("requests of different revisions cannot miss each other, through whole lives of clusters") {
  std::mt19937 random(11);
  for (int life = 0; life < 12; ++life) {
    std::vector<state> states = {found(some_cluster(), home(0, "z0"))};
    // heard[i]: the nodes that must have known of the joint revision when state i was entered
    std::vector<std::set<node_id>> heard = {{}};
    unsigned born = 1;
    std::vector<member> members = states[0].current.members;
    for (int change = 0; change < 5; ++change) {
      if (members.size() > 1 && random() % 3 == 0) members.erase(members.begin() + static_cast<long>(random() % members.size()));
      const unsigned n = born++;
      members.push_back(home(n, "z" + std::to_string(random() % 4), 50 + random() % 100));
      states.push_back(*start_change(states.back(), members));
      heard.push_back({});
      if (random() % 4 == 0) {
        states.push_back(*abandon(states.back()));
        heard.push_back({});
        members = states.back().current.members;
        continue;
      }
      states.push_back(*to_joint(states.back(), all_synced(states.back())));
      heard.push_back({});
      // as few as are let through
      std::set<node_id> knows = all_know(states.back());
      for (const auto& m : states.back().current.members) {
        knows.erase(m.node);
        if (!to_settled(states.back(), knows)) knows.insert(m.node);
      }
      states.push_back(*to_settled(states.back(), knows));
      heard.push_back(knows);
    }
    for (std::size_t i = 0; i < states.size(); ++i) {
      std::set<node_id> known;  // by those, anything older than the last joint revision is refused
      for (std::size_t j = i + 1; j < states.size(); ++j) {
        // a settled(w) entered at j was preceded by a joint revision j - 1, which older requests do not carry
        if (!heard[j].empty() && i < j - 1) known.insert(heard[j].begin(), heard[j].end());
        for (partition p = 0; p < 256; p += 51) check_pair(states[i], states[j], p, known);
      }
    }
  }
}

TEST_CASE("without waiting for those that do not know, a former quorum would be missed") {
  // what to_settled() is for: the same check must be able to fail
  state s = finish(*start_change(found(some_cluster(), home(0, "a")), {home(0, "a"), home(1, "b"), home(2, "c")}));
  state moving = *start_change(s, {home(3, "d"), home(4, "e"), home(5, "f")});
  state joint = *to_joint(moving, all_synced(moving));
  state settled = *to_settled(joint, {node(0), node(1)});
  const std::set<node_id> old = {node(0), node(1)}, fresh = {node(3), node(4)};
  CHECK(enough(s, 0, true, old, {}));
  CHECK(enough(settled, 0, false, fresh, {}));
  CHECK(!meet(old, fresh));
  check_pair(s, settled, 0, {node(0), node(1)});
}

TEST_CASE("encoded states return as they were") {
  state s = found(some_cluster(), home(0, "a"), 16384);
  CHECK(*decode(encode(s)) == s);
  s = *start_change(s, {home(0, "a"), home(1, "b"), home(2, "c", 0)});
  CHECK(*decode(encode(s)) == s);
  s = *to_joint(s, all_synced(s));
  CHECK(*decode(encode(s)) == s);
  s = finish(s);
  s = finish(*start_change(s, {home(0, "a")}, {node(1)}));
  CHECK(*decode(encode(s)) == s);
}

TEST_CASE("hostile bytes are refused, whatever they are") {
  state good = *start_change(found(some_cluster(), home(0, "a")), {home(0, "a"), home(1, "b"), home(2, "c")});
  const bytes whole = encode(good);
  CHECK(!decode(""));
  CHECK(!decode(bytes(100, '\xff')));
  std::mt19937 random(3);
  for (int i = 0; i < 4000; ++i) {
    bytes b = whole;
    for (unsigned n = 1 + random() % 3; n > 0; --n) b[random() % b.size()] = static_cast<char>(random());
    if (random() % 4 == 0) b.resize(random() % b.size());
    if (auto s = decode(b)) CHECK(*decode(encode(*s)) == *s);  // whatever passes is a state like any other
  }
  auto refused = [&](auto change) {
    state s = good;
    change(s);
    CHECK(decode(encode(s)).failed_with(errc::invalid_argument));
  };
  refused([](state& s) { s.revision = 0; });
  refused([](state& s) { s.phase = phase::settled; });
  refused([](state& s) { s.next.reset(); });
  refused([](state& s) { s.next->number = 1; });
  refused([](state& s) { s.next->number = 9; });
  refused([](state& s) { s.next->assignment.resize(128); });
  refused([](state& s) { s.next->assignment.resize(512, s.next->assignment[0]); });
  refused([](state& s) { s.next->assignment[9] = {node(0), node(0), node(1)}; });
  refused([](state& s) { s.next->members[1].zone = "a"; });
  refused([](state& s) { s.next->members[1].zone = "A b"; });
  refused([](state& s) { s.next->members[2].capacity_bytes = 0; });
  refused([](state& s) { s.next->casting = node(0); });
  refused([](state& s) { s.removed = {node(1)}; });
  refused([](state& s) { s.removed.assign(5000, node(9)); });
  refused([](state& s) {
    for (unsigned n = 0; n < 1000; ++n) {
      node_id id;
      id.data()[0] = 9, id.data()[1] = static_cast<std::uint8_t>(n >> 8), id.data()[2] = static_cast<std::uint8_t>(n), id.data()[3] = 1;
      s.next->members.push_back({id, "a", 1});
    }
  });
}
