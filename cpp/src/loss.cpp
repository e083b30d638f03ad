// Checks of loss arguments, index targets, and sums over samples.
#include "loss.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>

#include "elements.hpp"
#include "parallel.hpp"

namespace crossent {

Status LossProblem::check(const char* input_name, const ConstArray& input, const ConstArray& target, const LossOptions& options,
                          bool may_be_probabilities) {
  input_ = &input;
  target_ = &target;
  options_ = &options;
  if (Status s = check_floating(input_name, input); !s) return s;
  if (!(options.label_smoothing >= 0 && options.label_smoothing <= 1)) {
    return {Code::bad_value, "label_smoothing must be between 0 and 1, not " + number_text(options.label_smoothing)};
  }
  if (Status s = check_axis(); !s) return s;
  if (Status s = check_target_shape(input_name, may_be_probabilities); !s) return s;
  if (classes_ == 0) {
    return {Code::bad_value, std::string(input_name) + " of shape " + shape_text(input.ndim, input.shape) +
                                 " has zero classes along axis " + std::to_string(axis_)};
  }
  const ConstArray& weight = options.weight;
  if (!weight.data) return {};
  if (Status s = check_floating("weight", weight); !s) return s;
  if (weight.ndim != 1 || weight.shape[0] != classes_) {
    return {Code::bad_value, "weight has shape " + shape_text(weight.ndim, weight.shape) + ", but " + input_name +
                                 " of shape " + shape_text(input.ndim, input.shape) + " has " + std::to_string(classes_) +
                                 " classes along axis " + std::to_string(axis_) + ", which needs shape (" +
                                 std::to_string(classes_) + ",)"};
  }
  const bool is_double = compute_dtype(input.dtype) == DType::float64;
  weight_.set(weight, is_double, has_indices_ && options.reduction == Reduction::mean);
  return {};
}

Status LossProblem::check_axis() {
  axis_ = options_->has_axis ? options_->axis : input_->ndim > 1 ? 1 : 0;
  if (Status s = normalize_axes(Axes(axis_), input_->ndim, axes_); !s) return s;
  if (axis_ < 0) axis_ += input_->ndim;
  for (int d = 0; d < input_->ndim; ++d) {
    if (axes_.is_class[d]) {
      classes_ = input_->shape[d];
    } else {
      row_shape_[row_ndim_++] = input_->shape[d];
    }
  }
  return {};
}

namespace {

bool has_shape(const ConstArray& array, int ndim, const std::ptrdiff_t* shape) {
  return array.ndim == ndim && std::equal(shape, shape + ndim, array.shape);
}

}  // namespace

Status LossProblem::check_target_shape(const char* input_name, bool may_be_probabilities) {
  const ConstArray &input = *input_, &target = *target_;
  has_indices_ = !is_floating(target.dtype);
  if (target.dtype == DType::boolean) {
    const std::string or_probabilities = may_be_probabilities ? " or class probabilities (floating)" : "";
    return {Code::bad_type, "target must hold class indices (integers)" + or_probabilities + ", not bool"};
  }
  if (!has_indices_ && !may_be_probabilities) {
    return {Code::bad_type, "target must hold class indices of an integer dtype; a floating target is for cross_entropy"};
  }
  const bool fits = has_indices_ ? has_shape(target, row_ndim_, row_shape_) : has_shape(target, input.ndim, input.shape);
  if (fits) return {};
  const std::string target_shape = shape_text(target.ndim, target.shape);
  if (has_indices_ && has_shape(target, input.ndim, input.shape)) {
    return {Code::bad_value, "target of an integer dtype has the shape " + target_shape + " of " + input_name +
                                 ": class indices have shape " + shape_text(row_ndim_, row_shape_) +
                                 "; one-hot or probability targets must have a floating dtype"};
  }
  std::string message =
      "target has shape " + target_shape + ", but " + input_name + " has shape " + shape_text(input.ndim, input.shape) +
      " with the class axis " + std::to_string(axis_) + ", which needs " +
      (has_indices_ ? "class indices of shape " + shape_text(row_ndim_, row_shape_) : "class probabilities of that shape");
  if (has_indices_ && !options_->has_axis && input.ndim > 2 && has_shape(target, input.ndim - 1, input.shape)) {
    message += "; if the classes lie along the last axis, name axis=-1";
  }
  if (!has_indices_ && has_shape(target, row_ndim_, row_shape_)) message += "; class indices must have an integer dtype";
  return {Code::bad_value, message};
}

Status LossProblem::check_output(const char* input_name, const Array& out) const {
  return crossent::check_output(*input_, input_name, out);
}

namespace {

Status check_one_a_row(const char* name, const ConstArray& array, int row_ndim, const std::ptrdiff_t* row_shape) {
  if (Status s = check_floating(name, array); !s) return s;
  if (has_shape(array, row_ndim, row_shape)) return {};
  return {Code::bad_value, std::string(name) + " has shape " + shape_text(array.ndim, array.shape) +
                               ", but there is one loss a sample, of shape " + shape_text(row_ndim, row_shape)};
}

}  // namespace

Status LossProblem::check_per_sample(const char* name, const ConstArray& array) const {
  return check_one_a_row(name, array, row_ndim_, row_shape_);
}

Status LossProblem::check_result(const LossResult& result) const {
  return crossent::check_result(result, options_->reduction, input_->dtype, row_ndim_, row_shape_);
}

Status check_result(const LossResult& result, Reduction reduction, DType input, int row_ndim, const std::ptrdiff_t* row_shape) {
  const Array& losses = result.losses;
  if (reduction != Reduction::none) {
    return result.loss ? Status() : Status(Code::bad_value, "the result has no place for the reduced loss");
  }
  const ConstArray view{losses.data, losses.dtype, losses.ndim, losses.shape, losses.strides};
  if (Status s = check_one_a_row("losses", view, row_ndim, row_shape); !s) return s;
  const DType expected = compute_dtype(input);
  if (losses.dtype == expected) return {};
  return {Code::bad_value,
          "losses have dtype " + dtype_name(losses.dtype) + ", but the result has dtype " + dtype_name(expected)};
}

namespace {

// So many targets are checked in the time that is taken once a row elsewhere.
constexpr std::ptrdiff_t kScannedInTimeOfOne = 8;

// Native 64-bit indices one after the other, or null.
const std::int64_t* in_place(DType dtype, const Operand& rows) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(rows.data) % alignof(std::int64_t) == 0;
  const bool adjacent = rows.row_stride == sizeof(std::int64_t);
  return dtype == DType::int64 && adjacent && aligned ? reinterpret_cast<const std::int64_t*>(rows.data) : nullptr;
}

}  // namespace

