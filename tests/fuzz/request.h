// request.h: an HTTP request out of fuzzed lines: method, target, then one header a line.
#pragma once

#include "http/http.h"

namespace grenier::fuzz {

inline http::request make_request(std::string_view in) {
  auto line = [&] {
    auto end = in.find('\n');
    std::string_view one = in.substr(0, end);
    in = end == in.npos ? std::string_view() : in.substr(end + 1);
    return std::string(one);
  };
  http::request r;
  r.method = line();
  r.target = line();
  auto q = r.target.find('?');
  r.path = r.target.substr(0, q);
  if (q != std::string::npos) r.query = r.target.substr(q + 1), r.has_query = true;
  for (int i = 0; i < 200 && !in.empty(); ++i) {
    std::string h = line();
    auto colon = h.find(':');
    if (colon != std::string::npos) r.headers.add(h.substr(0, colon), h.substr(colon + 1));
  }
  return r;
}

}  // namespace grenier::fuzz
