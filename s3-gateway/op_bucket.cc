// Buckets themselves: list, create, delete, head, location.
#include "run.h"

#include <algorithm>

namespace grenier::s3 {

task<run::answer> run::list_buckets() {
  if (!who_.key) co_return refuse(code::access_denied);
  std::vector<store::bucket> all = core_.store.list_buckets(who_);
  std::ranges::sort(all, {}, &store::bucket::name);
  std::string prefix(query("prefix").value_or("")), after;
  std::size_t max = 10000;
  if (auto m = query("max-buckets"); m && !m->empty()) {
    auto n = parse_number(*m, 10000);
    if (!n || *n == 0) co_return refuse(code::invalid_argument, "max-buckets must be a number from 1 to 10000.");
    max = static_cast<std::size_t>(*n);
  }
  if (auto t = query("continuation-token"); t && !t->empty()) {
    auto raw = from_base64(*t);
    if (!raw) co_return refuse(code::invalid_argument, "The continuation token is not valid.");
    after = std::move(*raw);
  }

  xml_writer x("ListAllMyBucketsResult");
  x.open("Owner");
  x.text("ID", who_.key->owner_id);
  x.text("DisplayName", who_.key->display_name);
  x.close();
  x.open("Buckets");
  std::size_t shown = 0;
  std::string last, next;
  for (const store::bucket& b : all) {
    if (!b.name.starts_with(prefix) || (!after.empty() && b.name <= after)) continue;
    if (shown == max) {
      next = last;
      break;
    }
    x.open("Bucket");
    x.text("Name", b.name);
    x.text("CreationDate", format_iso(b.created_ms));
    x.text("BucketRegion", core_.options.region);
    x.close();
    last = b.name;
    ++shown;
  }
  x.close();
  if (!prefix.empty()) x.text("Prefix", prefix);
  if (!next.empty()) x.text("ContinuationToken", to_base64(next));
  co_return xml_reply(x.finish());
}

task<run::answer> run::create_bucket() {
  if (auto ok = model::check_bucket_name(target_.bucket); !ok) co_return refuse(code::invalid_bucket_name, ok.error().detail);
  S3_CO_TRY(bytes document, co_await read_document());
  if (!document.empty()) {
    // Any region will do: there is one store.
    S3_CO_TRY(xml_reader reader, xml_reader::parse(document));
    S3_CO_TRY_VOID(reader.root("CreateBucketConfiguration"));
  }
  auto made = co_await core_.store.create_bucket(call(soon()), target_.bucket, core_.options.region);
  // One's own bucket once more is fine, as in us-east-1.
  if (!made && !made.failed_with(errc::bucket_already_owned_by_you)) co_return std::unexpected<failure>(failure(made.error()));
  reply r = empty_reply(200);
  r.response.headers.add("Location", "/" + target_.bucket);
  co_return r;
}

task<run::answer> run::delete_bucket() {
  S3_CO_TRY_VOID(co_await core_.store.delete_bucket(call(soon()), target_.bucket));
  co_return empty_reply(204);
}

task<run::answer> run::head_bucket() {
  reply r = empty_reply(200);
  r.response.headers.add("Content-Type", "application/xml");
  r.response.headers.add("x-amz-bucket-region", core_.options.region);
  co_return r;
}

task<run::answer> run::get_bucket_location() {
  xml_writer x("LocationConstraint");
  bytes document = x.finish();
  if (core_.options.region != "us-east-1") {
    // The root itself holds the text.
    auto end = document.rfind("</");
    document.insert(end, xml_escape(core_.options.region));
  }
  co_return xml_reply(std::move(document));
}

}  // namespace grenier::s3
