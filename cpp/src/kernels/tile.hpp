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

// Where a chunk of classes of as many rows is as a chunk has elements. The other rows of a tile are multiples of as many
// strides further on, addresses that an instruction can add up by itself.
template <class T, class Bytes>
struct ChunkOfRows {
  Bytes* row[kChunk<T>];
  ptrdiff_t stride, first = 0;

  CROSSENT_INLINE ChunkOfRows(Bytes* rows, ptrdiff_t row_stride) : stride(row_stride) {
    for (ptrdiff_t i = 0; i < kChunk<T>; ++i) row[i] = rows + i * stride;
  }
  CROSSENT_INLINE void move(ptrdiff_t classes) {
    for (ptrdiff_t i = 0; i < kChunk<T>; ++i) row[i] += classes * (ptrdiff_t)sizeof(T);
    first += classes;
  }
};
// Calls f(c) for chunks that cover classes begin, …, classes - 1, with `rows` there; the last may overlap the one before, so
// none reaches beyond a row.
template <class T, class Bytes, class F>
CROSSENT_INLINE void for_each_chunk(ChunkOfRows<T, Bytes>& rows, ptrdiff_t begin, ptrdiff_t classes, F&& f) {
  const ptrdiff_t last = classes - kChunk<T>;
  if (begin < classes) rows.move((begin < last ? begin : last) - rows.first);
  // One call, so that f's code is there once.
  for (ptrdiff_t c = begin; c < classes; c += kChunk<T>) {
    f(rows.first);
    const ptrdiff_t left = last - rows.first;
    rows.move(left < kChunk<T> ? left : kChunk<T>);
  }
}

// kTileRows rows of `classes` >= kChunk contiguous elements, `stride` bytes apart -> tile, and the rows' maxima.
template <class T>
CROSSENT_INLINE void transpose_to_tile(const char* rows, ptrdiff_t stride, ptrdiff_t classes, T* tile, T* maxima) {
  using Native = typename Vec<T>::Native;
  constexpr ptrdiff_t native_lanes = Vec<T>::kNativeLanes;
  const auto larger = [](Native a, Native b) CROSSENT_LAMBDA { return a > b ? a : b; };
  Vec<T> max = splat((T)-__builtin_inf());
  ChunkOfRows<T, const char> chunk_of(rows, stride);
  for_each_chunk(chunk_of, 0, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
    for_each_part([&](int part) CROSSENT_LAMBDA {
      const ptrdiff_t first = part * native_lanes;
      Native v[kChunk<T>];
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i)
        v[i] = (Native)load_chunks(chunk_of.row[i] + first * stride, kChunk<T> * stride);
      transpose_chunks(v);
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
        *(typename NativeOf<T>::unaligned*)(tile + (c + i) * kTileRows<T> + first) = v[i];
      }
      // A NaN may hide other numbers of its chunk.
      Native chunk = larger(v[0], v[1]);
      if constexpr (kChunk<T> == 4) chunk = larger(chunk, larger(v[2], v[3]));
      max.part[part] = larger(chunk, max.part[part]);
    });
  });
  store(maxima, max);
}
// kChunk classes of a tile's rows.
template <class T>
CROSSENT_INLINE void store_chunk_of_rows(const Vec<T>* v, const ChunkOfRows<T, char>& rows) {
  for_each_part([&](int part) CROSSENT_LAMBDA {
    typename Vec<T>::Native chunk[kChunk<T>];
    for (ptrdiff_t i = 0; i < kChunk<T>; ++i) chunk[i] = v[i].part[part];
    transpose_chunks(chunk);
    for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
      store_chunks(rows.row[i] + part * Vec<T>::kNativeLanes * rows.stride, kChunk<T> * rows.stride, (NativeFloat)chunk[i]);
    }
  });
}
// Twice as many: half the stores, which take longer than the shuffles that this costs (AVX-512, 64 classes: softmax 0.40 ->
// 0.38 ns per element).
CROSSENT_INLINE void store_two_chunks_of_rows(const Four<float>& a, const Four<float>& b,
                                              const ChunkOfRows<float, char>& rows) {
  for_each_part([&](int part) CROSSENT_LAMBDA {
    NativeFloat left[4], right[4];
    for (int i = 0; i < 4; ++i) {
      left[i] = a.of[i].part[part];
      right[i] = b.of[i].part[part];
    }
    transpose_chunks(left);
    transpose_chunks(right);
    for (int i = 0; i < 4; ++i) {
      store_pairs_of_chunks(rows.row[i] + part * Vec<float>::kNativeLanes * rows.stride, 4 * rows.stride, left[i], right[i]);
    }
  });
}
template <class T>
CROSSENT_INLINE void transpose_from_tile(const T* tile, ptrdiff_t classes, char* rows, ptrdiff_t stride) {
  ChunkOfRows<T, char> chunk_of(rows, stride);
  for_each_chunk(chunk_of, 0, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
    Vec<T> v[kChunk<T>];
    for (ptrdiff_t i = 0; i < kChunk<T>; ++i) v[i] = load(tile + (c + i) * kTileRows<T>);
    store_chunk_of_rows(v, chunk_of);
  });
}

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
  // Classes that are on their way into the first-level cache, or from memory into the second (Zen 4, 40960 x 100: softmax 0.72
  // -> 0.65 ns per element, both 0.68: see Tiles::prefetch_far), and those that are read at a time where all are owed.
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
  const ptrdiff_t staged_stride = classes * (ptrdiff_t)sizeof(T);
  if (element_size(a.type) != (ptrdiff_t)sizeof(T)) {
    if constexpr (sizeof(T) == 4) rows_to_compute(a.type, base, a.row_stride, count, classes, staging);
  } else if (count < kTileRows<T>) {
    copy_rows(base, a.row_stride, (char*)staging, staged_stride, count, staged_stride);
  } else {
    return transpose_to_tile(base, a.row_stride, classes, tile, maxima);
  }
  __builtin_memset(staging + count * classes, 0, (kTileRows<T> - count) * staged_stride);
  transpose_to_tile((const char*)staging, staged_stride, classes, tile, maxima);
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
