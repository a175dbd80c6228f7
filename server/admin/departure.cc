#include "admin/departure.h"

#include <nlohmann/json.hpp>

namespace grenier::admin {

departure weigh_departure(const layout::state& now, node_id gone, const std::function<bool(node_id)>& up, std::uint64_t blocks_missing,
                          std::uint64_t blocks_nowhere) {
  departure d;
  d.node = gone;
  const layout::member* m = now.find(gone);
  ASSERT(m);
  d.zone = m->zone;
  d.copies = d.copies_then = now.current.copies();
  std::set<std::string> dark;
  for (const auto& replicas : now.current.assignment) {
    if (std::ranges::find(replicas, gone) == replicas.end()) continue;
    ++d.partitions;
    if (replicas.size() == 1) ++d.only_copies;
    for (const auto& n : replicas)
      if (n != gone && !up(n)) dark.insert(now.find(n)->zone);
  }
  d.also_dark = {dark.begin(), dark.end()};
  d.decided_alone = d.partitions > 0 && now.current.casting == gone;
  // It cannot have the only copy of a block if it has none of anything.
  if (d.partitions > 0) d.blocks_missing = blocks_missing, d.blocks_nowhere = std::min(blocks_nowhere, blocks_missing);
  // The layout is a row of partition 0.
  std::set<node_id> failed{gone};
  for (const auto& n : now.all_replicas(0))
    if (!up(n)) failed.insert(n);
  for (const auto* v : now.write_versions()) d.decidable = d.decidable && layout::can_be_quorum(*v, 0, failed, failed);
  std::vector<layout::member> rest = now.newest().members;
  std::erase_if(rest, [&](const layout::member& x) { return x.node == gone; });
  if (auto then = layout::start_change(now, std::move(rest), {gone})) d.copies_then = then->newest().copies();
  return d;
}

std::string departure::say() const {
  std::string all;
  auto add = [&](const std::string& sentence) { all += (all.empty() ? "" : " ") + sentence; };
  if (!decidable && also_dark.empty())
    add("The other homes cannot decide anything without it" + std::string(decided_alone ? ", as it has the casting vote of two homes" : "") +
        ": start it. If it is gone for good, make a new cluster and copy the buckets there over S3 from a home that is up.");
  else if (!decidable)
    add("The homes that are up are too few to decide this.");
  if (only_copies)
    add("It has the ONLY copy of " + std::to_string(only_copies) + " of the partitions: everything in them is LOST.");
  if (decided_alone)
    add("It has the casting vote of two homes: what it took in while the other one was away, and did not pass on, is lost.");
  if (!also_dark.empty()) {
    std::string zones;
    for (const auto& z : also_dark) zones += (zones.empty() ? "" : ", ") + z;
    add(zones + (also_dark.size() == 1 ? " is" : " are") + " dark too: what only dark homes have cannot be read until " + (also_dark.size() == 1 ? "it is" : "they are") +
        " back. Start " + (also_dark.size() == 1 ? "it" : "them") + " first.");
  }
  if (blocks_missing)
    add("The other homes still look for " + std::to_string(blocks_missing) + (blocks_missing == 1 ? " block" : " blocks") + " that they should have" +
        (blocks_nowhere ? " (" + std::to_string(blocks_nowhere) + " of them were found at no home that is up)" : "") +
        ", and it may be the only one that has some of them: wait until 'storagectl status' shows no queue resync, or start it once more.");
  if (safe()) add("Nothing that was acknowledged is lost: the other homes have all of it.");
  if (decidable && copies_then < copies)
    add("There " + std::string(copies_then == 1 ? "is one copy" : "are " + std::to_string(copies_then) + " copies") + " of everything then, until another home joins.");
  return all;
}

nlohmann::json departure::to_json() const {
  return {{"zone", zone}, {"id", node.hex()}, {"safe", safe()}, {"decidable", decidable}, {"say", say()}, {"copies", copies}, {"copies_then", copies_then}, {"partitions", partitions},
          {"only_copies", only_copies}, {"also_dark", also_dark}, {"decided_alone", decided_alone}, {"blocks_missing", blocks_missing}, {"blocks_nowhere", blocks_nowhere}};
}

}  // namespace grenier::admin
