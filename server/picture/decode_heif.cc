// HEIC and AVIF. libheif turns and mirrors by what the container says; Exif's orientation repeats that and must not be applied again.
#include <libheif/heif.h>

#include <memory>

#include "picture/decode.h"

namespace grenier::picture {

namespace {

struct frees {
  void operator()(heif_context* c) const { heif_context_free(c); }
  void operator()(heif_image_handle* h) const { heif_image_handle_release(h); }
  void operator()(heif_image* i) const { heif_image_release(i); }
  void operator()(heif_decoding_options* o) const { heif_decoding_options_free(o); }
  void operator()(heif_color_profile_nclx* n) const { heif_nclx_color_profile_free(n); }
};
template <class T>
using owned = std::unique_ptr<T, frees>;

struct heif_file {
  owned<heif_context> context;
  owned<heif_image_handle> picture;
};

result<heif_file> open(bytes_view file) {
  heif_file f;
  f.context.reset(heif_context_alloc());
  heif_context_set_max_decoding_threads(f.context.get(), 0);
  if (auto e = heif_context_read_from_memory_without_copy(f.context.get(), file.data(), file.size(), nullptr); e.code) return undecodable(e.message);
  heif_image_handle* h = nullptr;
  if (auto e = heif_context_get_primary_image_handle(f.context.get(), &h); e.code) return undecodable(e.message);
  f.picture.reset(h);
  return f;
}

result<plan> plan_heif(bytes_view file, std::uint64_t pixels_max) {
  TRY(auto f, open(file));
  const auto* h = f.picture.get();
  const auto side = [](int v) { return static_cast<std::uint64_t>(std::max(v, 0)); };
  const std::uint64_t w = side(heif_image_handle_get_width(h)), t = side(heif_image_handle_get_height(h));
  // What is stored may be larger than what is shown (clap).
  const std::uint64_t stored = side(heif_image_handle_get_ispe_width(h)) * side(heif_image_handle_get_ispe_height(h));
  TRY_VOID(check_extent(w, t, pixels_max));
  if (stored > pixels_max) return undecodable("it has more pixels than are decoded here");
  // Channels, the same turned, and four bytes a pixel.
  return plan{sniff(file), static_cast<std::uint32_t>(w), static_cast<std::uint32_t>(t), std::max(stored, w * t) * 8};
}

void read_profile(const heif_image_handle* h, decoded& d) {
  const auto type = heif_image_handle_get_color_profile_type(h);
  if (type == heif_color_profile_type_prof || type == heif_color_profile_type_rICC) {
    const std::size_t n = heif_image_handle_get_raw_color_profile_size(h);
    if (n == 0 || n > icc_size_max) return;
    d.icc.resize(n);
    if (heif_image_handle_get_raw_color_profile(h, d.icc.data()).code) d.icc.clear();
    return;
  }
  heif_color_profile_nclx* n = nullptr;
  if (heif_image_handle_get_nclx_color_profile(h, &n).code || !n) return;
  owned<heif_color_profile_nclx> profile(n);
  if (n->color_primaries == heif_color_primaries_SMPTE_EG_432_1) d.colours = colour_space::display_p3;
  if (n->color_primaries == heif_color_primaries_ITU_R_BT_2020_2_and_2100_0) d.colours = colour_space::bt2020;
}

void read_metadata(const heif_image_handle* h, decoded& d) {
  heif_item_id id = 0;
  if (heif_image_handle_get_list_of_metadata_block_IDs(h, "Exif", &id, 1) != 1) return;
  const std::size_t n = heif_image_handle_get_metadata_size(h, id);
  if (n <= 4 || n > exif_size_max) return;
  std::string block(n, 0);
  if (heif_image_handle_get_metadata(h, id, block.data()).code) return;
  // Four bytes say how much stands before the TIFF.
  const std::uint64_t skip = std::uint64_t{read_u32(block)} + 4;
  if (skip < block.size()) read_exif(bytes_view(block).substr(skip), d);
}

result<decoded> decode_heif(bytes_view file, std::uint32_t long_edge) {
  TRY(auto f, open(file));
  decoded d;
  d.told.format = sniff(file);
  read_profile(f.picture.get(), d);
  read_metadata(f.picture.get(), d);
  d.turn = false;
  owned<heif_decoding_options> how(heif_decoding_options_alloc());
  if (how) how->convert_hdr_to_8bit = 1;
  heif_image* raw = nullptr;
  const bool alpha = heif_image_handle_has_alpha_channel(f.picture.get());
  if (auto e = heif_decode_image(f.picture.get(), &raw, heif_colorspace_RGB, heif_chroma_interleaved_RGBA, how.get()); e.code) {
    if (e.code == heif_error_Memory_allocation_error) throw std::bad_alloc();
    return undecodable(e.message);
  }
  owned<heif_image> i(raw);
  int stride = 0;
  const std::uint8_t* pixels = heif_image_get_plane_readonly(raw, heif_channel_interleaved, &stride);
  const int w = heif_image_get_width(raw, heif_channel_interleaved), h = heif_image_get_height(raw, heif_channel_interleaved);
  if (!pixels || w <= 0 || h <= 0) return undecodable("it has no pixels");
  d.full = {static_cast<std::uint32_t>(w), static_cast<std::uint32_t>(h)};
  const bool multiplied = heif_image_is_premultiplied_alpha(raw);
  scaler rows(d.full, fit(d.full, long_edge));
  std::vector<std::uint8_t> line(d.full.width * std::size_t{4});
  for (int y = 0; y < h; ++y) {
    std::memcpy(line.data(), pixels + std::ptrdiff_t{y} * stride, line.size());
    for (std::size_t p = 0; p < line.size(); p += 4) {
      if (!alpha) line[p + 3] = 255;
      if (const unsigned a = line[p + 3]; a != 255)
        for (std::size_t c = 0; c < 3; ++c) line[p + c] = static_cast<std::uint8_t>(multiplied ? std::min<unsigned>(line[p + c], a) : (line[p + c] * a + 127) / 255);
    }
    rows.row(line.data());
  }
  d.pixels = rows.take();
  d.pixels.alpha = alpha;
  return d;
}

}  // namespace

const decoder heif_decoder{plan_heif, decode_heif};

}  // namespace grenier::picture
