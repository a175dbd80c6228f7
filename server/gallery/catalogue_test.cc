#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <fmt/format.h>
#include <random>

#include "crypto/crypto.h"
#include "gallery/catalogue.h"
#include "gallery/fake_bucket_test.h"
#include "gallery/text.h"

using namespace grenier;
using namespace grenier::gallery;
using nlohmann::json;

namespace {

record full_record() {
  record r = photo(7, "2024-07-14T10:11:12", "holidays/2024/a b.jpg");
  r.taken_offset_minutes = 120;
  r.make = "NIKON", r.model = "D5300", r.lens = "35mm f/1.8";
  r.iso = 200, r.exposure_s = 1.0 / 250, r.f_number = 2.8, r.focal_mm = 35;
  r.latitude = 45.764, r.longitude = 4.8357, r.altitude_m = 170;
  r.names.push_back({"b.jpg", 99});
  return *normalized(r);
}

std::vector<photo_id> timeline(bucket& b) {
  std::vector<photo_id> ids;
  std::map<photo_id, neighbours> links;
  for (const page_id& p : b.pages())
    if (p.kind == page_kind::photo) ids.push_back(p.photo);
  return ids;
}

}  // namespace

TEST_CASE("a record comes back as it was written") {
  const record r = full_record();
  auto back = record_from_json(to_json(r), r.id);
  REQUIRE(back);
  CHECK(*back == r);
  CHECK(month_of(r) == "2024-07");
  CHECK(albums_of(r) == std::vector<std::string>{"", "holidays/2024"});
  CHECK(item_of(r).sizes == 15);
  CHECK(record_from_json(to_json(r), number_id(8)).failed_with(errc::corrupt));
}

TEST_CASE("a record is bounded and made sound before it is kept") {
  record r = full_record();
  r.taken = "2023-02-29T00:00:00";
  r.make = std::string(129, 'x'), r.model = "a\x01", r.lens = "\xff";
  r.f_number = std::numeric_limits<double>::quiet_NaN();
  r.latitude = 91;
  r.thumbhash = "abc";
  r.renditions.push_back(r.renditions.front());
  r.names.push_back(r.names.front());
  auto n = normalized(r);
  REQUIRE(n);
  CHECK((n->taken.empty() && n->make.empty() && n->model.empty() && n->lens.empty() && !n->f_number && !n->latitude && !n->longitude && n->thumbhash.empty()));
  CHECK(n->renditions.size() == 8);
  CHECK(n->names.size() == 2);
  CHECK(month_of(*n) == "undated");
  record many = full_record();
  for (int i = 0; i < 1001; ++i) many.names.push_back({fmt::format("copy/{}", i), 1});
  CHECK(normalized(many).failed_with(errc::too_large));
  record none = full_record();
  none.names.clear();
  CHECK(normalized(none).failed_with(errc::invalid_argument));
  record foreign = full_record();
  foreign.names.push_back({"\xc3\x28", 1});
  CHECK(normalized(foreign).failed_with(errc::invalid_argument));
}

TEST_CASE("names of objects are safe in a file system and on a static host") {
  CHECK(album_folder("", 1) == "a/");
  CHECK(album_folder("holidays/2024", 1) == "a/holidays/2024/");
  CHECK(album_folder("holidays/2024", 3) == "a/holidays/2024/~3/");
  CHECK(album_list_folder("x", 2) == "a/x/~albums/2/");
  for (std::string_view bad : {"..", ".", "~3", "index.html", "a\\b", "\x01"}) {
    const std::string f = album_folder("x/" + std::string(bad), 1);
    CHECK(f.starts_with("a/x/~"));
    CHECK(f.size() == 5 + 24 + 1);
  }
  CHECK(album_folder(std::string(1000, 'a') + "/" + std::string(20, 'b'), 1).size() < 300);
  CHECK(month_folder("2024-07", 1) == "m/2024-07/");
  CHECK(month_folder("2024-07", 4) == "m/2024-07/4/");
}

