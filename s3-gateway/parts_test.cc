// The smaller pieces: the error table, XML, routes, headers.
#include <doctest/doctest.h>

#include "errors.h"
#include "headers.h"
#include "route.h"
#include "xml.h"

using namespace grenier;
using namespace grenier::s3;

namespace {

http::request request(std::string method, std::string target, std::string host = "localhost:3900") {
  http::request r;
  r.method = std::move(method);
  r.target = std::move(target);
  auto q = r.target.find('?');
  r.path = r.target.substr(0, q);
  if (q != std::string::npos) r.query = r.target.substr(q + 1), r.has_query = true;
  r.headers.add("Host", std::move(host));
  return r;
}

target routed(const http::request& r) {
  auto t = route(r, "s3.localhost");
  REQUIRE(t);
  return *t;
}

template <class T>
code refused(const outcome<T>& o) {
  REQUIRE_FALSE(o);
  return o.error().id;
}

}  // namespace

// ------------------------------------------------------------------------------------------------- errors

TEST_CASE("every errc has an S3 code, a status and a message") {
  for (errc e : all_errcs()) {
    CAPTURE(to_string(e));
    const code_info& i = info(code_of(e));
    CHECK(i.status >= 304);
    CHECK_FALSE(i.name.empty());
    CHECK_FALSE(i.message.empty());
    if (e != errc::corrupt && e != errc::io_failed && e != errc::protocol && e != errc::internal) CHECK(i.status != 500);
  }
  CHECK(info(code_of(errc::no_space)).status == 507);
  CHECK(info(code_of(errc::unavailable)).status == 503);
  CHECK(info(code_of(errc::outcome_unknown)).status == 503);
  CHECK(info(code_of(errc::overloaded)).name == "SlowDown");
}

TEST_CASE("the code table is in the order of the enum and names nothing twice") {
  std::map<std::string_view, int> names;
  for (const code_info& i : all_codes()) {
    CHECK(&info(i.id) == &i);
    CHECK(++names[i.name] == 1);
  }
}

TEST_CASE("an error document has code, message, resource and request id; a fault inside says nothing of itself") {
  auto r = error_response(failure(code::no_such_key), "/b/<k>", "0123");
  CHECK(r.status == 404);
  CHECK(r.headers.get("content-type") == "application/xml");
  auto x = xml_reader::parse(r.body);
  REQUIRE(x);
  CHECK(x->root().child_text("Code") == "NoSuchKey");
  CHECK(x->root().child_text("Resource") == "/b/<k>");
  CHECK(x->root().child_text("RequestId") == "0123");
  CHECK_FALSE(x->root().child_text("Message").empty());

  r = error_response(failure(error(errc::io_failed, "drive 3 of node 17")), "/", "1");
  CHECK(r.status == 500);
  CHECK(r.body.find("drive 3") == r.body.npos);
  CHECK(failure(error(errc::io_failed, "drive 3")).inside == "io_failed: drive 3");
  r = error_response(failure(errc::unavailable), "/", "1");
  CHECK(r.status == 503);
  CHECK(r.headers.find("retry-after"));
  CHECK(error_response(failure(code::not_modified), "/", "1").body.empty());
}

// ------------------------------------------------------------------------------------------------- XML

TEST_CASE("what is written is escaped and read back") {
  xml_writer x("Root");
  x.open("A");
  x.text("Key", "a<b>&\"c'\r\n\x01\xc3\xa9");
  x.number("N", 18446744073709551615ull);
  x.boolean("B", true);
  bytes document = x.finish();
  CHECK(document == "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Root xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><A>"
                    "<Key>a&lt;b&gt;&amp;&quot;c'&#xD;&#xA;&#x1;\xc3\xa9</Key><N>18446744073709551615</N><B>true</B></A></Root>");
  auto r = xml_reader::parse(document);
  REQUIRE(r);
  CHECK(r->root().child("A").child_text("Key") == "a<b>&\"c'\r\n\x01\xc3\xa9");
}

TEST_CASE("prefixes, comments and CDATA are understood; a key of one space stays one") {
  auto r = xml_reader::parse("<?xml version='1.0'?><!-- c --><x:Delete xmlns:x='u'>\n <x:Key><![CDATA[a&b]]></x:Key><x:Key> </x:Key></x:Delete>");
  REQUIRE(r);
  REQUIRE(r->root("Delete"));
  auto children = r->root().children();
  REQUIRE(children.size() == 2);
  CHECK(children[0].text() == "a&b");
  CHECK(children[1].text() == " ");
  r = xml_reader::parse("<a><k>x<!-- c -->y<![CDATA[<]]> <?p?>z</k><k/></a>");
  REQUIRE(r);
  CHECK(r->root().child_text("k") == "xy< z");
  CHECK(r->root().children()[1].text().empty());
  CHECK(refused(r->root("Other")) == code::malformed_xml);
}

