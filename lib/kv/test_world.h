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

// What became of batches that wait together, in the order of the events: "undo a;undo b;failed b;done c;".
struct fates {
  world& w;
  store& s;
  std::string log = {};
  int left = 0;
  void commit(batch b, std::string name, nanoseconds after = 0ns) {
    ++left;
    w.group.spawn("commit", commit_one(*this, std::move(b), std::move(name), after));
  }
  void wait() {
    auto guard = asio::make_work_guard(w.io);
    w.io.restart();
    while (left) w.io.run_one();
  }
  static task<void> commit_one(fates& f, batch b, std::string name, nanoseconds after) {
    if (after > 0ns) co_await sleep_for(f.w.rt, after);
    b.if_lost([&f, name] { f.log += "undo " + name + ";"; });
    auto r = co_await f.s.commit(std::move(b));
    f.log += (r ? "done " : "failed ") + name + ";";
    --f.left;
  }
};

}  // namespace grenier::kv::testing
