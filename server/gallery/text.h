// gallery/text.h: text for people in their language, and text that is safe in HTML and in addresses.
//
//   Runs on   any thread; values only.
#pragma once

#include "base/base.h"

namespace grenier::gallery {

enum class language : std::uint8_t { english, french };
inline constexpr std::array<language, 2> languages = {language::english, language::french};
std::string_view code(language) noexcept;       // "en"
std::string_view file_name(language) noexcept;  // "index.html", "index.fr.html"

bool is_utf8(std::string_view) noexcept;
// & < > " ' escaped, what is no UTF-8 or a control character replaced: safe as text and in a quoted attribute.
std::string escape(std::string_view);
// Percent-encoded for a path; "/" stays.
std::string encode_path(std::string_view);

struct civil_time {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
};
// "2024-07-14T10:11:12" exactly, of 1826 to 2199 and a day that there is; else nullopt.
std::optional<civil_time> parse_time(std::string_view) noexcept;

// "14 July 2024", "14 juillet 2024", "1er mai 2024"
std::string day_text(language, const civil_time&);
// "14 July 2024, 10:11"
std::string time_text(language, const civil_time&);
// "July 2024" of "2024-07"; "Undated" of anything else
std::string month_text(language, std::string_view month);
std::string month_name(language, int month);  // 1 to 12
// "12,345", "12 345"
std::string number_text(language, std::uint64_t);
// "1/250 s", "0.5 s" / "0,5 s", "2 s"
std::string exposure_text(language, double seconds);
// At most `digits` after the point, without trailing zeros: "2.8", "2,8"
std::string decimal_text(language, double, int digits);
// "3.4 MB", "3,4 Mo"
std::string size_text(language, std::uint64_t bytes);
// "45.7640° N, 4.8357° E"
std::string place_text(language, double latitude, double longitude);

// The fixed words of the pages.
enum class word : std::uint8_t {
  skip, timeline, albums, about, other_language, photos_one, photos_many, photo, photo_on, newer, older, previous_photo, next_photo, all_months,
  undated, waiting_one, waiting_many, empty_title, empty_text, empty_hint, download, taken, camera, lens, exposure, focal, iso, size, place,
  in_albums, month, not_found_title, not_found_text, to_start, more_albums, back_albums, about_title, about_text, licences_title, no_folder,
  see_month, navigation, parts, file, failed, copy_of, photos_here
};
std::string_view say(language, word) noexcept;
// "1 photo", "12 photos"
std::string photos_text(language, std::uint64_t);

}  // namespace grenier::gallery
