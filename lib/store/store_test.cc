#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "store/store_fixture.h"

using namespace grenier;
using namespace grenier::store;

namespace {

constexpr std::size_t k = 1 << 10;

std::string in_quotes(const std::string& s) { return '"' + s + '"'; }

task<void> uploading(home& h, std::string key, memory_body& from) {
  (void)co_await h.store->put(h.as_alice(), {.bucket = "photos", .key = std::move(key)}, from);
}

}  // namespace

TEST_CASE("a small object is one message, row and body, without a read before") {
  home h;
  h.below->calls.clear();
  double rounds = 0;
  memory_body from(some_bytes(5000));
  put_request q{.bucket = "photos", .key = "a"};
  auto r = h.timed(h.store->put(h.as_alice(), q, from), rounds);
  REQUIRE(r);
  CHECK(rounds == doctest::Approx(1).epsilon(0.1));
  CHECK(h.below->calls == std::map<std::string, int>{{"write", 1}});
  CHECK(r->etag == to_hex(crypto::digest(crypto::hash_kind::md5, some_bytes(5000))));
  CHECK(r->size == 5000);
  get_request g{.bucket = "photos", .key = "a"};
  auto got = h.timed(h.store->get(h.as_alice(), g), rounds);
  REQUIRE(got);
  CHECK(rounds == doctest::Approx(1).epsilon(0.1));
  CHECK(*h.read(*got->body) == some_bytes(5000));
  CHECK(got->meta.modified_ms / 1000 == h.rt.wall_ms() / 1000);
}

TEST_CASE("bodies of every size come back as they went, with and without an announced length") {
  home h;
  for (std::size_t n : {std::size_t(0), std::size_t(1), 8 * k, 8 * k + 1, 64 * k - 1, 64 * k, 64 * k + 1, 128 * k, 500 * k, 2000 * k})
    for (bool tells : {true, false}) {
      CAPTURE(n);
      CAPTURE(tells);
      memory_body from(some_bytes(n, 3), tells);
      auto r = h.put_from("x", from, [](put_request& q) { q.compute = crypto::hash_kind::crc32c; });
      REQUIRE(r);
      CHECK(r->etag == to_hex(crypto::digest(crypto::hash_kind::md5, some_bytes(n, 3))));
      REQUIRE(r->checksums.size() == 1);
      CHECK(r->checksums[0].value == crypto::digest(crypto::hash_kind::crc32c, some_bytes(n, 3)));
      CHECK(h.row("x").inline_body == (n <= 8 * k));
      CHECK(*h.body_of("x") == some_bytes(n, 3));
    }
}

TEST_CASE("a large object is on disk two round trips after its last byte") {
  home h;
  memory_body from(some_bytes(640 * k));
  double rounds = 0;
  put_request q{.bucket = "photos", .key = "big"};
  REQUIRE(h.timed(h.store->put(h.as_alice(), q, from), rounds));
  // Ten blocks, four at once: three rounds of blocks, then the row. (The body was there at once.)
  CHECK(rounds == doctest::Approx(4).epsilon(0.1));
  CHECK(h.below->puts_most == 4);

  memory_body slow(some_bytes(320 * k));
  slow.rt = &h.rt;
  slow.pause = 100ms;
  slow.piece = 64 * k;
  mono_time before = h.clk.now();
  REQUIRE(h.put_from("slow", slow));
  // Five blocks and the end of the body, 100 ms each, then two round trips for what came last.
  CHECK(h.clk.now() - before <= 6 * 100ms + 2 * 50ms + 5ms);
}

