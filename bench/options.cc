#include "options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "storaged/config.h"

namespace grenier::bench {

namespace {

// The smallest body that can prove itself (body.h), and the largest that S3 takes in one PUT and we hold in memory.
constexpr std::uint64_t size_min = 16, size_max = 1ull << 30;

struct setting {
  const char* name;
  const char* value;  // placeholder in help; none: a switch
  const char* help;
  std::function<result<void>(options&, const std::string&)> apply;
};

template <class T>
result<T> number(const std::string& text, T least, T most) {
  T n{};
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (ec != std::errc() || end != text.data() + text.size() || n < least || n > most)
    return fail(errc::invalid_argument, "'" + text + "' is not a number from " + std::to_string(least) + " to " + std::to_string(most));
  return n;
}

result<double> duration(const std::string& text) {
  double n{};
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (ec != std::errc() || end != text.data() + text.size() || !std::isfinite(n) || n <= 0 || n > 86400)
    return fail(errc::invalid_argument, "'" + text + "' is not a number of seconds, above 0 and up to 86400");
  return n;
}

std::function<result<void>(options&, const std::string&)> word(std::string options::*where) {
  return [where](options& o, const std::string& v) -> result<void> {
    if (v.empty()) return fail(errc::invalid_argument, "it may not be empty");
    o.*where = v;
    return {};
  };
}

result<void> set_operation(options& o, const std::string& v) {
  std::vector<std::string> names;
  for (auto op : {operation::put, operation::get, operation::list, operation::remove}) {
    if (v == to_string(op)) {
      o.operations = {op};
      return {};
    }
    names.emplace_back(to_string(op));
  }
  if (v == "all") {
    o.operations = options().operations;
    return {};
  }
  names.emplace_back("all");
  auto near = storaged::nearest(v, names);
  return fail(errc::invalid_argument, "'" + v + "' is none of: put, get, list, delete, all" + (near ? "; did you mean " + *near + "?" : ""));
}

// Letters, digits and what S3 and URLs take as they are: what is measured is the store, not encodings.
result<void> set_prefix(options& o, const std::string& v) {
  for (char c : v)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '/' && c != '.')
      return fail(errc::invalid_argument, "a prefix holds letters, digits and - _ . / only; got '" + v + "'");
  if (v.size() > 512 || v.starts_with('/')) return fail(errc::invalid_argument, "a prefix has at most 512 characters and does not begin with /");
  o.prefix = v;
  return {};
}

result<void> set_bucket(options& o, const std::string& v) {
  if (v.size() < 3 || v.size() > 63 || v.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-.") != std::string::npos)
    return fail(errc::invalid_argument, "a bucket's name has 3 to 63 of a-z, 0-9, '-' and '.'; got '" + v + "'");
  o.bucket = v;
  return {};
}

const std::vector<setting>& settings() {
  static const std::vector<setting> all = {
      {"endpoint", "URL", "an S3 server, http://HOST:PORT; several times: requests go to each in turn",
       [](options& o, const std::string& v) -> result<void> {
         TRY(auto e, parse_endpoint(v));
         o.endpoints.push_back(std::move(e));
         return {};
       }},
      {"access-key", "ID", "the access key id (default: AWS_ACCESS_KEY_ID)", word(&options::access_key)},
      {"secret-key", "SECRET", "its secret (default: AWS_SECRET_ACCESS_KEY, where other users of this machine do not see it)", word(&options::secret_key)},
      {"bucket", "NAME", "the bucket, made when it is not there (default grenier-bench)", set_bucket},
      {"prefix", "P", "what the names of its objects begin with (default bench/)", set_prefix},
      {"region", "NAME", "the region to sign for (default: AWS_REGION, AWS_DEFAULT_REGION, us-east-1)", word(&options::region)},
      {"op", "OP", "put, get, list, delete, or all of them in this order (default all)", set_operation},
      {"size", "SIZE", "the size of an object, for example 1KiB or 5MiB (default 1KiB); several times: one after the other",
       [](options& o, const std::string& v) -> result<void> {
         TRY(auto n, parse_size(v));
         if (n < size_min || n > size_max) return fail(errc::invalid_argument, "'" + v + "' is not between 16 bytes and 1 GiB");
         o.sizes.push_back(n);
         return {};
       }},
      {"concurrency", "N", "clients, each with one request at a time (default 1); several times: one after the other",
       [](options& o, const std::string& v) -> result<void> {
         TRY(auto n, number<std::uint32_t>(v, 1, 1024));
         o.concurrency.push_back(n);
         return {};
       }},
      {"seconds", "S", "how long each operation is asked for (default 10); deleting ends when nothing is left",
       [](options& o, const std::string& v) -> result<void> {
         TRY(o.seconds, duration(v));
         return {};
       }},
      {"keys", "N", "how many different objects (default: what fills 2 GiB, at most 10000); put then overwrites",
       [](options& o, const std::string& v) -> result<void> {
         TRY(o.keys, number<std::uint64_t>(v, 1, 100'000'000));
         return {};
       }},
      {"timeout", "S", "a request that takes longer has failed (default 60)",
       [](options& o, const std::string& v) -> result<void> {
         TRY(o.timeout_seconds, duration(v));
         return {};
       }},
      {"pid", "PID", "report CPU time and peak memory of this process of this machine; may be given several times",
       [](options& o, const std::string& v) -> result<void> {
         TRY(auto n, number<int>(v, 1, 1 << 22));
         o.pids.push_back(n);
         return {};
       }},
      {"unsigned-payload", nullptr, "bodies are not part of the signature (default: their SHA-256 is)",
       [](options& o, const std::string&) -> result<void> {
         o.sign_bodies = false;
         return {};
       }},
      {"json", nullptr, "results as JSON",
       [](options& o, const std::string&) -> result<void> {
         o.json = true;
         return {};
       }},
  };
  return all;
}

std::string help_text() {
  std::string t =
      "usage: grenier-bench --endpoint URL [OPTION...]\n"
      "Measures put, get, list and delete at any S3 server. Every object differs from every other, does not compress, and is\n"
      "checked when it is read; a request that failed is an error and never counts as speed.\n\n";
  for (const auto& s : settings()) {
    std::string left = std::string("  --") + s.name + (s.value ? std::string(" ") + s.value : "");
    left.resize(std::max<std::size_t>(left.size() + 1, 24), ' ');
    t += left + s.help + "\n";
  }
  t += "  --help, --version\n\n"
       "Exit status: 0 done; 1 the server cannot be used, or requests failed; 2 wrong usage.\n"
       "  grenier-bench --endpoint http://localhost:3900 --size 1KiB --size 5MiB --concurrency 1 --concurrency 16\n";
  return t;
}

}  // namespace

std::string_view to_string(operation op) noexcept {
  switch (op) {
    case operation::put: return "put";
    case operation::get: return "get";
    case operation::list: return "list";
    case operation::remove: return "delete";
  }
  return "";
}

result<endpoint> parse_endpoint(std::string_view url) {
  const std::string asked(url);
  if (url.starts_with("https://")) return fail(errc::invalid_argument, "'" + asked + "': only http:// can be measured, TLS is not spoken");
  if (!url.starts_with("http://")) return fail(errc::invalid_argument, "'" + asked + "' is not a URL like http://localhost:3900");
  url.remove_prefix(7);
  if (url.ends_with('/')) url.remove_suffix(1);
  endpoint e{.url = "http://" + std::string(url), .port = "80", .authority = std::string(url)};
  std::string_view host = url, port;
  auto colon = url.rfind(':');
  if (colon != std::string_view::npos && url.find(']', colon) == std::string_view::npos) {
    host = url.substr(0, colon);
    port = url.substr(colon + 1);
    if (!number<int>(std::string(port), 1, 65535)) return fail(errc::invalid_argument, "'" + asked + "': the port is not a number from 1 to 65535");
    e.port = port;
  }
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty() || host.find_first_of("/?#@ ") != std::string_view::npos)
    return fail(errc::invalid_argument, "'" + asked + "' is not a URL like http://localhost:3900 (a host and a port, nothing behind them)");
  e.host = host;
  return e;
}

