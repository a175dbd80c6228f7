// ctl/client.h: one command to the storaged of a data directory, over its unix socket.
//
//   Runs on   the calling thread, blocking, with a time limit.
//   Errors    unavailable (no storaged runs there), access_denied (not this user's), else what storaged answered.
#pragma once

#include <nlohmann/json.hpp>

#include "base/base.h"

namespace grenier::ctl {

result<nlohmann::json> command(const std::string& data_dir, const std::string& path, const nlohmann::json& in, int seconds_max = 60);

// Prints what went wrong, for people to standard error or as JSON to standard output; what storagectl ends with.
int say_error(const error&, bool as_json);

}  // namespace grenier::ctl
