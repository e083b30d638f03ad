// Drivers of kl_divergence and its gradient.
#include <algorithm>
#include <cmath>
#include <mutex>

#include "crossent/scoring.hpp"
#include "dispatch.hpp"
#include "elements.hpp"
#include "loss.hpp"
#include "parallel.hpp"
#include "scores.hpp"

namespace crossent {
namespace {

// Beyond these temperatures 1 / T or the quotients overflow float32.
constexpr double kLowestTemperature = 1e-30, kHighestTemperature = 1e30;

Status check_arguments(const ConstArray& p, const ConstArray& q, const DivergenceOptions& options, ScoredLogits& rows) {
  if (Status s = rows.check("p_logits", p, options.axis); !s) return s;
  if (Status s = check_floating("q_logits", q); !s) return s;
  if (p.ndim != q.ndim || !std::equal(p.shape, p.shape + p.ndim, q.shape)) {
    return {Code::bad_value,
            "q_logits has shape " + shape_text(q.ndim, q.shape) + ", but p_logits has shape " + shape_text(p.ndim, p.shape)};
  }
  if (p.dtype != q.dtype) {
    return {Code::bad_value, "q_logits has dtype " + dtype_name(q.dtype) + ", but p_logits has dtype " + dtype_name(p.dtype)};
  }
  if (options.temperature >= kLowestTemperature && options.temperature <= kHighestTemperature) return {};
  return {Code::bad_value, "temperature must be between 1e-30 and 1e30, not " + std::to_string(options.temperature)};
}

Status divergence(const ConstArray& p, const ConstArray& q, const DivergenceOptions& options, const LossResult& result,
                  const Array* out) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return simd_status();
  ScoredLogits checked;
  if (Status s = check_arguments(p, q, options, checked); !s) return s;
  if (out) {
    if (Status s = check_output(p, "p_logits", *out); !s) return s;
  }
  const bool each = options.reduction == Reduction::none;
  RowSpace space(p.ndim, p.shape, checked.axes);
  KernelOperands operands;
  operands.input = space.add_class_shaped(p.data, p.dtype, p.strides);
  operands.second = space.add_class_shaped(q.data, q.dtype, q.strides);
  if (out) operands.output = space.add_class_shaped(out->data, out->dtype, out->strides);
  const int losses = each ? space.add_row_shaped(result.losses.data, result.losses.dtype, result.losses.strides) : -1;
  if (space.rows() == 0) {
    if (!each) *result.loss = options.reduction == Reduction::mean ? static_cast<double>(__builtin_nan("")) : 0;
    return {};
  }
  space.finish();
  const double rows = static_cast<double>(space.rows());
  DivergenceRun asked;
  asked.inverse_temperature = 1 / options.temperature;
  asked.inverse_temperature_low = std::fma(-asked.inverse_temperature, options.temperature, 1.0) / options.temperature;
  asked.gradient_scale = options.reduction == Reduction::mean ? 1 / (options.temperature * rows) : asked.inverse_temperature;
  const DivergenceKernel kernel = (out ? kernels->divergence_gradient : kernels->divergence)[compute_type(p.dtype)];
  const RowFeeder feeder(*kernels, space, operands);
  ExactSum sum;
  std::mutex mutex;
  const auto handle = [&](std::ptrdiff_t begin, std::ptrdiff_t end, char* scratch) {
    ExactSum part;
    for (std::ptrdiff_t block = begin; block < end; ++block) {
      const std::ptrdiff_t first = block * feeder.block_rows();
      const std::ptrdiff_t count = std::min(feeder.block_rows(), space.rows() - first);
      double values[kMaxBlockRows];
      feeder.feed(block, scratch, [&](const Run& run, std::ptrdiff_t done) {
        DivergenceRun call = asked;
        static_cast<Run&>(call) = run;
        call.result = values + done;
        kernel(call);
      });
      if (each) {
        write_rows(space, losses, first, count, values);
      } else {
        add_block(part, *kernels, values, count);
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    sum.add(part);
  };
  if (!for_each_block_range(threads_for(2 * space.rows() * space.classes()), feeder.blocks(), feeder.scratch_bytes(), handle)) {
    return out_of_memory();
  }
  if (!each) *result.loss = options.reduction == Reduction::mean ? sum.value() / rows : sum.value();
  return {};
}

}  // namespace

Status kl_divergence(const ConstArray& p_logits, const ConstArray& q_logits, const DivergenceOptions& options,
                     const LossResult& result) {
  return divergence(p_logits, q_logits, options, result, nullptr);
}

Status kl_divergence_value_and_grad(const ConstArray& p_logits, const ConstArray& q_logits, const DivergenceOptions& options,
                                    const LossResult& result, const Array& out) {
  return divergence(p_logits, q_logits, options, result, &out);
}

}  // namespace crossent
