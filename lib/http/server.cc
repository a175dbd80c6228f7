#include <boost/asio/error.hpp>
#include <boost/asio/ip/address_v6.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>

#include <map>
#include <set>

#include "http/chunked.h"
#include "http/http.h"

namespace grenier::http {

namespace {

namespace beast_http = boost::beast::http;

constexpr std::size_t read_ahead_bytes = 64 << 10;  // of a chunked body
constexpr std::size_t head_step_bytes = 4 << 10;     // what each connection may hold of a header that is not complete yet
constexpr std::size_t write_step_bytes = 64 << 10;   // within which a client must show progress
constexpr std::uint64_t drop_max = 256 << 10;  // of a body that the handler left unread

struct shared_state {
  runtime& rt;
  http::options options;
  http::handler handle;
  statistics stats;
  bool stopping = false;
  std::size_t header_bytes = 0;  // of headers that are not complete yet, beyond each one's first step
};

// What a connection holds of shared_state::header_bytes.
class held_header {
 public:
  explicit held_header(shared_state& s) : s_(s) {}
  ~held_header() { set(0); }
  held_header(const held_header&) = delete;
  void set(std::size_t n) {
    s_.header_bytes = s_.header_bytes - n_ + n;
    n_ = n;
  }
  bool may_be(std::size_t n) const { return s_.header_bytes - n_ + n <= s_.options.header_bytes_all; }

 private:
  shared_state& s_;
  std::size_t n_ = 0;
};

// What a stranger sent, checked beyond what the parser checks: it joins folded lines, and accepts LF alone.
std::optional<std::string> strict_fault(bytes_view head) {
  for (std::size_t i = 0; i < head.size(); ++i) {
    auto c = static_cast<unsigned char>(head[i]);
    if (c == '\n') {
      if (i == 0 || head[i - 1] != '\r') return "a line that ends in a bare line feed";
      if (i + 1 < head.size() && (head[i + 1] == ' ' || head[i + 1] == '\t')) return "a folded header line";
    } else if (c == '\r') {
      if (i + 1 < head.size() && head[i + 1] != '\n') return "a bare carriage return";
    } else if (c == 0) {
      return "a NUL byte in the header";
    }
  }
  return std::nullopt;
}

std::string_view trim(std::string_view v) {
  while (!v.empty() && (v.front() == ' ' || v.front() == '\t')) v.remove_prefix(1);
  while (!v.empty() && (v.back() == ' ' || v.back() == '\t')) v.remove_suffix(1);
  return v;
}

struct refusal {
  int status;
  std::string why;
};

// Header bytes -> request. Content-Length twice or beside Transfer-Encoding is refused by the parser.
std::expected<request, refusal> parse_head(bytes_view head, const options& o) {
  if (auto fault = strict_fault(head)) return std::unexpected(refusal{400, *fault});
  beast_http::request_parser<beast_http::empty_body> p;
  p.header_limit(static_cast<std::uint32_t>(o.header_bytes_max));
  p.body_limit(boost::none);
  p.eager(false);
  boost::system::error_code ec;
  p.put(boost::asio::buffer(head.data(), head.size()), ec);
  if (ec && ec != beast_http::error::need_more) return std::unexpected(refusal{400, "a request that cannot be parsed: " + ec.message()});
  if (!p.is_header_done()) return std::unexpected(refusal{400, "an incomplete request header"});
  const auto& m = p.get();
  if (m.version() != 11 && m.version() != 10) return std::unexpected(refusal{505, "an HTTP version other than 1.0 and 1.1"});
  request r;
  r.method = std::string(m.method_string());
  r.target = std::string(m.target());
  if (r.target.starts_with("http://") || r.target.starts_with("https://")) {  // absolute form: the rest is the origin form
    auto slash = r.target.find('/', r.target.find("//") + 2);
    r.target = slash == std::string::npos ? "/" : r.target.substr(slash);
  }
  if (r.target.empty() || (r.target[0] != '/' && r.target != "*")) return std::unexpected(refusal{400, "a target that is no path"});
  auto mark = r.target.find('?');
  r.path = r.target.substr(0, mark);
  r.has_query = mark != std::string::npos;
  if (r.has_query) r.query = r.target.substr(mark + 1);
  std::size_t count = 0;
  for (const auto& f : m) {
    if (++count > o.header_count_max) return std::unexpected(refusal{431, "too many headers"});
    r.headers.add(std::string(f.name_string()), std::string(trim(f.value())));
  }
  if (m.version() == 11 && r.headers.count("host") != 1) return std::unexpected(refusal{400, "not exactly one Host header"});
  if (auto te = r.headers.find("transfer-encoding")) {
    std::string v(*te);
    for (char& c : v) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (v != "chunked" || r.headers.count("transfer-encoding") != 1 || r.headers.find("content-length"))
      return std::unexpected(refusal{400, "a Transfer-Encoding other than chunked alone"});
    r.chunked = true;
  } else if (auto cl = p.content_length()) {
    if (r.headers.count("content-length") != 1) return std::unexpected(refusal{400, "more than one Content-Length"});
    r.content_length = *cl;
  } else if (r.headers.find("content-length")) {
    return std::unexpected(refusal{400, "a Content-Length that is no number"});
  }
  std::string expect(r.headers.get("expect"));
  for (char& c : expect) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  r.expects_continue = expect == "100-continue" && m.version() == 11;
  return r;
}

// Whether bytes of a body come, or go, at the least rate. What counts is the time in which this side waited for the client; that of disks,
// other homes and memory does not.
class rate_watch {
 public:
  // True when the client was too slow in the time that just ended.
  bool too_slow(const http::options& o, nanoseconds waited, std::size_t moved) {
    waited_ += waited;
    moved_ += moved;
    if (waited_ < o.rate_time) return false;
    const double rate = static_cast<double>(moved_) * 1e9 / static_cast<double>(waited_.count());
    waited_ = {};
    moved_ = 0;
    return rate < static_cast<double>(o.body_rate_min);
  }

