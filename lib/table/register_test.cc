#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "table/register.h"

#include <doctest/doctest.h>

using namespace grenier;
using namespace grenier::table;

namespace {

ballot at(std::uint64_t time, std::uint64_t node = 1) { return make_ballot({time}, node, 0); }

attempt_id attempt(int n) {
  attempt_id a;
  a.data()[15] = static_cast<std::uint8_t>(n);
  return a;
}

register_value value(const char* v) { return {v, nullptr}; }

// Three cells and one operation; messages go where the test says.
struct stage {
  std::vector<cell> cells = std::vector<cell>(3);
  std::uint64_t clock = 100;
  int attempts = 0;
  std::shared_ptr<terms> t;
  std::optional<operation> op;
  action last;
  std::vector<action> sent;

  explicit stage(std::size_t replicas = 3) {
    t = std::make_shared<terms>(majority_of(replicas));
    t->fresh_ballot = [this](const ballot& above) { return at(clock = std::max(clock + 1, above.time.value + 1)); };
    t->fresh_attempt = [this] { return attempt(++attempts); };
  }
  void note(action a) {
    last = a;
    if (a.what == action::kind::send) sent.push_back(a);
    if (a.what == action::kind::send && a.value) values = *a.value;
  }
  register_value values;  // of the last accept sent
  void start(operation o) {
    op = std::move(o);
    note(op->start());
  }
  void write(const char* v) { start(operation::write(t, value(v))); }
  void read() { start(operation::read(t)); }
  void swap(const char* expected, const char* v) {
    start(operation::compare_and_swap(t, [expected, v](const ballot&, const register_value& now) -> result<register_value> {
      if (now.packed != expected) return fail(errc::condition_failed, "not so");
      return value(v);
    }));
  }
  answer ask(std::size_t i, const action& a) {
    if (a.request == request::read) return table::read(cells[i]);
    if (a.request == request::prepare) return prepare(cells[i], a.at).answer;
    return accept(cells[i], a.at, a.attempt, values.packed).answer;
  }
  // The last request reaches these, and their answers come back.
  void reach(std::initializer_list<std::size_t> who) {
    const action a = sent.back();
    for (std::size_t i : who)
      if (!op->ended() && a.round == op->round() && last.what != action::kind::pause) note(op->on_answer(a.round, i, ask(i, a)));
  }
  void silent(std::initializer_list<std::size_t> who, delivery d = delivery::unsure) {
    const std::uint32_t r = op->round();
    for (std::size_t i : who)
      if (!op->ended()) note(op->on_silent(r, i, d));
  }
  outcome::kind what() const { return op->result().what; }
  const bytes& got() const { return op->result().value.packed; }
  void hold(std::size_t i, std::uint64_t time, int a, const char* v) { REQUIRE(accept(cells[i], at(time, 9), attempt(100 + a), v).answer.yes); }
};

using kind = outcome::kind;

}  // namespace

// ---------------------------------------------------------------------------------------------- replica

TEST_CASE("a replica accepts what is not below its promise and above what it accepted, and says yes again to what it accepted") {
  cell c;
  CHECK_FALSE(accept(c, {}, attempt(1), "x").answer.yes);
  CHECK(accept(c, at(5), attempt(1), "a").took);
  CHECK(c.promised == at(5));
  CHECK_FALSE(accept(c, at(4), attempt(2), "b").answer.yes);
  CHECK_FALSE(accept(c, at(5), attempt(2), "b").answer.yes);
  auto again = accept(c, at(5), attempt(1), "a");
  CHECK(again.answer.yes);
  CHECK_FALSE(again.changed);
  CHECK(prepare(c, at(9)).changed);
  auto refused = accept(c, at(8), attempt(3), "c");
  CHECK_FALSE(refused.answer.yes);
  CHECK(refused.answer.promised == at(9));
  CHECK(refused.answer.accepted == at(5));
  CHECK(accept(c, at(9), attempt(4), "d").took);
  again = accept(c, at(5), attempt(1), "a");  // long overwritten, but it did
  CHECK(again.answer.yes);
  CHECK_FALSE(again.changed);
  CHECK(c.accepted_value == "d");
}

