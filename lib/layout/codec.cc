#include <algorithm>
#include <bit>

#include "layout.pb.h"
#include "layout/rules.h"

namespace grenier::layout {
namespace {

constexpr std::uint32_t format = 1;
constexpr std::size_t encoded_max_bytes = 4u << 20;

void write(const version& v, pb::Version* to) {
  to->set_number(v.number);
  for (const auto& m : v.members) {
    auto* x = to->add_members();
    x->set_node(m.node.str());
    x->set_zone(m.zone);
    x->set_capacity_bytes(m.capacity_bytes);
  }
  to->set_copies(static_cast<std::uint32_t>(v.copies()));
  to->mutable_assignment()->Reserve(static_cast<int>(v.assignment.size() * v.copies()));
  for (const auto& set : v.assignment)
    for (const auto& n : set) {
      const member* m = v.find(n);
      ASSERT(m);
      to->add_assignment(static_cast<std::uint32_t>(m - v.members.data()));
    }
  if (v.casting) to->set_casting(v.casting.str());
}

result<replica_set> read_replicas(const version& v, const pb::Version& from, std::size_t partition) {
  replica_set set;
  std::vector<const member*> have;
  for (std::size_t c = 0; c < from.copies(); ++c) {
    const auto index = from.assignment(static_cast<int>(partition * from.copies() + c));
    if (index >= v.members.size()) return fail(errc::invalid_argument, "a layout names a replica that is no member");
    const member* m = &v.members[index];
    if (!stores(*m)) return fail(errc::invalid_argument, "a layout gives a partition to a member without capacity");
    for (const auto* h : have)
      if (h->zone == m->zone) return fail(errc::invalid_argument, "a layout has two copies of a partition in one zone");
    have.push_back(m);
    set.push_back(m->node);
  }
  return set;
}

result<version> read(const pb::Version& from) {
  version v;
  v.number = from.number();
  if (static_cast<std::size_t>(from.members_size()) > members_max) return fail(errc::invalid_argument, "a layout has too many members");
  for (const auto& x : from.members()) {
    TRY(node_id n, node_id::from_bytes(x.node()));
    v.members.push_back({n, x.zone(), x.capacity_bytes()});
  }
  TRY_VOID(check_members(v.members));
  const std::size_t copies = from.copies();
  if (copies != copies_of(v.members)) return fail(errc::invalid_argument, "a layout has a wrong number of copies");
  const auto slots = static_cast<std::size_t>(from.assignment_size());
  const std::size_t count = slots / copies;
  if (slots % copies != 0 || !std::has_single_bit(count) || count < 256 || count > 16384)
    return fail(errc::invalid_argument, "a layout has a wrong number of partitions");
  v.assignment.reserve(count);
  for (std::size_t p = 0; p < count; ++p) {
    TRY(replica_set set, read_replicas(v, from, p));
    v.assignment.push_back(std::move(set));
  }
  if (from.casting().empty() != (copies != 2)) return fail(errc::invalid_argument, "a layout has a casting home, or none, wrongly");
  if (copies == 2) {
    TRY(v.casting, node_id::from_bytes(from.casting()));
    const member* m = v.find(v.casting);
    if (!m || !stores(*m)) return fail(errc::invalid_argument, "a layout's casting home stores nothing");
  }
  return v;
}

}  // namespace

bytes encode(const state& s) {
  pb::State to;
  to.set_format(format);
  to.set_revision(s.revision);
  to.set_cluster(s.cluster.str());
  to.set_phase(static_cast<std::uint32_t>(s.phase));
  write(s.current, to.mutable_current());
  if (s.next) write(*s.next, to.mutable_next());
  for (const auto& n : s.removed) to.add_removed(n.str());
  return to.SerializeAsString();
}

result<state> decode(bytes_view b) {
  pb::State from;
  if (b.size() > encoded_max_bytes || !from.ParseFromArray(b.data(), static_cast<int>(b.size())))
    return fail(errc::invalid_argument, "these bytes are no layout");
  if (from.format() != format) return fail(errc::invalid_argument, "this layout was written by another version of the program");
  state s;
  s.revision = from.revision();
  TRY(s.cluster, cluster_id::from_bytes(from.cluster()));
  if (s.revision == 0 || from.phase() > static_cast<std::uint32_t>(phase::joint))
    return fail(errc::invalid_argument, "a layout has no revision or no phase");
  s.phase = static_cast<layout::phase>(from.phase());
  TRY(s.current, read(from.current()));
  if (from.has_next() != (s.phase != phase::settled)) return fail(errc::invalid_argument, "a layout's phase and versions disagree");
  if (from.has_next()) {
    TRY(s.next, read(from.next()));
    if (s.next->assignment.size() != s.current.assignment.size())
      return fail(errc::invalid_argument, "a layout changes the number of partitions");
  }
  if (s.current.number == 0 || s.newest().number > s.revision || (s.next && s.next->number <= s.current.number))
    return fail(errc::invalid_argument, "a layout's version numbers are not in order");
  if (static_cast<std::size_t>(from.removed_size()) > removed_remembered_max)
    return fail(errc::invalid_argument, "a layout has too many removed nodes");
  for (const auto& x : from.removed()) {
    TRY(node_id n, node_id::from_bytes(x));
    if (s.newest().find(n)) return fail(errc::invalid_argument, "a removed node is a member");
    s.removed.push_back(n);
  }
  return s;
}

}  // namespace grenier::layout