TEST_CASE("a tree holds what a sorted map holds, through any changes, and a leaf keeps its page") {
  std::mt19937 random(5);
  const tree_limits small{8, 4};
  shelf s;
  tree_root root;
  std::map<std::string, int> model;
  std::map<std::string, std::uint32_t> page_of;  // as last seen
  std::size_t fetched_max = 0;
  std::map<std::string, bytes> store;
  for (std::uint64_t version = 1; version < 600; ++version) {
    s = {};
    std::vector<object> out;
    std::vector<std::string> former;
    const bool shrink = (version / 100) % 2 == 1;
    std::vector<std::pair<std::string, std::optional<int>>> edits;
    for (unsigned n = 1 + random() % 3; n > 0; --n) {
      const std::string key = fmt::format("{:04}", random() % 400);
      edits.emplace_back(key, random() % 10 < (shrink ? 3u : 8u) ? std::optional(static_cast<int>(random() % 1000)) : std::nullopt);
    }
    tree::finished f;
    for (int round = 0;; ++round) {
      REQUIRE(round < 40);
      tree t(s, root, small);
      out.clear(), former.clear();
      auto done = [&]() -> result<tree::finished> {
        for (auto& [k, v] : edits) {
          if (v) TRY_VOID(t.put(k, *v));
          else TRY_VOID(t.erase(k));
        }
        return t.finish("x", version, out, former);
      }();
      if (done) {
        f = *done;
        break;
      }
      REQUIRE(done.failed_with(errc::unavailable));
      const auto wanted = s.take_wanted();
      REQUIRE(!wanted.empty());
      fetched_max = std::max(fetched_max, wanted.size());
      for (const auto& k : wanted) s.put(k, store.contains(k) ? std::optional(store[k]) : std::nullopt);
    }
    for (auto& [k, v] : edits) {
      if (v) model[k] = *v;
      else model.erase(k);
    }
    for (auto& o : out) CHECK(store.emplace(o.key, o.body).second);  // never the name of another
    for (auto& name : former) CHECK(store.erase(shard_key(name)) == 1);
    root = f.root;
    CHECK(root.count() == model.size());
    // Walk it.
    for (auto& [k, v] : store) s.put(k, v);
    tree t(s, root, small);
    std::map<std::string, int> all;
    std::set<std::uint32_t> pages;
    std::optional<branch> last;
    std::string at;
    std::map<std::string, std::uint32_t> now;
    for (bool more = !model.empty(); more;) {
      auto v = t.leaf_at(at);
      REQUIRE((v && *v));
      CHECK(pages.insert((*v)->page).second);
      CHECK(((*v)->page == 1) == at.empty());
      CHECK((*v)->entries->size() <= small.leaf_max);
      for (const tree_entry& e : *(*v)->entries) all[e.key] = e.value.get<int>(), now[e.key] = (*v)->page;
      // Who did not have to be written again is as it was, with the same neighbours.
      if (!f.pages.contains((*v)->page))
        for (const tree_entry& e : *(*v)->entries) CHECK(page_of[e.key] == (*v)->page);
      more = (*v)->next.has_value();
      if (more) at = (*v)->next->first;
    }
    CHECK(all == model);
    CHECK(store.size() <= model.size() + 2);
    for (const auto& [k, p] : page_of)
      if (!pages.contains(p)) CHECK(f.pages.contains(p));  // so that it is removed
    page_of = now;
    for (int i = 0; i < 5; ++i) {
      const std::string key = fmt::format("{:04}", random() % 400);
      auto below = t.before(key), above = t.after(key);
      REQUIRE((below && above));
      auto it = model.lower_bound(key);
      CHECK(*below == (it == model.begin() ? std::nullopt : std::optional(std::prev(it)->first)));
      it = model.upper_bound(key);
      CHECK(*above == (it == model.end() ? std::nullopt : std::optional(it->first)));
    }
  }
  CHECK(fetched_max <= 16);
}

