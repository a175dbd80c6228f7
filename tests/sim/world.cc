#include "sim/world.h"

#include <cinttypes>

namespace grenier::sim {

// ------------------------------------------------------------------------------------------------- clock, randomness

mono_time simulated_clock::now() const { return world_.now(); }
std::uint64_t simulated_clock::wall_ms() const {
  return world_.wall_ms() + static_cast<std::uint64_t>(skew.count());
}
timer_id simulated_clock::call_at(mono_time at, std::move_only_function<void()> fn) {
  timer_id t{std::max(at, world_.now()), ++next_};
  queue_.emplace(t, std::move(fn));
  return t;
}

void simulated_random::fill(void* to, std::size_t size_bytes) {
  auto* p = static_cast<unsigned char*>(to);
  while (size_bytes) {
    std::uint64_t v = engine_();
    std::size_t n = std::min<std::size_t>(size_bytes, sizeof v);
    std::memcpy(p, &v, n);
    p += n;
    size_bytes -= n;
  }
}

// ------------------------------------------------------------------------------------------------- the network

namespace {
// What is acknowledged at once: of a quick line more than TCP would, for the sake of the simulation's speed.
constexpr std::size_t segment_bytes = 8 << 10, segment_bytes_slow = 1448;
constexpr double slow_rate = 2.5e6;
constexpr std::size_t send_buffer_bytes = 1 << 20;
constexpr nanoseconds retransmit_min = 200ms, retransmit_max = 10s;
}  // namespace

struct endpoint_state {
  machine* owner = nullptr;  // null once its program is gone
  std::uint64_t boot = 0;
  std::unique_ptr<wait_list> readers, writers;
  bytes received;
  bool ended = false;   // the peer closed: EOF after what was received
  bool closed = false;  // closed here, or reset
  // what this end sends
  struct segment {
    bytes data;
    bool fin = false;
    mono_time arrives;
  };
  std::deque<segment> flying;
  std::size_t unsent = 0;
  nanoseconds backoff = retransmit_min;
  bool scheduled = false;
};

struct connection : std::enable_shared_from_this<connection> {
  connection(world& w_, std::size_t a, std::size_t b) : w(w_), index{a, b} {}
  world& w;
  std::size_t index[2];
  endpoint_state end[2];
  std::string name[2];  // of each end

  void push(int from, bytes data, bool fin) {
    endpoint_state& e = end[from];
    sim::line& l = w.line(index[from], index[1 - from]);
    machine& source = w.at(index[from]);
    machine& sink = w.at(index[1 - from]);
    auto size = static_cast<double>(data.size() + 60);
    auto pass = [&](mono_time& free, double rate, mono_time ready) {
      if (rate <= 0) return ready;
      free = std::max(free, ready) + nanoseconds(static_cast<std::int64_t>(size / rate * 1e9));
      return free;
    };
    mono_time t = pass(source.uplink_free_, source.uplink_rate, w.now());
    t = pass(w.line_free_[{index[from], index[1 - from]}], l.rate, t);
    t += l.delay;
    if (l.jitter > 0ns) t += nanoseconds(static_cast<std::int64_t>(w.below(static_cast<std::uint64_t>(l.jitter.count()))));
    t = pass(sink.downlink_free_, sink.downlink_rate, t);
    if (l.flip > 0 && !data.empty() && w.unit() < l.flip) data[w.below(data.size())] ^= static_cast<char>(1u << w.below(8));
    if (l.loss > 0 && w.unit() < l.loss) t += std::max<nanoseconds>(retransmit_min, 3 * l.delay);
    if (!e.flying.empty()) t = std::max(t, e.flying.back().arrives);
    e.unsent += data.size();
    w.carried_[{index[from], index[1 - from]}] += data.size();
    e.flying.push_back({std::move(data), fin, t});
    schedule(from);
  }

