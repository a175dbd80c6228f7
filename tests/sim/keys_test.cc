// The key of the cluster: each removal of a home makes a new one, which all others get and the removed home does not (DESIGN 5b, rule 16).
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <random>

#include "sim/cluster.h"
#include "storaged/keyring.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

struct street : neighbourhood {
  street(std::uint64_t seed, std::initializer_list<const char*> zones, std::string gateway = {}) : neighbourhood(seed) {
    world().set_all_lines({.delay = 20ms});
    for (const char* z : zones) add({.zone = z, .capacity_bytes = z == gateway ? 0 : 100ull << 30});
    on_log = [this](std::size_t i, log_level, const std::string& line) { said[i] += line + "\n"; };
    REQUIRE(form());
    REQUIRE(make_bucket(0, "kept"));
  }
  // As a person does at home `at`; the home is dark.
  void take_out(std::size_t at, node_id gone, bool with_key = true) {
    world().run_for(15s);
    auto r = world().await(this->at(at), node(at).remove(gone, world().now() + 15s));
    REQUIRE(r);
    CAPTURE((*r ? std::string() : r->error().to_string()));
    REQUIRE(*r);
    CHECK((**r || !with_key));
  }
  bool know(std::initializer_list<std::size_t> homes, std::uint64_t changes, nanoseconds within = 20s) {
    return world().run_until([&] {
      return std::ranges::all_of(homes, [&](std::size_t i) { return ready(i) && node(i).key_changes() == changes && node(i).key_is_current(); });
    }, within);
  }
  bool see_each_other(std::initializer_list<std::size_t> homes) {
    return world().run_until([&] {
      for (std::size_t i : homes)
        for (std::size_t k : homes)
          if (!node(i).directory().up(node(k).id())) return false;
      return true;
    }, 60s);
  }
  std::map<std::size_t, std::string> said;
};

}  // namespace

TEST_CASE("a removed home learns that it was removed, and nothing else") {
  street c(71, {"lyon", "paris", "brest", "nice"});
  const node_id gone = c.node(3).id();
  c.crash(3, true);
  c.take_out(0, gone);
  REQUIRE(c.know({0, 1, 2}, 1));
  REQUIRE(c.put(1, "kept", "after", "secret"));
  c.start(3);
  REQUIRE(c.world().run_until([&] { return c.ready(3) && c.node(3).removed(); }, 60s));
  c.world().run_for(std::chrono::minutes(3));
  CHECK(c.node(3).key_changes() == 0);
  CHECK(c.node(3).tables().layout().find(gone) != nullptr);  // not even the layout
  CHECK(c.node(3).directory().up_members() == std::vector{gone});
  CHECK(c.node(3).wire().peers().empty());
  for (std::size_t i : {0u, 1u, 2u}) CHECK_FALSE(c.node(i).wire().connected(gone));
  CHECK(c.see_each_other({0, 1, 2}));
  // Nor after a restart, and nobody who restarts is shut out.
  for (std::size_t i : {0u, 1u, 2u, 3u}) c.crash(i, true);
  for (std::size_t i : {0u, 1u, 2u, 3u}) c.start(i);
  for (std::size_t i : {0u, 1u, 2u, 3u}) REQUIRE(c.wait_ready(i));
  CHECK(c.see_each_other({0, 1, 2}));
  CHECK(c.node(3).removed());
  CHECK(c.node(3).wire().peers().empty());
  auto r = c.get(2, "kept", "after");
  REQUIRE(r);
  CHECK(*r == "secret");
}

TEST_CASE("a home that slept through a removal fetches the key when it is back") {
  street c(72, {"lyon", "paris", "brest", "nice", "lille"}, "lille");  // lille is a gateway: nobody waits for it
  const node_id first = c.node(2).id(), second = c.node(3).id();
  c.crash(4, true);
  c.crash(2, true);
  c.take_out(0, first);
  REQUIRE(c.know({0, 1, 3}, 1));
  c.start(4);
  REQUIRE(c.know({0, 1, 3, 4}, 1, 60s));
  auto settled = [&] { return c.node(0).tables().layout().phase == layout::phase::settled; };
  REQUIRE(c.world().run_until(settled, std::chrono::minutes(5)));
  c.world().run_for(std::chrono::minutes(1));
  c.crash(3, true);
  c.take_out(1, second);
  REQUIRE(c.know({0, 1, 4}, 2));
  auto put = c.put(4, "kept", "k", "here");
  CAPTURE((put ? std::string() : put.error().to_string()));
  REQUIRE(put);
  auto r = c.get(1, "kept", "k");
  REQUIRE(r);
  CHECK(*r == "here");
  // An invite leads into the cluster as it is now.
  const std::size_t late = c.add({.zone = "metz"});
  REQUIRE(c.join(late, 4));
  CHECK(c.know({0, 1, 4, late}, 2, 60s));
}

