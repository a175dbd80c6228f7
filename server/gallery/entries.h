// gallery/entries.h: private to the catalogue: how its values are written.
#pragma once

#include "gallery/catalogue.h"

namespace grenier::gallery {

nlohmann::json item_json(const item&);
nlohmann::json item_look(const item&);  // an entry's value in a tree of photos; time and id are in its key
result<album> read_album(shelf&, const std::string& shard, std::string_view path);

}  // namespace grenier::gallery
