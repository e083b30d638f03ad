// Cross-entropy of logits, and its gradient from the same pass.
//
// With a(c) the weight of class c in the target distribution, A = sum_c a(c), p = softmax(x), m = max(x), L = log(sum(exp(x -
// m))):
//   loss = sum_c a(c) * -log p(c) = sum_c a(c) * (m - x(c)) + A * L        all terms non-negative: nothing cancels
//   gradient(c) = A * p(c) - a(c)
// Where p(c) is near 1, A * p(c) - a(c) is taken as (A - a(c)) - A * rest / (1 + rest), so that a confident row's gradient
// keeps its relative accuracy. How a(c) comes about is the policy TargetKind; it costs nothing where there are only class
// indices.
#pragma once

// What the element types of the arrays do not enter: per-row arithmetic, and the formulas on vectors.
template <class T, TargetKind kKind>
struct CrossEntropyTerms {
  static constexpr bool kIndex = kKind == TargetKind::index || kKind == TargetKind::smoothed_index;
  static constexpr bool kClassTerms = kKind != TargetKind::index;

  const CrossEntropyRun& run;
  const T* class_weight;
  int64_t target[kGroup<T>];
  // Of the target class, or 0: its logit, a(target) less the class's share below, and that share (smoothing / C * weight).
  double target_logit[kGroup<T>], target_weight[kGroup<T>], target_share[kGroup<T>];
  // sum_c a(c) * (m - x(c)) and sum_c a(c), without target_weight
  double distance[kGroup<T>], distance_low[kGroup<T>], weight_sum[kGroup<T>], weight_sum_low[kGroup<T>];
  Scale<T> scale;
  alignas(kVectorBytes) T upstream[kGroup<T>], upstream_low[kGroup<T>];  // what multiplies the gradient
  // Probabilities: A as a pair, A * rest / (1 + rest), and the exponential above which a class is the confident one.
  alignas(kVectorBytes) T total_high[kGroup<T>], total_low[kGroup<T>], others[kGroup<T>], confident[kGroup<T>];
  double target_gradient[kGroup<T>];

  CROSSENT_INLINE explicit CrossEntropyTerms(const CrossEntropyRun& r) : run(r), class_weight((const T*)r.class_weight) {}

  CROSSENT_INLINE bool live(ptrdiff_t lane) const { return !kIndex || target[lane] >= 0; }

  // a(c) of some classes (without target_weight), from their class weights and probabilities.
  CROSSENT_INLINE Vec<T> class_share(Vec<T> weight, Vec<T> probability) const {
    if constexpr (kIndex) {
      return weight;
    } else {
      const Vec<T> mixed = fma(probability, splat((T)run.keep), fma(probability, splat((T)run.keep_low), splat((T)run.spread)));
      return kKind == TargetKind::weighted_probabilities ? weight * mixed : mixed;
    }
  }
  template <class Load>
  CROSSENT_INLINE Vec<T> row_share(const T* probabilities, ptrdiff_t i, Load load) const {
    const Vec<T> none = zero<T>();
    if constexpr (kKind == TargetKind::smoothed_index) {
      return class_share(load(class_weight + i, (T)0), none);
    } else if constexpr (kKind == TargetKind::weighted_probabilities) {
      return class_share(load(class_weight + i, (T)0), load(probabilities + i, (T)0));
    } else {
      return class_share(none, load(probabilities + i, (T)0));
    }
  }
  CROSSENT_INLINE Vec<T> tile_share(const T* probabilities, ptrdiff_t c) const {
    const Vec<T> weight = kKind == TargetKind::probabilities ? zero<T>() : splat(class_weight[c]);
    return class_share(weight, kIndex ? zero<T>() : load(probabilities + c * kGroup<T>));
  }

