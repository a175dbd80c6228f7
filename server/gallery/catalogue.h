// gallery/catalogue.h: what the gallery knows of its photos: records, months, albums; and what a change of them has to write.
//
// Everything is JSON under names that any S3 client can read. i/<id>.json is a photo's record: from all records together the rest can
// be made again. c/root.json is small, of one size, and changed by If-Match; below it hang sorted trees of shards, c/<sha256>.json, which
// are never changed: the tree of months, a tree of photos for each month, and an album for each folder with a tree of its folders and
// one of its photos. A leaf of a tree is a page of the gallery and keeps its page's number for life, so that a change touches the pages
// on the way from its leaf to the root and nothing else, however large the library is.
//
//   Runs on   any thread; no I/O, no clock, no randomness. What has to be read is asked for through a shelf: a function that misses
//             something fails with `unavailable`; fetch what shelf::take_wanted() names, put() it, call again. A call takes as many
//             rounds as the trees are deep.
//   Errors    unavailable (see above); corrupt: a stored object is not what its name says, or not well-formed: rebuild from records;
//             invalid_argument, too_large: the photo cannot be kept, detail says why.
//   Limits    1 MiB an object read; 120 photos a leaf, 6 months, 48 albums; 1000 names a photo; albums 8 deep, deeper folders count
//             as their ancestor; 1000 photos a change.
//   Not here  reading and writing of objects, retries, who does the work (gallery/worker); HTML (gallery/pages.h).
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>

#include "gallery/shelf.h"

