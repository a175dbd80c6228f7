#include "gallery/shelf.h"

#include "crypto/crypto.h"

namespace grenier::gallery {

using nlohmann::json;

namespace {

constexpr std::size_t key_max = 1200, entries_max = 1000, branches_max = 256;
constexpr std::uint32_t level_max = 16;
constexpr int depth_max = 12;

bool is_shard_name(const std::string& s) {
  return s.size() == 64 && s.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::unexpected<error> broken(std::string_view what) { return fail(errc::corrupt, "the gallery's catalogue is damaged: " + std::string(what)); }

json branch_json(const branch& b) { return json::array({b.shard, b.level, b.count, b.page, b.first, b.last}); }

result<branch> branch_from(const json& j) {
  if (!j.is_array() || j.size() != 6 || !j[0].is_string() || !j[1].is_number_unsigned() || !j[2].is_number_unsigned() || !j[3].is_number_unsigned() ||
      !j[4].is_string() || !j[5].is_string())
    return broken("a branch");
  branch b{j[0].get<std::string>(), 0, j[2].get<std::uint64_t>(), 0, j[4].get<std::string>(), j[5].get<std::string>()};
  const auto level = j[1].get<std::uint64_t>(), page = j[3].get<std::uint64_t>();
  if (!is_shard_name(b.shard) || level > level_max || page > 0xffffffffu || b.count == 0 || b.count > 1'000'000'000 || b.first.size() > key_max ||
      b.last.size() > key_max || b.first > b.last || (level == 0 && page == 0))
    return broken("a branch");
  b.level = static_cast<std::uint32_t>(level), b.page = static_cast<std::uint32_t>(page);
  return b;
}

result<tree_node> node_from(const json& j) {
  tree_node n;
  const auto level = j.find("l");
  if (level == j.end() || !level->is_number_unsigned() || level->get<std::uint64_t>() > level_max) return broken("a node without level");
  n.level = level->get<std::uint32_t>();
  const auto content = j.find("i");
  if (content == j.end() || !content->is_array() || content->empty() || content->size() > (n.level == 0 ? entries_max : branches_max))
    return broken("a node's content");
  if (n.level == 0) {
    for (const json& e : *content) {
      if (!e.is_array() || e.size() != 2 || !e[0].is_string()) return broken("an entry");
      tree_entry t{e[0].get<std::string>(), e[1]};
      if (t.key.size() > key_max || (!n.entries.empty() && n.entries.back().key >= t.key)) return broken("the order of entries");
      n.entries.push_back(std::move(t));
    }
    return n;
  }
  for (const json& e : *content) {
    TRY(branch b, branch_from(e));
    if (b.level + 1 != n.level || (!n.branches.empty() && n.branches.back().last >= b.first)) return broken("the order of branches");
    n.branches.push_back(std::move(b));
  }
  return n;
}

}  // namespace

result<json> parse_json(bytes_view text) {
  if (text.size() > object_size_max) return broken("an object of more than 1 MiB");
  bool deep = false;
  json j = json::parse(text, [&](int depth, json::parse_event_t, json&) { return depth <= depth_max || (deep = true, false); }, false);
  if (deep || j.is_discarded()) return broken("not the JSON that was written");
  return j;
}

std::string shard_key(std::string_view name) { return "c/" + std::string(name) + ".json"; }

std::string write_shard(json j, std::string_view owner, std::uint64_t version, std::vector<object>& to) {
  j["v"] = 1, j["o"] = owner, j["g"] = version;
  bytes text = j.dump(-1, ' ', false, json::error_handler_t::replace);
  std::string name = to_hex(crypto::digest(crypto::hash_kind::sha256, text));
  to.push_back({shard_key(name), std::move(text), "application/json", true});
  return name;
}

json to_json(const tree_root& t) {
  json j = {{"pages", t.pages}};
  if (t.top) j["top"] = branch_json(*t.top);
  return j;
}

result<tree_root> tree_from_json(const json& j) {
  tree_root t;
  if (!j.is_object() || !j.contains("pages") || !j["pages"].is_number_unsigned()) return broken("a tree's root");
  const auto pages = j["pages"].get<std::uint64_t>();
  if (pages == 0 || pages > 0x7fffffffu) return broken("a tree's root");
  t.pages = static_cast<std::uint32_t>(pages);
  if (j.contains("top")) {
    TRY(t.top, branch_from(j["top"]));
  }
  return t;
}

// ---------------------------------------------------------------------------------------------- shelf

void shelf::put(std::string key, std::optional<bytes> body) {
  wanted_.erase(key);
  nodes_.erase(key);
  bodies_[std::move(key)] = std::move(body);
}

std::vector<std::string> shelf::take_wanted() {
  std::vector<std::string> w(wanted_.begin(), wanted_.end());
  wanted_.clear();
  return w;
}

result<const bytes*> shelf::get(const std::string& key) {
  const auto it = bodies_.find(key);
  if (it == bodies_.end()) {
    wanted_.insert(key);
    return fail(errc::unavailable, key + " has not been read");
  }
  return it->second ? &*it->second : nullptr;
}

result<json> shelf::shard(const std::string& name) {
  TRY(const bytes* body, get(shard_key(name)));
  if (!body) return broken("shard " + name + " is missing");
  if (body->size() > object_size_max || to_hex(crypto::digest(crypto::hash_kind::sha256, *body)) != name) return broken("shard " + name + " was overwritten");
  TRY(json j, parse_json(*body));
  if (!j.is_object()) return broken("shard " + name);
  return j;
}

result<std::shared_ptr<const tree_node>> shelf::node(const branch& b) {
  const std::string key = shard_key(b.shard);
  auto it = nodes_.find(key);
  if (it == nodes_.end()) {
    TRY(json j, shard(b.shard));
    TRY(tree_node n, node_from(j));
    it = nodes_.emplace(key, std::make_shared<const tree_node>(std::move(n))).first;
  }
  if (it->second->level != b.level) return broken("a node at the wrong level");
  return it->second;
}

// ---------------------------------------------------------------------------------------------- tree

struct tree::slot {
  branch b;
  std::unique_ptr<node> n;  // once read
  bool dirty = false;       // what its shard holds is no longer so
};

struct tree::node {
  std::vector<tree_entry> entries;
  std::vector<slot> slots;

