#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "http/chunked.h"
#include "http/http.h"

using namespace grenier;
using namespace grenier::http;

namespace {

constexpr std::size_t huge_bytes = 32 << 20;  // more than the buffers of two sockets

struct fixture {
  asio::io_context io;
  real_clock clk{io};
  real_random rnd;
  thread_pool pool{io, 1, "test"};
  runtime rt{io, clk, rnd, pool, pool};
  tcp_network net{rt};
  task_group group{rt};
  std::unique_ptr<http::server> server;

  explicit fixture(http::options o = {}) {
    o.listen = "127.0.0.1:0";
    server = make_server(rt, net, o, [](exchange& x) { return answer(x); });
    REQUIRE(server->start());
  }

  // /echo: the body back; /deny: 403 without reading; /stream: chunked; /large: a megabyte; /short: less than announced.
  static task<void> answer(exchange& x) {
    const auto& r = x.request();
    if (r.path == "/deny") {
      (void)co_await x.send({403, {}, "no"});
    } else if (r.path == "/stream") {
      (void)co_await x.begin({200, {}, {}}, std::nullopt);
      (void)co_await x.write("one");
      (void)co_await x.write("two");
      (void)co_await x.end();
    } else if (r.path == "/large") {
      bytes m(1 << 20, 'm');
      (void)co_await x.begin({200, {}, {}}, m.size());
      (void)co_await x.write(m);
    } else if (r.path == "/huge") {
      bytes m(huge_bytes, 'm');
      (void)co_await x.begin({200, {}, {}}, m.size());
      (void)co_await x.write(m);
    } else if (r.path == "/throw") {
      throw std::runtime_error("invalid UTF-8 byte");
    } else if (r.path == "/throw-late") {
      (void)co_await x.begin({200, {}, {}}, 10);
      (void)co_await x.write("half");
      throw std::bad_alloc();
    } else if (r.path == "/short") {
      (void)co_await x.begin({200, {}, {}}, 10);
      (void)co_await x.write("half");
      x.abort();
    } else if (r.path == "/304") {
      (void)co_await x.send({304, {}, {}});
    } else {
      bytes all;
      char b[1000];
      for (;;) {
        auto n = co_await x.read_body(b);
        if (!n) {
          (void)co_await x.send({400, {}, std::string(to_string(n.error().code))});
          co_return;
        }
        if (*n == 0) break;
        all.append(b, *n);
      }
      http::headers h;
      h.add("X-Method", r.method);
      h.add("X-Path", r.path);
      (void)co_await x.send({200, h, all});
    }
  }

  // Sends raw bytes in the pieces given; everything that comes back until the server closes or `quiet` passes without a byte.
  std::string talk(std::vector<std::string> pieces, nanoseconds quiet = 150ms, bool* closed = nullptr) {
    std::string got;
    bool end = false, done = false;
    group.spawn("talk", talking(rt, net, server->local(), std::move(pieces), quiet, got, end, done));
    while (!done) io.run_one();
    if (closed) *closed = end;
    return got;
  }
  static task<void> reading(byte_stream& s, std::string& got, bool& end, mono_time& last, runtime& r) {
    char b[4096];
    for (;;) {
      auto n = co_await s.read_some(b);
      if (!n || *n == 0) break;
      got.append(b, *n);
      last = r.now();
    }
    end = true;
  }
  static task<void> talking(runtime& r, network& n, std::string at, std::vector<std::string> pieces, nanoseconds quiet, std::string& got,
                            bool& end, bool& done) {
    auto s = co_await n.connect(at, r.now() + 2s);
    REQUIRE(s);
    task_group g(r);
    mono_time last = r.now();
    g.spawn("reading", reading(**s, got, end, last, r));
    for (const auto& p : pieces) {
      bytes_view v(p);
      if (!co_await (*s)->write(std::span(&v, 1))) break;
      last = r.now();
      co_await sleep_for(r, 5ms);
    }
    while (!end && r.now() - last < quiet) co_await sleep_for(r, 5ms);
    bool ended_by_server = end;
    (*s)->close();
    co_await g.join();
    end = ended_by_server;
    done = true;
  }
  // Takes `step` bytes of /huge each `pause`; none: never takes any. How many came before the server hung up, or all had come.
  std::size_t download(std::size_t step, nanoseconds pause) {
    std::size_t got = 0;
    bool done = false;
    group.spawn("download", downloading(rt, net, *server, step, pause, got, done));
    while (!done) io.run_one();
    return got;
  }
  static task<void> downloading(runtime& r, network& n, http::server& from, std::size_t step, nanoseconds pause, std::size_t& got, bool& done) {
    auto s = co_await n.connect(from.local(), r.now() + 2s);
    REQUIRE(s);
    bytes_view ask = "GET /huge HTTP/1.1\r\nHost: x\r\n\r\n";
    (void)co_await (*s)->write(std::span(&ask, 1));
    const mono_time until = r.now() + 20s;
    if (step == 0)
      while ((co_await sleep_for(r, 10ms), from.stats().open > 0) && r.now() < until) {}
    std::vector<char> b(step);
    while (step > 0 && got < huge_bytes) {
      for (std::size_t taken = 0; taken < step;) {
        auto some = co_await (*s)->read_some(std::span(b).subspan(taken));
        if (!some || *some == 0) {
          done = true;
          co_return;
        }
        taken += *some;
        got += *some;
        if (got >= huge_bytes) break;
      }
      co_await sleep_for(r, pause);
    }
    done = true;
  }
  // Open connections after `n` were made, each having sent `bytes`.
  std::size_t crowd(std::size_t n, std::string said, std::vector<std::unique_ptr<byte_stream>>& all) {
    bool done = false;
    group.spawn("crowd", crowding(rt, net, server->local(), n, std::move(said), all, done));
    while (!done) io.run_one();
    return server->stats().open;
  }
  static task<void> crowding(runtime& r, network& n, std::string at, std::size_t count, std::string said,
                             std::vector<std::unique_ptr<byte_stream>>& all, bool& done) {
    for (std::size_t i = 0; i < count; ++i) {
      auto s = co_await n.connect(at, r.now() + 2s);
      REQUIRE(s);
      bytes_view v(said);
      (void)co_await (*s)->write(std::span(&v, 1));
      all.push_back(std::move(*s));
    }
    co_await sleep_for(r, 50ms);
    done = true;
  }
  task<void> stopping(bool& done) {
    co_await server->stop();
    done = true;
  }
  ~fixture() {
    bool done = false;
    group.spawn("stop", stopping(done));
    while (!done) io.run_one();
  }
};

std::size_t count_of(const std::string& s, const std::string& what) {
  std::size_t n = 0;
  for (auto at = s.find(what); at != std::string::npos; at = s.find(what, at + 1)) ++n;
  return n;
}

const std::string host = "Host: x\r\n";

}  // namespace

