#include "sim/block_fakes.h"

namespace grenier::sim {

fake_cluster* fake_cluster::current = nullptr;
fake_cluster::fake_cluster() { current = this; }
fake_cluster::~fake_cluster() { current = nullptr; }

fake_line fake_cluster::line(node_id a, node_id b) const {
  auto at = lines.find({a, b});
  return at == lines.end() ? default_line : at->second;
}
bool fake_cluster::reachable(node_id a, node_id b) const {
  return endpoints.contains(b) && !down.contains(a) && !down.contains(b) && line(a, b).up && line(b, a).up;
}

namespace {

class fake_endpoint final : public wire::endpoint {
 public:
  fake_endpoint(runtime& rt, wire::options o) : rt_(rt), self_(o.key.id()), group_(rt) { fake_cluster::current->endpoints[self_] = this; }
  ~fake_endpoint() override {
    if (auto* c = fake_cluster::current; c && c->endpoints[self_] == this) c->endpoints.erase(self_);
  }
  void serve(wire::method m, wire::handler h) override { handlers_[m] = std::make_shared<wire::handler>(std::move(h)); }
  result<void> start() override { return {}; }
  task<void> stop() override {
    group_.cancel();
    co_await group_.join();
  }
  std::string local() const override { return ""; }
  void keep(node_id, std::vector<std::string>) override {}
  void forget(node_id) override {}
  bool connected(node_id n) const override { return fake_cluster::current->reachable(self_, n); }
  wire::link_quality quality(node_id) const override { return {}; }
  std::vector<node_id> peers() const override { return {}; }
  std::string peer_address(node_id) const override { return ""; }
  task<result<joined>> call_with_invite(std::string, bytes, bytes, wire::message, mono_time) override { co_return fail(errc::unavailable); }
  void on_invite(std::move_only_function<task<std::optional<bytes>>(bytes)>) override {}
  void on_connection(std::move_only_function<void(node_id, bool)>) override {}
  void set_cluster_keys(std::vector<bytes>) override {}
  refusals refused() const override { return {}; }

  task<result<wire::message>> call(node_id to, wire::method m, wire::message msg, wire::call_options o) override {
    auto* c = fake_cluster::current;
    ++c->calls[{self_, m}];
    if (to == self_) co_return co_await (*handlers_.at(m))({self_, 1, o.deadline}, std::move(msg));
    if (!c->reachable(self_, to)) co_return fail(errc::unavailable, "no connection");
    if (msg.body) c->carried[{self_, to}] += msg.body->size();
    if (c->on_the_way) {
      auto changed = c->on_the_way(self_, to, m, std::move(msg));
      if (!changed) {
        co_await sleep_until(rt_, o.deadline);
        co_return fail(errc::timed_out, "lost");
      }
      msg = std::move(*changed);
    }
    co_await sleep_for(rt_, time(c->line(self_, to), msg));
    if (!c->reachable(self_, to)) co_return fail(errc::unavailable, "no connection");
    auto& other = static_cast<fake_endpoint&>(*c->endpoints.at(to));
    // The other side knows the call by a number: what waits belongs to this machine, which may crash meanwhile.
    one_shot<result<wire::message>> reply(rt_);
    const std::uint64_t number = ++calls_;
    struct entry {
      std::map<std::uint64_t, one_shot<result<wire::message>>>& all;
      std::uint64_t number;
      ~entry() { all.erase(number); }
    } here{waiting_, number};
    waiting_.emplace(number, reply);
    other.group_.spawn("call", run(other, self_, this, m, std::move(msg), o.deadline, number));
    auto r = co_await reply.wait(o.deadline);
    if (!r) co_return fail(errc::timed_out, "no answer");
    co_return std::move(*r);
  }

