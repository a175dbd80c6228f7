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
    if (b.empty()) co_return result<void>();
    CO_TRY_VOID(check(b));
    if (disk_.behaviour.broken) failed_ = true;
    if (failed_) co_return broken();
    one_shot<result<void>> done(rt_);
    queue_.push_back({std::move(b), done});
    if (!std::exchange(writing_, true)) group_.spawn("log", write());
    auto r = co_await done.wait();
    co_return *r;
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
    one_shot<result<void>> done;
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

  task<void> write() {
    while (!queue_.empty()) {
      std::vector<pending> group(std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
      queue_.clear();
      co_await sleep_for(rt_, disk_.behaviour.commit_delay);
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
          for (auto& o : std::move(p.changes).take()) {
            auto& all = disk_.impl_->families[static_cast<std::size_t>(o.where)];
            if (o.removal)
              all.erase(o.key);
            else
              all[std::move(o.key)] = std::move(o.value);
          }
      }
      for (auto& p : group) p.done.set(outcome);
    }
    writing_ = false;
  }

  runtime& rt_;
  simulated_disk& disk_;
  std::deque<pending> queue_;
  bool writing_ = false, failed_ = false;
  std::uint64_t commits_ = 0, batches_ = 0;
  task_group group_;
};

std::unique_ptr<store> open_simulated(runtime& rt, simulated_disk& d) { return std::make_unique<simulated_store>(rt, d); }

}  // namespace grenier::kv
