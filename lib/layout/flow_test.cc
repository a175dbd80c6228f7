#include <doctest/doctest.h>

#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/cycle_canceling.hpp>
#include <boost/graph/edmonds_karp_max_flow.hpp>
// (needs what the headers above include)
#include <boost/graph/find_flow_cost.hpp>

#include <numeric>
#include <random>

#include "layout/flow.h"

using namespace grenier::layout;

namespace {

struct answer {
  std::int64_t amount = 0, cost = 0;
  bool operator==(const answer&) const = default;
};

answer judge(std::size_t vertices, const std::vector<flow_arc>& arcs, const std::vector<std::int64_t>& flow) {
  answer a;
  std::vector<std::int64_t> balance(vertices);
  for (std::size_t j = 0; j < arcs.size(); ++j) {
    CHECK(flow[j] >= 0);
    CHECK(flow[j] <= arcs[j].capacity);
    balance[arcs[j].from] -= flow[j];
    balance[arcs[j].to] += flow[j];
    a.cost += flow[j] * arcs[j].cost;
  }
  for (std::size_t v = 1; v + 1 < vertices; ++v) CHECK(balance[v] == 0);
  a.amount = balance[vertices - 1];
  return a;
}

// The library's own, another way: any largest flow, then negative cycles out of it.
answer oracle(std::size_t vertices, const std::vector<flow_arc>& arcs) {
  using traits = boost::adjacency_list_traits<boost::vecS, boost::vecS, boost::directedS>;
  using graph = boost::adjacency_list<
      boost::vecS, boost::vecS, boost::directedS, boost::no_property,
      boost::property<boost::edge_capacity_t, long,
                      boost::property<boost::edge_residual_capacity_t, long,
                                      boost::property<boost::edge_reverse_t, traits::edge_descriptor,
                                                      boost::property<boost::edge_weight_t, long>>>>>;
  graph g(vertices);
  auto capacity = get(boost::edge_capacity, g);
  auto reverse = get(boost::edge_reverse, g);
  auto weight = get(boost::edge_weight, g);
  for (const auto& a : arcs) {
    auto e = add_edge(a.from, a.to, g).first, b = add_edge(a.to, a.from, g).first;
    capacity[e] = a.capacity, capacity[b] = 0;
    weight[e] = a.cost, weight[b] = -a.cost;
    reverse[e] = b, reverse[b] = e;
  }
  answer r;
  r.amount = boost::edmonds_karp_max_flow(g, 0, vertices - 1);
  boost::cycle_canceling(g);
  r.cost = boost::find_flow_cost(g);
  return r;
}

}  // namespace

TEST_CASE("the flow is the largest, and of those the cheapest") {
  std::mt19937 random(7);
  for (int round = 0; round < 400; ++round) {
    const std::size_t vertices = 3 + random() % 8;
    std::vector<flow_arc> arcs;
    for (std::size_t n = random() % 30; n > 0; --n) {
      auto from = static_cast<std::uint32_t>(random() % (vertices - 1)), to = static_cast<std::uint32_t>(1 + random() % (vertices - 1));
      if (from != to) arcs.push_back({from, to, static_cast<std::int64_t>(random() % 9), static_cast<std::int64_t>(random() % 4)});
    }
    const auto flow = cheapest_largest_flow(vertices, arcs, 0, static_cast<std::uint32_t>(vertices - 1));
    const answer ours = judge(vertices, arcs, flow), theirs = oracle(vertices, arcs);
    CHECK(ours.amount == theirs.amount);
    CHECK(ours.cost == theirs.cost);
    CHECK(flow == cheapest_largest_flow(vertices, arcs, 0, static_cast<std::uint32_t>(vertices - 1)));
  }
}
