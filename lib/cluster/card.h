// cluster/card.h: a node's card, its byte form, and addresses. Private to cluster/.
#pragma once

#include "cluster/cluster.h"

namespace grenier::cluster {

inline constexpr std::size_t card_max_bytes = 40 * 1024;
inline constexpr std::size_t links_max = 64;
inline constexpr std::size_t nodes_max = 1000 + others_max;
// Beyond this no card is taken: there is always a higher one left to refute with.
inline constexpr std::uint64_t incarnation_max = (1ull << 63) - 1;

struct card {
  node_id id;
  std::uint64_t incarnation = 0;
  self_info info;
  std::map<std::string, bytes> announced;
  std::map<node_id, link> links;
};

bytes encode(const card&);
// Checks everything. protocol.
result<card> decode_card(bytes_view);

// 0..64 of [a-z0-9-].
bool valid_zone(std::string_view);
// "host:port", "[v6]:port".
bool valid_address(std::string_view);
std::string_view host_of(std::string_view address);    // "[v6]" with its brackets; empty when it is no address
std::uint16_t port_of(std::string_view address);       // 0 when it is no address
bool is_loopback(std::string_view host);
// Puts it in front, once; at most addresses_max remain. False when nothing changed.
bool remember(std::vector<std::string>& addresses, const std::string& address);
std::size_t announced_size(const std::map<std::string, bytes>&);

}  // namespace grenier::cluster
