// grenier-picture: reads pictures on its standard input, writes what they are and renditions of them on its standard output, and can do
// nothing else. The daemon starts it; it is of no use by hand.
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>


#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "picture/decode.h"
#include "picture/sandbox.h"
#ifdef GRENIER_PICTURE_TRESPASSES
#include "picture/trespass.h"
#endif

namespace grenier::picture {

namespace {

constexpr int exit_usage = 2, exit_no_sandbox = 3, exit_memory = 4;
constexpr int webp_quality = 78, jpeg_quality = 80;
constexpr std::uint32_t facts_edge = 128;  // what a thumbhash needs
// Of the address space that it has: pixels and compressed bytes together.
constexpr std::uint64_t memory_max = std::uint64_t{560} << 20;

void say(bytes_view b) {
  while (!b.empty()) {
    const auto n = ::write(1, b.data(), b.size());
    if (n <= 0) ::_exit(0);  // nobody listens
    b.remove_prefix(static_cast<std::size_t>(n));
  }
}

// All of it, or the end of this process when the other side has gone.
void hear(char* to, std::size_t size) {
  while (size > 0) {
    const auto n = ::read(0, to, size);
    if (n <= 0) ::_exit(0);
    to += n;
    size -= static_cast<std::size_t>(n);
  }
}

// A picture's file, given back to the system as soon as its pixels are there.
class file_bytes {
 public:
  explicit file_bytes(std::size_t size) : size_(size) {
    void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) ::_exit(exit_memory);
    data_ = static_cast<char*>(p);
  }
  file_bytes(const file_bytes&) = delete;
  ~file_bytes() { release(); }
  void release() {
    if (auto* p = std::exchange(data_, nullptr)) ::munmap(p, size_);
  }
  char* data() { return data_; }
  bytes_view view() const { return {data_, size_}; }

 private:
  char* data_ = nullptr;
  std::size_t size_;
};

// Those below the picture's own size and the first that reaches it, from the largest to the smallest.
std::vector<wanted> sizes_to_make(std::vector<wanted> asked, std::uint32_t longer) {
  std::sort(asked.begin(), asked.end(), [](const wanted& a, const wanted& b) { return a.size < b.size; });
  auto end = std::find_if(asked.begin(), asked.end(), [&](const wanted& w) { return w.size >= longer; });
  if (end != asked.end()) asked.erase(end + 1, asked.end());
  std::reverse(asked.begin(), asked.end());
  return asked;
}

void say_rendition(const wanted& w, const image& i, image_type type, const std::string& data) {
  say(encode(rendition{w.size, type, static_cast<std::uint16_t>(i.width), static_cast<std::uint16_t>(i.height), share(data)}));
}

result<void> render(file_bytes& file, const plan& p, const request& q) {
  const auto sizes = sizes_to_make(q.what.sizes, std::max(p.width, p.height));
  TRY(decoded d, decode(file.view(), sizes.empty() ? facts_edge : std::max<std::uint32_t>(sizes.front().size, facts_edge)));
  file.release();
  to_srgb(d.pixels, d.icc, d.colours);
  if (d.pixels.alpha) {
    d.pixels.alpha = false;
    for (std::size_t i = 3; i < d.pixels.pixels.size() && !d.pixels.alpha; i += 4) d.pixels.alpha = d.pixels.pixels[i] != 255;
  }
  extent full = d.full;
  image now = std::move(d.pixels);
  if (d.turn && d.told.orientation > 1) {
    now = upright(std::move(now), d.told.orientation);
    if (d.told.orientation >= 5) std::swap(full.width, full.height);
  }
  d.told.width = full.width;
  d.told.height = full.height;
  d.told.thumbhash = thumbhash(now);
  say(encode(d.told));
  for (const wanted& w : sizes) {
    const extent to = fit(full, w.size);
    if (to.width < now.width || to.height < now.height) now = shrink(now, {std::min(to.width, now.width), std::min(to.height, now.height)});
    if (w.webp) say_rendition(w, now, image_type::webp, encode_webp(now, webp_quality));
    if (w.jpeg) say_rendition(w, now, image_type::jpeg, encode_jpeg(now, jpeg_quality));
  }
  say(encode_done());
  return {};
}

void refuse(const error& e) { say(encode_refused(verdict::undecodable, clean(e.detail))); }

void serve(const request& q) {
  file_bytes file(q.file_size);
  hear(file.data(), q.file_size);
#ifdef GRENIER_PICTURE_TRESPASSES
  trespass(file.view());
#endif
  if (sniff(file.view()) == file_format::none) return say(encode_refused(verdict::not_a_picture, ""));
  auto p = make_plan(file.view(), q.what.pixels_max);
  if (!p) return refuse(p.error());
  // What is kept of the result, and what the encoders need for it.
  std::uint32_t largest = facts_edge;
  for (const auto& w : q.what.sizes) largest = std::max<std::uint32_t>(largest, w.size);
  const extent kept = fit({p->width, p->height}, largest);
  p->memory_bytes += std::uint64_t{kept.width} * kept.height * 16 + (1 << 20);
  if (p->memory_bytes + q.file_size > memory_max)
    return refuse({errc::invalid_argument, "decoding it takes " + format_size(p->memory_bytes + q.file_size) + " of memory, more than it is given"});
  say(encode(*p));
  char consent = 0;
  hear(&consent, 1);
  if (consent != consent_go) ::_exit(0);
  if (auto r = render(file, *p, q); !r) refuse(r.error());
}

int run() {
  be_humble();
  if (::getppid() == 1) return 0;  // who started it is gone already
  // One heap; what is large goes back to the system with its picture.
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_MMAP_THRESHOLD, 256 * 1024);
  ::mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
  try {
    warm_up();
    if (std::string e = enter_sandbox(); !e.empty()) {
      std::fprintf(stderr, "grenier-picture: it cannot lock itself in: %s\n", e.c_str());
      return exit_no_sandbox;
    }
    say(encode_hello());
    for (char raw[request_size_bytes];;) {
      hear(raw, sizeof raw);
      auto q = decode_request({raw, sizeof raw});
      if (!q) return exit_usage;
      serve(*q);
    }
  } catch (const std::bad_alloc&) {
    return exit_memory;
  }
}

}  // namespace

}  // namespace grenier::picture

int main() {
  const int code = grenier::picture::run();
  ::_exit(code);
}
