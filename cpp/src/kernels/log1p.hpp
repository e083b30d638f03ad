// log(1 + x) in float64, vectorized: once a row, on all rows of a group at a time.
#pragma once

// log1p(x.high + x.low) for 0 <= x < 2**64; at most 0.83 ULP on 9e7 points of [1e-300, 1e12] (0.93 without FMA), exact at 0.
// 1 + x = 2**k * (1 + f) with 1 + f in [3/4, 3/2), for which f = x * 2**-k + (2**-k - 1) is exact (low part aside).
// log(1 + f) = 2 * atanh(s) = f - (f*f/2 - s * (f*f/2 + R(s*s))), s = f / (2 + f); R is a minimax polynomial (Sollya's
// fpminimax; 2**-62.6 of the result). kLow: without it x.low is taken as 0.
template <bool kLow>
CROSSENT_INLINE Vec<double> log1p(Pair<Vec<double>> x) {
  constexpr double ln2_hi = 0x1.62e42fefa38p-1, ln2_lo = 0x1.ef35793c7673p-45;
  constexpr double coefficient[] = {0x1.1b8135a5795acp-3, 0x1.0dcba1ace789ep-3, 0x1.3b35c02bee0bp-3,  0x1.745c4adfdfc4dp-3,
                                    0x1.c71c748fb0d8ap-3, 0x1.24924921e457cp-2, 0x1.999999999c179p-2, 0x1.555555555554fp-1};
  const Vec<double> one = splat(1.0);
  const Vec<double> u = one + x.high;
  Vec<double> power, k;  // 2**-k and k
  for_each_part([&](int i) CROSSENT_LAMBDA {
    const NativeUint64 exponent = ((NativeUint64)u.part[i] - 0x3fe8000000000000u) >> 52;
    power.part[i] = (NativeDouble)((1023 - exponent) << 52);
    k.part[i] = (NativeDouble)(exponent | 0x4330000000000000u) - 0x1p52;
  });
  const Vec<double> f = fma(x.high, power, power - one);
  const Vec<double> s = f / (splat(2.0) + f);
  const Vec<double> z = s * s;
  Vec<double> r = splat(coefficient[0]);
  for (int i = 1; i < 8; ++i) r = fma(r, z, splat(coefficient[i]));
  const Vec<double> half = splat(0.5) * f, half_square = half * f;
  Vec<double> low = k * splat(ln2_lo);
  if constexpr (kLow) low = fma(x.low * power, (one - f) + (half_square + half_square), low);
  const Vec<double> w = fma(s, fma(z, r, half_square), low);
  return fma(k, splat(ln2_hi), f - fma(half, f, zero<double>() - w));
}
