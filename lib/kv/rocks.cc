// The real store: RocksDB. One thread of our own merges all queued batches into one write and one sync: RocksDB's own
// group commit would need a thread for each waiting writer.
#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/table.h>
#include <rocksdb/write_buffer_manager.h>

#include <sys/statvfs.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "kv/bounds.h"

namespace grenier::kv {

namespace {

constexpr std::uint32_t format_now = 1;
constexpr const char* format_key = "format";  // in the default family, which holds nothing else

// What a scan may do on the home thread before it goes to the pool: some tens of microseconds.
constexpr std::size_t home_entries_max = 128;
constexpr std::size_t home_bytes_max = 128 << 10;
constexpr std::uint64_t home_skips_max = 256;

rocksdb::Slice slice(bytes_view v) { return {v.data(), v.size()}; }
bytes_view view(const rocksdb::Slice& s) { return {s.data(), s.size()}; }

bool is_no_space(const rocksdb::Status& s) { return s.IsNoSpace() || s.subcode() == rocksdb::Status::SubCode::kNoSpace; }

std::string damage(const std::string& where, const rocksdb::Status& s) {
  return "the row store" + where + " is damaged (" + s.ToString() +
         "). It must not go on with rows missing. Move this home's data directory away and join again as a newcomer, with an "
         "invite from another home ('storagectl invite' there); everything is refilled from the other copies. The details are in "
         "storaged(8), WHEN ROWS ARE LOST";
}

error foreign(const rocksdb::Status& s) {
  if (is_no_space(s)) return {errc::no_space, "the disk of the row store is full"};
  if (s.IsCorruption()) return {errc::io_failed, damage("", s)};
  return {errc::io_failed, "the row store failed: " + s.ToString()};
}

// A log that failed to be written or synced may hold anything from its last good record on. RocksDB would start a new log
// behind it and go on; we do not.
class log_watch final : public rocksdb::EventListener {
 public:
  void OnBackgroundError(rocksdb::BackgroundErrorReason why, rocksdb::Status*) override {
    if (why == rocksdb::BackgroundErrorReason::kWriteCallback) failed = true;
  }
  std::atomic<bool> failed = false;
};

// RocksDB's text log, kept off the disk: Debian's build ends the process when that log is written to after one failed
// write, so a full disk would kill the node. What fails reaches us as a Status.
class no_text_log final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

// A batch on its way, and who waits for it.
struct pending {
  batch changes;
  undo_list undo;  // the home thread's; of what its store leaves unanswered, memory is gone already
  std::shared_ptr<waiter> who;
  std::shared_ptr<result<void>> outcome;
  pending(batch b, undo_list u, std::shared_ptr<waiter> w, std::shared_ptr<result<void>> o)
      : changes(std::move(b)), undo(std::move(u)), who(std::move(w)), outcome(std::move(o)) {}
  pending(pending&&) = default;
  pending& operator=(pending&&) = default;
  ~pending() { undo.forget(); }
};

// What a node must be able to write on a full disk: its own small state (else it could not even start), and removals.
bool is_essential(const batch& b) {
  return std::ranges::all_of(b.ops(), [](const batch::op& o) { return o.removal || o.where == family::meta; });
}

// An open database before it has its thread.
struct database {
  std::string path;
  std::shared_ptr<rocksdb::Cache> cache;
  std::shared_ptr<log_watch> log = std::make_shared<log_watch>();
  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;  // the default family, then ours in their order
  database() = default;
  database(database&&) = default;
  ~database() {
    if (!db) return;
    for (auto* h : handles) db->DestroyColumnFamilyHandle(h);
    rocksdb::CancelAllBackgroundWork(db.get(), true);
    db->Close();
  }
};

class rocks_store final : public store {
 public:
  rocks_store(runtime& rt, database d, std::size_t free_reserve_bytes)
      : rt_(rt), database_(std::move(d)), db_(database_.db.get()), free_reserve_bytes_(free_reserve_bytes), home_(rt.executor()), writer_([this] { write_loop(); }) {
    pthread_setname_np(writer_.native_handle(), "grenier-log");
  }

