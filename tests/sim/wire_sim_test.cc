// wire/ in virtual time: the reference lines, crashes, power cuts, crossing dials.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "sim/world.h"
#include "wire/wire.h"

using namespace grenier;
using namespace grenier::sim;
using namespace grenier::wire;

namespace {

crypto::node_key key_of(std::size_t i) { return crypto::node_key::from_seed(bytes(32, static_cast<char>('a' + i))); }
std::string address_of(std::size_t i) { return "10.0.0." + std::to_string(i) + ":3901"; }

struct program {
  explicit program(machine& m) : rt(m.rt()) {
    wire::options o{"0.0.0.0:3901", key_of(m.index()), bytes(32, 'k'), *cluster_id::from_bytes(bytes(16, 'c'))};
    e = make_endpoint(m.rt(), m.net(), o);
    e->serve(method::ping, [](caller, message msg) { return echo(std::move(msg)); });
    e->serve(method::block_put, [](caller, message) { return taken(); });
    e->serve(method::table_read, [this](caller, message) { return slow(*this); });
    e->on_connection([this](node_id, bool up) { ++(up ? ups : downs); });
    ASSERT(e->start());
  }
  static task<result<message>> echo(message m) { co_return m; }
  static task<result<message>> taken() { co_return message{}; }
  static task<result<message>> slow(program& p) {
    co_await sleep_for(p.rt, 1000s);
    co_return message{};
  }
  runtime& rt;
  std::unique_ptr<endpoint> e;
  int ups = 0, downs = 0;
};

struct homes {
  explicit homes(std::uint64_t seed, std::size_t n = 2) : w(seed), programs(n) {
    crypto::init();
    for (std::size_t i = 0; i < n; ++i) {
      w.add("home" + std::to_string(i));
      start(i);
    }
  }
  void start(std::size_t i) {
    w.at(i).start([this, i](machine& m) {
      auto p = std::make_shared<program>(m);
      programs[i] = p.get();
      return p;
    });
  }
  void dial(std::size_t from, std::size_t to) { programs[from]->e->keep(key_of(to).id(), {address_of(to)}); }
  bool joined(std::size_t a, std::size_t b) {
    return programs[a]->e->connected(key_of(b).id()) && programs[b]->e->connected(key_of(a).id());
  }
  task<result<message>> call(std::size_t from, std::size_t to, method m, message msg, priority p, nanoseconds within) {
    return programs[from]->e->call(key_of(to).id(), m, std::move(msg), {p, w.now() + within});
  }
  world w;
  std::vector<program*> programs;
};

task<void> bulk(program& p, std::size_t to, std::size_t size, int times, int& done) {
  auto body = share(bytes(size, 'b'));
  for (int i = 0; i < times; ++i)
    done += (co_await p.e->call(key_of(to).id(), method::block_put, {{}, body}, {priority::background, p.rt.now() + 3600s})).has_value();
}

}  // namespace

TEST_CASE("a heartbeat is not delayed by a resync on the reference lines") {
  struct { double up, down; nanoseconds one_way; double most_ms, share; } lines[] = {
      {0.26e6 / 8, 0.66e6 / 8, 35ms, 700, 0.75},   // ADSL to ADSL
      {0.27e6 / 8, 3.6e6 / 8, 29ms, 700, 0.75},    // ADSL to fibre
      {17e6 / 8, 76e6 / 8, 11ms, 200, 0.6},        // fibre to fibre
  };
  for (auto& l : lines) {
    homes h(7);
    h.w.line(0, 1) = {.delay = l.one_way, .rate = l.up};
    h.w.line(1, 0) = {.delay = l.one_way, .rate = l.down};
    h.dial(0, 1);
    REQUIRE(h.w.run_until([&] { return h.joined(0, 1); }, 5s));
    int done = 0;
    std::size_t size = 1 << 20;
    int times = l.up > 1e6 ? 40 : 2;
    mono_time began = h.w.now();
    h.w.at(0).root().spawn("bulk", bulk(*h.programs[0], 1, size, times, done));
    h.w.run_for(3s);
    double worst = 0;
    for (int i = 0; i < 30 && done < times; ++i) {
      mono_time t = h.w.now();
      auto r = h.w.await(h.w.at(0), h.call(0, 1, method::ping, {"beat", nullptr}, priority::control, 10s));
      REQUIRE(r);
      REQUIRE(*r);
      worst = std::max(worst, static_cast<double>((h.w.now() - t).count()) * 1e-6);
      h.w.run_for(300ms);
    }
    REQUIRE(h.w.run_until([&] { return done == times; }, 300s));
    double rate = static_cast<double>(size) * times / (static_cast<double>((h.w.now() - began).count()) * 1e-9);
    MESSAGE("line of " << l.up * 8e-6 << " Mbit/s: worst heartbeat " << worst << " ms, bulk at " << 100 * rate / l.up
                       << " % of the line, believed " << h.programs[0]->e->quality(key_of(1).id()).send_rate / l.up);
    CHECK(worst < l.most_ms);
    CHECK(rate > l.up * l.share);
    CHECK(h.programs[0]->downs == 0);
  }
}