 private:
  nanoseconds waited_{};
  std::size_t moved_ = 0;
};

class connection {
 public:
  connection(shared_state& s, std::unique_ptr<byte_stream> stream) : s_(s), stream_(std::move(stream)) {}
  ~connection() {
    if (armed_) s_.rt.clock().cancel(*armed_);
  }

  task<void> run();
  void close() {
    closed_ = true;
    stream_->close();
  }
  bool busy() const noexcept { return busy_; }

  // The stream is closed when nothing moved until then; one lazy timer, not one a read.
  void expect_progress_within(nanoseconds d) {
    writing_ = false;
    deadline_ = s_.rt.now() + d;
    arm(deadline_);
  }
  // As above, while bytes go out. What the client took since the last look counts too: a full socket buffer takes nothing more
  // before a third of it is free, and that alone may last longer on a slow line.
  void expect_writing() {
    writing_ = true;
    unsent_.reset();
    looked_ = s_.rt.now();
    deadline_ = looked_ + s_.options.progress_time;
    arm(next_look());
  }
  // A handler is at work; its own waits are bounded by its deadlines, not by ours.
  void rest() { deadline_ = never; }
  bool timed_out() const noexcept { return timed_out_; }
  // All of it, in steps within each of which the client must show progress.
  task<result<void>> write(bytes_view before, bytes_view body, bytes_view after = {});

 private:
  friend class live_exchange;
  mono_time next_look() const { return std::min(deadline_, s_.rt.now() + std::min(s_.options.progress_time, s_.options.rate_time) / 4); }
  void arm(mono_time at) {
    if (armed_ && armed_->at <= at) return;
    if (armed_) s_.rt.clock().cancel(*armed_);
    armed_ = s_.rt.clock().call_at(at, [this] {
      armed_.reset();
      if (deadline_ == never) return;  // the next read or write arms it anew
      if (writing_) {
        const std::size_t left = stream_->unsent();
        const std::size_t taken = unsent_ && left < *unsent_ ? *unsent_ - left : 0;
        if (taken) deadline_ = s_.rt.now() + s_.options.progress_time;
        unsent_ = left;
        if (out_.too_slow(s_.options, s_.rt.now() - std::exchange(looked_, s_.rt.now()), taken)) deadline_ = s_.rt.now();
      }
      if (s_.rt.now() < deadline_) return arm(writing_ ? next_look() : deadline_);
      timed_out_ = true;
      close();
    });
  }
  task<result<std::size_t>> fill(std::size_t size_max);  // more into buffer_
  task<std::optional<std::string>> read_head();
  task<void> refuse(refusal);
  task<void> drain();

