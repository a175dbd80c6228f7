// picture/decode.h: a picture's file to pixels no larger than needed and what it tells of itself; in the child.
//
//   Runs on   the child, in its sandbox; the libraries were warmed up before.
//   Errors    invalid_argument: it cannot be decoded; detail says why. std::bad_alloc: beyond the child's memory.
//   Limits    pixels_max; 100 scans of a progressive JPEG; ICC profiles of 4 MiB, Exif of 1 MiB (larger ones count as absent).
#pragma once

#include "picture/frames.h"
#include "picture/pixels.h"

namespace grenier::picture {

inline constexpr std::size_t icc_size_max = 4 << 20, exif_size_max = 1 << 20;

struct decoded {
  extent full;          // as stored
  image pixels;         // as stored, within the long edge that was asked for
  facts told;           // from Exif; width, height and thumbhash are left out
  std::string icc;
  colour_space colours = colour_space::srgb;
  bool turn = true;     // the orientation is still to be applied
};

// Without decoding pixels.
result<plan> make_plan(bytes_view file, std::uint64_t pixels_max);
// As large as the original, or a little more than long_edge: what is left is scaler's.
result<decoded> decode(bytes_view file, std::uint32_t long_edge);
// Makes tables and whatever else the libraries make once.
void warm_up();

// One file for each family; `into` is filled.
struct decoder {
  result<plan> (*make_plan)(bytes_view, std::uint64_t pixels_max);
  result<decoded> (*decode)(bytes_view, std::uint32_t long_edge);
};
extern const decoder jpeg_decoder, png_decoder, webp_decoder, gif_decoder, heif_decoder, raw_decoder;

inline std::unexpected<error> undecodable(std::string why) { return fail(errc::invalid_argument, std::move(why)); }
result<void> check_extent(std::uint64_t width, std::uint64_t height, std::uint64_t pixels_max);

// Exif's block (a TIFF) into facts; whether the colours are Adobe's. What is damaged in it is left out.
void read_exif(bytes_view tiff, decoded&);
// Bounded, valid UTF-8 without control characters; what is neither is replaced.
std::string clean(std::string_view);

// libheif's own decoders start threads; these do not.
void register_heif_codecs();

}  // namespace grenier::picture
