// The feed of changes under crashes, cut lines, lost messages and changes of the layout: no reader misses a change, whatever happens to it.
// feed_test SEED [TO] [MUTATION] plays histories and prints what it saw.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "sim/homes.h"
#include "table/register.h"

using namespace grenier;
using namespace grenier::sim;
using namespace grenier::table;

namespace {

constexpr int keys = 5, buckets = 3;
const std::set<table_id> objects{table_id::object};

bytes bucket_name(std::uint64_t n) { return "bucket-" + std::to_string(n); }

// What a reader made of the changes that it was told, which outlives crashes as an album on a disk does.
struct album {
  std::map<row_key, ballot> seen;
  std::size_t pages = 0, names = 0, starts_over = 0, repeated = 0;
};

struct story {
  explicit story(std::uint64_t seed, std::vector<std::string> mutations) : h(seed) {
    h.mutations = std::move(mutations);
    h.feed_entries_max = seed % 3 == 0 ? 12 : 1000;
    h.on_home = [this](home& one) {
      const std::size_t i = one.m.index();
      one.tables.on_apply(table_id::object, [this, i](const change& c, kv::batch&) { applied[i][{c.key, c.after_written}] = ++order; });
    };
  }
  homes h;
  std::map<std::size_t, album> albums;
  // When each home took which value last: the order that its feed must have.
  std::map<std::size_t, std::map<std::pair<row_key, ballot>, std::uint64_t>> applied;
  std::uint64_t order = 0;
  std::map<row_key, ballot> acknowledged;
  std::set<std::size_t> gone;
  std::uint64_t values = 0, dropped = 0;
  bool ended = false;
  std::string wrong;

  layout::partition partition_of(const row_key& k) { return layout::partition_of(k.partition_key, 256); }

  // ----------------------------------------------------------------------------------------------- who writes
  static task<void> client(story& s, std::size_t i) {
    homes& h = s.h;
    while (!s.ended) {
      co_await sleep_for(h.w.at(i).rt(), nanoseconds(1 + h.w.below(120'000'000)));
      const row_key key = homes::key("k" + std::to_string(h.w.below(keys)), bucket_name(h.w.below(buckets)));
      op_options with;
      with.deadline = h.w.now() + 6s;
      const auto dice = h.w.below(8);
      const bytes value = std::to_string(++s.values);
      std::optional<ballot> done;
      if (dice == 0) {
        judge j = [value](const row&) -> result<row_value> { return row_value{true, value, nullptr}; };
        auto r = co_await h[i].tables.compare_and_swap(key, std::move(j), std::move(with));
        if (r) done = r->written;
      } else {
        auto r = co_await h[i].tables.write({{key, {dice != 1, dice == 1 ? bytes() : value, dice == 2 ? share("body") : nullptr}}}, std::move(with));
        if (r && (*r)[0]) done = *(*r)[0];
      }
      if (done) s.acknowledged[key] = std::max(s.acknowledged[key], *done);
    }
  }

  // ----------------------------------------------------------------------------------------------- who reads
  static task<void> reader(story& s, std::size_t i) {
    while (true) {
      auto f = co_await s.h[i].tables.follow("album", objects);
      if (!f) {
        co_await sleep_for(s.h.w.at(i).rt(), 500ms);
        continue;
      }
      co_await session(s, i, **f);
    }
  }

  static task<void> session(story& s, std::size_t i, feed& f) {
    homes& h = s.h;
    runtime& rt = h.w.at(i).rt();
    const bool last = s.ended;  // which acknowledges everything
    std::map<layout::partition, std::uint64_t> number, taken;
    while (true) {
      auto page = co_await f.next(h.w.now() + 2s, 1 + h.w.below(12));
      if (!page) {
        co_await sleep_for(rt, 200ms);
        if (page.failed_with(errc::not_found)) co_return;
        continue;
      }
      if (s.ended && !last) co_return;
      if (!*page) continue;
      feed_page& one = **page;
      if (one.start_over) number.erase(one.partition), taken.erase(one.partition);
      if (!one.walk) s.check_order(i, one, number[one.partition], taken[one.partition]);
      // What happens to it before it has dealt with the page, nobody can tell.
      const bool hesitates = !s.ended && !one.names.empty();
      if (hesitates && h.w.below(3) == 0) co_await sleep_for(rt, nanoseconds(h.w.below(300'000'000)));
      if (hesitates && h.w.below(40) == 0) co_await sleep_for(rt, 4s);
      if (hesitates && h.w.below(12) == 0) co_return;
      s.take(i, one);
      if (s.ended || h.w.below(8)) f.acknowledge(one.mark);
    }
  }