TEST_CASE("crossing dials end in one connection without flapping, whatever the timing") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    homes h(seed);
    CAPTURE(seed);
    h.w.set_all_lines({.delay = milliseconds(1 + seed % 40), .jitter = milliseconds(seed % 30), .loss = seed % 3 ? 0.0 : 0.1});
    h.dial(0, 1);
    h.w.run_for(milliseconds(seed * 7 % 130));
    h.dial(1, 0);
    REQUIRE(h.w.run_until([&] { return h.joined(0, 1); }, 30s));
    for (int i = 0; i < 20; ++i) {
      auto r = h.w.await(h.w.at(static_cast<std::size_t>(i % 2)),
                         h.call(static_cast<std::size_t>(i % 2), static_cast<std::size_t>(1 - i % 2), method::ping, {"x", nullptr},
                                priority::metadata, 10s));
      REQUIRE(r);
      CHECK(*r);
    }
    h.w.run_for(60s);
    CHECK(h.joined(0, 1));
    for (auto* p : h.programs) {
      CHECK(p->ups == 1);
      CHECK(p->downs == 0);
    }
  }
}

TEST_CASE("a power cut is noticed within seconds, what was sent is unknown; the home comes back") {
  homes h(3);
  h.w.set_all_lines({.delay = 20ms});
  h.dial(0, 1);
  REQUIRE(h.w.run_until([&] { return h.joined(0, 1); }, 5s));
  auto pending = std::make_shared<std::optional<result<message>>>();
  struct keep {
    static task<void> store(std::shared_ptr<std::optional<result<message>>> to, task<result<message>> t) { to->emplace(co_await std::move(t)); }
  };
  h.w.at(0).root().spawn("call", keep::store(pending, h.call(0, 1, method::table_read, {}, priority::metadata, 100s)));
  h.w.run_for(1s);
  mono_time cut = h.w.now();
  h.w.at(1).crash(true);
  REQUIRE(h.w.run_until([&] { return pending->has_value(); }, 30s));
  CHECK((*pending)->failed_with(errc::outcome_unknown));
  CHECK(h.w.now() - cut < 13s);
  h.w.run_for(60s);
  h.start(1);
  CHECK(h.w.run_until([&] { return h.joined(0, 1); }, 60s));
}

TEST_CASE("a home that restarts after a power cut and dials is taken at once") {
  for (std::size_t restarts : {0u, 1u}) {  // the smaller and the larger id
    homes h(4);
    h.w.set_all_lines({.delay = 20ms});
    h.dial(0, 1);
    h.dial(1, 0);
    REQUIRE(h.w.run_until([&] { return h.joined(0, 1); }, 5s));
    h.w.run_for(30s);
    h.w.at(restarts).crash(true);
    h.start(restarts);
    h.dial(restarts, 1 - restarts);
    mono_time t = h.w.now();
    REQUIRE(h.w.run_until([&] { return h.joined(0, 1) && h.programs[1 - restarts]->ups == 2; }, 5s));
    CHECK(h.w.now() - t < 1s);
    h.w.run_for(20s);
    CHECK(h.joined(0, 1));
    CHECK(h.programs[1 - restarts]->ups == 2);
  }
}

