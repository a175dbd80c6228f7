// xml.h: the XML of S3's requests and answers: a writer that escapes, a reader for small documents of strangers.
//
//   Runs on   any thread; values.
//   Errors    MalformedXML.
//   Limits    documents to 2 MiB, 150000 tags (10000 parts with a checksum each have 80002), 32 elements deep; a DOCTYPE is refused, so that there are no entities but the five of XML itself.
//   Source    XML 1.0.
#pragma once

#include "errors.h"

namespace pugi {
class xml_document;
}

namespace grenier::s3 {

inline constexpr std::string_view s3_namespace = "http://s3.amazonaws.com/doc/2006-03-01/";
inline constexpr std::size_t xml_size_max = 2 << 20;
inline constexpr std::size_t xml_tags_max = 150'000, xml_depth_max = 32;

// Text as XML may hold it. Control characters become references, as S3 sends them in keys that were not asked for in url encoding.
std::string xml_escape(std::string_view);

class xml_writer {
 public:
  explicit xml_writer(std::string_view root, std::string_view name_space = s3_namespace);
  void open(std::string_view name);
  // As it stands: REQUIRES a well-formed start tag's inside ("Grantee xmlns:xsi=...").
  void open_with(std::string_view name, std::string_view attributes);
  void close();
  void text(std::string_view name, std::string_view value);
  void number(std::string_view name, std::uint64_t value) { text(name, std::to_string(value)); }
  void boolean(std::string_view name, bool value) { text(name, value ? "true" : "false"); }
  bytes finish();  // closes what is open; once

 private:
  bytes out_;
  std::vector<std::string> open_;
};

// A parsed element; valid as long as its document. Names compare without their namespace prefix.
class xml_element {
 public:
  xml_element() = default;
  explicit xml_element(const void* node) : node_(node) {}
  explicit operator bool() const noexcept { return node_ != nullptr; }
  std::string_view name() const;
  std::string text() const;  // all its own: comments and CDATA may cut it in pieces
  xml_element child(std::string_view name) const;
  std::string child_text(std::string_view name) const { return child(name).text(); }
  std::vector<xml_element> children() const;

 private:
  const void* node_ = nullptr;
};

class xml_reader {
 public:
  static outcome<xml_reader> parse(bytes_view document);
  xml_reader(xml_reader&&) noexcept;
  xml_reader& operator=(xml_reader&&) noexcept;
  ~xml_reader();
  xml_element root() const;
  // The root, if it is called so.
  outcome<xml_element> root(std::string_view name) const;

 private:
  explicit xml_reader(std::unique_ptr<pugi::xml_document>);
  std::unique_ptr<pugi::xml_document> document_;
};

}  // namespace grenier::s3
