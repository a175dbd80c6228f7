#include "wire/handshake.h"

namespace grenier::wire {

namespace {

constexpr bytes_view magic = "grw1";
constexpr std::size_t key_bytes = 32, mac_bytes = 32, signature_bytes = 64;
constexpr std::size_t claim_bytes = 62;     // an identity without its signature
constexpr std::size_t identity_bytes = claim_bytes + signature_bytes;
constexpr std::size_t invite_field_bytes = invite_id_max_bytes;
static_assert(hello_bytes == 4 + 2 + 2 + key_bytes + 1 + invite_field_bytes + 1 + mac_bytes);
static_assert(reply_bytes == 4 + key_bytes + identity_bytes + 16);
static_assert(proof_bytes == identity_bytes + 16);
static_assert(verdict_bytes == 1 + 16);

enum class status : std::uint8_t { fine, version, cluster, self };
constexpr std::uint8_t fast_aes_flag = 1, former_flag = 2;

struct identity {
  wire::status status{};
  std::uint8_t flags = 0;
  std::uint16_t version_oldest = 0, version = 0;
  cluster_id cluster;
  std::uint64_t instance = 0;
  node_id node;
  bytes signature;

  bytes claim() const {
    bytes b;
    b.push_back(static_cast<char>(status));
    b.push_back(static_cast<char>(flags));
    append_u16(b, version_oldest);
    append_u16(b, version);
    b += cluster.view();
    append_u64(b, instance);
    b += node.view();
    return b;
  }
  static identity parse(bytes_view b) {
    ASSERT(b.size() == identity_bytes);
    identity i;
    i.status = static_cast<wire::status>(b[0]);
    i.flags = static_cast<std::uint8_t>(b[1]);
    i.version_oldest = read_u16(b.substr(2));
    i.version = read_u16(b.substr(4));
    i.cluster = *cluster_id::from_bytes(b.substr(6, 16));
    i.instance = read_u64(b.substr(22));
    i.node = *node_id::from_bytes(b.substr(30, 32));
    i.signature = bytes(b.substr(claim_bytes));
    return i;
  }
};

bytes hello_mac(bytes_view secret, bytes_view message) {
  return crypto::hmac_sha256(crypto::hkdf(secret, "", "grenier wire 1 hello", 32), message);
}

bytes sha256(bytes_view m) { return crypto::digest(crypto::hash_kind::sha256, m); }

bytes seal_alone(crypto::sealer& s, bytes_view plain) {
  bytes b;
  bytes_view pieces[] = {plain};
  s.seal(pieces, "", b);
  return b;
}

std::string versions(std::uint16_t oldest, std::uint16_t newest) {
  return oldest == newest ? std::to_string(newest) : std::to_string(oldest) + " to " + std::to_string(newest);
}

}  // namespace

struct handshake_state {
  self_description self;
  wire::credential credential;
  crypto::exchange_key mine;
  bytes transcript;
  bytes shared;  // Diffie-Hellman result and pre-shared key
  std::optional<crypto::sealer> seals, opens;
  identity peer;
  bytes proof_sent;

  handshake_state(const self_description& s, random_source& r) : self(s) {
    bytes secret(key_bytes, '\0');
    r.fill(secret.data(), secret.size());
    mine = crypto::exchange_key::from_secret(std::move(secret));
  }

  // After both ephemeral keys are known and in the transcript.
  result<void> derive(bytes_view theirs, bool initiates) {
    TRY(bytes dh, crypto::exchange(mine, theirs));
    shared = dh + crypto::hkdf(credential.secret, "", "grenier wire 1 shared key", 32);
    bytes keys = crypto::hkdf(shared, sha256(transcript), "grenier wire 1 handshake", 64);
    bytes_view answering = bytes_view(keys).substr(0, 32), asking = bytes_view(keys).substr(32);
    seals.emplace(crypto::cipher::chacha20_poly1305, initiates ? asking : answering);
    opens.emplace(crypto::cipher::chacha20_poly1305, initiates ? answering : asking);
    return {};
  }

  bytes signed_part(bool by_initiator, bytes_view claim) const {
    return (by_initiator ? "grenier wire 1 initiator" : "grenier wire 1 responder") + sha256(transcript) + bytes(claim);
  }

