#include "wire/endpoint.h"

#include <algorithm>

namespace grenier::wire {

namespace {
constexpr nanoseconds dial_pause_min = 200ms, dial_pause_max = 30s;
constexpr nanoseconds straight_pause_min = 60s, straight_pause_max = 600s;
}  // namespace

task<result<std::shared_ptr<connection>>> endpoint_impl::dial(std::string address, credential with, std::optional<node_id> expected,
                                                              mono_time deadline) {
  mono_time connected_by = std::min(deadline, rt_.now() + connect_time);
  std::unique_ptr<byte_stream> opened;
  if (relay::is_address(address)) {
    CO_TRY(opened, co_await relay_.open(address, connected_by));
  } else {
    CO_TRY(opened, co_await net_.connect(address, connected_by));
  }
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
  if (!reply && relay::is_address(address)) {
    // The carrier's line may be what broke.
    co_return fail(explain({errc::unavailable, reply.error().detail}, ""));
  }
  if (!reply) {
    // A reset while the refusal travels says the same as an end of the stream.
    error e = reply.error() == errc::unavailable ? error(errc::access_denied, "the other side closed the connection") : reply.error();
    co_return fail(explain(e, invited ? " without a word: the invite is wrong, spent, or older than the last removal of a home" : " without a word: another cluster key?"));
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

// One try; true when it ended in a connection.
task<bool> endpoint_impl::try_address(node_id id, std::string address, credential with) {
  const bool former = with.former;
  const bytes shown = with.secret;
  auto c = co_await dial(address, std::move(with), id, rt_.now() + connect_time + handshake_time);
  auto at = peers_.find(id);
  if (at == peers_.end() || !at->second.kept || stopping_) {
    if (c) (*c)->close("not wanted any more");
    co_return false;
  }
  if (c && !former && shown != key_) {
    (*c)->close("the cluster key was changed meanwhile");
    co_return false;
  }
  if (c && former && (*c)->who().self_former) {  // it had that key changed as well: a later round shows a newer one
    (*c)->close("this key is a former one on both sides");
    co_return false;
  }
  if (c && (*c)->who().peer_former && !may_use_former(id)) {
    (*c)->close("not a member");
    c = fail(errc::access_denied, "it knows the former cluster key, but is no member");
  }
  if (c) {
    (*c)->who().peer_former ? begin(std::move(*c)) : install(std::move(*c));
    co_return true;
  }
  if (c.error().detail != at->second.last_failure) {
    at->second.last_failure = c.error().detail;
    bool wrong = c.failed_with(errc::access_denied) || c.failed_with(errc::protocol);
    rt_.log(wrong ? log_level::warning : log_level::debug, "wire: dialling " + id.short_hex() + ": " + c.error().detail);
  }
  co_return false;
}

// Connected through a third one: is there a straight line by now?
task<void> endpoint_impl::look_for_straight(node_id id) {
  auto at = peers_.find(id);
  if (at == peers_.end()) co_return;
  for (const auto& address : std::vector(at->second.addresses)) {
    at = peers_.find(id);
    if (stopping_ || at == peers_.end() || !at->second.kept || !at->second.current || !at->second.current->carried_by()) co_return;
    if (!relay::is_address(address) && co_await try_address(id, address, credential{key_, {}, false})) co_return;
  }
}

task<void> endpoint_impl::dial_loop(node_id id) {
  nanoseconds pause = dial_pause_min, straight_pause = straight_pause_min;
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
      if (!co_await changed->wait(p.current->carried_by() ? rt_.now() + straight_pause : never)) {
        straight_pause = std::min(straight_pause * 2, straight_pause_max);
        co_await look_for_straight(id);
        continue;
      }
      // Both ends notice a loss at the same moment: they need not dial at the same moment.
      pause = dial_pause_min;
      straight_pause = straight_pause_min;
      co_await changed->wait(rt_.now() + nanoseconds(rt_.random().below(static_cast<std::uint64_t>(dial_pause_min.count()))));
      continue;
    }
    if (p.addresses.empty() || key_.empty()) {
      co_await changed->wait();
      continue;
    }
    std::size_t count = p.addresses.size();
    // A peer that was away while the key was changed knows a former one only: each second round tries one of those.
    const std::size_t round = attempt / count;
    credential with{key_, {}, false};
    if (!former_keys_.empty() && round % 2 == 1) with = {former_keys_[round / 2 % former_keys_.size()], {}, true};
    std::string address = p.addresses[attempt++ % count];
    if (co_await try_address(id, std::move(address), std::move(with))) continue;
    at = peers_.find(id);
    if (at == peers_.end() || !at->second.kept || stopping_ || attempt % count != 0 || at->second.current) continue;
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

void endpoint_impl::set_cluster_keys(std::vector<bytes> newest_first) {
  ASSERT(!newest_first.empty() && std::ranges::all_of(newest_first, [](const bytes& k) { return k.size() == 32; }));
  const bool changed = newest_first.front() != key_;
  key_ = std::move(newest_first.front());
  newest_first.erase(newest_first.begin());
  if (newest_first.size() > former_keys_max) newest_first.resize(former_keys_max);
  former_keys_ = std::move(newest_first);
  if (!changed) return;
  auto all = connections_;
  for (auto& [number, c] : all)
    if (c->who().self_former) c->close("the cluster key was changed");
  for (auto& [id, p] : peers_) p.changed->wake_all();
}

}  // namespace grenier::wire
