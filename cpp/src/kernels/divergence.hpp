// KL divergence of two softmaxes, and its gradient, as operations of the group loop.
//
// With a = (x - max) / T of either row, e = exp(a) and L = log(sum(e)):
//   KL(p || q) = sum(e_p * (a_p - a_q)) / sum(e_p) + (L_q - L_p)        d KL / d q's logits = (softmax_q - softmax_p) / T
// Equal rows give exactly 0: every term does.
#pragma once

// What differences of logits are multiplied by: 1 / temperature, as a pair, and its larger part in two halves.
template <class T>
struct Tempering {
  static constexpr T splitter = sizeof(T) == 4 ? (T)0x1p12 + 1 : (T)0x1p27 + 1;
  Vec<T> high, low, upper, lower;
  bool is_one;  // T = 1: nothing to do, and the same bits as if it were done
  CROSSENT_INLINE explicit Tempering(Pair<double> inverse) : is_one(inverse.high == 1 && inverse.low == 0) {
    const T h = (T)inverse.high, up = h * splitter - (h * splitter - h);
    high = splat(h);
    low = splat((T)((inverse.high - (double)h) + inverse.low));
    upper = splat(up);
    lower = splat((T)(h - up));
  }
};

// (x - m) / T with its rounding error, that of the product by Dekker's method where there is no FMA.
template <class T>
CROSSENT_INLINE Pair<Vec<T>> tempered_difference(Vec<T> x, Vec<T> m, const Tempering<T>& t) {
  const Pair<Vec<T>> d = two_sum(x, zero<T>() - m);
  if (t.is_one) return d;
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

// The exponential of a difference that is known with its rounding error.
template <class T>
CROSSENT_INLINE Vec<T> exp_of(Pair<Vec<T>> d) {
  return select(d.high >= splat(ExpConstants<T>::floor), exp_biased(d), max_or_second(zero<T>(), d.high));
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
    if (!(p_max > -__builtin_inf()) && !(q_max > -__builtin_inf())) {  // the first numbers: nothing to scale
      if (p_grows) p_max = p_block_max, p_ties = 0;
      if (q_grows) q_max = q_block_max, q_ties = 0;
      return;
    }
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

  // The terms where the logits are finite and no maxima, and nothing overflows; else the third may be NaN.
  static CROSSENT_INLINE Terms<T, 3> ordinary_terms(Vec<T> p, Vec<T> q, Vec<T> p_top, Vec<T> q_top,
                                                    const Tempering<T>& tempering) {
    const Pair<Vec<T>> a = tempered_difference(p, p_top, tempering), b = tempered_difference(q, q_top, tempering);
    const auto exponential = [](Pair<Vec<T>> d) CROSSENT_LAMBDA {  // 0 at the floor
      d.high = max_or_second(splat(ExpConstants<T>::floor), d.high);
      return exp_biased(d);
    };
    const Vec<T> e = exponential(a);
    return {{e, exponential(b), e * ((a.high - b.high) + (a.low - b.low))}};
  }
  // For any logits.
  static CROSSENT_SHARED void careful_terms(const Vec<T>& p, const Vec<T>& q, const Vec<T>& p_top, const Vec<T>& q_top,
                                            const Tempering<T>& tempering, bool shrunk, Vec<T>& p_at_max, Vec<T>& q_at_max,
                                            Terms<T, 3>& result) {
    const Vec<T> none = zero<T>(), one = splat((T)1), infinite = splat((T)__builtin_inf()), lowest = none - infinite;
    const Vec<T> p_origin = select(p_top > lowest, p_top, none), q_origin = select(q_top > lowest, q_top, none);
    Pair<Vec<T>> a = tempered_difference(p, p_origin, tempering), b = tempered_difference(q, q_origin, tempering);
    const Vec<T> e = exp_of(a), f = exp_of(b);
    if (shrunk) {
      const Vec<T> shrink = splat(kShrink<T>);
      a = two_sum(p * shrink, none - p_origin * shrink);
      b = two_sum(q * shrink, none - q_origin * shrink);
    }
    const Vec<T> low = a.low - b.low;
    Vec<T> term = e * ((a.high - b.high) + select(low == low, low, none));
    term = select(e == none, none, term);
    term = select(q == lowest, select(p == lowest, none, infinite), term);
    const Mask<T> p_is_max = p == p_top, q_is_max = q == q_top;
    p_at_max = select(p_is_max, p_at_max + one, p_at_max);
    q_at_max = select(q_is_max, q_at_max + one, q_at_max);
    result = {{select(p_is_max, none, e), select(q_is_max, none, f), term}};
  }
  // The terms of a group of n elements.
  CROSSENT_SHARED void careful_group(const T* p, const T* q, ptrdiff_t n, Terms<T, 3>& result) {
    const Vec<T> p_top = splat(p_max), q_top = splat(q_max);
    const T lowest = -__builtin_inf();
    Vec<T> p_at_max = zero<T>(), q_at_max = p_at_max;
    result = last_group<3, T>(0, n, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
      Terms<T, 3> terms;
      careful_terms(load(p + i, lowest), load(q + i, lowest), p_top, q_top, tempering, shrunk, p_at_max, q_at_max, terms);
      return terms;
    });
    p_ties += sum_of_lanes(p_at_max);
    q_ties += sum_of_lanes(q_at_max);
  }

  CROSSENT_SHARED void add_terms(const T* p, const T* q, ptrdiff_t n, const BlockMaxima<T>* maxima, const ReadAhead* ahead,
                                 bool careful) {
    const Vec<T> p_top = splat(p_max), q_top = splat(q_max);
    const Tempering<T> t = tempering;
    LaneSum<T> sums[3] = {lanes[0], lanes[1], lanes[2]};
    const auto add = [&](const Terms<T, 3>& group) CROSSENT_LAMBDA {
      for (int k = 0; k < 3; ++k) sums[k].add(group.term[k]);
    };
    const auto is_ordinary = [&](ptrdiff_t i) CROSSENT_LAMBDA {
      return i + kGroupElements<T> <= n && !careful && !maxima[0].group_holds(i, p_top) && !maxima[1].group_holds(i, q_top);
    };
    for (ptrdiff_t i = 0; i < n; i += kGroupElements<T>) {
      for (; is_ordinary(i); i += kGroupElements<T>) {
        ahead[0].fetch(i);
        ahead[1].fetch(i);
        add(group_of_four<3, T>(i, [&](ptrdiff_t j, auto load) CROSSENT_LAMBDA {
          return ordinary_terms(load(p + j, (T)0), load(q + j, (T)0), p_top, q_top, t);
        }));
      }
      if (i >= n) break;
      Terms<T, 3> group;
      careful_group(p + i, q + i, between(0, n - i, kGroupElements<T>), group);
      add(group);
    }
    for (int k = 0; k < 3; ++k) lanes[k] = sums[k];
  }
  CROSSENT_SHARED void add_block(const T* p, const T* q, ptrdiff_t n, const BlockMaxima<T>* maxima, const ReadAhead* ahead) {
    const DivergenceSum before = *this;
    add_terms(p, q, n, maxima, ahead, shrunk);
    if (shrunk || is_finite(lanes[2].total().high)) return;
    *this = before;
    add_terms(p, q, n, maxima, ahead, true);
  }
};

