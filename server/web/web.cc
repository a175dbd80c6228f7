#include "web/web.h"

namespace grenier::web {

namespace {

constexpr nanoseconds lookup_time = 10s;

std::string page(int status, std::string_view message) {
  std::string title = std::to_string(status) + " " + std::string(http::reason(status));
  std::string text;
  for (char c : message) {
    if (c == '<') text += "&lt;";
    else if (c == '>') text += "&gt;";
    else if (c == '&') text += "&amp;";
    else text += c;
  }
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">"
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
std::string_view sentence(int status) {
  switch (status) {
    case 400: return "The address cannot be understood.";
    case 403: return "This page is not for everybody.";
    case 404: return "There is no such page.";
    case 412: return "The page is not as the request wants it to be.";
    case 416: return "The page has no such part.";
    case 503: return "The page cannot be read just now. Please try again.";
    default: return "Something failed. Please try again later.";
  }
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
    (void)co_await x.send({405, h, page(405, "This site only answers GET and HEAD.")});
    co_return;
  }
  auto found = co_await store_.find_bucket(bucket_of_host(r.host(), options_.domain), rt_.now() + lookup_time);
  if (!found) {
    int status = status_of(found.error().code);
    co_return co_await send_error(x, {}, {}, status, status == 404 ? "There is no site of this name here." : "The site cannot be looked up just now. Please try again.");
  }
  model::bucket b = std::move(*found);
  if (!b.website || !model::authorize(model::action::serve_website, {nullptr, false, &b}))
    co_return co_await send_error(x, {}, {}, 404, "There is no site of this name here.");
  auto decoded = http::percent_decode(r.path);
  if (!decoded) co_return co_await send_error(x, b.name, b.website->error_document, 400, "The address has a malformed percent sign.");
  std::string key = decoded->substr(1);
  if (key.empty() || key.ends_with('/')) key += b.website->index_document;
  auto opened = co_await open(x, b.name, key, true);
  result<void> sent = opened ? co_await send_result(x, std::move(*opened), 200) : result<void>(fail(opened.error()));
  if (sent || x.answered()) co_return;
  const errc code = sent.error().code;
  if (code == errc::no_such_key && !decoded->ends_with('/')) {
    // A directory asked for without its slash.
    store::call c{{std::nullopt, true}, rt_.now() + lookup_time, true};
    store::get_request g;
    g.bucket = b.name;
    g.key = key + "/" + b.website->index_document;
    g.head = true;
    if (co_await store_.get(c, std::move(g))) {
      http::headers h;
      h.add("Location", r.path + "/" + (r.has_query ? "?" + r.query : ""));
      (void)co_await x.send({302, h, {}});
      co_return;
    }
  }
  const int status = status_of(code);
  if (status >= 500) rt_.log(status == 500 ? log_level::error : log_level::info, "web: " + b.name + ": " + sent.error().to_string());
  co_await send_error(x, b.name, b.website->error_document, status, std::string(sentence(status)));
}

task<result<store::get_result>> host::open(http::exchange& x, std::string bucket, std::string key, bool conditional) {
  const auto& r = x.request();
  store::call c{{std::nullopt, true}, rt_.now() + lookup_time, true};
  store::get_request g;
  g.bucket = std::move(bucket);
  g.key = std::move(key);
  g.head = r.method == "HEAD";
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

task<result<void>> host::send_result(http::exchange& x, store::get_result r, int status) {
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
  put_if(h, "Cache-Control", o.cache_control);
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

task<void> host::send_error(http::exchange& x, std::string bucket, std::string error_document, int status, std::string message) {
  if (status == 304) {
    (void)co_await x.send({304, {}, {}});
    co_return;
  }
  if (!bucket.empty() && !error_document.empty() && status >= 400 && status < 500 && status != 416) {
    auto r = co_await open(x, bucket, error_document, false);
    if (r) {
      auto sent = co_await send_result(x, std::move(*r), status);
      if (sent || x.answered()) co_return;
    }
  }
  http::headers h;
  h.add("Content-Type", "text/html; charset=utf-8");
  if (status == 503) h.add("Retry-After", "2");
  (void)co_await x.send({status, h, page(status, message)});
}

}  // namespace grenier::web
