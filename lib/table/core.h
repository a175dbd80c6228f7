// table/core.h: what the parts of a replicated store share: the node's services, its tables, and how messages go out and come in.
#pragma once

#include "table.pb.h"
#include "table/register.h"
#include "table/table.h"

namespace grenier::table {

struct definition {
  table_rules rules;
  std::vector<apply_hook> hooks;
};

// Names of mutations' members, for tests.
inline mutations mutations_named(const std::vector<std::string>& names) {
  mutations m;
  for (const auto& n : names) {
    m.retry_without_asking |= n == "retry_without_asking";
    m.no_write_back |= n == "no_write_back";
    m.judge_unestablished |= n == "judge_unestablished";
    m.ignore_promises |= n == "ignore_promises";
    m.forgotten_is_never |= n == "forgotten_is_never";
    m.count_twice |= n == "count_twice";
    m.quorum_of_one |= n == "quorum_of_one";
    m.undelivered_is_never |= n == "undelivered_is_never";
    m.ignore_order |= n == "ignore_order";
  }
  return m;
}

// What may go wrong with single rows, as subjects of work.
inline bytes rows_passed_over(const node_id& peer) { return "passed over " + peer.str(); }
inline bytes rows_held_back(const node_id& peer) { return "held back " + peer.str(); }

struct core {
  core(runtime& r, kv::store& s, wire::endpoint& w, cluster::directory& d, hybrid_clock& c, node_id id, replicated::options o)
      : rt(r), store(s), wire(w), peers(d), clock(c), self(id), options(std::move(o)), tasks(r) {}

  runtime& rt;
  kv::store& store;
  wire::endpoint& wire;
  cluster::directory& peers;
  hybrid_clock& clock;
  const node_id self;
  const replicated::options options;
  std::map<table_id, definition> tables;
  task_group tasks;
  repair_status status;
  std::set<node_id> hints_stuck;  // who did not take all that they were brought by name: only comparing helps them on
  bool ready = false;  // what is on disk of the layout is known: before that, nobody is answered

  bool merges(table_id t) const {
    auto at = tables.find(t);
    return at != tables.end() && at->second.rules.join;
  }
  bool everywhere(table_id t) const {
    auto at = tables.find(t);
    return at != tables.end() && at->second.rules.everywhere;
  }
  // A step left out on purpose.
  bool skips(std::string_view step) const {
    for (const auto& m : options.mutations)
      if (m == step) return true;
    return false;
  }

  // A message and its answer.
  template <class Answer>
  static task<result<Answer>> call(core& c, node_id to, wire::method m, bytes request, wire::call_options o) {
    CO_TRY(auto raw, co_await c.wire.call(to, m, wire::message{std::move(request), nullptr}, o));
    Answer a;
    if (!a.ParseFromString(raw.head)) co_return fail(errc::internal, "an answer that cannot be read");
    co_return a;
  }

  template <class Request, class Answer, class Part>
  void serve(wire::method m, Part* part, task<result<Answer>> (Part::*fn)(wire::caller, Request)) {
    wire.serve(m, [this, part, fn](wire::caller from, wire::message q) {
      return answer<Request, Answer, Part>(this, part, fn, std::move(from), std::move(q));
    });
  }

 private:
  template <class Request, class Answer, class Part>
  static task<result<wire::message>> answer(core* c, Part* part, task<result<Answer>> (Part::*fn)(wire::caller, Request), wire::caller from,
                                            wire::message q) {
    if (c->tasks.cancelled()) co_return fail(errc::unavailable, "this node is stopping");
    if (from.by_invite) co_return fail(errc::access_denied, "a guest may only join");
    if (!c->ready) co_return fail(errc::unavailable, "this node is starting");
    Request request;
    if (!request.ParseFromString(q.head)) co_return fail(errc::protocol, "a request that cannot be read");
    CO_TRY(Answer a, co_await (part->*fn)(std::move(from), std::move(request)));
    co_return wire::message{a.SerializeAsString(), nullptr};
  }
};

}  // namespace grenier::table
