// What every softmax-like kernel needs to know of a row: its maximum and the sum of the exponentials of all other classes.
#pragma once

// exp(x - reference) may exceed 1 by this much before the reference moves up to the running maximum.
constexpr double kGrowthLimit = 40;

// Rows that are taken through each step together: several tiles, so that one can be worked on while another waits.
template <class T>
constexpr ptrdiff_t kGroupRows = 8 * kTileRows<T>;

// Fills the entries of as many rows of a group as a run has: those that no row fills must not be slow to compute with.
template <class T, class... Numbers>
CROSSENT_INLINE void fill_rows(ptrdiff_t rows, int value, Numbers*... arrays) {
  const ptrdiff_t filled = rows < kGroupRows<T> ? rows : kGroupRows<T>;
  for (ptrdiff_t row = 0; row < filled; row += kTileRows<T>) {
    // gcc would make `rep stos` of the loop, slow for so little (softmax of 64 x 10: 0.66 -> 0.58 ns per element).
    asm volatile("");
    (fill(arrays + row, kTileRows<T>, (Numbers)value), ...);
  }
}
template <class T, class... Numbers>
CROSSENT_INLINE void clear_rows(ptrdiff_t rows, Numbers*... arrays) {
  fill_rows<T>(rows, 0, arrays...);
}

// One entry for each row of a group. The maximum stays out of the sum, so that the sum of a confident row keeps its bits:
// sum of exp(x - max) = ties + (sum + sum_low) * 2**-bias.
template <class T>
struct alignas(kVectorBytes) GroupStatistics {
  T max[kGroupRows<T>];
  double ties[kGroupRows<T>];
  double sum[kGroupRows<T>], sum_low[kGroupRows<T>];
  // The exponentials that were kept are those of x - reference; exp(reference - max), as a pair, makes up for it.
  double shift[kGroupRows<T>], shift_low[kGroupRows<T>];
  bool kept_valid[kGroupRows<T>];  // false: none were kept, or the reference moved after some were; the shift is 1 then
  // Of a run's rows from this one on, as many as a vector has lanes: the largest of each lane, if they were found before.
  ptrdiff_t looked_at = -1;
  alignas(kVectorBytes) T lane_maxima[kTileRows<T> * Vec<T>::kLanes];

  // For rows of which nothing else is said, the exponentials are those of x - max.
  CROSSENT_SHARED void clear(ptrdiff_t rows) {
    clear_rows<T>(rows, max, ties, sum, sum_low, shift_low);
    fill_rows<T>(rows, 1, shift);
    __builtin_memset(kept_valid, 1, sizeof kept_valid);
  }
};

// How far ahead a block that nothing has fetched yet, a row's first, is fetched while it is read.
constexpr ptrdiff_t kNextBytes = 1024;
// How much one block of a row holds: it stays in the first-level cache between its maximum and its exponentials.
template <class T>
constexpr ptrdiff_t kBlock = 4096;
// How much of a row is summed before as much of the one before it is written, where that is done in turns. Shorter turns cost
// the start of their loops (1024 x 50257 floats: 128 0.57 ns per element, 256 0.41, 512 and 1024 0.39), longer ones wait for
// memory (2048: 0.40).
template <class T>
constexpr ptrdiff_t kTurn = 512;
// Rows up to this size have their results fetched while they are summed, on every processor.
constexpr ptrdiff_t kFetchedRowBytes = 10 << 10;
// Elements in a group of sum_row.
template <class T>
constexpr ptrdiff_t kGroupElements = 4 * Vec<T>::kLanes;

// The largest elements of a block: of each group of sum_row by lanes, so that the groups that hold the maximum of the row can
// be told later at little cost; and of the whole. A NaN may hide numbers of its group: the results of its row are NaN in any
// case.
template <class T>
struct alignas(kVectorBytes) BlockMaxima {
  T of_group[kBlock<T> / 4];
  T largest;

