#include "gallery/worker.h"

#include <algorithm>

#include "crypto/crypto.h"
#include "gallery/queue.h"
#include "gallery/rendering.h"
#include "gallery/wishes.h"

namespace grenier::gallery {

namespace {

constexpr nanoseconds look_max = 10min;
const bytes seen_prefix = "gallery/s/", checked_prefix = "gallery/c/";
const bytes asked_again = "again";  // instead of the pages' bucket: everything is looked at, piece by piece

nanoseconds pause_after(std::uint32_t attempts) {
  nanoseconds p = 2s;
  for (std::uint32_t i = 0; i < attempts && p < 1h; ++i) p *= 4;
  return std::min<nanoseconds>(p, 1h);
}

std::string hash_of(std::string_view key) { return to_hex(crypto::digest(crypto::hash_kind::sha256, key)); }
std::string note_key(std::string_view key) { return "n/" + hash_of(key) + ".json"; }
std::string failure_key(std::string_view key) { return "f/" + hash_of(key) + ".json"; }

struct note {
  std::string etag;
  std::optional<photo_id> photo;
  bool more = false;  // larger sizes are still to be made
};

}  // namespace

std::string pages_bucket_of(std::string_view bucket) { return std::string(bucket.substr(0, 55)) + "-gallery"; }

struct worker::impl {
  // What was found out of an object and is not in the gallery yet.
  struct found {
    job from;
    news what;
    bytes note;  // n/ of the key once it is published; "" removes it
    bytes failure = {};  // f/ of it
    bool rest_to_come = false;
  };
  struct gallery_state {
    model::bucket bucket;
    std::unique_ptr<objects> pages;
    std::vector<found> pending;
    bool publishing = false;
    std::uint64_t told_waiting = 0;  // the start page says so many are being prepared
    std::unique_ptr<wait_list> more;  // is pending
    bucket_id pages_id;
    work_status status;
    std::deque<mono_time> done;  // of the last photos
  };

  impl(runtime& r, kv::store& k, store::service& s, table::replicated& t, cluster::directory& d, wire::endpoint& e, picture::renderer& p, worker::options o)
      : rt(r), kv(k), store(s), tables(t), directory(d), endpoint(e), renderer(p), opt(o), group(r), slots(r, std::max<std::size_t>(o.photos_at_once, 1)), jobs(r, k), known(r) {}
  runtime& rt;
  kv::store& kv;
  store::service& store;
  table::replicated& tables;
  cluster::directory& directory;
  wire::endpoint& endpoint;
  picture::renderer& renderer;
  worker::options opt;
  task_group group;
  semaphore slots;
  queue jobs;
  wait_list known;
  std::map<bucket_id, std::shared_ptr<gallery_state>> galleries;
  std::set<node_id> at_work;       // homes that render and are up
  std::map<photo_id, mono_time> checked;  // because somebody missed something
  pace took;
  std::unique_ptr<table::feed> feed;
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);

  task<void> run();
  store::call as_worker() const { return {{std::nullopt, true}, rt.now() + 60s}; }
  std::shared_ptr<gallery_state> find(const bucket_id& b) const {
    auto at = galleries.find(b);
    return at == galleries.end() ? nullptr : at->second;
  }

  // ------------------------------------------------------------------------------- whose turn it is

  nanoseconds next_look(const job& j) const {
    nanoseconds p = opt.first_look;
    for (std::uint32_t i = 0; i < j.looks && p < look_max; ++i) p *= 4;
    return std::min<nanoseconds>(p, look_max) + nanoseconds(rt.random().below(static_cast<std::uint64_t>(opt.first_look.count() / 2 + 1)));
  }

  // This home's turn among those that hear of this bucket: 0 works now. Nothing when it is none of them.
  std::optional<std::size_t> turn(const bucket_id& b, std::string_view work) const {
    const auto order = order_for(tables, directory, b, work);
    auto at = std::find(order.begin(), order.end(), directory.self());
    return at == order.end() ? std::nullopt : std::optional(static_cast<std::size_t>(at - order.begin()));
  }

