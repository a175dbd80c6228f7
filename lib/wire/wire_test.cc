#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <ctime>

#include "wire/handshake.h"
#include "wire/wire.h"

using namespace grenier;
using namespace grenier::wire;

namespace {

const bytes the_key(32, 'k');
const cluster_id the_cluster = *cluster_id::from_bytes(bytes(16, 'c'));

// Nodes that share one thread and one loop, on the real loopback network.
struct fixture {
  asio::io_context io;
  real_clock clk{io};
  real_random rnd;
  thread_pool pool{io, 1, "test"};
  runtime rt{io, clk, rnd, pool, pool};
  tcp_network net{rt};
  task_group group{rt};
  std::vector<std::string> logged;

  fixture() {
    crypto::init();
    rt.set_log_level(log_level::trace);
    rt.set_log_sink([this](log_level, const std::string& m) { logged.push_back(m); });
  }
  ~fixture() {
    group.cancel();
    run(group.join());
  }
  template <class T>
  static task<void> store(std::optional<T>& to, task<T> t) {
    to.emplace(co_await std::move(t));
  }
  static task<void> mark(bool& done, task<void> t) {
    co_await std::move(t);
    done = true;
  }
  template <class T>
  T run(task<T> t) {
    std::optional<T> r;
    task_group g(rt);
    g.spawn("test", store(r, std::move(t)));
    REQUIRE(until([&] { return r.has_value() && g.size() == 0; }, 60s));
    return std::move(*r);
  }
  void run(task<void> t) {
    bool done = false;
    task_group g(rt);
    g.spawn("test", mark(done, std::move(t)));
    REQUIRE(until([&] { return done && g.size() == 0; }, 60s));
  }
  bool until(const std::function<bool()>& done, nanoseconds at_most) {
    mono_time end = clk.now() + at_most;
    while (!done()) {
      if (clk.now() > end) return false;
      io.restart();
      io.run_one_for(10ms);
    }
    return true;
  }
  bool was_logged(const std::string& part) const {
    for (auto& l : logged)
      if (l.find(part) != std::string::npos) return true;
    return false;
  }
  mono_time in(nanoseconds d) { return clk.now() + d; }
};

struct node {
  fixture& f;
  std::unique_ptr<endpoint> e;
  node_id id;
  int started = 0, dropped = 0;
  std::vector<std::pair<node_id, bool>> events;

  node(fixture& fx, int seed, std::function<void(options&)> adjust = {}, std::string listen = "127.0.0.1:0") : f(fx) {
    options o{listen, crypto::node_key::from_seed(bytes(32, static_cast<char>(seed))), the_key, the_cluster};
    if (adjust) adjust(o);
    id = o.key.id();
    e = make_endpoint(f.rt, f.net, o);
    e->serve(method::ping, [](caller, message m) { return echo(std::move(m)); });
    e->serve(method::gossip, [](caller c, message m) { return about(std::move(c), std::move(m)); });
    e->serve(method::join, [](caller c, message m) { return about(std::move(c), std::move(m)); });
    e->serve(method::member_info, [](caller, message m) { return echo(std::move(m)); });
    e->serve(method::table_read, [this](caller, message) { return slow(*this); });
    e->serve(method::table_accept, [](caller, message m) { return fails(std::move(m)); });
    e->on_connection([this](node_id who, bool up) { events.emplace_back(who, up); });
    REQUIRE(e->start());
  }
  ~node() {
    if (e) stop();
  }
  void stop() {
    f.run(e->stop());
    e.reset();
  }
  static task<result<message>> echo(message m) { co_return m; }
  static task<result<message>> about(caller c, message) {
    co_return message{c.node.hex() + (c.by_invite ? " invite " + c.invite_id : ""), nullptr};
  }
  static task<result<message>> slow(node& n) {
    struct drop {
      int& count;
      bool armed = true;
      ~drop() { count += armed; }
    } d{n.dropped};
    ++n.started;
    co_await sleep_for(n.f.rt, 30s);
    d.armed = false;
    co_return message{};
  }
  static task<result<message>> fails(message m) {
    co_return fail(static_cast<errc>(std::stoi(m.head)), "because " + m.head);
  }
  result<message> call(node_id to, method m, message msg, nanoseconds within = 20s, priority p = priority::metadata) {
    return f.run(e->call(to, m, std::move(msg), {p, f.in(within)}));
  }
  std::size_t count(node_id who, bool up) const {
    return static_cast<std::size_t>(std::count(events.begin(), events.end(), std::pair(who, up)));
  }
};

void connect(node& a, node& b) {
  a.e->keep(b.id, {b.e->local()});
  REQUIRE(a.f.until([&] { return a.e->connected(b.id) && b.e->connected(a.id); }, 5s));
}

// A stranger: sends these bytes and counts what comes back until the end.
task<std::pair<std::size_t, bool>> stranger(fixture& f, std::string address, bytes what, nanoseconds patience) {
  auto s = co_await f.net.connect(address, f.in(5s));
  if (!s) co_return std::pair<std::size_t, bool>(0, false);
  bytes_view one[] = {what};
  (void)co_await (*s)->write(one);
  std::shared_ptr<byte_stream> stream(std::move(*s));
  bool late = false;
  auto timer = f.clk.call_at(f.in(patience), [stream, &late] { late = true, stream->close(); });
  std::size_t got = 0;
  char b[512];
  for (;;) {
    auto n = co_await stream->read_some(b);
    if (!n || *n == 0) break;
    got += *n;
  }
  f.clk.cancel(timer);
  co_return std::pair(got, !late);
}

bytes invite_id_of(fixture& f, const bytes& key = the_key) { return make_invite_id(key, f.rnd); }

bytes hello_of(fixture& f, const bytes& key, bytes invite = {}) {
  self_description s{crypto::node_key::from_seed(bytes(32, 'z')), the_cluster, 1};
  return initiator(s, {key, std::move(invite), false}, f.rnd).first();
}

}  // namespace

