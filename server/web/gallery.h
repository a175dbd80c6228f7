// web/gallery.h: what a gallery's bucket needs beyond a site: pages in the visitor's language, originals, and a door for private ones.
//
//   Runs on   any thread; no I/O.
//   Limits    as in model::gallery_pages.
//   Source    RFC 9110, section 12.5.4 (Accept-Language); RFC 6265 (cookies).
#pragma once

#include "gallery/catalogue.h"
#include "http/http.h"
#include "model/model.h"

namespace grenier::web {

// "fr" before "en" by their weights; only these two are known. English when nothing is said.
bool prefers_french(std::string_view accept_language);

// The token that a request shows: "?key=TOKEN" (in_query), else the cookie.
struct shown_token {
  std::string token;
  bool in_query = false;
};
std::optional<shown_token> token_of(const http::request&);
// The link that this token opens now; null: none.
const model::gallery_link* find_link(const model::gallery_pages&, std::string_view token, std::uint64_t wall_ms);
// Set-Cookie for a token that came in the query, for as long as its link holds (at most a year).
std::string cookie_for(const shown_token&, const model::gallery_link&, std::uint64_t wall_ms);
// For a Location header: never another host's, as "//host/" would be.
std::string local_path(std::string_view path);
// The request's target without the token.
std::string without_token(const http::request&);

// "o/<id>/<file name>": a photo's original.
struct original_name {
  gallery::photo_id id;
  std::string file;
};
std::optional<original_name> parse_original(std::string_view key);
// The source's key for it: the name that is asked for if it is one of the photo's, else its first.
std::optional<std::string> source_key(const gallery::record&, std::string_view file);
// Shown in the browser; everything else is only to be downloaded.
std::string_view media_type(std::string_view format);  // of record::format; "" unknown

// For every answer of a gallery.
void add_protection(http::headers&);

}  // namespace grenier::web
