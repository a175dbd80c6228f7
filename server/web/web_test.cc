#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "web/web.h"

#include "web/gallery.h"

#include "store/store_fixture.h"

using namespace grenier;
using namespace grenier::store;

namespace {

constexpr std::size_t k = 1 << 10;

class visit final : public http::exchange {
 public:
  http::request req;
  http::response sent;
  std::optional<std::uint64_t> announced;
  bool ended = false, aborted = false;

  const http::request& request() const override { return req; }
  task<result<std::size_t>> read_body(std::span<char>) override { co_return std::size_t{0}; }
  std::uint64_t body_read() const override { return 0; }
  task<result<void>> send(http::response r) override {
    REQUIRE_FALSE(ended);
    ended = true;
    sent = std::move(r);
    co_return result<void>();
  }
  task<result<void>> begin(http::response head, std::optional<std::uint64_t> length) override {
    REQUIRE_FALSE(ended);
    ended = true;
    sent = std::move(head);
    announced = length;
    co_return result<void>();
  }
  task<result<void>> write(bytes_view b) override {
    sent.body += b;
    co_return result<void>();
  }
  task<result<void>> end() override { co_return result<void>(); }
  bool answered() const override { return ended; }
  void abort() override { aborted = true; }
  int status() const override { return sent.status; }
  std::uint64_t body_sent() const override { return sent.body.size(); }
};

struct site : home {
  web::host host{rt, *store, {}};

  site() {
    REQUIRE(run(store->change_bucket(as_alice(), "photos", [](bucket& b) -> result<void> {
      b.website = model::website{"index.html", "lost.html"};
      return {};
    })));
    REQUIRE(put("index.html", "home"));
    REQUIRE(put("large.bin", some_bytes(200 * k)));
  }
  visit ask(std::string path, std::vector<http::header> headers = {}) {
    visit v;
    v.req.method = "GET";
    v.req.target = v.req.path = std::move(path);
    v.req.headers.add("Host", "photos.web.localhost");
    for (auto& h : headers) v.req.headers.add(h.name, h.value);
    finish(host.handle(v));
    CHECK(v.ended);
    return v;
  }
};

}  // namespace

TEST_CASE("a path to be sent to never names another host") {
  CHECK(web::local_path("//evil.example/x") == "/evil.example/x");
  CHECK(web::local_path("/a//b/") == "/a//b/");
  CHECK(web::local_path("////") == "/");
  CHECK(web::local_path("") == "/");
}

TEST_CASE("pages, whole or in part, of the version that was begun") {
  site s;
  CHECK(s.ask("/").sent.body == "home");
  auto all = s.ask("/large.bin");
  CHECK((all.sent.status == 200 && all.announced == 200 * k && all.sent.body == some_bytes(200 * k)));
  const std::string etag(all.sent.headers.get("etag")), changed(all.sent.headers.get("last-modified"));
  for (const std::string& same : {etag, changed}) CHECK(s.ask("/large.bin", {{"Range", "bytes=1-2"}, {"If-Range", same}}).sent.status == 206);
  for (const std::string& other : {std::string("\"x\""), "W/" + etag, std::string("Tue, 14 Nov 2023 22:13:21 GMT"), std::string("nonsense")}) {
    auto r = s.ask("/large.bin", {{"Range", "bytes=1-2"}, {"If-Range", other}});
    CHECK((r.sent.status == 200 && r.sent.body.size() == 200 * k));
  }
}

TEST_CASE("what cannot be read just now is said so before anything is promised") {
  site s;
  const auto blocks = s.row("large.bin").blocks;
  const auto kept = s.below->blocks[blocks[0].hash];
  s.below->blocks.erase(blocks[0].hash);
  auto r = s.ask("/large.bin");
  CHECK((r.sent.status == 503 && r.sent.headers.get("retry-after") == "2" && !r.aborted));
  // Later on it can only be broken off.
  s.below->blocks[blocks[0].hash] = kept;
  s.below->blocks.erase(blocks[1].hash);
  r = s.ask("/large.bin");
  CHECK((r.sent.status == 200 && r.aborted && r.sent.body.size() < 200 * k));
  // Nor does an error document that cannot be read leave a visitor without an answer.
  REQUIRE(s.put("lost.html", some_bytes(200 * k, 7)));
  s.below->blocks.erase(s.row("lost.html").blocks[0].hash);
  r = s.ask("/nothing");
  CHECK((r.sent.status == 404 && r.sent.body.find("no such page") != bytes::npos));
}

TEST_CASE("with too few homes up a site is shown as this home has it") {
  site s;
  REQUIRE(s.put("docs/index.html", "docs"));
  s.below->dark = true;
  auto r = s.ask("/");
  CHECK((r.sent.status == 200 && r.sent.body == "home"));
  CHECK(s.ask("/docs").sent.status == 302);
  CHECK(s.ask("/docs/").sent.body == "docs");
}

TEST_CASE("what went wrong is said in the visitor's language") {
  site s;
  REQUIRE(s.run(s.store->remove(s.as_alice(), "photos", "lost.html")));
  auto r = s.ask("/nothing", {{"Accept-Language", "fr-FR,fr;q=0.9,en;q=0.5"}});
  CHECK(r.sent.status == 404);
  CHECK(r.sent.body.find("<html lang=\"fr\">") != bytes::npos);
  CHECK(r.sent.body.find("Cette page n'existe pas.") != bytes::npos);
  CHECK(r.sent.headers.get("vary") == "Accept-Language");
  r = s.ask("/nothing", {{"Accept-Language", "de,en"}});
  CHECK(r.sent.body.find("<html lang=\"en\">") != bytes::npos);
  CHECK(r.sent.body.find("There is no such page.") != bytes::npos);
}

TEST_CASE("visitors are told nothing of the inside") {
  site s;
  for (errc code : {errc::io_failed, errc::corrupt, errc::unavailable, errc::invalid_argument}) {
    s.below->faults = {{.operation = "read", .code = code, .detail = "/srv/grenier/<drive 3>"}};
    auto r = s.ask("/large.bin");
    CHECK(r.sent.status >= 400);
    CHECK(r.sent.body.find("srv") == bytes::npos);
  }
}

TEST_CASE("visitors who take nothing leave the uploads' and the others' memory alone") {
  site s;
  call c = s.as_admin();
  c.visitor = true;
  std::vector<shared_bytes> held;
  std::vector<result<get_result>> open;
  for (int i = 0; i < 40; ++i) {
    open.push_back(s.run(s.store->get(c, {.bucket = "photos", .key = "large.bin"})));
    if (auto p = s.run(open.back()->body->next())) held.push_back(*p);
  }
  CHECK(s.ask("/large.bin").sent.status == 503);
  CHECK(s.ask("/").sent.status == 200);
  CHECK(*s.body_of("large.bin") == some_bytes(200 * k));
  CHECK(s.put("new", some_bytes(200 * k)));
  open.clear();
  held.clear();
  CHECK(s.ask("/large.bin").sent.status == 200);
}
