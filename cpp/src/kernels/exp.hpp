// exp(x - m) as every kernel needs it: as if x - m had not been rounded, and scaled by 2**bias.
#pragma once

// exp(d) = 2**n * exp(r), n = round(d / ln 2), r = d - n * ln2 in two pieces. The high piece of ln 2 is a whole multiple of
// `grid`, so n * ln2_hi is exact, without FMA too.
// exp(r) = 1 + r + r**2 * q(r), |r| <= ln(2)/2, with q a minimax polynomial in Horner form; exp(0) is exactly 1.
// The exponent is biased so that no result is subnormal: sums keep their bits, and undoing the bias in the factor that a result
// is multiplied by rounds it once. Everything below the range of the biased exponents is exactly 0, since 2**n is made of bits:
// the exponent field of 0 means the number 0. `floor` is where that is so.
template <class T>
struct ExpConstants;

// Degree 6, relative error 2**-28.2 (Sollya's fpminimax); at most 0.871 ULP in every 40th float of [-104, 40], 1.146 without
// FMA, with a low part 0.894 and 1.175 on 1e7 points, relative to an origin 1.03 and 1.25 (bench/exhaustive.py).
template <>
struct ExpConstants<float> {
  static constexpr int bias = 64;
  static constexpr float floor = -191 * 0x1.62e43p-1f;  // n = -191, whose biased exponent field is 0
  static constexpr float log2_e = 0x1.715476p+0f;
  static constexpr float ln2_hi = 0x1.63p-1f;
  static constexpr float ln2_lo = -0x1.bd0106p-13f;
  static constexpr float grid = 0x1p-10f;
  static constexpr float largest_origin = 0x1p12f;  // up to here origin + n * ln2_hi fits 24 bits of the grid
  static constexpr float shifter = 0x1.8p+23f + 127 + bias;
  static constexpr float q[] = {0x1.695414p-10f, 0x1.123b04p-7f, 0x1.555a22p-5f, 0x1.55549p-3f, 0x1.fffffap-2f};
};

// Degree 11, relative error 2**-57.8; at most 0.878 ULP on 1e7 points of [-746, 40], 1.164 without FMA, relative to an
// origin 1.02 and 1.30.
template <>
struct ExpConstants<double> {
  static constexpr int bias = 128;
  static constexpr double floor = -1151 * 0x1.62e42fefa39efp-1;
  static constexpr double log2_e = 0x1.71547652b82fep+0;
  static constexpr double ln2_hi = 0x1.62e42fef8p-1;
  static constexpr double ln2_lo = 0x1.1cf79abc9e3b4p-36;
  static constexpr double grid = 0x1p-34;
  static constexpr double largest_origin = 0x1p17;
  static constexpr double shifter = 0x1.8p+52 + 1023 + bias;
  static constexpr double q[] = {0x1.ad85bb7fcf4dap-26, 0x1.28aeb476caa8dp-22, 0x1.71df22fd74365p-19, 0x1.a01998b27e796p-16,
                                 0x1.a01a012aa8e77p-13, 0x1.6c16c184a9d23p-10, 0x1.1111111127d09p-7,  0x1.5555555550629p-5,
                                 0x1.55555555554f9p-3,  0x1.000000000000ap-1};
};

// A number as the unevaluated sum of a rounded value and what the rounding left.
template <class V>
struct Pair {
  V high, low;
};

// a + b exactly, for any order of magnitudes; NaN in the low part where the sum is not finite.
CROSSENT_INLINE Pair<double> two_sum(double a, double b) {
  const double sum = a + b;
  const double b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}
template <class T>
CROSSENT_INLINE Pair<Vec<T>> two_sum(Vec<T> a, Vec<T> b) {
  Pair<Vec<T>> r;
  r.high = a + b;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.low.part[i] = sum_error(a.part[i], b.part[i], r.high.part[i]); });
  return r;
}

// exp(r) * 2**(n + bias), |r| <= ln(2)/2, from `shifted` = n + shifter.
template <class T, class V>
CROSSENT_INLINE V exp_reduced(const V& r, const V& shifted) {
  using K = ExpConstants<T>;
  V q = fma(r, splat(K::q[0]), splat(K::q[1]));
  for (size_t i = 2; i < sizeof K::q / sizeof K::q[0]; ++i) q = fma(q, r, splat(K::q[i]));
  const V power = power_of_two(shifted);
  // The power last: r * power would be subnormal, and slow, 6 nats before the result is.
  return fma(r, fma(r, q, splat((T)1)), splat((T)1)) * power;
}

