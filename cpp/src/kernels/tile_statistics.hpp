// The statistics of rows that come in tiles: vectors run across the rows, so that all is done for as many rows at once as a
// vector has lanes.
#pragma once

// The tiles of a group. Row r of tile t is row t * kTileRows + r of the group. Short loops take it by value: what they store
// might be a part of it, for all that the compiler knows, and it would be read again and again (10 to 16 classes: 5 % of
// softmax).
template <class T>
struct Tiles {
  ptrdiff_t count, classes, size;  // size: elements from one tile to the next
  const T *logits, *second;        // second: where an operation has such
  const T *maxima, *second_maxima;
  T* kept;                                  // room for a number an element
  const char *ahead, *second_ahead, *soon;  // what will be read and written next, a cache line for each vector; or null
  bool distant, fetches_far;                // it is not in the second-level cache; see Run
  ColumnReader<T>* next;                    // what will be computed next, where it is read meanwhile; or null
  ColumnFetcher* output;                    // where the results will be written, if that is to be fetched meanwhile; or null
  CROSSENT_INLINE ptrdiff_t lane(ptrdiff_t t) const { return t * kTileRows<T>; }
  // To be called once for every vector of the group, for a few at a time: number `first` and the n - 1 that follow.
  template <bool kNear = true>
  CROSSENT_INLINE void meanwhile(ptrdiff_t first, ptrdiff_t n) const {
    prefetch<kNear>(first, n);
    work_on_columns(n);
  }
  template <bool kNear = true>
  CROSSENT_INLINE void prefetch(ptrdiff_t first, ptrdiff_t n) const {
    if (fetches_far) return prefetch_far<kNear>(first, n);
    if (ahead) fetch_lines<0>(ahead + first * kVectorBytes, n);
    if (soon) fetch_lines<1>(soon + first * kVectorBytes, n);
  }
  // Four at a time, perhaps a few of those that come next.
  template <int kToWrite>
  static CROSSENT_INLINE void fetch_lines(const char* p, ptrdiff_t n) {
    for (; n > 0; n -= 4, p += 4 * kVectorBytes) {
      for (int line = 0; line < 4; ++line) __builtin_prefetch(p + line * kVectorBytes, kToWrite);
    }
  }
  // Near and far in turns: one after the other is slower, and so are loops for both cases where all is near. Far alone where
  // much is computed of each line, since what is asked for near waits for memory in the first-level cache, which can wait for
  // few (Zen 4, softmax of 16 MB, near and far -> far: 64 classes 42 -> 34 cycles a vector, but 10 48 -> 53).
  template <bool kNear = true>
  CROSSENT_SHARED void prefetch_far(ptrdiff_t first, ptrdiff_t n) const {
    asm volatile("");  // gcc takes a function that only prefetches for one without effect, and drops the call
    const ptrdiff_t begin = first * kVectorBytes, end = begin + n * kVectorBytes;
    fetch_lines_far<kNear, 0>(ahead, begin, end);
    fetch_lines_far<kNear, 0>(second_ahead, begin, end);
    fetch_lines_far<kNear, 1>(soon, begin, end);
  }
  template <bool kNear, int kToWrite>
  static CROSSENT_INLINE void fetch_lines_far(const char* p, ptrdiff_t begin, ptrdiff_t end) {
    for (ptrdiff_t line = begin; p && line < end; line += kVectorBytes) {
      if constexpr (kNear) __builtin_prefetch(p + line, kToWrite);
      fetch_far(p + line);
    }
  }
  CROSSENT_INLINE void work_on_columns(ptrdiff_t n) const {
    if (next) next->read(n);
    if (output) output->fetch(n * kTileRows<T>);
  }
};

template <class T>
CROSSENT_INLINE void copy_maxima(Tiles<T> tiles, const T* maxima, T* to) {
  for (ptrdiff_t t = 0; t < tiles.count; ++t) store(to + tiles.lane(t), load(maxima + tiles.lane(t)));
}

