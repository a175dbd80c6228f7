// The operations, one after the other, over a map.
#include "test_world.h"

using namespace grenier;
using namespace grenier::s3;
using namespace grenier::s3::test;

namespace {

struct bucket_world : world {
  bucket_world() { REQUIRE(ask("PUT", "/photos").status == 200); }
  void put(const std::string& key) { REQUIRE(ask("PUT", "/photos/" + http::percent_encode(key, true), key).status == 200); }
};

using list = std::vector<std::string>;

}  // namespace

// ------------------------------------------------------------------------------------------------- buckets

TEST_CASE_FIXTURE(world, "buckets: create, create again, list in pages, head, locate, delete") {
  CHECK(ask("PUT", "/bk1").status == 200);
  CHECK(ask("PUT", "/bk1/").status == 200);
  CHECK(ask("PUT", "/bk2", "<CreateBucketConfiguration><LocationConstraint>anywhere</LocationConstraint></CreateBucketConfiguration>").status == 200);
  CHECK(code_in(ask("PUT", "/bk3", "<CreateBucketConf")) == "MalformedXML");
  CHECK(code_in(ask("PUT", "/No_Name")) == "InvalidBucketName");
  auto r = ask("GET", "/");
  CHECK(elements(r, "Name") == list{"bk1", "bk2"});
  CHECK(element(r, "ID") == "owner-main");
  r = ask("GET", "/?max-buckets=1");
  CHECK(elements(r, "Name") == list{"bk1"});
  r = ask("GET", "/?max-buckets=1&continuation-token=" + http::percent_encode(element(r, "ContinuationToken")));
  CHECK(elements(r, "Name") == list{"bk2"});
  CHECK(element(r, "ContinuationToken") == "-");
  CHECK(elements(ask("GET", "/?prefix=bk2"), "Name") == list{"bk2"});
  CHECK(ask("HEAD", "/bk1").status == 200);
  CHECK(ask("HEAD", "/bk9").status == 404);
  CHECK(ask("HEAD", "/bk1").headers.get("x-amz-bucket-region") == "garage");
  CHECK(ask("GET", "/bk1?location").body.find(">garage</LocationConstraint>") != std::string::npos);
  REQUIRE(ask("PUT", "/bk1/k", "x").status == 200);
  CHECK(code_in(ask("DELETE", "/bk1")) == "BucketNotEmpty");
  REQUIRE(ask("DELETE", "/bk1/k").status == 204);
  CHECK(ask("DELETE", "/bk1").status == 204);
  CHECK(code_in(ask("GET", "/bk1")) == "NoSuchBucket");
}

TEST_CASE_FIXTURE(bucket_world, "settings that no bucket has are answered cleanly") {
  for (auto [name, expected] : {std::pair("policy", "NoSuchBucketPolicy"), {"cors", "NoSuchCORSConfiguration"}, {"lifecycle", "NoSuchLifecycleConfiguration"},
                                {"tagging", "NoSuchTagSet"}, {"website", "NoSuchWebsiteConfiguration"},
                                {"encryption", "ServerSideEncryptionConfigurationNotFoundError"}, {"object-lock", "ObjectLockConfigurationNotFoundError"},
                                {"publicAccessBlock", "NoSuchPublicAccessBlockConfiguration"}, {"ownershipControls", "OwnershipControlsNotFoundError"},
                                {"replication", "ReplicationConfigurationNotFoundError"}}) {
    auto r = ask("GET", "/photos?" + std::string(name));
    CAPTURE(name);
    CHECK((r.status == 404 && code_in(r) == expected));
  }
  for (auto [name, root] : {std::pair("notification", "NotificationConfiguration"), {"logging", "BucketLoggingStatus"}, {"versioning", "VersioningConfiguration"},
                            {"requestPayment", "<Payer>BucketOwner</Payer>"}, {"accelerate", "AccelerateConfiguration"}}) {
    auto r = ask("GET", "/photos?" + std::string(name));
    CAPTURE(name);
    CHECK(r.status == 200);
    CHECK(r.body.find(root) != std::string::npos);
  }
  CHECK(ask("DELETE", "/photos?policy").status == 204);
}

