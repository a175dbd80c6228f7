// What is around every operation: who asks, bodies in all their forms, errors, ids and counters.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "test_world.h"

using namespace grenier;
using namespace grenier::s3;
using namespace grenier::s3::test;

namespace {

struct bucket_world : world {
  bucket_world() { REQUIRE(ask("PUT", "/photos").status == 200); }

  // An aws-chunked body with signed chunks.
  static bytes signed_chunks(const credentials& c, bytes_view key, std::vector<bytes> chunks) {
    std::string previous = c.signature;
    bytes out;
    chunks.push_back({});
    for (const bytes& chunk : chunks) {
      std::string to_sign = "AWS4-HMAC-SHA256-PAYLOAD\n" + c.timestamp + "\n" + c.scope() + "\n" + previous + "\n" +
                            to_hex(crypto::digest(crypto::hash_kind::sha256, "")) + "\n" + to_hex(crypto::digest(crypto::hash_kind::sha256, chunk));
      previous = to_hex(crypto::hmac_sha256(key, to_sign));
      char size[20];
      std::snprintf(size, sizeof size, "%zx", chunk.size());
      out += std::string(size) + ";chunk-signature=" + previous + "\r\n" + chunk + "\r\n";
    }
    return out;
  }
};

}  // namespace

TEST_CASE_FIXTURE(bucket_world, "who does not sign, or signs wrongly, is refused with a clear document") {
  auto r = anonymously("GET", "/");
  CHECK((r.status == 403 && code_in(r) == "AccessDenied"));
  r = anonymously("GET", "/photos/k");
  CHECK((r.status == 403 && code_in(r) == "AccessDenied"));
  r = anonymously("GET", "/nowhere/k");
  CHECK((r.status == 404 && code_in(r) == "NoSuchBucket"));
  secret = "wrong";
  r = ask("GET", "/");
  CHECK((r.status == 403 && code_in(r) == "SignatureDoesNotMatch"));
  key_id = "GKnobody";
  r = ask("GET", "/");
  CHECK((r.status == 403 && code_in(r) == "InvalidAccessKeyId"));
  r = perform(make("GET", "/photos", {{"Authorization", "AWS AKIA:abc="}, {"Date", "Fri, 24 May 2013 00:00:00 GMT"}}));
  CHECK((r.status == 400 && code_in(r) == "InvalidRequest"));
  r = perform(make("GET", "/photos", {{"x-amz-date", "20130524T000000Z"}, {"x-amz-content-sha256", "UNSIGNED-PAYLOAD"},
                                      {"Authorization", "AWS4-HMAC-SHA256 Credential=GKmain/20130524/r/s3/aws4_request, SignedHeaders=host, Signature=" +
                                                            std::string(64, '0')}}));
  CHECK((r.status == 403 && code_in(r) == "RequestTimeTooSkewed"));
}

TEST_CASE_FIXTURE(bucket_world, "another owner's bucket is closed") {
  REQUIRE(ask("PUT", "/photos/k", "body").status == 200);
  as_alt();
  for (const char* method : {"GET", "PUT", "DELETE"}) CHECK(ask(method, "/photos/k").status == 403);
  CHECK(ask("GET", "/photos").status == 403);
  CHECK(ask("PUT", "/photos").status == 409);
  auto head = ask("HEAD", "/photos/k");
  CHECK((head.status == 403 && head.body.empty()));
}

TEST_CASE_FIXTURE(bucket_world, "any region, and any style of address") {
  region = "mars-north-1";
  CHECK(ask("PUT", "/photos/k", "body").status == 200);
  auto r = ask("GET", "/k", {}, {{"Host", "photos.s3.localhost:3900"}});
  CHECK((r.status == 200 && r.body == "body"));
}

