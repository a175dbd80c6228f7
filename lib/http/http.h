// http/http.h: the HTTP/1.1 server loop that the S3 gateway, the web host and the admin port share.
//
// Every byte is a stranger's. A request is parsed strictly (two Content-Lengths, Content-Length beside Transfer-Encoding, obs-fold, bare LF,
// a coding other than chunked: 400 and the connection closes); headers keep their order and raw bytes; the target is never decoded here.
//
//   Owns      its listener and connections.
//   Runs on   its home thread; one task a connection.
//   Cancel    stop() gives requests under way drain_time, then closes. A client that goes away fails reads and writes with `cancelled`.
//   Errors    read_body: incomplete_body (the client stopped early), timed_out (or too slow: an answer can still be sent), protocol (bad chunking), cancelled.
//             A handler that throws is logged and answered 500; what was begun is broken off.
//   Limits    options: header bytes and count, connections, time for headers, idle time, time without progress of a body, and
//             the least rate of a body: what it keeps in memory comes back. Headers that
//             are not complete take 4 KiB a connection and header_bytes_all beyond that, together; more is answered 503.
//   Not here  signatures, XML (s3-gateway/); TLS.
//   Source    RFC 9110, RFC 9112.
#pragma once

#include "async/async.h"

namespace grenier::http {

struct header {
  std::string name, value;  // as sent, value without surrounding white space
};

class headers {
 public:
  void add(std::string name, std::string value) { list_.push_back({std::move(name), std::move(value)}); }
  void set(std::string_view name, std::string value);
  void remove(std::string_view name);
  // Names compare without case. The first one's value, or nothing.
  std::optional<std::string_view> find(std::string_view name) const;
  std::string_view get(std::string_view name) const { return find(name).value_or(std::string_view()); }
  std::size_t count(std::string_view name) const;
  const std::vector<header>& all() const noexcept { return list_; }

 private:
  std::vector<header> list_;
};

struct request {
  std::string method;
  std::string target;   // raw, origin form
  std::string path;     // raw, up to '?'
  std::string query;    // raw, after '?'
  bool has_query = false;
  http::headers headers;
  std::string remote;   // "host:port"
  std::string host() const;  // Host header, lower case, without the port
  std::optional<std::uint64_t> content_length;
  bool chunked = false;
  bool expects_continue = false;
};

// %XX -> bytes; nothing when malformed. '+' stays (S3 keys) unless plus_is_space.
std::optional<std::string> percent_decode(std::string_view, bool plus_is_space = false);
// RFC 3986 unreserved characters stay, and '/' when keep_slash.
std::string percent_encode(std::string_view, bool keep_slash = false);
// Decoded name/value pairs in order; nothing when malformed.
std::optional<std::vector<std::pair<std::string, std::string>>> parse_query(std::string_view raw);
// "Sun, 06 Nov 1994 08:49:37 GMT"
std::string format_date(std::uint64_t ms_since_1970);
std::optional<std::uint64_t> parse_date(std::string_view);
struct byte_range {
  std::uint64_t first = 0, last = 0;  // inclusive
};
// A single "bytes=a-b", "a-", "-n". Nothing: no usable Range (answer the whole); invalid_range: 416.
result<std::optional<byte_range>> parse_range(std::string_view header, std::uint64_t size);
std::string_view reason(int status) noexcept;

struct response {
  int status = 200;
  http::headers headers;
  bytes body;
};

// One request and its answer. The handler must send exactly one answer: send(), or begin() and then write() until the length
// that it announced. A body that the handler left unread is read and dropped up to 256 KiB, beyond that the connection closes.
class exchange {
 public:
  virtual ~exchange() = default;
  virtual const http::request& request() const = 0;
  // The next bytes of the body (chunked coding removed); 0 at its end. The first call sends "100 Continue" if the client waits for it.
  virtual task<result<std::size_t>> read_body(std::span<char> to) = 0;
  virtual std::uint64_t body_read() const = 0;
  // Adds Date, Content-Length, Connection. For HEAD, 204, 304 the body is not sent (HEAD: Content-Length as given in headers if there, else of body).
  virtual task<result<void>> send(response) = 0;
  // Headers now, exactly `length` bytes follow by write(); nothing: chunked.
  virtual task<result<void>> begin(response head, std::optional<std::uint64_t> length) = 0;
  virtual task<result<void>> write(bytes_view) = 0;   // the view is borrowed until it returns
  virtual task<result<void>> end() = 0;
  virtual bool answered() const = 0;                  // headers were sent
  // The rest of the answer cannot be had: the connection is broken off, so that the client sees it is incomplete.
  virtual void abort() = 0;
  virtual int status() const = 0;                     // sent, for logs
  virtual std::uint64_t body_sent() const = 0;
};

using handler = std::function<task<void>(exchange&)>;

struct options {
  std::string listen;
  std::size_t header_bytes_max = 32 << 10;
  std::size_t header_bytes_all = 8 << 20;
  std::size_t header_count_max = 200;
  std::size_t connections_max = 1024;
  std::size_t connections_per_client = 512;  // of one IPv4 address or IPv6 /64; a proxy before this home is one client
  nanoseconds header_time = 20s;      // from the first byte of a request to the end of its headers
  nanoseconds idle_time = 75s;        // between requests
  nanoseconds progress_time = 60s;    // without a byte read or taken by the client within a body
  std::uint64_t body_rate_min = 1024;  // bytes/s of a body, over each rate_time that this side waited for the client; 0: none
  nanoseconds rate_time = 60s;
  nanoseconds linger_time = 2s;       // for a client that was refused to take its answer
  nanoseconds drain_time = 3s;
  std::string server_name = "Grenier";
};

struct statistics {
  std::uint64_t requests = 0, refused = 0, connections = 0;
  std::size_t open = 0;
};

class server {
 public:
  virtual ~server() = default;
  virtual result<void> start() = 0;   // already_exists: the port is taken
  virtual task<void> stop() = 0;
  virtual std::string local() const = 0;
  virtual statistics stats() const = 0;
};

std::unique_ptr<server> make_server(runtime&, network&, options, handler);

}  // namespace grenier::http
