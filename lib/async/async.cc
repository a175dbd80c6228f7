#include "async/async.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <sodium.h>

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>

namespace grenier {

// ------------------------------------------------------------------------------------------------- runtime, waiter

runtime::runtime(asio::io_context& io, grenier::clock& c, random_source& r, work_pool& cpu, work_pool& disk)
    : executor_(io.get_executor()), clock_(c), random_(r), cpu_(cpu), disk_(disk) {}

runtime::~runtime() {
  // Waiters may outlive the runtime in somebody's list; they must not find it again.
  for (waiter* w = first_; w;) {
    waiter* next = w->next_;
    w->prev_ = w->next_ = nullptr;
    w->linked_ = false;
    w = next;
  }
  first_ = nullptr;
}

void runtime::post(std::move_only_function<void()> fn) {
  if (killed_) return;
  asio::post(executor_, [f = std::move(fn)]() mutable { f(); });
}

void runtime::log(log_level l, std::string message) {
  if (l < level_ || killed_) return;
  if (sink_) return sink_(l, message);
  if (l >= log_level::warning) std::fprintf(stderr, "%s\n", message.c_str());
}

void runtime::kill() {
  killed_ = true;
  std::vector<std::move_only_function<void(boost::system::error_code, bool)>> handlers;
  while (first_) {
    waiter* w = first_;
    handlers.push_back(std::move(w->handler_));
    w->handler_ = nullptr;
    if (w->timer_) clock_.cancel(*std::exchange(w->timer_, std::nullopt));
    w->unlink();
  }
}

// A frame may outlive its machine: what is not linked touches nothing of it.
void waiter::unlink() noexcept {
  if (!linked_) return;
  linked_ = false;
  if (rt_.first_ == this) rt_.first_ = next_;
  if (prev_) prev_->next_ = next_;
  if (next_) next_->prev_ = prev_;
  prev_ = next_ = nullptr;
}

bool waiter::finish(boost::system::error_code ec, bool value) {
  if (!handler_) return false;
  auto h = std::move(handler_);
  handler_ = nullptr;
  unlink();
  if (timer_) rt_.clock_.cancel(*std::exchange(timer_, std::nullopt));
  asio::post(rt_.executor_, [h = std::move(h), ec, value]() mutable { h(ec, value); });
  return true;
}

task<bool> waiter::wait(mono_time deadline, bool cancellable) {
  auto self = shared_from_this();
  // A resume() that comes between the call and the suspension cannot happen: both run on the home thread.
  co_return co_await asio::async_initiate<const asio::use_awaitable_t<io_executor>, void(boost::system::error_code, bool)>(
      [self, deadline, cancellable](auto handler) {
        auto slot = asio::get_associated_cancellation_slot(handler);
        self->handler_ = [h = std::move(handler)](boost::system::error_code ec, bool v) mutable { std::move(h)(ec, v); };
        self->next_ = self->rt_.first_;
        if (self->next_) self->next_->prev_ = self.get();
        self->rt_.first_ = self.get();
        self->linked_ = true;
        if (deadline != never)
          self->timer_ = self->rt_.clock_.call_at(deadline, [self] {
            self->timer_.reset();
            self->finish({}, false);
          });
        if (cancellable && slot.is_connected())
          slot.assign([weak = std::weak_ptr<waiter>(self)](asio::cancellation_type) {
            if (auto w = weak.lock()) w->finish(asio::error::operation_aborted, false);
          });
      },
      use_task);
}

task<void> sleep_until(runtime& rt, mono_time at) {
  auto w = std::make_shared<waiter>(rt);
  co_await w->wait(at);
}

// ------------------------------------------------------------------------------------------------- waiting, bounding

task<bool> wait_list::wait(mono_time deadline) {
  auto w = std::make_shared<waiter>(rt_);
  while (!waiters_.empty() && !waiters_.front()->waiting() && waiters_.front().use_count() == 1) waiters_.pop_front();
  waiters_.push_back(w);
  co_return co_await w->wait(deadline);
}

bool wait_list::wake_one() {
  while (!waiters_.empty()) {
    auto w = std::move(waiters_.front());
    waiters_.pop_front();
    if (w->resume(true)) return true;
  }
  return false;
}

void wait_list::wake_all() {
  auto all = std::move(waiters_);
  waiters_.clear();
  for (auto& w : all) w->resume(true);
}

std::size_t wait_list::size() const {
  std::size_t n = 0;
  for (const auto& w : waiters_) n += w->waiting();
  return n;
}

semaphore::permit semaphore::try_acquire(std::uint64_t units) {
  units = std::min(units, total_);
  if (!queue_.empty() || free_ < units) return {};
  free_ -= units;
  return {this, units};
}

task<semaphore::permit> semaphore::acquire(std::uint64_t units, mono_time deadline) {
  units = std::min(units, total_);
  if (queue_.empty() && free_ >= units) {
    free_ -= units;
    co_return permit(this, units);
  }
  auto granted = std::make_shared<bool>(false);
  auto w = std::make_shared<waiter>(rt_);
  // Leaves the queue however the wait ends: woken, too late, or cancelled.
  struct leave {
    semaphore& s;
    std::shared_ptr<waiter> w;
    ~leave() {
      if (std::erase_if(s.queue_, [&](const entry& e) { return e.who == w; })) s.grant();
    }
  };
  queue_.push_back({units, w, granted});
  leave l{*this, w};
  co_await w->wait(deadline);
  co_return *granted ? permit(this, units) : permit();
}

void semaphore::put_back(std::uint64_t units) noexcept {
  free_ += units;
  grant();
}

void semaphore::grant() {
  while (!queue_.empty() && free_ >= queue_.front().units) {
    entry e = std::move(queue_.front());
    queue_.pop_front();
    if (!e.who->resume(true)) continue;  // gone by its deadline or by cancellation
    *e.granted = true;
    free_ -= e.units;
  }
}

task<key_lock::guard> key_lock::lock(bytes key, mono_time deadline) {
  auto [at, fresh] = held_.try_emplace(key);
  if (fresh) co_return guard(this, std::move(key));
  auto granted = std::make_shared<bool>(false);
  auto w = std::make_shared<waiter>(rt_);
  at->second.push_back({w, granted});
  co_await w->wait(deadline);
  co_return *granted ? guard(this, std::move(key)) : guard();
}

void key_lock::unlock(const bytes& key) noexcept {
  auto at = held_.find(key);
  ASSERT(at != held_.end());
  while (!at->second.empty()) {
    waiting next = std::move(at->second.front());
    at->second.pop_front();
    if (next.who->resume(true)) {
      *next.granted = true;
      return;
    }
  }
  held_.erase(at);
}

// ------------------------------------------------------------------------------------------------- tasks

task_group::~task_group() = default;

// Asio waits on its own behalf for a task that ended without having been suspended, and cannot bear to be cancelled then: what is
// cancelled before it began never begins, and at the end of the task cancelling is over.
task<void> task_group::run(std::shared_ptr<child> c, task<void> t) {
  if (c->cancelled) co_return;
  c->begun = true;
  std::exception_ptr thrown;
  try {
    co_await std::move(t);
  } catch (...) {
    thrown = std::current_exception();
  }
  co_await asio::this_coro::throw_if_cancelled(false);
  if (thrown) std::rethrow_exception(thrown);
}

std::shared_ptr<task_group::child> task_group::start(const char* name, task<void> t) {
  if (cancelled_ || rt_.killed()) return nullptr;
  auto c = std::make_shared<child>();
  c->name = name;
  auto at = children_.insert(children_.end(), c);
  asio::co_spawn(rt_.executor(), run(c, std::move(t)),
                 asio::bind_cancellation_slot(c->signal.slot(), [this, at, c](std::exception_ptr e) {
                   if (e) {
                     try {
                       std::rethrow_exception(e);
                     } catch (const boost::system::system_error& se) {
                       if (se.code() != asio::error::operation_aborted) {
                         std::fprintf(stderr, "grenier: task %s: %s\n", c->name, se.what());
                         std::abort();
                       }
                     } catch (const std::exception& ex) {
                       std::fprintf(stderr, "grenier: task %s: %s\n", c->name, ex.what());
                       std::abort();
                     }
                   }
                   children_.erase(at);
                   if (children_.empty()) empty_.wake_all();
                 }));
  return c;
}

void task_group::cancel() {
  cancelled_ = true;
  // emit() may end a child at once and change the list: walk a copy.
  auto all = children_;
  for (auto& c : all) c->cancel();
}

task<void> task_group::join() {
  while (!children_.empty()) co_await empty_.wait();
}

hlc_time hybrid_clock::now() {
  hlc_time wall = hlc_time::from_ms(rt_.wall_ms());
  last_ = std::max(wall, hlc_time{last_.value + 1});
  return last_;
}

bool hybrid_clock::too_far_ahead(hlc_time t) const {
  return t.ms() > rt_.wall_ms() + static_cast<std::uint64_t>(ahead_max.count());
}

result<void> hybrid_clock::observe(hlc_time other) {
  if (too_far_ahead(other))
    return fail(errc::clock_skew, "a timestamp " + std::to_string((other.ms() - rt_.wall_ms()) / 1000) +
                                      " s ahead of this machine's clock: one of the two clocks is wrong");
  last_ = std::max(last_, other);
  return {};
}

// ------------------------------------------------------------------------------------------------- real forms

struct real_clock::impl : std::enable_shared_from_this<real_clock::impl> {
  explicit impl(asio::io_context& io) : timer(std::in_place, io) {}
  // Ends the timers of an io_context that goes before its clocks, as it does in a crash.
  struct end final : asio::execution_context::service {
    static inline asio::execution_context::id id;
    explicit end(asio::execution_context& c) : service(c) {}
    void shutdown() override {
      for (auto& weak : all)
        if (auto i = weak.lock()) i->timer.reset();
    }
    std::vector<std::weak_ptr<impl>> all;
  };
  std::optional<asio::basic_waitable_timer<std::chrono::steady_clock, asio::wait_traits<std::chrono::steady_clock>, io_executor>> timer;
  std::map<timer_id, std::move_only_function<void()>> queue;
  std::uint64_t next = 0;
  mono_time armed = never;

