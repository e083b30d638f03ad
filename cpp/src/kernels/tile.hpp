// Tiles: a group of rows transposed, so that a vector holds one class of all rows. Tile element (class c, row r) is
// tile[c * kTileRows + r]. Used for short rows, and where adjacent rows are adjacent in memory (class axis not the last).
#pragma once

// Elements that lie anywhere, of the rows of one tile.
template <class S, class T>
CROSSENT_INLINE void load_anywhere(const S*, const Operand& a, const char* base, ptrdiff_t rows, ptrdiff_t classes, T* tile,
                                   T* maxima) {
  Vec<T> max = splat((T)-__builtin_inf());
  for (ptrdiff_t c = 0; c < classes; ++c) {
    S lane[kTileRows<T>];
    for (ptrdiff_t r = 0; r < kTileRows<T>; ++r) {
      lane[r] = load_element<S>(base + (r < rows ? r : rows - 1) * a.row_stride + c * a.class_stride);
    }
    const Vec<T> v = load(lane);
    store(tile + c * kTileRows<T>, v);
    max = max_or_second(v, max);
  }
  store(maxima, max);
}
template <class S, class T>
CROSSENT_INLINE void store_anywhere(S*, const Operand& a, char* base, ptrdiff_t rows, ptrdiff_t classes, const T* tile) {
  for (ptrdiff_t c = 0; c < classes; ++c) {
    S lane[kTileRows<T>];
    store(lane, load(tile + c * kTileRows<T>));
    for (ptrdiff_t r = 0; r < rows; ++r) {
      __builtin_memcpy(base + r * a.row_stride + c * a.class_stride, &lane[r], sizeof(S));
    }
  }
}

// Rows of two or three elements one after the other, as many as a tile has: too short for chunks (softmax of 2 classes: 2.5 ->
// 1.2 ns per element, of 3: 2.1 -> 0.9).
template <class T>
CROSSENT_INLINE bool are_packed(const Operand& a, ptrdiff_t rows, ptrdiff_t classes) {
  return sizeof(T) == 4 && (classes == 2 || classes == 3) && rows == kTileRows<T> && is_contiguous(a) &&
         a.row_stride == classes * element_size(a.type);
}
template <int classes>
CROSSENT_INLINE void load_packed(const float* p, float* tile, float* maxima) {
  Vec<float> of_class[3], max = splat(-__builtin_inff());
  for_each_part([&](int i) CROSSENT_LAMBDA {
    NativeFloat native[classes];
    for (int k = 0; k < classes; ++k) native[k] = (NativeFloat)((const UnalignedFloat*)p)[classes * i + k];
    of_class[0].part[i] = elements_of<EveryOther<classes, 0>, classes>(native);
    of_class[1].part[i] = elements_of<EveryOther<classes, 1>, classes>(native);
    if constexpr (classes == 3) of_class[2].part[i] = elements_of<EveryOther<classes, 2>, classes>(native);
  });
  for (int c = 0; c < classes; ++c) {
    store(tile + c * kTileRows<float>, of_class[c]);
    max = max_or_second(of_class[c], max);  // never NaN
  }
  store(maxima, max);
}
template <int classes>
CROSSENT_INLINE void store_packed(float* p, const float* tile) {
  Vec<float> of_class[classes];
  for (int c = 0; c < classes; ++c) of_class[c] = load(tile + c * kTileRows<float>);
  for_each_part([&](int i) CROSSENT_LAMBDA {
    UnalignedFloat* target = (UnalignedFloat*)p + classes * i;
    NativeFloat native[classes];
    for (int c = 0; c < classes; ++c) native[c] = of_class[c].part[i];
    target[0] = elements_of<InTurns<classes, 0>, classes>(native);
    target[1] = elements_of<InTurns<classes, 1>, classes>(native);
    if constexpr (classes == 3) target[2] = elements_of<InTurns<classes, 2>, classes>(native);
  });
}

// Copies rows of `bytes` bytes.
CROSSENT_INLINE void copy_rows(const char* from, ptrdiff_t from_stride, char* to, ptrdiff_t to_stride, ptrdiff_t rows,
                               ptrdiff_t bytes) {
  for (ptrdiff_t r = 0; r < rows; ++r) __builtin_memcpy(to + r * to_stride, from + r * from_stride, bytes);
}

