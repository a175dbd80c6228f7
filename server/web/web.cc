#include "web/web.h"

#include <algorithm>

#include "gallery/objects.h"
#include "gallery/worker.h"
#include "web/gallery.h"

namespace grenier::web {

namespace {

constexpr nanoseconds lookup_time = 10s;

constexpr words no_site{"There is no site of this name here.", "Il n'y a pas de site de ce nom ici."};
constexpr words no_look_up{"The site cannot be looked up just now. Please try again.", "Le site ne peut pas être consulté en ce moment. Veuillez réessayer."};
constexpr words reads_only{"This site only answers GET and HEAD.", "Ce site ne répond qu'à GET et HEAD."};
constexpr words bad_percent{"The address has a malformed percent sign.", "L'adresse contient un signe pour cent mal formé."};
constexpr words no_link{"This gallery is private. Ask its owner for a link.", "Cette galerie est privée. Demandez un lien à son propriétaire."};
constexpr words old_link{"This link is not valid any more. Ask whoever sent it for a new one.",
                         "Ce lien n'est plus valable. Demandez-en un nouveau à la personne qui vous l'a envoyé."};

bool wants_french(const http::exchange& x) {
  auto language = x.request().headers.find("accept-language");
  return language && prefers_french(*language);
}

std::string_view french_title(int status) {
  switch (status) {
    case 400: return "Adresse incompréhensible";
    case 403: return "Accès refusé";
    case 404: return "Page introuvable";
    case 405: return "Méthode refusée";
    case 412: return "Condition non remplie";
    case 416: return "Partie introuvable";
    case 503: return "Momentanément indisponible";
    default: return "Erreur";
  }
}

std::string page(int status, const words& said, bool french) {
  const std::string title = std::to_string(status) + " " + std::string(french ? french_title(status) : http::reason(status));
  const std::string_view message = french ? said.french : said.english;
  std::string text;
  for (char c : message) {
    if (c == '<') text += "&lt;";
    else if (c == '>') text += "&gt;";
    else if (c == '&') text += "&amp;";
    else text += c;
  }
  return "<!doctype html>\n<html lang=\"" + std::string(french ? "fr" : "en") + "\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">"
         "<meta name=\"color-scheme\" content=\"light dark\"><title>" + title +
         "</title><style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}</style></head><body><main><h1>" +
         title + "</h1><p>" + text + "</p></main></body></html>\n";
}

int status_of(errc c) {
  switch (c) {
    case errc::no_such_key:
    case errc::no_such_bucket:
    case errc::not_found: return 404;
    case errc::access_denied: return 403;
    case errc::condition_failed: return 412;
    case errc::not_modified: return 304;
    case errc::invalid_range: return 416;
    case errc::invalid_argument: return 400;
    case errc::unavailable:
    case errc::timed_out:
    case errc::overloaded:
    case errc::outcome_unknown: return 503;
    default: return 500;
  }
}

// What an error says of itself may be nobody's business but the owner's.
words sentence(int status) {
  switch (status) {
    case 400: return {"The address cannot be understood.", "L'adresse n'est pas compréhensible."};
    case 403: return {"This page is not for everybody.", "Cette page n'est pas ouverte à tous."};
    case 404: return {"There is no such page.", "Cette page n'existe pas."};
    case 412: return {"The page is not as the request wants it to be.", "La page n'est pas telle que la requête le demande."};
    case 416: return {"The page has no such part.", "La page n'a pas cette partie."};
    case 503: return {"The page cannot be read just now. Please try again.", "La page ne peut pas être lue en ce moment. Veuillez réessayer."};
    default: return {"Something failed. Please try again later.", "Une erreur est survenue. Veuillez réessayer plus tard."};
  }
}

bool waits(const store::object_meta& m) {
  return std::any_of(m.headers.metadata.begin(), m.headers.metadata.end(), [](const model::tag& t) { return t.key == gallery::waits_mark; });
}

void put_if(http::headers& h, const char* name, const std::string& v) {
  if (!v.empty()) h.add(name, v);
}

}  // namespace

std::string bucket_of_host(std::string_view host, std::string_view domain) {
  if (!domain.empty() && host.size() > domain.size() + 1 && host.ends_with(domain) && host[host.size() - domain.size() - 1] == '.')
    host.remove_suffix(domain.size() + 1);
  return std::string(host);
}

task<void> host::handle(http::exchange& x) {
  co_await answer(x);
  ++stats_.by_status[x.status()];
  stats_.bytes_sent += x.body_sent();
}

task<void> host::answer(http::exchange& x) {
  const auto& r = x.request();
  if (r.method != "GET" && r.method != "HEAD") {
    http::headers h;
    h.add("Allow", "GET, HEAD");
    h.add("Content-Type", "text/html; charset=utf-8");
    (void)co_await x.send({405, h, page(405, reads_only, wants_french(x))});
    co_return;
  }
  auto found = co_await store_.find_bucket(bucket_of_host(r.host(), options_.domain), rt_.now() + lookup_time);
  if (!found) {
    int status = status_of(found.error().code);
    co_return co_await send_error(x, {}, {}, status, status == 404 ? no_site : no_look_up);
  }
  model::bucket b = std::move(*found);
  if (!b.website || (!b.gallery_pages && !model::authorize(model::action::serve_website, {nullptr, false, &b})))
    co_return co_await send_error(x, {}, {}, 404, no_site);
  if (b.gallery_pages && !co_await may_enter(x, b)) co_return;
  auto decoded = http::percent_decode(r.path);
  if (!decoded) co_return co_await send_error(x, b.name, b.website->error_document, 400, bad_percent);
  std::string key = decoded->substr(1);
  if (b.gallery_pages) co_return co_await answer_gallery(x, std::move(b), std::move(key));
  if (key.empty() || key.ends_with('/')) key += b.website->index_document;
  auto opened = co_await open(x, b.name, key, true);
  result<void> sent = opened ? co_await send_result(x, std::move(*opened), 200) : result<void>(fail(opened.error()));
  if (sent || x.answered()) co_return;
  const errc code = sent.error().code;
  if ((code == errc::no_such_key || code == errc::unavailable) && !decoded->ends_with('/')) {
    // A directory asked for without its slash.
    store::call c{{std::nullopt, true}, rt_.now() + lookup_time, true};
    store::get_request g;
    g.bucket = b.name;
    g.key = key + "/" + b.website->index_document;
    g.head = true;
    g.how = store::consistency::strong_if_up;
    if (co_await store_.get(c, std::move(g))) {
      http::headers h;
      h.add("Location", local_path(r.path) + "/" + (r.has_query ? "?" + r.query : ""));
      (void)co_await x.send({302, h, {}});
      co_return;
    }
  }
  const int status = status_of(code);
  if (status >= 500) rt_.log(status == 500 ? log_level::error : log_level::info, "web: " + b.name + ": " + sent.error().to_string());
  co_await send_error(x, b.name, b.website->error_document, status, sentence(status));
}

task<result<store::get_result>> host::open(http::exchange& x, std::string bucket, std::string key, bool conditional, store::consistency how) {
  const auto& r = x.request();
  store::call c{{std::nullopt, true}, rt_.now() + lookup_time, true};
  store::get_request g;
  g.bucket = std::move(bucket);
  g.key = std::move(key);
  g.head = r.method == "HEAD";
  g.how = how;
  if (conditional) {
    auto take = [&](const char* name) -> std::optional<std::string> {
      auto v = r.headers.find(name);
      return v ? std::optional(std::string(*v)) : std::nullopt;
    };
    g.when.if_match = take("if-match");
    g.when.if_none_match = take("if-none-match");
    if (auto v = take("if-modified-since")) g.when.if_modified_since_ms = http::parse_date(*v);
    if (auto v = take("if-unmodified-since")) g.when.if_unmodified_since_ms = http::parse_date(*v);
    g.range = take("range");
    if (auto version = take("if-range")) {
      g.if_range_ms = http::parse_date(*version);
      if (!g.if_range_ms) g.if_range_etag = std::move(version);
    }
  }
  co_return co_await store_.get(std::move(c), std::move(g));
}

// ------------------------------------------------------------------------------------------------- galleries

task<bool> host::may_enter(http::exchange& x, const model::bucket& b) {
  const auto& g = *b.gallery_pages;
  const auto shown = token_of(x.request());
  const auto* link = shown ? find_link(g, shown->token, rt_.wall_ms()) : nullptr;
  if (!model::authorize(model::action::serve_website, {nullptr, false, &b, link})) {
    http::headers h;
    h.add("Content-Type", "text/html; charset=utf-8");
    h.add("Cache-Control", "no-store");
    add_protection(h);
    (void)co_await x.send({403, h, page(403, shown ? old_link : no_link, wants_french(x))});
    co_return false;
  }
  if (!g.is_private || !link || !shown->in_query) co_return true;
  // The token leaves the address, so that it is not in what is copied, bookmarked or logged from there on.
  http::headers h;
  h.add("Location", without_token(x.request()));
  h.add("Set-Cookie", cookie_for(*shown, *link, rt_.wall_ms()));
  h.add("Cache-Control", "no-store");
  h.add("Referrer-Policy", "no-referrer");
  (void)co_await x.send({303, h, {}});
  co_return false;
}

task<void> host::answer_gallery(http::exchange& x, model::bucket b, std::string key) {
  result<void> sent = fail(errc::no_such_key, "");
  if (gallery::is_private_key(key)) {
  } else if (key.starts_with("o/")) {
    sent = co_await send_original(x, b, key);
  } else {
    const bool folder = key.empty() || key.ends_with('/');
    const bool french = folder && wants_french(x);
    if (folder) key += french ? "index.fr.html" : b.website->index_document;
    // Pages are made from what changes now and then: this home's own copy will do, and is there when it is alone.
    auto opened = co_await open(x, b.name, key, true, store::consistency::any);
    // What was written a moment ago may not have come here yet: before somebody is told that it does not exist, the others are asked.
    if (opened.failed_with(errc::no_such_key)) opened = co_await open(x, b.name, key, true, store::consistency::strong_if_up);
    if (options_.looked_for) {
      if (opened.failed_with(errc::no_such_key)) options_.looked_for(b, key, false);
      else if (opened && waits(opened->meta)) options_.looked_for(b, key, true);
    }
    if (opened) sent = co_await send_result(x, std::move(*opened), 200, &b);
    else sent = fail(opened.error());
    if (!sent && !x.answered() && sent.failed_with(errc::no_such_key) && !folder) {
      store::call c{{std::nullopt, true}, rt_.now() + lookup_time, true};
      store::get_request g;
      g.bucket = b.name;
      g.key = key + "/" + b.website->index_document;
      g.head = true;
      if (co_await store_.get(c, std::move(g))) {
        http::headers h;
        h.add("Location", local_path(x.request().path) + "/");
        (void)co_await x.send({302, h, {}});
        co_return;
      }
    }
  }
  if (sent || x.answered()) co_return;
  const int status = status_of(sent.error().code);
  if (status >= 500) rt_.log(status == 500 ? log_level::error : log_level::info, "web: " + b.name + ": " + sent.error().to_string());
  std::string document = b.website->error_document;
  if (document == "404.html" && wants_french(x)) document = "404.fr.html";
  co_await send_error(x, b.name, std::move(document), status, sentence(status), &b);
}

task<result<void>> host::send_original(http::exchange& x, const model::bucket& pages, std::string_view key) {
  auto wanted = parse_original(key);
  if (!wanted) co_return fail(errc::no_such_key, "no original's name");
  store::call c{{std::nullopt, true}, rt_.now() + lookup_time, true};
  store::get_request g;
  g.bucket = pages.name;
  g.key = gallery::record_key(wanted->id);
  g.how = store::consistency::any;
  CO_TRY(auto raw, co_await store_.get(c, std::move(g)));
  bytes body;
  while (raw.body && body.size() <= gallery::object_size_max) {
    CO_TRY(auto piece, co_await raw.body->next());
    if (!piece) break;
    body += *piece;
  }
  CO_TRY(auto record, gallery::record_from_json(body, wanted->id));
  auto source = source_key(record, wanted->file);
  if (!source) co_return fail(errc::no_such_key, "a photo without a name");
  CO_TRY(auto opened, co_await open(x, pages.gallery_pages->source, *source, true, store::consistency::strong_if_up));
  auto& h = opened.meta.headers;
  const auto type = media_type(record.format);
  h = {};  // what its uploader said of it is not this page's to repeat
  h.content_type = type.empty() ? "application/octet-stream" : std::string(type);
  h.content_disposition = std::string(type.empty() ? "attachment" : "inline") + "; filename*=UTF-8''" + http::percent_encode(gallery::base_name(*source));
  h.cache_control = "no-cache";
  co_return co_await send_result(x, std::move(opened), 200, &pages);
}

task<result<void>> host::send_result(http::exchange& x, store::get_result r, int status, const model::bucket* gallery) {
  // Nothing is promised before there is something to send: until then the visitor can still be told to try again.
  shared_bytes piece;
  const bool whole_answer = x.request().method != "HEAD" && !r.not_modified && r.body && r.length > 0;
  if (whole_answer) {
    CO_TRY(piece, co_await r.body->next());
  }
  const auto& o = r.meta.headers;
  http::headers h;
  if (status == 200 && !o.website_redirect.empty()) {
    h.add("Location", o.website_redirect);
    co_return co_await x.send({301, h, {}});
  }
  h.add("ETag", "\"" + r.meta.etag + "\"");
  h.add("Last-Modified", http::format_date(r.meta.modified_ms));
  std::string caching = o.cache_control;
  if (gallery) {
    add_protection(h);
    h.add("Vary", gallery->gallery_pages->is_private ? "Accept-Language, Cookie" : "Accept-Language");
    if (gallery->gallery_pages->is_private && caching.starts_with("public")) caching.replace(0, 6, "private");
  }
  put_if(h, "Cache-Control", caching);
  put_if(h, "Expires", o.expires);
  if (r.not_modified) {
    co_return co_await x.send({304, h, {}});
  }
  h.add("Content-Type", o.content_type.empty() ? "application/octet-stream" : o.content_type);
  put_if(h, "Content-Encoding", o.content_encoding);
  put_if(h, "Content-Disposition", o.content_disposition);
  put_if(h, "Content-Language", o.content_language);
  h.add("Accept-Ranges", "bytes");
  h.add("X-Content-Type-Options", "nosniff");
  if (r.partial) {
    status = 206;
    h.add("Content-Range", "bytes " + std::to_string(r.first) + "-" + std::to_string(r.first + r.length - 1) + "/" + std::to_string(r.meta.size));
  }
  CO_TRY_VOID(co_await x.begin({status, h, {}}, r.length));
  while (piece) {
    CO_TRY_VOID(co_await x.write(*piece));
    piece = nullptr;  // its memory goes before that of the next is asked for
    auto next = co_await r.body->next();
    if (!next) {
      x.abort();
      co_return fail(next.error());
    }
    piece = std::move(*next);
  }
  co_return result<void>();
}

task<void> host::send_error(http::exchange& x, std::string bucket, std::string error_document, int status, words said, const model::bucket* gallery) {
  if (status == 304) {
    (void)co_await x.send({304, {}, {}});
    co_return;
  }
  if (!bucket.empty() && !error_document.empty() && status >= 400 && status < 500 && status != 416) {
    auto r = co_await open(x, bucket, error_document, false);
    if (r) {
      auto sent = co_await send_result(x, std::move(*r), status, gallery);
      if (sent || x.answered()) co_return;
    }
  }
  http::headers h;
  h.add("Content-Type", "text/html; charset=utf-8");
  h.add("Vary", "Accept-Language");
  if (status == 503) h.add("Retry-After", "2");
  (void)co_await x.send({status, h, page(status, said, wants_french(x))});
}

}  // namespace grenier::web
