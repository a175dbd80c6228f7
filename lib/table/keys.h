// table/keys.h: where a row lies in the node's store: partition, table, partition key, sort key, in that order.
//
//   Errors    decoding: corrupt.
#pragma once

#include "table/table.h"

namespace grenier::table {

inline constexpr std::size_t partition_key_max = 255, sort_key_max = 1100, row_max = 1 << 20, body_max = 64 << 10;
inline constexpr std::size_t rows_max = 1000;

// Of families row and body: u16 partition | u8 table | u8 length | partition key | sort key.
bytes place(layout::partition, const row_key&);
// What all rows of a partition, and of one partition key, begin with.
bytes partition_prefix(layout::partition);
bytes group_prefix(layout::partition, table_id, bytes_view partition_key);
// The first key after all that begin with this; empty: there is none.
bytes after_prefix(bytes prefix);

struct located {
  layout::partition partition = 0;
  row_key key;
};
result<located> locate(bytes_view place);

bool known(table_id) noexcept;
// invalid_argument, too_large.
result<void> check(const row_key&);
result<void> check(const row_value&);

// The layout's own row is in partition 0, where a node that knows little else finds it.
layout::partition partition_of(const row_key&, std::size_t partition_count);

// What a register holds of a row: flags, then the row. The body travels beside it.
bytes pack(const row_value&);
struct unpacked {
  bool present = false, has_body = false;
  bytes_view row;
};
// Nothing packed (a row never written) is not present.
result<unpacked> unpack(bytes_view);

}  // namespace grenier::table
