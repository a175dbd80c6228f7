// base/base.h: the words every module shares: results and errors, bytes, identifiers, the hybrid clock's timestamp.
//
//   Runs on   any thread; everything here is a value.
//   Errors    a code exists only if some caller acts on it; detail is a sentence for people and never holds a secret.
//   Not here  anything that reads a clock, a file, a socket or a random number (async/).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace grenier {

// ---------------------------------------------------------------------------------------------- errors

enum class errc : std::uint16_t {
  // the request is wrong
  invalid_argument = 1,
  access_denied,
  not_implemented,
  too_large,
  // what it names is not there, or is there already
  not_found,
  no_such_bucket,
  no_such_key,
  no_such_upload,
  already_exists,
  bucket_already_owned_by_you,
  bucket_not_empty,
  // the bytes or the parts are not what was said
  bad_digest,
  checksum_mismatch,
  incomplete_body,
  invalid_part,
  invalid_part_order,
  part_too_small,
  invalid_range,
  // conditions
  condition_failed,
  not_modified,
  conflict,
  // the store cannot, now
  unavailable,      // no quorum: retry later (503)
  timed_out,        // the deadline passed before anything was decided
  outcome_unknown,  // a write may or may not have happened; read before trying again
  stale_layout,     // the caller's layout is older than the callee's
  not_synced,       // a newcomer that does not count yet
  overloaded,       // a bound was reached: slow down
  no_space,
  quota_exceeded,
  clock_skew,  // a timestamp too far ahead: the caller's clock is wrong
  // this node
  corrupt,    // bytes are there, their hash differs
  io_failed,  // the drive or database failed
  cancelled,  // stopping, or the caller went away
  protocol,   // a peer broke the protocol
  internal,
};

// The code's own name, "no_such_key"; stable, used in logs and JSON.
std::string_view to_string(errc) noexcept;
// Every code, for tests that walk them all.
std::span<const errc> all_errcs() noexcept;

struct error {
  errc code = errc::internal;
  std::string detail;
  error() = default;
  error(errc c) : code(c) {}  // NOLINT: a code alone is an error
  error(errc c, std::string d) : code(c), detail(std::move(d)) {}
  // "no_such_key: photos/a.jpg"
  std::string to_string() const;
  friend bool operator==(const error& a, errc b) noexcept { return a.code == b; }
};

template <class T = void>
class [[nodiscard]] result : public std::expected<T, error> {
 public:
  using std::expected<T, error>::expected;
  bool failed_with(errc c) const noexcept { return !this->has_value() && this->error().code == c; }
};

inline std::unexpected<error> fail(errc code) { return std::unexpected<error>(error(code)); }
inline std::unexpected<error> fail(errc code, std::string detail) {
  return std::unexpected<error>(error(code, std::move(detail)));
}
inline std::unexpected<error> fail(error e) { return std::unexpected<error>(std::move(e)); }

// TRY(auto x, f());  CO_TRY(auto x, co_await f());  the value, or this function returns the error.
// TRY_VOID(f());     CO_TRY_VOID(co_await f());     the same without a value.
#define GRENIER_CAT2(a, b) a##b
#define GRENIER_CAT(a, b) GRENIER_CAT2(a, b)
#define GRENIER_TRY(ret, tmp, decl, ...)                                        \
  auto tmp = (__VA_ARGS__);                                                     \
  if (!tmp) [[unlikely]]                                                        \
    ret std::unexpected<::grenier::error>(std::move(tmp).error());              \
  decl = std::move(*tmp)
#define GRENIER_TRY_VOID(ret, ...)                                              \
  do {                                                                          \
    if (auto r_ = (__VA_ARGS__); !r_) [[unlikely]]                              \
      ret std::unexpected<::grenier::error>(std::move(r_).error());             \
  } while (0)
#define TRY(decl, ...) GRENIER_TRY(return, GRENIER_CAT(try_, __LINE__), decl, __VA_ARGS__)
#define CO_TRY(decl, ...) GRENIER_TRY(co_return, GRENIER_CAT(try_, __LINE__), decl, __VA_ARGS__)
#define TRY_VOID(...) GRENIER_TRY_VOID(return, __VA_ARGS__)
#define CO_TRY_VOID(...) GRENIER_TRY_VOID(co_return, __VA_ARGS__)

