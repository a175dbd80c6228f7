// bench/options.h: what grenier-bench is told.
//
//   Errors    invalid_argument with a sentence for people: what was wrong, what was expected, the nearest right name.
#pragma once

#include <functional>

#include "base/base.h"

namespace grenier::bench {

enum class operation : std::uint8_t { put, get, list, remove };
std::string_view to_string(operation) noexcept;  // "delete" for remove, as S3 calls it

// Where a server listens. Only plain http: what TLS costs would hide what the store costs.
struct endpoint {
  std::string url, host, port;
  std::string authority;  // the Host header
};
result<endpoint> parse_endpoint(std::string_view url);

struct options {
  std::vector<endpoint> endpoints;
  std::string access_key, secret_key;
  std::string bucket = "grenier-bench";
  std::string prefix = "bench/";
  std::string region = "us-east-1";
  std::vector<operation> operations{operation::put, operation::get, operation::list, operation::remove};
  std::vector<std::uint64_t> sizes;        // default: 1 KiB
  std::vector<std::uint32_t> concurrency;  // default: 1
  double seconds = 10;
  std::optional<std::uint64_t> keys;       // default: keys_for()
  double timeout_seconds = 60;
  std::vector<int> pids;
  bool sign_bodies = true;
  bool json = false;
};

// As many objects as fill 2 GiB, at most 10 000 and at least one for each client.
std::uint64_t keys_for(const options&, std::uint64_t size_bytes, std::uint32_t concurrency);

struct command_line {
  enum class action { run, help, version } what = action::run;
  options settings;
  std::string text;  // of help or version
};
using environment = std::function<std::optional<std::string>(const std::string&)>;
result<command_line> read_command_line(int argc, const char* const* argv, const environment&);

}  // namespace grenier::bench
