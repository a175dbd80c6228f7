// What is known of the work in the background: for storagectl, and for metrics.
#include <nlohmann/json.hpp>

#include "admin/control.h"

namespace grenier::admin {

using nlohmann::json;

namespace {

double seconds_of(nanoseconds d) { return static_cast<double>(d.count()) / 1e9; }

}  // namespace

std::vector<control::upkeep> control::upkeep_here() const {
  const auto rows = node_.tables().status();
  const auto blocks = node_.blocks().stats();
  return {{"handoff", "rows that a home missed, brought to it by name", rows.hints, rows.handoff},
          {"comparison", "homes compared with, row by row where they differ", rows.homes_to_compare, rows.comparison},
          {"merging", "partitions taken over by a new home or a new layout", rows.partitions_to_sync, rows.merging},
          {"resync", "blocks fetched that belong here", blocks.resync_queue, blocks.resync},
          {"guests", "blocks kept until their homes have them, and let go then", blocks.guests, blocks.handing_over},
          {"scrub", "blocks read again and checked", std::nullopt, blocks.scrub}};
}

json control::trouble_of(const table::work& w) const {
  const auto* t = w.latest();
  if (!t) return nullptr;
  json j = {{"what", t->what}, {"ago_s", seconds_of(rt_.now() - t->at)}};
  if (t->with && t->with != node_.id()) {
    j["node"] = t->with.hex();
    if (const auto* m = node_.tables().layout().find(t->with)) j["zone"] = m->zone;
  }
  return j;
}

json control::trouble() const {
  const auto rows = node_.tables().status();
  const auto blocks = node_.blocks().stats();
  json last = nullptr;
  auto look = [&](const table::work& w) {
    if (json j = trouble_of(w); !j.is_null() && (last.is_null() || j["ago_s"] < last["ago_s"])) last = std::move(j);
  };
  for (const auto& u : upkeep_here()) look(u.done);
  look(rows.other);
  look(blocks.other);
  return last;
}

json control::repair_status() const {
  json all = json::array();
  for (const auto& u : upkeep_here()) {
    json j = {{"work", u.name}, {"what", u.what}, {"items", u.done.items}, {"bytes", u.done.bytes}, {"last_error", trouble_of(u.done)}};
    j["waiting"] = u.waiting ? json(*u.waiting) : json(nullptr);
    j["last_run_ago_s"] = u.done.last_run ? json(seconds_of(rt_.now() - *u.done.last_run)) : json(nullptr);
    all.push_back(std::move(j));
  }
  const auto& o = node_.options();
  json budget = {{"upload_limit", o.upload_limit}, {"download_limit", o.download_limit}, {"blocks_at_once", o.block.resync_parallel},
                 {"scrub_period_s", seconds_of(o.block.scrub_period)}, {"comparison_every_s", seconds_of(o.table.merkle_interval)}, {"handoff_every_s", seconds_of(o.table.hint_interval)}};
  return {{"zone", o.zone}, {"works", all}, {"budget", budget}, {"garbage", node_.blocks().stats().garbage_queue}};
}

}  // namespace grenier::admin
