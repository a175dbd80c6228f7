#include "block/drives.h"

#include <algorithm>
#include <cmath>

namespace grenier::block {

drives::drives(runtime& rt, std::vector<drive> from) : rt_(rt) {
  for (auto& d : from) drives_.push_back({std::move(d.disk), d.capacity_bytes});
}

std::string drives::path_of(const block_hash& h, bool zstd) {
  std::string hex = h.hex();
  return hex.substr(0, 2) + "/" + hex.substr(2, 2) + "/" + hex + (zstd ? ".zst" : "");
}

std::uint64_t drives::board::free_bytes() const {
  if (failed) return 0;
  // A reserve for rows and for what is being written: 1 % and at least 64 MiB, but of a small drive never above 5 %.
  std::uint64_t reserve = std::min(capacity_bytes / 20, std::max<std::uint64_t>(capacity_bytes / 100, 64 << 20));
  std::uint64_t gone = used_bytes + reserve;
  std::uint64_t left = capacity_bytes > gone ? capacity_bytes - gone : 0;
  return asked ? std::min(left, really_free_bytes) : left;
}

// Weighted rendezvous: the highest capacity / -ln(u), u uniform for each block and drive. Source: Schindelhauer and Schomaker,
// "Weighted distributed hash tables" (2005).
std::vector<std::size_t> drives::preferred(const block_hash& h) const {
  std::vector<std::pair<double, std::size_t>> scores;
  for (std::size_t i = 0; i < drives_.size(); ++i) {
    double u = (static_cast<double>(xxh3_64(h.view(), i + 1) >> 11) + 0.5) * 0x1p-53;
    scores.emplace_back(-static_cast<double>(drives_[i].capacity_bytes) / -std::log(u), i);
  }
  std::sort(scores.begin(), scores.end());
  std::vector<std::size_t> order;
  for (const auto& s : scores) order.push_back(s.second);
  return order;
}

task<void> drives::refresh() {
  for (std::size_t i = 0; i < drives_.size(); ++i) {
    auto s = co_await drives_[i].disk->free_space();
    drives_[i].asked = s.has_value();
    if (s) drives_[i].really_free_bytes = s->free_bytes;
  }
}

task<result<location>> drives::write(block_hash h, stored s) {
  error last(errc::no_space, "no drive has room for a block");
  for (std::size_t i : preferred(h)) {
    if (drives_[i].free_bytes() < s.data->size()) continue;
    location at{static_cast<std::uint16_t>(i), s.zstd, s.data->size()};
    // Counted while it is being written, so that many writers together do not overfill the drive.
    add_used(at);
    struct uncount {
      drives& d;
      const location& at;
      bool keep = false;
      ~uncount() {
        if (!keep) d.take_used(at);
      }
    } undo{*this, at};
    auto r = co_await drives_[i].disk->write_durable(path_of(h, s.zstd), {s.data});
    if (r) {
      undo.keep = true;
      co_return at;
    }
    last = r.error();
    if (last == errc::no_space) {
      drives_[i].asked = true;
      drives_[i].really_free_bytes = 0;  // until the next refresh
    } else {
      drives_[i].failed = true;
      rt_.log(log_level::error, "drive " + std::to_string(i) + " is out: " + last.to_string());
    }
  }
  co_return fail(last);
}

task<result<stored>> drives::read(block_hash h, location at) {
  result<bytes> r = fail(errc::not_found, "block " + h.short_hex() + " has no file");
  bool zstd = at.zstd;
  if (at.drive < drives_.size()) r = co_await drives_[at.drive].disk->read(path_of(h, zstd), 0, block_size_max + 1);
  if (r.failed_with(errc::not_found)) {
    for (std::size_t i : preferred(h))
      for (bool form : {false, true}) {
        if (r || (i == at.drive && form == at.zstd)) continue;
        r = co_await drives_[i].disk->read(path_of(h, form), 0, block_size_max + 1);
        zstd = form;
      }
  }
  if (!r) co_return fail(r.error());
  co_return stored{zstd, share(std::move(*r))};
}

task<result<void>> drives::remove(block_hash h, location at) {
  if (at.drive >= drives_.size()) co_return result<void>();
  co_return co_await drives_[at.drive].disk->remove(path_of(h, at.zstd));
}

task<result<stored>> drives::read_anywhere(block_hash h) {
  error last(errc::not_found, "block " + h.short_hex() + " has no file");
  for (std::size_t i : preferred(h))
    for (bool form : {false, true}) {
      auto r = co_await drives_[i].disk->read(path_of(h, form), 0, block_size_max + 1);
      if (r) co_return stored{form, share(std::move(*r))};
      if (r.error() != errc::not_found) last = r.error();
    }
  co_return fail(last);
}

task<void> drives::remove_everywhere(block_hash h) {
  for (auto& d : drives_)
    for (bool form : {false, true}) (void)co_await d.disk->remove(path_of(h, form));
}

task<result<bool>> drives::has(block_hash h, location at) {
  if (at.drive >= drives_.size()) co_return false;
  auto r = co_await drives_[at.drive].disk->size(path_of(h, at.zstd));
  if (r.failed_with(errc::not_found)) co_return false;
  if (!r) co_return fail(r.error());
  co_return true;
}

task<result<std::vector<std::string>>> drives::directories(std::size_t i) {
  CO_TRY(auto names, co_await drives_[i].disk->list(""));
  std::erase_if(names, [](const std::string& n) { return n.size() != 2 || !from_hex(n); });
  co_return names;
}

task<result<std::vector<drives::found>>> drives::files(std::size_t i, std::string directory) {
  std::vector<found> out;
  CO_TRY(auto inner, co_await drives_[i].disk->list(directory));
  for (const auto& d : inner) {
    CO_TRY(auto names, co_await drives_[i].disk->list(directory + "/" + d));
    for (const auto& n : names) {
      auto h = block_hash::from_hex(std::string_view(n).substr(0, 64));
      if (!h) continue;
      std::string_view rest = std::string_view(n).substr(64);
      found f{directory + "/" + d + "/" + n, *h, {static_cast<std::uint16_t>(i), rest == ".zst", 0}};
      f.leftover = rest.ends_with(".tmp");
      if (f.leftover || f.path == path_of(*h, f.where.zstd)) out.push_back(std::move(f));
    }
  }
  co_return out;
}

task<result<void>> drives::remove(found f) { co_return co_await drives_[f.where.drive].disk->remove(f.path); }
task<result<std::uint64_t>> drives::size(found f) { co_return co_await drives_[f.where.drive].disk->size(f.path); }

void drives::add_used(const location& at) {
  if (at.drive >= drives_.size()) return;
  auto& d = drives_[at.drive];
  d.used_bytes += at.stored_bytes;
  d.really_free_bytes -= std::min(d.really_free_bytes, at.stored_bytes);
}

void drives::take_used(const location& at) {
  if (at.drive >= drives_.size()) return;
  auto& d = drives_[at.drive];
  d.used_bytes -= std::min(d.used_bytes, at.stored_bytes);
  d.really_free_bytes += at.stored_bytes;
}

std::uint64_t drives::capacity_bytes() const {
  std::uint64_t n = 0;
  for (const auto& d : drives_) n += d.capacity_bytes;
  return n;
}
std::uint64_t drives::used_bytes() const {
  std::uint64_t n = 0;
  for (const auto& d : drives_) n += d.used_bytes;
  return n;
}
std::uint64_t drives::free_bytes() const {
  std::uint64_t n = 0;
  for (const auto& d : drives_) n += d.free_bytes();
  return n;
}
bool drives::has_room(std::uint64_t size_bytes) const {
  std::uint64_t n = 0;
  for (const auto& d : drives_) n += d.free_bytes() >= std::min<std::uint64_t>(size_bytes, block_size_max) ? d.free_bytes() : 0;
  return n >= size_bytes && n > 0;
}
bool drives::any_failed() const {
  return std::any_of(drives_.begin(), drives_.end(), [](const auto& d) { return d.failed; });
}

}  // namespace grenier::block
