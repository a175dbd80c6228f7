// The real form of other programs: posix_spawn, a socket pair, and a descriptor of the process that tells when it has ended.
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "async/async.h"
#include "async/local_stream.h"

namespace grenier {

namespace {

// Lives until the process was reaped, whoever has let go of it meanwhile.
struct process : std::enable_shared_from_this<process> {
  process(runtime& r, pid_t p) : rt(r), pid(p), watch(r.executor()), changed(r) {}

  void reap() {
    int status = 0;
    struct rusage used {};
    const pid_t got = ::wait4(pid, &status, WNOHANG, &used);
    if (got == 0) return begin();
    child_process::ending e;
    if (got == pid) {
      e.code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
      e.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
      e.cpu = seconds(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + std::chrono::microseconds(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
      e.peak_rss_bytes = static_cast<std::uint64_t>(used.ru_maxrss) * 1024;
    }
    ended = e;
    boost::system::error_code ec;
    watch.close(ec);
    changed.wake_all();
  }
  void begin() {
    watch.async_wait(asio::posix::descriptor_base::wait_read, [self = shared_from_this()](boost::system::error_code ec) {
      if (!ec) self->reap();
    });
  }
  // By the descriptor: the number may be another process's by now.
  void kill() {
    if (!ended) ::syscall(SYS_pidfd_send_signal, watch.native_handle(), SIGKILL, nullptr, 0u);
  }

  runtime& rt;
  pid_t pid;
  asio::posix::basic_stream_descriptor<io_executor> watch;
  std::optional<child_process::ending> ended;
  wait_list changed;
};

class posix_child final : public child_process {
 public:
  posix_child(std::shared_ptr<process> p, std::unique_ptr<byte_stream> s) : process_(std::move(p)), stream_(std::move(s)) {}
  ~posix_child() override { process_->kill(); }
  byte_stream& stream() override { return *stream_; }
  void kill() override { process_->kill(); }
  task<std::optional<ending>> wait(mono_time deadline) override { return wait_for(process_, deadline); }
  nanoseconds cpu_used() const override {
    if (process_->ended) return process_->ended->cpu;
    clockid_t id;
    struct timespec t {};
    if (::clock_getcpuclockid(process_->pid, &id) != 0 || ::clock_gettime(id, &t) != 0) return {};
    return seconds(t.tv_sec) + nanoseconds(t.tv_nsec);
  }
  void limit_cpu(seconds more) override {
    struct rlimit now {};
    if (process_->ended || ::prlimit(process_->pid, RLIMIT_CPU, nullptr, &now) != 0) return;
    now.rlim_cur = std::min<rlim_t>(static_cast<rlim_t>((std::chrono::ceil<seconds>(cpu_used()) + more).count()), now.rlim_max);
    ::prlimit(process_->pid, RLIMIT_CPU, &now, nullptr);
  }

 private:
  static task<std::optional<ending>> wait_for(std::shared_ptr<process> p, mono_time deadline) {
    while (!p->ended)
      if (!co_await p->changed.wait(deadline)) break;
    co_return p->ended;
  }
  std::shared_ptr<process> process_;
  std::unique_ptr<byte_stream> stream_;
};

struct descriptor {
  int fd = -1;
  ~descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

error cannot_start(const std::string& program, int number) { return {errc::unavailable, "cannot start " + program + ": " + std::strerror(number)}; }

result<pid_t> start(const std::string& program, std::vector<std::string>& arguments, int socket) {
  std::vector<char*> argv;
  std::string name = program;
  argv.push_back(name.data());
  for (auto& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  std::string locale = "LC_ALL=C";
  char* environment[] = {locale.data(), nullptr};

  posix_spawn_file_actions_t files;
  posix_spawnattr_t how;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawnattr_init(&how);
  ::posix_spawn_file_actions_adddup2(&files, socket, 0);
  ::posix_spawn_file_actions_adddup2(&files, socket, 1);
  ::posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_addclosefrom_np(&files, 3);
  // A group of its own, so that the terminal's Ctrl-C is not for it; no session of its own, whose scheduling group would undo its nice value.
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  ::posix_spawnattr_setpgroup(&how, 0);
  ::posix_spawnattr_setsigmask(&how, &none);
  ::posix_spawnattr_setsigdefault(&how, &all);
  pid_t pid = 0;
  const int failed = ::posix_spawn(&pid, program.c_str(), &files, &how, argv.data(), environment);
  ::posix_spawnattr_destroy(&how);
  ::posix_spawn_file_actions_destroy(&files);
  if (failed) return fail(cannot_start(program, failed));
  return pid;
}

}  // namespace

result<std::unique_ptr<child_process>> posix_processes::spawn(const std::string& program, std::vector<std::string> arguments) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return fail(cannot_start(program, errno));
  descriptor ours{pair[0]}, theirs{pair[1]};
  TRY(const pid_t pid, start(program, arguments, theirs.fd));
  const int watch = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (watch < 0) {
    const int number = errno;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return fail(cannot_start(program, number));
  }
  auto p = std::make_shared<process>(rt_, pid);
  p->watch.assign(watch);
  p->begin();
  const auto slash = program.rfind('/');
  auto stream = adopt_local_stream(rt_, std::exchange(ours.fd, -1), program.substr(slash == std::string::npos ? 0 : slash + 1));
  return std::unique_ptr<child_process>(new posix_child(std::move(p), std::move(stream)));
}

}  // namespace grenier
