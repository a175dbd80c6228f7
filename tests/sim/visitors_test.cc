// Visitors of a home that has no copy of a site: a page that many look at costs no round trip, is no older than was said, and is shown to
// nobody who may not enter any more. What has to be fetched comes from the quickest home that is up.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "crypto/crypto.h"
#include "gallery/objects.h"
#include "sim/cluster.h"
#include "web/web.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

constexpr nanoseconds staleness = 5s;
constexpr std::size_t far = 3;  // the home that has no copies

class visit final : public http::exchange {
 public:
  http::request req;
  http::response sent;
  bool ended = false;
  const http::request& request() const override { return req; }
  task<result<std::size_t>> read_body(std::span<char>) override { co_return std::size_t{0}; }
  std::uint64_t body_read() const override { return 0; }
  task<result<void>> send(http::response r) override {
    ended = true;
    sent = std::move(r);
    co_return result<void>();
  }
  task<result<void>> begin(http::response head, std::optional<std::uint64_t>) override { return send(std::move(head)); }
  task<result<void>> write(bytes_view b) override {
    sent.body += b;
    co_return result<void>();
  }
  task<result<void>> end() override { co_return result<void>(); }
  bool answered() const override { return ended; }
  void abort() override {}
  int status() const override { return sent.status; }
  std::uint64_t body_sent() const override { return sent.body.size(); }
};

struct answer {
  int status = 0;
  bytes body, etag;
  double ms = 0;
};

task<answer> ask(web::host& h, runtime& rt, std::string site, std::string path, std::vector<http::header> headers) {
  visit v;
  v.req.method = "GET";
  v.req.target = v.req.path = std::move(path);
  v.req.headers.add("Host", site + ".web.localhost");
  for (auto& x : headers) v.req.headers.add(x.name, x.value);
  const mono_time start = rt.now();
  co_await h.handle(v);
  co_return answer{v.sent.status, std::move(v.sent.body), std::string(v.sent.headers.get("etag")), static_cast<double>((rt.now() - start).count()) / 1e6};
}

// Three homes hold everything; the fourth, a gateway, nothing.
struct street {
  explicit street(std::uint64_t seed = 77) : c(seed) {
    c.world().set_all_lines({.delay = 50ms});
    c.beside = [this](std::size_t i, home& h, runtime& rt) -> std::shared_ptr<void> {
      auto w = std::make_shared<web::host>(rt, h.node->store(), web::options{});
      hosts[i] = w;
      return w;
    };
    const char* zones[] = {"lyon", "paris", "brest", "nice"};
    for (std::size_t i = 0; i < 4; ++i) {
      home_options o{.zone = zones[i], .block_size = 256 << 10, .inline_max = 64 << 10, .visited_bytes = 8 << 20, .staleness = staleness};
      if (i == far) o.capacity_bytes = 0;
      c.add(std::move(o));
    }
    REQUIRE(c.form());
    for (std::size_t i = 0; i < 4; ++i) c.at(i).kv_disk.behaviour.commit_delay = 10us;
    make("site", false, false);
    make("album", true, true);
    c.world().run_for(30s);
    auto b = c.world().await(c.at(far), c.node(far).store().find_bucket("site", c.at(far).rt().now() + 10s));
    REQUIRE(*b);
    REQUIRE_FALSE(c.node(far).tables().is_replica(c.node(far).tables().partition_of((*b)->id.view())));
  }
  void change(const std::string& bucket, std::function<result<void>(model::bucket&)> edit) {
    store::call call{{std::nullopt, true}, c.at(0).rt().now() + 30s};
    REQUIRE(*c.world().await(c.at(0), c.node(0).store().change_bucket(call, bucket, std::move(edit))));
  }
  void make(const std::string& name, bool gallery, bool is_private) {
    REQUIRE(c.make_bucket(0, name));
    change(name, [=](model::bucket& b) -> result<void> {
      b.website = model::website{"index.html", "404.html"};
      if (gallery) b.gallery_pages = model::gallery_pages{"photos", is_private, {}};
      return {};
    });
  }
  answer get(std::size_t at, const std::string& site, const std::string& path, std::vector<http::header> headers = {}) {
    auto h = hosts[at].lock();
    REQUIRE(h);
    auto a = c.world().await(c.at(at), ask(*h, c.at(at).rt(), site, path, std::move(headers)));
    h.reset();
    REQUIRE(a);
    return std::move(*a);
  }
  neighbourhood c;
  std::map<std::size_t, std::weak_ptr<web::host>> hosts;
};

bytes noise(std::size_t n, unsigned seed) {
  bytes b;
  while (b.size() < n) b += std::to_string(xxh3_64(b.substr(b.size() > 64 ? b.size() - 64 : 0), seed + b.size()));
  b.resize(n);
  return b;
}

}  // namespace

