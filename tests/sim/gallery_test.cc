// Galleries made by whole homes in virtual time: every photo is there once, whichever home works, dies or comes back; pages lead everywhere.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "crypto/crypto.h"
#include "gallery/objects.h"
#include "gallery/queue.h"
#include "gallery/wishes.h"
#include "gallery/worker.h"
#include "sim/cluster.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

// A "picture" begins like a JPEG; the rest says what it is: a date, or "broken".
constexpr std::string_view jpeg = "\xff\xd8\xff\xe0JFIF";
bytes photo(const std::string& taken, int salt, std::size_t size = 100'000) {
  bytes b = bytes(jpeg) + taken + "#" + std::to_string(salt) + "#";
  for (std::uint64_t n = 0; b.size() < size; ++n) b += std::to_string(xxh3_64({}, static_cast<std::uint64_t>(salt) << 32 | n));
  return b;
}

class fake_renderer final : public picture::renderer {
 public:
  // work: what was rendered, each time; it outlives the home.
  fake_renderer(runtime& rt, std::size_t& count, std::multiset<bytes>& work) : rt_(rt), count_(count), work_(work) {}
  task<result<picture::rendered>> render(picture::source& s, picture::options wants) override {
    bytes all;
    for (;;) {
      CO_TRY(auto piece, co_await s.next());
      if (!piece || piece->empty()) break;
      all += *piece;
    }
    const bool small = wants.sizes.size() == 1 && wants.sizes[0].size == 320;
    co_await sleep_for(rt_, small ? 100ms : 300ms);
    picture::rendered r;
    const auto said = bytes_view(all).substr(jpeg.size(), bytes_view(all).find('#') - jpeg.size());
    if (said == "broken") {
      r.what = picture::verdict::undecodable;
      r.reason = "the picture ends too early";
      co_return r;
    }
    count_ += !small;
    work_.insert(crypto::digest(crypto::hash_kind::sha256, all) + (small ? "small" : "large"));
    r.what = picture::verdict::picture;
    r.facts.format = picture::file_format::jpeg;
    r.facts.width = 3000;
    r.facts.height = 2000;
    r.facts.taken = std::string(said);
    r.facts.latitude = 45.764;
    r.facts.longitude = 4.8357;
    for (const auto& w : wants.sizes)
      for (auto type : {picture::image_type::webp, picture::image_type::jpeg})
        r.renditions.push_back({w.size, type, w.size, static_cast<std::uint16_t>(w.size * 2 / 3), share("rendition " + std::to_string(w.size) + std::string(said))});
    co_return r;
  }

 private:
  runtime& rt_;
  std::size_t& count_;
  std::multiset<bytes>& work_;
};

struct role {
  role(home& h, runtime& rt, std::size_t& count, std::multiset<bytes>& work, gallery::worker::options o)
      : renderer(rt, count, work), work(rt, *h.rows, h.node->store(), h.node->tables(), h.node->directory(), h.node->wire(), renderer, o),
        wishes(rt, h.node->store(), h.node->tables(), h.node->directory(), h.node->wire()) {}
  fake_renderer renderer;
  gallery::worker work;
  gallery::wishes wishes;
};

