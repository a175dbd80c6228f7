// HEVC by libde265 and AV1 by dav1d for libheif, each in the one thread that there is: libheif's own start threads, which the sandbox
// denies.
#include <dav1d/dav1d.h>
#include <libde265/de265.h>
#include <libheif/heif.h>
#include <libheif/heif_plugin.h>

#include <cstring>

#include "picture/decode.h"

namespace grenier::picture {

namespace {

constexpr int above_the_others = 1000;
constexpr heif_error good{heif_error_Ok, heif_suberror_Unspecified, "Success"};
heif_error damaged(const char* what) { return {heif_error_Decoder_plugin_error, heif_suberror_Unspecified, what}; }

struct plane {
  const std::uint8_t* data;
  std::ptrdiff_t stride;
  int width, height;
};

// `bits` of every channel, as libheif wants them: little-endian pairs above eight.
heif_error copy_planes(heif_image* to, int bits, const plane* planes, int count) {
  constexpr heif_channel channels[] = {heif_channel_Y, heif_channel_Cb, heif_channel_Cr};
  for (int c = 0; c < count; ++c) {
    const plane& p = planes[c];
    if (p.width <= 0 || p.height <= 0 || !p.data) return damaged("a channel is empty");
    if (auto e = heif_image_add_plane(to, channels[c], p.width, p.height, bits); e.code) return e;
    int stride = 0;
    std::uint8_t* out = heif_image_get_plane(to, channels[c], &stride);
    const auto size = static_cast<std::size_t>(p.width) * (bits > 8 ? 2 : 1);
    for (int y = 0; y < p.height; ++y) std::memcpy(out + std::ptrdiff_t{y} * stride, p.data + y * p.stride, size);
  }
  return good;
}

heif_error with_planes(heif_image** out, int width, int height, heif_chroma chroma, int bits, const plane* planes, int count) {
  if (auto e = heif_image_create(width, height, count == 1 ? heif_colorspace_monochrome : heif_colorspace_YCbCr, chroma, out); e.code) return e;
  auto e = copy_planes(*out, bits, planes, count);
  if (e.code) {
    heif_image_release(*out);
    *out = nullptr;
  }
  return e;
}

void tell_colours(heif_image* i, int primaries, int transfer, int matrix, bool full_range) {
  heif_color_profile_nclx* n = heif_nclx_color_profile_alloc();
  if (!n) return;
  // What it does not know stays unspecified.
  (void)heif_nclx_color_profile_set_color_primaries(n, static_cast<std::uint16_t>(primaries));
  (void)heif_nclx_color_profile_set_transfer_characteristics(n, static_cast<std::uint16_t>(transfer));
  (void)heif_nclx_color_profile_set_matrix_coefficients(n, static_cast<std::uint16_t>(matrix));
  n->full_range_flag = full_range;
  heif_image_set_nclx_color_profile(i, n);
  heif_nclx_color_profile_free(n);
}

// ------------------------------------------------------------------------------------------------- HEVC

heif_error hevc_new(void** d) {
  *d = de265_new_decoder();
  return *d ? good : damaged("out of memory");
}
void hevc_free(void* d) { de265_free_decoder(d); }

heif_error hevc_push(void* d, const void* data, std::size_t size) {
  auto* p = static_cast<const std::uint8_t*>(data);
  while (size > 0) {
    if (size < 4) return damaged("the coded picture is cut off");
    const std::size_t n = std::size_t{p[0]} << 24 | std::size_t{p[1]} << 16 | std::size_t{p[2]} << 8 | p[3];
    if (n > size - 4) return damaged("the coded picture is cut off");
    if (de265_push_NAL(d, p + 4, static_cast<int>(n), 0, nullptr) != DE265_OK) return damaged("out of memory");
    p += n + 4;
    size -= n + 4;
  }
  return good;
}

heif_error hevc_take(const de265_image* from, heif_image** out) {
  const auto form = de265_get_chroma_format(from);
  const int count = form == de265_chroma_mono ? 1 : 3, bits = de265_get_bits_per_pixel(from, 0);
  plane planes[3] = {};
  for (int c = 0; c < count; ++c) {
    if (de265_get_bits_per_pixel(from, c) != bits) return damaged("channels of different depths");
    int stride = 0;
    const std::uint8_t* data = de265_get_image_plane(from, c, &stride);
    planes[c] = {data, stride, de265_get_image_width(from, c), de265_get_image_height(from, c)};
  }
  auto e = with_planes(out, planes[0].width, planes[0].height, static_cast<heif_chroma>(form), bits, planes, count);
  if (!e.code)
    tell_colours(*out, de265_get_image_colour_primaries(from), de265_get_image_transfer_characteristics(from),
                 de265_get_image_matrix_coefficients(from), de265_get_image_full_range_flag(from));
  return e;
}

heif_error hevc_decode(void* d, heif_image** out) {
  *out = nullptr;
  de265_flush_data(d);
  for (int more = 1; more;) {
    more = 0;
    if (de265_decode(d, &more) != DE265_OK) break;
    if (const de265_image* i = de265_get_next_picture(d)) {
      auto e = hevc_take(i, out);
      de265_release_next_picture(d);
      return e;
    }
  }
  return damaged("the coded picture is damaged");
}

// ------------------------------------------------------------------------------------------------- AV1

struct av1_decoder {
  Dav1dContext* context = nullptr;
  Dav1dData data{};
};

heif_error av1_new(void** out) {
  auto* d = new av1_decoder;
  Dav1dSettings s;
  dav1d_default_settings(&s);
  s.n_threads = 1;
  s.max_frame_delay = 1;
  s.all_layers = 0;
  s.frame_size_limit = static_cast<unsigned>(pixels_limit);
  s.logger.callback = [](void*, const char*, va_list) {};
  if (dav1d_open(&d->context, &s) != 0) {
    delete d;
    return damaged("out of memory");
  }
  *out = d;
  return good;
}
void av1_free(void* raw) {
  auto* d = static_cast<av1_decoder*>(raw);
  if (d->data.sz) dav1d_data_unref(&d->data);
  dav1d_close(&d->context);
  delete d;
}

heif_error av1_push(void* raw, const void* data, std::size_t size) {
  auto* d = static_cast<av1_decoder*>(raw);
  if (d->data.sz || size == 0) return damaged("the coded picture comes in pieces");
  std::uint8_t* to = dav1d_data_create(&d->data, size);
  if (!to) return damaged("out of memory");
  std::memcpy(to, data, size);
  return good;
}

heif_error av1_take(const Dav1dPicture& p, heif_image** out) {
  const bool mono = p.p.layout == DAV1D_PIXEL_LAYOUT_I400, narrow = p.p.layout == DAV1D_PIXEL_LAYOUT_I420 || p.p.layout == DAV1D_PIXEL_LAYOUT_I422;
  const int cw = narrow ? (p.p.w + 1) / 2 : p.p.w, ch = p.p.layout == DAV1D_PIXEL_LAYOUT_I420 ? (p.p.h + 1) / 2 : p.p.h;
  const plane planes[] = {{static_cast<const std::uint8_t*>(p.data[0]), p.stride[0], p.p.w, p.p.h},
                          {static_cast<const std::uint8_t*>(p.data[1]), p.stride[1], cw, ch},
                          {static_cast<const std::uint8_t*>(p.data[2]), p.stride[1], cw, ch}};
  constexpr heif_chroma chromas[] = {heif_chroma_monochrome, heif_chroma_420, heif_chroma_422, heif_chroma_444};
  auto e = with_planes(out, p.p.w, p.p.h, chromas[p.p.layout], p.p.bpc, planes, mono ? 1 : 3);
  if (!e.code) tell_colours(*out, p.seq_hdr->pri, p.seq_hdr->trc, p.seq_hdr->mtrx, p.seq_hdr->color_range);
  return e;
}

heif_error av1_decode(void* raw, heif_image** out) {
  auto* d = static_cast<av1_decoder*>(raw);
  *out = nullptr;
  Dav1dPicture p{};
  for (int idle = 0; idle < 2;) {
    const bool had = d->data.sz > 0;
    if (had)
      if (int r = dav1d_send_data(d->context, &d->data); r < 0 && r != DAV1D_ERR(EAGAIN)) break;
    const int r = dav1d_get_picture(d->context, &p);
    if (r == 0) {
      auto e = av1_take(p, out);
      dav1d_picture_unref(&p);
      return e;
    }
    if (r != DAV1D_ERR(EAGAIN)) break;
    if (!had) ++idle;
  }
  return damaged("the coded picture is damaged");
}

constexpr heif_decoder_plugin hevc{3, [] { return "HEVC, one thread"; }, [] { de265_init(); }, [] { de265_free(); },
                                   [](heif_compression_format f) { return f == heif_compression_HEVC ? above_the_others : 0; },
                                   hevc_new, hevc_free, hevc_push, hevc_decode, [](void*, int) {}, "grenier-hevc"};
constexpr heif_decoder_plugin av1{3, [] { return "AV1, one thread"; }, nullptr, nullptr,
                                  [](heif_compression_format f) { return f == heif_compression_AV1 ? above_the_others : 0; },
                                  av1_new, av1_free, av1_push, av1_decode, [](void*, int) {}, "grenier-av1"};

}  // namespace

void register_heif_codecs() {
  heif_register_decoder_plugin(&hevc);
  heif_register_decoder_plugin(&av1);
}

}  // namespace grenier::picture
