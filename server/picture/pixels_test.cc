#include "picture/pixels.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "base/base.h"
#include "picture/picture_fixture.h"

using namespace grenier::picture;

namespace {

double difference(const image& a, const image& b) {
  REQUIRE(a.pixels.size() == b.pixels.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(int(a.pixels[i]) - int(b.pixels[i]));
  return sum / static_cast<double>(a.pixels.size());
}

// What a camera that was held so would have stored.
image stored(const image& up, std::uint8_t orientation) {
  constexpr std::uint8_t back[] = {0, 1, 2, 3, 4, 5, 8, 7, 6};
  return upright(up, back[orientation]);
}

}  // namespace

TEST_CASE("sizes: the shape is kept, nothing becomes larger or vanishes") {
  CHECK(fit({4000, 3000}, 320).width == 320);
  CHECK(fit({4000, 3000}, 320).height == 240);
  CHECK(fit({3000, 4000}, 320).width == 240);
  CHECK(fit({100, 50}, 320).width == 100);
  CHECK(fit({100'000, 2}, 320).height == 1);
}

TEST_CASE("all eight orientations come upright") {
  const image up = fixture::scene(40, 30);
  for (std::uint8_t o = 1; o <= 8; ++o) {
    const image s = stored(up, o);
    CHECK((s.width == 40) == (o < 5));
    const image again = upright(s, o);
    CHECK(again.width == 40);
    CHECK(again.pixels == up.pixels);
    if (o > 1) CHECK(s.pixels != up.pixels);
  }
  // By the words of Exif: 6 is "the first row is the visual right-hand side, the first column the visual top".
  image two;
  two.width = 2, two.height = 1;
  two.pixels = {1, 1, 1, 255, 2, 2, 2, 255};
  const image turned = upright(two, 6);
  CHECK(turned.height == 2);
  CHECK(turned.pixels[0] == 1);
  image column = upright(upright(two, 6), 6);  // 180 degrees
  CHECK(column.pixels[0] == 2);
  CHECK(column.pixels == upright(two, 3).pixels);
}

TEST_CASE("a smaller picture looks like the larger one") {
  const image i = fixture::scene(1000, 700);
  const image direct = shrink(i, {100, 70});
  CHECK(difference(direct, fixture::scene(100, 70)) < 2.5);
  CHECK(difference(direct, shrink(shrink(i, {300, 210}), {100, 70})) < 1.5);
  CHECK(shrink(i, {1000, 700}).pixels == i.pixels);
  image flat = i;
  for (auto& p : flat.pixels) p = 77;
  for (auto p : shrink(flat, {33, 21}).pixels) CHECK(p == 77);
  CHECK(shrink(i, {1, 1}).pixels.size() == 4);
}

TEST_CASE("transparent colours stay below their opacity, and lie over white in a JPEG") {
  image i = fixture::scene(64, 64);
  i.alpha = true;
  for (std::uint32_t y = 0; y < 64; ++y)
    for (std::uint32_t x = 0; x < 64; ++x)
      if ((x / 8 + y / 8) % 2)
        for (int c = 0; c < 4; ++c) i.row(y)[x * 4 + static_cast<std::uint32_t>(c)] = 0;
  const image s = shrink(i, {24, 24});
  for (std::size_t p = 0; p < s.pixels.size(); p += 4)
    for (std::size_t c = 0; c < 3; ++c) CHECK(s.pixels[p + c] <= s.pixels[p + 3]);
}

TEST_CASE("colours: Display P3 becomes sRGB, and sRGB stays what it is") {
  image i = fixture::scene(16, 16);
  const auto before = i.pixels;
  to_srgb(i, {}, colour_space::srgb);
  CHECK(i.pixels == before);
  to_srgb(i, "not a profile", colour_space::srgb);
  CHECK(i.pixels == before);
  image grey = i;
  for (std::size_t p = 0; p < grey.pixels.size(); ++p) grey.pixels[p] = p % 4 == 3 ? 255 : 128;
  image p3 = grey;
  to_srgb(p3, {}, colour_space::display_p3);
  for (auto v : p3.pixels) CHECK((v == 255 || std::abs(v - 128) <= 1));
  image green = grey;
  for (std::size_t p = 0; p < green.pixels.size(); p += 4) green.pixels[p] = 100, green.pixels[p + 1] = 200, green.pixels[p + 2] = 100;
  to_srgb(green, {}, colour_space::display_p3);
  CHECK(green.pixels[0] < 80);    // more saturated in the smaller space
  CHECK(green.pixels[1] >= 200);
  CHECK(green.pixels[3] == 255);
}

TEST_CASE("inks become colours") {
  image i;
  i.width = i.height = 1;
  i.inks = true;
  i.pixels = {255, 0, 255, 128};  // magenta, and half of the black
  to_srgb(i, {}, colour_space::srgb);
  CHECK(i.pixels[0] == 128);
  CHECK(i.pixels[1] == 0);
  CHECK(i.pixels[2] == 128);
  CHECK(i.pixels[3] == 255);
}

TEST_CASE("a thumbhash has at most 25 bytes and tells average, shape and transparency") {
  const std::string wide = thumbhash(fixture::scene(300, 200)), tall = thumbhash(fixture::scene(200, 300));
  CHECK(wide.size() <= 25);
  CHECK((static_cast<unsigned char>(wide[4]) & 0x80) != 0);  // landscape
  CHECK((static_cast<unsigned char>(tall[4]) & 0x80) == 0);
  CHECK((static_cast<unsigned char>(wide[2]) & 0x80) == 0);  // opaque
  image black = fixture::scene(10, 10);
  for (std::size_t p = 0; p < black.pixels.size(); ++p) black.pixels[p] = p % 4 == 3 ? 255 : 0;
  CHECK((static_cast<unsigned char>(thumbhash(black)[0]) & 63) == 0);
  image clear = black;
  clear.alpha = true;
  for (std::size_t p = 3; p < clear.pixels.size() / 2; p += 4) clear.pixels[p] = 0;
  const std::string c = thumbhash(clear);
  CHECK((static_cast<unsigned char>(c[2]) & 0x80) != 0);
  CHECK(c.size() <= 25);
  // What the algorithm's author's own program makes of the same pixels.
  CHECK(grenier::to_base64(thumbhash(fixture::scene(96, 64))) == "2gkGbZpwdIjBaIibeGeHZnFQBvd4");
  CHECK(grenier::to_base64(thumbhash(fixture::scene(60, 90))) == "2vkFbRpwdbFouIlnh3Zoh3FQBveH");
  image part = fixture::scene(96, 64);
  part.alpha = true;
  for (std::size_t p = 0; p < part.pixels.size(); p += 4)
    if (p / 4 % 96 < 30) std::fill_n(part.pixels.begin() + static_cast<std::ptrdiff_t>(p), 4, std::uint8_t{0});
  CHECK(grenier::to_base64(thumbhash(part)) == "HFuGO5JKxYbAZ4nDkEb8dTCXeIiIiIc=");
  image one = fixture::scene(1, 1);
  CHECK(thumbhash(one).size() <= 25);
}
