// block/reference_row: what a row of the table `reference` holds, and how two of them join.
//
// A row says that one version of one owner uses the block, until it is withdrawn; and which guests held the block when it was written. Withdrawal
// wins for ever; guests only grow (one that handed its copy over is asked in vain). So join is commutative, associative and idempotent.
//
//   Limits    8 guests a reference: the lowest ids, so that the bound keeps the join what it is.
#pragma once

#include "block/block.h"

namespace grenier::block {

inline constexpr std::size_t guests_max = 8;
inline constexpr std::size_t owner_bytes_max = 2048;

struct reference_value {
  bool withdrawn = false;
  bytes owner;                  // empty when withdrawn
  std::vector<node_id> guests;  // sorted, each once; none when withdrawn
  friend bool operator==(const reference_value&, const reference_value&) = default;
};

bytes encode(reference_value);
result<reference_value> decode_reference(bytes_view);
// The join of two encoded values; bytes that are no value lose against any that are.
bytes join_references(bytes_view, bytes_view);

table::row_key reference_key(const reference&);
table::write_item reference_item(const reference&, std::vector<node_id> guests, bool withdrawn = false);

}  // namespace grenier::block
