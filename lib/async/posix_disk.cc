// The real disk seam: plain files, written to a temporary name, synced, renamed, and their directory synced.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "async/async.h"

namespace grenier {

namespace {

std::unexpected<error> os_failure(const std::string& what, int e) {
  errc code = e == ENOENT ? errc::not_found : e == ENOSPC || e == EDQUOT || e == EFBIG ? errc::no_space : errc::io_failed;
  return fail(code, what + ": " + std::strerror(e));
}

struct fd_guard {
  int fd = -1;
  ~fd_guard() {
    if (fd >= 0) ::close(fd);
  }
};

result<void> make_directories(const std::string& path) {
  for (std::size_t at = 1;; ++at) {
    at = path.find('/', at);
    std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) return os_failure(part, errno);
    if (at == std::string::npos) return {};
  }
}

result<void> sync_directory(const std::string& path) {
  fd_guard d{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (d.fd < 0) return os_failure(path, errno);
  if (::fsync(d.fd) != 0) return os_failure(path, errno);
  return {};
}

// Every directory on the way is synced into its parent, up to the root that open() made: also those that were there, for whoever made
// them may not have come to that yet, or have failed.
result<void> make_and_sync_directories(const std::string& root, const std::string& dir) {
  TRY_VOID(make_directories(dir));
  for (std::string d = dir; d.size() > root.size();) {
    d.resize(d.rfind('/'));
    TRY_VOID(sync_directory(d));
  }
  return {};
}

// What is above a root belongs to others: what may not be opened, or is of a kind that has no sync, was not made here.
result<void> sync_parents(const std::string& root) {
  std::string d = root.front() == '/' ? root : "./" + root;
  while (d.size() > 1 && d.find('/') != std::string::npos) {
    d.resize(std::max<std::size_t>(d.rfind('/'), d.front() == '/' ? 1 : 0));
    fd_guard f{::open(d.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (f.fd >= 0 && ::fsync(f.fd) != 0 && errno != EINVAL && errno != EROFS) return os_failure(d, errno);
  }
  return {};
}

result<void> write_all(int fd, bytes_view data, const std::string& path) {
  while (!data.empty()) {
    ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return os_failure(path, errno);
    data.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

// Large files go past the page cache: what is synced at once gains nothing there, and finding pages for it took a quarter of the
// processor time of storing 5 MiB, and most of what waiting for the disk took.
constexpr std::size_t direct_bytes_min = 128 << 10;
constexpr std::size_t direct_unit = 4096;          // what every disk takes as alignment
constexpr std::size_t staging_bytes = 1 << 20;

// Where the disk may read from: aligned, one for each thread that writes.
char* staging() {
  struct release {
    void operator()(char* p) const { ::operator delete[](p, std::align_val_t(direct_unit)); }
  };
  thread_local std::unique_ptr<char[], release> area(static_cast<char*>(::operator new[](staging_bytes, std::align_val_t(direct_unit))));
  return area.get();
}

// The pieces as one run of bytes, in whole units; the rest, or all where the file system will not have it, through the page cache.
class direct_writer {
 public:
  direct_writer(int fd, const std::string& path) : fd_(fd), path_(path) {
    int flags = ::fcntl(fd_, F_GETFL);
    direct_ = flags >= 0 && ::fcntl(fd_, F_SETFL, flags | O_DIRECT) == 0;
  }
  result<void> add(bytes_view data) {
    while (!data.empty()) {
      std::size_t n = std::min(data.size(), staging_bytes - filled_);
      std::memcpy(staging() + filled_, data.data(), n);
      filled_ += n;
      data.remove_prefix(n);
      if (filled_ == staging_bytes) TRY_VOID(flush());
    }
    return {};
  }
  // All that was added is written, not synced.
  result<void> flush() {
    std::size_t whole = filled_ / direct_unit * direct_unit, done = 0;
    while (direct_ && done < whole) {
      ssize_t n = ::write(fd_, staging() + done, whole - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno != EINVAL) return os_failure(path_, errno);
      if (n > 0) done += static_cast<std::size_t>(n);
      if (n <= 0 || done % direct_unit != 0) direct_ = false;
    }
    if (done < filled_) {
      if (int flags = ::fcntl(fd_, F_GETFL); flags < 0 || ::fcntl(fd_, F_SETFL, flags & ~O_DIRECT) != 0) return os_failure(path_, errno);
      direct_ = false;
      TRY_VOID(write_all(fd_, {staging() + done, filled_ - done}, path_));
    }
    filled_ = 0;
    return {};
  }

 private:
  int fd_;
  const std::string& path_;
  bool direct_ = false;
  std::size_t filled_ = 0;
};

result<void> write_all(int fd, const std::vector<shared_bytes>& pieces, const std::string& path) {
  std::size_t size = 0;
  for (const auto& p : pieces) size += p->size();
  if (size < direct_bytes_min) {
    for (const auto& p : pieces) TRY_VOID(write_all(fd, *p, path));
    return {};
  }
  direct_writer w(fd, path);
  for (const auto& p : pieces) TRY_VOID(w.add(*p));
  return w.flush();
}

}  // namespace

result<std::unique_ptr<posix_disk>> posix_disk::open(runtime& rt, std::string root) {
  while (root.size() > 1 && root.back() == '/') root.pop_back();
  TRY_VOID(make_directories(root));
  if (::access(root.c_str(), R_OK | W_OK | X_OK) != 0) return os_failure(root, errno);
  TRY_VOID(sync_parents(root));
  return std::unique_ptr<posix_disk>(new posix_disk(rt, std::move(root)));
}

task<result<void>> posix_disk::write_durable(std::string path, std::vector<shared_bytes> pieces) {
  std::string full = root_ + "/" + path;
  std::string temp = full + "." + std::to_string(++next_temp_) + ".tmp";
  std::string dir = full.substr(0, full.rfind('/'));
  auto r = co_await offload(rt_, rt_.disk_pool(), [this, full, temp, dir, known = synced_.contains(dir), pieces = std::move(pieces)]() -> result<void> {
    if (!known || ::access(dir.c_str(), F_OK) != 0) TRY_VOID(make_and_sync_directories(root_, dir));
    result<void> r = [&]() -> result<void> {
      fd_guard f{::open(temp.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
      if (f.fd < 0) return os_failure(temp, errno);
      TRY_VOID(write_all(f.fd, pieces, temp));
      if (::fdatasync(f.fd) != 0) return os_failure(temp, errno);
      if (::rename(temp.c_str(), full.c_str()) != 0) return os_failure(full, errno);
      return sync_directory(dir);
    }();
    if (!r) ::unlink(temp.c_str());
    return r;
  });
  if (r) synced_.insert(std::move(dir));
  co_return r;
}

task<result<bytes>> posix_disk::read(std::string path, std::uint64_t offset, std::size_t size_max) {
  co_return co_await offload(rt_, rt_.disk_pool(), [full = root_ + "/" + path, offset, size_max]() -> result<bytes> {
    fd_guard f{::open(full.c_str(), O_RDONLY | O_CLOEXEC)};
    if (f.fd < 0) return os_failure(full, errno);
    struct stat st {};
    if (::fstat(f.fd, &st) != 0) return os_failure(full, errno);
    auto size = static_cast<std::uint64_t>(st.st_size);
    std::size_t want = offset >= size ? 0 : static_cast<std::size_t>(std::min<std::uint64_t>(size - offset, size_max));
    bytes out;
    int failed = 0;
    // libstdc++ 12 hands the grown capacity to the operation, not the size asked for.
    out.resize_and_overwrite(want, [&](char* to, std::size_t) {
      std::size_t got = 0;
      while (got < want) {
        ssize_t r = ::pread(f.fd, to + got, want - got, static_cast<off_t>(offset + got));
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) failed = errno;
        if (r <= 0) break;
        got += static_cast<std::size_t>(r);
      }
      return got;
    });
    if (failed) return os_failure(full, failed);
    return out;
  });
}

task<result<std::uint64_t>> posix_disk::size(std::string path) {
  co_return co_await offload(rt_, rt_.disk_pool(), [full = root_ + "/" + path]() -> result<std::uint64_t> {
    struct stat st {};
    if (::stat(full.c_str(), &st) != 0) return os_failure(full, errno);
    return static_cast<std::uint64_t>(st.st_size);
  });
}

task<result<void>> posix_disk::remove(std::string path) {
  co_return co_await offload(rt_, rt_.disk_pool(), [full = root_ + "/" + path]() -> result<void> {
    if (::unlink(full.c_str()) != 0 && errno != ENOENT) return os_failure(full, errno);
    return {};
  });
}

task<result<std::vector<std::string>>> posix_disk::list(std::string directory) {
  co_return co_await offload(rt_, rt_.disk_pool(), [full = root_ + "/" + directory]() -> result<std::vector<std::string>> {
    std::vector<std::string> names;
    DIR* d = ::opendir(full.c_str());
    if (!d) {
      if (errno == ENOENT) return names;
      return os_failure(full, errno);
    }
    while (dirent* e = ::readdir(d))
      if (std::string_view n = e->d_name; n != "." && n != "..") names.emplace_back(n);
    ::closedir(d);
    std::sort(names.begin(), names.end());
    return names;
  });
}

task<result<disk::space>> posix_disk::free_space() {
  co_return co_await offload(rt_, rt_.disk_pool(), [root = root_]() -> result<space> {
    struct statvfs v {};
    if (::statvfs(root.c_str(), &v) != 0) return os_failure(root, errno);
    return space{static_cast<std::uint64_t>(v.f_blocks) * v.f_frsize, static_cast<std::uint64_t>(v.f_bavail) * v.f_frsize};
  });
}

}  // namespace grenier
