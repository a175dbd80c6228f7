// block/placement: where the bytes of one put go, and when enough is known to be durable. A machine without I/O: answers in, decisions out.
//
// Bytes must be synced in two zones (or as many as there are, and up, when there are fewer), the reference in a quorum of every layout
// version that is written to; and each guest that holds the bytes must be named in the references that count, or nobody would find it.
//
//   Source    DESIGN section 4, "Uneven lines"; rules 5b.11, 5b.15.
#pragma once

#include <functional>
#include <map>
#include <set>

#include "block/block.h"

namespace grenier::block {

struct candidate {
  node_id node;
  std::string zone;
  bool home = false;
  bool self = false;
  double seconds = 0;   // until the block would have arrived there
  double sending = 0;   // of these, those that the line is busy with it
  bool late = false;    // it owes answers just now: only if there is no other
};

// Self first, late ones last; by time, a home replica before a guest of nearly its speed (its bytes need no second trip).
void sort_candidates(std::vector<candidate>&);

class placement {
 public:
  placement(const layout::state& s, layout::partition p, std::vector<candidate> sorted);
  // A newer layout: other homes, other quorums; what is known of the bytes stays.
  void set_layout(const layout::state& s);
  // Steps left out on purpose, for tests of the tests.
  void leave_out(bool second_zone, bool references) { one_zone_ = second_zone, no_references_ = references; }
  void set_dark(std::set<node_id> dark) { dark_ = std::move(dark); }

  // The next node to send bytes to, or nothing: enough are under way, or none is left. `more`: one beyond that (a hedge), one that
  // `good` says yes to.
  std::optional<candidate> next_target(bool more, const std::function<bool(const candidate&)>& good = {});
  void bytes_stored(const node_id&);
  void bytes_failed(const node_id&);

  // Guests that hold the bytes or are being sent them: what references name.
  std::vector<node_id> guests() const;
  bool is_home(const node_id& n) const { return homes_.contains(n); }
  // Homes that have to be told (again) alone: not being told, nor sent bytes with the reference, and not knowing all guests that count.
  std::vector<node_id> to_be_told() const;
  void telling(const node_id& n) { being_told_.insert(n); }
  void told(const node_id&, std::vector<node_id> named);
  void not_told(const node_id&);

  bool durable() const;
  bool hopeless() const;   // nothing is under way or left that could make it durable
  std::size_t zones_needed() const;
  bool wants_bytes() const { return zones_of(holders_).size() < zones_needed(); }

 private:
  std::set<std::string> zones_of(const std::set<node_id>&) const;
  std::set<node_id> voters() const;
  const layout::state* layout_;
  layout::partition partition_;
  std::vector<candidate> candidates_;
  bool one_zone_ = false, no_references_ = false;
  std::map<node_id, std::string> zone_;
  std::set<node_id> homes_, holders_, sending_, tried_, being_told_, refused_, dark_;
  std::map<node_id, std::set<node_id>> named_;  // by each home that has the reference
};

}  // namespace grenier::block
