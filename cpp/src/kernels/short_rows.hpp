// The statistics of contiguous rows that are short but fill some vectors, or that are few: vectors run along the classes, as
// for long rows, and what is done once a row (the largest lane, the sum of the lanes) is done for as many rows as a vector has
// lanes together. In float32: rows of as many float64 have twice the vectors. Against tiles it saves the transposition there
// and back (softmax of 192 classes: 0.41 -> 0.33 ns per element).
#pragma once

// The sums of the lanes of as many rows as a vector has lanes.
struct LaneSums {
  static constexpr ptrdiff_t kHalf = 8 * 8;
  alignas(kVectorBytes) double by_row[2 * kHalf];  // 16 rows of 8 lanes

  CROSSENT_INLINE void set(ptrdiff_t r, const LaneSum<float>& sum) { store(by_row + 8 * r, sum.sum); }
  CROSSENT_INLINE TileSum<float> total() const {
    alignas(kVectorBytes) double by_lane[2 * kHalf], largest[8];
    for (ptrdiff_t half = 0; half < 2 * kHalf; half += kHalf) {
      transpose_to_tile(by_row, (const char*)(by_row + half), kVectorBytes, 8, by_lane + half, largest);
    }
    TileSum<float> lane[8];
    for (ptrdiff_t j = 0; j < 8; ++j) lane[j].set(load(by_lane + 8 * j), load(by_lane + kHalf + 8 * j));
    return joined(lane, 8);
  }
};

// The largest of each lane of a row, as it is read little by little.
struct LaneMaxima {
  using T = float;
  static constexpr ptrdiff_t kLanes = Vec<T>::kLanes;
  static constexpr T kLowest = -__builtin_inff();
  const T* row;
  Vec<T> max = splat(kLowest);

  CROSSENT_INLINE explicit LaneMaxima(const T* x) : row(x) {}
  // The elements from number i on that `load` loads.
  template <class Load>
  CROSSENT_INLINE void look_at(ptrdiff_t i, const Load& load) {
    raise(load(row + i, kLowest));
  }
  CROSSENT_INLINE void raise(const Vec<T>& v) { max = max_or_second(v, max); }
  CROSSENT_INLINE void raise(const Four<T>& v) {
    for (const Vec<T>& one : v.of) raise(one);
  }
  // All of them at once.
  static CROSSENT_INLINE void find(const T* x, ptrdiff_t classes, T* maxima) {
    LaneMaxima found(x);
    // One vector from the beginning of the row, then whole cache lines: 16 bytes into one, as large arrays of NumPy lie, each
    // vector would take two of them (logsumexp of 1000 classes: 0.28 -> 0.26 ns per element).
    found.raise(load_partial(x, classes, kLowest));
    Four<T> of_four{{found.max, found.max, found.max, found.max}};
    ptrdiff_t i = (ptrdiff_t)(-(uintptr_t)x % kVectorBytes / sizeof(T));
    for (; i + 4 * kLanes <= classes; i += 4 * kLanes) of_four = max_or_second(load_four(x + i), of_four);
    for (; i + kLanes <= classes; i += kLanes) found.raise(load(x + i));
    if (i < classes) found.raise(load_partial(x + i, classes - i, kLowest));
    found.raise(of_four);
    found.write(maxima);
  }
  CROSSENT_INLINE void write(T* maxima) const { store(maxima, max); }
};
// Of no row.
struct NoMaxima {
  CROSSENT_INLINE explicit NoMaxima(const float*) {}
  template <class Load>
  CROSSENT_INLINE void look_at(ptrdiff_t, const Load&) {}
  static CROSSENT_INLINE void find(const float*, ptrdiff_t, float*) {}
  CROSSENT_INLINE void write(float*) const {}
};

// As many rows of a group as a vector has lanes.
struct ShortRows {
  using T = float;
  static constexpr ptrdiff_t kRows = kTileRows<T>, kLanes = Vec<T>::kLanes;
  ptrdiff_t count, classes;
  bool fetches_far;
  const T* logits[kRows];  // null for a row that is not to be read
  T* kept[kRows];
  const char *ahead[kRows], *soon[kRows];
  // Where `looks`: the row that takes this one's place among those that come next or, if there is none or it is not to be read,
  // this one, or null. While the processor waits for exponentials, it is looked at for its maximum (Zen 4, cycles a vector:
  // logsumexp of 1000 classes 15.5 -> 14.4, softmax 19.7 -> 18.8, of 256 16.4 -> 15.9 and 21.8 -> 21.2, 16 MB of 256 23.5 ->
  // 22.9). Not where that costs as much: of fewer classes, and where vectors are more than one register.
  const T* after[kRows];
  bool looks;

