// The reference lines: four homes, two on ADSL and two on fibre, as measured between real homes (Mbit/s; round trips in ms).
// What a person waits for is bound by the line of the home they stand at, not by the slowest line that placement named.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdio>

#include "sim/cluster.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

constexpr double mbit = 1e6 / 8;
constexpr double rates[4][4] = {{0, 0.26, 0.27, 0.26}, {0.66, 0, 0.70, 0.71}, {3.6, 1.9, 0, 76}, {4.3, 2.0, 17, 0}};
constexpr int round_trips_ms[4][4] = {{0, 69, 58, 50}, {69, 0, 63, 57}, {58, 63, 0, 22}, {50, 57, 22, 0}};

// Bytes that do not compress, others for each seed: a block that is there already would not be sent.
bytes noise(std::size_t size, std::uint64_t seed) {
  bytes b;
  std::uint64_t x = 88172645463325252ull ^ seed << 20;
  while (b.size() < size) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    append_u64(b, x);
  }
  b.resize(size);
  return b;
}

void build(neighbourhood& c) {
  for (const char* z : {"adsl-1", "adsl-2", "fibre-3", "fibre-4"}) c.add({.zone = z, .block_size = 1 << 20, .inline_max = 64 << 10});
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 4; ++j)
      if (i != j) c.world().line(i, j) = {.delay = milliseconds(round_trips_ms[i][j]) / 2, .rate = rates[i][j] * mbit};
  // A home's uplink is shared by all its peers.
  c.at(0).uplink_rate = 0.27 * mbit;
  c.at(1).uplink_rate = 0.71 * mbit;
  c.at(2).uplink_rate = 76 * mbit;
  c.at(3).uplink_rate = 17 * mbit;
  REQUIRE(c.form());
  REQUIRE(c.make_bucket(2, "photos"));
  c.world().run_for(60s);
}

// What a plain TCP stream would take: headers of 60 bytes to a segment of 1448.
double one_copy(std::size_t size_bytes, double mbits) { return static_cast<double>(size_bytes) * 1508 / 1448 / (mbits * mbit); }

double seconds_of(neighbourhood& c, std::size_t home, const char* key, const bytes& body) {
  mono_time start = c.world().now();
  std::array<std::uint64_t, 4> before{};
  for (std::size_t j = 0; j < 4; ++j) before[j] = c.world().bytes_carried(home, j);
  auto r = c.put(home, "photos", key, body, std::chrono::minutes(10));
  std::printf("  %s: sent", key);
  for (std::size_t j = 0; j < 4; ++j) std::printf(" %llu KB to home %zu", static_cast<unsigned long long>((c.world().bytes_carried(home, j) - before[j]) / 1000), j + 1);
  std::printf("\n");
  CAPTURE((r ? std::string() : r.error().to_string()));
  REQUIRE(r);
  return static_cast<double>((c.world().now() - start).count()) / 1e9;
}

}  // namespace

TEST_CASE("a photo is stored in the time of the line it crosses once") {
  bytes photo = noise(8'000'000, 1);
  {
    neighbourhood c(31);
    build(c);
    (void)seconds_of(c, 2, "warm-up", noise(3'000'000, 2));
    c.world().run_for(std::chrono::minutes(20));
    double s = seconds_of(c, 2, "photo-3", photo);
    std::printf("8 MB photo stored at fibre home 3: %.2f s (at most 1.5)\n", s);
    CHECK(s <= 1.5);
  }
  {
    neighbourhood c(32);
    build(c);
    (void)seconds_of(c, 3, "warm-up", noise(6'000'000, 3));
    c.world().run_for(std::chrono::minutes(20));
    double s = seconds_of(c, 3, "photo-4", photo), one = one_copy(photo.size(), 17);
    std::printf("8 MB photo stored at fibre home 4: %.2f s, one copy on its line: %.2f s, ratio %.2f (at most 1.2)\n", s, one, s / one);
    CHECK(s <= 1.2 * one);
  }
}

TEST_CASE("what goes out over ADSL goes out once") {
  bytes page = noise(1'000'000, 4);
  neighbourhood c(33);
  build(c);
  double s = seconds_of(c, 0, "page-1", page), one = one_copy(page.size(), 0.27);
  std::printf("1 MB stored at ADSL home 1: %.2f s, one copy on its line: %.2f s, ratio %.2f (at most 1.1)\n", s, one, s / one);
  CHECK(s <= 1.1 * one);
}
