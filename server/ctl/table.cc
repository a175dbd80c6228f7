#include "ctl/table.h"

#include <algorithm>
#include <cctype>
#include <cstdio>

namespace grenier::ctl {

namespace {
// Columns on the screen: UTF-8 continuation bytes take none.
std::size_t width(const std::string& s) {
  return static_cast<std::size_t>(std::count_if(s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}
}  // namespace

void table::print() const {
  std::vector<std::size_t> widths(rows_.front().size());
  for (const auto& r : rows_)
    for (std::size_t i = 0; i < r.size(); ++i) widths[i] = std::max(widths[i], width(r[i]));
  for (std::size_t n = 0; n < rows_.size(); ++n) {
    for (std::size_t i = 0; i < rows_[n].size(); ++i) {
      std::string cell = rows_[n][i];
      if (n == 0)
        for (char& c : cell) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      bool last = i + 1 == rows_[n].size();
      std::printf("%s%s", cell.c_str(), last ? "\n" : std::string(widths[i] - width(cell) + 2, ' ').c_str());
    }
  }
  if (rows_.size() == 1) std::printf("(none)\n");
}

}  // namespace grenier::ctl
