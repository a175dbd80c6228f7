#include "gallery/worker.h"

#include <algorithm>

#include "crypto/crypto.h"

namespace grenier::gallery {

namespace {

constexpr std::size_t page_max = 256, next_max = 4096;
constexpr nanoseconds look_max = 10min;
const bytes job_prefix = "gallery/j/", seen_prefix = "gallery/s/";

nanoseconds pause_after(std::uint32_t attempts) {
  nanoseconds p = 2s;
  for (std::uint32_t i = 0; i < attempts && p < 1h; ++i) p *= 4;
  return std::min<nanoseconds>(p, 1h);
}

// The first key after all those with the prefix, which does not end in 0xff.
bytes after_prefix(bytes prefix) {
  ++prefix.back();
  return prefix;
}

std::string hash_of(std::string_view key) { return to_hex(crypto::digest(crypto::hash_kind::sha256, key)); }
std::string note_key(std::string_view key) { return "n/" + hash_of(key) + ".json"; }
std::string failure_key(std::string_view key) { return "f/" + hash_of(key) + ".json"; }

// A picture's bytes on their way from the store to the decoder, hashed as they pass.
class original final : public picture::source {
 public:
  original(runtime& rt, std::uint64_t size, std::unique_ptr<store::body_reader> body) : rt_(rt), size_(size), body_(std::move(body)), hash_(crypto::hash_kind::sha256) {}
  std::uint64_t size() const override { return size_; }
  task<result<void>> read_first() {
    CO_TRY(first_, co_await body_->next());
    co_return result<void>();
  }
  bytes_view first() const { return first_ ? bytes_view(*first_) : bytes_view(); }
  task<result<shared_bytes>> next() override {
    shared_bytes piece = std::exchange(first_, nullptr);
    if (!piece && !over_) {
      CO_TRY(piece, co_await body_->next());
    }
    if (!piece) {
      over_ = true;
      co_return piece;
    }
    co_await offload(rt_, rt_.cpu_pool(), [this, piece] { hash_.update(*piece); });
    co_return piece;
  }
  // After the end; what the decoder did not ask for is read here.
  task<result<photo_id>> finish() {
    for (;;) {
      CO_TRY(auto piece, co_await next());
      if (!piece) break;
    }
    co_return *photo_id::from_bytes(hash_.finish());
  }

 private:
  runtime& rt_;
  std::uint64_t size_;
  std::unique_ptr<store::body_reader> body_;
  crypto::hasher hash_;
  shared_bytes first_;
  bool over_ = false;
};

struct note {
  std::string etag;
  std::optional<photo_id> photo;
};

}  // namespace

std::string pages_bucket_of(std::string_view bucket) { return std::string(bucket.substr(0, 55)) + "-gallery"; }

struct worker::impl {
  struct job {
    bucket_id bucket;
    std::string key;
    std::uint64_t since_ms = 0, due_ms = 0;  // wall clock
    std::uint32_t attempts = 0, looks = 0;   // that failed; at what another home should do
  };
  // What was found out of an object and is not in the gallery yet.
  struct found {
    job from;
    news what;
    bytes note;  // n/ of the key once it is published; "" removes it
  };
  struct gallery_state {
    model::bucket bucket;
    std::unique_ptr<objects> pages;
    std::vector<found> pending;
    bool publishing = false;
    work_status status;
    std::deque<mono_time> done;  // of the last photos
  };

  impl(runtime& r, kv::store& k, store::service& s, table::replicated& t, cluster::directory& d, node_id n, picture::renderer& p, worker::options o)
      : rt(r), kv(k), store(s), tables(t), directory(d), self(n), renderer(p), opt(o), group(r), slots(r, std::max<std::size_t>(o.photos_at_once, 1)),
        noting(r, 1), wake(r), known(r) {}
  runtime& rt;
  kv::store& kv;
  store::service& store;
  table::replicated& tables;
  cluster::directory& directory;
  node_id self;
  picture::renderer& renderer;
  worker::options opt;
  task_group group;
  semaphore slots, noting;
  wait_list wake, known;
  std::map<bucket_id, std::shared_ptr<gallery_state>> galleries;
  std::set<bytes> busy;            // under way, by key of their rows
  std::set<bytes> again;           // came once more while they were under way
  std::deque<bytes> next_up;       // what came just now is before what has waited for long
  bytes cursor = job_prefix;
  std::uint64_t due_ms = 0, earliest_ms = UINT64_MAX;  // when rows are to be looked through; of those seen in this pass
  bool hurry = false;              // in this pass everything is due
  std::map<bucket_id, gallery_state> counted;  // in this pass
  std::uint64_t passed_ms = 0;     // when the last one ended
  std::set<node_id> at_work;       // homes that render and are up
  std::unique_ptr<table::feed> feed;