namespace grenier::gallery {

using photo_id = content_id;

inline constexpr std::size_t names_max = 1000;
inline constexpr std::size_t photos_per_change_max = 1000;
inline constexpr std::size_t album_depth_max = 8;

// ---------------------------------------------------------------------------------------------- a photo

struct rendition_made {
  std::uint16_t size = 0;  // as asked for and as in its name: 320, 640, 1280, 2048
  bool jpeg = false;       // else WebP
  std::uint16_t width = 0, height = 0;  // what it really is
  std::uint64_t size_bytes = 0;
  friend bool operator==(const rendition_made&, const rendition_made&) = default;
};

struct source_name {
  std::string key;  // in the source bucket; UTF-8
  std::uint64_t size_bytes = 0;
  friend auto operator<=>(const source_name&, const source_name&) = default;
};

struct record {
  photo_id id;
  std::string format;                   // "jpeg", as picture::to_string says it
  std::uint32_t width = 0, height = 0;  // upright
  // "2024-07-14T10:11:12" by the camera's clock; empty when not known, or not a time between 1826 and 2199.
  std::string taken;
  std::optional<int> taken_offset_minutes;
  std::string make, model, lens;
  std::optional<std::uint32_t> iso;
  std::optional<double> exposure_s, f_number, focal_mm;
  // Set only where the owner shows places: the record is as public as the page.
  std::optional<double> latitude, longitude, altitude_m;
  bytes thumbhash;
  std::vector<rendition_made> renditions;  // by size, then WebP before JPEG
  std::vector<source_name> names;          // by key, each once
  bool final = false;                      // its larger sizes cannot be made: there will be no more than there is
  friend bool operator==(const record&, const record&) = default;
};

// Sorted, without doubles, within bounds, `taken` emptied when it is no date; invalid_argument or too_large when it cannot be kept.
result<record> normalized(record);
bytes to_json(const record&);
// REQUIRES nothing: whatever a client may have put there. `id` is what the object's name says.
result<record> record_from_json(bytes_view, const photo_id& id);

// "2024-07", or "undated".
std::string month_of(const record&);
// The albums of its names: "holidays/2024" for holidays/2024/a.jpg, "" for a.jpg; each once, sorted.
std::vector<std::string> albums_of(const record&);

// What a page of many photos needs of one: about 120 bytes in a shard.
struct item {
  photo_id id;
  std::string taken;  // as in the record
  std::uint32_t width = 0, height = 0;
  bytes thumbhash;
  std::uint8_t sizes = 0;  // bit 0: 320, 1: 640, 2: 1280, 3: 2048 is there (both WebP and JPEG)
};
item item_of(const record&);
inline constexpr std::array<std::uint16_t, 4> rendition_sizes = {320, 640, 1280, 2048};
// Those that a photo of this extent has in the end: below its long edge, and the first that reaches it.
std::vector<std::uint16_t> sizes_of(std::uint32_t width, std::uint32_t height);
// Those of them that are still to be made, in WebP or JPEG.
std::vector<std::uint16_t> missing_sizes(const record&);

// ---------------------------------------------------------------------------------------------- names of objects

std::string record_key(const photo_id&);                                         // i/<id>.json
std::string rendition_key(const photo_id&, std::uint16_t size, bool jpeg);       // t/<id>/640.webp
std::string photo_folder(const photo_id&);                                       // p/<id>/
std::string month_folder(std::string_view month, std::uint32_t part);            // m/2024-07/ or m/2024-07/3/
std::string album_folder(std::string_view path, std::uint32_t part);             // a/holidays/2024/ or a/holidays/2024/~3/
std::string album_list_folder(std::string_view path, std::uint32_t part);        // a/holidays/~albums/2/; part 1 is the album's own
std::string timeline_folder(std::uint32_t part);                                 // "" or timeline/2/
inline constexpr std::string_view root_key = "c/root.json";
std::string_view base_name(std::string_view key) noexcept;

// ---------------------------------------------------------------------------------------------- the catalogue

// c/root.json
struct catalogue {
  std::uint64_t version = 0;  // goes up by one with each change
  std::string title;          // of the gallery
  std::string bucket;         // the source
  std::uint64_t photos = 0;
  std::uint64_t waiting = 0;  // pictures known of and not rendered yet, as the change that wrote this knew it
  tree_root months;           // newest first, undated last; values: month_entry
  std::string albums;         // shard of the album of all, "" while there is nothing
};
bytes to_json(const catalogue&);
result<catalogue> catalogue_from_json(bytes_view);

struct month_entry {
  std::string month;
  std::vector<item> preview;  // its first 8
  tree_root photos;           // newest first
  std::uint64_t count() const noexcept { return photos.count(); }
};

// A folder: a shard of its own.
struct album {
  std::string path;
  std::uint64_t count = 0;    // with all folders below
  std::optional<item> cover;
  tree_root folders;          // by name; values: album_entry
  tree_root photos;           // oldest first, undated last
};
struct album_entry {
  std::string name;
  std::uint64_t count = 0;
  std::optional<item> cover;
  std::string shard;
};

// Keys and values in the trees, each bounded and checked like everything that is read.
std::string month_key(std::string_view month);
std::string timeline_key(const item&);  // within a month: newest first
std::string album_key(const item&);     // within an album: oldest first
result<photo_id> id_in_key(std::string_view key);
result<item> item_from_entry(const tree_entry&, bool newest_first);
result<month_entry> month_from_entry(const tree_entry&);
result<album_entry> album_from_entry(const tree_entry&);
// not_found when there is none.
result<month_entry> find_month(shelf&, const catalogue&, std::string_view month);
result<album> find_album(shelf&, const catalogue&, std::string_view path);
// Its neighbours in the timeline, across months.
struct neighbours {
  std::optional<photo_id> newer, older;
};
result<neighbours> neighbours_of(shelf&, const catalogue&, const item&);

// ---------------------------------------------------------------------------------------------- pages that a change touches

enum class page_kind : std::uint8_t { timeline, archive, month, album, album_list, photo, about, not_found };

// A page is found again by the first key of its leaf: when another change has moved things since, it is written as it is now, or
// removed when it is no more.
struct page_id {
  page_kind kind = page_kind::timeline;
  std::string of;           // month or album path
  std::uint32_t part = 1;   // number of the leaf
  std::string at;           // a key in it
  photo_id photo;
  friend auto operator<=>(const page_id&, const page_id&) = default;
};

// ---------------------------------------------------------------------------------------------- a change

// before: the record as it is stored; after: as it shall be. New photo: no before; the last name gone: no after. A change that was
// made already, whole or in part, does no harm when it is made again.
struct photo_change {
  std::optional<record> before, after;
};
struct change {
  std::vector<photo_change> photos;
  std::optional<std::string> title, bucket;
  std::optional<std::uint64_t> waiting;
};

// To be done in this order: put all shards; put the root with If-Match on the one that was given (If-None-Match: * when there was none);
// refused: read it and make the plan anew. Then write `pages` (gallery/pages.h), and when the root has moved on meanwhile, the same pages
// from the newer root, until it has not: so whoever writes a page last writes it from the newest root. Then put `records`, which say that
// the work is done; then remove what is left.
struct plan {
  std::vector<object> shards;
  catalogue root;
  std::vector<page_id> pages;
  std::vector<object> records;
  std::vector<std::string> remove;  // former shards; record, renditions and pages of photos that are gone
};
result<plan> make_plan(shelf&, const catalogue&, const change&);

// Every page of the gallery; reads every shard.
result<std::vector<page_id>> all_pages(shelf&, const catalogue&);

}  // namespace grenier::gallery
