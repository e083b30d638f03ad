// softmax, log_softmax and logsumexp as operations of the group loop, for logits of any size. Their largest errors are those
// that bench/accuracy.py finds on the rows of tests/families.py: float32 and float64, then the same without FMA.
#pragma once

template <class T, bool kKeep>
struct FromStatistics {
  using Value = T;
  static constexpr int kInputs = 1;

  const Run& run;
  ptrdiff_t first_row = 0;
  GroupStatistics<T> statistics;

  CROSSENT_INLINE explicit FromStatistics(const Run& r) : run(r) { statistics.clear(r.rows); }
  static constexpr bool skips = false;
  CROSSENT_INLINE void begin(ptrdiff_t first, ptrdiff_t) { first_row = first; }
  CROSSENT_INLINE bool live(ptrdiff_t) const { return true; }
  CROSSENT_INLINE void tile_step(const Tiles<T>& tiles) { tile_statistics<kKeep>(tiles, statistics); }
  static constexpr bool kTogether = true, kLight = false, kInTurns = true;
  CROSSENT_INLINE void rows_step(const RowGroup<T>& rows) {
    short_row_statistics<kKeep>(rows, statistics, [](ptrdiff_t) CROSSENT_LAMBDA { return true; });
  }
  template <class Meanwhile>
  CROSSENT_SHARED void row_step(const RowGroup<T>& rows, ptrdiff_t lane, Meanwhile&& meanwhile) {
    row_step_by_blocks(rows, lane, NoBlockStep{}, meanwhile);
  }
  template <class Block, class Meanwhile>
  CROSSENT_INLINE void row_step_by_blocks(const RowGroup<T>& rows, ptrdiff_t lane, Block&& each_block, Meanwhile&& meanwhile) {
    const ptrdiff_t classes = run.classes;
    T* kept = kKeep && keeps_exponentials<T>(classes) ? rows.kept_of(lane) : nullptr;
    row_statistics<T>(rows.input(lane), classes, kept, statistics, lane, rows.soon(lane), each_block, meanwhile);
  }
};

// The factor that turns a kept exponential into what a kernel returns: factor * p, p = e * 2**-bias * inverse * shift.
// Two numbers for float32; for float64 `low` carries what `high` lacks, without which softmax would be 3.04 ULP off, not 2.2.
// `before` is 1 but for a factor so small that `high` would be subnormal: then it takes the bias away first.
// Exponentials below a limit give subnormal results, which some processors compute a hundred times slower: those results are
// made as whole numbers of the smallest one instead. `bound` is not below the limit, but 0 where `before` is not 1.
template <class T>
struct alignas(kVectorBytes) Scale {
  static constexpr double kTiny = sizeof(T) == 4 ? 0x1p-120 : 0x1p-960;
  T before[kGroupRows<T>], high[kGroupRows<T>], low[kGroupRows<T>], bound[kGroupRows<T>];
  bool plain = false;  // all of `before` is 1

  CROSSENT_INLINE void set(ptrdiff_t lane, const Pair<Vec<double>>& factor, const GroupStatistics<T>& statistics) {
    const Vec<double> none = zero<double>(), unbias = splat(kUnbias<T>), tiny = splat(kTiny);
    const Vec<double> shift = load(statistics.shift + lane), shift_low = load(statistics.shift_low + lane);
    const Vec<double> value = factor.high * shift, unbiased = value * unbias;
    const Vec<double> magnitude = max_or_second(unbiased, none - unbiased);
    if (lane == 0 && !plain) {
      fill(before, kGroupRows<T>, (T)1);
      plain = true;
    }
    store_rounded(high + lane, unbiased);
    const Mask<double> is_tiny = magnitude < tiny;
    if (__builtin_expect(any_less(magnitude, tiny), 0)) {
      store_rounded(before + lane, select(is_tiny, unbias, splat(1.0)));
      store_rounded(high + lane, select(is_tiny, value, unbiased));
      plain = false;
    }
    if constexpr (sizeof(T) == 8) {
      const Vec<double> value_low = fma(factor.low, shift, fma(factor.high, shift_low, product_error(factor.high, shift)));
      const Vec<double> finite_low = select(value_low == value_low, value_low, none);
      store_rounded(low + lane, select(is_tiny, finite_low, finite_low * unbias));
    }
  }

  // To be called when all are set.
  CROSSENT_INLINE void find_bounds(ptrdiff_t lanes) {
    for (ptrdiff_t lane = 0; lane < lanes; lane += Vec<T>::kLanes) {
      const Mask<T> is_plain = load(before + lane) == splat((T)1);
      // Of factors above 1 the limit is below the smallest normal number, and the bound may be anything.
      const Vec<T> at_least_normal = max_or_second(subnormal_bound(load(high + lane)), splat(Smallest<T>::normal));
      store(bound + lane, select(is_plain, at_least_normal, zero<T>()));
    }
  }

