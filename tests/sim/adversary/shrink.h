// tests/sim/adversary/shrink.h: the smallest part of a failing seed that still fails, and the command that plays it.
#pragma once

#include "sim/adversary/scene.h"

namespace grenier::sim {

// The command line that plays these wishes.
std::string command_of(const wishes&);

struct shrunk {
  wishes smallest;
  std::string failure;
  std::vector<strike> strikes;  // that are left
  std::size_t tries = 0;
};
// Leaves out faults, clients and time as long as it still fails, in any way; so many tries at most.
shrunk shrink(wishes failing, std::string failure, std::size_t tries_max = 60);

}  // namespace grenier::sim
