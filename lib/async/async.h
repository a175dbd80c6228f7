// async/async.h: the seams. Clock, randomness, threads, network, disk and other programs are interfaces here, each with a real form
// (below) and a simulated one (tests/sim); tasks, groups, waiting and bounding are built on them.
//
//   Runs on   one home thread per runtime: everything here is called there and resumes there, except the work given to
//             a work_pool. Nothing is locked.
//   Cancel    task_group::cancel() makes every wait below throw boost::system::system_error(operation_aborted), which
//             unwinds the task; never swallow it. offload() alone waits its work out.
//   Limits    waits are bounded by their deadline; queues by semaphores that their owner makes.
//   Not here  what is sent or stored (wire/, kv/, block/).
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <chrono>
#include <deque>
#include <list>
#include <map>
#include <set>
#include <unordered_map>

#include "base/base.h"

namespace grenier {

namespace asio = boost::asio;
using io_executor = asio::io_context::executor_type;
template <class T = void>
using task = asio::awaitable<T, io_executor>;
inline constexpr asio::use_awaitable_t<io_executor> use_task{};

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using namespace std::chrono_literals;

// Time since some fixed moment; only ever forward. Deadlines are absolute mono_times.
struct mono_clock {
  using duration = nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<mono_clock>;
  static constexpr bool is_steady = true;
};
using mono_time = mono_clock::time_point;
inline constexpr mono_time never = mono_time::max();

// ------------------------------------------------------------------------------------------------- the seams

struct timer_id {
  mono_time at{};
  std::uint64_t number = 0;
  friend auto operator<=>(const timer_id&, const timer_id&) = default;
};

class clock {
 public:
  virtual ~clock() = default;
  virtual mono_time now() const = 0;
  // Milliseconds since 1970 by this machine's (possibly wrong) clock.
  virtual std::uint64_t wall_ms() const = 0;
  // fn runs on the home thread, not before `at`, unless cancelled first.
  virtual timer_id call_at(mono_time at, std::move_only_function<void()> fn) = 0;
  virtual void cancel(timer_id) = 0;
};

class random_source {
 public:
  virtual ~random_source() = default;
  virtual void fill(void* to, std::size_t size_bytes) = 0;  // fit for keys in its real form
  std::uint64_t next() {
    std::uint64_t v;
    fill(&v, sizeof v);
    return v;
  }
  std::uint64_t below(std::uint64_t n) { return n ? next() % n : 0; }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
  template <class Id>
  Id make_id() {
    Id i;
    fill(i.data(), Id::size_bytes);
    return i;
  }
};

// Threads for what would block or compute for long. done() runs on the home thread after work().
class work_pool {
 public:
  virtual ~work_pool() = default;
  virtual void run(std::move_only_function<void()> work, std::move_only_function<void()> done) = 0;
};

class byte_stream {
 public:
  virtual ~byte_stream() = default;  // closes
  // At least one byte, or 0 at the end of the stream. One read at a time.
  virtual task<result<std::size_t>> read_some(std::span<char> to) = 0;
  // All of it, in order; the views are borrowed until it returns. One write at a time.
  virtual task<result<void>> write(std::span<const bytes_view> from) = 0;
  // Both directions end; pending operations fail with `cancelled`.
  virtual void close() = 0;
  // Bytes written that the other side has not acknowledged yet.
  virtual std::size_t unsent() const = 0;
  virtual std::string peer() const = 0;  // "host:port"
};

class stream_listener {
 public:
  virtual ~stream_listener() = default;
  virtual task<result<std::unique_ptr<byte_stream>>> accept() = 0;
  virtual std::string local() const = 0;  // "host:port" with the port that was really taken
  virtual void close() = 0;
};

class network {
 public:
  virtual ~network() = default;
  // address: "host:port", "[v6]:port". timed_out, unavailable.
  virtual task<result<std::unique_ptr<byte_stream>>> connect(std::string address, mono_time deadline) = 0;
  // Also "unix:/path", for this user only. already_exists when the port is taken (detail names it); invalid_argument when
  // it is no address.
  virtual result<std::unique_ptr<stream_listener>> listen(std::string address) = 0;
};

// A program that runs beside this one, spoken to over one stream that is both its standard input and its standard output.
class child_process {
 public:
  struct ending {
    int code = 0, signal = 0;  // one of them, unless it ended well
    nanoseconds cpu{};
    std::uint64_t peak_rss_bytes = 0;
  };
  virtual ~child_process() = default;  // kills it
  virtual byte_stream& stream() = 0;
  virtual void kill() = 0;
  // How it ended; nothing when the deadline passed first.
  virtual task<std::optional<ending>> wait(mono_time deadline) = 0;
  virtual nanoseconds cpu_used() const = 0;
  // Once it has used so much more CPU (and up to a second on top) it is killed by SIGXCPU.
  virtual void limit_cpu(seconds more) = 0;
};

class process_host {
 public:
  virtual ~process_host() = default;
  // Without this process's files and environment, and with /dev/null for its standard error. It has to end by itself when its
  // input does. unavailable: it cannot be started, and why.
  virtual result<std::unique_ptr<child_process>> spawn(const std::string& program, std::vector<std::string> arguments) = 0;
};

// One local drive: whole files under one directory. Paths are relative, '/'-separated, without "..".
class disk {
 public:
  virtual ~disk() = default;
  struct space {
    std::uint64_t total_bytes = 0, free_bytes = 0;
  };
  // All of it and durable (file and directory synced), or nothing. no_space, io_failed.
  virtual task<result<void>> write_durable(std::string path, std::vector<shared_bytes> pieces) = 0;
  // Up to size_max bytes from offset; fewer at the end. not_found, io_failed.
  virtual task<result<bytes>> read(std::string path, std::uint64_t offset, std::size_t size_max) = 0;
  virtual task<result<std::uint64_t>> size(std::string path) = 0;
  virtual task<result<void>> remove(std::string path) = 0;  // a missing file is fine
  virtual task<result<std::vector<std::string>>> list(std::string directory) = 0;  // names, sorted; missing: empty
  virtual task<result<space>> free_space() = 0;
};

// ------------------------------------------------------------------------------------------------- the runtime

enum class log_level : std::uint8_t { trace, debug, info, warning, error };

class waiter;

// What a node's code gets: its thread and its seams. Everything of one node shares one runtime.
class runtime {
 public:
  runtime(asio::io_context&, clock&, random_source&, work_pool& cpu, work_pool& disk);
  ~runtime();
  runtime(const runtime&) = delete;

