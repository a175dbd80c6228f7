#include <csignal>
#include <set>

#include "picture/frames.h"
#include "picture/picture.h"

namespace grenier::picture {

namespace {

constexpr nanoseconds greeting_time = 60s;  // a cold machine reads the codecs from its disk first
constexpr nanoseconds ending_time = 100ms;  // of a child that has closed its side
constexpr nanoseconds dying_time = 10s;
constexpr std::size_t head_size = 64, heard_size = 64 * 1024;
// Exit codes of main.cc.
constexpr int exit_no_sandbox = 3, exit_memory = 4;

struct worker {
  std::unique_ptr<child_process> process;
  reply_reader replies;
  std::uint32_t pictures = 0;
  bool late = false;  // our alarm killed it
};

// Ends the child when the time has come, unless it goes out of scope first.
class alarm {
 public:
  alarm(runtime& rt, worker& w, nanoseconds after) : rt_(rt) {
    timer_ = rt.clock().call_at(rt.now() + after, [&w] {
      w.late = true;
      w.process->kill();
    });
  }
  alarm(const alarm&) = delete;
  ~alarm() { rt_.clock().cancel(timer_); }

 private:
  runtime& rt_;
  timer_id timer_;
};

std::string cause_of_death(const child_process::ending& e) {
  if (e.code == exit_memory) return "out of memory";
  switch (e.signal) {
    case 0: return "it ended with code " + std::to_string(e.code);
    case SIGSYS: return "it tried what it may not do (SIGSYS)";
    case SIGXCPU: return "it took too long (SIGXCPU)";
    case SIGKILL: return "out of memory (SIGKILL)";
    case SIGABRT: return "it found itself in disorder (SIGABRT)";
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE: return "it crashed (signal " + std::to_string(e.signal) + ")";
    default: return "signal " + std::to_string(e.signal);
  }
}

rendered refusal(std::string why) {
  rendered r;
  r.what = verdict::undecodable;
  r.reason = std::move(why);
  return r;
}

result<void> check(const options& o) {
  if (o.sizes.size() > 8) return fail(errc::invalid_argument, "more than 8 sizes of a picture");
  std::set<std::uint16_t> seen;
  for (const auto& w : o.sizes)
    if (w.size < 16 || w.size > 4096 || !seen.insert(w.size).second) return fail(errc::invalid_argument, "sizes of a picture are 16 to 4096, each once");
  return {};
}

}  // namespace

struct pool::impl {
  impl(runtime& r, process_host& h, pool_options po)
      : rt(r), host(h), o(std::move(po)), slots(r, std::max<std::size_t>(1, o.children)), quick_slot(r, 1), file_memory(r, o.memory_bytes / 4 + 1),
        pixel_memory(r, o.memory_bytes / 4 * 3 + 1), quiet(r) {}

  // One render(): counted, and its child known to stop().
  struct turn {
    explicit turn(impl& p) : pool(p) { ++pool.turns; }
    turn(const turn&) = delete;
    ~turn() {
      if (child) pool.busy.erase(child.get());
      if (--pool.turns == 0) pool.quiet.wake_all();
    }
    void take(std::unique_ptr<worker> w) {
      child = std::move(w);
      pool.busy.insert(child.get());
    }
    std::unique_ptr<worker> give() {
      pool.busy.erase(child.get());
      return std::move(child);
    }
    impl& pool;
    std::unique_ptr<worker> child;
  };

  task<result<rendered>> render(source& s, options wants);
  task<result<rendered>> show(turn& t, source& s, const options& wants, std::vector<shared_bytes> head);
  task<result<std::vector<shared_bytes>>> read_head(source& s);
  task<result<void>> find_child(turn& t);
  task<result<void>> send(worker& w, source& s, std::vector<shared_bytes> head);
  // Until `done` of the child's replies; io_failed when the child has ended, protocol when it lies.
  task<result<void>> hear(worker& w, bool (*done)(const reply_reader&));
  // Why a picture cost its child its life.
  task<result<rendered>> post_mortem(turn& t, error how);
  // Waits for its end; a child that goes on is killed.
  task<std::optional<child_process::ending>> retire(std::unique_ptr<worker> w, nanoseconds patience);

