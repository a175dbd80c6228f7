#include <algorithm>

#include "store/complete.h"
#include "store/conditions.h"

namespace grenier::store {

namespace {

std::string_view without_quotes(std::string_view s) {
  if (s.size() >= 2 && s.front() == '"' && s.back() == '"') return s.substr(1, s.size() - 2);
  return s;
}

std::unexpected<error> bad_part(std::uint32_t number, const char* why) {
  return fail(errc::invalid_part, "part " + std::to_string(number) + " " + why);
}

const checksum* checksum_of(const std::vector<checksum>& all, crypto::hash_kind k) {
  auto at = std::ranges::find(all, k, &checksum::kind);
  return at == all.end() ? nullptr : &*at;
}

result<void> check_part(const part_info& said, const model::part_row& stored) {
  if (without_quotes(said.etag) != stored.etag) return bad_part(said.number, "has another ETag");
  for (const checksum& c : said.checksums) {
    const checksum* mine = checksum_of(stored.checksums, c.kind);
    if (!mine || mine->value != c.value) return bad_part(said.number, "has another checksum");
  }
  return {};
}

bool is_crc(crypto::hash_kind k) {
  return k == crypto::hash_kind::crc32 || k == crypto::hash_kind::crc32c || k == crypto::hash_kind::crc64nvme;
}

// The whole's checksum, of the parts': the digest of their digests, or for CRCs what the whole's own is.
result<checksum> combine(crypto::hash_kind kind, bool composite, const std::vector<const model::part_row*>& parts) {
  bytes all;
  for (const auto* p : parts) {
    const checksum* c = checksum_of(p->checksums, kind);
    if (!c) return bad_part(p->number, "has no checksum of the upload's kind");
    if (composite || !is_crc(kind))
      all += c->value;
    else
      all = all.empty() ? c->value : crypto::combine_crc(kind, all, c->value, p->size);
  }
  if (composite || !is_crc(kind)) return checksum{kind, crypto::digest(kind, all), true, static_cast<std::uint32_t>(parts.size())};
  return checksum{kind, all};
}

}  // namespace

result<assembled> assemble(const model::upload_row& upload, const std::map<std::uint32_t, model::part_row>& stored,
                           const complete_request& q, std::size_t part_size_min) {
  if (q.parts.empty() || q.parts.size() > part_number_max) return fail(errc::invalid_argument, "an upload is completed with 1 to 10000 parts");
  assembled a;
  std::vector<const model::part_row*> parts;
  bytes digests;
  for (std::size_t i = 0; i < q.parts.size(); ++i) {
    const part_info& said = q.parts[i];
    if (i > 0 && said.number <= q.parts[i - 1].number) return fail(errc::invalid_part_order, "the parts are not in ascending order");
    auto at = stored.find(said.number);
    if (at == stored.end()) return bad_part(said.number, "was not uploaded");
    const model::part_row& p = at->second;
    TRY_VOID(check_part(said, p));
    if (i + 1 < q.parts.size() && p.size < part_size_min)
      return fail(errc::part_too_small, "part " + std::to_string(p.number) + " is smaller than a part that is not the last may be");
    TRY(bytes digest, from_hex(p.etag));
    digests += digest;
    parts.push_back(&p);
    a.row.meta.size += p.size;
    a.row.meta.parts.push_back({p.number, p.size, {}, p.checksums, p.version, static_cast<std::uint32_t>(p.blocks.size())});
    a.blocks.insert(a.blocks.end(), p.blocks.begin(), p.blocks.end());
  }
  if (a.row.meta.size > object_size_max) return fail(errc::too_large, "an object has at most 5 TiB");
  a.row.meta.etag = to_hex(crypto::digest(crypto::hash_kind::md5, digests)) + "-" + std::to_string(parts.size());
  if (upload.checksum_kind) {
    TRY(checksum c, combine(*upload.checksum_kind, upload.checksum_composite, parts));
    a.row.meta.checksums.push_back(std::move(c));
  }
  for (const checksum& said : q.checksums) {
    const checksum* mine = checksum_of(a.row.meta.checksums, said.kind);
    if (!mine || mine->value != said.value) return fail(errc::checksum_mismatch, "the object's checksum is not the one that was announced");
  }
  a.row.meta.headers = upload.headers;
  a.row.meta.tags = upload.tags;
  a.row.meta.owner_id = upload.owner_id;
  a.row.meta.owner_name = upload.owner_name;
  a.row.upload = upload.id;
  return a;
}

}  // namespace grenier::store