  io_executor executor() const noexcept { return executor_; }
  mono_time now() const { return clock_.now(); }
  std::uint64_t wall_ms() const { return clock_.wall_ms(); }
  grenier::clock& clock() noexcept { return clock_; }
  random_source& random() noexcept { return random_; }
  work_pool& cpu_pool() noexcept { return cpu_; }
  work_pool& disk_pool() noexcept { return disk_; }
  void post(std::move_only_function<void()> fn);

  void log(log_level, std::string message);
  void set_log_sink(std::move_only_function<void(log_level, const std::string&)> sink) { sink_ = std::move(sink); }
  void set_log_level(log_level l) { level_ = l; }
  bool logs(log_level l) const noexcept { return l >= level_; }

  // A crash, for the simulator: no suspended task of this node resumes any more. Afterwards destroy the io_context
  // (which unwinds their frames), then the node's objects, then this.
  void kill();
  bool killed() const noexcept { return killed_; }

 private:
  friend class waiter;
  io_executor executor_;
  grenier::clock& clock_;
  random_source& random_;
  work_pool& cpu_;
  work_pool& disk_;
  std::move_only_function<void(log_level, const std::string&)> sink_;
  log_level level_ = log_level::info;
  waiter* first_ = nullptr;
  bool killed_ = false;
};

// One suspended task. Everything that suspends in our code goes through here, so that kill() finds it.
class waiter : public std::enable_shared_from_this<waiter> {
 public:
  explicit waiter(runtime& rt) : rt_(rt) {}
  ~waiter() { unlink(); }
  // Resumes the task with `value`; false if it was resumed already.
  bool resume(bool value) { return finish({}, value); }
  bool waiting() const noexcept { return static_cast<bool>(handler_); }
  // Suspends until resume() (its value), the deadline (false) or cancellation (throws). Once per waiter.
  task<bool> wait(mono_time deadline = never, bool cancellable = true);

