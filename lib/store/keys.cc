// Access keys: rows that every node holds.
#include <algorithm>

#include "store/impl.h"

namespace grenier::store {

namespace {

std::string random_text(random_source& random, std::string_view alphabet, std::size_t size) {
  std::string s;
  while (s.size() < size) s += alphabet[random.below(alphabet.size())];
  return s;
}

constexpr std::string_view upper_alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
constexpr std::string_view base64_like = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

result<void> check_key_pair(const access_key& k) {
  auto plain = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '_'; };
  if (k.id.size() < 3 || k.id.size() > 128 || !std::ranges::all_of(k.id, plain))
    return fail(errc::invalid_argument, "an access key's id has 3 to 128 letters, digits, hyphens and underscores");
  if (k.secret.size() < 8 || k.secret.size() > 128) return fail(errc::invalid_argument, "an access key's secret has 8 to 128 characters");
  if (k.owner_id.size() > 128 || k.name.size() > 256 || k.display_name.size() > 256 || k.email.size() > 256)
    return fail(errc::invalid_argument, "a text of an access key is too long");
  return {};
}

result<table::row_value> only_if_absent(const table::row& current, const access_key& wanted) {
  if (current.value.present) return fail(errc::already_exists, "there is an access key of this id");
  return table::row_value{true, model::encode(wanted), nullptr};
}

}  // namespace

task<result<access_key>> service::find_key(std::string id, mono_time deadline) {
  if (id.empty() || id.size() > 128) co_return fail(errc::not_found, "there is no such access key");
  CO_TRY(table::row r, co_await impl_->below->find_copy(table_id::key, id, deadline));
  if (!r.value.present) co_return fail(errc::not_found, "there is no such access key");
  co_return model::decode_key(r.value.row);
}

task<result<access_key>> service::create_key(call c, access_key wanted) {
  if (!model::authorize(model::action::admin, {c.who.key ? &*c.who.key : nullptr, c.who.admin, nullptr}))
    co_return fail(errc::access_denied, "only an administrator makes access keys");
  auto& random = impl_->rt.random();
  if (wanted.id.empty()) wanted.id = "GR" + random_text(random, upper_alnum, 18);
  if (wanted.secret.empty()) wanted.secret = random_text(random, base64_like, 40);
  if (wanted.owner_id.empty()) {  // a new one, also for the id of a key that was deleted
    bytes made(32, '\0');
    random.fill(made.data(), made.size());
    wanted.owner_id = to_hex(made);
  }
  if (wanted.created_ms == 0) wanted.created_ms = impl_->rt.wall_ms();
  CO_TRY_VOID(check_key_pair(wanted));
  table::judge judge = [wanted](const table::row& current) { return only_if_absent(current, wanted); };
  CO_TRY_VOID(co_await impl_->below->compare_and_swap(model::access_key_key(wanted.id), std::move(judge), impl_->writing(c.deadline)));
  co_return wanted;
}

task<result<void>> service::delete_key(call c, std::string id) {
  if (!model::authorize(model::action::admin, {c.who.key ? &*c.who.key : nullptr, c.who.admin, nullptr}))
    co_return fail(errc::access_denied, "only an administrator deletes access keys");
  table::judge judge = [](const table::row& current) -> result<table::row_value> {
    if (!current.value.present) return fail(errc::not_found, "there is no such access key");
    return table::row_value{};
  };
  // What it was allowed goes first, so that no later key of this id has it.
  for (const auto& [bucket_row, row] : impl_->below->all_copies(table_id::bucket)) {
    if (!row.value.present) continue;
    auto b = model::decode_bucket(row.value.row);
    if (!b || !b->allowed.contains(id)) continue;
    CO_TRY_VOID(co_await impl_->disallow(std::move(*b), id, c.deadline));
  }
  CO_TRY_VOID(co_await impl_->below->compare_and_swap(model::access_key_key(id), std::move(judge), impl_->writing(c.deadline)));
  co_return co_await impl_->below->publish(table_id::key, id, impl_->below->partition_of(id), c.deadline);
}

std::vector<access_key> service::list_keys() const {
  std::vector<access_key> keys;
  for (const auto& [id, row] : impl_->below->all_copies(table_id::key)) {
    if (!row.value.present) continue;
    if (auto k = model::decode_key(row.value.row)) keys.push_back(std::move(*k));
  }
  return keys;
}

}  // namespace grenier::store
