// The real network seam: TCP on Asio, and unix sockets for the administrator on the same machine.
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "async/async.h"
#include "async/local_stream.h"

namespace grenier {

namespace {

using boost::asio::ip::tcp;
using unix_protocol = asio::local::stream_protocol;
using socket_type = asio::basic_stream_socket<tcp, io_executor>;
using acceptor_type = asio::basic_socket_acceptor<tcp, io_executor>;
constexpr auto tuple_task = asio::as_tuple(use_task);

error to_error(boost::system::error_code ec, const std::string& what) {
  if (ec == asio::error::operation_aborted || ec == asio::error::bad_descriptor) return {errc::cancelled, what};
  if (ec == asio::error::address_in_use) return {errc::already_exists, what + ": the port is taken by another program"};
  if (ec == asio::error::timed_out) return {errc::timed_out, what};
  return {errc::unavailable, what + ": " + ec.message()};
}

// IPv4 through a dual-stack listener is named as what it is.
std::string name_of(const tcp::endpoint& e) {
  if (e.address().is_v6() && e.address().to_v6().is_v4_mapped())
    return asio::ip::make_address_v4(asio::ip::v4_mapped, e.address().to_v6()).to_string() + ":" + std::to_string(e.port());
  std::string a = e.address().to_string();
  return (e.address().is_v6() ? "[" + a + "]" : a) + ":" + std::to_string(e.port());
}

result<std::pair<std::string, std::string>> split_address(const std::string& address) {
  auto colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size() || colon + 6 < address.size() ||
      address.find_first_not_of("0123456789", colon + 1) != std::string::npos || std::stoul(address.substr(colon + 1)) > 65535)
    return fail(errc::invalid_argument, "'" + address + "' is not host:port");
  std::string host = address.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return std::pair(host, address.substr(colon + 1));
}

template <class Protocol>
class socket_stream final : public byte_stream {
 public:
  using socket_t = asio::basic_stream_socket<Protocol, io_executor>;
  socket_stream(socket_t s, std::string peer) : socket_(std::move(s)), peer_(std::move(peer)) {
    if constexpr (std::is_same_v<Protocol, tcp>) {
      boost::system::error_code ec;
      socket_.set_option(tcp::no_delay(true), ec);
      socket_.set_option(asio::socket_base::keep_alive(true), ec);
    }
  }
  task<result<std::size_t>> read_some(std::span<char> to) override {
    auto [ec, n] = co_await socket_.async_read_some(asio::buffer(to.data(), to.size()), tuple_task);
    if (ec == asio::error::eof) co_return std::size_t{0};
    if (ec) co_return fail(to_error(ec, peer_));
    co_return n;
  }
  task<result<void>> write(std::span<const bytes_view> from) override {
    std::vector<asio::const_buffer> buffers;
    buffers.reserve(from.size());
    for (auto v : from) buffers.emplace_back(v.data(), v.size());
    auto [ec, n] = co_await asio::async_write(socket_, buffers, tuple_task);
    if (ec) co_return fail(to_error(ec, peer_));
    co_return result<void>();
  }
  void close() override {
    boost::system::error_code ec;
    socket_.shutdown(asio::socket_base::shutdown_both, ec);
    socket_.close(ec);
  }
  std::size_t unsent() const override {
    int n = 0;
    return ::ioctl(const_cast<socket_t&>(socket_).native_handle(), SIOCOUTQ, &n) == 0 ? static_cast<std::size_t>(n) : 0;
  }
  std::string peer() const override { return peer_; }

 private:
  socket_t socket_;
  std::string peer_;
};
using tcp_stream = socket_stream<tcp>;

class local_listener final : public stream_listener {
 public:
  using acceptor_t = asio::basic_socket_acceptor<unix_protocol, io_executor>;
  local_listener(acceptor_t a, std::string path) : acceptor_(std::move(a)), path_(std::move(path)) {}
  ~local_listener() override { close(); }
  task<result<std::unique_ptr<byte_stream>>> accept() override {
    auto [ec, s] = co_await acceptor_.async_accept(tuple_task);
    if (ec) co_return fail(to_error(ec, "accept"));
    co_return std::unique_ptr<byte_stream>(new socket_stream<unix_protocol>(std::move(s), "local"));
  }
  std::string local() const override { return "unix:" + path_; }
  void close() override {
    if (!acceptor_.is_open()) return;
    boost::system::error_code ec;
    acceptor_.close(ec);
    ::unlink(path_.c_str());
  }

