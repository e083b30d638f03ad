// The list of scoring functions with their formulas in long double, row by row. Functions that give integers, or several
// numbers a row, stand here once for each, as a function of one number a row, or of one a class.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "functions.hpp"

namespace crossent_test {
namespace {

using crossent::DivergenceOptions;
using crossent::LogitStats;
using crossent::LossResult;
using crossent::Reduction;

constexpr double kTemperature = 1.5;

// --- formulas ---

// Classes from the most to the least probable, ties in their order.
std::vector<std::size_t> ranking(const Row& row) {
  std::vector<std::size_t> order(static_cast<std::size_t>(row.classes));
  for (std::size_t c = 0; c < order.size(); ++c) order[c] = c;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return row.x[a] > row.x[b]; });
  return order;
}

// Ignored rows are asked for class 0.
std::size_t class_of(const Row& row) { return static_cast<std::size_t>(row.target == kIgnored ? 0 : row.target); }

void one_log_prob(const Row& row, Answer& a) { a.value = row.log_p[class_of(row)]; }
void log_probs_backwards(const Row& row, Answer& a) {
  for (std::ptrdiff_t c = row.classes - 1; c >= 0; --c) a.out.push_back(row.log_p[c]);
}
void max(const Row& row, Answer& a) { a.value = row.max; }
void log_sum(const Row& row, Answer& a) { a.value = row.log_sum; }
void entropy(const Row& row, Answer& a) {
  a.value = row.log_sum;
  for (std::ptrdiff_t c = 0; c < row.classes; ++c) a.value += row.p[c] > 0 ? row.p[c] * (row.max - row.x[c]) : 0;
}
void rank(const Row& row, Answer& a) {
  const std::vector<std::size_t> order = ranking(row);
  a.value = static_cast<long double>(std::find(order.begin(), order.end(), class_of(row)) - order.begin());
}
void top_log_probs(const Row& row, Answer& a) {
  for (std::size_t c : ranking(row)) a.out.push_back(row.log_p[c]);
}
void top_indices(const Row& row, Answer& a) {
  for (std::size_t c : ranking(row)) a.out.push_back(static_cast<long double>(c));
}
void argmax(const Row& row, Answer& a) { a.value = static_cast<long double>(ranking(row).front()); }
void loss(const Row& row, Answer& a) {
  if (row.target != kIgnored) a.value = -row.log_p[row.target];
}

// log_softmax(x / temperature), and the logarithm of its sum of exponentials.
std::vector<long double> tempered_log_probs(const long double* x, std::ptrdiff_t classes, long double temperature,
                                            long double& log_of_sum) {
  const std::ptrdiff_t peak = std::max_element(x, x + classes) - x;
  long double rest = 0;
  for (std::ptrdiff_t c = 0; c < classes; ++c) rest += c == peak ? 0 : std::exp((x[c] - x[peak]) / temperature);
  log_of_sum = std::log1p(rest);
  std::vector<long double> log_p;
  for (std::ptrdiff_t c = 0; c < classes; ++c) log_p.push_back((x[c] - x[peak]) / temperature - log_of_sum);
  return log_p;
}

void divergence(const Row& row, Answer& a, long double temperature) {
  long double p_log_sum = 0, q_log_sum = 0;
  const auto p = tempered_log_probs(row.x, row.classes, temperature, p_log_sum);
  const auto q = tempered_log_probs(row.second, row.classes, temperature, q_log_sum);
  a.value_scale = std::fmax(p_log_sum, q_log_sum);
  long double size = 0;
  for (std::size_t c = 0; c < p.size(); ++c) {
    const long double share = std::exp(p[c]), other = std::exp(q[c]);
    a.value += share > 0 ? share * (p[c] - q[c]) : 0;
    size += share > 0 ? std::fabs(share * ((p[c] + p_log_sum) - (q[c] + q_log_sum))) : 0;
    a.out.push_back((other - share) / temperature);
    a.out_scale.push_back(std::fmax(share, other) / temperature);
  }
  a.value_scale = std::fmax(a.value_scale, size);
}
void divergence(const Row& row, Answer& a) { divergence(row, a, 1); }
void tempered_divergence(const Row& row, Answer& a) { divergence(row, a, static_cast<long double>(kTemperature)); }

