#include "sim/history.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <limits>
#include <unordered_set>

namespace grenier::sim {

namespace {

constexpr std::size_t configurations_max = 3'000'000, suspects_budget = 300'000;

bool certain(const operation& o) { return o.result == operation::outcome::done || o.result == operation::outcome::refused; }

// What the register holds after `o` when it held `state`; false when `o` could not have answered as it did.
bool apply(const operation& o, std::uint64_t& state) {
  switch (o.what) {
    case operation::kind::write:
      state = o.value;
      return true;
    case operation::kind::read: return o.seen == state;
    case operation::kind::write_if_absent:
    case operation::kind::write_if_equal: {
      bool holds = o.what == operation::kind::write_if_absent ? state == 0 : state == o.expected;
      if (o.result == operation::outcome::refused) return !holds;
      if (o.result == operation::outcome::done && !holds) return false;
      if (holds) state = o.value;
      return true;
    }
    case operation::kind::open:
    case operation::kind::close: return true;
  }
  return false;
}

// 0: no bucket, 1: an empty one, else what its key holds.
bool apply_to_bucket(const operation& o, std::uint64_t& state) {
  const bool sure = certain(o), done = o.result == operation::outcome::done;
  switch (o.what) {
    case operation::kind::write:
      if (sure && done != (state > 0)) return false;
      if (state > 0) state = o.value ? o.value : 1;
      return true;
    case operation::kind::read: return done ? state == (o.seen ? o.seen : 1) : state == 0;
    case operation::kind::open:
      if (sure && done != (state == 0)) return false;
      if (state == 0) state = 1;
      return true;
    case operation::kind::close:
      if (sure && !done) return o.seen ? state > 1 : state == 0;
      if (done && state != 1) return false;
      if (state == 1) state = 0;
      return true;
    default: return false;
  }
}

std::string describe(const std::vector<operation>& all) {
  constexpr const char* kinds[] = {"write", "read", "create", "replace", "open", "close"};
  constexpr const char* results[] = {"pending", "done", "refused", "unknown", "failed"};
  std::string s;
  for (const auto& o : all) {
    char line[200];
    std::snprintf(line, sizeof line, "  client %d %-7s value %llu expected %llu saw %llu  %.3f..%.3f ms  %s\n", o.client,
                  kinds[static_cast<int>(o.what)], static_cast<unsigned long long>(o.value), static_cast<unsigned long long>(o.expected),
                  static_cast<unsigned long long>(o.seen), static_cast<double>(o.invoked) / 1e6, static_cast<double>(o.returned) / 1e6,
                  results[static_cast<int>(o.result)]);
    s += line;
  }
  return s;
}

}  // namespace

namespace {

// Writes of unknown outcome that nobody is known to have met: each doubles what is to be searched.
bool unseen(const std::vector<operation>& h, const operation& w) {
  if (certain(w) || w.what == operation::kind::read || w.value == 0) return false;
  return std::none_of(h.begin(), h.end(), [&](const operation& o) {
    return (o.what == operation::kind::read && o.seen == w.value) || (o.what == operation::kind::write_if_equal && o.expected == w.value);
  });
}

// Looks at no more than `budget` configurations, and takes off it what it looked at.
std::string search(std::vector<operation> h, bool& gave_up, history_of what, std::size_t& budget);

}  // namespace

std::string check_linearizable(std::vector<operation> h, bool& gave_up, history_of what) {
  std::erase_if(h, [](const operation& o) {
    return o.result == operation::outcome::failed || (o.what == operation::kind::read && !certain(o));
  });
  // What may never have happened did not, if the rest is explained without it.
  std::vector<operation> less;
  std::copy_if(h.begin(), h.end(), std::back_inserter(less), [&](const operation& o) { return !unseen(h, o); });
  if (less.size() < h.size()) {
    std::size_t budget = configurations_max;
    if (search(std::move(less), gave_up, what, budget).empty() && !gave_up) return {};
  }
  std::size_t budget = configurations_max;
  std::string why = search(h, gave_up, what, budget);
  if (why.empty()) return why;
  // For people: the answers of which any one could be the wrong one, as far as that is seen at once: each is a search of its own, and one
  // that fails again is as long as the first.
  std::vector<operation> suspects;
  budget = suspects_budget;
  for (std::size_t i = 0; i < h.size() && suspects.size() < 8 && budget > 0; ++i) {
    if (!certain(h[i])) continue;
    auto others = h;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
    bool unsure = false;
    if (search(std::move(others), unsure, what, budget).empty() && !unsure) suspects.push_back(h[i]);
  }
  if (!suspects.empty()) why += "and would be without any one of:\n" + describe(suspects);
  return why;
}

namespace {

std::string search(std::vector<operation> h, bool& gave_up, history_of what, std::size_t& budget) {
  gave_up = false;
  for (auto& o : h)
    if (!certain(o)) o.returned = std::numeric_limits<std::int64_t>::max();
  std::sort(h.begin(), h.end(), [](const operation& a, const operation& b) { return a.invoked < b.invoked; });
  std::size_t left = static_cast<std::size_t>(std::count_if(h.begin(), h.end(), certain));

  struct frame {
    std::uint64_t state;
    std::size_t chosen;  // operation taken to get here
    std::size_t next;    // where to go on trying
  };
  std::vector<bool> taken(h.size());
  std::vector<frame> stack{{0, h.size(), 0}};
  std::unordered_set<std::string> seen;
  while (left) {
    frame& f = stack.back();
    // Nothing may come before an operation that had returned when it was invoked.
    std::int64_t first_return = std::numeric_limits<std::int64_t>::max();
    for (std::size_t i = 0; i < h.size(); ++i) {
      if (h[i].invoked > first_return) break;
      if (!taken[i]) first_return = std::min(first_return, h[i].returned);
    }
    bool went = false;
    for (std::size_t i = f.next; i < h.size() && h[i].invoked <= first_return; ++i) {
      if (taken[i]) continue;
      std::uint64_t state = f.state;
      if (!(what == history_of::key ? apply(h[i], state) : apply_to_bucket(h[i], state))) continue;
      taken[i] = true;
      std::string key(reinterpret_cast<const char*>(&state), sizeof state);
      for (std::size_t b = 0; b < h.size(); b += 8) {
        char c = 0;
        for (std::size_t k = 0; k < 8 && b + k < h.size(); ++k) c = static_cast<char>(c | (taken[b + k] ? 1 << k : 0));
        key.push_back(c);
      }
      if (!seen.insert(std::move(key)).second) {
        taken[i] = false;
        continue;
      }
      if (budget == 0) {
        gave_up = true;
        return {};
      }
      --budget;
      f.next = i + 1;
      if (certain(h[i])) --left;
      stack.push_back({state, i, 0});
      went = true;
      break;
    }
    if (went) continue;
    if (f.chosen == h.size()) return describe(h);
    taken[f.chosen] = false;
    if (certain(h[f.chosen])) ++left;
    stack.pop_back();
  }
  return {};
}

}  // namespace

}  // namespace grenier::sim
