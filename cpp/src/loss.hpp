// What the losses share: checks of targets and weights, the divisor, and sums over samples.
#pragma once

#include "api.hpp"
#include "class_weights.hpp"
#include "driver.hpp"
#include "exact_sum.hpp"
#include "indices.hpp"

namespace crossent {

// The arguments of a loss, checked and brought into one form.
class LossProblem {
 public:
  // `input` is logits or log_probs, by its name. Every error of a loss's arguments is reported here.
  Status check(const char* input_name, const ConstArray& input, const ConstArray& target, const LossOptions& options,
               bool may_be_probabilities);
  Status check_output(const char* input_name, const Array& out) const;
  Status check_per_sample(const char* name, const ConstArray& array) const;
  // Whether there is a place for the loss.
  Status check_result(const LossResult& result) const;

  // The targets of rows [first, first + count) once they were scanned: class indices with -1 for ignored samples, even where
  // another thread has changed them. Only for index targets.
  void read_targets(const RowSpace& space, int operand, std::ptrdiff_t first, std::ptrdiff_t count,
                    std::int64_t* classes) const;
  // weight[target] of each, in the unit of weight(), or 1; 0 for ignored samples.
  void target_weights(std::ptrdiff_t count, const std::int64_t* classes, double* weights) const;
  // Checks every index target and finds the divisor of the mean; `operand` is the target in `space`.
  Status scan_targets(const RowSpace& space, int operand, const KernelTable& kernels);

  // What a row's gradient is multiplied by, but for a per-sample upstream gradient.
  double gradient_factor(double upstream) const;
  // Multiplies losses of weight(), or upstream gradients of samples, by the unit of weight().
  void apply_unit(double* values, std::ptrdiff_t count) const;
  double reduce(const ExactSum& sum) const;

  const ConstArray& input() const { return *input_; }
  const ConstArray& target() const { return *target_; }
  const LossOptions& options() const { return *options_; }
  const ClassAxes& axes() const { return axes_; }
  std::ptrdiff_t classes() const { return classes_; }
  // Whether scan_targets found ignored samples.
  bool has_ignored() const { return has_ignored_; }
  bool has_indices() const { return has_indices_; }
  const ClassWeights& weight() const { return weight_; }
  double smoothing() const { return options_->label_smoothing; }

 private:
  Status check_axis();
  Status check_target_shape(const char* input_name, bool may_be_probabilities);
  struct TargetScan;
  void scan_block(const RowSpace& space, int operand, std::ptrdiff_t first, std::ptrdiff_t count, TargetScan& scan) const;
  void read_some_targets(const RowSpace& space, int operand, std::ptrdiff_t first, std::ptrdiff_t count, bool may_be_ignored,
                         std::int64_t* classes) const;
  IndexRange index_range() const { return {classes_, true, options_->ignore_index}; }

  const ConstArray* input_ = nullptr;
  const ConstArray* target_ = nullptr;
  const LossOptions* options_ = nullptr;
  const KernelTable* kernels_ = nullptr;
  ClassAxes axes_;
  int axis_ = 0;
  std::ptrdiff_t classes_ = 1;
  std::ptrdiff_t row_shape_[kMaxDims];
  int row_ndim_ = 0;
  bool has_indices_ = true;
  ClassWeights weight_;
  double divisor_ = 1;
  bool has_ignored_ = false;
};

// Whether there is a place for the loss of rows of this shape.
Status check_result(const LossResult& result, Reduction reduction, DType input, int row_ndim, const std::ptrdiff_t* row_shape);

// Adds numbers with what every addition of them rounds off.
void add_block(ExactSum& sum, const KernelTable& kernels, const double* values, std::ptrdiff_t count);

}  // namespace crossent
