#include "table/register_world.h"

#include <algorithm>
#include <bit>

namespace grenier::table {
namespace {

client* asking = nullptr;  // whose operation is being called: clocks and attempt numbers are its own

bool majority(replica_mask of, replica_mask m) { return std::popcount(m & of) * 2 > std::popcount(of); }

void mix(std::uint64_t& h, std::uint64_t v) { h = (std::rotl(h, 23) ^ v) * 0x9e3779b97f4a7c15; }
void mix(std::uint64_t& h, const ballot& b) { mix(h, b.time.value << 16 ^ b.node << 4 ^ b.start); }
void mix(std::uint64_t& h, const attempt_id& a) { mix(h, std::uint64_t{a.data()[0]} << 8 | a.data()[1]); }
void mix(std::uint64_t& h, const bytes& b) { mix(h, b.empty() ? 0 : static_cast<std::uint64_t>(b[0]) + 256 * b.size()); }

std::uint64_t hash_of(const std::vector<past_accept>& v) {
  std::uint64_t h = v.size();
  for (const auto& p : v) mix(h, p.attempt), mix(h, p.at);
  return h;
}

std::uint64_t hash_of(const answer& a) {
  std::uint64_t h = a.yes;
  mix(h, a.promised), mix(h, a.accepted), mix(h, a.attempt), mix(h, a.value), mix(h, hash_of(a.recent)), mix(h, a.forgot);
  return h;
}

std::uint64_t hash_of(const packet& p) {
  std::uint64_t h = static_cast<std::uint64_t>(p.from + 1);
  mix(h, p.round * 64ULL + p.replica * 8ULL + static_cast<std::uint64_t>(p.what) * 2 + p.reply);
  mix(h, p.at), mix(h, p.attempt), mix(h, p.value), mix(h, p.reply ? hash_of(p.answer) : 0);
  return h;
}

}  // namespace

struct register_inspector {
  static std::uint64_t hash(const operation& o) {
    std::uint64_t h = static_cast<std::uint64_t>(o.phase_);
    mix(h, o.round_), mix(h, o.tries_ * 16 + o.silences_), mix(h, o.seen_), mix(h, o.first_), mix(h, o.stuck_), mix(h, o.at_), mix(h, o.attempt_);
    mix(h, o.sending_.packed), mix(h, o.yes_ << 16 ^ o.no_ << 8 ^ o.silent_);
    std::uint64_t sum = 0;  // in any order
    for (const auto& s : o.said_) {
      std::uint64_t x = hash_of(s.answer);
      mix(x, s.who), sum += x;
    }
    for (const auto& t : o.traces_) {
      std::uint64_t x = t.round;
      mix(x, t.what.attempt), mix(x, t.what.at), mix(x, t.unsent << 24 ^ t.to << 16 ^ t.yes << 8 ^ t.never), sum += x;
    }
    mix(h, sum), mix(h, static_cast<std::uint64_t>(o.outcome_.what)), mix(h, o.outcome_.value.packed);
    return h;
  }
};

world::world(scene s) : where(s) {
  const std::size_t n = s == scene::one ? 1 : s == scene::two ? 2 : s == scene::three ? 3 : 5;
  cells.resize(n);
  revisions.assign(n, 0);
  merged_from.assign(n, 0);
}

void world::add(op_kind k, char value, char expected, std::uint64_t clock) {
  client c;
  c.kind = k, c.value = value, c.expected = expected, c.clock = clock;
  clients.push_back(std::move(c));
}

replica_mask world::write_mask(std::uint8_t r) const { return r == 0 ? old_version : r == 3 ? new_version : old_version | new_version; }

std::shared_ptr<const terms> world::terms_for(std::size_t i) const {
  const client& c = clients[i];
  auto t = std::make_shared<terms>();
  if (where == scene::one) {
    *t = majority_of(1);
  } else if (where == scene::three) {
    *t = majority_of(3);
  } else if (where == scene::two) {
    t->replicas = 3;
    t->is_quorum = t->is_read_quorum = [dark = c.dark](replica_mask m) { return (m & 1) && (m & 2 || *dark); };
    t->may_be_quorum = [](replica_mask m) { return (m & 1) != 0; };
  } else {
    const std::uint8_t r = where == scene::joint ? 2 : c.revision;
    const replica_mask v = r == 3 ? new_version : old_version, w = r == 0 ? old_version : new_version;
    t->replicas = where == scene::joint ? old_version | new_version : write_mask(r);
    auto both = [v, w](replica_mask m) { return majority(v, m) && majority(w, m); };
    auto old_alone = [v](replica_mask m) { return majority(v, m); };
    t->is_quorum = both;
    t->is_read_quorum = both;
    if (r == 1) t->is_read_quorum = old_alone;
    if (r == 1 && lax_moving_reads && c.kind == op_kind::read) t->is_quorum = old_alone;
    t->may_be_quorum = [v, w](replica_mask m) { return majority(v, m) || majority(w, m); };
  }
  t->fresh_ballot = [i](const ballot& above) {
    return make_ballot({std::max(above.time.value + 1, asking->clock)}, i + 1, 0);
  };
  t->fresh_attempt = [i] {
    attempt_id a;
    a.data()[0] = static_cast<std::uint8_t>(i + 1);
    a.data()[1] = ++asking->attempts;
    return a;
  };
  t->tries_max = tries_max;
  t->mutations = mutations;
  return t;
}

void world::begin(std::size_t i) {
  client& c = clients[i];
  c.begun = ++events;
  c.revision = where == scene::changing && revision ? static_cast<std::uint8_t>(revision - (i & 1)) : std::uint8_t{0};  // some are late to know
  auto t = terms_for(i);
  register_value v{bytes(1, c.value), nullptr};
  if (c.kind == op_kind::read) c.op = operation::read(t);
  if (c.kind == op_kind::write) c.op = operation::write(t, v);
  if (c.kind == op_kind::swap)
    c.op = operation::compare_and_swap(t, [v, expected = c.expected](const ballot&, const register_value& now) -> result<register_value> {
      if ((now.packed.empty() ? '\0' : now.packed[0]) != expected) return fail(errc::condition_failed);
      return v;
    });
  asking = &c;
  perform(i, c.op->start());
}

void world::perform(std::size_t i, const action& a) {
  client& c = clients[i];
  if (a.what == action::kind::pause) c.paused = true;
  if (a.what == action::kind::end) {
    ASSERT(c.op->ended());
    c.ended = ++events;
  }
  if (a.what != action::kind::send) return;
  c.paused = false;
  for (std::size_t r = 0; r < cells.size(); ++r)
    if (a.to & replica_mask{1} << r)
      net.push_back({.from = static_cast<int>(i), .round = a.round, .replica = static_cast<std::uint8_t>(r), .what = a.request,
                     .revision = c.revision, .at = a.at, .attempt = a.attempt, .value = a.value ? a.value->packed : bytes{}});
}

void world::at_replica(const packet& q) {
  packet p{.from = q.from, .round = q.round, .replica = q.replica, .what = q.what, .reply = true};
  auto& known = revisions[q.replica];
  known = std::max(known, q.revision);
  p.revision = known;
  p.refused = q.revision < known;
  p.unsynced = !(synced >> q.replica & 1) && known >= 2;
  cell& c = cells[q.replica];
  if (!p.refused) {
    if (q.what == request::accept) p.answer = accept(c, q.at, q.attempt, q.value, mutations).answer;
    if (q.what == request::prepare) p.answer = prepare(c, q.at).answer;
    if (q.what == request::read) p.answer = read(c);
  }
  if (q.from >= 0) net.push_back(std::move(p));
}

void world::deliver(std::size_t n) {
  const packet p = std::move(net[n]);
  net.erase(net.begin() + static_cast<std::ptrdiff_t>(n));
  if (!p.reply) return at_replica(p);
  const auto i = static_cast<std::size_t>(p.from);
  client& c = clients[i];
  if (!c.running()) return;
  asking = &c;
  if (p.refused) {
    perform(i, c.op->on_silent(p.round, p.replica, delivery::none));
    if (!c.running() || p.revision <= c.revision) return;
    c.revision = p.revision;
    return perform(i, c.op->rebase(terms_for(i)));
  }
  // What a newcomer holds tells nothing, and it takes what one with rows would refuse: it counts only while the old version guards.
  if (p.unsynced && !newcomers_count && c.revision == 3) return perform(i, c.op->on_silent(p.round, p.replica, delivery::unsure));
  perform(i, c.op->on_answer(p.round, p.replica, p.answer));
}

void world::lose(std::size_t n) {
  const packet p = std::move(net[n]);
  net.erase(net.begin() + static_cast<std::ptrdiff_t>(n));
  if (p.reply || p.from < 0) return;
  const auto i = static_cast<std::size_t>(p.from);
  asking = &clients[i];
  if (clients[i].running()) perform(i, clients[i].op->on_silent(p.round, p.replica, delivery::none));
}

void world::silence(std::size_t i, std::size_t r, delivery d) {
  asking = &clients[i];
  perform(i, clients[i].op->on_silent(clients[i].op->round(), r, d));
}

void world::resume(std::size_t i) {
  asking = &clients[i];
  perform(i, clients[i].op->resume());
}

void world::toggle_dark(std::size_t i) {
  asking = &clients[i];
  *clients[i].dark = !*clients[i].dark;
  if (clients[i].running()) perform(i, clients[i].op->reconsider());
}

void world::give_up(std::size_t i) {
  asking = &clients[i];
  perform(i, clients[i].op->give_up());
}

void world::gossip(std::size_t from, std::size_t to) {
  const cell& f = cells[from];
  if (!f.accepted || revisions[from] < revisions[to]) return;
  net.push_back({.from = -1, .replica = static_cast<std::uint8_t>(to), .what = request::accept, .revision = revisions[from], .at = f.accepted,
                 .attempt = f.attempt, .value = f.accepted_value});
}

void world::forget(std::size_t r) {
  for (const auto& p : cells[r].recent) cells[r].forgot = std::max(cells[r].forgot, p.at);
  cells[r].recent.clear();
}

// A change of layout as the layout's rules have it: moving when somebody decides; joint when a quorum of the new version is synced
// in every partition; settled when those of the old version that do not know of the joint cannot form a quorum.
bool world::step_layout(dice& d) {
  if (revision == 0) {
    revision = 1;
  } else if (revision == 1 && majority(new_version, synced)) {
    revision = 2;
  } else if (revision == 2) {
    replica_mask unaware = 0;
    for (std::size_t r = 0; r < cells.size(); ++r)
      if (revisions[r] < 2) unaware |= replica_mask{1} << r;
    if (!majority(old_version, unaware)) revision = 3;
  }
  const auto r = static_cast<std::size_t>(d.below(cells.size()));
  if (d.one_in(2)) {
    revisions[r] = std::max(revisions[r], revision);
    return true;
  }
  // A newcomer merges the row of one of the old ones, both knowing of the change.
  const auto from = static_cast<std::size_t>(d.below(3));
  if (synced >> r & 1 || revision == 0 || revision == 3) return false;
  revisions[r] = revisions[from] = std::max({revisions[r], revisions[from], std::uint8_t{1}});
  merge(cells[r], cells[from], true);
  merged_from[r] |= replica_mask{1} << from;
  if (majority(old_version, merged_from[r])) synced |= replica_mask{1} << r;
  return true;
}

// ---------------------------------------------------------------------------------------------- what was seen

namespace {

// Is there an order of these operations, each between its begin and its end, in which a single register behaves so?
struct order {
  const std::vector<client>& all;
  bool search(std::uint32_t left, char state) const {
    bool must = false;
    int first_end = 1 << 30;
    for (std::size_t i = 0; i < all.size(); ++i)
      if (left >> i & 1 && all[i].ended >= 0 && all[i].what() != outcome::kind::unknown) {
        must = true;
        first_end = std::min(first_end, all[i].ended);
      }
    if (!must) return true;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!(left >> i & 1) || all[i].begun > first_end) continue;
      char now = state;
      if (fits(all[i], now) && search(left & ~(1U << i), now)) return true;
    }
    return false;
  }
  static bool fits(const client& c, char& state) {
    const bool sure = c.ended >= 0 && c.what() != outcome::kind::unknown;
    if (c.kind == op_kind::read) return c.result() == state;
    if (c.kind == op_kind::swap && sure && c.what() == outcome::kind::refused) return c.result() == state && state != c.expected;
    if (c.kind == op_kind::swap && state != c.expected) return false;
    if (sure && c.result() != c.value) return false;
    state = c.value;
    return true;
  }
};

}  // namespace

