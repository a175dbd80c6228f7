// XML of strangers: parsed or refused; and what the writer escapes is read back as it was.
#include "headers.h"
#include "xml.h"

using namespace grenier;
using namespace grenier::s3;

namespace {

std::size_t walk(xml_element e, int depth) {
  std::size_t n = e.name().size() + e.text().size();
  if (depth < 64)
    for (xml_element c : e.children()) n += walk(c, depth + 1);
  return n;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  bytes_view in(reinterpret_cast<const char*>(data), size);
  if (auto r = xml_reader::parse(in)) (void)walk(r->root(), 0);

  // XML cannot hold NUL, and turns text that is no UTF-8 into whatever it likes.
  if (in.find('\0') != in.npos || !is_utf8(in) || in.empty()) return 0;
  xml_writer x("A", {});
  x.text("K", in);
  auto again = xml_reader::parse(x.finish());
  ASSERT(again);
  ASSERT(again->root().child_text("K") == in);
  return 0;
}
