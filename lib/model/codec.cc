// Rows and their byte forms.
#include "model.pb.h"
#include "model/model.h"

namespace grenier::model {

namespace {

constexpr std::uint32_t format_now = 1;
constexpr std::size_t row_max = 1 << 20;
constexpr int list_max = 4096;
constexpr int parts_max = 10000;
constexpr std::size_t entry_size = block_hash::size_bytes + 4;

// The message, if the bytes are one of a format that this version knows.
template <class Message>
result<Message> parse(bytes_view from, const char* what, std::size_t size_max = row_max) {
  Message m;
  if (from.size() > size_max || !m.ParseFromArray(from.data(), static_cast<int>(from.size())) || m.format() == 0)
    return fail(errc::corrupt, std::string("these bytes are no ") + what);
  if (m.format() > format_now) return fail(errc::protocol, std::string("a newer version wrote this ") + what);
  return m;
}

std::unexpected<error> malformed(const char* what) { return fail(errc::corrupt, std::string(what) + " is malformed"); }

// Empty for none.
template <class Id>
bool read_id(Id& to, const std::string& from) {
  if (from.empty()) return true;
  auto r = Id::from_bytes(from);
  if (r) to = *r;
  return r.has_value();
}
template <class Id>
std::string write_id(const Id& i) {
  return i.is_zero() ? std::string() : i.str();
}

template <class List>
void write_tags(const std::vector<tag>& from, List* to) {
  for (const tag& t : from) {
    auto* m = to->Add();
    m->set_key(t.key);
    m->set_value(t.value);
  }
}
template <class List>
bool read_tags(std::vector<tag>& to, const List& from) {
  if (from.size() > list_max) return false;
  for (const auto& t : from) to.push_back({t.key(), t.value()});
  return true;
}

template <class List>
void write_checksums(const std::vector<checksum>& from, List* to, bool values = true) {
  for (const checksum& c : from) {
    auto* m = to->Add();
    m->set_kind(static_cast<std::uint32_t>(c.kind));
    if (values) m->set_value(c.value);
    m->set_composite(c.composite);
    m->set_parts(c.parts);
  }
}
template <class List>
bool read_checksums(std::vector<checksum>& to, const List& from, bool values = true) {
  if (from.size() > 16) return false;
  for (const auto& c : from) {
    if (c.kind() > static_cast<std::uint32_t>(crypto::hash_kind::crc64nvme)) return false;
    auto kind = static_cast<crypto::hash_kind>(c.kind());
    if (values && c.value().size() != crypto::digest_size(kind)) return false;
    to.push_back({kind, c.value(), c.composite(), c.parts()});
  }
  return true;
}

void write_headers(const object_headers& h, pb::Headers* m) {
  m->set_content_type(h.content_type);
  m->set_content_encoding(h.content_encoding);
  m->set_content_disposition(h.content_disposition);
  m->set_content_language(h.content_language);
  m->set_cache_control(h.cache_control);
  m->set_expires(h.expires);
  m->set_website_redirect(h.website_redirect);
  m->set_storage_class(h.storage_class);
  write_tags(h.metadata, m->mutable_metadata());
}
bool read_headers(object_headers& h, const pb::Headers& m) {
  h.content_type = m.content_type();
  h.content_encoding = m.content_encoding();
  h.content_disposition = m.content_disposition();
  h.content_language = m.content_language();
  h.cache_control = m.cache_control();
  h.expires = m.expires();
  h.website_redirect = m.website_redirect();
  h.storage_class = m.storage_class();
  return read_tags(h.metadata, m.metadata());
}

std::string write_blocks(std::span<const block_entry> blocks) {
  std::string s;
  s.reserve(blocks.size() * entry_size);
  for (const block_entry& b : blocks) {
    s += b.hash.view();
    append_u32(s, b.size);
  }
  return s;
}
bool read_blocks(std::vector<block_entry>& to, bytes_view from) {
  if (from.size() % entry_size != 0) return false;
  to.reserve(from.size() / entry_size);
  for (; !from.empty(); from.remove_prefix(entry_size)) {
    block_entry b{*block_hash::from_bytes(from.substr(0, block_hash::size_bytes)), read_u32(from.substr(block_hash::size_bytes))};
    if (b.size == 0) return false;
    to.push_back(b);
  }
  return true;
}
std::uint64_t total(std::span<const block_entry> blocks) {
  std::uint64_t n = 0;
  for (const block_entry& b : blocks) n += b.size;
  return n;
}

void write_part_entries(const std::vector<part_entry>& from, pb::Object& m) {
  for (const part_entry& p : from) {
    auto* e = m.add_parts();
    e->set_number(p.number);
    e->set_size(p.size);
    e->set_etag(p.etag);
    write_checksums(p.checksums, e->mutable_checksums());
    e->set_version(write_id(p.version));
    e->set_blocks(p.blocks);
  }
}
bool read_part_entries(std::vector<part_entry>& to, const pb::Object& m) {
  if (m.parts_size() > parts_max) return false;
  for (const auto& e : m.parts()) {
    part_entry p{e.number(), e.size(), e.etag(), {}, {}, e.blocks()};
    if (!read_checksums(p.checksums, e.checksums()) || !read_id(p.version, e.version())) return false;
    to.push_back(std::move(p));
  }
  return true;
}

// A body lies in one place, and as long as the row says.
bool body_is_sound(const object_row& o) {
  int places = o.inline_body + !o.blocks.empty() + !o.manifests.empty();
  if (o.delete_marker) return places == 0;
  if (places > 1 || (places == 0 && o.meta.size != 0)) return false;
  if (!o.blocks.empty() && total(o.blocks) != o.meta.size) return false;
  if ((o.manifest_blocks != 0) != !o.manifests.empty()) return false;
  return true;
}

bool parts_are_sound(const object_row& o) {
  if (o.meta.parts.empty()) return true;
  std::uint64_t bytes_in_parts = 0, blocks_in_parts = 0;
  for (const part_entry& p : o.meta.parts) bytes_in_parts += p.size, blocks_in_parts += p.blocks;
  if (bytes_in_parts != o.meta.size) return false;
  // A copy of a multipart object keeps its parts' sizes, but its blocks are its own.
  return o.upload.is_zero() || blocks_in_parts == (o.manifests.empty() ? o.blocks.size() : o.manifest_blocks);
}

}  // namespace

bytes encode(const access_key& k) {
  pb::AccessKey m;
  m.set_format(format_now);
  m.set_id(k.id);
  m.set_secret(k.secret);
  m.set_owner_id(k.owner_id);
  m.set_name(k.name);
  m.set_display_name(k.display_name);
  m.set_email(k.email);
  m.set_may_create_buckets(k.may_create_buckets);
  m.set_created_ms(k.created_ms);
  return m.SerializeAsString();
}

result<access_key> decode_key(bytes_view from) {
  TRY(auto m, parse<pb::AccessKey>(from, "access key"));
  if (m.id().empty()) return malformed("the access key");
  return access_key{m.id(),           m.secret(), m.owner_id(), m.name(), m.display_name(), m.email(), m.may_create_buckets(),
                    m.created_ms()};
}

bytes encode(const bucket& b) {
  pb::Bucket m;
  m.set_format(format_now);
  m.set_id(b.id.str());
  m.set_name(b.name);
  m.set_owner_id(b.owner_id);
  m.set_owner_name(b.owner_name);
  m.set_created_ms(b.created_ms);
  m.set_region(b.region);
  m.set_closed(b.closed);
  m.set_closed_at(b.closed_at);
  for (const auto& [key, p] : b.allowed) {
    auto* e = m.add_allowed();
    e->set_key(key);
    e->set_read(p.read);
    e->set_write(p.write);
    e->set_owner(p.owner);
  }
  if (b.website) {
    m.mutable_website()->set_index_document(b.website->index_document);
    m.mutable_website()->set_error_document(b.website->error_document);
  }
  for (const auto& a : b.aliases) m.add_aliases(a);
  if (b.gallery) {
    m.mutable_gallery()->set_pages(b.gallery->pages);
    m.mutable_gallery()->set_title(b.gallery->title);
    m.mutable_gallery()->set_show_places(b.gallery->show_places);
  }
  if (b.gallery_pages) {
    m.mutable_gallery_pages()->set_source(b.gallery_pages->source);
    m.mutable_gallery_pages()->set_is_private(b.gallery_pages->is_private);
    for (const auto& l : b.gallery_pages->links) {
      auto* e = m.mutable_gallery_pages()->add_links();
      e->set_name(l.name);
      e->set_token_sha256(l.token_sha256);
      e->set_created_ms(l.created_ms);
      e->set_expires_ms(l.expires_ms);
    }
  }
  return m.SerializeAsString();
}

result<bucket> decode_bucket(bytes_view from) {
  TRY(auto m, parse<pb::Bucket>(from, "bucket"));
  bucket b;
  if (!read_id(b.id, m.id()) || b.id.is_zero() || m.name().empty() || m.allowed_size() > list_max || m.aliases_size() > list_max)
    return malformed("the bucket");
  b.name = m.name();
  b.owner_id = m.owner_id();
  b.owner_name = m.owner_name();
  b.created_ms = m.created_ms();
  b.region = m.region();
  b.closed = m.closed();
  b.closed_at = m.closed_at();
  for (const auto& e : m.allowed()) b.allowed[e.key()] = {e.read(), e.write(), e.owner()};
  if (m.has_website()) b.website = website{m.website().index_document(), m.website().error_document()};
  for (const auto& a : m.aliases()) b.aliases.push_back(a);
  if (m.has_gallery()) b.gallery = gallery{m.gallery().pages(), m.gallery().title(), m.gallery().show_places()};
  if (m.has_gallery_pages()) {
    const auto& g = m.gallery_pages();
    if (g.links_size() > list_max) return malformed("the links of a gallery");
    b.gallery_pages.emplace().source = g.source();
    b.gallery_pages->is_private = g.is_private();
    for (const auto& l : g.links()) b.gallery_pages->links.push_back({l.name(), l.token_sha256(), l.created_ms(), l.expires_ms()});
  }
  return b;
}

bytes encode(const object_row& o) {
  pb::Object m;
  m.set_format(format_now);
  m.set_version(write_id(o.meta.version));
  m.set_size(o.meta.size);
  m.set_modified_ms(o.meta.modified_ms);
  m.set_etag(o.meta.etag);
  m.set_owner_id(o.meta.owner_id);
  m.set_owner_name(o.meta.owner_name);
  write_headers(o.meta.headers, m.mutable_headers());
  write_tags(o.meta.tags, m.mutable_tags());
  write_checksums(o.meta.checksums, m.mutable_checksums());
  write_part_entries(o.meta.parts, m);
  if (o.meta.content) m.set_content(o.meta.content->str());
  m.set_delete_marker(o.delete_marker);
  m.set_inline_body(o.inline_body);
  m.set_blocks(write_blocks(o.blocks));
  m.set_manifests(write_blocks(o.manifests));
  m.set_manifest_blocks(o.manifest_blocks);
  m.set_upload(write_id(o.upload));
  m.set_encryption(o.encryption);
  m.set_placement_class(o.placement_class);
  return m.SerializeAsString();
}

result<object_row> decode_object(bytes_view from) {
  TRY(auto m, parse<pb::Object>(from, "object"));
  object_row o;
  const bool values = !m.listing();
  if (!read_id(o.meta.version, m.version()) || !read_id(o.upload, m.upload()) || !read_headers(o.meta.headers, m.headers()) ||
      !read_tags(o.meta.tags, m.tags()) || !read_checksums(o.meta.checksums, m.checksums(), values) ||
      !read_part_entries(o.meta.parts, m) || !read_blocks(o.blocks, m.blocks()) || !read_blocks(o.manifests, m.manifests()))
    return malformed("the object's row");
  o.meta.size = m.size();
  o.meta.modified_ms = m.modified_ms();
  o.meta.etag = m.etag();
  o.meta.owner_id = m.owner_id();
  o.meta.owner_name = m.owner_name();
  if (!m.content().empty()) {
    content_id c;
    if (!read_id(c, m.content())) return malformed("the object's row");
    o.meta.content = c;
  }
  o.delete_marker = m.delete_marker();
  o.inline_body = m.inline_body();
  o.manifest_blocks = m.manifest_blocks();
  o.encryption = m.encryption();
  o.placement_class = m.placement_class();
  if (!m.listing() && (!body_is_sound(o) || !parts_are_sound(o))) return malformed("the object's row");
  return o;
}

std::optional<bytes> list_projection(bytes_view object_row) {
  auto full = parse<pb::Object>(object_row, "object");
  if (!full || full->delete_marker()) return std::nullopt;
  pb::Object m;
  m.set_format(full->format());
  m.set_listing(true);
  m.set_version(full->version());
  m.set_size(full->size());
  m.set_modified_ms(full->modified_ms());
  m.set_etag(full->etag());
  m.set_owner_id(full->owner_id());
  m.set_owner_name(full->owner_name());
  m.mutable_headers()->set_storage_class(full->headers().storage_class());
  for (const auto& c : full->checksums()) {
    auto* to = m.add_checksums();
    to->set_kind(c.kind());
    to->set_composite(c.composite());
    to->set_parts(c.parts());
  }
  return m.SerializeAsString();
}

bytes encode_manifest(std::span<const block_entry> blocks) {
  pb::Manifest m;
  m.set_format(format_now);
  m.set_blocks(write_blocks(blocks));
  return m.SerializeAsString();
}

result<std::vector<block_entry>> decode_manifest(bytes_view from) {
  TRY(auto m, parse<pb::Manifest>(from, "manifest"));
  std::vector<block_entry> blocks;
  if (!read_blocks(blocks, m.blocks()) || blocks.empty() || blocks.size() > manifest_entries_max) return malformed("the manifest");
  return blocks;
}

bytes encode(const upload_row& u) {
  pb::Upload m;
  m.set_format(format_now);
  m.set_id(u.id.str());
  m.set_key(u.key);
  m.set_started_ms(u.started_ms);
  m.set_owner_id(u.owner_id);
  m.set_owner_name(u.owner_name);
  write_headers(u.headers, m.mutable_headers());
  write_tags(u.tags, m.mutable_tags());
  if (u.checksum_kind) m.set_checksum_kind(static_cast<std::uint32_t>(*u.checksum_kind) + 1);
  m.set_checksum_composite(u.checksum_composite);
  m.set_state(static_cast<std::uint32_t>(u.state));
  m.set_became(write_id(u.became));
  m.set_etag(u.etag);
  write_checksums(u.checksums, m.mutable_checksums());
  m.set_size(u.size);
  return m.SerializeAsString();
}

result<upload_row> decode_upload(bytes_view from) {
  TRY(auto m, parse<pb::Upload>(from, "upload"));
  upload_row u;
  if (!read_id(u.id, m.id()) || u.id.is_zero() || !read_headers(u.headers, m.headers()) || !read_tags(u.tags, m.tags()) ||
      !read_id(u.became, m.became()) || !read_checksums(u.checksums, m.checksums()) || m.state() > 3 ||
      m.checksum_kind() > static_cast<std::uint32_t>(crypto::hash_kind::crc64nvme) + 1)
    return malformed("the upload's row");
  u.key = m.key();
  u.started_ms = m.started_ms();
  u.owner_id = m.owner_id();
  u.owner_name = m.owner_name();
  if (m.checksum_kind()) u.checksum_kind = static_cast<crypto::hash_kind>(m.checksum_kind() - 1);
  u.checksum_composite = m.checksum_composite();
  u.state = static_cast<upload_row::status>(m.state());
  u.etag = m.etag();
  u.size = m.size();
  return u;
}

bytes encode(const part_row& p) {
  pb::Part m;
  m.set_format(format_now);
  m.set_number(p.number);
  m.set_version(write_id(p.version));
  m.set_size(p.size);
  m.set_modified_ms(p.modified_ms);
  m.set_etag(p.etag);
  write_checksums(p.checksums, m.mutable_checksums());
  m.set_inline_body(p.inline_body);
  m.set_blocks(write_blocks(p.blocks));
  return m.SerializeAsString();
}

result<part_row> decode_part(bytes_view from) {
  TRY(auto m, parse<pb::Part>(from, "part"));
  part_row p;
  if (m.number() < 1 || m.number() > parts_max || !read_id(p.version, m.version()) || !read_checksums(p.checksums, m.checksums()) ||
      !read_blocks(p.blocks, m.blocks()) || (m.inline_body() && !m.blocks().empty()) ||
      (!m.inline_body() && total(p.blocks) != m.size()))
    return malformed("the part's row");
  p.number = m.number();
  p.size = m.size();
  p.modified_ms = m.modified_ms();
  p.etag = m.etag();
  p.inline_body = m.inline_body();
  return p;
}

}  // namespace grenier::model
