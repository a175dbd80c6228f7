#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <random>
#include <regex>

#include "gallery/fake_bucket_test.h"
#include "gallery/ui_assets.h"

using namespace grenier;
using namespace grenier::gallery;

namespace {

page_assets names() {
  page_assets a;
  a.style = "assets/s.css", a.early_script = "assets/e.js", a.script = "assets/g.js", a.icon = "assets/i.svg";
  a.licences = {{"<b> 1", "line 1\nline <2>"}};
  return a;
}

written_pages write(bucket& b, std::span<const page_id> pages) {
  auto w = b.with_shelf([&](shelf& s) { return write_pages(s, b.root(), pages, names()); });
  REQUIRE(w);
  return std::move(*w);
}

std::map<std::string, bytes> whole_site(bucket& b) {
  std::map<std::string, bytes> files;
  for (object& o : write(b, b.pages()).objects) CHECK(files.emplace(o.key, std::move(o.body)).second);
  return files;
}

std::vector<std::string> matches(const std::string& text, const char* pattern) {
  std::vector<std::string> found;
  const std::regex r(pattern);
  for (auto it = std::sregex_iterator(text.begin(), text.end(), r); it != std::sregex_iterator(); ++it) found.push_back((*it)[1]);
  return found;
}

std::string decoded(const std::string& s) {
  std::string t;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '%') t += (*from_hex(s.substr(i + 1, 2)))[0], i += 2;
    else t += s[i];
  }
  return t;
}

// "a/x/" and "../b" to "a/b"
std::string joined(std::string folder, std::string link) {
  while (link.starts_with("../")) {
    REQUIRE(!folder.empty());
    folder.pop_back();
    folder.resize(folder.rfind('/') == std::string::npos ? 0 : folder.rfind('/') + 1);
    link = link.substr(3);
  }
  return folder + link;
}

// Everything opened is closed, in order; good enough for what we write.
bool nests(const std::string& html) {
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z][a-z0-9]*)((?:[^<>\"]|\"[^\"]*\")*)>");
  for (auto it = std::sregex_iterator(html.begin(), html.end(), tag); it != std::sregex_iterator(); ++it) {
    const std::string name = (*it)[2], rest = (*it)[3];
    if (name == "meta" || name == "link" || name == "img" || name == "source" || rest.ends_with("/")) continue;
    if ((*it)[1].length() == 0) open.push_back(name);
    else if (open.empty() || open.back() != name) return false;
    else open.pop_back();
  }
  return open.empty();
}

bucket hostile_bucket() {
  bucket b;
  change c;
  c.title = "<script>alert(1)</script> & \"Co\"", c.bucket = "photos", c.waiting = 2;
  record r = photo(1, "2024-07-14T10:11:12", "a<b>/\"quoted\" & 'more'/../x\"><img src=y onerror=alert(1)>.jpg");
  r.make = "<make>", r.model = "<model>\"", r.lens = "</dd><script>";
  r.latitude = 45.764, r.longitude = -4.8;
  c.photos = {{{}, r}, {{}, photo(2, "2024-07-01T00:00:00", "é/ü.jpg")}, {{}, photo(3, "", "root.jpg")}, {{}, photo(4, "2023-01-01T00:00:00", "a<b>/index.html/z.jpg")}};
  b.apply(std::move(c));
  return b;
}

}  // namespace

TEST_CASE("every page is escaped, nests, and has its language, title, one heading, main part and skip link") {
  bucket b = hostile_bucket();
  for (const auto& [key, html] : whole_site(b)) {
    CAPTURE(key);
    CHECK(html.starts_with("<!doctype html>\n<html lang=\""));
    CHECK(html.find(key.ends_with(".fr.html") ? "<html lang=\"fr\">" : "<html lang=\"en\">") != std::string::npos);
    CHECK(nests(html));
    CHECK(matches(html, "(<h1>)").size() == 1);
    CHECK(html.find("<main id=\"main\"") != std::string::npos);
    CHECK(html.find("href=\"#main\"") != std::string::npos);
    CHECK(html.find("alert(1)</script>") == std::string::npos);
    CHECK(html.find("<make>") == std::string::npos);
    CHECK(html.find("<img src=y") == std::string::npos);
    // Nothing inline: pages are served with default-src 'none'.
    CHECK(matches(html, "( style=| on[a-z]+=\"|<style|<script>)").empty());
    CHECK(html.find("javascript:") == std::string::npos);
    for (const std::string& img : matches(html, "(<img [^>]*>)")) {
      CHECK(img.find(" alt=\"") != std::string::npos);
      CHECK(img.find(" width=\"") != std::string::npos);
      CHECK(img.find(" height=\"") != std::string::npos);
    }
  }
}

