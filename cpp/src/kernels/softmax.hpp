// softmax, log_softmax and logsumexp as operations of the group loop.
#pragma once

struct NoBlockStep {
  template <class T>
  CROSSENT_INLINE void operator()(ptrdiff_t, ptrdiff_t, T) const {}
};

template <class S, bool kKeepExponentials>
struct FromStatistics {
  using In = S;
  using Value = Compute<S>;
  using Second = Value;
  static constexpr int kInputs = 1;
  static constexpr bool kKeep = kKeepExponentials;
  using T = Value;

  const Run& run;
  ptrdiff_t first_row = 0;
  GroupStatistics<T> statistics;

  CROSSENT_INLINE explicit FromStatistics(const Run& r) : run(r), statistics{} {}
  CROSSENT_INLINE void begin(ptrdiff_t first, ptrdiff_t) { first_row = first; }
  CROSSENT_INLINE bool live(ptrdiff_t) const { return true; }
  CROSSENT_INLINE void tile_step(T* tile, T*, ptrdiff_t classes) { tile_statistics<kKeep>(tile, classes, statistics); }
  CROSSENT_INLINE void row_step(ptrdiff_t lane, const S* x, const Second*, ptrdiff_t classes, T* kept) {
    row_step_by_blocks(lane, x, classes, kept, NoBlockStep{});
  }
  template <class Block>
  CROSSENT_INLINE void row_step_by_blocks(ptrdiff_t lane, const S* x, ptrdiff_t classes, T* kept, Block&& each_block) {
    if (kKeep && keeps_exponentials<T>(classes)) {
      row_statistics<kKeep>(x, classes, kept, statistics, lane, each_block);
    } else {
      row_statistics<false>(x, classes, (T*)nullptr, statistics, lane, each_block);
      statistics.kept_valid[lane] = false;
    }
  }
};

// The factor that turns a kept exponential into what a kernel returns: factor * p, p = e * 2**-bias * inverse * shift.
// Two numbers for float32; for float64 `low` carries what `high` lacks, without which softmax would be 3.04 ULP off, not 2.2.
// `before` is 1 but for a factor so small that `high` would be subnormal: then it takes the bias away first.
template <class T>
struct alignas(kVectorBytes) Scale {
  T before[kGroup<T>], high[kGroup<T>], low[kGroup<T>];

  CROSSENT_SHARED void set(ptrdiff_t lane, const Pair<Vec<double>>& factor, const GroupStatistics<T>& statistics) {
    double valid_high[8], valid_low[8];
    store(valid_high, factor.high);
    store(valid_low, factor.low);
    for (ptrdiff_t i = 0; i < 8; ++i) {
      const ptrdiff_t row = lane + i;
      double value = valid_high[i], low_value = valid_low[i];
      if (statistics.kept_valid[row] && statistics.shift[row] != 1) {
        low_value =
            low_value * statistics.shift[row] + value * statistics.shift_low[row] + product_error(value, statistics.shift[row]);
        value *= statistics.shift[row];
      }
      const double unbiased = value * kUnbias<T>;
      const bool tiny = sizeof(T) == 4 && unbiased < 0x1p-120 && unbiased > -0x1p-120;
      before[row] = tiny ? (T)kUnbias<T> : (T)1;
      high[row] = (T)(tiny ? value : unbiased);
      low[row] = sizeof(T) == 8 ? (T)(low_value * kUnbias<T>) : (T)0;
    }
  }

  template <class Rows>
  CROSSENT_INLINE auto pick(Rows rows) const {
    const Vec<T> b = rows(before), h = rows(high), l = rows(low);
    return Scaled{b, h, l};
  }

  struct Scaled {
    Vec<T> before, high, low;
    // factor * p of an exponential, and the same plus an addend.
    CROSSENT_INLINE Vec<T> operator()(Vec<T> e) const { return sizeof(T) == 8 ? fma(e, high, e * low) : (e * before) * high; }
    CROSSENT_INLINE Vec<T> operator()(Vec<T> e, Vec<T> addend) const {
      return sizeof(T) == 8 ? fma(e, high, fma(e, low, addend)) : fma(e * before, high, addend);
    }
  };
};

