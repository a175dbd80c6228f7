// The daemon: settings, sockets and signals around storaged::node.
#include <fcntl.h>
#include <malloc.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <boost/asio/signal_set.hpp>

#include <cmath>
#include <cstdio>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <set>

#include "admin/control.h"
#include "admin/galleries.h"
#include "gallery/wishes.h"
#include "gallery/worker.h"
#include "s3-gateway/gateway.h"
#include "storaged/addresses.h"
#include "storaged/config.h"
#include "storaged/node.h"
#include "web/web.h"

namespace grenier::storaged {

namespace {

constexpr int exit_failed = 1, exit_usage = 2;
constexpr nanoseconds stop_time = 4500ms;  // of the 5 s that a service manager is promised

std::optional<std::string> environment(const std::string& name) {
  const char* v = std::getenv(name.c_str());
  return v ? std::optional<std::string>(v) : std::nullopt;
}

void log_line(bool json_form, log_level l, const std::string& message) {
  constexpr const char* names[] = {"trace", "debug", "info", "warning", "error"};
  const char* level = names[static_cast<std::size_t>(l)];
  std::time_t now = std::time(nullptr);
  std::tm tm{};
  ::gmtime_r(&now, &tm);
  char stamp[32];
  std::strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &tm);
  if (json_form)
    std::fprintf(stderr, "%s\n", nlohmann::json{{"time", stamp}, {"level", level}, {"message", message}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  else
    std::fprintf(stderr, "%s %-7s %s\n", stamp, level, message.c_str());
}

// Held for the life of the process: one storaged a data directory.
result<int> lock_directory(const std::string& dir) {
  std::string made;
  for (std::size_t at = 1; at != std::string::npos;) {
    at = dir.find('/', at + 1);
    made = dir.substr(0, at);
    if (::mkdir(made.c_str(), 0700) != 0 && errno != EEXIST && errno != EISDIR)
      return fail(errc::io_failed, "cannot make the data directory " + made + ": " + std::strerror(errno) + " (choose another one with --data-dir)");
  }
  struct stat what {};
  if (::stat(dir.c_str(), &what) == 0 && !S_ISDIR(what.st_mode))
    return fail(errc::io_failed, "the data directory " + dir + " is a file (choose another one with --data-dir)");
  if (::access(dir.c_str(), R_OK | W_OK | X_OK) != 0)
    return fail(errc::io_failed, "the data directory " + dir + " is not writable: " + std::strerror(errno) + " (choose another one with --data-dir, or change its owner)");
  int fd = ::open((dir + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return fail(errc::io_failed, dir + "/lock: " + std::strerror(errno));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd);
    return fail(errc::already_exists, "the data directory " + dir + " is in use by another storaged (each needs a directory of its own: --data-dir)");
  }
  return fd;
}

// 80 % of what is free, in round numbers.
std::uint64_t default_capacity(const std::string& dir) {
  struct statvfs v {};
  if (::statvfs(dir.c_str(), &v) != 0) return 0;
  std::uint64_t free = static_cast<std::uint64_t>(v.f_bavail) * v.f_frsize / 10 * 8;
  return free / 100'000'000 * 100'000'000;
}

constexpr const char* no_zone = "say which home this is: storaged --zone home-lyon ('storaged --help' tells the rest)";

class daemon {
 public:
  explicit daemon(config c) : config_(std::move(c)), io_(1), clock_(io_), cpu_(io_, 2, "grenier-cpu"), disk_(io_, 4, "grenier-disk"), rt_(io_, clock_, random_, cpu_, disk_), net_(rt_), main_(rt_), signals_(io_, SIGTERM, SIGINT) {
    log_level l = config_.log_level == "debug" ? log_level::debug : config_.log_level == "warning" ? log_level::warning : config_.log_level == "error" ? log_level::error : log_level::info;
    rt_.set_log_level(l);
    bool json_form = config_.log_format == "json";
    rt_.set_log_sink([json_form](log_level level, const std::string& m) { log_line(json_form, level, m); });
  }

  int run() {
    signals_.async_wait([this](boost::system::error_code ec, int) {
      if (!ec) begin_stop();
    });
    main_.spawn("start", start());
    io_.run();
    return exit_code_;
  }

 private:
  void begin_stop() {
    if (std::exchange(stopping_, true)) return;
    if (exit_code_ == 0) rt_.log(log_level::info, "stopping");
    // Whatever hangs is cut off: what was acknowledged is on disk already.
    clock_.call_at(rt_.now() + stop_time, [this] { std::_Exit(exit_code_); });
    stopper_.spawn("stop", stop());
  }

  task<void> start() {
    if (auto r = co_await bring_up(); !r) {
      std::fprintf(stderr, "storaged: %s\n", r.error().detail.empty() ? std::string(to_string(r.error().code)).c_str() : r.error().detail.c_str());
      exit_code_ = r.failed_with(errc::invalid_argument) ? exit_usage : exit_failed;
      // Not from within the task that the stop cancels.
      clock_.call_at(rt_.now(), [this] { begin_stop(); });
    }
  }

  task<result<void>> check_ports() {
    for (const auto& [what, address] : {std::pair<const char*, std::string>{"S3", config_.s3_listen}, {"web", config_.web_listen}, {"admin", config_.admin_listen}, {"RPC", config_.rpc_listen}}) {
      auto l = net_.listen(address);
      if (!l) co_return fail(l.error().code, std::string(what) + " port: " + l.error().detail + " (--" + (std::string(what) == "RPC" ? "rpc" : std::string(what) == "S3" ? "s3" : what) + "-listen sets it)");
    }
    co_return result<void>();
  }

  task<result<void>> bring_up() {
    CO_TRY_VOID(co_await check_ports());
    kv::rocks_options ro;
    ro.memory_budget_bytes = config_.memory_bytes / 4;
    CO_TRY(rows_, kv::open_rocks(rt_, config_.data_dir + "/rows", ro));
    CO_TRY_VOID(co_await know_zone());
    std::vector<block::drive> drives;
    CO_TRY(auto first, posix_disk::open(rt_, config_.data_dir + "/blocks"));
    drives.push_back({std::move(first), own_capacity_});
    for (const auto& d : config_.drives) {
      CO_TRY(auto more, co_await open_drive(d));
      drives.push_back(std::move(more));
    }
    CO_TRY(auto options, make_options(drives));
    node_ = std::make_unique<node>(rt_, net_, *rows_, std::move(drives), std::move(options));
    CO_TRY_VOID(co_await node_->start());
    gateway_ = std::make_unique<s3::gateway>(rt_, node_->store(), s3::gateway::options{config_.s3_domain, config_.region});
    wishes_ = std::make_unique<gallery::wishes>(rt_, node_->store(), node_->tables(), node_->directory(), node_->wire());
    web::options wo;
    wo.domain = config_.web_domain;
    wo.looked_for = [this](const model::bucket& pages, std::string_view key, bool there) { wishes_->looked_for(pages, key, there); };
    sites_ = std::make_unique<web::host>(rt_, node_->store(), std::move(wo));
    control_ = std::make_unique<admin::control>(rt_, *node_, [this] { return gauges(); });
    if (renders_) {
      picture::pool_options po;
      po.program = picture::default_program();
      po.children = config_.render_cpus ? static_cast<std::size_t>(*config_.render_cpus) : picture::default_children();
      po.memory_bytes = config_.render_memory_bytes;
      po.picture_memory_bytes = config_.render_picture_memory_bytes;
      gallery::worker::options go;
      go.photos_at_once = po.children + 2;  // one is read while the others are decoded, and one is quick
      pictures_ = std::make_unique<picture::pool>(rt_, processes_, std::move(po));
      gallery_ = std::make_unique<gallery::worker>(rt_, *rows_, node_->store(), node_->tables(), node_->directory(), node_->wire(), *pictures_, go);
      gallery_->start();
    } else if (config_.render_pictures) {
      rt_.log(log_level::warning, "grenier-picture was not found: this home renders no pictures for galleries");
    }
    galleries_ = std::make_unique<admin::galleries>(rt_, *node_, gallery_.get(), [this](const std::string& name) { return site_of(name); });
    control_->add_commands("gallery", [this](std::string what, nlohmann::json in) { return galleries_->run(std::move(what), std::move(in)); });
    CO_TRY_VOID(serve("S3", config_.s3_listen, [this](http::exchange& x) { return node_->removed() ? turn_away(x, true) : gateway_->handle(x); }));
    CO_TRY_VOID(serve("web", config_.web_listen, [this](http::exchange& x) { return node_->removed() ? turn_away(x, false) : sites_->handle(x); }));
    CO_TRY_VOID(serve("admin", config_.admin_listen, [this](http::exchange& x) { return control_->handle_admin(x); }));
    CO_TRY_VOID(serve("control", "unix:" + config_.data_dir + "/control.sock", [this](http::exchange& x) { return control_->handle_command(x); }));
    main_.spawn("load", keep_load());
    control_->set_serving(true);
    greet();
    co_return result<void>();
  }

  // How busy this machine is, for others to see: processes that want a processor, to one of them.
  task<void> keep_load() {
    for (;;) {
      double load[1] = {};
      auto card = node_->directory().self_information();
      const double cores = std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN));
      if (::getloadavg(load, 1) == 1) card.load = std::min(std::round(load[0] / cores * 20) / 20, 100.0);
      node_->directory().set_self(std::move(card));
      co_await sleep_for(rt_, 5s);
    }
  }

