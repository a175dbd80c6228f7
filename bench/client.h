// bench/client.h: S3 requests over one kept connection to one endpoint, blocking, for one thread.
//
//   Errors    unavailable: the server cannot be reached; timed_out; protocol: what came is not HTTP, or was cut off. An answer with
//             an error status is an answer.
//   Limits    one request at a time; https is not spoken; a failed request is not tried again.
#pragma once

#include "options.h"
#include "signer.h"

namespace grenier::bench {

struct answer {
  unsigned status = 0;
  bool ok() const noexcept { return status >= 200 && status < 300; }
  std::string what(bytes_view body) const;  // "503 SlowDown": the status and S3's word for it
};

class connection {
 public:
  connection(endpoint, const options&);
  ~connection();
  connection(const connection&) = delete;
  // path: encoded. A body that is signed is hashed first, before sent_at is taken; `body` then receives the answer's.
  result<answer> request(std::string_view method, std::string_view path, const query&, bytes_view content, bytes& body);
  // When the last request began to be sent, ns of the steady clock: what the client did before is not the server's time.
  std::int64_t sent_at() const noexcept { return sent_at_; }

 private:
  struct socket;
  result<void> connect();
  result<answer> exchange(const std::string& head, bytes_view content, bytes& body);
  endpoint to_;
  double timeout_seconds_;
  bool sign_bodies_;
  signer signer_;
  std::unique_ptr<socket> socket_;
  std::int64_t sent_at_ = 0;
};

std::int64_t steady_ns() noexcept;

// The text between <name> and </name>, from `at` on, which then stands behind it; nothing when there is none. For what S3 lists, whose names
// and texts this program chose itself: not a parser of XML.
std::optional<std::string> next_element(std::string_view xml, std::string_view name, std::size_t& at);

}  // namespace grenier::bench
