// The gradients of softmax and log_softmax, given the forward result y and the gradient g with respect to it.
#pragma once

// A sum in the type that is computed in, and what that lacks; 0 for an infinite sum.
template <class T>
struct HighAndLow {
  Vec<T> high, low;
};
CROSSENT_INLINE HighAndLow<float> high_and_low(const TileSum<float>& total) {
  const Vec<double> none = zero<double>();  // -0 becomes 0, as in rows
  const Widened sum = {total.sum.low + none, total.sum.high + none};
  const Vec<float> high = narrow(sum);
  const Widened of_high = widen(high);
  const Vec<float> low = narrow({sum.low - of_high.low, sum.high - of_high.high});
  return {high, select(low == low, low, zero<float>())};
}
CROSSENT_INLINE HighAndLow<double> high_and_low(const TileSum<double>& total) {
  const Vec<double> high = total.sum + total.rest, low = (total.sum - high) + total.rest;
  return {high, select(low == low, low, zero<double>())};
}

// `Formula` gives what is summed of a class from y and g, its probability from y, and its gradient from that, given the sum h +
// l. Where a vector is one register, exponentials are taken four at a time: those of tiles are kept for that.
template <class T, class Formula>
struct Backward {
  using Value = T;
  static constexpr int kInputs = 2;
  static constexpr bool kOutput = true;
  static constexpr bool kKeeps = Formula::kExponential && kParts == 1;
  double sum[kGroupRows<T>], sum_low[kGroupRows<T>];
  alignas(kVectorBytes) T high[kGroupRows<T>], low[kGroupRows<T>];

  CROSSENT_INLINE explicit Backward(const Run& run) { clear_rows<T>(run.rows, sum, sum_low); }
  static constexpr bool kTogether = true, kLight = true, kInTurns = false;
  static constexpr bool skips = false;
  CROSSENT_INLINE void begin(ptrdiff_t, ptrdiff_t) {}
  CROSSENT_INLINE bool live(ptrdiff_t) const { return true; }

