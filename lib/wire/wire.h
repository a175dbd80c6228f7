// wire/wire.h: peers. One mutually authenticated, encrypted connection to each other node, and calls over it.
//
// The handshake proves both node keys and the cluster key (or the secret of an invite) before any other byte is read: a
// stranger learns nothing and costs a bounded amount. Calls are multiplexed in small frames by priority, so that a block on
// a slow line never delays a heartbeat. Either side may have opened the connection; when both did, both keep the same one.
//
//   Owns      its listener and all connections to peers.
//   Runs on   its home thread; frames are sealed there, handlers are spawned there.
//   Cancel    a cancelled or late call tells the other side to drop the work.
//   Errors    unavailable (no connection, nothing sent), timed_out, cancelled; outcome_unknown when the connection broke after
//             the request may have been executed; access_denied for a failed handshake; else what the handler returned.
//   Limits    message to 16 MiB; frames of 8 KiB (4 KiB on lines under 1 Mbit/s, 64 KiB above 100 Mbit/s or on an unmeasured
//             line with a round trip under 2 ms); bytes handed to a socket are capped to the line's round trip and 50 ms more
//             at the measured rate; 32 handshakes at a time, 5 s each, 8 of them by invite, 8 with a former key, and 8
//             connections of each of these kinds, 2 minutes each, with 64 KiB of requests; 1024 calls and 16 MiB of requests under way for each
//             priority and peer (further callers wait).
//   Not here  who the peers are and whether they live (cluster/); what calls mean (table/, block/ ...).
//   Source    docs/design/0002-wire.md; key exchange in the style of Noise XX, secret mixed in as a pre-shared key.
#pragma once

#include "async/async.h"
#include "crypto/crypto.h"

namespace grenier::wire {

inline constexpr std::uint16_t protocol_version = 1;        // spoken
inline constexpr std::uint16_t protocol_version_oldest = 1;  // still understood

enum class priority : std::uint8_t { control, metadata, foreground, background };

// Numbers are on the wire: never reuse one.
enum class method : std::uint16_t {
  ping = 1,
  // cluster: 10..19
  gossip = 10,
  // layout: 20..29
  layout_fetch = 20,
  // table: 30..59
  table_read = 30, table_accept, table_prepare, table_list, table_counters, table_merkle, table_pull, table_push,
  // block: 60..89
  block_put = 60, block_get, block_reference, block_have, block_withdraw, block_count, block_guests,
  // members: 90..99
  join = 90, member_info,
  // streams between two homes that cannot reach each other: 100
  relay = 100,
  // galleries: 110..119
  gallery_want = 110,
};

// What travels: a Protobuf message, and beside it raw bytes that are not copied through Protobuf (block content).
struct message {
  bytes head;
  shared_bytes body;  // may be null
  std::size_t size_bytes() const noexcept { return head.size() + (body ? body->size() : 0); }
};

struct caller {
  node_id node;            // proved by the handshake
  std::uint64_t session;   // this connection; a request never outlives it
  mono_time deadline;      // in this node's time
  bool by_invite = false;  // proved an invite's secret, not the cluster key: only method::join may be answered
  bytes invite_id;         // which one, when by_invite
};

using handler = std::move_only_function<task<result<message>>(caller, message)>;

struct call_options {
  wire::priority priority = wire::priority::metadata;
  mono_time deadline = never;  // REQUIRED: never is refused
};

// A home that was away for more changes of the cluster key than this has to join again.
inline constexpr std::size_t former_keys_max = 8;

// What is measured of the line to a peer.
struct link_quality {
  bool connected = false;
  nanoseconds rtt{};          // smoothed, of control and metadata calls' transport (not the handler's time)
  nanoseconds rtt_p95{};      // of the last 128 answered small calls, handler included: hedges start after this
  double send_rate = 0;       // bytes/s, smoothed over transfers that filled the line; 0: not known
  double receive_rate = 0;
  std::uint64_t bytes_sent = 0, bytes_received = 0;
  std::size_t queued_bytes = 0;
};

struct options {
  std::string listen;                   // "0.0.0.0:3901"; empty: only dials out
  crypto::node_key key;
  bytes cluster_key;                    // 32 bytes; empty: dials with an invite only
  cluster_id cluster;                   // checked in the handshake
  std::uint64_t send_limit = 0, receive_limit = 0;  // bytes/s over all peers; 0: none
  std::uint16_t version = protocol_version, version_oldest = protocol_version_oldest;  // for tests of upgrades
  std::vector<bytes> former_keys;       // what the cluster key was before, the newest first; former_keys_max count
};

// The id of a new invite: half of it random, the other half made of that with the cluster key. So a member knows an id that no member
// made without asking anybody.
inline constexpr std::size_t invite_id_bytes = 16;
bytes make_invite_id(bytes_view cluster_key, random_source&);
bool is_invite_id(bytes_view id, bytes_view cluster_key);

class endpoint {
 public:
  virtual ~endpoint() = default;
  // Before start(). One handler a method; unknown methods are answered with not_implemented.
  virtual void serve(method, handler) = 0;
  virtual result<void> start() = 0;  // listens
  virtual task<void> stop() = 0;
  // host:port really listened on.
  virtual std::string local() const = 0;

