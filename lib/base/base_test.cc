#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "base/base.h"

using namespace grenier;

TEST_CASE("every error code has a name of its own") {
  for (errc a : all_errcs()) {
    CHECK(to_string(a) != "unknown");
    for (errc b : all_errcs()) CHECK((a == b) == (to_string(a) == to_string(b)));
  }
}

TEST_CASE("hex and base64 return what went in and refuse the rest") {
  bytes all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
  for (std::size_t n = 0; n <= all.size(); ++n) {
    bytes b = all.substr(0, n);
    CHECK(*from_hex(to_hex(b)) == b);
    CHECK(*from_base64(to_base64(b)) == b);
  }
  CHECK(to_base64("any carnal pleas") == "YW55IGNhcm5hbCBwbGVhcw==");
  for (auto wrong : {"a", "zz", "0x"}) CHECK(!from_hex(wrong));
  for (auto wrong : {"a", "a===", "====", "ab=c", "ab c", "YQ==YQ=="}) CHECK(!from_base64(wrong));
}

TEST_CASE("sizes are read as people write them") {
  CHECK(*parse_size("0") == 0);
  CHECK(*parse_size("10G") == 10'000'000'000);
  CHECK(*parse_size("1.5k") == 1500);
  CHECK(*parse_size("64KiB") == 65536);
  CHECK(*parse_size("2TB") == 2'000'000'000'000);
  for (auto wrong : {"", "G", "-1", "10X", "10 G", "1e3", "99999999999T", "nan", "inf"}) CHECK(!parse_size(wrong));
  CHECK(format_size(1536) == "1.5 KiB");
}

TEST_CASE("encoded ballots sort as ballots do") {
  std::vector<ballot> sorted = {{}, {{1}, 0, 0}, {{1}, 0, 7}, {{1}, 9, 0}, {{1ull << 60}, 0, 0}};
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    CHECK(*ballot::decode(sorted[i].encode()) == sorted[i]);
    for (std::size_t j = 0; j < sorted.size(); ++j)
      CHECK((sorted[i] < sorted[j]) == (sorted[i].encode() < sorted[j].encode()));
  }
  CHECK(!ballot::decode("short"));
}

TEST_CASE("an identifier takes exactly its length") {
  CHECK(bucket_id::from_bytes(bytes(16, 'x'))->hex() == "78787878787878787878787878787878");
  CHECK(!bucket_id::from_bytes(bytes(15, 'x')));
  CHECK(bucket_id().is_zero());
}

static result<int> half(int n) {
  if (n % 2) return fail(errc::invalid_argument, "odd");
  return n / 2;
}
static result<int> quarter(int n) {
  TRY(int h, half(n));
  return half(h);
}
TEST_CASE("TRY hands the error up") {
  CHECK(*quarter(8) == 2);
  CHECK(quarter(6).failed_with(errc::invalid_argument));
  CHECK(quarter(6).error().to_string() == "invalid_argument: odd");
}
