// storaged/node.h: one home's server, wired: every service over the seams it is given. The daemon and the simulator run this same class.
//
//   Owns      the services; not the seams.
//   Runs on   its home thread.
//   Errors    start(): protocol (data of a newer version), already_exists (an invite of another cluster than the data), io_failed,
//             access_denied (invite wrong, spent or expired), unavailable (no address of the invite answers).
//   Not here  sockets of S3, web and admin (daemon.h), configuration (config.h).
#pragma once

#include <functional>

#include "block/block.h"
#include "cluster/cluster.h"
#include "kv/kv.h"
#include "store/store.h"
#include "table/table.h"
#include "wire/wire.h"

namespace grenier::storaged {

struct invite {
  std::vector<std::string> addresses;   // of homes that know it
  bytes id;                             // 16 bytes
  bytes secret;                         // 32 bytes
  cluster_id cluster;                   // that it leads to
  std::string encode() const;           // one line, with a checksum: a part of it that was lost or altered is noticed
  static result<invite> decode(std::string_view line);
};

struct node_options {
  std::string zone;
  std::string rpc_listen;
  std::vector<std::string> rpc_public;  // what others are told to dial; empty: only dials out
  std::function<std::vector<std::string>()> find_rpc_public;  // looked up anew now and then: a home's addresses change. Empty: they stay
  std::uint64_t capacity_bytes = 0;     // 0: a gateway
  bool capacity_is_set = true;          // false: capacity_bytes is only the wish of a new node
  std::map<std::string, std::uint16_t> services;
  std::optional<std::string> join;      // an invite's line; ignored by a node that has a cluster
  std::string data_dir;                 // only to be named to people
  std::uint64_t upload_limit = 0, download_limit = 0;
  std::uint16_t protocol_version = wire::protocol_version;  // for tests of upgrades
  table::replicated::options table;
  block::manager::options block;
  store::service::options store;
};

// What a fresh node printed once.
struct first_key {
  std::string id, secret;
};

class node {
 public:
  node(runtime&, network&, kv::store&, std::vector<block::drive>, node_options);
  ~node();
  // A new node founds a cluster of one, or joins by the invite; one that has a cluster goes on in it.
  task<result<void>> start();
  task<void> stop();

  bool founded() const noexcept;                       // by this start
  bool joined() const noexcept;                        // by this start
  const std::optional<first_key>& made_key() const noexcept;
  node_id id() const noexcept;
  cluster_id cluster() const noexcept;
  const node_options& options() const noexcept;

  // How far another home's clock is ahead (negative: behind), where that is more than it may be. Known some seconds after its connection.
  std::optional<seconds> clock_off(node_id) const;
  // What this home announces of itself: lengths of queues ("queue/..."), blocks, bytes stored, rows that repair passed over, damage.
  std::map<std::string, std::uint64_t> numbers() const;

  // This home was taken out of its cluster: it serves nothing, and can join again only with an empty data directory. Known as soon as a
  // member could tell it, and remembered.
  bool removed() const noexcept;
  // What a person who reads that may do.
  std::string removed_text() const;

  // "paris (1a2b3c4d)": the homes that a change of the layout waits for, when all of them are dark; empty: it goes on by itself.
  std::string waits_for_dark() const;
  // A member that is dark leaves for good; what it held is copied to the others. A change that waits for it is taken back first.
  // Answers whether the cluster has a new key by now, which the removed home does not know; else it gets one soon.
  // conflict: it is up, or another change did not end before the deadline.
  task<result<bool>> remove(node_id, mono_time deadline);
  // How often the cluster's key was changed, so far as this home knows; and whether it knows the newest and no removed home knows that.
  std::uint64_t key_changes() const noexcept;
  bool key_is_current() const;

  // One line for the next home; spent by its first use.
  task<result<std::string>> make_invite(seconds valid, mono_time deadline);

  wire::endpoint& wire();
  cluster::directory& directory();
  table::replicated& tables();
  block::manager& blocks();
  store::service& store();
  kv::store& rows();

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace grenier::storaged
