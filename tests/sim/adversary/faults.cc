#include "sim/adversary/faults.h"

#include <algorithm>

namespace grenier::sim {

namespace {

using dice_of = std::mt19937_64;

std::uint64_t below(dice_of& d, std::uint64_t n) { return d() % n; }
nanoseconds some_time(dice_of& d, std::uint64_t from_ms, std::uint64_t to_ms) { return milliseconds(from_ms + below(d, to_ms - from_ms)); }
// Longer where a history is longer.
nanoseconds while_of(scene& s, dice_of& d) { return some_time(d, 200, s.of_shape == scene::shape::brief ? 5000 : 20000); }

std::optional<std::size_t> any_home(scene& s, dice_of& d) {
  std::vector<std::size_t> all;
  for (std::size_t i = 0; i < s.homes.size(); ++i)
    if (!s.gone.contains(i)) all.push_back(i);
  if (all.empty()) return std::nullopt;
  return all[below(d, all.size())];
}
std::pair<std::size_t, std::size_t> two_homes(scene& s, dice_of& d) {
  return {below(d, s.homes.size()), below(d, s.homes.size())};
}

// ------------------------------------------------------------------------------------------------- power

void crash(scene& s, dice_of& d) {
  if (auto i = any_home(s, d); i && s.may_crash(*i)) s.crash(*i, below(d, 2), some_time(d, 100, 6000));
}
void zone_power(scene& s, dice_of& d) {
  auto i = any_home(s, d);
  if (!i) return;
  const std::string zone = s.homes.settings(*i).zone;
  const nanoseconds dark = some_time(d, 500, 10000);
  for (std::size_t n = 0; n < s.homes.size(); ++n)
    if (s.homes.settings(n).zone == zone && s.may_crash(n)) s.crash(n, true, dark + some_time(d, 0, 500));
}
void blackout(scene& s, dice_of& d) {
  for (std::size_t n = 0; n < s.homes.size(); ++n)
    if (s.may_crash(n)) s.crash(n, true, some_time(d, 200, 5000));
}
// A box that is off for the night.
void sleep(scene& s, dice_of& d) {
  const nanoseconds night = s.of_shape == scene::shape::refuse ? some_time(d, 60000, 200000) : some_time(d, 10000, 40000);
  if (auto i = any_home(s, d); i && s.may_crash(*i)) s.crash(*i, false, night);
}
// Again as soon as it is there.
void crash_loop(scene& s, dice_of& d) {
  auto i = any_home(s, d);
  if (!i) return;
  nanoseconds at = 0s;
  for (std::uint64_t n = 2 + below(d, 4); n > 0; --n) {
    const bool cut = below(d, 2);
    const nanoseconds back = some_time(d, 50, 300);
    s.later(at, [&s, i = *i, cut, back] {
      if (!s.over() && s.may_crash(i)) s.crash(i, cut, back);
    });
    at += back + some_time(d, 20, 1500);
  }
}

// ------------------------------------------------------------------------------------------------- lines

void mend_lines(scene& s, std::set<std::size_t> of, nanoseconds after) {
  s.later(after, [&s, of] {
    for (std::size_t i : of)
      for (std::size_t j = 0; j < s.w.size(); ++j) s.w.line(i, j).up = s.w.line(j, i).up = true;
  });
}
void cut(scene& s, dice_of& d) {
  auto i = any_home(s, d);
  if (!i) return;
  std::set<std::size_t> side{*i};
  if (below(d, 3) == 0)
    if (auto j = any_home(s, d)) side.insert(*j);
  s.w.partition(side);
  mend_lines(s, side, while_of(s, d));
}
void cut_one_way(scene& s, dice_of& d) {
  auto [i, j] = two_homes(s, d);
  if (i != j) s.w.line(i, j).up = false;
  s.later(while_of(s, d), [&s, i, j] { s.w.line(i, j).up = true; });
}
void slow_line(scene& s, dice_of& d) {
  auto [i, j] = two_homes(s, d);
  auto& l = s.w.line(i, j);
  l.delay = milliseconds(below(d, 400));
  l.jitter = milliseconds(below(d, 3) ? 0 : below(d, 300));
  if (below(d, 4) == 0) l.rate = 20000 + static_cast<double>(below(d, 200000));
}
void lossy_line(scene& s, dice_of& d) {
  auto [i, j] = two_homes(s, d);
  s.w.line(i, j).loss = 0.02 * static_cast<double>(1 + below(d, 10));
}
void reset(scene& s, dice_of& d) {
  auto [i, j] = two_homes(s, d);
  if (i != j) s.w.cut_connections(i, j);
}
void garble(scene& s, dice_of& d) {
  auto [i, j] = two_homes(s, d);
  s.w.line(i, j).flip = 0.01 * static_cast<double>(1 + below(d, 5));
  s.later(while_of(s, d), [&s, i, j] { s.w.line(i, j).flip = 0; });
}
void address(scene& s, dice_of& d) {
  auto i = any_home(s, d);
  // Two homes that both move before one has heard of it do not find each other again: one of them needs a name (storaged(8)).
  if (i && (s.homes_first > 2 || s.ready_homes().size() == s.homes.size() - s.gone.size())) s.homes.at(*i).move_address();
}

// ------------------------------------------------------------------------------------------------- disks

void slow_disk(scene& s, dice_of& d) {
  auto i = any_home(s, d);
  if (!i) return;
  s.homes.at(*i).kv_disk.behaviour.commit_delay = milliseconds(below(d, 60));
  s.homes.at(*i).drives[0].delay = milliseconds(below(d, 200));
}
void hung_disk(scene& s, dice_of& d) {
  auto i = any_home(s, d);
  if (!i) return;
  auto& m = s.homes.at(*i);
  const nanoseconds lasts = while_of(s, d);
  const bool rows_too = below(d, 2);
  m.drives[0].hung = true;
  if (rows_too) m.kv_disk.behaviour.commit_delay = lasts;
  s.later(lasts, [&s, i = *i] {
    s.homes.at(i).drives[0].hung = false;
    s.homes.at(i).kv_disk.behaviour.commit_delay = 300us;
  });
}
void full_disk(scene& s, dice_of& d) {
  auto i = any_home(s, d);
  if (!i) return;
  s.homes.at(*i).drives[0].full = true;
  if (below(d, 3) == 0) s.homes.at(*i).kv_disk.behaviour.full = true;
  s.later(while_of(s, d), [&s, i = *i] {
    s.homes.at(i).drives[0].full = false;
    s.homes.at(i).kv_disk.behaviour.full = false;
  });
}

// One home's disk may be damaged: of two homes at a time it would be more than is promised.
bool becomes_victim(scene& s, std::size_t i) {
  if (s.victim && *s.victim != i) return false;
  s.victim = i;
  s.destroyed_at = s.now_ns();
  return true;
}
void unreadable(scene& s, dice_of& d) {
  auto i = s.victim ? s.victim : any_home(s, d);
  if (!i || s.gone.contains(*i) || !becomes_victim(s, *i)) return;
  s.homes.at(*i).drives[0].unreadable = true;
  s.later(while_of(s, d), [&s, i = *i] {
    s.homes.at(i).drives[0].unreadable = false;
    s.destroyed_at = s.now_ns();
  });
}
std::size_t copies(scene& s) {
  const auto on = s.ready_homes();
  return on.empty() ? s.homes_first : s.homes.node(on.front()).tables().layout().newest().copies();
}
bool is_elsewhere(scene& s, std::size_t but, const std::string& file) {
  for (std::size_t n = 0; n < s.homes.size(); ++n)
    if (n != but && !s.gone.contains(n) && s.homes.at(n).drives[0].files.contains(file)) return true;
  return false;
}
void rot(scene& s, dice_of& d) {
  auto i = s.victim ? s.victim : any_home(s, d);
  if (!i || s.gone.contains(*i)) return;
  auto& files = s.homes.at(*i).drives[0].files;
  if (files.empty() || !becomes_victim(s, *i)) return;
  for (std::uint64_t n = 1 + below(d, 4); n > 0; --n) {
    auto at = std::next(files.begin(), static_cast<std::ptrdiff_t>(below(d, files.size())));
    if (at->second.empty()) continue;
    // Of two homes the first one alone keeps one copy, and says so: that one is all there is.
    if (copies(s) < 3 && !is_elsewhere(s, *i, at->first)) continue;
    if (below(d, 4) == 0) at->second.resize(below(d, at->second.size()));
    else at->second[below(d, at->second.size())] ^= static_cast<char>(1u << below(d, 8));
  }
}

// ------------------------------------------------------------------------------------------------- clocks

void clock_jump(scene& s, dice_of& d) {
  auto i = any_home(s, d);
  if (!i) return;
  const bool seconds_only = below(d, 4);
  const std::int64_t by = seconds_only ? 20'000 : 3 * 3600 * 1000;
  s.homes.at(*i).clock().skew = milliseconds(static_cast<std::int64_t>(below(d, static_cast<std::uint64_t>(2 * by))) - by);
  if (by > 60000) s.later(while_of(s, d), [&s, i = *i] { s.homes.at(i).clock().skew = milliseconds(0); });
}
void clock_drift(scene& s, dice_of& d) {
  auto i = any_home(s, d);
  if (!i) return;
  const milliseconds each(static_cast<std::int64_t>(below(d, 200)) - 100);
  for (int n = 1; n <= 60; ++n) s.later(n * 500ms, [&s, i = *i, each] {
    if (!s.over()) s.homes.at(i).clock().skew += each;
  });
}

// ------------------------------------------------------------------------------------------------- homes come and go

void join(scene& s, dice_of& d) {
  if (s.homes.size() - s.gone.size() >= 6 || !s.arriving.empty()) return;
  s.join(s.add_home("zone-" + std::to_string(below(d, 5))));
}

task<void> take_out(scene& s, std::size_t host, std::size_t lost, node_id id) {
  auto r = co_await s.homes.node(host).remove(id, s.homes.at(host).rt().now() + 60s);
  if (r || r.error().code == errc::not_found) {
    s.leaving.erase(lost);
    s.gone.insert(lost);
  }
}
void see_it_out(scene& s, std::size_t lost, node_id id) {
  if (s.gone.contains(lost)) return;
  auto on = s.ready_homes();
  if (!on.empty()) {
    const std::size_t host = on[s.w.below(on.size())];
    s.homes.at(host).root().spawn("take out", take_out(s, host, lost, id));
  }
  s.later(15s, [&s, lost, id] { see_it_out(s, lost, id); });
}
// Burnt down: the others take it out of the layout, and another machine takes its place.
void lost(scene& s, dice_of& d) {
  auto i = s.victim ? s.victim : any_home(s, d);
  if (!i || s.gone.contains(*i) || s.leaving.contains(*i) || !s.homes.ready(*i) || !s.quiet() || s.ready_homes().size() < 4) return;
  std::set<std::string> left;
  for (std::size_t n : s.ready_homes())
    if (n != *i) left.insert(s.homes.settings(n).zone);
  if (left.size() < 3 || !becomes_victim(s, *i)) return;
  const node_id id = s.homes.node(*i).id();
  s.leaving.insert(*i);
  s.crash(*i, true, nanoseconds::max());
  s.homes.at(*i).kv_disk.wipe();
  s.homes.at(*i).drives[0].files.clear();
  s.later(some_time(d, 4000, 8000), [&s, i = *i, id] { see_it_out(s, i, id); });
  const std::string zone = s.homes.settings(*i).zone;
  s.later(some_time(d, 5000, 20000), [&s, zone] {
    if (!s.over()) s.join(s.add_home(zone));
  });
}
// What the household says of its home after a restart: more room, less, none, or another zone.
void resettle(scene& s, dice_of& d) {
  auto i = any_home(s, d);
  if (!i || !s.may_crash(*i)) return;
  auto& o = s.homes.settings(*i);
  if (below(d, 3)) {
    constexpr std::uint64_t sizes[] = {50ull << 30, 100ull << 30, 200ull << 30, 400ull << 30};
    o.capacity_bytes = sizes[below(d, 4)];
  } else {
    o.zone = "zone-" + std::to_string(below(d, 5));
    s.rezoned_until = s.now_ns() + nanoseconds(30s).count();
  }
  s.crash(*i, false, some_time(d, 100, 2000));
}

constexpr fault table[] = {
    {"crash", 8, 6, 4, "a home is killed or loses its power, and starts again within seconds", &crash},
    {"zone-power", 2, 2, 1, "all homes of a zone lose their power", &zone_power},
    {"blackout", 1, 1, 1, "everybody loses power", &blackout},
    {"sleep", 0, 3, 4, "a home is off for long", &sleep},
    {"crash-loop", 1, 1, 1, "a home is killed again as soon as it is back", &crash_loop},
    {"cut", 5, 4, 3, "one or two homes are cut off", &cut},
    {"cut-one-way", 4, 3, 2, "a line carries nothing in one direction", &cut_one_way},
    {"slow-line", 4, 2, 1, "a line takes up to 400 ms, disorder between connections, little room", &slow_line},
    {"lossy-line", 2, 1, 1, "a line loses up to a fifth of what it carries", &lossy_line},
    {"reset", 3, 2, 2, "the connections between two homes break, with what was on its way", &reset},
    {"garble", 2, 1, 1, "bits change on a line", &garble},
    {"address", 1, 2, 1, "a home gets another address", &address},
    {"slow-disk", 4, 2, 1, "commits and writes take longer", &slow_disk},
    {"hung-disk", 3, 2, 2, "a disk does not answer for a while", &hung_disk},
    {"full-disk", 2, 2, 2, "a disk is full for a while", &full_disk},
    {"unreadable", 1, 1, 1, "one home's files cannot be read for a while", &unreadable},
    {"rot", 2, 2, 3, "bits of one home's files change", &rot},
    {"clock-jump", 4, 3, 2, "a clock jumps by seconds or hours", &clock_jump},
    {"clock-drift", 2, 2, 1, "a clock goes wrong bit by bit", &clock_drift},
    {"join", 0, 3, 1, "a home joins", &join},
    {"lost", 0, 4, 2, "a home is lost for good and replaced", &lost},
    {"resettle", 0, 4, 1, "a home restarts with another capacity or zone", &resettle},
};

}  // namespace

std::span<const fault> all_faults() { return table; }

void heal_all(scene& s) {
  s.w.heal();
  for (std::size_t i = 0; i < s.homes.size(); ++i) {
    auto& m = s.homes.at(i);
    m.clock().skew = milliseconds(0);
    m.kv_disk.behaviour.commit_delay = 300us;
    m.kv_disk.behaviour.full = false;
    auto& drive = m.drives[0];
    drive.full = drive.hung = drive.unreadable = false;
    drive.delay = 1ms;
    for (std::size_t j = 0; j < s.homes.size(); ++j) {
      auto& l = s.w.line(i, j);
      l = {.delay = 5ms};
    }
  }
}

}  // namespace grenier::sim
