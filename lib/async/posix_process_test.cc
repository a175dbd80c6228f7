#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <signal.h>
#include <unistd.h>

#include "async/async.h"

using namespace grenier;

namespace {

struct world {
  asio::io_context io;
  real_clock clk{io};
  real_random rnd;
  thread_pool pool{io, 1, "test"};
  runtime rt{io, clk, rnd, pool, pool};
  posix_processes programs{rt};
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

task<bytes> everything(byte_stream& s) {
  bytes all;
  for (char piece[256];;) {
    auto n = co_await s.read_some(piece);
    if (!n || *n == 0) break;
    all.append(piece, *n);
  }
  co_return all;
}

task<void> speaks(world& w) {
  auto c = w.programs.spawn("/bin/sh", {"-c", "read line; echo \"got $line\"; exit 3"});
  REQUIRE(c);
  bytes_view said[] = {"hello\n"};
  CHECK((co_await (*c)->stream().write(said)));
  CHECK(co_await everything((*c)->stream()) == "got hello\n");
  auto e = co_await (*c)->wait(w.rt.now() + 20s);
  REQUIRE(e);
  CHECK(e->code == 3);
  CHECK(e->signal == 0);
  CHECK(e->peak_rss_bytes > 0);
  CHECK((co_await (*c)->wait(w.rt.now()))->code == 3);
}

task<void> has_nothing(world& w) {
  ::setenv("GRENIER_SECRET", "yes", 1);
  int leaked[2];
  REQUIRE(::pipe(leaked) == 0);  // without CLOEXEC, as a careless library would
  auto c = w.programs.spawn("/bin/sh", {"-c", "echo /proc/$$/fd/*; env"});
  REQUIRE(c);
  bytes said = co_await everything((*c)->stream());
  CHECK(said.find("/fd/0") != bytes::npos);
  CHECK(said.find("/fd/" + std::to_string(leaked[0])) == bytes::npos);
  CHECK(said.find("GRENIER_SECRET") == bytes::npos);
  ::close(leaked[0]);
  ::close(leaked[1]);
}

task<void> is_killed(world& w) {
  auto c = w.programs.spawn("/bin/cat", {});
  REQUIRE(c);
  CHECK(!co_await (*c)->wait(w.rt.now() + 20ms));
  (*c)->kill();
  CHECK((co_await (*c)->wait(w.rt.now() + 20s))->signal == SIGKILL);
  (*c)->kill();  // harmless
}

task<void> dies_with_its_object(world& w) {
  auto c = w.programs.spawn("/bin/sh", {"-c", "echo $$; cat"});
  REQUIRE(c);
  char piece[32];
  auto n = co_await (*c)->stream().read_some(piece);
  REQUIRE(n);
  const pid_t pid = std::stoi(std::string(piece, *n));
  CHECK(::kill(pid, 0) == 0);
  *c = nullptr;
  // Killed and reaped, without anybody waiting for it.
  for (int i = 0; i < 2000 && ::kill(pid, 0) == 0; ++i) co_await sleep_for(w.rt, 10ms);
  CHECK(::kill(pid, 0) != 0);
}

task<void> uses_no_more_cpu(world& w) {
  auto c = w.programs.spawn("/bin/sh", {"-c", "while :; do :; done"});
  REQUIRE(c);
  (*c)->limit_cpu(1s);
  auto e = co_await (*c)->wait(w.rt.now() + 120s);
  REQUIRE(e);
  CHECK(e->signal == SIGXCPU);
  CHECK(e->cpu >= 900ms);
  CHECK((*c)->cpu_used() == e->cpu);
}

}  // namespace

TEST_CASE("a program: what it says, and how it ended") {
  world w;
  w.run(speaks(w));
}
TEST_CASE("a program gets neither files nor environment") {
  world w;
  w.run(has_nothing(w));
}
TEST_CASE("a program: killed when asked, and with its object") {
  world w;
  w.run(is_killed(w));
  w.run(dies_with_its_object(w));
}
TEST_CASE("a program: bounded in CPU") {
  world w;
  w.run(uses_no_more_cpu(w));
}
TEST_CASE("a program that is not there: says which") {
  world w;
  auto c = w.programs.spawn("/nowhere/program", {});
  REQUIRE(!c);
  CHECK(c.failed_with(errc::unavailable));
  CHECK(c.error().detail == "cannot start /nowhere/program: No such file or directory");
}
