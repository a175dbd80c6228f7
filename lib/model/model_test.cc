#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "model/model.h"

using namespace grenier;
using namespace grenier::model;

namespace {

template <class Id>
Id some_id(char c) {
  return *Id::from_bytes(bytes(Id::size_bytes, c));
}

object_row full_object() {
  object_row o;
  o.meta.version = some_id<version_id>('v');
  o.meta.size = 300;
  o.meta.modified_ms = 1700000000123;
  o.meta.etag = "0123456789abcdef0123456789abcdef-2";
  o.meta.owner_id = "owner";
  o.meta.owner_name = "Jos\xe9, no UTF-8";
  o.meta.headers.content_type = "image/jpeg";
  o.meta.headers.cache_control = "no-cache";
  o.meta.headers.storage_class = "STANDARD";
  o.meta.headers.metadata = {{"b", "2"}, {"a", "1"}};
  o.meta.tags = {{"album", "summer"}};
  o.meta.checksums = {{crypto::hash_kind::crc32, "abcd", true, 2}};
  o.meta.parts = {{1, 200, "", {{crypto::hash_kind::crc32, "1234"}}, some_id<version_id>('p'), 1},
                  {2, 100, "", {}, some_id<version_id>('q'), 1}};
  o.meta.content = some_id<content_id>('c');
  o.blocks = {{some_id<block_hash>('x'), 200}, {some_id<block_hash>('y'), 100}};
  o.upload = some_id<upload_id>('u');
  o.placement_class = "two-homes";
  return o;
}

access_key key_of(std::string id, std::string owner) {
  access_key k;
  k.id = std::move(id);
  k.owner_id = std::move(owner);
  return k;
}

constexpr action all_actions[] = {
    action::create_bucket, action::list_buckets,     action::delete_bucket,    action::head_bucket,       action::read_bucket_settings,
    action::write_bucket_settings, action::list_objects, action::get_object,   action::put_object,        action::delete_object,
    action::read_object_tags, action::write_object_tags, action::list_uploads, action::abort_upload,      action::list_parts,
    action::serve_website, action::admin};

// What may be done, in the order of all_actions: one letter an action.
struct principal_case {
  const char* name;
  std::optional<access_key> key;
  bool admin;
  std::string_view allowed;  // '+' or '-'
};

}  // namespace

TEST_CASE("every action, asked by every kind of principal") {
  bucket b;
  b.owner_id = "owner";
  b.allowed["reader"] = {.read = true};
  b.allowed["writer"] = {.write = true};
  b.allowed["manager"] = {.owner = true};
  b.allowed["nothing"] = {};
  access_key no_buckets = key_of("k", "owner");
  no_buckets.may_create_buckets = false;
  const principal_case cases[] = {
      //                                                  create list | delete head rset wset | lobj get put del | rtag wtag lup abort lparts | web admin
      {"anonymous", std::nullopt, false, "-----------------"},
      {"admin", std::nullopt, true, "+++++++++++++++++"},
      {"stranger", key_of("other", "somebody"), false, "++---------------"},
      {"owner", key_of("k", "owner"), false, "+++++++++++++++--"},
      {"owner who makes no buckets", no_buckets, false, "-++++++++++++++--"},
      {"reader", key_of("reader", "somebody"), false, "++-+--++--+-+-+--"},
      {"writer", key_of("writer", "somebody"), false, "++------++-+-+---"},
      {"manager", key_of("manager", "somebody"), false, "+++-++-----------"},
      {"nothing", key_of("nothing", "somebody"), false, "++---------------"},
      {"a key without owner", key_of("zero", ""), false, "++---------------"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.name);
    REQUIRE(c.allowed.size() == std::size(all_actions));
    for (std::size_t i = 0; i < std::size(all_actions); ++i) {
      CAPTURE(i);
      request_facts f{c.key ? &*c.key : nullptr, c.admin, &b};
      CHECK(authorize(all_actions[i], f) == (c.allowed[i] == '+'));
    }
  }
}

TEST_CASE("a site is served to anybody, once the bucket has one, and nothing else is") {
  bucket b;
  b.owner_id = "owner";
  b.website = website{"index.html", ""};
  for (action a : all_actions) CHECK(authorize(a, {nullptr, false, &b}) == (a == action::serve_website));
  CHECK(!authorize(action::serve_website, {nullptr, false, nullptr}));
}

TEST_CASE("a private gallery is shown to whoever has a link, and nothing else of its bucket is") {
  bucket b;
  b.website = website{"index.html", ""};
  b.gallery_pages = gallery_pages{"photos", true, {}};
  gallery_link link{"aunt", bytes(32, 'x'), 1, 0};
  CHECK(!authorize(action::serve_website, {nullptr, false, &b}));
  for (action a : all_actions) CHECK(authorize(a, {nullptr, false, &b, &link}) == (a == action::serve_website));
  b.gallery_pages->is_private = false;
  CHECK(authorize(action::serve_website, {nullptr, false, &b}));
}

