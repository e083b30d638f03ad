// Columns: rows that lie one element apart in memory, since the class axis is not the last. They are read and written class by
// class, many rows at a time; of a tile each class is a vector as it lies.
#pragma once

// Whether the rows lie one element apart and are not better taken as contiguous ones.
template <class T>
CROSSENT_INLINE bool is_columns(const Operand& a, ptrdiff_t classes) {
  return a.row_stride == element_size(a.type) && (!is_contiguous(a) || classes < kChunk<T>);
}

// Where one class of the columns lies, from some row of a run on: in spans of neighbours, a sample's (see Run).
struct ColumnRows {
  char* data;
  ptrdiff_t left, span;         // rows of this span from here on, and of a whole one
  ptrdiff_t size, span_stride;  // bytes

  CROSSENT_INLINE ColumnRows(const Run& run, const Operand& a, ptrdiff_t first)
      : data(a.data - run.before * a.row_stride),
        left(run.span),
        span(run.span),
        size(a.row_stride),
        span_stride(a.span_stride) {
    skip(run.before + first);
  }
  CROSSENT_INLINE void skip(ptrdiff_t rows) {
    data += rows * size;
    left -= rows;
    if (left > 0) return;
    const ptrdiff_t spans = left == 0 ? 1 : 1 - left / span;  // most often 1, without a division
    data += spans * (span_stride - span * size);
    left += spans * span;
  }
  // Calls f(data, row, n) for the rows that lie together: n of them from number `row` of the `count` on.
  template <class F>
  CROSSENT_INLINE void for_each_piece(ptrdiff_t count, F&& f) const {
    char *p = data, *next = data + span_stride - (span - left) * size;
    for (ptrdiff_t row = 0, n = left < count ? left : count;; n = span < count - row ? span : count - row) {
      f(p, row, n);
      row += n;
      if (row >= count) return;
      p = next;
      next += span_stride;
    }
  }
};

// Cache lines of one class.
template <int kLocality>
CROSSENT_INLINE void prefetch_lines(const char* first, ptrdiff_t bytes) {
  const char* line = first - (uintptr_t)first % kVectorBytes;
  for (const char* end = first + bytes; line < end; line += kVectorBytes) __builtin_prefetch(line, 0, kLocality);
}
template <int kLocality>
CROSSENT_INLINE void prefetch_rows(const ColumnRows& rows, ptrdiff_t count) {
  rows.for_each_piece(count, [&](const char* first, ptrdiff_t, ptrdiff_t n)
                                 CROSSENT_LAMBDA { prefetch_lines<kLocality>(first, n * rows.size); });
}

// Columns that are read little by little, while other rows are computed, since memory is the slower of the two: all rows of a
// class before the next class, so that its neighbours in memory are touched together (of a large array each class is in a page
// of its own). The rows' maxima are raised meanwhile.
template <class T>
struct ColumnReader {
  ColumnRows from;
  Elements type;
  ptrdiff_t class_stride;
  ptrdiff_t rows, classes, size;  // size: elements from one tile to the next
  T *tiles, *maxima;
  bool distant, fetches_far;     // see Run
  ptrdiff_t done = 0, owed = 0;  // classes; rows

  CROSSENT_INLINE ColumnReader(const Run& run, const Operand& a, ptrdiff_t first, ptrdiff_t count, T* target,
                               ptrdiff_t tile_size, T* target_maxima, bool reaches_far)
      : from(run, a, first),
        type(a.type),
        class_stride(a.class_stride),
        rows(count),
        classes(run.classes),
        size(tile_size),
        tiles(target),
        maxima(target_maxima),
        distant(run.distant),
        fetches_far(reaches_far) {
    fill(maxima, count, (T)-__builtin_inf());
  }