  CROSSENT_SHARED void tile_step(const Tiles<T>& tiles) {
    for (ptrdiff_t t = 0; t < tiles.count; ++t) {
      const T *y = tiles.logits + t * tiles.size, *g = tiles.second + t * tiles.size;
      TileSum<T> total;
      sum_tile<1>(
          &total, tiles.classes,
          [&](ptrdiff_t c)
              CROSSENT_LAMBDA { return Terms<T, 1>{{Formula::term(load(y + c * kTileRows<T>), load(g + c * kTileRows<T>))}}; },
          [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
            if (tiles.distant) tiles.prefetch_far(t * tiles.classes + first, n);  // in a cache nothing is waited for
            if (tiles.output) tiles.output->fetch(n * kTileRows<T>);
          });
      total.write(sum + tiles.lane(t), sum_low + tiles.lane(t));
      if constexpr (kKeeps) keep_probabilities(y, tiles.classes, tiles.kept + t * tiles.size);
    }
  }
  static CROSSENT_INLINE void keep_probabilities(const T* y, ptrdiff_t classes, T* kept) {
    const ptrdiff_t end = classes * kTileRows<T>;
    ptrdiff_t i = 0;
    for (; i + 4 * kTileRows<T> <= end; i += 4 * kTileRows<T>) store_four(kept + i, Formula::probability(load_four(y + i)));
    for (; i < end; i += kTileRows<T>) store(kept + i, Formula::probability(load(y + i)));
  }
  CROSSENT_SHARED void row_step(const RowGroup<T>& rows, ptrdiff_t lane) {
    const RowInput<T> y = rows.input(lane), g = rows.second(lane);
    const ptrdiff_t classes = rows.run.classes;
    Sums<LaneSum<T>, 1> sums;
    sums.clear();
    for (ptrdiff_t first = 0; first < classes; first += kBlock<T>) {
      const ptrdiff_t n = classes - first < kBlock<T> ? classes - first : kBlock<T>;
      const T *y_block = y.block(first, n), *g_block = g.block(first, n);
      sum_row<1, T>(sums, n, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
        return Terms<T, 1>{{Formula::term(load(y_block + i, (T)0), load(g_block + i, (T)0))}};
      });
    }
    const Pair<double> total = sums.of[0].total();
    sum[lane] = total.high;
    sum_low[lane] = total.low;
  }
  CROSSENT_SHARED void rows_step(const RowGroup<T>& rows) {
    for (ptrdiff_t first = 0; first < rows.count; first += kTileRows<T>) {
      with_row_pairs(rows, first, [&](const auto& pairs) CROSSENT_LAMBDA {
        if (rows.run.classes > kLightTogetherRow) return sum_long_rows(pairs, first);
        LaneSums sums;
        for (ptrdiff_t r = 0; r < pairs.count; ++r) sums.set(r, pairs.template sum<Formula>(r));
        for (ptrdiff_t r = pairs.count; r < kTileRows<T>; ++r) sums.set(r, LaneSum<T>::none());
        sums.total().write(sum + first, sum_low + first);
      });
    }
  }
  template <class Pairs>
  CROSSENT_INLINE void sum_long_rows(const Pairs& pairs, ptrdiff_t first) {
    for (ptrdiff_t r = 0; r < pairs.count; ++r) {
      const Pair<double> total = pairs.template sum<Formula>(r).total();
      sum[first + r] = total.high;
      sum_low[first + r] = total.low;
    }
  }
  CROSSENT_SHARED void finish(ptrdiff_t, ptrdiff_t lanes) {
    for (ptrdiff_t lane = 0; lane < lanes; lane += 8) {
      const Vec<double> of_rows = load(sum + lane), rest = load(sum_low + lane), value = of_rows + rest;
      store_rounded(high + lane, value);
      const Vec<double> left = sizeof(T) == 8 ? (of_rows - value) + rest : value - load_as_double(high + lane);
      store_rounded(low + lane, select(left == left, left, zero<double>()));  // not of an infinite sum
    }
  }
  template <class Output>
  CROSSENT_INLINE void tile_output(const Tiles<T>& tiles, ptrdiff_t t, const Output& out) const {
    const T *p = (kKeeps ? tiles.kept : tiles.logits) + t * tiles.size, *g = tiles.second + t * tiles.size;
    const Vec<T> h = load(high + tiles.lane(t)), l = load(low + tiles.lane(t));
    write_tile(out, [&](ptrdiff_t c, auto load) CROSSENT_LAMBDA {
      const auto v = load(p + c * kTileRows<T>, (T)0), of_g = load(g + c * kTileRows<T>, (T)0);
      return Formula::gradient(kKeeps ? v : Formula::probability(v), of_g, h, l);
    });
  }
  // The whole of it for columns where they lie, in tiles one after the other: of as many as `some` loads.
  template <class Load>
  static CROSSENT_INLINE void process_columns(ColumnPairs<T> columns, ptrdiff_t tiles, const Load& some) {
    for (; tiles > 0; --tiles, columns.next_tile()) {
      const HighAndLow<T> total = high_and_low(sum_of_columns(columns, some));
      ptrdiff_t c = 0;
      for (; kParts == 1 && c + 4 <= columns.classes; c += 4) write_columns<4>(columns, c, total, some);
      for (; c < columns.classes; ++c) write_columns<1>(columns, c, total, some);
    }
  }
  template <class Load>
  static CROSSENT_INLINE TileSum<T> sum_of_columns(const ColumnPairs<T>& columns, const Load& some) {
    const ptrdiff_t classes = columns.classes;
    const auto term = [&](ptrdiff_t c)
                          CROSSENT_LAMBDA { return Formula::term(some(columns.y(c), (T)0), some(columns.g(c), (T)0)); };
    const auto term_or_0 = [&](ptrdiff_t c) CROSSENT_LAMBDA { return c < classes ? term(c) : zero<T>(); };
    if constexpr (kParts < 4) {
      if (classes <= 2) return sum_short_tile<T, 2>(term_or_0);
      if (classes <= 4) return sum_short_tile<T, 4>(term_or_0);
      if (classes <= 8) return sum_short_tile<T, 8>(term_or_0);
    }
    TileSum<T> total;
    sum_tile<1>(&total, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA { return Terms<T, 1>{{term(c)}}; });
    return total;
  }
  // n classes from number c on.
  template <int n, class Load>
  static CROSSENT_INLINE void write_columns(const ColumnPairs<T>& columns, ptrdiff_t c, const HighAndLow<T>& total,
                                            const Load& some) {
    const auto y = each_of<T, n>([&](int k) CROSSENT_LAMBDA { return some(columns.y(c + k), (T)0); });
    const auto g = each_of<T, n>([&](int k) CROSSENT_LAMBDA { return some(columns.g(c + k), (T)0); });
    const auto results = Formula::gradient(Formula::probability(y), g, total.high, total.low);
    for (int k = 0; k < n; ++k) some.store_back(columns.out(c + k), results.of[k]);
  }
  CROSSENT_SHARED void rows_output(const RowGroup<T>& rows) const {
    if (!takes_rows_together<Backward>(rows.run)) {
      for (ptrdiff_t lane = 0; lane < rows.count; ++lane) row_output(rows, lane, rows.whole());
      return;
    }
    for (ptrdiff_t first = 0; first < rows.count; first += kTileRows<T>) {
      with_row_pairs(rows, first, [&](const auto& pairs) CROSSENT_LAMBDA {
        for (ptrdiff_t r = 0; r < pairs.count; ++r) {
          pairs.template write<Formula>(r, splat(high[first + r]), splat(low[first + r]));
        }
      });
    }
  }
  CROSSENT_INLINE void row_output(const RowGroup<T>& rows, ptrdiff_t lane, Part part) const {
    const RowInput<T> y = rows.input(lane), g = rows.second(lane);
    const Vec<T> h = splat(high[lane]), l = splat(low[lane]);
    write_row<Formula::kExponential>(rows.output(lane), part, [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
      const T *y_block = y.block(first, n), *g_block = g.block(first, n);
      return [=](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
        return Formula::gradient(Formula::probability(load(y_block + i, (T)0)), load(g_block + i, (T)0), h, l);
      };
    });
  }
};

