// What drivers of scores share, and the driver of token_log_probs.
#include <algorithm>

#include "api.hpp"
#include "dispatch.hpp"
#include "driver.hpp"
#include "elements.hpp"
#include "indices.hpp"
#include "parallel.hpp"
#include "scores.hpp"

namespace crossent {

Status ScoredLogits::check(const char* name, const ConstArray& logits, int class_axis) {
  if (Status s = check_floating(name, logits); !s) return s;
  if (Status s = normalize_axes(Axes(class_axis), logits.ndim, axes); !s) return s;
  axis = class_axis < 0 ? class_axis + std::max(logits.ndim, 1) : class_axis;
  for (int d = 0; d < logits.ndim; ++d) {
    if (axes.is_class[d]) {
      classes = logits.shape[d];
    } else {
      row_shape[row_ndim++] = logits.shape[d];
    }
  }
  if (classes > 0) return {};
  return {Code::bad_value, std::string(name) + " of shape " + shape_text(logits.ndim, logits.shape) +
                               " has zero classes along axis " + std::to_string(axis)};
}

bool ScoredLogits::has_row_shape(const ConstArray& array) const {
  return array.ndim == row_ndim && std::equal(row_shape, row_shape + row_ndim, array.shape);
}

std::string logits_text(const char* name, const ConstArray& logits, int axis) {
  return std::string(name) + " has shape " + shape_text(logits.ndim, logits.shape) + " with the class axis " +
         std::to_string(axis);
}

Status check_indices(const char* name, const ConstArray& indices, const IndexRange& range) {
  ClassAxes none;
  RowSpace space(indices.ndim, indices.shape, none);
  const int operand = space.add_row_shaped(indices.data, indices.dtype, indices.strides);
  space.finish();
  std::int64_t values[kMaxBlockRows];
  for (std::ptrdiff_t done = 0; done < space.rows();) {
    const std::ptrdiff_t run = space.run_length(done, std::min(space.rows() - done, kMaxBlockRows));
    const Operand at = space.rows_at(operand, done);
    if (!read_indices(indices.dtype, at.data, at.row_stride, run, range, values)) return bad_index(name, indices, range);
    done += run;
  }
  return {};
}

namespace {

// The indices of a row: one, or `count` along a last axis.
struct IndexAxis {
  bool present = false;
  std::ptrdiff_t count = 1, index_stride = 0, out_stride = 0;
};

Status check_index(const ConstArray& logits, const ScoredLogits& rows, const ConstArray& index, IndexAxis& along) {
  if (is_floating(index.dtype)) {
    return {Code::bad_type, "index must have an integer dtype, not " + dtype_name(index.dtype)};
  }
  ConstArray leading = index;
  along.present = index.ndim == rows.row_ndim + 1;
  if (along.present) {
    --leading.ndim;
    along.count = index.shape[leading.ndim];
    along.index_stride = index.strides[leading.ndim];
  }
  if (!rows.has_row_shape(leading)) {
    const std::string row_shape = shape_text(rows.row_ndim, rows.row_shape);
    std::string several = row_shape.substr(0, row_shape.size() - 1);
    several += rows.row_ndim == 0 ? "K,)" : rows.row_ndim == 1 ? " K)" : ", K)";
    return {Code::bad_value, "index has shape " + shape_text(index.ndim, index.shape) + ", but " +
                                 logits_text("logits", logits, rows.axis) + ", which needs shape " + row_shape +
                                 " or, for K classes of each row, " + several};
  }
  return check_indices("index", index, {rows.classes, false, 0});
}

Status check_scores(const ConstArray& logits, const ConstArray& index, const Array& out) {
  const DType dtype = compute_dtype(logits.dtype);
  if (out.ndim != index.ndim || !std::equal(index.shape, index.shape + index.ndim, out.shape)) {
    return {Code::bad_value, "out has shape " + shape_text(out.ndim, out.shape) + ", but the result has shape " +
                                 shape_text(index.ndim, index.shape)};
  }
  if (out.dtype == dtype) return {};
  return {Code::bad_value, "out has dtype " + dtype_name(out.dtype) + ", but the result has dtype " + dtype_name(dtype)};
}

// One call of token_log_probs: rows, and for each of them the classes of its indices.
class TokenCall {
 public:
  TokenCall(const ConstArray& logits, const ScoredLogits& rows, const ConstArray& index, const IndexAxis& along,
            const Array& out)
      : range_{rows.classes, false, 0}, along_(along), space_(logits.ndim, logits.shape, rows.axes) {
    operands_.input = space_.add_class_shaped(logits.data, logits.dtype, logits.strides);
    index_ = space_.add_row_shaped(index.data, index.dtype, index.strides);
    out_ = space_.add_row_shaped(out.data, out.dtype, out.strides);
    space_.finish();
  }

