// Sums over the classes of a row. This file alone fixes the order of summation, the same for a row that lies contiguous
// (vectors along the classes) and for a tile (vectors across rows): element i belongs to lane i mod L (L = 16 floats or 8
// doubles); each lane adds its elements in groups of four; of floats, lanes i and i + 8 are added too; then come the groups, in
// double precision; then the 8 lanes as a tree.
#pragma once

// Full vectors, and the last one of a row: loads that a sum's term calls without knowing which it is.
struct FullLoad {
  template <class T>
  CROSSENT_INLINE Vec<T> operator()(const T* p, T) const {
    return load(p);
  }
  template <class T>
  CROSSENT_INLINE void store_back(T* p, Vec<T> a) const {
    store(p, a);
  }
  template <class T>
  CROSSENT_INLINE Vec<T> only(Vec<T> v) const {
    return v;
  }
};
struct PartialLoad {
  ptrdiff_t count;
  template <class T>
  CROSSENT_INLINE Vec<T> operator()(const T* p, T fill) const {
    return load_partial(p, count, fill);
  }
  template <class T>
  CROSSENT_INLINE void store_back(T* p, Vec<T> a) const {
    store_partial(p, count, a);
  }
  // v in the row's lanes, 0 in those beyond it.
  template <class T>
  CROSSENT_INLINE Vec<T> only(Vec<T> v) const {
    T lane[Vec<T>::kLanes];
    store(lane, v);
    return load_partial(lane, count, (T)0);
  }
};

template <class T>
struct LaneSum;

template <>
struct LaneSum<float> {
  Vec<double> sum;
  CROSSENT_INLINE void clear() { sum = zero<double>(); }
  CROSSENT_INLINE void add(Vec<float> group) { sum = sum + widen_folded(group); }
  CROSSENT_INLINE void scale(Vec<double> factor) { sum = sum * factor; }
  CROSSENT_INLINE Pair<double> total() const { return {sum_of_lanes(sum), 0.0}; }
};

// The groups are added with a two-sum whose low parts are added up too.
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
  CROSSENT_SHARED Pair<double> total() const {
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

  CROSSENT_INLINE Terms operator+(const Terms& other) const {
    Terms r;
    for (int s = 0; s < N; ++s) r.term[s] = term[s] + other.term[s];
    return r;
  }
};

// The sum of four vectors' terms from element i on, and that of the fewer at the end of a row: term(i, load) gives the terms of
// elements i, i + 1, …, i + L - 1 and must be 0 in the lanes that load() fills.
template <int N, class T, class Term>
CROSSENT_INLINE Terms<T, N> group_of_four(ptrdiff_t i, Term&& term) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const Terms<T, N> a = term(i, FullLoad{}), b = term(i + lanes, FullLoad{});
  const Terms<T, N> c = term(i + 2 * lanes, FullLoad{}), d = term(i + 3 * lanes, FullLoad{});
  return (a + b) + (c + d);
}
template <int N, class T, class Term>
CROSSENT_INLINE Terms<T, N> last_group(ptrdiff_t i, ptrdiff_t n, Term&& term) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  Terms<T, N> part[4];
  for (int k = 0; k < 4; ++k) {
    for (int s = 0; s < N; ++s) part[k].term[s] = zero<T>();
  }
  for (int k = 0; i < n; ++k, i += lanes) {
    part[k] = n - i >= lanes ? term(i, FullLoad{}) : term(i, PartialLoad{n - i});
  }
  return (part[0] + part[1]) + (part[2] + part[3]);
}

// Adds to `sums` the N terms of each of n contiguous elements.
template <int N, class T, class Term>
CROSSENT_INLINE void sum_row(LaneSum<T>* sums, ptrdiff_t n, Term&& term) {
  constexpr ptrdiff_t group = 4 * Vec<T>::kLanes;
  LaneSum<T> lanes[N];  // not in memory: the stores of a term may alias it
  for (int s = 0; s < N; ++s) lanes[s] = sums[s];
  ptrdiff_t i = 0;
  for (; i + group <= n; i += group) {
    const Terms<T, N> terms = group_of_four<N, T>(i, term);
    for (int s = 0; s < N; ++s) lanes[s].add(terms.term[s]);
  }
  if (i < n) {
    const Terms<T, N> terms = last_group<N, T>(i, n, term);
    for (int s = 0; s < N; ++s) lanes[s].add(terms.term[s]);
  }
  for (int s = 0; s < N; ++s) sums[s] = lanes[s];
}

