// admin/departure.h: what is lost when a dark home is taken out for good, so far as the others can know. Said before it is done.
//
//   Source    DESIGN 5b, rules 13 (a person decides, told what is at stake) and 15 (two homes).
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "layout/layout.h"

namespace grenier::admin {

struct departure {
  node_id node;
  std::string zone;
  std::size_t copies = 0, copies_then = 0;   // of everything, before and after
  std::size_t partitions = 0;                // that it has a copy of
  std::size_t only_copies = 0;               // those that no other home has a copy of: they are lost
  std::vector<std::string> also_dark;        // zones that are dark too and share partitions with it, sorted
  bool decided_alone = false;                // it has the casting vote of two homes: what it took in while the other one was away may be there only
  std::uint64_t blocks_missing = 0;          // at homes that are up, and looked for: it may be the only one that has some of them
  std::uint64_t blocks_nowhere = 0;          // of these, those that no home that is up was found to have

  bool decidable = true;                     // the homes that are up can decide it without the dark ones

  // Nothing that was acknowledged can be lost by it.
  bool safe() const { return decidable && only_copies == 0 && also_dark.empty() && !decided_alone && blocks_missing == 0; }
  std::string say() const;                   // for people: what is lost or may be, and what to do first
  nlohmann::json to_json() const;
};

// REQUIRES: `gone` is a member of `now`.
departure weigh_departure(const layout::state& now, node_id gone, const std::function<bool(node_id)>& up, std::uint64_t blocks_missing,
                          std::uint64_t blocks_nowhere);

}  // namespace grenier::admin
