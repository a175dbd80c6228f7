// cluster/fake_net.h: endpoints without a network, in virtual time. For cluster's tests only.
#pragma once

#include <algorithm>
#include <random>
#include <set>

#include <doctest/doctest.h>

#include "cluster/card.h"

namespace grenier::cluster::testing {

class manual_clock final : public clock {
 public:
  mono_time now() const override { return now_; }
  std::uint64_t wall_ms() const override { return static_cast<std::uint64_t>(now_.time_since_epoch() / 1ms); }
  timer_id call_at(mono_time at, std::move_only_function<void()> fn) override {
    timer_id id{std::max(at, now_), ++number_};
    timers_.emplace(id, std::move(fn));
    return id;
  }
  void cancel(timer_id id) override { timers_.erase(id); }
  void jump(nanoseconds d) { now_ += d; }
  // The next timer until then, if there is one.
  bool advance(mono_time until) {
    if (timers_.empty() || timers_.begin()->first.at > until) {
      now_ = until;
      return false;
    }
    auto first = timers_.extract(timers_.begin());
    now_ = std::max(now_, first.key().at);
    first.mapped()();
    return true;
  }

 private:
  mono_time now_{1h};
  std::uint64_t number_ = 0;
  std::map<timer_id, std::move_only_function<void()>> timers_;
};

class seeded_random final : public random_source {
 public:
  explicit seeded_random(std::uint64_t seed) : engine_(seed) {}
  void fill(void* to, std::size_t n) override {
    for (std::size_t i = 0; i < n; ++i) static_cast<char*>(to)[i] = static_cast<char>(engine_());
  }

 private:
  std::mt19937_64 engine_;
};

class no_pool final : public work_pool {
 public:
  void run(std::move_only_function<void()> work, std::move_only_function<void()> done) override {
    work();
    done();
  }
};

class endpoint;

// Everybody's lines.
struct net {
  asio::io_context io;
  manual_clock clk;
  seeded_random rnd;
  no_pool pool;
  runtime rt{io, clk, rnd, pool, pool};
  std::map<node_id, endpoint*> nodes;
  std::set<std::pair<node_id, node_id>> lines;  // who dialled, who was dialled
  std::set<node_id> dead;                       // its connections stand, nothing comes through
  nanoseconds one_way = 30ms;
  nanoseconds jitter{};
  std::uint64_t calls = 0, bytes_sent = 0;
  task_group group{rt};

  explicit net(std::uint64_t seed = 1) : rnd(seed) { group.spawn("dial", dial()); }
  void run_for(nanoseconds d) {
    const auto until = clk.now() + d;
    do {
      io.restart();
      while (io.poll()) io.restart();
    } while (clk.advance(until));
  }
  nanoseconds delay() { return one_way + (jitter.count() ? nanoseconds(rnd.below(static_cast<std::uint64_t>(jitter.count()))) : 0ns); }
  bool joined(node_id a, node_id b) const { return lines.contains({a, b}) || lines.contains({b, a}); }
  void connect(node_id a, node_id b);
  void cut(node_id a, node_id b);
  void cut_all(node_id a);
  task<void> dial();
};

class endpoint final : public wire::endpoint {
 public:
  endpoint(net& n, node_id self, std::string ip, std::uint16_t port) : net_(n), self_(self), ip(std::move(ip)), port(port) {
    net_.nodes[self] = this;
  }
  ~endpoint() override {
    net_.cut_all(self_);
    net_.nodes.erase(self_);
  }
  void serve(wire::method m, wire::handler h) override { handlers_[m] = std::move(h); }
  result<void> start() override { return {}; }
  task<void> stop() override { co_return; }
  std::string local() const override { return address(); }
  void keep(node_id n, std::vector<std::string> a) override {
    ++keeps;
    kept[n] = std::move(a);
  }
  void forget(node_id n) override {
    kept.erase(n);
    net_.cut(self_, n);
  }
  bool connected(node_id n) const override { return net_.joined(self_, n); }
  wire::link_quality quality(node_id n) const override {
    auto at = qualities.find(n);
    auto q = at == qualities.end() ? wire::link_quality{} : at->second;
    q.connected = connected(n);
    return q;
  }
  std::vector<node_id> peers() const override {
    std::vector<node_id> r;
    for (const auto& [n, e] : net_.nodes)
      if (n != self_ && connected(n)) r.push_back(n);
    return r;
  }
  std::string peer_address(node_id n) const override {
    if (!connected(n)) return {};
    const auto* e = net_.nodes.at(n);
    return net_.lines.contains({self_, n}) ? e->address() : e->ip + ":50123";
  }
  task<result<wire::message>> call(node_id to, wire::method m, wire::message msg, wire::call_options o) override {
    ++net_.calls;
    net_.bytes_sent += msg.size_bytes();
    if (!connected(to)) co_return fail(errc::unavailable);
    auto late = [&](nanoseconds d) { return net_.rt.now() + d >= o.deadline; };
    for (bool there : {true, false}) {
      auto d = net_.delay();
      if (net_.dead.contains(to) || net_.dead.contains(self_) || late(d)) {
        co_await sleep_until(net_.rt, o.deadline);
        co_return fail(errc::timed_out);
      }
      co_await sleep_for(net_.rt, d);
      if (!net_.joined(self_, to)) co_return fail(errc::outcome_unknown);
      if (!there) break;
      auto* e = net_.nodes.at(to);
      auto h = e->handlers_.find(m);
      if (h == e->handlers_.end()) co_return fail(errc::not_implemented);
      auto r = co_await h->second({self_, 1, o.deadline}, std::move(msg));
      if (!r) co_return fail(r.error());
      msg = std::move(*r);
      net_.bytes_sent += msg.size_bytes();
    }
    co_return msg;
  }
  task<result<joined>> call_with_invite(std::string, bytes, bytes, wire::message, mono_time) override {
    co_return fail(errc::not_implemented);
  }
  void on_invite(std::move_only_function<task<std::optional<bytes>>(bytes)>) override {}
  void on_connection(std::move_only_function<void(node_id, bool)> f) override { on_connection_ = std::move(f); }
  void set_cluster_keys(std::vector<bytes>) override {}
  refusals refused() const override { return {}; }