 private:
  friend class runtime;
  bool finish(boost::system::error_code ec, bool value);
  void unlink() noexcept;
  runtime& rt_;
  std::move_only_function<void(boost::system::error_code, bool)> handler_;
  std::optional<timer_id> timer_;
  waiter* prev_ = nullptr;
  waiter* next_ = nullptr;
  bool linked_ = false;  // among the runtime's; else the runtime may be gone already
};

task<void> sleep_until(runtime&, mono_time);
inline task<void> sleep_for(runtime& rt, nanoseconds d) { return sleep_until(rt, rt.now() + d); }

// Tasks in first-come order, waiting for something that its owner announces.
class wait_list {
 public:
  explicit wait_list(runtime& rt) : rt_(rt) {}
  // True when woken, false when the deadline passed. Check the condition again afterwards.
  task<bool> wait(mono_time deadline = never);
  bool wake_one();  // false when nobody waited
  void wake_all();
  std::size_t size() const;

 private:
  runtime& rt_;
  std::deque<std::shared_ptr<waiter>> waiters_;
};

// A value that arrives once. One task waits for it; copies share the value's place, so either side may go first.
template <class T>
class one_shot {
 public:
  explicit one_shot(runtime& rt) : state_(std::make_shared<state>(rt)) {}
  // The first value counts; false if there was one already.
  bool set(T v) const {
    if (state_->value) return false;
    state_->value.emplace(std::move(v));
    state_->waiters.wake_all();
    return true;
  }
  bool has_value() const noexcept { return state_->value.has_value(); }
  // The value, or nothing when the deadline passed first.
  task<std::optional<T>> wait(mono_time deadline = never) const { return wait(state_, deadline); }

 private:
  struct state {
    explicit state(runtime& rt) : waiters(rt) {}
    std::optional<T> value;
    wait_list waiters;
  };
  static task<std::optional<T>> wait(std::shared_ptr<state> s, mono_time deadline) {
    while (!s->value)
      if (!co_await s->waiters.wait(deadline)) break;
    if (!s->value) co_return std::nullopt;
    co_return std::move(*s->value);
  }
  std::shared_ptr<state> state_;
};

// Counted permission (requests in flight, bytes in memory), first come first served. Must outlive its permits.
class semaphore {
 public:
  semaphore(runtime& rt, std::uint64_t units) : rt_(rt), free_(units), total_(units) {}
  class permit {
   public:
    permit() = default;
    permit(semaphore* s, std::uint64_t units) : semaphore_(s), units_(units) {}
    permit(permit&& o) noexcept : semaphore_(std::exchange(o.semaphore_, nullptr)), units_(o.units_) {}
    permit& operator=(permit&& o) noexcept {
      release();
      semaphore_ = std::exchange(o.semaphore_, nullptr);
      units_ = o.units_;
      return *this;
    }
    ~permit() { release(); }
    void release() noexcept {
      if (auto* s = std::exchange(semaphore_, nullptr)) s->put_back(units_);
    }
    explicit operator bool() const noexcept { return semaphore_ != nullptr; }

   private:
    semaphore* semaphore_ = nullptr;
    std::uint64_t units_ = 0;
  };
  // An empty permit when the deadline passed. More units than there are at all: waits for all of them.
  task<permit> acquire(std::uint64_t units = 1, mono_time deadline = never);
  permit try_acquire(std::uint64_t units = 1);
  std::uint64_t free_units() const noexcept { return free_; }
  std::uint64_t total_units() const noexcept { return total_; }
  std::size_t waiting() const noexcept { return queue_.size(); }

 private:
  struct entry {
    std::uint64_t units;
    std::shared_ptr<waiter> who;
    std::shared_ptr<bool> granted;
  };
  void put_back(std::uint64_t units) noexcept;
  void grant();
  runtime& rt_;
  std::uint64_t free_;
  std::uint64_t total_;
  std::deque<entry> queue_;
};

// A mutex for each key, first come first served; keys nobody holds cost nothing.
class key_lock {
 public:
  explicit key_lock(runtime& rt) : rt_(rt) {}
  class guard {
   public:
    guard() = default;
    guard(key_lock* l, bytes key) : lock_(l), key_(std::move(key)) {}
    guard(guard&& o) noexcept : lock_(std::exchange(o.lock_, nullptr)), key_(std::move(o.key_)) {}
    guard& operator=(guard&& o) noexcept {
      release();
      lock_ = std::exchange(o.lock_, nullptr);
      key_ = std::move(o.key_);
      return *this;
    }
    ~guard() { release(); }
    void release() noexcept {
      if (auto* l = std::exchange(lock_, nullptr)) l->unlock(key_);
    }
    explicit operator bool() const noexcept { return lock_ != nullptr; }

