#include "gallery/publisher.h"

#include <algorithm>

namespace grenier::gallery {

namespace {
constexpr int attempts_max = 30, rounds_max = 64;
constexpr std::size_t pages_at_once = 64;

// After the news: nothing when no name is left.
std::optional<record> with(std::optional<record> before, const news& n) {
  std::optional<record> r = before ? std::move(before) : n.fresh;
  if (!r) return std::nullopt;
  if (n.fresh) {
    // What was rendered now is added to what was there.
    for (const auto& m : n.fresh->renditions) {
      auto same = std::find_if(r->renditions.begin(), r->renditions.end(), [&](const rendition_made& o) { return o.size == m.size && o.jpeg == m.jpeg; });
      if (same == r->renditions.end()) r->renditions.push_back(m);
      else *same = m;
    }
    r->final = n.fresh->final;
    // Whether places are shown may have changed since.
    r->latitude = n.fresh->latitude, r->longitude = n.fresh->longitude, r->altitude_m = n.fresh->altitude_m;
  }
  std::erase_if(r->names, [&](const source_name& x) {
    return std::find(n.gone.begin(), n.gone.end(), x.key) != n.gone.end() ||
           std::any_of(n.added.begin(), n.added.end(), [&](const source_name& a) { return a.key == x.key; });
  });
  r->names.insert(r->names.end(), n.added.begin(), n.added.end());
  if (r->names.empty()) return std::nullopt;
  return r;
}

bool belongs_to(std::string_view key, const photo_id& id) {
  return key == record_key(id) || key.starts_with(photo_folder(id)) || key.starts_with("t/" + id.hex() + "/");
}
}  // namespace

struct publisher::attempt {
  shelf known;
  catalogue root;
  std::string etag;  // "": there is no root
};

task<result<void>> publisher::load(attempt& a) {
  CO_TRY(auto raw, co_await objects_.read(std::string(root_key)));
  a.root = {};
  a.etag.clear();
  if (!raw) co_return result<void>();
  CO_TRY(a.root, catalogue_from_json(raw->body));
  a.etag = raw->etag;
  co_return result<void>();
}

task<result<published>> publisher::publish(std::vector<news> what, std::string title, std::string source, std::uint64_t waiting) {
  published out;
  for (int i = 0; i < attempts_max; ++i) {
    if (i) co_await sleep_for(rt_, 20ms * std::min(i, 10) + nanoseconds(rt_.random().below(100'000'000)));
    auto done = co_await try_once(what, title, source, waiting, out);
    if (!done) co_return fail(done.error());
    if (*done) co_return out;
  }
  co_return fail(errc::overloaded, "the gallery was changed by others all the time");
}

// False: somebody came between; what is left in `what` is to be done again.
task<result<bool>> publisher::try_once(std::vector<news>& what, const std::string& title, const std::string& source, std::uint64_t waiting, published& out) {
  attempt a;
  CO_TRY_VOID(co_await load(a));
  std::vector<std::string> keys;
  for (const auto& n : what) keys.push_back(record_key(n.id));
  CO_TRY(auto records, co_await objects_.read_all(keys));
  change c;
  std::map<std::string, std::string> over;  // record's key -> the ETag it was read with
  std::erase_if(what, [&, i = std::size_t{0}](const news& n) mutable {
    auto& stored = records[i++];
    photo_change p;
    if (stored) {
      // A record that cannot be read is as good as none: it is made again from the picture.
      if (auto r = record_from_json(stored->body, n.id)) p.before = std::move(*r);
      over[record_key(n.id)] = stored->etag;
    } else {
      over[record_key(n.id)] = "";
    }
    if (!p.before && !n.fresh && !n.added.empty()) {
      out.unknown.push_back(n.id);
      return true;
    }
    p.after = with(p.before, n);
    if (p.after) {
      auto fit = normalized(std::move(*p.after));
      if (!fit) return true;  // its detail was said when it was rendered: names beyond the limit are left out
      p.after = std::move(*fit);
    }
    if (p.before || p.after) c.photos.push_back(std::move(p));
    return false;
  });
  if (c.photos.empty() && a.root.title == title && a.root.bucket == source && a.root.waiting == waiting && !a.etag.empty()) co_return true;
  c.title = title;
  c.bucket = source;
  c.waiting = waiting;
  plan todo;
  for (int round = 0;; ++round) {
    auto made = make_plan(a.known, a.root, c);
    if (made) {
      todo = std::move(*made);
      break;
    }
    if (!made.failed_with(errc::unavailable) || !a.known.wants_something() || round == rounds_max) co_return fail(made.error());
    CO_TRY_VOID(co_await objects_.fetch_wanted(a.known));
  }
  const bool is_new = a.etag.empty();
  if (is_new) CO_TRY_VOID(co_await write_assets());
  for (const auto& s : todo.shards) a.known.put(s.key, s.body);
  CO_TRY_VOID(co_await objects_.put_all(std::move(todo.shards)));
  auto swapped = co_await objects_.put({std::string(root_key), to_json(todo.root)}, a.etag);
  if (swapped.failed_with(errc::condition_failed)) co_return false;
  if (!swapped) co_return fail(swapped.error());
  a.root = std::move(todo.root);
  a.etag = std::move(*swapped);
  if (is_new) {
    CO_TRY(auto all, co_await list_pages(a));
    todo.pages.insert(todo.pages.end(), all.begin(), all.end());
    std::sort(todo.pages.begin(), todo.pages.end());
    todo.pages.erase(std::unique(todo.pages.begin(), todo.pages.end()), todo.pages.end());
  }
  CO_TRY_VOID(co_await write_from(a, std::move(todo.pages), todo.records));
  // A record that somebody else wrote meanwhile has names that this change did not see: those photos once more.
  std::set<std::string> again;
  for (auto& r : todo.records) {
    std::string key = r.key;
    auto put = co_await objects_.put(std::move(r), over[key]);
    if (put.failed_with(errc::condition_failed)) again.insert(key);
    else if (!put) co_return fail(put.error());
  }
  CO_TRY(auto kept, co_await named_anew(c, over));
  for (const auto& id : kept) {
    again.insert(record_key(id));
    std::erase_if(todo.remove, [&](const std::string& key) { return belongs_to(key, id); });
  }
  CO_TRY_VOID(co_await objects_.remove_all(std::move(todo.remove)));
  std::erase_if(what, [&](const news& n) { return !again.contains(record_key(n.id)); });
  co_return what.empty();
}

// Of the photos that go with their last name, those to which somebody gave a new name while this change was written: they stay, and only
// this name goes, in the next try.
task<result<std::vector<photo_id>>> publisher::named_anew(const change& c, const std::map<std::string, std::string>& read_with) {
  std::vector<photo_id> going, kept;
  std::vector<std::string> keys;
  for (const auto& p : c.photos)
    if (p.before && !p.after) going.push_back(p.before->id), keys.push_back(record_key(p.before->id));
  CO_TRY(auto now, co_await objects_.read_all(keys));
  for (std::size_t i = 0; i < going.size(); ++i)
    if (auto at = read_with.find(keys[i]); now[i] && at != read_with.end() && now[i]->etag != at->second) kept.push_back(going[i]);
  co_return kept;
}

// Records are written after the pages; until then the pages are made from these.
task<result<void>> publisher::write_from(attempt& a, std::vector<page_id> ids, const std::vector<object>& records) {
  const page_assets assets = asset_names();
  for (int i = 0; i < attempts_max; ++i) {
    for (const auto& r : records) a.known.put(r.key, r.body);
    for (std::size_t at = 0; at < ids.size(); at += pages_at_once) {
      std::span<const page_id> some(ids.data() + at, std::min(pages_at_once, ids.size() - at));
      written_pages made;
      for (int round = 0;; ++round) {
        auto r = write_pages(a.known, a.root, some, assets);
        if (r) {
          made = std::move(*r);
          break;
        }
        if (!r.failed_with(errc::unavailable) || !a.known.wants_something() || round == rounds_max) co_return fail(r.error());
        CO_TRY_VOID(co_await objects_.fetch_wanted(a.known));
      }
      CO_TRY_VOID(co_await objects_.put_all(std::move(made.objects)));
      CO_TRY_VOID(co_await objects_.remove_all(std::move(made.remove)));
    }
    // Whoever made a newer root meanwhile may have written some of these pages before us: once more, from that one.
    attempt now;
    CO_TRY_VOID(co_await load(now));
    if (now.etag == a.etag) co_return result<void>();
    a = std::move(now);
  }
  co_return result<void>();
}

task<result<void>> publisher::write_assets() { return objects_.put_all(asset_objects()); }

task<result<std::vector<page_id>>> publisher::list_pages(attempt& a) {
  for (;;) {
    auto all = all_pages(a.known, a.root);
    if (all || !all.failed_with(errc::unavailable) || !a.known.wants_something()) co_return all;
    CO_TRY_VOID(co_await objects_.fetch_wanted(a.known));
  }
}

task<result<void>> publisher::write_all_pages() {
  attempt a;
  CO_TRY_VOID(co_await load(a));
  CO_TRY_VOID(co_await write_assets());
  CO_TRY(auto all, co_await list_pages(a));
  co_return co_await write_from(a, std::move(all), {});
}

}  // namespace grenier::gallery
