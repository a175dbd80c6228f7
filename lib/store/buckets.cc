// Buckets and their names: two tables that every node holds. A bucket's row is written before its name is claimed and deleted before
// the name is given back, so a name may point to nothing (and be taken over) but a bucket that is found is whole.
#include <algorithm>

#include "store/impl.h"

namespace grenier::store {

using model::action;

namespace {

// A bucket stays closed no longer than this without its DeleteBucket coming to an end: then whoever needs it opens it again.
constexpr std::uint64_t closed_ms_max = 60'000;

// Nor longer because somebody's clock was ahead: a time that cannot be yet is not lately.
bool closed_lately(const bucket& b, hlc_time now) {
  const std::uint64_t at = hlc_time{b.closed_at}.ms();
  return b.closed && at + closed_ms_max > now.ms() && at <= now.ms() + static_cast<std::uint64_t>(hybrid_clock::ahead_max.count());
}

std::unexpected<error> no_such_bucket() { return fail(errc::no_such_bucket, "there is no bucket of this name"); }
std::unexpected<error> being_deleted() { return fail(errc::conflict, "the bucket is being deleted"); }

result<bucket> bucket_of(const table::row& r) {
  if (!r.value.present) return no_such_bucket();
  TRY(bucket b, model::decode_bucket(r.value.row));
  b.seen = r.written;
  return b;
}

model::request_facts facts(const principal& who, const bucket* b) { return {who.key ? &*who.key : nullptr, who.admin, b}; }

std::unexpected<error> name_taken(const principal& who, const bucket& b) {
  if (who.key && !b.owner_id.empty() && who.key->owner_id == b.owner_id)
    return fail(errc::bucket_already_owned_by_you, "this bucket is yours already");
  return fail(errc::already_exists, "another bucket has this name");
}

// The bucket as it is, changed by `edit`.
table::judge edit_judge(std::function<result<void>(bucket&)> edit) {
  return [edit = std::move(edit)](const table::row& current) -> result<table::row_value> {
    TRY(bucket b, bucket_of(current));
    TRY_VOID(edit(b));
    return table::row_value{true, model::encode(b), nullptr};
  };
}

// A name that belongs to `old` (if any), or to nobody, becomes mine.
table::judge name_judge(bucket_id mine, std::optional<bucket_id> old) {
  return [mine, old](const table::row& current) -> result<table::row_value> {
    if (current.value.present && current.value.row != mine.view() && (!old || current.value.row != old->view()))
      return fail(errc::already_exists, "another bucket has this name");
    return table::row_value{true, mine.str(), nullptr};
  };
}

}  // namespace

task<result<bucket>> service::impl::look_up(std::string name, mono_time deadline, bool for_certain) {
  if (name.empty() || name.size() > 253) co_return no_such_bucket();
  // The copies first; what they do not know may just have been made elsewhere, so the quorum is asked before saying no.
  for (bool quorum : {false, true}) {
    if (for_certain && !quorum) continue;
    CO_TRY(table::row alias, quorum ? co_await below->read(model::alias_key(name), reading(deadline))
                                    : co_await below->find_copy(table_id::bucket_alias, name, deadline));
    if (!alias.value.present) continue;
    CO_TRY(bucket_id id, bucket_id::from_bytes(alias.value.row));
    CO_TRY(table::row row, quorum ? co_await below->read(model::bucket_key(id), reading(deadline))
                                  : co_await below->find_copy(table_id::bucket, id.str(), deadline));
    if (row.value.present) co_return bucket_of(row);
    // Its deletion may be one that nobody was told of. Who is told here that the bucket is gone must not hear of it elsewhere afterwards.
    if (quorum && row.written)
      if (auto known = co_await below->publish(table_id::bucket, id.str(), below->partition_of(id.view()), deadline); !known)
        co_return fail(errc::unavailable, "the bucket was deleted, and too few homes know it yet");
  }
  co_return no_such_bucket();
}

task<result<bucket>> service::impl::admit(call c, std::string name, action a) {
  // Of two buckets that had the name one after the other a copy may know the first: that one's end is nothing to be answered.
  CO_TRY(bucket b, co_await look_up(std::move(name), c.deadline, a == action::delete_bucket));
  if (!model::authorize(a, facts(c.who, &b))) co_return fail(errc::access_denied, "no rule allows this");
  const bool changes = a == action::put_object || a == action::delete_object || a == action::write_object_tags ||
                       a == action::abort_upload || a == action::write_bucket_settings || a == action::delete_bucket;
  if (changes && b.closed) {
    if (closed_lately(b, stamp())) co_return being_deleted();
    if (a != action::delete_bucket) co_return co_await reopen(std::move(b), c.deadline);
  }
  co_return b;
}

task<result<bucket>> service::impl::reopen(bucket b, mono_time deadline) {
  auto judge = edit_judge([at = b.closed_at](bucket& now) -> result<void> {
    if (now.closed && now.closed_at != at) return being_deleted();
    now.closed = false;
    now.closed_at = 0;
    return {};
  });
  CO_TRY(table::row r, co_await below->compare_and_swap(model::bucket_key(b.id), std::move(judge), writing(deadline)));
  CO_TRY_VOID(co_await below->publish(table_id::bucket, b.id.str(), partition_of(b), deadline));
  co_return bucket_of(r);
}

task<result<void>> service::impl::claim_name(std::string name, bucket_id mine, call c) {
  std::optional<bucket_id> dead;
  for (int i = 0; i < fence_retries; ++i) {
    if (skips("name_just_written")) co_return co_await write_row(model::alias_key(name), {true, mine.str(), nullptr}, writing(c.deadline));
    auto r = co_await below->compare_and_swap(model::alias_key(name), name_judge(mine, dead), writing(c.deadline));
    if (r) co_return result<void>();
    if (!r.failed_with(errc::already_exists)) co_return fail(r.error());
    CO_TRY(table::row alias, co_await below->read(model::alias_key(name), reading(c.deadline)));
    if (!alias.value.present) continue;
    CO_TRY(bucket_id other, bucket_id::from_bytes(alias.value.row));
    CO_TRY(table::row row, co_await below->read(model::bucket_key(other), reading(c.deadline)));
    if (row.value.present) {
      CO_TRY(bucket b, bucket_of(row));
      co_return name_taken(c.who, b);
    }
    dead = other;
  }
  co_return fail(errc::conflict, "others change this name all the time");
}

task<void> service::impl::release_name(std::string name, bucket_id of, mono_time deadline) {
  table::judge judge = [of](const table::row& current) -> result<table::row_value> {
    if (!current.value.present || current.value.row != of.view()) return fail(errc::condition_failed, "the name is another bucket's");
    return table::row_value{};
  };
  auto r = co_await below->compare_and_swap(model::alias_key(name), std::move(judge), writing(deadline));
  if (!r && r.error().code != errc::condition_failed)
    rt.log(log_level::info, "store: a bucket's name stays until somebody takes it: " + r.error().to_string());
}

task<result<bool>> service::impl::is_empty(bucket_id id, mono_time deadline) {
  for (table_id t : {table_id::object, table_id::upload}) {
    table::list_request q{t, id.str(), {}, {}, {}, 1};
    // A page may end before it found anything: bounded scans.
    for (;;) {
      CO_TRY(table::list_page page, co_await below->list(q, reading(deadline)));
      if (!page.entries.empty()) co_return false;
      if (!page.truncated) break;
      q.start = page.next;
    }
  }
  co_return true;
}

// ------------------------------------------------------------------------------------------------- the face

task<result<bucket>> service::find_bucket(std::string name, mono_time deadline) { return impl_->look_up(std::move(name), deadline); }

task<result<bucket>> service::head_bucket(call c, std::string name) {
  return impl_->admit(std::move(c), std::move(name), action::head_bucket);
}

task<result<bucket>> service::create_bucket(call c, std::string name, std::string region) {
  if (!model::authorize(action::create_bucket, facts(c.who, nullptr))) co_return fail(errc::access_denied, "this key may not make buckets");
  CO_TRY_VOID(model::check_bucket_name(name));
  // Clients create "if it is not there" by creating: that writes nothing.
  auto there = co_await impl_->look_up(name, c.deadline);
  // A copy may not have heard that it was deleted.
  if (there) there = co_await impl_->look_up(name, c.deadline, true);
  if (there) co_return name_taken(c.who, *there);
  if (!there.failed_with(errc::no_such_bucket)) co_return fail(there.error());
  bucket b;
  b.id = impl_->rt.random().make_id<bucket_id>();
  b.name = name;
  if (c.who.key) {
    b.owner_id = c.who.key->owner_id;
    b.owner_name = c.who.key->display_name.empty() ? c.who.key->name : c.who.key->display_name;
  }
  b.created_ms = impl_->rt.wall_ms();
  b.region = std::move(region);
  CO_TRY_VOID(co_await impl_->write_row(model::bucket_key(b.id), {true, model::encode(b), nullptr}, impl_->writing(c.deadline)));
  auto claimed = co_await impl_->claim_name(name, b.id, c);
  if (!claimed) {
    // Left alone where the name may point to it after all; a bucket without a name is shown to nobody.
    if (claimed.error().code != errc::outcome_unknown) {
      auto gone = co_await impl_->write_row(model::bucket_key(b.id), {}, impl_->writing(c.deadline));
      if (!gone) impl_->rt.log(log_level::info, "store: a bucket without a name is left: " + gone.error().to_string());
    }
    co_return fail(claimed.error());
  }
  co_return co_await impl_->look_up(name, c.deadline);
}

task<result<void>> service::delete_bucket(call c, std::string name) {
  CO_TRY(bucket b, co_await impl_->admit(c, name, action::delete_bucket));
  impl& s = *impl_;
  const hlc_time now = s.stamp();
  auto close = edit_judge([now](bucket& current) -> result<void> {
    if (closed_lately(current, now) && current.closed_at != now.value) return being_deleted();
    current.closed = true;
    current.closed_at = now.value;
    return {};
  });
  const bool open = s.skips("deleted_open");
  if (!open) CO_TRY_VOID(co_await s.below->compare_and_swap(model::bucket_key(b.id), std::move(close), s.writing(c.deadline)));
  b.closed_at = now.value;
  result<void> known;
  if (!open) known = co_await s.below->publish(table_id::bucket, b.id.str(), s.partition_of(b), c.deadline);
  result<bool> empty = known ? co_await s.is_empty(b.id, c.deadline) : result<bool>(fail(known.error()));
  if (!empty || !*empty) {
    (void)co_await s.reopen(b, c.deadline);
    if (!empty) co_return fail(empty.error());
    co_return fail(errc::bucket_not_empty, "the bucket still holds objects or open uploads");
  }
  table::judge remove = [at = now.value, open](const table::row& current) -> result<table::row_value> {
    if (!current.value.present) return table::row_value{};
    TRY(bucket found, bucket_of(current));
    if (!open && (!found.closed || found.closed_at != at)) return fail(errc::conflict, "somebody opened the bucket again");
    return table::row_value{};
  };
  CO_TRY_VOID(co_await s.below->compare_and_swap(model::bucket_key(b.id), std::move(remove), s.writing(c.deadline)));
  CO_TRY_VOID(co_await s.below->publish(table_id::bucket, b.id.str(), s.partition_of(b), c.deadline));
  co_await s.release_name(b.name, b.id, c.deadline);
  for (const std::string& alias : b.aliases) co_await s.release_name(alias, b.id, c.deadline);
  co_return result<void>();
}

std::vector<bucket> service::list_buckets(const principal& who) const {
  std::vector<bucket> all;
  if (!model::authorize(action::list_buckets, facts(who, nullptr))) return all;
  std::map<bytes, bytes> names;
  for (const auto& [name, row] : impl_->below->all_copies(table_id::bucket_alias))
    if (row.value.present) names[name] = row.value.row;
  for (const auto& [id, row] : impl_->below->all_copies(table_id::bucket)) {
    auto b = bucket_of(row);
    if (!b) continue;
    auto named = names.find(b->name);
    if (named == names.end() || named->second != id) continue;
    if (model::authorize(action::head_bucket, facts(who, &*b))) all.push_back(std::move(*b));
  }
  std::ranges::sort(all, {}, &bucket::name);
  return all;
}

task<result<void>> service::impl::change_names(bucket b, std::vector<std::string> added, call c) {
  for (std::size_t i = 0; i < added.size(); ++i) {
    result<void> r = model::check_alias_name(added[i]);
    if (r) r = co_await claim_name(added[i], b.id, c);
    if (r) continue;
    for (std::size_t j = 0; j < i; ++j) co_await release_name(added[j], b.id, c.deadline);
    co_return r;
  }
  co_return result<void>();
}

task<result<void>> service::impl::disallow(bucket b, std::string key_id, mono_time deadline) {
  auto judge = edit_judge([key_id](bucket& now) -> result<void> {
    now.allowed.erase(key_id);
    return {};
  });
  auto r = co_await below->compare_and_swap(model::bucket_key(b.id), std::move(judge), writing(deadline));
  if (r.failed_with(errc::no_such_bucket)) co_return result<void>();  // deleted meanwhile
  if (!r) co_return fail(r.error());
  co_return co_await below->publish(table_id::bucket, b.id.str(), partition_of(b), deadline);
}

task<result<bucket>> service::change_bucket(call c, std::string name, std::function<result<void>(bucket&)> edit) {
  impl& s = *impl_;
  CO_TRY(bucket before, co_await s.admit(c, name, action::write_bucket_settings));
  bucket wanted = before;
  CO_TRY_VOID(edit(wanted));
  std::vector<std::string> added, dropped;
  std::ranges::copy_if(wanted.aliases, std::back_inserter(added),
                       [&](const auto& a) { return std::ranges::find(before.aliases, a) == before.aliases.end(); });
  std::ranges::copy_if(before.aliases, std::back_inserter(dropped),
                       [&](const auto& a) { return std::ranges::find(wanted.aliases, a) == wanted.aliases.end(); });
  CO_TRY_VOID(co_await s.change_names(before, added, c));
  auto judge = edit_judge([edit, before, who = c.who](bucket& now) -> result<void> {
    if (!model::authorize(action::write_bucket_settings, facts(who, &now))) return fail(errc::access_denied, "no rule allows this any more");
    bucket changed = now;
    TRY_VOID(edit(changed));
    changed.id = now.id;
    changed.name = now.name;
    changed.closed = now.closed;
    changed.closed_at = now.closed_at;
    now = std::move(changed);
    return {};
  });
  auto r = co_await s.below->compare_and_swap(model::bucket_key(before.id), std::move(judge), s.writing(c.deadline));
  if (!r) {
    if (r.error().code != errc::outcome_unknown)
      for (const auto& a : added) co_await s.release_name(a, before.id, c.deadline);
    co_return fail(r.error());
  }
  CO_TRY(bucket after, bucket_of(*r));
  CO_TRY_VOID(co_await s.below->publish(table_id::bucket, after.id.str(), s.partition_of(after), c.deadline));
  for (const auto& a : dropped)
    if (std::ranges::find(after.aliases, a) == after.aliases.end()) co_await s.release_name(a, after.id, c.deadline);
  co_return after;
}

}  // namespace grenier::store
