// tests/sim/world.h: machines, lines and disks in virtual time: the simulated form of every seam.
//
// One thread, one seed. Machines run what start() gives them until idle, then time jumps to the next event; the same seed gives
// the same trace. Lines carry TCP-like streams (delay, jitter, rate, loss as delay, partitions); disks and kv keep what was synced.
//
//   Owns      everything of the simulated machines, their disks included (which outlive crashes).
//   Not here  what is simulated: each test builds its own node from a machine's seams.
#pragma once

#include <queue>
#include <random>
#include <set>

#include "async/async.h"
#include "kv/kv.h"

namespace grenier::sim {

class world;
class machine;
struct connection;

struct line {
  nanoseconds delay = 100us;      // one way
  nanoseconds jitter = 0ns;       // uniform in [0, jitter), order within a stream is kept
  double rate = 0;                // bytes/s; 0: no limit
  double loss = 0;                // of segments; a lost one comes after a retransmission
  double flip = 0;                // of segments: one bit of it arrives as another
  bool up = true;
};

// Files of one simulated drive; all here is synced.
struct drive_content {
  std::map<std::string, bytes> files;
  std::uint64_t capacity_bytes = 1ull << 40;
  nanoseconds delay = 1ms;        // of a write, besides its size at `rate`
  double rate = 200e6;
  bool full = false, broken = false, hung = false;
  bool unreadable = false;        // files are there, but reading one fails
  bool torn = false;              // a crash leaves half of what was being written beside the files
  std::uint64_t used() const;
};

class simulated_clock final : public clock {
 public:
  explicit simulated_clock(world& w) : world_(w) {}
  mono_time now() const override;
  std::uint64_t wall_ms() const override;
  timer_id call_at(mono_time, std::move_only_function<void()>) override;
  void cancel(timer_id t) override { queue_.erase(t); }
  milliseconds skew{0};

 private:
  friend class world;
  friend class machine;
  world& world_;
  std::map<timer_id, std::move_only_function<void()>> queue_;
  std::uint64_t next_ = 0;
};

class simulated_random final : public random_source {
 public:
  explicit simulated_random(std::uint64_t seed) : engine_(seed) {}
  void fill(void* to, std::size_t size_bytes) override;

 private:
  std::mt19937_64 engine_;
};

// A computer. Its disks survive; what runs on it does not.
class machine {
 public:
  machine(world&, std::size_t index, std::string name);
  ~machine();
  const std::string& name() const noexcept { return name_; }
  std::size_t index() const noexcept { return index_; }
  bool on() const noexcept { return static_cast<bool>(io_); }

  // Starts the program that make() builds; what it returns is destroyed at stop or crash. make() may spawn tasks in root().
  void start(std::function<std::shared_ptr<void>(machine&)> make);
  // Process killed: memory is gone, peers see their connections close. Power cut: the same, but peers see silence.
  void crash(bool power_cut = false);

  // Valid while on.
  runtime& rt() { return *rt_; }
  task_group& root() { return *root_; }
  grenier::network& net() { return *net_; }
  std::unique_ptr<grenier::disk> open_drive(std::size_t i = 0);
  std::unique_ptr<kv::store> open_kv() { return kv::open_simulated(*rt_, kv_disk); }
  // Its address changes, as a home's does over night: connections break, and nobody knows the new one yet.
  void move_address();
  std::size_t host() const noexcept { return host_; }
  bool dying() const noexcept { return dying_; }
  simulated_clock& clock() { return clock_; }

  kv::simulated_disk kv_disk;
  std::vector<drive_content> drives{1};
  double uplink_rate = 0, downlink_rate = 0;  // bytes/s, shared by all peers; 0: no limit
  nanoseconds work_delay = 20us;              // of a job in a work pool
  std::function<void(log_level, const std::string&)> on_log;

