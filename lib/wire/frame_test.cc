#include <doctest/doctest.h>

#include <random>

#include "wire/frame.h"
#include "wire/pace.h"
#include "wire/queue.h"

using namespace grenier;
using namespace grenier::wire;

namespace {

std::unique_ptr<outgoing> make(bool request, std::uint32_t stream, wire::priority p, message m) {
  auto o = std::make_unique<outgoing>();
  o->request = request;
  o->stream = stream;
  o->priority = p;
  o->start = request ? encode_request_start(10, 500, m) : encode_response_start(0, m);
  o->content = std::move(m);
  return o;
}

bytes pieces_of(const send_queue::record& r) {
  bytes all;
  for (auto p : r.pieces) all += p;
  return all;
}

// Feeds a record's plaintext; the messages that became whole.
result<std::vector<assembled>> feed(assembler& a, bytes_view plain) {
  std::vector<assembled> done;
  while (!plain.empty()) {
    TRY(frame f, take_frame(plain));
    std::optional<assembled> whole;
    if (f.type == frame_type::request) {
      TRY(auto s, parse_request_start(f));
      TRY(whole, a.start(f, s));
    } else if (f.type == frame_type::response) {
      TRY(auto s, parse_response_start(f));
      TRY(whole, a.start(f, s));
    } else if (f.type == frame_type::request_data || f.type == frame_type::response_data) {
      TRY(whole, a.more(f));
    }
    if (whole) done.push_back(std::move(*whole));
  }
  return done;
}

bytes pattern(std::size_t n, char seed = 'a') {
  bytes b(n, '\0');
  for (std::size_t i = 0; i < n; ++i) b[i] = static_cast<char>(seed + static_cast<char>(i * 7 % 41));
  return b;
}

}  // namespace

TEST_CASE("messages of all sizes come out as they went in, whatever the record size") {
  for (std::size_t record : {1024u, 4096u, 8192u, 65536u})
    for (std::size_t head : {0u, 1u, 15u, 1000u, 9000u})
      for (std::size_t body : {0u, 1u, 8185u, 70000u}) {
        send_queue q;
        assembler a;
        q.push(make(true, 7, priority::metadata, {pattern(head), share(pattern(body, 'b'))}));
        q.push(make(false, 7, priority::metadata, {pattern(head, 'c'), nullptr}));
        std::vector<assembled> got;
        while (!q.empty()) {
          const auto& r = q.next(record);
          REQUIRE(r.size_bytes > 0);
          CHECK(r.size_bytes <= record);
          auto plain = pieces_of(r);
          CHECK(plain.size() == r.size_bytes);
          auto whole = feed(a, plain);
          REQUIRE(whole);
          for (auto& w : *whole) got.push_back(std::move(w));
        }
        REQUIRE(got.size() == 2);
        if (!got[0].request) std::swap(got[0], got[1]);
        CHECK(got[0].stream == 7);
        CHECK(got[0].number == 10);
        CHECK(got[0].deadline_ms == 500);
        CHECK(got[0].content.head == pattern(head));
        REQUIRE(got[0].content.body);
        CHECK(*got[0].content.body == pattern(body, 'b'));
        CHECK(got[1].content.head == pattern(head, 'c'));
        CHECK(!got[1].content.body);
        CHECK(q.queued_bytes() == 0);
        CHECK(a.pending_bytes() == 0);
      }
}

