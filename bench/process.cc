#include "process.h"

#include <unistd.h>

#include <fstream>
#include <sstream>

namespace grenier::bench {

namespace {

std::optional<std::string> read_file(const std::string& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  std::ostringstream all;
  all << in.rdbuf();
  return all.str();
}

std::optional<double> cpu_now(int pid) {
  auto text = read_file("/proc/" + std::to_string(pid) + "/stat");
  return text ? cpu_seconds_of(*text, static_cast<double>(::sysconf(_SC_CLK_TCK))) : std::nullopt;
}

std::uint64_t memory_now(int pid) {
  auto text = read_file("/proc/" + std::to_string(pid) + "/statm");
  std::uint64_t all = 0, resident = 0;
  if (text) std::istringstream(*text) >> all >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

std::optional<double> cpu_seconds_of(std::string_view stat, double ticks_per_second) {
  // The name, in parentheses, may hold anything, also parentheses and blanks.
  auto name_end = stat.rfind(')');
  if (name_end == std::string_view::npos) return std::nullopt;
  std::istringstream in{std::string(stat.substr(name_end + 1))};
  std::string skipped;
  for (int field = 3; field < 14; ++field) in >> skipped;
  double user = 0, system = 0;
  if (!(in >> user >> system)) return std::nullopt;
  return (user + system) / ticks_per_second;
}

result<void> can_watch(int pid) {
  if (!cpu_now(pid)) return fail(errc::not_found, "--pid: there is no process " + std::to_string(pid));
  return {};
}

process_watch::process_watch(const std::vector<int>& pids) {
  for (int p : pids) {
    use_.push_back({.pid = p});
    cpu_before_.push_back(cpu_now(p).value_or(0));
  }
  look();
  if (!pids.empty())
    looking_ = std::thread([this] {
      while (!ending_) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        look();
      }
    });
}

process_watch::~process_watch() {
  ending_ = true;
  if (looking_.joinable()) looking_.join();
}

void process_watch::look() {
  for (std::size_t i = 0; i < use_.size(); ++i) use_[i].peak_bytes = std::max(use_[i].peak_bytes, memory_now(use_[i].pid));
}

std::vector<process_use> process_watch::finish() {
  ending_ = true;
  if (looking_.joinable()) looking_.join();
  for (std::size_t i = 0; i < use_.size(); ++i) {
    auto now = cpu_now(use_[i].pid);
    use_[i].ended = !now || memory_now(use_[i].pid) == 0;  // one that waits to be reaped keeps its times
    if (now) use_[i].cpu_seconds = *now - cpu_before_[i];
  }
  return use_;
}

}  // namespace grenier::bench
