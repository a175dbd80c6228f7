// The backend that is the store itself. Apart, so that tests over a map link without the store.
#include "backend.h"
#include "run.h"

namespace grenier::s3 {

namespace {

using namespace store;

class service_backend final : public backend {
 public:
  explicit service_backend(service& s) : s_(s) {}

  task<result<access_key>> find_key(std::string id, mono_time deadline) override { return s_.find_key(std::move(id), deadline); }
  task<result<bucket>> find_bucket(std::string name, mono_time deadline) override { return s_.find_bucket(std::move(name), deadline); }
  task<result<bucket>> create_bucket(call c, std::string name, std::string region) override {
    return s_.create_bucket(std::move(c), std::move(name), std::move(region));
  }
  task<result<void>> delete_bucket(call c, std::string name) override { return s_.delete_bucket(std::move(c), std::move(name)); }
  std::vector<bucket> list_buckets(const principal& who) const override { return s_.list_buckets(who); }
  task<result<bucket>> change_bucket(call c, std::string name, std::function<result<void>(bucket&)> edit) override {
    return s_.change_bucket(std::move(c), std::move(name), std::move(edit));
  }

  task<result<put_result>> put(call c, put_request r, body_source& body) override { return s_.put(std::move(c), std::move(r), body); }
  task<result<get_result>> get(call c, get_request r) override { return s_.get(std::move(c), std::move(r)); }
  task<result<copy_result>> copy(call c, copy_request r) override { return s_.copy(std::move(c), std::move(r)); }
  task<result<void>> remove(call c, std::string b, std::string key) override { return s_.remove(std::move(c), std::move(b), std::move(key)); }
  task<result<std::vector<result<void>>>> remove_many(call c, std::string b, std::vector<std::string> keys) override {
    return s_.remove_many(std::move(c), std::move(b), std::move(keys));
  }
  task<result<list_result>> list(call c, list_request r) override { return s_.list(std::move(c), std::move(r)); }
  task<result<std::vector<model::tag>>> get_tags(call c, std::string b, std::string key) override {
    return s_.get_tags(std::move(c), std::move(b), std::move(key));
  }
  task<result<void>> set_tags(call c, std::string b, std::string key, std::vector<model::tag> tags) override {
    return s_.set_tags(std::move(c), std::move(b), std::move(key), std::move(tags));
  }

  task<result<upload_id>> create_upload(call c, put_request r) override { return s_.create_upload(std::move(c), std::move(r)); }
  task<result<put_result>> upload_part(call c, upload_part_request r, body_source& body) override {
    return s_.upload_part(std::move(c), std::move(r), body);
  }
  task<result<copy_result>> upload_part_copy(call c, upload_part_copy_request r) override {
    return s_.upload_part_copy(std::move(c), std::move(r));
  }
  task<result<put_result>> complete_upload(call c, complete_request r) override { return s_.complete_upload(std::move(c), std::move(r)); }
  task<result<void>> abort_upload(call c, std::string b, std::string key, upload_id u) override {
    return s_.abort_upload(std::move(c), std::move(b), std::move(key), u);
  }
  task<result<service::list_parts_result>> list_parts(call c, std::string b, std::string key, upload_id u, std::uint32_t after,
                                                      std::size_t max) override {
    return s_.list_parts(std::move(c), std::move(b), std::move(key), u, after, max);
  }
  task<result<list_uploads_result>> list_uploads(call c, std::string b, std::string prefix, std::string delimiter, std::string after_key,
                                                 upload_id after_upload, std::size_t max) override {
    return s_.list_uploads(std::move(c), std::move(b), std::move(prefix), std::move(delimiter), std::move(after_key), after_upload, max);
  }

 private:
  service& s_;
};

}  // namespace

gateway::gateway(runtime& rt, store::service& s, options o)
    : owned_(std::make_unique<service_backend>(s)), core_(std::make_unique<core>(rt, *owned_, std::move(o))) {}

}  // namespace grenier::s3
