#include "store/store_fixture.h"

using namespace grenier;
using namespace grenier::store;

namespace {

constexpr std::size_t k = 1 << 10;

result<bucket> create(home& h, std::string name, const access_key& who) { return h.run(h.store->create_bucket(h.as(who), std::move(name), "r")); }

}  // namespace

TEST_CASE("a name belongs to one bucket") {
  home h;
  CHECK(create(h, "photos", h.alice).failed_with(errc::bucket_already_owned_by_you));
  CHECK(create(h, "photos", h.bob).failed_with(errc::already_exists));
  CHECK(create(h, "Bad_Name", h.bob).failed_with(errc::invalid_argument));
  auto b = create(h, "films", h.bob);
  REQUIRE(b);
  CHECK(b->owner_id == h.bob.owner_id);
  CHECK(h.run(h.store->find_bucket("films", h.clk.now() + 10s))->id == b->id);
  CHECK(h.run(h.store->find_bucket("none", h.clk.now() + 10s)).failed_with(errc::no_such_bucket));
  // What lost left no bucket behind, nor wrote anything (clients create what they have each time they start).
  h.below->calls.clear();
  CHECK(create(h, "photos", h.alice).failed_with(errc::bucket_already_owned_by_you));
  CHECK(create(h, "photos", h.bob).failed_with(errc::already_exists));
  CHECK(h.below->calls["write"] + h.below->calls["swap"] == 0);
  std::size_t rows = 0;
  for (const auto& [key, row] : h.below->rows) rows += key.table == table_id::bucket && row.value.present;
  CHECK(rows == 2);
  access_key none = h.bob;
  none.may_create_buckets = false;
  CHECK(create(h, "more", none).failed_with(errc::access_denied));
}

TEST_CASE("a name that points to nothing is taken over") {
  home h;
  h.below->apply(model::alias_key("old"), {true, bytes(16, 'x'), nullptr});
  CHECK(create(h, "old", h.bob));
}

TEST_CASE("finding a bucket asks nobody, and what a copy does not know yet is asked of the quorum") {
  home h;
  double rounds = 0;
  REQUIRE(h.timed(h.store->head_bucket(h.as_alice(), "photos"), rounds));
  CHECK(rounds == 0);
  // The copy still says that the name is nobody's.
  h.below->apply(model::alias_key("late"), {});
  h.below->copies_frozen = true;
  auto b = create(h, "late", h.alice);
  REQUIRE(b);
  CHECK(b->name == "late");
}

TEST_CASE("lists of buckets show those that the principal owns or may read") {
  home h;
  REQUIRE(create(h, "films", h.bob));
  REQUIRE(create(h, "a-bucket", h.alice));
  auto names = [&](const principal& p) {
    std::string s;
    for (const auto& b : h.store->list_buckets(p)) s += b.name + " ";
    return s;
  };
  CHECK(names(h.as_alice().who) == "a-bucket photos ");
  CHECK(names(h.as_bob().who) == "films ");
  CHECK(names(h.as_admin().who) == "a-bucket films photos ");
  CHECK(names({}).empty());
  REQUIRE(h.run(h.store->change_bucket(h.as_alice(), "photos", [&](bucket& b) -> result<void> {
    b.allowed[h.bob.id].read = true;
    return {};
  })));
  CHECK(names(h.as_bob().who) == "films photos ");
}

