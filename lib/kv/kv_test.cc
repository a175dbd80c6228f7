// One suite that every form of the store passes, then what is the simulated form's own.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "kv/test_world.h"

using namespace grenier;
using namespace grenier::kv;
using namespace grenier::kv::testing;

namespace grenier::kv::testing {
int child_main(const char* path);  // rocks_test.cc: a process that is killed while it commits
}

int main(int count, char** words) {
  if (const char* path = std::getenv("GRENIER_KV_CHILD")) return child_main(path);
  doctest::Context c;
  c.applyCommandLine(count, words);
  return c.run();
}

namespace {

// A form of the store that can be closed and opened again.
struct form {
  std::function<std::unique_ptr<store>()> open;
  std::unique_ptr<store> now = open();
  store& again() {
    now.reset();
    now = open();
    return *now;
  }
};

std::string number(int i) {
  std::string s = std::to_string(i);
  return std::string(6 - s.size(), '0') + s;
}

task<void> fill(store& s, family f, int count, std::size_t value_size) {
  for (int i = 0; i < count;) {
    batch b;
    for (int end = std::min(count, i + 500); i < end; ++i) b.put(f, number(i), bytes(value_size, static_cast<char>('a' + i % 26)));
    REQUIRE(co_await s.commit(std::move(b)));
  }
}

task<void> gets_and_scans(store& s) {
  for (std::size_t f = 0; f < family_count; ++f) {
    auto all = co_await s.scan(static_cast<family>(f), {});
    REQUIRE(all);
    CHECK(all->empty());  // a new store is empty, in every family
  }
  CHECK(!(*co_await s.get(family::row, "none")).has_value());
  CHECK(co_await s.commit(batch()));
  batch b;
  for (int i = 0; i < 50; ++i) b.put(family::row, "k" + std::to_string(100 + i), "v" + std::to_string(i));
  b.put(family::body, "k100", bytes(70000, 'b'));
  b.put(family::row, "gone", "x");
  b.remove(family::row, "gone");
  b.remove(family::row, "back");
  b.put(family::row, "back", "");
  batch more;
  more.put(family::row, "k100", "later");
  more.put(family::row, bytes("\xff\x00z", 3), bytes("\x00", 1));
  b.append(std::move(more));
  CHECK(co_await s.commit(std::move(b)));
  co_await has(s, family::row, "k107", "v7");
  co_await has(s, family::row, "k100", "later");
  co_await has(s, family::body, "k100", bytes(70000, 'b'));
  co_await has(s, family::body, "k107", std::nullopt);
  co_await has(s, family::row, "gone", std::nullopt);
  co_await has(s, family::row, "back", bytes());
  co_await has(s, family::row, bytes("\xff\x00z", 3), bytes("\x00", 1));
  co_await has(s, family::row, "\xff", std::nullopt);

  auto page = *co_await s.scan(family::row, {.from = "k110", .until = "k120", .entries_max = 5});
  CHECK(page.size() == 5);
  CHECK(page.front().key == "k110");
  page = *co_await s.scan(family::row, {.from = "k110", .until = "k120"});
  CHECK(page.size() == 10);
  CHECK(page.back().key == "k119");
  page = *co_await s.scan(family::row, {.bytes_max = 1});
  CHECK(page.size() == 1);
  CHECK(page.front().key == "back");
  page = *co_await s.scan(family::row, {.from = "k148"});
  CHECK(page.size() == 3);
  CHECK(page.back().key == bytes("\xff\x00z", 3));  // bytes compare unsigned
  CHECK((*co_await s.scan(family::row, {.from = "k120", .until = "k110"})).empty());
  CHECK((*co_await s.scan(family::row, {.entries_max = 0})).empty());
}

task<void> walks(store& s) {
  co_await fill(s, family::row, 300, 10);
  auto seen = std::make_shared<std::vector<bytes>>();
  CHECK(co_await s.walk(family::row, number(100), "", [seen](bytes_view k, bytes_view) -> store::step {
    seen->emplace_back(k);
    if (k == number(102)) return {store::step::kind::seek, number(250) + "x"};
    if (k == number(253)) return {store::step::kind::stop, {}};
    return {};
  }));
  CHECK((*seen == std::vector<bytes>{number(100), number(101), number(102), number(251), number(252), number(253)}));
  seen->clear();
  CHECK(co_await s.walk(family::row, number(10), number(12), [seen](bytes_view k, bytes_view v) -> store::step {
    CHECK(v.size() == 10);
    seen->emplace_back(k);
    return k == number(11) ? store::step{store::step::kind::seek, number(200)} : store::step{};
  }));
  CHECK((*seen == std::vector<bytes>{number(10), number(11)}));  // a seek does not pass the end
}

task<void> limits(store& s) {
  co_await commit_gives(s, put_one(family::row, bytes(4096, 'k'), "fits"), std::nullopt);
  co_await commit_gives(s, put_one(family::row, bytes(4097, 'k'), ""), errc::too_large);
  co_await commit_gives(s, put_one(family::row, "large", bytes(16 << 20, 'v')), std::nullopt);
  co_await has(s, family::row, "large", bytes(16 << 20, 'v'));
  co_await commit_gives(s, put_one(family::row, "larger", bytes((16 << 20) + 1, 'v')), errc::too_large);
  batch b;
  for (int i = 0; i < 5; ++i) b.put(family::row, "of many " + std::to_string(i), bytes(13 << 20, 'v'));
  co_await commit_gives(s, std::move(b), errc::too_large);
  co_await has(s, family::row, "of many 0", std::nullopt);
  batch removal;
  removal.remove(family::row, "large");
  co_await commit_gives(s, std::move(removal), std::nullopt);
}

task<void> ordered(store& s, int i, std::vector<int>& order) {
  batch b;
  b.put(family::row, "same", std::to_string(i));
  b.put(family::row, "own " + std::to_string(i), "v");
  CHECK(co_await s.commit(std::move(b)));
  order.push_back(i);
}
task<void> many_in_order(world& w, store& s, int n) {
  std::vector<int> order, expected;
  for (int i = 0; i < n; ++i) {
    expected.push_back(i);
    w.group.spawn("one", ordered(s, i, order));
  }
  while (order.size() < static_cast<std::size_t>(n)) co_await sleep_for(w.rt, 1ms);
  CHECK(order == expected);
  co_await has(s, family::row, "same", std::to_string(n - 1));
  for (int i = 0; i < n; ++i) co_await has(s, family::row, "own " + std::to_string(i), "v");
}

// Longer, colder and more often removed than what is read on the home thread.
task<void> long_scans(store& s, bool removed) {
  auto all = co_await s.scan(family::row, {.entries_max = 10000, .bytes_max = 64 << 20});
  REQUIRE(all);
  if (removed) {
    REQUIRE(all->size() == 1);
    CHECK(all->front().key == number(2999));
    co_return;
  }
  REQUIRE(all->size() == 3000);
  for (int i = 0; i < 3000; ++i) CHECK((*all)[static_cast<std::size_t>(i)].key == number(i));
  CHECK((*co_await s.scan(family::row, {.entries_max = 10000, .bytes_max = 100 * 1006})).size() == 100);
  co_await has(s, family::row, number(1500), bytes(1000, static_cast<char>('a' + 1500 % 26)));
}
task<void> remove_most(store& s) {
  batch b;
  for (int i = 0; i < 2999; ++i) b.remove(family::row, number(i));
  CHECK(co_await s.commit(std::move(b)));
}

task<void> stopped(store& s) { co_await s.stop(); }

void suite(world& w, const std::function<form()>& fresh) {
  {
    form f = fresh();
    w.run(gets_and_scans(*f.now));
    w.run(has(f.again(), family::row, "k100", "later"));
    w.run(has(*f.now, family::row, "gone", std::nullopt));
  }
  {
    form f = fresh();
    w.run(walks(*f.now));
    w.run(stopped(*f.now));
  }
  {
    form f = fresh();
    w.run(limits(*f.now));
    w.run(has(f.again(), family::row, bytes(4096, 'k'), "fits"));
    w.run(has(*f.now, family::row, "large", std::nullopt));
  }
  {
    form f = fresh();
    w.run(many_in_order(w, *f.now, 256));
    CHECK(f.now->stats().batches == 256);
    CHECK(f.now->stats().commits < 64);  // they shared log writes
    w.run(has(f.again(), family::row, "same", "255"));
  }
  {
    form f = fresh();
    w.run(fill(*f.now, family::row, 3000, 1000));
    w.run(long_scans(*f.now, false));
    w.run(long_scans(f.again(), false));
    w.run(remove_most(*f.now));
    w.run(long_scans(*f.now, true));
    w.run(long_scans(f.again(), true));
  }
}

task<void> write_key(store& s, bytes k) { CHECK(co_await s.commit(put_one(family::row, std::move(k), "v"))); }
task<void> reads_fail(store& s) {
  CHECK((co_await s.get(family::row, "x")).failed_with(errc::io_failed));
  CHECK((co_await s.scan(family::row, {})).failed_with(errc::io_failed));
}

}  // namespace

