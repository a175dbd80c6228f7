#include <algorithm>
#include <deque>
#include <list>
#include <set>

#include "wire/connection.h"

namespace grenier::wire {

namespace {

constexpr std::size_t handshakes_max = 32;
// Guests know an invite's secret (or its id only, so far) or a former cluster key. So many of the handshakes may be theirs, and so many
// connections, for so long.
constexpr std::size_t guests_max = 8;
constexpr nanoseconds guest_time = 120s;
constexpr std::size_t lookups_max = 2;
// Beyond this pace whoever comes waits in the system's queue: a flood takes its share of this thread, not all of it.
constexpr std::size_t accepts_max = 100;
constexpr nanoseconds accepts_period = 100ms;
constexpr nanoseconds handshake_time = 5s, connect_time = 5s;
constexpr nanoseconds dial_pause_min = 200ms, dial_pause_max = 30s;
constexpr std::size_t hellos_remembered = 4096;
// Two connections as far apart as this were not opened at the same moment: who opened the newer one has lost the older one.
constexpr nanoseconds simultaneous = 20s;

// Closes the stream at the deadline, unless destroyed first.
class closing_time {
 public:
  closing_time(runtime& rt, std::shared_ptr<byte_stream> s, mono_time at)
      : rt_(rt), timer_(rt.clock().call_at(at, [s, late = late_] {
          *late = true;
          s->close();
        })) {}
  ~closing_time() { rt_.clock().cancel(timer_); }
  closing_time(const closing_time&) = delete;
  bool passed() const noexcept { return *late_; }

 private:
  runtime& rt_;
  std::shared_ptr<bool> late_ = std::make_shared<bool>(false);
  timer_id timer_;
};

task<result<bytes>> read_exactly(std::shared_ptr<byte_stream> s, std::size_t size_bytes) {
  bytes b(size_bytes, '\0');
  for (std::size_t got = 0; got < size_bytes;) {
    CO_TRY(std::size_t n, co_await s->read_some(std::span<char>(b).subspan(got)));
    if (n == 0) co_return fail(errc::access_denied, "the other side closed the connection");
    got += n;
  }
  co_return b;
}

task<result<void>> write_all(std::shared_ptr<byte_stream> s, bytes b) {
  bytes_view one[] = {b};
  co_return co_await s->write(one);
}

struct peer_entry {
  explicit peer_entry(runtime& rt) : changed(std::make_shared<wait_list>(rt)) {}
  std::shared_ptr<connection> current;
  std::shared_ptr<line_statistics> line = std::make_shared<line_statistics>();
  std::vector<std::string> addresses;
  bool kept = false;
  bool dialling = false;                // its task exists
  std::shared_ptr<wait_list> changed;   // connection made or lost, addresses, kept
  std::string last_failure;
};

class endpoint_impl final : public endpoint {
 public:
  endpoint_impl(runtime& rt, network& net, options o)
      : rt_(rt),
        net_(net),
        options_(std::move(o)),
        self_{options_.key, options_.cluster, rt.random().next(), options_.version, options_.version_oldest},
        key_(options_.cluster_key),
        shared_{rt, task_group(rt), {}, rate_limit(options_.send_limit), rate_limit(options_.receive_limit)},
        lookups_(rt, lookups_max) {
    ASSERT(key_.empty() || key_.size() == 32);
    crypto::init();
  }

  void serve(method m, handler h) override { shared_.handlers[m] = std::move(h); }
  result<void> start() override;
  task<void> stop() override;
  std::string local() const override { return listener_ ? listener_->local() : std::string(); }
  void keep(node_id, std::vector<std::string> addresses) override;
  void forget(node_id) override;
  bool connected(node_id) const override;
  link_quality quality(node_id) const override;
  std::vector<node_id> peers() const override;
  std::string peer_address(node_id) const override;
  task<result<message>> call(node_id, method, message, call_options) override;
  task<result<joined>> call_with_invite(std::string address, bytes invite_id, bytes secret, message, mono_time deadline) override;
  void on_invite(std::move_only_function<task<std::optional<bytes>>(bytes)> f) override { invite_secret_ = std::move(f); }
  void on_connection(std::move_only_function<void(node_id, bool)> f) override { told_ = std::move(f); }
  void set_cluster_key(bytes key) override;
  void on_former_key(std::move_only_function<bool(node_id)> f) override { is_member_ = std::move(f); }
  refusals refused() const override { return refused_; }

