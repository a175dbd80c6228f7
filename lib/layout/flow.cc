#include "layout/flow.h"

#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/boykov_kolmogorov_max_flow.hpp>

#include <algorithm>
#include <limits>
#include <queue>
#include <tuple>

namespace grenier::layout {
namespace {

using traits = boost::adjacency_list_traits<boost::vecS, boost::vecS, boost::directedS>;
struct vertex {
  traits::edge_descriptor predecessor;
  boost::default_color_type color = boost::white_color;
  std::int64_t distance = 0;
};
struct edge {
  std::int64_t capacity = 0, residual = 0;
  traits::edge_descriptor reverse;
};
using graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, vertex, edge>;

constexpr std::int64_t unreached = std::numeric_limits<std::int64_t>::max();

// Arc 2j is arc j of the caller, 2j + 1 its way back.
class network {
 public:
  network(std::size_t vertices, const std::vector<flow_arc>& arcs) : arcs_(arcs), first_(vertices + 1), potential_(vertices) {
    for (const auto& a : arcs) ++first_[a.from + 1], ++first_[a.to + 1];
    for (std::size_t v = 0; v < vertices; ++v) first_[v + 1] += first_[v];
    leaving_.resize(2 * arcs.size());
    residual_.resize(2 * arcs.size());
    auto at = first_;
    for (std::uint32_t j = 0; j < arcs.size(); ++j) {
      leaving_[at[arcs[j].from]++] = 2 * j;
      leaving_[at[arcs[j].to]++] = 2 * j + 1;
      residual_[2 * j] = arcs[j].capacity;
    }
  }

  // Shortest paths become paths of reduced cost zero. False when the sink cannot be reached any more.
  bool approach(std::uint32_t source, std::uint32_t sink) {
    std::vector<std::int64_t> distance(potential_.size(), unreached);
    using entry = std::pair<std::int64_t, std::uint32_t>;
    std::priority_queue<entry, std::vector<entry>, std::greater<>> queue;
    queue.emplace(distance[source] = 0, source);
    while (!queue.empty()) {
      auto [d, v] = queue.top();
      queue.pop();
      if (d != distance[v]) continue;
      for (auto k = first_[v]; k < first_[v + 1]; ++k) {
        const auto a = leaving_[k];
        if (residual_[a] == 0) continue;
        const auto to = head(a);
        if (d + reduced(a) < distance[to]) queue.emplace(distance[to] = d + reduced(a), to);
      }
    }
    if (distance[sink] == unreached) return false;
    for (std::size_t v = 0; v < potential_.size(); ++v) potential_[v] += std::min(distance[v], distance[sink]);
    return true;
  }

  // As much as fits over arcs of reduced cost zero.
  void fill(std::uint32_t source, std::uint32_t sink) {
    graph g(potential_.size());
    std::vector<std::pair<std::uint32_t, traits::edge_descriptor>> used;
    for (std::uint32_t j = 0; j < arcs_.size(); ++j) {
      if (reduced(2 * j) != 0) continue;
      auto there = boost::add_edge(arcs_[j].from, arcs_[j].to, edge{residual_[2 * j], 0, {}}, g).first;
      auto back = boost::add_edge(arcs_[j].to, arcs_[j].from, edge{residual_[2 * j + 1], 0, {}}, g).first;
      g[there].reverse = back;
      g[back].reverse = there;
      used.emplace_back(j, there);
    }
    boost::boykov_kolmogorov_max_flow(g, get(&edge::capacity, g), get(&edge::residual, g), get(&edge::reverse, g),
                                      get(&vertex::predecessor, g), get(&vertex::color, g), get(&vertex::distance, g),
                                      get(boost::vertex_index, g), source, sink);
    for (auto [j, e] : used) {  // (of an arc from source to sink the library leaves the way back as it was)
      residual_[2 * j + 1] += residual_[2 * j] - g[e].residual;
      residual_[2 * j] = g[e].residual;
    }
  }

  std::vector<std::int64_t> flows() const {
    std::vector<std::int64_t> r(arcs_.size());
    for (std::size_t j = 0; j < r.size(); ++j) r[j] = residual_[2 * j + 1];
    return r;
  }

 private:
  std::uint32_t head(std::uint32_t a) const { return a % 2 ? arcs_[a / 2].from : arcs_[a / 2].to; }
  std::int64_t reduced(std::uint32_t a) const {
    const auto& f = arcs_[a / 2];
    const auto r = f.cost + potential_[f.from] - potential_[f.to];
    return a % 2 ? -r : r;
  }
  const std::vector<flow_arc>& arcs_;
  std::vector<std::size_t> first_;
  std::vector<std::uint32_t> leaving_;
  std::vector<std::int64_t> residual_;
  std::vector<std::int64_t> potential_;
};

}  // namespace

std::vector<std::int64_t> cheapest_largest_flow(std::size_t vertices, const std::vector<flow_arc>& arcs, std::uint32_t source,
                                                std::uint32_t sink) {
  network n(vertices, arcs);
  while (n.approach(source, sink)) n.fill(source, sink);
  return n.flows();
}

}  // namespace grenier::layout