  task<void> work_loop() {
    const std::size_t rests_max = std::max<std::size_t>(1, opt.photos_at_once > 2 ? opt.photos_at_once - 2 : 1);
    for (;;) {
      auto permit = co_await slots.acquire();
      auto room = [this, rests_max] { return jobs.rests_busy() < rests_max; };
      job j = co_await jobs.take(room);
      group.spawn("gallery one", one(std::move(j), std::move(permit)));
    }
  }

  task<void> one(job j, semaphore::permit) {
    auto g = find(j.bucket);
    if (!g) co_return co_await forget(std::move(j));  // no gallery (any more)
    // Whether something is still there is looked at by whoever was asked to.
    if (auto place = turn(j.bucket, j.key); !j.check && (!place || *place > 0)) {
      if (j.looks && co_await is_done(*g, j)) co_return co_await forget(std::move(j));
      const std::uint64_t mine = j.since_ms + static_cast<std::uint64_t>(opt.standby / 1ms) * place.value_or(layout::replicas_max);
      if (rt.wall_ms() < mine) co_return co_await jobs.put_off(j, next_look(j), false);
    }
    auto r = co_await handle(*g, j);
    if (r && !*r) co_return;  // goes on in the publication
    if (r) {
      co_await forget(std::move(j));
      co_return none_waits(std::move(g));
    }
    g->status.last_error = j.key + ": " + r.error().to_string();
    co_await jobs.put_off(j, pause_after(j.attempts), true);
  }

  // The last of those that the start page counts may turn out to be no picture, and then nothing else would correct it.
  void none_waits(std::shared_ptr<gallery_state> g) {
    if (g->told_waiting == 0 || g->publishing || jobs.of(g->bucket.id).waiting > 0) return;
    g->publishing = true;
    group.spawn("gallery publish", publish_loop(std::move(g)));
  }

  task<void> forget(job j) {
    std::vector<job> one;
    one.push_back(std::move(j));
    co_await jobs.done_with(std::move(one));
  }

  // A visitor at some home waits for this photo.
  task<result<wire::message>> answer_wish(wire::caller from, wire::message m) {
    auto w = wish_from(m.head);
    if (from.by_invite || !w) co_return fail(errc::protocol, "no wish of a visitor");
    auto g = find(w->bucket);
    if (!g) co_return fail(errc::not_found, "this home does not work for that gallery");
    if (w->check) {
      std::erase_if(checked, [&](const auto& c) { return c.second + 1min < rt.now(); });
      if (checked.size() >= 1000 || !checked.try_emplace(w->photo, rt.now()).second) co_return wire::message{"1", nullptr};
    }
    CO_TRY(bool raised, co_await jobs.raise({w->bucket, w->key, w->check}));
    co_return wire::message{raised ? "1" : "0", nullptr};
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
    n.more = j->contains("sizes");
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
    co_return *meta ? *n && (*n)->etag == (*meta)->etag && !(*n)->more : !*n;
  }

  // True: nothing (more) to do. False: it is among what waits to be published.
  task<result<bool>> handle(gallery_state& g, job j) {
    CO_TRY(auto meta, co_await head(g, j.key));
    CO_TRY(auto before, co_await read_note(g, j.key));
    if (meta && before && before->etag == meta->etag) {
      if (!before->photo || (!before->more && !j.check)) co_return true;
      co_return co_await complete(g, std::move(j), std::move(*meta), *before->photo);
    }
    if (!meta && !before) co_return true;
    if (before && before->photo) {
      // This name stood for another photo, or is gone.
      news gone{*before->photo, std::nullopt, {}, {j.key}};
      if (!meta) co_return add(g, {j, std::move(gone), {}}), false;
      std::vector<news> first;
      first.push_back(std::move(gone));
      publisher p(rt, *g.pages);
      CO_TRY_VOID(co_await p.publish(std::move(first), g.bucket.gallery->title, g.bucket.name, jobs.of(g.bucket.id).waiting));
    }
    if (!meta) {
      CO_TRY_VOID(co_await g.pages->remove_all({note_key(j.key), failure_key(j.key)}));
      co_return true;
    }
    co_return co_await look_at(g, std::move(j), std::move(*meta));
  }

