#include "store/complete.h"
#include "store/store_fixture.h"

using namespace grenier;
using namespace grenier::store;
using status = model::upload_row::status;

namespace {

constexpr std::size_t k = 1 << 10;

struct uploader {
  home& h;
  std::string key = "film";
  upload_id id;
  std::vector<part_info> parts;

  explicit uploader(home& at, put_request q = {}) : h(at) {
    q.bucket = "photos";
    q.key = key;
    auto r = h.run(h.store->create_upload(h.as_alice(), q));
    REQUIRE(r);
    id = *r;
  }
  result<put_result> part(std::uint32_t number, bytes body, std::vector<checksum> sums = {}) {
    memory_body from(std::move(body));
    upload_part_request q{.bucket = "photos", .key = key, .upload = id, .number = number, .checksums = sums};
    auto r = h.run(h.store->upload_part(h.as_alice(), q, from));
    if (r) note({number, r->etag, r->size, 0, {}});
    return r;
  }
  void note(part_info p) {
    std::erase_if(parts, [&](const auto& o) { return o.number == p.number; });
    parts.push_back(p);
    std::ranges::sort(parts, {}, &part_info::number);
  }
  complete_request request(conditions when = {}) const {
    return {.bucket = "photos", .key = key, .upload = id, .parts = parts, .when = when};
  }
  result<put_result> complete(conditions when = {}) { return h.run(h.store->complete_upload(h.as_alice(), request(when))); }
  result<void> abort() { return h.run(h.store->abort_upload(h.as_alice(), "photos", key, id)); }
  model::upload_row row() { return *model::decode_upload(h.below->rows.at(model::upload_key(h.photos(), key, id)).value.row); }
  std::size_t part_rows() {
    std::size_t n = 0;
    for (const auto& [at, r] : h.below->rows) n += at.table == table_id::part && r.value.present;
    return n;
  }
};

bytes body_1() { return some_bytes(200 * k, 1); }
bytes body_2() { return some_bytes(150 * k, 2); }
bytes body_3() { return some_bytes(10, 3); }
std::string md5_of(const bytes& b) { return crypto::digest(crypto::hash_kind::md5, b); }

}  // namespace

TEST_CASE("an upload in parts becomes one object") {
  home h;
  put_request q;
  q.headers.content_type = "video/mp4";
  q.tags = {{"a", "b"}};
  uploader u(h, q);
  REQUIRE(u.part(1, body_1()));
  REQUIRE(u.part(5, body_3()));
  REQUIRE(u.part(2, body_2()));
  CHECK(h.get("film").failed_with(errc::no_such_key));
  auto r = u.complete();
  REQUIRE(r);
  CHECK(r->etag == to_hex(crypto::digest(crypto::hash_kind::md5, md5_of(body_1()) + md5_of(body_2()) + md5_of(body_3()))) + "-3");
  CHECK(r->size == 350 * k + 10);
  auto g = h.get("film");
  REQUIRE(g);
  CHECK(g->meta.headers.content_type == "video/mp4");
  CHECK(g->meta.tags.size() == 1);
  CHECK(*h.read(*g->body) == body_1() + body_2() + body_3());
  auto second = h.get("film", [](get_request& p) { p.part_number = 2; });
  REQUIRE(second);
  CHECK(second->partial);
  CHECK(second->parts == 3);
  CHECK(second->first == 200 * k);
  CHECK(*h.read(*second->body) == body_2());
  CHECK(h.get("film", [](get_request& p) { p.part_number = 3; }).failed_with(errc::invalid_range));
  CHECK(h.get("film", [](get_request& p) { p.part_number = 1, p.range = "bytes=0-1"; }).failed_with(errc::invalid_argument));
}

TEST_CASE("round trips: create 1, part: last byte + 2, complete 2") {
  home h;
  double rounds = 0;
  uploader u(h);
  REQUIRE(h.timed(h.store->create_upload(h.as_alice(), {.bucket = "photos", .key = "other"}), rounds));
  CHECK(rounds == doctest::Approx(1).epsilon(0.05));
  memory_body from(body_1());
  from.rt = &h.rt;
  from.pause = 50ms;  // four pieces and the end: the upload's row is asked for meanwhile
  mono_time before = h.clk.now();
  upload_part_request q{.bucket = "photos", .key = "film", .upload = u.id, .number = 1};
  auto r = h.run(h.store->upload_part(h.as_alice(), q, from));
  REQUIRE(r);
  CHECK(h.clk.now() - before <= 5 * 50ms + 2 * 50ms + 5ms);
  u.note({1, r->etag, r->size});
  h.below->calls.clear();
  REQUIRE(h.timed(h.store->complete_upload(h.as_alice(), u.request()), rounds));
  CHECK(rounds == doctest::Approx(2).epsilon(0.05));
  CHECK(h.below->calls["write"] == 1);
}