TEST_CASE("calls go both ways over one connection and know who calls") {
  fixture f;
  node a(f, 1), b(f, 2);
  connect(a, b);
  auto r = a.call(b.id, method::ping, {"hello", share("body")});
  REQUIRE(r);
  CHECK(r->head == "hello");
  CHECK(*r->body == "body");
  CHECK(a.call(b.id, method::gossip, {})->head == a.id.hex());
  CHECK(b.call(a.id, method::gossip, {})->head == b.id.hex());
  CHECK(a.call(a.id, method::gossip, {})->head == a.id.hex());  // itself
  CHECK(a.e->peers() == std::vector{b.id});
  CHECK(a.e->peer_address(b.id) == b.e->local());
  CHECK(a.call(b.id, method::block_put, {}).failed_with(errc::not_implemented));
  CHECK(f.run(a.e->call(b.id, method::ping, {}, {})).failed_with(errc::invalid_argument));
  CHECK(a.call(node_id(), method::ping, {}).failed_with(errc::unavailable));
  CHECK(a.count(b.id, true) == 1);
  CHECK(a.e->quality(b.id).rtt > 0ns);
  CHECK(a.e->quality(b.id).rtt_p95 > 0ns);
}

TEST_CASE("large messages arrive whole, beyond 16 MiB they are refused") {
  fixture f;
  node a(f, 1), b(f, 2);
  connect(a, b);
  for (std::size_t n : {4u << 20, 16u << 20}) {
    bytes body(n, '\0');
    f.rnd.fill(body.data(), body.size());
    auto sent = share(std::move(body));
    auto r = a.call(b.id, method::ping, {"", sent});
    REQUIRE(r);
    CHECK(*r->body == *sent);
  }
  CHECK(a.call(b.id, method::ping, {"x", share(bytes(16 << 20, 'x'))}).failed_with(errc::too_large));
  CHECK(a.call(b.id, method::ping, {"still there", nullptr}));
  CHECK(a.e->quality(b.id).send_rate > 0);
}

TEST_CASE("a thousand calls at once, each with its own answer") {
  fixture f;
  node a(f, 1), b(f, 2);
  connect(a, b);
  std::vector<std::optional<result<message>>> answers(3000);
  task_group g(f.rt);
  for (std::size_t i = 0; i < answers.size(); ++i)
    g.spawn("call", fixture::store(answers[i], (i % 2 ? a : b).e->call((i % 2 ? b : a).id, method::ping, {std::to_string(i), nullptr},
                                                                      {priority::metadata, f.in(20s)})));
  REQUIRE(f.until([&] { return g.size() == 0; }, 20s));
  for (std::size_t i = 0; i < answers.size(); ++i) {
    REQUIRE(*answers[i]);
    CHECK((*answers[i])->head == std::to_string(i));
  }
}

