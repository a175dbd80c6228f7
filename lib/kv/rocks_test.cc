// What is RocksDB's own: shared syncs, kill -9, locks, damage, full disks.
#include <fcntl.h>
#include <rocksdb/db.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <fstream>

#include "kv/test_world.h"

extern char** environ;

namespace grenier::kv::testing {

namespace {
namespace fs = std::filesystem;

std::unique_ptr<store> must_open(world& w, const std::string& path, rocks_options o = {}) {
  auto s = open_rocks(w.rt, path, o);
  if (!s) FAIL(s.error().to_string());
  return std::move(*s);
}

// Every file with this ending, oldest first.
std::vector<fs::path> files(const std::string& directory, std::string_view ending) {
  std::vector<fs::path> all;
  for (const auto& e : fs::directory_iterator(directory))
    if (e.path().filename().string().ends_with(ending)) all.push_back(e.path());
  std::ranges::sort(all);
  return all;
}

void scribble(const fs::path& file, std::uintmax_t at) {
  std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
  f.seekp(static_cast<std::streamoff>(at));
  f.write("\xff\xff\xff\xff", 4);
}

void is_damaged(world& w, const std::string& path) {
  auto r = open_rocks(w.rt, path);
  REQUIRE(r.failed_with(errc::io_failed));
  CHECK(r.error().detail.find("damaged") != std::string::npos);
  CHECK(r.error().detail.find("newcomer") != std::string::npos);
}

task<void> write_rows(store& s, int count, std::size_t size) {
  for (int i = 0; i < count; ++i) REQUIRE(co_await s.commit(put_one(family::row, "row " + std::to_string(i), bytes(size, 'r'))));
}
// More than the memtable of `body` holds: makes tables and starts new logs.
task<void> write_bodies(store& s, int count) {
  for (int i = 0; i < count; ++i) REQUIRE(co_await s.commit(put_one(family::body, "body " + std::to_string(i), bytes(1 << 20, 'b'))));
}

task<void> committer(store& s, int& left) {
  for (int i = 0; i < 8; ++i) CHECK(co_await s.commit(put_one(family::row, std::to_string(left * 100 + i), "v")));
  --left;
}
task<void> committers(world& w, store& s, int n) {
  int left = n;
  for (int i = 0; i < n; ++i) w.group.spawn("one", committer(s, left));
  while (left) co_await sleep_for(w.rt, 1ms);
}

// The child's work: number after number, each told to the parent when it is durable.
task<void> tell_what_is_durable(store& s, int lane) {
  for (std::uint32_t i = 0;; ++i) {
    bytes key = std::to_string(lane) + "/" + std::to_string(i);
    batch b;
    b.put(family::row, key, "v");
    b.put(i % 2 ? family::body : family::reference, key, bytes(60000, 'b'));
    if (!co_await s.commit(std::move(b))) ::_exit(1);
    bytes line = key + "\n";
    if (::write(1, line.data(), line.size()) != static_cast<ssize_t>(line.size())) ::_exit(1);
  }
}

// Runs this program as a child on `path`, kills it after some committed lines, returns them.
std::vector<bytes> killed_child(const std::string& path, std::size_t lines_min) {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  std::string setting = "GRENIER_KV_CHILD=" + path;
  std::vector<char*> environment{setting.data()};
  for (char** e = environ; *e; ++e) environment.push_back(*e);
  environment.push_back(nullptr);
  char self[] = "/proc/self/exe";
  char* words[] = {self, nullptr};
  pid_t child = 0;
  REQUIRE(::posix_spawn(&child, self, &actions, nullptr, words, environment.data()) == 0);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  bytes text;
  bool alive = true;
  for (char buffer[65536];;) {
    ssize_t n = ::read(ends[0], buffer, sizeof buffer);
    if (n <= 0) break;
    text.append(buffer, static_cast<std::size_t>(n));
    if (alive && static_cast<std::size_t>(std::ranges::count(text, '\n')) >= lines_min) {
      ::kill(child, SIGKILL);
      alive = false;  // what it had told before still comes
    }
  }
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  std::vector<bytes> lines;
  for (std::size_t at = 0, end; (end = text.find('\n', at)) != bytes::npos; at = end + 1) lines.push_back(text.substr(at, end - at));
  return lines;
}

task<void> all_there(store& s, const std::vector<bytes>& keys) {
  std::size_t lost = 0;
  for (const auto& k : keys) {
    auto row = co_await s.get(family::row, k);
    auto body = co_await s.get(family::body, k), reference = co_await s.get(family::reference, k);
    REQUIRE((row && body && reference));
    lost += !row->has_value() || body->has_value() == reference->has_value();
  }
  CHECK(lost == 0);
}

}  // namespace

int child_main(const char* path) {
  world w;
  auto s = open_rocks(w.rt, path);
  if (!s) return 1;
  for (int lane = 0; lane < 8; ++lane) w.group.spawn("lane", tell_what_is_durable(**s, lane));
  auto guard = asio::make_work_guard(w.io);
  w.io.run();
  return 0;
}

TEST_CASE("64 committers share syncs") {
  world w;
  temporary t;
  auto s = must_open(w, t.path);
  w.run(committers(w, *s, 64));
  auto n = s->stats();
  CHECK(n.batches == 64 * 8);
  CHECK(n.commits <= 64 * 8 / 8);
  MESSAGE("batches " << n.batches << ", syncs " << n.commits);
}

TEST_CASE("kill -9 loses nothing that was acknowledged") {
  world w;
  temporary t;
  for (std::size_t round = 0; round < 4; ++round) {
    auto told = killed_child(t.path, 50 + 150 * round);
    CHECK(told.size() >= 50 + 150 * round);
    auto s = must_open(w, t.path);
    w.run(all_there(*s, told));
  }
}

TEST_CASE("a store in use is refused, here and from another process") {
  world w;
  temporary t;
  {
    auto s = must_open(w, t.path);
    auto second = open_rocks(w.rt, t.path);
    CHECK(second.failed_with(errc::already_exists));
    CHECK(second.error().detail.find("in use") != std::string::npos);
  }
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  std::string lock = t.path + "/LOCK";
  pid_t holder = ::fork();
  if (holder == 0) {  // system calls only: the other threads were not copied
    int fd = ::open(lock.c_str(), O_RDWR);
    struct flock all = {};
    all.l_type = F_WRLCK;
    char c = ::fcntl(fd, F_SETLK, &all) == 0 ? 'y' : 'n';
    if (::write(ready[1], &c, 1) == 1) ::pause();
    ::_exit(0);
  }
  char c = 0;
  REQUIRE(::read(ready[0], &c, 1) == 1);
  CHECK(c == 'y');
  CHECK(open_rocks(w.rt, t.path).failed_with(errc::already_exists));
  ::kill(holder, SIGKILL);
  ::waitpid(holder, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  must_open(w, t.path);
}

TEST_CASE("a log torn at its end is fine, one damaged before it is not") {
  world w;
  temporary t;
  w.run(write_rows(*must_open(w, t.path), 200, 100));
  auto log = files(t.path, ".log").back();
  auto size = fs::file_size(log);
  {  // the last record was being written when the power went
    fs::resize_file(log, size - 20);
    auto s = must_open(w, t.path);
    w.run(has(*s, family::row, "row 198", bytes(100, 'r')));
    w.run(has(*s, family::row, "row 199", std::nullopt));
    w.run(write_rows(*s, 200, 100));
  }
  log = files(t.path, ".log").back();
  scribble(log, fs::file_size(log) / 2);
  is_damaged(w, t.path);
}

TEST_CASE("a missing log, table or CURRENT is damage") {
  world w;
  temporary t, kept;
  kept.path += "-kept";
  {
    auto s = must_open(w, t.path);
    w.run(write_rows(*s, 10, 100));  // stays in the first log, in memory
    w.run(write_bodies(*s, 12));
  }
  REQUIRE(files(t.path, ".log").size() >= 2);
  REQUIRE(!files(t.path, ".sst").empty());
  fs::copy(t.path, kept.path, fs::copy_options::recursive);
  auto restore = [&] {
    fs::remove_all(t.path);
    fs::copy(kept.path, t.path, fs::copy_options::recursive);
  };
  must_open(w, t.path);

  restore();
  fs::remove(files(t.path, ".log").front());
  is_damaged(w, t.path);
  restore();
  fs::resize_file(files(t.path, ".log").front(), fs::file_size(files(t.path, ".log").front()) / 2);
  is_damaged(w, t.path);
  restore();
  fs::remove(files(t.path, ".sst").front());
  is_damaged(w, t.path);
  restore();
  fs::resize_file(files(t.path, ".sst").front(), 1000);
  is_damaged(w, t.path);
  restore();
  fs::remove(t.path + "/CURRENT");
  is_damaged(w, t.path);
  restore();
  std::ofstream(t.path + "/CURRENT", std::ios::trunc) << "nonsense";
  is_damaged(w, t.path);

  // A first start that was cut short before there was anything is none.
  fs::remove_all(t.path);
  fs::create_directories(t.path);
  std::ofstream(t.path + "/MANIFEST-000001") << "half";
  must_open(w, t.path);
}

TEST_CASE("a damaged table is never read as rows") {
  world w;
  temporary t;
  w.run(write_bodies(*must_open(w, t.path), 12));
  auto table = files(t.path, ".sst").front();
  scribble(table, fs::file_size(table) / 2);
  auto s = must_open(w, t.path);
  auto all = [](store& rows) -> task<void> {
    auto r = co_await rows.scan(family::body, {.bytes_max = 64 << 20});
    REQUIRE(r.failed_with(errc::io_failed));
    CHECK(r.error().detail.find("damaged") != std::string::npos);
  };
  w.run(all(*s));
}

TEST_CASE("a store of before the feed of changes is opened, and has that family then") {
  world w;
  temporary t;
  must_open(w, t.path);
  {
    std::vector<std::string> names;
    REQUIRE(rocksdb::DB::ListColumnFamilies({}, t.path, &names).ok());
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const auto& n : names) families.emplace_back(n, rocksdb::ColumnFamilyOptions());
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    REQUIRE(rocksdb::DB::Open({}, t.path, families, &handles, &db).ok());
    for (std::size_t i = 0; i < names.size(); ++i)
      if (names[i] == "feed") REQUIRE(db->DropColumnFamily(handles[i]).ok());
    for (auto* h : handles) db->DestroyColumnFamilyHandle(h);
    delete db;
  }
  auto s = must_open(w, t.path);
  w.run(commit_gives(*s, put_one(family::feed, "x", "y"), std::nullopt));
  w.run(has(*s, family::feed, "x", "y"));
}

TEST_CASE("what a newer version wrote is refused, not called damaged") {
  world w;
  temporary t;
  must_open(w, t.path);
  auto change = [&](std::string family_name, bytes format) {
    std::vector<std::string> names;
    REQUIRE(rocksdb::DB::ListColumnFamilies({}, t.path, &names).ok());
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const auto& n : names) families.emplace_back(n, rocksdb::ColumnFamilyOptions());
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    REQUIRE(rocksdb::DB::Open({}, t.path, families, &handles, &db).ok());
    if (!format.empty()) CHECK(db->Put({}, "format", format).ok());
    if (!family_name.empty()) {
      rocksdb::ColumnFamilyHandle* h = nullptr;
      CHECK(db->CreateColumnFamily({}, family_name, &h).ok());
      handles.push_back(h);
    }
    for (auto* h : handles) db->DestroyColumnFamilyHandle(h);
    delete db;
  };
  auto refused = [&] {
    auto r = open_rocks(w.rt, t.path);
    REQUIRE(r.failed_with(errc::protocol));
    CHECK(r.error().detail.find("newer") != std::string::npos);
  };
  bytes now, next;
  append_u32(now, 1);
  append_u32(next, 2);
  change("", next);
  refused();
  change("", now);
  must_open(w, t.path);
  change("", "odd");
  is_damaged(w, t.path);
  change("", now);
  change("of_the_future", "");
  refused();
}

