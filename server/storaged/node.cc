#include "storaged/node.h"

#include "storaged/keyring.h"

#include <deque>
#include <nlohmann/json.hpp>

namespace grenier::storaged {

namespace {

using json = nlohmann::json;

constexpr std::string_view invite_head = "grenier2.", invite_head_former = "grenier1.";

// Strings out of foreign JSON: missing or of another type is empty.
std::string text(const json& j, const char* name) {
  auto at = j.find(name);
  return at != j.end() && at->is_string() ? at->get<std::string>() : std::string();
}
std::uint64_t number(const json& j, const char* name) {
  auto at = j.find(name);
  return at != j.end() && at->is_number_unsigned() ? at->get<std::uint64_t>() : 0;
}
result<json> parse_object(bytes_view b) {
  json j = json::parse(b, nullptr, false);
  if (!j.is_object()) return fail(errc::protocol, "not the JSON object that was expected");
  return j;
}
std::vector<std::string> texts(const json& j, const char* name) {
  std::vector<std::string> all;
  auto at = j.find(name);
  if (at != j.end() && at->is_array())
    for (const auto& v : *at)
      if (v.is_string() && all.size() < 16) all.push_back(v.get<std::string>());
  return all;
}

bool is_zone_name(std::string_view z) {
  return !z.empty() && z.size() <= 64 && std::ranges::all_of(z, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

constexpr std::size_t invite_check_bytes = 4;
bytes invite_check(bytes_view body) { return crypto::digest(crypto::hash_kind::sha256, body).substr(0, invite_check_bytes); }

std::string ago(std::uint64_t ms) {
  const std::uint64_t s = ms / 1000;
  return s < 120 ? std::to_string(s) + " seconds" : s < 7200 ? std::to_string(s / 60) + " minutes" : s < 172800 ? std::to_string(s / 3600) + " hours" : std::to_string(s / 86400) + " days";
}

table::row_key invite_key(bytes_view id) { return {table::table_id::invite, bytes(id), {}}; }

}  // namespace

std::string invite::encode() const {
  json j = {{"a", addresses}, {"i", to_hex(id)}, {"s", to_hex(secret)}, {"c", cluster.hex()}};
  bytes body = j.dump();
  return std::string(invite_head) + to_hex(body + invite_check(body));
}

result<invite> invite::decode(std::string_view line) {
  auto wrong = [](const char* what) {
    return fail(errc::invalid_argument, std::string("this is not a whole invite: ") + what +
                                            ". Copy the whole line that 'storagectl invite' printed; it begins with 'grenier2.' and has no spaces");
  };
  while (!line.empty() && std::isspace(static_cast<unsigned char>(line.front()))) line.remove_prefix(1);
  while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.remove_suffix(1);
  if (line.starts_with(invite_head_former))
    return fail(errc::invalid_argument, "this invite was made by an older version of Grenier: upgrade that home, then make a new one there ('storagectl invite')");
  if (!line.starts_with(invite_head)) return wrong("it does not begin with 'grenier2.'");
  if (line.size() > 8192) return wrong("it is too long");
  auto raw = from_hex(line.substr(invite_head.size()));
  if (!raw || raw->size() <= invite_check_bytes) return wrong("a part is missing or altered");
  bytes body = raw->substr(0, raw->size() - invite_check_bytes);
  if (raw->substr(body.size()) != invite_check(body)) return wrong("a part is missing or altered");
  auto j = parse_object(body);
  if (!j) return wrong("it cannot be read");
  invite v;
  v.addresses = texts(*j, "a");
  auto id = from_hex(text(*j, "i")), secret = from_hex(text(*j, "s")), cluster = from_hex(text(*j, "c"));
  if (!id || !secret || !cluster || id->size() != wire::invite_id_bytes || secret->size() != 32 || v.addresses.empty()) return wrong("it cannot be read");
  auto leads_to = cluster_id::from_bytes(*cluster);
  if (!leads_to) return wrong("it cannot be read");
  v.id = std::move(*id);
  v.secret = std::move(*secret);
  v.cluster = *leads_to;
  return v;
}

struct node::impl {
  impl(runtime& rt_, network& net_, kv::store& kv_, std::vector<block::drive> drives_, node_options o)
      : rt(rt_), net(net_), kv(kv_), options(std::move(o)), drives(std::move(drives_)), hlc(rt_), keys(rt_, kv_), group(rt_) {}

  // ------------------------------------------------------------------------------------------- what is kept of this node
  task<result<std::optional<bytes>>> get(bytes name) { return kv.get(kv::family::meta, std::move(name)); }

  task<result<void>> load_identity() {
    kv::batch b;
    CO_TRY(auto seed, co_await get("node/key"));
    if (!seed) {
      seed.emplace(32, '\0');
      rt.random().fill(seed->data(), 32);
      b.put(kv::family::meta, "node/key", *seed);
    }
    if (seed->size() != 32) co_return fail(errc::io_failed, "the node key in the database is damaged");
    key.emplace(crypto::node_key::from_seed(*seed));
    CO_TRY(auto number_, co_await get("node/start"));
    start_number = number_ && number_->size() == 4 ? read_u32(*number_) + 1 : 1;
    bytes n;
    append_u32(n, start_number);
    b.put(kv::family::meta, "node/start", n);
    CO_TRY(auto cluster_, co_await get("cluster/id"));
    if (cluster_) {
      CO_TRY(cluster, cluster_id::from_bytes(*cluster_));
      CO_TRY_VOID(co_await keys.load());
      CO_TRY(begun, co_await get("cluster/begun"));
      CO_TRY(auto out, co_await get("node/removed"));
      is_removed = out.has_value();
    }
    co_return co_await kv.commit(std::move(b));
  }

  // With what the rest of founding or joining takes: an invite is good for once, and who dies before finish_beginning() goes on from here.
  task<result<void>> keep_cluster(keyring ring, json rest) {
    kv::batch b;
    b.put(kv::family::meta, "cluster/id", cluster.str());
    keys.begin(std::move(ring), b);
    b.put(kv::family::meta, "cluster/begun", rest.dump());
    co_return co_await kv.commit(std::move(b));
  }

  // An earlier start died on its way into the cluster: the steps that it had done are found done.
  result<void> resume_beginning(bytes_view rest) {
    TRY(json j, parse_object(rest));
    if (text(j, "host").empty()) {
      did_found = true;
      return {};
    }
    TRY(bytes host_, from_hex(text(j, "host")));
    TRY(host, node_id::from_bytes(host_));
    TRY(bytes raw, from_hex(text(j, "layout")));
    TRY(adopted, layout::decode(raw));
    known_peers = texts(j, "addresses");
    did_join = true;
    return {};
  }

  task<result<void>> finish_beginning() {
    kv::batch b;
    b.put(kv::family::meta, "peers", directory->export_peers());
    b.remove(kv::family::meta, "cluster/begun");
    co_return co_await kv.commit(std::move(b));
  }

  // ------------------------------------------------------------------------------------------- joining, from outside
  json self_card() const {
    return {{"zone", options.zone}, {"capacity", options.capacity_bytes}, {"addresses", options.rpc_public}, {"node", key->id().hex()},
            {"version", GRENIER_VERSION}};
  }

  // A unit file may go on saying --join, with a line that nobody can use any more; but data of one cluster never go to another one unasked.
  result<void> judge_join(std::string_view line) {
    auto v = invite::decode(line);
    if (!v) {
      rt.log(log_level::info, "--join is ignored: this home is a member of a cluster already, and the line is no invite that this version can read");
      return {};
    }
    if (v->cluster != cluster)
      return fail(errc::already_exists, "the data directory belongs to a home of cluster " + cluster.hex().substr(0, 8) + ", and the invite leads to cluster " +
                                            v->cluster.hex().substr(0, 8) + ". Leave out --join to go on in the old cluster, or name an empty directory (--data-dir) to join the new one");
    if (is_removed) {  // no reason to end: whoever starts it again and again would learn nothing from status and /health
      rt.log(log_level::warning, "--join is ignored: this home was removed from the invite's cluster, and joins again only with an empty data directory");
      return {};
    }
    rt.log(log_level::info, "--join is not needed any more: this home is a member of the invite's cluster");
    return {};
  }

  task<result<void>> join(std::string line) {
    CO_TRY(invite v, invite::decode(line));
    wire::options o{"", *key, {}, {}, options.upload_limit, options.download_limit};
    auto dialler = wire::make_endpoint(rt, net, std::move(o));
    error last{errc::unavailable, "no address of the invite answered"};
    for (const auto& address : v.addresses) {
      auto r = co_await dialler->call_with_invite(address, v.id, v.secret, {self_card().dump(), nullptr}, rt.now() + 90s);
      if (!r) {
        rt.log(log_level::info, "join: " + address + ": " + r.error().to_string());
        // A refusal by somebody who knows the invite counts for more than an address that does not answer.
        if (last.code != errc::access_denied && last.code != errc::conflict)
          last = error(r.error().code, r.error().detail.starts_with(address) ? r.error().detail : address + ": " + r.error().detail);
        continue;
      }
      co_await dialler->stop();
      CO_TRY(json j, parse_object(r->answer.head));
      CO_TRY(bytes id, from_hex(text(j, "cluster")));
      CO_TRY(cluster, cluster_id::from_bytes(id));
      CO_TRY(bytes raw, from_hex(text(j, "layout")));
      CO_TRY(adopted, layout::decode(raw));
      keyring ring;
      if (const std::string whole = text(j, "keyring"); !whole.empty()) {
        CO_TRY(ring, keyring::decode(whole));
      } else {  // a host of a version that never changed the key
        CO_TRY(bytes one, from_hex(text(j, "key")));
        if (one.size() != 32) co_return fail(errc::protocol, "the cluster answered without its key");
        ring.keys = {std::move(one)};
      }
      known_peers = texts(j, "addresses");
      host = r->peer;
      co_return co_await keep_cluster(std::move(ring), {{"host", host->hex()}, {"layout", to_hex(raw)}, {"addresses", known_peers}});
    }
    co_await dialler->stop();
    if (last.code == errc::access_denied)
      co_return fail(errc::access_denied, "the invite was refused (" + last.detail + "). Ask for a new one: 'storagectl invite' at a home of the cluster");
    if (last.code == errc::unavailable || last.code == errc::timed_out)
      co_return fail(last.code, "no home of the invite could be reached (" + last.detail + "). Is it up, and does its router forward its RPC port?");
    co_return fail(last);
  }

  // ------------------------------------------------------------------------------------------- joining, seen from inside
  task<std::optional<bytes>> invite_secret(bytes id) {
    auto r = co_await tables->read(invite_key(id), {.deadline = rt.now() + 4s});
    if (!r || !r->value.present) co_return std::nullopt;
    auto j = parse_object(r->value.row);
    // Whoever knows the secret of one that is spent or expired is let in as far as spend_invite(), which tells why not.
    if (!j) co_return std::nullopt;
    auto secret = from_hex(text(*j, "secret"));
    if (!secret) co_return std::nullopt;
    co_return std::move(*secret);
  }

  task<result<void>> spend_invite(bytes id, node_id by, mono_time deadline) {
    std::uint64_t now_ms = rt.wall_ms();
    auto judge = [now_ms, by](const table::row& current) -> result<table::row_value> {
      auto j = current.value.present ? parse_object(current.value.row) : result<json>(fail(errc::not_found));
      if (!j) return fail(errc::access_denied, "nobody knows this invite");
      std::string spent = text(*j, "spent_by");
      if (!spent.empty() && spent != by.hex()) return fail(errc::access_denied, "it was used already, and an invite is good for one home");
      if (const auto until = number(*j, "expires_ms"); until < now_ms) return fail(errc::access_denied, "it expired " + ago(now_ms - until) + " ago");
      (*j)["spent_by"] = by.hex();
      return table::row_value{true, j->dump(), nullptr};
    };
    auto r = co_await tables->compare_and_swap(invite_key(id), judge, {.deadline = deadline});
    if (!r) co_return fail(r.error());
    co_return result<void>();
  }

  task<result<wire::message>> admit(wire::caller from, wire::message m) {
    CO_TRY(json j, parse_object(m.head));
    layout::member wanted{from.node, text(j, "zone"), number(j, "capacity")};
    if (!from.by_invite) co_return fail(errc::access_denied, "joining takes an invite");
    // Before the invite is spent, and before anything of it is written down.
    if (!is_zone_name(wanted.zone)) co_return fail(errc::invalid_argument, "a zone's name has 1 to 64 of a-z, 0-9 and '-'");
    CO_TRY_VOID(co_await spend_invite(from.invite_id, from.node, from.deadline));
    rt.log(log_level::info, "home " + wanted.zone + " (" + from.node.short_hex() + ") joins");
    directory->add_peer(from.node, texts(j, "addresses"));
    CO_TRY_VOID(co_await set_member(wanted, from.deadline));
    json answer = {{"cluster", cluster.hex()}, {"key", to_hex(keys.ring().keys[0])}, {"keyring", keys.ring().encode()}, {"layout", to_hex(layout::encode(tables->layout()))}};
    answer["addresses"] = addresses_for_strangers();
    co_return wire::message{answer.dump(), nullptr};
  }

  // Adds or changes a member; waits while another change of the layout is under way.
  task<result<void>> set_member(layout::member wanted, mono_time deadline) {
    auto edit = [wanted](const layout::state& s) -> result<std::vector<layout::member>> {
      std::vector<layout::member> all = s.newest().members;
      auto at = std::find_if(all.begin(), all.end(), [&](const layout::member& x) { return x.node == wanted.node; });
      if (at == all.end())
        all.push_back(wanted);
      else
        *at = wanted;
      return all;
    };
    for (;;) {
      const layout::member* have = tables->layout().newest().find(wanted.node);
      if (have && *have == wanted) co_return result<void>();
      auto r = co_await tables->change_members(edit, {}, deadline);
      if (r || (r.error().code != errc::conflict && r.error().code != errc::unavailable && r.error().code != errc::outcome_unknown)) co_return r;
      if (rt.now() + 500ms > deadline) co_return fail(errc::conflict, still_changing());
      co_await sleep_for(rt, 300ms);
    }
  }

  // ------------------------------------------------------------------------------------------- starting
  void build() {
    const auto& ring = keys.ring().keys;
    wire::options o{options.rpc_listen, *key, ring[0], cluster, options.upload_limit, options.download_limit, options.protocol_version};
    o.former_keys.assign(ring.begin() + 1, ring.end());
    endpoint = wire::make_endpoint(rt, net, std::move(o));
    directory = std::make_unique<cluster::directory>(rt, *endpoint, key->id());
    auto to = options.table;
    to.start_number = start_number;
    tables = std::make_unique<table::replicated>(rt, kv, *endpoint, *directory, hlc, key->id(), to);
    blocks = std::make_unique<block::manager>(rt, kv, *endpoint, *directory, *tables, key->id(), std::move(drives), options.block);
    service = std::make_unique<store::service>(rt, kv, *tables, *blocks, *directory, hlc, options.store);
  }


  task<result<void>> start() {
    CO_TRY_VOID(co_await load_identity());
    bool fresh = cluster.is_zero();
    if (!fresh && options.join) CO_TRY_VOID(judge_join(*options.join));
    if (begun) {
      CO_TRY_VOID(resume_beginning(*begun));
    } else if (fresh && options.join) {
      CO_TRY_VOID(co_await join(*options.join));
      did_join = true;
    } else if (fresh) {
      cluster = rt.random().make_id<cluster_id>();
      did_found = true;
      CO_TRY_VOID(co_await keep_cluster(key_keeper::first(rt.random()), {{"founded", true}}));
    }
    build();
    endpoint->serve(wire::method::join, [this](wire::caller from, wire::message m) { return admit(std::move(from), std::move(m)); });
    keys.prepare({*endpoint, *directory, *tables}, [this] { learn_removal(), follow(tables->layout()); });
    endpoint->on_invite([this](bytes id) { return invite_secret(std::move(id)); });
    CO_TRY_VOID(service->prepare());
    CO_TRY_VOID(blocks->prepare());
    if (did_found) {
      auto made_layout = co_await tables->found(layout::found(cluster, {key->id(), options.zone, options.capacity_bytes}));
      if (!made_layout && !made_layout.failed_with(errc::already_exists)) co_return made_layout;
    }
    if (did_join) CO_TRY_VOID(co_await tables->adopt(*adopted));
    tables->on_layout([this](const layout::state& s) { follow(s); });
    cluster::self_info card;
    card.zone = options.zone;
    card.addresses = options.rpc_public;
    card.services = options.services;
    card.software = GRENIER_VERSION;
    card.start = start_number;
    directory->set_self(card);
    CO_TRY(auto peers, co_await get("peers"));
    if (peers)
      if (auto r = directory->import_peers(*peers); !r) rt.log(log_level::warning, "the list of peers is damaged: " + r.error().to_string());
    // Before others reach the tables: the store's counters then change together with the rows on disk.
    CO_TRY_VOID(co_await service->start());
    CO_TRY_VOID(endpoint->start());
    card.rpc_port = port_of(endpoint->local());
    directory->set_self(card);
    directory->start();
    if (did_join && host) directory->add_peer(*host, known_peers);
    CO_TRY_VOID(co_await tables->start());
    if (is_removed) learn_removal();
    follow(tables->layout());
    CO_TRY_VOID(co_await blocks->start());
    if (did_found) CO_TRY_VOID(co_await make_first_key());
    if (did_found || did_join) CO_TRY_VOID(co_await finish_beginning());
    group.spawn("keys", keys.run());
    group.spawn("card", keep_card());
    group.spawn("membership", keep_membership());
    co_return result<void>();
  }

  static std::uint16_t port_of(const std::string& address) {
    auto colon = address.rfind(':');
    return colon == std::string::npos ? 0 : static_cast<std::uint16_t>(std::atoi(address.c_str() + colon + 1));
  }

  std::string removed_text() const {
    const std::string dir = options.data_dir.empty() ? "the data directory" : options.data_dir;
    return "This home was removed from its cluster ('storagectl layout remove' at another home): it serves nothing and takes no part any more. "
           "What was acknowledged is kept by the other homes; " + dir + " holds old copies only, and nothing there is needed once 'storagectl status' at another "
           "home says healthy, or, with fewer than three homes left, shows the queues resync and hints empty. To join again as a newcomer: stop storaged, 'mv " + (options.data_dir.empty() ? "DIR DIR" : dir + " " + dir) + ".removed', "
           "'storagectl invite' at another home, and start with --zone " + options.zone + " --join LINE. storaged(8), WHEN A HOME WAS REMOVED, tells more.";
  }

  // It can never become a member again under this key: that is written down, so that later starts know it without asking anybody.
  void learn_removal(const layout::state& s) {
    if (!s.find(key->id()) && std::find(s.removed.begin(), s.removed.end(), key->id()) != s.removed.end()) learn_removal();
  }
  void learn_removal() {
    if (std::exchange(removal_told, true)) return;
    is_removed = true;
    rt.log(log_level::error, removed_text());
    group.spawn("removed", keep_removal());
  }
  task<void> keep_removal() {
    kv::batch b;
    b.put(kv::family::meta, "node/removed", "1");
    (void)co_await kv.commit(std::move(b));
  }

  void follow(const layout::state& s) {
    learn_removal(s);
    if (is_removed) return directory->set_members({}, {key->id()});  // lets go of everybody
    std::set<node_id> all;
    for (const auto& m : s.current.members) all.insert(m.node);
    if (s.next)
      for (const auto& m : s.next->members) all.insert(m.node);
    directory->set_members({all.begin(), all.end()}, s.removed);
    directory->set_layout_revision(s.revision);
  }

  task<result<void>> make_first_key() {
    model::access_key wanted;
    wanted.name = "first";
    store::call c{{std::nullopt, true}, rt.now() + 10s};
    CO_TRY(auto k, co_await service->create_key(c, wanted));
    made.emplace(first_key{k.id, k.secret});
    co_return result<void>();
  }

  std::map<std::string, std::uint64_t> numbers() const {
    auto s = blocks->stats();
    auto t = tables->status();
    return {{"queue/resync", s.resync_queue}, {"blocks_nowhere", s.nowhere}, {"queue/hints", t.hints}, {"queue/guests", s.guests}, {"queue/garbage", s.garbage_queue},
            {"queue/sync", t.partitions_to_sync}, {"queue/compare", t.homes_to_compare}, {"blocks", s.blocks},
            {"stored", s.stored_bytes}, {"rows_passed_over", t.rows_passed_over}, {"damaged", kv.stats().damage.empty() ? 0 : 1}};
  }

  // Those of this machine's interfaces may change while it runs.
  void look_for_addresses() {
    if (!options.find_rpc_public) return;
    auto found = options.find_rpc_public();
    if (found == options.rpc_public) return;
    std::string all;
    for (const auto& a : found) all += (all.empty() ? "" : ", ") + a;
    rt.log(log_level::info, "this home's addresses are now: " + all);
    options.rpc_public = std::move(found);
  }

  // What somebody who joins is to dial: where the others see this home comes first, as a router may stand in front of it.
  std::vector<std::string> addresses_for_strangers() {
    look_for_addresses();
    auto card = directory->self_information();
    card.addresses = options.rpc_public;
    directory->set_self(std::move(card));
    const auto own = directory->find(key->id());
    return own && !own->info.addresses.empty() ? own->info.addresses : options.rpc_public;
  }

  // Space, load and queues for the others to see; peers' addresses for the next start.
  task<void> keep_card() {
    for (bytes written;;) {
      auto s = blocks->stats();
      look_for_addresses();
      auto card = directory->self_information();
      card.addresses = options.rpc_public;
      card.space_total_bytes = s.capacity_bytes;
      card.space_free_bytes = s.free_bytes;
      directory->set_self(card);
      for (const auto& [name, value] : numbers()) (void)directory->announce_number(name, value);
      watch_clocks();
      // At once when they change: homes that all restart together find each other by what they wrote down.
      if (bytes known = directory->export_peers(); known != written) {
        kv::batch b;
        b.put(kv::family::meta, "peers", known);
        if (co_await kv.commit(std::move(b))) written = std::move(known);
      }
      co_await sleep_for(rt, 2s);
    }
  }

  // Each home says its time now and then. What arrives is late by its way: a home that seems ahead is ahead; one that seems behind is
  // only if it goes on seeming so.
  void watch_clocks() {
    if (rt.now() >= clock_told + 10s) {
      clock_told = rt.now();
      (void)directory->announce_number("clock", rt.wall_ms());
    }
    const auto ours = static_cast<std::int64_t>(rt.wall_ms());
    for (const auto& n : directory->nodes()) {
      if (n.id == key->id()) continue;
      auto said = directory->announced_number(n.id, "clock");
      if (!said || !directory->up(n.id)) {
        clocks.erase(n.id);
        continue;
      }
      auto& c = clocks[n.id];
      if (*said == c.said) continue;
      c.said = *said;
      c.ahead_ms.push_back(static_cast<std::int64_t>(std::min<std::uint64_t>(*said, 1ull << 60)) - ours);
      if (c.ahead_ms.size() > 3) c.ahead_ms.pop_front();
      const auto off = clock_off(n.id);
      if (off.has_value() != c.warned) {
        c.warned = off.has_value();
        if (off)
          rt.log(log_level::warning, "the clock of home " + n.info.zone + " (" + n.id.short_hex() + ") and this one differ by " + ago(static_cast<std::uint64_t>(std::abs(off->count())) * 1000) +
                                         ": that home is " + (off->count() > 0 ? "ahead" : "behind") + ". Writes are refused until they agree: set the wrong one (timedatectl)");
        else
          rt.log(log_level::info, "the clock of home " + n.info.zone + " (" + n.id.short_hex() + ") and this one agree again");
      }
    }
  }

  std::optional<seconds> clock_off(node_id n) const {
    auto at = clocks.find(n);
    if (at == clocks.end() || at->second.ahead_ms.empty()) return std::nullopt;
    const auto& all = at->second.ahead_ms;
    const auto best = *std::max_element(all.begin(), all.end());
    const auto bound = static_cast<std::int64_t>(hybrid_clock::ahead_max.count());
    if (best > bound || (best < -bound && all.size() >= 2)) return std::chrono::duration_cast<seconds>(milliseconds(best));
    return std::nullopt;
  }

  // Somebody was removed: he knows the key of the others. It is changed when he is in no version of the layout any more, soon as a rule: until
  // then he is a member, who may read the row with the new key.
  task<result<bool>> left(std::set<node_id> gone, mono_time deadline) {
    auto still_there = [&] { return std::ranges::any_of(gone, [&](node_id n) { return tables->layout().find(n) != nullptr; }); };
    while (still_there() && rt.now() + 3s < deadline) co_await sleep_for(rt, 100ms);
    if (still_there()) co_return false;
    auto r = co_await keys.change(deadline);
    if (!r) rt.log(log_level::warning, "the cluster's key is not changed yet though a home was removed, it is tried again: " + r.error().to_string());
    co_return r.has_value();
  }

  task<result<bool>> remove(node_id gone, mono_time deadline) {
    if (gone == key->id()) co_return fail(errc::invalid_argument, "a home cannot remove itself: do it at another one");
    std::set<node_id> leaving{gone};
    std::vector<layout::member> arriving;  // by a change that is taken back: they stay, by this one
    for (bool begun_here = false;; begun_here = true) {
      const layout::state& now = tables->layout();
      const layout::member* m = now.newest().find(gone);
      const bool all_left = std::ranges::none_of(leaving, [&](node_id n) { return now.newest().find(n) != nullptr; });
      if (all_left && begun_here) co_return co_await left(leaving, deadline);
      if (!m && begun_here && leaving.size() > 1) m = now.newest().find(*std::ranges::find_if(leaving, [&](node_id n) { return now.newest().find(n) != nullptr; }));
      if (!m) co_return fail(errc::not_found, "no member has this id or zone");
      if (directory->up(gone)) co_return fail(errc::conflict, "home " + m->zone + " is up: stop its storaged first, so that nothing is written there meanwhile");
      // One that was let in and vanished before it had its rows keeps a change waiting that nothing else would end.
      const bool waited_for = now.phase == layout::phase::moving && tables->layout_waits_for().contains(gone);
      std::vector<node_id> never_to_come;
      if (!now.current.find(gone)) never_to_come.push_back(gone);
      // Whoever was leaving by the change that is taken back leaves by this one.
      if (waited_for)
        for (const auto& n : now.removed)
          if (now.current.find(n)) leaving.insert(n);
      if (waited_for) arriving = now.newest().members;
      auto edit = [leaving, arriving](const layout::state& s) -> result<std::vector<layout::member>> {
        std::vector<layout::member> all = s.newest().members;
        for (const auto& m : arriving) {
          auto at = std::ranges::find(all, m.node, &layout::member::node);
          if (at != all.end()) *at = m;
          else if (std::ranges::find(s.removed, m.node) == s.removed.end()) all.push_back(m);
        }
        std::erase_if(all, [&](const layout::member& x) { return leaving.contains(x.node); });
        return all;
      };
      auto r = waited_for ? co_await tables->abandon_change(std::move(never_to_come), deadline)
                          : co_await tables->change_members(edit, {leaving.begin(), leaving.end()}, deadline);
      if (!r && r.error().code != errc::conflict) co_return fail(r.error());
      if (r && std::ranges::none_of(leaving, [&](node_id n) { return tables->layout().newest().find(n) != nullptr; })) co_return co_await left(leaving, deadline);
      if (rt.now() + 500ms > deadline) co_return fail(errc::conflict, still_changing());
      if (!r) co_await sleep_for(rt, 300ms);
    }
  }

  std::string waits_for_dark() const {
    std::string dark;
    for (const auto& n : tables->layout_waits_for()) {
      const auto* m = tables->layout().find(n);
      if (!m || n == key->id() || directory->up(n)) return {};
      dark += (dark.empty() ? "" : ", ") + m->zone + " (" + n.hex().substr(0, 8) + ")";
    }
    return dark;
  }

  // Whom the change under way waits for, and what to do if that is for ever.
  std::string still_changing() const {
    const std::string dark = waits_for_dark();
    if (dark.empty()) return "the layout is still changing for another home; try again in a minute";
    return "the layout is still changing, and waits for " + dark + ", which is dark: start it, or, if it is gone for good, 'storagectl layout remove' it";
  }

  // The layout should say what this home offers now. A change of zone or capacity in its settings becomes a change of the layout.
  task<void> keep_membership() {
    for (;;) {
      const layout::member* have = tables->layout().newest().find(key->id());
      bool removed = std::find(tables->layout().removed.begin(), tables->layout().removed.end(), key->id()) != tables->layout().removed.end();
      layout::member wanted{key->id(), options.zone, options.capacity_is_set || !have ? options.capacity_bytes : have->capacity_bytes};
      if (!removed && (!have || !(*have == wanted)))
        if (auto r = co_await set_member(wanted, rt.now() + 60s); !r) rt.log(log_level::info, "membership: " + r.error().to_string());
      co_await sleep_for(rt, 20s);
    }
  }

  task<result<std::string>> make_invite(seconds valid, mono_time deadline) {
    if (options.rpc_public.empty())
      co_return fail(errc::invalid_argument, "nobody could dial this home: give it an address that others reach (--rpc-public HOST:PORT), or make the invite at another home");
    // One made with a former key would be void. A change that is put off for long makes it void later.
    while (!keys.is_current() && rt.now() + 5s < deadline) co_await sleep_for(rt, 300ms);
    if (!keys.is_newest()) co_return fail(errc::conflict, "a home was removed, and the cluster's new key has not come here yet: try again in a minute");
    invite v;
    v.addresses = addresses_for_strangers();
    v.cluster = cluster;
    v.id = wire::make_invite_id(keys.ring().keys[0], rt.random());
    v.secret.assign(32, '\0');
    rt.random().fill(v.secret.data(), v.secret.size());
    json j = {{"secret", to_hex(v.secret)}, {"expires_ms", rt.wall_ms() + static_cast<std::uint64_t>(valid.count()) * 1000}, {"by", key->id().hex()}};
    std::vector<table::write_item> items;
    items.push_back({invite_key(v.id), {true, j.dump(), nullptr}});
    CO_TRY(auto r, co_await tables->write(std::move(items), {.deadline = deadline}));
    if (!r.at(0)) co_return fail(r[0].error());
    co_return v.encode();
  }

  task<void> stop() {
    group.cancel();
    co_await group.join();
    if (service) co_await service->stop();
    if (blocks) co_await blocks->stop();
    if (tables) co_await tables->stop();
    if (directory) co_await directory->stop();
    if (endpoint) co_await endpoint->stop();
  }

  runtime& rt;
  network& net;
  kv::store& kv;
  node_options options;
  std::vector<block::drive> drives;
  hybrid_clock hlc;
  std::optional<crypto::node_key> key;
  std::uint32_t start_number = 0;
  cluster_id cluster;
  key_keeper keys;
  std::optional<bytes> begun;  // what an earlier start left to do
  std::optional<layout::state> adopted;
  std::vector<std::string> known_peers;
  std::optional<node_id> host;
  struct peer_clock {
    std::uint64_t said = 0;
    std::deque<std::int64_t> ahead_ms;  // the last few
    bool warned = false;
  };
  std::map<node_id, peer_clock> clocks;
  mono_time clock_told{};
  bool did_found = false, did_join = false;
  bool is_removed = false, removal_told = false;
  std::optional<first_key> made;
  std::unique_ptr<wire::endpoint> endpoint;
  std::unique_ptr<cluster::directory> directory;
  std::unique_ptr<table::replicated> tables;
  std::unique_ptr<block::manager> blocks;
  std::unique_ptr<store::service> service;
  task_group group;
};

node::node(runtime& rt, network& net, kv::store& kv, std::vector<block::drive> drives, node_options o)
    : impl_(std::make_unique<impl>(rt, net, kv, std::move(drives), std::move(o))) {}
node::~node() = default;
task<result<void>> node::start() { return impl_->start(); }
task<void> node::stop() { return impl_->stop(); }
bool node::founded() const noexcept { return impl_->did_found; }
bool node::joined() const noexcept { return impl_->did_join; }
const std::optional<first_key>& node::made_key() const noexcept { return impl_->made; }
node_id node::id() const noexcept { return impl_->key->id(); }
cluster_id node::cluster() const noexcept { return impl_->cluster; }
const node_options& node::options() const noexcept { return impl_->options; }
std::optional<seconds> node::clock_off(node_id n) const { return impl_->clock_off(n); }
bool node::removed() const noexcept { return impl_->is_removed; }
std::string node::removed_text() const { return impl_->removed_text(); }
std::uint64_t node::key_changes() const noexcept { return impl_->keys.ring().changes; }
bool node::key_is_current() const { return impl_->keys.is_current(); }
std::string node::waits_for_dark() const { return impl_->waits_for_dark(); }
std::map<std::string, std::uint64_t> node::numbers() const { return impl_->numbers(); }
task<result<bool>> node::remove(node_id n, mono_time deadline) { return impl_->remove(n, deadline); }
task<result<std::string>> node::make_invite(seconds valid, mono_time deadline) { return impl_->make_invite(valid, deadline); }
wire::endpoint& node::wire() { return *impl_->endpoint; }
cluster::directory& node::directory() { return *impl_->directory; }
table::replicated& node::tables() { return *impl_->tables; }
block::manager& node::blocks() { return *impl_->blocks; }
store::service& node::store() { return *impl_->service; }
kv::store& node::rows() { return impl_->kv; }

}  // namespace grenier::storaged
