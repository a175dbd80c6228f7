// block/codec: the stored form of a block: its bytes, or one zstd frame of them when that is clearly smaller.
//
//   Runs on   any thread, for up to some milliseconds: call it on the cpu pool.
//   Errors    protocol (no frame of ours, or one that unpacks to more than a block); bad_digest (the hash differs).
//   Source    RFC 8878 (zstd), FIPS 180-4 (SHA-256).
#pragma once

#include "block/block.h"

namespace grenier::block {

struct stored {
  bool zstd = false;
  shared_bytes data;
};

// Two samples decide whether compressing is tried; the result counts only when it saves more than a twentieth.
stored encode(shared_bytes plain, int zstd_level);
// The plain bytes, proved against the hash. Never takes more memory than the largest block, whatever the frame claims.
result<shared_bytes> decode(const stored&, const block_hash&);

}  // namespace grenier::block