TEST_CASE("bodies come through: by length, chunked, pipelined, byte by byte") {
  fixture f;
  auto r = f.talk({"PUT /a%2Fb?x=1 HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhelloGET /second HTTP/1.1\r\n" + host + "\r\n"});
  CHECK(count_of(r, "200 OK") == 2);
  CHECK(r.find("\r\n\r\nhello") != std::string::npos);
  CHECK(r.find("X-Path: /a%2Fb\r\n") != std::string::npos);
  r = f.talk({"PUT /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel", "lo\r\n3;a=b\r\n yo\r\n0\r\nX: y\r\n\r\n"});
  CHECK(r.find("\r\n\r\nhello yo") != std::string::npos);
  std::vector<std::string> single;
  for (char c : "PUT /d HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\nok") single.emplace_back(1, c);
  CHECK(f.talk(single).find("\r\n\r\nok") != std::string::npos);
}

TEST_CASE("answers: HEAD and 304 without body, chunked, large, broken off") {
  fixture f;
  auto r = f.talk({"HEAD /large HTTP/1.1\r\n" + host + "\r\n"});
  CHECK(r.find("Content-Length: 1048576\r\n") != std::string::npos);
  CHECK(r.ends_with("\r\n\r\n"));
  r = f.talk({"GET /304 HTTP/1.1\r\n" + host + "\r\n"});
  CHECK(r.find("Content-Length") == std::string::npos);
  r = f.talk({"GET /stream HTTP/1.1\r\n" + host + "\r\n"});
  CHECK(r.ends_with("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"));
  CHECK(f.talk({"GET /large HTTP/1.1\r\n" + host + "\r\n"}).size() > 1 << 20);
  bool closed = false;
  r = f.talk({"GET /short HTTP/1.1\r\n" + host + "\r\n"}, 150ms, &closed);
  CHECK(closed);
  CHECK(r.ends_with("half"));
}

