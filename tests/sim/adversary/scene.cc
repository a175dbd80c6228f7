#include "sim/adversary/scene.h"

#include <zstd.h>

#include <algorithm>
#include <cstdio>

#include "sim/adversary/checkers.h"
#include "sim/adversary/faults.h"
#include "sim/adversary/workload.h"

namespace grenier::sim {

// ------------------------------------------------------------------------------------------------- values

namespace {

// What large objects share.
const bytes& pool_block(std::uint64_t i) {
  static const std::vector<bytes> all = [] {
    std::vector<bytes> v(6);
    std::mt19937_64 dice(6);
    for (auto& b : v)
      while (b.size() < sim_block_bytes) append_u64(b, dice());
    return v;
  }();
  return all[i % all.size()];
}

constexpr std::size_t tail_bytes = 5000;  // of the last block

}  // namespace

std::vector<bytes> parts_of(std::uint64_t value) {
  bytes head = "value " + std::to_string(value) + "\n";
  if (!has_blocks(value)) return {head};
  head.resize(sim_block_bytes, ' ');  // so that it is compressed
  std::vector<bytes> parts{std::move(head)};
  const std::uint64_t n = value / 4;
  if (n % 2) parts.push_back(pool_block(n / 2));
  parts.push_back(pool_block(n / 3).substr(0, tail_bytes));
  return parts;
}

bytes content_of(std::uint64_t value) {
  bytes all;
  for (const auto& p : parts_of(value)) all += p;
  return all;
}

std::uint64_t value_of(const bytes& b) {
  if (!b.starts_with("value ")) return UINT64_MAX;
  std::uint64_t v = std::strtoull(b.c_str() + 6, nullptr, 10);
  return content_of(v) == b ? v : UINT64_MAX;
}

namespace {
std::string md5(bytes_view b) { return crypto::digest(crypto::hash_kind::md5, b); }
}  // namespace

std::uint64_t scene::new_value(bool blocks) {
  do ++next_value_;
  while (has_blocks(next_value_) != blocks);
  values_[etag_of(next_value_)] = next_value_;
  if (blocks) {
    bytes all;
    const auto parts = parts_of(next_value_);
    for (const auto& p : parts) all += md5(p);
    values_[to_hex(md5(all)) + "-" + std::to_string(parts.size())] = next_value_;
  }
  return next_value_;
}
std::string scene::etag_of(std::uint64_t value) const { return to_hex(md5(content_of(value))); }
std::uint64_t scene::value_by_etag(const std::string& etag) const {
  auto at = values_.find(etag);
  return at == values_.end() ? UINT64_MAX : at->second;
}

// ------------------------------------------------------------------------------------------------- the plan

scene::scene(wishes x) : homes(x.seed), w(homes.world()), wanted(std::move(x)), dice_(wanted.seed * 0x9e3779b97f4a7c15u + 1) {
  if (wanted.verbose)
    homes.on_log = [this](std::size_t i, log_level, const std::string& s) {
      std::fprintf(stderr, "%10.3f home %zu: %s\n", static_cast<double>(now_ns()) / 1e9, i, s.c_str());
    };
  draw_plan();
}

void scene::draw_plan() {
  auto below = [&](std::uint64_t n) { return dice_() % n; };
  const auto lot = below(20);
  of_shape = lot < 12 ? shape::brief : lot < 18 ? shape::upheaval : shape::refuse;
  if (wanted.shape == "brief") of_shape = shape::brief;
  if (wanted.shape == "upheaval") of_shape = shape::upheaval;
  if (wanted.shape == "refuse") of_shape = shape::refuse;
  homes_first = below(9) == 0 ? 2 : 3 + below(2);
  planned_clients_ = 3 + below(3);
  switch (of_shape) {
    case shape::brief: length_ = milliseconds(10000 + below(15000)), pause_max_ = milliseconds(40 + below(80)); break;
    case shape::upheaval: length_ = milliseconds(50000 + below(70000)), pause_max_ = milliseconds(400 + below(600)); break;
    case shape::refuse: length_ = seconds(300 + below(400)), pause_max_ = seconds(3 + below(3)); break;
  }
  for (std::size_t i = 0; i < 4; ++i) keys_.push_back("hot-" + std::to_string(i));
  const std::size_t wide = of_shape == shape::brief ? 12 : 24;
  for (std::size_t i = 0; i < wide; ++i) keys_.push_back(std::string("wide/") + "abcd"[i % 4] + "/" + std::to_string(10 + i));
  std::sort(keys_.begin(), keys_.end());
  // Not every history meets every kind: those that do not hide what the others would show.
  std::set<std::string> kinds;
  for (const auto& f : all_faults())
    if (below(3)) kinds.insert(std::string(f.name));
  auto weight = [&](const fault& f) -> std::uint64_t {
    if (!kinds.contains(std::string(f.name))) return 0;
    return of_shape == shape::brief ? f.brief : of_shape == shape::upheaval ? f.upheaval : f.refuse;
  };
  std::uint64_t sum = 0;
  for (const auto& f : all_faults()) sum += weight(f);
  const std::uint64_t pause = of_shape == shape::brief ? 4000 : static_cast<std::uint64_t>(length_ / 1ms) / 8;
  for (nanoseconds at = 500ms; sum && at < length_; at += milliseconds(100 + below(pause))) {
    std::uint64_t n = below(sum);
    for (const auto& f : all_faults()) {
      if (n < weight(f)) {
        plan_.push_back({plan_.size(), std::string(f.name), at, dice_()});
        break;
      }
      n -= weight(f);
    }
  }
  if (wanted.until) length_ = std::min(length_, *wanted.until);
}

// ------------------------------------------------------------------------------------------------- homes

std::size_t scene::add_home(std::string zone) {
  home_options o{.zone = std::move(zone)};
  o.block_size = sim_block_bytes;
  o.inline_max = 2 << 10;
  if (!wanted.mutation.empty() && wanted.mutation != "unsynced_is_shown") o.mutations = {wanted.mutation};
  const bool older = dice_() % 4 == 0;
  o.adjust = [older](storaged::node_options& n) {
    // What takes hours elsewhere takes minutes here. How long an attempt may live stays as it is: promises hang on it.
    n.store.part_size_min = 4 << 10;
    n.store.fallback_delay = 40s;
    n.store.finished_upload_kept = 60s;
    n.block.grace_period = 40s;
    n.block.scrub_period = 10min;
    n.table.merkle_interval = 30s;
    if (!older) n.protocol_version = wire::protocol_version + 1;
  };
  const std::size_t i = homes.add(std::move(o));
  homes.at(i).kv_disk.behaviour.sync = wanted.mutation != "unsynced_is_shown";
  homes.at(i).drives[0].torn = true;
  return i;
}

bool scene::begin_homes() {
  sim::line l{.delay = milliseconds(1 + dice_() % 35), .jitter = milliseconds(dice_() % 5)};
  if (dice_() % 3 == 0) l.loss = 0.01;
  w.set_all_lines(l);
  for (std::size_t i = 0; i < homes_first; ++i) add_home("zone-" + std::to_string(i));
  return homes.form();
}

std::vector<std::size_t> scene::ready_homes() const {
  std::vector<std::size_t> on;
  for (std::size_t i = 0; i < homes.size(); ++i)
    if (homes.ready(i) && !gone.contains(i) && !leaving.contains(i)) on.push_back(i);
  return on;
}

void scene::release_clients_of(std::size_t home) {
  for (std::size_t c = 0; c < clients_.size(); ++c) {
    client& x = clients_[c];
    if (!x.busy || x.home != home) continue;
    for (auto& o : x.open) {
      o->result = operation::outcome::unknown;
      o->returned = now_ns();
    }
    x.open.clear();
    x.busy = false;
    ++x.term;
    later(milliseconds(x.dice() % 100), [this, c] { step(c); });
  }
}

void scene::crash(std::size_t home, bool power_cut, nanoseconds back_after) {
  homes.at(home).kv_disk.behaviour.survive = w.below(3);
  homes.crash(home, power_cut);
  release_clients_of(home);
  if (back_after != nanoseconds::max()) later(back_after, [this, home] { start_again(home); });
}

void scene::start_again(std::size_t home) {
  if (homes.at(home).on() || gone.contains(home)) return;
  homes.start(home);
  see_it_start(home);
}

// What failed to start (its disk was full, say) is started again, as systemd does.
void scene::see_it_start(std::size_t home) {
  later(5s, [this, home] {
    if (gone.contains(home) || leaving.contains(home) || !homes.at(home).on() || homes.ready(home)) return;
    if (homes.failure(home).empty()) return see_it_start(home);
    homes.crash(home);
    start_again(home);
  });
}

task<void> scene::bring_in(scene& s, std::size_t host, std::size_t newcomer) {
  auto line = co_await s.homes.node(host).make_invite(seconds(3600), s.homes.at(host).rt().now() + 10s);
  if (!line || s.homes.at(newcomer).on() || s.gone.contains(newcomer)) co_return;
  s.w.call_at(s.w.now(), [&s, newcomer, invite = *line] {
    if (!s.homes.at(newcomer).on()) s.homes.start(newcomer, invite);
  });
}

// Looks after a newcomer until it is in: another invite when the first did not lead anywhere.
void scene::join(std::size_t newcomer) {
  arriving.insert(newcomer);
  if (gone.contains(newcomer)) return;
  if (homes.ready(newcomer)) {
    arriving.erase(newcomer);
    return;
  }
  if (homes.at(newcomer).on() && !homes.failure(newcomer).empty()) homes.crash(newcomer);
  if (!homes.at(newcomer).on()) {
    auto on = ready_homes();
    if (!on.empty()) {
      const std::size_t host = on[w.below(on.size())];
      homes.at(host).root().spawn("invite", bring_in(*this, host, newcomer));
    }
  }
  later(3s, [this, newcomer] { join(newcomer); });
}

std::string scene::restless() {
  std::string why;
  for (std::size_t i = 0; i < homes.size(); ++i) {
    if (gone.contains(i)) continue;
    const std::string who = "home " + std::to_string(i) + " ";
    if (arriving.contains(i)) why += who + "is joining; ";
    if (leaving.contains(i)) why += who + "is being taken out; ";
    if (!homes.ready(i)) {
      why += who + "is not ready" + (homes.failure(i).empty() ? "; " : ": " + homes.failure(i) + "; ");
      continue;
    }
    auto& n = homes.node(i);
    const auto t = n.tables().status();
    if (n.tables().layout().phase != layout::phase::settled) why += who + "has a layout that is not settled; ";
    if (t.hints) why += who + "has " + std::to_string(t.hints) + " hints; ";
    if (t.partitions_to_sync) why += who + "has " + std::to_string(t.partitions_to_sync) + " partitions to merge; ";
    if (t.homes_to_compare) why += who + "has homes to compare with; ";
  }
  return why;
}

bool scene::quiet() {
  if (!restless().empty()) return false;
  for (std::size_t i : ready_homes())
    if (homes.node(i).tables().layout().current.copies() != 3) return false;
  return true;
}

// ------------------------------------------------------------------------------------------------- clients

std::string scene::pick_key(const session& c) const {
  const bool hot = c.below(10) < 6;
  return hot ? "hot-" + std::to_string(c.below(4)) : keys_[4 + c.below(keys_.size() - 4)];
}

scene::op scene::begin(const session& c, const std::string& key, operation::kind what, std::uint64_t value, std::uint64_t expected) {
  auto o = std::make_shared<operation>();
  o->client = c.client;
  o->what = what;
  o->value = value;
  o->expected = expected;
  o->invoked = now_ns();
  histories[key].push_back(o);
  clients_[static_cast<std::size_t>(c.client)].open.push_back(o);
  return o;
}

void scene::end(const op& o, operation::outcome result, std::uint64_t seen) {
  auto& open = clients_[static_cast<std::size_t>(o->client)].open;
  if (std::erase(open, o) == 0) return;
  o->result = result;
  o->seen = seen;
  o->returned = now_ns();
}

void scene::wrong(std::string what) {
  if (!failed.empty()) return;
  failed = std::move(what);
  ending_ = std::min(ending_, w.now());
}

void scene::in_time(const session& c, mono_time began, nanoseconds at_most, const char* what) {
  const nanoseconds took = w.now() - began;
  if (took <= at_most + 1s) return;
  wrong(std::string(what) + " at home " + std::to_string(c.home) + " was answered " + std::to_string(took / 1ms) + " ms after it came, and had " + std::to_string(at_most / 1ms));
}

namespace {
// A changed bit need not change what a frame unpacks to.
bool holds(const bytes& file, const bytes& block, bool zstd) {
  if (!zstd) return file == block;
  bytes plain(block.size() + 1, '\0');
  const std::size_t n = ZSTD_decompress(plain.data(), plain.size(), file.data(), file.size());
  return !ZSTD_isError(n) && bytes_view(plain).substr(0, n) == block;
}
}  // namespace

void scene::check_durable(const session& c, std::uint64_t value, std::int64_t since) {
  if (!has_blocks(value) || destroyed_at >= since || rezoned_until >= since) return;
  const auto& l = c.n.tables().layout();
  if (l.newest().copies() < 3 || l.current.copies() < 3) return;
  ++counted.blocks_checked;
  for (const auto& part : parts_of(value)) {
    const std::string hex = crypto::hash_block(part).hex();
    const std::string path = hex.substr(0, 2) + "/" + hex.substr(2, 2) + "/" + hex;
    std::set<std::string> zones;
    for (std::size_t i = 0; i < homes.size(); ++i)
      for (const std::string& p : {path, path + ".zst"}) {
        const auto& files = homes.at(i).drives[0].files;
        auto file = files.find(p);
        if (gone.contains(i) || file == files.end()) continue;
        if (holds(file->second, part, p != path)) zones.insert(homes.settings(i).zone);
      }
    if (zones.size() < 2)
      return wrong("value " + std::to_string(value) + " was acknowledged at home " + std::to_string(c.home) + ", and block " + hex.substr(0, 8) + " of it is in " +
                   std::to_string(zones.size()) + " zones");
  }
}

task<void> scene::perform(scene& s, session c, const workload& what) {
  co_await what.run(s, c);
  client& x = s.clients_[static_cast<std::size_t>(c.client)];
  if (x.term != c.term) co_return;
  ASSERT(x.open.empty());
  x.busy = false;
  ++x.term;
  s.later(nanoseconds(static_cast<std::int64_t>(x.dice() % static_cast<std::uint64_t>(s.pause_max_.count()))), [&s, n = static_cast<std::size_t>(c.client)] { s.step(n); });
}

void scene::step(std::size_t n) {
  client& x = clients_[n];
  if (over() || x.busy) return;
  auto on = ready_homes();
  const workload* what = draw_workload(wanted, x.dice);
  if (on.empty() || !what) return later(100ms, [this, n] { step(n); });
  x.home = on[x.dice() % on.size()];
  x.busy = true;
  x.since = w.now();
  machine& m = homes.at(x.home);
  m.root().spawn("client", perform(*this, {*this, static_cast<int>(n), x.term, x.home, homes.node(x.home), m.rt(), x.dice}, *what));
}

// ------------------------------------------------------------------------------------------------- the course of it

std::string scene::play(tally& t) {
  if (!begin_homes()) return "the cluster did not form: " + restless();
  if (auto r = homes.make_bucket(0, bucket); !r) return "no bucket: " + r.error().to_string();
  w.run_for(1s);
  began_ = w.now();
  ending_ = began_ + length_;
  clients_.resize(std::min(planned_clients_, wanted.clients.value_or(planned_clients_)));
  for (std::size_t n = 0; n < clients_.size(); ++n) {
    clients_[n].dice.seed(wanted.seed * 1000003 + n);
    step(n);
  }
  for (const auto& s : plan_) {
    if (wanted.keep && !wanted.keep->contains(s.number)) continue;
    if (wanted.faults && !wanted.faults->contains(s.kind)) continue;
    w.call_at(began_ + s.at, [this, &s] {
      if (over()) return;
      ++counted.faults;
      std::mt19937_64 dice(s.dice);
      for (const auto& f : all_faults())
        if (f.name == s.kind) f.strike(*this, dice);
    });
  }
  w.run_until([this] { return over(); }, length_);
  std::string bad = failed.empty() ? settle() : failed;
  trace_ = w.trace();
  for (const auto& c : all_checkers())
    if (bad.empty() && (!wanted.checks || wanted.checks->contains(std::string(c.name))))
      if (bad = c.run(*this); !bad.empty()) bad = std::string(c.name) + ": " + bad;
  if (!failed.empty()) bad = failed;
  for (const auto& [key, history] : histories) {
    std::vector<operation> plain;
    for (const auto& o : history) {
      ++counted.operations;
      counted.answered += o->result == operation::outcome::done || o->result == operation::outcome::refused;
      plain.push_back(*o);
    }
    bool gave_up = false;
    std::string why = check_linearizable(std::move(plain), gave_up, key.empty() ? history_of::bucket : history_of::key);
    counted.undecided += gave_up;
    if (!why.empty() && bad.empty()) bad = (key.empty() ? "the bucket that comes and goes" : "key " + key) + " is not linearizable:\n" + why;
  }
  t = counted;
  return bad;
}

// Everything is healed: what was under way ends by its deadline, and the cluster comes to rest.
std::string scene::settle() {
  heal_all(*this);
  for (std::size_t i = 0; i < homes.size(); ++i)
    if (!gone.contains(i) && !arriving.contains(i) && !homes.at(i).on()) start_again(i);
  w.run_for(20s);
  for (std::size_t i = 0; i < homes.size(); ++i)
    if (!gone.contains(i) && !arriving.contains(i) && !homes.wait_ready(i, 120s)) return "home " + std::to_string(i) + " does not come back: " + homes.failure(i);
  // A part of 5 GiB may take its time; ours has none: a block has 30 s, and there are few.
  auto idle = [this] { return std::none_of(clients_.begin(), clients_.end(), [](const client& c) { return c.busy; }); };
  if (!w.run_until(idle, 180s)) {
    for (std::size_t n = 0; n < clients_.size(); ++n)
      if (clients_[n].busy)
        return "client " + std::to_string(n) + " waits at home " + std::to_string(clients_[n].home) + " since " + std::to_string((w.now() - clients_[n].since) / 1s) + " s, long past every deadline";
  }
  if (!w.run_until([this, next = mono_time{}, ok = false]() mutable {
        if (w.now() < next) return ok;
        next = w.now() + 1s;
        return ok = restless().empty();
      }, std::chrono::minutes(8)))
    return "the cluster does not come to rest within 8 minutes: " + restless();
  return {};
}

}  // namespace grenier::sim
