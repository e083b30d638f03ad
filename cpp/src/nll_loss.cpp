// Drivers of nll_loss: one element a row is read, and in the gradient one is written, so there is no kernel.
#include <algorithm>
#include <cstring>
#include <mutex>

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

void zero(char* p, std::ptrdiff_t bytes) { std::memset(p, 0, static_cast<std::size_t>(bytes)); }

// Zeroes a run of rows, in pieces as long as they lie one after the other in memory.
void zero_run(const Operand& rows, std::ptrdiff_t count, std::ptrdiff_t classes, std::ptrdiff_t size) {
  const std::ptrdiff_t row = classes * size;
  if (rows.class_stride == size) {
    if (rows.row_stride == row) return zero(rows.data, count * row);
    for (std::ptrdiff_t i = 0; i < count; ++i) zero(rows.data + i * rows.row_stride, row);
  } else if (rows.row_stride == size) {
    for (std::ptrdiff_t c = 0; c < classes; ++c) zero(rows.data + c * rows.class_stride, count * size);
  } else {
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      for (std::ptrdiff_t c = 0; c < classes; ++c) zero(element_at(rows, i, c), size);
    }
  }
}

// Whether the spans of an operand (see RowSpace::span) lie one after the other, and each in one piece.
bool spans_are_dense(const RowSpace& space, int operand) {
  const Operand rows = space.rows_at(operand, 0);
  return space.in_columns(operand) && rows.class_stride == space.span() * rows.row_stride &&
         rows.span_stride == space.classes() * rows.class_stride;
}

// A block's gradient stays in the second-level cache between its zeroes and its one element a row, and threads have some
// blocks.
constexpr std::ptrdiff_t kFilledElements = 1 << 16;
// So many elements are zeroed in the time of one of other functions.
constexpr std::ptrdiff_t kFilledInTimeOfOne = 3;

std::ptrdiff_t blocks_of(const RowSpace& space, std::ptrdiff_t block_rows) {
  return (space.rows() + block_rows - 1) / block_rows;
}

// The gradients of `count` rows, 0 but for `value` at the class `index` where that is not -1. dense: the block is of whole
// spans, and they are so.
void write_gradients(const RowSpace& space, int output, std::ptrdiff_t first, std::ptrdiff_t count, bool dense,
                     const std::int64_t* index, const double* value) {
  const DType dtype = space.dtype(output);
  const std::ptrdiff_t size = item_size(dtype);
  const bool at_once = dense && space.run_of_spans(first, count) == count;
  if (at_once) zero(space.rows_at(output, first).data, count * space.classes() * size);
  space.for_each_run(output, first, count, [&](const Operand& rows, std::ptrdiff_t done, std::ptrdiff_t run) {
    if (!at_once) zero_run(rows, run, space.classes(), size);
    with_dtype(dtype, [&](auto type) {
      for (std::ptrdiff_t i = 0; i < run; ++i) {
        const std::int64_t target = index[done + i];
        if (target >= 0) write_floating(type, element_at(rows, i, target), value[done + i]);
      }
    });
  });
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
  const bool weighs = problem.weight().given() || problem.has_ignored();
  ExactSum sum;
  std::mutex sum_mutex;
  const auto handle = [&](std::ptrdiff_t begin, std::ptrdiff_t end, char*) {
    ExactSum part;
    for (std::ptrdiff_t block = begin; block < end; ++block) {
      const std::ptrdiff_t first = block * kMaxBlockRows, count = std::min(kMaxBlockRows, space.rows() - first);
      std::int64_t index[kMaxBlockRows];
      double loss[kMaxBlockRows];
      problem.read_targets(space, classes, first, count, index);
      if (weighs) problem.target_weights(count, index, loss);
      space.for_each_run(input, first, count, [&](const Operand& rows, std::ptrdiff_t done, std::ptrdiff_t run) {
        with_dtype(log_probs.dtype, [&](auto type) {
          for (std::ptrdiff_t i = 0; i < run; ++i) {
            double& value = loss[done + i];  // the weight, so far
            if (!weighs) {
              value = -read_floating(type, element_at(rows, i, index[done + i]));
            } else if (value != 0) {
              value *= -read_floating(type, element_at(rows, i, index[done + i]));
            }
          }
        });
      });
      if (each) {
        problem.apply_unit(loss, count);
        write_rows(space, losses, first, count, loss);
      } else {
        add_block(part, *kernels, loss, count);
      }
    }
    const std::lock_guard<std::mutex> lock(sum_mutex);
    sum.add(part);
  };
  if (!for_each_block_range(threads_for(space.rows(), 0), blocks_of(space, kMaxBlockRows), 0, handle)) return out_of_memory();
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
  if (space.rows() == 0) return {};
  // Whole spans are zeroed at once, as long as they are short (axis 1 of 4096 x 2 x 64: 1.13 -> 0.87 ns per element).
  const std::ptrdiff_t few = space.contiguous(output) ? kFilledElements / space.classes() : (space.rows() + 1) / 2;
  const std::ptrdiff_t most_rows = std::clamp<std::ptrdiff_t>(few, 1, kMaxBlockRows);
  const bool dense = spans_are_dense(space, output) && space.span() <= most_rows;
  const std::ptrdiff_t block_rows = dense ? most_rows / space.span() * space.span() : most_rows;
  const auto handle = [&](std::ptrdiff_t begin, std::ptrdiff_t end, char*) {
    for (std::ptrdiff_t block = begin; block < end; ++block) {
      const std::ptrdiff_t first = block * block_rows, count = std::min(block_rows, space.rows() - first);
      std::int64_t index[kMaxBlockRows];
      double weight[kMaxBlockRows], factor[kMaxBlockRows];
      problem.read_targets(space, classes, first, count, index);
      problem.target_weights(count, index, weight);
      if (upstream >= 0) {
        read_rows(space, upstream, first, count, factor);
        for (std::ptrdiff_t i = 0; i < count; ++i) weight[i] *= -problem.gradient_factor(factor[i]);
      } else {
        const double common = -problem.gradient_factor(grad.value);
        for (std::ptrdiff_t i = 0; i < count; ++i) weight[i] *= common;
      }
      write_gradients(space, output, first, count, dense, index, weight);
    }
  };
  const int threads = threads_for(space.rows(), space.classes() / kFilledInTimeOfOne);
  return for_each_block_range(threads, blocks_of(space, block_rows), 0, handle) ? Status() : out_of_memory();
}

}  // namespace crossent
