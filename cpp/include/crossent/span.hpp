// With C++20: the functions of crossent.hpp and scoring.hpp on contiguous (rows, classes) matrices in std::span, std::vector,
// std::array and whatever else makes a std::span. What these headers say holds here; sizes that do not fit are Code::bad_value,
// too. Without C++20 this header is empty.
#pragma once

#include <version>
#ifdef __cpp_lib_span

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>

#include "crossent/crossent.hpp"
#include "crossent/scoring.hpp"

namespace crossent {

// A std::span whose element type is known at run time: one overload of each function does for all dtypes.
template <class Void>
class BasicSpan {
 public:
  template <class Range>
    requires requires(Range& range) { std::span(range); }
  BasicSpan(Range&& range) {
    const auto span = std::span(range);
    using Element = typename decltype(span)::element_type;
    static_assert(std::is_const_v<Void> || !std::is_const_v<Element>, "results need elements that can be written to");
    data_ = span.data();
    size_ = static_cast<std::ptrdiff_t>(span.size());
    dtype_ = dtype_of<Element>();
  }

  std::ptrdiff_t size() const { return size_; }
  DType dtype() const { return dtype_; }
  BasicDense<Void> vector() const { return {data_, dtype_, {size_}}; }
  BasicDense<Void> matrix(std::ptrdiff_t classes) const { return {data_, dtype_, {size_ / classes, classes}}; }

 private:
  Void* data_ = nullptr;
  std::ptrdiff_t size_ = 0;
  DType dtype_ = DType::float32;
};
using Span = BasicSpan<void>;             // written to
using ConstSpan = BasicSpan<const void>;  // read only

namespace detail {

// Calls call(matrices...) if each of the spans is a whole number of rows.
template <class Call, class... Spans>
Status with_matrices(std::ptrdiff_t classes, const Call& call, const Spans&... spans) {
  for (std::ptrdiff_t size : {spans.size()...}) {
    if (classes < 1 || size % classes != 0) {
      return {Code::bad_value, std::to_string(size) + " elements are no rows of " + std::to_string(classes) + " classes"};
    }
  }
  return call(spans.matrix(classes)...);
}

// Index targets are one number a row, probabilities one a class.
inline ConstDense target_array(const ConstSpan& target, std::ptrdiff_t classes) {
  const bool whole_rows = is_floating(target.dtype()) && classes >= 1 && target.size() % classes == 0;
  return whole_rows ? target.matrix(classes) : target.vector();
}

// A place for the reduced loss, or for one loss a row.
class Losses {
 public:
  Losses(double& loss) : span_(std::span<double>()), loss_(&loss) {}
  template <class Range>
    requires std::is_constructible_v<Span, Range>
  Losses(Range&& losses) : span_(losses) {}
  template <class Call>
  Status fill(const Call& call) const {
    const Dense losses = span_.vector();
    LossResult result;
    result.loss = loss_;
    if (!loss_) result.losses = losses;
    return call(result);
  }

 private:
  Span span_;
  double* loss_ = nullptr;
};

// One number, or one a row.
class Gradient {
 public:
  Gradient(double value) : span_(std::span<const double>()), value_(value) {}
  template <class Range>
    requires std::is_constructible_v<ConstSpan, Range>
  Gradient(Range&& values) : span_(values), each_(true) {}
  template <class Call>
  Status pass(const Call& call) const {
    const ConstDense values = span_.vector();
    Upstream upstream;
    upstream.value = value_;
    if (each_) upstream.values = values;
    return call(upstream);
  }

