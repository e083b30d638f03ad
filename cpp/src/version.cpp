// The version, which the build takes from pyproject.toml.
#include "api.hpp"

namespace crossent {

const char* version() { return CROSSENT_VERSION; }

}  // namespace crossent
