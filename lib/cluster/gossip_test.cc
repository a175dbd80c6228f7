#include <doctest/doctest.h>

#include "cluster.pb.h"
#include "cluster/fake_net.h"

using namespace grenier;
using namespace grenier::cluster;
using namespace grenier::cluster::testing;

namespace {

task<void> send(endpoint& from, node_id to, wire::method m, bytes head, result<wire::message>& answer) {
  answer = co_await from.call(to, m, {std::move(head), nullptr}, {wire::priority::metadata, mono_time::max() - 1h});
}
result<wire::message> ask(net& n, endpoint& from, node_id to, wire::method m, bytes head) {
  result<wire::message> answer = fail(errc::internal);
  n.group.spawn("ask", send(from, to, m, std::move(head), answer));
  n.run_for(1s);
  return answer;
}

bytes card_of(node_id n, std::uint64_t incarnation, const std::string& zone = "forged") {
  card c;
  c.id = n;
  c.incarnation = incarnation;
  c.info.zone = zone;
  return encode(c);
}
bytes gossip_of(std::vector<bytes> cards) {
  pb::Gossip g;
  for (auto& c : cards) g.add_cards(std::move(c));
  return g.SerializeAsString();
}

}  // namespace

TEST_CASE("what one of ten announces is known by all within ten rounds, also where homes cannot reach each other") {
  for (bool natted : {false, true}) {
    village v(10, 3);
    if (natted)  // only two can be dialled: most hear of each other through these
      for (std::size_t i = 2; i < 10; ++i) v.boxes[i]->ep.natted = true;
    v.n.run_for(20s);
    int rounds_most = 0;
    for (std::size_t i = 0; i < 30; ++i) {
      const auto from = i % 10;
      CHECK(v[from].announce_number("synced", i + 1));
      int rounds = 0;
      auto all = [&] {
        for (std::size_t k = 0; k < 10; ++k)
          if (v[k].announced_number(v.id(from), "synced") != i + 1) return false;
        return true;
      };
      while (!all() && rounds < 20) v.n.run_for(1s), ++rounds;
      CHECK(rounds < 10);
      rounds_most = std::max(rounds_most, rounds);
    }
    MESSAGE("at most " << rounds_most << " rounds");
  }
}

TEST_CASE("homes that only reach each other through others learn of each other by rounds") {
  village v(10, 4);
  for (std::size_t i = 2; i < 10; ++i) v.boxes[i]->ep.natted = true;  // only the first two can be dialled
  v.n.run_for(10s);
  CHECK(!v.n.joined(v.id(5), v.id(6)));
  CHECK(v[5].find(v.id(6))->info.zone == "zone-7");
  CHECK(!v[5].up(v.id(6)));
  CHECK(v[9].announce("news", "fresh"));
  int rounds = 0;
  while (v[5].announced(v.id(9), "news") != "fresh" && rounds < 20) v.n.run_for(1s), ++rounds;
  CHECK(rounds < 10);
  CHECK(v[5].find(v.id(0))->reachable);
  v.n.run_for(60s);
  CHECK(v[5].find(v.id(1))->reachable);
  CHECK(!v[5].find(v.id(6))->reachable);
}

TEST_CASE("who has nothing new to tell costs a few bytes") {
  village v(5);
  v.n.run_for(60s);
  const auto before = v.n.bytes_sent;
  v.n.run_for(100s);
  CHECK((v.n.bytes_sent - before) / 100 / 5 < 1500);  // bytes a second and home, heartbeats and their answers included
}

TEST_CASE("all of a card arrives") {
  village v(3);
  auto i = box::info(1);
  i.services = {{"s3", 3900}, {"web", 80}};
  i.space_total_bytes = 1000;
  i.space_free_bytes = 400;
  i.load = 0.25;
  v[0].set_self(i);
  v[0].set_layout_revision(12);
  int cards = 0;
  v[1].on_card([&](const node& n) { cards += n.id == v.id(0); });
  v.n.run_for(8s);
  auto n = *v[1].find(v.id(0));
  CHECK(n.info.services == i.services);
  CHECK(n.info.space_free_bytes == 400);
  CHECK(n.info.load == 0.25);
  CHECK(n.info.layout_revision == 12);
  CHECK(n.info.software == "0.1.0");
  CHECK(n.member);
  CHECK(n.up);
  CHECK(cards > 0);
  CHECK(v[1].offering("web") == std::vector{v.id(0)});
  CHECK(v[0].offering("web") == std::vector{v.id(0)});
  CHECK(v[1].offering("s3").front() == v.id(1));
  CHECK(v[1].offering("s3").size() == 3);
  CHECK(v[1].offering("nothing").empty());
  // space alone: after ten seconds, not at once
  i.space_free_bytes = 300;
  i.layout_revision = 12;
  v[0].set_self(i);
  v.n.run_for(4s);
  CHECK(v[1].find(v.id(0))->info.space_free_bytes == 400);
  v.n.run_for(9s);
  CHECK(v[1].find(v.id(0))->info.space_free_bytes == 300);
}

