#include <csetjmp>
#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>
#include <jerror.h>

#include "picture/decode.h"

namespace grenier::picture {

namespace {

constexpr int scans_max = 100;
constexpr unsigned smallest = 8;  // the largest reduction that the transform itself can do

unsigned at(bytes_view b, std::size_t i) { return static_cast<unsigned char>(b[i]); }

// The end of the coded data that begins there: the next marker that is none of those within it.
std::size_t end_of_scan(bytes_view file, std::size_t from) {
  for (std::size_t i = file.find('\xff', from); i != bytes_view::npos && i + 1 < file.size(); i = file.find('\xff', i + 1)) {
    const unsigned m = at(file, i + 1);
    if (m != 0 && m != 0xff && (m < 0xd0 || m > 0xd7)) return i;
  }
  return file.size();
}

// An eighth of a picture is the mean of each block alone (of colours that are stored at half the resolution a sixteenth, which is what
// renditions keep of them). A progressive file has the means in scans of their own, first of all and a
// thirtieth of its bytes: only these are left here, so that nobody reads through the others. Nothing: it is not such a file, or in disorder.
std::optional<bytes> scans_of_means(bytes_view file) {
  bytes kept;
  bool progressive = false, ended = false;
  int scans = 0;
  std::size_t i = 2;
  kept.assign(file.substr(0, std::min<std::size_t>(i, file.size())));
  while (i + 4 <= file.size()) {
    if (at(file, i) != 0xff) return std::nullopt;
    const unsigned m = at(file, i + 1);
    if (m == 0xff) {  // a byte to fill
      ++i;
      continue;
    }
    if (m == 0xd9) {
      ended = true;
      break;
    }
    if (m < 0xc0 || (m >= 0xd0 && m <= 0xd8)) return std::nullopt;
    const std::size_t length = at(file, i + 2) << 8 | at(file, i + 3);
    if (length < 2 || i + 2 + length > file.size()) return std::nullopt;
    std::size_t end = i + 2 + length;
    bool wanted = true;
    if (m == 0xc2) {
      progressive = true;
    } else if (m == 0xda) {
      if (!progressive || length < 6 || ++scans > scans_max) return std::nullopt;
      wanted = at(file, end - 3) == 0;
      end = end_of_scan(file, end);
    }
    if (wanted) kept.append(file.substr(i, end - i));
    i = end;
  }
  if (!progressive || scans == 0 || kept.size() > file.size() / 2) return std::nullopt;
  if (ended) kept.append("\xff\xd9", 2);
  return kept;
}

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
    if (denominator == smallest) c_.do_block_smoothing = FALSE;  // it would guess at what was left out on purpose
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
  decoded d;
  d.told.format = file_format::jpeg;
  unsigned denominator = smallest;
  {
    jpeg_reader head(file);
    if (!head.opened()) return undecodable(head.why());
    d.full = {head.head().image_width, head.head().image_height};
    while (denominator > 1 && std::max(d.full.width, d.full.height) / denominator < long_edge) denominator /= 2;
  }
  std::optional<bytes> means;
  if (denominator == smallest) means = scans_of_means(file);
  jpeg_reader r(means ? bytes_view(*means) : file);
  if (!r.opened()) return undecodable(r.why());
  read_exif(r.exif(), d);
  const std::uint32_t longer = std::max(d.full.width, d.full.height);
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
