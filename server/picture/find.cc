// Where the decoder is, and how many of it this machine bears.
#include <sched.h>
#include <unistd.h>

#include "picture/picture.h"

namespace grenier::picture {

std::string default_program() {
  char self[4096];
  const auto n = ::readlink("/proc/self/exe", self, sizeof self);
  std::vector<std::string> places;
  if (n > 0 && static_cast<std::size_t>(n) < sizeof self) {
    std::string here(self, static_cast<std::size_t>(n));
    here.erase(here.rfind('/') + 1);
    // Beside; from storaged, a test of server/picture and one of tests/ in the build tree; from an installed sbin.
    for (const char* way : {"", "picture/", "../server/picture/", "../../server/picture/", "../libexec/grenier/"}) places.push_back(here + way + "grenier-picture");
  }
  places.push_back(GRENIER_LIBEXECDIR "/grenier-picture");
  for (const auto& p : places)
    if (::access(p.c_str(), X_OK) == 0) return p;
  return {};
}

std::size_t default_children() {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  const int n = ::sched_getaffinity(0, sizeof usable, &usable) == 0 ? CPU_COUNT(&usable) : 1;
  return static_cast<std::size_t>(std::max(1, n - 1));
}

}  // namespace grenier::picture
