#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "picture/frames.h"

#include <doctest/doctest.h>

#include "picture/picture_fixture.h"

using namespace grenier;
using namespace grenier::picture;

namespace {

facts some_facts() {
  facts f;
  f.format = file_format::heic;
  f.width = 3024;
  f.height = 4032;
  f.orientation = 6;
  f.taken = "2024-07-14T10:11:12";
  f.taken_offset_minutes = -360;
  f.make = "Caf\xc3\xa9";
  f.model = "X";
  f.lens = "50mm";
  f.iso = 400;
  f.exposure_s = 0.004;
  f.f_number = 2.8;
  f.focal_mm = 50;
  f.latitude = -45.5;
  f.longitude = 4.8;
  f.altitude_m = -3;
  f.thumbhash = bytes(25, '\x80');
  return f;
}

bytes jpeg_rendition(std::uint16_t size, std::uint32_t w, std::uint32_t h) {
  return encode(rendition{size, image_type::jpeg, static_cast<std::uint16_t>(w), static_cast<std::uint16_t>(h), share(encode_jpeg(fixture::scene(w, h), 80))});
}

reply_reader asked(options o = {}) {
  reply_reader r;
  REQUIRE(r.feed(encode_hello()));
  r.expect(std::move(o));
  return r;
}
reply_reader consented() {
  auto r = asked();
  REQUIRE(r.feed(encode(plan{file_format::jpeg, 4032, 3024, 1000})));
  REQUIRE(r.plan());
  r.consented();
  return r;
}
bool refuses(reply_reader r, const bytes& what) { return r.feed(what).failed_with(errc::protocol); }

}  // namespace

TEST_CASE("a request comes through as it was") {
  request q{{{{320, true, false}, {2048, false, true}}, 1000}, 12345};
  auto back = decode_request(encode(q));
  REQUIRE(back);
  CHECK(back->file_size == 12345);
  CHECK(back->what.pixels_max == 1000);
  REQUIRE(back->what.sizes.size() == 2);
  CHECK(back->what.sizes[0].size == 320);
  CHECK(back->what.sizes[0].webp);
  CHECK(!back->what.sizes[0].jpeg);
  CHECK(back->what.sizes[1].jpeg);
  CHECK(!decode_request(bytes(request_size_bytes, 9)));
  CHECK(!decode_request(""));
}

TEST_CASE("an answer comes through as it was, cut at any place") {
  const facts f = some_facts();
  const bytes all = encode(f) + jpeg_rendition(320, 240, 320) + encode_done();
  for (std::size_t step : {1ul, 7ul, 1000ul, all.size()}) {
    auto r = consented();
    for (std::size_t i = 0; i < all.size(); i += step) REQUIRE(r.feed(bytes_view(all).substr(i, step)));
    REQUIRE(r.finished());
    rendered got = r.take();
    CHECK(got.what == verdict::picture);
    CHECK(got.facts.taken == f.taken);
    CHECK(got.facts.taken_offset_minutes == f.taken_offset_minutes);
    CHECK(got.facts.make == f.make);
    CHECK(got.facts.iso == f.iso);
    CHECK(got.facts.exposure_s == f.exposure_s);
    CHECK(got.facts.latitude == f.latitude);
    CHECK(got.facts.altitude_m == f.altitude_m);
    CHECK(got.facts.thumbhash == f.thumbhash);
    REQUIRE(got.renditions.size() == 1);
    CHECK(got.renditions[0].width == 240);
    CHECK(got.renditions[0].size == 320);
    CHECK(*got.renditions[0].data == encode_jpeg(fixture::scene(240, 320), 80));
  }
}

TEST_CASE("a refusal ends an answer, and the next picture may be asked") {
  auto r = consented();
  REQUIRE(r.feed(encode(some_facts())));
  REQUIRE(r.feed(encode_refused(verdict::undecodable, "it is damaged")));
  REQUIRE(r.finished());
  auto got = r.take();
  CHECK(got.what == verdict::undecodable);
  CHECK(got.reason == "it is damaged");
  CHECK(got.renditions.empty());
  r.expect({});
  CHECK(!r.finished());
  CHECK(!r.plan());
  CHECK(r.feed(encode_refused(verdict::not_a_picture, "")));
}