  // a * (m - x), 0 where a is 0 even at an infinite distance; and a itself.
  static CROSSENT_INLINE Terms<T, 2> distance_terms(Vec<T> share, Vec<T> m, Vec<T> x) {
    const Vec<T> none = zero<T>();
    const Pair<Vec<T>> d = two_sum(m, none - x);
    const Vec<T> low = select(d.high < splat((T)__builtin_inf()), d.low, none);
    return {{select(share == none, none, fma(share, d.high, share * low)), share}};
  }

  CROSSENT_SHARED void tile_distances(const T* tile, const T* second, ptrdiff_t classes) {
    const Vec<T> max = tile_max(tile, classes);
    const Vec<T> m = select(max > splat((T)-__builtin_inf()), max, zero<T>());
    TileSum<T> sums[2];
    sum_tile<2>(sums, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
      return distance_terms(tile_share(second, c), m, load(tile + c * kGroup<T>));
    });
    sums[0].write(distance, distance_low);
    sums[1].write(weight_sum, weight_sum_low);
  }

  CROSSENT_SHARED void write_loss(const Totals& t, ptrdiff_t first_row, ptrdiff_t lane, ptrdiff_t count) {
    const Vec<double> none = zero<double>(), infinite = splat(__builtin_inf());
    Vec<double> loss = none;
    if constexpr (kIndex) {
      const Vec<double> weight = load(target_weight + lane);
      const Pair<Vec<double>> d = two_sum(t.max, none - load(target_logit + lane));
      const Pair<Vec<double>> s = two_sum(d.high, t.log_sum);
      const Vec<double> low = select(s.high < infinite, s.low + d.low, none);
      loss = select(weight == none, none, weight * (s.high + low));
    }
    if constexpr (kClassTerms) {
      const Vec<double> sum = kIndex ? splat(run.class_weight_sum) : load(weight_sum + lane) + load(weight_sum_low + lane);
      const Pair<Vec<double>> s = two_sum(load(distance + lane), sum * t.log_sum);
      const Vec<double> low = select(s.high < infinite, s.low + load(distance_low + lane), none);
      loss = loss + (s.high + low);
    }
    double result[8];
    store(result, select(t.valid, loss, splat((double)__builtin_nan(""))));
    for (ptrdiff_t i = 0; i < 8 && lane + i < count; ++i) {
      run.result[first_row + lane + i] = live(lane + i) ? result[i] : 0;
    }
  }

  CROSSENT_SHARED void prepare_gradient(const Totals& t, const GroupStatistics<T>& statistics, ptrdiff_t first_row,
                                        ptrdiff_t lane, ptrdiff_t count) {
    double factor[8];
    for (ptrdiff_t i = 0; i < 8; ++i) {
      factor[i] = lane + i < count && live(lane + i) ? run.gradient_scale[first_row + lane + i] : 0;
      upstream[lane + i] = (T)factor[i];
      upstream_low[lane + i] = sizeof(T) == 8 ? (T)0 : (T)(factor[i] - (double)upstream[lane + i]);
    }
    const Vec<double> s = load(factor), one = splat(1.0);
    Vec<double> sum, sum_low = zero<double>();  // A
    if constexpr (kIndex) {
      sum = load(target_weight + lane) + splat(kClassTerms ? run.class_weight_sum : 0.0);
    } else {
      const Pair<Vec<double>> whole = two_sum(load(weight_sum + lane), load(weight_sum_low + lane));
      sum = whole.high;
      sum_low = whole.low;
    }
    const Vec<double> scaled = s * sum, product = scaled * t.inverse.high;
    const Vec<double> product_low = product_error(scaled, t.inverse.high) + scaled * t.inverse.low;
    scale.set(lane, only_where<T>(t.valid, {product, product_low}), statistics);
    const Vec<double> others_share = t.rest.high * t.inverse.high;  // the probability of all but the maximum
    if constexpr (kIndex) {
      const Vec<double> x = load(target_logit + lane), share = load(target_share + lane);
      const Vec<double> all_shares = splat(kClassTerms ? run.class_weight_sum : 0.0);
      const Vec<double> weight = load(target_weight + lane) + share;
      const Vec<double> p = exp_of_difference(x, t.max) * splat(kUnbias<double>) * t.inverse.high;
      const Vec<double> ordinary = kClassTerms ? sum * p - weight : weight * (p - one);
      const Vec<double> near_one = (all_shares - share) - sum * others_share;
      const Mask<double> confident_target = (x == t.max) & (t.rest.high < one);
      const Vec<double> gradient = s * select(confident_target, near_one, ordinary);
      store(target_gradient + lane, select(t.valid, gradient, splat((double)__builtin_nan(""))));
    } else {
      double high[8], low[8], product_lane[8], rest[8];
      store(high, sum);
      store(low, sum_low);
      store(product_lane, sum * others_share);
      store(rest, t.rest.high);
      for (ptrdiff_t i = 0; i < 8; ++i) {
        const ptrdiff_t row = lane + i;
        total_high[row] = (T)high[i];
        total_low[row] = sizeof(T) == 8 ? (T)low[i] : (T)(high[i] - (double)total_high[row]);
        others[row] = (T)product_lane[i];
        // With rest < 1/2 no other class's exponential reaches half of the maximum's.
        const double top = 1 / (kUnbias<T> * statistics.shift[row]);
        confident[row] = rest[i] < 0.5 ? (T)(0.6 * (statistics.kept_valid[row] ? top : 1 / kUnbias<T>)) : (T)__builtin_inf();
      }
    }
  }

  // The gradient of some classes from their exponentials and shares.
  template <class Rows>
  CROSSENT_INLINE auto element(Rows rows) const {
    const auto probability = scale.pick(rows);
    const Vec<T> u = rows(upstream), u_low = rows(upstream_low), none = zero<T>();
    if constexpr (kIndex) {
      return [=](Vec<T> e, Vec<T> share)
                 CROSSENT_LAMBDA { return kClassTerms ? probability(e, none - fma(share, u, share * u_low)) : probability(e); };
    } else {
      const Vec<T> high = rows(total_high), low = rows(total_low), rest = rows(others), top = rows(confident);
      return [=](Vec<T> e, Vec<T> share) CROSSENT_LAMBDA {
        const Vec<T> near_one = u * (((high - share) + low) - rest);
        return select(e > top, near_one, probability(e, none - fma(share, u, share * u_low)));
      };
    }
  }

  CROSSENT_SHARED void tile_output(T* tile, const T* second, ptrdiff_t classes) const {
    const auto gradient = element(AllRows<T>{});
    write_tile(tile, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
      const Vec<T> share = kClassTerms ? tile_share(second, c) : zero<T>();
      return gradient(load(tile + c * kGroup<T>), share);
    });
    if constexpr (kIndex) {
      for (ptrdiff_t lane = 0; lane < kGroup<T>; ++lane) {
        if (target[lane] >= 0) tile[target[lane] * kGroup<T> + lane] = (T)target_gradient[lane];
      }
    }
  }
};

