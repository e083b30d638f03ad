// Tiles: a group of rows transposed, so that a vector holds one class of all rows. Tile element (class c, row r) is
// tile[c * kGroup + r]. Used for short rows, and where adjacent rows are adjacent in memory (class axis not the last).
#pragma once

// Rows handled together: as many as a vector has lanes, so that per-row arithmetic is vectorized across them.
template <class T>
constexpr ptrdiff_t kGroup = Vec<T>::kLanes;

// 16-byte chunks: four floats or two doubles of a row.
template <class T>
constexpr ptrdiff_t kChunk = 16 / sizeof(T);

// Transposes kChunk vectors within each 16-byte chunk.
CROSSENT_INLINE void transpose_chunks(NativeFloat* v) {
  const NativeFloat ab_low = interleave_low(v[0], v[1]), ab_high = interleave_high(v[0], v[1]);
  const NativeFloat cd_low = interleave_low(v[2], v[3]), cd_high = interleave_high(v[2], v[3]);
  v[0] = (NativeFloat)interleave_low((NativeDouble)ab_low, (NativeDouble)cd_low);
  v[1] = (NativeFloat)interleave_high((NativeDouble)ab_low, (NativeDouble)cd_low);
  v[2] = (NativeFloat)interleave_low((NativeDouble)ab_high, (NativeDouble)cd_high);
  v[3] = (NativeFloat)interleave_high((NativeDouble)ab_high, (NativeDouble)cd_high);
}
CROSSENT_INLINE void transpose_chunks(NativeDouble* v) {
  const NativeDouble low = interleave_low(v[0], v[1]);
  v[1] = interleave_high(v[0], v[1]);
  v[0] = low;
}

// Calls f(c) for chunks of classes that cover all of them; the last may overlap the one before, so none reaches beyond a row.
template <class T, class F>
CROSSENT_INLINE void for_each_chunk(ptrdiff_t classes, F&& f) {
  for (ptrdiff_t c = 0; c + kChunk<T> <= classes; c += kChunk<T>) f(c);
  if (classes % kChunk<T> != 0) f(classes - kChunk<T>);
}

// kGroup rows of `classes` >= kChunk contiguous elements -> tile.
template <class T>
CROSSENT_INLINE void transpose_to_tile(const char* const* row, ptrdiff_t classes, T* tile) {
  using Native = typename Vec<T>::Native;
  for_each_chunk<T>(classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
    for (ptrdiff_t first = 0; first < kGroup<T>; first += Vec<T>::kNativeLanes) {
      Native v[kChunk<T>];
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
        v[i] = (Native)load_chunks(row + first + i, kChunk<T>, c * (ptrdiff_t)sizeof(T));
      }
      transpose_chunks(v);
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
        *(typename NativeOf<T>::unaligned*)(tile + (c + i) * kGroup<T> + first) = v[i];
      }
    }
  });
}
template <class T>
CROSSENT_INLINE void transpose_from_tile(const T* tile, ptrdiff_t classes, char* const* row) {
  using Native = typename Vec<T>::Native;
  for_each_chunk<T>(classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
    for (ptrdiff_t first = 0; first < kGroup<T>; first += Vec<T>::kNativeLanes) {
      Native v[kChunk<T>];
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
        v[i] = *(const typename NativeOf<T>::unaligned*)(tile + (c + i) * kGroup<T> + first);
      }
      transpose_chunks(v);
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
        store_chunks(row + first + i, kChunk<T>, c * (ptrdiff_t)sizeof(T), (NativeFloat)v[i]);
      }
    }
  });
}

template <class S>
CROSSENT_INLINE S load_element(const char* p) {
  S element;
  __builtin_memcpy(&element, p, sizeof element);
  return element;
}
CROSSENT_INLINE float to_compute(float a) { return a; }
CROSSENT_INLINE double to_compute(double a) { return a; }
CROSSENT_INLINE float to_compute(Half a) {
  const Vec<float> v = load_partial(&a, 1, 0.0f);
  return v.part[0][0];
}
CROSSENT_INLINE float to_compute(BFloat16 a) { return bit_cast<float>((uint32_t)a.bits << 16); }
template <class S>
CROSSENT_INLINE void store_element(char* p, Compute<S> value) {
  store_partial((S*)p, 1, splat(value));
}

