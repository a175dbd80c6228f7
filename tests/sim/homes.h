// tests/sim/homes.h: homes that run the replicated tables (and what is below them) over simulated lines, for tests of the tables.
#pragma once

#include "cluster/cluster.h"
#include "sim/fake_wire.h"
#include "table/table.h"

namespace grenier::sim {

inline node_id home_id(std::size_t i) {
  node_id n;
  for (std::size_t k = 0; k < 8; ++k) n.data()[k] = static_cast<std::uint8_t>(0x10 * (i + 1));
  n.data()[31] = static_cast<std::uint8_t>(i);
  return n;
}

inline layout::member home_member(std::size_t i) { return {home_id(i), "home-" + std::to_string(i), 1'000'000'000}; }

// One home's program. Its disk is the machine's.
struct home {
  home(fake_hub& hub, machine& m_, std::uint32_t start, std::vector<std::string> mutations,
       std::size_t feed_entries_max = table::replicated::options().feed_entries_max)
      : m(m_), id(home_id(m_.index())), clock(m_.rt()), store(m_.open_kv()), wire(hub, m_, id), peers(m_.rt(), wire, id),
        tables(m_.rt(), *store, wire, peers, clock, id, options(start, std::move(mutations), feed_entries_max)) {
    tables.define(table::table_id::object, {.projection = [](bytes_view r) -> std::optional<bytes> {
                                              if (r == "hidden") return std::nullopt;
                                              return bytes(r.substr(0, 8));
                                            },
                                            .join = {}, .everywhere = false, .feed = true});
    tables.define(table::table_id::bucket, {.projection = {}, .join = {}, .everywhere = true});
    tables.define(table::table_id::reference, {.projection = {}, .join = [](bytes_view a, bytes_view b) { return bytes(std::max(a, b)); }, .everywhere = false});
  }
  static table::replicated::options options(std::uint32_t start, std::vector<std::string> mutations, std::size_t feed_entries_max) {
    table::replicated::options o;
    o.start_number = start;
    o.hint_interval = 2s;
    o.merkle_interval = 20s;
    o.mutations = std::move(mutations);
    o.feed_entries_max = feed_entries_max;
    return o;
  }
  // Founds a cluster, or takes over what a member handed out, or goes on with what is on disk.
  task<result<void>> begin(std::optional<layout::state> found, std::optional<layout::state> handed_out) {
    (void)wire.start();
    peers.start();
    if (found) CO_TRY_VOID(co_await tables.found(std::move(*found)));
    if (handed_out) CO_TRY_VOID(co_await tables.adopt(std::move(*handed_out)));
    cluster::self_info info;
    info.zone = "home-" + std::to_string(m.index());
    info.addresses = {wire.local()};
    info.layout_revision = tables.layout().revision;
    peers.set_self(std::move(info));
    for (std::size_t i = 0; i < m.index() + 8; ++i)
      if (i != m.index()) peers.add_peer(home_id(i), {"10.0.0." + std::to_string(i) + ":3901"});
    co_return co_await tables.start();
  }
  machine& m;
  node_id id;
  hybrid_clock clock;
  std::unique_ptr<kv::store> store;
  fake_endpoint wire;
  cluster::directory peers;
  table::replicated tables;
};

struct homes {
  explicit homes(std::uint64_t seed) : w(seed), hub(w) { w.set_all_lines({.delay = 25ms, .jitter = 2ms}); }
  ~homes() {
    for (std::size_t i = 0; i < w.size(); ++i) w.at(i).crash(true);
  }
  world w;
  fake_hub hub;
  std::map<std::size_t, home*> at;
  std::map<std::size_t, std::uint32_t> starts;
  std::function<void(home&)> on_home;  // before it begins
  std::size_t feed_entries_max = table::replicated::options().feed_entries_max;
  std::vector<std::string> mutations;

  home& operator[](std::size_t i) { return *at.at(i); }
  machine& add() { return w.add("home-" + std::to_string(w.size())); }
  void power_on(std::size_t i) {
    w.at(i).start([this, i](machine& m) -> std::shared_ptr<void> {
      auto h = std::make_shared<home>(hub, m, ++starts[i], mutations, feed_entries_max);
      at[i] = h.get();
      if (on_home) on_home(*h);
      return h;
    });
  }
  // The first home, which founds the cluster.
  void found() {
    add();
    power_on(0);
    cluster_id c;
    c.data()[0] = 1;
    REQUIRE_OK(w.await(w.at(0), at[0]->begin(layout::found(c, home_member(0)), std::nullopt)));
  }
  // A home that got the state from another one, and was made a member.
  void join(std::size_t by = 0) { ASSERT(try_join(by)); }
  // False when the members could not agree on it now: the new home is there, but no member.
  bool try_join(std::size_t by = 0) {
    const std::size_t i = w.size();
    add();
    power_on(i);
    layout::state s = at[by]->tables.layout();
    REQUIRE_OK(w.await(w.at(i), at[i]->begin(std::nullopt, s)));
    w.run_for(3s);
    auto edit = [i](const layout::state& now) -> result<std::vector<layout::member>> {
      auto all = now.current.members;
      all.push_back(home_member(i));
      return all;
    };
    auto r = w.await(w.at(by), at[by]->tables.change_members(edit, {}, w.now() + 20s));
    if (r && !*r) std::fprintf(stderr, "joining: %s\n", r->error().to_string().c_str());
    return r && *r;
  }
  void crash(std::size_t i, bool power_cut = false) {
    at.erase(i);
    w.at(i).crash(power_cut);
  }
  void again(std::size_t i) {
    power_on(i);
    REQUIRE_OK(w.await(w.at(i), at[i]->begin(std::nullopt, std::nullopt)));
  }
  bool settled(std::size_t members, nanoseconds within = 60s) {
    return w.run_until(
        [&] {
          for (auto& [i, h] : at)
            if (w.at(i).on() && (h->tables.layout().phase != layout::phase::settled || h->tables.layout().current.members.size() != members)) return false;
          return true;
        },
        within);
  }
  void grow(std::size_t n) {
    found();
    for (std::size_t i = 1; i < n; ++i) {
      join();
      ASSERT(settled(i + 1, 120s));
    }
    w.run_for(3s);
  }
  template <class T>
  static void REQUIRE_OK(const std::optional<result<T>>& r) {
    if (!r) std::fprintf(stderr, "a task did not end\n");
    else if (!*r) std::fprintf(stderr, "%s\n", r->error().to_string().c_str());
    ASSERT(r && *r);
  }

  // ------------------------------------------------------------------------------------------------- operations, waited for
  static table::row_key key(const bytes& k, const bytes& bucket = "photos") { return {table::table_id::object, bucket, k}; }
  table::op_options soon(nanoseconds d = 10s) {
    table::op_options o;
    o.deadline = w.now() + d;
    return o;
  }
  result<ballot> write(std::size_t i, const bytes& k, const bytes& v, shared_bytes body = nullptr, nanoseconds d = 10s) {
    auto r = write_rows(i, {{key(k), {true, v, std::move(body)}}}, d);
    if (!r) return fail(r.error());
    return (*r)[0];
  }
  result<std::vector<result<ballot>>> write_rows(std::size_t i, std::vector<table::write_item> items, nanoseconds d = 10s) {
    auto r = w.await(w.at(i), at[i]->tables.write(std::move(items), soon(d)));
    if (!r) return fail(errc::internal, "did not end");
    return std::move(*r);
  }
  result<table::row> read(std::size_t i, const bytes& k, bool body = false, nanoseconds d = 10s) {
    auto o = soon(d);
    o.with_body = body;
    auto r = w.await(w.at(i), at[i]->tables.read(key(k), std::move(o)));
    if (!r) return fail(errc::internal, "did not end");
    if (!*r) std::fprintf(stderr, "reading %s at %zu: %s\n", k.c_str(), i, r->error().to_string().c_str());
    return std::move(*r);
  }
  result<table::row> swap(std::size_t i, const bytes& k, std::optional<bytes> expected, const bytes& v) {
    table::judge j = [expected, v](const table::row& now) -> result<table::row_value> {
      if (now.value.present != expected.has_value() || (expected && now.value.row != *expected)) return fail(errc::condition_failed, now.value.row);
      return table::row_value{true, v, nullptr};
    };
    auto r = w.await(w.at(i), at[i]->tables.compare_and_swap(key(k), std::move(j), soon()));
    if (!r) return fail(errc::internal, "did not end");
    return std::move(*r);
  }
  result<table::list_page> list(std::size_t i, const bytes& prefix = {}, const bytes& delimiter = {}, const bytes& start = {}, std::size_t max = 1000,
                                const bytes& bucket = "photos") {
    table::list_request q{table::table_id::object, bucket, prefix, delimiter, start, max};
    auto r = w.await(w.at(i), at[i]->tables.list(std::move(q), soon()));
    if (!r) return fail(errc::internal, "did not end");
    return std::move(*r);
  }
  // What one home's disk holds of a row; empty: nothing.
  bytes held(std::size_t i, const bytes& k, const bytes& bucket = "photos") {
    bytes place;
    append_u16(place, layout::partition_of(bucket, 256));
    place.push_back('\1');
    place.push_back(static_cast<char>(bucket.size()));
    const auto& all = w.at(i).kv_disk.content(kv::family::row);
    auto found = all.find(place + bucket + k);
    return found == all.end() ? bytes() : found->second;
  }
  bool holds(std::size_t i, const bytes& k) { return !held(i, k).empty(); }
};

}  // namespace grenier::sim
