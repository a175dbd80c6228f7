// table/register_world.h: a small world for exploring the register machine in tests: replicas, a network that does what it likes,
// clients that write, read and compare-and-swap, and a judge of what they saw.
#pragma once

#include "table/register.h"

namespace grenier::table {

struct dice {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  int below(std::size_t n) { return static_cast<int>(next() % n); }
  bool one_in(int n) { return n > 0 && below(static_cast<std::size_t>(n)) == 0; }
};

// Who the replicas are, and what makes a quorum.
enum class scene : std::uint8_t {
  one,       // a single replica
  two,       // two, the first with the casting vote; each client has its own view of whether the other is dark
  three,     // a majority
  joint,     // a majority of {0,1,2} and of {2,3,4}, for everything
  changing,  // settled, moving, joint, settled again, while operations run
};

enum class op_kind : std::uint8_t { write, read, swap };

struct client {
  op_kind kind{};
  char value = 0, expected = 0;  // 0: never written
  std::optional<operation> op;
  int begun = -1, ended = -1;    // in the order of events
  bool paused = false;
  std::shared_ptr<bool> dark = std::make_shared<bool>(false);
  std::uint8_t revision = 0;
  std::uint8_t attempts = 0;
  std::uint64_t clock = 1;       // skewed

  bool running() const { return op && ended < 0; }
  outcome::kind what() const { return op->result().what; }
  char result() const {
    const auto& p = op->result().value.packed;
    return p.empty() ? '\0' : p[0];
  }
};

struct packet {
  int from = 0;  // the client; -1: anti-entropy
  std::uint32_t round = 0;
  std::uint8_t replica = 0;
  request what{};
  bool reply = false;
  std::uint8_t revision = 0;
  ballot at;
  attempt_id attempt;
  bytes value;
  table::answer answer;
  bool refused = false;   // by one that knows a newer layout
  bool unsynced = false;  // a newcomer
};

struct world {
  scene where = scene::three;
  const table::mutations* mutations = nullptr;
  // Mistakes of the caller, when the layout changes.
  bool lax_moving_reads = false;  // while moving, a read shows what stands on a quorum of the old version alone
  bool newcomers_count = false;   // whoever has not merged its rows yet counts like any other
  unsigned tries_max = 6;
  std::vector<cell> cells;
  std::vector<packet> net;
  std::vector<client> clients;
  int events = 0;
  // scene::changing
  std::vector<std::uint8_t> revisions;  // that each replica knows
  replica_mask old_version = 0b111, new_version = 0b11100;
  replica_mask synced = 0b111;
  std::vector<replica_mask> merged_from;
  std::uint8_t revision = 0;            // the newest decided

  explicit world(scene s);
  void add(op_kind, char value, char expected, std::uint64_t clock);

  void begin(std::size_t client);
  void deliver(std::size_t packet);              // and forgets it
  void lose(std::size_t packet);                 // and its sender is told that it did nothing
  void silence(std::size_t client, std::size_t replica, delivery);
  void resume(std::size_t client);
  void toggle_dark(std::size_t client);
  void give_up(std::size_t client);
  void gossip(std::size_t from, std::size_t to);
  void forget(std::size_t replica);              // its recent accepts
  bool step_layout(dice&);                       // something of a change happens

  bool linearizable() const;
  std::uint64_t hash() const;                    // equal states, equal futures
  std::string tell() const;

 private:
  void perform(std::size_t client, const action&);
  void at_replica(const packet&);
  std::shared_ptr<const terms> terms_for(std::size_t client) const;
  replica_mask write_mask(std::uint8_t revision) const;
};

}  // namespace grenier::table
