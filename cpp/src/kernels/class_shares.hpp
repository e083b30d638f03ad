// Target distributions in which all classes have a share, from label smoothing or probabilities, and what a loss needs of them:
//   a(c) = weight(c) * (keep * q(c) + spread) = mix * b(c)          where keep * weight is an index target's own
// What is summed of the classes is summed precisely, so that it is as accurate where one class has nearly all of it; what they
// are multiplied by is a pair of numbers, made once a row.
#pragma once

// high + low, |high| >= |low|, with as much of it in the high part as fits; no low part where that is infinite.
CROSSENT_INLINE Pair<Vec<double>> normalized(Vec<double> high, Vec<double> low) {
  const Vec<double> none = zero<double>(), sum = high + select(low - low == none, low, none), rest = low - (sum - high);
  return {sum, select(rest - rest == none, rest, none)};
}
// Numbers of a row on the way to results of type T: pairs for float64; for float32 a double is exact enough, its low part 0.
template <class T>
CROSSENT_INLINE Pair<Vec<double>> pair_product(Pair<Vec<double>> a, Pair<Vec<double>> b) {
  if constexpr (sizeof(T) == 4) return {a.high * b.high, zero<double>()};
  return normalized(a.high * b.high, exact_product_error(a.high, b.high) + (a.low * b.high + a.high * b.low));
}
template <class T>
CROSSENT_INLINE Pair<Vec<double>> pair_sum(Pair<Vec<double>> a, Pair<Vec<double>> b) {
  if constexpr (sizeof(T) == 4) return {a.high + b.high, zero<double>()};
  const Pair<Vec<double>> s = two_sum(a.high, b.high);
  return normalized(s.high, s.low + (a.low + b.low));
}
CROSSENT_INLINE Pair<Vec<double>> splat_pair(double high, double low) { return {splat(high), splat(low)}; }

// value + value_low as two numbers of type T.
template <class T>
CROSSENT_INLINE void store_in_two(T* high, T* low, Vec<double> value, Vec<double> value_low) {
  store_rounded(high, value);
  const Vec<double> rest = (value - load_as_double(high)) + value_low;
  store_rounded(low, select(rest == rest, rest, zero<double>()));  // an infinite value has none
}

// The distances m - x(c) of some rows, times shares; 0 where a share is 0 even at an infinite distance. In a unit in which sums
// do not overflow although what they are multiplied by is small.
template <class T>
struct Distances;
template <>
struct Distances<float> {
  static constexpr double kUnit = 1;
  Widened max;
  CROSSENT_INLINE explicit Distances(Vec<float> m) : max(widen(m)) {}

  static CROSSENT_INLINE Vec<double> product(Vec<double> share, Vec<double> distance) {
    return select(share == zero<double>(), zero<double>(), share * distance);
  }
  CROSSENT_INLINE Precise<float> times(const Widened& share, Vec<float> x) const {
    const Widened logit = widen(x);
    return {{product(share.low, max.low - logit.low), product(share.high, max.high - logit.high)}};
  }
};
template <>
struct Distances<double> {
  static constexpr double kUnit = 0x1p-32;
  Vec<double> max;
  CROSSENT_INLINE explicit Distances(Vec<double> m) : max(m * splat(kUnit)) {}

  CROSSENT_INLINE Precise<double> times(Vec<double> share, Vec<double> x) const {
    const Vec<double> none = zero<double>();
    const Pair<Vec<double>> d = two_sum(max, x * splat(-kUnit));
    const Vec<double> low = select(d.high < splat(__builtin_inf()), d.low, none);
    return {{select(share == none, none, fma(share, d.high, share * low)), none}};
  }
};

