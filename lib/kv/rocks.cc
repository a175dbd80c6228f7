// The real store: RocksDB. One thread of our own merges all queued batches into one write and one sync: RocksDB's own
// group commit would need a thread for each waiting writer.
#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/write_buffer_manager.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "kv/limits.h"

namespace grenier::kv {

namespace {

constexpr std::uint32_t format_now = 1;
constexpr const char* format_key = "kv/format";

rocksdb::Slice slice(bytes_view v) { return {v.data(), v.size()}; }
bytes_view view(const rocksdb::Slice& s) { return {s.data(), s.size()}; }

error foreign(const rocksdb::Status& s) {
  if (s.IsNoSpace() || s.subcode() == rocksdb::Status::SubCode::kNoSpace) return {errc::no_space, "the disk of the row store is full"};
  return {errc::io_failed, "the row store failed: " + s.ToString()};
}

// Everything that RocksDB wrote for one commit group, and who waits for it.
struct pending {
  batch changes;
  std::shared_ptr<waiter> who;
  std::shared_ptr<result<void>> outcome;
};

class rocks_store final : public store {
 public:
  rocks_store(runtime& rt, std::unique_ptr<rocksdb::DB> db, std::vector<rocksdb::ColumnFamilyHandle*> handles, std::shared_ptr<rocksdb::Cache> cache)
      : rt_(rt), db_(std::move(db)), handles_(std::move(handles)), cache_(std::move(cache)), home_(rt.executor()), writer_([this] { write_loop(); }) {
    pthread_setname_np(writer_.native_handle(), "grenier-log");
  }

  ~rocks_store() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    ready_.notify_all();
    writer_.join();
    for (auto* h : handles_) db_->DestroyColumnFamilyHandle(h);
    rocksdb::CancelAllBackgroundWork(db_.get(), true);
    db_->Close();
  }

  task<result<std::optional<bytes>>> get(family f, bytes key) override {
    // From memory first, on this thread; only a miss costs a hop to the pool.
    rocksdb::ReadOptions o;
    o.read_tier = rocksdb::kBlockCacheTier;
    rocksdb::PinnableSlice value;
    auto s = db_->Get(o, handle(f), slice(key), &value);
    if (s.IsIncomplete())
      co_return co_await offload(rt_, rt_.disk_pool(), [this, f, key = std::move(key)]() -> result<std::optional<bytes>> {
        rocksdb::PinnableSlice v;
        auto st = db_->Get(rocksdb::ReadOptions(), handle(f), slice(key), &v);
        return read_result(st, v);
      });
    co_return read_result(s, value);
  }

  task<result<std::vector<entry>>> scan(family f, scan_options o) override {
    // Short scans of what is in memory are collected here; what needs the disk is done again on the pool.
    collector c(o);
    auto s = visit(f, o.from, o.until, [&c](bytes_view k, bytes_view v) { return c(k, v); }, true);
    if (s.ok()) co_return std::move(c.entries);
    if (!s.IsIncomplete()) co_return fail(foreign(s));
    co_return co_await offload(rt_, rt_.disk_pool(), [this, f, o = std::move(o)]() -> result<std::vector<entry>> {
      collector d(o);
      auto st = visit(f, o.from, o.until, [&d](bytes_view k, bytes_view v) { return d(k, v); }, false);
      if (!st.ok()) return fail(foreign(st));
      return std::move(d.entries);
    });
  }

  task<result<void>> walk(family f, bytes from, bytes until, visitor fn) override {
    auto shared = std::make_shared<visitor>(std::move(fn));
    co_return co_await offload(rt_, rt_.disk_pool(), [this, f, from = std::move(from), until = std::move(until), shared]() -> result<void> {
      auto s = visit(f, from, until, [&](bytes_view k, bytes_view v) { return (*shared)(k, v); }, false);
      if (!s.ok()) return fail(foreign(s));
      return {};
    });
  }

  task<result<void>> commit(batch b) override {
    if (b.empty()) co_return result<void>();
    CO_TRY_VOID(check(b));
    auto w = std::make_shared<waiter>(rt_);
    auto outcome = std::make_shared<result<void>>();
    {
      std::lock_guard lock(mutex_);
      if (failed_) co_return fail(errc::io_failed, "the row store stopped taking writes after a failed sync");
      if (stopping_) co_return fail(errc::cancelled, "stopping");
      queue_.push_back({std::move(b), w, outcome});
      if (queue_.size() == 1) ready_.notify_one();
    }
    ++open_commits_;
    co_await w->wait(never, false);
    --open_commits_;
    if (open_commits_ == 0) idle_.wake_all();
    co_return *outcome;
  }