TEST_CASE_FIXTURE(bucket_world, "a bucket becomes a website and stops being one") {
  CHECK(ask("PUT", "/photos?website", "<WebsiteConfiguration><IndexDocument><Suffix>index.html</Suffix></IndexDocument>"
                                      "<ErrorDocument><Key>e/404.html</Key></ErrorDocument></WebsiteConfiguration>").status == 200);
  auto r = ask("GET", "/photos?website");
  CHECK(element(r, "Suffix") == "index.html");
  CHECK(element(r, "Key") == "e/404.html");
  CHECK(code_in(ask("PUT", "/photos?website", "<WebsiteConfiguration/>")) == "InvalidArgument");
  CHECK(code_in(ask("PUT", "/photos?website", "<WebsiteConfiguration><RoutingRules/></WebsiteConfiguration>")) == "NotImplemented");
  CHECK(ask("DELETE", "/photos?website").status == 204);
  CHECK(ask("GET", "/photos?website").status == 404);
}

TEST_CASE_FIXTURE(bucket_world, "access control lists: the owner's own") {
  put("k");
  for (const char* target : {"/photos?acl", "/photos/k?acl"}) {
    auto r = ask("GET", target);
    CHECK(r.status == 200);
    CHECK(elements(r, "ID") == list{"owner-main", "owner-main"});
    CHECK(element(r, "Permission") == "FULL_CONTROL");
    CHECK(ask("PUT", target, r.body).status == 200);  // as s3cmd does
    CHECK(ask("PUT", target, {}, {{"x-amz-acl", "private"}}).status == 200);
    CHECK(ask("PUT", target, {}, {{"x-amz-acl", "public-read"}}).status == 501);
    bytes foreign = r.body;
    foreign.replace(foreign.rfind("owner-main"), 10, "owner-alt!");
    CHECK(ask("PUT", target, foreign).status == 501);
    CHECK(ask("PUT", target, "<AccessControlPolicy><Owner/></AccessControlPolicy>").status == 400);
  }
  CHECK(ask("PUT", "/photos/none?acl", {}, {{"x-amz-acl", "private"}}).status == 404);
}

// ------------------------------------------------------------------------------------------------- objects

TEST_CASE_FIXTURE(bucket_world, "an object comes back with what was said of it") {
  auto r = ask("PUT", "/photos/a%20b", "body",
               {{"Content-Type", "image/jpeg"}, {"Cache-Control", "max-age=1"}, {"Content-Disposition", "inline"}, {"Content-Language", "fr"},
                {"Expires", "never"}, {"x-amz-meta-Camera", "X100"}, {"x-amz-storage-class", "STANDARD_IA"}, {"x-amz-tagging", "a=1&b=2"},
                {"x-amz-website-redirect-location", "/other"}});
  CHECK(r.status == 200);
  for (const char* method : {"GET", "HEAD"}) {
    r = ask(method, "/photos/a%20b");
    CHECK(r.status == 200);
    CHECK(r.body == (method[0] == 'G' ? "body" : ""));
    CHECK(r.headers.get("content-length") == "4");
    CHECK(r.headers.get("content-type") == "image/jpeg");
    CHECK(r.headers.get("cache-control") == "max-age=1");
    CHECK(r.headers.get("content-disposition") == "inline");
    CHECK(r.headers.get("content-language") == "fr");
    CHECK(r.headers.get("expires") == "never");
    CHECK(r.headers.get("x-amz-meta-camera") == "X100");
    CHECK(r.headers.get("x-amz-storage-class") == "STANDARD_IA");
    CHECK(r.headers.get("x-amz-tagging-count") == "2");
    CHECK(r.headers.get("x-amz-website-redirect-location") == "/other");
    CHECK(r.headers.get("accept-ranges") == "bytes");
    CHECK(r.headers.get("last-modified") == "Tue, 14 Nov 2023 22:13:20 GMT");
  }
  CHECK(ask("DELETE", "/photos/a%20b").status == 204);
  CHECK(ask("DELETE", "/photos/a%20b").status == 204);
  CHECK(code_in(ask("GET", "/photos/a%20b")) == "NoSuchKey");
  auto head = ask("HEAD", "/photos/a%20b");
  CHECK((head.status == 404 && head.body.empty()));
}

