// layout/flow.h: the largest flow of the least cost. Private to layout/.
//
//   Limits    costs are not negative; vertices are 0 .. count - 1.
//   Source    primal-dual method: Ford and Fulkerson (1962); Ahuja, Magnanti, Orlin, "Network Flows" (1993), section 9.8.
#pragma once

#include <cstdint>
#include <vector>

namespace grenier::layout {

struct flow_arc {
  std::uint32_t from = 0, to = 0;
  std::int64_t capacity = 0;
  std::int64_t cost = 0;
};

// The flow on each arc, in the order given. The same arcs give the same flow.
std::vector<std::int64_t> cheapest_largest_flow(std::size_t vertices, const std::vector<flow_arc>& arcs, std::uint32_t source,
                                                std::uint32_t sink);

}  // namespace grenier::layout