TEST_CASE("a body that is not what was said leaves nothing, and its blocks' references go") {
  home h;
  const bytes body = some_bytes(200 * k);
  auto wrong = [](auto edit) { return edit; };
  struct {
    const char* name;
    std::function<void(put_request&)> with;
    errc code;
  } cases[] = {
      {"md5", wrong([](put_request& q) { q.content_md5 = bytes(16, 'x'); }), errc::bad_digest},
      {"signed sha256", wrong([](put_request& q) { q.content_sha256 = bytes(32, 'x'); }), errc::bad_digest},
      {"checksum", wrong([](put_request& q) { q.checksums = {{crypto::hash_kind::crc32, "abcd"}}; }), errc::checksum_mismatch},
  };
  for (const auto& c : cases)
    for (std::size_t n : {std::size_t(100), 200 * k}) {
      CAPTURE(c.name);
      CAPTURE(n);
      CHECK(h.put("bad", some_bytes(n), c.with).failed_with(c.code));
      CHECK(h.get("bad").failed_with(errc::no_such_key));
    }
  memory_body shorter(body);
  shorter.said = 200 * k + 1;
  CHECK(h.put_from("bad", shorter).failed_with(errc::incomplete_body));
  memory_body longer(body);
  longer.said = 200 * k - 1;
  CHECK(h.put_from("bad", longer).failed_with(errc::incomplete_body));
  memory_body gone(body);
  gone.fails_at = 150 * k;
  CHECK(h.put_from("bad", gone).failed_with(errc::incomplete_body));
  CHECK(h.below->calls["write"] == 1);  // the bucket's
  CHECK(!h.below->references.empty());
  h.pass(1min);
  CHECK(h.below->references.empty());
  CHECK(h.entries("store/") == 0);
}

TEST_CASE("what the client signed is checked and becomes the content id") {
  home h;
  for (std::size_t n : {std::size_t(100), 60 * k, 64 * k, 200 * k}) {
    CAPTURE(n);
    const bytes body = some_bytes(n);
    auto r = h.put("x", body, [&](put_request& q) {
      q.content_sha256 = crypto::digest(crypto::hash_kind::sha256, body);
      q.content_md5 = crypto::digest(crypto::hash_kind::md5, body);
      q.checksums = {{crypto::hash_kind::crc64nvme, crypto::digest(crypto::hash_kind::crc64nvme, body)}};
    });
    REQUIRE(r);
    CHECK(h.row("x").meta.content->view() == crypto::digest(crypto::hash_kind::sha256, body));
    REQUIRE(r->checksums.size() == 1);
    CHECK(r->checksums[0].kind == crypto::hash_kind::crc64nvme);
  }
}

TEST_CASE("trailing checksums are checked; those that nobody announced are refused") {
  home h;
  const bytes body = some_bytes(100 * k);
  memory_body from(body, false);
  from.trailing = {{crypto::hash_kind::crc32, crypto::digest(crypto::hash_kind::crc32, body)}};
  auto announced = [](put_request& q) { q.compute = crypto::hash_kind::crc32; };
  CHECK(h.put_from("x", from, announced)->checksums.size() == 1);
  memory_body wrong(body, false);
  wrong.trailing = {{crypto::hash_kind::crc32, "abcd"}};
  CHECK(h.put_from("x", wrong, announced).failed_with(errc::checksum_mismatch));
  memory_body surprise(body, false);
  surprise.trailing = from.trailing;
  CHECK(h.put_from("x", surprise).failed_with(errc::invalid_argument));
}

TEST_CASE("headers, tags and owner come back") {
  home h;
  REQUIRE(h.put("x", "body", [](put_request& q) {
    q.headers.content_type = "text/plain";
    q.headers.metadata = {{"mood", "good"}};
    q.tags = {{"a", "1"}};
  }));
  auto g = h.get("x", [](get_request& q) { q.head = true; });
  REQUIRE(g);
  CHECK(!g->body);
  CHECK(g->meta.headers.content_type == "text/plain");
  CHECK(g->meta.headers.metadata[0].value == "good");
  CHECK(g->meta.owner_id == h.alice.owner_id);
  CHECK(g->length == 4);
  CHECK(h.run(h.store->get_tags(h.as_alice(), "photos", "x"))->at(0).value == "1");
  for (std::size_t n : {std::size_t(4), 100 * k}) {
    REQUIRE(h.put("y", some_bytes(n)));
    auto before = h.row("y");
    REQUIRE(h.run(h.store->set_tags(h.as_alice(), "photos", "y", {{"b", "2"}})));
    CHECK(h.row("y").meta.version == before.meta.version);
    CHECK(*h.body_of("y") == some_bytes(n));
    CHECK(h.run(h.store->get_tags(h.as_alice(), "photos", "y"))->at(0).key == "b");
  }
  CHECK(h.run(h.store->set_tags(h.as_alice(), "photos", "none", {})).failed_with(errc::no_such_key));
  CHECK(h.run(h.store->set_tags(h.as_alice(), "photos", "y", {{"b", "2"}, {"b", "3"}})).failed_with(errc::invalid_argument));
  CHECK(h.run(h.store->set_tags(h.as_alice(), "photos", "y", std::vector<model::tag>(11, {"b", "2"}))).failed_with(errc::invalid_argument));
}