  ~rocks_store() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    ready_.notify_all();
    writer_.join();
  }

  task<result<std::optional<bytes>>> get(family f, bytes key) override {
    // From memory first, on this thread; only a miss costs a hop to the pool.
    rocksdb::ReadOptions o;
    o.read_tier = rocksdb::kBlockCacheTier;
    rocksdb::PinnableSlice value;
    auto s = db_->Get(o, handle(f), slice(key), &value);
    if (!s.IsIncomplete()) co_return read_result(s, value);
    value.Reset();
    ++under_way_;
    auto r = co_await offload(rt_, rt_.disk_pool(), [this, f, key = std::move(key)]() -> result<std::optional<bytes>> {
      rocksdb::PinnableSlice v;
      auto st = db_->Get(rocksdb::ReadOptions(), handle(f), slice(key), &v);
      return read_result(st, v);
    });
    ended();
    co_return r;
  }

  task<result<std::vector<entry>>> scan(family f, scan_options o) override {
    // Short scans of what is in memory are collected here; what is long or needs the disk is done anew on the pool.
    collector c(o);
    std::size_t seen = 0;
    bool too_long = false;
    auto s = visit(f, o.from, o.until, [&](bytes_view k, bytes_view v) -> step {
      too_long = ++seen > home_entries_max || c.bytes_taken > home_bytes_max;
      return too_long ? step{step::kind::stop, {}} : c(k, v);
    }, true);
    if (s.ok() && !too_long) co_return std::move(c.entries);
    if (!s.ok() && !s.IsIncomplete()) co_return fail(broken(s));
    c.entries.clear();
    ++under_way_;
    auto r = co_await offload(rt_, rt_.disk_pool(), [this, f, o = std::move(o)]() -> result<std::vector<entry>> {
      collector d(o);
      auto st = visit(f, o.from, o.until, [&d](bytes_view k, bytes_view v) { return d(k, v); }, false);
      if (!st.ok()) return fail(broken(st));
      return std::move(d.entries);
    });
    ended();
    co_return r;
  }

  task<result<void>> walk(family f, bytes from, bytes until, visitor fn) override {
    // Always on the pool: a visitor that had seen half on this thread could not be asked again.
    auto shared = std::make_shared<visitor>(std::move(fn));
    ++under_way_;
    auto r = co_await offload(rt_, rt_.disk_pool(), [this, f, from = std::move(from), until = std::move(until), shared]() -> result<void> {
      auto s = visit(f, from, until, [&](bytes_view k, bytes_view v) { return (*shared)(k, v); }, false);
      if (!s.ok()) return fail(broken(s));
      return {};
    });
    ended();
    co_return r;
  }

  task<result<void>> commit(batch b) override {
    if (b.empty()) {
      b.take_undo().forget();
      co_return result<void>();
    }
    CO_TRY_VOID(check(b));
    auto w = std::make_shared<waiter>(rt_);
    auto outcome = std::make_shared<result<void>>();
    {
      std::lock_guard lock(mutex_);
      if (final_) co_return fail(*final_);
      if (stopping_) co_return fail(errc::cancelled, "stopping");
      undo_list undo = b.take_undo();
      queue_.push_back(pending(std::move(b), std::move(undo), w, outcome));
      if (queue_.size() == 1) ready_.notify_one();
    }
    ++under_way_;
    co_await w->wait(never, false);
    ended();
    co_return *outcome;
  }

  statistics stats() const override {
    statistics s;
    {
      std::lock_guard lock(mutex_);
      s.commits = commits_;
      s.batches = batches_;
    }
    {
      std::lock_guard lock(damage_mutex_);
      s.damage = damage_;
    }
    s.memory_bytes = database_.cache->GetUsage();
    for (auto* h : database_.handles) {
      std::uint64_t n = 0;
      if (db_->GetIntProperty(h, rocksdb::DB::Properties::kEstimateLiveDataSize, &n)) s.live_bytes += n;
    }
    return s;
  }