TEST_CASE_FIXTURE(bucket_world, "what no quorum agreed on says that it may be stale") {
  put("a");
  for (auto [method, path] : {std::pair("GET", "/photos/a"), {"HEAD", "/photos/a"}, {"GET", "/photos"}, {"GET", "/photos?list-type=2"}, {"GET", "/photos?versions"}}) {
    CAPTURE(method);
    CAPTURE(path);
    store.dark = false;
    auto r = ask(method, path);
    CHECK(r.status == 200);
    CHECK(!r.headers.find("x-grenier-possibly-stale"));
    CHECK(!r.headers.find("Warning"));
    store.dark = true;
    r = ask(method, path);
    CHECK(r.status == 200);
    CHECK(r.headers.get("x-grenier-possibly-stale") == "true");
    CHECK(r.headers.get("Warning").starts_with("110 "));
  }
  CHECK(ask("GET", "/photos/a").body == "a");
}

TEST_CASE_FIXTURE(bucket_world, "ranges and parts") {
  REQUIRE(ask("PUT", "/photos/k", "0123456789").status == 200);
  auto r = ask("GET", "/photos/k", {}, {{"Range", "bytes=2-4"}});
  CHECK((r.status == 206 && r.body == "234"));
  CHECK(r.headers.get("content-range") == "bytes 2-4/10");
  CHECK(r.headers.get("content-length") == "3");
  r = ask("GET", "/photos/k", {}, {{"Range", "bytes=-2"}});
  CHECK((r.status == 206 && r.body == "89"));
  r = ask("GET", "/photos/k", {}, {{"Range", "bytes=10-"}});
  CHECK((r.status == 416 && code_in(r) == "InvalidRange"));
  r = ask("GET", "/photos/k?partNumber=1");
  CHECK((r.body == "0123456789" && r.headers.get("x-amz-mp-parts-count") == "1"));
  CHECK(code_in(ask("GET", "/photos/k?partNumber=2")) == "InvalidPart");
  CHECK(code_in(ask("GET", "/photos/k?partNumber=0")) == "InvalidArgument");
}

TEST_CASE_FIXTURE(bucket_world, "If-Range: the whole, unless it is the version that the client began with") {
  std::string etag(ask("PUT", "/photos/k", "0123456789").headers.get("etag"));
  auto part = [&](std::string version) { return ask("GET", "/photos/k", {}, {{"Range", "bytes=2-4"}, {"If-Range", std::move(version)}}).status == 206; };
  CHECK(part(etag));
  CHECK(part("Tue, 14 Nov 2023 22:13:20 GMT"));
  for (std::string other : {"\"other\"", "Tue, 14 Nov 2023 22:13:21 GMT", "nonsense"}) CHECK_FALSE(part(other));
  CHECK_FALSE(part("W/" + etag));
  CHECK(ask("GET", "/photos/k", {}, {{"Range", "bytes=2-4"}, {"If-Range", "\"other\""}}).body == "0123456789");
}

TEST_CASE_FIXTURE(bucket_world, "an object whose first bytes cannot be had is answered with an error, not with nothing") {
  put("k");
  for (auto [e, status] : {std::pair(errc::unavailable, 503), {errc::timed_out, 503}, {errc::overloaded, 503}, {errc::corrupt, 500}}) {
    store.bodyless = e;
    auto r = ask("GET", "/photos/k");
    CHECK(r.status == status);
    CHECK(code_in(r) != "-");
    CHECK(r.headers.find("retry-after").has_value() == (status == 503));
  }
}