TEST_CASE("a control call overtakes queued blocks") {
  fixture f;
  node a(f, 1, [](options& o) { o.send_limit = 4 << 20; }), b(f, 2);
  connect(a, b);
  std::vector<std::optional<result<message>>> bulk(6);
  task_group g(f.rt);
  for (auto& r : bulk)
    g.spawn("bulk", fixture::store(r, a.e->call(b.id, method::gossip, {{}, share(bytes(1 << 20, 'x'))}, {priority::foreground, f.in(20s)})));
  mono_time began = f.clk.now();
  REQUIRE(f.until([&] { return a.e->quality(b.id).bytes_sent > 300000; }, 5s));
  CHECK(a.e->quality(b.id).queued_bytes > 1 << 20);
  mono_time t = f.clk.now();
  REQUIRE(a.call(b.id, method::ping, {"now", nullptr}, 20s, priority::control));
  CHECK(f.clk.now() - t < 250ms);
  CHECK_FALSE(bulk.back());
  REQUIRE(f.until([&] { return g.size() == 0; }, 20s));
  CHECK(f.clk.now() - began > 1s);  // and the limit was kept: 6 MiB at 4 MiB/s
  for (auto& r : bulk) CHECK(*r);
}

TEST_CASE("a deadline ends the call here and the work there") {
  fixture f;
  node a(f, 1), b(f, 2);
  connect(a, b);
  mono_time t = f.clk.now();
  CHECK(a.call(b.id, method::table_read, {}, 200ms).failed_with(errc::timed_out));
  CHECK(f.clk.now() - t < 1s);
  CHECK(f.until([&] { return b.dropped == 1; }, 2s));
  CHECK(a.call(b.id, method::ping, {"on", nullptr}));
  CHECK(a.call(a.id, method::table_read, {}, 200ms).failed_with(errc::timed_out));
  CHECK(f.until([&] { return a.dropped == 1; }, 2s));
}

TEST_CASE("a cancelled call is dropped at the other side") {
  fixture f;
  node a(f, 1), b(f, 2);
  connect(a, b);
  std::optional<result<message>> r;
  task_group g(f.rt);
  g.spawn("call", fixture::store(r, a.e->call(b.id, method::table_read, {}, {priority::metadata, f.in(20s)})));
  REQUIRE(f.until([&] { return b.started == 1; }, 5s));
  g.cancel();
  CHECK(f.until([&] { return b.dropped == 1 && g.size() == 0; }, 2s));
  CHECK_FALSE(r);
}

TEST_CASE("every error code travels with its sentence") {
  fixture f;
  node a(f, 1), b(f, 2);
  connect(a, b);
  for (errc c : all_errcs()) {
    auto n = std::to_string(static_cast<int>(c));
    auto r = a.call(b.id, method::table_accept, {n, nullptr});
    REQUIRE_FALSE(r);
    CHECK(r.error().code == (c == errc::cancelled ? errc::outcome_unknown : c));
    CHECK(r.error().detail == "because " + n);
  }
}

TEST_CASE("a broken connection: unknown for what was sent, unavailable afterwards; and it comes back") {
  fixture f;
  node a(f, 1);
  auto b = std::make_unique<node>(f, 2);
  connect(a, *b);
  node_id id = b->id;
  std::string address = b->e->local();
  std::optional<result<message>> r;
  task_group g(f.rt);
  g.spawn("call", fixture::store(r, a.e->call(id, method::table_read, {}, {priority::metadata, f.in(20s)})));
  REQUIRE(f.until([&] { return b->started == 1; }, 5s));
  b.reset();
  REQUIRE(f.until([&] { return r.has_value(); }, 5s));
  CHECK(r->failed_with(errc::outcome_unknown));
  CHECK(a.call(id, method::ping, {}).failed_with(errc::unavailable));
  CHECK(a.count(id, false) == 1);
  f.until([] { return false; }, 600ms);
  node again(f, 2, {}, address);
  REQUIRE(f.until([&] { return a.e->connected(id); }, 10s));
  CHECK(a.call(id, method::ping, {"back", nullptr}));
  CHECK(a.count(id, true) == 2);
}

