// gallery/fake_bucket_test.h: for tests: a bucket in memory, and photos by number.
#pragma once

#include <fmt/format.h>

#include "crypto/crypto.h"
#include "gallery/catalogue.h"

namespace grenier::gallery {

inline photo_id number_id(int n) { return *photo_id::from_bytes(crypto::digest(crypto::hash_kind::sha256, std::to_string(n))); }

inline record photo(int n, std::string taken, std::string key) {
  record r;
  r.id = number_id(n);
  r.format = "jpeg", r.width = 4032, r.height = 3024, r.taken = std::move(taken);
  r.make = "Canon", r.model = "EOS 70D", r.iso = 100, r.exposure_s = 0.004, r.f_number = 8, r.focal_mm = 24;
  r.thumbhash = crypto::digest(crypto::hash_kind::sha256, "t" + std::to_string(n)).substr(0, 21);
  for (auto size : rendition_sizes)
    for (bool jpeg : {false, true}) r.renditions.push_back({size, jpeg, size, static_cast<std::uint16_t>(size * 3 / 4), 10000});
  r.names = {{std::move(key), 5'000'000}};
  return *normalized(std::move(r));
}

class bucket {
 public:
  std::map<std::string, bytes> objects;
  std::size_t rounds_max = 0;

  const catalogue& root() const { return root_; }

  // Runs a function on a shelf until it has all that it asks for.
  template <class F>
  auto with_shelf(F f) {
    shelf s;
    for (std::size_t round = 1;; ++round) {
      auto r = f(s);
      rounds_max = std::max(rounds_max, round);
      if (r || r.error() != errc::unavailable || round > 100) return r;
      for (const std::string& key : s.take_wanted()) {
        const auto it = objects.find(key);
        s.put(key, it == objects.end() ? std::nullopt : std::optional(it->second));
      }
    }
  }

  // The plan carried out, without its pages.
  plan apply(change c) {
    auto p = with_shelf([&](shelf& s) { return make_plan(s, root_, c); });
    if (!p) throw std::runtime_error(p.error().to_string());
    for (const object& o : p->shards) objects[o.key] = o.body;
    root_ = p->root;
    objects[std::string(root_key)] = to_json(root_);
    root_ = *catalogue_from_json(objects[std::string(root_key)]);
    for (const object& o : p->records) objects[o.key] = o.body;
    for (const std::string& key : p->remove) objects.erase(key);
    return std::move(*p);
  }
  plan apply(std::vector<photo_change> photos) {
    change c;
    c.photos = std::move(photos);
    return apply(std::move(c));
  }

  shelf full_shelf() const {
    shelf s;
    for (const auto& [k, v] : objects) s.put(k, v);
    return s;
  }
  std::vector<page_id> pages() {
    auto p = with_shelf([&](shelf& s) { return all_pages(s, root_); });
    if (!p) throw std::runtime_error(p.error().to_string());
    return *p;
  }
  std::set<std::string> shards() const {
    std::set<std::string> s;
    for (const auto& [k, v] : objects)
      if (k.starts_with("c/") && k != root_key) s.insert(k);
    return s;
  }
  std::set<std::string> reachable_shards() {
    std::set<std::string> read;
    shelf s;
    for (;;) {
      auto r = all_pages(s, root_);
      if (r) return read;
      for (const std::string& key : s.take_wanted()) {
        read.insert(key);
        s.put(key, objects.contains(key) ? std::optional(objects[key]) : std::nullopt);
      }
    }
  }

 private:
  catalogue root_;
};

}  // namespace grenier::gallery
