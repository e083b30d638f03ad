// KL divergence of two softmaxes, and its gradient, as operations of the group loop.
//
// With a = (x - max) / T of either row, e = exp(a) and L = log(sum(e)):
//   KL(p || q) = sum(e_p * (a_p - a_q)) / sum(e_p) + (L_q - L_p)        d KL / d q's logits = (softmax_q - softmax_p) / T
// Equal rows give exactly 0: every term does.
#pragma once

template <class Load>
constexpr bool kFills = false;
template <>
constexpr bool kFills<PartialLoad> = true;

// What differences of logits are multiplied by: 1 / temperature, as a pair, and its larger part in two halves.
template <class T>
struct Tempering {
  static constexpr T splitter = sizeof(T) == 4 ? (T)0x1p12 + 1 : (T)0x1p27 + 1;
  Vec<T> high, low, upper, lower;
  CROSSENT_INLINE explicit Tempering(Pair<double> inverse) {
    const T h = (T)inverse.high, up = h * splitter - (h * splitter - h);
    high = splat(h);
    low = splat((T)((inverse.high - (double)h) + inverse.low));
    upper = splat(up);
    lower = splat((T)(h - up));
  }
};

// (x - m) / T with its rounding error, that of the product by Dekker's method where there is no FMA. Without kTempered T = 1;
// the bits for T = 1 are the same either way.
template <bool kTempered, class T>
CROSSENT_INLINE Pair<Vec<T>> tempered_difference(Vec<T> x, Vec<T> m, const Tempering<T>& t) {
  const Pair<Vec<T>> d = two_sum(x, zero<T>() - m);
  if constexpr (!kTempered) return d;
  const Vec<T> scaled = d.high * t.high;
  Vec<T> lost;
  if constexpr (kHasFma) {
    lost = fma(d.high, t.high, zero<T>() - scaled);
  } else {
    const Vec<T> shifted = d.high * splat(t.splitter), upper = shifted - (shifted - d.high), lower = d.high - upper;
    lost = ((upper * t.upper - scaled) + upper * t.lower + lower * t.upper) + lower * t.lower;
  }
  return {scaled, lost + (d.high * t.low + d.low * t.high)};
}

// Rows whose third sum is not finite are read once more with log-ratios times this, so small that no sum of such products of
// exponentials (up to 2**bias) and log-ratios (up to twice the largest number) overflows: what is infinite then is so.
template <class T>
constexpr T kShrink = sizeof(T) == 4 ? (T)0x1p-70 : (T)0x1p-180;

CROSSENT_INLINE bool is_finite(double a) { return a - a == 0; }

// The sums of both rows, block by block as in MomentSum; sum 0 is p's, 1 is q's, 2 that of e_p * (a_p - a_q), or, if shrunk, of
// e_p * T * (a_p - a_q) * kShrink.
template <class T>
struct DivergenceSum {
  Tempering<T> tempering;
  Pair<double> inverse;
  bool shrunk;
  T p_max = -__builtin_inf(), q_max = p_max;
  double p_ties = 0, q_ties = 0;
  LaneSum<T> lanes[3];
  Pair<double> former[3] = {{0, 0}, {0, 0}, {0, 0}};
  bool impossible = false;  // a class of p that q excludes

  CROSSENT_INLINE DivergenceSum(Pair<double> inverse_temperature, bool shrink)
      : tempering(inverse_temperature), inverse(inverse_temperature), shrunk(shrink) {
    for (auto& sum : lanes) sum.clear();
  }

  CROSSENT_INLINE Pair<double> total(int which) const { return pair_sum(former[which], lanes[which].total()); }
  Pair<double> p_mass() const {
    return p_max > -__builtin_inf() ? pair_sum(total(0), {p_ties / kUnbias<T>, 0}) : Pair<double>{0, 0};
  }
  CROSSENT_INLINE bool finite() const { return !impossible && is_finite(total(2).high); }
  // The change of a when a larger maximum takes the place of another.
  Pair<double> step(double from, double to) const {
    const Pair<double> change = pair_product(two_sum(from, -to), inverse);
    return is_finite(change.high) ? change : Pair<double>{-__builtin_inf(), 0};
  }
  // And that of the log-ratios.
  Pair<double> ratio_step(double from, double to) const {
    return shrunk ? two_sum(from * kShrink<T>, -to * kShrink<T>) : step(from, to);
  }

