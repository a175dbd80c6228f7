// store/store_fixture.h: a store over fakes in virtual time, for its unit tests.
#pragma once

#include <doctest/doctest.h>

#include <random>

#include "store/fake_backend.h"
#include "store/impl.h"
#include "store/work.h"

namespace grenier::store {

class virtual_clock final : public clock {
 public:
  mono_time now() const override { return now_; }
  std::uint64_t wall_ms() const override {
    return 1'700'000'000'000 + ahead_ms + static_cast<std::uint64_t>(std::chrono::duration_cast<milliseconds>(now_.time_since_epoch()).count());
  }
  timer_id call_at(mono_time at, std::move_only_function<void()> fn) override {
    timer_id t{at, ++next_};
    queue_.emplace(t, std::move(fn));
    return t;
  }
  void cancel(timer_id t) override { queue_.erase(t); }
  // To the next timer, not beyond `limit`.
  bool step(mono_time limit) {
    if (queue_.empty() || queue_.begin()->first.at > limit) return false;
    now_ = std::max(now_, queue_.begin()->first.at);
    auto fn = std::move(queue_.extract(queue_.begin()).mapped());
    fn();
    return true;
  }
  void jump(mono_time to) { now_ = std::max(now_, to); }
  std::uint64_t ahead_ms = 0;  // how wrong the wall clock is

 private:
  mono_time now_{};
  std::map<timer_id, std::move_only_function<void()>> queue_;
  std::uint64_t next_ = 0;
};

class seeded_random final : public random_source {
 public:
  void fill(void* to, std::size_t n) override {
    for (std::size_t i = 0; i < n; ++i) static_cast<char*>(to)[i] = static_cast<char>(engine_());
  }

 private:
  std::mt19937_64 engine_{7};
};

class same_thread final : public work_pool {
 public:
  explicit same_thread(asio::io_context& io) : io_(io) {}
  void run(std::move_only_function<void()> work, std::move_only_function<void()> done) override {
    ++jobs;
    work();
    asio::post(io_, [d = std::move(done)]() mutable { d(); });
  }
  int jobs = 0;

 private:
  asio::io_context& io_;
};

// A body in memory, that comes in pieces, may fail or wait on the way, and may have trailers.
class memory_body final : public body_source {
 public:
  explicit memory_body(bytes b, bool tells_size = true) : body(std::move(b)) {
    if (tells_size) said = body.size();
  }
  task<result<std::size_t>> read(std::span<char> to) override {
    if (rt && pause > 0ns && at >= arrived) {
      co_await sleep_for(*rt, pause);
      arrived += piece;
    }
    if (fails_at && at >= *fails_at) co_return fail(errc::incomplete_body, "the client went away");
    const std::size_t n = std::min({to.size(), body.size() - at, pause > 0ns ? arrived - at : piece});
    std::memcpy(to.data(), body.data() + at, n);
    at += n;
    co_return n;
  }
  std::optional<std::uint64_t> size() const override { return said; }
  std::vector<checksum> trailers() const override { return trailing; }

  bytes body;
  std::optional<std::uint64_t> said;
  std::size_t at = 0, piece = 100'000;
  std::optional<std::size_t> fails_at;
  std::vector<checksum> trailing;
  runtime* rt = nullptr;
  nanoseconds pause = 0ns;  // before each piece
  std::size_t arrived = 0;
};

inline bytes some_bytes(std::size_t n, unsigned seed = 1) {
  std::mt19937 r(seed);
  bytes b(n, '\0');
  for (auto& c : b) c = static_cast<char>(r());
  return b;
}

struct home {
  asio::io_context io;
  virtual_clock clk;
  seeded_random random;
  same_thread pool{io};
  runtime rt{io, clk, random, pool, pool};
  kv::simulated_disk disk;
  std::unique_ptr<kv::store> kv;
  hybrid_clock hlc{rt};
  fake_backend* below = nullptr;
  std::unique_ptr<service> store;
  std::unique_ptr<task_group> group = std::make_unique<task_group>(rt);
  service::options options;
  access_key alice, bob;

  explicit home(service::options o = small()) : options(o) {
    crypto::init();
    kv = kv::open_simulated(rt, disk);
    start(std::map<table::row_key, table::row>());
    alice = make_key("alice");
    bob = make_key("bob");
    REQUIRE(run(store->create_bucket(as_alice(), "photos", "grenier")));
  }
  ~home() {
    if (store) finish(store->stop());
    finish(kv->stop());
    rt.kill();
    group.reset();
  }
  static service::options small() {
    service::options o;
    o.block_size = 64 << 10;
    o.inline_max = 8 << 10;
    o.memory_budget_bytes = 4 << 20;
    o.part_size_min = 100 << 10;
    return o;
  }

