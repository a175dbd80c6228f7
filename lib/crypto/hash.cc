// Hashes by OpenSSL (fetched once: a fetch costs more than hashing a kilobyte), CRCs by isa-l, CRC-64/NVME here, since
// isa-l has it only from 2.31 on.
#include <isa-l/crc.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "crypto/crypto.h"

namespace grenier::crypto {

namespace {

const EVP_MD* algorithm(hash_kind k) {
  static EVP_MD* const md5 = EVP_MD_fetch(nullptr, "MD5", nullptr);
  static EVP_MD* const sha1 = EVP_MD_fetch(nullptr, "SHA1", nullptr);
  static EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  const EVP_MD* m = k == hash_kind::md5 ? md5 : k == hash_kind::sha1 ? sha1 : k == hash_kind::sha256 ? sha256 : nullptr;
  return m;
}

bool is_crc(hash_kind k) { return k == hash_kind::crc32 || k == hash_kind::crc32c || k == hash_kind::crc64nvme; }

// The reflected polynomial of each CRC, and its width.
struct crc_form {
  std::uint64_t polynomial;
  unsigned bits;
};
constexpr crc_form form_of(hash_kind k) {
  switch (k) {
    case hash_kind::crc32: return {0xEDB88320u, 32};
    case hash_kind::crc32c: return {0x82F63B78u, 32};
    default: return {0x9A6C9329AC4BC9B5u, 64};
  }
}

// Eight tables: eight bytes a step (slicing-by-8, Kounavis and Berry 2005).
struct crc64_tables {
  std::uint64_t t[8][256];
};
constexpr crc64_tables make_tables() {
  crc64_tables x{};
  for (unsigned i = 0; i < 256; ++i) {
    std::uint64_t c = i;
    for (int b = 0; b < 8; ++b) c = c & 1 ? c >> 1 ^ form_of(hash_kind::crc64nvme).polynomial : c >> 1;
    x.t[0][i] = c;
  }
  for (unsigned i = 0; i < 256; ++i)
    for (int k = 1; k < 8; ++k) x.t[k][i] = x.t[k - 1][i] >> 8 ^ x.t[0][x.t[k - 1][i] & 255];
  return x;
}
constexpr crc64_tables tables = make_tables();

std::uint64_t crc64nvme(std::uint64_t crc, bytes_view b) {
  crc = ~crc;
  const auto* p = reinterpret_cast<const unsigned char*>(b.data());
  std::size_t n = b.size();
  for (; n >= 8; n -= 8, p += 8) {
    std::uint64_t w;
    std::memcpy(&w, p, 8);  // little endian, as everything Grenier runs on
    w ^= crc;
    crc = 0;
    for (int k = 0; k < 8; ++k) crc ^= tables.t[7 - k][w >> (8 * k) & 255];
  }
  for (; n; --n, ++p) crc = crc >> 8 ^ tables.t[0][(crc ^ *p) & 255];
  return ~crc;
}

std::uint64_t crc_update(hash_kind k, std::uint64_t crc, bytes_view b) {
  // isa-l takes lengths as int or uint64 by function: pieces keep both right.
  while (!b.empty()) {
    bytes_view piece = b.substr(0, 1u << 30);
    b.remove_prefix(piece.size());
    auto* p = reinterpret_cast<unsigned char*>(const_cast<char*>(piece.data()));
    if (k == hash_kind::crc32)
      crc = ::crc32_gzip_refl(static_cast<std::uint32_t>(crc), p, piece.size());
    else if (k == hash_kind::crc32c)
      crc = ~::crc32_iscsi(p, static_cast<int>(piece.size()), ~static_cast<std::uint32_t>(crc)) & 0xffffffffu;
    else
      crc = crc64nvme(crc, piece);
  }
  return crc;
}

bytes crc_bytes(hash_kind k, std::uint64_t crc) {
  bytes b;
  if (form_of(k).bits == 32)
    append_u32(b, static_cast<std::uint32_t>(crc));
  else
    append_u64(b, crc);
  return b;
}

// A CRC register after n zero bytes is a linear map of the register: multiply by x^(8n) modulo the polynomial (reflected).
std::uint64_t multiply(const crc_form& f, std::uint64_t a, std::uint64_t b) {
  std::uint64_t top = 1ull << (f.bits - 1), product = 0;
  for (std::uint64_t m = top; m; m >>= 1) {
    if (a & m) product ^= b;
    b = b & 1 ? b >> 1 ^ f.polynomial : b >> 1;
  }
  return product;
}

}  // namespace

std::size_t digest_size(hash_kind k) noexcept {
  switch (k) {
    case hash_kind::md5: return 16;
    case hash_kind::sha1: return 20;
    case hash_kind::sha256: return 32;
    case hash_kind::crc32:
    case hash_kind::crc32c: return 4;
    case hash_kind::crc64nvme: return 8;
  }
  return 0;
}

struct hasher::impl {
  hash_kind kind;
  std::uint64_t crc = 0;
  EVP_MD_CTX* context = nullptr;
  ~impl() { EVP_MD_CTX_free(context); }
};

hasher::hasher(hash_kind k) : impl_(std::make_unique<impl>()) {
  impl_->kind = k;
  if (is_crc(k)) return;
  impl_->context = EVP_MD_CTX_new();
  ASSERT(impl_->context && EVP_DigestInit_ex2(impl_->context, algorithm(k), nullptr) == 1);
}
hasher::~hasher() = default;
hasher::hasher(hasher&&) noexcept = default;
hasher& hasher::operator=(hasher&&) noexcept = default;

void hasher::update(bytes_view b) {
  if (impl_->context)
    ASSERT(EVP_DigestUpdate(impl_->context, b.data(), b.size()) == 1);
  else
    impl_->crc = crc_update(impl_->kind, impl_->crc, b);
}

bytes hasher::finish() {
  if (!impl_->context) return crc_bytes(impl_->kind, impl_->crc);
  bytes out(digest_size(impl_->kind), '\0');
  ASSERT(EVP_DigestFinal_ex(impl_->context, reinterpret_cast<unsigned char*>(out.data()), nullptr) == 1);
  return out;
}

bytes digest(hash_kind k, bytes_view b) {
  if (is_crc(k)) return crc_bytes(k, crc_update(k, 0, b));
  bytes out(digest_size(k), '\0');
  ASSERT(EVP_Digest(b.data(), b.size(), reinterpret_cast<unsigned char*>(out.data()), nullptr, algorithm(k), nullptr) == 1);
  return out;
}

block_hash hash_block(bytes_view b) {
  block_hash h;
  ASSERT(EVP_Digest(b.data(), b.size(), h.data(), nullptr, algorithm(hash_kind::sha256), nullptr) == 1);
  return h;
}

// RFC 2104 over the hash that is fetched already: OpenSSL's own HMAC() fetches twice a call, four times as long as it hashes.
bytes hmac_sha256(bytes_view key, bytes_view message) {
  constexpr std::size_t block_size = 64;
  bytes hashed_key;
  if (key.size() > block_size) key = hashed_key = digest(hash_kind::sha256, key);
  std::array<char, block_size> pad{};
  key.copy(pad.data(), key.size());
  bytes out(32, '\0');
  auto* to = reinterpret_cast<unsigned char*>(out.data());
  static thread_local std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
  ASSERT(context);
  auto round = [&](char mask, bytes_view rest) {
    for (char& c : pad) c = static_cast<char>(c ^ mask);
    ASSERT(EVP_DigestInit_ex2(context.get(), algorithm(hash_kind::sha256), nullptr) == 1);
    ASSERT(EVP_DigestUpdate(context.get(), pad.data(), pad.size()) == 1);
    ASSERT(EVP_DigestUpdate(context.get(), rest.data(), rest.size()) == 1);
    ASSERT(EVP_DigestFinal_ex(context.get(), to, nullptr) == 1);
  };
  round(0x36, message);
  round(0x36 ^ 0x5c, out);  // takes the first mask off again
  OPENSSL_cleanse(pad.data(), pad.size());
  OPENSSL_cleanse(hashed_key.data(), hashed_key.size());
  return out;
}

bytes combine_crc(hash_kind k, bytes_view first, bytes_view second, std::uint64_t second_size) {
  ASSERT(is_crc(k) && first.size() == digest_size(k) && second.size() == digest_size(k));
  crc_form f = form_of(k);
  auto read = [&](bytes_view b) -> std::uint64_t { return f.bits == 32 ? read_u32(b) : read_u64(b); };
  std::uint64_t one = 1ull << (f.bits - 1);      // x^0, reflected
  std::uint64_t power = one >> 8;                // x^8: one byte
  std::uint64_t shift = one;
  for (std::uint64_t n = second_size; n; n >>= 1) {
    if (n & 1) shift = multiply(f, power, shift);
    power = multiply(f, power, power);
  }
  return crc_bytes(k, multiply(f, shift, read(first)) ^ read(second));
}

bool equal_constant_time(bytes_view a, bytes_view b) noexcept {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

bytes hkdf(bytes_view secret, bytes_view salt, bytes_view info, std::size_t size_bytes) {
  ASSERT(size_bytes <= 255 * 32);
  bytes key = hmac_sha256(salt.empty() ? bytes_view(bytes(32, '\0')) : salt, secret);
  bytes out, last;
  for (unsigned char i = 1; out.size() < size_bytes; ++i) {
    last.append(info).push_back(static_cast<char>(i));
    last = hmac_sha256(key, last);
    out.append(last);
  }
  out.resize(size_bytes);
  return out;
}

}  // namespace grenier::crypto