TEST_CASE("a promise is above all that was promised and accepted, and may be asked for again") {
  cell c;
  accept(c, at(5), attempt(1), "a");
  CHECK_FALSE(prepare(c, at(5)).answer.yes);
  CHECK_FALSE(prepare(c, at(4)).changed);
  auto p = prepare(c, at(7));
  CHECK(p.answer.yes);
  CHECK(p.answer.value == "a");
  CHECK(prepare(c, at(7)).answer.yes);
  CHECK_FALSE(prepare(c, at(7)).changed);
  CHECK_FALSE(prepare(c, at(6)).answer.yes);
  accept(c, at(7), attempt(2), "b");
  CHECK_FALSE(prepare(c, at(7)).answer.yes);
}

TEST_CASE("overwritten accepts are remembered, few and not for ever, and a cell says what it forgot") {
  cell c;
  for (int i = 1; i <= 9; ++i) accept(c, at(static_cast<std::uint64_t>(i)), attempt(i), "v");
  CHECK(c.recent.size() == 8);
  CHECK_FALSE(c.forgot);
  accept(c, at(10), attempt(10), "v");
  CHECK(c.recent.size() == 8);
  CHECK(c.forgot == at(1));
  CHECK(prepare(c, at(11)).answer.forgot == at(1));
  accept(c, make_ballot(hlc_time::from_ms(recent_ms + 1000), 1, 0), attempt(11), "v");
  CHECK(c.recent.empty());
  CHECK(c.forgot == at(10));
}

TEST_CASE("a handover brings value and promise; a newcomer's promise keeps no value from it") {
  cell old;
  accept(old, at(5), attempt(1), "a");
  prepare(old, at(9));
  cell c;
  auto r = merge(c, old, false);
  CHECK(r.took);
  CHECK(c.accepted_value == "a");
  CHECK(c.promised == at(9));
  cell other;
  accept(other, at(7), attempt(2), "b");
  CHECK_FALSE(merge(c, other, false).took);
  CHECK(merge(c, other, true).took);
  CHECK(c.accepted_value == "b");
  CHECK(c.promised == at(9));
  CHECK_FALSE(merge(c, old, true).took);
  CHECK_FALSE(merge(c, old, true).changed);
}

TEST_CASE("cells and answers survive their bytes; damaged ones are refused and never read past their end") {
  cell c;
  CHECK(cell::decode(c.encode()).value() == c);
  CHECK(c.encode().size() == 2);
  accept(c, at(5, 77), attempt(1), "the row");
  CHECK(c.encode().size() == 2 + 36 + 7);
  CHECK(cell::decode(c.encode()).value() == c);
  accept(c, at(6, 78), attempt(2), "another");
  prepare(c, at(900));
  c.forgot = at(3);
  const bytes raw = c.encode();
  CHECK(cell::decode(raw).value() == c);
  auto v = cell_view::decode(raw);
  REQUIRE(v);
  CHECK(v->accepted == at(6, 78));
  CHECK(v->attempt == attempt(2));
  CHECK(v->accepted_value == "another");
  CHECK(v->accepted_value.data() + v->accepted_value.size() == raw.data() + raw.size());
  answer a = prepare(c, at(901)).answer;
  auto b = answer::decode(a.encode());
  REQUIRE(b);
  CHECK(b->yes);
  CHECK(b->promised == at(901));
  CHECK(b->value == "another");
  CHECK(b->recent == c.recent);
  CHECK(b->forgot == at(3));
  for (std::size_t n = 0; n < raw.size() - 7; ++n) CHECK(cell::decode(bytes_view(raw).substr(0, n)).failed_with(errc::corrupt));
  std::uint64_t x = 1;
  for (int i = 0; i < 20000; ++i) {
    bytes damaged = raw.substr(0, (x = x * 6364136223846793005 + 1442695040888963407) >> 33 & 127);
    if (!damaged.empty()) damaged[(x >> 40) % damaged.size()] = static_cast<char>(x >> 50);
    if (auto d = cell::decode(damaged)) CHECK(cell::decode(d->encode()).value() == *d);
    (void)answer::decode(damaged);
  }
  CHECK(cell::decode("").failed_with(errc::corrupt));
  CHECK(answer::decode("").failed_with(errc::corrupt));
  CHECK(answer::decode("\2").failed_with(errc::corrupt));
}

// ---------------------------------------------------------------------------------------------- rule 1: writes

TEST_CASE("a write is one round: two yes, whatever the third says") {
  stage s;
  s.hold(2, 500, 1, "ahead");
  s.write("x");
  s.reach({2, 0, 1});
  CHECK(s.what() == kind::done);
  CHECK(s.got() == "x");
  CHECK(s.op->rounds() == 1);
  CHECK(s.op->result().written == at(101));
}

