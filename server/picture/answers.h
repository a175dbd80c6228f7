// picture/answers.h: what is asked of a picture and answered; the values of picture.h, for both sides of the pipe.
#pragma once

#include "base/base.h"

namespace grenier::picture {

inline constexpr std::uint64_t file_size_max = 256 * 1024 * 1024;
inline constexpr std::uint64_t pixels_limit = 150'000'000;

enum class file_format : std::uint8_t { none, jpeg, png, webp, gif, heic, avif, raw };
std::string_view to_string(file_format) noexcept;  // "jpeg"

// By the first bytes, never by a name; 64 of them are enough. `none`: not a picture that is shown here (SVG, JPEG XL, a film ...).
file_format sniff(bytes_view first_bytes) noexcept;
// A hint of how much work a JPEG is, for whoever has its beginning: what it claims. 0: that is not said there.
std::uint64_t pixels_of_jpeg(bytes_view begin) noexcept;

enum class image_type : std::uint8_t { webp, jpeg };
std::string_view to_string(image_type) noexcept;  // "webp", "jpg": as in names of files

struct facts {
  file_format format = file_format::none;
  std::uint32_t width = 0, height = 0;  // upright; of RAW: of its preview, which is what is shown
  std::uint8_t orientation = 1;         // as the file says (1..8); all that is given here is upright already
  // When it was taken, by the camera's clock: "2024-07-14T10:11:12", empty when not known; and how far that is ahead of UTC.
  std::string taken;
  std::optional<int> taken_offset_minutes;
  std::string make, model, lens;  // UTF-8, at most 128 bytes, no control characters
  std::optional<std::uint32_t> iso;
  std::optional<double> exposure_s, f_number, focal_mm;
  std::optional<double> latitude, longitude, altitude_m;  // both of the first two or neither; WGS 84
  bytes thumbhash;                                        // of the upright picture in sRGB, up to 25 bytes
};

// Upright, in sRGB, and with nothing in it but pixels: no Exif, XMP, IPTC, GPS, ICC profile, comment or preview.
struct rendition {
  std::uint16_t size = 0;  // the one asked for: the long edge
  image_type type = image_type::webp;
  std::uint16_t width = 0, height = 0;  // what it really is
  shared_bytes data;
};

enum class verdict : std::uint8_t {
  picture,        // facts and renditions are set
  not_a_picture,  // leave it alone
  undecodable,    // `reason` says why, in a sentence for people
};

struct rendered {
  verdict what = verdict::not_a_picture;
  std::string reason;
  picture::facts facts;
  std::vector<rendition> renditions;
};

struct wanted {
  std::uint16_t size = 0;  // long edge, 16 to 4096
  bool webp = true, jpeg = true;
};

// A picture is never made larger: of the sizes that reach its long edge only the smallest is made, with the original's own width and
// height, and larger ones are left out. A picture of 500 pixels gives 320 and "640", which is 500.
struct options {
  std::vector<wanted> sizes = {{320}, {640}, {1280}, {2048}};  // at most 8; none: facts only
  std::uint64_t pixels_max = pixels_limit;
  bool quick = false;  // small, and somebody waits for it: not behind larger work
};

}  // namespace grenier::picture