TEST_CASE("hostile XML is refused") {
  for (const bytes& bad : {bytes(), bytes("x"), bytes("<a>"), bytes("<a></b>"), bytes("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"),
                           bytes("<a/>").append(xml_size_max, ' '), bytes("<?xml version='1.0'?>"), bytes("\0\0\0\0", 4)})
    CHECK(refused(xml_reader::parse(bad)) == code::malformed_xml);
  bytes deep;
  for (int i = 0; i < 200'000; ++i) deep += "<a>";
  CHECK(refused(xml_reader::parse(deep)) == code::malformed_xml);
  bytes closed = deep;
  for (int i = 0; i < 200'000; ++i) closed += "</a>";
  CHECK(refused(xml_reader::parse(closed)) == code::malformed_xml);
  auto nested = [](std::size_t depth) {
    bytes d;
    for (std::size_t i = 0; i < depth; ++i) d += "<a>";
    for (std::size_t i = 0; i < depth; ++i) d += "</a>";
    return "<?xml version='1.0'?>" + d + "<!-- -->";
  };
  CHECK(xml_reader::parse(nested(xml_depth_max)));
  CHECK(refused(xml_reader::parse(nested(xml_depth_max + 1))) == code::malformed_xml);
  auto wide = [](std::size_t tags) {
    bytes d = "<a>";
    for (std::size_t i = 0; i + 2 < tags; ++i) d += "<b/>";
    return d + "</a>";
  };
  CHECK(xml_reader::parse(wide(xml_tags_max)));
  CHECK(refused(xml_reader::parse(wide(xml_tags_max + 1))) == code::malformed_xml);
}

// ------------------------------------------------------------------------------------------------- routes

TEST_CASE("paths and host names say bucket and key") {
  auto t = routed(request("GET", "/"));
  CHECK(t.op == operation::list_buckets);
  t = routed(request("GET", "/bucket/"));
  CHECK((t.op == operation::list_objects && t.bucket == "bucket" && t.key.empty()));
  t = routed(request("PUT", "/bucket"));
  CHECK(t.op == operation::create_bucket);
  t = routed(request("GET", "/bucket/a//b/../c%20d+e%2Ff"));
  CHECK((t.op == operation::get_object && t.key == "a//b/../c d+e/f"));
  t = routed(request("GET", "/bucket//"));
  CHECK(t.key == "/");
  t = routed(request("GET", "/a/b", "my.bucket.s3.localhost:3900"));
  CHECK((t.bucket == "my.bucket" && t.key == "a/b"));
  t = routed(request("GET", "/", "Bucket.S3.localhost"));
  CHECK((t.bucket == "bucket" && t.op == operation::list_objects));
  t = routed(request("GET", "/b/k", "s3.localhost"));
  CHECK((t.bucket == "b" && t.key == "k"));
  t = routed(request("GET", "/b/k", "notmys3.localhost"));
  CHECK(t.bucket == "b");
}

TEST_CASE("keys are 1 to 1024 bytes of UTF-8 without NUL") {
  CHECK(route(request("GET", "/b/" + std::string(1024, 'k')), ""));
  CHECK(refused(route(request("GET", "/b/" + std::string(1025, 'k')), "")) == code::key_too_long);
  CHECK(refused(route(request("GET", "/b/a%00"), "")) == code::invalid_argument);
  CHECK(refused(route(request("GET", "/b/%ff"), "")) == code::invalid_argument);
  CHECK(refused(route(request("GET", "/b/%c0%80"), "")) == code::invalid_argument);
  CHECK(refused(route(request("GET", "/b/%zz"), "")) == code::invalid_uri);
  CHECK(refused(route(request("GET", "*"), "")) == code::invalid_uri);
  CHECK(is_utf8("\xf0\x9f\x93\xb7 \xe2\x82\xac"));
  CHECK_FALSE(is_utf8("\xed\xa0\x80"));      // a surrogate
  CHECK_FALSE(is_utf8("\xf4\x90\x80\x80"));  // past the last character
  CHECK_FALSE(is_utf8("\xe2\x82"));
}

TEST_CASE("method and query choose the operation") {
  auto op = [](std::string method, std::string t) { return routed(request(std::move(method), std::move(t))).op; };
  CHECK(op("GET", "/b?list-type=2&prefix=x") == operation::list_objects_v2);
  CHECK(op("GET", "/b?versions") == operation::list_object_versions);
  CHECK(op("GET", "/b?uploads") == operation::list_uploads);
  CHECK(op("GET", "/b?location") == operation::get_bucket_location);
  CHECK(op("POST", "/b?delete") == operation::delete_objects);
  CHECK(op("HEAD", "/b") == operation::head_bucket);
  CHECK(op("GET", "/b?policy") == operation::get_bucket_setting);
  CHECK(op("PUT", "/b?policy") == operation::unsupported);
  CHECK(op("PUT", "/b?versioning") == operation::unsupported);
  CHECK(op("PUT", "/b?website") == operation::put_bucket_website);
  CHECK(op("POST", "/b") == operation::unsupported);
  CHECK(op("PUT", "/b/k?x-id=PutObject") == operation::put_object);
  CHECK(op("PUT", "/b/k?unknown=1") == operation::put_object);
  CHECK(op("PUT", "/b/k?retention") == operation::unsupported);
  CHECK(op("GET", "/b/k?torrent") == operation::unsupported);
  CHECK(op("PUT", "/b/k?partNumber=1&uploadId=u") == operation::upload_part);
  CHECK(op("POST", "/b/k?uploads") == operation::create_upload);
  CHECK(op("POST", "/b/k?uploadId=u") == operation::complete_upload);
  CHECK(op("DELETE", "/b/k?uploadId=u") == operation::abort_upload);
  CHECK(op("GET", "/b/k?uploadId=u") == operation::list_parts);
  CHECK(op("GET", "/b/k?tagging") == operation::get_object_tagging);
  CHECK(op("OPTIONS", "/b/k") == operation::preflight);
  CHECK(refused(route(request("BREW", "/b"), "")) == code::method_not_allowed);
  CHECK(refused(route(request("PUT", "/"), "")) == code::method_not_allowed);
  auto copy = request("PUT", "/b/k");
  copy.headers.add("x-amz-copy-source", "a/b");
  CHECK(routed(copy).op == operation::copy_object);
}

TEST_CASE("every operation has a name and something that it needs") {
  for (int i = 0; i <= static_cast<int>(operation::list_parts); ++i) {
    auto o = static_cast<operation>(i);
    CHECK_FALSE(to_string(o).empty());
    (void)action_of(o);
  }
}

// ------------------------------------------------------------------------------------------------- headers

TEST_CASE("numbers are bounded") {
  CHECK(parse_number("0", 10) == 0);
  CHECK(parse_number("10", 10) == 10);
  for (const char* bad : {"", "11", "-1", "+1", " 1", "1 ", "1x", "99999999999999999999999"}) CHECK_FALSE(parse_number(bad, 10));
  CHECK(format_iso(1369353600007) == "2013-05-24T00:00:00.007Z");
}

TEST_CASE("content encoding is stored without aws-chunked") {
  auto stored = [](const char* sent) {
    http::headers h;
    h.add("Content-Encoding", sent);
    auto o = read_object_headers(h);
    REQUIRE(o);
    return o->content_encoding;
  };
  CHECK(stored("gzip") == "gzip");
  CHECK(stored("deflate,gzip") == "deflate,gzip");
  CHECK(stored("aws-chunked") == "");
  CHECK(stored("aws-chunked,gzip") == "gzip");
  CHECK(stored("gzip, AWS-chunked, br") == "gzip, br");
}

TEST_CASE("user metadata: lower case, in order, equal names joined, 2 KiB") {
  http::headers h;
  h.add("X-Amz-Meta-B", "1");
  h.add("x-amz-meta-a", "2");
  h.add("x-amz-meta-b", "3");
  auto o = read_object_headers(h);
  REQUIRE(o);
  CHECK(o->metadata == std::vector<model::tag>{{"b", "1,3"}, {"a", "2"}});
  h.add("x-amz-meta-long", std::string(2048 - 6 - 4, 'x'));
  CHECK(read_object_headers(h));
  h.add("x-amz-meta-l", "");
  CHECK(refused(read_object_headers(h)) == code::metadata_too_large);
}

TEST_CASE("checksums are read and written") {
  http::headers h;
  h.add("x-amz-checksum-crc32", "DUoRhQ==");
  h.add("x-amz-sdk-checksum-algorithm", "crc32");
  auto g = read_checksums(h);
  REQUIRE(g);
  REQUIRE(g->values.size() == 1);
  CHECK(to_hex(g->values[0].value) == "0d4a1185");
  CHECK(g->compute == crypto::hash_kind::crc32);
  h.add("x-amz-checksum-sha1", to_base64(bytes(20, 'a')));
  CHECK(refused(read_checksums(h)) == code::invalid_request);

  auto bad = [](const char* name, std::string value) {
    http::headers b;
    b.add(name, std::move(value));
    return refused(read_checksums(b));
  };
  CHECK(bad("x-amz-checksum-crc32", "DUoR") == code::invalid_request);
  CHECK(bad("x-amz-checksum-sha256", "!") == code::invalid_request);
  CHECK(bad("x-amz-sdk-checksum-algorithm", "MD5") == code::invalid_request);
  CHECK(bad("x-amz-trailer", "x-amz-meta-a") == code::invalid_request);

  auto c = parse_checksum(crypto::hash_kind::crc32, "DUoRhQ==-3");
  REQUIRE(c);
  CHECK((c->composite && c->parts == 3));
  CHECK(checksum_text(*c) == "DUoRhQ==-3");
  http::headers out;
  add_checksums(out, std::span(&*c, 1));
  CHECK(out.get("x-amz-checksum-crc32") == "DUoRhQ==-3");
  CHECK(out.get("x-amz-checksum-type") == "COMPOSITE");
}

TEST_CASE("Content-MD5 must be one") {
  http::headers h;
  CHECK(read_content_md5(h).value() == std::nullopt);
  h.add("Content-MD5", to_base64(bytes(16, 'm')));
  CHECK(read_content_md5(h).value() == bytes(16, 'm'));
  for (const char* bad : {"", "bad", "AAAA"}) {
    h.set("content-md5", bad);
    CHECK(refused(read_content_md5(h)) == code::invalid_digest);
  }
}

TEST_CASE("tags are bounded") {
  auto tags = [](std::string v) {
    http::headers h;
    h.add("x-amz-tagging", std::move(v));
    return read_tagging(h);
  };
  CHECK(tags("a=1&b=%C3%A9").value() == std::vector<model::tag>{{"a", "1"}, {"b", "\xc3\xa9"}});
  CHECK(refused(tags("a=1&a=2")) == code::invalid_tag);
  CHECK(refused(tags("=1")) == code::invalid_tag);
  CHECK(refused(tags("a&b&c&d&e&f&g&h&i&j&k")) == code::invalid_tag);
  CHECK(tags(std::string(128, 'k') + "=" + std::string(256, 'v')));
  CHECK(refused(tags(std::string(129, 'k'))) == code::invalid_tag);
  CHECK(refused(tags("k=" + std::string(257, 'v'))) == code::invalid_tag);
}

TEST_CASE("copy sources") {
  auto source = [](std::string v) {
    http::headers h;
    h.add("x-amz-copy-source", std::move(v));
    return read_copy_source(h);
  };
  CHECK(source("/b/a/k").value().key == "a/k");
  CHECK(source("b/a%20k+%3FversionId").value().key == "a k+?versionId");
  CHECK(source("b/k?versionId=null").value().key == "k");
  CHECK(source("b/100%").value().key == "100%");  // not encoded at all
  CHECK(refused(source("b/k?versionId=x")) == code::no_such_version);
  for (const char* bad : {"", "b", "/b", "b/", "//k"}) CHECK(refused(source(bad)) == code::invalid_argument);
}

TEST_CASE("what would be wrong to ignore is refused") {
  auto with = [](const char* name, const char* value) {
    http::headers h;
    h.add(name, value);
    return refuse_unsupported(h);
  };
  CHECK(with("x-amz-acl", "private"));
  CHECK(with("x-amz-acl", "bucket-owner-full-control"));
  CHECK(refused(with("x-amz-acl", "public-read")) == code::not_implemented);
  CHECK(refused(with("x-amz-acl", "nonsense")) == code::invalid_argument);
  CHECK(refused(with("X-Amz-Server-Side-Encryption", "AES256")) == code::not_implemented);
  CHECK(refused(with("x-amz-server-side-encryption-customer-algorithm", "AES256")) == code::not_implemented);
  CHECK(refused(with("x-amz-object-lock-mode", "GOVERNANCE")) == code::not_implemented);
  CHECK(refused(with("x-amz-grant-read", "id=a")) == code::not_implemented);
  CHECK(with("x-amz-meta-anything", "x"));
}