// Whether the maxima of all tiles are such as Exponential takes for an origin.
template <class T>
CROSSENT_INLINE bool are_small_origins(Tiles<T> tiles, const T* max) {
  Vec<T> largest = splat((T)-__builtin_inf()), largest_negated = largest;
  for (ptrdiff_t t = 0; t < tiles.count; ++t) {
    const Vec<T> m = load(max + tiles.lane(t));
    largest = max_or_second(m, largest);
    largest_negated = max_or_second(zero<T>() - m, largest_negated);
  }
  return is_small_origin(max_or_second(largest_negated, largest));
}

// Calls add(t, exponential) for each tile from `first` on: exponential(x) is exp(x - max) * 2**bias, the origin being 0 where
// the maximum is -inf.
template <class T, class Add>
CROSSENT_INLINE void with_exponentials(const Tiles<T>& tiles, const T* max, ptrdiff_t first, bool small, Add&& add) {
  for (ptrdiff_t t = first; t < tiles.count; ++t) {
    const Vec<T> m = load(max + tiles.lane(t));
    if (small) {
      add(t, Exponential<T>(m));
    } else {
      const Exponential<T> exponential(select(m > splat((T)-__builtin_inf()), m, zero<T>()));
      add(t, [&](const auto& x) CROSSENT_LAMBDA { return exponential.of_any(x); });
    }
  }
}

// The sums over all classes but the maxima, of tiles of at most kMost classes, from their exponentials.
template <ptrdiff_t kMost, class T>
CROSSENT_SHARED void sum_kept_tiles(Tiles<T> tiles, GroupStatistics<T>& group) {
  const Vec<T> one = splat((T)1), none = zero<T>();
  for (ptrdiff_t t = 0; t < tiles.count; ++t) {
    const T *tile = tiles.logits + t * tiles.size, *kept = tiles.kept + t * tiles.size;
    const Vec<T> m = load(group.max + tiles.lane(t));
    Vec<T> others = none;
    const TileSum<T> sum = sum_short_tile<T, kMost>([&](ptrdiff_t c) CROSSENT_LAMBDA {
      const Mask<T> is_other = load(tile + c * kTileRows<T>) != m;
      others = select(is_other, others + one, others);
      return select(is_other, load(kept + c * kTileRows<T>), none);
    });
    sum.write(group.sum + tiles.lane(t), group.sum_low + tiles.lane(t));
    store_as_double(group.ties + tiles.lane(t), splat((T)kMost) - others);
  }
}

// The exponentials of tiles of at most kShortTile classes: of four tiles together, since one tile has few to go on with while
// others wait.
template <class T>
CROSSENT_INLINE void keep_short_tiles(Tiles<T> tiles, const T* max) {
  const bool small = are_small_origins(tiles, max);
  ptrdiff_t t = 0;
  // Not where a vector takes four registers.
  for (; kParts < 4 && small && t + 4 <= tiles.count; t += 4) {
    const T* of_tiles = max + tiles.lane(t);
    constexpr ptrdiff_t rows = kTileRows<T>;
    const auto exponential =
        four_exponentials({Exponential<T>(load(of_tiles)), Exponential<T>(load(of_tiles + rows)),
                           Exponential<T>(load(of_tiles + 2 * rows)), Exponential<T>(load(of_tiles + 3 * rows))});
    for (ptrdiff_t c = 0; c < tiles.classes; ++c) {
      const ptrdiff_t offset = t * tiles.size + c * rows;
      tiles.prefetch(t * tiles.classes + 4 * c, 4);
      const Four<T> x = each_of_four<T>([&](int i) CROSSENT_LAMBDA { return load(tiles.logits + offset + i * tiles.size); });
      const Four<T> e = exponential(x);
      for (int i = 0; i < 4; ++i) store(tiles.kept + offset + i * tiles.size, e.of[i]);
    }
    tiles.work_on_columns(tiles.count * tiles.classes);  // all: they are few
  }
  with_exponentials(tiles, max, t, small, [&](ptrdiff_t tile, auto exponential) CROSSENT_LAMBDA {
    for (ptrdiff_t c = 0; c < tiles.classes; ++c) {
      const ptrdiff_t i = tile * tiles.size + c * kTileRows<T>;
      store(tiles.kept + i, exponential(load(tiles.logits + i)));
    }
    tiles.meanwhile(tile * tiles.classes, tiles.classes);
  });
}

