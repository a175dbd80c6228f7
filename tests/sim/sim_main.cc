// grenier-sim: whole clusters in virtual time under faults, one seed after the other, each twice; every key's history is checked for
// linearizability, every acknowledged object is read back whole from every home at the end, and homes must agree.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sim/cluster.h"

namespace grenier::sim {

namespace {

struct totals {
  std::uint64_t operations = 0, answered = 0, faults = 0, violations = 0, undecided = 0;
};

bool verbose = false;

// Content that can be told from its number, small ones in the row, every fourth in several blocks.
bytes content_of(std::uint64_t value) {
  bytes b = "value " + std::to_string(value) + "\n";
  if (value % 4 == 0)
    for (std::uint64_t i = 0; b.size() < 150'000; ++i) b += std::to_string(xxh3_64({}, value << 20 | i)) + "\n";
  return b;
}
std::uint64_t value_of(const bytes& b) {
  if (!b.starts_with("value ")) return UINT64_MAX;
  std::uint64_t v = std::strtoull(b.c_str() + 6, nullptr, 10);
  return content_of(v) == b ? v : UINT64_MAX;
}

class run {
 public:
  explicit run(std::uint64_t seed) : cluster_(seed), world_(cluster_.world()) {
    if (verbose)
      cluster_.on_log = [this](std::size_t i, log_level, const std::string& s) {
        std::fprintf(stderr, "%10.3f home %zu: %s\n", static_cast<double>(world_.now().time_since_epoch().count()) / 1e6, i, s.c_str());
      };
  }

  std::string play(totals& t) {
    std::size_t homes = 3 + world_.below(2);
    sim::line l{.delay = milliseconds(1 + world_.below(35)), .jitter = milliseconds(world_.below(5))};
    if (world_.below(3) == 0) l.loss = 0.01;
    world_.set_all_lines(l);
    for (std::size_t i = 0; i < homes; ++i) cluster_.add({.zone = "zone-" + std::to_string(i % 4)});
    if (!cluster_.form()) return "the cluster did not form: " + failures();
    if (auto r = cluster_.make_bucket(0, "sim-bucket"); !r) return "no bucket: " + r.error().to_string();
    world_.run_for(1s);
    started_ = world_.now();
    for (int c = 0; c < clients; ++c) step(c);
    mono_time end = world_.now() + seconds(20 + world_.below(20));
    world_.call_at(world_.now() + 500ms, [this] { fault(); });
    ending_ = end;
    world_.run_for(end - world_.now());
    std::string bad = quiesce();
    for (auto& [key, history] : histories_) {
      std::vector<operation> plain;
      for (auto& o : history) {
        ++t.operations;
        t.answered += o->result == operation::outcome::done || o->result == operation::outcome::refused;
        plain.push_back(*o);
      }
      bool gave_up = false;
      std::string why = check_linearizable(plain, gave_up);
      t.undecided += gave_up;
      if (!why.empty() && bad.empty()) bad = "key " + key + " is not linearizable:\n" + why;
    }
    t.faults += faults_;
    return bad;
  }
  std::uint64_t trace() const { return cluster_trace_ ? cluster_trace_ : const_cast<run*>(this)->world_.trace(); }

 private:
  static constexpr int clients = 5;
  static constexpr int keys = 4;
  struct client_state {
    std::shared_ptr<operation> current;
    std::size_t home = 0;
    std::map<std::string, std::pair<std::uint64_t, std::string>> known;  // key -> value, etag
  };

  std::string failures() {
    std::string s;
    for (std::size_t i = 0; i < cluster_.size(); ++i) s += "home " + std::to_string(i) + (cluster_.ready(i) ? " ready; " : " not ready; ");
    return s;
  }

  std::int64_t now() const { return world_.now().time_since_epoch().count(); }

  // ------------------------------------------------------------------------------------------- clients
  void step(int c) {
    if (world_.now() >= ending_ && ending_ != mono_time{}) return;
    std::vector<std::size_t> on;
    for (std::size_t i = 0; i < cluster_.size(); ++i)
      if (cluster_.ready(i)) on.push_back(i);
    if (on.empty()) return world_.call_at(world_.now() + 100ms, [this, c] { step(c); });
    client_state& s = clients_[c];
    s.home = on[world_.below(on.size())];
    std::string key = "key-" + std::to_string(world_.below(keys));
    auto o = std::make_shared<operation>();
    o->client = c;
    o->invoked = now();
    std::uint64_t dice = world_.below(100);
    store::conditions when;
    if (dice < 40) {
      o->what = operation::kind::read;
    } else if (dice < 70) {
      o->what = operation::kind::write;
      o->value = ++next_value_;
    } else if (dice < 78) {
      o->what = operation::kind::write;  // a deletion
    } else if (dice < 88 || !s.known.contains(key)) {
      o->what = operation::kind::write_if_absent;
      o->value = ++next_value_;
      when.if_none_match = "*";
    } else {
      o->what = operation::kind::write_if_equal;
      o->value = ++next_value_;
      o->expected = s.known[key].first;
      when.if_match = "\"" + s.known[key].second + "\"";
    }
    s.current = o;
    histories_[key].push_back(o);
    machine& m = cluster_.at(s.home);
    m.root().spawn("client", perform(*this, c, cluster_.node(s.home), m.rt(), key, o, when));
  }

  static task<void> perform(run& self, int c, storaged::node& n, runtime& rt, std::string key, std::shared_ptr<operation> o, store::conditions when) {
    nanoseconds at_most = 8s;
    using out = operation::outcome;
    if (o->what == operation::kind::read) {
      auto r = co_await get_object(n, rt, "sim-bucket", key, at_most);
      if (r) {
        o->seen = value_of(r->first);
        o->result = out::done;
        if (o->seen == UINT64_MAX) self.corrupt_ = "a read of " + key + " gave bytes that were never written";
        self.clients_[c].known[key] = {o->seen, r->second};
      } else {
        o->result = r.error().code == errc::no_such_key ? out::done : out::failed;
      }
    } else if (o->what == operation::kind::write && o->value == 0) {
      auto r = co_await n.store().remove({{std::nullopt, true}, rt.now() + at_most}, "sim-bucket", key);
      o->result = outcome_of(r ? std::nullopt : std::optional(r.error()));
    } else {
      auto r = co_await put_object(n, rt, "sim-bucket", key, content_of(o->value), when, at_most);
      o->result = outcome_of(r ? std::nullopt : std::optional(r.error()));
      if (r) self.clients_[c].known[key] = {o->value, r->etag};
    }
    o->returned = self.now();
    self.finished(c, o);
  }

  static operation::outcome outcome_of(const std::optional<error>& e) {
    using out = operation::outcome;
    if (!e) return out::done;
    switch (e->code) {
      case errc::condition_failed:
      case errc::no_such_key: return out::refused;
      case errc::unavailable:
      case errc::no_space:
      case errc::access_denied:
      case errc::clock_skew: return out::failed;
      default: return out::unknown;
    }
  }

  void finished(int c, const std::shared_ptr<operation>& o) {
    if (clients_[c].current != o) return;
    clients_[c].current.reset();
    nanoseconds pause = milliseconds(world_.below(60));
    world_.call_at(world_.now() + pause, [this, c] { step(c); });
  }

  // ------------------------------------------------------------------------------------------- faults
  void crash(std::size_t i) {
    cluster_.crash(i, world_.below(2) == 0);
    for (int c = 0; c < clients; ++c)
      if (clients_[c].current && clients_[c].home == i) {
        auto o = clients_[c].current;
        o->result = operation::outcome::unknown;
        o->returned = now();
        finished(c, o);
      }
    world_.call_at(world_.now() + milliseconds(100 + world_.below(6000)), [this, i] {
      if (!cluster_.at(i).on()) cluster_.start(i);
    });
  }

  void fault() {
    if (world_.now() >= ending_) return;
    ++faults_;
    std::size_t i = world_.below(cluster_.size()), j = world_.below(cluster_.size());
    nanoseconds lasts = milliseconds(200 + world_.below(5000));
    switch (world_.below(7)) {
      case 0:
      case 1:
        if (cluster_.at(i).on()) crash(i);
        break;
      case 2:
        world_.partition({i});
        world_.call_at(world_.now() + lasts, [this] { world_.heal(); });
        break;
      case 3:  // one way
        if (i != j) world_.line(i, j).up = false;
        world_.call_at(world_.now() + lasts, [this] { world_.heal(); });
        break;
      case 4:
        cluster_.at(i).clock().skew = milliseconds(static_cast<std::int64_t>(world_.below(40000)) - 20000);
        break;
      case 5:
        world_.line(i, j).delay = milliseconds(world_.below(400));
        break;
      case 6:
        cluster_.at(i).kv_disk.behaviour.commit_delay = milliseconds(world_.below(40));
        break;
    }
    world_.call_at(world_.now() + milliseconds(100 + world_.below(4000)), [this] { fault(); });
  }

  // ------------------------------------------------------------------------------------------- the end
  std::string quiesce() {
    world_.heal();
    for (std::size_t i = 0; i < cluster_.size(); ++i) {
      cluster_.at(i).clock().skew = milliseconds(0);
      cluster_.at(i).kv_disk.behaviour.commit_delay = 300us;
      for (std::size_t j = 0; j < cluster_.size(); ++j) world_.line(i, j).delay = 5ms;
    }
    world_.run_for(20s);
    for (std::size_t i = 0; i < cluster_.size(); ++i) {
      if (!cluster_.at(i).on()) cluster_.start(i);
      if (!cluster_.wait_ready(i, 120s)) return "home " + std::to_string(i) + " does not come back";
    }
    world_.run_for(30s);
    cluster_trace_ = world_.trace();
    if (!corrupt_.empty()) return corrupt_;
    for (int k = 0; k < keys; ++k) {
      std::string key = "key-" + std::to_string(k);
      for (std::size_t i = 0; i < cluster_.size(); ++i) {
        auto o = std::make_shared<operation>();
        o->client = 100 + static_cast<int>(i);
        o->invoked = now();
        auto r = cluster_.get(i, "sim-bucket", key);
        o->returned = now();
        if (r) {
          o->seen = value_of(*r);
          if (o->seen == UINT64_MAX) return "home " + std::to_string(i) + " gives wrong bytes for " + key;
        } else if (r.error().code != errc::no_such_key) {
          return "home " + std::to_string(i) + " cannot read " + key + " after everything healed: " + r.error().to_string();
        }
        o->result = operation::outcome::done;
        histories_[key].push_back(o);
      }
    }
    return {};
  }

  neighbourhood cluster_;
  sim::world& world_;
  std::array<client_state, clients> clients_;
  std::map<std::string, std::vector<std::shared_ptr<operation>>> histories_;
  std::uint64_t next_value_ = 0, faults_ = 0, cluster_trace_ = 0;
  mono_time started_{}, ending_{};
  std::string corrupt_;
};

int main_of(int argc, char** argv) {
  std::uint64_t seeds = 20, first = 1;
  bool once = false;
  for (int i = 1; i < argc; ++i) {
    auto value = [&]() -> std::uint64_t {
      if (i + 1 >= argc) {
        std::fprintf(stderr, "grenier-sim: %s needs a number\n", argv[i]);
        std::exit(2);
      }
      return std::strtoull(argv[++i], nullptr, 10);
    };
    if (!std::strcmp(argv[i], "--seeds")) {
      seeds = value();
    } else if (!std::strcmp(argv[i], "--seed")) {
      first = value();
    } else if (!std::strcmp(argv[i], "--once")) {
      once = true;
    } else if (!std::strcmp(argv[i], "--verbose")) {
      verbose = true;
    } else {
      std::fprintf(stderr, "usage: grenier-sim [--seeds N] [--seed S] [--once] [--verbose]\n");
      return !std::strcmp(argv[i], "--help") ? 0 : 2;
    }
  }
  totals t;
  for (std::uint64_t s = first; s < first + seeds; ++s) {
    totals mine;
    std::uint64_t trace = 0;
    std::string bad;
    {
      run r(s);
      bad = r.play(mine);
      trace = r.trace();
    }
    if (bad.empty() && !once) {
      totals again;
      run r(s);
      (void)r.play(again);
      if (r.trace() != trace) bad = "two runs of one seed differ: something is not deterministic";
    }
    t.operations += mine.operations;
    t.answered += mine.answered;
    t.faults += mine.faults;
    t.undecided += mine.undecided;
    if (!bad.empty()) {
      ++t.violations;
      std::printf("seed %llu: %s\nreplay it with: scripts/sim --seeds 1 --seed %llu\n", static_cast<unsigned long long>(s), bad.c_str(),
                  static_cast<unsigned long long>(s));
      std::fflush(stdout);
    }
  }
  if (t.undecided) std::printf("%llu histories were too long to decide\n", static_cast<unsigned long long>(t.undecided));
  std::printf("%llu operations were answered\n", static_cast<unsigned long long>(t.answered));
  std::printf("%llu seeds, %llu operations, %llu faults, %llu violations\n", static_cast<unsigned long long>(seeds),
              static_cast<unsigned long long>(t.operations), static_cast<unsigned long long>(t.faults), static_cast<unsigned long long>(t.violations));
  return t.violations ? 1 : 0;
}

}  // namespace

}  // namespace grenier::sim

int main(int argc, char** argv) {
  grenier::crypto::init();
  return grenier::sim::main_of(argc, argv);
}
