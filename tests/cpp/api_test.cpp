// The public interface as a C++ user meets it: views, spans, errors, aliasing, threads.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "crossent/crossent.hpp"
#include "crossent/scoring.hpp"
#include "crossent/span.hpp"

namespace {

using namespace crossent;

int passed = 0, failed = 0;

void expect(bool good, const std::string& what) {
  ++(good ? passed : failed);
  if (!good) std::printf("FAILED %s\n", what.c_str());
}
void expect(const Status& status, const std::string& what) { expect(static_cast<bool>(status), what + ": " + status.message); }
void expect_near(double actual, double expected, const std::string& what) {
  expect(std::fabs(actual - expected) <= 5e-5,
         what + ": " + std::to_string(actual) + " instead of " + std::to_string(expected));
}
void expect_error(const Status& status, Code code, const std::string& part, const std::string& what) {
  const bool good = status.code == code && status.message.find(part) != std::string::npos;
  expect(good, what + ": code " + std::to_string(static_cast<int>(status.code)) + ", '" + status.message + "'");
}

// The worked example of README.md.
const std::vector<double> kLogits = {0.9826,  1.0630,  -0.4096, -0.6213, 0.2511, 0.5659,  0.5662, 0.7360,
                                     -0.6783, -0.4638, -1.4961, -1.0877, 1.8186, -0.2998, 0.1128};
const std::vector<std::int64_t> kTarget = {1, 0, 1, 1, 1};
constexpr double kLoss = 1.4904;
constexpr double kUnwritten = 77;

void test_routes_agree() {
  const ConstDense logits(kLogits.data(), {5, 3}), target(kTarget.data(), {5});
  std::vector<double> probabilities(15), log_probs(15), gradient(15), out(15);
  double loss = 0;
  LossResult result;
  result.loss = &loss;
  expect(softmax(logits, 1, Dense(probabilities.data(), {5, 3})), "softmax succeeds");
  double by_hand = 0;
  for (std::size_t i = 0; i < 5; ++i) by_hand -= std::log(probabilities[3 * i + static_cast<std::size_t>(kTarget[i])]) / 5;
  expect_near(by_hand, kLoss, "logarithm of softmax");
  expect(log_softmax(logits, -1, Dense(log_probs.data(), {5, 3})), "log_softmax succeeds");
  expect(nll_loss(ConstDense(log_probs.data(), {5, 3}), target, {}, result), "nll_loss succeeds");
  expect_near(loss, kLoss, "nll_loss of log_softmax");
  expect(cross_entropy(logits, target, {}, result), "cross_entropy succeeds");
  expect_near(loss, kLoss, "cross_entropy");
  const Status both = cross_entropy_value_and_grad(logits, target, {}, result, Dense(gradient.data(), {5, 3}));
  expect(both, "cross_entropy_value_and_grad succeeds");
  for (std::size_t i = 0; i < 15; ++i) {
    const bool hit = static_cast<std::int64_t>(i % 3) == kTarget[i / 3];
    expect_near(gradient[i], (probabilities[i] - hit) / 5, "gradient");
  }
  const Status again = cross_entropy_backward({}, logits, target, {}, Dense(out.data(), {5, 3}));
  expect(again && out == gradient, "cross_entropy_backward has the same bits");
}

void test_errors_are_reported_before_anything_is_written() {
  std::vector<double> out(15, kUnwritten), losses(5, kUnwritten);
  const std::vector<std::int64_t> outside = {1, 0, 3, 1, 1};
  const bool flags[5] = {};
  const ConstDense logits(kLogits.data(), {5, 3}), target(kTarget.data(), {5});
  const Dense to(out.data(), {5, 3});
  double loss = kUnwritten;
  LossResult reduced;
  reduced.loss = &loss;
  LossResult each;
  const Dense losses_view(losses.data(), {5});
  each.losses = losses_view;
  expect_error(softmax(logits, 2, to), Code::bad_axis, "axis 2", "axis out of range");
  expect_error(softmax(logits, {1, 1}, to), Code::bad_value, "twice", "axis named twice");
  expect_error(softmax(logits, 1, Dense(out.data(), {3, 5})), Code::bad_value, "(3, 5)", "out of another shape");
  expect_error(softmax(target, 0, Dense(out.data(), {5})), Code::bad_type, "int64", "integer logits");
  const Status bad_index = cross_entropy_value_and_grad(logits, ConstDense(outside.data(), {5}), {}, reduced, to);
  expect_error(bad_index, Code::bad_index, "position (2,)", "target outside");
  expect_error(cross_entropy(logits, ConstDense(flags, {5}), {}, reduced), Code::bad_type, "bool", "boolean target");
  expect_error(cross_entropy(logits, ConstDense(kTarget.data(), {4}), {}, reduced), Code::bad_value, "(4,)",
               "target too short");
  expect_error(nll_loss(logits, logits, {}, reduced), Code::bad_type, "integer", "nll_loss of probabilities");
  expect_error(cross_entropy(logits, target, {}, each), Code::bad_value, "reduced loss", "no place for the reduced loss");
  LossOptions options;
  options.reduction = Reduction::none;
  expect_error(cross_entropy(logits, target, options, reduced), Code::bad_value, "losses", "no place for the losses");
  each.losses.shape = each.losses.strides;
  expect_error(cross_entropy(logits, target, options, each), Code::bad_value, "(8,)", "losses of another shape");
  float narrow[5] = {};
  const Dense narrow_view(narrow, {5});
  each.losses = narrow_view;
  expect_error(cross_entropy(logits, target, options, each), Code::bad_value, "float32", "losses of another dtype");
  options.label_smoothing = std::numeric_limits<double>::quiet_NaN();
  expect_error(cross_entropy(logits, target, options, each), Code::bad_value, "label_smoothing", "smoothing is NaN");
  expect_error(set_num_threads(0), Code::bad_value, "at least 1", "no threads");
  expect_error(select_simd("nonsense"), Code::bad_value, "baseline", "unknown instruction set");
  bool untouched = loss == kUnwritten;
  for (double value : out) untouched = untouched && value == kUnwritten;
  for (double value : losses) untouched = untouched && value == kUnwritten;
  expect(untouched, "nothing is written where an error is reported");
}

void test_scores() {
  const ConstDense logits(kLogits.data(), {5, 3}), target(kTarget.data(), {5});
  std::vector<double> log_probs(5), max(5), log_sum(5), top_log_probs(10), gradient(15);
  std::vector<std::int64_t> rank(5), top(10);
  expect(token_log_probs(logits, target, 1, Dense(log_probs.data(), {5})), "token_log_probs succeeds");
  double sum = 0;
  for (double value : log_probs) sum -= value / 5;
  expect_near(sum, kLoss, "mean of the log-probabilities");
  LogitStats stats;
  stats.max = max.data();
  stats.log_sum = log_sum.data();
  stats.target_rank = rank.data();
  stats.top_indices = top.data();
  stats.top_log_probs = top_log_probs.data();
  const ConstArray target_view = target;
  expect(logit_stats(logits, &target_view, 1, 2, stats), "logit_stats of some fields");
  for (std::size_t i = 0; i < 5; ++i) {
    expect(max[i] == kLogits[3 * i + static_cast<std::size_t>(top[2 * i])], "the most probable class");
    expect_near(top_log_probs[2 * i], -log_sum[i], "its log-probability");
    expect((rank[i] == 0) == (top[2 * i] == kTarget[i]), "rank 0 is the most probable class");
  }
  Evaluation evaluation;
  expect(evaluate(logits, target, 1, -100, {1, 3}, evaluation), "evaluate succeeds");
  expect_near(evaluation.loss / 5, kLoss, "mean of the exact sum");
  expect(evaluation.count == 5 && evaluation.hits[1] == 5 && evaluation.hits[0] < 5, "all targets are among three classes");
  double divergence = kUnwritten;
  LossResult result;
  result.loss = &divergence;
  const Dense out(gradient.data(), {5, 3});
  expect(kl_divergence_value_and_grad(logits, logits, {}, result, out) && divergence == 0, "none from itself");
  expect(gradient == std::vector<double>(15), "and no gradient");
}

void test_errors_of_scores() {
  std::vector<double> out(15, kUnwritten);
  const std::vector<std::int64_t> outside = {1, 0, 3, 1, 1};
  const ConstDense logits(kLogits.data(), {5, 3}), wrong(outside.data(), {5}), narrower(kLogits.data(), {3, 5});
  const ConstArray wrong_view = wrong;
  LogitStats stats;
  stats.max = out.data();
  Evaluation evaluation;
  double loss = kUnwritten;
  LossResult result;
  expect_error(token_log_probs(logits, wrong, 1, Dense(out.data(), {5})), Code::bad_index, "index 3 at position (2,)",
               "index outside");
  expect_error(logit_stats(logits, &wrong_view, 1, 0, stats), Code::bad_index, "position (2,)", "target outside");
  expect_error(logit_stats(logits, nullptr, 1, 4, stats), Code::bad_value, "top_k", "more classes than there are");
  expect_error(evaluate(logits, wrong, 1, -100, {1}, evaluation), Code::bad_index, "ignore_index", "target not ignored");
  expect_error(kl_divergence(logits, logits, {}, result), Code::bad_value, "reduced loss", "no place for the divergence");
  result.loss = &loss;
  expect_error(kl_divergence(logits, narrower, {}, result), Code::bad_value, "(3, 5)", "rows of another length");
  DivergenceOptions each;
  each.reduction = Reduction::none;
  expect_error(kl_divergence(logits, logits, each, result), Code::bad_value, "losses", "no place for the divergences");
  expect(out == std::vector<double>(15, kUnwritten) && loss == kUnwritten, "nothing is written where an error is reported");
}

void test_in_place_and_views() {
  std::vector<double> apart(15), in_place = kLogits, transposed(15), from_transposed(15);
  const Status first = softmax(ConstDense(kLogits.data(), {5, 3}), 1, Dense(apart.data(), {5, 3}));
  const Dense view(in_place.data(), {5, 3});
  expect(first && softmax(view, 1, view) && in_place == apart, "out may be the input itself");
  for (std::size_t i = 0; i < 15; ++i) transposed[i % 3 * 5 + i / 3] = kLogits[i];
  const Status second = softmax(ConstDense(transposed.data(), {3, 5}), 0, Dense(from_transposed.data(), {3, 5}));
  bool same = static_cast<bool>(second);
  for (std::size_t i = 0; i < 15; ++i) same = same && from_transposed[i % 3 * 5 + i / 3] == apart[i];
  expect(same, "axis 0 of the transposed array is the same");
  std::vector<Float16> narrow(4, Float16{0x3c00}), narrow_out(4);
  const Status third = softmax(ConstDense(narrow.data(), {4}), Axes::every(), Dense(narrow_out.data(), {4}));
  expect(third && narrow_out[2].bits == 0x3400, "four equal float16 logits: 0.25 each");
}

void test_gradient_over_the_target_probabilities() {
  for (std::ptrdiff_t classes : {5, 200, 5000}) {
    const std::size_t size = static_cast<std::size_t>(2 * classes);
    std::vector<double> logits(size), probabilities(size), gradient(size);
    for (std::size_t i = 0; i < size; ++i) logits[i] = static_cast<double>(i % 7);
    const Dense rows(logits.data(), {2, classes}), target(probabilities.data(), {2, classes});
    expect(softmax(rows, 1, target), "softmax succeeds");
    const Status apart = cross_entropy_backward({}, rows, target, {}, Dense(gradient.data(), {2, classes}));
    const Status over = cross_entropy_backward({}, rows, target, {}, target);
    expect(apart && over && probabilities == gradient, "out may be the target of " + std::to_string(classes) + " classes");
  }
}

void test_calls_from_several_threads() {
  std::vector<double> expected(15);
  const ConstDense logits(kLogits.data(), {5, 3});
  bool same = static_cast<bool>(log_softmax(logits, 1, Dense(expected.data(), {5, 3})));
  bool each[4] = {};
  std::vector<std::thread> threads;
  for (bool& mine : each) {
    threads.emplace_back([&] {
      mine = true;
      for (int repeat = 0; repeat < 500; ++repeat) {
        std::vector<double> out(15);
        const Status status = log_softmax(logits, 1, Dense(out.data(), {5, 3}));
        mine = mine && status && out == expected;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (bool mine : each) same = same && mine;
  expect(same, "calls from four threads at once");
}

void test_runtime() {
  const std::vector<std::string> targets = simd_targets();
  expect(!targets.empty() && targets.back() == "baseline", "baseline runs everywhere");
  expect(simd_status(), "an instruction set is in use");
  expect(!simd_target().empty(), "its name");
  expect(set_num_threads(2), "two threads");
  expect(get_num_threads() == (has_openmp() ? 2 : 1), "as many as there can be");
  int parts = 0;
  for (const char* p = version(); *p; ++p) parts += *p == '.';
  expect(parts == 2, std::string("the version is ") + version());
}

void test_spans() {
#ifdef __cpp_lib_span
  std::vector<double> out(15), again(15), log_probs(15), gradient(15);
  std::vector<double> losses(5);
  double loss = 0;
  expect(log_softmax(kLogits, 3, log_probs), "vectors are spans");
  expect(nll_loss(log_probs, 3, kTarget, {}, loss) && std::fabs(loss - kLoss) < 5e-5, "nll_loss of spans");
  const std::span<const double> logits(kLogits);
  expect(cross_entropy(logits, 3, kTarget, {}, loss) && std::fabs(loss - kLoss) < 5e-5, "cross_entropy of spans");
  LossOptions each;
  each.reduction = Reduction::none;
  expect(cross_entropy_value_and_grad(logits, 3, kTarget, each, losses, gradient), "one loss a row");
  double sum = 0;
  for (double value : losses) sum += value / 5;
  expect_near(sum, kLoss, "mean of the losses");
  expect(cross_entropy_backward(1, logits, 3, kTarget, {}, out), "a number as upstream gradient");
  expect_near(out[1], gradient[1] / 5, "gradient of the mean");
  expect(cross_entropy_backward(std::vector<double>(5, 2), logits, 3, kTarget, each, out), "one upstream gradient a row");
  expect_near(out[4], 2 * gradient[4], "gradient times two");
  expect(nll_loss_backward(1, log_probs, 3, kTarget, {}, out) && out[1] == -0.2 && out[0] == 0, "nll_loss_backward");
  expect(softmax(logits, 3, out) && cross_entropy(logits, 3, out, {}, loss), "probabilities as target");
  double entropy = 0;
  for (std::size_t i = 0; i < 15; ++i) entropy -= out[i] * log_probs[i] / 5;
  expect_near(loss, entropy, "cross-entropy with itself");
  expect(softmax_backward(gradient, out, 3, again) && log_softmax_backward(gradient, log_probs, 3, again), "backward");
  expect(logsumexp(logits, 3, losses), "logsumexp of spans");
  expect_near(losses[0], kLogits[0] - log_probs[0], "logsumexp");
  expect(token_log_probs(logits, 3, kTarget, losses), "token_log_probs of spans");
  expect_near(losses[0], log_probs[1], "the log-probability of a class");
  const std::vector<std::int64_t> every = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2};
  expect(token_log_probs(logits, 3, every, again), "of several classes of each row");
  expect_near(again[14], log_probs[14], "the last of them");
  LogitStats stats;
  stats.entropy = losses.data();
  expect(logit_stats(logits, 3, 0, stats) && logit_stats(logits, 3, kTarget, 1, stats), "logit_stats of spans");
  Evaluation evaluation;
  expect(evaluate(logits, 3, kTarget, -100, {1}, evaluation) && std::fabs(evaluation.loss / 5 - kLoss) < 5e-5, "evaluate");
  expect(kl_divergence(logits, logits, 3, {}, loss) && loss == 0, "kl_divergence of spans");
  expect(kl_divergence_value_and_grad(logits, again, 3, {}, losses, gradient).code == Code::bad_value, "no place for a mean");
  expect_error(token_log_probs(logits, 3, std::vector<int>(7), losses), Code::bad_value, "(7,)", "no whole number of indices");
  expect_error(token_log_probs(logits, 3, every, losses), Code::bad_value, "15 of index", "too small a result");
  expect_error(softmax(kLogits, 4, out), Code::bad_value, "15 elements", "no whole number of rows");
  expect_error(softmax(kLogits, 0, out), Code::bad_value, "0 classes", "no classes");
  expect_error(cross_entropy(kLogits, 3, kTarget, each, loss), Code::bad_value, "losses", "a number for five losses");
#endif
}

}  // namespace

int main() {
  test_routes_agree();
  test_errors_are_reported_before_anything_is_written();
  test_scores();
  test_errors_of_scores();
  test_in_place_and_views();
  test_gradient_over_the_target_probabilities();
  test_calls_from_several_threads();
  test_runtime();
  test_spans();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
