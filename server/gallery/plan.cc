// What a change has to write.
#include <algorithm>

#include "gallery/entries.h"
#include "gallery/text.h"

namespace grenier::gallery {

using nlohmann::json;

namespace {

constexpr std::size_t preview_max = 8;
constexpr std::size_t pages_in_all_max = 20'000'000;

// A month or album while it is being changed.
struct open_month {
  std::string month;
  tree photos;
  std::uint64_t count_before = 0;
  bool existed = false;
};

struct open_album {
  album was;
  tree folders, photos;
  bool existed = false;
  std::string shard;
  std::uint64_t own_before = 0;
  std::map<std::string, std::unique_ptr<open_album>> open;
  open_album(shelf& s, album a) : was(std::move(a)), folders(s, was.folders, folder_limits), photos(s, was.photos, photo_limits) { own_before = photos.count(); }
};

struct written_album {
  std::uint64_t count = 0;
  std::optional<item> cover;
  std::string shard;
};

class maker {
 public:
  maker(shelf& s, const catalogue& from, const change& c) : shelf_(s), from_(from), change_(c), months_(s, from.months, month_limits) {}

  result<plan> make() {
    TRY_VOID(check());
    TRY_VOID(read_all());
    plan_.root = from_;
    ++plan_.root.version;
    if (change_.title) plan_.root.title = *change_.title;
    if (change_.bucket) plan_.root.bucket = *change_.bucket;
    if (change_.waiting) plan_.root.waiting = *change_.waiting;
    for (std::size_t i = 0; i < before_.size(); ++i) TRY_VOID(apply(before_[i], after_[i]));
    TRY_VOID(finish_months());
    if (root_) {
      TRY(written_album all, finish(*root_));
      plan_.root.albums = all.count > 0 ? all.shard : std::string();
    }
    pages_.insert({page_kind::timeline, "", 1, "", {}});
    if (from_.version == 0)
      for (page_kind k : {page_kind::about, page_kind::not_found, page_kind::archive}) pages_.insert({k, "", 1, "", {}});
    if (from_.albums.empty() && plan_.root.albums.empty() && from_.version == 0) pages_.insert({page_kind::album, "", 1, "", {}});
    plan_.pages.assign(pages_.begin(), pages_.end());
    // A photo may leave under one name and come under another in one change.
    std::erase_if(plan_.remove, [&](const std::string& key) { return std::ranges::any_of(plan_.records, [&](const object& o) { return o.key == key; }); });
    return std::move(plan_);
  }

 private:
  result<void> check() {
    if (change_.photos.size() > photos_per_change_max) return fail(errc::too_large, "more than 1000 photos in one change");
    std::set<photo_id> seen;
    for (const photo_change& p : change_.photos) {
      before_.emplace_back(), after_.emplace_back();
      if (p.before) {
        TRY(before_.back(), normalized(*p.before));
      }
      if (p.after) {
        TRY(after_.back(), normalized(*p.after));
      }
      if (p.before && p.after && p.before->id != p.after->id) return fail(errc::invalid_argument, "a change turns one photo into another");
      const photo_id id = p.after ? p.after->id : p.before ? p.before->id : photo_id();
      if (!id || !seen.insert(id).second) return fail(errc::invalid_argument, "a change names a photo twice, or none");
    }
    return {};
  }

  // Opens all that is touched, so that everything missed is asked for in as few rounds as the trees are deep.
  result<void> read_all() {
    bool missed = false;
    const auto note = [&](auto&& r) -> result<void> {
      if (!r && r.error() == errc::unavailable) missed = true;
      else if (!r) return fail(r.error());
      return {};
    };
    for (std::size_t i = 0; i < before_.size(); ++i)
      for (const auto& r : {before_[i], after_[i]}) {
        if (!r) continue;
        const item it = item_of(*r);
        auto m = month(month_of(*r));
        TRY_VOID(note(m));
        if (m) (*m)->photos.prefetch(timeline_key(it));
        for (const std::string& path : albums_of(*r)) {
          auto a = album_at(path);
          TRY_VOID(note(a));
          if (a) (*a)->photos.prefetch(album_key(it));
        }
      }
    if (missed || shelf_.wants_something()) return fail(errc::unavailable, "the catalogue has to be read");
    return {};
  }

  result<open_month*> month(const std::string& name) {
    if (const auto it = open_months_.find(name); it != open_months_.end()) return it->second.get();
    TRY(const tree_entry* e, months_.find(month_key(name)));
    tree_root photos;
    if (e) {
      TRY(month_entry m, month_from_entry(*e));
      photos = m.photos;
    }
    auto o = std::make_unique<open_month>(open_month{name, tree(shelf_, photos, photo_limits), photos.count(), e != nullptr});
    return open_months_.emplace(name, std::move(o)).first->second.get();
  }