// n contiguous elements, converted.
template <class S, class T>
CROSSENT_SHARED void convert_to_compute(const S* source, ptrdiff_t n, T* target) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  ptrdiff_t i = 0;
  for (; i + lanes <= n; i += lanes) store(target + i, load(source + i));
  if (i < n) store_partial(target + i, n - i, load_partial(source + i, n - i, (T)0));
}
template <class S, class T>
CROSSENT_SHARED void convert_from_compute(const T* source, ptrdiff_t n, S* target) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  ptrdiff_t i = 0;
  for (; i + lanes <= n; i += lanes) store(target + i, load(source + i));
  if (i < n) store_partial(target + i, n - i, load_partial(source + i, n - i, (T)0));
}

// Rows first, …, first + count - 1 of an operand -> tile; the lanes beyond `count` repeat the last row. `staging` holds
// kGroup * classes elements.
template <class S, class T>
CROSSENT_SHARED void load_tile(const Operand& a, ptrdiff_t first, ptrdiff_t count, ptrdiff_t classes, T* tile, T* staging) {
  const char* base = a.data + first * a.row_stride;
  if (a.class_stride != (ptrdiff_t)sizeof(S) && a.row_stride == (ptrdiff_t)sizeof(S)) {
    for (ptrdiff_t c = 0; c < classes; ++c) {
      const S* p = (const S*)(base + c * a.class_stride);
      store(tile + c * kGroup<T>, count == kGroup<T> ? load(p) : load_partial(p, count, (T)0));
    }
    return;
  }
  if (classes < kChunk<T> || a.class_stride != (ptrdiff_t)sizeof(S)) {
    for (ptrdiff_t c = 0; c < classes; ++c) {
      for (ptrdiff_t r = 0; r < kGroup<T>; ++r) {
        const ptrdiff_t clamped = r < count ? r : count - 1;
        tile[c * kGroup<T> + r] = to_compute(load_element<S>(base + clamped * a.row_stride + c * a.class_stride));
      }
    }
    return;
  }
  const char* row[kGroup<T>];
  for (ptrdiff_t r = 0; r < kGroup<T>; ++r) {
    const ptrdiff_t clamped = r < count ? r : count - 1;
    row[r] = base + clamped * a.row_stride;
    if constexpr (sizeof(S) != sizeof(T)) {
      if (r < count) convert_to_compute((const S*)row[r], classes, staging + r * classes);
      row[r] = (const char*)(staging + clamped * classes);
    }
  }
  transpose_to_tile(row, classes, tile);
}

// The reverse; lanes beyond `count` are dropped.
template <class S, class T>
CROSSENT_SHARED void store_tile(const T* tile, const Operand& a, ptrdiff_t first, ptrdiff_t count, ptrdiff_t classes,
                                T* staging) {
  char* base = a.data + first * a.row_stride;
  if (a.class_stride != (ptrdiff_t)sizeof(S) && a.row_stride == (ptrdiff_t)sizeof(S)) {
    for (ptrdiff_t c = 0; c < classes; ++c) {
      S* p = (S*)(base + c * a.class_stride);
      if (count == kGroup<T>) {
        store(p, load(tile + c * kGroup<T>));
      } else {
        store_partial(p, count, load(tile + c * kGroup<T>));
      }
    }
    return;
  }
  if (classes < kChunk<T> || a.class_stride != (ptrdiff_t)sizeof(S)) {
    for (ptrdiff_t r = 0; r < count; ++r) {
      for (ptrdiff_t c = 0; c < classes; ++c) {
        store_element<S>(base + r * a.row_stride + c * a.class_stride, tile[c * kGroup<T> + r]);
      }
    }
    return;
  }
  char* row[kGroup<T>];
  for (ptrdiff_t r = 0; r < kGroup<T>; ++r) {
    row[r] = sizeof(S) == sizeof(T) && r < count ? base + r * a.row_stride : (char*)(staging + r * classes);
  }
  transpose_from_tile(tile, classes, row);
  if constexpr (sizeof(S) != sizeof(T)) {
    for (ptrdiff_t r = 0; r < count; ++r) {
      convert_from_compute(staging + r * classes, classes, (S*)(base + r * a.row_stride));
    }
  }
}
