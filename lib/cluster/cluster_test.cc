#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "cluster/fake_net.h"

using namespace grenier;
using namespace grenier::cluster;
using namespace grenier::cluster::testing;

namespace {

// Virtual time until a condition holds, in steps of 50 ms.
template <class F>
nanoseconds until(village& v, nanoseconds most, F condition) {
  const auto start = v.n.clk.now();
  while (!condition() && v.n.clk.now() - start < most) v.n.run_for(50ms);
  return v.n.clk.now() - start;
}

}  // namespace

TEST_CASE("all members find each other from one address and are up") {
  village v(6);
  CHECK(v[1].up(v.id(1)));
  CHECK(!v[1].up(v.id(2)));
  v.n.run_for(5s);
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(v[i].up_members().size() == 6);
    CHECK(v[i].down_members().empty());
    for (std::size_t j = 0; j < 6; ++j) {
      CHECK(v[i].up(v.id(j)));
      CHECK(!v[i].down_since(v.id(j)));
      CHECK(v[i].suspicion(v.id(j)) < 1);
      CHECK(v[i].find(v.id(j))->info.zone == "zone-" + std::to_string(j + 1));
    }
  }
}

TEST_CASE("a peer that falls silent is late within 700 ms on a near line, comes after the others, and is late no more when it answers") {
  village v(3);
  v.n.one_way = 1ms;
  v.n.run_for(30s + 130ms);
  CHECK_FALSE(v[0].late(v.id(1)));
  CHECK_FALSE(v[0].late(v.id(0)));
  v.n.dead.insert(v.id(1));
  CHECK(until(v, 10s, [&] { return v[0].late(v.id(1)); }) <= 700ms);
  CHECK(v[0].up(v.id(1)));
  CHECK(v[0].by_quality({v.id(1), v.id(2), v.id(0)}) == std::vector<node_id>{v.id(0), v.id(2), v.id(1)});
  CHECK_FALSE(v[0].late(v.id(2)));
  v.n.dead.clear();
  CHECK(until(v, 10s, [&] { return !v[0].late(v.id(1)); }) <= 1s);
}

TEST_CASE("a peer that falls silent is down within 3 s, whatever its line") {
  for (auto one_way : {1ms, 11ms, 35ms, 50ms})
    for (auto jitter : {0ms, 100ms, 200ms}) {
      village v(3, static_cast<std::uint64_t>(one_way.count() + jitter.count()));
      v.n.one_way = one_way;
      v.n.jitter = jitter;
      v.n.run_for(30s + 130ms);
      REQUIRE(v[0].up(v.id(2)));
      std::vector<std::pair<node_id, bool>> told;
      v[0].on_liveness([&](node_id n, bool up) { told.emplace_back(n, up); });
      v.n.dead.insert(v.id(2));
      const auto killed = v.n.clk.now();
      const auto took = until(v, 10s, [&] { return !v[0].up(v.id(2)); });
      CHECK(took <= 3s);
      CHECK(took > 1s);
      CHECK(v[0].suspicion(v.id(2)) >= 8);
      CHECK(*v[0].down_since(v.id(2)) <= killed + 2 * one_way + 2 * jitter);
      CHECK(v[0].up(v.id(1)));
      CHECK(told == std::vector<std::pair<node_id, bool>>{{v.id(2), false}});
      v.n.dead.clear();
      CHECK(until(v, 10s, [&] { return v[0].up(v.id(2)); }) <= 2s);
      CHECK(told.size() == 2);
    }
}

TEST_CASE("200 ms of jitter raise no false alarm in an hour") {
  village v(3);
  v.n.one_way = 35ms;
  v.n.jitter = 200ms;
  v.n.run_for(10s);
  int alarms = 0;
  for (std::size_t i = 0; i < 3; ++i) v[i].on_liveness([&](node_id, bool) { ++alarms; });
  v.n.run_for(1h);
  CHECK(alarms == 0);
}

