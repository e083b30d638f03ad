// Cross-entropy of logits, and its gradient from the same pass.
//
// With a(c) the weight of class c in the target distribution, A = sum_c a(c), p = softmax(x), m = max(x), L = log(sum(exp(x -
// m))):
//   loss = sum_c a(c) * -log p(c) = sum_c a(c) * (m - x(c)) + A * L        all terms non-negative: nothing cancels
//   gradient(c) = A * p(c) - a(c)
// Where p(c) is near 1, A * p(c) - a(c) is taken as (A - a(c)) - A * rest / (1 + rest), so that a confident row's gradient
// keeps its relative accuracy. Largest errors in ULP on the rows of tests/families.py, float32 and float64, and without FMA:
//   loss 1.05 and 0.99 (1.05 and 1.12), with smoothing, weights or probabilities 1.8 and 1.5 (1.8 and 2.0);
//   gradient at a class index 0.86 and 1.64, elsewhere that of softmax; with smoothing, weights or probabilities, of the larger
//   of A * p(c) and a(c), 2.6 and 2.6 (3.1 and 3.9).
// How a(c) comes about is the policy TargetKind; it costs nothing where there are only class indices.
#pragma once

// What is done once a row, and the formulas on vectors.
template <class T, TargetKind kKind>
struct CrossEntropyTerms {
  static constexpr bool kIndex = kKind == TargetKind::index || kKind == TargetKind::smoothed_index;
  static constexpr bool kClassTerms = kKind != TargetKind::index;

  const CrossEntropyRun& run;
  const T* class_weight;
  // Of the group's rows, as in the run.
  const int64_t* target = nullptr;
  const double *target_weight = nullptr, *gradient_scale = nullptr;
  // Of the target class, or 0: its logit, and its share as one of all classes (smoothing / C * weight), which is what a(target)
  // has beside target_weight.
  alignas(kVectorBytes) T target_logit[kGroupRows<T>];
  double target_share[kGroupRows<T>];
  // sum_c a(c) * (m - x(c)) and sum_c a(c), without target_weight
  double distance[kGroupRows<T>], distance_low[kGroupRows<T>];
  double weight_sum[kGroupRows<T>], weight_sum_low[kGroupRows<T>];
  Scale<T> scale;
  alignas(kVectorBytes) T upstream[kGroupRows<T>], upstream_low[kGroupRows<T>];  // gradient_scale, for the class terms
  // Probabilities: A as a pair, A * rest / (1 + rest), and the exponential above which a class is the confident one.
  alignas(kVectorBytes) T total_high[kGroupRows<T>], total_low[kGroupRows<T>], others[kGroupRows<T>], confident[kGroupRows<T>];
  T target_class[kGroupRows<T>];  // the target's number
  T target_gradient[kGroupRows<T>];

  CROSSENT_INLINE explicit CrossEntropyTerms(const CrossEntropyRun& r) : run(r), class_weight((const T*)r.class_weight) {
    clear_rows<T>(r.rows, target_logit, target_share, target_class);
    if constexpr (kClassTerms) clear_rows<T>(r.rows, distance, distance_low, weight_sum, weight_sum_low);
  }

  CROSSENT_INLINE bool live(ptrdiff_t lane) const { return !kIndex || !run.skips || target[lane] >= 0; }

  // a(c) of some classes (without target_weight), from their class weights and probabilities.
  CROSSENT_INLINE Vec<T> class_share(Vec<T> weight, Vec<T> probability) const {
    if constexpr (kIndex) {
      return weight;
    } else {
      const Vec<T> mixed = fma(probability, splat((T)run.keep), fma(probability, splat((T)run.keep_low), splat((T)run.spread)));
      return kKind == TargetKind::weighted_probabilities ? weight * mixed : mixed;
    }
  }
  // Of elements `first` + i on; `probabilities` is the block from `first` on.
  template <class Load>
  CROSSENT_INLINE Vec<T> row_share(const T* probabilities, ptrdiff_t first, ptrdiff_t i, Load load) const {
    const Vec<T> none = zero<T>();
    if constexpr (kKind == TargetKind::smoothed_index) {
      return class_share(load(class_weight + first + i, (T)0), none);
    } else if constexpr (kKind == TargetKind::weighted_probabilities) {
      return class_share(load(class_weight + first + i, (T)0), load(probabilities + i, (T)0));
    } else {
      return class_share(none, load(probabilities + i, (T)0));
    }
  }
  CROSSENT_INLINE Vec<T> tile_share(const T* probabilities, ptrdiff_t c) const {
    const Vec<T> weight = kKind == TargetKind::probabilities ? zero<T>() : splat(class_weight[c]);
    return class_share(weight, kIndex ? zero<T>() : load(probabilities + c * kTileRows<T>));
  }