  result<open_album*> album_at(std::string_view path) {
    if (!root_) {
      album a;
      if (!from_.albums.empty()) {
        TRY(a, read_album(shelf_, from_.albums, ""));
      }
      root_ = std::make_unique<open_album>(shelf_, std::move(a));
      root_->existed = !from_.albums.empty(), root_->shard = from_.albums;
    }
    open_album* at = root_.get();
    for (std::size_t begin = 0; begin < path.size();) {
      const std::size_t end = std::min(path.find('/', begin), path.size());
      const std::string name(path.substr(begin, end - begin));
      auto it = at->open.find(name);
      if (it == at->open.end()) {
        at->folders.prefetch(name);
        TRY(const tree_entry* e, at->folders.find(name));
        album a;
        std::string shard;
        if (e) {
          TRY(album_entry below, album_from_entry(*e));
          shard = below.shard;
          TRY(a, read_album(shelf_, shard, path.substr(0, end)));
        }
        a.path = path.substr(0, end);
        it = at->open.emplace(name, std::make_unique<open_album>(shelf_, std::move(a))).first;
        it->second->existed = e != nullptr, it->second->shard = shard;
      }
      at = it->second.get();
      begin = end + 1;
    }
    return at;
  }

  result<void> apply(const std::optional<record>& before, const std::optional<record>& after) {
    const item was = before ? item_of(*before) : item{}, is = after ? item_of(*after) : item{};
    const photo_id id = after ? is.id : was.id;
    if (before && (!after || timeline_key(was) != timeline_key(is))) {
      TRY(open_month * m, month(month_of(*before)));
      TRY_VOID(m->photos.erase(timeline_key(was)));
      moved_.emplace_back(m, timeline_key(was));
    }
    if (after) {
      TRY(open_month * m, month(month_of(*after)));
      TRY(const tree_entry* there, m->photos.find(timeline_key(is)));
      if (!there) moved_.emplace_back(m, timeline_key(is));
      TRY_VOID(m->photos.put(timeline_key(is), item_look(is)));
    }
    std::vector<std::string> left = before ? albums_of(*before) : std::vector<std::string>(), now = after ? albums_of(*after) : std::vector<std::string>();
    for (const std::string& path : left) {
      if (after && std::ranges::binary_search(now, path) && album_key(was) == album_key(is)) continue;
      TRY(open_album * a, album_at(path));
      TRY_VOID(a->photos.erase(album_key(was)));
    }
    for (const std::string& path : now) {
      TRY(open_album * a, album_at(path));
      TRY_VOID(a->photos.put(album_key(is), item_look(is)));
    }
    pages_.insert({page_kind::photo, "", 1, "", id});
    if (after) {
      plan_.records.push_back({record_key(id), to_json(*after)});
    } else {
      plan_.remove.push_back(record_key(id));
      for (std::string_view file : {"index.html", "index.fr.html"}) plan_.remove.push_back(photo_folder(id) + std::string(file));
      for (const rendition_made& r : before->renditions) plan_.remove.push_back(rendition_key(id, r.size, r.jpeg));
    }
    return {};
  }

  void month_pages(const std::string& name, const tree::finished& f) {
    for (const auto& [number, key] : f.pages) pages_.insert({page_kind::month, name, number, key, {}});
  }

  result<void> finish_months() {
    std::int64_t difference = 0;
    std::vector<std::string> appeared;
    for (auto& [name, m] : open_months_) {
      TRY(auto f, m->photos.finish("m/" + name, plan_.root.version, plan_.shards, plan_.remove));
      if (!f.changed) continue;
      difference += static_cast<std::int64_t>(m->photos.count()) - static_cast<std::int64_t>(m->count_before);
      month_pages(name, f);
      if (m->existed != (m->photos.count() > 0)) appeared.push_back(name);
      if (m->photos.count() == 0) {
        TRY_VOID(months_.erase(month_key(name)));
        continue;
      }
      TRY(auto first, m->photos.leaf_at(""));
      json preview = json::array();
      for (const tree_entry& e : *first->entries) {
        if (preview.size() == preview_max) break;
        TRY(item i, item_from_entry(e, true));
        preview.push_back(item_json(i));
      }
      TRY_VOID(months_.put(month_key(name), {{"month", name}, {"photos", to_json(f.root)}, {"preview", std::move(preview)}}));
    }
    plan_.root.photos = static_cast<std::uint64_t>(std::max<std::int64_t>(0, static_cast<std::int64_t>(from_.photos) + difference));
    // Months that came or went: the ones beside them name their neighbours.
    for (const std::string& name : appeared) {
      pages_.insert({page_kind::archive, "", 1, "", {}});
      TRY(auto newer, months_.before(month_key(name)));
      TRY(auto older, months_.after(month_key(name)));
      for (const auto& key : {newer, older}) {
        if (!key) continue;
        TRY(const tree_entry* e, months_.find(*key));
        if (e) pages_.insert({page_kind::month, e->value.value("month", ""), 1, "", {}});
      }
    }
    for (const auto& [m, key] : moved_) TRY_VOID(neighbours(*m, key));
    TRY(auto f, months_.finish("months", plan_.root.version, plan_.shards, plan_.remove));
    plan_.root.months = f.root;
    for (const auto& [number, key] : f.pages) pages_.insert({page_kind::timeline, "", number, number == 1 ? "" : key, {}});
    return {};
  }

