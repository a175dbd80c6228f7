// Pixels to files that hold pixels and nothing else.
#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <new>

#include <jpeglib.h>
#include <webp/encode.h>

#include "picture/pixels.h"

namespace grenier::picture {

namespace {

// libjpeg leaves by longjmp: what has a destructor stays out of the functions that it jumps from.
struct jpeg_writer {
  jpeg_compress_struct c{};
  jpeg_error_mgr errors{};
  std::jmp_buf jump;
  unsigned char* data = nullptr;
  unsigned long size = 0;

  static void leave(j_common_ptr c) { std::longjmp(static_cast<jpeg_writer*>(c->client_data)->jump, 1); }
  bool write(const image& i, unsigned char* line, int quality) {
    c.err = jpeg_std_error(&errors);
    errors.error_exit = leave;
    errors.output_message = [](j_common_ptr) {};
    c.client_data = this;
    if (setjmp(jump)) return false;
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &data, &size);
    c.image_width = i.width;
    c.image_height = i.height;
    c.input_components = 4;
    c.in_color_space = JCS_EXT_RGBX;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, quality, TRUE);
    c.optimize_coding = TRUE;
    jpeg_simple_progression(&c);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
      const std::uint8_t* row = i.row(c.next_scanline);
      JSAMPROW rows[] = {const_cast<unsigned char*>(row)};
      if (i.alpha) {
        for (std::size_t x = 0; x < std::size_t{i.width} * 4; ++x) line[x] = static_cast<unsigned char>(std::min(255, row[x] + 255 - row[x | 3]));
        rows[0] = line;
      }
      jpeg_write_scanlines(&c, rows, 1);
    }
    jpeg_finish_compress(&c);
    return true;
  }
  ~jpeg_writer() {
    jpeg_destroy_compress(&c);
    std::free(data);
  }
};

}  // namespace

std::string encode_jpeg(const image& i, int quality) {
  std::vector<unsigned char> line(std::size_t{i.width} * 4);
  jpeg_writer w;
  if (!w.write(i, line.data(), quality)) throw std::bad_alloc();
  return std::string(reinterpret_cast<const char*>(w.data), w.size);
}

std::string encode_webp(const image& i, int quality) {
  WebPConfig config;
  WebPPicture p;
  if (!WebPConfigInit(&config) || !WebPPictureInit(&p)) throw std::bad_alloc();
  config.quality = static_cast<float>(quality);
  config.thread_level = 0;
  p.width = static_cast<int>(i.width);
  p.height = static_cast<int>(i.height);
  struct cleaner {
    WebPPicture& p;
    WebPMemoryWriter w;
    explicit cleaner(WebPPicture& q) : p(q) { WebPMemoryWriterInit(&w); }
    ~cleaner() {
      WebPPictureFree(&p);
      WebPMemoryWriterClear(&w);
    }
  } c(p);
  p.writer = WebPMemoryWrite;
  p.custom_ptr = &c.w;
  const int stride = static_cast<int>(i.width * 4);
  bool taken;
  if (i.alpha) {
    std::vector<std::uint8_t> plain = i.pixels;
    for (std::size_t at = 0; at < plain.size(); at += 4)
      if (const unsigned a = plain[at + 3]; a != 0 && a != 255)
        for (std::size_t k = 0; k < 3; ++k) plain[at + k] = static_cast<std::uint8_t>(std::min(255u, (plain[at + k] * 255u + a / 2) / a));
    taken = WebPPictureImportRGBA(&p, plain.data(), stride);
  } else {
    taken = WebPPictureImportRGBX(&p, i.pixels.data(), stride);
  }
  if (!taken || !WebPEncode(&config, &p)) throw std::bad_alloc();
  return std::string(reinterpret_cast<const char*>(c.w.mem), c.w.size);
}

}  // namespace grenier::picture
