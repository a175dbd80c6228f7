#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <zstd.h>

#include <random>

#include "block/placement.h"
#include "block/reference_row.h"
#include "block/codec.h"
#include "crypto/crypto.h"

using namespace grenier;
using namespace grenier::block;

namespace {

bytes noise(std::size_t n, unsigned seed) {
  std::mt19937 r(seed);
  bytes b(n, '\0');
  for (auto& c : b) c = static_cast<char>(r());
  return b;
}

bytes frame_of(bytes_view plain) {
  bytes to(ZSTD_compressBound(plain.size()), '\0');
  to.resize(ZSTD_compress(to.data(), to.size(), plain.data(), plain.size(), 3));
  return to;
}

node_id node(int i) {
  node_id n;
  n.data()[0] = static_cast<std::uint8_t>(i);
  return n;
}

// Homes 1..n, each in a zone of its own, all of them replicas of every partition up to three; the others are members only.
layout::state cluster_of(int n) {
  layout::state s = layout::found(cluster_id(), {node(1), "z1", 1000});
  for (int i = 2; i <= n; ++i) s.current.members.push_back({node(i), "z" + std::to_string(i), 1000});
  for (auto& a : s.current.assignment) {
    a.clear();
    for (int i = 1; i <= std::min(n, 3); ++i) a.push_back(node(i));
  }
  s.current.casting = n == 2 ? node(1) : node_id();
  return s;
}

std::vector<candidate> candidates(int n, double seconds_each = 1) {
  std::vector<candidate> c;
  for (int i = 1; i <= n; ++i) c.push_back({node(i), "z" + std::to_string(i), i <= 3, i == 1, seconds_each * (i - 1)});
  return c;
}

}  // namespace

