// The arrays that bench_kernels.cpp works on, shared by all benchmarks: they are as large as the largest wants.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "elements.hpp"

namespace crossent {

// Memory that grows to the largest request and keeps its contents' description, so that it is filled only when that changes.
class Buffer {
 public:
  char* reserve(std::ptrdiff_t bytes) {
    if (bytes > capacity_) {
      std::free(data_);
      constexpr std::size_t huge_page = 1 << 21;
      capacity_ = static_cast<std::ptrdiff_t>((static_cast<std::size_t>(bytes) + huge_page - 1) / huge_page * huge_page);
      data_ = static_cast<char*>(std::aligned_alloc(huge_page, static_cast<std::size_t>(capacity_)));
      if (!data_) std::abort();
#if defined(__linux__)
      madvise(data_, static_cast<std::size_t>(capacity_), MADV_HUGEPAGE);  // NumPy asks for it, too
#endif
      std::memset(data_, 0, static_cast<std::size_t>(capacity_));
      filled_ = 0;
    }
    return data_;
  }

  // A pattern of normally distributed numbers, again and again: of deviation 3, or absolute values of deviation 1.
  char* fill(DType dtype, std::ptrdiff_t bytes, bool positive) {
    reserve(bytes);
    if (filled_ >= bytes && dtype_ == dtype) return data_;
    const std::ptrdiff_t size = item_size(dtype), step = 65536 * size;
    std::vector<char> pattern(static_cast<std::size_t>(step));
    std::mt19937 random(1);
    std::normal_distribution<double> normal(0, positive ? 1 : 3);
    for (std::ptrdiff_t i = 0; i < step; i += size) {
      const double value = normal(random);
      write_floating(dtype, pattern.data() + i, positive ? std::abs(value) : value);
    }
    for (std::ptrdiff_t i = 0; i < bytes; i += step) {
      std::memcpy(data_ + i, pattern.data(), static_cast<std::size_t>(std::min(step, bytes - i)));
    }
    filled_ = bytes, dtype_ = dtype;
    return data_;
  }

 private:
  char* data_ = nullptr;
  std::ptrdiff_t capacity_ = 0, filled_ = 0;
  DType dtype_ = DType::float32;
};

struct Arrays {
  Buffer input, second, output, scratch;
};
inline Arrays& arrays() {
  static Arrays all;
  return all;
}

}  // namespace crossent
