// table/register.h: one row as a linearizable register on a few replicas: the protocol alone, without I/O, clock or randomness.
//
// Replica side: a `cell` is what a replica holds of a row; accept(), prepare() and read() are the only gate to it: hints,
// anti-entropy and handovers go through accept() too. What `changed` says is committed and synced before the reply leaves.
// Coordinator side: an `operation` takes answers and silences and says what to do next; its caller only carries messages.
//
//   operation op = operation::write(terms, value);
//   action a = op.start();                     // send -> requests out; pause -> wait a little at random, then resume(); end -> outcome()
//   a = op.on_answer(a.round, i, answer);      // for each answer; the round is the one that the request was sent in
//   a = op.on_silent(a.round, i, delivery);    // timed out, unreachable, or refused before the gate
//
// Recent accepts are kept in the cell, and so on disk: only those that were overwritten are listed, so a row written once pays
// nothing, and a restart forgets nothing. What falls out (more than `recent_max`, or older than `recent_ms` by their ballots) is
// told by `forgot`: an attempt above that ballot which is neither held nor listed was never accepted here.
//
//   Runs on   any one thread; values.
//   Errors    decoding: corrupt. Operations: see outcome.
//   Limits    32 replicas; 8 recent accepts a cell; a cell's value is opaque and is only copied, a body travels beside it.
//   Not here  who the replicas are (layout/), how far ahead a ballot may be, deadlines, messages, the cell's place in the store.
//   Source    Lamport, "Paxos Made Simple" (2001); Rystsov, "CASPaxos" (2018); Attiya, Bar-Noy, Dolev, "Sharing memory robustly
//             in message-passing systems" (1995) for the write-back of reads; DESIGN rules 5b.1-4.
#pragma once

#include "base/base.h"

