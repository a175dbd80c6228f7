// web/web.h: static sites straight from buckets, chosen by Host; galleries among them.
//
//   Runs on   its home thread; one call of handle() a request.
//   Errors    answered as pages, in sentences that tell nothing of the inside; a bucket's error document keeps the original status.
//   Limits    bodies go out of the visitors' share of the store's memory.
//   Not here  TLS, redirects by rules; making galleries (gallery/).
//   Source    "Hosting a static website using Amazon S3": index documents, error documents, object redirects; RFC 9110.
#pragma once

#include "http/http.h"
#include "store/store.h"

namespace grenier::web {

struct options {
  std::string domain = "web.localhost";  // BUCKET.domain; any other Host is taken as a bucket's name or alias
  // Of a gallery: a visitor asked for this, and it is not there; or it is, and waits for more (gallery/wishes). May be empty.
  std::function<void(const model::bucket& pages, std::string_view key, bool there)> looked_for;
};

struct statistics {
  std::map<int, std::uint64_t> by_status;
  std::uint64_t bytes_sent = 0;
};

// What is said to a visitor, in both languages.
struct words {
  std::string_view english, french;
};

class host {
 public:
  host(runtime& rt, store::service& s, options o) : rt_(rt), store_(s), options_(std::move(o)) {}
  task<void> handle(http::exchange&);
  const statistics& stats() const noexcept { return stats_; }

 private:
  task<void> answer(http::exchange&);
  // A gallery's door: true when the request may go on; else it was answered.
  task<bool> may_enter(http::exchange&, const model::bucket&);
  task<void> answer_gallery(http::exchange&, model::bucket, std::string key);
  task<result<void>> send_original(http::exchange&, const model::bucket& pages, std::string_view key);
  // gallery: whose page says it, in the visitor's language.
  task<void> send_error(http::exchange&, std::string bucket, std::string error_document, int status, words, const model::bucket* gallery = nullptr);
  task<result<store::get_result>> open(http::exchange&, std::string bucket, std::string key, bool conditional, store::consistency = store::consistency::strong_if_up);
  // Fails before anything was sent (answered() tells) when the first bytes cannot be had.
  task<result<void>> send_result(http::exchange&, store::get_result, int status, const model::bucket* gallery = nullptr);
  runtime& rt_;
  store::service& store_;
  options options_;
  statistics stats_;
};

// The bucket that a Host header asks for: BUCKET of BUCKET.domain, else the whole host.
std::string bucket_of_host(std::string_view host, std::string_view domain);

}  // namespace grenier::web