TEST_CASE("who removes a home and dies before the key is changed: the others change it") {
  street c(73, {"lyon", "paris", "brest", "nice"});
  const node_id gone = c.node(3).id();
  c.crash(3, true);
  c.world().run_for(15s);
  auto edit = [gone](const layout::state& s) -> result<std::vector<layout::member>> {
    auto all = s.newest().members;
    std::erase_if(all, [&](const layout::member& m) { return m.node == gone; });
    return all;
  };
  auto r = c.world().await(c.at(0), c.node(0).tables().change_members(edit, {gone}, c.world().now() + 15s));
  REQUIRE(r);
  REQUIRE(*r);
  REQUIRE(c.world().run_until([&] { return c.node(1).tables().layout().phase == layout::phase::settled && c.node(1).tables().layout().find(gone) == nullptr; }, 60s));
  CHECK_FALSE(c.node(1).key_is_current());
  CHECK(c.node(1).key_changes() == 0);
  c.crash(0, true);
  CHECK(c.know({1, 2}, 1, 60s));
  c.start(0);
  CHECK(c.know({0, 1, 2}, 1, 60s));
  CHECK(c.see_each_other({0, 1, 2}));
}

TEST_CASE("a removed home that still has a line to a member learns nothing over it") {
  street c(75, {"lyon", "paris", "brest", "nice"});
  const node_id gone = c.node(3).id();
  // It hides from the home at which it is removed, and keeps its line to another one.
  for (std::size_t i : {0u, 2u}) c.world().line(i, 3).up = c.world().line(3, i).up = false;
  REQUIRE(c.world().run_until([&] { return !c.node(0).directory().up(gone); }, 60s));
  auto r = c.world().await(c.at(0), c.node(0).remove(gone, c.world().now() + 15s));
  REQUIRE(r);
  REQUIRE(*r);
  for (int i = 0; i < 60; ++i) {
    auto read = c.world().await(c.at(3), c.node(3).tables().read({table::table_id::setting, "cluster key", {}}, {.deadline = c.world().now() + 1s}), 2s);
    CHECK_FALSE((read && *read && (*read)->value.present));
    c.world().run_for(500ms);
  }
  REQUIRE(c.know({0, 1, 2}, 1));
  CHECK(c.node(3).key_changes() == 0);
  CHECK_FALSE(c.node(1).wire().connected(gone));
  CHECK(c.node(3).removed());
}

TEST_CASE("two homes that are gone are removed one after the other, the second while the first change waits for it") {
  street c(76, {"lyon", "paris", "brest", "nice", "lille", "metz"});
  // Two that do not decide on the layout themselves: it is a row of partition 0.
  std::vector<std::size_t> dark;
  const auto decide = c.node(0).tables().layout().current.replicas(0);
  for (std::size_t i = 1; i < 6 && dark.size() < 2; ++i)
    if (std::ranges::find(decide, c.node(i).id()) == decide.end()) dark.push_back(i);
  REQUIRE(dark.size() == 2);
  const node_id first = c.node(dark[0]).id(), second = c.node(dark[1]).id();
  for (std::size_t i : dark) c.crash(i, true);
  c.take_out(0, first, false);
  c.world().run_for(20s);
  REQUIRE(c.node(0).tables().layout().phase == layout::phase::moving);  // it waits for the second one
  c.take_out(0, second, false);
  const auto& s = c.node(0).tables().layout();
  for (const auto& n : {first, second}) {
    CHECK(s.newest().find(n) == nullptr);
    CHECK(std::ranges::find(s.removed, n) != s.removed.end());
  }
  for (std::size_t i : dark) c.start(i);
  CHECK(c.world().run_until([&] { return std::ranges::all_of(dark, [&](std::size_t i) { return c.ready(i) && c.node(i).removed(); }); }, 60s));
}

