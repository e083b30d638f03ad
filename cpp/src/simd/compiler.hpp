// What every source that is compiled once per instruction set begins with: the compiler's intrinsics, and how functions are to
// be inlined. Nothing here defines a function that a linker could share between instruction sets.
#pragma once

#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define CROSSENT_INLINE inline __attribute__((always_inline))
// For what many kernels share: inlined everywhere, a target would take minutes to compile and megabytes to ship.
#define CROSSENT_SHARED __attribute__((noinline))
#define CROSSENT_LAMBDA __attribute__((always_inline))