  task<void> stop() override {
    while (under_way_) co_await idle_.wait();
  }

 private:
  rocksdb::ColumnFamilyHandle* handle(family f) const {
    ASSERT(f < family::count_);
    return database_.handles[1 + static_cast<std::size_t>(f)];
  }

  void ended() {
    if (--under_way_ == 0) idle_.wake_all();
  }

  // A damaged file is found when it is read: the others' copies serve meanwhile, so nobody would notice unless it is said.
  error broken(const rocksdb::Status& s) {
    if (!s.IsCorruption()) return foreign(s);
    error e{errc::io_failed, damage(" at " + database_.path, s)};
    std::lock_guard lock(damage_mutex_);
    if (!damage_.empty()) return e;
    damage_ = e.detail;
    asio::post(home_, [&rt = rt_, text = e.detail] { rt.log(log_level::error, text); });
    return e;
  }

  result<std::optional<bytes>> read_result(const rocksdb::Status& s, const rocksdb::PinnableSlice& value) {
    if (s.IsNotFound()) return std::optional<bytes>();
    if (!s.ok()) return fail(broken(s));
    return std::optional<bytes>(bytes(value.data(), value.size()));
  }

  template <class F>
  rocksdb::Status visit(family f, const bytes& from, const bytes& until, F&& fn, bool memory_only) {
    rocksdb::ReadOptions o;
    if (memory_only) {
      o.read_tier = rocksdb::kBlockCacheTier;
      o.max_skippable_internal_keys = home_skips_max;  // removed keys count for time too; Incomplete as well
    }
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
        ready_.wait(lock, [&] { return stopping_ || (!held_ && !queue_.empty()); });
        if (queue_.empty() || held_) return;
        std::size_t size = 0;
        while (!queue_.empty() && (group.empty() || size + queue_.front().changes.size_bytes() <= batch_bytes_max)) {
          size += queue_.front().changes.size_bytes();
          group.push_back(std::move(queue_.front()));
          queue_.pop_front();
        }
      }
      write(group);
      auto failed = std::ranges::find_if(group, [](const pending& p) { return !*p.outcome; });
      if (failed != group.end()) {
        std::lock_guard lock(mutex_);
        held_ = true;  // until the home thread has taken back what it believed
      }
      const error why = failed != group.end() ? failed->outcome->error() : error();
      for (auto& p : group) p.changes = {};  // freed here, not on the home thread
      asio::post(home_, [this, why, failed = failed != group.end(), alive = std::weak_ptr(alive_), group = std::move(group)]() mutable {
        if (failed && alive.lock()) take_back(group, why);
        for (auto& p : group) {
          p.undo.forget();
          p.who->resume(true);
        }
      });
    }
  }

  // What waits may be made of what the failed ones left in memory: it fails too, last change first. (What must go on a full disk names
  // nothing that others change.)
  void take_back(std::vector<pending>& group, const error& why) {
    {
      std::lock_guard lock(mutex_);
      std::deque<pending> stay;
      for (auto& p : queue_) {
        if (why == errc::no_space && is_essential(p.changes)) {
          stay.push_back(std::move(p));
        } else {
          *p.outcome = fail(why);
          group.push_back(std::move(p));
        }
      }
      queue_ = std::move(stay);
      held_ = false;
    }
    ready_.notify_one();
    for (auto p = group.rbegin(); p != group.rend(); ++p)
      if (!*p->outcome) p->undo.run();
  }

  // One log write for all of them. Sets every outcome; the home thread reads it after the post.
  void write(const std::vector<pending>& group) {
    bool room = has_room();
    std::vector<result<void>*> in;
    rocksdb::WriteBatch wb;
    for (const auto& p : group) {
      if (final_) {  // only this thread sets it
        *p.outcome = fail(*final_);
      } else if (!room && !is_essential(p.changes)) {
        *p.outcome = fail(errc::no_space, "the disk of the row store is all but full");
      } else {
        add(p.changes, wb);
        in.push_back(p.outcome.get());
      }
    }
    if (in.empty()) return;
    rocksdb::WriteOptions wo;
    wo.sync = true;
    auto s = db_->Write(wo, &wb);
    std::lock_guard lock(mutex_);
    ++commits_;
    batches_ += in.size();
    if (s.ok()) return;
    error e = broken(s);
    // A full disk that only stopped background work touched no log: that passes when there is room again.
    if (e.code == errc::io_failed || database_.log->failed) {
      e = error(errc::io_failed, "a write to the row store failed (" + s.ToString() + "); it takes no more until it is opened again");
      final_ = e;
    }
    for (auto* o : in) *o = fail(e);
  }

  void add(const batch& b, rocksdb::WriteBatch& to) {
    for (const auto& o : b.ops()) {
      auto s = o.removal ? to.Delete(handle(o.where), slice(o.key)) : to.Put(handle(o.where), slice(o.key), slice(o.value));
      ASSERT(s.ok());  // fails only beyond sizes that check() refused
    }
  }

  bool has_room() const {
    struct statvfs v;
    if (::statvfs(database_.path.c_str(), &v) != 0) return true;  // the write itself will tell
    return static_cast<std::uint64_t>(v.f_bavail) * v.f_frsize >= free_reserve_bytes_;
  }

  runtime& rt_;
  database database_;
  rocksdb::DB* db_;
  const std::size_t free_reserve_bytes_;
  io_executor home_;
  std::size_t under_way_ = 0;  // reads on the pool and commits
  wait_list idle_{rt_};
  mutable std::mutex damage_mutex_;
  std::string damage_;  // by whichever thread met it first
  mutable std::mutex mutex_;  // for what follows, between the home thread and the writer
  std::condition_variable ready_;
  std::deque<pending> queue_;
  bool stopping_ = false;
  bool held_ = false;           // a write failed, and the home thread has not heard of it
  std::shared_ptr<bool> alive_ = std::make_shared<bool>();
  std::optional<error> final_;  // set once; nothing is written any more
  std::uint64_t commits_ = 0, batches_ = 0;
  std::thread writer_;  // last: it uses all of the above
};