// y * (g - sum(g * y)): 2.4 ULP of |y| * max(|g|, sum(|g * y|)) in either type, on the rows of tests/families.py.
template <class T>
struct SoftmaxGradient {
  static constexpr bool kExponential = false;
  static CROSSENT_INLINE Vec<T> term(Vec<T> y, Vec<T> g) { return y * g; }
  template <class V>
  static CROSSENT_INLINE V probability(const V& y) {
    return y;
  }
  template <class V>
  static CROSSENT_INLINE V gradient(const V& p, const V& g, Vec<T> h, Vec<T> l) {
    return p * ((g - h) - l);
  }
};

// g - exp(y) * sum(g): 0.9 and 0.7 ULP (float32, float64) of max(|g|, exp(y) * sum(|g|)) there; 1.2 and 0.7 without FMA.
template <class T>
struct LogSoftmaxGradient {
  static constexpr bool kExponential = true;
  static CROSSENT_INLINE Vec<T> term(Vec<T>, Vec<T> g) { return g; }
  // Log-probabilities are at most 0 (or a rounding above); the bias of exp allows 40, and larger ones are taken as 40.
  template <class V>
  static CROSSENT_INLINE V probability(const V& y) {
    const V raised = max_or_second(splat(ExpConstants<T>::floor), smaller(splat((T)40), y));
    return exp_biased<T>(raised) * splat((T)kUnbias<T>);
  }
  template <class V>
  static CROSSENT_INLINE V gradient(const V& p, const V& g, Vec<T> h, Vec<T> l) {
    return fma(zero<T>() - p, h, g - p * l);
  }
};

template <class T>
using SoftmaxBackward = Backward<T, SoftmaxGradient<T>>;
template <class T>
using LogSoftmaxBackward = Backward<T, LogSoftmaxGradient<T>>;