namespace grenier::table {

// Steps left out on purpose, for tests that must find it out. A null pointer in production.
struct mutations {
  bool retry_without_asking = false;    // a refused write is tried again above, whatever became of the first attempt
  bool no_write_back = false;           // a read answers the newest that it saw
  bool judge_unestablished = false;     // a compare-and-swap judges a value that stands on no quorum
  bool ignore_promises = false;         // plain writes are taken below a promise
  bool forgotten_is_never = false;      // who forgot its recent accepts counts as never having accepted
  bool count_twice = false;             // a replica's repeated answer counts again
  bool quorum_of_one = false;           // one replica is enough
  bool undelivered_is_never = false;    // whom an accept did not reach counts as never having it from anybody
  bool ignore_order = false;            // an accept is taken below what is held
};

// ---------------------------------------------------------------------------------------------- ballots

// Ballots of one node have an even start field, so that next() is a ballot that nobody else can use and that nothing lies between.
// REQUIRES: a time never used before in this run of the node.
inline ballot make_ballot(hlc_time t, std::uint64_t node, std::uint32_t start_number) noexcept { return {t, node, start_number << 1}; }
inline ballot next(ballot b) noexcept { return b.start |= 1, b; }
// Beyond any clock (the year 6429). An answer that holds such a time is damage or a lie: nothing could be written above it.
inline constexpr hlc_time time_max{std::uint64_t{1} << 63};

// ---------------------------------------------------------------------------------------------- replica

inline constexpr std::size_t recent_max = 8;
inline constexpr std::uint64_t recent_ms = 10 * 60 * 1000;

struct past_accept {
  attempt_id attempt;
  ballot at;
  friend bool operator==(const past_accept&, const past_accept&) = default;
};

// What a replica answers. Encoded without the body.
struct answer {
  bool yes = false;
  ballot promised, accepted;
  attempt_id attempt;               // of accepted
  bytes value;                      // of accepted; read() and prepare() only
  shared_bytes body;                // filled in by whoever carries the answer, where it is at hand
  std::vector<past_accept> recent;  // prepare() only
  ballot forgot;
  bytes encode() const;
  static result<answer> decode(bytes_view);
};

// The row's own bytes in the store. A row that is not there is a cell{}: nothing promised, nothing accepted.
struct cell {
  ballot promised, accepted;
  attempt_id attempt;
  bytes accepted_value;
  std::vector<past_accept> recent;  // accepts since overwritten, oldest first
  ballot forgot;                    // accepts at or below this may have been forgotten
  bytes encode() const;
  static result<cell> decode(bytes_view);
  friend bool operator==(const cell&, const cell&) = default;
};

// The same without copying, for listing and comparing; views into the bytes given.
struct cell_view {
  ballot promised, accepted;
  attempt_id attempt;
  bytes_view accepted_value;
  static result<cell_view> decode(bytes_view);
};

struct reply {
  table::answer answer;
  bool changed = false;  // the cell must be committed before the answer leaves
  bool took = false;     // the value was taken now: value and body go to the store
};

// Yes if exactly this was accepted before; else taken if not below the promised and above the accepted.
reply accept(cell&, const ballot&, const attempt_id&, bytes_view value, const mutations* = nullptr);
// Promises if above both.
reply prepare(cell&, const ballot&);
answer read(const cell&);
// What another replica holds, at a handover. A replica that counts (`newcomer` false) takes the value through accept(). A newcomer,
// which counts in no quorum until it has merged from a read quorum, takes whatever is newer: a promise, its own or one that came
// along with another row, must not keep from it a value that a quorum holds. The promise comes along in both cases.
reply merge(cell&, const cell& theirs, bool newcomer);

// ---------------------------------------------------------------------------------------------- coordinator

using replica_mask = std::uint32_t;  // bit i: replica i, as the caller numbers them

struct register_value {
  bytes packed;  // opaque; empty: never written
  shared_bytes body;
};

// Under which an operation runs. A newcomer, which has not merged its rows yet, neither knows what a quorum holds nor refuses what
// is older: it counts only while an older version must agree as well; when its version decides alone, its answers, to accepts too,
// are not answers (on_silent, unsure). Shared by many operations; the functions may be asked at any time and may change their mind
// about who is dark (then the caller calls reconsider()).
struct terms {
  replica_mask replicas = 0;                     // all that are asked
  // A quorum of every version in use: enough for accepts and promises, and for a value to be shown, also while rows move and a
  // quorum of the old version is enough to know the newest: else what was shown there can be gone when the new version decides.
  std::function<bool(replica_mask)> is_quorum;
  // Answers from which the newest value is known: of the versions that are read. Every such set meets every quorum.
  std::function<bool(replica_mask)> is_read_quorum;
  // May anybody have taken these for a quorum: of any one version in use, whoever was thought dark?
  std::function<bool(replica_mask)> may_be_quorum;
  std::function<ballot(const ballot& above)> fresh_ballot;  // from make_ballot(); above the one given, which may be none
  std::function<attempt_id()> fresh_attempt;                // never the same twice
  unsigned tries_max = 12;                       // with a pause between them
  unsigned silences_max = 2;                     // rounds that fail because too many are silent, before it ends
  const table::mutations* mutations = nullptr;
};
// The majority of n replicas, all three functions; fresh_* are the caller's.
terms majority_of(std::size_t n);

enum class request : std::uint8_t { read, prepare, accept };
enum class delivery : std::uint8_t { unsure, none };  // none: this request certainly did nothing and never will

struct action {
  enum class kind : std::uint8_t { wait, send, pause, end } what = kind::wait;
  std::uint32_t round = 0;
  // send: this request to each of `to`, in any order, as many times as one likes.
  table::request request{};
  replica_mask to = 0;
  ballot at;
  attempt_id attempt;                     // accept
  const register_value* value = nullptr;  // accept; valid until the operation is called again or moved
  bool chosen = false;                    // accept: to be taken whatever its time: those who hold it may be a quorum by themselves, or
                                          // nothing can be decided without them; prepare: likewise
  unsigned tries = 0;                     // pause: how often it has been tried
};

struct outcome {
  enum class kind : std::uint8_t {
    done,         // written; or read; or swapped: what stands now
    refused,      // the judge refused: what stands, and why
    unavailable,  // nothing of this operation happened or ever will
    unknown,      // it may have happened, or may yet
  } what = kind::unavailable;
  ballot written;           // of value; none: never written
  register_value value;
  error refusal;
};

// Sees the value that stands and gives a new one, or refuses. May be asked again about another value.
using register_judge = std::move_only_function<result<register_value>(const ballot& written, const register_value& current)>;

class operation {
 public:
  static operation read(std::shared_ptr<const terms>);
  // A read that brings the newest value to all replicas, at a ballot of its own, as that same attempt: above the promises of operations
  // that came to nothing, which keep a value from whoever missed it.
  // beyond: whatever the time of those promises.
  static operation raise(std::shared_ptr<const terms>, bool beyond = false);
  // The same against a value of a time far ahead, at this ballot, that a home took while its clock was wrong and no quorum holds: what the others
  // hold, or `nothing` if that is never written, goes above it, so that it does not come up again when its time has come. Whoever holds
  // it has no part in the promises; if there is no quorum without them, it may have been chosen, and nothing is done.
  static operation supersede(std::shared_ptr<const terms>, const ballot& stray, register_value nothing);
  static operation write(std::shared_ptr<const terms>, register_value);
  static operation compare_and_swap(std::shared_ptr<const terms>, register_judge);

