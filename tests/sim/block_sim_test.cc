// Whole homes with real block managers, drives and local stores in virtual time; the lines between them and the references' table
// are small fakes (block_fakes.h), so that a test decides what a peer says and when.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <zstd.h>

#include "block/block.h"
#include "block/todo.h"
#include "crypto/crypto.h"
#include "sim/block_fakes.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

crypto::node_key key_of(std::size_t i) { return crypto::node_key::from_seed(bytes(32, static_cast<char>('a' + i))); }

block::manager::options quick() {
  block::manager::options o;
  o.grace_period = 1min;
  return o;
}

struct home {
  home(machine& m, block::manager::options o)
      : kv(m.open_kv()),
        endpoint(wire::make_endpoint(m.rt(), m.net(), {.listen = "", .key = key_of(m.index()), .cluster_key = bytes(), .cluster = {}})),
        directory(m.rt(), *endpoint, key_of(m.index()).id()),
        clock(m.rt()),
        table(m.rt(), *kv, *endpoint, directory, clock, key_of(m.index()).id(), {}),
        blocks(m.rt(), *kv, *endpoint, directory, table, key_of(m.index()).id(), drives(m), o) {
    REQUIRE(blocks.prepare());
    m.root().spawn("start", begin(*this));
  }
  static std::vector<block::drive> drives(machine& m) {
    std::vector<block::drive> d;
    for (std::size_t i = 0; i < m.drives.size(); ++i) d.push_back({m.open_drive(i), m.drives[i].capacity_bytes});
    return d;
  }
  static task<void> begin(home& h) {
    if (!co_await h.blocks.start()) std::abort();
    h.ready = true;
  }
  std::unique_ptr<kv::store> kv;
  std::unique_ptr<wire::endpoint> endpoint;
  cluster::directory directory;
  hybrid_clock clock;
  table::replicated table;
  block::manager blocks;
  bool ready = false;
};

struct homes {
  homes(std::size_t n, std::uint64_t seed = 1, block::manager::options o = quick(), std::size_t drives_each = 1) : w(seed), opt(o) {
    std::vector<layout::member> members;
    for (std::size_t i = 0; i < n; ++i) {
      members.push_back({key_of(i).id(), "zone-" + std::to_string(i), 1'000'000'000});
      w.add("home" + std::to_string(i)).drives.resize(drives_each);
      for (auto& d : w.at(i).drives) d.capacity_bytes = 1'000'000'000;
    }
    net.layout = layout::found({}, members[0]);
    auto plan = layout::assign(net.layout.current, members);
    REQUIRE(plan);
    net.layout.current = plan->next;
    at.resize(n);
    for (std::size_t i = 0; i < n; ++i) boot(i);
    w.run_for(100ms);
  }
  ~homes() {
    for (std::size_t i = 0; i < w.size(); ++i) w.at(i).crash();
  }
  void boot(std::size_t i) {
    w.at(i).start([this, i](machine& m) {
      auto h = std::make_shared<home>(m, opt);
      at[i] = h.get();
      return h;
    });
  }
  void crash(std::size_t i) {
    w.at(i).crash();
    at[i] = nullptr;
  }
  node_id id(std::size_t i) const { return key_of(i).id(); }
  block::manager& of(std::size_t i) { return at[i]->blocks; }
  bool is_home(std::size_t i, const block_hash& h) const {
    const auto& r = net.layout.newest().replicas(layout::partition_of(h, net.layout.partition_count()));
    return std::find(r.begin(), r.end(), id(i)) != r.end();
  }
  shared_bytes noise(std::size_t n = 100'000) {
    bytes b(n, '\0');
    for (auto& c : b) c = static_cast<char>(w.random()());
    return share(std::move(b));
  }
  // Content that has (or has not) its home at i.
  shared_bytes noise_at(std::size_t i, bool home, std::size_t n = 100'000) {
    for (;;) {
      auto b = noise(n);
      if (is_home(i, crypto::hash_block(*b)) == home) return b;
    }
  }
  block::reference ref(const shared_bytes& b, int version = 1) {
    block::reference r{crypto::hash_block(*b), {}, block::encode_owner({table::table_id::object, "bucket", "key"})};
    r.version.data()[15] = static_cast<std::uint8_t>(version);
    return r;
  }
  result<void> put(std::size_t i, const shared_bytes& b, int version = 1, nanoseconds time = 10s) {
    auto r = w.await(w.at(i), of(i).put(ref(b, version), b, w.at(i).rt().now() + time));
    REQUIRE(r);
    return *r;
  }
  result<shared_bytes> get(std::size_t i, const block_hash& h, nanoseconds time = 10s) {
    auto r = w.await(w.at(i), of(i).get(h, wire::priority::foreground, w.at(i).rt().now() + time));
    REQUIRE(r);
    return *r;
  }
  result<void> add(std::size_t i, std::vector<block::reference> refs, nanoseconds time = 10s) {
    auto r = w.await(w.at(i), of(i).add_references(std::move(refs), w.at(i).rt().now() + time));
    REQUIRE(r);
    return *r;
  }
  result<void> withdraw(std::size_t i, std::vector<block::reference> refs) {
    auto r = w.await(w.at(i), of(i).withdraw(std::move(refs), w.at(i).rt().now() + 10s));
    REQUIRE(r);
    return *r;
  }
  static std::string path(const block_hash& h) { return h.hex().substr(0, 2) + "/" + h.hex().substr(2, 2) + "/" + h.hex(); }
  // The synced file itself, in whatever form, on whatever drive.
  bytes* file(std::size_t i, const block_hash& h) {
    for (auto& d : w.at(i).drives)
      for (const char* form : {"", ".zst"})
        if (auto f = d.files.find(path(h) + form); f != d.files.end()) return &f->second;
    return nullptr;
  }
  std::size_t copies(const block_hash& h) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < w.size(); ++i) n += file(i, h) != nullptr;
    return n;
  }
  bool until(std::function<bool()> f, nanoseconds most = 5min) { return w.run_until(f, most); }