  void check_order(std::size_t i, const feed_page& page, std::uint64_t& number, std::uint64_t& taken) {
    if (page.mark.number <= number && wrong.empty()) wrong = "a page that goes back";
    number = page.mark.number;
    for (const auto& n : page.names) {
      auto at = applied[i].find({n.key, n.written});
      if (at == applied[i].end()) wrong = "a change that was never made";
      else if (at->second < taken) wrong = "changes in another order than they were made in";
      else taken = at->second;
    }
  }

  void take(std::size_t i, const feed_page& page) {
    album& a = albums[i];
    ++a.pages;
    if (page.start_over) {
      ++a.starts_over;
      std::erase_if(a.seen, [&](const auto& e) { return partition_of(e.first) == page.partition; });
    }
    for (const auto& n : page.names) {
      ++a.names;
      ballot& seen = a.seen[n.key];
      a.repeated += seen >= n.written;
      // What is told of is there.
      const bytes held = h.held(i, n.key.sort_key, n.key.partition_key);
      auto c = cell_view::decode(held);
      if (held.empty() || !c || c->accepted < n.written) wrong = "a change is told of a row that is not there";
      else if (c->accepted == n.written) seen = std::max(seen, n.written);
      else seen = std::max(seen, c->accepted);  // it reads the row of the moment
      h.w.note(n.key.sort_key);
    }
  }

  void begin(std::size_t i) {
    h.w.at(i).root().spawn("reader", reader(*this, i));
    for (int n = 0; n < 2; ++n) h.w.at(i).root().spawn("client", client(*this, i));
  }

  // ----------------------------------------------------------------------------------------------- the story
  bool is_settled() {
    for (auto& [i, one] : h.at)
      if (!gone.contains(i) && h.w.at(i).on() && one->tables.layout().phase != layout::phase::settled) return false;
    return true;
  }

  void change_layout() {
    if (!is_settled() || h[0].peers.up_members().size() != h.w.size() - gone.size()) return;
    const double lose = std::exchange(h.hub.lose, 0);
    if (h.w.size() < 5) {
      if (h.try_join()) begin(h.w.size() - 1);
      else gone.insert(h.w.size() - 1);
    } else if (gone.empty()) {
      const std::size_t leaves = 1 + h.w.below(h.w.size() - 1);
      auto edit = [leaves](const layout::state& now) -> result<std::vector<layout::member>> {
        auto all = now.current.members;
        std::erase_if(all, [&](const layout::member& m) { return m.node == home_id(leaves); });
        return all;
      };
      auto r = h.w.await(h.w.at(0), h[0].tables.change_members(edit, {home_id(leaves)}, h.w.now() + 20s));
      if (r && *r) {
        gone.insert(leaves);
        // Until then it may be needed: another one may have been away, and have no rows yet.
        if (h.w.run_until([&] { return is_settled(); }, 10s)) h.crash(leaves);
      }
    }
    h.hub.lose = lose;
  }

  void step() {
    const auto dice = h.w.below(7);
    const std::size_t i = h.w.below(h.w.size());
    h.hub.lose = 0;
    if (dice <= 1 && h.w.at(i).on() && !gone.contains(i)) {
      for (const auto& f : h[i].tables.feeds()) dropped += f.times_dropped;
      h.crash(i, h.w.below(2));
      h.w.run_for(milliseconds(h.w.below(5000)));
      h.again(i);
      begin(i);
    } else if (dice == 2) {
      h.w.partition({i});
      h.w.run_for(milliseconds(h.w.below(5000)));
      h.w.heal();
    } else if (dice == 3) {
      h.hub.lose = 0.02 * static_cast<double>(h.w.below(6));
    } else if (dice == 4) {
      h.w.at(i).kv_disk.behaviour.commit_delay = milliseconds(h.w.below(60));
    } else if (dice == 5) {
      change_layout();
    }
  }

  bool caught_up() {
    for (auto& [i, one] : h.at) {
      if (gone.contains(i)) continue;
      const auto all = one->tables.feeds();
      if (all.size() != 1 || all[0].waiting || all[0].walking || !all[0].at_work) return false;
    }
    return true;
  }

