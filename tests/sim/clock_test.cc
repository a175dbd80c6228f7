// A clock that is wrong for a while: what was written then, and what is written after it was set right, is like everything else.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "sim/cluster.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

store::call admin(neighbourhood& c) { return {{std::nullopt, true}, c.world().now() + 30s}; }

task<result<model::bucket>> index_of(storaged::node& n, store::call c, std::string bucket, std::string index) {
  co_return co_await n.store().change_bucket(c, bucket, [index](model::bucket& b) -> result<void> {
    b.website = model::website{index, {}};
    return {};
  });
}
task<result<void>> drop_bucket(storaged::node& n, store::call c, std::string bucket) { co_return co_await n.store().delete_bucket(c, bucket); }

template <class T>
std::string why(const std::optional<result<T>>& r) {
  return !r ? "no answer" : *r ? "" : r->error().to_string();
}

// What is read, or why not.
std::string told(neighbourhood& c, std::size_t i, const std::string& bucket, const std::string& key) {
  auto r = c.get(i, bucket, key);
  return !r ? r.error().to_string() : r->size() > 100 ? std::to_string(r->size()) + " times " + r->substr(0, 1) : *r;
}

}  // namespace

TEST_CASE("a clock that was ahead while its home was alone, and was set right: nobody is refused anything for it") {
  for (milliseconds ahead : {milliseconds(std::chrono::hours(2)), milliseconds(std::chrono::hours(10 * 365 * 24))}) {
    CAPTURE(ahead.count());
    neighbourhood c(61);
    c.world().set_all_lines({.delay = 10ms});
    for (const char* z : {"lyon", "paris"}) c.add({.zone = z});
    c.start(0);
    REQUIRE(c.wait_ready(0));
    REQUIRE(c.make_bucket(0, "plain"));
    REQUIRE(c.put(0, "plain", "before", "1"));
    c.at(0).clock().skew = ahead;
    REQUIRE(c.put(0, "plain", "during", bytes(200'000, 'd')));
    REQUIRE(c.put(0, "plain", "before", "2"));
    REQUIRE(c.make_bucket(0, "ahead"));
    REQUIRE(c.put(0, "ahead", "x", "1"));
    c.world().run_for(5s);
    c.at(0).clock().skew = 0ms;
    REQUIRE(c.put(0, "plain", "after", bytes(200'000, 'a')));
    REQUIRE(c.put(0, "plain", "before", "3"));
    REQUIRE(c.make_bucket(0, "after"));
    // No object that is written from now on says that it is of the future.
    auto l = c.list(0, "plain");
    REQUIRE(l);
    for (const auto& i : l->items)
      if (i.key != "during") CHECK(i.meta.modified_ms < c.world().wall_ms() + 60'000);
    REQUIRE(c.join(1));
    REQUIRE(c.world().run_until([&] { return c.settled(2); }, std::chrono::minutes(3)));
    c.world().run_for(60s);
    for (std::size_t i : {1u, 0u}) {
      CAPTURE(i);
      CHECK(told(c, i, "plain", "during") == "200000 times d");
      CHECK(told(c, i, "plain", "after") == "200000 times a");
      auto r = c.put(i, "ahead", "x", "2");
      CHECK_MESSAGE(r, (r ? std::string() : r.error().to_string()));
      r = c.put(i, "plain", "during", "again");
      CHECK_MESSAGE(r, (r ? std::string() : r.error().to_string()));
      CHECK(told(c, 1 - i, "plain", "during") == "again");
      CHECK(c.put(i, "plain", "during", bytes(200'000, 'd')));
      auto changed = c.world().await(c.at(i), index_of(c.node(i), admin(c), "ahead", "index.html"));
      CHECK_MESSAGE((changed && *changed), why(changed));
    }
    c.world().run_for(60s);
    CHECK(c.node(0).numbers().at("queue/hints") + c.node(1).numbers().at("queue/hints") == 0);
    CHECK(c.remove(1, "ahead", "x"));
    auto gone = c.world().await(c.at(1), drop_bucket(c.node(1), admin(c), "ahead"));
    CHECK_MESSAGE((gone && *gone), why(gone));
  }
}

TEST_CASE("what a home that was cut off took under a wrong clock is overtaken when it is back") {
  neighbourhood c(62);
  c.world().set_all_lines({.delay = 10ms});
  for (const char* z : {"lyon", "paris", "nantes"}) c.add({.zone = z});
  REQUIRE(c.form());
  REQUIRE(c.make_bucket(0, "plain"));
  // Cut off a moment ago, and told by nobody that its clock is wrong, it takes what comes to no quorum.
  c.at(0).clock().skew = std::chrono::hours(2);
  c.world().partition({0});
  CHECK(!c.put(0, "plain", "during", "1"));
  c.world().heal();
  c.at(0).clock().skew = 0ms;
  REQUIRE(c.put(1, "plain", "during", "2"));
  c.world().run_for(std::chrono::hours(3));
  for (std::size_t i : {0u, 1u, 2u}) {
    CHECK(told(c, i, "plain", "during") == "2");
    CHECK(c.node(i).numbers().at("rows_passed_over") == 0);
  }
  CHECK(c.node(0).directory().announced_number(c.node(1).id(), "rows_passed_over").has_value());
}

TEST_CASE("of two homes the first, its clock hours ahead, writes alone: the other takes that when it is back, and both go on") {
  neighbourhood c(62);
  c.world().set_all_lines({.delay = 10ms});
  for (const char* z : {"lyon", "paris"}) c.add({.zone = z});
  c.start(0);
  REQUIRE(c.wait_ready(0));
  REQUIRE(c.join(1));
  REQUIRE(c.world().run_until([&] { return c.settled(2); }, std::chrono::minutes(3)));
  REQUIRE(c.make_bucket(0, "plain"));
  REQUIRE(c.put(1, "plain", "before", "1"));
  c.crash(1);
  c.world().run_for(10s);
  c.at(0).clock().skew = std::chrono::hours(2);
  REQUIRE(c.put(0, "plain", "during", bytes(200'000, 'd')));
  REQUIRE(c.put(0, "plain", "before", "2"));
  for (int i = 0; i < 40; ++i) REQUIRE(c.put(0, "plain", "many/" + std::to_string(i), std::to_string(i)));
  c.at(0).clock().skew = 0ms;
  c.start(1);
  REQUIRE(c.wait_ready(1));
  c.world().run_for(40s);
  for (std::size_t i : {1u, 0u}) {
    CAPTURE(i);
    CHECK(told(c, i, "plain", "during") == "200000 times d");
    CHECK(told(c, i, "plain", "before") == "2");
    CHECK(told(c, i, "plain", "many/39") == "39");
  }
  for (std::size_t i : {1u, 0u}) {
    auto r = c.put(i, "plain", "before", std::to_string(i));
    CHECK_MESSAGE(r, (r ? std::string() : r.error().to_string()));
    CHECK(told(c, 1 - i, "plain", "before") == std::to_string(i));
    r = c.put(i, "plain", "many/7", "new");
    CHECK_MESSAGE(r, (r ? std::string() : r.error().to_string()));
  }
  CHECK(c.remove(1, "plain", "many/3"));
  CHECK(c.node(0).numbers().at("queue/hints") + c.node(1).numbers().at("queue/hints") == 0);
  c.crash(1);
  c.world().run_for(10s);
  CHECK(told(c, 0, "plain", "many/7") == "new");
}
