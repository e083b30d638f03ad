// Scores of logits as operations of the group loop: what is known of a row after one read, without an array of its size.
#pragma once

// The maximum and the logarithm of the sum of 8 rows, with the rule for rows that cannot be normalized.
CROSSENT_SHARED void write_max_and_log_sum(const Totals& t, const ScoreRun& run, ptrdiff_t first_row, ptrdiff_t count) {
  const Mask<double> ordered = t.sum == t.sum;
  const Vec<double> nan = splat((double)__builtin_nan(""));
  double max[8], log_sum[8];
  store(max, select(ordered, t.max, nan));
  store(log_sum, select(t.valid, t.log_sum, select(ordered, zero<double>(), nan)));
  for (ptrdiff_t i = 0; i < 8 && i < count; ++i) {
    run.max[first_row + i] = max[i];
    run.log_sum[first_row + i] = log_sum[i];
  }
}

// logsumexp in two parts, so that a log-probability is (x - max) - log_sum without cancellation.
template <class S>
struct MaxAndLogSum : FromStatistics<S, false> {
  using Base = FromStatistics<S, false>;
  using T = typename Base::Value;
  using Out = T;
  static constexpr bool kOutput = false;
  const ScoreRun& score;

  CROSSENT_INLINE explicit MaxAndLogSum(const ScoreRun& r) : Base(r), score(r) {}
  CROSSENT_SHARED void finish(ptrdiff_t count) {
    for (ptrdiff_t lane = 0; lane < count; lane += 8) {
      write_max_and_log_sum(totals(this->statistics, lane), score, this->first_row + lane, count - lane);
    }
  }
};

// Blocks of a row that stay in the first-level cache while they are read several times.
constexpr ptrdiff_t kScoreBlock = RowSum<float>::kBlock;

// What rounding the product a * b leaves, without FMA too (Dekker); 0 where that overflows.
CROSSENT_SHARED double exact_product_error(double a, double b) {
  constexpr double splitter = 0x1p27 + 1;
  const double a_high = a * splitter - (a * splitter - a), a_low = a - a_high;
  const double b_high = b * splitter - (b * splitter - b), b_low = b - b_high;
  const double error = ((a_high * b_high - a * b) + a_high * b_low + a_low * b_high) + a_low * b_low;
  return error == error ? error : 0;
}
CROSSENT_SHARED Pair<double> pair_product(Pair<double> a, Pair<double> b) {
  return {a.high * b.high, a.low * b.high + a.high * b.low + exact_product_error(a.high, b.high)};
}
CROSSENT_SHARED Pair<double> pair_sum(Pair<double> a, Pair<double> b) {
  const Pair<double> s = two_sum(a.high, b.high);
  return {s.high, s.low + (a.low + b.low)};
}

// exp_of_difference of a difference that is known with its rounding error.
template <class T>
CROSSENT_INLINE Vec<T> exp_of(Pair<Vec<T>> d) {
  return select(d.high >= splat(ExpConstants<T>::smallest), exp_biased(d), max_or_second(zero<T>(), d.high));
}

// sum exp(x - m) and sum exp(x - m) * (x - m) over a row, the first without the maxima themselves, block by block, the maximum
// m first. Where it grows, what was summed before is scaled down: all terms are non-negative, so nothing cancels, and the
// factor is exact to twice the precision. All sums are biased as the exponentials are.
template <class T>
struct MomentSum {
  T max = -__builtin_inf();
  double ties = 0;
  LaneSum<T> lanes[2];
  Pair<double> former[2] = {{0, 0}, {0, 0}};  // what the lanes do not hold any more

  CROSSENT_INLINE void clear() {
    lanes[0].clear();
    lanes[1].clear();
  }
  CROSSENT_INLINE Pair<double> total(int which) const { return pair_sum(former[which], lanes[which].total()); }

  CROSSENT_SHARED void grow_to(T block_max) {
    if (!(block_max > max)) return;
    if (max > -__builtin_inf()) {
      const Pair<double> factor = exp_pair((double)max, (double)block_max);
      const Pair<double> mass = pair_sum(total(0), {ties / kUnbias<T>, 0});
      const double growth = (double)max - (double)block_max;
      former[1] =
          factor.high > 0 ? pair_product(pair_sum(total(1), pair_product(mass, {growth, 0})), factor) : Pair<double>{0, 0};
      former[0] = pair_product(mass, factor);
      clear();
    }
    max = block_max;
    ties = 0;
  }

