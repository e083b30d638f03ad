// Instruction sets and threads: what is in use, and how to choose.
#pragma once

#include <string>
#include <vector>

#include "crossent/types.hpp"

namespace crossent {

// The instruction set in use: "avx512", "avx2", "neon" or "baseline". The best that the machine can run, unless the environment
// variable CROSSENT_SIMD named another before the first call; empty when it names none that can be used.
std::string simd_target();
// Those that this machine can run, best first.
std::vector<std::string> simd_targets();
// Switches to one of them; not while another thread is inside a call.
Status select_simd(const std::string& name);
// The error of a CROSSENT_SIMD that cannot be used; every function reports it.
Status simd_status();
// How many kernel calls an instruction set has served.
unsigned long long kernel_runs(const std::string& name);

// Threads that a large call may use: OMP_NUM_THREADS, or the processors that the process may run on; 1 without OpenMP, and in a
// forked child.
int get_num_threads();
// n >= 1.
Status set_num_threads(int n);
// Whether the library was built with OpenMP.
bool has_openmp();

}  // namespace crossent