  void arm() {
    if (!timer || queue.empty() || queue.begin()->first.at >= armed) return;
    armed = queue.begin()->first.at;
    timer->expires_at(std::chrono::steady_clock::time_point(std::chrono::duration_cast<std::chrono::steady_clock::duration>(armed.time_since_epoch())));
    timer->async_wait([weak = weak_from_this()](boost::system::error_code ec) {
      auto self = weak.lock();
      if (ec || !self) return;
      self->armed = never;
      self->fire();
    });
  }
  void fire() {
    mono_time now(std::chrono::steady_clock::now().time_since_epoch());
    while (!queue.empty() && queue.begin()->first.at <= now) {
      auto fn = std::move(queue.extract(queue.begin()).mapped());
      fn();
    }
    arm();
  }
};

real_clock::real_clock(asio::io_context& io) : impl_(std::make_shared<impl>(io)) { asio::use_service<impl::end>(io).all.push_back(impl_); }
real_clock::~real_clock() = default;
mono_time real_clock::now() const { return mono_time(std::chrono::steady_clock::now().time_since_epoch()); }
std::uint64_t real_clock::wall_ms() const {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}
timer_id real_clock::call_at(mono_time at, std::move_only_function<void()> fn) {
  timer_id t{at, ++impl_->next};
  impl_->queue.emplace(t, std::move(fn));
  impl_->arm();
  return t;
}
void real_clock::cancel(timer_id t) {
  impl_->queue.erase(t);
  // Nothing to wait for: then an io_context that has no other work may end.
  if (impl_->queue.empty() && impl_->timer && impl_->armed != never) {
    impl_->armed = never;
    impl_->timer->cancel();
  }
}

void real_random::fill(void* to, std::size_t size_bytes) { randombytes_buf(to, size_bytes); }

struct thread_pool::impl {
  explicit impl(asio::io_context& io) : home(io), work(io.get_executor()) {}
  asio::io_context& home;
  asio::io_context::executor_type work;
  std::mutex mutex;
  std::condition_variable ready;
  std::deque<std::pair<std::move_only_function<void()>, std::move_only_function<void()>>> queue;
  bool stopping = false;
  std::vector<std::thread> threads;

  void loop() {
    for (;;) {
      std::unique_lock lock(mutex);
      ready.wait(lock, [&] { return stopping || !queue.empty(); });
      if (queue.empty()) return;
      auto [fn, done] = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      fn();
      fn = nullptr;
      asio::post(work, [d = std::move(done)]() mutable { d(); });
    }
  }
};

thread_pool::thread_pool(asio::io_context& home, std::size_t threads, const char* name) : impl_(std::make_unique<impl>(home)) {
  for (std::size_t i = 0; i < threads; ++i) {
    impl_->threads.emplace_back([p = impl_.get()] { p->loop(); });
    pthread_setname_np(impl_->threads.back().native_handle(), name);
  }
}

thread_pool::~thread_pool() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->ready.notify_all();
  for (auto& t : impl_->threads) t.join();
}

void thread_pool::run(std::move_only_function<void()> work, std::move_only_function<void()> done) {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->queue.emplace_back(std::move(work), std::move(done));
  }
  impl_->ready.notify_one();
}

}  // namespace grenier
