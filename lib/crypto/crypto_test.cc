#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <sodium.h>

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

TEST_CASE("published digests of longer messages") {
  // FIPS 180-4 examples: two blocks, and a million times 'a'
  CHECK(to_hex(digest(hash_kind::sha256, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(to_hex(digest(hash_kind::sha256, bytes(1000000, 'a'))) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  CHECK(to_hex(digest(hash_kind::sha1, bytes(1000000, 'a'))) == "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
  CHECK(to_hex(digest(hash_kind::sha256, "")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(to_hex(digest(hash_kind::md5, "")) == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(to_hex(digest(hash_kind::crc64nvme, "")) == "0000000000000000");
  // RFC 4231, 4.7: a key longer than a block
  CHECK(to_hex(hmac_sha256(bytes(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First")) ==
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
  CHECK(to_hex(hmac_sha256("", "")) == "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
  // RFC 5869, A.3: neither salt nor info
  CHECK(to_hex(hkdf(bytes(22, '\x0b'), "", "", 42)) ==
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
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
  CHECK(to_hex(s) == "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
                     "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b");
  // test 3
  auto third = node_key::from_seed(hex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"));
  CHECK(third.id().hex() == "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025");
  CHECK(to_hex(third.sign(hex("af82"))) == "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                                           "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a");
  CHECK(third.seed() == hex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"));
  CHECK(verify(k.id(), "", s));
  CHECK(!verify(k.id(), "x", s));
  s[3] ^= 1;
  CHECK(!verify(k.id(), "", s));
  CHECK(!verify(k.id(), "", "short"));
  CHECK(k.seed().size() == 32);
}

TEST_CASE("both ends agree on a secret, a weak key is refused") {
  // RFC 7748, 6.1
  auto alice = exchange_key::from_secret(hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
  auto bob = exchange_key::from_secret(hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
  CHECK(to_hex(alice.open) == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
  CHECK(to_hex(bob.open) == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
  CHECK(to_hex(*crypto::exchange(alice, bob.open)) == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
  std::mt19937 r(2);
  auto a = exchange_key::from_secret(noise(r, 32)), b = exchange_key::from_secret(noise(r, 32));
  CHECK(*crypto::exchange(a, b.open) == *crypto::exchange(b, a.open));
  CHECK(crypto::exchange(a, bytes(32, '\0')).failed_with(errc::invalid_argument));
  CHECK(crypto::exchange(a, "short").failed_with(errc::invalid_argument));
}

TEST_CASE("sealed messages are the standard's") {
  auto seal = [](sealer& s, bytes_view m, bytes_view associated) {
    bytes x;
    s.seal(std::span(&m, 1), associated, x);
    return x;
  };
  // McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 and 14: key and nonce of zeros
  sealer thirteen(cipher::aes_256_gcm, bytes(32, '\0')), fourteen(cipher::aes_256_gcm, bytes(32, '\0'));
  CHECK(to_hex(seal(thirteen, "", "")) == "530f8afbc74536b9a963b4f1c4cb738b");
  CHECK(to_hex(seal(fourteen, bytes(16, '\0'), "")) == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
  // ChaCha20-Poly1305 against libsodium's own, message after message
  init();
  std::mt19937 r(4);
  bytes key = noise(r, 32);
  sealer s(cipher::chacha20_poly1305, key);
  for (unsigned char i = 0; i < 5; ++i) {
    bytes m = noise(r, 1000), other(m.size() + seal_overhead_bytes, '\0');
    unsigned char nonce[12] = {};
    nonce[11] = i;
    auto raw = [](bytes& b) { return reinterpret_cast<unsigned char*>(b.data()); };
    bytes head = "head";
    crypto_aead_chacha20poly1305_ietf_encrypt(raw(other), nullptr, raw(m), m.size(), raw(head), head.size(), nullptr, nonce, raw(key));
    CHECK(seal(s, m, head) == other);
  }
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
