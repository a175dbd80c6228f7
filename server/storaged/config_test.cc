#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "storaged/config.h"

using namespace grenier;
using namespace grenier::storaged;

namespace {
result<command_line> parse(std::vector<const char*> args, std::map<std::string, std::string> env = {}) {
  args.insert(args.begin(), "storaged");
  return read_command_line(static_cast<int>(args.size()), args.data(), [&](const std::string& n) -> std::optional<std::string> {
    auto at = env.find(n);
    return at == env.end() ? std::nullopt : std::optional(at->second);
  });
}
std::string refused(std::vector<const char*> args, std::map<std::string, std::string> env = {}) {
  auto r = parse(std::move(args), std::move(env));
  return r ? "" : r.error().detail;
}
struct temporary_file {
  std::string path = std::filesystem::temp_directory_path() / ("grenier-config-" + std::to_string(::getpid()) + ".toml");
  explicit temporary_file(const std::string& content) { std::ofstream(path) << content; }
  ~temporary_file() { std::filesystem::remove(path); }
};
}  // namespace

TEST_CASE("flags, environment and file, in this order") {
  temporary_file f("zone = \"from-file\"\ncapacity = \"1G\"\nregion = \"file\"\nrpc_public = [\"a.example:1\", \"b.example:2\"]\n");
  auto r = parse({"--zone", "home-lyon", "--config", f.path.c_str()}, {{"STORAGED_CAPACITY", "2G"}});
  REQUIRE(r);
  CHECK(r->settings.zone == "home-lyon");
  CHECK(r->settings.capacity_bytes == 2'000'000'000);
  CHECK(r->settings.region == "file");
  CHECK(r->settings.rpc_public.size() == 2);
  CHECK(parse({"--zone=x", "--upload-limit=8Mbit"})->settings.upload_limit == 1'000'000);
}

TEST_CASE("what is wrong is said, with the nearest right name") {
  CHECK(refused({"--zoen", "x"}).find("did you mean --zone?") != std::string::npos);
  CHECK(refused({"--s3-listn", "x"}).find("--s3-listen") != std::string::npos);
  CHECK(refused({"--zone", "Not A Zone"}).find("home-lyon") != std::string::npos);
  CHECK(refused({"--zone"}).find("needs a value") != std::string::npos);
  CHECK(refused({"--zone", "a", "--zone", "b"}).find("twice") != std::string::npos);
  CHECK(refused({"--s3-listen", "localhost"}).find("127.0.0.1:3900") != std::string::npos);
  CHECK(refused({"--s3-listen", ":99999"}).find("address") != std::string::npos);
  CHECK(refused({"--capacity", "lots"}).find("not a size") != std::string::npos);
  CHECK(refused({}, {{"STORAGED_CAPACITY", "lots"}}).find("STORAGED_CAPACITY") != std::string::npos);
  CHECK(refused({"--config", "/does/not/exist"}).find("/does/not/exist") != std::string::npos);
  temporary_file f("zone = \"a\"\ncapcity = \"1G\"\n");
  auto why = refused({"--config", f.path.c_str()});
  CHECK(why.find(":2: capcity") != std::string::npos);
  CHECK(why.find("did you mean capacity?") != std::string::npos);
  temporary_file g("zone = \n");
  CHECK(refused({"--config", g.path.c_str()}).find(":1:") != std::string::npos);
}

TEST_CASE("a value of the wrong type in the file is refused: where, what was expected, what was found") {
  auto file = [](const std::string& content) {
    temporary_file f(content);
    return refused({"--config", f.path.c_str()});
  };
  auto has = [](const std::string& all, std::initializer_list<const char*> words) {
    for (const char* w : words)
      if (all.find(w) == std::string::npos) return false;
    return true;
  };
  CHECK(has(file("\nzone = 5\n"), {":2: zone: ", "expected a string", "zone = \"...\"", "found a whole number"}));
  CHECK(has(file("zone = \"a\"\ndata_dir = 7\n"), {":2: data_dir: ", "expected a string"}));
  CHECK(has(file("s3_listen = 3900\n"), {":1: s3_listen: ", "expected a string"}));
  CHECK(has(file("memory = 1.5\n"), {":1: memory: ", "a string or a whole number", "with a fraction"}));
  CHECK(has(file("log_level = true\n"), {":1: log_level: ", "true or false"}));
  CHECK(has(file("zone = [\"a\"]\n"), {":1: zone: ", "found a list"}));
  CHECK(has(file("[zone]\nname = 1\n"), {": zone: ", "found a table"}));
  CHECK(has(file("region = 1979-05-27\n"), {":1: region: ", "a date or a time"}));
  CHECK(has(file("rpc_public = [\n  \"a.example:1\",\n  5]\n"), {":3: rpc_public: ", "a list of strings"}));
  CHECK(has(file("render_pictures = 1\n"), {":1: render_pictures: "}));
  CHECK(file("capacity = 5000000000\nrender_pictures = false\nzone = \"a\"\n") == "");
}

TEST_CASE("budgets of the decoders, and how old a page may be: bounds are said") {
  auto file = [](const std::string& content) {
    temporary_file f(content);
    return refused({"--config", f.path.c_str()});
  };
  auto has = [](const std::string& all, std::initializer_list<const char*> words) {
    CAPTURE(all);
    for (const char* w : words) CHECK(all.find(w) != std::string::npos);
  };
  {
    temporary_file f("render_cpus = 3\nrender_memory = \"64M\"\nrender_picture_memory = 100000000\nweb_staleness = 0\nweb_cache = \"4MiB\"\n");
    auto r = parse({"--config", f.path.c_str()});
    REQUIRE(r);
    CHECK(r->settings.render_cpus == 3);
    CHECK(r->settings.render_memory_bytes == 64'000'000);
    CHECK(r->settings.render_picture_memory_bytes == 100'000'000);
    CHECK(r->settings.web_staleness_s == 0);
    CHECK(r->settings.web_cache_bytes == 4 << 20);
  }
  auto plain = parse({});
  CHECK_FALSE(plain->settings.render_cpus);
  CHECK(plain->settings.render_memory_bytes == 192 << 20);
  CHECK(plain->settings.web_staleness_s == 5);
  CHECK(parse({"--render-cpus", "2"}, {{"STORAGED_WEB_STALENESS", "60"}})->settings.web_staleness_s == 60);
  has(file("\nrender_cpus = 0\n"), {":2: render_cpus: ", "'0' is not a whole number from 1 to 64"});
  has(file("render_cpus = \"two\"\n"), {":1: render_cpus: ", "'two' is not a whole number"});
  has(file("render_cpus = 1.5\n"), {":1: render_cpus: ", "with a fraction"});
  has(file("render_cpus = -1\n"), {":1: render_cpus: ", "'-1'"});
  has(file("render_memory = \"1M\"\n"), {":1: render_memory: ", "32MiB"});
  has(file("render_memory = \"lots\"\n"), {":1: render_memory: ", "not a size"});
  has(file("render_memory = [1]\n"), {":1: render_memory: ", "found a list"});
  has(file("render_picture_memory = \"1G\"\n"), {":1: render_picture_memory: ", "from 8MiB to 560MiB"});
  has(file("web_staleness = \"5s\"\n"), {":1: web_staleness: ", "whole number of seconds from 0 to 3600"});
  has(file("web_staleness = 4000\n"), {"3600"});
  has(file("web_cache = true\n"), {":1: web_cache: ", "true or false"});
  has(file("web_stalenes = 5\n"), {"did you mean web_staleness?"});
  has(refused({"--render-cpus", ""}), {"--render-cpus", "whole number"});
  has(refused({"--render-cpus", "99999999999999999999"}), {"1 to 64"});
}

TEST_CASE("drives and the file's data directory are whole paths, each drive once") {
  CHECK(refused({"--drive", "second:1T"}).find("whole path") != std::string::npos);
  CHECK(refused({"--drive", "./second"}).find("'./second'") != std::string::npos);
  CHECK(refused({"--drive", "/a:1T", "--drive", "/a"}).find("twice") != std::string::npos);
  CHECK(parse({"--drive", "/a:1T", "--drive", "/b"})->settings.drives.size() == 2);
  temporary_file f("data_dir = \"lyon\"\n");
  CHECK(refused({"--config", f.path.c_str()}).find(":1: data_dir: 'lyon' is not a whole path") != std::string::npos);
  // On a command line one knows where one stands.
  CHECK(parse({"--data-dir", "lyon"})->settings.data_dir == std::filesystem::current_path() / "lyon");
}

TEST_CASE("what the parser refuses is said with its place") {
  auto file = [](const std::string& content) {
    temporary_file f(content);
    auto said = refused({"--config", f.path.c_str()});
    return said.starts_with(f.path) ? said.substr(f.path.size()) : said;
  };
  for (const char* content : {"zone = \"a\"\nregion = \"x\ncapacity = \"1G\"\n", "zone = \"a\"\nregion = \"x", "zone = \"a\"\nregion = \"x\n"}) {
    auto said = file(content);
    CAPTURE(said);
    CHECK(said.starts_with(":2:"));
    CHECK(said.find("has no end") != std::string::npos);
  }
  auto said = file("zone = \"a\"\nregion = \"\"\"x\ncapacity = \"1G\"\n");
  CAPTURE(said);
  CHECK(said.find("begins in line 2") != std::string::npos);
  CHECK(file("zone = \"a\"\nzone = \"b\"\n").starts_with(":2:"));
  CHECK(file("zone \"a\"\n").starts_with(":1:"));
  CHECK(file("zone = home-a\n").find("in quotes") != std::string::npos);
  CHECK(file("zone = 'home-a\ncapacity='5G'\n").find("a ' is missing") != std::string::npos);
  CHECK(file("[storaged]\nzone = \"a\"\n").find("without [storaged]") != std::string::npos);
  CHECK(refused({"--config", "/tmp"}).find("is a directory") != std::string::npos);
}

TEST_CASE("what is wrong together is said before anything is made") {
  CHECK(refused({"--s3-listen", "127.0.0.1:5000", "--rpc-listen", ":5000"}).find("same port 5000") != std::string::npos);
  CHECK(refused({"--s3-listen", ":3902"}).find("--web-listen") != std::string::npos);
  CHECK(parse({"--s3-listen", "127.0.0.1:5000", "--rpc-listen", "127.0.0.2:5000"}));
  CHECK(refused({"--data-dir", ("/" + std::string(100, 'd')).c_str()}).find("may have 87") != std::string::npos);
}

TEST_CASE("help names every option, the data directory follows the user") {
  auto r = parse({"--help"});
  for (auto name : {"--zone", "--data-dir", "--capacity", "--join", "--config", "--s3-listen", "--web-listen", "--rpc-listen", "--rpc-public",
                    "--admin-listen", "--s3-domain", "--web-domain", "--region", "--upload-limit", "--download-limit", "--render-cpus", "--render-memory",
                    "--render-picture-memory", "--web-staleness", "--web-cache"})
    CHECK(r->text.find(name) != std::string::npos);
  auto env = [](const std::string& n) -> std::optional<std::string> { return n == "HOME" ? std::optional<std::string>("/home/a") : std::nullopt; };
  CHECK(default_data_dir(true, env) == "/var/lib/grenier");
  CHECK(default_data_dir(false, env) == "/home/a/.local/share/grenier");
}

TEST_CASE("a variable that is no setting is refused with the nearest right one") {
  const char* good[] = {"PATH=/bin", "STORAGED_ZONE=x", "STORAGED_CONFIG=y", "STORAGED_DATA_DIR=", nullptr};
  CHECK(check_variables(good));
  const char* wrong[] = {"STORAGED_ZON=x", nullptr};
  auto r = check_variables(wrong);
  REQUIRE(r.failed_with(errc::invalid_argument));
  CHECK(r.error().detail == "unknown variable STORAGED_ZON; did you mean STORAGED_ZONE?");
}