void LossProblem::read_targets(const RowSpace& space, int operand, std::ptrdiff_t first, std::ptrdiff_t count,
                               std::int64_t* classes) const {
  read_some_targets(space, operand, first, count, has_ignored_, classes);
}

void LossProblem::read_some_targets(const RowSpace& space, int operand, std::ptrdiff_t first, std::ptrdiff_t count,
                                    bool may_be_ignored, std::int64_t* classes) const {
  IndexRange range = index_range();
  range.has_ignored = may_be_ignored;
  space.for_each_run(operand, first, count, [&](const Operand& rows, std::ptrdiff_t done, std::ptrdiff_t run) {
    // The quick way, if none was ignored when they were checked.
    const std::int64_t* target = may_be_ignored ? nullptr : in_place(space.dtype(operand), rows);
    if (target) {
      kernels_->copy_targets(target, run, classes_, classes + done);
    } else {
      reread_indices(space.dtype(operand), rows.data, rows.row_stride, run, range, classes + done);
    }
  });
}

void LossProblem::target_weights(std::ptrdiff_t count, const std::int64_t* classes, double* weights) const {
  if (weight_.given()) {
    weight_.of_classes(count, classes, weights);
  } else if (has_ignored_) {
    for (std::ptrdiff_t i = 0; i < count; ++i) weights[i] = classes[i] < 0 ? 0 : 1;
  } else {
    std::fill(weights, weights + count, 1.0);
  }
}

// What is found out of the targets of some rows.
struct LossProblem::TargetScan {
  bool fine = true;
  std::int64_t kept = 0;
  std::optional<ExactSum> weight_sum;  // if there are weights; to make one takes longer than to scan a few targets