TEST_CASE("a connection that comes back within a second was nothing; one that does not is down at once") {
  village v(3);
  v.n.run_for(10s);
  int told = 0;
  v[0].on_liveness([&](node_id, bool) { ++told; });
  v.n.cut(v.id(0), v.id(2));  // dialled again within 200 ms
  CHECK(v[0].up(v.id(2)));
  CHECK(v[0].suspicion(v.id(2)) >= 4);
  CHECK(v[0].by_quality({v.id(2), v.id(1)}) == std::vector{v.id(1), v.id(2)});
  v.n.run_for(5s);
  CHECK(told == 0);
  CHECK(v[0].suspicion(v.id(2)) < 1);
  v.n.dead.insert(v.id(2));
  v.n.cut_all(v.id(2));
  CHECK(until(v, 5s, [&] { return !v[0].up(v.id(2)); }) <= 1300ms);
  CHECK(told == 1);
}

TEST_CASE("a machine that itself stood still suspects nobody") {
  village v(3);
  v.n.run_for(20s);
  int told = 0;
  v[0].on_liveness([&](node_id, bool) { ++told; });
  // The timers of all fire late, as after a suspension: time jumps while nothing runs.
  v.n.clk.call_at(v.n.clk.now(), [] {});
  for (int i = 0; i < 3; ++i) {
    v.n.clk.jump(30s);
    v.n.run_for(10s);
  }
  CHECK(told == 0);
}

TEST_CASE("peers are sorted by round trip: self, near, far, down; noise does not change the order") {
  village v(5);
  v.n.run_for(5s);
  auto measure = [&](std::size_t i, nanoseconds rtt) {
    auto& q = v.boxes[0]->ep.qualities[v.id(i)];
    q.rtt = rtt;
    q.rtt_p95 = 2 * rtt;
    q.send_rate = 1000.0 * static_cast<double>(i);
  };
  measure(1, 57ms), measure(2, 22ms), measure(3, 60ms), measure(4, 5ms);
  v.n.dead.insert(v.id(4));
  v.n.run_for(10s);
  const std::vector<node_id> all = {v.id(4), v.id(3), v.id(2), v.id(1), v.id(0)};
  const std::vector<node_id> order = {v.id(0), v.id(2), v.id(1), v.id(3), v.id(4)};
  CHECK(v[0].by_quality(all) == order);
  for (int i = 0; i < 100; ++i) {  // the two far ones cross each time
    measure(1, i % 2 ? 66ms : 52ms), measure(3, i % 2 ? 53ms : 65ms);
    v.n.run_for(1s);
    CHECK(v[0].by_quality(all) == order);
  }
  measure(1, 120ms);
  v.n.run_for(5s);
  CHECK(v[0].by_quality(all) == std::vector{v.id(0), v.id(2), v.id(3), v.id(1), v.id(4)});
  CHECK(v[0].rate_to(v.id(2)) == 2000);
  CHECK(v[0].rtt(v.id(2)) == 22ms);
  CHECK(v[0].by_quality({test_node(99), v.id(1)}) == std::vector{v.id(1), test_node(99)});
}

TEST_CASE("who misses three reads in a row is the last choice for such reads, tried by one at a time, until it answers") {
  village v(3);
  v.n.run_for(20s);
  const std::vector<node_id> all = {v.id(1), v.id(2)}, near_first = v[0].by_quality(all);
  const node_id n = near_first[0];
  const std::vector<node_id> last = {near_first[1], n};
  for (int i = 0; i < 2; ++i) v[0].read_missed(n, reads::rows);
  v[0].read_answered(n, reads::rows);
  for (int i = 0; i < 2; ++i) v[0].read_missed(n, reads::rows);
  CHECK(v[0].by_quality(all) == near_first);
  v[0].read_missed(n, reads::rows);
  CHECK(v[0].misses_reads(n, reads::rows));
  CHECK(v[0].by_quality(all) == last);
  CHECK(v[0].by_quality(all, reads::lists) == near_first);
  CHECK(v[0].by_quality(all, reads::blocks) == near_first);
  CHECK(v[0].up(n));
  auto tried = [&](int s) {
    int times = 0;
    for (int i = 0; i < 10 * s; ++i) {
      v.n.run_for(100ms);
      if (v[0].by_quality(all) != near_first) continue;
      ++times;
      v[0].read_missed(n, reads::rows);
      v[0].read_missed(n, reads::rows);  // asked by somebody long ago
    }
    return times;
  };
  CHECK(tried(80) == 4);   // after 5, 10, 20, 40 s
  CHECK(tried(180) == 3);  // each minute
  v[0].read_answered(n, reads::rows);
  CHECK(v[0].by_quality(all) == near_first);
  CHECK(v[0].by_quality(all) == near_first);
  // A new connection is a new beginning.
  for (int i = 0; i < 3; ++i) v[0].read_missed(n, reads::rows);
  CHECK(v[0].by_quality(all) == last);
  v.n.cut(v.id(0), n);
  v.n.run_for(3s);
  CHECK(v[0].by_quality(all) == near_first);
}