TEST_CASE("what smuggles or cannot be parsed is refused and the connection closed") {
  fixture f;
  for (std::string bad : {
           "GET / HTTP/1.1\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
           "GET / HTTP/1.1\nHost: a\n\n",
           "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
           "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
           "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
           "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
           "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
           "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
           "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
           "GET nonsense HTTP/1.1\r\nHost: a\r\n\r\n",
           "\x16\x03\x01 not http at all\r\n\r\n",
       }) {
    CAPTURE(bad);
    bool closed = false;
    auto r = f.talk({bad}, 400ms, &closed);
    CHECK(r.starts_with("HTTP/1.1 "));
    CHECK(count_of(r, "200 OK") == 0);
    CHECK(r.find("Connection: close") != std::string::npos);
  }
  auto r = f.talk({"GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(70000, 'x') + "\r\n\r\n"});
  CHECK(r.starts_with("HTTP/1.1 431"));
  for (std::string bad : {"zz\r\n", "5\nhello", "3\r\nabcdef\r\n", "11111111111111111\r\n", "\r\n"})
    CHECK(f.talk({"PUT /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n" + bad}).find("protocol") != std::string::npos);
}

TEST_CASE("100 Continue is sent when the body is wanted, and not before a refusal") {
  fixture f;
  auto r = f.talk({"PUT /ok HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", "hi"});
  CHECK(r.starts_with("HTTP/1.1 100 Continue\r\n\r\n"));
  CHECK(r.ends_with("hi"));
  r = f.talk({"PUT /deny HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"});
  CHECK(r.starts_with("HTTP/1.1 403"));
  CHECK(r.find("Connection: close") != std::string::npos);
  r = f.talk({"PUT /ok HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n"});
  CHECK(r.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"));
}

TEST_CASE("a body left unread is not taken for the next request") {
  fixture f;
  std::string inner = "GET /inner HTTP/1.1\r\n" + host + "\r\n";
  auto r = f.talk({"PUT /deny HTTP/1.1\r\n" + host + "Content-Length: " + std::to_string(inner.size()) + "\r\n\r\n" + inner +
                   "GET /next HTTP/1.1\r\n" + host + "\r\n"});
  CHECK(count_of(r, "X-Path: /next") == 1);
  CHECK(count_of(r, "X-Path: /inner") == 0);
  std::string big(600000, 'b');
  r = f.talk({"PUT /deny HTTP/1.1\r\n" + host + "Content-Length: 600000\r\n\r\n" + big + "GET /next HTTP/1.1\r\n" + host + "\r\n"});
  CHECK(r.starts_with("HTTP/1.1 403"));
  CHECK(count_of(r, "/next") == 0);
}

TEST_CASE("slow strangers are cut off, a client that stops is noticed") {
  const std::string get = "GET / HTTP/1.1\r\n" + host + "\r\n";
  bool closed = false;
  auto only = [](nanoseconds header, nanoseconds idle, nanoseconds progress, nanoseconds linger) {
    return http::options{.header_time = header, .idle_time = idle, .progress_time = progress, .linger_time = linger};
  };
  {
    fixture f(only(100ms, 20s, 20s, 20s));
    CHECK(f.talk({"GET / HT"}, 2s, &closed).empty());
    CHECK(closed);
    // Also of a second request, of which the beginning came along with the first.
    CHECK(count_of(f.talk({get + "GET / HT"}, 2s, &closed), "200 OK") == 1);
    CHECK(closed);
    (void)f.talk({get}, 300ms, &closed);
    CHECK(!closed);
  }
  {
    fixture f(only(20s, 100ms, 20s, 20s));
    (void)f.talk({}, 2s, &closed);
    CHECK(closed);
    (void)f.talk({"GET / HT"}, 300ms, &closed);
    CHECK(!closed);
  }
  {
    fixture f(only(20s, 20s, 100ms, 20s));
    auto r = f.talk({"PUT /x HTTP/1.1\r\n" + host + "Content-Length: 10\r\n\r\nabc"}, 2s, &closed);
    CHECK(closed);
  }
  {
    fixture f(only(20s, 20s, 20s, 100ms));
    CHECK(f.talk({"nonsense\r\n\r\n"}, 2s, &closed).starts_with("HTTP/1.1 400"));
    CHECK(closed);
  }
}

TEST_CASE("a slow download lasts as long as it takes; one that stands still is cut") {
  fixture f({.progress_time = 300ms});
  CHECK(f.download(512 << 10, 20ms) >= huge_bytes);
  f.download(0, 0ns);
  CHECK(f.server->stats().open == 0);
}

TEST_CASE("who trickles a body is cut off, whichever way it goes; who is slow is not") {
  std::vector<std::string> drops = {"PUT /x HTTP/1.1\r\n" + host + "Content-Length: 300\r\n\r\n"};
  for (int i = 0; i < 300; ++i) drops.emplace_back("x");
  bool closed = false;
  {
    fixture f({.body_rate_min = 4000, .rate_time = 300ms});  // a byte in 5 ms or more: 200 bytes/s at most
    const mono_time start = f.clk.now();
    auto r = f.talk(drops, 2s, &closed);
    CHECK(r.starts_with("HTTP/1.1 400"));
    CHECK(count_of(r, "timed_out") == 1);
    CHECK(count_of(r, "Connection: close") == 1);
    CHECK(f.clk.now() - start < 4s);
    // And out: some hundred KiB/s where more is wanted.
    CHECK(f.download(512 << 10, 20ms) >= huge_bytes);
  }
  {
    fixture f({.progress_time = 400ms, .body_rate_min = 64 << 20, .rate_time = 400ms});
    CHECK(f.download(64 << 10, 50ms) < huge_bytes);
    CHECK(f.server->stats().open == 0);
  }
  {
    fixture f({.body_rate_min = 10, .rate_time = 200ms});
    auto r = f.talk(drops, 2s, &closed);
    CHECK(r.starts_with("HTTP/1.1 200"));
    CHECK(!closed);
  }
}

TEST_CASE("a handler that throws is answered 500, or broken off, and ends nothing but its connection") {
  std::vector<std::string> logged;
  fixture f;
  f.rt.set_log_sink([&](log_level, const std::string& m) { logged.push_back(m); });
  bool closed = false;
  auto r = f.talk({"GET /throw HTTP/1.1\r\n" + host + "\r\n"}, 2s, &closed);
  CHECK(r.starts_with("HTTP/1.1 500"));
  CHECK(r.find("UTF-8") == std::string::npos);
  CHECK(closed);
  REQUIRE(logged.size() == 1);
  CHECK(logged[0].find("invalid UTF-8 byte") != std::string::npos);
  r = f.talk({"GET /throw-late HTTP/1.1\r\n" + host + "\r\n"}, 2s, &closed);
  CHECK(r.ends_with("half"));
  CHECK(closed);
  CHECK(f.talk({"GET /next HTTP/1.1\r\n" + host + "\r\n"}).starts_with("HTTP/1.1 200"));
}

TEST_CASE("unfinished headers take bounded memory, all together") {
  fixture f({.header_bytes_max = 16 << 10, .header_bytes_all = 24 << 10});
  std::vector<std::unique_ptr<byte_stream>> waiting;
  const std::string part = "GET / HTTP/1.1\r\n" + host + "X: ";
  CHECK(f.crowd(2, part + std::string(10 << 10, 'x'), waiting) == 2);
  // There is no room for a third long one, but for any number of short ones.
  CHECK(f.talk({part + std::string(15 << 10, 'x')}).starts_with("HTTP/1.1 503"));
  CHECK(f.talk({part + std::string(3 << 10, 'x') + "\r\n\r\n"}).starts_with("HTTP/1.1 200"));
  waiting.clear();
  CHECK(f.crowd(0, "", waiting) == 0);
  CHECK(f.talk({part + std::string(15 << 10, 'x') + "\r\n\r\n"}).starts_with("HTTP/1.1 200"));
  CHECK(f.talk({part + std::string(16 << 10, 'x') + "\r\n\r\n"}).starts_with("HTTP/1.1 431"));
}

TEST_CASE("connections are bounded, in all and of one client") {
  std::vector<std::unique_ptr<byte_stream>> all;
  {
    fixture f({.connections_max = 3});
    CHECK(f.crowd(5, "G", all) == 3);
    CHECK(f.server->stats().refused == 2);
    all.clear();
    CHECK(f.crowd(0, "", all) == 0);
    CHECK(f.talk({"GET / HTTP/1.1\r\n" + host + "\r\n"}).starts_with("HTTP/1.1 200"));
  }
  {
    fixture f({.connections_per_client = 2});
    CHECK(f.crowd(5, "G", all) == 2);
    all.clear();
    CHECK(f.crowd(0, "", all) == 0);
    CHECK(f.talk({"GET / HTTP/1.1\r\n" + host + "\r\n"}).starts_with("HTTP/1.1 200"));
  }
}

TEST_CASE("ranges, dates, encodings") {
  CHECK((*parse_range("bytes=0-4", 10))->last == 4);
  CHECK((*parse_range("bytes=5-", 10))->last == 9);
  CHECK((*parse_range("bytes=-3", 10))->first == 7);
  CHECK((*parse_range("bytes=-30", 10))->first == 0);
  CHECK((*parse_range("bytes=2-99", 10))->last == 9);
  for (auto ignored : {"bytes=a-b", "bytes=5-2", "items=0-1", "bytes=0-1,3-4", "bytes", ""}) CHECK(!(*parse_range(ignored, 10)).has_value());
  for (auto wrong : {"bytes=10-", "bytes=-0", "bytes=11-12"}) CHECK(parse_range(wrong, 10).failed_with(errc::invalid_range));
  CHECK(format_date(784111777000) == "Sun, 06 Nov 1994 08:49:37 GMT");
  CHECK(*parse_date("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777000);
  for (auto wrong : {"", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, xx Nov 1994 08:49:37 GMT"}) CHECK(!parse_date(wrong));
  CHECK(*percent_decode("a%20b+c") == "a b+c");
  CHECK(*percent_decode("a+c", true) == "a c");
  for (auto wrong : {"%", "%2", "%zz"}) CHECK(!percent_decode(wrong));
  CHECK(percent_encode("a b/\xc3\xa9", true) == "a%20b/%C3%A9");
  CHECK(parse_query("a=1&b&&c=%20d")->size() == 3);
}