TEST_CASE("announcements are bounded") {
  village v(2);
  CHECK(v[0].announce("a", bytes(10'000, 'x')));
  CHECK(v[0].announce("b", bytes(7'000, 'x')).failed_with(errc::too_large));
  CHECK(!v[0].announced(v.id(0), "b"));
  CHECK(v[0].announce("a", ""));
  CHECK(!v[0].announced(v.id(0), "a"));
  CHECK(v[0].announce("b", bytes(7'000, 'x')));
  CHECK(v[0].announce("", "x").failed_with(errc::invalid_argument));
  CHECK(v[0].announce("with space", "x").failed_with(errc::invalid_argument));
  v.n.run_for(5s);
  CHECK(v[1].announced(v.id(0), "b")->size() == 7'000);
}

TEST_CASE("a home's new address is learnt from its connection, and from others where it does not connect") {
  village v(5, 6);
  v.boxes[4]->ep.natted = true;  // cannot be dialled: it must dial the one that moved, whom it hears of only by gossip
  v.n.run_for(10s);
  CHECK(v[0].find(v.id(1))->info.addresses.front() == "192.0.2.2:3901");
  v.n.cut_all(v.id(1));
  v.boxes[1]->ep.ip = "198.51.100.9";
  v.boxes[1]->ep.kept.erase(v.id(4));  // and it does not dial there itself
  v.n.run_for(10s);
  for (std::size_t i : {0, 2, 3, 4}) {
    CHECK(v[i].up(v.id(1)));
    CHECK(v[i].find(v.id(1))->info.addresses.front() == "198.51.100.9:3901");
    CHECK(v.boxes[i]->ep.kept[v.id(1)].front() == "198.51.100.9:3901");
  }
  CHECK(v[1].find(v.id(1))->info.addresses.front() == "198.51.100.9:3901");
}

TEST_CASE("a restarted node's card wins over that of its former life") {
  village v(3);
  for (int i = 0; i < 20; ++i) CHECK(v[2].announce_number("n", static_cast<std::uint64_t>(i + 1)));
  v.n.run_for(5s);
  net& n = v.n;
  n.group.spawn("stop", v[2].stop());
  n.run_for(1s);
  const auto ids = v[0].members();
  v.boxes[2].reset();
  v.boxes[2] = std::make_unique<box>(n, 3);
  auto i = box::info(3);
  i.zone = "moved";
  i.start = 2;
  v[2].set_self(i);
  v[2].set_members(ids);
  v[2].add_peer(v.id(0), {v.boxes[0]->ep.address()});
  v[2].start();
  n.run_for(5s);
  CHECK(v[0].find(v.id(2))->info.zone == "moved");
  CHECK(v[1].find(v.id(2))->info.zone == "moved");
  CHECK(!v[1].announced_number(v.id(2), "n"));
}

TEST_CASE("a joining home's card is heard from itself and from members, and forgotten when it goes") {
  options o;
  o.others_kept = 60s;
  village v(3, 1, o);
  v.n.run_for(5s);
  {
    box joining(v.n, 40, o);
    joining.dir.add_peer(v.id(0), {v.boxes[0]->ep.address()});
    joining.dir.start();
    v.n.run_for(5s);
    CHECK(v[0].find(joining.id)->info.zone == "zone-40");
    CHECK(v[0].up(joining.id));
    CHECK(!v[0].find(joining.id)->member);
    CHECK(v[2].find(joining.id)->info.zone == "zone-40");  // vouched for by the first
    CHECK(joining.dir.find(v.id(2))->info.zone == "zone-3");
    v.n.group.spawn("stop", joining.dir.stop());
    v.n.run_for(1s);
  }
  v.n.run_for(300s);
  for (std::size_t i = 0; i < 3; ++i) CHECK(!v[i].find(test_node(40)));
}

TEST_CASE("hostile gossip is refused or bounded") {
  village v(3);
  v.n.run_for(5s);
  endpoint stranger(v.n, test_node(60), "203.0.113.1", 3901);
  v.n.connect(test_node(60), v.id(0));
  auto& member = v.boxes[1]->ep;

  SUBCASE("garbage") {
    CHECK(ask(v.n, stranger, v.id(0), wire::method::gossip, bytes(100, '\xff')).failed_with(errc::protocol));
    CHECK(ask(v.n, stranger, v.id(0), wire::method::gossip, gossip_of({"no card"})).failed_with(errc::protocol));
    CHECK(ask(v.n, stranger, v.id(0), wire::method::ping, bytes(100, '\xff')).failed_with(errc::protocol));
    CHECK(ask(v.n, stranger, v.id(0), wire::method::ping, bytes(100'000, 'x')).failed_with(errc::protocol));
  }
  SUBCASE("oversized") {
    CHECK(ask(v.n, stranger, v.id(0), wire::method::gossip, bytes(300 * 1024, 'x')).failed_with(errc::protocol));
    pb::Gossip g;
    for (unsigned i = 0; i < 2000; ++i) g.add_wanted(test_node(i).str());
    CHECK(ask(v.n, stranger, v.id(0), wire::method::gossip, g.SerializeAsString()).failed_with(errc::protocol));
  }
  SUBCASE("a stranger speaks for itself only") {
    CHECK(ask(v.n, stranger, v.id(0), wire::method::gossip,
              gossip_of({card_of(test_node(60), 1), card_of(test_node(61), 1), card_of(v.id(1), 1ull << 50)})));
    CHECK(v[0].find(test_node(60))->info.zone == "forged");
    CHECK(!v[0].find(test_node(61)));
    CHECK(v[0].find(v.id(1))->info.zone == "zone-2");
  }
  SUBCASE("a member may vouch for some, not for thousands") {
    for (unsigned i = 0; i < 500; ++i)
      (void)ask(v.n, member, v.id(0), wire::method::gossip, gossip_of({card_of(test_node(100 + i), 1)})).has_value();
    CHECK(v[0].nodes().size() <= 3 + others_max);
    CHECK(v[0].nodes().size() > 10);
  }
  SUBCASE("a made up card of this very node is refuted by a newer one") {
    CHECK(ask(v.n, member, v.id(0), wire::method::gossip, gossip_of({card_of(v.id(0), 1ull << 50)})));
    CHECK(v[0].find(v.id(0))->incarnation == (1ull << 50) + 1);
    CHECK(v[0].find(v.id(0))->info.zone == "zone-1");
    v.n.run_for(5s);
    CHECK(v[2].find(v.id(0))->incarnation >= (1ull << 50) + 1);
    CHECK(v[2].find(v.id(0))->info.zone == "zone-1");
  }
  SUBCASE("the highest incarnation there is does not last either") {
    for (auto incarnation : {incarnation_max, incarnation_max - 1, ~std::uint64_t{0}})
      (void)ask(v.n, member, v.id(0), wire::method::gossip, gossip_of({card_of(v.id(0), incarnation), card_of(v.id(2), incarnation)})).has_value();
    CHECK(v[0].find(v.id(2))->info.zone == "zone-3");  // it says itself, on its own line, how far it is
    v.n.run_for(5s);
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 3; ++j) CHECK(v[i].find(v.id(j))->info.zone == "zone-" + std::to_string(j + 1));
  }
  SUBCASE("a card made up while its owner was away gives way when it is back") {
    v.n.dead.insert(v.id(2));
    v.n.cut_all(v.id(2));
    v.n.run_for(5s);
    CHECK(ask(v.n, member, v.id(0), wire::method::gossip, gossip_of({card_of(v.id(2), incarnation_max)})));
    CHECK(v[0].find(v.id(2))->info.zone == "forged");
    v.n.dead.clear();
    v.n.run_for(10s);
    CHECK(v[0].find(v.id(2))->info.zone == "zone-3");
    CHECK(v[2].announce("still", "here"));
    v.n.run_for(5s);
    CHECK(v[0].announced(v.id(2), "still") == "here");
  }
  SUBCASE("a liar about our address does not make us talk all the time") {
    v.n.run_for(60s);
    const auto before = v[0].find(v.id(0))->incarnation;
    for (unsigned i = 0; i < 60; ++i) {
      pb::Ping p;
      p.set_seen_at("203.0.113." + std::to_string(i));
      CHECK(ask(v.n, member, v.id(0), wire::method::ping, p.SerializeAsString()));
    }
    CHECK(v[0].find(v.id(0))->incarnation - before < 40);
    CHECK(v[0].find(v.id(0))->info.addresses.size() <= addresses_max);
  }
  v.n.cut_all(test_node(60));
}