struct village {
  explicit village(std::uint64_t seed, std::size_t homes = 3) : c(seed) {
    c.world().set_all_lines({.delay = 10ms});
    c.services[gallery::thumb_hub] = 1;
    c.beside = [this](std::size_t i, home& h, runtime& rt) -> std::shared_ptr<void> {
      gallery::worker::options o;
      o.twice_from = 0;
      auto r = std::make_shared<role>(h, rt, rendered[i], work[i], o);
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
          for (auto& [name, s] : r->work.status()) any = true, empty &= s.waiting == 0 && s.completing == 0 && s.standing_by == 0 && !s.looking;
      if (any && empty) return true;
    }
    return false;
  }
  bool there(std::size_t at, const std::string& key) { return c.get(at, "photos-gallery", key).has_value(); }
  void visit(std::size_t at, const std::string& key, bool found = false) {
    auto& rt = c.at(at).rt();
    auto pages = *c.world().await(c.at(at), c.node(at).store().find_bucket("photos-gallery", rt.now() + 10s));
    REQUIRE(pages);
    roles[at].lock()->wishes.looked_for(*pages, key, found);
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
  std::map<std::size_t, std::multiset<bytes>> work;  // by home: photos, small or large
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
    const auto by_it = v.work[2];
    v.c.crash(2, true);
    v.c.world().run_for(std::chrono::seconds(40 + seed % 3 * 10));
    // The other two did what was its part, also while it is dark.
    REQUIRE(v.quiet());
    CHECK(v.keys(0, "i/") == ids);
    // And once: those that stayed did hardly a piece of work both, or twice, and hardly anything again that the home that died had done.
    std::size_t by_the_others = 0, again = 0;
    std::set<bytes> distinct;
    for (std::size_t i : {0, 1})
      for (const auto& id : v.work[i]) {
        ++by_the_others;
        distinct.insert(id);
        again += by_it.contains(id);
      }
    MESSAGE(by_it.size(), " by the home that died, ", by_the_others, " by the others, of which ", by_the_others - distinct.size(), " twice and ", again, " once more");
    CHECK(by_it.size() + by_the_others >= 2 * ids.size());
    CHECK(by_the_others - distinct.size() <= 4);
    CHECK(again <= 6);  // what it had rendered and not published
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

TEST_CASE("smallest sizes of all come before larger ones of any; what a visitor looks at is next, whichever home works on it") {
  village v(51);
  v.make_gallery(0);
  v.c.world().run_for(3s);
  std::vector<std::string> ids;
  for (int i = 0; i < 24; ++i) {
    auto p = photo("2024-05-03T10:11:" + std::to_string(10 + i), 200 + i, 20'000);
    ids.push_back(id_of(p));
    REQUIRE(v.c.put(0, "photos", "p" + std::to_string(i) + ".jpg", p));
  }
  auto count = [&](const char* file) { return std::count_if(ids.begin(), ids.end(), [&](const std::string& id) { return v.there(1, "t/" + id + file); }); };
  for (int i = 0; i < 600 && count("/320.webp") < 24; ++i) v.c.world().run_for(50ms);
  REQUIRE(count("/320.webp") == 24);
  const auto whole = count("/2048.jpg");
  MESSAGE(whole, " of 24 are whole when the last one can be seen small");
  CHECK(whole <= 12);
  // Those that are not are the last in every queue, until somebody opens one.
  std::vector<std::string> open;
  for (const auto& id : ids)
    if (!v.there(1, "t/" + id + "/2048.jpg")) open.push_back(id);
  REQUIRE(open.size() > 6);
  const std::string wanted = open.back();
  v.visit(2, "t/" + wanted + "/1280.webp");
  std::size_t before = 0;
  for (int i = 0; i < 200 && !v.there(1, "t/" + wanted + "/2048.jpg"); ++i) v.c.world().run_for(50ms);
  for (const auto& id : open) before += id != wanted && v.there(1, "t/" + id + "/2048.jpg");
  MESSAGE(before, " of ", open.size(), " others came before it");
  CHECK(v.there(1, "t/" + wanted + "/2048.jpg"));
  CHECK(before <= 6);  // those that were under way, two at each home
  REQUIRE(v.quiet());
  CHECK(count("/2048.jpg") == 24);
  for (const auto& id : ids) {
    auto r = gallery::record_from_json(*v.c.get(1, "photos-gallery", "i/" + id + ".json"), *gallery::photo_id::from_hex(id));
    REQUIRE(r);
    CHECK(gallery::missing_sizes(*r).empty());
    CHECK(v.c.get(2, "photos-gallery", "p/" + id + "/index.html")->find("2048.webp") != bytes::npos);
  }
  std::size_t all = 0;
  for (auto& [i, n] : v.rendered) all += n;
  CHECK(all <= 30);
  // What is not asked for properly changes nothing.
  v.visit(2, "t/" + ids[0] + "/333.webp");
  v.visit(2, "t/" + std::string(64, 'a') + "/320.webp");
  v.visit(2, "t/../../x");
  v.visit(2, "p/" + ids[0] + "/index.html", true);
  v.c.world().run_for(5s);
  REQUIRE(v.quiet());
}

TEST_CASE("power lost between the smallest size and the others: they come all the same") {
  for (const bool alone : {true, false}) {
    CAPTURE(alone);
    village v(61, alone ? 1 : 3);
    v.make_gallery(0);
    v.c.world().run_for(3s);
    auto p = photo("2024-05-03T10:11:12", 7);
    REQUIRE(v.c.put(0, "photos", "p.jpg", p));
    const std::string id = id_of(p);
    for (int i = 0; i < 1000 && !v.there(0, "i/" + id + ".json"); ++i) v.c.world().run_for(10ms);
    REQUIRE(v.there(0, "i/" + id + ".json"));
    CHECK(!v.there(0, "t/" + id + "/640.webp"));
    if (alone) {
      v.c.crash(0, true);
      v.c.world().run_for(2s);
      v.c.start(0);
      REQUIRE(v.c.wait_ready(0));
    } else {
      // Whoever does it goes for good; the others do not know where it stopped but from its note.
      std::size_t worker = 0;
      for (std::size_t i = 0; i < 3; ++i)
        if (auto r = v.roles[i].lock())
          if (auto s = r->work.status()["photos"]; s.rendered > 0) worker = i;
      v.c.crash(worker, true);
      v.c.world().run_for(20s);
    }
    REQUIRE(v.quiet());
    std::size_t at = 0;
    while (!v.c.ready(at)) ++at;
    CHECK(v.keys(at, "t/" + id).size() == 8);
    auto r = gallery::record_from_json(*v.c.get(at, "photos-gallery", "i/" + id + ".json"), *gallery::photo_id::from_hex(id));
    REQUIRE(r);
    CHECK(gallery::missing_sizes(*r).empty());
    CHECK(v.root(at)->photos == 1);
  }
}

TEST_CASE("small pictures and pages that are lost are made again: when a visitor misses them, and by a slow look at all") {
  village v(71);
  v.make_gallery(0);
  v.c.world().run_for(3s);
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) {
    auto p = photo("2024-05-03T10:11:1" + std::to_string(i), 300 + i);
    ids.push_back(id_of(p));
    REQUIRE(v.c.put(0, "photos", "p" + std::to_string(i) + ".jpg", p));
  }
  REQUIRE(v.quiet());
  const auto all = v.keys(0, "");
  for (const auto& key : {"t/" + ids[0] + "/640.webp", "t/" + ids[0] + "/320.jpg", "p/" + ids[0] + "/index.html"}) REQUIRE(v.c.remove(0, "photos-gallery", key));
  v.visit(1, "t/" + ids[0] + "/640.webp");
  v.c.world().run_for(5s);
  REQUIRE(v.quiet());
  CHECK(v.keys(0, "") == all);
  // All of a photo's, and nobody looks: within a few minutes.
  for (const auto& key : v.keys(0, "t/" + ids[3])) REQUIRE(v.c.remove(0, "photos-gallery", key));
  REQUIRE(v.c.remove(0, "photos-gallery", "t/" + ids[4] + "/2048.jpg"));
  v.c.world().run_for(150s);
  REQUIRE(v.quiet());
  CHECK(v.keys(0, "") == all);
  std::uint64_t restored = 0;
  for (auto& [i, weak] : v.roles)
    if (auto r = weak.lock()) restored += r->work.status()["photos"].restored;
  CHECK(restored == 12);
  v.check_pages(2);
}

TEST_CASE("photos whose records are lost are there again when somebody asks for a new look") {
  village v(72);
  v.make_gallery(0);
  v.c.world().run_for(3s);
  std::vector<std::string> ids;
  for (int i = 0; i < 4; ++i) {
    auto p = photo("2024-05-04T10:11:1" + std::to_string(i), 400 + i);
    ids.push_back(id_of(p));
    REQUIRE(v.c.put(0, "photos", "p" + std::to_string(i) + ".jpg", p));
  }
  REQUIRE(v.quiet());
  auto files = [&] {
    std::set<std::string> all;
    for (const auto& prefix : {"i/", "t/", "p/"}) all.merge(v.keys(0, prefix));
    return all;
  };
  const auto all = files();
  REQUIRE(v.c.remove(0, "photos-gallery", "i/" + ids[1] + ".json"));
  for (const auto& prefix : {"i/", "t/", "p/"})
    for (const auto& key : v.keys(0, prefix + ids[2])) REQUIRE(v.c.remove(0, "photos-gallery", key));
  auto r = v.roles.at(1).lock();
  REQUIRE(r);
  auto asked = v.c.world().await(v.c.at(1), r->work.look_again("photos"));
  REQUIRE(asked);
  REQUIRE(*asked);
  v.c.world().run_for(5s);
  REQUIRE(v.quiet());
  CHECK(files() == all);
  CHECK(v.root(0)->photos == 4);
  v.check_pages(2);
}

TEST_CASE("the start page says that nothing is being prepared when nothing is") {
  village v(74);
  v.make_gallery(0);
  v.c.world().run_for(3s);
  REQUIRE(v.c.put(0, "photos", "a.jpg", photo("2024-05-06T10:11:12", 600)));
  for (int i = 0; i < 30; ++i) REQUIRE(v.c.put(0, "photos", "text" + std::to_string(i) + ".txt", "no picture " + std::to_string(i)));
  v.c.world().run_for(5s);
  REQUIRE(v.quiet());
  v.c.world().run_for(5s);
  REQUIRE(v.root(0));
  CHECK(v.root(0)->photos == 1);
  CHECK(v.root(0)->waiting == 0);
}

TEST_CASE("a photo that gets a new name while its last one goes stays") {
  village v(73);
  v.make_gallery(0);
  v.c.world().run_for(3s);
  for (int i = 0; i < 8; ++i) {
    const auto p = photo("2024-05-05T10:11:1" + std::to_string(i), 500 + i);
    const auto n = std::to_string(i);
    REQUIRE(v.c.put(0, "photos", "old" + n + ".jpg", p));
    REQUIRE(v.quiet());
    REQUIRE(v.c.remove(0, "photos", "old" + n + ".jpg"));
    v.c.world().run_for(i * 25ms);
    REQUIRE(v.c.put(1, "photos", "new" + n + ".jpg", p));
    REQUIRE(v.quiet());
    CAPTURE(i);
    CHECK(v.keys(0, "i/" + id_of(p)).size() == 1);
    CHECK(v.keys(0, "p/" + id_of(p)).size() == 2);
    CHECK_FALSE(v.keys(0, "t/" + id_of(p)).empty());
  }
  v.check_pages(2);
}

TEST_CASE("a gallery that was removed and made again at once has all its photos again") {
  village v(81);
  v.make_gallery(0);
  for (int i = 0; i < 4; ++i) REQUIRE(v.c.put(0, "photos", "p" + std::to_string(i) + ".jpg", photo("2024-05-03T10:11:1" + std::to_string(i), 400 + i)));
  v.c.world().run_for(3s);
  REQUIRE(v.quiet());
  REQUIRE(v.root(0)->photos == 4);
  // One home hears of neither: it sleeps.
  v.c.crash(2);
  auto& n = v.c.node(0);
  auto& rt = v.c.at(0).rt();
  store::call call{{std::nullopt, true}, rt.now() + 60s};
  REQUIRE(*v.c.world().await(v.c.at(0), n.store().change_bucket(call, "photos", [](model::bucket& b) -> result<void> {
    b.gallery.reset();
    return {};
  })));
  v.c.world().run_for(100ms);
  for (const auto& k : v.keys(0, "")) REQUIRE(v.c.remove(0, "photos-gallery", k));
  call.deadline = rt.now() + 60s;
  REQUIRE(*v.c.world().await(v.c.at(0), n.store().delete_bucket(call, "photos-gallery")));
  v.make_gallery(0);
  v.c.start(2);
  REQUIRE(v.c.wait_ready(2));
  v.c.world().run_for(10s);
  REQUIRE(v.quiet());
  CHECK(v.root(0)->photos == 4);
  v.check_pages(0);
}

TEST_CASE("rows of a queue from before sizes were made one after the other are read, and written anew in the new form") {
  neighbourhood c(91);
  kv::store* rows = nullptr;
  c.beside = [&rows](std::size_t, home& at, runtime&) { return rows = at.rows.get(), std::shared_ptr<void>(); };
  c.add({.zone = "lyon"});
  REQUIRE(c.form());
  REQUIRE(rows);
  auto& h = c.at(0);
  auto& kv = *rows;
  const auto bucket = *bucket_id::from_bytes(bytes(bucket_id::size_bytes, 'b'));
  const bytes row = "gallery/j/" + bucket.str() + "old.jpg";
  bytes value;
  for (std::uint64_t n : {1000, 2000, 3, 0}) append_u64(value, n);
  REQUIRE(value.size() == 32);
  kv::batch b;
  b.put(kv::family::task_queue, row, value);
  b.put(kv::family::task_queue, "gallery/j/" + bucket.str() + "odd.jpg", value.substr(1));  // of no form at all: left alone
  REQUIRE(*c.world().await(h, kv.commit(std::move(b))));
  gallery::queue q(h.rt(), kv);
  REQUIRE(*c.world().await(h, q.open()));
  CHECK(q.of(bucket).waiting == 1);
  auto j = c.world().await(h, q.take([] { return true; }));
  REQUIRE(j);
  CHECK(j->key == "old.jpg");
  CHECK(j->since_ms == 1000);
  CHECK(j->due_ms == 2000);
  CHECK(j->attempts == 3);
  CHECK(!j->rest);
  CHECK(!j->check);
  REQUIRE(c.world().await(h, [](gallery::queue& to, gallery::job what) -> task<bool> {
    co_await to.turn_to_rest(std::move(what));
    co_return true;
  }(q, *j)));
  CHECK(q.of(bucket).waiting == 0);
  CHECK(q.of(bucket).rests == 1);
  auto raw = *c.world().await(h, kv.get(kv::family::task_queue, row));
  REQUIRE(raw);
  CHECK((*raw)->size() == 40);
}
