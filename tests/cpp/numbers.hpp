// Elements of the four dtypes: decoded exactly into long double, encoded, and the distance of neighbouring numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "crossent/types.hpp"

namespace crossent_test {

using crossent::DType;

struct Format {
  const char* name;
  std::ptrdiff_t size;
  int digits;           // of the significand, the implicit one included
  int lowest_exponent;  // of the smallest normal number
};

inline const Format& format(DType dtype) {
  static const Format formats[] = {
      {"float32", 4, 24, -126}, {"float64", 8, 53, -1022}, {"float16", 2, 11, -14}, {"bfloat16", 2, 8, -126}};
  return formats[static_cast<int>(dtype)];
}

inline DType loss_dtype(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }
inline bool is_narrow(DType dtype) { return format(dtype).size == 2; }

template <class T>
T load_as(const void* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

inline long double decode(DType dtype, const void* p) {
  if (dtype == DType::float32) return static_cast<long double>(load_as<float>(p));
  if (dtype == DType::float64) return static_cast<long double>(load_as<double>(p));
  const unsigned bits = load_as<std::uint16_t>(p);
  if (dtype == DType::bfloat16) {
    const std::uint32_t wide = bits << 16;
    return static_cast<long double>(load_as<float>(&wide));
  }
  const int exponent = static_cast<int>((bits >> 10) & 31), fraction = static_cast<int>(bits & 1023);
  const long double sign = bits >> 15 ? -1 : 1;
  if (exponent == 31) return fraction ? static_cast<long double>(NAN) : sign * INFINITY;
  return sign * std::ldexp(static_cast<long double>(exponent ? 1024 + fraction : fraction), (exponent ? exponent : 1) - 25);
}

// Only numbers that the dtype has, and no subnormal ones.
inline void encode(DType dtype, double value, void* p) {
  if (dtype == DType::float64) {
    std::memcpy(p, &value, sizeof value);
    return;
  }
  const float single = static_cast<float>(value);
  const std::uint32_t bits = load_as<std::uint32_t>(&single);
  if (dtype == DType::float32) {
    std::memcpy(p, &bits, sizeof bits);
    return;
  }
  std::uint32_t narrow = bits >> 16;
  if (dtype == DType::float16) {
    const std::uint32_t magnitude = bits & 0x7fffffff, sign = narrow & 0x8000;
    narrow = sign | (magnitude == 0 ? 0 : magnitude >= 0x7f800000 ? 0x7c00 : (magnitude - 0x38000000) >> 13);
  }
  const std::uint16_t stored = static_cast<std::uint16_t>(narrow);
  std::memcpy(p, &stored, sizeof stored);
}

// The distance of neighbouring numbers of the dtype at |value|; subnormal ones count with theirs.
inline long double spacing(DType dtype, long double value) {
  const Format& f = format(dtype);
  int exponent = f.lowest_exponent;
  if (value != 0 && std::ilogb(value) > exponent) exponent = std::ilogb(value);
  return std::ldexp(1.0L, exponent - f.digits + 1);
}

}  // namespace crossent_test