  static bytes note_of(const std::string& key, const std::string& etag, const photo_id* photo, const std::string& reason = {}, bool more = false) {
    nlohmann::json n = {{"key", key}, {"etag", etag}};
    if (photo) n["photo"] = photo->hex();
    if (!reason.empty()) n["reason"] = reason;
    if (more) n["sizes"] = {first_size};
    return n.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }

  task<result<rendering>> render(gallery_state& g, std::string key, store::object_meta meta, std::vector<picture::wanted> sizes) {
    return render_object(rt, store, renderer, {g.bucket.name, std::move(key), meta.etag, meta.size, std::move(sizes), opt.twice_from});
  }

  // How long that took is told to the others, now and then.
  void worked(mono_time since) {
    took.took(rt.now() - since);
    if (auto ms = took.announced_ms()) (void)directory.announce_number(pace_name, ms);
  }

  task<result<bool>> look_at(gallery_state& g, job j, store::object_meta meta) {
    if (meta.size == 0 || meta.size > picture::file_size_max) co_return co_await no_picture(g, std::move(j), meta.etag);
    const mono_time since = rt.now();
    CO_TRY(auto r, co_await render(g, j.key, meta, {}));
    if (r.made.what == picture::verdict::not_a_picture) co_return co_await no_picture(g, std::move(j), meta.etag);
    if (r.made.what == picture::verdict::undecodable) {
      ++g.status.failed;
      CO_TRY_VOID(co_await g.pages->put({failure_key(j.key), note_of(j.key, meta.etag, nullptr, r.made.reason)}));
      CO_TRY_VOID(co_await g.pages->remove_all({note_key(j.key)}));
      co_return true;
    }
    CO_TRY_VOID(co_await g.pages->put_all(files_of(r)));
    ++g.status.rendered;
    if (!r.first_only) worked(since);
    found f{std::move(j), {r.id, record_of(r.id, r.made, g.bucket.gallery->show_places), {}, {}}, {}};
    f.rest_to_come = r.first_only && !missing_sizes(*f.what.fresh).empty();
    f.what.added.push_back({f.from.key, meta.size});
    f.note = note_of(f.from.key, meta.etag, &r.id, {}, f.rest_to_come);
    add(g, std::move(f));
    co_return false;
  }

  // What this photo has not yet, or has no more.
  task<result<bool>> complete(gallery_state& g, job j, store::object_meta meta, photo_id id) {
    CO_TRY(auto raw, co_await g.pages->read(record_key(id)));
    auto stored = raw ? record_from_json(raw->body, id) : result<record>(fail(errc::not_found));
    if (!stored) co_return co_await look_at(g, std::move(j), std::move(meta));
    auto sizes = missing_sizes(*stored);
    std::size_t lost = 0;
    if (j.check) {
      CO_TRY(auto there, co_await g.pages->list("t/" + id.hex() + "/"));
      for (const auto& m : stored->renditions) {
        if (std::binary_search(there.begin(), there.end(), rendition_key(id, m.size, m.jpeg))) continue;
        ++lost;
        sizes.push_back(m.size);
      }
      std::sort(sizes.begin(), sizes.end());
      sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
      CO_TRY(auto pages, co_await g.pages->list(photo_folder(id)));
      lost += pages.size() < 2 ? 2 - pages.size() : 0;
      if (lost == 0 && sizes.empty() && !j.rest) co_return true;
    }
    found f{j, {id, std::nullopt, {{j.key, meta.size}}, {}}, note_of(j.key, meta.etag, &id)};
    if (!sizes.empty()) {
      std::vector<picture::wanted> wants;
      for (auto s : sizes) wants.push_back({s});
      const mono_time since = rt.now();
      CO_TRY(auto r, co_await render(g, j.key, meta, std::move(wants)));
      // Its blocks are what their names say; so is the whole what the photo is called.
      if (r.id != id) co_return fail(errc::corrupt, "the original is not what it was when the photo was first seen");
      if (r.made.what == picture::verdict::picture) {
        CO_TRY_VOID(co_await g.pages->put_all(files_of(r)));
        f.what.fresh = record_of(id, r.made, g.bucket.gallery->show_places);
        worked(since);
      } else {  // small it could be decoded: that stays
        ++g.status.failed;
        f.failure = note_of(j.key, meta.etag, nullptr, "larger sizes could not be made: " + r.made.reason);
        f.what.fresh = *stored;
        f.what.fresh->final = true;
      }
    }
    g.status.restored += lost;
    add(g, std::move(f));
    co_return false;
  }