TEST_CASE("a write too old for a quorum prepares above what it saw and writes there") {
  stage s;
  for (std::size_t i = 0; i < 3; ++i) s.hold(i, 500, 1, "old");
  s.write("x");
  s.reach({0, 1});
  REQUIRE(s.last.request == request::prepare);
  CHECK(s.last.at > at(500, 9));
  s.reach({0, 1});
  REQUIRE(s.last.request == request::accept);
  CHECK(s.last.attempt == attempt(2));
  s.reach({1, 2});
  CHECK(s.what() == kind::done);
  CHECK(s.op->rounds() == 3);
}

TEST_CASE("(a) a write that a quorum took at one ballot is done, though its answers were lost") {
  stage s;
  s.write("x");
  const action first = s.sent[0];
  for (std::size_t i : {0U, 1U}) s.ask(i, first);  // taken, answers lost
  s.hold(0, 500, 1, "y");
  s.hold(2, 500, 1, "y");
  s.silent({0, 1});
  REQUIRE(s.last.what == action::kind::pause);
  s.note(s.op->resume());
  s.reach({0, 1});
  CHECK(s.what() == kind::done);
  CHECK(s.cells[0].accepted_value == "y");
}

TEST_CASE("(b) a write found newest is brought to a quorum as the same attempt") {
  stage s;
  for (std::size_t i : {1U, 2U}) prepare(s.cells[i], at(400, 9));
  s.write("x");
  s.reach({0, 1, 2});
  REQUIRE(s.last.request == request::prepare);
  s.reach({0, 1});
  REQUIRE(s.last.request == request::accept);
  CHECK(s.last.attempt == attempt(1));
  s.reach({0, 1});
  CHECK(s.what() == kind::done);
}

TEST_CASE("(d) a trace that was overwritten: the third is asked; it decides between writing anew and not knowing") {
  auto overwritten = [](stage& s) {
    for (std::size_t i : {1U, 2U}) s.hold(i, 500, 1, "y");
    s.write("x");
    s.reach({0, 1});  // yes, no
    s.hold(0, 500, 1, "y");
    s.silent({2});    // what became of it there?
    REQUIRE(s.last.request == request::prepare);
    s.reach({0, 1});
    CHECK(s.last.what == action::kind::wait);
  };
  SUBCASE("all three known") {
    stage s;
    overwritten(s);
    s.reach({2});
    REQUIRE(s.last.request == request::accept);
    CHECK(s.last.attempt == attempt(2));
    s.reach({0, 1});
    CHECK(s.what() == kind::done);
  }
  SUBCASE("the third silent") {
    stage s;
    overwritten(s);
    s.silent({2});
    CHECK(s.what() == kind::unknown);
  }
  SUBCASE("the third forgot") {
    stage s;
    overwritten(s);
    s.cells[2].forgot = at(450);
    s.reach({2});
    CHECK(s.what() == kind::unknown);
  }
}

TEST_CASE("a write that nobody can have taken is unavailable; one that somebody may have taken is unknown") {
  stage s;
  s.write("x");
  s.silent({0, 1, 2}, delivery::none);
  while (s.last.what == action::kind::pause) {
    s.note(s.op->resume());
    s.silent({0, 1, 2}, delivery::none);
  }
  CHECK(s.what() == kind::unavailable);
  stage u;
  u.write("x");
  u.silent({0, 1}, delivery::none);
  u.note(u.op->give_up());
  CHECK(u.what() == kind::unknown);
  stage r;
  for (std::size_t i = 0; i < 3; ++i) prepare(r.cells[i], at(500, 9));
  r.write("x");
  r.reach({0, 1});
  r.note(r.op->give_up());
  CHECK(r.what() == kind::unknown);  // the third may take it yet
}

TEST_CASE("who never got the accept may still have taken it from somebody else") {
  for (bool left_out : {false, true}) {
    const mutations m{.undelivered_is_never = true};
    stage s;
    s.t->mutations = left_out ? &m : nullptr;
    s.write("x");
    const action first = s.sent[0];
    s.reach({0});
    s.silent({2}, delivery::none);
    accept(s.cells[2], first.at, first.attempt, "x");  // a reader wrote it back: a quorum held it, and was seen
    for (std::size_t i : {0U, 1U}) s.hold(i, 500, 1, "y");
    s.reach({1});
    REQUIRE(s.last.request == request::prepare);
    s.silent({2});
    s.reach({0, 1});
    if (left_out)
      CHECK(s.last.request == request::accept);  // x, y, and x again
    else
      CHECK(s.what() == kind::unknown);
  }
}