  std::string play() {
    h.found();
    begin(0);
    for (std::size_t n = 1; n < 3; ++n) {
      h.join();
      begin(n);
      h.w.run_until([&] { return is_settled(); }, 60s);
    }
    for (int n = 0; n < 14 && wrong.empty(); ++n) {
      h.w.run_for(milliseconds(200 + h.w.below(1500)));
      step();
    }
    h.hub.lose = 0;
    h.w.heal();
    for (std::size_t i = 0; i < h.w.size(); ++i) h.w.at(i).kv_disk.behaviour.commit_delay = 300us;
    ended = true;
    h.w.run_for(8s);
    if (!h.w.run_until([&] { return is_settled(); }, 120s)) return "the layout does not settle";
    for (auto& [i, one] : h.at) one->tables.repair_now();
    h.w.run_for(30s);
    if (!h.w.run_until([&] { return caught_up(); }, 60s)) return "a reader does not catch up";
    return wrong.empty() ? judge_albums() : wrong;
  }

  std::string judge_albums() {
    for (auto& [i, one] : h.at) {
      for (const auto& f : one->tables.feeds()) dropped += f.times_dropped;
      if (gone.contains(i)) continue;
      // Acknowledged by its only reader: nothing is kept any more.
      h.w.run_for(3s);
      if (!h.w.at(i).kv_disk.content(kv::family::feed).empty()) return "changes are kept that nobody waits for";
    }
    const auto& s = h[0].tables.layout();
    for (const auto& [key, written] : acknowledged) {
      const auto& replicas = s.current.replicas(partition_of(key));
      const std::string what = key.partition_key + "/" + key.sort_key;
      std::size_t told = 0;
      for (auto& [i, one] : h.at) {
        if (gone.contains(i) || std::find(replicas.begin(), replicas.end(), home_id(i)) == replicas.end()) continue;
        const ballot seen = albums[i].seen[key];
        auto c = cell_view::decode(h.held(i, key.sort_key, key.partition_key));
        if ((c ? c->accepted : ballot()) != seen) return what + " at home " + std::to_string(i) + ": what is held was not told";
        told += seen >= written;
      }
      // Not all: a replica that promised may go without a value until the row is read.
      if (2 * told <= replicas.size()) return what + ": an acknowledged write was told by " + std::to_string(told) + " homes only";
    }
    return {};
  }
};

struct totals {
  std::size_t pages = 0, names = 0, starts_over = 0, repeated = 0, dropped = 0, writes = 0;
};

std::string play(std::uint64_t seed, std::vector<std::string> mutations, std::uint64_t* trace, totals* t) {
  story s(seed, std::move(mutations));
  std::string wrong = s.play();
  *trace = s.h.w.trace();
  if (!t) return wrong;
  for (const auto& [i, a] : s.albums) t->pages += a.pages, t->names += a.names, t->starts_over += a.starts_over, t->repeated += a.repeated;
  t->dropped += s.dropped;
  t->writes += s.values;
  return wrong;
}

struct feed_case {
  explicit feed_case(std::uint64_t seed = 1) : h(seed) {}
  homes h;
  std::unique_ptr<feed> follow(std::size_t i, const std::string& name = "album") {
    auto r = h.w.await(h.w.at(i), h[i].tables.follow(name, objects));
    REQUIRE(r);
    REQUIRE(*r);
    return std::move(**r);
  }
  std::optional<feed_page> next(std::size_t i, feed& f, std::size_t max = 256, nanoseconds within = 0s) {
    auto r = h.w.await(h.w.at(i), f.next(h.w.now() + within, max));
    REQUIRE(r);
    REQUIRE(*r);
    return std::move(**r);
  }
  // Everything that there is now; acknowledged or not.
  std::vector<std::string> all(std::size_t i, feed& f, bool acknowledge, std::size_t* starts_over = nullptr) {
    std::vector<std::string> names;
    while (auto page = next(i, f)) {
      if (starts_over) *starts_over += page->start_over;
      for (const auto& n : page->names) names.push_back((page->walk ? "walk " : "") + n.key.sort_key);
      if (acknowledge) f.acknowledge(page->mark);
    }
    return names;
  }
  std::size_t entries(std::size_t i) { return h.w.at(i).kv_disk.content(kv::family::feed).size(); }
};

using names = std::vector<std::string>;

}  // namespace

TEST_CASE("where nobody is registered nothing is written") {
  feed_case t;
  t.h.found();
  for (int i = 0; i < 20; ++i) REQUIRE(t.h.write(0, "k" + std::to_string(i), "v"));
  CHECK(t.entries(0) == 0);
  CHECK(t.h[0].tables.feeds().empty());
}

