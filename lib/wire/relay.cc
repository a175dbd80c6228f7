#include "wire/relay.h"

#include <cstring>

namespace grenier::wire {

namespace {

enum class piece_kind : std::uint8_t { open = 1, data, end };

// What every piece of a stream says of itself; its content is the message's body.
struct piece {
  piece_kind kind{};
  node_id from, to;
  std::uint64_t channel = 0, sequence = 0;
};
constexpr std::size_t node_bytes = 32, head_bytes = 1 + 2 * node_bytes + 16;

bytes encode(const piece& p) {
  bytes b;
  b.reserve(head_bytes);
  b.push_back(static_cast<char>(p.kind));
  b += p.from.view();
  b += p.to.view();
  append_u64(b, p.channel);
  append_u64(b, p.sequence);
  return b;
}

result<piece> decode(bytes_view b) {
  if (b.size() != head_bytes) return fail(errc::protocol, "a relayed piece with a wrong head");
  piece p;
  p.kind = static_cast<piece_kind>(b[0]);
  if (p.kind < piece_kind::open || p.kind > piece_kind::end) return fail(errc::protocol, "a relayed piece of an unknown kind");
  TRY(p.from, node_id::from_bytes(b.substr(1, node_bytes)));
  TRY(p.to, node_id::from_bytes(b.substr(1 + node_bytes, node_bytes)));
  p.channel = read_u64(b.substr(1 + 2 * node_bytes));
  p.sequence = read_u64(b.substr(9 + 2 * node_bytes));
  return p;
}

// Small enough that a piece never waits for the large messages of the line that carries it: heartbeats are among them.
constexpr std::size_t window_bytes = 256 << 10, piece_bytes = 3 << 10;
constexpr std::size_t pieces_max = 80;  // under way of one stream
constexpr std::size_t channels_max = 64, channels_of_one_max = 4, channels_through_one_max = 24;
constexpr nanoseconds piece_time = 20s;
constexpr std::string_view prefix = "via:";

}  // namespace

struct channel_key {
  node_id other, by;
  std::uint64_t number = 0;
  friend auto operator<=>(const channel_key&, const channel_key&) = default;
};

struct relay::channel {
  channel(runtime& rt, channel_key k) : key(k), changed(rt) {}
  const channel_key key;
  std::uint64_t age = 0;               // the smaller, the older
  wait_list changed;
  // coming in
  std::deque<shared_bytes> arrived;    // in order; null: the end
  std::size_t arrived_bytes = 0, taken_of_first = 0;
  std::map<std::uint64_t, shared_bytes> early;
  std::size_t early_bytes = 0;
  std::uint64_t next_in = 0;
  // going out
  std::uint64_t next_out = 0;
  std::size_t unsent = 0, pieces = 0;
  bool closed = false;                 // by this side
  std::optional<error> broken;
};

struct relay::state : std::enable_shared_from_this<relay::state> {
  state(runtime& r, task_group& g, node_id s, carriage c) : rt(r), group(g), self(s), ways(std::move(c)) {}
  runtime& rt;
  task_group& group;
  const node_id self;
  carriage ways;
  bool over = false;
  std::uint64_t ages = 0;
  std::map<channel_key, std::shared_ptr<channel>> channels;

  class stream;