  store::call as_worker() const { return {{std::nullopt, true}, rt.now() + 60s}; }
  static bytes row_of(const job& j) { return job_prefix + j.bucket.str() + j.key; }
  std::shared_ptr<gallery_state> find(const bucket_id& b) const {
    auto at = galleries.find(b);
    return at == galleries.end() ? nullptr : at->second;
  }

  // ------------------------------------------------------------------------------- the queue
  // Rows of the task queue; in memory is only what is under way or comes next.

  static bytes encode(const job& j) {
    bytes v;
    append_u64(v, j.since_ms);
    append_u64(v, j.due_ms);
    append_u64(v, j.attempts);
    append_u64(v, j.looks);
    return v;
  }
  static std::optional<job> decode(bytes_view row, bytes_view value) {
    row.remove_prefix(job_prefix.size());
    auto id = bucket_id::from_bytes(row.substr(0, bucket_id::size_bytes));
    if (!id || value.size() != 32) return std::nullopt;
    return job{*id, std::string(row.substr(bucket_id::size_bytes)), read_u64(value), read_u64(value.substr(8)),
               static_cast<std::uint32_t>(read_u64(value.substr(16))), static_cast<std::uint32_t>(read_u64(value.substr(24)))};
  }

  task<result<void>> enqueue(std::vector<std::pair<bucket_id, std::string>> what) {
    auto alone = co_await noting.acquire();  // what it finds there is what it counts
    kv::batch b;
    for (auto& [id, key] : what) {
      job j{id, std::move(key), rt.wall_ms(), rt.wall_ms(), 0, 0};
      bytes row = row_of(j);
      if (busy.contains(row)) again.insert(row);
      CO_TRY(auto old, co_await kv.get(kv::family::task_queue, row));
      b.put(kv::family::task_queue, row, encode(j));
      if (auto g = find(id)) count(*g, old ? decode(row, *old) : std::nullopt, -1), count(*g, j, 1);
      if (next_up.size() < next_max) next_up.push_back(std::move(row));
      else due_ms = 0;
    }
    if (b.empty()) co_return result<void>();
    CO_TRY_VOID(co_await kv.commit(std::move(b)));
    wake.wake_all();
    co_return result<void>();
  }

  task<void> done_with(std::vector<job> jobs) {
    kv::batch b;
    for (const auto& j : jobs) {
      bytes row = row_of(j);
      busy.erase(row);
      if (again.erase(row)) {
        next_up.push_back(std::move(row));
        continue;
      }
      if (auto g = find(j.bucket)) count(*g, j, -1);
      b.remove(kv::family::task_queue, std::move(row));
    }
    if (!b.empty()) (void)co_await kv.commit(std::move(b));
    wake.wake_all();
  }

  static void count(gallery_state& g, const std::optional<job>& j, int by) {
    if (!j) return;
    auto& n = j->looks ? g.status.standing_by : g.status.waiting;
    n = by < 0 && n == 0 ? 0 : n + static_cast<std::uint64_t>(by);
  }

  nanoseconds next_look(const job& j) const {
    nanoseconds p = opt.first_look;
    for (std::uint32_t i = 0; i < j.looks && p < look_max; ++i) p *= 4;
    return std::min<nanoseconds>(p, look_max) + nanoseconds(rt.random().below(static_cast<std::uint64_t>(opt.first_look.count() / 2 + 1)));
  }