TEST_CASE("every operation is judged for its principal") {
  home h;
  REQUIRE(h.put("x", "y"));
  upload_id u = *h.run(h.store->create_upload(h.as_alice(), {.bucket = "photos", .key = "x"}));
  auto denied = [&](const call& c) {
    auto& s = *h.store;
    memory_body body("z");
    CHECK(h.run(s.head_bucket(c, "photos")).failed_with(errc::access_denied));
    CHECK(h.run(s.delete_bucket(c, "photos")).failed_with(errc::access_denied));
    CHECK(h.run(s.change_bucket(c, "photos", [](bucket&) { return result<void>(); })).failed_with(errc::access_denied));
    CHECK(h.run(s.count(c, "photos")).failed_with(errc::access_denied));
    CHECK(h.run(s.put(c, {.bucket = "photos", .key = "x"}, body)).failed_with(errc::access_denied));
    CHECK(h.run(s.get(c, {.bucket = "photos", .key = "x"})).failed_with(errc::access_denied));
    CHECK(h.run(s.copy(c, {.from_bucket = "photos", .from_key = "x", .bucket = "photos", .key = "y"})).failed_with(errc::access_denied));
    CHECK(h.run(s.remove(c, "photos", "x")).failed_with(errc::access_denied));
    CHECK(h.run(s.list(c, {.bucket = "photos"})).failed_with(errc::access_denied));
    CHECK(h.run(s.get_tags(c, "photos", "x")).failed_with(errc::access_denied));
    CHECK(h.run(s.set_tags(c, "photos", "x", {})).failed_with(errc::access_denied));
    CHECK(h.run(s.create_upload(c, {.bucket = "photos", .key = "x"})).failed_with(errc::access_denied));
    CHECK(h.run(s.upload_part(c, {.bucket = "photos", .key = "x", .upload = u, .number = 1}, body)).failed_with(errc::access_denied));
    CHECK(h.run(s.complete_upload(c, {.bucket = "photos", .key = "x", .upload = u, .parts = {{1, "e"}}})).failed_with(errc::access_denied));
    CHECK(h.run(s.abort_upload(c, "photos", "x", u)).failed_with(errc::access_denied));
    CHECK(h.run(s.list_parts(c, "photos", "x", u, 0, 10)).failed_with(errc::access_denied));
    CHECK(h.run(s.list_uploads(c, "photos", "", "", "", {}, 10)).failed_with(errc::access_denied));
    CHECK(h.run(s.create_key(c, {})).failed_with(errc::access_denied));
    CHECK(h.run(s.delete_key(c, h.alice.id)).failed_with(errc::access_denied));
  };
  denied(h.as_bob());
  denied(h.as_nobody());
  CHECK(*h.body_of("x") == "y");
  // A copy needs both sides.
  REQUIRE(create(h, "films", h.bob));
  copy_request steal{.from_bucket = "photos", .from_key = "x", .bucket = "films", .key = "x"};
  CHECK(h.run(h.store->copy(h.as_bob(), steal)).failed_with(errc::access_denied));
}

TEST_CASE("a request judged by an old row is judged again") {
  home h;
  REQUIRE(h.put("x", "y"));
  auto change = [&](auto edit) {
    auto key = model::bucket_key(h.photos());
    bucket b = *model::decode_bucket(h.below->rows.at(key).value.row);
    edit(b);
    h.below->copies_frozen = true;  // this home has not heard of it
    h.below->apply(key, {true, model::encode(b), nullptr});
    h.below->copies_frozen = false;
  };
  // Another change: nothing is lost but a round trip.
  change([](bucket& b) { b.region = "elsewhere"; });
  double rounds = 0;
  memory_body from("z");
  REQUIRE(h.timed(h.store->put(h.as_alice(), {.bucket = "photos", .key = "x"}, from), rounds));
  CHECK(rounds == doctest::Approx(2).epsilon(0.05));
  change([](bucket& b) { b.region = "here"; });
  CHECK(*h.body_of("x") == "z");
  change([](bucket& b) { b.region = "there"; });
  CHECK(h.run(h.store->list(h.as_alice(), {.bucket = "photos"}))->items.size() == 1);
  change([](bucket& b) { b.region = "there"; });
  CHECK(h.run(h.store->remove(h.as_alice(), "photos", "x")));
  // A right that was taken away binds.
  change([](bucket& b) { b.owner_id = "somebody else"; });
  CHECK(h.put("x", "y").failed_with(errc::access_denied));
  CHECK(h.get("x").failed_with(errc::access_denied));
}

TEST_CASE("a bucket that changes all the time ends a request after some tries") {
  home h;
  auto key = model::bucket_key(h.photos());
  h.below->faults.assign(100, {"write", errc::conflict});
  CHECK(h.put("x", "y").failed_with(errc::conflict));
  CHECK(h.below->faults.size() == 95);
}

TEST_CASE("who is told that a bucket is gone is not shown it afterwards, though nobody knew what became of its deletion") {
  home h;
  unsigned changes = 0;
  h.below->before_write = [&](const table::row_key& what) {
    if (what.table == table::table_id::bucket && ++changes == 2) h.below->faults = {{"swap", errc::outcome_unknown, true}};
  };
  CHECK(h.run(h.store->delete_bucket(h.as_alice(), "photos")).failed_with(errc::outcome_unknown));
  const int told = h.below->calls["publish"];
  CHECK(h.run(h.store->delete_bucket(h.as_alice(), "photos")).failed_with(errc::no_such_bucket));
  CHECK(h.below->calls["publish"] == told + 1);
  CHECK(h.get("x").failed_with(errc::no_such_bucket));
}

