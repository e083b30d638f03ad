// Sums over the classes of a row. This file alone fixes the order of summation, the same for a row that lies contiguous
// (vectors along the classes) and for a tile (vectors across rows): element i belongs to lane i mod L (L = 16 floats or 8
// doubles); each lane adds its elements in groups of four; of floats, lanes i and i + 8 are added too; then come the groups, in
// double precision; then the 8 lanes as a tree.
#pragma once

// Full vectors, and the last one of a row: loads that a sum's term calls without knowing which it is. Elements of 16 bits are
// converted; other lanes of theirs are 0, not `fill`.
struct FullLoad {
  template <class S>
  CROSSENT_INLINE Vec<Compute<S>> operator()(const S* p, Compute<S>) const {
    return load(p);
  }
  template <class S>
  CROSSENT_INLINE void store_back(S* p, Vec<Compute<S>> a) const {
    store(p, a);
  }
};
struct PartialLoad {
  ptrdiff_t count;
  template <class S>
  CROSSENT_INLINE Vec<Compute<S>> operator()(const S* p, Compute<S> fill) const {
    if constexpr (sizeof(S) == sizeof(fill)) {
      return load_partial(p, count, fill);
    } else {
      return load_some(p, count);
    }
  }
  template <class S>
  CROSSENT_INLINE void store_back(S* p, Vec<Compute<S>> a) const {
    if constexpr (sizeof(S) == sizeof(Compute<S>)) {
      store_partial(p, count, a);
    } else {
      store_some(p, count, a);
    }
  }
};

// Four vectors of a row, and the last ones, fewer or not full.
struct FourLoad {
  template <class S>
  CROSSENT_INLINE Four<Compute<S>> operator()(const S* p, Compute<S>) const {
    return load_four(p);
  }
  template <class S>
  CROSSENT_INLINE void store_back(S* p, const Four<Compute<S>>& a) const {
    store_four(p, a);
  }
};
struct PartialFourLoad {
  ptrdiff_t count;
  template <class T>
  CROSSENT_INLINE Four<T> operator()(const T* p, T fill) const {
    return each_of_four<T>([&](int k) CROSSENT_LAMBDA { return of_vector<T>(k)(p + k * Vec<T>::kLanes, fill); });
  }
  template <class T>
  CROSSENT_INLINE void store_back(T* p, const Four<T>& a) const {
    for (int k = 0; k < 4; ++k) of_vector<T>(k).store_back(p + k * Vec<T>::kLanes, a.of[k]);
  }
  template <class T>
  CROSSENT_INLINE PartialLoad of_vector(int k) const {
    return {between(0, count - k * Vec<T>::kLanes, Vec<T>::kLanes)};
  }
};

// A term that is added with next to no rounding, within its group too: floats as doubles, doubles with what additions round
// off.
template <class T>
struct Precise;
template <>
struct Precise<float> {
  Widened value;
  CROSSENT_INLINE Precise operator+(const Precise& other) const {
    return {{value.low + other.value.low, value.high + other.value.high}};
  }
};
template <>
struct Precise<double> {
  Pair<Vec<double>> value;
  CROSSENT_INLINE Precise operator+(const Precise& other) const {
    const Pair<Vec<double>> s = two_sum(value.high, other.value.high);
    return {{s.high, (value.low + other.value.low) + s.low}};
  }
};

template <class T>
struct LaneSum;

