// gallery/wishes.h: what a visitor of a gallery looks for and does not find is raised at whoever works on it.
//
//   Runs on   its home thread; beside the answer to the visitor, never before it.
//   Cancel    stop().
//   Errors    none: a wish that is lost is made again by whoever goes on looking.
//   Limits    64 wishes wait, one is under way; one a photo in 2 s; a thousand photos are remembered.
//   Not here  the work (worker.h), who may look (web/).
#pragma once

#include "gallery/catalogue.h"
#include "gallery/roles.h"
#include "store/store.h"
#include "table/table.h"

namespace grenier::gallery {

class wishes {
 public:
  wishes(runtime& rt, store::service& s, table::replicated& t, cluster::directory& d, wire::endpoint& e) : rt_(rt), store_(s), tables_(t), directory_(d), endpoint_(e), group_(rt) {}
  // A visitor asked for this object of a gallery's pages ("t/<id>/640.webp", "p/<id>/index.html"), and it is not there; or it is there and
  // says that it waits for more. Any other name: nothing happens.
  void looked_for(const model::bucket& pages, std::string_view key, bool there);
  task<void> stop();

 private:
  struct looked {
    std::string pages, source;
    photo_id photo;
    std::string missing;  // "" when the page is there
  };
  task<void> run();
  task<void> raise(looked);
  runtime& rt_;
  store::service& store_;
  table::replicated& tables_;
  cluster::directory& directory_;
  wire::endpoint& endpoint_;
  task_group group_;
  std::deque<looked> waiting_;
  std::map<std::pair<std::string, photo_id>, mono_time> recent_;
  bool running_ = false;
};

// What travels between homes, as wire::method::gallery_want.
struct wish {
  bucket_id bucket;  // the source
  photo_id photo;
  bool check = false;  // something that was there is missing
  std::string key;     // one of the photo's names
};
bytes to_bytes(const wish&);
std::optional<wish> wish_from(bytes_view);

// Thumbhubs that hear of this bucket, in the order in which a piece of work is theirs.
std::vector<node_id> order_for(const table::replicated&, const cluster::directory&, const bucket_id&, std::string_view work);

}  // namespace grenier::gallery
