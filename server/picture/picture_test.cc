#include "picture/picture.h"

#include <doctest/doctest.h>

#include <boost/asio/executor_work_guard.hpp>
#include <fcntl.h>
#include <jpeglib.h>
#include <png.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>

#include "picture/decode.h"
#include "picture/frames.h"
#include "picture/picture_fixture.h"

using namespace grenier;
using namespace grenier::picture;

namespace {

struct world {
  explicit world(pool_options o = {}, const char* program = "grenier-picture") : decoders(rt, programs, with(std::move(o), program)) {
    rt.set_log_sink([](log_level, const std::string&) {});
  }
  static pool_options with(pool_options o, const std::string& program) {
    const std::string found = default_program();
    if (o.program.empty()) o.program = found.substr(0, found.rfind('/') + 1) + program;
    return o;
  }
  void run(task<void> t) {
    auto guard = asio::make_work_guard(io);
    group.spawn("test", finish(std::move(t), guard));
    io.run();
    io.restart();
  }
  task<void> finish(task<void> t, asio::executor_work_guard<io_executor>& g) {
    co_await std::move(t);
    co_await decoders.stop();
    g.reset();
  }
  asio::io_context io;
  real_clock clk{io};
  real_random rnd;
  thread_pool pool_threads{io, 1, "test"};
  runtime rt{io, clk, rnd, pool_threads, pool_threads};
  posix_processes programs{rt};
  picture::pool decoders;
  task_group group{rt};
};

task<result<rendered>> show(world& w, bytes file, options o = {}) {
  memory_source s(share(std::move(file)));
  co_return co_await w.decoders.render(s, std::move(o));
}

image decoded_pixels(bytes_view file) {
  auto d = decode(file, 4096);
  REQUIRE(d);
  return std::move(d->pixels);
}
double difference(const image& a, const image& b) {
  REQUIRE(a.width == b.width);
  REQUIRE(a.height == b.height);
  double sum = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(int(a.pixels[i]) - int(b.pixels[i]));
  return sum / static_cast<double>(a.pixels.size());
}
const rendition& of(const rendered& r, std::uint16_t size, image_type t) {
  for (const auto& n : r.renditions)
    if (n.size == size && n.type == t) return n;
  FAIL("a rendition is missing");
  return r.renditions.front();
}

// Coefficients are the same either way, only their order in the file is not.
bytes jpeg_of(const image& i, bool progressive, bool coarse_colours = false) {
  jpeg_compress_struct c;
  jpeg_error_mgr errors;
  c.err = jpeg_std_error(&errors);
  jpeg_create_compress(&c);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&c, &data, &size);
  c.image_width = i.width;
  c.image_height = i.height;
  c.input_components = 4;
  c.in_color_space = JCS_EXT_RGBX;
  jpeg_set_defaults(&c);
  jpeg_set_quality(&c, 95, TRUE);
  if (!coarse_colours) c.comp_info[0].h_samp_factor = c.comp_info[0].v_samp_factor = 1;
  if (progressive) jpeg_simple_progression(&c);
  jpeg_start_compress(&c, TRUE);
  while (c.next_scanline < c.image_height) {
    JSAMPROW rows[] = {const_cast<unsigned char*>(i.row(c.next_scanline))};
    jpeg_write_scanlines(&c, rows, 1);
  }
  jpeg_finish_compress(&c);
  bytes out(reinterpret_cast<char*>(data), size);
  jpeg_destroy_compress(&c);
  std::free(data);
  return out;
}

bytes png(const image& i, bool alpha) {
  png_image p{};
  p.version = PNG_IMAGE_VERSION;
  p.width = i.width;
  p.height = i.height;
  p.format = alpha ? PNG_FORMAT_RGBA : PNG_FORMAT_RGB;
  std::vector<std::uint8_t> raw;
  for (std::size_t at = 0; at < i.pixels.size(); ++at)
    if (alpha || at % 4 != 3) raw.push_back(i.pixels[at]);
  png_alloc_size_t size = 0;
  REQUIRE(png_image_write_to_memory(&p, nullptr, &size, 0, raw.data(), 0, nullptr));
  bytes out(size, 0);
  REQUIRE(png_image_write_to_memory(&p, out.data(), &size, 0, raw.data(), 0, nullptr));
  out.resize(size);
  return out;
}