TEST_CASE("without room new rows are refused, while reads, removals and the node's own state go on") {
  world w;
  temporary t;
  w.run(write_rows(*must_open(w, t.path), 2, 10));
  auto s = must_open(w, t.path, {.free_reserve_bytes = std::size_t(1) << 60});
  w.run(commit_gives(*s, put_one(family::row, "row 2", "x"), errc::no_space));
  w.run(has(*s, family::row, "row 2", std::nullopt));
  w.run(has(*s, family::row, "row 1", bytes(10, 'r')));
  batch removal;
  removal.remove(family::row, "row 0");
  w.run(commit_gives(*s, std::move(removal), std::nullopt));
  w.run(commit_gives(*s, put_one(family::meta, "start", "2"), std::nullopt));
  batch mixed = put_one(family::meta, "start", "3");
  mixed.put(family::row, "row 2", "x");
  w.run(commit_gives(*s, std::move(mixed), errc::no_space));
  w.run(has(*s, family::meta, "start", "2"));
}

TEST_CASE("after a failed write nothing is written any more, reads go on") {
  world w;
  temporary t;
  {
    auto s = must_open(w, t.path);
    w.run(write_rows(*s, 5, 100));
    // The log meets the limit of a file's size: a write that really fails.
    struct rlimit before;
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    auto handler = ::signal(SIGXFSZ, SIG_IGN);
    struct rlimit tight = before;
    tight.rlim_cur = fs::file_size(files(t.path, ".log").back()) + 1000;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &tight) == 0);
    w.run(commit_gives(*s, put_one(family::row, "too much", bytes(200000, 'x')), errc::io_failed));
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    ::signal(SIGXFSZ, handler);
    w.run(commit_gives(*s, put_one(family::row, "small", "x"), errc::io_failed));
    w.run(has(*s, family::row, "row 4", bytes(100, 'r')));
    w.run(has(*s, family::row, "too much", std::nullopt));
  }
  auto s = must_open(w, t.path);
  w.run(has(*s, family::row, "row 4", bytes(100, 'r')));
  w.run(has(*s, family::row, "small", std::nullopt));
  w.run(commit_gives(*s, put_one(family::row, "small", "x"), std::nullopt));
}