  void start(std::map<table::row_key, table::row> rows) {
    auto b = std::make_unique<fake_backend>(rt, hlc);
    below = b.get();
    below->rows = std::move(rows);
    store = std::make_unique<service>(rt, *kv, std::move(b), hlc, options);
    REQUIRE(store->prepare());
    REQUIRE(run(store->start()));
  }
  access_key make_key(std::string name) {
    access_key k;
    k.name = std::move(name);
    auto r = run(store->create_key(as_admin(), k));
    REQUIRE(r);
    return *r;
  }

  template <class T>
  T run(task<T> t) {
    std::optional<T> out;
    group->spawn("test", keep(&out, std::move(t)));
    pump([&] { return out.has_value(); }, clk.now() + std::chrono::hours(1));
    REQUIRE(out.has_value());
    return std::move(*out);
  }
  void finish(task<void> t) {
    bool done = false;
    group->spawn("test", mark(&done, std::move(t)));
    pump([&] { return done; }, clk.now() + std::chrono::hours(1));
    REQUIRE(done);
  }
  void pass(nanoseconds d) {
    const mono_time until = clk.now() + d;
    pump([] { return false; }, until);
    clk.jump(until);
  }
  void pump(const std::function<bool()>& done, mono_time until) {
    for (;;) {
      io.restart();
      while (io.poll_one() > 0) {
        commit_hooks();
        if (done()) return;
      }
      if (done() || !clk.step(until)) return;
      commit_hooks();
    }
  }
  void commit_hooks() {
    if (below && below->has_pending()) group->spawn("hooks", commit(kv.get(), below->take_pending()));
  }
  template <class T>
  static task<void> keep(std::optional<T>* to, task<T> t) {
    to->emplace(co_await std::move(t));
  }
  static task<void> mark(bool* done, task<void> t) {
    co_await std::move(t);
    *done = true;
  }
  static task<void> commit(kv::store* kv, kv::batch b) { REQUIRE(co_await kv->commit(std::move(b))); }

  call as(const access_key& k) { return {{k, false}, clk.now() + 10s}; }
  call as_alice() { return as(alice); }
  call as_bob() { return as(bob); }
  call as_admin() { return {{std::nullopt, true}, clk.now() + 10s}; }
  call as_nobody() { return {{}, clk.now() + 10s}; }

  // Round trips that an operation took, rounded: local work is far below one.
  template <class T>
  T timed(task<T> t, double& rounds) {
    const mono_time before = clk.now();
    T r = run(std::move(t));
    rounds = std::chrono::duration<double>(clk.now() - before) / std::chrono::duration<double>(below->rtt);
    return r;
  }

  result<put_result> put(std::string key, bytes body, std::function<void(put_request&)> with = {}) {
    memory_body from(std::move(body));
    return put_from(std::move(key), from, with);
  }
  result<put_result> put_from(std::string key, body_source& from, std::function<void(put_request&)> with = {}) {
    put_request q;
    q.bucket = "photos";
    q.key = std::move(key);
    if (with) with(q);
    return run(store->put(as_alice(), q, from));
  }
  result<get_result> get(std::string key, std::function<void(get_request&)> with = {}) {
    get_request q;
    q.bucket = "photos";
    q.key = std::move(key);
    if (with) with(q);
    return run(store->get(as_alice(), q));
  }
  result<bytes> read(body_reader& r) { return run(read_all(&r)); }
  static task<result<bytes>> read_all(body_reader* r) {
    bytes all;
    for (;;) {
      CO_TRY(shared_bytes piece, co_await r->next());
      if (!piece) co_return all;
      all += *piece;
    }
  }
  result<bytes> body_of(std::string key, std::function<void(get_request&)> with = {}) {
    TRY(auto g, get(std::move(key), with));
    if (!g.body) return bytes();
    return read(*g.body);
  }
  bucket_id photos() { return run(store->find_bucket("photos", clk.now() + 10s))->id; }
  model::object_row row(const std::string& key) {
    return *model::decode_object(below->rows.at(model::object_key(photos(), key)).value.row);
  }
  std::size_t entries(const bytes& prefix) {
    std::size_t n = 0;
    for (const auto& [k, v] : disk.content(kv::family::task_queue)) n += k.starts_with(prefix);
    return n;
  }
  // Until the background has nothing to do any more that is due within a few hours.
  void settle() { pass(std::chrono::minutes(30)); }
};

}  // namespace grenier::store
