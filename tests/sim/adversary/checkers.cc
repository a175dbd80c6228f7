#include "sim/adversary/checkers.h"

#include <algorithm>

namespace grenier::sim {

namespace {

using out = operation::outcome;

store::call admin(runtime& rt) { return {{std::nullopt, true}, rt.now() + 30s}; }

template <class T>
result<T> answer(scene& s, std::size_t home, task<result<T>> t) {
  auto r = s.w.await(s.homes.at(home), std::move(t), std::chrono::minutes(3));
  if (!r) return fail(errc::timed_out, "no answer in virtual time");
  return std::move(*r);
}

// ------------------------------------------------------------------------------------------------- reading everything back

// Each key at each home; what is read there is part of the key's history.
std::string readable(scene& s) {
  for (const auto& [key, history] : std::map(s.histories)) {
    if (key.empty()) continue;
    const bool written = std::any_of(history.begin(), history.end(), [](const auto& o) { return o->value != 0; });
    for (std::size_t i : s.ready_homes()) {
      if (!written && i != 0) break;
      auto o = std::make_shared<operation>();
      o->client = 100 + static_cast<int>(i);
      o->invoked = s.now_ns();
      auto r = s.homes.get(i, scene::bucket, key);
      o->returned = s.now_ns();
      const std::string who = "home " + std::to_string(i);
      if (!r && r.error().code != errc::no_such_key) return who + " cannot read " + key + " after everything was healed: " + r.error().to_string();
      o->seen = r ? value_of(*r) : 0;
      if (o->seen == UINT64_MAX) return who + " gives wrong bytes for " + key;
      o->result = out::done;
      s.histories[key].push_back(o);
      ++s.counted.objects_read;
    }
  }
  return {};
}

// What a home lists and what it reads are one.
std::string listed(scene& s) {
  for (std::size_t i : s.ready_homes()) {
    auto l = s.homes.list(i, scene::bucket);
    const std::string who = "home " + std::to_string(i);
    if (!l) return who + " cannot list: " + l.error().to_string();
    std::map<std::string, std::uint64_t> shown;
    for (const auto& x : l->items) shown[x.key] = s.value_by_etag(x.meta.etag);
    for (const auto& [key, history] : s.histories) {
      if (key.empty() || history.empty()) continue;
      auto o = std::make_shared<operation>();
      o->client = 200 + static_cast<int>(i);
      o->invoked = o->returned = s.now_ns();
      o->seen = shown.contains(key) ? shown[key] : 0;
      o->result = out::done;
      s.histories[key].push_back(o);
      shown.erase(key);
    }
    if (!shown.empty()) return who + " lists " + shown.begin()->first + ", which nobody wrote";
  }
  return {};
}

// ------------------------------------------------------------------------------------------------- replicas

task<result<void>> compare_all(storaged::node& n) {
  n.tables().repair_now();
  co_return result<void>();
}

// The rows on which two homes differ, for people: table and sort key. None: then a digest is not that of its rows.
std::string difference(scene& s, std::size_t a, std::size_t b, layout::partition p) {
  bytes prefix;
  append_u16(prefix, p);
  auto rows = [&](std::size_t i) {
    std::map<bytes, bytes> m;
    const auto& all = s.homes.at(i).kv_disk.content(kv::family::row);
    for (auto at = all.lower_bound(prefix); at != all.end() && at->first.starts_with(prefix); ++at) m.insert(*at);
    return m;
  };
  auto one = rows(a), other = rows(b);
  std::string text;
  for (const auto* m : {&one, &other})
    for (const auto& [k, v] : *m) {
      const auto& there = m == &one ? other : one;
      auto at = there.find(k);
      if (at != there.end() && (at->second == v || m == &other)) continue;
      text += "; a row of table " + std::to_string(k[2]) + " (" + to_hex(k).substr(6) + ") " +
              (at != there.end() ? "differs" : "is only at home " + std::to_string(m == &one ? a : b));
      if (text.size() > 300) return text;
    }
  return text.empty() ? "; their rows are the same" : text;
}

std::string unequal(scene& s) {
  const auto on = s.ready_homes();
  const auto& l = s.homes.node(on.front()).tables().layout();
  std::map<node_id, std::size_t> home;
  for (std::size_t i : on) home[s.homes.node(i).id()] = i;
  auto leaves = [&](std::size_t i, layout::partition p) {
    bytes prefix;
    append_u16(prefix, p);
    std::map<bytes, bytes> m;
    const auto& all = s.homes.at(i).kv_disk.content(kv::family::merkle);
    for (auto at = all.lower_bound(prefix); at != all.end() && at->first.starts_with(prefix); ++at)
      if (at->second.find_first_not_of('\0') != bytes::npos) m.insert(*at);
    return m;
  };
  for (std::size_t n = 0; n < l.partition_count(); ++n) {
    const auto p = static_cast<layout::partition>(n);
    std::optional<std::pair<std::size_t, std::map<bytes, bytes>>> first;
    for (const auto& who : l.current.replicas(p)) {
      if (!home.contains(who)) return "a replica of partition " + std::to_string(n) + " is not there";
      auto mine = leaves(home[who], p);
      if (!first) first.emplace(home[who], std::move(mine));
      else if (first->second != mine)
        return "homes " + std::to_string(first->first) + " and " + std::to_string(home[who]) + " have unequal digests of partition " + std::to_string(n) +
               difference(s, first->first, home[who], p);
    }
  }
  return {};
}

std::string converged(scene& s) {
  std::string why;
  for (int round = 0; round < 20; ++round) {
    for (std::size_t i : s.ready_homes()) (void)answer(s, i, compare_all(s.homes.node(i)));
    s.w.run_for(4s);
    if (why = unequal(s); why.empty()) return {};
  }
  return why;
}

// Every replica of a partition holds the same rows, and its digests are those of its rows: asked of the replicas, not of their digests.
task<result<std::vector<std::string>>> references_here(storaged::node& n, block_hash h) {
  CO_TRY(auto rows, co_await n.tables().scan_here(table::table_id::reference, h.str()));
  std::vector<std::string> all;
  for (auto& r : rows)
    if (r.second.size() > 1 && r.second[1] == 0) all.push_back(to_hex(r.first) + " " + to_hex(r.second));
  co_return all;
}

// ------------------------------------------------------------------------------------------------- what the rows say

struct truth {
  std::map<block_hash, std::set<std::string>> wanted;  // by whom
  std::int64_t objects = 0, bytes = 0, uploads = 0;
};

task<result<truth>> read_truth(storaged::node& n, runtime& rt) {
  truth t;
  CO_TRY(auto b, co_await n.store().find_bucket(scene::bucket, rt.now() + 10s));
  for (std::string after;;) {
    store::list_request q;
    q.bucket = scene::bucket;
    q.start_after = after;
    CO_TRY(auto page, co_await n.store().list(admin(rt), std::move(q)));
    for (const auto& i : page.items) {
      CO_TRY(auto row, co_await n.tables().read(model::object_key(b.id, i.key), {.deadline = rt.now() + 10s}));
      if (!row.value.present) continue;
      CO_TRY(auto o, model::decode_object(row.value.row));
      ++t.objects;
      t.bytes += static_cast<std::int64_t>(o.meta.size);
      for (const auto& e : o.blocks) t.wanted[e.hash].insert(i.key);
    }
    if (!page.truncated) break;
    after = page.last;
  }
  std::string after_key;
  for (upload_id after_upload;;) {
    CO_TRY(auto page, co_await n.store().list_uploads(admin(rt), scene::bucket, {}, {}, after_key, after_upload, 1000));
    for (const auto& u : page.uploads) {
      ++t.uploads;
      CO_TRY(auto parts, co_await n.store().list_parts(admin(rt), scene::bucket, u.key, u.upload, 0, 1000));
      for (const auto& p : parts.parts) {
        CO_TRY(auto row, co_await n.tables().read(model::part_key(b.id, u.key, u.upload, p.number), {.deadline = rt.now() + 10s}));
        if (!row.value.present) continue;
        CO_TRY(auto part, model::decode_part(row.value.row));
        for (const auto& e : part.blocks) t.wanted[e.hash].insert(u.key + ", part " + std::to_string(p.number) + " of an open upload");
      }
    }
    if (!page.truncated) break;
    after_key = page.last_key;
    after_upload = page.last_upload;
  }
  co_return t;
}

task<result<store::counters>> count_of(storaged::node& n, runtime& rt) { co_return co_await n.store().count(admin(rt), scene::bucket); }

std::string counted(scene& s) {
  const std::size_t i = s.ready_homes().front();
  auto t = answer(s, i, read_truth(s.homes.node(i), s.homes.at(i).rt()));
  if (!t) return "the rows cannot be read: " + t.error().to_string();
  for (std::size_t at : s.ready_homes()) {
    auto c = answer(s, at, count_of(s.homes.node(at), s.homes.at(at).rt()));
    if (!c) return "home " + std::to_string(at) + " cannot count: " + c.error().to_string();
    if (c->objects != t->objects || c->bytes != t->bytes || c->uploads != t->uploads)
      return "home " + std::to_string(at) + " counts " + std::to_string(c->objects) + " objects, " + std::to_string(c->bytes) + " bytes, " + std::to_string(c->uploads) +
             " uploads; there are " + std::to_string(t->objects) + ", " + std::to_string(t->bytes) + ", " + std::to_string(t->uploads);
  }
  return {};
}

std::map<std::string, block_hash> block_files(scene& s, std::size_t i) {
  std::map<std::string, block_hash> all;
  for (const auto& f : s.homes.at(i).drives[0].files) {
    std::string name = f.first.substr(f.first.rfind('/') + 1);
    if (name.ends_with(".zst")) name.resize(name.size() - 4);
    auto raw = from_hex(name);
    if (!raw) continue;
    if (auto h = block_hash::from_bytes(*raw)) all.emplace(f.first, *h);
  }
  return all;
}

// What a home's own rows say of a block, for people.
std::string noted(scene& s, std::size_t i, const block_hash& h) {
  const auto& rows = s.homes.at(i).kv_disk.content(kv::family::block);
  std::string text;
  for (auto [kind, what] : {std::pair{'f', "file"}, {'q', "missing"}, {'u', "guest"}, {'g', "garbage"}})
    if (auto at = rows.find(bytes(1, kind) + h.str()); at != rows.end()) {
      text += std::string(text.empty() ? "" : ", ") + what;
      if (kind != 'f' && at->second.size() >= 20)
        text += " due in " + std::to_string((static_cast<std::int64_t>(read_u64(at->second)) - static_cast<std::int64_t>(s.w.wall_ms())) / 1000) + " s, tried " +
                std::to_string(read_u32(bytes_view(at->second).substr(16))) + " times";
    }
  std::string where;
  for (std::size_t n = 0; n < s.homes.size(); ++n) {
    const auto files = block_files(s, n);
    if (std::any_of(files.begin(), files.end(), [&](const auto& f) { return f.second == h; })) where += " " + std::to_string(n);
  }
  return " (its rows: " + (text.empty() ? "none" : text) + "; files are at:" + (where.empty() ? " none" : where) + ")";
}

// Every block that a row names is at each of its replicas, and replicas know why.
std::string kept_now(scene& s) {
  const auto on = s.ready_homes();
  auto t = answer(s, on.front(), read_truth(s.homes.node(on.front()), s.homes.at(on.front()).rt()));
  if (!t) return "the rows cannot be read: " + t.error().to_string();
  std::map<node_id, std::size_t> home;
  std::map<std::size_t, std::set<block_hash>> here;
  for (std::size_t i : on) {
    home[s.homes.node(i).id()] = i;
    for (const auto& [path, h] : block_files(s, i)) here[i].insert(h);
  }
  const auto& l = s.homes.node(on.front()).tables().layout();
  for (const auto& [hash, by] : t->wanted)
    for (const auto& r : l.current.replicas(layout::partition_of(hash, l.partition_count()))) {
      const std::string what = "home " + std::to_string(home[r]) + " has no ", which = " block " + hash.short_hex() + " of " + *by.begin();
      if (!here[home[r]].contains(hash)) return what + "file of" + which + noted(s, home[r], hash);
      auto refs = answer(s, home[r], references_here(s.homes.node(home[r]), hash));
      if (!refs || refs->empty()) return what + "reference to" + which + noted(s, home[r], hash);
    }
  return {};
}

// What is missing is asked for at growing pauses: minutes, after a long trouble.
std::string kept(scene& s) {
  std::string why;
  for (int round = 0; round < 60; ++round) {
    if (why = kept_now(s); why.empty()) return {};
    s.w.run_for(10s);
  }
  return why;
}

task<result<void>> abort_all(storaged::node& n, runtime& rt) {
  for (;;) {
    CO_TRY(auto page, co_await n.store().list_uploads(admin(rt), scene::bucket, {}, {}, {}, {}, 1000));
    if (page.uploads.empty()) co_return result<void>();
    for (const auto& u : page.uploads) CO_TRY_VOID(co_await n.store().abort_upload(admin(rt), scene::bucket, u.key, u.upload));
  }
}

// After the grace period nothing is kept that no row names. Takes minutes: only where the history was about it.
std::string freed(scene& s) {
  if (s.of_shape != scene::shape::refuse) return {};
  // A part that was sent twice leaves its first blocks with the upload until that is over (rule 5b.10: its row may yet be listed). So all
  // are ended first; who looks whether an upload is over does so at pauses that grow to an hour.
  const std::size_t host = s.ready_homes().front();
  if (auto r = answer(s, host, abort_all(s.homes.node(host), s.homes.at(host).rt())); !r) return "open uploads cannot be aborted: " + r.error().to_string();
  std::string why;
  for (int round = 0; round < 150; ++round) {
    s.w.run_for(60s);
    const auto on = s.ready_homes();
    auto t = answer(s, on.front(), read_truth(s.homes.node(on.front()), s.homes.at(on.front()).rt()));
    if (!t) return "the rows cannot be read: " + t.error().to_string();
    why.clear();
    const auto& l = s.homes.node(on.front()).tables().layout();
    for (std::size_t i : on)
      for (const auto& [path, hash] : block_files(s, i)) {
        const auto& replicas = l.current.replicas(layout::partition_of(hash, l.partition_count()));
        const bool mine = std::find(replicas.begin(), replicas.end(), s.homes.node(i).id()) != replicas.end();
        if (!t->wanted.contains(hash)) {
          why = "home " + std::to_string(i) + " keeps block " + hash.short_hex() + ", which no row names";
          for (std::size_t n : on)
            if (auto refs = answer(s, n, references_here(s.homes.node(n), hash)); refs && !refs->empty())
              why += "; home " + std::to_string(n) + " has its reference " + refs->front();
        }
        else if (!mine) why = "home " + std::to_string(i) + " keeps block " + hash.short_hex() + ", which belongs elsewhere";
      }
    if (why.empty()) break;
  }
  if (why.empty()) why = kept(s);
  return why;
}

constexpr checker table[] = {
    {"readable", "every key reads at every home as its history says", &readable},
    {"listed", "lists agree with the keys", &listed},
    {"counted", "the counters say what there is", &counted},
    {"kept", "every block that a row names is at all its replicas", &kept},
    {"converged", "replicas have equal digests", &converged},
    {"freed", "no block is kept that no row names", &freed},
};

}  // namespace

std::span<const checker> all_checkers() { return table; }

}  // namespace grenier::sim
