// picture/frames.h: what the pool and its child say to each other, as bytes; and how the child's answers are distrusted.
//
// Down: one request (a line of sizes), the picture's bytes as they are, then one byte of consent once the child has said what it needs.
// Up: frames of a kind (1 byte), a length (4 bytes) and content: hello once; then for each picture either `refused`, or `plan`, and after
// consent `facts`, the renditions, `done`; or `refused` instead of any of them.
//
//   Runs on   both sides; machines without I/O.
//   Errors    protocol: the child said what no honest one says. It is ended then, whatever else it says.
//   Limits    64 MiB of answers a picture; 16 MiB a rendition; texts as in picture.h.
#pragma once

#include "picture/answers.h"

namespace grenier::picture {

inline constexpr std::size_t text_size_max = 128;
inline constexpr char consent_go = 'g';
inline constexpr char protocol_version = 1;

struct request {
  options what;
  std::uint64_t file_size = 0;
};

bytes encode(const request&);
inline constexpr std::size_t request_size_bytes = 64;  // every request has this size
result<request> decode_request(bytes_view);

enum class frame_kind : std::uint8_t { hello = 1, plan, facts, rendition, done, refused };

struct plan {
  file_format format = file_format::none;
  std::uint32_t width = 0, height = 0;  // as stored
  std::uint64_t memory_bytes = 0;       // beside the compressed bytes
};

// The child's side.
bytes encode_hello();
bytes encode(const plan&);
bytes encode(const facts&);
bytes encode(const rendition&);  // with its bytes
bytes encode_done();
bytes encode_refused(verdict, std::string_view reason);

// The pool's side: bytes in, at any boundaries; what they mean out. One for each child.
class reply_reader {
 public:
  static constexpr std::size_t rendition_size_max = 16 * 1024 * 1024;
  static constexpr std::size_t answer_size_max = 64 * 1024 * 1024;

  // A new picture was sent: its answer is checked against what was asked.
  void expect(options asked);
  void consented() { consented_ = true; }
  // Takes all of it, or fails for good.
  result<void> feed(bytes_view);
  bool greeted() const noexcept { return greeted_; }
  // The child's plan waits for consent.
  const std::optional<picture::plan>& plan() const noexcept { return plan_; }
  bool finished() const noexcept { return finished_; }
  // REQUIRES: finished().
  rendered take() { return std::move(answer_); }

 private:
  result<void> take_frame(frame_kind, bytes_view);
  result<void> take_rendition(bytes_view);
  options asked_;
  bytes pending_;
  rendered answer_;
  std::optional<picture::plan> plan_;
  std::size_t answer_bytes_ = 0;
  bool greeted_ = false, expecting_ = false, consented_ = false, finished_ = false, have_facts_ = false;
};

// Valid UTF-8 without control characters, so that it may be logged and shown.
bool is_clean_text(std::string_view) noexcept;
// "2024-07-14T10:11:12", a day of some year from 1800 on.
bool is_civil_time(std::string_view) noexcept;

// True when it is one picture of this type and size, whole, and holds nothing beside it: no metadata, nothing after its end.
bool is_bare(image_type, std::uint32_t width, std::uint32_t height, bytes_view) noexcept;

}  // namespace grenier::picture
