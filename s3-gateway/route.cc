#include "route.h"

#include <algorithm>

#include "headers.h"

namespace grenier::s3 {

namespace {

using model::action;
using enum operation;

struct operation_info {
  operation op;
  std::string_view name;
  action needs;
};
// In the order of the enum.
constexpr operation_info operations[] = {
    {none, "-", action::admin},
    {unsupported, "Unsupported", action::admin},
    {preflight, "Preflight", action::admin},
    {list_buckets, "ListBuckets", action::list_buckets},
    {create_bucket, "CreateBucket", action::create_bucket},
    {delete_bucket, "DeleteBucket", action::delete_bucket},
    {head_bucket, "HeadBucket", action::head_bucket},
    {get_bucket_location, "GetBucketLocation", action::head_bucket},
    {get_bucket_acl, "GetBucketAcl", action::read_bucket_settings},
    {put_bucket_acl, "PutBucketAcl", action::write_bucket_settings},
    {get_bucket_website, "GetBucketWebsite", action::read_bucket_settings},
    {put_bucket_website, "PutBucketWebsite", action::write_bucket_settings},
    {delete_bucket_website, "DeleteBucketWebsite", action::write_bucket_settings},
    {get_bucket_setting, "GetBucketSetting", action::head_bucket},
    {delete_bucket_setting, "DeleteBucketSetting", action::write_bucket_settings},
    {list_objects, "ListObjects", action::list_objects},
    {list_objects_v2, "ListObjectsV2", action::list_objects},
    {list_object_versions, "ListObjectVersions", action::list_objects},
    {list_uploads, "ListMultipartUploads", action::list_uploads},
    {delete_objects, "DeleteObjects", action::delete_object},
    {get_object, "GetObject", action::get_object},
    {head_object, "HeadObject", action::get_object},
    {put_object, "PutObject", action::put_object},
    {delete_object, "DeleteObject", action::delete_object},
    {copy_object, "CopyObject", action::put_object},
    {get_object_acl, "GetObjectAcl", action::get_object},
    {put_object_acl, "PutObjectAcl", action::put_object},
    {get_object_tagging, "GetObjectTagging", action::read_object_tags},
    {put_object_tagging, "PutObjectTagging", action::write_object_tags},
    {delete_object_tagging, "DeleteObjectTagging", action::write_object_tags},
    {get_object_attributes, "GetObjectAttributes", action::get_object},
    {create_upload, "CreateMultipartUpload", action::put_object},
    {upload_part, "UploadPart", action::put_object},
    {upload_part_copy, "UploadPartCopy", action::put_object},
    {complete_upload, "CompleteMultipartUpload", action::put_object},
    {abort_upload, "AbortMultipartUpload", action::abort_upload},
    {list_parts, "ListParts", action::list_parts},
};

const operation_info& info_of(operation op) noexcept {
  const operation_info& i = operations[static_cast<std::size_t>(op)];
  ASSERT(i.op == op);
  return i;
}

enum class method : std::uint8_t { get, head, put, post, del };

struct rule {
  std::string_view subresource;  // "" : none
  method how;
  operation op;
};

// What is not listed for a known subresource is unsupported.
constexpr rule bucket_rules[] = {
    {"", method::get, list_objects},
    {"", method::head, head_bucket},
    {"", method::put, create_bucket},
    {"", method::del, delete_bucket},
    {"", method::post, unsupported},
    {"acl", method::get, get_bucket_acl},
    {"acl", method::put, put_bucket_acl},
    {"delete", method::post, delete_objects},
    {"location", method::get, get_bucket_location},
    {"uploads", method::get, list_uploads},
    {"versions", method::get, list_object_versions},
    {"website", method::get, get_bucket_website},
    {"website", method::put, put_bucket_website},
    {"website", method::del, delete_bucket_website},
    {"accelerate", method::get, get_bucket_setting},
    {"cors", method::get, get_bucket_setting},
    {"cors", method::del, delete_bucket_setting},
    {"encryption", method::get, get_bucket_setting},
    {"encryption", method::del, delete_bucket_setting},
    {"lifecycle", method::get, get_bucket_setting},
    {"lifecycle", method::del, delete_bucket_setting},
    {"logging", method::get, get_bucket_setting},
    {"notification", method::get, get_bucket_setting},
    {"object-lock", method::get, get_bucket_setting},
    {"ownershipControls", method::get, get_bucket_setting},
    {"ownershipControls", method::del, delete_bucket_setting},
    {"policy", method::get, get_bucket_setting},
    {"policy", method::del, delete_bucket_setting},
    {"policyStatus", method::get, get_bucket_setting},
    {"publicAccessBlock", method::get, get_bucket_setting},
    {"publicAccessBlock", method::del, delete_bucket_setting},
    {"replication", method::get, get_bucket_setting},
    {"replication", method::del, delete_bucket_setting},
    {"requestPayment", method::get, get_bucket_setting},
    {"tagging", method::get, get_bucket_setting},
    {"tagging", method::del, delete_bucket_setting},
    {"versioning", method::get, get_bucket_setting},
};
constexpr std::string_view bucket_only_unsupported[] = {"analytics", "intelligent-tiering", "inventory", "metrics", "metadataTable",
                                                        "metadataConfiguration", "session"};

constexpr rule object_rules[] = {
    {"", method::get, get_object},
    {"", method::head, head_object},
    {"", method::put, put_object},
    {"", method::del, delete_object},
    {"", method::post, unsupported},
    {"acl", method::get, get_object_acl},
    {"acl", method::put, put_object_acl},
    {"attributes", method::get, get_object_attributes},
    {"tagging", method::get, get_object_tagging},
    {"tagging", method::put, put_object_tagging},
    {"tagging", method::del, delete_object_tagging},
    {"uploads", method::post, create_upload},
    {"uploadId", method::get, list_parts},
    {"uploadId", method::put, upload_part},
    {"uploadId", method::post, complete_upload},
    {"uploadId", method::del, abort_upload},
};
constexpr std::string_view object_only_unsupported[] = {"legal-hold", "retention", "restore", "select", "torrent", "append", "renameObject",
                                                        "encryption"};

std::optional<method> method_of(std::string_view m) {
  if (m == "GET") return method::get;
  if (m == "HEAD") return method::head;
  if (m == "PUT") return method::put;
  if (m == "POST") return method::post;
  if (m == "DELETE") return method::del;
  return std::nullopt;
}

bool names(std::span<const rule> rules, std::span<const std::string_view> more, std::string_view subresource) {
  return std::ranges::find(rules, subresource, &rule::subresource) != rules.end() || std::ranges::find(more, subresource) != more.end();
}

operation choose(target& t, method m, const http::request& r) {
  bool object = !t.key.empty();
  std::span<const rule> rules = object ? std::span<const rule>(object_rules) : std::span<const rule>(bucket_rules);
  std::span<const std::string_view> more = object ? std::span<const std::string_view>(object_only_unsupported) : bucket_only_unsupported;
  for (const auto& [name, value] : t.query)
    if (!name.empty() && names(rules, more, name)) {
      t.subresource = name;
      break;
    }
  operation op = unsupported;
  for (const rule& one : rules)
    if (one.subresource == t.subresource && one.how == m) op = one.op;
  bool copy = r.headers.find("x-amz-copy-source").has_value();
  if (op == put_object && copy) op = copy_object;
  if (op == upload_part && copy) op = upload_part_copy;
  if (op == list_objects && find(t.query, "list-type") == "2") op = list_objects_v2;
  return op;
}

outcome<void> read_path(const http::request& r, std::string_view domain, target& t) {
  if (!r.path.starts_with('/')) return refuse(code::invalid_uri);
  std::string_view rest = std::string_view(r.path).substr(1), raw_bucket;
  std::string host = r.host();
  bool own_host = !domain.empty() && host.size() > domain.size() + 1 && host.ends_with(domain) &&
                  host[host.size() - domain.size() - 1] == '.';
  if (own_host) {
    raw_bucket = std::string_view(host).substr(0, host.size() - domain.size() - 1);
  } else {
    auto slash = rest.find('/');
    raw_bucket = rest.substr(0, slash);
    rest = slash == rest.npos ? std::string_view() : rest.substr(slash + 1);
  }
  auto name = http::percent_decode(raw_bucket), key = http::percent_decode(rest);
  if (!name || !key) return refuse(code::invalid_uri);
  if (name->size() > 255 || !is_utf8(*name)) return refuse(code::invalid_bucket_name);
  t.bucket = std::move(*name);
  t.key = std::move(*key);
  if (t.bucket.empty() && !t.key.empty()) return refuse(code::invalid_bucket_name);
  return t.key.empty() ? outcome<void>() : check_key(t.key);
}

}  // namespace

std::string_view to_string(operation op) noexcept { return info_of(op).name; }
model::action action_of(operation op) noexcept { return info_of(op).needs; }
bool is_on_object(operation op) noexcept { return op >= get_object; }

outcome<target> route(const http::request& r, std::string_view s3_domain) {
  target t;
  S3_TRY_VOID(read_path(r, s3_domain, t));
  auto query = http::parse_query(r.query);
  if (!query) return refuse(code::invalid_uri);
  t.query = std::move(*query);
  if (r.method == "OPTIONS") {
    t.op = preflight;
    return t;
  }
  auto m = method_of(r.method);
  if (!m) return refuse(code::method_not_allowed);
  if (!t.bucket.empty())
    t.op = choose(t, *m, r);
  else if (*m == method::get)
    t.op = list_buckets;
  else
    return refuse(code::method_not_allowed);
  return t;
}

}  // namespace grenier::s3
