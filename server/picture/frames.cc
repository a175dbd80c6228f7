#include "picture/frames.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace grenier::picture {

namespace {

constexpr std::size_t head_size_bytes = 5, reason_size_max = 400, sizes_max = 8;
constexpr std::size_t small_frame_max = 4096;

class writer {
 public:
  writer& u8(std::uint8_t v) { return out_.push_back(static_cast<char>(v)), *this; }
  writer& u16(std::uint16_t v) { return append_u16(out_, v), *this; }
  writer& u32(std::uint32_t v) { return append_u32(out_, v), *this; }
  writer& u64(std::uint64_t v) { return append_u64(out_, v), *this; }
  writer& text(std::string_view s) {
    u16(static_cast<std::uint16_t>(s.size()));
    out_.append(s);
    return *this;
  }
  writer& number(const std::optional<double>& d) {
    u8(d.has_value());
    return u64(std::bit_cast<std::uint64_t>(d.value_or(0)));
  }
  bytes take() { return std::move(out_); }

 private:
  bytes out_;
};

// Reads on past the end as zeros and remembers it.
class reader {
 public:
  explicit reader(bytes_view b) : rest_(b) {}
  std::uint8_t u8() { return static_cast<std::uint8_t>(need(1)[0]); }
  std::uint16_t u16() { return read_u16(need(2)); }
  std::uint32_t u32() { return read_u32(need(4)); }
  std::uint64_t u64() { return read_u64(need(8)); }
  std::string text(std::size_t size_max) {
    const std::size_t n = u16();
    if (n > size_max || n > rest_.size()) return bad_ = true, std::string();
    std::string s(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return s;
  }
  std::optional<double> number(double low, double high) {
    const auto has = u8();
    const auto v = std::bit_cast<double>(u64());
    if (has == 0) return std::nullopt;
    if (has != 1 || !std::isfinite(v) || v < low || v > high) return bad_ = true, std::nullopt;
    return v;
  }
  bytes_view rest() const { return rest_; }
  bool whole() const { return !bad_ && rest_.empty(); }
  bool bad() const { return bad_; }

 private:
  bytes_view need(std::size_t n) {
    static constexpr char zeros[8] = {};
    if (rest_.size() < n) {
      bad_ = true;
      rest_ = {};
      return {zeros, 8};
    }
    auto v = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return v;
  }
  bytes_view rest_;
  bool bad_ = false;
};

bytes frame(frame_kind k, bytes content) {
  bytes out;
  out.reserve(head_size_bytes + content.size());
  out.push_back(static_cast<char>(k));
  append_u32(out, static_cast<std::uint32_t>(content.size()));
  out += content;
  return out;
}

result<facts> decode_facts(bytes_view content) {
  reader r(content);
  facts f;
  const auto format = r.u8();
  f.format = static_cast<file_format>(format);
  f.width = r.u32();
  f.height = r.u32();
  f.orientation = r.u8();
  f.taken = r.text(19);
  if (r.u8()) f.taken_offset_minutes = static_cast<std::int16_t>(r.u16());
  f.make = r.text(text_size_max);
  f.model = r.text(text_size_max);
  f.lens = r.text(text_size_max);
  if (r.u8()) f.iso = r.u32();
  f.exposure_s = r.number(0, 1e6);
  f.f_number = r.number(0, 1e4);
  f.focal_mm = r.number(0, 1e6);
  f.latitude = r.number(-90, 90);
  f.longitude = r.number(-180, 180);
  f.altitude_m = r.number(-20'000, 1e6);
  f.thumbhash = r.text(25);
  const bool good = r.whole() && format >= 1 && format <= static_cast<std::uint8_t>(file_format::raw) && f.width > 0 && f.height > 0 &&
                    std::uint64_t{f.width} * f.height <= pixels_limit && f.orientation >= 1 && f.orientation <= 8 &&
                    (f.taken.empty() || is_civil_time(f.taken)) && std::abs(f.taken_offset_minutes.value_or(0)) <= 15 * 60 &&
                    is_clean_text(f.make) && is_clean_text(f.model) && is_clean_text(f.lens) && f.latitude.has_value() == f.longitude.has_value();
  if (!good) return fail(errc::protocol, "the decoder gave facts that no picture has");
  return f;
}

// The segments that a plain JPEG needs: tables, frame, scans. Of the application's only JFIF's.
bool is_bare_jpeg(std::uint32_t width, std::uint32_t height, bytes_view b) {
  auto at = [&](std::size_t i) { return static_cast<unsigned char>(b[i]); };
  if (b.size() < 4 || at(0) != 0xff || at(1) != 0xd8) return false;
  bool frame_seen = false, scan_seen = false;
  for (std::size_t i = 2;;) {
    if (i + 2 > b.size() || at(i) != 0xff) return false;
    const unsigned marker = at(i + 1);
    i += 2;
    if (marker == 0xd9) return frame_seen && scan_seen && i == b.size();
    if (i + 2 > b.size()) return false;
    const std::size_t n = at(i) * 256u + at(i + 1);
    if (n < 2 || i + n > b.size()) return false;
    if (marker == 0xe0) {
      if (n != 16 || b.substr(i + 2, 5) != bytes_view("JFIF\0", 5) || at(i + 14) != 0 || at(i + 15) != 0) return false;  // no thumbnail
    } else if (marker == 0xc0 || marker == 0xc2) {
      if (frame_seen || n < 8 || at(i + 3) * 256u + at(i + 4) != height || at(i + 5) * 256u + at(i + 6) != width) return false;
      frame_seen = true;
    } else if (marker != 0xdb && marker != 0xc4 && marker != 0xda && marker != 0xdd) {
      return false;
    }
    i += n;
    if (marker != 0xda) continue;
    if (!frame_seen) return false;
    scan_seen = true;
    // Coded bytes: a marker follows the first 0xff that is neither stuffed nor a restart.
    for (; i + 1 < b.size() && (at(i) != 0xff || at(i + 1) == 0 || (at(i + 1) >= 0xd0 && at(i + 1) <= 0xd7)); ++i) {
    }
  }
}

bool is_bare_webp(std::uint32_t width, std::uint32_t height, bytes_view b) {
  auto le = [&](std::size_t i, std::size_t n) {
    std::uint32_t v = 0;
    for (std::size_t k = n; k-- > 0;) v = v << 8 | static_cast<unsigned char>(b[i + k]);
    return v;
  };
  if (b.size() < 20 || b.size() > 0xffff'fff0u || b.substr(0, 4) != "RIFF" || b.substr(8, 4) != "WEBP" || le(4, 4) + 8 != b.size()) return false;
  int pictures = 0;
  for (std::size_t i = 12; i < b.size();) {
    if (i + 8 > b.size()) return false;
    const auto name = b.substr(i, 4);
    const std::uint64_t n = le(i + 4, 4);
    const std::size_t data = i + 8;
    if (data + n > b.size()) return false;
    if (name == "VP8X") {
      // Only the flag of transparency, and the size.
      if (i != 12 || n != 10 || (le(data, 4) & ~0x10u) != 0 || le(data + 4, 3) + 1 != width || le(data + 7, 3) + 1 != height) return false;
    } else if (name == "VP8 ") {
      if (n < 10 || (le(data + 6, 2) & 0x3fff) != width || (le(data + 8, 2) & 0x3fff) != height || ++pictures > 1) return false;
    } else if (name == "VP8L") {
      if (n < 5 || (le(data + 1, 4) & 0x3fff) + 1 != width || (le(data + 1, 4) >> 14 & 0x3fff) + 1 != height || ++pictures > 1) return false;
    } else if (name != "ALPH") {
      return false;
    }
    i = data + n + (n & 1);
  }
  return pictures == 1;
}

}  // namespace

bool is_clean_text(std::string_view s) noexcept {
  for (std::size_t i = 0; i < s.size();) {
    const auto c = static_cast<unsigned char>(s[i]);
    if (c < 0x20 || c == 0x7f) return false;
    if (c < 0x80) {
      ++i;
      continue;
    }
    const std::size_t n = c >= 0xc2 && c <= 0xdf ? 1 : c >= 0xe0 && c <= 0xef ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;
    if (n == 0 || i + n >= s.size()) return false;
    for (std::size_t k = 1; k <= n; ++k)
      if ((static_cast<unsigned char>(s[i + k]) & 0xc0) != 0x80) return false;
    const auto d = static_cast<unsigned char>(s[i + 1]);
    if ((c == 0xe0 && d < 0xa0) || (c == 0xed && d > 0x9f) || (c == 0xf0 && d < 0x90) || (c == 0xf4 && d > 0x8f)) return false;
    if (c == 0xc2 && d < 0xa0) return false;
    i += n + 1;
  }
  return true;
}

bool is_civil_time(std::string_view s) noexcept {
  constexpr std::string_view form = "0000-00-00T00:00:00";
  if (s.size() != form.size()) return false;
  for (std::size_t i = 0; i < s.size(); ++i)
    if (form[i] == '0' ? s[i] < '0' || s[i] > '9' : s[i] != form[i]) return false;
  auto two = [&](std::size_t at) { return (s[at] - '0') * 10 + (s[at + 1] - '0'); };
  constexpr int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const int month = two(5), day = two(8);
  return (two(0) * 100 + two(2)) >= 1800 && month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1] && two(11) < 24 && two(14) < 60 &&
         two(17) < 60;
}

bool is_bare(image_type t, std::uint32_t width, std::uint32_t height, bytes_view b) noexcept {
  return t == image_type::jpeg ? is_bare_jpeg(width, height, b) : is_bare_webp(width, height, b);
}

bytes encode(const request& q) {
  writer w;
  w.u8(static_cast<std::uint8_t>(protocol_version)).u8(static_cast<std::uint8_t>(q.what.sizes.size())).u64(q.file_size).u64(q.what.pixels_max);
  for (const auto& s : q.what.sizes) w.u16(s.size).u8(static_cast<std::uint8_t>((s.webp ? 1 : 0) | (s.jpeg ? 2 : 0)));
  bytes out = w.take();
  ASSERT(out.size() <= request_size_bytes);
  out.resize(request_size_bytes);
  return out;
}

result<request> decode_request(bytes_view b) {
  reader r(b);
  request q;
  q.what.sizes.clear();
  if (b.size() != request_size_bytes || r.u8() != protocol_version) return fail(errc::protocol, "a request of another version");
  const std::size_t n = r.u8();
  q.file_size = r.u64();
  q.what.pixels_max = r.u64();
  if (n > sizes_max || q.file_size == 0 || q.file_size > file_size_max) return fail(errc::protocol, "a request beyond the bounds");
  for (std::size_t i = 0; i < n; ++i) {
    wanted s;
    s.size = r.u16();
    const auto types = r.u8();
    s.webp = types & 1;
    s.jpeg = types & 2;
    if (s.size < 16 || s.size > 4096) return fail(errc::protocol, "a size beyond the bounds");
    q.what.sizes.push_back(s);
  }
  return q;
}

bytes encode_hello() { return frame(frame_kind::hello, bytes(1, protocol_version)); }

bytes encode(const plan& p) {
  return frame(frame_kind::plan, writer().u8(static_cast<std::uint8_t>(p.format)).u32(p.width).u32(p.height).u64(p.memory_bytes).take());
}

bytes encode(const facts& f) {
  writer w;
  w.u8(static_cast<std::uint8_t>(f.format)).u32(f.width).u32(f.height).u8(f.orientation).text(f.taken);
  w.u8(f.taken_offset_minutes.has_value());
  if (f.taken_offset_minutes) w.u16(static_cast<std::uint16_t>(*f.taken_offset_minutes));
  w.text(f.make).text(f.model).text(f.lens);
  w.u8(f.iso.has_value());
  if (f.iso) w.u32(*f.iso);
  w.number(f.exposure_s).number(f.f_number).number(f.focal_mm).number(f.latitude).number(f.longitude).number(f.altitude_m);
  return frame(frame_kind::facts, w.text(f.thumbhash).take());
}

bytes encode(const rendition& r) {
  bytes content = writer().u16(r.size).u8(static_cast<std::uint8_t>(r.type)).u16(r.width).u16(r.height).take();
  content += *r.data;
  return frame(frame_kind::rendition, std::move(content));
}

bytes encode_done() { return frame(frame_kind::done, {}); }

bytes encode_refused(verdict v, std::string_view reason) {
  return frame(frame_kind::refused, writer().u8(static_cast<std::uint8_t>(v)).text(reason.substr(0, reason_size_max)).take());
}

void reply_reader::expect(options asked) {
  asked_ = std::move(asked);
  answer_ = {};
  plan_.reset();
  answer_bytes_ = 0;
  expecting_ = true;
  consented_ = finished_ = have_facts_ = false;
}

result<void> reply_reader::feed(bytes_view in) {
  pending_ += in;
  std::size_t at = 0;
  while (pending_.size() - at >= head_size_bytes) {
    const auto kind = static_cast<frame_kind>(pending_[at]);
    const std::size_t n = read_u32(bytes_view(pending_).substr(at + 1));
    if (n > (kind == frame_kind::rendition ? rendition_size_max : small_frame_max)) return fail(errc::protocol, "an answer of the decoder is too long");
    if (pending_.size() - at - head_size_bytes < n) {
      if (pending_.capacity() < n + head_size_bytes) pending_.reserve(n + head_size_bytes);
      break;
    }
    TRY_VOID(take_frame(kind, bytes_view(pending_).substr(at + head_size_bytes, n)));
    at += head_size_bytes + n;
  }
  pending_.erase(0, at);
  if (pending_.empty() && pending_.capacity() > small_frame_max) bytes().swap(pending_);
  return {};
}

result<void> reply_reader::take_frame(frame_kind k, bytes_view content) {
  if (k == frame_kind::hello && !greeted_ && content == bytes_view(&protocol_version, 1)) {
    greeted_ = true;
    return {};
  }
  if (!greeted_ || !expecting_ || finished_) return fail(errc::protocol, "the decoder spoke without being asked");
  answer_bytes_ += content.size();
  if (answer_bytes_ > answer_size_max) return fail(errc::protocol, "the decoder's answer is too long");
  if (k == frame_kind::refused) {
    reader r(content);
    const auto v = static_cast<verdict>(r.u8());
    std::string reason = r.text(reason_size_max);
    if (!r.whole() || (v != verdict::not_a_picture && v != verdict::undecodable) || !is_clean_text(reason))
      return fail(errc::protocol, "the decoder gave no proper reason");
    answer_ = {};
    answer_.what = v;
    answer_.reason = std::move(reason);
    finished_ = true;
    return {};
  }
  if (k == frame_kind::plan && !plan_) {
    reader r(content);
    picture::plan p;
    const auto format = r.u8();
    p.format = static_cast<file_format>(format);
    p.width = r.u32();
    p.height = r.u32();
    p.memory_bytes = r.u64();
    if (!r.whole() || format < 1 || format > static_cast<std::uint8_t>(file_format::raw) || p.width == 0 || p.height == 0)
      return fail(errc::protocol, "the decoder's plan makes no sense");
    plan_ = p;
    return {};
  }
  if (!consented_) return fail(errc::protocol, "the decoder began without consent");
  if (k == frame_kind::facts && !have_facts_) {
    TRY(answer_.facts, decode_facts(content));
    have_facts_ = true;
    return {};
  }
  if (k == frame_kind::rendition && have_facts_) return take_rendition(content);
  if (k == frame_kind::done && have_facts_ && content.empty()) {
    answer_.what = verdict::picture;
    finished_ = true;
    return {};
  }
  return fail(errc::protocol, "the decoder's answers are out of order");
}

result<void> reply_reader::take_rendition(bytes_view content) {
  reader r(content);
  rendition n;
  n.size = r.u16();
  const auto type = r.u8();
  n.type = static_cast<image_type>(type);
  n.width = r.u16();
  n.height = r.u16();
  if (r.bad() || type > 1) return fail(errc::protocol, "a rendition is cut short");
  const bool asked = std::any_of(asked_.sizes.begin(), asked_.sizes.end(),
                                 [&](const wanted& w) { return w.size == n.size && (n.type == image_type::webp ? w.webp : w.jpeg); });
  const bool again = std::any_of(answer_.renditions.begin(), answer_.renditions.end(),
                                 [&](const rendition& o) { return o.size == n.size && o.type == n.type; });
  if (!asked || again) return fail(errc::protocol, "a rendition that nobody asked for");
  if (n.width == 0 || n.height == 0 || n.width > n.size || n.height > n.size || n.width > answer_.facts.width || n.height > answer_.facts.height)
    return fail(errc::protocol, "a rendition of a wrong size");
  if (!is_bare(n.type, n.width, n.height, r.rest())) return fail(errc::protocol, "a rendition that is more than a picture");
  n.data = share(bytes(r.rest()));
  answer_.renditions.push_back(std::move(n));
  return {};
}

}  // namespace grenier::picture
