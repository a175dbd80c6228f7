// tests/sim/adversary/scene.h: one seed: homes, clients that remember what they saw, and the faults that strike meanwhile.
//
// Everything is drawn from the seed, each part by dice of its own: a fault or a client may be left out and the others do the same as before,
// as far as they do not meet it. What is drawn before the start is the plan; a plan's faults are known by their numbers.
//
//   Not here  what a client does (workload), what strikes (faults), what must hold (checkers).
#pragma once

#include "sim/cluster.h"

namespace grenier::sim {

// What to play of a seed.
struct wishes {
  std::uint64_t seed = 1;
  std::optional<std::set<std::string>> faults, workloads;  // only those of these names
  std::string mutation;                                    // a rule that is broken on purpose
  std::optional<std::set<std::size_t>> keep;               // only these of the plan's faults
  std::optional<std::size_t> clients;                      // fewer than the plan's
  std::optional<nanoseconds> until;                        // the history ends earlier
  std::string shape;                                       // instead of the seed's: see scene::shape
  std::optional<std::set<std::string>> checks;             // only those of these names at the end
  bool verbose = false;
};

struct strike {
  std::size_t number = 0;
  std::string kind;
  nanoseconds at{};     // after the clients began
  std::uint64_t dice = 0;
};

struct tally {
  std::uint64_t operations = 0, answered = 0, faults = 0, undecided = 0, objects_read = 0, blocks_checked = 0;
};

// The values that clients write: content can be told from its number and back. Every fourth has several blocks, of which all but the
// first are shared with other values.
inline constexpr std::size_t sim_block_bytes = 16 << 10;
bytes content_of(std::uint64_t value);
std::uint64_t value_of(const bytes&);  // UINT64_MAX: never written
inline bool has_blocks(std::uint64_t value) { return value % 4 == 0; }
std::vector<bytes> parts_of(std::uint64_t value);  // as a multipart upload sends it; of values with blocks

class scene {
 public:
  explicit scene(wishes);
  // Empty: everything held. Once.
  std::string play(tally&);
  std::uint64_t trace() const { return trace_; }
  const std::vector<strike>& plan() const { return plan_; }
  std::size_t planned_clients() const { return planned_clients_; }
  nanoseconds planned_length() const { return length_; }

  // What kind of history: brief: dense, some twenty seconds; upheaval: minutes in which homes come and go; refuse: many minutes in which
  // what was deleted is freed, with all that the end of a block takes.
  enum class shape : std::uint8_t { brief, upheaval, refuse };

  // ----------------------------------------------------------------------------- for faults
  neighbourhood homes;
  world& w;
  bool over() const { return w.now() >= ending_; }
  void crash(std::size_t home, bool power_cut, nanoseconds back_after);  // never: not by itself
  bool may_crash(std::size_t home) { return homes.at(home).on() && !gone.contains(home) && !arriving.contains(home); }
  // Clients of a home that dies go elsewhere; what they were doing stays unknown.
  void release_clients_of(std::size_t home);
  std::vector<std::size_t> ready_homes() const;
  void later(nanoseconds d, std::move_only_function<void()> fn) { w.call_at(w.now() + d, std::move(fn)); }
  std::size_t add_home(std::string zone);
  // A new machine with an invite from a home that is up; tries again until it is in or the end is near.
  void join(std::size_t newcomer);
  void start_again(std::size_t home);
  void see_it_start(std::size_t home);
  bool quiet();   // settled with three copies, nothing to be repaired
  std::string restless();  // why not
  std::set<std::size_t> gone;      // for good
  std::set<std::size_t> arriving;  // first start is not over
  std::set<std::size_t> leaving;   // to be taken out of the layout
  std::optional<std::size_t> victim;  // the one home whose disk may be damaged: more at a time would be more than is promised
  std::int64_t destroyed_at = -1;     // when it last was
  std::int64_t rezoned_until = -1;    // a home moved to another zone: what was in two may be in one
  std::size_t homes_first = 0;

  // ----------------------------------------------------------------------------- for workloads
  struct session {
    scene& s;
    int client;
    std::uint64_t term;
    std::size_t home;
    storaged::node& n;
    runtime& rt;
    std::mt19937_64& dice;
    std::uint64_t below(std::uint64_t x) const { return dice() % x; }
    store::call call(nanoseconds at_most = op_time) const { return {{std::nullopt, true}, rt.now() + at_most}; }
  };
  static constexpr nanoseconds op_time = 8s;
  using op = std::shared_ptr<operation>;
  static constexpr const char* bucket = "sim-bucket";
  static constexpr const char* door = "sim-door";   // a bucket that comes and goes, with one key
  op begin(const session&, const std::string& key, operation::kind, std::uint64_t value = 0, std::uint64_t expected = 0);
  void end(const op&, operation::outcome, std::uint64_t seen = 0);
  // A step that does without blocks was answered: was it in time?
  void in_time(const session&, mono_time began, nanoseconds at_most, const char* what);
  std::string pick_key(const session&) const;
  const std::vector<std::string>& all_keys() const { return keys_; }
  // A value that nobody wrote before; its ETags are known before anybody can see it.
  std::uint64_t new_value(bool blocks);
  std::uint64_t value_by_etag(const std::string& etag) const;  // UINT64_MAX: of no value
  std::string etag_of(std::uint64_t value) const;
  std::map<std::string, std::pair<std::uint64_t, std::string>>& known(int client) { return clients_[static_cast<std::size_t>(client)].known; }
  // An acknowledged object must be in two zones at this moment (or all there are).
  void check_durable(const session&, std::uint64_t value, std::int64_t since);
  // The first thing that was found wrong; the history ends there.
  void wrong(std::string what);

  // ----------------------------------------------------------------------------- for checkers
  std::map<std::string, std::vector<op>> histories;  // by key; "" is the door's
  std::string failed;
  std::set<std::pair<std::string, std::string>> uploads_open;  // key, upload id (hex) that nobody ended, as far as clients know
  const wishes wanted;
  shape of_shape = shape::brief;
  std::int64_t now_ns() const { return w.now().time_since_epoch().count(); }
  tally counted;

 private:
  struct client {
    std::mt19937_64 dice;
    std::uint64_t term = 0;
    bool busy = false;
    std::size_t home = 0;
    mono_time since{};
    std::vector<op> open;
    std::map<std::string, std::pair<std::uint64_t, std::string>> known;  // key -> value, etag
  };
  void draw_plan();
  bool begin_homes();
  void step(std::size_t client);
  static task<void> perform(scene&, session, const struct workload&);
  static task<void> bring_in(scene&, std::size_t host, std::size_t newcomer);
  std::string settle();

  std::mt19937_64 dice_;
  std::vector<strike> plan_;
  std::vector<client> clients_;
  std::size_t planned_clients_ = 0;
  nanoseconds length_{}, pause_max_{};
  std::vector<std::string> keys_;
  std::uint64_t next_value_ = 9, trace_ = 0;
  std::map<std::string, std::uint64_t> values_;  // by etag
  mono_time began_{}, ending_{};
};

}  // namespace grenier::sim
