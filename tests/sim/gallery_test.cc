// Galleries made by whole homes in virtual time: every photo is there once, whichever home works, dies or comes back; pages lead everywhere.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "crypto/crypto.h"
#include "gallery/worker.h"
#include "sim/cluster.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

// A "picture" begins like a PNG; the rest says what it is: a date, or "broken".
constexpr std::string_view png = "\x89PNG\r\n\x1a\n";
bytes photo(const std::string& taken, int salt, std::size_t size = 100'000) {
  bytes b = bytes(png) + taken + "#" + std::to_string(salt) + "#";
  for (std::uint64_t n = 0; b.size() < size; ++n) b += std::to_string(xxh3_64({}, static_cast<std::uint64_t>(salt) << 32 | n));
  return b;
}

class fake_renderer final : public picture::renderer {
 public:
  fake_renderer(runtime& rt, std::size_t& count) : rt_(rt), count_(count) {}
  task<result<picture::rendered>> render(picture::source& s, picture::options) override {
    bytes all;
    for (;;) {
      CO_TRY(auto piece, co_await s.next());
      if (!piece || piece->empty()) break;
      all += *piece;
    }
    co_await sleep_for(rt_, 300ms);
    picture::rendered r;
    const auto said = bytes_view(all).substr(png.size(), bytes_view(all).find('#') - png.size());
    if (said == "broken") {
      r.what = picture::verdict::undecodable;
      r.reason = "the picture ends too early";
      co_return r;
    }
    ++count_;
    r.what = picture::verdict::picture;
    r.facts.format = picture::file_format::png;
    r.facts.width = 3000;
    r.facts.height = 2000;
    r.facts.taken = std::string(said);
    r.facts.latitude = 45.764;
    r.facts.longitude = 4.8357;
    for (std::uint16_t size : {320, 640, 1280, 2048})
      for (auto type : {picture::image_type::webp, picture::image_type::jpeg})
        r.renditions.push_back({size, type, size, static_cast<std::uint16_t>(size * 2 / 3), share("rendition " + std::to_string(size) + std::string(said))});
    co_return r;
  }

 private:
  runtime& rt_;
  std::size_t& count_;
};

struct role {
  role(home& h, runtime& rt, std::size_t& count, gallery::worker::options o)
      : renderer(rt, count), work(rt, *h.rows, h.node->store(), h.node->tables(), h.node->directory(), h.node->id(), renderer, o) {}
  fake_renderer renderer;
  gallery::worker work;
};

struct village {
  explicit village(std::uint64_t seed, std::size_t homes = 3) : c(seed) {
    c.world().set_all_lines({.delay = 10ms});
    c.services[gallery::renders_service] = 1;
    c.beside = [this](std::size_t i, home& h, runtime& rt) -> std::shared_ptr<void> {
      gallery::worker::options o;
      auto r = std::make_shared<role>(h, rt, rendered[i], o);
      r->work.start();
      roles[i] = r;
      return r;
    };
    const char* zones[] = {"lyon", "paris", "brest", "nice"};
    for (std::size_t i = 0; i < homes; ++i) c.add({.zone = zones[i]});
    REQUIRE(c.form());
    REQUIRE(c.make_bucket(0, "photos"));
  }
  void make_gallery(std::size_t at, bool places = false) {
    REQUIRE(c.make_bucket(at, "photos-gallery"));
    auto& n = c.node(at);
    auto& rt = c.at(at).rt();
    store::call call{{std::nullopt, true}, rt.now() + 30s};
    REQUIRE(*c.world().await(c.at(at), n.store().change_bucket(call, "photos-gallery", [](model::bucket& b) -> result<void> {
      b.website = model::website{"index.html", "404.html"};
      b.gallery_pages = model::gallery_pages{"photos", false, {}};
      return {};
    })));
    REQUIRE(*c.world().await(c.at(at), n.store().change_bucket(call, "photos", [places](model::bucket& b) -> result<void> {
      b.gallery = model::gallery{"photos-gallery", "Holidays", places};
      return {};
    })));
  }
  std::optional<gallery::catalogue> root(std::size_t at) {
    auto raw = c.get(at, "photos-gallery", "c/root.json");
    if (!raw) return std::nullopt;
    auto r = gallery::catalogue_from_json(*raw);
    return r ? std::optional(std::move(*r)) : std::nullopt;
  }
  // Until every home's queue is empty.
  bool quiet(nanoseconds at_most = std::chrono::minutes(10)) {
    const mono_time until = c.world().now() + at_most;
    while (c.world().now() < until) {
      c.world().run_for(2s);
      bool empty = true, any = false;
      for (auto& [i, weak] : roles)
        if (auto r = weak.lock())
          for (auto& [name, s] : r->work.status()) any = true, empty &= s.waiting == 0 && s.standing_by == 0 && !s.looking;
      if (any && empty) return true;
    }
    return false;
  }
  std::set<std::string> keys(std::size_t at, const std::string& prefix) {
    std::set<std::string> out;
    auto l = c.list(at, "photos-gallery", prefix);
    REQUIRE(l);
    CHECK(!l->truncated);
    for (auto& i : l->items) out.insert(i.key);
    return out;
  }
  // Everything that a page of the gallery links to is there.
  void check_pages(std::size_t at) {
    auto all = keys(at, "");
    std::size_t links = 0;
    for (const auto& k : all) {
      if (!k.ends_with(".html")) continue;
      auto page = c.get(at, "photos-gallery", k);
      REQUIRE(page);
      for (std::size_t p = 0; (p = page->find("href=\"", p)) != bytes::npos;) {
        p += 6;
        std::string to = page->substr(p, page->find('"', p) - p);
        if (to.starts_with("#") || to.starts_with("http") || to.starts_with("data:")) continue;
        if (to.starts_with("/")) {  // of 404.html, which is shown anywhere
          CHECK(all.contains(to == "/" ? "index.html" : to.substr(1)));
          continue;
        }
        std::string base = k.substr(0, k.rfind('/') == std::string::npos ? 0 : k.rfind('/') + 1);
        to = to.substr(0, to.find('#'));
        while (to.starts_with("../")) {
          to.erase(0, 3);
          base.pop_back();
          base.erase(base.rfind('/') == std::string::npos ? 0 : base.rfind('/') + 1);
        }
        std::string key = base + to;
        if (key.starts_with("o/")) continue;
        CAPTURE(k);
        CAPTURE(to);
        CHECK(all.contains(key));
        ++links;
      }
    }
    CHECK(links > 0);
  }

