// Lists of objects: ListObjects, ListObjectsV2, and ListObjectVersions, which shows each object as its only version.
#include "run.h"

#include <algorithm>

namespace grenier::s3 {

namespace {

// What a client may give back as a marker: the last key or common prefix that it was shown. (A marker that is a common prefix
// stands for all below it.)
std::string last_shown(const store::list_result& r) {
  std::string last;
  if (!r.items.empty()) last = r.items.back().key;
  if (!r.prefixes.empty()) last = std::max(last, r.prefixes.back());
  return last;
}

constexpr char token_version = '1';

std::string to_token(std::string_view last) { return to_base64(std::string(1, token_version) + std::string(last)); }

outcome<std::string> from_token(std::string_view token) {
  auto raw = from_base64(token);
  if (!raw || raw->empty() || raw->front() != token_version || raw->size() > 4096)
    return refuse(code::invalid_argument, "The continuation token is not valid.");
  return raw->substr(1);
}

}  // namespace

task<outcome<store::list_result>> run::list_page(page p, std::string start_after) {
  if (p.max == 0) co_return store::list_result();
  store::list_request r;
  r.bucket = target_.bucket;
  r.prefix = std::move(p.prefix);
  r.delimiter = std::move(p.delimiter);
  r.start_after = std::move(start_after);
  r.entries_max = p.max;
  r.how = store::consistency::strong_if_up;
  S3_CO_TRY(auto listed, co_await core_.store.list(call(soon()), std::move(r)));
  co_return listed;
}

void run::write_item(xml_writer& x, const page& p, const store::list_result::item& i, bool owner) const {
  x.text("Key", encoded(p, i.key));
  x.text("LastModified", format_iso(i.meta.modified_ms));
  x.text("ETag", quoted_etag(i.meta.etag));
  for (const store::checksum& c : i.meta.checksums)
    if (const checksum_name* n = find_checksum(c.kind)) {
      x.text("ChecksumAlgorithm", n->algorithm);
      x.text("ChecksumType", c.composite ? "COMPOSITE" : "FULL_OBJECT");
    }
  x.number("Size", i.meta.size);
  if (owner) {
    x.open("Owner");
    x.text("ID", i.meta.owner_id.empty() ? bucket_->owner_id : i.meta.owner_id);
    x.text("DisplayName", i.meta.owner_id.empty() ? bucket_->owner_name : i.meta.owner_name);
    x.close();
  }
  x.text("StorageClass", i.meta.headers.storage_class.empty() ? "STANDARD" : std::string_view(i.meta.headers.storage_class));
}

void run::write_prefixes(xml_writer& x, const page& p, const std::vector<std::string>& prefixes) const {
  for (const std::string& one : prefixes) {
    x.open("CommonPrefixes");
    x.text("Prefix", encoded(p, one));
    x.close();
  }
}

task<run::answer> run::list_objects() {
  S3_CO_TRY(page p, read_page("max-keys"));
  std::string marker(query("marker").value_or(""));
  S3_CO_TRY(auto listed, co_await list_page(p, marker));

  xml_writer x("ListBucketResult");
  x.text("Name", target_.bucket);
  x.text("Prefix", encoded(p, p.prefix));
  x.text("Marker", encoded(p, marker));
  if (listed.truncated && !p.delimiter.empty()) x.text("NextMarker", encoded(p, last_shown(listed)));
  x.number("MaxKeys", p.max);
  if (!p.delimiter.empty()) x.text("Delimiter", encoded(p, p.delimiter));
  x.boolean("IsTruncated", listed.truncated);
  if (p.url_encoded) x.text("EncodingType", "url");
  for (const auto& i : listed.items) {
    x.open("Contents");
    write_item(x, p, i, true);
    x.close();
  }
  write_prefixes(x, p, listed.prefixes);
  reply r = xml_reply(x.finish());
  if (listed.stale_possible) add_stale_headers(r.response.headers);
  co_return r;
}

task<run::answer> run::list_objects_v2() {
  S3_CO_TRY(page p, read_page("max-keys"));
  auto token = query("continuation-token"), start_after = query("start-after");
  std::string from(start_after.value_or(""));
  if (token && !token->empty()) {
    S3_CO_TRY(from, from_token(*token));
  }
  bool owner = query("fetch-owner") == "true";
  S3_CO_TRY(auto listed, co_await list_page(p, from));

  xml_writer x("ListBucketResult");
  x.text("Name", target_.bucket);
  x.text("Prefix", encoded(p, p.prefix));
  if (token) x.text("ContinuationToken", *token);
  if (listed.truncated) x.text("NextContinuationToken", to_token(listed.last));
  if (start_after && !start_after->empty()) x.text("StartAfter", encoded(p, *start_after));
  x.number("KeyCount", listed.items.size() + listed.prefixes.size());
  x.number("MaxKeys", p.max);
  if (!p.delimiter.empty()) x.text("Delimiter", encoded(p, p.delimiter));
  x.boolean("IsTruncated", listed.truncated);
  if (p.url_encoded) x.text("EncodingType", "url");
  for (const auto& i : listed.items) {
    x.open("Contents");
    write_item(x, p, i, owner);
    x.close();
  }
  write_prefixes(x, p, listed.prefixes);
  reply r = xml_reply(x.finish());
  if (listed.stale_possible) add_stale_headers(r.response.headers);
  co_return r;
}

task<run::answer> run::list_object_versions() {
  S3_CO_TRY(page p, read_page("max-keys"));
  std::string marker(query("key-marker").value_or(""));
  S3_CO_TRY(auto listed, co_await list_page(p, marker));

  xml_writer x("ListVersionsResult");
  x.text("Name", target_.bucket);
  x.text("Prefix", encoded(p, p.prefix));
  x.text("KeyMarker", encoded(p, marker));
  x.text("VersionIdMarker", query("version-id-marker").value_or(""));
  if (listed.truncated) {
    x.text("NextKeyMarker", encoded(p, last_shown(listed)));
    x.text("NextVersionIdMarker", "null");
  }
  x.number("MaxKeys", p.max);
  if (!p.delimiter.empty()) x.text("Delimiter", encoded(p, p.delimiter));
  x.boolean("IsTruncated", listed.truncated);
  if (p.url_encoded) x.text("EncodingType", "url");
  for (const auto& i : listed.items) {
    x.open("Version");
    x.text("VersionId", "null");
    x.boolean("IsLatest", true);
    write_item(x, p, i, true);
    x.close();
  }
  write_prefixes(x, p, listed.prefixes);
  reply r = xml_reply(x.finish());
  if (listed.stale_possible) add_stale_headers(r.response.headers);
  co_return r;
}

}  // namespace grenier::s3
