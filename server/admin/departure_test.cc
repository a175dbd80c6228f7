#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "admin/departure.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

using namespace grenier;
using namespace grenier::admin;

namespace {

node_id id_of(int i) { return node_id::from_bytes(bytes(32, static_cast<char>('a' + i))).value(); }

// Homes 0, 1, ... each in a zone of its own ("zone-0", ...).
layout::state cluster_of(int homes) {
  cluster_id c;
  c.data()[0] = 1;
  layout::state s = layout::found(c, {id_of(0), "zone-0", 100});
  if (homes == 1) return s;
  std::vector<layout::member> all;
  for (int i = 0; i < homes; ++i) all.push_back({id_of(i), "zone-" + std::to_string(i), 100});
  s = layout::start_change(s, all).value();
  auto everybody = [&](layout::partition) {
    std::set<node_id> ids;
    for (int i = 0; i < homes; ++i) ids.insert(id_of(i));
    return ids;
  };
  s = layout::to_joint(s, everybody).value();
  return layout::to_settled(s, everybody(0)).value();
}

departure without(const layout::state& s, int gone, std::set<int> dark = {}, std::uint64_t missing = 0) {
  dark.insert(gone);
  std::set<node_id> ids;
  for (int i : dark) ids.insert(id_of(i));
  return weigh_departure(s, id_of(gone), [ids](node_id n) { return !ids.contains(n); }, missing, missing / 2);
}

}  // namespace

TEST_CASE("one of three or four is lost: nothing is") {
  auto four = without(cluster_of(4), 3);
  CHECK(four.safe());
  CHECK(four.decidable);
  CHECK(four.copies == 3);
  CHECK(four.copies_then == 3);
  CHECK(four.partitions > 0);
  CHECK(four.say() == "Nothing that was acknowledged is lost: the other homes have all of it.");
  auto three = without(cluster_of(3), 1);
  CHECK(three.safe());
  CHECK(three.copies_then == 2);
  CHECK(three.say().ends_with("There are 2 copies of everything then, until another home joins."));
  CHECK(three.to_json()["safe"] == true);
}

TEST_CASE("another one is dark too") {
  auto d = without(cluster_of(3), 1, {2});
  CHECK_FALSE(d.safe());
  CHECK(d.also_dark == std::vector<std::string>{"zone-2"});
  CHECK(d.only_copies == 0);
  CHECK_FALSE(d.decidable);
  CHECK(d.say().find("zone-2 is dark too") != std::string::npos);
}

TEST_CASE("blocks that the others lack may be there") {
  auto d = without(cluster_of(3), 1, {}, 7);
  CHECK_FALSE(d.safe());
  CHECK(d.say().find("look for 7 blocks that they should have (3 of them were found at no home that is up)") != std::string::npos);
  CHECK(without(cluster_of(3), 1, {}, 1).say().find("look for 1 block that they should have, and") != std::string::npos);
}

TEST_CASE("of two homes the one that decides alone may have what the other lacks") {
  auto s = cluster_of(2);
  const int casting = s.current.casting == id_of(0) ? 0 : 1;
  CHECK(without(s, 1 - casting).safe());
  auto d = without(s, casting);
  CHECK_FALSE(d.safe());
  CHECK(d.decided_alone);
  CHECK_FALSE(d.decidable);
  CHECK(d.say().find("cannot decide anything without it, as it has the casting vote") != std::string::npos);
  CHECK(without(s, 1 - casting).decidable);
  CHECK(d.copies_then == 1);
}

TEST_CASE("the only copy") {
  auto s = cluster_of(1);
  auto d = without(s, 0);
  CHECK_FALSE(d.safe());
  CHECK(d.only_copies == s.partition_count());
  CHECK(d.say().find("LOST") != std::string::npos);
}

TEST_CASE("a gateway holds nothing") {
  auto s = cluster_of(3);
  auto members = s.current.members;
  members.push_back({id_of(5), "zone-5", 0});
  s = layout::start_change(s, members).value();
  auto d = without(s, 5, {}, 7);
  CHECK(d.safe());
  CHECK(d.partitions == 0);
}