TEST_CASE_FIXTURE(bucket_world, "conditions on reading and writing") {
  std::string etag(ask("PUT", "/photos/k", "v1").headers.get("etag"));
  CHECK(ask("GET", "/photos/k", {}, {{"If-Match", etag}}).status == 200);
  auto r = ask("GET", "/photos/k", {}, {{"If-Match", "\"x\""}});
  CHECK((r.status == 412 && code_in(r) == "PreconditionFailed"));
  r = ask("GET", "/photos/k", {}, {{"If-None-Match", etag}});
  CHECK((r.status == 304 && r.body.empty() && r.headers.get("etag") == etag));
  CHECK(ask("PUT", "/photos/k", "v2", {{"If-None-Match", "*"}}).status == 412);
  CHECK(ask("PUT", "/photos/new", "v2", {{"If-None-Match", "*"}}).status == 200);
  CHECK(ask("PUT", "/photos/k", "v2", {{"If-Match", "\"x\""}}).status == 412);
  r = ask("PUT", "/photos/none", "v2", {{"If-Match", etag}});
  CHECK((r.status == 404 && code_in(r) == "NoSuchKey"));
  CHECK(ask("PUT", "/photos/k", "v2", {{"If-Match", etag}}).status == 200);
  CHECK(ask("DELETE", "/photos/k", {}, {{"If-Match", etag}}).status == 501);
}

TEST_CASE_FIXTURE(bucket_world, "copies: metadata kept or replaced, onto itself only with a change") {
  REQUIRE(ask("PUT", "/photos/a", "body", {{"x-amz-meta-m", "1"}, {"Content-Type", "text/plain"}}).status == 200);
  auto r = ask("PUT", "/photos/b%25c", {}, {{"x-amz-copy-source", "/photos/a"}});
  CHECK(r.status == 200);
  CHECK(element(r, "ETag") == "&quot;841a2d689ad86bd1611447453c22c6fc&quot;");
  CHECK(element(r, "LastModified") == "2023-11-14T22:13:20.123Z");
  CHECK(ask("GET", "/photos/b%25c").headers.get("x-amz-meta-m") == "1");
  r = ask("PUT", "/photos/a", {}, {{"x-amz-copy-source", "photos/a"}});
  CHECK((r.status == 400 && code_in(r) == "InvalidRequest"));
  r = ask("PUT", "/photos/a", {}, {{"x-amz-copy-source", "photos/a"}, {"x-amz-metadata-directive", "REPLACE"}, {"x-amz-meta-m", "2"}});
  CHECK(r.status == 200);
  CHECK(ask("GET", "/photos/a").headers.get("x-amz-meta-m") == "2");
  CHECK(ask("PUT", "/photos/c", {}, {{"x-amz-copy-source", "photos/b%25c"}}).status == 200);
  CHECK(code_in(ask("PUT", "/photos/c", {}, {{"x-amz-copy-source", "photos/none"}})) == "NoSuchKey");
  CHECK(ask("PUT", "/photos/c", {}, {{"x-amz-copy-source", "photos/a"}, {"x-amz-source-expected-bucket-owner", "owner-main"}}).status == 200);
  CHECK(ask("PUT", "/photos/c", {}, {{"x-amz-copy-source", "photos/a"}, {"x-amz-source-expected-bucket-owner", "owner-alt"}}).status == 403);
  CHECK(code_in(ask("PUT", "/photos/c", {}, {{"x-amz-copy-source", "none/none"}})) == "NoSuchBucket");
  CHECK(ask("PUT", "/photos/c", {}, {{"x-amz-copy-source", "photos/a"}, {"x-amz-copy-source-if-none-match", "\"841a2d689ad86bd1611447453c22c6fc\""}}).status ==
        412);
  CHECK(code_in(ask("PUT", "/photos/c", {}, {{"x-amz-copy-source", "photos/a"}, {"x-amz-metadata-directive", "x"}})) == "InvalidArgument");
}

