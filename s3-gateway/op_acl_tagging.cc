// Access control lists (private ones: the owner alone) and tags of objects.
#include "run.h"

#include <algorithm>

namespace grenier::s3 {

namespace {

outcome<std::vector<model::tag>> parse_tagging(bytes_view document) {
  S3_TRY(xml_reader reader, xml_reader::parse(document));
  S3_TRY(xml_element root, reader.root("Tagging"));
  xml_element set = root.child("TagSet");
  if (!set) return refuse(code::malformed_xml);
  std::vector<model::tag> tags;
  for (const xml_element& e : set.children()) {
    if (e.name() != "Tag" || !e.child("Key") || !e.child("Value")) return refuse(code::malformed_xml);
    tags.push_back({e.child_text("Key"), e.child_text("Value")});
    if (tags.size() > 64) break;  // too many in any case
  }
  S3_TRY_VOID(check_tags(tags));
  return tags;
}

}  // namespace

task<outcome<store::object_meta>> run::head_now(std::string bucket, std::string key) {
  store::get_request g;
  g.bucket = std::move(bucket);
  g.key = std::move(key);
  g.head = true;
  S3_CO_TRY(auto found, co_await core_.store.get(call(soon()), std::move(g)));
  co_return std::move(found.meta);
}

// ------------------------------------------------------------------------------------------------- ACLs

task<run::answer> run::get_acl() {
  std::string id = bucket_->owner_id, name = bucket_->owner_name;
  if (!target_.key.empty()) {
    S3_CO_TRY(auto meta, co_await head_now(target_.bucket, target_.key));
    if (!meta.owner_id.empty()) id = meta.owner_id, name = meta.owner_name;
  }
  xml_writer x("AccessControlPolicy");
  x.open("Owner");
  x.text("ID", id);
  x.text("DisplayName", name);
  x.close();
  x.open("AccessControlList");
  x.open("Grant");
  x.open_with("Grantee", "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\"");
  x.text("ID", id);
  x.text("DisplayName", name);
  x.close();
  x.text("Permission", "FULL_CONTROL");
  co_return xml_reply(x.finish());
}

// The one list there is: the owner, with full control.
outcome<void> run::judge_acl(bytes_view document) const {
  S3_TRY(xml_reader reader, xml_reader::parse(document));
  S3_TRY(xml_element root, reader.root("AccessControlPolicy"));
  xml_element list = root.child("AccessControlList");
  if (!list) return refuse(code::malformed_acl);
  for (const xml_element& grant : list.children()) {
    if (grant.name() != "Grant" || !grant.child("Grantee") || grant.child_text("Permission").empty()) return refuse(code::malformed_acl);
    std::string id = grant.child("Grantee").child_text("ID");
    bool own = id == bucket_->owner_id || (who_.key && id == who_.key->owner_id);
    if (!own || grant.child_text("Permission") != "FULL_CONTROL")
      return refuse(code::not_implemented, "Only the owner's own full control can be granted.");
  }
  return {};
}

task<run::answer> run::put_acl() {
  // Canned lists in x-amz-acl were judged with the other headers.
  if (!request_.headers.find("x-amz-acl")) {
    S3_CO_TRY(bytes document, co_await read_document());
    if (document.empty()) co_return refuse(code::missing_security_header, "The request has neither x-amz-acl nor a body.");
    S3_CO_TRY_VOID(judge_acl(document));
  }
  if (!target_.key.empty()) S3_CO_TRY_VOID(co_await head_now(target_.bucket, target_.key));
  co_return empty_reply(200);
}

// ------------------------------------------------------------------------------------------------- tags

task<run::answer> run::get_tagging() {
  S3_CO_TRY(auto tags, co_await core_.store.get_tags(call(soon()), target_.bucket, target_.key));
  xml_writer x("Tagging");
  x.open("TagSet");
  for (const model::tag& t : tags) {
    x.open("Tag");
    x.text("Key", t.key);
    x.text("Value", t.value);
    x.close();
  }
  co_return xml_reply(x.finish());
}

task<run::answer> run::put_tagging() {
  S3_CO_TRY(bytes document, co_await read_document());
  S3_CO_TRY(auto tags, parse_tagging(document));
  S3_CO_TRY_VOID(co_await core_.store.set_tags(call(soon()), target_.bucket, target_.key, std::move(tags)));
  co_return empty_reply(200);
}

task<run::answer> run::delete_tagging() {
  S3_CO_TRY_VOID(co_await core_.store.set_tags(call(soon()), target_.bucket, target_.key, {}));
  co_return empty_reply(204);
}

}  // namespace grenier::s3
