// The k largest of a row, kept while the row is read: ties in favour of the lower index, NaN above all numbers. Up to kSmallTop
// they are a list from the most to the least; more are a heap, until they are sorted.
#pragma once

constexpr ptrdiff_t kSmallTop = 16;

// What no element of a row comes after: to begin with there are k of these.
constexpr TopEntry kNoEntry = {-__builtin_inf(), INT64_MAX};

CROSSENT_INLINE bool outranks(TopEntry a, TopEntry b) {
  const bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
  if (a_is_nan != b_is_nan) return a_is_nan;
  if (!a_is_nan && a.value != b.value) return a.value > b.value;
  return a.index < b.index;
}

CROSSENT_INLINE ptrdiff_t least_place(ptrdiff_t k) { return k <= kSmallTop ? k - 1 : 0; }
// The least value among them.
template <class T>
CROSSENT_INLINE T least(const TopEntry* top, ptrdiff_t k) {
  return (T)top[least_place(k)].value;
}

// In a heap of k entries no entry outranks those below it, so that heap[0] is the least: puts another one in its place.
CROSSENT_SHARED void replace_least(TopEntry* heap, ptrdiff_t k, TopEntry entry) {
  ptrdiff_t hole = 0;
  for (ptrdiff_t child = 1; child < k; child = 2 * hole + 1) {
    if (child + 1 < k && outranks(heap[child], heap[child + 1])) ++child;
    if (!outranks(entry, heap[child])) break;
    heap[hole] = heap[child];
    hole = child;
  }
  heap[hole] = entry;
}
CROSSENT_SHARED void push(TopEntry* top, ptrdiff_t k, TopEntry entry) {
  if (!outranks(entry, top[least_place(k)])) return;
  if (k > kSmallTop) return replace_least(top, k, entry);
  ptrdiff_t place = k - 1;
  for (; place > 0 && outranks(entry, top[place - 1]); --place) top[place] = top[place - 1];
  top[place] = entry;
}
// The same for a number larger than the least, after all those of lower indices.
CROSSENT_INLINE void push_larger(TopEntry* top, ptrdiff_t k, double value, int64_t index) {
  if (k > kSmallTop) return replace_least(top, k, {value, index});
  ptrdiff_t place = k - 1;
  for (; place > 0 && value > top[place - 1].value; --place) top[place] = top[place - 1];
  top[place] = {value, index};
}
// From the most to the least.
CROSSENT_SHARED void sort_top(TopEntry* top, ptrdiff_t k) {
  if (k <= kSmallTop) return;
  ptrdiff_t i = 1;
  while (i < k && !outranks(top[i - 1], top[i])) ++i;
  if (i == k) {  // the heap is a list from the least to the most
    for (ptrdiff_t j = 0; j < k / 2; ++j) {
      const TopEntry entry = top[j];
      top[j] = top[k - 1 - j];
      top[k - 1 - j] = entry;
    }
    return;
  }
  for (ptrdiff_t last = k - 1; last > 0; --last) {
    const TopEntry entry = top[last];
    top[last] = top[0];
    replace_least(top, last, entry);
  }
}

// The largest number below a float or double, so that x >= a is x > next_below(a); -inf and NaN stay as they are.
template <class T>
CROSSENT_INLINE T next_below(T a) {
  using Bits = typename NativeOf<T>::integer;
  if (!(a > -(T)__builtin_inf())) return a;
  if (a == 0) return -(sizeof(T) == 4 ? (T)__FLT_DENORM_MIN__ : (T)__DBL_DENORM_MIN__);
  return bit_cast<T>((Bits)(bit_cast<Bits>(a) + (a > 0 ? -1 : 1)));
}

// A bound that at least k elements of a block exceed: just below the k-th largest of the maxima of its groups, which are taken
// together in four times as many as a vector has lanes.
template <class T>
CROSSENT_SHARED T top_bound(const BlockMaxima<T>& maxima, ptrdiff_t groups, ptrdiff_t k) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const Vec<T> lowest = splat((T)-__builtin_inf());
  Vec<T> best[4] = {lowest, lowest, lowest, lowest};
  for (ptrdiff_t g = 0; g < groups; g += 4) {
    for (ptrdiff_t j = 0; j < 4; ++j) {
      if (g + j < groups) best[j] = max_or_second(load(maxima.of_group + (g + j) * lanes), best[j]);
    }
  }
  T largest = -__builtin_inf();
  for (ptrdiff_t i = 0; i < k; ++i) {
    largest = largest_lane(max_or_second(max_or_second(best[0], best[1]), max_or_second(best[2], best[3])));
    if (!(largest > -__builtin_inf())) break;
    for (Vec<T>& some : best) some = select(some == splat(largest), lowest, some);
  }
  return next_below(largest);
}

