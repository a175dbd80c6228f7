// gallery/ui_assets.h: stylesheet and scripts, bundled when building and carried in the program (ui/build.py).
//
//   Runs on   any thread; constant.
#pragma once

#include "gallery/pages.h"

namespace grenier::gallery {

// Named by what is in them; to be written once, before any page that names them.
std::vector<object> asset_objects();
page_assets asset_names();

}  // namespace grenier::gallery