TEST_CASE("signals first, then priorities in order; one priority is shared in turn") {
  send_queue q;
  q.push(make(true, 1, priority::background, {bytes(40000, 'x'), nullptr}));
  q.push(make(true, 2, priority::foreground, {bytes(40000, 'x'), nullptr}));
  q.push(make(true, 3, priority::foreground, {bytes(40000, 'x'), nullptr}));
  q.push(make(true, 4, priority::control, {bytes(100, 'x'), nullptr}));
  q.signal(frame_type::ping, 0, 5);
  std::vector<std::uint32_t> order;
  std::vector<frame_type> types;
  while (!q.empty()) {
    bytes plain = pieces_of(q.next(8192));
    for (bytes_view v = plain; !v.empty();) {
      auto f = take_frame(v);
      REQUIRE(f);
      types.push_back(f->type);
      order.push_back(f->stream);
    }
  }
  CHECK(types[0] == frame_type::ping);
  CHECK(order[1] == 4);
  auto last_foreground = std::max(std::find(order.rbegin(), order.rend(), 2u).base(), std::find(order.rbegin(), order.rend(), 3u).base());
  CHECK(std::find(order.begin(), order.end(), 1u) >= last_foreground - 1);
  int changes = 0;
  for (auto at = order.begin() + 3; at != last_foreground; ++at) changes += *at != *(at - 1);
  CHECK(changes >= 6);
}

TEST_CASE("unfinished messages are bounded; small ones pass") {
  send_queue q;
  for (std::uint32_t i = 0; i < 4; ++i) q.push(make(true, i, priority::foreground, {{}, share(bytes(5 << 20, 'x'))}));
  q.push(make(true, 9, priority::foreground, {"small", nullptr}));
  assembler a;
  bool small_done = false;
  std::size_t most = 0;
  for (int i = 0; i < 4; ++i) {
    bytes plain = pieces_of(q.next(8192));
    auto whole = feed(a, plain);
    REQUIRE(whole);
    for (auto& w : *whole) small_done |= w.stream == 9;
  }
  CHECK(small_done);
  while (!q.empty()) {
    bytes plain = pieces_of(q.next(65536));
    REQUIRE(feed(a, plain));
    most = std::max(most, a.pending_bytes());
  }
  CHECK(most <= 8 << 20);
  CHECK(a.pending_bytes() == 0);
}

TEST_CASE("what is taken back is not sent") {
  send_queue q;
  q.push(make(true, 1, priority::foreground, {{}, share(bytes(100000, 'x'))}));
  q.push(make(true, 2, priority::foreground, {"b", nullptr}));
  CHECK(q.erase(true, 2));
  CHECK_FALSE(q.erase(true, 2));
  bytes first = pieces_of(q.next(8192));
  CHECK_FALSE(q.erase(true, 1));  // a part of it has gone
  q.release();
  CHECK(q.empty());
  CHECK(q.queued_bytes() == 0);
}

TEST_CASE("truncated and hostile frames are errors, never more") {
  send_queue q;
  q.push(make(true, 1, priority::metadata, {pattern(300), share(pattern(300))}));
  bytes good = pieces_of(q.next(8192));
  for (std::size_t n = 1; n < good.size(); ++n) {
    assembler a;
    auto r = feed(a, bytes_view(good).substr(0, n));
    CHECK((!r || r->empty()));
  }
  std::mt19937_64 rnd(1);
  for (int i = 0; i < 20000; ++i) {
    bytes b = good;
    for (int k = 0; k < 3; ++k) b[rnd() % (i % 2 ? 24 : b.size())] = static_cast<char>(rnd());
    assembler a;
    (void)feed(a, b);
    CHECK(a.pending_bytes() <= assembly_max_bytes);
  }
  for (int i = 0; i < 20000; ++i) {
    bytes b(rnd() % 64, '\0');
    for (char& c : b) c = static_cast<char>(rnd());
    assembler a;
    (void)feed(a, b);
    (void)find_record(b);
  }
}

TEST_CASE("records of impossible length are refused before they are awaited") {
  auto with_length = [](std::uint32_t n) {
    bytes b;
    append_u32(b, n);
    return b;
  };
  CHECK(find_record("abc")->has_value() == false);
  CHECK_FALSE(find_record(with_length(0)));
  CHECK_FALSE(find_record(with_length(23)));
  CHECK(find_record(with_length(24)));
  CHECK(find_record(with_length(record_max_bytes + 16)));
  CHECK_FALSE(find_record(with_length(record_max_bytes + 17)));
  CHECK_FALSE(find_record(with_length(0xffffffff)));
  CHECK((*find_record(with_length(24) + bytes(30, 'x')))->size() == 24);
}

