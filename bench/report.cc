#include "report.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace grenier::bench {

namespace {

[[gnu::format(printf, 1, 2)]] std::string print(const char* format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  int n = std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  return {line, std::min<std::size_t>(static_cast<std::size_t>(std::max(n, 0)), sizeof line - 1)};
}

double per_second(std::uint64_t n, double seconds) { return seconds > 0 ? static_cast<double>(n) / seconds : 0; }
double in_ms(std::uint32_t us) { return us / 1000.0; }
constexpr double mib = 1 << 20;

}  // namespace

std::uint32_t percentile(std::vector<std::uint32_t>& samples, double p) {
  if (samples.empty()) return 0;
  auto rank = static_cast<std::size_t>(std::ceil(p * static_cast<double>(samples.size())));
  rank = std::clamp<std::size_t>(rank, 1, samples.size()) - 1;
  std::nth_element(samples.begin(), samples.begin() + static_cast<std::ptrdiff_t>(rank), samples.end());
  return samples[rank];
}

double measurement::cpu_seconds() const {
  double all = 0;
  for (const auto& p : processes) all += p.cpu_seconds;
  return all;
}

std::string table_head() {
  return print("%-7s %9s %7s %9s %7s %10s %9s %9s %9s %9s\n", "op", "size", "clients", "requests", "errors", "rate/s", "MiB/s", "p50 ms", "p99 ms", "max ms");
}

std::string table_row(const measurement& m) {
  std::string t = print("%-7s %9s %7u %9llu %7llu %10.1f %9.1f %9.2f %9.2f %9.2f\n", std::string(to_string(m.op)).c_str(), format_size(m.size_bytes).c_str(), m.concurrency,
                        static_cast<unsigned long long>(m.requests), static_cast<unsigned long long>(m.errors), per_second(m.requests, m.seconds),
                        per_second(m.bytes, m.seconds) / mib, in_ms(m.p50_us), in_ms(m.p99_us), in_ms(m.max_us));
  if (m.listed) t += print("        %.0f names/s\n", per_second(m.listed, m.seconds));
  for (const auto& [what, n] : m.why) t += print("        %llu times: ", static_cast<unsigned long long>(n)) + what + "\n";
  for (const auto& p : m.processes)
    t += print("        process %d: CPU %.2f s, peak memory %s%s\n", p.pid, p.cpu_seconds, format_size(p.peak_bytes).c_str(), p.ended ? ", ENDED" : "");
  if (!m.processes.empty() && m.requests) {
    t += print("        together: CPU %.3f ms a request", m.cpu_seconds() * 1e3 / static_cast<double>(m.requests));
    if (m.bytes) t += print(", %.2f ns a byte", m.cpu_seconds() * 1e9 / static_cast<double>(m.bytes));
    t += print("; this client: CPU %.2f s\n", m.client_cpu_seconds);
  }
  return t;
}

std::string to_json(const options& o, const std::vector<measurement>& all) {
  nlohmann::ordered_json out;
  for (const auto& e : o.endpoints) out["endpoints"].push_back(e.url);
  out["bucket"] = o.bucket;
  out["results"] = nlohmann::ordered_json::array();
  for (const auto& m : all) {
    nlohmann::ordered_json j{{"op", to_string(m.op)},
                             {"size", m.size_bytes},
                             {"concurrency", m.concurrency},
                             {"seconds", m.seconds},
                             {"requests", m.requests},
                             {"errors", m.errors},
                             {"rate_per_s", per_second(m.requests, m.seconds)},
                             {"mib_per_s", per_second(m.bytes, m.seconds) / mib},
                             {"p50_ms", in_ms(m.p50_us)},
                             {"p99_ms", in_ms(m.p99_us)},
                             {"max_ms", in_ms(m.max_us)},
                             {"client_cpu_s", m.client_cpu_seconds}};
    if (m.op == operation::list) j["names_per_s"] = per_second(m.listed, m.seconds);
    j["error_kinds"] = m.why;
    j["processes"] = nlohmann::ordered_json::array();
    for (const auto& p : m.processes) j["processes"].push_back({{"pid", p.pid}, {"cpu_s", p.cpu_seconds}, {"peak_memory_bytes", p.peak_bytes}, {"ended", p.ended}});
    if (!m.processes.empty() && m.requests) {
      j["cpu_ms_per_request"] = m.cpu_seconds() * 1e3 / static_cast<double>(m.requests);
      if (m.bytes) j["cpu_ns_per_byte"] = m.cpu_seconds() * 1e9 / static_cast<double>(m.bytes);
    }
    out["results"].push_back(std::move(j));
  }
  return out.dump(2) + "\n";
}

}  // namespace grenier::bench