// What the high part of a scale lacks of the exact factor. Where that is so small that its low part might be subnormal there is
// none: other terms that are larger or smaller in the same proportion (`shared`) make up for it, since what two terms share
// moves their difference by no more than itself.
struct Remainder {
  Vec<double> low, shared;
  template <class T>
  CROSSENT_INLINE Remainder(const Scale<T>& scale, ptrdiff_t lane, const Pair<Vec<double>>& factor,
                            const Pair<Vec<double>>& shift) {
    const Vec<double> none = zero<double>(), one = splat(1.0), small = splat(sizeof(T) == 4 ? 0x1p-90 : 0x1p-900);
    const Pair<Vec<double>> value = pair_product<T>(factor, shift);
    const Mask<double> is_plain = load_as_double(scale.before + lane) == one;
    const Vec<double> unbias = select(is_plain, splat(kUnbias<T>), one), high = load_as_double(scale.high + lane);
    const Vec<double> magnitude = select(is_plain, select(high < none, none - high, high), none);
    const Vec<double> lack = (value.high * unbias - high) + value.low * unbias;
    low = select(magnitude < small, none, select(lack - lack == none, lack, none));
    shared = none;
    if (__builtin_expect(any_less(magnitude, small), 0)) {
      const Vec<double> ratio = none - lack / high, limit = splat(0x1p-20);
      shared = select((magnitude < small) & (ratio < limit) & (ratio > none - limit), ratio, none);
    }
  }
};

template <class T, TargetKind kKind>
struct ClassShares {
  static constexpr bool kOfProbabilities = kKind == TargetKind::probabilities || kKind == TargetKind::weighted_probabilities;
  static constexpr bool kWeighted = kKind == TargetKind::smoothed_index || kKind == TargetKind::weighted_probabilities;
  const CrossEntropyRun& run;
  const T* class_weight;
  // Of the gradient: the low part of the factor of exponentials; keep and spread, negative, and the sum of all shares as pairs;
  // that sum times the probability of all classes but the confident one, and the exponential above which a class is that one.
  alignas(kVectorBytes) T factor_low[kGroupRows<T>];
  alignas(kVectorBytes) T keep[kGroupRows<T>], keep_low[kGroupRows<T>], spread[kGroupRows<T>], spread_low[kGroupRows<T>];
  alignas(kVectorBytes) T total[kGroupRows<T>], total_low[kGroupRows<T>], others[kGroupRows<T>], confident[kGroupRows<T>];

  CROSSENT_INLINE explicit ClassShares(const CrossEntropyRun& r) : run(r), class_weight((const T*)r.class_weight) {}

  // The weights and probabilities of some classes.
  struct Given {
    Vec<T> weight, probability;
  };
  // Of elements `first` + i on; `probabilities` is the block from `first` on.
  template <class Load>
  CROSSENT_INLINE Given of_row(const T* probabilities, ptrdiff_t first, ptrdiff_t i, Load load) const {
    Given given{zero<T>(), zero<T>()};
    if constexpr (kWeighted) given.weight = load(class_weight + first + i, (T)0);
    if constexpr (kOfProbabilities) given.probability = load(probabilities + i, (T)0);
    return given;
  }
  CROSSENT_INLINE Given of_tile(const T* probabilities, ptrdiff_t c) const {
    return {kWeighted ? splat(class_weight[c]) : zero<T>(),
            kOfProbabilities ? load(probabilities + c * kTileRows<T>) : zero<T>()};
  }

  // weight(c) * q(c), and with it b(c)
  template <class U>
  static CROSSENT_INLINE Vec<U> product(Vec<U> weight, Vec<U> probability) {
    return kWeighted ? weight * probability : probability;
  }
  CROSSENT_INLINE Vec<double> share(Vec<double> weight, Vec<double> product) const {
    if constexpr (!kOfProbabilities) return weight;
    const Vec<double> even = splat(run.even);
    return fma(product, splat(run.part), kWeighted ? weight * even : even);
  }

  // What is summed of a class: b(c) * (m - x(c)) and, of probabilities, weight(c) * q(c).
  static constexpr int kSums = kOfProbabilities ? 2 : 1;
  CROSSENT_INLINE Terms<T, kSums, Precise<T>> terms(const Given& given, const Distances<T>& distances, Vec<T> x) const {
    Precise<T> of_distance, of_product;
    if constexpr (sizeof(T) == 4) {
      const Widened weight = widen(given.weight), q = widen(given.probability);
      of_product = {{product(weight.low, q.low), product(weight.high, q.high)}};
      const Vec<double> low = of_product.value.low, high = of_product.value.high;
      of_distance = distances.times({share(weight.low, low), share(weight.high, high)}, x);
    } else {
      const Vec<double> high = product(given.weight, given.probability);
      of_product = {{high, kWeighted ? product_error(given.weight, given.probability) : zero<double>()}};
      of_distance = distances.times(share(given.weight, high), x);
    }
    if constexpr (kOfProbabilities) {
      return {{of_distance, of_product}};
    } else {
      return {{of_distance}};
    }
  }

