#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <random>

#include "crypto/crypto.h"

using namespace grenier;
using namespace grenier::crypto;

namespace {
bytes hex(std::string_view h) { return *from_hex(h); }
const hash_kind kinds[] = {hash_kind::md5, hash_kind::sha1, hash_kind::sha256, hash_kind::crc32, hash_kind::crc32c, hash_kind::crc64nvme};
bytes noise(std::mt19937& r, std::size_t n) {
  bytes b(n, '\0');
  for (char& c : b) c = static_cast<char>(r());
  return b;
}
}  // namespace

TEST_CASE("published digests") {
  const char* check = "123456789";
  CHECK(to_hex(digest(hash_kind::md5, check)) == "25f9e794323b453885f5181f1b624d0b");
  CHECK(to_hex(digest(hash_kind::sha1, "abc")) == "a9993e364706816aba3e25717850c26c9cd0d89d");
  CHECK(to_hex(digest(hash_kind::sha256, "abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(to_hex(digest(hash_kind::crc32, check)) == "cbf43926");
  CHECK(to_hex(digest(hash_kind::crc32c, check)) == "e3069283");
  CHECK(to_hex(digest(hash_kind::crc64nvme, check)) == "ae8b14860a799888");
  CHECK(hash_block("abc").view() == digest(hash_kind::sha256, "abc"));
  CHECK(to_hex(hmac_sha256("Jefe", "what do ya want for nothing?")) == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  // RFC 5869, A.1
  CHECK(to_hex(hkdf(bytes(22, '\x0b'), hex("000102030405060708090a0b0c"), hex("f0f1f2f3f4f5f6f7f8f9"), 42)) ==
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
}

TEST_CASE("a message in pieces hashes as a whole, and CRCs combine") {
  std::mt19937 r(1);
  for (int i = 0; i < 50; ++i) {
    bytes m = noise(r, r() % 5000);
    std::size_t cut = m.empty() ? 0 : r() % m.size();
    bytes_view a = bytes_view(m).substr(0, cut), b = bytes_view(m).substr(cut);
    for (hash_kind k : kinds) {
      hasher h(k);
      h.update(a);
      hasher moved = std::move(h);
      moved.update(b);
      CHECK(moved.finish() == digest(k, m));
      CHECK(digest(k, m).size() == digest_size(k));
      if (k == hash_kind::crc32 || k == hash_kind::crc32c || k == hash_kind::crc64nvme)
        CHECK(combine_crc(k, digest(k, a), digest(k, b), b.size()) == digest(k, m));
    }
  }
}

TEST_CASE("node keys sign, and nothing else passes") {
  init();
  // RFC 8032, 7.1, test 1
  auto k = node_key::from_seed(hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"));
  CHECK(k.id().hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  bytes s = k.sign("");
  CHECK(to_hex(s).substr(0, 32) == "e5564300c360ac729086e2cc806e828a");
  CHECK(verify(k.id(), "", s));
  CHECK(!verify(k.id(), "x", s));
  s[3] ^= 1;
  CHECK(!verify(k.id(), "", s));
  CHECK(!verify(k.id(), "", "short"));
  CHECK(k.seed().size() == 32);
}

TEST_CASE("both ends agree on a secret, a weak key is refused") {
  std::mt19937 r(2);
  auto a = exchange_key::from_secret(noise(r, 32)), b = exchange_key::from_secret(noise(r, 32));
  CHECK(*crypto::exchange(a, b.open) == *crypto::exchange(b, a.open));
  CHECK(crypto::exchange(a, bytes(32, '\0')).failed_with(errc::invalid_argument));
  CHECK(crypto::exchange(a, "short").failed_with(errc::invalid_argument));
}

TEST_CASE("sealed messages open in order and only unchanged") {
  std::mt19937 r(3);
  for (cipher c : {cipher::aes_256_gcm, cipher::chacha20_poly1305}) {
    bytes key = noise(r, 32);
    sealer out(c, key), in(c, key);
    for (std::size_t n : {0u, 1u, 100u, 8192u, 70000u}) {
      bytes m = noise(r, n), sealed = "kept";
      bytes_view pieces[] = {bytes_view(m).substr(0, n / 3), bytes_view(m).substr(n / 3)};
      out.seal(pieces, "head", sealed);
      CHECK(sealed.substr(0, 4) == "kept");
      sealed.erase(0, 4);
      CHECK(sealed.size() == n + seal_overhead_bytes);
      CHECK(in.open(sealed, "head"));
      CHECK(sealed == m);
    }
    auto seal_one = [&](sealer& s) {
      bytes x;
      bytes_view p = "payload";
      s.seal(std::span(&p, 1), "head", x);
      return x;
    };
    for (std::size_t at = 0; at < 23; at += 5) {
      sealer s(c, key), o(c, key);
      bytes x = seal_one(s);
      x[at] ^= 1;
      CHECK(o.open(x, "head").failed_with(errc::corrupt));
    }
    sealer s(c, key), o(c, key), o2(c, key);
    bytes first = seal_one(s), second = seal_one(s);
    CHECK(first != second);
    CHECK(o.open(second, "head").failed_with(errc::corrupt));  // out of order
    CHECK(o2.open(first, "tail").failed_with(errc::corrupt));
    bytes tiny = "x";
    CHECK(o2.open(tiny, "").failed_with(errc::corrupt));
  }
}

TEST_CASE("constant-time comparison compares") {
  CHECK(equal_constant_time("same", "same"));
  CHECK(!equal_constant_time("same", "sane"));
  CHECK(!equal_constant_time("same", "sam"));
}
