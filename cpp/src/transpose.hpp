// Copies between rows that lie one after the other and columns: elements of neighbouring rows side by side, classes far apart.
#pragma once

#include <cstddef>
#include <cstring>

namespace crossent {

// A chunk of 16 bytes, and squares of as many chunks as one has items: what every processor transposes in registers.
template <class Item>
struct Square {
  static constexpr std::ptrdiff_t kSize = 16 / sizeof(Item);
  typedef Item Chunk __attribute__((vector_size(16)));
  Chunk chunk[kSize];

  static Chunk low_halves(Chunk a, Chunk b) {
    if constexpr (kSize == 2) return __builtin_shufflevector(a, b, 0, 2);
    if constexpr (kSize == 4) return __builtin_shufflevector(a, b, 0, 4, 1, 5);
    if constexpr (kSize == 8) return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  }
  static Chunk high_halves(Chunk a, Chunk b) {
    if constexpr (kSize == 2) return __builtin_shufflevector(a, b, 1, 3);
    if constexpr (kSize == 4) return __builtin_shufflevector(a, b, 2, 6, 3, 7);
    if constexpr (kSize == 8) return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  }
  // Interleaving the first half of the chunks with the second log2(kSize) times is a transposition.
  Square interleaved() const {
    Square r;
    for (std::ptrdiff_t i = 0; i < kSize / 2; ++i) {
      r.chunk[2 * i] = low_halves(chunk[i], chunk[i + kSize / 2]);
      r.chunk[2 * i + 1] = high_halves(chunk[i], chunk[i + kSize / 2]);
    }
    return r;
  }
  Square transposed() const {
    if constexpr (kSize == 2) return interleaved();
    if constexpr (kSize == 4) return interleaved().interleaved();
    if constexpr (kSize == 8) return interleaved().interleaved().interleaved();
  }
};

// target[j][i] = source[i][j], strides in bytes.
template <class Item>
void transpose_square(const char* source, std::ptrdiff_t source_stride, char* target, std::ptrdiff_t target_stride) {
  Square<Item> square;
  for (std::ptrdiff_t i = 0; i < square.kSize; ++i) std::memcpy(&square.chunk[i], source + i * source_stride, 16);
  square = square.transposed();
  for (std::ptrdiff_t j = 0; j < square.kSize; ++j) std::memcpy(target + j * target_stride, &square.chunk[j], 16);
}
template <class Item>
void transpose_block(const char* source, std::ptrdiff_t source_stride, std::ptrdiff_t rows, std::ptrdiff_t columns,
                     char* target, std::ptrdiff_t target_stride) {
  constexpr std::ptrdiff_t size = Square<Item>::kSize, item = sizeof(Item);
  const std::ptrdiff_t whole_rows = rows / size * size, whole_columns = columns / size * size;
  for (std::ptrdiff_t i = 0; i < whole_rows; i += size) {
    for (std::ptrdiff_t j = 0; j < whole_columns; j += size) {
      transpose_square<Item>(source + i * source_stride + j * item, source_stride, target + j * target_stride + i * item,
                             target_stride);
    }
  }
  for (std::ptrdiff_t i = 0; i < rows; ++i) {
    for (std::ptrdiff_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j) {
      std::memcpy(target + j * target_stride + i * item, source + i * source_stride + j * item, item);
    }
  }
}

// Rows `row_stride` bytes apart from columns `class_stride` bytes apart, or the other way round, in blocks so small that what
// is touched of both stays in the first-level cache.
template <class Item, bool kToRows>
void transpose(char* columns, std::ptrdiff_t class_stride, char* rows, std::ptrdiff_t row_stride, std::ptrdiff_t row_count,
               std::ptrdiff_t classes) {
  constexpr std::ptrdiff_t kClasses = 16, kRows = 64 / sizeof(Item);
  // Lines that are on their way: no processor foresees classes that are a page or more apart.
  constexpr std::ptrdiff_t kClassesAhead = 32;
  for (std::ptrdiff_t c = 0; c < classes; c += kClasses) {
    const std::ptrdiff_t some_classes = classes - c < kClasses ? classes - c : kClasses;
    for (std::ptrdiff_t r = 0; r < row_count; r += kRows) {
      const std::ptrdiff_t some_rows = row_count - r < kRows ? row_count - r : kRows, item = sizeof(Item);
      char *in_columns = columns + c * class_stride + r * item, *in_rows = rows + r * row_stride + c * item;
      for (std::ptrdiff_t i = 0; i < kClasses; ++i)
        __builtin_prefetch(in_columns + (kClassesAhead + i) * class_stride, kToRows ? 0 : 1);
      if constexpr (kToRows) {
        transpose_block<Item>(in_columns, class_stride, some_classes, some_rows, in_rows, row_stride);
      } else {
        transpose_block<Item>(in_rows, row_stride, some_rows, some_classes, in_columns, class_stride);
      }
    }
  }
}

}  // namespace crossent
