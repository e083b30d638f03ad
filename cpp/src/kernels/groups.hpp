// The loop that every kernel shares: rows in groups, each group in three steps. First what must be known of each row, then
// arithmetic per row, vectorized across the group, then the output. An operation supplies the steps; whether its vectors
// run along the classes or across the rows (tiles) is decided here, and by the order of summation makes no difference to a
// single bit.
//
// An operation `Op` has the type Value (what it computes in: the elements of its rows are converted), and
//   kInputs, kOutput                        how many row-shaped inputs; an output?
//   begin(first, count)                     a new group of rows: fetch what belongs to them
//   kTogether                               its elements are cheap: short rows are taken several together, by rows_step(rows)
//   kLight                                  or so cheap that a transposition of more than a few classes costs more, and a call
//                                           for each row too: rows_output(rows) writes a group; it skips none
//   skips                                   some rows of the group are not to be read
//   live(lane)                              false: this is one of them, and its output is 0
//   tile_step(tiles)                        first step on tiles
//   row_step(rows, lane)                    and on a row; what it keeps may lie in the row's output, and so in the row itself
//   finish(count, lanes)                    per-row arithmetic; of a last tile also on the lanes beyond the rows, whose output
//                                           would be slow to compute from garbage (subnormal numbers)
//   tile_output(tiles, t, out)              the output of tile t in rows or, of some classes or all, in columns, which may be
//                                           the place of its logits
//   row_output(rows, lane, part)            and of a part of a row
//   kInTurns                                row_step(rows, lane, meanwhile) calls meanwhile() now and then, which writes the
//                                           row before; then finish() is called after each row of a group, of rows that were
//                                           written too, and of those that are still to be read
#pragma once

static_assert(kRowPadding + 1 >= kTileRows<float>, "a last tile is read to its end");

// Rows of at most this many classes are transposed even where they lie contiguous: the work that is done once a row (sums of
// lanes, the vector at its end) is then shared by as many rows as a vector has lanes. Measured on AVX-512 and AVX2.
constexpr ptrdiff_t kTransposedRow = 192;
// Of operations that do hardly more with an element than to read it, in float64. Where they convert elements, since not all
// arrays are of one type, the limit above holds: that is better done for several rows.
constexpr ptrdiff_t kTransposedLightRow = 40;
// Operations that take short rows together share that work without a transposition, which is better from fewer classes on,
// above all where no vector of a row crosses a cache line. Softmax on AVX-512, ns per element, transposed and together: 100
// classes 0.42 and 0.50, 112 0.41 and 0.40, 127 0.43 and 0.46, 192 0.41 and 0.33. Nor is memory written fast in pieces of 16
// rows (Zen 4, 48 MB of 128 classes 0.70 and 0.52; but in a cache, which may be the third, 0.45 and 0.46, and 112 classes 0.46
// and 0.53). The limit for any row holds for float64 too, where longer ones are taken one by one.
constexpr ptrdiff_t kTransposedAnyRow = 144, kTransposedLines = 96, kTransposedDistantRow = 112;
// Up to rows where the work that is done once a row is no more than a twentieth: log_softmax of 256 KiB, one by one and
// together: 512 classes 0.32 and 0.28, 1000 0.32 and 0.30, 1500 0.30 and 0.30; bfloat16 700 0.50 and 0.44, 1200 0.46 and 0.45.
// Earlier where vectors are more than one register (AVX2: equal at 400, 0.45 and 0.47 at 1000).
constexpr ptrdiff_t kTogetherRow = kParts == 1 ? 1280 : 400;
// Light operations take rows of float32 together (softmax_backward, ns per element, transposed and together: 16 classes 0.31
// and 0.27, out of a second-level cache 0.70 and 0.44; 12 0.35 and 0.35, 0.68 and 0.48; log_softmax_backward of 20 0.67 and
// 0.70; together and one by one: 200 0.21 and 0.20, 300 0.17 and 0.18).
// Of 16 bits from more on (bfloat16: 32 classes 0.44 and 0.41, out of the cache 0.67 and 0.43, log_softmax_backward 0.62 and
// 0.73, 0.86 and 0.75; 16 0.71 and 0.58, 0.87 and 0.95).
constexpr ptrdiff_t kFewestLightTogether = kParts == 1 ? 12 : 16, kFewestLightTogetherOf16Bits = 30, kLightTogetherRow = 256;
// Exponentials are kept for rows up to this size, so that they stay in the second-level cache; longer rows take them twice.
constexpr ptrdiff_t kKeptBytes = 1 << 20;
// A group of rows should stay in the first-level cache between its steps, with its exponentials and results (32 KiB: 0.38 ns
// per element for log_softmax of 1000 classes, 16 KiB: 0.32), where it has such (without: logsumexp of 1000, taken together:
// 0.24 and 0.23).
constexpr ptrdiff_t kGroupBytes = 1 << 14, kUnwrittenBytes = 1 << 15;
// Operations that wait for memory most of the time, since they do hardly more, go on to the next row soon: then the processor's
// own prefetchers see each array read from its beginning to its end (Zen 4, softmax_backward of 16384 x 250: 0.57 -> 0.42 ns
// per element, in a cache 0.26 -> 0.21).
constexpr ptrdiff_t kLightGroupBytes = 1 << 12;
// So should tiles, together with their exponentials and what is prefetched. Columns are slower to read and write than to
// compute, and the faster the more of a class's neighbours go together: their tiles may fill a part of the second-level cache.
constexpr ptrdiff_t kTilesBytes = 1 << 13, kColumnsBytes = 1 << 18;

