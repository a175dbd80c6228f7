// The catalogue's values in JSON, and how they are found.
#include "gallery/entries.h"

#include <algorithm>

#include "gallery/text.h"

namespace grenier::gallery {

using nlohmann::json;

namespace {

constexpr std::uint64_t undated_time = 99'999'999'999'999;
constexpr std::size_t time_digits = 14, preview_max = 8;

std::unexpected<error> broken(std::string_view what) { return fail(errc::corrupt, "the gallery's catalogue is damaged: " + std::string(what)); }

std::uint64_t time_number(const std::string& taken) {
  if (taken.empty()) return undated_time;
  std::uint64_t v = 0;
  for (char c : taken)
    if (c >= '0' && c <= '9') v = v * 10 + static_cast<std::uint64_t>(c - '0');
  return v;
}

std::string taken_of(std::uint64_t number) {
  std::string d = std::to_string(number);
  if (d.size() != time_digits) return {};
  std::string t = d.substr(0, 4) + "-" + d.substr(4, 2) + "-" + d.substr(6, 2) + "T" + d.substr(8, 2) + ":" + d.substr(10, 2) + ":" + d.substr(12, 2);
  return parse_time(t) ? t : std::string();
}

std::string sort_key(std::uint64_t number, const photo_id& id) {
  std::string d = std::to_string(number);
  d.insert(0, time_digits - std::min(time_digits, d.size()), '0');
  return d + "-" + id.hex();
}

std::string text_of(const json& j, const char* name) {
  const auto it = j.find(name);
  return it != j.end() && it->is_string() ? it->get<std::string>() : std::string();
}

std::uint64_t count_of(const json& j, const char* name) {
  const auto it = j.find(name);
  return it != j.end() && it->is_number_unsigned() ? it->get<std::uint64_t>() : 0;
}

// [width, height, thumbhash, sizes]
result<void> read_look(const json& j, std::size_t from, item& i) {
  if (j.size() != from + 4 || !j[from].is_number_unsigned() || !j[from + 1].is_number_unsigned() || !j[from + 2].is_string() || !j[from + 3].is_number_unsigned())
    return broken("a photo");
  const auto w = j[from].get<std::uint64_t>(), h = j[from + 1].get<std::uint64_t>(), s = j[from + 3].get<std::uint64_t>();
  auto hash = from_base64(j[from + 2].get<std::string>());
  if (w == 0 || h == 0 || w > 1'000'000 || h > 1'000'000 || s > 15 || !hash || hash->size() > 32) return broken("a photo");
  i.width = static_cast<std::uint32_t>(w), i.height = static_cast<std::uint32_t>(h), i.sizes = static_cast<std::uint8_t>(s);
  if (hash->size() >= 5) i.thumbhash = std::move(*hash);
  return {};
}

result<item> item_from_json(const json& j) {
  if (!j.is_array() || j.size() != 6 || !j[0].is_string() || !j[1].is_string()) return broken("a photo");
  auto id = photo_id::from_hex(j[0].get<std::string>());
  item i;
  if (!id) return broken("a photo");
  i.id = *id, i.taken = j[1].get<std::string>();
  if (!parse_time(i.taken)) i.taken.clear();
  TRY_VOID(read_look(j, 2, i));
  return i;
}

result<album> album_from_shard(const json& j, std::string_view path) {
  album a;
  a.path = path;
  a.count = count_of(j, "n");
  if (j.contains("cover")) {
    TRY(a.cover, item_from_json(j["cover"]));
  }
  if (!j.contains("folders") || !j.contains("photos")) return broken("an album");
  TRY(a.folders, tree_from_json(j["folders"]));
  TRY(a.photos, tree_from_json(j["photos"]));
  return a;
}

}  // namespace

json item_json(const item& i) { return json::array({i.id.hex(), i.taken, i.width, i.height, to_base64(i.thumbhash), i.sizes}); }
json item_look(const item& i) { return json::array({i.width, i.height, to_base64(i.thumbhash), i.sizes}); }

bytes to_json(const catalogue& c) {
  json j = {{"v", 1}, {"version", c.version}, {"title", c.title}, {"bucket", c.bucket}, {"photos", c.photos}, {"waiting", c.waiting}, {"months", to_json(c.months)}};
  if (!c.albums.empty()) j["albums"] = c.albums;
  return j.dump(-1, ' ', false, json::error_handler_t::replace);
}

result<catalogue> catalogue_from_json(bytes_view text) {
  TRY(const json j, parse_json(text));
  if (!j.is_object() || count_of(j, "v") != 1 || !j.contains("months")) return broken("its root is not one");
  catalogue c;
  c.version = count_of(j, "version"), c.photos = count_of(j, "photos"), c.waiting = count_of(j, "waiting");
  c.title = text_of(j, "title").substr(0, 1000), c.bucket = text_of(j, "bucket").substr(0, 100);
  TRY(c.months, tree_from_json(j["months"]));
  c.albums = text_of(j, "albums");
  if (!c.albums.empty() && (c.albums.size() != 64 || !from_hex(c.albums))) return broken("the name of its albums");
  return c;
}

// ---------------------------------------------------------------------------------------------- entries

std::string month_key(std::string_view month) {
  if (!parse_time(std::string(month) + "-01T00:00:00")) return "999999";
  std::uint64_t v = 0;
  for (char c : month)
    if (c != '-') v = v * 10 + static_cast<std::uint64_t>(c - '0');
  return std::to_string(999'999 - v);
}

std::string timeline_key(const item& i) { return sort_key(undated_time - (i.taken.empty() ? 0 : time_number(i.taken)), i.id); }
std::string album_key(const item& i) { return sort_key(time_number(i.taken), i.id); }

result<photo_id> id_in_key(std::string_view key) {
  if (key.size() != time_digits + 1 + 64 || key[time_digits] != '-') return broken("a photo's key");
  auto id = photo_id::from_hex(key.substr(time_digits + 1));
  if (!id) return broken("a photo's key");
  return id;
}

result<item> item_from_entry(const tree_entry& e, bool newest_first) {
  item i;
  TRY(i.id, id_in_key(e.key));
  std::uint64_t number = 0;
  for (char c : std::string_view(e.key).substr(0, time_digits)) {
    if (c < '0' || c > '9') return broken("a photo's key");
    number = number * 10 + static_cast<std::uint64_t>(c - '0');
  }
  i.taken = taken_of(newest_first ? undated_time - number : number);
  if (!e.value.is_array()) return broken("a photo");
  TRY_VOID(read_look(e.value, 0, i));
  return i;
}

result<month_entry> month_from_entry(const tree_entry& e) {
  month_entry m;
  const json& j = e.value;
  if (!j.is_object() || !j.contains("photos") || !j.contains("preview") || !j["preview"].is_array() || j["preview"].size() > preview_max)
    return broken("a month");
  m.month = text_of(j, "month");
  if (month_key(m.month) != e.key || m.month.size() != 7 || (e.key == "999999" && m.month != "undated")) return broken("a month's name");
  for (const json& p : j["preview"]) {
    TRY(item i, item_from_json(p));
    m.preview.push_back(std::move(i));
  }
  TRY(m.photos, tree_from_json(j["photos"]));
  return m;
}

result<album_entry> album_from_entry(const tree_entry& e) {
  album_entry a;
  a.name = e.key;
  const json& j = e.value;
  if (!j.is_object()) return broken("an album");
  a.count = count_of(j, "n"), a.shard = text_of(j, "shard");
  if (a.shard.size() != 64 || !from_hex(a.shard)) return broken("an album's shard");
  if (j.contains("cover")) {
    TRY(a.cover, item_from_json(j["cover"]));
  }
  return a;
}

// ---------------------------------------------------------------------------------------------- finding

result<month_entry> find_month(shelf& s, const catalogue& c, std::string_view month) {
  tree months(s, c.months, month_limits);
  TRY(const tree_entry* e, months.find(month_key(month)));
  if (!e) return fail(errc::not_found);
  return month_from_entry(*e);
}

result<album> read_album(shelf& s, const std::string& shard, std::string_view path) {
  TRY(json j, s.shard(shard));
  return album_from_shard(j, path);
}

result<album> find_album(shelf& s, const catalogue& c, std::string_view path) {
  if (c.albums.empty()) return fail(errc::not_found);
  TRY(album a, read_album(s, c.albums, ""));
  for (std::size_t from = 0; from < path.size();) {
    const std::size_t to = std::min(path.find('/', from), path.size());
    tree folders(s, a.folders, folder_limits);
    TRY(const tree_entry* e, folders.find(path.substr(from, to - from)));
    if (!e) return fail(errc::not_found);
    TRY(album_entry below, album_from_entry(*e));
    TRY(a, read_album(s, below.shard, path.substr(0, to)));
    from = to + 1;
  }
  return a;
}

result<neighbours> neighbours_of(shelf& s, const catalogue& c, const item& i) {
  neighbours n;
  const std::string month = i.taken.empty() ? "undated" : i.taken.substr(0, 7);
  tree months(s, c.months, month_limits);
  const auto beyond = [&](bool newer) -> result<std::optional<photo_id>> {
    TRY(auto key, newer ? months.before(month_key(month)) : months.after(month_key(month)));
    if (!key) return std::optional<photo_id>();
    TRY(const tree_entry* e, months.find(*key));
    if (!e) return std::optional<photo_id>();
    TRY(month_entry m, month_from_entry(*e));
    if (!m.photos.top) return std::optional<photo_id>();
    TRY(photo_id id, id_in_key(newer ? m.photos.top->last : m.photos.top->first));
    return std::optional(id);
  };
  std::optional<std::string> before, after;
  TRY(const tree_entry* own, months.find(month_key(month)));
  if (own) {
    TRY(month_entry m, month_from_entry(*own));
    tree photos(s, m.photos, photo_limits);
    TRY(before, photos.before(timeline_key(i)));
    TRY(after, photos.after(timeline_key(i)));
  }
  if (before) {
    TRY(n.newer, id_in_key(*before));
  } else {
    TRY(n.newer, beyond(true));
  }
  if (after) {
    TRY(n.older, id_in_key(*after));
  } else {
    TRY(n.older, beyond(false));
  }
  return n;
}

}  // namespace grenier::gallery
