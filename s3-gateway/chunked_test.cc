// The aws-chunked machine: the reference's examples whole, byte by byte, and broken at every place.
#include "chunked.h"

#include <doctest/doctest.h>

using namespace grenier;
using namespace grenier::s3;

namespace {

constexpr std::string_view secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

chunk_decoder::options example_options() {
  return {.payload = payload::streaming_signed,
          .key = derive_key(secret, "20130524", "us-east-1"),
          .timestamp = "20130524T000000Z",
          .scope = "20130524/us-east-1/s3/aws4_request",
          .seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
          .decoded_size = 66560};
}

bytes example_body() {
  return "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + bytes(65536, 'a') + "\r\n" +
         "400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + bytes(1024, 'a') + "\r\n" +
         "0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n";
}

chunk_decoder::options trailer_options() {
  auto o = example_options();
  o.payload = payload::streaming_signed_trailer;
  o.seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
  o.trailers = {"x-amz-checksum-crc32c"};
  return o;
}

bytes trailer_body(std::string_view between) {
  return "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" + bytes(65536, 'a') + "\r\n" +
         "400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" + bytes(1024, 'a') + "\r\n" +
         "0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n" + "x-amz-checksum-crc32c:sOO8/Q==" +
         std::string(between) + "x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n";
}

chunk_decoder::options unsigned_options(std::uint64_t size) {
  return {.payload = payload::streaming_unsigned_trailer, .trailers = {"x-amz-checksum-crc32"}, .decoded_size = size};
}

// The decoded bytes, or how it failed.
outcome<bytes> decode(chunk_decoder::options o, bytes_view raw, std::size_t piece) {
  chunk_decoder d(std::move(o));
  bytes out;
  for (std::size_t at = 0; at < raw.size(); at += piece) {
    S3_TRY_VOID(d.feed(raw.substr(at, piece)));
    out += d.ready();
    d.take(d.ready().size());
  }
  S3_TRY_VOID(d.finish());
  CHECK(d.done());
  CHECK(d.decoded() == out.size());
  return out;
}

}  // namespace

TEST_CASE("example: an upload in signed chunks, whatever the pieces it comes in") {
  for (std::size_t piece : {std::size_t(1) << 20, std::size_t(65536), std::size_t(1000), std::size_t(1)})
    CHECK(decode(example_options(), example_body(), piece) == bytes(66560, 'a'));
}

TEST_CASE("example: signed chunks with a signed trailer") {
  for (const char* between : {"\r\n", "\n\r\n"}) {
    for (std::size_t piece : {std::size_t(1) << 20, std::size_t(7)}) CHECK(decode(trailer_options(), trailer_body(between), piece) == bytes(66560, 'a'));
  }
  bytes changed = trailer_body("\r\n");
  changed.replace(changed.find("sOO8"), 4, "sOO9");
  auto r = decode(trailer_options(), changed, 4096);
  REQUIRE_FALSE(r);
  CHECK(r.error().id == code::signature_does_not_match);
}

TEST_CASE("bytes of a signed chunk become ready only when its signature was right") {
  chunk_decoder d(example_options());
  bytes body = example_body();
  auto end_of_first = body.find("\r\n", 100);
  REQUIRE(d.feed(bytes_view(body).substr(0, end_of_first - 1)));
  CHECK(d.ready().empty());
  REQUIRE(d.feed(bytes_view(body).substr(end_of_first - 1, 1)));
  CHECK(d.ready().size() == 65536);

  chunk_decoder e(example_options());
  body[1000] = 'b';
  auto r = e.feed(body);
  REQUIRE_FALSE(r);
  CHECK(r.error().id == code::signature_does_not_match);
  CHECK(e.ready().empty());
  CHECK_FALSE(e.feed("x"));  // it stays failed
}

TEST_CASE("a chunk cannot be left out, moved, or cut off") {
  bytes body = example_body();
  auto second = body.find("400;"), last = body.find("0;chunk-signature=b6");
  for (bytes_view bad : {bytes_view(body).substr(second), bytes_view(body).substr(0, second), bytes_view(body).substr(0, last),
                         bytes_view(body).substr(0, last + 30), bytes_view(body).substr(0, 0)})
    CHECK_FALSE(decode(example_options(), bad, 1 << 20));
  bytes without = body.substr(0, second) + body.substr(last);
  CHECK_FALSE(decode(example_options(), without, 1 << 20));
  CHECK_FALSE(decode(example_options(), body + "x", 1 << 20));
  // The last line's end may be missing: the last chunk was proved.
  CHECK(decode(example_options(), bytes_view(body).substr(0, body.size() - 2), 1 << 20));
}

TEST_CASE("unsigned chunks with a trailer") {
  bytes body = "5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";
  for (std::size_t piece = 1; piece < body.size(); ++piece) CHECK(decode(unsigned_options(11), body, piece) == "hello world");
  chunk_decoder d(unsigned_options(11));
  REQUIRE(d.feed(body));
  CHECK(d.done());
  REQUIRE(d.trailers().size() == 1);
  CHECK(d.trailers()[0] == std::pair<std::string, std::string>("x-amz-checksum-crc32", "DUoRhQ=="));
}

TEST_CASE("a promised trailer must come, another may not") {
  auto failed_with = [](bytes_view raw) {
    auto r = decode(unsigned_options(2), raw, 3);
    REQUIRE_FALSE(r);
    return r.error().id;
  };
  CHECK(failed_with("2\r\nhi\r\n0\r\n\r\n") == code::malformed_trailer);
  CHECK(failed_with("2\r\nhi\r\n0\r\nx-amz-checksum-sha1:AAAA\r\n\r\n") == code::malformed_trailer);
  CHECK(failed_with("2\r\nhi\r\n0\r\nnonsense\r\n\r\n") == code::malformed_trailer);
  CHECK(failed_with("2\r\nhi\r\n0\r\nx-amz-checksum-crc32:a\r\nx-amz-checksum-crc32:b\r\n\r\n") == code::malformed_trailer);
  CHECK(failed_with("2\r\nhi\r\n0\r\nx-amz-checksum-crc32:" + bytes(9000, 'a') + "\r\n\r\n") == code::invalid_request);
}

TEST_CASE("sizes are bounded and must add up") {
  auto failed_with = [](bytes_view raw, std::uint64_t size) {
    auto r = decode(unsigned_options(size), raw, 5);
    REQUIRE_FALSE(r);
    return r.error().id;
  };
  const bytes end = "0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
  CHECK(failed_with("3\r\nabc\r\n" + end, 2) == code::incomplete_body);
  CHECK(failed_with("3\r\nabc\r\n" + end, 4) == code::incomplete_body);
  CHECK(failed_with("ffffffffffffffff\r\nabc\r\n" + end, 4) == code::incomplete_body);
  CHECK(failed_with("fffffffffffffffff\r\nabc\r\n" + end, 4) == code::invalid_request);
  CHECK(failed_with("-3\r\nabc\r\n" + end, 3) == code::invalid_request);
  CHECK(failed_with("\r\nabc\r\n" + end, 3) == code::invalid_request);
  CHECK(failed_with("zz\r\nabc\r\n" + end, 3) == code::invalid_request);
  CHECK(failed_with("3\r\nabcd\r\n" + end, 3) == code::invalid_request);
  CHECK(failed_with(bytes(1000, '1'), 3) == code::invalid_request);

  auto o = example_options();
  o.decoded_size.reset();
  chunk_decoder d(o);
  auto r = d.feed("200001;chunk-signature=" + std::string(64, 'a') + "\r\n");
  REQUIRE_FALSE(r);
  CHECK(r.error().id == code::entity_too_large);
}
