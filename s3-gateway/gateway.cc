#include "gateway.h"

#include "run.h"

namespace grenier::s3 {

gateway::gateway(runtime& rt, backend& b, options o) : core_(std::make_unique<core>(rt, b, std::move(o))) {}
gateway::~gateway() = default;

task<void> gateway::handle(http::exchange& ex) {
  run r(*core_, ex);
  co_await r.execute();
}

std::vector<gateway::count> gateway::counts() const {
  std::vector<count> out;
  for (const auto& [what, n] : core_->counts) out.push_back({std::string(to_string(what.first)), what.second, n});
  return out;
}

gateway::traffic gateway::bytes() const noexcept { return core_->bytes; }

}  // namespace grenier::s3