 private:
  static nanoseconds time(fake_line l, const wire::message& m) {
    return l.rtt / 2 + nanoseconds(l.rate > 0 ? static_cast<std::int64_t>(1e9 * static_cast<double>(m.size_bytes()) / l.rate) : 0);
  }
  static task<void> run(fake_endpoint& at, node_id from, fake_endpoint* caller, wire::method m, wire::message msg, mono_time deadline,
                        std::uint64_t number) {
    result<wire::message> r = fail(errc::not_implemented, "no such method");
    if (auto h = at.handlers_.find(m); h != at.handlers_.end()) {
      auto keep = h->second;
      r = co_await (*keep)({from, 1, deadline}, std::move(msg));
    }
    auto* c = fake_cluster::current;
    if (r && r->body) c->carried[{at.self_, from}] += r->body->size();
    co_await sleep_for(at.rt_, r ? time(c->line(at.self_, from), *r) : c->line(at.self_, from).rtt / 2);
    auto there = c->endpoints.find(from);
    if (there == c->endpoints.end() || there->second != caller || !c->reachable(at.self_, from)) co_return;
    if (auto w = caller->waiting_.find(number); w != caller->waiting_.end()) w->second.set(std::move(r));
  }
  static inline std::uint64_t calls_ = 0;
  runtime& rt_;
  node_id self_;
  task_group group_;
  std::map<std::uint64_t, one_shot<result<wire::message>>> waiting_;
  std::map<wire::method, std::shared_ptr<wire::handler>> handlers_;
};

}  // namespace
}  // namespace grenier::sim

namespace grenier::wire {
std::unique_ptr<endpoint> make_endpoint(runtime& rt, network&, options o) { return std::make_unique<sim::fake_endpoint>(rt, std::move(o)); }
}  // namespace grenier::wire

// ------------------------------------------------------------------------------------------------- the directory

namespace grenier::cluster {

using sim::fake_cluster;

struct directory::impl {
  node_id self;
  std::map<node_id, int> missed{};
};
directory::directory(runtime&, wire::endpoint&, node_id self, options) : impl_(new impl{self}) {}
void directory::read_answered(node_id n, reads) { impl_->missed.erase(n); }
void directory::read_missed(node_id n, reads) { ++impl_->missed[n]; }
bool directory::misses_reads(node_id n, reads) const { return impl_->missed.contains(n) && impl_->missed.at(n) >= 3; }
directory::~directory() = default;
std::optional<node> directory::find(node_id n) const {
  node x;
  x.id = n;
  x.links[impl_->self] = {.rtt = fake_cluster::current->line(n, impl_->self).rtt, .send_rate = fake_cluster::current->line(n, impl_->self).rate};
  return x;
}
bool directory::up(node_id n) const { return n == impl_->self || fake_cluster::current->reachable(impl_->self, n); }
bool directory::late(node_id n) const { return !up(n); }
std::vector<node_id> directory::by_quality(std::vector<node_id> v, reads kind) const {
  std::sort(v.begin(), v.end(), [&](const node_id& a, const node_id& b) {
    auto key = [&](const node_id& n) { return std::tuple(!up(n), misses_reads(n, kind), n == impl_->self ? 0ns : rtt(n), n); };
    return key(a) < key(b);
  });
  return v;
}
nanoseconds directory::hedge_delay(node_id n) const { return 2 * rtt(n) + 20ms; }
double directory::rate_to(node_id n) const { return fake_cluster::current->line(impl_->self, n).rate; }
nanoseconds directory::rtt(node_id n) const { return fake_cluster::current->line(impl_->self, n).rtt; }

}  // namespace grenier::cluster

// ------------------------------------------------------------------------------------------------- references

namespace grenier::table {

using sim::fake_cluster;

struct replicated::impl {
  runtime& rt;
  kv::store& kv;
  wire::endpoint& endpoint;
  node_id self;
  std::map<table_id, table_rules> rules;
  std::map<table_id, apply_hook> hooks;
  std::vector<std::move_only_function<void(const layout::state&)>> on_layout;
  key_lock locks;

