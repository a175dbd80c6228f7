// tests/sim/adversary/mutations.h: rules broken on purpose, each of which the adversary has to find.
#pragma once

#include "sim/adversary/scene.h"

namespace grenier::sim {

struct rule_broken {
  std::string_view name, rule, what;
};
std::span<const rule_broken> all_mutations();

}  // namespace grenier::sim
