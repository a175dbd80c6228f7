// s3-gateway/gateway.h: the S3 API over the store: signatures, XML, one function an operation. No sockets, no storage.
//
//   Runs on   its home thread; one call of handle() a request, as many at once as the HTTP server lets in.
//   Cancel    as the exchange and the store: an upload that breaks off leaves the old object.
//   Errors    every one is answered, as S3's XML with the request's id; a body that breaks off half-way closes the connection.
//   Limits    keys to 1024 bytes, objects to 5 GiB in one piece, XML to 2 MiB, 1000 keys a page, 10000 parts an upload.
//   Not here  listening (http/), what keys may do (model/), where bytes lie (store/), sites (server/web).
//   Source    the S3 API reference, operation by operation.
#pragma once

#include "http/http.h"
#include "store/store.h"

namespace grenier::s3 {

class backend;
struct core;

class gateway {
 public:
  struct options {
    std::string s3_domain = "s3.localhost";  // bucket.s3_domain is a bucket's own host name; empty: paths only
    std::string region = "garage";           // what GetBucketLocation says; any region is taken in signatures
  };
  gateway(runtime&, store::service&, options);
  gateway(runtime&, backend&, options);  // tests
  ~gateway();

  // Sends exactly one answer.
  task<void> handle(http::exchange&);

  struct count {
    std::string operation;  // "GetObject"; "-" for what is none
    int status = 0;
    std::uint64_t requests = 0;
  };
  std::vector<count> counts() const;  // by operation, then status
  struct traffic {
    std::uint64_t bytes_in = 0, bytes_out = 0;  // of bodies
    std::uint64_t in_flight = 0;
  };
  traffic bytes() const noexcept;

 private:
  std::unique_ptr<backend> owned_;
  std::unique_ptr<core> core_;
};

}  // namespace grenier::s3
