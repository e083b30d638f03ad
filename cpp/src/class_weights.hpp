// The weights of a loss's classes, read where they lie: a call on a few rows of many classes does not convert them all.
#pragma once

#include <cstdint>
#include <vector>

#include "api.hpp"
#include "exact_sum.hpp"
#include "kernels.hpp"

namespace crossent {

class ClassWeights {
 public:
  // `weight`: one number a class. is_double: the type that losses are computed in; cancels: results are divided by a sum of
  // weights, so that their unit does not matter.
  void set(const ConstArray& weight, bool is_double, bool cancels);

  bool given() const { return data_ != nullptr; }
  // They are in a unit, 2 to this power, that keeps very large and very small ones and what is made of them within range.
  int exponent() const { return exponent_; }
  double operator[](std::ptrdiff_t c) const;
  // Of `count` classes; 0 for class -1.
  void of_classes(std::ptrdiff_t count, const std::int64_t* classes, double* weights) const;
  // All of them one after the other in a compute type: where they lie, or copied to `memory`.
  const void* in_type(DType dtype, std::vector<char>& memory) const;
  // But for what is less than 2**-100 of the sum of their magnitudes.
  ExactSum sum(const KernelTable& kernels) const;

 private:
  const char* data_ = nullptr;
  DType dtype_ = DType::float32;
  std::ptrdiff_t stride_ = 0, classes_ = 0;
  int exponent_ = 0;
  double factor_ = 1;  // 2**-exponent_
};

}  // namespace crossent
