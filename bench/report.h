// bench/report.h: what was measured, for people and for programs.
#pragma once

#include <map>

#include "options.h"

namespace grenier::bench {

// The smallest sample that is not below a share p (0 to 1) of all of them: nearest rank. 0 of none. Sorts in part.
std::uint32_t percentile(std::vector<std::uint32_t>& samples, double p);

struct process_use {
  int pid = 0;
  double cpu_seconds = 0;
  std::uint64_t peak_bytes = 0;  // the largest resident size seen, looked at every 20 ms
  bool ended = false;            // it ended meanwhile: what is said of it is of the time before
};

struct measurement {
  operation op = operation::put;
  std::uint64_t size_bytes = 0;
  std::uint32_t concurrency = 0;
  double seconds = 0;
  std::uint64_t requests = 0;  // that succeeded
  std::uint64_t bytes = 0;     // of their bodies
  std::uint64_t listed = 0;    // names, by list
  std::uint64_t errors = 0;
  std::map<std::string, std::uint64_t> why;
  std::uint32_t p50_us = 0, p99_us = 0, max_us = 0;
  double client_cpu_seconds = 0;
  std::vector<process_use> processes;
  double cpu_seconds() const;  // of all processes
};

std::string table_head();
std::string table_row(const measurement&);  // with the lines on errors and processes that follow it
std::string to_json(const options&, const std::vector<measurement>&);

}  // namespace grenier::bench
