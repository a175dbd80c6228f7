#include <algorithm>

#include "picture/answers.h"

namespace grenier::picture {

namespace {

bool at(bytes_view b, std::size_t where, std::string_view what) { return b.size() >= where + what.size() && b.substr(where, what.size()) == what; }

// ISO base media: the major brand, or one of the compatible ones.
file_format sniff_media(bytes_view b) {
  const std::size_t box = std::min<std::size_t>(read_u32(b), b.size());
  bool heic = false, avif = false;
  for (std::size_t i = 8; i + 4 <= box; i += 4) {
    if (i == 12) continue;  // the minor version
    const auto brand = b.substr(i, 4);
    if (brand == "avif" || brand == "avis") avif = true;
    if (brand == "heic" || brand == "heix" || brand == "heim" || brand == "heis" || brand == "hevc" || brand == "mif1" || brand == "msf1") heic = true;
    // A film, a raw picture of Canon's, or something else that only borrows the form.
    if (i == 8 && !heic && !avif) return file_format::none;
  }
  return avif ? file_format::avif : heic ? file_format::heic : file_format::none;
}

}  // namespace

file_format sniff(bytes_view b) noexcept {
  using namespace std::string_view_literals;
  if (at(b, 0, "\xff\xd8\xff")) return file_format::jpeg;
  if (at(b, 0, "\x89PNG\r\n\x1a\n")) return file_format::png;
  if (at(b, 0, "RIFF") && at(b, 8, "WEBP")) return file_format::webp;
  if (at(b, 0, "GIF87a") || at(b, 0, "GIF89a")) return file_format::gif;
  if (b.size() >= 16 && at(b, 4, "ftyp")) return sniff_media(b);
  // TIFF and its kin: Canon, Nikon, Sony, Pentax, Samsung, DNG; Olympus; Panasonic.
  for (auto magic : {"II*\0"sv, "MM\0*"sv, "IIRO"sv, "IIRS"sv, "MMOR"sv, "IIU\0"sv})
    if (at(b, 0, magic)) return file_format::raw;
  if (at(b, 0, "FUJIFILMCCD-RAW") || at(b, 6, "HEAPCCDR") || at(b, 0, "\0MRM"sv)) return file_format::raw;
  return file_format::none;
}

std::uint64_t pixels_of_jpeg(bytes_view b) noexcept {
  auto byte = [&](std::size_t i) { return static_cast<std::uint64_t>(static_cast<unsigned char>(b[i])); };
  for (std::size_t i = 2; i + 9 <= b.size();) {
    if (byte(i) != 0xff) return 0;
    const auto marker = byte(i + 1);
    if (marker == 0xff) {
      ++i;
      continue;
    }
    // Frames; C4, C8 and CC are something else.
    if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc) return (byte(i + 5) << 8 | byte(i + 6)) * (byte(i + 7) << 8 | byte(i + 8));
    const auto length = byte(i + 2) << 8 | byte(i + 3);
    if (marker < 0xc0 || (marker >= 0xd0 && marker <= 0xda) || length < 2) return 0;
    i += 2 + length;
  }
  return 0;
}

std::string_view to_string(file_format f) noexcept {
  constexpr std::string_view names[] = {"none", "jpeg", "png", "webp", "gif", "heic", "avif", "raw"};
  return names[static_cast<std::size_t>(f)];
}

std::string_view to_string(image_type t) noexcept { return t == image_type::jpeg ? "jpg" : "webp"; }

}  // namespace grenier::picture