// The sums over all classes but the maxima, of such tiles. There is NaN in `logits` and 0 in `kept` for classes that are
// missing.
template <class T>
CROSSENT_INLINE void sum_short_tiles(const Tiles<T>& tiles, GroupStatistics<T>& group) {
  keep_short_tiles(tiles, group.max);
  if (tiles.classes <= 2) return sum_kept_tiles<2>(tiles, group);
  if (tiles.classes <= 4) return sum_kept_tiles<4>(tiles, group);
  if (tiles.classes <= 8) return sum_kept_tiles<8>(tiles, group);
  if (tiles.classes <= 12) return sum_kept_tiles<12>(tiles, group);
  sum_kept_tiles<kShortTile>(tiles, group);
}

// The exponentials of a block of classes of a longer tile, from number `first` on; what goes on meanwhile goes on.
template <class T, class Exp>
CROSSENT_INLINE void exponentials_of_block(const Tiles<T>& tiles, ptrdiff_t t, ptrdiff_t first, ptrdiff_t n, T* result,
                                           const Exp& exponential) {
  constexpr ptrdiff_t rows = kTileRows<T>;
  // Two classes of columns are read at a time where a group has two tiles or more: else cache lines come too many or too late
  // (100 x 16384 and 1000 x 4100: up to a tenth more). Whole fours, which follow one another.
  const ptrdiff_t few = tiles.next || tiles.output ? between(4, 2 * tiles.count, 16) / 4 * 4 : 16;
  const T* x = tiles.logits + t * tiles.size + first * rows;
  ExponentialsInTurns<T, Exp> in_turns(exponential, x, n >= 4);
  for (ptrdiff_t begin = 0, c = 0; begin < n; begin = c) {
    const ptrdiff_t end = between(0, begin + few, n);
    for (; kParts < 4 && c + 4 <= end; c += 4) {
      const ptrdiff_t next = c + 6 <= n ? c + 4 : c;
      store_four(result + c * rows, in_turns(load_four(x + c * rows), x + next * rows));
    }
    for (; c < end; ++c) store(result + c * rows, exponential(load(x + c * rows)));
    tiles.template meanwhile<false>(t * tiles.classes + first + begin, end - begin);
  }
}

// The sums over all classes but the maxima, of longer tiles. The exponentials of all classes are kept where asked for, of
// others those of one block.
template <bool kKeep, class T>
CROSSENT_INLINE void sum_long_tiles(const Tiles<T>& tiles, GroupStatistics<T>& group) {
  const Vec<T> one = splat((T)1), none = zero<T>();
  const bool small = are_small_origins(tiles, group.max);
  with_exponentials(tiles, group.max, 0, small, [&](ptrdiff_t t, auto exponential) CROSSENT_LAMBDA {
    const T* x = tiles.logits + t * tiles.size;
    T* const kept = tiles.kept + t * tiles.size;
    T* e = kept;
    const Vec<T> max = load(group.max + tiles.lane(t));
    Vec<T> others = none;
    TileSum<T> sum;
    sum_tile<1>(
        &sum, tiles.classes,
        [&](ptrdiff_t c) CROSSENT_LAMBDA {
          const Mask<T> is_other = load(x + c * kTileRows<T>) != max;
          others = select(is_other, others + one, others);
          return Terms<T, 1>{{select(is_other, load(e + c * kTileRows<T>), none)}};
        },
        [&](ptrdiff_t first, ptrdiff_t n) CROSSENT_LAMBDA {
          if constexpr (!kKeep) e = kept - first * kTileRows<T>;
          exponentials_of_block(tiles, t, first, n, e + first * kTileRows<T>, exponential);
        });
    sum.write(group.sum + tiles.lane(t), group.sum_low + tiles.lane(t));
    store_as_double(group.ties + tiles.lane(t), splat((T)tiles.classes) - others);
  });
}

// The statistics of the rows of tiles of at most kBlock classes. Their exponentials are in `kept` where kKeep.
template <bool kKeep, class T>
CROSSENT_SHARED void tile_statistics(const Tiles<T>& tiles, GroupStatistics<T>& group) {
  copy_maxima(tiles, tiles.maxima, group.max);
  if (tiles.classes <= kShortTile) {
    sum_short_tiles(tiles, group);
  } else {
    sum_long_tiles<kKeep>(tiles, group);
  }
}
