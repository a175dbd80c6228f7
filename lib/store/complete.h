// store/complete.h: what an object made of parts is. Pure.
#pragma once

#include "store/store.h"

namespace grenier::store {

struct assembled {
  model::object_row row;                       // without version, time and manifests; its blocks in full
  std::vector<model::block_entry> blocks;
};
// invalid_part, invalid_part_order, part_too_small, too_large, checksum_mismatch.
result<assembled> assemble(const model::upload_row&, const std::map<std::uint32_t, model::part_row>& stored, const complete_request&,
                           std::size_t part_size_min);

}  // namespace grenier::store
