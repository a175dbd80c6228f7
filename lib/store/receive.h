// store/receive.h: the hashes of a body under way.
#pragma once

#include "store.pb.h"
#include "store/impl.h"

namespace grenier::store {

// MD5 of the whole (the ETag) and what else was asked for. A body of one block has its SHA-256 in its block's name.
class body_hashes {
 public:
  body_hashes(const expected_body&, bool one_block);
  void update(bytes_view);  // in order
  // Once. only_block: the hash of a body of one block; null for an empty body.
  void finish(const block_hash* only_block);
  const bytes* find(crypto::hash_kind) const;  // after finish()
  bool wants_block_hash() const { return want_block_hash_; }
  // bad_digest, checksum_mismatch; what is to be kept goes to `keep`.
  result<void> check(const expected_body&, std::vector<checksum> trailers, std::vector<checksum>& keep) const;

 private:
  crypto::hasher md5_;
  std::vector<std::pair<crypto::hash_kind, crypto::hasher>> others_;
  std::map<crypto::hash_kind, bytes> digests_;
  bool one_block_, want_block_hash_ = false;
};

// What a request and its block tasks share (a task may outlive the request that was cancelled).
struct receiving {
  receiving(runtime& rt, body_hashes h, std::shared_ptr<attempt> a, table::row_key o, mono_time d)
      : hashes(std::move(h)), turn(rt), under(std::move(a)), version(under->version), owner(std::move(o)), deadline(d) {}
  body_hashes hashes;
  std::size_t hashed = 0;  // blocks that went into `hashes`
  wait_list turn;
  std::shared_ptr<attempt> under;  // under way while one of its blocks is
  version_id version;
  table::row_key owner;
  mono_time deadline;
  std::vector<model::block_entry> blocks;
};

// Intents: "store/i/", version, index.
inline const bytes intent_prefix = "store/i/";
inline bytes intent_key(const version_id& v, std::uint64_t index) {
  bytes k = intent_prefix + v.str();
  append_u64(k, index);
  return k;
}

}  // namespace grenier::store