TEST_CASE("what a completion is held against") {
  home h;
  uploader u(h);
  REQUIRE(u.part(1, body_1()));
  REQUIRE(u.part(2, body_3()));
  REQUIRE(u.part(3, body_2()));
  CHECK(u.complete().failed_with(errc::part_too_small));
  auto with = [&](auto edit) {
    auto q = u.request();
    std::erase_if(q.parts, [](const auto& p) { return p.number == 2; });
    edit(q);
    return h.run(h.store->complete_upload(h.as_alice(), q));
  };
  CHECK(with([](auto& q) { std::swap(q.parts[0], q.parts[1]); }).failed_with(errc::invalid_part_order));
  CHECK(with([](auto& q) { q.parts.push_back(q.parts.back()); }).failed_with(errc::invalid_part_order));
  CHECK(with([](auto& q) { q.parts.back().number = 4; }).failed_with(errc::invalid_part));
  CHECK(with([](auto& q) { q.parts.back().number = 10001; }).failed_with(errc::invalid_part));
  CHECK(with([](auto& q) { q.parts[0].etag = std::string(32, 'a'); }).failed_with(errc::invalid_part));
  CHECK(with([](auto& q) { q.parts[0].checksums = {{crypto::hash_kind::crc32, "abcd"}}; }).failed_with(errc::invalid_part));
  CHECK(with([](auto& q) { q.parts.clear(); }).failed_with(errc::invalid_argument));
  CHECK(with([](auto& q) { q.upload = {}; }).failed_with(errc::no_such_upload));
  CHECK(with([](auto& q) { q.key = "other"; }).failed_with(errc::no_such_upload));
  CHECK(with([](auto& q) { q.checksums = {{crypto::hash_kind::crc32, "abcd"}}; }).failed_with(errc::checksum_mismatch));
  CHECK(u.row().state == status::open);
  CHECK(with([](auto& q) { q.parts[0].etag = '"' + q.parts[0].etag + '"'; }));
}

TEST_CASE("checksums of the whole: of CRCs the whole's own, of hashes that of the parts'") {
  using crypto::hash_kind;
  home h;
  for (auto kind : {hash_kind::crc32, hash_kind::crc32c, hash_kind::crc64nvme, hash_kind::sha1, hash_kind::sha256})
    for (bool composite : {false, true}) {
      CAPTURE(static_cast<int>(kind));
      put_request q;
      q.compute = kind;
      q.composite = composite;
      uploader u(h, q);
      // Nobody sent a checksum: the upload's kind is computed all the same.
      REQUIRE(u.part(1, body_1()));
      REQUIRE(u.part(2, body_2(), {{kind, crypto::digest(kind, body_2())}}));
      CHECK(u.part(3, body_3(), {{kind, bytes(crypto::digest_size(kind), 'x')}}).failed_with(errc::checksum_mismatch));
      auto r = u.complete();
      REQUIRE(r);
      REQUIRE(r->checksums.size() == 1);
      const bool of_parts = composite || kind == hash_kind::sha1 || kind == hash_kind::sha256;
      CHECK(r->checksums[0].composite == of_parts);
      CHECK(r->checksums[0].parts == (of_parts ? 2 : 0));
      CHECK(r->checksums[0].value == (of_parts ? crypto::digest(kind, crypto::digest(kind, body_1()) + crypto::digest(kind, body_2()))
                                               : crypto::digest(kind, body_1() + body_2())));
    }
}

TEST_CASE("completing twice answers the same, also when the first answer was lost") {
  home h;
  uploader u(h);
  REQUIRE(u.part(1, body_1()));
  auto first = u.complete();
  REQUIRE(first);
  const auto version = h.row("film").meta.version;
  auto second = u.complete();
  REQUIRE(second);
  CHECK(second->etag == first->etag);
  CHECK(second->size == first->size);
  CHECK(h.row("film").meta.version == version);
  h.pass(1s);
  CHECK(u.row().state == status::completed);
  CHECK(u.complete()->etag == first->etag);

  for (bool applied : {true, false}) {
    CAPTURE(applied);
    uploader again(h);
    REQUIRE(again.part(1, body_2()));
    h.below->faults = {{"write", errc::outcome_unknown, applied}};
    CHECK(again.complete().failed_with(errc::outcome_unknown));
    auto r = again.complete();
    REQUIRE(r);
    CHECK(*h.body_of("film") == body_2());
    h.settle();
    CHECK(*h.body_of("film") == body_2());
    CHECK(h.below->all_kept(h.row("film")));
  }
}

