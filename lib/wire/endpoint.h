// wire/endpoint.h: the endpoint's state. Private to wire/: life, connections and calls in endpoint.cc, who comes in strangers.cc, whom
// it dials in dial.cc.
#pragma once

#include <deque>
#include <list>
#include <set>

#include "wire/connection.h"
#include "wire/relay.h"

namespace grenier::wire {

inline constexpr std::size_t handshakes_max = 32;
// Guests know an invite's secret (or its id only, so far) or a former cluster key. So many of the handshakes may be those of either kind,
// and so many connections, for so long.
inline constexpr std::size_t guests_max = 8;
inline constexpr std::size_t lookups_max = 2;  // of invites at a time
inline constexpr nanoseconds guest_time = 120s;
inline constexpr nanoseconds handshake_time = 5s, connect_time = 5s;

// Closes the stream at the deadline, unless destroyed first.
class closing_time {
 public:
  closing_time(runtime& rt, std::shared_ptr<byte_stream> s, mono_time at)
      : rt_(rt), timer_(rt.clock().call_at(at, [s, late = late_] {
          *late = true;
          s->close();
        })) {}
  ~closing_time() { rt_.clock().cancel(timer_); }
  closing_time(const closing_time&) = delete;
  bool passed() const noexcept { return *late_; }

 private:
  runtime& rt_;
  std::shared_ptr<bool> late_ = std::make_shared<bool>(false);
  timer_id timer_;
};

task<result<bytes>> read_exactly(std::shared_ptr<byte_stream>, std::size_t size_bytes);
task<result<void>> write_all(std::shared_ptr<byte_stream>, bytes);

struct peer_entry {
  explicit peer_entry(runtime& rt) : changed(std::make_shared<wait_list>(rt)) {}
  std::shared_ptr<connection> current;
  std::shared_ptr<line_statistics> line = std::make_shared<line_statistics>();
  std::vector<std::string> addresses;
  bool kept = false;
  bool dialling = false;                // its task exists
  std::shared_ptr<wait_list> changed;   // connection made or lost, addresses, kept
  std::string last_failure;
};

class endpoint_impl final : public endpoint {
 public:
  endpoint_impl(runtime& rt, network& net, options o)
      : rt_(rt),
        net_(net),
        options_(std::move(o)),
        self_{options_.key, options_.cluster, rt.random().next(), options_.version, options_.version_oldest},
        key_(options_.cluster_key),
        former_keys_(options_.former_keys),
        shared_{rt, task_group(rt), {}, rate_limit(options_.send_limit), rate_limit(options_.receive_limit)},
        relay_(rt, shared_.group, options_.key.id(),
               {[this](node_id to, message m, call_options o) { return call(to, method::relay, std::move(m), o); },
                [this](node_id n) { return connected(n) && !carried_by(n); }, [this](std::unique_ptr<byte_stream> s) { take_in(std::move(s)); }}),
        lookups_(rt, lookups_max) {
    ASSERT(key_.empty() || key_.size() == 32);
    if (former_keys_.size() > former_keys_max) former_keys_.resize(former_keys_max);
    crypto::init();
    serve(method::relay, [this](caller who, message m) { return relay_.serve(std::move(who), std::move(m)); });
  }

  void serve(method m, handler h) override { shared_.handlers[m] = std::move(h); }
  result<void> start() override;
  task<void> stop() override;
  std::string local() const override { return listener_ ? listener_->local() : std::string(); }
  void keep(node_id, std::vector<std::string> addresses) override;
  void forget(node_id) override;
  bool connected(node_id) const override;
  link_quality quality(node_id) const override;
  std::vector<node_id> peers() const override;
  std::string peer_address(node_id) const override;
  std::optional<node_id> carried_by(node_id) const override;
  task<result<message>> call(node_id, method, message, call_options) override;
  task<result<joined>> call_with_invite(std::string address, bytes invite_id, bytes secret, message, mono_time deadline) override;
  void on_invite(std::move_only_function<task<std::optional<bytes>>(bytes)> f) override { invite_secret_ = std::move(f); }
  void on_connection(std::move_only_function<void(node_id, bool)> f) override { told_ = std::move(f); }
  void set_cluster_keys(std::vector<bytes> newest_first) override;
  void on_former_key(std::move_only_function<bool(node_id)> f) override { may_use_former_ = std::move(f); }
  std::vector<node_id> newer_key_at() const override;
  refusals refused() const override { return refused_; }

 private:
  struct handshake_slot {
    std::shared_ptr<byte_stream> stream;
    bool proved = false;
    bool guest = false;
    bool former = false;   // a guest by a former key, not by an invite
    bool closing = false;  // was told to go
  };
  using slot = std::list<handshake_slot>::iterator;
  struct slot_guard {
    endpoint_impl& e;
    slot at;
    ~slot_guard() { e.handshakes_.erase(at); }
  };
  struct local_call {
    std::shared_ptr<waiter> wake;
    std::optional<result<message>> answer;
  };

  task<void> accept_loop();
  void take_in(std::unique_ptr<byte_stream>);
  bool make_room();
  task<void> greet(slot);
  task<std::optional<credential>> recognise(slot, bytes first, hello h);
  task<std::optional<credential>> recognise_guest(slot, bytes first, bytes invite_id);
  bool enter_as_guest(slot, bool former);
  void refuse(const std::string& from, const std::string& why);
  task<void> dial_loop(node_id);
  task<void> look_for_straight(node_id);
  task<bool> try_address(node_id, std::string address, credential);
  task<result<std::shared_ptr<connection>>> dial(std::string address, credential, std::optional<node_id> expected, mono_time deadline);
  task<result<message>> call_self(method, message, call_options);
  task<void> run_local(std::shared_ptr<local_call>, method, message, mono_time deadline);
  std::shared_ptr<connection> make_connection(std::shared_ptr<byte_stream>, session, nanoseconds round_trip);
  void begin(std::shared_ptr<connection>);
  void begin_guest(std::shared_ptr<connection>);
  void install(std::shared_ptr<connection>);
  void connection_closed(connection&);
  void tell(node_id, bool connected);
  void drop_if_unused(node_id);
  bool seen_before(const bytes& open_key);
  bool may_use_former(node_id n) { return may_use_former_ && may_use_former_(n); }
  peer_entry& entry(node_id id) { return peers_.try_emplace(id, rt_).first->second; }
  const peer_entry* find(node_id id) const {
    auto at = peers_.find(id);
    return at == peers_.end() ? nullptr : &at->second;
  }

  runtime& rt_;
  network& net_;
  options options_;
  self_description self_;
  bytes key_;
  std::vector<bytes> former_keys_;  // the newest first
  shared_services shared_;
  relay relay_;
  std::shared_ptr<stream_listener> listener_;
  bool stopping_ = false;
  std::map<node_id, peer_entry> peers_;
  std::map<std::uint64_t, std::shared_ptr<connection>> connections_;  // all that are open, by number
  std::uint64_t next_number_ = 1;
  std::list<handshake_slot> handshakes_;  // the oldest first
  semaphore lookups_;
  std::set<bytes> hellos_;
  std::deque<bytes> hellos_order_;
  refusals refused_;
  std::move_only_function<task<std::optional<bytes>>(bytes)> invite_secret_;
  std::move_only_function<void(node_id, bool)> told_;
  std::move_only_function<bool(node_id)> may_use_former_;
};

}  // namespace grenier::wire
