// log(1 + x) in float64, vectorized: once a row, on all rows of a group at a time.
#pragma once

// 1 + x = 2**k * (1 + f) with 1 + f in [3/4, 3/2), for which f = x * 2**-k + (2**-k - 1) is exact, and
// log(1 + f) = 2 * atanh(s) = 2 * s + s * z * R(z), s = f / (2 + f), z = s * s; R is a minimax polynomial.
struct Log1pParts {
  Vec<double> power, k, f;  // power: 2**-k

  CROSSENT_INLINE explicit Log1pParts(Vec<double> x) {
    const Vec<double> u = splat(1.0) + x;
    for_each_part([&](int i) CROSSENT_LAMBDA {
      const NativeUint64 exponent = ((NativeUint64)u.part[i] - 0x3fe8000000000000u) >> 52;
      power.part[i] = (NativeDouble)((1023 - exponent) << 52);
      k.part[i] = (NativeDouble)(exponent | 0x4330000000000000u) - 0x1p52;
    });
    f = fma(x, power, power - splat(1.0));
  }
};

// log1p(x.high + x.low) for 0 <= x < 2**64; at most 0.83 ULP on 9e7 points of [1e-300, 1e12] (0.93 without FMA), exact at 0.
// log(1 + f) as f - (f*f/2 - s * (f*f/2 + R(z) * z)), whose rounding errors are smaller; R from Sollya's fpminimax, 2**-62.6 of
// the result. kLow: without it x.low is taken as 0.
template <bool kLow>
CROSSENT_INLINE Vec<double> log1p(Pair<Vec<double>> x) {
  constexpr double ln2_hi = 0x1.62e42fefa38p-1, ln2_lo = 0x1.ef35793c7673p-45;
  constexpr double coefficient[] = {0x1.1b8135a5795acp-3, 0x1.0dcba1ace789ep-3, 0x1.3b35c02bee0bp-3,  0x1.745c4adfdfc4dp-3,
                                    0x1.c71c748fb0d8ap-3, 0x1.24924921e457cp-2, 0x1.999999999c179p-2, 0x1.555555555554fp-1};
  const Vec<double> one = splat(1.0);
  const Log1pParts parts(x.high);
  const Vec<double> f = parts.f, s = f / (splat(2.0) + f), z = s * s;
  Vec<double> r = splat(coefficient[0]);
  for (int i = 1; i < 8; ++i) r = fma(r, z, splat(coefficient[i]));
  const Vec<double> half = splat(0.5) * f, half_square = half * f;
  Vec<double> low = parts.k * splat(ln2_lo);
  if constexpr (kLow) low = fma(x.low * parts.power, (one - f) + (half_square + half_square), low);
  const Vec<double> w = fma(s, fma(z, r, half_square), low);
  return fma(parts.k, splat(ln2_hi), f - fma(half, f, zero<double>() - w));
}

// log1p(x) for results that are rounded to float32: within 2**-42.1 of it, exact at 0. Half as many operations, and half as
// many one after the other, of which there are too many where rows have few classes (log_softmax of columns of 2: 1.11 -> 0.99
// ns per element).
CROSSENT_INLINE Vec<double> log1p_for_float(Vec<double> x) {
  constexpr double ln2 = 0x1.62e42fefa39efp-1;
  constexpr double r0 = 0x1.555555591082dp-1, r1 = 0x1.99998f5201ebep-2, r2 = 0x1.2496dff2c284fp-2, r3 = 0x1.c554a10b5f0cep-3,
                   r4 = 0x1.9c12590efe937p-3;
  const Log1pParts parts(x);
  const Vec<double> s = parts.f / (splat(2.0) + parts.f), z = s * s, square = z * z;
  const Vec<double> first = fma(z, splat(r1), splat(r0)), last = fma(square, splat(r4), fma(z, splat(r3), splat(r2)));
  return fma(parts.k, splat(ln2), fma(s * z, fma(square, last, first), s + s));
}