  statistics stats() const override {
    statistics s;
    {
      std::lock_guard lock(mutex_);
      s.commits = commits_;
      s.batches = batches_;
    }
    s.memory_bytes = cache_->GetUsage();
    for (auto* h : handles_) {
      std::uint64_t n = 0;
      if (db_->GetIntProperty(h, rocksdb::DB::Properties::kEstimateLiveDataSize, &n)) s.live_bytes += n;
    }
    return s;
  }

  task<void> stop() override {
    while (open_commits_) co_await idle_.wait();
  }

 private:
  rocksdb::ColumnFamilyHandle* handle(family f) const { return handles_[static_cast<std::size_t>(f)]; }

  static result<std::optional<bytes>> read_result(const rocksdb::Status& s, const rocksdb::PinnableSlice& value) {
    if (s.IsNotFound()) return std::optional<bytes>();
    if (!s.ok()) return fail(foreign(s));
    return std::optional<bytes>(bytes(value.data(), value.size()));
  }

  template <class F>
  rocksdb::Status visit(family f, const bytes& from, const bytes& until, F&& fn, bool memory_only) {
    rocksdb::ReadOptions o;
    if (memory_only) o.read_tier = rocksdb::kBlockCacheTier;
    rocksdb::Slice bound = slice(until);
    if (!until.empty()) o.iterate_upper_bound = &bound;
    std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(o, handle(f)));
    for (it->Seek(slice(from)); it->Valid();) {
      step s = fn(view(it->key()), view(it->value()));
      if (s.what == step::kind::stop) return rocksdb::Status::OK();
      if (s.what == step::kind::next) {
        it->Next();
      } else {
        ASSERT(slice(s.to).compare(it->key()) > 0);
        it->Seek(slice(s.to));
      }
    }
    return it->status();
  }

  void write_loop() {
    for (;;) {
      std::vector<pending> group;
      {
        std::unique_lock lock(mutex_);
        ready_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) return;
        std::size_t size = 0;
        while (!queue_.empty() && (group.empty() || size + queue_.front().changes.size_bytes() <= batch_bytes_max)) {
          size += queue_.front().changes.size_bytes();
          group.push_back(std::move(queue_.front()));
          queue_.pop_front();
        }
      }
      auto outcome = write(group);
      {
        std::lock_guard lock(mutex_);
        ++commits_;
        batches_ += group.size();
        if (!outcome && outcome.error().code == errc::io_failed) failed_ = true;
      }
      asio::post(home_, [group = std::move(group), outcome] {
        for (const auto& p : group) {
          *p.outcome = outcome;
          p.who->resume(true);
        }
      });
    }
  }

  result<void> write(const std::vector<pending>& group) {
    rocksdb::WriteBatch wb;
    for (const auto& p : group)
      for (const auto& o : p.changes.ops()) {
        auto s = o.removal ? wb.Delete(handle(o.where), slice(o.key)) : wb.Put(handle(o.where), slice(o.key), slice(o.value));
        if (!s.ok()) return fail(foreign(s));
      }
    rocksdb::WriteOptions wo;
    wo.sync = true;
    auto s = db_->Write(wo, &wb);
    if (s.ok()) return {};
    error e = foreign(s);
    // A full disk puts RocksDB in a state that it leaves only when told to: try at the next write.
    if (e.code == errc::no_space) (void)db_->Resume();
    return fail(std::move(e));
  }

  runtime& rt_;
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
  std::shared_ptr<rocksdb::Cache> cache_;
  io_executor home_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<pending> queue_;
  bool stopping_ = false, failed_ = false;
  std::uint64_t commits_ = 0, batches_ = 0;
  std::size_t open_commits_ = 0;
  wait_list idle_{rt_};
  std::thread writer_;  // last: it uses all of the above
};

rocksdb::DBOptions db_options(const std::shared_ptr<rocksdb::Cache>& cache, std::size_t budget) {
  rocksdb::DBOptions o;
  o.create_if_missing = true;
  o.create_missing_column_families = true;
  // Every acknowledged batch was synced, so only the tail can be torn; damage before it means that acknowledged rows are
  // gone, and must stop the node rather than be skipped.
  o.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  o.paranoid_checks = true;
  o.max_background_jobs = 2;
  o.max_open_files = 256;
  o.max_total_wal_size = 64 << 20;
  o.keep_log_file_num = 2;
  o.max_log_file_size = 1 << 20;
  o.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  o.bytes_per_sync = 1 << 20;
  o.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(budget / 2, cache);
  o.stats_dump_period_sec = 0;
  o.stats_persist_period_sec = 0;
  return o;
}

