// What a member may say to a home: any request to the handlers of cluster/, table/ and block/, and any answer to its own questions. The home
// holds rows and blocks, is one of three, and believes the other two up; it must answer everything in the end, and go on.
//
// Input: steps of a kind, then what the kind needs (see step()).
#include "block/block.h"
#include "block/block.pb.h"
#include "input.h"
#include "machine.h"
#include "table/table.pb.h"

using namespace grenier;

namespace {

constexpr wire::method methods[] = {
    wire::method::ping, wire::method::gossip, wire::method::layout_fetch,
    wire::method::table_read, wire::method::table_accept, wire::method::table_prepare, wire::method::table_list,
    wire::method::table_counters, wire::method::table_merkle, wire::method::table_pull, wire::method::table_push,
    wire::method::block_put, wire::method::block_get, wire::method::block_reference, wire::method::block_have,
    wire::method::block_count, wire::method::block_guests};

node_id id_of(std::uint8_t i) {
  node_id n;
  n.data()[0] = static_cast<std::uint8_t>(i + 1);
  n.data()[31] = 7;
  return n;
}

// Handlers to be called, and answers from a list.
class mouth final : public wire::endpoint {
 public:
  void serve(wire::method m, wire::handler h) override { handlers[m] = std::move(h); }
  result<void> start() override { return {}; }
  task<void> stop() override { co_return; }
  std::string local() const override { return "10.0.0.1:3901"; }
  void keep(node_id, std::vector<std::string>) override {}
  void forget(node_id) override {}
  bool connected(node_id n) const override { return n != id_of(0); }
  wire::link_quality quality(node_id) const override {
    wire::link_quality q;
    q.connected = true;
    q.rtt = q.rtt_p95 = 5ms;
    return q;
  }
  std::vector<node_id> peers() const override { return {id_of(1), id_of(2)}; }
  std::string peer_address(node_id) const override { return "10.0.0.2:3901"; }
  task<result<wire::message>> call(node_id, wire::method m, wire::message q, wire::call_options o) override {
    co_await sleep_for(*rt, 2ms);
    if (m == wire::method::ping) co_return wire::message{};
    planned p;
    if (!answers.empty()) {
      p = std::move(answers.front());
      answers.pop_front();
    } else {
      p.mirrored = mirrors;
    }
    if (!p.mirrored) co_return std::move(p.said);
    // What this home would have said itself, with a piece of it changed.
    auto h = handlers.find(m);
    if (h == handlers.end()) co_return fail(errc::not_implemented);
    wire::caller from;
    from.node = id_of(1);
    from.session = 1;
    from.deadline = o.deadline;
    auto a = co_await h->second(std::move(from), std::move(q));
    if (a && !a->head.empty() && !p.change.empty()) {
      const std::size_t at = p.at % a->head.size();
      a->head.replace(at, p.change.size(), p.change);
    }
    co_return a;
  }
  task<result<joined>> call_with_invite(std::string, bytes, bytes, wire::message, mono_time) override { co_return fail(errc::unavailable); }
  void on_invite(std::move_only_function<task<std::optional<bytes>>(bytes)>) override {}
  void on_connection(std::move_only_function<void(node_id, bool)> f) override { told = std::move(f); }
  void set_cluster_keys(std::vector<bytes>) override {}
  refusals refused() const override { return {}; }