TEST_CASE("a peer that was restarted and dials is believed at once") {
  fixture f;
  node a(f, 1);
  auto b = std::make_unique<node>(f, 2);
  connect(a, *b);
  node twin(f, 2);  // the same key: another start of it, while the first one's connection still stands
  twin.e->keep(a.id, {a.e->local()});
  REQUIRE(f.until([&] { return twin.e->connected(a.id); }, 5s));
  CHECK(f.until([&] { return a.count(b->id, true) == 2 && a.count(b->id, false) == 1; }, 2s));
  CHECK(twin.call(a.id, method::ping, {}));
}

TEST_CASE("who does not know the cluster key is closed without a byte") {
  fixture f;
  node a(f, 1), b(f, 2, [](options& o) { o.cluster_key = bytes(32, 'q'); });
  auto [got, ended] = f.run(stranger(f, a.e->local(), hello_of(f, bytes(32, 'q')), 2s));
  CHECK(got == 0);
  CHECK(ended);
  CHECK(a.e->refused().count == 1);
  CHECK(a.e->refused().last_from.starts_with("127.0.0.1:"));
  b.e->keep(a.id, {a.e->local()});
  CHECK(f.until([&] { return f.was_logged("another cluster key?"); }, 5s));
  CHECK_FALSE(b.e->connected(a.id));
  CHECK_FALSE(a.e->connected(b.id));
}

TEST_CASE("a recording of a member's first message gets no answer") {
  fixture f;
  node a(f, 1);
  bytes recorded = hello_of(f, the_key);
  auto first = f.run(stranger(f, a.e->local(), recorded + bytes(proof_bytes, 'x'), 2s));
  CHECK(first.first == reply_bytes);  // and then nothing: the proof is wrong
  CHECK(first.second);
  auto second = f.run(stranger(f, a.e->local(), recorded, 2s));
  CHECK(second.first == 0);
  CHECK(second.second);
  CHECK(a.e->peers().empty());
}

TEST_CASE("ids of invites: what another key made, or was altered, is none") {
  fixture f;
  bytes id = invite_id_of(f);
  CHECK(id.size() == invite_id_bytes);
  CHECK(is_invite_id(id, the_key));
  CHECK_FALSE(is_invite_id(id, bytes(32, 'o')));
  CHECK_FALSE(is_invite_id(id, {}));
  for (std::size_t i = 0; i < id.size(); ++i) {
    bytes other = id;
    other[i] = static_cast<char>(other[i] ^ 1);
    CHECK_FALSE(is_invite_id(other, the_key));
    CHECK_FALSE(is_invite_id(bytes_view(id).substr(0, i), the_key));
  }
  CHECK_FALSE(is_invite_id(id + "x", the_key));
  CHECK(invite_id_of(f) != id);
}

TEST_CASE("strangers of many kinds: bounded, closed, and members still get in") {
  fixture f;
  node a(f, 1), b(f, 2);
  std::vector<bytes> forms = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(4, '\0'), bytes(100000, '\xff'), "SSH-2.0-x\r\n",
                              "grw1" + bytes(102, '\0'), "grw1" + bytes(102, '\xff'), hello_of(f, the_key, "unknown invite"), hello_of(f, the_key, invite_id_of(f))};
  for (int i = 0; i < 50; ++i) {
    bytes b2(106 + f.rnd.below(400), '\0');
    f.rnd.fill(b2.data(), b2.size());
    if (i % 2) std::memcpy(b2.data(), "grw1", 4);
    forms.push_back(b2);
  }
  bytes altered = hello_of(f, the_key);
  for (std::size_t at = 4; at < hello_bytes; at += 5) {
    forms.push_back(altered);
    forms.back()[at] = static_cast<char>(altered[at] ^ 0x40);
  }
  for (auto& form : forms) {
    auto [got, ended] = f.run(stranger(f, a.e->local(), form, 2s));
    CHECK(got == 0);
    CHECK(ended);
  }
  // Silent ones, more than there are places; some stop half-way.
  std::vector<std::optional<std::pair<std::size_t, bool>>> silent(80);
  task_group g(f.rt);
  for (std::size_t i = 0; i < silent.size(); ++i)
    g.spawn("silent", fixture::store(silent[i], stranger(f, a.e->local(), i % 2 ? bytes() : bytes("grw1half"), 12s)));
  f.until([] { return false; }, 200ms);
  mono_time t = f.clk.now();
  connect(b, a);
  CHECK(f.clk.now() - t < 4s);
  REQUIRE(f.until([&] { return g.size() == 0; }, 12s));
  for (auto& s : silent) {
    CHECK(s->first == 0);
    CHECK(s->second);  // after 5 s at the latest, it was closed there
  }
}