  // factor * p of an exponential.
  template <bool kPlain>
  struct Scaled {
    Vec<T> before, high, low, bound;
    CROSSENT_INLINE Vec<T> limit() const {
      const Vec<T> none = zero<T>(), magnitude = max_or_second(none - high, high);
      return select(bound > none, splat(Smallest<T>::normal) / magnitude, none);
    }
    CROSSENT_INLINE Vec<T> operator()(Vec<T> e) const {
      if (__builtin_expect(any_less(e, bound), 0)) {
        // What takes the others' place in the product is above the limit, at which it might still be subnormal, and slow.
        const Mask<T> is_subnormal = e < limit();
        return select(is_subnormal, multiples_of_smallest(e, high), product(select(is_subnormal, bound + bound, e)));
      }
      return product(e);
    }
    CROSSENT_INLINE Four<T> operator()(const Four<T>& e) const {
      const Vec<T> smallest = smaller(smaller(e.of[0], e.of[1]), smaller(e.of[2], e.of[3]));
      if (__builtin_expect(any_less(smallest, bound), 0)) {
        return each_of_four<T>([&](int i) CROSSENT_LAMBDA { return (*this)(e.of[i]); });
      }
      return each_of_four<T>([&](int i) CROSSENT_LAMBDA { return product(e.of[i]); });
    }
    CROSSENT_INLINE Vec<T> product(Vec<T> e) const {
      const Vec<T> unbiased = kPlain ? e : e * before;
      return sizeof(T) == 8 ? fma(unbiased, high, unbiased * low) : unbiased * high;
    }
    // factor * p + addend with the factor's high part alone.
    CROSSENT_INLINE Vec<T> sum(Vec<T> e, Vec<T> addend) const { return fma(kPlain ? e : e * before, high, addend); }
    // The same where some products are subnormal: nothing beside any but the smallest addends, and made apart beside 0.
    CROSSENT_INLINE Vec<T> of_tiny(Vec<T> e, Vec<T> addend) const {
      const Vec<T> none = zero<T>(), magnitude = max_or_second(addend, none - addend);
      const Mask<T> is_subnormal = e < limit();
      const Mask<T> is_near =
          is_subnormal & (magnitude > none) & (magnitude < splat((T)(sizeof(T) == 4 ? 0x1p-100 : 0x1p-960)));
      if (lane_bits(is_near) != 0) return sum(e, addend);
      const Vec<T> ordinary = sum(select(is_subnormal, none, e), addend);
      return select(is_subnormal & (addend == none), multiples_of_smallest(e, high), ordinary);
    }
  };
  template <bool kPlain, class Rows>
  CROSSENT_INLINE Scaled<kPlain> pick(Rows rows) const {
    return {rows(before), rows(high), rows(low), rows(bound)};
  }
  // Calls write(scaled) with the one of the two that serves.
  template <class Rows, class Write>
  CROSSENT_INLINE void with(Rows rows, Write&& write) const {
    if (plain) {
      write(pick<true>(rows));
    } else {
      write(pick<false>(rows));
    }
  }
};

template <class T>
CROSSENT_INLINE Pair<Vec<double>> only_where(Mask<double> valid, Pair<Vec<double>> a) {
  const Vec<double> nan = splat((double)__builtin_nan(""));
  return {select(valid, a.high, nan), select(valid, a.low, nan)};
}

// Writes a part of a row from its exponentials, as they were kept or taken again: block(first, n) gives f(e, i, load), the
// elements of a vector from i of that block on.
template <bool kFour, class T, class Block>
CROSSENT_INLINE void write_from_exponentials(const GroupStatistics<T>& statistics, const RowGroup<T>& rows, ptrdiff_t lane,
                                             Part part, Block&& block) {
  const RowOutput<T> out = rows.output(lane);
  if (statistics.kept_valid[lane]) {
    const T* kept = rows.kept_of(lane);
    write_row<kFour>(out, part, [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
      const auto f = block(first, n);
      const T* e = kept + first;
      // They may lie in the output, so that nothing beyond the row is read; 1 is no exponential of a subnormal result.
      return [=](ptrdiff_t i, auto load_any) CROSSENT_LAMBDA { return f(load_any(e + i, (T)1), i, load_any); };
    });
  } else {
    const RowInput<T> x = rows.input(lane);
    const Vec<T> max = splat(statistics.max[lane]);
    const Exponential<T> exponential(max);
    const bool small = is_small_origin(max);
    write_row<kFour>(out, part, [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
      const auto f = block(first, n);
      const T* logits = x.block(first, n);
      return [=](ptrdiff_t i, auto load_any) CROSSENT_LAMBDA {
        const auto v = load_any(logits + i, (T)0);
        return f(small ? exponential(v) : exponential.of_any(v), i, load_any);
      };
    });
  }
}

