#include "gallery/objects.h"

#include <algorithm>
#include <cstring>

namespace grenier::gallery {

namespace {
constexpr std::size_t at_once = 8;
constexpr std::size_t removed_at_once = 1000;
}  // namespace

task<result<std::size_t>> bytes_body::read(std::span<char> to) {
  std::size_t n = std::min(to.size(), bytes_->size() - at_);
  std::memcpy(to.data(), bytes_->data() + at_, n);
  at_ += n;
  co_return n;
}

task<result<std::optional<stored_object>>> objects::read(std::string key) {
  store::get_request g;
  g.bucket = bucket_;
  g.key = std::move(key);
  auto r = co_await store_.get(as_worker(), std::move(g));
  if (r.failed_with(errc::no_such_key)) co_return std::optional<stored_object>();
  if (!r) co_return fail(r.error());
  if (r->meta.size > object_size_max) co_return fail(errc::too_large, "an object of a gallery has at most 1 MiB");
  stored_object o;
  o.etag = r->meta.etag;
  o.body.reserve(r->length);
  while (r->body) {
    CO_TRY(auto piece, co_await r->body->next());
    if (!piece) break;
    o.body += *piece;
  }
  co_return std::optional(std::move(o));
}

task<result<std::vector<std::optional<stored_object>>>> objects::read_all(std::vector<std::string> keys) {
  std::vector<std::optional<stored_object>> out(keys.size());
  fan_out<result<std::optional<stored_object>>> answers(rt_, group_);
  std::optional<error> failed;  // what is under way is waited for all the same: it is part of this object
  for (std::size_t next = 0;;) {
    for (; !failed && next < keys.size() && answers.outstanding() < at_once; ++next) answers.start(next, read(keys[next]));
    auto a = co_await answers.next();
    if (!a) break;
    if (a->second) out[a->first] = std::move(*a->second);
    else failed = a->second.error();
  }
  if (failed) co_return fail(std::move(*failed));
  co_return out;
}

task<result<std::string>> objects::put(object o, std::optional<std::string> over) {
  store::put_request p;
  p.bucket = bucket_;
  p.key = std::move(o.key);
  p.headers.content_type = std::move(o.content_type);
  p.headers.cache_control = o.immutable ? "public, max-age=31536000, immutable" : "no-cache";
  if (o.waits) p.headers.metadata.push_back({std::string(waits_mark), "1"});
  if (over && over->empty()) p.when.if_none_match = "*";
  else if (over) p.when.if_match = "\"" + *over + "\"";
  bytes_body body(share(std::move(o.body)));
  auto r = co_await store_.put(as_worker(), std::move(p), body);
  if (r.failed_with(errc::no_such_key) && over) co_return fail(errc::condition_failed, "the object is gone");
  if (!r) co_return fail(r.error());
  co_return std::move(r->etag);
}

task<result<void>> objects::put_all(std::vector<object> all) {
  fan_out<result<std::string>> answers(rt_, group_);
  std::optional<error> failed;
  for (std::size_t next = 0;;) {
    for (; !failed && next < all.size() && answers.outstanding() < at_once; ++next) answers.start(next, put(std::move(all[next])));
    auto a = co_await answers.next();
    if (!a) break;
    if (!a->second) failed = a->second.error();
  }
  if (failed) co_return fail(std::move(*failed));
  co_return result<void>();
}

task<result<void>> objects::remove_all(std::vector<std::string> keys) {
  for (std::size_t at = 0; at < keys.size(); at += removed_at_once) {
    std::vector<std::string> some(keys.begin() + static_cast<std::ptrdiff_t>(at),
                                  keys.begin() + static_cast<std::ptrdiff_t>(std::min(keys.size(), at + removed_at_once)));
    CO_TRY(auto results, co_await store_.remove_many(as_worker(), bucket_, std::move(some)));
    for (auto& r : results)
      if (!r && !r.failed_with(errc::no_such_key)) co_return fail(r.error());
  }
  co_return result<void>();
}

task<result<std::vector<std::string>>> objects::list(std::string prefix, std::string after, std::size_t max) {
  store::list_request q;
  q.bucket = bucket_;
  q.prefix = std::move(prefix);
  q.start_after = std::move(after);
  q.entries_max = std::min<std::size_t>(max, 1000);
  CO_TRY(auto page, co_await store_.list(as_worker(), std::move(q)));
  std::vector<std::string> keys;
  for (auto& i : page.items) keys.push_back(std::move(i.key));
  co_return keys;
}

task<result<void>> objects::fetch_wanted(shelf& s) {
  auto keys = s.take_wanted();
  CO_TRY(auto all, co_await read_all(keys));
  for (std::size_t i = 0; i < keys.size(); ++i) {
    std::optional<bytes> body;
    if (all[i]) body = std::move(all[i]->body);
    s.put(std::move(keys[i]), std::move(body));
  }
  co_return result<void>();
}

}  // namespace grenier::gallery
