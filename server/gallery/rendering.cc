#include "gallery/rendering.h"

#include "crypto/crypto.h"

namespace grenier::gallery {

namespace {

// A picture's bytes on their way from the store to the decoder, hashed as they pass.
class original final : public picture::source {
 public:
  original(runtime& rt, std::uint64_t size, std::unique_ptr<store::body_reader> body) : rt_(rt), size_(size), body_(std::move(body)), hash_(crypto::hash_kind::sha256) {}
  std::uint64_t size() const override { return size_; }
  task<result<void>> read_first() {
    CO_TRY(first_, co_await body_->next());
    co_return result<void>();
  }
  bytes_view first() const { return first_ ? bytes_view(*first_) : bytes_view(); }
  task<result<shared_bytes>> next() override {
    shared_bytes piece = std::exchange(first_, nullptr);
    if (!piece && !over_) {
      CO_TRY(piece, co_await body_->next());
    }
    if (!piece) {
      over_ = true;
      co_return piece;
    }
    co_await offload(rt_, rt_.cpu_pool(), [this, piece] { hash_.update(*piece); });
    co_return piece;
  }
  // After the end; what the decoder did not ask for is read here.
  task<result<photo_id>> finish() {
    for (;;) {
      CO_TRY(auto piece, co_await next());
      if (!piece) break;
    }
    co_return *photo_id::from_bytes(hash_.finish());
  }

 private:
  runtime& rt_;
  std::uint64_t size_;
  std::unique_ptr<store::body_reader> body_;
  crypto::hasher hash_;
  shared_bytes first_;
  bool over_ = false;
};

// Formats that are decoded small for little.
bool is_quick_small(picture::file_format f) { return f == picture::file_format::jpeg || f == picture::file_format::raw; }

}  // namespace

task<result<rendering>> render_object(runtime& rt, store::service& store, picture::renderer& renderer, original_wanted w) {
  store::get_request q;
  q.bucket = w.bucket;
  q.key = w.key;
  q.when.if_match = "\"" + w.etag + "\"";
  CO_TRY(auto got, co_await store.get({{std::nullopt, true}, rt.now() + 5min}, std::move(q)));
  if (!got.body) co_return fail(errc::internal, "an object without a body");
  original bytes_of(rt, got.length, std::move(got.body));
  CO_TRY_VOID(co_await bytes_of.read_first());
  rendering out;
  const auto format = picture::sniff(bytes_of.first());
  if (format == picture::file_format::none) co_return out;
  picture::options wants;
  if (!w.sizes.empty()) wants.sizes = std::move(w.sizes);
  else if (is_quick_small(format) && (w.size >= w.twice_from || picture::pixels_of_jpeg(bytes_of.first()) >= w.twice_from_pixels)) wants.sizes = {{first_size}}, out.first_only = wants.quick = true;
  CO_TRY(out.made, co_await renderer.render(bytes_of, std::move(wants)));
  CO_TRY(out.id, co_await bytes_of.finish());
  co_return out;
}

std::vector<object> files_of(const rendering& r) {
  std::vector<object> files;
  for (const auto& x : r.made.renditions) {
    const bool jpeg = x.type == picture::image_type::jpeg;
    files.push_back({rendition_key(r.id, x.size, jpeg), *x.data, jpeg ? "image/jpeg" : "image/webp", true});
  }
  return files;
}

record record_of(const photo_id& id, const picture::rendered& made, bool places) {
  record r;
  const auto& f = made.facts;
  r.id = id;
  r.format = std::string(picture::to_string(f.format));
  r.width = f.width;
  r.height = f.height;
  r.taken = f.taken;
  r.taken_offset_minutes = f.taken_offset_minutes;
  r.make = f.make;
  r.model = f.model;
  r.lens = f.lens;
  r.iso = f.iso;
  r.exposure_s = f.exposure_s;
  r.f_number = f.f_number;
  r.focal_mm = f.focal_mm;
  if (places) r.latitude = f.latitude, r.longitude = f.longitude, r.altitude_m = f.altitude_m;
  r.thumbhash = f.thumbhash;
  for (const auto& x : made.renditions) r.renditions.push_back({x.size, x.type == picture::image_type::jpeg, x.width, x.height, x.data->size()});
  return r;
}

}  // namespace grenier::gallery