// The divergence of rows.
template <class T>
struct DivergenceTerms {
  using Value = T;
  static constexpr int kInputs = 2;
  static constexpr bool skips = false, kTogether = false, kLight = false, kInTurns = false;

  const DivergenceRun& run;
  ptrdiff_t first_row = 0;
  GroupStatistics<T> p_statistics, q_statistics;
  double moment[kGroupRows<T>], moment_low[kGroupRows<T>];  // the third sums
  double unit[kGroupRows<T>];                               // what they are multiplied by
  Scale<T> p_scale, q_scale;

  CROSSENT_INLINE explicit DivergenceTerms(const DivergenceRun& r) : run(r) {
    p_statistics.clear(r.rows);
    q_statistics.clear(r.rows);
    clear_rows<T>(r.rows, moment, moment_low, unit);
  }
  CROSSENT_INLINE void begin(ptrdiff_t first, ptrdiff_t) { first_row = first; }
  CROSSENT_INLINE bool live(ptrdiff_t) const { return true; }
  CROSSENT_INLINE Pair<double> inverse() const { return {run.inverse_temperature, run.inverse_temperature_low}; }

  CROSSENT_SHARED void read_block(DivergenceSum<T>& row, const T* p, const T* q, ptrdiff_t n, const ReadAhead* ahead) const {
    BlockMaxima<T> maxima[2];
    maxima[0].find(p, n);
    maxima[1].find(q, n);
    row.grow_to(maxima[0].largest, maxima[1].largest);
    row.add_block(p, q, n, maxima, ahead);
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

  CROSSENT_SHARED void row_step(const RowGroup<T>& rows, ptrdiff_t lane) {
    DivergenceSum<T> row(inverse(), false);
    read_row(row, rows, lane);
    if (!row.finite()) {
      row = DivergenceSum<T>(inverse(), true);
      read_row(row, rows, lane);
    }
    end_row(row, lane);
  }
  CROSSENT_SHARED void read_row(DivergenceSum<T>& row, const RowGroup<T>& rows, ptrdiff_t lane) const {
    const RowInput<T> p = rows.input(lane), q = rows.second(lane);
    const ptrdiff_t classes = rows.run.classes;
    for (ptrdiff_t first = 0; first < classes; first += kBlock<T>) {
      const ptrdiff_t n = classes - first < kBlock<T> ? classes - first : kBlock<T>;
      const ReadAhead ahead[2] = {p.ahead(first + kBlock<T>), q.ahead(first + kBlock<T>)};
      read_block(row, p.block(first, n), q.block(first, n), n, ahead);
    }
  }

  CROSSENT_SHARED void tile_step(const Tiles<T>& tiles) {
    copy_maxima(tiles, tiles.maxima, p_statistics.max);
    copy_maxima(tiles, tiles.second_maxima, q_statistics.max);
    for (ptrdiff_t t = 0; t < tiles.count; ++t) add_tile(tiles, t);
  }
  CROSSENT_SHARED void add_tile(const Tiles<T>& tiles, ptrdiff_t t) {
    const ptrdiff_t lane = tiles.lane(t);
    sum_terms(tiles, t, false, moment + lane, moment_low + lane);
    fill(unit + lane, kTileRows<T>, unit_of(false));
    bool finite = true;
    for (ptrdiff_t r = lane; r < lane + kTileRows<T>; ++r) finite = finite && is_finite(moment[r]);
    if (finite) return;
    double shrunk[kTileRows<T>], shrunk_low[kTileRows<T>];
    sum_terms(tiles, t, true, shrunk, shrunk_low);
    for (ptrdiff_t r = 0; r < kTileRows<T>; ++r) {
      if (is_finite(moment[lane + r])) continue;
      moment[lane + r] = shrunk[r];
      moment_low[lane + r] = shrunk_low[r];
      unit[lane + r] = unit_of(true);
    }
  }
  CROSSENT_SHARED void sum_terms(const Tiles<T>& tiles, ptrdiff_t t, bool shrunk, double* high, double* low) {
    const T *p = tiles.logits + t * tiles.size, *q = tiles.second + t * tiles.size;
    const ptrdiff_t lane = tiles.lane(t);
    const Vec<T> p_top = load(p_statistics.max + lane), q_top = load(q_statistics.max + lane);
    const Tempering<T> tempering(inverse());
    Vec<T> p_at_max = zero<T>(), q_at_max = p_at_max;
    TileSum<T> sums[3];
    const auto term = [&](ptrdiff_t c) CROSSENT_LAMBDA {
      if (tiles.distant) tiles.prefetch_far(t * tiles.classes + c, 1);  // all at once would be waited for
      Terms<T, 3> result;
      DivergenceSum<T>::careful_terms(load(p + c * kTileRows<T>), load(q + c * kTileRows<T>), p_top, q_top, tempering, shrunk,
                                      p_at_max, q_at_max, result);
      return result;
    };
    sum_tile<3>(sums, tiles.classes, term, [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
      if (!tiles.distant) tiles.prefetch(t * tiles.classes + first, n);
      tiles.work_on_columns(n);
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
    p_scale.find_bounds(lanes);
    q_scale.find_bounds(lanes);
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
      const Vec<T> e = exp_of(tempered_difference(p, p_top, tempering));
      const Vec<T> f = exp_of(tempered_difference(q, q_top, tempering));
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

  template <class Output>
  CROSSENT_INLINE void tile_output(const Tiles<T>& tiles, ptrdiff_t t, const Output& out) const {
    const T *p = tiles.logits + t * tiles.size, *q = tiles.second + t * tiles.size;
    const auto gradient = this->element(TileOfRows<T>{tiles.lane(t)});
    write_tile(out, [&](ptrdiff_t c, auto)
                        CROSSENT_LAMBDA { return gradient(load(p + c * kTileRows<T>), load(q + c * kTileRows<T>)); });
  }
  CROSSENT_SHARED void row_output(const RowGroup<T>& rows, ptrdiff_t lane, Part part) const {
    const RowInput<T> p = rows.input(lane), q = rows.second(lane);
    T gradient[kBlock<T> + kTileRows<T>];
    write_row<false>(rows.output(lane), part, [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
      fill_gradient(lane, p.block(first, n), q.block(first, n), n, gradient);
      const T* filled = gradient;
      return [=](ptrdiff_t i, auto) CROSSENT_LAMBDA { return load(filled + i); };
    });
  }
  // The gradient of n elements of a row, up to the end of the last vector. Written from there: write_row's loops would each
  // hold the formula, a third of all kernels' code.
  CROSSENT_SHARED void fill_gradient(ptrdiff_t lane, const T* p, const T* q, ptrdiff_t n, T* out) const {
    constexpr ptrdiff_t lanes = Vec<T>::kLanes;
    const auto gradient = this->element(OneRow<T>{lane});
    ptrdiff_t i = 0;
    for (; i + lanes <= n; i += lanes) store(out + i, gradient(load(p + i), load(q + i)));
    if (i == n) return;
    T last_p[lanes], last_q[lanes];
    store(last_p, load_partial(p + i, n - i, (T)0));
    store(last_q, load_partial(q + i, n - i, (T)0));
    fill_gradient(lane, last_p, last_q, lanes, out + i);
  }
};