 private:
  ConstSpan span_;
  double value_ = 1;
  bool each_ = false;
};

}  // namespace detail

inline Status softmax(const ConstSpan& x, std::ptrdiff_t classes, const Span& out) {
  return detail::with_matrices(classes, [](const ConstDense& rows, const Dense& to) { return softmax(rows, 1, to); }, x, out);
}
inline Status log_softmax(const ConstSpan& x, std::ptrdiff_t classes, const Span& out) {
  return detail::with_matrices(
      classes, [](const ConstDense& rows, const Dense& to) { return log_softmax(rows, 1, to); }, x, out);
}
// `out`: one number a row.
inline Status logsumexp(const ConstSpan& x, std::ptrdiff_t classes, const Span& out) {
  return detail::with_matrices(classes, [&](const ConstDense& rows) { return logsumexp(rows, 1, out.vector()); }, x);
}
inline Status softmax_backward(const ConstSpan& grad, const ConstSpan& y, std::ptrdiff_t classes, const Span& out) {
  const auto call = [](const ConstDense& g, const ConstDense& rows, const Dense& to) {
    return softmax_backward(g, rows, 1, to);
  };
  return detail::with_matrices(classes, call, grad, y, out);
}
inline Status log_softmax_backward(const ConstSpan& grad, const ConstSpan& y, std::ptrdiff_t classes, const Span& out) {
  const auto call = [](const ConstDense& g, const ConstDense& rows, const Dense& to) {
    return log_softmax_backward(g, rows, 1, to);
  };
  return detail::with_matrices(classes, call, grad, y, out);
}

// `loss` is a double for Reduction::mean and sum, or a span of one number a row for Reduction::none; `grad` likewise. Integer
// targets are class indices, one a row; floating ones class probabilities, (rows, classes).
inline Status nll_loss(const ConstSpan& log_probs, std::ptrdiff_t classes, const ConstSpan& target, const LossOptions& options,
                       const detail::Losses& loss) {
  const auto call = [&](const ConstDense& rows) {
    return loss.fill([&](const LossResult& to) { return nll_loss(rows, detail::target_array(target, classes), options, to); });
  };
  return detail::with_matrices(classes, call, log_probs);
}
inline Status nll_loss_backward(const detail::Gradient& grad, const ConstSpan& log_probs, std::ptrdiff_t classes,
                                const ConstSpan& target, const LossOptions& options, const Span& out) {
  const auto call = [&](const ConstDense& rows, const Dense& to) {
    return grad.pass([&](const Upstream& upstream) {
      return nll_loss_backward(upstream, rows, detail::target_array(target, classes), options, to);
    });
  };
  return detail::with_matrices(classes, call, log_probs, out);
}
inline Status cross_entropy(const ConstSpan& logits, std::ptrdiff_t classes, const ConstSpan& target,
                            const LossOptions& options, const detail::Losses& loss) {
  const auto call = [&](const ConstDense& rows) {
    return loss.fill(
        [&](const LossResult& to) { return cross_entropy(rows, detail::target_array(target, classes), options, to); });
  };
  return detail::with_matrices(classes, call, logits);
}
inline Status cross_entropy_backward(const detail::Gradient& grad, const ConstSpan& logits, std::ptrdiff_t classes,
                                     const ConstSpan& target, const LossOptions& options, const Span& out) {
  const auto call = [&](const ConstDense& rows, const Dense& to) {
    return grad.pass([&](const Upstream& upstream) {
      return cross_entropy_backward(upstream, rows, detail::target_array(target, classes), options, to);
    });
  };
  return detail::with_matrices(classes, call, logits, out);
}
inline Status cross_entropy_value_and_grad(const ConstSpan& logits, std::ptrdiff_t classes, const ConstSpan& target,
                                           const LossOptions& options, const detail::Losses& loss, const Span& out) {
  const auto call = [&](const ConstDense& rows, const Dense& to) {
    return loss.fill([&](const LossResult& result) {
      return cross_entropy_value_and_grad(rows, detail::target_array(target, classes), options, result, to);
    });
  };
  return detail::with_matrices(classes, call, logits, out);
}

// `index`: one class a row, or as many for each row as make its size.
inline Status token_log_probs(const ConstSpan& logits, std::ptrdiff_t classes, const ConstSpan& index, const Span& out) {
  const auto call = [&](const ConstDense& rows) {
    const std::ptrdiff_t count = logits.size() / classes, each = count > 0 ? index.size() / count : 0;
    if (index.size() == count || each * count != index.size()) return token_log_probs(rows, index.vector(), 1, out.vector());
    if (out.size() != index.size()) {
      return Status(Code::bad_value, "out has " + std::to_string(out.size()) + " elements for the " +
                                         std::to_string(index.size()) + " of index");
    }
    return token_log_probs(rows, index.matrix(each), 1, out.matrix(each));
  };
  return detail::with_matrices(classes, call, logits);
}
// The places in `stats` hold an entry a row (top_k entries for the last two); `target` has one class a row.
inline Status logit_stats(const ConstSpan& logits, std::ptrdiff_t classes, std::int64_t top_k, const LogitStats& stats) {
  return detail::with_matrices(
      classes, [&](const ConstDense& rows) { return logit_stats(rows, nullptr, 1, top_k, stats); }, logits);
}
inline Status logit_stats(const ConstSpan& logits, std::ptrdiff_t classes, const ConstSpan& target, std::int64_t top_k,
                          const LogitStats& stats) {
  const auto call = [&](const ConstDense& rows) {
    const BasicDense<const void> view = target.vector();
    const ConstArray array = view;
    return logit_stats(rows, &array, 1, top_k, stats);
  };
  return detail::with_matrices(classes, call, logits);
}
inline Status evaluate(const ConstSpan& logits, std::ptrdiff_t classes, const ConstSpan& target, std::int64_t ignore_index,
                       const std::vector<std::int64_t>& top_k, Evaluation& evaluation) {
  const auto call = [&](const ConstDense& rows) { return evaluate(rows, target.vector(), 1, ignore_index, top_k, evaluation); };
  return detail::with_matrices(classes, call, logits);
}
// `loss` as in cross_entropy; options.axis plays no part.
inline Status kl_divergence(const ConstSpan& p_logits, const ConstSpan& q_logits, std::ptrdiff_t classes,
                            DivergenceOptions options, const detail::Losses& loss) {
  options.axis = 1;
  const auto call = [&](const ConstDense& p, const ConstDense& q) {
    return loss.fill([&](const LossResult& to) { return kl_divergence(p, q, options, to); });
  };
  return detail::with_matrices(classes, call, p_logits, q_logits);
}
inline Status kl_divergence_value_and_grad(const ConstSpan& p_logits, const ConstSpan& q_logits, std::ptrdiff_t classes,
                                           DivergenceOptions options, const detail::Losses& loss, const Span& out) {
  options.axis = 1;
  const auto call = [&](const ConstDense& p, const ConstDense& q, const Dense& to) {
    return loss.fill([&](const LossResult& result) { return kl_divergence_value_and_grad(p, q, options, result, to); });
  };
  return detail::with_matrices(classes, call, p_logits, q_logits, out);
}

}  // namespace crossent

#endif