bool world::linearizable() const {
  std::uint32_t left = 0;
  for (std::size_t i = 0; i < clients.size(); ++i) {
    const client& c = clients[i];
    if (!c.op || (c.kind == op_kind::read && (c.ended < 0 || c.what() != outcome::kind::done))) continue;
    if (c.ended >= 0 && c.what() == outcome::kind::unavailable) continue;  // promised to leave no trace
    left |= 1U << i;
  }
  return order{clients}.search(left, '\0');
}

std::uint64_t world::hash() const {
  std::uint64_t h = 1, sum = 0;
  for (const auto& c : cells) mix(h, c.promised), mix(h, c.accepted), mix(h, c.attempt), mix(h, hash_of(c.recent)), mix(h, c.forgot);
  for (const auto& p : net) sum += hash_of(p);
  mix(h, sum);
  for (const auto& c : clients) {
    mix(h, static_cast<std::uint64_t>(c.begun + 1) << 16 | static_cast<std::uint64_t>(c.ended + 1));
    if (!c.op) continue;
    const auto told = c.ended < 0 ? 0 : static_cast<std::uint64_t>(c.what()) * 256 + static_cast<std::uint8_t>(c.result());
    mix(h, c.ended < 0 ? register_inspector::hash(*c.op) : told);
  }
  return h;
}

std::string world::tell() const {
  static constexpr const char* kinds[] = {"write", "read", "swap"};
  static constexpr const char* ends[] = {"done", "refused", "unavailable", "unknown"};
  std::string s;
  auto name = [](char c) { return c ? std::string(1, c) : std::string("-"); };
  for (const auto& c : clients) {
    if (!c.op) continue;
    s += std::string("\n  ") + kinds[static_cast<int>(c.kind)] + (c.kind == op_kind::read ? "" : " " + name(c.value));
    if (c.kind == op_kind::swap) s += " if " + name(c.expected);
    s += ": " + std::to_string(c.begun) + "..";
    s += (c.ended < 0 ? "" : std::to_string(c.ended) + " " + ends[static_cast<int>(c.what())] + " " + name(c.result()));
  }
  return s;
}

}  // namespace grenier::table