TEST_CASE("a bucket is deleted only when it is empty") {
  home h;
  REQUIRE(h.put("x", "y"));
  CHECK(h.run(h.store->delete_bucket(h.as_alice(), "photos")).failed_with(errc::bucket_not_empty));
  CHECK(!h.run(h.store->head_bucket(h.as_alice(), "photos"))->closed);
  CHECK(h.put("y", "z"));
  REQUIRE(h.run(h.store->remove_many(h.as_alice(), "photos", {"x", "y"})));
  upload_id u = *h.run(h.store->create_upload(h.as_alice(), {.bucket = "photos", .key = "x"}));
  CHECK(h.run(h.store->delete_bucket(h.as_alice(), "photos")).failed_with(errc::bucket_not_empty));
  REQUIRE(h.run(h.store->abort_upload(h.as_alice(), "photos", "x", u)));
  const bucket_id old = h.photos();
  REQUIRE(h.run(h.store->delete_bucket(h.as_alice(), "photos")));
  CHECK(h.get("x").failed_with(errc::no_such_bucket));
  CHECK(h.run(h.store->delete_bucket(h.as_alice(), "photos")).failed_with(errc::no_such_bucket));
  REQUIRE(create(h, "photos", h.bob));
  CHECK(h.photos() != old);
}

TEST_CASE("a bucket is closed while DeleteBucket looks, and opened again when that came to nothing") {
  home h;
  auto key = model::bucket_key(h.photos());
  // A put that comes while the bucket is closed is refused.
  bool closed_seen = false;
  h.below->faults = {{"list", errc::unavailable}};
  h.below->before_write = [&](const table::row_key& k_) {
    if (!(k_ == key)) return;
    auto b = model::decode_bucket(h.below->rows.at(key).value.row);
    closed_seen = closed_seen || b->closed;
  };
  CHECK(h.run(h.store->delete_bucket(h.as_alice(), "photos")).failed_with(errc::unavailable));
  CHECK(closed_seen);
  CHECK(h.put("x", "y"));
  // One that was left closed (its home lost power) refuses for a minute, then whoever needs it opens it.
  bucket b = *model::decode_bucket(h.below->rows.at(key).value.row);
  b.closed = true;
  b.closed_at = h.hlc.now().value;
  h.below->apply(key, {true, model::encode(b), nullptr});
  CHECK(h.put("x", "z").failed_with(errc::conflict));
  CHECK(*h.body_of("x") == "y");
  h.pass(61s);
  CHECK(h.put("x", "z"));
  CHECK(!h.run(h.store->head_bucket(h.as_alice(), "photos"))->closed);
  // Nor longer because the clock was years ahead there.
  b.closed_at = hlc_time::from_ms(h.clk.wall_ms() + 365ull * 86'400'000).value;
  h.below->apply(key, {true, model::encode(b), nullptr});
  CHECK(h.put("x", "w"));
}

TEST_CASE("changing a bucket claims further names and gives them back") {
  home h;
  auto set = [&](std::vector<std::string> names) {
    return h.run(h.store->change_bucket(h.as_alice(), "photos", [names](bucket& b) -> result<void> {
      b.aliases = names;
      b.id = {};  // not to be changed
      b.name = "other";
      return {};
    }));
  };
  const bucket_id id = h.photos();
  auto r = set({"photos.example.org", "p.example.org"});
  REQUIRE(r);
  CHECK(r->id == id);
  CHECK(r->name == "photos");
  CHECK(h.run(h.store->find_bucket("p.example.org", h.clk.now() + 10s))->id == id);
  REQUIRE(set({"photos.example.org"}));
  CHECK(h.run(h.store->find_bucket("p.example.org", h.clk.now() + 10s)).failed_with(errc::no_such_bucket));
  CHECK(set({"Not A Name"}).failed_with(errc::invalid_argument));
  REQUIRE(create(h, "films", h.bob));
  CHECK(set({"new.example.org", "films"}).failed_with(errc::already_exists));
  CHECK(h.run(h.store->find_bucket("new.example.org", h.clk.now() + 10s)).failed_with(errc::no_such_bucket));
  auto refuse = [](bucket&) -> result<void> { return fail(errc::too_large, "no"); };
  CHECK(h.run(h.store->change_bucket(h.as_alice(), "photos", refuse)).failed_with(errc::too_large));
  REQUIRE(h.run(h.store->delete_bucket(h.as_alice(), "photos")));
  CHECK(h.run(h.store->find_bucket("photos.example.org", h.clk.now() + 10s)).failed_with(errc::no_such_bucket));
}

