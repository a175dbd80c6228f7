// The pure parts of a replicated table: places of rows, digests, pages made of several answers.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "table/keys.h"
#include "table/lists.h"
#include "table/merkle.h"
#include "table/run.h"

using namespace grenier;
using namespace grenier::table;

namespace {

node_id node(int i) {
  node_id n;
  n.data()[0] = static_cast<std::uint8_t>(i);
  return n;
}

ballot at(std::uint64_t t) { return {{t}, 1, 2}; }

void tell(pb::list_answer& a, const bytes& key, std::uint64_t t, bool prefix = false, const bytes& witness = "p") {
  auto& e = *a.add_entries();
  e.set_key(key);
  e.set_written(at(t).encode());
  e.set_is_prefix(prefix);
  e.set_projection(witness);
}

bool two_of_three(const std::set<node_id>& s) { return s.size() >= 2; }

}  // namespace

TEST_CASE("places sort as partition, table, partition key, sort key, and can be read back") {
  row_key k{table_id::object, "bucket", "a/b"};
  auto l = locate(place(7, k));
  REQUIRE(l);
  CHECK(l->partition == 7);
  CHECK(l->key == k);
  CHECK(place(1, k) < place(2, k));
  CHECK(place(1, {table_id::object, "b", "a"}) < place(1, {table_id::object, "b", "b"}));
  CHECK(place(1, k).starts_with(group_prefix(1, k.table, k.partition_key)));
  CHECK(!locate("abc"));
  CHECK(!locate(bytes("\0\1\1\5ab", 6)));
  CHECK(after_prefix("a\xff\xff") == "b");
  CHECK(after_prefix("\xff\xff").empty());
}

TEST_CASE("a packed value says whether it is there and has a body; foreign bytes are refused") {
  auto u = unpack(pack({true, "row", share("body")}));
  REQUIRE(u);
  bytes packed = pack({true, "row", share("body")});
  u = unpack(packed);
  CHECK(u->present);
  CHECK(u->has_body);
  CHECK(u->row == "row");
  CHECK(!unpack(pack({false, "", nullptr}))->present);
  CHECK(!unpack("")->present);
  CHECK(!unpack("\x07rest"));
}

TEST_CASE("the layout's row is in partition 0") {
  CHECK(table::partition_of({table_id::layout, "x", {}}, 256) == 0);
  CHECK(table::partition_of({table_id::object, "x", {}}, 256) == layout::partition_of("x", 256));
}

TEST_CASE("a page ends where the first answer ends") {
  list_told a{node(1), {}}, b{node(2), {}};
  tell(a.answer, "a", 1), tell(a.answer, "b", 1), tell(a.answer, "c", 1);
  tell(b.answer, "a", 1), tell(b.answer, "b", 1);
  b.answer.set_more(true);
  b.answer.set_until("bb");
  auto m = table::merge({a, b}, two_of_three);
  CHECK(m.more);
  CHECK(m.until == "bb");
  REQUIRE(m.items.size() == 2);
  CHECK(m.items[0].agreed);
  CHECK(m.items[1].agreed);
}

TEST_CASE("keys that one has not, or has otherwise, and prefixes with other witnesses, are not agreed") {
  list_told a{node(1), {}}, b{node(2), {}};
  tell(a.answer, "a", 1), tell(a.answer, "b", 1), tell(a.answer, "c/", 1, true, "c/1"), tell(a.answer, "d/", 1, true, "d/1");
  tell(b.answer, "b", 2), tell(b.answer, "c/", 1, true, "c/2"), tell(b.answer, "d/", 1, true, "d/1");
  auto m = table::merge({a, b}, two_of_three);
  REQUIRE(m.items.size() == 4);
  CHECK(!m.items[0].agreed);
  CHECK(!m.items[1].agreed);
  CHECK(!m.items[2].agreed);
  CHECK(m.items[3].agreed);
  CHECK(after(m.items[3].entry) == "d0");
}