TEST_CASE("keys that are none are refused") {
  home h;
  for (const auto& key : {std::string(), std::string(1025, 'k'), std::string("a\0b", 3), std::string("\xff"), std::string("\xc0\xaf")})
    CHECK(h.put(key, "x").failed_with(errc::invalid_argument));
  for (const auto& key : {std::string(1024, 'k'), std::string("\xf0\x9f\x8f\xa0/caf\xc3\xa9 \n")}) {
    CHECK(h.put(key, "x"));
    CHECK(*h.body_of(key) == "x");
  }
}

// ------------------------------------------------------------------------------------------------- conditions and ranges

TEST_CASE("conditions of a read: every combination, in the order of RFC 9110") {
  object_meta m;
  m.etag = "e";
  m.modified_ms = 10'500;
  const auto yes = in_quotes("e"), no = in_quotes("f");
  for (int if_match : {0, 1, 2})
    for (int none_match : {0, 1, 2})
      for (int unmodified : {0, 1, 2})
        for (int modified : {0, 1, 2}) {
          conditions c;
          if (if_match) c.if_match = if_match == 1 ? yes : no;
          if (none_match) c.if_none_match = none_match == 1 ? yes : no;
          if (unmodified) c.if_unmodified_since_ms = unmodified == 1 ? 10'000 : 9'000;
          if (modified) c.if_modified_since_ms = modified == 1 ? 9'000 : 10'000;
          std::optional<errc> expected;
          if (if_match == 2 || (!if_match && unmodified == 2))
            expected = errc::condition_failed;
          else if (none_match == 1 || (!none_match && modified == 2))
            expected = errc::not_modified;
          auto r = check_read(c, m);
          CHECK(r.has_value() == !expected);
          if (expected) CHECK(r.failed_with(*expected));
          CHECK(check_source(c, m).has_value() == !expected);
          if (expected) CHECK(check_source(c, m).failed_with(errc::condition_failed));
        }
}

TEST_CASE("what the reader has already is said, with its headers and without its body") {
  home h;
  auto put = h.put("x", "body", [](put_request& q) { q.headers.cache_control = "max-age=60"; });
  auto g = h.get("x", [&](get_request& q) { q.when.if_none_match = in_quotes(put->etag); });
  REQUIRE(g);
  CHECK(g->not_modified);
  CHECK(!g->body);
  CHECK(g->meta.etag == put->etag);
  CHECK(g->meta.headers.cache_control == "max-age=60");
  CHECK(h.get("x", [&](get_request& q) { q.when.if_match = in_quotes("other"); }).failed_with(errc::condition_failed));
  CHECK(!h.get("x", [&](get_request& q) { q.when.if_none_match = in_quotes("other"); })->not_modified);
}

TEST_CASE("lists of ETags") {
  CHECK(etag_matches("*", "e"));
  CHECK(etag_matches("\"a\", W/\"e\"", "e"));
  CHECK(etag_matches("e", "e"));
  CHECK(!etag_matches("\"a\",\"b\"", "e"));
  CHECK(!etag_matches("", "e"));
  CHECK(!etag_matches("\"e", "e"));
}

TEST_CASE("conditions of a put exclude each other by compare-and-swap, in two round trips") {
  home h;
  auto only_new = [](put_request& q) { q.when.if_none_match = "*"; };
  h.below->calls.clear();
  double rounds = 0;
  memory_body from("one");
  put_request q{.bucket = "photos", .key = "x", .when = {.if_none_match = "*"}};
  auto first = h.timed(h.store->put(h.as_alice(), q, from), rounds);
  REQUIRE(first);
  CHECK(rounds == doctest::Approx(2).epsilon(0.1));
  CHECK(h.below->calls == std::map<std::string, int>{{"swap", 1}});
  CHECK(h.put("x", "two", only_new).failed_with(errc::condition_failed));
  CHECK(h.put("big", some_bytes(100 * k), only_new));
  CHECK(h.put("big", some_bytes(100 * k), only_new).failed_with(errc::condition_failed));
  auto if_is = [](const std::string& etag) { return std::function([etag](put_request& p) { p.when.if_match = etag; }); };
  CHECK(h.put("x", "two", if_is(in_quotes("other"))).failed_with(errc::condition_failed));
  CHECK(h.put("x", "two", if_is(in_quotes(first->etag))));
  CHECK(h.put("x", "three", if_is(in_quotes(first->etag))).failed_with(errc::condition_failed));
  CHECK(h.put("x", "three", if_is("*")));
  CHECK(h.put("none", "x", if_is("*")).failed_with(errc::no_such_key));
  CHECK(*h.body_of("x") == "three");
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "x")));
  CHECK(h.put("x", "four", only_new));
}

