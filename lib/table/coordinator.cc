#include "table/coordinator.h"

#include <algorithm>

#include "table/run.h"

namespace grenier::table {

coordinator::coordinator(core& c, layout_keeper& l, replica& r, copies& co)
    : core_(c), layout_(l), replica_(r), copies_(co), mutations_(mutations_named(c.options.mutations)), liveness_changed_(c.rt), clock_judged_(c.rt) {}

void coordinator::start() {
  liveness_at_ = core_.rt.now();
  core_.peers.on_liveness([this](node_id, bool) {
    ++liveness_;
    liveness_at_ = core_.rt.now();
    liveness_changed_.wake_all();
  });
}

// ------------------------------------------------------------------------------------------------- who decides

std::set<node_id> coordinator::view::of(replica_mask m) const {
  std::set<node_id> r;
  for (std::size_t i = 0; i < replicas.size(); ++i)
    if (m >> i & 1) r.insert(replicas[i]);
  return r;
}

// Of two homes, the one that has not merged its rows yet is not waited for either.
std::set<node_id> coordinator::view::dark() const {
  std::set<node_id> r;
  for (std::size_t i = 0; i < replicas.size(); ++i)
    if (!owner->core_.peers.up(replicas[i]) || !votes(i)) r.insert(replicas[i]);
  return r;
}

// A newcomer knows neither what a quorum holds nor refuses what is older: where its version decides alone, it has no vote.
bool coordinator::view::votes(std::size_t replica) const {
  return layout->phase != layout::phase::settled || (counts[replica] & 1) != 0;
}

bool coordinator::view::read_by(std::size_t replica) const {
  for (const auto* v : layout->read_versions()) {
    const auto& all = v->replicas(p);
    if ((counts[replica] & (v == &layout->current ? 1 : 2)) && std::find(all.begin(), all.end(), replicas[replica]) != all.end()) return true;
  }
  return false;
}

bool coordinator::view::quorum(replica_mask m) const {
  const auto who = of(m), down = dark();
  if (layout->current.copies() == 2 && m && !down.empty() && owner->core_.skips("either_goes_on")) return true;
  for (const auto* v : layout->write_versions()) {
    if (v != &layout->current && owner->core_.skips("write_old_layout")) continue;
    if (!layout::is_quorum(*v, p, who, down)) return false;
  }
  return true;
}

// Whoever has not merged the partition for a version does not count in what is read of it.
bool coordinator::view::read_quorum(replica_mask m) const {
  const auto down = dark();
  if (layout->next && owner->core_.skips("read_wrong_layout")) return layout::is_quorum(*layout->next, p, of(m), down);
  if (layout->current.copies() == 2 && m && !down.empty() && owner->core_.skips("either_goes_on")) return true;
  for (const auto* v : layout->read_versions()) {
    const std::uint32_t bit = v == &layout->current ? 1 : 2;
    replica_mask counting = 0;
    for (std::size_t i = 0; i < replicas.size(); ++i)
      if ((m >> i & 1) && (counts[i] & bit)) counting |= replica_mask{1} << i;
    if (!layout::is_quorum(*v, p, of(counting), down)) return false;
  }
  return true;
}

bool coordinator::view::maybe_quorum(replica_mask m) const {
  const auto who = of(m);
  const std::set<node_id> all(replicas.begin(), replicas.end());
  for (const auto* v : layout->write_versions())
    if (layout::is_quorum(*v, p, who, all)) return true;
  return false;
}

std::shared_ptr<coordinator::view> coordinator::look(layout::partition p, const view* before) const {
  auto v = std::make_shared<view>();
  v->owner = this;
  v->layout = layout_.snapshot();
  v->p = p;
  if (before) v->replicas = before->replicas;
  for (const auto& n : v->layout->all_replicas(p))
    if (std::find(v->replicas.begin(), v->replicas.end(), n) == v->replicas.end() && v->replicas.size() < 32) v->replicas.push_back(n);
  v->counts.resize(v->replicas.size(), 3);  // until they say otherwise
  return v;
}

std::shared_ptr<const terms> coordinator::terms_of(std::shared_ptr<view> v) {
  auto t = std::make_shared<terms>();
  const auto all = v->layout->all_replicas(v->p);
  for (std::size_t i = 0; i < v->replicas.size(); ++i)
    if (std::find(all.begin(), all.end(), v->replicas[i]) != all.end()) t->replicas |= replica_mask{1} << i;
  t->is_quorum = [v](replica_mask m) { return v->quorum(m); };
  t->is_read_quorum = [v](replica_mask m) { return v->read_quorum(m); };
  t->may_be_quorum = [v](replica_mask m) { return v->maybe_quorum(m); };
  t->fresh_ballot = [this](const ballot& above) { return fresh_ballot(above); };
  t->fresh_attempt = [this] { return core_.rt.random().make_id<attempt_id>(); };
  t->mutations = core_.options.mutations.empty() ? nullptr : &mutations_;
  return t;
}

ballot coordinator::fresh_ballot(const ballot& above) {
  (void)core_.clock.observe(above.time);
  auto fresh = next_time();
  while (ahead_.contains({fresh.first, fresh.second.value})) fresh = next_time();
  auto [era, t] = fresh;
  ahead_.erase(ahead_.lower_bound({era, 0}), ahead_.lower_bound({era, t.value}));
  if (t <= above.time) {  // somebody's clock is far ahead: just above it, and never the same time twice
    t.value = above.time.value + 1;
    while (ahead_.contains({era, t.value})) ++t.value;
    ahead_.insert({era, t.value});
  }
  return make_ballot(t, read_u64(core_.self.view()), core_.options.start_number | era << 27);
}

// When this home's clock was set back by more than others would take, its times begin anew there: as another era, so that no ballot is given
// twice. Each era's times only grow, and one that the clock has caught up with goes on.
std::pair<std::uint32_t, hlc_time> coordinator::next_time() {
  const hlc_time t = core_.clock.now(), wall = hlc_time::from_ms(core_.rt.wall_ms());
  if (!core_.clock.too_far_ahead(t)) return {0, t};
  for (std::uint32_t i = 0; i < eras_max; ++i) {
    if (i == eras_.size()) eras_.push_back({});
    const hlc_time next = std::max(wall, hlc_time{eras_[i].value + 1});
    if (!core_.clock.too_far_ahead(next)) return {i + 1, eras_[i] = next};
  }
  return {0, t};
}

bool coordinator::enough_up(const view& v) const {
  replica_mask up = 0;
  for (std::size_t i = 0; i < v.replicas.size(); ++i)
    if (core_.peers.up(v.replicas[i])) up |= replica_mask{1} << i;
  return v.quorum(up);
}

// Homes that are known to be down may come back in a moment; beyond that nobody is kept waiting.
task<result<void>> coordinator::wait_for_enough(layout::partition p, mono_time deadline) {
  if (!layout_.known()) co_return fail(errc::unavailable, "this node has no layout yet");
  if (deadline == never) co_return fail(errc::invalid_argument, "an operation without a deadline");
  const mono_time until = std::min(deadline, core_.rt.now() + 1s);
  while (!enough_up(*look(p))) {
    if (core_.rt.now() >= until) co_return fail(errc::unavailable, "too few homes are up");
    co_await liveness_changed_.wait(until);
  }
  co_return result<void>();
}

pb::context coordinator::context(const view& v, const std::optional<fence>& f) const {
  pb::context c;
  c.set_revision(v.layout->revision);
  c.set_start(core_.options.start_number);
  c.set_partition(v.p);
  if (f) {
    c.mutable_judged_by()->set_table(static_cast<std::uint32_t>(f->table));
    c.mutable_judged_by()->set_key(f->key);
    c.mutable_judged_by()->set_seen(f->seen.encode());
  }
  return c;
}

// A hedge is a request made twice: one in twenty may be.
bool coordinator::hedge_allowed() {
  if (hedges_ < 1) return false;
  hedges_ -= 1;
  return true;
}

// ------------------------------------------------------------------------------------------------- messages

task<result<pb::register_answers>> coordinator::ask_here(wire::method m, std::shared_ptr<const bytes> raw, mono_time deadline) {
  const auto me = replica_.local(deadline);
  if (m == wire::method::table_read) {
    pb::read_request q;
    if (!q.ParseFromString(*raw)) co_return fail(errc::internal);
    co_return co_await replica_.read(me, std::move(q));
  }
  if (m == wire::method::table_prepare) {
    pb::prepare_request q;
    if (!q.ParseFromString(*raw)) co_return fail(errc::internal);
    co_return co_await replica_.prepare(me, std::move(q));
  }
  pb::accept_request q;
  if (!q.ParseFromString(*raw)) co_return fail(errc::internal);
  co_return co_await replica_.accept(me, std::move(q));
}

task<coordinator::heard> coordinator::ask(node_id to, std::uint32_t round, std::uint64_t revision, wire::method m,
                                          std::shared_ptr<const bytes> request, wire::call_options o) {
  heard h{round, revision, {}};
  const bool carries_ballot = m != wire::method::table_read;
  if (to != core_.self) {
    const mono_time good = core_.rt.now() + 2 * core_.peers.hedge_delay(to) + 20ms;
    h.answers = co_await core::call<pb::register_answers>(core_, to, m, *request, o);
    if (h.answers && !carries_ballot && core_.rt.now() <= good) core_.peers.read_answered(to, cluster::reads::rows);
    if (h.answers) judge_clock(to, *h.answers);
    co_return h;
  }
  if (carries_ballot && !clock_proved()) {
    if (auto ok = co_await prove_clock(o.deadline); !ok) {
      h.answers = fail(ok.error());
      co_return h;
    }
  }
  h.answers = co_await ask_here(m, std::move(request), o.deadline);
  co_return h;
}

// ------------------------------------------------------------------------------------------------- this home's clock

static std::int64_t wall_less_steady_ms(runtime& rt) {
  return static_cast<std::int64_t>(rt.wall_ms()) - std::chrono::duration_cast<milliseconds>(rt.now().time_since_epoch()).count();
}

bool coordinator::clock_proved() const {
  return proved_ms_ && std::abs(wall_less_steady_ms(core_.rt) - *proved_ms_) < hybrid_clock::ahead_max.count() / 2;
}

std::size_t coordinator::others_up() const {
  std::size_t n = 0;
  if (layout_.known())
    for (const auto& m : layout_.state().current.members) n += m.node != core_.self && core_.peers.up(m.node);
  return n;
}

void coordinator::judge_clock(node_id by, const pb::register_answers& a) {
  if (a.wall_ms() == 0) return;
  // A time that it took proves nothing: merge rows have none, and what is written back has another home's.
  const bool doubted = core_.rt.wall_ms() > a.wall_ms() + static_cast<std::uint64_t>(hybrid_clock::ahead_max.count()) / 2;
  if (doubted) {
    if (clock_proved() || !doubters_.insert(by).second) return;  // the other one's may be wrong
  } else {
    doubters_.clear();
    proved_ms_ = wall_less_steady_ms(core_.rt);
  }
  clock_judged_.wake_all();
}

// Waits for another home's word, for a second: whoever is alone goes on.
task<result<void>> coordinator::prove_clock(mono_time deadline) {
  const mono_time until = std::min(deadline, core_.rt.now() + 1s);
  doubters_.clear();
  for (;;) {
    const std::size_t others = others_up();
    if (clock_proved() || others == 0) co_return result<void>();
    const bool over = core_.rt.now() >= until;
    if (!doubters_.empty() && (over || doubters_.size() >= std::min<std::size_t>(others, 2)))
      co_return fail(errc::clock_skew, "this home's clock is far ahead of the others': set it right");
    if (over) co_return result<void>();
    co_await clock_judged_.wait(until);
  }
}

coordinator::run_ptr coordinator::begin(operation op, row_key key, layout::partition p, std::shared_ptr<view> v, const op_options& o) const {
  auto r = std::make_shared<run>(core_.rt, core_.tasks, std::move(op));
  r->key = std::move(key);
  r->p = p;
  r->v = std::move(v);
  r->deadline = o.deadline;
  r->priority = o.priority;
  r->judged_by = o.fence;
  r->with_body = o.with_body;
  r->began = core_.rt.now();
  r->liveness = liveness_;
  return r;
}

task<bool> coordinator::perform_one(run_ptr r, action a) {
  co_await perform(std::move(r), std::move(a));
  co_return true;
}

task<void> coordinator::perform(run_ptr r, action a) {
  for (;;) {
    switch (a.what) {
      case action::kind::end: co_return;
      case action::kind::send: a = co_await send(r, std::move(a)); break;
      case action::kind::pause: a = co_await pause(r, std::move(a)); break;
      case action::kind::wait: a = co_await wait(r); break;
    }
  }
}

task<action> coordinator::pause(run_ptr r, action a) {
  const mono_time now = core_.rt.now();
  if (!enough_up(*r->v)) {
    const mono_time until = std::min(r->deadline, std::max(r->began, now - 1s) + 1s);
    if (now >= until) co_return r->op.give_up();
    co_await liveness_changed_.wait(until);
    co_return r->op.resume();
  }
  // Contenders draw lots.
  const auto limit = static_cast<std::uint64_t>(nanoseconds(5ms).count()) << std::min(a.tries, 6u);
  const mono_time until = now + 1ms + nanoseconds(static_cast<std::int64_t>(core_.rt.random().below(limit)));
  if (until >= r->deadline) co_return r->op.give_up();
  co_await sleep_until(core_.rt, until);
  co_return r->op.resume();
}

task<action> coordinator::wait(run_ptr r) {
  for (;;) {
    const mono_time now = core_.rt.now();
    if (now >= r->deadline) co_return r->op.give_up();
    if (now >= r->hedge_at) {
      r->hedge_at = never;
      for (const auto& n : r->v->of(r->unheard)) core_.peers.read_missed(n, cluster::reads::rows);
      if (hedge_allowed()) ask_next(*r);
    }
    if (r->out.outstanding() == 0 && !r->out_has_answers() && !ask_next(*r)) {
      // Nobody is left to answer; only a change of who is up can help.
      if (r->liveness == liveness_) co_await liveness_changed_.wait(std::min(r->deadline, now + 200ms));
      if (r->liveness == liveness_ && core_.rt.now() > r->began + 1s) co_return r->op.give_up();
    } else if (auto said = co_await r->out.next(std::min({r->deadline, r->hedge_at, now + 250ms}))) {
      ++r->taken;
      co_return co_await hear(r, said->first, std::move(said->second));
    }
    if (r->liveness != liveness_) {
      r->liveness = liveness_;
      auto a = r->op.reconsider();
      if (a.what != action::kind::wait) co_return a;
    }
  }
}

// ------------------------------------------------------------------------------------------------- requests

void coordinator::send_read(run& r, const action& a) {
  hedges_ = std::min(hedges_ + 0.05, 20.0);
  r.reading = a.round;
  r.unheard = 0;
  r.queue.clear();
  std::vector<node_id> nodes;
  for (const auto& n : r.v->of(a.to)) nodes.push_back(n);
  nodes = core_.peers.by_quality(std::move(nodes));
  if (auto at = std::find(nodes.begin(), nodes.end(), r.asked_last); at != nodes.end()) std::rotate(at, at + 1, nodes.end());
  for (const auto& n : nodes)
    r.queue.push_back(static_cast<std::size_t>(std::find(r.v->replicas.begin(), r.v->replicas.end(), n) - r.v->replicas.begin()));
  // The nearest that make a quorum between them.
  replica_mask asked = 0;
  nanoseconds slowest = 0ns;
  while (!r.queue.empty() && !(r.v->quorum(asked) && asked)) {
    const std::size_t i = r.queue.front();
    asked |= replica_mask{1} << i;
    slowest = std::max(slowest, core_.peers.hedge_delay(r.v->replicas[i]));
    ask_next(r);
  }
  r.hedge_at = r.queue.empty() ? never : core_.rt.now() + slowest;
}

// The next replica of a read that has not been asked yet; false when there is none.
bool coordinator::ask_next(run& r) {
  if (r.queue.empty()) return false;
  const std::size_t i = r.queue.front();
  r.queue.pop_front();
  r.unheard |= replica_mask{1} << i;
  pb::read_request q;
  *q.mutable_judged() = context(*r.v, r.judged_by);
  *q.add_keys() = id_of(r.key);
  q.set_with_body(r.with_body && !r.body_asked);
  r.body_asked = true;
  const wire::call_options o{.priority = r.priority, .deadline = std::min(r.deadline, core_.rt.now() + 10s)};
  r.out.start(i, ask(r.v->replicas[i], r.reading, r.v->layout->revision, wire::method::table_read, std::make_shared<bytes>(q.SerializeAsString()), o));
  ++r.started;
  return true;
}

task<action> coordinator::send(run_ptr r, action a) {
  r->queue.clear();
  r->hedge_at = never;
  if (a.request == request::read) {
    send_read(*r, a);
    co_return action{};
  }
  std::shared_ptr<bytes> raw;
  wire::method m = wire::method::table_prepare;
  std::size_t size = 0;
  if (a.request == request::prepare) {
    pb::prepare_request q;
    *q.mutable_judged() = context(*r->v, r->judged_by);
    *q.mutable_key() = id_of(r->key);
    q.set_ballot(a.at.encode());
    q.set_with_body(r->with_body);
    q.set_beyond(a.chosen);
    raw = std::make_shared<bytes>(q.SerializeAsString());
  } else {
    m = wire::method::table_accept;
    register_value value = *a.value;
    if (unpack(value.packed).value_or(unpacked{}).has_body && !value.body) {
      value.body = co_await fetch_body(r, a.attempt);
      if (!value.body) {  // overwritten meanwhile, or its holder is gone
        action next;
        for (std::size_t i = 0; i < r->v->replicas.size(); ++i)
          if (a.to >> i & 1) {
            next = r->op.on_silent(a.round, i, delivery::none);
            if (next.what != action::kind::wait) break;
          }
        co_return next;
      }
    }
    pb::accept_request q;
    *q.mutable_judged() = context(*r->v, r->judged_by);
    fill_accept(*q.add_rows(), r->key, a.at, a.attempt, value);
    q.mutable_rows(0)->set_chosen(a.chosen);
    r->attempts[a.at] = a.attempt;
    r->accepting = a.round;
    r->yes = r->failed_mask = 0;
    r->sent = a.to;
    raw = std::make_shared<bytes>(q.SerializeAsString());
  }
  size = raw->size();
  const wire::call_options o{.priority = r->priority, .deadline = std::min(r->deadline, core_.rt.now() + (size > 4096 ? 20s : 5s))};
  for (std::size_t i = 0; i < r->v->replicas.size(); ++i)
    if (a.to >> i & 1) {
      r->out.start(i, ask(r->v->replicas[i], a.round, r->v->layout->revision, m, raw, o));
      ++r->started;
    }
  co_return action{};
}

// The body of an attempt, from whoever holds it.
task<shared_bytes> coordinator::fetch_body(run_ptr r, attempt_id attempt) {
  if (auto at = r->bodies.find(attempt); at != r->bodies.end()) co_return at->second;
  pb::read_request q;
  *q.mutable_judged() = context(*r->v, r->judged_by);
  *q.add_keys() = id_of(r->key);
  q.set_with_body(true);
  auto raw = std::make_shared<bytes>(q.SerializeAsString());
  const auto v = r->v;
  // Those that showed it first; then the nearest. Who is silent, this home's own disk too, is gone round.
  std::vector<node_id> order;
  auto add = [&order](const node_id& n) {
    if (std::find(order.begin(), order.end(), n) == order.end()) order.push_back(n);
  };
  for (std::size_t i : r->shown_by[attempt]) add(v->replicas[i]);
  for (const auto& n : core_.peers.by_quality(v->layout->all_replicas(r->p))) add(n);
  fan_out<heard> out(core_.rt, core_.tasks);
  for (std::size_t next = 0; next < order.size() || out.outstanding();) {
    mono_time until = r->deadline;
    if (next < order.size()) {
      const wire::call_options o{.priority = r->priority, .deadline = r->deadline};
      out.start(next, ask(order[next], 0, v->layout->revision, wire::method::table_read, raw, o));
      until = std::min(until, core_.rt.now() + core_.peers.hedge_delay(order[next]) + 20ms);
      ++next;
    }
    auto said = co_await out.next(until);
    if (!said && core_.rt.now() >= r->deadline) break;
    if (!said) core_.peers.read_missed(order[next - 1], cluster::reads::rows);
    if (!said) continue;
    auto& h = said->second;
    if (!h.answers || h.answers->has_refused() || h.answers->rows_size() != 1 || !h.answers->rows(0).has_with()) continue;
    auto a = answer::decode(h.answers->rows(0).answer());
    if (!a || a->attempt != attempt) continue;
    auto body = share(h.answers->rows(0).with().content());
    r->bodies[attempt] = body;
    co_return body;
  }
  co_return nullptr;
}

// ------------------------------------------------------------------------------------------------- answers

// This home's disk may hang; the operation does not.
task<result<void>> coordinator::adopt(pb::refusal why, mono_time deadline) {
  fan_out<result<void>> out(core_.rt, core_.tasks);
  out.start(0, adopt_here(std::move(why)));
  auto done = co_await out.next(deadline);
  if (!done) co_return fail(errc::timed_out, "this home's disk does not answer");
  co_return std::move(done->second);
}

task<result<void>> coordinator::adopt_here(pb::refusal why) {
  if (!why.layout().empty()) CO_TRY_VOID(co_await layout_.adopt_bytes(std::move(*why.mutable_layout())));
  if (why.has_fence()) CO_TRY_VOID(co_await copies_.keep(why.fence()));
  co_return result<void>();
}

task<action> coordinator::hear(run_ptr r, std::size_t i, heard h) {
  if (h.round == r->reading) r->unheard &= ~(replica_mask{1} << i);
  const bool failed_read = h.round == r->reading && (!h.answers || h.answers->has_refused());
  if (h.round == r->accepting && (!h.answers || h.answers->has_refused() || h.answers->rows_size() != 1 || h.answers->rows(0).error()))
    r->failed_mask |= replica_mask{1} << i;
  if (!h.answers) {
    r->last = h.answers.error();
    auto a = r->op.on_silent(h.round, i, delivery_of(r->last.code));
    if (failed_read && a.what == action::kind::wait) ask_next(*r);
    co_return a;
  }
  if (h.answers->has_refused()) {
    r->fenced_off = r->fenced_off || h.answers->refused().has_fence();
    auto taken = co_await adopt(h.answers->refused(), r->deadline);
    if (!taken) r->last = taken.error();
    if (layout_.revision() > r->v->layout->revision && r->rebases < 8) {
      ++r->rebases;
      r->v = look(r->p, r->v.get());
      co_return r->op.rebase(terms_of(r->v));
    }
    auto a = r->op.on_silent(h.round, i, h.answers->refused().has_fence() ? delivery::none : delivery::unsure);
    if (failed_read && a.what == action::kind::wait) ask_next(*r);
    co_return a;
  }
  if (h.answers->rows_size() != 1) {
    r->last = error(errc::protocol, "an answer of the wrong size");
    co_return r->op.on_silent(h.round, i, delivery::unsure);
  }
  if (h.revision == r->v->layout->revision) r->v->counts[i] = h.answers->counts();
  auto a = hear_row(*r, i, h, *h.answers->mutable_rows(0));
  // A newcomer's answer does not count for reading: somebody else is asked.
  if (a.what == action::kind::wait && h.round == r->reading && r->out.outstanding() == 0 && !r->out_has_answers()) ask_next(*r);
  co_return a;
}

action coordinator::hear_row(run& r, std::size_t i, const heard& h, pb::register_answer& in) {
  if (in.error()) {
    r.last = error(static_cast<errc>(in.error()), in.detail());
    return r.op.on_silent(h.round, i, delivery_of(r.last.code));
  }
  auto a = answer::decode(in.answer());
  if (!a) {
    r.last = error(errc::protocol, "an answer that cannot be read");
    return r.op.on_silent(h.round, i, delivery::unsure);
  }
  if (!r.v->votes(i)) {
    r.last = error(errc::not_synced, "a home has not merged its rows yet");
    return r.op.on_silent(h.round, i, delivery::unsure);
  }
  if (a->accepted) {
    r.attempts[a->accepted] = a->attempt;
    r.shown_by[a->attempt].push_back(i);
  }
  if (in.has_with()) {
    a->body = share(std::move(*in.mutable_with()->mutable_content()));
    r.bodies[a->attempt] = a->body;
  }
  if (h.round == r.accepting && a->yes) r.yes |= replica_mask{1} << i;
  if (r.early && h.round == r.reading) {
    auto early = std::exchange(r.early, nullptr);
    if (auto u = unpack(a->value)) early(row{a->accepted, {u->present, bytes(u->row), a->body}});
  }
  return r.op.on_answer(h.round, i, std::move(*a));
}

error coordinator::failed(const run& r, bool reading) const {
  const auto& o = r.op.result();
  const std::string why = r.last.detail.empty() ? std::string() : " (" + r.last.to_string() + ")";
  if (o.what == outcome::kind::unknown && !reading) return {errc::outcome_unknown, "too few homes answered in time" + why};
  if (r.fenced_off) return {errc::conflict, "the request was judged by an old row"};
  if (r.last == errc::clock_skew || r.last == errc::no_space) return r.last;
  if (reading && core_.rt.now() >= r.deadline) return {errc::timed_out, "too few homes answered in time" + why};
  return {errc::unavailable, "too few homes answered" + why};
}

void coordinator::missed(const view& v, std::size_t replica, const row_key& key) const {
  if (missed_ && v.replicas[replica] != core_.self) missed_(v.replicas[replica], v.p, key);
}

// A value that a quorum took: whoever did not is told later.
void coordinator::watch_stragglers(run& r) {
  if (!r.accepting) return;
  r.waiting_for = r.sent & ~r.yes;
  // What is still under way may succeed; who failed already will not.
  for (std::size_t i = 0; i < r.v->replicas.size(); ++i)
    if ((r.waiting_for >> i & 1) && r.failed_mask >> i & 1) missed(*r.v, i, r.key);
  r.out.drain([this, v = r.v, key = r.key, round = r.accepting](std::size_t i, heard h) {
    if (h.round != round) return;
    if (!h.answers || h.answers->has_refused() || h.answers->rows_size() != 1 || h.answers->rows(0).error()) missed(*v, i, key);
  });
}

}  // namespace grenier::table
