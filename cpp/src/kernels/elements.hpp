// Elements of a row as they lie in memory, and as a kernel computes with them: 16-bit types are converted block by block (those
// of tiles in chunks.hpp), so that hardly a kernel needs code of its own for them.
#pragma once

CROSSENT_INLINE ptrdiff_t element_size(Elements type) { return type == Elements::f64 ? 8 : type == Elements::f32 ? 4 : 2; }
CROSSENT_INLINE bool is_contiguous(const Operand& a) { return a.class_stride == element_size(a.type); }

template <class T>
CROSSENT_INLINE ptrdiff_t padded(ptrdiff_t classes) {
  return (classes + Vec<T>::kLanes - 1) / Vec<T>::kLanes * Vec<T>::kLanes;
}

template <class S>
CROSSENT_INLINE S load_element(const char* p) {
  S element;
  __builtin_memcpy(&element, p, sizeof element);
  return element;
}

// The first `count` elements of any type; other lanes are 0.
template <class S>
CROSSENT_INLINE Vec<Compute<S>> load_some(const S* p, ptrdiff_t count) {
  if constexpr (sizeof(S) == sizeof(Compute<S>)) {
    return load_partial(p, count, (S)0);
  } else {
    S lane[Vec<float>::kLanes];
    read_first_16_bits(p, count, lane);
    return load(lane);
  }
}
template <class S>
CROSSENT_INLINE void store_some(S* p, ptrdiff_t count, Vec<Compute<S>> a) {
  if constexpr (sizeof(S) == sizeof(Compute<S>)) {
    store_partial(p, count, a);
  } else {
    S lane[Vec<float>::kLanes];
    store(lane, a);
    write_first_16_bits(p, count, lane);
  }
}

// What a pointer points to.
template <class Pointer>
struct Element;
template <class S>
struct Element<S*> {
  using type = S;
};

// Calls f with a null pointer of the type that elements of a compute type T have in memory.
template <class T, class F>
CROSSENT_INLINE void with_elements(Elements type, F&& f) {
  if constexpr (sizeof(T) == 8) {
    f((double*)nullptr);
  } else {
    if (type == Elements::f32) f((float*)nullptr);
    if (type == Elements::f16) f((Half*)nullptr);
    if (type == Elements::bf16) f((BFloat16*)nullptr);
  }
}

template <class From, class To>
CROSSENT_INLINE void convert(const From* source, ptrdiff_t n, To* target) {
  constexpr ptrdiff_t lanes = Vec<float>::kLanes;
  ptrdiff_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) store_pair(target + i, load(source + i), load(source + i + lanes));
  for (; i + lanes <= n; i += lanes) store(target + i, load(source + i));
  if (i < n) store_some(target + i, n - i, load_some(source + i, n - i));
}
// n contiguous elements of a 16-bit type as float32, and back.
CROSSENT_SHARED void convert_to_compute(Elements type, const char* source, ptrdiff_t n, float* target) {
  if (type == Elements::f16) convert((const Half*)source, n, target);
  if (type == Elements::bf16) convert((const BFloat16*)source, n, target);
}
CROSSENT_SHARED void convert_from_compute(Elements type, const float* source, ptrdiff_t n, char* target) {
  if (type == Elements::f16) convert(source, n, (Half*)target);
  if (type == Elements::bf16) convert(source, n, (BFloat16*)target);
}

// Rows of a 16-bit type, `stride` bytes apart, as adjacent rows of float32, and back.
CROSSENT_INLINE void rows_to_compute(Elements type, const char* rows, ptrdiff_t stride, ptrdiff_t count, ptrdiff_t classes,
                                     float* target) {
  if (stride == classes * element_size(type)) return convert_to_compute(type, rows, count * classes, target);
  for (ptrdiff_t r = 0; r < count; ++r) convert_to_compute(type, rows + r * stride, classes, target + r * classes);
}
CROSSENT_INLINE void rows_from_compute(Elements type, const float* source, ptrdiff_t count, ptrdiff_t classes, char* rows,
                                       ptrdiff_t stride) {
  if (stride == classes * element_size(type)) return convert_from_compute(type, source, count * classes, rows);
  for (ptrdiff_t r = 0; r < count; ++r) convert_from_compute(type, source + r * classes, classes, rows + r * stride);
}