TEST_CASE("a new reader walks the rows, then follows the changes; what it acknowledged is not told again, the rest is") {
  feed_case t;
  t.h.found();
  REQUIRE(t.h.write(0, "a", "1"));
  REQUIRE(t.h.write(0, "b", "1"));
  auto f = t.follow(0);
  std::size_t starts = 0;
  CHECK(t.all(0, *f, true, &starts) == names{"walk a", "walk b"});
  CHECK(starts == 256);
  REQUIRE(t.h.write(0, "c", "1"));
  REQUIRE(t.h.write(0, "a", "2"));
  REQUIRE(t.h.write_rows(0, {{homes::key("b"), {false, {}, nullptr}}}));
  auto page = t.next(0, *f, 2);
  REQUIRE(page);
  CHECK(page->names.size() == 2);
  f->acknowledge(page->mark);
  CHECK(t.all(0, *f, false) == names{"b"});
  CHECK(t.all(0, *f, false).empty());
  t.h.w.run_for(3s);
  CHECK(t.entries(0) == 1);
  f.reset();
  t.h.crash(0, true);
  t.h.again(0);
  f = t.follow(0);
  starts = 0;
  CHECK(t.all(0, *f, true, &starts) == names{"b"});
  CHECK(starts == 0);
  t.h.w.run_for(3s);
  CHECK(t.entries(0) == 0);
  f.reset();
}

TEST_CASE("a walk goes on after a restart, and with it the changes made since it began") {
  feed_case t;
  t.h.found();
  for (char k = 'a'; k <= 'f'; ++k) REQUIRE(t.h.write(0, bytes(1, k), "1"));
  auto f = t.follow(0);
  names told;
  bool stop = false;
  while (!stop) {
    auto page = t.next(0, *f, 2);
    REQUIRE(page);
    for (const auto& n : page->names) told.push_back(n.key.sort_key);
    f->acknowledge(page->mark);
    stop = page->names.size() == 2;
  }
  CHECK(told == names{"a", "b"});
  REQUIRE(t.h.write(0, "a", "2"));
  REQUIRE(t.h.write(0, "e", "2"));
  t.h.w.run_for(3s);
  f.reset();
  t.h.crash(0, true);
  t.h.again(0);
  f = t.follow(0);
  CHECK(t.all(0, *f, true) == names{"walk c", "walk d", "walk e", "walk f", "a", "e"});
  f.reset();
}

TEST_CASE("several changes of one row are told once, and one entry is kept of them") {
  feed_case t;
  t.h.found();
  auto f = t.follow(0);
  (void)t.all(0, *f, true);
  for (int i = 0; i < 30; ++i) REQUIRE(t.h.write(0, "hot", std::to_string(i)));
  REQUIRE(t.h.write(0, "cold", "1"));
  CHECK(t.entries(0) == 2);
  CHECK(t.all(0, *f, true) == names{"hot", "cold"});
  f.reset();
}

TEST_CASE("a reader is woken by a change, told of what other homes wrote, and its name is its own") {
  feed_case t;
  t.h.grow(3);
  auto f = t.follow(2);
  (void)t.all(2, *f, true);
  auto woken = std::make_shared<std::optional<mono_time>>();
  struct local {
    static task<void> wait(homes& h, feed& f, std::shared_ptr<std::optional<mono_time>> woken) {
      auto page = co_await f.next(h.w.now() + 60s);
      if (page && *page && (*page)->names.size() == 1) *woken = h.w.now();
    }
  };
  t.h.w.at(2).root().spawn("reader", local::wait(t.h, *f, woken));
  t.h.w.run_for(5s);
  const mono_time began = t.h.w.now();
  REQUIRE(t.h.write(0, "a", "1"));
  REQUIRE(t.h.w.run_until([&] { return woken->has_value(); }, 5s));
  CHECK(**woken - began < 100ms);
  auto second = t.h.w.await(t.h.w.at(2), t.h[2].tables.follow("album", objects));
  CHECK(second->failed_with(errc::conflict));
  CHECK(t.h.w.await(t.h.w.at(2), t.h[2].tables.follow("no name", objects))->failed_with(errc::invalid_argument));
  CHECK(t.h.w.await(t.h.w.at(2), t.h[2].tables.follow("other", {table_id::reference}))->failed_with(errc::invalid_argument));
  f.reset();
  f = t.follow(2);
  f.reset();
}

TEST_CASE("readers do not wait for one another, and one that is taken out keeps nothing back") {
  feed_case t;
  t.h.found();
  auto quick = t.follow(0, "quick"), slow = t.follow(0, "slow");
  (void)t.all(0, *quick, true);
  (void)t.all(0, *slow, true);
  for (int i = 0; i < 10; ++i) REQUIRE(t.h.write(0, "k" + std::to_string(i), "1"));
  CHECK(t.all(0, *quick, true).size() == 10);
  t.h.w.run_for(3s);
  CHECK(t.entries(0) == 10);
  REQUIRE(*t.h.w.await(t.h.w.at(0), t.h[0].tables.forget_reader("slow")));
  CHECK(t.h.w.await(t.h.w.at(0), slow->next(never))->failed_with(errc::not_found));
  slow.reset();
  t.h.w.run_for(3s);
  CHECK(t.entries(0) == 0);
  CHECK(t.h[0].tables.feeds().size() == 1);
  t.h.crash(0);
  t.h.again(0);
  CHECK(t.h[0].tables.feeds().size() == 1);
  quick.reset();
}

