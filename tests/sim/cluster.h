// tests/sim/cluster.h: whole homes (storaged's own node) on simulated machines, and clients that remember what they saw.
#pragma once

#include "sim/history.h"
#include "sim/world.h"
#include "storaged/node.h"

namespace grenier::sim {

struct home {
  std::unique_ptr<kv::store> rows;
  std::unique_ptr<storaged::node> node;
  std::shared_ptr<void> beside;           // destroyed first
  bool ready = false;
  std::string failure;                    // why start() failed
};

struct home_options {
  std::string zone;
  std::uint64_t capacity_bytes = 100ull << 30;
  std::size_t block_size = 64 << 10, inline_max = 4 << 10;
  bool dials_only = false;
  std::uint64_t upload_limit = 0;
  std::vector<std::string> mutations;
  std::size_t visited_bytes = 0;
  nanoseconds staleness = 0ns;
  std::function<void(storaged::node_options&)> adjust;  // last
};

class neighbourhood {
 public:
  explicit neighbourhood(std::uint64_t seed) : world_(seed) {}
  sim::world& world() { return world_; }

  // A machine with nothing on it yet.
  std::size_t add(home_options);
  // Starts (again). invite: for its first start, if it joins.
  void start(std::size_t i, std::optional<std::string> invite = std::nullopt);
  void crash(std::size_t i, bool power_cut = false);
  bool ready(std::size_t i) const { return homes_[i] && homes_[i]->ready; }
  storaged::node& node(std::size_t i) { return *homes_[i]->node; }
  machine& at(std::size_t i) { return world_.at(i); }
  home_options& settings(std::size_t i) { return settings_[i]; }  // from its next start on
  // Its start() failed, and why; empty: it did not.
  std::string failure(std::size_t i) const { return homes_[i] ? homes_[i]->failure : std::string(); }
  std::size_t size() const { return settings_.size(); }

  // Founds with home 0 and joins the others one by one; false when it did not settle in time.
  bool form(nanoseconds at_most = std::chrono::minutes(5));
  bool join(std::size_t i, std::size_t host = 0, nanoseconds at_most = std::chrono::minutes(2));
  bool settled(std::size_t copies);
  bool wait_ready(std::size_t i, nanoseconds at_most = 60s);

  // Blocking (in virtual time) operations at home i, as admin.
  result<void> make_bucket(std::size_t i, const std::string& name);
  result<store::put_result> put(std::size_t i, const std::string& bucket, const std::string& key, bytes body, nanoseconds at_most = 60s);
  result<bytes> get(std::size_t i, const std::string& bucket, const std::string& key, nanoseconds at_most = 60s);
  result<void> remove(std::size_t i, const std::string& bucket, const std::string& key);
  result<store::list_result> list(std::size_t i, const std::string& bucket, const std::string& prefix = {}, const std::string& delimiter = {});

  std::function<void(std::size_t, log_level, const std::string&)> on_log;
  // What runs beside a node that is ready: a role. Its tasks may live for as long as the machine does.
  std::function<std::shared_ptr<void>(std::size_t i, home&, runtime&)> beside;
  std::map<std::string, std::uint16_t> services;

 private:
  sim::world world_;
  std::vector<home_options> settings_;
  std::vector<std::shared_ptr<home>> homes_;
};

// A body in memory.
class memory_body final : public store::body_source {
 public:
  explicit memory_body(bytes b) : content_(std::move(b)) {}
  task<result<std::size_t>> read(std::span<char> to) override {
    std::size_t n = std::min(to.size(), content_.size() - at_);
    std::memcpy(to.data(), content_.data() + at_, n);
    at_ += n;
    co_return n;
  }
  std::optional<std::uint64_t> size() const override { return content_.size(); }

 private:
  bytes content_;
  std::size_t at_ = 0;
};

task<result<store::put_result>> put_object(storaged::node&, runtime&, std::string bucket, std::string key, bytes body, store::conditions, nanoseconds at_most);
task<result<std::pair<bytes, std::string>>> get_object(storaged::node&, runtime&, std::string bucket, std::string key, nanoseconds at_most);  // body, etag

}  // namespace grenier::sim
