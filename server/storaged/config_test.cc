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

TEST_CASE("help names every option, the data directory follows the user") {
  auto r = parse({"--help"});
  for (auto name : {"--zone", "--data-dir", "--capacity", "--join", "--config", "--s3-listen", "--web-listen", "--rpc-listen", "--rpc-public",
                    "--admin-listen", "--s3-domain", "--web-domain", "--region", "--upload-limit", "--download-limit"})
    CHECK(r->text.find(name) != std::string::npos);
  auto env = [](const std::string& n) -> std::optional<std::string> { return n == "HOME" ? std::optional<std::string>("/home/a") : std::nullopt; };
  CHECK(default_data_dir(true, env) == "/var/lib/grenier");
  CHECK(default_data_dir(false, env) == "/home/a/.local/share/grenier");
}