rocksdb::DBOptions db_options(const database& d, std::size_t budget) {
  rocksdb::DBOptions o;
  o.create_if_missing = true;
  o.create_missing_column_families = true;
  // Every acknowledged batch was synced, so only an incomplete last record is innocent. Damage before it means that
  // acknowledged rows are gone, and must stop the node: recovery to a point in time would drop them without a word.
  o.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  // The same for a log that is missing, or shorter than it was when it was closed.
  o.track_and_verify_wals_in_manifest = true;
  o.listeners.push_back(d.log);
  o.paranoid_checks = true;
  o.max_background_jobs = 2;
  o.max_open_files = 256;
  o.max_total_wal_size = 64 << 20;
  o.info_log = std::make_shared<no_text_log>();
  o.bytes_per_sync = 1 << 20;
  o.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(budget / 2, d.cache);
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

// Files without the one that says which are current: a new database over old rows would look empty. A first manifest alone
// is what is left of a creation that was cut short.
bool lost_current(const std::string& path) {
  std::error_code ec;
  if (std::filesystem::exists(path + "/CURRENT", ec)) return false;
  for (std::filesystem::directory_iterator at(path, ec), end; !ec && at != end; at.increment(ec)) {
    std::string name = at->path().filename().string();
    if (name.ends_with(".sst") || name.ends_with(".log") || (name.starts_with("MANIFEST-") && name != "MANIFEST-000001")) return true;
  }
  return false;
}

// There is always a log after the first manifest was replaced. Without it the newest rows are gone, and RocksDB would not say so.
bool lost_log(const std::string& path) {
  std::ifstream in(path + "/CURRENT");
  std::string manifest;
  if (!std::getline(in, manifest) || manifest == "MANIFEST-000001") return false;
  std::error_code ec;
  for (std::filesystem::directory_iterator at(path, ec), end; !ec && at != end; at.increment(ec))
    if (at->path().extension() == ".log") return false;
  return !ec;
}

bool has_unknown_family(const std::string& path) {
  std::vector<std::string> names;
  if (!rocksdb::DB::ListColumnFamilies(rocksdb::DBOptions(), path, &names).ok()) return false;
  return std::ranges::any_of(names, [](const std::string& n) {
    if (n == rocksdb::kDefaultColumnFamilyName) return false;
    for (std::size_t i = 0; i < family_count; ++i)
      if (n == to_string(static_cast<family>(i))) return false;
    return true;
  });
}

std::unexpected<error> newer(const std::string& path) {
  return fail(errc::protocol, "the row store at " + path + " was written by a newer version of storaged: start that version again");
}

std::unexpected<error> open_failure(const std::string& path, const rocksdb::Status& s) {
  std::string text = s.ToString();
  if (s.IsIOError() && (text.starts_with("IO error: While lock file") || text.starts_with("IO error: lock hold by")))
    return fail(errc::already_exists, "the row store at " + path + " is in use by another process: is storaged running already?");
  if (is_no_space(s)) return fail(errc::no_space, "no space left to open the row store at " + path);
  if (s.IsInvalidArgument() && has_unknown_family(path)) return newer(path);
  if (s.IsCorruption() || s.IsNotFound() || s.IsPathNotFound()) return fail(errc::io_failed, damage(" at " + path, s));
  return fail(errc::io_failed, "the row store at " + path + " cannot be opened: " + text);
}

// The format's number: written when there is none, refused when it is above ours.
result<void> check_format(const database& d) {
  std::string format;
  auto s = d.db->Get(rocksdb::ReadOptions(), d.handles[0], format_key, &format);
  if (s.IsNotFound()) {
    bytes now;
    append_u32(now, format_now);
    rocksdb::WriteOptions wo;
    wo.sync = true;
    s = d.db->Put(wo, d.handles[0], format_key, now);
    if (!s.ok()) return open_failure(d.path, s);
    return {};
  }
  if (!s.ok()) return open_failure(d.path, s);
  if (format.size() != 4 || read_u32(format) == 0) return open_failure(d.path, rocksdb::Status::Corruption("its format number is unreadable"));
  if (read_u32(format) > format_now) return newer(d.path);
  return {};
}

}  // namespace