rocksdb::ColumnFamilyOptions family_options(family f, const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::ColumnFamilyOptions o;
  rocksdb::BlockBasedTableOptions t;
  t.block_cache = cache;
  t.cache_index_and_filter_blocks = true;
  t.pin_l0_filter_and_index_blocks_in_cache = true;
  t.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  t.block_size = 16 << 10;
  t.format_version = 5;
  o.table_factory.reset(rocksdb::NewBlockBasedTableFactory(t));
  o.compression = f == family::body ? rocksdb::kNoCompression : rocksdb::kLZ4Compression;
  o.write_buffer_size = 4 << 20;
  o.arena_block_size = 64 << 10;
  o.max_write_buffer_number = 3;
  o.target_file_size_base = 16 << 20;
  o.max_bytes_for_level_base = 64 << 20;
  o.level_compaction_dynamic_level_bytes = true;
  return o;
}

std::unexpected<error> damaged(const std::string& path, const rocksdb::Status& s) {
  if (s.IsIOError() && s.ToString().find("lock") != std::string::npos)
    return fail(errc::already_exists, path + " is in use by another process");
  if (s.IsNoSpace() || s.subcode() == rocksdb::Status::SubCode::kNoSpace) return fail(errc::no_space, "no space left to open the row store at " + path);
  if (s.IsCorruption() || s.IsNotFound() || s.IsInvalidArgument() || s.ToString().find("No such file") != std::string::npos)
    return fail(errc::io_failed, "the row store at " + path + " is damaged (" + s.ToString() +
                                     "). It must not go on with rows missing: move this home's data directory away and join again as a newcomer with an "
                                     "invite from another home ('storagectl invite' there); everything is refilled from the other copies");
  return fail(errc::io_failed, "the row store at " + path + " cannot be opened: " + s.ToString());
}

}  // namespace

result<std::unique_ptr<store>> open_rocks(runtime& rt, std::string path, rocks_options ro) {
  std::error_code ec;
  std::filesystem::create_directories(path, ec);
  if (ec) return fail(errc::io_failed, "cannot make " + path + ": " + ec.message());
  // Files without the one that says which are current: a new database over old rows would look empty.
  bool has_tables = false;
  for (const auto& e : std::filesystem::directory_iterator(path, ec))
    has_tables |= e.path().extension() == ".sst" || e.path().extension() == ".log" || e.path().filename().string().starts_with("MANIFEST-");
  if (has_tables && !std::filesystem::exists(path + "/CURRENT")) return damaged(path, rocksdb::Status::Corruption("CURRENT is missing"));

  auto cache = rocksdb::NewLRUCache(ro.memory_budget_bytes, 2);
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  families.emplace_back(rocksdb::kDefaultColumnFamilyName, family_options(family::meta, cache));
  for (std::size_t i = 1; i < family_count; ++i)
    families.emplace_back(std::string(to_string(static_cast<family>(i))), family_options(static_cast<family>(i), cache));
  rocksdb::DB* raw = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  auto s = rocksdb::DB::Open(db_options(cache, ro.memory_budget_bytes), path, families, &handles, &raw);
  if (!s.ok()) return damaged(path, s);
  std::unique_ptr<rocksdb::DB> db(raw);

  std::string format;
  s = db->Get(rocksdb::ReadOptions(), handles[0], format_key, &format);
  std::uint32_t found = s.ok() && format.size() == 4 ? read_u32(format) : 0;
  auto drop = [&] {
    for (auto* h : handles) db->DestroyColumnFamilyHandle(h);
  };
  if (!s.ok() && !s.IsNotFound()) {
    drop();
    return damaged(path, s);
  }
  if (found > format_now) {
    drop();
    return fail(errc::protocol, path + " was written by a newer version of storaged (format " + std::to_string(found) + ", this one knows " +
                                    std::to_string(format_now) + "): start the newer version again");
  }
  if (found == 0) {
    bytes now;
    append_u32(now, format_now);
    rocksdb::WriteOptions wo;
    wo.sync = true;
    s = db->Put(wo, handles[0], format_key, now);
    if (!s.ok()) {
      drop();
      return damaged(path, s);
    }
  }
  return std::unique_ptr<store>(new rocks_store(rt, std::move(db), std::move(handles), cache));
}

}  // namespace grenier::kv