template <class T>
CROSSENT_INLINE bool keeps_exponentials(ptrdiff_t classes) {
  return classes * (ptrdiff_t)sizeof(T) <= kKeptBytes;
}

template <class T>
CROSSENT_INLINE ptrdiff_t rows_per_group(ptrdiff_t classes, ptrdiff_t bytes = kGroupBytes) {
  return between(1, bytes / (classes * (ptrdiff_t)sizeof(T)), kGroupRows<T>);
}
// Of rows that are taken together: as many as some vectors have lanes, or fewer.
template <class T>
CROSSENT_INLINE ptrdiff_t rows_together(ptrdiff_t classes, ptrdiff_t bytes) {
  const ptrdiff_t rows = bytes / (classes * (ptrdiff_t)sizeof(T));
  return rows < kTileRows<T> ? (rows > 0 ? rows : 1)
                             : between(1, rows / kTileRows<T>, kGroupRows<T> / kTileRows<T>) * kTileRows<T>;
}
// Short tiles are padded to as many classes as sum_short_tiles takes.
CROSSENT_INLINE ptrdiff_t tile_classes(ptrdiff_t classes) { return classes < kShortTile ? (classes + 3) / 4 * 4 : classes; }
CROSSENT_INLINE ptrdiff_t tiles_per_group(ptrdiff_t classes, bool columns) {
  const ptrdiff_t bytes = columns ? kColumnsBytes : kTilesBytes;
  return between(1, bytes / (tile_classes(classes) * kVectorBytes), kGroupRows<float> / kTileRows<float>);
}

// Bytes of scratch for any kernel: four tiles for each of a group and one of elements to convert; or kept exponentials and
// three blocks.
inline size_t scratch_bytes(ptrdiff_t classes) {
  const ptrdiff_t tiles =
      classes <= kBlock<float> ? (4 * tiles_per_group(classes, true) + 1) * tile_classes(classes) * kVectorBytes : 0;
  const ptrdiff_t f32_rows =
      classes <= kTogetherRow ? rows_together<float>(classes, kUnwrittenBytes) : rows_per_group<float>(classes);
  const ptrdiff_t f64_rows = rows_per_group<double>(classes), in_turns = classes > kBlock<float> ? 2 : 1;
  const ptrdiff_t f32 = (f32_rows > in_turns ? f32_rows : in_turns) * padded<float>(classes) * (ptrdiff_t)sizeof(float);
  const ptrdiff_t f64 = (f64_rows > in_turns ? f64_rows : in_turns) * padded<double>(classes) * (ptrdiff_t)sizeof(double);
  const ptrdiff_t f32_kept = keeps_exponentials<float>(classes) ? f32 : 0,
                  f64_kept = keeps_exponentials<double>(classes) ? f64 : 0;
  const ptrdiff_t kept = f32_kept > f64_kept ? f32_kept : f64_kept;
  const ptrdiff_t rows = kept + 3 * kBlock<double> * (ptrdiff_t)sizeof(double);
  return (size_t)(tiles > rows ? tiles : rows) + kVectorBytes;
}

