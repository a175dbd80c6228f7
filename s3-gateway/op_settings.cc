// Settings of buckets: websites, and those that no bucket has yet, answered as S3 answers for a bucket without them.
#include "run.h"

namespace grenier::s3 {

namespace {

struct fixed_answer {
  std::string_view subresource;
  std::optional<code> missing;             // refused with this
  std::string_view root, inside;           // or this document
};
constexpr fixed_answer fixed_answers[] = {
    {"accelerate", {}, "AccelerateConfiguration", ""},
    {"cors", code::no_such_cors_configuration, "", ""},
    {"encryption", code::server_side_encryption_configuration_not_found, "", ""},
    {"lifecycle", code::no_such_lifecycle_configuration, "", ""},
    {"logging", {}, "BucketLoggingStatus", ""},
    {"notification", {}, "NotificationConfiguration", ""},
    {"object-lock", code::object_lock_configuration_not_found, "", ""},
    {"ownershipControls", code::ownership_controls_not_found, "", ""},
    {"policy", code::no_such_bucket_policy, "", ""},
    {"policyStatus", {}, "PolicyStatus", "<IsPublic>FALSE</IsPublic>"},
    {"publicAccessBlock", code::no_such_public_access_block_configuration, "", ""},
    {"replication", code::replication_configuration_not_found, "", ""},
    {"requestPayment", {}, "RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>"},
    {"tagging", code::no_such_tag_set, "", ""},
    {"versioning", {}, "VersioningConfiguration", ""},
};

outcome<model::website> parse_website(bytes_view document) {
  S3_TRY(xml_reader reader, xml_reader::parse(document));
  S3_TRY(xml_element root, reader.root("WebsiteConfiguration"));
  if (root.child("RedirectAllRequestsTo") || root.child("RoutingRules"))
    return refuse(code::not_implemented, "Redirections of websites are not implemented.");
  model::website w;
  w.index_document = root.child("IndexDocument").child_text("Suffix");
  w.error_document = root.child("ErrorDocument").child_text("Key");
  if (w.index_document.empty() || w.index_document.find('/') != std::string::npos || w.index_document.size() > 255)
    return refuse(code::invalid_argument, "IndexDocument needs a Suffix without a slash.");
  if (!w.error_document.empty()) S3_TRY_VOID(check_key(w.error_document));
  return w;
}

result<void> set_website(model::bucket& b, std::optional<model::website> w) {
  b.website = std::move(w);
  return {};
}

}  // namespace

task<run::answer> run::get_bucket_setting() {
  for (const fixed_answer& f : fixed_answers) {
    if (f.subresource != target_.subresource) continue;
    if (f.missing) co_return refuse(*f.missing);
    bytes document = xml_writer(f.root).finish();
    document.insert(document.rfind("</"), f.inside);
    co_return xml_reply(std::move(document));
  }
  co_return refuse(code::not_implemented);
}

task<run::answer> run::get_bucket_website() {
  if (!bucket_->website) co_return refuse(code::no_such_website_configuration);
  xml_writer x("WebsiteConfiguration");
  x.open("IndexDocument");
  x.text("Suffix", bucket_->website->index_document);
  x.close();
  if (!bucket_->website->error_document.empty()) {
    x.open("ErrorDocument");
    x.text("Key", bucket_->website->error_document);
    x.close();
  }
  co_return xml_reply(x.finish());
}

task<run::answer> run::put_bucket_website() {
  S3_CO_TRY(bytes document, co_await read_document());
  S3_CO_TRY(model::website w, parse_website(document));
  auto edit = [w](model::bucket& b) { return set_website(b, w); };
  S3_CO_TRY_VOID(co_await core_.store.change_bucket(call(soon()), target_.bucket, edit));
  co_return empty_reply(200);
}

task<run::answer> run::delete_bucket_website() {
  auto edit = [](model::bucket& b) { return set_website(b, std::nullopt); };
  S3_CO_TRY_VOID(co_await core_.store.change_bucket(call(soon()), target_.bucket, edit));
  co_return empty_reply(204);
}

}  // namespace grenier::s3
