#include "admin/galleries.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "crypto/crypto.h"
#include "gallery/html.h"

namespace grenier::admin {

using nlohmann::json;

namespace {

constexpr std::size_t title_max = 200, links_max = 1000, link_name_max = 100;
constexpr std::uint64_t piece_max = 4 << 20;

std::string text(const json& j, const char* name) {
  auto at = j.find(name);
  return at != j.end() && at->is_string() ? at->get<std::string>() : std::string();
}
std::optional<bool> flag(const json& j, const char* name) {
  auto at = j.find(name);
  return at != j.end() && at->is_boolean() ? std::optional(at->get<bool>()) : std::nullopt;
}
std::uint64_t number(const json& j, const char* name) {
  auto at = j.find(name);
  return at != j.end() && at->is_number_unsigned() ? at->get<std::uint64_t>() : 0;
}

result<void> check_title(const std::string& t) {
  if (t.empty() || t.size() > title_max || !gallery::is_utf8(t)) return fail(errc::invalid_argument, "a title has 1 to 200 bytes of UTF-8");
  for (char c : t)
    if (static_cast<unsigned char>(c) < 0x20) return fail(errc::invalid_argument, "a title is one line");
  return {};
}

json gallery_json(const model::bucket& source, const model::bucket* pages, const std::string& address) {
  json j = {{"bucket", source.name}, {"title", source.gallery->title}, {"pages_bucket", source.gallery->pages}, {"show_places", source.gallery->show_places}, {"address", address}};
  if (pages && pages->gallery_pages) {
    j["private"] = pages->gallery_pages->is_private;
    j["links"] = pages->gallery_pages->links.size();
    j["domains"] = pages->aliases;
  }
  return j;
}

}  // namespace

task<void> galleries::stop() {
  group_.cancel();
  co_await group_.join();
}

std::string galleries::address_of(const model::bucket& pages) const { return site_(pages.aliases.empty() ? pages.name : pages.aliases.front()); }

task<result<std::optional<model::bucket>>> galleries::pages_of(const model::bucket& source) {
  auto b = co_await node_.store().find_bucket(source.gallery->pages, rt_.now() + 10s);
  if (b.failed_with(errc::no_such_bucket)) co_return std::optional<model::bucket>();
  if (!b) co_return fail(b.error());
  co_return std::optional(std::move(*b));
}

task<result<json>> galleries::run(std::string what, json in) {
  auto& s = node_.store();
  if (what == "list") {
    json all = json::array();
    for (const auto& b : s.list_buckets({std::nullopt, true})) {
      if (!b.gallery) continue;
      CO_TRY(auto pages, co_await pages_of(b));
      all.push_back(gallery_json(b, pages ? &*pages : nullptr, pages ? address_of(*pages) : std::string()));
    }
    co_return json{{"galleries", all}};
  }
  if (what == "roles") co_return roles();
  const std::string bucket = text(in, "bucket");
  if (what == "create") co_return co_await create(bucket, in);
  CO_TRY(auto source, co_await s.find_bucket(bucket, rt_.now() + 10s));
  if (!source.gallery) co_return fail(errc::not_found, "the bucket " + bucket + " has no gallery; 'storagectl gallery create " + bucket + "' makes one");
  if (what == "set") co_return co_await set(std::move(source), in);
  if (what == "status") co_return co_await status(std::move(source));
  if (what == "delete") co_return co_await remove(std::move(source));
  if (what == "again") {
    if (!worker_) co_return fail(errc::unavailable, "this home renders no pictures");
    CO_TRY_VOID(co_await worker_->look_again(bucket));
    gallery::objects pages(rt_, group_, s, source.gallery->pages);
    gallery::publisher p(rt_, pages);
    CO_TRY_VOID(co_await p.write_all_pages());
    co_return json{{"bucket", bucket}, {"started", true}};
  }
  if (what == "failures") {
    if (!worker_) co_return fail(errc::unavailable, "this home renders no pictures");
    CO_TRY(auto all, co_await worker_->failures(source.gallery->pages, 1000));
    json out = json::array();
    for (const auto& f : all) out.push_back({{"key", f.key}, {"reason", f.reason}});
    co_return json{{"bucket", bucket}, {"failures", out}};
  }
  if (what.starts_with("link/")) co_return co_await link(what.substr(5), std::move(source), in);
  if (what == "files") co_return co_await files(std::move(source), in);
  if (what == "read") {
    const std::string key = text(in, "key");
    if (gallery::is_private_key(key)) co_return fail(errc::no_such_key, "not a file of the gallery");
    co_return co_await read(source.gallery->pages, key, number(in, "offset"));
  }
  if (what == "original") co_return co_await read(bucket, text(in, "key"), number(in, "offset"));
  co_return fail(errc::not_implemented, "no such gallery command: " + what);
}

json galleries::roles() const {
  json all = json::array();
  for (const auto& o : gallery::offers(node_.directory())) {
    json j = {{"zone", o.zone}, {"node", o.node.hex()}, {"role", o.role}, {"self", o.self}, {"up", o.up}, {"load", o.load}};
    if (!o.self && o.rtt.count() > 0) j["rtt_ms"] = static_cast<double>(o.rtt.count()) / 1e6;
    if (o.throughput > 0) j["throughput"] = o.throughput;
    if (o.photos_per_minute > 0) j["photos_per_minute"] = o.photos_per_minute;
    all.push_back(std::move(j));
  }
  return json{{"roles", std::move(all)}};
}

task<result<json>> galleries::create(std::string bucket, const json& in) {
  auto& s = node_.store();
  CO_TRY(auto source, co_await s.find_bucket(bucket, rt_.now() + 10s));
  if (source.gallery) co_return fail(errc::already_exists, "the bucket " + bucket + " has a gallery already; 'storagectl gallery set' changes it");
  if (source.gallery_pages) co_return fail(errc::invalid_argument, bucket + " holds the pages of the gallery of " + source.gallery_pages->source);
  model::gallery g{gallery::pages_bucket_of(source.name), text(in, "title").empty() ? source.name : text(in, "title"), flag(in, "show_places").value_or(false)};
  CO_TRY_VOID(check_title(g.title));
  auto made = co_await s.create_bucket(as_admin(), g.pages, source.region);
  if (!made) {
    // Of an attempt that was cut off, it is taken up again; a bucket of somebody's is left alone.
    auto there = co_await s.find_bucket(g.pages, rt_.now() + 10s);
    if (!there || !(co_await is_left_over(*there, source)))
      co_return fail(made.error().code, "the gallery's pages would go to the bucket " + g.pages + ": " + made.error().detail);
  }
  const std::string domain = text(in, "domain");
  auto with_pages = [&source, domain, is_private = flag(in, "private").value_or(false)](model::bucket& b) -> result<void> {
    b.owner_id = source.owner_id;
    b.owner_name = source.owner_name;
    // Who may read the photos may read this. Nobody but the owner writes here: what stands in a record decides which originals are shown.
    b.allowed.clear();
    for (const auto& [key, p] : source.allowed)
      if (p.read) b.allowed[key].read = true;
    b.website = model::website{"index.html", "404.html"};
    if (!b.gallery_pages) b.gallery_pages.emplace();
    b.gallery_pages->source = source.name;
    b.gallery_pages->is_private = is_private;
    if (!domain.empty() && std::find(b.aliases.begin(), b.aliases.end(), domain) == b.aliases.end()) b.aliases.push_back(domain);
    return {};
  };
  auto pages = co_await s.change_bucket(as_admin(), g.pages, with_pages);
  if (!pages) co_return fail(pages.error());
  auto with_gallery = [g](model::bucket& b) -> result<void> {
    b.gallery = g;
    return {};
  };
  CO_TRY(source, co_await s.change_bucket(as_admin(), bucket, with_gallery));
  CO_TRY_VOID(co_await publish_settings(source));
  co_return gallery_json(source, &*pages, address_of(*pages));
}

// Made by a create that was cut off before it said whose pages these are, or after.
task<bool> galleries::is_left_over(model::bucket b, const model::bucket& source) {
  if (b.gallery_pages) co_return b.gallery_pages->source == source.name;
  if (!b.owner_id.empty() || !b.allowed.empty() || b.website || b.gallery || !b.aliases.empty()) co_return false;
  store::list_request q;
  q.bucket = b.name;
  q.entries_max = 1;
  auto any = co_await node_.store().list(as_admin(), std::move(q));
  co_return any && any->items.empty();
}

// The title is on every page.
task<result<void>> galleries::publish_settings(const model::bucket& source) {
  gallery::objects pages(rt_, group_, node_.store(), source.gallery->pages);
  gallery::publisher p(rt_, pages);
  CO_TRY_VOID(co_await p.publish({}, source.gallery->title, source.name, 0));
  co_return result<void>();
}

task<result<json>> galleries::set(model::bucket source, const json& in) {
  auto& s = node_.store();
  model::gallery g = *source.gallery;
  if (!text(in, "title").empty()) g.title = text(in, "title");
  CO_TRY_VOID(check_title(g.title));
  if (auto v = flag(in, "show_places")) g.show_places = *v;
  const std::string domain = text(in, "domain"), no_domain = text(in, "no_domain");
  auto change_pages = [is_private = flag(in, "private"), domain, no_domain](model::bucket& b) -> result<void> {
    if (!b.gallery_pages) return fail(errc::conflict, "the bucket with the pages is not the gallery's any more");
    if (is_private) b.gallery_pages->is_private = *is_private;
    if (!domain.empty() && std::find(b.aliases.begin(), b.aliases.end(), domain) == b.aliases.end()) b.aliases.push_back(domain);
    std::erase(b.aliases, no_domain);
    return {};
  };
  auto pages = co_await s.change_bucket(as_admin(), g.pages, change_pages);
  if (!pages) co_return fail(pages.error());
  const bool shown = g.title != source.gallery->title;
  auto change_source = [g](model::bucket& b) -> result<void> {
    b.gallery = g;
    return {};
  };
  CO_TRY(source, co_await s.change_bucket(as_admin(), source.name, change_source));
  if (shown) {
    CO_TRY_VOID(co_await publish_settings(source));
    gallery::objects o(rt_, group_, s, g.pages);
    gallery::publisher p(rt_, o);
    CO_TRY_VOID(co_await p.write_all_pages());
  }
  co_return gallery_json(source, &*pages, address_of(*pages));
}

task<result<json>> galleries::status(model::bucket source) {
  CO_TRY(auto pages, co_await pages_of(source));
  json j = gallery_json(source, pages ? &*pages : nullptr, pages ? address_of(*pages) : std::string());
  gallery::objects o(rt_, group_, node_.store(), source.gallery->pages);
  CO_TRY(auto raw, co_await o.read(std::string(gallery::root_key)));
  j["photos"] = 0;
  if (raw) {
    CO_TRY(auto root, gallery::catalogue_from_json(raw->body));
    j["photos"] = root.photos;
  }
  if (worker_) {
    auto all = worker_->status();
    if (auto at = all.find(source.name); at != all.end()) {
      const auto& w = at->second;
      j["waiting"] = w.waiting;
      j["completing"] = w.completing;
      j["restored_here"] = w.restored;
      j["standing_by"] = w.standing_by;
      j["looking"] = w.looking;
      j["rendered_here"] = w.rendered;
      j["photos_per_minute"] = w.photos_per_minute;
      if (w.waiting && w.photos_per_minute > 0) j["minutes_left"] = static_cast<double>(w.waiting) / w.photos_per_minute;
      if (!w.last_error.empty()) j["last_error"] = w.last_error;
    }
    CO_TRY(auto failures, co_await worker_->failures(source.gallery->pages, 1000));
    j["failed"] = failures.size();
  }
  co_return j;
}

task<result<json>> galleries::remove(model::bucket source) {
  auto& s = node_.store();
  const std::string pages = source.gallery->pages;
  auto without = [](model::bucket& b) -> result<void> {
    b.gallery.reset();
    return {};
  };
  CO_TRY(source, co_await s.change_bucket(as_admin(), source.name, without));
  std::uint64_t removed = 0;
  gallery::objects o(rt_, group_, s, pages);
  for (int tries = 0;; ++tries) {
    co_await sleep_for(rt_, 3s);  // until the homes at work have heard of it
    for (;;) {
      store::list_request q;
      q.bucket = pages;
      CO_TRY(auto page, co_await s.list(as_admin(), std::move(q)));
      std::vector<std::string> keys;
      for (auto& i : page.items) keys.push_back(std::move(i.key));
      if (keys.empty()) break;
      removed += keys.size();
      CO_TRY_VOID(co_await o.remove_all(std::move(keys)));
    }
    auto gone = co_await s.delete_bucket(as_admin(), pages);
    if (gone) co_return json{{"bucket", source.name}, {"deleted", pages}, {"objects", removed}};
    if (!gone.failed_with(errc::bucket_not_empty) || tries == 5)
      co_return fail(gone.error().code, "the gallery is off, but the bucket " + pages + " could not be removed: " + gone.error().detail);
  }
}

task<result<json>> galleries::link(std::string what, model::bucket source, const json& in) {
  auto& s = node_.store();
  CO_TRY(auto pages, co_await pages_of(source));
  if (!pages || !pages->gallery_pages) co_return fail(errc::not_found, "the bucket with the gallery's pages is gone");
  if (what == "list") {
    json all = json::array();
    for (const auto& l : pages->gallery_pages->links) all.push_back({{"name", l.name}, {"created_ms", l.created_ms}, {"expires_ms", l.expires_ms}, {"expired", l.expires_ms && l.expires_ms <= rt_.wall_ms()}});
    co_return json{{"bucket", source.name}, {"links", all}};
  }
  const std::string name = text(in, "name");
  if (name.empty() || name.size() > link_name_max || !gallery::is_utf8(name)) co_return fail(errc::invalid_argument, "a link needs a name of 1 to 100 bytes: whom it is for");
  if (what == "create") {
    const std::uint64_t days = number(in, "days");
    if (days > 36500) co_return fail(errc::invalid_argument, "a link may hold for up to 36500 days (0: until it is revoked)");
    bytes raw(24, '\0');
    rt_.random().fill(raw.data(), raw.size());
    const std::string token = to_hex(raw);
    model::gallery_link l{name, crypto::digest(crypto::hash_kind::sha256, token), rt_.wall_ms(), days ? rt_.wall_ms() + days * 86'400'000 : 0};
    auto add = [l](model::bucket& b) -> result<void> {
      if (!b.gallery_pages) return fail(errc::conflict, "the bucket with the pages is not the gallery's any more");
      auto& all = b.gallery_pages->links;
      if (std::any_of(all.begin(), all.end(), [&](const auto& x) { return x.name == l.name; })) return fail(errc::already_exists, "there is a link of this name; revoke it first");
      if (all.size() >= links_max) return fail(errc::invalid_argument, "a gallery has at most 1000 links");
      all.push_back(l);
      return {};
    };
    CO_TRY(pages, co_await s.change_bucket(as_admin(), source.gallery->pages, add));
    co_return json{{"bucket", source.name}, {"name", name}, {"link", address_of(*pages) + "?key=" + token}, {"expires_ms", l.expires_ms}};
  }
  if (what == "revoke") {
    auto drop = [name](model::bucket& b) -> result<void> {
      if (!b.gallery_pages || !std::erase_if(b.gallery_pages->links, [&](const auto& l) { return l.name == name; }))
        return fail(errc::not_found, "there is no link '" + name + "'");
      return {};
    };
    CO_TRY(pages, co_await s.change_bucket(as_admin(), source.gallery->pages, drop));
    co_return json{{"bucket", source.name}, {"revoked", name}};
  }
  co_return fail(errc::not_implemented, "no such command of links: " + what);
}

// A page of what an export writes: files, and for each photo its original.
task<result<json>> galleries::files(model::bucket source, const json& in) {
  store::list_request q;
  q.bucket = source.gallery->pages;
  q.start_after = text(in, "after");
  q.entries_max = 200;
  CO_TRY(auto page, co_await node_.store().list(as_admin(), std::move(q)));
  json all = json::array();
  std::vector<std::string> records;
  for (const auto& i : page.items) {
    if (gallery::is_private_key(i.key)) continue;
    all.push_back({{"key", i.key}, {"size", i.meta.size}});
    if (i.key.starts_with("i/")) records.push_back(i.key);
  }
  json originals = json::array();
  if (flag(in, "originals").value_or(false)) {
    gallery::objects o(rt_, group_, node_.store(), source.gallery->pages);
    CO_TRY(auto read_records, co_await o.read_all(records));
    for (std::size_t i = 0; i < records.size(); ++i) {
      auto id = gallery::photo_id::from_hex(std::string_view(records[i]).substr(2, 2 * gallery::photo_id::size_bytes));
      if (!id || !read_records[i]) continue;
      auto r = gallery::record_from_json(read_records[i]->body, *id);
      if (!r || r->names.empty()) continue;
      originals.push_back({{"key", r->names.front().key}, {"file", gallery::download_key(*r)}, {"size", r->names.front().size_bytes}});
    }
  }
  json j = {{"files", all}, {"originals", originals}, {"more", page.truncated}, {"last", page.last}};
  co_return j;
}

task<result<json>> galleries::read(std::string bucket, std::string key, std::uint64_t offset) {
  store::get_request g;
  g.bucket = std::move(bucket);
  g.key = std::move(key);
  g.range = "bytes=" + std::to_string(offset) + "-" + std::to_string(offset + piece_max - 1);
  auto r = co_await node_.store().get(as_admin(), std::move(g));
  if (r.failed_with(errc::invalid_range)) co_return json{{"content", ""}, {"size", offset}};  // empty, or exactly at its end
  if (!r) co_return fail(r.error());
  bytes body;
  while (r->body && body.size() < piece_max) {
    CO_TRY(auto piece, co_await r->body->next());
    if (!piece) break;
    body += *piece;
  }
  co_return json{{"content", to_base64(body)}, {"size", r->meta.size}};
}

}  // namespace grenier::admin
