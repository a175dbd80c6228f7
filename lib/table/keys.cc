#include "table/keys.h"

namespace grenier::table {

bytes partition_prefix(layout::partition p) {
  bytes b;
  append_u16(b, p);
  return b;
}

bytes group_prefix(layout::partition p, table_id t, bytes_view partition_key) {
  ASSERT(partition_key.size() <= partition_key_max);
  bytes b = partition_prefix(p);
  b.push_back(static_cast<char>(t));
  b.push_back(static_cast<char>(partition_key.size()));
  b.append(partition_key);
  return b;
}

bytes place(layout::partition p, const row_key& k) {
  bytes b = group_prefix(p, k.table, k.partition_key);
  b.append(k.sort_key);
  return b;
}

bytes after_prefix(bytes prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

bool known(table_id t) noexcept { return t >= table_id::object && t <= table_id::setting; }

result<located> locate(bytes_view b) {
  if (b.size() < 4) return fail(errc::corrupt, "a row's place is too short");
  located l;
  l.partition = read_u16(b);
  l.key.table = static_cast<table_id>(b[2]);
  const auto n = static_cast<unsigned char>(b[3]);
  if (b.size() < 4u + n) return fail(errc::corrupt, "a row's place is too short");
  l.key.partition_key = bytes(b.substr(4, n));
  l.key.sort_key = bytes(b.substr(4u + n));
  return l;
}

result<void> check(const row_key& k) {
  if (!known(k.table)) return fail(errc::invalid_argument, "there is no such table");
  if (k.partition_key.size() > partition_key_max || k.sort_key.size() > sort_key_max)
    return fail(errc::too_large, "a row's key is too long");
  return {};
}

result<void> check(const row_value& v) {
  if (v.row.size() > row_max) return fail(errc::too_large, "a row of more than 1 MiB");
  if (v.body && v.body->size() > body_max) return fail(errc::too_large, "a body of more than 64 KiB");
  return {};
}

layout::partition partition_of(const row_key& k, std::size_t partition_count) {
  if (k.table == table_id::layout) return 0;
  return layout::partition_of(k.partition_key, partition_count);
}

bytes pack(const row_value& v) {
  bytes b(1, static_cast<char>((v.present ? 1 : 0) | (v.present && v.body ? 2 : 0)));
  if (v.present) b.append(v.row);
  return b;
}

result<unpacked> unpack(bytes_view b) {
  unpacked u;
  if (b.empty()) return u;
  if (static_cast<unsigned char>(b[0]) > 3) return fail(errc::corrupt, "a row of an unknown form");
  u.present = (b[0] & 1) != 0;
  u.has_body = (b[0] & 2) != 0;
  u.row = b.substr(1);
  return u;
}

}  // namespace grenier::table
