#include "client.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>

#include "crypto/crypto.h"

namespace grenier::bench {

namespace http = boost::beast::http;

namespace {
constexpr std::string_view hash_of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr std::size_t read_bytes = 64 << 10;
}  // namespace

std::int64_t steady_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::optional<std::string> next_element(std::string_view xml, std::string_view name, std::size_t& at) {
  const std::string open = "<" + std::string(name) + ">", close = "</" + std::string(name) + ">";
  auto from = xml.find(open, at);
  if (from == std::string_view::npos) return std::nullopt;
  from += open.size();
  auto to = xml.find(close, from);
  if (to == std::string_view::npos) return std::nullopt;
  at = to + close.size();
  return std::string(xml.substr(from, to - from));
}

std::string answer::what(bytes_view body) const {
  std::size_t at = 0;
  auto code = next_element(body, "Code", at);
  return std::to_string(status) + (code ? " " + *code : "");
}

// A socket that never blocks longer than the request may take.
struct connection::socket {
  int fd = -1;
  std::int64_t until = 0;
  ~socket() {
    if (fd >= 0) ::close(fd);
  }
  result<void> wait(short events) const {
    for (;;) {
      auto left = (until - steady_ns()) / 1'000'000;
      if (left <= 0) return fail(errc::timed_out, "no answer in time");
      pollfd p{fd, events, 0};
      int n = ::poll(&p, 1, static_cast<int>(std::min<std::int64_t>(left, 1'000'000)));
      if (n > 0) return {};
      if (n < 0 && errno != EINTR) return fail(errc::unavailable, std::strerror(errno));
    }
  }
  result<void> send(std::string_view head, bytes_view content) const {
    while (!head.empty() || !content.empty()) {
      iovec pieces[2] = {{const_cast<char*>(head.data()), head.size()}, {const_cast<char*>(content.data()), content.size()}};
      msghdr m{};
      m.msg_iov = pieces;
      m.msg_iovlen = 2;
      ssize_t n = ::sendmsg(fd, &m, MSG_NOSIGNAL);
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        TRY_VOID(wait(POLLOUT));
        continue;
      }
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail(errc::protocol, std::string("sending: ") + std::strerror(errno));
      auto sent = static_cast<std::size_t>(n), of_head = std::min(sent, head.size());
      head.remove_prefix(of_head);
      content.remove_prefix(sent - of_head);
    }
    return {};
  }
  // 0: the other side has closed.
  result<std::size_t> receive(void* to, std::size_t size_max) const {
    for (;;) {
      ssize_t n = ::recv(fd, to, size_max, 0);
      if (n >= 0) return static_cast<std::size_t>(n);
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) return fail(errc::protocol, std::string("receiving: ") + std::strerror(errno));
      TRY_VOID(wait(POLLIN));
    }
  }
};

connection::connection(endpoint to, const options& o)
    : to_(std::move(to)), timeout_seconds_(o.timeout_seconds), sign_bodies_(o.sign_bodies), signer_(o.access_key, o.secret_key, o.region) {}
connection::~connection() = default;

result<void> connection::connect() {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (int e = ::getaddrinfo(to_.host.c_str(), to_.port.c_str(), &hints, &found); e != 0)
    return fail(errc::unavailable, "cannot reach " + to_.url + ": " + ::gai_strerror(e));
  std::unique_ptr<addrinfo, void (*)(addrinfo*)> all(found, ::freeaddrinfo);
  std::string why = "no address";
  for (const addrinfo* a = all.get(); a; a = a->ai_next) {
    auto s = std::make_unique<socket>();
    s->until = steady_ns() + static_cast<std::int64_t>(std::min(timeout_seconds_, 10.0) * 1e9);
    s->fd = ::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (s->fd < 0) {
      why = std::strerror(errno);
      continue;
    }
    int e = ::connect(s->fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    if (e == EINPROGRESS) {
      if (auto ready = s->wait(POLLOUT); !ready) {
        why = "it does not answer";
        continue;
      }
      socklen_t size = sizeof e;
      ::getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &e, &size);
    }
    if (e != 0) {
      why = std::strerror(e);
      continue;
    }
    int on = 1;
    ::setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    socket_ = std::move(s);
    return {};
  }
  return fail(errc::unavailable, "cannot reach " + to_.url + ": " + why);
}

