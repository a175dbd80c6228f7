#include "chunked.h"

#include <algorithm>
#include <charconv>

namespace grenier::s3 {

namespace {

constexpr std::size_t header_max = 512, trailers_max = 8 << 10;
constexpr std::string_view signature_tag = ";chunk-signature=";

std::string hex_sha256(bytes_view b) { return to_hex(crypto::digest(crypto::hash_kind::sha256, b)); }

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
  return s;
}

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

}  // namespace

chunk_decoder::chunk_decoder(options o) : o_(std::move(o)), previous_(o_.seed) { ASSERT(is_streaming(o_.payload)); }

void chunk_decoder::take(std::size_t n) {
  taken_ += n;
  ASSERT(taken_ <= ready_.size());
  if (taken_ == ready_.size()) {
    ready_.clear();
    taken_ = 0;
  }
}

outcome<void> chunk_decoder::feed(bytes_view raw) {
  while (!raw.empty()) {
    if (auto r = step(raw); !r) {
      state_ = state::failed;
      return r;
    }
  }
  return {};
}

outcome<void> chunk_decoder::step(bytes_view& raw) {
  switch (state_) {
    case state::header: {
      S3_TRY(bool whole, take_line(raw, header_max));
      return whole ? on_header() : outcome<void>();
    }
    case state::data: return on_data(raw);
    case state::data_end: {
      S3_TRY(bool whole, take_line(raw, 2));
      if (!whole) return {};
      if (!line_.empty()) return refuse(code::invalid_request, "A chunk is longer than its size says.");
      state_ = state::header;
      return {};
    }
    case state::trailers: {
      S3_TRY(bool whole, take_line(raw, trailers_max));
      return whole ? on_trailer() : outcome<void>();
    }
    case state::done: return refuse(code::invalid_request, "There are bytes after the last chunk.");
    case state::failed: break;
  }
  return refuse(code::invalid_request, "The body cannot be read.");
}

outcome<bool> chunk_decoder::take_line(bytes_view& raw, std::size_t size_max) {
  auto end = raw.find('\n');
  auto piece = raw.substr(0, end == raw.npos ? raw.npos : end + 1);
  if (line_.size() + piece.size() > size_max) return refuse(code::invalid_request, "A line of the chunked body is too long.");
  line_ += piece;
  raw.remove_prefix(piece.size());
  if (end == raw.npos && line_.back() != '\n') return false;
  line_.pop_back();
  if (!line_.empty() && line_.back() == '\r') line_.pop_back();
  return true;
}

outcome<void> chunk_decoder::on_header() {
  std::string line = std::exchange(line_, {});
  auto semicolon = line.find(';');
  std::string_view digits = trim(std::string_view(line).substr(0, semicolon));
  auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), left_, 16);
  if (digits.empty() || digits.size() > 16 || ec != std::errc() || end != digits.data() + digits.size())
    return refuse(code::invalid_request, "The size of a chunk cannot be read.");
  if (is_signed()) {
    auto at = line.find(signature_tag);
    if (at == line.npos) return refuse(code::signature_does_not_match, "A chunk is not signed.");
    signature_ = line.substr(at + signature_tag.size(), 64);
    if (left_ > signed_chunk_max) return refuse(code::entity_too_large, "A signed chunk is larger than 2 MiB.");
    hash_ = crypto::hasher(crypto::hash_kind::sha256);
  }
  if (left_ > ~decoded_ || (o_.decoded_size && decoded_ + left_ > *o_.decoded_size))
    return refuse(code::incomplete_body, "The body is longer than x-amz-decoded-content-length says.");
  last_ = left_ == 0;
  if (last_) return on_chunk_end();
  state_ = state::data;
  return {};
}

outcome<void> chunk_decoder::on_data(bytes_view& raw) {
  auto n = static_cast<std::size_t>(std::min<std::uint64_t>(left_, raw.size()));
  bytes_view piece = raw.substr(0, n);
  raw.remove_prefix(n);
  left_ -= n;
  decoded_ += n;
  if (is_signed()) {
    hash_.update(piece);
    chunk_ += piece;
  } else {
    ready_ += piece;
  }
  return left_ == 0 ? on_chunk_end() : outcome<void>();
}

