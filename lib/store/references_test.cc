#include "store/store_fixture.h"

using namespace grenier;
using namespace grenier::store;
using status = model::upload_row::status;

namespace {

constexpr std::size_t k = 1 << 10;

upload_id begin(home& h, const std::string& key) { return *h.run(h.store->create_upload(h.as_alice(), {.bucket = "photos", .key = key})); }
part_info send(home& h, const std::string& key, upload_id u, std::uint32_t number, const bytes& body) {
  memory_body from(body);
  auto r = h.run(h.store->upload_part(h.as_alice(), {.bucket = "photos", .key = key, .upload = u, .number = number}, from));
  REQUIRE(r);
  return {number, r->etag, r->size};
}
result<put_result> complete(home& h, const std::string& key, upload_id u, std::vector<part_info> parts) {
  return h.run(h.store->complete_upload(h.as_alice(), {.bucket = "photos", .key = key, .upload = u, .parts = parts}));
}
std::size_t present(home& h, table_id t) {
  std::size_t n = 0;
  for (const auto& [at, r] : h.below->rows) n += at.table == t && r.value.present;
  return n;
}
void restart(home& h) {
  auto rows = h.below->rows;
  auto references = h.below->references;
  auto blocks = h.below->blocks;
  h.finish(h.store->stop());
  h.start(rows);
  h.below->references = references;
  h.below->blocks = blocks;
}

}  // namespace

TEST_CASE("replaced and deleted versions give their references back, late; the current one keeps its own") {
  home h;
  REQUIRE(h.put("x", some_bytes(200 * k, 1)));
  const auto old = h.row("x");
  REQUIRE(h.put("x", some_bytes(200 * k, 2)));
  h.pass(h.options.withdraw_delay - 1s);
  CHECK(h.below->all_kept(old));  // an attempt to write it may still be on its way
  h.settle();
  CHECK(!h.below->all_kept(old));
  CHECK(h.below->all_kept(h.row("x")));
  CHECK(h.below->references.size() == 4);
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "x")));
  h.settle();
  CHECK(h.below->references.empty());
  CHECK(h.entries("store/") == 0);
}

TEST_CASE("a clock that was years ahead and was set right: new versions are of now, and what was to be done is done") {
  home h;
  h.clk.ahead_ms = 3650ull * 86'400'000;
  REQUIRE(h.put("x", some_bytes(200 * k, 1)));
  const auto old = h.row("x");
  CHECK(old.meta.modified_ms + 1000 > h.clk.wall_ms());
  REQUIRE(h.put("x", some_bytes(200 * k, 2)));
  h.clk.ahead_ms = 0;
  REQUIRE(h.put("y", "1"));
  const auto first = h.row("y");
  CHECK(first.meta.modified_ms <= h.clk.wall_ms());
  REQUIRE(h.put("y", "2"));
  CHECK(h.row("y").meta.modified_ms <= h.clk.wall_ms() + 1);
  CHECK(first.meta.version < h.row("y").meta.version);
  h.settle();
  CHECK(!h.below->all_kept(old));
  CHECK(h.entries("store/") == 0);
}

TEST_CASE("the same bytes again are another version's references") {
  home h;
  REQUIRE(h.put("x", some_bytes(200 * k)));
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "x")));
  REQUIRE(h.put("x", some_bytes(200 * k)));
  h.settle();
  CHECK(h.below->all_kept(h.row("x")));
  CHECK(h.below->references.size() == 4);
}

TEST_CASE("tags change no reference") {
  home h;
  REQUIRE(h.put("x", some_bytes(200 * k)));
  REQUIRE(h.run(h.store->set_tags(h.as_alice(), "photos", "x", {{"a", "b"}})));
  CHECK(h.entries("store/w/") == 0);
  h.settle();
  CHECK(h.below->references.size() == 4);
}

TEST_CASE("nothing is withdrawn while a quorum does not know anything newer") {
  home h;
  REQUIRE(h.put("x", some_bytes(200 * k)));
  const auto where = model::object_key(h.photos(), "x");
  const auto stands = h.below->rows.at(where);
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "x")));
  // This replica took the deletion, but what a quorum holds is the object.
  h.below->rows[where] = stands;
  h.settle();
  CHECK(h.below->references.size() == 4);
  CHECK(h.below->calls["withdraw"] == 0);
}

TEST_CASE("nothing is withdrawn while what a quorum holds is older") {
  home h;
  REQUIRE(h.put("x", some_bytes(200 * k)));
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "x")));
  // Object and deletion are known here only.
  h.below->rows.erase(model::object_key(h.photos(), "x"));
  h.settle();
  CHECK(h.below->references.size() == 4);
  h.below->apply(model::object_key(h.photos(), "x"), {});
  h.pass(std::chrono::hours(3));
  CHECK(h.below->references.empty());
}

TEST_CASE("what fails is done later; a restart forgets nothing") {
  home h;
  REQUIRE(h.put("x", some_bytes(200 * k)));
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "x")));
  h.below->faults = {{"withdraw", errc::unavailable}};
  h.pass(h.options.withdraw_delay + 10s);
  CHECK(h.below->faults.empty());
  CHECK(h.below->references.size() == 4);
  CHECK(h.entries("store/w/") == 1);
  restart(h);
  h.pass(10min);
  CHECK(h.below->references.empty());
  CHECK(h.entries("store/") == 0);
}

