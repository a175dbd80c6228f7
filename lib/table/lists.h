// table/lists.h: what one replica tells of a range of rows, and how the answers of several become one page. The second is pure.
//
// What is not shown matters as much: a deletion that only one replica took stands on no quorum, and who says on its word that the key
// is gone may be followed by a read that finds it. So an answer carries a digest of the rows that it passed over; where digests or
// ends differ, the question is asked again with those rows named (`hidden`), and what no quorum agrees on is read by key.
//
//   Limits    20000 rows looked at, 4 MiB told and 1000 hidden rows named a call.
//   Source    DESIGN rule 5b.7.
#pragma once

#include "table/core.h"

namespace grenier::table {

inline constexpr std::size_t scanned_max = 20000, hidden_max = 1000;

// This replica's answer, from its own rows; with the hidden ones named, or not.
task<result<pb::list_answer>> list_here(core&, layout::partition, list_request, bool hidden = false);

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
  std::size_t disputed = 0; // items that are not agreed
  bool more = false;
  bytes until;              // when more: all before this has been told
  bool same_hidden = true;  // all answers end at the same key and passed over the same rows, or name those
};
// A page of the answers ends where the first of them ends. agree: do these replicas make a quorum?
list_merged merge(const std::vector<list_told>&, const std::function<bool(const std::set<node_id>&)>& agree);

// Where the page after this entry starts; empty: there is none.
bytes after(const list_entry&);

}  // namespace grenier::table
