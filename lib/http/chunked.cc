#include "http/chunked.h"

namespace grenier::http {

namespace {
constexpr std::size_t extra_max = 4096;
int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = static_cast<char>(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
}  // namespace

result<chunked_decoder::step> chunked_decoder::feed(bytes_view input) {
  auto wrong = [](const char* what) { return fail(errc::protocol, std::string("chunked body: ") + what); };
  for (std::size_t at = 0; at < input.size();) {
    char c = input[at];
    switch (state_) {
      case state::size:
        if (int d = digit(c); d >= 0) {
          if (++digits_ > 16) return wrong("a chunk size of more than 16 digits");
          left_ = left_ << 4 | static_cast<unsigned>(d);
        } else if (digits_ == 0) {
          return wrong("no chunk size");
        } else if (c == ';' || c == ' ' || c == '\t') {
          state_ = state::extension;
        } else if (c == '\r') {
          state_ = state::size_lf;
        } else {
          return wrong("a chunk size that is no hexadecimal number");
        }
        ++at;
        break;
      case state::extension:
        if (++extra_ > extra_max) return wrong("too many extensions");
        if (c == '\n') return wrong("a bare line feed");
        if (c == '\r') state_ = state::size_lf;
        ++at;
        break;
      case state::size_lf:
        if (c != '\n') return wrong("a bare carriage return");
        if (left_ > (1ull << 62)) return wrong("a chunk size beyond all bounds");
        digits_ = 0;
        state_ = left_ ? state::data : state::trailer_start;
        ++at;
        break;
      case state::data: {
        auto n = static_cast<std::size_t>(std::min<std::uint64_t>(left_, input.size() - at));
        left_ -= n;
        if (!left_) state_ = state::data_cr;
        return step{at + n, input.substr(at, n)};
      }
      case state::data_cr:
        if (c != '\r') return wrong("a chunk longer than its size");
        state_ = state::data_lf;
        ++at;
        break;
      case state::data_lf:
        if (c != '\n') return wrong("a bare carriage return");
        state_ = state::size;
        ++at;
        break;
      case state::trailer_start:
        state_ = c == '\r' ? state::end_lf : state::trailer;
        if (c == '\n') return wrong("a bare line feed");
        ++extra_;
        ++at;
        break;
      case state::trailer:
        if (++extra_ > extra_max) return wrong("too many trailers");
        if (c == '\n') return wrong("a bare line feed");
        if (c == '\r') state_ = state::trailer_lf;
        ++at;
        break;
      case state::trailer_lf:
        if (c != '\n') return wrong("a bare carriage return");
        state_ = state::trailer_start;
        ++at;
        break;
      case state::end_lf:
        if (c != '\n') return wrong("a bare carriage return");
        state_ = state::done;
        return step{at + 1, {}};
      case state::done:
        return step{at, {}};
    }
  }
  return step{input.size(), {}};
}

}  // namespace grenier::http
