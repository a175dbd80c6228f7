// A peer whose handshake was good and whose frames are not: records sealed as they should be with anything inside, or not even sealed.
// Calls of this side are under way meanwhile, so that answers find somebody.
//
// Input: chunks of a kind, a length (2 bytes) and content. kind 0..239: the plaintext of a record; 240..249: bytes as they are; 250: a
// second passes; else a call of this side.
#include "input.h"
#include "machine.h"
#include "wire/connection.h"

using namespace grenier;
using namespace grenier::wire;

namespace {

class scripted final : public byte_stream {
 public:
  explicit scripted(runtime& rt) : rt_(rt), more_(rt) {}
  void say(bytes b) {
    said_ += b;
    more_.wake_all();
  }
  void end() {
    ended_ = true;
    more_.wake_all();
  }
  task<result<std::size_t>> read_some(std::span<char> to) override {
    while (said_.empty() && !ended_ && !closed_) co_await more_.wait();
    if (closed_) co_return fail(errc::cancelled);
    const std::size_t n = std::min(to.size(), said_.size());
    ASSERT(n > 0 || said_.empty());
    std::memcpy(to.data(), said_.data(), n);
    said_.erase(0, n);
    co_return n;
  }
  task<result<void>> write(std::span<const bytes_view>) override {
    co_await sleep_for(rt_, 1ms);
    if (closed_) co_return fail(errc::cancelled);
    co_return result<void>();
  }
  void close() override {
    closed_ = true;
    more_.wake_all();
  }
  std::size_t unsent() const override { return 0; }
  std::string peer() const override { return "10.0.0.1:1"; }

 private:
  runtime& rt_;
  wait_list more_;
  bytes said_;
  bool ended_ = false, closed_ = false;
};

struct program {
  explicit program(sim::machine& m_)
      : m(m_), shared{m_.rt(), task_group(m_.rt()), {}, rate_limit(0), rate_limit(0)}, stream(std::make_shared<scripted>(m_.rt())) {
    shared.handlers[method::ping] = [](caller, message q) { return echo(std::move(q)); };
    shared.handlers[method::table_read] = [this](caller, message q) { return slow(this, std::move(q)); };
    shared.handlers[method::table_accept] = [](caller, message) { return refuses(); };
    session s;
    s.peer.data()[0] = 9;
    s.cipher = crypto::cipher::chacha20_poly1305;
    s.send_key = bytes(32, 's');
    s.receive_key = bytes(32, 'r');
    s.initiator = true;
    line = std::make_shared<connection>(shared, stream, std::move(s), 1, std::make_shared<line_statistics>());
    line->start([](connection&) {});
  }
  static task<result<message>> echo(message q) { co_return q; }
  static task<result<message>> slow(program* p, message q) {
    co_await sleep_for(p->m.rt(), 2s);
    co_return q;
  }
  static task<result<message>> refuses() { co_return fail(errc::unavailable, "no"); }
  static task<void> call(program* p, bytes content, wire::priority at) {
    call_options o{at, p->m.rt().now() + 20s};
    auto permit = co_await connection::admit(p->line, content.size(), o);
    if (permit && p->line->takes_calls()) (void)co_await connection::exchange(p->line, std::move(permit), method::ping, {std::move(content), nullptr}, o);
  }

  sim::machine& m;
  shared_services shared;
  std::shared_ptr<scripted> stream;
  std::shared_ptr<connection> line;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // What reads have in hand without the key.
  for (bytes_view rest(reinterpret_cast<const char*>(data), size); !rest.empty();) {
    auto f = take_frame(rest);
    if (!f) break;
    (void)parse_request_start(*f);
    (void)parse_response_start(*f);
  }
  crypto::init();
  fuzz::alone here;
  auto& p = here.start<program>();
  crypto::sealer seals(crypto::cipher::chacha20_poly1305, bytes(32, 'r'));
  fuzz::input in(data, size);
  for (int n = 0; n < 64 && !in.empty(); ++n) {
    const auto kind = in.byte();
    bytes content(in.piece());
    if (kind < 240) {
      bytes record;
      append_u32(record, static_cast<std::uint32_t>(content.size() + crypto::seal_overhead_bytes));
      bytes_view pieces[] = {content};
      seals.seal(pieces, bytes(record), record);
      p.stream->say(std::move(record));
      here.w().run_for(1ms);
    } else if (kind < 250) {
      p.stream->say(std::move(content));
    } else if (kind == 250) {
      here.w().run_for(1s);
    } else {
      here.m().root().spawn("call", program::call(&p, std::move(content), static_cast<wire::priority>(kind % 4)));
      here.w().run_for(2ms);
    }
  }
  here.w().run_for(3s);
  p.stream->end();
  here.w().run_for(30s);
  // However it ended: nothing of it is left waiting.
  ASSERT(p.line->closed());
  ASSERT(p.shared.group.size() == 0 && here.m().root().size() == 0);
  return 0;
}
