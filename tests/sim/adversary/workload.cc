#include "sim/adversary/workload.h"

#include <algorithm>

namespace grenier::sim {

namespace {

using session = scene::session;
using kind = operation::kind;
using out = operation::outcome;

out outcome_of(const error& e) {
  switch (e.code) {
    case errc::condition_failed:
    case errc::no_such_key: return out::refused;
    case errc::unavailable:
    case errc::no_space:
    case errc::access_denied:
    case errc::clock_skew: return out::failed;
    default: return out::unknown;
  }
}
template <class T>
out outcome_of(const result<T>& r) {
  return r ? out::done : outcome_of(r.error());
}

// ------------------------------------------------------------------------------------------------- reading

task<result<std::pair<bytes, std::string>>> fetch(session c, std::string bucket, std::string key, std::optional<std::string> range) {
  store::get_request q;
  q.bucket = std::move(bucket);
  q.key = std::move(key);
  q.range = std::move(range);
  CO_TRY(auto r, co_await c.n.store().get(c.call(), std::move(q)));
  bytes all;
  if (r.body)
    for (;;) {
      CO_TRY(auto piece, co_await r.body->next());
      if (!piece) break;
      all.append(*piece);
    }
  co_return std::pair(std::move(all), r.meta.etag);
}

task<void> get(scene& s, session c) {
  const std::string key = s.pick_key(c);
  std::optional<std::string> range;
  std::uint64_t first = 0;
  if (c.below(4) == 0) {
    first = c.below(5);
    range = "bytes=" + std::to_string(first) + "-" + std::to_string(first + c.below(40000));
  }
  auto o = s.begin(c, key, kind::read);
  auto r = co_await fetch(c, scene::bucket, key, range);
  if (!r) co_return s.end(o, r.error().code == errc::no_such_key ? out::done : out::failed);
  const std::uint64_t by_tag = s.value_by_etag(r->second);
  if (by_tag == UINT64_MAX) s.wrong("a read of " + key + " gave an ETag that no value has");
  else if (const bytes all = content_of(by_tag); range ? all.substr(first, r->first.size()) != r->first || r->first.empty() : all != r->first)
    s.wrong("a read of " + key + " gave bytes that were never written (by its ETag it is value " + std::to_string(by_tag) + ")");
  s.known(c.client)[key] = {by_tag, r->second};
  if (by_tag % 4) s.in_time(c, mono_time(nanoseconds(o->invoked)), scene::op_time, "a read of a small object");
  s.end(o, out::done, by_tag);
}

// Every key that a page covers is read by it.
task<void> list(scene& s, session c) {
  static constexpr std::string_view prefixes[] = {"", "", "hot-", "wide/", "wide/b/"};
  store::list_request q;
  q.bucket = scene::bucket;
  q.prefix = prefixes[c.below(std::size(prefixes))];
  q.entries_max = c.below(3) ? 1000 : 3 + c.below(5);
  if (c.below(4) == 0) q.delimiter = "/";
  for (int page = 0; page < 12; ++page) {
    std::map<std::string, scene::op> reads;
    for (const auto& k : s.all_keys())
      // What is below a common prefix was told with it.
      if (k.starts_with(q.prefix) && (q.start_after.empty() || (k > q.start_after && !(!q.delimiter.empty() && q.start_after.ends_with(q.delimiter) && k.starts_with(q.start_after)))))
        reads[k] = s.begin(c, k, kind::read);
    const mono_time began = c.rt.now();
    auto r = co_await c.n.store().list(c.call(), q);
    s.in_time(c, began, scene::op_time, "a list");
    if (!r) {
      for (auto& [k, o] : reads) s.end(o, out::failed);
      co_return;
    }
    std::string last = q.start_after;
    std::map<std::string, std::uint64_t> shown;
    for (const auto& i : r->items) {
      if (i.key <= last && !last.empty()) s.wrong("a list is not in order: " + i.key + " after " + last);
      if (!i.key.starts_with(q.prefix)) s.wrong("a list of '" + q.prefix + "' shows " + i.key);
      last = i.key;
      shown[i.key] = s.value_by_etag(i.meta.etag);
      if (shown[i.key] == UINT64_MAX) s.wrong("a list shows " + i.key + " with an ETag that no value has");
      if (!reads.contains(i.key)) s.wrong("a list shows " + i.key + ", which nobody wrote, or which an earlier page covered");
    }
    for (std::size_t i = 1; i < r->prefixes.size(); ++i)
      if (r->prefixes[i] <= r->prefixes[i - 1]) s.wrong("the common prefixes of a list are not in order");
    if (r->items.size() + r->prefixes.size() > q.entries_max) s.wrong("a page is longer than was asked for");
    for (auto& [k, o] : reads) {
      const bool under_prefix = std::ranges::any_of(r->prefixes, [&](const auto& p) { return k.starts_with(p); });
      if (under_prefix || (r->truncated && k > r->last)) s.end(o, out::failed);  // this page does not say
      else s.end(o, out::done, shown.contains(k) ? shown[k] : 0);
    }
    if (!r->truncated) co_return;
    if (r->last <= q.start_after && !q.start_after.empty()) co_return s.wrong("a page of a list goes nowhere");
    q.start_after = r->last;
  }
}

// ------------------------------------------------------------------------------------------------- writing

task<result<store::put_result>> send(session c, std::string bucket, std::string key, std::uint64_t value, store::conditions when) {
  store::put_request q;
  q.bucket = std::move(bucket);
  q.key = std::move(key);
  q.when = std::move(when);
  memory_body source(content_of(value));
  co_return co_await c.n.store().put(c.call(), std::move(q), source);
}

void wrote(scene& s, const session& c, const scene::op& o, const std::string& key, const result<store::put_result>& r) {
  if (r) {
    s.known(c.client)[key] = {o->value, r->etag};
    s.check_durable(c, o->value, o->invoked);
  }
  if (!has_blocks(o->value)) s.in_time(c, mono_time(nanoseconds(o->invoked)), scene::op_time, "a PUT of a small object");
  s.end(o, outcome_of(r));
}

task<void> put(scene& s, session c) {
  const std::string key = s.pick_key(c);
  auto o = s.begin(c, key, kind::write, s.new_value(c.below(3) == 0));
  wrote(s, c, o, key, co_await send(c, scene::bucket, key, o->value, {}));
}

// Bytes that were there before, or are there under another name.
task<void> put_again(scene& s, session c) {
  auto& known = s.known(c.client);
  if (known.empty()) co_return;
  auto at = std::next(known.begin(), static_cast<std::ptrdiff_t>(c.below(known.size())));
  if (at->second.first == 0 || at->second.first == UINT64_MAX) co_return;
  const std::string key = c.below(2) ? at->first : s.pick_key(c);
  auto o = s.begin(c, key, kind::write, at->second.first);
  wrote(s, c, o, key, co_await send(c, scene::bucket, key, o->value, {}));
}

task<void> put_if_absent(scene& s, session c) {
  const std::string key = s.pick_key(c);
  auto o = s.begin(c, key, kind::write_if_absent, s.new_value(c.below(4) == 0));
  wrote(s, c, o, key, co_await send(c, scene::bucket, key, o->value, {.if_match = {}, .if_none_match = "*", .if_modified_since_ms = {}, .if_unmodified_since_ms = {}}));
}

task<void> put_if_same(scene& s, session c) {
  const std::string key = s.pick_key(c);
  auto at = s.known(c.client).find(key);
  if (at == s.known(c.client).end() || at->second.first == 0) co_return;
  auto o = s.begin(c, key, kind::write_if_equal, s.new_value(c.below(4) == 0), at->second.first);
  store::conditions when;
  const bool two_tags = has_blocks(at->second.first);
  when.if_match = "\"" + at->second.second + "\"";
  auto r = co_await send(c, scene::bucket, key, o->value, std::move(when));
  // A value with blocks has two ETags, as one body and as parts: a refusal does not say that another value stood there.
  if (r.failed_with(errc::condition_failed) && two_tags) co_return s.end(o, out::failed);
  wrote(s, c, o, key, r);
}

task<void> remove(scene& s, session c) {
  std::set<std::string> keys;
  const std::size_t n = c.below(4) ? 1 : 4;
  for (std::size_t i = 0; i < n; ++i) keys.insert(s.pick_key(c));
  std::vector<scene::op> ops;
  for (const auto& k : keys) ops.push_back(s.begin(c, k, kind::write, 0));
  const mono_time began = c.rt.now();
  auto r = co_await c.n.store().remove_many(c.call(), scene::bucket, {keys.begin(), keys.end()});
  s.in_time(c, began, scene::op_time, "a DELETE");
  for (std::size_t i = 0; i < ops.size(); ++i) s.end(ops[i], !r ? outcome_of(r) : outcome_of((*r)[i]));
}

task<void> copy(scene& s, session c) {
  const std::string from = s.pick_key(c), to = s.pick_key(c);
  if (from == to) co_return;
  auto at = s.known(c.client).find(from);
  if (at == s.known(c.client).end() || at->second.first == 0 || at->second.first == UINT64_MAX) co_return;
  const std::uint64_t value = at->second.first;
  auto read = s.begin(c, from, kind::read);
  auto o = s.begin(c, to, kind::write, value);
  store::copy_request q;
  q.from_bucket = q.bucket = scene::bucket;
  q.from_key = from;
  q.key = to;
  q.from_when.if_match = "\"" + at->second.second + "\"";
  auto r = co_await c.n.store().copy(c.call(), std::move(q));
  s.end(read, r ? out::done : out::failed, value);
  if (r) s.check_durable(c, value, o->invoked);
  // The condition is of the source: nothing was written then.
  s.end(o, r ? out::done : r.error().code == errc::condition_failed || r.error().code == errc::no_such_key ? out::failed : outcome_of(r));
  if (r) s.known(c.client)[to] = {value, r->etag};
}

// ------------------------------------------------------------------------------------------------- multipart

task<void> multipart(scene& s, session c) {
  const std::string key = s.pick_key(c);
  const std::uint64_t value = s.new_value(true);
  const std::int64_t began = s.now_ns();  // its first blocks may be damaged before the last step begins
  store::put_request begin;
  begin.bucket = scene::bucket;
  begin.key = key;
  auto upload = co_await c.n.store().create_upload(c.call(), std::move(begin));
  if (!upload) co_return;
  std::vector<store::part_info> parts;
  std::uint32_t number = 0;
  for (auto& part : parts_of(value)) {
    ++number;
    for (std::size_t tries = 1 + c.below(2); tries > 0; --tries) {  // now and then a part twice
      store::upload_part_request q;
      q.bucket = scene::bucket;
      q.key = key;
      q.upload = *upload;
      q.number = number;
      memory_body source(tries > 1 ? content_of(s.new_value(true)) : part);
      auto r = co_await c.n.store().upload_part(c.call(), std::move(q), source);
      if (!r) co_return;
      if (tries == 1) parts.push_back({number, r->etag, part.size(), 0, {}});
    }
    if (c.below(12) == 0) co_return;  // left open
  }
  if (c.below(5) == 0) {
    (void)co_await c.n.store().abort_upload(c.call(), scene::bucket, key, *upload);
    co_return;
  }
  const bool conditional = c.below(3) == 0;
  auto o = s.begin(c, key, conditional ? kind::write_if_absent : kind::write, value);
  store::complete_request q;
  q.bucket = scene::bucket;
  q.key = key;
  q.upload = *upload;
  q.parts = std::move(parts);
  if (conditional) q.when.if_none_match = "*";
  auto r = co_await c.n.store().complete_upload(c.call(), std::move(q));
  if (r) {
    s.known(c.client)[key] = {value, r->etag};
    s.check_durable(c, value, began);
  }
  s.end(o, r || r.error().code == errc::condition_failed ? outcome_of(r) : r.error().code == errc::unavailable ? out::failed : out::unknown);
}

// ------------------------------------------------------------------------------------------------- a bucket that comes and goes

out of_bucket(const error& e) {
  switch (e.code) {
    case errc::no_such_bucket:
    case errc::bucket_not_empty:
    case errc::already_exists:
    case errc::bucket_already_owned_by_you: return out::refused;
    case errc::unavailable:
    case errc::no_space:
    case errc::clock_skew: return out::failed;
    default: return out::unknown;
  }
}

task<void> bucket(scene& s, session c) {
  const auto what = c.below(10);
  if (what < 2) {
    auto o = s.begin(c, "", kind::open);
    auto r = co_await c.n.store().create_bucket(c.call(), scene::door, "sim");
    // A bucket may have been made and its name not claimed, or both and the answer lost.
    s.end(o, r ? out::done : r.error().code == errc::already_exists || r.error().code == errc::bucket_already_owned_by_you ? out::refused : out::unknown);
  } else if (what < 4) {
    auto o = s.begin(c, "", kind::close);
    auto r = co_await c.n.store().delete_bucket(c.call(), scene::door);
    const bool sure = !r && (r.error().code == errc::no_such_bucket || r.error().code == errc::bucket_not_empty);
    s.end(o, r ? out::done : sure ? out::refused : out::unknown, !r && r.error().code == errc::bucket_not_empty);
  } else if (what < 6) {
    auto o = s.begin(c, "", kind::write, s.new_value(false));
    auto r = co_await send(c, scene::door, "key", o->value, {});
    s.end(o, r ? out::done : of_bucket(r.error()));
  } else if (what < 8) {
    auto o = s.begin(c, "", kind::write, 0);
    auto r = co_await c.n.store().remove(c.call(), scene::door, "key");
    s.end(o, r ? out::done : of_bucket(r.error()));
  } else {
    auto o = s.begin(c, "", kind::read);
    auto r = co_await fetch(c, scene::door, "key", {});
    if (r) s.end(o, out::done, s.value_by_etag(r->second));
    else s.end(o, r.error().code == errc::no_such_key ? out::done : r.error().code == errc::no_such_bucket ? out::refused : out::failed);
  }
}

constexpr workload table[] = {
    {"get", 34, "GET, whole or a range", &get},
    {"put", 22, "PUT, every third in blocks", &put},
    {"delete", 8, "DELETE of one or several keys", &remove},
    {"put-again", 5, "PUT of bytes that were there before", &put_again},
    {"create", 7, "PUT If-None-Match: *", &put_if_absent},
    {"replace", 9, "PUT If-Match", &put_if_same},
    {"copy", 6, "COPY", &copy},
    {"list", 5, "LIST, paged, with prefixes and delimiters", &list},
    {"multipart", 6, "multipart uploads: created, parts, completed (also conditionally), aborted, left open", &multipart},
    {"bucket", 8, "buckets made and deleted, with one key in them", &bucket},
};

}  // namespace

std::span<const workload> all_workloads() { return table; }

const workload* draw_workload(const wishes& w, std::mt19937_64& dice) {
  std::uint64_t sum = 0;
  auto wanted = [&](const workload& x) { return !w.workloads || w.workloads->contains(std::string(x.name)); };
  for (const auto& x : table) sum += wanted(x) ? x.weight : 0;
  if (sum == 0) return nullptr;
  std::uint64_t at = dice() % sum;
  for (const auto& x : table)
    if (wanted(x)) {
      if (at < x.weight) return &x;
      at -= x.weight;
    }
  return nullptr;
}

}  // namespace grenier::sim