  task<result<bool>> no_picture(gallery_state& g, job j, std::string etag) {
    CO_TRY_VOID(co_await g.pages->put({note_key(j.key), note_of(j.key, etag, nullptr)}));
    co_return true;
  }

  // ------------------------------------------------------------------------------- publication

  void add(gallery_state& g, found f) {
    g.pending.push_back(std::move(f));
    g.more->wake_all();
    if (std::exchange(g.publishing, true)) return;
    group.spawn("gallery publish", publish_loop(find(g.bucket.id)));
  }

  static bool is_first(const found& f) { return !f.from.rest && !f.from.check; }

  // Alone it goes at once; with others on their way it waits for them a moment: longer if all of it is shown already.
  task<void> gather(gallery_state& g) {
    const auto firsts = static_cast<std::size_t>(std::count_if(g.pending.begin(), g.pending.end(), is_first));
    if (g.pending.size() >= opt.gather_max) co_return;
    if (firsts > 0) {
      if (jobs.firsts_busy() > firsts) co_await sleep_for(rt, opt.gather);
      co_return;
    }
    const mono_time until = rt.now() + opt.gather_rests;
    while (rt.now() < until && g.pending.size() < opt.gather_max && std::none_of(g.pending.begin(), g.pending.end(), is_first) &&
           (jobs.rests_busy() > g.pending.size() || jobs.of(g.bucket.id).rests > g.pending.size()))
      (void)co_await g.more->wait(until);
  }

  task<void> publish_loop(std::shared_ptr<gallery_state> g) {
    for (;;) {
      if (g && g->pending.empty() && g->told_waiting > 0 && jobs.of(g->bucket.id).waiting == 0) {
        publisher p(rt, *g->pages);
        g->told_waiting = 0;
        if (auto r = co_await p.publish({}, g->bucket.gallery->title, g->bucket.name, 0); !r) g->status.last_error = r.error().to_string();
      }
      if (!g || g->pending.empty()) break;
      co_await gather(*g);
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
      const auto firsts = static_cast<std::uint64_t>(std::count_if(some.begin(), some.end(), is_first)), all_waiting = jobs.of(g->bucket.id).waiting;
      const auto waiting = all_waiting > firsts ? all_waiting - firsts : 0;
      publisher p(rt, *g->pages);
      auto r = co_await p.publish(std::move(what), g->bucket.gallery->title, g->bucket.name, waiting);
      if (!r) {
        g->status.last_error = r.error().to_string();
        for (const auto& f : some) co_await jobs.put_off(f.from, pause_after(f.from.attempts), true);
        continue;
      }
      g->told_waiting = waiting;
      co_await finish(*g, std::move(some));
    }
    if (g) g->publishing = false;
  }

  task<void> finish(gallery_state& g, std::vector<found> some) {
    std::vector<object> notes;
    std::vector<std::string> gone;
    std::vector<job> over, shown;
    for (auto& f : some) {
      const std::string& key = f.from.key;
      if (f.failure.empty()) gone.push_back(failure_key(key));
      else notes.push_back({failure_key(key), std::move(f.failure)});
      if (f.note.empty()) gone.push_back(note_key(key));
      else notes.push_back({note_key(key), std::move(f.note)});
      if (is_first(f)) g.done.push_back(rt.now());
      (f.rest_to_come ? shown : over).push_back(std::move(f.from));
    }
    auto put = co_await g.pages->put_all(std::move(notes));
    auto removed = co_await g.pages->remove_all(std::move(gone));
    if (!put || !removed) {
      g.status.last_error = (put ? removed.error() : put.error()).to_string();
      over.insert(over.end(), shown.begin(), shown.end());
      for (const auto& j : over) co_await jobs.put_off(j, pause_after(j.attempts), true);
      co_return;
    }
    while (g.done.size() > 1000) g.done.pop_front();
    for (auto& j : shown) co_await jobs.turn_to_rest(std::move(j));
    co_await jobs.done_with(std::move(over));
  }