TEST_CASE_FIXTURE(bucket_world, "tags: put, get, delete") {
  put("k");
  CHECK(ask("PUT", "/photos/k?tagging", "<Tagging><TagSet><Tag><Key>a</Key><Value>1 &amp; 2</Value></Tag></TagSet></Tagging>").status == 200);
  auto r = ask("GET", "/photos/k?tagging");
  CHECK((element(r, "Key") == "a" && element(r, "Value") == "1 &amp; 2"));
  CHECK(code_in(ask("PUT", "/photos/k?tagging", "<Tagging/>")) == "MalformedXML");
  std::string many = "<Tagging><TagSet>";
  for (int i = 0; i < 11; ++i) many += "<Tag><Key>" + std::to_string(i) + "</Key><Value/></Tag>";
  CHECK(code_in(ask("PUT", "/photos/k?tagging", many + "</TagSet></Tagging>")) == "InvalidTag");
  CHECK(ask("DELETE", "/photos/k?tagging").status == 204);
  CHECK(element(ask("GET", "/photos/k?tagging"), "Key") == "-");
  CHECK(ask("GET", "/photos/none?tagging").status == 404);
}

TEST_CASE_FIXTURE(bucket_world, "attributes of an object") {
  REQUIRE(ask("PUT", "/photos/k", "hello world", {{"x-amz-checksum-crc32", "DUoRhQ=="}}).status == 200);
  auto r = ask("GET", "/photos/k?attributes", {}, {{"x-amz-object-attributes", "ETag,Checksum,ObjectSize,StorageClass,ObjectParts"}});
  CHECK(r.status == 200);
  CHECK(element(r, "ETag") == "5eb63bbbe01eeed093cb22bb8f5acdc3");
  CHECK(element(r, "ChecksumCRC32") == "DUoRhQ==");
  CHECK(element(r, "ObjectSize") == "11");
  CHECK(element(r, "StorageClass") == "STANDARD");
  CHECK(element(r, "ObjectParts") == "-");
}

TEST_CASE_FIXTURE(bucket_world, "many objects are deleted at once, each with its own answer") {
  put("a");
  put("b&<");
  auto r = ask("POST", "/photos?delete", "<Delete><Object><Key>a</Key><VersionId>null</VersionId></Object><Object><Key>b&amp;&lt;</Key></Object>"
                                         "<Object><Key>none</Key></Object><Object><Key>forbidden</Key></Object>"
                                         "<Object><Key>a</Key></Object><Object><Key>c</Key><VersionId>v</VersionId></Object></Delete>");
  CHECK(r.status == 200);
  CHECK(elements(r, "Deleted").size() == 4);
  CHECK(elements(r, "Error") == list{"<Key>forbidden</Key><Code>AccessDenied</Code><Message>Access denied.</Message>",
                                     "<Key>c</Key><VersionId>v</VersionId><Code>NoSuchVersion</Code><Message>There is no such version.</Message>"});
  CHECK(store.buckets["photos"].objects.empty());
  // A key is all of its element's text.
  for (const char* key : {"a", "ab", "a b", " "}) put(key);
  for (const char* text : {"a<!-- -->b", "a<![CDATA[ ]]>b", "a<!-- --> <!-- -->b", "<![CDATA[ ]]>"}) {
    r = ask("POST", "/photos?delete", "<Delete><Object><Key>" + std::string(text) + "</Key></Object></Delete>");
    CHECK(r.status == 200);
  }
  CHECK(code_in(ask("POST", "/photos?delete", "<Delete><Object><Key>a<b/></Key></Object></Delete>")) == "MalformedXML");
  CHECK(store.buckets["photos"].objects.size() == 1);
  CHECK(store.buckets["photos"].objects.contains("a"));
  put("a");
  r = ask("POST", "/photos?delete", "<Delete><Quiet>true</Quiet><Object><Key>a</Key></Object></Delete>");
  CHECK((r.status == 200 && elements(r, "Deleted").empty()));
  std::string many = "<Delete>";
  for (int i = 0; i < 1001; ++i) many += "<Object><Key>" + std::to_string(i) + "</Key></Object>";
  CHECK(code_in(ask("POST", "/photos?delete", many + "</Delete>")) == "MalformedXML");
  CHECK(code_in(ask("POST", "/photos?delete", "<Delete><Object><Key>a</Key></Object></Delete>", {{"Content-MD5", to_base64(bytes(16, 'x'))}})) == "BadDigest");
  CHECK(code_in(ask("POST", "/photos?delete", "<Delete><Object><Key>a</Key></Object></Delete>", {{"x-amz-checksum-crc32", "AAAAAA=="}})) == "BadDigest");
}

