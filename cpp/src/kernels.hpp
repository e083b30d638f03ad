// The table of kernels that each instruction set provides, and the plain structs that a kernel call takes.
// Shared by per-target code and baseline code, so it holds no inline function and no C++ library type.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace crossent {

// The types that elements have in memory; in the order of DType. Kernels compute in float32 or, for f64, in float64.
enum class Elements : int { f32, f64, f16, bf16 };

// One array seen as rows of classes. A kernel takes rows that are contiguous along the classes, or, up to its table's
// tile_limit classes, have them at any one stride (fast where rows lie one element apart); the drivers gather everything else.
struct Operand {
  char* data = nullptr;
  Elements type = Elements::f32;
  ptrdiff_t row_stride = 0;    // bytes
  ptrdiff_t class_stride = 0;  // bytes
  ptrdiff_t span_stride = 0;   // bytes, from one span of rows to the next: see Run
};

// More rows than there are.
constexpr ptrdiff_t kOneSpan = PTRDIFF_MAX;

// What every kernel call has: `rows` rows of `classes` >= 1 classes, and scratch_bytes(classes) of memory to work in.
struct Run {
  Operand input;
  Operand second;  // the gradient in backward kernels, target probabilities in losses, q's logits in divergences
  Operand output;
  double* result = nullptr;  // one number a row, where the kernel has such
  ptrdiff_t rows = 0;
  ptrdiff_t classes = 0;
  // Rows that lie one element apart in all operands, of which none goes past the caches, may do so in spans of so many (axis 1
  // of samples x classes x rows); `before` rows of the first span come before the run.
  ptrdiff_t span = kOneSpan, before = 0;
  char* scratch = nullptr;
  bool stream = false;       // the output is so large that it had better not pass through the caches
  bool distant = false;      // the arrays are larger than a second-level cache
  bool fetches_far = false;  // and a core of this processor had better be told early what it will need of them
};

// How the target distribution of a row is given: a(c), the weight of class c in the loss sum_c a(c) * -log p(c).
enum class TargetKind { index, smoothed_index, probabilities, weighted_probabilities };
constexpr int kTargetKinds = 4;

// Numbers beyond the last row that the arrays of target_weight and gradient_scale must have, since they are read by vectors.
constexpr ptrdiff_t kRowPadding = 16;

// Most rows that are taken together where each is written while the next one is summed: as many as are finished at a time.
constexpr ptrdiff_t kMostInTurns = 8;

struct CrossEntropyRun : Run {
  const int64_t* target = nullptr;         // index kinds: the class of each row, -1 for an ignored row
  bool skips = false;                      // index kinds: some rows may be ignored; their two numbers below are 0
  const double* target_weight = nullptr;   // index kinds: weight[target] of each row
  const double* gradient_scale = nullptr;  // of each row: upstream gradient / divisor; null for the loss alone
  // All kinds but index: a(c) = weight(c) * (keep * q(c) + spread) = mix * weight(c) * (part * q(c) + even), where
  // smoothed_index has q(c) = 0 but for the target; `part` and `even` are what sums are made of, so that one of them is 1.
  double keep = 1, keep_low = 0, spread = 0, spread_low = 0;
  double mix = 1, mix_low = 0, part = 1, even = 0;
  const void* class_weight = nullptr;  // smoothed_index, weighted_probabilities: the weights, in the compute type
  double class_weight_sum = 0, class_weight_sum_low = 0;  // their sum; the number of classes where there are none
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

// What a kernel computes in: its operands are of this type or, for float32, of a 16-bit type, each on its own.
enum class ComputeType { f32, f64 };
constexpr int kComputeTypes = 2;

using Kernel = void (*)(const Run&);
using CrossEntropyKernel = void (*)(const CrossEntropyRun&);
using ScoreKernel = void (*)(const ScoreRun&);
using DivergenceKernel = void (*)(const DivergenceRun&);

struct KernelTable {
  const char* name;
  unsigned long long* runs;  // how many kernel calls this table has served
  size_t (*scratch_bytes)(ptrdiff_t classes);
  ptrdiff_t tile_limit;
  bool streams;  // whether Run::stream has an effect
  Kernel softmax[kComputeTypes];
  Kernel log_softmax[kComputeTypes];
  Kernel logsumexp[kComputeTypes];  // the result is float64
  Kernel softmax_backward[kComputeTypes];
  Kernel log_softmax_backward[kComputeTypes];
  CrossEntropyKernel cross_entropy[kComputeTypes][kTargetKinds];
  CrossEntropyKernel cross_entropy_gradient[kComputeTypes][kTargetKinds];  // the loss too
  ScoreKernel max_and_log_sum[kComputeTypes];
  ScoreKernel scores[kComputeTypes];
  DivergenceKernel divergence[kComputeTypes];
  DivergenceKernel divergence_gradient[kComputeTypes];  // the divergence too
  // Whether all of them are classes or ignored, and how many are not ignored.
  bool (*check_targets)(const int64_t* target, ptrdiff_t count, int64_t classes, int64_t ignored, ptrdiff_t* live);
  // Copies targets that were checked before. Another thread may have changed them since: what is no class becomes the last one.
  void (*copy_targets)(const int64_t* target, ptrdiff_t count, int64_t classes, int64_t* copy);
  void (*sum)(const double* values, ptrdiff_t count, double* high, double* low);  // with what every addition rounds off
};

}  // namespace crossent