TEST_CASE("conditions of a completion") {
  home h;
  REQUIRE(h.put("film", "there"));
  uploader u(h);
  REQUIRE(u.part(1, body_1()));
  CHECK(u.complete({.if_none_match = "*"}).failed_with(errc::condition_failed));
  CHECK(u.row().state == status::open);
  CHECK(*h.body_of("film") == "there");
  CHECK(u.complete({.if_match = "\"x\""}).failed_with(errc::condition_failed));
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "film")));
  CHECK(u.complete({.if_match = "*"}).failed_with(errc::no_such_key));
  // The answer is lost after it happened: the same request again is no conflict with itself.
  h.below->faults = {{"swap", errc::outcome_unknown, true}};
  CHECK(u.complete({.if_none_match = "*"}).failed_with(errc::outcome_unknown));
  CHECK(u.complete({.if_none_match = "*"}));
  CHECK(*h.body_of("film") == body_1());
  CHECK(u.row().state == status::completed);
}

TEST_CASE("parts need an open upload and a number") {
  home h;
  uploader u(h);
  CHECK(u.part(0, "x").failed_with(errc::invalid_argument));
  CHECK(u.part(10001, "x").failed_with(errc::invalid_argument));
  REQUIRE(u.part(10000, "x"));
  REQUIRE(u.part(1, ""));
  REQUIRE(u.abort());
  CHECK(u.part(1, "x").failed_with(errc::no_such_upload));
  CHECK(u.complete().failed_with(errc::no_such_upload));
  u.id = {};
  CHECK(u.part(1, "x").failed_with(errc::no_such_upload));
  CHECK(u.abort().failed_with(errc::no_such_upload));
}

TEST_CASE("a part's announced trailer is checked beside the upload's own kind") {
  using crypto::hash_kind;
  home h;
  put_request q;
  q.compute = hash_kind::sha256;
  uploader u(h, q);
  memory_body from(body_1());
  from.trailing = {{hash_kind::crc32, crypto::digest(hash_kind::crc32, body_1())}};
  upload_part_request p{.bucket = "photos", .key = "film", .upload = u.id, .number = 1, .compute = hash_kind::crc32};
  auto r = h.run(h.store->upload_part(h.as_alice(), p, from));
  REQUIRE(r);
  CHECK(r->checksums.size() == 2);
  u.note({1, r->etag});
  CHECK(u.complete()->checksums[0].kind == hash_kind::sha256);
}

TEST_CASE("lists of parts") {
  home h;
  put_request q;
  q.headers.content_type = "video/mp4";
  uploader u(h, q);
  for (std::uint32_t n : {1, 2, 256, 10000}) REQUIRE(u.part(n, some_bytes(n)));
  auto r = h.run(h.store->list_parts(h.as_alice(), "photos", "film", u.id, 0, 1000));
  REQUIRE(r);
  REQUIRE(r->parts.size() == 4);
  CHECK(r->parts[2].number == 256);
  CHECK(r->parts[2].size == 256);
  CHECK(r->parts[2].etag == u.parts[2].etag);
  CHECK(!r->truncated);
  CHECK(r->upload.headers.content_type == "video/mp4");
  r = h.run(h.store->list_parts(h.as_alice(), "photos", "film", u.id, 1, 2));
  CHECK(r->parts[0].number == 2);
  CHECK(r->parts.size() == 2);
  CHECK(r->truncated);
  CHECK(h.run(h.store->list_parts(h.as_alice(), "photos", "film", u.id, 10000, 2))->parts.empty());
  REQUIRE(u.abort());
  CHECK(h.run(h.store->list_parts(h.as_alice(), "photos", "film", u.id, 0, 10)).failed_with(errc::no_such_upload));
}

