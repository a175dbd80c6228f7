// storagectl: the administrator's tool. Tables for people, --json for programs.
// Exit status: 0 done; 1 storaged refused or failed; 2 wrong usage; 3 no storaged answers; 4 not found; 5 not now (no quorum, conflict).
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "ctl/client.h"
#include "ctl/gallery.h"
#include "ctl/table.h"
#include "storaged/config.h"

namespace grenier::ctl {

namespace {

using nlohmann::json;

constexpr unsigned long invite_hours_max = 30 * 24;

struct context {
  std::string data_dir;
  bool as_json = false;
};

std::string size(const json& j, const char* name) {
  auto at = j.find(name);
  return at != j.end() && at->is_number() ? format_size(at->get<std::uint64_t>()) : "-";
}
std::string word(const json& j, const char* name) {
  auto at = j.find(name);
  if (at == j.end() || at->is_null()) return "-";
  return at->is_string() ? at->get<std::string>() : at->dump();
}

std::string duration(double seconds) {
  const auto s = static_cast<long long>(seconds);
  return s < 120 ? std::to_string(s) + " s" : s < 7200 ? std::to_string(s / 60) + " min" : s < 172800 ? std::to_string(s / 3600) + " h" : std::to_string(s / 86400) + " days";
}

void print_status(const json& s) {
  std::printf("Cluster %s: %s\n%s\n\n", word(s, "cluster").substr(0, 8).c_str(), word(s, "health").c_str(), word(s, "say").c_str());
  if (s.value("removed", false)) return;
  std::printf("Copies  %s of %s     Zones  %s, %s up     Layout  revision %s, %s\n\n", word(s, "copies").c_str(), word(s, "copies_wanted").c_str(),
              word(s, "zones").c_str(), word(s, "zones_up").c_str(), word(s["layout"], "revision").c_str(), word(s["layout"], "phase").c_str());
  table t({"zone", "node", "state", "offered", "free", "round trip", "rate to it", "version", "address"});
  for (const auto& n : s["nodes"]) {
    std::string state = n.value("self", false) ? "this one" : n.value("up", false) ? "up" : "DARK";
    if (n.contains("down_for_s")) state += " " + duration(n["down_for_s"].get<double>());
    char rtt[32] = "-", rate[32] = "-";
    if (n.contains("rtt_ms")) std::snprintf(rtt, sizeof rtt, "%.1f ms", n["rtt_ms"].get<double>());
    if (n.value("send_rate", 0.0) > 0) std::snprintf(rate, sizeof rate, "%s/s", format_size(static_cast<std::uint64_t>(n["send_rate"].get<double>())).c_str());
    std::string address = n.contains("carried_by") ? "through " + word(n, "carried_by") : n.contains("addresses") && !n["addresses"].empty() ? n["addresses"][0].get<std::string>() : "-";
    std::string offered = n.value("capacity", 0ull) ? size(n, "capacity") : "gateway";
    t.add({word(n, "zone"), word(n, "id").substr(0, 8), state, offered, n.value("up", false) ? size(n, "free") : "-", rtt, rate, word(n, "version"), address});
  }
  t.print();
  for (const auto& n : s["nodes"])
    if (n.contains("clock_off_s")) {
      const auto off = n["clock_off_s"].get<std::int64_t>();
      std::printf("\nThe clock of %s is %lld s %s this one's.\n", word(n, "zone").c_str(), static_cast<long long>(std::abs(off)), off > 0 ? "ahead of" : "behind");
    }
  const auto& q = s["queues"];
  std::printf("\nQueues  resync %s   hints %s   guests %s   garbage %s   partitions to sync %s   homes to compare %s\n", word(q, "resync").c_str(), word(q, "hints").c_str(),
              word(q, "guests").c_str(), word(q, "garbage").c_str(), word(q, "sync").c_str(), word(q, "compare").c_str());
  if (s.contains("rows_passed_over"))
    std::printf("Repair passed over rows %s times since the homes were started: they were written while a clock was far ahead, or are damaged\n"
                "in one home. Repair goes on trying; where there are only two homes, a row of the future may be refused until its time has come.\n", word(s, "rows_passed_over").c_str());
  if (s.contains("refused_handshakes"))
    std::printf("Refused %s connections: no or another cluster's key, or an unknown invite; the last came from %s\n", word(s["refused_handshakes"], "count").c_str(),
                word(s["refused_handshakes"], "last_from").c_str());
  if (const auto& e = s["this_node"]["last_error"]; e.is_object())
    std::printf("Last error here, %s ago: %s%s\n", duration(e.value("ago_s", 0.0)).c_str(), e.contains("zone") ? (word(e, "zone") + ": ").c_str() : "", word(e, "what").c_str());
}

std::string period(double s) {
  const auto n = static_cast<long long>(s);
  return n >= 86400 && n % 86400 == 0 ? std::to_string(n / 86400) + " days" : n >= 60 && n % 60 == 0 ? std::to_string(n / 60) + " min" : std::to_string(n) + " s";
}

void print_repair(const json& r) {
  table t({"work", "waiting", "done", "bytes", "last run", "last error"});
  for (const auto& w : r["works"]) {
    const auto& e = w["last_error"];
    t.add({word(w, "work"), word(w, "waiting"), word(w, "items"), size(w, "bytes"), w["last_run_ago_s"].is_null() ? "-" : duration(w["last_run_ago_s"].get<double>()) + " ago",
           e.is_null() ? "-" : duration(e.value("ago_s", 0.0)) + " ago: " + (e.contains("zone") ? word(e, "zone") + ": " : "") + word(e, "what")});
  }
  t.print();
  const auto& b = r["budget"];
  auto limit = [&](const char* name) { return b.value(name, 0ull) ? size(b, name) + "/s" : std::string("none"); };
  std::printf("\nOf %s since its start. Unreferenced blocks in their time of grace: %s.\n", word(r, "zone").c_str(), word(r, "garbage").c_str());
  std::printf("Budget  upload limit %s   download limit %s   blocks fetched at once %s   everything read again in %s   rows compared each %s, brought each %s\n",
              limit("upload_limit").c_str(), limit("download_limit").c_str(), word(b, "blocks_at_once").c_str(), period(b.value("scrub_period_s", 0.0)).c_str(),
              period(b.value("comparison_every_s", 0.0)).c_str(), period(b.value("handoff_every_s", 0.0)).c_str());
}

void print_layout(const json& l) {
  const auto copies = l.value("copies", 0ull);
  std::printf("Layout revision %s (%s): %s partitions, %llu %s of each\n", word(l, "revision").c_str(), word(l, "phase").c_str(), word(l, "partitions").c_str(), copies,
              copies == 1 ? "copy" : "copies");
  for (const char* which : {"current", "next"}) {
    if (!l.contains(which)) continue;
    std::printf("\n%s version %s\n", which, word(l[which], "version").c_str());
    table t({"zone", "node", "offered", "partitions"});
    for (const auto& m : l[which]["members"])
      t.add({word(m, "zone"), word(m, "id").substr(0, 8), m.value("capacity", 0ull) ? size(m, "capacity") : "gateway", word(m, "partitions")});
    t.print();
  }
  if (l.contains("waits_for") && !l["waits_for"].empty()) {
    std::printf("\nThe change waits for");
    for (const auto& n : l["waits_for"]) std::printf(" %s", n.get<std::string>().substr(0, 8).c_str());
    std::printf("\n");
  }
}

void print_keys(const json& j) {
  table t({"access key id", "name", "owner", "may create buckets"});
  for (const auto& k : j["keys"])
    t.add({word(k, "access_key_id"), word(k, "name"), word(k, "owner_id").substr(0, 12), k.value("may_create_buckets", false) ? "yes" : "no"});
  t.print();
}

void print_key(const json& k) {
  std::printf("access key id      %s\nsecret access key  %s\nowner              %s\n", word(k, "access_key_id").c_str(), word(k, "secret_access_key").c_str(),
              word(k, "owner_id").c_str());
}

void print_buckets(const json& j) {
  table t({"bucket", "owner", "site", "keys"});
  for (const auto& b : j["buckets"])
    t.add({word(b, "name"), word(b, "owner_id").substr(0, 12), b["website"].is_null() ? "-" : word(b["website"], "index"), std::to_string(b["allowed"].size())});
  t.print();
}

void print_bucket(const json& b) {
  const bool unowned = b.value("owner_id", "").empty();
  std::printf("bucket    %s\nid        %s\nowner     %s\n", word(b, "name").c_str(), word(b, "id").c_str(),
              unowned ? (b["allowed"].empty() ? "no key ('storagectl bucket allow' lets one use it)" : "no key") : word(b, "owner_id").c_str());
  if (b.contains("objects"))
    std::printf("objects   %s\nbytes     %s (%s)\nuploads   %s unfinished\n", word(b, "objects").c_str(), word(b, "bytes").c_str(), size(b, "bytes").c_str(),
                word(b, "unfinished_uploads").c_str());
  if (!b["website"].is_null()) {
    const std::string error = b["website"].value("error", "");
    std::printf("site      index %s, %s\n", word(b["website"], "index").c_str(), error.empty() ? "no error page of its own" : ("error page " + error).c_str());
  }
  for (const auto& [key, p] : b["allowed"].items()) {
    std::string what;
    for (const char* r : {"read", "write", "owner"})
      if (p.value(r, false)) what += (what.empty() ? "" : ", ") + std::string(r);
    std::printf("allowed   %s: %s\n", key.c_str(), what.c_str());
  }
}

int run(const context& c, const std::string& path, const json& in, const std::function<void(const json&)>& print) {
  auto r = command(c.data_dir, path, in);
  if (!r) return say_error(r.error(), c.as_json);
  if (c.as_json)
    std::cout << r->dump(2) << "\n";
  else
    print(*r);
  return 0;
}

std::optional<std::string> environment(const std::string& name) {
  const char* v = std::getenv(name.c_str());
  return v ? std::optional<std::string>(v) : std::nullopt;
}

// Every flag and command, for "did you mean".
void collect(const CLI::App& app, std::vector<std::string>& names) {
  for (const auto* o : app.get_options())
    for (const auto& n : o->get_lnames()) names.push_back("--" + n);
  for (const auto* s : app.get_subcommands({})) {
    names.push_back(s->get_name());
    collect(*s, names);
  }
}

}  // namespace

int main_of(int argc, char** argv) {
  context c;
  c.data_dir = storaged::default_data_dir(::geteuid() == 0, environment);
  if (auto v = environment("STORAGED_DATA_DIR")) c.data_dir = *v;
  CLI::App app("storagectl: administers the storaged of this machine.", "storagectl");
  app.set_version_flag("--version", "storagectl " GRENIER_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--data-dir", c.data_dir, "the data directory of the storaged to speak to (default: as storaged's own)");
  app.add_flag("--json", c.as_json, "print JSON, for programs");
  int code = 0;
  json in = json::object();
  auto leaf = [&](CLI::App* sub, std::string path, std::function<void(const json&)> print) {
    sub->callback([&c, &in, &code, path = std::move(path), print = std::move(print)] { code = run(c, path, in, print); });
    return sub;
  };
  auto text = [&](CLI::App* sub, const char* flag, const char* field, const char* help) {
    return sub->add_option_function<std::string>(flag, [&in, field](const std::string& v) { in[field] = v; }, help);
  };
  auto toggle = [&](CLI::App* sub, const char* flag, const char* field, bool value, const char* help) {
    return sub->add_flag_callback(flag, [&in, field, value] { in[field] = value; }, help);
  };

  auto* invite = leaf(app.add_subcommand("invite", "print one line that lets one more home join (single use)"), "/invite",
                      [](const json& j) { std::printf("%s\n", word(j, "invite").c_str()); });
  invite->add_option_function<std::string>("--valid", [&in](const std::string& v) {
    const bool digits = !v.empty() && v.size() < 6 && v.find_first_not_of("0123456789") == std::string::npos;
    const unsigned long hours = digits ? std::stoul(v) : 0;
    if (hours < 1 || hours > invite_hours_max)
      throw CLI::ValidationError("--valid", "an invite is valid for 1 to " + std::to_string(invite_hours_max) + " whole hours (30 days); got '" + v + "'");
    in["valid_seconds"] = hours * 3600;
  }, "hours until it expires: 1 to 720 (default 24)");
  leaf(app.add_subcommand("status", "how the cluster is: homes, copies, lines, queues"), "/status", print_status);
  auto* repair = app.add_subcommand("repair", "start repair now instead of at its next turn");
  auto* repair_status = leaf(repair->add_subcommand("status", "what waits, what was done, what went wrong"), "/repair/status", print_repair);
  repair->callback([&c, &in, &code, repair_status] {
    if (!repair_status->parsed()) code = run(c, "/repair", in, [](const json&) { std::printf("Repair has started; 'storagectl repair status' shows what it does.\n"); });
  });
  auto* layout = app.add_subcommand("layout", "which home holds what")->require_subcommand(1);
  leaf(layout->add_subcommand("show", "members, partitions, and a change under way"), "/layout", print_layout);

  auto* leave = layout->add_subcommand("remove", "let a home that is gone for good leave; the others take over its part");
  auto print_left = [](const json& j) {
    std::printf("%s (%s) leaves; 'storagectl layout show' shows the change. It can join again only as a newcomer, with an empty data directory.\n", word(j, "zone").c_str(),
                word(j, "removed").substr(0, 8).c_str());
    std::printf(j.value("cluster_key_changed", false) ? "The cluster has a new key, which that home does not know. Invites made before are void.\n"
                                                      : "The cluster's key, which that home knows, is changed when the layout's change has ended and enough homes are there\n(cluster_key of 'storagectl status --json').\n");
    if (!j.contains("keys_to_renew_if_stolen") || j["keys_to_renew_if_stolen"].empty()) return;
    std::printf("\nIf its disk may be in other hands, renew these access keys ('storagectl key create', then 'key delete'):\n\n");
    table t({"access key id", "name"});
    for (const auto& k : j["keys_to_renew_if_stolen"]) t.add({word(k, "access_key_id"), word(k, "name")});
    t.print();
  };
  bool only_say = false;
  leave->add_flag("--dry-run", only_say, "say what would be lost, and do nothing");
  toggle(leave, "--yes", "accept_loss", true, "remove it also when something is or may be lost");
  // What is at stake is said before it is done; where something is, a person decides.
  leave->callback([&c, &in, &code, &only_say, print_left] {
    json question = in;
    question["dry_run"] = true;
    bool go_on = c.as_json && !only_say;  // a program: storaged refuses what is not safe, unless --yes
    if (!go_on) {
      code = run(c, "/layout/remove", question, [&](const json& j) {
        const json& d = j["departure"];
        std::printf("%s (%s): %s\n", word(d, "zone").c_str(), word(d, "id").substr(0, 8).c_str(), word(d, "say").c_str());
        go_on = d.value("safe", false) || in.value("accept_loss", false) || !d.value("decidable", true);  // that storaged refuses
        if (go_on || only_say || ::isatty(STDIN_FILENO) == 0) return;
        std::printf("Type its zone's name to remove it nevertheless: ");
        std::fflush(stdout);
        std::string typed;
        go_on = std::getline(std::cin, typed) && typed == word(d, "zone");
        if (go_on) in["accept_loss"] = true;
      });
      if (code != 0 || only_say) return;
      if (!go_on) {
        std::cerr << "storagectl: nothing was done. To remove it nevertheless: --yes\n";
        code = 5;
        return;
      }
    }
    code = run(c, "/layout/remove", in, print_left);
  });
  text(leave, "node", "node", "its zone, or the first digits of its id, four or more ('storagectl status' shows them)")->required();

  auto* key = app.add_subcommand("key", "access keys")->require_subcommand(1);
  auto* create = leaf(key->add_subcommand("create", "make an access key"), "/key/create", print_key);
  text(create, "name", "name", "what it is for")->required();
  text(create, "--id", "id", "this access key id (with --secret)");
  create->add_option_function<std::string>("--secret", [&in](const std::string& v) {
    std::string secret = v;
    if (v == "-") {  // a secret is no word for a command line, which others of this machine can read
      if (!std::getline(std::cin, secret)) throw CLI::ValidationError("--secret -", "no secret came on standard input");
      while (!secret.empty() && (secret.back() == '\r' || secret.back() == ' ')) secret.pop_back();
      if (secret.empty()) throw CLI::ValidationError("--secret -", "the line on standard input is empty");
    }
    in["secret"] = secret;
  }, "this secret; '-' reads it from standard input");
  text(create, "--owner-id", "owner_id", "the owner it acts for (default: a new one)");
  text(create, "--display-name", "display_name", "the owner's name as S3 shows it");
  text(create, "--email", "email", "the owner's mail address");
  toggle(create, "--no-create-bucket", "create_bucket", false, "the key may not create buckets");
  leaf(key->add_subcommand("list", "all keys (no secrets)"), "/key/list", print_keys);
  auto* forget = leaf(key->add_subcommand("delete", "delete a key"), "/key/delete", [](const json& j) { std::printf("Deleted %s\n", word(j, "deleted").c_str()); });
  text(forget, "id", "id", "its access key id")->required();

  auto* bucket = app.add_subcommand("bucket", "buckets")->require_subcommand(1);
  auto named = [&](const char* name, const char* help, const char* path, std::function<void(const json&)> print) {
    auto* sub = leaf(bucket->add_subcommand(name, help), path, std::move(print));
    text(sub, "name", "name", "the bucket")->required();
    return sub;
  };
  named("create", "make a bucket", "/bucket/create", print_bucket);
  leaf(bucket->add_subcommand("list", "all buckets"), "/bucket/list", print_buckets);
  named("info", "owner, size, permissions, site", "/bucket/info", print_bucket);
  named("delete", "delete an empty bucket", "/bucket/delete", [](const json& j) { std::printf("Deleted %s\n", word(j, "deleted").c_str()); });
  for (auto [name, path, help] : {std::tuple{"allow", "/bucket/allow", "let a key use the bucket"}, {"deny", "/bucket/deny", "take permissions back"}}) {
    auto* sub = named(name, help, path, print_bucket);
    text(sub, "--key", "key", "the access key id")->required();
    toggle(sub, "--read", "read", true, "list and read");
    toggle(sub, "--write", "write", true, "write and delete");
    toggle(sub, "--owner", "owner", true, "change settings, delete the bucket");
  }
  auto* site = named("website", "serve the bucket as a site", "/bucket/website", print_bucket);
  text(site, "--index", "index", "index document, for example index.html");
  text(site, "--error", "error", "page for what is not found");
  toggle(site, "--off", "off", true, "serve it no more");

  add_gallery_commands(app, {in, leaf, c.data_dir, c.as_json, code});

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    const CLI::App* at = &app;  // the command that was being read
    std::string path;
    while (!at->get_subcommands().empty()) {
      at = at->get_subcommands().back();
      path += at->get_name() + " ";
    }
    if (dynamic_cast<const CLI::RequiredError*>(&e) && !at->get_subcommands({}).empty()) {
      std::cerr << "storagectl: " << path << "needs a command:";
      for (const auto* s : at->get_subcommands({})) std::cerr << " " << s->get_name();
      std::cerr << "\n";
    } else {
      std::cerr << "storagectl: " << (path.empty() ? "" : path.substr(0, path.size() - 1) + ": ") << e.what() << "\n";
    }
    std::vector<std::string> names;
    collect(app, names);
    for (int i = 1; i < argc; ++i) {
      std::string arg = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
      if (std::find(names.begin(), names.end(), arg) != names.end()) continue;
      if (auto near = storaged::nearest(arg, names)) {
        std::cerr << "Did you mean " << *near << " for " << arg << "?\n";
        break;
      }
    }
    std::cerr << "'storagectl --help' and 'storagectl COMMAND --help' tell more.\n";
    return 2;
  }
  return code;
}

}  // namespace grenier::ctl

int main(int argc, char** argv) { return grenier::ctl::main_of(argc, argv); }