  world w;
  fake_cluster net;
  block::manager::options opt;
  std::vector<home*> at;
};

}  // namespace

TEST_CASE("put returns when two zones have the synced bytes; the third fetches them by itself") {
  homes c(3);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(c.put(0, b));
  CHECK(c.copies(h) >= 2);
  CHECK(c.of(0).is_here(h));
  CHECK(c.until([&] { return c.copies(h) == 3; }, 5s));
  for (std::size_t i = 0; i < 3; ++i) CHECK(**c.get(i, h) == *b);
  c.w.run_for(10s);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(c.of(i).stats().resync_queue == 0);
    CHECK(c.of(i).stats().blocks == 1);
    CHECK(c.of(i).stats().stored_bytes == b->size());
    CHECK(c.of(i).stats().guests == 0);
  }
}

TEST_CASE("work that is due before the commit that noted it has ended is taken up once it has") {
  struct local {
    static task<void> note(kv::store& kv, kv::batch b) { CHECK(co_await kv.commit(std::move(b))); }
  };
  world w(1);
  auto& m = w.add("home");
  m.kv_disk.behaviour.commit_delay = 15s;
  m.start([](machine&) { return std::make_shared<int>(); });
  auto kv = m.open_kv();
  block::todo_queue queue(m.rt(), *kv, block::row_kind::missing);
  kv::batch b;
  queue.add(b, {.hash = crypto::hash_block("x"), .due_ms = m.rt().wall_ms() + 500});
  m.root().spawn("note", local::note(*kv, std::move(b)));
  auto some = w.await(m, queue.next(10), 1min);
  REQUIRE(some);
  CHECK(some->size() == 1);
  m.crash();
}