template <class S, class O, TargetKind kKind, bool kGradient>
struct CrossEntropy : FromStatistics<S, kGradient>, CrossEntropyTerms<Compute<S>, kKind> {
  using Base = FromStatistics<S, kGradient>;
  using T = typename Base::Value;
  using TermsOfKind = CrossEntropyTerms<T, kKind>;
  using Out = O;
  using Base::statistics;
  using TermsOfKind::kClassTerms;
  using TermsOfKind::kIndex;
  using TermsOfKind::live;
  using TermsOfKind::run;
  using TermsOfKind::target;
  static constexpr int kInputs = kIndex ? 1 : 2;
  static constexpr bool kOutput = kGradient;

  CROSSENT_INLINE explicit CrossEntropy(const CrossEntropyRun& r) : Base(r), TermsOfKind(r) {}

  CROSSENT_SHARED void begin(ptrdiff_t first, ptrdiff_t count) {
    this->first_row = first;
    for (ptrdiff_t lane = 0; lane < kGroup<T>; ++lane) {
      const ptrdiff_t row = first + lane;
      const int64_t t = kIndex && lane < count ? run.target[row] : -1;
      target[lane] = t;
      this->target_logit[lane] = this->target_weight[lane] = this->target_share[lane] = 0;
      if (t < 0) continue;
      this->target_logit[lane] =
          to_compute(load_element<S>(run.input.data + row * run.input.row_stride + t * run.input.class_stride));
      this->target_weight[lane] = run.target_weight[row];
      if constexpr (kKind == TargetKind::smoothed_index) this->target_share[lane] = this->class_weight[t];
    }
  }