// The first `count` rows from `base` on -> tile, and their maxima.
template <class T>
CROSSENT_INLINE void load_tile(const Operand& a, const char* base, ptrdiff_t count, ptrdiff_t classes, T* tile, T* maxima,
                               T* staging) {
  if constexpr (sizeof(T) == 4) {
    if (are_packed<T>(a, count, classes)) {
      const bool converts = a.type != Elements::f32;
      if (converts) convert_to_compute(a.type, base, count * classes, staging);
      const float* rows = converts ? staging : (const float*)base;
      return classes == 2 ? load_packed<2>(rows, tile, maxima) : load_packed<3>(rows, tile, maxima);
    }
  }
  if (!is_contiguous(a) || classes < kChunk<T>) {
    with_elements<T>(a.type, [&](auto* typed) CROSSENT_LAMBDA { load_anywhere(typed, a, base, count, classes, tile, maxima); });
    return;
  }
  if (count == kTileRows<T>) {
    with_elements<T>(a.type,
                     [&](auto* typed) CROSSENT_LAMBDA { transpose_to_tile(typed, base, a.row_stride, classes, tile, maxima); });
    return;
  }
  const ptrdiff_t staged_stride = classes * (ptrdiff_t)sizeof(T);
  if (element_size(a.type) != (ptrdiff_t)sizeof(T)) {
    if constexpr (sizeof(T) == 4) rows_to_compute(a.type, base, a.row_stride, count, classes, staging);
  } else {
    copy_rows(base, a.row_stride, (char*)staging, staged_stride, count, staged_stride);
  }
  __builtin_memset(staging + count * classes, 0, (kTileRows<T> - count) * staged_stride);
  transpose_to_tile(staging, (const char*)staging, staged_stride, classes, tile, maxima);
}

// Rows first, …, first + count - 1 of an operand -> tiles, `size` elements from one to the next; the lanes beyond `count` hold
// 0 or the last row. `staging` holds kTileRows * classes elements.
template <class T>
CROSSENT_SHARED void load_tiles(const Run& run, const Operand& a, ptrdiff_t first, ptrdiff_t count, T* tiles, ptrdiff_t size,
                                T* maxima, T* staging) {
  const ptrdiff_t classes = run.classes;
  if (is_columns<T>(a, classes)) return ColumnReader<T>(run, a, first, count, tiles, size, maxima, false).read_all();
  const char* base = a.data + first * a.row_stride;
  for (ptrdiff_t done = 0; done < count; done += kTileRows<T>, tiles += size, base += kTileRows<T> * a.row_stride) {
    const ptrdiff_t rows = count - done < kTileRows<T> ? count - done : kTileRows<T>;
    load_tile(a, base, rows, classes, tiles, maxima + done, staging);
  }
}

// Rows first, …, first + count - 1 of the output from one tile; lanes beyond `count` are dropped.
template <class T>
CROSSENT_SHARED void store_tile(const Run& run, const T* tile, ptrdiff_t first, ptrdiff_t count, T* staging) {
  const Operand& a = run.output;
  const ptrdiff_t classes = run.classes;
  char* base = a.data + first * a.row_stride;
  if constexpr (sizeof(T) == 4) {
    if (are_packed<T>(a, count, classes)) {
      const bool converts = a.type != Elements::f32;
      float* rows = converts ? staging : (float*)base;
      classes == 2 ? store_packed<2>(rows, tile) : store_packed<3>(rows, tile);
      if (converts) convert_from_compute(a.type, staging, count * classes, base);
      return;
    }
  }
  if (!is_contiguous(a) || classes < kChunk<T>) {
    with_elements<T>(a.type, [&](auto* typed) CROSSENT_LAMBDA { store_anywhere(typed, a, base, count, classes, tile); });
    return;
  }
  if (count == kTileRows<T>) {
    with_elements<T>(a.type,
                     [&](auto* typed) CROSSENT_LAMBDA { transpose_from_tile(typed, tile, classes, base, a.row_stride); });
    return;
  }
  const ptrdiff_t staged_stride = classes * (ptrdiff_t)sizeof(T);
  transpose_from_tile(staging, tile, classes, (char*)staging, staged_stride);
  if (element_size(a.type) == (ptrdiff_t)sizeof(T)) {
    copy_rows((const char*)staging, staged_stride, base, a.row_stride, count, staged_stride);
  } else if constexpr (sizeof(T) == 4) {
    rows_from_compute(a.type, staging, count, classes, base, a.row_stride);
  }
}
