// The public headers, as the library's own sources include them: in a shared library, what they declare is exported, and
// nothing else is. So they hold no export macros, and no list repeats their functions.
#pragma once

#ifdef crossent_EXPORTS  // CMake defines it where crossent is a shared library
#pragma GCC visibility push(default)
#endif
#include "crossent/crossent.hpp"
#include "crossent/scoring.hpp"
#ifdef crossent_EXPORTS
#pragma GCC visibility pop
#endif