  void schedule(int from) {
    endpoint_state& e = end[from];
    if (e.scheduled || e.flying.empty()) return;
    e.scheduled = true;
    w.call_at(e.flying.front().arrives, [self = shared_from_this(), from] { self->arrive(from); });
  }

  void arrive(int from) {
    endpoint_state& e = end[from];
    endpoint_state& to = end[1 - from];
    e.scheduled = false;
    if (e.flying.empty()) return;
    machine& sink = w.at(index[1 - from]);
    if (!w.line(index[from], index[1 - from]).up || !sink.on()) {  // sent again until it gets through
      e.flying.front().arrives = w.now() + e.backoff;
      e.backoff = std::min<nanoseconds>(e.backoff * 2, retransmit_max);
      return schedule(from);
    }
    e.backoff = retransmit_min;
    auto s = std::move(e.flying.front());
    e.flying.pop_front();
    if (!to.owner || to.closed) {  // nobody there any more: a reset comes back
      if (!s.fin) w.call_at(w.now() + w.line(index[1 - from], index[from]).delay, [self = shared_from_this(), from] { self->reset(from); });
      return schedule(from);
    }
    char head[64];
    std::snprintf(head, sizeof head, "%zu>%zu %zu %" PRIu64, index[from], index[1 - from], s.data.size(), xxh3_64(s.data));
    w.note(head);
    to.received += s.data;
    if (s.fin) to.ended = true;
    to.readers->wake_all();
    // The acknowledgement.
    std::size_t n = s.data.size();
    w.call_at(w.now() + w.line(index[1 - from], index[from]).delay, [self = shared_from_this(), from, n] {
      endpoint_state& e2 = self->end[from];
      e2.unsent -= std::min(n, e2.unsent);
      if (e2.owner && e2.writers) e2.writers->wake_all();
    });
    schedule(from);
  }

  void reset(int which) {
    endpoint_state& e = end[which];
    if (!e.owner || e.closed) return;
    e.closed = true;
    e.flying.clear();
    e.unsent = 0;
    e.readers->wake_all();
    e.writers->wake_all();
  }

  void close(int which) {
    endpoint_state& e = end[which];
    if (e.closed) return;
    e.closed = true;
    if (e.owner && e.readers) {
      e.readers->wake_all();
      e.writers->wake_all();
    }
    push(which, {}, true);
  }
};

namespace {

class simulated_stream final : public byte_stream {
 public:
  simulated_stream(std::shared_ptr<connection> c, int which) : c_(std::move(c)), which_(which) {}
  ~simulated_stream() override { c_->close(which_); }
  task<result<std::size_t>> read_some(std::span<char> to) override { return read_some(c_, which_, to); }
  task<result<void>> write(std::span<const bytes_view> from) override { return write(c_, which_, from); }
  void close() override { c_->close(which_); }
  std::size_t unsent() const override { return c_->end[which_].unsent; }
  std::string peer() const override { return c_->name[1 - which_]; }

 private:
  static task<result<std::size_t>> read_some(std::shared_ptr<connection> c, int which, std::span<char> to) {
    endpoint_state& e = c->end[which];
    for (;;) {
      if (e.closed) co_return fail(errc::cancelled, "connection closed");
      if (!e.received.empty()) {
        std::size_t n = std::min(to.size(), e.received.size());
        std::memcpy(to.data(), e.received.data(), n);
        e.received.erase(0, n);
        co_return n;
      }
      if (e.ended) co_return std::size_t{0};
      co_await e.readers->wait();
    }
  }
  static task<result<void>> write(std::shared_ptr<connection> c, int which, std::span<const bytes_view> from) {
    bytes all;
    for (auto v : from) all.append(v);
    endpoint_state& e = c->end[which];
    for (std::size_t done = 0; done < all.size();) {
      if (e.closed) co_return fail(errc::cancelled, "connection closed");
      if (e.unsent >= send_buffer_bytes) {
        co_await e.writers->wait();
        continue;
      }
      double rate = c->w.line(c->index[which], c->index[1 - which]).rate;
      std::size_t n = std::min(rate > 0 && rate < slow_rate ? segment_bytes_slow : segment_bytes, all.size() - done);
      c->push(which, all.substr(done, n), false);
      done += n;
    }
    co_return result<void>();
  }
  std::shared_ptr<connection> c_;
  int which_;
};

struct listener_state {
  listener_state(runtime& rt, world& w_, std::string a) : w(w_), address(std::move(a)), waiting(rt) {}
  world& w;
  std::string address;
  std::deque<std::unique_ptr<byte_stream>> queue;
  wait_list waiting;
  bool closed = false;
};

}  // namespace

class simulated_network final : public network {
 public:
  simulated_network(world& w, machine& m) : w_(w), m_(m) {}
  ~simulated_network() override {
    for (auto& s : mine_)
      if (auto at = w_.listeners_.find(s->address); at != w_.listeners_.end() && at->second == s.get()) w_.listeners_.erase(at);
  }

