#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <cstring>
#include <filesystem>

#include "async/async.h"

using namespace grenier;

namespace {

struct world {
  asio::io_context io;
  real_clock clk{io};
  real_random rnd;
  thread_pool pool{io, 2, "test"};
  runtime rt{io, clk, rnd, pool, pool};
  task_group group{rt};

  void run(task<void> t) {
    auto guard = asio::make_work_guard(io);
    group.spawn("test", finish(std::move(t), guard));
    io.run();
    io.restart();
  }
  task<void> finish(task<void> t, asio::executor_work_guard<io_executor>& g) {
    co_await std::move(t);
    g.reset();
  }
};

task<void> sleeps(runtime& rt, std::vector<int>& order) {
  auto start = rt.now();
  co_await sleep_for(rt, 5ms);
  order.push_back(1);
  CHECK(rt.now() - start >= 5ms);
}
task<void> times_out(runtime& rt) {
  one_shot<int> s(rt);
  CHECK(!co_await s.wait(rt.now() + 2ms));
  s.set(7);
  CHECK(!s.set(8));
  CHECK(*co_await s.wait(rt.now()) == 7);
}
task<int> delayed(runtime& rt, nanoseconds d, int v) {
  co_await sleep_for(rt, d);
  co_return v;
}
task<void> fans(runtime& rt, task_group& g, std::vector<int>& late) {
  fan_out<int> f(rt, g);
  // Far apart: a busy machine is late by some of it.
  f.start(0, delayed(rt, 400ms, 10));
  f.start(1, delayed(rt, 1ms, 11));
  f.start(2, delayed(rt, 200ms, 12));
  auto a = co_await f.next();
  CHECK(a->first == 1);
  CHECK(a->second == 11);
  CHECK(!co_await f.next(rt.now()));
  auto b = co_await f.next();
  CHECK(b->second == 12);
  f.drain([&late](std::size_t, int v) { late.push_back(v); });
  for (int i = 0; i < 100 && f.outstanding(); ++i) co_await sleep_for(rt, 20ms);
  CHECK(f.outstanding() == 0);
}
task<void> holds(runtime& rt, semaphore& s, std::vector<int>& order, int name) {
  auto p = co_await s.acquire(1);
  CHECK(static_cast<bool>(p));
  order.push_back(name);
  co_await sleep_for(rt, 1ms);
}
task<void> bounded(runtime& rt, task_group& g) {
  semaphore s(rt, 1);
  std::vector<int> order;
  {
    auto p = s.try_acquire();
    CHECK(static_cast<bool>(p));
    for (int i = 0; i < 3; ++i) g.spawn("holds", holds(rt, s, order, i));
    co_await sleep_for(rt, 1ms);
    CHECK(s.waiting() == 3);
    CHECK(!co_await s.acquire(1, rt.now() + 1ms));
    CHECK(s.waiting() == 3);
  }
  co_await sleep_for(rt, 20ms);
  CHECK(order == std::vector<int>{0, 1, 2});
  CHECK(s.free_units() == 1);
}
task<void> locked(runtime& rt, key_lock& l, int& inside, int& most) {
  auto g = co_await l.lock("row");
  most = std::max(most, ++inside);
  co_await sleep_for(rt, 1ms);
  --inside;
}
task<void> offloads(runtime& rt) {
  int v = co_await offload(rt, rt.cpu_pool(), [] { return 42; });
  CHECK(v == 42);
}
task<void> waits_for_ever(runtime& rt, bool& unwound) {
  struct mark {
    bool& b;
    ~mark() { b = true; }
  } m{unwound};
  co_await sleep_until(rt, never);
}
task<void> cancels(runtime& rt, bool& unwound) {
  task_group g(rt);
  g.spawn("ever", waits_for_ever(rt, unwound));
  co_await sleep_for(rt, 1ms);
  g.cancel();
  co_await g.join();
  CHECK(unwound);
}

task<void> cancels_own(runtime& rt, task_group& g, int& reached) {
  reached = 1;
  g.cancel();
  reached = 2;
  co_await sleep_for(rt, 1ms);
  reached = 3;
}
task<void> ends_cancelled(task_group& g, int& reached) {
  g.cancel();
  reached = 1;
  co_return;
}
task<void> counts(int& n) {
  ++n;
  co_return;
}
task<void> own_groups(runtime& rt, int& first, int& second) {
  task_group g(rt), h(rt);
  g.spawn("own", cancels_own(rt, g, first));
  co_await g.join();
  h.spawn("own", ends_cancelled(h, second));
  co_await h.join();
}

}  // namespace

TEST_CASE("sleeping, one_shot and its deadline") {
  world w;
  std::vector<int> order;
  w.run(sleeps(w.rt, order));
  CHECK(order.size() == 1);
  w.run(times_out(w.rt));
}

TEST_CASE("fan_out gives answers as they come, and the stragglers to drain") {
  world w;
  std::vector<int> late;
  w.run(fans(w.rt, w.group, late));
  CHECK(late == std::vector<int>{10});
}

TEST_CASE("a semaphore serves in order and forgets who gave up") {
  world w;
  w.run(bounded(w.rt, w.group));
}

TEST_CASE("a key lock lets one in at a time") {
  world w;
  key_lock l(w.rt);
  int inside = 0, most = 0;
  for (int i = 0; i < 5; ++i) w.group.spawn("locked", locked(w.rt, l, inside, most));
  w.io.run();
  CHECK(most == 1);
}

TEST_CASE("offload returns what the work returned") {
  world w;
  w.run(offloads(w.rt));
}

TEST_CASE("a cancelled group unwinds its tasks") {
  world w;
  bool unwound = false;
  w.run(cancels(w.rt, unwound));
}

