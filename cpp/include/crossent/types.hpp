// Plain types of the public C++ interface: array views, options and results. Standard C++17; no SIMD, no Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

namespace crossent {

// Element types. The four floating ones are computed natively (16-bit ones in float32); the integers are class indices.
// float16 is IEEE binary16, bfloat16 the upper half of a float32; both are passed as their 16 bits. `boolean` is there for
// messages: no function takes it.
enum class DType : std::uint8_t {
  float32,
  float64,
  float16,
  bfloat16,
  boolean,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
};

constexpr bool is_floating(DType dtype) { return dtype <= DType::bfloat16; }

// Bytes of an element.
constexpr std::ptrdiff_t item_size(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64:
    case DType::uint64:
      return 8;
    case DType::float32:
    case DType::int32:
    case DType::uint32:
      return 4;
    case DType::float16:
    case DType::bfloat16:
    case DType::int16:
    case DType::uint16:
      return 2;
    default:
      return 1;
  }
}

// The bits of 16-bit elements, for typed pointers; for other types of such numbers, cast the pointer.
struct Float16 {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

// The most dimensions an array may have.
constexpr int kMaxDims = 64;

// A view of an array in memory: any strides (in bytes; zero, negative and unaligned ones too). It owns nothing; the shape and
// stride arrays must outlive the call that the view is given to.
template <class Void>
struct BasicArray {
  Void* data = nullptr;
  DType dtype = DType::float32;
  int ndim = 0;
  const std::ptrdiff_t* shape = nullptr;
  const std::ptrdiff_t* strides = nullptr;
  // Of an array to write to: memory that was just allocated. The system clears a page when it is first written to, and long
  // rows are then faster written through the caches than past them. No result depends on it.
  bool untouched = false;

  std::ptrdiff_t size() const {
    std::ptrdiff_t n = 1;
    for (int i = 0; i < ndim; ++i) n *= shape[i];
    return n;
  }
};
using Array = BasicArray<void>;             // written to
using ConstArray = BasicArray<const void>;  // read only

// The axes that classes lie along: one, several, or all (Axes::every()). Negative ones count from the last.
struct Axes {
  int axis[kMaxDims];
  int count = 0;
  bool all = false;

  Axes(int single) : count(1) { axis[0] = single; }
  Axes(std::initializer_list<int> several) {
    for (int a : several) {
      if (count < kMaxDims) axis[count++] = a;
    }
  }
  static Axes every() {
    Axes axes{};
    axes.all = true;
    return axes;
  }
};

enum class Reduction : std::uint8_t { none, mean, sum };

enum class Code : std::uint8_t {
  ok,
  bad_value,      // shapes, dtypes of outputs, options: ValueError in Python
  bad_type,       // dtypes of inputs: TypeError
  bad_index,      // a target outside [0, C): IndexError
  bad_axis,       // an axis out of range: AxisError
  out_of_memory,  // scratch memory could not be had: MemoryError
};

// What a call reports: `if (Status s = softmax(...); !s) use(s.code, s.message);`. Every check is made before anything is
// written, and no function throws for bad input. The message names the argument, and what was found and expected.
struct [[nodiscard]] Status {
  Code code = Code::ok;
  std::string message;

  Status() = default;
  Status(Code c, std::string text) : code(c), message(std::move(text)) {}
  explicit operator bool() const { return code == Code::ok; }
};

// "(2, 3)", for messages.
std::string shape_text(int ndim, const std::ptrdiff_t* shape);

}  // namespace crossent