template <class T>
CROSSENT_INLINE Pair<Vec<double>> only_where(Mask<double> valid, Pair<Vec<double>> a) {
  const Vec<double> nan = splat((double)__builtin_nan(""));
  return {select(valid, a.high, nan), select(valid, a.low, nan)};
}

// exp(x - max) / sum
template <class S, class O>
struct Softmax : FromStatistics<S, true> {
  using Base = FromStatistics<S, true>;
  using T = typename Base::Value;
  using Out = O;
  static constexpr bool kOutput = true;
  using Base::Base;
  using Base::statistics;
  Scale<T> scale;

  CROSSENT_SHARED void finish(ptrdiff_t) {
    for (ptrdiff_t lane = 0; lane < kGroup<T>; lane += 8) {
      const Totals t = totals(statistics, lane);
      scale.set(lane, only_where<T>(t.valid, t.inverse), statistics);
    }
  }
  CROSSENT_SHARED void tile_output(T* tile, T*, ptrdiff_t classes) const {
    const auto probability = scale.pick(AllRows<T>{});
    write_tile(tile, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA { return probability(load(tile + c * kGroup<T>)); });
  }
  CROSSENT_SHARED void row_output(ptrdiff_t lane, const S* x, const T*, ptrdiff_t classes, const T* kept, O* out) const {
    const auto probability = scale.pick(OneRow<T>{lane});
    if (statistics.kept_valid[lane]) {
      write_row(out, classes, [&](ptrdiff_t i, auto) CROSSENT_LAMBDA { return probability(load(kept + i)); });
    } else {
      const Vec<T> max = splat(statistics.max[lane]);
      write_row(out, classes,
                [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA { return probability(exp_of_difference(load(x + i, (T)0), max)); });
    }
  }
};

// (x - max) - log(sum): both terms at most 0, so nothing cancels; and a constant added exactly to all logits changes no bit.
template <class S, class O>
struct LogSoftmax : FromStatistics<S, false> {
  using Base = FromStatistics<S, false>;
  using T = typename Base::Value;
  using Out = O;
  static constexpr bool kOutput = true;
  using Base::Base;
  using Base::statistics;
  alignas(kVectorBytes) T log_sum[kGroup<T>];

  CROSSENT_SHARED void finish(ptrdiff_t) {
    for (ptrdiff_t lane = 0; lane < kGroup<T>; lane += 8) {
      const Totals t = totals(statistics, lane);
      double value[8];
      store(value, select(t.valid, t.log_sum, splat((double)__builtin_nan(""))));
      for (ptrdiff_t i = 0; i < 8; ++i) log_sum[lane + i] = (T)value[i];
    }
  }
  CROSSENT_SHARED void tile_output(T* tile, T*, ptrdiff_t classes) const {
    const Vec<T> max = load(statistics.max), log = load(log_sum);
    write_tile(tile, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA { return (load(tile + c * kGroup<T>) - max) - log; });
  }
  CROSSENT_SHARED void row_output(ptrdiff_t lane, const S* x, const T*, ptrdiff_t classes, const T*, O* out) const {
    const Vec<T> max = splat(statistics.max[lane]), log = splat(log_sum[lane]);
    write_row(out, classes, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA { return (load(x + i, (T)0) - max) - log; });
  }
};

// max + log(sum); the maximum itself for rows of only -inf or with +inf, NaN for rows with NaN.
template <class S>
struct LogSumExp : FromStatistics<S, false> {
  using Base = FromStatistics<S, false>;
  using T = typename Base::Value;
  using Out = T;
  static constexpr bool kOutput = false;
  using Base::Base;
  using Base::statistics;

  CROSSENT_SHARED void finish(ptrdiff_t count) {
    for (ptrdiff_t lane = 0; lane < count; lane += 8) {
      const Totals t = totals(statistics, lane);
      double result[8];
      store(result, select(t.valid, t.max + t.log_sum, select(t.sum == t.sum, t.max, t.sum)));
      for (ptrdiff_t i = 0; i < 8 && lane + i < count; ++i) this->run.result[this->first_row + lane + i] = result[i];
    }
  }
};
