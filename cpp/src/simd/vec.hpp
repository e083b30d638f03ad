// The logical vector of every kernel: 64 bytes (16 floats or 8 doubles) on every instruction set, made of as many native
// vectors as the leaf header needs. One width everywhere means one summation order, so that every set with FMA returns the
// same bits. Operators are generic vector code; what is not comes from the leaf.
#pragma once

#include "shuffles.hpp"
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
CROSSENT_OPERATOR(!=, Mask)
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

// Lanes of a vector of floats.
struct Lanes {
  NativeLanes part[kParts];
};
CROSSENT_INLINE Lanes unequal_lanes(Vec<float> a, Vec<float> b) {
  Lanes r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = unequal_lanes(a.part[i], b.part[i]); });
  return r;
}
// `value` there, 0 in the others.
CROSSENT_INLINE Vec<float> only_lanes(const Lanes& lanes, Vec<float> value) {
  Vec<float> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = only_lanes(lanes.part[i], value.part[i]); });
  return r;
}
// How many there are in all of them.
CROSSENT_INLINE int count_lanes(const Lanes (&lanes)[4]) {
  int count = 0;
  for_each_part([&](int i) CROSSENT_LAMBDA {
    count += count_lanes(lanes[0].part[i], lanes[1].part[i], lanes[2].part[i], lanes[3].part[i]);
  });
  return count;
}

// The larger; `b` where either is NaN. By name: gcc 12 compares and blends where one of them is a constant.
template <class T>
CROSSENT_INLINE Vec<T> max_or_second(Vec<T> a, Vec<T> b) {
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = native_max(a.part[i], b.part[i]); });
  return r;
}

// The smaller; `b` where either is NaN.
template <class T>
CROSSENT_INLINE Vec<T> smaller(Vec<T> a, Vec<T> b) {
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = a.part[i] < b.part[i] ? a.part[i] : b.part[i]; });
  return r;
}

// a * b + c: rounded once where the instruction set has FMA.
template <class T>
CROSSENT_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = native_fma(a.part[i], b.part[i], c.part[i]); });
  return r;
}

// 2**k where k + the exponent bias of T stands in the low bits of `shifter` (a number that was rounded by adding 1.5 *
// 2**(mantissa bits)); 0 where those bits are 0.
template <class T>
CROSSENT_INLINE Vec<T> power_of_two(Vec<T> shifter) {
  constexpr int mantissa_bits = sizeof(T) == 4 ? 23 : 52;
  using Integer = typename NativeOf<T>::mask;
  Vec<T> r;
  for_each_part([&](int i)
                    CROSSENT_LAMBDA { r.part[i] = (typename Vec<T>::Native)((Integer)shifter.part[i] << mantissa_bits); });
  return r;
}

template <class T>
CROSSENT_INLINE Vec<T> load(const T* p) {
  Vec<T> r;
  for_each_part([&](int i)
                    CROSSENT_LAMBDA { r.part[i] = *(const typename NativeOf<T>::unaligned*)(p + i * Vec<T>::kNativeLanes); });
  return r;
}
CROSSENT_INLINE NativeFloat of_bfloat16_bits(NativeBits bits) { return (NativeFloat)(bits << 16); }
CROSSENT_INLINE Vec<float> load(const Half* p) {
  Vec<float> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = load_halves(p + i * Vec<float>::kNativeLanes); });
  return r;
}
CROSSENT_INLINE Vec<float> load(const BFloat16* p) {
  Vec<float> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = of_bfloat16_bits(load_16_bits(p + i * Vec<float>::kNativeLanes)); });
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
// Two vectors, one after the other.
template <class S, class T>
CROSSENT_INLINE void store_pair(S* p, Vec<T> a, Vec<T> b) {
  store(p, a);
  store(p + Vec<T>::kLanes, b);
}
CROSSENT_INLINE void store_pair(BFloat16* p, Vec<float> a, Vec<float> b) {
  constexpr ptrdiff_t lanes = Vec<float>::kNativeLanes;
  if constexpr (kParts == 1) return store_bfloat16_pair(p, a.part[0], b.part[0]);
  for (int i = 0; i + 1 < kParts; i += 2) {
    store_bfloat16_pair(p + i * lanes, a.part[i], a.part[i + 1]);
    store_bfloat16_pair(p + (kParts + i) * lanes, b.part[i], b.part[i + 1]);
  }
}

// Past the caches, to an address that is a multiple of kVectorBytes.
template <class T>
CROSSENT_INLINE void store_past_caches(T* p, Vec<T> a) {
  for_each_part([&](int i) CROSSENT_LAMBDA { store_stream(p + i * Vec<T>::kNativeLanes, a.part[i]); });
}

// The first `count` elements, the other lanes `fill`. Touches nothing else in memory.
template <class T>
CROSSENT_INLINE Vec<T> load_partial(const T* p, ptrdiff_t count, T fill) {
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA {
    r.part[i] = load_first(p + i * Vec<T>::kNativeLanes, count - i * Vec<T>::kNativeLanes, fill - typename Vec<T>::Native{});
  });
  return r;
}
template <class T>
CROSSENT_INLINE void store_partial(T* p, ptrdiff_t count, Vec<T> a) {
  for_each_part(
      [&](int i) CROSSENT_LAMBDA { store_first(p + i * Vec<T>::kNativeLanes, count - i * Vec<T>::kNativeLanes, a.part[i]); });
}

