// chunked.h: the aws-chunked coding of bodies, signed or not, with or without trailers; a machine without I/O.
//
// Bytes of a signed chunk become ready only after its signature was found right.
//
//   Runs on   any thread.
//   Errors    SignatureDoesNotMatch, IncompleteBody, MalformedTrailerError, InvalidRequest; after one the machine stays failed.
//   Limits    a signed chunk of up to 2 MiB (it is held until proved; clients make them of 64 KiB to 1 MiB), 512 bytes a chunk header, 8 KiB of trailers.
//   Not here  the HTTP chunked coding around it (http/), checksums' values (store/).
//   Source    "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks", S3 API reference.
#pragma once

#include "crypto/crypto.h"
#include "signature.h"

namespace grenier::s3 {

class chunk_decoder {
 public:
  struct options {
    s3::payload payload = s3::payload::streaming_unsigned_trailer;  // REQUIRES: a streaming one
    bytes key;                                 // derived; of signed kinds
    std::string timestamp, scope, seed;        // seed: the request's own signature
    std::vector<std::string> trailers;         // promised by x-amz-trailer, lower case
    std::optional<std::uint64_t> decoded_size; // x-amz-decoded-content-length
  };
  explicit chunk_decoder(options);

  outcome<void> feed(bytes_view raw);
  // No more raw bytes will come: were they all?
  outcome<void> finish();
  // Decoded and proved bytes; take() what was used.
  bytes_view ready() const noexcept { return bytes_view(ready_).substr(taken_); }
  void take(std::size_t size_bytes);
  // The last chunk and the trailers were read and proved.
  bool done() const noexcept { return state_ == state::done; }
  std::uint64_t decoded() const noexcept { return decoded_; }
  const std::vector<std::pair<std::string, std::string>>& trailers() const noexcept { return trailers_; }

  static constexpr std::size_t signed_chunk_max = 2 << 20;

 private:
  enum class state : std::uint8_t { header, data, data_end, trailers, done, failed };
  bool is_signed() const noexcept { return o_.payload != payload::streaming_unsigned_trailer; }
  bool has_trailers() const noexcept { return o_.payload != payload::streaming_signed; }
  outcome<void> step(bytes_view& raw);
  // A whole line without its end in line_, or false when more is needed.
  outcome<bool> take_line(bytes_view& raw, std::size_t size_max);
  outcome<void> on_header();
  outcome<void> on_data(bytes_view& raw);
  outcome<void> on_chunk_end();
  outcome<void> on_trailer();
  outcome<void> on_end();
  outcome<void> prove(std::string_view what, std::string_view hashes, std::string_view signature);

  options o_;
  state state_ = state::header;
  std::string line_;
  std::string previous_;         // the signature before
  std::string signature_;        // of this chunk
  std::uint64_t left_ = 0;       // of this chunk's data
  std::uint64_t decoded_ = 0;
  std::size_t trailer_bytes_ = 0;
  bool last_ = false;
  bytes chunk_;                  // a signed chunk that is not proved yet
  crypto::hasher hash_{crypto::hash_kind::sha256};
  bytes ready_;
  std::size_t taken_ = 0;
  std::vector<std::pair<std::string, std::string>> trailers_;
  std::string trailer_signature_;
};

}  // namespace grenier::s3
