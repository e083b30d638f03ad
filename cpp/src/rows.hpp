// N-dimensional arrays of any strides, seen as rows of classes: which rows a kernel can take as they lie, and the gathering of
// those that it cannot.
#pragma once

#include "api.hpp"
#include "kernels.hpp"

namespace crossent {

// Which dimensions of an array are class axes. Code::bad_axis where an axis is out of range, bad_value where one is named
// twice.
struct ClassAxes {
  bool is_class[kMaxDims] = {};
  int count = 0;
};
Status normalize_axes(const Axes& axes, int ndim, ClassAxes& normalized);

// Dimensions with the strides of several arrays, merged where all of them allow it.
constexpr int kMaxOperands = 6;
struct Dims {
  int ndim = 0;
  std::ptrdiff_t size[kMaxDims];
  std::ptrdiff_t stride[kMaxOperands][kMaxDims];

  std::ptrdiff_t count() const;
  // The offset of operand `which` at a position in the order of the dimensions.
  std::ptrdiff_t offset(int which, std::ptrdiff_t position) const;
};

// Arrays that are walked together, row by row. Row-shaped operands (a number a row) have no strides along the classes.
class RowSpace {
 public:
  // `shape` is that of the class-shaped arrays.
  RowSpace(int ndim, const std::ptrdiff_t* shape, const ClassAxes& axes);

  // Returns the operand's number. `strides` of a row-shaped array lack the class axes.
  int add_class_shaped(const void* data, DType dtype, const std::ptrdiff_t* strides);
  int add_row_shaped(const void* data, DType dtype, const std::ptrdiff_t* strides);
  // After the last operand, before anything below: orders the rows as they lie in the memory of operand 0, and merges.
  void finish();

  std::ptrdiff_t rows() const { return rows_; }
  std::ptrdiff_t classes() const { return classes_; }
  DType dtype(int operand) const { return operand_[operand].dtype; }

  // The rows from `first` on, up to `limit` of them, that lie at one stride for every operand.
  std::ptrdiff_t run_length(std::ptrdiff_t first, std::ptrdiff_t limit) const;
  Operand rows_at(int operand, std::ptrdiff_t first) const;
  // Calls run(rows, done, n) for each such run among `count` rows of an operand: n rows from number first + done on.
  template <class Run>
  void for_each_run(int operand, std::ptrdiff_t first, std::ptrdiff_t count, Run&& run) const {
    for (std::ptrdiff_t done = 0, n; done < count; done += n) {
      n = run_length(first + done, count - done);
      run(rows_at(operand, first + done), done, n);
    }
  }
  // Such rows are a span, and spans may lie at one stride, too: how many rows a whole one has, and, from `first` on, up to
  // `limit`, how many rows there are of which all spans do.
  std::ptrdiff_t span() const { return outer_.ndim ? outer_.size[outer_.ndim - 1] : 1; }
  std::ptrdiff_t run_of_spans(std::ptrdiff_t first, std::ptrdiff_t limit) const;

  // Whether a class-shaped operand's rows are contiguous along the classes.
  bool contiguous(int operand) const;
  // Whether its rows lie one element apart, but not its classes.
  bool in_columns(int operand) const {
    return !contiguous(operand) && outer_.ndim > 0 &&
           outer_.stride[operand][outer_.ndim - 1] == item_size(operand_[operand].dtype);
  }
  // Whether its classes lie at one stride.
  bool single_stride(int operand) const { return classes_merged_.ndim <= 1 || operand_[operand].row_shaped; }

  // Copies rows of a class-shaped operand into contiguous memory, in its own dtype, and back.
  void gather(int operand, std::ptrdiff_t first, std::ptrdiff_t count, char* target) const;
  void scatter(int operand, std::ptrdiff_t first, std::ptrdiff_t count, const char* source) const;

 private:
  struct OperandData {
    char* data;
    DType dtype;
    bool row_shaped;
  };
  int add(const void* data, DType dtype, const std::ptrdiff_t* strides, bool row_shaped);
  template <bool kGather>
  void copy_rows(int operand, std::ptrdiff_t first, std::ptrdiff_t count, char* memory) const;

  int ndim_;
  const std::ptrdiff_t* shape_;
  const ClassAxes& axes_;
  int operands_ = 0;
  OperandData operand_[kMaxOperands];
  Dims outer_, classes_merged_;
  std::ptrdiff_t rows_ = 1, classes_ = 1;
};

}  // namespace crossent