TEST_CASE("what no honest child says is refused") {
  const plan p{file_format::jpeg, 10, 10, 10};
  CHECK(refuses(reply_reader(), encode(p)));
  CHECK(refuses(asked(), encode_hello()));
  CHECK(refuses(asked(), encode(some_facts())));
  CHECK(refuses(asked(), encode_done()));
  CHECK(refuses(asked(), encode(plan{file_format::none, 10, 10, 10})));
  CHECK(refuses(asked(), encode(plan{file_format::jpeg, 0, 10, 10})));
  CHECK(refuses(asked(), encode_refused(verdict::picture, "")));
  CHECK(refuses(asked(), encode_refused(verdict::undecodable, "\x1b[2J")));
  CHECK(refuses(consented(), encode(p)));
  CHECK(refuses(consented(), encode_done()));
  CHECK(refuses(consented(), jpeg_rendition(320, 240, 320)));
  CHECK(refuses(consented(), bytes("\x09\0\0\0\0", 5)));
  CHECK(refuses(consented(), bytes("\x03\xff\xff\xff\xff", 5)));
  CHECK(refuses(consented(), bytes("\x04\xff\xff\xff\xff", 5)));
}

TEST_CASE("facts that no picture has are refused") {
  auto with = [](auto change) {
    facts f = some_facts();
    change(f);
    return refuses(consented(), encode(f));
  };
  CHECK(!with([](facts&) {}));
  CHECK(with([](facts& f) { f.latitude = 90.5; }));
  CHECK(with([](facts& f) { f.longitude.reset(); }));
  CHECK(with([](facts& f) { f.exposure_s = std::numeric_limits<double>::quiet_NaN(); }));
  CHECK(with([](facts& f) { f.f_number = std::numeric_limits<double>::infinity(); }));
  CHECK(with([](facts& f) { f.make = "a\nb"; }));
  CHECK(with([](facts& f) { f.model = "\xff"; }));
  CHECK(with([](facts& f) { f.model = "\xc2\x85"; }));
  CHECK(with([](facts& f) { f.lens = std::string(129, 'a'); }));
  CHECK(with([](facts& f) { f.taken = "2024-13-14T10:11:12"; }));
  CHECK(with([](facts& f) { f.taken = "0000-00-00T00:00:00"; }));
  CHECK(with([](facts& f) { f.taken_offset_minutes = 1000; }));
  CHECK(with([](facts& f) { f.orientation = 9; }));
  CHECK(with([](facts& f) { f.width = 0; }));
  CHECK(with([](facts& f) { f.width = f.height = 100'000; }));
  CHECK(with([](facts& f) { f.thumbhash = bytes(26, 'x'); }));
  CHECK(with([](facts& f) { f.format = file_format::none; }));
}

TEST_CASE("renditions that nobody asked for, or of a wrong size, are refused") {
  auto ready = [] {
    auto r = consented();
    REQUIRE(r.feed(encode(some_facts())));
    return r;
  };
  CHECK(!refuses(ready(), jpeg_rendition(320, 240, 320)));
  CHECK(refuses(ready(), jpeg_rendition(321, 240, 320)));
  CHECK(refuses(ready(), jpeg_rendition(320, 240, 330)));
  CHECK(refuses(ready(), jpeg_rendition(320, 240, 320) + jpeg_rendition(320, 240, 320)));
  auto other = [](std::uint16_t w, std::uint16_t h, bytes data) { return encode(rendition{320, image_type::jpeg, w, h, share(std::move(data))}); };
  const bytes good = encode_jpeg(fixture::scene(240, 320), 80);
  CHECK(!refuses(ready(), other(240, 320, good)));
  CHECK(refuses(ready(), other(240, 319, good)));
  CHECK(refuses(ready(), other(0, 0, "")));
  CHECK(refuses(ready(), other(240, 320, "<html>")));
  CHECK(refuses(ready(), encode(rendition{320, image_type::webp, 240, 320, share(good)})));
}

TEST_CASE("a bare picture is told from one that carries more") {
  const image i = fixture::scene(64, 48);
  const bytes j = encode_jpeg(i, 80), w = encode_webp(i, 80);
  CHECK(is_bare(image_type::jpeg, 64, 48, j));
  CHECK(is_bare(image_type::webp, 64, 48, w));
  CHECK(!is_bare(image_type::jpeg, 48, 64, j));
  CHECK(!is_bare(image_type::webp, 48, 64, w));
  CHECK(!is_bare(image_type::webp, 64, 48, j));
  CHECK(!is_bare(image_type::jpeg, 64, 48, j + "x"));
  CHECK(!is_bare(image_type::webp, 64, 48, w + "x"));
  CHECK(!is_bare(image_type::jpeg, 64, 48, j.substr(0, j.size() - 2)));
  CHECK(!is_bare(image_type::jpeg, 64, 48, fixture::jpeg(i, "")));
  CHECK(!is_bare(image_type::jpeg, 64, 48, fixture::jpeg(i, fixture::exif(1))));
  image clear = i;
  clear.alpha = true;
  for (std::size_t at = 3; at < clear.pixels.size(); at += 8) clear.pixels[at] = 0;
  const bytes c = encode_webp(clear, 80);
  CHECK(is_bare(image_type::webp, 64, 48, c));
  // The same with a place for metadata, and with the metadata.
  bytes flagged = c;
  flagged[20] |= 0x08;
  CHECK(!is_bare(image_type::webp, 64, 48, flagged));
  bytes more = c + bytes("EXIF\x04\0\0\0" "abcd", 12);
  more[4] = static_cast<char>(static_cast<unsigned char>(more[4]) + 12);
  CHECK(!is_bare(image_type::webp, 64, 48, more));
  for (std::size_t n = 0; n < std::min<std::size_t>(j.size(), 700); ++n) CHECK(!is_bare(image_type::jpeg, 64, 48, bytes_view(j).substr(0, n)));
  for (std::size_t n = 0; n < w.size(); ++n) CHECK(!is_bare(image_type::webp, 64, 48, bytes_view(w).substr(0, n)));
}

TEST_CASE("a picture is known by its first bytes") {
  CHECK(sniff("") == file_format::none);
  CHECK(sniff("<svg xmlns='http://www.w3.org/2000/svg'>") == file_format::none);
  CHECK(sniff("\xff\xd8\xff\xe0") == file_format::jpeg);
  CHECK(pixels_of_jpeg({"\xff\xd8\xff\xe0\0\x04" "ab\xff\xff\xc2\0\x11\x08\x01\x02\x03\x04", 19}) == 0x102 * 0x304);
  for (bytes_view none : {bytes_view(), bytes_view("\xff\xd8\xff\xe0\0\x04" "ab\xff\xc2\0\x11\x08\x01\x02\x03", 16), bytes_view("\xff\xd8\xff\xe0\0\0" "ab\xff\xc2\0\x11\x08\x01\x02\x03\x04", 18),
                          bytes_view("\xff\xd8 no JPEG any more"), bytes_view("\xff\xd8\xff\xda\0\x08\0\0\0\0\0\0\xff\xc2\0\x11\x08\x01\x02\x03\x04", 22)})
    CHECK(pixels_of_jpeg(none) == 0);
  CHECK(sniff("RIFF1234WEBPVP8 ") == file_format::webp);
  CHECK(sniff("RIFF1234WAVEfmt ") == file_format::none);
  CHECK(sniff("GIF89a") == file_format::gif);
  CHECK(sniff(bytes_view("\0\0\0\x18" "ftypheic\0\0\0\0mif1heic", 24)) == file_format::heic);
  CHECK(sniff(bytes_view("\0\0\0\x1c" "ftypmif1\0\0\0\0mif1avifmiaf", 28)) == file_format::avif);
  CHECK(sniff(bytes_view("\0\0\0\x18" "ftypmp42\0\0\0\0mp42isom", 24)) == file_format::none);
  CHECK(sniff(bytes_view("\xff\x0a\0\0", 4)) == file_format::none);  // JPEG XL
  CHECK(sniff(bytes_view("II*\0\x10\0\0\0CR\2\0", 12)) == file_format::raw);
}
