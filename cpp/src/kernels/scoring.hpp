// Scores of logits as operations of the group loop: what is known of a row after one read, without an array of its size.
#pragma once

// The maximum and the logarithm of the sum of 8 rows, with the rule for rows that cannot be normalized.
template <class T>
CROSSENT_SHARED void write_max_and_log_sum(const Totals& t, const ScoreRun& run, ptrdiff_t first_row, ptrdiff_t count) {
  const Mask<double> ordered = t.sum == t.sum;
  const Vec<double> nan = splat((double)__builtin_nan(""));
  double max[8], log[8];
  store(max, select(ordered, t.max, nan));
  store(log, select(t.valid, log_sum<T>(t), select(ordered, zero<double>(), nan)));
  for (ptrdiff_t i = 0; i < 8 && i < count; ++i) {
    run.max[first_row + i] = max[i] + 0.0;  // which zero is the larger one depends on where they lie
    run.log_sum[first_row + i] = log[i];
  }
}

// logsumexp in two parts, so that a log-probability is (x - max) - log_sum without cancellation.
template <class T>
struct MaxAndLogSum : FromStatistics<T, false> {
  using Base = FromStatistics<T, false>;
  static constexpr bool kOutput = false;
  const ScoreRun& score;

  CROSSENT_INLINE explicit MaxAndLogSum(const ScoreRun& r) : Base(r), score(r) {}
  CROSSENT_SHARED void finish(ptrdiff_t count, ptrdiff_t) {
    for (ptrdiff_t lane = 0; lane < count; lane += 8) {
      write_max_and_log_sum<T>(totals(this->statistics, lane), score, this->first_row + lane, count - lane);
    }
  }
};

CROSSENT_SHARED Pair<double> pair_product(Pair<double> a, Pair<double> b) {
  return {a.high * b.high, a.low * b.high + a.high * b.low + exact_product_error(a.high, b.high)};
}
CROSSENT_SHARED Pair<double> pair_sum(Pair<double> a, Pair<double> b) {
  const Pair<double> s = two_sum(a.high, b.high);
  return {s.high, s.low + (a.low + b.low)};
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

  // Of e = exp(x - m): e where x is no maximum, and e * (x - m), 0 where x is -inf.
  static CROSSENT_INLINE Terms<T, 2> terms(Vec<T> x, Vec<T> e, Vec<T> m, const Exponential<T>& exponential, Vec<T>& at_max) {
    const Vec<T> difference = exponential.raise(x) + exponential.minus_origin;
    const Mask<T> is_max = x == m;
    at_max = select(is_max, at_max + splat((T)1), at_max);
    return {{select(is_max, zero<T>(), e), e * difference}};
  }
  // Of at most four vectors: for any maximum, and for one that Exponential takes.
  template <bool kAny>
  CROSSENT_SHARED void add_group(const T* x, ptrdiff_t n, LaneSum<T>* sums) {
    const Vec<T> m = splat(max);
    const Exponential<T> exponential(splat(max > -__builtin_inf() ? max : (T)0));
    Vec<T> at_max = zero<T>();
    const auto group = last_group<2, T>(0, n, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
      const Vec<T> v = load(x + i, (T)-__builtin_inf());
      return terms(v, kAny ? exponential.of_any(v) : exponential(v), m, exponential, at_max);
    });
    for (int k = 0; k < 2; ++k) sums[k].add(group.term[k]);
    ties += sum_of_lanes(at_max);
  }

  CROSSENT_SHARED void add_block(const T* x, ptrdiff_t n, const BlockMaxima<T>& maxima, ReadAhead ahead) {
    const Vec<T> m = splat(max);
    const Exponential<T> exponential(m);
    const bool ordinary = is_small_origin(m);
    LaneSum<T> sums[2] = {lanes[0], lanes[1]};
    for (ptrdiff_t i = 0; i < n; i += kGroupElements<T>) {
      ExponentialsInTurns<T> in_turns(exponential, x + i, ordinary && i + kGroupElements<T> <= n);
      for (; ordinary && i + kGroupElements<T> <= n && !maxima.group_holds(i, m); i += kGroupElements<T>) {
        ahead.fetch(i);
        const ptrdiff_t next = i + 2 * kGroupElements<T> <= n ? i + kGroupElements<T> : i;
        Four<T> difference;
        const Four<T> e = in_turns.with_difference(load_four(x + i), x + next, difference);
        sums[0].add(sum_of(e));
        sums[1].add(sum_of(e * difference));
      }
      if (i >= n) break;
      const ptrdiff_t left = between(0, n - i, kGroupElements<T>);
      ahead.fetch(i);
      if (ordinary) {
        add_group<false>(x + i, left, sums);
      } else {
        add_group<true>(x + i, left, sums);
      }
    }
    for (int k = 0; k < 2; ++k) lanes[k] = sums[k];
  }
};