result<std::unique_ptr<store>> open_rocks(runtime& rt, std::string path, rocks_options ro) {
  std::error_code ec;
  std::filesystem::create_directories(path, ec);
  if (ec) return fail(errc::io_failed, "cannot make " + path + ": " + ec.message());
  if (lost_current(path)) return open_failure(path, rocksdb::Status::Corruption("the file CURRENT is missing"));
  if (lost_log(path)) return open_failure(path, rocksdb::Status::Corruption("its log is missing"));

  database d;
  d.path = path;
  d.cache = rocksdb::NewLRUCache(ro.memory_budget_bytes, 2);
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  families.emplace_back(rocksdb::kDefaultColumnFamilyName, family_options(family::meta, d.cache));
  for (std::size_t i = 0; i < family_count; ++i)
    families.emplace_back(std::string(to_string(static_cast<family>(i))), family_options(static_cast<family>(i), d.cache));
  rocksdb::DB* raw = nullptr;
  auto s = rocksdb::DB::Open(db_options(d, ro.memory_budget_bytes), path, families, &d.handles, &raw);
  if (!s.ok()) return open_failure(path, s);
  d.db.reset(raw);
  TRY_VOID(check_format(d));
  return std::unique_ptr<store>(new rocks_store(rt, std::move(d), ro.free_reserve_bytes));
}

}  // namespace grenier::kv
