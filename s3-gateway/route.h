// route.h: which operation a request asks for, of which bucket and key.
//
//   Runs on   any thread.
//   Errors    InvalidURI, MethodNotAllowed, KeyTooLongError, InvalidArgument.
//   Source    the S3 API reference; "Virtual hosting of buckets".
#pragma once

#include "model/model.h"
#include "signature.h"

namespace grenier::s3 {

enum class operation : std::uint8_t {
  none,
  unsupported,  // S3 has it and it would be wrong to ignore: 501
  preflight,
  list_buckets,
  create_bucket,
  delete_bucket,
  head_bucket,
  get_bucket_location,
  get_bucket_acl,
  put_bucket_acl,
  get_bucket_website,
  put_bucket_website,
  delete_bucket_website,
  get_bucket_setting,     // those that every bucket answers alike
  delete_bucket_setting,  // those that no bucket has
  list_objects,
  list_objects_v2,
  list_object_versions,
  list_uploads,
  delete_objects,
  get_object,
  head_object,
  put_object,
  delete_object,
  copy_object,
  get_object_acl,
  put_object_acl,
  get_object_tagging,
  put_object_tagging,
  delete_object_tagging,
  get_object_attributes,
  create_upload,
  upload_part,
  upload_part_copy,
  complete_upload,
  abort_upload,
  list_parts,
};
std::string_view to_string(operation) noexcept;  // "GetObject"
model::action action_of(operation) noexcept;
bool is_on_object(operation) noexcept;

struct target {
  operation op = operation::none;
  std::string bucket, key;
  std::string subresource;  // "policy"
  query_list query;
};
outcome<target> route(const http::request&, std::string_view s3_domain);

}  // namespace grenier::s3