  task<void> put_off(job j, nanoseconds pause, bool failed) {
    bytes row = row_of(j);
    j.due_ms = rt.wall_ms() + static_cast<std::uint64_t>(pause / 1ms);
    auto g = find(j.bucket);
    if (g) count(*g, j, -1);
    failed ? ++j.attempts : ++j.looks;
    if (g) count(*g, j, 1);
    due_ms = std::min(due_ms, j.due_ms);
    if (again.erase(row)) {
      next_up.push_back(row);
    } else {
      kv::batch b;
      b.put(kv::family::task_queue, row, encode(j));
      (void)co_await kv.commit(std::move(b));
    }
    busy.erase(row);
    wake.wake_all();
  }

  // Rows that are due, from where the last page ended; at the end of them all the time of the next one is known.
  task<void> look_for_more() {
    const std::uint64_t now = rt.wall_ms();
    if (cursor == job_prefix) {
      earliest_ms = due_ms = UINT64_MAX;
      counted.clear();
    }
    while (next_up.empty()) {
      auto page = co_await kv.scan(kv::family::task_queue, {.from = cursor, .until = after_prefix(job_prefix), .entries_max = page_max});
      if (!page || page->empty()) {
        cursor = job_prefix;
        hurry = false;
        passed_ms = now;
        for (auto& [id, g] : galleries) {
          g->status.waiting = counted[id].status.waiting;
          g->status.standing_by = counted[id].status.standing_by;
        }
        due_ms = page ? std::min(due_ms, earliest_ms) : now + 5000;
        co_return;
      }
      for (auto& e : *page) {
        auto j = decode(e.key, e.value);
        if (j) count(counted[j->bucket], j, 1);
        if (!j || busy.contains(e.key)) continue;
        if (j->due_ms <= now || hurry) next_up.push_back(e.key);
        else earliest_ms = std::min(earliest_ms, j->due_ms);
      }
      cursor = page->back().key + '\0';
    }
    due_ms = 0;  // goes on there
  }

  // Its turn among the homes that hear of this bucket: 0 works now. Nothing when it is none of them.
  std::optional<std::size_t> turn(const bucket_id& b, std::string_view key) const {
    const auto& s = tables.layout();
    if (s.partition_count() == 0) return std::nullopt;
    std::vector<std::pair<std::uint64_t, node_id>> order;
    for (const auto& n : s.newest().replicas(tables.partition_of(b.view()))) {
      if (n != self) {
        auto card = directory.find(n);
        if (!directory.up(n) || !card || !card->info.services.contains(renders_service)) continue;
      }
      order.emplace_back(xxh3_64(n.view(), xxh3_64(key)), n);
    }
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < order.size(); ++i)
      if (order[i].second == self) return i;
    return std::nullopt;
  }

  task<void> work_loop() {
    for (;;) {
      auto permit = co_await slots.acquire();
      while (next_up.empty()) {
        const bool unsure = std::any_of(galleries.begin(), galleries.end(), [](const auto& g) { return g.second->status.waiting || g.second->status.standing_by; });
        if (due_ms <= rt.wall_ms() || (unsure && passed_ms + 5000 <= rt.wall_ms())) {
          co_await look_for_more();
          continue;
        }
        const std::uint64_t wait_ms = std::min<std::uint64_t>(due_ms - rt.wall_ms(), 5000);
        co_await wake.wait(rt.now() + milliseconds(wait_ms));
      }
      bytes row = std::move(next_up.front());
      next_up.pop_front();
      if (busy.insert(row).second) group.spawn("gallery one", one(std::move(row), std::move(permit)));
    }
  }

  task<void> one(bytes row, semaphore::permit permit) {
    auto value = co_await kv.get(kv::family::task_queue, row);
    auto j = value && *value ? decode(row, **value) : std::nullopt;
    if (!j) {
      busy.erase(row);
      co_return;
    }
    auto g = find(j->bucket);
    if (!g) co_return co_await forget(std::move(*j));  // no gallery (any more)
    if (auto place = turn(j->bucket, j->key); !place || *place > 0) {
      if (j->looks && co_await is_done(*g, *j)) co_return co_await forget(std::move(*j));
      const std::uint64_t mine = j->since_ms + static_cast<std::uint64_t>(opt.standby / 1ms) * place.value_or(layout::replicas_max);
      if (rt.wall_ms() < mine) co_return co_await put_off(*j, next_look(*j), false);
    }
    auto r = co_await handle(*g, *j);
    if (r && !*r) co_return;  // goes on in the publication
    if (r) co_return co_await forget(std::move(*j));
    g->status.last_error = j->key + ": " + r.error().to_string();
    co_await put_off(*j, pause_after(j->attempts), true);
  }