  CROSSENT_SHARED void find(const T* x, ptrdiff_t n) {
    constexpr ptrdiff_t lanes = Vec<T>::kLanes;
    const T lowest = -__builtin_inf();
    Vec<T> max = splat(lowest);
    T* group_max = of_group;
    ptrdiff_t i = 0;
    for (; i + kGroupElements<T> <= n; i += kGroupElements<T>, group_max += lanes) {
      for (int line = 0; line < 4; ++line) __builtin_prefetch((const char*)(x + i) + kNextBytes + line * kVectorBytes);
      const Vec<T> a = max_or_second(load(x + i), load(x + i + lanes));
      const Vec<T> b = max_or_second(load(x + i + 2 * lanes), load(x + i + 3 * lanes));
      const Vec<T> group = max_or_second(a, b);
      store(group_max, group);
      max = max_or_second(group, max);
    }
    for (; i + lanes <= n; i += lanes) max = max_or_second(load(x + i), max);
    if (i < n) max = max_or_second(load_partial(x + i, n - i, lowest), max);
    largest = largest_lane(max);
  }
  CROSSENT_INLINE bool group_holds(ptrdiff_t i, Vec<T> value) const { return any_equal(load(of_group + i / 4), value); }
};

// The sum over a row in one read of it from memory: block by block, the maximum first and then the exponentials while the
// block is in the first-level cache. The exponentials are taken relative to a reference, the maximum of the first block or,
// where a row grows to its end, of the last elements; and the sum is rescaled once, at the end. Only where the maximum has
// outgrown the reference by kGrowthLimit does the reference move (at most once for each such step, and what was summed before
// then hardly counts).
template <class T>
struct RowSum {
  T max = -__builtin_inf(), last = -__builtin_inf();  // last: the largest of the last elements
  T reference = 0;
  double ties = 0;
  bool moved = false, small = true;  // small: as is_small_origin() says of the reference
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
      reference = block_max > last ? block_max : last;
    } else if (block_max - (double)reference > kGrowthLimit) {
      const double factor = exp_pair((double)reference, (double)block_max).high;
      lanes.scale(splat(factor));
      former_maxima = {former_maxima.high * factor, former_maxima.low * factor};
      reference = block_max;
      moved = true;
    }
    max = block_max;
    ties = 0;
    small = is_small_origin(splat(reference));
  }

  // Elements begin, …, end - 1 of a block, all groups of sum_row.
  CROSSENT_INLINE void add_some(const T* x, ptrdiff_t begin, ptrdiff_t end, const BlockMaxima<T>& maxima, T* kept,
                                ReadAhead ahead, const char* soon) {
    if (!small) {
      add_some_of_any(x, begin, end, kept);
    } else if (kept) {
      add_exponentials<true>(x, begin, end, maxima, kept, ahead, soon);
    } else {
      add_exponentials<false>(x, begin, end, maxima, nullptr, ahead, soon);
    }
  }
  // Rare, so that it does without code of its own that keeps nothing.
  CROSSENT_SHARED void add_some_of_any(const T* x, ptrdiff_t begin, ptrdiff_t end, T* kept) {
    T unused[kBlock<T> + Vec<T>::kLanes];
    for (ptrdiff_t i = begin; i < end; i += kGroupElements<T>) {
      Vec<T> group;
      sum_without_max<true, true>(x, i, end, kept ? kept : unused, group);
      lanes.add(group);
    }
  }

  // `soon`: where the results of these elements will be written, brought into the cache meanwhile, or null.
  template <bool kKeep>
  CROSSENT_SHARED void add_exponentials(const T* x, ptrdiff_t begin, ptrdiff_t end, const BlockMaxima<T>& maxima, T* kept,
                                        ReadAhead ahead, const char* soon) {
    const Vec<T> m = splat(max);
    const Exponential<T> exponential(splat(reference));
    LaneSum<T> sum = lanes;
    for (ptrdiff_t i = begin; i < end; i += kGroupElements<T>) {
      ExponentialsInTurns<T> in_turns(exponential, x + i, i + kGroupElements<T> <= end);
      for (; i + kGroupElements<T> <= end && !maxima.group_holds(i, m); i += kGroupElements<T>) {
        ahead.fetch(i);
        for (int line = 0; soon && line < 4; ++line) {
          const char* p = soon + i * sizeof(T) + line * kVectorBytes;
          __builtin_prefetch(p, 1);
          if (ahead.reaches_far) fetch_far(p);
        }
        const ptrdiff_t next = i + 2 * kGroupElements<T> <= end ? i + kGroupElements<T> : i;
        const Four<T> e = in_turns(load_four(x + i), x + next);
        if constexpr (kKeep) store_four(kept + i, e);
        sum.add(sum_of(e));
      }
      if (i >= end) break;
      Vec<T> group;
      sum_without_max<kKeep, false>(x, i, end, kept, group);
      sum.add(group);
    }
    lanes = sum;
  }
  // The sum of the exponentials of at most four vectors of the n elements, from `begin` on, without those of the maximum, which
  // are counted. Not added here: the sum would be in memory all the time. kAny: for any reference.
  template <bool kKeep, bool kAny>
  CROSSENT_SHARED void sum_without_max(const T* x, ptrdiff_t begin, ptrdiff_t n, T* kept, Vec<T>& group) {
    const Vec<T> m = splat(max), one = splat((T)1), none = zero<T>();
    const Exponential<T> exponential(splat(reference));
    const ptrdiff_t end = between(0, begin + kGroupElements<T>, n);
    Vec<T> at_max = none;
    const auto sum = last_group<1, T>(begin, end, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
      const Vec<T> v = load(x + i, (T)-__builtin_inf()), e = kAny ? exponential.of_any(v) : exponential(v);
      if constexpr (kKeep) load.store_back(kept + i, e);
      const Mask<T> is_max = v == m;
      at_max = select(is_max, at_max + one, at_max);
      return Terms<T, 1>{{select(is_max, none, e)}};
    });
    group = sum.term[0];
    ties += sum_of_lanes(at_max);
  }

  CROSSENT_SHARED void write(GroupStatistics<T>& group, ptrdiff_t lane, bool kept) const {
    const Pair<double> total = lanes.total();
    group.max[lane] = max;
    group.ties[lane] = ties;
    group.kept_valid[lane] = kept && !moved;
    group.shift[lane] = 1;
    group.shift_low[lane] = 0;
    const Pair<double> s = two_sum(total.high, former_maxima.high);
    const double low = (total.low + former_maxima.low) + s.low;
    group.sum[lane] = s.high;
    group.sum_low[lane] = low;
    if (reference == max || max == -__builtin_inf()) return;
    const Pair<double> shift = exp_pair((double)reference, (double)max);
    group.sum[lane] = s.high * shift.high;
    group.sum_low[lane] = low * shift.high + s.high * shift.low + product_error(s.high, shift.high);
    if (!group.kept_valid[lane]) return;
    group.shift[lane] = shift.high;
    group.shift_low[lane] = shift.low;
  }
};