  // Both at once: where both grow alike, the third sum must not move by a single bit.
  CROSSENT_SHARED void grow_to(T p_block_max, T q_block_max) {
    const bool p_grows = p_block_max > p_max, q_grows = q_block_max > q_max;
    if (!p_grows && !q_grows) return;
    Pair<double> p_step{0, 0}, q_step{0, 0}, p_ratio_step{0, 0}, q_ratio_step{0, 0};
    if (p_grows && p_max > -__builtin_inf()) {
      p_step = step((double)p_max, (double)p_block_max);
      p_ratio_step = ratio_step((double)p_max, (double)p_block_max);
    }
    if (q_grows && q_max > -__builtin_inf()) {
      q_step = step((double)q_max, (double)q_block_max);
      q_ratio_step = ratio_step((double)q_max, (double)q_block_max);
    }
    const Pair<double> steps = pair_sum(p_ratio_step, {-q_ratio_step.high, -q_ratio_step.low});
    former[2] = pair_sum(total(2), pair_product(p_mass(), steps));
    lanes[2].clear();
    if (former[2].high == __builtin_inf()) {
      impossible = true;
      former[2] = {0, 0};
    }
    if (p_grows) {
      const Pair<double> factor = exp_pair(p_step.high, -p_step.low);
      former[2] = pair_product(former[2], factor);
      move_up(0, p_max, p_ties, p_block_max, factor);
    }
    if (q_grows) move_up(1, q_max, q_ties, q_block_max, exp_pair(q_step.high, -q_step.low));
  }
  CROSSENT_INLINE void move_up(int which, T& max, double& ties, T block_max, Pair<double> factor) {
    if (max > -__builtin_inf()) {
      former[which] = pair_product(pair_sum(total(which), {ties / kUnbias<T>, 0}), factor);
      lanes[which].clear();
    }
    max = block_max;
    ties = 0;
  }

  // Without kCareful a NaN need not come through: it makes the third sum NaN, and the block is done again.
  template <bool kCareful>
  static CROSSENT_INLINE Vec<T> divergence_exp(const Pair<Vec<T>>& d) {
    if constexpr (kCareful) return exp_of(d);
    return select(d.high >= splat(ExpConstants<T>::floor), exp_biased(d), zero<T>());
  }
  // kCareful: logits may be -inf, and differences overflow.
  template <bool kTempered, bool kCareful>
  static CROSSENT_INLINE Terms<T, 3> terms(Vec<T> p, Vec<T> q, Vec<T> p_top, Vec<T> q_top, const Tempering<T>& tempering,
                                           bool shrunk, Vec<T>& p_at_max, Vec<T>& q_at_max) {
    const Vec<T> none = zero<T>(), one = splat((T)1), infinite = splat((T)__builtin_inf()), lowest = none - infinite;
    const Vec<T> p_origin = select(p_top > lowest, p_top, none), q_origin = select(q_top > lowest, q_top, none);
    Pair<Vec<T>> a = tempered_difference<kTempered>(p, p_origin, tempering);
    Pair<Vec<T>> b = tempered_difference<kTempered>(q, q_origin, tempering);
    const Vec<T> e = divergence_exp<kCareful>(a), f = divergence_exp<kCareful>(b);
    if constexpr (kCareful) {
      if (shrunk) {
        const Vec<T> shrink = splat(kShrink<T>);
        a = two_sum(p * shrink, none - p_origin * shrink);
        b = two_sum(q * shrink, none - q_origin * shrink);
      }
    }
    const Vec<T> difference = a.high - b.high;
    Vec<T> low = a.low - b.low;
    if constexpr (kCareful) low = select(low == low, low, none);
    Vec<T> term = e * (difference + low);
    if constexpr (kCareful) {
      term = select(e == none, none, term);
      term = select(q == lowest, select(p == lowest, none, infinite), term);
    }
    const Mask<T> p_is_max = p == p_top, q_is_max = q == q_top;
    p_at_max = p_at_max + select(p_is_max, one, none);
    q_at_max = q_at_max + select(q_is_max, one, none);
    return {{select(p_is_max, none, e), select(q_is_max, none, f), term}};
  }
  static CROSSENT_SHARED void careful_terms(const Vec<T>& p, const Vec<T>& q, const Vec<T>& p_top, const Vec<T>& q_top,
                                            const Tempering<T>& tempering, bool shrunk, Vec<T>& p_at_max, Vec<T>& q_at_max,
                                            Terms<T, 3>& result) {
    result = terms<true, true>(p, q, p_top, q_top, tempering, shrunk, p_at_max, q_at_max);
  }

