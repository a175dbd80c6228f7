#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "body.h"
#include "client.h"
#include "process.h"

using namespace grenier;
using namespace grenier::bench;

namespace {

result<command_line> read(std::vector<const char*> args, std::map<std::string, std::string> env = {{"AWS_ACCESS_KEY_ID", "K"}, {"AWS_SECRET_ACCESS_KEY", "S"}}) {
  args.insert(args.begin(), "grenier-bench");
  return read_command_line(static_cast<int>(args.size()), args.data(), [&](const std::string& name) -> std::optional<std::string> {
    auto at = env.find(name);
    return at == env.end() ? std::nullopt : std::optional(at->second);
  });
}
std::string refused(std::vector<const char*> args) {
  auto r = read(std::move(args));
  REQUIRE_FALSE(r);
  CHECK(r.error() == errc::invalid_argument);
  return r.error().detail;
}
bool says(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("options: what is repeated is kept in order, what is left out has its default") {
  auto r = read({"--endpoint", "http://localhost:3900", "--endpoint=http://[::1]:3910/", "--size", "1KiB", "--size", "5MiB", "--concurrency", "16", "--op", "get",
                 "--pid", "12", "--pid", "13", "--json"});
  REQUIRE(r);
  const auto& o = r->settings;
  REQUIRE(o.endpoints.size() == 2);
  CHECK(o.endpoints[0].host == "localhost");
  CHECK(o.endpoints[0].port == "3900");
  CHECK(o.endpoints[1].host == "::1");
  CHECK(o.endpoints[1].authority == "[::1]:3910");
  CHECK(o.sizes == std::vector<std::uint64_t>{1024, 5 << 20});
  CHECK(o.concurrency == std::vector<std::uint32_t>{16});
  CHECK(o.operations == std::vector{operation::get});
  CHECK(o.pids == std::vector{12, 13});
  CHECK(o.json);
  CHECK(o.access_key == "K");
  CHECK(o.region == "us-east-1");
  CHECK(read({"--endpoint", "http://h"})->settings.operations.size() == 4);
  CHECK(read({"--endpoint", "http://h"})->settings.endpoints[0].port == "80");
  CHECK(read({"--help"})->what == command_line::action::help);
}

TEST_CASE("options: what is wrong is said, with the nearest right name") {
  CHECK(says(refused({"--endpont", "x"}), "did you mean --endpoint?"));
  CHECK(says(refused({"--endpoint", "http://h", "--op", "lst"}), "did you mean list?"));
  CHECK(says(refused({"--endpoint", "http://h", "--concurrency", "0"}), "from 1 to 1024"));
  CHECK(says(refused({"--endpoint", "http://h", "--size", "3"}), "16 bytes"));
  CHECK(says(refused({"--endpoint", "http://h", "--seconds", "nan"}), "seconds"));
  CHECK(says(refused({"--endpoint", "http://h", "--json=yes"}), "takes no value"));
  CHECK(says(refused({"--endpoint"}), "needs a value"));
  CHECK(says(refused({"--endpoint", "https://h"}), "TLS"));
  CHECK(says(refused({"--endpoint", "localhost:3900"}), "http://localhost:3900"));
  CHECK(says(refused({"--endpoint", "http://h:0"}), "port"));
  CHECK(says(refused({"--endpoint", "http://h/bucket"}), "nothing behind"));
  CHECK(says(refused({}), "--endpoint is needed"));
  CHECK_FALSE(read({"--endpoint", "http://h"}, {}));
}

TEST_CASE("there are at least as many keys as clients, and no more than fill 2 GiB unless asked") {
  options o;
  CHECK(keys_for(o, 1024, 1) == 10'000);
  CHECK(keys_for(o, 5 << 20, 1) == 409);
  o.keys = 4;
  CHECK(keys_for(o, 1024, 16) == 16);
}

TEST_CASE("a percentile is the nearest rank") {
  std::vector<std::uint32_t> none, one{7}, hundred;
  for (std::uint32_t i = 100; i > 0; --i) hundred.push_back(i);
  CHECK(percentile(none, 0.5) == 0);
  CHECK(percentile(one, 0.0) == 7);
  CHECK(percentile(one, 0.99) == 7);
  CHECK(percentile(hundred, 0.5) == 50);
  CHECK(percentile(hundred, 0.99) == 99);
  CHECK(percentile(hundred, 1) == 100);
  hundred.push_back(1000);
  CHECK(percentile(hundred, 0.99) == 100);
  CHECK(percentile(hundred, 1) == 1000);
}

TEST_CASE("a body proves itself: another length, one changed bit and another key's body are seen; no kilobyte repeats") {
  bytes a, b;
  for (std::size_t size : {16ul, 17ul, 1024ul, 65537ul}) {
    fill_body(a, size, "k", 1);
    CHECK(a.size() == size);
    CHECK(is_body_of(a, "k"));
    CHECK_FALSE(is_body_of(a, "l"));
    CHECK_FALSE(is_body_of(bytes_view(a).substr(0, size - 1), "k"));
    for (std::size_t at : {std::size_t(0), size / 2, size - 1}) {
      b = a;
      b[at] = static_cast<char>(b[at] ^ 1);
      CHECK_FALSE(is_body_of(b, "k"));
    }
  }
  fill_body(b, 65536, "k", 2);
  CHECK(a.substr(0, 1024) != b.substr(0, 1024));
  CHECK(a.substr(32768, 1024) != b.substr(32768, 1024));
  CHECK(a.substr(0, 1024) != a.substr(1024, 1024));
}

TEST_CASE("the signature of a request, as another implementation computes it") {
  signer s("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1");
  // The S3 API reference's example of a list.
  auto h = s.headers("GET", "examplebucket.s3.amazonaws.com", "/", {{"prefix", "J"}, {"max-keys", "2"}},
                     "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 1369353600000);
  CHECK(says(h, "x-amz-date: 20130524T000000Z\r\n"));
  CHECK(says(h, "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "));
  CHECK(says(h, "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7\r\n"));
  CHECK(percent_encoded("a b/ü~") == "a%20b%2F%C3%BC~");
}

TEST_CASE("what S3 says is found in its answers") {
  std::size_t at = 0;
  constexpr std::string_view xml = "<R><Key>a</Key><Key>b</Key><IsTruncated>true</IsTruncated></R>";
  CHECK(next_element(xml, "Key", at) == "a");
  CHECK(next_element(xml, "Key", at) == "b");
  CHECK_FALSE(next_element(xml, "Key", at));
  at = 0;
  CHECK_FALSE(next_element("<Key>cut", "Key", at));
  CHECK(answer{503}.what("<Error><Code>SlowDown</Code></Error>") == "503 SlowDown");
  CHECK(answer{500}.what("") == "500");
}

TEST_CASE("CPU time is read behind the name of a process, whatever that holds") {
  CHECK(cpu_seconds_of("12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0", 100) == 2.0);
  CHECK_FALSE(cpu_seconds_of("12 (a) S 1", 100));
  CHECK_FALSE(cpu_seconds_of("", 100));
  CHECK(can_watch(1));
  CHECK_FALSE(can_watch(1 << 22));
}

TEST_CASE("a row tells errors and processes; the JSON holds the same") {
  measurement m{.op = operation::put, .size_bytes = 1024, .concurrency = 2, .seconds = 2, .requests = 100, .bytes = 102400, .errors = 3};
  m.why["503 SlowDown"] = 3;
  m.p50_us = 1500;
  m.processes = {{12, 0.5, 1 << 20, false}, {13, 0.25, 1 << 20, true}};
  auto row = table_row(m);
  CHECK(says(row, "50.0"));
  CHECK(says(row, "1.50"));
  CHECK(says(row, "3 times: 503 SlowDown"));
  CHECK(says(row, "process 13: CPU 0.25 s, peak memory 1.0 MiB, ENDED"));
  CHECK(says(row, "7.500 ms a request"));
  auto json = to_json({}, {m});
  for (const char* part : {"\"rate_per_s\": 50.0", "\"503 SlowDown\": 3", "\"cpu_ms_per_request\": 7.5", "\"pid\": 13"}) CHECK(says(json, part));
}
