#include "gallery/html.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace grenier::gallery {

namespace {

// What the picture is wide when its long edge is `size`.
std::uint32_t width_at(const item& i, std::uint16_t size) {
  const std::uint32_t edge = std::max(i.width, i.height);
  if (edge <= size) return i.width;
  return std::max(1u, static_cast<std::uint32_t>(std::lround(static_cast<double>(i.width) * size / edge)));
}

std::string_view megapixels_sign = " MP";

void fact(page& p, word name, std::string_view value) {
  if (value.empty()) return;
  p.raw("<div><dt>").say_word(name).raw("</dt><dd>").text(value).raw("</dd></div>\n");
}

std::string camera_of(const record& r) {
  // "NIKON CORPORATION" made the "NIKON D5300".
  if (r.make.empty() || r.model.starts_with(r.make.substr(0, r.make.find(' ')))) return r.model;
  return r.model.empty() ? r.make : r.make + " " + r.model;
}

std::string light_of(language l, const record& r) {
  std::string s;
  const auto add = [&](const std::string& part) { s += (s.empty() ? "" : " · ") + part; };
  if (r.exposure_s) add(exposure_text(l, *r.exposure_s));
  if (r.f_number) add("f/" + decimal_text(l, *r.f_number, 1));
  if (r.iso) add("ISO " + std::to_string(*r.iso));
  return s;
}

std::string when(language l, const record& r) {
  const auto t = parse_time(r.taken);
  if (!t) return {};
  std::string s = time_text(l, *t);
  if (r.taken_offset_minutes) {
    const int o = std::abs(*r.taken_offset_minutes);
    s += fmt::format(" (UTC{}{}{})", *r.taken_offset_minutes < 0 ? "−" : "+", o / 60, o % 60 ? fmt::format(":{:02}", o % 60) : "");
  }
  return s;
}

}  // namespace

std::string title_of(const catalogue& c) { return !c.title.empty() ? c.title : !c.bucket.empty() ? c.bucket : "Photos"; }

std::string colour_class(bytes_view h) {
  if (h.size() < 5) return {};
  const auto at = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(h[i])); };
  const unsigned header = at(0) | at(1) << 8 | at(2) << 16;
  const auto level = [](double v) -> unsigned {  // the nearest of -0.4, -0.13, 0, 0.13, 0.4
    const double a = std::abs(v);
    const int d = a < 0.065 ? 0 : a < 0.265 ? 1 : 2;
    return static_cast<unsigned>(v < 0 ? 2 - d : 2 + d);
  };
  const unsigned l = (header & 63) >> 3;
  const unsigned p = level((header >> 6 & 63) / 31.5 - 1), q = level((header >> 12 & 63) / 31.5 - 1);
  return fmt::format("k{}", l * 25 + p * 5 + q);
}

std::string ratio_class(std::uint32_t width, std::uint32_t height) {
  const double r = static_cast<double>(width) / std::max(height, 1u);
  return fmt::format("r{}", std::clamp<long>(std::lround(r * 20), 8, 60));
}

