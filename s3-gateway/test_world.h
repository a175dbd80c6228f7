// test_world.h: a gateway over a map, and requests that are signed and answered in memory.
#pragma once

#include <doctest/doctest.h>

#include "run.h"

namespace grenier::s3::test {

struct fake_object {
  bytes body;
  store::object_meta meta;
};
struct fake_upload {
  std::string key;
  store::put_request made;
  std::map<std::uint32_t, std::pair<store::part_info, bytes>> parts;
};
struct fake_bucket {
  store::bucket row;
  std::map<std::string, fake_object> objects;
  std::map<upload_id, fake_upload> uploads;
};

class fake_body final : public store::body_reader {
 public:
  explicit fake_body(bytes b, std::optional<errc> broken = {}) : left_(std::move(b)), broken_(broken) {}
  task<result<shared_bytes>> next() override {
    if (broken_) co_return fail(*broken_, "a block cannot be had now");
    if (left_.empty()) co_return shared_bytes();
    bytes piece = left_.substr(0, 1000);
    left_.erase(0, piece.size());
    co_return share(std::move(piece));
  }

 private:
  bytes left_;
  std::optional<errc> broken_;
};

// Does what store.h says, as far as the gateway can see it.
class fake_store final : public backend {
 public:
  std::map<std::string, store::access_key> keys;
  std::map<std::string, fake_bucket> buckets;
  std::uint64_t now_ms = 1'700'000'000'123;
  std::optional<errc> broken;      // every change fails with it
  std::optional<errc> bodyless;    // a body fails with it
  bool dark = false;               // no quorum is up
  store::put_request last_put;

  fake_bucket* find(const std::string& b) { return buckets.contains(b) ? &buckets[b] : nullptr; }

  task<result<store::access_key>> find_key(std::string id, mono_time) override {
    if (!keys.contains(id)) co_return fail(errc::not_found);
    co_return keys[id];
  }
  task<result<store::bucket>> find_bucket(std::string name, mono_time) override {
    if (!find(name)) co_return fail(errc::no_such_bucket);
    co_return find(name)->row;
  }
  task<result<store::bucket>> create_bucket(store::call c, std::string name, std::string region) override {
    if (auto* b = find(name)) co_return fail(b->row.owner_id == c.who.key->owner_id ? errc::bucket_already_owned_by_you : errc::already_exists);
    store::bucket row;
    row.name = name;
    row.region = region;
    row.owner_id = c.who.key->owner_id;
    row.owner_name = c.who.key->display_name;
    row.created_ms = now_ms;
    row.allowed[c.who.key->id] = {true, true, true};
    buckets[name].row = row;
    co_return row;
  }
  task<result<void>> delete_bucket(store::call, std::string name) override {
    if (!find(name)->objects.empty()) co_return fail(errc::bucket_not_empty);
    buckets.erase(name);
    co_return result<void>();
  }
  std::vector<store::bucket> list_buckets(const store::principal& p) const override {
    std::vector<store::bucket> out;
    for (const auto& [n, b] : buckets)
      if (b.row.owner_id == p.key->owner_id) out.push_back(b.row);
    return out;
  }
  task<result<store::bucket>> change_bucket(store::call, std::string name, std::function<result<void>(store::bucket&)> edit) override {
    CO_TRY_VOID(edit(find(name)->row));
    co_return find(name)->row;
  }

