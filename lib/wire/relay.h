// wire/relay.h: byte streams between two homes that cannot reach each other, carried by a third one's connections to both.
//
// What travels in such a stream is an ordinary connection: its handshake and its encryption are between the two ends, so the third home
// sees how much is said, not what. It keeps no state: each piece of a stream names both ends, and is passed on by a call whose answer says
// that the far end has it. Pieces may overtake each other; their numbers put them in order again.
//
//   Owns      the streams' ends at this home.
//   Runs on   the home thread.
//   Cancel    a stream that is closed, or whose carrier's connection is lost, ends on this side at once and on the other as soon as it is told
//             (or, if it cannot be told, when its connection's pings stay out).
//   Errors    unavailable: the carrier has no connection of its own to the other home, or refuses.
//   Limits    256 KiB of a stream under way; 64 streams at a home, 4 from one peer through one carrier (a further one closes the oldest).
//             One carrier only: what came through a carrier is never carried on.
//   Source    rule 5b.17.
#pragma once

#include "wire/wire.h"

namespace grenier::wire {

class relay {
 public:
  // What the endpoint gives: calls, and whether its connection to a node is a straight one.
  struct carriage {
    std::function<task<result<message>>(node_id to, message, call_options)> call;
    std::function<bool(node_id)> straight;
    std::function<void(std::unique_ptr<byte_stream>)> came;  // a stream that another home opened
  };
  relay(runtime&, task_group&, node_id self, carriage);
  ~relay();
  relay(const relay&) = delete;

  // As relay_address() makes them: who carries, and who is meant.
  static bool is_address(std::string_view);
  static std::optional<std::pair<node_id, node_id>> parse(std::string_view address);

  task<result<std::unique_ptr<byte_stream>>> open(std::string address, mono_time deadline);
  task<result<message>> serve(caller, message);
  void lost(node_id carrier);

  struct channel;
  struct state;

 private:
  std::shared_ptr<state> state_;
};

}  // namespace grenier::wire