task<void> tells_facts(world& w) {
  auto got = co_await show(w, fixture::jpeg(fixture::scene(3000, 2000), fixture::exif(6)));
  REQUIRE(got);
  REQUIRE(got->what == verdict::picture);
  const facts& f = got->facts;
  CHECK(f.format == file_format::jpeg);
  CHECK(f.width == 2000);
  CHECK(f.height == 3000);
  CHECK(f.orientation == 6);
  CHECK(f.taken == "2024-07-14T10:11:12");
  CHECK(f.taken_offset_minutes == 120);
  CHECK(f.make == "Grenier  \xef\xbf\xbd Works");
  CHECK(f.model == "Attic 1");
  CHECK(f.lens == "50mm");
  CHECK(f.iso == 400u);
  CHECK(*f.exposure_s == doctest::Approx(0.004));
  CHECK(*f.f_number == doctest::Approx(2.8));
  CHECK(*f.focal_mm == doctest::Approx(50));
  CHECK(*f.latitude == doctest::Approx(-45.764));
  CHECK(*f.longitude == doctest::Approx(4.8357));
  CHECK(*f.altitude_m == doctest::Approx(-173.5));
  CHECK(f.thumbhash.size() >= 15);
  CHECK(f.thumbhash.size() <= 25);
}

task<void> makes_all_sizes(world& w) {
  auto got = co_await show(w, fixture::jpeg(fixture::scene(3000, 2000), fixture::exif(1)));
  REQUIRE(got);
  CHECK(got->renditions.size() == 8);
  for (std::uint16_t size : {320, 640, 1280, 2048})
    for (auto t : {image_type::webp, image_type::jpeg}) {
      const rendition& n = of(*got, size, t);
      CHECK(n.width == size);
      CHECK(std::abs(n.height - size * 2 / 3.0) <= 1);
      CHECK(is_bare(t, n.width, n.height, *n.data));
      for (const char* word : {"Exif", "SECRET", "Attic", "http", "ICC_PROFILE"}) CHECK(n.data->find(word) == bytes::npos);
      CHECK(difference(decoded_pixels(*n.data), fixture::scene(n.width, n.height)) < 3.5);
    }
}

task<void> makes_nothing_larger(world& w) {
  auto got = co_await show(w, fixture::jpeg(fixture::scene(500, 300), ""));
  REQUIRE(got);
  CHECK(got->renditions.size() == 4);
  CHECK(of(*got, 320, image_type::webp).width == 320);
  CHECK(of(*got, 640, image_type::webp).width == 500);
  CHECK(of(*got, 640, image_type::jpeg).height == 300);
  got = co_await show(w, fixture::jpeg(fixture::scene(320, 200), ""));
  REQUIRE(got);
  CHECK(got->renditions.size() == 2);
  CHECK(of(*got, 320, image_type::jpeg).width == 320);
  options few;
  few.sizes = {{2048, true, false}};
  got = co_await show(w, fixture::jpeg(fixture::scene(30, 20), ""), few);
  REQUIRE(got);
  REQUIRE(got->renditions.size() == 1);
  CHECK(got->renditions[0].width == 30);
  few.sizes = {};
  got = co_await show(w, fixture::jpeg(fixture::scene(300, 200), ""), few);
  REQUIRE(got);
  CHECK(got->renditions.empty());
  CHECK(got->facts.width == 300);
}

task<void> turns_all(world& w) {
  constexpr std::uint8_t back[] = {0, 1, 2, 3, 4, 5, 8, 7, 6};
  const image up = fixture::scene(600, 400);
  image first;
  for (std::uint8_t o = 1; o <= 8; ++o) {
    auto got = co_await show(w, fixture::jpeg(upright(up, back[o]), fixture::exif(o)));
    REQUIRE(got);
    REQUIRE(got->what == verdict::picture);
    CHECK(got->facts.width == 600);
    image now = decoded_pixels(*of(*got, 320, image_type::jpeg).data);
    if (o == 1) first = now;
    CHECK(difference(now, first) < 1.5);
    CHECK(difference(now, fixture::scene(320, 213)) < 4);
  }
}