TEST_CASE("a late yes to the first round still counts") {
  stage s;
  prepare(s.cells[1], at(500, 9));
  s.write("x");
  const action first = s.sent[0];
  s.reach({0, 1});
  s.silent({2});
  REQUIRE(s.last.request == request::prepare);
  s.note(s.op->on_answer(first.round, 2, accept(s.cells[2], first.at, first.attempt, "x").answer));
  CHECK(s.what() == kind::done);
}

TEST_CASE("contention is bounded and asks for pauses") {
  stage s;
  s.t->tries_max = 3;
  s.write("x");
  int pauses = 0;
  for (int i = 0; i < 50 && !s.op->ended(); ++i) {
    if (s.last.what == action::kind::pause) {
      CHECK(s.last.tries == static_cast<unsigned>(++pauses + 1));
      s.note(s.op->resume());
    }
    for (auto& c : s.cells) prepare(c, at(1000 * static_cast<std::uint64_t>(i + 1), 9));
    s.reach({0, 1, 2});
  }
  CHECK(pauses == 2);
  CHECK(s.what() == kind::unknown);  // the third was not heard
}

// ---------------------------------------------------------------------------------------------- rule 2: reads

TEST_CASE("a read is one round while two agree, also on nothing") {
  stage s;
  s.read();
  s.reach({0, 2});
  CHECK(s.what() == kind::done);
  CHECK_FALSE(s.op->result().written);
  for (std::size_t i : {1U, 2U}) s.hold(i, 5, 1, "v");
  s.read();
  s.reach({1, 2});
  CHECK(s.got() == "v");
  CHECK(s.op->rounds() == 1);
}

TEST_CASE("a read that sees two ballots writes the newest back, at its own ballot, to those that lack it") {
  stage s;
  s.hold(0, 5, 1, "v");
  s.read();
  s.reach({0, 1});
  REQUIRE(s.last.request == request::accept);
  CHECK(s.last.at == at(5, 9));
  CHECK(s.last.attempt == attempt(101));
  CHECK(s.last.to == 0b110U);
  s.reach({2});
  CHECK(s.what() == kind::done);
  CHECK(s.got() == "v");
  CHECK(s.cells[2].accepted == at(5, 9));
}

TEST_CASE("a write-back refused is read again, then prepared and brought to a quorum") {
  stage s;
  s.hold(0, 5, 1, "v");
  for (std::size_t i : {1U, 2U}) prepare(s.cells[i], at(50, 9));  // of somebody who died
  s.read();
  s.reach({0, 1});
  s.reach({1, 2});
  REQUIRE(s.last.request == request::read);
  s.reach({0, 1});
  s.reach({1, 2});
  REQUIRE(s.last.what == action::kind::pause);
  s.note(s.op->resume());
  REQUIRE(s.last.request == request::prepare);
  s.reach({0, 1});
  REQUIRE(s.last.request == request::accept);
  CHECK(s.last.attempt == attempt(101));
  s.reach({0, 1});
  CHECK(s.what() == kind::done);
  CHECK(s.got() == "v");
}

TEST_CASE("a read without a quorum is unavailable") {
  stage s;
  s.read();
  s.reach({0});
  s.silent({1, 2});
  REQUIRE(s.last.what == action::kind::pause);
  s.note(s.op->resume());
  s.silent({1, 2});
  CHECK(s.what() == kind::unavailable);
}

TEST_CASE("a body comes from whoever brought one") {
  stage s;
  s.hold(0, 5, 1, "v");
  s.hold(1, 5, 1, "v");
  s.read();
  s.note(s.op->on_answer(s.op->round(), 0, s.ask(0, s.sent.back())));
  answer with = s.ask(1, s.sent.back());
  with.body = share("body");
  s.note(s.op->on_answer(s.op->round(), 1, with));
  REQUIRE(s.op->result().value.body);
  CHECK(*s.op->result().value.body == "body");
}

// ---------------------------------------------------------------------------------------------- rule 3: compare-and-swap

