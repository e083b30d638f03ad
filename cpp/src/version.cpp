// The version, which the build takes from pyproject.toml.
#include "crossent/runtime.hpp"

namespace crossent {

const char* version() { return CROSSENT_VERSION; }

}  // namespace crossent