  // ------------------------------------------------------------------------------- what to work on

  // What a home that went dark should have done is another one's at once.
  void watch_others() {
    std::set<node_id> now;
    for (const auto& m : tables.layout().newest().members)
      if (auto card = directory.find(m.node); m.node != directory.self() && directory.up(m.node) && card && card->info.services.contains(thumb_hub)) now.insert(m.node);
    if (!std::includes(now.begin(), now.end(), at_work.begin(), at_work.end())) jobs.hurry();
    at_work = std::move(now);
  }

  task<void> galleries_loop() {
    for (;;) {
      watch_others();
      std::set<bucket_id> now;
      for (auto& b : store.list_buckets({std::nullopt, true})) {
        if (!b.gallery || b.closed || !tables.is_replica(tables.partition_of(b.id.view()))) continue;
        auto pages = co_await store.find_bucket(b.gallery->pages, rt.now() + 5s);
        if (!pages) continue;  // not there yet, or not any more
        now.insert(b.id);
        auto& g = galleries[b.id];
        if (!g) {
          g = std::make_shared<gallery_state>();
          g->pages = std::make_unique<objects>(rt, group, store, b.gallery->pages);
          g->more = std::make_unique<wait_list>(rt);
        }
        g->bucket = b;
        g->pages_id = pages->id;
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
        // A gallery that was removed and made again has nothing of what was done for the former one.
        auto seen = co_await kv.get(kv::family::task_queue, seen_prefix + id.str());
        if (auto g = find(id); g && seen && (!*seen || **seen != g->pages_id.str())) co_await list_all(g, *seen && **seen == asked_again);
      }
      co_await known.wait(rt.now() + opt.refresh);
    }
  }

  // What the bucket held before it had a gallery. check: what is missing of it is made, also where it was done once.
  task<void> list_all(std::shared_ptr<gallery_state> g, bool check) {
    const bucket_id id = g->bucket.id, pages_id = g->pages_id;
    g->status.looking = true;
    store::list_request q;
    q.bucket = g->bucket.name;
    for (;;) {
      auto page = co_await store.list(as_worker(), q);
      if (!page) {
        g->status.last_error = page.error().to_string();
        co_return;  // looked at again in the next round
      }
      std::vector<queue::entry> keys;
      for (auto& i : page->items) keys.push_back({id, std::move(i.key), check});
      if (auto r = co_await jobs.add(std::move(keys)); !r) {
        g->status.last_error = r.error().to_string();
        co_return;
      }
      if (!page->truncated) break;
      q.start_after = page->last;
    }
    kv::batch b;
    b.put(kv::family::task_queue, seen_prefix + id.str(), pages_id.str());
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
      std::vector<queue::entry> keys;
      for (const auto& n : (*page)->names)
        if (auto k = model::split_object_key(n.key); k && galleries.contains(k->first)) keys.push_back({k->first, std::move(k->second)});
      // What comes later is not acknowledged before this is noted.
      for (auto r = co_await jobs.add(keys); !r; r = co_await jobs.add(keys)) {
        rt.log(log_level::error, "gallery: changes could not be noted: " + r.error().to_string());
        co_await sleep_for(rt, 5s);
      }
      feed->acknowledge((*page)->mark);
    }
  }

  // ------------------------------------------------------------------------------- is everything still there

  // A few photos of each gallery at a time; whoever would be the first to work on the gallery as a whole.
  task<void> check_loop() {
    for (;;) {
      co_await sleep_for(rt, opt.check_every);
      std::vector<std::shared_ptr<gallery_state>> all;
      for (const auto& [id, g] : galleries)
        if (auto place = turn(id, ""); place && *place == 0) all.push_back(g);
      for (const auto& g : all)
        if (auto r = co_await check_some(*g); !r) g->status.last_error = "looking whether all is there: " + r.error().to_string();
    }
  }

  // Names of records and of renditions lie in the same order.
  task<result<void>> check_some(gallery_state& g) {
    const bytes at = checked_prefix + g.bucket.id.str();
    CO_TRY(auto from, co_await kv.get(kv::family::task_queue, at));
    CO_TRY(auto records, co_await g.pages->list("i/", from.value_or(""), std::min<std::size_t>(opt.check_photos, 100)));
    kv::batch b;
    if (records.empty()) b.remove(kv::family::task_queue, at);
    else b.put(kv::family::task_queue, at, records.back());
    std::vector<queue::entry> doubtful;
    if (!records.empty()) {
      auto id_in = [](const std::string& key) { return key.substr(2, 2 * photo_id::size_bytes); };
      CO_TRY(auto files, co_await g.pages->list("t/", "t/" + id_in(records.front())));
      std::map<std::string, std::size_t> count;
      for (const auto& f : files) ++count[id_in(f)];
      for (const auto& key : records) {
        auto id = photo_id::from_hex(id_in(key));
        if (!id || count[id->hex()] == 2 * rendition_sizes.size()) continue;
        CO_TRY(auto raw, co_await g.pages->read(key));
        if (!raw) continue;
        auto r = record_from_json(raw->body, *id);
        if (r && count[id->hex()] < r->renditions.size()) doubtful.push_back({g.bucket.id, r->names.front().key, true});
      }
    }
    CO_TRY_VOID(co_await jobs.add(std::move(doubtful)));
    co_return co_await kv.commit(std::move(b));
  }
};