TEST_CASE("another replica steps in when the first did not act") {
  home h;
  REQUIRE(h.put("x", some_bytes(200 * k)));
  h.below->replica_rank = 1;
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "x")));
  h.pass(h.options.fallback_delay);
  CHECK(h.below->references.size() == 4);
  h.pass(h.options.fallback_delay);
  CHECK(h.below->references.empty());
}

// ------------------------------------------------------------------------------------------------- puts that ended otherwise

TEST_CASE("a row that may have been written keeps its references until that is known") {
  for (bool applied : {true, false}) {
    CAPTURE(applied);
    home h;
    h.below->faults = {{"write", errc::outcome_unknown, applied}};
    CHECK(h.put("x", some_bytes(200 * k)).failed_with(errc::outcome_unknown));
    h.pass(h.options.withdraw_delay - 10s);
    CHECK(h.below->references.size() == 4);
    CHECK(h.below->calls["withdraw"] == 0);
    h.settle();
    CHECK(h.below->references.size() == (applied ? 4 : 0));
    if (applied) CHECK(*h.body_of("x") == some_bytes(200 * k));
    CHECK(h.entries("store/") == 0);
  }
}

TEST_CASE("looking whether it was written loses no small object's body") {
  home h;
  REQUIRE(h.put("x", "small"));
  h.below->faults = {{"write", errc::outcome_unknown}};
  CHECK(h.put("x", some_bytes(200 * k)).failed_with(errc::outcome_unknown));
  h.settle();
  CHECK(*h.body_of("x") == "small");
  CHECK(h.below->references.empty());
}

TEST_CASE("a put that a refused condition ended leaves nothing") {
  home h;
  REQUIRE(h.put("x", "there"));
  CHECK(h.put("x", some_bytes(200 * k), [](put_request& q) { q.when.if_none_match = "*"; }).failed_with(errc::condition_failed));
  CHECK(h.below->references.size() == 4);
  h.pass(30s);
  CHECK(h.below->references.empty());
}

TEST_CASE("what a home had under way when it stopped is looked after when it starts again") {
  for (bool applied : {true, false}) {
    home h;
    h.below->faults = {{"write", errc::outcome_unknown, applied}};
    CHECK(h.put("x", some_bytes(200 * k)).failed_with(errc::outcome_unknown));
    CHECK(h.entries("store/i/") == 4);
    restart(h);
    CHECK(h.entries("store/i/") == 4);
    h.settle();
    CHECK(h.below->references.size() == (applied ? 4 : 0));
    CHECK(h.entries("store/") == 0);
  }
}

TEST_CASE("a finished put leaves no notes") {
  home h;
  REQUIRE(h.put("x", some_bytes(200 * k)));
  CHECK(h.entries("store/i/") == 4);
  h.pass(10s);
  CHECK(h.entries("store/") == 0);
  CHECK(h.below->references.size() == 4);
}

TEST_CASE("a put that is cancelled gives back what it stored") {
  home h;
  memory_body from(some_bytes(300 * k));
  from.rt = &h.rt;
  from.pause = 1s;
  {
    task_group request(h.rt);
    std::optional<result<put_result>> r;
    request.spawn("put", home::keep(&r, h.store->put(h.as_alice(), {.bucket = "photos", .key = "x"}, from)));
    h.pass(2500ms);
    request.cancel();
    h.finish(request.join());
    CHECK(!r);
  }
  CHECK(!h.below->references.empty());
  h.pass(30s);
  CHECK(h.below->references.empty());
  CHECK(h.entries("store/") == 0);
}

// ------------------------------------------------------------------------------------------------- uploads

TEST_CASE("a completed upload: parts' rows go, their references stay the object's until it is replaced, and the upload's row goes after a day") {
  home h;
  auto u = begin(h, "film");
  auto first = send(h, "film", u, 1, some_bytes(200 * k, 1));
  auto second = send(h, "film", u, 2, some_bytes(100 * k, 2));
  auto unused = send(h, "film", u, 3, some_bytes(70 * k, 3));
  REQUIRE(complete(h, "film", u, {first, second}));
  CHECK(h.below->references.size() == 8);
  h.settle();
  CHECK(present(h, table_id::part) == 0);
  CHECK(h.below->all_kept(h.row("film")));
  CHECK(h.below->references.size() == 6);
  CHECK(*h.body_of("film") == some_bytes(200 * k, 1) + some_bytes(100 * k, 2));
  CHECK(complete(h, "film", u, {first, second}));
  REQUIRE(h.put("film", "replaced"));
  h.settle();
  CHECK(h.below->references.empty());
  CHECK(present(h, table_id::upload) == 1);
  h.pass(std::chrono::hours(26));
  CHECK(present(h, table_id::upload) == 0);
  CHECK(h.entries("store/") == 0);
  (void)unused;
}

