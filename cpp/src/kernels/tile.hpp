// Tiles: a group of rows transposed, so that a vector holds one class of all rows. Tile element (class c, row r) is
// tile[c * kTileRows + r]. Used for short rows, and where adjacent rows are adjacent in memory (class axis not the last).
#pragma once

// Rows of a tile: as many as a vector has lanes, so that per-row arithmetic is vectorized across them.
template <class T>
constexpr ptrdiff_t kTileRows = Vec<T>::kLanes;

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

// kTileRows rows of `classes` >= kChunk contiguous elements, `stride` bytes apart -> tile.
template <class T>
CROSSENT_INLINE void transpose_to_tile(const char* rows, ptrdiff_t stride, ptrdiff_t classes, T* tile) {
  using Native = typename Vec<T>::Native;
  for_each_chunk<T>(classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
    for (ptrdiff_t first = 0; first < kTileRows<T>; first += Vec<T>::kNativeLanes) {
      Native v[kChunk<T>];
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
        v[i] = (Native)load_chunks(rows + (first + i) * stride + c * (ptrdiff_t)sizeof(T), kChunk<T> * stride);
      }
      transpose_chunks(v);
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
        *(typename NativeOf<T>::unaligned*)(tile + (c + i) * kTileRows<T> + first) = v[i];
      }
    }
  });
}
template <class T>
CROSSENT_INLINE void transpose_from_tile(const T* tile, ptrdiff_t classes, char* rows, ptrdiff_t stride) {
  using Native = typename Vec<T>::Native;
  for_each_chunk<T>(classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
    for (ptrdiff_t first = 0; first < kTileRows<T>; first += Vec<T>::kNativeLanes) {
      Native v[kChunk<T>];
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
        v[i] = *(const typename NativeOf<T>::unaligned*)(tile + (c + i) * kTileRows<T> + first);
      }
      transpose_chunks(v);
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
        store_chunks(rows + (first + i) * stride + c * (ptrdiff_t)sizeof(T), kChunk<T> * stride, (NativeFloat)v[i]);
      }
    }
  });
}

// Classes that do not lie contiguous, of rows that lie one element apart (whole vectors of rows are read), or anywhere.
template <class S, class T>
CROSSENT_INLINE void load_columns(const S*, const Operand& a, const char* base, ptrdiff_t count, ptrdiff_t classes, T* tile) {
  if (a.row_stride == (ptrdiff_t)sizeof(S)) {
    for (ptrdiff_t c = 0; c < classes; ++c) {
      const S* p = (const S*)(base + c * a.class_stride);
      store(tile + c * kTileRows<T>, count == kTileRows<T> ? load(p) : load_some(p, count));
    }
    return;
  }
  for (ptrdiff_t c = 0; c < classes; ++c) {
    S lane[kTileRows<T>];
    for (ptrdiff_t r = 0; r < kTileRows<T>; ++r) {
      lane[r] = load_element<S>(base + (r < count ? r : count - 1) * a.row_stride + c * a.class_stride);
    }
    store(tile + c * kTileRows<T>, load(lane));
  }
}
template <class S, class T>
CROSSENT_INLINE void store_columns(S*, const Operand& a, char* base, ptrdiff_t count, ptrdiff_t classes, const T* tile) {
  if (a.row_stride == (ptrdiff_t)sizeof(S)) {
    for (ptrdiff_t c = 0; c < classes; ++c) {
      S* p = (S*)(base + c * a.class_stride);
      const Vec<T> v = load(tile + c * kTileRows<T>);
      if (count == kTileRows<T>) {
        store(p, v);
      } else {
        store_some(p, count, v);
      }
    }
    return;
  }
  for (ptrdiff_t c = 0; c < classes; ++c) {
    S lane[kTileRows<T>];
    store(lane, load(tile + c * kTileRows<T>));
    for (ptrdiff_t r = 0; r < count; ++r) {
      __builtin_memcpy(base + r * a.row_stride + c * a.class_stride, &lane[r], sizeof(S));
    }
  }
}

// Copies rows of `bytes` bytes.
CROSSENT_INLINE void copy_rows(const char* from, ptrdiff_t from_stride, char* to, ptrdiff_t to_stride, ptrdiff_t rows,
                               ptrdiff_t bytes) {
  for (ptrdiff_t r = 0; r < rows; ++r) __builtin_memcpy(to + r * to_stride, from + r * from_stride, bytes);
}

// Rows first, …, first + count - 1 of an operand -> tile; the lanes beyond `count` hold 0 or the last row. `staging` holds
// kTileRows * classes elements.
template <class T>
CROSSENT_SHARED void load_tile(const Operand& a, ptrdiff_t first, ptrdiff_t count, ptrdiff_t classes, T* tile, T* staging) {
  const char* base = a.data + first * a.row_stride;
  if (!is_contiguous(a) || classes < kChunk<T>) {
    with_elements<T>(a.type, [&](auto* typed) CROSSENT_LAMBDA { load_columns(typed, a, base, count, classes, tile); });
    return;
  }
  const ptrdiff_t staged_stride = classes * (ptrdiff_t)sizeof(T);
  if (element_size(a.type) != (ptrdiff_t)sizeof(T)) {
    if constexpr (sizeof(T) == 4) rows_to_compute(a.type, base, a.row_stride, count, classes, staging);
  } else if (count < kTileRows<T>) {
    copy_rows(base, a.row_stride, (char*)staging, staged_stride, count, staged_stride);
  } else {
    return transpose_to_tile(base, a.row_stride, classes, tile);
  }
  __builtin_memset(staging + count * classes, 0, (kTileRows<T> - count) * staged_stride);
  transpose_to_tile((const char*)staging, staged_stride, classes, tile);
}

// The reverse; lanes beyond `count` are dropped.
template <class T>
CROSSENT_SHARED void store_tile(const T* tile, const Operand& a, ptrdiff_t first, ptrdiff_t count, ptrdiff_t classes,
                                T* staging) {
  char* base = a.data + first * a.row_stride;
  if (!is_contiguous(a) || classes < kChunk<T>) {
    with_elements<T>(a.type, [&](auto* typed) CROSSENT_LAMBDA { store_columns(typed, a, base, count, classes, tile); });
    return;
  }
  const bool converts = element_size(a.type) != (ptrdiff_t)sizeof(T);
  if (!converts && count == kTileRows<T>) return transpose_from_tile(tile, classes, base, a.row_stride);
  const ptrdiff_t staged_stride = classes * (ptrdiff_t)sizeof(T);
  transpose_from_tile(tile, classes, (char*)staging, staged_stride);
  if (!converts) {
    copy_rows((const char*)staging, staged_stride, base, a.row_stride, count, staged_stride);
  } else if constexpr (sizeof(T) == 4) {
    rows_from_compute(a.type, staging, count, classes, base, a.row_stride);
  }
}
