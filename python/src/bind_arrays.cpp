// Bindings of the array functions: view, release the GIL, call.
#include "arrays.hpp"

namespace crossent_python {
namespace {

using ArrayFunction = Status (*)(const ConstArray&, const Axes&, const Array&);
using BackwardFunction = Status (*)(const ConstArray&, const ConstArray&, const Axes&, const Array&);

template <ArrayFunction function>
py::object array_function(py::handle x_object, py::handle axis, py::handle out_object) {
  const Argument x = floating(x_object, "x");
  const Axes axes = parse_axes(axis, static_cast<int>(x.array.ndim()));
  Argument out = out_object.is_none() ? empty_like(x) : output(out_object);
  if (!out_object.is_none()) check_overlap(out, x, "x");
  Status status;
  {
    const ReleaseGil release(x.array.size());
    status = function(x.view(), axes, out.mutable_view());
  }
  raise_for(status);
  return std::move(out.array);
}

template <BackwardFunction function>
py::object backward_function(py::handle grad_object, py::handle y_object, py::handle axis, py::handle out_object) {
  Argument grad = floating(grad_object, "grad"), y = floating(y_object, "y");
  promote(grad, y);
  const Axes axes = parse_axes(axis, static_cast<int>(y.array.ndim()));
  Argument out = out_object.is_none() ? empty_like(y) : output(out_object);
  if (!out_object.is_none()) {
    check_overlap(out, grad, "grad");
    check_overlap(out, y, "y");
  }
  Status status;
  {
    const ReleaseGil release(y.array.size());
    status = function(grad.view(), y.view(), axes, out.mutable_view());
  }
  raise_for(status);
  return std::move(out.array);
}

// Whether `out` has x's shape with the class axes reduced to length 1.
bool keeps_dims(const Argument& out, const Argument& x, const bool* removed) {
  if (out.array.ndim() != x.array.ndim()) return false;
  for (py::ssize_t d = 0; d < x.array.ndim(); ++d) {
    if (out.array.shape(d) != (removed[d] ? 1 : x.array.shape(d))) return false;
  }
  return true;
}

py::object logsumexp(py::handle x_object, py::handle axis, py::handle keepdims_object, py::handle out_object) {
  const Argument x = floating(x_object, "x");
  const int ndim = static_cast<int>(x.array.ndim());
  const Axes axes = parse_axes(axis, ndim);
  const bool keepdims = parse_bool(keepdims_object, "keepdims");
  bool removed[crossent::kMaxDims] = {};
  for (int d = 0; d < ndim && axes.all; ++d) removed[d] = true;
  for (int i = 0; i < axes.count && ndim > 0; ++i) removed[(axes.axis[i] + ndim) % ndim] = true;
  const DType dtype = x.dtype == DType::float64 ? DType::float64 : DType::float32;
  Argument out = out_object.is_none() ? empty_without(x, removed, keepdims, dtype) : output(out_object);
  if (!out_object.is_none()) check_overlap(out, x, "x");
  Array view = out.mutable_view();
  py::ssize_t shape[crossent::kMaxDims], strides[crossent::kMaxDims];
  if (keepdims && keeps_dims(out, x, removed)) {
    view.ndim = 0;
    for (int d = 0; d < ndim; ++d) {
      if (removed[d]) continue;
      shape[view.ndim] = out.array.shape(d);
      strides[view.ndim++] = out.array.strides(d);
    }
    view.shape = shape;
    view.strides = strides;
  } else if (keepdims) {
    for (int d = 0; d < ndim; ++d) shape[d] = removed[d] ? 1 : x.array.shape(d);
    throw py::value_error("out has shape " + crossent::shape_text(view.ndim, view.shape) +
                          ", but with keepdims=True the result has shape " + crossent::shape_text(ndim, shape));
  }
  Status status;
  {
    const ReleaseGil release(x.array.size());
    status = crossent::logsumexp(x.view(), axes, view);
  }
  raise_for(status);
  return out_object.is_none() ? unwrap(out) : py::object(std::move(out.array));
}

}  // namespace

void bind_arrays(py::module_& m) {
  m.def("softmax", array_function<crossent::softmax>);
  m.def("log_softmax", array_function<crossent::log_softmax>);
  m.def("logsumexp", logsumexp);
  m.def("softmax_backward", backward_function<crossent::softmax_backward>);
  m.def("log_softmax_backward", backward_function<crossent::log_softmax_backward>);
}

}  // namespace crossent_python