  static task<result<bytes>> read_all(store::body_source& s) {
    bytes out;
    char b[4000];
    for (;;) {
      CO_TRY(std::size_t n, co_await s.read(b));
      if (n == 0) co_return out;
      out.append(b, n);
    }
  }
  static result<std::vector<store::checksum>> check(const bytes& body, std::optional<bytes> md5, std::optional<bytes> sha256,
                                                    std::vector<store::checksum> sums, std::vector<store::checksum> trailers) {
    if (md5 && *md5 != crypto::digest(crypto::hash_kind::md5, body)) return fail(errc::bad_digest);
    if (sha256 && *sha256 != crypto::digest(crypto::hash_kind::sha256, body)) return fail(errc::bad_digest);
    for (auto& t : trailers) sums.push_back(t);
    for (auto& s : sums)
      if (s.value != crypto::digest(s.kind, body)) return fail(errc::checksum_mismatch);
    return sums;
  }
  static result<void> judge(const store::conditions& c, const fake_object* o) {
    auto matches = [&](const std::string& v) { return o && (v == "*" || v == quoted_etag(o->meta.etag)); };
    if (c.if_match && !o) return fail(errc::no_such_key);
    if (c.if_match && !matches(*c.if_match)) return fail(errc::condition_failed);
    if (c.if_none_match && matches(*c.if_none_match)) return fail(errc::condition_failed);
    return {};
  }
  task<result<store::put_result>> put(store::call c, store::put_request r, store::body_source& s) override {
    last_put = r;
    CO_TRY(bytes body, co_await read_all(s));
    if (broken) co_return fail(*broken);
    CO_TRY(auto sums, check(body, r.content_md5, r.content_sha256, r.checksums, s.trailers()));
    auto& objects = find(r.bucket)->objects;
    CO_TRY_VOID(judge(r.when, objects.contains(r.key) ? &objects[r.key] : nullptr));
    co_return store_object(c, r, std::move(body), std::move(sums));
  }
  store::put_result store_object(const store::call& c, const store::put_request& r, bytes body, std::vector<store::checksum> sums) {
    fake_object o;
    o.meta.size = body.size();
    o.meta.etag = to_hex(crypto::digest(crypto::hash_kind::md5, body));
    o.meta.modified_ms = now_ms;
    o.meta.headers = r.headers;
    o.meta.tags = r.tags;
    o.meta.checksums = sums;
    o.meta.owner_id = c.who.key->owner_id;
    o.meta.owner_name = c.who.key->display_name;
    o.body = std::move(body);
    store::put_result done{o.meta.etag, sums, o.meta.size};
    find(r.bucket)->objects[r.key] = std::move(o);
    return done;
  }
  task<result<store::get_result>> get(store::call, store::get_request r) override {
    const bool stale = dark && r.how == store::consistency::strong_if_up;
    if (dark && !stale) co_return fail(errc::unavailable, "too few homes are up");
    auto& objects = find(r.bucket)->objects;
    if (!objects.contains(r.key)) co_return fail(errc::no_such_key);
    const fake_object& o = objects[r.key];
    if (r.when.if_match && *r.when.if_match != quoted_etag(o.meta.etag)) co_return fail(errc::condition_failed);
    if (r.when.if_none_match && *r.when.if_none_match == quoted_etag(o.meta.etag)) {
      store::get_result g;
      g.meta = o.meta;
      g.not_modified = true;
      g.stale_possible = stale;
      co_return g;
    }
    store::get_result g;
    g.meta = o.meta;
    g.length = o.body.size();
    g.stale_possible = stale;
    if (r.part_number && *r.part_number > 1) co_return fail(errc::invalid_range);
    if (r.part_number) g.parts = 1;
    const bool counts = r.if_range_etag ? *r.if_range_etag == quoted_etag(o.meta.etag) : !r.if_range_ms || *r.if_range_ms / 1000 == o.meta.modified_ms / 1000;
    if (r.range && counts) {
      CO_TRY(auto range, http::parse_range(*r.range, o.body.size()));
      if (range) g.partial = true, g.first = range->first, g.length = range->last - range->first + 1;
    }
    if (!r.head) g.body = std::make_unique<fake_body>(o.body.substr(g.first, g.length), bodyless);
    co_return g;
  }
  task<result<store::copy_result>> copy(store::call, store::copy_request r) override {
    auto* from = find(r.from_bucket);
    if (!from) co_return fail(errc::no_such_bucket);
    if (!from->objects.contains(r.from_key)) co_return fail(errc::no_such_key);
    fake_object o = from->objects[r.from_key];
    if (r.from_when.if_none_match && *r.from_when.if_none_match == quoted_etag(o.meta.etag)) co_return fail(errc::not_modified);
    if (r.replace_headers) o.meta.headers = r.headers;
    if (r.replace_tags) o.meta.tags = r.tags;
    o.meta.modified_ms = now_ms;
    find(r.bucket)->objects[r.key] = o;
    co_return store::copy_result{o.meta.etag, o.meta.modified_ms, o.meta.checksums};
  }
  task<result<void>> remove(store::call, std::string b, std::string key) override {
    find(b)->objects.erase(key);
    co_return result<void>();
  }
  task<result<std::vector<result<void>>>> remove_many(store::call, std::string b, std::vector<std::string> names) override {
    std::vector<result<void>> out;
    for (auto& k : names) {
      if (k == "forbidden") {
        out.push_back(fail(errc::access_denied));
        continue;
      }
      find(b)->objects.erase(k);
      out.emplace_back();
    }
    co_return out;
  }
  task<result<store::list_result>> list(store::call, store::list_request r) override {
    store::list_result l;
    l.stale_possible = dark && r.how == store::consistency::strong_if_up;
    if (dark && !l.stale_possible) co_return fail(errc::unavailable, "too few homes are up");
    for (const auto& [k, o] : find(r.bucket)->objects) {
      if (!k.starts_with(r.prefix) || (!r.start_after.empty() && k <= r.start_after)) continue;
      auto at = r.delimiter.empty() ? k.npos : k.find(r.delimiter, r.prefix.size());
      std::string common = at == k.npos ? "" : k.substr(0, at + r.delimiter.size());
      if (!common.empty() && r.start_after == common) continue;  // it was shown
      if (!common.empty() && !l.prefixes.empty() && l.prefixes.back() == common) {
        continue;
      }
      if (l.items.size() + l.prefixes.size() == r.entries_max) {
        l.truncated = true;
        break;
      }
      if (common.empty()) {
        l.items.push_back({k, o.meta});
        l.last = k;
      } else {
        l.prefixes.push_back(common);
        l.last = common;
      }
    }
    co_return l;
  }
  task<result<std::vector<model::tag>>> get_tags(store::call, std::string b, std::string key) override {
    if (!find(b)->objects.contains(key)) co_return fail(errc::no_such_key);
    co_return find(b)->objects[key].meta.tags;
  }
  task<result<void>> set_tags(store::call, std::string b, std::string key, std::vector<model::tag> tags) override {
    if (!find(b)->objects.contains(key)) co_return fail(errc::no_such_key);
    find(b)->objects[key].meta.tags = std::move(tags);
    co_return result<void>();
  }