TEST_CASE("what a header says of a range") {
  struct {
    const char* header;
    std::uint64_t size, first, length;
  } good[] = {{"bytes=0-0", 10, 0, 1},   {"bytes=2-5", 10, 2, 4},  {"bytes=5-", 10, 5, 5},  {"bytes=-3", 10, 7, 3},
              {"bytes=-100", 10, 0, 10}, {"bytes=0-99", 10, 0, 10}, {"bytes = 0", 10, 99, 0}, {"bytes= 1 - 2 ", 10, 1, 2}};
  for (const auto& g : good) {
    CAPTURE(g.header);
    auto r = parse_range(g.header, g.size);
    REQUIRE(r);
    if (g.first == 99) {
      CHECK(!*r);
      continue;
    }
    REQUIRE(*r);
    CHECK((*r)->first == g.first);
    CHECK((*r)->length == g.length);
  }
  for (const char* ignored : {"", "bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "items=0-1", "bytes=0-1,3-4", "bytes=1",
                              "bytes=99999999999999999999-"})
    CHECK_MESSAGE((parse_range(ignored, 10) && !*parse_range(ignored, 10)), ignored);
  for (const char* outside : {"bytes=10-", "bytes=10-20", "bytes=-0"}) CHECK(parse_range(outside, 10).failed_with(errc::invalid_range));
  CHECK(parse_range("bytes=0-", 0).failed_with(errc::invalid_range));
  CHECK(parse_copy_range("bytes=0-9", 10)->length == 10);
  CHECK(parse_copy_range("bytes=0-10", 10).failed_with(errc::invalid_range));
  CHECK(parse_copy_range("bytes=0-", 10).failed_with(errc::invalid_argument));
}

TEST_CASE("every range of an object in blocks, inline and with a manifest gives its bytes") {
  home h;
  const bytes body = some_bytes(200 * k, 9);
  REQUIRE(h.put("blocks", body));
  REQUIRE(h.put("inline", body.substr(0, 8 * k)));
  for (auto [first, last] : std::vector<std::pair<std::size_t, std::size_t>>{
           {0, 0}, {0, 64 * k - 1}, {64 * k, 64 * k}, {64 * k - 1, 64 * k}, {1, 200 * k - 2}, {128 * k, 200 * k - 1}, {199 * k, 200 * k - 1}}) {
    CAPTURE(first);
    CAPTURE(last);
    auto header = "bytes=" + std::to_string(first) + "-" + std::to_string(last);
    auto g = h.get("blocks", [&](get_request& q) { q.range = header; });
    REQUIRE(g);
    CHECK(g->partial);
    CHECK(g->first == first);
    CHECK(g->length == last - first + 1);
    CHECK(*h.read(*g->body) == body.substr(first, last - first + 1));
  }
  CHECK(*h.body_of("inline", [](get_request& q) { q.range = "bytes=100-199"; }) == body.substr(100, 100));
  CHECK(h.get("inline", [](get_request& q) { q.range = "bytes=8192-"; }).failed_with(errc::invalid_range));
  auto odd = h.get("inline", [](get_request& q) { q.range = "nonsense"; });
  CHECK(!odd->partial);
  CHECK(odd->length == 8 * k);
}

TEST_CASE("an object of more blocks than a row lists has manifests, and is read, copied and freed like others") {
  auto o = home::small();
  o.block_size = 1 << 10;
  home h(o);
  const bytes body = some_bytes(5000 * k + 17);
  REQUIRE(h.put("huge", body));
  auto row = h.row("huge");
  CHECK(row.blocks.empty());
  CHECK(row.manifests.size() == 2);
  CHECK(row.manifest_blocks == 5001);
  CHECK(*h.body_of("huge") == body);
  CHECK(*h.body_of("huge", [](get_request& q) { q.range = "bytes=4200000-4300000"; }) == body.substr(4200000, 100001));
  CHECK(*h.body_of("huge", [](get_request& q) { q.range = "bytes=-1"; }) == body.substr(body.size() - 1));
  copy_request q;
  q.from_bucket = q.bucket = "photos";
  q.from_key = "huge";
  q.key = "copy";
  REQUIRE(h.run(h.store->copy(h.as_alice(), q)));
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "huge")));
  h.settle();
  CHECK(*h.body_of("copy") == body);
  CHECK(h.below->references.size() == 5003);
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "copy")));
  h.settle();
  CHECK(h.below->references.empty());
}

