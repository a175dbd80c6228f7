// tests/sim/block_fakes: what lib/block stands on, made small: calls between machines with a delay and a rate, references joined on
// replicas without anti-entropy, a directory that knows the lines. For tests that want to decide exactly what a peer says and when.
#pragma once

#include "sim/world.h"
#include "table/table.h"

namespace grenier::sim {

struct fake_line {
  nanoseconds rtt = 1ms;
  double rate = 0;       // bytes/s; 0: no limit, and not measured
  bool up = true;
};

// One cluster of one test.
struct fake_cluster {
  fake_cluster();
  ~fake_cluster();
  static fake_cluster* current;
  layout::state layout;
  std::map<std::pair<node_id, node_id>, fake_line> lines;
  fake_line default_line;
  std::set<node_id> down;                      // nobody reaches them
  std::set<node_id> newcomers;                 // still merging rows
  std::map<node_id, wire::endpoint*> endpoints;
  std::map<node_id, table::replicated*> tables;
  std::map<std::pair<node_id, wire::method>, int> calls;          // by whom
  std::map<std::pair<node_id, node_id>, std::uint64_t> carried;   // body bytes
  // Changes a message on its way; nullopt: it is lost.
  std::function<std::optional<wire::message>(node_id from, node_id to, wire::method, wire::message)> on_the_way;
  fake_line line(node_id a, node_id b) const;
  bool reachable(node_id a, node_id b) const;
};

}  // namespace grenier::sim
