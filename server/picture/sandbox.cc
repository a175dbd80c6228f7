#include "picture/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>

namespace grenier::picture {

namespace {

constexpr rlim_t memory_beside_libraries = rlim_t{640} << 20, cpu_seconds_in_all = 4000;

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool sanitized = true;  // for tests only: its shadow memory is terabytes, and it calls what it likes
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif

std::string failed(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

// Pages that are mapped now; 0 when that cannot be known.
rlim_t mapped_bytes() {
  char text[64] = {};
  const int fd = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const auto n = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  unsigned long pages = 0;
  if (n <= 0 || std::sscanf(text, "%lu", &pages) != 1) return 0;
  return static_cast<rlim_t>(pages) * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE));
}

bool limit(int which, rlim_t value) {
  const struct rlimit r {value, value};
  return ::setrlimit(static_cast<__rlimit_resource_t>(which), &r) == 0;
}

std::string limit_resources() {
  const rlim_t mapped = mapped_bytes();
  if (mapped == 0) return failed("/proc/self/statm");
  if (!sanitized && !limit(RLIMIT_AS, mapped + memory_beside_libraries)) return failed("limit of memory");
  // The soft limit is moved from outside for each picture.
  if (!limit(RLIMIT_CPU, cpu_seconds_in_all)) return failed("limit of CPU time");
  if (!limit(RLIMIT_FSIZE, 0) || !limit(RLIMIT_CORE, 0) || !limit(RLIMIT_NPROC, 0)) return failed("limits of files and processes");
  return {};
}

// Handles everything that this kernel's landlock knows, and allows nothing of it.
std::string deny_files() {
  const long abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 1) return {};
  struct {
    std::uint64_t files, network, scoped;  // by ABI 1, 4, 6
  } rules{(std::uint64_t{1} << 13) - 1, 0, 0};
  if (abi >= 2) rules.files |= std::uint64_t{1} << 13;
  if (abi >= 3) rules.files |= std::uint64_t{1} << 14;
  if (abi >= 5) rules.files |= std::uint64_t{1} << 15;
  if (abi >= 4) rules.network = 3;
  if (abi >= 6) rules.scoped = 3;
  const std::size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
  const long set = ::syscall(SYS_landlock_create_ruleset, &rules, size, 0);
  if (set < 0) return failed("landlock");
  const bool bound = ::syscall(SYS_landlock_restrict_self, set, 0) == 0;
  ::close(static_cast<int>(set));
  return bound ? std::string() : failed("landlock");
}

std::string filter_calls() {
  scmp_filter_ctx f = ::seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (!f) return "seccomp: out of memory";
  int bad = 0;
  auto allow = [&](int call, std::initializer_list<scmp_arg_cmp> when = {}) {
    bad |= ::seccomp_rule_add_array(f, SCMP_ACT_ALLOW, call, static_cast<unsigned>(when.size()), when.begin());
  };
  auto equal = [](unsigned argument, std::uint64_t value) { return scmp_arg_cmp{argument, SCMP_CMP_EQ, value, 0}; };
  for (int call : {SCMP_SYS(munmap), SCMP_SYS(brk), SCMP_SYS(mremap), SCMP_SYS(futex), SCMP_SYS(exit_group), SCMP_SYS(exit),
                   SCMP_SYS(rt_sigreturn), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(getpid), SCMP_SYS(gettid),
                   SCMP_SYS(rt_sigprocmask), SCMP_SYS(getrandom)})
    allow(call);
  allow(SCMP_SYS(read), {equal(0, 0)});
  allow(SCMP_SYS(write), {equal(0, 1)});
  allow(SCMP_SYS(write), {equal(0, 2)});
  for (int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)}) allow(call, {scmp_arg_cmp{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0}});
  for (int advice : {MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE}) allow(SCMP_SYS(madvise), {equal(2, static_cast<std::uint64_t>(advice))});
  // abort() of a library is told from a forbidden call.
  allow(SCMP_SYS(tgkill), {equal(0, static_cast<std::uint64_t>(::getpid())), equal(2, SIGABRT)});
  const int loaded = bad ? bad : ::seccomp_load(f);
  ::seccomp_release(f);
  return loaded ? "seccomp: the filter was refused" : std::string();
}

}  // namespace

void be_humble() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::setpriority(PRIO_PROCESS, 0, 19);
  constexpr int who_process = 1, class_idle = 3, class_shift = 13;
  ::syscall(SYS_ioprio_set, who_process, 0, class_idle << class_shift);
}

std::string enter_sandbox() {
  if (auto e = limit_resources(); !e.empty()) return e;
  if (::prctl(PR_SET_DUMPABLE, 0) != 0) return failed("dumpable");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed("no_new_privs");
  if (auto e = deny_files(); !e.empty()) return e;
  if (sanitized) return {};
  if (!limit(RLIMIT_NOFILE, 3)) return failed("limit of open files");  // the three that are open
  return filter_calls();
}

}  // namespace grenier::picture