TEST_CASE("the first block is read here while the row's quorum is asked; a row that turns out different is not believed") {
  home h;
  REQUIRE(h.put("x", some_bytes(200 * k, 1)));
  auto first = h.row("x").blocks[0].hash;
  h.below->here.insert(first);
  h.below->calls.clear();
  double rounds = 0;
  get_request q{.bucket = "photos", .key = "x"};
  auto g = h.timed(h.store->get(h.as_alice(), q), rounds);
  REQUIRE(g);
  CHECK(rounds == doctest::Approx(1).epsilon(0.05));
  CHECK(h.below->calls["get"] == 1);
  auto piece = h.timed(g->body->next(), rounds);
  CHECK(rounds < 0.05);
  CHECK((*piece)->size() == 64 * k);

  // The local replica is behind.
  h.below->early_row = h.below->rows.at(model::object_key(h.photos(), "x"));
  REQUIRE(h.put("x", some_bytes(200 * k, 2)));
  CHECK(*h.body_of("x") == some_bytes(200 * k, 2));
}

TEST_CASE("a reader has some blocks on their way, and all readers together the budget") {
  auto o = home::small();
  o.memory_budget_bytes = 688 << 10;  // four blocks go out at once
  home h(o);
  REQUIRE(h.put("x", some_bytes(640 * k)));
  double rounds = 0;
  auto all = h.get("x");
  REQUIRE(h.timed(home::read_all(all->body.get()), rounds));
  CHECK(rounds <= 10 / 3.0 + 1.2);  // three at a time
  std::vector<result<get_result>> readers;
  std::vector<shared_bytes> pieces;
  for (int i = 0; i < 4; ++i) readers.push_back(h.get("x"));
  for (auto& r : readers) {
    REQUIRE(r);
    auto piece = h.run(r->body->next());
    if (piece) pieces.push_back(*piece);
    else CHECK(piece.failed_with(errc::overloaded));
  }
  // The first ordered three, the second one; nobody may take more, and nobody waits for ever.
  CHECK(pieces.size() == 2);
  readers.push_back(h.get("x"));
  CHECK(h.run(readers.back()->body->next()).failed_with(errc::overloaded));
  pieces.clear();
  readers.clear();
  CHECK(*h.body_of("x") == some_bytes(640 * k));
}

TEST_CASE("visitors who take nothing of what they asked for are in nobody's way but each other's") {
  auto o = home::small();
  o.memory_budget_bytes = 1 << 20;
  o.inline_max = 16 << 10;
  home h(o);
  REQUIRE(h.put("x", some_bytes(640 * k)));
  REQUIRE(h.put("page", some_bytes(10 * k)));
  auto visit = [&](std::string key) {
    call c = h.as_admin();
    c.visitor = true;
    return h.run(h.store->get(c, {.bucket = "photos", .key = std::move(key)}));
  };
  std::vector<result<get_result>> visitors;
  std::vector<result<shared_bytes>> pieces;
  for (int i = 0; i < 60; ++i) {
    visitors.push_back(visit("x"));
    REQUIRE(visitors.back());
    pieces.push_back(h.run(visitors.back()->body->next()));
  }
  CHECK(pieces.front());
  CHECK(pieces.back().failed_with(errc::overloaded));
  const mono_time before = h.clk.now();
  CHECK(h.put("y", some_bytes(200 * k)));
  CHECK(*h.body_of("x") == some_bytes(640 * k));
  CHECK(*h.read(*visit("page")->body) == some_bytes(10 * k));  // what is small takes no turn
  CHECK(h.clk.now() - before < 2s);
}