TEST_CASE("a page that many look at costs no round trip at a home without copies, and is at most so old") {
  street s;
  const bytes picture = noise(200'000, 1);
  REQUIRE(s.c.put(0, "site", "index.html", "first"));
  REQUIRE(s.c.put(0, "site", "large.bin", picture));
  s.c.world().run_for(10s);
  std::printf("round trips (100 ms each) of a visitor at a home without copies\n");
  auto row = [](const char* what, double ms) { std::printf("  %-58s %.2f\n", what, ms / 100); };
  auto a = s.get(far, "site", "/");
  CHECK((a.status == 200 && a.body == "first"));
  row("a page, first visitor", a.ms);
  CHECK(a.ms >= 99);
  const bytes etag = a.etag;
  for (int i = 0; i < 20; ++i) {
    a = s.get(far, "site", "/");
    CHECK((a.status == 200 && a.body == "first"));
    CHECK(a.ms < 1);
  }
  row("the same, the 21st within the staleness", a.ms);
  a = s.get(far, "site", "/", {{"If-None-Match", etag}});
  CHECK(a.status == 304);
  CHECK(a.ms < 1);
  row("the same, asked whether it changed (304)", a.ms);
  a = s.get(far, "site", "/large.bin");
  CHECK((a.status == 200 && a.body == picture));
  row("200 kB in a block, first visitor", a.ms);
  a = s.get(far, "site", "/large.bin", {{"Range", "bytes=1000-1999"}});
  CHECK((a.status == 206 && a.body == picture.substr(1000, 1000)));
  CHECK(a.ms < 1);
  row("a part of it, again", a.ms);
  s.c.world().run_for(staleness);
  a = s.get(far, "site", "/large.bin");
  CHECK((a.status == 200 && a.body == picture));
  CHECK(a.ms < 101);
  row("all of it, after the staleness (the block is still here)", a.ms);

  // Changed elsewhere: seen after the staleness at the latest, counted from when it was asked for.
  CHECK(s.get(far, "site", "/").body == "first");
  REQUIRE(s.c.put(1, "site", "index.html", "second"));
  const mono_time changed = s.c.world().now();
  while (s.get(far, "site", "/").body == "first") {
    REQUIRE(s.c.world().now() < changed + staleness + 1s);
    s.c.world().run_for(100ms);
  }
  row("a change is seen after (of 50)", static_cast<double>((s.c.world().now() - changed).count()) / 1e6);
  CHECK(s.c.world().now() < changed + staleness + 300ms);
  CHECK(s.get(0, "site", "/").body == "second");  // a home with copies asks as ever
  // All others dark: what is kept is shown until it is too old.
  for (std::size_t i = 0; i < 3; ++i) s.c.crash(i);
  CHECK(s.get(far, "site", "/").body == "second");
  s.c.world().run_for(staleness + 1s);
  CHECK(s.get(far, "site", "/").status == 503);
}

TEST_CASE("who may enter a private gallery is judged each time, not by what is kept") {
  street s;
  const std::string token = "a-token-that-nobody-guesses";
  const bytes hash = crypto::digest(crypto::hash_kind::sha256, token);
  s.change("album", [&](model::bucket& b) -> result<void> {
    model::gallery_link l;
    l.name = "grandmother";
    l.token_sha256 = hash;
    b.gallery_pages->links.push_back(l);
    return {};
  });
  REQUIRE(s.c.put(0, "album", "index.html", "photos of the family"));
  s.c.world().run_for(10s);
  const std::vector<http::header> cookie = {{"Cookie", "grenier_gallery=" + token}};
  CHECK(s.get(far, "album", "/").status == 403);
  CHECK(s.get(far, "album", "/", cookie).body == "photos of the family");
  auto again = s.get(far, "album", "/", cookie);
  CHECK((again.status == 200 && again.ms < 1));
  CHECK(s.get(far, "album", "/").status == 403);  // kept here, and not for everybody
  s.change("album", [](model::bucket& b) -> result<void> {
    b.gallery_pages->links.clear();
    return {};
  });
  const mono_time revoked = s.c.world().now();
  while (s.get(far, "album", "/", cookie).status == 200) {
    REQUIRE(s.c.world().now() < revoked + staleness);
    s.c.world().run_for(50ms);
  }
  CHECK(s.get(far, "album", "/", cookie).status == 403);
  std::printf("a revoked link is refused after %.0f ms\n", static_cast<double>((s.c.world().now() - revoked).count()) / 1e6);
}

TEST_CASE("what has to be fetched comes from the quickest home that is up, not from a fixed one") {
  street s(78);
  // From the gateway: 10 ms to brest, 50 to paris, 150 to lyon (one way).
  const nanoseconds delays[] = {150ms, 50ms, 10ms};
  for (std::size_t i = 0; i < 3; ++i) s.c.world().line(far, i).delay = s.c.world().line(i, far).delay = delays[i];
  std::vector<bytes> pictures;
  for (unsigned i = 0; i < 6; ++i) {
    pictures.push_back(noise(200'000, 10 + i));
    REQUIRE(s.c.put(0, "site", "p" + std::to_string(i), pictures[i]));
  }
  s.c.world().run_for(120s);  // until the lines are measured and each home has its copies
  auto block_time = [&](unsigned i) {
    auto& n = s.c.node(far);
    auto& rt = s.c.at(far).rt();
    store::get_request q;
    q.bucket = "site";
    q.key = "p" + std::to_string(i);
    auto got = s.c.world().await(s.c.at(far), n.store().get({{std::nullopt, true}, rt.now() + 30s}, std::move(q)));
    REQUIRE(*got);
    const mono_time start = s.c.world().now();
    auto piece = s.c.world().await(s.c.at(far), (*got)->body->next());
    REQUIRE(*piece);
    CHECK(***piece == pictures[i]);
    return static_cast<double>((s.c.world().now() - start).count()) / 1e6;
  };
  const double near = block_time(0);
  CHECK(near < 100);
  s.c.crash(2);
  s.c.world().run_for(60s);
  const double next = block_time(1);
  CHECK(next < 600);  // from lyon it would be a second
  CHECK(next > 2 * near);
  s.c.start(2);
  REQUIRE(s.c.wait_ready(2));
  s.c.world().run_for(120s);
  const double again = block_time(2);
  CHECK(again < 100);
  std::printf("a block comes in %.0f ms from the nearest home; in %.0f ms when that is dark; in %.0f ms when it is back\n", near, next, again);
}
