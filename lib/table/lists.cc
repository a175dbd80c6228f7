#include "table/lists.h"

#include <algorithm>

#include "table/keys.h"
#include "table/merkle.h"
#include "table/register.h"

namespace grenier::table {
namespace {

constexpr std::size_t told_bytes_max = 4 << 20;

// One scan: what the store's visitor owns.
struct scan {
  list_request wanted;
  bytes group;
  std::function<std::optional<bytes>(bytes_view)> projection;
  bool name_hidden = false;
  pb::list_answer answer;
  std::size_t scanned = 0, told_bytes = 0, shown = 0, hidden = 0;

  using step = kv::store::step;
  step end(bytes_view sort) {
    answer.set_more(true);
    answer.set_until(bytes(sort));
    return {step::kind::stop, {}};
  }

  step visit(bytes_view key, bytes_view value) {
    bytes_view sort = key.substr(group.size());
    if (shown >= wanted.entries_max || hidden >= hidden_max || told_bytes > told_bytes_max || ++scanned > scanned_max) return end(sort);
    auto c = cell_view::decode(value);
    if (!c || !c->accepted) return {};
    const std::size_t cut = wanted.delimiter.empty() ? bytes_view::npos : sort.find(wanted.delimiter, wanted.prefix.size());
    auto u = unpack(c->accepted_value);
    std::optional<bytes> projected;
    if (u && u->present) projected = projection ? projection(u->row) : std::optional<bytes>(bytes(u->row));
    if (!projected) return pass_over(key, sort, cut, *c);
    ++shown;
    auto& e = *answer.add_entries();
    e.set_written(c->accepted.encode());
    if (cut == bytes_view::npos) {
      e.set_key(bytes(sort));
      told_bytes += sort.size() + projected->size() + 32;
      e.set_projection(std::move(*projected));
      return {};
    }
    const bytes_view common = sort.substr(0, cut + wanted.delimiter.size());
    e.set_is_prefix(true);
    e.set_key(bytes(common));
    e.set_projection(bytes(sort));
    told_bytes += common.size() + sort.size() + 32;
    bytes to = after_prefix(group + bytes(common));
    if (to.empty()) return {step::kind::stop, {}};
    return {step::kind::seek, std::move(to)};
  }

  step pass_over(bytes_view place, bytes_view sort, std::size_t cut, const cell_view& c) {
    answer.set_hidden(answer.hidden() ^ merkle::digest(place, c.accepted, c.attempt.view(), false).low);
    if (!name_hidden) return {};
    ++hidden;
    told_bytes += 2 * sort.size() + 32;
    auto& e = *answer.add_entries();
    e.set_hidden(true);
    e.set_written(c.accepted.encode());
    if (cut == bytes_view::npos) {
      e.set_key(bytes(sort));
      return {};
    }
    e.set_is_prefix(true);
    e.set_key(bytes(sort.substr(0, cut + wanted.delimiter.size())));
    e.set_projection(bytes(sort));
    return {};
  }
};

}  // namespace

task<result<pb::list_answer>> list_here(core& c, layout::partition p, list_request q, bool hidden) {
  auto s = std::make_shared<scan>();
  s->name_hidden = hidden;
  s->group = group_prefix(p, q.table, q.partition_key);
  if (auto at = c.tables.find(q.table); at != c.tables.end()) s->projection = at->second.rules.projection;
  bytes from = s->group + std::max(q.start, q.prefix);
  bytes until = after_prefix(s->group + q.prefix);
  s->wanted = std::move(q);
  if (!until.empty() && from >= until) co_return std::move(s->answer);
  CO_TRY_VOID(co_await c.store.walk(kv::family::row, std::move(from), std::move(until),
                                    [s](bytes_view key, bytes_view value) { return s->visit(key, value); }));
  co_return std::move(s->answer);
}

bytes after(const list_entry& e) { return e.is_prefix ? after_prefix(e.key) : e.key + '\0'; }

bool answers(const list_request& q, const pb::list_answer& a) {
  const auto hidden = static_cast<std::size_t>(std::count_if(a.entries().begin(), a.entries().end(), [](const auto& e) { return e.hidden(); }));
  if (static_cast<std::size_t>(a.entries_size()) > q.entries_max + hidden || hidden > hidden_max) return false;
  if (a.more() && a.until() <= q.start) return false;
  return std::all_of(a.entries().begin(), a.entries().end(), [&](const pb::list_entry& e) {
    if (!e.key().starts_with(q.prefix)) return false;
    if (!e.is_prefix()) return e.key() >= q.start;
    // A common prefix may begin before the page does; what is below it ends after that.
    const bytes end = after_prefix(e.key());
    return e.key().size() > q.prefix.size() && (end.empty() || end > q.start);
  });
}

list_merged merge(const std::vector<list_told>& told, const std::function<bool(const std::set<node_id>&)>& agree) {
  list_merged m;
  for (const auto& t : told)
    if (t.answer.more() && (!m.more || t.answer.until() < m.until)) {
      m.more = true;
      m.until = t.answer.until();
    }
  for (const auto& t : told) {
    const auto &a = t.answer, &b = told.front().answer;
    if (a.hidden() != b.hidden() || a.more() != b.more() || a.until() != b.until()) m.same_hidden = false;
  }
  // By key: what was said of it, and by whom. Of what is hidden below a common prefix: each row for itself.
  struct said {
    const pb::list_entry* entry;
    std::set<node_id> by;
  };
  std::map<bytes, std::vector<said>> all, below;
  std::map<bytes, bytes> prefix_of;  // of `below`
  for (const auto& t : told)
    for (const auto& e : t.answer.entries()) {
      if (m.more && e.key() >= m.until) continue;
      const bool is_below = e.hidden() && e.is_prefix();
      if (is_below && m.more && e.projection() >= m.until) continue;
      if (is_below) prefix_of[e.projection()] = e.key();
      auto& versions = is_below ? below[e.projection()] : all[e.key()];
      bool found = false;
      for (auto& s : versions)
        if (s.entry->written() == e.written() && s.entry->is_prefix() == e.is_prefix() && s.entry->hidden() == e.hidden() &&
            (!e.is_prefix() || s.entry->projection() == e.projection())) {
          s.by.insert(t.who);
          found = true;
        }
      if (!found) versions.push_back({&e, {t.who}});
    }
  // Whether there is anything below a prefix that nobody shows hangs on the rows there that are in dispute.
  for (const auto& [row, versions] : below) {
    const bytes& prefix = prefix_of[row];
    if (all.contains(prefix) || std::any_of(versions.begin(), versions.end(), [&](const said& s) { return agree(s.by); })) continue;
    all[prefix].push_back({versions.front().entry, {}});
  }
  for (auto& [key, versions] : all) {
    list_merged::item i;
    const said* best = &versions.front();
    for (const auto& s : versions)
      if (agree(s.by)) {
        best = &s;
        i.agreed = true;
      }
    if (i.agreed && best->entry->hidden()) continue;
    i.entry = {.is_prefix = best->entry->is_prefix(), .key = key, .written = ballot::decode(best->entry->written()).value_or(ballot{}), .projection = {}};
    if (!i.entry.is_prefix) i.entry.projection = best->entry->projection();
    m.disputed += !i.agreed;
    m.items.push_back(std::move(i));
  }
  return m;
}

}  // namespace grenier::table
