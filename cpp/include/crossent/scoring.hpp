// Scores of logits: what is taken from them when a model is evaluated. Each function reads the logits once and allocates
// nothing of their size.
//
// Shapes: logits have one class axis and at least one class; "a row" is an entry of their shape without that axis.
// Dtypes: logits float32, float64, float16 or bfloat16; scores are float64 for float64 logits, else float32.
// Errors, threads and memory: as in crossent.hpp.
#pragma once

#include "crossent/runtime.hpp"
#include "crossent/types.hpp"

namespace crossent {

// log_softmax(logits) at the classes of `index`, of any integer dtype: one a row, or K along a last axis of its own. `out` has
// the shape of `index`. It may be `logits` itself where the shapes agree.
Status token_log_probs(const ConstArray& logits, const ConstArray& index, int axis, const Array& out);

}  // namespace crossent
