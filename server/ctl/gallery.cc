#include "ctl/gallery.h"

#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "ctl/client.h"
#include "ctl/table.h"

namespace grenier::ctl {

using nlohmann::json;

namespace {

std::string word(const json& j, const char* name) {
  auto at = j.find(name);
  if (at == j.end() || at->is_null()) return "-";
  return at->is_string() ? at->get<std::string>() : at->dump();
}

std::string day(const json& j, const char* name) {
  const std::uint64_t ms = j.value(name, std::uint64_t{0});
  if (!ms) return "never";
  const std::time_t t = static_cast<std::time_t>(ms / 1000);
  std::tm tm{};
  ::localtime_r(&t, &tm);
  char out[32];
  std::strftime(out, sizeof out, "%Y-%m-%d", &tm);
  return out;
}

void print_gallery(const json& g) {
  std::printf("gallery   %s\ntitle     %s\naddress   %s\nseen by   %s\nplaces    %s\npages in  %s\n", word(g, "bucket").c_str(), word(g, "title").c_str(), word(g, "address").c_str(),
              g.value("private", false) ? "whoever has a link ('storagectl gallery link create')" : "everybody", g.value("show_places", false) ? "shown" : "hidden", word(g, "pages_bucket").c_str());
}

void print_list(const json& j) {
  table t({"bucket", "title", "address", "seen by"});
  for (const auto& g : j["galleries"]) t.add({word(g, "bucket"), word(g, "title"), word(g, "address"), g.value("private", false) ? "links" : "everybody"});
  t.print();
}

void print_status(const json& g) {
  print_gallery(g);
  std::printf("photos    %s\n", word(g, "photos").c_str());
  if (!g.contains("waiting")) {
    // A home that renders knows what failed, also before it has looked at the bucket for the first time.
    std::printf(g.contains("failed") ? "          this home has not looked at the bucket yet: ask again in some seconds\n" : "          this home renders no pictures; ask one that does\n");
    return;
  }
  std::printf("waiting   %s%s", word(g, "waiting").c_str(), g.value("looking", false) ? " (the bucket is still being listed)" : "");
  if (g.contains("minutes_left")) {
    const double minutes = g["minutes_left"].get<double>();
    if (minutes < 1) std::printf(", done in less than a minute");
    else if (minutes < 120) std::printf(", done in some %.0f minutes", minutes);
    else std::printf(", done in some %.0f hours", minutes / 60);
  }
  if (g.value("standing_by", 0)) std::printf("\nelsewhere %s (other homes' turn; this one sees to it that they are done)", word(g, "standing_by").c_str());
  if (g.value("completing", 0)) std::printf("\nshown     %s of them small so far (larger sizes come when no photo waits for its first)", word(g, "completing").c_str());
  if (g.value("restored_here", 0)) std::printf("\nrestored  %s lost small pictures or pages, by this home since its start", word(g, "restored_here").c_str());
  std::printf("\nfailed    %s%s\n", word(g, "failed").c_str(), g.value("failed", 0) ? " ('storagectl gallery failures' names them)" : "");
  if (g.contains("last_error")) std::printf("last error here: %s\n", word(g, "last_error").c_str());
}

void print_roles(const json& j) {
  table t({"role", "zone", "round trip", "throughput", "load", "up"});
  for (const auto& o : j["roles"]) {
    char rtt[32] = "-", load[32];
    if (o.contains("rtt_ms")) std::snprintf(rtt, sizeof rtt, "%.1f ms", o["rtt_ms"].get<double>());
    std::snprintf(load, sizeof load, "%.0f %%", o.value("load", 0.0) * 100);
    std::string does = o.contains("throughput") ? format_size(static_cast<std::uint64_t>(o["throughput"].get<double>())) + "/s" : "-";
    if (o.contains("photos_per_minute")) {
      char pace[48];
      std::snprintf(pace, sizeof pace, "%.0f photos/min", o["photos_per_minute"].get<double>());
      does = does == "-" ? pace : does + ", " + pace;
    }
    const bool self = o.value("self", false);
    t.add({word(o, "role"), word(o, "zone") + (self ? " (here)" : ""), rtt, does, load, o.value("up", false) ? "yes" : "no"});
  }
  t.print();
}

void print_failures(const json& j) {
  if (j["failures"].empty()) {
    std::printf("Every picture could be shown.\n");
    return;
  }
  table t({"object", "why it cannot be shown"});
  for (const auto& f : j["failures"]) t.add({word(f, "key"), word(f, "reason")});
  t.print();
}

void print_links(const json& j) {
  table t({"link for", "made", "until"});
  for (const auto& l : j["links"]) t.add({word(l, "name"), day(l, "created_ms"), day(l, "expires_ms") + (l.value("expired", false) ? " (over)" : "")});
  t.print();
}

// A name from the gallery must not lead out of the folder.
bool is_safe(const std::string& name) {
  if (name.empty() || name.front() == '/' || name.find('\0') != std::string::npos) return false;
  for (const auto& part : std::filesystem::path(name))
    if (part == ".." || part == ".") return false;
  return true;
}

class exporter {
  static constexpr std::size_t name_bytes_max = 255;