// Where rows from `first` on lie if they lie one after the other, or null.
CROSSENT_INLINE const char* adjacent_rows(const Operand& a, ptrdiff_t first, ptrdiff_t classes) {
  const bool adjacent = is_contiguous(a) && a.row_stride == classes * a.class_stride;
  return adjacent ? a.data + first * a.row_stride : nullptr;
}

// How many of `rows` rows the group from `first` on takes, at most `most`. Columns that are written past the caches must begin
// at cache lines, so a first few rows may come alone.
template <class Op>
CROSSENT_INLINE ptrdiff_t group_rows(const Run& run, ptrdiff_t rows, ptrdiff_t first, ptrdiff_t most) {
  using T = typename Op::Value;
  const ptrdiff_t left = between(0, rows - first, most);
  const Operand& a = run.output;
  if (!Op::kOutput || !run.stream || !is_columns<T>(a, run.classes) || a.class_stride % kVectorBytes != 0) return left;
  const ptrdiff_t before = (ptrdiff_t)(-(uintptr_t)(a.data + first * a.row_stride) % kVectorBytes) / a.row_stride;
  return before > 0 ? between(0, left, before) : left;
}

// The memory of a group of tiles: logits twice, since the next group's columns are read while this one is computed.
template <class T>
struct TileBuffers {
  ptrdiff_t size;  // elements of a tile
  T *staging, *second, *kept, *logits, *next_logits;
  alignas(kVectorBytes) T maxima[kGroupRows<T>], next_maxima[kGroupRows<T>], second_maxima[kGroupRows<T>];

  CROSSENT_INLINE TileBuffers(const Run& run, ptrdiff_t most)
      : size(tile_classes(run.classes) * kTileRows<T>),
        staging((T*)run.scratch),
        second(staging + size),
        kept(second + most * size),
        logits(kept + most * size),
        next_logits(logits + most * size) {
    for (ptrdiff_t t = 0; t < most; ++t) {
      for (ptrdiff_t i = t * size + run.classes * kTileRows<T>; i < (t + 1) * size; i += kTileRows<T>) {
        store(logits + i, splat((T)__builtin_nan("")));
        store(next_logits + i, splat((T)__builtin_nan("")));
        store(kept + i, zero<T>());
      }
    }
  }
  CROSSENT_INLINE void swap() {
    T* const present = logits;
    logits = next_logits;
    next_logits = present;
    __builtin_memcpy(maxima, next_maxima, sizeof maxima);
  }
  // The logits of a row that is not to be read.
  CROSSENT_INLINE void clear_row(ptrdiff_t row, ptrdiff_t classes) {
    T* lane = logits + row / kTileRows<T> * size + row % kTileRows<T>;
    for (ptrdiff_t c = 0; c < classes; ++c) lane[c * kTileRows<T>] = 0;
    maxima[row] = 0;
  }
};

// Columns of a run whose output reaches over more than the second-level cache and is not written past the caches.
template <class T>
CROSSENT_INLINE bool fetches_columns(const Run& run) {
  constexpr ptrdiff_t kFetchedBytes = 1 << 21;
  const auto distance = [](ptrdiff_t n, ptrdiff_t stride) CROSSENT_LAMBDA { return n * (stride < 0 ? -stride : stride); };
  return !run.stream && is_columns<T>(run.output, run.classes) &&
         distance(run.classes, run.output.class_stride) + distance(run.rows / run.span, run.output.span_stride) >=
             kFetchedBytes;
}

