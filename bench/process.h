// bench/process.h: what processes of this machine use while something is measured, from /proc.
#pragma once

#include <atomic>
#include <thread>

#include "report.h"

namespace grenier::bench {

// user and system time so far, in seconds, from the text of /proc/PID/stat; nothing when it is not one.
std::optional<double> cpu_seconds_of(std::string_view stat, double ticks_per_second);
result<void> can_watch(int pid);

// From its construction to finish().
class process_watch {
 public:
  explicit process_watch(const std::vector<int>& pids);
  ~process_watch();
  std::vector<process_use> finish();

 private:
  void look();
  std::vector<process_use> use_;
  std::vector<double> cpu_before_;
  std::atomic<bool> ending_ = false;
  std::thread looking_;
};

}  // namespace grenier::bench