  std::shared_ptr<channel> add(channel_key k) {
    auto c = std::make_shared<channel>(rt, k);
    c->age = ++ages;
    channels.emplace(k, c);
    return c;
  }
  void remove(const channel& c) {
    auto at = channels.find(c.key);
    if (at != channels.end() && at->second.get() == &c) channels.erase(at);
  }
  void fail_channel(channel& c, error e) {
    if (c.closed || c.broken) return;
    c.broken = std::move(e);
    c.changed.wake_all();
    remove(c);
  }
  message make(const channel& c, piece_kind k, std::uint64_t sequence, shared_bytes body) const {
    return {encode({k, self, c.key.other, c.key.number, sequence}), std::move(body)};
  }
  // Brings one piece to the other side. What cannot be brought ends the stream: there is no going on with a gap.
  static task<void> bring(std::shared_ptr<state> s, std::shared_ptr<channel> c, message m, std::size_t size_bytes) {
    auto r = co_await s->ways.call(c->key.by, std::move(m), {priority::foreground, s->rt.now() + piece_time});
    c->unsent -= size_bytes;
    --c->pieces;
    if (!r && !s->over) s->fail_channel(*c, {errc::unavailable, "the relay: " + r.error().to_string()});
    c->changed.wake_all();
  }
  void send(std::shared_ptr<channel> c, piece_kind k, shared_bytes body) {
    std::size_t size = body ? body->size() : 0;
    message m = make(*c, k, c->next_out++, std::move(body));
    c->unsent += size;
    ++c->pieces;
    group.spawn("relay piece", bring(shared_from_this(), std::move(c), std::move(m), size));
  }
  void close(std::shared_ptr<channel> c) {
    if (c->closed || over) return;
    bool tell = !c->broken && !group.cancelled();
    c->closed = true;
    remove(*c);
    c->changed.wake_all();
    if (tell) send(std::move(c), piece_kind::end, nullptr);
  }
  // Room for one more from this peer through this carrier: the oldest of its own goes, nobody else's.
  bool make_room(const node_id& other, const node_id& by) {
    std::vector<std::shared_ptr<channel>> same;
    for (auto& [k, c] : channels)
      if (k.other == other && k.by == by) same.push_back(c);
    if (same.size() >= channels_of_one_max)
      close(*std::min_element(same.begin(), same.end(), [](const auto& a, const auto& b) { return a->age < b->age; }));
    // Who opens it is only the carrier's word: one that invents peers takes no other one's room.
    const auto through = std::count_if(channels.begin(), channels.end(), [&](const auto& c) { return c.first.by == by; });
    return channels.size() < channels_max && static_cast<std::size_t>(through) < channels_through_one_max;
  }
  task<result<message>> deliver(node_id by, piece p, shared_bytes body, mono_time deadline);
  std::unique_ptr<byte_stream> face(std::shared_ptr<channel>);
};

// The stream that a connection speaks through.
class relay::state::stream final : public byte_stream {
 public:
  stream(std::shared_ptr<relay::state> s, std::shared_ptr<relay::channel> c) : s_(std::move(s)), c_(std::move(c)) {}
  ~stream() override { s_->remove(*c_); }

  task<result<std::size_t>> read_some(std::span<char> to) override {
    auto s = s_;
    auto c = c_;
    for (;;) {
      if (c->closed) co_return fail(errc::cancelled);
      if (!c->arrived.empty()) break;
      if (c->broken) co_return fail(*c->broken);
      co_await c->changed.wait();
    }
    auto& first = c->arrived.front();
    if (!first) co_return 0;
    std::size_t n = std::min(to.size(), first->size() - c->taken_of_first);
    std::memcpy(to.data(), first->data() + c->taken_of_first, n);
    c->taken_of_first += n;
    c->arrived_bytes -= n;
    if (c->taken_of_first == first->size()) {
      c->arrived.pop_front();
      c->taken_of_first = 0;
    }
    c->changed.wake_all();
    co_return n;
  }

  task<result<void>> write(std::span<const bytes_view> from) override {
    auto s = s_;
    auto c = c_;
    bytes chunk;
    for (std::size_t i = 0, at = 0; i < from.size();) {
      std::size_t n = std::min(piece_bytes - chunk.size(), from[i].size() - at);
      chunk += from[i].substr(at, n);
      at += n;
      if (at == from[i].size()) ++i, at = 0;
      if (chunk.empty() || (chunk.size() < piece_bytes && i < from.size())) continue;
      while (!c->closed && !c->broken && (c->unsent + chunk.size() > window_bytes || c->pieces >= pieces_max)) co_await c->changed.wait();
      if (c->closed) co_return fail(errc::cancelled);
      if (c->broken) co_return fail(*c->broken);
      s->send(c, piece_kind::data, share(std::exchange(chunk, {})));
    }
    co_return result<void>();
  }

  void close() override { s_->close(c_); }
  std::size_t unsent() const override { return c_->unsent; }
  std::string peer() const override { return relay_address(c_->key.by, c_->key.other); }

