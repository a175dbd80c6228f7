// run.h: one request, from its headers to its answer. The operations are members of it, one file a family (op_*.cc).
//
// Nothing of the body is read before signature, bucket and permission were judged: "100 Continue" is a promise.
//
//   Runs on   the gateway's home thread; lives in the frame of gateway::handle().
#pragma once

#include "backend.h"
#include "body.h"
#include "gateway.h"
#include "headers.h"
#include "route.h"
#include "xml.h"

namespace grenier::s3 {

struct core {
  core(runtime& r, backend& b, gateway::options o) : rt(r), store(b), options(std::move(o)) {}
  runtime& rt;
  backend& store;
  gateway::options options;
  key_cache keys;
  std::map<std::pair<operation, int>, std::uint64_t> counts;
  gateway::traffic bytes;
};

struct reply {
  http::response response;
  bool sent = false;  // it was streamed already
};
reply empty_reply(int status);
reply xml_reply(bytes document);

// The page that a listing asks for.
struct page {
  std::string prefix, delimiter;
  bool url_encoded = false;
  std::size_t max = 1000;      // clamped
};

class run {
 public:
  run(core& c, http::exchange& ex) : core_(c), exchange_(ex), request_(ex.request()) {}
  task<void> execute();

 private:
  using answer = outcome<reply>;

  // ------------------------------------------------------------------------------- around every operation (run.cc)
  task<answer> perform();
  task<outcome<void>> authenticate();
  task<outcome<void>> find_bucket_and_authorize();
  task<answer> dispatch();
  task<answer> dispatch_object();
  void stamp(http::response&) const;
  void count(int status);
  mono_time soon() const { return core_.rt.now() + 10s; }
  // For the store's part of an upload. The client's has the HTTP server's time without progress, and each block its own step_time.
  mono_time for_body() const { return core_.rt.now() + 30s; }
  store::call call(mono_time deadline) const { return {who_, deadline}; }
  std::optional<std::string_view> query(std::string_view name) const { return find(target_.query, name); }

  // ------------------------------------------------------------------------------- bodies (run.cc)
  // MissingContentLength when nothing says how long it is and `must_know`.
  outcome<std::unique_ptr<request_body>> open_body(const given_checksums&, std::uint64_t size_max, bool must_know);
  // A whole small body whose digests were checked; empty when there is none.
  task<outcome<bytes>> read_document();
  outcome<page> read_page(std::string_view max_name) const;
  std::string encoded(const page& p, std::string_view s) const { return p.url_encoded ? http::percent_encode(s, true) : std::string(s); }
  outcome<upload_id> read_upload_id() const;
  outcome<std::uint32_t> read_part_number() const;

  // ------------------------------------------------------------------------------- op_bucket.cc
  task<answer> list_buckets();
  task<answer> create_bucket();
  task<answer> delete_bucket();
  task<answer> head_bucket();
  task<answer> get_bucket_location();
  // ------------------------------------------------------------------------------- op_settings.cc
  task<answer> get_bucket_setting();
  task<answer> get_bucket_website();
  task<answer> put_bucket_website();
  task<answer> delete_bucket_website();
  // ------------------------------------------------------------------------------- op_acl_tagging.cc
  task<answer> get_acl();
  task<answer> put_acl();
  outcome<void> judge_acl(bytes_view document) const;
  task<answer> get_tagging();
  task<answer> put_tagging();
  task<answer> delete_tagging();
  task<outcome<store::object_meta>> head_now(std::string bucket, std::string key);
  // ------------------------------------------------------------------------------- op_list.cc
  task<answer> list_objects();
  task<answer> list_objects_v2();
  task<answer> list_object_versions();
  task<outcome<store::list_result>> list_page(page p, std::string start_after);
  void write_item(xml_writer&, const page&, const store::list_result::item&, bool owner) const;
  void write_prefixes(xml_writer&, const page&, const std::vector<std::string>&) const;
  // ------------------------------------------------------------------------------- op_object.cc
  task<answer> get_object();
  outcome<store::get_request> read_get() const;
  outcome<http::response> object_response(const store::get_result&, const store::get_request&) const;
  outcome<void> override_headers(http::headers&) const;
  task<answer> put_object();
  task<answer> get_object_attributes();
  // ------------------------------------------------------------------------------- op_delete.cc
  task<answer> delete_object();
  task<answer> delete_objects();
  // ------------------------------------------------------------------------------- op_copy.cc
  task<answer> copy_object();
  task<outcome<copy_source>> find_source();
  task<answer> upload_part_copy();
  // ------------------------------------------------------------------------------- op_multipart.cc
  task<answer> create_upload();
  task<answer> upload_part();
  task<answer> complete_upload();
  task<answer> abort_upload();
  task<answer> list_parts();
  task<answer> list_uploads();

  core& core_;
  http::exchange& exchange_;
  const http::request& request_;
  std::string id_;
  target target_;
  std::optional<credentials> signature_;
  bytes key_;                          // derived, of the signature
  store::principal who_;
  std::optional<store::bucket> bucket_;
};

}  // namespace grenier::s3
