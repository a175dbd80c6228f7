#include <doctest/doctest.h>

#include <random>

#include "cluster.pb.h"
#include "cluster/card.h"
#include "cluster/detector.h"

using namespace grenier;
using namespace grenier::cluster;

namespace {
mono_time at(nanoseconds t) { return mono_time(t); }
node_id node_named(int n) {
  node_id i;
  i.data()[0] = static_cast<std::uint8_t>(n);
  i.data()[31] = 1;
  return i;
}

// When a peer that answers no more after `alive` is suspected: the time it takes, on a line with this jitter.
nanoseconds detected_after(nanoseconds alive, nanoseconds jitter, unsigned seed) {
  std::mt19937_64 random(seed);
  detector d(500ms);
  mono_time last{};
  for (auto t = nanoseconds(0); t < alive; t += 500ms) {
    last = std::max(last, at(t + 70ms + nanoseconds(jitter.count() ? random() % static_cast<std::uint64_t>(jitter.count()) : 0)));
    CHECK(d.phi(last) < 8);
    d.heard(last);
  }
  auto t = last;
  while (d.phi(t) < 8) t += 10ms;
  return t - last;
}
}  // namespace

TEST_CASE("a dead peer is suspected within 3 s, however long it lived, on steady lines and on shaking ones") {
  for (auto alive : {nanoseconds(600ms), nanoseconds(3s), nanoseconds(60s), nanoseconds(3600s)}) {
    CHECK(detected_after(alive, 0ms, 1) < 2300ms);
    CHECK(detected_after(alive, 0ms, 1) > 1200ms);
    CHECK(detected_after(alive, 200ms, 2) < 2500ms);
    CHECK(detected_after(alive, 400ms, 3) < 3s);
  }
}

TEST_CASE("suspicion grows with silence and starts at nothing") {
  detector d(500ms);
  CHECK(d.phi(at(100s)) == 0);
  for (int i = 0; i < 100; ++i) d.heard(at(i * 500ms));
  double before = -1;
  for (auto t = 49500ms; t < 60s; t += 100ms) {
    const double now = d.phi(at(t));
    CHECK(now >= before);
    before = now;
  }
  CHECK(before == 100);
  d.excuse(11s);
  CHECK(d.phi(at(60s)) < 1);
}

TEST_CASE("a card comes back as it was made") {
  card c;
  c.id = node_named(1);
  c.incarnation = 77;
  c.info = {"home-lyon", {"192.0.2.7:3901", "[2001:db8::1]:3901"}, 3901, {{"s3", 3900}, {"storage", 3901}}, 1000, 500, 0.5, "0.1.0", 1, 3, 9};
  c.announced["synced"] = bytes("\0\1\2", 3);
  c.links[node_named(2)] = {57ms, 33000, true};
  auto back = decode_card(encode(c));
  REQUIRE(back);
  CHECK(back->id == c.id);
  CHECK(back->incarnation == 77);
  CHECK(back->info == c.info);
  CHECK(back->announced == c.announced);
  CHECK(back->links == c.links);
}

TEST_CASE("cards are checked as foreign bytes") {
  pb::Card good;
  good.set_node(node_named(1).str());
  good.set_incarnation(1);
  CHECK(decode_card(good.SerializeAsString()));
  auto refused = [&](auto change) {
    pb::Card c = good;
    change(c);
    CHECK(decode_card(c.SerializeAsString()).failed_with(errc::protocol));
  };
  refused([](pb::Card& c) { c.set_node("short"); });
  refused([](pb::Card& c) { c.set_node(bytes(32, '\0')); });
  refused([](pb::Card& c) { c.set_incarnation(0); });
  refused([](pb::Card& c) { c.set_incarnation(~0ull); });
  refused([](pb::Card& c) { c.set_zone("no zone"); });
  refused([](pb::Card& c) { c.set_zone(bytes(65, 'a')); });
  refused([](pb::Card& c) { c.add_addresses("nowhere"); });
  refused([](pb::Card& c) {
    for (int i = 0; i < 9; ++i) c.add_addresses("a:1");
  });
  refused([](pb::Card& c) { c.set_rpc_port(70000); });
  refused([](pb::Card& c) { c.add_services()->set_name(""); });
  refused([](pb::Card& c) {
    for (int i = 0; i < 33; ++i) c.add_services()->set_name("s" + std::to_string(i));
  });
  refused([](pb::Card& c) { c.set_software("a\nb"); });
  refused([](pb::Card& c) {
    auto* a = c.add_announced();
    a->set_name("x");
    a->set_value(bytes(17000, 'x'));
  });
  refused([](pb::Card& c) {
    for (int i = 0; i < 65; ++i) c.add_links()->set_node(node_named(i).str());
  });
  refused([](pb::Card& c) { c.add_links()->set_node("x"); });
  CHECK(decode_card(bytes(100'000, 'x')).failed_with(errc::protocol));
  std::mt19937 random(1);
  const bytes whole = good.SerializeAsString();
  for (int i = 0; i < 3000; ++i) {
    bytes b = whole;
    b[random() % b.size()] = static_cast<char>(random());
    if (auto c = decode_card(b)) CHECK(c->incarnation > 0);
  }
}

TEST_CASE("addresses have a host and a port") {
  for (auto good : {"192.0.2.7:3901", "home.example.org:1", "[::1]:65535", "localhost:3901"}) CHECK(valid_address(good));
  for (auto wrong : {"", ":", "host", "host:", ":3901", "host:0", "host:65536", "host:39o1", "a b:1", "::1:3901", "[]:1", "h\n:1", "[::1:2"})
    CHECK(!valid_address(wrong));
  CHECK(!valid_address(std::string(300, 'a') + ":1"));
  CHECK(host_of("[::1]:3901") == "[::1]");
  std::vector<std::string> a;
  for (int i = 0; i < 12; ++i) remember(a, "h" + std::to_string(i) + ":1");
  CHECK(a.size() == addresses_max);
  CHECK(a.front() == "h11:1");
  CHECK(!remember(a, "h11:1"));
  CHECK(remember(a, "h8:1"));
  CHECK(a.size() == addresses_max);
}