  template <bool kTempered, bool kCareful>
  CROSSENT_SHARED void add_terms(const T* p, const T* q, ptrdiff_t n) {
    const Vec<T> p_top = splat(p_max), q_top = splat(q_max);
    const Tempering<T> t = tempering;
    const T lowest = -__builtin_inf();
    Vec<T> p_at_max = zero<T>(), q_at_max = p_at_max;
    sum_row<3>(lanes, n, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
      const Vec<T> x = load(p + i, lowest), y = load(q + i, lowest);
      if constexpr (kCareful || kFills<decltype(load)>) {
        Terms<T, 3> result;
        careful_terms(x, y, p_top, q_top, t, shrunk, p_at_max, q_at_max, result);
        return result;
      } else {
        return terms<kTempered, false>(x, y, p_top, q_top, t, false, p_at_max, q_at_max);
      }
    });
    p_ties += sum_of_lanes(p_at_max);
    q_ties += sum_of_lanes(q_at_max);
  }
  CROSSENT_SHARED void add_block(const T* p, const T* q, ptrdiff_t n) {
    if (shrunk) return add_terms<true, true>(p, q, n);
    const DivergenceSum before = *this;
    if (inverse.high == 1 && inverse.low == 0) {
      add_terms<false, false>(p, q, n);
    } else {
      add_terms<true, false>(p, q, n);
    }
    if (is_finite(lanes[2].total().high)) return;
    *this = before;
    add_terms<true, true>(p, q, n);
  }
};

// The divergence of rows.
template <class T>
struct DivergenceTerms {
  using Value = T;
  static constexpr int kInputs = 2;
  static constexpr bool skips = false;

  const DivergenceRun& run;
  ptrdiff_t first_row = 0;
  GroupStatistics<T> p_statistics, q_statistics;
  double moment[kGroupRows<T>] = {}, moment_low[kGroupRows<T>] = {};  // the third sums
  double unit[kGroupRows<T>] = {};                                    // what they are multiplied by
  Scale<T> p_scale, q_scale;

  CROSSENT_INLINE explicit DivergenceTerms(const DivergenceRun& r) : run(r), p_statistics{}, q_statistics{} {
    fill(p_statistics.shift, kGroupRows<T>, 1.0);
    fill(q_statistics.shift, kGroupRows<T>, 1.0);
  }
  CROSSENT_INLINE void begin(ptrdiff_t first, ptrdiff_t) { first_row = first; }
  CROSSENT_INLINE bool live(ptrdiff_t) const { return true; }
  CROSSENT_INLINE Pair<double> inverse() const { return {run.inverse_temperature, run.inverse_temperature_low}; }

