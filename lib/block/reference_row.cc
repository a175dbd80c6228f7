#include "block/reference_row.h"

#include <algorithm>

namespace grenier::block {

namespace {
constexpr char format = 1;

void tidy(reference_value& v) {
  if (v.withdrawn) {
    v.owner.clear();
    v.guests.clear();
  }
  std::sort(v.guests.begin(), v.guests.end());
  v.guests.erase(std::unique(v.guests.begin(), v.guests.end()), v.guests.end());
  if (v.guests.size() > guests_max) v.guests.resize(guests_max);
}
}  // namespace

bytes encode(reference_value v) {
  tidy(v);
  bytes b{format, static_cast<char>(v.withdrawn)};
  append_u16(b, static_cast<std::uint16_t>(v.owner.size()));
  b += v.owner;
  b.push_back(static_cast<char>(v.guests.size()));
  for (const auto& g : v.guests) b += g.view();
  return b;
}

result<reference_value> decode_reference(bytes_view b) {
  auto wrong = [] { return fail(errc::corrupt, "not a block reference"); };
  if (b.size() < 5 || b[0] != format || static_cast<unsigned char>(b[1]) > 1) return wrong();
  reference_value v;
  v.withdrawn = b[1] == 1;
  std::size_t owner = read_u16(b.substr(2));
  if (owner > owner_bytes_max || b.size() < 5 + owner) return wrong();
  v.owner = bytes(b.substr(4, owner));
  std::size_t guests = static_cast<unsigned char>(b[4 + owner]);
  b.remove_prefix(5 + owner);
  if (guests > guests_max || b.size() != guests * node_id::size_bytes) return wrong();
  for (std::size_t i = 0; i < guests; ++i)
    v.guests.push_back(*node_id::from_bytes(b.substr(i * node_id::size_bytes, node_id::size_bytes)));
  tidy(v);
  return v;
}

bytes join_references(bytes_view a, bytes_view b) {
  auto x = decode_reference(a), y = decode_reference(b);
  if (!x && !y) return bytes(std::max(a, b));
  if (!x || !y) return encode(x ? *x : *y);
  x->withdrawn |= y->withdrawn;
  x->owner = std::max(x->owner, y->owner);
  x->guests.insert(x->guests.end(), y->guests.begin(), y->guests.end());
  return encode(std::move(*x));
}

table::row_key reference_key(const reference& r) {
  // Versions carry 64 random bits; the digest only tells two owners of one version apart.
  bytes sort = r.version.str();
  u128 d = xxh3_128(r.owner);
  append_u64(sort, d.high);
  append_u64(sort, d.low);
  return {table::table_id::reference, r.hash.str(), std::move(sort)};
}

table::write_item reference_item(const reference& r, std::vector<node_id> guests, bool withdrawn) {
  return {reference_key(r), {true, encode({withdrawn, r.owner, std::move(guests)}), nullptr}};
}

bytes encode_owner(const table::row_key& k) {
  bytes b{static_cast<char>(k.table)};
  append_u16(b, static_cast<std::uint16_t>(k.partition_key.size()));
  return b + k.partition_key + k.sort_key;
}

result<table::row_key> decode_owner(bytes_view b) {
  if (b.size() < 3 || b.size() > owner_bytes_max) return fail(errc::corrupt, "not the owner of a block");
  std::size_t n = read_u16(b.substr(1));
  if (b.size() < 3 + n) return fail(errc::corrupt, "not the owner of a block");
  return table::row_key{static_cast<table::table_id>(b[0]), bytes(b.substr(3, n)), bytes(b.substr(3 + n))};
}

}  // namespace grenier::block
