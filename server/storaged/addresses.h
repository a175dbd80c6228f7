// storaged/addresses.h: what other homes can dial, found from this machine's interfaces.
#pragma once

#include <string>
#include <vector>

namespace grenier::storaged {

// For a wildcard listener: every interface's address with its port, loopback only if there is nothing else; otherwise the address itself.
std::vector<std::string> reachable_addresses(const std::string& listen);

}  // namespace grenier::storaged