  static bytes key_of(const row_key& k) { return static_cast<char>(k.table) + k.partition_key + k.sort_key; }
  task<result<void>> merge_here(std::vector<write_item> items, kv::batch b) {
    auto guard = co_await locks.lock("");
    for (auto& i : items) {
      bytes key = key_of(i.key);
      CO_TRY(auto old, co_await kv.get(kv::family::reference, key));
      bytes now = old ? rules.at(i.key.table).join(*old, i.value.row) : i.value.row;
      change c{i.key, layout::partition_of(i.key.partition_key, fake_cluster::current->layout.partition_count()), {}, {},
               old.has_value(), true, old ? bytes_view(*old) : bytes_view(), now};
      if (!old || *old != now) hooks.at(i.key.table)(c, b);
      b.put(kv::family::reference, key, now);
    }
    co_return co_await kv.commit(std::move(b));
  }
  task<result<wire::message>> take(wire::message m) {
    write_item i;
    std::size_t n = read_u16(m.head);
    i.key = {table_id::reference, m.head.substr(2, 32), m.head.substr(34, n - 32)};
    i.value = {true, m.head.substr(2 + n), nullptr};
    std::vector<write_item> items;
    items.push_back(std::move(i));
    CO_TRY_VOID(co_await merge_here(std::move(items), {}));
    co_return wire::message{};
  }
};

replicated::replicated(runtime& rt, kv::store& kv, wire::endpoint& e, cluster::directory&, hybrid_clock&, node_id self, options)
    : impl_(new impl{rt, kv, e, self, {}, {}, {}, key_lock(rt)}) {
  fake_cluster::current->tables[self] = this;
  e.serve(wire::method::table_push, [i = impl_.get()](wire::caller, wire::message m) { return i->take(std::move(m)); });
}
replicated::~replicated() {
  if (auto* c = fake_cluster::current; c && c->tables[impl_->self] == this) c->tables.erase(impl_->self);
}
void replicated::define(table_id t, table_rules r) { impl_->rules[t] = std::move(r); }
void replicated::on_apply(table_id t, apply_hook h) { impl_->hooks[t] = std::move(h); }
const layout::state& replicated::layout() const { return fake_cluster::current->layout; }
layout::partition replicated::partition_of(bytes_view k) const { return layout::partition_of(k, layout().partition_count()); }
bool replicated::is_replica(layout::partition p) const {
  const auto& r = layout().newest().replicas(p);
  return std::find(r.begin(), r.end(), impl_->self) != r.end();
}
repair_status replicated::status() const { return {.partitions_to_sync = fake_cluster::current->newcomers.contains(impl_->self) ? 1u : 0u}; }
void replicated::on_layout(std::move_only_function<void(const layout::state&)> f) { impl_->on_layout.push_back(std::move(f)); }
task<result<void>> replicated::merge_here(std::vector<write_item> items, kv::batch extra) {
  return impl_->merge_here(std::move(items), std::move(extra));
}
void replicated::missed_by(node_id, const row_key&) {}
task<result<std::vector<std::pair<bytes, bytes>>>> replicated::scan_here(table_id t, bytes pk) {
  bytes from = static_cast<char>(t) + pk, until = from + bytes(33, '\xff');
  CO_TRY(auto rows, co_await impl_->kv.scan(kv::family::reference, {.from = from, .until = until}));
  std::vector<std::pair<bytes, bytes>> out;
  for (auto& r : rows) out.emplace_back(r.key.substr(from.size()), r.value);
  co_return out;
}
task<result<std::vector<bytes>>> replicated::keys_here(table_id t, layout::partition p, bytes after, std::size_t keys_max) {
  bytes all(1, static_cast<char>(t)), until = all + bytes(66, '\xff');
  CO_TRY(auto rows, co_await impl_->kv.scan(kv::family::reference, {.from = after.empty() ? all : all + after + bytes(33, '\xff'), .until = until, .entries_max = 1 << 20}));
  std::vector<bytes> out;
  for (auto& r : rows) {
    bytes key = r.key.substr(1, 32);
    if (partition_of(key) == p && out.size() < keys_max && (out.empty() || out.back() != key)) out.push_back(key);
  }
  co_return out;
}
task<result<void>> replicated::merge(std::vector<write_item> items, op_options o) {
  for (auto& i : items) {
    auto p = partition_of(i.key.partition_key);
    std::set<node_id> yes;
    for (const auto& n : layout().all_replicas(p)) {
      bytes head;
      append_u16(head, static_cast<std::uint16_t>(i.key.partition_key.size() + i.key.sort_key.size()));
      head += i.key.partition_key + i.key.sort_key + i.value.row;
      if (co_await impl_->endpoint.call(n, wire::method::table_push, {head, nullptr}, {wire::priority::metadata, o.deadline})) yes.insert(n);
    }
    if (!layout::is_quorum(layout().current, p, yes, {})) co_return fail(errc::unavailable, "no quorum");
  }
  co_return result<void>();
}

}  // namespace grenier::table

