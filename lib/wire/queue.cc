#include "wire/queue.h"

namespace grenier::wire {

namespace {
constexpr std::size_t headers_capacity = 4096;
constexpr std::size_t header_room = 32;  // a frame header and the longest fixed part
constexpr std::size_t useful_min = 512;  // a shorter piece of a message waits for the next record
}  // namespace

void send_queue::push(std::unique_ptr<outgoing> m) {
  queued_bytes_ += m->size();
  level& l = levels_[static_cast<std::size_t>(m->priority)];
  if (m->size() <= small_max) {
    l.active.push_back(std::move(m));
  } else {
    l.waiting.push_back(std::move(m));
    activate(l);
  }
}

void send_queue::signal(frame_type type, std::uint32_t stream, std::uint64_t value) {
  frame f;
  f.type = type;
  f.stream = stream;
  signals_.emplace_back(f, value);
}

void send_queue::activate(level& l) {
  while (!l.waiting.empty() && (l.unfinished == 0 || l.unfinished + l.waiting.front()->size() <= unfinished_max)) {
    l.unfinished += l.waiting.front()->size();
    l.active.push_back(std::move(l.waiting.front()));
    l.waiting.pop_front();
  }
}

void send_queue::account_finished(level& l, const outgoing& m) {
  if (m.size() > small_max) l.unfinished -= m.size();
}

bool send_queue::erase(bool request, std::uint32_t stream) {
  auto is = [&](const std::unique_ptr<outgoing>& m) { return m->request == request && m->stream == stream; };
  for (level& l : levels_) {
    for (auto at = l.waiting.begin(); at != l.waiting.end(); ++at) {
      if (!is(*at)) continue;
      queued_bytes_ -= (*at)->size();
      l.waiting.erase(at);
      return true;
    }
    for (auto at = l.active.begin(); at != l.active.end(); ++at) {
      if (!is(*at)) continue;
      bool untouched = !(*at)->started;
      queued_bytes_ -= (*at)->size() - (*at)->done;
      account_finished(l, **at);
      l.active.erase(at);
      activate(l);
      return untouched;
    }
  }
  return false;
}

bool send_queue::empty() const noexcept {
  if (!signals_.empty()) return false;
  for (const level& l : levels_)
    if (!l.active.empty()) return false;
  return true;
}

std::size_t send_queue::count() const noexcept {
  std::size_t n = signals_.size();
  for (const level& l : levels_) n += l.active.size() + l.waiting.size();
  return n;
}

void send_queue::add_frame(level& l, std::size_t room) {
  auto m = std::move(l.active.front());
  l.active.pop_front();
  frame f;
  f.priority = m->priority;
  f.stream = m->stream;
  f.has_body = !m->started && m->content.body;
  if (m->started)
    f.type = m->request ? frame_type::request_data : frame_type::response_data;
  else
    f.type = m->request ? frame_type::request : frame_type::response;
  std::size_t fixed = m->started ? 0 : m->start.size();
  std::size_t head_size = m->content.head.size();
  std::size_t chunk = std::min(m->size() - m->done, room - frame_header_bytes - fixed);
  std::size_t at = headers_.size();
  append_frame_header(headers_, f, fixed + chunk);
  if (!m->started) headers_ += m->start;
  record_.pieces.push_back(bytes_view(headers_).substr(at));
  std::size_t left = chunk;
  if (left && m->done < head_size) {
    std::size_t n = std::min(left, head_size - m->done);
    record_.pieces.push_back(bytes_view(m->content.head).substr(m->done, n));
    m->done += n;
    left -= n;
  }
  if (left) {
    record_.pieces.push_back(bytes_view(*m->content.body).substr(m->done - head_size, left));
    m->done += left;
  }
  m->started = true;
  record_.size_bytes += frame_header_bytes + fixed + chunk;
  queued_bytes_ -= chunk;
  if (m->done < m->size()) {
    l.active.push_back(std::move(m));
    return;
  }
  if (m->request) record_.requests_finished.push_back(m->stream);
  account_finished(l, *m);
  finished_.push_back(std::move(m));
  activate(l);
}

const send_queue::record& send_queue::next(std::size_t plaintext_max) {
  release();
  headers_.reserve(headers_capacity);
  auto room = [&] { return plaintext_max - std::min(plaintext_max, record_.size_bytes); };
  auto headers_left = [&] { return headers_.size() + header_room <= headers_capacity; };
  while (!signals_.empty() && room() >= header_room && headers_left()) {
    auto [f, value] = signals_.front();
    signals_.pop_front();
    bool has_value = f.type == frame_type::ping || f.type == frame_type::pong;
    std::size_t at = headers_.size();
    append_frame_header(headers_, f, has_value ? 8 : 0);
    if (has_value) append_u64(headers_, value);
    record_.pieces.push_back(bytes_view(headers_).substr(at));
    record_.size_bytes += headers_.size() - at;
  }
  for (level& l : levels_) {
    while (!l.active.empty() && headers_left()) {
      const outgoing& m = *l.active.front();
      std::size_t need = header_room + std::min(m.size() - m.done, useful_min);
      if (room() < need) return record_;
      add_frame(l, std::min<std::size_t>(room(), 0xffff));
    }
    if (!l.active.empty()) return record_;
  }
  return record_;
}

void send_queue::release() {
  record_.pieces.clear();
  record_.requests_finished.clear();
  record_.size_bytes = 0;
  headers_.clear();
  finished_.clear();
}

}  // namespace grenier::wire
