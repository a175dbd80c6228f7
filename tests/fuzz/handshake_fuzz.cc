// The handshake with somebody hostile: a stranger, who has only bytes; and a member, who knows the cluster key and says anything inside
// what it seals. No session may name a peer whose key did not sign.
#include "async/async.h"
#include "input.h"
#include "wire/handshake.h"

using namespace grenier;
using namespace grenier::wire;

namespace {

struct fixed final : random_source {
  std::uint8_t next_byte = 1;
  void fill(void* to, std::size_t n) override {
    for (std::size_t i = 0; i < n; ++i) static_cast<std::uint8_t*>(to)[i] = next_byte++;
  }
};

const bytes secret(32, 'k');
const crypto::node_key& honest() {
  static const crypto::node_key k = crypto::node_key::from_seed(bytes(32, 'h'));
  return k;
}
const crypto::node_key& hostile() {
  static const crypto::node_key k = crypto::node_key::from_seed(bytes(32, 'x'));
  return k;
}
self_description self() {
  self_description s{honest(), *cluster_id::from_bytes(bytes(16, 'c')), 7};
  s.version = 3, s.version_oldest = 2;
  return s;
}
bytes sha256(bytes_view m) { return crypto::digest(crypto::hash_kind::sha256, m); }
bytes mac(bytes_view message) { return crypto::hmac_sha256(crypto::hkdf(secret, "", "grenier wire 1 hello", 32), message); }

// The hostile member's half: keys, and an identity with this claim.
struct half {
  crypto::exchange_key mine = crypto::exchange_key::from_secret(bytes(32, 'e'));
  std::optional<crypto::sealer> seals, opens;
  bytes transcript;

  void derive(bytes_view theirs, bool initiates) {
    auto dh = crypto::exchange(mine, theirs);
    ASSERT(dh);
    bytes keys = crypto::hkdf(*dh + crypto::hkdf(secret, "", "grenier wire 1 shared key", 32), sha256(transcript), "grenier wire 1 handshake", 64);
    seals.emplace(crypto::cipher::chacha20_poly1305, bytes_view(keys).substr(initiates ? 32 : 0, 32));
    opens.emplace(crypto::cipher::chacha20_poly1305, bytes_view(keys).substr(initiates ? 0 : 32, 32));
  }
  bytes identity(fuzz::input& in, bool initiates, bool& signs) {
    const auto how = in.byte();
    bytes claim = in.exactly(62);
    // Some of what it says is what an honest one would say, or nothing but noise would come of it.
    if (how & 1) claim.replace(30, 32, hostile().id().str());
    if (how & 2) claim.replace(6, 16, bytes(16, 'c'));
    if (how & 4) claim[0] = 0;
    if (how & 8) claim.replace(2, 4, bytes("\0\2\0\3", 4));
    const bytes part = (initiates ? "grenier wire 1 initiator" : "grenier wire 1 responder") + sha256(transcript) + claim;
    bytes signature = how & 16 ? hostile().sign(part) : in.exactly(64);
    signs = (how & 16) && bytes_view(claim).substr(30, 32) == hostile().id().view();
    return seal(claim + signature);
  }
  bytes seal(bytes_view plain) {
    bytes sealed;
    bytes_view pieces[] = {plain};
    seals->seal(pieces, "", sealed);
    return sealed;
  }
};

void check(const session& s, bool signs) {
  ASSERT(signs && s.peer == hostile().id() && s.version >= 2 && s.version <= 3);
  ASSERT(s.send_key.size() == 32 && s.receive_key.size() == 32 && s.send_key != s.receive_key);
}

void stranger(fuzz::input in) {
  fixed r;
  bytes first = in.exactly(hello_bytes);
  if (in.byte() & 1) first.replace(0, 4, "grw1");
  ASSERT(!responder::proves(first, secret));
  if (auto h = hello::parse(first)) {
    ASSERT(h->invite_id.size() <= invite_id_max_bytes && h->open_key.size() == 32);
    responder answers(self(), r);
    // As if its proof had been good: what it says of itself is not believed for that.
    if (answers.on_hello(first, {secret, h->invite_id, false})) {
      auto end = answers.on_proof(in.exactly(in.byte() & 1 ? proof_bytes : in.byte()));
      ASSERT(!end || !end->session);
    }
  }
  initiator asks(self(), {secret, {}, false}, r);
  (void)asks.first();
  bytes reply = in.exactly(in.byte() & 1 ? reply_bytes : in.byte());
  if (in.byte() & 1) reply.replace(0, 4, "grw1");
  if (asks.on_reply(reply)) ASSERT(!asks.on_verdict(in.exactly(verdict_bytes)));
}

void hostile_initiator(fuzz::input in) {
  fixed r;
  half h;
  bytes first = "grw1" + in.exactly(4) + h.mine.open;
  const auto id_size = in.byte() % 2 ? in.byte() % (invite_id_max_bytes + 1) : 0u;
  first.push_back(id_size ? 1 : 0);
  first.push_back(static_cast<char>(id_size));
  first += in.exactly(invite_id_max_bytes);
  first += mac(first);
  ASSERT(responder::proves(first, secret));
  auto parsed = hello::parse(first);
  ASSERT(parsed && parsed->invite_id.size() == id_size);
  responder answers(self(), r);
  auto reply = answers.on_hello(first, {secret, parsed->invite_id, false});
  ASSERT(reply && reply->size() == reply_bytes);
  h.transcript = first + reply->substr(0, 36);
  h.derive(bytes_view(*reply).substr(4, 32), true);
  bytes sealed = reply->substr(36);
  ASSERT(h.opens->open(sealed, ""));
  h.transcript += reply->substr(36);
  bool signs = false;
  bytes proof = h.identity(in, true, signs);
  auto end = answers.on_proof(proof);
  if (end && end->session) check(*end->session, signs);
}

void hostile_responder(fuzz::input in) {
  fixed r;
  half h;
  initiator asks(self(), {secret, {}, false}, r);
  bytes first = asks.first();
  bytes clear = "grw1" + h.mine.open;
  h.transcript = first + clear;
  h.derive(bytes_view(first).substr(8, 32), false);
  bool signs = false;
  bytes sealed = h.identity(in, false, signs);
  auto proof = asks.on_reply(clear + sealed);
  if (!proof) return;
  bytes plain(*proof);
  ASSERT(h.opens->open(plain, ""));
  const char verdict = static_cast<char>(in.byte() % 4 ? 0 : in.byte());
  auto s = asks.on_verdict(h.seal(bytes_view(&verdict, 1)));
  if (s) check(*s, signs);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  crypto::init();
  fuzz::input in(data, size);
  switch (in.byte() % 3) {
    case 0: stranger(in); break;
    case 1: hostile_initiator(in); break;
    default: hostile_responder(in); break;
  }
  return 0;
}