TEST_CASE("work that was put off by a clock far ahead is taken up when the clock is right again") {
  for (nanoseconds due : {nanoseconds(10s), nanoseconds(3min), nanoseconds(-1s)}) {
    const bool tried = due < 0s;  // once, under that clock
    CAPTURE(tried);
    world w(1);
    auto& m = w.add("home");
    m.start([](machine&) { return std::make_shared<int>(); });
    auto kv = m.open_kv();
    block::todo_queue queue(m.rt(), *kv, block::row_kind::missing);
    m.clock().skew = milliseconds(3h);
    const std::uint64_t first = m.rt().wall_ms() - static_cast<std::uint64_t>(nanoseconds(3h) / 1ms);
    kv::batch b;
    if (tried) queue.add(b, {.hash = crypto::hash_block("x"), .due_ms = m.rt().wall_ms() + 60'000, .since_ms = first, .attempts = 4});
    else queue.add(b, {.hash = crypto::hash_block("x"), .due_ms = m.rt().wall_ms() + static_cast<std::uint64_t>(due / 1ms)});
    CHECK(*w.await(m, kv->commit(std::move(b))));
    w.call_at(w.now() + 5s, [&] { m.clock().skew = 0ms; });
    const mono_time began = w.now();
    auto some = w.await(m, queue.next(10), 30min);
    REQUIRE(some);
    CHECK(some->size() == 1);
    CHECK(w.now() - began < std::max<nanoseconds>(due, 0s) + 3min);
    m.crash();
  }
}

TEST_CASE("what was put survives kill -9 of every home") {
  homes c(3);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(c.put(1, b));
  for (std::size_t i = 0; i < 3; ++i) c.crash(i);
  for (std::size_t i = 0; i < 3; ++i) c.boot(i);
  c.w.run_for(100ms);
  for (std::size_t i = 0; i < 3; ++i) CHECK(**c.get(i, h) == *b);
  CHECK(c.until([&] { return c.copies(h) == 3; }));
}

TEST_CASE("a text block is stored and sent compressed") {
  homes c(3);
  auto b = share(bytes(1'000'000, 't'));
  CHECK(c.put(0, b));
  auto h = crypto::hash_block(*b);
  CHECK(c.file(0, h)->size() < 10'000);
  CHECK(c.net.carried[{c.id(0), c.id(1)}] + c.net.carried[{c.id(0), c.id(2)}] < 20'000);
  c.until([&] { return c.copies(h) == 3; });
  c.crash(0);
  CHECK(**c.get(2, h) == *b);
}

TEST_CASE("sizes out of bounds are refused") {
  homes c(1);
  CHECK(c.put(0, share("")).failed_with(errc::invalid_argument));
  CHECK(c.put(0, share(bytes(block::block_size_max + 1, 'x'))).failed_with(errc::invalid_argument));
  auto largest = c.noise(block::block_size_max);
  CHECK(c.put(0, largest));
  CHECK(**c.get(0, crypto::hash_block(*largest)) == *largest);
  CHECK(c.put(0, share("x")));
}

TEST_CASE("one home alone keeps one copy, two keep two") {
  for (std::size_t n : {1, 2}) {
    homes c(n);
    auto b = c.noise();
    CHECK(c.put(0, b));
    CHECK(c.copies(crypto::hash_block(*b)) == n);
  }
}

TEST_CASE("of three zones one may be dark, not two") {
  homes c(3);
  c.net.down.insert(c.id(2));
  auto b = c.noise();
  CHECK(c.put(0, b));
  CHECK(c.copies(crypto::hash_block(*b)) == 2);
  c.net.down.insert(c.id(1));
  CHECK(c.put(0, c.noise()).failed_with(errc::unavailable));
  // The one that slept gets its copies when it is back and was told (its references come by the table).
  c.net.down.clear();
  CHECK(c.add(0, {c.ref(b)}));
  CHECK(c.until([&] { return c.copies(crypto::hash_block(*b)) == 3; }));
}

TEST_CASE("a guest hands its copy over and then lets it go") {
  homes c(4);
  auto b = c.noise_at(0, false);
  auto h = crypto::hash_block(*b);
  CHECK(c.put(0, b));
  CHECK(c.file(0, h));  // itself first
  CHECK(c.of(0).stats().guests == 1);
  CHECK(c.until([&] { return c.copies(h) == 4; }, 10s));
  CHECK(c.until([&] { return c.copies(h) == 3 && !c.file(0, h); }));
  CHECK(c.of(0).stats().guests == 0);
  CHECK(c.of(0).stats().blocks == 0);
  CHECK_FALSE(c.of(0).is_here(h));
  c.w.run_for(3min);
  CHECK(c.copies(h) == 3);
}

TEST_CASE("a guest keeps its copy while a home of the block is away, and hands it over after") {
  homes c(4);
  auto b = c.noise_at(0, false);
  auto h = crypto::hash_block(*b);
  c.net.down.insert(c.id(3));
  CHECK(c.put(0, b));
  c.w.run_for(30min);
  CHECK(c.file(0, h));
  CHECK(c.copies(h) == 3);
  c.net.down.clear();
  CHECK(c.add(1, {c.ref(b)}));  // the reference comes to it (as anti-entropy would bring it)
  CHECK(c.until([&] { return c.file(3, h) && !c.file(0, h); }, 30min));
}

TEST_CASE("a guest never lets go of what its homes say they have but cannot read") {
  homes c(4);
  auto b = c.noise_at(0, false);
  auto h = crypto::hash_block(*b);
  c.net.on_the_way = [&](node_id, node_id, wire::method m, wire::message msg) -> std::optional<wire::message> {
    if (m == wire::method::block_guests) return std::nullopt;  // not yet
    return msg;
  };
  CHECK(c.put(0, b));
  CHECK(c.until([&] { return c.copies(h) == 4; }));
  for (std::size_t i = 1; i < 4; ++i) (*c.file(i, h))[5] ^= 1;
  c.net.on_the_way = nullptr;
  CHECK(c.until([&] { return !c.file(0, h); }, 30min));
  for (std::size_t i = 1; i < 4; ++i) {
    CHECK(*c.file(i, h) == *b);  // fetched again from the guest before it let go
    CHECK(c.of(i).stats().corrupt_found >= 1);
    CHECK(c.of(i).stats().repaired >= 1);
  }
}

TEST_CASE("the same bytes are stored once") {
  homes c(3);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(c.put(0, b, 1));
  c.until([&] { return c.copies(h) == 3; });
  CHECK(c.put(0, b, 2));
  CHECK(c.put(1, b, 3));
  CHECK(c.of(0).stats().blocks == 1);
  CHECK(c.of(0).stats().stored_bytes == b->size());
  CHECK(c.of(0).stats().deduplicated >= 1);
}

TEST_CASE("over a slow line a known block is asked for, not sent again; and a new one crosses it once") {
  homes c(3);
  double slow = 32'000;  // 0.26 Mbit/s
  for (std::size_t i = 1; i < 3; ++i) c.net.lines[{c.id(0), c.id(i)}] = {.rtt = 60ms, .rate = slow};
  for (std::size_t i = 1; i < 3; ++i) c.net.lines[{c.id(i), c.id(0)}] = {.rtt = 60ms, .rate = 500'000};
  c.net.lines[{c.id(1), c.id(2)}] = c.net.lines[{c.id(2), c.id(1)}] = {.rtt = 22ms, .rate = 5e6};
  auto b = c.noise(1 << 20);
  auto h = crypto::hash_block(*b);
  auto carried = [&] { return c.net.carried[{c.id(0), c.id(1)}] + c.net.carried[{c.id(0), c.id(2)}]; };
  CHECK(c.put(0, b, 1, 5min));
  CHECK(c.until([&] { return c.copies(h) == 3; }, 10min));
  CHECK(carried() == b->size());
  mono_time before = c.w.now();
  CHECK(c.put(0, b, 2, 5min));
  CHECK(c.w.now() - before < 1s);
  CHECK(carried() == b->size());
}

TEST_CASE("a fibre home does not wait for the ADSL home that placement named") {
  homes c(4);
  // 0 and 3 have fibre; 1 and 2 are slow to reach.
  for (std::size_t i : {0u, 3u})
    for (std::size_t j : {1u, 2u}) c.net.lines[{c.id(i), c.id(j)}] = c.net.lines[{c.id(j), c.id(i)}] = {.rtt = 60ms, .rate = 250'000};
  c.net.lines[{c.id(0), c.id(3)}] = c.net.lines[{c.id(3), c.id(0)}] = {.rtt = 22ms, .rate = 9e6};
  shared_bytes b;
  do b = c.noise_at(0, true, 1 << 20);
  while (c.is_home(3, crypto::hash_block(*b)));
  mono_time before = c.w.now();
  CHECK(c.put(0, b));
  CHECK(c.w.now() - before < 400ms);  // the slow line alone would take more than 4 s
  auto h = crypto::hash_block(*b);
  CHECK(c.file(3, h));  // a guest
  CHECK(c.until([&] { return c.file(1, h) && c.file(2, h) && !c.file(3, h); }, 10min));
}

TEST_CASE("a damaged file is never served: the reader gets another copy, and the file is repaired") {
  homes c(3);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(c.put(0, b));
  c.until([&] { return c.copies(h) == 3; });
  c.crash(2);  // what it has just received it would answer from memory
  (*c.file(2, h))[1000] ^= 1;
  c.boot(2);
  c.w.run_for(100ms);
  CHECK(**c.get(2, h) == *b);
  CHECK(c.of(2).stats().corrupt_found == 1);
  CHECK(c.until([&] { return c.file(2, h) && *c.file(2, h) == *b; }));
  CHECK(c.until([&] { return c.of(2).stats().repaired == 1; }, 1s));
  CHECK(c.until([&] { return c.of(2).stats().resync_queue == 0; }));
}

TEST_CASE("a file that could not be read is read again by its own home, though no other has the block") {
  homes c(3);
  auto b = c.noise(), other = c.noise();
  auto h = crypto::hash_block(*b), h2 = crypto::hash_block(*other);
  CHECK(c.put(0, b));
  CHECK(c.put(0, other));
  c.until([&] { return c.copies(h) == 3 && c.copies(h2) == 3; });
  for (std::size_t i : {0u, 1u, 2u}) {
    c.crash(i);
    c.w.at(i).drives[0].unreadable = true;
    c.boot(i);
  }
  c.w.run_for(100ms);
  for (std::size_t i : {0u, 1u, 2u}) {
    CHECK_FALSE(c.get(i, h));
    CHECK_FALSE(c.get(i, h2));
  }
  CHECK(c.until([&] { return c.of(0).stats().resync_queue == 2 && c.of(1).stats().resync_queue == 2; }, 10s));
  c.w.run_for(10min);
  CHECK(c.file(0, h));
  for (std::size_t i : {0u, 1u, 2u}) c.w.at(i).drives[0].unreadable = false;
  CHECK(c.until([&] { return c.of(0).stats().resync_queue + c.of(1).stats().resync_queue + c.of(2).stats().resync_queue == 0; }, 6min));
  CHECK(**c.get(1, h) == *b);
  CHECK(**c.get(2, h2) == *other);
}

TEST_CASE("a block that no home which is up has is counted, until one has it") {
  homes c(3);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(c.put(0, b));
  c.until([&] { return c.copies(h) == 3; });
  for (std::size_t i : {0u, 1u, 2u}) c.crash(i);
  for (std::size_t i : {0u, 1u}) {
    (*c.file(i, h))[1000] ^= 1;
    c.boot(i);
  }
  c.w.run_for(1s);
  CHECK_FALSE(c.get(0, h));
  CHECK(c.of(0).stats().nowhere == 0);  // not everybody was asked
  CHECK(c.until([&] { return c.of(0).stats().nowhere == 1 && c.of(1).stats().nowhere == 1; }, 10min));
  c.boot(2);
  CHECK(c.until([&] { return c.of(0).stats().nowhere == 0 && c.of(1).stats().nowhere == 0 && c.of(0).stats().resync_queue == 0; }, 30min));
  CHECK(*c.file(0, h) == *b);
}

TEST_CASE("what went wrong with a block is said until that block is here, whatever else goes well") {
  homes c(3);
  auto b = c.noise(), other = c.noise();
  auto h = crypto::hash_block(*b), h2 = crypto::hash_block(*other);
  CHECK(c.put(0, b));
  CHECK(c.put(0, other));
  c.until([&] { return c.copies(h) == 3 && c.copies(h2) == 3; });
  for (std::size_t i : {0u, 1u, 2u}) c.crash(i);
  (*c.file(0, h2))[1000] ^= 1;
  for (std::size_t i : {0u, 1u}) {
    (*c.file(i, h))[1000] ^= 1;
    c.boot(i);
  }
  c.w.run_for(1s);
  CHECK_FALSE(c.get(0, h));
  auto says = [&](const table::work& w) { return w.latest() && w.latest()->what.find(h.short_hex()) != std::string::npos; };
  CHECK(c.until([&] { return says(c.of(0).stats().resync); }));
  c.of(0).scrub_now();
  CHECK(c.until([&] { return c.file(0, h2) && *c.file(0, h2) == *other && c.of(0).stats().resync.items > 0; }));
  for (nanoseconds more : {nanoseconds(0s), nanoseconds(3h)}) {
    c.w.run_for(more);
    CHECK(says(c.of(0).stats().resync));
    CHECK(says(c.of(0).stats().scrub));
  }
  c.boot(2);
  CHECK(c.until([&] { return c.of(0).stats().resync_queue == 0; }, 3h));
  CHECK(c.until([&] { return !c.of(0).stats().resync.latest() && !c.of(0).stats().scrub.latest(); }, 10s));
}

TEST_CASE("no intact copy is corrupt, no copy is not_found, no answer is unavailable or timed_out") {
  homes c(3);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(c.put(0, b));
  c.until([&] { return c.copies(h) == 3; });
  for (std::size_t i = 0; i < 3; ++i) c.crash(i);
  for (std::size_t i = 0; i < 3; ++i) (*c.file(i, h))[7] ^= 1;
  for (std::size_t i = 0; i < 3; ++i) c.boot(i);
  c.w.run_for(100ms);
  auto r = c.get(1, h);
  INFO((r ? "found" : r.error().to_string()));
  CHECK(r.failed_with(errc::corrupt));
  CHECK(c.get(1, crypto::hash_block("nowhere")).failed_with(errc::not_found));
  c.net.down = {c.id(0), c.id(2)};
  CHECK(c.get(1, crypto::hash_block("nowhere")).failed_with(errc::unavailable));
  c.net.down.clear();
  c.net.on_the_way = [&](node_id, node_id, wire::method, wire::message) { return std::optional<wire::message>(); };
  CHECK(c.get(1, crypto::hash_block("nowhere"), 2s).failed_with(errc::timed_out));
}

TEST_CASE("a reader is not held up by a silent home, and readers of one block share one fetch") {
  homes c(4);
  auto b = c.noise_at(0, false);
  auto h = crypto::hash_block(*b);
  CHECK(c.put(1, b));
  c.until([&] { return c.copies(h) == 3; });
  c.w.run_for(1min);
  node_id silent = c.id(1);
  c.net.lines[{c.id(0), silent}] = {.rtt = 100us};  // the nearest
  c.net.on_the_way = [&](node_id, node_id to, wire::method m, wire::message msg) -> std::optional<wire::message> {
    if (m == wire::method::block_get && to == silent) return std::nullopt;
    return msg;
  };
  mono_time before = c.w.now();
  std::vector<shared_bytes> got;
  auto read = [](homes& all, block_hash hash, std::vector<shared_bytes>& to) -> task<void> {
    auto r = co_await all.of(0).get(hash, wire::priority::foreground, all.w.at(0).rt().now() + 10s);
    if (r) to.push_back(*r);
  };
  for (int i = 0; i < 20; ++i) c.w.at(0).root().spawn("read", read(c, h, got));
  CHECK(c.until([&] { return got.size() == 20; }, 3s));
  CHECK(c.w.now() - before < 2s);
  for (auto& g : got) CHECK(*g == *b);
  CHECK(c.net.calls[{c.id(0), wire::method::block_get}] == 2);
}

TEST_CASE("a block that is missing is fetched from the next home soon, when the best one does not answer; later that one is asked last") {
  homes c(3);
  c.net.default_line = {.rtt = 20ms, .rate = 1e6};
  for (std::size_t i = 1; i < 3; ++i) c.net.lines[{c.id(0), c.id(i)}] = c.net.lines[{c.id(i), c.id(0)}] = {.rtt = 2ms, .rate = 10e6};
  std::map<node_id, int> asked;  // by whom
  c.net.on_the_way = [&](node_id from, node_id to, wire::method m, wire::message msg) -> std::optional<wire::message> {
    if (m != wire::method::block_get || to != c.id(0)) return msg;
    ++asked[from];
    return std::nullopt;
  };
  // One at a time, as a slow trickle of new blocks is.
  for (int i = 0; i < 12; ++i) {
    auto b = c.noise();
    auto h = crypto::hash_block(*b);
    REQUIRE(c.put(0, b));
    const bool in_time = c.until([&] { return c.copies(h) == 3; }, 40s);
    CAPTURE(i);
    CHECK(in_time);
    if (!in_time) break;
  }
  for (std::size_t i = 1; i < 3; ++i) CHECK(asked[c.id(i)] <= 3);
  CHECK(asked[c.id(1)] + asked[c.id(2)] >= 3);
}

TEST_CASE("a peer that sends other bytes is not believed") {
  homes c(4);
  auto b = c.noise_at(0, false);
  auto h = crypto::hash_block(*b);
  CHECK(c.put(1, b));
  c.until([&] { return c.copies(h) == 3; });
  (*c.file(1, h))[3] ^= 1;
  (*c.file(2, h))[3] ^= 1;
  CHECK(**c.get(0, h) == *b);
}

TEST_CASE("hostile peers' blocks are refused and leave nothing") {
  homes c(3);
  auto call = [&](std::size_t from, wire::method m, wire::message msg) {
    auto r = c.w.await(c.w.at(from), c.at[from]->endpoint->call(c.id(1), m, std::move(msg), {wire::priority::foreground, c.w.at(from).rt().now() + 5s}));
    REQUIRE(r);
    return std::move(*r);
  };
  // Field 1: hash; field 2: zstd.
  auto head = [](bytes_view hash, bool zstd) { return bytes("\x0a") + static_cast<char>(hash.size()) + bytes(hash) + (zstd ? bytes("\x10\x01") : bytes()); };
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(call(0, wire::method::block_put, {head(h.view(), false), c.noise()}).failed_with(errc::bad_digest));
  CHECK(call(0, wire::method::block_put, {head(h.view(), true), b}).failed_with(errc::protocol));
  CHECK(call(0, wire::method::block_put, {head("short", false), b}).failed_with(errc::invalid_argument));
  CHECK(call(0, wire::method::block_put, {"\xff\xff\xff", b}).failed_with(errc::protocol));
  CHECK(call(0, wire::method::block_put, {head(h.view(), false), nullptr}).failed_with(errc::invalid_argument));
  CHECK(call(0, wire::method::block_put, {head(h.view(), false), c.noise(block::block_size_max + 1)}).failed_with(errc::invalid_argument));
  bytes zeros(512 << 20, '\0'), bomb(ZSTD_compressBound(zeros.size()), '\0');
  bomb.resize(ZSTD_compress(bomb.data(), bomb.size(), zeros.data(), zeros.size(), 1));
  CHECK(call(0, wire::method::block_put, {head(crypto::hash_block(zeros).view(), true), share(bomb)}).failed_with(errc::protocol));
  for (auto m : {wire::method::block_get, wire::method::block_have, wire::method::block_reference, wire::method::block_guests, wire::method::block_count})
    CHECK_FALSE(call(0, m, {"\x0a\x03" "abc", nullptr}));
  CHECK(c.of(1).stats().blocks == 0);
  CHECK(c.w.at(1).drives[0].files.empty());
  // Who is no member is refused, whatever it brings.
  auto members = c.net.layout.current.members;
  std::erase_if(c.net.layout.current.members, [&](const auto& m) { return m.node == c.id(0); });
  CHECK(call(0, wire::method::block_put, {head(h.view(), false), b}).failed_with(errc::access_denied));
  c.net.layout.current.members = members;
  CHECK(call(0, wire::method::block_put, {head(h.view(), false), b}));
}

TEST_CASE("references without bytes: taken when the files are there, refused when one is missing") {
  homes c(3);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  auto other = c.noise();
  CHECK(c.put(0, b));
  CHECK(c.add(1, {c.ref(b, 2)}));  // at once
  c.until([&] { return c.copies(h) == 3; });
  CHECK(c.add(2, {c.ref(b, 3), c.ref(b, 4)}));
  CHECK(c.add(2, {c.ref(b, 5), c.ref(other, 5)}).failed_with(errc::not_found));
  // A file that is there but damaged is not there: one such is borne, two are not.
  (*c.file(0, h))[9] ^= 1;
  c.net.down = {c.id(2)};
  CHECK_FALSE(c.add(1, {c.ref(b, 6)}, 5s));
  c.net.down.clear();
  CHECK(c.until([&] { return c.file(0, h) && *c.file(0, h) == *b; }));
  CHECK(c.add(1, {c.ref(b, 6)}));
  c.net.down = {c.id(1), c.id(2)};
  CHECK(c.add(0, {c.ref(b, 7)}).failed_with(errc::unavailable));
}

TEST_CASE("a guest answers for its block like a replica") {
  homes c(4);
  shared_bytes b = c.noise_at(0, false);
  auto h = crypto::hash_block(*b);
  // The homes cannot fetch: only guest 0 and one home have it.
  c.net.on_the_way = [&](node_id, node_id, wire::method m, wire::message msg) -> std::optional<wire::message> {
    if (m == wire::method::block_get) return std::nullopt;
    return msg;
  };
  CHECK(c.put(0, b));
  CHECK(c.copies(h) == 2);
  CHECK(c.add(1, {c.ref(b, 2)}));
  // Many at once, some of them guests here and there.
  std::vector<block::reference> many;
  for (int i = 0; i < 100; ++i) {
    auto x = c.noise(1000);
    CHECK(c.put(static_cast<std::size_t>(i % 4), x));
    many.push_back(c.ref(x, 9));
  }
  CHECK(c.add(2, many, 60s));
}

TEST_CASE("an unreferenced block goes after its grace period, not before; a referenced one stays") {
  homes c(3);
  auto gone = c.noise(), kept = c.noise();
  auto g = crypto::hash_block(*gone), k = crypto::hash_block(*kept);
  for (auto& b : {gone, kept}) CHECK(c.put(0, b, 1));
  CHECK(c.put(0, kept, 2));
  c.until([&] { return c.copies(g) == 3 && c.copies(k) == 3; });
  CHECK(c.withdraw(1, {c.ref(gone, 1), c.ref(kept, 1)}));
  CHECK(c.of(0).stats().garbage_queue == 2);
  c.w.run_for(55s);
  CHECK(c.copies(g) == 3);
  CHECK(c.until([&] { return c.copies(g) == 0; }, 3min));
  CHECK(c.until([&] { return c.of(0).stats().garbage_queue == 0; }));
  c.w.run_for(30min);
  CHECK(c.copies(k) == 3);
  CHECK(c.of(0).stats().blocks == 1);
  CHECK(c.of(0).stats().stored_bytes == kept->size());
}

TEST_CASE("re-uploading the bytes that were just deleted loses nothing") {
  homes c(3);
  for (int round = 0; round < 30; ++round) {
    auto b = c.noise(2000);
    auto h = crypto::hash_block(*b);
    CHECK(c.put(0, b, 1));
    CHECK(c.withdraw(0, {c.ref(b, 1)}));
    // Around the moment when it is freed.
    c.w.run_for(59s + milliseconds(c.w.below(3000)));
    CHECK(c.put(c.w.below(3), b, 2));
    c.w.run_for(5min);
    CHECK(c.copies(h) == 3);
    CHECK(**c.get(c.w.below(3), h) == *b);
  }
}

TEST_CASE("copying a block around the moment when it is freed keeps it, or says that it is not there") {
  homes c(3);
  int taken = 0, refused = 0;
  for (int round = 0; round < 60; ++round) {
    auto b = c.noise(2000);
    auto h = crypto::hash_block(*b);
    CHECK(c.put(0, b, 1));
    CHECK(c.withdraw(0, {c.ref(b, 1)}));
    c.w.run_for(59s + milliseconds(c.w.below(4000)));
    auto r = c.add(c.w.below(3), {c.ref(b, 2)}, 3s);
    c.w.run_for(5min);
    if (r) {
      ++taken;
      CHECK(c.copies(h) == 3);
    } else {
      ++refused;
    }
  }
  CHECK(taken > 0);
  CHECK(refused > 0);
}

TEST_CASE("nothing is freed while no quorum says that it is unreferenced") {
  homes c(3);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(c.put(0, b));
  c.until([&] { return c.copies(h) == 3; });
  CHECK(c.withdraw(0, {c.ref(b)}));
  c.net.down = {c.id(1), c.id(2)};
  c.w.run_for(30min);
  CHECK(c.file(0, h));
  c.net.down = {c.id(2)};  // a quorum, whoever is absent
  CHECK(c.until([&] { return !c.file(0, h) && !c.file(1, h); }, 30min));
}

TEST_CASE("a newcomer's word that nothing refers to a block does not count") {
  homes c(3);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(c.put(0, b));
  c.until([&] { return c.copies(h) == 3; });
  CHECK(c.withdraw(0, {c.ref(b)}));
  c.net.newcomers = {c.id(1), c.id(2)};
  c.w.run_for(30min);
  CHECK(c.copies(h) == 3);
  c.net.newcomers.clear();
  CHECK(c.until([&] { return c.copies(h) == 0; }, 30min));
}

TEST_CASE("a replica that missed a reference does not free the block") {
  homes c(3);
  auto b = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(c.put(0, b, 1));
  c.until([&] { return c.copies(h) == 3; });
  c.net.down = {c.id(2)};
  CHECK(c.put(0, b, 2));  // home 2 does not hear of it
  c.net.down.clear();
  CHECK(c.withdraw(0, {c.ref(b, 1)}));
  c.w.run_for(30min);
  CHECK(c.copies(h) == 3);
}

TEST_CASE("a full home passes blocks on; when no two zones have room, no_space") {
  homes c(4);
  c.w.at(0).drives[0].full = true;
  c.w.at(1).drives[0].full = true;
  auto b = c.noise();
  CHECK(c.put(0, b));
  auto h = crypto::hash_block(*b);
  CHECK(c.file(2, h));
  CHECK(c.file(3, h));
  c.w.at(2).drives[0].full = true;
  CHECK(c.put(0, c.noise()).failed_with(errc::no_space));
  c.w.run_for(15s);
  CHECK_FALSE(c.of(0).has_space(1));
  CHECK(c.of(3).has_space(1'000'000));
  CHECK_FALSE(c.of(3).has_space(2'000'000'000));
  for (std::size_t i = 0; i < 3; ++i) c.w.at(i).drives[0].full = false;
  c.w.run_for(15s);
  CHECK(c.of(0).has_space(1));
  CHECK(c.put(0, c.noise()));
}

TEST_CASE("a drive that fails is out: its blocks are written to another and fetched again") {
  homes c(3, 1, quick(), 3);
  std::vector<block_hash> all;
  for (int i = 0; i < 30; ++i) {
    auto b = c.noise(20'000);
    all.push_back(crypto::hash_block(*b));
    CHECK(c.put(0, b));
  }
  CHECK(c.until([&] { return std::all_of(all.begin(), all.end(), [&](auto& h) { return c.copies(h) == 3; }); }));
  for (auto& d : c.w.at(0).drives) CHECK(d.files.size() > 2);  // spread
  auto& bad = c.w.at(0).drives[1];
  bad.broken = true;
  for (int i = 0; i < 10; ++i) CHECK(c.put(0, c.noise(20'000)));
  CHECK(c.until([&] {
    return std::all_of(all.begin(), all.end(), [&](auto& h) {
      auto p = homes::path(h);
      return c.w.at(0).drives[0].files.contains(p) || c.w.at(0).drives[2].files.contains(p);
    });
  }, 30min));
  for (auto& h : all) CHECK(c.get(0, h));
}

TEST_CASE("scrub finds a damaged block that nobody reads, and repairs it") {
  homes c(3);
  auto b = c.noise(), good = c.noise();
  auto h = crypto::hash_block(*b);
  CHECK(c.put(0, b));
  CHECK(c.put(0, good));
  c.until([&] { return c.copies(h) == 3; });
  c.w.run_for(10s);
  (*c.file(1, h))[11] ^= 1;
  c.of(1).scrub_now();
  CHECK(c.until([&] { return c.of(1).stats().repaired == 1; }, 1min));
  CHECK(*c.file(1, h) == *b);
  CHECK(c.until([&] { return c.of(1).stats().scrubbed >= 2; }, 1min));
  CHECK(c.of(1).stats().corrupt_found == 1);
  // A file that vanished.
  c.w.at(2).drives[0].files.erase(homes::path(h));
  c.of(2).scrub_now();
  CHECK(c.until([&] { return c.file(2, h) != nullptr; }, 1min));
}

TEST_CASE("scrub passes over everything in its period by itself") {
  auto o = quick();
  o.scrub_period = 1h;
  homes c(1, 1, o);
  for (int i = 0; i < 10; ++i) CHECK(c.put(0, c.noise(1000)));
  c.w.run_for(2h);
  CHECK(c.of(0).stats().scrubbed >= 9);
  CHECK(c.of(0).stats().scrubbed <= 30);
}

TEST_CASE("after a crash between file and row the file is taken in or freed, and unfinished writes go") {
  homes c(3);
  auto b = c.noise(), orphan = c.noise();
  auto h = crypto::hash_block(*b), o = crypto::hash_block(*orphan);
  CHECK(c.put(0, b));
  c.crash(0);
  auto& files = c.w.at(0).drives[0].files;
  files[homes::path(o)] = *orphan;
  files[homes::path(h) + ".7.tmp"] = "half";
  files["somebody's file"] = "left alone";
  c.boot(0);
  CHECK(c.until([&] { return !files.contains(homes::path(h) + ".7.tmp"); }, 10s));
  CHECK(c.file(0, h));
  CHECK(c.until([&] { return !c.file(0, o); }, 30min));  // nothing refers to it
  CHECK(files.contains("somebody's file"));
  CHECK(c.of(0).stats().blocks == 1);
}

TEST_CASE("drives given in another order still give their blocks") {
  homes c(1, 1, quick(), 2);
  std::vector<shared_bytes> all;
  for (int i = 0; i < 20; ++i) {
    all.push_back(c.noise(5000));
    CHECK(c.put(0, all.back()));
  }
  c.crash(0);
  std::swap(c.w.at(0).drives[0], c.w.at(0).drives[1]);
  c.boot(0);
  c.w.run_for(100ms);
  for (auto& b : all) CHECK(**c.get(0, crypto::hash_block(*b)) == *b);
  c.w.run_for(10min);
  for (auto& b : all) CHECK(c.copies(crypto::hash_block(*b)) == 1);
  CHECK(c.of(0).stats().blocks == 20);
}

TEST_CASE("after a layout change blocks move to their new homes, and the old ones let go") {
  homes c(4);
  std::vector<shared_bytes> all;
  for (int i = 0; i < 20; ++i) {
    all.push_back(c.noise(5000));
    CHECK(c.put(static_cast<std::size_t>(i % 4), all.back()));
  }
  c.w.run_for(2min);
  // Home 3 leaves: everything that it held belongs to 0, 1 and 2.
  auto members = c.net.layout.current.members;
  std::vector<layout::member> left;
  for (auto m : members) {
    if (m.node == c.id(3)) m.capacity_bytes = 0;
    left.push_back(m);
  }
  auto plan = layout::assign(c.net.layout.current, left);
  REQUIRE(plan);
  c.net.layout.current = plan->next;
  ++c.net.layout.revision;
  // References come to the new replicas by the table; here by a copy of each.
  for (auto& b : all) CHECK(c.add(0, {c.ref(b, 2)}, 60s));
  CHECK(c.until([&] {
    return std::all_of(all.begin(), all.end(), [&](auto& b) {
      auto h = crypto::hash_block(*b);
      return c.file(0, h) && c.file(1, h) && c.file(2, h) && !c.file(3, h);
    });
  }, 2h));
  CHECK(c.of(3).stats().guests == 0);
}

TEST_CASE("a put that its caller gives up in time says so") {
  homes c(3);
  c.net.on_the_way = [&](node_id, node_id, wire::method, wire::message) { return std::optional<wire::message>(); };
  mono_time before = c.w.now();
  CHECK(c.put(0, c.noise(), 1, 3s).failed_with(errc::timed_out));
  CHECK(c.w.now() - before <= 3s + 100ms);
}

TEST_CASE("a silent target is hedged by another zone") {
  homes c(4);
  auto b = c.noise_at(0, true);
  auto h = crypto::hash_block(*b);
  int lost = 0;
  c.net.on_the_way = [&](node_id, node_id, wire::method m, wire::message msg) -> std::optional<wire::message> {
    if (m == wire::method::block_put && lost++ == 0) return std::nullopt;
    return msg;
  };
  mono_time before = c.w.now();
  CHECK(c.put(0, b, 1, 30s));
  CHECK(c.w.now() - before < 5s);
  CHECK(c.copies(h) >= 2);
}

TEST_CASE("stop ends everything that runs") {
  homes c(3);
  CHECK(c.put(0, c.noise()));
  c.w.finish(c.w.at(0), c.of(0).stop(), 10s);
  CHECK_FALSE(c.w.await(c.w.at(1), c.at[1]->endpoint->call(c.id(0), wire::method::block_get, {}, {wire::priority::foreground, c.w.at(1).rt().now() + 5s})).value());
}

TEST_CASE("crashes at random moments lose no block that was acknowledged, and each seed runs the same twice") {
  auto run = [](std::uint64_t seed) {
    homes c(3, seed);
    std::map<block_hash, shared_bytes> acknowledged;
    for (int i = 0; i < 60; ++i) {
      std::size_t at = c.w.below(3);
      auto b = c.noise(1 + c.w.below(30'000));
      auto r = c.w.await(c.w.at(at), c.of(at).put(c.ref(b), b, c.w.at(at).rt().now() + 2s), milliseconds(1 + c.w.below(40)));
      if (r && *r) acknowledged[crypto::hash_block(*b)] = b;
      if (c.w.below(4) == 0) {
        std::size_t k = c.w.below(3);
        c.crash(k);
        c.w.run_for(milliseconds(c.w.below(100)));
        c.boot(k);
        c.w.run_for(20ms);
      }
    }
    CHECK(acknowledged.size() > 10);
    for (auto& [h, b] : acknowledged) {
      CHECK(c.copies(h) >= 2);
      for (std::size_t i = 0; i < 3; ++i) CHECK(**c.get(i, h) == *b);
    }
    c.w.run_for(10min);
    for (auto& [h, b] : acknowledged) CHECK(c.copies(h) == 3);
    return c.w.trace();
  };
  for (std::uint64_t seed = 1; seed <= 5; ++seed) CHECK(run(seed) == run(seed));
}