// The same, or all where there are as many.
template <class T>
CROSSENT_INLINE void store_up_to(T* p, ptrdiff_t count, Vec<T> a) {
  if (count >= Vec<T>::kLanes) {
    store(p, a);
  } else {
    store_partial(p, count, a);
  }
}

// 16 floats as two vectors of 8 doubles.
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
CROSSENT_INLINE Vec<float> narrow(const Widened& a) {
  Vec<float> r;
  if constexpr (kParts == 1) {
    r.part[0] = narrow(a.low.part[0], a.high.part[0]);
  } else {
    constexpr int half = kParts / 2;
    for_each_part([&](int i) CROSSENT_LAMBDA {
      const Vec<double>& of = i < half ? a.low : a.high;
      const int first = 2 * (i < half ? i : i - half);
      r.part[i] = narrow(of.part[first], of.part[first + 1]);
    });
  }
  return r;
}
// 16 floats as 8 doubles: lanes i and i + 8 added, then widened.
CROSSENT_INLINE Vec<double> widen_folded(Vec<float> a) {
  Vec<double> r;
  if constexpr (kParts == 1) {
    r.part[0] = widen_low(a.part[0] + exchange<8>(a.part[0]));
  } else {
    constexpr int half = kParts / 2;
    for_each_part([&](int i) CROSSENT_LAMBDA {
      const NativeFloat sum = a.part[i / 2] + a.part[half + i / 2];
      r.part[i] = i % 2 ? widen_high(sum) : widen_low(sum);
    });
  }
  return r;
}

CROSSENT_INLINE ptrdiff_t between(ptrdiff_t low, ptrdiff_t value, ptrdiff_t high) {
  return value < low ? low : value > high ? high : value;
}

// All lanes brought into one by join(a, b) of parts and then of lanes i and i + L/2, i + L/4, …, i + 1.
template <class T, class Join>
CROSSENT_INLINE T reduce_lanes(Vec<T> a, Join&& join) {
  if constexpr (kParts == 4) {
    a.part[0] = join(a.part[0], a.part[2]);
    a.part[1] = join(a.part[1], a.part[3]);
  }
  if constexpr (kParts > 1) a.part[0] = join(a.part[0], a.part[1]);
  if constexpr (Vec<T>::kNativeLanes > 8) a.part[0] = join(a.part[0], exchange<8>(a.part[0]));
  if constexpr (Vec<T>::kNativeLanes > 4) a.part[0] = join(a.part[0], exchange<4>(a.part[0]));
  if constexpr (Vec<T>::kNativeLanes > 2) a.part[0] = join(a.part[0], exchange<2>(a.part[0]));
  return join(a.part[0], exchange<1>(a.part[0]))[0];
}

// The largest lane of numbers that are not NaN.
template <class T>
CROSSENT_INLINE T largest_lane(Vec<T> a) {
  using Native = typename Vec<T>::Native;
  return reduce_lanes(a, [](Native p, Native q) CROSSENT_LAMBDA { return p > q ? p : q; });
}

template <class T>
CROSSENT_INLINE T sum_of_lanes(Vec<T> a) {
  using Native = typename Vec<T>::Native;
  return reduce_lanes(a, [](Native p, Native q) CROSSENT_LAMBDA { return p + q; });
}

template <class T>
CROSSENT_INLINE bool any_less(Vec<T> a, Vec<T> b) {
  bool any = false;
  for_each_part([&](int i) CROSSENT_LAMBDA { any |= any_lane_less(a.part[i], b.part[i]); });
  return any;
}
template <class T>
CROSSENT_INLINE bool any_equal(Vec<T> a, Vec<T> b) {
  bool any = false;
  for_each_part([&](int i) CROSSENT_LAMBDA { any |= any_lane_equal(a.part[i], b.part[i]); });
  return any;
}

// 8 numbers of either type as doubles, and back.
CROSSENT_INLINE Vec<double> load_as_double(const double* p) { return load(p); }
CROSSENT_INLINE Vec<double> load_as_double(const float* p) {
  Vec<double> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = load_widened(p + i * Vec<double>::kNativeLanes); });
  return r;
}
// 8 integers of magnitudes below 2**51, loaded as if they were doubles, as the doubles that they are.
CROSSENT_INLINE Vec<double> whole_numbers(Vec<double> bits_of_integers) {
  Vec<double> r;
  for_each_part([&](int i) CROSSENT_LAMBDA {
    r.part[i] = (NativeDouble)((NativeInt64)bits_of_integers.part[i] + 0x4338000000000000) - 0x1.8p+52;
  });
  return r;
}
CROSSENT_INLINE void store_rounded(double* p, Vec<double> a) { store(p, a); }
CROSSENT_INLINE void store_rounded(float* p, Vec<double> a) {
  for_each_part([&](int i) CROSSENT_LAMBDA { store_narrowed(p + i * Vec<double>::kNativeLanes, a.part[i]); });
}

// All lanes as doubles, stored.
CROSSENT_INLINE void store_as_double(double* p, Vec<double> a) { store(p, a); }
CROSSENT_INLINE void store_as_double(double* p, Vec<float> a) {
  const Widened w = widen(a);
  store(p, w.low);
  store(p + 8, w.high);
}

// n numbers, a multiple of the lanes.
template <class T>
CROSSENT_INLINE void fill(T* p, ptrdiff_t n, T value) {
  for (ptrdiff_t i = 0; i < n; i += Vec<T>::kLanes) store(p + i, splat(value));
}