TEST_CASE("nobody owns a bucket that has no owner") {
  bucket b;
  access_key k = key_of("k", "");
  CHECK(!authorize(action::get_object, {&k, false, &b}));
  CHECK(!authorize(action::get_object, {&k, false, nullptr}));
}

TEST_CASE("names of buckets") {
  for (const char* good : {"abc", "my-photos", "a.b.c", "1st", "x23456789012345678901234567890123456789012345678901234567890123",
                           "1.2.3", "1.2.3.4.5", "1234.1.1.1"})
    CHECK_MESSAGE(check_bucket_name(good), good);
  for (const char* bad : {"", "ab", "Abc", "a_b", "-abc", "abc-", ".abc", "abc.", "a..b", "192.168.1.1", "xn--abc", "sthree-x",
                          "amzn-s3-demo-x", "x-s3alias", "x--ol-s3", "abc.mrap", "x--x-s3", "x--table-s3", "a b c", "caf\xc3\xa9",
                          "x234567890123456789012345678901234567890123456789012345678901234"})
    CHECK_MESSAGE(check_bucket_name(bad).failed_with(errc::invalid_argument), bad);
}

TEST_CASE("further names of buckets") {
  for (const char* good : {"a", "photos.example.org", "xn--caf-dma.fr", "1.2.3.4"}) CHECK_MESSAGE(check_alias_name(good), good);
  for (const char* bad : {"", ".", "a.", ".a", "a..b", "-a", "a-", "a-.b", "A", "a/b", "a\n"})
    CHECK_MESSAGE(check_alias_name(bad).failed_with(errc::invalid_argument), bad);
  CHECK(check_alias_name(std::string(64, 'a')).failed_with(errc::invalid_argument));
}

TEST_CASE("rows come back as they went") {
  access_key k{"GK", "s3cret", "owner", "phone", "Phone", "a@b", false, 42};
  CHECK(*decode_key(encode(k)) == k);

  bucket b;
  b.id = some_id<bucket_id>('b');
  b.name = "photos";
  b.owner_id = "o";
  b.owner_name = "O";
  b.created_ms = 7;
  b.region = "grenier";
  b.closed = true;
  b.closed_at = 99;
  b.allowed["k"] = {.read = true, .owner = true};
  b.website = website{"index.html", "404.html"};
  b.aliases = {"photos.example.org"};
  b.gallery = gallery{"photos-gallery", "Holidays", true};
  b.gallery_pages = gallery_pages{"more-photos", true, {{"aunt", bytes(32, 't'), 5, 6}}};
  auto b2 = *decode_bucket(encode(b));
  CHECK(encode(b2) == encode(b));
  CHECK(b2.allowed == b.allowed);
  CHECK(b2.website == b.website);
  CHECK(b2.gallery == b.gallery);
  CHECK(b2.gallery_pages == b.gallery_pages);
  CHECK(b2.closed_at == 99);

  object_row o = full_object();
  auto o2 = *decode_object(encode(o));
  CHECK(encode(o2) == encode(o));
  CHECK(o2.meta.headers == o.meta.headers);
  CHECK(o2.meta.parts[1].version == o.meta.parts[1].version);
  CHECK(o2.blocks[1].hash == o.blocks[1].hash);
  CHECK(o2.meta.content == o.meta.content);
  CHECK(o2.upload == o.upload);
  CHECK(o2.placement_class == "two-homes");

  upload_row u;
  u.id = some_id<upload_id>('u');
  u.key = "a/b";
  u.checksum_kind = crypto::hash_kind::md5;  // the kind whose number is 0
  u.state = upload_row::status::completing;
  u.became = some_id<version_id>('v');
  u.etag = "e-2";
  u.size = 12;
  auto u2 = *decode_upload(encode(u));
  CHECK(encode(u2) == encode(u));
  CHECK(u2.checksum_kind == crypto::hash_kind::md5);
  CHECK(u2.state == upload_row::status::completing);

  part_row p;
  p.number = 3;
  p.version = some_id<version_id>('p');
  p.size = 10;
  p.blocks = {{some_id<block_hash>('x'), 10}};
  CHECK(encode(*decode_part(encode(p))) == encode(p));

  auto m = encode_manifest(o.blocks);
  CHECK(decode_manifest(m)->at(1).size == 100);
}

