#include "body.h"

#include "headers.h"

namespace grenier::s3 {

std::unexpected<error> request_body::give_up(failure f, errc e) {
  std::string detail = f.message;
  failed_ = std::move(f);
  return fail(e, std::move(detail));
}

task<result<std::size_t>> request_body::read(std::span<char> to) {
  if (failed_) co_return fail(errc::incomplete_body, failed_->message);
  if (ended_ || to.empty()) co_return std::size_t(0);
  auto n = decoder_ ? co_await read_decoded(to) : co_await read_plain(to);
  if (!n) {
    // The client stalled: its fault, where a store that cannot answer in time would be ours.
    if (!failed_ && n.failed_with(errc::timed_out)) failed_ = failure(code::request_timeout);
    if (!failed_) failed_ = failure(n.error());
    if (n.failed_with(errc::protocol)) failed_ = failure(code::invalid_request, "The chunked body cannot be read.");
    co_return n;
  }
  given_ += *n;
  if (given_ > size_max_) co_return give_up(code::entity_too_large, errc::too_large);
  if (*n == 0) {
    ended_ = true;
    if (size_ && given_ != *size_) co_return give_up(code::incomplete_body, errc::incomplete_body);
  } else if (size_ && given_ > *size_) {
    co_return give_up(code::incomplete_body, errc::incomplete_body);
  }
  co_return n;
}

task<result<std::size_t>> request_body::read_plain(std::span<char> to) { co_return co_await exchange_.read_body(to); }

task<result<std::size_t>> request_body::read_decoded(std::span<char> to) {
  chunk_decoder& d = *decoder_;
  while (d.ready().empty()) {
    buffer_.resize(64 << 10);
    auto n = co_await exchange_.read_body(std::span<char>(buffer_));
    if (!n) co_return n;
    auto r = *n == 0 ? d.finish() : d.feed(bytes_view(buffer_).substr(0, *n));
    if (!r) co_return give_up(r.error(), r.error().id == code::incomplete_body ? errc::incomplete_body : errc::bad_digest);
    if (*n == 0) break;  // the end, proved by finish()
  }
  bytes_view ready = d.ready().substr(0, to.size());
  std::ranges::copy(ready, to.begin());
  std::size_t n = ready.size();
  d.take(n);
  co_return n;
}

std::vector<store::checksum> request_body::trailers() const {
  std::vector<store::checksum> out;
  if (!decoder_ || !decoder_->done()) return out;
  for (const auto& [name, value] : decoder_->trailers()) {
    auto kind = checksum_of_header(name);
    if (!kind) continue;
    auto raw = from_base64(value);
    // A value that is no checksum matches nothing.
    out.push_back({.kind = *kind, .value = raw ? std::move(*raw) : bytes()});
  }
  return out;
}

task<outcome<bytes>> request_body::read_all() {
  bytes out;
  std::vector<char> piece(32 << 10);
  for (;;) {
    auto n = co_await read(std::span<char>(piece));
    if (!n) co_return std::unexpected<failure>(failed_ ? *failed_ : failure(n.error()));
    if (*n == 0) co_return out;
    out.append(piece.data(), *n);
  }
}

}  // namespace grenier::s3
