// Bodies as they go out: some blocks ahead of the reader, by what the lines hold in flight, within the memory budget.
#include <algorithm>

#include "store/impl.h"

namespace grenier::store {

task<void> service::impl::fetch(block_hash hash, one_shot<result<shared_bytes>> to, wire::priority p, bool visitor) {
  auto content = co_await below->get(hash, p, rt.now() + block_patience);
  if (visitor && content && !below->is_here(hash)) visited.keep(hash, *content);
  to.set(std::move(content));
}

task<result<std::vector<model::block_entry>>> service::impl::all_blocks(const model::object_row& row, wire::priority p) {
  if (row.manifests.empty()) co_return row.blocks;
  std::vector<model::block_entry> all;
  for (const auto& m : std::vector(row.manifests)) {
    CO_TRY(shared_bytes content, co_await below->get(m.hash, p, rt.now() + block_patience));
    CO_TRY(auto blocks, model::decode_manifest(*content));
    all.insert(all.end(), blocks.begin(), blocks.end());
  }
  co_return all;
}

namespace {

// What a reader was given, with the memory that it takes until the last user lets it go.
struct budgeted {
  std::shared_ptr<semaphore> budget;
  semaphore::permit memory;
  bytes part;
  shared_bytes whole;
};

class nothing final : public body_reader {
 public:
  task<result<shared_bytes>> next() override { co_return shared_bytes(); }
};

class inline_reader final : public body_reader {
 public:
  explicit inline_reader(shared_bytes b) : body_(std::move(b)) {}
  task<result<shared_bytes>> next() override { co_return std::exchange(body_, nullptr); }

 private:
  shared_bytes body_;
};

}  // namespace

class service::impl::block_reader final : public body_reader {
 public:
  block_reader(impl& s, const model::object_row& row, byte_range range, std::shared_ptr<prefetched_block> early,
               std::shared_ptr<semaphore> memory)
      : s_(s), blocks_(row.blocks), manifests_(row.manifests), skip_(range.first), to_plan_(range.length), early_(std::move(early)),
        memory_(std::move(memory)) {}

  task<result<shared_bytes>> next() override {
    CO_TRY_VOID(co_await plan());
    if (pending_.empty()) co_return shared_bytes();
    slot now = std::move(pending_.front());
    pending_.pop_front();
    auto arrived = co_await now.arriving.wait(s_.rt.now() + block_patience);
    if (!arrived) co_return fail(errc::timed_out, "a block did not come in time");
    CO_TRY(shared_bytes content, had(std::move(*arrived)));
    if (content->size() != now.size) co_return fail(errc::corrupt, "a block has another length than its object says");
    auto piece = std::make_shared<budgeted>();
    piece->budget = memory_;
    piece->memory = std::move(now.memory);
    const bytes* shown = content.get();
    if (now.length != now.size) {
      piece->part = content->substr(now.from, now.length);
      shown = &piece->part;
    } else {
      piece->whole = std::move(content);
    }
    co_return shared_bytes(std::move(piece), shown);
  }

 private:
  struct slot {
    one_shot<result<shared_bytes>> arriving;
    semaphore::permit memory;
    std::uint32_t size = 0, from = 0, length = 0;
  };

  // The object is there, whatever those who hold its blocks say: not found is not for ever.
  static result<shared_bytes> had(result<shared_bytes> r) {
    if (r.failed_with(errc::not_found)) return fail(errc::unavailable, "a block of the object cannot be had now");
    return r;
  }

  // Orders blocks until enough are on their way; at least one, if any is left.
  task<result<void>> plan() {
    const std::size_t ahead = !memory_ ? 2 : s_.below->read_ahead(s_.opts.block_size);
    while (to_plan_ > 0 && pending_.size() < ahead) {
      if (at_ == blocks_.size()) CO_TRY_VOID(co_await next_manifest());
      const model::block_entry b = blocks_[at_];
      if (skip_ >= b.size) {
        skip_ -= b.size;
        ++at_;
        continue;
      }
      slot next{one_shot<result<shared_bytes>>(s_.rt), {}, b.size, static_cast<std::uint32_t>(skip_), 0};
      next.length = static_cast<std::uint32_t>(std::min<std::uint64_t>(b.size - skip_, to_plan_));
      if (auto early = std::exchange(early_, nullptr); early && early->arriving && early->hash == b.hash) {
        next.arriving = *early->arriving;
        next.memory = std::move(early->memory);
      } else {
        if (memory_) {
          next.memory = pending_.empty() ? co_await memory_->acquire(b.size, s_.rt.now() + block_patience) : memory_->try_acquire(b.size);
          if (!next.memory && !pending_.empty()) break;
          if (!next.memory) co_return fail(errc::overloaded, "the memory for bodies under way is in use");
        }
        const bool visitor = memory_ == s_.memory_visitors;
        if (auto known = visitor ? s_.visited.block(b.hash) : nullptr) next.arriving.set(std::move(known));
        else s_.tasks.spawn("fetch block", s_.fetch(b.hash, next.arriving, wire::priority::foreground, visitor));
      }
      ++at_;
      skip_ = 0;
      to_plan_ -= next.length;
      pending_.push_back(std::move(next));
    }
    co_return result<void>();
  }

  task<result<void>> next_manifest() {
    while (next_manifest_ < manifests_.size() && skip_ >= manifests_[next_manifest_].size) skip_ -= manifests_[next_manifest_++].size;
    if (next_manifest_ >= manifests_.size()) co_return fail(errc::corrupt, "the object's blocks end before the object does");
    const block_hash hash = manifests_[next_manifest_].hash;
    CO_TRY(shared_bytes content, had(co_await s_.below->get(hash, wire::priority::foreground, s_.rt.now() + block_patience)));
    CO_TRY(blocks_, model::decode_manifest(*content));
    at_ = 0;
    ++next_manifest_;
    co_return result<void>();
  }

  impl& s_;
  std::vector<model::block_entry> blocks_, manifests_;
  std::size_t at_ = 0, next_manifest_ = 0;
  std::uint64_t skip_, to_plan_;
  std::shared_ptr<prefetched_block> early_;
  std::shared_ptr<semaphore> memory_;
  std::deque<slot> pending_;
};

std::unique_ptr<body_reader> service::impl::read_body(const model::object_row& row, shared_bytes body, byte_range range,
                                                      std::shared_ptr<prefetched_block> early, std::shared_ptr<semaphore> memory) {
  if (range.length == 0) return std::make_unique<nothing>();
  if (row.inline_body)
    return std::make_unique<inline_reader>(range.length == row.meta.size ? std::move(body) : share(body->substr(range.first, range.length)));
  return std::make_unique<block_reader>(*this, row, range, std::move(early), std::move(memory));
}

}  // namespace grenier::store