TEST_CASE("access keys") {
  home h;
  CHECK(h.alice.id.size() == 20);
  CHECK(h.alice.id.starts_with("GR"));
  CHECK(h.alice.secret.size() == 40);
  CHECK(h.alice.owner_id.size() == 64);
  CHECK(h.alice.owner_id != h.bob.owner_id);
  double rounds = 0;
  auto found = h.timed(h.store->find_key(h.alice.id, h.clk.now() + 10s), rounds);
  CHECK(rounds == 0);
  CHECK(*found == h.alice);
  CHECK(h.run(h.store->find_key("nobody", h.clk.now() + 10s)).failed_with(errc::not_found));
  access_key own{.id = "imported", .secret = "a secret of its own"};
  REQUIRE(h.run(h.store->create_key(h.as_admin(), own)));
  CHECK(h.run(h.store->create_key(h.as_admin(), own)).failed_with(errc::already_exists));
  CHECK(h.run(h.store->create_key(h.as_admin(), {.id = "x y", .secret = "long enough"})).failed_with(errc::invalid_argument));
  CHECK(h.store->list_keys().size() == 3);
  REQUIRE(h.run(h.store->delete_key(h.as_admin(), "imported")));
  CHECK(h.run(h.store->delete_key(h.as_admin(), "imported")).failed_with(errc::not_found));
  CHECK(h.run(h.store->find_key("imported", h.clk.now() + 10s)).failed_with(errc::not_found));
  CHECK(h.store->list_keys().size() == 2);
}

TEST_CASE("a new key of a deleted key's id has none of its rights") {
  home h;
  access_key carol{.id = "carol", .secret = "a secret of hers"};
  carol = *h.run(h.store->create_key(h.as_admin(), carol));
  REQUIRE(create(h, "hers", carol));
  REQUIRE(h.run(h.store->change_bucket(h.as_alice(), "photos", [&](bucket& b) -> result<void> {
    b.allowed["carol"] = {true, true, true};
    b.allowed[h.bob.id] = {true, false, false};
    return {};
  })));
  REQUIRE(h.run(h.store->head_bucket(h.as(carol), "photos")));
  REQUIRE(h.run(h.store->delete_key(h.as_admin(), "carol")));
  auto again = *h.run(h.store->create_key(h.as_admin(), {.id = "carol", .secret = "somebody else's"}));
  CHECK(again.owner_id.size() == 64);
  CHECK(h.run(h.store->head_bucket(h.as(again), "hers")).failed_with(errc::access_denied));
  CHECK(h.run(h.store->head_bucket(h.as(again), "photos")).failed_with(errc::access_denied));
  CHECK(h.run(h.store->head_bucket(h.as_bob(), "photos")));
  // An owner that is named is taken over on purpose.
  REQUIRE(h.run(h.store->delete_key(h.as_admin(), "carol")));
  again = *h.run(h.store->create_key(h.as_admin(), {.id = "carol", .secret = "of hers again", .owner_id = carol.owner_id}));
  CHECK(h.run(h.store->head_bucket(h.as(again), "hers")));
}

// ------------------------------------------------------------------------------------------------- lists, counters

TEST_CASE("lists: prefixes, delimiters, pages") {
  home h;
  std::vector<std::string> keys{"a", "b/1", "b/2", "b/c/3", "b0", "c//", "d/x", "\xc3\xa9"};
  for (const auto& key : keys) REQUIRE(h.put(key, key));
  auto list = [&](list_request q) {
    q.bucket = "photos";
    auto r = h.run(h.store->list(h.as_alice(), q));
    REQUIRE(r);
    std::string s;
    for (const auto& i : r->items) s += i.key + " ";
    s += "|";
    for (const auto& p : r->prefixes) s += " " + p;
    return s + (r->truncated ? " ..." + r->last : "");
  };
  CHECK(list({}) == "a b/1 b/2 b/c/3 b0 c// d/x \xc3\xa9 |");
  CHECK(list({.delimiter = "/"}) == "a b0 \xc3\xa9 | b/ c/ d/");
  CHECK(list({.prefix = "b/", .delimiter = "/"}) == "b/1 b/2 | b/c/");
  CHECK(list({.prefix = "b"}) == "b/1 b/2 b/c/3 b0 |");
  CHECK(list({.start_after = "b/1"}) == "b/2 b/c/3 b0 c// d/x \xc3\xa9 |");
  CHECK(list({.delimiter = "/", .start_after = "b/"}) == "b0 \xc3\xa9 | c/ d/");
  CHECK(list({.delimiter = "/", .start_after = "b/1"}) == "b0 \xc3\xa9 | b/ c/ d/");
  CHECK(list({.delimiter = "/", .start_after = "b/c/3"}) == "b0 \xc3\xa9 | c/ d/");
  CHECK(list({.prefix = "b/", .delimiter = "/", .start_after = "b/1"}) == "b/2 | b/c/");
  CHECK(list({.delimiter = "/", .entries_max = 2}) == "a | b/ ...b/");
  CHECK(list({.entries_max = 0}) == "|");
  CHECK(list({.prefix = "nothing"}) == "|");
  // Pages of every size, joined, are the whole; also when the replicas end pages early.
  for (std::size_t replica_page : {std::size_t(1000), std::size_t(1)})
    for (std::size_t size : {1, 2, 3, 7, 8})
      for (const char* delimiter : {"", "/"}) {
        h.below->page_max = replica_page;
        std::string after, seen;
        for (int i = 0; i < 20; ++i) {
          auto r = h.run(h.store->list(h.as_alice(), {.bucket = "photos", .delimiter = delimiter, .start_after = after, .entries_max = size}));
          REQUIRE(r);
          CHECK(r->items.size() + r->prefixes.size() <= size);
          for (const auto& e : r->items) seen += e.key + " ";
          for (const auto& p : r->prefixes) seen += p + " ";
          after = r->last;
          if (!r->truncated) break;
        }
        std::size_t n = static_cast<std::size_t>(std::ranges::count(seen, ' '));
        CHECK(n == (*delimiter ? 6 : 8));
      }
  auto r = h.run(h.store->list(h.as_alice(), {.bucket = "photos", .prefix = "a"}));
  CHECK(r->items[0].meta.size == 1);
  CHECK(r->items[0].meta.etag == to_hex(crypto::digest(crypto::hash_kind::md5, "a")));
  CHECK(h.run(h.store->list(h.as_alice(), {.bucket = "none"})).failed_with(errc::no_such_bucket));
}