  template <class Live>
  CROSSENT_INLINE ShortRows(const RowGroup<T>& rows, ptrdiff_t first, Live&& live)
      : count(between(0, rows.count - first, kRows)), classes(rows.run.classes), fetches_far(rows.run.fetches_far) {
    const ptrdiff_t following = rows.run.rows - (rows.first + first + count);
    looks = following > 0 && looks_ahead(rows.run);
    for (ptrdiff_t r = 0; r < count; ++r) {
      const ptrdiff_t lane = first + r;
      const RowInput<T> x = rows.input(lane);
      kept[r] = rows.kept_of(lane);
      const bool is_read = live(lane), next_is_read = r < following && live(lane + count);
      after[r] = next_is_read ? (const T*)rows.row(rows.run.input, lane + count) : is_read ? (const T*)x.data : nullptr;
      ahead[r] = rows.ahead(lane) + (looks ? kFurtherBytes : 0);
      soon[r] = rows.soon(lane);
      if (!is_read) {
        logits[r] = nullptr;
      } else if (x.type == Elements::f32) {
        logits[r] = (const T*)x.data;
      } else {
        // Converted once, to where the exponentials will take their place.
        convert_to_compute(x.type, x.data, classes, kept[r]);
        logits[r] = kept[r];
      }
    }
  }
  static CROSSENT_INLINE bool looks_ahead(const Run& run) {
    constexpr ptrdiff_t kFewest = 208;
    return kParts == 1 && run.input.type == Elements::f32 && run.classes >= kFewest;
  }
  CROSSENT_INLINE bool has(ptrdiff_t r) const { return r < count && logits[r]; }

  // From those of the lanes, which may be known.
  CROSSENT_SHARED void find_maxima(T* max, T* by_lane, bool known) const {
    alignas(kVectorBytes) T transposed[kRows * kLanes];
    for (ptrdiff_t r = 0; r < kRows; ++r) {
      if (!has(r)) {
        store(by_lane + r * kLanes, zero<T>());
      } else if (!known) {
        LaneMaxima::find(logits[r], classes, by_lane + r * kLanes);
      }
    }
    transpose_to_tile(by_lane, (const char*)by_lane, kVectorBytes, kLanes, transposed, max);
  }

  // The lines of what comes next, and of what will be written, for so many vectors from element i on.
  CROSSENT_INLINE void fetch(const char* next, const char* later, ptrdiff_t i, ptrdiff_t vectors) const {
    for (ptrdiff_t line = i; line < i + vectors * kLanes; line += kLanes) {
      const ptrdiff_t offset = line * (ptrdiff_t)sizeof(T);
      __builtin_prefetch(next + offset);
      if (fetches_far) fetch_far(next + offset);
      if (later) __builtin_prefetch(later + offset, 1);
      if (later && fetches_far) fetch_far(later + offset);
    }
  }

  // What is added of one vector, and how many others than maxima it has.
  template <bool kKeep, class Load>
  static CROSSENT_INLINE Vec<T> others_of(Vec<T> v, Vec<T> e, Vec<T> max, T* to, const Load& load, ptrdiff_t& others) {
    const Mask<T> is_other = v != max;
    if constexpr (kKeep) load.store_back(to, e);
    others += __builtin_popcount(lane_bits(is_other));
    return select(is_other, e, zero<T>());
  }

  // The sum over row r of all classes but the maxima, which are counted. Without a branch on where they are: in short rows it
  // would often be mispredicted. InTurns: no other, but what depends on it is compiled only where it fits.
  template <bool kKeep, class Next, class InTurns = ExponentialsInTurns<T>>
  CROSSENT_INLINE void sum_row_of(ptrdiff_t r, T max, const Exponential<T>& exponential, Sums<LaneSum<T>, 1>& sum, double& ties,
                                  Next& next_row) const {
    const T* x = logits[r];
    T* to = kept[r];
    const char *next = ahead[r], *later = soon[r];
    const Vec<T> m = splat(max);
    ptrdiff_t others = 0, i = 0, counted = padded<T>(classes);
    LaneSum<T> lanes;
    lanes.clear();
    InTurns in_turns(exponential, x, classes > 2 * kLanes);
    const auto add_four = [&](auto load, auto exponentials_of) CROSSENT_LAMBDA {
      fetch(next, later, i, 4);
      next_row.look_at(i, load);
      const Four<T> v = load(x + i, (T)-__builtin_inf());
      // Asked first: what is needed afterwards is then no vectors (softmax of 320: 0.31 -> 0.30 ns per element).
      Lanes other[4];
      for (int k = 0; k < 4; ++k) other[k] = unequal_lanes(v.of[k], m);
      others += count_lanes(other);
      const Four<T> e = exponentials_of(v);
      if constexpr (kKeep) load.store_back(to + i, e);
      lanes.add(sum_of(each_of_four<T>([&](int k) CROSSENT_LAMBDA { return only_lanes(other[k], e.of[k]); })));
    };
    const auto with_next = [&](const Four<T>& v)
                               CROSSENT_LAMBDA { return in_turns(v, classes - i > 6 * kLanes ? x + i + 4 * kLanes : x); };
    // With AVX2 all fours, the last of which begins something for nothing: code for it apart costs more (200 classes: softmax
    // 0.67 -> 0.75; but AVX-512 0.35 -> 0.33).
    for (; classes - i >= (kParts == 1 ? 6 * kLanes + 1 : 4 * kLanes); i += 4 * kLanes) add_four(FourLoad{}, with_next);
    if constexpr (kParts == 1) {
      const auto last = [&](const Four<T>& v) CROSSENT_LAMBDA { return in_turns.last(v); };
      const ptrdiff_t left = classes - i, end = i + 4 * kLanes;
      if (left > 4 * kLanes) {
        // Up to two vectors more, begun before the last four are ended (150 classes: 0.36 -> 0.32).
        const PartialFourLoad beyond{classes - end};
        const PartialLoad load_v = beyond.of_vector<T>(0), load_w = beyond.of_vector<T>(1);
        const Vec<T> v = load_v(x + end, (T)-__builtin_inf()), w = load_w(x + end + kLanes, (T)-__builtin_inf());
        fetch(next, later, end, 2);
        next_row.look_at(end, load_v);
        next_row.look_at(end + kLanes, load_w);
        add_four(FourLoad{}, [&](const Four<T>& four) CROSSENT_LAMBDA { return in_turns.with_next(four, {{v, w}}); });
        const auto e = in_turns.those_begun();
        lanes.add(others_of<kKeep>(v, e.of[0], m, to + end, load_v, others) +
                  others_of<kKeep>(w, e.of[1], m, to + end + kLanes, load_w, others));
        counted = end + 2 * kLanes;
      } else if (left == 4 * kLanes) {
        add_four(FourLoad{}, last);
      } else if (left > 2 * kLanes) {
        // Three vectors and more take less time as four than one after the other (250 classes: 0.38 -> 0.36).
        add_four(PartialFourLoad{left}, last);
        counted = end;
      }
      if (left > 2 * kLanes) i = classes;
    }
    if (i < classes) {
      lanes.add(last_group<1, T>(i, classes, [&](ptrdiff_t at, auto load) CROSSENT_LAMBDA {
                  fetch(next, later, at, 1);
                  next_row.look_at(at, load);
                  const Vec<T> v = load(x + at, (T)-__builtin_inf());
                  return Terms<T, 1>{{others_of<kKeep>(v, exponential(v), m, to + at, load, others)}};
                }).term[0]);
    }
    sum.of[0] = lanes;
    ties = (double)(counted - others);
  }

