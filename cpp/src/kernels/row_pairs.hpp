// Short contiguous rows of two arrays, and of a third for the results: as many as a vector has lanes. How many vectors a row
// has beside groups of four is known to the compiler, and so is where its last one ends: asked for in each row, that took as
// long as all else (softmax_backward of 32 classes: 16 -> 10 cycles a vector).
#pragma once

// Rows of groups of four vectors and then kRest more, of which the last may not be full.
template <class T, int kRest>
struct RowPairs {
  static constexpr ptrdiff_t kLanes = Vec<T>::kLanes;
  const char *y, *g;
  char* out;
  ptrdiff_t y_stride, g_stride, out_stride, count, whole;
  PartialLoad last;

  template <class Formula>
  CROSSENT_INLINE LaneSum<T> sum(ptrdiff_t r) const {
    const T *of_y = (const T*)(y + r * y_stride), *of_g = (const T*)(g + r * g_stride);
    const auto term = [&](ptrdiff_t i, auto load)
                          CROSSENT_LAMBDA { return Formula::term(load(of_y + i, (T)0), load(of_g + i, (T)0)); };
    LaneSum<T> lanes = LaneSum<T>::none();
    for (ptrdiff_t i = 0; i < whole; i += 4 * kLanes) {
      lanes.add(sum_of(each_of_four<T>([&](int k) CROSSENT_LAMBDA { return term(i + k * kLanes, FullLoad{}); })));
    }
    lanes.add(sum_of(each_of_four<T>([&](int k) CROSSENT_LAMBDA {
      const ptrdiff_t i = whole + k * kLanes;
      return k + 1 < kRest ? term(i, FullLoad{}) : k + 1 == kRest ? term(i, last) : zero<T>();
    })));
    return lanes;
  }
  template <class Formula>
  CROSSENT_INLINE void write(ptrdiff_t r, Vec<T> h, Vec<T> l) const {
    const T *of_y = (const T*)(y + r * y_stride), *of_g = (const T*)(g + r * g_stride);
    T* to = (T*)(out + r * out_stride);
    const auto write_some = [&](ptrdiff_t i, const auto& load) CROSSENT_LAMBDA {
      load.store_back(to + i, Formula::gradient(Formula::probability(load(of_y + i, (T)0)), load(of_g + i, (T)0), h, l));
    };
    for (ptrdiff_t i = 0; i < whole; i += 4 * kLanes) write_some(i, FourLoad{});
    if constexpr (kRest > 1) write_some(whole, FullLoad{});
    if constexpr (kRest > 2) write_some(whole + kLanes, FullLoad{});
    if constexpr (kRest > 3) write_some(whole + 2 * kLanes, FullLoad{});
    write_some(whole + (kRest - 1) * kLanes, last);
  }
};
// Calls f with those of a group from `first` on.
template <class T, int kRest = 4, class F>
CROSSENT_INLINE void with_row_pairs(const RowGroup<T>& rows, ptrdiff_t first, F&& f) {
  constexpr ptrdiff_t lanes = Vec<T>::kLanes;
  const ptrdiff_t classes = rows.run.classes, whole = (classes - 1) / (4 * lanes) * (4 * lanes);
  if constexpr (kRest > 1) {
    if (classes - whole <= (kRest - 1) * lanes) return with_row_pairs<T, kRest - 1>(rows, first, f);
  }
  f(RowPairs<T, kRest>{rows.row(rows.run.input, first),
                       rows.row(rows.run.second, first),
                       (char*)rows.row(rows.run.output, first),
                       rows.run.input.row_stride,
                       rows.run.second.row_stride,
                       rows.run.output.row_stride,
                       between(0, rows.count - first, kTileRows<T>),
                       whole,
                       {classes - whole - (kRest - 1) * lanes}});
}
