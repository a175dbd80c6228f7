#include <sodium.h>

#include "crypto/crypto.h"

namespace grenier::crypto {

namespace {
const unsigned char* raw(bytes_view b) { return reinterpret_cast<const unsigned char*>(b.data()); }
unsigned char* raw(bytes& b) { return reinterpret_cast<unsigned char*>(b.data()); }
}  // namespace

void init() { ASSERT(sodium_init() >= 0); }

node_key node_key::from_seed(bytes_view seed) {
  ASSERT(seed.size() == crypto_sign_SEEDBYTES);
  node_key k;
  ASSERT(crypto_sign_seed_keypair(k.id_.data(), k.secret_.data(), raw(seed)) == 0);
  return k;
}

node_key::~node_key() { sodium_memzero(secret_.data(), secret_.size()); }

bytes node_key::seed() const {
  bytes s(crypto_sign_SEEDBYTES, '\0');
  ASSERT(crypto_sign_ed25519_sk_to_seed(raw(s), secret_.data()) == 0);
  return s;
}

bytes node_key::sign(bytes_view message) const {
  bytes s(crypto_sign_BYTES, '\0');
  ASSERT(crypto_sign_detached(raw(s), nullptr, raw(message), message.size(), secret_.data()) == 0);
  return s;
}

bool verify(const node_id& signer, bytes_view message, bytes_view signature) noexcept {
  return signature.size() == crypto_sign_BYTES && crypto_sign_verify_detached(raw(signature), raw(message), message.size(), signer.data()) == 0;
}

exchange_key exchange_key::from_secret(bytes secret) {
  ASSERT(secret.size() == crypto_scalarmult_SCALARBYTES);
  exchange_key k;
  k.secret = std::move(secret);
  k.open.assign(crypto_scalarmult_BYTES, '\0');
  ASSERT(crypto_scalarmult_base(raw(k.open), raw(bytes_view(k.secret))) == 0);
  return k;
}

result<bytes> exchange(const exchange_key& mine, bytes_view theirs) {
  if (theirs.size() != crypto_scalarmult_BYTES) return fail(errc::invalid_argument, "an exchange key has 32 bytes");
  bytes shared(crypto_scalarmult_BYTES, '\0');
  if (crypto_scalarmult(raw(shared), raw(bytes_view(mine.secret)), raw(theirs)) != 0)
    return fail(errc::invalid_argument, "a weak exchange key");
  return shared;
}

}  // namespace grenier::crypto