task<void> reads_other_formats(world& w) {
  image i = fixture::scene(400, 300);
  auto got = co_await show(w, png(i, false));
  REQUIRE(got);
  CHECK(got->facts.format == file_format::png);
  CHECK(difference(decoded_pixels(*of(*got, 640, image_type::jpeg).data), i) < 3);
  got = co_await show(w, encode_webp(i, 90));
  REQUIRE(got);
  CHECK(got->facts.format == file_format::webp);
  CHECK(difference(decoded_pixels(*of(*got, 640, image_type::jpeg).data), i) < 3);
  // One red pixel.
  got = co_await show(w, bytes("GIF89a\1\0\1\0\x80\0\0\xff\0\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;", 35));
  REQUIRE(got);
  REQUIRE(got->what == verdict::picture);
  CHECK(got->facts.format == file_format::gif);
  const image red = decoded_pixels(*of(*got, 320, image_type::jpeg).data);
  CHECK(red.pixels[0] > 240);
  CHECK(red.pixels[1] < 15);
  // Clear on the left: white in a JPEG, clear in a WebP.
  for (std::uint32_t y = 0; y < 300; ++y)
    for (std::uint32_t x = 0; x < 200; ++x) i.row(y)[x * 4 + 3] = 0;
  got = co_await show(w, png(i, true));
  REQUIRE(got);
  const image over_white = decoded_pixels(*of(*got, 320, image_type::jpeg).data), clear = decoded_pixels(*of(*got, 320, image_type::webp).data);
  CHECK(over_white.row(100)[40] > 250);
  CHECK(clear.alpha);
  CHECK(clear.row(100)[43] == 0);
  CHECK(clear.row(100)[4 * 300 + 3] == 255);
}

task<void> tells_what_is_none(world& w) {
  for (const char* file : {"", "hello", "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "%PDF-1.4 and so on and on"}) {
    auto got = co_await show(w, file);
    REQUIRE(got);
    CHECK(got->what == verdict::not_a_picture);
  }
  CHECK(w.decoders.stats().children_started == 0);  // nobody was bothered with them
  const bytes good = fixture::jpeg(fixture::scene(300, 200), "");
  auto got = co_await show(w, good.substr(0, 100));
  REQUIRE(got);
  CHECK(got->what == verdict::undecodable);
  CHECK(!got->reason.empty());
  // Cut off in its middle: shown as far as it goes.
  got = co_await show(w, good.substr(0, good.size() * 2 / 3));
  REQUIRE(got);
  CHECK(got->what == verdict::picture);
  bytes bad = png(fixture::scene(300, 200), false);
  bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 0x55);
  got = co_await show(w, bad);
  REQUIRE(got);
  CHECK(got->what == verdict::undecodable);
  options small;
  small.pixels_max = 1000;
  got = co_await show(w, good, small);
  REQUIRE(got);
  CHECK(got->what == verdict::undecodable);
  CHECK(got->reason.find("300 times 200") != std::string::npos);
}

task<void> refuses_bad_options(world& w) {
  for (std::vector<wanted> sizes : {std::vector<wanted>{{8}}, {{5000}}, {{320}, {320}}, std::vector<wanted>(9, {320})}) {
    options o;
    o.sizes = sizes;
    CHECK((co_await show(w, "x", o)).failed_with(errc::invalid_argument));
  }
}

// ------------------------------------------------------------------------------------------------- the sandbox

// A sanitized child has neither the filter of calls nor the limit of memory (sandbox.cc).
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GRENIER_SANITIZED
#endif
#endif
#ifdef GRENIER_SANITIZED
constexpr bool confined = false;
#else
constexpr bool confined = true;
#endif