  Status run(const KernelTable& kernels) const {
    const RowFeeder feeder(kernels, space_, operands_);
    const ScoreKernel kernel = kernels.max_and_log_sum[compute_type(space_.dtype(operands_.input))];
    const std::size_t values_bytes = static_cast<std::size_t>(along_.count) * (sizeof(double) + sizeof(std::int64_t));
    const auto handle = [&](std::ptrdiff_t begin, std::ptrdiff_t end, char* scratch) {
      for (std::ptrdiff_t block = begin; block < end; ++block) {
        const std::ptrdiff_t first = block * feeder.block_rows();
        const std::ptrdiff_t count = std::min(feeder.block_rows(), space_.rows() - first);
        double max[kMaxBlockRows], log_sum[kMaxBlockRows];
        feeder.feed(block, scratch, [&](const Run& rows, std::ptrdiff_t done) {
          ScoreRun run;
          static_cast<Run&>(run) = rows;
          run.max = max + done;
          run.log_sum = log_sum + done;
          kernel(run);
        });
        write_block(first, count, max, log_sum, scratch + feeder.scratch_bytes());
      }
    };
    const bool done = for_each_block_range(threads_for(space_.rows(), space_.classes()), feeder.blocks(),
                                           feeder.scratch_bytes() + values_bytes, handle);
    return done ? Status() : out_of_memory();
  }

 private:
  void write_block(std::ptrdiff_t first, std::ptrdiff_t count, const double* max, const double* log_sum, char* memory) const {
    with_reader(space_.dtype(operands_.input), [&](auto read) {
      for (std::ptrdiff_t done = 0; done < count;) {
        const std::ptrdiff_t run = space_.run_length(first + done, count - done);
        if (along_.count == 1) {
          write_single(first + done, run, max + done, log_sum + done, read);
        } else {
          write_several(first + done, run, max + done, log_sum + done, memory, read);
        }
        done += run;
      }
    });
  }

  template <class Read>
  void write_single(std::ptrdiff_t first, std::ptrdiff_t run, const double* max, const double* log_sum, Read read) const {
    const Operand logits = space_.rows_at(operands_.input, first), scores = space_.rows_at(out_, first);
    const Operand indices = space_.rows_at(index_, first);
    std::int64_t classes[kMaxBlockRows];
    reread_indices(space_.dtype(index_), indices.data, indices.row_stride, run, range_, classes);
    const bool wide = space_.dtype(out_) == DType::float64;
    for (std::ptrdiff_t i = 0; i < run; ++i) {
      const double x = read(logits.data + i * logits.row_stride + classes[i] * logits.class_stride);
      const double score = log_probability(max[i], log_sum[i], x);
      char* target = scores.data + i * scores.row_stride;
      if (wide) {
        write_element(target, score);
      } else {
        write_element(target, static_cast<float>(score));
      }
    }
  }

  // All of a row's logits are read before its first score is written: `out` may be the logits themselves.
  template <class Read>
  void write_several(std::ptrdiff_t first, std::ptrdiff_t run, const double* max, const double* log_sum, char* memory,
                     Read read) const {
    double* values = reinterpret_cast<double*>(memory);
    std::int64_t* classes = reinterpret_cast<std::int64_t*>(values + along_.count);
    const Operand logits = space_.rows_at(operands_.input, first), scores = space_.rows_at(out_, first);
    const Operand indices = space_.rows_at(index_, first);
    for (std::ptrdiff_t i = 0; i < run; ++i) {
      const char* row = logits.data + i * logits.row_stride;
      reread_indices(space_.dtype(index_), indices.data + i * indices.row_stride, along_.index_stride, along_.count, range_,
                     classes);
      for (std::ptrdiff_t k = 0; k < along_.count; ++k) {
        values[k] = log_probability(max[i], log_sum[i], read(row + classes[k] * logits.class_stride));
      }
      char* target = scores.data + i * scores.row_stride;
      for (std::ptrdiff_t k = 0; k < along_.count; ++k) {
        write_floating(space_.dtype(out_), target + k * along_.out_stride, values[k]);
      }
    }
  }

  IndexRange range_;
  IndexAxis along_;
  RowSpace space_;
  KernelOperands operands_;
  int index_ = -1, out_ = -1;
};

}  // namespace

Status token_log_probs(const ConstArray& logits, const ConstArray& index, int axis, const Array& out) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return simd_status();
  ScoredLogits rows;
  IndexAxis along;
  if (Status s = rows.check("logits", logits, axis); !s) return s;
  if (Status s = check_index(logits, rows, index, along); !s) return s;
  if (Status s = check_scores(logits, index, out); !s) return s;
  if (index.size() == 0) return {};
  if (along.present) along.out_stride = out.strides[out.ndim - 1];
  return TokenCall(logits, rows, index, along, out).run(*kernels);
}

}  // namespace crossent
