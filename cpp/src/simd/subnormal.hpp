// Results that are subnormal, which some processors compute a hundred times slower, by arithmetic on normal numbers.
#pragma once

// The smallest normal number and the smallest of all, and the numbers whose last bit is 1.
template <class T>
struct Smallest;
template <>
struct Smallest<float> {
  static constexpr float normal = 0x1p-126f, inverse = 0x1p+100f, more = 0x1p+49f, whole = 0x1p+23f;
};
template <>
struct Smallest<double> {
  static constexpr double normal = 0x1p-1022, inverse = 0x1p+1000, more = 0x1p+74, whole = 0x1p+52;
};

// a * b for a >= 0 and a subnormal product, rounded once, by arithmetic on normal numbers only: the bits of a subnormal number
// count the smallest one.
template <class T>
CROSSENT_INLINE Vec<T> multiples_of_smallest(Vec<T> a, Vec<T> b) {
  using Integer = typename NativeOf<T>::mask;
  const Vec<T> negated = zero<T>() - b, magnitude = select(b < zero<T>(), negated, b);
  const Vec<T> whole = splat(Smallest<T>::whole);
  const Vec<T> count = fma(a * splat(Smallest<T>::more), magnitude * splat(Smallest<T>::inverse), whole);
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA {
    constexpr int sign_bit = 8 * sizeof(T) - 1;
    const Integer sign = (Integer)b.part[i] >> sign_bit << sign_bit;
    r.part[i] = (typename Vec<T>::Native)(((Integer)count.part[i] - (Integer)whole.part[i]) | sign);
  });
  return r;
}

// The smallest normal number / |a|, or up to an eighth more, for |a| of at most 1: a straight line between powers of two, since
// the bits of a number grow as its logarithm does, nearly.
template <class T>
CROSSENT_INLINE Vec<T> subnormal_bound(Vec<T> a) {
  using Integer = typename NativeOf<T>::mask;
  Vec<T> r;
  for_each_part([&](int i) CROSSENT_LAMBDA {
    constexpr int exponent_bit = 8 * sizeof(T) - 2;
    const Integer magnitude = (Integer)a.part[i] << 1 >> 1;
    r.part[i] = (typename Vec<T>::Native)(((Integer{} + 1) << exponent_bit) - magnitude);
  });
  return r;
}
