// What other nodes ask of this one. Every byte of a request is checked before it counts.
#include <algorithm>

#include "block/manager_impl.h"
#include "block/block.pb.h"

namespace grenier::block {

namespace {

constexpr std::size_t items_max = 1000;
constexpr std::size_t verify_parallel = 2;
constexpr std::size_t told_of_max = 4096;

std::unexpected<error> ill_formed(const char* what) { return fail(errc::protocol, what); }

result<std::pair<reference, std::vector<node_id>>> parse(bytes_view hash, const pb::Reference& from) {
  reference r;
  TRY(r.hash, block_hash::from_bytes(hash));
  TRY(r.version, version_id::from_bytes(from.version()));
  if (from.owner().empty() || from.owner().size() > owner_bytes_max) return ill_formed("a reference without an owner");
  if (static_cast<std::size_t>(from.guests_size()) > guests_max) return ill_formed("a reference with too many guests");
  r.owner = from.owner();
  return std::pair{std::move(r), to_nodes(from.guests())};
}

}  // namespace

void manager::impl::serve() {
  auto on = [this](wire::method m, task<result<wire::message>> (impl::*f)(wire::caller, wire::message)) {
    endpoint.serve(m, [this, f](wire::caller c, wire::message msg) { return admit(std::move(c), std::move(msg), f); });
  };
  on(wire::method::block_put, &impl::handle_put);
  on(wire::method::block_get, &impl::handle_get);
  on(wire::method::block_reference, &impl::handle_items);
  on(wire::method::block_have, &impl::handle_items);
  on(wire::method::block_guests, &impl::handle_guests);
  on(wire::method::block_count, &impl::handle_count);
}

task<result<wire::message>> manager::impl::admit(wire::caller c, wire::message msg,
                                                 task<result<wire::message>> (impl::*f)(wire::caller, wire::message)) {
  if (c.by_invite) co_return fail(errc::access_denied, "not a member yet");
  if (!started || stopping) co_return fail(errc::unavailable, "not ready");
  co_return co_await (this->*f)(std::move(c), std::move(msg));
}

task<result<wire::message>> manager::impl::handle_put(wire::caller c, wire::message msg) {
  pb::PutRequest q;
  if (!q.ParseFromString(msg.head)) co_return ill_formed("a request that cannot be read");
  CO_TRY(block_hash hash, block_hash::from_bytes(q.hash()));
  if (!msg.body || msg.body->empty() || msg.body->size() > block_size_max) co_return fail(errc::invalid_argument, "a block has 1 byte to 4 MiB");
  if (!co_await know_revision(q.revision(), c.deadline)) co_return fail(errc::stale_layout, "this node does not know that layout yet");
  if (!table.layout().find(c.node)) co_return fail(errc::access_denied, "not a member");
  shelf::incoming in{hash, {q.zstd(), msg.body}, std::nullopt, !here.is_home(hash)};
  bool home = here.is_replica_of_any_version(hash);
  if (q.has_reference()) {
    CO_TRY(auto r, parse(q.hash(), q.reference()));
    if (home) in.reference = reference_item(r.first, std::move(r.second));
  }
  // The bytes and what they unpack to.
  auto permit = co_await serving.acquire(msg.body->size() + (q.zstd() ? block_size_default : 0), c.deadline);
  if (!permit) co_return fail(errc::overloaded, "no memory for a block in time");
  if (!here.disks.has_room(msg.body->size()) && !here.is_here(hash)) co_return fail(errc::no_space, "this home is full");
  {
    auto proved = co_await offload(rt, rt.cpu_pool(), [form = in.form, hash] { return decode(form, hash); });
    if (!proved) co_return fail(proved.error());
  }
  bool referenced = in.reference.has_value();
  fan_out<result<bool>> kept(rt, group);
  kept.start(0, store_to_the_end(std::move(in), std::move(permit), c.deadline));
  auto done = co_await kept.next();
  if (!done) co_return fail(errc::unavailable, "stopping");
  if (!done->second) co_return fail(done->second.error());
  if (!q.zstd()) recent.add(hash, msg.body);
  ++n_received;
  pb::ItemsAnswer a;
  a.set_revision(table.layout().revision);
  auto& i = *a.add_items();
  i.set_file(true);
  i.set_referenced(referenced);
  co_return wire::message{a.SerializeAsString(), nullptr};
}

// Whoever asked may be gone meanwhile: a file is not left without its row.
task<result<bool>> manager::impl::store_to_the_end(shelf::incoming in, semaphore::permit, mono_time deadline) {
  co_return co_await here.store(std::move(in), deadline);
}

task<result<wire::message>> manager::impl::handle_get(wire::caller c, wire::message msg) {
  pb::GetRequest q;
  if (!q.ParseFromString(msg.head)) co_return ill_formed("a request that cannot be read");
  CO_TRY(block_hash hash, block_hash::from_bytes(q.hash()));
  if (!table.layout().find(c.node)) co_return fail(errc::access_denied, "not a member");
  auto permit = co_await serving.acquire(block_size_default, c.deadline);
  if (!permit) co_return fail(errc::overloaded, "no memory for a block in time");
  pb::GetAnswer a;
  // The third home asks for what has just come in: neither the disk nor the processor is asked again, where its form on the line is the plain one.
  if (auto plain = recent.find(hash)) {
    CO_TRY(auto at, co_await here.find(hash));
    if (at && !at->zstd) {
      a.set_found(true);
      ++n_sent;
      co_return wire::message{a.SerializeAsString(), std::move(plain)};
    }
  }
  auto r = co_await here.read(hash, c.deadline);
  if (r) {
    a.set_found(true);
    a.set_zstd(r->form.zstd);
    ++n_sent;
    co_return wire::message{a.SerializeAsString(), r->form.data};
  }
  a.set_corrupt(r.failed_with(errc::corrupt));
  if (auto refs = co_await here.references_of(hash))
    for (const auto& g : refs->guests)
      if (a.guests_size() < static_cast<int>(guests_max) && g != c.node && g != self) a.add_guests(g.str());
  co_return wire::message{a.SerializeAsString(), nullptr};
}

// ------------------------------------------------------------------------------------------------- questions about many blocks

struct manager::impl::confirm_job {
  std::vector<shelf::question> questions;
  std::vector<std::optional<shelf::confirmation>> answers;
  std::size_t next = 0;
};

task<bool> manager::impl::confirm_some(std::shared_ptr<confirm_job> job, mono_time deadline) {
  while (job->next < job->questions.size() && rt.now() < deadline) {
    std::size_t i = job->next++;
    auto permit = co_await serving.acquire(job->questions[i].verify ? block_size_default : 1, deadline);
    if (!permit) co_return false;
    auto r = co_await here.confirm(std::move(job->questions[i]), deadline);
    if (r) job->answers[i] = std::move(*r);
  }
  co_return true;
}

// A replica on a fast line fetches at once what it was told of; over slow ones it lets the put come to its end first.
nanoseconds manager::impl::fetch_delay(const node_id& origin) const {
  double rate = directory.rate_to(origin);
  nanoseconds rtt = directory.rtt(origin);
  bool fast = rtt > 0ns && rtt < 2ms && (rate == 0 || rate > 50e6 / 8);
  return fast ? std::min<nanoseconds>(20ms, opt.resync_delay) : opt.resync_delay;
}

// block_reference (takes references) and block_have (takes references, and answers for the files).
task<result<wire::message>> manager::impl::handle_items(wire::caller c, wire::message msg) {
  pb::ItemsRequest q;
  if (!q.ParseFromString(msg.head)) co_return ill_formed("a request that cannot be read");
  if (static_cast<std::size_t>(q.items_size()) > items_max) co_return fail(errc::too_large, "too many blocks in one message");
  if (!co_await know_revision(q.revision(), c.deadline)) co_return fail(errc::stale_layout, "this node does not know that layout yet");
  if (!table.layout().find(c.node)) co_return fail(errc::access_denied, "not a member");
  auto job = std::make_shared<confirm_job>();
  for (const auto& i : q.items()) {
    CO_TRY(block_hash hash, block_hash::from_bytes(i.hash()));
    shelf::question one{hash, std::nullopt, q.verify(), c.node, fetch_delay(c.node)};
    if (i.has_reference()) {
      CO_TRY(auto r, parse(i.hash(), i.reference()));
      if (here.is_replica_of_any_version(hash)) one.reference = reference_item(r.first, std::move(r.second));
    }
    job->questions.push_back(std::move(one));
  }
  job->answers.resize(job->questions.size());
  fan_out<bool> workers(rt, group);
  for (std::size_t i = 0; i < std::min(verify_parallel, job->questions.size()); ++i) workers.start(i, confirm_some(job, c.deadline));
  while (co_await workers.next(c.deadline)) {
  }
  pb::ItemsAnswer a;
  a.set_revision(table.layout().revision);
  for (const auto& r : job->answers) {
    auto& i = *a.add_items();
    if (!r) continue;
    i.set_referenced(r->referenced);
    i.set_file(r->file);
    i.set_live(r->live);
    for (const auto& g : r->guests)
      if (i.guests_size() < static_cast<int>(guests_max)) i.add_guests(g.str());
  }
  co_return wire::message{a.SerializeAsString(), nullptr};
}

// A replica that is still merging rows cannot say that nothing refers to a block (rule 5b.5).
bool manager::impl::knows_references() const { return table.status().partitions_to_sync == 0; }

// A guest asks whether it may let go: do we have these blocks, or do we want them?
task<result<wire::message>> manager::impl::handle_guests(wire::caller c, wire::message msg) {
  pb::ItemsRequest q;
  if (!q.ParseFromString(msg.head)) co_return ill_formed("a request that cannot be read");
  if (static_cast<std::size_t>(q.items_size()) > items_max) co_return fail(errc::too_large, "too many blocks in one message");
  if (!co_await know_revision(q.revision(), c.deadline)) co_return fail(errc::stale_layout, "this node does not know that layout yet");
  if (!table.layout().find(c.node)) co_return fail(errc::access_denied, "not a member");
  pb::ItemsAnswer a;
  for (const auto& item : q.items()) {
    CO_TRY(block_hash hash, block_hash::from_bytes(item.hash()));
    auto permit = co_await serving.acquire(q.verify() ? block_size_default : 1, c.deadline);
    if (!permit) co_return fail(errc::timed_out, "too many blocks to look at");
    shelf::question one{hash, std::nullopt, q.verify(), c.node, 0ns};
    CO_TRY(auto r, co_await here.confirm(std::move(one), c.deadline));
    auto& i = *a.add_items();
    i.set_home(here.is_home(hash) && (r.live || knows_references()));
    i.set_live(r.live);
    i.set_file(r.file);
    if (!r.file && r.live && here.is_home(hash)) {
      if (told_of.size() >= told_of_max) told_of.clear();
      bool news = told_of[hash].insert(c.node).second;
      if (news || !here.missing.contains(hash)) {
        kv::batch b;
        here.missing.add(b, {.hash = hash, .due_ms = rt.wall_ms()});
        CO_TRY_VOID(co_await here.commit(std::move(b)));
      }
    }
  }
  a.set_revision(table.layout().revision);
  co_return wire::message{a.SerializeAsString(), nullptr};
}

// How does it stand with these blocks' references here? (`live`)
task<result<wire::message>> manager::impl::handle_count(wire::caller c, wire::message msg) {
  pb::ItemsRequest q;
  if (!q.ParseFromString(msg.head)) co_return ill_formed("a request that cannot be read");
  if (static_cast<std::size_t>(q.items_size()) > items_max) co_return fail(errc::too_large, "too many blocks in one message");
  if (!table.layout().find(c.node)) co_return fail(errc::access_denied, "not a member");
  pb::ItemsAnswer a;
  for (const auto& item : q.items()) {
    CO_TRY(block_hash hash, block_hash::from_bytes(item.hash()));
    CO_TRY(auto refs, co_await here.references_of(hash));
    auto& i = *a.add_items();
    i.set_live(refs.live > 0);
    i.set_home(here.is_replica_of_any_version(hash) && knows_references());
  }
  a.set_revision(table.layout().revision);
  co_return wire::message{a.SerializeAsString(), nullptr};
}

}  // namespace grenier::block
