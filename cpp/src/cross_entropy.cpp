// Drivers of cross_entropy: the loss, its gradient, or both from one pass over the logits.
#include <algorithm>
#include <cmath>
#include <mutex>

#include "dispatch.hpp"
#include "elements.hpp"
#include "loss.hpp"
#include "parallel.hpp"

namespace crossent {
namespace {

// The kernels' view of weights and smoothing: keep = 1 - smoothing, spread = smoothing / C, both with what they lack.
class TargetDistribution {
 public:
  TargetDistribution(const LossProblem& problem, const KernelTable& kernels) {
    const double smoothing = problem.smoothing(), classes = static_cast<double>(problem.classes());
    run_.keep = 1 - smoothing;
    run_.keep_low = (1 - run_.keep) - smoothing;
    run_.spread = smoothing / classes;
    run_.spread_low = std::fma(-run_.spread, classes, smoothing) / classes;
    const bool of_indices = problem.has_indices();
    if (of_indices) {
      kind_ = smoothing == 0 ? TargetKind::index : TargetKind::smoothed_index;
    } else {
      kind_ = problem.weight().given() ? TargetKind::weighted_probabilities : TargetKind::probabilities;
    }
    if (of_indices || run_.keep == 0) {
      run_.mix = run_.spread;
      run_.mix_low = run_.spread_low;
      run_.part = 0;
      run_.even = 1;
    } else {
      run_.mix = run_.keep;
      run_.mix_low = run_.keep_low;
      run_.even = run_.spread / run_.keep;
    }
    if (kind_ == TargetKind::smoothed_index || kind_ == TargetKind::weighted_probabilities) {
      set_weights(problem, kernels);
    } else {
      run_.class_weight_sum = classes;
    }
  }

  TargetKind kind() const { return kind_; }
  // A run that lacks rows.
  const CrossEntropyRun& run() const { return run_; }

 private:
  void set_weights(const LossProblem& problem, const KernelTable& kernels) {
    const DType dtype = compute_dtype(problem.input().dtype);
    if (problem.weight().given()) {
      run_.class_weight = problem.weight().in_type(dtype, memory_);
      ExactSum sum = problem.weight().sum(kernels);
      run_.class_weight_sum = sum.value();
      sum.add(-run_.class_weight_sum);
      run_.class_weight_sum_low = sum.value();
      return;
    }
    const auto classes = static_cast<std::size_t>(problem.classes());
    run_.class_weight_sum = static_cast<double>(classes);
    memory_.resize(classes * static_cast<std::size_t>(item_size(dtype)));
    if (dtype == DType::float64) {
      std::fill_n(reinterpret_cast<double*>(memory_.data()), classes, 1.0);
    } else {
      std::fill_n(reinterpret_cast<float*>(memory_.data()), classes, 1.0f);
    }
    run_.class_weight = memory_.data();
  }

  TargetKind kind_;
  std::vector<char> memory_;  // weights that do not lie as kernels take them
  CrossEntropyRun run_;
};

// What of a call differs between the three functions.
struct Wanted {
  const LossResult* result = nullptr;
  const Upstream* upstream = nullptr;  // null: a gradient of 1
  const Array* out = nullptr;
};

class CrossEntropyCall {
 public:
  CrossEntropyCall(const LossProblem& problem, const KernelTable& kernels, const Wanted& wanted)
      : problem_(problem),
        kernels_(kernels),
        wanted_(wanted),
        space_(problem.input().ndim, problem.input().shape, problem.axes()) {
    const ConstArray& logits = problem.input();
    const ConstArray& target = problem.target();
    operands_.input = space_.add_class_shaped(logits.data, logits.dtype, logits.strides);
    if (problem.has_indices()) {
      target_ = space_.add_row_shaped(target.data, target.dtype, target.strides);
    } else {
      operands_.second = space_.add_class_shaped(target.data, target.dtype, target.strides);
    }
    if (wanted.out) {
      operands_.output = space_.add_class_shaped(wanted.out->data, wanted.out->dtype, wanted.out->strides);
      operands_.untouched = wanted.out->untouched;
      operands_.in_turns = true;
    }
    if (wanted.upstream && wanted.upstream->values.data) {
      const ConstArray& values = wanted.upstream->values;
      upstream_ = space_.add_row_shaped(values.data, values.dtype, values.strides);
    }
    if (writes_each()) {
      const Array& losses = wanted.result->losses;
      losses_ = space_.add_row_shaped(losses.data, losses.dtype, losses.strides);
    }
    space_.finish();
  }

  const RowSpace& space() const { return space_; }
  int target_operand() const { return target_; }

  Status run() {
    const TargetDistribution distribution(problem_, kernels_);
    const RowFeeder feeder(kernels_, space_, operands_);
    const auto& kernels = wanted_.out ? kernels_.cross_entropy_gradient : kernels_.cross_entropy;
    const CrossEntropyKernel kernel = kernels[compute_type(problem_.input().dtype)][static_cast<int>(distribution.kind())];
    ExactSum sum;
    std::mutex sum_mutex;
    const auto handle = [&](std::ptrdiff_t first, std::ptrdiff_t end, char* scratch) {
      ExactSum part;
      RowNumbers numbers;
      prepare(numbers, std::min(feeder.block_rows(), space_.rows()));
      for (std::ptrdiff_t block = first; block < end; ++block) {
        run_block(feeder, block, scratch, distribution, kernel, numbers, part);
      }
      if (sums()) {
        const std::lock_guard<std::mutex> lock(sum_mutex);
        sum.add(part);
      }
    };
    if (!for_each_block_range(threads_for(space_.rows(), space_.classes()), feeder.blocks(), feeder.scratch_bytes(), handle)) {
      return out_of_memory();
    }
    if (sums()) *wanted_.result->loss = problem_.reduce(sum);
    return {};
  }

