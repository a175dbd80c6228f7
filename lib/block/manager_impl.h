// block/manager_impl: the manager's parts. Private to the module.
//
//   manager.cc  start, stop, statistics, and what the parts share
//   put.cc      the coordinator's writes: put, add_references, withdraw
//   get.cc      reads, from here or from whoever has the block
//   serve.cc    what other nodes ask of this one
//   resync.cc   fetching what should be here; handing over what is here as a guest
//   upkeep.cc   freeing what nothing refers to; scrub; files without rows
#pragma once

#include <algorithm>
#include <list>

#include "block/placement.h"
#include "block/shelf.h"

namespace grenier::block {

// The last verified blocks, so that ranged reads of one block do not read and hash it again each time.
class recent_blocks {
 public:
  explicit recent_blocks(std::size_t bytes_max) : bytes_max_(bytes_max) {}
  shared_bytes find(const block_hash&);
  void add(const block_hash&, shared_bytes);
  void drop(const block_hash&);

 private:
  using entry = std::pair<block_hash, shared_bytes>;
  std::size_t bytes_max_, bytes_ = 0;
  std::list<entry> order_;  // last used first
  std::map<block_hash, std::list<entry>::iterator> at_;
};

struct manager::impl {
  impl(runtime&, kv::store&, wire::endpoint&, cluster::directory&, table::replicated&, node_id self, std::vector<drive>, options);

  // ------------------------------------------------------------------------------- put.cc
  struct sent {
    node_id node;
    bool bytes = false;            // this was an attempt to store the bytes there
    bool stored = false;           // and they are
    bool referenced = false;
    bool tried_reference = false;
    std::vector<node_id> named;    // the guests that the reference named
    std::uint64_t revision = 0;
    error why;
  };
  struct put_state;
  task<result<void>> put(reference, shared_bytes, mono_time deadline);
  task<result<void>> run_put(std::shared_ptr<put_state>, mono_time deadline);
  void start_sends(const std::shared_ptr<put_state>&, bool hedge, mono_time deadline);
  void take(put_state&, sent);
  task<sent> store_here(std::shared_ptr<put_state>, std::vector<node_id> guests, bool home, mono_time deadline);
  task<sent> send_bytes(std::shared_ptr<put_state>, candidate, std::vector<node_id> guests, mono_time deadline);
  task<sent> send_reference(std::shared_ptr<put_state>, node_id to, std::vector<node_id> guests, mono_time deadline);
  std::vector<candidate> candidates_for(const block_hash&, std::size_t size_bytes, layout::partition);
  double seconds_to(node_id, std::size_t size_bytes) const;
  double rate_to(node_id) const;
  double way_out() const;
  std::set<node_id> dark_members() const;
  // In the same house, by the round trip.
  bool is_near(node_id n) const { return directory.rtt(n) > 0ns && directory.rtt(n) < 5ms; }
  // Bytes/s, of a line that was not measured yet.
  double assumed_rate(node_id n) const { return is_near(n) ? 20e6 : 1.25e6; }
  bool is_late(const put_state&) const;
  task<bool> know_revision(std::uint64_t revision, mono_time deadline);

  struct asked;
  struct have_answer {
    node_id node;
    std::vector<std::size_t> which;
    result<std::vector<shelf::confirmation>> answers = fail(errc::unavailable);
    std::uint64_t revision = 0;
  };
  task<result<void>> add_references(std::vector<reference>, mono_time deadline);
  task<result<void>> add_references_some(std::vector<reference>, mono_time deadline);
  task<have_answer> ask_have(node_id, std::vector<std::size_t> which, std::vector<reference>, bool with_reference, std::vector<node_id> guests,
                             mono_time deadline);
  task<result<void>> withdraw(std::vector<reference>, mono_time deadline);

  // ------------------------------------------------------------------------------- get.cc
  struct fetch;
  struct answer {
    node_id node;
    bool answered = false, found = false, corrupt = false;
    block_bytes block;
    std::vector<node_id> guests;
    error why;
  };
  task<result<shared_bytes>> get(block_hash, wire::priority, mono_time deadline);
  task<void> run_fetch(block_hash, std::shared_ptr<fetch>, wire::priority, mono_time deadline);
  task<result<shared_bytes>> read_anywhere(block_hash, wire::priority, mono_time deadline);
  task<result<block_bytes>> fetch_hedged(block_hash, bool not_here, wire::priority, mono_time deadline);
  task<result<block_bytes>> read_here(block_hash, mono_time deadline);
  task<answer> ask_for(node_id, block_hash, wire::priority, mono_time deadline);
  task<void> keep_fetched(block_hash, stored);
  std::vector<node_id> homes_of(const block_hash&) const;  // of every version in use, without self
  std::vector<node_id> other_members(const std::set<node_id>& but) const;

