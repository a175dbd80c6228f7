// Reads: from here, or from whoever has the block and the best line; several readers of one block share one fetch.
#include <algorithm>

#include "block/manager_impl.h"
#include "block/block.pb.h"

namespace grenier::block {

namespace {
constexpr std::size_t others_asked_max = 16;
}

struct manager::impl::fetch {
  explicit fetch(runtime& rt) : arrived(rt) {}
  std::optional<result<shared_bytes>> outcome;
  wait_list arrived;
};

task<result<shared_bytes>> manager::impl::get(block_hash h, wire::priority prio, mono_time deadline) {
  hedges_left = std::min(hedges_max, hedges_left + 0.05);
  for (;;) {
    if (auto b = recent.find(h)) co_return b;
    std::shared_ptr<fetch> f;
    if (auto at = fetches.find(h); at != fetches.end()) {
      f = at->second;
    } else {
      f = std::make_shared<fetch>(rt);
      fetches[h] = f;
      group.spawn("block fetch", run_fetch(h, f, prio, deadline));
    }
    while (!f->outcome)
      if (!co_await f->arrived.wait(deadline)) break;
    if (!f->outcome) co_return fail(errc::timed_out, "reading block " + h.short_hex());
    // Whoever began it had less time than this caller.
    if (f->outcome->failed_with(errc::timed_out) && rt.now() < deadline) continue;
    co_return *f->outcome;
  }
}

task<void> manager::impl::run_fetch(block_hash h, std::shared_ptr<fetch> f, wire::priority prio, mono_time deadline) {
  struct gone {
    std::map<block_hash, std::shared_ptr<fetch>>& all;
    block_hash hash;
    ~gone() { all.erase(hash); }
  };
  {
    gone g{fetches, h};
    f->outcome = co_await read_anywhere(h, prio, deadline);
  }
  if (*f->outcome) recent.add(h, **f->outcome);
  f->arrived.wake_all();
}

task<result<shared_bytes>> manager::impl::read_anywhere(block_hash h, wire::priority prio, mono_time deadline) {
  auto permit = co_await fetching.acquire(block_size_default, deadline);
  if (!permit) co_return fail(errc::timed_out, "waiting for memory to read a block");
  auto local = co_await read_here(h, deadline);
  if (local) co_return local->plain;
  if (table.layout().partition_count() == 0) co_return fail(errc::unavailable, "there is no layout yet");
  auto r = co_await fetch_hedged(h, !local.failed_with(errc::overloaded), prio, deadline);
  if (!r) {
    // The only copy that could be asked is damaged: that is more than "not there".
    if (local.failed_with(errc::corrupt) && r.failed_with(errc::not_found)) co_return fail(local.error());
    co_return fail(r.error());
  }
  // It should be here as well: it need not cross a line twice.
  if (here.is_home(h) || here.guests.contains(h)) group.spawn("block keep", keep_fetched(h, r->form));
  co_return r->plain;
}

// A disk that hangs must not keep what other homes have; nor may the reads that wait for it pile up.
task<result<block_bytes>> manager::impl::read_here(block_hash h, mono_time deadline) {
  if (!here.is_here(h)) co_return co_await here.read(h, deadline);
  if (reads_late < reads_late_max) {
    fan_out<result<block_bytes>> reading(rt, group);
    reading.start(0, here.read(h, deadline));
    if (auto a = co_await reading.next(std::min(deadline, rt.now() + disk_patience))) co_return std::move(a->second);
    ++reads_late;
    reading.drain([this](std::size_t, result<block_bytes>) { --reads_late; });
  }
  co_return fail(errc::overloaded, "the disk does not answer");
}

task<void> manager::impl::keep_fetched(block_hash h, stored form) {
  auto refs = co_await here.references_of(h);
  if (!refs || (refs->live == 0 && !here.guests.contains(h))) co_return;
  shelf::incoming in{h, std::move(form), std::nullopt, false};
  (void)co_await here.store(std::move(in), rt.now() + 60s);
}

std::vector<node_id> manager::impl::homes_of(const block_hash& h) const {
  auto homes = table.layout().all_replicas(table.partition_of(h.view()));
  std::erase(homes, self);
  return directory.by_quality(std::move(homes), cluster::reads::blocks);
}

std::vector<node_id> manager::impl::other_members(const std::set<node_id>& but) const {
  std::vector<node_id> out;
  for (const auto& m : table.layout().newest().members)
    if (m.capacity_bytes && m.node != self && !but.contains(m.node) && directory.up(m.node)) out.push_back(m.node);
  out = directory.by_quality(std::move(out));
  if (out.size() > others_asked_max) out.resize(others_asked_max);
  return out;
}

task<manager::impl::answer> manager::impl::ask_for(node_id from, block_hash h, wire::priority prio, mono_time deadline) {
  answer a{.node = from};
  pb::GetRequest q;
  q.set_hash(h.str());
  auto r = co_await call(from, wire::method::block_get, {q.SerializeAsString(), nullptr}, prio, deadline);
  if (!r) {
    a.why = r.error();
    co_return a;
  }
  pb::GetAnswer head;
  if (!head.ParseFromString(r->head)) {
    a.why = error(errc::protocol, "an answer that cannot be read");
    co_return a;
  }
  a.answered = true;
  a.corrupt = head.corrupt();
  a.guests = to_nodes(head.guests());
  if (!head.found()) co_return a;
  stored form{head.zstd(), r->body};
  auto plain = co_await offload(rt, rt.cpu_pool(), [form, h] { return decode(form, h); });
  if (!plain) {
    a.corrupt = true;
    a.why = plain.error();
    rt.log(log_level::warning, from.short_hex() + " sent bytes that are not those of block " + h.short_hex());
    co_return a;
  }
  ++n_received;
  a.found = true;
  a.block = {std::move(form), std::move(*plain)};
  co_return a;
}

// One after the other, the next as soon as one says no or is slower than it uses to be: homes, the guests they name, anybody.
task<result<block_bytes>> manager::impl::fetch_hedged(block_hash h, bool not_here, wire::priority prio, mono_time deadline) {
  auto queue = homes_of(h);
  std::deque<node_id> todo_nodes(queue.begin(), queue.end());
  std::set<node_id> asked_nodes{self};
  auto homes = table.layout().all_replicas(table.partition_of(h.view()));
  std::set<node_id> said_no;
  if (std::find(homes.begin(), homes.end(), self) != homes.end()) {
    if (not_here) said_no.insert(self);
    if (auto refs = co_await here.references_of(h))
      for (const auto& g : refs->guests) todo_nodes.push_back(g);
  }
  if (auto at = told_of.find(h); at != told_of.end()) todo_nodes.insert(todo_nodes.end(), at->second.begin(), at->second.end());
  fan_out<answer> answers(rt, group);
  bool widened = false, corrupt = false;
  error last(errc::unavailable, "nobody could be asked");
  auto ask_next = [&]() -> std::optional<node_id> {
    for (;;) {
      if (todo_nodes.empty() && !widened && answers.outstanding() == 0) {
        widened = true;
        auto more = other_members(asked_nodes);
        todo_nodes.assign(more.begin(), more.end());
      }
      if (todo_nodes.empty()) return std::nullopt;
      node_id n = todo_nodes.front();
      todo_nodes.pop_front();
      if (!asked_nodes.insert(n).second || !table.layout().find(n)) continue;
      answers.start(0, ask_for(n, h, prio, deadline));
      return n;
    }
  };
  mono_time hedge_at = never;
  std::set<node_id> under_way, missed;
  auto begin = [&] {
    auto n = ask_next();
    hedge_at = never;
    if (!n) return false;
    under_way.insert(*n);
    double rate = rate_from(*n), seconds = block_size_default / (rate > 0 ? rate : assumed_rate(*n));
    hedge_at = rt.now() + directory.hedge_delay(*n) + nanoseconds(static_cast<std::int64_t>(1.5e9 * seconds));
    return true;
  };
  begin();
  for (;;) {
    auto a = co_await answers.next(std::min({deadline, hedge_at, rt.now() + look_every}));
    if (!a && rt.now() >= deadline) co_return fail(errc::timed_out, "reading block " + h.short_hex());
    if (!a && answers.outstanding() == 0) break;
    if (!a) {
      if (rt.now() < hedge_at && !std::all_of(under_way.begin(), under_way.end(), [&](const auto& n) { return directory.late(n); })) continue;
      for (const auto& n : under_way)
        if (missed.insert(n).second) directory.read_missed(n, cluster::reads::blocks);
      hedge_at = never;
      if (hedges_left >= 1 && prio != wire::priority::background && begin()) hedges_left -= 1;
      continue;
    }
    auto& r = a->second;
    under_way.erase(r.node);
    if (r.answered && !missed.contains(r.node)) directory.read_answered(r.node, cluster::reads::blocks);
    if (r.found) co_return std::move(r.block);
    corrupt |= r.corrupt;
    if (r.answered) said_no.insert(r.node);
    else last = r.why;
    for (const auto& g : r.guests) todo_nodes.push_front(g);
    begin();
  }
  const auto& s = table.layout();
  bool sure = layout::is_quorum(s.current, table.partition_of(h.view()), said_no, {});
  if (corrupt) co_return fail(errc::corrupt, "no intact copy of block " + h.short_hex() + " answers");
  if (sure) co_return fail(errc::not_found, "block " + h.short_hex());
  co_return fail(errc::unavailable, "block " + h.short_hex() + ": " + last.to_string());
}

}  // namespace grenier::block
