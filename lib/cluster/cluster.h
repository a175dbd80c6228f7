// cluster/cluster.h: who is there. Every node's own card (zone, addresses, services, space, load, versions, what modules
// announce about themselves), whether it lives, and how good the line to it is.
//
// A card belongs to the node that it describes: only that node raises its incarnation, the others hand it on. Cards travel by
// push-pull gossip: at once to a few peers on a change, else a summary each second to one or two random peers, differences
// only when the summaries differ; heartbeats carry incarnations, so that a direct neighbour asks without waiting for a round.
// Liveness is what this node sees itself: heartbeats each 500 ms, an accrual detector over the answers; what others say of a
// peer's health is never believed. Cards of layout members are kept; those of others (a home that is joining) only if they come
// from that node or from a member over its authenticated channel, a few, for a while. A removed node's card is never taken.
//
//   Owns      the handlers ping and gossip of the endpoint given, endpoint::on_connection, and which peers it keeps.
//   Runs on   its home thread; never blocks. Callbacks run there and may call back.
//   Durable   nothing: export_peers() gives the bytes to write down (kv family meta, key "peers"), import_peers() takes them.
//   Limits    1000 members, 64 others; a card: 16 KiB announced, 32 services, 8 addresses; 256 KiB a gossip message.
//             A dead peer is down within 3 s at RTTs up to 100 ms; jitter of 200 ms raises no false alarm.
//   Not here  what a layout is (layout/); connections (wire/); relaying between two homes that only dial out.
//   Source    Demers et al., "Epidemic Algorithms" (1987); Hayashibara et al., "The phi Accrual Failure Detector" (2004);
//             incarnations: Das et al., "SWIM" (2002); DESIGN 5 and rules 5b.17, 5b.19.
#pragma once

#include <map>

#include "async/async.h"
#include "wire/wire.h"

namespace grenier::cluster {

inline constexpr std::size_t announced_max_bytes = 16 * 1024;  // names and values together
inline constexpr std::size_t addresses_max = 8;
inline constexpr std::size_t services_max = 32;
inline constexpr std::size_t others_max = 64;

// What a node says of itself. Set by the program; the directory adds incarnation, seen addresses and links.
struct self_info {
  std::string zone;                                // 0..64 of [a-z0-9-]
  std::vector<std::string> addresses;              // "host:port" that it wants to be dialled at; may be empty
  std::uint16_t rpc_port = 0;                      // 0: only dials out
  std::map<std::string, std::uint16_t> services;   // "storage", "s3", "web", "gallery", "admin" ... -> port
  std::uint64_t space_total_bytes = 0;
  std::uint64_t space_free_bytes = 0;
  double load = 0;                                 // 0 idle .. 1 busy (may exceed)
  std::string software;                            // "0.1.0"
  std::uint16_t protocol = wire::protocol_version;
  std::uint32_t start = 0;                         // how often this node was started
  std::uint64_t layout_revision = 0;
  friend bool operator==(const self_info&, const self_info&) = default;
};

struct link {
  nanoseconds rtt{};
  double send_rate = 0;     // bytes/s; 0: not known
  bool dialled = false;     // that node opened the connection, so the peer can be reached
  friend bool operator==(const link&, const link&) = default;
};

// What is known of a node.
struct node {
  node_id id;
  self_info info;                              // addresses: last seen first, those it was observed at included
  std::map<std::string, bytes> announced;      // what its modules announce: sync progress, ...
  std::map<node_id, link> links;               // its lines as it measures them (at most 64), refreshed each 30 s
  std::uint64_t incarnation = 0;               // 0: only its addresses are known, no card came yet
  bool member = false;                         // in the layout, as told by set_members()
  bool up = false;                             // as directory::up()
  bool reachable = false;                      // somebody has dialled it, so far as is known
};

struct options {
  nanoseconds heartbeat_every = 500ms;
  nanoseconds gossip_every = 1s;
  nanoseconds heal_within = 1s;        // a lost connection that comes back this soon was nothing
  nanoseconds links_every = 30s;
  nanoseconds others_kept = 600s;      // a node that is no member is forgotten so long after it was last heard of
  double suspicion_limit = 8;          // phi: one false alarm in 10^8 heartbeats of a line as it was
};

enum class reads : std::uint8_t { rows, lists, blocks };

class directory {
 public:
  // Registers its handlers: before endpoint.start(). The endpoint outlives the directory's stop().
  directory(runtime&, wire::endpoint&, node_id self, options = {});
  ~directory();
  directory(const directory&) = delete;
  void start();
  task<void> stop();  // ends and joins its tasks; REQUIRED before destruction once started

