#include "table/register.h"

#include <algorithm>
#include <bit>

namespace grenier::table {
namespace {

constexpr std::uint8_t form = 1;
enum flag : std::uint8_t { has_accepted = 1, has_promised = 2, has_recent = 4, has_forgot = 8 };
constexpr std::size_t ballot_bytes = 20, past_bytes = 36;

void append(bytes& to, const ballot& b) {
  append_u64(to, b.time.value);
  append_u64(to, b.node);
  append_u32(to, b.start);
}

// Takes bytes off the front; after a lack of them everything reads as zero and bad() says so.
class reader {
 public:
  explicit reader(bytes_view b) : left_(b) {}
  bytes_view take(std::size_t n) {
    static constexpr char zeros[past_bytes] = {};
    if (left_.size() < n) {
      bad_ = true;
      return {zeros, n};
    }
    bytes_view r = left_.substr(0, n);
    left_.remove_prefix(n);
    return r;
  }
  std::uint8_t u8() { return static_cast<std::uint8_t>(take(1)[0]); }
  ballot read_ballot() {
    bytes_view b = take(ballot_bytes);
    return {{read_u64(b)}, read_u64(b.substr(8)), read_u32(b.substr(16))};
  }
  attempt_id read_attempt() {
    attempt_id a;
    std::memcpy(a.data(), take(attempt_id::size_bytes).data(), attempt_id::size_bytes);
    return a;
  }
  bytes_view rest() const { return left_; }
  bool bad() const { return bad_; }

