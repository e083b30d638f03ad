// The list of functions with their formulas in long double, row by row.
#include "functions.hpp"

#include <cmath>

namespace crossent_test {
namespace {

using crossent::Axes;
using crossent::LossOptions;
using crossent::LossResult;
using crossent::Reduction;
using crossent::Upstream;

// --- formulas ---

void softmax(const Row& row, Answer& a) { a.out.assign(row.p, row.p + row.classes); }
void log_softmax(const Row& row, Answer& a) { a.out.assign(row.log_p, row.log_p + row.classes); }
void logsumexp(const Row& row, Answer& a) {
  a.value = row.max + row.log_sum;
  a.value_scale = std::fabs(row.max);
}

// y (g - sum(g y))
void softmax_backward(const Row& row, Answer& a) {
  long double sum = 0, size = 0;
  for (std::ptrdiff_t c = 0; c < row.classes; ++c) {
    sum += row.second[c] * row.x[c];
    size += std::fabs(row.second[c] * row.x[c]);
  }
  for (std::ptrdiff_t c = 0; c < row.classes; ++c) {
    a.out.push_back(row.x[c] * (row.second[c] - sum));
    a.out_scale.push_back(std::fabs(row.x[c]) * std::fmax(std::fabs(row.second[c]), size));
  }
}

// g - exp(y) sum(g)
void log_softmax_backward(const Row& row, Answer& a) {
  long double sum = 0, size = 0;
  for (std::ptrdiff_t c = 0; c < row.classes; ++c) {
    sum += row.second[c];
    size += std::fabs(row.second[c]);
  }
  for (std::ptrdiff_t c = 0; c < row.classes; ++c) {
    const long double p = std::exp(row.x[c]);
    a.out.push_back(row.second[c] - p * sum);
    a.out_scale.push_back(std::fmax(std::fabs(row.second[c]), p * size));
  }
}

long double weight_of(const Row& row, std::ptrdiff_t c) { return row.weight ? row.weight[c] : 1; }

void nll_loss(const Row& row, Answer& a) {
  if (row.target == kIgnored) return;
  const long double weight = weight_of(row, row.target);
  if (weight != 0) a.value = -weight * row.x[row.target];
}

void nll_loss_gradient(const Row& row, Answer& a) {
  a.out.assign(static_cast<std::size_t>(row.classes), 0);
  if (row.target != kIgnored) a.out[static_cast<std::size_t>(row.target)] = -row.upstream * weight_of(row, row.target);
}

// The weight of -log p(c) in the loss: weight(c) ((1 - smoothing) target(c) + smoothing / classes).
long double loss_weight(const Row& row, std::ptrdiff_t c) {
  const long double probability = row.second ? row.second[c] : c == row.target;
  const long double uniform = row.smoothing == 0 ? 0 : row.smoothing / static_cast<long double>(row.classes);
  return weight_of(row, c) * ((1 - row.smoothing) * probability + uniform);
}

void cross_entropy(const Row& row, Answer& a) {
  if (!row.second && row.target == kIgnored) return;
  for (std::ptrdiff_t c = 0; c < row.classes; ++c) {
    const long double q = loss_weight(row, c);
    if (q != 0) a.value -= q * row.log_p[c];
  }
}

// p sum(q) - q; where q is one class's alone, p - 1 is minus the sum of the others' p, which does not cancel.
void cross_entropy_gradient(const Row& row, Answer& a) {
  a.out.assign(static_cast<std::size_t>(row.classes), 0);
  if (!row.second && row.target == kIgnored) return;
  const bool one_hot = !row.second && row.smoothing == 0;
  std::vector<long double> q;
  long double total = 0, others = 0;
  for (std::ptrdiff_t c = 0; c < row.classes; ++c) {
    q.push_back(loss_weight(row, c));
    total += q.back();
    others += c == row.target ? 0 : row.p[c];
  }
  for (std::size_t c = 0; c < q.size(); ++c) {
    const bool hit = one_hot && static_cast<std::int64_t>(c) == row.target;
    a.out[c] = row.upstream * (hit ? -q[c] * others : row.p[c] * total - q[c]);
    if (!one_hot) a.out_scale.push_back(std::fabs(row.upstream) * std::fmax(row.p[c] * total, std::fabs(q[c])));
  }
}

void cross_entropy_both(const Row& row, Answer& a) {
  cross_entropy(row, a);
  cross_entropy_gradient(row, a);
}

// --- calls ---

template <Status (*function)(const ConstArray&, const Axes&, const Array&)>
Status call_forward(const Operands& o) {
  return function(o.x, 1, o.out);
}
template <Status (*function)(const ConstArray&, const ConstArray&, const Axes&, const Array&)>
Status call_backward(const Operands& o) {
  return function(o.second, o.x, 1, o.out);
}
Status call_logsumexp(const Operands& o) { return crossent::logsumexp(o.x, 1, o.per_row); }

LossOptions options_of(const Operands& o) {
  LossOptions options;
  options.weight = o.weight;
  options.reduction = Reduction::none;
  options.label_smoothing = o.smoothing;
  return options;
}
const ConstArray& target_of(const Operands& o) { return o.second.data ? o.second : o.target; }
LossResult result_of(const Operands& o) {
  LossResult result;
  result.losses = o.per_row;
  return result;
}
Upstream upstream_of(const Operands& o) {
  Upstream upstream;
  upstream.values = o.upstream;
  return upstream;
}

Status call_nll_loss(const Operands& o) { return crossent::nll_loss(o.x, o.target, options_of(o), result_of(o)); }
Status call_nll_loss_backward(const Operands& o) {
  return crossent::nll_loss_backward(upstream_of(o), o.x, o.target, options_of(o), o.out);
}
Status call_cross_entropy(const Operands& o) { return crossent::cross_entropy(o.x, target_of(o), options_of(o), result_of(o)); }
Status call_cross_entropy_backward(const Operands& o) {
  return crossent::cross_entropy_backward(upstream_of(o), o.x, target_of(o), options_of(o), o.out);
}
Status call_cross_entropy_both(const Operands& o) {
  return crossent::cross_entropy_value_and_grad(o.x, target_of(o), options_of(o), result_of(o), o.out);
}

// --- what they take ---

Takes array_function() {
  Takes t;
  t.gives_out = true;
  return t;
}
Takes reduction() {
  Takes t;
  t.gives_value = true;
  return t;
}
Takes backward(Values y) {
  Takes t = array_function();
  t.x = y;
  t.second = true;
  return t;
}
Takes loss(Takes t, Values x = Values::logits) {
  t.x = x;
  t.target = true;
  return t;
}
Takes probabilities(Takes t) {
  t.second = t.second_in_compute_type = true;
  t.second_values = Values::probabilities;
  return t;
}
Takes weighted(Takes t) {
  t.weight = true;
  return t;
}
Takes upstream(Takes t) {
  t.upstream = true;
  return t;
}
Takes smoothed(Takes t) {
  t.smoothing = 0.125;
  return t;
}
Takes both() {
  Takes t = array_function();
  t.gives_value = true;
  return t;
}

// The limits that tests/helpers.py has too.
constexpr Limits kNone{0, 0}, kSoftmax{3, 3}, kLogSoftmax{2.5, 3}, kLogSumExp{2.5, 2.5}, kLoss{2.5, 3}, kOffTarget{3, 3},
    kAtTarget{2.5, 4}, kMixed{3, 4}, kProduct{1, 1};

}  // namespace

const std::vector<Function>& functions() {
  static const std::vector<Function> list = {
      {"softmax", array_function(), call_forward<crossent::softmax>, softmax, kSoftmax, kSoftmax, kNone},
      {"log_softmax", array_function(), call_forward<crossent::log_softmax>, log_softmax, kLogSoftmax, kLogSoftmax, kNone},
      {"logsumexp", reduction(), call_logsumexp, logsumexp, kNone, kNone, kLogSumExp},
      {"softmax_backward", backward(Values::probabilities), call_backward<crossent::softmax_backward>, softmax_backward, kMixed,
       kMixed, kNone},
      {"log_softmax_backward", backward(Values::log_probs), call_backward<crossent::log_softmax_backward>, log_softmax_backward,
       kMixed, kMixed, kNone},
      {"nll_loss", weighted(loss(reduction(), Values::log_probs)), call_nll_loss, nll_loss, kNone, kNone, kProduct},
      {"nll_loss_backward", upstream(weighted(loss(array_function(), Values::log_probs))), call_nll_loss_backward,
       nll_loss_gradient, kProduct, kProduct, kNone},

      {"cross_entropy", loss(reduction()), call_cross_entropy, cross_entropy, kNone, kNone, kLoss},
      {"cross_entropy:smoothed", weighted(smoothed(loss(reduction()))), call_cross_entropy, cross_entropy, kNone, kNone, kLoss},
      {"cross_entropy:probabilities", probabilities(reduction()), call_cross_entropy, cross_entropy, kNone, kNone, kLoss},
      {"cross_entropy:weighted_probabilities", weighted(smoothed(probabilities(reduction()))), call_cross_entropy,
       cross_entropy, kNone, kNone, kLoss},

      {"cross_entropy_value_and_grad", loss(both()), call_cross_entropy_both, cross_entropy_both, kOffTarget, kAtTarget, kLoss},
      {"cross_entropy_value_and_grad:smoothed", weighted(smoothed(loss(both()))), call_cross_entropy_both, cross_entropy_both,
       kMixed, kMixed, kLoss},
      {"cross_entropy_value_and_grad:probabilities", probabilities(both()), call_cross_entropy_both, cross_entropy_both, kMixed,
       kMixed, kLoss},
      {"cross_entropy_value_and_grad:smoothed_probabilities", smoothed(probabilities(both())), call_cross_entropy_both,
       cross_entropy_both, kMixed, kMixed, kLoss},
      {"cross_entropy_value_and_grad:weighted_probabilities", weighted(smoothed(probabilities(both()))),
       call_cross_entropy_both, cross_entropy_both, kMixed, kMixed, kLoss},

      {"cross_entropy_backward", upstream(loss(array_function())), call_cross_entropy_backward, cross_entropy_gradient,
       kOffTarget, kAtTarget, kNone},
      {"cross_entropy_backward:probabilities", upstream(probabilities(array_function())), call_cross_entropy_backward,
       cross_entropy_gradient, kMixed, kMixed, kNone},
  };
  static const std::vector<Function> all = [] {
    std::vector<Function> joined = list;
    for (const Function& function : scoring_functions()) joined.push_back(function);
    return joined;
  }();
  return all;
}

}  // namespace crossent_test
