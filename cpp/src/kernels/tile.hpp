// Tiles: a group of rows transposed, so that a vector holds one class of all rows. Tile element (class c, row r) is
// tile[c * kTileRows + r]. Used for short rows, and where adjacent rows are adjacent in memory (class axis not the last).
#pragma once

// Columns that are read little by little, while other rows are computed, since memory is the slower of the two: all rows of a
// class before the next class, so that its neighbours in memory are touched together (of a large array each class is in a page
// of its own). The rows' maxima are raised meanwhile.
template <class T>
struct ColumnReader {
  Operand from;
  ptrdiff_t rows, classes, size;  // size: elements from one tile to the next
  ptrdiff_t whole, rest;          // tiles of the rows, and what is left of them
  T *tiles, *maxima;
  bool fetches_far;              // see Run
  ptrdiff_t done = 0, owed = 0;  // classes; rows

  CROSSENT_INLINE ColumnReader(const Operand& a, ptrdiff_t first, ptrdiff_t count, ptrdiff_t all_classes, T* target,
                               ptrdiff_t tile_size, T* target_maxima, bool reaches_far)
      : from(a),
        rows(count),
        classes(all_classes),
        size(tile_size),
        whole(count / kTileRows<T>),
        rest(count % kTileRows<T>),
        tiles(target),
        maxima(target_maxima),
        fetches_far(reaches_far) {
    from.data += first * a.row_stride;
    fill(maxima, count, (T)-__builtin_inf());
  }

  // What `vectors` more are worth; whole classes.
  CROSSENT_INLINE void read(ptrdiff_t vectors) {
    owed += vectors * kTileRows<T>;
    if (owed >= rows && done < classes) read_owed();
  }
  CROSSENT_INLINE void read_all() {
    owed = rows * classes;
    read_owed();
  }
  // One function for all kernels: in each of them it was a sixth of all code, and no faster.
  CROSSENT_SHARED void read_owed() {
    with_elements<T>(from.type, [&](auto* typed) CROSSENT_LAMBDA { read_classes((decltype(typed))from.data); });
  }
  // Tile by tile: class by class the same memory operations take longer (logsumexp of 1000 columns: 0.31 -> 0.34 ns per
  // element).
  template <class S>
  CROSSENT_INLINE void read_classes(const S* data) {
    constexpr ptrdiff_t lanes = kTileRows<T>;
    const ptrdiff_t stride = from.class_stride;
    while (owed >= rows && done < classes) {
      const ptrdiff_t begin = done;
      for (; owed >= rows && done < classes && done - begin < kMostTogether; owed -= rows, ++done) {
        if (fetches_far) {
          prefetch<S, 2>(done + kFarDistance);
        } else {
          prefetch<S, 3>(done + kDistance);
        }
      }
      const ptrdiff_t n = done - begin;
      const char* p = (const char*)data + begin * stride;
      T* tile = tiles + begin * lanes;
      for (ptrdiff_t t = 0; t < whole; ++t, p += lanes * sizeof(S), tile += size) {
        read_tile(p, stride, n, tile, maxima + t * lanes, [](const char* at) CROSSENT_LAMBDA { return load((const S*)at); });
      }
      if (rest == 0) continue;
      read_tile(p, stride, n, tile, maxima + whole * lanes,
                [=](const char* at) CROSSENT_LAMBDA { return load_some((const S*)at, rest); });
    }
  }
  template <class Load>
  static CROSSENT_INLINE void read_tile(const char* p, ptrdiff_t stride, ptrdiff_t n, T* tile, T* maximum, Load&& load_rows) {
    Vec<T> max = load(maximum);
    for (; n >= 2; n -= 2, p += 2 * stride, tile += 2 * kTileRows<T>) {
      const Vec<T> v = load_rows(p), w = load_rows(p + stride);
      store(tile, v);
      store(tile + kTileRows<T>, w);
      max = max_or_second(w, max_or_second(v, max));
    }
    if (n > 0) {
      const Vec<T> v = load_rows(p);
      store(tile, v);
      max = max_or_second(v, max);
    }
    store(maximum, max);
  }
  template <class S, int kLocality>
  CROSSENT_INLINE void prefetch(ptrdiff_t c) const {
    // Beyond the last class come the rows of the next group.
    ptrdiff_t beyond = 0;
    for (; c >= classes; c -= classes) beyond += rows * sizeof(S);
    const char *first = from.data + c * from.class_stride + beyond, *end = first + rows * sizeof(S);
    const char* line = first - (uintptr_t)first % kVectorBytes;
    for (; line < end; line += kVectorBytes) __builtin_prefetch(line, 0, kLocality);
  }
  // Classes that are on their way into the first-level cache, or from memory into the second (Zen 4, softmax of 40000 columns
  // of 100, cycles a vector: near 45, both 44, far 38; see Tiles::prefetch_far), and those that are read at a time where all
  // are owed.
  static constexpr ptrdiff_t kDistance = 4, kFarDistance = 16, kMostTogether = 16;
};