 private:
  struct handshake_slot {
    std::shared_ptr<byte_stream> stream;
    bool proved = false;
    bool guest = false;
    bool closing = false;  // was told to go
  };
  using slot = std::list<handshake_slot>::iterator;
  struct slot_guard {
    endpoint_impl& e;
    slot at;
    ~slot_guard() { e.handshakes_.erase(at); }
  };
  struct local_call {
    std::shared_ptr<waiter> wake;
    std::optional<result<message>> answer;
  };

  task<void> accept_loop();
  bool make_room();
  task<void> greet(slot);
  task<std::optional<credential>> recognise(slot, bytes first, hello h);
  task<std::optional<credential>> recognise_guest(slot, bytes first, bytes invite_id);
  bool enter_as_guest(slot);
  void refuse(const std::string& from, const std::string& why);
  task<void> dial_loop(node_id);
  task<result<std::shared_ptr<connection>>> dial(std::string address, credential, std::optional<node_id> expected, mono_time deadline);
  task<result<message>> call_self(method, message, call_options);
  task<void> run_local(std::shared_ptr<local_call>, method, message, mono_time deadline);
  std::shared_ptr<connection> make_connection(std::shared_ptr<byte_stream>, session, nanoseconds round_trip);
  void begin(std::shared_ptr<connection>);
  void begin_guest(std::shared_ptr<connection>);
  void install(std::shared_ptr<connection>);
  void connection_closed(connection&);
  void tell(node_id, bool connected);
  void drop_if_unused(node_id);
  bool seen_before(const bytes& open_key);
  // Only members get the new cluster key for the former one.
  bool may_use_former(node_id n) { return is_member_ && is_member_(n); }
  peer_entry& entry(node_id id) { return peers_.try_emplace(id, rt_).first->second; }
  const peer_entry* find(node_id id) const {
    auto at = peers_.find(id);
    return at == peers_.end() ? nullptr : &at->second;
  }

