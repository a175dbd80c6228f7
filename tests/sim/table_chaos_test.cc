// Replicated tables under crashes, cut lines, lost messages and changes of the layout: every key's history is linearizable.
// table_chaos_test SEED [MUTATION] plays one history and prints what it saw.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "sim/history.h"
#include "sim/homes.h"

using namespace grenier;
using namespace grenier::sim;
using namespace grenier::table;

namespace {

constexpr int keys = 3;

struct chaos {
  explicit chaos(std::uint64_t seed, std::vector<std::string> mutations) : h(seed) { h.mutations = std::move(mutations); }
  homes h;
  std::vector<operation> seen[keys];
  std::uint64_t values = 0;
  bool ended = false;

  std::int64_t now() const { return h.w.now().time_since_epoch().count(); }
  static std::uint64_t number(const row_value& v) { return v.present ? std::stoull(v.row) : 0; }

  static void settle(operation& o, const error& e) {
    if (e == errc::condition_failed) o.result = operation::outcome::refused;
    else if (e == errc::unavailable || e == errc::clock_skew) o.result = operation::outcome::failed;
    else o.result = operation::outcome::unknown;
  }

  // A client of one home: it goes with its home, and what it was doing then stays pending.
  static task<void> client(chaos& c, std::size_t i, int name) {
    homes& h = c.h;
    while (!c.ended) {
      co_await sleep_for(h.w.at(i).rt(), nanoseconds(1 + h.w.below(60'000'000)));
      const auto k = h.w.below(keys);
      const std::size_t at = c.seen[k].size();
      operation o;
      o.client = name;
      o.invoked = c.now();
      const auto dice = h.w.below(10);
      if (dice == 7) {
        co_await list(c, i, name);
        continue;
      }
      o.what = dice < 4 ? operation::kind::write : dice < 7 ? operation::kind::read : operation::kind::write_if_equal;
      o.value = o.what == operation::kind::read ? 0 : ++c.values;
      if (o.what == operation::kind::write_if_equal) o.expected = h.w.below(2) && c.values > 3 ? c.values - 1 - h.w.below(3) : 0;
      if (o.what == operation::kind::write_if_equal && o.expected == 0) o.what = operation::kind::write_if_absent;
      c.seen[k].push_back(o);
      op_options with;
      with.deadline = h.w.now() + 6s;
      const row_key key = homes::key("k" + std::to_string(k));
      shared_bytes body = h.w.below(3) == 0 ? share("body " + std::to_string(o.value)) : nullptr;
      if (o.what == operation::kind::read) {
        with.with_body = true;
        auto r = co_await h[i].tables.read(key, std::move(with));
        operation& mine = c.seen[k][at];
        mine.returned = c.now();
        if (!r) {
          mine.result = operation::outcome::failed;
          continue;
        }
        mine.result = operation::outcome::done;
        mine.seen = number(r->value);
        if (r->value.body) ASSERT(*r->value.body == "body " + std::to_string(mine.seen));
      } else if (o.what == operation::kind::write) {
        auto r = co_await h[i].tables.write({{key, {true, std::to_string(o.value), std::move(body)}}}, std::move(with));
        operation& mine = c.seen[k][at];
        mine.returned = c.now();
        if (!r) settle(mine, r.error());
        else if (!(*r)[0]) settle(mine, (*r)[0].error());
        else mine.result = operation::outcome::done;
      } else {
        judge j = [o, body](const row& found) -> result<row_value> {
          if (number(found.value) != o.expected) return fail(errc::condition_failed);
          return row_value{true, std::to_string(o.value), body};
        };
        auto r = co_await h[i].tables.compare_and_swap(key, std::move(j), std::move(with));
        operation& mine = c.seen[k][at];
        mine.returned = c.now();
        if (!r) settle(mine, r.error());
        else mine.result = operation::outcome::done;
      }
    }
  }

  // A page reads every key.
  static task<void> list(chaos& c, std::size_t i, int name) {
    std::array<std::size_t, keys> at{};
    for (int k = 0; k < keys; ++k) {
      at[static_cast<std::size_t>(k)] = c.seen[k].size();
      operation o;
      o.client = name;
      o.invoked = c.now();
      c.seen[k].push_back(o);
    }
    op_options with;
    with.deadline = c.h.w.now() + 6s;
    list_request q{.table = table_id::object, .partition_key = "photos", .prefix = "k", .delimiter = {}, .start = {}, .entries_max = 1000};
    auto r = co_await c.h[i].tables.list(std::move(q), std::move(with));
    for (int k = 0; k < keys; ++k) {
      operation& mine = c.seen[k][at[static_cast<std::size_t>(k)]];
      mine.returned = c.now();
      mine.result = r ? operation::outcome::done : operation::outcome::failed;
      if (!r) continue;
      for (const auto& e : r->entries)
        if (e.key == "k" + std::to_string(k)) mine.seen = std::stoull(e.projection);
    }
  }

