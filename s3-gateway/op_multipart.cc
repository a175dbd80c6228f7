// Uploads in parts: create, part, complete, abort, and the two lists.
#include "run.h"

#include <algorithm>

namespace grenier::s3 {

namespace {

outcome<std::vector<store::part_info>> parse_completion(bytes_view document) {
  S3_TRY(xml_reader reader, xml_reader::parse(document));
  S3_TRY(xml_element root, reader.root("CompleteMultipartUpload"));
  std::vector<store::part_info> parts;
  for (const xml_element& e : root.children()) {
    if (e.name() != "Part") return refuse(code::malformed_xml);
    if (parts.size() == 10000) return refuse(code::malformed_xml, "An upload has at most 10000 parts.");
    store::part_info p;
    auto number = parse_number(e.child_text("PartNumber"), 10000);
    if (!number || *number == 0) return refuse(code::malformed_xml, "A PartNumber is no number from 1 to 10000.");
    p.number = static_cast<std::uint32_t>(*number);
    p.etag = bare_etag(e.child_text("ETag"));
    if (p.etag.empty()) return refuse(code::malformed_xml, "A part has no ETag.");
    for (const checksum_name& n : checksum_names()) {
      xml_element given = e.child(n.element);
      if (!given) continue;
      auto c = parse_checksum(n.kind, given.text());
      if (!c) return refuse(code::invalid_request, std::string(n.element) + " is no checksum of that kind.");
      p.checksums.push_back(std::move(*c));
    }
    parts.push_back(std::move(p));
  }
  if (parts.empty()) return refuse(code::malformed_xml, "An upload needs at least one part.");
  return parts;
}

// CRC64NVME is always of the whole; the SHAs can only be of the parts.
outcome<bool> is_composite(crypto::hash_kind kind, std::string_view type) {
  using crypto::hash_kind;
  bool sha = kind == hash_kind::sha1 || kind == hash_kind::sha256;
  if (type.empty()) return kind != hash_kind::crc64nvme;
  if (type != "COMPOSITE" && type != "FULL_OBJECT") return refuse(code::invalid_request, "x-amz-checksum-type can be COMPOSITE or FULL_OBJECT.");
  bool composite = type == "COMPOSITE";
  if ((sha && !composite) || (kind == hash_kind::crc64nvme && composite))
    return refuse(code::invalid_request, "This checksum algorithm cannot be used with this checksum type.");
  return composite;
}

void write_owner(xml_writer& x, std::string_view element, std::string_view id, std::string_view name) {
  x.open(element);
  x.text("ID", id);
  x.text("DisplayName", name);
  x.close();
}

std::string_view storage_class_of(const model::object_headers& h) { return h.storage_class.empty() ? "STANDARD" : std::string_view(h.storage_class); }

}  // namespace

task<run::answer> run::create_upload() {
  store::put_request put;
  put.bucket = target_.bucket;
  put.key = target_.key;
  S3_CO_TRY(put.headers, read_object_headers(request_.headers));
  S3_CO_TRY(put.tags, read_tagging(request_.headers));
  S3_CO_TRY(given_checksums given, read_checksums(request_.headers));
  put.compute = given.compute;
  auto type = request_.headers.get("x-amz-checksum-type");
  if (put.compute) {
    S3_CO_TRY(put.composite, is_composite(*put.compute, type));
  } else if (!type.empty()) {
    co_return refuse(code::invalid_request, "x-amz-checksum-type needs x-amz-checksum-algorithm.");
  }
  auto kind = put.compute;
  bool composite = put.composite;
  S3_CO_TRY(upload_id upload, co_await core_.store.create_upload(call(soon()), std::move(put)));

  xml_writer x("InitiateMultipartUploadResult");
  x.text("Bucket", target_.bucket);
  x.text("Key", target_.key);
  x.text("UploadId", upload.hex());
  reply r = xml_reply(x.finish());
  if (kind) {
    r.response.headers.add("x-amz-checksum-algorithm", std::string(find_checksum(*kind)->algorithm));
    r.response.headers.add("x-amz-checksum-type", composite ? "COMPOSITE" : "FULL_OBJECT");
  }
  co_return r;
}

task<run::answer> run::upload_part() {
  store::upload_part_request part;
  part.bucket = target_.bucket;
  part.key = target_.key;
  S3_CO_TRY(part.number, read_part_number());
  S3_CO_TRY(part.upload, read_upload_id());
  S3_CO_TRY(part.content_md5, read_content_md5(request_.headers));
  S3_CO_TRY(given_checksums given, read_checksums(request_.headers));
  S3_CO_TRY(auto body, open_body(given, put_size_max, true));
  part.checksums = given.values;
  part.compute = given.compute;
  if (signature_) part.content_sha256 = signature_->content_sha256;
  auto done = co_await core_.store.upload_part(call(for_body()), std::move(part), *body);
  if (!done) {
    if (body->failed()) co_return std::unexpected<failure>(*body->failed());
    co_return std::unexpected<failure>(failure(done.error()));
  }
  reply r = empty_reply(200);
  r.response.headers.add("ETag", quoted_etag(done->etag));
  add_checksums(r.response.headers, done->checksums);
  r.response.headers.remove("x-amz-checksum-type");  // a part has none
  co_return r;
}

task<run::answer> run::complete_upload() {
  store::complete_request complete;
  complete.bucket = target_.bucket;
  complete.key = target_.key;
  S3_CO_TRY(complete.upload, read_upload_id());
  // A checksum header is the whole object's here, not the document's: it must not be checked against the body.
  S3_CO_TRY(given_checksums given, read_checksums(request_.headers));
  complete.checksums = given.values;
  S3_CO_TRY(auto body, open_body(given, xml_size_max, false));
  S3_CO_TRY(bytes document, co_await body->read_all());
  if (signature_ && signature_->content_sha256 && *signature_->content_sha256 != crypto::digest(crypto::hash_kind::sha256, document))
    co_return refuse(code::x_amz_content_sha256_mismatch);
  S3_CO_TRY(complete.parts, parse_completion(document));
  complete.when = read_conditions(request_.headers);
  complete.when.if_modified_since_ms.reset();
  complete.when.if_unmodified_since_ms.reset();
  if (request_.headers.get("x-amz-checksum-type") == "COMPOSITE")
    for (store::checksum& c : complete.checksums) {
      c.composite = true;
      if (c.parts == 0) c.parts = static_cast<std::uint32_t>(complete.parts.size());
    }

  auto done = co_await core_.store.complete_upload(call(core_.rt.now() + 10min), std::move(complete));
  if (done.failed_with(errc::not_modified)) co_return refuse(code::precondition_failed);
  if (!done) co_return std::unexpected<failure>(failure(done.error()));
  xml_writer x("CompleteMultipartUploadResult");
  x.text("Location", "http://" + std::string(request_.headers.get("host")) + canonical_path(request_.path));
  x.text("Bucket", target_.bucket);
  x.text("Key", target_.key);
  x.text("ETag", quoted_etag(done->etag));
  for (const store::checksum& c : done->checksums)
    if (const checksum_name* n = find_checksum(c.kind)) x.text(n->element, checksum_text(c));
  if (!done->checksums.empty()) x.text("ChecksumType", done->checksums.front().composite ? "COMPOSITE" : "FULL_OBJECT");
  co_return xml_reply(x.finish());
}

task<run::answer> run::abort_upload() {
  S3_CO_TRY(upload_id upload, read_upload_id());
  S3_CO_TRY_VOID(co_await core_.store.abort_upload(call(soon()), target_.bucket, target_.key, upload));
  co_return empty_reply(204);
}

task<run::answer> run::list_parts() {
  S3_CO_TRY(upload_id upload, read_upload_id());
  S3_CO_TRY(page p, read_page("max-parts"));
  auto after = parse_number(query("part-number-marker").value_or("0"), 0x7fffffff);
  if (!after) co_return refuse(code::invalid_argument, "part-number-marker must be a number.");
  auto last = static_cast<std::uint32_t>(*after);
  // Nothing is asked for, but whether the upload is there still is.
  S3_CO_TRY(auto listed, co_await core_.store.list_parts(call(soon()), target_.bucket, target_.key, upload, last, std::max<std::size_t>(p.max, 1)));
  if (p.max == 0) listed.parts.clear(), listed.truncated = false;
  if (!listed.parts.empty()) last = listed.parts.back().number;

  xml_writer x("ListPartsResult");
  x.text("Bucket", target_.bucket);
  x.text("Key", encoded(p, target_.key));
  x.text("UploadId", upload.hex());
  write_owner(x, "Initiator", listed.upload.owner.empty() ? bucket_->owner_id : listed.upload.owner, bucket_->owner_name);
  write_owner(x, "Owner", listed.upload.owner.empty() ? bucket_->owner_id : listed.upload.owner, bucket_->owner_name);
  x.text("StorageClass", storage_class_of(listed.upload.headers));
  x.number("PartNumberMarker", *after);
  x.number("NextPartNumberMarker", last);
  x.number("MaxParts", p.max);
  x.boolean("IsTruncated", listed.truncated);
  if (listed.upload.checksum_kind)
    if (const checksum_name* n = find_checksum(*listed.upload.checksum_kind)) x.text("ChecksumAlgorithm", n->algorithm);
  for (const store::part_info& one : listed.parts) {
    x.open("Part");
    x.number("PartNumber", one.number);
    x.text("LastModified", format_iso(one.modified_ms));
    x.text("ETag", quoted_etag(one.etag));
    x.number("Size", one.size);
    for (const store::checksum& c : one.checksums)
      if (const checksum_name* n = find_checksum(c.kind)) x.text(n->element, checksum_text(c));
    x.close();
  }
  co_return xml_reply(x.finish());
}

task<run::answer> run::list_uploads() {
  S3_CO_TRY(page p, read_page("max-uploads"));
  std::string key_marker(query("key-marker").value_or(""));
  std::string id_marker(query("upload-id-marker").value_or(""));
  upload_id after;
  if (!key_marker.empty() && !id_marker.empty()) {
    auto id = upload_id::from_hex(id_marker);
    if (!id) co_return refuse(code::invalid_argument, "upload-id-marker is no upload's id.");
    after = *id;
  }
  store::list_uploads_result listed;
  if (p.max > 0) {
    S3_CO_TRY(listed, co_await core_.store.list_uploads(call(soon()), target_.bucket, p.prefix, p.delimiter, key_marker, after, p.max));
  }

  xml_writer x("ListMultipartUploadsResult");
  x.text("Bucket", target_.bucket);
  x.text("KeyMarker", encoded(p, key_marker));
  x.text("UploadIdMarker", id_marker);
  if (listed.truncated) {
    x.text("NextKeyMarker", encoded(p, listed.last_key));
    x.text("NextUploadIdMarker", listed.last_upload ? listed.last_upload.hex() : std::string());
  }
  x.text("Prefix", encoded(p, p.prefix));
  if (!p.delimiter.empty()) x.text("Delimiter", encoded(p, p.delimiter));
  x.number("MaxUploads", p.max);
  x.boolean("IsTruncated", listed.truncated);
  if (p.url_encoded) x.text("EncodingType", "url");
  for (const store::upload_info& u : listed.uploads) {
    x.open("Upload");
    x.text("Key", encoded(p, u.key));
    x.text("UploadId", u.upload.hex());
    write_owner(x, "Initiator", u.owner.empty() ? bucket_->owner_id : u.owner, bucket_->owner_name);
    write_owner(x, "Owner", u.owner.empty() ? bucket_->owner_id : u.owner, bucket_->owner_name);
    x.text("StorageClass", storage_class_of(u.headers));
    x.text("Initiated", format_iso(u.started_ms));
    if (u.checksum_kind)
      if (const checksum_name* n = find_checksum(*u.checksum_kind)) x.text("ChecksumAlgorithm", n->algorithm);
    x.close();
  }
  write_prefixes(x, p, listed.prefixes);
  co_return xml_reply(x.finish());
}

}  // namespace grenier::s3
