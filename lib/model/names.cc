// Names of buckets, and where rows lie.
#include <algorithm>

#include "model/model.h"

namespace grenier::model {

namespace {

bool is_label_char(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool looks_like_ipv4(std::string_view name) {
  int dots = 0, digits = 0;
  for (char c : name) {
    if (c == '.') {
      if (digits == 0 || digits > 3) return false;
      ++dots, digits = 0;
    } else if (c >= '0' && c <= '9') {
      ++digits;
    } else {
      return false;
    }
  }
  return dots == 3 && digits > 0 && digits <= 3;
}

}  // namespace

// Source: "General purpose bucket naming rules", Amazon S3 User Guide.
result<void> check_bucket_name(std::string_view name) {
  auto refuse = [](const char* why) { return fail(errc::invalid_argument, std::string("a bucket's name ") + why); };
  if (name.size() < 3 || name.size() > 63) return refuse("has 3 to 63 characters");
  if (!std::ranges::all_of(name, [](char c) { return is_label_char(c) || c == '.' || c == '-'; }))
    return refuse("has only lower case letters, digits, dots and hyphens");
  if (!is_label_char(name.front()) || !is_label_char(name.back())) return refuse("begins and ends with a letter or digit");
  if (name.find("..") != name.npos) return refuse("has no two dots in a row");
  if (looks_like_ipv4(name)) return refuse("does not look like an IP address");
  for (std::string_view p : {"xn--", "sthree-", "amzn-s3-demo-"})
    if (name.starts_with(p)) return refuse("does not begin with a reserved prefix");
  for (std::string_view s : {"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"})
    if (name.ends_with(s)) return refuse("does not end with a reserved suffix");
  return {};
}

result<void> check_alias_name(std::string_view name) {
  auto refuse = [](const char* why) { return fail(errc::invalid_argument, std::string("a further name of a bucket ") + why); };
  if (name.empty() || name.size() > 253) return refuse("has 1 to 253 characters");
  std::size_t label = 0;
  char before = '.';
  for (char c : name) {
    if (c == '.') {
      if (label == 0 || before == '-') return refuse("is a host name: labels of letters, digits and inner hyphens");
      label = 0;
    } else {
      if (!is_label_char(c) && (c != '-' || label == 0))
        return refuse("has only lower case letters, digits, dots and inner hyphens");
      if (++label > 63) return refuse("has labels of at most 63 characters");
    }
    before = c;
  }
  if (!is_label_char(before)) return refuse("ends with a letter or digit");
  return {};
}

// ------------------------------------------------------------------------------------------------- where rows lie

table::row_key object_key(const bucket_id& b, std::string_view key) {
  return {table::table_id::object, b.str(), bytes(key)};
}

result<std::pair<bucket_id, std::string>> split_object_key(const table::row_key& k) {
  auto id = bucket_id::from_bytes(k.partition_key);
  if (k.table != table::table_id::object || !id || k.sort_key.empty()) return fail(errc::invalid_argument, "not the key of an object's row");
  return std::pair(*id, std::string(k.sort_key));
}

table::row_key upload_key(const bucket_id& b, std::string_view key, const upload_id& u) {
  bytes sort(key);
  sort.push_back('\0');
  sort += u.view();
  return {table::table_id::upload, b.str(), std::move(sort)};
}

table::row_key part_key(const bucket_id& b, std::string_view key, const upload_id& u, std::uint32_t number) {
  table::row_key k = upload_key(b, key, u);
  k.table = table::table_id::part;
  append_u32(k.sort_key, number);
  return k;
}

table::row_key bucket_key(const bucket_id& b) { return {table::table_id::bucket, b.str(), {}}; }
table::row_key alias_key(std::string_view name) { return {table::table_id::bucket_alias, bytes(name), {}}; }
table::row_key access_key_key(std::string_view id) { return {table::table_id::key, bytes(id), {}}; }

result<std::pair<std::string, upload_id>> split_upload_key(bytes_view sort_key) {
  constexpr std::size_t tail = 1 + upload_id::size_bytes;
  if (sort_key.size() <= tail || sort_key[sort_key.size() - tail] != '\0')
    return fail(errc::corrupt, "not an upload's sort key");
  TRY(upload_id u, upload_id::from_bytes(sort_key.substr(sort_key.size() - upload_id::size_bytes)));
  return std::pair{std::string(sort_key.substr(0, sort_key.size() - tail)), u};
}

result<std::uint32_t> part_number_of(bytes_view sort_key) {
  if (sort_key.size() <= 5 + upload_id::size_bytes) return fail(errc::corrupt, "not a part's sort key");
  return read_u32(sort_key.substr(sort_key.size() - 4));
}

version_id make_version(hlc_time at, random_source& random) {
  bytes raw;
  append_u64(raw, at.value);
  append_u64(raw, random.next());
  return *version_id::from_bytes(raw);
}

}  // namespace grenier::model
