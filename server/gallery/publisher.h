// gallery/publisher.h: brings what was found out of photos into the gallery: records, catalogue, pages.
//
// The catalogue's root is changed by compare-and-swap and each record too, so that any number of homes may publish at once; pages are
// written from the newest root, by whoever writes last.
//
//   Owns      nothing. One publish() at a time for a gallery on one home; more only cost repetitions.
//   Runs on   its home thread.
//   Durable   when publish() returns, all objects are: records last, which say that the work is done. Cut off half-way it is repeated
//             whole and does no harm.
//   Errors    the store's; overloaded: others changed the gallery all the time.
#pragma once

#include "gallery/objects.h"
#include "gallery/ui_assets.h"

namespace grenier::gallery {

struct news {
  photo_id id;
  // What was rendered; not needed where a record is known to be there. Its names do not count.
  std::optional<record> fresh;
  std::vector<source_name> added;
  std::vector<std::string> gone;  // keys of the source bucket
};

struct published {
  // Photos without a record that no rendering came with: to be rendered and published anew.
  std::vector<photo_id> unknown;
};

class publisher {
 public:
  publisher(runtime& rt, objects& o) : rt_(rt), objects_(o) {}
  // settings: title and source bucket, written into the root when they differ. At most 100 photos.
  task<result<published>> publish(std::vector<news>, std::string title, std::string source, std::uint64_t waiting);
  // All pages, stylesheets and scripts, from the catalogue as it is; renditions and records stay. After a change of the program.
  task<result<void>> write_all_pages();

 private:
  struct attempt;
  task<result<void>> load(attempt&);
  task<result<std::vector<page_id>>> list_pages(attempt&);
  task<result<bool>> try_once(std::vector<news>&, const std::string& title, const std::string& source, std::uint64_t waiting, published& out);
  task<result<std::vector<photo_id>>> named_anew(const change&, const std::map<std::string, std::string>& read_with);
  task<result<void>> write_from(attempt&, std::vector<page_id>, const std::vector<object>& records);
  task<result<void>> write_assets();
  runtime& rt_;
  objects& objects_;
};

}  // namespace grenier::gallery