template <>
struct LaneSum<float> {
  Vec<double> sum;
  static CROSSENT_INLINE LaneSum none() { return {zero<double>()}; }
  CROSSENT_INLINE void clear() { sum = zero<double>(); }
  CROSSENT_INLINE void add(Vec<float> group) { sum = sum + widen_folded(group); }
  CROSSENT_INLINE void add(const Precise<float>& group) { sum = sum + (group.value.low + group.value.high); }
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
  CROSSENT_INLINE void add(const Precise<double>& group) {
    const Pair<Vec<double>> s = two_sum(sum, group.value.high);
    sum = s.high;
    rest = rest + (s.low + group.value.low);
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

// What is summed of a vector of elements: N terms.
template <class T, int N, class Term = Vec<T>>
struct Terms {
  static constexpr int kTerms = N;
  Term term[N];

  CROSSENT_INLINE Terms operator+(const Terms& other) const {
    Terms r;
    for (int s = 0; s < N; ++s) r.term[s] = term[s] + other.term[s];
    return r;
  }
};
template <class T>
CROSSENT_INLINE void clear(Vec<T>& term) {
  term = zero<T>();
}
CROSSENT_INLINE void clear(Precise<float>& term) { term.value.low = term.value.high = zero<double>(); }
CROSSENT_INLINE void clear(Precise<double>& term) { term.value.low = term.value.high = zero<double>(); }

// Their sums over the classes, in the lanes of a row or for the rows of a tile.
template <class Sum, int N>
struct Sums {
  Sum of[N];

  CROSSENT_INLINE void clear() {
    for (int s = 0; s < N; ++s) of[s].clear();
  }
  template <class Group>
  CROSSENT_INLINE void add(const Group& group) {
    for (int s = 0; s < N; ++s) of[s].add(group.term[s]);
  }
  template <class Group>
  CROSSENT_INLINE void set(const Group& group) {
    for (int s = 0; s < N; ++s) of[s].set(group.term[s]);
  }
  CROSSENT_INLINE void join(const Sums& other) {
    for (int s = 0; s < N; ++s) of[s].join(other.of[s]);
  }
};

template <class T>
CROSSENT_INLINE Vec<T> sum_of(const Four<T>& a) {
  return (a.of[0] + a.of[1]) + (a.of[2] + a.of[3]);
}
// The sum of four vectors' terms from element i on, and that of the fewer at the end of a row: term(i, load) gives the terms of
// elements i, i + 1, …, i + L - 1 and must be 0 in the lanes that load() fills.
template <int N, class T, class Term>
CROSSENT_INLINE auto group_of_four(ptrdiff_t i, Term&& term) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const auto a = term(i, FullLoad{}), b = term(i + lanes, FullLoad{});
  const auto c = term(i + 2 * lanes, FullLoad{}), d = term(i + 3 * lanes, FullLoad{});
  static_assert(decltype(a)::kTerms == N, "");
  return (a + b) + (c + d);
}
template <int N, class T, class Term>
CROSSENT_INLINE auto last_group(ptrdiff_t i, ptrdiff_t n, Term&& term) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  decltype(term(i, FullLoad{})) part[4];
  static_assert(decltype(part[0] + part[1])::kTerms == N, "");
  for (int k = 0; k < 4; ++k) {
    for (int s = 0; s < N; ++s) clear(part[k].term[s]);
  }
  for (int k = 0; i < n; ++k, i += lanes) {
    part[k] = n - i >= lanes ? term(i, FullLoad{}) : term(i, PartialLoad{n - i});
  }
  return (part[0] + part[1]) + (part[2] + part[3]);
}

// Adds to `sums` the N terms of each of n contiguous elements.
template <int N, class T, class RowSums, class Term>
CROSSENT_INLINE void sum_row(RowSums& sums, ptrdiff_t n, Term&& term) {
  constexpr ptrdiff_t group = 4 * Vec<T>::kLanes;
  RowSums lanes = sums;  // not in memory: the stores of a term may alias it
  ptrdiff_t i = 0;
  for (; i + group <= n; i += group) lanes.add(group_of_four<N, T>(i, term));
  if (i < n) lanes.add(last_group<N, T>(i, n, term));
  sums = lanes;
}

