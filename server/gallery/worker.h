// gallery/worker.h: the role that makes galleries: it hears which objects changed, has their pictures rendered, and publishes them.
//
// Every home that keeps the rows of a bucket hears of its changes (table's feed) and notes them in a queue of its own. For each object
// these homes have an order by how quick and idle they are (roles.h); the first of it that is up works, the others look now and then
// whether it is done, and move up when one before them goes dark: the name's own note (n/... or f/..., see below) tells. What is done
// twice after a failure does no harm.
//
// A large photo is rendered twice: its smallest size first, which takes a tenth of the time, and is published; the others when no photo
// waits for its first. Its note says which sizes are there, so whoever comes to it goes on where the last one stopped. What visitors look
// for (wishes.h) is before all. What should be there and is not is made again: when somebody misses it, and by a slow look at everything.
//
//   Owns      entries "gallery/..." of kv family task_queue; in the bucket with the pages everything; the reader "gallery" of the feed; the
//             endpoint's handler gallery_want; what is announced as pace_name.
//   Runs on   its home thread; pictures are decoded by the renderer's children.
//   Durable   a change that was heard of stays in the queue until its photo is published.
//   Cancel    stop(): what was under way begins anew at the next start.
//   Errors    kept in the gallery's status; tried again after 2 s, 8 s, ... 1 h.
//   Limits    photos_at_once pictures under way (their bytes: block by block, and what the renderer allows); 100 photos a publication.
//   Not here  pages and catalogue (pages.h, catalogue.h); decoding (picture/); who may look (web/).
//
// Objects that it keeps besides the gallery's (never served): n/<hash of key>.json: this version of that object is photo <id>, or no
// picture; "sizes" names those that are there, when it is not all; f/<hash of key>.json: it cannot be decoded, and why.
#pragma once

#include "gallery/publisher.h"
#include "gallery/roles.h"
#include "picture/picture.h"

namespace grenier::gallery {

// "photos" -> "photos-gallery"
std::string pages_bucket_of(std::string_view bucket);
// Of the pages' bucket: not for visitors.
inline bool is_private_key(std::string_view key) { return key.starts_with("n/") || key.starts_with("f/"); }

struct failure {
  std::string key, reason;
};

struct work_status {
  std::uint64_t waiting = 0;        // for this home to look at
  std::uint64_t completing = 0;     // shown already; larger sizes are to come, or it is looked whether all is there
  std::uint64_t standing_by = 0;    // another home's turn; this one looks now and then whether it is done
  std::uint64_t rendered = 0;       // by this home since its start
  std::uint64_t failed = 0;         // likewise: pictures that cannot be decoded
  std::uint64_t restored = 0;       // likewise: small pictures and pages that were lost, and made again
  double photos_per_minute = 0;     // of the last minutes, 0 while there is nothing to do
  bool looking = false;             // it still lists what the bucket holds
  std::string last_error;
};

class worker {
 public:
  struct options {
    std::size_t photos_at_once = 2;
    nanoseconds gather = 400ms;           // a publication waits so long for more photos, unless there are none to wait for
    nanoseconds gather_rests = 2s;        // the same when all in it are shown already
    std::uint64_t twice_from = 256 << 10; // of files of this size on (and of JPEGs of a megapixel) the smallest rendition comes first
    nanoseconds check_every = 1min;       // so often some photos are looked at, whether all is there that should be
    std::size_t check_photos = 100;
    std::size_t gather_max = 50;
    nanoseconds first_look = 5s;          // after which the next homes look whether it is done; four times as long each time, to 10 min
    nanoseconds standby = 1h;             // after which they do it all the same
    nanoseconds refresh = 2s;             // of the list of galleries
  };
  worker(runtime&, kv::store&, store::service&, table::replicated&, cluster::directory&, wire::endpoint&, picture::renderer&, options);
  ~worker();
  void start();
  task<void> stop();

  std::map<std::string, work_status> status() const;  // by name of the source bucket
  // Pictures that cannot be shown, of a gallery; at most so many.
  task<result<std::vector<failure>>> failures(std::string pages_bucket, std::size_t max);
  // Every object of the bucket is looked at anew: what is missing in the gallery is made.
  task<result<void>> look_again(std::string bucket);

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace grenier::gallery
