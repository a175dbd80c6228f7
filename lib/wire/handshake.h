// wire/handshake.h: who is at the other end, as a machine without I/O. Four messages of fixed size; docs/design/0002-wire.md.
//
//   Errors    access_denied (no right to be here: close without a word), protocol (no common version, not a peer).
#pragma once

#include "wire/wire.h"

namespace grenier::wire {

inline constexpr std::size_t invite_id_max_bytes = 32;
inline constexpr std::size_t hello_bytes = 106;
inline constexpr std::size_t reply_bytes = 178;
inline constexpr std::size_t proof_bytes = 142;
inline constexpr std::size_t verdict_bytes = 17;

// This side.
struct self_description {
  crypto::node_key key;
  cluster_id cluster;
  std::uint64_t instance = 0;  // random, of this start of the program
  std::uint16_t version = protocol_version, version_oldest = protocol_version_oldest;
};

// What the initiator shows that it knows.
struct credential {
  bytes secret;             // cluster key or an invite's secret
  bytes invite_id;          // empty: cluster key
  bool former = false;      // a cluster key that was replaced
};

// The outcome, the same on both sides but for `mine` and `theirs`.
struct session {
  node_id peer;
  std::uint64_t peer_instance = 0;
  std::uint16_t version = 0;
  crypto::cipher cipher{};
  bytes send_key, receive_key;
  bool initiator = false;
  bool by_invite = false;
  bytes invite_id;
  bool peer_former = false;  // the peer proved what is a former cluster key here: it may only fetch the new one
  bool self_former = false;  // and the other way round
};

struct hello {
  std::uint16_t version = 0, version_oldest = 0;
  bytes open_key;
  bytes invite_id;  // empty: a member
  static result<hello> parse(bytes_view message);  // hello_bytes of them
};
// The first four bytes: enough to turn most strangers away.
bool begins_like_hello(bytes_view first) noexcept;

struct handshake_state;

class initiator {
 public:
  initiator(const self_description&, credential, random_source&);
  ~initiator();
  bytes first();
  // The proof to send.
  result<bytes> on_reply(bytes_view reply);
  result<session> on_verdict(bytes_view verdict);

 private:
  std::unique_ptr<handshake_state> s_;
};

class responder {
 public:
  responder(const self_description&, random_source&);
  ~responder();
  // True when the hello proves this secret.
  static bool proves(bytes_view hello_message, bytes_view secret);
  // The reply to send. REQUIRES: proves(message, credential.secret)
  result<bytes> on_hello(bytes_view message, credential);
  // The verdict to send, and the session if it is favourable.
  struct conclusion {
    bytes verdict;
    result<wire::session> session;
  };
  result<conclusion> on_proof(bytes_view proof);

 private:
  std::unique_ptr<handshake_state> s_;
};

}  // namespace grenier::wire