// The first `rows` rows of a run.
template <class Op>
CROSSENT_INLINE void process_tiles(Op& op, const Run& run, ptrdiff_t rows) {
  using T = typename Op::Value;
  const bool reads_columns = is_columns<T>(run.input, run.classes);
  const bool columns = reads_columns || (Op::kOutput && is_columns<T>(run.output, run.classes));
  const ptrdiff_t most = between(1, (rows + kTileRows<T> - 1) / kTileRows<T>, tiles_per_group(run.classes, columns));
  TileBuffers<T> buffers(run, most);
  ptrdiff_t count = group_rows<Op>(run, rows, 0, most * kTileRows<T>);
  ColumnReader<T> reader(run, run.input, 0, count, buffers.next_logits, buffers.size, buffers.next_maxima, run.fetches_far);
  for (ptrdiff_t first = 0, following; first < rows; first += count, count = following) {
    following = group_rows<Op>(run, rows, first + count, most * kTileRows<T>);
    op.begin(first, count);
    if (reads_columns) {
      reader.read_all();
      buffers.swap();
      reader = ColumnReader<T>(run, run.input, first + count, following, buffers.next_logits, buffers.size, buffers.next_maxima,
                               run.fetches_far);
    } else {
      load_tiles(run, run.input, first, count, buffers.logits, buffers.size, buffers.maxima, buffers.staging);
    }
    if constexpr (Op::kInputs == 2) {
      load_tiles(run, run.second, first, count, buffers.second, buffers.size, buffers.second_maxima, buffers.staging);
    }
    for (ptrdiff_t row = 0; op.skips && row < count; ++row) {
      if (!op.live(row)) buffers.clear_row(row, run.classes);
    }
    const char* ahead = adjacent_rows(run.input, first + count, run.classes);
    const char* second_ahead = Op::kInputs == 2 ? adjacent_rows(run.second, first + count, run.classes) : nullptr;
    const char* soon = Op::kOutput ? adjacent_rows(run.output, first, run.classes) : nullptr;
    ColumnFetcher fetcher{ColumnRows(run, run.output, first), run.output.class_stride, count, run.classes};
    const Tiles<T> tiles{(count + kTileRows<T> - 1) / kTileRows<T>,
                         run.classes,
                         buffers.size,
                         buffers.logits,
                         buffers.second,
                         buffers.maxima,
                         buffers.second_maxima,
                         buffers.kept,
                         ahead,
                         second_ahead,
                         soon,
                         run.distant,
                         run.fetches_far,
                         reads_columns && following > 0 && reader.lies_together() ? &reader : nullptr,
                         Op::kOutput && fetches_columns<T>(run) ? &fetcher : nullptr};
    op.tile_step(tiles);
    op.finish(count, tiles.lane(tiles.count));
    if constexpr (Op::kOutput) write_tiles(op, run, tiles, first, count, buffers.logits, buffers.staging);
  }
}

// Not in float64, where rows of as many classes have twice the vectors: at most 8 % for as much code again.
template <class Op>
constexpr bool kTakenTogether = Op::kTogether && sizeof(typename Op::Value) == 4;

// Whether the two inputs and the output of a light operation are of one type.
CROSSENT_INLINE bool is_of_one_type(const Run& run) {
  return run.input.type == run.second.type && run.input.type == run.output.type;
}
// Whether contiguous rows are taken several together if they are not transposed; light operations do so with all rows of 16-bit
// elements of one type, which otherwise are converted to memory twice.
template <class Op>
CROSSENT_INLINE bool takes_rows_together(const Run& run) {
  if (!kTakenTogether<Op>) return false;
  if (!Op::kLight) return run.classes <= kTogetherRow;
  return is_of_one_type(run) && (run.classes <= kLightTogetherRow || run.input.type != Elements::f32);
}

