#include "table/layout_keeper.h"

#include <algorithm>

#include "table/keys.h"

namespace grenier::table {
namespace {

constexpr const char* announced_name = "table.synced";
const row_key layout_row{table_id::layout, {}, {}};

bytes synced_key(std::uint64_t version) {
  bytes k = "synced/";
  append_u64(k, version);
  return k;
}

bool has(const layout::replica_set& s, const node_id& n) { return std::find(s.begin(), s.end(), n) != s.end(); }

void set_bit(bytes& map, layout::partition p) { map[p / 8] = static_cast<char>(static_cast<unsigned char>(map[p / 8]) | (1u << (p % 8))); }

}  // namespace

bool layout_keeper::bit(bytes_view map, layout::partition p) {
  return p / 8u < map.size() && (static_cast<unsigned char>(map[p / 8]) >> (p % 8) & 1) != 0;
}

// ------------------------------------------------------------------------------------------------- what is known

task<result<void>> layout_keeper::load() {
  CO_TRY(auto raw, co_await core_.store.get(kv::family::meta, "layout"));
  if (!raw) co_return fail(errc::not_found, "this node has no layout yet");
  CO_TRY(auto s, layout::decode(*raw));
  CO_TRY(auto maps, co_await core_.store.scan(kv::family::meta, {.from = "synced/", .until = after_prefix("synced/")}));
  for (auto& e : maps)
    if (e.key.size() == 15) synced_[read_u64(bytes_view(e.key).substr(7))] = std::move(e.value);
  if (s.revision > revision()) {
    state_ = std::make_shared<layout::state>(std::move(s));
    encoded_ = std::move(*raw);
  }
  announce();
  for (auto& fn : listeners_) fn(*state_);
  co_return result<void>();
}

task<result<void>> layout_keeper::adopt_bytes(bytes encoded) {
  CO_TRY(auto s, layout::decode(encoded));
  co_return co_await adopt(std::move(s));
}

task<result<void>> layout_keeper::adopt(layout::state s, bool founding) {
  auto guard = co_await adopting_.lock("layout");
  if (known() && s.cluster != state_->cluster) co_return fail(errc::access_denied, "a layout of another cluster");
  if (known() && s.partition_count() != state_->partition_count()) co_return fail(errc::protocol, "a layout of another number of partitions");
  if (s.revision <= revision()) co_return result<void>();
  kv::batch b;
  // Which partitions of a new version this node has merged already: those of which it was a full replica before.
  std::map<std::uint64_t, bytes> maps;
  auto keep = [&](const layout::version& v) {
    if (auto at = synced_.find(v.number); at != synced_.end()) maps[v.number] = at->second;
  };
  keep(s.current);
  if (founding) maps[s.current.number] = bytes(s.partition_count() / 8, '\xff');
  if (s.next) {
    keep(*s.next);
    if (!maps.contains(s.next->number)) {
      bytes map(s.partition_count() / 8, '\0');
      if (auto before = maps.find(s.current.number); before != maps.end())
        for (std::size_t i = 0; i < s.partition_count(); ++i) {
          const auto p = static_cast<layout::partition>(i);
          if (has(s.current.replicas(p), core_.self) && has(s.next->replicas(p), core_.self) && bit(before->second, p) && may_stay(s, p)) set_bit(map, p);
        }
      maps[s.next->number] = std::move(map);
    }
  }
  for (const auto& [number, map] : maps) b.put(kv::family::meta, synced_key(number), map);
  for (const auto& [number, map] : synced_)
    if (!maps.contains(number)) b.remove(kv::family::meta, synced_key(number));
  bytes encoded = layout::encode(s);
  b.put(kv::family::meta, "layout", encoded);
  CO_TRY_VOID(co_await core_.store.commit(std::move(b)));
  // Marked while the commit was under way.
  for (const auto& [number, map] : synced_)
    if (auto at = maps.find(number); at != maps.end())
      for (std::size_t i = 0; i < std::min(map.size(), at->second.size()); ++i) at->second[i] = static_cast<char>(at->second[i] | map[i]);
  synced_ = std::move(maps);
  state_ = std::make_shared<layout::state>(std::move(s));
  encoded_ = std::move(encoded);
  core_.rt.log(log_level::info, "layout: revision " + std::to_string(revision()) +
                                    (state_->phase == layout::phase::settled  ? ", settled"
                                     : state_->phase == layout::phase::moving ? ", moving"
                                                                              : ", joint"));
  announce();
  for (auto& fn : listeners_) fn(*state_);
  changed_.wake_all();
  co_return result<void>();
}

// Whether a replica of both versions needs to merge nothing for the next one. Of three it never decides alone: whoever it decides with was
// in the same quorums, or has merged from one. Of two or one it may, and then has to know what quorums without it had taken.
bool layout_keeper::may_stay(const layout::state& s, layout::partition p) const {
  auto needs_me = [&](const layout::version& v) {
    const auto& all = v.replicas(p);
    return !layout::can_be_quorum(v, p, {core_.self}, {all.begin(), all.end()});
  };
  return s.next->replicas(p).size() > 2 || !needs_me(*s.next) || needs_me(s.current);
}

task<result<void>> layout_keeper::fetch_from(node_id from, mono_time deadline) {
  CO_TRY(auto a, co_await core::call<pb::layout_answer>(core_, from, wire::method::layout_fetch, pb::layout_request().SerializeAsString(),
                                                        {.priority = wire::priority::control, .deadline = deadline}));
  co_return co_await adopt_bytes(a.layout());
}

void layout_keeper::serve() {
  struct local {
    static task<result<wire::message>> answer(layout_keeper* k, wire::caller from) {
      if (from.by_invite) co_return fail(errc::access_denied, "a guest may only join");
      if (!k->core_.ready) co_return fail(errc::unavailable, "this node is starting");
      if (!k->known()) co_return fail(errc::not_found, "this node has no layout yet");
      pb::layout_answer a;
      a.set_layout(k->encoded_);
      co_return wire::message{a.SerializeAsString(), nullptr};
    }
  };
  core_.wire.serve(wire::method::layout_fetch, [this](wire::caller from, wire::message) { return local::answer(this, std::move(from)); });
}

// ------------------------------------------------------------------------------------------------- requests

pb::context layout_keeper::context(layout::partition p) const {
  pb::context c;
  c.set_revision(revision());
  c.set_start(core_.options.start_number);
  c.set_partition(p);
  return c;
}

std::optional<pb::refusal> layout_keeper::stale(const pb::context& c) const {
  if (c.revision() == revision()) return std::nullopt;
  pb::refusal r;
  r.set_layout(encoded_);
  return r;
}

task<result<void>> layout_keeper::catch_up(node_id sender, std::uint64_t wanted, mono_time deadline) {
  if (state_->find(sender)) {
    CO_TRY_VOID(co_await fetch_from(sender, deadline));
  } else {
    // One question at a time, whoever and how many ask.
    auto guard = co_await adopting_.lock("ask", deadline);
    if (!guard) co_return fail(errc::timed_out, "waiting for a newer layout");
    std::size_t asked = 0;
    for (const auto& n : core_.peers.by_quality(core_.peers.up_members())) {
      if (revision() >= wanted || asked == 3) break;
      if (n == core_.self || n == sender) continue;
      ++asked;
      (void)co_await fetch_from(n, std::min(deadline, core_.rt.now() + 2s));
    }
  }
  if (revision() < wanted && state_->find(sender)) co_return fail(errc::stale_layout, "the sender judges by a layout that it does not hand out");
  co_return result<void>();
}

task<result<std::optional<pb::refusal>>> layout_keeper::admit(wire::caller from, pb::context c) {
  if (!known()) co_return fail(errc::unavailable, "this node has no layout yet");
  if (c.revision() > revision() && from.node != core_.self) CO_TRY_VOID(co_await catch_up(from.node, c.revision(), from.deadline));
  if (!state_->find(from.node)) co_return fail(errc::access_denied, "node " + from.node.short_hex() + " is no member");
  if (c.partition() >= state_->partition_count()) co_return fail(errc::protocol, "there is no such partition");
  std::uint32_t& start = starts_[from.node];
  if (c.start() < start) co_return fail(errc::unavailable, "a request of an earlier start of its sender");
  start = c.start();
  co_return stale(c);
}

// ------------------------------------------------------------------------------------------------- who has merged what

bool layout_keeper::has_bit(std::uint64_t version, layout::partition p) const {
  auto at = synced_.find(version);
  return at != synced_.end() && bit(at->second, p);
}

std::uint32_t layout_keeper::counts(layout::partition p) const {
  if (core_.skips("newcomer_votes")) return state_->next ? 3 : 1;
  std::uint32_t r = has_bit(state_->current.number, p) ? 1 : 0;
  if (state_->next && has_bit(state_->next->number, p)) r |= 2;
  return r;
}

std::vector<layout::partition> layout_keeper::unsynced() const {
  std::vector<layout::partition> r;
  if (!known()) return r;
  const layout::version& v = state_->newest();
  for (std::size_t i = 0; i < v.assignment.size(); ++i) {
    const auto p = static_cast<layout::partition>(i);
    if (has(v.replicas(p), core_.self) && !has_bit(v.number, p)) r.push_back(p);
  }
  return r;
}

task<result<void>> layout_keeper::mark_synced(std::uint64_t version, std::vector<layout::partition> which) {
  auto guard = co_await adopting_.lock("layout");
  auto at = synced_.find(version);
  if (at == synced_.end()) {
    if (state_->current.number != version) co_return fail(errc::conflict, "the layout went on");
    at = synced_.emplace(version, bytes(state_->partition_count() / 8, '\0')).first;
  }
  bytes map = at->second;
  for (auto p : which) set_bit(map, p);
  kv::batch b;
  b.put(kv::family::meta, synced_key(version), map);
  CO_TRY_VOID(co_await core_.store.commit(std::move(b)));
  synced_[version] = std::move(map);
  announce();
  co_return result<void>();
}

void layout_keeper::announce() {
  std::vector<node_id> members;
  for (const auto& m : state_->current.members) members.push_back(m.node);
  if (state_->next)
    for (const auto& m : state_->next->members)
      if (!state_->current.find(m.node)) members.push_back(m.node);
  core_.peers.set_members(std::move(members), state_->removed);
  core_.peers.set_layout_revision(revision());
  bytes said;
  const std::uint64_t number = state_->newest().number;
  append_u64(said, number);
  if (auto at = synced_.find(number); at != synced_.end()) said += at->second;
  (void)core_.peers.announce(announced_name, std::move(said));
}

bool layout_keeper::said_synced(node_id n, const layout::version& v, layout::partition p) const {
  if (n == core_.self) return has_bit(v.number, p);
  auto said = core_.peers.announced(n, announced_name);
  return said && said->size() >= 8 && read_u64(*said) == v.number && bit(bytes_view(*said).substr(8), p);
}

std::set<node_id> layout_keeper::synced_of_next(layout::partition p) const {
  std::set<node_id> r;
  for (const auto& n : state_->next->replicas(p))
    if (said_synced(n, *state_->next, p) || core_.skips("newcomer_votes")) r.insert(n);
  return r;
}

std::set<node_id> layout_keeper::knowing() const {
  std::set<node_id> r;
  for (const auto& n : core_.peers.nodes())
    if (n.id == core_.self || n.info.layout_revision >= revision() || core_.skips("old_layout_dropped")) r.insert(n.id);
  return r;
}

std::set<node_id> layout_keeper::waits_for() const {
  if (!known() || state_->phase == layout::phase::settled) return {};
  return layout::waits_for(*state_, [this](layout::partition p) { return synced_of_next(p); }, knowing());
}

// ------------------------------------------------------------------------------------------------- steps

task<result<void>> layout_keeper::change(std::function<result<layout::state>(const layout::state&)> step, mono_time deadline) {
  if (!known()) co_return fail(errc::not_found, "this node has no layout yet");
  // What the judge made or found last: when the swap says yes it was chosen, when the judge refused, what it found was.
  struct seen {
    std::optional<layout::state> found, made;
  };
  auto s = std::make_shared<seen>();
  auto base = state_;
  judge j = [s, base, step, both_win = core_.skips("both_layouts_win")](const row& now) -> result<row_value> {
    s->found.reset(), s->made.reset();
    const layout::state* from = base.get();
    if (now.value.present) {
      TRY(s->found, layout::decode(now.value.row));
      if (s->found->revision > base->revision && !both_win) return fail(errc::conflict, "another change of the layout came first");
      // Equal, or the founder's first row, or a state that was handed on while its row was lost on the way: ours is chosen too.
    }
    TRY(s->made, step(*from));
    return row_value{.present = true, .row = layout::encode(*s->made), .body = nullptr};
  };
  auto r = co_await swap_(layout_row, std::move(j), {.deadline = deadline, .priority = wire::priority::control});
  if (r && s->made) co_return co_await adopt(std::move(*s->made));
  if (r.failed_with(errc::conflict) && s->found && s->found->revision > base->revision) CO_TRY_VOID(co_await adopt(std::move(*s->found)));
  if (!r) co_return fail(r.error());
  co_return result<void>();
}

// The lowest of the replicas of partition 0 that are up: one at a time is enough, two do no harm.
bool layout_keeper::drives() const {
  if (!known()) return false;
  node_id lowest;
  for (const auto& n : state_->current.replicas(0))
    if (core_.peers.up(n) && (!lowest || n < lowest)) lowest = n;
  return lowest == core_.self;
}

task<result<void>> layout_keeper::drive_once() {
  auto s = state_;
  if (s->phase == layout::phase::moving) {
    auto synced = [this](layout::partition p) { return synced_of_next(p); };
    if (!layout::to_joint(*s, synced)) co_return result<void>();
    co_return co_await change([s](const layout::state& now) -> result<layout::state> {
      // Judged by what was seen above: every partition had its quorum.
      if (now.revision != s->revision) return fail(errc::conflict, "the layout went on");
      return layout::to_joint(now, [&now](layout::partition p) {
        const auto& all = now.next->replicas(p);
        return std::set<node_id>(all.begin(), all.end());
      });
    }, core_.rt.now() + 10s);
  }
  if (s->phase == layout::phase::joint) {
    auto knows = knowing();
    if (!layout::to_settled(*s, knows)) co_return result<void>();
    co_return co_await change([s, knows](const layout::state& now) -> result<layout::state> {
      if (now.revision != s->revision) return fail(errc::conflict, "the layout went on");
      return layout::to_settled(now, knows);
    }, core_.rt.now() + 10s);
  }
  co_return result<void>();
}

// A step whose outcome its proposer never learned is found by reading the row.
task<void> layout_keeper::drive() {
  for (;;) {
    co_await changed_.wait(core_.rt.now() + 1s);
    if (!drives()) core_.status.other.mended("layout");  // somebody else does
    if (!drives() || core_.skips("layout_steps")) continue;
    if (auto r = co_await drive_once(); !r && !r.failed_with(errc::conflict)) core_.status.other.failed(core_.rt.now(), "layout", {}, "layout: " + r.error().to_string());
    else core_.status.other.mended("layout");
    if (core_.rt.now() < looked_ + 15s) continue;
    looked_ = core_.rt.now();
    auto r = co_await read_(layout_row, {.deadline = core_.rt.now() + 5s, .priority = wire::priority::background});
    if (r && r->value.present) (void)co_await adopt_bytes(r->value.row);
  }
}

task<void> layout_keeper::follow(node_id n) {
  (void)co_await fetch_from(n, core_.rt.now() + 5s);
  following_.erase(n);
}

void layout_keeper::start(compare_and_swap swap, read_row read) {
  swap_ = std::move(swap);
  read_ = std::move(read);
  core_.tasks.spawn("layout.drive", drive());
  core_.peers.on_card([this](const cluster::node& n) {
    changed_.wake_all();
    if (n.info.layout_revision > revision() && known() && n.member && following_.insert(n.id).second)
      core_.tasks.spawn("layout.follow", follow(n.id));
  });
  // Who was taken out while it was away learns it from the layout of those who refuse it.
  core_.peers.on_refused([this](node_id by) {
    if (known() && state_->find(by) && following_.insert(by).second) core_.tasks.spawn("layout.follow", follow(by));
  });
}

}  // namespace grenier::table