  // ----------------------------------------------------------------------------------------- this node
  node_id self() const noexcept;
  // Takes effect at once. Space and load alone are told to others each 10 s.
  void set_self(self_info);
  const self_info& self_information() const noexcept;
  void set_layout_revision(std::uint64_t);
  // What a module wants all to know of this node; an empty value takes the name away. too_large beyond announced_max_bytes,
  // nothing changed.
  result<void> announce(std::string name, bytes value);
  result<void> announce_number(std::string name, std::uint64_t value);

  // ----------------------------------------------------------------------------------------- the others
  // The layout's members (self may be among them) and those that were taken out: connections are kept to the former,
  // everything of the latter is forgotten and refused. A node that is itself among the latter and is no member any more lets go of
  // everybody: it dials nobody, and nobody is up. Called at each layout change.
  void set_members(std::vector<node_id> members, std::vector<node_id> removed = {});
  // Somebody to dial: from an invite, a configuration, a command.
  void add_peer(node_id, std::vector<std::string> addresses);
  std::optional<node> find(node_id) const;
  std::vector<node> nodes() const;                          // all, self included, by id
  std::vector<node_id> members() const;                     // as set, sorted
  // A value that the node announces; nothing when it does not.
  std::optional<bytes> announced(node_id, const std::string& name) const;
  std::optional<std::uint64_t> announced_number(node_id, const std::string& name) const;
  // Nodes that offer a service and are up (self included), nearest first.
  std::vector<node_id> offering(const std::string& service) const;

  // Addresses (and ids) of the peers known, to be written down now and then; and read at the start, checked as foreign bytes.
  bytes export_peers() const;
  result<void> import_peers(bytes_view);

  // ----------------------------------------------------------------------------------------- liveness
  bool up(node_id) const;             // self: always
  double suspicion(node_id) const;    // 0 .. ; at options::suspicion_limit it is down
  // A heartbeat waits for its answer longer than the line explains: seconds before suspicion says anything. Reorders requests
  // and brings hedges forward; says nothing of whether the node lives. Self: never. One that is not up: always.
  bool late(node_id) const;
  std::optional<mono_time> down_since(node_id) const;       // nothing while up
  // The known members (self included) that are up / down.
  std::vector<node_id> up_members() const;
  std::vector<node_id> down_members() const;

  // ----------------------------------------------------------------------------------------- quality
  // Self first, then those that are up by round trip (with hysteresis), late ones and those that missed such reads after them, then
  // the others. One that missed reads is now and then given out in its old place again: to be tried by that one caller.
  std::vector<node_id> by_quality(std::vector<node_id>, reads = reads::rows) const;
  // What a read met at another node: an answer in good time, or none when it was time to ask somebody else. Three missed in a row make it
  // the last choice for reads of that kind until one is answered: heartbeats say nothing of its disk.
  void read_answered(node_id, reads);
  void read_missed(node_id, reads);
  bool misses_reads(node_id, reads) const;
  // After this long without an answer another replica is asked: rtt_p95 within 5 ms .. 500 ms; 500 ms while not measured.
  nanoseconds hedge_delay(node_id) const;
  double rate_to(node_id) const;      // bytes/s; 0: not known
  nanoseconds rtt(node_id) const;     // smoothed; 0: not known

  // ----------------------------------------------------------------------------------------- callbacks, kept for ever
  void on_liveness(std::move_only_function<void(node_id, bool up)>);
  void on_card(std::move_only_function<void(const node&)>);   // a newer card of another node came
  // A member answers that this node is none, each time that it is asked whether it lives: what that member knows of the layout tells more.
  void on_refused(std::move_only_function<void(node_id by)>);

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace grenier::cluster