  void clients(std::size_t i) {
    for (int n = 0; n < 2; ++n) h.w.at(i).root().spawn("client", client(*this, i, static_cast<int>(i) * 2 + n));
  }

  std::string run(bool changes) {
    h.found();
    clients(0);
    for (std::size_t n = 2; n <= 3; ++n) {
      h.join();
      clients(n - 1);
      if (!changes) {
        if (!h.settled(n, 120s)) return "the layout did not settle";
      } else {
        h.w.run_until([&] { return h[0].tables.layout().phase == layout::phase::settled; }, 120s);
      }
    }
    h.settled(3, 120s);
    for (int step = 0; step < 25; ++step) {
      h.w.run_for(milliseconds(200 + h.w.below(3000)));
      const auto dice = h.w.below(6);
      const std::size_t i = h.w.below(h.w.size());
      if (dice == 0 && h.w.at(i).on()) {
        h.crash(i, h.w.below(2));
        h.w.run_for(milliseconds(h.w.below(6000)));
        h.again(i);
        clients(i);
      } else if (dice == 1) {
        h.w.partition({i});
        h.w.run_for(milliseconds(h.w.below(6000)));
        h.w.heal();
      } else if (dice == 2) {
        h.hub.lose = 0.02 * static_cast<double>(h.w.below(6));
      } else if (dice == 3 && changes && h.w.size() < 6 && h[0].tables.layout().phase == layout::phase::settled && h[0].peers.up_members().size() == h.w.size()) {
        const double lose = std::exchange(h.hub.lose, 0);
        if (h.try_join()) clients(h.w.size() - 1);
        h.hub.lose = lose;
      } else {
        h.hub.lose = 0;
      }
    }
    h.hub.lose = 0;
    h.w.heal();
    h.w.run_for(10s);
    ended = true;
    h.w.run_for(10s);
    std::size_t done = 0;
    for (int k = 0; k < keys; ++k) {
      bool gave_up = false;
      for (const auto& o : seen[k]) done += o.result == operation::outcome::done;
      std::string wrong = check_linearizable(seen[k], gave_up);
      if (gave_up) std::fprintf(stderr, "key %d: too long to tell\n", k);
      if (!wrong.empty()) return "key " + std::to_string(k) + ": " + wrong;
    }
    total = done;
    return {};
  }
  std::size_t total = 0;
};

}  // namespace

TEST_CASE("histories under crashes, cuts and losses are linearizable") {
  for (std::uint64_t seed = 100; seed < 108; ++seed) {
    chaos c(seed, {});
    CAPTURE(seed);
    CHECK(c.run(false) == "");
    CHECK(c.total > 100);
  }
}

TEST_CASE("and while the layout changes") {
  for (std::uint64_t seed = 200; seed < 208; ++seed) {
    chaos c(seed, {});
    CAPTURE(seed);
    CHECK(c.run(true) == "");
    CHECK(c.total > 100);
  }
}

TEST_CASE("a step of the protocol left out is found") {
  // That a replica is counted once shows on the machine alone (register_explore_test): the coordinator asks each once a round.
  for (const char* left_out :
       {"retry_without_asking", "no_write_back", "judge_unestablished", "ignore_promises", "forgotten_is_never", "quorum_of_one"}) {
    CAPTURE(left_out);
    bool found = false;
    for (std::uint64_t seed = 300; seed < 340 && !found; ++seed) found = !chaos(seed, {left_out}).run(false).empty();
    CHECK(found);
  }
}

int main(int argc, char** argv) {
  if (argc > 1 && argv[1][0] != '-') {
    std::uint64_t from = std::stoull(argv[1]), to = argc > 2 ? std::stoull(argv[2]) : from + 1;
    for (std::uint64_t seed = from; seed < to; ++seed) {
      chaos c(seed, argc > 3 ? std::vector<std::string>{argv[3]} : std::vector<std::string>{});
      const std::string wrong = c.run(seed % 2);
      std::printf("%llu: %zu done, trace %016llx %s\n", static_cast<unsigned long long>(seed), c.total,
                  static_cast<unsigned long long>(c.h.w.trace()), wrong.c_str());
    }
    return 0;
  }
  return doctest::Context(argc, argv).run();
}