namespace {
task<std::optional<bytes>> secret_of(std::map<bytes, bytes>& invites, bytes id) {
  auto at = invites.find(id);
  co_return at == invites.end() ? std::nullopt : std::optional(at->second);
}
}  // namespace

TEST_CASE("an invite opens the door while it is known, for joining only") {
  fixture f;
  const bytes one = invite_id_of(f), two = invite_id_of(f);
  std::map<bytes, bytes> invites{{one, bytes(32, 's')}};
  node a(f, 1), b(f, 2, [](options& o) { o.cluster_key.clear(), o.cluster = {}, o.listen.clear(); });
  a.e->on_invite([&](bytes id) { return secret_of(invites, std::move(id)); });
  auto join = [&](bytes id, bytes secret) {
    return f.run(b.e->call_with_invite(a.e->local(), std::move(id), std::move(secret), {"me", nullptr}, f.in(5s)));
  };
  auto r = join(one, bytes(32, 's'));
  REQUIRE(r);
  CHECK(r->peer == a.id);
  CHECK(r->answer.head == b.id.hex() + " invite " + one);
  CHECK(a.e->peers().empty());
  CHECK(a.events.empty());
  CHECK(join(one, bytes(32, 't')).failed_with(errc::access_denied));
  CHECK(join(two, bytes(32, 's')).failed_with(errc::access_denied));
  invites.clear();  // spent
  auto spent = join(one, bytes(32, 's'));
  REQUIRE(spent.failed_with(errc::access_denied));
  CHECK(spent.error().detail.find("wrong, spent, or older") != std::string::npos);
  CHECK(a.e->refused().count == 3);
  // The key was changed since it was made.
  invites[one] = bytes(32, 's');
  CHECK(join(one, bytes(32, 's')));
  a.e->set_cluster_keys({bytes(32, 'n'), the_key});
  CHECK(join(one, bytes(32, 's')).failed_with(errc::access_denied));
}

namespace {
// A lookup that takes long, as where the homes that know are dark.
struct lookups {
  fixture& f;
  int all = 0, now = 0, most = 0;
  static task<std::optional<bytes>> slow(lookups& l) {
    struct count {
      lookups& l;
      explicit count(lookups& x) : l(x) { ++l.all, l.most = std::max(l.most, ++l.now); }
      ~count() { --l.now; }
    } c{l};
    co_await sleep_for(l.f.rt, 4s);
    co_return std::nullopt;
  }
};

void besiege(fixture& f, node& a, task_group& g, std::vector<std::optional<std::pair<std::size_t, bool>>>& strangers, const std::function<bytes(std::size_t)>& hello) {
  for (std::size_t i = 0; i < strangers.size(); ++i) g.spawn("stranger", fixture::store(strangers[i], stranger(f, a.e->local(), hello(i), 12s)));
  f.until([] { return false; }, 300ms);
}
}  // namespace

TEST_CASE("ids of invites that no member made are looked up by nobody") {
  fixture f;
  lookups l{f};
  node a(f, 1), b(f, 2);
  a.e->on_invite([&](bytes) { return lookups::slow(l); });
  task_group g(f.rt);
  std::vector<std::optional<std::pair<std::size_t, bool>>> strangers(64);
  besiege(f, a, g, strangers, [&](std::size_t i) {
    bytes id(i % 2 ? 16 : 32, '\0');
    f.rnd.fill(id.data(), id.size());
    if (i % 3 == 0) id = invite_id_of(f, bytes(32, 'w'));
    return hello_of(f, the_key, id);
  });
  CHECK(l.all == 0);
  CHECK(g.size() == 0);  // all were closed at once
  mono_time t = f.clk.now();
  connect(b, a);
  CHECK(f.clk.now() - t < 1s);
  CHECK(a.e->refused().count == 64);
}

