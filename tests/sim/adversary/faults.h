// tests/sim/adversary/faults.h: what strikes, each by a name. Whatever one of them changes, heal_all() sets right.
#pragma once

#include "sim/adversary/scene.h"

namespace grenier::sim {

struct fault {
  std::string_view name;
  unsigned brief, upheaval, refuse;  // weights in histories of each shape
  std::string_view what;
  void (*strike)(scene&, std::mt19937_64&);
};
std::span<const fault> all_faults();
void heal_all(scene&);

}  // namespace grenier::sim