  CROSSENT_INLINE void tile_step(T* tile, T* second, ptrdiff_t classes) {
    if constexpr (kClassTerms) this->tile_distances(tile, second, classes);
    Base::tile_step(tile, second, classes);
  }

  CROSSENT_SHARED void row_step(ptrdiff_t lane, const S* x, const T* second, ptrdiff_t classes, T* kept) {
    if constexpr (!kClassTerms) {
      Base::row_step(lane, x, second, classes, kept);
    } else {
      LaneSum<T> sums[2];
      sums[0].clear();
      sums[1].clear();
      Pair<double> moved{0, 0};  // what the growth of the maximum added to the distances before it
      T before = -__builtin_inf();
      this->row_step_by_blocks(lane, x, classes, kept, [&](ptrdiff_t first, ptrdiff_t n, T max) CROSSENT_LAMBDA {
        const T m = max == -__builtin_inf() ? (T)0 : max;
        if (max > before && before > -__builtin_inf()) {
          const Pair<double> weight = sums[1].total();
          const Pair<double> s = two_sum(moved.high, (weight.high + weight.low) * ((double)max - (double)before));
          moved = {s.high, moved.low + s.low};
        }
        before = max;
        sum_row<2>(sums, n, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
          // Lanes beyond the row have share 0, and so no term.
          return this->distance_terms(this->row_share(second, first + i, load), splat(m), load(x + first + i, (T)0));
        });
      });
      const Pair<double> d = sums[0].total(), weight = sums[1].total(), s = two_sum(d.high, moved.high);
      this->distance[lane] = s.high;
      this->distance_low[lane] = (d.low + moved.low) + s.low;
      if (!(s.high < __builtin_inf())) this->distance_low[lane] = 0;  // an infinite distance
      this->weight_sum[lane] = weight.high;
      this->weight_sum_low[lane] = weight.low;
    }
  }

  CROSSENT_SHARED void finish(ptrdiff_t count) {
    for (ptrdiff_t lane = 0; lane < count; lane += 8) {
      const Totals t = totals(statistics, lane);
      this->write_loss(t, this->first_row, lane, count);
      if constexpr (kGradient) this->prepare_gradient(t, statistics, this->first_row, lane, count);
    }
  }

  CROSSENT_SHARED void row_output(ptrdiff_t lane, const S* x, const T* second, ptrdiff_t classes, const T* kept, O* out) const {
    const auto gradient = this->element(OneRow<T>{lane});
    const auto share = [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
      if constexpr (kClassTerms) {
        return this->row_share(second, i, load);
      } else {
        return zero<T>();
      }
    };
    if (statistics.kept_valid[lane]) {
      write_row(out, classes,
                [&](ptrdiff_t i, auto load_any) CROSSENT_LAMBDA { return gradient(load(kept + i), share(i, load_any)); });
    } else {
      const Vec<T> max = splat(statistics.max[lane]);
      write_row(out, classes, [&](ptrdiff_t i, auto load_any) CROSSENT_LAMBDA {
        return gradient(exp_of_difference(load_any(x + i, (T)0), max), share(i, load_any));
      });
    }
    if constexpr (kIndex) store_element<O>((char*)(out + target[lane]), (T)this->target_gradient[lane]);
  }
};
