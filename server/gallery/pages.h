// gallery/pages.h: the gallery's pages in HTML, in every language, made from the catalogue alone.
//
// A page can be read, browsed and its pictures downloaded without a script. It has no inline style or script, so that it may be served
// with default-src 'none', and relative links only, which name files (index.html, index.fr.html): a folder of these objects can be opened
// from any host, under any path, and from a disk. The one exception is 404.html, which is shown in any folder and links from the root.
//
//   Runs on   any thread; no I/O (see catalogue.h for shelves).
//   Errors    as in catalogue.h.
//   Limits    a page has at most 120 photos and 48 albums, or 6 months of 8 photos.
//   Not here  renditions, originals: o/<id>/<file name> is answered by the web server or written by an export.
#pragma once

#include "gallery/catalogue.h"
#include "gallery/text.h"

namespace grenier::gallery {

// Objects that all pages share, by their keys: "assets/<hash>.css".
struct page_assets {
  std::string style, early_script, script, icon;
  // Name and text of the licence of each package in the scripts.
  std::vector<std::pair<std::string, std::string>> licences;
};

struct written_pages {
  std::vector<object> objects;
  std::vector<std::string> remove;  // files of pages that are no more
};

// Each page in each language. A photo whose record is not there (yet) is left out: who writes the record writes its page.
// Each page is independent of the others: few at a time bound the memory.
result<written_pages> write_pages(shelf&, const catalogue&, std::span<const page_id>, const page_assets&);

// The files of a page: "m/2024-07/index.html", "m/2024-07/index.fr.html".
std::vector<std::string> files_of(const page_id&);

// The class of the stylesheet that has the average colour of a thumbhash, "k0" to "k199"; "" for none. See ui/build.py.
std::string colour_class(bytes_view thumbhash);
// The class for an aspect ratio, "r8" (0.4) to "r60" (3.0).
std::string ratio_class(std::uint32_t width, std::uint32_t height);

}  // namespace grenier::gallery