  // Of the child that holds key, or would.
  std::size_t child(std::string_view key) const {
    std::size_t i = slots.size() - 1;
    while (i > 0 && slots[i].b.first > key) --i;
    return i;
  }
  std::vector<tree_entry>::iterator at(std::string_view key) {
    return std::lower_bound(entries.begin(), entries.end(), key, [](const tree_entry& e, std::string_view k) { return e.key < k; });
  }
  void summarize(branch& b) const {
    b.count = entries.size();
    for (const slot& s : slots) b.count += s.b.count;
    if (b.level == 0 && !entries.empty()) b.first = entries.front().key, b.last = entries.back().key;
    if (b.level > 0 && !slots.empty()) b.first = slots.front().b.first, b.last = slots.back().b.last;
  }
};

tree::tree(shelf& s, tree_root r, tree_limits l) : shelf_(&s), limits_(l), pages_(r.pages) {
  if (r.top) top_ = std::make_unique<slot>(slot{std::move(*r.top), nullptr, false});
}
tree::~tree() = default;
tree::tree(tree&&) noexcept = default;
tree& tree::operator=(tree&&) noexcept = default;

std::uint64_t tree::count() const noexcept { return top_ ? top_->b.count : 0; }

result<void> tree::load(slot& s) {
  if (s.n) return {};
  TRY(auto stored, shelf_->node(s.b));
  s.n = std::make_unique<node>();
  s.n->entries = stored->entries;
  for (const branch& b : stored->branches) s.n->slots.push_back({b, nullptr, false});
  return {};
}

result<tree::slot*> tree::leaf_slot(std::string_view key, std::vector<std::pair<slot*, std::size_t>>& path) {
  slot* s = top_.get();
  while (s && s->b.level > 0) {
    TRY_VOID(load(*s));
    const std::size_t i = s->n->child(key);
    path.emplace_back(s, i);
    s = &s->n->slots[i];
  }
  return s;
}

// The leaf before (-1) or after (+1) the one that the path leads to; null at the end.
result<tree::slot*> tree::beside(std::vector<std::pair<slot*, std::size_t>> path, int step) {
  for (; !path.empty(); path.pop_back()) {
    auto& slots = path.back().first->n->slots;
    const std::size_t i = path.back().second;
    if (step < 0 ? i == 0 : i + 1 == slots.size()) continue;
    slot* s = &slots[step < 0 ? i - 1 : i + 1];
    while (s->b.level > 0) {
      TRY_VOID(load(*s));
      s = step < 0 ? &s->n->slots.back() : &s->n->slots.front();
    }
    return s;
  }
  return static_cast<slot*>(nullptr);
}

result<const tree_entry*> tree::find(std::string_view key) {
  std::vector<std::pair<slot*, std::size_t>> path;
  TRY(slot * s, leaf_slot(key, path));
  if (!s) return static_cast<const tree_entry*>(nullptr);
  TRY_VOID(load(*s));
  const auto it = s->n->at(key);
  return it != s->n->entries.end() && it->key == key ? &*it : nullptr;
}

result<std::optional<std::string>> tree::before(std::string_view key) {
  std::vector<std::pair<slot*, std::size_t>> path;
  TRY(slot * s, leaf_slot(key, path));
  if (!s) return std::optional<std::string>();
  TRY_VOID(load(*s));
  const auto it = s->n->at(key);
  if (it != s->n->entries.begin()) return std::optional(std::prev(it)->key);
  TRY(slot * left, beside(path, -1));
  return left ? std::optional(left->b.last) : std::nullopt;
}

result<std::optional<std::string>> tree::after(std::string_view key) {
  std::vector<std::pair<slot*, std::size_t>> path;
  TRY(slot * s, leaf_slot(key, path));
  if (!s) return std::optional<std::string>();
  TRY_VOID(load(*s));
  auto it = s->n->at(key);
  if (it != s->n->entries.end() && it->key == key) ++it;
  if (it != s->n->entries.end()) return std::optional(it->key);
  TRY(slot * right, beside(path, 1));
  return right ? std::optional(right->b.first) : std::nullopt;
}

result<std::optional<branch>> tree::branch_at(std::string_view key) {
  std::vector<std::pair<slot*, std::size_t>> path;
  TRY(slot * s, leaf_slot(key, path));
  return s ? std::optional(s->b) : std::nullopt;
}

result<std::optional<tree::leaf_view>> tree::leaf_at(std::string_view key) {
  std::vector<std::pair<slot*, std::size_t>> path;
  TRY(slot * s, leaf_slot(key, path));
  if (!s) return std::optional<leaf_view>();
  auto loaded = load(*s);
  // What lies beside is asked for at the same time.
  auto left = beside(path, -1), right = beside(path, 1);
  TRY_VOID(loaded);
  if (!left) return fail(left.error());
  if (!right) return fail(right.error());
  leaf_view v{s->b.page, &s->n->entries, {}, {}};
  if (*left) v.previous = (*left)->b;
  if (*right) v.next = (*right)->b;
  return std::optional(std::move(v));
}

void tree::prefetch(std::string_view key) {
  std::vector<std::pair<slot*, std::size_t>> path;
  const auto s = leaf_slot(key, path);
  if (!s || !*s) return;
  (void)load(**s);
  (void)beside(path, -1);
  (void)beside(path, 1);
}

result<void> tree::put(std::string_view key, json value) {
  if (key.size() > key_max) return fail(errc::invalid_argument, "a name is too long for the gallery");
  if (!top_) {
    top_ = std::make_unique<slot>();
    top_->n = std::make_unique<node>();
    top_->b.page = 1;
    seams_.insert(std::string(key));
  }
  TRY(auto right, insert(*top_, key, std::move(value)));
  if (right) {
    auto up = std::make_unique<slot>();
    up->b.level = top_->b.level + 1;
    up->n = std::make_unique<node>();
    up->n->slots.push_back(std::move(*top_));
    up->n->slots.push_back(std::move(*right));
    up->dirty = true;
    up->n->summarize(up->b);
    top_ = std::move(up);
  }
  return {};
}

// Returns the right half when the node had to be cut in two.
result<std::optional<tree::slot>> tree::insert(slot& s, std::string_view key, json value) {
  TRY_VOID(load(s));
  node& n = *s.n;
  std::optional<slot> right;
  if (s.b.level == 0) {
    const auto it = n.at(key);
    if (it != n.entries.end() && it->key == key) {
      if (it->value == value) return right;
      it->value = std::move(value);
    } else {
      n.entries.insert(it, {std::string(key), std::move(value)});
    }
    s.dirty = changed_ = true;
    if (n.entries.size() > limits_.leaf_max) {
      // The first half keeps the page's number, so that page 1 stays the first.
      right.emplace();
      right->b.page = ++pages_;
      right->n = std::make_unique<node>();
      const auto middle = n.entries.begin() + static_cast<std::ptrdiff_t>(n.entries.size() / 2);
      right->n->entries.assign(std::make_move_iterator(middle), std::make_move_iterator(n.entries.end()));
      n.entries.erase(middle, n.entries.end());
    }
  } else {
    const std::size_t i = n.child(key);
    TRY(auto half, insert(n.slots[i], key, std::move(value)));
    s.dirty = s.dirty || n.slots[i].dirty;
    if (half) n.slots.insert(n.slots.begin() + static_cast<std::ptrdiff_t>(i) + 1, std::move(*half));
    if (n.slots.size() > limits_.inner_max) {
      right.emplace();
      right->n = std::make_unique<node>();
      const auto middle = n.slots.begin() + static_cast<std::ptrdiff_t>(n.slots.size() / 2);
      right->n->slots.assign(std::make_move_iterator(middle), std::make_move_iterator(n.slots.end()));
      n.slots.erase(middle, n.slots.end());
    }
  }
  n.summarize(s.b);
  if (right) {
    right->dirty = true;
    right->b.level = s.b.level;
    right->n->summarize(right->b);
    if (s.b.level == 0) seams_.insert(right->b.first);
  }
  return right;
}

void tree::drop(slot& s) {
  if (!s.b.shard.empty()) former_.push_back(s.b.shard);
  if (s.b.level == 0) gone_[s.b.page] = s.b.first;
}

result<void> tree::erase(std::string_view key) {
  if (!top_) return {};
  TRY_VOID(remove(*top_, key));
  while (top_->b.count > 0 && top_->b.level > 0 && top_->n && top_->n->slots.size() == 1) {
    drop(*top_);
    auto only = std::make_unique<slot>(std::move(top_->n->slots.front()));
    top_ = std::move(only);
  }
  if (top_->b.count == 0) {
    drop(*top_);
    top_.reset();
  }
  return {};
}

result<void> tree::remove(slot& s, std::string_view key) {
  TRY_VOID(load(s));
  node& n = *s.n;
  if (s.b.level == 0) {
    const auto it = n.at(key);
    if (it == n.entries.end() || it->key != key) return {};
    n.entries.erase(it);
    s.dirty = changed_ = true;
    n.summarize(s.b);
    return {};
  }
  const std::size_t i = n.child(key);
  TRY_VOID(remove(n.slots[i], key));
  slot& c = n.slots[i];
  if (!c.dirty) return {};
  s.dirty = true;
  if (c.b.count == 0) {
    drop(c);
    if (c.b.level == 0) seams_.insert(std::string(key));
    n.slots.erase(n.slots.begin() + static_cast<std::ptrdiff_t>(i));
  } else if (c.b.level == 0 ? c.b.count < limits_.leaf_max / 4 : c.n->slots.size() < limits_.inner_max / 4) {
    TRY_VOID(join_neighbour(n, i));
  }
  n.summarize(s.b);
  return {};
}

result<void> tree::join_neighbour(node& parent, std::size_t index) {
  if (parent.slots.size() < 2) return {};
  const std::size_t l = index + 1 < parent.slots.size() ? index : index - 1;
  slot &left = parent.slots[l], &right = parent.slots[l + 1];
  if (left.b.level == 0 && left.b.count + right.b.count > limits_.leaf_max * 3 / 4) return {};
  TRY_VOID(load(left));
  TRY_VOID(load(right));
  if (left.b.level > 0 && left.n->slots.size() + right.n->slots.size() > limits_.inner_max * 3 / 4) return {};
  std::ranges::move(right.n->entries, std::back_inserter(left.n->entries));
  std::ranges::move(right.n->slots, std::back_inserter(left.n->slots));
  left.n->summarize(left.b);
  left.dirty = true;
  drop(right);
  if (left.b.level == 0) seams_.insert(left.b.first);
  parent.slots.erase(parent.slots.begin() + static_cast<std::ptrdiff_t>(l) + 1);
  return {};
}

// Page 1 is the first leaf's, whatever was removed before it.
result<void> tree::number_first() {
  std::vector<std::pair<slot*, std::size_t>> path;
  TRY(slot * s, leaf_slot("", path));
  if (!s || s->b.page == 1) return {};
  gone_[s->b.page] = s->b.first;
  s->b.page = 1;
  seams_.insert(s->b.first);
  for (auto& p : path) p.first->dirty = true;
  changed_ = true;
  return {};
}

void tree::write(slot& s, std::string_view owner, std::uint64_t version, std::vector<object>& to, std::map<std::uint32_t, std::string>& pages) {
  if (!s.dirty || !s.n) return;
  json content = json::array();
  if (s.b.level == 0) {
    pages[s.b.page] = s.b.first;
    for (const tree_entry& e : s.n->entries) content.push_back(json::array({e.key, e.value}));
  }
  for (slot& c : s.n->slots) {
    write(c, owner, version, to, pages);
    content.push_back(branch_json(c.b));
  }
  if (!s.b.shard.empty()) former_.push_back(s.b.shard);
  s.b.shard = write_shard({{"l", s.b.level}, {"i", std::move(content)}}, owner, version, to);
  s.dirty = false;
}

result<tree::finished> tree::finish(std::string_view owner, std::uint64_t version, std::vector<object>& to, std::vector<std::string>& former) {
  finished f;
  f.root.pages = pages_;
  TRY_VOID(number_first());
  bool missed = false;
  for (const std::string& key : seams_) {
    std::vector<std::pair<slot*, std::size_t>> path;
    TRY(slot * s, leaf_slot(key, path));
    if (!s) break;
    f.pages[s->b.page] = s->b.first;
    for (int step : {-1, 1}) {
      auto near = beside(path, step);
      if (!near && near.error() == errc::unavailable) missed = true;
      else if (!near) return fail(near.error());
      else if (*near) f.pages[(*near)->b.page] = (*near)->b.first;
    }
  }
  if (missed) return fail(errc::unavailable);
  if (top_) {
    write(*top_, owner, version, to, f.pages);
    f.root.top = top_->b;
  }
  for (auto& [page, key] : gone_) f.pages.emplace(page, key);
  f.changed = changed_;
  former.insert(former.end(), former_.begin(), former_.end());
  return f;
}

}  // namespace grenier::gallery
