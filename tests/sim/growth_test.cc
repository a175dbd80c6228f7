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

TEST_CASE("a home that was dark for a moment or a while: when the queues are empty, no block is missing") {
  for (auto away : {1s, 8s}) {
    neighbourhood c(25 + static_cast<std::uint64_t>(away.count()));
    c.world().set_all_lines({.delay = 10ms});
    for (const char* z : {"lyon", "paris", "brest", "nice"}) c.add({.zone = z});  // of four: a gateway need not hold the row
    REQUIRE(c.form());
    REQUIRE(c.make_bucket(0, "moment"));
    int next = 0;
    auto put_until = [&](mono_time t) {
      while (c.world().now() < t) {
        (void)c.put(static_cast<std::size_t>(next % 2), "moment", "key-" + std::to_string(next), content(next, 150'000));
        ++next;
      }
    };
    put_until(c.world().now() + 1s);
    c.crash(2, true);
    put_until(c.world().now() + away);
    c.start(2);
    put_until(c.world().now() + 1s);
    REQUIRE(c.wait_ready(2));
    auto quiet = [&] {
      for (std::size_t i = 0; i < 4; ++i) {
        auto t = c.node(i).tables().status();
        auto b = c.node(i).blocks().stats();
        if (t.hints || t.partitions_to_sync || t.homes_to_compare || b.resync_queue) return false;
      }
      return true;
    };
    c.world().run_for(3s);  // until everybody knows that it is back
    const mono_time back = c.world().now();
    const bool in_time = c.world().run_until(quiet, 60s);
    for (std::size_t i = 0; i < 4 && !in_time; ++i)
      for (const auto& [name, n] : c.node(i).numbers())
        if (n) {
          const auto blocks = c.node(i).blocks().stats().resync;
          const auto rows = c.node(i).tables().status().merging;
          MESSAGE(i, ": ", name, " ", n, "; ", blocks.latest() ? blocks.latest()->what : "", "; ", rows.latest() ? rows.latest()->what : "");
        }
    REQUIRE(in_time);
    MESSAGE("away for ", away.count(), " s: caught up within ", std::chrono::duration<double>(c.world().now() - back).count() + 3, " s, ", next, " objects");
    std::vector<std::set<std::string>> then(4);
    for (std::size_t i = 0; i < 4; ++i)
      for (const auto& f : c.at(i).drives[0].files) then[i].insert(f.first);
    c.world().run_for(std::chrono::minutes(5));
    std::size_t missing = 0, all = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      all += files(c, i);
      for (const auto& f : c.at(i).drives[0].files) missing += !then[i].contains(f.first);
    }
    CHECK(missing == 0);
    CHECK(all == 9 * static_cast<std::size_t>(next));  // three blocks, three times
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

namespace {
// Runs home i until it has written n times, or is ready: false then.
bool run_to_write(neighbourhood& c, std::size_t i, int n) {
  auto digest = [&] {
    std::uint64_t d = 0;
    for (std::size_t f = 0; f < kv::family_count; ++f)
      for (const auto& [k, v] : c.at(i).kv_disk.content(static_cast<kv::family>(f))) d += xxh3_64(k, xxh3_64(v, f));
    return d;
  };
  std::uint64_t before = digest();
  int writes = 0;
  auto stop = [&] {
    if (std::uint64_t now = digest(); now != before) before = now, ++writes;
    return writes == n || c.ready(i);
  };
  return c.world().run_until(stop, 60s) && !c.ready(i);
}
}  // namespace

TEST_CASE("a founder that dies after any write of its first start founds at the next one") {
  int n = 1;
  for (;; ++n) {
    neighbourhood c(40);
    c.add({.zone = "lyon"});
    c.start(0);
    if (!run_to_write(c, 0, n)) break;
    CAPTURE(n);
    c.crash(0, n % 2);
    const auto& meta = c.at(0).kv_disk.content(kv::family::meta);
    const bool all_done = meta.contains("layout") && !meta.contains("cluster/begun");
    c.start(0);
    REQUIRE(c.wait_ready(0));
    CHECK(c.node(0).founded() == !all_done);
    CHECK(c.node(0).made_key().has_value() == !all_done);  // who never saw the first key gets another one
    REQUIRE(c.make_bucket(0, "begun"));
    REQUIRE(c.put(0, "begun", "a", "b"));
    c.crash(0);
    c.start(0);
    REQUIRE(c.wait_ready(0));
    CHECK_FALSE(c.node(0).founded());
    CHECK(*c.get(0, "begun", "a") == "b");
  }
  CHECK(n >= 5);
}

TEST_CASE("a home that dies after any write of its first start joins at the next one, with the same invite") {
  for (bool dials_only : {false, true}) {
    int n = 1;
    for (;; ++n) {
      neighbourhood c(41);
      c.world().set_all_lines({.delay = 10ms});
      c.add({.zone = "lyon"});
      c.add({.zone = "paris", .dials_only = dials_only});
      c.start(0);
      REQUIRE(c.wait_ready(0));
      REQUIRE(c.make_bucket(0, "begun"));
      REQUIRE(c.put(0, "begun", "a", "b"));
      auto line = c.world().await(c.at(0), c.node(0).make_invite(seconds(3600), c.world().now() + 20s));
      REQUIRE(line);
      REQUIRE(*line);
      c.start(1, **line);
      if (!run_to_write(c, 1, n)) break;
      CAPTURE(n);
      CAPTURE(dials_only);
      c.crash(1, n % 2);
      c.world().run_for(seconds(n % 3 * 5));
      c.start(1, **line);
      REQUIRE(c.wait_ready(1));
      REQUIRE(c.world().run_until([&] { return c.settled(2); }, std::chrono::minutes(3)));
      CHECK(*c.get(1, "begun", "a") == "b");
      // And it finds the other again by itself.
      c.crash(1);
      c.world().run_for(5s);
      c.start(1);
      REQUIRE(c.wait_ready(1));
      CHECK(c.world().run_until([&] { return c.node(1).wire().connected(c.node(0).id()); }, 60s));
    }
    CHECK(n >= 4);
  }
}

TEST_CASE("a home that vanished after it was let in is taken out, and the next one joins") {
  neighbourhood c(51);
  c.world().set_all_lines({.delay = 20ms});
  for (const char* z : {"lyon", "paris", "brest"}) c.add({.zone = z});
  c.start(0);
  REQUIRE(c.wait_ready(0));
  REQUIRE(c.make_bucket(0, "ghost"));
  auto layout_of = [&](std::size_t i) -> const layout::state& { return c.node(i).tables().layout(); };
  for (int i = 0; i < 10; ++i) REQUIRE(c.put(0, "ghost", "key-" + std::to_string(i), content(i, i % 3 ? 500 : 200'000)));
  auto begin = [&](std::size_t i) {
    auto line = c.world().await(c.at(0), c.node(0).make_invite(seconds(3600), c.world().now() + 20s));
    REQUIRE(line);
    REQUIRE(*line);
    c.start(i, **line);
  };
  begin(1);
  REQUIRE(c.world().run_until([&] { return layout_of(0).phase == layout::phase::moving; }, 60s));
  node_id ghost;
  for (const auto& m : layout_of(0).next->members)
    if (m.node != c.node(0).id()) ghost = m.node;
  c.crash(1, true);
  c.world().run_for(60s);
  // It goes on as it was, says whom it waits for, and tells the next one that would join.
  REQUIRE(layout_of(0).phase == layout::phase::moving);
  CHECK(c.node(0).waits_for_dark().starts_with("paris ("));
  REQUIRE(c.put(0, "ghost", "key-10", content(10, 500)));
  std::string said;
  c.on_log = [&](std::size_t i, log_level, const std::string& line) { said += i == 2 ? line : ""; };
  begin(2);
  CHECK_FALSE(c.wait_ready(2, std::chrono::minutes(3)));
  CHECK(said.find("storagectl layout remove") != std::string::npos);
  c.crash(2, true);
  auto gone = c.world().await(c.at(0), c.node(0).remove(ghost, c.world().now() + 15s));
  REQUIRE(gone);
  CAPTURE((*gone ? std::string() : gone->error().to_string()));
  REQUIRE(*gone);
  CHECK(layout_of(0).find(ghost) == nullptr);
  CHECK(layout_of(0).removed == std::vector{ghost});
  CHECK(c.node(0).waits_for_dark().empty());
  REQUIRE(c.put(0, "ghost", "key-11", content(11, 500)));
  REQUIRE(c.join(2));
  REQUIRE(c.world().run_until([&] { return layout_of(2).phase == layout::phase::settled && layout_of(2).current.copies() == 2; }, std::chrono::minutes(3)));
  c.world().run_for(60s);
  for (int i = 0; i < 12; ++i) {
    auto r = c.get(2, "ghost", "key-" + std::to_string(i));
    CAPTURE(i);
    REQUIRE(r);
    CHECK(*r == content(i, i < 10 && i % 3 == 0 ? 200'000 : 500));
  }
  // Should it come back after all, it is no member any more.
  c.start(1);
  c.world().run_for(30s);
  CHECK(layout_of(0).find(ghost) == nullptr);
  CHECK(layout_of(0).phase == layout::phase::settled);
}

TEST_CASE("a member that is still told to join starts, whatever the line says") {
  neighbourhood c(52);
  c.world().set_all_lines({.delay = 10ms});
  for (const char* z : {"lyon", "paris"}) c.add({.zone = z});
  REQUIRE(c.form());
  std::vector<std::string> said;
  c.on_log = [&](std::size_t i, log_level, const std::string& line) {
    if (i == 1 && line.find("--join") != std::string::npos) said.push_back(line);
  };
  auto own = c.world().await(c.at(0), c.node(0).make_invite(seconds(1), c.world().now() + 20s));
  REQUIRE(own);
  REQUIRE(*own);
  c.world().run_for(5s);  // it has expired
  for (const std::string& line : {std::string("grenier1.7b2261223a"), std::string("-"), (*own)->substr(0, 40), **own}) {
    c.crash(1);
    said.clear();
    c.start(1, line);
    CHECK(c.wait_ready(1));
    CHECK(said.size() == 1);
  }
}

TEST_CASE("an invite of an older version is refused by name, a whole one is read, a part of one is not") {
  storaged::invite v;
  v.addresses = {"10.0.0.1:3901"};
  v.id = bytes(16, 'i');
  v.secret = bytes(32, 's');
  v.cluster = *cluster_id::from_bytes(bytes(16, 'c'));
  const std::string line = v.encode();
  auto back = storaged::invite::decode(" " + line + "\n");
  REQUIRE(back);
  CHECK(back->id == v.id);
  CHECK(back->secret == v.secret);
  CHECK(back->addresses == v.addresses);
  auto old = storaged::invite::decode("grenier1." + line.substr(9));
  REQUIRE_FALSE(old);
  CHECK(old.error().detail.find("older version") != std::string::npos);
  for (std::size_t n = 0; n < line.size(); n += 7) CHECK_FALSE(storaged::invite::decode(line.substr(0, n)));
}
