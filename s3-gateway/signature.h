// signature.h: AWS Signature Version 4, checked without I/O: a request and a secret in, yes or no out.
//
// Any region name is taken as long as the signature was computed with it; the service must be s3. The path is signed as S3 does
// it (encoded once); a path that was sent in another form than its normal one may be signed in either.
//
//   Runs on   any thread; key_cache: its home thread.
//   Errors    AccessDenied, AuthorizationHeaderMalformed, InvalidRequest, RequestTimeTooSkewed, SignatureDoesNotMatch.
//   Limits    clocks may differ by 15 minutes; a presigned request lives from 1 second to 7 days.
//   Not here  whose secret it is (store/), what the key may do (model/), chunk bodies (chunked.h).
//   Source    "Authenticating Requests (AWS Signature Version 4)" in the S3 API reference.
#pragma once

#include "errors.h"

namespace grenier::s3 {

using query_list = std::vector<std::pair<std::string, std::string>>;  // decoded, in order

enum class payload : std::uint8_t {
  signed_hash,                 // the hex SHA-256 of the body
  unsigned_body,               // UNSIGNED-PAYLOAD
  streaming_signed,            // STREAMING-AWS4-HMAC-SHA256-PAYLOAD
  streaming_signed_trailer,    // ... -TRAILER
  streaming_unsigned_trailer,  // STREAMING-UNSIGNED-PAYLOAD-TRAILER
};
constexpr bool is_streaming(payload p) noexcept { return p >= payload::streaming_signed; }

// What a request says about who signed it. Nothing of it is proved before verify().
struct credentials {
  std::string key_id;
  std::string date, region;                 // of the scope
  std::string timestamp;                    // "20130524T000000Z"
  std::uint64_t time_ms = 0;
  std::vector<std::string> signed_headers;  // lower case
  std::string signature;                    // 64 hex digits
  bool presigned = false;
  std::uint64_t expires_s = 0;
  s3::payload payload = s3::payload::unsigned_body;
  std::string payload_text;                 // as it stands in the canonical request
  std::optional<bytes> content_sha256;      // 32 bytes, of payload::signed_hash
  std::string scope() const { return date + "/" + region + "/s3/aws4_request"; }
};

// Nothing: the request is anonymous.
outcome<std::optional<credentials>> read_credentials(const http::request&, const query_list&);
outcome<void> check_time(const credentials&, std::uint64_t now_ms);
// The HMAC key of a day and a region.
bytes derive_key(std::string_view secret, std::string_view date, std::string_view region);
// SignatureDoesNotMatch, or what else is wrong with what was signed. Takes the same time wherever signatures begin to differ.
outcome<void> verify(const http::request&, const query_list&, const credentials&, bytes_view key);

// The pieces, for tests and for signing in tests.
std::string canonical_path(std::string_view raw_path);
std::string canonical_request(const http::request&, const query_list&, const credentials&, std::string_view path);
std::string sign(const credentials&, std::string_view canonical_request, bytes_view key);

// "20130524T000000Z", nothing else.
std::optional<std::uint64_t> parse_timestamp(std::string_view);
std::string format_timestamp(std::uint64_t ms_since_1970);

// Derived keys, least recently used go first.
class key_cache {
 public:
  explicit key_cache(std::size_t entries_max = 1024) : entries_max_(entries_max) {}
  bytes get(std::string_view key_id, std::string_view secret, std::string_view date, std::string_view region);
  std::size_t size() const noexcept { return by_name_.size(); }

 private:
  struct entry {
    std::string name, secret;
    bytes key;
  };
  std::size_t entries_max_;
  std::list<entry> order_;  // most recently used first
  std::map<std::string, std::list<entry>::iterator, std::less<>> by_name_;
};

}  // namespace grenier::s3
