// admin/control.h: what an administrator asks of a running home: commands of storagectl (JSON over the data directory's unix socket),
// and health and metrics on the admin port.
//
//   Runs on   its home thread.
//   Errors    JSON {"error": {"code", "message"}} with a fitting HTTP status.
//   Limits    a command's body to 64 KiB.
#pragma once

#include <nlohmann/json.hpp>
#include <functional>
#include <map>

#include "http/http.h"
#include "storaged/node.h"

namespace grenier::admin {

struct gauges {
  std::map<std::string, double> values;   // metric name with labels -> value, from the gateways
};

class control {
 public:
  // more: further metrics lines' values, asked at each scrape. stopping: /health answers 503.
  control(runtime& rt, storaged::node& n, std::function<gauges()> more) : rt_(rt), node_(n), more_(std::move(more)) {}
  task<void> handle_command(http::exchange&);   // unix socket: POST /invite, /status, /layout, /layout/remove, /key/..., /bucket/...
  task<void> handle_admin(http::exchange&);     // admin port: GET /health (503 and why when it does not serve), /metrics
  void set_serving(bool s) { serving_ = s; }
  // Commands under "/PREFIX/" are answered by this.
  using more_commands = std::function<task<result<nlohmann::json>>(std::string rest, nlohmann::json in)>;
  void add_commands(std::string prefix, more_commands fn) { others_[std::move(prefix)] = std::move(fn); }

 private:
  task<result<nlohmann::json>> run(std::string command, const nlohmann::json& in);
  nlohmann::json status() const;
  nlohmann::json status_of_removed() const;
  nlohmann::json departure_of(node_id) const;
  // ---- repair.cc
  struct upkeep {
    const char* name;
    const char* what;
    std::optional<std::uint64_t> waiting;
    table::work done;
  };
  std::vector<upkeep> upkeep_here() const;
  nlohmann::json repair_status() const;
  // What went wrong last in background work and has not gone well since; null: nothing.
  nlohmann::json trouble() const;
  nlohmann::json trouble_of(const table::work&) const;
  nlohmann::json layout() const;
  result<node_id> find_member(const std::string& zone_or_id) const;
  task<result<nlohmann::json>> key_command(std::string what, const nlohmann::json& in);
  task<result<nlohmann::json>> bucket_command(std::string what, const nlohmann::json& in);
  std::string metrics() const;
  store::call as_admin() const { return {{std::nullopt, true}, rt_.now() + 15s}; }
  runtime& rt_;
  storaged::node& node_;
  std::function<gauges()> more_;
  std::map<std::string, more_commands> others_;
  bool serving_ = false;
};

}  // namespace grenier::admin