   private:
    key_lock* lock_ = nullptr;
    bytes key_;
  };
  // An empty guard when the deadline passed. Several keys: take them in sorted order.
  task<guard> lock(bytes key, mono_time deadline = never);

 private:
  struct waiting {
    std::shared_ptr<waiter> who;
    std::shared_ptr<bool> granted;
  };
  void unlock(const bytes& key) noexcept;
  runtime& rt_;
  std::unordered_map<bytes, std::deque<waiting>> held_;
};

// Owns tasks. Its owner calls cancel() and awaits join() in stop(); a task that throws anything but cancellation is a
// broken invariant and ends the process, saying its name. A task may cancel its own group: it is unwound where it waits next.
// What is cancelled before it began (spawned from outside the home thread) never begins.
class task_group {
 public:
  explicit task_group(runtime& rt) : rt_(rt), empty_(rt) {}
  ~task_group();
  // After cancel(), a new task is dropped unstarted.
  void spawn(const char* name, task<void> t) { (void)start(name, std::move(t)); }
  // One task of the group, to be cancelled alone; harmless once the task has ended.
  class handle;
  handle spawn_cancellable(const char* name, task<void> t);
  void cancel();
  bool cancelled() const noexcept { return cancelled_; }
  task<void> join();  // until no task is left
  std::size_t size() const noexcept { return children_.size(); }

 private:
  struct child {
    const char* name;
    asio::cancellation_signal signal;
    bool begun = false, cancelled = false;
    void cancel() {
      cancelled = true;
      if (begun) signal.emit(asio::cancellation_type::terminal);
    }
  };
  static task<void> run(std::shared_ptr<child> c, task<void> t);
  std::shared_ptr<child> start(const char* name, task<void> t);
  runtime& rt_;
  std::list<std::shared_ptr<child>> children_;
  wait_list empty_;
  bool cancelled_ = false;
};

class task_group::handle {
 public:
  handle() = default;
  void cancel() const {
    if (auto c = child_.lock()) c->cancel();
  }

 private:
  friend class task_group;
  explicit handle(std::weak_ptr<child> c) : child_(std::move(c)) {}
  std::weak_ptr<child> child_;
};
inline task_group::handle task_group::spawn_cancellable(const char* name, task<void> t) {
  return handle(start(name, std::move(t)));
}

// Several tasks of one kind started together, answers taken as they come: the base of every quorum. Tasks that are not
// waited for any more go on in the group (and their answers are dropped).
template <class R>
class fan_out {
 public:
  fan_out(runtime& rt, task_group& group) : group_(group), state_(std::make_shared<state>(rt)) {}
  void start(std::size_t tag, task<R> t) {
    ++state_->outstanding;
    group_.spawn("fan_out", run(state_, tag, std::move(t)));
  }
  // The next answer with its tag; nothing when none is outstanding or the deadline passed.
  task<std::optional<std::pair<std::size_t, R>>> next(mono_time deadline = never) { return next(state_, deadline); }
  std::size_t outstanding() const noexcept { return state_->outstanding; }
  // Called with each answer that comes after this call, instead of next() (stragglers: hints, statistics).
  void drain(std::move_only_function<void(std::size_t, R)> fn) {
    for (; !state_->answers.empty(); state_->answers.pop_front())
      fn(state_->answers.front().first, std::move(state_->answers.front().second));
    state_->late = std::move(fn);
  }