  std::string address() const { return ip + ":" + std::to_string(port); }
  void tell(node_id n, bool up) {
    if (on_connection_) on_connection_(n, up);
  }

 private:
  net& net_;
  node_id self_;
  std::map<wire::method, wire::handler> handlers_;
  std::move_only_function<void(node_id, bool)> on_connection_;

 public:
  std::string ip;
  std::uint16_t port;
  bool natted = false;  // cannot be dialled
  std::map<node_id, std::vector<std::string>> kept;
  std::map<node_id, wire::link_quality> qualities;
  unsigned keeps = 0;
};

inline void net::connect(node_id a, node_id b) {
  if (a == b || joined(a, b)) return;
  lines.insert({a, b});
  nodes.at(a)->tell(b, true);
  nodes.at(b)->tell(a, true);
}
inline void net::cut(node_id a, node_id b) {
  if (lines.erase({a, b}) + lines.erase({b, a}) == 0) return;
  nodes.at(a)->tell(b, false);
  nodes.at(b)->tell(a, false);
}
inline void net::cut_all(node_id a) {
  std::vector<node_id> others;
  for (const auto& [n, e] : nodes)
    if (n != a) others.push_back(n);
  for (const auto& n : others) cut(a, n);
}
inline task<void> net::dial() {
  for (;;) {
    co_await sleep_for(rt, 200ms);
    std::vector<std::pair<node_id, node_id>> found;
    for (const auto& [a, from] : nodes)
      for (const auto& [b, addresses] : from->kept) {
        auto to = nodes.find(b);
        if (to == nodes.end() || to->second->natted || dead.contains(a) || dead.contains(b)) continue;
        if (std::find(addresses.begin(), addresses.end(), to->second->address()) != addresses.end()) found.emplace_back(a, b);
      }
    for (const auto& [a, b] : found) connect(a, b);
  }
}

inline node_id test_node(unsigned n) {
  node_id i;
  i.data()[0] = static_cast<std::uint8_t>(n * 37);
  i.data()[30] = static_cast<std::uint8_t>(n >> 8);
  i.data()[31] = static_cast<std::uint8_t>(n);
  i.data()[1] = 1;
  return i;
}

// A machine: its endpoint and its directory.
struct box {
  box(net& n, unsigned number, options o = {})
      : id(test_node(number)), ep(n, id, "192.0.2." + std::to_string(number), 3901), dir(n.rt, ep, id, o) {
    dir.set_self(info(number));
  }
  static self_info info(unsigned number) {
    self_info i;
    i.zone = "zone-" + std::to_string(number);
    i.rpc_port = 3901;
    i.services["s3"] = 3900;
    i.software = "0.1.0";
    i.start = 1;
    return i;
  }
  node_id id;
  endpoint ep;
  directory dir;
};

// N boxes that are all members, each knowing the first one's address.
struct village {
  net n;
  std::vector<std::unique_ptr<box>> boxes;
  explicit village(unsigned size, std::uint64_t seed = 1, options o = {}) : n(seed) {
    std::vector<node_id> ids;
    for (unsigned i = 0; i < size; ++i) {
      boxes.push_back(std::make_unique<box>(n, i + 1, o));
      ids.push_back(boxes.back()->id);
    }
    for (auto& b : boxes) {
      b->dir.set_members(ids);
      b->dir.add_peer(ids[0], {boxes[0]->ep.address()});
      b->dir.start();
    }
  }
  ~village() {
    for (auto& b : boxes) n.group.spawn("stop", b->dir.stop());
    n.run_for(60s);
    n.group.cancel();
    n.run_for(1s);
    CHECK(n.group.size() == 0);
  }
  directory& operator[](std::size_t i) { return boxes[i]->dir; }
  node_id id(std::size_t i) const { return boxes[i]->id; }
};

}  // namespace grenier::cluster::testing
