#include "wire/endpoint.h"

#include <algorithm>

namespace grenier::wire {

namespace {
// Beyond this pace whoever comes waits in the system's queue: a flood takes its share of this thread, not all of it.
constexpr std::size_t accepts_max = 100;
constexpr nanoseconds accepts_period = 100ms;
constexpr std::size_t hellos_remembered = 4096;
}  // namespace

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
    take_in(std::move(*s));
  }
}

void endpoint_impl::take_in(std::unique_ptr<byte_stream> stream) {
  if (stopping_ || !make_room()) return;
  auto at = handshakes_.insert(handshakes_.end(), handshake_slot{std::shared_ptr<byte_stream>(std::move(stream))});
  shared_.group.spawn("wire handshake", greet(at));
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

// Each kind has places of its own: who was removed and knows a former key keeps no newcomer out.
bool endpoint_impl::enter_as_guest(slot at, bool former) {
  auto guests = std::count_if(handshakes_.begin(), handshakes_.end(), [&](const handshake_slot& h) { return h.guest && h.former == former; });
  at->former = former;
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
  } else if (auto k = std::ranges::find_if(former_keys_, [&](const bytes& f) { return responder::proves(first, f); });
             !invited && k != former_keys_.end()) {
    if (!enter_as_guest(at, true)) co_return std::nullopt;
    c = credential{*k, {}, true};
  } else if (invited && invite_secret_ && is_invite_id(h.invite_id, key_)) {  // a removed home may know those that are older
    if (!enter_as_guest(at, false)) co_return std::nullopt;
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
  const bytes shown = secret->secret;
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
  if (!at->guest && shown != key_) co_return stream->close();  // the key was changed meanwhile
  auto c = make_connection(stream, std::move(*end->session), round_trip);
  if (at->guest)
    begin_guest(std::move(c));
  else
    install(std::move(c));
}

}  // namespace grenier::wire