// An exponential in two halves: exp_reduced() is the second.
template <class V>
struct BegunExp {
  V rest, shifted;
};
template <class T, class V>
CROSSENT_INLINE BegunExp<V> begin_exp(const Pair<V>& d) {
  using K = ExpConstants<T>;
  const V shifted = fma(d.high, splat(K::log2_e), splat(K::shifter)), n = shifted - splat(K::shifter);
  return {fma(n, splat(-K::ln2_hi), d.high) + fma(n, splat(-K::ln2_lo), d.low), shifted};
}

// exp(d.high + d.low) * 2**bias for d between `floor` and 40; NaN where d is NaN; garbage, but no trap, elsewhere.
template <class T>
CROSSENT_INLINE Vec<T> exp_biased(const Pair<Vec<T>>& d) {
  const BegunExp<Vec<T>> begun = begin_exp<T>(d);
  return exp_reduced<T>(begun.rest, begun.shifted);
}

// The same, to the last bit, for numbers whose low part is 0: a vector of them or four.
template <class T, class V>
CROSSENT_INLINE V exp_biased(const V& d) {
  using K = ExpConstants<T>;
  const V shifted = fma(d, splat(K::log2_e), splat(K::shifter)), n = shifted - splat(K::shifter);
  return exp_reduced<T>(fma(n, splat(-K::ln2_hi), d) + n * splat(-K::ln2_lo), shifted);
}

// What exponentials are taken relative to: exp(x - origin) * 2**bias for x <= origin + 40, 0 where that would be below half the
// smallest subnormal, NaN where x is NaN.
//
// What is left of x - origin beside n * ln2 is found without the rounding error of x - origin: origin is `coarse`, a multiple
// of `grid`, and `fine`, which is small; coarse + n * ln2_hi is such a multiple too, and so exact, and what x is off it is
// small. Less `fine` that is x - origin - n * ln2_hi, with no rounding error at all where x - origin has as many bits as fit a
// number (so that a constant that is added exactly to all x changes no bit), and hardly one where x is much smaller than
// origin. A two-sum of x - origin would take 3 operations of 19 more (softmax of 1000 floats: 0.32 -> 0.30 ns per element;
// without AVX-512 it takes 4).
// Origin: a vector of origins, or Four for the four vectors that go together.
template <class T, class Origin = Vec<T>>
struct Exponential {
  Origin minus_origin, lowest, coarse, fine;

  CROSSENT_INLINE explicit Exponential(Vec<T> origin)
      : minus_origin(zero<T>() - origin), lowest(origin + splat(ExpConstants<T>::floor)) {
    // Numbers of twice largest_origin and more are multiples of the grid. Down to it, never up: ties would go either way.
    const Vec<T> rounder = splat(3 * ExpConstants<T>::largest_origin);
    const Vec<T> nearest = (origin + rounder) - rounder;
    coarse = select(nearest > origin, nearest - splat(ExpConstants<T>::grid), nearest);
    fine = origin - coarse;
  }
  CROSSENT_INLINE Exponential(const Origin& minus, const Origin& low, const Origin& on_grid, const Origin& rest)
      : minus_origin(minus), lowest(low), coarse(on_grid), fine(rest) {}

  // x is raised to where the exponential is 0, rather than the result replaced: one operation, and no infinities to care for.
  // For |origin| <= largest_origin only, as those that follow.
  template <class V>
  CROSSENT_INLINE V operator()(const V& x) const {
    const V raised = raise(x);
    return of_raised(raised, raised + minus_origin);
  }
  template <class V>
  CROSSENT_INLINE V raise(const V& x) const {
    return max_or_second(lowest, x);
  }
  // `difference`: x - origin, rounded.
  template <class V>
  CROSSENT_INLINE V of_raised(const V& x, const V& difference) const {
    if constexpr (sizeof(V) > sizeof(Vec<T>) && kParts > 1) {  // too few registers
      return each_of_four<T>([&](int i) CROSSENT_LAMBDA {
        const Exponential<T> one(at(minus_origin, i), at(lowest, i), at(coarse, i), at(fine, i));
        return one.of_raised(x.of[i], difference.of[i]);
      });
    }
    return end(begin_raised(x, difference));
  }

  // An exponential in two halves.
  template <class V>
  struct Begun {
    V rest, shifted, difference;  // the last is of no use for the exponential, but entropy needs it
  };
  template <class V>
  CROSSENT_INLINE Begun<V> begin(const V& x) const {
    const V raised = raise(x);
    return begin_raised(raised, raised + minus_origin);
  }
  template <class V>
  CROSSENT_INLINE Begun<V> begin_raised(const V& x, const V& difference) const {
    using K = ExpConstants<T>;
    const V shifted = fma(difference, splat(K::log2_e), splat(K::shifter)), n = shifted - splat(K::shifter);
    const V rest = (x - fma(n, splat(K::ln2_hi), coarse)) - fine;
    return {fma(n, splat(-K::ln2_lo), rest), shifted, difference};
  }
  template <class V>
  static CROSSENT_INLINE V end(const Begun<V>& begun) {
    return exp_reduced<T>(begun.rest, begun.shifted);
  }

