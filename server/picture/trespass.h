// picture/trespass.h: a child that does what it may not, when a "picture" tells it to; only in the program that tests the sandbox.
#pragma once

#include "base/base.h"

namespace grenier::picture {

// Nothing, unless "trespass " follows the three bytes that a JPEG begins with.
void trespass(bytes_view file);

}  // namespace grenier::picture
