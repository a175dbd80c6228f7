// Who may do what: one table, denied by default.
#include "model/model.h"

namespace grenier::model {

namespace {

// What a permission on a bucket must hold for an action; nobody: no permission gives it.
enum class need : std::uint8_t { nobody, read, write, owner };

constexpr need need_of(action a) noexcept {
  switch (a) {
    case action::head_bucket:
    case action::list_objects:
    case action::get_object:
    case action::read_object_tags:
    case action::list_uploads:
    case action::list_parts:
      return need::read;
    case action::put_object:
    case action::delete_object:
    case action::write_object_tags:
    case action::abort_upload:
      return need::write;
    case action::delete_bucket:
    case action::read_bucket_settings:
    case action::write_bucket_settings:
      return need::owner;
    case action::create_bucket:
    case action::list_buckets:
    case action::serve_website:
    case action::admin:
      return need::nobody;
  }
  return need::nobody;
}

bool permitted(need n, const permission& p) noexcept {
  switch (n) {
    case need::read:
      return p.read;
    case need::write:
      return p.write;
    case need::owner:
      return p.owner;
    case need::nobody:
      return false;
  }
  return false;
}

}  // namespace

bool authorize(action a, const request_facts& f) noexcept {
  if (f.admin) return true;
  if (a == action::serve_website) return f.bucket && f.bucket->website && (!f.bucket->gallery_pages || !f.bucket->gallery_pages->is_private || f.link);
  if (!f.key || a == action::admin) return false;
  if (a == action::create_bucket) return f.key->may_create_buckets;
  if (a == action::list_buckets) return true;
  if (!f.bucket) return false;
  if (!f.key->owner_id.empty() && f.key->owner_id == f.bucket->owner_id) return true;
  auto at = f.bucket->allowed.find(f.key->id);
  return at != f.bucket->allowed.end() && permitted(need_of(a), at->second);
}

}  // namespace grenier::model
