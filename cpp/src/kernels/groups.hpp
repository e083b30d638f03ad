// The loop that every kernel shares: rows in groups, each group in three steps. First what must be known of each row, then
// arithmetic per row, vectorized across the group, then the output. An operation supplies the steps; whether its vectors
// run along the classes or across the rows (tiles) is decided here, and by the order of summation makes no difference to a
// single bit.
//
// An operation `Op` has the type Value (what it computes in: the elements of its rows are converted), and
//   kInputs, kOutput                        how many row-shaped inputs; an output?
//   begin(first, count)                     a new group of rows: fetch what belongs to them
//   live(lane)                              false: this row is not read, and its output is 0
//   tile_step(tile, second, classes, kept)            first step on tiles; `kept` is memory for a number an element
//   row_step(lane, x, second, classes, kept)          and on a row
//   finish(count)                           per-row arithmetic
//   tile_output(tile, second, classes, kept, out)     the output; `out` may be `tile` or `kept`
//   row_output(lane, x, second, classes, kept, out)   and on a row
#pragma once

// Rows of at most this many classes are transposed even where they lie contiguous: a vector per row would be too empty, and
// per-row work in scalars too dear.
constexpr ptrdiff_t kShortRow = 48;
// Exponentials are kept for rows up to this size, so that they stay in the second-level cache; longer rows take them twice.
constexpr ptrdiff_t kKeptBytes = 1 << 20;
// A group of rows should stay in the first-level cache between its steps.
constexpr ptrdiff_t kGroupBytes = 1 << 15;

template <class T>
CROSSENT_INLINE ptrdiff_t padded(ptrdiff_t classes) {
  return (classes + Vec<T>::kLanes - 1) / Vec<T>::kLanes * Vec<T>::kLanes;
}

template <class T>
CROSSENT_INLINE bool keeps_exponentials(ptrdiff_t classes) {
  return classes * (ptrdiff_t)sizeof(T) <= kKeptBytes;
}

template <class T>
CROSSENT_INLINE ptrdiff_t rows_per_group(ptrdiff_t classes) {
  const ptrdiff_t fitting = kGroupBytes / (classes * (ptrdiff_t)sizeof(T));
  return fitting < 1 ? 1 : fitting < kGroup<T> ? fitting : kGroup<T>;
}

// Bytes of scratch for any kernel: three tiles and a tile of elements to convert, or kept exponentials and three blocks.
inline size_t scratch_bytes(ptrdiff_t classes) {
  const size_t tiles = classes <= kBlock<float> ? (size_t)classes * kVectorBytes * 4 : 0;
  const size_t kept = keeps_exponentials<float>(classes)
                          ? (size_t)rows_per_group<double>(classes) * (classes * sizeof(double) + kVectorBytes)
                          : 0;
  const size_t rows = kept + 3 * kBlock<double> * sizeof(double);
  return (tiles > rows ? tiles : rows) + kVectorBytes;
}

template <class Op>
CROSSENT_INLINE void process_tiles(Op& op, const Run& run) {
  using T = typename Op::Value;
  const ptrdiff_t size = run.classes * kGroup<T>;
  T* tile = (T*)run.scratch;
  T* kept = tile + size;
  T* staging = kept + size;
  T* second = staging + size;
  for (ptrdiff_t first = 0; first < run.rows; first += kGroup<T>) {
    const ptrdiff_t count = run.rows - first < kGroup<T> ? run.rows - first : kGroup<T>;
    op.begin(first, count);
    load_tile(run.input, first, count, run.classes, tile, staging);
    if constexpr (Op::kInputs == 2) load_tile(run.second, first, count, run.classes, second, staging);
    for (ptrdiff_t lane = 0; lane < count; ++lane) {
      if (op.live(lane)) continue;
      for (ptrdiff_t c = 0; c < run.classes; ++c) tile[c * kGroup<T> + lane] = 0;
    }
    op.tile_step(tile, second, run.classes, kept);
    op.finish(count);
    if constexpr (Op::kOutput) {
      op.tile_output(tile, second, run.classes, kept, tile);
      store_tile(tile, run.output, first, count, run.classes, staging);
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
    op.finish(count);
    if constexpr (Op::kOutput) {
      for (ptrdiff_t lane = 0; lane < count; ++lane) {
        const RowOutput<T> out{run.output.data + (first + lane) * run.output.row_stride, run.output.type,
                               buffer + 2 * kBlock<T>};
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
  }
}

// How a formula is applied along the classes: per-row coefficients are one number, or one for each lane of a tile.
template <class T>
struct OneRow {
  ptrdiff_t lane;
  CROSSENT_INLINE Vec<T> operator()(const T* coefficient) const { return splat(coefficient[lane]); }
};
template <class T>
struct AllRows {
  CROSSENT_INLINE Vec<T> operator()(const T* coefficient) const { return load(coefficient); }
};

// Writes a row block by block: block(first) gives element(i, load), the elements of a vector from i of that block on.
template <class T, class Block>
CROSSENT_INLINE void write_row(const RowOutput<T>& out, ptrdiff_t classes, Block&& block) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  for (ptrdiff_t first = 0; first < classes; first += kBlock<T>) {
    const ptrdiff_t n = classes - first < kBlock<T> ? classes - first : kBlock<T>;
    const auto element = block(first, n);
    T* p = out.block(first);
    ptrdiff_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      const Vec<T> a = element(i, FullLoad{}), b = element(i + lanes, FullLoad{});
      store(p + i, a);
      store(p + i + lanes, b);
    }
    for (; i + lanes <= n; i += lanes) store(p + i, element(i, FullLoad{}));
    if (i < n) store_partial(p + i, n - i, element(i, PartialLoad{n - i}));
    out.written(first, n);
  }
}
// The same over a tile, element(c) for all rows at once.
template <class T, class F>
CROSSENT_INLINE void write_tile(T* out, ptrdiff_t classes, F&& element) {
  for (ptrdiff_t c = 0; c < classes; ++c) store(out + c * kGroup<T>, element(c));
}
