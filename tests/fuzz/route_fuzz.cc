// Targets and headers: whatever they hold, a route has a key that may be stored, and headers are read or refused.
#include "headers.h"
#include "request.h"
#include "route.h"

using namespace grenier;
using namespace grenier::s3;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  http::request r = fuzz::make_request({reinterpret_cast<const char*>(data), size});
  if (auto t = route(r, "s3.localhost"))
    if (!t->key.empty()) ASSERT(check_key(t->key));
  (void)read_checksums(r.headers);
  (void)read_content_md5(r.headers);
  (void)read_object_headers(r.headers);
  (void)read_tagging(r.headers);
  (void)read_conditions(r.headers);
  (void)refuse_unsupported(r.headers);
  if (auto c = read_copy_source(r.headers)) ASSERT(check_key(c->key));
  return 0;
}
