// Whatever a request claims of its signature: it is read or refused, and it never verifies with a key that nobody has.
#include "signature.h"

#include "request.h"

using namespace grenier;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  http::request r = fuzz::make_request({reinterpret_cast<const char*>(data), size});
  auto q = http::parse_query(r.query);
  if (!q) return 0;
  auto c = s3::read_credentials(r, *q);
  if (!c || !*c) return 0;
  (void)s3::check_time(**c, 1'700'000'000'000);
  ASSERT((*c)->signature.size() == 64 && !(*c)->key_id.empty());
  ASSERT(!s3::verify(r, *q, **c, bytes(32, 'k')));
  return 0;
}