  shared_state& s_;
  std::unique_ptr<byte_stream> stream_;
  bytes buffer_;         // read but not used yet
  mono_time deadline_ = never;
  std::optional<timer_id> armed_;
  std::optional<std::size_t> unsent_;  // when last looked
  mono_time looked_{};                 // or began to write
  rate_watch in_, out_;                // of this exchange's bodies
  bool writing_ = false, timed_out_ = false, closed_ = false, busy_ = false, keep_ = true;
};

class live_exchange final : public exchange {
 public:
  live_exchange(connection& c, http::request r) : c_(c), request_(std::move(r)), left_(request_.content_length.value_or(0)) {}

  const http::request& request() const override { return request_; }
  std::uint64_t body_read() const override { return body_read_; }
  bool answered() const override { return status_ != 0; }
  int status() const override { return status_; }
  std::uint64_t body_sent() const override { return body_sent_; }
  bool body_done() const { return request_.chunked ? chunks_.done() : left_ == 0; }
  bool broken() const { return broken_; }
  bool slow() const { return slow_; }  // the client is still there, for an answer
  bool owes() const { return !ended_; }
  void abort() override {
    broken_ = true;
    c_.keep_ = false;
  }

  task<result<std::size_t>> read_body(std::span<char> to) override {
    if (body_done() || to.empty()) co_return std::size_t{0};
    if (broken_) co_return fail(errc::incomplete_body, "the client stopped sending");
    if (request_.expects_continue && !std::exchange(continued_, true)) {
      CO_TRY_VOID(co_await c_.write("HTTP/1.1 100 Continue\r\n\r\n", {}));
    }
    const mono_time asked = c_.s_.rt.now();
    c_.expect_progress_within(c_.s_.options.progress_time);
    auto r = request_.chunked ? co_await read_chunked(to) : co_await read_plain(to);
    c_.rest();
    if (r && c_.in_.too_slow(c_.s_.options, c_.s_.rt.now() - asked, *r)) {
      broken_ = slow_ = true;
      c_.keep_ = false;
      co_return fail(errc::timed_out, "the body comes too slowly");
    }
    if (!r) {
      broken_ = true;
      c_.keep_ = false;
      if (c_.timed_out()) co_return fail(errc::timed_out, "no bytes of the body for too long");
    } else {
      body_read_ += *r;
    }
    co_return r;
  }

  task<result<void>> send(response r) override {
    std::uint64_t size = r.body.size();
    bool no_body = without_body(r.status);
    std::string head = head_of(r, r.status == 304 || r.status == 204 ? std::nullopt : std::optional(size), false);
    ended_ = true;
    if (!no_body) body_sent_ = size;
    co_return co_await sent(c_.write(head, no_body ? bytes_view() : bytes_view(r.body)));
  }

  task<result<void>> begin(response r, std::optional<std::uint64_t> length) override {
    head_pending_ = head_of(r, length, !length);
    announced_ = length;
    chunked_out_ = !length && !without_body(r.status);
    if (without_body(r.status) || (length && *length == 0)) {
      ended_ = true;
      co_return co_await flush({});
    }
    if (!r.body.empty()) co_return co_await write(r.body);
    co_return result<void>();
  }

  task<result<void>> write(bytes_view v) override {
    if (request_.method == "HEAD" || v.empty()) co_return result<void>();
    body_sent_ += v.size();
    if (announced_) {
      ASSERT(body_sent_ <= *announced_);
      if (body_sent_ == *announced_) ended_ = true;
    }
    co_return co_await flush(v);
  }

  task<result<void>> end() override {
    if (announced_ && body_sent_ < *announced_ && request_.method != "HEAD") abort();
    ended_ = true;
    if (chunked_out_) {
      std::string head = std::exchange(head_pending_, {});
      co_return co_await sent(c_.write(head, "0\r\n\r\n"));
    }
    co_return co_await flush({});
  }

 private:
  bool without_body(int status) const { return request_.method == "HEAD" || status == 204 || status == 304 || status < 200; }