TEST_CASE("links are relative and lead to pages of the same language, or to objects that there are") {
  bucket b = hostile_bucket();
  const auto files = whole_site(b);
  const page_assets a = names();
  const std::set<std::string> assets = {a.style, a.early_script, a.script, a.icon};
  std::size_t followed = 0;
  std::set<std::string> reached;
  for (const auto& [key, html] : files) {
    if (key.starts_with("404")) continue;
    const std::string folder = key.substr(0, key.rfind('/') == std::string::npos ? 0 : key.rfind('/') + 1);
    for (const char* attribute : {" href=\"([^\"]*)\"", " src=\"([^\"]*)\""})
      for (const std::string& link : matches(html, attribute)) {
        if (link.starts_with('#')) continue;
        CAPTURE(key);
        CAPTURE(link);
        CHECK(link.find(':') == std::string::npos);
        CHECK(link.front() != '/');
        const std::string to = joined(folder, decoded(link));
        if (to.starts_with("o/")) continue;
        if (to.starts_with("t/")) {
          CHECK(to.size() > 70);
          continue;
        }
        CHECK((files.contains(to) || assets.contains(to)));
        if (files.contains(to) && to != key) reached.insert(to);
        ++followed;
      }
  }
  CHECK(followed > 100);
  for (const auto& [key, html] : files)
    if (!key.starts_with("404")) CHECK(reached.contains(key));
}

TEST_CASE("words are in the page's language") {
  bucket b = hostile_bucket();
  const auto files = whole_site(b);
  CHECK(files.at("index.html").find("2 photos are being prepared") != std::string::npos);
  CHECK(files.at("index.fr.html").find("2 photos sont en préparation") != std::string::npos);
  CHECK(files.at("m/2024-07/index.html").find("alt=\"Photo, 14 July 2024, 10:11\"") != std::string::npos);
  CHECK(files.at("m/2024-07/index.fr.html").find("alt=\"Photo du 14 juillet 2024 à 10:11\"") != std::string::npos);
  CHECK(files.at("m/2024-07/index.fr.html").find("1er juillet") != std::string::npos);
  CHECK(files.at("m/undated/index.fr.html").find("Sans date") != std::string::npos);
  const std::string& page = files.at(photo_folder(number_id(1)) + "index.fr.html");
  CHECK(page.find("1/250 s · f/8 · ISO 100") != std::string::npos);
  CHECK(page.find("45,7640° N ; 4,8000° O") != std::string::npos);
  CHECK(page.find("5 Mo") != std::string::npos);
  CHECK(month_text(language::english, "2024-02") == "February 2024");
  CHECK(month_text(language::french, "2024-08") == "Août 2024");
  CHECK(number_text(language::english, 1234567) == "1,234,567");
  CHECK(exposure_text(language::french, 0.5) == "0,5 s");
  CHECK(exposure_text(language::english, 0.004) == "1/250 s");
  CHECK(size_text(language::english, 12) == "1 kB");
  for (int w = 0; w <= static_cast<int>(word::photos_here); ++w)
    for (language l : languages) CHECK(!say(l, static_cast<word>(w)).empty());
}