TEST_CASE("a photo added is in its month and its albums; removed it is nowhere; and counts are right") {
  bucket b;
  const record a = photo(1, "2024-07-14T10:00:00", "holidays/2024/a.jpg"), c = photo(2, "2024-06-01T10:00:00", "c.jpg"), d = photo(3, "", "holidays/d.png");
  b.apply({{{}, a}, {{}, c}, {{}, d}});
  CHECK(b.root().photos == 3);
  CHECK(b.objects.contains(record_key(a.id)));
  shelf s = b.full_shelf();
  auto july = find_month(s, b.root(), "2024-07");
  REQUIRE(july);
  CHECK(july->count() == 1);
  REQUIRE(july->preview.size() == 1);
  CHECK(july->preview[0].id == a.id);
  CHECK(july->preview[0].taken == a.taken);
  CHECK(find_month(s, b.root(), "2024-08").failed_with(errc::not_found));
  CHECK(find_month(s, b.root(), "undated")->count() == 1);
  CHECK(find_album(s, b.root(), "")->count == 3);
  CHECK(find_album(s, b.root(), "holidays")->count == 2);
  CHECK(find_album(s, b.root(), "holidays/2024")->count == 1);
  CHECK(find_album(s, b.root(), "holidays/2025").failed_with(errc::not_found));
  auto n = neighbours_of(s, b.root(), item_of(c));
  REQUIRE(n);
  CHECK(n->newer == a.id);
  CHECK(n->older == d.id);

  record renamed = a;
  renamed.names = {{"other/a.jpg", 1}};
  b.apply({{a, renamed}});
  s = b.full_shelf();
  CHECK(find_album(s, b.root(), "holidays/2024").failed_with(errc::not_found));
  CHECK(find_album(s, b.root(), "holidays")->count == 1);
  CHECK(find_album(s, b.root(), "other")->count == 1);
  CHECK(b.root().photos == 3);

  b.apply({{renamed, {}}, {c, {}}, {d, {}}});
  CHECK(b.root().photos == 0);
  CHECK(b.root().albums.empty());
  CHECK(!b.root().months.top);
  // Nothing is left but the root.
  CHECK(b.objects.size() == 1);
}

TEST_CASE("the same change made twice does no harm") {
  bucket b;
  const record a = photo(1, "2024-07-14T10:00:00", "x/a.jpg");
  b.apply({{{}, a}});
  const std::size_t objects = b.objects.size();
  const catalogue before = b.root();
  b.apply({{{}, a}});
  CHECK(b.objects.size() == objects);
  CHECK(b.root().photos == 1);
  CHECK(b.root().albums == before.albums);
  b.apply({{a, {}}});
  b.apply({{a, {}}});
  CHECK(b.root().photos == 0);
}

TEST_CASE("a change touches the photo's neighbours and the leaves beside a new one, and nothing else") {
  bucket b;
  std::vector<record> all;
  for (int i = 0; i < 30; ++i) all.push_back(photo(i, fmt::format("2024-07-{:02}T10:00:00", i + 1), "x/a.jpg"));
  for (int i = 0; i < 30; ++i)
    if (i != 15) b.apply({{{}, all[static_cast<std::size_t>(i)]}});
  const plan p = b.apply({{{}, all[15]}});
  std::set<photo_id> touched;
  std::size_t months = 0, albums = 0;
  for (const page_id& id : p.pages) {
    if (id.kind == page_kind::photo) touched.insert(id.photo);
    months += id.kind == page_kind::month, albums += id.kind == page_kind::album;
  }
  CHECK(touched == std::set<photo_id>{all[14].id, all[15].id, all[16].id});
  CHECK(months == 1);
  CHECK(albums == 2);
}

TEST_CASE("random changes: the catalogue is what the records say, and no shard is left over") {
  std::mt19937 random(11);
  bucket b;
  std::map<int, record> model;
  for (int step = 0; step < 120; ++step) {
    std::vector<photo_change> changes;
    std::set<int> chosen;
    for (int n = 0; n < 40; ++n) {
      const int i = static_cast<int>(random() % 900);
      if (!chosen.insert(i).second) continue;
      const auto it = model.find(i);
      if (it != model.end() && random() % 3 == 0) {
        changes.push_back({it->second, {}});
        model.erase(it);
      } else {
        const unsigned m = static_cast<unsigned>(i) % 5;  // few months, many photos each
        record r = photo(i, m == 4 ? "" : fmt::format("2024-{:02}-{:02}T10:11:12", m + 1, 1 + i % 28), fmt::format("f{}/g{}/{}.jpg", random() % 3, random() % 60, i));
        changes.push_back({it == model.end() ? std::nullopt : std::optional(it->second), r});
        model[i] = r;
      }
    }
    b.apply(std::move(changes));
  }
  CHECK(b.root().photos == model.size());
  shelf s = b.full_shelf();
  CHECK(timeline(b).size() == model.size());
  std::map<std::string, std::uint64_t> per_album, per_month;
  for (auto& [i, r] : model) {
    ++per_month[month_of(r)];
    const std::string path = albums_of(r)[0];
    ++per_album[path], ++per_album[path.substr(0, path.find('/'))], ++per_album[""];
  }
  for (auto& [path, n] : per_album) {
    auto a = find_album(s, b.root(), path);
    REQUIRE(a);
    CHECK(a->count == n);
  }
  for (auto& [m, n] : per_month) CHECK(find_month(s, b.root(), m)->count() == n);
  // In the timeline's order, previous and next fit.
  const auto order = timeline(b);
  std::map<photo_id, record> by_id;
  for (auto& [i, r] : model) by_id[r.id] = r;
  for (std::size_t i = 0; i < order.size(); i += 37) {
    auto n = neighbours_of(s, b.root(), item_of(by_id.at(order[i])));
    REQUIRE(n);
    CHECK(n->newer == (i == 0 ? std::nullopt : std::optional(order[i - 1])));
    CHECK(n->older == (i + 1 == order.size() ? std::nullopt : std::optional(order[i + 1])));
  }
  CHECK(b.reachable_shards() == b.shards());
}