  task<result<upload_id>> create_upload(store::call, store::put_request r) override {
    upload_id id;
    id.data()[0] = 1;
    id.data()[15] = static_cast<std::uint8_t>(find(r.bucket)->uploads.size());
    find(r.bucket)->uploads[id] = {r.key, r, {}};
    co_return id;
  }
  task<result<store::put_result>> upload_part(store::call, store::upload_part_request r, store::body_source& s) override {
    if (!find(r.bucket)->uploads.contains(r.upload)) co_return fail(errc::no_such_upload);
    CO_TRY(bytes body, co_await read_all(s));
    CO_TRY(auto sums, check(body, r.content_md5, r.content_sha256, r.checksums, s.trailers()));
    store::part_info p{r.number, to_hex(crypto::digest(crypto::hash_kind::md5, body)), body.size(), now_ms, sums};
    find(r.bucket)->uploads[r.upload].parts[r.number] = {p, body};
    co_return store::put_result{p.etag, sums, p.size};
  }
  task<result<store::copy_result>> upload_part_copy(store::call, store::upload_part_copy_request r) override {
    bytes body = find(r.from_bucket)->objects[r.from_key].body;
    if (r.range) {
      CO_TRY(auto range, http::parse_range(*r.range, body.size()));
      body = body.substr(range->first, range->last - range->first + 1);
    }
    store::part_info p{r.number, to_hex(crypto::digest(crypto::hash_kind::md5, body)), body.size(), now_ms, {}};
    find(r.bucket)->uploads[r.upload].parts[r.number] = {p, body};
    co_return store::copy_result{p.etag, now_ms, {}};
  }
  task<result<store::put_result>> complete_upload(store::call c, store::complete_request r) override {
    auto& uploads = find(r.bucket)->uploads;
    if (!uploads.contains(r.upload)) co_return fail(errc::no_such_upload);
    fake_upload& u = uploads[r.upload];
    bytes all, sums;
    std::uint32_t last = 0;
    for (auto& p : r.parts) {
      if (p.number <= last) co_return fail(errc::invalid_part_order);
      last = p.number;
      if (!u.parts.contains(p.number) || u.parts[p.number].first.etag != p.etag) co_return fail(errc::invalid_part);
      all += u.parts[p.number].second;
      sums += from_hex(p.etag).value();
    }
    auto done = store_object(c, u.made, all, {});
    done.etag = to_hex(crypto::digest(crypto::hash_kind::md5, sums)) + "-" + std::to_string(r.parts.size());
    find(r.bucket)->objects[r.key].meta.etag = done.etag;
    uploads.erase(r.upload);
    co_return done;
  }
  task<result<void>> abort_upload(store::call, std::string b, std::string, upload_id id) override {
    if (find(b)->uploads.erase(id) == 0) co_return fail(errc::no_such_upload);
    co_return result<void>();
  }
  task<result<store::service::list_parts_result>> list_parts(store::call, std::string b, std::string key, upload_id id, std::uint32_t after,
                                                             std::size_t max) override {
    if (!find(b)->uploads.contains(id)) co_return fail(errc::no_such_upload);
    store::service::list_parts_result l;
    l.upload.key = key;
    l.upload.upload = id;
    for (auto& [n, p] : find(b)->uploads[id].parts) {
      if (n <= after) continue;
      if (l.parts.size() == max) {
        l.truncated = true;
        break;
      }
      l.parts.push_back(p.first);
    }
    co_return l;
  }
  task<result<store::list_uploads_result>> list_uploads(store::call, std::string b, std::string, std::string, std::string, upload_id,
                                                        std::size_t) override {
    store::list_uploads_result l;
    for (auto& [id, u] : find(b)->uploads) l.uploads.push_back({u.key, id, now_ms, "", {}, {}});
    co_return l;
  }
};

// ------------------------------------------------------------------------------------------------- HTTP in memory

class fake_exchange final : public http::exchange {
 public:
  http::request req;
  bytes body;
  http::response sent;
  bool began = false, aborted = false, ended = false;
  std::size_t read = 0, reads = 0;