outcome<void> chunk_decoder::prove(std::string_view what, std::string_view hashes, std::string_view signature) {
  std::string to_sign(what);
  (((((to_sign += '\n') += o_.timestamp) += '\n') += o_.scope) += '\n') += previous_;
  (to_sign += '\n') += hashes;
  std::string right = to_hex(crypto::hmac_sha256(o_.key, to_sign));
  if (!crypto::equal_constant_time(right, signature)) return refuse(code::signature_does_not_match, "The signature of a chunk is wrong.");
  previous_ = std::move(right);
  return {};
}

outcome<void> chunk_decoder::on_chunk_end() {
  if (is_signed()) {
    std::string hashes = hex_sha256({});
    (hashes += '\n') += to_hex(hash_.finish());
    S3_TRY_VOID(prove("AWS4-HMAC-SHA256-PAYLOAD", hashes, signature_));
    if (ready_.empty()) {
      ready_ = std::move(chunk_);
      chunk_ = {};
    } else {
      ready_ += chunk_;
      chunk_.clear();
    }
  }
  state_ = last_ ? state::trailers : state::data_end;
  return {};
}

outcome<void> chunk_decoder::on_trailer() {
  std::string line = std::exchange(line_, {});
  if (line.empty()) {
    // A blank line is the end; or it stands between the trailers and their signature.
    bool more = o_.payload == payload::streaming_signed_trailer && trailer_signature_.empty();
    if (more && ++trailer_bytes_ > trailers_max) return refuse(code::malformed_trailer);
    return more ? outcome<void>() : on_end();
  }
  if (!has_trailers()) return refuse(code::invalid_request, "There are bytes after the last chunk.");
  trailer_bytes_ += line.size();
  auto colon = line.find(':');
  if (colon == line.npos || colon == 0 || trailer_bytes_ > trailers_max) return refuse(code::malformed_trailer);
  std::string name = lower(trim(std::string_view(line).substr(0, colon)));
  std::string value(trim(std::string_view(line).substr(colon + 1)));
  if (name == "x-amz-trailer-signature") {
    trailer_signature_ = value;
    return {};
  }
  if (!trailer_signature_.empty()) return refuse(code::malformed_trailer, "There is a trailer after the trailers' signature.");
  if (std::ranges::find(o_.trailers, name) == o_.trailers.end())
    return refuse(code::malformed_trailer, "The trailer " + name + " was not announced.");
  trailers_.emplace_back(std::move(name), std::move(value));
  return {};
}

outcome<void> chunk_decoder::on_end() {
  if (o_.payload == payload::streaming_signed_trailer) {
    std::string all;
    for (const auto& [n, v] : trailers_) (((all += n) += ':') += v) += '\n';
    S3_TRY_VOID(prove("AWS4-HMAC-SHA256-TRAILER", hex_sha256(all), trailer_signature_));
  }
  for (const std::string& promised : o_.trailers)
    if (std::ranges::count(trailers_, promised, [](const auto& t) -> const std::string& { return t.first; }) != 1)
      return refuse(code::malformed_trailer, "The trailer " + promised + " was announced and did not come.");
  if (o_.decoded_size && decoded_ != *o_.decoded_size) return refuse(code::incomplete_body);
  state_ = state::done;
  return {};
}

outcome<void> chunk_decoder::finish() {
  if (state_ == state::done) return {};
  if (state_ == state::trailers) {
    // The last line's end, or the blank line after it, may be missing: the last chunk has come.
    if (!trim(line_).empty()) S3_TRY_VOID(on_trailer());
    if (state_ != state::done) S3_TRY_VOID(on_end());
    return {};
  }
  state_ = state::failed;
  return refuse(code::incomplete_body);
}

}  // namespace grenier::s3