// ------------------------------------------------------------------------------------------------- lists

TEST_CASE_FIXTURE(bucket_world, "ListObjects: pages, delimiter, markers") {
  for (const char* k : {"asdf", "boo/bar", "boo/baz/xyzzy", "cquux/thud", "cquux/bla"}) put(k);
  auto r = ask("GET", "/photos?delimiter=/&max-keys=1");
  CHECK(elements(r, "Key") == list{"asdf"});
  CHECK((element(r, "IsTruncated") == "true" && element(r, "NextMarker") == "asdf"));
  r = ask("GET", "/photos?delimiter=/&max-keys=1&marker=asdf");
  CHECK((elements(r, "Key").empty() && element(r, "CommonPrefixes") == "<Prefix>boo/</Prefix>" && element(r, "NextMarker") == "boo/"));
  r = ask("GET", "/photos?delimiter=/&max-keys=1&marker=boo/");
  CHECK((element(r, "CommonPrefixes") == "<Prefix>cquux/</Prefix>" && element(r, "IsTruncated") == "false" && element(r, "NextMarker") == "-"));
  r = ask("GET", "/photos?delimiter=/&marker=boo/bar");
  CHECK(elements(r, "CommonPrefixes") == list{"<Prefix>boo/</Prefix>", "<Prefix>cquux/</Prefix>"});
  r = ask("GET", "/photos?prefix=boo/&delimiter=/");
  CHECK((elements(r, "Key") == list{"boo/bar"} && element(r, "CommonPrefixes") == "<Prefix>boo/baz/</Prefix>"));
  r = ask("GET", "/photos?max-keys=2");
  CHECK((element(r, "IsTruncated") == "true" && element(r, "NextMarker") == "-" && element(r, "MaxKeys") == "2"));
  r = ask("GET", "/photos?max-keys=0");
  CHECK((element(r, "IsTruncated") == "false" && elements(r, "Key").empty()));
  CHECK(element(ask("GET", "/photos?max-keys=10000"), "MaxKeys") == "1000");
  CHECK(code_in(ask("GET", "/photos?max-keys=blah")) == "InvalidArgument");
  CHECK(code_in(ask("GET", "/photos?max-keys=-1")) == "InvalidArgument");
  CHECK(code_in(ask("GET", "/photos?encoding-type=x")) == "InvalidArgument");
  CHECK(element(r = ask("GET", "/photos"), "StorageClass") == "STANDARD");
  CHECK(element(r, "Owner") == "<ID>owner-main</ID><DisplayName>Main</DisplayName>");
}

TEST_CASE_FIXTURE(bucket_world, "keys are escaped, or url-encoded when asked for") {
  put("a&b <c>+\xc3\xa9/d");
  CHECK(element(ask("GET", "/photos"), "Key") == "a&amp;b &lt;c&gt;+\xc3\xa9/d");
  for (const char* v : {"", "&list-type=2"}) {
    auto r = ask("GET", "/photos?encoding-type=url&prefix=a%26&delimiter=%2B" + std::string(v));
    CHECK(element(r, "CommonPrefixes") == "<Prefix>a%26b%20%3Cc%3E%2B</Prefix>");
    CHECK((element(r, "Prefix") == "a%26" && element(r, "Delimiter") == "%2B" && element(r, "EncodingType") == "url"));
  }
}

