// kv/test_world.h: what both test files of this module run their tasks in.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>

#include "kv/kv.h"

namespace grenier::kv::testing {

struct world {
  asio::io_context io;
  real_clock clk{io};
  real_random rnd;
  thread_pool pool{io, 2, "test"};
  runtime rt{io, clk, rnd, pool, pool};
  task_group group{rt};
  void run(task<void> t) {
    bool done = false;
    group.spawn("test", mark(std::move(t), done));
    auto guard = asio::make_work_guard(io);
    io.restart();
    while (!done) io.run_one();
  }
  static task<void> mark(task<void> t, bool& done) {
    co_await std::move(t);
    done = true;
  }
};

struct temporary {
  std::string path = std::filesystem::temp_directory_path() / ("grenier-kv-" + std::to_string(::getpid()));
  temporary() { std::filesystem::remove_all(path); }
  ~temporary() {
    std::error_code ec;
    std::filesystem::remove_all(path, ec);
  }
};

inline batch put_one(family f, bytes key, bytes value) {
  batch b;
  b.put(f, std::move(key), std::move(value));
  return b;
}

// The code of a commit that fails, or nothing.
inline task<void> commit_gives(store& s, batch b, std::optional<errc> expected) {
  auto r = co_await s.commit(std::move(b));
  CHECK(r.has_value() == !expected.has_value());
  if (expected && !r) CHECK(r.error().code == *expected);
}

inline task<void> has(store& s, family f, bytes key, std::optional<bytes> expected) {
  auto r = co_await s.get(f, std::move(key));
  REQUIRE(r);
  CHECK((*r == expected));
}

}  // namespace grenier::kv::testing
