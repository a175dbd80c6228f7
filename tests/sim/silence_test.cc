// A home that stops answering without a word (frozen, unplugged) is not waited for: before anybody can know that it is down,
// requests go round it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdio>

#include "sim/cluster.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

struct tally {
  int done = 0;
  std::vector<std::string> errors;
  nanoseconds slowest{};
  bool ending = false;
};

bytes noise(std::size_t size, std::uint64_t seed) {
  bytes b;
  for (std::uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1; b.size() < size;) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    append_u64(b, x);
  }
  b.resize(size);
  return b;
}

task<void> client(storaged::node& n, runtime& rt, std::uint64_t id, tally& t) {
  constexpr std::size_t sizes[] = {900, 70'000, 1'300'000};
  for (std::uint64_t i = 0; !t.ending; ++i) {
    std::string key = std::to_string(id) + "-" + std::to_string(i);
    bytes body = noise(sizes[i % 3], id << 32 | i);
    auto timed = [&](mono_time start, const result<void>& r) {
      t.slowest = std::max(t.slowest, rt.now() - start);
      r ? void(++t.done) : t.errors.push_back(r.error().to_string());
    };
    mono_time start = rt.now();
    auto put = co_await put_object(n, rt, "frozen", key, body, {}, 30s);
    timed(start, put ? result<void>() : fail(put.error()));
    start = rt.now();
    auto got = co_await get_object(n, rt, "frozen", key, 30s);
    timed(start, got ? got->first == body ? result<void>() : fail(errc::corrupt, "other bytes") : fail(got.error()));
    co_await sleep_for(rt, 50ms);
  }
}

}  // namespace

TEST_CASE("no request takes a second while one of three homes is silent, and none fails") {
  for (auto [delay, rate] : {std::pair{nanoseconds(100us), 110e6}, {nanoseconds(8ms), 12.5e6}}) {
    neighbourhood c(61);
    c.world().set_all_lines({.delay = delay, .rate = rate});
    for (const char* z : {"lyon", "paris", "brest"}) c.add({.zone = z});
    REQUIRE(c.form());
    REQUIRE(c.make_bucket(0, "frozen"));
    c.world().run_for(10s);
    for (std::size_t silent : {2u, 0u}) {
      tally t;
      for (std::size_t home = 0; home < 3; ++home)
        for (std::uint64_t k = 0; home != silent && k < 2; ++k)
          c.at(home).root().spawn("client", client(c.node(home), c.at(home).rt(), silent * 100 + home * 10 + k, t));
      c.world().run_for(1500ms);
      CHECK(t.done > 20);
      c.crash(silent, true);
      c.world().run_for(5s);
      t.ending = true;
      c.world().run_for(3s);
      CAPTURE((t.errors.empty() ? std::string() : t.errors.front()));
      CHECK(t.errors.empty());
      std::printf("round trip %lld us, home %zu silent: %d requests, the slowest %.0f ms\n",
                  static_cast<long long>(2 * delay / 1us), silent + 1, t.done, static_cast<double>(t.slowest.count()) / 1e6);
      CHECK(t.slowest < 1s);
      c.start(silent);
      REQUIRE(c.wait_ready(silent));
      c.world().run_for(30s);
    }
  }
}
