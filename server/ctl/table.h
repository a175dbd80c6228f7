// ctl/table.h: columns as wide as their widest cell, for people.
#pragma once

#include <string>
#include <vector>

namespace grenier::ctl {

class table {
 public:
  explicit table(std::vector<std::string> head) { rows_.push_back(std::move(head)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace grenier::ctl
