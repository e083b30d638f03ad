// The functions of crossent: softmax, log-softmax, negative log-likelihood and cross-entropy, forward and backward.
//
// What is taken from logits without a loss (ranks, the k most probable classes, entropy, divergence) is in scoring.hpp.
//
// Arrays are views (types.hpp): pointer, dtype, shape and strides in bytes. dense.hpp makes them of row-major memory, and with
// C++20 span.hpp adds overloads for std::span, std::vector and the like.
//
// Shapes: `out` has the shape of the input, per-row results that shape without the class axes. A loss has one class axis C;
// index targets and losses have the shape of the logits without it, probability targets the shape of the logits.
// Dtypes: logits, gradients, weights and probability targets are float32, float64, float16 or bfloat16; index targets have any
// integer dtype. `out` has the input's dtype, or float32 for 16-bit input. logsumexp and losses of 16-bit input are float32.
// Layout: any strides. Nothing is copied where rows are contiguous along the classes, or have up to 4096 of them at one stride.
//
// Errors: every check is made before anything is written, and reported by the Status returned. Checked are dtypes, shapes,
// axes, options and index targets; not checked that pointers are valid, that 0 <= ndim <= kMaxDims and sizes >= 0, and
// aliasing. An axis of length 0 is an error in a loss alone. Nothing is thrown but std::bad_alloc, see Memory.
// Aliasing: `out` may be an input itself (the same elements at the same places: data, shape and strides), also the target
// probabilities, and must not overlap one in another way, nor itself (stride 0), nor target indices or the weights.
// Threads: all functions may be called from several threads at once. A large call uses get_num_threads() threads (runtime.hpp);
// results do not depend on how many, to the last bit.
// Memory: no call makes an array of the logits' size. Each thread that works keeps a scratch until it ends, whose size depends
// on the length of the rows, not on their number; growing it allocates (Code::out_of_memory where that fails), so that calls of
// no new size do not. Besides these allocate: losses with weights or label smoothing (up to 8 bytes a class, freed on return),
// errors, for their message, and the first call of several threads, in the OpenMP runtime.
// Special values: NaN or +inf in a row, or only -inf, give NaN in the row's results (logsumexp: NaN, +inf, -inf; nll_loss looks
// at the target's entry alone). -inf is a class of probability 0; a class whose target probability is 0 contributes 0.
#pragma once

#include "crossent/dense.hpp"
#include "crossent/runtime.hpp"
#include "crossent/types.hpp"

namespace crossent {

// exp(x) / sum(exp(x)) along the axes.
Status softmax(const ConstArray& x, const Axes& axes, const Array& out);
// x - log(sum(exp(x))) along the axes, in nats.
Status log_softmax(const ConstArray& x, const Axes& axes, const Array& out);
// log(sum(exp(x))) along the axes, in nats. `out` has the shape of x without them.
Status logsumexp(const ConstArray& x, const Axes& axes, const Array& out);

// The gradient with respect to x, given that with respect to y = softmax(x), or y = log_softmax(x). All of one shape and dtype.
Status softmax_backward(const ConstArray& grad, const ConstArray& y, const Axes& axes, const Array& out);
Status log_softmax_backward(const ConstArray& grad, const ConstArray& y, const Axes& axes, const Array& out);

// What a loss is asked for.
struct LossOptions {
  // One factor a class, shape (C,), or null data for none.
  ConstArray weight;
  // Index targets of this value are ignored: loss and gradient 0, logits not read.
  std::int64_t ignore_index = -100;
  // mean: divided by the sum of the weights of the targets that are not ignored, or for probabilities by the number of samples.
  // Nothing to divide by gives NaN, and a gradient of 0.
  Reduction reduction = Reduction::mean;
  // The class axis; without one, axis 0 of one-dimensional logits, else axis 1.
  bool has_axis = false;
  int axis = 0;
  // In [0, 1]: mixes the target with the uniform distribution (cross_entropy only).
  double label_smoothing = 0;
};

// Where a loss goes. For Reduction::mean and sum, `loss` takes it, in nats. For Reduction::none, `losses` takes one number a
// sample, in the shape of the logits without the class axis, float64 for float64 logits, else float32.
struct LossResult {
  double* loss = nullptr;
  Array losses;
};

// The upstream gradient: one number, or for Reduction::none an array of one number a sample (null data: `value` for all).
struct Upstream {
  double value = 1;
  ConstArray values;
};

// -weight[target] * log_probs[target] for each sample, reduced. Target: class indices.
Status nll_loss(const ConstArray& log_probs, const ConstArray& target, const LossOptions& options, const LossResult& result);
// Its gradient with respect to log_probs, times `grad`.
Status nll_loss_backward(const Upstream& grad, const ConstArray& log_probs, const ConstArray& target,
                         const LossOptions& options, const Array& out);

// The cross-entropy of the target and softmax(logits), reduced. Target: class indices, or class probabilities.
Status cross_entropy(const ConstArray& logits, const ConstArray& target, const LossOptions& options, const LossResult& result);
// Its gradient with respect to the logits, times `grad`.
Status cross_entropy_backward(const Upstream& grad, const ConstArray& logits, const ConstArray& target,
                              const LossOptions& options, const Array& out);
// Both in one call; under Reduction::none the gradient is that of the sum of the losses.
Status cross_entropy_value_and_grad(const ConstArray& logits, const ConstArray& target, const LossOptions& options,
                                    const LossResult& result, const Array& out);

}  // namespace crossent
