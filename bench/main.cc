// grenier-bench: how fast an S3 store puts, gets, lists and deletes, and what that costs its processes.
// Exit status: 0 done; 1 the server cannot be used, or requests failed; 2 wrong usage.
#include <cstdio>
#include <cstdlib>

#include "crypto/crypto.h"
#include "load.h"
#include "process.h"

namespace {

using namespace grenier;
using namespace grenier::bench;

int refuse(const error& e, int code) {
  std::fprintf(stderr, "grenier-bench: %s\n", e.detail.empty() ? e.to_string().c_str() : e.detail.c_str());
  if (code == 2) std::fputs("'grenier-bench --help' tells more.\n", stderr);
  return code;
}

int measure(const options& o) {
  for (int pid : o.pids)
    if (auto r = can_watch(pid); !r) return refuse(r.error(), 1);
  if (auto r = load::prepare(o); !r) return refuse(r.error(), 1);
  std::vector<measurement> all;
  if (!o.json) std::fputs(table_head().c_str(), stdout);
  for (auto size : o.sizes)
    for (auto clients : o.concurrency) {
      load l(o, size, clients);
      for (auto op : o.operations) {
        if (auto r = l.prepare_for(op); !r) return refuse(r.error(), 1);
        all.push_back(l.run(op));
        if (!o.json) std::fputs(table_row(all.back()).c_str(), stdout);
        std::fflush(stdout);
      }
    }
  if (o.json) std::fputs(to_json(o, all).c_str(), stdout);
  for (const auto& m : all)
    if (m.errors) return 1;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  grenier::crypto::init();
  auto line = read_command_line(argc, argv, [](const std::string& name) -> std::optional<std::string> {
    const char* v = std::getenv(name.c_str());
    return v ? std::optional<std::string>(v) : std::nullopt;
  });
  if (!line) return refuse(line.error(), 2);
  if (line->what != command_line::action::run) {
    std::fputs(line->text.c_str(), stdout);
    return 0;
  }
  return measure(line->settings);
}