  // A row's maximum and the unit of its distances: 1, but where they could overflow although a * (m - x) does not. There the
  // distances are so large that none becomes subnormal in the smaller unit.
  static constexpr T kHuge = (T)(sizeof(T) == 4 ? 0x1p64 : 0x1p512);
  static constexpr T kUnitOfHuge = 1 / kHuge;
  struct Origin {
    Vec<T> max, minus_unit;
    CROSSENT_INLINE explicit Origin(Vec<T> m) {
      const Vec<T> unit = select(m > splat(kHuge), splat(kUnitOfHuge), splat((T)1));
      max = m * unit;
      minus_unit = zero<T>() - unit;
    }
  };

  // a * (m - x) in the row's unit, 0 where a is 0 even at an infinite distance; and a itself.
  static CROSSENT_INLINE Terms<T, 2> distance_terms(Vec<T> share, const Origin& origin, Vec<T> x) {
    const Vec<T> none = zero<T>();
    const Pair<Vec<T>> d = two_sum(origin.max, x * origin.minus_unit);
    const Vec<T> low = select(d.high < splat((T)__builtin_inf()), d.low, none);
    return {{select(share == none, none, fma(share, d.high, share * low)), share}};
  }

  CROSSENT_INLINE void use_unit_1(ptrdiff_t lane) {
    distance[lane] *= (double)kHuge;
    distance_low[lane] *= (double)kHuge;
  }

  // The maximum has grown, and with it all distances so far: `moved` collects by how much.
  static CROSSENT_SHARED void move_origin(LaneSum<T>* sums, Pair<double>& moved, T before, T max) {
    const bool huge = max > kHuge;
    const double unit = huge ? kUnitOfHuge : (T)1;
    if (huge && !(before > kHuge)) {  // from here on in the smaller unit
      sums[0].scale(splat(unit));
      moved = {moved.high * unit, moved.low * unit};
    }
    const Pair<double> weight = sums[1].total();
    const Pair<double> s = two_sum(moved.high, (weight.high + weight.low) * ((double)max * unit - (double)before * unit));
    moved = {s.high, moved.low + s.low};
  }

