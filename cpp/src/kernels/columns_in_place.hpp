// Columns of two arrays, and of a third for the results, where they lie. To copy them to tiles takes longer than all that light
// operations do with them (softmax_backward along axis 1 of 4096 x 2 x 64: 1.05 -> 0.41 ns per element, of 32 x 100 x 196 0.87
// -> 0.63; log_softmax_backward 1.22 -> 0.55, 1.01 -> 0.53).
#pragma once

// One class after the other of as many rows as a vector has lanes, or fewer; and of those that follow.
template <class T>
struct ColumnPairs {
  const char *of_y, *of_g;
  char* of_out;
  ptrdiff_t y_stride, g_stride, out_stride, classes;
  CROSSENT_INLINE const T* y(ptrdiff_t c) const { return (const T*)(of_y + c * y_stride); }
  CROSSENT_INLINE const T* g(ptrdiff_t c) const { return (const T*)(of_g + c * g_stride); }
  CROSSENT_INLINE T* out(ptrdiff_t c) const { return (T*)(of_out + c * out_stride); }
  CROSSENT_INLINE void next_tile() {
    of_y += kVectorBytes;
    of_g += kVectorBytes;
    of_out += kVectorBytes;
  }
};

// Whether a light operation takes its columns so: not those whose classes lie far apart, unless they are few, since they would
// drive each other out of the caches; nor those of 16 bits, for which it would be as much code again twice; nor a single class,
// to which, as it may be infinite, not even the 0 of a missing one can be added.
template <class T>
CROSSENT_INLINE bool stay_in_place(const Run& run) {
  constexpr ptrdiff_t kFewClasses = 4, kNearBytes = 1 << 19;
  const auto stays = [&](const Operand& a) CROSSENT_LAMBDA {
    const ptrdiff_t stride = a.class_stride < 0 ? -a.class_stride : a.class_stride;
    return element_size(a.type) == (ptrdiff_t)sizeof(T) && is_columns<T>(a, run.classes) &&
           (run.classes <= kFewClasses || run.classes * stride <= kNearBytes);
  };
  return run.classes > 1 && stays(run.input) && stays(run.second) && stays(run.output);
}

template <class Op>
CROSSENT_INLINE void process_columns_in_place(const Run& run) {
  constexpr ptrdiff_t lanes = kTileRows<typename Op::Value>;
  ColumnRows y(run, run.input, 0), g(run, run.second, 0), out(run, run.output, 0);
  for (ptrdiff_t left = run.rows, rows; left > 0; left -= rows) {
    const ptrdiff_t together = left < y.left ? left : y.left, tiles = together / lanes;
    const ColumnPairs<typename Op::Value> columns{
        y.data, g.data, out.data, run.input.class_stride, run.second.class_stride, run.output.class_stride, run.classes};
    rows = tiles > 0 ? tiles * lanes : together;
    tiles > 0 ? Op::process_columns(columns, tiles, FullLoad{}) : Op::process_columns(columns, 1, PartialLoad{rows});
    y.skip(rows);
    g.skip(rows);
    out.skip(rows);
  }
}
