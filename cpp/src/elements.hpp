// Scalar access to elements of any dtype, for what is done once a row or once a class. Baseline code only.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "api.hpp"

namespace crossent {

template <class T>
T read_element(const char* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
template <class T>
void write_element(char* p, T value) {
  std::memcpy(p, &value, sizeof value);
}

inline double float_from_half(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = bits >> 15 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa ? sign * static_cast<double>(__builtin_nan("")) : sign * __builtin_inf();
  const double scaled = exponent ? (1024 + mantissa) * static_cast<double>(1 << (exponent - 1)) : mantissa;
  return sign * scaled * 0x1p-24;
}

// Any floating element as a float64.
inline double read_floating(DType dtype, const char* p) {
  switch (dtype) {
    case DType::float32:
      return static_cast<double>(read_element<float>(p));
    case DType::float64:
      return read_element<double>(p);
    case DType::float16:
      return float_from_half(read_element<std::uint16_t>(p));
    default: {
      const std::uint32_t bits = static_cast<std::uint32_t>(read_element<std::uint16_t>(p)) << 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      return static_cast<double>(value);
    }
  }
}

// Calls f with a floating dtype as a constant, for loops that do not ask for it at each element.
template <class F>
void with_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float32:
      return f(std::integral_constant<DType, DType::float32>{});
    case DType::float64:
      return f(std::integral_constant<DType, DType::float64>{});
    case DType::float16:
      return f(std::integral_constant<DType, DType::float16>{});
    default:
      return f(std::integral_constant<DType, DType::bfloat16>{});
  }
}

inline std::uint16_t half_from_double(double value) {
  const float single = static_cast<float>(value);
  std::uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  const std::uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<std::uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x47800000) return static_cast<std::uint16_t>(sign | 0x7c00);
  if (magnitude >= 0x38800000) {
    return static_cast<std::uint16_t>(sign | ((magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13));
  }
  float aligned;
  std::memcpy(&aligned, &magnitude, sizeof aligned);
  aligned += 0.5f;
  std::memcpy(&bits, &aligned, sizeof bits);
  return static_cast<std::uint16_t>(sign | (bits - 0x3f000000));
}

inline std::uint16_t bfloat16_from_double(double value) {
  const float single = static_cast<float>(value);
  std::uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline void write_floating(DType dtype, char* p, double value) {
  switch (dtype) {
    case DType::float32:
      write_element(p, static_cast<float>(value));
      break;
    case DType::float64:
      write_element(p, value);
      break;
    case DType::float16:
      write_element(p, half_from_double(value));
      break;
    default:
      write_element(p, bfloat16_from_double(value));
  }
}

}  // namespace crossent