 private:
  acceptor_t acceptor_;
  std::string path_;
};

// Whoever may open the file may administer: it is made for its owner alone. A socket left by a dead process is replaced.
result<std::unique_ptr<stream_listener>> listen_local(runtime& rt, const std::string& path) {
  if (path.size() > 100) return fail(errc::invalid_argument, path + ": a socket's path may have 100 bytes at most; choose a shorter data directory");
  boost::system::error_code ec;
  ::unlink(path.c_str());
  local_listener::acceptor_t a(rt.executor());
  a.open(unix_protocol(), ec);
  if (!ec) a.bind(unix_protocol::endpoint(path), ec);
  // Before it listens nobody can connect. (umask would change what other threads create meanwhile.)
  if (!ec && ::chmod(path.c_str(), 0600) != 0) ec.assign(errno, boost::system::system_category());
  if (!ec) a.listen(64, ec);
  if (ec) return fail(to_error(ec, "listening on " + path));
  return std::unique_ptr<stream_listener>(new local_listener(std::move(a), path));
}

class tcp_listener final : public stream_listener {
 public:
  explicit tcp_listener(acceptor_type a) : acceptor_(std::move(a)) {}
  task<result<std::unique_ptr<byte_stream>>> accept() override {
    auto [ec, s] = co_await acceptor_.async_accept(tuple_task);
    if (ec) co_return fail(to_error(ec, "accept"));
    boost::system::error_code ignored;
    std::string peer = name_of(s.remote_endpoint(ignored));
    co_return std::unique_ptr<byte_stream>(new tcp_stream(std::move(s), peer));
  }
  std::string local() const override {
    boost::system::error_code ec;
    return name_of(acceptor_.local_endpoint(ec));
  }
  void close() override {
    boost::system::error_code ec;
    acceptor_.close(ec);
  }

 private:
  acceptor_type acceptor_;
};

}  // namespace

std::unique_ptr<byte_stream> adopt_local_stream(runtime& rt, int socket, std::string peer) {
  asio::basic_stream_socket<unix_protocol, io_executor> s(rt.executor());
  boost::system::error_code ec;
  s.assign(unix_protocol(), socket, ec);
  ASSERT(!ec);
  return std::make_unique<socket_stream<unix_protocol>>(std::move(s), std::move(peer));
}

task<result<std::unique_ptr<byte_stream>>> tcp_network::connect(std::string address, mono_time deadline) {
  auto split = split_address(address);
  if (!split) co_return fail(split.error());
  auto ex = rt_.executor();
  asio::ip::basic_resolver<tcp, io_executor> resolver(ex);
  // A timer closes what is under way; the flag tells its work from other failures.
  auto late = std::make_shared<bool>(false);
  auto sock = std::make_shared<socket_type>(ex);
  timer_id t = rt_.clock().call_at(deadline, [late, sock, &resolver] {
    *late = true;
    resolver.cancel();
    boost::system::error_code ec;
    sock->close(ec);
  });
  struct disarm {
    runtime& rt;
    timer_id t;
    ~disarm() { rt.clock().cancel(t); }
  } d{rt_, t};
  auto [rec, found] = co_await resolver.async_resolve(split->first, split->second, tuple_task);
  if (*late) co_return fail(errc::timed_out, "connecting to " + address);
  if (rec) co_return fail(to_error(rec, address));
  boost::system::error_code ec = asio::error::host_not_found;
  for (const auto& entry : found) {
    if (sock->is_open()) sock->close(ec);
    auto [cec] = co_await sock->async_connect(entry.endpoint(), tuple_task);
    if (*late) co_return fail(errc::timed_out, "connecting to " + address);
    ec = cec;
    if (!ec) co_return std::unique_ptr<byte_stream>(new tcp_stream(std::move(*sock), address));
  }
  co_return fail(to_error(ec, address));
}

result<std::unique_ptr<stream_listener>> tcp_network::listen(std::string address) {
  if (address.starts_with("unix:")) return listen_local(rt_, address.substr(5));
  TRY(auto split, split_address(address));
  boost::system::error_code ec;
  std::string host = split.first.empty() || split.first == "*" ? "::" : split.first;
  if (host == "localhost") host = "127.0.0.1";
  auto ip = asio::ip::make_address(host, ec);
  if (ec) return fail(errc::invalid_argument, "'" + address + "' is not an IP address with a port");
  tcp::endpoint at(ip, static_cast<std::uint16_t>(std::stoul(split.second)));
  acceptor_type a(rt_.executor());
  a.open(at.protocol(), ec);
  if (ec == asio::error::address_family_not_supported && host == "::") {  // a kernel without IPv6
    at = tcp::endpoint(asio::ip::address_v4::any(), at.port());
    a.open(at.protocol(), ec);
  }
  if (!ec) a.set_option(asio::socket_base::reuse_address(true), ec);
  if (!ec && at.address().is_v6() && at.address().is_unspecified()) a.set_option(asio::ip::v6_only(false), ec);
  if (!ec) a.bind(at, ec);
  if (!ec) a.listen(1024, ec);
  if (ec) return fail(to_error(ec, "listening on " + address));
  return std::unique_ptr<stream_listener>(new tcp_listener(std::move(a)));
}

}  // namespace grenier
