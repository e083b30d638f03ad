// The kernel table in use.
#pragma once

#include "kernels.hpp"

namespace crossent {

// Null when CROSSENT_SIMD names an instruction set that cannot be used; see simd_status.
const KernelTable* active_kernels();

}  // namespace crossent
