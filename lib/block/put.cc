// The coordinator's writes: bytes to the two best zones, references to every home replica, all at once.
#include <algorithm>

#include "block/manager_impl.h"
#include "block/block.pb.h"

namespace grenier::block {

namespace {
// Asking first costs one round trip: worth it where it is small against sending.
constexpr double ask_first_factor = 8;
// A second copy is sent in place of one that is late only where it costs little. Over a slow line it would take its time from
// the first one; there the connection's own end is waited for.
constexpr double hedge_seconds_max = 1.5;
constexpr std::size_t items_max = 64;    // blocks a message

void fill(pb::Reference& to, const reference& r, const std::vector<node_id>& guests) {
  to.set_version(r.version.str());
  to.set_owner(r.owner);
  for (const auto& g : guests) to.add_guests(g.str());
}

double in_seconds(nanoseconds d) { return std::chrono::duration<double>(d).count(); }
}  // namespace

struct manager::impl::put_state {
  put_state(runtime& rt, task_group& g, reference r, placement p) : ref(std::move(r)), plan(std::move(p)), answers(rt, g) {}
  reference ref;
  stored form;
  std::size_t plain_bytes = 0;
  placement plan;
  fan_out<sent> answers;
  std::uint64_t newest_revision = 0;
  std::vector<std::pair<node_id, mono_time>> under_way;  // bytes on their way, since when
  error last;
  bool full = false;
};

// Until so many bytes more than those under way have arrived there: they wait for what goes out to it, and for what shares the
// way out of this house.
double manager::impl::seconds_to(node_id n, std::size_t size_bytes) const {
  auto waiting_for = [this](node_id m) {
    auto out = outstanding.find(m);
    return out == outstanding.end() ? 0.0 : static_cast<double>(out->second);
  };
  double rate = rate_to(n), waiting = waiting_for(n) / rate;
  if (!is_near(n)) {
    double all = 0;
    for (const auto& m : table.layout().newest().members)
      if (m.node != self && !is_near(m.node)) all += waiting_for(m.node);
    waiting = std::max(waiting, all / std::max(rate, way_out()));
  }
  return in_seconds(directory.rtt(n)) + waiting + static_cast<double>(size_bytes) / rate;
}

// Bytes/s of the quickest line to another house: as much as the way out is known to carry. 0: nothing is known.
double manager::impl::way_out() const {
  double best = 0;
  for (const auto& m : table.layout().newest().members)
    if (m.node != self && !is_near(m.node)) best = std::max(best, directory.rate_to(m.node));
  return best;
}

double manager::impl::rate_to(node_id n) const {
  if (double known = directory.rate_to(n); known > 0) return known;
  double rate = assumed_rate(n);
  if (is_near(n)) return rate;
  // What others send there says what its way in carries.
  double seen = 0;
  for (const auto& m : table.layout().newest().members)
    if (auto card = directory.find(m.node))
      if (auto l = card->links.find(n); l != card->links.end()) seen = std::max(seen, l->second.send_rate);
  double best = way_out();
  // A line that nobody has measured is taken for as good as the best one: so it is measured.
  if (seen <= 0) return best > 0 ? best : rate;
  return best > 0 ? std::min(best, seen) : seen;
}

std::vector<candidate> manager::impl::candidates_for(const block_hash& h, std::size_t size_bytes, layout::partition p) {
  const auto& s = table.layout();
  auto homes = s.all_replicas(p);
  std::vector<candidate> out;
  for (const auto& m : s.newest().members) {
    if (m.capacity_bytes == 0) continue;
    bool mine = m.node == self;
    if (mine ? !here.disks.has_room(size_bytes) : !directory.up(m.node)) continue;
    if (!mine)
      if (auto n = directory.find(m.node); n && n->info.space_total_bytes && n->info.space_free_bytes < size_bytes) continue;
    bool home = std::find(homes.begin(), homes.end(), m.node) != homes.end();
    candidate c{.node = m.node, .zone = m.zone, .home = home, .self = mine};
    if (!mine) {
      c.seconds = seconds_to(m.node, size_bytes);
      c.sending = static_cast<double>(size_bytes) / rate_to(m.node);
      c.late = directory.late(m.node);
    }
    out.push_back(std::move(c));
  }
  // Equals are taken in an order of their own for each block, so that guests are spread.
  std::sort(out.begin(), out.end(), [&](const candidate& a, const candidate& b) {
    return xxh3_64(a.node.view(), read_u64(h.view())) < xxh3_64(b.node.view(), read_u64(h.view()));
  });
  sort_candidates(out);
  return out;
}

task<result<void>> manager::impl::put(reference ref, shared_bytes content, mono_time deadline) {
  if (!content || content->empty() || content->size() > block_size_max) co_return fail(errc::invalid_argument, "a block has 1 byte to 4 MiB");
  if (ref.owner.size() > owner_bytes_max) co_return fail(errc::invalid_argument, "the owner of a block is too long");
  auto permit = co_await sending.acquire(content->size(), deadline);
  if (!permit) co_return fail(errc::timed_out, "waiting for memory to send a block");
  hedges_left = std::min(hedges_max, hedges_left + 0.05);
  auto form = co_await offload(rt, rt.cpu_pool(), [content, level = opt.zstd_level] { return encode(content, level); });
  if (table.layout().partition_count() == 0) co_return fail(errc::unavailable, "there is no layout yet");
  auto p = table.partition_of(ref.hash.view());
  block_hash hash = ref.hash;
  auto s = std::make_shared<put_state>(rt, group, std::move(ref), placement(table.layout(), p, candidates_for(hash, form.data->size(), p)));
  s->form = std::move(form);
  s->plan.leave_out(skips("one_zone"), skips("references_unawaited"));
  s->plain_bytes = content->size();
  s->newest_revision = table.layout().revision;
  auto r = co_await run_put(s, deadline);
  if (r) recent.add(hash, std::move(content));
  co_return r;
}

// Of every version: a zone is dark when all its homes are.
std::set<node_id> manager::impl::dark_members() const {
  std::set<node_id> dark;
  const auto& s = table.layout();
  for (const auto* v : {&s.current, s.next ? &*s.next : nullptr})
    for (std::size_t i = 0; v && i < v->members.size(); ++i)
      if (!directory.up(v->members[i].node)) dark.insert(v->members[i].node);
  return dark;
}

task<result<void>> manager::impl::run_put(std::shared_ptr<put_state> s, mono_time deadline) {
  for (;;) {
    if (s->newest_revision > table.layout().revision && !co_await know_revision(s->newest_revision, deadline))
      co_return fail(errc::timed_out, "the layout is older than that of its replicas");
    s->newest_revision = table.layout().revision;
    s->plan.set_layout(table.layout());
    s->plan.set_dark(dark_members());
    if (s->plan.durable()) co_return result<void>();
    if (rt.now() >= deadline) co_return fail(errc::timed_out, "storing block " + s->ref.hash.short_hex());
    start_sends(s, false, deadline);
    if (s->plan.hopeless())
      co_return fail(s->full && s->plan.wants_bytes() ? errc::no_space : errc::unavailable,
                     "block " + s->ref.hash.short_hex() + (s->last.detail.empty() ? ": too few zones answer" : ": " + s->last.to_string()));
    auto a = co_await s->answers.next(std::min(deadline, s->under_way.empty() ? never : rt.now() + look_every));
    if (a) {
      take(*s, std::move(a->second));
    } else if (rt.now() >= deadline) {
      co_return fail(errc::timed_out, "storing block " + s->ref.hash.short_hex());
    } else if (s->answers.outstanding() == 0) {
      co_return fail(errc::unavailable, "block " + s->ref.hash.short_hex() + ": " + s->last.to_string());
    } else if (is_late(*s)) {
      start_sends(s, true, deadline);
    }
  }
}

// One of the sends under way takes longer than its line explains, by what is known of the line now, or its home is silent.
bool manager::impl::is_late(const put_state& s) const {
  return std::any_of(s.under_way.begin(), s.under_way.end(), [&](const auto& u) {
    if (directory.late(u.first)) return true;
    double expected = 2 * seconds_to(u.first, 0);  // its bytes are under way already
    return rt.now() - u.second > directory.hedge_delay(u.first) + nanoseconds(static_cast<std::int64_t>(expected * 1e9));
  });
}

void manager::impl::start_sends(const std::shared_ptr<put_state>& state, bool hedge, mono_time deadline) {
  put_state& s = *state;
  s.plan.set_layout(table.layout());  // the one it knew may be gone since the last wait
  std::vector<candidate> targets;
  if (hedge && hedges_left >= 1) {
    if (auto c = s.plan.next_target(true, [&](const candidate& x) { return x.self || seconds_to(x.node, s.form.data->size()) <= hedge_seconds_max; })) {
      hedges_left -= 1;
      targets.push_back(*c);
    }
  }
  while (auto c = s.plan.next_target(false)) targets.push_back(*c);
  auto guests = s.plan.guests();
  for (const auto& c : targets) {
    if (c.self) {
      s.answers.start(0, store_here(state, guests, c.home, deadline));
      continue;
    }
    s.answers.start(0, send_bytes(state, c, guests, deadline));
    s.under_way.emplace_back(c.node, rt.now());
  }
  for (const auto& h : s.plan.to_be_told()) {
    s.plan.telling(h);
    s.answers.start(0, send_reference(state, h, guests, deadline));
  }
}

void manager::impl::take(put_state& s, sent a) {
  s.newest_revision = std::max(s.newest_revision, a.revision);
  if (a.bytes) std::erase_if(s.under_way, [&](const auto& u) { return u.first == a.node; });
  if (a.bytes) a.stored ? s.plan.bytes_stored(a.node) : s.plan.bytes_failed(a.node);
  if (a.referenced) s.plan.told(a.node, a.named);
  else if (!a.bytes) s.plan.not_told(a.node);
  if ((a.bytes && !a.stored) || (a.tried_reference && !a.referenced)) {
    s.last = a.why;
    s.full |= a.why == errc::no_space;
  }
}

task<manager::impl::sent> manager::impl::store_here(std::shared_ptr<put_state> s, std::vector<node_id> guests, bool home, mono_time deadline) {
  sent a{.node = self, .bytes = true, .tried_reference = home, .named = guests};
  shelf::incoming in{s->ref.hash, s->form, std::nullopt, !here.is_home(s->ref.hash)};
  if (home) in.reference = reference_item(s->ref, guests);
  auto r = co_await here.store(std::move(in), deadline);
  a.stored = r.has_value();
  a.referenced = home && r;
  if (!r) a.why = r.error();
  co_return a;
}

task<manager::impl::sent> manager::impl::send_bytes(std::shared_ptr<put_state> s, candidate to, std::vector<node_id> guests, mono_time deadline) {
  sent a{.node = to.node, .bytes = true, .tried_reference = to.home, .named = guests};
  std::size_t size = s->form.data->size();
  double rate = directory.rate_to(to.node);
  if (rate > 0 && static_cast<double>(size) / rate > ask_first_factor * in_seconds(directory.rtt(to.node))) {
    std::vector<reference> refs{s->ref};
    auto have = co_await ask_have(to.node, {0}, refs, false, guests, deadline);
    a.revision = have.revision;
    if (have.answers && have.answers->front().file && to.home) {
      // It has the very bytes, which nothing may refer to yet: once more with the reference, under the lock that frees them.
      have = co_await ask_have(to.node, {0}, std::move(refs), true, guests, deadline);
      a.revision = std::max(a.revision, have.revision);
      a.referenced = have.answers && have.answers->front().referenced;
    }
    if (have.answers && have.answers->front().file) {
      a.stored = true;
      if (to.home && !a.referenced) table.missed_by(to.node, reference_key(s->ref));
      co_return a;
    }
  }
  pb::PutRequest q;
  q.set_hash(s->ref.hash.str());
  q.set_zstd(s->form.zstd);
  q.set_revision(table.layout().revision);
  if (to.home) fill(*q.mutable_reference(), s->ref, guests);
  struct count {
    std::uint64_t& n;
    std::size_t size;
    count(std::uint64_t& to_, std::size_t s_) : n(to_), size(s_) { n += size; }
    ~count() { n -= size; }
  } counted(outstanding[to.node], size);
  auto r = co_await call(to.node, wire::method::block_put, {q.SerializeAsString(), s->form.data}, wire::priority::foreground, deadline);
  if (!r) {
    a.why = r.error();
    if (to.home) table.missed_by(to.node, reference_key(s->ref));
    co_return a;
  }
  pb::ItemAnswer answer;
  pb::ItemsAnswer all;
  if (!all.ParseFromString(r->head) || all.items_size() != 1) {
    a.why = error(errc::protocol, "an answer that cannot be read");
    co_return a;
  }
  ++n_sent;
  a.revision = all.revision();
  a.stored = all.items(0).file();
  a.referenced = to.home && all.items(0).referenced();
  co_return a;
}

task<manager::impl::sent> manager::impl::send_reference(std::shared_ptr<put_state> s, node_id to, std::vector<node_id> guests, mono_time deadline) {
  sent a{.node = to, .tried_reference = true, .named = guests};
  if (to == self) {
    shelf::question q{s->ref.hash, reference_item(s->ref, guests), false, node_id(), opt.resync_delay};
    auto r = co_await here.confirm(std::move(q), deadline);
    a.referenced = r && r->referenced;
    if (!r) a.why = r.error();
    co_return a;
  }
  pb::ItemsRequest q;
  q.set_revision(table.layout().revision);
  auto& item = *q.add_items();
  item.set_hash(s->ref.hash.str());
  fill(*item.mutable_reference(), s->ref, guests);
  auto r = co_await call(to, wire::method::block_reference, {q.SerializeAsString(), nullptr}, wire::priority::metadata, deadline);
  pb::ItemsAnswer all;
  if (!r) {
    a.why = r.error();
    table.missed_by(to, reference_key(s->ref));
  } else if (!all.ParseFromString(r->head) || all.items_size() != 1) {
    a.why = error(errc::protocol, "an answer that cannot be read");
  } else {
    a.revision = all.revision();
    a.referenced = all.items(0).referenced();
  }
  co_return a;
}

// ------------------------------------------------------------------------------------------------- references without bytes

task<manager::impl::have_answer> manager::impl::ask_have(node_id to, std::vector<std::size_t> which, std::vector<reference> refs,
                                                         bool with_reference, std::vector<node_id> guests, mono_time deadline) {
  have_answer a{.node = to, .which = std::move(which)};
  pb::ItemsRequest q;
  q.set_revision(table.layout().revision);
  q.set_verify(true);
  for (std::size_t i : a.which) {
    auto& item = *q.add_items();
    item.set_hash(refs[i].hash.str());
    if (with_reference) fill(*item.mutable_reference(), refs[i], guests);
  }
  wire::message msg{q.SerializeAsString(), nullptr};
  auto r = to == self ? co_await handle_items({.node = self, .deadline = deadline}, std::move(msg))
                      : co_await call(to, wire::method::block_have, std::move(msg), wire::priority::metadata, deadline);
  if (!r) {
    a.answers = fail(r.error());
    if (with_reference)
      for (std::size_t i : a.which) table.missed_by(to, reference_key(refs[i]));
    co_return a;
  }
  pb::ItemsAnswer all;
  if (!all.ParseFromString(r->head) || static_cast<std::size_t>(all.items_size()) != a.which.size()) {
    a.answers = fail(errc::protocol, "an answer that cannot be read");
    co_return a;
  }
  a.revision = all.revision();
  std::vector<shelf::confirmation> out;
  for (const auto& i : all.items()) out.push_back({i.referenced(), i.file(), i.live(), to_nodes(i.guests())});
  a.answers = std::move(out);
  co_return a;
}

task<result<void>> manager::impl::add_references(std::vector<reference> refs, mono_time deadline) {
  if (table.layout().partition_count() == 0) co_return fail(errc::unavailable, "there is no layout yet");
  for (std::size_t at = 0; at < refs.size(); at += items_max) {
    std::vector<reference> some(refs.begin() + static_cast<std::ptrdiff_t>(at),
                                refs.begin() + static_cast<std::ptrdiff_t>(std::min(refs.size(), at + items_max)));
    result<void> r;
    for (int attempt = 0; attempt < 3; ++attempt) {  // again when the layout changed meanwhile
      r = co_await add_references_some(some, deadline);
      if (!r.failed_with(errc::stale_layout)) break;
    }
    if (!r) co_return r;
  }
  co_return result<void>();
}

// What is known of each block while add_references asks.
struct manager::impl::asked {
  struct one {
    std::set<node_id> referenced, failed;
    std::set<std::string> zones;         // with a verified file
    std::set<node_id> guests_asked;
  };
  std::vector<one> of;
};

task<result<void>> manager::impl::add_references_some(std::vector<reference> refs, mono_time deadline) {
  std::uint64_t revision = table.layout().revision;
  asked known;
  known.of.resize(refs.size());
  fan_out<have_answer> answers(rt, group);
  std::map<node_id, std::vector<std::size_t>> by_node;
  for (std::size_t i = 0; i < refs.size(); ++i)
    for (const auto& n : table.layout().all_replicas(table.partition_of(refs[i].hash.view()))) by_node[n].push_back(i);
  for (auto& [n, which] : by_node) answers.start(0, ask_have(n, which, refs, true, {}, deadline));
  for (;;) {
    const auto& state = table.layout();
    bool all_good = true, hopeless = false;
    for (std::size_t i = 0; i < refs.size(); ++i) {
      auto p = table.partition_of(refs[i].hash.view());
      auto dark = dark_members();
      placement rules(state, p, {});
      rules.set_dark(dark);
      bool good = known.of[i].zones.size() >= rules.zones_needed();
      for (const auto* v : state.write_versions()) {
        good &= layout::is_quorum(*v, p, known.of[i].referenced, dark);
        hopeless |= !layout::can_be_quorum(*v, p, known.of[i].failed, dark);
      }
      all_good &= good;
    }
    if (all_good) co_return result<void>();
    if (state.revision != revision) co_return fail(errc::stale_layout, "the layout changed");
    if (hopeless) co_return fail(errc::unavailable, "too few replicas take the references");
    auto a = co_await answers.next(deadline);
    if (!a && answers.outstanding()) co_return fail(errc::timed_out, "asking whether blocks are there");
    if (!a) co_return fail(errc::not_found, "a block is not where it should be");
    auto& r = a->second;
    if (r.revision > table.layout().revision) (void)co_await know_revision(r.revision, deadline);
    const auto* m = table.layout().find(r.node);
    std::map<node_id, std::vector<std::size_t>> ask_guests;
    for (std::size_t k = 0; k < r.which.size(); ++k) {
      auto& one = known.of[r.which[k]];
      if (!r.answers) {
        one.failed.insert(r.node);
        continue;
      }
      const auto& c = (*r.answers)[k];
      if (c.referenced) one.referenced.insert(r.node);
      if (c.file && m) one.zones.insert(m->zone);
      // A guest named in a reference answers like a replica.
      auto homes = table.layout().all_replicas(table.partition_of(refs[r.which[k]].hash.view()));
      for (const auto& g : c.guests)
        if (std::find(homes.begin(), homes.end(), g) == homes.end() && table.layout().find(g) && one.guests_asked.insert(g).second)
          ask_guests[g].push_back(r.which[k]);
    }
    for (auto& [n, which] : ask_guests) answers.start(1, ask_have(n, which, refs, false, {}, deadline));
  }
}

task<result<void>> manager::impl::withdraw(std::vector<reference> refs, mono_time deadline) {
  if (table.layout().partition_count() == 0) co_return fail(errc::unavailable, "there is no layout yet");
  std::map<layout::partition, std::vector<table::write_item>> by_partition;
  for (const auto& r : refs) by_partition[table.partition_of(r.hash.view())].push_back(reference_item(r, {}, true));
  fan_out<result<void>> answers(rt, group);
  for (auto& [p, items] : by_partition)
    for (std::size_t at = 0; at < items.size(); at += 500) {
      std::vector<table::write_item> some(items.begin() + static_cast<std::ptrdiff_t>(at),
                                          items.begin() + static_cast<std::ptrdiff_t>(std::min(items.size(), at + 500)));
      table::op_options o;
      o.deadline = deadline;
      answers.start(p, table.merge(std::move(some), std::move(o)));
    }
  result<void> worst;
  while (auto a = co_await answers.next(deadline))
    if (!a->second) worst = fail(a->second.error());
  if (answers.outstanding()) co_return fail(errc::timed_out, "withdrawing references");
  co_return worst;
}

}  // namespace grenier::block