// Pushes those of the elements x[i + j], with the bits j in `found`, that exceed the limit, which grows with them.
template <class T>
CROSSENT_INLINE void push_found(const T* x, ptrdiff_t i, uint64_t found, ptrdiff_t first, TopEntry* top, ptrdiff_t k,
                                T& limit) {
  for (; found != 0; found &= found - 1) {
    const ptrdiff_t j = i + __builtin_ctzll(found);
    if (!(x[j] > limit)) continue;
    push_larger(top, k, x[j], first + j);
    if (least<T>(top, k) > limit) limit = least<T>(top, k);
  }
}
// Pushes what of a block's n elements, `first` and the following of a row, belongs to the k largest. Groups are passed over by
// their maxima, 64 at a time without a branch.
template <class T>
CROSSENT_SHARED void collect_top(const T* x, ptrdiff_t n, ptrdiff_t first, const BlockMaxima<T>& maxima, TopEntry* top,
                                 ptrdiff_t k) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const ptrdiff_t groups = n / kGroupElements<T>;
  T limit = first == 0 ? top_bound(maxima, groups, k) : least<T>(top, k);
  for (ptrdiff_t some = 0; some < groups; some += 64) {
    uint64_t found = 0;
    for (ptrdiff_t g = some; g < groups && g < some + 64; ++g) {
      found |= (uint64_t)any_less(splat(limit), load(maxima.of_group + g * lanes)) << (g - some);
    }
    for (; found != 0; found &= found - 1) {
      const ptrdiff_t i = (some + __builtin_ctzll(found)) * kGroupElements<T>;
      uint64_t larger = 0;
      for (ptrdiff_t v = 0; v < 4; ++v) larger |= (uint64_t)lane_bits(load(x + i + v * lanes) > splat(limit)) << (v * lanes);
      push_found(x, i, larger, first, top, k, limit);
    }
  }
  for (ptrdiff_t i = groups * kGroupElements<T>; i < n; i += lanes) {
    const Vec<T> v = n - i >= lanes ? load(x + i) : load_partial(x + i, n - i, (T)-__builtin_inf());
    push_found(x, i, lane_bits(v > splat(limit)), first, top, k, limit);
  }
}

// The same for a tile's rows, all rows at once: each class is inserted into sorted lists.
template <class T>
CROSSENT_SHARED void tile_top_lists(const T* tile, ptrdiff_t classes, ptrdiff_t k, T (*value)[kTileRows<T>],
                                    T (*index)[kTileRows<T>]) {
  for (ptrdiff_t j = 0; j < k; ++j) {
    store(value[j], splat((T)-__builtin_inf()));
    store(index[j], splat((T)-1));
  }
  for (ptrdiff_t c = 0; c < classes; ++c) {
    const Vec<T> fresh = load(tile + c * kTileRows<T>);
    if (lane_bits(fresh > load(value[k - 1])) == 0) continue;
    Vec<T> v = fresh, i = splat((T)c);
    for (ptrdiff_t j = 0; j < k && j <= c; ++j) {
      const Vec<T> listed = load(value[j]), listed_index = load(index[j]);
      const Mask<T> moves = fresh > listed;  // and so do all that follow
      store(value[j], select(moves, v, listed));
      store(index[j], select(moves, i, listed_index));
      v = select(moves, listed, v);
      i = select(moves, listed_index, i);
    }
  }
}

// Fills what is lacking with the first -inf elements of a row; at(i) is its element i.
template <class At>
CROSSENT_INLINE void complete_top(ptrdiff_t classes, TopEntry* top, ptrdiff_t k, At at) {
  for (ptrdiff_t i = 0; i < classes && top[least_place(k)].index == INT64_MAX; ++i) {
    const double value = at(i);
    if (value == -__builtin_inf()) push(top, k, {value, i});
  }
}
