#include <png.h>

#include <csetjmp>
#include <cstdio>

#include "picture/decode.h"

namespace grenier::picture {

namespace {

// libpng leaves by longjmp: what has a destructor stays out of the functions that it jumps from.
class png_reader {
 public:
  explicit png_reader(bytes_view file) : rest_(file) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, leave, [](png_structp, png_const_charp) {});
    if (png_) info_ = png_create_info_struct(png_);
    open_ = info_ && open();
  }
  ~png_reader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  bool opened() const { return open_; }
  std::string why() const { return message_; }
  std::uint32_t width() const { return png_get_image_width(png_, info_); }
  std::uint32_t height() const { return png_get_image_height(png_, info_); }
  bool interlaced() const { return png_get_interlace_type(png_, info_) != PNG_INTERLACE_NONE; }
  bool alpha() const { return alpha_; }

  // Whatever it is, to four bytes a pixel.
  bool start() {
    if (setjmp(jump_)) return false;
    alpha_ = (png_get_color_type(png_, info_) & PNG_COLOR_MASK_ALPHA) || png_get_valid(png_, info_, PNG_INFO_tRNS);
    png_set_expand(png_);
    png_set_scale_16(png_);
    png_set_gray_to_rgb(png_);
    png_set_add_alpha(png_, 255, PNG_FILLER_AFTER);
    passes_ = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return png_get_rowbytes(png_, info_) == std::size_t{width()} * 4;
  }
  int passes() const { return passes_; }
  bool row(unsigned char* to) {
    if (setjmp(jump_)) return false;
    png_read_row(png_, to, nullptr);
    return true;
  }
  bytes_view icc() {
    if (setjmp(jump_)) return {};
    png_charp name;
    png_bytep data;
    png_uint_32 size = 0;
    int compression;
    if (!png_get_iCCP(png_, info_, &name, &compression, &data, &size) || size > icc_size_max) return {};
    return {reinterpret_cast<const char*>(data), size};
  }
  bytes_view exif() {
    if (setjmp(jump_)) return {};
    png_bytep data;
    png_uint_32 size = 0;
    if (!png_get_eXIf_1(png_, info_, &size, &data)) return {};
    return {reinterpret_cast<const char*>(data), size};
  }
  // Chunks after the pixels: Exif may stand there.
  void finish() {
    if (setjmp(jump_)) return;
    png_read_end(png_, info_);
  }

 private:
  bool open() {
    if (setjmp(jump_)) return false;
    png_set_read_fn(png_, this, read);
    png_set_user_limits(png_, 1 << 20, 1 << 20);
    png_set_chunk_malloc_max(png_, 8 << 20);
    png_set_chunk_cache_max(png_, 128);
    png_read_info(png_, info_);
    return true;
  }
  static void leave(png_structp p, png_const_charp why) {
    auto* self = static_cast<png_reader*>(png_get_error_ptr(p));
    std::snprintf(self->message_, sizeof self->message_, "%s", why);
    std::longjmp(self->jump_, 1);
  }
  static void read(png_structp p, png_bytep to, std::size_t n) {
    auto* self = static_cast<png_reader*>(png_get_io_ptr(p));
    if (n > self->rest_.size()) png_error(p, "the file ends too early");
    std::memcpy(to, self->rest_.data(), n);
    self->rest_.remove_prefix(n);
  }
  bytes_view rest_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::jmp_buf jump_;
  char message_[160] = "out of memory";
  int passes_ = 1;
  bool open_ = false, alpha_ = false;
};

result<plan> plan_png(bytes_view file, std::uint64_t pixels_max) {
  png_reader r(file);
  if (!r.opened()) return undecodable(r.why());
  TRY_VOID(check_extent(r.width(), r.height(), pixels_max));
  return plan{file_format::png, r.width(), r.height(), std::uint64_t{r.width()} * (r.interlaced() ? r.height() * std::uint64_t{4} : 64)};
}

void multiply_alpha(unsigned char* row, std::size_t pixels) {
  for (std::size_t i = 0; i < pixels * 4; i += 4)
    if (const unsigned a = row[i + 3]; a != 255)
      for (std::size_t c = 0; c < 3; ++c) row[i + c] = static_cast<unsigned char>((row[i + c] * a + 127) / 255);
}

result<decoded> decode_png(bytes_view file, std::uint32_t long_edge) {
  png_reader r(file);
  if (!r.opened() || !r.start()) return undecodable(r.why());
  decoded d;
  d.full = {r.width(), r.height()};
  d.told.format = file_format::png;
  d.icc = r.icc();
  scaler rows(d.full, fit(d.full, long_edge));
  const std::size_t row_size = std::size_t{d.full.width} * 4;
  std::vector<unsigned char> lines(r.passes() > 1 ? row_size * d.full.height : row_size);
  for (int pass = 0; pass < r.passes(); ++pass)
    for (std::uint32_t y = 0; y < d.full.height; ++y) {
      unsigned char* line = lines.data() + (r.passes() > 1 ? y * row_size : 0);
      if (!r.row(line)) return undecodable(r.why());
      if (pass + 1 < r.passes()) continue;
      if (r.alpha()) multiply_alpha(line, d.full.width);
      rows.row(line);
    }
  r.finish();
  read_exif(r.exif(), d);
  d.pixels = rows.take();
  d.pixels.alpha = r.alpha();
  return d;
}

}  // namespace

const decoder png_decoder{plan_png, decode_png};

}  // namespace grenier::picture