  // exp(x - m) where x is no maximum, and exp(x - m) * (x - m), 0 where x is -inf.
  static CROSSENT_INLINE Terms<T, 2> terms(Vec<T> x, Vec<T> m, Vec<T> origin, Vec<T>& at_max) {
    const Vec<T> none = zero<T>();
    const Pair<Vec<T>> d = two_sum(x, none - origin);
    const Vec<T> e = exp_of(d);
    const Mask<T> is_max = x == m;
    at_max = at_max + select(is_max, splat((T)1), none);
    return {{select(is_max, none, e), e * max_or_second(d.high, splat(ExpConstants<T>::smallest))}};
  }

  CROSSENT_SHARED void add_block(const T* x, ptrdiff_t n) {
    const Vec<T> m = splat(max), origin = splat(max > -__builtin_inf() ? max : (T)0);
    Vec<T> at_max = zero<T>();
    sum_row<2>(lanes, n, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
      return terms(load(x + i, (T)-__builtin_inf()), m, origin, at_max);
    });
    ties += sum_of_lanes(at_max);
  }
};

// How many of n contiguous elements are greater than a number.
template <class T>
CROSSENT_SHARED int64_t count_greater(const T* x, ptrdiff_t n, T threshold) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const Vec<T> limit = splat(threshold), one = splat((T)1), none = zero<T>();
  Vec<T> a = none, b = none;
  ptrdiff_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    a = a + select(load(x + i) > limit, one, none);
    b = b + select(load(x + i + lanes) > limit, one, none);
  }
  for (; i < n; i += lanes) {
    const Vec<T> v = n - i >= lanes ? load(x + i) : load_partial(x + i, n - i, (T)-__builtin_inf());
    a = a + select(v > limit, one, none);
  }
  return (int64_t)sum_of_lanes(a + b);
}

// The first of n contiguous elements that equals a number; n if none does.
template <class T>
CROSSENT_SHARED ptrdiff_t find_first(const T* x, ptrdiff_t n, T value) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const Vec<T> wanted = splat(value);
  ptrdiff_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const uint32_t found = lane_bits(load(x + i) == wanted);
    if (found) return i + __builtin_ctz(found);
  }
  for (; i < n; ++i) {
    if (x[i] == value) return i;
  }
  return n;
}

// n elements in the type that they are computed in: as they lie, or converted into memory of that size.
template <class S>
CROSSENT_INLINE const Compute<S>* computed(const S* x, ptrdiff_t n, Compute<S>* memory) {
  if constexpr (sizeof(S) == sizeof(Compute<S>)) {
    return x;
  } else {
    convert_to_compute(x, n, memory);
    return memory;
  }
}
// For two blocks of that, at the beginning of a run's scratch memory.
static_assert(2 * kScoreBlock * (ptrdiff_t)sizeof(float) <= kGroupBytes, "every run has scratch of kGroupBytes and more");

// Everything that logit_stats tells of a row, but for the element type in memory.
template <class T>
struct ScoresOf {
  using Value = T;
  using Second = T;
  using Out = T;
  static constexpr int kInputs = 1;
  static constexpr bool kOutput = false;
  static constexpr bool kKeep = false;

  const ScoreRun& run;
  ptrdiff_t first_row = 0;
  GroupStatistics<T> statistics;
  double moment[kGroup<T>];  // sum of exp(x - max) * (x - max), biased
  int64_t target[kGroup<T>];
  alignas(kVectorBytes) T target_logit[kGroup<T>];

  CROSSENT_INLINE explicit ScoresOf(const ScoreRun& r) : run(r), statistics{} {}
  CROSSENT_INLINE bool live(ptrdiff_t lane) const { return !run.target || target[lane] >= 0; }

  CROSSENT_SHARED void clear(ptrdiff_t first, ptrdiff_t count) {
    first_row = first;
    for (ptrdiff_t lane = 0; lane < kGroup<T>; ++lane) {
      target[lane] = run.target && lane < count ? run.target[first + lane] : -1;
      target_logit[lane] = 0;
      moment[lane] = 0;
      for (ptrdiff_t i = 0; lane < count && i < run.top_k; ++i) heap(lane)[i] = kNoEntry;
    }
  }

  CROSSENT_INLINE TopEntry* heap(ptrdiff_t lane) const { return run.top + (first_row + lane) * run.top_k; }

