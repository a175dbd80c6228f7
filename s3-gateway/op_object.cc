// One object: GET, HEAD, PUT, and its attributes.
#include "run.h"

#include <algorithm>

namespace grenier::s3 {

// ------------------------------------------------------------------------------------------------- reading

outcome<store::get_request> run::read_get() const {
  store::get_request g;
  g.bucket = target_.bucket;
  g.key = target_.key;
  g.when = read_conditions(request_.headers);
  g.head = target_.op == operation::head_object;
  g.how = store::consistency::strong_if_up;
  if (auto range = request_.headers.find("range")) g.range = std::string(*range);
  if (auto version = request_.headers.find("if-range")) {
    g.if_range_ms = http::parse_date(*version);
    if (!g.if_range_ms) g.if_range_etag = std::string(*version);
  }
  if (query("partNumber")) {
    if (g.range) return refuse(code::invalid_request, "Range and partNumber cannot be given together.");
    S3_TRY(g.part_number, read_part_number());
  }
  return g;
}

// What a signed request may say the answer's headers should be.
outcome<void> run::override_headers(http::headers& h) const {
  static constexpr std::pair<std::string_view, std::string_view> overrides[] = {
      {"response-content-type", "Content-Type"},         {"response-content-language", "Content-Language"},
      {"response-expires", "Expires"},                   {"response-cache-control", "Cache-Control"},
      {"response-content-disposition", "Content-Disposition"}, {"response-content-encoding", "Content-Encoding"}};
  for (const auto& [name, header] : overrides) {
    auto v = query(name);
    if (!v) continue;
    if (!who_.key) return refuse(code::invalid_request, "Only a signed request may override headers of the answer.");
    if (std::ranges::any_of(*v, [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
      return refuse(code::invalid_argument, "A header of the answer cannot hold control characters.");
    h.set(header, std::string(*v));
  }
  return {};
}

outcome<http::response> run::object_response(const store::get_result& g, const store::get_request& asked) const {
  http::response r;
  r.status = g.not_modified ? 304 : g.partial && g.length > 0 ? 206 : 200;
  add_object_headers(r.headers, g.meta);
  if (g.stale_possible) add_stale_headers(r.headers);
  if (r.status == 206)
    r.headers.add("Content-Range", "bytes " + std::to_string(g.first) + "-" + std::to_string(g.first + g.length - 1) + "/" +
                                       std::to_string(g.meta.size));
  if (asked.part_number && g.parts > 0) r.headers.add("x-amz-mp-parts-count", std::to_string(g.parts));
  auto mode = request_.headers.get("x-amz-checksum-mode");
  bool whole = !g.partial && !asked.part_number;
  if (whole && (mode == "ENABLED" || mode == "enabled")) add_checksums(r.headers, g.meta.checksums);
  S3_TRY_VOID(override_headers(r.headers));
  return r;
}

task<run::answer> run::get_object() {
  S3_CO_TRY(store::get_request asked, read_get());
  bool head = asked.head;
  auto found = co_await core_.store.get(call(soon()), asked);
  if (!found) {
    errc e = found.error().code;
    if (asked.part_number && (e == errc::invalid_range || e == errc::invalid_part))
      co_return refuse(code::invalid_part, "There is no part of this number.");
    co_return std::unexpected<failure>(failure(found.error()));
  }
  S3_CO_TRY(http::response r, object_response(*found, asked));
  if (found->not_modified) co_return reply{std::move(r)};
  if (head) {
    r.headers.add("Content-Length", std::to_string(found->length));
    co_return reply{std::move(r)};
  }
  stamp(r);
  std::uint64_t left = found->length;
  // Nothing is promised before there is something to send: until then the client can still be told to try again.
  shared_bytes piece;
  if (left > 0) {
    S3_CO_TRY(piece, co_await found->body->next());
  }
  S3_CO_TRY_VOID(co_await exchange_.begin(std::move(r), left));
  while (left > 0) {
    if (!piece || piece->empty() || piece->size() > left) co_return refuse(code::internal_error);
    S3_CO_TRY_VOID(co_await exchange_.write(*piece));
    left -= piece->size();
    piece = nullptr;  // its memory goes before that of the next is asked for
    if (left > 0) {
      S3_CO_TRY(piece, co_await found->body->next());
    }
  }
  S3_CO_TRY_VOID(co_await exchange_.end());
  co_return reply{.sent = true};
}

// ------------------------------------------------------------------------------------------------- writing

task<run::answer> run::put_object() {
  if (query("partNumber")) co_return refuse(code::invalid_argument, "partNumber needs an uploadId.");
  store::put_request put;
  put.bucket = target_.bucket;
  put.key = target_.key;
  S3_CO_TRY(put.headers, read_object_headers(request_.headers));
  S3_CO_TRY(put.tags, read_tagging(request_.headers));
  S3_CO_TRY(put.content_md5, read_content_md5(request_.headers));
  S3_CO_TRY(given_checksums given, read_checksums(request_.headers));
  S3_CO_TRY(auto body, open_body(given, put_size_max, true));
  put.checksums = given.values;
  put.compute = given.compute;
  if (signature_) put.content_sha256 = signature_->content_sha256;
  put.when = read_conditions(request_.headers);
  put.when.if_modified_since_ms.reset();
  put.when.if_unmodified_since_ms.reset();

  bool conditional = put.when.if_match.has_value();
  auto done = co_await core_.store.put(call(for_body()), std::move(put), *body);
  if (!done) {
    if (body->failed()) co_return std::unexpected<failure>(*body->failed());
    // A match with what is not there.
    if (conditional && done.failed_with(errc::not_found)) co_return refuse(code::no_such_key);
    if (done.failed_with(errc::not_modified)) co_return refuse(code::precondition_failed);
    co_return std::unexpected<failure>(failure(done.error()));
  }
  reply r = empty_reply(200);
  r.response.headers.add("ETag", quoted_etag(done->etag));
  add_checksums(r.response.headers, done->checksums);
  co_return r;
}

// ------------------------------------------------------------------------------------------------- attributes

task<run::answer> run::get_object_attributes() {
  std::string wanted(request_.headers.get("x-amz-object-attributes"));
  if (wanted.empty()) co_return refuse(code::invalid_argument, "The header x-amz-object-attributes is missing.");
  for (char& c : wanted)
    if (c == ',') c = ' ';
  wanted = " " + wanted + " ";
  auto wants = [&](std::string_view name) { return wanted.find(" " + std::string(name) + " ") != std::string::npos; };
  auto max = parse_number(request_.headers.find("x-amz-max-parts").value_or("1000"), 0x7fffffff);
  auto after = parse_number(request_.headers.find("x-amz-part-number-marker").value_or("0"), 0x7fffffff);
  if (!max || !after) co_return refuse(code::invalid_argument, "x-amz-max-parts and x-amz-part-number-marker must be numbers.");
  std::size_t parts_max = static_cast<std::size_t>(std::min<std::uint64_t>(*max, 1000));
  S3_CO_TRY(auto meta, co_await head_now(target_.bucket, target_.key));

  xml_writer x("GetObjectAttributesResponse");
  if (wants("ETag")) x.text("ETag", meta.etag);
  if (wants("Checksum") && !meta.checksums.empty()) {
    x.open("Checksum");
    for (const store::checksum& c : meta.checksums)
      if (const checksum_name* n = find_checksum(c.kind)) x.text(n->element, checksum_text(c));
    x.text("ChecksumType", meta.checksums.front().composite ? "COMPOSITE" : "FULL_OBJECT");
    x.close();
  }
  if (wants("ObjectParts") && !meta.parts.empty()) {
    x.open("ObjectParts");
    x.number("PartsCount", meta.parts.size());
    std::size_t shown = 0;
    std::uint64_t last = *after;
    bool truncated = false;
    bool detailed = !meta.parts.front().checksums.empty();
    for (const model::part_entry& p : meta.parts) {
      if (p.number <= *after) continue;
      if (shown == parts_max) {
        truncated = true;
        break;
      }
      ++shown;
      last = p.number;
      if (!detailed) continue;  // S3 lists parts one by one only when they have checksums
      x.open("Part");
      x.number("PartNumber", p.number);
      x.number("Size", p.size);
      for (const store::checksum& c : p.checksums)
        if (const checksum_name* n = find_checksum(c.kind)) x.text(n->element, checksum_text(c));
      x.close();
    }
    x.number("PartNumberMarker", *after);
    x.number("NextPartNumberMarker", last);
    x.number("MaxParts", parts_max);
    x.boolean("IsTruncated", truncated);
    x.close();
  }
  if (wants("StorageClass")) x.text("StorageClass", meta.headers.storage_class.empty() ? "STANDARD" : std::string_view(meta.headers.storage_class));
  if (wants("ObjectSize")) x.number("ObjectSize", meta.size);
  reply r = xml_reply(x.finish());
  r.response.headers.add("Last-Modified", http::format_date(meta.modified_ms));
  co_return r;
}

}  // namespace grenier::s3