// --- calls ---

std::vector<std::int64_t> targets_of(const Operands& o) {
  const std::int64_t* target = static_cast<const std::int64_t*>(o.target.data);
  std::vector<std::int64_t> classes(target, target + o.x.shape[0]);
  std::replace(classes.begin(), classes.end(), kIgnored, std::int64_t{0});
  return classes;
}

void put(const Array& to, std::ptrdiff_t offset, double value) {
  char* p = static_cast<char*>(to.data) + offset;
  if (to.dtype == DType::float64) {
    std::memcpy(p, &value, sizeof value);
  } else {
    const float narrow = static_cast<float>(value);
    std::memcpy(p, &narrow, sizeof narrow);
  }
}
// Numbers in C order to an array of one or two dimensions.
template <class T>
void copy_to(const Array& to, const std::vector<T>& values) {
  const std::ptrdiff_t columns = to.ndim == 2 ? to.shape[1] : 1;
  for (std::ptrdiff_t i = 0; i < static_cast<std::ptrdiff_t>(values.size()); ++i) {
    const std::ptrdiff_t within_row = to.ndim == 2 ? i % columns * to.strides[1] : 0;
    put(to, i / columns * to.strides[0] + within_row, static_cast<double>(values[static_cast<std::size_t>(i)]));
  }
}

Status call_token_log_probs(const Operands& o) {
  const std::vector<std::int64_t> index = targets_of(o);
  return crossent::token_log_probs(o.x, crossent::ConstDense(index.data(), {o.x.shape[0]}), 1, o.per_row);
}
Status call_all_log_probs(const Operands& o) {
  const std::ptrdiff_t rows = o.x.shape[0], classes = o.x.shape[1];
  std::vector<std::uint16_t> index;
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    for (std::ptrdiff_t c = classes - 1; c >= 0; --c) index.push_back(static_cast<std::uint16_t>(c));
  }
  return crossent::token_log_probs(o.x, crossent::ConstDense(index.data(), {rows, classes}), 1, o.out);
}

// Calls logit_stats with the place of one field alone.
Status call_stats(const Operands& o, std::int64_t top_k, const Array& to, void* LogitStats::* field) {
  const std::ptrdiff_t count = top_k > 0 ? to.shape[0] * to.shape[1] : to.shape[0];
  const std::vector<std::int64_t> classes = targets_of(o);
  const crossent::ConstDense target(classes.data(), {o.x.shape[0]});
  const ConstArray view = target;
  const auto call = [&](auto number) {
    std::vector<decltype(number)> values(static_cast<std::size_t>(count));
    LogitStats stats;
    stats.*field = values.data();
    const Status status = crossent::logit_stats(o.x, &view, 1, top_k, stats);
    if (status) copy_to(to, values);
    return status;
  };
  return to.dtype == DType::float64 ? call(0.0) : call(0.0f);
}
Status call_stats(const Operands& o, std::int64_t top_k, const Array& to, std::int64_t* LogitStats::* field) {
  const std::ptrdiff_t count = top_k > 0 ? to.shape[0] * to.shape[1] : to.shape[0];
  const std::vector<std::int64_t> classes = targets_of(o);
  const crossent::ConstDense target(classes.data(), {o.x.shape[0]});
  const ConstArray view = target;
  std::vector<std::int64_t> values(static_cast<std::size_t>(count));
  LogitStats stats;
  stats.*field = values.data();
  const Status status = crossent::logit_stats(o.x, &view, 1, top_k, stats);
  if (status) copy_to(to, values);
  return status;
}
template <auto field>
Status call_field(const Operands& o) {
  return call_stats(o, 0, o.per_row, field);
}
template <auto field>
Status call_top(const Operands& o) {
  return call_stats(o, o.x.shape[1], o.out, field);
}

