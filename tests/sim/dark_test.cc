// Rule 5b.15: with its quorum dark a home goes on reading what it has, saying that it may be stale, and writes nothing.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "sim/cluster.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

struct answer {
  result<bytes> body;
  bool stale_possible = false;
  nanoseconds took{};
};

task<answer> read(storaged::node& n, runtime& rt, std::string key, store::consistency how) {
  const mono_time began = rt.now();
  store::get_request q;
  q.bucket = "photos";
  q.key = std::move(key);
  q.how = how;
  auto r = co_await n.store().get({{std::nullopt, true}, rt.now() + 10s}, std::move(q));
  if (!r) co_return answer{fail(r.error()), false, rt.now() - began};
  answer a{bytes(), r->stale_possible, {}};
  for (;;) {
    auto piece = co_await r->body->next();
    if (!piece) co_return answer{fail(piece.error()), r->stale_possible, rt.now() - began};
    if (!*piece) break;
    a.body->append(**piece);
  }
  a.took = rt.now() - began;
  co_return a;
}

task<result<store::list_result>> list(storaged::node& n, runtime& rt, store::consistency how) {
  store::list_request q;
  q.bucket = "photos";
  q.how = how;
  co_return co_await n.store().list({{std::nullopt, true}, rt.now() + 10s}, std::move(q));
}

struct town {
  explicit town(std::size_t homes) : c(91) {
    c.world().set_all_lines({.delay = 20ms});
    for (std::size_t i = 0; i < homes; ++i) c.add({.zone = "zone-" + std::to_string(i)});
    REQUIRE(c.form());
    REQUIRE(c.make_bucket(0, "photos"));
    REQUIRE(c.put(0, "photos", "small", "a few bytes"));
    REQUIRE(c.put(0, "photos", "large", large));
    c.world().run_for(60s);  // every copy is where it belongs
  }
  answer get(std::size_t i, std::string key, store::consistency how) {
    auto r = c.world().await(c.at(i), read(c.node(i), c.at(i).rt(), std::move(key), how));
    REQUIRE(r);
    return std::move(*r);
  }
  result<store::list_result> ls(std::size_t i, store::consistency how) {
    auto r = c.world().await(c.at(i), list(c.node(i), c.at(i).rt(), how));
    REQUIRE(r);
    return std::move(*r);
  }
  void reads_alone(std::size_t i) {
    using store::consistency;
    for (auto how : {consistency::strong_if_up, consistency::any})
      for (const auto& [key, body] : {std::pair(std::string("small"), bytes("a few bytes")), {"large", large}}) {
        CAPTURE(key);
        auto a = get(i, key, how);
        REQUIRE(a.body);
        CHECK(*a.body == body);
        CHECK(a.stale_possible);
        CHECK(a.took < 100ms);
      }
    auto l = ls(i, consistency::strong_if_up);
    REQUIRE(l);
    CHECK(l->stale_possible);
    CHECK(l->items.size() == 2);
    CHECK(get(i, "small", consistency::strong).body.failed_with(errc::unavailable));
    CHECK(get(i, "never", consistency::strong_if_up).body.failed_with(errc::unavailable));
    CHECK(ls(i, consistency::strong).failed_with(errc::unavailable));
    CHECK(c.put(i, "photos", "new", "x", 10s).failed_with(errc::unavailable));
    CHECK(!c.remove(i, "photos", "small"));
  }
  neighbourhood c;
  bytes large = bytes(300'000, 'l');
};

}  // namespace

TEST_CASE("two of three homes dark: the third reads alone, marked as possibly stale, and takes no writes") {
  town t(3);
  using store::consistency;
  CHECK(!t.get(2, "small", consistency::strong_if_up).stale_possible);
  // Nobody may have it from this home only.
  t.c.crash(0, true);
  t.c.crash(1, true);
  t.c.world().run_for(30s);
  t.reads_alone(2);
  t.c.start(0);
  REQUIRE(t.c.wait_ready(0));
  t.c.world().run_for(15s);
  auto a = t.get(2, "small", consistency::strong_if_up);
  REQUIRE(a.body);
  CHECK(!a.stale_possible);
  CHECK(t.c.put(2, "photos", "new", "x"));
}

TEST_CASE("two homes: the one without the casting vote reads alone; the one with it does everything") {
  town t(2);
  const auto casting = t.c.node(0).tables().layout().current.casting;
  const std::size_t first = casting == t.c.node(0).id() ? 0 : 1;
  t.c.crash(first, true);
  t.c.world().run_for(30s);
  t.reads_alone(1 - first);
  t.c.start(first);
  REQUIRE(t.c.wait_ready(first));
  t.c.world().run_for(15s);
  t.c.crash(1 - first, true);
  t.c.world().run_for(30s);
  auto a = t.get(first, "small", store::consistency::strong_if_up);
  REQUIRE(a.body);
  CHECK(!a.stale_possible);
  CHECK(t.c.put(first, "photos", "new", "x"));
}