// Two of them do not go to the log in one write.
batch large(const bytes& key) {
  batch b;
  for (int i = 0; i < 3; ++i) b.put(family::row, key + std::to_string(i), bytes(14 << 20, 'x'));
  return b;
}

TEST_CASE("a batch behind one that found no room fails too, and is taken back first; what only removes goes on") {
  world w;
  temporary t;
  w.run(write_rows(*must_open(w, t.path), 2, 10));
  auto s = must_open(w, t.path, {.free_reserve_bytes = std::size_t(1) << 60});
  fates f{w, *s};
  f.commit(large("a"), "a");
  f.commit(large("b"), "b");
  batch removal;
  removal.remove(family::row, "row 0");
  f.commit(std::move(removal), "c");
  f.wait();
  CHECK(f.log == "undo b;undo a;failed a;failed b;done c;");
  w.run(has(*s, family::row, "row 0", std::nullopt));
  w.run(has(*s, family::row, "b0", std::nullopt));
}

TEST_CASE("a batch behind one whose write failed fails too, and is taken back first") {
  world w;
  temporary t;
  {
    auto s = must_open(w, t.path);
    w.run(write_rows(*s, 1, 100));
    struct rlimit before;
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    auto handler = ::signal(SIGXFSZ, SIG_IGN);
    struct rlimit tight = before;
    tight.rlim_cur = fs::file_size(files(t.path, ".log").back()) + 1000;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &tight) == 0);
    fates f{w, *s};
    f.commit(large("a"), "a");
    f.commit(large("b"), "b");
    f.commit(put_one(family::meta, "c", "1"), "c");
    f.wait();
    CHECK(f.log == "undo c;undo b;undo a;failed a;failed b;failed c;");
    f.commit(put_one(family::meta, "d", "1"), "d");
    f.wait();
    CHECK(f.log == "undo c;undo b;undo a;failed a;failed b;failed c;undo d;failed d;");
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    ::signal(SIGXFSZ, handler);
  }
  auto s = must_open(w, t.path);
  for (const char* key : {"a0", "b0"}) w.run(has(*s, family::row, key, std::nullopt));
  w.run(has(*s, family::meta, "c", std::nullopt));
}

}  // namespace grenier::kv::testing
