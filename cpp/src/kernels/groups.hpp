// The loop that every kernel shares: rows in groups, each group in three steps. First what must be known of each row, then
// arithmetic per row, vectorized across the group, then the output. An operation supplies the steps; whether its vectors
// run along the classes or across the rows (tiles) is decided here, and by the order of summation makes no difference to a
// single bit.
//
// An operation `Op` has the type Value (what it computes in: the elements of its rows are converted), and
//   kInputs, kOutput                        how many row-shaped inputs; an output?
//   begin(first, count)                     a new group of rows: fetch what belongs to them
//   skips                                   some rows of the group are not to be read
//   live(lane)                              false: this is one of them, and its output is 0
//   tile_step(tiles)                                  first step on tiles
//   row_step(lane, x, second, classes, kept)          and on a row; `kept` is memory for a number an element
//   finish(count, lanes)                    per-row arithmetic; of a last tile also on the lanes beyond the rows, whose output
//   would
//                                           be slow to compute from garbage (subnormal numbers)
//   tile_output(tiles, t, out)                        the output of tile t, which may take the place of its logits
//   row_output(lane, x, second, classes, kept, out)   and on a row
#pragma once

// Rows of at most this many classes are transposed even where they lie contiguous: the work that is done once a row (sums of
// lanes, the vector at its end) is then shared by as many rows as a vector has lanes. Measured on AVX-512 and AVX2.
constexpr ptrdiff_t kShortRow = 192;
// Exponentials are kept for rows up to this size, so that they stay in the second-level cache; longer rows take them twice.
constexpr ptrdiff_t kKeptBytes = 1 << 20;
// A group of rows should stay in the first-level cache between its steps.
constexpr ptrdiff_t kGroupBytes = 1 << 15;
// So should tiles, together with their exponentials and what is prefetched.
constexpr ptrdiff_t kTilesBytes = 1 << 13;

template <class T>
CROSSENT_INLINE ptrdiff_t padded(ptrdiff_t classes) {
  return (classes + Vec<T>::kLanes - 1) / Vec<T>::kLanes * Vec<T>::kLanes;
}

template <class T>
CROSSENT_INLINE bool keeps_exponentials(ptrdiff_t classes) {
  return classes * (ptrdiff_t)sizeof(T) <= kKeptBytes;
}

CROSSENT_INLINE ptrdiff_t between(ptrdiff_t low, ptrdiff_t value, ptrdiff_t high) {
  return value < low ? low : value > high ? high : value;
}
template <class T>
CROSSENT_INLINE ptrdiff_t rows_per_group(ptrdiff_t classes) {
  return between(1, kGroupBytes / (classes * (ptrdiff_t)sizeof(T)), kGroupRows<T>);
}
CROSSENT_INLINE ptrdiff_t tile_classes(ptrdiff_t classes) { return classes < kShortTile ? kShortTile : classes; }
CROSSENT_INLINE ptrdiff_t tiles_per_group(ptrdiff_t classes) {
  return between(1, kTilesBytes / (tile_classes(classes) * kVectorBytes), kGroupRows<float> / kTileRows<float>);
}

// Bytes of scratch for any kernel: three tiles for each of a group and one of elements to convert; or kept exponentials and
// three blocks.
inline size_t scratch_bytes(ptrdiff_t classes) {
  const ptrdiff_t tiles =
      classes <= kBlock<float> ? (3 * tiles_per_group(classes) + 1) * tile_classes(classes) * kVectorBytes : 0;
  const ptrdiff_t kept = keeps_exponentials<float>(classes)
                             ? rows_per_group<double>(classes) * padded<double>(classes) * (ptrdiff_t)sizeof(double)
                             : 0;
  const ptrdiff_t rows = kept + 3 * kBlock<double> * (ptrdiff_t)sizeof(double);
  return (size_t)(tiles > rows ? tiles : rows) + kVectorBytes;
}

// Where rows from `first` on lie if they lie one after the other, or null.
CROSSENT_INLINE const char* adjacent_rows(const Operand& a, ptrdiff_t first, ptrdiff_t classes) {
  const bool adjacent = is_contiguous(a) && a.row_stride == classes * a.class_stride;
  return adjacent ? a.data + first * a.row_stride : nullptr;
}

template <class Op>
CROSSENT_INLINE void process_tiles(Op& op, const Run& run) {
  using T = typename Op::Value;
  const ptrdiff_t most = tiles_per_group(run.classes), size = tile_classes(run.classes) * kTileRows<T>;
  T* staging = (T*)run.scratch;
  T* logits = staging + size;
  T* second = logits + most * size;
  Tiles<T> tiles{most, run.classes, size, logits, second, second + most * size, nullptr, nullptr};
  for (ptrdiff_t t = 0; t < most; ++t) {
    for (ptrdiff_t i = run.classes * kTileRows<T>; i < size; i += kTileRows<T>) {
      store(logits + t * size + i, splat((T)__builtin_nan("")));
      store(tiles.kept + t * size + i, zero<T>());
    }
  }
  for (ptrdiff_t first = 0; first < run.rows; first += most * kTileRows<T>) {
    const ptrdiff_t left = run.rows - first, count = left < most * kTileRows<T> ? left : most * kTileRows<T>;
    tiles.count = (count + kTileRows<T> - 1) / kTileRows<T>;
    const char* ahead = adjacent_rows(run.input, first + count, run.classes);
    const char* out = Op::kOutput ? adjacent_rows(run.output, first, run.classes) : nullptr;
    tiles.ahead = ahead ? ahead : (const char*)logits;
    tiles.soon = out ? out : (const char*)logits;
    op.begin(first, count);
    for (ptrdiff_t t = 0; t < tiles.count; ++t) {
      const ptrdiff_t lane = tiles.lane(t), rows = between(1, count - lane, kTileRows<T>);
      T* tile = logits + t * size;
      load_tile(run.input, first + lane, rows, run.classes, tile, staging);
      if constexpr (Op::kInputs == 2) load_tile(run.second, first + lane, rows, run.classes, second + t * size, staging);
      for (ptrdiff_t r = 0; op.skips && r < rows; ++r) {
        if (op.live(lane + r)) continue;
        for (ptrdiff_t c = 0; c < run.classes; ++c) tile[c * kTileRows<T> + r] = 0;
      }
    }
    op.tile_step(tiles);
    op.finish(count, tiles.lane(tiles.count));
    if constexpr (Op::kOutput) {
      for (ptrdiff_t t = 0; t < tiles.count; ++t) {
        const ptrdiff_t lane = tiles.lane(t);
        op.tile_output(tiles, t, logits + t * size);
        store_tile(logits + t * size, run.output, first + lane, between(1, count - lane, kTileRows<T>), run.classes, staging);
      }
    }
  }
}

