// tests/sim/adversary/workload.h: what clients do, one thing a time, each by a name.
#pragma once

#include "sim/adversary/scene.h"

namespace grenier::sim {

struct workload {
  std::string_view name;
  unsigned weight;          // among the others
  std::string_view what;
  task<void> (*run)(scene&, scene::session);
};
std::span<const workload> all_workloads();
const workload* draw_workload(const wishes&, std::mt19937_64&);

}  // namespace grenier::sim
