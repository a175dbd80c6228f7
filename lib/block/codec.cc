#include "block/codec.h"

#include <zstd.h>

#include "crypto/crypto.h"

namespace grenier::block {

namespace {

constexpr std::size_t sample_bytes = 4096;
// Below this a frame's overhead and the file system's block eat what compression saves.
constexpr std::size_t compressible_bytes_min = 512;

bytes compress(bytes_view from, int level) {
  bytes to;
  bool failed = false;
  to.resize_and_overwrite(ZSTD_compressBound(from.size()), [&](char* p, std::size_t n) {
    std::size_t r = ZSTD_compress(p, n, from.data(), from.size(), level);
    failed = ZSTD_isError(r);
    return failed ? 0 : r;
  });
  if (failed) to.assign(from);  // not smaller: the caller keeps the plain form
  return to;
}

bool worth_trying(bytes_view plain, int level) {
  if (plain.size() < compressible_bytes_min) return false;
  if (plain.size() <= 4 * sample_bytes) return true;
  std::size_t packed = compress(plain.substr(0, sample_bytes), level).size() +
                       compress(plain.substr(plain.size() / 2, sample_bytes), level).size();
  return packed * 10 < 2 * sample_bytes * 9;
}

result<shared_bytes> unpack(bytes_view frame) {
  unsigned long long size = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size == 0)
    return fail(errc::protocol, "a compressed block without its size");
  if (size > block_size_max) return fail(errc::protocol, "a compressed block that unpacks to more than a block may have");
  bytes plain;
  bool failed = false;
  plain.resize_and_overwrite(static_cast<std::size_t>(size), [&](char* p, std::size_t n) {
    std::size_t r = ZSTD_decompress(p, n, frame.data(), frame.size());
    failed = ZSTD_isError(r) || r != n;
    return failed ? 0 : n;
  });
  if (failed) return fail(errc::protocol, "a compressed block that does not unpack");
  return share(std::move(plain));
}

}  // namespace

stored encode(shared_bytes plain, int zstd_level) {
  if (zstd_level > 0 && worth_trying(*plain, zstd_level)) {
    bytes packed = compress(*plain, zstd_level);
    if (packed.size() * 20 < plain->size() * 19) return {true, share(std::move(packed))};
  }
  return {false, std::move(plain)};
}

result<shared_bytes> decode(const stored& s, const block_hash& hash) {
  if (!s.data || s.data->empty() || s.data->size() > block_size_max)
    return fail(errc::protocol, "a block of no or too many bytes");
  shared_bytes plain = s.data;
  if (s.zstd) {
    TRY(plain, unpack(*s.data));
  }
  if (crypto::hash_block(*plain) != hash) return fail(errc::bad_digest, "the bytes are not those of block " + hash.short_hex());
  return plain;
}

}  // namespace grenier::block