  // For any origin; the same bits where it is small.
  CROSSENT_INLINE Vec<T> of_any(Vec<T> x) const {
    Vec<T> result;
    of_any_lanes(x, result);
    return result;
  }
  CROSSENT_INLINE Four<T> of_any(const Four<T>& x) const {
    return each_of_four<T>([&](int i) CROSSENT_LAMBDA { return of_any(x.of[i]); });
  }
  CROSSENT_SHARED void of_any_lanes(const Vec<T>& x, Vec<T>& result) const {
    using K = ExpConstants<T>;
    const Vec<T> none = zero<T>(), limit = splat(K::largest_origin),
                 magnitude = max_or_second(minus_origin, none - minus_origin);
    const Pair<Vec<T>> d = two_sum(x, minus_origin);
    const Vec<T> shifted = fma(d.high, splat(K::log2_e), splat(K::shifter)), n = shifted - splat(K::shifter);
    // Rounded as that of small ones where nothing is left of the difference.
    const Vec<T> r = fma(n, splat(-K::ln2_lo), fma(n, splat(-K::ln2_hi), d.high) + d.low);
    // max(0, d) is 0 for every d below the floor, and NaN for NaN.
    const Vec<T> of_large = select(d.high >= splat(K::floor), exp_reduced<T>(r, shifted), max_or_second(none, d.high));
    result = select(limit >= magnitude, (*this)(x), of_large);
  }
};

// Exponentials of four vectors after four others: some are begun before those before them are ended. What waits for one another
// is half as long then, and the processor finds enough to do in between (Zen 4, cycles a vector: AVX-512 13.5 -> 11, where its
// units need 10; AVX2 18.6 -> 16.6).
// `first`: where the first are, if there are any. What was said to come next must come next, or a new object be made; where
// nothing does, `next` may be any that can be read.
template <class T, class Exp = Exponential<T>>
struct ExponentialsInTurns {
  const Exp& exponential;
  CROSSENT_INLINE ExponentialsInTurns(const Exp& of, const T*, bool) : exponential(of) {}
  CROSSENT_INLINE Four<T> operator()(const Four<T>& x, const T*) const { return exponential(x); }
};
template <class T>
struct ExponentialsInTurns<T, Exponential<T>> {
  // As many as there are registers for.
  static constexpr bool kInTurns = kParts < 4;
  static constexpr int kBegun = kParts == 1 ? 2 : 1;
  using Begun = typename Exponential<T>::template Begun<Vectors<T, kBegun>>;
  static constexpr T kNothing[kBegun * Vec<T>::kLanes] = {};
  const Exponential<T>& exponential;
  Begun begun;

  CROSSENT_INLINE ExponentialsInTurns(const Exponential<T>& of, const T* first, bool any) : exponential(of) {
    if constexpr (kInTurns) begun = begin(any ? first : kNothing);
  }
  // Of `x`, the first of which were begun; `next`: where those are that come after it.
  CROSSENT_INLINE Four<T> operator()(const Four<T>& x, const T* next) {
    Four<T> difference;
    return with_difference(x, next, difference);
  }
  // x - origin, too.
  CROSSENT_INLINE Four<T> with_difference(const Four<T>& x, const T* next, Four<T>& difference) {
    return end_four(x, difference, [&]() CROSSENT_LAMBDA { begun = begin(next); });
  }
  // Where what comes next is at hand.
  CROSSENT_INLINE Four<T> with_next(const Four<T>& x, const Vectors<T, kBegun>& next) {
    Four<T> difference;
    return end_four(x, difference, [&]() CROSSENT_LAMBDA { begun = exponential.begin(next); });
  }
  // Where nothing comes next.
  CROSSENT_INLINE Four<T> last(const Four<T>& x) {
    Four<T> difference;
    return end_four(x, difference, []() CROSSENT_LAMBDA {});
  }
  // Where those that were begun are all that comes.
  CROSSENT_INLINE Vectors<T, kBegun> those_begun() const { return exponential.end(begun); }