// exp(x - max) / sum: 2.17 and 1.71 ULP; 2.24 and 2.91.
template <class T>
struct Softmax : FromStatistics<T, true> {
  using Base = FromStatistics<T, true>;
  static constexpr bool kOutput = true;
  using Base::Base;
  using Base::statistics;
  Scale<T> scale;

  CROSSENT_SHARED void finish(ptrdiff_t, ptrdiff_t lanes) {
    for (ptrdiff_t lane = 0; lane < lanes; lane += 8) {
      const Totals t = totals(statistics, lane);
      scale.set(lane, only_where<T>(t.valid, inverse_sum<T>(t)), statistics);
    }
    scale.find_bounds(lanes);
  }
  template <class Output>
  CROSSENT_INLINE void tile_output(const Tiles<T>& tiles, ptrdiff_t t, const Output& out) const {
    const auto probability = scale.template pick<true>(TileOfRows<T>{tiles.lane(t)});  // 1 / sum is never tiny
    const T* kept = tiles.kept + t * tiles.size;
    write_tile(out, [&](ptrdiff_t c, auto load) CROSSENT_LAMBDA { return probability(load(kept + c * kTileRows<T>, (T)0)); });
  }
  CROSSENT_SHARED void row_output(const RowGroup<T>& rows, ptrdiff_t lane, Part part) const {
    scale.with(OneRow<T>{lane}, [&](auto probability) CROSSENT_LAMBDA {
      write_from_exponentials<true>(statistics, rows, lane, part, [&](ptrdiff_t, ptrdiff_t) CROSSENT_LAMBDA {
        return [=](const auto& e, ptrdiff_t, auto) CROSSENT_LAMBDA { return probability(e); };
      });
    });
  }
};

// (x - max) - log(sum): both terms at most 0, so nothing cancels; and a constant added exactly to all logits changes no bit, if
// not that of an exponential (see Exponential). 1.21 and 1.01 ULP; 1.21 and 1.12.
template <class T>
struct LogSoftmax : FromStatistics<T, false> {
  using Base = FromStatistics<T, false>;
  static constexpr bool kOutput = true;
  using Base::Base;
  using Base::statistics;
  alignas(kVectorBytes) T log_of_sum[kGroupRows<T>];

  CROSSENT_SHARED void finish(ptrdiff_t, ptrdiff_t lanes) {
    for (ptrdiff_t lane = 0; lane < lanes; lane += 8) {
      const Totals t = totals(statistics, lane);
      store_rounded(log_of_sum + lane, select(t.valid, log_sum_to_round<T>(t), splat((double)__builtin_nan(""))));
    }
  }
  template <class Output>
  CROSSENT_INLINE void tile_output(const Tiles<T>& tiles, ptrdiff_t t, const Output& out) const {
    const Vec<T> max = load(statistics.max + tiles.lane(t)), log = load(log_of_sum + tiles.lane(t));
    const T* tile = tiles.logits + t * tiles.size;
    write_tile(out, [&](ptrdiff_t c, auto load) CROSSENT_LAMBDA { return (load(tile + c * kTileRows<T>, (T)0) - max) - log; });
  }
  CROSSENT_SHARED void row_output(const RowGroup<T>& rows, ptrdiff_t lane, Part part) const {
    const RowInput<T> x = rows.input(lane);
    const Vec<T> max = splat(statistics.max[lane]), log = splat(log_of_sum[lane]);
    write_row<false>(rows.output(lane), part, [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
      const T* block = x.block(first, n);
      return [=](ptrdiff_t i, auto load) CROSSENT_LAMBDA { return (load(block + i, (T)0) - max) - log; };
    });
  }
};

// max + log(sum); the maximum itself for rows of only -inf or with +inf, NaN for rows with NaN. 0.49 and 0.98 ULP of the larger
// of |result| and |max|, with and without FMA.
template <class T>
struct LogSumExp : FromStatistics<T, false> {
  using Base = FromStatistics<T, false>;
  static constexpr bool kOutput = false;
  using Base::Base;
  using Base::statistics;

  CROSSENT_SHARED void finish(ptrdiff_t count, ptrdiff_t) {
    for (ptrdiff_t lane = 0; lane < count; lane += 8) {
      const Totals t = totals(statistics, lane);
      const Vec<double> result = select(t.valid, t.max + log_sum_to_round<T>(t), select(t.sum == t.sum, t.max, t.sum));
      store_up_to(this->run.result + this->first_row + lane, count - lane, result);
    }
  }
};
