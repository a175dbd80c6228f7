// Copies within the store: whole objects, and ranges of them into parts.
#include "run.h"

namespace grenier::s3 {

namespace {

bytes copy_document(std::string_view root, const store::copy_result& c) {
  xml_writer x(root);
  x.text("LastModified", format_iso(c.modified_ms));
  x.text("ETag", quoted_etag(c.etag));
  for (const store::checksum& one : c.checksums)
    if (const checksum_name* n = find_checksum(one.kind)) x.text(n->element, checksum_text(one));
  if (!c.checksums.empty()) x.text("ChecksumType", c.checksums.front().composite ? "COMPOSITE" : "FULL_OBJECT");
  return x.finish();
}

// A condition on the source that fails is 412 whatever it was.
std::unexpected<failure> copy_failure(const error& e) {
  return e.code == errc::not_modified ? refuse(code::precondition_failed) : std::unexpected<failure>(failure(e));
}

outcome<bool> is_replace(const http::headers& h, std::string_view header) {
  auto v = h.get(header);
  if (v.empty() || v == "COPY") return false;
  if (v == "REPLACE") return true;
  return refuse(code::invalid_argument, std::string(header) + " can be COPY or REPLACE.");
}

outcome<void> check_copy_range(std::string_view range) {
  auto bad = refuse(code::invalid_argument, "x-amz-copy-source-range should look like bytes=first-last.");
  if (!range.starts_with("bytes=")) return bad;
  range.remove_prefix(6);
  auto dash = range.find('-');
  if (dash == range.npos) return bad;
  auto first = parse_number(range.substr(0, dash), std::uint64_t(1) << 50), last = parse_number(range.substr(dash + 1), std::uint64_t(1) << 50);
  if (!first || !last || *first > *last) return bad;
  return {};
}

}  // namespace

// What is to be copied, and that its bucket is whose the client thinks it is. May it be read? The store judges.
task<outcome<copy_source>> run::find_source() {
  S3_CO_TRY(copy_source from, read_copy_source(request_.headers));
  auto owner = request_.headers.find("x-amz-source-expected-bucket-owner");
  if (!owner) co_return from;
  S3_CO_TRY(store::bucket b, co_await core_.store.find_bucket(from.bucket, soon()));
  if (*owner != b.owner_id) co_return refuse(code::access_denied, "The source's bucket is not that owner's.");
  co_return from;
}

task<run::answer> run::copy_object() {
  store::copy_request copy;
  S3_CO_TRY(copy_source from, co_await find_source());
  copy.from_bucket = from.bucket;
  copy.from_key = from.key;
  copy.from_when = read_conditions(request_.headers, "x-amz-copy-source-");
  copy.bucket = target_.bucket;
  copy.key = target_.key;
  S3_CO_TRY(copy.replace_headers, is_replace(request_.headers, "x-amz-metadata-directive"));
  S3_CO_TRY(copy.replace_tags, is_replace(request_.headers, "x-amz-tagging-directive"));
  S3_CO_TRY(copy.headers, read_object_headers(request_.headers));
  S3_CO_TRY(copy.tags, read_tagging(request_.headers));
  S3_CO_TRY(given_checksums given, read_checksums(request_.headers));
  copy.compute = given.compute;
  copy.when = read_conditions(request_.headers);
  copy.when.if_modified_since_ms.reset();
  copy.when.if_unmodified_since_ms.reset();
  bool changes = copy.replace_headers || !copy.headers.storage_class.empty() || !copy.headers.website_redirect.empty() || copy.compute;
  if (from.bucket == target_.bucket && from.key == target_.key && !changes)
    co_return refuse(code::invalid_request, "A copy of an object onto itself must change its metadata or storage class.");

  auto done = co_await core_.store.copy(call(core_.rt.now() + 10min), std::move(copy));
  if (!done) co_return copy_failure(done.error());
  co_return xml_reply(copy_document("CopyObjectResult", *done));
}

task<run::answer> run::upload_part_copy() {
  store::upload_part_copy_request copy;
  S3_CO_TRY(copy.number, read_part_number());
  S3_CO_TRY(copy.upload, read_upload_id());
  S3_CO_TRY(copy_source from, co_await find_source());
  copy.bucket = target_.bucket;
  copy.key = target_.key;
  copy.from_bucket = from.bucket;
  copy.from_key = from.key;
  copy.from_when = read_conditions(request_.headers, "x-amz-copy-source-");
  if (auto range = request_.headers.find("x-amz-copy-source-range")) {
    S3_CO_TRY_VOID(check_copy_range(*range));
    copy.range = std::string(*range);
  }
  auto done = co_await core_.store.upload_part_copy(call(core_.rt.now() + 10min), std::move(copy));
  if (!done) co_return copy_failure(done.error());
  co_return xml_reply(copy_document("CopyPartResult", *done));
}

}  // namespace grenier::s3
