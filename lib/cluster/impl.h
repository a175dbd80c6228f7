// cluster/impl.h: the directory's state. Private to cluster/: cards and gossip in gossip.cc, peers and heartbeats in
// liveness.cc, the public face in cluster.cc.
#pragma once

#include <set>

#include "cluster/card.h"
#include "cluster/detector.h"

namespace grenier::cluster {

namespace pb {
class Gossip;
}

// Another node's card.
struct held_card {
  cluster::card card;
  bytes raw;              // as its owner encoded it
  bool direct = false;    // came from the owner itself, on the connection that stands
};

// Another node, as this one sees it.
struct peer {
  explicit peer(nanoseconds heartbeat_every) : det(heartbeat_every) {}
  // line and life
  detector det;
  bool connected = false;
  bool up = false;
  mono_time since{};            // of being down; of being connected or not
  mono_time mentioned{};        // somebody who sees it told of it, or it spoke itself
  unsigned pings = 0;           // under way
  std::optional<mono_time> asked;  // the first heartbeat since the last answer
  std::uint64_t told = 0;       // its incarnation, as it said itself on this connection
  std::uint64_t knows = 0;      // which of ours it has, as it said
  bool exchanging = false;
  // order by quality
  nanoseconds rank{};
  unsigned rank_doubts = 0;
  // what reads met, by kind
  struct reading {
    unsigned missed = 0;        // in a row
    mono_time try_again{};      // once it missed too many
    nanoseconds pause{};
    bool tried = false;         // somebody was sent there since
  };
  std::array<reading, 3> reading_of;
  // addresses
  std::vector<std::string> seen;     // reached at, or coming from; last first
  std::vector<std::string> kept;     // what the endpoint was given
  bool dial = false;                 // a member, or somebody added
  std::vector<node_id> carriers;     // who may carry a connection, as there has been no straight one for a while
};

struct directory::impl {
  impl(runtime& r, wire::endpoint& e, node_id s, options o);

  // ---- cluster.cc
  void set_self(self_info);
  void set_members(std::vector<node_id>, std::vector<node_id> removed);
  peer& know(node_id);                         // REQUIRES: not self, not removed
  void drop(node_id);
  bool is_member(node_id n) const { return members.contains(n); }
  node describe(node_id) const;
  bool is_up(node_id) const;
  bool is_late(node_id) const;
  std::vector<std::string> own_addresses() const;
  std::vector<node_id> by_quality(std::vector<node_id>, reads);
  void read_answered(node_id, reads);
  void read_missed(node_id, reads);
  bool misses_reads(node_id, reads) const;

  // ---- liveness.cc
  task<void> run();
  task<void> ping(node_id);
  task<result<wire::message>> answer_ping(wire::caller, wire::message);
  void connection(node_id, bool connected);
  void heartbeat();
  void judge();                                // who is up, who is not any more
  void rank();
  void set_up(node_id, peer&, bool up);
  bool take_ping(node_id from, const wire::message&);   // false: no ping
  wire::message make_ping(node_id to);
  bool turn_away(const wire::caller&);         // true: it has no right to ask
  void take_report(node_id from, std::string host);
  void learn_address(node_id);
  void keep(node_id);                          // tells the endpoint what has changed
  void measure_links();
  void find_carriers();
  void forget_others();
  void tell_liveness();

  // ---- gossip.cc
  const bytes& own_raw();
  void changed(bool urgent = true);            // this node's card
  void gossip_round();
  void exchange_with(node_id);
  task<void> exchange(node_id);
  task<result<wire::message>> answer_gossip(wire::caller, wire::message);
  // Cards that are told to others: ours, members', and those of others that this node sees itself. By id.
  std::vector<std::pair<node_id, std::uint64_t>> tellable() const;
  std::uint64_t summary() const;
  // What the other side lacks and what it has newer, given its digest.
  void compare(const pb::Gossip& theirs, node_id from, pb::Gossip& to);
  bool take_card(node_id from, bytes_view raw);
  bool accepts(node_id from, const card&) const;
  bool make_room(node_id from);
  void refute(std::uint64_t seen);
  std::uint64_t held_incarnation(node_id) const;

  runtime& rt;
  wire::endpoint& ep;
  const node_id self;
  const options opt;
  task_group group;
  bool running = false;  // started and not stopped: tasks may be spawned
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);  // for handlers that the endpoint still has after us

  card own;
  bytes own_encoded;                           // empty: to be made
  bool quiet_change = false;                   // told at quiet_at
  mono_time quiet_at{};
  bool push_planned = false;
  std::map<node_id, std::string> reports;      // the host that each peer sees us at
  mono_time report_told{};

  std::set<node_id> members;
  std::set<node_id> removed;
  bool outcast = false;                        // this node is among them
  std::set<node_id> turned_away;               // removed ones that have called since
  std::map<node_id, peer> peers;
  std::map<node_id, held_card> cards;

  std::vector<std::pair<node_id, bool>> news;  // of liveness, to be told
  std::vector<std::unique_ptr<std::move_only_function<void(node_id, bool)>>> liveness_listeners;
  std::vector<std::unique_ptr<std::move_only_function<void(const node&)>>> card_listeners;
  std::vector<std::unique_ptr<std::move_only_function<void(node_id)>>> refusal_listeners;
};

}  // namespace grenier::cluster
