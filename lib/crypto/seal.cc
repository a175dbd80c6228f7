// Sealed frames by OpenSSL: its AES-256-GCM is twice as fast as libsodium's (docs/measurements.md).
#include <openssl/evp.h>
#include <sodium.h>

#include "crypto/crypto.h"

namespace grenier::crypto {

namespace {
const EVP_CIPHER* algorithm(cipher c) {
  static EVP_CIPHER* const gcm = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
  static EVP_CIPHER* const chacha = EVP_CIPHER_fetch(nullptr, "ChaCha20-Poly1305", nullptr);
  return c == cipher::aes_256_gcm ? gcm : chacha;
}
unsigned char* raw(char* p) { return reinterpret_cast<unsigned char*>(p); }
const unsigned char* raw(const char* p) { return reinterpret_cast<const unsigned char*>(p); }
constexpr int tag_size = static_cast<int>(seal_overhead_bytes);
}  // namespace

bool has_fast_aes() noexcept { return crypto_aead_aes256gcm_is_available() == 1; }

struct sealer::impl {
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  bytes key;
  std::uint64_t counter = 0;
  int direction = -1;  // the key schedule of one direction stays; only the nonce changes
  ~impl() {
    EVP_CIPHER_CTX_free(context);
    sodium_memzero(key.data(), key.size());
  }
  void next(int encrypt) {
    ASSERT(direction == -1 || direction == encrypt);
    unsigned char nonce[12] = {};
    std::uint64_t n = counter++;
    ASSERT(n != UINT64_MAX);
    for (int i = 0; i < 8; ++i) nonce[4 + i] = static_cast<unsigned char>(n >> (56 - 8 * i));
    bool first = direction == -1;
    direction = encrypt;
    ASSERT(EVP_CipherInit_ex2(context, nullptr, first ? raw(bytes_view(key).data()) : nullptr, nonce, encrypt, nullptr) == 1);
  }
};

sealer::sealer(cipher c, bytes_view key) : impl_(std::make_unique<impl>()) {
  ASSERT(key.size() == 32);
  impl_->key = key;
  ASSERT(impl_->context && EVP_CipherInit_ex2(impl_->context, algorithm(c), nullptr, nullptr, -1, nullptr) == 1);
}
sealer::~sealer() = default;
sealer::sealer(sealer&&) noexcept = default;
sealer& sealer::operator=(sealer&&) noexcept = default;

void sealer::seal(std::span<const bytes_view> pieces, bytes_view associated, bytes& to) {
  impl_->next(1);
  std::size_t total = 0;
  for (auto p : pieces) total += p.size();
  std::size_t at = to.size();
  int n = 0;
  if (!associated.empty()) ASSERT(EVP_EncryptUpdate(impl_->context, nullptr, &n, raw(associated.data()), static_cast<int>(associated.size())) == 1);
  // libstdc++ 12 hands the grown capacity to the operation, not the size asked for: trust only our own number.
  std::size_t size = at + total + seal_overhead_bytes;
  to.resize_and_overwrite(size, [&](char* p, std::size_t) {
    for (auto piece : pieces) {
      if (piece.empty()) continue;
      ASSERT(EVP_EncryptUpdate(impl_->context, raw(p + at), &n, raw(piece.data()), static_cast<int>(piece.size())) == 1);
      at += static_cast<std::size_t>(n);
    }
    ASSERT(EVP_EncryptFinal_ex(impl_->context, raw(p + at), &n) == 1 && n == 0);
    ASSERT(EVP_CIPHER_CTX_ctrl(impl_->context, EVP_CTRL_AEAD_GET_TAG, tag_size, p + at) == 1);
    return size;
  });
}

result<void> sealer::open(bytes& message, bytes_view associated) {
  if (message.size() < seal_overhead_bytes) return fail(errc::corrupt, "a sealed message shorter than its tag");
  impl_->next(0);
  std::size_t size = message.size() - seal_overhead_bytes;
  int n = 0;
  if (!associated.empty()) ASSERT(EVP_DecryptUpdate(impl_->context, nullptr, &n, raw(associated.data()), static_cast<int>(associated.size())) == 1);
  ASSERT(EVP_CIPHER_CTX_ctrl(impl_->context, EVP_CTRL_AEAD_SET_TAG, tag_size, message.data() + size) == 1);
  if (size) ASSERT(EVP_DecryptUpdate(impl_->context, raw(message.data()), &n, raw(bytes_view(message).data()), static_cast<int>(size)) == 1);
  if (EVP_DecryptFinal_ex(impl_->context, raw(message.data() + size), &n) != 1) {
    message.clear();
    return fail(errc::corrupt, "a sealed message that does not open");
  }
  message.resize(size);
  return {};
}

}  // namespace grenier::crypto