 private:
  friend class world;
  friend class simulated_network;
  friend struct connection;
  struct pool;
  world& world_;
  std::size_t index_, host_;
  bool dying_ = false;
  std::string name_;
  simulated_clock clock_;
  std::unique_ptr<simulated_random> random_;
  std::unique_ptr<pool> pool_;
  std::unique_ptr<asio::io_context> io_;
  std::unique_ptr<runtime> rt_;
  std::unique_ptr<grenier::network> net_;
  std::unique_ptr<task_group> root_;
  std::shared_ptr<void> app_;
  mono_time uplink_free_{}, downlink_free_{};
  std::uint64_t boots_ = 0;
};

class world {
 public:
  explicit world(std::uint64_t seed);
  ~world();
  machine& add(std::string name);
  machine& at(std::size_t i) { return *machines_[i]; }
  std::size_t size() const noexcept { return machines_.size(); }

  // The line from one machine to another (one direction).
  sim::line& line(std::size_t from, std::size_t to);
  void set_all_lines(sim::line);
  // Both directions between every machine of `a` and every other one.
  void partition(const std::set<std::size_t>& a);
  void heal();
  // Every connection between the two breaks; what was on its way is lost.
  void cut_connections(std::size_t a, std::size_t b);

  mono_time now() const noexcept { return now_; }
  std::uint64_t wall_ms() const;
  std::mt19937_64& random() noexcept { return random_; }
  std::uint64_t below(std::uint64_t n) { return n ? random_() % n : 0; }
  double unit() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

  void call_at(mono_time, std::move_only_function<void()>);
  void run_for(nanoseconds d);
  // True as soon as done() is; false when the time is over.
  bool run_until(const std::function<bool()>& done, nanoseconds at_most);
  // Runs a task on a machine and the world until it is finished; nothing when it was not within `at_most`, or the machine crashed.
  template <class T>
  std::optional<T> await(machine& m, task<T> t, nanoseconds at_most = std::chrono::minutes(10)) {
    auto slot = std::make_shared<std::optional<T>>();
    m.root().spawn("await", store(slot, std::move(t)));
    if (!run_until([&] { return slot->has_value(); }, at_most)) return std::nullopt;
    return std::move(*slot);
  }
  void finish(machine& m, task<void> t, nanoseconds at_most = std::chrono::minutes(10)) {
    auto done = std::make_shared<bool>(false);
    m.root().spawn("finish", mark(done, std::move(t)));
    ASSERT(run_until([&] { return *done; }, at_most));
  }

  // A digest of everything that happened: equal for equal seeds.
  void note(bytes_view what);
  std::uint64_t trace() const noexcept { return trace_; }
  std::uint64_t events() const noexcept { return events_; }
  std::uint64_t bytes_carried(std::size_t from, std::size_t to) const;

 private:
  friend class machine;
  friend class simulated_network;
  friend struct connection;
  friend class simulated_clock;
  template <class T>
  static task<void> store(std::shared_ptr<std::optional<T>> slot, task<T> t) {
    slot->emplace(co_await std::move(t));
  }
  static task<void> mark(std::shared_ptr<bool> done, task<void> t) {
    co_await std::move(t);
    *done = true;
  }
  void run_ready();
  bool step(mono_time limit);  // to the next event; false when there is none before limit

  std::mt19937_64 random_;
  mono_time now_{};
  std::vector<std::unique_ptr<machine>> machines_;
  std::map<std::pair<std::size_t, std::size_t>, sim::line> lines_;
  std::map<std::pair<std::size_t, std::size_t>, mono_time> line_free_;
  std::map<std::pair<std::size_t, std::size_t>, std::uint64_t> carried_;
  sim::line default_line_;
  std::map<timer_id, std::move_only_function<void()>> queue_;
  std::uint64_t next_ = 0;
  std::uint64_t trace_ = 0, events_ = 0;
  std::map<std::string, void*> listeners_;                     // "10.0.0.N:port" -> listener state
  std::vector<std::weak_ptr<connection>> connections_;
};

}  // namespace grenier::sim
