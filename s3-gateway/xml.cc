#include "xml.h"

#include <pugixml.hpp>

#include <algorithm>

namespace grenier::s3 {

std::string xml_escape(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (char c : s) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default:
        if (static_cast<unsigned char>(c) >= 0x20) {
          out += c;
        } else {
          static constexpr char digits[] = "0123456789ABCDEF";
          out += "&#x";
          if (c >= 0x10) out += digits[c >> 4];
          out += digits[c & 15];
          out += ';';
        }
    }
  }
  return out;
}

xml_writer::xml_writer(std::string_view root, std::string_view name_space) {
  out_ = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  if (name_space.empty()) {
    open(root);
  } else {
    std::string attributes = "xmlns=\"";
    attributes += name_space;
    attributes += '"';
    open_with(root, attributes);
  }
}

void xml_writer::open(std::string_view name) {
  ((out_ += '<') += name) += '>';
  open_.emplace_back(name);
}

void xml_writer::open_with(std::string_view name, std::string_view attributes) {
  ((((out_ += '<') += name) += ' ') += attributes) += '>';
  open_.emplace_back(name);
}

void xml_writer::close() {
  ASSERT(!open_.empty());
  ((out_ += "</") += open_.back()) += '>';
  open_.pop_back();
}

void xml_writer::text(std::string_view name, std::string_view value) {
  ((out_ += '<') += name) += '>';
  out_ += xml_escape(value);
  ((out_ += "</") += name) += '>';
}

bytes xml_writer::finish() {
  while (!open_.empty()) close();
  return std::move(out_);
}

// ------------------------------------------------------------------------------------------------- reading

namespace {

pugi::xml_node node_of(const void* p) {
  return pugi::xml_node(static_cast<pugi::xml_node_struct*>(const_cast<void*>(p)));
}

bool is_deep(const pugi::xml_document& d) {
  std::size_t depth = 0;
  for (pugi::xml_node n = d.first_child(); n;) {
    if (n.type() == pugi::node_element && depth == xml_depth_max) return true;
    if (pugi::xml_node in = n.first_child()) {
      ++depth;
      n = in;
      continue;
    }
    while (n && !n.next_sibling()) {
      n = n.parent();
      if (depth == 0) return false;
      --depth;
    }
    n = n.next_sibling();
  }
  return false;
}

std::string_view local_name(const pugi::xml_node& n) {
  std::string_view s = n.name();
  auto colon = s.rfind(':');
  return colon == s.npos ? s : s.substr(colon + 1);
}

}  // namespace

std::string_view xml_element::name() const {
  return node_ ? local_name(node_of(node_)) : std::string_view();
}

std::string xml_element::text() const {
  std::string all;
  if (!node_) return all;
  for (const pugi::xml_node& n : node_of(node_).children())
    if (n.type() == pugi::node_pcdata || n.type() == pugi::node_cdata) all += n.value();
  return all;
}

xml_element xml_element::child(std::string_view name) const {
  if (!node_) return {};
  for (const pugi::xml_node& n : node_of(node_).children())
    if (n.type() == pugi::node_element && local_name(n) == name) return xml_element(n.internal_object());
  return {};
}

std::vector<xml_element> xml_element::children() const {
  std::vector<xml_element> out;
  if (!node_) return out;
  for (const pugi::xml_node& n : node_of(node_).children())
    if (n.type() == pugi::node_element) out.emplace_back(n.internal_object());
  return out;
}

xml_reader::xml_reader(std::unique_ptr<pugi::xml_document> d) : document_(std::move(d)) {}
xml_reader::xml_reader(xml_reader&&) noexcept = default;
xml_reader& xml_reader::operator=(xml_reader&&) noexcept = default;
xml_reader::~xml_reader() = default;

outcome<xml_reader> xml_reader::parse(bytes_view document) {
  if (document.size() > xml_size_max) return refuse(code::malformed_xml, "The XML document is larger than 2 MiB.");
  // Each tag takes some 60 bytes of memory for 4 of the document's.
  if (std::ranges::count(document, '<') > static_cast<std::ptrdiff_t>(xml_tags_max)) return refuse(code::malformed_xml, "The XML document has too many tags.");
  auto d = std::make_unique<pugi::xml_document>();
  // Doctypes are kept only to be refused; white space is kept, for it may be (a part of) a key.
  auto r = d->load_buffer(document.data(), document.size(),
                          pugi::parse_default | pugi::parse_doctype | pugi::parse_ws_pcdata, pugi::encoding_utf8);
  if (!r) return refuse(code::malformed_xml);
  for (const pugi::xml_node& n : d->children())
    if (n.type() == pugi::node_doctype) return refuse(code::malformed_xml, "A DOCTYPE is not taken.");
  if (!d->document_element()) return refuse(code::malformed_xml);
  if (is_deep(*d)) return refuse(code::malformed_xml, "The XML document is nested too deep.");
  return xml_reader(std::move(d));
}

xml_element xml_reader::root() const { return xml_element(document_->document_element().internal_object()); }

outcome<xml_element> xml_reader::root(std::string_view name) const {
  xml_element e = root();
  if (e.name() != name) return refuse(code::malformed_xml, "The root element should be " + std::string(name) + ".");
  return e;
}

}  // namespace grenier::s3
