// The table of kernels that each instruction set provides, and the plain structs that a kernel call takes.
// Shared by per-target code and baseline code, so it holds no inline function and no C++ library type.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace crossent {

// One array seen as rows of classes. A kernel takes rows that are contiguous along the classes, or, up to its table's
// tile_limit classes, adjacent rows that lie one element apart; the drivers gather everything else.
struct Operand {
  char* data = nullptr;
  ptrdiff_t row_stride = 0;    // bytes
  ptrdiff_t class_stride = 0;  // bytes
};

// What every kernel call has: `rows` rows of `classes` >= 1 classes, and scratch_bytes(classes) of memory to work in.
struct Run {
  Operand input;
  Operand second;  // the gradient in backward kernels, target probabilities (compute type) in losses
  Operand output;
  double* result = nullptr;  // one number a row, where the kernel has such
  ptrdiff_t rows = 0;
  ptrdiff_t classes = 0;
  char* scratch = nullptr;
};

// How the target distribution of a row is given: a(c), the weight of class c in the loss sum_c a(c) * -log p(c).
enum class TargetKind { index, smoothed_index, probabilities, weighted_probabilities };
constexpr int kTargetKinds = 4;

struct CrossEntropyRun : Run {
  const int64_t* target = nullptr;            // index kinds: the class of each row, -1 for an ignored row
  const double* target_weight = nullptr;      // index kinds: (1 - smoothing) * weight[target] of each row
  const double* gradient_scale = nullptr;     // of each row: upstream gradient / divisor; null for the loss alone
  const void* class_weight = nullptr;         // compute type, per class: smoothed_index: smoothing / C * weight;
                                              // weighted_probabilities: weight
  double class_weight_sum = 0;                // smoothed_index: the sum of the above
  double keep = 1, keep_low = 0, spread = 0;  // probabilities: a(c) = weight(c) * ((keep + keep_low) * q(c) + spread)
};

// A class among the most probable ones.
struct TopEntry {
  double value;  // its logit
  int64_t index;
};

// What is asked of each row of logits, and where the answers go: one entry a row, as float64.
struct ScoreRun : Run {
  double* max = nullptr;      // NaN for a row with NaN
  double* log_sum = nullptr;  // log(sum(exp(x - max))); 0 for a row of only -inf or with +inf, NaN for one with NaN
  // The scores kernel alone:
  const int64_t* target = nullptr;  // the class of each row, -1 for a row that is not read; or null
  double* entropy = nullptr;
  int64_t* argmax = nullptr;
  int64_t* rank = nullptr;  // of the target
  TopEntry* top = nullptr;  // top_k entries a row, most probable first
  ptrdiff_t top_k = 0;
};

// KL divergence: input holds p's logits, second q's, output takes the gradient with respect to q's; the result is one number a
// row.
struct DivergenceRun : Run {
  double inverse_temperature = 1, inverse_temperature_low = 0;
  double gradient_scale = 1;
};

// Element types of the input and of the output array.
enum class Elements { f32, f64, f16, bf16, f16_to_f32, bf16_to_f32 };
constexpr int kElements = 6;
constexpr int kInputElements = 4;  // the first four: kernels without an output array

using Kernel = void (*)(const Run&);
using CrossEntropyKernel = void (*)(const CrossEntropyRun&);
using ScoreKernel = void (*)(const ScoreRun&);
using DivergenceKernel = void (*)(const DivergenceRun&);

struct KernelTable {
  const char* name;
  unsigned long long* runs;  // how many kernel calls this table has served
  size_t (*scratch_bytes)(ptrdiff_t classes);
  ptrdiff_t tile_limit[kElements];
  Kernel softmax[kElements];
  Kernel log_softmax[kElements];
  Kernel logsumexp[kElements];  // of the input's type; the result is float64
  Kernel softmax_backward[kElements];
  Kernel log_softmax_backward[kElements];
  CrossEntropyKernel cross_entropy[kElements][kTargetKinds];
  CrossEntropyKernel cross_entropy_gradient[kElements][kTargetKinds];  // the loss too
  ScoreKernel max_and_log_sum[kInputElements];
  ScoreKernel scores[kInputElements];
  DivergenceKernel divergence[kInputElements];
  DivergenceKernel divergence_gradient[kElements];                                      // the divergence too
  void (*to_float)(Elements from, const char* source, ptrdiff_t count, float* target);  // a 16-bit type, contiguous
};

}  // namespace crossent
