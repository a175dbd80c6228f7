#include "signer.h"

#include <ctime>

#include "crypto/crypto.h"

namespace grenier::bench {

std::string percent_encoded(std::string_view text) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string out;
  for (unsigned char c : text) {
    if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~') {
      out += static_cast<char>(c);
    } else {
      out += '%';
      out += digits[c >> 4];
      out += digits[c & 15];
    }
  }
  return out;
}

std::string to_string(const query& q) {
  std::string out;
  for (const auto& [name, value] : q) out += (out.empty() ? "" : "&") + percent_encoded(name) + "=" + percent_encoded(value);
  return out;
}

std::string signer::headers(std::string_view method, std::string_view authority, std::string_view path, const query& q, std::string_view content_sha256,
                            std::uint64_t now_ms) {
  char text[32];
  auto seconds = static_cast<std::time_t>(now_ms / 1000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &utc);
  const std::string time = text, day = time.substr(0, 8);
  if (day != day_) {
    key_ = crypto::hmac_sha256("AWS4" + secret_key_, day);
    for (const std::string& part : {region_, std::string("s3"), std::string("aws4_request")}) key_ = crypto::hmac_sha256(key_, part);
    day_ = day;
  }
  static constexpr std::string_view signed_headers = "host;x-amz-content-sha256;x-amz-date";
  std::string canonical;
  for (std::string_view piece : {method, std::string_view("\n"), path, std::string_view("\n")}) canonical += piece;
  canonical += to_string(q) + "\nhost:";
  canonical.append(authority).append("\nx-amz-content-sha256:").append(content_sha256).append("\nx-amz-date:").append(time);
  canonical.append("\n\n").append(signed_headers).append("\n").append(content_sha256);
  const std::string scope = day + "/" + region_ + "/s3/aws4_request";
  const std::string to_sign = "AWS4-HMAC-SHA256\n" + time + "\n" + scope + "\n" + to_hex(crypto::digest(crypto::hash_kind::sha256, canonical));
  std::string out = "x-amz-date: " + time + "\r\nx-amz-content-sha256: ";
  out.append(content_sha256).append("\r\nAuthorization: AWS4-HMAC-SHA256 Credential=").append(access_key_).append("/").append(scope);
  out.append(", SignedHeaders=").append(signed_headers).append(", Signature=").append(to_hex(crypto::hmac_sha256(key_, to_sign))).append("\r\n");
  return out;
}

}  // namespace grenier::bench
