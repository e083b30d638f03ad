// Bindings of the losses: view, release the GIL, call.
#include "arrays.hpp"

namespace crossent_python {
namespace {

using crossent::LossOptions;
using crossent::LossResult;
using crossent::Upstream;

// The arguments that all losses share, held alive for the call.
struct LossArguments {
  Argument input, target_argument;
  std::optional<Argument> weight;
  LossOptions options;

  // A null label_smoothing: a loss without it, and of class indices alone.
  LossArguments(const char* input_name, py::handle input_object, py::handle target_object, py::handle weight_object,
                py::handle ignore_index, py::handle reduction, py::handle axis, py::handle label_smoothing)
      : input(floating(input_object, input_name)), target_argument(target(target_object, static_cast<bool>(label_smoothing))) {
    if (!weight_object.is_none()) {
      weight = floating(weight_object, "weight");
      options.weight = weight->view();
      // No data means no weight to the library; an array of no elements is one of a wrong shape.
      if (!options.weight.data) options.weight.data = this;
    }
    options.ignore_index = parse_int64(ignore_index, "ignore_index");
    options.reduction = parse_reduction(reduction);
    const int ndim = static_cast<int>(input.array.ndim());
    options.has_axis = !axis.is_none();
    if (options.has_axis) options.axis = parse_axis(axis, ndim);
    if (label_smoothing) options.label_smoothing = parse_number(label_smoothing, "label_smoothing");
  }

  DType loss_dtype() const { return input.dtype == DType::float64 ? DType::float64 : DType::float32; }

  // The array for a loss of each sample.
  Argument empty_losses() const {
    bool removed[crossent::kMaxDims] = {};
    const int ndim = static_cast<int>(input.array.ndim());
    const int axis = options.has_axis ? options.axis : ndim > 1 ? 1 : 0;
    if (ndim > 0) removed[(axis + ndim) % ndim] = true;
    return empty_without(input, removed, false, loss_dtype());
  }

  Argument gradient(py::handle out_object) const {
    if (out_object.is_none()) return empty_like(input);
    Argument out = output(out_object);
    check_overlap(out, input, "the logits");
    check_overlap(out, target_argument, "target");
    if (weight) check_overlap(out, *weight, "weight", false);
    return out;
  }
};

// The upstream gradient: a number, or one for each sample.
struct UpstreamArgument {
  std::optional<Argument> values;
  Upstream upstream;

  UpstreamArgument(py::handle grad, const LossOptions& options) {
    Argument array = floating(grad, "grad");
    if (options.reduction == Reduction::none) {
      values = std::move(array);
      upstream.values = values->view();
      if (!upstream.values.data) upstream.values.data = this;
    } else if (array.array.ndim() == 0) {
      upstream.value = array.array.attr("item")().cast<double>();
    } else {
      throw py::value_error(
          "grad has shape " + crossent::shape_text(static_cast<int>(array.array.ndim()), array.array.shape()) +
          ", but must be a scalar, as the reduced loss is (one gradient a sample goes with reduction='none')");
    }
  }
};

using LossFunction = Status (*)(const ConstArray&, const ConstArray&, const LossOptions&, const LossResult&);
using LossBackward = Status (*)(const Upstream&, const ConstArray&, const ConstArray&, const LossOptions&, const Array&);

// Makes the place for the result, calls call(result), and returns the loss.
template <class Call>
py::object with_result(const LossArguments& a, Call call) {
  double value = 0;
  LossResult result;
  std::optional<Argument> losses;
  if (a.options.reduction == Reduction::none) {
    losses = a.empty_losses();
    result.losses = losses->mutable_view();
  } else {
    result.loss = &value;
  }
  Status status;
  {
    const ReleaseGil release(a.input.array.size());
    status = call(result);
  }
  raise_for(status);
  return losses ? unwrap(*losses) : scalar(value, a.loss_dtype());
}

template <LossFunction function>
py::object loss(const LossArguments& a) {
  return with_result(
      a, [&](const LossResult& result) { return function(a.input.view(), a.target_argument.view(), a.options, result); });
}

template <LossBackward function>
py::object loss_backward(py::handle grad, const LossArguments& a, py::handle out_object) {
  const UpstreamArgument upstream(grad, a.options);
  Argument out = a.gradient(out_object);
  if (upstream.values && !out_object.is_none()) check_overlap(out, *upstream.values, "grad");
  Status status;
  {
    const ReleaseGil release(a.input.array.size());
    status = function(upstream.upstream, a.input.view(), a.target_argument.view(), a.options, out.mutable_view());
  }
  raise_for(status);
  return std::move(out.array);
}

}  // namespace

void bind_losses(py::module_& m) {
  using H = py::handle;
  m.def("nll_loss", [](H log_probs, H target, H weight, H ignore_index, H reduction, H axis) {
    return loss<crossent::nll_loss>({"log_probs", log_probs, target, weight, ignore_index, reduction, axis, py::handle()});
  });
  m.def("nll_loss_backward", [](H grad, H log_probs, H target, H weight, H ignore_index, H reduction, H axis, H out) {
    return loss_backward<crossent::nll_loss_backward>(
        grad, {"log_probs", log_probs, target, weight, ignore_index, reduction, axis, py::handle()}, out);
  });
  m.def("cross_entropy", [](H logits, H target, H weight, H ignore_index, H reduction, H axis, H label_smoothing) {
    return loss<crossent::cross_entropy>({"logits", logits, target, weight, ignore_index, reduction, axis, label_smoothing});
  });
  m.def("cross_entropy_backward",
        [](H grad, H logits, H target, H weight, H ignore_index, H reduction, H axis, H label_smoothing, H out) {
          return loss_backward<crossent::cross_entropy_backward>(
              grad, {"logits", logits, target, weight, ignore_index, reduction, axis, label_smoothing}, out);
        });
  m.def("cross_entropy_value_and_grad",
        [](H logits, H target, H weight, H ignore_index, H reduction, H axis, H label_smoothing, H out_object) {
          const LossArguments a{"logits", logits, target, weight, ignore_index, reduction, axis, label_smoothing};
          const Argument out = a.gradient(out_object);
          py::object value = with_result(a, [&](const LossResult& result) {
            return crossent::cross_entropy_value_and_grad(a.input.view(), a.target_argument.view(), a.options, result,
                                                          out.mutable_view());
          });
          return py::make_tuple(std::move(value), out.array);
        });
}

}  // namespace crossent_python
