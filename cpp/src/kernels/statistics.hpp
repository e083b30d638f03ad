// What every softmax-like kernel needs to know of a row: its maximum and the sum of the exponentials of all other classes.
#pragma once

// exp(x - reference) may exceed 1 by this much before the reference moves up to the running maximum.
constexpr double kGrowthLimit = 40;

// One entry for each row of a group. The maximum stays out of the sum, so that the sum of a confident row keeps its bits:
// sum of exp(x - max) = ties + (sum + sum_low) * 2**-bias.
template <class T>
struct alignas(kVectorBytes) GroupStatistics {
  T max[kGroup<T>];
  double ties[kGroup<T>];
  double sum[kGroup<T>], sum_low[kGroup<T>];
  // The exponentials that were kept are those of x - reference; exp(reference - max), as a pair, makes up for it.
  double shift[kGroup<T>], shift_low[kGroup<T>];
  T reference[kGroup<T>];
  bool kept_valid[kGroup<T>];  // false: the reference moved after some were kept
};

// The largest of n contiguous elements; NaN do not count.
template <class S>
CROSSENT_SHARED Compute<S> row_max(const S* x, ptrdiff_t n) {
  using T = Compute<S>;
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const T lowest = -__builtin_inf();
  Vec<T> a = splat(lowest), b = a;
  ptrdiff_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    a = max_or_second(load(x + i), a);
    b = max_or_second(load(x + i + lanes), b);
  }
  if (i + lanes <= n) {
    a = max_or_second(load(x + i), a);
    i += lanes;
  }
  if (i < n) b = max_or_second(load_partial(x + i, n - i, lowest), b);
  return largest_lane(max_or_second(a, b));
}

// The sum over a row in one read of it from memory: block by block, the maximum first and then the exponentials while the
// block is in the first-level cache. The exponentials are taken relative to a reference, the maximum of the first block,
// and the sum is rescaled once, at the end; only where the maximum has outgrown the reference by kGrowthLimit does the
// reference move (at most once for each such step, and what was summed before then hardly counts).
template <class T>
struct RowSum {
  static constexpr ptrdiff_t kBlock = sizeof(T) == 4 ? 4096 : 32768;

  T max = -__builtin_inf();
  T reference = 0;
  double ties = 0;
  bool moved = false;
  LaneSum<T> lanes;
  Pair<double> former_maxima{0, 0};  // they belong to the sum once a larger one is found

  CROSSENT_SHARED void grow_to(T block_max) {
    if (!(block_max > max)) return;
    if (ties > 0) {
      const Pair<double> e = exp_pair((double)max, (double)reference);
      const Pair<double> s = two_sum(former_maxima.high, ties * e.high / kUnbias<T>);
      former_maxima = {s.high, former_maxima.low + s.low + ties * e.low / kUnbias<T>};
    }
    if (max == -__builtin_inf()) {
      reference = block_max;
    } else if (block_max - (double)reference > kGrowthLimit) {
      const double factor = exp_pair((double)reference, (double)block_max).high;
      lanes.scale(splat(factor));
      former_maxima = {former_maxima.high * factor, former_maxima.low * factor};
      reference = block_max;
      moved = true;
    }
    max = block_max;
    ties = 0;
  }

  template <bool kKeep, class S>
  CROSSENT_INLINE void add_block(const S* x, ptrdiff_t n, T* kept) {
    const Vec<T> m = splat(max), origin = splat(reference), one = splat((T)1), none = zero<T>();
    Vec<T> at_max = none;
    sum_row<1>(&lanes, n, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
      const Vec<T> v = load(x + i, (T)-__builtin_inf());
      const Vec<T> e = exp_of_difference(v, origin);
      if constexpr (kKeep) store(kept + i, e);
      const Mask<T> is_max = v == m;
      at_max = at_max + select(is_max, one, none);
      return Terms<T, 1>{{select(is_max, none, e)}};
    });
    ties += sum_of_lanes(at_max);
  }

  CROSSENT_SHARED void write(GroupStatistics<T>& group, ptrdiff_t lane) const {
    const Pair<double> total = lanes.total();
    const Pair<double> s = two_sum(total.high, former_maxima.high);
    const double low = (total.low + former_maxima.low) + s.low;
    const bool in_place = reference == max || max == -__builtin_inf();
    const Pair<double> shift = in_place ? Pair<double>{1, 0} : exp_pair((double)reference, (double)max);
    group.max[lane] = max;
    group.ties[lane] = ties;
    group.sum[lane] = s.high * shift.high;
    group.sum_low[lane] = low;
    if (!in_place) {
      group.sum_low[lane] = low * shift.high + s.high * shift.low + product_error(s.high, shift.high);
    }
    group.shift[lane] = shift.high;
    group.shift_low[lane] = shift.low;
    group.reference[lane] = reference;
    group.kept_valid[lane] = !moved;
  }
};

