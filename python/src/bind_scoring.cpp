// Bindings of the scores: view, release the GIL, call.
#include <pybind11/stl.h>

#include <vector>

#include "arrays.hpp"
#include "crossent/scoring.hpp"

namespace crossent_python {
namespace {

DType score_dtype(const Argument& logits) { return logits.dtype == DType::float64 ? DType::float64 : DType::float32; }

// A new array of scores with the shape of `like`.
Argument empty_scores(const Argument& logits, const Argument& like) {
  const bool removed[crossent::kMaxDims] = {};
  return empty_without(like, removed, false, score_dtype(logits));
}

py::object token_log_probs(py::handle logits_object, py::handle index_object, py::handle axis, py::handle out_object) {
  const Argument logits = floating(logits_object, "logits"), index = target(index_object, false, "index");
  const int class_axis = parse_axis(axis, static_cast<int>(logits.array.ndim()));
  Argument out = out_object.is_none() ? empty_scores(logits, index) : output(out_object);
  if (!out_object.is_none()) {
    check_overlap(out, logits, "logits");
    check_overlap(out, index, "index");
  }
  Status status;
  {
    const ReleaseGil release(logits.array.size());
    status = crossent::token_log_probs(logits.view(), index.view(), class_axis, out.mutable_view());
  }
  raise_for(status);
  return out_object.is_none() ? unwrap(out) : py::object(std::move(out.array));
}

// A new array of the shape of a's rows and, if positive, `last` more entries each.
template <class T>
py::array row_array(const Argument& a, int axis, py::ssize_t last = 0) {
  std::vector<py::ssize_t> shape;
  const py::ssize_t ndim = a.array.ndim();
  for (py::ssize_t d = 0; d < ndim; ++d) {
    if (d != (axis + ndim) % ndim) shape.push_back(a.array.shape(d));
  }
  if (last > 0) shape.push_back(last);
  return py::array(py::dtype::of<T>(), std::move(shape));
}

py::object as_result(const py::array& array) { return array.ndim() == 0 ? array[py::tuple()] : py::object(array); }

// The fields of LogitStats in their order; those that were not asked for are None.
py::tuple logit_stats(py::handle logits_object, py::handle target_object, py::handle axis, py::handle top_k_object) {
  const Argument logits = floating(logits_object, "logits");
  std::optional<Argument> classes;
  if (!target_object.is_none()) classes = target(target_object, false);
  const int ndim = static_cast<int>(logits.array.ndim()), class_axis = parse_axis(axis, ndim);
  const std::int64_t top_k = parse_int64(top_k_object, "top_k");
  const bool wide = logits.dtype == DType::float64;
  const py::ssize_t axis_length = ndim ? logits.array.shape((class_axis + ndim) % ndim) : 1;
  const py::ssize_t top = top_k > axis_length ? 0 : static_cast<py::ssize_t>(top_k);  // more is an error of the call below
  crossent::LogitStats stats;
  const auto scores = [&](void*& place, py::ssize_t last = 0) {
    py::array array = wide ? row_array<double>(logits, class_axis, last) : row_array<float>(logits, class_axis, last);
    place = array.mutable_data();
    return array;
  };
  const auto indices = [&](std::int64_t*& place, py::ssize_t last = 0) {
    py::array array = row_array<std::int64_t>(logits, class_axis, last);
    place = static_cast<std::int64_t*>(array.mutable_data());
    return array;
  };
  const py::array max = scores(stats.max), log_sum = scores(stats.log_sum), argmax = indices(stats.argmax);
  const py::array entropy = scores(stats.entropy);
  py::object of_target[2] = {py::none(), py::none()}, of_top[2] = {py::none(), py::none()};
  if (classes) {
    of_target[0] = scores(stats.target_log_prob);
    of_target[1] = indices(stats.target_rank);
  }
  if (top > 0) {
    of_top[0] = indices(stats.top_indices, top);
    of_top[1] = scores(stats.top_log_probs, top);
  }
  Status status;
  {
    const ConstArray view = classes ? classes->view() : ConstArray();
    const ReleaseGil release(logits.array.size());
    status = crossent::logit_stats(logits.view(), classes ? &view : nullptr, class_axis, top_k, stats);
  }
  raise_for(status);
  const auto finished = [](const py::object& field) {
    return field.is_none() ? field : as_result(py::reinterpret_borrow<py::array>(field));
  };
  return py::make_tuple(as_result(max), as_result(log_sum), as_result(argmax), as_result(entropy), finished(of_target[0]),
                        finished(of_target[1]), of_top[0], of_top[1]);
}

// (count, hits, digits of the exact loss, its infinities and NaN, scale of the digits)
py::tuple evaluate(py::handle logits_object, py::handle target_object, py::handle axis, py::handle ignore_index,
                   const std::vector<std::int64_t>& top_k) {
  const Argument logits = floating(logits_object, "logits"), classes = target(target_object, false);
  const int class_axis = parse_axis(axis, static_cast<int>(logits.array.ndim()));
  const std::int64_t ignored = parse_int64(ignore_index, "ignore_index");
  crossent::Evaluation evaluation;
  Status status;
  {
    const ReleaseGil release(logits.array.size());
    status = crossent::evaluate(logits.view(), classes.view(), class_axis, ignored, top_k, evaluation);
  }
  raise_for(status);
  return py::make_tuple(evaluation.count, evaluation.hits, evaluation.loss_digits, evaluation.loss_special,
                        crossent::kLossScale);
}

// Both arrays, the options and the place for the result.
class DivergenceArguments {
 public:
  DivergenceArguments(py::handle p_object, py::handle q_object, py::handle axis, py::handle temperature, py::handle reduction)
      : p_(floating(p_object, "p_logits")), q_(floating(q_object, "q_logits")) {
    promote(p_, q_);
    options_.axis = parse_axis(axis, static_cast<int>(p_.array.ndim()));
    options_.temperature = parse_number(temperature, "temperature");
    options_.reduction = parse_reduction(reduction);
    if (options_.reduction == crossent::Reduction::none) {
      losses_ = score_dtype(p_) == DType::float64 ? row_array<double>(p_, options_.axis) : row_array<float>(p_, options_.axis);
      loss_view_ = {losses_, score_dtype(p_)};
      result_.losses = loss_view_.mutable_view();
    } else {
      result_.loss = &value_;
    }
  }