  const http::request& request() const override { return req; }
  task<result<std::size_t>> read_body(std::span<char> to) override {
    ++reads;
    std::size_t n = std::min({to.size(), body.size() - read, std::size_t(3000)});
    std::copy_n(body.data() + read, n, to.data());
    read += n;
    co_return n;
  }
  std::uint64_t body_read() const override { return read; }
  task<result<void>> send(http::response r) override {
    REQUIRE_FALSE(began);
    began = ended = true;
    sent = std::move(r);
    co_return result<void>();
  }
  task<result<void>> begin(http::response head, std::optional<std::uint64_t> length) override {
    REQUIRE_FALSE(began);
    began = true;
    sent = std::move(head);
    sent.headers.set("content-length", std::to_string(*length));
    co_return result<void>();
  }
  task<result<void>> write(bytes_view b) override {
    sent.body += b;
    co_return result<void>();
  }
  task<result<void>> end() override {
    ended = true;
    co_return result<void>();
  }
  bool answered() const override { return began; }
  void abort() override { aborted = true; }
  int status() const override { return sent.status; }
  std::uint64_t body_sent() const override { return sent.body.size(); }
};

struct world {
  asio::io_context io;
  real_clock clk{io};
  real_random rnd;
  thread_pool pool{io, 1, "test"};
  runtime rt{io, clk, rnd, pool, pool};
  task_group group{rt};
  fake_store store;
  gateway gw{rt, static_cast<backend&>(store), gateway::options{"s3.localhost", "garage"}};
  std::string key_id = "GKmain", secret = "secret-main";
  std::string region = "us-east-1";

  world() {
    store.keys["GKmain"] = {.id = "GKmain", .secret = "secret-main", .owner_id = "owner-main", .display_name = "Main"};
    store.keys["GKalt"] = {.id = "GKalt", .secret = "secret-alt", .owner_id = "owner-alt", .display_name = "Alt"};
  }