// The trespasser is a real decoder that obeys "trespass X".
task<std::string> trespass_as(world& w, std::string what) {
  // It asks for no picture's name: the file must look like one to the pool.
  class two_faced final : public source {
   public:
    explicit two_faced(bytes b) : bytes_(std::move(b)) {}
    std::uint64_t size() const override { return bytes_.size(); }
    task<result<shared_bytes>> next() override { co_return std::exchange(given_, true) ? nullptr : share(bytes_); }

   private:
    bytes bytes_;
    bool given_ = false;
  };
  two_faced s("\xff\xd8\xff" "trespass " + what);
  auto got = co_await w.decoders.render(s, {});
  if (!got) co_return got.error().to_string();
  CHECK(got->what == verdict::undecodable);
  co_return got->reason;
}

task<void> is_killed_for_trespass(world& w) {
  for (const char* what : {"open", "create", "socket", "execve", "fork", "thread", "code", "ptrace", "limits"}) {
    CAPTURE(what);
    CHECK(co_await trespass_as(w, what) == "the decoder was stopped: it tried what it may not do (SIGSYS)");
    // Others are unharmed.
    auto got = co_await show(w, fixture::jpeg(fixture::scene(100, 80), ""));
    REQUIRE(got);
    CHECK(got->what == verdict::picture);
  }
  CHECK(::access("/tmp/grenier-picture-was-here", F_OK) != 0);
  CHECK(w.decoders.stats().stopped == 9);
}

task<void> ends_badly(world& w) {
  for (auto [what, why] : {std::pair("crash", "it crashed"), {"abort", "SIGABRT"}, {"memory", "out of memory"}}) {
    if (!confined) continue;
    const auto said = co_await trespass_as(w, what);
    CAPTURE(what);
    CAPTURE(said);
    CHECK(said.find(why) != std::string::npos);
  }
  auto got = co_await show(w, fixture::jpeg(fixture::scene(100, 80), ""));
  REQUIRE(got);
  CHECK(got->what == verdict::picture);
}
task<void> works_too_long(world& w) {
  const auto said = co_await trespass_as(w, "forever");
  CAPTURE(said);
  CHECK(said.find("too long") != std::string::npos);
}
task<void> sleeps_too_long(world& w) {
  const auto said = co_await trespass_as(w, "sleep");
  CAPTURE(said);
  CHECK(said.starts_with("timed_out"));
}

task<void> lies(world& w) {
  for (const char* how : {"chatter", "early", "control", "place", "page", "greedy"}) {
    CAPTURE(how);
    const auto reason = co_await trespass_as(w, std::string("lie ") + how);
    CHECK(reason.starts_with("the decoder was stopped: it gave an answer that is none"));
  }
}

// ------------------------------------------------------------------------------------------------- the pool

task<void> recycles(world& w) {
  for (int i = 0; i < 7; ++i) CHECK((co_await show(w, fixture::jpeg(fixture::scene(50, 50), "")))->what == verdict::picture);
  CHECK(w.decoders.stats().children_started == 3);
  CHECK(w.decoders.stats().pictures == 7);
  CHECK(w.decoders.children_running() == 1);
  // What could not be decoded costs its child.
  CHECK((co_await show(w, "\xff\xd8\xff" "rubbish"))->what == verdict::undecodable);
  CHECK(w.decoders.children_running() == 0);
}

task<void> one(world& w, int& done) {
  auto got = co_await show(w, fixture::jpeg(fixture::scene(600, 500), ""));
  CHECK((got && got->what == verdict::picture));
  ++done;
}
task<void> many_together(world& w) {
  task_group all(w.rt);
  int done = 0;
  for (int i = 0; i < 12; ++i) all.spawn("one", one(w, done));
  co_await all.join();
  CHECK(done == 12);
  CHECK(w.decoders.stats().children_started == 2);
}

// Enough for what is small; what says that it needs more is refused in words, and costs nobody else anything.
task<void> over_budget(world& w) {
  CHECK((co_await show(w, fixture::jpeg(fixture::scene(600, 500), "")))->what == verdict::picture);
  auto large = co_await show(w, jpeg_of(fixture::scene(2600, 1700), true));
  REQUIRE(large);
  CHECK(large->what == verdict::undecodable);
  CHECK(large->reason.find("more than the 8") != std::string::npos);
  CHECK((co_await show(w, fixture::jpeg(fixture::scene(600, 500), "")))->what == verdict::picture);
  CHECK(w.decoders.stats().undecodable == 1);
  CHECK(w.decoders.stats().stopped == 0);
}

