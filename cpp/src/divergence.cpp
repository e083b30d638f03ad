// Drivers of kl_divergence and its gradient.
#include <algorithm>
#include <cmath>
#include <mutex>

#include "api.hpp"
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
  return {Code::bad_value, "temperature must be between 1e-30 and 1e30, not " + number_text(options.temperature)};
}

// One call of kl_divergence, with arguments that have been checked.
class DivergenceCall {
 public:
  DivergenceCall(const ConstArray& p, const ConstArray& q, const ScoredLogits& checked, const DivergenceOptions& options,
                 const LossResult& result, const Array* out)
      : options_(options), result_(result), with_gradient_(out != nullptr), space_(p.ndim, p.shape, checked.axes) {
    operands_.input = space_.add_class_shaped(p.data, p.dtype, p.strides);
    operands_.second = space_.add_class_shaped(q.data, q.dtype, q.strides);
    if (out) {
      operands_.output = space_.add_class_shaped(out->data, out->dtype, out->strides);
      operands_.untouched = out->untouched;
    }
    if (each()) losses_ = space_.add_row_shaped(result.losses.data, result.losses.dtype, result.losses.strides);
  }

  Status run(const KernelTable& kernels) {
    if (space_.rows() == 0) {
      if (!each()) *result_.loss = is_mean() ? static_cast<double>(__builtin_nan("")) : 0;
      return {};
    }
    space_.finish();
    const DivergenceRun asked = request();
    const DivergenceKernel kernel =
        (with_gradient_ ? kernels.divergence_gradient : kernels.divergence)[compute_type(space_.dtype(operands_.input))];
    const RowFeeder feeder(kernels, space_, operands_);
    ExactSum sum;
    std::mutex mutex;
    const auto handle = [&](std::ptrdiff_t begin, std::ptrdiff_t end, char* scratch) {
      ExactSum part;
      for (std::ptrdiff_t block = begin; block < end; ++block) {
        double values[kMaxBlockRows];
        feeder.feed(block, scratch, [&](const Run& run, std::ptrdiff_t done) {
          DivergenceRun call = asked;
          static_cast<Run&>(call) = run;
          call.result = values + done;
          kernel(call);
        });
        const std::ptrdiff_t first = block * feeder.block_rows();
        finish_block(kernels, first, std::min(feeder.block_rows(), space_.rows() - first), values, part);
      }
      const std::lock_guard<std::mutex> lock(mutex);
      sum.add(part);
    };
    const int threads = threads_for(space_.rows(), 2 * space_.classes());
    if (!for_each_block_range(threads, feeder.blocks(), feeder.scratch_bytes(), handle)) return out_of_memory();
    if (!each()) *result_.loss = is_mean() ? sum.quotient(rows()) : sum.value();
    return {};
  }

 private:
  bool each() const { return options_.reduction == Reduction::none; }
  bool is_mean() const { return options_.reduction == Reduction::mean; }
  double rows() const { return static_cast<double>(space_.rows()); }

  DivergenceRun request() const {
    const double temperature = options_.temperature;
    DivergenceRun asked;
    asked.inverse_temperature = 1 / temperature;
    asked.inverse_temperature_low = std::fma(-asked.inverse_temperature, temperature, 1.0) / temperature;
    asked.gradient_scale = is_mean() ? 1 / (temperature * rows()) : asked.inverse_temperature;
    return asked;
  }

  void finish_block(const KernelTable& kernels, std::ptrdiff_t first, std::ptrdiff_t count, const double* values,
                    ExactSum& sum) const {
    if (each()) {
      write_rows(space_, losses_, first, count, values);
    } else {
      add_block(sum, kernels, values, count);
    }
  }

  const DivergenceOptions& options_;
  const LossResult& result_;
  const bool with_gradient_;
  RowSpace space_;
  KernelOperands operands_;
  int losses_ = -1;
};

Status divergence(const ConstArray& p, const ConstArray& q, const DivergenceOptions& options, const LossResult& result,
                  const Array* out) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return simd_status();
  ScoredLogits checked;
  if (Status s = check_arguments(p, q, options, checked); !s) return s;
  if (Status s = check_result(result, options.reduction, p.dtype, checked.row_ndim, checked.row_shape); !s) return s;
  if (out) {
    if (Status s = check_output(p, "p_logits", *out); !s) return s;
  }
  return DivergenceCall(p, q, checked, options, result, out).run(*kernels);
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