  runtime* rt = nullptr;
  std::map<wire::method, wire::handler> handlers;
  struct planned {
    bool mirrored = false;
    result<wire::message> said = fail(errc::timed_out);
    std::size_t at = 0;
    bytes change;
  };
  std::deque<planned> answers;
  bool mirrors = true;  // when nothing is planned
  std::move_only_function<void(node_id, bool)> told;
};

std::vector<block::drive> drives(sim::machine& m) {
  std::vector<block::drive> d;
  d.push_back({m.open_drive(0), 1'000'000'000});
  return d;
}

struct home {
  explicit home(sim::machine& m_)
      : m(m_), kv(m.open_kv()), directory(m.rt(), speak(), id_of(0)), clock(m.rt()), tables(m.rt(), *kv, wire, directory, clock, id_of(0), {.start_number = 1}),
        blocks(m.rt(), *kv, wire, directory, tables, id_of(0), drives(m), {}) {
    tables.define(table::table_id::bucket, {.projection = {}, .join = {}, .everywhere = true});
    tables.answer_query(1, [](layout::partition, bytes q) { return said(std::move(q)); });
  }
  mouth& speak() {
    wire.rt = &m.rt();
    return wire;
  }
  static task<result<bytes>> said(bytes q) { co_return q; }
  task<result<void>> begin() {
    CO_TRY_VOID(blocks.prepare());
    layout::state s = layout::found({}, {id_of(0), "home-0", 1'000'000'000});
    s.current.members.push_back({id_of(1), "home-1", 1'000'000'000});
    s.current.members.push_back({id_of(2), "home-2", 1'000'000'000});
    for (auto& p : s.current.assignment) p = {id_of(0), id_of(1), id_of(2)};
    directory.start();
    CO_TRY_VOID(co_await tables.found(std::move(s)));
    cluster::self_info card;
    card.zone = "home-0";
    directory.set_self(card);
    CO_TRY_VOID(co_await tables.start());
    wire.told(id_of(1), true);
    wire.told(id_of(2), true);
    co_return co_await blocks.start();
  }

  sim::machine& m;
  std::unique_ptr<kv::store> kv;
  mouth wire;
  cluster::directory directory;
  hybrid_clock clock;
  table::replicated tables;
  block::manager blocks;
};

const table::row_key row{table::table_id::object, "photos", "a/1"};
const table::row_key small{table::table_id::bucket, "b1", {}};

// A request whose first rows name the wrong place or time is refused at the door: most of them are put right.
template <class Request>
void put_right(bytes& head, home& h, const bytes& partition_key) {
  Request q;
  if (!q.ParseFromString(head)) return;
  q.mutable_judged()->set_revision(h.tables.layout().revision);
  q.mutable_judged()->set_start(1);
  q.mutable_judged()->set_partition(h.tables.partition_of(partition_key));
  head = q.SerializeAsString();
}

void put_right(wire::method m, wire::message& q, home& h) {
  auto key_of_first = [](const auto& rows, auto key) { return rows.empty() ? bytes() : key(rows.Get(0)); };
  if (m == wire::method::table_read) {
    table::pb::read_request r;
    if (r.ParseFromString(q.head)) put_right<table::pb::read_request>(q.head, h, key_of_first(r.keys(), [](const auto& k) { return k.partition_key(); }));
  } else if (m == wire::method::table_accept) {
    table::pb::accept_request r;
    if (r.ParseFromString(q.head)) put_right<table::pb::accept_request>(q.head, h, key_of_first(r.rows(), [](const auto& k) { return k.key().partition_key(); }));
  } else if (m == wire::method::table_prepare) {
    table::pb::prepare_request r;
    if (r.ParseFromString(q.head)) put_right<table::pb::prepare_request>(q.head, h, r.key().partition_key());
  } else if (m == wire::method::table_list) {
    table::pb::list_request r;
    if (r.ParseFromString(q.head)) put_right<table::pb::list_request>(q.head, h, r.partition_key());
  } else if (m == wire::method::table_counters) {
    put_right<table::pb::counters_request>(q.head, h, "photos");
  } else if (m == wire::method::table_merkle) {
    put_right<table::pb::merkle_request>(q.head, h, "photos");
  } else if (m == wire::method::table_pull) {
    put_right<table::pb::pull_request>(q.head, h, "photos");
  } else if (m == wire::method::block_put && q.body) {
    block::pb::PutRequest r;
    if (!r.ParseFromString(q.head)) return;
    r.set_hash(crypto::hash_block(*q.body).str());
    r.set_revision(h.tables.layout().revision);
    q.head = r.SerializeAsString();
  }
}

task<void> asked(home* h, wire::method m, wire::caller from, wire::message q, std::size_t* under_way) {
  (void)co_await h->wire.handlers.at(m)(std::move(from), std::move(q));
  --*under_way;
}

task<void> own(home* h, std::uint8_t what, bytes content, std::size_t* under_way) {
  table::op_options o;
  o.deadline = h->m.rt().now() + 5s;
  o.with_body = what & 16;
  const auto& key = what & 32 ? small : row;
  switch (what % 10) {
    case 0: (void)co_await h->tables.read(key, std::move(o)); break;
    case 1: (void)co_await h->tables.write({{key, {true, content, what & 64 ? share(content) : nullptr}}, {{key.table, key.partition_key, "z"}, {false, {}, nullptr}}}, std::move(o)); break;
    case 2:
      (void)co_await h->tables.compare_and_swap(key, [content](const table::row&) -> result<table::row_value> { return table::row_value{true, content, nullptr}; }, std::move(o));
      break;
    case 3: (void)co_await h->tables.list({.table = key.table, .partition_key = key.partition_key, .prefix = {}, .delimiter = what & 64 ? "/" : "", .start = {}, .entries_max = 10}, std::move(o)); break;
    case 4: (void)co_await h->tables.query(h->tables.partition_of("photos"), 1, content, std::move(o)); break;
    case 5: (void)co_await h->tables.merge({{{table::table_id::reference, crypto::hash_block(content).str(), bytes(16, 'v')}, {true, content, nullptr}}}, std::move(o)); break;
    case 6: (void)co_await h->blocks.get(crypto::hash_block(content), wire::priority::foreground, o.deadline); break;
    case 7: (void)co_await h->blocks.put({crypto::hash_block(content), {}, block::encode_owner(row)}, share(content), o.deadline); break;
    case 8: h->tables.repair_now(), h->blocks.repair_now(); break;
    default: (void)co_await h->tables.find_copy(small.table, small.partition_key, o.deadline); break;
  }
  --*under_way;
}

// kind < 128: a request: flags (1 put right, 2 from a stranger, 4 by an invite, 8 with a body, 16 nobody waits for it), head, body.
// kind < 176: the next answer to this home: 128 with a body, from 136 a change of what a mirror says, 144 none (silence), 145 mirrors
// again, from 168 an error. kind < 248: an operation of this home. Else time passes.
void step(home& h, fuzz::alone& here, fuzz::input& in, std::size_t& under_way) {
  const auto kind = in.byte();
  if (kind < 128) {
    const auto m = methods[kind % std::size(methods)];
    const auto flags = in.byte();
    wire::message q{bytes(in.piece()), nullptr};
    if (flags & 8) q.body = share(bytes(in.piece()));
    if (flags & 1) put_right(m, q, h);
    wire::caller from;
    from.node = flags & 2 ? id_of(9) : id_of(1);
    from.session = 1;
    from.deadline = here.w().now() + 5s;
    from.by_invite = flags & 4;
    if (!h.wire.handlers.contains(m)) return;
    ++under_way;
    here.m().root().spawn("asked", asked(&h, m, std::move(from), std::move(q), &under_way));
    if (!(flags & 16)) here.w().run_until([&] { return under_way == 0; }, 10s);
  } else if (kind < 176) {
    mouth::planned p;
    if (kind == 144 || kind == 145) {
      h.wire.mirrors = kind == 145;
      return;
    }
    if (kind >= 168) {
      p.said = fail(static_cast<errc>(1 + in.byte() % static_cast<int>(errc::internal)), "as told");
    } else if (kind >= 136 && kind < 144) {
      p.mirrored = true;
      p.at = in.byte();
      p.change = bytes(in.take(1 + kind % 4));
    } else {
      p.said = wire::message{bytes(in.piece()), nullptr};
      if (kind == 128) p.said->body = share(bytes(in.piece()));
    }
    h.wire.answers.push_back(std::move(p));
  } else if (kind < 248) {
    ++under_way;
    const auto what = in.byte();
    here.m().root().spawn("own", own(&h, what, bytes(in.piece()), &under_way));
    if (kind & 1) here.w().run_until([&] { return under_way == 0; }, 10s);
  } else {
    here.w().run_for(kind == 255 ? 61s : 3s);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  crypto::init();
  fuzz::alone here;
  auto& h = here.start<home>();
  ASSERT(here.finish(h.begin()));
  here.w().run_for(3s);
  fuzz::input in(data, size);
  std::size_t under_way = 0;
  for (int n = 0; n < 32 && !in.empty(); ++n) step(h, here, in, under_way);
  // Deadlines are 5 s; answers that it waits for are no more.
  h.wire.answers.clear();
  ASSERT(here.w().run_until([&] { return under_way == 0; }, 120s));
  ASSERT(h.tables.layout().revision > 0);
  return 0;
}
