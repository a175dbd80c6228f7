#include "sim/history.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <unordered_set>

namespace grenier::sim {

namespace {

constexpr std::size_t configurations_max = 3'000'000;

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
  }
  return false;
}

std::string describe(const std::vector<operation>& all) {
  constexpr const char* kinds[] = {"write", "read", "create", "replace"};
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

std::string check_linearizable(std::vector<operation> h, bool& gave_up) {
  gave_up = false;
  std::erase_if(h, [](const operation& o) {
    return o.result == operation::outcome::failed || (o.what == operation::kind::read && !certain(o));
  });
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
      if (!apply(h[i], state)) continue;
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
      if (seen.size() > configurations_max) {
        gave_up = true;
        return {};
      }
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

}  // namespace grenier::sim