result<answer> connection::request(std::string_view method, std::string_view path, const query& q, bytes_view content, bytes& body) {
  std::string hash(hash_of_nothing);
  if (!content.empty()) hash = sign_bodies_ ? to_hex(crypto::digest(crypto::hash_kind::sha256, content)) : "UNSIGNED-PAYLOAD";
  auto now_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
  std::string head(method);
  head.append(" ").append(path);
  if (!q.empty()) head.append("?").append(to_string(q));
  head.append(" HTTP/1.1\r\nHost: ").append(to_.authority).append("\r\nUser-Agent: grenier-bench\r\n");
  head += signer_.headers(method, to_.authority, path, q, hash, now_ms);
  if (method == "PUT" || !content.empty()) head += "Content-Length: " + std::to_string(content.size()) + "\r\n";
  head += "\r\n";
  sent_at_ = steady_ns();
  if (!socket_) TRY_VOID(connect());
  socket_->until = sent_at_ + static_cast<std::int64_t>(timeout_seconds_ * 1e9);
  auto r = exchange(head, content, body);
  if (!r) socket_.reset();  // nothing is known of what would come next
  return r;
}

result<answer> connection::exchange(const std::string& head, bytes_view content, bytes& body) {
  auto refused = socket_->send(head, content);
  // A server that refuses early answers before it has read all: its answer says more than the broken line.
  if (!refused && refused.error().code != errc::protocol) return std::unexpected(refused.error());
  http::response_parser<http::string_body> parser;
  parser.body_limit(boost::none);
  parser.eager(false);
  boost::beast::flat_buffer buffer;
  boost::system::error_code ec;
  auto more = [&]() -> result<void> {
    auto room = buffer.prepare(read_bytes);
    TRY(auto n, socket_->receive(room.data(), room.size()));
    buffer.commit(n);
    if (n > 0) return {};
    if (parser.got_some()) parser.put_eof(ec);
    if (!parser.is_done() || ec) return fail(errc::protocol, "the server closed the connection in the middle of a request");
    return {};
  };
  auto parse = [&]() -> result<void> {
    while (buffer.size() > 0 && !parser.is_done()) {
      auto used = parser.put(buffer.data(), ec);
      buffer.consume(used);
      if (ec == http::error::need_more) {
        ec = {};
        return {};
      }
      if (ec) return fail(errc::protocol, "the answer is not HTTP: " + ec.message());
      if (parser.is_header_done() && !parser.chunked() && parser.content_length()) return {};
      if (used == 0) return {};
    }
    return {};
  };
  while (!parser.is_header_done()) {
    if (auto m = more(); !m) return refused ? std::unexpected(m.error()) : std::unexpected(refused.error());
    TRY_VOID(parse());
  }
  answer a{parser.get().result_int()};
  if (auto length = parser.content_length(); length && !parser.chunked() && !parser.is_done()) {
    // Straight to where it belongs: a client that copies takes the processor from the server beside it.
    body.resize(*length);
    auto have = std::min<std::size_t>(buffer.size(), body.size());
    std::memcpy(body.data(), buffer.data().data(), have);
    while (have < body.size()) {
      TRY(auto n, socket_->receive(body.data() + have, body.size() - have));
      if (n == 0) return fail(errc::protocol, "the server closed the connection in the middle of a body");
      have += n;
    }
  } else {
    while (!parser.is_done()) {
      TRY_VOID(more());
      TRY_VOID(parse());
    }
    body = std::move(parser.get().body());
  }
  if (!refused || !parser.keep_alive()) socket_.reset();
  return a;
}

}  // namespace grenier::bench