TEST_CASE("counters follow every change and survive a restart") {
  home h;
  auto count = [&] {
    auto c = h.run(h.store->count(h.as_alice(), "photos"));
    REQUIRE(c);
    return std::tuple(c->objects, c->bytes, c->uploads);
  };
  CHECK(count() == std::tuple(0, 0, 0));
  REQUIRE(h.put("x", some_bytes(100)));
  REQUIRE(h.put("y", some_bytes(100 * k)));
  REQUIRE(h.put("x", some_bytes(50)));
  REQUIRE(h.run(h.store->set_tags(h.as_alice(), "photos", "x", {{"a", "b"}})));
  upload_id u = *h.run(h.store->create_upload(h.as_alice(), {.bucket = "photos", .key = "x"}));
  CHECK(count() == std::tuple(2, 100 * k + 50, 1));
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "y")));
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "y")));
  REQUIRE(h.run(h.store->abort_upload(h.as_alice(), "photos", "x", u)));
  CHECK(count() == std::tuple(1, 50, 0));
  h.pass(1s);
  auto rows = h.below->rows;
  h.finish(h.store->stop());
  h.start(rows);
  CHECK(count() == std::tuple(1, 50, 0));
}

TEST_CASE("counters survive a restart whatever a bucket's id begins with") {
  home h;
  std::string name;
  for (int i = 0; i < 10'000 && name.empty(); ++i) {
    const std::string next = "bucket-" + std::to_string(i);
    REQUIRE(h.run(h.store->create_bucket(h.as_alice(), next, "grenier")));
    auto b = h.run(h.store->find_bucket(next, h.rt.now() + 10s));
    REQUIRE(b);
    if (b->id.str().front() == '\xff') name = next;
  }
  REQUIRE_FALSE(name.empty());
  REQUIRE(h.run(h.store->create_upload(h.as_alice(), {.bucket = name, .key = "x"})));
  REQUIRE(h.run(h.store->count(h.as_alice(), name))->uploads == 1);
  h.pass(1s);
  auto rows = h.below->rows;
  h.finish(h.store->stop());
  h.start(rows);
  CHECK(h.run(h.store->count(h.as_alice(), name))->uploads == 1);
}

TEST_CASE("of differing counts the one that two share, else the newest") {
  home h;
  REQUIRE(h.put("x", "1"));
  auto encoded = [](std::int64_t objects, std::uint64_t changes) {
    pb::Count m;
    m.set_format(1);
    m.set_objects(objects);
    m.set_changes(changes);
    return m.SerializeAsString();
  };
  h.below->more_answers = [&](bytes) { return std::vector<std::pair<node_id, bytes>>{{{}, encoded(7, 1)}, {{}, encoded(7, 1)}}; };
  CHECK(h.run(h.store->count(h.as_alice(), "photos"))->objects == 7);
  h.below->more_answers = [&](bytes) { return std::vector<std::pair<node_id, bytes>>{{{}, encoded(9, 100)}, {{}, "garbage"}}; };
  CHECK(h.run(h.store->count(h.as_alice(), "photos"))->objects == 9);
}