  CROSSENT_SHARED void tile_distances(const Tiles<T>& tiles, const T* max) {
    for (ptrdiff_t t = 0; t < tiles.count; ++t) {
      const ptrdiff_t lane = tiles.lane(t);
      const T *tile = tiles.logits + t * tiles.size, *second = tiles.second + t * tiles.size;
      const Vec<T> largest = load(max + lane), m = select(largest > splat((T)-__builtin_inf()), largest, zero<T>());
      const Origin origin(m);
      TileSum<T> sums[2];
      sum_tile<2>(sums, tiles.classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
        return distance_terms(tile_share(second, c), origin, load(tile + c * kTileRows<T>));
      });
      sums[0].write(distance + lane, distance_low + lane);
      if (any_less(splat(kHuge), m)) {
        for (ptrdiff_t row = lane; row < lane + kTileRows<T>; ++row) {
          if (max[row] > kHuge) use_unit_1(row);
        }
      }
      sums[1].write(weight_sum + lane, weight_sum_low + lane);
    }
  }

  CROSSENT_INLINE void write_loss(const Totals& t, ptrdiff_t first_row, ptrdiff_t lane, ptrdiff_t count) {
    const Vec<double> none = zero<double>(), infinite = splat(__builtin_inf());
    const Vec<double> log = log_sum<T>(t);
    Vec<double> loss = none;
    if constexpr (kIndex) {
      Vec<double> weight = load(target_weight + lane), max = t.max, x = load_as_double(target_logit + lane), part = log;
      const Mask<double> no_weight = weight == none;
      if constexpr (sizeof(T) == 8) {  // the distance can overflow although its product with a weight does not
        const Mask<double> huge = max > splat(0x1p1000);
        const Vec<double> unit = select(huge, splat(0.5), splat(1.0));
        max = max * unit;
        x = x * unit;
        part = part * unit;
        weight = select(huge, weight + weight, weight);
      }
      const Pair<Vec<double>> d = two_sum(max, none - x), s = two_sum(d.high, part);
      const Vec<double> low = select(s.high < infinite, s.low + d.low, none);
      loss = select(no_weight, none, weight * (s.high + low));
    }
    if constexpr (kClassTerms) {
      const Vec<double> sum = kIndex ? splat(run.class_weight_sum) : load(weight_sum + lane) + load(weight_sum_low + lane);
      const Pair<Vec<double>> s = two_sum(load(distance + lane), sum * log);
      const Vec<double> low = select(s.high - s.high == none, s.low + load(distance_low + lane), none);
      loss = loss + (s.high + low);
    }
    store_up_to(run.result + first_row + lane, count - lane, select(t.valid, loss, splat((double)__builtin_nan(""))));
  }

  CROSSENT_INLINE void prepare_gradient(const Totals& t, const GroupStatistics<T>& statistics, ptrdiff_t lane) {
    const Pair<Vec<double>> inverse = inverse_sum<T>(t);
    const Vec<double> s = load(gradient_scale + lane), one = splat(1.0);
    Vec<double> sum, sum_low = zero<double>();  // A
    if constexpr (kIndex) {
      sum = load(target_weight + lane) + splat(kClassTerms ? run.class_weight_sum : 0.0);
    } else {
      const Pair<Vec<double>> whole = two_sum(load(weight_sum + lane), load(weight_sum_low + lane));
      sum = whole.high;
      sum_low = whole.low;
    }
    const Vec<double> scaled = s * sum, product = scaled * inverse.high;
    const Vec<double> product_low = product_error(scaled, inverse.high) + scaled * inverse.low;
    scale.set(lane, only_where<T>(t.valid, {product, product_low}), statistics);
    if constexpr (kClassTerms) store_in_two(upstream, upstream_low, lane, s, zero<double>());
    const Vec<double> others_share = t.rest.high * inverse.high;  // the probability of all but the maximum
    if constexpr (kIndex) {
      const Vec<double> x = load_as_double(target_logit + lane), share = load(target_share + lane);
      const Vec<double> all_shares = splat(kClassTerms ? run.class_weight_sum : 0.0);
      const Vec<double> weight = load(target_weight + lane) + share;
      const Vec<double> p = load_as_double(target_gradient + lane) * splat(kUnbias<T>) * inverse.high;
      const Vec<double> ordinary = kClassTerms ? sum * p - weight : weight * (p - one);
      const Vec<double> near_one = (all_shares - share) - sum * others_share;
      const Mask<double> confident_target = (x == t.max) & (t.rest.high < one);
      const Vec<double> gradient = s * select(confident_target, near_one, ordinary);
      store_rounded(target_gradient + lane, select(t.valid, gradient, splat((double)__builtin_nan(""))));
    } else {
      store_in_two(total_high, total_low, lane, sum, sum_low);
      store_rounded(others + lane, sum * others_share);
      // With rest < 1/2 no other class's exponential reaches half of the maximum's.
      const Vec<double> top = splat(0.6 / kUnbias<T>) / load(statistics.shift + lane);
      store_rounded(confident + lane, select(t.rest.high < splat(0.5), top, splat(__builtin_inf())));
    }
  }

  // value + low as two numbers of type T.
  static CROSSENT_INLINE void store_in_two(T* high, T* low, ptrdiff_t lane, Vec<double> value, Vec<double> value_low) {
    store_rounded(high + lane, value);
    store_rounded(low + lane, sizeof(T) == 8 ? value_low : value - load_as_double(high + lane));
  }

  // The gradient of some classes from their exponentials and shares.
  template <class Rows, class Probability>
  CROSSENT_INLINE auto element(Rows rows, Probability probability) const {
    const Vec<T> u = kClassTerms ? rows(upstream) : zero<T>(), u_low = kClassTerms ? rows(upstream_low) : zero<T>();
    const Vec<T> none = zero<T>();
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
};