TEST_CASE("a row of 10000 parts with checksums fits in a row") {
  object_row o;
  o.upload = some_id<upload_id>('u');
  for (std::uint32_t i = 1; i <= 10000; ++i) {
    o.meta.parts.push_back({i, 512ull << 20, "", {{crypto::hash_kind::sha256, bytes(32, 'h')}}, some_id<version_id>('v'), 512});
    o.meta.size += 512ull << 20;
    o.manifest_blocks += 512;
  }
  o.manifests.resize(o.manifest_blocks / manifest_entries_max, {some_id<block_hash>('m'), 147456});
  o.meta.headers.metadata = {{"k", std::string(8000, 'x')}};
  auto encoded = encode(o);
  CHECK(encoded.size() < (1u << 20));
  CHECK(decode_object(encoded));
}

TEST_CASE("a listing shows size, etag, time, class, owner and kinds of checksums, and nothing of the rest") {
  object_row o = full_object();
  auto shown = list_projection(encode(o));
  REQUIRE(shown);
  CHECK(shown->size() < 200);
  auto l = *decode_object(*shown);
  CHECK(l.meta.size == 300);
  CHECK(l.meta.etag == o.meta.etag);
  CHECK(l.meta.modified_ms == o.meta.modified_ms);
  CHECK(l.meta.headers.storage_class == "STANDARD");
  CHECK(l.meta.owner_id == "owner");
  REQUIRE(l.meta.checksums.size() == 1);
  CHECK(l.meta.checksums[0].kind == crypto::hash_kind::crc32);
  CHECK(l.meta.checksums[0].composite);
  CHECK(l.meta.headers.metadata.empty());
  CHECK(l.blocks.empty());

  object_row gone;
  gone.delete_marker = true;
  CHECK(!list_projection(encode(gone)));
  CHECK(!list_projection("garbage"));
}

TEST_CASE("what a newer version wrote is told from damage") {
  // Field 1 is the format in every row.
  CHECK(decode_object("\x08\x02").failed_with(errc::protocol));
  CHECK(decode_bucket("\x08\x02").failed_with(errc::protocol));
  CHECK(decode_key("\x08\x02").failed_with(errc::protocol));
  CHECK(decode_upload("\x08\x02").failed_with(errc::protocol));
  CHECK(decode_part("\x08\x02").failed_with(errc::protocol));
  CHECK(decode_manifest("\x08\x02").failed_with(errc::protocol));
  CHECK(decode_object("").failed_with(errc::corrupt));
  CHECK(decode_object(bytes(2 << 20, '\0')).failed_with(errc::corrupt));
}

TEST_CASE("rows that contradict themselves are corrupt") {
  object_row o = full_object();
  o.blocks[0].size = 201;
  CHECK(decode_object(encode(o)).failed_with(errc::corrupt));
  o = full_object();
  o.inline_body = true;
  CHECK(decode_object(encode(o)).failed_with(errc::corrupt));
  o = full_object();
  o.meta.parts[0].blocks = 2;
  CHECK(decode_object(encode(o)).failed_with(errc::corrupt));
  o = full_object();
  o.meta.checksums[0].value = "too long";
  CHECK(decode_object(encode(o)).failed_with(errc::corrupt));
  object_row empty;
  CHECK(decode_object(encode(empty)));
  empty.meta.size = 1;
  CHECK(decode_object(encode(empty)).failed_with(errc::corrupt));
}

TEST_CASE("decoders survive damaged and random bytes") {
  std::mt19937 random(1);
  bytes seeds[] = {encode(full_object()), encode(access_key{"a", "b", "c"}), encode_manifest(full_object().blocks)};
  for (int i = 0; i < 20000; ++i) {
    bytes b = seeds[random() % 3];
    for (auto n = random() % 4; n--;) b[random() % b.size()] = static_cast<char>(random());
    if (random() % 8 == 0) b.resize(random() % b.size());
    (void)decode_object(b);
    (void)decode_bucket(b);
    (void)decode_key(b);
    (void)decode_upload(b);
    (void)decode_part(b);
    (void)decode_manifest(b);
    (void)list_projection(b);
  }
}

TEST_CASE("where rows lie") {
  auto b = some_id<bucket_id>('b');
  auto u = some_id<upload_id>('\0');
  CHECK(object_key(b, "k").partition_key == b.view());
  CHECK(upload_key(b, "k", u).partition_key == b.view());
  CHECK(part_key(b, "k", u, 7).partition_key == b.view());
  // A key may hold a zero byte: the tail has a fixed length.
  auto split = split_upload_key(upload_key(b, bytes("a\0b", 3), u).sort_key);
  REQUIRE(split);
  CHECK(split->first == bytes("a\0b", 3));
  CHECK(split->second == u);
  CHECK(split_upload_key("short").failed_with(errc::corrupt));
  CHECK(*part_number_of(part_key(b, "k", u, 10000).sort_key) == 10000);
  CHECK(part_key(b, "k", u, 2).sort_key < part_key(b, "k", u, 256).sort_key);
  CHECK(upload_key(b, bytes(1024, 'k'), u).sort_key.size() <= 1100);
}
