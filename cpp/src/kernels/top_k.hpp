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

template <class T>
CROSSENT_INLINE bool any(Mask<T> mask) {
  typename Mask<T>::Native all = mask.part[0];
  for (int i = 1; i < kParts; ++i) all = all | mask.part[i];
  uint64_t word[kNativeBytes / 8], seen = 0;
  __builtin_memcpy(word, &all, sizeof word);
  for (uint64_t w : word) seen |= w;
  return seen != 0;
}

// The largest number below a float or double, so that x >= a is x > next_below(a); -inf and NaN stay as they are.
template <class T>
CROSSENT_INLINE T next_below(T a) {
  using Bits = typename NativeOf<T>::integer;
  if (!(a > -(T)__builtin_inf())) return a;
  if (a == 0) return -(sizeof(T) == 4 ? (T)__FLT_DENORM_MIN__ : (T)__DBL_DENORM_MIN__);
  return bit_cast<T>((Bits)(bit_cast<Bits>(a) + (a > 0 ? -1 : 1)));
}

// A bound that the k largest of n elements exceed: just below the k-th largest of the vector lanes' maxima; -inf for more.
template <class T>
CROSSENT_SHARED T top_bound(const T* x, ptrdiff_t n, ptrdiff_t k) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const T lowest = -__builtin_inf();
  if (k > lanes) return lowest;
  Vec<T> a = splat(lowest), b = a;
  ptrdiff_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    a = max_or_second(load(x + i), a);
    b = max_or_second(load(x + i + lanes), b);
  }
  T lane[lanes];
  store(lane, max_or_second(a, b));
  for (ptrdiff_t j = 0; j < k; ++j) {
    for (ptrdiff_t l = j + 1; l < lanes; ++l) {
      if (!(lane[l] > lane[j])) continue;
      const T larger = lane[l];
      lane[l] = lane[j];
      lane[j] = larger;
    }
  }
  return next_below(lane[k - 1]);
}

// Pushes what of n elements, `first` and the following of a row, belongs to the k largest. `bound` as above, or -inf.
template <class T>
CROSSENT_SHARED void collect_top(const T* x, ptrdiff_t n, ptrdiff_t first, TopEntry* heap, ptrdiff_t k, T bound) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const T lowest = -__builtin_inf();
  T limit = (T)heap[0].value > bound ? (T)heap[0].value : bound;
  for (ptrdiff_t i = 0; i < n; i += 4 * lanes) {
    Vec<T> v[4];
    for (int j = 0; j < 4; ++j) {
      const ptrdiff_t at = i + j * lanes, left = n - at;
      v[j] = left >= lanes ? load(x + at) : left > 0 ? load_partial(x + at, left, lowest) : splat(lowest);
    }
    const Vec<T> largest = max_or_second(max_or_second(v[0], v[1]), max_or_second(v[2], v[3]));
    if (!any(largest > splat(limit))) continue;
    T element[4 * lanes];
    for (int j = 0; j < 4; ++j) store(element + j * lanes, v[j]);
    for (ptrdiff_t j = 0; j < 4 * lanes; ++j) {
      if (!(element[j] > limit)) continue;
      push(heap, k, {element[j], first + i + j});
      if ((T)heap[0].value > limit) limit = (T)heap[0].value;
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