TEST_CASE("who knows the id of an invite only keeps no member out, and makes this node ask for two at a time") {
  fixture f;
  lookups l{f};
  node a(f, 1), b(f, 2);
  a.e->on_invite([&](bytes) { return lookups::slow(l); });
  const bytes id = invite_id_of(f);
  task_group g(f.rt);
  std::vector<std::optional<std::pair<std::size_t, bool>>> strangers(100);
  besiege(f, a, g, strangers, [&](std::size_t) { return hello_of(f, bytes(32, '?'), id); });
  CHECK(l.now == 2);
  CHECK(g.size() == 8);  // the others were closed at once
  mono_time t = f.clk.now();
  connect(b, a);
  CHECK(f.clk.now() - t < 1s);
  REQUIRE(f.until([&] { return g.size() == 0; }, 15s));
  CHECK(l.most == 2);
  CHECK(l.all <= 4);  // those that waited too long do not ask any more
}

TEST_CASE("whoever plays first messages of members and says no more keeps nobody out") {
  fixture f;
  node a(f, 1), b(f, 2);
  task_group g(f.rt);
  std::vector<std::optional<std::pair<std::size_t, bool>>> strangers(70);
  besiege(f, a, g, strangers, [&](std::size_t) { return hello_of(f, the_key); });
  CHECK(g.size() <= 32);
  mono_time t = f.clk.now();
  connect(b, a);
  CHECK(f.clk.now() - t < 1s);
  g.cancel();
  REQUIRE(f.until([&] { return g.size() == 0; }, 10s));
}

TEST_CASE("guests are few: the oldest makes room") {
  fixture f;
  node a(f, 1);
  a.e->serve(method::join, [&](caller, message) { return node::slow(a); });
  const bytes id = invite_id_of(f);
  std::map<bytes, bytes> invites{{id, bytes(32, 's')}};
  a.e->on_invite([&](bytes i) { return secret_of(invites, std::move(i)); });
  node b(f, 2, [](options& o) { o.cluster_key.clear(), o.cluster = {}, o.listen.clear(); });
  task_group g(f.rt);
  std::vector<std::optional<result<endpoint::joined>>> answers(20);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    g.spawn("guest", fixture::store(answers[i], b.e->call_with_invite(a.e->local(), id, bytes(32, 's'), {"me", nullptr}, f.in(20s))));
    REQUIRE(f.until([&] { return a.started == static_cast<int>(i) + 1; }, 5s));
  }
  REQUIRE(f.until([&] { return g.size() == 8; }, 2s));
  CHECK(a.dropped == 12);
  for (std::size_t i = 0; i < answers.size(); ++i) CHECK(answers[i].has_value() == (i < 12));
  g.cancel();
  REQUIRE(f.until([&] { return g.size() == 0; }, 5s));
}

TEST_CASE("a guest's request is small: more is refused at its first frame") {
  fixture f;
  node a(f, 1), b(f, 2, [](options& o) { o.cluster_key.clear(), o.cluster = {}, o.listen.clear(); });
  const bytes id = invite_id_of(f);
  std::map<bytes, bytes> invites{{id, bytes(32, 's')}};
  a.e->on_invite([&](bytes i) { return secret_of(invites, std::move(i)); });
  int asked = 0;
  a.e->serve(method::join, [&](caller, message m) { return ++asked, node::echo({std::to_string(m.size_bytes()), nullptr}); });
  auto join = [&](std::size_t head, std::size_t body) {
    return f.run(b.e->call_with_invite(a.e->local(), id, bytes(32, 's'), {bytes(head, 'h'), body ? share(bytes(body, 'b')) : nullptr}, f.in(5s)));
  };
  auto most = join(60 << 10, 4 << 10);
  REQUIRE(most);
  CHECK(most->answer.head == std::to_string(64 << 10));
  CHECK(join((64 << 10) + 1, 0).failed_with(errc::too_large));
  CHECK(join(2, 64 << 10).failed_with(errc::too_large));
  CHECK(join(1, 15 << 20).failed_with(errc::too_large));
  CHECK(asked == 1);
}