  // A row while it is read block by block.
  struct Reading {
    MomentSum<T> sums;
    ptrdiff_t max_block = 0;
    int64_t argmax = 0, rank = 0;
  };
  CROSSENT_SHARED void read_block(Reading& row, ptrdiff_t lane, const T* x, ptrdiff_t first, ptrdiff_t n) const {
    const T block_max = row_max(x, n);
    if (block_max > row.sums.max) row.max_block = first;
    row.sums.grow_to(block_max);
    row.sums.add_block(x, n);
    if (run.top_k > 0 && block_max > (T)heap(lane)[0].value) {
      const T bound = first == 0 ? top_bound(x, n, run.top_k) : (T)-__builtin_inf();
      collect_top(x, n, first, heap(lane), run.top_k, bound);
    }
    if (target[lane] >= 0) row.rank += rank_in_block(lane, x, first, n);
  }
  CROSSENT_SHARED void end_row(const Reading& row, ptrdiff_t lane) {
    const Pair<double> sum = row.sums.total(0), moments = row.sums.total(1);
    statistics.max[lane] = row.sums.max;
    statistics.ties[lane] = row.sums.ties;
    statistics.sum[lane] = sum.high;
    statistics.sum_low[lane] = sum.low;
    moment[lane] = moments.high + moments.low;
    run.argmax[first_row + lane] = row.argmax;
    if (run.rank) run.rank[first_row + lane] = row.rank;
  }

  // The classes of a block that outrank the target: the greater ones, and before the target those that equal it.
  CROSSENT_INLINE int64_t rank_in_block(ptrdiff_t lane, const T* x, ptrdiff_t first, ptrdiff_t n) const {
    const T logit = target_logit[lane];
    const ptrdiff_t before = target[lane] <= first ? 0 : target[lane] - first < n ? target[lane] - first : n;
    int64_t count = 0;
    if (before > 0) count = logit == -__builtin_inf() ? before : count_greater(x, before, next_below(logit));
    if (before < n) count += count_greater(x + before, n - before, logit);
    return count;
  }

