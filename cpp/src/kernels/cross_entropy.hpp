// Cross-entropy of logits, and its gradient from the same pass.
//
// With a(c) the weight of class c in the target distribution, A = sum_c a(c), p = softmax(x), m = max(x), L = log(sum(exp(x -
// m))):
//   loss = sum_c a(c) * -log p(c) = sum_c a(c) * (m - x(c)) + A * L        all terms non-negative: nothing cancels
//   gradient(c) = A * p(c) - a(c)
// Where p(c) is near 1, A * p(c) - a(c) is taken as (A - a(c)) - A * rest / (1 + rest), so that a confident row's gradient
// keeps its relative accuracy. Largest errors in ULP on the rows of tests/families.py, float32 and float64, and without FMA:
//   loss 1.05 and 0.99 (1.05 and 1.12), with smoothing, weights or probabilities 1.15 and 1.97, without FMA too;
//   gradient at a class index 0.86 and 1.64, elsewhere that of softmax; with smoothing, weights or probabilities, of the larger
//   of A * p(c) and a(c), 1.73 and 1.72 (2.41 and 2.55).
// How a(c) comes about is the policy TargetKind; it costs nothing where there are only class indices.
#pragma once

// What is done once a row, and the formulas on vectors.
template <class T, TargetKind kKind>
struct CrossEntropyTerms {
  static constexpr bool kIndex = kKind == TargetKind::index || kKind == TargetKind::smoothed_index;
  static constexpr bool kClassTerms = kKind != TargetKind::index;

  const CrossEntropyRun& run;
  ClassShares<T, kKind> shares;
  using Given = typename ClassShares<T, kKind>::Given;
  // Of the group's rows, as in the run.
  const int64_t* target = nullptr;
  const double *target_weight = nullptr, *gradient_scale = nullptr;
  alignas(kVectorBytes) T target_logit[kGroupRows<T>];  // or 0
  // sum_c b(c) * (m - x(c)) and, of probabilities, sum_c weight(c) * q(c)
  double distance[kGroupRows<T>], distance_low[kGroupRows<T>];
  double product_sum[kGroupRows<T>], product_sum_low[kGroupRows<T>];
  Scale<T> scale;
  T target_class[kGroupRows<T>];  // the target's number
  T target_gradient[kGroupRows<T>];

  CROSSENT_INLINE explicit CrossEntropyTerms(const CrossEntropyRun& r) : run(r), shares(r) {
    clear_rows<T>(r.rows, target_logit, target_class, target_gradient);
    if constexpr (kClassTerms) clear_rows<T>(r.rows, distance, distance_low, product_sum, product_sum_low);
  }

  CROSSENT_INLINE bool live(ptrdiff_t lane) const { return !kIndex || !run.skips || target[lane] >= 0; }

  // What the growth of a row's maximum adds to the distances before it.
  struct Moved {
    Pair<double> by{0, 0};
    ptrdiff_t classes = 0;  // of which `weights` is the sum of weights
    double weights = 0;
  };
  static constexpr int kSums = ClassShares<T, kKind>::kSums;
  // The maximum has grown, and with it the distances of all classes before `first`.
  CROSSENT_SHARED void move_origin(const Sums<LaneSum<T>, kSums>& sums, Moved& moved, ptrdiff_t first, T before, T max) const {
    constexpr double unit = Distances<T>::kUnit;
    moved.weights += shares.sum_of_weights(moved.classes, first);
    moved.classes = first;
    double sum = run.even * moved.weights;
    if constexpr (kSums > 1) {
      const Pair<double> products = sums.of[1].total();
      sum += run.part * (products.high + products.low);
    }
    const Pair<double> s = two_sum(moved.by.high, sum * ((double)max * unit - (double)before * unit));
    moved.by = {s.high, moved.by.low + s.low};
  }