TEST_CASE_FIXTURE(bucket_world, "ListObjectsV2: tokens, start-after, owners") {
  for (const char* k : {"a", "b/1", "b/2", "c", "d"}) put(k);
  std::string token;
  list seen;
  for (int page = 0; page < 10; ++page) {
    auto r = ask("GET", "/photos?list-type=2&delimiter=/&max-keys=1" + (token.empty() ? "" : "&continuation-token=" + http::percent_encode(token)));
    for (auto& k : elements(r, "Key")) seen.push_back(k);
    for (auto& p : elements(r, "CommonPrefixes")) seen.push_back(p);
    CHECK(element(r, "KeyCount") == "1");
    if (element(r, "IsTruncated") == "false") break;
    token = element(r, "NextContinuationToken");
  }
  CHECK(seen == list{"a", "<Prefix>b/</Prefix>", "c", "d"});
  auto r = ask("GET", "/photos?list-type=2&start-after=b/1");
  CHECK((elements(r, "Key") == list{"b/2", "c", "d"} && element(r, "StartAfter") == "b/1" && element(r, "Owner") == "-"));
  CHECK(element(ask("GET", "/photos?list-type=2&fetch-owner=true"), "Owner") != "-");
  CHECK(code_in(ask("GET", "/photos?list-type=2&continuation-token=x")) == "InvalidArgument");
  r = ask("GET", "/photos?list-type=2&continuation-token=");
  CHECK((r.status == 200 && element(r, "ContinuationToken").empty() && element(r, "KeyCount") == "5"));
}

TEST_CASE_FIXTURE(bucket_world, "every object is its own only version") {
  put("a");
  put("b");
  auto r = ask("GET", "/photos?versions&max-keys=1");
  CHECK((element(r, "Key") == "a" && element(r, "VersionId") == "null" && element(r, "IsLatest") == "true" && element(r, "NextKeyMarker") == "a"));
  CHECK(element(ask("GET", "/photos?versions&key-marker=a&version-id-marker=null"), "Key") == "b");
  CHECK(ask("DELETE", "/photos/a?versionId=null").status == 204);
}

// ------------------------------------------------------------------------------------------------- uploads