  CROSSENT_SHARED void read_block(DivergenceSum<T>& row, const T* p, const T* q, ptrdiff_t n) const {
    row.grow_to(block_largest(p, n), block_largest(q, n));
    row.add_block(p, q, n);
  }
  CROSSENT_SHARED void end_row(const DivergenceSum<T>& row, ptrdiff_t lane) {
    const Pair<double> moments = row.total(2);
    set(p_statistics, lane, row.p_max, row.p_ties, row.total(0));
    set(q_statistics, lane, row.q_max, row.q_ties, row.total(1));
    moment[lane] = row.impossible ? __builtin_inf() : moments.high;
    moment_low[lane] = moments.low;
    unit[lane] = unit_of(row.shrunk);
  }
  CROSSENT_INLINE double unit_of(bool shrunk) const {
    return shrunk ? kUnbias<T> / (double)kShrink<T> * run.inverse_temperature : kUnbias<T>;
  }
  static CROSSENT_INLINE void set(GroupStatistics<T>& statistics, ptrdiff_t lane, T max, double ties, Pair<double> sum) {
    statistics.max[lane] = max;
    statistics.ties[lane] = ties;
    statistics.sum[lane] = sum.high;
    statistics.sum_low[lane] = sum.low;
  }

  CROSSENT_SHARED void row_step(ptrdiff_t lane, RowInput<T> p, RowInput<T> q, ptrdiff_t classes, T*) {
    DivergenceSum<T> row(inverse(), false);
    read_row(row, p, q, classes);
    if (!row.finite()) {
      row = DivergenceSum<T>(inverse(), true);
      read_row(row, p, q, classes);
    }
    end_row(row, lane);
  }
  CROSSENT_SHARED void read_row(DivergenceSum<T>& row, RowInput<T> p, RowInput<T> q, ptrdiff_t classes) const {
    for (ptrdiff_t first = 0; first < classes; first += kBlock<T>) {
      const ptrdiff_t n = classes - first < kBlock<T> ? classes - first : kBlock<T>;
      read_block(row, p.block(first, n), q.block(first, n), n);
    }
  }