page begin(const catalogue& c, const page_assets& a, language l, std::string folder, section here, std::string_view title, bool from_root, bool waits) {
  page p{l, std::move(folder), {}, &c, &a, {}};
  if (from_root) p.up = "/";
  else
    for (auto n = std::ranges::count(p.folder, '/'); n > 0; --n) p.up += "../";
  const language other = l == language::english ? language::french : language::english;
  const std::string name = title_of(c), other_file = from_root ? "" : std::string(file_name(other));
  p.out.reserve(16 * 1024);
  p.raw("<!doctype html>\n<html lang=\"").raw(code(l)).raw("\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"generator\" content=\"Grenier\">\n<title>");
  if (!title.empty()) p.text(title).raw(" · ");
  p.text(name).raw("</title>\n<meta name=\"description\" content=\"");
  if (!title.empty()) p.text(title).raw(" · ");
  p.text(name).raw("\">\n");
  if (!a.icon.empty()) p.raw("<link rel=\"icon\" type=\"image/svg+xml\" href=\"").raw(p.to_file(a.icon)).raw("\">\n");
  p.raw("<link rel=\"stylesheet\" href=\"").raw(p.to_file(a.style)).raw("\">\n");
  if (!a.early_script.empty()) p.raw("<script src=\"").raw(p.to_file(a.early_script)).raw("\"></script>\n");
  if (!a.script.empty()) p.raw("<script src=\"").raw(p.to_file(a.script)).raw("\" defer></script>\n");
  if (waits) p.raw("<noscript><meta http-equiv=\"refresh\" content=\"4\"></noscript>\n");
  p.raw("</head>\n<body").raw(here == section::timeline && title.empty() ? " class=\"start\"" : "").raw(" data-up=\"").raw(p.up).raw("\">\n<a class=\"skip\" href=\"#main\">").say_word(word::skip).raw("</a>\n<header class=\"top\">\n<a class=\"brand\" href=\"");
  p.raw(p.to_page("")).raw("\"><svg viewBox=\"0 0 32 32\" width=\"28\" height=\"28\" aria-hidden=\"true\" focusable=\"false\"><path d=\"M4 16 16 5l12 11M7.500 13.500V27h17V13.500\" fill=\"none\" "
        "stroke=\"currentColor\" stroke-width=\"2.4\" stroke-linejoin=\"round\" stroke-linecap=\"round\"/><path d=\"m10.500 24 4.500-6 3 3 1.800-2 2.700 5z\" fill=\"currentColor\"/></svg><span>").text(name).raw("</span></a>\n<nav aria-label=\"").say_word(word::navigation).raw("\">");
  const auto tab = [&](section s, std::string_view to, word w) {
    p.raw("<a href=\"").raw(p.to_page(to)).raw(here == s ? "\" aria-current=\"page\">" : "\">").say_word(w).raw("</a>");
  };
  tab(section::timeline, "", word::timeline);
  tab(section::albums, "a/", word::albums);
  p.raw("</nav>\n");
  if (!from_root)
    p.raw("<a class=\"lang\" href=\"").raw(other_file).raw("\" hreflang=\"").raw(code(other)).raw("\" lang=\"").raw(code(other)).raw("\">").say_word(word::other_language).raw("</a>\n");
  p.raw("</header>\n<main id=\"main\" tabindex=\"-1\">\n");
  return p;
}

bytes end(page p) {
  p.raw("</main>\n<footer class=\"foot\"><a href=\"").raw(p.to_page("about/")).raw("\">").say_word(word::about).raw("</a></footer>\n</body>\n</html>\n");
  return std::move(p.out);
}

std::string alt_text(language l, const std::string& taken) {
  const auto t = parse_time(taken);
  return t ? std::string(say(l, word::photo_on)) + time_text(l, *t) : std::string(say(l, word::photo)) + ", " + std::string(say(l, word::undated));
}

std::string sources(const page& p, const item& i) {
  std::string set, first;
  for (std::size_t s = 0, named = 0; s < rendition_sizes.size() && named < 2; ++s) {
    if (!(i.sizes >> s & 1)) continue;
    if (first.empty()) first = p.to_file(rendition_key(i.id, rendition_sizes[s], true));
    set += fmt::format("{}{} {}w", set.empty() ? "" : ", ", p.to_file(rendition_key(i.id, rendition_sizes[s], false)), width_at(i, rendition_sizes[s]));
    ++named;
  }
  return first.empty() ? std::string() : fmt::format("src=\"{}\" srcset=\"{}\"", first, set);
}

void grid(page& p, std::span<const item> items, std::string_view extra_class) {
  p.raw("<ul class=\"grid").raw(extra_class).raw("\" role=\"list\">\n");
  for (const item& i : items) {
    const std::string from = sources(p, i);
    p.raw(fmt::format("<li class=\"{}\"><a class=\"{}\" href=\"{}\" data-s=\"{}\">", ratio_class(i.width, i.height), colour_class(i.thumbhash), p.to_page(photo_folder(i.id)), i.sizes));
    if (from.empty()) p.raw("<span class=\"none\">").text(alt_text(p.lang, i.taken)).raw("</span>");
    else
      p.raw(fmt::format("<img {} sizes=\"(min-width:700px) 300px,45vw\" width=\"{}\" height=\"{}\" loading=\"lazy\" decoding=\"async\" alt=\"", from, i.width,
                        i.height))
          .text(alt_text(p.lang, i.taken))
          .raw(i.thumbhash.empty() ? "\">" : "\" data-h=\"" + to_base64(i.thumbhash) + "\">");
    p.raw("</a></li>\n");
  }
  p.raw("</ul>\n");
}

