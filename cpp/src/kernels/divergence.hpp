// KL divergence of two softmaxes, and its gradient, as operations of the group loop.
//
// With a = (x - max) / T of either row, e = exp(a) and L = log(sum(e)):
//   KL(p || q) = sum(e_p * (a_p - a_q)) / sum(e_p) + (L_q - L_p)        d KL / d q's logits = (softmax_q - softmax_p) / T
// Equal rows give exactly 0: every term does.
#pragma once

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
