// The functions of crossent: softmax, log-softmax, negative log-likelihood and cross-entropy, forward and backward.
//
// Shapes: `out` has the shape of the input; per-row results that shape without the class axes. A loss has one class axis.
// Dtypes: inputs float32, float64, float16 or bfloat16; `out` the input's, or float32 for 16-bit input. Losses and logsumexp
// of 16-bit input are float32.
// Aliasing: `out` may be an input itself (the same elements at the same places), and must not overlap one in another way.
// Errors: reported by the Status; nothing is written then. Threads: all functions may be called from several threads at once.
// Memory: scratch is kept by each thread from call to call; its size does not depend on the number of rows.
#pragma once

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
  Reduction reduction = Reduction::mean;
  // The class axis; without one, axis 0 of one-dimensional logits, else axis 1.
  bool has_axis = false;
  int axis = 0;
  // Mixes the target with the uniform distribution (cross_entropy only).
  double label_smoothing = 0;
};

// Where results go. `loss` takes the reduced loss; for Reduction::none, `losses` takes one number a sample instead, in the
// shape of the logits without the class axis.
struct LossResult {
  double* loss = nullptr;
  Array losses;
};

// The upstream gradient: one number, or for Reduction::none an array of one number a sample.
struct Upstream {
  double value = 1;
  ConstArray values;
};

// -weight[target] * log_probs[target] for each sample, reduced. Target: class indices, of any integer dtype.
Status nll_loss(const ConstArray& log_probs, const ConstArray& target, const LossOptions& options, const LossResult& result);
Status nll_loss_backward(const Upstream& grad, const ConstArray& log_probs, const ConstArray& target,
                         const LossOptions& options, const Array& out);

// The cross-entropy of softmax(logits) and the target: class indices (an integer dtype, shape of the logits without the class
// axis) or class probabilities (a floating dtype, shape of the logits).
Status cross_entropy(const ConstArray& logits, const ConstArray& target, const LossOptions& options, const LossResult& result);
Status cross_entropy_backward(const Upstream& grad, const ConstArray& logits, const ConstArray& target,
                              const LossOptions& options, const Array& out);
// Both in one pass over the logits; under Reduction::none the gradient is that of the sum of the losses.
Status cross_entropy_value_and_grad(const ConstArray& logits, const ConstArray& target, const LossOptions& options,
                                    const LossResult& result, const Array& out);

}  // namespace crossent