TEST_CASE_FIXTURE(bucket_world, "an upload in parts, from its creation to its end") {
  put("source");
  auto r = ask("POST", "/photos/big?uploads", {}, {{"Content-Type", "video/mp4"}, {"x-amz-checksum-algorithm", "CRC32"}});
  CHECK(r.status == 200);
  CHECK(r.headers.get("x-amz-checksum-algorithm") == "CRC32");
  CHECK(r.headers.get("x-amz-checksum-type") == "COMPOSITE");
  CHECK((element(r, "Bucket") == "photos" && element(r, "Key") == "big"));
  std::string id = element(r, "UploadId");
  CHECK(id.size() == 32);

  std::string e1(ask("PUT", "/photos/big?partNumber=1&uploadId=" + id, "one").headers.get("etag"));
  r = ask("PUT", "/photos/big?partNumber=2&uploadId=" + id, {}, {{"x-amz-copy-source", "/photos/source"}, {"x-amz-copy-source-range", "bytes=1-3"}});
  CHECK(r.status == 200);
  CHECK(r.body.find("CopyPartResult") != std::string::npos);
  std::string e2 = element(r, "ETag");
  CHECK(code_in(ask("PUT", "/photos/big?partNumber=2&uploadId=" + id, {}, {{"x-amz-copy-source", "/photos/source"}, {"x-amz-copy-source-range", "1-3"}})) ==
        "InvalidArgument");
  CHECK(code_in(ask("PUT", "/photos/big?partNumber=0&uploadId=" + id, "x")) == "InvalidArgument");
  CHECK(code_in(ask("PUT", "/photos/big?partNumber=10001&uploadId=" + id, "x")) == "InvalidArgument");
  CHECK(code_in(ask("PUT", "/photos/big?partNumber=1&uploadId=nonsense", "x")) == "NoSuchUpload");

  r = ask("GET", "/photos?uploads");
  CHECK((element(r, "UploadId") == id && elements(r, "Key") == list{"big"}));
  r = ask("GET", "/photos/big?uploadId=" + id + "&max-parts=1");
  CHECK((elements(r, "PartNumber") == list{"1"} && element(r, "IsTruncated") == "true" && element(r, "NextPartNumberMarker") == "1"));
  r = ask("GET", "/photos/big?uploadId=" + id + "&part-number-marker=1");
  CHECK((elements(r, "PartNumber") == list{"2"} && element(r, "Size") == "3"));

  auto part = [](int n, std::string etag) { return "<Part><PartNumber>" + std::to_string(n) + "</PartNumber><ETag>" + etag + "</ETag></Part>"; };
  auto complete = [&](std::string parts) {
    return ask("POST", "/photos/big?uploadId=" + id, "<CompleteMultipartUpload>" + parts + "</CompleteMultipartUpload>");
  };
  CHECK(code_in(complete("")) == "MalformedXML");
  CHECK(code_in(complete(part(0, e1))) == "MalformedXML");
  CHECK(code_in(complete(part(1, ""))) == "MalformedXML");
  CHECK(code_in(complete(part(2, e2) + part(1, e1))) == "InvalidPartOrder");
  CHECK(code_in(complete(part(1, "\"x\""))) == "InvalidPart");
  r = complete(part(1, e1) + part(2, e2));
  CHECK(r.status == 200);
  CHECK(element(r, "ETag").ends_with("-2&quot;"));
  CHECK(element(r, "Location") == "http://localhost:3900/photos/big");
  CHECK(ask("GET", "/photos/big").body == "oneour");
  CHECK(ask("GET", "/photos/big").headers.get("content-type") == "video/mp4");
  CHECK(code_in(complete(part(1, e1))) == "NoSuchUpload");
}

TEST_CASE_FIXTURE(bucket_world, "an upload is given up; ten thousand parts are not too many for its document") {
  std::string id = element(ask("POST", "/photos/big?uploads"), "UploadId");
  std::string document = "<CompleteMultipartUpload>";
  for (int i = 1; i <= 10000; ++i)
    document += "<Part><ETag>\"0123456789abcdef0123456789abcdef\"</ETag><PartNumber>" + std::to_string(i) + "</PartNumber></Part>";
  CHECK(code_in(ask("POST", "/photos/big?uploadId=" + id, document + "</CompleteMultipartUpload>")) == "InvalidPart");
  document += "<Part><ETag>x</ETag><PartNumber>1</PartNumber></Part>";
  CHECK(code_in(ask("POST", "/photos/big?uploadId=" + id, document + "</CompleteMultipartUpload>")) == "MalformedXML");
  CHECK(ask("DELETE", "/photos/big?uploadId=" + id).status == 204);
  CHECK(ask("DELETE", "/photos/big?uploadId=" + id).status == 404);
}

TEST_CASE_FIXTURE(bucket_world, "checksum types of uploads") {
  auto made = [&](const char* algorithm, const char* type) {
    return ask("POST", "/photos/k?uploads", {}, {{"x-amz-checksum-algorithm", algorithm}, {"x-amz-checksum-type", type}});
  };
  CHECK(made("CRC64NVME", "FULL_OBJECT").headers.get("x-amz-checksum-type") == "FULL_OBJECT");
  CHECK(made("CRC32", "FULL_OBJECT").headers.get("x-amz-checksum-type") == "FULL_OBJECT");
  CHECK(made("SHA256", "COMPOSITE").status == 200);
  CHECK(code_in(made("SHA256", "FULL_OBJECT")) == "InvalidRequest");
  CHECK(code_in(made("CRC64NVME", "COMPOSITE")) == "InvalidRequest");
  CHECK(code_in(made("CRC32", "x")) == "InvalidRequest");
}