  task<result<std::unique_ptr<byte_stream>>> connect(std::string address, mono_time deadline) override {
    auto target = parse(address);
    if (!target) co_return fail(errc::invalid_argument, "'" + address + "' is not a simulated address");
    std::size_t me = m_.index(), other = *target;
    if (other >= w_.size()) co_return fail(errc::unavailable, address);
    if (!address.starts_with(address_of(w_.at(other)))) {  // it has moved: nobody answers there
      co_await sleep_until(m_.rt(), std::min(deadline, w_.now() + 3s));
      co_return fail(errc::timed_out, "connecting to " + address);
    }
    // SYN and answer: one round trip, tried again each second while the line is cut or the machine is off.
    for (;;) {
      nanoseconds rtt = w_.line(me, other).delay + w_.line(other, me).delay;
      bool through = w_.line(me, other).up && w_.line(other, me).up && w_.at(other).on();
      mono_time next = w_.now() + (through ? rtt : std::max<nanoseconds>(1s, rtt));
      if (next > deadline) {
        co_await sleep_until(m_.rt(), deadline);
        co_return fail(errc::timed_out, "connecting to " + address);
      }
      co_await sleep_until(m_.rt(), next);
      if (through) break;
    }
    auto at = w_.listeners_.find(address);
    if (at == w_.listeners_.end() || static_cast<listener_state*>(at->second)->closed || !w_.at(other).on())
      co_return fail(errc::unavailable, address + ": connection refused");
    auto& l = *static_cast<listener_state*>(at->second);
    auto c = std::make_shared<connection>(w_, me, other);
    adopt(c->end[0], m_);
    adopt(c->end[1], w_.at(other));
    c->name[0] = address_of(m_) + std::to_string(40000 + ++port_);
    c->name[1] = address;
    w_.connections_.push_back(c);
    l.queue.push_back(std::make_unique<simulated_stream>(c, 1));
    l.waiting.wake_one();
    co_return std::make_unique<simulated_stream>(c, 0);
  }

  // Any host is this machine; the name others use is "10.0.0.<index>:port".
  result<std::unique_ptr<stream_listener>> listen(std::string address) override {
    auto colon = address.rfind(':');
    if (colon == std::string::npos) return fail(errc::invalid_argument, "'" + address + "' is not host:port");
    std::string name = address_of(m_) + address.substr(colon + 1);
    if (w_.listeners_.contains(name)) return fail(errc::already_exists, name + ": the port is taken");
    auto s = std::make_shared<listener_state>(m_.rt(), w_, name);
    w_.listeners_[name] = s.get();
    mine_.push_back(s);
    return std::make_unique<listener>(s);
  }

 private:
  class listener final : public stream_listener {
   public:
    explicit listener(std::shared_ptr<listener_state> s) : s_(std::move(s)) {}
    ~listener() override { close(); }
    task<result<std::unique_ptr<byte_stream>>> accept() override { return accept(s_); }
    std::string local() const override { return s_->address; }
    void close() override {
      if (std::exchange(s_->closed, true)) return;
      auto& all = s_->w.listeners_;
      if (auto at = all.find(s_->address); at != all.end() && at->second == s_.get()) all.erase(at);
      s_->waiting.wake_all();
    }