TEST_CASE("a raise brings what stands to all replicas, past a promise that kept it from one, as that same attempt") {
  stage s;
  s.hold(0, 5, 1, "new");
  s.hold(1, 5, 1, "new");
  s.hold(2, 4, 2, "old");
  REQUIRE(prepare(s.cells[2], at(6)).answer.yes);
  CHECK_FALSE(accept(s.cells[2], at(5, 9), attempt(101), "new").answer.yes);  // what anti-entropy would send
  s.start(operation::raise(s.t));
  CHECK(s.last.request == request::prepare);
  s.reach({0, 1});
  CHECK(s.last.request == request::accept);
  CHECK(s.last.attempt == attempt(101));
  CHECK(s.last.to == 0b111);
  s.reach({2, 0, 1});
  CHECK(s.what() == kind::done);
  CHECK(s.got() == "new");
  CHECK(s.cells[2].accepted == s.cells[0].accepted);
  CHECK(s.cells[2].attempt == attempt(101));

  stage none;
  none.start(operation::raise(none.t));
  none.reach({0, 1});
  CHECK(none.what() == kind::done);
  CHECK(none.got().empty());
}

TEST_CASE("a swap is two rounds, at one ballot, when what it finds stands on a quorum") {
  stage s;
  for (std::size_t i = 0; i < 3; ++i) s.hold(i, 5, 1, "v");
  s.swap("v", "w");
  s.reach({0, 1});
  REQUIRE(s.last.request == request::accept);
  CHECK(s.last.at == s.sent[0].at);
  s.reach({0, 1});
  CHECK(s.what() == kind::done);
  CHECK(s.got() == "w");
  CHECK(s.op->rounds() == 2);
  s.swap("", "z");
  s.reach({0, 1});
  CHECK(s.what() == kind::refused);
  CHECK(s.op->result().refusal == errc::condition_failed);
  CHECK(s.got() == "w");
  CHECK(s.op->rounds() == 1);
}

TEST_CASE("a swap brings the newest to a quorum before it judges, also to refuse; then accepts at a ballot that nothing lies below") {
  for (const char* expected : {"v", "other"}) {
    stage s;
    s.hold(0, 5, 1, "v");
    s.swap(expected, "w");
    s.reach({0, 1});
    REQUIRE(s.last.request == request::accept);
    CHECK(s.last.attempt == attempt(101));
    CHECK(s.last.at == s.sent[0].at);
    s.reach({0, 2});
    CHECK(s.cells[2].accepted_value == "v");
    if (expected[0] == 'o') {
      CHECK(s.what() == kind::refused);
      CHECK(s.got() == "v");
      continue;
    }
    CHECK(s.last.at == next(s.sent[0].at));
    s.reach({0, 2});
    CHECK(s.what() == kind::done);
  }
}

TEST_CASE("a swap refused half-way is judged anew only when nobody can have seen it") {
  stage s;
  for (std::size_t i = 0; i < 3; ++i) s.hold(i, 5, 1, "v");
  s.swap("v", "w");
  s.reach({0, 1});
  REQUIRE(s.sent.size() == 2);
  s.reach({0});                                          // one has it
  for (std::size_t i : {1U, 2U}) s.hold(i, 900, 2, "other");
  s.reach({1, 2});
  REQUIRE(s.last.request == request::prepare);
  SUBCASE("no trace with these two: the third is not asked") {
    s.reach({1, 2});
    CHECK(s.what() == kind::refused);
    CHECK(s.got() == "other");
  }
  SUBCASE("its trace was overwritten, the others never took it") {
    s.hold(0, 900, 2, "other");
    s.reach({0, 1});
    CHECK(s.what() == kind::refused);  // the third said no to the accept itself, and remembers
  }
}

TEST_CASE("a swap that sent no accept is unavailable, however it ends") {
  stage s;
  s.swap("", "w");
  s.reach({0});
  s.note(s.op->give_up());
  CHECK(s.what() == kind::unavailable);
}

// ---------------------------------------------------------------------------------------------- rule 4, and other quorums

TEST_CASE("a replica counts once, and answers of other rounds not at all") {
  stage s;
  s.write("x");
  const answer yes = s.ask(0, s.sent.back());
  CHECK(s.op->on_answer(1, 0, yes).what == action::kind::wait);
  CHECK(s.op->on_answer(1, 0, yes).what == action::kind::wait);
  CHECK(s.op->on_answer(7, 1, yes).what == action::kind::wait);
  CHECK(s.op->on_answer(0, 1, yes).what == action::kind::wait);
  CHECK(s.op->on_answer(1, 31, yes).what == action::kind::wait);
  CHECK(s.op->on_answer(1, 4000, yes).what == action::kind::wait);
  CHECK_FALSE(s.op->ended());
  CHECK(s.op->on_answer(1, 1, yes).what == action::kind::end);
  CHECK(s.op->on_answer(1, 2, yes).what == action::kind::wait);
}

