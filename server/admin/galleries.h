// admin/galleries.h: storagectl's gallery commands.
//
//   Runs on   its home thread.
//   Errors    as store::service's; not_found: the bucket has no gallery; already_exists: it has one.
//   Limits    a file is handed out in pieces of 4 MiB.
#pragma once

#include <nlohmann/json.hpp>

#include "gallery/worker.h"
#include "storaged/node.h"

namespace grenier::admin {

class galleries {
 public:
  // site: how the site of a bucket is reached from here, "http://NAME.web.localhost:3902/". worker: null where this home renders nothing.
  galleries(runtime& rt, storaged::node& n, gallery::worker* w, std::function<std::string(const std::string& name)> site)
      : rt_(rt), node_(n), worker_(w), site_(std::move(site)), group_(rt) {}
  // roles, create, set, list, status, failures, again, delete, link/create, link/list, link/revoke, files, read, original
  task<result<nlohmann::json>> run(std::string what, nlohmann::json in);
  task<void> stop();

 private:
  task<result<nlohmann::json>> create(std::string bucket, const nlohmann::json& in);
  nlohmann::json roles() const;
  task<bool> is_left_over(model::bucket, const model::bucket& source);
  task<result<nlohmann::json>> set(model::bucket source, const nlohmann::json& in);
  task<result<nlohmann::json>> remove(model::bucket source);
  task<result<nlohmann::json>> link(std::string what, model::bucket source, const nlohmann::json& in);
  task<result<nlohmann::json>> files(model::bucket source, const nlohmann::json& in);
  task<result<nlohmann::json>> read(std::string bucket, std::string key, std::uint64_t offset);
  task<result<nlohmann::json>> status(model::bucket source);
  task<result<void>> publish_settings(const model::bucket& source);
  task<result<std::optional<model::bucket>>> pages_of(const model::bucket& source);
  std::string address_of(const model::bucket& pages) const;
  store::call as_admin() const { return {{std::nullopt, true}, rt_.now() + 30s}; }
  runtime& rt_;
  storaged::node& node_;
  gallery::worker* worker_;
  std::function<std::string(const std::string&)> site_;
  task_group group_;
};

}  // namespace grenier::admin
