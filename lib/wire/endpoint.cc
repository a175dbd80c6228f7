#include "wire/endpoint.h"

#include <algorithm>

namespace grenier::wire {

namespace {
// Two connections as far apart as this were not opened at the same moment: who opened the newer one has lost the older one.
constexpr nanoseconds simultaneous = 20s;
}  // namespace

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

// Few and not for long, whatever they do: the oldest of the same kind makes room, and nobody has two with a former key.
void endpoint_impl::begin_guest(std::shared_ptr<connection> c) {
  std::vector<std::shared_ptr<connection>> guests;
  for (auto& [number, other] : connections_)
    if (!other->who().initiator && (other->who().by_invite || other->who().peer_former) && other->who().by_invite == c->who().by_invite) {
      if (!c->who().by_invite && other->who().peer == c->who().peer) guests.insert(guests.begin(), other);
      else guests.push_back(other);
    }
  const bool twice = !guests.empty() && !c->who().by_invite && guests.front()->who().peer == c->who().peer;
  if (twice || guests.size() >= guests_max) guests.front()->close("other guests came");
  begin(c);
  rt_.clock().call_at(rt_.now() + guest_time, [weak = std::weak_ptr(c)] {
    if (auto guest = weak.lock()) guest->close("its time as a guest is over");
  });
}

// Both ends judge alike. Another start of the peer, or a connection opened long after the present one: the peer has lost the
// present one. Two that cross: a straight line before one that is carried; else the one whose initiator has the smaller id.
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
  bool restarted = old->who().peer_instance != c->who().peer_instance;
  bool straighter = old->carried_by() && !c->carried_by();
  if (!restarted && straighter) {  // worth more, whoever opened it
    p.current = c;
    p.changed->wake_all();
    return old->retire();
  }
  bool dead = restarted || c->established() - old->established() > simultaneous ||
              old->who().initiator == c->who().initiator;
  bool smaller_is_self = self_.key.id() < id;
  if (dead) {
    p.current = c;
    old->close("the peer opened another one");
    tell(id, false);
    if (!c->closed()) tell(id, true);
  } else if (c->carried_by() && !old->carried_by()) {
    c->retire();
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
    relay_.lost(id);
    tell(id, false);
  }
  drop_if_unused(id);
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

std::vector<node_id> endpoint_impl::newer_key_at() const {
  std::vector<node_id> ids;
  for (const auto& [id, p] : peers_)
    if (p.current && p.current->who().self_former) ids.push_back(id);
  return ids;
}

std::string endpoint_impl::peer_address(node_id id) const {
  auto p = find(id);
  return p && p->current && !p->current->carried_by() ? p->current->peer_address() : std::string();
}

std::optional<node_id> endpoint_impl::carried_by(node_id id) const {
  auto p = find(id);
  return p && p->current ? p->current->carried_by() : std::nullopt;
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

std::unique_ptr<endpoint> make_endpoint(runtime& rt, network& net, options o) {
  return std::make_unique<endpoint_impl>(rt, net, std::move(o));
}

}  // namespace grenier::wire