  // The zone is given at the first start; later it may be left out.
  task<result<void>> know_zone() {
    CO_TRY(auto kept, co_await rows_->get(kv::family::meta, "node/zone"));
    if (config_.zone.empty() && !kept)
      co_return fail(errc::invalid_argument, no_zone);
    if (config_.zone.empty()) config_.zone = *kept;
    if (kept && *kept != config_.zone)
      rt_.log(log_level::warning, "this home was called '" + *kept + "' and is '" + config_.zone + "' from now on: that moves it to another zone, and what lies where may change");
    if (!kept || *kept != config_.zone) {
      kv::batch b;
      b.put(kv::family::meta, "node/zone", config_.zone);
      CO_TRY_VOID(co_await rows_->commit(std::move(b)));
    }
    CO_TRY(auto size, co_await rows_->get(kv::family::meta, "node/capacity"));
    if (config_.capacity_bytes)
      own_capacity_ = *config_.capacity_bytes;
    else if (size && size->size() == 8)
      own_capacity_ = read_u64(*size);
    else
      own_capacity_ = default_capacity(config_.data_dir);
    kv::batch b;
    bytes n;
    append_u64(n, own_capacity_);
    b.put(kv::family::meta, "node/capacity", n);
    co_return co_await rows_->commit(std::move(b));
  }

