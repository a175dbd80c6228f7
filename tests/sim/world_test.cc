#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "sim/world.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

struct echo_server {
  explicit echo_server(machine& m) : rt(m.rt()), group(m.rt()) {
    listener = std::move(*m.net().listen("0.0.0.0:3901"));
    group.spawn("accept", accept());
  }
  task<void> accept() {
    for (;;) {
      auto s = co_await listener->accept();
      if (!s) co_return;
      group.spawn("echo", echo(std::move(*s)));
    }
  }
  static task<void> echo(std::unique_ptr<byte_stream> s) {
    char b[4096];
    for (;;) {
      auto n = co_await s->read_some(b);
      if (!n || *n == 0) co_return;
      bytes_view v(b, *n);
      if (!co_await s->write(std::span(&v, 1))) co_return;
    }
  }
  runtime& rt;
  task_group group;
  std::unique_ptr<stream_listener> listener;
};

std::shared_ptr<void> serve(machine& m) { return std::make_shared<echo_server>(m); }
std::shared_ptr<void> nothing(machine&) { return nullptr; }

task<result<nanoseconds>> exchange(machine& m, std::string address, std::size_t size) {
  CO_TRY(auto s, co_await m.net().connect(address, m.rt().now() + 5s));
  mono_time start = m.rt().now();
  bytes data(size, 'x');
  bytes_view v(data);
  CO_TRY_VOID(co_await s->write(std::span(&v, 1)));
  std::size_t got = 0;
  char b[4096];
  while (got < size) {
    CO_TRY(std::size_t n, co_await s->read_some(b));
    if (n == 0) co_return fail(errc::unavailable, "ended");
    got += n;
  }
  co_return m.rt().now() - start;
}

std::uint64_t run(std::uint64_t seed) {
  world w(seed);
  w.set_all_lines({.delay = 25ms, .jitter = 5ms, .loss = 0.05});
  w.add("a").start(serve);
  w.add("b").start(nothing);
  for (int i = 0; i < 20; ++i) CHECK(*w.await(w.at(1), exchange(w.at(1), "10.0.0.0:3901", 20000)));
  w.at(0).crash();
  w.at(0).start(serve);
  CHECK(*w.await(w.at(1), exchange(w.at(1), "10.0.0.0:3901", 20000)));
  return w.trace();
}

}  // namespace

TEST_CASE("a round trip takes the line's time, and a megabyte its rate") {
  world w(1);
  w.set_all_lines({.delay = 25ms, .rate = 1e6});
  w.add("a").start(serve);
  w.add("b").start(nothing);
  auto small = w.await(w.at(1), exchange(w.at(1), "10.0.0.0:3901", 10));
  CHECK(*small);
  CHECK(**small >= 50ms);
  CHECK(**small < 51ms);
  auto large = w.await(w.at(1), exchange(w.at(1), "10.0.0.0:3901", 1'000'000));
  CHECK(**large > 1s);
  CHECK(**large < 1200ms);
}

TEST_CASE("one seed, one trace; another seed, another") {
  CHECK(run(7) == run(7));
  CHECK(run(7) != run(8));
}

TEST_CASE("a cut line stalls, a healed one goes on; nobody listening is refused; a crash is seen by its peer") {
  world w(3);
  w.set_all_lines({.delay = 10ms});
  w.add("a").start(serve);
  w.add("b").start(nothing);
  CHECK((*w.await(w.at(1), exchange(w.at(1), "10.0.0.0:1", 10))).failed_with(errc::unavailable));
  w.partition({0});
  CHECK((*w.await(w.at(1), exchange(w.at(1), "10.0.0.0:3901", 10))).failed_with(errc::timed_out));
  w.heal();
  CHECK(*w.await(w.at(1), exchange(w.at(1), "10.0.0.0:3901", 10)));
  w.line(0, 1).rate = 1000;
  auto r = std::make_shared<std::optional<result<nanoseconds>>>();
  struct local {
    static task<void> go(machine& m, std::shared_ptr<std::optional<result<nanoseconds>>> out) {
      out->emplace(co_await exchange(m, "10.0.0.0:3901", 100000));
    }
  };
  w.at(1).root().spawn("slow", local::go(w.at(1), r));
  w.run_for(2s);
  CHECK(!r->has_value());
  w.at(0).crash();
  w.run_for(200s);  // what was on the slow line comes first
  REQUIRE(r->has_value());
  CHECK(!**r);
}

TEST_CASE("a drive keeps what was written and loses what was under way at a crash") {
  world w(4);
  machine& m = w.add("a");
  m.start(nothing);
  struct local {
    static task<result<void>> put(machine& mm, std::string path) {
      auto d = mm.open_drive();
      co_return co_await d->write_durable(path, {share("data")});
    }
    static task<void> drop(machine& mm) { (void)co_await put(mm, "late"); }
  };
  CHECK(*w.await(m, local::put(m, "x/y")));
  m.root().spawn("late", local::drop(m));
  w.run_for(10us);
  m.crash(true);
  CHECK(m.drives[0].files.contains("x/y"));
  CHECK(!m.drives[0].files.contains("late"));
  m.start(nothing);
  m.drives[0].full = true;
  CHECK((*w.await(m, local::put(m, "z"))).failed_with(errc::no_space));
}
