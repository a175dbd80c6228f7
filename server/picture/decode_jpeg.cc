#include <csetjmp>
#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>
#include <jerror.h>

#include "picture/decode.h"

namespace grenier::picture {

namespace {

constexpr int scans_max = 100;

// libjpeg leaves by longjmp: what has a destructor stays out of the functions that it jumps from.
class jpeg_reader {
 public:
  explicit jpeg_reader(bytes_view file) {
    c_.err = jpeg_std_error(&errors_);
    errors_.error_exit = leave;
    errors_.emit_message = warn;
    errors_.output_message = [](j_common_ptr) {};
    c_.client_data = this;
    open_ = open(file);
  }
  ~jpeg_reader() {
    jpeg_destroy_decompress(&c_);
    std::free(icc_);
  }
  bool opened() const { return open_; }
  std::string why() { return message_; }
  const jpeg_decompress_struct& head() const { return c_; }
  bool inks() const { return c_.jpeg_color_space == JCS_CMYK || c_.jpeg_color_space == JCS_YCCK; }

  bool start(unsigned denominator) {
    if (setjmp(jump_)) return false;
    c_.scale_num = 1;
    c_.scale_denom = denominator;
    c_.out_color_space = inks() ? JCS_CMYK : JCS_EXT_RGBA;
    jpeg_start_decompress(&c_);
    return true;
  }
  bool row(unsigned char* to) {
    if (setjmp(jump_)) return false;
    JSAMPROW rows[] = {to};
    return jpeg_read_scanlines(&c_, rows, 1) == 1;
  }
  // After start(): the profile, or nothing.
  bytes_view icc() {
    if (setjmp(jump_)) return {};
    unsigned size = 0;
    if (!icc_ && (!jpeg_read_icc_profile(&c_, &icc_, &size) || size > icc_size_max)) return {};
    return {reinterpret_cast<const char*>(icc_), size};
  }
  bytes_view exif() const {
    for (auto* m = c_.marker_list; m; m = m->next) {
      bytes_view b(reinterpret_cast<const char*>(m->data), m->data_length);
      if (m->marker == JPEG_APP0 + 1 && b.starts_with(bytes_view("Exif\0", 5)) && b.size() > 6) return b.substr(6);
    }
    return {};
  }

 private:
  bool open(bytes_view file) {
    if (setjmp(jump_)) return false;
    jpeg_create_decompress(&c_);
    progress_.progress_monitor = count_scans;
    c_.progress = &progress_;
    jpeg_mem_src(&c_, reinterpret_cast<const unsigned char*>(file.data()), file.size());
    jpeg_save_markers(&c_, JPEG_APP0 + 1, 0xffff);
    jpeg_save_markers(&c_, JPEG_APP0 + 2, 0xffff);
    jpeg_read_header(&c_, TRUE);
    return true;
  }
  static jpeg_reader& self(j_common_ptr c) { return *static_cast<jpeg_reader*>(c->client_data); }
  static void leave(j_common_ptr c) {
    (*c->err->format_message)(c, self(c).message_);
    std::longjmp(self(c).jump_, 1);
  }
  static void refuse(j_common_ptr c, const char* why) {
    std::snprintf(self(c).message_, sizeof self(c).message_, "%s", why);
    std::longjmp(self(c).jump_, 1);
  }
  // A picture that was cut off is shown as far as it goes, if it goes anywhere.
  static void warn(j_common_ptr c, int level) {
    if (level >= 0 || c->err->msg_code != JWRN_JPEG_EOF || !c->is_decompressor) return;
    const auto* d = reinterpret_cast<j_decompress_ptr>(c);
    if (d->input_scan_number <= 1 && d->input_iMCU_row == 0) refuse(c, "the file ends before its picture begins");
  }
  static void count_scans(j_common_ptr c) {
    if (reinterpret_cast<j_decompress_ptr>(c)->input_scan_number > scans_max) refuse(c, "more scans than any picture has");
  }
  jpeg_decompress_struct c_{};
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf jump_;
  char message_[JMSG_LENGTH_MAX] = {};
  unsigned char* icc_ = nullptr;
  bool open_ = false;
};

result<plan> plan_jpeg(bytes_view file, std::uint64_t pixels_max) {
  jpeg_reader r(file);
  if (!r.opened()) return undecodable(r.why());
  const auto& h = r.head();
  TRY_VOID(check_extent(h.image_width, h.image_height, pixels_max));
  plan p{file_format::jpeg, h.image_width, h.image_height, std::uint64_t{h.image_width} * 256};
  // Scan by scan the coefficients of the whole picture are kept.
  if (jpeg_has_multiple_scans(const_cast<jpeg_decompress_struct*>(&h)))
    for (int i = 0; i < h.num_components; ++i) p.memory_bytes += std::uint64_t{h.comp_info[i].width_in_blocks} * h.comp_info[i].height_in_blocks * 128;
  return p;
}

result<decoded> decode_jpeg(bytes_view file, std::uint32_t long_edge) {
  jpeg_reader r(file);
  if (!r.opened()) return undecodable(r.why());
  decoded d;
  d.full = {r.head().image_width, r.head().image_height};
  d.told.format = file_format::jpeg;
  read_exif(r.exif(), d);
  // The largest reduction that the transform itself can do: it then reads a sixty-fourth of the work for a thumbnail.
  unsigned denominator = 8;
  const std::uint32_t longer = std::max(d.full.width, d.full.height);
  while (denominator > 1 && longer / denominator < long_edge) denominator /= 2;
  if (!r.start(denominator)) return undecodable(r.why());
  d.icc = r.icc();
  const extent from{r.head().output_width, r.head().output_height};
  // Shape by the original, not by what the transform rounded up.
  const extent to = fit(d.full, std::min(long_edge, longer));
  scaler rows(from, {std::min(to.width, from.width), std::min(to.height, from.height)});
  std::vector<unsigned char> line(std::size_t{from.width} * 4);
  const bool negative = r.inks() && !r.head().saw_Adobe_marker;
  while (rows.rows_taken() < from.height) {
    if (!r.row(line.data())) return undecodable(r.why());
    if (negative)
      for (auto& v : line) v = static_cast<unsigned char>(255 - v);
    rows.row(line.data());
  }
  d.pixels = rows.take();
  d.pixels.inks = r.inks();
  return d;
}

}  // namespace

const decoder jpeg_decoder{plan_jpeg, decode_jpeg};

}  // namespace grenier::picture
