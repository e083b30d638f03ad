// The outputs of a group's tiles: in columns, or in contiguous rows.
#pragma once

// Columns are written in pieces of so many classes, tile by tile: neighbours in memory together (1000 x 4100: 1.9 ns per
// element with 8 classes, 1.0 with 2; softmax of 10 x 4100: 0.61 and 0.57); of up to twice as many in one (4 x 4100: 0.67 ->
// 0.64), and where few tiles lie together (axis 1 of 512 x 100 x 16: 0.69 -> 0.58, of 512 x 100 x 32 0.60 -> 0.56).
constexpr ptrdiff_t kColumnClasses = 2, kFewTiles = 4;

// The output of tiles `first`, …, `last` - 1; `step` bytes from one to the next.
template <class Op, class T, class Output>
CROSSENT_SHARED void write_some_tiles(const Op& op, const Tiles<T>& tiles, ptrdiff_t first, ptrdiff_t last, Output out,
                                      ptrdiff_t step) {
  for (ptrdiff_t t = first; t < last; ++t, out.data += step) op.tile_output(tiles, t, out);
}

// The output of whole tiles `first`, …, `last` - 1 in columns that lie together from `base` on, a few classes of all of them at
// a time: straight to where it belongs, or, of another type, by way of the place of its logits.
template <class Op, class T>
CROSSENT_INLINE void write_columns(const Op& op, const Run& run, const Tiles<T>& tiles, ptrdiff_t first, ptrdiff_t last,
                                   char* base, T* logits) {
  const Operand& a = run.output;
  const bool same_type = element_size(a.type) == (ptrdiff_t)sizeof(T);
  const bool stream = run.stream && a.class_stride % kVectorBytes == 0 && (uintptr_t)base % kVectorBytes == 0;
  const bool in_one = run.classes <= 2 * kColumnClasses || run.span <= kFewTiles * kTileRows<T>;
  const ptrdiff_t step = in_one ? run.classes : kColumnClasses;
  for (ptrdiff_t c = 0; c < run.classes; c += step) {
    const ptrdiff_t end = between(0, c + step, run.classes);
    if (same_type) {
      const ColumnsOfTile<T> out{base, a.class_stride, c, end, stream};
      write_some_tiles(op, tiles, first, last, out, kVectorBytes);
      continue;
    }
    const ColumnsOfTile<T> out{(char*)(logits + first * tiles.size), kVectorBytes, c, end, false};
    write_some_tiles(op, tiles, first, last, out, tiles.size * (ptrdiff_t)sizeof(T));
    for (ptrdiff_t k = c; k < end; ++k) {
      with_elements<T>(a.type, [&](auto* typed) CROSSENT_LAMBDA {
        auto column = (decltype(typed))(base + k * a.class_stride);
        const T* of_class = logits + k * kTileRows<T>;
        ptrdiff_t t = first;
        for (; t + 1 < last; t += 2, column += 2 * kTileRows<T>) {
          store_pair(column, load(of_class + t * tiles.size), load(of_class + (t + 1) * tiles.size));
        }
        if (t < last) store(column, load(of_class + t * tiles.size));
      });
    }
  }
}

// The output of a tile in the place of its logits.
template <class Op, class T>
CROSSENT_INLINE T* write_over_logits(const Op& op, const Tiles<T>& tiles, ptrdiff_t t, T* logits) {
  T* tile = logits + t * tiles.size;
  write_some_tiles(op, tiles, t, t + 1, ColumnsOfTile<T>{(char*)tile, kVectorBytes, 0, tiles.classes, false}, 0);
  return tile;
}

// The output of a group in columns: of whole tiles that lie in one span where it belongs at once.
template <class Op, class T>
CROSSENT_INLINE void write_tiles_of_columns(const Op& op, const Run& run, const Tiles<T>& tiles, ptrdiff_t first,
                                            ptrdiff_t count, T* logits) {
  ColumnRows at(run, run.output, first);
  for (ptrdiff_t t = 0, next; t < tiles.count; t = next) {
    const ptrdiff_t rows = count - tiles.lane(t), together = at.left < rows ? at.left : rows;
    next = t + together / kTileRows<T>;
    if (next > t) {
      write_columns(op, run, tiles, t, next, at.data, logits);
    } else {
      next = t + 1;
      const T* tile = write_over_logits(op, tiles, t, logits);
      store_columns(tile, at, run.output.type, run.output.class_stride, between(1, rows, kTileRows<T>), run.classes);
    }
    at.skip(tiles.lane(next - t));
  }
}

// The output of a group: whole tiles of cheap elements go to contiguous rows at once, others by way of the place of their
// logits.
template <class Op, class T>
CROSSENT_INLINE void write_tiles(const Op& op, const Run& run, const Tiles<T>& tiles, ptrdiff_t first, ptrdiff_t count,
                                 T* logits, T* staging) {
  const Operand& a = run.output;
  if (is_columns<T>(a, run.classes)) return write_tiles_of_columns(op, run, tiles, first, count, logits);
  ptrdiff_t direct = 0;
  if constexpr (Op::kTogether || Op::kLight) {
    if (is_contiguous(a) && run.classes >= kChunk<T>) {
      direct = count / kTileRows<T>;
      with_elements<T>(a.type, [&](auto* typed) CROSSENT_LAMBDA {
        const auto out = rows_of_tile(typed, a.data + first * a.row_stride, a.row_stride, run.classes);
        write_some_tiles(op, tiles, 0, direct, out, kTileRows<T> * a.row_stride);
      });
    }
  }
  for (ptrdiff_t t = direct; t < tiles.count; ++t) {
    const T* tile = write_over_logits(op, tiles, t, logits);
    store_tile(run, tile, first + tiles.lane(t), between(1, count - tiles.lane(t), kTileRows<T>), staging);
  }
}