TEST_CASE("RocksDB keeps the promises of a store") {
  world w;
  temporary t;
  suite(w, [&] {
    std::filesystem::remove_all(t.path);
    return form{[&] {
      auto s = open_rocks(w.rt, t.path);
      REQUIRE(s);
      return std::move(*s);
    }};
  });
}

TEST_CASE("the simulated store keeps them too") {
  world w;
  simulated_disk d;
  suite(w, [&] {
    d.wipe();
    return form{[&] { return open_simulated(w.rt, d); }};
  });
}

TEST_CASE("the simulated disk: full passes, broken is final") {
  world w;
  simulated_disk d;
  {
    auto s = open_simulated(w.rt, d);
    d.behaviour.full = true;
    w.run(commit_gives(*s, put_one(family::row, "x", "y"), errc::no_space));
    w.run(has(*s, family::row, "x", std::nullopt));
    d.behaviour.full = false;
    w.run(commit_gives(*s, put_one(family::row, "x", "y"), std::nullopt));
    d.behaviour.broken = true;
    w.run(commit_gives(*s, put_one(family::row, "x", "z"), errc::io_failed));
    w.run(reads_fail(*s));
    d.behaviour.broken = false;
    w.run(commit_gives(*s, put_one(family::row, "x", "z"), errc::io_failed));  // as after a failed sync
    w.run(has(*s, family::row, "x", "y"));
  }
  auto s = open_simulated(w.rt, d);
  w.run(commit_gives(*s, put_one(family::row, "x", "z"), std::nullopt));
  CHECK(d.content(family::row).at("x") == "z");
  d.wipe();
  CHECK(d.content(family::row).empty());
}

