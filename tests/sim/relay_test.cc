// Homes that cannot reach each other speak through a third one: two that only dial out, two whose line is cut; and what a carrier or a
// peer may not do with that.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "sim/cluster.h"
#include "wire/wire.h"

using namespace grenier;
using namespace grenier::sim;
using namespace grenier::wire;

namespace {

crypto::node_key key_of(std::size_t i) { return crypto::node_key::from_seed(bytes(32, static_cast<char>('a' + i))); }
node_id id_of(std::size_t i) { return key_of(i).id(); }

struct program {
  program(machine& m, bool listens) : rt(m.rt()), tasks(m.rt()) {
    e = make_endpoint(m.rt(), m.net(), {listens ? "0.0.0.0:3901" : "", key_of(m.index()), bytes(32, 'k'), *cluster_id::from_bytes(bytes(16, 'c'))});
    e->serve(method::ping, [](caller who, message msg) { return echo(who, std::move(msg)); });
    e->on_connection([this](node_id, bool up) { ++(up ? ups : downs); });
    ASSERT(e->start());
  }
  static task<result<message>> echo(caller who, message m) {
    m.head = who.node.hex();
    co_return m;
  }
  // Large messages there and back, all at once, without anybody waiting for them.
  void load(node_id to, std::size_t count, shared_bytes body) {
    for (std::size_t i = 0; i < count; ++i) tasks.spawn("load", one(this, to, body));
  }
  static task<void> one(program* p, node_id to, shared_bytes body) {
    auto r = co_await p->e->call(to, method::ping, {"", std::move(body)}, {priority::foreground, p->rt.now() + 300s});
    p->loaded += r.has_value();
  }
  runtime& rt;
  task_group tasks;
  std::size_t loaded = 0;
  std::unique_ptr<endpoint> e;
  int ups = 0, downs = 0;
};

struct homes {
  homes(std::uint64_t seed, std::size_t n, std::set<std::size_t> listening) : w(seed), programs(n), listens(std::move(listening)) {
    crypto::init();
    for (std::size_t i = 0; i < n; ++i) {
      w.add("home" + std::to_string(i));
      start(i);
    }
  }
  void start(std::size_t i) {
    w.at(i).start([this, i](machine& m) {
      auto p = std::make_shared<program>(m, listens.contains(i));
      programs[i] = p.get();
      return p;
    });
  }
  endpoint& at(std::size_t i) { return *programs[i]->e; }
  void dial(std::size_t from, std::size_t to, std::vector<std::string> more = {}) {
    if (listens.contains(to)) more.insert(more.begin(), "10.0.0." + std::to_string(to) + ":3901");
    at(from).keep(id_of(to), std::move(more));
  }
  bool joined(std::size_t a, std::size_t b) { return at(a).connected(id_of(b)) && at(b).connected(id_of(a)); }
  std::optional<result<message>> call(std::size_t from, std::size_t to, method m, message msg, nanoseconds within = 30s) {
    return w.await(w.at(from), at(from).call(id_of(to), m, std::move(msg), {priority::foreground, w.now() + within}));
  }
  world w;
  std::vector<program*> programs;
  std::set<std::size_t> listens;
};

bytes relay_head(char kind, node_id from, node_id to, std::uint64_t channel, std::uint64_t sequence) {
  bytes b(1, kind);
  b += from.view();
  b += to.view();
  append_u64(b, channel);
  append_u64(b, sequence);
  return b;
}

bytes noise(std::size_t size, std::uint64_t seed) {
  bytes b;
  for (std::uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1; b.size() < size;) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    append_u64(b, x);
  }
  b.resize(size);
  return b;
}

}  // namespace

TEST_CASE("two homes that only dial out speak through a third: the right ends, whole messages both ways, and near the line's rate") {
  homes h(21, 3, {2});
  h.w.set_all_lines({.delay = 10ms, .jitter = 5ms, .rate = 5e6, .loss = 0.005});
  h.dial(0, 2);
  h.dial(1, 2);
  REQUIRE(h.w.run_until([&] { return h.joined(0, 2) && h.joined(1, 2); }, 10s));
  CHECK(h.call(0, 1, method::ping, {})->failed_with(errc::unavailable));
  h.dial(0, 1, {relay_address(id_of(2), id_of(1))});
  h.dial(1, 0, {relay_address(id_of(2), id_of(0))});
  REQUIRE(h.w.run_until([&] { return h.joined(0, 1); }, 10s));
  CHECK(h.at(0).carried_by(id_of(1)) == id_of(2));
  CHECK(h.at(1).carried_by(id_of(0)) == id_of(2));
  CHECK_FALSE(h.at(0).carried_by(id_of(2)));
  CHECK(h.at(0).peer_address(id_of(1)).empty());
  auto body = share(noise(8'000'000, 1));
  auto there_and_back = [&](std::size_t from, std::size_t to) {
    mono_time began = h.w.now();
    auto r = h.call(from, to, method::ping, {"", body}, 60s);
    REQUIRE(r);
    REQUIRE(*r);
    CHECK((*r)->head == id_of(from).hex());  // proved by its own handshake, not by the carrier's word
    CHECK(*(*r)->body == *body);
    return static_cast<double>((h.w.now() - began).count()) * 1e-9;
  };
  double straight = 0, carried = 0;
  for (int i = 0; i < 3; ++i) {
    straight += there_and_back(0, 2) + there_and_back(1, 2);
    carried += there_and_back(0, 1) + there_and_back(1, 0);
  }
  MESSAGE("8 MB there and back: " << straight / 6 << " s on a straight line, " << carried / 6 << " s through a third home");
  CHECK(carried < 4 * straight);  // two lines after one another, each paced: seen 2.1
  CHECK(h.programs[0]->downs == 0);
  CHECK(h.programs[1]->downs == 0);
}

