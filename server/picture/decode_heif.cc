// HEIC and AVIF. libheif turns and mirrors by what the container says; Exif's orientation repeats that and must not be applied again.
#include <libheif/heif.h>

#include <algorithm>
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
  // Channels, the same turned, and four bytes a pixel; more where channels are deeper.
  const unsigned each = heif_image_handle_get_luma_bits_per_pixel(h) > 8 ? 14 : 8;
  return plan{sniff(file), static_cast<std::uint32_t>(w), static_cast<std::uint32_t>(t), std::max(stored, w * t) * each};
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

// What libheif converts itself: four bytes a pixel.
void take_rgba(const heif_image* i, bool alpha, scaler& rows, extent size) {
  int stride = 0;
  const std::uint8_t* pixels = heif_image_get_plane_readonly(i, heif_channel_interleaved, &stride);
  const bool multiplied = heif_image_is_premultiplied_alpha(const_cast<heif_image*>(i));
  std::vector<std::uint8_t> line(size.width * std::size_t{4});
  for (std::uint32_t y = 0; y < size.height; ++y) {
    std::memcpy(line.data(), pixels + static_cast<std::ptrdiff_t>(y) * stride, line.size());
    for (std::size_t p = 0; p < line.size(); p += 4) {
      if (!alpha) line[p + 3] = 255;
      if (const unsigned a = line[p + 3]; a != 255)
        for (std::size_t c = 0; c < 3; ++c) line[p + c] = static_cast<std::uint8_t>(multiplied ? std::min<unsigned>(line[p + c], a) : (line[p + c] * a + 127) / 255);
    }
    rows.row(line.data());
  }
}

// One channel of any depth, as numbers from 0 to 1.
struct channel {
  channel(const heif_image* i, heif_channel c) {
    data = heif_image_get_plane_readonly(i, c, &stride);
    width = heif_image_get_width(i, c);
    height = heif_image_get_height(i, c);
    const int bits = heif_image_get_bits_per_pixel_range(i, c);
    deep = bits > 8;
    largest = static_cast<float>((1 << std::clamp(bits, 1, 16)) - 1);
    good = data && width > 0 && height > 0 && stride >= width * (deep ? 2 : 1);
  }
  float at(std::uint32_t x, std::uint32_t y) const {
    const std::uint8_t* row = data + static_cast<std::ptrdiff_t>(std::min<std::uint32_t>(y, static_cast<std::uint32_t>(height) - 1)) * stride;
    x = std::min<std::uint32_t>(x, static_cast<std::uint32_t>(width) - 1);
    return static_cast<float>(deep ? row[2 * x] | row[2 * x + 1] << 8 : row[x]) / largest;
  }
  const std::uint8_t* data;
  int stride = 0, width, height;
  bool deep, good;
  float largest;
};

// Cameras' ten bits with half the colours, for one, which libheif decodes but does not convert.
bool take_channels(const heif_image* i, scaler& rows, extent size) {
  const channel y(i, heif_channel_Y), cb(i, heif_channel_Cb), cr(i, heif_channel_Cr);
  if (!y.good || !cb.good || !cr.good) return false;
  float kr = 0.299f, kb = 0.114f;
  bool full = true;
  heif_color_profile_nclx* n = nullptr;
  if (!heif_image_get_nclx_color_profile(i, &n).code && n) {
    owned<heif_color_profile_nclx> profile(n);
    if (n->matrix_coefficients == heif_matrix_coefficients_ITU_R_BT_709_5) kr = 0.2126f, kb = 0.0722f;
    if (n->matrix_coefficients == heif_matrix_coefficients_ITU_R_BT_2020_2_non_constant_luminance) kr = 0.2627f, kb = 0.0593f;
    full = n->full_range_flag;
  }
  const std::uint32_t across = static_cast<std::uint32_t>(cb.width) * 2 <= size.width + 1 ? 1 : 0, down = static_cast<std::uint32_t>(cb.height) * 2 <= size.height + 1 ? 1 : 0;
  std::vector<std::uint8_t> line(size.width * std::size_t{4}, 255);
  auto to_byte = [](float v) { return static_cast<std::uint8_t>(std::clamp(v * 255 + 0.5f, 0.0f, 255.0f)); };
  for (std::uint32_t r = 0; r < size.height; ++r) {
    for (std::uint32_t x = 0; x < size.width; ++x) {
      float l = y.at(x, r), b = cb.at(x >> across, r >> down) - 0.5f, d = cr.at(x >> across, r >> down) - 0.5f;
      if (!full) l = (l * 255 - 16) / 219, b *= 255.0f / 224, d *= 255.0f / 224;
      const float red = l + 2 * (1 - kr) * d, blue = l + 2 * (1 - kb) * b;
      std::uint8_t* p = line.data() + std::size_t{x} * 4;
      p[0] = to_byte(red);
      p[1] = to_byte((l - kr * red - kb * blue) / (1 - kr - kb));
      p[2] = to_byte(blue);
    }
    rows.row(line.data());
  }
  return true;
}

result<owned<heif_image>> decode_as(const heif_image_handle* h, heif_colorspace space, heif_chroma chroma) {
  owned<heif_decoding_options> how(heif_decoding_options_alloc());
  if (how) how->convert_hdr_to_8bit = space == heif_colorspace_RGB;
  heif_image* raw = nullptr;
  auto e = heif_decode_image(h, &raw, space, chroma, how.get());
  if (e.code == heif_error_Memory_allocation_error) throw std::bad_alloc();
  if (e.code) return fail(e.code == heif_error_Unsupported_feature ? errc::not_implemented : errc::invalid_argument, e.message);
  return owned<heif_image>(raw);
}

result<decoded> decode_heif(bytes_view file, std::uint32_t long_edge) {
  TRY(auto f, open(file));
  decoded d;
  d.told.format = sniff(file);
  read_profile(f.picture.get(), d);
  read_metadata(f.picture.get(), d);
  d.turn = false;
  const bool alpha = heif_image_handle_has_alpha_channel(f.picture.get());
  auto i = decode_as(f.picture.get(), heif_colorspace_RGB, heif_chroma_interleaved_RGBA);
  const bool channels = i.failed_with(errc::not_implemented) && !alpha;
  if (channels) i = decode_as(f.picture.get(), heif_colorspace_YCbCr, heif_chroma_422);
  if (!i) return undecodable(i.error().detail);
  const auto first = channels ? heif_channel_Y : heif_channel_interleaved;
  const int w = heif_image_get_width(i->get(), first), h = heif_image_get_height(i->get(), first);
  if (w <= 0 || h <= 0) return undecodable("it has no pixels");
  d.full = {static_cast<std::uint32_t>(w), static_cast<std::uint32_t>(h)};
  scaler rows(d.full, fit(d.full, long_edge));
  if (!channels)
    take_rgba(i->get(), alpha, rows, d.full);
  else if (!take_channels(i->get(), rows, d.full))
    return undecodable("its colours are of a kind that is not known here");
  d.pixels = rows.take();
  d.pixels.alpha = alpha && !channels;
  return d;
}

}  // namespace

const decoder heif_decoder{plan_heif, decode_heif};

}  // namespace grenier::picture
