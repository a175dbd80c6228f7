// errors.h: what went wrong, in S3's words: code, HTTP status and message of every answer that is no success.
//
// One table maps our errc to S3's codes; a refusal found by the gateway itself names its S3 code directly.
//
//   Runs on   any thread; values.
//   Source    the S3 API reference, "Error responses".
#pragma once

#include "http/http.h"

namespace grenier::s3 {

enum class code : std::uint8_t {
  access_denied,
  access_forbidden,
  authorization_header_malformed,
  authorization_query_parameters_error,
  bad_digest,
  bucket_already_exists,
  bucket_already_owned_by_you,
  bucket_not_empty,
  entity_too_large,
  entity_too_small,
  incomplete_body,
  insufficient_storage,
  internal_error,
  invalid_access_key_id,
  invalid_argument,
  invalid_bucket_name,
  invalid_digest,
  invalid_part,
  invalid_part_order,
  invalid_range,
  invalid_request,
  invalid_storage_class,
  invalid_tag,
  invalid_uri,
  key_too_long,
  malformed_acl,
  malformed_trailer,
  malformed_xml,
  metadata_too_large,
  method_not_allowed,
  missing_content_length,
  missing_security_header,
  no_such_bucket,
  no_such_bucket_policy,
  no_such_cors_configuration,
  no_such_key,
  no_such_lifecycle_configuration,
  no_such_public_access_block_configuration,
  no_such_tag_set,
  no_such_upload,
  no_such_version,
  no_such_website_configuration,
  not_implemented,
  not_modified,
  object_lock_configuration_not_found,
  operation_aborted,
  ownership_controls_not_found,
  precondition_failed,
  quota_exceeded,
  replication_configuration_not_found,
  request_time_too_skewed,
  request_timeout,
  server_side_encryption_configuration_not_found,
  service_unavailable,
  signature_does_not_match,
  slow_down,
  x_amz_content_sha256_mismatch,
};

struct code_info {
  code id;
  std::string_view name;     // "NoSuchKey"
  int status;
  std::string_view message;  // for people, when nothing more exact is known
};
const code_info& info(code) noexcept;
std::span<const code_info> all_codes() noexcept;
// What an error of the store is called in S3.
code code_of(errc) noexcept;

struct failure {
  code id = code::internal_error;
  std::string message;  // empty: the code's own
  std::string inside;   // for the log only
  failure(code c) : id(c) {}  // NOLINT: a code alone is a failure
  failure(code c, std::string m) : id(c), message(std::move(m)) {}
  // The detail goes on to the client, unless the fault is inside this node: then it is for the log only.
  failure(const error& e);  // NOLINT
};
template <class T = void>
using outcome = std::expected<T, failure>;
inline std::unexpected<failure> refuse(code c) { return std::unexpected<failure>(failure(c)); }
inline std::unexpected<failure> refuse(code c, std::string m) {
  return std::unexpected<failure>(failure(c, std::move(m)));
}

// As TRY and CO_TRY, for functions that return an outcome; the operand may be a result or an outcome.
#define GRENIER_S3_TRY(ret, tmp, decl, ...)                                             \
  auto tmp = (__VA_ARGS__);                                                             \
  if (!tmp) [[unlikely]]                                                                \
    ret std::unexpected<::grenier::s3::failure>(::grenier::s3::failure(tmp.error()));   \
  decl = std::move(*tmp)
#define GRENIER_S3_TRY_VOID(ret, ...)                                                         \
  do {                                                                                        \
    if (auto r_ = (__VA_ARGS__); !r_) [[unlikely]]                                            \
      ret std::unexpected<::grenier::s3::failure>(::grenier::s3::failure(r_.error()));        \
  } while (0)
#define S3_TRY(decl, ...) GRENIER_S3_TRY(return, GRENIER_CAT(s3_try_, __LINE__), decl, __VA_ARGS__)
#define S3_CO_TRY(decl, ...) GRENIER_S3_TRY(co_return, GRENIER_CAT(s3_try_, __LINE__), decl, __VA_ARGS__)
#define S3_TRY_VOID(...) GRENIER_S3_TRY_VOID(return, __VA_ARGS__)
#define S3_CO_TRY_VOID(...) GRENIER_S3_TRY_VOID(co_return, __VA_ARGS__)

// The answer that tells it: XML with Code, Message, Resource and RequestId; Retry-After where trying again helps.
http::response error_response(const failure&, std::string_view resource, std::string_view request_id);

}  // namespace grenier::s3