 private:
  std::shared_ptr<relay::state> s_;
  std::shared_ptr<relay::channel> c_;
};

std::unique_ptr<byte_stream> relay::state::face(std::shared_ptr<channel> c) { return std::make_unique<stream>(shared_from_this(), std::move(c)); }

task<result<message>> relay::state::deliver(node_id by, piece p, shared_bytes body, mono_time deadline) {
  channel_key k{p.from, by, p.channel};
  if (p.kind == piece_kind::open) {
    if (channels.contains(k)) co_return fail(errc::already_exists, "a relayed stream of that number");
    if (!make_room(p.from, by)) co_return fail(errc::overloaded, "too many relayed streams");
    ways.came(face(add(k)));
    co_return message{};
  }
  auto at = channels.find(k);
  if (at == channels.end()) co_return fail(errc::not_found, "no such relayed stream");
  auto c = at->second;
  auto keep = shared_from_this();
  if (p.kind == piece_kind::data && (!body || body->empty() || body->size() > piece_bytes)) co_return fail(errc::protocol, "a relayed piece of a wrong size");
  if (p.sequence < c->next_in || p.sequence - c->next_in >= 2 * pieces_max) co_return fail(errc::protocol, "a relayed piece out of order");
  // A piece is answered when all before it are here, so nobody has more than a window under way: what comes beyond is no stream of ours.
  const std::size_t size = p.kind == piece_kind::data ? body->size() : 0;
  if (c->arrived_bytes > 2 * window_bytes || c->early_bytes + size > window_bytes + piece_bytes) co_return fail(errc::protocol, "more of a relayed stream than its window");
  if (!c->early.emplace(p.sequence, p.kind == piece_kind::end ? nullptr : std::move(body)).second) co_return fail(errc::protocol, "a relayed piece twice");
  c->early_bytes += size;
  for (auto first = c->early.begin(); first != c->early.end() && first->first == c->next_in; first = c->early.erase(first), ++c->next_in) {
    if (first->second) {
      c->early_bytes -= first->second->size();
      c->arrived_bytes += first->second->size();
    }
    c->arrived.push_back(std::move(first->second));
  }
  c->changed.wake_all();
  // "It has it" is said once there is room for more and nothing before it is missing, so that the window bounds what waits here.
  while ((c->arrived_bytes > window_bytes || c->next_in <= p.sequence) && !c->closed && !c->broken)
    if (!co_await c->changed.wait(deadline)) co_return fail(errc::timed_out);
  co_return message{};
}

// ------------------------------------------------------------------------------------------------- the public face

relay::relay(runtime& rt, task_group& group, node_id self, carriage ways) : state_(std::make_shared<state>(rt, group, self, std::move(ways))) {}
relay::~relay() { state_->over = true; }

bool relay::is_address(std::string_view a) { return a.starts_with(prefix); }

std::optional<std::pair<node_id, node_id>> relay::parse(std::string_view a) {
  if (!is_address(a) || a.size() != prefix.size() + 4 * node_bytes + 1) return std::nullopt;
  auto by = node_id::from_hex(a.substr(prefix.size(), 2 * node_bytes)), to = node_id::from_hex(a.substr(prefix.size() + 2 * node_bytes + 1));
  if (!by || !to) return std::nullopt;
  return std::pair(*by, *to);
}

task<result<std::unique_ptr<byte_stream>>> relay::open(std::string address, mono_time deadline) {
  auto s = state_;
  auto ends = parse(address);
  if (!ends) co_return fail(errc::invalid_argument, "not the address of a relay: " + address);
  auto [by, to] = *ends;
  if (!s->ways.straight(by)) co_return fail(errc::unavailable, "no straight line to " + by.short_hex() + ", which should carry");
  if (!s->make_room(to, by)) co_return fail(errc::overloaded, "too many relayed streams");
  auto c = s->add({to, by, s->rt.random().next()});
  auto face = s->face(c);  // takes it out again, whatever happens
  auto r = co_await s->ways.call(by, s->make(*c, piece_kind::open, 0, nullptr), {priority::control, deadline});
  if (!r) co_return fail(errc::unavailable, "through " + by.short_hex() + ": " + r.error().detail);
  if (c->closed || c->broken) co_return fail(errc::unavailable, "the line to " + by.short_hex() + " was lost");
  co_return std::move(face);
}

task<result<message>> relay::serve(caller who, message m) {
  auto s = state_;
  CO_TRY(piece p, decode(m.head));
  if (p.from == p.to || p.from == s->self) co_return fail(errc::protocol, "a relayed piece with wrong ends");
  if (p.to == s->self) {
    if (who.node == p.from) co_return fail(errc::protocol, "a relayed piece from its own sender");
    co_return co_await s->deliver(who.node, std::move(p), std::move(m.body), who.deadline);
  }
  if (who.node != p.from) co_return fail(errc::access_denied, "a relayed piece of somebody else");
  // What nobody would take is not passed on.
  const std::size_t size = m.body ? m.body->size() : 0;
  if (p.kind == piece_kind::data ? size == 0 || size > piece_bytes : size > 0) co_return fail(errc::protocol, "a relayed piece of a wrong size");
  // What came through a carrier, or would go through another one, is not carried: no circles, no chains.
  if (!s->ways.straight(p.from) || !s->ways.straight(p.to)) co_return fail(errc::unavailable, "no straight line to " + p.to.short_hex());
  node_id to = p.to;
  priority as = p.kind == piece_kind::open ? priority::control : priority::foreground;
  co_return co_await s->ways.call(to, std::move(m), {as, who.deadline});
}

void relay::lost(node_id carrier) {
  auto all = state_->channels;
  for (auto& [k, c] : all)
    if (k.by == carrier) state_->fail_channel(*c, {errc::unavailable, "the line to the home that carried it was lost"});
}

}  // namespace grenier::wire