template <class T, TargetKind kKind, bool kGradient>
struct CrossEntropy : FromStatistics<T, kGradient>, CrossEntropyTerms<T, kKind> {
  using Base = FromStatistics<T, kGradient>;
  using TermsOfKind = CrossEntropyTerms<T, kKind>;
  using Base::statistics;
  using TermsOfKind::kClassTerms;
  using TermsOfKind::kIndex;
  using TermsOfKind::live;
  using TermsOfKind::run;
  using TermsOfKind::target;
  static constexpr int kInputs = kIndex ? 1 : 2;
  static constexpr bool kOutput = kGradient;
  static constexpr bool kTogether = !kClassTerms;
  const bool skips;
  ptrdiff_t rows = 0;  // of the group

  CROSSENT_INLINE explicit CrossEntropy(const CrossEntropyRun& r) : Base(r), TermsOfKind(r), skips(kIndex && r.skips) {}

  CROSSENT_INLINE void begin(ptrdiff_t first, ptrdiff_t count) {
    this->first_row = first;
    this->rows = count;
    this->target = run.target + first;
    this->target_weight = run.target_weight + first;
    this->gradient_scale = run.gradient_scale + first;
    for (ptrdiff_t lane = 0; kKind == TargetKind::smoothed_index && lane < count; ++lane) {
      this->target_share[lane] = live(lane) ? (double)this->class_weight[target[lane]] : 0;
    }
  }

  CROSSENT_INLINE void tile_step(const Tiles<T>& tiles) {
    Base::tile_step(tiles);
    for (ptrdiff_t t = 0; kIndex && t < tiles.count; ++t) {
      const T* tile = tiles.logits + t * tiles.size;
      const ptrdiff_t first = tiles.lane(t), rows = between(0, this->rows - first, kTileRows<T>);
      for (ptrdiff_t r = 0; r < rows; ++r) {
        const int64_t c = target[first + r];
        this->target_logit[first + r] = c >= 0 ? tile[c * kTileRows<T> + r] : (T)0;
        if constexpr (kGradient) this->target_class[first + r] = (T)c;
      }
    }
    if constexpr (kClassTerms) this->tile_distances(tiles, statistics.max);
  }

