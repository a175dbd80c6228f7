// The aws-chunked machine: first byte chooses kind and pieces, the rest is the body. What is decoded must not depend on the pieces.
#include "chunked.h"

using namespace grenier;
using namespace grenier::s3;

namespace {

struct outcome_of {
  bool good = false;
  bytes decoded;
  friend bool operator==(const outcome_of&, const outcome_of&) = default;
};

outcome_of decode(payload kind, bytes_view raw, std::size_t piece) {
  chunk_decoder d({.payload = kind, .key = bytes(32, 'k'), .timestamp = "20130524T000000Z", .scope = "20130524/r/s3/aws4_request",
                   .seed = std::string(64, '0'), .trailers = {"x-amz-checksum-crc32"}, .decoded_size = std::nullopt});
  outcome_of o;
  for (std::size_t at = 0; at < raw.size(); at += piece) {
    if (!d.feed(raw.substr(at, piece))) return o;
    o.decoded += d.ready();
    d.take(d.ready().size());
  }
  o.good = d.finish().has_value();
  ASSERT(o.decoded.size() <= raw.size());
  return o;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  constexpr payload kinds[] = {payload::streaming_signed, payload::streaming_signed_trailer, payload::streaming_unsigned_trailer};
  payload kind = kinds[data[0] % 3];
  bytes_view raw(reinterpret_cast<const char*>(data) + 2, size - 2);
  auto whole = decode(kind, raw, raw.size() + 1), parts = decode(kind, raw, data[1] % 16 + 1);
  ASSERT(whole.good == parts.good);
  if (whole.good) ASSERT(whole == parts);
  return 0;
}
