// The budget of round trips, measured in virtual time: three homes, every pair 100 ms apart (there and back), all else free.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdio>

#include "sim/cluster.h"

using namespace grenier;
using namespace grenier::sim;

namespace {

constexpr nanoseconds round_trip = 100ms;

struct lab {
  neighbourhood c{11};
  lab() {
    c.world().set_all_lines({.delay = round_trip / 2});
    for (const char* z : {"lyon", "paris", "brest"}) c.add({.zone = z, .block_size = 1 << 20, .inline_max = 64 << 10});
    REQUIRE(c.form());
    for (std::size_t i = 0; i < 3; ++i) {
      c.at(i).kv_disk.behaviour.commit_delay = 10us;
      c.at(i).drives[0].delay = 10us;
      c.at(i).drives[0].rate = 1e12;
    }
    REQUIRE(c.make_bucket(0, "lab-bucket"));
    c.world().run_for(10s);
  }
  mono_time finished{};
  store::call admin() { return {{std::nullopt, true}, c.at(0).rt().now() + 30s}; }
  storaged::node& node() { return c.node(0); }

  template <class T>
  double trips(task<result<T>> t, bool expect = true) {
    mono_time start = c.world().now();
    auto r = c.world().await(c.at(0), std::move(t));
    REQUIRE(r.has_value());
    finished = c.world().now();
    if (expect && !*r) {
      std::fprintf(stderr, "%s\n", r->error().to_string().c_str());
      REQUIRE(false);
    }
    double n = static_cast<double>((c.world().now() - start).count()) / static_cast<double>(round_trip.count());
    c.world().run_for(5s);
    return n;
  }
};

bytes body_of(std::size_t size, unsigned seed) {
  bytes b;
  while (b.size() < size) b += std::to_string(xxh3_64(b.substr(b.size() > 64 ? b.size() - 64 : 0), seed + b.size()));
  b.resize(size);
  return b;
}

// A body that comes in over the client's own line, a piece each 50 ms; it remembers when its last byte came.
class arriving_body final : public store::body_source {
 public:
  arriving_body(runtime& rt, bytes b, mono_time& last) : rt_(rt), content_(std::move(b)), last_(last) {}
  task<result<std::size_t>> read(std::span<char> to) override {
    if (at_ == content_.size()) co_return std::size_t{0};
    if (at_ % piece == 0) co_await sleep_for(rt_, 50ms);
    std::size_t n = std::min({to.size(), content_.size() - at_, piece - at_ % piece});
    std::memcpy(to.data(), content_.data() + at_, n);
    at_ += n;
    if (at_ == content_.size()) last_ = rt_.now();
    co_return n;
  }
  std::optional<std::uint64_t> size() const override { return content_.size(); }

