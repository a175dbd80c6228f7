// tests/sim/adversary/checkers.h: what must hold at the end of a history, when everything was healed; each by a name.
//
// While it runs, clients check what they are given: bytes that were written, pages in order and complete (scene, workload).
#pragma once

#include "sim/adversary/scene.h"

namespace grenier::sim {

struct checker {
  std::string_view name;
  std::string_view what;
  std::string (*run)(scene&);  // what is wrong; empty: nothing
};
std::span<const checker> all_checkers();

}  // namespace grenier::sim
