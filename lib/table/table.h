// table/table.h: replicated tables: rows that a quorum agrees on, without a leader.
//
// A register row is linearizable: read, write and compare-and-swap of one key really take turns (docs/design/0003-registers.md;
// the machine itself, without I/O, is table/register). A merge row (crdt) is joined by a function of its table. Every node is a
// replica for the partitions that the layout gives it, and a coordinator for whoever calls it.
//
//   Owns      families row, body, merkle, hint and feed of the node's kv::store; the layout state and the places of the readers of
//             changes (persisted in meta).
//   Runs on   its home thread.
//   Durable   when a write or compare-and-swap returns a value, a quorum of every layout version in use has synced it.
//   Cancel    a cancelled write may still happen.
//   Errors    unavailable (nothing happened), outcome_unknown (it may have), timed_out (reads), clock_skew, no_space, and for fenced
//             calls conflict: a replica knows a newer fence row, which is then in copies().
//   Limits    row to 1 MiB, body to 64 KiB, 1000 rows a write, 1000 entries a page; keys: partition key to 255 bytes, sort key to 1100.
//   Not here  what rows mean (model/); blocks (block/).
//   Source    Rystsov, "CASPaxos" (2018); DeCandia et al., "Dynamo" (2007) for hinted handoff and Merkle trees; DESIGN rules 5b.1-9, 13-15.
#pragma once

#include <algorithm>

#include "cluster/cluster.h"
#include "kv/kv.h"
#include "layout/layout.h"
#include "wire/wire.h"

