// Short contiguous rows of two arrays, and of a third for the results, all of one type: as many as a vector has lanes. How many
// vectors a row has beside groups of four is known to the compiler, and so is where its last one ends: asked for in each row,
// that took as long as all else (softmax_backward of 32 classes: 16 -> 10 cycles a vector).
#pragma once

// Rows of groups of four vectors and then kRest more, of which the last may not be full; or, where kRest is 0, of any number:
// so where to ask takes a small part of the time, for elements of 16 bits and vectors of four registers.
template <class S, int kRest>
struct RowPairs {
  using T = Compute<S>;
  static constexpr ptrdiff_t kLanes = Vec<T>::kLanes;
  const char *y, *g;
  char* out;
  ptrdiff_t y_stride, g_stride, out_stride, count, classes, whole;
  PartialLoad last;

  template <class Formula>
  CROSSENT_INLINE LaneSum<T> sum(ptrdiff_t r) const {
    const S *of_y = (const S*)(y + r * y_stride), *of_g = (const S*)(g + r * g_stride);
    const auto term = [&](ptrdiff_t i, auto load)
                          CROSSENT_LAMBDA { return Formula::term(load(of_y + i, (T)0), load(of_g + i, (T)0)); };
    LaneSum<T> lanes = LaneSum<T>::none();
    for (ptrdiff_t i = 0; i < whole; i += 4 * kLanes) {
      lanes.add(sum_of(each_of_four<T>([&](int k) CROSSENT_LAMBDA { return term(i + k * kLanes, FullLoad{}); })));
    }
    if constexpr (kRest > 0) {
      lanes.add(sum_of(each_of_four<T>([&](int k) CROSSENT_LAMBDA {
        const ptrdiff_t i = whole + k * kLanes;
        return k + 1 < kRest ? term(i, FullLoad{}) : k + 1 == kRest ? term(i, last) : zero<T>();
      })));
    } else if (whole < classes) {
      lanes.add(last_group<1, T>(whole, classes, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
                  return Terms<T, 1>{{term(i, load)}};
                }).term[0]);
    }
    return lanes;
  }
  template <class Formula>
  CROSSENT_INLINE void write(ptrdiff_t r, Vec<T> h, Vec<T> l) const {
    const S *of_y = (const S*)(y + r * y_stride), *of_g = (const S*)(g + r * g_stride);
    S* to = (S*)(out + r * out_stride);
    const auto write_some = [&](ptrdiff_t i, const auto& load) CROSSENT_LAMBDA {
      load.store_back(to + i, Formula::gradient(Formula::probability(load(of_y + i, (T)0)), load(of_g + i, (T)0), h, l));
    };
    ptrdiff_t i = 0;
    if constexpr (kParts == 1) {  // else there are too few registers
      for (; i < whole; i += 4 * kLanes) write_some(i, FourLoad{});
    }
    if constexpr (kRest > 0) {
      for (; i < whole + (kRest - 1) * kLanes; i += kLanes) write_some(i, FullLoad{});
      write_some(i, last);
    } else {
      for (; i + kLanes <= classes; i += kLanes) write_some(i, FullLoad{});
      if (i < classes) write_some(i, PartialLoad{classes - i});
    }
  }
};
// Calls f with those of a group from `first` on.
template <class S, int kRest, class F>
CROSSENT_INLINE void with_row_pairs_of(const RowGroup<Compute<S>>& rows, ptrdiff_t first, F&& f) {
  constexpr ptrdiff_t lanes = Vec<Compute<S>>::kLanes;
  const Run& run = rows.run;
  const ptrdiff_t whole = (run.classes - (kRest > 0 ? 1 : 0)) / (4 * lanes) * (4 * lanes), rest = run.classes - whole;
  if constexpr (kRest > 1) {
    if (rest <= (kRest - 1) * lanes) return with_row_pairs_of<S, kRest - 1>(rows, first, f);
  }
  f(RowPairs<S, kRest>{rows.row(run.input, first),
                       rows.row(run.second, first),
                       (char*)rows.row(run.output, first),
                       run.input.row_stride,
                       run.second.row_stride,
                       run.output.row_stride,
                       between(0, rows.count - first, kTileRows<Compute<S>>),
                       run.classes,
                       whole,
                       {rest - (kRest - 1) * lanes}});
}
template <class T, class F>
CROSSENT_INLINE void with_row_pairs(const RowGroup<T>& rows, ptrdiff_t first, F&& f) {
  with_elements<T>(rows.run.input.type, [&](auto* typed) CROSSENT_LAMBDA {
    using S = typename Element<decltype(typed)>::type;
    with_row_pairs_of < S, sizeof(S) == sizeof(T) && kParts<4 ? 4 : 0>(rows, first, f);
  });
}
