// Sums over the classes of a row. This file alone fixes the order of summation, the same for a row that lies contiguous
// (vectors along the classes) and for a tile (vectors across rows): element i belongs to lane i mod L (L = 16 floats or 8
// doubles); each lane adds its elements in groups of four, then the groups in double precision; then the lanes as a tree.
#pragma once

// Full vectors, and the last one of a row: loads that a sum's term calls without knowing which it is.
struct FullLoad {
  template <class S>
  CROSSENT_INLINE Vec<Compute<S>> operator()(const S* p, Compute<S>) const {
    return load(p);
  }
};
struct PartialLoad {
  ptrdiff_t count;
  template <class S>
  CROSSENT_INLINE Vec<Compute<S>> operator()(const S* p, Compute<S> fill) const {
    return load_partial(p, count, fill);
  }
};

template <class T>
struct LaneSum;

// float32: a group of four is added in float32, the groups in float64.
template <>
struct LaneSum<float> {
  Vec<double> low, high;
  CROSSENT_INLINE void clear() { low = high = zero<double>(); }
  CROSSENT_INLINE void add(Vec<float> group) {
    const Widened w = widen(group);
    low = low + w.low;
    high = high + w.high;
  }
  CROSSENT_INLINE void scale(Vec<double> factor) {
    low = low * factor;
    high = high * factor;
  }
  CROSSENT_INLINE Pair<double> total() const {
    double lane[8];
    store(lane, low + high);
    return {((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])), 0.0};
  }
};

// float64: a group of four is added in float64, the groups with a two-sum whose low parts are added up too.
template <>
struct LaneSum<double> {
  Vec<double> sum, rest;
  CROSSENT_INLINE void clear() { sum = rest = zero<double>(); }
  CROSSENT_INLINE void add(Vec<double> group) {
    const Pair<Vec<double>> s = two_sum(sum, group);
    sum = s.high;
    rest = rest + s.low;
  }
  CROSSENT_INLINE void scale(Vec<double> factor) {
    sum = sum * factor;
    rest = rest * factor;
  }
  CROSSENT_INLINE Pair<double> total() const {
    double high[8], low[8];
    store(high, sum);
    store(low, rest);
    for (int step = 4; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) {
        const Pair<double> s = two_sum(high[i], high[i + step]);
        high[i] = s.high;
        low[i] = (low[i] + low[i + step]) + s.low;
      }
    }
    return {high[0], low[0]};
  }
};

template <class T, int N>
struct Terms {
  Vec<T> term[N];
};

// Adds to `sums` the N terms of each of n contiguous elements; term(i, load) gives those of elements i, i + 1, …, i + L - 1
// and must be 0 in the lanes that load() fills.
template <int N, class T, class Term>
CROSSENT_INLINE void sum_row(LaneSum<T>* sums, ptrdiff_t n, Term&& term) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  ptrdiff_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const Terms<T, N> a = term(i, FullLoad{}), b = term(i + lanes, FullLoad{});
    const Terms<T, N> c = term(i + 2 * lanes, FullLoad{}), d = term(i + 3 * lanes, FullLoad{});
    for (int s = 0; s < N; ++s) sums[s].add((a.term[s] + b.term[s]) + (c.term[s] + d.term[s]));
  }
  if (i == n) return;
  Terms<T, N> part[4];
  for (int k = 0; k < 4; ++k) {
    for (int s = 0; s < N; ++s) part[k].term[s] = zero<T>();
  }
  for (int k = 0; i < n; ++k, i += lanes) {
    part[k] = n - i >= lanes ? term(i, FullLoad{}) : term(i, PartialLoad{n - i});
  }
  for (int s = 0; s < N; ++s) {
    sums[s].add((part[0].term[s] + part[1].term[s]) + (part[2].term[s] + part[3].term[s]));
  }
}

// The total of a tile's lane j, for as many rows as a vector has lanes.
template <class T>
struct TileSum;
template <>
struct TileSum<float> {
  Widened sum;
  CROSSENT_INLINE void clear() { sum.low = sum.high = zero<double>(); }
  CROSSENT_INLINE void add(Vec<float> group) {
    const Widened w = widen(group);
    sum.low = sum.low + w.low;
    sum.high = sum.high + w.high;
  }
  CROSSENT_INLINE void join(const TileSum& other) {
    sum.low = sum.low + other.sum.low;
    sum.high = sum.high + other.sum.high;
  }
  CROSSENT_INLINE void write(double* high, double* low) const {
    store(high, sum.low);
    store(high + 8, sum.high);
    store(low, zero<double>());
    store(low + 8, zero<double>());
  }
};
template <>
struct TileSum<double> {
  Vec<double> sum, rest;
  CROSSENT_INLINE void clear() { sum = rest = zero<double>(); }
  CROSSENT_INLINE void add(Vec<double> group) {
    const Pair<Vec<double>> s = two_sum(sum, group);
    sum = s.high;
    rest = rest + s.low;
  }
  CROSSENT_INLINE void join(const TileSum& other) {
    const Pair<Vec<double>> s = two_sum(sum, other.sum);
    sum = s.high;
    rest = (rest + other.rest) + s.low;
  }
  CROSSENT_INLINE void write(double* high, double* low) const {
    store(high, sum);
    store(low, rest);
  }
};

// The same sums for a tile: term(c) gives the N terms of class c of all rows; totals[s] the sums of the rows.
template <int N, class T, class Term>
CROSSENT_INLINE void sum_tile(TileSum<T>* totals, ptrdiff_t classes, Term&& term) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const ptrdiff_t used = classes < lanes ? classes : lanes;
  TileSum<T> lane[N][lanes];
  for (ptrdiff_t j = 0; j < used; ++j) {
    for (int s = 0; s < N; ++s) lane[s][j].clear();
    for (ptrdiff_t c = j; c < classes; c += 4 * lanes) {
      Terms<T, N> group = term(c);
      if (c + lanes < classes) {
        const Terms<T, N> b = term(c + lanes);
        for (int s = 0; s < N; ++s) group.term[s] = group.term[s] + b.term[s];
      }
      if (c + 2 * lanes < classes) {
        Terms<T, N> second = term(c + 2 * lanes);
        if (c + 3 * lanes < classes) {
          const Terms<T, N> d = term(c + 3 * lanes);
          for (int s = 0; s < N; ++s) second.term[s] = second.term[s] + d.term[s];
        }
        for (int s = 0; s < N; ++s) group.term[s] = group.term[s] + second.term[s];
      }
      for (int s = 0; s < N; ++s) lane[s][j].add(group.term[s]);
    }
  }
  for (ptrdiff_t step = lanes / 2; step > 0; step /= 2) {
    for (ptrdiff_t j = 0; j < step && j + step < used; ++j) {
      for (int s = 0; s < N; ++s) lane[s][j].join(lane[s][j + step]);
    }
  }
  for (int s = 0; s < N; ++s) totals[s] = lane[s][0];
}