  bytes seal_identity(status st, bool initiates, bool peer_former) {
    identity me;
    me.status = st;
    me.flags = static_cast<std::uint8_t>((crypto::has_fast_aes() ? fast_aes_flag : 0) | (peer_former ? former_flag : 0));
    me.version_oldest = self.version_oldest;
    me.version = self.version;
    // A newcomer with an invite knows no cluster yet.
    me.cluster = self.cluster;
    me.instance = self.instance;
    me.node = self.key.id();
    bytes claim = me.claim();
    return seal_alone(*seals, claim + self.key.sign(signed_part(initiates, claim)));
  }

  result<void> open_identity(bytes_view sealed, bool by_initiator) {
    bytes b(sealed);
    if (!opens->open(b, "")) return fail(errc::access_denied, "the other side does not know the secret");
    peer = identity::parse(b);
    if (!crypto::verify(peer.node, signed_part(by_initiator, bytes_view(b).substr(0, claim_bytes)), peer.signature))
      return fail(errc::access_denied, "a node's signature is wrong");
    return {};
  }

  bool invited() const { return !credential.invite_id.empty(); }

  error refusal(status st) const {
    switch (st) {
      case status::version:
        return {errc::protocol, "node " + peer.node.short_hex() + " speaks protocol versions " +
                                    versions(peer.version_oldest, peer.version) + ", this node " +
                                    versions(self.version_oldest, self.version) + ": upgrade the older one"};
      case status::cluster: return {errc::access_denied, "node " + peer.node.short_hex() + " belongs to another cluster"};
      case status::self: return {errc::access_denied, "the address leads back to this node"};
      case status::fine: break;
    }
    return {errc::protocol, "refused by node " + peer.node.short_hex()};
  }

  // What this side thinks of the identity that it received.
  status judge() const {
    if (peer.node == self.key.id()) return status::self;
    if (peer.version < self.version_oldest || peer.version_oldest > self.version) return status::version;
    if (!invited() && peer.cluster != self.cluster) return status::cluster;
    return status::fine;
  }

