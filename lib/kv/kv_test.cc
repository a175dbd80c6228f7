#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "kv/kv.h"

using namespace grenier;
using namespace grenier::kv;

namespace {

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
  ~temporary() { std::filesystem::remove_all(path); }
};

task<void> promises(store& s) {
  CHECK(!(*co_await s.get(family::row, "none")).has_value());
  batch b;
  for (int i = 0; i < 50; ++i) b.put(family::row, "k" + std::to_string(100 + i), "v" + std::to_string(i));
  b.put(family::body, "k100", bytes(70000, 'b'));
  b.put(family::row, "gone", "x");
  b.remove(family::row, "gone");
  CHECK(co_await s.commit(std::move(b)));
  CHECK(**co_await s.get(family::row, "k107") == "v7");
  CHECK((*co_await s.get(family::body, "k100"))->size() == 70000);
  CHECK(!(*co_await s.get(family::body, "k107")).has_value());
  CHECK(!(*co_await s.get(family::row, "gone")).has_value());

  auto page = *co_await s.scan(family::row, {.from = "k110", .until = "k120", .entries_max = 5});
  CHECK(page.size() == 5);
  CHECK(page.front().key == "k110");
  page = *co_await s.scan(family::row, {.from = "k110", .until = "k120"});
  CHECK(page.size() == 10);
  page = *co_await s.scan(family::row, {.bytes_max = 1});
  CHECK(page.size() == 1);

  auto seen = std::make_shared<std::vector<bytes>>();
  CHECK(co_await s.walk(family::row, "k100", "", [seen](bytes_view k, bytes_view) -> store::step {
    seen->emplace_back(k);
    if (k == "k103") return {store::step::kind::seek, "k1455"};
    if (k == "k148") return {store::step::kind::stop, {}};
    return {};
  }));
  CHECK(*seen == std::vector<bytes>{"k100", "k101", "k102", "k103", "k146", "k147", "k148"});

  batch large;
  large.put(family::row, bytes(5000, 'k'), "");
  CHECK((co_await s.commit(std::move(large))).failed_with(errc::too_large));
  batch again;
  again.put(family::row, "k107", "new");
  again.remove(family::row, "k108");
  CHECK(co_await s.commit(std::move(again)));
  CHECK(**co_await s.get(family::row, "k107") == "new");
  CHECK(!(*co_await s.get(family::row, "k108")).has_value());
}

task<void> write_one(store& s, int i, int& left) {
  batch b;
  b.put(family::row, "c" + std::to_string(i), "v");
  CHECK(co_await s.commit(std::move(b)));
  --left;
}
task<void> write_many(world& w, store& s, int n) {
  int left = n;
  for (int i = 0; i < n; ++i) w.group.spawn("one", write_one(s, i, left));
  while (left) co_await sleep_for(w.rt, 1ms);
}
task<void> write_key(store& s, bytes k) {
  batch b;
  b.put(family::row, std::move(k), "v");
  CHECK(co_await s.commit(std::move(b)));
}
task<void> has(store& s, bytes k, bool expected) { CHECK((*co_await s.get(family::row, std::move(k))).has_value() == expected); }

}  // namespace

TEST_CASE("both forms keep the same promises") {
  world w;
  temporary t;
  {
    auto s = open_rocks(w.rt, t.path);
    REQUIRE(s);
    w.run(promises(**s));
  }
  simulated_disk d;
  auto s = open_simulated(w.rt, d);
  w.run(promises(*s));
}

TEST_CASE("many committers share a sync") {
  world w;
  temporary t;
  auto s = open_rocks(w.rt, t.path);
  REQUIRE(s);
  w.run(write_many(w, **s, 256));
  CHECK((*s)->stats().batches == 256);
  CHECK((*s)->stats().commits < 64);
  simulated_disk d;
  auto m = open_simulated(w.rt, d);
  w.run(write_many(w, *m, 256));
  CHECK(m->stats().commits < 10);
}

TEST_CASE("what was committed is there after the process ended without a word") {
  world w;
  temporary t;
  {
    auto s = open_rocks(w.rt, t.path);
    w.run(write_key(**s, "kept"));
    CHECK(open_rocks(w.rt, t.path).failed_with(errc::already_exists));
  }
  auto s = open_rocks(w.rt, t.path);
  REQUIRE(s);
  w.run(has(**s, "kept", true));
}

TEST_CASE("a damaged or newer database is refused with words") {
  world w;
  temporary t;
  {
    auto s = open_rocks(w.rt, t.path);
    w.run(write_many(w, **s, 2000));
  }
  std::filesystem::path log;
  for (const auto& e : std::filesystem::directory_iterator(t.path))
    if (e.path().extension() == ".log") log = e.path();
  {  // a byte in the middle of the log
    std::fstream f(log, std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(static_cast<std::streamoff>(std::filesystem::file_size(log) / 2));
    f.write("\xff\xff\xff\xff", 4);
  }
  auto r = open_rocks(w.rt, t.path);
  CHECK(r.failed_with(errc::io_failed));
  CHECK(r.error().detail.find("newcomer") != std::string::npos);
  std::filesystem::remove(t.path + "/CURRENT");
  CHECK(open_rocks(w.rt, t.path).failed_with(errc::io_failed));
}

namespace {
task<void> write_format(store& s, bytes v) {
  batch b;
  b.put(family::meta, "kv/format", std::move(v));
  CHECK(co_await s.commit(std::move(b)));
}
}  // namespace

TEST_CASE("a newer format is refused") {
  world w;
  temporary t;
  {
    auto s = open_rocks(w.rt, t.path);
    bytes v;
    append_u32(v, 99);
    w.run(write_format(**s, v));
  }
  CHECK(open_rocks(w.rt, t.path).failed_with(errc::protocol));
}

namespace {
task<void> commit_code(store& s, errc expected) {
  batch b;
  b.put(family::row, "x", "y");
  auto r = co_await s.commit(std::move(b));
  CHECK((expected == errc::internal ? r.has_value() : r.failed_with(expected)));
}
}  // namespace

TEST_CASE("the simulated store: full, broken, and losing what was under way") {
  world w;
  simulated_disk d;
  {
    auto s = open_simulated(w.rt, d);
    d.behaviour.full = true;
    w.run(commit_code(*s, errc::no_space));
    d.behaviour.full = false;
    w.run(commit_code(*s, errc::internal));
    d.behaviour.broken = true;
    w.run(commit_code(*s, errc::io_failed));
    d.behaviour.broken = false;
    w.run(commit_code(*s, errc::io_failed));  // final, as after a failed sync
  }
  d.wipe();
  CHECK(d.content(family::row).empty());
  auto io = std::make_unique<asio::io_context>();
  real_clock clk(*io);
  real_random rnd;
  auto pool = std::make_unique<thread_pool>(*io, 1, "test");
  runtime rt(*io, clk, rnd, *pool, *pool);
  auto g = std::make_unique<task_group>(rt);
  d.behaviour.commit_delay = 1s;
  auto s = open_simulated(rt, d);
  g->spawn("write", write_key(*s, "lost"));
  io->poll();
  pool.reset();
  rt.kill();
  io.reset();
  s.reset();
  CHECK(d.content(family::row).empty());
}
