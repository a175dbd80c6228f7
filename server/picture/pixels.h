// picture/pixels.h: pixels in the child: made smaller as they come, turned upright, converted to sRGB.
//
//   Runs on   the child.
//   Errors    std::bad_alloc.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace grenier::picture {

// Four bytes a pixel. Colour: red, green, blue and alpha, by which the others are multiplied already. Or four inks, where 255 is none.
struct image {
  std::uint32_t width = 0, height = 0;
  bool alpha = false;  // else the fourth byte is 255 throughout
  bool inks = false;
  std::vector<std::uint8_t> pixels;
  std::uint8_t* row(std::uint32_t y) { return pixels.data() + std::size_t{y} * width * 4; }
  const std::uint8_t* row(std::uint32_t y) const { return pixels.data() + std::size_t{y} * width * 4; }
};

struct extent {
  std::uint32_t width = 0, height = 0;
};
// Within long_edge, same shape, never larger, at least 1 by 1.
extent fit(extent from, std::uint32_t long_edge);

// Takes an image's rows from top to bottom and gives it smaller (or as it was). Lanczos with three lobes, widened by the reduction: the rows
// of the original are never all in memory. In gamma light, as the DCT scaling of JPEG works too, so that a rendition looks the same whether
// libjpeg or this made it smaller; what linear light would gain is visible in test charts only.
class scaler {
 public:
  scaler(extent from, extent to);
  void row(const std::uint8_t* rgba);
  std::uint32_t rows_taken() const { return y_; }
  // REQUIRES: all rows were taken. A picture that ended early: the rows that are missing are given as white.
  image take();

 private:
  struct taps {
    std::uint32_t first = 0, count = 0;
    std::size_t weights = 0;  // index into weights_
  };
  struct line {
    std::uint32_t y = 0;
    bool used = false;
    std::vector<float> sums;
  };
  static std::vector<taps> plan(std::uint32_t from, std::uint32_t to, std::vector<float>& weights);
  void spread(const std::vector<float>& across);
  void finish(line&);
  extent from_, to_;
  bool copy_;
  std::vector<taps> columns_, rows_;
  std::vector<float> column_weights_, row_weights_, wide_, across_;
  std::vector<line> open_;
  std::uint32_t y_ = 0, next_ = 0;
  image out_;
};

image shrink(const image& from, extent to);

// By Exif's orientation, 1 to 8.
image upright(image, std::uint8_t orientation);

enum class colour_space : std::uint8_t { srgb, display_p3, adobe_rgb, bt2020 };
// By the profile, if it is one that fits; else from the space that is named. Inks become red, green and blue.
void to_srgb(image&, std::string_view icc, colour_space named);

// Evan Wallace's ThumbHash of an upright picture in sRGB.
std::string thumbhash(const image&);

// An opaque picture, over white.
std::string encode_jpeg(const image&, int quality);
std::string encode_webp(const image&, int quality);

}  // namespace grenier::picture
