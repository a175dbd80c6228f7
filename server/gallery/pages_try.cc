// pages_try: writes a gallery as a folder from photos' records, for tests and for looking at pages. Not installed.
// usage: pages_try OUT [--title T] [--bucket B] [--waiting N] [--count N] [--batch N] [--no-pages] < records
// records: lines of JSON as in i/<id>.json. Renditions are in OUT/t already; --count N makes as many photos of them, with days of their own.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "crypto/crypto.h"
#include "gallery/ui_assets.h"

using namespace grenier;
using namespace grenier::gallery;
namespace fs = std::filesystem;

namespace {

struct settings {
  fs::path out;
  change first;
  std::size_t count = 0, batch = 500;
  bool pages = true;  // else catalogue and records only
};

void write(const fs::path& to, bytes_view body) {
  fs::create_directories(to.parent_path());
  std::ofstream(to, std::ios::binary).write(body.data(), static_cast<std::streamsize>(body.size()));
}

std::optional<bytes> read(const fs::path& from) {
  std::ifstream f(from, std::ios::binary);
  if (!f) return std::nullopt;
  return bytes(std::istreambuf_iterator<char>(f), {});
}

class folder {
 public:
  explicit folder(fs::path out) : out_(std::move(out)) {}

  template <class F>
  auto until_read(F f) {
    shelf s;
    for (;;) {
      auto r = f(s);
      if (r || r.error() != errc::unavailable) return r;
      for (const std::string& key : s.take_wanted()) s.put(key, read(out_ / key));
    }
  }

  result<void> apply(const change& c) {
    TRY(plan p, until_read([&](shelf& s) { return make_plan(s, root_, c); }));
    for (const object& o : p.shards) write(out_ / o.key, o.body);
    root_ = p.root;
    write(out_ / root_key, to_json(root_));
    for (const object& o : p.records) write(out_ / o.key, o.body);
    for (const std::string& key : p.remove) fs::remove(out_ / key);
    return {};
  }

  result<std::size_t> pages() {
    for (const object& o : asset_objects()) write(out_ / o.key, o.body);
    TRY(const std::vector<page_id> all, until_read([&](shelf& s) { return all_pages(s, root_); }));
    std::size_t n = 0;
    for (std::size_t from = 0; from < all.size(); from += 200) {
      const std::span<const page_id> some(all.data() + from, std::min<std::size_t>(200, all.size() - from));
      TRY(written_pages w, until_read([&](shelf& s) { return write_pages(s, root_, some, asset_names()); }));
      for (const object& o : w.objects) write(out_ / o.key, o.body), ++n;
    }
    return n;
  }

 private:
  fs::path out_;
  catalogue root_;
};

// As many as asked for: the same pictures again, as photos of other days.
void multiply(std::vector<record>& photos, const settings& s) {
  const std::size_t real = photos.size();
  for (std::size_t i = real; real > 0 && i < s.count; ++i) {
    record r = photos[i % real];
    const photo_id first = r.id;
    r.id = *photo_id::from_bytes(crypto::digest(crypto::hash_kind::sha256, first.str() + std::to_string(i)));
    const std::size_t day = i / 7;
    char taken[32];
    std::snprintf(taken, sizeof taken, "%04zu-%02zu-%02zuT%02zu:%02zu:00", 2024 - day / 336, 12 - day / 28 % 12, 28 - day % 28, 8 + i % 7 * 2, i % 60);
    r.taken = taken;
    r.names = {{"copies/" + r.taken.substr(0, 7) + "/" + std::to_string(i) + ".jpg", r.names.front().size_bytes}};
    for (const char* kind : {"t/", "o/"}) {
      if (!s.pages) continue;
      const fs::path link = s.out / (kind + r.id.hex());
      if (!fs::exists(fs::symlink_status(link))) fs::create_directory_symlink(first.hex(), link);
    }
    photos.push_back(std::move(r));
  }
}

result<void> run(const settings& s) {
  std::vector<record> photos;
  for (std::string line; std::getline(std::cin, line);) {
    TRY(const auto j, parse_json(line));
    TRY(const photo_id id, photo_id::from_hex(j.value("id", "")));
    TRY(record r, record_from_json(line, id));
    photos.push_back(std::move(r));
  }
  multiply(photos, s);
  folder f(s.out);
  TRY_VOID(f.apply(s.first));
  for (std::size_t from = 0; from < photos.size(); from += s.batch) {
    change c;
    for (std::size_t i = from; i < std::min(photos.size(), from + s.batch); ++i) c.photos.push_back({{}, photos[i]});
    TRY_VOID(f.apply(c));
  }
  std::size_t n = 0;
  if (s.pages) {
    TRY(n, f.pages());
  }
  std::cout << photos.size() << " photos, " << n << " pages\n";
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  crypto::init();
  settings s;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
    if (a == "--title") s.first.title = value();
    else if (a == "--bucket") s.first.bucket = value();
    else if (a == "--waiting") s.first.waiting = std::stoull(value());
    else if (a == "--count") s.count = std::stoull(value());
    else if (a == "--batch") s.batch = std::clamp<std::size_t>(std::stoull(value()), 1, photos_per_change_max);
    else if (a == "--no-pages") s.pages = false;
    else if (a.starts_with("--") || !s.out.empty()) return std::cerr << "pages_try: what is " << a << "?\n", 2;
    else s.out = a;
  }
  if (s.out.empty()) return std::cerr << "usage: pages_try OUT [--title T] [--bucket B] [--waiting N] [--count N] [--batch N] [--no-pages] < records\n", 2;
  if (auto r = run(s); !r) return std::cerr << "pages_try: " << r.error().to_string() << "\n", 1;
  return 0;
}