  task<void> forget(job j) {
    std::vector<job> one;
    one.push_back(std::move(j));
    co_await done_with(std::move(one));
  }

  // ------------------------------------------------------------------------------- one object

  task<result<std::optional<note>>> read_note(gallery_state& g, std::string key) {
    CO_TRY(auto raw, co_await g.pages->read(note_key(key)));
    if (!raw) {
      CO_TRY(raw, co_await g.pages->read(failure_key(key)));
    }
    if (!raw) co_return std::optional<note>();
    auto j = parse_json(raw->body);
    if (!j || !j->is_object()) co_return std::optional<note>();
    note n;
    n.etag = j->value("etag", "");
    if (auto id = photo_id::from_hex(j->value("photo", ""))) n.photo = *id;
    co_return std::optional(std::move(n));
  }

  task<result<std::optional<store::object_meta>>> head(const gallery_state& g, std::string key) {
    store::get_request q;
    q.bucket = g.bucket.name;
    q.key = std::move(key);
    q.head = true;
    auto r = co_await store.get(as_worker(), std::move(q));
    if (r.failed_with(errc::no_such_key)) co_return std::optional<store::object_meta>();
    if (!r) co_return fail(r.error());
    co_return std::optional(std::move(r->meta));
  }

  task<bool> is_done(gallery_state& g, job j) {
    auto meta = co_await head(g, j.key);
    auto n = co_await read_note(g, j.key);
    if (!meta || !n) co_return false;
    co_return *meta ? *n && (*n)->etag == (*meta)->etag : !*n;
  }

  // True: nothing (more) to do. False: it is among what waits to be published.
  task<result<bool>> handle(gallery_state& g, job j) {
    CO_TRY(auto meta, co_await head(g, j.key));
    CO_TRY(auto before, co_await read_note(g, j.key));
    if (meta && before && before->etag == meta->etag) co_return true;
    if (!meta && !before) co_return true;
    if (before && before->photo) {
      // This name stood for another photo, or is gone.
      news gone{*before->photo, std::nullopt, {}, {j.key}};
      if (!meta) co_return add(g, {j, std::move(gone), {}}), false;
      std::vector<news> first;
      first.push_back(std::move(gone));
      publisher p(rt, *g.pages);
      CO_TRY_VOID(co_await p.publish(std::move(first), g.bucket.gallery->title, g.bucket.name, g.status.waiting));
    }
    if (!meta) {
      CO_TRY_VOID(co_await g.pages->remove_all({note_key(j.key), failure_key(j.key)}));
      co_return true;
    }
    co_return co_await look_at(g, std::move(j), std::move(*meta));
  }

  bytes note_of(const std::string& key, const std::string& etag, const photo_id* photo, const std::string& reason = {}) const {
    nlohmann::json n = {{"key", key}, {"etag", etag}};
    if (photo) n["photo"] = photo->hex();
    if (!reason.empty()) n["reason"] = reason;
    return n.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }

  task<result<bool>> look_at(gallery_state& g, job j, store::object_meta meta) {
    if (meta.size == 0 || meta.size > picture::file_size_max) co_return co_await no_picture(g, std::move(j), meta.etag);
    store::get_request q;
    q.bucket = g.bucket.name;
    q.key = j.key;
    q.when.if_match = "\"" + meta.etag + "\"";
    store::call c = as_worker();
    c.deadline = rt.now() + 5min;
    CO_TRY(auto got, co_await store.get(c, std::move(q)));
    if (!got.body) co_return fail(errc::internal, "an object without a body");
    original bytes_of(rt, got.length, std::move(got.body));
    CO_TRY_VOID(co_await bytes_of.read_first());
    if (picture::sniff(bytes_of.first()) == picture::file_format::none) co_return co_await no_picture(g, std::move(j), meta.etag);
    CO_TRY(auto made, co_await renderer.render(bytes_of, {}));
    CO_TRY(photo_id id, co_await bytes_of.finish());
    if (made.what == picture::verdict::not_a_picture) co_return co_await no_picture(g, std::move(j), meta.etag);
    if (made.what == picture::verdict::undecodable) {
      ++g.status.failed;
      CO_TRY_VOID(co_await g.pages->put({failure_key(j.key), note_of(j.key, meta.etag, nullptr, made.reason)}));
      CO_TRY_VOID(co_await g.pages->remove_all({note_key(j.key)}));
      co_return true;
    }
    std::vector<object> files;
    for (const auto& r : made.renditions)
      files.push_back({rendition_key(id, r.size, r.type == picture::image_type::jpeg), *r.data, r.type == picture::image_type::jpeg ? "image/jpeg" : "image/webp", true});
    CO_TRY_VOID(co_await g.pages->put_all(std::move(files)));
    ++g.status.rendered;
    found f{std::move(j), {id, record_of(id, made, g.bucket.gallery->show_places), {}, {}}, {}};
    f.what.added.push_back({f.from.key, meta.size});
    f.note = note_of(f.from.key, meta.etag, &id);
    add(g, std::move(f));
    co_return false;
  }

  task<result<bool>> no_picture(gallery_state& g, job j, std::string etag) {
    CO_TRY_VOID(co_await g.pages->put({note_key(j.key), note_of(j.key, etag, nullptr)}));
    co_return true;
  }

  static record record_of(const photo_id& id, const picture::rendered& made, bool places) {
    record r;
    const auto& f = made.facts;
    r.id = id;
    r.format = std::string(picture::to_string(f.format));
    r.width = f.width;
    r.height = f.height;
    r.taken = f.taken;
    r.taken_offset_minutes = f.taken_offset_minutes;
    r.make = f.make;
    r.model = f.model;
    r.lens = f.lens;
    r.iso = f.iso;
    r.exposure_s = f.exposure_s;
    r.f_number = f.f_number;
    r.focal_mm = f.focal_mm;
    if (places) r.latitude = f.latitude, r.longitude = f.longitude, r.altitude_m = f.altitude_m;
    r.thumbhash = f.thumbhash;
    for (const auto& x : made.renditions) r.renditions.push_back({x.size, x.type == picture::image_type::jpeg, x.width, x.height, x.data->size()});
    return r;
  }

  // ------------------------------------------------------------------------------- publication

  void add(gallery_state& g, found f) {
    g.pending.push_back(std::move(f));
    if (std::exchange(g.publishing, true)) return;
    group.spawn("gallery publish", publish_loop(find(g.bucket.id)));
  }

  task<void> publish_loop(std::shared_ptr<gallery_state> g) {
    while (g && !g->pending.empty()) {
      // Alone it goes at once; with others on their way it waits for them a moment.
      if (busy.size() > g->pending.size() && g->pending.size() < opt.gather_max) co_await sleep_for(rt, opt.gather);
      std::vector<found> some;
      std::set<photo_id> ids;
      for (auto at = g->pending.begin(); at != g->pending.end() && some.size() < opt.gather_max;) {
        if (!ids.insert(at->what.id).second) {  // two names of one photo: one after the other
          ++at;
          continue;
        }
        some.push_back(std::move(*at));
        at = g->pending.erase(at);
      }
      std::vector<news> what;
      for (const auto& f : some) what.push_back(f.what);
      const auto waiting = g->status.waiting > some.size() ? g->status.waiting - some.size() : 0;
      publisher p(rt, *g->pages);
      auto r = co_await p.publish(std::move(what), g->bucket.gallery->title, g->bucket.name, waiting);
      if (!r) {
        g->status.last_error = r.error().to_string();
        for (const auto& f : some) co_await put_off(f.from, pause_after(f.from.attempts), true);
        continue;
      }
      co_await finish(*g, std::move(some));
    }
    if (g) g->publishing = false;
  }

