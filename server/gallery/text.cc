#include "gallery/text.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace grenier::gallery {

namespace {

constexpr std::array<std::array<std::string_view, 12>, 2> months = {{
    {"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"},
    {"janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre", "novembre", "décembre"},
}};

// Bytes of the UTF-8 character at the start of s; 0: none.
std::size_t character(std::string_view s) noexcept {
  const auto at = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const auto more = [&](std::size_t i) { return (at(i) & 0xc0u) == 0x80u; };
  const unsigned c = at(0);
  if (c < 0x80) return 1;
  if (c >= 0xc2 && c < 0xe0) return more(1) ? 2 : 0;
  if (c >= 0xe0 && c < 0xf0) {
    if (!more(1) || !more(2) || (c == 0xe0 && at(1) < 0xa0) || (c == 0xed && at(1) >= 0xa0)) return 0;
    return 3;
  }
  if (c >= 0xf0 && c < 0xf5) {
    if (!more(1) || !more(2) || !more(3) || (c == 0xf0 && at(1) < 0x90) || (c == 0xf4 && at(1) >= 0x90)) return 0;
    return 4;
  }
  return 0;
}

std::string with_comma(language l, std::string s) {
  if (l == language::french) std::ranges::replace(s, '.', ',');
  return s;
}

}  // namespace

std::string_view code(language l) noexcept { return l == language::french ? "fr" : "en"; }
std::string_view file_name(language l) noexcept { return l == language::french ? "index.fr.html" : "index.html"; }

bool is_utf8(std::string_view s) noexcept {
  while (!s.empty()) {
    const std::size_t n = character(s);
    if (n == 0) return false;
    s.remove_prefix(n);
  }
  return true;
}

std::string escape(std::string_view s) {
  std::string t;
  t.reserve(s.size());
  while (!s.empty()) {
    const std::size_t n = character(s);
    const auto c = static_cast<unsigned char>(s.front());
    if (n == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && static_cast<unsigned char>(s[1]) < 0xa0)) t += "\xef\xbf\xbd";
    else if (c == '&') t += "&amp;";
    else if (c == '<') t += "&lt;";
    else if (c == '>') t += "&gt;";
    else if (c == '"') t += "&quot;";
    else if (c == '\'') t += "&#39;";
    else t += s.substr(0, n);
    s.remove_prefix(n == 0 ? 1 : n);
  }
  return t;
}

std::string encode_path(std::string_view s) {
  std::string t;
  for (char ch : s) {
    const auto c = static_cast<unsigned char>(ch);
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || std::string_view("-_.~/").find(ch) != std::string_view::npos) t += ch;
    else t += fmt::format("%{:02X}", c);
  }
  return t;
}

std::optional<civil_time> parse_time(std::string_view s) noexcept {
  if (s.size() != 19 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':') return std::nullopt;
  const auto number = [&](std::size_t from, std::size_t n) {
    int v = 0;
    for (char c : s.substr(from, n)) v = c < '0' || c > '9' || v < 0 ? -1 : v * 10 + (c - '0');
    return v;
  };
  const civil_time t{number(0, 4), number(5, 2), number(8, 2), number(11, 2), number(14, 2), number(17, 2)};
  if (t.year < 1826 || t.year > 2199 || t.month < 1 || t.month > 12 || t.day < 1 || t.hour < 0 || t.hour > 23 || t.minute < 0 || t.minute > 59 || t.second < 0 ||
      t.second > 59)
    return std::nullopt;
  constexpr std::array<int, 12> days = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (t.year % 4 == 0 && t.year % 100 != 0) || t.year % 400 == 0;
  if (t.day > days[static_cast<std::size_t>(t.month - 1)] || (t.month == 2 && t.day == 29 && !leap)) return std::nullopt;
  return t;
}

std::string month_name(language l, int month) { return std::string(months[static_cast<std::size_t>(l)][static_cast<std::size_t>((month + 11) % 12)]); }

std::string day_text(language l, const civil_time& t) {
  const bool first = l == language::french && t.day == 1;
  return fmt::format("{}{} {} {}", t.day, first ? "er" : "", month_name(l, t.month), t.year);
}

std::string time_text(language l, const civil_time& t) {
  return fmt::format("{}{}{:02}:{:02}", day_text(l, t), l == language::french ? " à " : ", ", t.hour, t.minute);
}

std::string month_text(language l, std::string_view month) {
  const auto t = parse_time(std::string(month) + "-01T00:00:00");
  if (!t) return std::string(say(l, word::undated));
  std::string name = month_name(l, t->month);
  if (name.front() >= 'a') name.front() = static_cast<char>(name.front() - 'a' + 'A');
  return name + " " + std::to_string(t->year);
}

std::string number_text(language l, std::uint64_t v) {
  std::string s = std::to_string(v);
  for (std::size_t i = s.size(); i > 3;) s.insert(i -= 3, l == language::french ? "\xe2\x80\xaf" : ",");
  return s;
}

std::string decimal_text(language l, double v, int digits) {
  std::string s = fmt::format("{:.{}f}", v, digits);
  if (s.find('.') != std::string::npos) {
    s.erase(s.find_last_not_of('0') + 1);
    if (s.ends_with('.')) s.pop_back();
  }
  return with_comma(l, std::move(s));
}