TEST_CASE("one replica alone, and two of which the first decides when the other is dark") {
  stage one(1);
  one.write("x");
  one.reach({0});
  CHECK(one.what() == kind::done);

  stage s(2);
  bool dark = false;
  s.t->is_quorum = s.t->is_read_quorum = [&](replica_mask m) { return (m & 1) && (dark || m & 2); };
  s.t->may_be_quorum = [](replica_mask m) { return (m & 1) != 0; };
  s.write("x");
  s.reach({0});
  CHECK_FALSE(s.op->ended());
  dark = true;
  s.note(s.op->reconsider());
  CHECK(s.what() == kind::done);
  s.read();
  s.reach({1});
  CHECK_FALSE(s.op->ended());
}

TEST_CASE("joint quorums: both versions must agree") {
  stage s(5);
  s.cells.resize(5);
  s.t->is_quorum = s.t->is_read_quorum = [](replica_mask m) { return std::popcount(m & 0b111U) >= 2 && std::popcount(m & 0b11100U) >= 2; };
  s.write("x");
  s.reach({0, 1, 2});
  CHECK_FALSE(s.op->ended());
  s.reach({4});
  CHECK(s.what() == kind::done);
}

TEST_CASE("a layout that changes half-way: the operation goes on under the new terms with a prepare, and forgets nothing it sent") {
  stage s;
  s.cells.resize(4);
  s.write("x");
  s.reach({0});
  auto old = s.t;
  s.t = std::make_shared<terms>(*old);
  s.t->replicas = 0b1110;  // replica 0 left
  s.t->is_quorum = s.t->is_read_quorum = s.t->may_be_quorum = [](replica_mask m) { return std::popcount(m & 0b1110U) >= 2; };
  s.note(s.op->rebase(s.t));
  REQUIRE(s.last.request == request::prepare);
  CHECK(s.last.to == 0b1110U);
  s.silent({1});
  s.reach({2, 3});
  CHECK(s.what() == kind::unknown);  // 0 took it, and 1 may have: that was a quorum of the old ones
}

TEST_CASE("what one replica holds and nobody takes back does not stand in the way of what the others agree on") {
  // Its time is far ahead: the write-back is refused as if it had never arrived.
  stage s;
  s.hold(0, 100'000, 1, "x");
  s.hold(1, 50, 2, "y"), s.hold(2, 50, 2, "y");
  s.read();
  s.reach({0, 1});
  REQUIRE(s.sent.back().request == request::accept);
  s.silent({1, 2}, delivery::none);
  REQUIRE(s.last.what == action::kind::pause);
  s.note(s.op->resume());
  s.reach({0, 1});
  CHECK(s.last.what == action::kind::wait);  // the third may agree with the second
  s.reach({2});
  REQUIRE(s.op->ended());
  CHECK(s.what() == kind::done);
  CHECK(s.got() == "y");
}

TEST_CASE("and where the others differ, the newest of theirs is written back") {
  stage s;
  s.hold(0, 100'000, 1, "x");
  s.hold(1, 50, 2, "y"), s.hold(2, 40, 3, "z");
  s.read();
  s.reach({0, 1});
  s.silent({1, 2}, delivery::none);
  s.note(s.op->resume());
  s.reach({0, 1, 2});
  REQUIRE(s.sent.back().request == request::accept);
  s.reach({2});
  REQUIRE(s.op->ended());
  CHECK(s.got() == "y");
  // The others silent: what they hold is not known, and nothing is shown.
  stage t;
  t.hold(0, 100'000, 1, "x");
  t.hold(1, 50, 2, "y");
  t.read();
  t.reach({0, 1});
  t.silent({1, 2}, delivery::none);
  t.note(t.op->resume());
  t.reach({0, 1});
  t.silent({2});
  REQUIRE(t.sent.back().request == request::accept);
  t.silent({1, 2}, delivery::none);
  CHECK(t.what() == kind::unavailable);
}

TEST_CASE("an answer with a time that no clock can have is not read") {
  for (std::uint64_t time : {std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    answer a{.yes = false, .promised = {{time}, 1, 0}, .accepted = {}, .attempt = {}, .value = {}, .body = nullptr, .recent = {}, .forgot = {}};
    CHECK(answer::decode(a.encode()).has_value() == (time <= time_max.value));
  }
}
