#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "http/chunked.h"
#include "http/http.h"

using namespace grenier;
using namespace grenier::http;

namespace {

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
  fixture f({.header_time = 100ms, .idle_time = 200ms, .progress_time = 150ms});
  bool closed = false;
  CHECK(f.talk({"GET / HT"}, 1s, &closed).empty());
  CHECK(closed);
  (void)f.talk({}, 1s, &closed);
  CHECK(closed);
  auto r = f.talk({"PUT /x HTTP/1.1\r\n" + host + "Content-Length: 10\r\n\r\nabc"}, 1s, &closed);
  CHECK(closed);
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
