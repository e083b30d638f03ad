// The gradients of softmax and log_softmax, given the forward result y and the gradient g with respect to it.
#pragma once

template <class S, class O>
struct BackwardBase {
  using In = S;      // y
  using Second = S;  // g
  using Out = O;
  using Value = Compute<S>;
  using T = Value;
  static constexpr int kInputs = 2;
  static constexpr bool kOutput = true;
  static constexpr bool kKeep = false;
  double sum[kGroup<T>], sum_low[kGroup<T>];
  alignas(kVectorBytes) T high[kGroup<T>], low[kGroup<T>];

  CROSSENT_INLINE explicit BackwardBase(const Run&) {}
  CROSSENT_INLINE void begin(ptrdiff_t, ptrdiff_t) {}
  CROSSENT_INLINE bool live(ptrdiff_t) const { return true; }
  // `term` gives what is summed of a class from y and g.
  template <class Term>
  CROSSENT_INLINE void sum_over_tile(const T* y, const T* g, ptrdiff_t classes, Term term) {
    TileSum<T> total;
    sum_tile<1>(&total, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
      return Terms<T, 1>{{term(load(y + c * kGroup<T>), load(g + c * kGroup<T>))}};
    });
    total.write(sum, sum_low);
  }
  template <class Term>
  CROSSENT_INLINE void sum_over_row(ptrdiff_t lane, const S* y, const S* g, ptrdiff_t classes, Term term) {
    LaneSum<T> lanes;
    lanes.clear();
    sum_row<1>(&lanes, classes, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
      return Terms<T, 1>{{term(load(y + i, (T)0), load(g + i, (T)0))}};
    });
    const Pair<double> total = lanes.total();
    sum[lane] = total.high;
    sum_low[lane] = total.low;
  }
  CROSSENT_SHARED void finish(ptrdiff_t count) {
    for (ptrdiff_t lane = 0; lane < count; ++lane) {
      const double value = sum[lane] + sum_low[lane];
      high[lane] = (T)value;
      low[lane] = sizeof(T) == 8 ? (T)((sum[lane] - value) + sum_low[lane]) : (T)(value - (double)high[lane]);
      if (!(low[lane] == low[lane])) low[lane] = 0;  // an infinite sum
    }
  }
};

// y * (g - sum(g * y))
template <class S, class O>
struct SoftmaxBackward : BackwardBase<S, O> {
  using Base = BackwardBase<S, O>;
  using T = typename Base::Value;
  using Base::Base;
  using Base::high;
  using Base::low;

  static CROSSENT_INLINE Vec<T> product(Vec<T> y, Vec<T> g) { return y * g; }
  CROSSENT_SHARED void tile_step(T* y, T* g, ptrdiff_t classes) { this->sum_over_tile(y, g, classes, product); }
  CROSSENT_SHARED void row_step(ptrdiff_t lane, const S* y, const S* g, ptrdiff_t classes, T*) {
    this->sum_over_row(lane, y, g, classes, product);
  }
  CROSSENT_SHARED void tile_output(T* y, const T* g, ptrdiff_t classes) const {
    const Vec<T> h = load(high), l = load(low);
    write_tile(y, classes,
               [&](ptrdiff_t c) CROSSENT_LAMBDA { return load(y + c * kGroup<T>) * ((load(g + c * kGroup<T>) - h) - l); });
  }
  CROSSENT_SHARED void row_output(ptrdiff_t lane, const S* y, const S* g, ptrdiff_t classes, const T*, O* out) const {
    const Vec<T> h = splat(high[lane]), l = splat(low[lane]);
    write_row(out, classes,
              [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA { return load(y + i, (T)0) * ((load(g + i, (T)0) - h) - l); });
  }
};

// g - exp(y) * sum(g)
template <class S, class O>
struct LogSoftmaxBackward : BackwardBase<S, O> {
  using Base = BackwardBase<S, O>;
  using T = typename Base::Value;
  using Base::Base;
  using Base::high;
  using Base::low;

  static CROSSENT_INLINE Vec<T> gradient(Vec<T>, Vec<T> g) { return g; }
  // Log-probabilities are at most 0 (or a rounding above); the bias of exp allows 40, and larger ones are taken as 40.
  static CROSSENT_INLINE Vec<T> element(Vec<T> y, Vec<T> g, Vec<T> h, Vec<T> l) {
    const Vec<T> limit = splat((T)40);
    const Vec<T> e = exp_of_difference(select(y > limit, limit, y), zero<T>()) * splat((T)kUnbias<T>);
    return fma(zero<T>() - e, h, g - e * l);
  }
  CROSSENT_SHARED void tile_step(T* y, T* g, ptrdiff_t classes) { this->sum_over_tile(y, g, classes, gradient); }
  CROSSENT_SHARED void row_step(ptrdiff_t lane, const S* y, const S* g, ptrdiff_t classes, T*) {
    this->sum_over_row(lane, y, g, classes, gradient);
  }
  CROSSENT_SHARED void tile_output(T* y, const T* g, ptrdiff_t classes) const {
    const Vec<T> h = load(high), l = load(low);
    write_tile(y, classes,
               [&](ptrdiff_t c) CROSSENT_LAMBDA { return element(load(y + c * kGroup<T>), load(g + c * kGroup<T>), h, l); });
  }
  CROSSENT_SHARED void row_output(ptrdiff_t lane, const S* y, const S* g, ptrdiff_t classes, const T*, O* out) const {
    const Vec<T> h = splat(high[lane]), l = splat(low[lane]);
    write_row(out, classes,
              [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA { return element(load(y + i, (T)0), load(g + i, (T)0), h, l); });
  }
};