 public:
  exporter(std::string data_dir, std::string bucket, std::filesystem::path to, bool originals, bool quiet)
      : data_dir_(std::move(data_dir)), bucket_(std::move(bucket)), to_(std::move(to)), originals_(originals), quiet_(quiet || !::isatty(STDERR_FILENO)) {}

  result<json> run() {
    for (std::string after;;) {
      TRY(auto page, command(data_dir_, "/gallery/files", {{"bucket", bucket_}, {"after", after}, {"originals", originals_}}));
      for (const auto& f : page["files"]) TRY_VOID(copy("/gallery/read", f["key"].get<std::string>(), f["key"].get<std::string>()));
      for (const auto& f : page["originals"]) TRY_VOID(copy("/gallery/original", f["key"].get<std::string>(), f["file"].get<std::string>()));
      if (!page.value("more", false)) break;
      after = page["last"].get<std::string>();
    }
    if (!quiet_) std::fprintf(stderr, "\r\033[K");
    return json{{"bucket", bucket_}, {"folder", to_.string()}, {"files", files_}, {"bytes", bytes_}, {"skipped", skipped_}};
  }

 private:
  result<void> copy(const char* what, const std::string& key, const std::string& file) {
    if (!is_safe(file)) {
      ++skipped_;
      return {};
    }
    const auto at = to_ / file;
    if (at.filename().string().size() > name_bytes_max) {  // no file system takes it
      ++skipped_;
      return {};
    }
    std::error_code ec;
    std::filesystem::create_directories(at.parent_path(), ec);
    if (ec) return fail(errc::io_failed, at.parent_path().string() + ": " + ec.message());
    const auto part = (at.parent_path() / ".part").string();
    std::ofstream out(part, std::ios::binary | std::ios::trunc);
    for (std::uint64_t offset = 0;;) {
      auto r = command(data_dir_, what, {{"bucket", bucket_}, {"key", key}, {"offset", offset}});
      if (r.failed_with(errc::no_such_key) || r.failed_with(errc::not_found)) {  // gone since it was listed
        std::filesystem::remove(part, ec);
        ++skipped_;
        return {};
      }
      if (!r) return fail(r.error());
      TRY(auto piece, from_base64(r->value("content", "")));
      out.write(piece.data(), static_cast<std::streamsize>(piece.size()));
      offset += piece.size();
      bytes_ += piece.size();
      if (piece.empty() || offset >= r->value("size", std::uint64_t{0})) break;
    }
    out.close();
    if (!out) return fail(errc::io_failed, at.string() + " cannot be written: " + std::strerror(errno));
    std::filesystem::rename(part, at, ec);
    if (ec) return fail(errc::io_failed, at.string() + ": " + ec.message());
    ++files_;
    if (!quiet_ && files_ % 10 == 0) std::fprintf(stderr, "\r\033[K%llu files, %s", static_cast<unsigned long long>(files_), format_size(bytes_).c_str());
    return {};
  }

