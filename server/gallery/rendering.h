// gallery/rendering.h: private to the worker: from an object of the source bucket to what the gallery keeps of it.
//
//   Runs on   its home thread.
//   Errors    the store's and the renderer's: what may go better later. A picture that cannot be decoded is an answer.
#pragma once

#include "gallery/catalogue.h"
#include "picture/picture.h"
#include "store/store.h"

namespace grenier::gallery {

inline constexpr std::uint16_t first_size = 320;

struct rendering {
  picture::rendered made;  // not_a_picture: leave it alone
  photo_id id;             // of the bytes as they were read
  bool first_only = false; // larger sizes are to be made another time
};

struct original_wanted {
  std::string bucket, key, etag;  // only this version
  std::uint64_t size = 0;
  std::vector<picture::wanted> sizes;  // none: all of them; or the smallest alone, where that is much less work
  std::uint64_t twice_from = 0;        // a file of this size; or one of so many pixels, however few bytes they take
  std::uint64_t twice_from_pixels = 1'000'000;
};
task<result<rendering>> render_object(runtime&, store::service&, picture::renderer&, original_wanted);

// The objects of its renditions.
std::vector<object> files_of(const rendering&);
// Without names.
record record_of(const photo_id&, const picture::rendered&, bool places);

}  // namespace grenier::gallery