namespace grenier::table {

// Numbers are on disk and on the wire: never reuse one.
enum class table_id : std::uint8_t {
  object = 1,
  upload = 2,
  part = 3,
  bucket = 4,
  bucket_alias = 5,
  key = 6,
  invite = 7,
  layout = 8,     // one row, in partition 0: the layout state
  reference = 9,  // merge rows: partition key = block hash
  setting = 10,   // of the whole cluster
};

struct row_key {
  table_id table{};
  bytes partition_key;  // decides the partition
  bytes sort_key;       // order within it
  friend auto operator<=>(const row_key&, const row_key&) = default;
};

struct row_value {
  bool present = false;  // false: never written, or deleted (a tombstone)
  bytes row;
  shared_bytes body;     // null unless there is one and it was asked for
};

struct row {
  ballot written;        // none when never written
  row_value value;
};

// Requests are judged by a row that every node has a copy of (the bucket): its key and the ballot that the judge saw.
struct fence {
  table_id table{};
  bytes key;
  ballot seen;
};

struct op_options {
  mono_time deadline = never;              // REQUIRED
  wire::priority priority = wire::priority::metadata;
  std::optional<table::fence> fence;
  bool with_body = false;                  // reads; and what a judge is shown
  // Reads: called at most once, early, with what the nearest replica holds, before a quorum has agreed: to prefetch by, not to answer.
  std::move_only_function<void(const row&)> early;
};

struct write_item {
  row_key key;
  row_value value;
};

// What a compare-and-swap does with the row it finds: a new value, or a refusal (the error is what the caller gets). May be called
// again with another row when somebody came between. Pure: it must not remember.
using judge = std::move_only_function<result<row_value>(const row& current)>;

struct list_request {
  table_id table{};
  bytes partition_key;
  bytes prefix;               // of the sort key
  bytes delimiter;            // empty: none
  bytes start;                // first sort key at or after this
  std::size_t entries_max = 1000;  // keys and common prefixes together
};
struct list_entry {
  bool is_prefix = false;
  bytes key;                  // sort key, or the common prefix including the delimiter
  ballot written;
  bytes projection;           // what the table's projection made of the row; empty for prefixes
};
struct list_page {
  std::vector<list_entry> entries;
  bool truncated = false;
  bytes next;                 // start of the next page, when truncated
};

// What one replica holds, which may be older than what a quorum agreed on, or, seldom, newer than what it will agree on.
struct any_row {
  table::row row;
  bool stale_possible = true;  // false: this home alone decides
};
struct any_page {
  list_page page;
  bool stale_possible = true;
};

// Called on every replica that takes a value, before its commit: what it puts in the batch is applied with the row or not at all.
// Must not suspend. For merge rows `before` and `after` are the values before and after the join.
struct change {
  const row_key& key;
  layout::partition partition;
  ballot before_written, after_written;
  bool before_present, after_present;
  bytes_view before, after;
};
using apply_hook = std::move_only_function<void(const change&, kv::batch&)>;

struct table_rules {
  // What a listing shows of a row; nothing: it is not listed (a delete marker). Default: the whole row.
  std::function<std::optional<bytes>(bytes_view row)> projection;
  // Merge tables only: join of two values; commutative, associative, idempotent.
  std::function<bytes(bytes_view, bytes_view)> join;
  // Rows of this table are copied to every node (bucket, bucket_alias, key): find_copy() reads them without a round trip.
  bool everywhere = false;
  // Readers may follow the changes of its rows (see feed). Not of a merge table.
  bool feed = false;
};

// ------------------------------------------------------------------------------------------------- the feed of changes
// What changed in the rows that this node keeps, for readers with a name (the gallery): each remembers for each partition where it is.
//
// A change is noted in the same batch as the row, wherever the row came from (a write, a hint, anti-entropy, the refill of a new
// replica), in the order in which this replica took the values; of several changes of one row only the last may be left. It names row and
// ballot, it does not hold the value: read the row of the moment. Where nobody is registered, nothing is written.
//
// A reader that is new, or new to a partition, or was dropped because too much waited for it, starts over: it walks all rows of the
// partition, tombstones too, in the order of their keys, and goes on with the changes since the walk began.
//
//   Durable   a change, as the row itself; an acknowledgement, within about a second: a crash before that repeats pages.
//   Delivery  at least once. Every replica of a row has it in its own feed.
//   Limits    replicated::options::feed_entries_max changes kept on a node; 16 readers.
//   Source    docs/design/0012-changes.md.
struct change_name {
  row_key key;
  ballot written;  // the row holds this, or something newer
};

struct feed_mark {  // what an acknowledgement says
  layout::partition partition = 0;
  std::uint64_t epoch = 0, number = 0;
  bool walk = false;
  bytes from;
};

struct feed_page {
  layout::partition partition = 0;
  bool start_over = false;  // a walk over the partition's rows begins here: what the reader made of it before may be out of date
  bool walk = false;        // names of the walk, in key order; else changes, in the order in which they were taken here
  std::vector<change_name> names;
  feed_mark mark;
};

class change_log;

// One reader at work. Goes before the replicated that gave it; one call of next() at a time.
class feed {
 public:
  ~feed();
  // The next page of whichever partition has one, or nothing when there was none until the deadline. Goes on after the pages given out
  // before, acknowledged or not. A failure (io_failed, no_space, unavailable: stopping) leaves the place where it was. not_found: the
  // reader was taken out.
  task<result<std::optional<feed_page>>> next(mono_time deadline, std::size_t names_max = 256);
  // That page, and all of the same partition before it, has been dealt with.
  void acknowledge(const feed_mark&);

