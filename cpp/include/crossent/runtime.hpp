// Instruction sets, memory and threads: what is in use, and how to choose. All functions may be called at any time and from any
// thread, but where it says otherwise; none but those that return strings allocates.
#pragma once

#include <string>
#include <vector>

#include "crossent/types.hpp"

namespace crossent {

// The version of the library, "1.2.3".
const char* version();

// The instruction set in use: "avx512", "avx2", "neon" or "baseline". The best that the machine can run, unless the environment
// variable CROSSENT_SIMD named another before the first call; empty when it names none that can be used.
std::string simd_target();
// Those that this machine can run, best first.
std::vector<std::string> simd_targets();
// Switches to one of them, for the whole process; not while another thread is inside a call. Code::bad_value for other names.
Status select_simd(const std::string& name);
// The error of a CROSSENT_SIMD that cannot be used; every function reports it.
Status simd_status();
// Whether kernels ask early for memory that is not in a cache, and write long rows while they read the next ones: on AMD's
// processors, where it takes up to half of the time, rather than a few percent more. No bit of a result depends on it. May be
// switched at any time; calls that have begun keep to what they found.
bool fetches_far();
void set_fetches_far(bool far);
// How many kernel calls an instruction set has served; 0 for unknown names.
unsigned long long kernel_runs(const std::string& name);

// Threads that a large call may use: OMP_NUM_THREADS, or the processors that the process may run on; 1 without OpenMP, and in a
// forked child. Read at the first call of any function of the library that uses threads.
int get_num_threads();
// For the whole process, n >= 1; Code::bad_value otherwise. Without OpenMP it stays 1.
Status set_num_threads(int n);
// Whether the library was built with OpenMP.
bool has_openmp();

}  // namespace crossent