  CROSSENT_INLINE void fetch_target(ptrdiff_t lane, const RowInput<T>& x) {
    if constexpr (kIndex)
      this->target_logit[lane] = element_to_compute<T>(x.type, x.data + target[lane] * element_size(x.type));
  }
  CROSSENT_INLINE void rows_step(const RowGroup<T>& rows) {
    for (ptrdiff_t lane = 0; lane < rows.count; ++lane) {
      if (live(lane)) fetch_target(lane, rows.input(lane));
    }
    short_row_statistics<kGradient>(rows, statistics, [&](ptrdiff_t lane) CROSSENT_LAMBDA { return live(lane); });
  }
  CROSSENT_SHARED void row_step(const RowGroup<T>& rows, ptrdiff_t lane) {
    fetch_target(lane, rows.input(lane));
    if constexpr (!kClassTerms) {
      Base::row_step(rows, lane);
    } else {
      const RowInput<T> second = rows.second(lane);
      LaneSum<T> sums[2];
      sums[0].clear();
      sums[1].clear();
      Pair<double> moved{0, 0};  // what the growth of the maximum added to the distances before it
      T before = -__builtin_inf();
      const auto each_block = [&](ptrdiff_t first, ptrdiff_t n, const T* block, T max) CROSSENT_LAMBDA {
        if (max > before && before > -__builtin_inf()) this->move_origin(sums, moved, before, max);
        before = max;
        const T* probabilities = kIndex ? nullptr : second.block(first, n);
        const typename TermsOfKind::Origin origin(splat(max == -__builtin_inf() ? (T)0 : max));
        sum_row<2>(sums, n, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
          // Lanes beyond the row have share 0, and so no term; smoothing would give them their part of it.
          const Vec<T> share = load.only(this->row_share(probabilities, first, i, load));
          return this->distance_terms(share, origin, load(block + i, (T)0));
        });
      };
      this->row_step_by_blocks(rows, lane, each_block);
      const Pair<double> d = sums[0].total(), weight = sums[1].total(), s = two_sum(d.high, moved.high);
      this->distance[lane] = s.high;
      this->distance_low[lane] = (d.low + moved.low) + s.low;
      if (!(s.high - s.high == 0)) this->distance_low[lane] = 0;  // an infinite distance
      if (before > this->kHuge) this->use_unit_1(lane);
      this->weight_sum[lane] = weight.high;
      this->weight_sum_low[lane] = weight.low;
    }
  }

  CROSSENT_SHARED void finish(ptrdiff_t count, ptrdiff_t lanes) {
    if constexpr (kGradient && kIndex) {
      // The exponential of the target, for now.
      for (ptrdiff_t lane = 0; lane < lanes; lane += kTileRows<T>) {
        const Exponential<T> exponential(load(statistics.max + lane));
        store(this->target_gradient + lane, exponential.of_any(load(this->target_logit + lane)));
      }
    }
    for (ptrdiff_t lane = 0; lane < lanes; lane += 8) {
      const Totals t = totals(statistics, lane);
      this->write_loss(t, this->first_row, lane, count);
      if constexpr (kGradient) this->prepare_gradient(t, statistics, lane);
    }
    if constexpr (kGradient && !kClassTerms) this->scale.find_subnormal(lanes);
    for (ptrdiff_t lane = 0; skips && lane < count; ++lane) {
      if (!live(lane)) run.result[this->first_row + lane] = 0;
    }
  }

  CROSSENT_SHARED void tile_output(const Tiles<T>& tiles, ptrdiff_t t, const TileOutput<T>& out) const {
    const TileOfRows<T> rows{tiles.lane(t)};
    const T *kept = tiles.kept + t * tiles.size, *second = tiles.second + t * tiles.size;
    const auto gradient = this->element(rows, this->scale.template pick<false>(rows));
    const Vec<T> targets = kIndex ? rows(this->target_class) : zero<T>(),
                 at_target = kIndex ? rows(this->target_gradient) : zero<T>();
    const Vec<T> one = splat((T)1);
    Vec<T> number = splat((T)out.first);
    ptrdiff_t next = out.first;
    write_tile<!kClassTerms>(out, [&](ptrdiff_t c) CROSSENT_LAMBDA {
      if (c != next) number = splat((T)c);
      next = c + 1;
      const Vec<T> share = kClassTerms ? this->tile_share(second, c) : zero<T>();
      const Vec<T> value = gradient(load(kept + c * kTileRows<T>), share);
      if constexpr (!kIndex) return value;
      const Mask<T> is_target = number == targets;
      number = number + one;
      return select(is_target, at_target, value);
    });
  }

  CROSSENT_SHARED void row_output(const RowGroup<T>& rows, ptrdiff_t lane) const {
    const RowInput<T> second = rows.second(lane);
    this->scale.with(OneRow<T>{lane}, [&](auto probability) CROSSENT_LAMBDA {
      const auto gradient = this->element(OneRow<T>{lane}, probability);
      write_from_exponentials(statistics, rows, lane, [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
        const T* probabilities = kIndex ? nullptr : second.block(first, n);
        return [=](Vec<T> e, ptrdiff_t i, auto load) CROSSENT_LAMBDA {
          if constexpr (kClassTerms) {
            return gradient(e, this->row_share(probabilities, first, i, load));
          } else {
            return gradient(e, zero<T>());
          }
        };
      });
    });
    if constexpr (kIndex) rows.output(lane).set(target[lane], this->target_gradient[lane]);
  }
};
