// tests/sim/fake_wire.h: wire::endpoint over the simulated lines, without frames or encryption: messages with delay, loss and cuts.
//
// For tests of what is above wire. A message is lost as a whole when its line is cut; a call to a machine that is off fails after a
// round trip, one into silence at its deadline.
#pragma once

#include <algorithm>

#include "sim/world.h"
#include "wire/wire.h"

namespace grenier::sim {

class fake_endpoint;

struct fake_hub {
  explicit fake_hub(world& w_) : w(w_) {}
  world& w;
  std::map<node_id, std::pair<std::size_t, fake_endpoint*>> present;  // machine, its program
  std::map<node_id, std::size_t> machines;
  double lose = 0;                       // of messages, each way
  std::uint64_t messages = 0, serials = 0;
  std::map<wire::method, std::uint64_t> of_method;
  std::map<std::pair<node_id, wire::method>, std::uint64_t> bytes_to;  // heads of requests and answers
  // Requests that do not arrive, besides those that are lost.
  std::function<bool(node_id from, node_id to, wire::method)> drop;
};

class fake_endpoint final : public wire::endpoint {
 public:
  fake_endpoint(fake_hub& h, machine& m, node_id id) : hub_(h), m_(m), rt_(m.rt()), id_(id), group_(m.rt()) { hub_.machines[id] = m.index(); }
  ~fake_endpoint() override {
    if (auto at = hub_.present.find(id_); at != hub_.present.end() && at->second.second == this) hub_.present.erase(at);
  }

  void serve(wire::method me, wire::handler h) override {
    ASSERT(!started_);
    handlers_[me] = std::move(h);
  }
  result<void> start() override {
    started_ = true;
    hub_.present[id_] = {m_.index(), this};
    return {};
  }
  task<void> stop() override { return stop(this); }
  std::string local() const override { return "10.0.0." + std::to_string(m_.index()) + ":3901"; }
  void keep(node_id n, std::vector<std::string>) override {
    if (kept_.insert(n).second && kept_.size() == 1) group_.spawn("watch", watch());
  }
  void forget(node_id n) override { kept_.erase(n); }
  bool connected(node_id n) const override { return seen_.contains(n); }
  wire::link_quality quality(node_id n) const override {
    wire::link_quality q;
    q.connected = connected(n);
    if (auto at = hub_.machines.find(n); at != hub_.machines.end()) q.rtt = q.rtt_p95 = rtt(at->second);
    return q;
  }
  std::vector<node_id> peers() const override { return {seen_.begin(), seen_.end()}; }
  std::string peer_address(node_id) const override { return {}; }

  task<result<wire::message>> call(node_id to, wire::method me, wire::message q, wire::call_options o) override {
    return call(this, to, me, std::move(q), o);
  }
  task<result<joined>> call_with_invite(std::string, bytes, bytes, wire::message, mono_time) override { return no(); }
  void on_invite(std::move_only_function<task<std::optional<bytes>>(bytes)>) override {}
  void on_connection(std::move_only_function<void(node_id, bool)> f) override { on_connection_ = std::move(f); }
  void set_cluster_keys(std::vector<bytes>) override {}
  refusals refused() const override { return {}; }

 private:
  static task<result<joined>> no() { co_return fail(errc::not_implemented); }
  static task<void> stop(fake_endpoint* e) {
    e->hub_.present.erase(e->id_);
    e->group_.cancel();
    co_await e->group_.join();
  }
  nanoseconds rtt(std::size_t other) const { return hub_.w.line(m_.index(), other).delay + hub_.w.line(other, m_.index()).delay; }
  bool through(std::size_t other) const { return hub_.w.line(m_.index(), other).up && hub_.w.line(other, m_.index()).up; }

  task<void> watch() {
    for (;;) {
      for (const auto& n : std::set<node_id>(kept_)) {
        auto at = hub_.present.find(n);
        const bool now = at != hub_.present.end() && through(at->second.first);
        if (now == seen_.contains(n)) continue;
        if (now) seen_.insert(n);
        else seen_.erase(n);
        if (on_connection_) on_connection_(n, now);
      }
      co_await sleep_for(rt_, 200ms);
    }
  }

  static void tell(fake_hub& hub, node_id whom, std::uint64_t serial, std::uint64_t number, result<wire::message> r) {
    auto at = hub.present.find(whom);
    if (at == hub.present.end() || at->second.second->serial_ != serial) return;
    auto& all = at->second.second->pending_;
    if (auto call = all.find(number); call != all.end()) call->second.set(std::move(r));
  }

