// wire/queue.h: what waits to be sent to one peer, as a machine without I/O: messages in, records out.
//
// Signals (ping, cancel ...) go first, then the priorities strictly in order; the messages of one priority share it frame by
// frame. A message starts only while the unfinished ones of its priority stay within 8 MiB or it is alone (small ones always
// start): so the receiver's memory is bounded without a window of credits, which would only cost round trips, as messages
// are taken whole.
#pragma once

#include "wire/frame.h"

namespace grenier::wire {

struct outgoing {
  bool request = false;
  std::uint32_t stream = 0;
  wire::priority priority{};
  bytes start;      // the fixed part of the first frame
  message content;
  std::size_t done = 0;  // bytes of content taken
  bool started = false;
  std::size_t size() const noexcept { return content.size_bytes(); }
};

class send_queue {
 public:
  void push(std::unique_ptr<outgoing>);
  void signal(frame_type, std::uint32_t stream, std::uint64_t value = 0);
  // Takes back what was not sent yet. True when nothing of it was sent at all: then the peer need not be told.
  bool erase(bool request, std::uint32_t stream);
  bool empty() const noexcept;
  std::size_t queued_bytes() const noexcept { return queued_bytes_; }
  std::size_t count() const noexcept;  // messages and signals

  // The next record: frames of at most plaintext_max bytes together. The views are valid until release().
  struct record {
    std::vector<bytes_view> pieces;
    std::size_t size_bytes = 0;
    std::vector<std::uint32_t> requests_finished;  // streams of requests whose last byte is in this record
  };
  // REQUIRES: !empty(); plaintext_max in 1 KiB .. record_max_bytes
  const record& next(std::size_t plaintext_max);
  void release();

 private:
  static constexpr std::size_t unfinished_max = 8 << 20;
  static constexpr std::size_t small_max = 4 << 10;
  struct level {
    std::deque<std::unique_ptr<outgoing>> active;   // share the line
    std::deque<std::unique_ptr<outgoing>> waiting;  // large ones that may not start yet
    std::size_t unfinished = 0;  // sizes of the large active ones
  };
  void activate(level&);
  void account_finished(level&, const outgoing&);
  void add_frame(level&, std::size_t room);
  level levels_[4];
  std::deque<std::pair<frame, std::uint64_t>> signals_;
  std::size_t queued_bytes_ = 0;
  record record_;
  bytes headers_;  // never grows while a record is filled: the pieces refer to it
  std::vector<std::unique_ptr<outgoing>> finished_;
};

}  // namespace grenier::wire
