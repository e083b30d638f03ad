// The functions under test: how each is called, what it should give, and how exactly. A new function or kernel is one more
// entry of the list in functions.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "crossent/crossent.hpp"
#include "crossent/scoring.hpp"
#include "inputs.hpp"

namespace crossent_test {

using crossent::Array;
using crossent::ConstArray;
using crossent::Status;

// Views of (rows, classes) arrays and of arrays of a number a row; unused ones have no data.
struct Operands {
  ConstArray x, second;         // (rows, classes)
  ConstArray target, upstream;  // (rows,)
  ConstArray weight;            // (classes,)
  double smoothing = 0;
  Array out;      // (rows, classes)
  Array per_row;  // (rows,)
};

// One row's exact inputs, and what follows from its logits.
struct Row {
  std::ptrdiff_t classes = 0;
  const long double *x = nullptr, *second = nullptr;
  std::int64_t target = 0;
  const long double* weight = nullptr;  // null: 1 for all
  long double smoothing = 0, upstream = 1;
  const long double *p = nullptr, *log_p = nullptr;  // softmax and log_softmax of x
  long double max = 0, log_sum = 0;                  // logsumexp = max + log_sum
};

// Exact results; a scale is what errors are measured against where that is larger than the result itself.
struct Answer {
  std::vector<long double> out, out_scale;
  long double value = 0, value_scale = 0;
};

struct Limits {
  double float32, float64;  // ULP
};

// What a function takes and gives, beside x.
struct Takes {
  Values x = Values::logits;
  bool second = false;
  Values second_values = Values::gradients;
  bool second_in_compute_type = false;
  bool target = false, weight = false, upstream = false;
  double smoothing = 0;
  bool gives_out = false, gives_value = false;
  bool out_in_score_dtype = false;  // `out` is float32 for 16-bit x
};

struct Function {
  const char* name;
  Takes takes;
  Status (*call)(const Operands&);
  void (*reference)(const Row&, Answer&);
  Limits out_limits, target_limits, value_limits;  // the second: of `out` at the row's target class
};

const std::vector<Function>& functions();
// The part of them in scores.cpp.
std::vector<Function> scoring_functions();

}  // namespace crossent_test
