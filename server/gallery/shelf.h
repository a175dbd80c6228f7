// gallery/shelf.h: sorted trees in immutable shards, read and changed without I/O.
//
//   Runs on   any thread; a shelf and the trees on it are not shared between threads.
//   Errors    unavailable: a shard is not on the shelf; it is among take_wanted() now. corrupt: it is not what its name says.
//   Limits    leaves and inner nodes as tree_limits says; 1 MiB a shard; 16 levels.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/base.h"

namespace grenier::gallery {

inline constexpr std::size_t object_size_max = 1024 * 1024;

// An object to be written.
struct object {
  std::string key;
  bytes body;
  std::string content_type = "application/json";
  bool immutable = false;  // Cache-Control: max-age=31536000, immutable; else no-cache (asked about each time, by ETag)
  bool waits = false;      // a page whose photo has not all its sizes yet: whoever opens it wants them
};

struct tree_entry {
  std::string key;  // byte order is page order
  nlohmann::json value;
};

// How a node is named from above.
struct branch {
  std::string shard;  // SHA-256 of its object, hex
  std::uint32_t level = 0;
  std::uint64_t count = 0;  // of entries below
  std::uint32_t page = 0;   // of a leaf: the number of its page
  std::string first, last;  // keys
};

struct tree_root {
  std::optional<branch> top;
  std::uint32_t pages = 1;  // the highest page number given so far; 1 is always the first leaf's
  std::uint64_t count() const noexcept { return top ? top->count : 0; }
};

struct tree_limits {
  std::size_t leaf_max = 120, inner_max = 32;
};
inline constexpr tree_limits photo_limits{120, 32}, month_limits{6, 32}, folder_limits{48, 32};

struct tree_node {
  std::uint32_t level = 0;
  std::vector<tree_entry> entries;  // a leaf's
  std::vector<branch> branches;     // an inner node's
};

// Bounded JSON of foreign making: 1 MiB, 12 levels; corrupt.
result<nlohmann::json> parse_json(bytes_view);

// What has been fetched so far, by key of object.
class shelf {
 public:
  // nullopt: there is no such object.
  void put(std::string key, std::optional<bytes> body);
  // Missed since the last call, each once, in order.
  std::vector<std::string> take_wanted();
  bool wants_something() const noexcept { return !wanted_.empty(); }
  void forget(const std::string& key) { bodies_.erase(key), nodes_.erase(key); }
  // Null: there is no such object. unavailable: not fetched.
  result<const bytes*> get(const std::string& key);
  // A shard's JSON, its name checked.
  result<nlohmann::json> shard(const std::string& name);
  result<std::shared_ptr<const tree_node>> node(const branch&);

 private:
  std::map<std::string, std::optional<bytes>> bodies_;
  std::map<std::string, std::shared_ptr<const tree_node>> nodes_;
  std::set<std::string> wanted_;
};

// Names the shard and appends it to `to`; `owner` and `version` make it different from every other shard, so that a shard belongs to one
// place of one tree, and may be removed when that place has a new one.
std::string write_shard(nlohmann::json, std::string_view owner, std::uint64_t version, std::vector<object>& to);
std::string shard_key(std::string_view name);  // c/<name>.json

nlohmann::json to_json(const tree_root&);
result<tree_root> tree_from_json(const nlohmann::json&);

class tree {
 public:
  tree(shelf&, tree_root, tree_limits);
  ~tree();
  tree(tree&&) noexcept;
  tree& operator=(tree&&) noexcept;

  std::uint64_t count() const noexcept;
  // Null: no such key. Valid until the next change.
  result<const tree_entry*> find(std::string_view key);
  result<void> put(std::string_view key, nlohmann::json value);
  result<void> erase(std::string_view key);  // of a key that is not there: nothing
  // The nearest keys below and above, whether `key` itself is there or not.
  result<std::optional<std::string>> before(std::string_view key);
  result<std::optional<std::string>> after(std::string_view key);

  struct leaf_view {
    std::uint32_t page = 1;
    const std::vector<tree_entry>* entries = nullptr;
    std::optional<branch> previous, next;  // the leaves beside it
  };
  // The leaf where `key` is or would be ("" for the first one); nullopt: an empty tree. Valid until the next change.
  result<std::optional<leaf_view>> leaf_at(std::string_view key);
  // The same without reading the leaf itself.
  result<std::optional<branch>> branch_at(std::string_view key);
  // So that all that a change of this key reads is wanted at once.
  void prefetch(std::string_view key);

  struct finished {
    tree_root root;
    // Pages to be written or removed: number, and a key in the leaf.
    std::map<std::uint32_t, std::string> pages;
    bool changed = false;
  };
  // Writes changed nodes; appends names of those that they replace to `former`. Once.
  result<finished> finish(std::string_view owner, std::uint64_t version, std::vector<object>& to, std::vector<std::string>& former);

 private:
  struct node;
  struct slot;
  struct found;
  result<void> load(slot&);
  result<std::optional<slot>> insert(slot&, std::string_view key, nlohmann::json value);
  result<void> remove(slot&, std::string_view key);
  result<void> join_neighbour(node& parent, std::size_t index);
  result<slot*> leaf_slot(std::string_view key, std::vector<std::pair<slot*, std::size_t>>& path);
  result<slot*> beside(std::vector<std::pair<slot*, std::size_t>> path, int step);
  result<void> number_first();
  void drop(slot&);
  void write(slot&, std::string_view owner, std::uint64_t version, std::vector<object>& to, std::map<std::uint32_t, std::string>& pages);

  shelf* shelf_;
  tree_limits limits_;
  std::uint32_t pages_ = 1;
  std::unique_ptr<slot> top_;
  std::vector<std::string> former_;
  std::set<std::string> seams_;                  // keys where the sequence of leaves changed
  std::map<std::uint32_t, std::string> gone_;    // pages
  bool changed_ = false;
};

}  // namespace grenier::gallery