TEST_CASE_FIXTURE(bucket_world, "a presigned request, its expiry and its overrides") {
  REQUIRE(ask("PUT", "/photos/k", "body").status == 200);
  auto presigned = [&](std::string more, std::uint64_t expires) {
    credentials c{.key_id = key_id, .region = region, .signed_headers = {"host"}, .presigned = true, .payload_text = "UNSIGNED-PAYLOAD"};
    c.timestamp = format_timestamp(rt.wall_ms() - 20'000);
    c.date = c.timestamp.substr(0, 8);
    auto r = make("GET", "/photos/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + http::percent_encode(key_id + "/" + c.scope()) + "&X-Amz-Date=" +
                             c.timestamp + "&X-Amz-Expires=" + std::to_string(expires) + "&X-Amz-SignedHeaders=host" + more, {});
    std::string s = sign(c, canonical_request(r, *http::parse_query(r.query), c, r.path), derive_key(secret, c.date, c.region));
    r.query += "&X-Amz-Signature=" + s;
    return perform(r);
  };
  auto r = presigned("&response-content-type=text%2Fplain&response-cache-control=no-cache", 60);
  CHECK(r.status == 200);
  CHECK(r.body == "body");
  CHECK(r.headers.get("content-type") == "text/plain");
  CHECK(r.headers.get("cache-control") == "no-cache");
  r = presigned("", 10);
  CHECK((r.status == 403 && code_in(r) == "AccessDenied"));
  r = presigned("&response-content-type=a%0d%0aSet-Cookie:b", 60);
  CHECK((r.status == 400 && code_in(r) == "InvalidArgument"));
}

TEST_CASE_FIXTURE(bucket_world, "a body is not read before it is known that it may come") {
  as_alt();
  fake_exchange x;
  x.req = make("PUT", "/photos/k", {{"Expect", "100-continue"}});
  x.req.content_length = 4;
  x.body = "body";
  sign_request(x.req, "UNSIGNED-PAYLOAD");
  perform(x);
  CHECK((x.sent.status == 403 && x.reads == 0));
  fake_exchange y;
  y.req = make("PUT", "/nowhere/k", {});
  y.req.content_length = 4;
  y.body = "body";
  sign_request(y.req, "UNSIGNED-PAYLOAD");
  perform(y);
  CHECK((y.sent.status == 404 && y.reads == 0));
}

TEST_CASE_FIXTURE(bucket_world, "payloads: unsigned, signed, wrongly signed, without a length") {
  auto r = make("PUT", "/photos/k", {});
  r.content_length = 4;
  sign_request(r, "UNSIGNED-PAYLOAD");
  CHECK(perform(r, "body").status == 200);
  CHECK(ask("GET", "/photos/k").body == "body");

  r = make("PUT", "/photos/k", {});
  r.content_length = 4;
  sign_request(r, to_hex(bytes(32, 'x')));
  CHECK(perform(r, "body").status == 400);

  r = make("PUT", "/photos/k", {});
  sign_request(r, "UNSIGNED-PAYLOAD");
  auto answer = perform(r);
  CHECK((answer.status == 411 && code_in(answer) == "MissingContentLength"));

  r = make("PUT", "/photos/k", {});
  r.chunked = true;
  sign_request(r, "UNSIGNED-PAYLOAD");
  CHECK(perform(r, "longer body").status == 200);

  r = make("PUT", "/photos/k", {});
  r.content_length = (5ull << 30) + 1;
  sign_request(r, "UNSIGNED-PAYLOAD");
  answer = perform(r);
  CHECK((answer.status == 400 && code_in(answer) == "EntityTooLarge"));

  r = make("PUT", "/photos/k", {});
  r.content_length = 10;
  sign_request(r, "UNSIGNED-PAYLOAD");
  answer = perform(r, "short");
  CHECK((answer.status == 400 && code_in(answer) == "IncompleteBody"));
  CHECK(ask("GET", "/photos/k").body == "longer body");
}

TEST_CASE_FIXTURE(bucket_world, "a body in signed chunks; a broken one stores nothing") {
  bytes first(9000, 'a'), second(10, 'b');
  auto r = make("PUT", "/photos/k", {{"x-amz-decoded-content-length", "9010"}, {"Content-Encoding", "aws-chunked"}});
  auto c = sign_request(r, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
  bytes body = signed_chunks(c, derive_key(secret, c.date, c.region), {first, second});
  r.content_length = body.size();
  CHECK(perform(r, body).status == 200);
  auto got = ask("GET", "/photos/k");
  CHECK(got.body == first + second);
  CHECK_FALSE(got.headers.find("content-encoding"));

  body[5000] ^= 1;
  r.path = "/photos/k";
  auto answer = perform(r, body);
  CHECK((answer.status == 403 && code_in(answer) == "SignatureDoesNotMatch"));
  CHECK(ask("GET", "/photos/k").body == first + second);

  auto without = make("PUT", "/photos/k", {});
  without.content_length = 100;
  sign_request(without, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
  CHECK(perform(without).status == 411);
}

TEST_CASE_FIXTURE(bucket_world, "a body in unsigned chunks with a checksum trailer and no Content-Length") {
  auto put = [&](std::string checksum) {
    auto r = make("PUT", "/photos/k?x-id=PutObject",
                  {{"x-amz-decoded-content-length", "11"}, {"x-amz-trailer", "x-amz-checksum-crc32"}, {"x-amz-sdk-checksum-algorithm", "CRC32"}});
    r.chunked = true;
    sign_request(r, "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    return perform(r, "b\r\nhello world\r\n0\r\nx-amz-checksum-crc32:" + checksum + "\r\n\r\n");
  };
  auto r = put("DUoRhQ==");
  CHECK(r.status == 200);
  CHECK(r.headers.get("x-amz-checksum-crc32") == "DUoRhQ==");
  CHECK(store.last_put.compute == crypto::hash_kind::crc32);
  CHECK(ask("GET", "/photos/k").body == "hello world");
  r = put("DUoRhA==");
  CHECK((r.status == 400 && code_in(r) == "BadDigest"));
}

TEST_CASE_FIXTURE(bucket_world, "digests and checksums are checked, kept and given back") {
  bytes md5 = to_base64(crypto::digest(crypto::hash_kind::md5, "hello world"));
  auto r = ask("PUT", "/photos/k", "hello world", {{"Content-MD5", md5}, {"x-amz-checksum-crc32", "DUoRhQ=="}});
  CHECK(r.status == 200);
  CHECK(r.headers.get("etag") == "\"5eb63bbbe01eeed093cb22bb8f5acdc3\"");
  CHECK(r.headers.get("x-amz-checksum-type") == "FULL_OBJECT");
  CHECK_FALSE(ask("GET", "/photos/k").headers.find("x-amz-checksum-crc32"));
  r = ask("GET", "/photos/k", {}, {{"x-amz-checksum-mode", "ENABLED"}});
  CHECK(r.headers.get("x-amz-checksum-crc32") == "DUoRhQ==");
  r = ask("HEAD", "/photos/k", {}, {{"x-amz-checksum-mode", "ENABLED"}});
  CHECK(r.headers.get("x-amz-checksum-crc32") == "DUoRhQ==");
  r = ask("GET", "/photos/k", {}, {{"x-amz-checksum-mode", "ENABLED"}, {"Range", "bytes=0-1"}});
  CHECK_FALSE(r.headers.find("x-amz-checksum-crc32"));
  CHECK(code_in(ask("PUT", "/photos/k", "other", {{"Content-MD5", md5}})) == "BadDigest");
  CHECK(code_in(ask("PUT", "/photos/k", "other", {{"Content-MD5", "no"}})) == "InvalidDigest");
  CHECK(code_in(ask("PUT", "/photos/k", "other", {{"x-amz-checksum-crc32", "DUoRhQ=="}})) == "BadDigest");
}

TEST_CASE_FIXTURE(bucket_world, "a store that cannot says when to come back") {
  store.broken = errc::unavailable;
  auto r = ask("PUT", "/photos/k", "x");
  CHECK((r.status == 503 && code_in(r) == "ServiceUnavailable"));
  CHECK(r.headers.find("retry-after"));
  store.broken = errc::no_space;
  CHECK(ask("PUT", "/photos/k", "x").status == 507);
  store.broken = errc::outcome_unknown;
  CHECK(ask("PUT", "/photos/k", "x").status == 503);
}

TEST_CASE_FIXTURE(bucket_world, "every answer has its id, errors carry it; what S3 has and we do not is 501") {
  auto r = ask("GET", "/photos/missing");
  CHECK(r.status == 404);
  CHECK(element(r, "RequestId") == r.headers.get("x-amz-request-id"));
  CHECK(element(r, "Resource") == "/photos/missing");
  CHECK(r.headers.find("x-amz-id-2"));
  for (const char* target : {"/photos?policy", "/photos?versioning", "/photos?lifecycle", "/photos/k?retention"}) {
    r = ask("PUT", target, "<x/>");
    CHECK((r.status == 501 && code_in(r) == "NotImplemented"));
  }
  r = ask("PUT", "/photos/k", "x", {{"x-amz-server-side-encryption", "aws:kms"}});
  CHECK((r.status == 501 && code_in(r) == "NotImplemented"));
  CHECK(anonymously("POST", "/photos", "form").status == 403);
  CHECK(anonymously("OPTIONS", "/photos/k").status == 403);
  CHECK(ask("GET", "/photos/k?versionId=abc").status == 404);
}

TEST_CASE_FIXTURE(bucket_world, "the expected owner of a bucket must be it") {
  REQUIRE(ask("PUT", "/photos/k", "x").status == 200);
  CHECK(ask("GET", "/photos/k", {}, {{"x-amz-expected-bucket-owner", "owner-main"}}).status == 200);
  CHECK(ask("GET", "/photos/k", {}, {{"x-amz-expected-bucket-owner", "owner-alt"}}).status == 403);
}

TEST_CASE_FIXTURE(bucket_world, "requests are counted by operation and status") {
  (void)ask("GET", "/photos/missing");
  (void)ask("GET", "/photos/missing");
  bool found = false;
  for (const auto& c : gw.counts())
    if (c.operation == "GetObject" && c.status == 404) found = c.requests == 2;
  CHECK(found);
  CHECK(gw.bytes().in_flight == 0);
}