TEST_CASE("blocks on a leg of a carried connection hold up neither its heartbeats nor what it carries") {
  homes h(26, 3, {2});
  h.w.set_all_lines({.delay = 10ms, .rate = 5e6});
  h.w.line(2, 1).rate = 240e3;
  h.dial(0, 2);
  h.dial(1, 2);
  h.dial(0, 1, {relay_address(id_of(2), id_of(1))});
  h.dial(1, 0, {relay_address(id_of(2), id_of(0))});
  REQUIRE(h.w.run_until([&] { return h.joined(0, 1); }, 20s));
  // Eight blocks come to home 1 over that line: 35 seconds of it.
  h.programs[1]->load(id_of(2), 8, share(noise(1 << 20, 3)));
  h.w.run_for(2s);
  mono_time began = h.w.now();
  auto small = h.call(0, 1, method::ping, {"", share(noise(1000, 4))}, 30s);
  CHECK((small && *small));
  CHECK(h.w.now() - began < 3s);
  auto large = h.call(0, 1, method::ping, {"", share(noise(1'000'000, 5))}, 120s);
  CHECK((large && *large));
  REQUIRE(h.w.run_until([&] { return h.programs[1]->loaded == 8; }, 120s));
  CHECK(h.programs[0]->downs == 0);
  CHECK(h.programs[1]->downs == 0);
}