TEST_CASE("hedges wait for the peer's own p95, within bounds") {
  village v(3);
  auto& q = v.boxes[0]->ep.qualities;
  CHECK(v[0].hedge_delay(v.id(1)) == 500ms);
  q[v.id(1)].rtt_p95 = 80ms;
  CHECK(v[0].hedge_delay(v.id(1)) == 80ms);
  q[v.id(1)].rtt_p95 = 1ms;
  CHECK(v[0].hedge_delay(v.id(1)) == 5ms);
  q[v.id(1)].rtt_p95 = 3s;
  CHECK(v[0].hedge_delay(v.id(1)) == 500ms);
}

TEST_CASE("a removed node is dropped, not dialled and not heard") {
  village v(4);
  v.n.run_for(5s);
  const std::vector<node_id> rest = {v.id(0), v.id(1), v.id(2)};
  for (std::size_t i = 0; i < 3; ++i) v[i].set_members(rest, {v.id(3)});
  v.n.run_for(20s);  // the removed one goes on dialling and gossiping
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(!v[i].find(v.id(3)));
    CHECK(!v[i].up(v.id(3)));
    CHECK(!v.boxes[i]->ep.kept.contains(v.id(3)));
    CHECK(v[i].nodes().size() == 3);
    CHECK(v[i].members() == [&] {
      auto m = rest;
      std::sort(m.begin(), m.end());
      return m;
    }());
  }
  CHECK(v[3].down_members().size() == 3);
}

TEST_CASE("a removed node is told so by each member that it asks; once it knows, it lets go of everybody") {
  village v(4);
  v.n.run_for(5s);
  std::set<node_id> by;
  v[3].on_refused([&](node_id n) { by.insert(n); });
  const std::vector<node_id> rest = {v.id(0), v.id(1), v.id(2)};
  int told = 0;
  v[0].on_refused([&](node_id) { ++told; });
  for (std::size_t i = 0; i < 3; ++i) v[i].set_members(rest, {v.id(3)});
  v.n.run_for(20s);
  CHECK(by == std::set<node_id>(rest.begin(), rest.end()));
  CHECK(told == 0);
  v[3].set_members(rest, {v.id(3)});
  for (std::size_t i = 0; i < 3; ++i) v[3].add_peer(v.id(i), {"127.0.0.1:1"});
  by.clear();
  v.n.run_for(20s);
  CHECK(by.empty());
  CHECK(v.boxes[3]->ep.kept.empty());
  CHECK(v[3].nodes().size() == 1);
  CHECK(v[3].up_members() == std::vector{v.id(3)});
  for (std::size_t i = 0; i < 3; ++i) CHECK(v[i].up_members().size() == 3);
}

TEST_CASE("peers are written down and read again, as foreign bytes") {
  village v(4);
  v.n.run_for(5s);
  const bytes written = v[1].export_peers();
  box fresh(v.n, 50);
  CHECK(fresh.dir.import_peers(written));
  for (std::size_t i : {0, 2, 3}) {
    REQUIRE(fresh.ep.kept.contains(v.id(i)));
    CHECK(fresh.ep.kept[v.id(i)].front() == v.boxes[i]->ep.address());
  }
  CHECK(!fresh.dir.import_peers(bytes(100, '\xff')));
  CHECK(fresh.dir.import_peers(""));
  std::mt19937 random(2);
  for (int i = 0; i < 500; ++i) {
    bytes b = written;
    b[random() % b.size()] = static_cast<char>(random());
    (void)fresh.dir.import_peers(b).has_value();
  }
}

TEST_CASE("the same seed gives the same life") {
  auto life = [] {
    village v(5, 9);
    v.n.jitter = 100ms;
    v.n.run_for(120s);
    return std::pair(v.n.calls, v.n.bytes_sent);
  };
  const auto first = life();
  CHECK(first == life());
  // 5 homes, two minutes: heartbeats of 20 pairs and ways, and a few bytes of gossip each second
  MESSAGE(first.first << " calls, " << first.second / 120 / 5 << " bytes a second and home, answers included");
}