  // What `vectors` more are worth; whole classes.
  CROSSENT_INLINE void read(ptrdiff_t vectors) {
    owed += vectors * kTileRows<T>;
    if (owed >= rows && done < classes) read_owed();
  }
  CROSSENT_INLINE void read_all() {
    owed = rows * classes;
    lies_together() ? read_owed() : read_spans();
  }
  // Whether all rows are in one span. Others are not to be read little by little: gcc knows which registers read_owed() leaves
  // alone, and where it called what reads spans, constants of loops that call it would have to be loaded after each call
  // (logsumexp of 4194 columns of 1000: 21.6 -> 23.5 cycles a vector).
  CROSSENT_INLINE bool lies_together() const { return from.left >= rows; }
  // Functions for all kernels: in each of them they were a sixth of all code, and no faster.
  CROSSENT_SHARED void read_owed() {
    with_elements<T>(type, [&](auto* typed) CROSSENT_LAMBDA { read_classes<true>(typed); });
  }
  CROSSENT_SHARED void read_spans() {
    with_elements<T>(type, [&](auto* typed) CROSSENT_LAMBDA { read_classes<false>(typed); });
  }
  // Tile by tile: class by class the same memory operations take longer (logsumexp of 1000 columns: 0.31 -> 0.34 ns per
  // element). kTogether: all rows lie in one span (with one loop for both cases such take 4 to 8 % longer).
  template <bool kTogether, class S>
  CROSSENT_INLINE void read_classes(const S*) {
    while (owed >= rows && done < classes) {
      const ptrdiff_t begin = done;
      for (; owed >= rows && done < classes && done - begin < kMostTogether; owed -= rows, ++done) {
        if (fetches_far) {
          prefetch<S, kTogether, 2>(done + kFarDistance);
        } else if (distant) {
          prefetch<S, kTogether, 3>(done + kDistance);
        }
      }
      T* const tile = tiles + begin * kTileRows<T>;
      if constexpr (kTogether) {
        read_span<S>(from.data + begin * class_stride, class_stride, rows, done - begin, tile, size, maxima);
      } else {
        ColumnRows at = from;
        at.data += begin * class_stride;
        read_tiles<S>(at, class_stride, rows, done - begin, tile, size, maxima);
      }
    }
  }
  // n classes of `count` rows that lie together.
  template <class S>
  static CROSSENT_INLINE void read_span(const char* p, ptrdiff_t stride, ptrdiff_t count, ptrdiff_t n, T* tile, ptrdiff_t size,
                                        T* maximum) {
    constexpr ptrdiff_t lanes = kTileRows<T>;
    for (; count >= lanes; count -= lanes, p += lanes * sizeof(S), tile += size, maximum += lanes) {
      read_vectors(p, stride, n, tile, maximum, [](const char* at) CROSSENT_LAMBDA { return load((const S*)at); });
    }
    if (count == 0) return;
    read_vectors(p, stride, n, tile, maximum, [=](const char* at) CROSSENT_LAMBDA { return load_some((const S*)at, count); });
  }
  template <class S>
  static CROSSENT_INLINE void read_tiles(ColumnRows at, ptrdiff_t stride, ptrdiff_t count, ptrdiff_t n, T* tile, ptrdiff_t size,
                                         T* maximum) {
    constexpr ptrdiff_t lanes = kTileRows<T>;
    for (ptrdiff_t rows; count > 0; count -= rows) {
      const ptrdiff_t whole = (at.left < count ? at.left : count) / lanes;
      rows = whole > 0 ? whole * lanes : between(1, count, lanes);
      if (whole > 0) {
        read_span<S>(at.data, stride, rows, n, tile, size, maximum);
      } else {
        read_pieces<S>(at, stride, rows, n, tile, maximum);
      }
      at.skip(rows);
      tile += (whole > 0 ? whole : 1) * size;
      maximum += rows;
    }
  }
  template <class Load>
  static CROSSENT_INLINE void read_vectors(const char* p, ptrdiff_t stride, ptrdiff_t n, T* tile, T* maximum,
                                           Load&& load_rows) {
    Vec<T> max = load(maximum);
    for (; n >= 2; n -= 2, p += 2 * stride, tile += 2 * kTileRows<T>) {
      const Vec<T> v = load_rows(p), w = load_rows(p + stride);
      store(tile, v);
      store(tile + kTileRows<T>, w);
      max = max_or_second(w, max_or_second(v, max));
    }
    if (n > 0) {
      const Vec<T> v = load_rows(p);
      store(tile, v);
      max = max_or_second(v, max);
    }
    store(maximum, max);
  }
  // Of a tile that is in several spans: each piece as a whole vector, over which the next one goes, and then the next class;
  // the last class to its end.
  template <class S>
  static CROSSENT_SHARED void read_pieces(const ColumnRows& at, ptrdiff_t stride, ptrdiff_t count, ptrdiff_t n, T* tile,
                                          T* maximum) {
    for (ptrdiff_t c = 0; c < n; ++c) {
      at.for_each_piece(count, [&](const char* p, ptrdiff_t row, ptrdiff_t together) CROSSENT_LAMBDA {
        const Vec<T> v = load_some((const S*)(p + c * stride), together);
        T* const piece = tile + c * kTileRows<T> + row;
        if (c + 1 < n) {
          store(piece, v);
        } else {
          store_partial(piece, kTileRows<T> - row, v);
        }
      });
    }
    Vec<T> max = load(maximum);
    for (ptrdiff_t c = 0; c < n; ++c) max = max_or_second(load(tile + c * kTileRows<T>), max);
    store(maximum, max);
  }
  template <class S, bool kTogether, int kLocality>
  CROSSENT_INLINE void prefetch(ptrdiff_t c) const {
    // Beyond the last class come the rows of the next group; if all lie together, those are taken to follow in the same span,
    // since to ask costs more than what is fetched in vain at its end (logsumexp of 40000 columns of 100: 2 to 7 %).
    ptrdiff_t beyond = 0;
    for (; c >= classes; c -= classes) beyond += rows;
    if constexpr (kTogether) {
      prefetch_lines<kLocality>(from.data + c * class_stride + beyond * (ptrdiff_t)sizeof(S), rows * (ptrdiff_t)sizeof(S));
    } else {
      ColumnRows of_class = from;
      of_class.data += c * class_stride;
      of_class.skip(beyond);
      prefetch_rows<kLocality>(of_class, rows);
    }
  }
  // Classes that are on their way into the first-level cache, or from memory into the second (Zen 4, softmax of 40000 columns
  // of 100, cycles a vector: near 45, both 44, far 38; see Tiles::prefetch_far), and those that are read at a time where all
  // are owed. What is in the second-level cache by now need not be asked for (logsumexp of 10 classes: 32.0 -> 30.7, of spans
  // of 16 rows 37.8 -> 32.2).
  static constexpr ptrdiff_t kDistance = 4, kFarDistance = 16, kMostTogether = 16;
};