TEST_CASE("both dial at once: one connection remains, and no call is lost") {
  for (int round = 0; round < 10; ++round) {
    fixture f;
    node a(f, 1), b(f, 2);
    a.e->keep(b.id, {b.e->local()});
    b.e->keep(a.id, {a.e->local()});
    std::vector<std::optional<result<message>>> answers(40);
    task_group g(f.rt);
    REQUIRE(f.until([&] { return a.e->connected(b.id) && b.e->connected(a.id); }, 5s));
    for (std::size_t i = 0; i < answers.size(); ++i)
      g.spawn("call", fixture::store(answers[i], (i % 2 ? a : b).e->call((i % 2 ? b : a).id, method::ping, {std::to_string(i), nullptr},
                                                                        {priority::metadata, f.in(5s)})));
    REQUIRE(f.until([&] { return g.size() == 0; }, 5s));
    for (auto& r : answers) CHECK(*r);
    if (round == 0) f.until([] { return false; }, 3s);
    CHECK(a.call(b.id, method::ping, {}));
    CHECK(a.events == std::vector{std::pair(b.id, true)});  // no flapping
    CHECK(b.events == std::vector{std::pair(a.id, true)});
    // Both kept the one that the smaller id opened: one end of it is that node's dialled address.
    const node& small = a.id < b.id ? a : b;
    const node& large = a.id < b.id ? b : a;
    CHECK(f.until([&] { return small.e->peer_address(large.id) == large.e->local(); }, 2s));
    CHECK(f.until([&] { return large.e->peer_address(small.id) != small.e->local(); }, 2s));
  }
}

TEST_CASE("no common protocol version: refused, and the reason is said") {
  fixture f;
  node a(f, 1), b(f, 2, [](options& o) { o.version = 9, o.version_oldest = 8; });
  b.e->keep(a.id, {a.e->local()});
  CHECK(f.until([&] { return f.was_logged("speaks protocol versions 1, this node 8 to 9: upgrade the older one"); }, 5s));
  CHECK_FALSE(b.e->connected(a.id));
}

TEST_CASE("another node at the address, and this node itself, are not taken for the peer") {
  fixture f;
  node a(f, 1), b(f, 2);
  a.e->keep(node_id::from_bytes(bytes(32, 'n')).value(), {b.e->local(), a.e->local()});
  CHECK(f.until([&] { return f.was_logged("answers, not") && f.was_logged("back to this node"); }, 5s));
  f.until([&] { return b.e->peers().empty(); }, 2s);
  CHECK(a.e->peers().empty());
}

TEST_CASE("the former cluster key is good for fetching the new one only") {
  fixture f;
  node a(f, 1), b(f, 2), removed(f, 3);
  bytes fresh(32, 'n');
  a.e->set_cluster_keys({fresh, the_key});
  a.e->on_former_key([&](node_id n) { return n == b.id; });
  b.e->keep(a.id, {a.e->local()});
  REQUIRE(f.until([&] { return b.e->connected(a.id); }, 5s));
  CHECK_FALSE(a.e->connected(b.id));
  CHECK(b.call(a.id, method::ping, {}).failed_with(errc::access_denied));
  CHECK(b.call(a.id, method::member_info, {"key?", nullptr}));
  CHECK(b.e->newer_key_at() == std::vector{a.id});
  CHECK(a.e->newer_key_at().empty());
  b.e->set_cluster_keys({fresh, the_key});
  CHECK(b.e->newer_key_at().empty());
  REQUIRE(f.until([&] { return b.e->connected(a.id) && a.e->connected(b.id); }, 5s));
  CHECK(b.call(a.id, method::ping, {}));
  // Who was removed still has it.
  removed.e->keep(a.id, {a.e->local()});
  CHECK(f.until([&] { return f.was_logged("knows the former cluster key, but is no member"); }, 5s));
  f.until([&] { return removed.e->connected(a.id); }, 1s);
  CHECK_FALSE(removed.e->connected(a.id));
  CHECK_FALSE(removed.call(a.id, method::member_info, {"key?", nullptr}));
}

TEST_CASE("who knows a newer cluster key reaches one that slept and cannot dial, through several changes") {
  fixture f;
  const bytes second(32, 'n'), third(32, 'm');
  node slept(f, 1);
  node a(f, 2, [&](options& o) { o.cluster_key = third, o.former_keys = {second, the_key}; });
  a.e->on_former_key([&](node_id n) { return n == slept.id; });
  a.e->keep(slept.id, {slept.e->local()});
  REQUIRE(f.until([&] { return slept.e->newer_key_at() == std::vector{a.id}; }, 10s));
  CHECK_FALSE(a.e->connected(slept.id));
  CHECK(a.call(slept.id, method::ping, {}).failed_with(errc::unavailable));
  CHECK(slept.call(a.id, method::member_info, {"key?", nullptr}));
  CHECK(slept.call(a.id, method::ping, {}).failed_with(errc::access_denied));
  slept.e->set_cluster_keys({third, second, the_key});
  REQUIRE(f.until([&] { return a.e->connected(slept.id) && slept.e->connected(a.id); }, 10s));
  CHECK(a.call(slept.id, method::ping, {}));
  CHECK(slept.call(a.id, method::ping, {}));
}

