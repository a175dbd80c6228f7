// model/model.h: what the rows are: buckets, access keys, objects, uploads and parts; their byte forms, and who may do what.
//
// Values without I/O. Byte forms are Protobuf with a format number, so that a later version can tell what it reads.
//
//   Runs on   any thread.
//   Errors    decoding: corrupt (the bytes are no such row), protocol (written by a newer version).
//   Not here  where rows are kept (table/), the operations on them (store/).
#pragma once

#include "crypto/crypto.h"
#include "table/table.h"

namespace grenier::model {

// ------------------------------------------------------------------------------------------------- keys and buckets

struct access_key {
  std::string id, secret;             // the S3 pair
  std::string owner_id;               // whom it acts for: 64 hex digits, or what --owner-id gave
  std::string name, display_name, email;
  bool may_create_buckets = true;
  std::uint64_t created_ms = 0;
  friend bool operator==(const access_key&, const access_key&) = default;
};

struct permission {
  bool read = false, write = false, owner = false;
  friend bool operator==(const permission&, const permission&) = default;
};

struct website {
  std::string index_document;         // not empty, without '/'
  std::string error_document;         // may be empty
  friend bool operator==(const website&, const website&) = default;
};

struct tag {
  std::string key, value;
  friend bool operator==(const tag&, const tag&) = default;
};

// Of a bucket whose pictures are shown as a gallery.
struct gallery {
  std::string pages;                  // the bucket that its pages, renditions and catalogue are written to
  std::string title;
  bool show_places = false;           // else no page and no record says where a photo was taken
  friend bool operator==(const gallery&, const gallery&) = default;
};

// Who shows its token may look at a private gallery.
struct gallery_link {
  std::string name;                   // for people
  bytes token_sha256;                 // 32 bytes; the token itself is not kept
  std::uint64_t created_ms = 0, expires_ms = 0;  // 0: never
  friend bool operator==(const gallery_link&, const gallery_link&) = default;
};

// Of the bucket with a gallery's pages.
struct gallery_pages {
  std::string source;                 // the bucket with the pictures
  bool is_private = false;
  std::vector<gallery_link> links;    // at most 1000
  friend bool operator==(const gallery_pages&, const gallery_pages&) = default;
};

struct bucket {
  bucket_id id;
  std::string name;
  std::string owner_id, owner_name;
  std::uint64_t created_ms = 0;
  std::string region;
  bool closed = false;                // DeleteBucket looks whether it is empty
  std::uint64_t closed_at = 0;        // hybrid time of that DeleteBucket: only it, or whoever reopens, goes on from here
  std::map<std::string, permission> allowed;   // by access key id
  std::optional<model::website> website;
  std::vector<std::string> aliases;   // further names (host names of sites)
  std::optional<model::gallery> gallery;
  std::optional<model::gallery_pages> gallery_pages;
  ballot seen;                        // of the row this was read from: the fence of requests judged by it
};

// AWS's rules: 3..63 of [a-z0-9.-], no "..", not an IP address ...; else invalid_argument with the rule that was broken.
result<void> check_bucket_name(std::string_view);
// Further names are host names: 1..253 of [a-z0-9.-] in labels of 1..63; else invalid_argument.
result<void> check_alias_name(std::string_view);

enum class action : std::uint8_t {
  create_bucket, list_buckets, delete_bucket, head_bucket, read_bucket_settings, write_bucket_settings, list_objects,
  get_object, put_object, delete_object, read_object_tags, write_object_tags, list_uploads, abort_upload, list_parts, serve_website,
  admin,
};
struct request_facts {
  const access_key* key = nullptr;    // null: anonymous
  bool admin = false;
  const model::bucket* bucket = nullptr;
  const gallery_link* link = nullptr;  // of this bucket, whose token was shown and is not over
};
// The one place that decides. Deny by default: true only when a rule allows it.
bool authorize(action, const request_facts&) noexcept;

// ------------------------------------------------------------------------------------------------- objects

struct checksum {
  crypto::hash_kind kind{};
  bytes value;
  bool composite = false;             // of the parts' checksums; value then is of those
  std::uint32_t parts = 0;
  friend bool operator==(const checksum&, const checksum&) = default;
};

// What a client said of its object and gets back.
struct object_headers {
  std::string content_type, content_encoding, content_disposition, content_language, cache_control, expires;
  std::string website_redirect, storage_class;
  std::vector<tag> metadata;          // x-amz-meta-*, names in lower case without the prefix, in order
  friend bool operator==(const object_headers&, const object_headers&) = default;
};

struct block_entry {
  block_hash hash;
  std::uint32_t size = 0;             // plain bytes
};
// A part of a completed upload. Its blocks are still referred to as the part's: by its version, owned by its row key.
struct part_entry {
  std::uint32_t number = 0;
  std::uint64_t size = 0;
  std::string etag;                   // may be empty: ten thousand of them would fill a row
  std::vector<checksum> checksums;
  version_id version;
  std::uint32_t blocks = 0;           // how many of the object's blocks are its
};

struct object_meta {
  version_id version;
  std::uint64_t size = 0;
  std::uint64_t modified_ms = 0;
  std::string etag;                   // without quotes
  std::string owner_id, owner_name;
  object_headers headers;
  std::vector<tag> tags;
  std::vector<checksum> checksums;
  std::vector<part_entry> parts;      // of a multipart upload
  std::optional<content_id> content;  // SHA-256 of the whole file, where known
};

// The row of one object version. Exactly one of: body beside the row, blocks, or manifests (blocks that list blocks).
struct object_row {
  object_meta meta;
  bool delete_marker = false;
  bool inline_body = false;
  std::vector<block_entry> blocks;
  std::vector<block_entry> manifests; // when there are more than manifest_entries_max blocks: content encode_manifest()
  std::uint64_t manifest_blocks = 0;
  upload_id upload;                   // whose parts they are; zero for an object that was put whole
  bytes encryption;                   // reserved for sealed buckets: the envelope; empty
  std::string placement_class;        // empty: the default
};
inline constexpr std::size_t manifest_entries_max = 4096;
bytes encode_manifest(std::span<const block_entry>);
result<std::vector<block_entry>> decode_manifest(bytes_view);

struct upload_row {
  upload_id id;
  std::string key;
  std::uint64_t started_ms = 0;
  std::string owner_id, owner_name;
  object_headers headers;
  std::vector<tag> tags;
  std::optional<crypto::hash_kind> checksum_kind;
  bool checksum_composite = false;
  // A finished upload keeps what it became so that completing twice answers the same. completing: `became` was sent to the
  // object's row along with this; whether it is there the object's row alone tells.
  enum class status : std::uint8_t { open, completed, aborted, completing } state = status::open;
  version_id became;
  std::string etag;
  std::vector<checksum> checksums;    // of the whole, once completing
  std::uint64_t size = 0;
};

struct part_row {
  std::uint32_t number = 0;
  version_id version;                 // of this upload of the part: its blocks' references
  std::uint64_t size = 0, modified_ms = 0;
  std::string etag;                   // MD5, hex
  std::vector<checksum> checksums;
  bool inline_body = false;
  std::vector<block_entry> blocks;
};

// Decoders are safe on hostile bytes: rows to 1 MiB, 10000 parts, 4096 entries a list of anything else.
bytes encode(const access_key&);
bytes encode(const bucket&);
bytes encode(const object_row&);
bytes encode(const upload_row&);
bytes encode(const part_row&);
result<access_key> decode_key(bytes_view);
result<bucket> decode_bucket(bytes_view);
result<object_row> decode_object(bytes_view);
result<upload_row> decode_upload(bytes_view);
result<part_row> decode_part(bytes_view);
// What a listing ships of an object row (no metadata, no blocks); nothing for a delete marker. Read it with decode_object.
std::optional<bytes> list_projection(bytes_view object_row);

// ------------------------------------------------------------------------------------------------- where rows lie

// Which partition a key of a bucket is in is hidden here: today all of a bucket is in one.
table::row_key object_key(const bucket_id&, std::string_view key);
result<std::pair<bucket_id, std::string>> split_object_key(const table::row_key&);
table::row_key upload_key(const bucket_id&, std::string_view key, const upload_id&);
table::row_key part_key(const bucket_id&, std::string_view key, const upload_id&, std::uint32_t number);  // beside its object
table::row_key bucket_key(const bucket_id&);
table::row_key alias_key(std::string_view name);   // value: the bucket's id
table::row_key access_key_key(std::string_view id);
// The sort keys' parts, for lists.
result<std::pair<std::string, upload_id>> split_upload_key(bytes_view sort_key);
result<std::uint32_t> part_number_of(bytes_view sort_key);

version_id make_version(hlc_time, random_source&);

}  // namespace grenier::model