  // The photos before and after this place link to what is there now.
  result<void> neighbours(open_month& m, const std::string& key) {
    for (bool newer : {true, false}) {
      TRY(auto near, newer ? m.photos.before(key) : m.photos.after(key));
      if (!near) {
        TRY(auto other, newer ? months_.before(month_key(m.month)) : months_.after(month_key(m.month)));
        if (!other) continue;
        TRY(const tree_entry* e, months_.find(*other));
        if (!e) continue;
        TRY(month_entry found, month_from_entry(*e));
        if (!found.photos.top) continue;
        near = newer ? found.photos.top->last : found.photos.top->first;
      }
      TRY(photo_id id, id_in_key(*near));
      pages_.insert({page_kind::photo, "", 1, "", id});
    }
    return {};
  }

  result<std::optional<item>> cover_of(open_album& a) {
    TRY(auto photos, a.photos.leaf_at(""));
    if (photos) {
      TRY(item i, item_from_entry(photos->entries->front(), false));
      return std::optional(std::move(i));
    }
    TRY(auto folders, a.folders.leaf_at(""));
    if (!folders) return std::optional<item>();
    TRY(album_entry first, album_from_entry(folders->entries->front()));
    return first.cover;
  }

  // Depth is bounded by album_depth_max.
  result<written_album> finish(open_album& a) {
    std::int64_t count = static_cast<std::int64_t>(a.was.count) + static_cast<std::int64_t>(a.photos.count()) - static_cast<std::int64_t>(a.own_before);
    for (auto& [name, below] : a.open) {
      const auto before = static_cast<std::int64_t>(below->existed ? below->was.count : 0);
      TRY(written_album w, finish(*below));
      count += static_cast<std::int64_t>(w.count) - before;
      if (w.count == 0) {
        TRY_VOID(a.folders.erase(name));
        continue;
      }
      json entry = {{"n", w.count}, {"shard", w.shard}};
      if (w.cover) entry["cover"] = item_json(*w.cover);
      TRY_VOID(a.folders.put(name, std::move(entry)));
    }
    written_album w;
    w.count = static_cast<std::uint64_t>(std::max<std::int64_t>(0, count));
    const std::string& path = a.was.path;
    TRY(auto photos, a.photos.finish("a/" + path, plan_.root.version, plan_.shards, plan_.remove));
    TRY(auto folders, a.folders.finish("f/" + path, plan_.root.version, plan_.shards, plan_.remove));
    // What is there outlives a wrong count.
    if (a.photos.count() + a.folders.count() > 0) w.count = std::max<std::uint64_t>(w.count, 1);
    if (!photos.changed && !folders.changed) {
      w.count = a.existed ? std::max<std::uint64_t>(a.was.count, a.photos.count() + a.folders.count() > 0 ? 1 : 0) : 0;
      w.cover = a.was.cover, w.shard = a.shard;
      return w;
    }
    if (a.photos.count() + a.folders.count() == 0) w.count = 0;
    TRY(w.cover, cover_of(a));
    for (const auto& [number, key] : photos.pages) pages_.insert({page_kind::album, path, number, number == 1 ? "" : key, {}});
    for (const auto& [number, key] : folders.pages)
      if (number > 1) pages_.insert({page_kind::album_list, path, number, key, {}});
    pages_.insert({page_kind::album, path, 1, "", {}});
    if (!a.shard.empty()) plan_.remove.push_back(shard_key(a.shard));
    if (w.count == 0) return w;
    json j = {{"n", w.count}, {"folders", to_json(folders.root)}, {"photos", to_json(photos.root)}};
    if (w.cover) j["cover"] = item_json(*w.cover);
    w.shard = write_shard(std::move(j), "A/" + path, plan_.root.version, plan_.shards);
    return w;
  }