task<void> endless(world& w, bool& cancelled) {
  try {
    (void)co_await trespass_as(w, "forever");
  } catch (const boost::system::system_error&) {
    cancelled = true;
    throw;
  }
  cancelled = true;  // or an error said so
}
task<void> cancels(world& w) {
  task_group g(w.rt);
  bool cancelled = false;
  g.spawn("endless", endless(w, cancelled));
  while (w.decoders.stats().children_started == 0) co_await sleep_for(w.rt, 5ms);
  co_await sleep_for(w.rt, 300ms);
  g.cancel();
  co_await g.join();
  CHECK(cancelled);
  CHECK(w.decoders.children_running() == 0);
  CHECK((co_await show(w, fixture::jpeg(fixture::scene(50, 50), "")))->what == verdict::picture);
}

task<void> stopped_meanwhile(world& w, std::string& said) {
  said = co_await trespass_as(w, "forever");
}
task<void> stops(world& w) {
  task_group g(w.rt);
  std::string first, second;
  g.spawn("first", stopped_meanwhile(w, first));
  g.spawn("second", stopped_meanwhile(w, second));  // waits for the only child
  co_await sleep_for(w.rt, 500ms);
  co_await w.decoders.stop();
  co_await g.join();
  CHECK(first.starts_with("cancelled"));
  CHECK(second.starts_with("cancelled"));
  CHECK(w.decoders.children_running() == 0);
  CHECK((co_await show(w, fixture::jpeg(fixture::scene(50, 50), ""))).failed_with(errc::cancelled));
}

class broken_source final : public source {
 public:
  broken_source(bytes b, std::uint64_t said, std::optional<errc> then) : bytes_(std::move(b)), said_(said), then_(then) {}
  std::uint64_t size() const override { return said_; }
  task<result<shared_bytes>> next() override {
    if (at_ < bytes_.size()) {
      const auto piece = bytes_.substr(at_, 1000);
      at_ += piece.size();
      co_return share(piece);
    }
    if (then_) co_return fail(*then_, "the block is gone");
    co_return nullptr;
  }

 private:
  bytes bytes_;
  std::uint64_t said_;
  std::optional<errc> then_;
  std::size_t at_ = 0;
};
task<void> suffers_bad_sources(world& w) {
  const bytes file = fixture::jpeg(fixture::scene(300, 300), "");
  broken_source fails(file.substr(0, 3000), file.size(), errc::unavailable), ends(file.substr(0, 3000), file.size(), {}), more(file, 2000, {});
  CHECK((co_await w.decoders.render(fails, {})).failed_with(errc::unavailable));
  CHECK((co_await w.decoders.render(ends, {})).failed_with(errc::incomplete_body));
  CHECK((co_await w.decoders.render(more, {})).failed_with(errc::incomplete_body));
  broken_source pieces(file, file.size(), {}), huge(file, file_size_max + 1, {});
  CHECK((co_await w.decoders.render(pieces, {}))->what == verdict::picture);
  CHECK((co_await w.decoders.render(huge, {}))->what == verdict::undecodable);
}

task<void> is_not_there(world& w) {
  auto got = co_await show(w, fixture::jpeg(fixture::scene(30, 30), ""));
  CHECK(got.failed_with(errc::unavailable));
  CHECK(!got.error().detail.empty());
}

}  // namespace

