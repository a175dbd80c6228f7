#include "storaged/addresses.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

namespace grenier::storaged {

std::vector<std::string> reachable_addresses(const std::string& listen) {
  auto colon = listen.rfind(':');
  std::string host = listen.substr(0, colon), port = listen.substr(colon);
  if (!host.empty() && host != "0.0.0.0" && host != "[::]" && host != "*") return {listen};
  std::vector<std::string> all;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) == 0) {
    for (ifaddrs* i = list; i; i = i->ifa_next) {
      if (!i->ifa_addr || (i->ifa_flags & IFF_LOOPBACK) || !(i->ifa_flags & IFF_UP)) continue;
      char text[INET6_ADDRSTRLEN] = "";
      if (i->ifa_addr->sa_family == AF_INET) {
        ::inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(i->ifa_addr)->sin_addr, text, sizeof text);
        all.push_back(text + port);
      } else if (i->ifa_addr->sa_family == AF_INET6) {
        const auto& a = reinterpret_cast<sockaddr_in6*>(i->ifa_addr)->sin6_addr;
        if (IN6_IS_ADDR_LINKLOCAL(&a)) continue;  // means nothing without its interface
        ::inet_ntop(AF_INET6, &a, text, sizeof text);
        all.push_back("[" + std::string(text) + "]" + port);
      }
    }
    ::freeifaddrs(list);
  }
  if (all.size() > 6) all.resize(6);
  if (all.empty()) all.push_back("127.0.0.1" + port);
  return all;
}

}  // namespace grenier::storaged
