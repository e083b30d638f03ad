// Weights of classes: their range and unit, their sum, and how kernels get them.
#include "class_weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "elements.hpp"
#include "loss.hpp"

namespace crossent {
namespace {

// The largest magnitude among numbers of type T; infinity or NaN where one of them is that. As integers, which the compiler
// vectorizes, unlike comparisons that NaN must win.
template <class T, class Bits>
double largest_magnitude(const char* p, std::ptrdiff_t stride, std::ptrdiff_t count) {
  constexpr Bits magnitude = static_cast<Bits>(~(Bits{1} << (8 * sizeof(Bits) - 1)));
  std::make_signed_t<Bits> largest = 0;
  const auto take = [&](std::ptrdiff_t i, std::ptrdiff_t step) {
    largest = std::max(largest, static_cast<std::make_signed_t<Bits>>(read_element<Bits>(p + i * step) & magnitude));
  };
  if (stride == sizeof(T)) {
    for (std::ptrdiff_t i = 0; i < count; ++i) take(i, sizeof(T));
  } else {
    for (std::ptrdiff_t i = 0; i < count; ++i) take(i, stride);
  }
  T value;
  std::memcpy(&value, &largest, sizeof value);
  return static_cast<double>(value);
}

}  // namespace

void ClassWeights::set(const ConstArray& weight, bool is_double, bool cancels) {
  data_ = static_cast<const char*>(weight.data);
  dtype_ = weight.dtype;
  stride_ = weight.strides[0];
  classes_ = weight.shape[0];
  double largest = 0;
  if (dtype_ == DType::float32) {
    largest = largest_magnitude<float, std::uint32_t>(data_, stride_, classes_);
  } else if (dtype_ == DType::float64) {
    largest = largest_magnitude<double, std::uint64_t>(data_, stride_, classes_);
  } else {
    for (std::ptrdiff_t c = 0; c < classes_ && std::isfinite(largest); ++c) {
      const double magnitude = std::fabs((*this)[c]);
      largest = magnitude > largest || !std::isfinite(magnitude) ? magnitude : largest;
    }
  }
  if (!std::isfinite(largest) || largest == 0 || (largest >= 0x1p-20 && largest <= 0x1p20)) return;
  double smallest = largest;
  for (std::ptrdiff_t c = 0; c < classes_; ++c) {
    const double magnitude = std::fabs((*this)[c]);
    if (magnitude != 0) smallest = std::min(smallest, magnitude);
  }
  // Below 1/2 no product with the distance of two logits overflows. Where the unit does not cancel, the kernels hold upstream
  // gradients times it in the compute type, which leaves those some room; and no weight may become subnormal in that type.
  int exponent = std::min(std::max(std::ilogb(largest) + 2, -1000), is_double || cancels ? 1000 : 120);
  if (exponent > 0) exponent = std::max(std::min(exponent, std::ilogb(smallest) + (is_double ? 1022 : 126)), 0);
  exponent_ = exponent;
  factor_ = std::ldexp(1.0, -exponent);
}

double ClassWeights::operator[](std::ptrdiff_t c) const { return read_floating(dtype_, data_ + c * stride_) * factor_; }

void ClassWeights::of_classes(std::ptrdiff_t count, const std::int64_t* classes, double* weights) const {
  with_dtype(dtype_, [&](auto dtype) {
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      weights[i] = classes[i] < 0 ? 0 : read_floating(dtype, data_ + classes[i] * stride_) * factor_;
    }
  });
}

const void* ClassWeights::in_type(DType dtype, std::vector<char>& memory) const {
  const std::ptrdiff_t size = item_size(dtype);
  const bool aligned = reinterpret_cast<std::uintptr_t>(data_) % static_cast<std::size_t>(size) == 0;
  if (dtype_ == dtype && (stride_ == size || classes_ == 1) && exponent_ == 0 && aligned) return data_;
  memory.resize(static_cast<std::size_t>(classes_ * size));
  for (std::ptrdiff_t c = 0; c < classes_; ++c) write_floating(dtype, memory.data() + c * size, (*this)[c]);
  return memory.data();
}

ExactSum ClassWeights::sum(const KernelTable& kernels) const {
  ExactSum sum;
  for (std::ptrdiff_t first = 0; first < classes_; first += kMaxBlockRows) {
    double weights[kMaxBlockRows];
    const std::ptrdiff_t count = std::min(kMaxBlockRows, classes_ - first);
    with_dtype(dtype_, [&](auto dtype) {
      for (std::ptrdiff_t i = 0; i < count; ++i) weights[i] = read_floating(dtype, data_ + (first + i) * stride_) * factor_;
    });
    add_block(sum, kernels, weights, count);
  }
  return sum;
}

}  // namespace crossent