  runtime& rt_;
  network& net_;
  options options_;
  self_description self_;
  bytes key_, former_key_;
  shared_services shared_;
  std::shared_ptr<stream_listener> listener_;
  bool stopping_ = false;
  std::map<node_id, peer_entry> peers_;
  std::map<std::uint64_t, std::shared_ptr<connection>> connections_;  // all that are open, by number
  std::uint64_t next_number_ = 1;
  std::list<handshake_slot> handshakes_;  // the oldest first
  semaphore lookups_;
  std::set<bytes> hellos_;
  std::deque<bytes> hellos_order_;
  refusals refused_;
  std::move_only_function<task<std::optional<bytes>>(bytes)> invite_secret_;
  std::move_only_function<void(node_id, bool)> told_;
  std::move_only_function<bool(node_id)> is_member_;
};

// ------------------------------------------------------------------------------------------------- life

result<void> endpoint_impl::start() {
  if (options_.listen.empty()) return {};
  TRY(auto l, net_.listen(options_.listen));
  listener_ = std::move(l);
  shared_.group.spawn("wire accept", accept_loop());
  return {};
}

task<void> endpoint_impl::stop() {
  stopping_ = true;
  if (listener_) listener_->close();
  for (auto& h : handshakes_) h.stream->close();
  auto all = connections_;
  for (auto& [number, c] : all) c->close("stopping");
  shared_.group.cancel();
  co_await shared_.group.join();
}

void endpoint_impl::tell(node_id id, bool up) {
  if (told_ && !stopping_) told_(id, up);
}

void endpoint_impl::drop_if_unused(node_id id) {
  auto at = peers_.find(id);
  if (at != peers_.end() && !at->second.kept && !at->second.dialling && !at->second.current) peers_.erase(at);
}

// ------------------------------------------------------------------------------------------------- which connection counts

std::shared_ptr<connection> endpoint_impl::make_connection(std::shared_ptr<byte_stream> stream, session s, nanoseconds round_trip) {
  // An invite's connection is nobody's line; the statistics of a peer outlive its connections.
  auto line = s.by_invite || s.peer_former ? std::make_shared<line_statistics>() : entry(s.peer).line;
  auto c = std::make_shared<connection>(shared_, std::move(stream), std::move(s), next_number_++, std::move(line));
  c->add_round_trip(round_trip, true);
  return c;
}

void endpoint_impl::begin(std::shared_ptr<connection> c) {
  connections_[c->number()] = c;
  c->start([this](connection& closed) { connection_closed(closed); });
}

// Few and not for long, whatever they do: the oldest makes room.
void endpoint_impl::begin_guest(std::shared_ptr<connection> c) {
  std::vector<std::shared_ptr<connection>> guests;
  for (auto& [number, other] : connections_)
    if (!other->who().initiator && (other->who().by_invite || other->who().peer_former)) guests.push_back(other);
  if (guests.size() >= guests_max) guests.front()->close("other guests came");
  begin(c);
  rt_.clock().call_at(rt_.now() + guest_time, [weak = std::weak_ptr(c)] {
    if (auto guest = weak.lock()) guest->close("its time as a guest is over");
  });
}

// Both ends judge alike. Another start of the peer, or a connection opened long after the present one: the peer has lost the
// present one. Two that cross: the one whose initiator has the smaller id.
void endpoint_impl::install(std::shared_ptr<connection> c) {
  node_id id = c->who().peer;
  begin(c);
  if (c->closed()) return;
  peer_entry& p = entry(id);
  auto old = p.current;
  if (!old) {
    p.current = c;
    p.last_failure.clear();
    p.changed->wake_all();
    return tell(id, true);
  }
  bool dead = old->who().peer_instance != c->who().peer_instance || c->established() - old->established() > simultaneous ||
              old->who().initiator == c->who().initiator;
  bool smaller_is_self = self_.key.id() < id;
  if (dead) {
    p.current = c;
    old->close("the peer opened another one");
    tell(id, false);
    if (!c->closed()) tell(id, true);
  } else if (c->who().initiator == smaller_is_self) {
    p.current = c;
    old->retire();
  } else {
    c->retire();
  }
}

void endpoint_impl::connection_closed(connection& c) {
  node_id id = c.who().peer;
  connections_.erase(c.number());
  auto at = peers_.find(id);
  if (at == peers_.end()) return;
  if (at->second.current.get() == &c) {
    at->second.current.reset();
    at->second.changed->wake_all();
    tell(id, false);
  }
  drop_if_unused(id);
}

// ------------------------------------------------------------------------------------------------- strangers

task<void> endpoint_impl::accept_loop() {
  mono_time period = rt_.now();
  std::size_t accepted = 0;
  while (!stopping_) {
    if (rt_.now() - period >= accepts_period) period = rt_.now(), accepted = 0;
    if (++accepted > accepts_max) {
      co_await sleep_until(rt_, period + accepts_period);
      continue;
    }
    auto s = co_await listener_->accept();
    if (stopping_ || s.failed_with(errc::cancelled)) co_return;
    if (!s) {  // out of descriptors, for instance
      co_await sleep_for(rt_, 100ms);
      continue;
    }
    if (!make_room()) continue;
    auto at = handshakes_.insert(handshakes_.end(), handshake_slot{std::shared_ptr<byte_stream>(std::move(*s))});
    shared_.group.spawn("wire handshake", greet(at));
  }
}

// For one more handshake. Whoever has proved nothing may have to go: chosen at random, so that silence holds no door shut. If all have
// proved something, the oldest: only who plays recordings, or knows a key and stops there, takes so long.
bool endpoint_impl::make_room() {
  if (handshakes_.size() < handshakes_max) return true;
  std::vector<handshake_slot*> all, unproved;
  for (auto& h : handshakes_) {
    if (h.closing) continue;
    all.push_back(&h);
    if (!h.proved) unproved.push_back(&h);
  }
  if (!all.empty()) {
    handshake_slot& goes = unproved.empty() ? *all.front() : *unproved[rt_.random().below(unproved.size())];
    goes.closing = true;
    goes.stream->close();
  }
  return handshakes_.size() < 2 * handshakes_max;  // else those that were told to go have not gone yet
}

bool endpoint_impl::enter_as_guest(slot at) {
  auto guests = std::count_if(handshakes_.begin(), handshakes_.end(), [](const handshake_slot& h) { return h.guest; });
  return at->guest = static_cast<std::size_t>(guests) < guests_max;
}

bool endpoint_impl::seen_before(const bytes& open_key) {
  if (!hellos_.insert(open_key).second) return true;
  hellos_order_.push_back(open_key);
  if (hellos_order_.size() > hellos_remembered) {
    hellos_.erase(hellos_order_.front());
    hellos_order_.pop_front();
  }
  return false;
}

void endpoint_impl::refuse(const std::string& from, const std::string& why) {
  ++refused_.count;
  refused_.last_from = from;
  if (refused_.count <= 10 || refused_.count % 100 == 0) rt_.log(log_level::warning, "wire: " + from + " was refused: " + why);
}

// What this hello proves; nothing: a stranger.
task<std::optional<credential>> endpoint_impl::recognise(slot at, bytes first, hello h) {
  if (hellos_.contains(h.open_key)) co_return std::nullopt;  // a recording
  std::optional<credential> c;
  bool invited = !h.invite_id.empty();
  if (!invited && responder::proves(first, key_)) {
    c = credential{key_, {}, false};
  } else if (!invited && responder::proves(first, former_key_)) {
    if (!enter_as_guest(at)) co_return std::nullopt;
    c = credential{former_key_, {}, true};
  } else if (invited && invite_secret_ && (is_invite_id(h.invite_id, key_) || is_invite_id(h.invite_id, former_key_))) {
    if (!enter_as_guest(at)) co_return std::nullopt;
    c = co_await recognise_guest(at, std::move(first), h.invite_id);
    if (at->closing) co_return std::nullopt;
  }
  if (!c) {
    refuse(at->stream->peer(), std::string("it does not know the ") + (invited ? "secret of an invite" : "cluster key"));
    co_return std::nullopt;
  }
  if (seen_before(h.open_key)) co_return std::nullopt;  // came twice while the invite was looked up
  co_return c;
}

// The id is a member's work, but everybody on the way of a former guest can have seen it: few may make this node ask others.
task<std::optional<credential>> endpoint_impl::recognise_guest(slot at, bytes first, bytes invite_id) {
  auto permit = co_await lookups_.acquire(1, rt_.now() + handshake_time);
  if (!permit || at->closing || stopping_) co_return std::nullopt;
  auto secret = co_await invite_secret_(invite_id);
  if (!secret || !responder::proves(first, *secret)) co_return std::nullopt;
  co_return credential{*secret, invite_id, false};
}

task<void> endpoint_impl::greet(slot at) {
  slot_guard leaves{*this, at};
  auto stream = at->stream;
  closing_time limit(rt_, stream, rt_.now() + handshake_time);
  auto first = co_await read_exactly(stream, 4);
  if (!first || !begins_like_hello(*first)) co_return stream->close();
  auto rest = co_await read_exactly(stream, hello_bytes - 4);
  if (!rest) co_return stream->close();
  bytes whole = *first + *rest;
  auto h = hello::parse(whole);
  if (!h) co_return stream->close();
  auto secret = co_await recognise(at, whole, *h);
  if (!secret || limit.passed()) co_return stream->close();
  at->proved = true;
  responder r(self_, rt_.random());
  auto reply = r.on_hello(whole, std::move(*secret));
  if (!reply) co_return stream->close();
  mono_time asked = rt_.now();
  if (auto ok = co_await write_all(stream, *reply); !ok) co_return stream->close();
  auto proof = co_await read_exactly(stream, proof_bytes);
  if (!proof) co_return stream->close();
  nanoseconds round_trip = rt_.now() - asked;
  auto end = r.on_proof(*proof);
  if (!end) co_return stream->close();
  if (end->session && end->session->peer_former && !may_use_former(end->session->peer)) {
    refuse(stream->peer(), "node " + end->session->peer.short_hex() + " knows the former cluster key, but is no member");
    co_return stream->close();
  }
  auto ok = co_await write_all(stream, end->verdict);
  if (!ok || !end->session || stopping_ || limit.passed()) {
    if (!end->session) rt_.log(log_level::warning, "wire: " + stream->peer() + " was refused: " + end->session.error().detail);
    co_return stream->close();
  }
  auto c = make_connection(stream, std::move(*end->session), round_trip);
  if (at->guest)
    begin_guest(std::move(c));
  else
    install(std::move(c));
}

// ------------------------------------------------------------------------------------------------- dialling

task<result<std::shared_ptr<connection>>> endpoint_impl::dial(std::string address, credential with, std::optional<node_id> expected,
                                                              mono_time deadline) {
  CO_TRY(auto opened, co_await net_.connect(address, std::min(deadline, rt_.now() + connect_time)));
  std::shared_ptr<byte_stream> stream(std::move(opened));
  closing_time limit(rt_, stream, std::min(deadline, rt_.now() + handshake_time));
  bool invited = !with.invite_id.empty();
  auto explain = [&](error e, const char* silent) {
    stream->close();
    if (limit.passed()) return error(errc::timed_out, address + " did not finish the handshake in time");
    if (e == errc::access_denied || e == errc::protocol) return error(e.code, address + ": " + e.detail + silent);
    return error(errc::unavailable, address + ": " + e.detail);
  };
  initiator i(self_, std::move(with), rt_.random());
  mono_time asked = rt_.now();
  if (auto ok = co_await write_all(stream, i.first()); !ok) co_return fail(explain(ok.error(), ""));
  auto reply = co_await read_exactly(stream, reply_bytes);
  if (!reply) {
    // A reset while the refusal travels says the same as an end of the stream.
    error e = reply.error() == errc::unavailable ? error(errc::access_denied, "the other side closed the connection") : reply.error();
    co_return fail(explain(e, invited ? " without a word: the invite is wrong or spent" : " without a word: another cluster key?"));
  }
  nanoseconds round_trip = rt_.now() - asked;
  auto proof = i.on_reply(*reply);
  if (!proof) co_return fail(explain(proof.error(), ""));
  if (auto ok = co_await write_all(stream, *proof); !ok) co_return fail(explain(ok.error(), ""));
  auto verdict = co_await read_exactly(stream, verdict_bytes);
  if (!verdict) co_return fail(explain(verdict.error(), " before it accepted this node"));
  auto s = i.on_verdict(*verdict);
  if (!s) co_return fail(explain(s.error(), ""));
  if (expected && s->peer != *expected)
    co_return fail(explain({errc::access_denied, "node " + s->peer.short_hex() + " answers, not " + expected->short_hex()}, ""));
  if (stopping_) co_return fail(errc::cancelled);
  co_return make_connection(std::move(stream), std::move(*s), round_trip);
}

task<void> endpoint_impl::dial_loop(node_id id) {
  nanoseconds pause = dial_pause_min;
  std::size_t attempt = 0;
  for (;;) {
    auto at = peers_.find(id);
    if (at == peers_.end()) co_return;
    peer_entry& p = at->second;
    if (stopping_ || !p.kept) {
      p.dialling = false;
      drop_if_unused(id);
      co_return;
    }
    auto changed = p.changed;
    if (p.current) {
      co_await changed->wait();
      // Both ends notice a loss at the same moment: they need not dial at the same moment.
      pause = dial_pause_min;
      co_await changed->wait(rt_.now() + nanoseconds(rt_.random().below(static_cast<std::uint64_t>(dial_pause_min.count()))));
      continue;
    }
    if (p.addresses.empty() || key_.empty()) {
      co_await changed->wait();
      continue;
    }
    std::size_t count = p.addresses.size();
    std::string address = p.addresses[attempt % count];
    // A peer that was away while the key was changed knows the former one only.
    bool former = !former_key_.empty() && (attempt / count) % 2 == 1;
    ++attempt;
    auto c = co_await dial(address, credential{former ? former_key_ : key_, {}, former}, id, rt_.now() + connect_time + handshake_time);
    at = peers_.find(id);
    if (at == peers_.end() || !at->second.kept || stopping_) {
      if (c) (*c)->close("not wanted any more");
      continue;
    }
    if (c && (*c)->who().peer_former && !may_use_former(id)) {
      (*c)->close("not a member");
      c = fail(errc::access_denied, "it knows the former cluster key, but is no member");
    }
    if (c) {
      (*c)->who().peer_former ? begin(std::move(*c)) : install(std::move(*c));
      continue;
    }
    if (c.error().detail != at->second.last_failure) {
      at->second.last_failure = c.error().detail;
      bool wrong = c.failed_with(errc::access_denied) || c.failed_with(errc::protocol);
      rt_.log(wrong ? log_level::warning : log_level::debug, "wire: dialling " + id.short_hex() + ": " + c.error().detail);
    }
    if (attempt % count != 0 || at->second.current) continue;
    auto jittered = nanoseconds(static_cast<std::int64_t>(static_cast<double>(pause.count()) * (0.5 + rt_.random().unit())));
    pause = co_await changed->wait(rt_.now() + jittered) ? dial_pause_min : std::min(pause * 2, dial_pause_max);
  }
}

void endpoint_impl::keep(node_id id, std::vector<std::string> addresses) {
  if (id == self_.key.id() || stopping_) return;
  peer_entry& p = entry(id);
  bool news = !p.kept || p.addresses != addresses;
  p.kept = true;
  p.addresses = std::move(addresses);
  if (!p.dialling) {
    p.dialling = true;
    shared_.group.spawn("wire dial", dial_loop(id));
  } else if (news && !p.current) {
    p.changed->wake_all();
  }
}

void endpoint_impl::forget(node_id id) {
  auto at = peers_.find(id);
  if (at == peers_.end()) return;
  at->second.kept = false;
  at->second.changed->wake_all();
  if (auto c = at->second.current) c->close("forgotten");
  drop_if_unused(id);
}

void endpoint_impl::set_cluster_key(bytes key) {
  ASSERT(key.size() == 32);
  if (key == key_) return;
  former_key_ = std::move(key_);
  key_ = std::move(key);
  auto all = connections_;
  for (auto& [number, c] : all)
    if (c->who().self_former) c->close("the cluster key was changed");
  for (auto& [id, p] : peers_) p.changed->wake_all();
}

// ------------------------------------------------------------------------------------------------- what is known of peers

bool endpoint_impl::connected(node_id id) const {
  auto p = find(id);
  return p && p->current;
}

link_quality endpoint_impl::quality(node_id id) const {
  link_quality q;
  auto p = find(id);
  if (!p) return q;
  q.connected = static_cast<bool>(p->current);
  q.rtt = p->line->round_trip;
  q.rtt_p95 = p->line->answer_p95();
  q.send_rate = p->line->send_rate;
  q.receive_rate = p->line->receive_rate;
  q.bytes_sent = p->line->bytes_sent;
  q.bytes_received = p->line->bytes_received;
  if (p->current) q.queued_bytes = p->current->queued_bytes();
  return q;
}

std::vector<node_id> endpoint_impl::peers() const {
  std::vector<node_id> ids;
  for (const auto& [id, p] : peers_)
    if (p.current) ids.push_back(id);
  return ids;
}

std::string endpoint_impl::peer_address(node_id id) const {
  auto p = find(id);
  return p && p->current ? p->current->peer_address() : std::string();
}

// ------------------------------------------------------------------------------------------------- calls

task<result<message>> endpoint_impl::call(node_id to, method m, message request, call_options o) {
  if (o.deadline == never) co_return fail(errc::invalid_argument, "a call without a deadline");
  if (request.size_bytes() > message_max_bytes) co_return fail(errc::too_large, "a message beyond 16 MiB");
  if (o.deadline <= rt_.now()) co_return fail(errc::timed_out);
  if (to == self_.key.id()) co_return co_await call_self(m, std::move(request), o);
  for (;;) {
    auto p = find(to);
    if (stopping_ || !p || !p->current) co_return fail(errc::unavailable, "no connection to " + to.short_hex());
    auto c = p->current;
    auto permit = co_await connection::admit(c, request.size_bytes(), o);
    if (!permit) co_return fail(errc::timed_out, "too much under way to " + to.short_hex());
    if (c->takes_calls()) co_return co_await connection::exchange(c, std::move(permit), m, std::move(request), o);
    // Replaced or closed while this one waited: the next connection, if there is one.
    p = find(to);
    if (p && p->current == c) co_return fail(errc::unavailable, "no connection to " + to.short_hex());
  }
}

task<void> endpoint_impl::run_local(std::shared_ptr<local_call> l, method m, message request, mono_time deadline) {
  caller who;
  who.node = self_.key.id();
  who.session = 0;
  who.deadline = deadline;
  l->answer = co_await shared_.handlers.at(m)(std::move(who), std::move(request));
  l->wake->resume(true);
}

task<result<message>> endpoint_impl::call_self(method m, message request, call_options o) {
  if (!shared_.handlers.contains(m)) co_return fail(errc::not_implemented, "method " + std::to_string(static_cast<int>(m)));
  if (stopping_) co_return fail(errc::unavailable, "stopping");
  auto l = std::make_shared<local_call>(std::make_shared<waiter>(rt_));
  struct drop_late {
    runtime& rt;
    local_call& l;
    task_group::handle running;
    ~drop_late() {
      if (!l.answer && !rt.killed()) running.cancel();
    }
  } guard{rt_, *l, shared_.group.spawn_cancellable("wire local", run_local(l, m, std::move(request), o.deadline))};
  if (!l->answer) co_await l->wake->wait(o.deadline);
  if (!l->answer) co_return fail(errc::timed_out);
  co_return std::move(*l->answer);
}

task<result<endpoint::joined>> endpoint_impl::call_with_invite(std::string address, bytes invite_id, bytes secret, message request,
                                                               mono_time deadline) {
  if (invite_id.empty() || invite_id.size() > invite_id_max_bytes || secret.empty())
    co_return fail(errc::invalid_argument, "an invite of the wrong form");
  if (deadline == never) co_return fail(errc::invalid_argument, "a call without a deadline");
  if (request.size_bytes() > message_max_bytes) co_return fail(errc::too_large, "a message beyond 16 MiB");
  CO_TRY(auto c, co_await dial(std::move(address), credential{std::move(secret), std::move(invite_id), false}, std::nullopt, deadline));
  begin(c);
  struct closing {
    connection& c;
    runtime& rt;
    ~closing() {
      if (!rt.killed()) c.close("the invite was used");
    }
  } end{*c, rt_};
  call_options o{priority::metadata, deadline};
  auto permit = co_await connection::admit(c, request.size_bytes(), o);
  if (!permit) co_return fail(errc::timed_out);
  CO_TRY(message answer, co_await connection::exchange(c, std::move(permit), method::join, std::move(request), o));
  co_return joined{c->who().peer, std::move(answer)};
}

}  // namespace

std::unique_ptr<endpoint> make_endpoint(runtime& rt, network& net, options o) {
  return std::make_unique<endpoint_impl>(rt, net, std::move(o));
}

}  // namespace grenier::wire