TEST_CASE("for a reader that never comes back a bounded number of changes is kept; when it does come, it starts over") {
  feed_case t;
  t.h.feed_entries_max = 100;
  t.h.found();
  auto f = t.follow(0);
  (void)t.all(0, *f, true);
  t.h.w.run_for(3s);
  f.reset();
  for (int n = 0; n < 10; ++n) {
    std::vector<write_item> many;
    for (int i = 0; i < 50; ++i) many.push_back({homes::key("k" + std::to_string(n * 50 + i)), {true, "1", nullptr}});
    REQUIRE(t.h.write_rows(0, many));
    t.h.w.run_for(200ms);
    CHECK(t.entries(0) <= 100 + 50);
  }
  t.h.w.run_for(5s);
  CHECK(t.entries(0) == 0);
  CHECK(t.h[0].tables.feeds()[0].times_dropped == 1);
  // Nothing is written for it until it is there again.
  REQUIRE(t.h.write(0, "more", "1"));
  CHECK(t.entries(0) == 0);
  t.h.crash(0);
  t.h.again(0);
  f = t.follow(0);
  std::size_t starts = 0;
  CHECK(t.all(0, *f, true, &starts).size() == 501);
  CHECK(starts == 256);
  f.reset();
}

TEST_CASE("a full disk keeps no reader from going on, and what it acknowledges makes room") {
  feed_case t;
  t.h.found();
  auto f = t.follow(0);
  (void)t.all(0, *f, true);
  for (int i = 0; i < 10; ++i) REQUIRE(t.h.write(0, "k" + std::to_string(i), "1"));
  t.h.w.at(0).kv_disk.behaviour.full = true;
  CHECK(!t.h.write(0, "x", "1", nullptr, 1s));
  CHECK(t.all(0, *f, true).size() == 10);
  t.h.w.at(0).kv_disk.behaviour.full = false;
  t.h.w.run_for(10s);
  CHECK(t.entries(0) == 0);
  REQUIRE(t.h.write(0, "y", "1"));
  CHECK(t.all(0, *f, true) == names{"y"});
  f.reset();
}

TEST_CASE("no change is missed under crashes, cuts, losses and changes of the layout; the same seed twice is the same story") {
  totals t;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    CAPTURE(seed);
    std::uint64_t trace = 0, again = 0;
    CHECK(play(seed, {}, &trace, &t) == "");
    CHECK(play(seed, {}, &again, nullptr) == "");
    CHECK(trace == again);
  }
  MESSAGE(t.writes << " writes, " << t.pages << " pages, " << t.names << " names, " << t.repeated << " of them not for the first time, "
                   << t.starts_over << " partitions started over, " << t.dropped << " readers dropped");
  CHECK(t.dropped > 10);
  CHECK(t.repeated > 100);
}

TEST_CASE("a step left out is found") {
  for (const char* left_out : {"feed_entry", "feed_repair", "feed_barrier"}) {
    CAPTURE(left_out);
    bool found = false;
    std::uint64_t trace = 0;
    // Some are rare: rows that come by comparison are few, as names of what was missed bring most.
    for (std::uint64_t seed = 1; seed < 300 && !found; ++seed) found = !play(seed, {left_out}, &trace, nullptr).empty();
    CHECK(found);
  }
}

int main(int argc, char** argv) {
  if (argc > 1 && argv[1][0] != '-') {
    std::uint64_t from = std::stoull(argv[1]), to = argc > 2 ? std::stoull(argv[2]) : from + 1;
    for (std::uint64_t seed = from; seed < to; ++seed) {
      totals t;
      std::uint64_t trace = 0;
      const std::string wrong = play(seed, argc > 3 ? std::vector<std::string>{argv[3]} : std::vector<std::string>{}, &trace, &t);
      std::printf("%llu: %zu writes, %zu pages, %zu names, %zu repeated, %zu over, %zu dropped, trace %016llx %s\n", static_cast<unsigned long long>(seed), t.writes,
                  t.pages, t.names, t.repeated, t.starts_over, t.dropped, static_cast<unsigned long long>(trace), wrong.c_str());
    }
    return 0;
  }
  return doctest::Context(argc, argv).run();
}