 private:
  CROSSENT_INLINE Begun begin(const T* p) const { return exponential.begin(load_several<kBegun>(p)); }
  template <class BeginNext>
  CROSSENT_INLINE Four<T> end_four(const Four<T>& x, Four<T>& difference, BeginNext&& begin_next) {
    if constexpr (!kInTurns) {
      const Four<T> raised = exponential.raise(x);
      difference = raised + exponential.minus_origin;
      return exponential.of_raised(raised, difference);
    }
    Four<T> e;
    const auto end = [&](int i, auto&& begin_others) CROSSENT_LAMBDA {
      const Begun before = begun;
      begin_others();
      const Vectors<T, kBegun> ended = exponential.end(before);
      for (int k = 0; k < kBegun; ++k) {
        e.of[i + k] = ended.of[k];
        difference.of[i + k] = before.difference.of[k];
      }
    };
    const auto end_and_begin = [&](int i) CROSSENT_LAMBDA {
      end(i, [&]() CROSSENT_LAMBDA {
        begun = exponential.begin(each_of<T, kBegun>([&](int k) CROSSENT_LAMBDA { return x.of[i + kBegun + k]; }));
      });
    };
    end_and_begin(0);
    if constexpr (kBegun == 1) {
      end_and_begin(1);
      end_and_begin(2);
    }
    end(4 - kBegun, begin_next);
    return e;
  }
};

// One for each of four vectors.
template <class T>
CROSSENT_INLINE Exponential<T, Four<T>> four_exponentials(const Exponential<T> (&of)[4]) {
  return {{{of[0].minus_origin, of[1].minus_origin, of[2].minus_origin, of[3].minus_origin}},
          {{of[0].lowest, of[1].lowest, of[2].lowest, of[3].lowest}},
          {{of[0].coarse, of[1].coarse, of[2].coarse, of[3].coarse}},
          {{of[0].fine, of[1].fine, of[2].fine, of[3].fine}}};
}

// Whether all lanes of an origin are such as operator() of Exponential takes.
template <class T>
CROSSENT_INLINE bool is_small_origin(Vec<T> origin) {
  return largest_lane(max_or_second(origin, max_or_second(zero<T>() - origin, zero<T>()))) <= ExpConstants<T>::largest_origin;
}

// Undoes the bias: a power of two, so exact unless the product is subnormal.
template <class T>
constexpr double kUnbias = sizeof(T) == 4 ? 0x1p-64 : 0x1p-128;

// What rounding the product a * b leaves; 0 without FMA.
CROSSENT_INLINE Vec<double> product_error(Vec<double> a, Vec<double> b) { return fma(a, b, zero<double>() - a * b); }
CROSSENT_SHARED double product_error(double a, double b) {
  double lane[8];
  store(lane, product_error(splat(a), splat(b)));
  return lane[0];
}

// The same without FMA too, by Dekker's method there.
CROSSENT_INLINE Vec<double> upper_half(Vec<double> a) {
  Vec<double> r;
  for_each_part([&](int i) CROSSENT_LAMBDA { r.part[i] = (NativeDouble)((NativeInt64)a.part[i] >> 27 << 27); });
  return r;
}
CROSSENT_INLINE Vec<double> exact_product_error(Vec<double> a, Vec<double> b) {
  if constexpr (kHasFma) return product_error(a, b);
  const Vec<double> a_high = upper_half(a), a_low = a - a_high, b_high = upper_half(b), b_low = b - b_high;
  return ((a_high * b_high - a * b) + a_high * b_low + a_low * b_high) + a_low * b_low;
}
// Of single numbers 0 where that overflows.
CROSSENT_SHARED double exact_product_error(double a, double b) {
  double lane[8];
  store(lane, exact_product_error(splat(a), splat(b)));
  return lane[0] == lane[0] ? lane[0] : 0;
}

// exp(a - b), about 2**-60 accurate where a - b is above the exponentials that fit float64, 0 below; for single numbers.
CROSSENT_SHARED Pair<double> exp_pair(double a, double b) {
  using K = ExpConstants<double>;
  const Pair<Vec<double>> d = two_sum(splat(a), splat(-b));
  const Vec<double> shifted = fma(d.high, splat(K::log2_e), splat(K::shifter));
  const Vec<double> n = shifted - splat(K::shifter);
  const Vec<double> r_high = fma(n, splat(-K::ln2_hi), d.high), r_low = fma(n, splat(-K::ln2_lo), d.low);
  const Vec<double> r = r_high + r_low;
  Vec<double> q = splat(K::q[0]);
  for (size_t i = 1; i < sizeof K::q / sizeof K::q[0]; ++i) q = fma(q, r, splat(K::q[i]));
  // exp(r) = 1 + (r + r**2 * q), with the roundings of r and of both additions kept.
  const Pair<Vec<double>> tail = two_sum(r, r * r * q);
  const Pair<Vec<double>> whole = two_sum(splat(1.0), tail.high);
  const Vec<double> low = whole.low + (tail.low + (r_low - (r - r_high)) * (splat(1.0) + r));
  const Vec<double> power = power_of_two(shifted) * splat(kUnbias<double>);
  double high_lane[8], low_lane[8];
  store(high_lane, whole.high * power);
  store(low_lane, low * power);
  const double d_high = a - b;
  if (d_high >= -700) return {high_lane[0], low_lane[0]};
  return {d_high < 0 ? 0.0 : d_high, 0.0};
}
