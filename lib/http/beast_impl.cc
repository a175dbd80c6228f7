// The one translation unit that holds Beast's own code (separate compilation).
#include <boost/beast/src.hpp>