// The statistics of one contiguous row. kKeep: kept[i] = exp(x[i] - reference) * 2**bias, up to the end of the last vector.
// each_block(first, n, max): called for each block with the maximum so far, while the block is in the cache.
template <bool kKeep, class S, class Block>
CROSSENT_SHARED void row_statistics(const S* x, ptrdiff_t classes, Compute<S>* kept, GroupStatistics<Compute<S>>& group,
                                    ptrdiff_t lane, Block&& each_block) {
  using T = Compute<S>;
  RowSum<T> row;
  row.lanes.clear();
  for (ptrdiff_t first = 0; first < classes; first += RowSum<T>::kBlock) {
    const ptrdiff_t n = classes - first < RowSum<T>::kBlock ? classes - first : RowSum<T>::kBlock;
    row.grow_to(row_max(x + first, n));
    each_block(first, n, row.max);
    row.template add_block<kKeep>(x + first, n, kKeep ? kept + first : nullptr);
  }
  row.write(group, lane);
}

template <class T>
CROSSENT_SHARED Vec<T> tile_max(const T* tile, ptrdiff_t classes) {
  Vec<T> m = splat((T)-__builtin_inf());
  for (ptrdiff_t c = 0; c < classes; ++c) m = max_or_second(load(tile + c * kGroup<T>), m);
  return m;
}

// The same for a tile of at most RowSum::kBlock classes. kKeep: the exponentials take the place of the logits.
template <bool kKeep, class T>
CROSSENT_SHARED void tile_statistics(T* tile, ptrdiff_t classes, GroupStatistics<T>& group) {
  const Vec<T> m = tile_max(tile, classes);
  const Vec<T> lowest = splat((T)-__builtin_inf()), one = splat((T)1), none = zero<T>();
  const Vec<T> origin = select(m > lowest, m, none);
  Vec<T> at_max = none;
  TileSum<T> sum;
  sum_tile<1>(&sum, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
    const Vec<T> v = load(tile + c * kGroup<T>);
    const Vec<T> e = exp_of_difference(v, origin);
    if constexpr (kKeep) store(tile + c * kGroup<T>, e);
    const Mask<T> is_max = v == m;
    at_max = at_max + select(is_max, one, none);
    return Terms<T, 1>{{select(is_max, none, e)}};
  });
  store(group.max, m);
  store(group.reference, origin);
  sum.write(group.sum, group.sum_low);
  T ties[kGroup<T>];
  store(ties, at_max);
  for (ptrdiff_t lane = 0; lane < kGroup<T>; ++lane) {
    group.ties[lane] = ties[lane];
    group.shift[lane] = 1;
    group.shift_low[lane] = 0;
    group.kept_valid[lane] = true;
  }
}

// What follows from the statistics, for 8 rows at a time.
struct Totals {
  Vec<double> max;
  Pair<Vec<double>> rest;     // sum of exp(x - max) over all classes, less 1
  Vec<double> log_sum;        // log of that sum: logsumexp = max + log_sum
  Pair<Vec<double>> inverse;  // 1 / (1 + rest) = the largest probability
  Mask<double> valid;         // no NaN, no +inf, not only -inf
  Vec<double> sum;
};

template <class T>
CROSSENT_INLINE Vec<double> load_as_double(const T* p) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return load(p);
  } else {
    double lane[8];
    for (int i = 0; i < 8; ++i) lane[i] = p[i];
    return load(lane);
  }
}

template <class T>
CROSSENT_SHARED Totals totals(const GroupStatistics<T>& group, ptrdiff_t first_lane) {
  const Vec<double> one = splat(1.0), infinite = splat(__builtin_inf());
  Totals t;
  t.max = load_as_double(group.max + first_lane);
  t.sum = load(group.sum + first_lane);
  t.rest = two_sum(load(group.ties + first_lane) - one, t.sum * splat(kUnbias<T>));
  if constexpr (sizeof(T) == 8) {
    t.rest = two_sum(t.rest.high, t.rest.low + load(group.sum_low + first_lane) * splat(kUnbias<T>));
    Pair<Vec<double>> denominator = two_sum(one, t.rest.high);
    denominator.low = denominator.low + t.rest.low;
    t.inverse.high = one / denominator.high;
    const Vec<double> product = t.inverse.high * denominator.high;
    const Vec<double> product_low = fma(t.inverse.high, denominator.high, zero<double>() - product);
    t.inverse.low = t.inverse.high * (((one - product) - product_low) - t.inverse.high * denominator.low);
  } else {
    t.rest.low = zero<double>();
    t.inverse = {one / (one + t.rest.high), zero<double>()};
  }
  t.log_sum = log1p<sizeof(T) == 8>(t.rest);
  t.valid = (t.max > zero<double>() - infinite) & (t.max < infinite) & (t.sum == t.sum);
  return t;
}
