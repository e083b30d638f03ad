// Arrays in row-major memory without the bookkeeping of shapes and strides: softmax(Dense(x, {rows, classes}), 1, ...).
#pragma once

#include <cstddef>
#include <initializer_list>
#include <type_traits>

#include "crossent/types.hpp"

namespace crossent {

// The DType of a C++ type: float, double, Float16, BFloat16, bool and the integers.
template <class T>
constexpr DType dtype_of() {
  using Element = std::remove_cv_t<T>;
  if constexpr (std::is_same_v<Element, float>) {
    return DType::float32;
  } else if constexpr (std::is_same_v<Element, double>) {
    return DType::float64;
  } else if constexpr (std::is_same_v<Element, Float16>) {
    return DType::float16;
  } else if constexpr (std::is_same_v<Element, BFloat16>) {
    return DType::bfloat16;
  } else if constexpr (std::is_same_v<Element, bool>) {
    return DType::boolean;
  } else {
    static_assert(std::is_integral_v<Element> && sizeof(Element) <= 8, "crossent has no dtype for this type");
    constexpr DType signed_types[] = {DType::int8, DType::int16, DType::int32, DType::int64};
    constexpr DType unsigned_types[] = {DType::uint8, DType::uint16, DType::uint32, DType::uint64};
    constexpr int width = sizeof(Element) == 1 ? 0 : sizeof(Element) == 2 ? 1 : sizeof(Element) == 4 ? 2 : 3;
    return std::is_signed_v<Element> ? signed_types[width] : unsigned_types[width];
  }
}

// A view that holds its shape and strides itself, and converts to an Array or ConstArray, which is valid as long as it lives.
// It owns no elements and allocates nothing.
template <class Void>
class BasicDense {
 public:
  BasicDense(Void* data, DType dtype, std::initializer_list<std::ptrdiff_t> shape) : data_(data), dtype_(dtype) {
    for (std::ptrdiff_t length : shape) {
      if (ndim_ < kMaxDims) shape_[ndim_++] = length;
    }
    std::ptrdiff_t stride = item_size(dtype);
    for (int d = ndim_ - 1; d >= 0; --d) {
      strides_[d] = stride;
      stride *= shape_[d];
    }
  }
  template <class T, class = std::enable_if_t<!std::is_void_v<T>>>
  BasicDense(T* data, std::initializer_list<std::ptrdiff_t> shape) : BasicDense(data, dtype_of<T>(), shape) {}

  operator ConstArray() const { return {data_, dtype_, ndim_, shape_, strides_}; }
  template <class V = Void, class = std::enable_if_t<!std::is_const_v<V>>>
  operator Array() const {
    return {data_, dtype_, ndim_, shape_, strides_};
  }

 private:
  Void* data_;
  DType dtype_;
  int ndim_ = 0;
  std::ptrdiff_t shape_[kMaxDims], strides_[kMaxDims];
};
using Dense = BasicDense<void>;             // written to
using ConstDense = BasicDense<const void>;  // read only

}  // namespace crossent