  using header_list = std::vector<std::pair<std::string, std::string>>;

  static http::request make(std::string method, std::string target, const header_list& headers) {
    http::request r;
    r.method = std::move(method);
    r.target = std::move(target);
    auto q = r.target.find('?');
    r.path = r.target.substr(0, q);
    if (q != std::string::npos) r.query = r.target.substr(q + 1), r.has_query = true;
    r.headers.add("Host", "localhost:3900");
    for (auto& [n, v] : headers) r.headers.set(n, v);
    return r;
  }

  // Signs it as a client would; the credentials, for chunk signatures.
  credentials sign_request(http::request& r, std::string_view payload) const {
    credentials c{.key_id = key_id, .region = region, .payload_text = std::string(payload)};
    c.timestamp = format_timestamp(rt.wall_ms());
    c.date = c.timestamp.substr(0, 8);
    r.headers.set("x-amz-date", c.timestamp);
    r.headers.set("x-amz-content-sha256", c.payload_text);
    for (auto& h : r.headers.all()) {
      std::string n;
      for (char ch : h.name) n += static_cast<char>(std::tolower(static_cast<unsigned char>(ch)));
      if (n != "expect") c.signed_headers.push_back(n);
    }
    std::ranges::sort(c.signed_headers);
    auto q = http::parse_query(r.query);
    REQUIRE(q);
    c.signature = sign(c, canonical_request(r, *q, c, canonical_path(r.path)), derive_key(secret, c.date, c.region));
    std::string names;
    for (auto& n : c.signed_headers) names += (names.empty() ? "" : ";") + n;
    r.headers.add("Authorization", "AWS4-HMAC-SHA256 Credential=" + key_id + "/" + c.scope() + ", SignedHeaders=" + names + ", Signature=" + c.signature);
    return c;
  }

  http::response perform(http::request r, bytes body = {}) {
    fake_exchange x;
    x.req = std::move(r);
    x.body = std::move(body);
    perform(x);
    return x.sent;
  }
  void perform(fake_exchange& x) {
    bool done = false;
    group.spawn("request", handling(gw, x, done));
    while (!done) io.run_one();
    CHECK((x.ended || x.aborted));
    CHECK(x.sent.headers.get("x-amz-request-id").size() == 16);
  }
  static task<void> handling(gateway& g, fake_exchange& x, bool& done) {
    co_await g.handle(x);
    done = true;
  }

  // A signed request with a signed body.
  http::response ask(std::string method, std::string target, bytes body = {}, const header_list& headers = {}) {
    auto r = make(std::move(method), std::move(target), headers);
    if (r.method == "PUT" || r.method == "POST") r.content_length = body.size();
    sign_request(r, to_hex(crypto::digest(crypto::hash_kind::sha256, body)));
    return perform(std::move(r), std::move(body));
  }
  http::response anonymously(std::string method, std::string target, bytes body = {}) {
    auto r = make(std::move(method), std::move(target), {});
    if (!body.empty()) r.content_length = body.size();
    return perform(std::move(r), std::move(body));
  }
  void as_alt() { key_id = "GKalt", secret = "secret-alt"; }
};

// The text of the first element of this name; "-" when there is none.
inline std::string element(const http::response& r, std::string_view name) {
  std::string start = "<" + std::string(name) + ">", end = "</" + std::string(name) + ">";
  auto a = r.body.find(start);
  if (a == r.body.npos) return "-";
  a += start.size();
  return r.body.substr(a, r.body.find(end, a) - a);
}
inline std::vector<std::string> elements(const http::response& r, std::string_view name) {
  std::string start = "<" + std::string(name) + ">", end = "</" + std::string(name) + ">";
  std::vector<std::string> out;
  for (std::size_t at = 0; (at = r.body.find(start, at)) != r.body.npos;) {
    at += start.size();
    out.push_back(r.body.substr(at, r.body.find(end, at) - at));
  }
  return out;
}
inline std::string code_in(const http::response& r) { return element(r, "Code"); }

}  // namespace grenier::s3::test