  std::string data_dir_, bucket_;
  std::filesystem::path to_;
  bool originals_, quiet_;
  std::uint64_t files_ = 0, bytes_ = 0, skipped_ = 0;
};

}  // namespace

void add_gallery_commands(CLI::App& app, commands c) {
  auto* gallery = app.add_subcommand("gallery", "photo galleries made from buckets")->require_subcommand(1);
  auto text = [&in = c.in](CLI::App* sub, const char* flag, const char* field, const char* help) {
    return sub->add_option_function<std::string>(flag, [&in, field](const std::string& v) { in[field] = v; }, help);
  };
  auto toggle = [&in = c.in](CLI::App* sub, const char* flag, const char* field, bool value, const char* help) {
    return sub->add_flag_callback(flag, [&in, field, value] { in[field] = value; }, help);
  };
  auto named = [&](CLI::App* under, const char* name, const char* help, const char* path, std::function<void(const json&)> print) {
    auto* sub = c.leaf(under->add_subcommand(name, help), path, std::move(print));
    text(sub, "bucket", "bucket", "the bucket with the photos")->required();
    return sub;
  };
  auto* create = named(gallery, "create", "make a gallery of the bucket's pictures, those that come later too", "/gallery/create", [](const json& j) {
    print_gallery(j);
    std::printf("\nPictures appear as they are rendered; 'storagectl gallery status %s' tells how far it is.\n", word(j, "bucket").c_str());
  });
  text(create, "--title", "title", "what its pages are headed (default: the bucket's name)");
  text(create, "--domain", "domain", "a host name that leads here, for example photos.example.org");
  toggle(create, "--private", "private", true, "only for whoever has a link");
  toggle(create, "--show-places", "show_places", true, "show where photos were taken (default: hidden)");
  auto* set = named(gallery, "set", "change a gallery", "/gallery/set", print_gallery);
  text(set, "--title", "title", "what its pages are headed");
  text(set, "--domain", "domain", "one more host name that leads here");
  text(set, "--no-domain", "no_domain", "a host name that leads here no more");
  auto* hide = toggle(set, "--private", "private", true, "only for whoever has a link");
  toggle(set, "--public", "private", false, "for everybody")->excludes(hide);
  auto* show = toggle(set, "--show-places", "show_places", true, "show where photos were taken, of those rendered from now on");
  toggle(set, "--hide-places", "show_places", false, "hide it, of those rendered from now on")->excludes(show);
  c.leaf(app.add_subcommand("roles", "who gives photos, renders them, knows of them and serves their pages, and how good each home is at it; the best first"), "/gallery/roles", print_roles);
  c.leaf(gallery->add_subcommand("list", "all galleries"), "/gallery/list", print_list);
  named(gallery, "status", "how many photos are shown, wait, or cannot be shown", "/gallery/status", print_status);
  named(gallery, "failures", "the pictures that cannot be shown, and why", "/gallery/failures", print_failures);
  named(gallery, "again", "look at every object anew and write every page: after an update, or when files of the gallery were lost", "/gallery/again",
        [](const json& j) { std::printf("It has begun; 'storagectl gallery status %s' tells how far it is.\n", word(j, "bucket").c_str()); });
  named(gallery, "delete", "remove the gallery, its pages and its small pictures; the photos stay", "/gallery/delete",
        [](const json& j) { std::printf("Removed %s and its %s objects; the photos in %s are as they were.\n", word(j, "deleted").c_str(), word(j, "objects").c_str(), word(j, "bucket").c_str()); });

  auto* link = gallery->add_subcommand("link", "links to a private gallery")->require_subcommand(1);
  auto* make = named(link, "create", "make a link, for one person or group", "/gallery/link/create", [](const json& j) {
    std::printf("%s\n", word(j, "link").c_str());
  });
  text(make, "name", "name", "whom it is for")->required();
  make->add_option_function<std::string>("--days", [&in = c.in](const std::string& v) {
    if (v.empty() || v.size() > 6 || v.find_first_not_of("0123456789") != std::string::npos)
      throw CLI::ValidationError("--days", "a link holds for whole days, up to 36500 (0: until it is revoked); got '" + v + "'");
    in["days"] = std::stoull(v);
  }, "days until it ends (default, and 0: it holds until it is revoked)");
  named(link, "list", "all links of a gallery (not the addresses: they are shown once)", "/gallery/link/list", print_links);
  auto* revoke = named(link, "revoke", "end a link, at once and everywhere", "/gallery/link/revoke", [](const json& j) { std::printf("The link for %s is no more.\n", word(j, "revoked").c_str()); });
  text(revoke, "name", "name", "whom it was for")->required();

  auto* out = gallery->add_subcommand("export", "write the gallery into a folder that any web server can serve");
  auto bucket = std::make_shared<std::string>(), folder = std::make_shared<std::string>();
  auto without = std::make_shared<bool>(false);
  out->add_option("bucket", *bucket, "the bucket with the photos")->required();
  out->add_option("folder", *folder, "a new or empty folder")->required();
  out->add_flag("--no-originals", *without, "leave the originals out (their links lead nowhere then)");
  out->callback([=, &data_dir = c.data_dir, &as_json = c.as_json, &code = c.exit_code] {
    std::error_code ec;
    result<json> r = fail(errc::already_exists, *folder + " is not empty: an export wants a folder of its own");
    if (!std::filesystem::exists(*folder, ec) || std::filesystem::is_empty(*folder, ec)) r = exporter(data_dir, *bucket, *folder, !*without, as_json).run();
    if (!r) {
      code = say_error(r.error(), as_json);
      return;
    }
    if (as_json) std::cout << r->dump(2) << "\n";
    else std::printf("%s files, %s, are in %s.\n", word(*r, "files").c_str(), format_size(r->value("bytes", std::uint64_t{0})).c_str(), word(*r, "folder").c_str());
    if (const auto skipped = r->value("skipped", std::uint64_t{0}); skipped && !as_json)
      std::printf("%llu were left out: removed meanwhile, or with a name that no folder takes.\n", static_cast<unsigned long long>(skipped));
  });
}

}  // namespace grenier::ctl