 private:
  friend class change_log;
  struct reader;
  feed(change_log& l, std::shared_ptr<reader> r) : log_(l), reader_(std::move(r)) {}
  change_log& log_;
  std::shared_ptr<reader> reader_;
};

struct feed_status {
  std::string reader;
  std::uint64_t waiting = 0;         // changes that it has not acknowledged, at most
  std::size_t walking = 0;           // partitions whose rows it still walks
  std::uint64_t times_dropped = 0;   // since this start
  bool at_work = false;              // somebody follows under this name
};

// One kind of background work, since this start. What went wrong stands until that same thing has gone well: a subject names it, a home
// or a block, say. Of many the latest are kept; those forgotten come again with their next attempt.
struct work {
  struct trouble {
    std::string what;  // for people
    mono_time at{};
    node_id with;      // zero: about no home in particular
  };
  static constexpr std::size_t troubles_max = 64;
  std::uint64_t items = 0, bytes = 0;
  std::optional<mono_time> last_run;
  std::map<std::string, trouble> troubles;  // by subject
  void did(mono_time now, std::uint64_t more_items = 1, std::uint64_t more_bytes = 0) {
    items += more_items;
    bytes += more_bytes;
    last_run = now;
  }
  void failed(mono_time now, const std::string& subject, node_id with, std::string why) {
    last_run = now;
    troubles[subject] = {std::move(why), now, with};
    if (troubles.size() > troubles_max) troubles.erase(std::ranges::min_element(troubles, {}, [](const auto& t) { return t.second.at; }));
  }
  void mended(const std::string& subject) { troubles.erase(subject); }
  // It went well, and nothing went wrong on the way since then.
  void mended(const std::string& subject, mono_time since) {
    if (auto t = troubles.find(subject); t != troubles.end() && t->second.at < since) troubles.erase(t);
  }
  const trouble* latest() const {
    auto t = std::ranges::max_element(troubles, {}, [](const auto& x) { return x.second.at; });
    return t == troubles.end() ? nullptr : &t->second;
  }
};

struct repair_status {
  std::size_t hints = 0;
  std::uint64_t rows_received = 0, rows_sent = 0, merkle_rounds = 0, bytes_sent = 0;
  std::uint64_t rows_passed_over = 0;     // that one of two homes could not take, for their time
  std::size_t partitions_to_sync = 0;  // of a newcomer or of a layout change
  std::size_t homes_to_compare = 0;    // that came back and may have missed something
  work handoff;      // items: rows that a home missed and was brought, by name
  work comparison;   // items: comparisons with a home; bytes: of questions and rows, those of merging included
  work merging;      // items: partitions merged by a newcomer or for a layout change
  work other;        // layout, change log, single rows
};

class replicated {
 public:
  struct options {
    std::uint32_t start_number = 0;               // how often this node was started
    std::size_t memory_rows = 65536;              // recent accepts remembered
    nanoseconds merkle_interval = 60s;
    nanoseconds hint_interval = 5s;
    std::size_t feed_entries_max = 1'000'000;     // changes that wait for readers; beyond, whoever is furthest behind starts over
    // Steps left out on purpose, for tests of the tests (register.h; "fence", "layout_steps"); empty in production.
    std::vector<std::string> mutations;
  };
  // Registers its handlers: before endpoint.start(). They answer `unavailable` until start().
  replicated(runtime&, kv::store&, wire::endpoint&, cluster::directory&, hybrid_clock&, node_id self, options);
  ~replicated();

  // Before start(): the rules and hooks of each table.
  void define(table_id, table_rules);
  void on_apply(table_id, apply_hook);

  // Loads the layout, answers others from then on, begins repair. not_found: there is no layout yet (found() or adopt() first).
  task<result<void>> start();
  task<void> stop();

  // ------------------------------------------------------------------------------- coordinator
  // 1 R. A row never written or deleted is a value with present = false.
  task<result<row>> read(row_key, op_options);
  // 1 R. Rows of one partition; each a register of its own, in one message. One result a row.
  task<result<std::vector<result<ballot>>>> write(std::vector<write_item>, op_options);
  // 2 R. The row as it is now; the judge's refusal is the error.
  task<result<row>> compare_and_swap(row_key, judge, op_options);
  // 1 R while replicas agree.
  task<result<list_page>> list(list_request, op_options);
  // Merge rows: joined on a quorum of the row's replicas. 1 R.
  task<result<void>> merge(std::vector<write_item>, op_options);

