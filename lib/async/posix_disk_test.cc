// What posix_disk writes past the page cache, byte for byte, on a file system that takes that and on one that may not.
#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cstdlib>
#include <filesystem>

#include "async/async.h"

using namespace grenier;

namespace {

bytes pattern(std::size_t size, unsigned seed) {
  bytes b(size, '\0');
  for (std::size_t i = 0; i < size; ++i) b[i] = static_cast<char>((i * 2654435761u + seed) >> 11);
  return b;
}

task<void> write_and_compare(disk& d, std::vector<std::size_t> sizes, int& done) {
  std::vector<shared_bytes> pieces;
  bytes whole;
  for (std::size_t s : sizes) {
    pieces.push_back(share(pattern(s, static_cast<unsigned>(whole.size() + s))));
    whole += *pieces.back();
  }
  auto written = co_await d.write_durable("aa/file", std::move(pieces));
  CHECK(written.has_value());
  auto size = co_await d.size("aa/file");
  CHECK((size && *size == whole.size()));
  auto back = co_await d.read("aa/file", 0, whole.size() + 1);
  CHECK((back && *back == whole));
  ++done;
}

void all_sizes(const std::string& root) {
  asio::io_context io;
  real_clock clock(io);
  real_random random;
  thread_pool cpu(io, 1, "cpu"), pool(io, 2, "disk");
  runtime rt(io, clock, random, cpu, pool);
  auto d = posix_disk::open(rt, root);
  REQUIRE(d);
  constexpr std::size_t unit = 4096, large = 128 << 10, area = 1 << 20;
  const std::vector<std::vector<std::size_t>> shapes = {
      {large - 1}, {large}, {large + 1}, {area}, {area - 1}, {area + 1}, {3 * area + unit - 1}, {4 * area}, {unit, large}, {1, area, 0, area - 1, 7}, {12, 2 * area + unit}};
  int done = 0;
  for (const auto& sizes : shapes) {
    CAPTURE(sizes.front());
    asio::co_spawn(io, write_and_compare(**d, sizes, done), asio::detached);  // each over the one before: longer and shorter
    io.run();
    io.restart();
  }
  CHECK(done == static_cast<int>(shapes.size()));
}

}  // namespace

TEST_CASE("large files are what was written, whatever their length and pieces") {
  for (std::string base : {"/tmp", "/var/tmp", "/dev/shm"}) {
    std::string root = base + "/grenier-disk-XXXXXX";
    if (!::mkdtemp(root.data())) continue;
    CAPTURE(root);
    all_sizes(root);
    std::filesystem::remove_all(root);
  }
}
