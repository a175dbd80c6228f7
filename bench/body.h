// bench/body.h: object bodies that do not compress, that differ in every kilobyte from all others, and that prove themselves.
//
// A body is noise, and its last eight bytes are a hash of the rest with the key's name: whoever reads it can tell that it is whole
// and that it is this object's, without having kept it.
#pragma once

#include "base/base.h"

namespace grenier::bench {

// REQUIRES: at least 16 bytes. The same seed gives the same body.
void fill_body(bytes& to, std::size_t size_bytes, std::string_view key, std::uint64_t seed);
bool is_body_of(bytes_view body, std::string_view key) noexcept;

}  // namespace grenier::bench