  Argument gradient(py::handle out_object) const {
    if (out_object.is_none()) return empty_like(q_);
    Argument out = output(out_object);
    check_overlap(out, p_, "p_logits");
    check_overlap(out, q_, "q_logits");
    return out;
  }

  // Calls the library; `out` is null for the divergence alone. Returns the divergence.
  py::object call(const Argument* out) {
    Status status;
    {
      const Array view = out ? out->mutable_view() : Array();
      const ReleaseGil release(p_.array.size());
      status = out ? crossent::kl_divergence_value_and_grad(p_.view(), q_.view(), options_, result_, view)
                   : crossent::kl_divergence(p_.view(), q_.view(), options_, result_);
    }
    raise_for(status);
    return options_.reduction == crossent::Reduction::none ? as_result(losses_) : scalar(value_, score_dtype(p_));
  }

 private:
  Argument p_, q_;
  crossent::DivergenceOptions options_;
  crossent::LossResult result_;
  py::array losses_;
  Argument loss_view_{py::array(), DType::float32};
  double value_ = 0;
};

py::object kl_divergence(py::handle p, py::handle q, py::handle axis, py::handle temperature, py::handle reduction) {
  return DivergenceArguments(p, q, axis, temperature, reduction).call(nullptr);
}

py::tuple kl_divergence_value_and_grad(py::handle p, py::handle q, py::handle axis, py::handle temperature,
                                       py::handle reduction, py::handle out_object) {
  DivergenceArguments arguments(p, q, axis, temperature, reduction);
  const Argument out = arguments.gradient(out_object);
  py::object value = arguments.call(&out);
  return py::make_tuple(std::move(value), out.array);
}

}  // namespace

void bind_scoring(py::module_& m) {
  m.def("token_log_probs", token_log_probs);
  m.def("logit_stats", logit_stats);
  m.def("evaluate", evaluate);
  m.def("kl_divergence", kl_divergence);
  m.def("kl_divergence_value_and_grad", kl_divergence_value_and_grad);
}

}  // namespace crossent_python
