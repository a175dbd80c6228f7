// bench/load.h: asks a store for one operation from several clients at once, and measures it.
//
// Each client has a share of the keys of its own, so that no two write one object at once, and a connection to each endpoint.
//
//   Runs on   a thread for each client; the caller waits.
#pragma once

#include "client.h"
#include "report.h"

namespace grenier::bench {

class load {
 public:
  // The objects of one size and number of clients: their names begin with prefix, size and clients.
  load(const options&, std::uint64_t size_bytes, std::uint32_t concurrency);
  // Reaches every endpoint, and makes the bucket when it is not there. unavailable, access_denied, ...: with the reason.
  static result<void> prepare(const options&);
  // What the measured operation needs to be there: nothing for put; else what an earlier put left, by listing, or new objects.
  result<void> prepare_for(operation);
  measurement run(operation);

 private:
  struct client;
  struct tally;
  static bool succeeded(const result<answer>&, const client&, tally&);
  result<void> find_keys();
  void put(client&, tally&);
  void get(client&, tally&);
  void list(client&, tally&);
  void remove(client&, tally&);
  std::string name_of(std::uint64_t number) const;
  std::string path_of(const std::string& key) const { return "/" + options_.bucket + "/" + key; }
  void each_client(std::vector<tally>&, const std::function<void(client&, tally&)>&, std::uint64_t seed);

  const options& options_;
  std::uint64_t size_bytes_;
  std::uint32_t concurrency_;
  std::uint64_t keys_;
  std::string prefix_;
  std::vector<std::vector<std::string>> there_;  // what is stored, by client
  std::uint64_t rounds_ = 0;
};

}  // namespace grenier::bench
