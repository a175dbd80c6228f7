#include "store/store_fixture.h"

using namespace grenier;
using namespace grenier::store;

namespace {

constexpr std::size_t k = 1 << 10;

service::options keeping(std::size_t bytes_kept, nanoseconds staleness) {
  auto o = home::small();
  o.visited_bytes = bytes_kept;
  o.staleness = staleness;
  return o;
}

// A home that has no copy of anything.
struct far : home {
  explicit far(std::size_t bytes_kept = 1 << 20, nanoseconds staleness = 5s) : home(keeping(bytes_kept, staleness)) { below->replica_rank.reset(); }
  bytes visit(std::string key, double& rounds, consistency how = consistency::strong, bool head = false) {
    call c = as_admin();
    c.visitor = true;
    return timed(look(store.get(), c, {.bucket = "photos", .key = std::move(key), .head = head, .how = how}), rounds);
  }
  static task<bytes> look(service* s, call c, get_request q) {
    auto got = co_await s->get(c, std::move(q));
    if (!got) co_return "error: " + std::string(to_string(got.error().code));
    bytes all;
    while (got->body) {
      auto piece = co_await got->body->next();
      if (!piece) co_return "error: " + std::string(to_string(piece.error().code));
      if (!*piece) break;
      all += **piece;
    }
    co_return all;
  }
};

}  // namespace

TEST_CASE("a page that many look at where there is no copy of it costs no round trip, and is no older than was said") {
  far h;
  REQUIRE(h.put("page", "first"));
  double rounds = 0;
  const mono_time asked_at = h.clk.now();
  CHECK(h.visit("page", rounds) == "first");
  CHECK(rounds >= 1);
  for (int i = 0; i < 3; ++i) {
    CHECK(h.visit("page", rounds) == "first");
    CHECK(rounds == 0);
  }
  CHECK(h.visit("page", rounds, consistency::any) == "first");
  CHECK(rounds == 0);
  // It changes: who is no visitor sees it at once, visitors when the time is over, counted from when it was asked for.
  REQUIRE(h.put("page", "second"));
  CHECK(*h.body_of("page") == "second");
  CHECK(h.visit("page", rounds) == "first");
  h.clk.jump(asked_at + 5s - 1ms);
  CHECK(h.visit("page", rounds) == "first");
  h.clk.jump(asked_at + 5s);
  CHECK(h.visit("page", rounds) == "second");
  CHECK(rounds >= 1);
  // What is gone is gone after as long, and what is not there is asked for each time.
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "page")));
  CHECK(h.visit("page", rounds) == "second");
  h.pass(6s);
  for (int i = 0; i < 2; ++i) {
    CHECK(h.visit("page", rounds) == "error: no_such_key");
    CHECK(rounds >= 1);
  }
  REQUIRE(h.put("page", "third"));
  CHECK(h.visit("page", rounds) == "third");
}

TEST_CASE("what was asked for without its body is no answer to who wants it") {
  far h;
  REQUIRE(h.put("page", "text"));
  double rounds = 0;
  CHECK(h.visit("page", rounds, consistency::strong, true) == "");
  CHECK(h.visit("page", rounds) == "text");
  CHECK(h.visit("page", rounds, consistency::strong, true) == "");
  CHECK(rounds == 0);
}

TEST_CASE("blocks stay when rows have grown old; a home with copies, or without a wish to keep, asks as ever") {
  far h;
  REQUIRE(h.put("large", some_bytes(150 * k)));
  h.below->here.clear();
  double rounds = 0;
  auto gets = [&] { return h.below->calls["get"]; };
  CHECK(h.visit("large", rounds) == some_bytes(150 * k));
  const int asked = gets();
  CHECK(h.visit("large", rounds) == some_bytes(150 * k));
  CHECK(rounds == 0);
  h.pass(6s);
  CHECK(h.visit("large", rounds) == some_bytes(150 * k));
  CHECK(gets() == asked);
  // Others do not take from it what they have to pay for: and get it all the same.
  CHECK(*h.body_of("large") == some_bytes(150 * k));

  far fresh(1 << 20, 0s);
  REQUIRE(fresh.put("page", "first"));
  CHECK(fresh.visit("page", rounds) == "first");
  REQUIRE(fresh.put("page", "second"));
  CHECK(fresh.visit("page", rounds) == "second");
  far none(0, 5s);
  REQUIRE(none.put("page", "first"));
  CHECK(none.visit("page", rounds) == "first");
  REQUIRE(none.put("page", "second"));
  CHECK(none.visit("page", rounds) == "second");
  far near;
  near.below->replica_rank = 1;
  REQUIRE(near.put("page", "first"));
  CHECK(near.visit("page", rounds) == "first");
  REQUIRE(near.put("page", "second"));
  CHECK(near.visit("page", rounds) == "second");
}

TEST_CASE("a visitor who may not enter any more is told so, whatever is kept") {
  far h;
  REQUIRE(h.put("page", "text"));
  double rounds = 0;
  CHECK(h.visit("page", rounds) == "text");
  call c = h.as_nobody();
  c.visitor = true;
  CHECK(h.run(far::look(h.store.get(), c, {.bucket = "photos", .key = "page"})) == "error: access_denied");
}

TEST_CASE("memory is bounded, and what was looked at last stays") {
  visited v(100 * k, 5s);
  auto name = [](int i) { return *block_hash::from_bytes(bytes(block_hash::size_bytes, static_cast<char>('a' + i))); };
  v.keep(name(0), share(bytes(30 * k, 'x')));
  CHECK_FALSE(v.block(name(0)));  // more than a quarter
  for (int i = 0; i < 20; ++i) {
    v.keep(name(i), share(bytes(20 * k, static_cast<char>('a' + i))));
    CHECK(v.bytes_kept() <= 100 * k);
    CHECK(v.block(name(0)));
  }
  CHECK(v.block(name(19)));
  CHECK_FALSE(v.block(name(1)));
  const mono_time now{};
  table::row_key key{table::table_id::object, "p", "s"};
  table::any_row r;
  r.row.value = {true, "row", share("body")};
  v.keep(key, r, now + 2s);
  v.keep(key, table::any_row(), now + 1s);  // an answer that was overtaken
  REQUIRE(v.row(key, now + 3s));
  CHECK(v.row(key, now + 3s)->row.value.row == "row");
  const auto before = v.bytes_kept();
  CHECK_FALSE(v.row(key, now + 7s));
  CHECK(v.bytes_kept() < before);
}
