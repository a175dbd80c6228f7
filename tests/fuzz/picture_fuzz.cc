// Answers of a picture's decoder that somebody else has taken over: whatever it says, what is believed is bounded and clean.
//
// Input: pieces of a kind and content. kind 0: bytes as they are; 1..6: a frame of that kind with the content; 7: consent; 8: the next
// picture; 9: a whole rendition's file, looked at alone.
#include <algorithm>

#include "input.h"
#include "picture/frames.h"

using namespace grenier;
using namespace grenier::picture;

namespace {

void check(const rendered& r) {
  ASSERT(r.reason.size() <= 400 && is_clean_text(r.reason));
  if (r.what != verdict::picture) {
    ASSERT(r.renditions.empty());
    return;
  }
  const facts& f = r.facts;
  ASSERT(f.width > 0 && f.height > 0 && f.orientation >= 1 && f.orientation <= 8);
  ASSERT(is_clean_text(f.make) && is_clean_text(f.model) && is_clean_text(f.lens) && f.thumbhash.size() <= 25);
  ASSERT(f.taken.empty() || is_civil_time(f.taken));
  ASSERT(f.latitude.has_value() == f.longitude.has_value());
  ASSERT(r.renditions.size() <= 8);
  for (const auto& n : r.renditions) ASSERT(n.width <= n.size && n.height <= n.size && is_bare(n.type, n.width, n.height, *n.data));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  reply_reader reader;
  reader.expect({});
  for (int i = 0; i < 64 && !in.empty(); ++i) {
    const auto kind = in.byte() % 10;
    bytes content(in.piece());
    bytes said;
    if (kind == 0) said = content;
    if (kind >= 1 && kind <= 6) {
      said.push_back(static_cast<char>(kind));
      append_u32(said, static_cast<std::uint32_t>(content.size()));
      said += content;
    }
    if (kind == 7 && reader.plan()) reader.consented();
    if (kind == 8) reader.expect({});
    if (kind == 9) {
      (void)sniff(content);
      (void)decode_request(content);
      for (auto t : {image_type::webp, image_type::jpeg})
        if (is_bare(t, 16, 16, content)) ASSERT(content.size() >= 20);
      continue;
    }
    if (!reader.feed(said)) break;
    if (reader.finished()) {
      check(reader.take());
      reader.expect({});
    }
  }
  return 0;
}