  // One directory under two names, or of two homes, would have each block of it looked for at two places, and the one of them freed as a
  // second copy: a lock on the directory itself knows it under every name. Where the file system has no locks, its number does.
  result<void> take_drive(const std::string& path, const struct stat& there) {
    struct stat own {};
    const bool is_own = ::stat((config_.data_dir + "/blocks").c_str(), &own) == 0 && own.st_dev == there.st_dev && own.st_ino == there.st_ino;
    if (is_own) return fail(errc::invalid_argument, "the drive " + path + " is where this home keeps its blocks anyway: leave it out, or set --capacity");
    if (!drives_taken_.insert({there.st_dev, there.st_ino}).second) return fail(errc::invalid_argument, "the drive " + path + " is named twice, under two names: leave one out");
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail(errc::io_failed, "the drive " + path + ": " + std::strerror(errno));
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(fd);
      return fail(errc::already_exists, "the drive " + path + " is in use by another storaged: give each home a directory of its own");
    }
    return {};  // held until the process ends
  }

  // A drive keeps the capacity that it was first given: what is free later is not what it may hold. One that was in use and is
  // empty now is not mounted, and what lies beneath its directory is another disk.
  task<result<block::drive>> open_drive(drive_setting d) {
    const bytes row = "node/drive/" + d.path, marker = "grenier-drive";
    CO_TRY(auto kept, co_await rows_->get(kv::family::meta, row));
    // A name that is not there is mistyped, or a disk that is not mounted.
    struct stat there {};
    if (::stat(d.path.c_str(), &there) != 0 || !S_ISDIR(there.st_mode))
      co_return fail(errc::io_failed, "the drive " + d.path + " is no directory: " + (errno == ENOENT ? "mount it, or make it, and start again" : std::strerror(errno)));
    if (::access(d.path.c_str(), R_OK | W_OK | X_OK) != 0) co_return fail(errc::io_failed, "the drive " + d.path + " is not writable: " + std::strerror(errno) + " (it has to belong to the user that runs storaged)");
    CO_TRY(auto disk, posix_disk::open(rt_, d.path));
    CO_TRY_VOID(take_drive(d.path, there));
    auto mark = co_await disk->size(marker);
    if (kept && mark.failed_with(errc::not_found))
      co_return fail(errc::io_failed, "the drive " + d.path + " held blocks of this home, and is empty now: mount it and start again; or take it out of the "
                                      "configuration (its blocks are then fetched from the other homes)");
    if (!mark && !mark.failed_with(errc::not_found)) co_return fail(mark.error().code, "the drive " + d.path + ": " + mark.error().detail);
    if (!mark) {
      auto content = std::make_shared<const bytes>("A drive of the Grenier home " + config_.zone + ". This file tells that it is mounted.\n");
      CO_TRY_VOID(co_await disk->write_durable(marker, {content}));
    }
    std::uint64_t capacity = d.capacity_bytes ? *d.capacity_bytes : kept && kept->size() == 8 ? read_u64(*kept) : default_capacity(d.path);
    kv::batch b;
    bytes n;
    append_u64(n, capacity);
    b.put(kv::family::meta, row, n);
    CO_TRY_VOID(co_await rows_->commit(std::move(b)));
    co_return block::drive{std::move(disk), capacity};
  }