  // The sum of the weights of classes [first, end).
  CROSSENT_INLINE double sum_of_weights(ptrdiff_t first, ptrdiff_t end) const {
    if constexpr (!kWeighted) return (double)(end - first);
    Sums<LaneSum<T>, 1> sums;
    sums.clear();
    sum_row<1, T>(sums, end - first,
                  [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA { return Terms<T, 1>{{load(class_weight + first + i, (T)0)}}; });
    return sums.of[0].total().high;
  }

  // The gradient is factor * p(c) - s * a(c), sum = s * A: of it
  //   exponential * high + (exponential * factor_low + weight * q * keep + weight * spread)
  // where `high`, in Scale, is the rounded factor, and factor_low what that lacks.
  CROSSENT_INLINE void prepare(ptrdiff_t lane, const Totals& t, const Pair<Vec<double>>& s, const Pair<Vec<double>>& sum,
                               Vec<double> others_share, const Remainder& remainder, Vec<double> shift) {
    const auto store = [&](T* high, T* low, Pair<Vec<double>> value) CROSSENT_LAMBDA {
      store_in_two(high + lane, low + lane, value.high, fma(value.high, remainder.shared, value.low));
    };
    store_rounded(factor_low + lane, remainder.low);
    store(spread, spread_low, pair_product<T>(s, splat_pair(-run.spread, -run.spread_low)));
    if constexpr (kOfProbabilities) {
      store(keep, keep_low, pair_product<T>(s, splat_pair(-run.keep, -run.keep_low)));
      store(total, total_low, sum);
      store_rounded(others + lane, sum.high * others_share);
      // With rest < 1/2 no other class's exponential reaches half of the maximum's.
      const Vec<double> top = splat(0.6 / kUnbias<T>) / shift;
      store_rounded(confident + lane, select(t.rest.high < splat(0.5), top, splat(__builtin_inf())));
    }
  }

  // The gradient from exponentials and what is given of their classes.
  template <class Rows, bool kPlain>
  CROSSENT_INLINE auto gradient(Rows rows, const typename Scale<T>::template Scaled<kPlain>& scaled) const {
    const Vec<T> e_low = rows(factor_low), all = rows(spread), all_low = rows(spread_low);
    // e * high + addend(e); of exponentials so small that the product with a low part would be subnormal, and slow, that part
    // is left out.
    const Vec<T> limit = scaled.bound * splat((T)(sizeof(T) == 4 ? 0x1p26 : 0x1p54)), none = zero<T>();
    const auto difference = [=](Vec<T> e, auto&& addend) CROSSENT_LAMBDA {
      if (__builtin_expect(any_less(e, limit), 0)) return scaled.of_tiny(e, addend(select(e < limit, none, e)));
      return scaled.sum(e, addend(e));
    };
    if constexpr (!kOfProbabilities) {
      return [=](Vec<T> e, const Given& given) CROSSENT_LAMBDA {
        const Vec<T> w = given.weight, low = w * all_low;
        return difference(e, [&](Vec<T> x) CROSSENT_LAMBDA { return fma(w, all, fma(x, e_low, low)); });
      };
    } else {
      const Vec<T> own = rows(keep), own_low = rows(keep_low);
      const Vec<T> sum = rows(total), sum_low = rows(total_low), rest = rows(others), top = rows(confident);
      return [=](Vec<T> e, const Given& given) CROSSENT_LAMBDA {
        const Vec<T> w = given.weight, wq = product(w, given.probability);
        const Vec<T> share = fma(wq, own, kWeighted ? w * all : all);
        const Vec<T> share_low = fma(wq, own_low, kWeighted ? w * all_low : all_low);
        const Vec<T> near_one = (sum + share) + ((share_low + sum_low) - rest);
        const Vec<T> ordinary = difference(e, [&](Vec<T> x) CROSSENT_LAMBDA {
          const Vec<T> low = fma(x, e_low, share_low);
          return fma(wq, own, kWeighted ? fma(w, all, low) : all + low);
        });
        return select(e > top, near_one, ordinary);
      };
    }
  }
};
