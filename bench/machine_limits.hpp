// What an instruction set can reach at best on this machine: limits.cpp's loops, timed.
#pragma once

#include <cstddef>
#include <string>

#include "limits.hpp"

namespace crossent {

constexpr std::ptrdiff_t kGranule = 512;       // what limits.hpp wants lengths to be multiples of
constexpr std::ptrdiff_t kExpBytes = 1 << 14;  // input of the exponentials: with the output, inside the first-level cache

std::ptrdiff_t whole_granules(std::ptrdiff_t bytes);

double cpu_seconds();

// The loops of an instruction set, by its name.
const LimitLoops& limits_of(const std::string& target);

struct Limits {
  double read = 0, copy = 0;        // seconds per byte read; per byte read or written, by the faster kind of store
  double exp_f32 = 0, exp_f64 = 0;  // seconds per element
};
// On arrays of so many bytes; measured when first asked for.
const Limits& measured_limits(const std::string& target, std::ptrdiff_t working_set);

}  // namespace crossent
