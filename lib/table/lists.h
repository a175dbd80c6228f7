// table/lists.h: what one replica tells of a range of rows, and how the answers of several become one page. The second is pure.
//
//   Limits    20000 rows looked at and 4 MiB told a call.
//   Source    DESIGN rule 5b.7.
#pragma once

#include "table/core.h"

namespace grenier::table {

inline constexpr std::size_t scanned_max = 20000;

// This replica's answer, from its own rows.
task<result<pb::list_answer>> list_here(core&, layout::partition, list_request);

struct list_told {
  node_id who;
  pb::list_answer answer;
};

// Is this an answer to that request: keys of its range, and a page that goes somewhere?
bool answers(const list_request&, const pb::list_answer&);

struct list_merged {
  struct item {
    list_entry entry;
    bool agreed = false;  // else it is to be read by key before it is shown
  };
  std::vector<item> items;  // in key order
  bool more = false;
  bytes until;              // when more: all before this has been told
};
// A page of the answers ends where the first of them ends. agree: do these replicas make a quorum?
list_merged merge(const std::vector<list_told>&, const std::function<bool(const std::set<node_id>&)>& agree);

// Where the page after this entry starts; empty: there is none.
bytes after(const list_entry&);

}  // namespace grenier::table