  shelf& shelf_;
  const catalogue& from_;
  const change& change_;
  tree months_;
  std::vector<std::optional<record>> before_, after_;
  std::map<std::string, std::unique_ptr<open_month>> open_months_;
  std::unique_ptr<open_album> root_;
  std::vector<std::pair<open_month*, std::string>> moved_;
  std::set<page_id> pages_;
  plan plan_;
};

// Walks leaves of a tree; goes on past what was not read, so that it is asked for at once.
template <class Visit>
result<void> each_leaf(shelf& s, const tree_root& root, Visit visit) {
  if (!root.top) return {};
  std::vector<branch> todo = {*root.top};
  bool missed = false;
  while (!todo.empty()) {
    const branch b = std::move(todo.back());
    todo.pop_back();
    auto n = s.node(b);
    if (!n && n.error() == errc::unavailable) {
      missed = true;
      continue;
    }
    if (!n) return fail(n.error());
    if (b.level == 0) TRY_VOID(visit(b, (*n)->entries));
    else todo.insert(todo.end(), (*n)->branches.rbegin(), (*n)->branches.rend());
  }
  if (missed) return fail(errc::unavailable, "the catalogue has to be read");
  return {};
}

}  // namespace

result<plan> make_plan(shelf& s, const catalogue& from, const change& c) {
  auto p = maker(s, from, c).make();
  if (!p) return p;
  // Trees give names of shards, the plan names of objects.
  for (std::string& key : p->remove)
    if (key.find('/') == std::string::npos) key = shard_key(key);
  return p;
}

result<std::vector<page_id>> all_pages(shelf& s, const catalogue& c) {
  std::vector<page_id> pages;
  for (page_kind k : {page_kind::about, page_kind::not_found, page_kind::archive, page_kind::timeline, page_kind::album}) pages.push_back({k, "", 1, "", {}});
  bool missed = false;
  const auto note = [&](const auto& r) -> result<void> {
    if (!r && r.error() == errc::unavailable) missed = true;
    else if (!r) return fail(r.error());
    return pages.size() > pages_in_all_max ? result<void>(fail(errc::corrupt, "the gallery's catalogue has no end")) : result<void>();
  };
  const auto month_leaves = [&](const month_entry& m) {
    return each_leaf(s, m.photos, [&](const branch& b, const std::vector<tree_entry>& entries) -> result<void> {
      pages.push_back({page_kind::month, m.month, b.page, b.first, {}});
      for (const tree_entry& e : entries) {
        TRY(photo_id id, id_in_key(e.key));
        pages.push_back({page_kind::photo, "", 1, "", id});
      }
      return {};
    });
  };
  TRY_VOID(note(each_leaf(s, c.months, [&](const branch& b, const std::vector<tree_entry>& entries) -> result<void> {
    if (b.page > 1) pages.push_back({page_kind::timeline, "", b.page, b.first, {}});
    for (const tree_entry& e : entries) {
      TRY(month_entry m, month_from_entry(e));
      TRY_VOID(note(month_leaves(m)));
    }
    return {};
  })));
  std::vector<std::pair<std::string, std::string>> todo;  // path, shard
  if (!c.albums.empty()) todo.emplace_back("", c.albums);
  while (!todo.empty()) {
    const auto [path, shard] = todo.back();
    todo.pop_back();
    auto a = read_album(s, shard, path);
    TRY_VOID(note(a));
    if (!a) continue;
    if (!path.empty()) pages.push_back({page_kind::album, path, 1, "", {}});
    TRY_VOID(note(each_leaf(s, a->photos, [&](const branch& b, const std::vector<tree_entry>&) -> result<void> {
      if (b.page > 1) pages.push_back({page_kind::album, path, b.page, b.first, {}});
      return {};
    })));
    TRY_VOID(note(each_leaf(s, a->folders, [&](const branch& b, const std::vector<tree_entry>& entries) -> result<void> {
      if (b.page > 1) pages.push_back({page_kind::album_list, path, b.page, b.first, {}});
      if (std::ranges::count(path, '/') + 2 > static_cast<std::ptrdiff_t>(album_depth_max) + (path.empty() ? 1 : 0)) return {};
      for (const tree_entry& e : entries) {
        TRY(album_entry below, album_from_entry(e));
        todo.emplace_back(path.empty() ? e.key : path + "/" + e.key, below.shard);
      }
      return {};
    })));
  }
  if (missed) return fail(errc::unavailable, "the catalogue has to be read");
  return pages;
}

}  // namespace grenier::gallery