std::string exposure_text(language l, double seconds) {
  if (seconds <= 0.3) return fmt::format("1/{:.0f} s", 1 / seconds);
  return decimal_text(l, seconds, 1) + " s";
}

std::string size_text(language l, std::uint64_t bytes) {
  const bool fr = l == language::french;
  const auto b = static_cast<double>(bytes);
  if (b < 1e6) return decimal_text(l, std::max(1.0, std::ceil(b / 1e3)), 0) + (fr ? " ko" : " kB");
  if (b < 1e9) return decimal_text(l, b / 1e6, 1) + (fr ? " Mo" : " MB");
  return decimal_text(l, b / 1e9, 1) + (fr ? " Go" : " GB");
}

std::string place_text(language l, double latitude, double longitude) {
  const bool fr = l == language::french;
  return with_comma(l, fmt::format("{:.4f}", std::abs(latitude))) + "° " + (latitude < 0 ? "S" : "N") + (fr ? " ; " : ", ") +
         with_comma(l, fmt::format("{:.4f}", std::abs(longitude))) + "° " + (longitude >= 0 ? "E" : fr ? "O" : "W");
}

std::string photos_text(language l, std::uint64_t n) {
  const bool one = n == 1 || (n == 0 && l == language::french);
  return number_text(l, n) + " " + std::string(say(l, one ? word::photos_one : word::photos_many));
}

std::string_view say(language l, word w) noexcept {
  const bool fr = l == language::french;
  switch (w) {
    case word::skip: return fr ? "Aller au contenu" : "Skip to content";
    case word::timeline: return fr ? "Chronologie" : "Timeline";
    case word::albums: return "Albums";
    case word::about: return fr ? "À propos" : "About";
    case word::other_language: return fr ? "English" : "Français";
    case word::photos_one: return "photo";
    case word::photos_many: return "photos";
    case word::photo: return "Photo";
    case word::photo_on: return fr ? "Photo du " : "Photo, ";
    case word::newer: return fr ? "Plus récentes" : "Newer";
    case word::older: return fr ? "Plus anciennes" : "Older";
    case word::previous_photo: return fr ? "Photo précédente" : "Previous photo";
    case word::next_photo: return fr ? "Photo suivante" : "Next photo";
    case word::all_months: return fr ? "Tous les mois" : "All months";
    case word::undated: return fr ? "Sans date" : "Undated";
    case word::waiting_one: return fr ? "photo est en préparation. Elle apparaîtra ici d’elle-même." : "photo is being prepared. It will appear here by itself.";
    case word::waiting_many: return fr ? "photos sont en préparation. Elles apparaîtront ici d’elles-mêmes." : "photos are being prepared. They will appear here by themselves.";
    case word::empty_title: return fr ? "Encore aucune photo" : "No photos yet";
    case word::empty_text: return fr ? "Envoyez des photos avec n’importe quel client S3 : elles apparaîtront ici quelques instants plus tard."
                                     : "Upload photos with any S3 client: they appear here moments later.";
    case word::empty_hint: return fr ? "Par exemple :" : "For example:";
    case word::download: return fr ? "Télécharger l’original" : "Download the original";
    case word::taken: return fr ? "Prise le" : "Taken";
    case word::camera: return fr ? "Appareil" : "Camera";
    case word::lens: return fr ? "Objectif" : "Lens";
    case word::exposure: return fr ? "Pose" : "Exposure";
    case word::focal: return fr ? "Focale" : "Focal length";
    case word::iso: return "ISO";
    case word::size: return fr ? "Dimensions" : "Size";
    case word::place: return fr ? "Lieu" : "Place";
    case word::in_albums: return "Albums";
    case word::month: return fr ? "Mois" : "Month";
    case word::not_found_title: return fr ? "Cette page n’existe pas" : "There is no such page";
    case word::not_found_text: return fr ? "La photo a peut-être été retirée, ou l’adresse est inexacte." : "The photo may have been removed, or the address is not quite right.";
    case word::to_start: return fr ? "Retour à la galerie" : "Back to the gallery";
    case word::more_albums: return fr ? "Albums suivants" : "More albums";
    case word::back_albums: return fr ? "Albums précédents" : "Previous albums";
    case word::about_title: return fr ? "À propos de cette galerie" : "About this gallery";
    case word::about_text: return fr ? "Cette galerie est faite de pages, écrites par Grenier à partir des photos déposées, et servies par les foyers d’une communauté. Elle n’observe pas ses visiteurs et ne demande rien à d’autres serveurs."
                                     : "This gallery is a set of plain pages, written by Grenier from the photos uploaded and served by the homes of a community. It does not watch its visitors and asks nothing of other servers.";
    case word::licences_title: return fr ? "Logiciels libres employés par ces pages" : "Free software in these pages";
    case word::no_folder: return fr ? "Sans dossier" : "Not in a folder";
    case word::see_month: return fr ? "Tout voir" : "See all";
    case word::navigation: return "Navigation";
    case word::parts: return fr ? "Suite" : "More";
    case word::file: return fr ? "Fichier" : "File";
    case word::failed: return fr ? "La photo ne peut pas être chargée." : "The photo cannot be loaded.";
    case word::photos_here: return fr ? "Photos de cet album" : "Photos in this album";
    case word::copy_of: return fr ? "Autres noms" : "Other names";
  }
  return {};
}

}  // namespace grenier::gallery
