// crypto/crypto.h: hashes, checksums, node keys, and the sealed frames between peers.
//
//   Runs on   any thread; objects are not shared between threads.
//   Errors    invalid_argument for a key or signature of the wrong form; corrupt when an authentication tag fails.
//   Source    FIPS 180-4 (SHA-2), RFC 1321 (MD5), RFC 8032 (Ed25519), RFC 7748 (X25519), RFC 5869 (HKDF),
//             NIST SP 800-38D (GCM), RFC 8439 (ChaCha20-Poly1305); CRC-64/NVME as in the NVM Express NVM command set.
#pragma once

#include "base/base.h"

namespace grenier::crypto {

// Call once before anything else; safe to repeat.
void init();

// ------------------------------------------------------------------------------------------------- hashes

enum class hash_kind : std::uint8_t { md5, sha1, sha256, crc32, crc32c, crc64nvme };
// Digest sizes in bytes: 16, 20, 32, 4, 4, 8. CRCs are big endian, as S3 sends them.
std::size_t digest_size(hash_kind) noexcept;

// Incremental hashing of one message. Movable.
class hasher {
 public:
  explicit hasher(hash_kind);
  ~hasher();
  hasher(hasher&&) noexcept;
  hasher& operator=(hasher&&) noexcept;
  void update(bytes_view);
  bytes finish();  // once; then only destruction or assignment
 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

bytes digest(hash_kind, bytes_view);
block_hash hash_block(bytes_view);  // SHA-256
bytes hmac_sha256(bytes_view key, bytes_view message);
// The CRC of the concatenation of two messages, from their CRCs (big-endian digests) and the second's length; crc kinds only.
bytes combine_crc(hash_kind, bytes_view first, bytes_view second, std::uint64_t second_size);
// Same length and same bytes, in time that depends on the length only.
bool equal_constant_time(bytes_view, bytes_view) noexcept;
// RFC 5869 with SHA-256; up to 255 * 32 bytes.
bytes hkdf(bytes_view secret, bytes_view salt, bytes_view info, std::size_t size_bytes);

// ------------------------------------------------------------------------------------------------- keys

// An Ed25519 signing key; its public half is the node's id. Wiped on destruction. seed: 32 bytes from a random_source.
class node_key {
 public:
  static node_key from_seed(bytes_view seed);  // REQUIRES: 32 bytes
  ~node_key();
  node_key(const node_key&) = default;
  node_key& operator=(const node_key&) = default;
  node_id id() const noexcept { return id_; }
  bytes seed() const;
  bytes sign(bytes_view message) const;  // 64 bytes
 private:
  node_key() = default;
  std::array<std::uint8_t, 64> secret_{};
  node_id id_;
};
bool verify(const node_id& signer, bytes_view message, bytes_view signature) noexcept;

// An ephemeral X25519 pair. secret: 32 bytes from a random_source.
struct exchange_key {
  bytes secret;  // 32
  bytes open;    // 32: what is sent
  static exchange_key from_secret(bytes secret);
};
// 32 bytes; invalid_argument for a low-order point.
result<bytes> exchange(const exchange_key& mine, bytes_view theirs);

// ------------------------------------------------------------------------------------------------- sealed frames

enum class cipher : std::uint8_t { aes_256_gcm = 1, chacha20_poly1305 = 2 };
bool has_fast_aes() noexcept;  // else chacha20_poly1305 is the better choice

inline constexpr std::size_t seal_overhead_bytes = 16;
// One direction of a channel: a key and a counter nonce. One message per nonce, in order.
class sealer {
 public:
  sealer(cipher, bytes_view key);  // REQUIRES: 32 bytes
  ~sealer();
  sealer(sealer&&) noexcept;
  sealer& operator=(sealer&&) noexcept;
  // Appends ciphertext and tag to `to`. The pieces are sealed as one message (no copy is made first).
  void seal(std::span<const bytes_view> pieces, bytes_view associated, bytes& to);
  // The plaintext of the next message, in place of the buffer's content; corrupt if the tag fails.
  result<void> open(bytes& message, bytes_view associated);
 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace grenier::crypto
