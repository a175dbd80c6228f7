// gallery/html.h: private to the pages: what every page has around and in it.
#pragma once

#include "gallery/pages.h"

namespace grenier::gallery {

// One page in one language while it is written. Text goes through text(), never into out directly.
struct page {
  language lang;
  std::string folder;  // "m/2024-07/": where the file is
  std::string out;
  const catalogue* root = nullptr;
  const page_assets* assets = nullptr;
  std::string up;      // "../../", or "/" where links are from the root

  std::string_view word(gallery::word w) const noexcept { return say(lang, w); }
  page& raw(std::string_view html) { return out += html, *this; }
  page& text(std::string_view t) { return out += escape(t), *this; }
  page& say_word(gallery::word w) { return text(word(w)); }
  // To a key of the bucket, and to a page in this language.
  std::string to_file(std::string_view key) const { return escape(up + encode_path(key)); }
  std::string to_page(std::string_view to_folder) const { return to_file(std::string(to_folder) + std::string(file_name(lang))); }
};

enum class section : std::uint8_t { timeline, albums, other };

page begin(const catalogue&, const page_assets&, language, std::string folder, section, std::string_view title, bool from_root = false, bool waits = false);
bytes end(page);

// "Photo, 14 July 2024, 10:11"
std::string alt_text(language, const std::string& taken);
// src="..." srcset="..." of its small renditions; empty when there are none.
std::string sources(const page&, const item&);
// <ul> of links to photos.
void grid(page&, std::span<const item>, std::string_view extra_class);
void picture(page&, const record&);
struct step_link {
  std::string folder, words;
};
// Links back and on at the end of a page.
void pager(page&, const std::optional<step_link>& back, const std::optional<step_link>& on);
void facts(page&, const record&);
std::string download_key(const record&);
std::string title_of(const catalogue&);

}  // namespace grenier::gallery