// How many of a block's elements from `begin` to `end` are greater than a number. Groups are passed over by their maxima.
template <class T>
CROSSENT_SHARED int64_t count_greater(const T* x, ptrdiff_t begin, ptrdiff_t end, T threshold, const BlockMaxima<T>& maxima) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const Vec<T> limit = splat(threshold), one = splat((T)1), none = zero<T>();
  Vec<T> counts[4] = {none, none, none, none};
  const auto count_in = [&](Vec<T>& count, Vec<T> v) CROSSENT_LAMBDA { count = select(v > limit, count + one, count); };
  for (ptrdiff_t i = begin; i < end;) {
    if (i % kGroupElements<T> == 0 && i + kGroupElements<T> <= end) {
      if (any_less(limit, load(maxima.of_group + i / 4))) {
        for (ptrdiff_t v = 0; v < 4; ++v) count_in(counts[v], load(x + i + v * lanes));
      }
      i += kGroupElements<T>;
      continue;
    }
    const ptrdiff_t to_vector = lanes - i % lanes, step = end - i < to_vector ? end - i : to_vector;
    count_in(counts[0], step == lanes ? load(x + i) : load_partial(x + i, step, (T)-__builtin_inf()));
    i += step;
  }
  return (int64_t)sum_of_lanes((counts[0] + counts[1]) + (counts[2] + counts[3]));
}

// The first of n contiguous elements that equals their maximum, more than -inf; n if none does.
template <class T>
CROSSENT_SHARED ptrdiff_t find_largest(const T* x, ptrdiff_t n, const BlockMaxima<T>& maxima) {
  const Vec<T> wanted = splat(maxima.largest);
  ptrdiff_t i = 0;
  while (i + kGroupElements<T> <= n && !maxima.group_holds(i, wanted)) i += kGroupElements<T>;
  for (; i < n; i += Vec<T>::kLanes) {
    const ptrdiff_t left = n - i;
    const Vec<T> v = left >= Vec<T>::kLanes ? load(x + i) : load_partial(x + i, left, (T)-__builtin_inf());
    const uint32_t found = lane_bits(v == wanted);
    if (found != 0) return i + __builtin_ctz(found);
  }
  return n;
}

// Everything that logit_stats tells of a row.
template <class T>
struct Scores {
  using Value = T;
  static constexpr int kInputs = 1;
  static constexpr bool kOutput = false;
  static constexpr bool kTogether = false, kLight = false, kInTurns = false;

  const ScoreRun& run;
  const bool skips;
  ptrdiff_t first_row = 0;
  GroupStatistics<T> statistics;
  double moment[kGroupRows<T>];  // sum of exp(x - max) * (x - max), biased
  int64_t target[kGroupRows<T>];
  alignas(kVectorBytes) T target_logit[kGroupRows<T>];

  CROSSENT_INLINE explicit Scores(const ScoreRun& r) : run(r), skips(r.target != nullptr) { statistics.clear(r.rows); }
  CROSSENT_INLINE bool live(ptrdiff_t lane) const { return !run.target || target[lane] >= 0; }

  CROSSENT_SHARED void begin(ptrdiff_t first, ptrdiff_t count) {
    first_row = first;
    for (ptrdiff_t lane = 0; lane < padded<T>(count); ++lane) {  // what lies beyond is not looked at
      target[lane] = run.target && lane < count ? run.target[first + lane] : -1;
      target_logit[lane] = 0;
      moment[lane] = 0;
      for (ptrdiff_t i = 0; lane < count && i < run.top_k; ++i) top(lane)[i] = kNoEntry;
      if (target[lane] < 0) continue;
      const char* row = ColumnRows(run, run.input, first + lane).data;
      target_logit[lane] = element_to_compute<T>(run.input.type, row + target[lane] * run.input.class_stride);
    }
  }

  CROSSENT_INLINE TopEntry* top(ptrdiff_t lane) const { return run.top + (first_row + lane) * run.top_k; }

