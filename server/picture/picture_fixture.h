// picture/picture_fixture.h: pictures for tests, made here: no file of anybody's.
#pragma once

#include "picture/pixels.h"

namespace grenier::picture::fixture {

// Four different corners and a slope between them, so that every turn shows.
inline image scene(std::uint32_t width, std::uint32_t height) {
  image i;
  i.width = width;
  i.height = height;
  i.pixels.resize(std::size_t{width} * height * 4);
  for (std::uint32_t y = 0; y < height; ++y)
    for (std::uint32_t x = 0; x < width; ++x) {
      std::uint8_t* p = i.row(y) + std::size_t{x} * 4;
      p[0] = static_cast<std::uint8_t>(255 * x / width);
      p[1] = static_cast<std::uint8_t>(255 * y / height);
      p[2] = x * 2 < width && y * 3 < height ? 220 : 30;
      p[3] = 255;
    }
  return i;
}

inline void le16(std::string& s, unsigned v) { s += {static_cast<char>(v & 255), static_cast<char>(v >> 8)}; }
inline void le32(std::string& s, unsigned v) { le16(s, v & 0xffff), le16(s, v >> 16); }

// A TIFF block with what facts are made of.
inline std::string exif(unsigned orientation) {
  std::string data;
  struct entry {
    unsigned tag, type, count;
    std::string value;
  };
  auto ascii = [](unsigned tag, std::string s) {
    s.push_back(0);
    return entry{tag, 2, static_cast<unsigned>(s.size()), s};
  };
  auto rational = [](unsigned tag, std::initializer_list<std::pair<unsigned, unsigned>> all) {
    entry e{tag, 5, static_cast<unsigned>(all.size()), {}};
    for (auto [over, under] : all) le32(e.value, over), le32(e.value, under);
    return e;
  };
  auto number = [](unsigned tag, unsigned type, unsigned v) {
    entry e{tag, type, 1, {}};
    le32(e.value, v);
    return e;
  };
  std::string out("II*\0\x08\0\0\0", 8);
  auto directory = [&](std::vector<entry> entries, std::size_t at) {
    std::string head, rest;
    le16(head, static_cast<unsigned>(entries.size()));
    const std::size_t after = at + 2 + entries.size() * 12 + 4;
    for (auto& e : entries) {
      le16(head, e.tag);
      le16(head, e.type);
      le32(head, e.count);
      if (e.value.size() <= 4) {
        e.value.resize(4);
        head += e.value;
      } else {
        le32(head, static_cast<unsigned>(after + rest.size()));
        rest += e.value;
      }
    }
    le32(head, 0);
    return head + rest;
  };
  // Sizes do not depend on the two offsets: first with any, then with the right ones.
  std::size_t shot_at = 0, place_at = 0;
  for (int round = 0; round < 2; ++round) {
    std::string first = directory({ascii(0x010f, "Grenier\x01 \xff Works"), ascii(0x0110, "Attic 1"), number(0x0112, 3, orientation),
                                   number(0x8769, 4, static_cast<unsigned>(shot_at)), number(0x8825, 4, static_cast<unsigned>(place_at))}, 8);
    shot_at = 8 + first.size();
    std::string shot = directory({rational(0x829a, {{1, 250}}), rational(0x829d, {{28, 10}}), number(0x8827, 3, 400),
                                  ascii(0x9003, "2024:07:14 10:11:12"), ascii(0x9011, "+02:00"), rational(0x920a, {{50, 1}}), ascii(0xa434, "50mm")}, shot_at);
    place_at = shot_at + shot.size();
    std::string place = directory({ascii(1, "S"), rational(2, {{45, 1}, {45, 1}, {5040, 100}}), ascii(3, "E"), rational(4, {{4, 1}, {50, 1}, {852, 100}}),
                                   number(5, 1, 1), rational(6, {{1735, 10}})}, place_at);
    data = out + first + shot + place;
  }
  return data;
}

// A JPEG with a block of Exif, and a comment that nobody should see again.
inline std::string jpeg(const image& i, const std::string& tiff, int quality = 90) {
  std::string file = encode_jpeg(i, quality);
  std::string extra;
  auto segment = [&](char marker, const std::string& content) {
    extra += {'\xff', marker, static_cast<char>((content.size() + 2) >> 8), static_cast<char>((content.size() + 2) & 255)};
    extra += content;
  };
  if (!tiff.empty()) segment('\xe1', std::string("Exif\0\0", 6) + tiff);
  segment('\xfe', "SECRET-COMMENT");
  return file.substr(0, 2) + extra + file.substr(2);
}

}  // namespace grenier::picture::fixture
