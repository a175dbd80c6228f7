// async/local_stream.h: a connected unix socket as a stream; private to this module.
#pragma once

#include "async/async.h"

namespace grenier {

// Takes the socket over.
std::unique_ptr<byte_stream> adopt_local_stream(runtime&, int socket, std::string peer);

}  // namespace grenier
