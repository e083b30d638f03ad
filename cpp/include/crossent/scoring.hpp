// Scores of logits: what is taken from them when a model is evaluated. Each function reads the logits once and allocates
// nothing of their size.
//
// Shapes: logits have one class axis and at least one class; "a row" is an entry of their shape without that axis.
// Dtypes: logits float32, float64, float16 or bfloat16; scores are float64 for float64 logits, else float32.
// Errors, threads and memory: as in crossent.hpp.
#pragma once

#include <vector>

#include "crossent/crossent.hpp"

namespace crossent {

// log_softmax(logits) at the classes of `index`, of any integer dtype: one a row, or K along a last axis of its own. `out` has
// the shape of `index`. It may be `logits` itself where the shapes agree.
Status token_log_probs(const ConstArray& logits, const ConstArray& index, int axis, const Array& out);

// What one read tells of each row: dense arrays with an entry a row, in C order; null for what is not wanted. Floating ones are
// of the scores' dtype.
struct LogitStats {
  void* max = nullptr;
  void* log_sum = nullptr;  // of exp(x - max): logsumexp = max + log_sum. 0 for rows of only -inf or with +inf
  void* entropy = nullptr;  // of softmax(logits), in nats
  std::int64_t* argmax = nullptr;
  void* target_log_prob = nullptr;      // these two are written with a target only
  std::int64_t* target_rank = nullptr;  // how many classes come before the target; 0 = most probable
  void* top_log_probs = nullptr;        // these two for top_k > 0: so many entries a row, most probable first
  std::int64_t* top_indices = nullptr;
};

// Ties go to the lower class; a NaN comes before all numbers. `target` (class indices, one a row) may be null; 0 <= top_k <= C.
Status logit_stats(const ConstArray& logits, const ConstArray* target, int axis, std::int64_t top_k, const LogitStats& stats);

// Sums over samples, exact, so that those of several calls can be added up in any order.
struct Evaluation {
  std::int64_t count = 0;          // samples that are not ignored
  std::vector<std::int64_t> hits;  // for each k: those whose target is among the k most probable classes
  double loss = 0;                 // the sum of their cross-entropies in nats, rounded once
  // The same exactly: the sum over i of loss_digits[i] * 2**(32 * i - kLossScale), plus loss_special, which holds infinities
  // and NaN.
  std::vector<std::int64_t> loss_digits;
  double loss_special = 0;
};
constexpr int kLossScale = 1138;

// Adds nothing to what `evaluation` held: it is written anew. Index targets as in cross_entropy; top_k may hold any numbers.
Status evaluate(const ConstArray& logits, const ConstArray& target, int axis, std::int64_t ignore_index,
                const std::vector<std::int64_t>& top_k, Evaluation& evaluation);

struct DivergenceOptions {
  int axis = -1;
  double temperature = 1;
  Reduction reduction = Reduction::mean;  // over the rows
};

// KL(softmax(p / T) || softmax(q / T)) in nats, and its gradient with respect to q's logits (under Reduction::none that of the
// sum). Both arrays have one shape and dtype; `out` too, or float32 for 16-bit logits, and it may be either of them.
Status kl_divergence(const ConstArray& p_logits, const ConstArray& q_logits, const DivergenceOptions& options,
                     const LossResult& result);
Status kl_divergence_value_and_grad(const ConstArray& p_logits, const ConstArray& q_logits, const DivergenceOptions& options,
                                    const LossResult& result, const Array& out);

}  // namespace crossent