  explicit TargetScan(bool weighs) {
    if (weighs) weight_sum.emplace();
  }
  void add(const TargetScan& other) {
    fine = fine && other.fine;
    kept += other.kept;
    if (weight_sum) weight_sum->add(*other.weight_sum);
  }
};

void LossProblem::scan_block(const RowSpace& space, int operand, std::ptrdiff_t first, std::ptrdiff_t count,
                             TargetScan& scan) const {
  std::int64_t target[kMaxBlockRows];
  std::ptrdiff_t kept = 0;
  space.for_each_run(operand, first, count, [&](const Operand& at, std::ptrdiff_t done, std::ptrdiff_t run) {
    std::ptrdiff_t live = 0;
    if (const std::int64_t* indices = in_place(target_->dtype, at)) {
      scan.fine &= kernels_->check_targets(indices, run, classes_, options_->ignore_index, &live);
    } else {
      scan.fine &= read_indices(target_->dtype, at.data, at.row_stride, run, index_range(), target + done);
      for (std::ptrdiff_t i = 0; i < run; ++i) live += target[done + i] >= 0;
    }
    kept += live;
  });
  scan.kept += kept;
  if (!scan.weight_sum || !scan.fine) return;
  double weights[kMaxBlockRows];
  read_some_targets(space, operand, first, count, kept < count, target);
  weight_.of_classes(count, target, weights);
  add_block(*scan.weight_sum, *kernels_, weights, count);
}

Status LossProblem::scan_targets(const RowSpace& space, int operand, const KernelTable& kernels) {
  kernels_ = &kernels;
  const std::ptrdiff_t rows = space.rows(), blocks = (rows + kMaxBlockRows - 1) / kMaxBlockRows;
  if (!has_indices_) {
    divisor_ = static_cast<double>(rows);
    return {};
  }
  TargetScan all(weight_.given());
  std::mutex mutex;
  const auto handle = [&](std::ptrdiff_t begin, std::ptrdiff_t end, char*) {
    TargetScan part(weight_.given());
    for (std::ptrdiff_t block = begin; block < end && part.fine; ++block) {
      const std::ptrdiff_t first = block * kMaxBlockRows;
      scan_block(space, operand, first, std::min(kMaxBlockRows, rows - first), part);
    }
    const std::lock_guard<std::mutex> lock(mutex);
    all.add(part);
  };
  if (!for_each_block_range(threads_for(rows / kScannedInTimeOfOne, 0), blocks, 0, handle)) return out_of_memory();
  if (!all.fine) return bad_index("target", *target_, index_range());
  has_ignored_ = all.kept < rows;
  divisor_ = all.weight_sum ? all.weight_sum->value() : static_cast<double>(all.kept);
  return {};
}

double LossProblem::gradient_factor(double upstream) const {
  if (options_->reduction == Reduction::mean) {
    upstream = divisor_ == 0 ? 0 : upstream / divisor_;
    if (has_indices_) return upstream;  // the divisor, a sum of weights, is in their unit
  }
  return weight_.exponent() == 0 ? upstream : std::ldexp(upstream, weight_.exponent());
}

void LossProblem::apply_unit(double* values, std::ptrdiff_t count) const {
  if (weight_.exponent() == 0) return;
  for (std::ptrdiff_t i = 0; i < count; ++i) values[i] = std::ldexp(values[i], weight_.exponent());
}

double LossProblem::reduce(const ExactSum& sum) const {
  if (options_->reduction == Reduction::sum) return sum.value(-weight_.exponent());
  // Smoothing gives samples of weight 0 a loss: without a weight left to divide by, the mean is NaN all the same.
  if (divisor_ == 0) return static_cast<double>(__builtin_nan(""));
  return std::ldexp(sum.quotient(divisor_), has_indices_ ? 0 : weight_.exponent());
}

void add_block(ExactSum& sum, const KernelTable& kernels, const double* values, std::ptrdiff_t count) {
  double high, low;
  // Few are added exactly: how many long rows a block has depends on where their results go.
  const bool few = count <= kMostInTurns;
  if (!few) kernels.sum(values, count, &high, &low);
  if (few || !(high - high == 0)) {
    for (std::ptrdiff_t i = 0; i < count; ++i) sum.add(values[i]);
  } else {
    sum.add(high);
    sum.add(low);
  }
}

}  // namespace crossent