void picture(page& p, const record& r) {
  std::string sets[2];
  const rendition_made* largest = nullptr;
  const rendition_made* plain = nullptr;  // what old browsers get
  for (const rendition_made& m : r.renditions) {
    std::string& set = sets[m.jpeg ? 1 : 0];
    set += fmt::format("{}{} {}w", set.empty() ? "" : ", ", p.to_file(rendition_key(r.id, m.size, m.jpeg)), m.width);
    if (!largest || m.width > largest->width) largest = &m;
    if (m.jpeg && (!plain || m.size <= 1280)) plain = &m;
  }
  if (!plain) plain = largest;
  if (!plain) {
    p.raw("<p class=\"none\">").say_word(word::failed).raw("</p>\n");
    return;
  }
  // It has its place as it will be when all sizes are there.
  std::uint32_t width = largest->width, height = largest->height;
  const bool waits = !missing_sizes(r).empty();
  if (waits) {
    const item i = item_of(r);
    const auto last = sizes_of(r.width, r.height).back();
    width = width_at(i, last);
    height = std::max(1u, static_cast<std::uint32_t>(std::lround(static_cast<double>(width) * r.height / r.width)));
  }
  // As wide as the window, unless its height or its own pixels bound it first.
  const std::string sizes = fmt::format("sizes=\"(max-aspect-ratio:{0}/{1}) 100vw, min({2}px, {3}vh)\"", r.width, r.height, width,
                                        std::max(1L, std::lround(88.0 * r.width / r.height)));
  p.raw("<picture>");
  if (!sets[0].empty() && !sets[1].empty()) p.raw(fmt::format("<source type=\"image/webp\" srcset=\"{}\" {}>", sets[0], sizes));
  p.raw(fmt::format("<img src=\"{}\" srcset=\"{}\" {} width=\"{}\" height=\"{}\" decoding=\"async\" fetchpriority=\"high\"{} data-h=\"{}\" alt=\"",
                    p.to_file(rendition_key(r.id, plain->size, plain->jpeg)), sets[sets[1].empty() ? 0 : 1], sizes, width, height, waits ? " data-wait" : "", to_base64(r.thumbhash)))
      .text(alt_text(p.lang, r.taken))
      .raw("\"></picture>\n");
}

void pager(page& p, const std::optional<step_link>& back, const std::optional<step_link>& on) {
  if (!back && !on) return;
  p.raw("<nav class=\"pager\" aria-label=\"").say_word(word::parts).raw("\">");
  if (back) p.raw("<a rel=\"prev\" href=\"").raw(p.to_page(back->folder)).raw("\"><span aria-hidden=\"true\">←</span> ").text(back->words).raw("</a>");
  if (on) p.raw("<a rel=\"next\" href=\"").raw(p.to_page(on->folder)).raw("\">").text(on->words).raw(" <span aria-hidden=\"true\">→</span></a>");
  p.raw("</nav>\n");
}

std::string download_key(const record& r) {
  std::string name(base_name(r.names.front().key));
  if (name.empty() || name == "." || name == "..") name = r.id.short_hex() + (r.format.empty() ? "" : "." + r.format);
  return "o/" + r.id.hex() + "/" + name;
}

void facts(page& p, const record& r) {
  p.raw("<dl class=\"facts\">\n");
  fact(p, word::taken, when(p.lang, r));
  fact(p, word::camera, camera_of(r));
  fact(p, word::lens, r.lens);
  fact(p, word::exposure, light_of(p.lang, r));
  if (r.focal_mm) fact(p, word::focal, decimal_text(p.lang, *r.focal_mm, 1) + " mm");
  const double megapixels = static_cast<double>(r.width) * r.height / 1e6;
  fact(p, word::size, number_text(p.lang, r.width) + " × " + number_text(p.lang, r.height) + (megapixels >= 0.1 ? ", " + decimal_text(p.lang, megapixels, 1) + std::string(megapixels_sign) : ""));
  if (r.latitude && r.longitude) fact(p, word::place, place_text(p.lang, *r.latitude, *r.longitude));
  fact(p, word::file, base_name(r.names.front().key));
  if (r.names.size() > 1) {
    std::string others;
    for (std::size_t i = 1; i < r.names.size() && i < 10; ++i) others += (others.empty() ? "" : ", ") + std::string(r.names[i].key);
    fact(p, word::copy_of, r.names.size() > 10 ? others + ", …" : others);
  }
  p.raw("</dl>\n");
}

}  // namespace grenier::gallery
