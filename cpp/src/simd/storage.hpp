// Element types as they lie in memory, and conversions written in generic vectors (no instruction-set intrinsics).
// Included by simd/vec.hpp before the leaf header, which may use these as its fallbacks.
#pragma once

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type that the arithmetic on an element type is done in.
template <class S>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeOf<S>::type;

template <class To, class From>
CROSSENT_INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// float16 bits, zero-extended to 32 bits a lane -> float32. No arithmetic on subnormal float32 numbers: right under DAZ too.
template <class Float, class Bits>
CROSSENT_INLINE Float half_bits_to_float(Bits half) {
  const Bits sign = (half & 0x8000) << 16;
  const Bits magnitude = half & 0x7fff;
  const Bits rebiased = (magnitude << 13) + (112 << 23);
  const Bits special = rebiased + (112 << 23);
  const Float subnormal = bit_cast<Float>((magnitude << 13) | (113 << 23)) - 0x1p-14f;
  const Bits finite = magnitude < 0x0400 ? bit_cast<Bits>(subnormal) : rebiased;
  return bit_cast<Float>((magnitude >= 0x7c00 ? special : finite) | sign);
}

// float32 -> float16 bits in the low half of each lane, round to nearest even; NaN becomes a quiet NaN.
template <class Bits, class Float>
CROSSENT_INLINE Bits float_to_half_bits(Float value) {
  const Bits bits = bit_cast<Bits>(value);
  const Bits magnitude = bits & 0x7fffffff;
  const Bits rounded = (magnitude + 0xfff + ((magnitude >> 13) & 1) - (112 << 23)) >> 13;
  const Bits subnormal = bit_cast<Bits>(bit_cast<Float>(magnitude) + 0.5f) - 0x3f000000;
  const Bits finite = magnitude < 0x38800000 ? subnormal : rounded;
  const Bits infinite = Bits{} + 0x7c00;
  const Bits quiet = Bits{} + 0x7e00;
  const Bits large = magnitude > 0x7f800000 ? quiet : infinite;
  return (magnitude >= 0x47800000 ? large : finite) | ((bits >> 16) & 0x8000);
}

template <class Bits, class Float>
CROSSENT_INLINE Bits float_to_bfloat16_bits(Float value) {
  const Bits bits = bit_cast<Bits>(value);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits quiet = ((bits >> 16) & 0x8000) | 0x7fc0;
  return (bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded;
}

// What rounding left of a + b = sum (Knuth), for any order of magnitudes.
template <class Native>
CROSSENT_INLINE Native sum_error_by_parts(Native a, Native b, Native sum) {
  const Native b_part = sum - a;
  return (a - (sum - b_part)) + (b - b_part);
}

// The first `count` lanes from memory, the others of `fill`; nothing beyond them is touched.
template <class Native, class T>
CROSSENT_INLINE Native load_first_by_copy(const T* p, ptrdiff_t count, Native fill) {
  constexpr ptrdiff_t lanes = sizeof(Native) / sizeof(T);
  if (count > 0) __builtin_memcpy(&fill, p, (count < lanes ? count : lanes) * sizeof(T));
  return fill;
}
template <class T, class Native>
CROSSENT_INLINE void store_first_by_copy(T* p, ptrdiff_t count, Native a) {
  constexpr ptrdiff_t lanes = sizeof(Native) / sizeof(T);
  if (count > 0) __builtin_memcpy(p, &a, (count < lanes ? count : lanes) * sizeof(T));
}

// The first `count` of the 16 elements of 16 bits that a logical vector has, the others 0; and back.
CROSSENT_INLINE void read_first_16_bits_by_copy(const void* from, ptrdiff_t count, void* to) {
  __builtin_memset(to, 0, 16 * sizeof(uint16_t));
  __builtin_memcpy(to, from, count * sizeof(uint16_t));
}
CROSSENT_INLINE void write_first_16_bits_by_copy(void* to, ptrdiff_t count, const void* from) {
  __builtin_memcpy(to, from, count * sizeof(uint16_t));
}

// Bit i: the sign of lane i.
template <class Bits, class Native>
CROSSENT_INLINE uint32_t lane_signs_by_shifts(Native a) {
  const Bits bits = bit_cast<Bits>(a);
  uint32_t signs = 0;
  for (size_t i = 0; i < sizeof a / sizeof bits[0]; ++i) signs |= (uint32_t)(bits[i] >> (8 * sizeof bits[0] - 1)) << i;
  return signs;
}