// The total of a tile's lane, for as many rows as a vector has lanes.
template <class T>
struct TileSum;
template <>
struct TileSum<float> {
  Widened sum;
  CROSSENT_INLINE void set(Vec<float> group) { sum = widen(group); }
  CROSSENT_INLINE void set(Vec<double> low, Vec<double> high) { sum = {low, high}; }
  CROSSENT_INLINE void set(const Precise<float>& group) { sum = group.value; }
  CROSSENT_INLINE void add(Vec<float> group) {
    const Widened w = widen(group);
    sum.low = sum.low + w.low;
    sum.high = sum.high + w.high;
  }
  CROSSENT_INLINE void add(const Precise<float>& group) {
    sum.low = sum.low + group.value.low;
    sum.high = sum.high + group.value.high;
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
  CROSSENT_INLINE void set(Vec<double> group) {
    sum = group;
    rest = zero<double>();
  }
  CROSSENT_INLINE void set(const Precise<double>& group) {
    sum = group.value.high;
    rest = group.value.low;
  }
  CROSSENT_INLINE void add(Vec<double> group) {
    const Pair<Vec<double>> s = two_sum(sum, group);
    sum = s.high;
    rest = rest + s.low;
  }
  CROSSENT_INLINE void add(const Precise<double>& group) {
    const Pair<Vec<double>> s = two_sum(sum, group.value.high);
    sum = s.high;
    rest = rest + (s.low + group.value.low);
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

// Classes of a tile that are summed before the next are: the groups of all lanes.
template <class T>
constexpr ptrdiff_t kTileBlock = 4 * Vec<T>::kLanes;

// The terms of classes c, c + L, c + 2 * L and c + 3 * L of a tile, added.
template <class T, class Term>
CROSSENT_INLINE auto tile_group_of_four(ptrdiff_t c, ptrdiff_t classes, Term&& term) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  auto group = term(c);
  if (c + lanes < classes) group = group + term(c + lanes);
  if (c + 2 * lanes < classes) {
    auto second = term(c + 2 * lanes);
    if (c + 3 * lanes < classes) second = second + term(c + 3 * lanes);
    group = group + second;
  }
  return group;
}

// The sum of a tile's lanes, of which there are `used`.
template <class Sum>
CROSSENT_INLINE Sum joined(Sum* lane, ptrdiff_t used) {
  for (ptrdiff_t step = 4; step > 0; step /= 2) {
    for (ptrdiff_t j = 0; j < step && j + step < used; ++j) lane[j].join(lane[j + step]);
  }
  return lane[0];
}

struct NothingBefore {
  CROSSENT_INLINE void operator()(ptrdiff_t, ptrdiff_t) const {}
};

// The same sums for a tile: term(c) gives the terms of class c of all rows, `total` becomes the sums of the rows. Before the n
// classes from `first` on are asked for, before(first, n) is called.
template <class T, class TileSums, class Term, class Before = NothingBefore>
CROSSENT_INLINE void sum_terms_of_tile(TileSums& total, ptrdiff_t classes, Term&& term, Before&& before = {}) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes, most = kTileBlock<T>;
  TileSums lane[8];
  for (ptrdiff_t first = 0; first < classes; first += most) {
    const ptrdiff_t n = classes - first < most ? classes - first : most;
    before(first, n);
    const auto term_of_block = [&](ptrdiff_t c) CROSSENT_LAMBDA { return term(first + c); };
    for (ptrdiff_t j = 0; j < 8 && j < n; ++j) {
      auto group = tile_group_of_four<T>(j, n, term_of_block);
      if (lanes > 8 && j + 8 < n) group = group + tile_group_of_four<T>(j + 8, n, term_of_block);
      if (first == 0) {
        lane[j].set(group);
      } else {
        lane[j].add(group);
      }
    }
  }
  total = joined(lane, classes < 8 ? classes : 8);
}
template <int N, class T, class Term, class Before = NothingBefore>
CROSSENT_INLINE void sum_tile(TileSum<T>* totals, ptrdiff_t classes, Term&& term, Before&& before = {}) {
  Sums<TileSum<T>, N> sums;
  sum_terms_of_tile<T>(sums, classes, term, before);
  for (int s = 0; s < N; ++s) totals[s] = sums.of[s];
}

// The same for a tile of at most kMost classes, padded to so many with classes whose term is 0: no loop, no sums in memory.
// Sums of nothing but padding are left out, which changes no bit.
constexpr ptrdiff_t kShortTile = 16;
template <class T, ptrdiff_t kMost, class Term>
CROSSENT_INLINE TileSum<T> sum_short_tile(Term&& term) {
  const auto lane = [&](ptrdiff_t c) CROSSENT_LAMBDA {
    TileSum<T> sum;
    sum.set(c + 8 < kMost ? term(c) + term(c + 8) : term(c));
    return sum;
  };
  const auto pair = [&](ptrdiff_t c) CROSSENT_LAMBDA {
    TileSum<T> sum = lane(c);
    if constexpr (kMost > 4) sum.join(lane(c + 4));
    return sum;
  };
  TileSum<T> even = pair(0), odd = pair(1);
  if constexpr (kMost > 2) {
    even.join(pair(2));
    odd.join(pair(3));
  }
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
