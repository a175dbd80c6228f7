#include "storaged/config.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1  // the packaged library is built for exceptions
#include <toml++/toml.h>

namespace grenier::storaged {

namespace {

using environment_type = std::function<std::optional<std::string>(const std::string&)>;

struct setting {
  const char* name;   // as a flag; with '_' in a file; upper case with '_' in the environment
  const char* value;  // placeholder in help
  const char* help;
  std::function<result<void>(config&, const std::string&)> apply;
  bool many = false;
  enum class form { text, number, yes_no } in_file = form::text;  // besides a string, what a file may say
};

result<void> check_zone(const std::string& z) {
  if (z.empty() || z.size() > 64 || z.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") != std::string::npos)
    return fail(errc::invalid_argument, "a zone is 1 to 64 of a-z, 0-9 and '-', for example home-lyon; got '" + z + "'");
  return {};
}

result<void> check_address(const std::string& a) {
  auto colon = a.rfind(':');
  bool digits = colon != std::string::npos && colon + 1 < a.size() && a.find_first_not_of("0123456789", colon + 1) == std::string::npos && a.size() - colon <= 6;
  if (!digits || std::stoul(a.substr(colon + 1)) > 65535)
    return fail(errc::invalid_argument, "'" + a + "' is not an address with a port (examples: 127.0.0.1:3900, [::]:3900, :3900)");
  return {};
}

std::string mebibytes(std::uint64_t n) { return std::to_string(n >> 20) + "MiB"; }

std::function<result<void>(config&, const std::string&)> address(std::string config::*where) {
  return [where](config& c, const std::string& v) -> result<void> {
    TRY_VOID(check_address(v));
    c.*where = v;
    return {};
  };
}
std::function<result<void>(config&, const std::string&)> word(std::string config::*where) {
  return [where](config& c, const std::string& v) -> result<void> {
    if (v.empty()) return fail(errc::invalid_argument, "it may not be empty");
    c.*where = v;
    return {};
  };
}
std::function<result<void>(config&, const std::string&)> rate(std::uint64_t config::*where) {
  return [where](config& c, const std::string& v) -> result<void> {
    TRY(c.*where, parse_rate(v));
    return {};
  };
}
// A size within bounds; what is beyond them is named with both.
std::function<result<void>(config&, const std::string&)> size_within(std::uint64_t config::*where, std::uint64_t least, std::uint64_t most) {
  return [where, least, most](config& c, const std::string& v) -> result<void> {
    TRY(const std::uint64_t n, parse_size(v));
    if (n < least || n > most) return fail(errc::invalid_argument, "'" + v + "' is not from " + mebibytes(least) + " to " + mebibytes(most));
    c.*where = n;
    return {};
  };
}
// A whole number within bounds.
result<std::uint64_t> whole_number(std::string_view v, std::uint64_t least, std::uint64_t most, const char* of) {
  std::uint64_t n = 0;
  const auto [end, wrong] = std::from_chars(v.data(), v.data() + v.size(), n);
  if (v.empty() || wrong != std::errc() || end != v.data() + v.size() || n < least || n > most)
    return fail(errc::invalid_argument, "'" + std::string(v) + "' is not a whole number" + of + " from " + std::to_string(least) + " to " + std::to_string(most));
  return n;
}
std::function<result<void>(config&, const std::string&)> one_of(std::string config::*where, std::vector<std::string> choices) {
  return [where, choices](config& c, const std::string& v) -> result<void> {
    if (std::find(choices.begin(), choices.end(), v) == choices.end()) {
      std::string all;
      for (const auto& x : choices) all += (all.empty() ? "" : ", ") + x;
      return fail(errc::invalid_argument, "'" + v + "' is none of: " + all);
    }
    c.*where = v;
    return {};
  };
}

const std::vector<setting>& settings() {
  static const std::vector<setting> all = {
      {"zone", "NAME", "which home this is, for example home-lyon (a zone may have several servers)",
       [](config& c, const std::string& v) -> result<void> {
         TRY_VOID(check_zone(v));
         c.zone = v;
         return {};
       }},
      {"data-dir", "DIR", "where everything is kept (default: /var/lib/grenier as root, else ~/.local/share/grenier)", word(&config::data_dir)},
      {"capacity", "SIZE", "what this home offers, for example 500G; 0: a gateway that stores nothing (default: 80 % of the free space)",
       [](config& c, const std::string& v) -> result<void> {
         TRY(c.capacity_bytes, parse_size(v));
         return {};
       },
       false, setting::form::number},
      {"drive", "DIR[:SIZE]", "a further drive for blocks; may be given several times",
       [](config& c, const std::string& v) -> result<void> {
         drive_setting d{v, std::nullopt};
         if (auto colon = v.rfind(':'); colon != std::string::npos) {
           TRY(d.capacity_bytes, parse_size(v.substr(colon + 1)));
           d.path = v.substr(0, colon);
         }
         if (d.path.empty()) return fail(errc::invalid_argument, "a drive needs a directory, for example /mnt/second:1T");
         if (d.path.front() != '/')
           return fail(errc::invalid_argument, "'" + d.path + "' is not a whole path: a drive is named from '/' on, for example /mnt/second:1T, because a service starts in another directory than you");
         for (const auto& other : c.drives)
           if (other.path == d.path) return fail(errc::invalid_argument, "the drive " + d.path + " is named twice");
         c.drives.push_back(d);
         return {};
       },
       true},
      {"join", "LINE", "join the cluster that made this invite ('storagectl invite' prints it); '-' reads it from standard input", word(&config::join)},
      {"s3-listen", "A:P", "where S3 clients connect (default :3900, every address)", address(&config::s3_listen)},
      {"web-listen", "A:P", "where browsers connect to sites (default :3902)", address(&config::web_listen)},
      {"rpc-listen", "A:P", "where other homes connect (default :3901)", address(&config::rpc_listen)},
      {"rpc-public", "A:P", "what other homes dial, if it is not an address of this machine; may be given several times",
       [](config& c, const std::string& v) -> result<void> {
         TRY_VOID(check_address(v));
         if (v[0] == ':') return fail(errc::invalid_argument, "'" + v + "' has no host name");
         c.rpc_public.push_back(v);
         return {};
       },
       true},
      {"admin-listen", "A:P", "health and metrics (default 127.0.0.1:3903)", address(&config::admin_listen)},
      {"s3-domain", "D", "buckets are also at BUCKET.D (default s3.localhost)", word(&config::s3_domain)},
      {"web-domain", "D", "sites are at BUCKET.D (default web.localhost)", word(&config::web_domain)},
      {"region", "NAME", "the region that is told to clients that ask (default garage; any name that a client signs with works)", word(&config::region)},
      {"upload-limit", "RATE", "bound on all traffic to other homes, for example 2M (bytes/s) or 8Mbit", rate(&config::upload_limit), false, setting::form::number},
      {"download-limit", "RATE", "bound on all traffic from other homes", rate(&config::download_limit), false, setting::form::number},
      {"memory", "SIZE", "budget of memory for requests and caches (default 192MiB, at least 64MiB)",
       [](config& c, const std::string& v) -> result<void> {
         TRY(c.memory_bytes, parse_size(v));
         if (c.memory_bytes < 64 << 20) return fail(errc::invalid_argument, "at least 64MiB are needed");
         return {};
       },
       false, setting::form::number},
      {"log-level", "LEVEL", "debug, info, warning or error (default info)", one_of(&config::log_level, {"debug", "info", "warning", "error"})},
      {"render-pictures", "YES", "make the small pictures of galleries here: yes or no (default yes)",
       [](config& c, const std::string& v) -> result<void> {
         if (v != "yes" && v != "no") return fail(errc::invalid_argument, "'" + v + "' is neither yes nor no");
         c.render_pictures = v == "yes";
         return {};
       },
       false, setting::form::yes_no},
      {"render-cpus", "N", "decoders of pictures at once, each takes a processor at most (default one less than there are, at least 1)",
       [](config& c, const std::string& v) -> result<void> {
         TRY(c.render_cpus, whole_number(v, 1, 64, ""));
         return {};
       },
       false, setting::form::number},
      {"render-memory", "SIZE", "memory for all pictures that are being decoded (default 192MiB, at least 32MiB)",
       size_within(&config::render_memory_bytes, 32 << 20, std::uint64_t{1} << 40), false, setting::form::number},
      {"render-picture-memory", "SIZE", "memory that one picture may take; what needs more is listed as not shown (default and at most 560MiB)",
       size_within(&config::render_picture_memory_bytes, 8 << 20, 560 << 20), false, setting::form::number},
      {"web-staleness", "SECONDS", "how old a page may be that this home has no copy of, so that it need not be asked for each time; 0: never old (default 5)",
       [](config& c, const std::string& v) -> result<void> {
         TRY(c.web_staleness_s, whole_number(v, 0, 3600, " of seconds"));
         return {};
       },
       false, setting::form::number},
      {"web-cache", "SIZE", "memory for what is shown to visitors and not kept here (default 16MiB)", size_within(&config::web_cache_bytes, 1 << 20, std::uint64_t{1} << 40),
       false, setting::form::number},
      {"log-format", "FORM", "text or json (default text)", one_of(&config::log_format, {"text", "json"})},
  };
  return all;
}

std::string file_name(std::string flag) {
  std::replace(flag.begin(), flag.end(), '-', '_');
  return flag;
}
std::string environment_name(std::string flag) {
  std::string n = "STORAGED_" + file_name(std::move(flag));
  for (char& c : n) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return n;
}

const setting* find_setting(std::string_view name) {
  for (const auto& s : settings())
    if (name == s.name) return &s;
  return nullptr;
}

result<void> apply(config& c, const setting& s, const std::string& value, const std::string& where) {
  auto r = s.apply(c, value);
  if (!r) return fail(errc::invalid_argument, where + ": " + r.error().detail);
  return {};
}

std::string help_text() {
  std::ostringstream o;
  o << "storaged: one home's server of a Grenier cluster: S3 store and static sites, kept three times in three homes.\n\n"
       "Usage: storaged --zone NAME [options]\n"
       "       storaged --zone NAME --join LINE      (LINE: printed by 'storagectl invite' at another home)\n\nOptions:\n";
  for (const auto& s : settings()) {
    std::string left = "  --" + std::string(s.name) + " " + s.value;
    o << left << std::string(left.size() < 26 ? 26 - left.size() : 1, ' ') << s.help << "\n";
  }
  o << "  --config FILE           read settings from a TOML file (the same names, with '_' for '-')\n"
       "  --help                  this text\n"
       "  --version               the version\n\n"
       "Every option can also be set in the environment: --data-dir as STORAGED_DATA_DIR. Flags come before the environment,\n"
       "the environment before the file. SIGTERM stops cleanly. See storaged(8) and storaged.toml(5).\n";
  return o.str();
}

const char* kind_of(const toml::node& n) {
  switch (n.type()) {
    case toml::node_type::string: return "a string";
    case toml::node_type::integer: return "a whole number";
    case toml::node_type::floating_point: return "a number with a fraction";
    case toml::node_type::boolean: return "true or false";
    case toml::node_type::array: return "a list";
    case toml::node_type::table: return "a table";
    default: return "a date or a time";
  }
}

// What a file may say for this setting, as the text that an option would have.
result<std::string> scalar(const setting& s, const toml::node& n, const std::string& where) {
  if (auto v = n.value_exact<std::string>()) return *v;
  if (auto v = n.value_exact<std::int64_t>(); v && s.in_file == setting::form::number) return std::to_string(*v);
  if (auto v = n.value_exact<bool>(); v && s.in_file == setting::form::yes_no) return std::string(*v ? "yes" : "no");
  const std::string name = file_name(s.name), example = s.many ? name + " = [\"...\"]" : s.in_file == setting::form::yes_no ? name + " = \"yes\"" : name + " = \"...\"";
  return fail(errc::invalid_argument, where + ": expected " + (s.many ? "a list of strings" : s.in_file == setting::form::number ? "a string or a whole number" : "a string in quotes") + " (" + example +
                                          "), found " + kind_of(n));
}

// The parser says what is wrong, but of a string without its end it names the place where it gave up; people look for where it began.
std::string where_it_began(const std::string& content, std::size_t line, const std::string& what) {
  if (what.find("determine value type") != std::string::npos) return " (a word stands in quotes: \"...\")";
  if (what.find("string") == std::string::npos && what.find("end-of-file") == std::string::npos) return {};
  std::istringstream in(content);
  std::string l, begun;
  for (std::size_t n = 1; n <= line && std::getline(in, l); ++n) {
    for (const char* quotes : {"\"\"\"", "'''"}) {
      std::size_t times = 0;
      for (std::size_t at = l.find(quotes); at != std::string::npos; at = l.find(quotes, at + 3)) ++times;
      if (times % 2) begun = begun.empty() ? " (the string that begins in line " + std::to_string(n) + " has no end: " + quotes + ")" : "";
    }
    for (const char quote : {'"', '\''})
      if (n == line && begun.empty() && std::count(l.begin(), l.end(), quote) % 2) return std::string(" (a string in this line has no end: a ") + quote + " is missing)";
  }
  return begun;
}

result<void> read_file(config& c, const std::string& path, std::set<std::string>& done) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) return fail(errc::invalid_argument, "the configuration file " + path + " is a directory");
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(errc::invalid_argument, "cannot read the configuration file " + path);
  std::ostringstream all;
  all << in.rdbuf();
  std::string content = all.str();
  if (content.size() > 1 << 20) return fail(errc::invalid_argument, path + ": a configuration file of more than 1 MiB");
  auto parsed = toml::parse(content, path);
  if (!parsed) {
    const auto at = parsed.error().source().begin;
    const std::string what(parsed.error().description());
    return fail(errc::invalid_argument, path + ":" + std::to_string(at.line) + ":" + std::to_string(at.column) + ": " + what + where_it_began(content, at.line, what));
  }
  std::vector<std::string> names;
  for (const auto& s : settings()) names.push_back(file_name(s.name));
  for (const auto& [key, value] : parsed.table()) {
    std::string name(key.str());
    std::string where = path + ":" + std::to_string(value.source().begin.line) + ": " + name;
    std::string flag = name;
    std::replace(flag.begin(), flag.end(), '_', '-');
    const setting* s = name.find('-') == std::string::npos ? find_setting(flag) : nullptr;
    if (!s) {
      if (value.is_table()) return fail(errc::invalid_argument, where + ": there are no tables here: settings stand at the top, without [" + name + "]");
      auto near = nearest(name, names);
      return fail(errc::invalid_argument, where + ": no such setting" + (near ? "; did you mean " + *near + "?" : ""));
    }
    if (done.contains(s->name)) continue;
    if (const auto* list = value.as_array(); list && s->many) {
      for (const auto& v : *list) {
        TRY(std::string one, scalar(*s, v, path + ":" + std::to_string(v.source().begin.line) + ": " + name));
        TRY_VOID(apply(c, *s, one, where));
      }
    } else {
      TRY(std::string one, scalar(*s, value, where));
      if (flag == "data-dir" && !one.starts_with('/'))
        return fail(errc::invalid_argument, where + ": '" + one + "' is not a whole path: name it from '/' on, because a service starts in another directory than you");
      TRY_VOID(apply(c, *s, one, where));
    }
    done.insert(s->name);
  }
  return {};
}

std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      std::size_t up = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = up;
    }
  }
  return row[b.size()];
}

