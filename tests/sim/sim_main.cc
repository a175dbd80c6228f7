// grenier-sim: whole clusters in virtual time, one seed after the other, under everything that the adversary knows (tests/sim/adversary).
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sim/adversary/checkers.h"
#include "sim/adversary/faults.h"
#include "sim/adversary/mutations.h"
#include "sim/adversary/shrink.h"
#include "sim/adversary/workload.h"

namespace grenier::sim {

namespace {

using ull = unsigned long long;

struct order {
  wishes each;
  std::uint64_t first = 1, seeds = 20, jobs = 1, again_every = 10;
  bool shrink = false, once = false, mutations = false;
};

struct sums {
  std::uint64_t operations = 0, answered = 0, faults = 0, violations = 0, undecided = 0, objects_read = 0, blocks_checked = 0;
};

void usage(std::FILE* to) {
  std::fprintf(to,
               "usage: grenier-sim [--seeds N] [--seed S] [--jobs J] [--again N | --once] [--shrink]\n"
               "                   [--faults A,B|none] [--workload A,B] [--mutation NAME] [--shape brief|upheaval|refuse]\n"
               "                   [--checks A,B] [--keep N,M|none] [--clients N] [--until MS] [--verbose]\n"
               "       grenier-sim --mutations [--seeds N] [--jobs J] [--mutation NAME]   the seed that finds each broken rule\n"
               "       grenier-sim --names                                 what the names are\n"
               "  --again N  every N-th seed is played twice, and the traces must be equal (10; --once: none)\n");
}

void print_names() {
  std::printf("faults\n");
  for (const auto& f : all_faults()) std::printf("  %-14s %s\n", std::string(f.name).c_str(), std::string(f.what).c_str());
  std::printf("workloads\n");
  for (const auto& x : all_workloads()) std::printf("  %-14s %s\n", std::string(x.name).c_str(), std::string(x.what).c_str());
  std::printf("checkers, besides that each key's history is linearizable\n");
  for (const auto& c : all_checkers()) std::printf("  %-14s %s\n", std::string(c.name).c_str(), std::string(c.what).c_str());
  std::printf("mutations\n");
  for (const auto& m : all_mutations()) std::printf("  %-24s %-8s %s\n", std::string(m.name).c_str(), std::string(m.rule).c_str(), std::string(m.what).c_str());
}

std::string play(const wishes& w, bool again, sums& t) {
  tally mine;
  std::uint64_t trace = 0;
  std::string bad;
  {
    scene s(w);
    bad = s.play(mine);
    trace = s.trace();
  }
  if (bad.empty() && again) {
    tally other;
    scene s(w);
    (void)s.play(other);
    if (s.trace() != trace) bad = "two runs of one seed differ: something is not deterministic";
  }
  t.operations += mine.operations;
  t.answered += mine.answered;
  t.faults += mine.faults;
  t.undecided += mine.undecided;
  t.objects_read += mine.objects_read;
  t.blocks_checked += mine.blocks_checked;
  return bad;
}

void tell(const order& o, const wishes& w, const std::string& bad) {
  std::string s = "seed " + std::to_string(w.seed) + ": " + bad + "\nreplay it with: " + command_of(w) + "\n";
  if (o.shrink) {
    auto less = shrink(w, bad);
    s += "shrunk (" + std::to_string(less.tries) + " tries) to: " + command_of(less.smallest) + "\n";
    for (const auto& x : less.strikes)
      s += "  fault " + std::to_string(x.number) + " after " + std::to_string(x.at / 1ms) + " ms: " + x.kind + "\n";
    s += "  " + less.failure + "\n";
  }
  std::fputs(s.c_str(), stdout);
  std::fflush(stdout);
}

sums play_some(const order& o, std::uint64_t job) {
  sums t;
  for (std::uint64_t s = o.first + job; s < o.first + o.seeds; s += o.jobs) {
    wishes w = o.each;
    w.seed = s;
    const bool again = !o.once && (o.again_every <= 1 || s % o.again_every == 0);
    if (std::string bad = play(w, again, t); !bad.empty()) {
      ++t.violations;
      tell(o, w, bad);
    }
  }
  return t;
}

// In processes of their own: a run is one thread, and a crash of one is found by its exit.
sums play_all(const order& o) {
  if (o.jobs == 1) return play_some(o, 0);
  sums all;
  std::vector<std::pair<pid_t, int>> children;
  for (std::uint64_t job = 0; job < o.jobs; ++job) {
    int ends[2];
    if (pipe(ends) != 0) std::exit(2);
    std::fflush(stdout);
    const pid_t pid = fork();
    if (pid < 0) std::exit(2);
    if (pid == 0) {
      close(ends[0]);
      const sums mine = play_some(o, job);
      const bool told = write(ends[1], &mine, sizeof mine) == static_cast<ssize_t>(sizeof mine);
      std::fflush(stdout);
      std::_Exit(told ? 0 : 2);
    }
    close(ends[1]);
    children.emplace_back(pid, ends[0]);
  }
  for (auto [pid, from] : children) {
    sums mine;
    const bool told = read(from, &mine, sizeof mine) == static_cast<ssize_t>(sizeof mine);
    close(from);
    int status = 0;
    waitpid(pid, &status, 0);
    if (!told || status != 0) {
      std::printf("a process ended with status %d: run its seeds one by one\n", status);
      mine = {};
      mine.violations = 1;
    }
    all.operations += mine.operations;
    all.answered += mine.answered;
    all.faults += mine.faults;
    all.violations += mine.violations;
    all.undecided += mine.undecided;
    all.objects_read += mine.objects_read;
    all.blocks_checked += mine.blocks_checked;
  }
  return all;
}

// The first seed that finds one broken rule; 0: none did.
std::uint64_t hunt(const order& o, const rule_broken& m, std::string& how) {
  for (std::uint64_t s = o.first; s < o.first + o.seeds; ++s) {
    wishes w = o.each;
    w.mutation = m.name;
    w.seed = s;
    sums t;
    if (std::string bad = play(w, false, t); !bad.empty()) {
      how = bad.substr(0, bad.find('\n'));
      return s;
    }
  }
  return 0;
}

int check_mutations(const order& o) {
  std::vector<const rule_broken*> wanted;
  for (const auto& m : all_mutations())
    if (o.each.mutation.empty() || o.each.mutation == m.name) wanted.push_back(&m);
  std::vector<pid_t> children;
  std::printf("| rule | broken so | seed | found as |\n|---|---|---|---|\n");
  std::fflush(stdout);
  for (std::uint64_t job = 0; job < o.jobs; ++job) {
    const pid_t pid = fork();
    if (pid < 0) return 2;
    if (pid > 0) {
      children.push_back(pid);
      continue;
    }
    int missed = 0;
    for (std::size_t i = job; i < wanted.size(); i += o.jobs) {
      const auto& m = *wanted[i];
      std::string how = "not found";
      const std::uint64_t s = hunt(o, m, how);
      missed += s == 0;
      std::printf("| %s | `%s`: %s | %llu | %s |\n", std::string(m.rule).c_str(), std::string(m.name).c_str(), std::string(m.what).c_str(), static_cast<ull>(s), how.c_str());
      std::fflush(stdout);
    }
    std::_Exit(std::min(missed, 100));
  }
  int missed = 0;
  for (pid_t p : children) {
    int status = 0;
    waitpid(p, &status, 0);
    missed += WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  }
  std::printf("%zu mutations, %d not found within %llu seeds\n", wanted.size(), missed, static_cast<ull>(o.seeds));
  return missed ? 1 : 0;
}

std::set<std::string> names_in(std::string list) {
  std::set<std::string> all;
  for (std::size_t at = 0; at <= list.size();) {
    std::size_t end = std::min(list.find(',', at), list.size());
    if (end > at) all.insert(list.substr(at, end - at));
    at = end + 1;
  }
  all.erase("none");
  return all;
}

template <class Table>
bool all_known(const std::set<std::string>& names, const Table& table, const char* what) {
  for (const auto& n : names)
    if (std::none_of(table.begin(), table.end(), [&](const auto& x) { return x.name == n; })) {
      std::fprintf(stderr, "grenier-sim: there is no %s '%s' (--names says what there is)\n", what, n.c_str());
      return false;
    }
  return true;
}

// 0: go on.
int parse(int argc, char** argv, order& o) {
  bool seeds_said = false;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    auto text = [&]() -> std::string {
      if (i + 1 < argc) return argv[++i];
      std::fprintf(stderr, "grenier-sim: %s needs a value\n", a.c_str());
      std::exit(2);
    };
    auto number = [&] { return std::strtoull(text().c_str(), nullptr, 10); };
    if (a == "--seeds") o.seeds = number(), seeds_said = true;
    else if (a == "--seed") o.first = number();
    else if (a == "--jobs") o.jobs = std::max<std::uint64_t>(1, number());
    else if (a == "--again") o.again_every = number();
    else if (a == "--once") o.once = true;
    else if (a == "--shrink") o.shrink = true;
    else if (a == "--mutations") o.mutations = true;
    else if (a == "--verbose") o.each.verbose = true;
    else if (a == "--faults") o.each.faults = names_in(text());
    else if (a == "--workload") o.each.workloads = names_in(text());
    else if (a == "--checks") o.each.checks = names_in(text());
    else if (a == "--mutation") o.each.mutation = text();
    else if (a == "--shape") o.each.shape = text();
    else if (a == "--clients") o.each.clients = number();
    else if (a == "--until") o.each.until = milliseconds(number());
    else if (a == "--keep") {
      o.each.keep.emplace();
      for (const auto& n : names_in(text())) o.each.keep->insert(std::strtoull(n.c_str(), nullptr, 10));
    } else if (a == "--names") {
      print_names();
      std::exit(0);
    } else {
      usage(a == "--help" ? stdout : stderr);
      std::exit(a == "--help" ? 0 : 2);
    }
  }
  if (o.mutations && !seeds_said) o.seeds = 500;
  if (o.each.faults && !all_known(*o.each.faults, all_faults(), "fault")) return 2;
  if (o.each.checks && !all_known(*o.each.checks, all_checkers(), "checker")) return 2;
  if (o.each.workloads && !all_known(*o.each.workloads, all_workloads(), "workload")) return 2;
  if (!o.each.mutation.empty() && !all_known({o.each.mutation}, all_mutations(), "mutation")) return 2;
  return 0;
}

int main_of(int argc, char** argv) {
  order o;
  if (int bad = parse(argc, argv, o); bad) return bad;
  if (o.mutations) return check_mutations(o);
  const auto began = std::chrono::steady_clock::now();
  const sums t = play_all(o);
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (t.undecided) std::printf("%llu histories were too long to decide\n", static_cast<ull>(t.undecided));
  std::printf("%llu operations were answered, %llu objects read back, %llu acknowledged objects looked for in two zones; %.0f seeds an hour\n", static_cast<ull>(t.answered),
              static_cast<ull>(t.objects_read), static_cast<ull>(t.blocks_checked), static_cast<double>(o.seeds) / took * 3600);
  std::printf("%llu seeds, %llu operations, %llu faults, %llu violations\n", static_cast<ull>(o.seeds), static_cast<ull>(t.operations), static_cast<ull>(t.faults),
              static_cast<ull>(t.violations));
  return t.violations ? 1 : 0;
}

}  // namespace

}  // namespace grenier::sim

int main(int argc, char** argv) {
  grenier::crypto::init();
  return grenier::sim::main_of(argc, argv);
}
