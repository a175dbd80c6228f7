// PUT: up to 64 KiB one message carries row and body; larger bodies are stored in blocks first, then the row is written.
#include "store/impl.h"

namespace grenier::store {

using model::action;

namespace {

// The row's new value, if the conditions hold of the one that is there.
table::judge condition_judge(conditions when, table::row_value wanted) {
  return [when = std::move(when), wanted = std::move(wanted)](const table::row& current) -> result<table::row_value> {
    std::optional<model::object_row> now;
    if (current.value.present) {
      TRY(now, model::decode_object(current.value.row));
    }
    TRY_VOID(check_write(when, now && !now->delete_marker ? &now->meta : nullptr));
    return wanted;
  };
}

// The judge said no, so that nothing was written.
bool refused(errc code) { return code == errc::condition_failed || code == errc::no_such_key; }

}  // namespace

task<result<void>> service::impl::write_object(call c, std::string bucket_name, table::row_key where, model::object_row row,
                                               shared_bytes body, conditions when, std::shared_ptr<attempt> under) {
  const table::row_value value{true, model::encode(row), std::move(body)};
  for (int i = 0;; ++i) {
    CO_TRY(bucket b, co_await admit(c, bucket_name, action::put_object));
    if (b.id.view() != where.partition_key) co_return fail(errc::unavailable, "the bucket was deleted, and one of its name made, meanwhile");
    const bool sent_before = under->row_sent;
    under->row_sent = true;
    result<void> r;
    if (when.any()) {
      auto swapped = co_await below->compare_and_swap(where, condition_judge(when, value), writing(c.deadline, &b));
      if (!swapped) r = fail(swapped.error());
    } else {
      r = co_await write_row(where, value, writing(c.deadline, &b));
    }
    if (r) {
      under->settled = true;
      co_return r;
    }
    if (refused(r.error().code)) under->row_sent = sent_before;
    if (r.error().code != errc::conflict || i + 1 == fence_retries) co_return r;
  }
}

task<result<put_result>> service::put(call c, put_request q, body_source& from) {
  CO_TRY_VOID(check_key(q.key));
  CO_TRY_VOID(check_headers(q.headers));
  CO_TRY_VOID(check_tags(q.tags));
  impl& s = *impl_;
  CO_TRY(bucket b, co_await s.admit(c, q.bucket, action::put_object));
  const auto where = model::object_key(b.id, q.key);
  expected_body expected{.md5 = q.content_md5, .sha256 = q.content_sha256, .checksums = q.checksums, .compute = q.compute};
  CO_TRY(received_body got, co_await s.receive(where, std::move(expected), from, c));

  model::object_row row;
  row.meta.version = got.version;
  row.meta.size = got.size;
  row.meta.modified_ms = got.at.ms();
  row.meta.etag = got.etag;
  row.meta.owner_id = b.owner_id;
  row.meta.owner_name = b.owner_name;
  row.meta.headers = std::move(q.headers);
  row.meta.tags = std::move(q.tags);
  row.meta.checksums = got.checksums;
  row.meta.content = got.content;
  row.inline_body = static_cast<bool>(got.inline_body);
  if (!row.inline_body) {
    c.deadline = s.step_deadline(c);
    CO_TRY(block_lists lists, co_await s.list_blocks(where, got.version, std::move(got.blocks), c.deadline));
    row.blocks = std::move(lists.blocks);
    row.manifests = std::move(lists.manifests);
    row.manifest_blocks = lists.manifest_blocks;
  }
  CO_TRY_VOID(co_await s.write_object(c, q.bucket, where, std::move(row), got.inline_body, q.when, got.attempt));
  co_return put_result{got.etag, got.checksums, got.size};
}

// ------------------------------------------------------------------------------------------------- delete

task<result<void>> service::remove(call c, std::string bucket_name, std::string key) {
  CO_TRY(auto r, co_await remove_many(std::move(c), std::move(bucket_name), {std::move(key)}));
  co_return std::move(r.at(0));
}

task<result<std::vector<result<void>>>> service::remove_many(call c, std::string bucket_name, std::vector<std::string> keys) {
  impl& s = *impl_;
  if (keys.empty() || keys.size() > 1000) co_return fail(errc::invalid_argument, "1 to 1000 keys are deleted at once");
  std::vector<result<void>> results(keys.size());
  std::map<std::string, std::vector<std::size_t>> open;  // a key may be named twice, its row only once
  for (std::size_t i = 0; i < keys.size(); ++i)
    if (auto ok = check_key(keys[i]); ok)
      open[keys[i]].push_back(i);
    else
      results[i] = std::move(ok);
  for (int i = 0; i == 0 || (i < fence_retries && !open.empty()); ++i) {
    CO_TRY(bucket b, co_await s.admit(c, bucket_name, action::delete_object));
    std::vector<table::write_item> items;
    std::vector<std::string> names;
    for (const auto& [key, places] : open) {
      items.push_back({model::object_key(b.id, key), {}});
      names.push_back(key);
    }
    if (items.empty()) break;
    auto answers = co_await s.below->write(std::move(items), s.writing(c.deadline, &b));
    if (!answers && answers.error().code != errc::conflict) co_return fail(answers.error());
    for (std::size_t k = 0; k < names.size(); ++k) {
      result<void> one;
      if (!answers)
        one = fail(answers.error());
      else if (!(*answers)[k])
        one = fail((*answers)[k].error());
      for (std::size_t place : open[names[k]]) results[place] = one;
      if (!one.failed_with(errc::conflict)) open.erase(names[k]);
    }
  }
  co_return results;
}

}  // namespace grenier::store