TEST_CASE("facts of a photo") {
  world w;
  w.run(tells_facts(w));
}
TEST_CASE("renditions: all sizes, both types, nothing but pixels") {
  world w;
  w.run(makes_all_sizes(w));
}
TEST_CASE("renditions are never larger than the original") {
  world w;
  w.run(makes_nothing_larger(w));
}
TEST_CASE("all eight orientations give the same picture") {
  world w;
  w.run(turns_all(w));
}
TEST_CASE("PNG, WebP and GIF; transparency") {
  world w;
  w.run(reads_other_formats(w));
}
TEST_CASE("what is no picture, and what cannot be decoded") {
  world w;
  w.run(tells_what_is_none(w));
  world v;
  v.run(refuses_bad_options(v));
}
TEST_CASE("the child has no files, network, programs or threads") {
  if (!confined) return;
  world w({}, "picture_trespasser");
  w.run(is_killed_for_trespass(w));
}
TEST_CASE("a child that ends badly costs its picture") {
  // Filling its memory may take a slow machine over a second: only who works for ever is given that little.
  pool_options o;
  world w(o, "picture_trespasser");
  w.run(ends_badly(w));
  o.cpu_max = 1s;
  world u(o, "picture_trespasser");
  u.run(works_too_long(u));
  o.wall_max = 300ms;
  world v(o, "picture_trespasser");
  v.run(sleeps_too_long(v));
}
TEST_CASE("a child that lies is not believed") {
  world w({}, "picture_trespasser");
  w.run(lies(w));
}
TEST_CASE("children are bounded, reused and renewed") {
  pool_options o;
  o.pictures_max = 3;
  world w(o);
  w.run(recycles(w));
  pool_options two;
  two.children = 2;
  two.memory_bytes = 1 << 20;
  world v(two);
  v.run(many_together(v));
}
TEST_CASE("a picture that needs more memory than one is given is refused with what it needs") {
  pool_options o;
  o.picture_memory_bytes = 8 << 20;
  world w(o);
  w.run(over_budget(w));
}

TEST_CASE("cancelling and stopping end the children") {
  world w({}, "picture_trespasser");
  w.run(cancels(w));
  world v({}, "picture_trespasser");
  v.run(stops(v));
}
TEST_CASE("a source that fails, or gives other than it said") {
  world w;
  w.run(suffers_bad_sources(w));
}
TEST_CASE("a decoder that is not there, or is none, is said to be missing") {
  pool_options o;
  o.program = "/nowhere/grenier-picture";
  world w(o);
  w.run(is_not_there(w));
  o.program = "/bin/true";
  world v(o);
  v.run(is_not_there(v));
}

TEST_CASE("of a progressive file an eighth is made from the scans that it needs, and is the same") {
  image i = fixture::scene(2600, 1700);
  unsigned noise = 1;
  for (auto& v : i.pixels) noise = noise * 1664525 + 1013904223, v = static_cast<std::uint8_t>((v * 3 + (noise >> 24)) / 4);
  const bytes plain = jpeg_of(i, false), progressive = jpeg_of(i, true);
  auto small = [](bytes_view file) {
    auto d = decode(file, 320);
    REQUIRE(d);
    CHECK(d->full.width == 2600);
    return std::move(d->pixels);
  };
  const image truth = small(plain);
  CHECK(truth.width == 320);
  CHECK(small(progressive).pixels == truth.pixels);
  CHECK(decoded_pixels(progressive).pixels == decoded_pixels(plain).pixels);
  // Colours of half the resolution have it then, as they have in the renditions.
  CHECK(difference(small(jpeg_of(i, true, true)), small(jpeg_of(i, false, true))) < 2);
  // What is behind the first scan (the means but for their last bit) does not matter any more, but that the last of the means is there.
  bytes damaged = progressive;
  const std::size_t middle = progressive.size() / 2;
  for (std::size_t at = middle; at < middle + 1000; ++at)
    if (const auto b = static_cast<unsigned char>(damaged[at]); b && b != 0xff && static_cast<unsigned char>(damaged[at - 1]) != 0xff) damaged[at] = 0x11;
  REQUIRE(damaged != progressive);
  CHECK(small(damaged).pixels == truth.pixels);
  CHECK(difference(small(bytes_view(progressive).substr(0, middle)), truth) < 2);
  // Cut off in the first scan it is shown as far as it goes; before it there is nothing to show.
  CHECK(small(bytes_view(progressive).substr(0, 10'000)).width == 320);
  CHECK_FALSE(decode(bytes_view(progressive).substr(0, 300), 320));
}