  CROSSENT_SHARED void tile_step(const T* tile, const T*, ptrdiff_t classes) {
    const Vec<T> none = zero<T>(), one = splat((T)1), lowest = splat((T)-__builtin_inf());
    const Vec<T> m = tile_max(tile, classes), origin = select(m > lowest, m, none);
    Vec<T> at_max = none, argmax = none, rank = none;
    TileSum<T> sums[2];
    sum_tile<2>(sums, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
      return MomentSum<T>::terms(load(tile + c * kGroup<T>), m, origin, at_max);
    });
    T lane_target[kGroup<T>];
    for (ptrdiff_t lane = 0; lane < kGroup<T>; ++lane) lane_target[lane] = (T)target[lane];
    const Vec<T> logit = load(target_logit), wanted = load(lane_target);
    for (ptrdiff_t c = classes - 1; c >= 0; --c) {
      const Vec<T> v = load(tile + c * kGroup<T>), index = splat((T)c);
      argmax = select(v == m, index, argmax);
      rank = rank + select(v > logit, one, select((v == logit) & (index < wanted), one, none));
    }
    T ties[kGroup<T>], lane_argmax[kGroup<T>], lane_rank[kGroup<T>];
    double low[kGroup<T>];
    store(statistics.max, m);
    store(ties, at_max);
    store(lane_argmax, argmax);
    store(lane_rank, rank);
    sums[0].write(statistics.sum, statistics.sum_low);
    sums[1].write(moment, low);
    if (run.top_k > 0) tile_top(tile, classes);
    for (ptrdiff_t lane = 0; lane < kGroup<T>; ++lane) {
      statistics.ties[lane] = ties[lane];
      moment[lane] += low[lane];
      if (first_row + lane >= run.rows) break;
      run.argmax[first_row + lane] = (int64_t)lane_argmax[lane];
      if (run.rank) run.rank[first_row + lane] = (int64_t)lane_rank[lane];
      settle(lane, classes, [&](ptrdiff_t i) CROSSENT_LAMBDA { return (double)tile[i * kGroup<T> + lane]; });
    }
  }

  CROSSENT_INLINE void tile_top(const T* tile, ptrdiff_t classes) const {
    const ptrdiff_t left = run.rows - first_row, count = left < kGroup<T> ? left : kGroup<T>, k = run.top_k;
    if (k <= kSmallTop) {
      T value[kSmallTop][kGroup<T>], index[kSmallTop][kGroup<T>];
      tile_small_top(tile, classes, k, value, index);
      for (ptrdiff_t lane = 0; lane < count; ++lane) {
        for (ptrdiff_t j = 0; j < k; ++j) {  // the least first: a sorted list is a heap
          if (index[j][lane] >= 0) heap(lane)[k - 1 - j] = {value[j][lane], (int64_t)index[j][lane]};
        }
      }
      return;
    }
    for (ptrdiff_t lane = 0; lane < count; ++lane) {
      for (ptrdiff_t c = 0; c < classes; ++c) {
        const T v = tile[c * kGroup<T> + lane];
        if (v > (T)heap(lane)[0].value) push(heap(lane), k, {v, c});
      }
    }
  }

  // What the vector loops leave out: -inf among the k largest, and rows with NaN, which counts as the largest of all.
  template <class At>
  CROSSENT_SHARED void settle(ptrdiff_t lane, ptrdiff_t classes, At at) const {
    if (!(statistics.sum[lane] == statistics.sum[lane])) {
      settle_nan(lane, classes, at);
    } else if (run.top_k > 0) {
      complete_top(classes, heap(lane), run.top_k, at);
    }
    sort_heap(heap(lane), run.top_k);
  }
  template <class At>
  CROSSENT_INLINE void settle_nan(ptrdiff_t lane, ptrdiff_t classes, At at) const {
    TopEntry largest = kNoEntry;
    const TopEntry wanted = {target_logit[lane], target[lane]};
    int64_t rank = 0;
    for (ptrdiff_t i = 0; i < run.top_k; ++i) heap(lane)[i] = kNoEntry;
    for (ptrdiff_t i = 0; i < classes; ++i) {
      const TopEntry entry = {at(i), i};
      if (outranks(entry, largest)) largest = entry;
      rank += outranks(entry, wanted);
      if (run.top_k > 0) push(heap(lane), run.top_k, entry);
    }
    run.argmax[first_row + lane] = largest.index;
    if (run.rank) run.rank[first_row + lane] = rank;
  }

  CROSSENT_SHARED void finish(ptrdiff_t count) {
    for (ptrdiff_t lane = 0; lane < count; lane += 8) {
      const Totals t = totals(statistics, lane);
      write_max_and_log_sum(t, run, first_row + lane, count - lane);
      double entropy[8];
      const Vec<double> mean_distance = load(moment + lane) * splat(kUnbias<T>) * t.inverse.high;
      store(entropy, select(t.valid, t.log_sum - mean_distance, splat((double)__builtin_nan(""))));
      for (ptrdiff_t i = 0; i < 8 && lane + i < count; ++i) run.entropy[first_row + lane + i] = entropy[i];
    }
  }
};

template <class S>
struct Scores : ScoresOf<Compute<S>> {
  using In = S;
  using T = Compute<S>;
  using ScoresOf<T>::ScoresOf;
  using ScoresOf<T>::run;

  CROSSENT_SHARED void begin(ptrdiff_t first, ptrdiff_t count) {
    this->clear(first, count);
    for (ptrdiff_t lane = 0; lane < count; ++lane) {
      if (this->target[lane] < 0) continue;
      const char* row = run.input.data + (first + lane) * run.input.row_stride;
      this->target_logit[lane] = to_compute(load_element<S>(row + this->target[lane] * run.input.class_stride));
    }
  }
  CROSSENT_SHARED void row_step(ptrdiff_t lane, const S* x, const T*, ptrdiff_t classes, T*) {
    typename ScoresOf<T>::Reading row;
    row.sums.clear();
    const auto block = [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA { return computed(x + first, n, (T*)run.scratch); };
    for (ptrdiff_t first = 0; first < classes; first += kScoreBlock) {
      const ptrdiff_t n = classes - first < kScoreBlock ? classes - first : kScoreBlock;
      this->read_block(row, lane, block(first, n), first, n);
    }
    const ptrdiff_t left = classes - row.max_block, n = left < kScoreBlock ? left : kScoreBlock;
    row.argmax = row.max_block + find_first(block(row.max_block, n), n, row.sums.max);
    this->end_row(row, lane);
    const auto at = [&](ptrdiff_t i) CROSSENT_LAMBDA { return (double)to_compute(load_element<S>((const char*)(x + i))); };
    this->settle(lane, classes, at);
  }
};