  // ------------------------------------------------------------------------------- serve.cc
  void serve();
  task<result<wire::message>> admit(wire::caller, wire::message, task<result<wire::message>> (impl::*)(wire::caller, wire::message));
  task<result<wire::message>> handle_put(wire::caller, wire::message);
  task<result<wire::message>> handle_get(wire::caller, wire::message);
  task<result<wire::message>> handle_items(wire::caller, wire::message);
  task<result<wire::message>> handle_guests(wire::caller, wire::message);
  task<result<wire::message>> handle_count(wire::caller, wire::message);
  struct confirm_job;
  task<bool> confirm_some(std::shared_ptr<confirm_job>, mono_time deadline);
  task<result<bool>> store_to_the_end(shelf::incoming, semaphore::permit, mono_time deadline);
  bool knows_references() const;
  nanoseconds fetch_delay(const node_id& origin) const;

  // ------------------------------------------------------------------------------- resync.cc
  task<void> resync_loop();
  task<void> resync_one(todo, semaphore::permit);
  task<result<bool>> fetch_missing(const todo&);
  task<result<std::vector<node_id>>> sources_of(const todo&);
  double rate_from(const node_id&) const;
  nanoseconds patience_with(const node_id&, std::uint32_t attempts) const;
  bool spare_origin(const todo&, double rate) const;
  task<void> guest_loop();
  task<void> hand_over(std::vector<todo>);
  struct home_answers {
    std::size_t homes = 0;                                    // how many there are
    std::vector<std::set<node_id>> have, want_nothing;       // of each block: who has it; who has no live reference to it
  };
  task<home_answers> ask_homes(std::vector<block_hash>, std::vector<node_id>, bool verify);
  task<void> hand_over_some(layout::replica_set homes, std::vector<todo>);
  task<void> let_go(todo, std::uint64_t revision);
  task<result<bool>> guest_may_go(todo, std::uint64_t revision);
  bool still_missing(const bytes& subject) const;  // of resync_work
  task<void> layout_loop();
  task<result<void>> look_for_guests();
  task<result<void>> look_for_missing();

  // ------------------------------------------------------------------------------- upkeep.cc
  task<void> garbage_loop();
  task<void> free_unreferenced(todo);
  task<result<bool>> nobody_refers(block_hash);
  task<result<bool>> none_refers_here(block_hash, std::uint64_t revision);
  task<bool> has_no_reference(node_id, block_hash, mono_time deadline);
  task<void> scrub_loop();
  task<void> sweep();
  task<void> space_loop();
  task<void> peers_loop();

  // A step left out on purpose.
  bool skips(std::string_view step) const { return std::find(opt.mutations.begin(), opt.mutations.end(), step) != opt.mutations.end(); }
  statistics stats() const;
  void spawn_loops();
  void later(todo_queue&, todo, nanoseconds);  // one attempt more, then
  nanoseconds retry_pause_max() const;
  std::uint64_t ms_from_now(nanoseconds) const;
  task<result<wire::message>> call(node_id, wire::method, wire::message, wire::priority, mono_time deadline);

  runtime& rt;
  wire::endpoint& endpoint;
  cluster::directory& directory;
  table::replicated& table;
  node_id self;
  options opt;
  shelf here;
  task_group group;
  semaphore sending, serving, resyncing, fetching;  // bytes, bytes, blocks, bytes
  recent_blocks recent;
  std::map<block_hash, std::shared_ptr<fetch>> fetches;
  std::map<node_id, std::uint64_t> outstanding;      // bytes being sent to each node
  std::set<block_hash> nowhere;                      // missing here, and all that were asked said no
  std::map<block_hash, std::set<node_id>> told_of;   // who said that it holds a block that is missing here
  static constexpr nanoseconds disk_patience = 400ms;
  static constexpr std::size_t reads_late_max = 8;
  std::size_t reads_late = 0;                        // of this node's disk
  wait_list layout_changed, scrub_asked;
  std::uint64_t layout_seen = 0;
  bool scrub_hurries = false, started = false, stopping = false;
  // 5 % of the requests, saved up: as many as may be under way when a home freezes.
  static constexpr double hedges_max = 64;
  double hedges_left = hedges_max;
  static constexpr nanoseconds look_every = 50ms;    // at those that a request waits for
  table::work resync_work, hand_over_work, layout_work;
  std::uint64_t n_sent = 0, n_received = 0, n_scrubbed = 0;
};

// Bytes that a peer sent, as identifiers; ill-formed ones are dropped.
std::vector<node_id> to_nodes(const auto& repeated) {
  std::vector<node_id> out;
  for (const auto& b : repeated)
    if (auto n = node_id::from_bytes(b); n && out.size() < guests_max) out.push_back(*n);
  return out;
}

}  // namespace grenier::block