TEST_CASE("announced sizes are bounded, also together") {
  frame f;
  f.type = frame_type::request;
  f.has_body = true;
  assembler a;
  int taken = 0;
  for (std::uint32_t i = 0; i < 20; ++i) {
    f.stream = i;
    request_start s;
    s.body_size = message_max_bytes;
    if (!a.start(f, s)) break;
    ++taken;
  }
  CHECK(taken == 4);
  bytes p;
  append_u16(p, 1);
  append_u32(p, 1);
  append_u32(p, 0xffffffff);
  append_u32(p, 0xffffffff);
  f.payload = p;
  CHECK_FALSE(parse_request_start(f));
}

TEST_CASE("messages that announce next to nothing are bounded in number") {
  frame f;
  f.type = frame_type::request;
  assembler a;
  request_start s;
  s.head_size = 1;
  std::uint32_t taken = 0;
  for (f.stream = 0; f.stream < 200'000; ++f.stream, ++taken)
    if (!a.start(f, s)) break;
  CHECK(taken == assembly_max_bytes / 1024);
  CHECK(a.pending_count() == taken);
  // Finished or dropped, they make room by as much.
  frame more;
  more.type = frame_type::request_data;
  more.payload = "x";
  CHECK(a.more(more)->has_value());
  a.drop(true, 1);
  CHECK(a.pending_bytes() == assembly_max_bytes - 2048);
  CHECK(a.start(f, s));
  ++f.stream;
  CHECK(a.start(f, s));
  ++f.stream;
  CHECK_FALSE(a.start(f, s));
}

namespace {
// A line with a rate and a round trip, a sender that always has something to send; the rate it settles at.
double settle(double line_rate, nanoseconds round_trip, std::size_t& worst_unsent, double start_rate = 0) {
  pacer p(start_rate);
  mono_time now{} ;
  p.round_trip(round_trip, true, now);
  struct piece { mono_time acked; std::size_t size; };
  std::deque<piece> flying;
  std::size_t unsent = 0;
  mono_time line_free = now;
  worst_unsent = 0;
  while (now < mono_time{} + 20s) {
    while (!flying.empty() && flying.front().acked <= now) unsent -= flying.front().size, flying.pop_front();
    p.observe(unsent, now);
    nanoseconds d = p.pause(unsent);
    if (d > 0ns) {
      now += d;
      continue;
    }
    std::size_t n = p.batch_bytes();
    p.wrote(n, unsent);
    for (std::size_t left = n; left;) {
      std::size_t k = std::min<std::size_t>(left, 1400);
      line_free = std::max(line_free, now) + nanoseconds(static_cast<std::int64_t>(static_cast<double>(k) / line_rate * 1e9));
      flying.push_back({line_free + round_trip, k});
      left -= k;
    }
    unsent += n;
    if (now > mono_time{} + 5s) worst_unsent = std::max(worst_unsent, unsent);
    now += 20us;
  }
  return p.rate();
}
}  // namespace

TEST_CASE("the pacer learns the rate of a line and keeps what is in the socket short in time") {
  std::size_t worst = 0;
  for (auto [rate, round] : {std::pair{32e3, nanoseconds(58ms)}, {237e3, nanoseconds(50ms)}, {9.5e6, nanoseconds(22ms)}, {100e6, nanoseconds(1ms)}}) {
    for (double start : {0.0, rate / 50, rate * 4}) {
      double found = settle(rate, round, worst, start);
      CAPTURE(rate);
      CAPTURE(start);
      CHECK(found > rate * 0.8);
      CHECK(found < rate * 1.5);
      double time_in_socket = static_cast<double>(worst) / rate - static_cast<double>(round.count()) * 1e-9;
      CHECK(time_in_socket < 0.3);
    }
  }
}