template <class Op>
CROSSENT_INLINE void process_rows(Op& op, const Run& run) {
  using T = typename Op::Value;
  T* buffer = (T*)run.scratch;  // three blocks
  T* kept = buffer + 3 * kBlock<T>;
  const ptrdiff_t kept_stride = padded<T>(run.classes);
  const ptrdiff_t group = rows_per_group<T>(run.classes);
  const auto input = [&](const Operand& a, ptrdiff_t row, int which) CROSSENT_LAMBDA {
    return RowInput<T>{a.data + row * a.row_stride, a.type, buffer + which * kBlock<T>};
  };
  for (ptrdiff_t first = 0; first < run.rows; first += group) {
    const ptrdiff_t count = run.rows - first < group ? run.rows - first : group;
    op.begin(first, count);
    for (ptrdiff_t lane = 0; lane < count; ++lane) {
      if (!op.live(lane)) continue;
      op.row_step(lane, input(run.input, first + lane, 0), input(run.second, first + lane, 1), run.classes,
                  kept + lane * kept_stride);
    }
    op.finish(count, count);
    if constexpr (Op::kOutput) {
      for (ptrdiff_t lane = 0; lane < count; ++lane) {
        const RowOutput<T> out{run.output.data + (first + lane) * run.output.row_stride, run.output.type,
                               buffer + 2 * kBlock<T>, run.stream};
        if (op.live(lane)) {
          op.row_output(lane, input(run.input, first + lane, 0), input(run.second, first + lane, 1), run.classes,
                        kept + lane * kept_stride, out);
        } else {
          __builtin_memset(out.data, 0, run.classes * element_size(out.type));
        }
      }
    }
  }
}

template <class Op, class RunType>
void process(const RunType& run) {
  __atomic_fetch_add(&kernel_runs, 1ull, __ATOMIC_RELAXED);
  Op op(run);
  bool contiguous = is_contiguous(run.input);
  if (Op::kInputs == 2) contiguous = contiguous && is_contiguous(run.second);
  if (Op::kOutput) contiguous = contiguous && is_contiguous(run.output);
  if (run.classes <= kShortRow || !contiguous) {
    process_tiles(op, run);
  } else {
    process_rows(op, run);
    if (run.stream) finish_stream();
  }
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

// out[i] = element(i, load) for n elements; kStream: past the caches.
template <bool kStream, class T, class Element>
CROSSENT_INLINE void write_block(T* out, ptrdiff_t n, Element&& element) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  ptrdiff_t i = 0;
  if (n * (ptrdiff_t)sizeof(T) >= kAlignedBytes) {
    i = (ptrdiff_t)(-(uintptr_t)out % kVectorBytes / sizeof(T));
    if (i > 0) store_partial(out, i, element((ptrdiff_t)0, FullLoad{}));
  }
  const auto put = [&](ptrdiff_t at, Vec<T> v) CROSSENT_LAMBDA {
    if constexpr (kStream) {
      store_past_caches(out + at, v);
    } else {
      store(out + at, v);
    }
  };
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const Vec<T> a = element(i, FullLoad{}), b = element(i + lanes, FullLoad{});
    put(i, a);
    put(i + lanes, b);
  }
  for (; i + lanes <= n; i += lanes) put(i, element(i, FullLoad{}));
  if (i < n) store_partial(out + i, n - i, element(i, PartialLoad{n - i}));
}

// Writes a row block by block: block(first, n) gives element(i, load), the elements of a vector from i of that block on.
template <class T, class Block>
CROSSENT_INLINE void write_row(const RowOutput<T>& out, ptrdiff_t classes, Block&& block) {
  for (ptrdiff_t first = 0; first < classes; first += kBlock<T>) {
    const ptrdiff_t n = classes - first < kBlock<T> ? classes - first : kBlock<T>;
    const auto element = block(first, n);
    T* p = out.block(first);
    if (out.stream && n * (ptrdiff_t)sizeof(T) >= kAlignedBytes && (uintptr_t)p % sizeof(T) == 0) {
      write_block<true>(p, n, element);
    } else {
      write_block<false>(p, n, element);
    }
    out.written(first, n);
  }
}
// The same over a tile, element(c) for all rows at once.
template <class T, class F>
CROSSENT_INLINE void write_tile(T* out, ptrdiff_t classes, F&& element) {
  for (ptrdiff_t c = 0; c < classes; ++c) store(out + c * kTileRows<T>, element(c));
}