  result<node_options> make_options(const std::vector<block::drive>& drives) {
    node_options o;
    o.zone = config_.zone;
    o.data_dir = config_.data_dir;
    o.rpc_listen = config_.rpc_listen;
    o.rpc_public = config_.rpc_public;
    if (o.rpc_public.empty()) {
      o.find_rpc_public = [listen = config_.rpc_listen] { return reachable_addresses(listen); };
      o.rpc_public = o.find_rpc_public();
    }
    for (const auto& d : drives) o.capacity_bytes += d.capacity_bytes;
    if (!config_.join.empty()) o.join = config_.join;
    o.upload_limit = config_.upload_limit;
    o.download_limit = config_.download_limit;
    auto port = [](const std::string& a) { return static_cast<std::uint16_t>(std::atoi(a.c_str() + a.rfind(':') + 1)); };
    o.services = {{"s3", port(config_.s3_listen)}, {"web", port(config_.web_listen)}};
    renders_ = config_.render_pictures && o.capacity_bytes && !picture::default_program().empty();
    if (renders_) o.services[gallery::thumb_hub] = port(config_.rpc_listen);
    for (const auto& role : {gallery::photo_hub, gallery::meta_hub, gallery::web_ui}) o.services[role] = port(config_.web_listen);
    if (o.capacity_bytes) o.services["storage"] = port(config_.rpc_listen);
    o.block.memory_budget_bytes = config_.memory_bytes / 6;
    o.store.memory_budget_bytes = config_.memory_bytes / 4;
    o.store.visited_bytes = config_.web_cache_bytes;
    o.store.staleness = seconds(config_.web_staleness_s);
    return o;
  }

  result<void> serve(const char* what, const std::string& address, http::handler h) {
    http::options o;
    o.listen = address;
    auto s = http::make_server(rt_, net_, o, std::move(h));
    if (auto r = s->start(); !r) return fail(r.error().code, std::string(what) + ": " + r.error().detail);
    servers_.push_back(std::move(s));
    return {};
  }

  // What a home that was removed from its cluster holds is old: its clients are told to ask another one.
  task<void> turn_away(http::exchange& x, bool s3) {
    constexpr const char* why = "This home was removed from its cluster. Use another home.";
    http::headers h;
    h.add("Content-Type", s3 ? "application/xml" : "text/plain; charset=utf-8");
    (void)co_await x.send({503, h, s3 ? "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>ServiceUnavailable</Code><Message>" + std::string(why) + "</Message></Error>" : std::string(why) + "\n"});
  }

