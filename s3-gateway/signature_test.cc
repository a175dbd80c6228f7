// Signature Version 4 against the examples that the S3 API reference gives.
#include "signature.h"

#include <doctest/doctest.h>

#include "crypto/crypto.h"

using namespace grenier;
using namespace grenier::s3;

namespace {

constexpr std::string_view secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
constexpr std::string_view empty_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr std::uint64_t that_day_ms = 1369353600000;  // 2013-05-24T00:00:00Z

http::request example(std::string method, std::string target) {
  http::request r;
  r.method = std::move(method);
  r.target = std::move(target);
  auto q = r.target.find('?');
  r.path = r.target.substr(0, q);
  r.has_query = q != std::string::npos;
  if (r.has_query) r.query = r.target.substr(q + 1);
  return r;
}

std::string authorization(std::string_view headers, std::string_view signature) {
  return "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=" + std::string(headers) +
         ",Signature=" + std::string(signature);
}

outcome<void> check(const http::request& r, std::string_view with_secret = secret) {
  auto q = http::parse_query(r.query);
  REQUIRE(q);
  S3_TRY(auto c, read_credentials(r, *q));
  REQUIRE(c);
  CHECK(c->key_id == "AKIAIOSFODNN7EXAMPLE");
  S3_TRY_VOID(check_time(*c, that_day_ms));
  return verify(r, *q, *c, derive_key(with_secret, c->date, c->region));
}

http::request get_object() {
  auto r = example("GET", "/test.txt");
  r.headers.add("Host", "examplebucket.s3.amazonaws.com");
  r.headers.add("Range", "bytes=0-9");
  r.headers.add("x-amz-content-sha256", std::string(empty_hash));
  r.headers.add("x-amz-date", "20130524T000000Z");
  r.headers.add("Authorization", authorization("host;range;x-amz-content-sha256;x-amz-date",
                                               "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"));
  return r;
}

code code_of_failure(const outcome<void>& o) {
  REQUIRE_FALSE(o);
  return o.error().id;
}

}  // namespace

TEST_CASE("example: GET an object with a range") { CHECK(check(get_object())); }