  // Without a quorum, for what may be stale: this node's own replica, with no round trip, or else the nearest one that answers. A
  // replica that still merges the partition is not asked (5b.5). Nothing is written back; a fence is not looked at. unavailable: none is up.
  task<result<any_row>> read_any(row_key, op_options);
  task<result<any_page>> list_any(list_request, op_options);
  // No quorum of the partition is up, and nobody came back in the last seconds: known to be dark, not merely slow.
  bool quorum_is_dark(layout::partition) const;

  // ------------------------------------------------------------------------------- copies of the small tables
  // The local copy; a miss asks the quorum. present = false: known not to be there.
  task<result<row>> find_copy(table_id, bytes key, mono_time deadline);
  // Every copy, in key order. From memory.
  std::vector<std::pair<bytes, row>> all_copies(table_id) const;
  // After a change that must bind at once (permissions, deletion): pushed to all nodes that are up; returns when a quorum of the
  // replicas of `fenced` knows it. write() and compare_and_swap() of an `everywhere` table push by themselves without waiting.
  task<result<void>> publish(table_id, bytes key, layout::partition fenced, mono_time deadline);

  // ------------------------------------------------------------------------------- this replica
  bool is_replica(layout::partition) const;      // in the newest layout
  // Merge rows here, in one synced commit with `extra`; for handlers that get a reference along with its block.
  task<result<void>> merge_here(std::vector<write_item>, kv::batch extra);
  // A replica did not take a row of this replica's, which went another way than merge(): it is told when it is there. Not a replica: nothing.
  void missed_by(node_id, const row_key&);
  // Merge rows of one partition key, as they are here. (A block's references.)
  task<result<std::vector<std::pair<bytes, bytes>>>> scan_here(table_id, bytes partition_key);
  // The partition keys after that one which have rows of the table here, in order: a walk over what this node keeps.
  task<result<std::vector<bytes>>> keys_here(table_id, layout::partition, bytes after, std::size_t keys_max);
  // Asks every replica of p for its local answer to a question (counters): those that came before the deadline, of replicas that have merged
  // the partition (5b.5); at least a read quorum, or unavailable.
  task<result<std::vector<std::pair<node_id, bytes>>>> query(layout::partition, std::uint16_t question, bytes argument, op_options);
  void answer_query(std::uint16_t question, std::move_only_function<task<result<bytes>>(layout::partition, bytes argument)>);

  // ------------------------------------------------------------------------------- changes
  // Registers the reader if it is new; after start(). invalid_argument: a name of 1..64 letters, digits and ".-_" and tables that have a
  // feed are wanted; conflict: somebody follows under this name; overloaded: too many readers.
  task<result<std::unique_ptr<feed>>> follow(std::string reader, std::set<table_id> tables);
  // Takes a reader out: nothing is kept for it any more.
  task<result<void>> forget_reader(std::string reader);
  std::vector<feed_status> feeds() const;

  // ------------------------------------------------------------------------------- layout
  const layout::state& layout() const;
  layout::partition partition_of(bytes_view key) const;
  // Founds a cluster of one; or takes over the state that a member handed out at joining.
  task<result<void>> found(layout::state);
  task<result<void>> adopt(layout::state);
  // By compare-and-swap on the layout row; conflict while a change is under way. Progress by itself from then on.
  task<result<void>> change_members(std::function<result<std::vector<layout::member>>(const layout::state&)> edit,
                                    std::vector<node_id> removed, mono_time deadline);
  // Takes a change back while it is `moving` (a new home vanished before it had its rows); `removed`: who was to join and is never to come.
  task<result<void>> abandon_change(std::vector<node_id> removed, mono_time deadline);
  std::set<node_id> layout_waits_for() const;
  void on_layout(std::move_only_function<void(const layout::state&)>);

  repair_status status() const;
  // Starts anti-entropy with every peer now (tests, storagectl repair).
  void repair_now();

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace grenier::table