worker::worker(runtime& rt, kv::store& kv, store::service& s, table::replicated& t, cluster::directory& d, wire::endpoint& e, picture::renderer& r, options o)
    : impl_(std::make_unique<impl>(rt, kv, s, t, d, e, r, o)) {
  std::weak_ptr<bool> here = impl_->alive;
  auto gone = []() -> task<result<wire::message>> { co_return fail(errc::unavailable, "stopping"); };
  e.serve(wire::method::gallery_want, [i = impl_.get(), here, gone](wire::caller c, wire::message m) { return here.expired() ? gone() : i->answer_wish(std::move(c), std::move(m)); });
}
worker::~worker() = default;

task<void> worker::impl::run() {
  for (auto r = co_await jobs.open(); !r; r = co_await jobs.open()) {
    rt.log(log_level::error, "gallery: what waits could not be read: " + r.error().to_string());
    co_await sleep_for(rt, 5s);
  }
  group.spawn("gallery list", galleries_loop());
  group.spawn("gallery work", work_loop());
  group.spawn("gallery check", check_loop());
}

void worker::start() { impl_->group.spawn("gallery", impl_->run()); }

task<void> worker::stop() {
  impl_->alive.reset();
  impl_->group.cancel();
  co_await impl_->group.join();
  impl_->feed.reset();
}

std::map<std::string, work_status> worker::status() const {
  std::map<std::string, work_status> out;
  for (const auto& [id, g] : impl_->galleries) {
    auto s = g->status;
    const auto l = impl_->jobs.of(id);
    s.waiting = l.waiting;
    s.completing = l.rests;
    s.standing_by = l.standing_by;
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
  const auto p = impl_->tables.partition_of(b.id.view());
  if (!impl_->tables.is_replica(p)) {
    std::string who;
    for (const auto& n : impl_->tables.layout().newest().replicas(p))
      if (const auto* m = impl_->tables.layout().find(n)) who += (who.empty() ? "" : ", ") + m->zone;
    co_return fail(errc::unavailable, "this home does not work for that gallery: do it at one of " + who);
  }
  kv::batch k;
  k.put(kv::family::task_queue, seen_prefix + b.id.str(), asked_again);
  CO_TRY_VOID(co_await impl_->kv.commit(std::move(k)));
  impl_->known.wake_all();
  co_return result<void>();
}

}  // namespace grenier::gallery