TEST_CASE("lists of uploads: prefixes, delimiters, pages; those that are over are not shown") {
  home h;
  std::vector<upload_id> ids;
  for (const char* key : {"a", "a", "b/1", "b/2", "c"}) ids.push_back(*h.run(h.store->create_upload(h.as_alice(), {.bucket = "photos", .key = key})));
  auto list = [&](std::string prefix, std::string delimiter, std::string after, upload_id after_id, std::size_t max) {
    auto r = h.run(h.store->list_uploads(h.as_alice(), "photos", prefix, delimiter, after, after_id, max));
    REQUIRE(r);
    return *r;
  };
  auto text = [](const list_uploads_result& r) {
    std::string s;
    for (const auto& u : r.uploads) s += u.key + " ";
    for (const auto& p : r.prefixes) s += p + " ";
    return s + (r.truncated ? "..." : "");
  };
  CHECK(text(list("", "", "", {}, 1000)) == "a a b/1 b/2 c ");
  CHECK(text(list("", "/", "", {}, 1000)) == "a a c b/ ");
  CHECK(text(list("b", "", "", {}, 1000)) == "b/1 b/2 ");
  CHECK(text(list("", "", "a", {}, 1000)) == "b/1 b/2 c ");
  for (std::size_t replica_page : {std::size_t(1000), std::size_t(1)})
    for (std::size_t size : {1, 2, 3, 5})
      for (const char* delimiter : {"", "/"}) {
        h.below->page_max = replica_page;
        std::string after, seen;
        upload_id after_id;
        for (int i = 0; i < 10; ++i) {
          auto r = list("", delimiter, after, after_id, size);
          seen += text({r.uploads, r.prefixes});
          after = r.last_key, after_id = r.last_upload;
          if (!r.truncated) break;
        }
        std::ranges::sort(seen);
        CHECK(std::ranges::count(seen, ' ') == (*delimiter ? 4 : 5));
      }
  REQUIRE(h.run(h.store->abort_upload(h.as_alice(), "photos", "c", ids[4])));
  CHECK(text(list("", "", "b/1", {}, 1000)) == "b/2 ");
  uploader u(h);
  REQUIRE(u.part(1, body_1()));
  REQUIRE(u.complete());
  CHECK(text(list("film", "", "", {}, 1000)).empty());
}

// ------------------------------------------------------------------------------------------------- copies

TEST_CASE("a copy shares blocks: two round trips inline, three with blocks") {
  home h;
  REQUIRE(h.put("small", "body", [](put_request& q) { q.headers.content_type = "text/plain", q.tags = {{"a", "1"}}; }));
  REQUIRE(h.put("big", some_bytes(200 * k)));
  double rounds = 0;
  copy_request q{.from_bucket = "photos", .from_key = "small", .bucket = "photos", .key = "small copy"};
  h.below->calls.clear();
  REQUIRE(h.timed(h.store->copy(h.as_alice(), q), rounds));
  CHECK(rounds == doctest::Approx(2).epsilon(0.05));
  auto g = h.get("small copy");
  CHECK(g->meta.headers.content_type == "text/plain");
  CHECK(g->meta.tags.size() == 1);
  CHECK(*h.read(*g->body) == "body");
  q = {.from_bucket = "photos", .from_key = "big", .bucket = "photos", .key = "big copy"};
  h.below->calls.clear();
  auto r = h.timed(h.store->copy(h.as_alice(), q), rounds);
  REQUIRE(r);
  CHECK(rounds == doctest::Approx(3).epsilon(0.05));
  CHECK(h.below->calls["put"] == 0);
  CHECK(r->etag == h.row("big").meta.etag);
  CHECK(*h.body_of("big copy") == some_bytes(200 * k));
  // Either may go without the other.
  REQUIRE(h.run(h.store->remove(h.as_alice(), "photos", "big")));
  h.settle();
  CHECK(h.below->all_kept(h.row("big copy")));
  CHECK(h.below->references.size() == 4);
}

TEST_CASE("a copy whose blocks nobody vouches for, or with a new checksum, reads and writes the bytes") {
  home h;
  REQUIRE(h.put("big", some_bytes(200 * k)));
  h.below->doubtful.insert(h.row("big").blocks[1].hash);
  copy_request q{.from_bucket = "photos", .from_key = "big", .bucket = "photos", .key = "copy"};
  REQUIRE(h.run(h.store->copy(h.as_alice(), q)));
  CHECK(*h.body_of("copy") == some_bytes(200 * k));
  q.compute = crypto::hash_kind::sha256;
  q.key = "summed";
  auto r = h.run(h.store->copy(h.as_alice(), q));
  REQUIRE(r);
  CHECK(r->checksums[0].value == crypto::digest(crypto::hash_kind::sha256, some_bytes(200 * k)));
  h.settle();
  CHECK(h.below->all_kept(h.row("copy")));
  CHECK(h.below->all_kept(h.row("summed")));
  REQUIRE(h.run(h.store->remove_many(h.as_alice(), "photos", {"big", "copy", "summed"})));
  h.settle();
  CHECK(h.below->references.empty());
}