// What is right alone and wrong together; before anything is made.
result<void> check_together(const config& c) {
  const std::array<std::pair<const char*, const std::string*>, 4> all = {
      {{"--s3-listen", &c.s3_listen}, {"--web-listen", &c.web_listen}, {"--rpc-listen", &c.rpc_listen}, {"--admin-listen", &c.admin_listen}}};
  auto parts = [](const std::string& a) { return std::pair(a.substr(0, a.rfind(':')), a.substr(a.rfind(':') + 1)); };
  auto every = [](const std::string& host) { return host.empty() || host == "0.0.0.0" || host == "[::]" || host == "*"; };
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t j = i + 1; j < all.size(); ++j) {
      const auto [host, port] = parts(*all[i].second);
      const auto [other, same] = parts(*all[j].second);
      if (port == same && port != "0" && (host == other || every(host) || every(other)))
        return fail(errc::invalid_argument, std::string(all[i].first) + " and " + all[j].first + " name the same port " + port + "; each needs one of its own");
    }
  // The command socket lies there (unix(7): sun_path).
  constexpr std::size_t directory_max = 100 - std::string_view("/control.sock").size();
  if (c.data_dir.size() > directory_max)
    return fail(errc::invalid_argument, "the data directory's path has " + std::to_string(c.data_dir.size()) + " characters, and may have " + std::to_string(directory_max) + ": " + c.data_dir);
  return {};
}

}  // namespace

