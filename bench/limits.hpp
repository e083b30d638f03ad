// What no kernel can beat: reading and copying memory, and one exponential per element. limits.cpp has the loops, compiled once
// for each instruction set.
#pragma once

#include <stddef.h>

namespace crossent {

// `bytes` and `count` are multiples of 512 bytes, pointers multiples of 64.
struct LimitLoops {
  void (*read)(const char* source, ptrdiff_t bytes);
  void (*copy)(const char* source, char* target, ptrdiff_t bytes);
  void (*copy_nontemporal)(const char* source, char* target, ptrdiff_t bytes);  // null where there are no such stores
  void (*exp_f32)(const float* x, float* y, ptrdiff_t count);
  void (*exp_f64)(const double* x, double* y, ptrdiff_t count);
};

}  // namespace crossent