std::uint64_t keys_for(const options& o, std::uint64_t size_bytes, std::uint32_t concurrency) {
  std::uint64_t n = o.keys.value_or(std::min<std::uint64_t>(10'000, (2ull << 30) / size_bytes));
  return std::max<std::uint64_t>(n, concurrency);
}

result<command_line> read_command_line(int argc, const char* const* argv, const environment& env) {
  command_line c;
  options& o = c.settings;
  for (const char* name : {"AWS_DEFAULT_REGION", "AWS_REGION"})
    if (auto v = env(name); v && !v->empty()) o.region = *v;
  if (auto v = env("AWS_ACCESS_KEY_ID")) o.access_key = *v;
  if (auto v = env("AWS_SECRET_ACCESS_KEY")) o.secret_key = *v;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    if (arg == "--help" || arg == "-h") return command_line{command_line::action::help, {}, help_text()};
    if (arg == "--version") return command_line{command_line::action::version, {}, "grenier-bench " GRENIER_VERSION "\n"};
    if (!arg.starts_with("--")) return fail(errc::invalid_argument, "'" + arg + "' is not an option; options begin with --");
    std::string name = arg.substr(2);
    std::optional<std::string> value;
    if (auto eq = name.find('='); eq != std::string::npos) {
      value = name.substr(eq + 1);
      name.resize(eq);
    }
    auto at = std::ranges::find_if(settings(), [&](const setting& s) { return s.name == name; });
    if (at == settings().end()) {
      std::vector<std::string> names{"help", "version"};
      for (const auto& s : settings()) names.emplace_back(s.name);
      auto near = storaged::nearest(name, names);
      return fail(errc::invalid_argument, "--" + name + ": no such option" + (near ? "; did you mean --" + *near + "?" : ""));
    }
    if (!at->value && value) return fail(errc::invalid_argument, "--" + name + " takes no value");
    if (at->value && !value) {
      if (i + 1 == argc) return fail(errc::invalid_argument, "--" + name + " needs a value: " + at->value);
      value = argv[++i];
    }
    if (auto done = at->apply(o, value.value_or("")); !done) return fail(errc::invalid_argument, "--" + name + ": " + done.error().detail);
  }
  if (o.endpoints.empty()) return fail(errc::invalid_argument, "--endpoint is needed, for example --endpoint http://localhost:3900");
  if (o.access_key.empty() || o.secret_key.empty())
    return fail(errc::invalid_argument, "an access key is needed: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or --access-key and --secret-key");
  if (o.sizes.empty()) o.sizes = {1024};
  if (o.concurrency.empty()) o.concurrency = {1};
  return c;
}

}  // namespace grenier::bench
