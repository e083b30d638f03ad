// The logical vector of every kernel: 64 bytes (16 floats or 8 doubles) on every instruction set, made of as many native
// vectors as the leaf header needs. One width everywhere means one summation order, so that every set with FMA returns the
// same bits. Operators are generic vector code; what is not comes from the leaf.
#pragma once

#include "storage.hpp"

#include CROSSENT_LEAF

constexpr int kVectorBytes = 64;
constexpr int kParts = kVectorBytes / kNativeBytes;

typedef int32_t NativeInt32 __attribute__((vector_size(kNativeBytes)));
typedef int64_t NativeInt64 __attribute__((vector_size(kNativeBytes)));
typedef uint64_t NativeUint64 __attribute__((vector_size(kNativeBytes)));

// Native vectors at any address.
typedef float UnalignedFloat __attribute__((vector_size(kNativeBytes), aligned(1), may_alias));
typedef double UnalignedDouble __attribute__((vector_size(kNativeBytes), aligned(1), may_alias));

template <class T>
struct NativeOf;
template <>
struct NativeOf<float> {
  using type = NativeFloat;
  using unaligned = UnalignedFloat;
  using mask = NativeInt32;
  using integer = int32_t;
};
template <>
struct NativeOf<double> {
  using type = NativeDouble;
  using unaligned = UnalignedDouble;
  using mask = NativeInt64;
  using integer = int64_t;
};

// Unrolled by hand: a loop over the parts would be unrolled too late for gcc to keep the parts in registers.
template <class F>
CROSSENT_INLINE void for_each_part(F&& f) {
  f(0);
  if constexpr (kParts > 1) f(1);
  if constexpr (kParts > 2) {
    f(2);
    f(3);
  }
}

// Copied part by part: gcc copies a plain struct of 64 bytes in pieces of 16, on which the wider reads that follow have to wait
// (20 times slower).
template <class T>
struct Vec {
  using Native = typename NativeOf<T>::type;
  static constexpr ptrdiff_t kLanes = kVectorBytes / sizeof(T);
  static constexpr ptrdiff_t kNativeLanes = kNativeBytes / sizeof(T);
  Native part[kParts];

  CROSSENT_INLINE Vec() {}
  CROSSENT_INLINE Vec(const Vec& other) {
    for_each_part([&](int i) CROSSENT_LAMBDA { part[i] = other.part[i]; });
  }
  CROSSENT_INLINE Vec& operator=(const Vec& other) {
    for_each_part([&](int i) CROSSENT_LAMBDA { part[i] = other.part[i]; });
    return *this;
  }
};

// A comparison's result: all bits of a lane set, or none.
template <class T>
struct Mask {
  using Native = typename NativeOf<T>::mask;
  Native part[kParts];
};

template <class T>
CROSSENT_INLINE Vec<T> splat(T value) {
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = value - typename Vec<T>::Native{}; });  // keeps the sign of -0
  return r;
}
template <class T>
CROSSENT_INLINE Vec<T> zero() {
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = typename Vec<T>::Native{}; });
  return r;
}

#define CROSSENT_OPERATOR(op, Result)                                                  \
  template <class T>                                                                   \
  CROSSENT_INLINE Result<T> operator op(Vec<T> a, Vec<T> b) {                          \
    Result<T> r;                                                                       \
    for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = a.part[i] op b.part[i]; }); \
    return r;                                                                          \
  }
CROSSENT_OPERATOR(+, Vec)
CROSSENT_OPERATOR(-, Vec)
CROSSENT_OPERATOR(*, Vec)
CROSSENT_OPERATOR(/, Vec)
CROSSENT_OPERATOR(<, Mask)
CROSSENT_OPERATOR(>, Mask)
CROSSENT_OPERATOR(>=, Mask)
CROSSENT_OPERATOR(==, Mask)
#undef CROSSENT_OPERATOR

template <class T>
CROSSENT_INLINE Mask<T> operator&(Mask<T> a, Mask<T> b) {
  Mask<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = a.part[i] & b.part[i]; });
  return r;
}
template <class T>
CROSSENT_INLINE Vec<T> select(Mask<T> mask, Vec<T> yes, Vec<T> no) {
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = mask.part[i] ? yes.part[i] : no.part[i]; });
  return r;
}

// Bit i: whether lane i is set.
template <class T>
CROSSENT_INLINE uint32_t lane_bits(Mask<T> mask) {
  uint32_t bits = 0;
  for_each_part([&](int i) CROSSENT_LAMBDA {
    bits |= lane_signs((typename Vec<T>::Native)mask.part[i]) << (i * (int)Vec<T>::kNativeLanes);
  });
  return bits;
}

// The larger; `b` where either is NaN.
template <class T>
CROSSENT_INLINE Vec<T> max_or_second(Vec<T> a, Vec<T> b) {
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i]; });
  return r;
}

// a * b + c: rounded once where the instruction set has FMA.
template <class T>
CROSSENT_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = native_fma(a.part[i], b.part[i], c.part[i]); });
  return r;
}

// value * 2**k for a normal value and result, where k stands in the low bits of `shifter` (a number that was rounded by
// adding 1.5 * 2**(mantissa bits)).
template <class T>
CROSSENT_INLINE Vec<T> scale_by_low_bits(Vec<T> value, Vec<T> shifter) {
  constexpr int mantissa_bits = sizeof(T) == 4 ? 23 : 52;
  using Integer = typename NativeOf<T>::mask;
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA {
    r.part[i] = (typename Vec<T>::Native)((Integer)value.part[i] + ((Integer)shifter.part[i] << mantissa_bits));
  });
  return r;
}

