// How kernels write: a formula, given once, along the classes of a row or across the rows of a tile.
#pragma once

// Where the output of a tile goes, or of some of its classes: class c of the rows `stride` bytes after the one before it, which
// need not be a multiple of an element's (a field of records).
template <class T>
struct ColumnsOfTile {
  char* data;
  ptrdiff_t stride, first, last;
  bool stream;
  CROSSENT_INLINE T* column(ptrdiff_t c) const { return (T*)(data + c * stride); }
};
// Or row r, all of its classes as elements of type S, `stride` bytes after the one before it.
template <class S>
struct RowsOfTile {
  char* data;
  ptrdiff_t stride, last;
  static constexpr ptrdiff_t first = 0;
};
template <class S>
CROSSENT_INLINE RowsOfTile<S> rows_of_tile(const S*, char* data, ptrdiff_t stride, ptrdiff_t classes) {
  return {data, stride, classes};
}
// Writes element(c, load), class c of all rows at once, or also the three that follow, as load() loads.
template <class T, class F>
CROSSENT_INLINE void write_tile(const ColumnsOfTile<T>& out, F&& element) {
  if (kStreams && out.stream) {
    for (ptrdiff_t c = out.first; c < out.last; ++c) store_past_caches(out.column(c), element(c, FullLoad{}));
  } else {
    for (ptrdiff_t c = out.first; c < out.last; ++c) store(out.column(c), element(c, FullLoad{}));
  }
}
template <class S, class F>
CROSSENT_INLINE void write_tile(const RowsOfTile<S>& out, F&& element) {
  using T = Compute<S>;
  constexpr bool four = kChunk<T> == 4 && kParts == 1;
  ChunkOfRows<S, char> rows(out.data, out.stride);
  ptrdiff_t done = 0;
  if constexpr (four) {
    for (; done + 8 <= out.last; done += 8) {
      const Four<T> left = element(done, FourLoad{}), right = element(done + 4, FourLoad{});
      store_two_chunks_of_rows(left, right, rows);
      rows.move(8);
    }
  }
  for_each_chunk(rows, done, out.last, [&](ptrdiff_t c) CROSSENT_LAMBDA {
    if constexpr (four) {
      store_chunk_of_rows(element(c, FourLoad{}).of, rows);
    } else {
      Vec<T> v[kChunk<T>];
      for (ptrdiff_t i = 0; i < kChunk<T>; ++i) v[i] = element(c + i, FullLoad{});
      store_chunk_of_rows(v, rows);
    }
  });
}

// How a formula is applied along the classes: per-row coefficients are one number, or one for each lane of a tile.
template <class T>
struct OneRow {
  ptrdiff_t lane;
  CROSSENT_INLINE Vec<T> operator()(const T* coefficient) const { return splat(coefficient[lane]); }
};
template <class T>
struct TileOfRows {
  ptrdiff_t lane;
  CROSSENT_INLINE Vec<T> operator()(const T* coefficient) const { return load(coefficient + lane); }
};

// Rows from this size on are written in whole cache lines, after a first vector that may be shorter.
constexpr ptrdiff_t kAlignedBytes = 1024;

// out[i] = element(i, load) for n elements; `stream`: past the caches, asked at each store, since two copies of the loops would
// make these functions twice as large; kFour: four vectors at a time, where a vector is one register. Where it is four, one at
// a time is as much.
// What four are made of may lie where they are written, and a read has to wait if it touches any lane, written or not, of a
// vector that was just written in part. So the first vector is written after those between, and the last one whole, over some
// of the one before it (the same numbers), since the next row begins where its other lanes would be. Both are computed before
// anything is written (softmax of 256 classes, 16 bytes into a cache line: 0.38 -> 0.35 ns per element). Past the caches the
// last one stays partial.
template <bool kFour, class T, class Element>
CROSSENT_INLINE void write_block(T* out, ptrdiff_t n, bool stream, Element&& element) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  constexpr bool four = kFour && kParts == 1, two = !four && kParts < 4;
  const auto put = [&](ptrdiff_t i, const auto&... v) CROSSENT_LAMBDA {
    ptrdiff_t at = i - lanes;
    if (kStreams && stream) {
      (store_past_caches(out + (at += lanes), v), ...);
    } else {
      (store(out + (at += lanes), v), ...);
    }
  };
  ptrdiff_t i = 0, before_line = 0;
  Vec<T> first = zero<T>(), last = first;
  if (n * (ptrdiff_t)sizeof(T) >= kAlignedBytes) {
    i = (ptrdiff_t)(-(uintptr_t)out % kVectorBytes / sizeof(T));
    if (i > 0) first = element((ptrdiff_t)0, FullLoad{});
    if (four) {
      before_line = i;
    } else if (i > 0) {
      store_partial(out, i, first);
    }
  }
  const bool whole_last = four && !stream && n >= lanes && (n - i) % lanes != 0;
  if (whole_last) last = element(n - lanes, FullLoad{});
  if constexpr (four) {
    for (; i + 4 * lanes <= n; i += 4 * lanes) {
      const Four<T> v = element(i, FourLoad{});
      put(i, v.of[0], v.of[1], v.of[2], v.of[3]);
    }
  }
  for (; two && i + 2 * lanes <= n; i += 2 * lanes) put(i, element(i, FullLoad{}), element(i + lanes, FullLoad{}));
  for (; i + lanes <= n; i += lanes) put(i, element(i, FullLoad{}));
  if (before_line > 0) store_partial(out, before_line, first);
  if (i == n) return;
  if (whole_last) {
    store(out + n - lanes, last);
  } else {
    store_partial(out + i, n - i, element(i, PartialLoad{n - i}));
  }
}

// Writes a part of a row block by block: block(first, n) gives element(i, load), the elements of a vector from i of that block
// on.
template <bool kFour, class T, class Block>
CROSSENT_INLINE void write_row(const RowOutput<T>& out, Part part, Block&& block) {
  for (ptrdiff_t first = part.first; first < part.last; first += kBlock<T>) {
    const ptrdiff_t n = part.last - first < kBlock<T> ? part.last - first : kBlock<T>;
    const auto element = block(first, n);
    T* p = out.block(first);
    const bool whole_lines = n * (ptrdiff_t)sizeof(T) >= kAlignedBytes && (uintptr_t)p % sizeof(T) == 0;
    write_block<kFour>(p, n, out.stream && whole_lines, element);
    out.written(first, n);
  }
}
