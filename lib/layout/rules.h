// layout/rules.h: what makes a member list right; shared by assign() and decode(). Private to layout/.
#pragma once

#include "layout/layout.h"

namespace grenier::layout {

inline constexpr std::size_t members_max = 1000;
inline constexpr std::size_t removed_remembered_max = 4096;

inline bool stores(const member& m) { return m.capacity_bytes > 0; }

// Sorted by node, each once, zones well named, somebody stores; else invalid_argument.
result<void> check_members(const std::vector<member>&);
// How many copies these members make: zones with capacity, three at most.
std::size_t copies_of(const std::vector<member>&);

}  // namespace grenier::layout