   private:
    static task<result<std::unique_ptr<byte_stream>>> accept(std::shared_ptr<listener_state> s) {
      for (;;) {
        if (s->closed) co_return fail(errc::cancelled, "accept");
        if (!s->queue.empty()) {
          auto c = std::move(s->queue.front());
          s->queue.pop_front();
          co_return c;
        }
        co_await s->waiting.wait();
      }
    }
    std::shared_ptr<listener_state> s_;
  };

  static void adopt(endpoint_state& e, machine& m) {
    e.owner = &m;
    e.boot = m.boots_;
    e.readers = std::make_unique<wait_list>(m.rt());
    e.writers = std::make_unique<wait_list>(m.rt());
  }
  // Machine 3 is 10.0.0.3; after its address changed 10.0.0.103, 10.0.0.203 ...
  static std::optional<std::size_t> parse(const std::string& a) {
    constexpr std::string_view head = "10.0.0.";
    if (!a.starts_with(head) || a.find(':') == std::string::npos) return std::nullopt;
    return std::stoul(a.substr(head.size())) % 100;
  }
  static std::string address_of(const machine& m) { return "10.0.0." + std::to_string(m.host()) + ":"; }
  world& w_;
  machine& m_;
  std::vector<std::shared_ptr<listener_state>> mine_;
  std::uint64_t port_ = 0;
};

// ------------------------------------------------------------------------------------------------- the disk

std::uint64_t drive_content::used() const {
  std::uint64_t n = 0;
  for (const auto& f : files) n += f.second.size();
  return n;
}

namespace {

class simulated_drive final : public disk {
 public:
  simulated_drive(machine& m, drive_content& c) : m_(m), c_(c) {}
  task<result<void>> write_durable(std::string path, std::vector<shared_bytes> pieces) override {
    bytes all;
    for (const auto& p : pieces) all.append(*p);
    unfinished under_way{m_, c_, path, all};
    CO_TRY_VOID(co_await pause(all.size()));
    if (c_.full || c_.used() + all.size() > c_.capacity_bytes) co_return fail(errc::no_space, path);
    under_way.done = true;
    c_.files[path] = std::move(all);
    co_return result<void>();
  }
  task<result<bytes>> read(std::string path, std::uint64_t offset, std::size_t size_max) override {
    CO_TRY_VOID(co_await pause(0));
    auto at = c_.files.find(path);
    if (at == c_.files.end()) co_return fail(errc::not_found, path);
    if (c_.unreadable) co_return fail(errc::io_failed, path + ": a read error");
    if (offset >= at->second.size()) co_return bytes();
    co_return at->second.substr(offset, size_max);
  }
  task<result<std::uint64_t>> size(std::string path) override {
    CO_TRY_VOID(co_await pause(0));
    auto at = c_.files.find(path);
    if (at == c_.files.end()) co_return fail(errc::not_found, path);
    co_return at->second.size();
  }
  task<result<void>> remove(std::string path) override {
    CO_TRY_VOID(co_await pause(0));
    c_.files.erase(path);
    co_return result<void>();
  }
  task<result<std::vector<std::string>>> list(std::string directory) override {
    CO_TRY_VOID(co_await pause(0));
    std::set<std::string> names;
    std::string head = directory.empty() || directory == "." ? "" : directory + "/";
    for (auto at = c_.files.lower_bound(head); at != c_.files.end() && at->first.starts_with(head); ++at)
      names.insert(at->first.substr(head.size(), at->first.find('/', head.size()) - head.size()));
    co_return std::vector<std::string>(names.begin(), names.end());
  }
  task<result<space>> free_space() override {
    CO_TRY_VOID(co_await pause(0));
    std::uint64_t used = c_.used();
    co_return space{c_.capacity_bytes, c_.full || used > c_.capacity_bytes ? 0 : c_.capacity_bytes - used};
  }

