// The k largest of a row, kept in a heap while the row is read: ties in favour of the lower index, NaN above all numbers.
#pragma once

// What no element of a row comes after: a heap starts with k of these.
constexpr TopEntry kNoEntry = {-__builtin_inf(), INT64_MAX};

CROSSENT_INLINE bool outranks(TopEntry a, TopEntry b) {
  const bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
  if (a_is_nan != b_is_nan) return a_is_nan;
  if (!a_is_nan && a.value != b.value) return a.value > b.value;
  return a.index < b.index;
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
CROSSENT_INLINE void push(TopEntry* heap, ptrdiff_t k, TopEntry entry) {
  if (outranks(entry, heap[0])) replace_least(heap, k, entry);
}
// From the most to the least.
CROSSENT_SHARED void sort_heap(TopEntry* heap, ptrdiff_t k) {
  for (ptrdiff_t last = k - 1; last > 0; --last) {
    const TopEntry entry = heap[last];
    heap[last] = heap[0];
    replace_least(heap, last, entry);
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

// A bound that the k largest of n elements exceed: just below the k-th largest of the vector lanes' maxima, or lower.
template <class T>
CROSSENT_SHARED T top_bound(const T* x, ptrdiff_t n, ptrdiff_t k) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const Vec<T> lowest = splat((T)-__builtin_inf());
  if (k > lanes) return -__builtin_inf();
  Vec<T> a = lowest, b = a;
  for (ptrdiff_t i = 0; i + 2 * lanes <= n; i += 2 * lanes) {
    a = max_or_second(load(x + i), a);
    b = max_or_second(load(x + i + lanes), b);
  }
  a = max_or_second(a, b);
  T largest = largest_lane(a);
  for (ptrdiff_t j = 1; j < k; ++j) {
    a = select(a == splat(largest), lowest, a);
    largest = largest_lane(a);
  }
  return next_below(largest);
}

// Pushes what of n elements, `first` and the following of a row, belongs to the k largest. `bound` as above, or -inf.
template <class T>
CROSSENT_SHARED void collect_top(const T* x, ptrdiff_t n, ptrdiff_t first, TopEntry* heap, ptrdiff_t k, T bound) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  T limit = (T)heap[0].value > bound ? (T)heap[0].value : bound;
  for (ptrdiff_t i = 0; i < n; i += 2 * lanes) {
    const Vec<T> at = splat(limit);
    uint32_t found;
    if (i + 2 * lanes <= n) {
      found = lane_bits(load(x + i) > at) | lane_bits(load(x + i + lanes) > at) << lanes;
    } else {
      found = 0;
      for (ptrdiff_t j = i; j < n; ++j) found |= (uint32_t)(x[j] > limit) << (j - i);
    }
    for (; found != 0; found &= found - 1) {
      const ptrdiff_t j = i + __builtin_ctz(found);
      if (!(x[j] > limit)) continue;
      push(heap, k, {x[j], first + j});
      if ((T)heap[0].value > limit) limit = (T)heap[0].value;
    }
  }
}

// The same for up to kSmallTop largest of a tile's rows, all rows at once: each class is inserted into sorted lists.
constexpr ptrdiff_t kSmallTop = 8;
template <class T>
CROSSENT_SHARED void tile_small_top(const T* tile, ptrdiff_t classes, ptrdiff_t k, T (*value)[kTileRows<T>],
                                    T (*index)[kTileRows<T>]) {
  for (ptrdiff_t j = 0; j < k; ++j) {
    store(value[j], splat((T)-__builtin_inf()));
    store(index[j], splat((T)-1));
  }
  for (ptrdiff_t c = 0; c < classes; ++c) {
    const Vec<T> fresh = load(tile + c * kTileRows<T>);
    if (lane_bits(fresh > load(value[k - 1])) == 0) continue;
    Vec<T> v = fresh, i = splat((T)c);
    for (ptrdiff_t j = 0; j < k; ++j) {
      const Vec<T> listed = load(value[j]), listed_index = load(index[j]);
      const Mask<T> moves = fresh > listed;  // and so do all that follow
      store(value[j], select(moves, v, listed));
      store(index[j], select(moves, i, listed_index));
      v = select(moves, listed, v);
      i = select(moves, listed_index, i);
    }
  }
}

// Fills what a heap lacks with the first -inf elements of a row; at(i) is its element i.
template <class At>
CROSSENT_INLINE void complete_top(ptrdiff_t classes, TopEntry* heap, ptrdiff_t k, At at) {
  for (ptrdiff_t i = 0; i < classes && heap[0].index == INT64_MAX; ++i) {
    const double value = at(i);
    if (value == -__builtin_inf()) push(heap, k, {value, i});
  }
}
