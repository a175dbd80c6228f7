// gallery/objects.h: the gallery's own objects, read and written through the store like anybody's.
//
//   Runs on   its home thread.
//   Errors    the store's; too_large for an object that is larger than any of ours; condition_failed.
//   Limits    1 MiB an object; 8 under way at once.
#pragma once

#include "gallery/catalogue.h"
#include "store/store.h"

namespace grenier::gallery {

// Metadata of a page that waits (object::waits).
inline constexpr std::string_view waits_mark = "grenier-waits";

struct stored_object {
  bytes body;
  std::string etag;  // without quotes
};

class objects {
 public:
  objects(runtime& rt, task_group& group, store::service& s, std::string bucket) : rt_(rt), group_(group), store_(s), bucket_(std::move(bucket)) {}
  const std::string& bucket() const noexcept { return bucket_; }

  // Nothing: there is no such object.
  task<result<std::optional<stored_object>>> read(std::string key);
  // In the order of the keys.
  task<result<std::vector<std::optional<stored_object>>>> read_all(std::vector<std::string> keys);
  // Of the keys with this prefix, at most 1000.
  task<result<std::vector<std::string>>> list(std::string prefix, std::string after = {}, std::size_t max = 1000);
  // Its new ETag. `over`: the ETag that it must have now; "" there must be none.
  task<result<std::string>> put(object, std::optional<std::string> over = std::nullopt);
  task<result<void>> put_all(std::vector<object>);
  task<result<void>> remove_all(std::vector<std::string> keys);
  // Fetches what the shelf misses.
  task<result<void>> fetch_wanted(shelf&);

 private:
  store::call as_worker() const { return {{std::nullopt, true}, rt_.now() + 60s}; }
  runtime& rt_;
  task_group& group_;
  store::service& store_;
  std::string bucket_;
};

// Bytes at hand as a body that comes in.
class bytes_body final : public store::body_source {
 public:
  explicit bytes_body(shared_bytes b) : bytes_(std::move(b)) {}
  task<result<std::size_t>> read(std::span<char> to) override;
  std::optional<std::uint64_t> size() const override { return bytes_->size(); }

 private:
  shared_bytes bytes_;
  std::size_t at_ = 0;
};

}  // namespace grenier::gallery