  task<void> finish(gallery_state& g, std::vector<found> some) {
    std::vector<object> notes;
    std::vector<std::string> gone;
    std::vector<job> jobs;
    for (auto& f : some) {
      const std::string& key = f.from.key;
      gone.push_back(failure_key(key));
      if (f.note.empty()) gone.push_back(note_key(key));
      else notes.push_back({note_key(key), std::move(f.note)});
      jobs.push_back(std::move(f.from));
    }
    auto put = co_await g.pages->put_all(std::move(notes));
    auto removed = co_await g.pages->remove_all(std::move(gone));
    if (!put || !removed) {
      g.status.last_error = (put ? removed.error() : put.error()).to_string();
      for (const auto& j : jobs) co_await put_off(j, pause_after(j.attempts), true);
      co_return;
    }
    for (std::size_t i = 0; i < jobs.size(); ++i) g.done.push_back(rt.now());
    while (g.done.size() > 1000) g.done.pop_front();
    co_await done_with(std::move(jobs));
  }

  // ------------------------------------------------------------------------------- what to work on

  // What a home that went dark should have done is another one's at once.
  void watch_others() {
    std::set<node_id> now;
    for (const auto& m : tables.layout().newest().members)
      if (auto card = directory.find(m.node); m.node != self && directory.up(m.node) && card && card->info.services.contains(renders_service)) now.insert(m.node);
    if (!std::includes(now.begin(), now.end(), at_work.begin(), at_work.end())) {
      hurry = true;
      cursor = job_prefix;
      due_ms = 0;
      wake.wake_all();
    }
    at_work = std::move(now);
  }

  task<void> galleries_loop() {
    for (;;) {
      watch_others();
      std::set<bucket_id> now;
      for (auto& b : store.list_buckets({std::nullopt, true})) {
        if (!b.gallery || b.closed || !tables.is_replica(tables.partition_of(b.id.view()))) continue;
        now.insert(b.id);
        auto& g = galleries[b.id];
        if (!g) {
          g = std::make_shared<gallery_state>();
          g->pages = std::make_unique<objects>(rt, group, store, b.gallery->pages);
          auto seen = std::make_shared<gallery_state>();
          const bytes of = job_prefix + b.id.str();
          (void)co_await kv.walk(kv::family::task_queue, of, after_prefix(job_prefix), [seen, of](bytes_view k, bytes_view v) {
            kv::store::step next;  // nothing of other buckets is counted
            if (k.starts_with(of)) count(*seen, decode(k, v), 1);
            else next.what = kv::store::step::kind::stop;
            return next;
          });
          if (auto now_g = find(b.id)) now_g->status.waiting += seen->status.waiting, now_g->status.standing_by += seen->status.standing_by;
        }
        if (auto known_g = find(b.id)) known_g->bucket = b;
      }
      kv::batch over;
      std::erase_if(galleries, [&](const auto& g) {
        if (now.contains(g.first) || g.second->publishing) return false;
        over.remove(kv::family::task_queue, seen_prefix + g.first.str());  // should it have one again, all is looked at
        return true;
      });
      if (!over.empty()) (void)co_await kv.commit(std::move(over));
      if (!galleries.empty() && !feed) {
        auto f = co_await tables.follow("gallery", {table::table_id::object});
        if (f) {
          feed = std::move(*f);
          group.spawn("gallery feed", feed_loop());
        }
      }
      for (const auto& id : now) {
        auto seen = co_await kv.get(kv::family::task_queue, seen_prefix + id.str());
        if (auto g = find(id); g && seen && !*seen) co_await list_all(g);
      }
      co_await known.wait(rt.now() + opt.refresh);
    }
  }