  // A row while it is read block by block.
  struct Reading {
    MomentSum<T> sums;
    BlockMaxima<T> maxima;
    int64_t argmax = 0, rank = 0;
  };
  CROSSENT_SHARED void read_block(Reading& row, ptrdiff_t lane, const T* x, ptrdiff_t first, ptrdiff_t n,
                                  ReadAhead ahead) const {
    row.maxima.find(x, n);
    const T largest = row.maxima.largest;
    if (largest > row.sums.max) row.argmax = first + find_largest(x, n, row.maxima);
    row.sums.grow_to(largest);
    row.sums.add_block(x, n, row.maxima, ahead);
    if (run.top_k > 0 && largest > least<T>(top(lane), run.top_k)) {
      collect_top(x, n, first, row.maxima, top(lane), run.top_k);
    }
    if (target[lane] >= 0 && !(largest < target_logit[lane])) row.rank += rank_in_block(lane, x, first, n, row.maxima);
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
  CROSSENT_INLINE int64_t rank_in_block(ptrdiff_t lane, const T* x, ptrdiff_t first, ptrdiff_t n,
                                        const BlockMaxima<T>& maxima) const {
    const T logit = target_logit[lane];
    const ptrdiff_t before = target[lane] <= first ? 0 : target[lane] - first < n ? target[lane] - first : n;
    int64_t count = 0;
    if (before > 0) count = logit == -__builtin_inf() ? before : count_greater(x, 0, before, next_below(logit), maxima);
    if (before < n) count += count_greater(x, before, n, logit, maxima);
    return count;
  }

  CROSSENT_SHARED void row_step(const RowGroup<T>& rows, ptrdiff_t lane) {
    const RowInput<T> x = rows.input(lane);
    const ptrdiff_t classes = rows.run.classes;
    Reading row;
    row.sums.clear();
    for (ptrdiff_t first = 0; first < classes; first += kBlock<T>) {
      const ptrdiff_t n = classes - first < kBlock<T> ? classes - first : kBlock<T>;
      read_block(row, lane, x.block(first, n), first, n, x.ahead(first + kBlock<T>));
    }
    end_row(row, lane);
    const auto at = [&](ptrdiff_t i)
                        CROSSENT_LAMBDA { return (double)element_to_compute<T>(x.type, x.data + i * element_size(x.type)); };
    settle(lane, classes, at);
  }

  CROSSENT_SHARED void tile_step(const Tiles<T>& tiles) {
    copy_maxima(tiles, tiles.maxima, statistics.max);
    for (ptrdiff_t t = 0; t < tiles.count; ++t) score_tile(tiles, t);
  }
  CROSSENT_SHARED void score_tile(const Tiles<T>& tiles, ptrdiff_t t) {
    const T* tile = tiles.logits + t * tiles.size;
    const ptrdiff_t lane = tiles.lane(t), classes = tiles.classes;
    const Vec<T> none = zero<T>(), lowest = splat((T)-__builtin_inf());
    const Vec<T> m = load(statistics.max + lane), origin = select(m > lowest, m, none);
    const Exponential<T> exponential(origin);
    const bool small = is_small_origin(origin);
    Vec<T> at_max = none;
    TileSum<T> sums[2];
    T* e = tiles.kept;
    sum_tile<2>(
        sums, classes,
        [&](ptrdiff_t c) CROSSENT_LAMBDA {
          const ptrdiff_t i = c * kTileRows<T>;
          return MomentSum<T>::terms(load(tile + i), load(e + i), m, exponential, at_max);
        },
        [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
          e = tiles.kept - first * kTileRows<T>;
          exponentials_of_block(tiles, t, first, n, tiles.kept, [&](const auto& v) CROSSENT_LAMBDA {
            return __builtin_expect(small, 1) ? exponential(v) : exponential.of_any(v);
          });
        });
    double low[kTileRows<T>];
    store_as_double(statistics.ties + lane, at_max);
    sums[0].write(statistics.sum + lane, statistics.sum_low + lane);
    sums[1].write(moment + lane, low);
    for (ptrdiff_t r = 0; r < kTileRows<T>; ++r) moment[lane + r] += low[r];
    tile_indices(tile, lane, classes);
    if (run.top_k > 0) tile_top(tile, lane, classes);
    for (ptrdiff_t r = 0; r < kTileRows<T> && first_row + lane + r < run.rows; ++r) {
      settle(lane + r, classes, [&](ptrdiff_t i) CROSSENT_LAMBDA { return (double)tile[i * kTileRows<T> + r]; });
    }
  }
  CROSSENT_INLINE void tile_indices(const T* tile, ptrdiff_t lane, ptrdiff_t classes) const {
    const Vec<T> none = zero<T>(), one = splat((T)1), m = load(statistics.max + lane);
    T wanted_lanes[kTileRows<T>], argmax_lanes[kTileRows<T>], rank_lanes[kTileRows<T>];
    Vec<T> argmax = none, rank = none, index = splat((T)classes);
    for (ptrdiff_t c = classes - 1; c >= 0; --c) {
      index = index - one;
      argmax = select(load(tile + c * kTileRows<T>) == m, index, argmax);
    }
    store(argmax_lanes, argmax);
    for (ptrdiff_t r = 0; r < kTileRows<T>; ++r) wanted_lanes[r] = (T)target[lane + r];
    const Vec<T> logit = load(target_logit + lane), wanted = load(wanted_lanes);
    for (ptrdiff_t c = 0; run.rank && c < classes; ++c, index = index + one) {
      const Vec<T> v = load(tile + c * kTileRows<T>);
      rank = rank + select(v > logit, one, select((v == logit) & (index < wanted), one, none));
    }
    store(rank_lanes, rank);
    for (ptrdiff_t r = 0; r < kTileRows<T> && first_row + lane + r < run.rows; ++r) {
      run.argmax[first_row + lane + r] = (int64_t)argmax_lanes[r];
      if (run.rank) run.rank[first_row + lane + r] = (int64_t)rank_lanes[r];
    }
  }

  CROSSENT_INLINE void tile_top(const T* tile, ptrdiff_t lane, ptrdiff_t classes) const {
    const ptrdiff_t left = run.rows - first_row - lane, count = left < kTileRows<T> ? left : kTileRows<T>, k = run.top_k;
    if (k <= kSmallTop || classes <= kTransposedRow) {
      T value[kTransposedRow][kTileRows<T>], index[kTransposedRow][kTileRows<T>];
      tile_top_lists(tile, classes, k, value, index);
      for (ptrdiff_t r = 0; r < count; ++r) {
        TopEntry* entries = top(lane + r);
        for (ptrdiff_t j = 0; j < k && index[j][r] >= 0; ++j) {
          entries[k <= kSmallTop ? j : k - 1 - j] = {value[j][r], (int64_t)index[j][r]};
        }
      }
      return;
    }
    for (ptrdiff_t r = 0; r < count; ++r) {
      for (ptrdiff_t c = 0; c < classes; ++c) {
        const T v = tile[c * kTileRows<T> + r];
        if (v > least<T>(top(lane + r), k)) push_larger(top(lane + r), k, v, c);
      }
    }
  }

  // What the vector loops leave out: -inf among the k largest, and rows with NaN, which counts as the largest of all.
  template <class At>
  CROSSENT_SHARED void settle(ptrdiff_t lane, ptrdiff_t classes, At at) const {
    if (!(statistics.sum[lane] == statistics.sum[lane])) {
      settle_nan(lane, classes, at);
    } else if (run.top_k > 0) {
      complete_top(classes, top(lane), run.top_k, at);
    }
    sort_top(top(lane), run.top_k);
  }
  template <class At>
  CROSSENT_INLINE void settle_nan(ptrdiff_t lane, ptrdiff_t classes, At at) const {
    TopEntry largest = kNoEntry;
    const TopEntry wanted = {target_logit[lane], target[lane]};
    int64_t rank = 0;
    for (ptrdiff_t i = 0; i < run.top_k; ++i) top(lane)[i] = kNoEntry;
    for (ptrdiff_t i = 0; i < classes; ++i) {
      const TopEntry entry = {at(i), i};
      if (outranks(entry, largest)) largest = entry;
      rank += outranks(entry, wanted);
      if (run.top_k > 0) push(top(lane), run.top_k, entry);
    }
    run.argmax[first_row + lane] = largest.index;
    if (run.rank) run.rank[first_row + lane] = rank;
  }

  CROSSENT_SHARED void finish(ptrdiff_t count, ptrdiff_t) {
    for (ptrdiff_t lane = 0; lane < count; lane += 8) {
      const Totals t = totals(statistics, lane);
      write_max_and_log_sum<T>(t, run, first_row + lane, count - lane);
      double entropy[8];
      const Vec<double> mean_distance = load(moment + lane) * splat(kUnbias<T>) * inverse_sum<T>(t).high;
      store(entropy, select(t.valid, log_sum<T>(t) - mean_distance, splat((double)__builtin_nan(""))));
      for (ptrdiff_t i = 0; i < 8 && lane + i < count; ++i) run.entropy[first_row + lane + i] = entropy[i];
    }
  }
};