  admin::gauges gauges() const {
    admin::gauges g;
    for (const auto& c : gateway_->counts()) g.values["grenier_s3_requests_total{operation=" + c.operation + ",status=" + std::to_string(c.status) + "}"] = static_cast<double>(c.requests);
    for (const auto& [status, n] : sites_->stats().by_status) g.values["grenier_web_requests_total{status=" + std::to_string(status) + "}"] = static_cast<double>(n);
    return g;
  }

  std::string site_of(const std::string& name) const {
    const std::string web = for_people(config_.web_listen);
    const auto port = web.substr(web.rfind(':'));
    return "http://" + name + (name.find('.') == std::string::npos ? "." + config_.web_domain : "") + (port == ":80" ? "" : port) + "/";
  }

  static std::string for_people(const std::string& address) {
    auto colon = address.rfind(':');
    std::string host = address.substr(0, colon);
    if (host.empty() || host == "0.0.0.0" || host == "[::]" || host == "*") host = "localhost";
    return host + address.substr(colon);
  }

  // A journal is kept, and read by many: a secret has no place there.
  // (systemd.exec(5): JOURNAL_STREAM is the device and inode of that stream.)
  static bool write_to_journal() {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat out {};
    return stream && ::fstat(STDOUT_FILENO, &out) == 0 && std::to_string(out.st_dev) + ":" + std::to_string(out.st_ino) == stream;
  }

  void keep_first_key(const auto& k) {
    std::string path = config_.data_dir + "/first-key", text = "AWS_ACCESS_KEY_ID=" + k.id + "\nAWS_SECRET_ACCESS_KEY=" + k.secret + "\n";
    int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool kept = fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    if (fd >= 0) ::close(fd);
    std::printf(kept ? "\nThe first access key is in %s (delete the file when you have it).\n" : "\nThe first access key could not be written to %s: make another one with 'storagectl key create NAME'.\n", path.c_str());
  }

  // How storagectl is called for this home.
  std::string storagectl(const std::string& command) const {
    const bool plain = config_.data_dir == default_data_dir(::geteuid() == 0, environment);
    return "storagectl " + (plain ? "" : "--data-dir " + config_.data_dir + " ") + command;
  }

  void greet() {
    std::string s3 = for_people(config_.s3_listen), web = for_people(config_.web_listen);
    std::string web_port = web.substr(web.rfind(':')), s3_port = s3.substr(s3.rfind(':'));
    std::printf("Grenier %s: home \"%s\" is ready%s.\n\n", GRENIER_VERSION, config_.zone.c_str(),
                node_->joined() ? " and has joined the cluster" : node_->founded() ? " (a new cluster of one home)" : "");
    std::printf("  S3      http://%s   (also http://BUCKET.%s%s)\n", s3.c_str(), config_.s3_domain.c_str(), s3_port.c_str());
    std::printf("  sites   http://BUCKET.%s%s\n", config_.web_domain.c_str(), web_port.c_str());
    std::printf("  homes   %s\n", config_.rpc_listen.c_str());
    std::printf("  admin   http://%s/health and /metrics\n", for_people(config_.admin_listen).c_str());
    std::printf("  data    %s, offering %s\n", config_.data_dir.c_str(), node_->options().capacity_bytes ? format_size(node_->options().capacity_bytes).c_str() : "nothing (a gateway)");
    if (const auto& k = node_->made_key()) {
      if (write_to_journal())
        keep_first_key(*k);
      else
        std::printf("\nThe first access key (the secret is shown this once):\n\n  access key id      %s\n  secret access key  %s\n", k->id.c_str(), k->secret.c_str());
      if (!write_to_journal()) std::printf("\nTo try it:\n\n  export AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s AWS_DEFAULT_REGION=%s\n  aws --endpoint-url http://%s s3 mb s3://photos\n",
                  k->id.c_str(), k->secret.c_str(), config_.region.c_str(), s3.c_str());
      std::printf("\nTo add a second home: '%s' here, then 'storaged --zone home-paris --join LINE' there.\n", storagectl("invite").c_str());
    } else if (node_->joined()) {
      std::printf("\nAccess keys of the cluster work here too. To make another one, and to try it:\n\n  %s\n"
                  "  export AWS_ACCESS_KEY_ID=ID AWS_SECRET_ACCESS_KEY=SECRET AWS_DEFAULT_REGION=%s     # as it printed them\n  aws --endpoint-url http://%s s3 ls\n",
                  storagectl("key create NAME").c_str(), config_.region.c_str(), s3.c_str());
    }
    std::printf("\n");
    std::fflush(stdout);
  }

