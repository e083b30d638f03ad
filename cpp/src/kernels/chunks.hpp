// The transposition of contiguous rows to tiles and back, a chunk of each row at a time; 16-bit elements are converted on the
// way.
#pragma once

// Rows of a tile: as many as a vector has lanes, so that per-row arithmetic is vectorized across them.
template <class T>
constexpr ptrdiff_t kTileRows = Vec<T>::kLanes;

// Chunks of a row: four elements that become floats, or two doubles.
template <class T>
constexpr ptrdiff_t kChunk = 16 / sizeof(Compute<T>);

// Chunks of rows `step` bytes apart as the leaf loads and stores them, by the type of their elements.
CROSSENT_INLINE NativeFloat load_chunks_of(const float*, const char* p, ptrdiff_t step) { return load_chunks(p, step); }
CROSSENT_INLINE NativeDouble load_chunks_of(const double*, const char* p, ptrdiff_t step) {
  return (NativeDouble)load_chunks(p, step);
}
CROSSENT_INLINE NativeFloat load_chunks_of(const Half*, const char* p, ptrdiff_t step) { return load_half_chunks(p, step); }
CROSSENT_INLINE NativeFloat load_chunks_of(const BFloat16*, const char* p, ptrdiff_t step) {
  return of_bfloat16_bits(load_16_bit_chunks(p, step));
}
CROSSENT_INLINE void store_chunks_as(const float*, char* p, ptrdiff_t step, NativeFloat a) { store_chunks(p, step, a); }
CROSSENT_INLINE void store_chunks_as(const double*, char* p, ptrdiff_t step, NativeDouble a) {
  store_chunks(p, step, (NativeFloat)a);
}
CROSSENT_INLINE void store_chunks_as(const Half*, char* p, ptrdiff_t step, NativeFloat a) { store_half_chunks(p, step, a); }
CROSSENT_INLINE void store_chunks_as(const BFloat16*, char* p, ptrdiff_t step, NativeFloat a) {
  store_16_bit_chunks(p, step, float_to_bfloat16_bits<NativeBits>(a));
}
CROSSENT_INLINE void store_pairs_of_chunks_as(const float*, char* p, ptrdiff_t step, NativeFloat a, NativeFloat b) {
  store_pairs_of_chunks(p, step, a, b);
}
CROSSENT_INLINE void store_pairs_of_chunks_as(const Half*, char* p, ptrdiff_t step, NativeFloat a, NativeFloat b) {
  store_pairs_of_half_chunks(p, step, a, b);
}
CROSSENT_INLINE void store_pairs_of_chunks_as(const BFloat16*, char* p, ptrdiff_t step, NativeFloat a, NativeFloat b) {
  store_pairs_of_bfloat16_chunks(p, step, a, b);
}

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

// kTileRows rows of `classes` >= kChunk contiguous elements of type S, `stride` bytes apart -> tile, and the rows' maxima.
template <class S, class T>
CROSSENT_INLINE void transpose_to_tile(const S*, const char* rows, ptrdiff_t stride, ptrdiff_t classes, T* tile, T* maxima) {
  using Native = typename Vec<T>::Native;
  constexpr ptrdiff_t native_lanes = Vec<T>::kNativeLanes;
  const auto larger = [](Native a, Native b) CROSSENT_LAMBDA { return a > b ? a : b; };
  Vec<T> max = splat((T)-__builtin_inf());
  ChunkOfRows<S, const char> chunk_of(rows, stride);
  for_each_chunk(chunk_of, 0, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
    for_each_part([&](int part) CROSSENT_LAMBDA {
      const ptrdiff_t first = part * native_lanes;
      Native v[kChunk<T>];
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i)
        v[i] = load_chunks_of((const S*)nullptr, chunk_of.row[i] + first * stride, kChunk<T> * stride);
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
// kChunk classes of a tile's rows, as elements of type S.
template <class S, class T>
CROSSENT_INLINE void store_chunk_of_rows(const Vec<T>* v, const ChunkOfRows<S, char>& rows) {
  for_each_part([&](int part) CROSSENT_LAMBDA {
    typename Vec<T>::Native chunk[kChunk<T>];
    for (ptrdiff_t i = 0; i < kChunk<T>; ++i) chunk[i] = v[i].part[part];
    transpose_chunks(chunk);
    for (ptrdiff_t i = 0; i < kChunk<T>; ++i) {
      char* p = rows.row[i] + part * Vec<T>::kNativeLanes * rows.stride;
      store_chunks_as((const S*)nullptr, p, kChunk<T> * rows.stride, chunk[i]);
    }
  });
}
// Twice as many: half the stores, which take longer than the shuffles that this costs (AVX-512, 64 classes: softmax 0.40 ->
// 0.38 ns per element).
template <class S>
CROSSENT_INLINE void store_two_chunks_of_rows(const Four<float>& a, const Four<float>& b, const ChunkOfRows<S, char>& rows) {
  for_each_part([&](int part) CROSSENT_LAMBDA {
    NativeFloat left[4], right[4];
    for (int i = 0; i < 4; ++i) {
      left[i] = a.of[i].part[part];
      right[i] = b.of[i].part[part];
    }
    transpose_chunks(left);
    transpose_chunks(right);
    for (int i = 0; i < 4; ++i) {
      char* p = rows.row[i] + part * Vec<float>::kNativeLanes * rows.stride;
      store_pairs_of_chunks_as((const S*)nullptr, p, 4 * rows.stride, left[i], right[i]);
    }
  });
}
template <class S, class T>
CROSSENT_INLINE void transpose_from_tile(const S*, const T* tile, ptrdiff_t classes, char* rows, ptrdiff_t stride) {
  ChunkOfRows<S, char> chunk_of(rows, stride);
  for_each_chunk(chunk_of, 0, classes, [&](ptrdiff_t c) CROSSENT_LAMBDA {
    Vec<T> v[kChunk<T>];
    for (ptrdiff_t i = 0; i < kChunk<T>; ++i) v[i] = load(tile + (c + i) * kTileRows<T>);
    store_chunk_of_rows(v, chunk_of);
  });
}
