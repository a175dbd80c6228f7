// ctl/gallery.h: the gallery commands of storagectl.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <nlohmann/json.hpp>

namespace grenier::ctl {

// How main.cc makes a command that sends `in` to a path and prints the answer.
struct commands {
  nlohmann::json& in;
  std::function<CLI::App*(CLI::App*, std::string path, std::function<void(const nlohmann::json&)> print)> leaf;
  const std::string& data_dir;
  const bool& as_json;
  int& exit_code;
};
void add_gallery_commands(CLI::App&, commands);

}  // namespace grenier::ctl
