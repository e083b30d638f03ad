// Drivers of the array functions: softmax, log_softmax, logsumexp and the gradients of the first two.
#include <algorithm>

#include "api.hpp"
#include "dispatch.hpp"
#include "driver.hpp"
#include "elements.hpp"
#include "parallel.hpp"

namespace crossent {
namespace {

using KernelList = Kernel (KernelTable::*)[kComputeTypes];

// One kernel over all rows; `second` is the gradient of a backward kernel.
Status run_array_kernel(KernelList list, const ConstArray& x, const char* x_name, const ConstArray* second, const Axes& axes,
                        const Array& out) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return simd_status();
  ClassAxes class_axes;
  if (Status s = check_floating(x_name, x); !s) return s;
  if (Status s = normalize_axes(axes, x.ndim, class_axes); !s) return s;
  if (Status s = check_output(x, x_name, out); !s) return s;
  RowSpace space(x.ndim, x.shape, class_axes);
  KernelOperands operands;
  operands.input = space.add_class_shaped(x.data, x.dtype, x.strides);
  operands.output = space.add_class_shaped(out.data, out.dtype, out.strides);
  operands.untouched = out.untouched;
  operands.in_turns = !second;
  if (second) {
    operands.second = space.add_class_shaped(second->data, second->dtype, second->strides);
  }
  if (space.rows() == 0 || space.classes() == 0) return {};
  space.finish();
  const RowFeeder feeder(*kernels, space, operands, kMaxRowsWithoutNumbers);
  const Kernel kernel = (kernels->*list)[compute_type(x.dtype)];
  const auto handle = [&](std::ptrdiff_t begin, std::ptrdiff_t end, char* scratch) {
    for (std::ptrdiff_t block = begin; block < end; ++block) {
      feeder.feed(block, scratch, [&](const Run& run, std::ptrdiff_t) { kernel(run); });
    }
  };
  const int threads = threads_for(space.rows(), space.classes());
  return for_each_block_range(threads, feeder.blocks(), feeder.scratch_bytes(), handle) ? Status() : out_of_memory();
}

Status check_same(const ConstArray& grad, const ConstArray& y) {
  if (Status s = check_floating("grad", grad); !s) return s;
  bool same = grad.ndim == y.ndim;
  for (int d = 0; same && d < y.ndim; ++d) same = grad.shape[d] == y.shape[d];
  if (!same) {
    return {Code::bad_value,
            "grad has shape " + shape_text(grad.ndim, grad.shape) + ", but y has shape " + shape_text(y.ndim, y.shape)};
  }
  if (grad.dtype != y.dtype) return {Code::bad_value, "grad and y must have the same dtype"};
  return {};
}

// Whether `out` may take one number for each row of x.
Status check_reduced_output(const ConstArray& x, const ClassAxes& axes, const Array& out) {
  std::ptrdiff_t shape[kMaxDims];
  int ndim = 0;
  for (int d = 0; d < x.ndim; ++d) {
    if (!axes.is_class[d]) shape[ndim++] = x.shape[d];
  }
  bool fits = out.ndim == ndim;
  for (int d = 0; fits && d < ndim; ++d) fits = out.shape[d] == shape[d];
  if (!fits) {
    return {Code::bad_value,
            "out has shape " + shape_text(out.ndim, out.shape) + ", but the result has shape " + shape_text(ndim, shape)};
  }
  const DType dtype = compute_dtype(x.dtype);
  if (out.dtype == dtype) return {};
  return {Code::bad_value, "out has dtype " + dtype_name(out.dtype) + ", but the result has dtype " + dtype_name(dtype)};
}

}  // namespace

Status softmax(const ConstArray& x, const Axes& axes, const Array& out) {
  return run_array_kernel(&KernelTable::softmax, x, "x", nullptr, axes, out);
}

Status log_softmax(const ConstArray& x, const Axes& axes, const Array& out) {
  return run_array_kernel(&KernelTable::log_softmax, x, "x", nullptr, axes, out);
}

Status softmax_backward(const ConstArray& grad, const ConstArray& y, const Axes& axes, const Array& out) {
  if (Status s = check_same(grad, y); !s) return s;
  return run_array_kernel(&KernelTable::softmax_backward, y, "y", &grad, axes, out);
}

Status log_softmax_backward(const ConstArray& grad, const ConstArray& y, const Axes& axes, const Array& out) {
  if (Status s = check_same(grad, y); !s) return s;
  return run_array_kernel(&KernelTable::log_softmax_backward, y, "y", &grad, axes, out);
}

Status logsumexp(const ConstArray& x, const Axes& axes, const Array& out) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return simd_status();
  ClassAxes class_axes;
  if (Status s = check_floating("x", x); !s) return s;
  if (Status s = normalize_axes(axes, x.ndim, class_axes); !s) return s;
  if (Status s = check_reduced_output(x, class_axes, out); !s) return s;
  RowSpace space(x.ndim, x.shape, class_axes);
  KernelOperands operands;
  operands.input = space.add_class_shaped(x.data, x.dtype, x.strides);
  const int result = space.add_row_shaped(out.data, out.dtype, out.strides);
  if (space.rows() == 0) return {};
  space.finish();
  const RowFeeder feeder(*kernels, space, operands);
  const Kernel kernel = kernels->logsumexp[compute_type(x.dtype)];
  const auto handle = [&](std::ptrdiff_t first, std::ptrdiff_t end, char* scratch) {
    double values[kMaxBlockRows];
    if (space.classes() == 0) std::fill(values, values + kMaxBlockRows, -__builtin_inf());
    for (std::ptrdiff_t block = first; block < end; ++block) {
      const std::ptrdiff_t begin = block * feeder.block_rows();
      const std::ptrdiff_t count = std::min(feeder.block_rows(), space.rows() - begin);
      if (space.classes() > 0) {
        feeder.feed(block, scratch, [&](Run run, std::ptrdiff_t row) {
          run.result = values + row;
          kernel(run);
        });
      }
      write_rows(space, result, begin, count, values);
    }
  };
  const int threads = threads_for(space.rows(), space.classes());
  return for_each_block_range(threads, feeder.blocks(), feeder.scratch_bytes(), handle) ? Status() : out_of_memory();
}

}  // namespace crossent
