// What drivers of scores share: checks of logits, and log-probabilities from a row's maximum and log-sum.
#pragma once

#include <cmath>

#include "api.hpp"
#include "elements.hpp"
#include "indices.hpp"
#include "rows.hpp"

namespace crossent {

// Logits with their class axis, as they are checked before anything else.
struct ScoredLogits {
  ClassAxes axes;
  int axis = 0;
  std::ptrdiff_t classes = 1;
  int row_ndim = 0;
  std::ptrdiff_t row_shape[kMaxDims];

  Status check(const char* name, const ConstArray& logits, int class_axis);
  // Whether an array has the rows' shape.
  bool has_row_shape(const ConstArray& array) const;
};

// "logits has shape (2, 3, 4) with the class axis 2", for messages.
std::string logits_text(const char* name, const ConstArray& logits, int axis);

// Checks every index before anything is written: they are read once more with their rows.
Status check_indices(const char* name, const ConstArray& indices, const IndexRange& range);

// log softmax of the logit x: (x - max) - log_sum, both terms at most 0, so that nothing cancels and a constant added exactly
// to all logits changes no bit. NaN for a row that cannot be normalized.
inline double log_probability(double max, double log_sum, double x) {
  if (!std::isfinite(max)) return static_cast<double>(__builtin_nan(""));
  const double distance = max - x;
  if (!(distance < __builtin_inf())) return -distance;
  const double part = distance - max;
  const double lost = (max - (distance - part)) - (x + part);
  const double sum = distance + log_sum, log_part = sum - distance;
  return 0.0 - (sum + (((distance - (sum - log_part)) + (log_sum - log_part)) + lost));
}

// Calls f with a function that reads an element of a floating dtype, so that loops decide about the dtype once.
template <class F>
void with_reader(DType dtype, F f) {
  switch (dtype) {
    case DType::float32:
      return f([](const char* p) { return static_cast<double>(read_element<float>(p)); });
    case DType::float64:
      return f([](const char* p) { return read_element<double>(p); });
    case DType::float16:
      return f([](const char* p) { return read_floating(DType::float16, p); });
    default:
      return f([](const char* p) { return read_floating(DType::bfloat16, p); });
  }
}

}  // namespace crossent
