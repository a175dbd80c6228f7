// Lists: of objects, of parts, of uploads.
#include <algorithm>

#include "store/impl.h"

namespace grenier::store {

using model::action;

namespace {

// The first key after all that begin with `prefix`; empty: there is none.
bytes after_prefix(bytes prefix) {
  while (!prefix.empty()) {
    auto last = static_cast<unsigned char>(prefix.back());
    if (last != 0xff) {
      prefix.back() = static_cast<char>(last + 1);
      return prefix;
    }
    prefix.pop_back();
  }
  return prefix;
}

// The common prefix that a key falls into, if it does.
std::optional<std::string> common_prefix(std::string_view key, std::string_view prefix, std::string_view delimiter) {
  if (delimiter.empty() || !key.starts_with(prefix)) return std::nullopt;
  auto at = key.find(delimiter, prefix.size());
  if (at == key.npos) return std::nullopt;
  return std::string(key.substr(0, at + delimiter.size()));
}

result<void> check_list(const std::string& prefix, const std::string& after) {
  if (prefix.size() > key_size_max || after.size() > key_size_max) return fail(errc::invalid_argument, "a prefix or marker has at most 1024 bytes");
  return {};
}

upload_info info_of(const model::upload_row& u) { return {u.key, u.id, u.started_ms, u.owner_id, u.headers, u.checksum_kind}; }

}  // namespace

task<result<table::any_page>> service::impl::list_as(table::list_request q, table::op_options o, consistency how) {
  const auto p = below->partition_of(q.partition_key);
  table::op_options plain{.deadline = o.deadline, .priority = o.priority, .fence = {}, .with_body = false, .early = {}};
  if (how == consistency::strong || (how == consistency::strong_if_up && !below->quorum_is_dark(p))) {
    auto agreed = co_await below->list(q, std::move(o));
    if (agreed) co_return table::any_page{std::move(*agreed), false};
    if (how == consistency::strong || !agreed.failed_with(errc::unavailable) || !below->quorum_is_dark(p)) co_return fail(agreed.error());
  }
  co_return co_await below->list_any(std::move(q), std::move(plain));
}

task<result<table::any_page>> service::impl::list_rows(call c, std::string bucket_name, action a, table::list_request q, consistency how) {
  for (int i = 0;; ++i) {
    CO_TRY(bucket b, co_await admit(c, bucket_name, a));
    q.partition_key = b.id.str();
    auto page = co_await list_as(q, reading(c.deadline, &b), how);
    if (page.failed_with(errc::conflict) && i + 1 < fence_retries) continue;
    co_return page;
  }
}

task<result<list_result>> service::list(call c, list_request q) {
  CO_TRY_VOID(check_list(q.prefix, q.start_after));
  list_result r;
  const std::size_t wanted = std::min<std::size_t>(q.entries_max, 1000);
  table::list_request below{table_id::object, {}, q.prefix, q.delimiter, {}, wanted};
  if (!q.start_after.empty()) {
    // After a common prefix that was shown: on with what comes after all of it. (After a key inside one, the rest of it is shown.)
    const bool shown = common_prefix(q.start_after, q.prefix, q.delimiter) == q.start_after;
    below.start = shown ? after_prefix(q.start_after) : q.start_after + '\0';
    if (shown && below.start.empty()) co_return r;
  }
  if (wanted == 0) {
    CO_TRY_VOID(co_await impl_->admit(c, q.bucket, action::list_objects));
    co_return r;
  }
  for (;;) {
    CO_TRY(auto told, co_await impl_->list_rows(c, q.bucket, action::list_objects, below, q.how));
    r.stale_possible = r.stale_possible || told.stale_possible;
    table::list_page& page = told.page;
    for (auto& e : page.entries) {
      r.last = e.key;
      if (e.is_prefix) {
        r.prefixes.push_back(std::move(e.key));
        continue;
      }
      CO_TRY(auto row, model::decode_object(e.projection));
      r.items.push_back({std::move(e.key), std::move(row.meta)});
    }
    r.truncated = page.truncated;
    // A page may end early, even before its first entry: scans are bounded.
    const std::size_t have = r.items.size() + r.prefixes.size();
    if (!page.truncated || have >= wanted) co_return r;
    below.start = page.next;
    below.entries_max = wanted - have;
  }
}

task<result<service::list_parts_result>> service::list_parts(call c, std::string bucket_name, std::string key, upload_id upload,
                                                             std::uint32_t after, std::size_t max) {
  impl& s = *impl_;
  CO_TRY_VOID(check_key(key));
  CO_TRY(bucket b, co_await s.admit(c, bucket_name, action::list_parts));
  auto row = s.start_reading(model::upload_key(b.id, key, upload), s.reading(c.deadline));
  table::list_request q{table_id::part, {}, model::upload_key(b.id, key, upload).sort_key, {}, {}, std::clamp<std::size_t>(max, 1, 1000)};
  q.start = model::part_key(b.id, key, upload, after + 1).sort_key;
  list_parts_result r;
  if (after < part_number_max) {
    CO_TRY(auto told, co_await s.list_rows(c, bucket_name, action::list_parts, q));
    const table::list_page& page = told.page;
    for (const auto& e : page.entries) {
      CO_TRY(auto p, model::decode_part(e.projection));
      r.parts.push_back({p.number, p.etag, p.size, p.modified_ms, p.checksums});
    }
    r.truncated = page.truncated;
  }
  auto found = co_await row.wait(c.deadline);
  if (!found) co_return fail(errc::timed_out, "the upload's row was not answered in time");
  CO_TRY(auto open, impl::open_upload(*found));
  r.upload = info_of(open);
  co_return r;
}

task<result<list_uploads_result>> service::list_uploads(call c, std::string bucket_name, std::string prefix, std::string delimiter,
                                                        std::string after_key, upload_id after_upload, std::size_t max) {
  CO_TRY_VOID(check_list(prefix, after_key));
  max = std::min<std::size_t>(max, 1000);
  // Delimiters are looked for here: a row's sort key ends in the upload's id, whose bytes may be anything.
  table::list_request q{table_id::upload, {}, prefix, {}, {}, std::max<std::size_t>(max, 1)};
  if (!after_key.empty()) {
    auto shown = common_prefix(after_key, prefix, delimiter);
    if (shown && *shown == after_key)
      q.start = after_prefix(*shown);
    else if (after_upload.is_zero())
      q.start = after_key + '\1';  // keys hold no zero byte, so this is after all uploads of this one
    else
      q.start = model::upload_key({}, after_key, after_upload).sort_key + '\0';
  }
  list_uploads_result r;
  auto full = [&] { return r.uploads.size() + r.prefixes.size() >= max; };
  for (bool more = true; more;) {
    CO_TRY(auto told, co_await impl_->list_rows(c, bucket_name, action::list_uploads, q));
    const table::list_page& page = told.page;
    more = page.truncated;
    q.start = page.next;
    for (const auto& e : page.entries) {
      CO_TRY(auto u, model::decode_upload(e.projection));
      auto grouped = common_prefix(u.key, prefix, delimiter);
      if (grouped && !r.prefixes.empty() && r.prefixes.back() == *grouped) continue;
      if (full()) {
        r.truncated = max > 0;
        co_return r;
      }
      r.last_key = grouped ? *grouped : u.key;
      r.last_upload = grouped ? upload_id() : u.id;
      if (grouped)
        r.prefixes.push_back(std::move(*grouped));
      else
        r.uploads.push_back(info_of(u));
    }
    // On past the whole of a common prefix, rather than through it.
    if (more && !r.prefixes.empty() && r.last_key == r.prefixes.back()) {
      bytes past = after_prefix(r.last_key);
      if (past.empty()) co_return r;
      q.start = std::max(q.start, past);
    }
  }
  co_return r;
}

}  // namespace grenier::store
