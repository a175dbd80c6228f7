#include "wire/frame.h"

namespace grenier::wire {

namespace {
constexpr std::uint8_t body_flag = 0x80;
constexpr std::size_t request_start_bytes = 14;
constexpr std::size_t response_start_bytes = 10;

std::uint32_t size32(std::size_t n) { return static_cast<std::uint32_t>(n); }
}  // namespace

void append_frame_header(bytes& to, const frame& f, std::size_t payload_size) {
  ASSERT(payload_size <= 0xffff);
  to.push_back(static_cast<char>(f.type));
  to.push_back(static_cast<char>(static_cast<std::uint8_t>(f.priority) | (f.has_body ? body_flag : 0)));
  append_u16(to, static_cast<std::uint16_t>(payload_size));
  append_u32(to, f.stream);
}

result<frame> take_frame(bytes_view& plaintext) {
  if (plaintext.size() < frame_header_bytes) return fail(errc::protocol, "a frame without a whole header");
  auto type = static_cast<std::uint8_t>(plaintext[0]);
  auto flags = static_cast<std::uint8_t>(plaintext[1]);
  std::size_t size = read_u16(plaintext.substr(2));
  if (type < static_cast<std::uint8_t>(frame_type::request) || type > static_cast<std::uint8_t>(frame_type::goodbye))
    return fail(errc::protocol, "a frame of an unknown type");
  if (flags & ~(body_flag | 3)) return fail(errc::protocol, "a frame with unknown flags");
  if (plaintext.size() - frame_header_bytes < size) return fail(errc::protocol, "a frame longer than its record");
  frame f;
  f.type = static_cast<frame_type>(type);
  f.priority = static_cast<wire::priority>(flags & 3);
  f.has_body = flags & body_flag;
  f.stream = read_u32(plaintext.substr(4));
  f.payload = plaintext.substr(frame_header_bytes, size);
  plaintext.remove_prefix(frame_header_bytes + size);
  return f;
}

result<std::optional<bytes_view>> find_record(bytes_view received) {
  if (received.size() < record_prefix_bytes) return std::nullopt;
  std::size_t size = read_u32(received);
  if (size < crypto::seal_overhead_bytes + frame_header_bytes || size > record_max_bytes + crypto::seal_overhead_bytes)
    return fail(errc::protocol, "a record of an impossible length");
  if (received.size() - record_prefix_bytes < size) return std::nullopt;
  return received.substr(record_prefix_bytes, size);
}

bytes encode_request_start(std::uint16_t method, std::uint32_t deadline_ms, const message& m) {
  bytes b;
  append_u16(b, method);
  append_u32(b, deadline_ms);
  append_u32(b, size32(m.head.size()));
  append_u32(b, size32(m.body ? m.body->size() : 0));
  return b;
}

bytes encode_response_start(std::uint16_t code, const message& m) {
  bytes b;
  append_u16(b, code);
  append_u32(b, size32(m.head.size()));
  append_u32(b, size32(m.body ? m.body->size() : 0));
  return b;
}

static result<void> check_sizes(const frame& f, std::uint64_t head, std::uint64_t body, std::size_t data) {
  if (head + body > message_max_bytes) return fail(errc::protocol, "a message beyond 16 MiB");
  if (body && !f.has_body) return fail(errc::protocol, "a body where none was announced");
  if (data > head + body) return fail(errc::protocol, "more bytes than the message has");
  return {};
}

result<request_start> parse_request_start(const frame& f) {
  if (f.payload.size() < request_start_bytes) return fail(errc::protocol, "a request cut short");
  request_start s;
  s.method = read_u16(f.payload);
  s.deadline_ms = std::min(read_u32(f.payload.substr(2)), deadline_max_ms);
  s.head_size = read_u32(f.payload.substr(6));
  s.body_size = read_u32(f.payload.substr(10));
  s.data = f.payload.substr(request_start_bytes);
  TRY_VOID(check_sizes(f, s.head_size, s.body_size, s.data.size()));
  return s;
}

result<response_start> parse_response_start(const frame& f) {
  if (f.payload.size() < response_start_bytes) return fail(errc::protocol, "a response cut short");
  response_start s;
  s.code = read_u16(f.payload);
  s.head_size = read_u32(f.payload.substr(2));
  s.body_size = read_u32(f.payload.substr(6));
  s.data = f.payload.substr(response_start_bytes);
  TRY_VOID(check_sizes(f, s.head_size, s.body_size, s.data.size()));
  if (s.code && (s.body_size || s.head_size > detail_max_bytes)) return fail(errc::protocol, "an error with too much detail");
  return s;
}

bool assembler::feed(partial& p, bytes_view data) {
  std::size_t to_head = std::min<std::size_t>(data.size(), p.head_size - p.what.content.head.size());
  p.what.content.head.append(data.substr(0, to_head));
  data.remove_prefix(to_head);
  if (data.empty()) return true;
  if (!p.body || data.size() > p.body_size - p.body->size()) return false;
  p.body->append(data);
  return true;
}

std::size_t assembler::cost(const partial& p) { return std::max<std::size_t>(std::size_t{p.head_size} + p.body_size, pending_bytes_min); }

bool assembler::complete(const partial& p) {
  return p.what.content.head.size() == p.head_size && (!p.body || p.body->size() == p.body_size);
}

assembled assembler::finish(partial&& p) {
  p.what.content.body = std::move(p.body);
  return std::move(p.what);
}

result<std::optional<assembled>> assembler::begin(partial p, bytes_view data) {
  key k{p.what.request, p.what.stream};
  if (partial_.contains(k)) return fail(errc::protocol, "a stream started twice");
  if (pending_bytes_ + cost(p) > assembly_max_bytes) return fail(errc::protocol, "too many unfinished messages");
  p.what.content.head.reserve(p.head_size);
  if (p.body) p.body->reserve(p.body_size);
  if (!feed(p, data)) return fail(errc::protocol, "more bytes than the message has");
  if (complete(p)) return std::optional(finish(std::move(p)));
  pending_bytes_ += cost(p);
  partial_.emplace(k, std::move(p));
  return std::nullopt;
}

result<std::optional<assembled>> assembler::start(const frame& f, const request_start& s) {
  partial p;
  p.what.request = true;
  p.what.stream = f.stream;
  p.what.priority = f.priority;
  p.what.number = s.method;
  p.what.deadline_ms = s.deadline_ms;
  p.head_size = s.head_size;
  p.body_size = s.body_size;
  if (f.has_body) p.body = std::make_shared<bytes>();
  return begin(std::move(p), s.data);
}

result<std::optional<assembled>> assembler::start(const frame& f, const response_start& s) {
  partial p;
  p.what.stream = f.stream;
  p.what.priority = f.priority;
  p.what.number = s.code;
  p.head_size = s.head_size;
  p.body_size = s.body_size;
  if (f.has_body) p.body = std::make_shared<bytes>();
  return begin(std::move(p), s.data);
}

result<std::optional<assembled>> assembler::more(const frame& f) {
  auto at = partial_.find({f.type == frame_type::request_data, f.stream});
  if (at == partial_.end()) return std::nullopt;
  if (!feed(at->second, f.payload)) return fail(errc::protocol, "more bytes than the message has");
  if (!complete(at->second)) return std::nullopt;
  pending_bytes_ -= cost(at->second);
  auto whole = finish(std::move(at->second));
  partial_.erase(at);
  return std::optional(std::move(whole));
}

void assembler::drop(bool request, std::uint32_t stream) {
  auto at = partial_.find({request, stream});
  if (at == partial_.end()) return;
  pending_bytes_ -= cost(at->second);
  partial_.erase(at);
}

}  // namespace grenier::wire
