// wire/frame.h: what travels inside the sealed channel, as a machine without I/O: bytes in, frames and messages out.
//
// The stream is a row of records: a 4-byte length, then that many sealed bytes (the length is authenticated with them). The
// plaintext of a record is one frame or several: type 1, flags 1 (priority in the low two bits, 0x80: the message has a body),
// payload length 2, stream 4, payload. A message says its sizes in its first frame and ends when they are reached.
//
//   Limits    record plaintext to 64 KiB; message to 16 MiB; 72 MiB of unfinished messages, each taken for 1 KiB at least; 1 KiB of error detail.
//   Errors    protocol: the peer is wrong, close the connection.
#pragma once

#include <map>

#include "wire/wire.h"

namespace grenier::wire {

inline constexpr std::size_t message_max_bytes = 16 << 20;
inline constexpr std::size_t record_max_bytes = 64 << 10;  // plaintext
inline constexpr std::size_t record_prefix_bytes = 4;
inline constexpr std::size_t frame_header_bytes = 8;
inline constexpr std::size_t assembly_max_bytes = 72 << 20;
inline constexpr std::size_t pending_bytes_min = 1024;  // what an unfinished message counts at least, however little it announces
inline constexpr std::size_t detail_max_bytes = 1024;
inline constexpr std::uint32_t deadline_max_ms = 3600 * 1000;

// A stream's number is chosen by the caller; the two sides' calls are numbered apart, as the type tells whose it is.
enum class frame_type : std::uint8_t {
  request = 1,    // method 2, deadline in ms 4, head size 4, body size 4, then bytes
  request_data,   // more bytes
  response,       // error code 2 (0: none), head size 4, body size 4, then bytes
  response_data,
  cancel,         // the caller wants no answer any more
  ping,           // 8 bytes that come back in a pong
  pong,
  goodbye,        // this side starts no more calls here
};

struct frame {
  frame_type type{};
  wire::priority priority{};
  bool has_body = false;
  std::uint32_t stream = 0;
  bytes_view payload;
};

void append_frame_header(bytes& to, const frame&, std::size_t payload_size);
// Takes the next frame off the front of a record's plaintext.
result<frame> take_frame(bytes_view& plaintext);
// The sealed bytes of the first record, as soon as all of them are there; nothing: more is needed.
result<std::optional<bytes_view>> find_record(bytes_view received);

struct request_start {
  std::uint16_t method = 0;
  std::uint32_t deadline_ms = 0, head_size = 0, body_size = 0;
  bytes_view data;
};
struct response_start {
  std::uint16_t code = 0;
  std::uint32_t head_size = 0, body_size = 0;
  bytes_view data;
};
bytes encode_request_start(std::uint16_t method, std::uint32_t deadline_ms, const message&);
bytes encode_response_start(std::uint16_t code, const message&);
result<request_start> parse_request_start(const frame&);
result<response_start> parse_response_start(const frame&);

// A whole message.
struct assembled {
  bool request = false;
  std::uint32_t stream = 0;
  wire::priority priority{};
  std::uint16_t number = 0;  // method, or error code
  std::uint32_t deadline_ms = 0;
  message content;
};

// Puts messages together. Data of streams that it does not know is dropped: their start was refused or nobody waits any more.
class assembler {
 public:
  result<std::optional<assembled>> start(const frame&, const request_start&);
  result<std::optional<assembled>> start(const frame&, const response_start&);
  result<std::optional<assembled>> more(const frame&);  // request_data, response_data
  void drop(bool request, std::uint32_t stream);
  std::size_t pending_bytes() const noexcept { return pending_bytes_; }  // of unfinished messages: what they announced, and 1 KiB at least
  std::size_t pending_count() const noexcept { return partial_.size(); }

 private:
  struct partial {
    assembled what;
    std::uint32_t head_size = 0, body_size = 0;
    std::shared_ptr<bytes> body;
  };
  using key = std::pair<bool, std::uint32_t>;
  result<std::optional<assembled>> begin(partial, bytes_view data);
  static bool feed(partial&, bytes_view data);  // false: more than was announced
  static bool complete(const partial&);
  static std::size_t cost(const partial&);
  static assembled finish(partial&&);
  std::map<key, partial> partial_;
  std::size_t pending_bytes_ = 0;
};

}  // namespace grenier::wire