template <class T>
CROSSENT_INLINE Vec<T> load(const T* p) {
  Vec<T> r;
  for_each_part([&](int i)
                    CROSSENT_LAMBDA { r.part[i] = *(const typename NativeOf<T>::unaligned*)(p + i * Vec<T>::kNativeLanes); });
  return r;
}
CROSSENT_INLINE Vec<float> load(const Half* p) {
  Vec<float> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = load_halves(p + i * Vec<float>::kNativeLanes); });
  return r;
}
CROSSENT_INLINE Vec<float> load(const BFloat16* p) {
  Vec<float> r;
  for_each_part([&](int i)
                    CROSSENT_LAMBDA { r.part[i] = (NativeFloat)(load_16_bits(p + i * Vec<float>::kNativeLanes) << 16); });
  return r;
}
template <class T>
CROSSENT_INLINE void store(T* p, Vec<T> a) {
  for_each_part([&](int i) CROSSENT_LAMBDA { *(typename NativeOf<T>::unaligned*)(p + i * Vec<T>::kNativeLanes) = a.part[i]; });
}
CROSSENT_INLINE void store(Half* p, Vec<float> a) {
  for_each_part([&](int i) CROSSENT_LAMBDA { store_halves(p + i * Vec<float>::kNativeLanes, a.part[i]); });
}
CROSSENT_INLINE void store(BFloat16* p, Vec<float> a) {
  for_each_part([&](int i) CROSSENT_LAMBDA {
    store_16_bits(p + i * Vec<float>::kNativeLanes, float_to_bfloat16_bits<NativeBits>(a.part[i]));
  });
}

// The first `count` elements (at least 1, less than a vector), the other lanes `fill`. Touches nothing else in memory.
template <class S>
CROSSENT_INLINE Vec<Compute<S>> load_partial(const S* p, ptrdiff_t count, Compute<S> fill) {
  using T = Compute<S>;
  Vec<T> r;
  if constexpr (sizeof(S) == sizeof(T)) {
    for_each_part(
        [&](int i) CROSSENT_LAMBDA { r.part[i] = load_first(p + i * Vec<T>::kNativeLanes, count - i * Vec<T>::kNativeLanes); });
  } else {
    S lane[Vec<T>::kLanes] = {};
    __builtin_memcpy(lane, p, count * sizeof(S));
    r = load(lane);
  }
  T index[Vec<T>::kLanes];
  for (ptrdiff_t i = 0; i < Vec<T>::kLanes; ++i) index[i] = (T)i;
  return select(load(index) < splat((T)count), r, splat(fill));
}
template <class S>
CROSSENT_INLINE void store_partial(S* p, ptrdiff_t count, Vec<Compute<S>> a) {
  using T = Compute<S>;
  if constexpr (sizeof(S) == sizeof(T)) {
    for_each_part(
        [&](int i) CROSSENT_LAMBDA { store_first(p + i * Vec<T>::kNativeLanes, count - i * Vec<T>::kNativeLanes, a.part[i]); });
  } else {
    S lane[Vec<T>::kLanes];
    store(lane, a);
    __builtin_memcpy(p, lane, count * sizeof(S));
  }
}

// 16 floats as two vectors of 8 doubles, and back.
struct Widened {
  Vec<double> low, high;
};
CROSSENT_INLINE Widened widen(Vec<float> a) {
  constexpr int half = kParts / 2;
  Widened r;
  if constexpr (kParts == 1) {
    r.low.part[0] = widen_low(a.part[0]);
    r.high.part[0] = widen_high(a.part[0]);
  } else {
    for_each_part([&](int i) CROSSENT_LAMBDA {
      r.low.part[i] = i % 2 ? widen_high(a.part[i / 2]) : widen_low(a.part[i / 2]);
      r.high.part[i] = i % 2 ? widen_high(a.part[half + i / 2]) : widen_low(a.part[half + i / 2]);
    });
  }
  return r;
}
CROSSENT_INLINE Vec<float> narrow(Widened a) {
  Vec<float> r;
  if constexpr (kParts == 1) {
    r.part[0] = narrow(a.low.part[0], a.high.part[0]);
  } else {
    constexpr int half = kParts / 2;
    for_each_part([&](int i) CROSSENT_LAMBDA {
      r.part[i] = i < half ? narrow(a.low.part[2 * i % kParts], a.low.part[(2 * i + 1) % kParts])
                           : narrow(a.high.part[2 * i % kParts], a.high.part[(2 * i + 1) % kParts]);
    });
  }
  return r;
}

// The largest of the 16 or 8 lanes; NaN lanes do not count (-inf if all are).
template <class T>
CROSSENT_INLINE T largest_lane(Vec<T> a) {
  T lane[Vec<T>::kLanes];
  store(lane, a);
  for (ptrdiff_t step = Vec<T>::kLanes / 2; step > 0; step /= 2) {
    for (ptrdiff_t i = 0; i < step; ++i) lane[i] = lane[i + step] > lane[i] ? lane[i + step] : lane[i];
  }
  return lane[0];
}

// The sum of the lanes, for small whole numbers (any order gives the same).
template <class T>
CROSSENT_INLINE double sum_of_lanes(Vec<T> a) {
  T lane[Vec<T>::kLanes];
  store(lane, a);
  T sum = 0;
  for (ptrdiff_t i = 0; i < Vec<T>::kLanes; ++i) sum += lane[i];
  return sum;
}