  CROSSENT_SHARED void tile_step(const Tiles<T>& tiles) {
    Tiles<T> second = tiles;
    second.logits = tiles.second;
    tile_maxima(tiles, p_statistics.max);
    tile_maxima(second, q_statistics.max);
    for (ptrdiff_t t = 0; t < tiles.count; ++t) {
      add_tile(tiles.logits + t * tiles.size, tiles.second + t * tiles.size, tiles.lane(t), tiles.classes);
    }
  }
  CROSSENT_SHARED void add_tile(const T* p, const T* q, ptrdiff_t lane, ptrdiff_t classes) {
    sum_terms(p, q, lane, classes, false, moment + lane, moment_low + lane);
    fill(unit + lane, kTileRows<T>, unit_of(false));
    bool finite = true;
    for (ptrdiff_t r = lane; r < lane + kTileRows<T>; ++r) finite = finite && is_finite(moment[r]);
    if (finite) return;
    double shrunk[kTileRows<T>], shrunk_low[kTileRows<T>];
    sum_terms(p, q, lane, classes, true, shrunk, shrunk_low);
    for (ptrdiff_t r = 0; r < kTileRows<T>; ++r) {
      if (is_finite(moment[lane + r])) continue;
      moment[lane + r] = shrunk[r];
      moment_low[lane + r] = shrunk_low[r];
      unit[lane + r] = unit_of(true);
    }
  }
  CROSSENT_SHARED void sum_terms(const T* p, const T* q, ptrdiff_t lane, ptrdiff_t classes, bool shrunk, double* high,
                                 double* low) {
    const Vec<T> p_top = load(p_statistics.max + lane), q_top = load(q_statistics.max + lane);
    const Tempering<T> tempering(inverse());
    Vec<T> p_at_max = zero<T>(), q_at_max = p_at_max;
    TileSum<T> sums[3];
    sum_tile<3>(sums, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
      Terms<T, 3> result;
      DivergenceSum<T>::careful_terms(load(p + c * kTileRows<T>), load(q + c * kTileRows<T>), p_top, q_top, tempering, shrunk,
                                      p_at_max, q_at_max, result);
      return result;
    });
    store_as_double(p_statistics.ties + lane, p_at_max);
    store_as_double(q_statistics.ties + lane, q_at_max);
    sums[0].write(p_statistics.sum + lane, p_statistics.sum_low + lane);
    sums[1].write(q_statistics.sum + lane, q_statistics.sum_low + lane);
    sums[2].write(high, low);
  }

  // The divergences of a group, and what the gradient multiplies exponentials with.
  CROSSENT_SHARED void finish(ptrdiff_t count, ptrdiff_t lanes) {
    const Vec<double> none = zero<double>(), infinite = splat(__builtin_inf()), factor = splat(run.gradient_scale);
    for (ptrdiff_t lane = 0; lane < lanes; lane += 8) {
      const Totals p = totals(p_statistics, lane), q = totals(q_statistics, lane);
      const Pair<Vec<double>> p_inverse = inverse_sum<T>(p), q_inverse = inverse_sum<T>(q);
      const Mask<double> valid = p.valid & q.valid;
      const Vec<double> moments = load(moment + lane), low = select(moments < infinite, load(moment_low + lane), none);
      const Vec<double> cross = (moments + low) * p_inverse.high * load(unit + lane);
      const Vec<double> divergence = cross + (log_sum<T>(q) - log_sum<T>(p));
      double result[8];
      store(result, select(valid, select(divergence > none, divergence, none), splat((double)__builtin_nan(""))));
      for (ptrdiff_t i = 0; i < 8 && lane + i < count; ++i) run.result[first_row + lane + i] = result[i];
      p_scale.set(lane, only_where<T>(valid, scaled(p_inverse, factor)), p_statistics);
      q_scale.set(lane, only_where<T>(valid, scaled(q_inverse, factor)), q_statistics);
    }
  }
  static CROSSENT_INLINE Pair<Vec<double>> scaled(const Pair<Vec<double>>& a, Vec<double> factor) {
    const Vec<double> high = a.high * factor;
    return {high, product_error(a.high, factor) + a.low * factor};
  }

  // The gradient of some classes; both products are rounded alike, so that equal rows give exactly 0.
  template <class Rows>
  CROSSENT_INLINE auto element(Rows rows) const {
    const auto p_part = p_scale.template pick<false>(rows), q_part = q_scale.template pick<false>(rows);
    const Vec<T> p_top = rows(p_statistics.max), q_top = rows(q_statistics.max);
    const Tempering<T> tempering(inverse());
    return [=](Vec<T> p, Vec<T> q) CROSSENT_LAMBDA {
      const Vec<T> e = exp_of(tempered_difference<true>(p, p_top, tempering));
      const Vec<T> f = exp_of(tempered_difference<true>(q, q_top, tempering));
      return q_part(f) - p_part(e);
    };
  }
};

template <class T>
struct Divergence : DivergenceTerms<T> {
  static constexpr bool kOutput = false;
  using DivergenceTerms<T>::DivergenceTerms;
};

template <class T>
struct DivergenceGradient : DivergenceTerms<T> {
  static constexpr bool kOutput = true;
  using DivergenceTerms<T>::DivergenceTerms;

  CROSSENT_SHARED void tile_output(const Tiles<T>& tiles, ptrdiff_t t, T* out) const {
    const T *p = tiles.logits + t * tiles.size, *q = tiles.second + t * tiles.size;
    const auto gradient = this->element(TileOfRows<T>{tiles.lane(t)});
    write_tile(out, tiles.classes,
               [&](ptrdiff_t c) CROSSENT_LAMBDA { return gradient(load(p + c * kTileRows<T>), load(q + c * kTileRows<T>)); });
  }
  CROSSENT_SHARED void row_output(ptrdiff_t lane, RowInput<T> p, RowInput<T> q, ptrdiff_t classes, const T*,
                                  RowOutput<T> out) const {
    const auto gradient = this->element(OneRow<T>{lane});
    write_row(out, classes, [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
      const T *x = p.block(first, n), *y = q.block(first, n);
      return [=](ptrdiff_t i, auto load) CROSSENT_LAMBDA { return gradient(load(x + i, (T)0), load(y + i, (T)0)); };
    });
  }
};