TEST_CASE("who was removed and knows a former key keeps no newcomer out") {
  fixture f;
  node a(f, 1), b(f, 2, [](options& o) { o.cluster_key.clear(), o.cluster = {}, o.listen.clear(); });
  const bytes fresh(32, 'n');
  a.e->set_cluster_keys({fresh, the_key});
  const bytes one = [&] { return make_invite_id(fresh, f.rnd); }();
  std::map<bytes, bytes> invites{{one, bytes(32, 's')}};
  a.e->on_invite([&](bytes id) { return secret_of(invites, std::move(id)); });
  std::vector<std::optional<std::pair<std::size_t, bool>>> half(12);
  task_group g(f.rt);
  for (auto& h : half) g.spawn("half", fixture::store(h, stranger(f, a.e->local(), hello_of(f, the_key), 8s)));
  f.until([] { return false; }, 300ms);
  CHECK(f.run(b.e->call_with_invite(a.e->local(), one, bytes(32, 's'), {"me", nullptr}, f.in(4s))));
  CHECK(f.until([&] { return g.size() == 0; }, 12s));
}

TEST_CASE("more former cluster keys than count are left out") {
  fixture f;
  node a(f, 1), b(f, 2);
  a.e->on_former_key([](node_id) { return true; });
  std::vector<bytes> keys;
  for (std::size_t i = 0; i <= former_keys_max; ++i) keys.emplace_back(32, static_cast<char>('A' + i));
  keys.push_back(the_key);
  a.e->set_cluster_keys(keys);
  b.e->keep(a.id, {a.e->local()});
  CHECK(f.until([&] { return f.was_logged("another cluster key?"); }, 5s));
  CHECK_FALSE(b.e->connected(a.id));
}

TEST_CASE("forget() closes and stops dialling") {
  fixture f;
  node a(f, 1), b(f, 2);
  connect(a, b);
  a.e->forget(b.id);
  CHECK_FALSE(a.e->connected(b.id));
  f.until([] { return false; }, 700ms);
  CHECK_FALSE(a.e->connected(b.id));
  CHECK(b.count(a.id, false) == 1);
}

namespace {
task<void> many_calls(node& a, node_id to, int n, std::size_t size, int& failed) {
  for (int i = 0; i < n; ++i) {
    auto r = co_await a.e->call(to, method::ping, {bytes(size, 'x'), nullptr}, {priority::metadata, a.f.in(5s)});
    failed += !r;
  }
}
}  // namespace

TEST_CASE("cost of a call (prints)") {
  fixture f;
  node a(f, 1), b(f, 2);
  connect(a, b);
  int failed = 0;
  f.run(many_calls(a, b.id, 200, 1024, failed));
  for (int parallel : {1, 16}) {
    std::clock_t began = std::clock();
    task_group g(f.rt);
    for (int i = 0; i < parallel; ++i) g.spawn("calls", many_calls(a, b.id, 8000 / parallel, 1024, failed));
    REQUIRE(f.until([&] { return g.size() == 0; }, 20s));
    double us = static_cast<double>(std::clock() - began) * 1e6 / CLOCKS_PER_SEC / 8000;
    MESSAGE("1 KiB call and answer, " << parallel << " at a time: " << us << " us CPU on both sides together");
    CHECK(us < 1000);
  }
  CHECK(failed == 0);
  std::clock_t began = std::clock();
  mono_time t = f.clk.now();
  auto body = share(bytes(1 << 20, 'b'));
  for (int i = 0; i < 100; ++i) REQUIRE(a.call(b.id, method::gossip, {{}, body}));
  double s = static_cast<double>((f.clk.now() - t).count()) * 1e-9;
  MESSAGE("1 MiB bodies: " << 100 / s << " MiB/s, " << static_cast<double>(std::clock() - began) * 1e3 / CLOCKS_PER_SEC / 100
                           << " ms CPU each on both sides together");
}
