// Drivers of nll_loss: one element a row is read, and in the gradient one is written, so there is no kernel.
#include <algorithm>
#include <cstring>

#include "dispatch.hpp"
#include "elements.hpp"
#include "loss.hpp"
#include "parallel.hpp"

namespace crossent {
namespace {

// Where row `i` of a run has its target's element.
char* element_at(const Operand& rows, std::ptrdiff_t i, std::int64_t target) {
  return rows.data + i * rows.row_stride + target * rows.class_stride;
}

void fill_zero(const Operand& rows, std::ptrdiff_t count, std::ptrdiff_t classes, std::ptrdiff_t size) {
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    if (rows.class_stride == size) {
      std::memset(rows.data + i * rows.row_stride, 0, static_cast<std::size_t>(classes * size));
    } else {
      for (std::ptrdiff_t c = 0; c < classes; ++c) std::memset(element_at(rows, i, c), 0, static_cast<std::size_t>(size));
    }
  }
}

}  // namespace

Status nll_loss(const ConstArray& log_probs, const ConstArray& target, const LossOptions& options, const LossResult& result) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return simd_status();
  LossProblem problem;
  if (Status s = problem.check("log_probs", log_probs, target, options, false); !s) return s;
  if (Status s = problem.check_result(result); !s) return s;
  RowSpace space(log_probs.ndim, log_probs.shape, problem.axes());
  const int input = space.add_class_shaped(log_probs.data, log_probs.dtype, log_probs.strides);
  const int classes = space.add_row_shaped(target.data, target.dtype, target.strides);
  const bool each = options.reduction == Reduction::none;
  const int losses = each ? space.add_row_shaped(result.losses.data, result.losses.dtype, result.losses.strides) : -1;
  space.finish();
  if (Status s = problem.scan_targets(space, classes, *kernels); !s) return s;
  ExactSum sum;
  for (std::ptrdiff_t first = 0; first < space.rows(); first += kMaxBlockRows) {
    const std::ptrdiff_t count = std::min(kMaxBlockRows, space.rows() - first);
    std::int64_t index[kMaxBlockRows];
    double loss[kMaxBlockRows];
    problem.read_targets(space, classes, first, count, index);
    problem.target_weights(count, index, loss);
    for (std::ptrdiff_t done = 0; done < count;) {
      const std::ptrdiff_t run = space.run_length(first + done, count - done);
      const Operand rows = space.rows_at(input, first + done);
      for (std::ptrdiff_t i = 0; i < run; ++i) {
        double& value = loss[done + i];  // the weight, so far
        if (value != 0) value *= -read_floating(log_probs.dtype, element_at(rows, i, index[done + i]));
      }
      done += run;
    }
    if (each) {
      problem.apply_unit(loss, count);
      write_rows(space, losses, first, count, loss);
    } else {
      add_block(sum, *kernels, loss, count);
    }
  }
  if (!each) *result.loss = problem.reduce(sum);
  return {};
}

Status nll_loss_backward(const Upstream& grad, const ConstArray& log_probs, const ConstArray& target,
                         const LossOptions& options, const Array& out) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return simd_status();
  LossProblem problem;
  if (Status s = problem.check("log_probs", log_probs, target, options, false); !s) return s;
  if (Status s = problem.check_output("log_probs", out); !s) return s;
  if (grad.values.data) {
    if (Status s = problem.check_per_sample("grad", grad.values); !s) return s;
  }
  RowSpace space(log_probs.ndim, log_probs.shape, problem.axes());
  const int output = space.add_class_shaped(out.data, out.dtype, out.strides);
  const int classes = space.add_row_shaped(target.data, target.dtype, target.strides);
  const int upstream = grad.values.data ? space.add_row_shaped(grad.values.data, grad.values.dtype, grad.values.strides) : -1;
  space.finish();
  if (Status s = problem.scan_targets(space, classes, *kernels); !s) return s;
  const std::ptrdiff_t blocks = (space.rows() + kMaxBlockRows - 1) / kMaxBlockRows;
  const auto handle = [&](std::ptrdiff_t begin, std::ptrdiff_t end, char*) {
    for (std::ptrdiff_t first = begin * kMaxBlockRows; first < std::min(end * kMaxBlockRows, space.rows());
         first += kMaxBlockRows) {
      const std::ptrdiff_t count = std::min(kMaxBlockRows, space.rows() - first);
      std::int64_t index[kMaxBlockRows];
      double weight[kMaxBlockRows], factor[kMaxBlockRows];
      problem.read_targets(space, classes, first, count, index);
      problem.target_weights(count, index, weight);
      std::fill(factor, factor + count, grad.value);
      if (upstream >= 0) read_rows(space, upstream, first, count, factor);
      for (std::ptrdiff_t done = 0; done < count;) {
        const std::ptrdiff_t run = space.run_length(first + done, count - done);
        const Operand rows = space.rows_at(output, first + done);
        fill_zero(rows, run, space.classes(), item_size(out.dtype));
        for (std::ptrdiff_t i = 0; i < run; ++i) {
          if (index[done + i] < 0) continue;
          const double value = -problem.gradient_factor(factor[done + i]) * weight[done + i];
          write_floating(out.dtype, element_at(rows, i, index[done + i]), value);
        }
        done += run;
      }
    }
  };
  const bool done = for_each_block_range(threads_for(space.rows() * space.classes()), blocks, 0, handle);
  return done ? Status() : out_of_memory();
}

}  // namespace crossent
