// Deleting one object, or a thousand.
#include "run.h"

namespace grenier::s3 {

namespace {

struct deletion {
  std::string key;
  std::optional<std::string> version;
  std::optional<failure> refused;
  std::size_t index = 0;  // among the keys that are asked of the store
};
struct deletions {
  std::vector<deletion> all;
  bool quiet = false;
};

outcome<deletions> parse_deletions(bytes_view document) {
  S3_TRY(xml_reader reader, xml_reader::parse(document));
  S3_TRY(xml_element root, reader.root("Delete"));
  deletions d;
  d.quiet = root.child_text("Quiet") == "true";
  for (const xml_element& e : root.children()) {
    if (e.name() != "Object") continue;
    if (d.all.size() == 1000) return refuse(code::malformed_xml, "At most 1000 objects can be deleted at once.");
    if (!e.child("Key") || !e.child("Key").children().empty()) return refuse(code::malformed_xml);
    deletion one;
    one.key = e.child_text("Key");
    if (e.child("VersionId")) one.version = e.child_text("VersionId");
    if (auto ok = check_key(one.key); !ok)
      one.refused = ok.error();
    else if (one.version && !one.version->empty() && *one.version != "null")
      one.refused = failure(code::no_such_version);
    else if (e.child("ETag") || e.child("LastModifiedTime") || e.child("Size"))
      one.refused = failure(code::not_implemented, "Conditional deletes are not implemented.");
    d.all.push_back(std::move(one));
  }
  if (d.all.empty()) return refuse(code::malformed_xml);
  return d;
}

void write_deletion(xml_writer& x, const deletion& d, const failure* f, bool quiet) {
  if (f) {
    x.open("Error");
    x.text("Key", d.key);
    if (d.version) x.text("VersionId", *d.version);
    x.text("Code", info(f->id).name);
    x.text("Message", f->message.empty() ? info(f->id).message : std::string_view(f->message));
    x.close();
  } else if (!quiet) {
    x.open("Deleted");
    x.text("Key", d.key);
    if (d.version && !d.version->empty()) x.text("VersionId", *d.version);
    x.close();
  }
}

}  // namespace

task<run::answer> run::delete_object() {
  for (const char* condition : {"if-match", "x-amz-if-match-last-modified-time", "x-amz-if-match-size"})
    if (request_.headers.find(condition)) co_return refuse(code::not_implemented, "Conditional deletes are not implemented.");
  auto gone = co_await core_.store.remove(call(soon()), target_.bucket, target_.key);
  if (!gone && !gone.failed_with(errc::no_such_key)) co_return std::unexpected<failure>(failure(gone.error()));
  co_return empty_reply(204);
}

task<run::answer> run::delete_objects() {
  S3_CO_TRY(bytes document, co_await read_document());
  S3_CO_TRY(deletions d, parse_deletions(document));
  // A key that is named twice is deleted once.
  std::vector<std::string> keys;
  std::map<std::string_view, std::size_t> seen;
  for (deletion& one : d.all) {
    if (one.refused) continue;
    auto [it, fresh] = seen.try_emplace(one.key, keys.size());
    if (fresh) keys.push_back(one.key);
    one.index = it->second;
  }
  std::vector<result<void>> results;
  if (!keys.empty()) {
    std::size_t asked = keys.size();
    S3_CO_TRY(results, co_await core_.store.remove_many(call(core_.rt.now() + 1min), target_.bucket, std::move(keys)));
    if (results.size() != asked) co_return refuse(code::internal_error);
  }
  xml_writer x("DeleteResult");
  for (const deletion& one : d.all) {
    std::optional<failure> f = one.refused;
    if (!f)
      if (const auto& r = results[one.index]; !r && !r.failed_with(errc::no_such_key)) f = failure(r.error());
    write_deletion(x, one, f ? &*f : nullptr, d.quiet);
  }
  co_return xml_reply(x.finish());
}

}  // namespace grenier::s3
