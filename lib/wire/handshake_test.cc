#include <doctest/doctest.h>

#include "async/async.h"
#include "wire/handshake.h"

using namespace grenier;
using namespace grenier::wire;

namespace {

struct side {
  real_random rnd;
  self_description self;
  explicit side(cluster_id cluster) : self{crypto::node_key::from_seed(seed()), cluster, 1} {}
  bytes seed() {
    bytes b(32, '\0');
    rnd.fill(b.data(), b.size());
    return b;
  }
};

struct outcome {
  result<session> initiator_says = fail(errc::internal), responder_says = fail(errc::internal);
};

// Runs a whole handshake; change() may alter message number n on its way.
outcome run(side& a, side& b, const credential& ca, const credential& cb, const std::function<void(int, bytes&)>& change = {}) {
  outcome o;
  auto pass = [&](int n, bytes m) {
    if (change) change(n, m);
    return m;
  };
  initiator i(a.self, ca, a.rnd);
  responder r(b.self, b.rnd);
  bytes first = pass(1, i.first());
  if (!hello::parse(first) || !responder::proves(first, cb.secret)) {
    o.responder_says = fail(errc::access_denied, "hello");
    return o;
  }
  auto reply = r.on_hello(first, cb);
  if (!reply) return o;
  auto proof = i.on_reply(pass(2, *reply));
  if (!proof) {
    o.initiator_says = fail(proof.error());
    return o;
  }
  auto end = r.on_proof(pass(3, *proof));
  if (!end) {
    o.responder_says = fail(end.error());
    return o;
  }
  o.responder_says = end->session;
  o.initiator_says = i.on_verdict(pass(4, end->verdict));
  return o;
}

cluster_id cluster(char c) { return *cluster_id::from_bytes(bytes(16, c)); }

}  // namespace

TEST_CASE("two members agree on keys, version, cipher and each other's identity") {
  side a(cluster('c')), b(cluster('c'));
  credential key{bytes(32, 'k'), {}, false};
  auto o = run(a, b, key, key);
  REQUIRE(o.initiator_says);
  REQUIRE(o.responder_says);
  CHECK(o.initiator_says->peer == b.self.key.id());
  CHECK(o.responder_says->peer == a.self.key.id());
  CHECK(o.initiator_says->send_key == o.responder_says->receive_key);
  CHECK(o.initiator_says->receive_key == o.responder_says->send_key);
  CHECK(o.initiator_says->send_key != o.initiator_says->receive_key);
  CHECK(o.initiator_says->cipher == o.responder_says->cipher);
  CHECK(o.initiator_says->version == 1);
  auto again = run(a, b, key, key);
  CHECK(again.initiator_says->send_key != o.initiator_says->send_key);
}

TEST_CASE("every changed byte of every message is noticed") {
  side a(cluster('c')), b(cluster('c'));
  credential key{bytes(32, 'k'), {}, false};
  const std::size_t sizes[] = {hello_bytes, reply_bytes, proof_bytes, verdict_bytes};
  for (int n = 1; n <= 4; ++n)
    for (std::size_t at = 0; at < sizes[n - 1]; at += 3) {
      auto o = run(a, b, key, key, [&](int which, bytes& m) {
        if (which != n) return;
        REQUIRE(m.size() == sizes[n - 1]);
        m[at] = static_cast<char>(m[at] ^ 1);
      });
      CAPTURE(n);
      CAPTURE(at);
      CHECK_FALSE(o.initiator_says);
      if (n < 4) CHECK_FALSE(o.responder_says);
    }
}

TEST_CASE("another key proves nothing, and truncated messages are refused") {
  side a(cluster('c')), b(cluster('c'));
  auto o = run(a, b, {bytes(32, 'k'), {}, false}, {bytes(32, 'l'), {}, false});
  CHECK(o.responder_says.failed_with(errc::access_denied));
  initiator i(a.self, {bytes(32, 'k'), {}, false}, a.rnd);
  bytes m = i.first();
  for (std::size_t n = 0; n < m.size(); ++n) CHECK_FALSE(hello::parse(bytes_view(m).substr(0, n)));
  CHECK_FALSE(i.on_reply(bytes(reply_bytes - 1, 'x')));
}

TEST_CASE("versions: the older of the newest ones; none in common is told to both by name") {
  side a(cluster('c')), b(cluster('c'));
  credential key{bytes(32, 'k'), {}, false};
  a.self.version = 3, a.self.version_oldest = 2;
  b.self.version = 2, b.self.version_oldest = 1;
  auto o = run(a, b, key, key);
  REQUIRE(o.initiator_says);
  CHECK(o.initiator_says->version == 2);
  CHECK(o.responder_says->version == 2);
  b.self.version = 1;
  o = run(a, b, key, key);
  REQUIRE(o.initiator_says.failed_with(errc::protocol));
  CHECK(o.initiator_says.error().detail.find("speaks protocol versions 1, this node 2 to 3") != std::string::npos);
}

TEST_CASE("another cluster with the same key, and oneself, are refused") {
  side a(cluster('c')), b(cluster('d'));
  credential key{bytes(32, 'k'), {}, false};
  auto o = run(a, b, key, key);
  CHECK(o.initiator_says.failed_with(errc::access_denied));
  CHECK_FALSE(o.responder_says);
  o = run(a, a, key, key);
  REQUIRE_FALSE(o.initiator_says);
  CHECK(o.initiator_says.error().detail.find("back to this node") != std::string::npos);
}

TEST_CASE("an invite needs no common cluster id and marks the session") {
  side a(cluster_id().is_zero() ? cluster_id() : cluster('x')), b(cluster('d'));
  credential invite{bytes(32, 's'), "invite-1", false};
  auto o = run(a, b, invite, invite);
  REQUIRE(o.initiator_says);
  REQUIRE(o.responder_says);
  CHECK(o.responder_says->by_invite);
  CHECK(o.responder_says->invite_id == "invite-1");
}

TEST_CASE("who proves a former key learns that it is one") {
  side a(cluster('c')), b(cluster('c'));
  auto o = run(a, b, {bytes(32, 'k'), {}, false}, {bytes(32, 'k'), {}, true});
  REQUIRE(o.initiator_says);
  REQUIRE(o.responder_says);
  CHECK(o.initiator_says->self_former);
  CHECK_FALSE(o.initiator_says->peer_former);
  CHECK(o.responder_says->peer_former);
}
