#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <random>

#include "sim/history.h"

using namespace grenier::sim;
using kind = operation::kind;
using out = operation::outcome;

namespace {
operation op(kind k, std::uint64_t value, std::int64_t from, std::int64_t to, out r = out::done, std::uint64_t expected = 0) {
  operation o;
  o.what = k;
  (k == kind::read ? o.seen : o.value) = value;
  o.expected = expected;
  o.invoked = from;
  o.returned = to;
  o.result = r;
  return o;
}
bool good(std::vector<operation> h) {
  bool gave_up = false;
  bool ok = check_linearizable(std::move(h), gave_up).empty();
  CHECK(!gave_up);
  return ok;
}
}  // namespace

TEST_CASE("what takes turns passes, what does not is found") {
  CHECK(good({}));
  CHECK(good({op(kind::write, 1, 0, 10), op(kind::read, 1, 11, 12)}));
  CHECK(!good({op(kind::write, 1, 0, 10), op(kind::read, 0, 11, 12)}));                                    // stale
  CHECK(good({op(kind::write, 1, 0, 10), op(kind::read, 0, 5, 12)}));                                      // concurrent
  CHECK(!good({op(kind::write, 1, 0, 100), op(kind::read, 1, 10, 20), op(kind::read, 0, 30, 40)}));        // new, then old
  CHECK(!good({op(kind::write, 1, 0, 5), op(kind::write, 2, 6, 9), op(kind::read, 2, 10, 11), op(kind::read, 1, 12, 13)}));
  CHECK(!good({op(kind::read, 7, 0, 5)}));                                                                 // never written
}

TEST_CASE("an unknown write may happen late, once, or never") {
  CHECK(good({op(kind::write, 1, 0, 5, out::unknown), op(kind::read, 0, 6, 7), op(kind::read, 1, 50, 51)}));
  CHECK(good({op(kind::write, 1, 0, 5, out::unknown), op(kind::read, 0, 6, 7)}));
  CHECK(!good({op(kind::write, 1, 0, 5, out::unknown), op(kind::write, 2, 6, 7), op(kind::read, 1, 8, 9), op(kind::read, 2, 10, 11), op(kind::read, 1, 12, 13)}));
  CHECK(!good({op(kind::write, 1, 0, 5, out::failed), op(kind::read, 1, 6, 7)}));
}

TEST_CASE("conditional writes exclude each other") {
  CHECK(good({op(kind::write_if_absent, 1, 0, 9), op(kind::write_if_absent, 2, 0, 9, out::refused), op(kind::read, 1, 10, 11)}));
  CHECK(!good({op(kind::write_if_absent, 1, 0, 9), op(kind::write_if_absent, 2, 0, 9)}));
  CHECK(good({op(kind::write, 1, 0, 1), op(kind::write_if_equal, 2, 2, 3, out::done, 1), op(kind::write_if_equal, 3, 2, 5, out::refused, 1)}));
  CHECK(!good({op(kind::write, 1, 0, 1), op(kind::write_if_equal, 2, 2, 3, out::done, 1), op(kind::write_if_equal, 3, 4, 5, out::done, 1)}));
  CHECK(!good({op(kind::write_if_absent, 1, 0, 9, out::refused)}));  // refused by nothing
}

TEST_CASE("histories of a real register pass; with one answer changed they mostly do not") {
  std::mt19937_64 r(5);
  int caught = 0;
  for (int n = 0; n < 200; ++n) {
    std::vector<operation> h;
    std::uint64_t state = 0;
    std::int64_t t = 0;
    for (int i = 0; i < 60; ++i) {
      t += 10;
      std::int64_t from = t - static_cast<std::int64_t>(r() % 30), to = t + 1 + static_cast<std::int64_t>(r() % 30);
      if (r() % 2) {
        state = static_cast<std::uint64_t>(i) + 1;
        h.push_back(op(kind::write, state, from, to));
      } else {
        h.push_back(op(kind::read, state, from, to));
      }
    }
    CHECK(good(h));
    for (auto& o : h)
      if (o.what == kind::read && o.invoked > 300) {
        o.seen = 1;
        break;
      }
    bool gave_up = false;
    caught += !check_linearizable(h, gave_up).empty();
  }
  CHECK(caught > 150);
}
