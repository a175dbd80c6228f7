#include "picture/decode.h"

#include <exiv2/exiv2.hpp>
#include <libheif/heif.h>

#include <cstdlib>
#include <ctime>

namespace grenier::picture {

namespace {

const decoder& decoder_of(file_format f) {
  switch (f) {
    case file_format::png: return png_decoder;
    case file_format::webp: return webp_decoder;
    case file_format::gif: return gif_decoder;
    case file_format::heic:
    case file_format::avif: return heif_decoder;
    case file_format::raw: return raw_decoder;
    default: return jpeg_decoder;
  }
}

}  // namespace

result<void> check_extent(std::uint64_t width, std::uint64_t height, std::uint64_t pixels_max) {
  if (width == 0 || height == 0) return undecodable("it has no pixels");
  if (width > 1'000'000 || height > 1'000'000 || width * height > pixels_max)
    return undecodable("it has " + std::to_string(width) + " times " + std::to_string(height) + " pixels, more than are decoded here");
  return {};
}

result<plan> make_plan(bytes_view file, std::uint64_t pixels_max) {
  return decoder_of(sniff(file)).make_plan(file, std::min(pixels_max, pixels_limit));
}

result<decoded> decode(bytes_view file, std::uint32_t long_edge) { return decoder_of(sniff(file)).decode(file, long_edge); }

void warm_up() {
  Exiv2::LogMsg::setLevel(Exiv2::LogMsg::mute);
  // Cameras' clocks know no zone; and the zone's file is not looked at again.
  ::setenv("TZ", "UTC0", 1);
  std::time_t moment = 0;
  (void)std::localtime(&moment);
  // It looks for translations of its messages when it has the first one.
  try {
    throw Exiv2::Error(Exiv2::kerNotAnImage, "file");
  } catch (const Exiv2::AnyError& e) {
    (void)std::string(e.what());
  }
  Exiv2::XmpParser::initialize();
  heif_init(nullptr);
  register_heif_codecs();
  // One small picture through everything that both directions need: some libraries ask the system what the processor can do.
  image i;
  i.width = i.height = 64;
  i.pixels.assign(std::size_t{64} * 64 * 4, 128);
  to_srgb(i, {}, colour_space::display_p3);
  for (const std::string& file : {encode_jpeg(i, 80), encode_webp(i, 80)}) (void)decode(file, 32);
  i.alpha = true;
  (void)decode(encode_webp(i, 80), 32);
  (void)thumbhash(i);
  // The C library's sorting asks once how much memory there is.
  std::vector<int> numbers(4096);
  std::qsort(numbers.data(), numbers.size(), sizeof(int), [](const void* a, const void* b) { return *static_cast<const int*>(a) - *static_cast<const int*>(b); });
  decoded d;
  read_exif(bytes_view("II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0", 26), d);
}

}  // namespace grenier::picture