  std::string head_of(const response& r, std::optional<std::uint64_t> length, bool chunked) {
    ASSERT(status_ == 0);
    status_ = r.status;
    // A body that will not be read to its end, or one that the client still waits to send, cannot be followed by another request.
    if (!body_done() && (request_.chunked || left_ > drop_max || (request_.expects_continue && !continued_))) c_.keep_ = false;
    if (c_.s_.stopping) c_.keep_ = false;
    // The empty body of a client that asked is welcome too: botocore misreads the next answer on a connection that gave none here.
    std::string h = request_.expects_continue && body_done() && !std::exchange(continued_, true) ? "HTTP/1.1 100 Continue\r\n\r\n" : "";
    h += "HTTP/1.1 " + std::to_string(r.status) + " " + std::string(reason(r.status)) + "\r\n";
    for (const auto& x : r.headers.all()) {
      if (x.value.find_first_of("\r\n") != std::string::npos) continue;  // never let a value end its line
      h.append(x.name).append(": ").append(x.value).append("\r\n");
    }
    if (!r.headers.find("date")) h.append("Date: ").append(format_date(c_.s_.rt.wall_ms())).append("\r\n");
    if (!r.headers.find("server")) h.append("Server: ").append(c_.s_.options.server_name).append("\r\n");
    if (chunked && !without_body(r.status))
      h.append("Transfer-Encoding: chunked\r\n");
    else if (length && !r.headers.find("content-length"))
      h.append("Content-Length: ").append(std::to_string(*length)).append("\r\n");
    h.append(c_.keep_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n");
    return h;
  }

  task<result<void>> flush(bytes_view v) {
    std::string before = std::exchange(head_pending_, {});
    const bool chunk = chunked_out_ && !v.empty();
    if (chunk) {
      char size[24];
      std::snprintf(size, sizeof size, "%zx\r\n", v.size());
      before += size;
    }
    co_return co_await sent(c_.write(before, v, chunk ? "\r\n" : ""));
  }

  task<result<void>> sent(task<result<void>> w) {
    auto r = co_await std::move(w);
    if (!r) {
      abort();
      co_return fail(errc::cancelled, "the client is gone");
    }
    co_return r;
  }

  task<result<std::size_t>> read_plain(std::span<char> to) {
    auto want = static_cast<std::size_t>(std::min<std::uint64_t>(left_, to.size()));
    std::size_t n = std::min(want, c_.buffer_.size());
    if (n) {
      std::memcpy(to.data(), c_.buffer_.data(), n);
      c_.buffer_.erase(0, n);
    } else {
      CO_TRY(n, co_await c_.stream_->read_some(to.first(want)));
      if (n == 0) co_return fail(errc::incomplete_body, "the body ended before its Content-Length");
    }
    left_ -= n;
    co_return n;
  }

  task<result<std::size_t>> read_chunked(std::span<char> to) {
    for (;;) {
      if (c_.buffer_.empty()) {
        CO_TRY(std::size_t n, co_await c_.fill(read_ahead_bytes));
        if (n == 0) co_return fail(errc::incomplete_body, "the body ended before its last chunk");
      }
      // No more than fits: what is decoded is handed out at once.
      CO_TRY(auto s, chunks_.feed(bytes_view(c_.buffer_).substr(0, to.size())));
      std::size_t n = s.body.size();
      if (n) std::memcpy(to.data(), s.body.data(), n);
      c_.buffer_.erase(0, s.consumed);
      if (n || chunks_.done()) co_return n;
    }
  }

  connection& c_;
  http::request request_;
  std::uint64_t left_;
  chunked_decoder chunks_;
  bool continued_ = false, slow_ = false, broken_ = false, ended_ = false, chunked_out_ = false;
  std::uint64_t body_read_ = 0, body_sent_ = 0;
  std::optional<std::uint64_t> announced_;
  std::string head_pending_;
  int status_ = 0;
};

task<result<std::size_t>> connection::fill(std::size_t size_max) {
  std::size_t had = buffer_.size();
  buffer_.resize(had + size_max);
  auto r = co_await stream_->read_some(std::span(buffer_.data() + had, size_max));
  buffer_.resize(had + (r ? *r : 0));
  co_return r;
}

task<result<void>> connection::write(bytes_view before, bytes_view body, bytes_view after) {
  do {
    const bytes_view step = body.substr(0, write_step_bytes);
    body.remove_prefix(step.size());
    bytes_view parts[] = {before, step, body.empty() ? after : bytes_view()};
    expect_writing();
    auto r = co_await stream_->write(parts);
    rest();
    if (!r) co_return r;
    if (out_.too_slow(s_.options, s_.rt.now() - looked_, step.size())) co_return fail(errc::timed_out, "the client takes too little at a time");
    before = {};
  } while (!body.empty());
  co_return result<void>();
}

task<std::optional<std::string>> connection::read_head() {
  const std::size_t max = s_.options.header_bytes_max;
  std::size_t blank_lines = 0, looked = 0;  // looked: up to there no end was found
  held_header held(s_);
  bool first = buffer_.empty();
  expect_progress_within(first ? s_.options.idle_time : s_.options.header_time);
  for (;;) {
    // Blank lines before a request are skipped, as RFC 9112 asks; a few.
    while (buffer_.starts_with("\r\n") && blank_lines < 8) buffer_.erase(0, 2), ++blank_lines, looked = 0;
    auto end = buffer_.find("\r\n\r\n", looked);
    if (end == std::string::npos && buffer_.find("\n\n", looked) != std::string::npos) {
      co_await refuse({400, "a line that ends in a bare line feed"});
      co_return std::nullopt;
    }
    if (end != std::string::npos && end + 4 <= max) {
      std::string head = buffer_.substr(0, end + 4);
      buffer_.erase(0, end + 4);
      if (buffer_.empty()) buffer_ = {};  // what it grew to is not kept while a body goes or nothing happens
      rest();
      co_return head;
    }
    if (buffer_.size() >= max || end != std::string::npos) {
      co_await refuse({431, "headers of more than " + std::to_string(max) + " bytes"});
      co_return std::nullopt;
    }
    looked = buffer_.size() < 3 ? 0 : buffer_.size() - 3;
    const bool first_step = buffer_.size() < head_step_bytes;
    const std::size_t more = std::min((first_step ? head_step_bytes - buffer_.size() : head_step_bytes), max - buffer_.size());
    const std::size_t beyond = first_step ? 0 : buffer_.size() + more - head_step_bytes;
    if (!held.may_be(beyond)) {
      co_await refuse({503, "too many requests with long headers at once"});
      co_return std::nullopt;
    }
    held.set(beyond);
    auto r = co_await fill(more);
    if (!r || *r == 0) co_return std::nullopt;
    if (std::exchange(first, false)) expect_progress_within(s_.options.header_time);
    busy_ = true;
  }
}

task<void> connection::refuse(refusal f) {
  ++s_.stats.refused;
  keep_ = false;
  std::string body = f.why + "\n";
  std::string all = "HTTP/1.1 " + std::to_string(f.status) + " " + std::string(reason(f.status)) +
                    "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) +
                    "\r\n\r\n" + body;
  bytes_view v(all);
  expect_progress_within(s_.options.linger_time);
  (void)co_await stream_->write(std::span(&v, 1));
  co_await drain();
}

// Closing with unread bytes would reset the connection, and the client might lose the answer: read a little more first.
task<void> connection::drain() {
  expect_progress_within(s_.options.linger_time);
  for (std::uint64_t dropped = 0; dropped < 4 * drop_max;) {
    buffer_ = {};
    auto r = co_await fill(head_step_bytes);
    if (!r || *r == 0) break;
    dropped += *r;
  }
}

task<void> connection::run() {
  while (keep_ && !closed_ && !s_.stopping) {
    busy_ = !buffer_.empty();
    auto head = co_await read_head();
    if (!head) break;
    busy_ = true;
    auto parsed = parse_head(*head, s_.options);
    if (!parsed) {
      co_await refuse(parsed.error());
      break;
    }
    ++s_.stats.requests;
    parsed->remote = stream_->peer();
    auto connection_header = parsed->headers.get("connection");
    if (connection_header == "close" || connection_header == "Close" || head->find("HTTP/1.0\r\n") != std::string::npos) keep_ = false;
    head.reset();
    in_ = out_ = {};
    live_exchange x(*this, std::move(*parsed));
    // One request that a handler has no answer to is no reason to end the server.
    std::optional<std::string> thrown;
    try {
      co_await s_.handle(x);
    } catch (const boost::system::system_error& e) {
      if (e.code() == asio::error::operation_aborted) throw;
      thrown = e.what();
    } catch (const std::exception& e) {
      thrown = e.what();
    }
    if (thrown) {
      s_.rt.log(log_level::error, "http: " + x.request().method + " " + x.request().path.substr(0, 200) + ": " + *thrown);
      keep_ = false;
      if (x.answered()) x.abort();
    }
    if (!x.answered()) (void)co_await x.send({500, {}, "Something failed inside.\n"});
    if (x.owes()) x.abort();
    if (x.slow()) co_await drain();
    if (x.broken()) break;
    if (!x.body_done()) {
      char drop[16 << 10];
      if (!keep_) {
        co_await drain();
        break;
      }
      while (!x.body_done()) {
        auto r = co_await x.read_body(drop);
        if (!r || *r == 0) break;
      }
      if (!x.body_done()) break;
    }
  }
  rest();
  close();
}

// The host of a peer's address; of IPv6 the first half, which is one customer's.
std::string client_of(const std::string& peer) {
  auto colon = peer.rfind(':');
  std::string host = peer.substr(0, colon);
  if (!host.starts_with('[')) return host;
  boost::system::error_code ec;
  auto v6 = asio::ip::make_address_v6(host.substr(1, host.find_first_of("%]") - 1), ec);
  if (ec) return host;
  auto raw = v6.to_bytes();
  return to_hex(bytes_view(reinterpret_cast<const char*>(raw.data()), raw.size() / 2));
}

class live_server final : public server {
 public:
  live_server(runtime& rt, network& net, options o, handler h)
      : state_{rt, std::move(o), std::move(h), {}}, net_(net), group_(rt) {}