 private:
  bytes_view left_;
  bool bad_ = false;
};

// A cell and an answer are written alike: what is not there takes no room.
void append_held(bytes& to, const ballot& promised, const ballot& accepted, const attempt_id& attempt, const std::vector<past_accept>& recent,
                 const ballot& forgot, bytes_view value) {
  const bool promise_told = promised != accepted;  // an accepted ballot is promised as well
  to.push_back(static_cast<char>(form));
  to.push_back(static_cast<char>((accepted ? has_accepted : 0) | (promise_told ? has_promised : 0) | (recent.empty() ? 0 : has_recent) |
                                 (forgot ? has_forgot : 0)));
  if (accepted) {
    append(to, accepted);
    to.append(attempt.view());
  }
  if (promise_told) append(to, promised);
  if (forgot) append(to, forgot);
  if (!recent.empty()) {
    to.push_back(static_cast<char>(recent.size()));
    for (const auto& r : recent) {
      to.append(r.attempt.view());
      append(to, r.at);
    }
  }
  to.append(value);
}

struct held {
  ballot promised, accepted, forgot;
  attempt_id attempt;
  bytes_view recent;  // packed
  bytes_view value;
};

result<held> read_held(bytes_view raw) {
  reader in(raw);
  held h;
  if (in.u8() != form) return fail(errc::corrupt, "a register of an unknown form");
  const std::uint8_t flags = in.u8();
  if (flags > 15) return fail(errc::corrupt, "a register with unknown parts");
  if (flags & has_accepted) {
    h.accepted = in.read_ballot();
    h.attempt = in.read_attempt();
  }
  h.promised = flags & has_promised ? in.read_ballot() : h.accepted;
  if (flags & has_forgot) h.forgot = in.read_ballot();
  if (flags & has_recent) {
    const std::size_t n = in.u8();
    if (n == 0 || n > recent_max || in.rest().size() < n * past_bytes) return fail(errc::corrupt, "a register's list of accepts is damaged");
    h.recent = in.rest().substr(0, n * past_bytes);
    for (std::size_t i = 0; i < n; ++i) in.take(past_bytes);
  }
  h.value = in.rest();
  if (in.bad() || h.promised < h.accepted || (!h.accepted && !h.value.empty())) return fail(errc::corrupt, "a damaged register");
  return h;
}

std::vector<past_accept> read_recent(bytes_view packed) {
  std::vector<past_accept> r;
  for (reader in(packed); !in.rest().empty();) {
    attempt_id a = in.read_attempt();
    r.push_back({a, in.read_ballot()});
  }
  return r;
}

constexpr replica_mask bit(std::size_t i) { return replica_mask{1} << i; }

}  // namespace

// ---------------------------------------------------------------------------------------------- bytes

bytes cell::encode() const {
  bytes to;
  to.reserve(80 + recent.size() * past_bytes + accepted_value.size());
  append_held(to, promised, accepted, attempt, recent, forgot, accepted_value);
  return to;
}

result<cell> cell::decode(bytes_view raw) {
  TRY(held h, read_held(raw));
  return cell{h.promised, h.accepted, h.attempt, bytes(h.value), read_recent(h.recent), h.forgot};
}

result<cell_view> cell_view::decode(bytes_view raw) {
  TRY(held h, read_held(raw));
  return cell_view{h.promised, h.accepted, h.attempt, h.value};
}

bytes answer::encode() const {
  bytes to(1, yes ? '\1' : '\0');
  append_held(to, promised, accepted, attempt, recent, forgot, value);
  return to;
}

result<answer> answer::decode(bytes_view raw) {
  if (raw.empty() || static_cast<std::uint8_t>(raw[0]) > 1) return fail(errc::corrupt, "a damaged answer");
  TRY(held h, read_held(raw.substr(1)));
  if (h.promised.time > time_max) return fail(errc::corrupt, "an answer with a time that cannot be");  // never below the accepted one
  return answer{raw[0] == '\1', h.promised, h.accepted, h.attempt, bytes(h.value), nullptr, read_recent(h.recent), h.forgot};
}

// ---------------------------------------------------------------------------------------------- replica

namespace {

answer short_answer(const cell& c, bool yes) {
  return {.yes = yes, .promised = c.promised, .accepted = c.accepted, .attempt = c.attempt, .forgot = c.forgot};
}

void remember_overwritten(cell& c, const ballot& by) {
  if (!c.accepted) return;
  c.recent.push_back({c.attempt, c.accepted});
  auto old = [&](const past_accept& p) { return p.at.time.ms() + recent_ms < by.time.ms(); };
  while (!c.recent.empty() && (c.recent.size() > recent_max || old(c.recent.front()))) {
    c.forgot = std::max(c.forgot, c.recent.front().at);
    c.recent.erase(c.recent.begin());
  }
}

void take(cell& c, const ballot& at, const attempt_id& a, bytes_view value) {
  remember_overwritten(c, at);
  c.promised = std::max(c.promised, at);
  c.accepted = at;
  c.attempt = a;
  c.accepted_value = bytes(value);
}

}  // namespace

reply accept(cell& c, const ballot& at, const attempt_id& a, bytes_view value, const mutations* m) {
  const past_accept wanted{a, at};
  const bool had = (c.accepted == at && c.attempt == a) || std::find(c.recent.begin(), c.recent.end(), wanted) != c.recent.end();
  if (had) return {short_answer(c, true)};
  const bool promised_away = at < c.promised && !(m && m->ignore_promises);
  const bool older = at <= c.accepted && !(m && m->ignore_order && at < c.accepted);
  if (!at || promised_away || older) return {short_answer(c, false)};
  take(c, at, a, value);
  return {short_answer(c, true), true, true};
}

reply prepare(cell& c, const ballot& at) {
  const bool raised = at > c.promised && at > c.accepted;
  const bool again = at && at == c.promised && at > c.accepted;
  if (raised) c.promised = at;
  answer a = read(c);
  a.yes = raised || again;
  a.recent = c.recent;
  return {std::move(a), raised};
}

answer read(const cell& c) {
  answer a = short_answer(c, true);
  a.value = c.accepted_value;
  return a;
}

reply merge(cell& c, const cell& theirs, bool newcomer) {
  reply r{short_answer(c, true)};
  if (newcomer && theirs.accepted > c.accepted) {
    take(c, theirs.accepted, theirs.attempt, theirs.accepted_value);
    r.changed = r.took = true;
  } else if (theirs.accepted) {
    r = accept(c, theirs.accepted, theirs.attempt, theirs.accepted_value);
  }
  if (theirs.promised > c.promised) {
    c.promised = theirs.promised;
    r.changed = true;
  }
  r.answer = short_answer(c, r.answer.yes);
  return r;
}

// ---------------------------------------------------------------------------------------------- coordinator

terms majority_of(std::size_t n) {
  terms t;
  t.replicas = static_cast<replica_mask>((std::uint64_t{1} << n) - 1);
  t.is_quorum = [n, all = t.replicas](replica_mask m) { return static_cast<std::size_t>(std::popcount(m & all)) * 2 > n; };
  t.is_read_quorum = t.may_be_quorum = t.is_quorum;
  return t;
}

operation::operation(kind k, std::shared_ptr<const terms> t) : kind_(k), terms_(std::move(t)) { ASSERT(terms_); }

operation operation::read(std::shared_ptr<const terms> t) { return operation(kind::read, std::move(t)); }

operation operation::raise(std::shared_ptr<const terms> t, bool beyond) {
  operation o(kind::read, std::move(t));
  o.raises_ = true;
  o.beyond_ = beyond;
  return o;
}

operation operation::supersede(std::shared_ptr<const terms> t, const ballot& stray, register_value nothing) {
  operation o = raise(std::move(t), true);
  o.stray_ = o.seen_ = stray;
  o.wanted_ = std::move(nothing);
  return o;
}

operation operation::write(std::shared_ptr<const terms> t, register_value v) {
  operation o(kind::write, std::move(t));
  o.wanted_ = std::move(v);
  return o;
}

operation operation::compare_and_swap(std::shared_ptr<const terms> t, register_judge j) {
  operation o(kind::swap, std::move(t));
  o.judge_ = std::make_shared<register_judge>(std::move(j));
  return o;
}

// ------------------------------------------------------------------- what comes in

action operation::start() {
  ASSERT(phase_ == phase::idle);
  if (kind_ == kind::swap || raises_) return prepare_again();
  if (kind_ == kind::read) return read_again();
  at_ = terms_->fresh_ballot({});
  phase_ = phase::first_accept;
  return accept_new(at_, wanted_);
}

action operation::on_answer(std::uint32_t round, std::size_t replica, answer a) {
  const action wait{.round = round_};
  if (ended() || phase_ == phase::idle || replica >= 32 || !(terms_->replicas & bit(replica))) return wait;
  if (round != round_ || phase_ == phase::pausing) {
    // Too late to be counted, but what became of an accept of ours is a fact at any time.
    for (auto& t : traces_)
      if (t.round == round && t.to & bit(replica)) count(t, replica, a);
    if (auto e = end_if_chosen()) return *e;
    return wait;
  }
  if ((yes_ | no_) & bit(replica)) {
    const replica_mask left = terms_->replicas & ~(yes_ | no_);
    if (!left || !left_out(&mutations::count_twice)) return wait;
    replica = static_cast<std::size_t>(std::countr_zero(left));
  }
  learn(replica, a);
  if (phase_ == phase::preparing && stray_ && a.accepted == stray_) a.yes = false;
  (a.yes ? yes_ : no_) |= bit(replica);
  silent_ &= ~bit(replica);
  said_.push_back({replica, std::move(a)});
  return decide();
}

action operation::on_silent(std::uint32_t round, std::size_t replica, delivery d) {
  const action wait{.round = round_};
  if (ended() || replica >= 32) return wait;
  if (d == delivery::none)
    for (auto& t : traces_)
      if (t.round == round) (left_out(&mutations::undelivered_is_never) ? t.never : t.unsent) |= bit(replica);
  if (round != round_ || phase_ == phase::pausing || (yes_ | no_ | silent_) & bit(replica)) return wait;
  silent_ |= bit(replica) & terms_->replicas;
  return decide();
}

action operation::resume() {
  if (phase_ != phase::pausing) return {.round = round_};
  return kind_ == kind::read && !raises_ && tries_ < 2 ? read_again() : prepare_again();
}

action operation::reconsider() {
  if (ended() || phase_ == phase::idle || phase_ == phase::pausing) return {.round = round_};
  return decide();
}

action operation::rebase(std::shared_ptr<const terms> t) {
  ASSERT(t);
  if (ended()) return {.round = round_};
  if (!traces_.empty()) former_.push_back(terms_);
  terms_ = std::move(t);
  if (phase_ == phase::idle) return {.round = round_};
  return retry(false);
}

action operation::give_up() {
  if (ended()) return {.round = round_};
  return end_without();
}

// ------------------------------------------------------------------- what goes out

action operation::send(phase p, request r, replica_mask to) {
  phase_ = p;
  ++round_;
  ++rounds_;
  yes_ = no_ = silent_ = 0;
  said_.clear();
  action a{.what = action::kind::send, .round = round_, .request = r, .to = to, .at = at_, .attempt = {}, .value = nullptr, .chosen = beyond_};
  if (r != request::accept) return a;
  a.attempt = attempt_;
  a.value = &sending_;
  if (mine(attempt_)) {
    trace& t = trace_of({attempt_, at_});
    t.round = round_;
    t.to |= to;
    if (!first_ || at_ < first_) first_ = at_;
  }
  return a;
}

action operation::read_again() { return send(phase::reading, request::read, terms_->replicas); }

action operation::prepare_again() {
  at_ = terms_->fresh_ballot(std::max(seen_, at_));
  ASSERT(at_ > seen_);
  return send(phase::preparing, request::prepare, terms_->replicas);
}

// The first time at once, afterwards with a pause.
action operation::retry(bool by_silence) {
  if (by_silence && ++silences_ >= terms_->silences_max) return end_without();
  if (++tries_ > terms_->tries_max) return end_without();
  if (tries_ > 1 || by_silence) {
    phase_ = phase::pausing;
    return {.what = action::kind::pause, .round = round_, .tries = tries_};
  }
  return kind_ == kind::read && !raises_ ? read_again() : prepare_again();
}

action operation::accept_new(const ballot& at, register_value v) {
  const phase p = phase_ == phase::first_accept ? phase_ : phase::finishing;
  at_ = at;
  attempt_ = terms_->fresh_attempt();
  sending_ = v;
  attempts_.push_back({attempt_, std::move(v)});
  return send(p, request::accept, terms_->replicas);
}

// Brings what was found to a quorum at this operation's ballot, as the same attempt.
action operation::establish(const said& s) {
  attempt_ = s.answer.attempt;
  sending_ = value_of(s);
  return send(phase::establishing, request::accept, terms_->replicas);
}

action operation::judge_and_accept(const ballot& at, const ballot& written, const register_value& current) {
  auto r = (*judge_)(written, current);
  if (r) return accept_new(at, std::move(*r));
  outcome_.refusal = std::move(r).error();
  return end(outcome::kind::refused, written, current);
}

action operation::end(outcome::kind k, const ballot& written, register_value v) {
  phase_ = phase::ended;
  outcome_.what = k;
  outcome_.written = written;
  outcome_.value = std::move(v);
  return {.what = action::kind::end, .round = round_};
}

// Unavailable only if every accept of ours, wherever it was sent, is known never to be taken.
action operation::end_without() {
  const bool nothing = std::all_of(traces_.begin(), traces_.end(), [](const trace& t) { return t.stillborn(); });
  return end(nothing ? outcome::kind::unavailable : outcome::kind::unknown);
}

// ------------------------------------------------------------------- what is known

bool operation::quorum(replica_mask m) const {
  m &= terms_->replicas;
  return left_out(&mutations::quorum_of_one) ? m != 0 : terms_->is_quorum(m);
}

bool operation::read_quorum(replica_mask m) const {
  m &= terms_->replicas;
  return left_out(&mutations::quorum_of_one) ? m != 0 : terms_->is_read_quorum(m);
}

const operation::said& operation::newest(replica_mask among) const {
  const said* best = nullptr;
  for (const auto& s : said_)
    if (among & bit(s.who) && (!best || s.answer.accepted > best->answer.accepted)) best = &s;
  ASSERT(best);
  return *best;
}

replica_mask operation::holders(const ballot& b) const {
  replica_mask m = 0;
  for (const auto& s : said_)
    if (s.answer.accepted == b) m |= bit(s.who);
  return m;
}

// With the body of whoever brought it along.
register_value operation::value_of(const said& s) const {
  register_value v{s.answer.value, s.answer.body};
  for (const auto& other : said_)
    if (!v.body && other.answer.accepted == s.answer.accepted) v.body = other.answer.body;
  return v;
}

const operation::attempt* operation::mine(const attempt_id& a) const {
  for (const auto& m : attempts_)
    if (m.id == a) return &m;
  return nullptr;
}

operation::trace& operation::trace_of(const past_accept& p) {
  for (auto& t : traces_)
    if (t.what == p) return t;
  return traces_.emplace_back(trace{.what = p});
}

void operation::learn(std::size_t who, const answer& a) {
  seen_ = std::max({seen_, a.promised, a.accepted});
  if (attempts_.empty()) return;
  if (a.accepted && mine(a.attempt)) trace_of({a.attempt, a.accepted}).yes |= bit(who);
  for (const auto& p : a.recent)
    if (mine(p.attempt)) trace_of(p).yes |= bit(who);
  if (phase_ == phase::preparing) {
    // It has promised above our accepts, or accepted above them: what it did not take it never will.
    for (auto& t : traces_)
      if (remembers(a) && !(t.yes & bit(who)) && t.what.at < std::max(a.promised, a.accepted)) t.never |= bit(who);
    return;
  }
  for (auto& t : traces_)
    if (t.round == round_) count(t, who, a);
}

// All its accepts since our first one.
bool operation::remembers(const answer& a) const { return a.forgot < first_ || left_out(&mutations::forgotten_is_never); }

// An answer to the accept itself. A no may come from one that took it before, by another way, and forgot.
void operation::count(trace& t, std::size_t who, const answer& a) const {
  if (a.yes)
    t.yes |= bit(who);
  else if (remembers(a))
    t.never |= bit(who);
}

std::optional<action> operation::end_if_chosen() {
  // Under all terms since the first accept: who took it may have been no member yet, or one without its rows.
  auto stood = [&](replica_mask m) {
    return quorum(m) && std::all_of(former_.begin(), former_.end(), [m](const auto& t) { return t->is_quorum(m & t->replicas); });
  };
  for (const auto& t : traces_)
    if (stood(t.yes)) return end(outcome::kind::done, t.what.at, mine(t.what.attempt)->value);
  return std::nullopt;
}

// Of all that this operation sent: can nobody ever have seen it on a quorum? An answer that remembers everything since the first
// accept shows each ballot at which somebody else may have brought it along.
bool operation::never_chosen() const {
  if (std::all_of(traces_.begin(), traces_.end(), [](const trace& t) { return t.stillborn(); })) return true;
  replica_mask known = 0;
  for (const auto& s : said_)
    if (remembers(s.answer)) known |= bit(s.who);
  auto may = [&](replica_mask m) {
    auto in = [m](const auto& t) { return t->may_be_quorum(m & t->replicas); };
    return in(terms_) || std::any_of(former_.begin(), former_.end(), in);
  };
  if (may(~known)) return false;
  return std::none_of(traces_.begin(), traces_.end(), [&](const trace& t) { return may(t.yes | (~known & ~t.never)); });
}

// ------------------------------------------------------------------- what follows

action operation::decide() {
  switch (phase_) {
    case phase::reading: return decide_read();
    case phase::preparing: return decide_prepared();
    default: return decide_accepted();
  }
}

action operation::decide_read() {
  for (const auto& s : said_) {
    const replica_mask same = holders(s.answer.accepted);
    if (s.answer.accepted ? quorum(same) : read_quorum(same)) return end(outcome::kind::done, s.answer.accepted, value_of(s));
  }
  replica_mask from = yes_;
  bool forced = false;
  if (stuck_) {
    // What could not be written back (its home's clock is far ahead, and nobody else takes it) stands on no quorum if a read quorum holds other
    // values: then that one decides. So all are heard first. If all have answered, or nothing can ever be decided without those who hold it, it
    // is what stands; else whoever is silent may hold what was acknowledged since.
    if (terms_->replicas & ~(yes_ | no_ | silent_)) return {.round = round_};
    const replica_mask holding = holders(stuck_), others = yes_ & ~holding;
    if (read_quorum(others)) from = others;
    else forced = yes_ == terms_->replicas || !terms_->may_be_quorum(terms_->replicas & ~holding);
  }
  if (read_quorum(from)) {
    const said& s = newest(from);
    if (left_out(&mutations::no_write_back)) return end(outcome::kind::done, s.answer.accepted, value_of(s));
    const replica_mask have = holders(s.answer.accepted);
    at_ = s.answer.accepted;
    attempt_ = s.answer.attempt;
    sending_ = value_of(s);
    action a = send(phase::writing_back, request::accept, terms_->replicas & ~have);
    a.chosen = (forced && at_ == stuck_) || terms_->may_be_quorum(have);
    yes_ = have;
    return a;
  }
  if (read_quorum(terms_->replicas & ~silent_)) return {.round = round_};
  return retry(true);
}

action operation::decide_prepared() {
  if (auto e = end_if_chosen()) return *e;
  if (!quorum(yes_)) {
    if (quorum(terms_->replicas & ~(no_ | silent_))) return {.round = round_};
    return retry(!quorum(terms_->replicas & ~silent_));
  }
  const said& top = newest(yes_);
  if (!attempts_.empty() && !left_out(&mutations::retry_without_asking)) {
    if (mine(top.answer.attempt)) return establish(top);
    if (!never_chosen()) {
      if (terms_->replicas & ~(yes_ | no_ | silent_)) return {.round = round_};  // the others may know
      return end(outcome::kind::unknown);
    }
  }
  if (kind_ == kind::write) return accept_new(at_, wanted_);
  const ballot written = top.answer.accepted;
  if (stray_ && !written) return accept_new(at_, wanted_);
  const bool stands = !written || (quorum(holders(written)) && !raises_) || (kind_ == kind::swap && left_out(&mutations::judge_unestablished));
  if (!stands) return establish(top);
  if (kind_ == kind::read) return end(outcome::kind::done, written, value_of(top));
  return judge_and_accept(at_, written, value_of(top));
}

action operation::decide_accepted() {
  if (quorum(yes_)) {
    const bool own = mine(attempt_) != nullptr;
    if (kind_ == kind::swap && !own) return judge_and_accept(next(at_), at_, register_value(sending_));
    return end(outcome::kind::done, at_, sending_);
  }
  if (auto e = end_if_chosen()) return *e;
  if (quorum(terms_->replicas & ~(no_ | silent_))) return {.round = round_};
  const bool by_silence = !quorum(terms_->replicas & ~silent_);
  if (by_silence && phase_ == phase::writing_back) stuck_ = at_;
  return retry(by_silence);
}

}  // namespace grenier::table