TEST_CASE("text is stored compressed, photographs as they are") {
  auto text = share(bytes(300'000, 'a') + noise(1000, 1));
  auto s = encode(text, 1);
  CHECK(s.zstd);
  CHECK(s.data->size() < text->size() / 10);
  auto photo = share(noise(300'000, 2));
  s = encode(photo, 1);
  CHECK_FALSE(s.zstd);
  CHECK(s.data == photo);  // not even copied
  CHECK_FALSE(encode(text, 0).zstd);
  // What looks good at its beginning and middle, but is not.
  CHECK_FALSE(encode(share(bytes(4096, 'a') + noise(500'000, 3)), 1).zstd);
}

TEST_CASE("decode gives back what was encoded, and only that") {
  for (std::size_t n : {1, 511, 512, 4096, 20'000, 1 << 20, 4 << 20}) {
    for (bool plain : {false, true}) {
      auto b = share(plain ? noise(n, 4) : bytes(n, 'x'));
      auto hash = crypto::hash_block(*b);
      auto s = encode(b, 1);
      auto back = decode(s, hash);
      REQUIRE(back);
      CHECK(**back == *b);
      bytes damaged = *s.data;
      damaged[damaged.size() / 2] ^= 1;
      CHECK_FALSE(decode({s.zstd, share(damaged)}, hash));
    }
  }
}

TEST_CASE("hostile stored forms are refused in bounded memory") {
  block_hash h = crypto::hash_block("x");
  CHECK(decode({false, nullptr}, h).failed_with(errc::protocol));
  CHECK(decode({false, share("")}, h).failed_with(errc::protocol));
  CHECK(decode({false, share(bytes(block_size_max + 1, 'x'))}, h).failed_with(errc::protocol));
  CHECK(decode({false, share("y")}, h).failed_with(errc::bad_digest));
  CHECK(decode({true, share("no frame at all")}, h).failed_with(errc::protocol));
  // A bomb: a gigabyte in some ten kilobytes, and one that lies about its size.
  bytes bomb = frame_of(bytes(64 << 20, '\0'));
  CHECK(bomb.size() < 10'000);
  CHECK(decode({true, share(bomb)}, h).failed_with(errc::protocol));
  bytes two = frame_of(bytes(1000, 'a')) + frame_of(bytes(1000, 'b'));
  CHECK(decode({true, share(two)}, h).failed_with(errc::protocol));
  CHECK(decode({true, share(frame_of(""))}, h).failed_with(errc::protocol));
  bytes cut = frame_of(noise(5000, 1));
  cut.resize(cut.size() / 2);
  CHECK(decode({true, share(cut)}, h).failed_with(errc::protocol));
}

TEST_CASE("an owner is a row key, and comes back as one") {
  table::row_key k{table::table_id::object, "bucket", "photos/a.jpg"};
  CHECK(*decode_owner(encode_owner(k)) == k);
  CHECK_FALSE(decode_owner(""));
  CHECK_FALSE(decode_owner(bytes("\1\xff\xff", 3)));
}

TEST_CASE("references join commutatively, associatively, idempotently") {
  std::mt19937 r(5);
  auto any = [&] {
    if (r() % 8 == 0) return noise(r() % 12, r());
    reference_value v{r() % 4 == 0, "owner", {}};
    for (unsigned i = r() % 12; i > 0; --i) v.guests.push_back(node(static_cast<int>(r() % 30)));
    return encode(v);
  };
  for (int i = 0; i < 20'000; ++i) {
    bytes a = any(), b = any(), c = any();
    CHECK(join_references(a, b) == join_references(b, a));
    CHECK(join_references(join_references(a, b), c) == join_references(a, join_references(b, c)));
    bytes ab = join_references(a, b);
    CHECK(join_references(ab, ab) == ab);
    CHECK(join_references(ab, a) == ab);
    auto x = decode_reference(a), y = decode_reference(b), xy = decode_reference(ab);
    if (x && y) {
      CHECK(xy->withdrawn == (x->withdrawn || y->withdrawn));
      CHECK(xy->guests.size() <= guests_max);
    }
  }
}

TEST_CASE("bytes that are no reference are refused") {
  std::mt19937 r(6);
  bytes good = encode({false, "owner", {node(1), node(2)}});
  CHECK(decode_reference(good));
  for (std::size_t n = 0; n < good.size(); ++n) CHECK_FALSE(decode_reference(bytes_view(good).substr(0, n)));
  CHECK_FALSE(decode_reference(good + "x"));
  for (int i = 0; i < 50'000; ++i) (void)decode_reference(noise(r() % 80, r()));
}

TEST_CASE("a home replica is taken before a guest that is not much faster") {
  std::vector<candidate> c{{.node = node(4), .zone = "d", .seconds = 1.0, .sending = 1.0},
                           {.node = node(2), .zone = "b", .home = true, .seconds = 1.2, .sending = 1.2},
                           {.node = node(1), .zone = "a", .self = true}};
  sort_candidates(c);
  CHECK(c[0].node == node(1));
  CHECK(c[1].node == node(2));
  c[1].seconds = 5;
  sort_candidates(c);
  CHECK(c[1].node == node(4));
  // What waits for others on the way is no fault of a guest's.
  c[1].seconds = 3.5;
  c[2].seconds = 4.2;
  sort_candidates(c);
  CHECK(c[1].node == node(4));
  // One that owes answers comes last, home or not.
  c[2].seconds = 0.1;
  c[2].late = true;
  sort_candidates(c);
  CHECK(c[2].node == node(2));
}

TEST_CASE("a hedge goes only where the caller allows it") {
  auto s = cluster_of(3);
  placement p(s, 0, candidates(3));
  REQUIRE(p.next_target(false));
  REQUIRE(p.next_target(false));
  CHECK_FALSE(p.next_target(true, [](const candidate&) { return false; }));
  CHECK(p.next_target(true, [](const candidate&) { return true; }));
}

TEST_CASE("durable: two zones have the bytes and a quorum the reference") {
  auto s = cluster_of(3);
  placement p(s, 0, candidates(3));
  CHECK(p.next_target(false)->node == node(1));
  CHECK(p.next_target(false)->node == node(2));
  CHECK_FALSE(p.next_target(false));
  CHECK(p.to_be_told() == std::vector{node(3)});
  p.bytes_stored(node(1));
  p.told(node(1), {});
  CHECK_FALSE(p.durable());
  p.telling(node(3));
  CHECK(p.to_be_told().empty());
  p.told(node(3), {});
  CHECK_FALSE(p.durable());  // a quorum knows, but one zone alone has the bytes
  p.bytes_failed(node(2));
  CHECK_FALSE(p.hopeless());
  CHECK(p.next_target(false)->node == node(3));
  p.bytes_stored(node(3));
  CHECK(p.durable());
}

TEST_CASE("a guest counts only where the references name it") {
  auto s = cluster_of(4);
  std::vector<candidate> c = candidates(4);
  c.erase(c.begin());       // the gateway stores nothing
  std::swap(c[0], c[2]);    // the guest first
  placement p(s, 0, c);
  CHECK(p.next_target(false)->node == node(4));
  CHECK(p.next_target(false)->node == node(3));
  CHECK(p.guests() == std::vector{node(4)});
  p.bytes_stored(node(4));
  p.bytes_stored(node(3));
  p.told(node(3), {});
  p.told(node(1), {});
  CHECK_FALSE(p.durable());
  CHECK(p.to_be_told() == std::vector{node(1), node(2), node(3)});  // again, with the guest's name
  p.told(node(1), {node(4)});
  p.told(node(2), {node(4)});
  CHECK(p.durable());
}

TEST_CASE("two homes: both while both are up, then the one with the casting vote") {
  auto s = cluster_of(2);
  placement p(s, 0, candidates(2));
  CHECK(p.next_target(false)->node == node(1));
  p.bytes_stored(node(1));
  p.told(node(1), {});
  CHECK_FALSE(p.durable());
  p.set_dark({node(2)});
  CHECK(p.durable());
  placement q(s, 0, candidates(2));
  q.set_dark({node(1)});
  q.bytes_stored(node(2));
  q.told(node(2), {});
  CHECK_FALSE(q.durable());  // the second home never alone
}

TEST_CASE("hopeless: no zone is left, or no quorum can be had") {
  auto s = cluster_of(3);
  placement p(s, 0, candidates(3));
  for (int i = 1; i <= 2; ++i) CHECK(p.next_target(false));
  p.bytes_stored(node(1));
  p.bytes_failed(node(2));
  CHECK(p.next_target(false));
  CHECK_FALSE(p.hopeless());
  p.bytes_failed(node(3));
  CHECK(p.hopeless());
  placement q(s, 0, candidates(3));
  q.not_told(node(2));
  CHECK_FALSE(q.hopeless());
  q.not_told(node(3));
  CHECK(q.hopeless());
}

TEST_CASE("a hedge goes to one more zone") {
  auto s = cluster_of(3);
  placement p(s, 0, candidates(3));
  CHECK(p.next_target(false));
  CHECK(p.next_target(false));
  CHECK_FALSE(p.next_target(false));
  CHECK(p.next_target(true)->node == node(3));
  CHECK_FALSE(p.next_target(true));
}