  // Keeps a connection to this peer, trying its addresses in turn with growing pauses (0.2 s to 30 s), until forget().
  // Repeated calls replace the addresses.
  // An address may be relay_address(): a third peer that has connections to both carries it. Such a connection is replaced by a straight
  // one as soon as there is one, which is tried now and then.
  virtual void keep(node_id, std::vector<std::string> addresses) = 0;
  virtual void forget(node_id) = 0;
  virtual bool connected(node_id) const = 0;
  virtual link_quality quality(node_id) const = 0;
  virtual std::vector<node_id> peers() const = 0;  // connected ones, sorted
  // Where the peer's connection comes from or goes to, for gossip of addresses ("host:port", port of the socket).
  // Empty when a third one carries the connection.
  virtual std::string peer_address(node_id) const = 0;
  // Who carries the connection to this peer; nothing: it is a straight one, or there is none.
  virtual std::optional<node_id> carried_by(node_id) const { return std::nullopt; }

  // A call to this node itself runs the handler directly.
  virtual task<result<message>> call(node_id to, method, message, call_options) = 0;

  // A connection opened with an invite's secret to an address whose node is not known yet; calls method::join only.
  struct joined {
    node_id peer;
    message answer;
  };
  virtual task<result<joined>> call_with_invite(std::string address, bytes invite_id, bytes secret, message request, mono_time deadline) = 0;
  // The secret of an invite that a stranger presents by an id that a member made; nothing if it is unknown. Asked during handshakes,
  // for two strangers at a time.
  virtual void on_invite(std::move_only_function<task<std::optional<bytes>>(bytes invite_id)>) = 0;
  // Told of every connection made and lost.
  virtual void on_connection(std::move_only_function<void(node_id, bool connected)>) = 0;
  // The cluster key, changed whenever a home is removed, and what it was before, the newest first. Who shows a former one, or knows no
  // newer one, gets a connection that serves method::member_info only, to fetch the new key. Invites made with a former key are void.
  // Connections that stand go on. REQUIRES: at least one key, 32 bytes each; those beyond former_keys_max are left out.
  virtual void set_cluster_keys(std::vector<bytes> newest_first) = 0;
  // Who may come with a former key: a member that slept, or one that is to be told that it was removed. Until this is told, nobody.
  virtual void on_former_key(std::move_only_function<bool(node_id)>) {}
  // Connected peers for which this node's key is a former one, sorted.
  virtual std::vector<node_id> newer_key_at() const { return {}; }
  // Handshakes refused with a wrong key since the start, and the last one's address (for status and metrics).
  struct refusals {
    std::uint64_t count = 0;
    std::string last_from;
  };
  virtual refusals refused() const = 0;
};

// What to give keep() for a peer that can only be spoken to through another one.
inline std::string relay_address(node_id by, node_id to) { return "via:" + by.hex() + ":" + to.hex(); }

std::unique_ptr<endpoint> make_endpoint(runtime&, network&, options);

}  // namespace grenier::wire
