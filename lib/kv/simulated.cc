// The simulated store: ordered maps and a log that loses what was not synced. RocksDB's threads would not replay.
#include "kv/bounds.h"

namespace grenier::kv {

struct simulated_disk::impl {
  std::array<std::map<bytes, bytes>, family_count> families;
};

simulated_disk::simulated_disk() : impl_(std::make_unique<impl>()) {}
simulated_disk::~simulated_disk() = default;
const std::map<bytes, bytes>& simulated_disk::content(family f) const { return impl_->families[static_cast<std::size_t>(f)]; }
void simulated_disk::wipe() {
  for (auto& f : impl_->families) f.clear();
}

// Commits that come while one is under way share the next one, as the real log's do.
class simulated_store final : public store {
 public:
  simulated_store(runtime& rt, simulated_disk& d) : rt_(rt), disk_(d), group_(rt) {}
  ~simulated_store() override {
    if (!disk_.behaviour.broken && !disk_.behaviour.full && disk_.behaviour.sync)
      for (std::size_t i = 0; i < std::min(disk_.behaviour.survive, writing_now_.size()); ++i) apply(std::move(writing_now_[i].changes));
    // What memory said dies with it.
    for (auto& p : writing_now_) p.undo.forget();
    for (auto& p : queue_) p.undo.forget();
    // What was shown but not synced is gone.
    for (; !undo_.empty(); undo_.pop_back())
      for (auto& o : undo_.back()) take_back(o);
  }

  task<result<std::optional<bytes>>> get(family f, bytes key) override {
    if (disk_.behaviour.broken) co_return broken();
    const auto& all = disk_.content(f);
    auto at = all.find(key);
    co_return at == all.end() ? std::optional<bytes>() : std::optional<bytes>(at->second);
  }

  task<result<std::vector<entry>>> scan(family f, scan_options o) override {
    if (disk_.behaviour.broken) co_return broken();
    collector c(o);
    visit(f, o.from, o.until, c);
    co_return std::move(c.entries);
  }

  task<result<void>> walk(family f, bytes from, bytes until, visitor fn) override {
    if (disk_.behaviour.broken) co_return broken();
    visit(f, from, until, fn);
    co_return result<void>();
  }

  task<result<void>> commit(batch b) override {
    if (b.empty()) {
      b.take_undo().forget();
      co_return result<void>();
    }
    CO_TRY_VOID(check(b));
    if (disk_.behaviour.broken) failed_ = true;
    if (failed_) co_return broken();
    pending p{.changes = {}, .undo = b.take_undo(), .who = std::make_shared<waiter>(rt_), .outcome = std::make_shared<result<void>>()};
    auto who = p.who;
    auto outcome = p.outcome;
    const bool waits = disk_.behaviour.sync;
    if (!waits) {
      remember(b);
      apply(std::move(b));
      p.undo.forget();
    } else {
      p.changes = std::move(b);
    }
    queue_.push_back(std::move(p));
    if (!std::exchange(writing_, true)) group_.spawn("log", write());
    if (waits) co_await who->wait(never, false);
    co_return *outcome;
  }

  statistics stats() const override {
    statistics s;
    s.commits = commits_;
    s.batches = batches_;
    return s;
  }

  task<void> stop() override { co_await group_.join(); }

 private:
  struct pending {
    batch changes;
    undo_list undo;
    std::shared_ptr<waiter> who;
    std::shared_ptr<result<void>> outcome;
  };
  static std::unexpected<error> broken() { return fail(errc::io_failed, "the simulated disk is broken"); }

  template <class F>
  void visit(family f, const bytes& from, const bytes& until, F& fn) {
    const auto& all = disk_.content(f);
    for (auto at = all.lower_bound(from); at != all.end() && (until.empty() || at->first < until);) {
      step s = fn(at->first, at->second);
      if (s.what == step::kind::stop) return;
      if (s.what == step::kind::next) {
        ++at;
      } else {
        ASSERT(s.to > at->first);
        at = all.lower_bound(s.to);
      }
    }
  }

  void apply(batch b) {
    for (auto& o : std::move(b).take()) {
      auto& all = disk_.impl_->families[static_cast<std::size_t>(o.where)];
      if (o.removal)
        all.erase(o.key);
      else
        all[std::move(o.key)] = std::move(o.value);
    }
  }

  struct former {
    family where;
    bytes key;
    std::optional<bytes> value;
  };
  void remember(const batch& b) {
    std::vector<former> were;
    for (const auto& o : b.ops()) {
      const auto& all = disk_.content(o.where);
      auto at = all.find(o.key);
      were.push_back({o.where, o.key, at == all.end() ? std::nullopt : std::optional(at->second)});
    }
    undo_.push_back(std::move(were));
  }
  void take_back(former& f) {
    auto& all = disk_.impl_->families[static_cast<std::size_t>(f.where)];
    if (f.value)
      all[f.key] = std::move(*f.value);
    else
      all.erase(f.key);
  }

  task<void> write() {
    while (!queue_.empty()) {
      writing_now_.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
      queue_.clear();
      const std::size_t shown = undo_.size();
      co_await sleep_for(rt_, disk_.behaviour.commit_delay);
      std::vector<pending> group = std::exchange(writing_now_, {});
      result<void> outcome;
      if (disk_.behaviour.broken) {
        failed_ = true;
        outcome = broken();
      } else if (disk_.behaviour.full) {
        outcome = fail(errc::no_space, "the simulated disk is full");
      } else {
        ++commits_;
        batches_ += group.size();
        for (auto& p : group)
          if (disk_.behaviour.sync) apply(std::move(p.changes));
        undo_.erase(undo_.begin(), undo_.begin() + static_cast<std::ptrdiff_t>(std::min(shown, undo_.size())));
      }
      if (outcome) {
        for (auto& p : group) p.undo.forget();
      } else {
        // What came meanwhile may be made of what these left in memory.
        std::ranges::move(queue_, std::back_inserter(group));
        queue_.clear();
        for (auto p = group.rbegin(); p != group.rend(); ++p) p->undo.run();
        for (auto& p : group) *p.outcome = outcome;
      }
      for (auto& p : group) p.who->resume(true);
    }
    writing_ = false;
  }

  runtime& rt_;
  simulated_disk& disk_;
  std::deque<pending> queue_;
  std::vector<pending> writing_now_;
  std::vector<std::vector<former>> undo_;  // of what is shown before it is synced
  bool writing_ = false, failed_ = false;
  std::uint64_t commits_ = 0, batches_ = 0;
  task_group group_;
};

std::unique_ptr<store> open_simulated(runtime& rt, simulated_disk& d) { return std::make_unique<simulated_store>(rt, d); }

}  // namespace grenier::kv
