#include "sim/cluster.h"

#include <cstdio>
#include <cstdlib>

namespace grenier::sim {

namespace {

task<void> run_home(std::shared_ptr<home> h, std::function<std::shared_ptr<void>()> beside) {
  auto r = co_await h->node->start();
  if (!r) {
    h->failure = r.error().to_string();
    co_return;
  }
  if (beside) h->beside = beside();
  h->ready = true;
}

store::call admin(runtime& rt, nanoseconds at_most) { return {{std::nullopt, true}, rt.now() + at_most}; }

task<result<std::string>> invite(storaged::node& n, runtime& rt) { co_return co_await n.make_invite(seconds(3600), rt.now() + 20s); }
task<result<model::bucket>> create(storaged::node& n, runtime& rt, std::string name) {
  co_return co_await n.store().create_bucket(admin(rt, 30s), name, "sim");
}
task<result<void>> drop(storaged::node& n, runtime& rt, std::string bucket, std::string key) {
  co_return co_await n.store().remove(admin(rt, 30s), bucket, key);
}
task<result<store::list_result>> list_all(storaged::node& n, runtime& rt, store::list_request q) {
  co_return co_await n.store().list(admin(rt, 30s), q);
}

template <class T>
result<T> flatten(std::optional<result<T>> r) {
  if (!r) return fail(errc::timed_out, "no answer in virtual time");
  return std::move(*r);
}

}  // namespace

task<result<store::put_result>> put_object(storaged::node& n, runtime& rt, std::string bucket, std::string key, bytes body, store::conditions when,
                                           nanoseconds at_most) {
  store::put_request q;
  q.bucket = std::move(bucket);
  q.key = std::move(key);
  q.when = std::move(when);
  memory_body source(std::move(body));
  co_return co_await n.store().put(admin(rt, at_most), std::move(q), source);
}

task<result<std::pair<bytes, std::string>>> get_object(storaged::node& n, runtime& rt, std::string bucket, std::string key, nanoseconds at_most) {
  store::get_request q;
  q.bucket = std::move(bucket);
  q.key = std::move(key);
  CO_TRY(auto r, co_await n.store().get(admin(rt, at_most), std::move(q)));
  bytes all;
  if (r.body)
    for (;;) {
      CO_TRY(auto piece, co_await r.body->next());
      if (!piece) break;
      all.append(*piece);
    }
  co_return std::pair(std::move(all), r.meta.etag);
}

std::size_t neighbourhood::add(home_options o) {
  machine& m = world_.add(o.zone);
  std::size_t i = m.index();
  settings_.push_back(std::move(o));
  homes_.emplace_back();
  m.on_log = [this, i, loud = std::getenv("GRENIER_SIM_LOG") != nullptr](log_level l, const std::string& s) {
    if (loud) std::fprintf(stderr, "%10.3f home %zu: %s\n", static_cast<double>(world_.now().time_since_epoch().count()) / 1e9, i, s.c_str());
    if (on_log) on_log(i, l, s);
  };
  return i;
}

void neighbourhood::start(std::size_t i, std::optional<std::string> join_line) {
  const home_options& s = settings_[i];
  homes_[i].reset();
  at(i).start([&](machine& m) -> std::shared_ptr<void> {
    auto h = std::make_shared<home>();
    h->rows = m.open_kv();
    storaged::node_options o;
    o.zone = s.zone;
    o.rpc_listen = s.dials_only ? "" : "0.0.0.0:3901";
    if (!s.dials_only) o.rpc_public = {"10.0.0." + std::to_string(m.host()) + ":3901"};
    o.capacity_bytes = s.capacity_bytes;
    o.join = join_line;
    o.upload_limit = s.upload_limit;
    o.store.block_size = s.block_size;
    o.store.inline_max = s.inline_max;
    o.store.visited_bytes = s.visited_bytes;
    o.store.staleness = s.staleness;
    o.table.mutations = s.mutations;
    o.services = services;
    o.block.mutations = o.store.mutations = s.mutations;
    if (s.adjust) s.adjust(o);
    std::vector<block::drive> drives;
    drives.push_back({m.open_drive(), s.capacity_bytes});
    h->node = std::make_unique<storaged::node>(m.rt(), m.net(), *h->rows, std::move(drives), std::move(o));
    homes_[i] = h;
    std::function<std::shared_ptr<void>()> more;
    if (beside) more = [this, i, home = h.get(), &m] { return beside(i, *home, m.rt()); };
    m.root().spawn("home", run_home(h, std::move(more)));
    return h;
  });
}

void neighbourhood::crash(std::size_t i, bool power_cut) {
  // The machine destroys the home between its io_context and its runtime: nobody else may hold it.
  homes_[i].reset();
  at(i).crash(power_cut);
}

bool neighbourhood::wait_ready(std::size_t i, nanoseconds at_most) {
  return world_.run_until([&] { return ready(i) || (homes_[i] && !homes_[i]->failure.empty()); }, at_most) && ready(i);
}

bool neighbourhood::settled(std::size_t copies) {
  for (std::size_t i = 0; i < size(); ++i) {
    if (!ready(i)) return false;
    const auto& s = node(i).tables().layout();
    if (s.phase != layout::phase::settled || s.current.copies() != copies) return false;
  }
  return true;
}

bool neighbourhood::join(std::size_t i, std::size_t host, nanoseconds at_most) {
  auto line = world_.await(at(host), invite(node(host), at(host).rt()), at_most);
  if (!line || !*line) return false;
  start(i, **line);
  return wait_ready(i, at_most);
}

bool neighbourhood::form(nanoseconds at_most) {
  start(0);
  if (!wait_ready(0)) return false;
  for (std::size_t i = 1; i < size(); ++i)
    if (!join(i)) return false;
  std::set<std::string> zones;
  for (const auto& s : settings_)
    if (s.capacity_bytes) zones.insert(s.zone);
  return world_.run_until([&] { return settled(std::min<std::size_t>(3, zones.size())); }, at_most);
}

result<void> neighbourhood::make_bucket(std::size_t i, const std::string& name) {
  auto r = flatten(world_.await(at(i), create(node(i), at(i).rt(), name)));
  if (!r) return fail(r.error());
  return {};
}
result<store::put_result> neighbourhood::put(std::size_t i, const std::string& bucket, const std::string& key, bytes body, nanoseconds at_most) {
  return flatten(world_.await(at(i), put_object(node(i), at(i).rt(), bucket, key, std::move(body), {}, at_most)));
}
result<bytes> neighbourhood::get(std::size_t i, const std::string& bucket, const std::string& key, nanoseconds at_most) {
  auto r = flatten(world_.await(at(i), get_object(node(i), at(i).rt(), bucket, key, at_most)));
  if (!r) return fail(r.error());
  return std::move(r->first);
}
result<void> neighbourhood::remove(std::size_t i, const std::string& bucket, const std::string& key) {
  return flatten(world_.await(at(i), drop(node(i), at(i).rt(), bucket, key)));
}
result<store::list_result> neighbourhood::list(std::size_t i, const std::string& bucket, const std::string& prefix, const std::string& delimiter) {
  store::list_request q;
  q.bucket = bucket;
  q.prefix = prefix;
  q.delimiter = delimiter;
  return flatten(world_.await(at(i), list_all(node(i), at(i).rt(), std::move(q))));
}

}  // namespace grenier::sim