// The rows of a run from `begin` on.
template <class Op>
CROSSENT_INLINE void process_rows(Op& op, const Run& run, ptrdiff_t begin) {
  using T = typename Op::Value;
  T* buffer = (T*)run.scratch;
  // Exponentials of a row of one block are kept where its results will be: less to hold in the first-level cache (1000 classes:
  // softmax 0.39 -> 0.35 ns per element). Not where the second input lies there, which is read once more with them.
  const bool over_second = Op::kInputs == 2 && run.second.data == run.output.data;
  const bool in_output = Op::kOutput && element_size(run.output.type) == (ptrdiff_t)sizeof(T) && !run.stream &&
                         run.classes <= kBlock<T> && !over_second;
  const bool together = takes_rows_together<Op>(run);
  constexpr ptrdiff_t bytes = Op::kLight ? kLightGroupBytes : kGroupBytes / Op::kInputs;
  constexpr ptrdiff_t together_bytes = Op::kLight ? kLightGroupBytes : Op::kOutput ? kGroupBytes : kUnwrittenBytes;
  const ptrdiff_t most = together ? rows_together<T>(run.classes, together_bytes) : rows_per_group<T>(run.classes, bytes);
  for (ptrdiff_t first = begin; first < run.rows; first += most) {
    const ptrdiff_t count = run.rows - first < most ? run.rows - first : most;
    const RowGroup<T> rows{run, first, count, buffer, buffer + 3 * kBlock<T>, in_output, false};
    op.begin(first, count);
    if constexpr (kTakenTogether<Op>) {
      if (together) op.rows_step(rows);
    }
    for (ptrdiff_t lane = 0; !together && lane < count; ++lane) {
      if (!op.live(lane)) continue;
      if constexpr (Op::kInTurns) {
        RowInTurn<Op> none{op, rows, -1};
        op.row_step(rows, lane, none);
      } else {
        op.row_step(rows, lane);
      }
    }
    op.finish(count, count);
    if constexpr (Op::kLight) {
      static_assert(!Op::skips, "all rows are written");
      op.rows_output(rows);
    } else if constexpr (Op::kOutput) {
      for (ptrdiff_t lane = 0; lane < count; ++lane) {
        if (op.live(lane)) {
          op.row_output(rows, lane, rows.whole());
        } else {
          __builtin_memset(rows.output(lane).data, 0, run.classes * element_size(run.output.type));
        }
      }
    }
  }
}

// A tile takes as long for one row as for all of its own: fewer rows come one by one where that is faster (softmax of a row of
// 100 floats: 0.80 -> 0.13 us, of 8 rows of 64: 0.59 -> 0.30). So many classes for each row: where rows are taken together, and
// where more is done once a row.
constexpr ptrdiff_t kClassesOfFewRows = 3, kClassesOfFewSlowRows = 8;

// Whether contiguous rows are taken as tiles.
template <class Op>
CROSSENT_INLINE bool is_transposed(const Run& run) {
  const auto whole_lines = [](const Operand& a) CROSSENT_LAMBDA {
    return !a.data || ((uintptr_t)a.data | (uintptr_t)a.row_stride) % kVectorBytes == 0;
  };
  if (Op::kLight && is_of_one_type(run)) {
    if (!kTakenTogether<Op>) return run.classes <= kTransposedLightRow;
    return run.classes < (run.input.type == Elements::f32 ? kFewestLightTogether : kFewestLightTogetherOf16Bits);
  }
  if (!Op::kTogether || Op::kLight) return run.classes <= kTransposedRow;
  if (!kTakenTogether<Op>) return run.classes <= kTransposedAnyRow;
  if (whole_lines(run.input) && whole_lines(run.output)) return run.classes <= kTransposedLines;
  return run.classes <= (Op::kOutput && run.distant ? kTransposedDistantRow : kTransposedAnyRow);
}

// How many rows come in tiles, from the first on.
template <class Op>
CROSSENT_INLINE ptrdiff_t rows_in_tiles(const Run& run) {
  bool contiguous = is_contiguous(run.input);
  if (Op::kInputs == 2) contiguous = contiguous && is_contiguous(run.second);
  if (Op::kOutput) contiguous = contiguous && is_contiguous(run.output);
  if (!contiguous) return run.rows;
  if (!is_transposed<Op>(run)) return 0;
  const ptrdiff_t last = run.rows % kTileRows<typename Op::Value>;
  const bool fast = kTakenTogether<Op> && run.input.type == Elements::f32;
  return last * (fast ? kClassesOfFewRows : kClassesOfFewSlowRows) <= run.classes ? run.rows - last : run.rows;
}

template <class Op, class RunType>
void process(const RunType& run) {
  __atomic_fetch_add(&kernel_runs, 1ull, __ATOMIC_RELAXED);
  if constexpr (Op::kLight) {
    if (stay_in_place<typename Op::Value>(run)) return process_columns_in_place<Op>(run);
  }
  Op op(run);
  const ptrdiff_t in_tiles = rows_in_tiles<Op>(run);
  if (in_tiles > 0) process_tiles(op, run, in_tiles);
  if (in_tiles < run.rows) {
    if (goes_in_turns<Op>(run)) {
      if constexpr (Op::kInTurns) process_rows_in_turns(op, run, in_tiles);
    } else {
      process_rows(op, run, in_tiles);
    }
  }
  if (run.stream) finish_stream();
}
