// http/chunked.h: the chunked transfer coding, without I/O: bytes in, body bytes out. Strict: a bare LF, an empty or overlong size,
// more than 16 hex digits or 4 KiB of extensions and trailers is an error. Source: RFC 9112, section 7.1.
#pragma once

#include "base/base.h"

namespace grenier::http {

class chunked_decoder {
 public:
  struct step {
    std::size_t consumed = 0;   // of the input
    bytes_view body;            // inside the input; valid as long as it is
  };
  // Takes bytes until it has a run of body bytes, the end, or needs more input. protocol on anything malformed.
  result<step> feed(bytes_view input);
  bool done() const noexcept { return state_ == state::done; }

 private:
  enum class state { size, extension, size_lf, data, data_cr, data_lf, trailer_start, trailer, trailer_lf, end_lf, done } state_ = state::size;
  std::uint64_t left_ = 0;
  unsigned digits_ = 0;
  std::size_t extra_ = 0;
};

}  // namespace grenier::http