TEST_CASE("text from outside is made harmless") {
  CHECK(escape("<a b='c'>\"&") == "&lt;a b=&#39;c&#39;&gt;&quot;&amp;");
  CHECK(escape("\xff\x01z\xc2\x85") == "\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd");
  CHECK(escape("é€😀") == "é€😀");
  CHECK(escape("\xed\xa0\x80") == "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  CHECK(encode_path("a b/é?#%:") == "a%20b/%C3%A9%3F%23%25%3A");
  CHECK(!parse_time("2024-07-14 10:11:12"));
  CHECK(!parse_time("2024-13-01T00:00:00"));
  CHECK(!parse_time("2024-07-1xT00:00:00"));
  CHECK(parse_time("2024-02-29T23:59:59"));
}

TEST_CASE("an empty gallery has its pages, and says how to begin") {
  bucket b;
  change c;
  c.bucket = "photos", c.title = "Empty";
  const plan p = b.apply(std::move(c));
  const auto made = write(b, p.pages).objects;
  std::set<std::string> files;
  for (const object& o : made) files.insert(o.key);
  for (std::string_view f : {"index.html", "index.fr.html", "a/index.html", "m/index.html", "about/index.html", "404.html"}) CHECK(files.contains(std::string(f)));
  CHECK(whole_site(b).at("index.html").find("aws s3 cp photo.jpg s3://photos/") != std::string::npos);
}

TEST_CASE("a month of many photos is in parts that lead to each other; parts that are no more are removed") {
  bucket b;
  std::vector<photo_change> changes;
  std::map<std::string, bytes> files;
  const auto apply = [&](std::vector<photo_change> c) {
    const plan p = b.apply(std::move(c));
    written_pages w = write(b, p.pages);
    for (object& o : w.objects) files[o.key] = std::move(o.body);
    for (const auto& list : {w.remove, p.remove})
      for (const std::string& key : list) files.erase(key);
  };
  std::mt19937 random(1);
  std::vector<record> all;
  for (int i = 0; i < 900; ++i) all.push_back(photo(i, fmt::format("2024-07-{:02}T{:02}:{:02}:00", 1 + random() % 28, random() % 24, random() % 60), fmt::format("x/{}.jpg", i)));
  for (std::size_t from = 0; from < all.size(); from += 30) {
    changes.clear();
    for (std::size_t i = from; i < from + 30; ++i) changes.push_back({{}, all[i]});
    apply(std::move(changes));
  }
  // What changes have left is what one would write anew.
  CHECK(files == whole_site(b));
  // From the first part on, all photos, newest first.
  std::vector<std::string> seen;
  std::string at = "m/2024-07/index.html";
  for (int parts = 0; !at.empty(); ++parts) {
    REQUIRE(parts < 20);
    const std::string& html = files.at(at);
    for (auto& id : matches(html, "<li[^>]*><a[^>]*/?p/([0-9a-f]{64})/")) seen.push_back(id);
    const auto next = matches(html, "rel=\"next\" href=\"([^\"]*)\"");
    at = next.empty() ? "" : joined(at.substr(0, at.rfind('/') + 1), next[0]);
  }
  CHECK(seen.size() == all.size());
  std::ranges::sort(all, [](const record& x, const record& y) { return std::pair(y.taken, x.id) < std::pair(x.taken, y.id); });
  for (std::size_t i = 0; i < all.size(); ++i) CHECK(seen[i] == all[i].id.hex());
  // And from a photo to the next.
  std::size_t steps = 0;
  for (std::string page = photo_folder(all[0].id) + "index.fr.html"; steps < 2000;) {
    const auto next = matches(files.at(page), "class=\"step next\" rel=\"next\" href=\"([^\"]*)\"");
    if (next.empty()) break;
    page = joined(page.substr(0, page.rfind('/') + 1), next[0]);
    ++steps;
  }
  CHECK(steps == all.size() - 1);
  std::ranges::shuffle(all, random);
  while (all.size() > 3) {
    changes.clear();
    for (int i = 0; i < 60 && all.size() > 3; ++i) changes.push_back({all.back(), {}}), all.pop_back();
    apply(std::move(changes));
  }
  CHECK(files == whole_site(b));
  CHECK(b.reachable_shards() == b.shards());
}

TEST_CASE("a plan's pages may be written from a newer root: what has gone is removed, not brought back") {
  bucket b;
  const record a = photo(1, "2024-07-14T10:00:00", "x/a.jpg"), c = photo(2, "2024-07-14T11:00:00", "y/b.jpg");
  const plan first = b.apply({{{}, a}, {{}, c}});
  b.objects[record_key(a.id)] = to_json(a);
  const std::vector<page_id> pages = first.pages;
  b.apply({{a, {}}});
  b.objects[record_key(a.id)] = to_json(a);  // its record is removed last
  const written_pages w = write(b, pages);
  for (const object& o : w.objects) {
    CHECK_FALSE(o.key.starts_with("a/x/"));
    CHECK_FALSE(o.key.starts_with(photo_folder(a.id)));
  }
  CHECK(std::ranges::count(w.remove, "a/x/index.html") == 1);
  CHECK(std::ranges::count(w.remove, photo_folder(a.id) + "index.fr.html") == 1);
}

TEST_CASE("the stylesheet has a class for every colour and ratio, and assets are named by what is in them") {
  std::string css;
  const page_assets a = asset_names();
  for (const object& o : asset_objects()) {
    CHECK(o.immutable);
    CHECK(o.key == "assets/" + to_hex(crypto::digest(crypto::hash_kind::sha256, o.body)).substr(0, 16) + o.key.substr(o.key.rfind('.')));
    if (o.key == a.style) css = o.body;
  }
  REQUIRE(!css.empty());
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    bytes hash(21, 0);
    for (char& ch : hash) ch = static_cast<char>(random());
    CHECK(css.find("." + colour_class(hash) + "{") != std::string::npos);
    CHECK(css.find("." + ratio_class(1 + random() % 6000, 1 + random() % 6000) + "{") != std::string::npos);
  }
  CHECK(colour_class("").empty());
}