 private:
  static constexpr std::size_t piece = 512 << 10;
  runtime& rt_;
  bytes content_;
  std::size_t at_ = 0;
  mono_time& last_;
};

task<result<void>> put_arriving(storaged::node& n, runtime& rt, store::call c, std::string key, bytes b, mono_time& last) {
  store::put_request q;
  q.bucket = "lab-bucket";
  q.key = key;
  arriving_body body(rt, std::move(b), last);
  auto r = co_await n.store().put(c, std::move(q), body);
  if (!r) co_return fail(r.error());
  co_return result<void>();
}
task<result<void>> put(storaged::node& n, runtime& rt, std::string key, bytes b, store::conditions when = {}) {
  auto r = co_await put_object(n, rt, "lab-bucket", key, std::move(b), when, 30s);
  if (!r) co_return fail(r.error());
  co_return result<void>();
}
task<result<void>> get_first_byte(storaged::node& n, store::call c, std::string key, std::optional<std::string> range, bool head) {
  store::get_request q;
  q.bucket = "lab-bucket";
  q.key = key;
  q.range = range;
  q.head = head;
  CO_TRY(auto r, co_await n.store().get(c, std::move(q)));
  if (r.body) CO_TRY_VOID(co_await r.body->next());
  co_return result<void>();
}
task<result<void>> copy(storaged::node& n, store::call c, std::string from, std::string to) {
  store::copy_request q;
  q.from_bucket = q.bucket = "lab-bucket";
  q.from_key = from;
  q.key = to;
  auto r = co_await n.store().copy(c, std::move(q));
  if (!r) co_return fail(r.error());
  co_return result<void>();
}
task<result<void>> list(storaged::node& n, store::call c) {
  store::list_request q;
  q.bucket = "lab-bucket";
  auto r = co_await n.store().list(c, std::move(q));
  if (!r) co_return fail(r.error());
  co_return result<void>();
}
task<result<void>> remove_many(storaged::node& n, store::call c, std::vector<std::string> keys) {
  auto r = co_await n.store().remove_many(c, "lab-bucket", std::move(keys));
  if (!r) co_return fail(r.error());
  for (auto& one : *r)
    if (!one) co_return fail(one.error());
  co_return result<void>();
}
task<result<void>> find_bucket(storaged::node& n, runtime& rt) {
  auto r = co_await n.store().find_bucket("lab-bucket", rt.now() + 5s);
  if (!r) co_return fail(r.error());
  co_return result<void>();
}
task<result<upload_id>> create_upload(storaged::node& n, store::call c, std::string key) {
  store::put_request q;
  q.bucket = "lab-bucket";
  q.key = key;
  co_return co_await n.store().create_upload(c, std::move(q));
}
task<result<store::put_result>> part(storaged::node& n, runtime& rt, store::call c, std::string key, upload_id u, std::uint32_t number, bytes b, mono_time& last) {
  store::upload_part_request q;
  q.bucket = "lab-bucket";
  q.key = key;
  q.upload = u;
  q.number = number;
  arriving_body m(rt, std::move(b), last);
  co_return co_await n.store().upload_part(c, std::move(q), m);
}
task<result<void>> complete(storaged::node& n, store::call c, std::string key, upload_id u, std::vector<store::part_info> parts) {
  store::complete_request q;
  q.bucket = "lab-bucket";
  q.key = key;
  q.upload = u;
  q.parts = std::move(parts);
  auto r = co_await n.store().complete_upload(c, std::move(q));
  if (!r) co_return fail(r.error());
  co_return result<void>();
}
task<result<void>> abort_upload(storaged::node& n, store::call c, std::string key, upload_id u) {
  co_return co_await n.store().abort_upload(c, "lab-bucket", key, u);
}

}  // namespace