TEST_CASE("slow uploads: no memory before their bytes come, and none ever for what fits in a row") {
  auto o = home::small();
  o.memory_budget_bytes = 688 << 10;  // four blocks come in at once
  o.inline_max = 16 << 10;
  home h(o);
  std::list<memory_body> slow;
  auto upload = [&](std::size_t sent) {
    auto& b = slow.emplace_back(some_bytes(64 * k));
    b.rt = &h.rt;
    b.piece = sent;
    b.pause = 1h;
    b.arrived = sent;  // all of that at once
    std::string key = "slow" + std::to_string(slow.size());
    h.group->spawn("upload", uploading(h, key, b));
  };
  for (int i = 0; i < 20; ++i) upload(0), upload(10 * k);
  h.pass(1s);
  mono_time before = h.clk.now();
  CHECK(h.put("x", some_bytes(300 * k)));
  CHECK(h.clk.now() - before < 2s);
  for (int i = 0; i < 8; ++i) upload(40 * k);
  h.pass(1s);
  before = h.clk.now();
  CHECK(h.put("small", "1"));
  CHECK(h.clk.now() - before < 2s);
  CHECK(h.put("large", some_bytes(100 * k)).failed_with(errc::overloaded));
  CHECK(*h.body_of("x") == some_bytes(300 * k));  // what goes out has its own
  h.pass(std::chrono::hours(24));
}

TEST_CASE("a range counts only of the version that If-Range names") {
  home h;
  REQUIRE(h.put("x", "0123456789"));
  const auto now = h.get("x")->meta;
  auto part = [&](std::optional<std::string> etag, std::optional<std::uint64_t> ms) {
    auto g = h.get("x", [&](get_request& q) {
      q.range = "bytes=2-3";
      q.if_range_etag = etag;
      q.if_range_ms = ms;
    });
    REQUIRE(g);
    return g->partial;
  };
  CHECK(part({}, {}));
  CHECK(part("\"" + now.etag + "\"", {}));
  CHECK(part({}, now.modified_ms / 1000 * 1000));
  for (std::string other : {std::string("\"other\""), "W/\"" + now.etag + "\"", now.etag, std::string()}) CHECK_FALSE(part(other, {}));
  CHECK_FALSE(part({}, now.modified_ms - 1000));
  CHECK_FALSE(part({}, now.modified_ms + 1000));
  // Nor is one refused that is beyond the end of what is there now.
  auto g = h.get("x", [](get_request& q) { q.range = "bytes=10-", q.if_range_etag = "\"other\""; });
  REQUIRE(g);
  CHECK_FALSE(g->partial);
}

TEST_CASE("a block that cannot be had, or has another length, ends the body with its error") {
  home h;
  REQUIRE(h.put("x", some_bytes(200 * k)));
  auto blocks = h.row("x").blocks;
  h.below->blocks.erase(blocks[2].hash);
  CHECK(h.body_of("x").failed_with(errc::unavailable));  // the object is there
  h.below->blocks[blocks[2].hash] = share("short");
  CHECK(h.body_of("x").failed_with(errc::corrupt));
}

// ------------------------------------------------------------------------------------------------- delete, failures

TEST_CASE("deleting is one round trip, of a thousand keys too") {
  home h;
  std::vector<std::string> keys;
  for (int i = 0; i < 1000; ++i) {
    keys.push_back("k" + std::to_string(i));
    h.below->apply(model::object_key(h.photos(), keys.back()), {true, model::encode(model::object_row{}), nullptr});
  }
  keys[7] = keys[8];
  keys[9] = "";
  h.below->calls.clear();
  double rounds = 0;
  auto r = h.timed(h.store->remove_many(h.as_alice(), "photos", keys), rounds);
  REQUIRE(r);
  CHECK(rounds == doctest::Approx(1).epsilon(0.05));
  CHECK(h.below->calls == std::map<std::string, int>{{"write", 1}});
  for (std::size_t i = 0; i < keys.size(); ++i) CHECK((*r)[i].has_value() == (i != 9));
  CHECK((*r)[9].failed_with(errc::invalid_argument));
  CHECK(h.get("k1").failed_with(errc::no_such_key));
  CHECK(h.get("k7"));
  CHECK(h.run(h.store->remove(h.as_alice(), "photos", "never was")));
  CHECK(h.run(h.store->remove_many(h.as_alice(), "photos", std::vector<std::string>(1001, "x"))).failed_with(errc::invalid_argument));
}

