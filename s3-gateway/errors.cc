#include "errors.h"

#include "xml.h"

namespace grenier::s3 {

namespace {

// In the order of the enum; info() indexes it.
constexpr code_info codes[] = {
    {code::access_denied, "AccessDenied", 403, "Access denied."},
    {code::access_forbidden, "AccessForbidden", 403, "Cross-origin requests are not enabled for this bucket."},
    {code::authorization_header_malformed, "AuthorizationHeaderMalformed", 400, "The Authorization header cannot be read."},
    {code::authorization_query_parameters_error, "AuthorizationQueryParametersError", 400,
     "The query parameters of the signature cannot be read."},
    {code::bad_digest, "BadDigest", 400, "The digest that was sent does not match the bytes that arrived."},
    {code::bucket_already_exists, "BucketAlreadyExists", 409, "Another owner has a bucket of this name."},
    {code::bucket_already_owned_by_you, "BucketAlreadyOwnedByYou", 409, "You have this bucket already."},
    {code::bucket_not_empty, "BucketNotEmpty", 409, "The bucket is not empty."},
    {code::entity_too_large, "EntityTooLarge", 400, "This is larger than one upload may be."},
    {code::entity_too_small, "EntityTooSmall", 400, "A part other than the last is smaller than 5 MiB."},
    {code::incomplete_body, "IncompleteBody", 400, "Not as many bytes arrived as were announced."},
    {code::insufficient_storage, "InsufficientStorage", 507, "The store is full."},
    {code::internal_error, "InternalError", 500, "Something failed inside; please try again."},
    {code::invalid_access_key_id, "InvalidAccessKeyId", 403, "There is no such access key."},
    {code::invalid_argument, "InvalidArgument", 400, "An argument is not valid."},
    {code::invalid_bucket_name, "InvalidBucketName", 400, "This is no valid bucket name."},
    {code::invalid_digest, "InvalidDigest", 400, "Content-MD5 is no digest."},
    {code::invalid_part, "InvalidPart", 400, "A part was not found, or its ETag does not match."},
    {code::invalid_part_order, "InvalidPartOrder", 400, "The parts are not listed in ascending order."},
    {code::invalid_range, "InvalidRange", 416, "The range lies outside the object."},
    {code::invalid_request, "InvalidRequest", 400, "The request is not valid."},
    {code::invalid_storage_class, "InvalidStorageClass", 400, "This is no storage class."},
    {code::invalid_tag, "InvalidTag", 400, "The tags are not valid."},
    {code::invalid_uri, "InvalidURI", 400, "The address of the request cannot be read."},
    {code::key_too_long, "KeyTooLongError", 400, "The key is longer than 1024 bytes."},
    {code::malformed_acl, "MalformedACLError", 400, "The access control list cannot be read."},
    {code::malformed_trailer, "MalformedTrailerError", 400, "The trailer cannot be read, or lacks what was announced."},
    {code::malformed_xml, "MalformedXML", 400, "The XML cannot be read, or is not what this operation takes."},
    {code::metadata_too_large, "MetadataTooLarge", 400, "User metadata is larger than 2 KiB."},
    {code::method_not_allowed, "MethodNotAllowed", 405, "The method is not allowed here."},
    {code::missing_content_length, "MissingContentLength", 411, "The request needs a Content-Length."},
    {code::missing_security_header, "MissingSecurityHeader", 400, "The request lacks a header that it must have."},
    {code::no_such_bucket, "NoSuchBucket", 404, "There is no such bucket."},
    {code::no_such_bucket_policy, "NoSuchBucketPolicy", 404, "The bucket has no policy."},
    {code::no_such_cors_configuration, "NoSuchCORSConfiguration", 404, "The bucket has no CORS configuration."},
    {code::no_such_key, "NoSuchKey", 404, "There is no such key."},
    {code::no_such_lifecycle_configuration, "NoSuchLifecycleConfiguration", 404, "The bucket has no lifecycle configuration."},
    {code::no_such_public_access_block_configuration, "NoSuchPublicAccessBlockConfiguration", 404,
     "The bucket has no public access block."},
    {code::no_such_tag_set, "NoSuchTagSet", 404, "There are no tags."},
    {code::no_such_upload, "NoSuchUpload", 404, "There is no such upload; it may have been completed or aborted."},
    {code::no_such_version, "NoSuchVersion", 404, "There is no such version."},
    {code::no_such_website_configuration, "NoSuchWebsiteConfiguration", 404, "The bucket is no website."},
    {code::not_implemented, "NotImplemented", 501, "This is not implemented."},
    {code::not_modified, "NotModified", 304, "Not modified."},
    {code::object_lock_configuration_not_found, "ObjectLockConfigurationNotFoundError", 404,
     "The bucket has no object lock configuration."},
    {code::operation_aborted, "OperationAborted", 409, "Another request changed the same thing at the same time; try again."},
    {code::ownership_controls_not_found, "OwnershipControlsNotFoundError", 404, "The bucket has no ownership controls."},
    {code::precondition_failed, "PreconditionFailed", 412, "A condition of the request does not hold."},
    {code::quota_exceeded, "QuotaExceeded", 403, "The quota of the bucket is used up."},
    {code::replication_configuration_not_found, "ReplicationConfigurationNotFoundError", 404,
     "The bucket has no replication configuration."},
    {code::request_time_too_skewed, "RequestTimeTooSkewed", 403,
     "The request's time differs from the server's by more than 15 minutes."},
    {code::request_timeout, "RequestTimeout", 400, "The rest of the request did not arrive in time."},
    {code::server_side_encryption_configuration_not_found, "ServerSideEncryptionConfigurationNotFoundError", 404,
     "The bucket has no encryption configuration."},
    {code::service_unavailable, "ServiceUnavailable", 503, "The store cannot answer now; please try again."},
    {code::signature_does_not_match, "SignatureDoesNotMatch", 403,
     "The signature is not the one computed here. Check the secret and how the request is signed."},
    {code::slow_down, "SlowDown", 503, "Too many requests; please slow down."},
    {code::x_amz_content_sha256_mismatch, "XAmzContentSHA256Mismatch", 400,
     "x-amz-content-sha256 does not match the bytes that arrived."},
};

struct mapping {
  errc from;
  code to;
};
constexpr mapping mappings[] = {
    {errc::invalid_argument, code::invalid_argument},
    {errc::access_denied, code::access_denied},
    {errc::not_implemented, code::not_implemented},
    {errc::too_large, code::entity_too_large},
    {errc::not_found, code::no_such_key},
    {errc::no_such_bucket, code::no_such_bucket},
    {errc::no_such_key, code::no_such_key},
    {errc::no_such_upload, code::no_such_upload},
    {errc::already_exists, code::bucket_already_exists},
    {errc::bucket_already_owned_by_you, code::bucket_already_owned_by_you},
    {errc::bucket_not_empty, code::bucket_not_empty},
    {errc::bad_digest, code::bad_digest},
    {errc::checksum_mismatch, code::bad_digest},
    {errc::incomplete_body, code::incomplete_body},
    {errc::invalid_part, code::invalid_part},
    {errc::invalid_part_order, code::invalid_part_order},
    {errc::part_too_small, code::entity_too_small},
    {errc::invalid_range, code::invalid_range},
    {errc::condition_failed, code::precondition_failed},
    {errc::not_modified, code::not_modified},
    {errc::conflict, code::operation_aborted},
    {errc::unavailable, code::service_unavailable},
    {errc::timed_out, code::service_unavailable},
    {errc::outcome_unknown, code::service_unavailable},
    {errc::stale_layout, code::service_unavailable},
    {errc::not_synced, code::service_unavailable},
    {errc::overloaded, code::slow_down},
    {errc::no_space, code::insufficient_storage},
    {errc::quota_exceeded, code::quota_exceeded},
    {errc::clock_skew, code::service_unavailable},
    {errc::corrupt, code::internal_error},
    {errc::io_failed, code::internal_error},
    {errc::cancelled, code::service_unavailable},
    {errc::protocol, code::internal_error},
    {errc::internal, code::internal_error},
};

}  // namespace

const code_info& info(code c) noexcept {
  auto i = static_cast<std::size_t>(c);
  ASSERT(i < std::size(codes) && codes[i].id == c);
  return codes[i];
}

std::span<const code_info> all_codes() noexcept { return codes; }

code code_of(errc e) noexcept {
  for (const mapping& m : mappings)
    if (m.from == e) return m.to;
  return code::internal_error;
}

failure::failure(const error& e) : id(code_of(e.code)) {
  if (info(id).status != 500)
    message = e.detail;
  else
    inside = e.to_string();
}

http::response error_response(const failure& f, std::string_view resource, std::string_view request_id) {
  const code_info& c = info(f.id);
  http::response r;
  r.status = c.status;
  if (c.status == 503) r.headers.add("Retry-After", c.id == code::slow_down ? "1" : "3");
  if (c.status == 304) return r;
  xml_writer x("Error", {});
  x.text("Code", c.name);
  x.text("Message", f.message.empty() ? c.message : std::string_view(f.message));
  x.text("Resource", resource);
  x.text("RequestId", request_id);
  r.headers.add("Content-Type", "application/xml");
  r.body = x.finish();
  return r;
}

}  // namespace grenier::s3