 private:
  struct state {
    explicit state(runtime& rt) : arrived(rt) {}
    std::deque<std::pair<std::size_t, R>> answers;
    std::size_t outstanding = 0;
    wait_list arrived;
    std::move_only_function<void(std::size_t, R)> late;
  };
  static task<void> run(std::shared_ptr<state> s, std::size_t tag, task<R> t) {
    R r = co_await std::move(t);
    --s->outstanding;
    if (s->late) {
      s->late(tag, std::move(r));
    } else {
      s->answers.emplace_back(tag, std::move(r));
      s->arrived.wake_one();
    }
  }
  static task<std::optional<std::pair<std::size_t, R>>> next(std::shared_ptr<state> s, mono_time deadline) {
    while (s->answers.empty()) {
      if (s->outstanding == 0) co_return std::nullopt;
      if (!co_await s->arrived.wait(deadline)) break;
    }
    if (s->answers.empty()) co_return std::nullopt;
    auto a = std::move(s->answers.front());
    s->answers.pop_front();
    co_return a;
  }
  task_group& group_;
  std::shared_ptr<state> state_;
};

// Runs fn() on the pool and returns what it returns. Not cancellable: what fn refers to stays alive until it is done.
template <class F>
task<std::invoke_result_t<F&>> offload(runtime& rt, work_pool& pool, F fn) {
  using R = std::invoke_result_t<F&>;
  auto w = std::make_shared<waiter>(rt);
  auto f = std::make_shared<F>(std::move(fn));
  if constexpr (std::is_void_v<R>) {
    pool.run([f] { (*f)(); }, [w] { w->resume(true); });
    co_await w->wait(never, false);
  } else {
    auto r = std::make_shared<std::optional<R>>();
    pool.run([f, r] { r->emplace((*f)()); }, [w] { w->resume(true); });
    co_await w->wait(never, false);
    co_return std::move(**r);
  }
}

// This node's hybrid clock. Source: see hlc_time.
class hybrid_clock {
 public:
  // Further ahead than this, a foreign timestamp is refused (DESIGN 5b, rule 8).
  static constexpr milliseconds ahead_max = 60s;
  explicit hybrid_clock(runtime& rt) : rt_(rt) {}
  hlc_time now();                             // later than every time it gave or observed before
  result<void> observe(hlc_time other);       // clock_skew, and nothing changed, when too far ahead
  bool too_far_ahead(hlc_time t) const;

 private:
  runtime& rt_;
  hlc_time last_;
};

// ------------------------------------------------------------------------------------------------- the real forms

// Timers on one asio timer. REQUIRES: used on the io_context's thread only.
class real_clock final : public clock {
 public:
  explicit real_clock(asio::io_context&);
  ~real_clock() override;
  mono_time now() const override;
  std::uint64_t wall_ms() const override;
  timer_id call_at(mono_time, std::move_only_function<void()>) override;
  void cancel(timer_id) override;

 private:
  struct impl;
  std::shared_ptr<impl> impl_;
};

class real_random final : public random_source {  // libsodium's generator
 public:
  void fill(void* to, std::size_t size_bytes) override;
};

class thread_pool final : public work_pool {
 public:
  thread_pool(asio::io_context& home, std::size_t threads, const char* name);
  ~thread_pool() override;  // finishes what was given, then joins
  void run(std::move_only_function<void()> work, std::move_only_function<void()> done) override;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

class posix_disk final : public disk {
 public:
  // root is made if missing. Use open() to learn why it cannot be used.
  static result<std::unique_ptr<posix_disk>> open(runtime&, std::string root);
  task<result<void>> write_durable(std::string path, std::vector<shared_bytes> pieces) override;
  task<result<bytes>> read(std::string path, std::uint64_t offset, std::size_t size_max) override;
  task<result<std::uint64_t>> size(std::string path) override;
  task<result<void>> remove(std::string path) override;
  task<result<std::vector<std::string>>> list(std::string directory) override;
  task<result<space>> free_space() override;

 private:
  posix_disk(runtime& rt, std::string root) : rt_(rt), root_(std::move(root)) {}
  runtime& rt_;
  std::string root_;
  std::uint64_t next_temp_ = 0;
  std::set<std::string> synced_;  // directories of which this process knows that they survive a power cut
};

class posix_processes final : public process_host {
 public:
  explicit posix_processes(runtime& rt) : rt_(rt) {}
  result<std::unique_ptr<child_process>> spawn(const std::string& program, std::vector<std::string> arguments) override;

 private:
  runtime& rt_;
};

class tcp_network final : public network {  // TCP_NODELAY, keep-alive, SO_REUSEADDR
 public:
  explicit tcp_network(runtime& rt) : rt_(rt) {}
  task<result<std::unique_ptr<byte_stream>>> connect(std::string address, mono_time deadline) override;
  result<std::unique_ptr<stream_listener>> listen(std::string address) override;

 private:
  runtime& rt_;
};

}  // namespace grenier
