// store/conditions.h: conditions, ranges and limits of requests: pure functions.
//
//   Source    RFC 9110, sections 13.1, 13.2.2 and 14; the S3 API reference.
#pragma once

#include "store/store.h"

namespace grenier::store {

// Is the ETag (without quotes) in the header's list, or the list "*"?
bool etag_matches(std::string_view header, std::string_view etag);
// For GET and HEAD: not_modified or condition_failed.
result<void> check_read(const conditions&, const object_meta&);
// For the source of a copy: whatever fails is condition_failed.
result<void> check_source(const conditions&, const object_meta&);
// For a change; null: there is no object. If-Match of nothing: no_such_key; else condition_failed.
result<void> check_write(const conditions&, const object_meta* current);

struct byte_range {
  std::uint64_t first = 0, length = 0;
};
// Nothing: the header is to be ignored (malformed, several ranges, another unit). invalid_range: nothing of it is there.
result<std::optional<byte_range>> parse_range(std::string_view header, std::uint64_t size);
// The one of an upload_part_copy: both ends given and inside, else invalid_range.
result<byte_range> parse_copy_range(std::string_view header, std::uint64_t size);

inline constexpr std::uint64_t object_size_max = 5ull << 40;
inline constexpr std::uint64_t part_size_max = 5ull << 30;
inline constexpr std::uint32_t part_number_max = 10000;
inline constexpr std::size_t key_size_max = 1024;

// 1..1024 bytes of UTF-8 without a zero byte.
result<void> check_key(std::string_view);
result<void> check_headers(const model::object_headers&);
result<void> check_tags(const std::vector<model::tag>&);

}  // namespace grenier::store