TEST_CASE("what is hidden is told apart by its digest, and, named, left out where a quorum has the same deletion") {
  list_told a{node(1), {}}, b{node(2), {}}, c{node(3), {}};
  tell(a.answer, "a", 1), tell(b.answer, "a", 1), tell(c.answer, "a", 1);
  a.answer.set_hidden(7), b.answer.set_hidden(7), c.answer.set_hidden(7);
  CHECK(table::merge({a, b}, two_of_three).same_hidden);
  b.answer.set_hidden(8);
  CHECK(!table::merge({a, b}, two_of_three).same_hidden);
  b.answer.set_hidden(7);
  b.answer.set_more(true);
  b.answer.set_until("b");
  CHECK(!table::merge({a, b}, two_of_three).same_hidden);
  b.answer.set_more(false);
  b.answer.clear_until();
  auto hide = [](pb::list_answer& to, const bytes& key, std::uint64_t t, const bytes& row = {}) {
    tell(to, key, t, !row.empty(), row);
    to.mutable_entries(to.entries_size() - 1)->set_hidden(true);
  };
  hide(a.answer, "k", 2), hide(b.answer, "k", 2), tell(c.answer, "k", 1);           // deleted
  hide(a.answer, "l", 2), hide(b.answer, "l", 1), tell(c.answer, "l", 1);           // in dispute
  hide(a.answer, "m/", 2, "m/1"), hide(b.answer, "m/", 2, "m/1");                   // all below it deleted
  hide(a.answer, "n/", 2, "n/1"), hide(b.answer, "n/", 2, "n/2");                   // in dispute
  hide(a.answer, "o/", 2, "o/1"), tell(a.answer, "o/", 1, true, "o/2"), tell(b.answer, "o/", 1, true, "o/2");  // there, whatever o/1 is
  auto m = table::merge({a, b, c}, two_of_three);
  REQUIRE(m.items.size() == 4);
  CHECK(m.disputed == 2);
  CHECK(m.items[0].entry.key == "a");
  CHECK(m.items[1].entry.key == "l");
  CHECK(!m.items[1].agreed);
  CHECK(m.items[2].entry.key == "n/");
  CHECK(m.items[2].entry.is_prefix);
  CHECK(!m.items[2].agreed);
  CHECK(m.items[3].entry.key == "o/");
  CHECK(m.items[3].agreed);
}

TEST_CASE("a digest depends on ballot, attempt and presence; the leaf on the key alone") {
  CHECK(merkle::digest("k", at(1), "a", true) != merkle::digest("k", at(2), "a", true));
  CHECK(merkle::digest("k", at(1), "a", true) != merkle::digest("k", at(1), "b", true));
  CHECK(merkle::digest("k", at(1), "a", true) != merkle::digest("k", at(1), "a", false));
  CHECK(merkle::digest("k", {}, "a", true) == u128{});
  CHECK(merkle::leaf_of("k") < merkle_leaves);
}

TEST_CASE("an answer that cannot be read may say yes: only what was refused before the gate did surely nothing") {
  for (errc c : {errc::unavailable, errc::access_denied, errc::overloaded, errc::stale_layout, errc::clock_skew}) CHECK(delivery_of(c) == delivery::none);
  for (errc c : {errc::protocol, errc::timed_out, errc::outcome_unknown, errc::internal, errc::io_failed, errc::cancelled}) CHECK(delivery_of(c) == delivery::unsure);
}

TEST_CASE("a page of another range, or one that goes nowhere, is no answer") {
  const list_request q{.table = table_id::object, .partition_key = "b", .prefix = "p/", .delimiter = "/", .start = "p/c/5", .entries_max = 3};
  pb::list_answer a;
  tell(a, "p/c/", 1, true);
  tell(a, "p/d", 1);
  CHECK(answers(q, a));
  a.set_more(true);
  a.set_until("p/e");
  CHECK(answers(q, a));
  a.set_until("p/c/5");
  CHECK_FALSE(answers(q, a));
  a.set_until("p/a");
  CHECK_FALSE(answers(q, a));
  a.set_more(false);
  tell(a, "p/e", 1);
  CHECK(answers(q, a));
  tell(a, "p/f", 1);
  CHECK_FALSE(answers(q, a));
  for (const char* other : {"q", "p/b", ""}) {
    pb::list_answer one;
    tell(one, other, 1);
    CHECK_FALSE(answers(q, one));
  }
}

TEST_CASE("what went wrong in background work stands until that same thing goes well") {
  work w;
  const auto a = *node_id::from_bytes(bytes(32, 'a')), b = *node_id::from_bytes(bytes(32, 'b'));
  const mono_time t{};
  CHECK(w.latest() == nullptr);
  w.failed(t + 1s, a.str(), a, "silent");
  w.failed(t + 2s, "block 1", {}, "full");
  w.did(t + 3s, 3, 100);
  w.mended("block 2");
  CHECK(w.items == 3);
  CHECK(w.bytes == 100);
  CHECK(w.last_run == t + 3s);
  REQUIRE(w.latest());
  CHECK(w.latest()->what == "full");
  w.mended("block 1");
  w.mended(b.str());
  REQUIRE(w.latest());
  CHECK(w.latest()->what == "silent");
  CHECK(w.latest()->at == t + 1s);
  CHECK(w.latest()->with == a);
  // A round that began at 1 s, or before, met it itself.
  w.mended(a.str(), t + 1s);
  CHECK(w.latest());
  w.mended(a.str(), t + 2s);
  CHECK(w.latest() == nullptr);
}

TEST_CASE("of many things that go wrong the latest are kept") {
  work w;
  const mono_time t{};
  for (int i = 0; i < 1000; ++i) w.failed(t + i * 1s, "block " + std::to_string(i), {}, std::to_string(i));
  CHECK(w.troubles.size() == work::troubles_max);
  CHECK(w.latest()->what == "999");
  CHECK(w.troubles.contains("block 936"));
  CHECK_FALSE(w.troubles.contains("block 935"));
}
