// Records of photos, their bounds, and the names of all objects.
#include <algorithm>
#include <cmath>

#include "crypto/crypto.h"
#include "gallery/catalogue.h"
#include "gallery/text.h"

namespace grenier::gallery {

using nlohmann::json;

namespace {

constexpr std::size_t text_max = 128, key_max = 1024, renditions_max = 16, names_bytes_max = 512 * 1024, slug_max = 200, folder_max = 900;

std::string short_text(std::string s) {
  if (s.size() > text_max || !is_utf8(s) || std::ranges::any_of(s, [](unsigned char c) { return c < 0x20 || c == 0x7f; })) return {};
  return s;
}

std::optional<double> within(std::optional<double> v, double low, double high) {
  return v && std::isfinite(*v) && *v >= low && *v <= high ? v : std::nullopt;
}

json number_or_null(const std::optional<double>& v) { return v ? json(*v) : json(); }

std::string text_of(const json& j, const char* name) {
  const auto it = j.find(name);
  return it != j.end() && it->is_string() ? it->get<std::string>() : std::string();
}

std::uint64_t count_of(const json& j, const char* name) {
  const auto it = j.find(name);
  return it != j.end() && it->is_number_unsigned() ? it->get<std::uint64_t>() : 0;
}

std::optional<double> double_of(const json& j, const char* name) {
  const auto it = j.find(name);
  return it != j.end() && it->is_number() ? std::optional(it->get<double>()) : std::nullopt;
}

std::uint32_t as_u32(std::uint64_t v) { return v > 0xffffffffu ? 0xffffffffu : static_cast<std::uint32_t>(v); }
std::uint16_t as_u16(std::uint64_t v) { return v > 0xffffu ? 0xffffu : static_cast<std::uint16_t>(v); }

// A folder's name as part of a name of ours: as it is, unless a static host or a file system would take it for something else.
std::string slug(std::string_view segment) {
  const bool plain = !segment.empty() && segment.size() <= slug_max && segment != "." && segment != ".." && !segment.starts_with('~') &&
                     segment != "index.html" && segment != "index.fr.html" && is_utf8(segment) &&
                     std::ranges::none_of(segment, [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '\\'; });
  if (plain) return std::string(segment);
  return "~" + to_hex(crypto::digest(crypto::hash_kind::sha256, segment)).substr(0, 24);
}

std::string album_base(std::string_view path) {
  std::string s = "a/";
  for (std::size_t from = 0; from < path.size();) {
    const std::size_t to = std::min(path.find('/', from), path.size());
    s += slug(path.substr(from, to - from)) + "/";
    from = to + 1;
  }
  if (s.size() > folder_max) s = "a/~" + to_hex(crypto::digest(crypto::hash_kind::sha256, path)).substr(0, 32) + "/";
  return s;
}

// "holidays/2024" of "/holidays//2024/a.jpg".
std::string album_of(std::string_view key) {
  std::string path;
  std::size_t depth = 0;
  for (std::size_t from = 0; depth < album_depth_max;) {
    const std::size_t slash = key.find('/', from);
    if (slash == std::string_view::npos) break;
    if (slash > from) {
      if (!path.empty()) path += '/';
      path += key.substr(from, slash - from);
      ++depth;
    }
    from = slash + 1;
  }
  return path;
}

}  // namespace

result<record> normalized(record r) {
  if (r.id.is_zero()) return fail(errc::invalid_argument, "a photo without content id");
  if (r.width == 0 || r.height == 0 || r.width > 1'000'000 || r.height > 1'000'000) return fail(errc::invalid_argument, "a photo without size");
  if (r.format.size() > 16 || r.format.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") != std::string::npos) r.format.clear();
  if (!parse_time(r.taken)) r.taken.clear();
  if (r.taken.empty() || (r.taken_offset_minutes && std::abs(*r.taken_offset_minutes) > 16 * 60)) r.taken_offset_minutes.reset();
  r.make = short_text(std::move(r.make)), r.model = short_text(std::move(r.model)), r.lens = short_text(std::move(r.lens));
  if (r.iso && (*r.iso == 0 || *r.iso > 100'000'000)) r.iso.reset();
  r.exposure_s = within(r.exposure_s, 1e-7, 1e6), r.f_number = within(r.f_number, 0.01, 1e4), r.focal_mm = within(r.focal_mm, 0.01, 1e6);
  r.latitude = within(r.latitude, -90, 90), r.longitude = within(r.longitude, -180, 180), r.altitude_m = within(r.altitude_m, -12000, 1e6);
  if (!r.latitude || !r.longitude) r.latitude.reset(), r.longitude.reset(), r.altitude_m.reset();
  if (r.thumbhash.size() < 5 || r.thumbhash.size() > 32) r.thumbhash.clear();
  std::ranges::sort(r.renditions, {}, [](const rendition_made& m) { return std::pair(m.size, m.jpeg); });
  std::erase_if(r.renditions, [](const rendition_made& m) { return m.size < 16 || m.size > 4096 || m.width == 0 || m.height == 0; });
  const auto twice = std::ranges::unique(r.renditions, {}, [](const rendition_made& m) { return std::pair(m.size, m.jpeg); });
  r.renditions.erase(twice.begin(), twice.end());
  if (r.renditions.size() > renditions_max) return fail(errc::too_large, "a photo with more than 16 renditions");
  std::ranges::sort(r.names);
  const auto again = std::ranges::unique(r.names, {}, &source_name::key);
  r.names.erase(again.begin(), again.end());
  if (r.names.empty()) return fail(errc::invalid_argument, "a photo without a name");
  std::size_t total = 0;
  for (const source_name& n : r.names) {
    if (n.key.empty() || n.key.size() > key_max || !is_utf8(n.key)) return fail(errc::invalid_argument, "a photo's name is not text of at most 1024 bytes");
    total += n.key.size();
  }
  if (r.names.size() > names_max || total > names_bytes_max) return fail(errc::too_large, "the same photo has more than 1000 names");
  return r;
}

bytes to_json(const record& r) {
  json j = {{"v", 1}, {"id", r.id.hex()}, {"format", r.format}, {"width", r.width}, {"height", r.height}};
  if (!r.taken.empty()) j["taken"] = r.taken;
  if (r.taken_offset_minutes) j["offset"] = *r.taken_offset_minutes;
  if (!r.make.empty()) j["make"] = r.make;
  if (!r.model.empty()) j["model"] = r.model;
  if (!r.lens.empty()) j["lens"] = r.lens;
  if (r.iso) j["iso"] = *r.iso;
  if (r.exposure_s) j["exposure"] = *r.exposure_s;
  if (r.f_number) j["f"] = *r.f_number;
  if (r.focal_mm) j["focal"] = *r.focal_mm;
  if (r.latitude && r.longitude) j["place"] = {*r.latitude, *r.longitude, number_or_null(r.altitude_m)};
  if (!r.thumbhash.empty()) j["thumbhash"] = to_base64(r.thumbhash);
  j["renditions"] = json::array();
  for (const auto& m : r.renditions)
    j["renditions"].push_back({{"size", m.size}, {"type", m.jpeg ? "jpg" : "webp"}, {"width", m.width}, {"height", m.height}, {"bytes", m.size_bytes}});
  j["names"] = json::array();
  for (const auto& n : r.names) j["names"].push_back({{"key", n.key}, {"bytes", n.size_bytes}});
  if (r.final) j["final"] = true;
  return j.dump(-1, ' ', false, json::error_handler_t::replace);
}

result<record> record_from_json(bytes_view text, const photo_id& id) {
  TRY(const json j, parse_json(text));
  if (!j.is_object() || text_of(j, "id") != id.hex()) return fail(errc::corrupt, "the record of photo " + id.short_hex() + " is another's");
  record r;
  r.id = id;
  r.format = text_of(j, "format");
  r.width = as_u32(count_of(j, "width")), r.height = as_u32(count_of(j, "height"));
  r.taken = text_of(j, "taken");
  if (const auto it = j.find("offset"); it != j.end() && it->is_number_integer() && std::abs(it->get<double>()) <= 16 * 60) r.taken_offset_minutes = it->get<int>();
  r.make = text_of(j, "make"), r.model = text_of(j, "model"), r.lens = text_of(j, "lens");
  if (j.contains("iso")) r.iso = as_u32(count_of(j, "iso"));
  r.exposure_s = double_of(j, "exposure"), r.f_number = double_of(j, "f"), r.focal_mm = double_of(j, "focal");
  if (const auto p = j.find("place"); p != j.end() && p->is_array() && p->size() == 3 && (*p)[0].is_number() && (*p)[1].is_number()) {
    r.latitude = (*p)[0].get<double>(), r.longitude = (*p)[1].get<double>();
    if ((*p)[2].is_number()) r.altitude_m = (*p)[2].get<double>();
  }
  if (auto t = from_base64(text_of(j, "thumbhash"))) r.thumbhash = *t;
  const auto list = [&](const char* name, std::size_t max) {
    const auto it = j.find(name);
    return it != j.end() && it->is_array() && it->size() <= max ? *it : json::array();
  };
  for (const json& m : list("renditions", renditions_max)) {
    const std::string type = text_of(m, "type");
    if (type == "jpg" || type == "webp")
      r.renditions.push_back({as_u16(count_of(m, "size")), type == "jpg", as_u16(count_of(m, "width")), as_u16(count_of(m, "height")), count_of(m, "bytes")});
  }
  for (const json& n : list("names", names_max)) r.names.push_back({text_of(n, "key"), count_of(n, "bytes")});
  const auto final = j.find("final");
  r.final = final != j.end() && final->is_boolean() && final->get<bool>();
  auto checked = normalized(std::move(r));
  if (!checked) return fail(errc::corrupt, "the record of photo " + id.short_hex() + " is damaged: " + checked.error().detail);
  return checked;
}

std::string month_of(const record& r) { return r.taken.empty() ? "undated" : r.taken.substr(0, 7); }

std::vector<std::string> albums_of(const record& r) {
  std::vector<std::string> a;
  for (const source_name& n : r.names) a.push_back(album_of(n.key));
  std::ranges::sort(a);
  const auto again = std::ranges::unique(a);
  a.erase(again.begin(), again.end());
  return a;
}

item item_of(const record& r) {
  item i{r.id, r.taken, r.width, r.height, r.thumbhash, 0};
  for (std::size_t s = 0; s < rendition_sizes.size(); ++s) {
    const auto has = [&](bool jpeg) {
      return std::ranges::any_of(r.renditions, [&](const rendition_made& m) { return m.size == rendition_sizes[s] && m.jpeg == jpeg; });
    };
    if (has(false) && has(true)) i.sizes = static_cast<std::uint8_t>(i.sizes | (1u << s));
  }
  return i;
}

std::vector<std::uint16_t> sizes_of(std::uint32_t width, std::uint32_t height) {
  std::vector<std::uint16_t> sizes;
  for (std::uint16_t s : rendition_sizes) {
    sizes.push_back(s);
    if (s >= std::max(width, height)) break;
  }
  return sizes;
}

std::vector<std::uint16_t> missing_sizes(const record& r) {
  std::vector<std::uint16_t> sizes;
  if (!r.final) sizes = sizes_of(r.width, r.height);
  std::erase_if(sizes, [&](std::uint16_t s) {
    const auto has = [&](bool jpeg) { return std::ranges::any_of(r.renditions, [&](const rendition_made& m) { return m.size == s && m.jpeg == jpeg; }); };
    return has(false) && has(true);
  });
  return sizes;
}

std::string record_key(const photo_id& id) { return "i/" + id.hex() + ".json"; }
std::string rendition_key(const photo_id& id, std::uint16_t size, bool jpeg) {
  return "t/" + id.hex() + "/" + std::to_string(size) + (jpeg ? ".jpg" : ".webp");
}
std::string photo_folder(const photo_id& id) { return "p/" + id.hex() + "/"; }
std::string month_folder(std::string_view month, std::uint32_t part) {
  return "m/" + std::string(month) + "/" + (part > 1 ? std::to_string(part) + "/" : "");
}
std::string album_folder(std::string_view path, std::uint32_t part) { return album_base(path) + (part > 1 ? "~" + std::to_string(part) + "/" : ""); }
std::string album_list_folder(std::string_view path, std::uint32_t part) {
  return album_base(path) + (part > 1 ? "~albums/" + std::to_string(part) + "/" : "");
}
std::string timeline_folder(std::uint32_t part) { return part > 1 ? "timeline/" + std::to_string(part) + "/" : ""; }
std::string_view base_name(std::string_view key) noexcept {
  const auto slash = key.rfind('/');
  return slash == std::string_view::npos ? key : key.substr(slash + 1);
}

}  // namespace grenier::gallery