  action start();
  // What comes late, twice, or for another round is ignored.
  action on_answer(std::uint32_t round, std::size_t replica, answer);
  action on_silent(std::uint32_t round, std::size_t replica, delivery);
  action resume();       // after a pause
  action reconsider();   // the terms answer otherwise now
  // Other terms half-way, because the layout changed: numbers of replicas keep their meaning, new ones are new numbers. What was
  // sent before counts as sent; the operation goes on with a prepare (a read: reads again).
  action rebase(std::shared_ptr<const terms>);
  action give_up();      // the deadline passed: ends as unavailable or unknown

  bool ended() const noexcept { return phase_ == phase::ended; }
  const outcome& result() const noexcept { return outcome_; }
  outcome take() && { return std::move(outcome_); }
  std::uint32_t round() const noexcept { return round_; }
  // Round trips begun so far.
  unsigned rounds() const noexcept { return rounds_; }

 private:
  friend struct register_inspector;  // of the tests: tells equal states
  enum class kind : std::uint8_t { read, write, swap };
  enum class phase : std::uint8_t { idle, reading, writing_back, first_accept, preparing, establishing, finishing, pausing, ended };
  struct attempt {
    attempt_id id;
    register_value value;
  };
  // One ballot at which an attempt of this operation was sent, or seen: somebody else may bring it to a quorum.
  struct trace {
    past_accept what;
    std::uint32_t round = 0;  // in which we sent it; 0: it was seen
    replica_mask to = 0;      // to whom we sent it
    replica_mask yes = 0;     // accepted it: a fact, for ever
    replica_mask never = 0;   // did not and never will: likewise
    replica_mask unsent = 0;  // did not get it from us; from somebody else it may, if anybody did
    bool stillborn() const { return !yes && !(to & ~(never | unsent)); }
  };
  struct said {
    std::size_t who;
    table::answer answer;
  };

  operation(kind, std::shared_ptr<const terms>);
  action send(phase, request, replica_mask to);
  action prepare_again();
  action read_again();
  action retry(bool by_silence);
  action decide();
  action decide_read();
  action decide_prepared();
  action decide_accepted();
  action establish(const said& newest);
  action judge_and_accept(const ballot& at, const ballot& written, const register_value& current);
  action accept_new(const ballot& at, register_value);
  action end(outcome::kind, const ballot& written = {}, register_value = {});
  action end_without();
  std::optional<action> end_if_chosen();

  bool left_out(bool mutations::*step) const { return terms_->mutations && terms_->mutations->*step; }
  bool quorum(replica_mask) const;
  bool read_quorum(replica_mask) const;
  const said& newest(replica_mask among) const;
  replica_mask holders(const ballot&) const;
  register_value value_of(const said&) const;
  const attempt* mine(const attempt_id&) const;
  trace& trace_of(const past_accept&);
  void learn(std::size_t who, const answer&);
  bool remembers(const answer&) const;
  void count(trace&, std::size_t who, const answer&) const;
  bool never_chosen() const;

  kind kind_;
  bool raises_ = false;           // a read: whatever stands is brought to a new ballot
  bool beyond_ = false;
  ballot stray_;                  // that is superseded
  phase phase_ = phase::idle;
  std::shared_ptr<const terms> terms_;
  std::vector<std::shared_ptr<const terms>> former_;  // in which accepts of ours were sent
  std::shared_ptr<register_judge> judge_;  // shared by copies: it is pure
  register_value wanted_;         // what a write writes
  std::vector<attempt> attempts_;
  std::vector<trace> traces_;
  ballot seen_;                   // the highest in any answer
  ballot first_;                  // the lowest at which an accept of ours was sent
  ballot stuck_;                  // a read's write-back of this one could not be delivered

  // This round.
  std::uint32_t round_ = 0;
  unsigned rounds_ = 0, tries_ = 0, silences_ = 0;
  ballot at_;
  attempt_id attempt_;
  register_value sending_;
  replica_mask yes_ = 0, no_ = 0, silent_ = 0;
  std::vector<said> said_;        // one each

  outcome outcome_;
};

}  // namespace grenier::table
