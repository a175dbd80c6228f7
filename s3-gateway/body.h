// body.h: the body of a request as the store wants it: plain or aws-chunked, counted, proved.
//
//   Owns      64 KiB of buffer for a chunked body, and a signed chunk while it is being proved.
//   Runs on   the exchange's home thread.
//   Errors    read() gives the store an errc; failed() then tells it in S3's words.
//   Limits    5 GiB, or what its maker says.
#pragma once

#include "chunked.h"
#include "store/store.h"

namespace grenier::s3 {

class request_body final : public store::body_source {
 public:
  // size: of the decoded body, if it is known. decoder: of a streaming payload.
  request_body(http::exchange& ex, std::optional<std::uint64_t> size, std::uint64_t size_max, std::optional<chunk_decoder> decoder)
      : exchange_(ex), size_(size), size_max_(size_max), decoder_(std::move(decoder)) {}

  task<result<std::size_t>> read(std::span<char> to) override;
  std::optional<std::uint64_t> size() const override { return size_; }
  std::vector<store::checksum> trailers() const override;

  const std::optional<failure>& failed() const noexcept { return failed_; }
  // All of it, at most size_max bytes.
  task<outcome<bytes>> read_all();

 private:
  task<result<std::size_t>> read_plain(std::span<char> to);
  task<result<std::size_t>> read_decoded(std::span<char> to);
  std::unexpected<error> give_up(failure f, errc e);

  http::exchange& exchange_;
  std::optional<std::uint64_t> size_;
  std::uint64_t size_max_;
  std::optional<chunk_decoder> decoder_;
  bytes buffer_;
  std::uint64_t given_ = 0;
  bool ended_ = false;
  std::optional<failure> failed_;
};

inline constexpr std::uint64_t put_size_max = std::uint64_t(5) << 30;

}  // namespace grenier::s3