TEST_CASE("errors of the tables are handed on") {
  home h;
  for (errc code : {errc::unavailable, errc::outcome_unknown, errc::no_space, errc::timed_out}) {
    h.below->faults = {{"write", code}};
    CHECK(h.put("x", "y").failed_with(code));
    h.below->faults = {{"write", code}};
    CHECK(h.run(h.store->remove(h.as_alice(), "photos", "x")).failed_with(code));
    h.below->faults = {{"read", code}};
    CHECK(h.get("x").failed_with(code));
    h.below->faults = {{"list", code}};
    CHECK(h.run(h.store->list(h.as_alice(), {.bucket = "photos"})).failed_with(code));
    h.below->faults = {{"put", code}};
    CHECK(h.put("x", some_bytes(200 * k)).failed_with(code));
  }
  h.below->space = false;
  CHECK(h.put("x", "y").failed_with(errc::no_space));
}

TEST_CASE("too large is refused before a byte is read") {
  home h;
  memory_body from("x");
  from.said = (5ull << 40) + 1;
  CHECK(h.put_from("x", from).failed_with(errc::too_large));
  CHECK(from.at == 0);
}

TEST_CASE("what may be stale is read here, without a round trip; what was never heard of here is asked of the quorum") {
  home h;
  REQUIRE(h.put("small", some_bytes(5000)));
  REQUIRE(h.put("large", some_bytes(200 * k)));
  for (const auto& [hash, body] : h.below->blocks) h.below->here.insert(hash);
  h.below->calls.clear();
  double rounds = 0;
  get_request g{.bucket = "photos", .key = "small"};
  g.how = consistency::any;
  auto got = h.timed(h.store->get(h.as_alice(), g), rounds);
  REQUIRE(got);
  CHECK(rounds < 0.1);
  CHECK(got->stale_possible);
  CHECK(*h.read(*got->body) == some_bytes(5000));
  g.key = "large";
  got = h.run(h.store->get(h.as_alice(), g));
  REQUIRE(got);
  CHECK(*h.read(*got->body) == some_bytes(200 * k));
  list_request l{.bucket = "photos"};
  l.how = consistency::any;
  auto listed = h.timed(h.store->list(h.as_alice(), l), rounds);
  REQUIRE(listed);
  CHECK(listed->stale_possible);
  CHECK(listed->items.size() == 2);
  CHECK(h.below->calls["read"] == 0);
  // One that came to other homes only.
  for (const auto& [key, row] : h.below->rows)
    if (key.table == table::table_id::object) h.below->unheard_of.insert(key);
  got = h.run(h.store->get(h.as_alice(), g));
  REQUIRE(got);
  CHECK(!got->stale_possible);
  CHECK(h.below->calls["read"] == 1);
  g.key = "never";
  CHECK(h.run(h.store->get(h.as_alice(), g)).failed_with(errc::no_such_key));
}

TEST_CASE("while the quorum is dark a read that allows it answers with what is here and says so; nothing else does") {
  home h;
  REQUIRE(h.put("a", some_bytes(5000)));
  REQUIRE(h.put("gone", some_bytes(10)));
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "gone")));
  get_request strong{.bucket = "photos", .key = "a"}, weak = strong;
  weak.how = consistency::strong_if_up;
  auto got = h.run(h.store->get(h.as_alice(), weak));
  REQUIRE(got);
  CHECK(!got->stale_possible);
  h.below->dark = true;
  CHECK(h.run(h.store->get(h.as_alice(), strong)).failed_with(errc::unavailable));
  got = h.run(h.store->get(h.as_alice(), weak));
  REQUIRE(got);
  CHECK(got->stale_possible);
  CHECK(*h.read(*got->body) == some_bytes(5000));
  weak.key = "gone";
  CHECK(h.run(h.store->get(h.as_alice(), weak)).failed_with(errc::no_such_key));
  weak.key = "never";  // others may have it
  CHECK(h.run(h.store->get(h.as_alice(), weak)).failed_with(errc::unavailable));
  list_request l{.bucket = "photos"};
  CHECK(h.run(h.store->list(h.as_alice(), l)).failed_with(errc::unavailable));
  l.how = consistency::strong_if_up;
  auto listed = h.run(h.store->list(h.as_alice(), l));
  REQUIRE(listed);
  CHECK(listed->stale_possible);
  CHECK(listed->items.size() == 1);
  CHECK(h.put("b", some_bytes(10)).failed_with(errc::unavailable));
  // Who may not read, may not read what is stale either.
  CHECK(h.run(h.store->get(h.as_bob(), weak)).failed_with(errc::access_denied));
}
