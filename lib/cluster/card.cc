#include "cluster/card.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "cluster.pb.h"

namespace grenier::cluster {
namespace {

bool printable(std::string_view s, std::size_t size_max) {
  return s.size() <= size_max && std::all_of(s.begin(), s.end(), [](char c) { return c > 32 && c < 127; });
}

result<self_info> read_info(const pb::Card& from) {
  self_info i;
  if (!valid_zone(from.zone())) return fail(errc::protocol, "a card with a wrong zone");
  i.zone = from.zone();
  if (static_cast<std::size_t>(from.addresses_size()) > addresses_max) return fail(errc::protocol, "a card with too many addresses");
  for (const auto& a : from.addresses()) {
    if (!valid_address(a)) return fail(errc::protocol, "a card with a wrong address");
    i.addresses.push_back(a);
  }
  if (static_cast<std::size_t>(from.services_size()) > services_max) return fail(errc::protocol, "a card with too many services");
  for (const auto& s : from.services()) {
    if (s.name().empty() || !printable(s.name(), 32) || s.port() > 65535) return fail(errc::protocol, "a card with a wrong service");
    i.services[s.name()] = static_cast<std::uint16_t>(s.port());
  }
  if (from.rpc_port() > 65535 || from.protocol() > 65535) return fail(errc::protocol, "a card with a wrong port or protocol");
  if (!printable(from.software(), 64)) return fail(errc::protocol, "a card with a wrong software version");
  i.rpc_port = static_cast<std::uint16_t>(from.rpc_port());
  i.space_total_bytes = from.space_total_bytes();
  i.space_free_bytes = from.space_free_bytes();
  i.load = std::isfinite(from.load()) ? std::clamp(from.load(), 0.0, 1e6) : 0.0;
  i.software = from.software();
  i.protocol = static_cast<std::uint16_t>(from.protocol());
  i.start = from.start();
  i.layout_revision = from.layout_revision();
  return i;
}

}  // namespace

bytes encode(const card& c) {
  pb::Card to;
  to.set_node(c.id.str());
  to.set_incarnation(c.incarnation);
  to.set_zone(c.info.zone);
  for (const auto& a : c.info.addresses) to.add_addresses(a);
  to.set_rpc_port(c.info.rpc_port);
  for (const auto& [name, port] : c.info.services) {
    auto* s = to.add_services();
    s->set_name(name);
    s->set_port(port);
  }
  to.set_space_total_bytes(c.info.space_total_bytes);
  to.set_space_free_bytes(c.info.space_free_bytes);
  to.set_load(c.info.load);
  to.set_software(c.info.software);
  to.set_protocol(c.info.protocol);
  to.set_start(c.info.start);
  to.set_layout_revision(c.info.layout_revision);
  for (const auto& [name, value] : c.announced) {
    auto* a = to.add_announced();
    a->set_name(name);
    a->set_value(value);
  }
  for (const auto& [peer, l] : c.links) {
    auto* x = to.add_links();
    x->set_node(peer.str());
    x->set_rtt_us(static_cast<std::uint64_t>(l.rtt.count() / 1000));
    x->set_send_rate(static_cast<std::uint64_t>(l.send_rate));
    x->set_dialled(l.dialled);
  }
  return to.SerializeAsString();
}

result<card> decode_card(bytes_view b) {
  pb::Card from;
  if (b.size() > card_max_bytes || !from.ParseFromArray(b.data(), static_cast<int>(b.size())))
    return fail(errc::protocol, "these bytes are no card");
  card c;
  auto id = node_id::from_bytes(from.node());
  if (!id || !*id) return fail(errc::protocol, "a card without a node");
  c.id = *id;
  c.incarnation = from.incarnation();
  if (c.incarnation == 0 || c.incarnation > incarnation_max) return fail(errc::protocol, "a card with an impossible incarnation");
  TRY(c.info, read_info(from));
  for (const auto& a : from.announced()) {
    if (a.name().empty() || !printable(a.name(), 64)) return fail(errc::protocol, "a card announces something without a proper name");
    c.announced[a.name()] = a.value();
  }
  if (announced_size(c.announced) > announced_max_bytes) return fail(errc::protocol, "a card announces too much");
  if (static_cast<std::size_t>(from.links_size()) > links_max) return fail(errc::protocol, "a card with too many links");
  for (const auto& x : from.links()) {
    auto peer = node_id::from_bytes(x.node());
    if (!peer || x.rtt_us() > 3'600'000'000ull) return fail(errc::protocol, "a card with a wrong link");
    c.links[*peer] = {std::chrono::microseconds(x.rtt_us()), static_cast<double>(x.send_rate()), x.dialled()};
  }
  return c;
}

bool valid_zone(std::string_view z) {
  return z.size() <= 64 && std::all_of(z.begin(), z.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

bool valid_address(std::string_view a) { return printable(a, 255) && !host_of(a).empty() && port_of(a) != 0; }

std::string_view host_of(std::string_view a) {
  const auto colon = a.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return {};
  const auto host = a.substr(0, colon);
  const bool bracketed = host.front() == '[' && host.back() == ']' && host.size() > 2;
  if (!bracketed && host.find_first_of(":[]") != std::string_view::npos) return {};
  return host;
}

std::uint16_t port_of(std::string_view a) {
  const auto colon = a.rfind(':');
  if (colon == std::string_view::npos) return 0;
  const auto text = a.substr(colon + 1);
  unsigned port = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port <= 65535 ? static_cast<std::uint16_t>(port) : 0;
}

bool is_loopback(std::string_view host) { return host.starts_with("127.") || host == "[::1]" || host == "localhost"; }

bool remember(std::vector<std::string>& addresses, const std::string& address) {
  if (!addresses.empty() && addresses.front() == address) return false;
  std::erase(addresses, address);
  addresses.insert(addresses.begin(), address);
  if (addresses.size() > addresses_max) addresses.resize(addresses_max);
  return true;
}

std::size_t announced_size(const std::map<std::string, bytes>& announced) {
  std::size_t r = 0;
  for (const auto& [name, value] : announced) r += name.size() + value.size();
  return r;
}

}  // namespace grenier::cluster