  CROSSENT_SHARED void tile_distances(const Tiles<T>& tiles, const T* max) {
    for (ptrdiff_t t = 0; t < tiles.count; ++t) {
      const ptrdiff_t lane = tiles.lane(t);
      const T *tile = tiles.logits + t * tiles.size, *second = tiles.second + t * tiles.size;
      const Vec<T> largest = load(max + lane);
      const Distances<T> distances(select(largest > splat((T)-__builtin_inf()), largest, zero<T>()));
      Sums<TileSum<T>, kSums> sums;
      sum_terms_of_tile<T>(sums, tiles.classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
        return shares.terms(shares.of_tile(second, c), distances, load(tile + c * kTileRows<T>));
      });
      sums.of[0].write(distance + lane, distance_low + lane);
      if constexpr (kSums > 1) sums.of[1].write(product_sum + lane, product_sum_low + lane);
    }
  }

  CROSSENT_INLINE void write_loss(const Totals& t, ptrdiff_t first_row, ptrdiff_t lane, ptrdiff_t count) {
    const Vec<double> log = kClassTerms ? log_sum<T>(t) : log_sum_to_round<T>(t);
    Pair<Vec<double>> loss{zero<double>(), zero<double>()};
    if constexpr (kIndex) loss = loss_of_target(t, log, lane);
    if constexpr (kClassTerms) {
      // Distances are in a unit of their own, from which only those that allow it return before all is added.
      const Vec<double> one = splat(1.0), unit = splat(Distances<T>::kUnit), inverse_unit = splat(1 / Distances<T>::kUnit);
      const Vec<double> high = load(distance + lane), low = load(distance_low + lane);
      const Mask<double> is_large = high > splat(0x1p900);
      const Vec<double> before = select(is_large, one, inverse_unit), after = select(is_large, inverse_unit, one);
      const Vec<double> log_in_unit = log * select(is_large, unit, one);
      const Pair<Vec<double>> log_part = pair_product<T>(sum_of_shares(lane), {log_in_unit, zero<double>()});
      const Pair<Vec<double>> d = pair_sum<T>({high * before, low * before}, log_part);
      const Pair<Vec<double>> of_all = pair_product<T>(splat_pair(run.mix, run.mix_low), d);
      loss = pair_sum<T>(loss, {of_all.high * after, of_all.low * after});
    }
    const Vec<double> value = loss.high + loss.low;
    store_up_to(run.result + first_row + lane, count - lane, select(t.valid, value, splat((double)__builtin_nan(""))));
  }
  // Target weights times m - x + log.
  CROSSENT_INLINE Pair<Vec<double>> loss_of_target(const Totals& t, Vec<double> log, ptrdiff_t lane) const {
    const Vec<double> none = zero<double>(), infinite = splat(__builtin_inf());
    Vec<double> weight = load(target_weight + lane), max = t.max, x = load_as_double(target_logit + lane);
    // Floats leave enough bits.
    if constexpr (sizeof(T) == 4 && !kClassTerms) return {select(weight == none, none, weight * ((max - x) + log)), none};
    if constexpr (sizeof(T) == 8) {  // the distance can overflow although its product with a weight does not
      const Mask<double> huge = max > splat(0x1p1000);
      const Vec<double> unit = select(huge, splat(0.5), splat(1.0));
      max = max * unit;
      x = x * unit;
      log = log * unit;
      weight = select(huge, weight + weight, weight);
    }
    const Pair<Vec<double>> d = two_sum(max, none - x), s = two_sum(d.high, log);
    const Vec<double> low = select(s.high < infinite, s.low + d.low, none);
    if constexpr (!kClassTerms) return {select(weight == none, none, weight * (s.high + low)), none};
    const Pair<Vec<double>> own = pair_product<T>({weight, none}, splat_pair(run.keep, run.keep_low));
    const Pair<Vec<double>> product = pair_product<T>(own, {s.high, low});
    const Mask<double> nothing = own.high == none;
    return {select(nothing, none, product.high), select(nothing, none, product.low)};
  }

  // sum_c b(c) and sum_c a(c) of some rows
  CROSSENT_INLINE Pair<Vec<double>> sum_of_shares(ptrdiff_t lane) const {
    const Pair<Vec<double>> weights = splat_pair(run.class_weight_sum, run.class_weight_sum_low);
    if constexpr (kIndex) return weights;
    const Pair<Vec<double>> products = {load(product_sum + lane), load(product_sum_low + lane)};
    return pair_sum<T>(pair_product<T>(products, splat_pair(run.part, 0)), pair_product<T>(weights, splat_pair(run.even, 0)));
  }
  CROSSENT_INLINE Pair<Vec<double>> total_weight(ptrdiff_t lane) const {
    const Pair<Vec<double>> weights = splat_pair(run.class_weight_sum, run.class_weight_sum_low);
    Pair<Vec<double>> own{load(kIndex ? target_weight + lane : product_sum + lane), zero<double>()};
    if constexpr (!kIndex) own.low = load(product_sum_low + lane);
    return pair_sum<T>(pair_product<T>(own, splat_pair(run.keep, run.keep_low)),
                       pair_product<T>(weights, splat_pair(run.spread, run.spread_low)));
  }

  CROSSENT_INLINE void prepare_gradient(const Totals& t, const GroupStatistics<T>& statistics, ptrdiff_t lane) {
    if constexpr (kKind == TargetKind::index) {
      prepare_index_gradient(t, statistics, lane);
    } else {
      prepare_class_gradient(t, statistics, lane);
    }
  }

  CROSSENT_INLINE void prepare_index_gradient(const Totals& t, const GroupStatistics<T>& statistics, ptrdiff_t lane) {
    const Pair<Vec<double>> inverse = inverse_sum<T>(t);
    const Vec<double> s = load(gradient_scale + lane), weight = load(target_weight + lane), one = splat(1.0);
    const Vec<double> scaled = s * weight, product = scaled * inverse.high;
    const Vec<double> product_low = product_error(scaled, inverse.high) + scaled * inverse.low;
    scale.set(lane, only_where<T>(t.valid, {product, product_low}), statistics);
    const Vec<double> others = t.rest.high * inverse.high;  // the probability of all classes but the maximum
    const Vec<double> p = load_as_double(target_gradient + lane) * splat(kUnbias<T>) * inverse.high;
    const Vec<double> near_one = zero<double>() - weight * others;
    write_target_gradient(t, lane, s * select(is_confident(t, lane), near_one, weight * (p - one)));
  }

  CROSSENT_INLINE void prepare_class_gradient(const Totals& t, const GroupStatistics<T>& statistics, ptrdiff_t lane) {
    const Vec<double> none = zero<double>();
    const Pair<Vec<double>> inverse = inverse_sum<T>(t), s = {load(gradient_scale + lane), none};
    const Pair<Vec<double>> shift = {load(statistics.shift + lane), load(statistics.shift_low + lane)};
    const Pair<Vec<double>> sum = pair_product<T>(s, total_weight(lane)), factor = pair_product<T>(sum, inverse);
    const Vec<double> others = t.rest.high * inverse.high;  // the probability of all classes but the maximum
    scale.set(lane, only_where<T>(t.valid, factor), statistics);
    shares.prepare(lane, t, s, sum, others, Remainder(scale, lane, factor, shift), shift.high);
    if constexpr (kIndex) {
      const Vec<double> weight = load(target_weight + lane);
      const Vec<double> other_weights = (splat(run.class_weight_sum) - weight) + splat(run.class_weight_sum_low);
      const Vec<double> near_one = s.high * splat(run.spread) * other_weights - sum.high * others;
      const Pair<Vec<double>> both = pair_sum<T>(splat_pair(run.keep, run.keep_low), splat_pair(run.spread, run.spread_low));
      const Vec<double> ordinary = target_difference(factor, pair_product<T>(pair_product<T>(s, {weight, none}), both), lane);
      write_target_gradient(t, lane, select(is_confident(t, lane), near_one, ordinary));
    }
  }
  // factor * p - weight of the targets; the bias of their exponentials is undone where that makes none subnormal but the
  // result.
  CROSSENT_INLINE Vec<double> target_difference(const Pair<Vec<double>>& factor, const Pair<Vec<double>>& weight,
                                                ptrdiff_t lane) const {
    const Vec<double> e = load_as_double(target_gradient + lane), unbias = splat(kUnbias<T>), one = splat(1.0);
    const Mask<double> tiny = e < splat(0x1p-800);
    const Vec<double> unbiased = select(tiny, e, e * unbias), low = fma(unbiased, factor.low, zero<double>() - weight.low);
    const Vec<double> product = unbiased * factor.high * select(tiny, unbias, one);
    return (product - weight.high) + select(tiny, zero<double>(), low);
  }
  // Whether the target has nearly all of a row's probability.
  CROSSENT_INLINE Mask<double> is_confident(const Totals& t, ptrdiff_t lane) const {
    return (load_as_double(target_logit + lane) == t.max) & (t.rest.high < splat(1.0));
  }
  CROSSENT_INLINE void write_target_gradient(const Totals& t, ptrdiff_t lane, Vec<double> gradient) {
    store_rounded(target_gradient + lane, select(t.valid, gradient, splat((double)__builtin_nan(""))));
  }

  // The gradient of some classes from their exponentials and shares.
  template <class Rows, bool kPlain>
  CROSSENT_INLINE auto element(Rows rows, const typename Scale<T>::template Scaled<kPlain>& scaled) const {
    if constexpr (kClassTerms) {
      return shares.gradient(rows, scaled);
    } else {
      return [=](const auto& e, const Given&) CROSSENT_LAMBDA { return scaled(e); };
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
  ptrdiff_t rows = 0;             // of the group
  bool has_exponentials = false;  // of its targets

  CROSSENT_INLINE explicit CrossEntropy(const CrossEntropyRun& r) : Base(r), TermsOfKind(r), skips(kIndex && r.skips) {}

  CROSSENT_INLINE void begin(ptrdiff_t first, ptrdiff_t count) {
    this->first_row = first;
    this->rows = count;
    this->has_exponentials = false;
    this->target = run.target + first;
    this->target_weight = run.target_weight + first;
    this->gradient_scale = run.gradient_scale + first;
  }

  CROSSENT_INLINE void tile_step(const Tiles<T>& tiles) {
    Base::tile_step(tiles);
    if constexpr (kIndex) {
      for (ptrdiff_t lane = 0; (kGradient || tiles.classes <= kShortTile) && lane < rows; lane += 8) {
        const Vec<double> classes = load_partial((const double*)target + lane, rows - lane, 0.0);
        store_rounded(this->target_class + lane, whole_numbers(classes));
      }
      for (ptrdiff_t t = 0; t < tiles.count; ++t) tile_targets(tiles, t);
      has_exponentials = true;
    }
    if constexpr (kClassTerms) this->tile_distances(tiles, statistics.max);
  }
  // The logits of a tile's targets, and their exponentials. Looked for class by class where there are few (2 classes: loss 1.23
  // -> 1.05, loss and gradient 2.09 -> 1.55 ns per element).
  CROSSENT_INLINE void tile_targets(const Tiles<T>& tiles, ptrdiff_t t) {
    const T *logits = tiles.logits + t * tiles.size, *kept = tiles.kept + t * tiles.size;
    const ptrdiff_t first = tiles.lane(t);
    T *target_logit = this->target_logit + first, *exponential = this->target_gradient + first;
    if (tiles.classes > kShortTile) {
      for (ptrdiff_t r = 0; r < kTileRows<T>; ++r) {
        const int64_t c = first + r < rows ? target[first + r] : -1;
        target_logit[r] = c >= 0 ? logits[c * kTileRows<T> + r] : (T)0;
        if constexpr (kGradient) exponential[r] = c >= 0 ? kept[c * kTileRows<T> + r] : (T)0;
      }
      return;
    }
    const Vec<T> targets = load(this->target_class + first);
    Vec<T> number = zero<T>(), x = zero<T>(), e = zero<T>();
    for (ptrdiff_t c = 0; c < tiles.classes; ++c, number = number + splat((T)1)) {
      const Mask<T> is_target = number == targets;
      x = select(is_target, load(logits + c * kTileRows<T>), x);
      if constexpr (kGradient) e = select(is_target, load(kept + c * kTileRows<T>), e);
    }
    store(target_logit, x);
    if constexpr (kGradient) store(exponential, e);
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
  template <class Meanwhile>
  CROSSENT_SHARED void row_step(const RowGroup<T>& rows, ptrdiff_t lane, Meanwhile&& meanwhile) {
    fetch_target(lane, rows.input(lane));
    if constexpr (!kClassTerms) {
      Base::row_step(rows, lane, meanwhile);
    } else {
      const RowInput<T> second = rows.second(lane);
      Sums<LaneSum<T>, TermsOfKind::kSums> sums;
      sums.clear();
      typename TermsOfKind::Moved moved;  // what the growth of the maximum added to the distances before it
      T before = -__builtin_inf();
      const auto each_block = [&](ptrdiff_t first, ptrdiff_t n, const T* block, T max) CROSSENT_LAMBDA {
        if (max > before && before > -__builtin_inf()) this->move_origin(sums, moved, first, before, max);
        before = max;
        const T* probabilities = kIndex ? nullptr : second.block(first, n);
        const T origin = max == -__builtin_inf() ? (T)0 : max;
        const Distances<T> distances(splat(origin));
        sum_row<TermsOfKind::kSums, T>(sums, n, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
          // Beyond the row there are no distances; smoothing would multiply them.
          return this->shares.terms(this->shares.of_row(probabilities, first, i, load), distances, load(block + i, origin));
        });
      };
      this->row_step_by_blocks(rows, lane, each_block, meanwhile);
      const Pair<double> d = sums.of[0].total(), s = two_sum(d.high, moved.by.high);
      this->distance[lane] = s.high;
      this->distance_low[lane] = (d.low + moved.by.low) + s.low;
      if constexpr (!kIndex) {
        const Pair<double> products = sums.of[1].total();
        this->product_sum[lane] = products.high;
        this->product_sum_low[lane] = products.low;
      }
    }
  }

  // The exponentials of the targets of rows, in the place of their gradients for now.
  CROSSENT_INLINE void take_exponentials(ptrdiff_t lanes) {
    for (ptrdiff_t lane = 0; lane < lanes; lane += kTileRows<T>) {
      const Exponential<T> exponential(load(statistics.max + lane));
      store(this->target_gradient + lane, exponential.of_any(load(this->target_logit + lane)));
    }
  }
  CROSSENT_SHARED void finish(ptrdiff_t count, ptrdiff_t lanes) {
    if constexpr (kGradient && kIndex) {
      if (!has_exponentials) take_exponentials(lanes);
    }
    for (ptrdiff_t lane = 0; lane < lanes; lane += 8) {
      const Totals t = totals(statistics, lane);
      this->write_loss(t, this->first_row, lane, count);
      if constexpr (kGradient) this->prepare_gradient(t, statistics, lane);
    }
    if constexpr (kGradient) this->scale.find_bounds(lanes);
    for (ptrdiff_t lane = 0; skips && lane < count; ++lane) {
      if (!live(lane)) run.result[this->first_row + lane] = 0;
    }
  }

  template <class Output>
  CROSSENT_INLINE void tile_output(const Tiles<T>& tiles, ptrdiff_t t, const Output& out) const {
    const TileOfRows<T> rows{tiles.lane(t)};
    const T *kept = tiles.kept + t * tiles.size, *second = tiles.second + t * tiles.size;
    const Vec<T> targets = kIndex ? rows(this->target_class) : zero<T>(),
                 at_target = kIndex ? rows(this->target_gradient) : zero<T>();
    const Vec<T> one = splat((T)1);
    Vec<T> number = splat((T)out.first);
    ptrdiff_t next = out.first;
    const auto replace = [&](ptrdiff_t c, Vec<T> value) CROSSENT_LAMBDA {
      if (c != next) number = splat((T)c);
      next = c + 1;
      const Mask<T> is_target = number == targets;
      number = number + one;
      return select(is_target, at_target, value);
    };
    const auto write = [&](auto scaled) CROSSENT_LAMBDA {
      const auto gradient = this->element(rows, scaled);
      write_tile(out, [&](ptrdiff_t c, auto load) CROSSENT_LAMBDA {
        const auto value = gradient(load(kept + c * kTileRows<T>, (T)0), this->shares.of_tile(second, c));
        if constexpr (!kIndex) {
          return value;
        } else if constexpr (sizeof value == sizeof(Vec<T>)) {
          return replace(c, value);
        } else {
          return each_of_four<T>([&](int i) CROSSENT_LAMBDA { return replace(c + i, value.of[i]); });
        }
      });
    };
    if constexpr (kClassTerms) {
      write(this->scale.template pick<false>(rows));
    } else {
      this->scale.with(rows, write);
    }
  }

  CROSSENT_SHARED void row_output(const RowGroup<T>& rows, ptrdiff_t lane, Part part) const {
    const RowInput<T> second = rows.second(lane);
    this->scale.with(OneRow<T>{lane}, [&](auto scaled) CROSSENT_LAMBDA {
      const auto gradient = this->element(OneRow<T>{lane}, scaled);
      write_from_exponentials<!kClassTerms>(statistics, rows, lane, part, [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
        const T* probabilities = kIndex ? nullptr : second.block(first, n);
        return [=](const auto& e, ptrdiff_t i, auto load)
                   CROSSENT_LAMBDA { return gradient(e, this->shares.of_row(probabilities, first, i, load)); };
      });
    });
    if constexpr (kIndex) {
      if (target[lane] >= part.first && target[lane] < part.last)
        rows.output(lane).set(target[lane], this->target_gradient[lane]);
    }
  }
};