  result<void> start() override {
    TRY(listener_, net_.listen(state_.options.listen));
    group_.spawn("accept", accept());
    return {};
  }

  task<void> stop() override {
    state_.stopping = true;
    if (listener_) listener_->close();
    mono_time until = state_.rt.now() + state_.options.drain_time;
    for (;;) {
      for (auto* c : open_)
        if (!c->busy()) c->close();
      if (open_.empty() || state_.rt.now() >= until) break;
      co_await sleep_for(state_.rt, 20ms);
    }
    for (auto* c : std::vector<connection*>(open_.begin(), open_.end())) c->close();
    group_.cancel();
    co_await group_.join();
  }

  std::string local() const override { return listener_ ? listener_->local() : state_.options.listen; }
  statistics stats() const override {
    statistics s = state_.stats;
    s.open = open_.size();
    return s;
  }

 private:
  task<void> accept() {
    for (;;) {
      auto s = co_await listener_->accept();
      if (state_.stopping) co_return;
      if (!s) {
        // Out of descriptors, or the client went away: neither ends the server.
        co_await sleep_for(state_.rt, 50ms);
        continue;
      }
      ++state_.stats.connections;
      auto from = of_client_.find(client_of((*s)->peer()));
      if (open_.size() >= state_.options.connections_max || (from != of_client_.end() && from->second >= state_.options.connections_per_client)) {
        ++state_.stats.refused;
        continue;
      }
      group_.spawn("connection", serve(std::move(*s)));
    }
  }

  task<void> serve(std::unique_ptr<byte_stream> stream) {
    struct listed {
      live_server& s;
      connection* c;
      std::string client;
      listed(live_server& server, connection* x, std::string from) : s(server), c(x), client(std::move(from)) {
        s.open_.insert(c);
        ++s.of_client_[client];
      }
      ~listed() {
        s.open_.erase(c);
        if (auto at = s.of_client_.find(client); --at->second == 0) s.of_client_.erase(at);
      }
    };
    std::string client = client_of(stream->peer());
    connection c(state_, std::move(stream));
    listed l(*this, &c, std::move(client));
    co_await c.run();
  }

  shared_state state_;
  network& net_;
  task_group group_;
  std::unique_ptr<stream_listener> listener_;
  std::set<connection*> open_;
  std::map<std::string, std::size_t> of_client_;  // open connections
};

}  // namespace

std::unique_ptr<server> make_server(runtime& rt, network& net, options o, handler h) {
  return std::make_unique<live_server>(rt, net, std::move(o), std::move(h));
}

}  // namespace grenier::http