// The loss of each row for itself.
Status call_evaluate(const Operands& o) {
  std::vector<double> losses;
  for (std::ptrdiff_t r = 0; r < o.x.shape[0]; ++r) {
    const std::ptrdiff_t one[] = {1, o.x.shape[1]};
    const ConstArray row{static_cast<const char*>(o.x.data) + r * o.x.strides[0], o.x.dtype, 2, one, o.x.strides};
    const ConstArray target{static_cast<const std::int64_t*>(o.target.data) + r, DType::int64, 1, one, o.target.strides};
    crossent::Evaluation evaluation;
    if (Status s = crossent::evaluate(row, target, 1, kIgnored, {1, 5}, evaluation); !s) return s;
    long double sum = static_cast<long double>(evaluation.loss_special);
    for (std::size_t i = 0; i < evaluation.loss_digits.size(); ++i) {
      sum += std::ldexp(static_cast<long double>(evaluation.loss_digits[i]), static_cast<int>(32 * i) - crossent::kLossScale);
    }
    losses.push_back(static_cast<double>(sum));
  }
  copy_to(o.per_row, losses);
  return {};
}

DivergenceOptions divergence_options(double temperature) {
  DivergenceOptions options;
  options.temperature = temperature;
  options.reduction = Reduction::none;
  return options;
}
LossResult result_of(const Operands& o) {
  LossResult result;
  result.losses = o.per_row;
  return result;
}
Status call_divergence(const Operands& o) {
  return crossent::kl_divergence(o.x, o.second, divergence_options(1), result_of(o));
}
Status call_divergence_both(const Operands& o) {
  return crossent::kl_divergence_value_and_grad(o.x, o.second, divergence_options(1), result_of(o), o.out);
}
Status call_tempered_divergence(const Operands& o) {
  return crossent::kl_divergence_value_and_grad(o.x, o.second, divergence_options(kTemperature), result_of(o), o.out);
}

// --- what they take ---

Takes score() {
  Takes t;
  t.target = t.gives_value = true;
  return t;
}
Takes scores() {
  Takes t;
  t.target = t.gives_out = t.out_in_score_dtype = true;
  return t;
}
Takes pair(bool gives_out) {
  Takes t;
  t.second = t.gives_value = true;
  t.second_values = Values::log_probs;
  t.gives_out = gives_out;
  return t;
}

// The limits that tests/helpers.py has too.
constexpr Limits kExact{0, 0}, kLogProb{2.5, 3}, kLogSum{2.5, 3}, kEntropy{3, 4}, kDivergence{3, 4}, kGradient{4, 5};

}  // namespace

std::vector<Function> scoring_functions() {
  return {
      {"token_log_probs", score(), call_token_log_probs, one_log_prob, kExact, kExact, kLogProb},
      {"token_log_probs:several", scores(), call_all_log_probs, log_probs_backwards, kLogProb, kLogProb, kExact},
      {"logit_stats:max", score(), call_field<&LogitStats::max>, max, kExact, kExact, kExact},
      {"logit_stats:log_sum", score(), call_field<&LogitStats::log_sum>, log_sum, kExact, kExact, kLogSum},
      {"logit_stats:entropy", score(), call_field<&LogitStats::entropy>, entropy, kExact, kExact, kEntropy},
      {"logit_stats:argmax", score(), call_field<&LogitStats::argmax>, argmax, kExact, kExact, kExact},
      {"logit_stats:target_log_prob", score(), call_field<&LogitStats::target_log_prob>, one_log_prob, kExact, kExact,
       kLogProb},
      {"logit_stats:target_rank", score(), call_field<&LogitStats::target_rank>, rank, kExact, kExact, kExact},
      {"logit_stats:top_log_probs", scores(), call_top<&LogitStats::top_log_probs>, top_log_probs, kLogProb, kLogProb, kExact},
      {"logit_stats:top_indices", scores(), call_top<&LogitStats::top_indices>, top_indices, kExact, kExact, kExact},
      {"evaluate", score(), call_evaluate, loss, kExact, kExact, kLogProb},
      {"kl_divergence", pair(false), call_divergence, divergence, kExact, kExact, kDivergence},
      {"kl_divergence_value_and_grad", pair(true), call_divergence_both, divergence, kGradient, kGradient, kDivergence},
      {"kl_divergence_value_and_grad:tempered", pair(true), call_tempered_divergence, tempered_divergence, kGradient, kGradient,
       kDivergence},
  };
}

}  // namespace crossent_test