  // False, and nothing is done, where rows need Exponential::of_any. `next_maxima`: of the lanes of the rows after these, if
  // they are looked at.
  template <bool kKeep>
  CROSSENT_INLINE bool sum(const T* max, double* total, double* total_low, double* ties, T* next_maxima) const {
    if constexpr (kParts == 1) {
      if (looks) return sum_and_look<kKeep, LaneMaxima>(max, total, total_low, ties, next_maxima);
    }
    return sum_and_look<kKeep, NoMaxima>(max, total, total_low, ties, next_maxima);
  }
  template <bool kKeep, class Next>
  CROSSENT_SHARED bool sum_and_look(const T* max, double* total, double* total_low, double* ties, T* next_maxima) const {
    const Vec<T> m = load(max), none = zero<T>(), origin = select(m > splat((T)-__builtin_inf()), m, none);
    if (!is_small_origin(origin)) return false;
    const Exponential<T> of_rows(origin);
    alignas(kVectorBytes) T minus_origin[kRows], lowest[kRows], coarse[kRows], fine[kRows];
    store(minus_origin, of_rows.minus_origin);
    store(lowest, of_rows.lowest);
    store(coarse, of_rows.coarse);
    store(fine, of_rows.fine);
    LaneSums sums;
    for (ptrdiff_t r = 0; r < kRows; ++r) {
      Sums<LaneSum<T>, 1> sum;
      sum.clear();
      ties[r] = 1;
      const Exponential<T> exponential(splat(minus_origin[r]), splat(lowest[r]), splat(coarse[r]), splat(fine[r]));
      if (has(r)) {
        Next next_row(after[r]);
        sum_row_of<kKeep>(r, max[r], exponential, sum, ties[r], next_row);
        next_row.write(next_maxima + r * kLanes);
      } else if (r < count && after[r]) {
        Next::find(after[r], classes, next_maxima + r * kLanes);
      }
      sums.set(r, sum.of[0]);
    }
    sums.total().write(total, total_low);
    return true;
  }
};

// The statistics of the rows of a group, as many as lanes at a time. Their exponentials are in `kept` where kKeep.
template <bool kKeep, class Live>
CROSSENT_INLINE void short_row_statistics(const RowGroup<float>& rows, GroupStatistics<float>& group, Live&& live) {
  for (ptrdiff_t first = 0; first < rows.count; first += ShortRows::kRows) {
    const ShortRows some(rows, first, live);
    some.find_maxima(group.max + first, group.lane_maxima, group.looked_at == rows.first + first);
    const bool done =
        some.sum<kKeep>(group.max + first, group.sum + first, group.sum_low + first, group.ties + first, group.lane_maxima);
    group.looked_at = done && some.looks ? rows.first + first + some.count : -1;
    if (done) continue;
    for (ptrdiff_t lane = first; lane < first + some.count; ++lane) {
      if (!live(lane)) continue;
      row_statistics(rows.input(lane), rows.run.classes, kKeep ? rows.kept_of(lane) : nullptr, group, lane, rows.soon(lane),
                     NoBlockStep{});
    }
  }
}
