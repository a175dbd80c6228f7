// Blocks over the real tables, directory and peers, in virtual time: what the small fakes of block_sim_test.cc leave out.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "block/block.h"
#include "crypto/crypto.h"
#include "sim/world.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

crypto::node_key key_of(std::size_t i) { return crypto::node_key::from_seed(bytes(32, static_cast<char>('A' + i))); }
node_id id_of(std::size_t i) { return key_of(i).id(); }
layout::member member_of(std::size_t i) { return {id_of(i), "zone-" + std::to_string(i), 1'000'000'000}; }

struct home {
  home(machine& m_, std::uint32_t start)
      : m(m_), kv(m.open_kv()), endpoint(wire::make_endpoint(m.rt(), m.net(), peers_options(m))), directory(m.rt(), *endpoint, id_of(m.index())),
        clock(m.rt()), table(m.rt(), *kv, *endpoint, directory, clock, id_of(m.index()), {.start_number = start}),
        blocks(m.rt(), *kv, *endpoint, directory, table, id_of(m.index()), drives(m), {.grace_period = 1min}) {}
  static wire::options peers_options(machine& m) {
    return {.listen = "0.0.0.0:3901", .key = key_of(m.index()), .cluster_key = bytes(32, 'k'), .cluster = {}};
  }
  static std::vector<block::drive> drives(machine& m) {
    std::vector<block::drive> d;
    d.push_back({m.open_drive(0), 1'000'000'000});
    return d;
  }
  task<result<void>> begin(std::optional<layout::state> found, std::optional<layout::state> handed_out, std::size_t others) {
    CO_TRY_VOID(blocks.prepare());
    CO_TRY_VOID(endpoint->start());
    directory.start();
    if (found) CO_TRY_VOID(co_await table.found(std::move(*found)));
    if (handed_out) CO_TRY_VOID(co_await table.adopt(std::move(*handed_out)));
    cluster::self_info info;
    info.zone = "zone-" + std::to_string(m.index());
    info.addresses = {"10.0.0." + std::to_string(m.index()) + ":3901"};
    info.rpc_port = 3901;
    directory.set_self(std::move(info));
    for (std::size_t i = 0; i < others; ++i)
      if (i != m.index()) directory.add_peer(id_of(i), {"10.0.0." + std::to_string(i) + ":3901"});
    CO_TRY_VOID(co_await table.start());
    co_return co_await blocks.start();
  }
  machine& m;
  std::unique_ptr<kv::store> kv;
  std::unique_ptr<wire::endpoint> endpoint;
  cluster::directory directory;
  hybrid_clock clock;
  table::replicated table;
  block::manager blocks;
};

struct homes {
  explicit homes(std::size_t n, std::uint64_t seed = 1) : w(seed) {
    w.set_all_lines({.delay = 5ms, .jitter = 1ms, .rate = 5e6});
    for (std::size_t i = 0; i < n; ++i) {
      w.add("home" + std::to_string(i));
      at.push_back(nullptr);
      starts.push_back(0);
      boot(i, i == 0 ? std::optional(layout::found({}, member_of(0))) : std::nullopt,
           i == 0 ? std::nullopt : std::optional(at[0]->table.layout()));
      if (i == 0) continue;
      w.run_for(3s);
      change([i](std::vector<layout::member>& all) { all.push_back(member_of(i)); });
    }
  }
  ~homes() {
    for (std::size_t i = 0; i < w.size(); ++i) w.at(i).crash();
  }
  void boot(std::size_t i, std::optional<layout::state> found = {}, std::optional<layout::state> handed_out = {}) {
    w.at(i).start([&](machine& m) {
      auto h = std::make_shared<home>(m, ++starts[i]);
      at[i] = h.get();
      return h;
    });
    auto r = w.await(w.at(i), at[i]->begin(std::move(found), std::move(handed_out), at.size()));
    REQUIRE(r);
    INFO((*r ? "" : r->error().to_string()));
    REQUIRE(*r);
  }
  void crash(std::size_t i) {
    w.at(i).crash();
    at[i] = nullptr;
  }
  void change(std::function<void(std::vector<layout::member>&)> how) {
    auto edit = [how](const layout::state& now) -> result<std::vector<layout::member>> {
      auto all = now.current.members;
      how(all);
      return all;
    };
    auto r = w.await(w.at(0), at[0]->table.change_members(edit, {}, w.now() + 20s));
    REQUIRE(r);
    INFO((*r ? "" : r->error().to_string()));
    REQUIRE(*r);
    REQUIRE(w.run_until([&] {
      return std::all_of(at.begin(), at.end(), [&](home* h) {
        return !h || (h->table.layout().phase == layout::phase::settled && h->table.layout().revision >= at[0]->table.layout().revision);
      });
    }, 5min));
  }
  bool is_home(std::size_t i, const block_hash& h) {
    const auto& r = at[0]->table.layout().newest().replicas(layout::partition_of(h, at[0]->table.layout().partition_count()));
    return std::find(r.begin(), r.end(), id_of(i)) != r.end();
  }
  shared_bytes noise(std::size_t n = 50'000) {
    bytes b(n, '\0');
    for (auto& c : b) c = static_cast<char>(w.random()());
    return share(std::move(b));
  }
  block::reference ref(const shared_bytes& b, int version = 1) {
    block::reference r{crypto::hash_block(*b), {}, block::encode_owner({table::table_id::object, "bucket", "key"})};
    r.version.data()[15] = static_cast<std::uint8_t>(version);
    return r;
  }
  template <class T>
  result<T> wait(std::size_t i, task<result<T>> t) {
    auto r = w.await(w.at(i), std::move(t));
    REQUIRE(r);
    return std::move(*r);
  }
  result<void> put(std::size_t i, const shared_bytes& b, int v = 1) { return wait(i, at[i]->blocks.put(ref(b, v), b, w.now() + 20s)); }
  result<shared_bytes> get(std::size_t i, const block_hash& h) { return wait(i, at[i]->blocks.get(h, wire::priority::foreground, w.now() + 20s)); }
  bool file(std::size_t i, const block_hash& h) {
    return w.at(i).drives[0].files.contains(h.hex().substr(0, 2) + "/" + h.hex().substr(2, 2) + "/" + h.hex());
  }
  std::size_t copies(const block_hash& h) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < w.size(); ++i) n += file(i, h);
    return n;
  }
  world w;
  std::vector<home*> at;
  std::vector<std::uint32_t> starts;
};

}  // namespace

TEST_CASE("three homes: stored, fetched by the third, read everywhere, freed") {
  homes c(3);
  auto b = c.noise(1 << 20);
  auto h = crypto::hash_block(*b);
  auto put = c.put(1, b);
  INFO((put ? "" : put.error().to_string()));
  REQUIRE(put);
  CHECK(c.copies(h) >= 2);
  CHECK(c.w.run_until([&] { return c.copies(h) == 3; }, 30s));
  for (std::size_t i = 0; i < 3; ++i) CHECK(**c.get(i, h) == *b);
  CHECK(c.wait(2, c.at[2]->blocks.add_references({c.ref(b, 2)}, c.w.now() + 10s)));
  CHECK(c.wait(0, c.at[0]->blocks.withdraw({c.ref(b, 1)}, c.w.now() + 10s)));
  c.w.run_for(10min);
  CHECK(c.copies(h) == 3);
  CHECK(c.wait(0, c.at[0]->blocks.withdraw({c.ref(b, 2)}, c.w.now() + 10s)));
  CHECK(c.w.run_until([&] { return c.copies(h) == 0; }, 10min));
}

TEST_CASE("a home that slept is told by the table what it missed, and fetches it") {
  homes c(3);
  c.crash(2);
  c.w.run_for(5s);
  std::vector<block_hash> all;
  for (int i = 0; i < 10; ++i) {
    auto b = c.noise();
    all.push_back(crypto::hash_block(*b));
    CHECK(c.put(static_cast<std::size_t>(i % 2), b));
  }
  c.boot(2);
  CHECK(c.w.run_until([&] { return std::all_of(all.begin(), all.end(), [&](auto& h) { return c.file(2, h); }); }, 10min));
}

TEST_CASE("a fourth home joins: blocks move to where they belong, guests let go, nothing is lost on the way") {
  homes c(3);
  std::vector<shared_bytes> all;
  for (int i = 0; i < 30; ++i) {
    all.push_back(c.noise(20'000));
    REQUIRE(c.put(static_cast<std::size_t>(i % 3), all.back()));
  }
  c.w.run_for(10s);
  c.w.add("home3");
  c.at.push_back(nullptr);
  c.starts.push_back(0);
  c.boot(3, {}, c.at[0]->table.layout());
  c.w.run_for(3s);
  c.change([](std::vector<layout::member>& m) { m.push_back(member_of(3)); });
  for (int i = 0; i < 30; ++i) {
    all.push_back(c.noise(20'000));
    CHECK(c.put(static_cast<std::size_t>(i % 4), all.back()));
    CHECK(c.get(static_cast<std::size_t>((i + 1) % 4), crypto::hash_block(*all[static_cast<std::size_t>(i)])));
  }
  CHECK(c.w.run_until([&] {
    return std::all_of(all.begin(), all.end(), [&](auto& b) {
      auto h = crypto::hash_block(*b);
      for (std::size_t i = 0; i < 4; ++i)
        if (c.file(i, h) != c.is_home(i, h)) return false;
      return true;
    });
  }, 2h));
}

TEST_CASE("one home becomes three: its blocks spread by themselves") {
  homes c(1);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  REQUIRE(c.put(0, b));
  for (std::size_t i = 1; i < 3; ++i) {
    c.w.add("later" + std::to_string(i));
    c.at.push_back(nullptr);
    c.starts.push_back(0);
    c.boot(i, {}, c.at[0]->table.layout());
    c.w.run_for(3s);
    c.change([i](std::vector<layout::member>& m) { m.push_back(member_of(i)); });
  }
  CHECK(c.w.run_until([&] { return c.copies(h) == 3; }, 10min));
}