 private:
  bool sums() const { return wanted_.result && problem_.options().reduction != Reduction::none; }
  bool writes_each() const { return wanted_.result && problem_.options().reduction == Reduction::none; }

  // A number for each row of a block.
  struct RowNumbers {
    std::int64_t target[kMaxBlockRows];
    double target_weight[kMaxBlockRows + kRowPadding], gradient_scale[kMaxBlockRows + kRowPadding], loss[kMaxBlockRows];
  };
  // Those that are the same for all rows.
  void prepare(RowNumbers& numbers, std::ptrdiff_t rows) const {
    const std::ptrdiff_t count = rows + kRowPadding;
    std::fill(numbers.target_weight, numbers.target_weight + count, 1.0);
    std::fill(numbers.gradient_scale, numbers.gradient_scale + count, common_scale());
  }
  double common_scale() const { return problem_.gradient_factor(wanted_.upstream ? wanted_.upstream->value : 1.0); }

  void run_block(const RowFeeder& feeder, std::ptrdiff_t block, char* scratch, const TargetDistribution& distribution,
                 CrossEntropyKernel kernel, RowNumbers& numbers, ExactSum& sum) const {
    const std::ptrdiff_t first = block * feeder.block_rows();
    const std::ptrdiff_t count = std::min(feeder.block_rows(), space_.rows() - first);
    const bool skips = problem_.has_indices() && problem_.has_ignored();
    if (wanted_.out && upstream_ >= 0) {
      read_rows(space_, upstream_, first, count, numbers.gradient_scale);
      problem_.apply_unit(numbers.gradient_scale, count);
    }
    const std::int64_t* target = numbers.target;
    if (problem_.has_indices()) {
      problem_.read_targets(space_, target_, first, count, numbers.target);
      if (skips || problem_.weight().given()) problem_.target_weights(count, target, numbers.target_weight);
    }
    if (skips && wanted_.out) {
      for (std::ptrdiff_t i = 0; i < count; ++i) {
        if (upstream_ < 0) numbers.gradient_scale[i] = common_scale();
        if (target[i] < 0) numbers.gradient_scale[i] = 0;
      }
    }
    feeder.feed(block, scratch, [&](const Run& rows, std::ptrdiff_t done) {
      CrossEntropyRun run = distribution.run();
      static_cast<Run&>(run) = rows;
      run.result = numbers.loss + done;
      run.target = target + done;
      run.skips = skips;
      run.target_weight = numbers.target_weight + done;
      run.gradient_scale = numbers.gradient_scale + done;
      kernel(run);
    });
    if (sums()) add_block(sum, kernels_, numbers.loss, count);
    if (writes_each()) {
      problem_.apply_unit(numbers.loss, count);
      write_rows(space_, losses_, first, count, numbers.loss);
    }
  }

  const LossProblem& problem_;
  const KernelTable& kernels_;
  const Wanted& wanted_;
  RowSpace space_;
  KernelOperands operands_;
  int target_ = -1, upstream_ = -1, losses_ = -1;
};

Status call_cross_entropy(const ConstArray& logits, const ConstArray& target, const LossOptions& options,
                          const Wanted& wanted) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return simd_status();
  LossProblem problem;
  if (Status s = problem.check("logits", logits, target, options, true); !s) return s;
  if (wanted.result) {
    if (Status s = problem.check_result(*wanted.result); !s) return s;
  }
  if (wanted.out) {
    if (Status s = problem.check_output("logits", *wanted.out); !s) return s;
  }
  if (wanted.upstream && wanted.upstream->values.data) {
    if (Status s = problem.check_per_sample("grad", wanted.upstream->values); !s) return s;
  }
  CrossEntropyCall call(problem, *kernels, wanted);
  if (Status s = problem.scan_targets(call.space(), call.target_operand(), *kernels); !s) return s;
  return call.run();
}

}  // namespace

Status cross_entropy(const ConstArray& logits, const ConstArray& target, const LossOptions& options, const LossResult& result) {
  Wanted wanted;
  wanted.result = &result;
  return call_cross_entropy(logits, target, options, wanted);
}

Status cross_entropy_backward(const Upstream& grad, const ConstArray& logits, const ConstArray& target,
                              const LossOptions& options, const Array& out) {
  Wanted wanted;
  wanted.upstream = &grad;
  wanted.out = &out;
  return call_cross_entropy(logits, target, options, wanted);
}

Status cross_entropy_value_and_grad(const ConstArray& logits, const ConstArray& target, const LossOptions& options,
                                    const LossResult& result, const Array& out) {
  Wanted wanted;
  wanted.result = &result;
  wanted.out = &out;
  return call_cross_entropy(logits, target, options, wanted);
}

}  // namespace crossent
