#include "admin/control.h"

#include "admin/departure.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <nlohmann/json.hpp>
#include <set>

namespace grenier::admin {

using nlohmann::json;

namespace {

constexpr std::size_t command_bytes_max = 64 << 10;
constexpr std::uint64_t invite_hours_max = 30 * 24;

std::string text(const json& j, const char* name) {
  auto at = j.find(name);
  return at != j.end() && at->is_string() ? at->get<std::string>() : std::string();
}
bool flag(const json& j, const char* name, bool otherwise = false) {
  auto at = j.find(name);
  return at != j.end() && at->is_boolean() ? at->get<bool>() : otherwise;
}

int status_of(errc c) {
  switch (c) {
    case errc::invalid_argument: return 400;
    case errc::access_denied: return 403;
    case errc::not_found:
    case errc::no_such_bucket:
    case errc::no_such_key: return 404;
    case errc::already_exists:
    case errc::bucket_already_owned_by_you:
    case errc::bucket_not_empty:
    case errc::conflict: return 409;
    case errc::unavailable:
    case errc::timed_out:
    case errc::outcome_unknown: return 503;
    case errc::not_implemented: return 501;
    default: return 500;
  }
}

json key_json(const model::access_key& k, bool with_secret) {
  json j = {{"access_key_id", k.id}, {"owner_id", k.owner_id}, {"name", k.name}, {"may_create_buckets", k.may_create_buckets}, {"created_ms", k.created_ms}};
  if (!k.display_name.empty()) j["display_name"] = k.display_name;
  if (!k.email.empty()) j["email"] = k.email;
  if (with_secret) j["secret_access_key"] = k.secret;
  return j;
}

json bucket_json(const model::bucket& b) {
  json j = {{"name", b.name}, {"id", b.id.hex()}, {"owner_id", b.owner_id}, {"created_ms", b.created_ms}, {"region", b.region}};
  json allowed = json::object();
  for (const auto& [key, p] : b.allowed) allowed[key] = {{"read", p.read}, {"write", p.write}, {"owner", p.owner}};
  j["allowed"] = allowed;
  if (b.website)
    j["website"] = {{"index", b.website->index_document}, {"error", b.website->error_document}};
  else
    j["website"] = nullptr;
  return j;
}

const char* phase_name(layout::phase p) {
  switch (p) {
    case layout::phase::settled: return "settled";
    case layout::phase::moving: return "moving";
    case layout::phase::joint: return "joint";
  }
  return "";
}

// For people: by zone, then by id.
void sort_by_zone(json& members) {
  std::sort(members.begin(), members.end(), [](const json& a, const json& b) { return std::pair(text(a, "zone"), text(a, "id")) < std::pair(text(b, "zone"), text(b, "id")); });
}

double ms(nanoseconds d) { return static_cast<double>(d.count()) / 1e6; }

// Says which bucket, key or gallery an error is about, where it does not.
error about(const std::string& command, const json& in, error e) {
  constexpr std::array<std::array<const char*, 3>, 4> kinds = {{{"/bucket/", "name", "bucket"}, {"/gallery/", "name", "gallery"}, {"/key/create", "name", "access key"}, {"/key/delete", "id", "access key"}}};
  for (const auto& [prefix, field, kind] : kinds) {
    const std::string name = text(in, field);
    if (!command.starts_with(prefix) || name.empty() || name.size() > 300 || e.detail.find("'" + name + "'") != std::string::npos) continue;
    e.detail = std::string(kind) + " '" + name + "': " + (e.detail.empty() ? std::string(to_string(e.code)) : e.detail);
    break;
  }
  return e;
}

}  // namespace

task<void> control::handle_command(http::exchange& x) {
  bytes body;
  char b[8192];
  for (;;) {
    auto n = co_await x.read_body(b);
    if (!n) co_return;
    if (*n == 0) break;
    body.append(b, *n);
    if (body.size() > command_bytes_max) {
      (void)co_await x.send({413, {}, "{}"});
      co_return;
    }
  }
  json in = body.empty() ? json::object() : json::parse(body, nullptr, false);
  result<json> r = fail(errc::invalid_argument, "the command's body is no JSON object");
  if (in.is_object()) r = co_await run(x.request().path, in);
  if (!r) r = fail(about(x.request().path, in, r.error()));
  http::headers h;
  h.add("Content-Type", "application/json");
  if (r) {
    (void)co_await x.send({200, h, r->dump()});
  } else {
    json e = {{"error", {{"code", std::string(to_string(r.error().code))}, {"message", r.error().detail}}}};
    (void)co_await x.send({status_of(r.error().code), h, e.dump()});
  }
}

task<result<json>> control::run(std::string command, const json& in) {
  if (command == "/status") co_return status();
  if (command == "/layout") co_return layout();
  if (node_.removed()) co_return fail(errc::access_denied, node_.removed_text());
  if (command == "/layout/remove") {
    CO_TRY(node_id gone, find_member(text(in, "node")));
    const json at_stake = departure_of(gone);
    if (flag(in, "dry_run")) co_return json{{"departure", at_stake}};
    if (!at_stake["decidable"].get<bool>()) co_return fail(errc::conflict, "home " + at_stake["zone"].get<std::string>() + " cannot be removed now. " + at_stake["say"].get<std::string>());
    if (!at_stake["safe"].get<bool>() && !flag(in, "accept_loss"))
      co_return fail(errc::conflict, "home " + at_stake["zone"].get<std::string>() + " is not removed yet. " + at_stake["say"].get<std::string>() + " To do it nevertheless: --yes");
    CO_TRY(bool changed, co_await node_.remove(gone, rt_.now() + 15s));
    json keys = json::array();
    for (const auto& k : node_.store().list_keys()) keys.push_back({{"access_key_id", k.id}, {"name", k.name}});
    co_return json{{"removed", gone.hex()}, {"zone", at_stake["zone"]}, {"departure", at_stake}, {"cluster_key_changed", changed}, {"keys_to_renew_if_stolen", keys}};
  }
  if (command == "/invite") {
    std::uint64_t valid = 24 * 3600;
    if (auto at = in.find("valid_seconds"); at != in.end() && at->is_number_unsigned()) valid = at->get<std::uint64_t>();
    if (valid == 0 || valid > invite_hours_max * 3600)
      co_return fail(errc::invalid_argument, "an invite is valid for 1 to " + std::to_string(invite_hours_max) + " hours (30 days); got " + std::to_string(valid / 3600));
    CO_TRY(std::string line, co_await node_.make_invite(seconds(valid), rt_.now() + 15s));
    co_return json{{"invite", line}, {"valid_seconds", valid}};
  }
  if (command == "/repair") {
    node_.tables().repair_now();
    node_.blocks().repair_now();
    co_return json{{"started", true}};
  }
  if (command == "/repair/status") co_return repair_status();
  if (command.starts_with("/key/")) co_return co_await key_command(command.substr(5), in);
  if (command.starts_with("/bucket/")) co_return co_await bucket_command(command.substr(8), in);
  for (const auto& [prefix, fn] : others_)
    if (command.starts_with("/" + prefix + "/")) co_return co_await fn(command.substr(prefix.size() + 2), in);
  co_return fail(errc::not_implemented, "this storaged does not know the command " + command + "; is storagectl of another version?");
}

// By zone, or by the first digits of its id.
result<node_id> control::find_member(const std::string& wanted) const {
  std::vector<node_id> found;
  std::string all;
  for (const auto& m : node_.tables().layout().newest().members) {
    if (m.zone == wanted || (wanted.size() >= 4 && m.node.hex().starts_with(wanted))) found.push_back(m.node);
    all += (all.empty() ? "" : ", ") + m.zone + " " + m.node.hex().substr(0, 8);
  }
  if (found.size() == 1) return found[0];
  return fail(found.empty() ? errc::not_found : errc::invalid_argument,
              (found.empty() ? "no member is '" : "more than one member is '") + wanted + "': say the zone or the first digits of the id of one of " + all);
}

task<result<json>> control::key_command(std::string what, const json& in) {
  auto& s = node_.store();
  if (what == "create") {
    model::access_key k;
    k.name = text(in, "name");
    k.id = text(in, "id");
    k.secret = text(in, "secret");
    k.owner_id = text(in, "owner_id");
    k.display_name = text(in, "display_name");
    k.email = text(in, "email");
    k.may_create_buckets = flag(in, "create_bucket", true);
    if (k.name.empty() || k.name.size() > 128) co_return fail(errc::invalid_argument, "a key needs a name of 1 to 128 bytes");
    if (k.id.empty() != k.secret.empty()) co_return fail(errc::invalid_argument, "--id and --secret go together");
    CO_TRY(k, co_await s.create_key(as_admin(), k));
    co_return key_json(k, true);
  }
  if (what == "list") {
    json all = json::array();
    for (const auto& k : s.list_keys()) all.push_back(key_json(k, false));
    co_return json{{"keys", all}};
  }
  if (what == "delete") {
    CO_TRY_VOID(co_await s.delete_key(as_admin(), text(in, "id")));
    co_return json{{"deleted", text(in, "id")}};
  }
  co_return fail(errc::not_implemented, "no such key command: " + what);
}

task<result<json>> control::bucket_command(std::string what, const json& in) {
  auto& s = node_.store();
  std::string name = text(in, "name");
  if (what == "list") {
    json all = json::array();
    for (const auto& b : s.list_buckets({std::nullopt, true})) all.push_back(bucket_json(b));
    co_return json{{"buckets", all}};
  }
  if (what == "create") {
    CO_TRY(auto b, co_await s.create_bucket(as_admin(), name, "garage"));
    co_return bucket_json(b);
  }
  if (what == "delete") {
    CO_TRY_VOID(co_await s.delete_bucket(as_admin(), name));
    co_return json{{"deleted", name}};
  }
  if (what == "info") {
    CO_TRY(auto b, co_await s.head_bucket(as_admin(), name));
    CO_TRY(auto c, co_await s.count(as_admin(), name));
    json j = bucket_json(b);
    j["objects"] = c.objects;
    j["bytes"] = c.bytes;
    j["unfinished_uploads"] = c.uploads;
    co_return j;
  }
  if (what == "allow" || what == "deny") {
    std::string key = text(in, "key");
    bool on = what == "allow";
    model::permission p{flag(in, "read"), flag(in, "write"), flag(in, "owner")};
    if (!p.read && !p.write && !p.owner)
      co_return fail(errc::invalid_argument, std::string("say what the key ") + (on ? "may do" : "may do no more") + ": --read, --write, --owner or several of them");
    CO_TRY_VOID(co_await s.head_bucket(as_admin(), name));
    auto k = co_await s.find_key(key, rt_.now() + 10s);
    if (!k) co_return fail(k.error().code, "bucket '" + name + "': access key '" + key + "': " + (k.error().detail.empty() ? "there is none of this id" : k.error().detail) + " ('storagectl key list' shows them)");
    auto edit = [p, on, id = k->id](model::bucket& b) -> result<void> {
      auto& a = b.allowed[id];
      if (p.read) a.read = on;
      if (p.write) a.write = on;
      if (p.owner) a.owner = on;
      if (!a.read && !a.write && !a.owner) b.allowed.erase(id);
      return {};
    };
    CO_TRY(auto b, co_await s.change_bucket(as_admin(), name, edit));
    co_return bucket_json(b);
  }
  if (what == "website") {
    bool off = flag(in, "off");
    model::website w{text(in, "index"), text(in, "error")};
    if (off && !(w.index_document.empty() && w.error_document.empty()))
      co_return fail(errc::invalid_argument, "--off takes the site away and goes with neither --index nor --error");
    if (!off && w.index_document.empty()) co_return fail(errc::invalid_argument, "say --index FILE, for example --index index.html, to serve the bucket as a site, or --off to serve it no more");
    if (!off && (w.index_document.empty() || w.index_document.find('/') != std::string::npos))
      co_return fail(errc::invalid_argument, "--index needs a file name without '/', for example index.html");
    auto edit = [w, off](model::bucket& b) -> result<void> {
      if (off)
        b.website.reset();
      else
        b.website = w;
      return {};
    };
    CO_TRY(auto b, co_await s.change_bucket(as_admin(), name, edit));
    co_return bucket_json(b);
  }
  co_return fail(errc::not_implemented, "no such bucket command: " + what);
}

json control::departure_of(node_id gone) const {
  const auto& dir = node_.directory();
  const auto mine = node_.numbers();
  std::uint64_t missing = mine.at("queue/resync"), nowhere = mine.at("blocks_nowhere");
  for (const auto& m : node_.tables().layout().newest().members)
    if (m.node != node_.id() && dir.up(m.node)) {
      missing += dir.announced_number(m.node, "queue/resync").value_or(0);
      nowhere += dir.announced_number(m.node, "blocks_nowhere").value_or(0);
    }
  return weigh_departure(node_.tables().layout(), gone, [&](node_id n) { return n == node_.id() || dir.up(n); }, missing, nowhere).to_json();
}

// Nobody speaks to a home that was removed: it knows nothing of the others, and says nothing of them.
json control::status_of_removed() const {
  json j = {{"cluster", node_.cluster().hex()}, {"version", GRENIER_VERSION}, {"health", "removed"}, {"say", node_.removed_text()}, {"removed", true}, {"nodes", json::array()}};
  const auto blocks = node_.blocks().stats();
  j["this_node"] = {{"id", node_.id().hex()}, {"zone", node_.options().zone}, {"data_dir", node_.options().data_dir}, {"blocks", blocks.blocks}, {"stored", blocks.stored_bytes}};
  return j;
}

json control::status() const {
  if (node_.removed()) return status_of_removed();
  const auto& state = node_.tables().layout();
  const auto& dir = node_.directory();
  json nodes = json::array();
  std::set<std::string> zones, zones_up;
  json queues = json::object();
  constexpr std::array names = {"resync", "hints", "guests", "garbage", "sync", "compare"};
  for (const char* q : names) queues[q] = 0;
  const auto mine = node_.numbers();
  std::map<node_id, std::size_t> partitions;
  std::vector<std::string> damaged;
  std::size_t clocks_off = 0, others_up = 0, homes_dark = 0, reachable = 0, links_least = SIZE_MAX;
  std::map<node_id, std::string> zone_of;
  for (const auto& m : state.newest().members) zone_of[m.node] = m.zone;
  std::uint64_t passed_over = 0;
  for (const auto& replicas : state.newest().assignment)
    for (const auto& n : replicas) ++partitions[n];
  for (const auto& m : state.newest().members) {
    auto known = dir.find(m.node);
    bool self = m.node == node_.id(), up = self || dir.up(m.node);
    if (m.capacity_bytes) {
      zones.insert(m.zone);
      if (up) zones_up.insert(m.zone);
    }
    json j = {{"id", m.node.hex()}, {"zone", m.zone}, {"up", up}, {"self", self}, {"capacity", m.capacity_bytes}, {"partitions", partitions[m.node]}};
    if (known) {
      j["addresses"] = known->info.addresses;
      // Of a home that is dark this is what it said last; of one that has not said anything since this start, nothing.
      j["free"] = known->incarnation ? json(known->info.space_free_bytes) : json(nullptr);
      j["version"] = known->info.software;
      json services = json::object();
      for (const auto& [name, port] : known->info.services) services[name] = port;
      j["services"] = services;
    }
    if (!self && up) {
      if (auto by = node_.wire().carried_by(m.node)) j["carried_by"] = zone_of.contains(*by) ? zone_of[*by] : by->hex();
      j["rtt_ms"] = ms(dir.rtt(m.node));
      j["send_rate"] = dir.rate_to(m.node);
    }
    if (auto since = dir.down_since(m.node); since && !self) j["down_for_s"] = ms(rt_.now() - *since) / 1e3;
    if (auto n = dir.announced_number(m.node, "stored")) j["stored"] = *n;
    if (auto off = node_.clock_off(m.node)) {
      j["clock_off_s"] = off->count();
      ++clocks_off;
    }
    const bool broken = self ? !node_.rows().stats().damage.empty() : dir.announced_number(m.node, "damaged").value_or(0) != 0;
    if (broken) j["damaged"] = true, damaged.push_back(m.zone);
    others_up += !self && up;
    homes_dark += !up && m.capacity_bytes != 0;
    if (known && up) {
      reachable += known->reachable;
      links_least = std::min(links_least, known->links.size());
    }
    passed_over += self ? mine.at("rows_passed_over") : dir.announced_number(m.node, "rows_passed_over").value_or(0);
    for (const char* q : names) {
      const auto name = std::string("queue/") + q;
      if (auto n = self ? std::optional(mine.at(name)) : dir.announced_number(m.node, name)) queues[q] = queues[q].get<std::uint64_t>() + *n;
    }
    nodes.push_back(j);
  }
  sort_by_zone(nodes);
  std::size_t copies = state.current.copies();
  json j = {{"cluster", node_.cluster().hex()}, {"version", GRENIER_VERSION}, {"copies", copies}, {"copies_wanted", layout::replicas_max},
            {"zones", zones.size()}, {"zones_up", zones_up.size()}, {"nodes", nodes}, {"queues", queues}};
  j["layout"] = {{"revision", state.revision}, {"phase", phase_name(state.phase)}};
  j["cluster_key"] = {{"changes", node_.key_changes()}, {"current", node_.key_is_current()}};
  std::string health, say;
  auto of = [&](const char* queue) { return queues[queue].get<std::uint64_t>() != 0; };
  std::size_t dark = zones.size() - zones_up.size();
  if (state.phase != layout::phase::settled) {
    health = "changing";
    say = "The layout is changing: homes are taking over their part of the data. Everything works meanwhile.";
    if (const auto missed = node_.waits_for_dark(); !missed.empty())
      say += " It waits for " + missed + ", which is dark: start it, or, if it is gone for good, 'storagectl layout remove' it.";
  } else if (dark == 0 && copies >= layout::replicas_max && homes_dark) {
    health = "degraded";
    say = homes_dark == 1 ? "A home is dark. Everything works; what it should hold gets its third copy when it is back, or elsewhere once it is removed."
                          : "Homes are dark. Everything works; what they should hold gets its third copy when they are back, or elsewhere once they are removed.";
  } else if (dark == 0 && copies >= layout::replicas_max && (of("resync") || of("hints") || of("sync") || of("compare"))) {
    health = "catching up";
    say = "All homes are up and everything works. Some of it is still on its way to its third home (queues).";
  } else if (dark == 0 && copies >= layout::replicas_max) {
    health = "healthy";
    say = "Everything is kept in three homes, and all of them are up.";
  } else if (dark == 0) {
    health = "growing";
    say = copies == 1 ? "There is ONE copy of everything: this cluster has one home. Invite others: storagectl invite."
                      : "There are two copies of everything. With a third home there would be three: storagectl invite.";
  } else if (copies >= 3 && dark == 1) {
    health = "degraded";
    say = "One zone is dark. Everything works; what is written now gets its third copy when it is back.";
  } else if (copies == 2 && zones_up.size() == 1) {
    bool casting = state.current.casting == node_.id();
    health = casting ? "one copy" : "read only";
    say = casting ? "The other home is dark. This one goes on alone: what is written now has one copy."
                  : "The other home is dark and has the casting vote: this one only reads, and what it shows may be old.";
  } else {
    health = "no quorum";
    say = "Too many zones are dark: writes are refused until one comes back, and what this one shows may be old. Nothing is lost.";
  }
  if (clocks_off) {
    health = "clocks differ";
    say += clocks_off == others_up && others_up > 1 ? " This home's clock is wrong: set it (timedatectl); until then it takes no part in writing."
                                                    : " The clock of a home is wrong: set it there (timedatectl); until then that home takes no part in writing.";
  }
  if (!damaged.empty()) {
    health = "damaged";
    for (const auto& z : damaged)
      say += " The row store of " + z + " is damaged; the other homes answer for it. Renew it: stop it, move its data directory away and join again (storaged(8), WHEN ROWS ARE LOST).";
  }
  // Said once every home has told of its lines to all others. Of two homes one that can be reached is enough.
  if (others_up >= 2 && reachable < 2 && links_least >= others_up)
    say += " Only one home can be reached from outside: when it is dark, the others cannot speak to each other. Forward the RPC port of another one and tell it "
           "so (--rpc-public).";
  j["health"] = health;
  j["say"] = say;
  if (passed_over) j["rows_passed_over"] = passed_over;
  auto refused = node_.wire().refused();
  if (refused.count) j["refused_handshakes"] = {{"count", refused.count}, {"last_from", refused.last_from}};
  auto blocks = node_.blocks().stats();
  j["this_node"] = {{"id", node_.id().hex()}, {"blocks", blocks.blocks}, {"stored", blocks.stored_bytes}, {"corrupt_found", blocks.corrupt_found},
                    {"repaired", blocks.repaired}, {"damage", node_.rows().stats().damage}, {"last_error", trouble()}};
  return j;
}

json control::layout() const {
  const auto& s = node_.tables().layout();
  json j = {{"revision", s.revision}, {"phase", phase_name(s.phase)}, {"partitions", s.partition_count()}, {"copies", s.current.copies()}};
  auto members = [](const layout::version& v) {
    std::map<node_id, std::size_t> count;
    for (const auto& r : v.assignment)
      for (const auto& n : r) ++count[n];
    json all = json::array();
    for (const auto& m : v.members) all.push_back({{"id", m.node.hex()}, {"zone", m.zone}, {"capacity", m.capacity_bytes}, {"partitions", count[m.node]}});
    sort_by_zone(all);
    return all;
  };
  j["current"] = {{"version", s.current.number}, {"members", members(s.current)}};
  if (s.next) {
    j["next"] = {{"version", s.next->number}, {"members", members(*s.next)}};
    json waits = json::array();
    for (const auto& n : node_.tables().layout_waits_for()) waits.push_back(n.hex());
    j["waits_for"] = waits;
  }
  return j;
}

// ------------------------------------------------------------------------------------------------- the admin port

task<void> control::handle_admin(http::exchange& x) {
  const auto& r = x.request();
  http::headers h;
  h.add("Content-Type", "text/plain; charset=utf-8");
  if (r.method != "GET" && r.method != "HEAD") {
    (void)co_await x.send({405, h, "GET only\n"});
  } else if (r.path == "/health") {
    const bool ok = serving_ && !node_.removed();
    (void)co_await x.send({ok ? 200 : 503, h, ok ? "ok\n" : node_.removed() ? "removed\n" + node_.removed_text() + "\n" : "not serving\n"});
  } else if (r.path == "/metrics") {
    h.set("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    (void)co_await x.send({200, h, metrics()});
  } else {
    (void)co_await x.send({404, h, "There are /health and /metrics here.\n"});
  }
}

std::string control::metrics() const {
  std::map<std::string, prometheus::MetricFamily> families;
  auto add = [&](const std::string& name, const char* help, double value, std::vector<std::pair<std::string, std::string>> labels = {}) {
    auto& f = families[name];
    f.name = name;
    if (f.help.empty()) f.help = help;
    f.type = prometheus::MetricType::Untyped;
    prometheus::ClientMetric m;
    m.untyped.value = value;
    for (auto& [k, v] : labels) m.label.push_back({k, v});
    f.metric.push_back(std::move(m));
  };
  auto number = [](auto v) { return static_cast<double>(v); };
  const auto& state = node_.tables().layout();
  add("grenier_build_info", "1, with the version as a label", 1, {{"version", GRENIER_VERSION}});
  add("grenier_copies", "copies of every row and block that the layout asks for now", number(state.current.copies()));
  add("grenier_layout_revision", "revision of the layout", number(state.revision));
  add("grenier_layout_changing", "1 while a change of the layout is under way", state.phase != layout::phase::settled);
  for (const auto& m : state.newest().members) {
    std::vector<std::pair<std::string, std::string>> l = {{"node", m.node.short_hex()}, {"zone", m.zone}};
    add("grenier_node_up", "1 when this home sees the node alive", node_.directory().up(m.node), l);
    add("grenier_node_rtt_seconds", "smoothed round trip to the node", ms(node_.directory().rtt(m.node)) / 1e3, l);
    if (auto off = node_.clock_off(m.node)) add("grenier_node_clock_ahead_seconds", "how far the node's clock is ahead of this one's, when it is too far", number(off->count()), l);
    add("grenier_node_send_rate_bytes", "measured rate to the node, bytes a second; 0: not measured", node_.directory().rate_to(m.node), l);
  }
  auto b = node_.blocks().stats();
  add("grenier_blocks", "blocks on this node", number(b.blocks));
  add("grenier_block_stored_bytes", "bytes of blocks on this node", number(b.stored_bytes));
  add("grenier_capacity_bytes", "bytes this node offers", number(b.capacity_bytes));
  add("grenier_free_bytes", "bytes of that still free", number(b.free_bytes));
  add("grenier_block_corrupt_total", "block files found damaged", number(b.corrupt_found));
  add("grenier_block_repaired_total", "block files made whole from another copy", number(b.repaired));
  add("grenier_block_deduplicated_total", "blocks that were there already", number(b.deduplicated));
  add("grenier_block_scrubbed_total", "blocks read and checked by the scrub", number(b.scrubbed));
  add("grenier_queue_length", "work that waits", number(b.resync_queue), {{"queue", "resync"}});
  add("grenier_queue_length", "work that waits", number(b.guests), {{"queue", "guests"}});
  add("grenier_queue_length", "work that waits", number(b.garbage_queue), {{"queue", "garbage"}});
  auto t = node_.tables().status();
  add("grenier_queue_length", "work that waits", number(t.hints), {{"queue", "hints"}});
  add("grenier_queue_length", "work that waits", number(t.partitions_to_sync), {{"queue", "sync"}});
  add("grenier_queue_length", "work that waits", number(t.homes_to_compare), {{"queue", "compare"}});
  add("grenier_repair_rows_received_total", "rows brought here by repair", number(t.rows_received));
  add("grenier_repair_rows_passed_over_total", "rows that repair could not bring here or send: of a time far ahead, or damaged there", number(t.rows_passed_over));
  add("grenier_repair_rows_sent_total", "rows sent to others by repair", number(t.rows_sent));
  for (const auto& u : upkeep_here()) {
    const std::vector<std::pair<std::string, std::string>> l = {{"work", u.name}};
    add("grenier_repair_items_total", "what a kind of background work has done: rows, comparisons, partitions or blocks", number(u.done.items), l);
    add("grenier_repair_bytes_total", "bytes that it sent, fetched or read for that", number(u.done.bytes), l);
    if (u.done.last_run) add("grenier_repair_last_run_age_seconds", "how long ago it last did or tried something", ms(rt_.now() - *u.done.last_run) / 1e3, l);
    const json e = trouble_of(u.done);
    add("grenier_repair_failing", "1 while its last error has not been followed by success", !e.is_null(), l);
    if (!e.is_null()) add("grenier_repair_last_error_age_seconds", "how long ago that error was", e["ago_s"].get<double>(), l);
  }
  add("grenier_repair_budget", "bounds on background work in force: bytes a second (0: none), blocks at once, seconds between rounds", number(node_.options().upload_limit), {{"of", "upload_limit"}});
  add("grenier_repair_budget", "", number(node_.options().download_limit), {{"of", "download_limit"}});
  add("grenier_repair_budget", "", number(node_.options().block.resync_parallel), {{"of", "blocks_at_once"}});
  add("grenier_repair_budget", "", ms(node_.options().block.scrub_period) / 1e3, {{"of", "scrub_period_seconds"}});
  auto k = node_.rows().stats();
  add("grenier_kv_syncs_total", "synced writes of the row log", number(k.commits));
  add("grenier_kv_batches_total", "batches that shared them", number(k.batches));
  add("grenier_kv_memory_bytes", "memory of the row store", number(k.memory_bytes));
  add("grenier_kv_damaged", "1 when a damaged file was met in the row store", !k.damage.empty());
  add("grenier_kv_live_bytes", "bytes of rows on disk", number(k.live_bytes));
  add("grenier_refused_handshakes_total", "peers refused for a wrong key", number(node_.wire().refused().count));
  for (const auto& [name, value] : more_().values) {
    auto brace = name.find('{');
    std::vector<std::pair<std::string, std::string>> labels;
    if (brace != std::string::npos) {  // name{key=value,key=value}
      std::string rest = name.substr(brace + 1, name.size() - brace - 2);
      for (std::size_t at = 0; at < rest.size();) {
        auto eq = rest.find('=', at), comma = std::min(rest.find(',', at), rest.size());
        if (eq == std::string::npos || eq > comma) break;
        labels.emplace_back(rest.substr(at, eq - at), rest.substr(eq + 1, comma - eq - 1));
        at = comma + 1;
      }
    }
    add(name.substr(0, brace), "requests served", value, std::move(labels));
  }
  std::vector<prometheus::MetricFamily> list;
  for (auto& [name, f] : families) list.push_back(std::move(f));
  return prometheus::TextSerializer().Serialize(list);
}

}  // namespace grenier::admin