TEST_CASE("whatever a client may have written over our objects is refused, not believed") {
  bucket b;
  std::vector<photo_change> changes;
  for (int i = 0; i < 300; ++i) changes.push_back({{}, photo(i, "2024-07-14T10:11:12", fmt::format("x/{}.jpg", i))});
  b.apply(std::move(changes));
  std::mt19937 random(3);
  // A shard is what its name says, or corrupt.
  const std::string first_shard = b.shards().begin()->c_str();
  shelf s = b.full_shelf();
  for (const std::string& key : b.shards()) {
    bytes broken = b.objects[key];
    broken[random() % broken.size()] = static_cast<char>(broken[0] ^ 1);
    shelf one = b.full_shelf();
    one.put(key, broken);
    const auto pages = all_pages(one, b.root());
    if (broken != b.objects[key]) CHECK(pages.failed_with(errc::corrupt));
  }
  shelf missing = b.full_shelf();
  missing.put(first_shard, std::nullopt);
  CHECK(all_pages(missing, b.root()).failed_with(errc::corrupt));
  // Any root and record parse, or fail cleanly; and what parses can be used.
  const bytes root = to_json(b.root()), rec = to_json(full_record());
  for (int i = 0; i < 4000; ++i) {
    bytes r = root, c = rec;
    for (unsigned n = 1 + random() % 4; n > 0; --n) {
      r[random() % r.size()] = static_cast<char>(random());
      c[random() % c.size()] = static_cast<char>(random());
    }
    if (auto parsed = catalogue_from_json(r)) (void)all_pages(s, *parsed);
    if (auto parsed = record_from_json(c, full_record().id)) CHECK(normalized(*parsed));
  }
  CHECK(catalogue_from_json(std::string(2'000'000, ' ')).failed_with(errc::corrupt));
  CHECK(catalogue_from_json(std::string(500'000, '[')).failed_with(errc::corrupt));
  CHECK(catalogue_from_json("{\"v\":1,\"months\":{\"pages\":0}}").failed_with(errc::corrupt));
  CHECK(parse_json(std::string(20, '[') + std::string(20, ']')).failed_with(errc::corrupt));
  CHECK(parse_json("{\"a\":[1,2]}"));
}

TEST_CASE("a shard that says something else than a tree of ours is refused") {
  bucket b;
  std::vector<object> made;
  const auto root_of = [&](json content, std::uint32_t level, const std::string& first, const std::string& last) {
    made.clear();
    tree_root t;
    t.top = branch{write_shard({{"l", level}, {"i", std::move(content)}}, "x", 1, made), level, 1, level == 0 ? 1u : 0u, first, last};
    return t;
  };
  const auto read = [&](const tree_root& t) {
    shelf s;
    for (auto& o : made) s.put(o.key, o.body);
    tree x(s, t, photo_limits);
    return x.leaf_at("").has_value();
  };
  CHECK(read(root_of(json::array({json::array({"a", 1})}), 0, "a", "a")));
  CHECK_FALSE(read(root_of(json::array(), 0, "a", "a")));
  CHECK_FALSE(read(root_of(json::array({json::array({"b", 1}), json::array({"a", 1})}), 0, "a", "b")));
  CHECK_FALSE(read(root_of(json::array({json::array({1, 1})}), 0, "a", "a")));
  CHECK_FALSE(read(root_of(json::array({json::array({"not a shard", 0, 1, 1, "a", "a"})}), 1, "a", "a")));
  CHECK_FALSE(read(root_of(json::array({json::array({std::string(64, 'a'), 5, 1, 1, "a", "a"})}), 1, "a", "a")));
  json deep = 1;
  for (int i = 0; i < 30; ++i) deep = json::array({deep});
  CHECK_FALSE(read(root_of(json::array({json::array({"a", deep})}), 0, "a", "a")));
}
