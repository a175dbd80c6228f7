#include "load.h"

#include <sys/random.h>
#include <sys/resource.h>

#include <algorithm>
#include <set>
#include <thread>

#include "body.h"
#include "process.h"

namespace grenier::bench {

namespace {

constexpr std::size_t page = 1000;
constexpr std::size_t reasons_max = 20;

double own_cpu_seconds() {
  rusage u{};
  ::getrusage(RUSAGE_SELF, &u);
  auto s = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return s(u.ru_utime) + s(u.ru_stime);
}

query list_query(const std::string& prefix, const std::string& token, std::size_t names) {
  query q{{"list-type", "2"}, {"max-keys", std::to_string(names)}, {"prefix", prefix}};
  if (!token.empty()) q["continuation-token"] = token;
  return q;
}

struct listed_page {
  std::vector<std::string> names;
  std::string next;  // none: the last page
};
result<listed_page> read_page(bytes_view xml) {
  listed_page p;
  std::size_t at = 0;
  while (auto name = next_element(xml, "Key", at)) p.names.push_back(std::move(*name));
  at = 0;
  auto cut = next_element(xml, "IsTruncated", at);
  if (!cut) return fail(errc::protocol, "the answer to a list is none");
  at = 0;
  if (*cut == "true") p.next = next_element(xml, "NextContinuationToken", at).value_or("");
  if (*cut == "true" && p.next.empty()) return fail(errc::protocol, "a list that goes on does not say where");
  return p;
}

}  // namespace

struct load::tally {
  std::vector<std::uint32_t> latencies_us;
  std::uint64_t bytes = 0, listed = 0, errors = 0;
  std::map<std::string, std::uint64_t> why;
  std::vector<std::string> put;  // names that are stored now
  void success(const connection& c, std::uint64_t body_bytes) {
    latencies_us.push_back(static_cast<std::uint32_t>(std::min<std::int64_t>((steady_ns() - c.sent_at()) / 1000, UINT32_MAX)));
    bytes += body_bytes;
  }
  void failure(const std::string& what) {
    ++errors;
    if (why.size() < reasons_max || why.contains(what)) ++why[what];
    else ++why["other errors"];
  }
};

struct load::client {
  client(const load& l, std::uint32_t i, std::uint64_t s) : index(i), seed(s) {
    for (const auto& e : l.options_.endpoints) connections.push_back(std::make_unique<connection>(e, l.options_));
    next = i;
  }
  // The endpoints in turn; clients begin at different ones.
  connection& turn() { return *connections[next++ % connections.size()]; }
  std::uint32_t index;
  std::uint64_t seed, state = 0;
  std::vector<std::unique_ptr<connection>> connections;
  std::size_t next = 0;
  std::int64_t until = 0;
  bytes content, body;
  bool time_left() const { return steady_ns() < until; }
  std::uint64_t random() { return xxh3_64(bytes_view(reinterpret_cast<const char*>(&++state), sizeof state), seed); }
};

// An answer that says yes. A server that is not there is not asked again at once: its error counts, not how often a second it is met.
bool load::succeeded(const result<answer>& a, const client& c, tally& t) {
  if (a && a->ok()) return true;
  t.failure(a ? a->what(c.body) : a.error().detail);
  if (!a) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  return false;
}

load::load(const options& o, std::uint64_t size_bytes, std::uint32_t concurrency)
    : options_(o), size_bytes_(size_bytes), concurrency_(concurrency), keys_(keys_for(o, size_bytes, concurrency)),
      prefix_(o.prefix + std::to_string(size_bytes) + "-bytes/" + std::to_string(concurrency) + "-clients/"), there_(concurrency) {}

std::string load::name_of(std::uint64_t number) const {
  std::string digits = std::to_string(number);
  return prefix_ + std::string(9 - std::min<std::size_t>(9, digits.size()), '0') + digits;
}

result<void> load::prepare(const options& o) {
  bytes body;
  for (const auto& e : o.endpoints) {
    connection c(e, o);
    TRY(auto a, c.request("GET", "/" + o.bucket, list_query(o.prefix, "", 1), {}, body));
    if (a.status == 404) {
      TRY(a, c.request("PUT", "/" + o.bucket, {}, {}, body));
      if (!a.ok() && a.status != 409) return fail(errc::access_denied, e.url + " does not make the bucket " + o.bucket + ": " + a.what(body));
      TRY(a, c.request("GET", "/" + o.bucket, list_query(o.prefix, "", 1), {}, body));
    }
    if (!a.ok()) return fail(errc::access_denied, e.url + " does not list the bucket " + o.bucket + ": " + a.what(body));
  }
  return {};
}

result<void> load::find_keys() {
  connection c(options_.endpoints.front(), options_);
  bytes body;
  std::string token;
  std::uint64_t n = 0;
  for (auto& t : there_) t.clear();
  do {
    TRY(auto a, c.request("GET", "/" + options_.bucket, list_query(prefix_, token, page), {}, body));
    if (!a.ok()) return fail(errc::unavailable, "listing what is there: " + a.what(body));
    TRY(auto p, read_page(body));
    for (auto& name : p.names) there_[n++ % concurrency_].push_back(std::move(name));
    token = p.next;
  } while (!token.empty());
  return {};
}

void load::each_client(std::vector<tally>& tallies, const std::function<void(client&, tally&)>& work, std::uint64_t seed) {
  tallies.resize(concurrency_);
  std::vector<std::thread> threads;
  const auto until = steady_ns() + static_cast<std::int64_t>(options_.seconds * 1e9);
  for (std::uint32_t i = 0; i < concurrency_; ++i)
    threads.emplace_back([&, i] {
      client c(*this, i, seed + i);
      c.until = until;
      work(c, tallies[i]);
    });
  for (auto& t : threads) t.join();
}

result<void> load::prepare_for(operation op) {
  if (op == operation::put) return {};
  TRY_VOID(find_keys());
  if (std::ranges::any_of(there_, [](const auto& t) { return !t.empty(); })) return {};
  std::vector<tally> tallies;
  each_client(tallies, [this](client& c, tally& t) {
    for (std::uint64_t n = c.index; n < keys_; n += concurrency_) {
      std::string key = name_of(n);
      fill_body(c.content, size_bytes_, key, c.random());
      auto a = c.turn().request("PUT", path_of(key), {}, c.content, c.body);
      if (succeeded(a, c, t)) t.put.push_back(std::move(key));
    }
  }, ++rounds_ << 32);
  for (std::uint32_t i = 0; i < concurrency_; ++i) {
    if (tallies[i].errors) return fail(errc::unavailable, "storing the objects to work on: " + tallies[i].why.begin()->first);
    there_[i] = std::move(tallies[i].put);
  }
  return {};
}

measurement load::run(operation op) {
  std::uint64_t seed = 0;
  if (::getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = static_cast<std::uint64_t>(steady_ns());
  std::vector<tally> tallies;
  process_watch watch(options_.pids);
  const double cpu_before = own_cpu_seconds();
  const auto begun = steady_ns();
  each_client(tallies, [this, op](client& c, tally& t) {
    switch (op) {
      case operation::put: return put(c, t);
      case operation::get: return get(c, t);
      case operation::list: return list(c, t);
      case operation::remove: return remove(c, t);
    }
  }, seed);
  measurement m{.op = op, .size_bytes = size_bytes_, .concurrency = concurrency_};
  m.seconds = static_cast<double>(steady_ns() - begun) / 1e9;
  m.client_cpu_seconds = own_cpu_seconds() - cpu_before;
  m.processes = watch.finish();
  std::vector<std::uint32_t> all;
  for (auto& t : tallies) {
    all.insert(all.end(), t.latencies_us.begin(), t.latencies_us.end());
    m.bytes += t.bytes;
    m.listed += t.listed;
    m.errors += t.errors;
    for (const auto& [what, n] : t.why) m.why[what] += n;
  }
  m.requests = all.size();
  m.p50_us = percentile(all, 0.5);
  m.p99_us = percentile(all, 0.99);
  m.max_us = percentile(all, 1);
  return m;
}

void load::put(client& c, tally& t) {
  for (std::uint64_t n = c.index; c.time_left(); n = n + concurrency_ < keys_ ? n + concurrency_ : c.index) {
    const std::string key = name_of(n);
    fill_body(c.content, size_bytes_, key, c.random());
    auto& to = c.turn();
    auto a = to.request("PUT", path_of(key), {}, c.content, c.body);
    if (succeeded(a, c, t)) t.success(to, size_bytes_);
  }
}

void load::get(client& c, tally& t) {
  const auto& mine = there_[c.index];
  while (!mine.empty() && c.time_left()) {
    const std::string& key = mine[c.random() % mine.size()];
    auto& to = c.turn();
    auto a = to.request("GET", path_of(key), {}, {}, c.body);
    if (!succeeded(a, c, t)) continue;
    auto before = t.latencies_us.size();
    t.success(to, c.body.size());
    if (c.body.size() == size_bytes_ && is_body_of(c.body, key)) continue;
    t.latencies_us.resize(before);
    t.bytes -= c.body.size();
    t.failure(c.body.size() == size_bytes_ ? "A BODY IS NOT WHAT WAS STORED" : "a body of another length");
  }
}

// Page after page, from the beginning again at the end: every walk must show every name once, in order.
void load::list(client& c, tally& t) {
  std::uint64_t expected = 0, seen = 0;
  for (const auto& names : there_) expected += names.size();
  std::string token, last;
  while (c.time_left()) {
    auto& to = c.turn();
    auto a = to.request("GET", "/" + options_.bucket, list_query(prefix_, token, page), {}, c.body);
    if (!succeeded(a, c, t)) continue;
    t.success(to, c.body.size());
    auto p = read_page(c.body);
    if (!p) {
      t.latencies_us.pop_back();
      t.failure(p.error().detail);
      continue;
    }
    for (auto& name : p->names) {
      if (name <= last) t.failure("A LIST IS OUT OF ORDER");
      last = std::move(name);
    }
    seen += p->names.size();
    t.listed += p->names.size();
    token = p->next;
    if (!token.empty()) continue;
    if (seen != expected) t.failure("A LIST SHOWED " + std::to_string(seen) + " OF " + std::to_string(expected) + " NAMES");
    seen = 0;
    last.clear();
  }
}

void load::remove(client& c, tally& t) {
  auto& mine = there_[c.index];
  while (!mine.empty() && c.time_left()) {
    auto& to = c.turn();
    auto a = to.request("DELETE", path_of(mine.back()), {}, {}, c.body);
    if (succeeded(a, c, t)) t.success(to, 0);
    mine.pop_back();
  }
}

}  // namespace grenier::bench