 private:
  // What a crash leaves of a file that was being written.
  struct unfinished {
    machine& m;
    drive_content& c;
    const std::string& path;
    const bytes& all;
    bool done = false;
    ~unfinished() {
      if (!done && m.dying() && c.torn) c.files[path + ".1.tmp"] = all.substr(0, all.size() / 2);
    }
  };
  task<result<void>> pause(std::size_t size_bytes) {
    co_await sleep_for(m_.rt(), size_bytes ? c_.delay + nanoseconds(static_cast<std::int64_t>(static_cast<double>(size_bytes) / c_.rate * 1e9)) : 50us);
    while (c_.hung) co_await sleep_for(m_.rt(), 100ms);
    if (c_.broken) co_return fail(errc::io_failed, "the drive is broken");
    co_return result<void>();
  }
  machine& m_;
  drive_content& c_;
};

}  // namespace

// ------------------------------------------------------------------------------------------------- machines

struct machine::pool final : work_pool {
  explicit pool(machine& m_) : m(m_) {}
  void run(std::move_only_function<void()> work, std::move_only_function<void()> done) override {
    m.clock_.call_at(m.world_.now() + m.work_delay, [work = std::move(work), done = std::move(done)]() mutable {
      work();
      done();
    });
  }
  machine& m;
};

machine::machine(world& w, std::size_t index, std::string name)
    : world_(w), index_(index), host_(index), name_(std::move(name)), clock_(w), pool_(std::make_unique<pool>(*this)) {}

machine::~machine() { crash(true); }

void machine::start(std::function<std::shared_ptr<void>(machine&)> make) {
  ASSERT(!on());
  ++boots_;
  random_ = std::make_unique<simulated_random>(world_.random()());
  io_ = std::make_unique<asio::io_context>(1);
  rt_ = std::make_unique<runtime>(*io_, clock_, *random_, *pool_, *pool_);
  rt_->set_log_level(log_level::debug);
  rt_->set_log_sink([this](log_level l, const std::string& s) {
    world_.note(s);
    if (on_log) on_log(l, s);
  });
  root_ = std::make_unique<task_group>(*rt_);
  net_ = std::make_unique<simulated_network>(world_, *this);
  world_.note("start " + name_);
  app_ = make(*this);
}

void machine::crash(bool power_cut) {
  if (!on()) return;
  world_.note("crash " + name_);
  dying_ = true;
  rt_->kill();
  clock_.queue_.clear();
  std::vector<std::pair<std::shared_ptr<connection>, int>> mine;
  for (auto& weak : world_.connections_)
    if (auto c = weak.lock())
      for (int i = 0; i < 2; ++i)
        if (c->end[i].owner == this) mine.emplace_back(c, i);
  std::erase_if(world_.connections_, [](auto& c) { return c.expired(); });
  for (auto& [c, i] : mine) c->end[i].closed = true;  // so that the streams' destructors send nothing
  io_.reset();
  app_.reset();
  root_.reset();
  net_.reset();
  for (auto& [c, i] : mine) {
    endpoint_state& e = c->end[i];
    e.owner = nullptr;
    e.readers.reset();
    e.writers.reset();
    e.received.clear();
    e.flying.clear();
    if (!power_cut) c->push(i, {}, true);  // the kernel closes a dead program's sockets
  }
  rt_.reset();
  dying_ = false;
}

void machine::move_address() {
  auto renamed = [&](const std::string& old) { return "10.0.0." + std::to_string(host_) + old.substr(old.find(':')); };
  const std::string before = "10.0.0." + std::to_string(host_) + ":";
  host_ += 100;
  std::vector<std::pair<std::string, void*>> mine;
  for (const auto& l : world_.listeners_)
    if (l.first.starts_with(before)) mine.push_back(l);
  for (auto& [name, l] : mine) {
    world_.listeners_.erase(name);
    static_cast<listener_state*>(l)->address = renamed(name);
    world_.listeners_[renamed(name)] = l;
  }
  for (std::size_t i = 0; i < world_.size(); ++i) world_.cut_connections(index_, i);
}

std::unique_ptr<grenier::disk> machine::open_drive(std::size_t i) { return std::make_unique<simulated_drive>(*this, drives.at(i)); }

// ------------------------------------------------------------------------------------------------- the world

world::world(std::uint64_t seed) : random_(seed) {}
world::~world() {
  for (auto& m : machines_) m->crash(true);
  queue_.clear();
}

machine& world::add(std::string name) {
  machines_.push_back(std::make_unique<machine>(*this, machines_.size(), std::move(name)));
  return *machines_.back();
}

sim::line& world::line(std::size_t from, std::size_t to) {
  return lines_.try_emplace({from, to}, default_line_).first->second;
}
void world::set_all_lines(sim::line l) {
  default_line_ = l;
  for (auto& [k, v] : lines_) v = l;
}
void world::partition(const std::set<std::size_t>& a) {
  for (std::size_t i : a)
    for (std::size_t j = 0; j < size(); ++j)
      if (!a.contains(j)) line(i, j).up = line(j, i).up = false;
}
void world::heal() {
  for (auto& [k, l] : lines_) l.up = true;
}
void world::cut_connections(std::size_t a, std::size_t b) {
  for (std::size_t n = 0; n < connections_.size(); ++n)
    if (auto c = connections_[n].lock(); c && ((c->index[0] == a && c->index[1] == b) || (c->index[0] == b && c->index[1] == a)))
      for (int i = 0; i < 2; ++i) c->reset(i);
}

// The simulated calendar starts in 2026.
std::uint64_t world::wall_ms() const {
  return 1'780'000'000'000u + static_cast<std::uint64_t>(std::chrono::duration_cast<milliseconds>(now_.time_since_epoch()).count());
}

void world::call_at(mono_time at, std::move_only_function<void()> fn) {
  queue_.emplace(timer_id{std::max(at, now_), ++next_}, std::move(fn));
}

void world::run_ready() {
  for (bool any = true; any;) {
    any = false;
    for (auto& m : machines_)
      if (m->io_) {
        m->io_->restart();
        any |= m->io_->poll() > 0;
      }
  }
}

bool world::step(mono_time limit) {
  run_ready();
  mono_time next = queue_.empty() ? never : queue_.begin()->first.at;
  for (auto& m : machines_)
    if (m->on() && !m->clock_.queue_.empty()) next = std::min(next, m->clock_.queue_.begin()->first.at);
  if (next > limit || next == never) return false;
  ASSERT(next >= now_);
  now_ = next;
  ++events_;
  while (!queue_.empty() && queue_.begin()->first.at <= now_) {
    auto fn = std::move(queue_.extract(queue_.begin()).mapped());
    fn();
  }
  for (auto& m : machines_)
    while (m->on() && !m->clock_.queue_.empty() && m->clock_.queue_.begin()->first.at <= now_) {
      auto fn = std::move(m->clock_.queue_.extract(m->clock_.queue_.begin()).mapped());
      fn();
    }
  run_ready();
  return true;
}

void world::run_for(nanoseconds d) {
  mono_time end = now_ + d;
  while (step(end)) {
  }
  now_ = end;
}

bool world::run_until(const std::function<bool()>& done, nanoseconds at_most) {
  mono_time end = now_ + at_most;
  run_ready();
  while (!done())
    if (!step(end)) {
      now_ = std::max(now_, end);
      return done();
    }
  return true;
}

void world::note(bytes_view what) {
  trace_ = xxh3_64(what, trace_ ^ static_cast<std::uint64_t>(now_.time_since_epoch().count()));
}

std::uint64_t world::bytes_carried(std::size_t from, std::size_t to) const {
  auto at = carried_.find({from, to});
  return at == carried_.end() ? 0 : at->second;
}

}  // namespace grenier::sim