TEST_CASE("a home that was joining while another one is removed stays") {
  street c(79, {"lyon", "paris", "brest", "nice"});
  // Two of four go dark: the one that has no say about the layout, and one that has.
  const auto decide = c.node(0).tables().layout().current.replicas(0);
  std::size_t silent = 4;
  std::vector<std::size_t> deciding;
  for (std::size_t i = 0; i < 4; ++i)
    if (std::ranges::find(decide, c.node(i).id()) == decide.end()) silent = i;
    else deciding.push_back(i);
  REQUIRE(deciding.size() == 3);
  const std::size_t host = deciding[0], asleep = deciding[1];
  const node_id gone = c.node(silent).id();
  auto line = c.world().await(c.at(host), c.node(host).make_invite(seconds(3600), c.world().now() + 20s));
  REQUIRE((line && *line));
  c.crash(silent, true);
  c.world().run_for(10s);
  const std::size_t late = c.add({.zone = "metz"});
  c.start(late, **line);
  auto now = [&]() -> const layout::state& { return c.node(host).tables().layout(); };
  REQUIRE(c.world().run_until([&] { return now().phase == layout::phase::moving; }, 30s));
  c.crash(asleep, true);
  c.world().run_for(10s);
  REQUIRE(now().phase == layout::phase::moving);  // it waits for those who are dark
  REQUIRE(now().newest().find(c.node(late).id()));
  c.take_out(host, gone, false);
  CHECK(now().newest().find(c.node(late).id()));
  CHECK(!now().newest().find(gone));
  c.start(asleep);
  CHECK(c.know({host, asleep, late}, 1));
  CHECK(c.world().run_until([&] { return c.node(late).tables().layout().phase == layout::phase::settled; }, 60s));
  CHECK(c.node(late).tables().layout().current.find(c.node(late).id()));
}

TEST_CASE("of two homes one is removed; while too few are there, the key waits and is changed later") {
  street c(74, {"lyon", "paris"});
  const node_id gone = c.node(1).id();
  c.crash(1, true);
  c.take_out(0, gone);
  REQUIRE(c.know({0}, 1));
  c.start(1);
  REQUIRE(c.world().run_until([&] { return c.ready(1) && c.node(1).removed(); }, 60s));
  CHECK(c.node(1).key_changes() == 0);
  CHECK(c.said[1].find("removed from its cluster") != std::string::npos);
}

TEST_CASE("a newcomer's zone is judged before its invite is spent, and before it is written down") {
  street c(77, {"lyon", "paris"});
  auto line = c.world().await(c.at(0), c.node(0).make_invite(seconds(3600), c.world().now() + 20s));
  REQUIRE(line);
  REQUIRE(*line);
  const std::size_t wrong = c.add({.zone = "nowhere\nhome lyon joins"}), right = c.add({.zone = "metz"});
  c.start(wrong, **line);
  REQUIRE(c.world().run_until([&] { return !c.failure(wrong).empty(); }, 60s));
  CHECK(c.failure(wrong).find("a zone's name has 1 to 64") != std::string::npos);
  CHECK(c.said[0].find("nowhere") == std::string::npos);
  c.start(right, **line);
  CHECK(c.wait_ready(right));
}

TEST_CASE("keyrings are read as foreign bytes") {
  std::mt19937 random(7);
  storaged::keyring k;
  k.keys = {bytes(32, 'a')};
  k.changes = 3;
  k.keys.push_back(bytes(32, 'k'));
  k.without.insert(node_id::from_bytes(bytes(32, 'n')).value());
  const bytes written = k.encode();
  auto again = storaged::keyring::decode(written);
  REQUIRE(again);
  CHECK(again->encode() == written);
  for (std::size_t i = 0; i < written.size(); ++i) CHECK_FALSE(storaged::keyring::decode(bytes_view(written).substr(0, i)));
  for (int i = 0; i < 3000; ++i) {
    bytes b = written;
    for (int n = 0; n < 3; ++n) b[random() % b.size()] = static_cast<char>(random());
    auto r = storaged::keyring::decode(b);
    if (r) CHECK((!r->keys.empty() && r->keys[0].size() == 32));
  }
  CHECK_FALSE(storaged::keyring::decode(R"({"changes":1,"keys":[],"without":[]})"));
  CHECK_FALSE(storaged::keyring::decode(R"({"changes":1,"keys":["00"],"without":[]})"));
}