TEST_CASE("the carrier goes dark: both ends know soon; it comes back, and they speak again") {
  for (bool power_cut : {false, true}) {
    CAPTURE(power_cut);
    homes h(22, 4, {2, 3});
    h.w.set_all_lines({.delay = 10ms});
    for (std::size_t a : {0u, 1u}) {
      h.dial(a, 2);
      h.dial(a, 3);
      h.dial(a, 1 - a, {relay_address(id_of(2), id_of(1 - a)), relay_address(id_of(3), id_of(1 - a))});
    }
    REQUIRE(h.w.run_until([&] { return h.joined(0, 1) && h.joined(0, 2) && h.joined(1, 2) && h.joined(0, 3) && h.joined(1, 3); }, 20s));
    std::size_t by = h.at(0).carried_by(id_of(1)) == id_of(2) ? 2 : 3;
    h.w.at(by).crash(power_cut);
    REQUIRE(h.w.run_until([&] { return !h.joined(0, 1) || h.at(0).carried_by(id_of(1)) != id_of(by); }, 13s));
    // the other one carries from now on
    REQUIRE(h.w.run_until([&] { return h.joined(0, 1); }, 30s));
    CHECK(h.at(0).carried_by(id_of(1)) == id_of(5 - by));
    h.w.at(5 - by).crash(power_cut);
    h.w.run_for(30s);
    CHECK_FALSE(h.joined(0, 1));
    h.start(2);
    CHECK(h.w.run_until([&] { return h.joined(0, 1); }, 90s));
    auto r = h.call(0, 1, method::ping, {"", share(noise(100'000, 1))});
    CHECK((r && *r));
  }
}

TEST_CASE("a straight line takes over from a carried one, and what is under way is not lost") {
  homes h(23, 3, {1, 2});
  h.w.set_all_lines({.delay = 10ms, .rate = 1e6});
  h.w.line(0, 1).up = h.w.line(1, 0).up = false;
  h.dial(0, 2);
  h.dial(1, 2);
  h.dial(0, 1, {relay_address(id_of(2), id_of(1))});
  REQUIRE(h.w.run_until([&] { return h.joined(0, 1); }, 20s));
  CHECK(h.at(0).carried_by(id_of(1)) == id_of(2));
  h.w.line(0, 1).up = h.w.line(1, 0).up = true;
  int failed = 0, done = 0;
  mono_time until = h.w.now() + 150s;
  while (h.w.now() < until) {
    auto r = h.call(0, 1, method::ping, {"", share(noise(200'000, 7))});
    ++(r && *r ? done : failed);
  }
  CHECK_FALSE(h.at(0).carried_by(id_of(1)));
  CHECK_FALSE(h.at(1).carried_by(id_of(0)));
  CHECK(done > 100);
  CHECK(failed == 0);
  CHECK(h.programs[0]->downs == 0);
}

TEST_CASE("a carrier carries for its callers only, between straight lines only, and nobody fills a home with streams or pieces") {
  homes h(24, 4, {2, 3});
  h.w.set_all_lines({.delay = 10ms});
  for (std::size_t a : {0u, 1u}) h.dial(a, 2);
  h.dial(2, 3);
  h.dial(0, 1, {relay_address(id_of(2), id_of(1))});
  REQUIRE(h.w.run_until([&] { return h.joined(0, 1) && h.joined(2, 3); }, 20s));
  auto piece = [&](std::size_t caller, std::size_t via, char kind, std::size_t from, std::size_t to, std::uint64_t channel, std::uint64_t sequence, shared_bytes body) {
    auto r = h.call(caller, via, method::relay, {relay_head(kind, id_of(from), id_of(to), channel, sequence), std::move(body)}, 5s);
    REQUIRE(r);
    return r->has_value() ? errc{} : r->error().code;
  };
  CHECK(piece(0, 2, 1, 3, 1, 5, 0, nullptr) == errc::access_denied);      // in another's name
  CHECK(piece(0, 2, 1, 0, 0, 5, 0, nullptr) == errc::protocol);
  CHECK(piece(0, 2, 9, 0, 1, 5, 0, nullptr) == errc::protocol);
  CHECK(piece(0, 2, 1, 0, 2, 5, 0, nullptr) == errc::protocol);           // to the carrier itself
  CHECK(piece(0, 1, 1, 0, 3, 5, 0, nullptr) == errc::unavailable);        // through a carried connection
  CHECK(piece(3, 2, 2, 3, 1, 5, 0, share("x")) == errc::not_found);       // of a stream that was never opened
  auto r = h.call(0, 2, method::relay, {"short", nullptr});
  CHECK((r && r->failed_with(errc::protocol)));
  // a stream of 3 to 1 that says nothing right: pieces out of order, too large, empty
  CHECK(piece(3, 2, 1, 3, 1, 5, 0, nullptr) == errc{});
  CHECK(piece(3, 2, 1, 3, 1, 5, 0, nullptr) == errc::already_exists);
  CHECK(piece(3, 2, 2, 3, 1, 5, 1000, share("x")) == errc::protocol);
  CHECK(piece(3, 2, 2, 3, 1, 5, 0, share(bytes(40'000, 'x'))) == errc::protocol);
  CHECK(piece(3, 2, 2, 3, 1, 5, 0, nullptr) == errc::protocol);
  CHECK(piece(3, 2, 2, 3, 1, 5, 0, share(bytes(1000, 'x'))) == errc{});   // no hello: closed by the handshake
  h.w.run_for(6s);
  CHECK(piece(3, 2, 2, 3, 1, 5, 1, share("x")) == errc::not_found);
  // hundreds of streams: each takes the place of an older one of the same two
  int taken = 0;
  for (std::uint64_t i = 100; i < 400; ++i) taken += piece(3, 2, 1, 3, 1, i, 0, nullptr) == errc{};
  CHECK(taken > 0);
  CHECK(h.joined(0, 1));
  auto good = h.call(0, 1, method::ping, {"", share(noise(100'000, 1))});
  CHECK((good && *good));
  CHECK(h.programs[0]->downs == 0);
}

TEST_CASE("a cluster of two reachable homes and two that only dial out: everything works, also with one of the reachable ones dark") {
  neighbourhood c(25);
  c.world().set_all_lines({.delay = 8ms, .rate = 10e6});
  c.add({.zone = "lyon"});
  c.add({.zone = "paris"});
  c.add({.zone = "brest", .dials_only = true});
  c.add({.zone = "lille", .dials_only = true});
  REQUIRE(c.form());
  auto linked = [&](std::size_t a, std::size_t b) { return c.node(a).wire().connected(c.node(b).id()); };
  REQUIRE(c.world().run_until([&] { return linked(2, 3) && linked(3, 2); }, 60s));
  CHECK(c.node(2).wire().carried_by(c.node(3).id()));
  REQUIRE(c.make_bucket(0, "carried"));
  c.world().run_for(5s);
  for (std::size_t i = 0; i < 4; ++i) REQUIRE(c.put(i, "carried", "before-" + std::to_string(i), noise(300'000, i)));
  c.crash(0, true);
  c.world().run_for(5s);
  int failed = 0;
  for (std::size_t round = 0; round < 20; ++round)
    for (std::size_t i = 1; i < 4; ++i) {
      std::string key = "after-" + std::to_string(round) + "-" + std::to_string(i);
      if (!c.put(i, "carried", key, noise(100'000, round * 10 + i))) ++failed;
    }
  CHECK(failed == 0);
  for (std::size_t i = 1; i < 4; ++i) {
    for (std::size_t k = 0; k < 4; ++k) {
      auto got = c.get(i, "carried", "before-" + std::to_string(k));
      REQUIRE(got);
      CHECK(*got == noise(300'000, k));
    }
    for (std::size_t round = 0; round < 20; ++round) {
      auto got = c.get(i, "carried", "after-" + std::to_string(round) + "-2");
      REQUIRE(got);
      CHECK(*got == noise(100'000, round * 10 + 2));
    }
  }
}
