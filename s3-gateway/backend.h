// backend.h: what the gateway asks of the store, as an interface, so that its operations can be tested over a map.
// Every member is store::service's of the same name.
#pragma once

#include "store/store.h"

namespace grenier::s3 {

class backend {
 public:
  virtual ~backend() = default;
  virtual task<result<store::access_key>> find_key(std::string id, mono_time deadline) = 0;

  virtual task<result<store::bucket>> find_bucket(std::string name, mono_time deadline) = 0;
  virtual task<result<store::bucket>> create_bucket(store::call, std::string name, std::string region) = 0;
  virtual task<result<void>> delete_bucket(store::call, std::string name) = 0;
  virtual std::vector<store::bucket> list_buckets(const store::principal&) const = 0;
  virtual task<result<store::bucket>> change_bucket(store::call, std::string name, std::function<result<void>(store::bucket&)> edit) = 0;

  virtual task<result<store::put_result>> put(store::call, store::put_request, store::body_source&) = 0;
  virtual task<result<store::get_result>> get(store::call, store::get_request) = 0;
  virtual task<result<store::copy_result>> copy(store::call, store::copy_request) = 0;
  virtual task<result<void>> remove(store::call, std::string bucket, std::string key) = 0;
  virtual task<result<std::vector<result<void>>>> remove_many(store::call, std::string bucket, std::vector<std::string> keys) = 0;
  virtual task<result<store::list_result>> list(store::call, store::list_request) = 0;
  virtual task<result<std::vector<model::tag>>> get_tags(store::call, std::string bucket, std::string key) = 0;
  virtual task<result<void>> set_tags(store::call, std::string bucket, std::string key, std::vector<model::tag>) = 0;

  virtual task<result<upload_id>> create_upload(store::call, store::put_request) = 0;
  virtual task<result<store::put_result>> upload_part(store::call, store::upload_part_request, store::body_source&) = 0;
  virtual task<result<store::copy_result>> upload_part_copy(store::call, store::upload_part_copy_request) = 0;
  virtual task<result<store::put_result>> complete_upload(store::call, store::complete_request) = 0;
  virtual task<result<void>> abort_upload(store::call, std::string bucket, std::string key, upload_id) = 0;
  virtual task<result<store::service::list_parts_result>> list_parts(store::call, std::string bucket, std::string key, upload_id,
                                                                     std::uint32_t after, std::size_t max) = 0;
  virtual task<result<store::list_uploads_result>> list_uploads(store::call, std::string bucket, std::string prefix, std::string delimiter,
                                                                std::string after_key, upload_id after_upload, std::size_t max) = 0;
};

}  // namespace grenier::s3
