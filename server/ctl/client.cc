// A small HTTP client: the packaged one does not speak to unix sockets.
#include "ctl/client.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <iostream>

namespace grenier::ctl {

namespace {

constexpr std::string_view nobody = "no storaged runs";
constexpr std::size_t answer_bytes_max = 64 << 20;

struct socket_guard {
  int fd;
  ~socket_guard() {
    if (fd >= 0) ::close(fd);
  }
};

result<void> send_all(int fd, bytes_view b) {
  while (!b.empty()) {
    ssize_t n = ::send(fd, b.data(), b.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail(errc::unavailable, "storaged closed the connection");
    b.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

result<nlohmann::json> command(const std::string& data_dir, const std::string& path, const nlohmann::json& in, int seconds_max) {
  std::string where = data_dir + "/control.sock";
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  if (where.size() >= sizeof at.sun_path) return fail(errc::invalid_argument, where + ": too long for a socket's path");
  std::memcpy(at.sun_path, where.data(), where.size());
  socket_guard s{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (s.fd < 0) return fail(errc::internal, std::strerror(errno));
  timeval limit{seconds_max, 0};
  ::setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(s.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (::connect(s.fd, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) {
    if (errno == EACCES || errno == EPERM) return fail(errc::access_denied, "you may not speak to the storaged of " + data_dir + ": run storagectl as the user that runs it");
    return fail(errc::unavailable, std::string(nobody) + " with the data directory " + data_dir + " (another one? say --data-dir DIR)");
  }
  std::string body = in.dump();
  TRY_VOID(send_all(s.fd, "POST " + path + " HTTP/1.1\r\nHost: local\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body));
  std::string got;
  for (char b[65536];;) {
    ssize_t n = ::recv(s.fd, b, sizeof b, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(errc::timed_out, "storaged did not answer within " + std::to_string(seconds_max) + " seconds");
    if (n == 0) break;
    got.append(b, static_cast<std::size_t>(n));
    if (got.size() > answer_bytes_max) return fail(errc::too_large, "an answer of more than 64 MiB");
  }
  auto end = got.find("\r\n\r\n");
  if (!got.starts_with("HTTP/1.1 ") || end == std::string::npos) return fail(errc::protocol, "this is no storaged that answers at " + where);
  int status = std::atoi(got.c_str() + 9);
  auto j = nlohmann::json::parse(got.substr(end + 4), nullptr, false);
  if (j.is_discarded() || !j.is_object()) return fail(errc::protocol, "an answer that cannot be read; are storaged and storagectl of one version?");
  if (status == 200) return j;
  errc code = errc::internal;
  std::string message = "error " + std::to_string(status);
  if (auto e = j.find("error"); e != j.end() && e->is_object()) {
    for (errc c : all_errcs())
      if (to_string(c) == e->value("code", "")) code = c;
    message = e->value("message", message);
  }
  if (message.empty()) message = std::string(to_string(code));
  return fail(code, message);
}

int say_error(const error& e, bool as_json) {
  if (as_json)
    std::cout << nlohmann::json{{"error", {{"code", std::string(to_string(e.code))}, {"message", e.detail}}}}.dump(2) << "\n";
  else
    std::cerr << "storagectl: " << e.detail << "\n";
  switch (e.code) {
    case errc::unavailable: return e.detail.starts_with(nobody) ? 3 : 5;
    case errc::conflict:
    case errc::outcome_unknown: return 5;
    case errc::not_found:
    case errc::no_such_bucket:
    case errc::no_such_key: return 4;
    case errc::invalid_argument: return 2;
    default: return 1;
  }
}

}  // namespace grenier::ctl
