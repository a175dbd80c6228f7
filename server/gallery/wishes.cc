#include "gallery/wishes.h"

#include <algorithm>

#include "gallery/objects.h"

namespace grenier::gallery {

namespace {

constexpr std::size_t waiting_max = 64, recent_max = 1000, asked_max = 3;
constexpr nanoseconds once_in = 2s, patience = 5s;
constexpr std::size_t digits = 2 * photo_id::size_bytes;

// Of "t/<id>/..." or "p/<id>/...".
std::optional<photo_id> photo_in(std::string_view key) {
  if ((!key.starts_with("t/") && !key.starts_with("p/")) || key.size() < 2 + digits + 2 || key[2 + digits] != '/') return std::nullopt;
  auto id = photo_id::from_hex(key.substr(2, digits));
  return id ? std::optional(*id) : std::nullopt;
}

}  // namespace

bytes to_bytes(const wish& w) { return bytes(1, w.check ? '\1' : '\0') + w.bucket.str() + w.photo.str() + w.key; }

std::optional<wish> wish_from(bytes_view b) {
  constexpr std::size_t head = 1 + bucket_id::size_bytes + photo_id::size_bytes;
  if (b.size() <= head || b.size() > head + 1024 || static_cast<unsigned char>(b[0]) > 1) return std::nullopt;
  auto bucket = bucket_id::from_bytes(b.substr(1, bucket_id::size_bytes));
  auto photo = photo_id::from_bytes(b.substr(1 + bucket_id::size_bytes, photo_id::size_bytes));
  if (!bucket || !photo) return std::nullopt;
  return wish{*bucket, *photo, b[0] == '\1', std::string(b.substr(head))};
}

std::vector<node_id> order_for(const table::replicated& t, const cluster::directory& d, const bucket_id& b, std::string_view work) {
  const auto& s = t.layout();
  if (s.partition_count() == 0) return {};
  const auto replicas = s.newest().replicas(t.partition_of(b.view()));
  return order_of(d, {replicas.begin(), replicas.end()}, work);
}

void wishes::looked_for(const model::bucket& pages, std::string_view key, bool there) {
  auto id = photo_in(key);
  if (!id || !pages.gallery_pages || waiting_.size() >= waiting_max) return;
  const mono_time now = rt_.now();
  std::erase_if(recent_, [&](const auto& r) { return r.second + once_in < now; });
  if (recent_.size() >= recent_max || !recent_.try_emplace({pages.name, *id}, now).second) return;
  waiting_.push_back({pages.name, pages.gallery_pages->source, *id, there ? std::string() : std::string(key)});
  if (std::exchange(running_, true)) return;
  group_.spawn("gallery wishes", run());
}

task<void> wishes::run() {
  while (!waiting_.empty()) {
    looked l = std::move(waiting_.front());
    waiting_.pop_front();
    co_await raise(std::move(l));
  }
  running_ = false;
}

task<void> wishes::raise(looked l) {
  const mono_time until = rt_.now() + patience;
  auto source = co_await store_.find_bucket(l.source, until);
  if (!source || !source->gallery || source->gallery->pages != l.pages) co_return;
  objects pages(rt_, group_, store_, l.pages);
  auto raw = co_await pages.read(record_key(l.photo));
  auto r = raw && *raw ? record_from_json((*raw)->body, l.photo) : result<record>(fail(errc::not_found));
  if (!r) co_return;  // nobody knows this photo
  const auto missing = missing_sizes(*r);
  wish w{source->id, l.photo, false, r->names.front().key};
  if (!l.missing.empty()) {
    const bool page = l.missing.starts_with("p/");
    const bool known = page || std::ranges::any_of(r->renditions, [&](const rendition_made& m) { return rendition_key(l.photo, m.size, m.jpeg) == l.missing; });
    const bool to_come = std::ranges::any_of(missing, [&](std::uint16_t s) { return l.missing == rendition_key(l.photo, s, true) || l.missing == rendition_key(l.photo, s, false); });
    if (!known && !to_come) co_return;  // there never will be such a thing
    w.check = known;
  } else if (missing.empty()) {
    co_return;  // it came meanwhile
  }
  std::size_t asked = 0;
  for (const auto& n : order_for(tables_, directory_, w.bucket, w.key)) {
    if (asked++ == asked_max) co_return;
    auto a = co_await endpoint_.call(n, wire::method::gallery_want, {to_bytes(w), nullptr}, {wire::priority::metadata, rt_.now() + patience});
    if (a && a->head == "1") co_return;
  }
}

task<void> wishes::stop() {
  group_.cancel();
  co_await group_.join();
}

}  // namespace grenier::gallery