  runtime& rt;
  process_host& host;
  pool_options o;
  pool_statistics stats;
  semaphore slots, quick_slot, file_memory, pixel_memory;
  std::vector<std::unique_ptr<worker>> idle;
  std::set<worker*> busy;
  std::size_t turns = 0;
  wait_list quiet;
  bool stopping = false;
};

task<result<rendered>> pool::impl::render(source& s, options wants) {
  CO_TRY_VOID(check(wants));
  turn t(*this);
  semaphore::permit slot;
  if (wants.quick) slot = slots.try_acquire();
  if (!slot) slot = wants.quick ? co_await quick_slot.acquire() : co_await slots.acquire();
  if (stopping) co_return fail(errc::cancelled, "the decoders are being stopped");
  if (s.size() == 0) co_return rendered{};
  CO_TRY(auto head, co_await read_head(s));
  bytes first;
  for (const auto& piece : head) first.append(*piece, 0, head_size);
  if (sniff(first) == file_format::none) {
    ++stats.not_pictures;
    co_return rendered{};
  }
  if (s.size() > file_size_max) {
    ++stats.undecodable;
    co_return refusal("it has " + format_size(s.size()) + ", more than is decoded here");
  }
  auto room = co_await file_memory.acquire(s.size());
  CO_TRY_VOID(co_await find_child(t));
  auto got = co_await show(t, s, wants, std::move(head));
  if (!got) co_return fail(got.error());
  ++(got->what == verdict::picture ? stats.pictures : got->what == verdict::undecodable ? stats.undecodable : stats.not_pictures);
  if (t.child) {
    auto w = t.give();
    // A picture that a library stumbled over may have left it in disorder.
    if (got->what == verdict::undecodable || ++w->pictures >= o.pictures_max || stopping)
      (void)co_await retire(std::move(w), {});
    else
      idle.push_back(std::move(w));
  }
  co_return got;
}

task<result<std::vector<shared_bytes>>> pool::impl::read_head(source& s) {
  std::vector<shared_bytes> head;
  for (std::size_t n = 0; n < head_size;) {
    CO_TRY(auto piece, co_await s.next());
    if (!piece || piece->empty()) break;
    n += piece->size();
    head.push_back(std::move(piece));
  }
  co_return head;
}

task<result<void>> pool::impl::find_child(turn& t) {
  while (!idle.empty()) {
    auto w = std::move(idle.back());
    idle.pop_back();
    t.take(std::move(w));
    // One that died while nobody looked is no picture's fault.
    if (!co_await t.child->process->wait(rt.now())) co_return result<void>();
    t.give();
  }
  if (o.program.empty()) co_return fail(errc::unavailable, "the picture decoder grenier-picture is not installed");
  auto w = std::make_unique<worker>();
  CO_TRY(w->process, host.spawn(o.program, o.arguments));
  ++stats.children_started;
  t.take(std::move(w));
  alarm a(rt, *t.child, greeting_time);
  auto greeted = co_await hear(*t.child, [](const reply_reader& r) { return r.greeted(); });
  if (greeted) co_return result<void>();
  if (greeted.failed_with(errc::cancelled) || stopping) co_return fail(errc::cancelled, "the decoders are being stopped");
  const auto e = co_await retire(t.give(), ending_time);
  if (e && e->code == exit_no_sandbox)
    co_return fail(errc::unavailable, "the picture decoder cannot lock itself in on this machine; " + o.program + ", run by hand, says why");
  co_return fail(errc::unavailable, "the picture decoder " + o.program + " does not start" + (e ? ": " + cause_of_death(*e) : ""));
}

task<result<void>> pool::impl::send(worker& w, source& s, std::vector<shared_bytes> head) {
  std::uint64_t left = s.size();
  for (std::size_t i = 0;; ++i) {
    shared_bytes piece;
    if (i < head.size()) {
      piece = std::move(head[i]);
    } else {
      CO_TRY(piece, co_await s.next());
    }
    if (!piece || piece->empty()) break;
    if (piece->size() > left) co_return fail(errc::incomplete_body, "a picture has more bytes than was said");
    left -= piece->size();
    const bytes_view view = *piece;
    if (auto r = co_await w.process->stream().write({&view, 1}); !r)
      co_return fail(r.failed_with(errc::cancelled) ? errc::cancelled : errc::io_failed);
  }
  if (left > 0) co_return fail(errc::incomplete_body, "a picture has fewer bytes than was said");
  co_return result<void>();
}

task<result<void>> pool::impl::hear(worker& w, bool (*done)(const reply_reader&)) {
  std::vector<char> piece(heard_size);
  while (!done(w.replies)) {
    auto n = co_await w.process->stream().read_some(piece);
    if (n.failed_with(errc::cancelled)) co_return fail(errc::cancelled);
    if (!n || *n == 0) co_return fail(errc::io_failed);
    CO_TRY_VOID(w.replies.feed({piece.data(), *n}));
  }
  co_return result<void>();
}

task<result<rendered>> pool::impl::show(turn& t, source& s, const options& wants, std::vector<shared_bytes> head) {
  worker& w = *t.child;
  w.replies.expect(wants);
  w.process->limit_cpu(o.cpu_max);
  const bytes asked = encode(request{wants, s.size()});
  const bytes_view view = asked;
  if (!co_await w.process->stream().write({&view, 1})) co_return co_await post_mortem(t, errc::io_failed);
  if (auto r = co_await send(w, s, std::move(head)); !r) {
    if (!r.failed_with(errc::io_failed) || stopping) co_return fail(r.error());
    co_return co_await post_mortem(t, r.error());
  }
  {
    alarm a(rt, w, o.wall_max);
    if (auto r = co_await hear(w, [](const reply_reader& p) { return p.finished() || p.plan(); }); !r) co_return co_await post_mortem(t, r.error());
  }
  if (w.replies.finished()) co_return w.replies.take();
  if (const auto needed = w.replies.plan()->memory_bytes + s.size(); needed > o.picture_memory_bytes)
    co_return refusal("decoding it takes " + format_size(needed) + " of memory, more than the " + format_size(o.picture_memory_bytes) + " that one picture is given here");
  auto room = co_await pixel_memory.acquire(w.replies.plan()->memory_bytes);
  alarm a(rt, w, o.wall_max);
  const bytes_view go(&consent_go, 1);
  w.replies.consented();
  if (!co_await w.process->stream().write({&go, 1})) co_return co_await post_mortem(t, errc::io_failed);
  if (auto r = co_await hear(w, [](const reply_reader& p) { return p.finished(); }); !r) co_return co_await post_mortem(t, r.error());
  co_return w.replies.take();
}

task<result<rendered>> pool::impl::post_mortem(turn& t, error how) {
  if (how == errc::cancelled || stopping) co_return fail(errc::cancelled, "the decoders are being stopped");
  // It has closed its side, and is about to end by itself; unless it only pretends to.
  const bool lied = how == errc::protocol, late = t.child->late;
  const auto used = t.child->process->cpu_used();
  const auto e = co_await retire(t.give(), lied ? nanoseconds{} : ending_time);
  // Starved, not slow: another time it may do.
  if (late && used < nanoseconds(o.cpu_max) / 2) co_return fail(errc::timed_out, "this machine was too busy to decode a picture in time");
  ++stats.stopped;
  std::string why = lied ? "it gave an answer that is none (" + how.detail + ")" : late ? "it took too long" : e ? cause_of_death(*e) : "it did not end";
  rt.log(log_level::warning, "a picture's decoder was stopped: " + why);
  co_return refusal("the decoder was stopped: " + why);
}

task<std::optional<child_process::ending>> pool::impl::retire(std::unique_ptr<worker> w, nanoseconds patience) {
  auto e = co_await w->process->wait(rt.now() + patience);
  if (!e) {
    w->process->kill();
    e = co_await w->process->wait(rt.now() + dying_time);
  }
  if (e) {
    stats.cpu += e->cpu;
    stats.peak_rss_bytes = std::max(stats.peak_rss_bytes, e->peak_rss_bytes);
  }
  co_return e;
}

pool::pool(runtime& rt, process_host& h, pool_options o) : impl_(std::make_unique<impl>(rt, h, std::move(o))) {}
pool::~pool() = default;

task<result<rendered>> pool::render(source& s, options o) { return impl_->render(s, std::move(o)); }

task<void> pool::stop() {
  auto& p = *impl_;
  p.stopping = true;
  for (worker* w : p.busy) w->process->kill();
  while (!p.idle.empty()) {
    auto w = std::move(p.idle.back());
    p.idle.pop_back();
    (void)co_await p.retire(std::move(w), {});
  }
  while (p.turns > 0) co_await p.quiet.wait();
}

const pool_statistics& pool::stats() const noexcept { return impl_->stats; }
std::size_t pool::children_running() const noexcept { return impl_->idle.size() + impl_->busy.size(); }

}  // namespace grenier::picture
