#include "wire/connection.h"

#include <algorithm>

#include "wire/relay.h"

namespace grenier::wire {

namespace {
constexpr std::size_t read_buffer_min = 16 << 10, read_buffer_max = 256 << 10;
constexpr std::size_t batch_smallest = 1 << 10;
constexpr nanoseconds drain_max = 1s;

errc known_code(std::uint16_t n) {
  return n >= static_cast<std::uint16_t>(errc::invalid_argument) && n <= static_cast<std::uint16_t>(errc::internal)
             ? static_cast<errc>(n)
             : errc::internal;
}
}  // namespace

// ------------------------------------------------------------------------------------------------- statistics

void line_statistics::add_round_trip(nanoseconds sample) {
  round_trip = round_trip == 0ns ? sample : round_trip + (sample - round_trip) / 8;
}

void line_statistics::add_answer(nanoseconds took) { answers_[answers_count_++ % answers_.size()] = took; }

nanoseconds line_statistics::answer_p95() const {
  if (answers_count_ == 0) return 0ns;
  // Sorting is spread over the answers: a sixteenth of them may be new.
  if (p95_at_ != 0 && answers_count_ - p95_at_ < 8) return p95_;
  auto copy = answers_;
  auto end = copy.begin() + static_cast<std::ptrdiff_t>(std::min(answers_count_, copy.size()));
  auto at = copy.begin() + (end - copy.begin()) * 95 / 100;
  std::nth_element(copy.begin(), at, end);
  p95_at_ = answers_count_;
  return p95_ = *at;
}

void line_statistics::add_received(std::size_t size_bytes, mono_time now) {
  bytes_received += size_bytes;
  if (now - last_received_ > 50ms || burst_bytes_ == 0) {  // a pause: a new burst, whose first bytes only start the clock
    burst_start_ = now;
    burst_bytes_ = 1;
  } else {
    burst_bytes_ += size_bytes;
    nanoseconds took = now - burst_start_;
    if ((burst_bytes_ >= 256 << 10 && took >= 1ms) || (burst_bytes_ >= 16 << 10 && took >= 500ms)) {
      double r = static_cast<double>(burst_bytes_) * 1e9 / static_cast<double>(took.count());
      receive_rate = receive_rate <= 0 ? r : receive_rate + (r - receive_rate) / 4;
      burst_start_ = now;
      burst_bytes_ = 1;
    }
  }
  last_received_ = now;
}

// ------------------------------------------------------------------------------------------------- life

connection::connection(shared_services& s, std::shared_ptr<byte_stream> stream, wire::session who, std::uint64_t number,
                       std::shared_ptr<line_statistics> line)
    : s_(s),
      stream_(std::move(stream)),
      session_(std::move(who)),
      number_(number),
      line_(std::move(line)),
      established_(s.rt.now()),
      seals_(session_.cipher, session_.send_key),
      opens_(session_.cipher, session_.receive_key),
      pace_(line_->send_rate),
      wake_(s.rt),
      budgets_{semaphore(s.rt, budget_bytes), semaphore(s.rt, budget_bytes), semaphore(s.rt, budget_bytes),
               semaphore(s.rt, budget_bytes)},
      tend_(s.rt),
      last_received_(s.rt.now()) {
  if (auto ends = relay::parse(stream_->peer())) carried_by_ = ends->first;
}

void connection::add_round_trip(nanoseconds sample, bool alone) {
  pace_.round_trip(sample, alone, s_.rt.now());
  line_->add_round_trip(sample);
}

void connection::start(std::function<void(connection&)> on_closed) {
  on_closed_ = std::move(on_closed);
  auto self = shared_from_this();
  s_.group.spawn("wire read", read_loop(self));
  s_.group.spawn("wire write", write_loop(self));
  s_.group.spawn("wire tend", tend_loop(self));
}

void connection::close(const std::string& why) {
  if (closed_) return;
  closed_ = true;
  auto self = shared_from_this();
  if (s_.rt.logs(log_level::debug)) s_.rt.log(log_level::debug, "wire: connection to " + session_.peer.short_hex() + " closed: " + why);
  stream_->close();
  for (auto& [stream, p] : calls_) {
    if (p->answer) continue;
    p->answer = fail(p->sent ? errc::outcome_unknown : errc::unavailable, "the connection to " + session_.peer.short_hex() + " broke: " + why);
    p->wake->resume(true);
  }
  while (!requests_.empty()) cancel_incoming(requests_.begin()->first);
  wake_.wake_all();
  tend_.wake_all();
  if (auto told = std::move(on_closed_)) told(*this);
}

void connection::retire() {
  if (closed_ || retired_) return;
  retired_ = s_.rt.now();
  queue_.signal(frame_type::goodbye, 0);
  wake_writer();
}

bool connection::nothing_under_way() const { return calls_.empty() && requests_.empty() && queue_.empty() && assembler_.pending_count() == 0; }

task<void> connection::tend_loop(std::shared_ptr<connection> self) {
  while (!closed_) {
    mono_time now = s_.rt.now();
    if (retired_) {
      // Whoever retires first sees the other's goodbye a tick before it closes, so that nothing is cut off.
      if ((peer_goodbye_ && nothing_under_way() && now - *retired_ >= ping_every) || now - *retired_ > silence_max) {
        close("replaced by another connection");
        break;
      }
    } else if (!ping_sent_) {
      ping_sent_ = now;
      ping_queued_ = true;
      queue_.signal(frame_type::ping, 0, ++ping_number_);
      wake_writer();
    }
    if (ping_sent_ && now - std::max(last_received_, *ping_sent_) > silence_max) {
      close("silent for 10 s");
      break;
    }
    co_await tend_.wait(now + ping_every);
  }
}

// ------------------------------------------------------------------------------------------------- calls of this side

struct connection::pending_entry {
  connection& c;
  std::uint32_t stream;
  pending& p;
  ~pending_entry() {
    c.calls_.erase(stream);
    if (c.closed_ || c.s_.rt.killed()) return;
    if (p.answer && p.sent) return;
    bool untouched = c.queue_.erase(true, stream);
    if (p.answer) return;  // refused before it was all sent
    c.assembler_.drop(false, stream);
    if (untouched) return;
    c.queue_.signal(frame_type::cancel, stream);
    c.wake_writer();
  }
};

task<semaphore::permit> connection::admit(std::shared_ptr<connection> self, std::size_t size_bytes, call_options o) {
  semaphore& budget = self->budgets_[static_cast<std::size_t>(o.priority)];
  if (auto permit = budget.try_acquire(cost(size_bytes))) co_return permit;
  co_return co_await budget.acquire(cost(size_bytes), o.deadline);
}

task<result<message>> connection::exchange(std::shared_ptr<connection> self, semaphore::permit permit, method m, message request,
                                           call_options o) {
  connection& c = *self;
  mono_time began = c.s_.rt.now();
  if (o.deadline <= began) co_return fail(errc::timed_out);
  std::size_t size = request.size_bytes();
  std::uint32_t stream = c.next_stream_++;
  while (c.calls_.contains(stream)) stream = c.next_stream_++;
  auto left = std::chrono::duration_cast<milliseconds>(o.deadline - began + 999999ns).count();
  auto out = std::make_unique<outgoing>();
  out->request = true;
  out->stream = stream;
  out->priority = o.priority;
  out->start = encode_request_start(static_cast<std::uint16_t>(m),
                                    static_cast<std::uint32_t>(std::min<std::int64_t>(left, deadline_max_ms)), request);
  out->content = std::move(request);
  auto wake = std::make_shared<waiter>(c.s_.rt);
  pending p{wake, std::nullopt, false};
  c.calls_.emplace(stream, &p);
  pending_entry entry{c, stream, p};
  c.queue_.push(std::move(out));
  c.wake_writer();
  co_await wake->wait(o.deadline);
  if (!p.answer) co_return fail(errc::timed_out, "no answer from " + c.session_.peer.short_hex() + " in time");
  if (p.answer->has_value() && size < 16 << 10 && (*p.answer)->size_bytes() < 16 << 10) c.line_->add_answer(c.s_.rt.now() - began);
  co_return std::move(*p.answer);
}

void connection::finish_call(assembled a) {
  auto at = calls_.find(a.stream);
  if (at == calls_.end()) return;
  pending& p = *at->second;
  if (a.number)
    p.answer = fail(known_code(a.number), std::move(a.content.head));
  else
    p.answer = std::move(a.content);
  p.wake->resume(true);
}

// ------------------------------------------------------------------------------------------------- calls of the peer

struct connection::incoming_entry {
  connection& c;
  std::uint32_t stream;
  std::uint64_t serial;
  ~incoming_entry() { c.forget_incoming(stream, serial); }
};

task<void> connection::serve(std::shared_ptr<connection> self, std::uint32_t stream, std::uint64_t serial, wire::priority p, method m,
                             caller who, message request) {
  incoming_entry entry{*self, stream, serial};
  auto r = co_await s_.handlers.at(m)(std::move(who), std::move(request));
  auto at = requests_.find(stream);
  if (at != requests_.end() && at->second.serial == serial) answer(stream, p, std::move(r));
}

void connection::forget_incoming(std::uint32_t stream, std::uint64_t serial) {
  auto at = requests_.find(stream);
  if (at == requests_.end() || at->second.serial != serial) return;
  if (at->second.timer) s_.rt.clock().cancel(*at->second.timer);
  requests_cost_[static_cast<std::size_t>(at->second.priority)] -= at->second.cost;
  requests_.erase(at);
}

void connection::cancel_incoming(std::uint32_t stream) {
  auto at = requests_.find(stream);
  if (at == requests_.end()) return;
  auto running = at->second.task;
  forget_incoming(stream, at->second.serial);
  running.cancel();
}

std::optional<error> connection::refuse(std::uint16_t number, wire::priority p, std::size_t size_bytes) const {
  auto m = static_cast<method>(number);
  if (session_.by_invite && (session_.initiator || m != method::join))
    return error(errc::access_denied, "an invite is good for joining only");
  if (session_.peer_former && m != method::member_info)
    return error(errc::access_denied, "the cluster key was changed: fetch the new one");
  if (!s_.handlers.contains(m)) return error(errc::not_implemented, "method " + std::to_string(number));
  if (s_.group.cancelled()) return error(errc::unavailable, "stopping");
  if (guest() && size_bytes > guest_budget_bytes) return error(errc::too_large, "a guest's request beyond 64 KiB");
  if (guest() && assembler_.pending_bytes() + requests_cost_[static_cast<std::size_t>(p)] + size_bytes > guest_budget_bytes)
    return error(errc::overloaded, "too much under way for a guest");
  // The caller keeps to the same budget and knows of every request's end later than this side: an honest one is never refused
  // by the first rule.
  if (requests_cost_[static_cast<std::size_t>(p)] + std::min(cost(size_bytes), budget_bytes) > budget_bytes ||
      (queue_.queued_bytes() > answers_queued_max && p != wire::priority::control))
    return error(errc::overloaded, "too much under way between these two nodes");
  return std::nullopt;
}

void connection::dispatch(assembled a) {
  auto m = static_cast<method>(a.number);
  mono_time deadline = s_.rt.now() + milliseconds(a.deadline_ms);
  std::uint64_t serial = next_serial_++;
  incoming& in = requests_[a.stream];
  in.serial = serial;
  in.priority = a.priority;
  in.cost = std::min(cost(a.content.size_bytes()), budget_bytes);
  requests_cost_[static_cast<std::size_t>(a.priority)] += in.cost;
  in.timer = s_.rt.clock().call_at(deadline, [weak = weak_from_this(), stream = a.stream, serial] {
    auto c = weak.lock();
    if (!c) return;
    auto at = c->requests_.find(stream);
    if (at == c->requests_.end() || at->second.serial != serial) return;
    at->second.timer.reset();
    c->cancel_incoming(stream);
  });
  caller who{session_.peer, number_, deadline, session_.by_invite, session_.invite_id};
  auto running = s_.group.spawn_cancellable(
      "wire request", serve(shared_from_this(), a.stream, serial, a.priority, m, std::move(who), std::move(a.content)));
  auto at = requests_.find(a.stream);  // it may have finished already
  if (at != requests_.end() && at->second.serial == serial) at->second.task = running;
}

void connection::answer(std::uint32_t stream, wire::priority p, result<message> r) {
  if (closed_) return;
  auto out = std::make_unique<outgoing>();
  out->stream = stream;
  out->priority = p;
  std::uint16_t code = 0;
  if (r && r->size_bytes() > message_max_bytes) r = fail(errc::too_large, "an answer beyond 16 MiB");
  if (r) {
    out->content = std::move(*r);
  } else {
    // A handler that was stopped says nothing about what it did before.
    code = static_cast<std::uint16_t>(r.error() == errc::cancelled ? errc::outcome_unknown : r.error().code);
    out->content.head = r.error().detail.substr(0, detail_max_bytes);
  }
  out->start = encode_response_start(code, out->content);
  queue_.push(std::move(out));
  wake_writer();
}

// ------------------------------------------------------------------------------------------------- receiving

result<void> connection::take_request(const frame& f) {
  TRY(request_start s, parse_request_start(f));
  if (requests_.contains(f.stream)) return fail(errc::protocol, "a stream started twice");
  if (auto why = refuse(s.method, f.priority, std::size_t{s.head_size} + s.body_size)) {
    answer(f.stream, f.priority, fail(std::move(*why)));
    return {};
  }
  TRY(auto whole, assembler_.start(f, s));
  if (whole) dispatch(std::move(*whole));
  return {};
}

result<void> connection::take_response(const frame& f) {
  TRY(response_start s, parse_response_start(f));
  if (!calls_.contains(f.stream)) return {};  // given up
  TRY(auto whole, assembler_.start(f, s));
  if (whole) finish_call(std::move(*whole));
  return {};
}

result<void> connection::take(const frame& f) {
  switch (f.type) {
    case frame_type::request: return take_request(f);
    case frame_type::response: return take_response(f);
    case frame_type::request_data:
    case frame_type::response_data: {
      TRY(auto whole, assembler_.more(f));
      if (!whole) return {};
      if (!whole->request) {
        finish_call(std::move(*whole));
      } else if (auto why = refuse(whole->number, whole->priority, whole->content.size_bytes())) {
        answer(whole->stream, whole->priority, fail(std::move(*why)));
      } else {
        dispatch(std::move(*whole));
      }
      return {};
    }
    case frame_type::cancel:
      assembler_.drop(true, f.stream);
      cancel_incoming(f.stream);
      queue_.erase(false, f.stream);
      return {};
    case frame_type::ping:
      if (f.payload.size() != 8) return fail(errc::protocol, "a ping of the wrong length");
      queue_.signal(frame_type::pong, 0, read_u64(f.payload));
      wake_writer();
      return {};
    case frame_type::pong:
      if (f.payload.size() != 8) return fail(errc::protocol, "a pong of the wrong length");
      if (ping_sent_ && read_u64(f.payload) == ping_number_) {
        add_round_trip(s_.rt.now() - *ping_sent_, ping_alone_);
        ping_sent_.reset();
      }
      return {};
    case frame_type::goodbye: peer_goodbye_ = true; return {};
  }
  return fail(errc::protocol);
}

result<void> connection::take_records() {
  for (;;) {
    bytes_view rest = bytes_view(received_).substr(received_begin_, received_end_ - received_begin_);
    TRY(auto sealed, find_record(rest));
    if (!sealed) return {};
    plain_.assign(*sealed);
    received_begin_ += record_prefix_bytes + sealed->size();
    if (!opens_.open(plain_, rest.substr(0, record_prefix_bytes))) return fail(errc::protocol, "a record that does not open");
    for (bytes_view left = plain_; !left.empty();) {
      TRY(frame f, take_frame(left));
      TRY_VOID(take(f));
      if (closed_) return {};
    }
    if (queue_.count() > backlog_max) return fail(errc::protocol, "it asks and does not read");
  }
}

std::span<char> connection::room_to_read() {
  std::size_t unread = received_end_ - received_begin_;
  if (unread == 0) received_begin_ = received_end_ = 0;
  std::size_t want = read_buffer_min;
  if (unread >= record_prefix_bytes) want = record_prefix_bytes + read_u32(bytes_view(received_).substr(received_begin_));
  bool filled = received_end_ == received_.size();
  if (received_begin_ + want > received_.size() || filled) {
    std::memmove(received_.data(), received_.data() + received_begin_, unread);
    received_begin_ = 0;
    received_end_ = unread;
    // Grows when reads fill it, so that an idle peer costs 16 KiB.
    if (want > received_.size() || (filled && received_.size() < read_buffer_max))
      received_.resize(std::clamp(std::max(want, received_.size() * 2), read_buffer_min, read_buffer_max));
  }
  std::size_t room = received_.size() - received_end_;
  if (s_.receive_limit.limited()) room = std::min(room, s_.receive_limit.batch_bytes());
  return {received_.data() + received_end_, room};
}

task<void> connection::read_loop(std::shared_ptr<connection> self) {
  while (!closed_) {
    auto n = co_await stream_->read_some(room_to_read());
    if (closed_) co_return;
    if (!n || *n == 0) {
      close(n ? "the other side closed it" : n.error().to_string());
      co_return;
    }
    received_end_ += *n;
    mono_time now = s_.rt.now();
    last_received_ = now;
    line_->add_received(*n, now);
    if (auto ok = take_records(); !ok) {
      s_.rt.log(log_level::warning, "wire: node " + session_.peer.short_hex() + " broke the protocol: " + ok.error().detail);
      close(ok.error().detail);
      co_return;
    }
    s_.receive_limit.take(*n, now);
    if (nanoseconds d = s_.receive_limit.wait(now); d > 0ns) co_await sleep_for(s_.rt, d);
  }
}

// ------------------------------------------------------------------------------------------------- sending

void connection::wake_writer() {
  if (writer_idle_) wake_.wake_one();
  writer_idle_ = false;
}

void connection::fill_batch(std::size_t batch_max) {
  batch_.clear();
  while (!queue_.empty() && batch_.size() + batch_smallest <= batch_max) {
    const auto& r = queue_.next(std::min(pace_.record_bytes(), batch_max - batch_.size()));
    bytes prefix;
    append_u32(prefix, static_cast<std::uint32_t>(r.size_bytes + crypto::seal_overhead_bytes));
    batch_ += prefix;
    seals_.seal(r.pieces, prefix, batch_);
    for (std::uint32_t stream : r.requests_finished)
      if (auto at = calls_.find(stream); at != calls_.end()) at->second->sent = true;
  }
  queue_.release();
}

task<void> connection::write_loop(std::shared_ptr<connection> self) {
  while (!closed_) {
    if (queue_.empty()) {
      pace_.idle();
      writer_idle_ = true;
      co_await wake_.wait();
      continue;
    }
    std::size_t unsent = stream_->unsent();
    pace_.observe(unsent, s_.rt.now());
    line_->send_rate = pace_.rate();
    nanoseconds pause = std::max(pace_.pause(unsent), s_.send_limit.wait(s_.rt.now()));
    bool drains = ping_queued_ && unsent > 0 && pace_.wants_drain(s_.rt.now()) && s_.rt.now() - *ping_sent_ < drain_max;
    if (drains) pause = std::max<nanoseconds>(pause, 5ms);
    if (pause > 0ns) {
      co_await sleep_for(s_.rt, pause);
      continue;
    }
    std::size_t batch_max = pace_.batch_bytes();
    if (s_.send_limit.limited()) batch_max = std::min(batch_max, s_.send_limit.batch_bytes());
    if (std::exchange(ping_queued_, false)) {  // signals go first
      ping_alone_ = unsent == 0;
      if (ping_alone_) ping_sent_ = s_.rt.now();
    }
    fill_batch(batch_max);
    pace_.wrote(batch_.size(), unsent);
    s_.send_limit.take(batch_.size(), s_.rt.now());
    line_->bytes_sent += batch_.size();
    bytes_view one[] = {batch_};
    auto ok = co_await stream_->write(one);
    if (closed_) co_return;
    if (!ok) {
      close(ok.error().to_string());
      co_return;
    }
  }
}

}  // namespace grenier::wire