  static task<result<wire::message>> call(fake_endpoint* e, node_id to, wire::method me, wire::message q, wire::call_options o) {
    ASSERT(o.deadline != never);
    world& w = e->hub_.w;
    if (to == e->id_) {
      auto h = e->handlers_.find(me);
      if (h == e->handlers_.end()) co_return fail(errc::not_implemented);
      co_return co_await h->second({.node = to, .session = 0, .deadline = o.deadline, .by_invite = false, .invite_id = {}}, std::move(q));
    }
    auto where = e->hub_.machines.find(to);
    if (where == e->hub_.machines.end() || (!e->hub_.present.contains(to) && !e->seen_.contains(to)))
      co_return fail(errc::unavailable, "no connection");
    ++e->hub_.messages;
    ++e->hub_.of_method[me];
    e->hub_.bytes_to[{to, me}] += q.head.size();
    w.note("call " + std::to_string(static_cast<int>(me)) + " " + to.short_hex());
    const std::size_t a = e->m_.index(), b = where->second;
    // Answers find their call by its number: nothing of this program is held by the world or by the other one.
    const std::uint64_t number = ++e->calls_;
    one_shot<result<wire::message>> answer(e->rt_);
    e->pending_.emplace(number, answer);
    struct leave {
      fake_endpoint* e;
      std::uint64_t number;
      ~leave() { e->pending_.erase(number); }
    } leaving{e, number};
    fake_hub* hub = &e->hub_;
    const node_id from = e->id_;
    auto delay = [&w](std::size_t x, std::size_t y) {
      auto& l = w.line(x, y);
      return l.delay + (l.jitter > 0ns ? nanoseconds(static_cast<std::int64_t>(w.below(static_cast<std::uint64_t>(l.jitter.count())))) : 0ns);
    };
    auto lost = [hub, &w](std::size_t x, std::size_t y) { return !w.line(x, y).up || (hub->lose > 0 && w.unit() < hub->lose); };
    const std::uint64_t self = e->serial_;
    w.call_at(w.now() + delay(a, b), [=, q = std::move(q), &w]() mutable {
      if (lost(a, b) || (hub->drop && hub->drop(from, to, me))) return;
      auto at = hub->present.find(to);
      if (at == hub->present.end()) {
        if (hub->present.contains(from) && hub->present[from].second->serial_ == self)
          w.call_at(w.now() + delay(b, a), [=] {
            tell(*hub, from, self, number, fail(errc::outcome_unknown, "the connection broke"));
          });
        return;
      }
      fake_endpoint* other = at->second.second;
      other->group_.spawn("handler", handle(other, self, from, me, std::move(q), o.deadline, number));
    });
    auto r = co_await answer.wait(o.deadline);
    if (!r) co_return fail(errc::timed_out, "no answer");
    co_return std::move(*r);
  }

  static task<void> handle(fake_endpoint* here, std::uint64_t asker, node_id from, wire::method me, wire::message q, mono_time deadline,
                           std::uint64_t number) {
    auto h = here->handlers_.find(me);
    result<wire::message> r = fail(errc::not_implemented);
    if (h != here->handlers_.end()) r = co_await h->second({.node = from, .session = 1, .deadline = deadline, .by_invite = false, .invite_id = {}}, std::move(q));
    world& w = here->hub_.w;
    fake_hub* hub = &here->hub_;
    const std::size_t a = hub->machines[from], b = here->m_.index();
    if (r) hub->bytes_to[{from, me}] += r->head.size();
    auto& l = w.line(b, a);
    auto d = l.delay + (l.jitter > 0ns ? nanoseconds(static_cast<std::int64_t>(w.below(static_cast<std::uint64_t>(l.jitter.count())))) : 0ns);
    auto shared = std::make_shared<result<wire::message>>(std::move(r));
    w.call_at(w.now() + d, [=, &w] {
      if (!w.line(b, a).up || (hub->lose > 0 && w.unit() < hub->lose)) return;
      tell(*hub, from, asker, number, std::move(*shared));
    });
  }

  fake_hub& hub_;
  const std::uint64_t serial_ = ++hub_.serials;  // an address may be used again
  machine& m_;
  runtime& rt_;
  node_id id_;
  task_group group_;
  std::map<wire::method, wire::handler> handlers_;
  std::set<node_id> kept_, seen_;
  std::map<std::uint64_t, one_shot<result<wire::message>>> pending_;
  std::uint64_t calls_ = 0;
  bool started_ = false;
  std::move_only_function<void(node_id, bool)> on_connection_;
};

}  // namespace grenier::sim