std::optional<std::string> nearest(std::string_view wrong, const std::vector<std::string>& right) {
  std::optional<std::string> best;
  std::size_t least = std::max<std::size_t>(2, wrong.size() / 3) + 1;
  for (const auto& r : right)
    if (std::size_t d = distance(wrong, r); d < least) least = d, best = r;
  return best;
}

result<void> check_variables(const char* const* environ) {
  std::vector<std::string> names = {"STORAGED_CONFIG"};
  for (const auto& s : settings()) names.push_back(environment_name(s.name));
  for (; environ && *environ; ++environ) {
    const std::string_view all = *environ, name = all.substr(0, all.find('='));
    if (!name.starts_with("STORAGED_") || std::ranges::find(names, name) != names.end()) continue;
    auto near = nearest(name, names);
    return fail(errc::invalid_argument, "unknown variable " + std::string(name) + (near ? "; did you mean " + *near + "?" : ""));
  }
  return {};
}

result<std::uint64_t> parse_rate(std::string_view s) {
  std::string_view v = s;
  if (v.ends_with("/s")) v.remove_suffix(2);
  bool bits = false;
  if (v.ends_with("bit") || v.ends_with("bps")) {
    v.remove_suffix(3);
    bits = true;
  }
  auto n = parse_size(v);
  if (!n) return fail(errc::invalid_argument, "'" + std::string(s) + "' is not a rate (examples: 2M and 512KiB/s in bytes, 8Mbit in bits; 0: no limit)");
  return bits ? *n / 8 : *n;
}