TEST_CASE("storage class and redirect of a copy are the request's, whatever becomes of the other headers") {
  home h;
  for (const char* size : {"small", "big"}) {
    REQUIRE(h.put("x", some_bytes(*size == 's' ? 10 : 200 * k), [](put_request& q) {
      q.headers.content_type = "image/jpeg";
      q.headers.storage_class = "STANDARD_IA";
      q.headers.website_redirect = "/old";
    }));
    copy_request q{.from_bucket = "photos", .from_key = "x", .bucket = "photos", .key = "y"};
    REQUIRE(h.run(h.store->copy(h.as_alice(), q)));
    auto is = h.row("y").meta.headers;
    CHECK((is.content_type == "image/jpeg" && is.storage_class.empty() && is.website_redirect.empty()));
    q.key = "x";
    q.headers.storage_class = "GLACIER_IR";
    REQUIRE(h.run(h.store->copy(h.as_alice(), q)));
    is = h.row("x").meta.headers;
    CHECK((is.content_type == "image/jpeg" && is.storage_class == "GLACIER_IR" && is.website_redirect.empty()));
    q.headers = {.website_redirect = "/new"};
    REQUIRE(h.run(h.store->copy(h.as_alice(), q)));
    CHECK(h.row("x").meta.headers.website_redirect == "/new");
  }
}

TEST_CASE("a copy onto itself replaces what is said, or is refused") {
  home h;
  for (std::size_t n : {std::size_t(10), 200 * k}) {
    REQUIRE(h.put("x", some_bytes(n)));
    copy_request q{.from_bucket = "photos", .from_key = "x", .bucket = "photos", .key = "x"};
    CHECK(h.run(h.store->copy(h.as_alice(), q)).failed_with(errc::invalid_argument));
    q.replace_headers = true;
    q.headers.content_type = "new/type";
    REQUIRE(h.run(h.store->copy(h.as_alice(), q)));
    CHECK(h.get("x")->meta.headers.content_type == "new/type");
    h.settle();
    CHECK(*h.body_of("x") == some_bytes(n));
    CHECK(h.below->all_kept(h.row("x")));
  }
  CHECK(h.below->references.size() == 4);
}

TEST_CASE("conditions and sources of copies") {
  home h;
  REQUIRE(h.put("x", "body"));
  copy_request q{.from_bucket = "photos", .from_key = "x", .bucket = "photos", .key = "y"};
  q.from_when.if_none_match = "*";
  CHECK(h.run(h.store->copy(h.as_alice(), q)).failed_with(errc::condition_failed));
  q.from_when = {};
  q.when.if_none_match = "*";
  CHECK(h.run(h.store->copy(h.as_alice(), q)));
  CHECK(h.run(h.store->copy(h.as_alice(), q)).failed_with(errc::condition_failed));
  q.from_key = "none";
  CHECK(h.run(h.store->copy(h.as_alice(), q)).failed_with(errc::no_such_key));
  q.from_bucket = "none";
  CHECK(h.run(h.store->copy(h.as_alice(), q)).failed_with(errc::no_such_bucket));
}

TEST_CASE("parts from objects: whole blocks by reference, others by their bytes") {
  home h;
  const bytes source = some_bytes(320 * k, 5);
  REQUIRE(h.put("source", source));
  REQUIRE(h.put("tiny", "tiny"));
  uploader u(h);
  auto copy = [&](std::uint32_t number, std::string from, std::optional<std::string> range) {
    upload_part_copy_request q{.bucket = "photos", .key = "film", .upload = u.id, .number = number, .from_bucket = "photos", .from_key = from, .range = range};
    auto r = h.run(h.store->upload_part_copy(h.as_alice(), q));
    if (r) u.note({number, r->etag});
    return r;
  };
  h.below->calls.clear();
  REQUIRE(copy(1, "source", "bytes=0-131071"));
  CHECK(h.below->calls["put"] == 0);
  REQUIRE(copy(2, "source", "bytes=100-200000"));
  CHECK(h.below->calls["put"] > 0);
  REQUIRE(copy(3, "source", std::nullopt));
  CHECK(u.parts[2].etag == h.row("source").meta.etag);
  REQUIRE(copy(4, "tiny", std::nullopt));
  CHECK(copy(5, "source", "bytes=0-999999").failed_with(errc::invalid_range));
  CHECK(copy(5, "none", std::nullopt).failed_with(errc::no_such_key));
  REQUIRE(u.complete());
  const bytes expected = source.substr(0, 128 * k) + source.substr(100, 199901) + source + "tiny";
  CHECK(*h.body_of("film") == expected);
  REQUIRE(h.run(h.store->remove_many(h.as_alice(), "photos", {"source", "tiny"})));
  h.settle();
  CHECK(*h.body_of("film") == expected);
  CHECK(h.below->all_kept(h.row("film")));
  CHECK(copy(1, "film", std::nullopt).failed_with(errc::no_such_upload));
}
