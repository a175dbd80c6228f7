// storaged/config.h: what storaged is told: flags, STORAGED_* variables and a TOML file, one table of settings for all three.
//
// A flag counts before the environment, the environment before the file. Unknown names are refused with the nearest right one.
#pragma once

#include <functional>

#include "base/base.h"

namespace grenier::storaged {

struct drive_setting {
  std::string path;
  std::optional<std::uint64_t> capacity_bytes;
};

struct config {
  std::string zone;
  std::string data_dir;
  std::optional<std::uint64_t> capacity_bytes;   // not set: 80 % of what is free
  std::vector<drive_setting> drives;             // further drives for blocks
  std::string join;
  std::string s3_listen = ":3900";
  std::string rpc_listen = ":3901";
  std::string web_listen = ":3902";
  std::string admin_listen = "127.0.0.1:3903";
  std::vector<std::string> rpc_public;
  std::string s3_domain = "s3.localhost";
  std::string web_domain = "web.localhost";
  std::string region = "garage";
  std::uint64_t upload_limit = 0, download_limit = 0;  // bytes/s; 0: none
  std::uint64_t memory_bytes = 192 << 20;
  std::string log_level = "info";
  std::string log_format = "text";
  bool render_pictures = true;          // for galleries
  std::optional<std::uint64_t> render_cpus;            // decoders at once; not set: one less than the processors
  std::uint64_t render_memory_bytes = 192 << 20;       // of all pictures that are being decoded
  std::uint64_t render_picture_memory_bytes = 560 << 20;  // of one alone
  std::uint64_t web_staleness_s = 5;    // of pages that this home has no copy of; 0: asked for each time
  std::uint64_t web_cache_bytes = 16 << 20;
};

struct command_line {
  enum class action { run, help, version } what = action::run;
  config settings;
  std::string text;   // of help or version
};

// invalid_argument with a sentence for people: what was wrong, what was expected. `environment` looks a variable up.
result<command_line> read_command_line(int argc, const char* const* argv, const std::function<std::optional<std::string>(const std::string&)>& environment);

// Of these variables ("NAME=value") those that begin with STORAGED_ must be settings: invalid_argument with the nearest right one.
result<void> check_variables(const char* const* environ);

// The name most like `wrong`, if one is near.
std::optional<std::string> nearest(std::string_view wrong, const std::vector<std::string>& right);

// "10M", "2.5MB/s", "512KiB/s", "8Mbit" (bits) -> bytes a second.
result<std::uint64_t> parse_rate(std::string_view);

std::string default_data_dir(bool root, const std::function<std::optional<std::string>(const std::string&)>& environment);

}  // namespace grenier::storaged