struct NoBlockStep {
  template <class T>
  CROSSENT_INLINE void operator()(ptrdiff_t, ptrdiff_t, const T*, T) const {}
};

// What is done while a row is summed: meanwhile(n) each time when so many of its elements are, if active().
struct NothingMeanwhile {
  static CROSSENT_INLINE bool active() { return false; }
  CROSSENT_INLINE void operator()(ptrdiff_t) const {}
};

// The statistics of one contiguous row. `kept`, if not null, takes exp(x[i] - reference) * 2**bias; of a row of one block it
// may be the row itself. each_block(first, n, block, max): called for each block with the maximum so far, while the block is in
// the cache.
template <class T, class Block, class Meanwhile = NothingMeanwhile>
CROSSENT_INLINE void row_statistics(const RowInput<T>& x, ptrdiff_t classes, T* kept, GroupStatistics<T>& group, ptrdiff_t lane,
                                    const char* out, Block&& each_block, Meanwhile&& meanwhile = {}) {
  const ptrdiff_t turn = meanwhile.active() ? kTurn<T> : kBlock<T>;
  RowSum<T> row;
  BlockMaxima<T> maxima;
  row.lanes.clear();
  // Where a block, its results and what comes after both fit the first-level cache together, or a core had better be told early
  // (Emerald Rapids, softmax of 16 MB, cycles a vector with and without: 2048 classes 17.2 and 18.2, 4096 18.9 and 17.7, 50000
  // 19.9 and 18.9).
  const bool fetches_output = x.fetches_far || classes * (ptrdiff_t)sizeof(T) <= kFetchedRowBytes;
  if (classes > kBlock<T>) {
    // Sorted rows would have their reference move again and again, and none of their exponentials could be kept.
    constexpr ptrdiff_t lanes = Vec<T>::kLanes;
    row.last = largest_lane(max_or_second(load(x.block(classes - lanes, lanes)), splat((T)-__builtin_inf())));
  }
  for (ptrdiff_t first = 0; first < classes; first += kBlock<T>) {
    const ptrdiff_t n = classes - first < kBlock<T> ? classes - first : kBlock<T>;
    const T* block = x.block(first, n);
    maxima.find(block, n);
    row.grow_to(maxima.largest);
    each_block(first, n, block, row.max);
    const char* soon = out && fetches_output ? out + first * sizeof(T) : nullptr;
    for (ptrdiff_t begin = 0, end; begin < n; begin = end) {
      end = between(0, begin + turn, n);
      row.add_some(block, begin, end, maxima, kept ? kept + first : nullptr, x.ahead(first + kBlock<T>), soon);
      meanwhile(first + end);
    }
  }
  row.write(group, lane, kept != nullptr);
}