  session conclude(bool initiates) const {
    session s;
    s.peer = peer.node;
    s.peer_instance = peer.instance;
    s.version = std::min(self.version, peer.version);
    s.cipher = crypto::has_fast_aes() && (peer.flags & fast_aes_flag) ? crypto::cipher::aes_256_gcm
                                                                     : crypto::cipher::chacha20_poly1305;
    bytes keys = crypto::hkdf(shared, sha256(transcript), "grenier wire 1 session", 64);
    s.send_key = keys.substr(initiates ? 0 : 32, 32);
    s.receive_key = keys.substr(initiates ? 32 : 0, 32);
    s.initiator = initiates;
    s.by_invite = invited();
    s.invite_id = credential.invite_id;
    // The credential is the initiator's: who accepts a former one limits the initiator; who shows it limits the responder.
    s.peer_former = credential.former;
    s.self_former = peer.flags & former_flag;
    return s;
  }
};

// ------------------------------------------------------------------------------------------------- ids of invites

namespace {
constexpr std::size_t invite_random_bytes = invite_id_bytes / 2;
bytes invite_mark(bytes_view cluster_key, bytes_view random) {
  return crypto::hmac_sha256(crypto::hkdf(cluster_key, "", "grenier wire 1 invite id", 32), random).substr(0, invite_id_bytes - invite_random_bytes);
}
}  // namespace

bytes make_invite_id(bytes_view cluster_key, random_source& r) {
  bytes id(invite_random_bytes, '\0');
  r.fill(id.data(), id.size());
  return id + invite_mark(cluster_key, id);
}

bool is_invite_id(bytes_view id, bytes_view cluster_key) {
  if (id.size() != invite_id_bytes || cluster_key.empty()) return false;
  return crypto::equal_constant_time(id.substr(invite_random_bytes), invite_mark(cluster_key, id.substr(0, invite_random_bytes)));
}

// ------------------------------------------------------------------------------------------------- the first message

bool begins_like_hello(bytes_view first) noexcept { return first.substr(0, magic.size()) == magic; }

result<hello> hello::parse(bytes_view m) {
  if (m.size() != hello_bytes || !begins_like_hello(m)) return fail(errc::access_denied, "not a peer's first message");
  hello h;
  h.version_oldest = read_u16(m.substr(4));
  h.version = read_u16(m.substr(6));
  h.open_key = bytes(m.substr(8, key_bytes));
  auto kind = static_cast<std::uint8_t>(m[40]);
  std::size_t id_size = static_cast<std::uint8_t>(m[41]);
  if (kind > 1 || id_size > invite_field_bytes || (kind == 1) != (id_size > 0))
    return fail(errc::access_denied, "not a peer's first message");
  h.invite_id = bytes(m.substr(42, id_size));
  return h;
}

// ------------------------------------------------------------------------------------------------- initiator

initiator::initiator(const self_description& self, credential c, random_source& r)
    : s_(std::make_unique<handshake_state>(self, r)) {
  s_->credential = std::move(c);
}
initiator::~initiator() = default;

bytes initiator::first() {
  bytes m(magic);
  append_u16(m, s_->self.version_oldest);
  append_u16(m, s_->self.version);
  m += s_->mine.open;
  const bytes& id = s_->credential.invite_id;
  ASSERT(id.size() <= invite_field_bytes);
  m.push_back(id.empty() ? 0 : 1);
  m.push_back(static_cast<char>(id.size()));
  m += id;
  m.append(invite_field_bytes - id.size(), '\0');
  m += hello_mac(s_->credential.secret, m);
  s_->transcript = m;
  return m;
}

result<bytes> initiator::on_reply(bytes_view reply) {
  if (reply.size() != reply_bytes || !reply.starts_with(magic)) return fail(errc::protocol, "the other side is no peer");
  bytes_view clear = reply.substr(0, 4 + key_bytes), sealed = reply.substr(4 + key_bytes);
  s_->transcript += clear;
  TRY_VOID(s_->derive(clear.substr(4), true));
  TRY_VOID(s_->open_identity(sealed, false));
  s_->transcript += sealed;
  if (s_->peer.status != status::fine) return fail(s_->refusal(s_->peer.status));
  if (status st = s_->judge(); st != status::fine) return fail(s_->refusal(st));
  bytes proof = s_->seal_identity(status::fine, true, s_->credential.former);
  s_->transcript += proof;
  return proof;
}

result<session> initiator::on_verdict(bytes_view verdict) {
  bytes b(verdict);
  if (verdict.size() != verdict_bytes || !s_->opens->open(b, "")) return fail(errc::access_denied, "a verdict that is not the peer's");
  auto st = static_cast<status>(b[0]);
  if (st != status::fine) return fail(s_->refusal(st));
  return s_->conclude(true);
}

// ------------------------------------------------------------------------------------------------- responder

responder::responder(const self_description& self, random_source& r) : s_(std::make_unique<handshake_state>(self, r)) {}
responder::~responder() = default;

bool responder::proves(bytes_view m, bytes_view secret) {
  if (m.size() != hello_bytes || secret.empty()) return false;
  return crypto::equal_constant_time(m.substr(hello_bytes - mac_bytes), hello_mac(secret, m.substr(0, hello_bytes - mac_bytes)));
}

result<bytes> responder::on_hello(bytes_view m, credential c) {
  TRY(hello h, hello::parse(m));
  s_->credential = std::move(c);
  bytes clear = bytes(magic) + s_->mine.open;
  s_->transcript = bytes(m) + clear;
  TRY_VOID(s_->derive(h.open_key, false));
  s_->peer.version = h.version;
  s_->peer.version_oldest = h.version_oldest;
  bool common = h.version >= s_->self.version_oldest && h.version_oldest <= s_->self.version;
  bytes sealed = s_->seal_identity(common ? status::fine : status::version, false, s_->credential.former);
  s_->transcript += sealed;
  return clear + sealed;
}

result<responder::conclusion> responder::on_proof(bytes_view proof) {
  if (proof.size() != proof_bytes) return fail(errc::protocol, "a proof of the wrong length");
  TRY_VOID(s_->open_identity(proof, true));
  s_->transcript += proof;
  status st = s_->judge();
  char verdict = static_cast<char>(st);
  conclusion c{seal_alone(*s_->seals, bytes_view(&verdict, 1)), fail(s_->refusal(st))};
  if (st == status::fine) c.session = s_->conclude(false);
  return c;
}

}  // namespace grenier::wire
