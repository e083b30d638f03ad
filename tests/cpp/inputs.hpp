// Test numbers made by integer arithmetic, so that every machine and compiler has the same ones, exact in their dtype.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "numbers.hpp"

namespace crossent_test {

// What an operand holds, and so which numbers are likely there.
enum class Values { logits, log_probs, probabilities, gradients };

// splitmix64
inline std::uint64_t random_bits(std::uint64_t seed) {
  std::uint64_t z = seed * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

inline std::uint64_t random_bits(Values values, std::ptrdiff_t row, std::ptrdiff_t column) {
  const std::uint64_t kind = static_cast<std::uint64_t>(values);
  return random_bits((kind << 60) ^ (static_cast<std::uint64_t>(row) << 32) ^ static_cast<std::uint64_t>(column));
}

// Rows take turns: scattered logits, a confident prediction, every third class impossible, many ties.
inline double input_value(Values values, DType dtype, std::ptrdiff_t row, std::ptrdiff_t column, std::ptrdiff_t columns) {
  const std::uint64_t bits = random_bits(values, row, column);
  const int digits = format(dtype).digits;
  const double magnitude = std::ldexp(static_cast<double>(bits >> (64 - digits)), -digits);  // in [0, 1), all digits used
  const double sign = bits & 1 ? -1 : 1;
  const std::ptrdiff_t turn = (row + columns) % 4;
  const bool impossible = turn == 2 && column % 3 == 1;
  switch (values) {
    case Values::logits:
      if (turn == 1) return column == row % columns ? 30 : sign * magnitude;
      if (turn == 3) return 2.5 * static_cast<double>(bits % 3) - 2.5;
      return impossible ? -INFINITY : sign * 16 * magnitude;
    case Values::log_probs:
      return impossible ? -INFINITY : -16 * magnitude;
    case Values::probabilities:
      return bits % 5 == 0 ? 0 : magnitude;
    default:
      return sign * 4 * magnitude;
  }
}

constexpr std::int64_t kIgnored = -100;

inline std::int64_t input_target(std::ptrdiff_t row, std::ptrdiff_t classes) {
  if (row % 7 == 6) return kIgnored;
  return static_cast<std::int64_t>(random_bits(static_cast<std::uint64_t>(row * 1000003 + classes)) %
                                   static_cast<std::uint64_t>(classes));
}

// Class weights in [0.25, 2.25), one of them 0 where there are several.
inline double input_weight(std::ptrdiff_t column) {
  if (column == 1) return 0;
  return 0.25 + std::ldexp(static_cast<double>(random_bits(static_cast<std::uint64_t>(column) + 77) >> 44), -19);
}

}  // namespace crossent_test
