// A cluster grows from one copy to two to three as homes join, with the data that is there, while it serves; a home lost for a
// while is caught up; a home lost for good loses nothing.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "sim/cluster.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

bytes content(int i, std::size_t size) {
  bytes b = "object " + std::to_string(i) + "\n";
  for (std::uint64_t n = 0; b.size() < size; ++n) b += std::to_string(xxh3_64({}, static_cast<std::uint64_t>(i) << 32 | n)) + "\n";
  return b;
}

std::size_t files(neighbourhood& c, std::size_t i) { return c.at(i).drives[0].files.size(); }

}  // namespace

TEST_CASE("one copy, two, three: nothing is lost, and it serves all the while") {
  neighbourhood c(21);
  c.world().set_all_lines({.delay = 20ms});
  for (const char* z : {"lyon", "paris", "brest"}) c.add({.zone = z});
  c.start(0);
  REQUIRE(c.wait_ready(0));
  REQUIRE(c.make_bucket(0, "growing"));
  int next = 0;
  auto put_some = [&](std::size_t at, int n) {
    for (int i = 0; i < n; ++i, ++next) {
      auto r = c.put(at, "growing", "key-" + std::to_string(1000 + next), content(next, next % 3 ? 500 : 200'000));
      CAPTURE((r ? std::string() : r.error().to_string()));
      REQUIRE(r);
    }
  };
  put_some(0, 30);
  for (std::size_t joining : {1u, 2u}) {
    REQUIRE(c.join(joining));
    put_some(0, 10);
    put_some(joining, 10);
    bool done = c.world().run_until([&] {
      for (std::size_t i = 0; i <= joining; ++i) {
        const auto& s = c.node(i).tables().layout();
        if (s.phase != layout::phase::settled || s.current.copies() != joining + 1) return false;
      }
      return true;
    }, std::chrono::minutes(3));
    REQUIRE(done);
  }
  c.world().run_for(std::chrono::minutes(5));
  CHECK(files(c, 0) == files(c, 1));
  CHECK(files(c, 1) == files(c, 2));
  // Any one home may go: the other two have everything.
  for (std::size_t dead : {0u, 1u, 2u}) {
    c.crash(dead, true);
    std::size_t reader = dead == 0 ? 1 : 0;
    c.world().run_for(5s);
    for (int i = 0; i < next; ++i) {
      auto r = c.get(reader, "growing", "key-" + std::to_string(1000 + i));
      CAPTURE(i);
      CAPTURE((r ? std::string() : r.error().to_string()));
      REQUIRE(r);
      CHECK(*r == content(i, i % 3 ? 500 : 200'000));
    }
    auto l = c.list(reader, "growing");
    REQUIRE(l);
    CHECK(l->items.size() == static_cast<std::size_t>(next));
    c.start(dead);
    REQUIRE(c.wait_ready(dead));
    c.world().run_for(30s);
  }
}

TEST_CASE("a home that slept is caught up with what was written meanwhile") {
  neighbourhood c(22);
  c.world().set_all_lines({.delay = 10ms});
  for (const char* z : {"lyon", "paris", "brest"}) c.add({.zone = z});
  REQUIRE(c.form());
  REQUIRE(c.make_bucket(0, "sleeper"));
  c.crash(2, true);
  c.world().run_for(4s);
  for (int i = 0; i < 40; ++i) REQUIRE(c.put(0, "sleeper", "key-" + std::to_string(i), content(i, i % 4 ? 300 : 150'000)));
  REQUIRE(c.remove(0, "sleeper", "key-1"));
  c.start(2);
  REQUIRE(c.wait_ready(2));
  c.world().run_for(std::chrono::minutes(5));
  CHECK(files(c, 2) == files(c, 0));
  // Alone with one other home it must have what it needs for a quorum.
  c.crash(1, true);
  c.world().run_for(5s);
  for (int i = 0; i < 40; ++i) {
    auto r = c.get(2, "sleeper", "key-" + std::to_string(i));
    if (i == 1) {
      CHECK(r.failed_with(errc::no_such_key));
    } else {
      REQUIRE(r);
      CHECK(*r == content(i, i % 4 ? 300 : 150'000));
    }
  }
}

TEST_CASE("two zones: the first goes on alone, the second only waits; two of three dark: writes are refused, quickly") {
  neighbourhood c(23);
  c.world().set_all_lines({.delay = 10ms});
  for (const char* z : {"lyon", "paris"}) c.add({.zone = z});
  REQUIRE(c.form());
  REQUIRE(c.make_bucket(0, "pairs"));
  REQUIRE(c.put(1, "pairs", "a", "both"));
  c.crash(1, true);
  c.world().run_for(6s);
  REQUIRE(c.put(0, "pairs", "b", "alone"));
  CHECK(*c.get(0, "pairs", "a") == "both");
  c.start(1);
  REQUIRE(c.wait_ready(1));
  c.world().run_for(20s);
  CHECK(*c.get(1, "pairs", "b") == "alone");
  c.crash(0, true);
  c.world().run_for(6s);
  mono_time start = c.world().now();
  CHECK(!c.put(1, "pairs", "c", "no"));
  CHECK(c.world().now() - start < 10s);
}