// A single element: by way of a vector it would wait for bytes on their way to memory (10 ns).
CROSSENT_INLINE float one_to_compute(Elements type, const char* p) {
  if (type == Elements::f32) return load_element<float>(p);
  const uint32_t bits = load_element<uint16_t>(p);
  return type == Elements::f16 ? half_bits_to_float<float>(bits) : bit_cast<float>(bits << 16);
}
CROSSENT_INLINE void one_from_compute(Elements type, float value, char* p) {
  if (type == Elements::f32) {
    __builtin_memcpy(p, &value, sizeof value);
  } else {
    const uint16_t bits =
        (uint16_t)(type == Elements::f16 ? float_to_half_bits<uint32_t>(value) : float_to_bfloat16_bits<uint32_t>(value));
    __builtin_memcpy(p, &bits, sizeof bits);
  }
}
template <class T>
CROSSENT_INLINE T element_to_compute(Elements type, const char* p) {
  if constexpr (sizeof(T) == 8) {
    return load_element<double>(p);
  } else {
    return one_to_compute(type, p);
  }
}

// What will be read or written next is fetched while there is something to compute: into the first-level cache, and, where
// Run::fetches_far, into the second-level cache what lies a little further on (of long tiles and columns that alone: see
// Tiles::prefetch_far). Memory takes longer to answer than a group of rows takes to compute, and a core of Zen 4 can wait for
// few lines of the first-level cache at a time (65536 x 64 floats: softmax 1.06 ns per element with none in the second, 0.73
// from 2 KiB on, 0.60 from 4 KiB, 0.67 from 8 KiB; logsumexp 0.47, 0.40, 0.37, 0.37). On Granite Rapids it costs 3 to 8 %, but
// gains where two arrays are waited for: softmax_backward and divergences of tiles do so on every processor, if their arrays
// are distant.
constexpr ptrdiff_t kFarBytes = 4096;
CROSSENT_INLINE void fetch_far(const char* p, ptrdiff_t bytes = kFarBytes) { __builtin_prefetch(p + bytes, 0, 2); }
// In long rows every processor gains from that, if not so far (Sapphire Rapids, logsumexp of 1024 x 50257 floats from memory:
// 0.41 -> 0.34 ns per element).
constexpr ptrdiff_t kFurtherBytes = 1024;

struct ReadAhead {
  const char* data;
  ptrdiff_t element;  // bytes
  bool reaches_far;

  // Four vectors from element i on.
  CROSSENT_INLINE void fetch(ptrdiff_t i) const {
    const ptrdiff_t far = reaches_far ? kFarBytes : kFurtherBytes;
    for (int line = 0; line < 4; ++line) {
      const char* p = data + i * element + line * kVectorBytes;
      __builtin_prefetch(p);
      fetch_far(p, far);
    }
  }
};

// A contiguous row: block() gives n elements from `first` on, in place or converted into `buffer`.
template <class T>
struct RowInput {
  const char* data;
  Elements type;
  T* buffer;
  bool fetches_far;  // see Run

  CROSSENT_INLINE const T* block(ptrdiff_t first, ptrdiff_t n) const {
    if constexpr (sizeof(T) == 4) {
      if (type != Elements::f32) {
        convert_to_compute(type, data + first * 2, n, buffer);
        return buffer;
      }
    }
    return (const T*)data + first;
  }
  // From element `first` on, which may be beyond the row.
  CROSSENT_INLINE ReadAhead ahead(ptrdiff_t first) const {
    return {data + first * element_size(type), element_size(type), fetches_far};
  }
};

// A contiguous row to write: elements go to block(first), then written() is told.
template <class T>
struct RowOutput {
  char* data;
  Elements type;
  T* buffer;
  bool stream;  // write past the caches

  CROSSENT_INLINE bool in_place() const { return sizeof(T) == 8 || type == Elements::f32; }
  CROSSENT_INLINE T* block(ptrdiff_t first) const { return in_place() ? (T*)data + first : buffer; }
  CROSSENT_INLINE void written(ptrdiff_t first, ptrdiff_t n) const {
    if constexpr (sizeof(T) == 4) {
      if (!in_place()) convert_from_compute(type, buffer, n, data + first * 2);
    }
  }
  CROSSENT_INLINE void set(ptrdiff_t i, T value) const {
    if constexpr (sizeof(T) == 4) {
      one_from_compute(type, value, data + i * element_size(type));
    } else {
      __builtin_memcpy(data + i * sizeof(T), &value, sizeof value);
    }
  }
};