std::string default_data_dir(bool root, const environment_type& environment) {
  if (root) return "/var/lib/grenier";
  if (auto x = environment("XDG_DATA_HOME"); x && !x->empty()) return *x + "/grenier";
  return environment("HOME").value_or(".") + "/.local/share/grenier";
}

result<command_line> read_command_line(int argc, const char* const* argv, const environment_type& environment) {
  command_line out;
  config& c = out.settings;
  std::set<std::string> done;
  std::string file = environment("STORAGED_CONFIG").value_or("");
  std::vector<std::string> names = {"--config", "--help", "--version"};
  for (const auto& s : settings()) names.push_back("--" + std::string(s.name));

  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i], value;
    if (arg == "--help" || arg == "-h") return command_line{command_line::action::help, {}, help_text()};
    if (arg == "--version" || arg == "-V") return command_line{command_line::action::version, {}, "storaged " GRENIER_VERSION "\n"};
    auto eq = arg.find('=');
    bool has_value = arg.starts_with("--") && eq != std::string::npos;
    if (has_value) {
      value = arg.substr(eq + 1);
      arg.resize(eq);
    }
    const setting* s = arg.starts_with("--") ? find_setting(std::string_view(arg).substr(2)) : nullptr;
    if (!s && arg != "--config") {
      auto near = nearest(arg, names);
      return fail(errc::invalid_argument, (arg.starts_with("-") ? "unknown option " : "unexpected argument ") + arg +
                                              (near ? "; did you mean " + *near + "?" : "") + " ('storaged --help' lists them all)");
    }
    if (!has_value) {
      if (i + 1 >= argc) return fail(errc::invalid_argument, arg + " needs a value");
      value = argv[++i];
    }
    if (!s) {
      file = value;
      continue;
    }
    if (!s->many && !done.insert(s->name).second) return fail(errc::invalid_argument, arg + " is given twice");
    if (s->many) done.insert(s->name);
    TRY_VOID(apply(c, *s, value, arg));
  }
  for (const auto& s : settings())
    if (!done.contains(s.name))
      if (auto v = environment(environment_name(s.name)); v && !v->empty()) {
        TRY_VOID(apply(c, s, *v, environment_name(s.name)));
        done.insert(s.name);
      }
  if (!file.empty()) TRY_VOID(read_file(c, file, done));
  if (c.data_dir.empty()) c.data_dir = default_data_dir(::geteuid() == 0, environment);
  if (c.data_dir.front() != '/') {  // it names the socket too, and what storaged says of itself: from anywhere
    std::error_code ec;
    if (auto whole = std::filesystem::absolute(c.data_dir, ec); !ec) c.data_dir = whole.lexically_normal().string();
  }
  while (c.data_dir.size() > 1 && c.data_dir.back() == '/') c.data_dir.pop_back();
  TRY_VOID(check_together(c));
  return out;
}

}  // namespace grenier::storaged
