// The loop that every kernel shares: rows in groups, each group in three steps. First what must be known of each row, then
// arithmetic per row, vectorized across the group, then the output. An operation supplies the steps; whether its vectors
// run along the classes or across the rows (tiles) is decided here, and by the order of summation makes no difference to a
// single bit.
//
// An operation `Op` has the types In (elements of the input), Out (of the output) and Value (what it computes in), and
//   kInputs, kOutput                        how many row-shaped inputs (the second of type Value or In: Second); an output?
//   kKeep                                   must the exponentials of the first step be kept for the output?
//   begin(first, count)                     a new group of rows: fetch what belongs to them
//   live(lane)                              false: this row is not read, and its output is 0
//   tile_step(tile, second, classes)        first step on tiles
//   row_step(lane, x, second, classes, kept)          and on a row
//   finish(count)                           per-row arithmetic
//   tile_output(tile, second, classes)      the output, in the place of the input
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

// Bytes of scratch for any kernel with elements of up to 8 bytes: two tiles and a group to convert, or kept exponentials.
inline size_t scratch_bytes(ptrdiff_t classes) {
  const size_t tile = classes <= RowSum<float>::kBlock ? (size_t)classes * kVectorBytes * 3 : 0;
  const size_t kept = keeps_exponentials<float>(classes)
                          ? (size_t)rows_per_group<double>(classes) * (classes * sizeof(double) + kVectorBytes)
                          : 0;
  const size_t group = (size_t)kGroupBytes + kKeptBytes / kGroupBytes;
  return (tile > kept ? tile : kept) + group + kVectorBytes;
}

template <class Op>
CROSSENT_INLINE void process_tiles(Op& op, const Run& run) {
  using T = typename Op::Value;
  T* tile = (T*)run.scratch;
  T* second = tile + run.classes * kGroup<T>;
  T* staging = second + run.classes * kGroup<T>;
  for (ptrdiff_t first = 0; first < run.rows; first += kGroup<T>) {
    const ptrdiff_t count = run.rows - first < kGroup<T> ? run.rows - first : kGroup<T>;
    op.begin(first, count);
    load_tile<typename Op::In>(run.input, first, count, run.classes, tile, staging);
    if constexpr (Op::kInputs == 2) {
      load_tile<typename Op::Second>(run.second, first, count, run.classes, second, staging);
    }
    for (ptrdiff_t lane = 0; lane < count; ++lane) {
      if (op.live(lane)) continue;
      for (ptrdiff_t c = 0; c < run.classes; ++c) tile[c * kGroup<T> + lane] = 0;
    }
    op.tile_step(tile, second, run.classes);
    op.finish(count);
    if constexpr (Op::kOutput) {
      op.tile_output(tile, second, run.classes);
      store_tile<typename Op::Out>(tile, run.output, first, count, run.classes, staging);
    }
  }
}

template <class S>
CROSSENT_INLINE S* row_of(const Operand& a, ptrdiff_t row) {
  return (S*)(a.data + row * a.row_stride);
}

template <class Op>
CROSSENT_INLINE void process_rows(Op& op, const Run& run) {
  using T = typename Op::Value;
  using In = typename Op::In;
  using Out = typename Op::Out;
  using Second = typename Op::Second;
  T* kept = (T*)run.scratch;
  const ptrdiff_t kept_stride = padded<T>(run.classes);
  const ptrdiff_t group = rows_per_group<T>(run.classes);
  for (ptrdiff_t first = 0; first < run.rows; first += group) {
    const ptrdiff_t count = run.rows - first < group ? run.rows - first : group;
    op.begin(first, count);
    for (ptrdiff_t lane = 0; lane < count; ++lane) {
      if (!op.live(lane)) continue;
      const Second* second = Op::kInputs == 2 ? row_of<const Second>(run.second, first + lane) : nullptr;
      op.row_step(lane, row_of<const In>(run.input, first + lane), second, run.classes, kept + lane * kept_stride);
    }
    op.finish(count);
    if constexpr (Op::kOutput) {
      for (ptrdiff_t lane = 0; lane < count; ++lane) {
        Out* out = row_of<Out>(run.output, first + lane);
        if (!op.live(lane)) {
          __builtin_memset(out, 0, run.classes * sizeof(Out));
          continue;
        }
        const Second* second = Op::kInputs == 2 ? row_of<const Second>(run.second, first + lane) : nullptr;
        op.row_output(lane, row_of<const In>(run.input, first + lane), second, run.classes, kept + lane * kept_stride, out);
      }
    }
  }
}

template <class Op, class RunType>
void process(const RunType& run) {
  __atomic_fetch_add(&kernel_runs, 1ull, __ATOMIC_RELAXED);
  Op op(run);
  const bool contiguous = run.input.class_stride == (ptrdiff_t)sizeof(typename Op::In) &&
                          (!Op::kOutput || run.output.class_stride == (ptrdiff_t)sizeof(typename Op::Out)) &&
                          (Op::kInputs < 2 || run.second.class_stride == (ptrdiff_t)sizeof(typename Op::Second));
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

// out[i] = element(i, load) over a contiguous row.
template <class S, class F>
CROSSENT_INLINE void write_row(S* out, ptrdiff_t classes, F&& element) {
  constexpr ptrdiff_t lanes = Vec<Compute<S>>::kLanes;
  ptrdiff_t i = 0;
  for (; i + lanes <= classes; i += lanes) store(out + i, element(i, FullLoad{}));
  if (i < classes) store_partial(out + i, classes - i, element(i, PartialLoad{classes - i}));
}
// The same over a tile, element(c) for all rows at once.
template <class T, class F>
CROSSENT_INLINE void write_tile(T* tile, ptrdiff_t classes, F&& element) {
  for (ptrdiff_t c = 0; c < classes; ++c) store(tile + c * kGroup<T>, element(c));
}
