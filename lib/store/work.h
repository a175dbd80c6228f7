// store/work.h: the durable to-do list of the background: one entry in the task_queue, keyed by when it is due.
#pragma once

#include "store.pb.h"
#include "store/impl.h"

namespace grenier::store {

struct work {
  enum class kind_type : std::uint8_t { replaced = 1, upload = 2 } kind{};
  table::row_key row;
  bytes before;            // replaced: the value that was
  ballot before_written;
  bool final_seen = false;  // its upload was found over, withdraw_delay ago or longer
  std::uint32_t attempts = 0;
};
bytes encode(const work&);
result<work> decode_work(bytes_view);

inline std::uint64_t whole_ms(nanoseconds d) { return static_cast<std::uint64_t>(std::chrono::duration_cast<milliseconds>(d).count()); }

inline const bytes work_prefix = "store/w/";

}  // namespace grenier::store
