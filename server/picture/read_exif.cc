// Exif to facts, and RAW files by the JPEG that cameras put into them.
#include <exiv2/exiv2.hpp>

#include <cmath>
#include <optional>

#include "picture/decode.h"

namespace grenier::picture {

namespace {

std::optional<double> rational(const Exiv2::Exifdatum& d, long n = 0) {
  if (d.count() <= n) return std::nullopt;
  const auto [over, under] = d.toRational(n);
  if (under == 0) return std::nullopt;
  return static_cast<double>(over) / under;
}

std::optional<double> within(std::optional<double> v, double low, double high) {
  return v && std::isfinite(*v) && *v >= low && *v <= high ? v : std::nullopt;
}

// "2024:07:14 10:11:12", with whatever between the numbers.
std::string civil_time(std::string_view s) {
  if (s.size() < 19) return {};
  std::string t(s.substr(0, 19));
  t[4] = t[7] = '-';
  t[10] = 'T';
  t[13] = t[16] = ':';
  return is_civil_time(t) ? t : std::string();
}

// "+02:00", "Z"
std::optional<int> offset_minutes(std::string_view s) {
  if (s.starts_with('Z')) return 0;
  auto digit = [&](std::size_t i) { return s[i] >= '0' && s[i] <= '9'; };
  if (s.size() < 6 || (s[0] != '+' && s[0] != '-') || !digit(1) || !digit(2) || s[3] != ':' || !digit(4) || !digit(5)) return std::nullopt;
  const int minutes = ((s[1] - '0') * 10 + s[2] - '0') * 60 + (s[4] - '0') * 10 + s[5] - '0';
  if (minutes > 15 * 60) return std::nullopt;
  return s[0] == '-' ? -minutes : minutes;
}

struct found {
  std::string taken[3];  // original, digitized, changed
  std::optional<int> offset[3];
  std::string lens, maker_lens, interoperability;
  std::string latitude_ref, longitude_ref;
  std::optional<double> latitude, longitude, altitude;
  bool below_sea = false, adobe = false;
};

std::optional<double> degrees(const Exiv2::Exifdatum& d) {
  const auto whole = rational(d);
  if (!whole) return std::nullopt;
  return *whole + rational(d, 1).value_or(0) / 60 + rational(d, 2).value_or(0) / 3600;
}

void take_place(const Exiv2::Exifdatum& d, found& f) {
  switch (d.tag()) {
    case 1: f.latitude_ref = d.toString(); break;
    case 2: f.latitude = degrees(d); break;
    case 3: f.longitude_ref = d.toString(); break;
    case 4: f.longitude = degrees(d); break;
    case 5: f.below_sea = d.count() > 0 && d.toLong() == 1; break;
    case 6: f.altitude = rational(d); break;
    default: break;
  }
}

void take_shot(const Exiv2::Exifdatum& d, facts& to, found& f) {
  switch (d.tag()) {
    case 0x9003: f.taken[0] = civil_time(d.toString()); break;
    case 0x9004: f.taken[1] = civil_time(d.toString()); break;
    case 0x9010: f.offset[2] = offset_minutes(d.toString()); break;
    case 0x9011: f.offset[0] = offset_minutes(d.toString()); break;
    case 0x9012: f.offset[1] = offset_minutes(d.toString()); break;
    case 0x8827:
      if (d.count() > 0 && d.toLong() > 0 && d.toLong() < 100'000'000) to.iso = static_cast<std::uint32_t>(d.toLong());
      break;
    case 0x829a: to.exposure_s = within(rational(d), 1e-9, 1e6); break;
    case 0x829d: to.f_number = within(rational(d), 0.01, 1e4); break;
    case 0x920a: to.focal_mm = within(rational(d), 0.01, 1e6); break;
    case 0xa001: f.adobe = d.count() > 0 && d.toLong() == 2; break;
    case 0xa434: f.lens = clean(d.toString()); break;
    default: break;
  }
}

void take_datum(const Exiv2::Exifdatum& d, facts& to, found& f) {
  const std::string group = d.groupName();
  const auto tag = d.tag();
  if (group == "Image") {
    if (tag == 0x010f) to.make = clean(d.toString());
    if (tag == 0x0110) to.model = clean(d.toString());
    if (tag == 0x0112 && d.count() > 0 && d.toLong() >= 1 && d.toLong() <= 8) to.orientation = static_cast<std::uint8_t>(d.toLong());
    if (tag == 0x0132) f.taken[2] = civil_time(d.toString());
    // Where TIFF/EP puts it.
    if (tag == 0x9003 || tag == 0x829a || tag == 0x829d || tag == 0x920a || tag == 0x8827) take_shot(d, to, f);
  } else if (group == "Photo") {
    take_shot(d, to, f);
  } else if (group == "GPSInfo") {
    take_place(d, f);
  } else if (group == "Iop" && tag == 1) {
    f.interoperability = d.toString();
  } else if ((group == "Canon" && tag == 0x0095) || (group == "OlympusEq" && tag == 0x0203) || (group == "Panasonic" && tag == 0x0051)) {
    f.maker_lens = clean(d.toString());
  }
}

void take_facts(const Exiv2::ExifData& data, facts& to, colour_space& colours) {
  found f;
  for (const auto& d : data) {
    try {
      take_datum(d, to, f);
    } catch (const Exiv2::AnyError&) {
      // One value is damaged: the others may be good.
    }
  }
  for (int i = 0; i < 3 && to.taken.empty(); ++i) {
    to.taken = f.taken[i];
    // Cameras that know their zone often write it once.
    if (!to.taken.empty()) to.taken_offset_minutes = f.offset[i] ? f.offset[i] : i == 2 ? std::nullopt : f.offset[2];
  }
  to.lens = f.lens.empty() ? f.maker_lens : f.lens;
  if (f.latitude && f.longitude && (f.latitude_ref == "N" || f.latitude_ref == "S") && (f.longitude_ref == "E" || f.longitude_ref == "W")) {
    to.latitude = within(f.latitude_ref == "S" ? -*f.latitude : *f.latitude, -90, 90);
    to.longitude = within(f.longitude_ref == "W" ? -*f.longitude : *f.longitude, -180, 180);
    if (!to.latitude || !to.longitude) to.latitude = to.longitude = std::nullopt;
    if (f.altitude) to.altitude_m = within(f.below_sea ? -*f.altitude : *f.altitude, -20'000, 1e6);
  }
  if (f.adobe || f.interoperability == "R03") colours = colour_space::adobe_rgb;
}

// ------------------------------------------------------------------------------------------------- RAW

struct raw_file {
  std::string preview;
  facts told;
};

result<raw_file> open_raw(bytes_view file) {
  raw_file r;
  try {
    auto image = Exiv2::ImageFactory::open(reinterpret_cast<const Exiv2::byte*>(file.data()), static_cast<long>(file.size()));
    image->readMetadata();
    colour_space ignored = colour_space::srgb;  // the sensor's, not the preview's
    take_facts(image->exifData(), r.told, ignored);
    Exiv2::PreviewManager previews(*image);
    const auto all = previews.getPreviewProperties();
    // From the smallest to the largest.
    for (auto p = all.rbegin(); p != all.rend(); ++p) {
      if (p->mimeType_ != "image/jpeg") continue;
      const auto found = previews.getPreviewImage(*p);
      const bytes_view jpeg(reinterpret_cast<const char*>(found.pData()), found.size());
      if (sniff(jpeg) != file_format::jpeg) continue;
      r.preview = jpeg;
      return r;
    }
  } catch (const Exiv2::AnyError& e) {
    return undecodable(e.what());
  }
  return undecodable("it holds no preview, and is not developed here");
}

result<plan> plan_raw(bytes_view file, std::uint64_t pixels_max) {
  TRY(auto r, open_raw(file));
  TRY(auto p, jpeg_decoder.make_plan(r.preview, pixels_max));
  p.format = file_format::raw;
  p.memory_bytes += r.preview.size();
  return p;
}

result<decoded> decode_raw(bytes_view file, std::uint32_t long_edge) {
  TRY(auto r, open_raw(file));
  TRY(auto d, jpeg_decoder.decode(r.preview, long_edge));
  // The whole file's word counts: previews repeat less of it.
  d.told = std::move(r.told);
  d.told.format = file_format::raw;
  return d;
}

}  // namespace

const decoder raw_decoder{plan_raw, decode_raw};

void read_exif(bytes_view tiff, decoded& d) {
  if (tiff.size() < 8 || tiff.size() > exif_size_max) return;
  try {
    Exiv2::ExifData data;
    Exiv2::ExifParser::decode(data, reinterpret_cast<const Exiv2::byte*>(tiff.data()), static_cast<std::uint32_t>(tiff.size()));
    take_facts(data, d.told, d.colours);
  } catch (const Exiv2::AnyError&) {
    // Damaged: the picture is still one.
  }
}

std::string clean(std::string_view s) {
  s = s.substr(0, 4 * text_size_max);
  std::string out;
  for (std::size_t i = 0; i < s.size();) {
    // The longest good character here, or a sign that there was something else.
    std::size_t n = 1;
    while (n <= 4 && !(i + n <= s.size() && is_clean_text(s.substr(i, n)))) ++n;
    const bool control = static_cast<unsigned char>(s[i]) < 0x20 || s[i] == 0x7f;
    const std::string_view piece = n <= 4 ? s.substr(i, n) : control ? std::string_view(" ") : std::string_view("\xef\xbf\xbd");
    if (out.size() + piece.size() > text_size_max) break;
    if (s[i] == 0) break;
    out += piece;
    i += n <= 4 ? n : 1;
  }
  const auto first = out.find_first_not_of(' ');
  return first == std::string::npos ? std::string() : out.substr(first, out.find_last_not_of(' ') - first + 1);
}

}  // namespace grenier::picture