TEST_CASE("a task may cancel its own group before it was ever suspended") {
  world w;
  int first = 0, second = 0;
  w.run(own_groups(w.rt, first, second));
  CHECK(first == 2);
  CHECK(second == 1);
}

TEST_CASE("a task that is cancelled before it began never begins") {
  world w;
  int ran = 0;
  task_group g(w.rt), h(w.rt);
  g.spawn("late", counts(ran));
  g.cancel();
  auto one = h.spawn_cancellable("late", counts(ran));
  one.cancel();
  h.spawn("other", counts(ran));
  w.io.run();
  CHECK(g.size() == 0);
  CHECK(h.size() == 0);
  CHECK(ran == 1);
}

TEST_CASE("a waiter that outlives its runtime touches nothing of it") {
  asio::io_context io;
  real_clock clk(io);
  real_random rnd;
  thread_pool pool(io, 1, "test");
  alignas(runtime) std::array<std::byte, sizeof(runtime)> place;
  auto* rt = new (place.data()) runtime(io, clk, rnd, pool, pool);
  auto w = std::make_shared<waiter>(*rt);
  rt->~runtime();
  // Wherever the runtime had its list: as if this waiter were its first.
  std::array<waiter*, sizeof(runtime) / sizeof(waiter*)> pattern;
  pattern.fill(w.get());
  std::memcpy(place.data(), pattern.data(), sizeof pattern);
  w.reset();
  CHECK(std::memcmp(place.data(), pattern.data(), sizeof pattern) == 0);
}

TEST_CASE("kill() unwinds every frame without resuming it") {
  bool unwound = false;
  auto io = std::make_unique<asio::io_context>();
  real_clock clk(*io);
  real_random rnd;
  auto pool = std::make_unique<thread_pool>(*io, 1, "test");
  runtime rt(*io, clk, rnd, *pool, *pool);
  auto g = std::make_unique<task_group>(rt);
  auto l = std::make_unique<key_lock>(rt);
  int inside = 0, most = 0;
  g->spawn("ever", waits_for_ever(rt, unwound));
  for (int i = 0; i < 3; ++i) g->spawn("locked", locked(rt, *l, inside, most));
  io->poll();
  pool.reset();
  rt.kill();
  io.reset();
  CHECK(unwound);
  CHECK(inside == 1);
}

namespace {
task<void> disk_promises(runtime& rt, disk& d) {
  CHECK((co_await d.read("a/b", 0, 10)).failed_with(errc::not_found));
  CHECK(co_await d.write_durable("a/b", {share("hello "), share("world")}));
  CHECK(*co_await d.read("a/b", 6, 100) == "world");
  CHECK((*co_await d.read("a/b", 60, 100)).empty());
  CHECK(*co_await d.size("a/b") == 11);
  CHECK(co_await d.write_durable("a/b", {share("x")}));
  CHECK(*co_await d.size("a/b") == 1);
  CHECK((*co_await d.list("a")).size() == 1);
  CHECK((*co_await d.list("none")).empty());
  CHECK(co_await d.remove("a/b"));
  CHECK(co_await d.remove("a/b"));
  CHECK((*co_await d.free_space()).total_bytes > 0);
}
task<void> echo(stream_listener& l) {
  auto s = co_await l.accept();
  char b[64];
  for (;;) {
    auto n = co_await (*s)->read_some(b);
    if (!n || *n == 0) break;
    bytes_view v(b, *n);
    (void)co_await (*s)->write(std::span(&v, 1));
  }
}
task<void> talks(runtime& rt, task_group& g) {
  tcp_network net(rt);
  auto l = net.listen("127.0.0.1:0");
  CHECK(l);
  CHECK(net.listen((*l)->local()).failed_with(errc::already_exists));
  CHECK(net.listen("nonsense").failed_with(errc::invalid_argument));
  g.spawn("echo", echo(**l));
  auto s = co_await net.connect((*l)->local(), rt.now() + 1s);
  CHECK(s);
  bytes_view parts[] = {"to", "gether"};
  CHECK(co_await (*s)->write(parts));
  bytes got;
  char b[64];
  while (got.size() < 8) got.append(b, *co_await (*s)->read_some(b));
  CHECK(got == "together");
  (*s)->close();
  CHECK(!co_await net.connect("127.0.0.1:1", rt.now() + 1s));
}
}  // namespace

TEST_CASE("the posix disk keeps its promises") {
  world w;
  std::string root = std::filesystem::temp_directory_path() / ("grenier-async-" + std::to_string(::getpid()));
  auto d = posix_disk::open(w.rt, root);
  CHECK(d);
  w.run(disk_promises(w.rt, **d));
  std::filesystem::remove_all(root);
  CHECK(!posix_disk::open(w.rt, "/proc/nowhere"));
}

TEST_CASE("tcp: connect, listen, and their refusals") {
  world w;
  w.run(talks(w.rt, w.group));
}

namespace {
int umask_changes = 0;
}
// In place of the library's.
extern "C" mode_t umask(mode_t m) noexcept {
  ++umask_changes;
  return static_cast<mode_t>(::syscall(SYS_umask, m));
}

TEST_CASE("a unix socket is its owner's alone, and nothing of the whole process is changed for that") {
  world w;
  tcp_network net(w.rt);
  std::string path = std::filesystem::temp_directory_path() / ("grenier-socket-" + std::to_string(::getpid()));
  mode_t before = ::umask(0);
  umask_changes = 0;
  auto l = net.listen("unix:" + path);
  CHECK(umask_changes == 0);
  ::umask(before);
  REQUIRE(l);
  struct stat s {};
  REQUIRE(::stat(path.c_str(), &s) == 0);
  CHECK((s.st_mode & 0777) == 0600);
  (*l)->close();
  CHECK(::stat(path.c_str(), &s) != 0);
}
