#include "run.h"

#include <algorithm>

namespace grenier::s3 {

reply empty_reply(int status) {
  reply r;
  r.response.status = status;
  return r;
}

reply xml_reply(bytes document) {
  reply r;
  r.response.headers.add("Content-Type", "application/xml");
  r.response.body = std::move(document);
  return r;
}

// ------------------------------------------------------------------------------------------------- around every operation

task<void> run::execute() {
  bytes raw(8, '\0');
  core_.rt.random().fill(raw.data(), raw.size());
  id_ = to_hex(raw);
  ++core_.bytes.in_flight;
  struct leave {
    core& c;
    ~leave() { --c.bytes.in_flight; }
  } leave{core_};

  answer a = co_await perform();
  if (!a && info(a.error().id).status == 500)
    core_.rt.log(log_level::error, "s3 " + std::string(to_string(target_.op)) + " " + id_ + ": " + a.error().inside);
  if (exchange_.answered()) {
    if (!a) exchange_.abort();
  } else {
    http::response r = a ? std::move(a->response) : error_response(a.error(), request_.path, id_);
    if (!a && request_.method == "HEAD") r.body.clear();
    if (!a && r.status == 304 && !a.error().message.empty()) r.headers.add("ETag", quoted_etag(a.error().message));
    stamp(r);
    auto sent = co_await exchange_.send(std::move(r));
    if (!sent && !exchange_.answered()) exchange_.abort();
  }
  count(exchange_.status());
}

void run::stamp(http::response& r) const {
  r.headers.set("x-amz-request-id", id_);
  r.headers.set("x-amz-id-2", id_);
}

void run::count(int status) {
  ++core_.counts[{target_.op, status}];
  core_.bytes.bytes_in += exchange_.body_read();
  core_.bytes.bytes_out += exchange_.body_sent();
}

task<run::answer> run::perform() {
  S3_CO_TRY(target_, route(request_, core_.options.s3_domain));
  if (target_.op == operation::preflight) co_return refuse(code::access_forbidden);
  S3_CO_TRY_VOID(co_await authenticate());
  if (target_.op == operation::unsupported)
    co_return refuse(who_.key ? code::not_implemented : code::access_denied);
  S3_CO_TRY_VOID(refuse_unsupported(request_.headers));
  S3_CO_TRY_VOID(co_await find_bucket_and_authorize());
  if (is_on_object(target_.op))
    if (auto version = query("versionId"); version && !version->empty() && *version != "null") co_return refuse(code::no_such_version);
  co_return co_await dispatch();
}

task<outcome<void>> run::authenticate() {
  S3_CO_TRY(signature_, read_credentials(request_, target_.query));
  if (!signature_) co_return outcome<void>();
  S3_CO_TRY_VOID(check_time(*signature_, core_.rt.wall_ms()));
  auto key = co_await core_.store.find_key(signature_->key_id, soon());
  if (!key) {
    errc e = key.error().code;
    if (e == errc::not_found || e == errc::no_such_key || e == errc::access_denied) co_return refuse(code::invalid_access_key_id);
    co_return std::unexpected<failure>(failure(key.error()));
  }
  key_ = core_.keys.get(key->id, key->secret, signature_->date, signature_->region);
  S3_CO_TRY_VOID(verify(request_, target_.query, *signature_, key_));
  who_.key = std::move(*key);
  co_return outcome<void>();
}

task<outcome<void>> run::find_bucket_and_authorize() {
  if (!target_.bucket.empty() && target_.op != operation::create_bucket) {
    auto b = co_await core_.store.find_bucket(target_.bucket, soon());
    if (b.failed_with(errc::invalid_argument) || b.failed_with(errc::not_found)) co_return refuse(code::no_such_bucket);
    S3_CO_TRY_VOID(b);
    bucket_ = std::move(*b);
  }
  model::request_facts facts{.key = who_.key ? &*who_.key : nullptr, .admin = who_.admin, .bucket = bucket_ ? &*bucket_ : nullptr};
  if (!model::authorize(action_of(target_.op), facts)) co_return refuse(code::access_denied);
  if (auto owner = request_.headers.find("x-amz-expected-bucket-owner"); owner && bucket_ && *owner != bucket_->owner_id)
    co_return refuse(code::access_denied, "The bucket is not that owner's.");
  co_return outcome<void>();
}

task<run::answer> run::dispatch() {
  switch (target_.op) {
    case operation::list_buckets: co_return co_await list_buckets();
    case operation::create_bucket: co_return co_await create_bucket();
    case operation::delete_bucket: co_return co_await delete_bucket();
    case operation::head_bucket: co_return co_await head_bucket();
    case operation::get_bucket_location: co_return co_await get_bucket_location();
    case operation::get_bucket_acl: co_return co_await get_acl();
    case operation::put_bucket_acl: co_return co_await put_acl();
    case operation::get_bucket_website: co_return co_await get_bucket_website();
    case operation::put_bucket_website: co_return co_await put_bucket_website();
    case operation::delete_bucket_website: co_return co_await delete_bucket_website();
    case operation::get_bucket_setting: co_return co_await get_bucket_setting();
    case operation::delete_bucket_setting: co_return empty_reply(204);  // there is nothing to delete, ever
    case operation::list_objects: co_return co_await list_objects();
    case operation::list_objects_v2: co_return co_await list_objects_v2();
    case operation::list_object_versions: co_return co_await list_object_versions();
    case operation::list_uploads: co_return co_await list_uploads();
    case operation::delete_objects: co_return co_await delete_objects();
    default: co_return co_await dispatch_object();
  }
}

task<run::answer> run::dispatch_object() {
  switch (target_.op) {
    case operation::get_object:
    case operation::head_object: co_return co_await get_object();
    case operation::put_object: co_return co_await put_object();
    case operation::delete_object: co_return co_await delete_object();
    case operation::copy_object: co_return co_await copy_object();
    case operation::get_object_acl: co_return co_await get_acl();
    case operation::put_object_acl: co_return co_await put_acl();
    case operation::get_object_tagging: co_return co_await get_tagging();
    case operation::put_object_tagging: co_return co_await put_tagging();
    case operation::delete_object_tagging: co_return co_await delete_tagging();
    case operation::get_object_attributes: co_return co_await get_object_attributes();
    case operation::create_upload: co_return co_await create_upload();
    case operation::upload_part: co_return co_await upload_part();
    case operation::upload_part_copy: co_return co_await upload_part_copy();
    case operation::complete_upload: co_return co_await complete_upload();
    case operation::abort_upload: co_return co_await abort_upload();
    case operation::list_parts: co_return co_await list_parts();
    default: co_return refuse(code::not_implemented);
  }
}

// ------------------------------------------------------------------------------------------------- bodies

outcome<std::unique_ptr<request_body>> run::open_body(const given_checksums& given, std::uint64_t size_max, bool must_know) {
  std::optional<std::uint64_t> size = request_.content_length;
  std::optional<chunk_decoder> decoder;
  payload kind = signature_ ? signature_->payload : payload::unsigned_body;
  if (is_streaming(kind)) {
    auto text = request_.headers.find("x-amz-decoded-content-length");
    if (!text) return refuse(code::missing_content_length, "The header x-amz-decoded-content-length is missing.");
    size = parse_number(*text, std::uint64_t(1) << 50);
    if (!size) return refuse(code::invalid_argument, "x-amz-decoded-content-length is no number.");
    decoder.emplace(chunk_decoder::options{.payload = kind,
                                           .key = key_,
                                           .timestamp = signature_->timestamp,
                                           .scope = signature_->scope(),
                                           .seed = signature_->signature,
                                           .trailers = given.trailers,
                                           .decoded_size = size});
  } else if (!given.trailers.empty()) {
    return refuse(code::invalid_request, "x-amz-trailer needs a streaming payload with trailers.");
  } else if (!size && !request_.chunked) {
    if (must_know) return refuse(code::missing_content_length);
    size = 0;
  }
  if (kind == payload::streaming_signed && !given.trailers.empty())
    return refuse(code::invalid_request, "x-amz-trailer needs a streaming payload with trailers.");
  if (size && *size > size_max) return refuse(code::entity_too_large);
  return std::make_unique<request_body>(exchange_, size, size_max, std::move(decoder));
}

task<outcome<bytes>> run::read_document() {
  S3_CO_TRY(auto given, read_checksums(request_.headers));
  S3_CO_TRY(auto md5, read_content_md5(request_.headers));
  S3_CO_TRY(auto body, open_body(given, xml_size_max, false));
  S3_CO_TRY(bytes document, co_await body->read_all());
  if (md5 && *md5 != crypto::digest(crypto::hash_kind::md5, document)) co_return refuse(code::bad_digest);
  if (signature_ && signature_->content_sha256 && *signature_->content_sha256 != crypto::digest(crypto::hash_kind::sha256, document))
    co_return refuse(code::x_amz_content_sha256_mismatch);
  for (const store::checksum& c : body->trailers()) given.values.push_back(c);
  for (const store::checksum& c : given.values)
    if (c.value != crypto::digest(c.kind, document)) co_return refuse(code::bad_digest, "The checksum does not match the bytes that arrived.");
  co_return document;
}

outcome<page> run::read_page(std::string_view max_name) const {
  page p;
  p.prefix = query("prefix").value_or("");
  p.delimiter = query("delimiter").value_or("");
  if (auto e = query("encoding-type"); e && !e->empty()) {
    if (*e != "url") return refuse(code::invalid_argument, "encoding-type can only be url.");
    p.url_encoded = true;
  }
  if (auto m = query(max_name); m && !m->empty()) {
    auto n = parse_number(*m, 0x7fffffff);
    if (!n) return refuse(code::invalid_argument, std::string(max_name) + " must be a number from 0 to 2147483647.");
    p.max = static_cast<std::size_t>(std::min<std::uint64_t>(*n, 1000));
  }
  return p;
}

outcome<upload_id> run::read_upload_id() const {
  auto u = upload_id::from_hex(query("uploadId").value_or(""));
  if (!u) return refuse(code::no_such_upload);
  return *u;
}

outcome<std::uint32_t> run::read_part_number() const {
  auto n = parse_number(query("partNumber").value_or(""), 10000);
  if (!n || *n == 0) return refuse(code::invalid_argument, "partNumber must be a number from 1 to 10000.");
  return static_cast<std::uint32_t>(*n);
}

}  // namespace grenier::s3