TEST_CASE("an aborted upload gives everything back") {
  home h;
  auto u = begin(h, "film");
  send(h, "film", u, 1, some_bytes(200 * k, 1));
  send(h, "film", u, 1, some_bytes(200 * k, 2));
  send(h, "film", u, 2, some_bytes(100 * k, 3));
  REQUIRE(h.run(h.store->abort_upload(h.as_alice(), "photos", "film", u)));
  h.settle();
  CHECK(present(h, table_id::part) == 0);
  CHECK(h.below->references.empty());
}

TEST_CASE("a part that was replaced keeps its blocks while its upload is open: a completion may have seen it") {
  home h;
  auto u = begin(h, "film");
  auto old = send(h, "film", u, 1, some_bytes(200 * k, 1));
  const auto where = model::part_key(h.photos(), "film", u, 1);
  const auto seen = h.below->rows.at(where);
  send(h, "film", u, 1, some_bytes(200 * k, 2));
  h.settle();
  CHECK(h.below->references.size() == 8);
  // The completion that listed the old one.
  const auto newer = h.below->rows.at(where);
  h.below->rows[where] = seen;
  REQUIRE(complete(h, "film", u, {old}));
  h.below->rows[where] = newer;
  h.pass(std::chrono::hours(5));
  CHECK(*h.body_of("film") == some_bytes(200 * k, 1));
  CHECK(h.below->all_kept(h.row("film")));
  CHECK(h.below->references.size() == 4);
}

TEST_CASE("an abort that comes too late takes nothing from the object") {
  home h;
  auto u = begin(h, "film");
  auto part = send(h, "film", u, 1, some_bytes(200 * k, 1));
  REQUIRE(complete(h, "film", u, {part}));
  // The abort's row won after the completion's: both were under way.
  const auto where = model::upload_key(h.photos(), "film", u);
  auto row = *model::decode_upload(h.below->rows.at(where).value.row);
  row.state = status::aborted;
  h.pass(1s);
  h.below->apply(where, {true, model::encode(row), nullptr});
  h.settle();
  CHECK(*h.body_of("film") == some_bytes(200 * k, 1));
  CHECK(h.below->all_kept(h.row("film")));
}

TEST_CASE("a completion that never arrived opens the upload again") {
  home h;
  auto u = begin(h, "film");
  auto part = send(h, "film", u, 1, some_bytes(200 * k, 1));
  h.below->faults = {{"write", errc::unavailable}};
  CHECK(complete(h, "film", u, {part}).failed_with(errc::unavailable));
  CHECK(h.run(h.store->list_uploads(h.as_alice(), "photos", "", "", "", {}, 10))->uploads.empty());
  h.settle();
  CHECK(h.run(h.store->list_uploads(h.as_alice(), "photos", "", "", "", {}, 10))->uploads.size() == 1);
  CHECK(h.below->references.size() == 4);
  REQUIRE(complete(h, "film", u, {part}));
  h.settle();
  CHECK(h.below->all_kept(h.row("film")));
}

TEST_CASE("a completion that was replaced before anybody saw it ends its upload, and nothing is built on its blocks any more") {
  home h;
  auto u = begin(h, "film");
  auto part = send(h, "film", u, 1, some_bytes(200 * k, 1));
  // Its answer was lost, its upload's row too, and another object came.
  h.below->faults = {{"write", errc::outcome_unknown, true}, {"write", errc::outcome_unknown, false}};
  CHECK(complete(h, "film", u, {part}).failed_with(errc::outcome_unknown));
  REQUIRE(h.put("film", "another"));
  h.pass(2 * h.options.withdraw_delay + 30s);
  CHECK(complete(h, "film", u, {part}).failed_with(errc::no_such_upload));
  h.settle();
  CHECK(*h.body_of("film") == "another");
  CHECK(h.below->references.empty());
}

TEST_CASE("a part that comes as its upload ends is nobody's") {
  home h;
  auto u = begin(h, "film");
  memory_body from(some_bytes(200 * k));
  from.rt = &h.rt;
  from.pause = 1s;
  std::optional<result<put_result>> r;
  h.group->spawn("part", home::keep(&r, h.store->upload_part(h.as_alice(), {.bucket = "photos", .key = "film", .upload = u, .number = 1}, from)));
  h.pass(2500ms);
  REQUIRE(h.run(h.store->abort_upload(h.as_alice(), "photos", "film", u)));
  h.pass(10s);
  REQUIRE(r);
  h.settle();
  CHECK(present(h, table_id::part) == 0);
  CHECK(h.below->references.empty());
}

TEST_CASE("the background's entries survive their byte form; damaged ones are told") {
  work w{work::kind_type::replaced, {table_id::part, "p", "s"}, "before", {hlc_time{5}, 1, 2}, true, 3};
  auto r = decode_work(encode(w));
  REQUIRE(r);
  CHECK(encode(*r) == encode(w));
  CHECK(r->row == w.row);
  CHECK(r->before_written == w.before_written);
  CHECK(decode_work("").failed_with(errc::corrupt));
  CHECK(decode_work("\xff").failed_with(errc::corrupt));
  CHECK(decode_work("\x08\x02").failed_with(errc::protocol));
}
