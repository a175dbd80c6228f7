// headers.h: what the headers of a request say of an object (metadata, checksums, tags, conditions, copy sources), and the other way round.
//
//   Runs on   any thread.
//   Limits    2 KiB of user metadata; 10 tags of 128 and 256 characters; one checksum a request.
//   Source    the S3 API reference, PutObject, CopyObject and GetObject.
#pragma once

#include "signature.h"
#include "store/store.h"

namespace grenier::s3 {

// ------------------------------------------------------------------------------------------------- numbers and dates

// Digits only, at most `max`.
std::optional<std::uint64_t> parse_number(std::string_view, std::uint64_t max);
// "2009-10-12T17:50:30.000Z"
std::string format_iso(std::uint64_t ms_since_1970);
std::string quoted_etag(std::string_view etag);    // without quotes -> with
std::string bare_etag(std::string_view etag);  // with or without -> without
bool is_utf8(std::string_view) noexcept;
std::optional<std::string_view> find(const query_list&, std::string_view name);

// ------------------------------------------------------------------------------------------------- checksums

struct checksum_name {
  crypto::hash_kind kind;
  std::string_view algorithm, element, header;  // "CRC32", "ChecksumCRC32", "x-amz-checksum-crc32"
};
std::span<const checksum_name> checksum_names() noexcept;  // md5 is none of them
const checksum_name* find_checksum(crypto::hash_kind) noexcept;
std::optional<crypto::hash_kind> checksum_of_header(std::string_view lower_case_header) noexcept;
std::optional<crypto::hash_kind> checksum_of_algorithm(std::string_view) noexcept;  // any case
// base64, with "-N" for one of parts
std::string checksum_text(const store::checksum&);
// nothing when it is no checksum of this kind
std::optional<store::checksum> parse_checksum(crypto::hash_kind, std::string_view text);

struct given_checksums {
  std::vector<store::checksum> values;             // in headers
  std::vector<std::string> trailers;               // announced, lower case
  std::optional<crypto::hash_kind> compute;        // asked for, or needed for a trailer
};
outcome<given_checksums> read_checksums(const http::headers&);
// x-amz-checksum-*, and the type of the last.
void add_checksums(http::headers& to, std::span<const store::checksum>);
outcome<std::optional<bytes>> read_content_md5(const http::headers&);

// ------------------------------------------------------------------------------------------------- objects

outcome<model::object_headers> read_object_headers(const http::headers&);
void add_object_headers(http::headers& to, const store::object_meta&);
// Of an answer that no quorum agreed on (5b.15); RFC 7234, 5.5.1.
void add_stale_headers(http::headers& to);
outcome<std::vector<model::tag>> read_tagging(const http::headers&);  // x-amz-tagging
outcome<void> check_tags(std::span<const model::tag>);
// prefix: "" or "x-amz-copy-source-"
store::conditions read_conditions(const http::headers&, std::string_view prefix = {});
struct copy_source {
  std::string bucket, key;
};
outcome<copy_source> read_copy_source(const http::headers&);
outcome<void> check_key(std::string_view);
// NotImplemented for encryption, object lock, foreign ACLs and whatever else would be wrong to ignore.
outcome<void> refuse_unsupported(const http::headers&);

}  // namespace grenier::s3