// The total of a tile's lane, for as many rows as a vector has lanes.
template <class T>
struct TileSum;
template <>
struct TileSum<float> {
  Widened sum;
  CROSSENT_INLINE void clear() { sum.low = sum.high = zero<double>(); }
  CROSSENT_INLINE void set(Vec<float> group) { sum = widen(group); }
  CROSSENT_INLINE void set(Vec<double> low, Vec<double> high) { sum = {low, high}; }
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
  CROSSENT_INLINE void set(Vec<double> group) {
    sum = group;
    rest = zero<double>();
  }
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

// The terms of classes c, c + L, c + 2 * L and c + 3 * L of a tile, added.
template <int N, class T, class Term>
CROSSENT_INLINE Terms<T, N> tile_group_of_four(ptrdiff_t c, ptrdiff_t classes, Term&& term) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  Terms<T, N> group = term(c);
  if (c + lanes < classes) group = group + term(c + lanes);
  if (c + 2 * lanes < classes) {
    Terms<T, N> second = term(c + 2 * lanes);
    if (c + 3 * lanes < classes) second = second + term(c + 3 * lanes);
    group = group + second;
  }
  return group;
}

// The sum of a tile's lanes, of which there are `used`.
template <class T>
CROSSENT_INLINE TileSum<T> joined(TileSum<T>* lane, ptrdiff_t used) {
  for (ptrdiff_t step = 4; step > 0; step /= 2) {
    for (ptrdiff_t j = 0; j < step && j + step < used; ++j) lane[j].join(lane[j + step]);
  }
  return lane[0];
}

struct NothingElse {
  CROSSENT_INLINE void operator()(ptrdiff_t) const {}
};

// The same sums for a tile: term(c) gives the N terms of class c of all rows; totals[s] the sums of the rows. Now and then
// meanwhile(computed) is called, with how many classes came since the last time.
template <int N, class T, class Term, class Meanwhile = NothingElse>
CROSSENT_INLINE void sum_tile(TileSum<T>* totals, ptrdiff_t classes, Term&& term, Meanwhile&& meanwhile = {}) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const ptrdiff_t used = classes < 8 ? classes : 8;
  TileSum<T> lane[N][8];
  for (ptrdiff_t first = 0; first < classes; first += 4 * lanes) {
    for (ptrdiff_t j = 0; j < used && first + j < classes; ++j) {
      const ptrdiff_t c = first + j;
      Terms<T, N> group = tile_group_of_four<N, T>(c, classes, term);
      if (lanes > 8 && c + 8 < classes) group = group + tile_group_of_four<N, T>(c + 8, classes, term);
      for (int s = 0; s < N; ++s) {
        if (first == 0) {
          lane[s][j].set(group.term[s]);
        } else {
          lane[s][j].add(group.term[s]);
        }
      }
      meanwhile(between(1, (classes - c + 7) / 8, 4 * lanes / 8));
    }
  }
  for (int s = 0; s < N; ++s) totals[s] = joined(lane[s], used);
}

// The same for a tile of at most kShortTile classes, padded to so many with classes whose term is 0: no loop, no sums in
// memory.
constexpr ptrdiff_t kShortTile = 16;
template <class T, class Term>
CROSSENT_INLINE TileSum<T> sum_short_tile(Term&& term) {
  const auto lane = [&](ptrdiff_t c) CROSSENT_LAMBDA {
    TileSum<T> sum;
    sum.set(term(c) + term(c + 8));
    return sum;
  };
  const auto pair = [&](ptrdiff_t c) CROSSENT_LAMBDA {
    TileSum<T> sum = lane(c);
    sum.join(lane(c + 4));
    return sum;
  };
  TileSum<T> even = pair(0), odd = pair(1);
  even.join(pair(2));
  odd.join(pair(3));
  even.join(odd);
  return even;
}

// The sum of results of rows as a pair.
inline void sum_of_rows(const double* values, ptrdiff_t count, double* high, double* low) {
  LaneSum<double> lanes;
  lanes.clear();
  ptrdiff_t i = 0;
  for (; i + 8 <= count; i += 8) lanes.add(load(values + i));
  if (i < count) lanes.add(load_partial(values + i, count - i, 0.0));
  const Pair<double> total = lanes.total();
  *high = total.high;
  *low = total.low;
}