  // What the bucket held before it had a gallery.
  task<void> list_all(std::shared_ptr<gallery_state> g) {
    const bucket_id id = g->bucket.id;
    g->status.looking = true;
    store::list_request q;
    q.bucket = g->bucket.name;
    for (;;) {
      auto page = co_await store.list(as_worker(), q);
      if (!page) {
        g->status.last_error = page.error().to_string();
        co_return;  // looked at again in the next round
      }
      std::vector<std::pair<bucket_id, std::string>> keys;
      for (auto& i : page->items) keys.emplace_back(id, std::move(i.key));
      if (auto r = co_await enqueue(std::move(keys)); !r) {
        g->status.last_error = r.error().to_string();
        co_return;
      }
      if (!page->truncated) break;
      q.start_after = page->last;
    }
    kv::batch b;
    b.put(kv::family::task_queue, seen_prefix + id.str(), "1");
    if (co_await kv.commit(std::move(b))) g->status.looking = false;
  }

  task<void> feed_loop() {
    for (;;) {
      auto page = co_await feed->next(rt.now() + 10s);
      if (galleries.empty()) {
        // Nothing is to be kept for a reader that has nothing to do. The next gallery lists its bucket first.
        feed.reset();
        (void)co_await tables.forget_reader("gallery");
        co_return;
      }
      if (!page) {
        co_await sleep_for(rt, 5s);
        continue;
      }
      if (!*page) continue;
      std::vector<std::pair<bucket_id, std::string>> keys;
      for (const auto& n : (*page)->names)
        if (auto k = model::split_object_key(n.key); k && galleries.contains(k->first)) keys.push_back(std::move(*k));
      // What comes later is not acknowledged before this is noted.
      for (auto r = co_await enqueue(keys); !r; r = co_await enqueue(keys)) {
        rt.log(log_level::error, "gallery: changes could not be noted: " + r.error().to_string());
        co_await sleep_for(rt, 5s);
      }
      feed->acknowledge((*page)->mark);
    }
  }
};

worker::worker(runtime& rt, kv::store& kv, store::service& s, table::replicated& t, cluster::directory& d, node_id self, picture::renderer& r, options o)
    : impl_(std::make_unique<impl>(rt, kv, s, t, d, self, r, o)) {}
worker::~worker() = default;

void worker::start() {
  impl_->group.spawn("gallery list", impl_->galleries_loop());
  impl_->group.spawn("gallery work", impl_->work_loop());
}

task<void> worker::stop() {
  impl_->group.cancel();
  co_await impl_->group.join();
  impl_->feed.reset();
}

std::map<std::string, work_status> worker::status() const {
  std::map<std::string, work_status> out;
  for (const auto& [id, g] : impl_->galleries) {
    auto s = g->status;
    const mono_time since = impl_->rt.now() - 5min;
    std::size_t recent = 0;
    mono_time first = impl_->rt.now();
    for (auto t : g->done)
      if (t > since) ++recent, first = std::min(first, t);
    const double minutes = std::chrono::duration<double>(impl_->rt.now() - first).count() / 60;
    if (s.waiting && recent > 1 && minutes > 0) s.photos_per_minute = static_cast<double>(recent) / minutes;
    out[g->bucket.name] = std::move(s);
  }
  return out;
}

task<result<std::vector<failure>>> worker::failures(std::string pages_bucket, std::size_t max) {
  store::list_request q;
  q.bucket = pages_bucket;
  q.prefix = "f/";
  q.entries_max = std::min<std::size_t>(max, 1000);
  CO_TRY(auto page, co_await impl_->store.list(impl_->as_worker(), std::move(q)));
  objects pages(impl_->rt, impl_->group, impl_->store, std::move(pages_bucket));
  std::vector<std::string> keys;
  for (auto& i : page.items) keys.push_back(std::move(i.key));
  CO_TRY(auto all, co_await pages.read_all(std::move(keys)));
  std::vector<failure> out;
  for (const auto& o : all) {
    if (!o) continue;
    auto j = parse_json(o->body);
    if (j && j->is_object()) out.push_back({j->value("key", ""), j->value("reason", "")});
  }
  co_return out;
}

task<result<void>> worker::look_again(std::string bucket) {
  CO_TRY(auto b, co_await impl_->store.find_bucket(std::move(bucket), impl_->rt.now() + 10s));
  kv::batch k;
  k.remove(kv::family::task_queue, seen_prefix + b.id.str());
  CO_TRY_VOID(co_await impl_->kv.commit(std::move(k)));
  impl_->known.wake_all();
  co_return result<void>();
}

}  // namespace grenier::gallery
