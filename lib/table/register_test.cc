#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "table/register.h"

using namespace grenier;
using namespace grenier::table;