TEST_CASE("each operation keeps to its budget of round trips") {
  lab l;
  runtime& rt = l.c.at(0).rt();
  std::printf("%-42s %8s %8s\n", "operation", "budget", "measured");
  auto row = [](const char* name, double budget, double measured) {
    std::printf("%-42s %8.1f %8.2f\n", name, budget, measured);
    CAPTURE(name);
    CHECK(measured <= budget + 0.15);
  };
  bytes small = body_of(1024, 1), large = body_of(3 << 20, 2);
  mono_time last{};
  auto since_last = [&](auto t) {
    double all = l.trips(std::move(t));
    (void)all;
    return static_cast<double>((l.finished - last).count()) / static_cast<double>(round_trip.count());
  };
  // Connections learn what their line carries, as TCP does, over the first megabytes; the budget is that of a line they know.
  for (int i = 0; i < 12; ++i) {
    (void)l.trips(put(l.node(), rt, "warm-up", body_of(8 << 20, 100 + static_cast<unsigned>(i))));
    for (std::size_t other : {1u, 2u}) REQUIRE(l.c.put(other, "lab-bucket", "warm-up-" + std::to_string(other), body_of(8 << 20, 1000 + static_cast<unsigned>(i) * 7 + static_cast<unsigned>(other))));
  }
  row("PUT 1 KiB", 1, l.trips(put(l.node(), rt, "small", small)));
  row("PUT 1 KiB, overwriting", 1, l.trips(put(l.node(), rt, "small", body_of(1024, 9))));
  row("GET 1 KiB", 1, l.trips(get_first_byte(l.node(), l.admin(), "small", {}, false)));
  row("HEAD", 1, l.trips(get_first_byte(l.node(), l.admin(), "small", {}, true)));
  row("PUT 3 MiB (last byte + 2)", 2, since_last(put_arriving(l.node(), rt, l.admin(), "large", large, last)));
  row("GET 3 MiB, to the first byte", 1, l.trips(get_first_byte(l.node(), l.admin(), "large", {}, false)));
  row("GET a range of 4 KiB", 1, l.trips(get_first_byte(l.node(), l.admin(), "large", "bytes=2100000-2104095", false)));
  store::conditions fresh;
  fresh.if_none_match = "*";
  row("conditional PUT", 2, l.trips(put(l.node(), rt, "conditional", small, fresh)));
  row("COPY 1 KiB", 2, l.trips(copy(l.node(), l.admin(), "small", "small-2")));
  row("COPY 3 MiB", 3, l.trips(copy(l.node(), l.admin(), "large", "large-2")));
  row("LIST", 1, l.trips(list(l.node(), l.admin())));
  row("DELETE", 1, l.trips(remove_many(l.node(), l.admin(), {"small-2"})));
  std::vector<std::string> many;
  for (int i = 0; i < 1000; ++i) many.push_back("none-" + std::to_string(i));
  row("DELETE of 1000 keys", 1, l.trips(remove_many(l.node(), l.admin(), many)));
  row("find a bucket", 0, l.trips(find_bucket(l.node(), rt)));

  auto create = [&](const char* key) {
    auto u = l.c.world().await(l.c.at(0), create_upload(l.node(), l.admin(), key));
    REQUIRE(u);
    REQUIRE(*u);
    l.c.world().run_for(2s);
    return **u;
  };
  row("multipart: create", 1, l.trips(create_upload(l.node(), l.admin(), "parts-0")));
  upload_id u = create("parts");
  bytes piece = body_of(5 << 20, 3);
  row("multipart: a part of 5 MiB (last byte + 2)", 2, since_last(part(l.node(), rt, l.admin(), "parts", u, 1, piece, last)));
  auto again = l.c.world().await(l.c.at(0), part(l.node(), rt, l.admin(), "parts", u, 2, body_of(100, 4), last));
  REQUIRE(*again);
  store::part_info a, b;
  a.number = 1;
  a.etag = to_hex(crypto::digest(crypto::hash_kind::md5, piece));
  b.number = 2;
  b.etag = (*again)->etag;
  l.c.world().run_for(2s);
  row("multipart: complete", 2, l.trips(complete(l.node(), l.admin(), "parts", u, {a, b})));
  // One more than planned: whether the upload is open is read first, since a blind write could undo a completion.
  row("multipart: abort", 2, l.trips(abort_upload(l.node(), l.admin(), "parts-abort", create("parts-abort"))));
}

// Not a matter of round trips: the whole way from the store to three tables, which the store's own tests do not have.
TEST_CASE("an object that lies in its row gets tags at any home, and keeps its bytes") {
  lab l;
  REQUIRE(l.c.put(0, "lab-bucket", "small", body_of(5000, 1)));
  for (std::size_t i = 0; i < 3; ++i) {
    auto tagging = l.c.node(i).store().set_tags({{std::nullopt, true}, l.c.at(i).rt().now() + 30s}, "lab-bucket", "small", {{"home", std::to_string(i)}});
    auto done = l.c.world().await(l.c.at(i), std::move(tagging));
    REQUIRE(done);
    CHECK_MESSAGE(*done, (*done ? std::string() : done->error().to_string()));
    for (std::size_t at = 0; at < 3; ++at) {
      auto tags = l.c.world().await(l.c.at(at), l.c.node(at).store().get_tags({{std::nullopt, true}, l.c.at(at).rt().now() + 30s}, "lab-bucket", "small"));
      REQUIRE(tags);
      REQUIRE(*tags);
      CHECK((**tags == std::vector<model::tag>{{"home", std::to_string(i)}}));
      auto content = l.c.get(at, "lab-bucket", "small");
      REQUIRE(content);
      CHECK((*content == body_of(5000, 1)));
    }
  }
}
