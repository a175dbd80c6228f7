#include "picture/pixels.h"

#include <lcms2.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <numbers>

namespace grenier::picture {

namespace {

using float4 = float __attribute__((ext_vector_type(4)));
using byte4 = std::uint8_t __attribute__((ext_vector_type(4)));

constexpr double lobes = 3;

double lanczos(double x) {
  x = std::abs(x);
  if (x < 1e-9) return 1;
  if (x >= lobes) return 0;
  const double p = std::numbers::pi * x;
  return lobes * std::sin(p) * std::sin(p / lobes) / (p * p);
}

float4 load(const float* p) {
  float4 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
void store(float* p, float4 v) { __builtin_memcpy(p, &v, sizeof v); }

}  // namespace

extent fit(extent from, std::uint32_t long_edge) {
  const std::uint32_t longer = std::max(from.width, from.height);
  if (longer <= long_edge) return from;
  auto scaled = [&](std::uint32_t v) {
    return static_cast<std::uint32_t>(std::max<std::uint64_t>(1, (std::uint64_t{v} * long_edge + longer / 2) / longer));
  };
  return {scaled(from.width), scaled(from.height)};
}

std::vector<scaler::taps> scaler::plan(std::uint32_t from, std::uint32_t to, std::vector<float>& weights) {
  std::vector<taps> all(to);
  const double ratio = static_cast<double>(from) / to, widened = std::max(1.0, ratio), reach = lobes * widened;
  for (std::uint32_t i = 0; i < to; ++i) {
    const double centre = (i + 0.5) * ratio - 0.5;
    const auto first = static_cast<std::int64_t>(std::max(0.0, std::ceil(centre - reach)));
    const auto last = std::min<std::int64_t>(from - 1, static_cast<std::int64_t>(std::floor(centre + reach)));
    taps& t = all[i];
    t.first = static_cast<std::uint32_t>(first);
    t.count = static_cast<std::uint32_t>(last - first + 1);
    t.weights = weights.size();
    double sum = 0;
    for (auto k = first; k <= last; ++k) sum += lanczos((static_cast<double>(k) - centre) / widened);
    for (auto k = first; k <= last; ++k) weights.push_back(static_cast<float>(lanczos((static_cast<double>(k) - centre) / widened) / sum));
  }
  return all;
}

scaler::scaler(extent from, extent to) : from_(from), to_(to), copy_(from.width == to.width && from.height == to.height) {
  out_.width = to.width;
  out_.height = to.height;
  out_.pixels.resize(std::size_t{to.width} * to.height * 4);
  if (copy_) return;
  columns_ = plan(from.width, to.width, column_weights_);
  rows_ = plan(from.height, to.height, row_weights_);
  wide_.resize(std::size_t{from.width} * 4);
  across_.resize(std::size_t{to.width} * 4);
}

void scaler::row(const std::uint8_t* rgba) {
  if (y_ >= from_.height) return;
  if (copy_) {
    std::copy_n(rgba, std::size_t{from_.width} * 4, out_.row(y_++));
    return;
  }
  for (std::size_t i = 0; i < wide_.size(); ++i) wide_[i] = rgba[i];
  for (std::uint32_t x = 0; x < to_.width; ++x) {
    const taps& t = columns_[x];
    const float* in = wide_.data() + std::size_t{t.first} * 4;
    const float* w = column_weights_.data() + t.weights;
    float4 sum = 0;
    for (std::uint32_t k = 0; k < t.count; ++k) sum += load(in + std::size_t{k} * 4) * w[k];
    store(across_.data() + std::size_t{x} * 4, sum);
  }
  spread(across_);
  ++y_;
}

// One row of the original adds to each row of the result that it is a tap of; rows of the result end in order.
void scaler::spread(const std::vector<float>& across) {
  for (std::uint32_t o = next_; o < to_.height && rows_[o].first <= y_; ++o) {
    const taps& t = rows_[o];
    if (y_ >= t.first + t.count) continue;
    auto at = std::find_if(open_.begin(), open_.end(), [&](const line& l) { return l.used && l.y == o; });
    if (at == open_.end()) {
      at = std::find_if(open_.begin(), open_.end(), [](const line& l) { return !l.used; });
      if (at == open_.end()) at = open_.insert(open_.end(), line{});
      at->y = o;
      at->used = true;
      at->sums.assign(across.size(), 0);
    }
    const float w = row_weights_[t.weights + (y_ - t.first)];
    float* sums = at->sums.data();
    for (std::size_t i = 0; i < across.size(); ++i) sums[i] += across[i] * w;
    if (y_ + 1 == t.first + t.count) finish(*at);
  }
  while (next_ < to_.height && y_ + 1 >= rows_[next_].first + rows_[next_].count) ++next_;
}

void scaler::finish(line& l) {
  std::uint8_t* to = out_.row(l.y);
  // Colours never exceed their alpha: the lobes overshoot.
  for (std::size_t i = 0; i < l.sums.size(); i += 4) {
    const float a = std::clamp(l.sums[i + 3] + 0.5f, 0.0f, 255.0f);
    for (std::size_t c = 0; c < 3; ++c) to[i + c] = static_cast<std::uint8_t>(std::clamp(l.sums[i + c] + 0.5f, 0.0f, 255.0f));
    to[i + 3] = static_cast<std::uint8_t>(a);
  }
  l.used = false;
}

image scaler::take() {
  const std::vector<std::uint8_t> white(std::size_t{from_.width} * 4, 255);
  while (y_ < from_.height) row(white.data());
  return std::move(out_);
}

image shrink(const image& from, extent to) {
  scaler s({from.width, from.height}, to);
  for (std::uint32_t y = 0; y < from.height; ++y) s.row(from.row(y));
  image out = s.take();
  out.alpha = from.alpha;
  out.inks = from.inks;
  if (!out.alpha || out.inks) return out;
  for (std::size_t i = 0; i < out.pixels.size(); i += 4)
    for (std::size_t c = 0; c < 3; ++c) out.pixels[i + c] = std::min(out.pixels[i + c], out.pixels[i + 3]);
  return out;
}

image upright(image from, std::uint8_t orientation) {
  if (orientation < 2 || orientation > 8) return from;
  const bool turned = orientation >= 5;
  image to;
  to.alpha = from.alpha;
  to.inks = from.inks;
  to.width = turned ? from.height : from.width;
  to.height = turned ? from.width : from.height;
  to.pixels.resize(from.pixels.size());
  const std::uint32_t w = from.width - 1, h = from.height - 1;
  for (std::uint32_t y = 0; y < to.height; ++y)
    for (std::uint32_t x = 0; x < to.width; ++x) {
      std::uint32_t sx = x, sy = y;
      switch (orientation) {
        case 2: sx = w - x; break;
        case 3: sx = w - x, sy = h - y; break;
        case 4: sy = h - y; break;
        case 5: sx = y, sy = x; break;
        case 6: sx = y, sy = h - x; break;
        case 7: sx = w - y, sy = h - x; break;
        default: sx = w - y, sy = x; break;
      }
      __builtin_memcpy(to.row(y) + std::size_t{x} * 4, from.row(sy) + std::size_t{sx} * 4, 4);
    }
  return to;
}

// ------------------------------------------------------------------------------------------------- colours

namespace {

struct closes_profile {
  void operator()(void* p) const { cmsCloseProfile(p); }
};
struct deletes_transform {
  void operator()(void* t) const { cmsDeleteTransform(t); }
};
using profile = std::unique_ptr<void, closes_profile>;
using transform = std::unique_ptr<void, deletes_transform>;

struct curve {
  cmsToneCurve* c;
  ~curve() { cmsFreeToneCurve(c); }
};

profile named_profile(colour_space s) {
  const cmsCIExyY d65{0.3127, 0.3290, 1};
  constexpr cmsFloat64Number srgb_curve[] = {2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045};
  curve like_srgb{cmsBuildParametricToneCurve(nullptr, 4, srgb_curve)}, gamma{cmsBuildGamma(nullptr, 563.0 / 256)};
  cmsCIExyYTRIPLE primaries;
  cmsToneCurve* c = like_srgb.c;
  switch (s) {
    case colour_space::display_p3: primaries = {{0.680, 0.320, 1}, {0.265, 0.690, 1}, {0.150, 0.060, 1}}; break;
    case colour_space::bt2020: primaries = {{0.708, 0.292, 1}, {0.170, 0.797, 1}, {0.131, 0.046, 1}}; break;
    case colour_space::adobe_rgb:
      primaries = {{0.640, 0.330, 1}, {0.210, 0.710, 1}, {0.150, 0.060, 1}};
      c = gamma.c;
      break;
    default: return nullptr;
  }
  cmsToneCurve* curves[] = {c, c, c};
  return profile(cmsCreateRGBProfile(&d65, &primaries, curves));
}

std::uint8_t divide(unsigned v, unsigned a) { return static_cast<std::uint8_t>(std::min(255u, (v * 255 + a / 2) / a)); }
std::uint8_t multiply(unsigned v, unsigned a) { return static_cast<std::uint8_t>((v * a + 127) / 255); }

void separate_alpha(image& i) {
  for (std::size_t p = 0; p < i.pixels.size(); p += 4)
    if (const unsigned a = i.pixels[p + 3]; a != 0 && a != 255)
      for (std::size_t c = 0; c < 3; ++c) i.pixels[p + c] = divide(i.pixels[p + c], a);
}
void apply_alpha(image& i) {
  for (std::size_t p = 0; p < i.pixels.size(); p += 4)
    if (const unsigned a = i.pixels[p + 3]; a != 255)
      for (std::size_t c = 0; c < 3; ++c) i.pixels[p + c] = multiply(i.pixels[p + c], a);
}

// Without a profile: what screens do.
void mix_inks(image& i) {
  for (std::size_t p = 0; p < i.pixels.size(); p += 4) {
    const unsigned k = i.pixels[p + 3];
    for (std::size_t c = 0; c < 3; ++c) i.pixels[p + c] = multiply(i.pixels[p + c], k);
    i.pixels[p + 3] = 255;
  }
}

transform make_transform(const image& i, std::string_view icc, colour_space named) {
  profile from(icc.empty() ? nullptr : cmsOpenProfileFromMem(icc.data(), static_cast<cmsUInt32Number>(icc.size())));
  if (from && cmsGetColorSpace(from.get()) != (i.inks ? cmsSigCmykData : cmsSigRgbData)) from = nullptr;
  if (!from && !i.inks && named != colour_space::srgb) from = named_profile(named);
  if (!from) return nullptr;
  profile to(cmsCreate_sRGBProfile());
  if (!to) return nullptr;
  constexpr cmsUInt32Number rgba = TYPE_RGBA_8, inks = TYPE_CMYK_8_REV;
  return transform(cmsCreateTransform(from.get(), i.inks ? inks : rgba, to.get(), rgba, INTENT_PERCEPTUAL, 0));
}

}  // namespace

void to_srgb(image& i, std::string_view icc, colour_space named) {
  const auto t = make_transform(i, icc, named);
  if (!t) {
    if (i.inks) mix_inks(i);
  } else {
    if (i.alpha) separate_alpha(i);
    for (std::uint32_t y = 0; y < i.height; ++y) {
      // Row by row: the fourth byte is not a colour's, and is kept.
      std::uint8_t* row = i.row(y);
      cmsDoTransform(t.get(), row, row, i.width);
      if (i.inks)
        for (std::uint32_t x = 0; x < i.width; ++x) row[std::size_t{x} * 4 + 3] = 255;
    }
    if (i.alpha) apply_alpha(i);
  }
  i.inks = false;
}

// ------------------------------------------------------------------------------------------------- thumbhash

namespace {

// One channel as a constant, a triangle of cosines, and what they are scaled by.
struct waves {
  double constant = 0, scale = 0;
  std::vector<double> terms;
};

waves analyse(const std::vector<double>& channel, std::uint32_t w, std::uint32_t h, int nx, int ny) {
  waves out;
  std::vector<double> fx(w);
  for (int cy = 0; cy < ny; ++cy)
    for (int cx = 0; cx * ny < nx * (ny - cy); ++cx) {
      for (std::uint32_t x = 0; x < w; ++x) fx[x] = std::cos(std::numbers::pi / w * cx * (x + 0.5));
      double f = 0;
      for (std::uint32_t y = 0; y < h; ++y) {
        const double fy = std::cos(std::numbers::pi / h * cy * (y + 0.5));
        for (std::uint32_t x = 0; x < w; ++x) f += channel[std::size_t{y} * w + x] * fx[x] * fy;
      }
      f /= static_cast<double>(w) * h;
      if (cx == 0 && cy == 0) {
        out.constant = f;
      } else {
        out.terms.push_back(f);
        out.scale = std::max(out.scale, std::abs(f));
      }
    }
  if (out.scale > 0)
    for (double& f : out.terms) f = 0.5 + 0.5 / out.scale * f;
  return out;
}

int rounded(double v) { return static_cast<int>(std::floor(v + 0.5)); }

}  // namespace

std::string thumbhash(const image& from) {
  const image small = shrink(from, fit({from.width, from.height}, 100));
  const std::uint32_t w = small.width, h = small.height;
  const std::size_t n = std::size_t{w} * h;
  double sum_r = 0, sum_g = 0, sum_b = 0, sum_a = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint8_t* p = small.pixels.data() + i * 4;  // multiplied by alpha already
    sum_r += p[0] / 255.0;
    sum_g += p[1] / 255.0;
    sum_b += p[2] / 255.0;
    sum_a += p[3] / 255.0;
  }
  if (sum_a > 0) sum_r /= sum_a, sum_g /= sum_a, sum_b /= sum_a;
  const bool alpha = sum_a < static_cast<double>(n);
  // Lightness, yellow against blue, red against green; over the average colour where it is transparent.
  std::vector<double> l(n), p(n), q(n), a(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint8_t* x = small.pixels.data() + i * 4;
    const double opaque = x[3] / 255.0;
    const double r = sum_r * (1 - opaque) + x[0] / 255.0, g = sum_g * (1 - opaque) + x[1] / 255.0, b = sum_b * (1 - opaque) + x[2] / 255.0;
    l[i] = (r + g + b) / 3;
    p[i] = (r + g) / 2 - b;
    q[i] = r - g;
    a[i] = opaque;
  }
  const int l_limit = alpha ? 5 : 7;
  const double longer = std::max(w, h);
  const int lx = std::max(1, rounded(l_limit * w / longer)), ly = std::max(1, rounded(l_limit * h / longer));
  const waves wl = analyse(l, w, h, std::max(3, lx), std::max(3, ly)), wp = analyse(p, w, h, 3, 3), wq = analyse(q, w, h, 3, 3);
  const waves wa = alpha ? analyse(a, w, h, 5, 5) : waves{};
  const bool landscape = w > h;
  const int head = rounded(63 * wl.constant) | rounded(31.5 + 31.5 * wp.constant) << 6 | rounded(31.5 + 31.5 * wq.constant) << 12 |
                   rounded(31 * wl.scale) << 18 | (alpha ? 1 << 23 : 0);
  const int shape = (landscape ? ly : lx) | rounded(63 * wp.scale) << 3 | rounded(63 * wq.scale) << 9 | (landscape ? 1 << 15 : 0);
  std::string out;
  for (int v : {head & 255, head >> 8 & 255, head >> 16 & 255, shape & 255, shape >> 8 & 255}) out.push_back(static_cast<char>(v));
  if (alpha) out.push_back(static_cast<char>(rounded(15 * wa.constant) | rounded(15 * wa.scale) << 4));
  bool odd = false;
  for (const waves* ws : {&wl, &wp, &wq, &wa})
    for (double f : ws->terms) {
      const int nibble = rounded(15 * f);
      if (odd)
        out.back() = static_cast<char>(static_cast<unsigned char>(out.back()) | nibble << 4);
      else
        out.push_back(static_cast<char>(nibble));
      odd = !odd;
    }
  return out;
}

}  // namespace grenier::picture