// Columns that will be written: their cache lines are fetched into the second-level cache little by little, while the results
// are computed. Written without that, each line would be waited for.
struct ColumnFetcher {
  const char* data;
  ptrdiff_t class_stride, bytes, rows, classes;
  ptrdiff_t done = 0, owed = 0;  // classes; rows

  // What so many rows of a class more are worth; whole classes.
  CROSSENT_INLINE void fetch(ptrdiff_t more) {
    for (owed += more; owed >= rows && done < classes; owed -= rows, ++done) {
      const char *first = data + done * class_stride, *end = first + bytes;
      for (const char* line = first - (uintptr_t)first % kVectorBytes; line < end; line += kVectorBytes) {
        __builtin_prefetch(line, 0, 2);
      }
    }
  }
};

template <class S, class T>
CROSSENT_INLINE void store_columns(S* p, ptrdiff_t class_stride, ptrdiff_t rows, ptrdiff_t classes, const T* tile) {
  for (ptrdiff_t c = 0; c < classes; ++c, p = (S*)((char*)p + class_stride)) {
    const Vec<T> v = load(tile + c * kTileRows<T>);
    if (rows == kTileRows<T>) {
      store(p, v);
    } else {
      store_some(p, rows, v);
    }
  }
}

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

// Whether the rows lie one element apart and are not better taken as contiguous ones.
template <class T>
CROSSENT_INLINE bool is_columns(const Operand& a, ptrdiff_t classes) {
  return a.row_stride == element_size(a.type) && (!is_contiguous(a) || classes < kChunk<T>);
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
CROSSENT_SHARED void load_tiles(const Operand& a, ptrdiff_t first, ptrdiff_t count, ptrdiff_t classes, T* tiles, ptrdiff_t size,
                                T* maxima, T* staging) {
  const char* base = a.data + first * a.row_stride;
  if (is_columns<T>(a, classes)) {
    return ColumnReader<T>(a, first, count, classes, tiles, size, maxima, false).read_all();
  }
  for (ptrdiff_t done = 0; done < count; done += kTileRows<T>, tiles += size, base += kTileRows<T> * a.row_stride) {
    const ptrdiff_t rows = count - done < kTileRows<T> ? count - done : kTileRows<T>;
    load_tile(a, base, rows, classes, tiles, maxima + done, staging);
  }
}

// Rows first, …, first + count - 1 of an operand from one tile; lanes beyond `count` are dropped.
template <class T>
CROSSENT_SHARED void store_tile(const T* tile, const Operand& a, ptrdiff_t first, ptrdiff_t count, ptrdiff_t classes,
                                T* staging) {
  char* base = a.data + first * a.row_stride;
  if (is_columns<T>(a, classes)) {
    with_elements<T>(a.type, [&](auto* typed) CROSSENT_LAMBDA {
      store_columns((decltype(typed))base, a.class_stride, count, classes, tile);
    });
    return;
  }
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