TEST_CASE("what was not synced is not seen, and a crash loses it") {
  simulated_disk d;
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
  g->spawn("write", write_key(*s, "lost too"));  // in the next group
  g->spawn("read", has(*s, family::row, "lost", std::nullopt));
  io->poll();
  CHECK(g->size() == 2);
  pool.reset();
  rt.kill();
  io.reset();
  s.reset();
  g.reset();
  CHECK(d.content(family::row).empty());
}

TEST_CASE("what a batch changed in memory is taken back when it is dropped, last change first, and never after it was committed") {
  world w;
  simulated_disk d;
  auto s = open_simulated(w.rt, d);
  std::string log;
  auto note = [&log](std::string what) { return [&log, what] { log += what; }; };
  {
    batch one = put_one(family::row, "x", "1"), other = put_one(family::row, "y", "1");
    one.if_lost(note("a"));
    other.if_lost(note("b"));
    other.if_lost(note("c"));
    one.append(std::move(other));
    one.if_lost(note("d"));
    CHECK(log.empty());
  }
  CHECK(log == "dcba");
  {
    batch kept = put_one(family::row, "x", "1");
    kept.if_lost(note("lost"));
    batch moved = std::move(kept);
    w.run(commit_gives(*s, std::move(moved), std::nullopt));
    batch nothing;  // nothing is to be made true: that cannot fail
    nothing.if_lost(note("lost"));
    w.run(commit_gives(*s, std::move(nothing), std::nullopt));
  }
  CHECK(log == "dcba");
  batch too_large;
  for (int i = 0; i < 5; ++i) too_large.put(family::row, std::to_string(i), bytes(15 << 20, 'x'));
  too_large.if_lost(note("e"));
  w.run(commit_gives(*s, std::move(too_large), errc::too_large));
  CHECK(log == "dcbae");
}

TEST_CASE("the simulated store: a batch behind one that failed fails too, though there is room again; the next one does not") {
  world w;
  simulated_disk d;
  d.behaviour.commit_delay = 200ms;
  d.behaviour.full = true;
  auto s = open_simulated(w.rt, d);
  fates f{w, *s};
  batch first = put_one(family::row, "x", "1");
  first.if_lost([&d] { d.behaviour.full = false; });
  f.commit(std::move(first), "a");
  f.commit(put_one(family::row, "y", "1"), "b", 20ms);
  f.commit(put_one(family::meta, "z", "1"), "c", 40ms);
  f.wait();
  CHECK(f.log == "undo c;undo b;undo a;failed a;failed b;failed c;");
  CHECK(d.content(family::row).empty());
  f.commit(put_one(family::row, "y", "2"), "d");
  f.wait();
  CHECK(f.log == "undo c;undo b;undo a;failed a;failed b;failed c;done d;");
  CHECK(d.content(family::row).at("y") == "2");
}