// What follows from the statistics, for 8 rows at a time.
struct Totals {
  Vec<double> max;
  Pair<Vec<double>> rest;  // sum of exp(x - max) over all classes, less 1
  Vec<double> sum;         // NaN where the row holds NaN
  Mask<double> valid;      // no NaN, no +inf, not only -inf
};

template <class T>
CROSSENT_INLINE Totals totals(const GroupStatistics<T>& group, ptrdiff_t first_lane) {
  Totals t;
  t.max = load_as_double(group.max + first_lane);
  t.sum = load(group.sum + first_lane);
  const Vec<double> other_maxima = load(group.ties + first_lane) - splat(1.0);
  if constexpr (sizeof(T) == 8) {
    t.rest = two_sum(other_maxima, t.sum * splat(kUnbias<T>));
    t.rest = two_sum(t.rest.high, t.rest.low + load(group.sum_low + first_lane) * splat(kUnbias<T>));
  } else {
    t.rest = {fma(t.sum, splat(kUnbias<T>), other_maxima), zero<double>()};
  }
  // NaN where the maximum is infinite, too.
  const Vec<double> marked = fma(t.max, zero<double>(), t.sum);
  t.valid = marked == marked;
  return t;
}

// log of the sum: logsumexp = max + log_sum.
template <class T>
CROSSENT_INLINE Vec<double> log_sum(const Totals& t) {
  return log1p<sizeof(T) == 8>(t.rest);
}
// For results of type T, and for losses, whose sums over the rows are rounded to T in the end.
template <class T>
CROSSENT_INLINE Vec<double> log_sum_to_round(const Totals& t) {
  if constexpr (sizeof(T) == 4) return log1p_for_float(t.rest.high);
  return log_sum<T>(t);
}

// 1 / (1 + rest), the largest probability.
template <class T>
CROSSENT_INLINE Pair<Vec<double>> inverse_sum(const Totals& t) {
  const Vec<double> one = splat(1.0);
  if constexpr (sizeof(T) == 4) {
    return {one / (one + t.rest.high), zero<double>()};
  } else {
    Pair<Vec<double>> denominator = two_sum(one, t.rest.high);
    denominator.low = denominator.low + t.rest.low;
    const Vec<double> inverse = one / denominator.high;
    const Vec<double> product = inverse * denominator.high;
    const Vec<double> product_low = fma(inverse, denominator.high, zero<double>() - product);
    return {inverse, inverse * (((one - product) - product_low) - inverse * denominator.low)};
  }
}