TEST_CASE("a line that is cut for a minute heals") {
  homes h(5, 3);
  h.w.set_all_lines({.delay = 20ms, .loss = 0.01});
  for (std::size_t a = 0; a < 3; ++a)
    for (std::size_t b = 0; b < 3; ++b)
      if (a != b) h.dial(a, b);
  auto all = [&] { return h.joined(0, 1) && h.joined(0, 2) && h.joined(1, 2); };
  REQUIRE(h.w.run_until(all, 10s));
  h.w.partition({0});
  REQUIRE(h.w.run_until([&] { return !h.programs[0]->e->connected(key_of(1).id()); }, 15s));
  h.w.run_for(60s);
  CHECK(h.joined(1, 2));
  h.w.heal();
  CHECK(h.w.run_until(all, 40s));
  h.w.run_for(60s);
  CHECK(all());
}

namespace {
std::uint64_t story(std::uint64_t seed) {
  homes h(seed, 3);
  h.w.set_all_lines({.delay = 10ms, .jitter = 10ms, .rate = 1e6, .loss = 0.02});
  for (std::size_t a = 0; a < 3; ++a)
    for (std::size_t b = 0; b < 3; ++b)
      if (a != b) h.dial(a, b);
  int done = 0;
  h.w.run_for(2s);
  for (std::size_t a = 0; a < 3; ++a) h.w.at(a).root().spawn("bulk", bulk(*h.programs[a], (a + 1) % 3, 300000, 5, done));
  h.w.run_for(700ms);
  h.w.at(2).crash(seed % 2);
  h.w.run_for(20s);
  h.start(2);
  h.w.run_for(20s);
  h.w.note(std::to_string(done));
  return h.w.trace();
}
}  // namespace

TEST_CASE("the same seed gives the same story, with crashes in the middle of transfers") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) CHECK(story(seed) == story(seed));
  CHECK(story(1) != story(2));
}

namespace {
task<std::optional<bytes>> one_secret() { co_return bytes(32, 's'); }

// Thousands of connections that say nothing; how many the other side has closed.
struct flood {
  int opened = 0, closed = 0;
};
task<void> silent_one(network& net, runtime& rt, flood& f) {
  auto s = co_await net.connect(address_of(0), rt.now() + 60s);
  if (!s) co_return;
  ++f.opened;
  char b[64];
  (void)co_await (*s)->read_some(b);
  ++f.closed;
}
task<void> use_invite(program& p, bytes id, std::optional<errc>& outcome) {
  auto r = co_await p.e->call_with_invite(address_of(0), id, bytes(32, 's'), {"me", nullptr}, p.rt.now() + 600s);
  outcome = r ? errc::internal : r.error().code;
}
}  // namespace

TEST_CASE("a guest's connection ends after two minutes, whatever the guest does") {
  homes h(11);
  simulated_random rnd(1);
  h.programs[0]->e->on_invite([](bytes) { return one_secret(); });
  h.programs[0]->e->serve(method::join, [p = h.programs[0]](caller, message) { return program::slow(*p); });
  std::optional<errc> outcome;
  h.w.at(1).root().spawn("guest", use_invite(*h.programs[1], make_invite_id(bytes(32, 'k'), rnd), outcome));
  h.w.run_for(110s);
  CHECK_FALSE(outcome);
  h.w.run_for(15s);
  CHECK(outcome == errc::outcome_unknown);
}

TEST_CASE("thousands of silent connections: taken a thousand a second, and a member still gets in") {
  homes h(12, 3);
  flood f;
  for (int i = 0; i < 4000; ++i) h.w.at(2).root().spawn("silent", silent_one(h.w.at(2).net(), h.w.at(2).rt(), f));
  h.w.run_for(1s);
  CHECK(f.closed > 500);
  CHECK(f.closed < 1200);
  h.dial(1, 0);
  CHECK(h.w.run_until([&] { return h.joined(0, 1); }, 10s));
  h.w.run_for(10s);
  CHECK(f.closed == f.opened);
}
