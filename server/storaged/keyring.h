// storaged/keyring.h: the key of the cluster, and its change when a home is removed (DESIGN 5b, rule 16; docs/design/0002-wire.md, "Keys").
//
// The keyring is one row of the whole cluster, changed by compare-and-swap; each home keeps a copy, with which it starts. A home announces
// how many changes it knows; who sees more at a member asks that member. A home that slept meets members which take its key for a former
// one: over such a connection it can ask for the keyring, and nothing else. A home that was removed is told so there, and gets no key.
//
//   Owns      its copy in the row store's family meta.
//   Runs on   the home thread; run() and prepare() once each, change() at any time.
//   Durability a new key is on disk here, and on a quorum, before the wire accepts it.
//   Errors    of change(): those of compare_and_swap(); whoever is there goes on with it later (run()).
//   Limits    former_keys_max former keys; a home that slept through more changes joins again as a newcomer.
#pragma once

#include <functional>
#include <set>

#include "cluster/cluster.h"
#include "kv/kv.h"
#include "table/table.h"
#include "wire/wire.h"

namespace grenier::storaged {

struct keyring {
  std::uint64_t changes = 0;   // since the cluster was founded
  std::vector<bytes> keys;     // 32 bytes each, the current one first
  std::set<node_id> without;   // removed homes that the current key was kept from
  bytes encode() const;
  static result<keyring> decode(bytes_view);  // checked as foreign bytes
};

class key_keeper {
 public:
  struct services {
    wire::endpoint& wire;
    cluster::directory& directory;
    table::replicated& tables;
  };
  key_keeper(runtime&, kv::store&);

  // What is on disk of a home that has a cluster.
  task<result<void>> load();
  // A cluster that is founded, or one that is joined: put down with whatever else makes this home a member.
  void begin(keyring, kv::batch&);
  static keyring first(random_source&);
  const keyring& ring() const noexcept { return ring_; }

  // Registers its handler: before the endpoint starts. `removed` is called when a member says that this home was removed.
  void prepare(services, std::function<void()> removed);
  // Once the layout is loaded: fetches newer keys, and changes the key if somebody removed a home and got no further.
  task<void> run();
  // A new key that no removed home knows, unless there is one already. Homes that a version of the layout in use still has do not count: they
  // could read the row.
  task<result<void>> change(mono_time deadline);

  // No connected member knows a newer key, and no removed home knows this one.
  bool is_current() const;
  // The first half of it.
  bool is_newest() const { return s_ && who_knows_more().empty(); }

 private:
  task<result<wire::message>> answer(wire::caller, wire::message);
  task<void> ask(node_id);
  task<result<void>> adopt(keyring);
  std::set<node_id> owed(const keyring&) const;
  std::vector<node_id> who_knows_more() const;
  bool is_removed(node_id) const;

  runtime& rt_;
  kv::store& kv_;
  keyring ring_;
  std::optional<services> s_;
  std::function<void()> removed_;
  bool running_ = false;
  std::set<node_id> told_;
  semaphore adopting_;   // so that the newest is what stays on disk
};

}  // namespace grenier::storaged