// Columns that will be written: their cache lines are fetched into the second-level cache little by little, while the results
// are computed. Written without that, each line would be waited for.
struct ColumnFetcher {
  ColumnRows at;
  ptrdiff_t class_stride, rows, classes;
  ptrdiff_t done = 0, owed = 0;  // classes; rows

  // What so many rows of a class more are worth; whole classes.
  CROSSENT_INLINE void fetch(ptrdiff_t more) {
    owed += more;
    if (owed >= rows && done < classes) fetch_owed();
  }
  CROSSENT_SHARED void fetch_owed() {
    for (; owed >= rows && done < classes; owed -= rows, ++done, at.data += class_stride) {
      if (at.left >= rows) {
        prefetch_lines<2>(at.data, rows * at.size);
      } else {
        prefetch_rows<2>(at, rows);
      }
    }
  }
};

// Columns from the tile of their rows.
template <class T>
CROSSENT_SHARED void store_columns(const T* tile, const ColumnRows& at, Elements type, ptrdiff_t class_stride, ptrdiff_t rows,
                                   ptrdiff_t classes) {
  with_elements<T>(type, [&](auto* typed) CROSSENT_LAMBDA {
    at.for_each_piece(rows, [&](char* p, ptrdiff_t row, ptrdiff_t n) CROSSENT_LAMBDA {
      for (ptrdiff_t c = 0; c < classes; ++c) {
        const Vec<T> v = load(tile + c * kTileRows<T> + row);  // perhaps beyond the tile, where scratch has a vector more
        if (n == kTileRows<T>) {
          store((decltype(typed))(p + c * class_stride), v);
        } else {
          store_some((decltype(typed))(p + c * class_stride), n, v);
        }
      }
    });
  });
}