// A broken invariant: prints what and where, then aborts; on in production too.
[[noreturn]] void assertion_failed(const char* what, const char* file, int line);
#define ASSERT(cond) \
  ((cond) ? static_cast<void>(0) : ::grenier::assertion_failed(#cond, __FILE__, __LINE__))

// ---------------------------------------------------------------------------------------------- bytes

using bytes = std::string;            // owned bytes (what Protobuf and RocksDB speak)
using bytes_view = std::string_view;  // borrowed: never kept past the call, never across a co_await unless said
using shared_bytes = std::shared_ptr<const bytes>;  // block payloads: handed on without copying

inline shared_bytes share(bytes b) { return std::make_shared<const bytes>(std::move(b)); }

std::string to_hex(bytes_view);
// Lower or upper case, even length; else invalid_argument.
result<bytes> from_hex(std::string_view);
std::string to_base64(bytes_view);
// Padded standard alphabet only; else invalid_argument.
result<bytes> from_base64(std::string_view);

// Big-endian integers, so that byte order is number order in the store's keys.
void append_u16(bytes& to, std::uint16_t);
void append_u32(bytes& to, std::uint32_t);
void append_u64(bytes& to, std::uint64_t);
std::uint16_t read_u16(bytes_view);  // REQUIRES: at least 2 bytes
std::uint32_t read_u32(bytes_view);  // REQUIRES: at least 4 bytes
std::uint64_t read_u64(bytes_view);  // REQUIRES: at least 8 bytes

// XXH3, 64 and 128 bits: partitioning and anti-entropy digests, never security.
std::uint64_t xxh3_64(bytes_view, std::uint64_t seed = 0) noexcept;
struct u128 {
  std::uint64_t high = 0, low = 0;
  friend auto operator<=>(const u128&, const u128&) = default;
  u128& operator^=(const u128& o) noexcept { high ^= o.high, low ^= o.low; return *this; }
};
u128 xxh3_128(bytes_view) noexcept;

// "10G", "512M", "1.5T", "64KiB", "0" -> bytes; K M G T are powers of 1000 with or without B, Ki Mi Gi Ti of 1024.
result<std::uint64_t> parse_size(std::string_view);
// 1536 -> "1.5 KiB"
std::string format_size(std::uint64_t);

// ---------------------------------------------------------------------------------------------- identifiers

// N bytes that name a thing of kind Tag; ordered bytewise; all zero means "none".
template <class Tag, std::size_t N>
class id {
 public:
  static constexpr std::size_t size_bytes = N;
  constexpr id() noexcept : raw_{} {}
  // Exactly N bytes, else invalid_argument.
  static result<id> from_bytes(bytes_view b) {
    if (b.size() != N) return fail(errc::invalid_argument, "an identifier of the wrong length");
    id r;
    std::memcpy(r.raw_.data(), b.data(), N);
    return r;
  }
  static result<id> from_hex(std::string_view h) {
    TRY(bytes b, grenier::from_hex(h));
    return from_bytes(b);
  }
  bytes_view view() const noexcept { return {reinterpret_cast<const char*>(raw_.data()), N}; }
  bytes str() const { return bytes(view()); }
  std::string hex() const { return to_hex(view()); }
  std::string short_hex() const { return to_hex(view().substr(0, 8)); }
  std::uint8_t* data() noexcept { return raw_.data(); }
  const std::uint8_t* data() const noexcept { return raw_.data(); }
  bool is_zero() const noexcept { return raw_ == std::array<std::uint8_t, N>{}; }
  explicit operator bool() const noexcept { return !is_zero(); }
  friend auto operator<=>(const id&, const id&) = default;

 private:
  std::array<std::uint8_t, N> raw_;
};

using node_id = id<struct node_tag, 32>;        // a node's Ed25519 public key
using cluster_id = id<struct cluster_tag, 16>;  // random, made with the cluster
using block_hash = id<struct block_tag, 32>;    // SHA-256 of the block's bytes, before compression
using content_id = id<struct content_tag, 32>;  // SHA-256 of a whole plain file
using bucket_id = id<struct bucket_tag, 16>;
using version_id = id<struct version_tag, 16>;  // hybrid time (8, big endian) then random: newer sorts later
using upload_id = id<struct upload_tag, 16>;
using attempt_id = id<struct attempt_tag, 16>;  // one attempt of one write (DESIGN: the register machine)

struct id_hash {
  template <class Tag, std::size_t N>
  std::size_t operator()(const id<Tag, N>& i) const noexcept { return xxh3_64(i.view()); }
};

// ---------------------------------------------------------------------------------------------- hybrid time

// Milliseconds of wall clock since 1970 in the upper 48 bits, a counter in the lower 16; never goes back on one node.
// Source: Kulkarni et al., "Logical Physical Clocks" (2014), compressed to 64 bits.
struct hlc_time {
  std::uint64_t value = 0;
  static hlc_time from_ms(std::uint64_t ms) noexcept { return {ms << 16}; }
  std::uint64_t ms() const noexcept { return value >> 16; }
  friend auto operator<=>(const hlc_time&, const hlc_time&) = default;
};

// The order of writes of one row: time, then node, then that node's start number. Encoded, byte order is this order.
struct ballot {
  hlc_time time;
  std::uint64_t node = 0;    // the first 8 bytes of the node's id
  std::uint32_t start = 0;   // how often that node was started
  friend auto operator<=>(const ballot&, const ballot&) = default;
  explicit operator bool() const noexcept { return time.value != 0; }
  bytes encode() const;                    // 20 bytes
  static result<ballot> decode(bytes_view);  // 20 bytes, or empty for none
};

}  // namespace grenier

template <class Tag, std::size_t N>
struct std::hash<grenier::id<Tag, N>> {
  std::size_t operator()(const grenier::id<Tag, N>& i) const noexcept { return grenier::xxh3_64(i.view()); }
};
