// The one translation unit that holds Asio's own code (separate compilation).
#include <boost/asio/impl/src.hpp>
