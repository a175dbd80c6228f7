// wire/connection.h: one established connection: records in and out, calls of both sides, keepalive.
#pragma once

#include "wire/frame.h"
#include "wire/handshake.h"
#include "wire/pace.h"
#include "wire/queue.h"

namespace grenier::wire {

// What is known of the line to one peer; outlives its connections.
struct line_statistics {
  nanoseconds round_trip{};  // smoothed
  double send_rate = 0;
  std::uint64_t bytes_sent = 0, bytes_received = 0;
  double receive_rate = 0;

  void add_round_trip(nanoseconds sample);
  void add_answer(nanoseconds took);
  nanoseconds answer_p95() const;
  void add_received(std::size_t size_bytes, mono_time now);

 private:
  std::array<nanoseconds, 128> answers_{};
  std::size_t answers_count_ = 0;
  mutable nanoseconds p95_{};
  mutable std::size_t p95_at_ = 0;  // of how many answers p95_ was computed
  mono_time burst_start_{}, last_received_{};
  std::uint64_t burst_bytes_ = 0;
};

// What the connections of one endpoint share. Outlives them.
struct shared_services {
  runtime& rt;
  task_group group;
  std::map<method, handler> handlers;
  rate_limit send_limit, receive_limit;
};

class connection : public std::enable_shared_from_this<connection> {
 public:
  connection(shared_services&, std::shared_ptr<byte_stream>, wire::session, std::uint64_t number, std::shared_ptr<line_statistics>);
  void add_round_trip(nanoseconds sample, bool alone);
  // Starts its tasks. on_closed is called once, at the end.
  void start(std::function<void(connection&)> on_closed);
  // Pending calls fail, requests of the peer are dropped.
  void close(const std::string& why);
  // Another connection took its place: no more calls start here; closes when both sides have finished theirs, or after 10 s.
  void retire();

  // A call: first room among the requests under way (empty: the deadline passed), then, if it still takes calls, the exchange.
  static task<semaphore::permit> admit(std::shared_ptr<connection>, std::size_t size_bytes, call_options);
  bool takes_calls() const noexcept { return !closed_ && !retired_; }
  static task<result<message>> exchange(std::shared_ptr<connection>, semaphore::permit, method, message, call_options);

  const session& who() const noexcept { return session_; }
  std::uint64_t number() const noexcept { return number_; }
  mono_time established() const noexcept { return established_; }
  bool closed() const noexcept { return closed_; }
  std::string peer_address() const { return stream_->peer(); }
  std::optional<node_id> carried_by() const noexcept { return carried_by_; }
  std::size_t queued_bytes() const noexcept { return queue_.queued_bytes(); }

 private:
  // Of one priority, requests under way: 16 MiB, and 1024 by taking each for 16 KiB at least.
  static constexpr std::uint64_t budget_bytes = 16 << 20;
  static std::uint64_t cost(std::size_t size_bytes) { return std::max<std::uint64_t>(size_bytes, 16 << 10); }
  // A guest (see endpoint) has one thing to say: so much for a request, and for all that it has begun.
  static constexpr std::uint64_t guest_budget_bytes = 64 << 10;
  static constexpr nanoseconds ping_every = 1s, silence_max = 10s;
  static constexpr std::size_t answers_queued_max = 64 << 20;

  struct pending {
    std::shared_ptr<waiter> wake;
    std::optional<result<message>> answer;
    bool sent = false;  // to its last byte: the peer may have executed it
  };
  struct incoming {
    std::uint64_t serial = 0;
    std::uint64_t cost = 0;
    wire::priority priority{};
    task_group::handle task;
    std::optional<timer_id> timer;
  };
  struct pending_entry;
  struct incoming_entry;
  static constexpr std::size_t backlog_max = 8192;  // messages and signals waiting to be sent: a peer that does not read

  task<void> read_loop(std::shared_ptr<connection> self);
  task<void> write_loop(std::shared_ptr<connection> self);
  task<void> tend_loop(std::shared_ptr<connection> self);
  task<void> serve(std::shared_ptr<connection> self, std::uint32_t stream, std::uint64_t serial, wire::priority p, method m,
                   caller who, message request);
  result<void> take_records();
  result<void> take(const frame&);
  result<void> take_request(const frame&);
  result<void> take_response(const frame&);
  void dispatch(assembled);
  void finish_call(assembled);
  std::optional<error> refuse(std::uint16_t number, wire::priority, std::size_t size_bytes) const;
  bool guest() const noexcept { return session_.by_invite || session_.peer_former; }
  void answer(std::uint32_t stream, wire::priority, result<message>);
  void forget_incoming(std::uint32_t stream, std::uint64_t serial);
  void cancel_incoming(std::uint32_t stream);
  void fill_batch(std::size_t batch_max);
  std::span<char> room_to_read();
  void wake_writer();
  bool nothing_under_way() const;

  shared_services& s_;
  std::shared_ptr<byte_stream> stream_;
  wire::session session_;
  std::uint64_t number_;
  std::optional<node_id> carried_by_;
  std::shared_ptr<line_statistics> line_;
  mono_time established_;
  std::function<void(connection&)> on_closed_;
  crypto::sealer seals_, opens_;

  bool closed_ = false;
  pacer pace_;
  send_queue queue_;
  bytes batch_;
  wait_list wake_;
  bool writer_idle_ = false;

  bytes received_;
  std::size_t received_begin_ = 0, received_end_ = 0;
  bytes plain_;
  assembler assembler_;

  std::uint32_t next_stream_ = 1;
  std::map<std::uint32_t, pending*> calls_;
  std::array<semaphore, 4> budgets_;
  std::map<std::uint32_t, incoming> requests_;
  std::array<std::uint64_t, 4> requests_cost_{};
  std::uint64_t next_serial_ = 1;

  wait_list tend_;
  mono_time last_received_;
  std::optional<mono_time> ping_sent_;
  bool ping_queued_ = false;  // and not written yet
  bool ping_alone_ = false;   // nothing was in the socket before it
  std::uint64_t ping_number_ = 0;
  std::optional<mono_time> retired_;
  bool peer_goodbye_ = false;
};

}  // namespace grenier::wire