TEST_CASE("the hundred-thousandth photo costs what the first thousand did") {
  bucket b;
  struct cost {
    std::size_t objects = 0, bytes = 0;
  };
  const auto taken = [](int i) {
    // 100 000 in twenty years, as they come: some 416 a month.
    const int month = i / 416, day = i % 416 * 28 / 416, minute = i % 15;
    return fmt::format("{:04}-{:02}-{:02}T10:{:02}:{:02}", 2004 + month / 12, 1 + month % 12, 1 + day, minute, i % 60);
  };
  const auto add = [&](int i) {
    cost c;
    const plan p = b.apply({{{}, photo(i, taken(i), fmt::format("{}/{}/IMG_{}.jpg", taken(i).substr(0, 4), taken(i).substr(5, 2), i))}});
    const auto count = [&](const object& o) { ++c.objects, c.bytes += o.body.size(); };
    for (const object& o : p.shards) count(o);
    for (const object& o : p.records) count(o);
    ++c.objects, c.bytes += to_json(p.root).size();
    for (const object& o : write(b, p.pages).objects) count(o);
    c.objects += p.remove.size();
    return c;
  };
  const auto thousand = [&](int from) {
    cost sum;
    for (int i = from; i < from + 1000; ++i) {
      const cost c = add(i);
      sum.objects += c.objects, sum.bytes += c.bytes;
      CHECK(c.objects < 64);
    }
    return sum;
  };
  const cost first = thousand(0);
  for (int i = 1000; i < 99'000; i += 1000) {
    std::vector<photo_change> many;
    for (int k = i; k < i + 1000; ++k) many.push_back({{}, photo(k, taken(k), fmt::format("{}/{}/IMG_{}.jpg", taken(k).substr(0, 4), taken(k).substr(5, 2), k))});
    b.apply(std::move(many));
  }
  const cost last = thousand(99'000);
  CHECK(b.root().photos == 100'000);
  MESSAGE("objects a photo: " << first.objects / 1000.0 << " in the first thousand, " << last.objects / 1000.0 << " in the hundredth");
  MESSAGE("kB a photo: " << first.bytes / 1e6 << " in the first thousand, " << last.bytes / 1e6 << " in the hundredth");
  CHECK(last.objects <= first.objects * 1.2);
  CHECK(last.bytes <= first.bytes * 1.2);
}