  task<void> stop() {
    if (control_) control_->set_serving(false);
    main_.cancel();
    co_await main_.join();
    for (auto& s : servers_) co_await s->stop();
    if (wishes_) co_await wishes_->stop();
    if (galleries_) co_await galleries_->stop();
    if (gallery_) co_await gallery_->stop();
    if (pictures_) co_await pictures_->stop();
    if (node_) co_await node_->stop();
    if (rows_) co_await rows_->stop();
    std::fflush(stdout);
    std::_Exit(exit_code_);
  }

  config config_;
  asio::io_context io_;
  real_clock clock_;
  real_random random_;
  thread_pool cpu_, disk_;
  runtime rt_;
  tcp_network net_;
  task_group main_;
  task_group stopper_{rt_};
  boost::asio::signal_set signals_;
  std::unique_ptr<kv::store> rows_;
  std::unique_ptr<node> node_;
  std::unique_ptr<s3::gateway> gateway_;
  std::unique_ptr<gallery::wishes> wishes_;
  std::unique_ptr<web::host> sites_;
  std::unique_ptr<admin::control> control_;
  posix_processes processes_{rt_};
  std::unique_ptr<picture::pool> pictures_;
  std::unique_ptr<gallery::worker> gallery_;
  std::unique_ptr<admin::galleries> galleries_;
  bool renders_ = false;
  std::vector<std::unique_ptr<http::server>> servers_;
  std::uint64_t own_capacity_ = 0;
  std::set<std::pair<dev_t, ino_t>> drives_taken_;
  bool stopping_ = false;
  int exit_code_ = 0;
};

int run(int argc, char** argv) {
  auto line = read_command_line(argc, argv, environment);
  if (!line) {
    std::fprintf(stderr, "storaged: %s\n", line.error().detail.c_str());
    return exit_usage;
  }
  if (line->what != command_line::action::run) {
    std::fputs(line->text.c_str(), stdout);
    return 0;
  }
  if (auto known = check_variables(environ); !known) {
    std::fprintf(stderr, "storaged: %s ('storaged --help' lists them all)\n", known.error().detail.c_str());
    return exit_usage;
  }
  auto& join = line->settings.join;
  // Who has started here before may be a member, and then it does not matter what a unit file goes on saying: node::start() judges.
  struct stat rows {};
  const bool first_start = ::stat((line->settings.data_dir + "/rows").c_str(), &rows) != 0;
  if (first_start && line->settings.zone.empty()) {  // nothing is made yet
    std::fprintf(stderr, "storaged: %s\n", no_zone);
    return exit_usage;
  }
  if (join == "-") {  // an invite is a secret, and a command line is not
    char typed[8192];
    if (std::fgets(typed, sizeof typed, stdin)) {
      join = typed;
    } else if (first_start) {
      std::fprintf(stderr, "storaged: --join -: no invite came on standard input\n");
      return exit_usage;
    }
  }
  if (!join.empty() && first_start)
    if (auto ok = invite::decode(join); !ok) {
      std::fprintf(stderr, "storaged: --join: %s\n", ok.error().detail.c_str());
      return exit_usage;
    }
  // Two arenas and early trimming keep the process small on a small machine. A block's buffer (1 MiB) comes from the heap and
  // goes back to it: mapping and faulting its pages anew for each block costs more than encrypting it.
  ::mallopt(M_ARENA_MAX, 2);
  ::mallopt(M_TRIM_THRESHOLD, 8 << 20);
  ::mallopt(M_MMAP_THRESHOLD, 2 << 20);
  struct rlimit files {};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  std::signal(SIGPIPE, SIG_IGN);
  ::umask(0077);
  crypto::init();
  auto lock = lock_directory(line->settings.data_dir);
  if (!lock) {
    std::fprintf(stderr, "storaged: %s\n", lock.error().detail.c_str());
    return exit_failed;
  }
  return daemon(line->settings).run();
}

}  // namespace

}  // namespace grenier::storaged

int main(int argc, char** argv) { return grenier::storaged::run(argc, argv); }