TEST_CASE("example: PUT an object whose key holds a dollar sign") {
  auto r = example("PUT", "/test$file.text");
  r.headers.add("Host", "examplebucket.s3.amazonaws.com");
  r.headers.add("Date", "Fri, 24 May 2013 00:00:00 GMT");
  r.headers.add("x-amz-date", "20130524T000000Z");
  r.headers.add("x-amz-storage-class", "REDUCED_REDUNDANCY");
  r.headers.add("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
  r.headers.add("Authorization", authorization("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                                               "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"));
  CHECK(check(r));
  r.path = "/test%24file.text";
  CHECK(check(r));
}

TEST_CASE("example: GET a bucket's lifecycle, GET a list") {
  auto r = example("GET", "/?lifecycle");
  r.headers.add("Host", "examplebucket.s3.amazonaws.com");
  r.headers.add("x-amz-date", "20130524T000000Z");
  r.headers.add("x-amz-content-sha256", std::string(empty_hash));
  auto list = r;
  r.headers.add("Authorization", authorization("host;x-amz-content-sha256;x-amz-date",
                                               "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));
  CHECK(check(r));
  list.query = "max-keys=2&prefix=J";
  list.headers.add("Authorization", authorization("host;x-amz-content-sha256;x-amz-date",
                                                  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
  CHECK(check(list));
  list.query = "prefix=J&max-keys=2";  // sorted before it is signed
  CHECK(check(list));
  list.query = "prefix=K&max-keys=2";
  CHECK(code_of_failure(check(list)) == code::signature_does_not_match);
}

TEST_CASE("example: presigned GET") {
  auto r = example("GET",
                   "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
                   "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
                   "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
  r.headers.add("Host", "examplebucket.s3.amazonaws.com");
  CHECK(check(r));

  auto c = *read_credentials(r, *http::parse_query(r.query));
  CHECK(c->presigned);
  CHECK(check_time(*c, that_day_ms + 86400'000));
  CHECK(code_of_failure(check_time(*c, that_day_ms + 86401'000)) == code::access_denied);
  CHECK(code_of_failure(check_time(*c, that_day_ms - 16 * 60'000)) == code::access_denied);

  // A header that was not signed may not turn the request into another.
  r.headers.add("x-amz-copy-source", "/other/secret");
  CHECK(code_of_failure(check(r)) == code::access_denied);
}

TEST_CASE("a presigned request lives from a second to a week") {
  for (auto [expires, good] : {std::pair("0", false), {"1", true}, {"604800", true}, {"604801", false}, {"-1", false}, {"1x", false}, {"", false}}) {
    auto r = example("GET", "/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
                            "&X-Amz-Date=20130524T000000Z&X-Amz-SignedHeaders=host&X-Amz-Signature=" +
                                std::string(64, 'a') + "&X-Amz-Expires=" + expires);
    r.headers.add("Host", "h");
    auto c = read_credentials(r, *http::parse_query(r.query));
    CAPTURE(expires);
    CHECK(c.has_value() == good);
    if (!good) CHECK(c.error().id == code::access_denied);
  }
}

TEST_CASE("another secret, header, path or method does not match") {
  CHECK(code_of_failure(check(get_object(), "other")) == code::signature_does_not_match);
  auto r = get_object();
  r.headers.set("Range", "bytes=0-10");
  CHECK(code_of_failure(check(r)) == code::signature_does_not_match);
  r = get_object();
  r.path = "/test.tx";
  CHECK(code_of_failure(check(r)) == code::signature_does_not_match);
  r = get_object();
  r.method = "HEAD";
  CHECK(code_of_failure(check(r)) == code::signature_does_not_match);
}

TEST_CASE("a request's time may differ by 15 minutes") {
  auto r = get_object();
  auto c = *read_credentials(r, {});
  CHECK(check_time(*c, that_day_ms + 15 * 60'000));
  CHECK(check_time(*c, that_day_ms - 15 * 60'000));
  CHECK(code_of_failure(check_time(*c, that_day_ms + 15 * 60'000 + 1)) == code::request_time_too_skewed);
  CHECK(code_of_failure(check_time(*c, that_day_ms - 15 * 60'000 - 1)) == code::request_time_too_skewed);
}

TEST_CASE("header values are trimmed, inner spaces become one, equal names are joined; any region is taken") {
  http::request r = example("GET", "/b/k");
  r.headers.add("Host", "h:3900");
  r.headers.add("X-Amz-Date", "20130524T000000Z");
  r.headers.add("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
  r.headers.add("X-Amz-Meta-A", "  two   words ");
  r.headers.add("x-amz-meta-a", "more");
  credentials c{.key_id = "K", .date = "20130524", .region = "mars-north-1", .timestamp = "20130524T000000Z", .time_ms = that_day_ms,
                .signed_headers = {"host", "x-amz-content-sha256", "x-amz-date", "x-amz-meta-a"}, .payload_text = "UNSIGNED-PAYLOAD"};
  std::string canonical = canonical_request(r, {}, c, "/b/k");
  CHECK(canonical == "GET\n/b/k\n\nhost:h:3900\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:20130524T000000Z\n"
                     "x-amz-meta-a:two words,more\n\nhost;x-amz-content-sha256;x-amz-date;x-amz-meta-a\nUNSIGNED-PAYLOAD");
  bytes key = derive_key("s", c.date, c.region);
  r.headers.add("Authorization", "AWS4-HMAC-SHA256 Credential=K/20130524/mars-north-1/s3/aws4_request, "
                                 "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-meta-a, Signature=" + sign(c, canonical, key));
  auto read = read_credentials(r, {});
  REQUIRE(read);
  CHECK((*read)->region == "mars-north-1");
  CHECK((*read)->payload == payload::unsigned_body);
  CHECK(verify(r, {}, **read, key));
}

TEST_CASE("a path may be signed as it was sent or in its normal form") {
  CHECK(canonical_path("/a b/%7ec/(d)") == "/a%20b/~c/%28d%29");
  CHECK(canonical_path("/a//../b%2Fc") == "/a//../b/c");
  for (const char* signed_as : {"/b/a(1)", "/b/a%281%29"}) {
    http::request r = example("GET", "/b/a(1)");
    r.headers.add("Host", "h");
    credentials c{.key_id = "K", .date = "20130524", .region = "r", .timestamp = "20130524T000000Z", .signed_headers = {"host"},
                  .payload_text = "UNSIGNED-PAYLOAD"};
    bytes key = derive_key("s", c.date, c.region);
    c.signature = sign(c, canonical_request(r, {}, c, signed_as), key);
    CHECK(verify(r, {}, c, key));
  }
}

TEST_CASE("the Date header serves when there is no x-amz-date") {
  for (const char* date : {"Fri, 24 May 2013 00:00:00 GMT", "Fri, 24 May 2013 00:00:00 -0000"}) {
    auto r = get_object();
    r.headers.remove("x-amz-date");
    r.headers.add("Date", date);
    auto c = read_credentials(r, {});
    REQUIRE(c);
    CHECK((*c)->timestamp == "20130524T000000Z");
  }
  auto r = get_object();
  r.headers.remove("x-amz-date");
  auto c = read_credentials(r, {});
  REQUIRE_FALSE(c);
  CHECK(c.error().id == code::access_denied);
}

TEST_CASE("timestamps are read strictly") {
  CHECK(parse_timestamp("20130524T000000Z") == that_day_ms);
  CHECK(format_timestamp(that_day_ms + 3'661'000) == "20130524T010101Z");
  for (const char* bad : {"", "20130524T000000", "20130524T000000z", "20131324T000000Z", "20130230T000000Z", "20130524T240000Z", "2013052400000000",
                          "2013 524T000000Z", "20130524T0000-1Z", "00000524T000000Z"})
    CHECK_FALSE(parse_timestamp(bad));
}

TEST_CASE("what is no signature of version 4 is refused by name") {
  auto refused = [](std::string header) {
    http::request r = example("GET", "/");
    r.headers.add("Host", "h");
    r.headers.add("x-amz-date", "20130524T000000Z");
    r.headers.add("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
    r.headers.add("Authorization", header);
    auto c = read_credentials(r, {});
    REQUIRE_FALSE(c);
    return c.error().id;
  };
  const std::string sig(64, 'a');
  CHECK(refused("AWS AKIA:c2ln") == code::invalid_request);
  CHECK(refused("Basic abc") == code::invalid_argument);
  CHECK(refused("AWS4-HMAC-SHA256") == code::invalid_argument);
  CHECK(refused("AWS4-HMAC-SHA256 junk") == code::authorization_header_malformed);
  CHECK(refused("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=" + sig) == code::authorization_header_malformed);
  CHECK(refused("AWS4-HMAC-SHA256 Credential=k/20130524/r/ec2/aws4_request, SignedHeaders=host, Signature=" + sig) ==
        code::authorization_header_malformed);
  CHECK(refused("AWS4-HMAC-SHA256 Credential=k/20130524/r/s3/aws4_request, SignedHeaders=range, Signature=" + sig) ==
        code::authorization_header_malformed);
  CHECK(refused("AWS4-HMAC-SHA256 Credential=k/20130524/r/s3/aws4_request, SignedHeaders=host, Signature=xyz") ==
        code::authorization_header_malformed);
  CHECK(refused("AWS4-HMAC-SHA256 Credential=k/20130524/r/s3/aws4_request, Credential=x, SignedHeaders=host, Signature=" + sig) ==
        code::authorization_header_malformed);
  http::request anonymous = example("GET", "/");
  CHECK(read_credentials(anonymous, {}).value() == std::nullopt);
  auto old = *http::parse_query("AWSAccessKeyId=a&Signature=b&Expires=1");
  CHECK(read_credentials(anonymous, old).error().id == code::invalid_request);
}

TEST_CASE("the key cache is bounded, and notices a new secret") {
  key_cache cache(2);
  CHECK(cache.get("k", "s", "20130524", "r") == derive_key("s", "20130524", "r"));
  CHECK(cache.get("k", "s", "20130524", "r") == derive_key("s", "20130524", "r"));
  CHECK(cache.get("k", "other", "20130524", "r") == derive_key("other", "20130524", "r"));
  CHECK(cache.size() == 1);
  (void)cache.get("k", "s", "20130525", "r");
  (void)cache.get("k", "s", "20130526", "r");
  CHECK(cache.size() == 2);
}
