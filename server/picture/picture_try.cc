// picture_try: renders the files that are named and prints a line of JSON for each: facts, renditions, times. For tests and measurements.
// usage: picture_try [--children N] [--sizes 320,640] [--webp-only|--jpeg-only] [--out DIR] [--program P] [--repeat N] [--together N] FILE...
#include <boost/asio/executor_work_guard.hpp>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "picture/picture.h"

using namespace grenier;

namespace {

struct settings {
  picture::pool_options pool;
  picture::options wants;
  std::string out;
  std::size_t repeat = 1, together = 0;
  std::vector<std::string> files;
};

// A file in pieces of a block's size, as the store gives it.
class file_source final : public picture::source {
 public:
  explicit file_source(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat s {};
    if (fd_ >= 0 && ::fstat(fd_, &s) == 0) size_ = static_cast<std::uint64_t>(s.st_size);
  }
  ~file_source() override {
    if (fd_ >= 0) ::close(fd_);
  }
  std::uint64_t size() const override { return size_; }
  task<result<shared_bytes>> next() override {
    bytes piece(1 << 20, 0);
    const auto n = ::read(fd_, piece.data(), piece.size());
    if (n < 0) co_return fail(errc::io_failed, std::strerror(errno));
    piece.resize(static_cast<std::size_t>(n));
    co_return share(std::move(piece));
  }

 private:
  int fd_;
  std::uint64_t size_ = 0;
};

nlohmann::json to_json(const picture::facts& f) {
  nlohmann::json j{{"format", picture::to_string(f.format)}, {"width", f.width}, {"height", f.height}, {"orientation", f.orientation}, {"thumbhash", to_base64(f.thumbhash)}};
  auto text = [&](const char* name, const std::string& s) {
    if (!s.empty()) j[name] = s;
  };
  auto number = [&](const char* name, const auto& n) {
    if (n) j[name] = *n;
  };
  text("taken", f.taken);
  number("offset", f.taken_offset_minutes);
  text("make", f.make);
  text("model", f.model);
  text("lens", f.lens);
  number("iso", f.iso);
  number("exposure", f.exposure_s);
  number("f_number", f.f_number);
  number("focal", f.focal_mm);
  number("latitude", f.latitude);
  number("longitude", f.longitude);
  number("altitude", f.altitude_m);
  return j;
}

class run {
 public:
  explicit run(settings s)
      : s_(std::move(s)), io_(1), clock_(io_), work_(io_, 1, "work"), rt_(io_, clock_, random_, work_, work_), host_(rt_), pool_(rt_, host_, s_.pool), group_(rt_) {
    rt_.set_log_sink([](log_level, const std::string&) {});
  }
  int all() {
    const auto start = rt_.now();
    auto guard = asio::make_work_guard(io_);
    group_.spawn("all", everything(guard));
    io_.run();
    const auto& st = pool_.stats();
    struct rusage self {};
    ::getrusage(RUSAGE_SELF, &self);
    const double wall = std::chrono::duration<double>(rt_.now() - start).count(), cpu = std::chrono::duration<double>(st.cpu).count();
    std::cout << nlohmann::json{{"summary", true}, {"pictures", st.pictures}, {"not_pictures", st.not_pictures}, {"undecodable", st.undecodable}, {"stopped", st.stopped},
                                {"errors", errors_}, {"children_started", st.children_started}, {"wall_s", wall}, {"child_cpu_s", cpu},
                                {"pool_cpu_s", static_cast<double>(self.ru_utime.tv_sec + self.ru_stime.tv_sec) + static_cast<double>(self.ru_utime.tv_usec + self.ru_stime.tv_usec) / 1e6},
                                {"child_peak_rss", st.peak_rss_bytes}, {"pool_peak_rss", self.ru_maxrss * 1024}}
                     .dump()
              << std::endl;
    return errors_ ? 1 : 0;
  }

 private:
  task<void> everything(asio::executor_work_guard<io_executor>& guard) {
    task_group rows(rt_);
    const std::size_t n = s_.together ? s_.together : s_.pool.children;
    for (std::size_t i = 0; i < n; ++i) rows.spawn("row", row());
    co_await rows.join();
    co_await pool_.stop();
    guard.reset();
  }
  task<void> row() {
    while (next_ < s_.files.size() * s_.repeat) {
      const std::string path = s_.files[next_++ % s_.files.size()];
      co_await one(path);
    }
  }
  task<void> one(std::string path) {
    file_source file(path);
    const auto start = rt_.now();
    auto got = co_await pool_.render(file, s_.wants);
    nlohmann::json j{{"file", path}, {"ms", std::chrono::duration<double, std::milli>(rt_.now() - start).count()}};
    if (!got) {
      ++errors_;
      j["error"] = got.error().to_string();
    } else if (got->what == picture::verdict::not_a_picture) {
      j["verdict"] = "not a picture";
    } else if (got->what == picture::verdict::undecodable) {
      j["verdict"] = "undecodable";
      j["reason"] = got->reason;
    } else {
      j["verdict"] = "picture";
      j["facts"] = to_json(got->facts);
      for (const auto& r : got->renditions) {
        j["renditions"].push_back({{"size", r.size}, {"type", picture::to_string(r.type)}, {"width", r.width}, {"height", r.height}, {"bytes", r.data->size()}});
        if (!s_.out.empty()) keep(path, r);
      }
    }
    std::cout << j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
  }
  void keep(const std::string& path, const picture::rendition& r) {
    std::string name = path;
    for (char& c : name)
      if (c == '/') c = '_';
    std::ofstream(s_.out + "/" + name + "." + std::to_string(r.size) + "." + std::string(picture::to_string(r.type)), std::ios::binary) << *r.data;
  }

  settings s_;
  asio::io_context io_;
  real_clock clock_;
  real_random random_;
  thread_pool work_;
  runtime rt_;
  posix_processes host_;
  picture::pool pool_;
  task_group group_;
  std::size_t next_ = 0, errors_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  settings s;
  s.pool.program = picture::default_program();
  s.pool.children = picture::default_children();
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    auto value = [&]() -> std::string { return i + 1 < argc ? argv[++i] : ""; };
    if (a == "--children") s.pool.children = std::stoul(value());
    else if (a == "--together") s.together = std::stoul(value());
    else if (a == "--repeat") s.repeat = std::stoul(value());
    else if (a == "--memory") s.pool.memory_bytes = parse_size(value()).value_or(s.pool.memory_bytes);
    else if (a == "--program") s.pool.program = value();
    else if (a == "--out") s.out = value();
    else if (a == "--webp-only") for (auto& w : s.wants.sizes) w.jpeg = false;
    else if (a == "--jpeg-only") for (auto& w : s.wants.sizes) w.webp = false;
    else if (a == "--sizes") {
      s.wants.sizes.clear();
      std::string list = value();
      for (std::size_t at = 0; at < list.size();) {
        const auto comma = std::min(list.find(',', at), list.size());
        s.wants.sizes.push_back({static_cast<std::uint16_t>(std::stoul(list.substr(at, comma - at)))});
        at = comma + 1;
      }
    } else if (a.starts_with("--")) {
      std::cerr << "picture_try: what is " << a << "?\n";
      return 2;
    } else {
      s.files.push_back(a);
    }
  }
  return s.files.empty() ? 2 : run(std::move(s)).all();
}
