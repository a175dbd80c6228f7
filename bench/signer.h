// bench/signer.h: AWS Signature Version 4, the signing side; written apart from the server's, so that each checks the other.
//
//   Source    "Authenticating Requests (AWS Signature Version 4)" in the S3 API reference.
#pragma once

#include <map>

#include "base/base.h"

namespace grenier::bench {

// Not yet encoded; the order of a map is the order in which they are signed (names are plain ASCII).
using query = std::map<std::string, std::string>;
std::string percent_encoded(std::string_view);  // all but A-Z a-z 0-9 - . _ ~
std::string to_string(const query&);

class signer {
 public:
  signer(std::string access_key, std::string secret_key, std::string region)
      : access_key_(std::move(access_key)), secret_key_(std::move(secret_key)), region_(std::move(region)) {}
  // The three headers of a request: x-amz-date, x-amz-content-sha256 (as given: hex, or UNSIGNED-PAYLOAD) and Authorization, each line
  // with its end. path: as it is sent. Keeps the day's key.
  std::string headers(std::string_view method, std::string_view authority, std::string_view path, const query&, std::string_view content_sha256,
                      std::uint64_t now_ms);

 private:
  std::string access_key_, secret_key_, region_;
  std::string day_;
  bytes key_;
};

}  // namespace grenier::bench