  neighbourhood c;
  std::map<std::size_t, std::weak_ptr<role>> roles;
  std::map<std::size_t, std::size_t> rendered;
};

std::string id_of(const bytes& b) { return to_hex(crypto::digest(crypto::hash_kind::sha256, b)); }

}  // namespace

TEST_CASE("photos of before and after: each is in the gallery once, under all its names, and other files are left alone") {
  village v(31);
  auto a = photo("2024-07-14T10:11:12", 1), b = photo("2024-08-01T09:00:00", 2), twice = photo("2023-01-01T00:00:00", 3);
  REQUIRE(v.c.put(0, "photos", "summer/a.png", a));
  REQUIRE(v.c.put(1, "photos", "summer/twice.png", twice));
  REQUIRE(v.c.put(1, "photos", "winter/again.png", twice));
  REQUIRE(v.c.put(0, "photos", "notes.txt", "no picture"));
  REQUIRE(v.c.put(0, "photos", "broken.png", photo("broken", 9)));
  v.make_gallery(0);
  REQUIRE(v.quiet());
  REQUIRE(v.c.put(2, "photos", "b.png", b));
  v.c.world().run_for(3s);
  REQUIRE(v.quiet());
  auto root = v.root(1);
  REQUIRE(root);
  CHECK(root->photos == 3);
  CHECK(root->title == "Holidays");
  CHECK(v.keys(2, "i/") == std::set<std::string>{"i/" + id_of(a) + ".json", "i/" + id_of(b) + ".json", "i/" + id_of(twice) + ".json"});
  CHECK(v.keys(2, "t/" + id_of(b)).size() == 8);
  CHECK(v.keys(0, "f/").size() == 1);
  auto id = *gallery::photo_id::from_hex(id_of(twice));
  auto record = gallery::record_from_json(*v.c.get(0, "photos-gallery", gallery::record_key(id)), id);
  REQUIRE(record);
  CHECK(record->names.size() == 2);
  CHECK(!record->latitude);  // places are hidden
  std::size_t all = 0;
  for (auto& [i, n] : v.rendered) all += n;
  CHECK(all <= 4);  // the second name may be rendered before the first one is known
  v.check_pages(1);

  // One name gone, the photo stays; both gone, and nothing is left of it.
  REQUIRE(v.c.remove(0, "photos", "summer/twice.png"));
  v.c.world().run_for(3s);
  REQUIRE(v.quiet());
  CHECK(v.root(0)->photos == 3);
  REQUIRE(v.c.remove(1, "photos", "winter/again.png"));
  v.c.world().run_for(3s);
  REQUIRE(v.quiet());
  CHECK(v.root(0)->photos == 2);
  CHECK(v.keys(0, "i/").size() == 2);
  CHECK(v.keys(0, "t/" + id_of(twice)).empty());
  // Another picture under an old name.
  auto other = photo("2022-02-02T02:02:02", 7);
  REQUIRE(v.c.put(0, "photos", "b.png", other));
  v.c.world().run_for(3s);
  REQUIRE(v.quiet());
  CHECK(v.keys(0, "i/") == std::set<std::string>{"i/" + id_of(a) + ".json", "i/" + id_of(other) + ".json"});
  v.check_pages(2);
}

TEST_CASE("a home that dies while it works is replaced, and nothing is shown twice or lost") {
  for (std::uint64_t seed : {41, 42, 43}) {
    village v(seed);
    v.make_gallery(1);
    v.c.world().run_for(3s);
    std::set<std::string> ids;
    for (int i = 0; i < 24; ++i) {
      auto p = photo("2024-0" + std::to_string(1 + i % 9) + "-03T10:11:12", 100 + i, 30'000);
      ids.insert("i/" + id_of(p) + ".json");
      REQUIRE(v.c.put(static_cast<std::size_t>(i % 3), "photos", "dir" + std::to_string(i % 4) + "/p" + std::to_string(i) + ".png", p));
    }
    v.c.world().run_for(1500ms);
    v.c.crash(2, true);
    v.c.world().run_for(std::chrono::seconds(40 + seed % 3 * 10));
    // The other two did what was its part, also while it is dark.
    REQUIRE(v.quiet());
    CHECK(v.keys(0, "i/") == ids);
    v.c.start(2);
    REQUIRE(v.c.wait_ready(2));
    v.c.world().run_for(5s);
    REQUIRE(v.quiet());
    auto root = v.root(2);
    REQUIRE(root);
    CHECK(root->photos == ids.size());
    CHECK(v.keys(2, "i/") == ids);
    v.check_pages(2);
    std::size_t all = 0;
    for (auto& [i, n] : v.rendered) all += n;
    MESSAGE(ids.size(), " photos, rendered ", all, " times");
    CHECK(all <= ids.size() * 3 / 2);
  }
}
