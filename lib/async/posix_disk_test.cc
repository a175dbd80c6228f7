// What posix_disk writes past the page cache, byte for byte, on a file system that takes that and on one that may not.
#include <doctest/doctest.h>

#include <sys/syscall.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <mutex>

#include "async/async.h"

using namespace grenier;

namespace {
// What was synced, by path, and which of it fails.
struct syncs {
  std::mutex m;
  std::vector<std::string> seen;
  std::string failing;  // fails once
} watched;
}  // namespace

// In place of the library's.
extern "C" int fsync(int fd) {
  char path[4096];
  ssize_t n = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path, sizeof path);
  std::string p(path, n > 0 ? static_cast<std::size_t>(n) : 0);
  {
    std::lock_guard l(watched.m);
    watched.seen.push_back(p);
    if (p == watched.failing) {
      watched.failing.clear();
      errno = EIO;
      return -1;
    }
  }
  return static_cast<int>(::syscall(SYS_fsync, fd));
}

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

namespace {
task<void> write_one(disk& d, std::string path, bool& ok) { ok = (co_await d.write_durable(std::move(path), {share("x")})).has_value(); }
}  // namespace

TEST_CASE("a directory counts as there once it was synced, whoever made it") {
  std::string base = "/tmp/grenier-disk-XXXXXX";
  REQUIRE(::mkdtemp(base.data()));
  const std::string root = base + "/data/drive";
  asio::io_context io;
  real_clock clock(io);
  real_random random;
  thread_pool cpu(io, 1, "cpu"), pool(io, 2, "disk");
  runtime rt(io, clock, random, cpu, pool);
  auto synced = [](const std::string& p) { return std::find(watched.seen.begin(), watched.seen.end(), p) != watched.seen.end(); };
  watched.seen.clear();
  auto d = posix_disk::open(rt, root);
  REQUIRE(d);
  CHECK(synced(base + "/data"));  // the root itself must be found again
  CHECK(synced(base));
  auto write = [&](const std::string& path) {
    watched.seen.clear();
    bool ok = false;
    asio::co_spawn(io, write_one(**d, path, ok), asio::detached);
    io.run();
    io.restart();
    return ok;
  };
  watched.failing = root;
  CHECK_FALSE(write("aa/bb/one"));  // made, but whether it is there after a power cut is not known
  CHECK(write("aa/bb/two"));
  CHECK(synced(root + "/aa"));
  CHECK(synced(root));
  CHECK(write("aa/bb/three"));
  CHECK(synced(root + "/aa/bb"));  // the file's own entry, as always
  CHECK_FALSE(synced(root));       // not each time
  std::filesystem::create_directories(root + "/cc");  // by an earlier start that died there, or another writer that is not so far yet
  CHECK(write("cc/one"));
  CHECK(synced(root));
  std::filesystem::remove_all(root + "/aa");
  CHECK(write("aa/bb/again"));
  CHECK(synced(root));
  std::filesystem::remove_all(base);
}
