// picture/picture.h: what a picture says of itself, and small versions of it, made by a child that can do nothing else.
//
// Every byte of a picture is hostile until it was decoded, and so is the program that decoded it. So it is read by grenier-picture, a
// child without files, network, other programs or much memory (picture/sandbox.h), and what the child answers is taken apart and checked
// here before anybody believes it: bounds, text, and that a rendition is nothing but a picture.
//
//   Owns      the children; nothing on disk.
//   Runs on   its home executor: call it there, it resumes you there. Children run beside, at the lowest priority.
//   Cancel    a cancelled render() ends its child and leaves nothing behind.
//   Errors    of a picture: an answer, not an error (verdict). Errors are what may go better later: the source's own; timed_out (the machine
//             was too busy within wall_max); unavailable (the decoder cannot be started; detail says why); cancelled (stopping).
//   Limits    256 MiB a picture, 150 megapixels, 10 s of CPU and 30 s of wall clock a picture, a bounded number of children (one more for quick ones), and pixels
//             in flight within memory_bytes. A child serves pictures_max pictures, or until one could not be decoded.
//   Not here  where pictures and renditions are kept, hashing of the original (gallery/).
//   Source    Exif 2.32; thumbhash: Evan Wallace, "ThumbHash" (2023), written anew from the description of the algorithm.
#pragma once

#include "async/async.h"
#include "picture/answers.h"

namespace grenier::picture {

// A picture's bytes as they are read, in order and once. store::body_reader fits behind it.
class source {
 public:
  virtual ~source() = default;
  virtual std::uint64_t size() const = 0;
  // The next piece, of at most some MiB; null or empty at the end. Each is handed on before the next one is asked for.
  virtual task<result<shared_bytes>> next() = 0;
};

class memory_source final : public source {
 public:
  explicit memory_source(shared_bytes b) : bytes_(std::move(b)) {}
  std::uint64_t size() const override { return bytes_->size(); }
  task<result<shared_bytes>> next() override { co_return std::exchange(given_, true) ? nullptr : bytes_; }

 private:
  shared_bytes bytes_;
  bool given_ = false;
};

class renderer {
 public:
  virtual ~renderer() = default;
  virtual task<result<rendered>> render(source&, options) = 0;
};

struct pool_options {
  std::string program;        // grenier-picture; default_program() finds it
  std::size_t children = 1;   // default_children()
  std::uint64_t memory_bytes = 192 * 1024 * 1024;  // of pixels and compressed bytes in all children together; a larger picture goes alone
  std::uint64_t picture_memory_bytes = 560 * 1024 * 1024;  // of one picture; what says that it needs more is refused
  seconds cpu_max = 10s;
  nanoseconds wall_max = 30s;  // from the last byte given to the answer
  std::uint32_t pictures_max = 200;
  std::vector<std::string> arguments;  // for tests of the child
};

// Beside this program, in the build tree, or where it is installed; empty when it is nowhere.
std::string default_program();
std::size_t default_children();  // one less than the processors that this process may use, at least 1

struct pool_statistics {
  std::uint64_t pictures = 0, not_pictures = 0, undecodable = 0, stopped = 0;  // stopped: of the undecodable, those that cost a child its life
  std::uint64_t children_started = 0;
  nanoseconds cpu{};               // of children that have ended
  std::uint64_t peak_rss_bytes = 0;  // of the largest child that has ended
};

class pool final : public renderer {
 public:
  pool(runtime&, process_host&, pool_options);
  ~pool() override;
  // Waits for a child in the order of the calls; a quick one has a child of its own when the others are taken.
  task<result<rendered>> render(source&, options) override;
  // Ends all children and waits for every render() under way, which fails with `cancelled`.
  task<void> stop();
  const pool_statistics& stats() const noexcept;
  std::size_t children_running() const noexcept;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace grenier::picture
