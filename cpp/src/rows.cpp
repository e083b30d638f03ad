// RowSpace: strides of several arrays at once, sorted and merged so that the common layouts become one loop.
#include "rows.hpp"

#include <cstdlib>

#include "transpose.hpp"

namespace crossent {

Status normalize_axes(const Axes& axes, int ndim, ClassAxes& normalized) {
  if (axes.all) {
    for (int d = 0; d < ndim; ++d) normalized.is_class[d] = true;
    normalized.count = ndim;
    return {};
  }
  for (int i = 0; i < axes.count; ++i) {
    const int axis = axes.axis[i];
    // A 0-d array has one class, along axis 0 or -1, as in PyTorch.
    if (ndim == 0 && (axis == 0 || axis == -1)) continue;
    if (axis < -ndim || axis >= ndim) {
      return {Code::bad_axis,
              "axis " + std::to_string(axis) + " is out of bounds for array of dimension " + std::to_string(ndim)};
    }
    const int d = axis < 0 ? axis + ndim : axis;
    if (normalized.is_class[d]) return {Code::bad_value, "axis " + std::to_string(axis) + " is named twice"};
    normalized.is_class[d] = true;
    ++normalized.count;
  }
  return {};
}

std::string shape_text(int ndim, const std::ptrdiff_t* shape) {
  std::string text = "(";
  for (int d = 0; d < ndim; ++d) text += (d ? ", " : "") + std::to_string(shape[d]);
  return text + (ndim == 1 ? ",)" : ")");
}

std::ptrdiff_t Dims::count() const {
  std::ptrdiff_t n = 1;
  for (int d = 0; d < ndim; ++d) n *= size[d];
  return n;
}

std::ptrdiff_t Dims::offset(int which, std::ptrdiff_t position) const {
  std::ptrdiff_t offset = 0;
  for (int d = ndim - 1; d > 0; --d) {
    offset += position % size[d] * stride[which][d];
    position /= size[d];
  }
  return ndim ? offset + position * stride[which][0] : 0;
}

RowSpace::RowSpace(int ndim, const std::ptrdiff_t* shape, const ClassAxes& axes) : ndim_(ndim), shape_(shape), axes_(axes) {
  for (int d = 0; d < ndim; ++d) {
    (axes.is_class[d] ? classes_ : rows_) *= shape[d];
    if (shape[d] == 1) continue;
    Dims& dims = axes.is_class[d] ? classes_merged_ : outer_;
    dims.size[dims.ndim++] = shape[d];
  }
}

int RowSpace::add(const void* data, DType dtype, const std::ptrdiff_t* strides, bool row_shaped) {
  operand_[operands_] = {static_cast<char*>(const_cast<void*>(data)), dtype, row_shaped};
  int outer = 0, along = 0, position = 0;
  for (int d = 0; d < ndim_; ++d) {
    if (axes_.is_class[d]) {
      if (shape_[d] != 1) classes_merged_.stride[operands_][along++] = row_shaped ? 0 : strides[position];
      position += row_shaped ? 0 : 1;
    } else {
      if (shape_[d] != 1) outer_.stride[operands_][outer++] = strides[position];
      ++position;
    }
  }
  return operands_++;
}

int RowSpace::add_class_shaped(const void* data, DType dtype, const std::ptrdiff_t* strides) {
  return add(data, dtype, strides, false);
}
int RowSpace::add_row_shaped(const void* data, DType dtype, const std::ptrdiff_t* strides) {
  return add(data, dtype, strides, true);
}

namespace {

void swap_dims(Dims& dims, int operands, int a, int b) {
  std::swap(dims.size[a], dims.size[b]);
  for (int k = 0; k < operands; ++k) std::swap(dims.stride[k][a], dims.stride[k][b]);
}

// Neighbouring dimensions that are one for all operands become one.
void merge(Dims& dims, int operands) {
  int last = 0;
  for (int d = 1; d < dims.ndim; ++d) {
    bool one = true;
    for (int k = 0; k < operands; ++k) one = one && dims.stride[k][last] == dims.stride[k][d] * dims.size[d];
    if (one) {
      dims.size[last] *= dims.size[d];
    } else {
      dims.size[++last] = dims.size[d];
    }
    for (int k = 0; k < operands; ++k) dims.stride[k][last] = dims.stride[k][d];
  }
  if (dims.ndim > 0) dims.ndim = last + 1;
}

}  // namespace

void RowSpace::finish() {
  // Insertion sort by falling stride of operand 0: a handful of dimensions, mostly in order already.
  for (int d = 1; d < outer_.ndim; ++d) {
    for (int k = d; k > 0 && std::abs(outer_.stride[0][k - 1]) < std::abs(outer_.stride[0][k]); --k) {
      swap_dims(outer_, operands_, k - 1, k);
    }
  }
  merge(outer_, operands_);
  merge(classes_merged_, operands_);
  // A kernel call takes a run of rows: a last dimension of a few rows would leave most of a vector's lanes idle. But neighbours
  // in memory had better stay together where those of many samples are taken in one call (softmax along axis 1 of 4096 x 9 x
  // 14: 2.2 -> 1.1 ns per element, of 4096 x 10 x 4 1.8 -> 1.2, but x 3 1.8 and 1.7; loss and gradient of 2 x 5 4.6 and 5.1),
  // and others where they are more (512 x 100 x 15: 4.7 -> 0.7).
  constexpr std::ptrdiff_t kFewRows = 16, kFewInSpans = 4, kFewElementsInSpans = 16, kFewNeighbours = 5, kFewElements = 128;
  int widest = outer_.ndim - 1;
  if (widest < 0) return;
  const std::ptrdiff_t last = outer_.size[widest];
  bool in_spans = true;
  for (int k = 0; k < operands_; ++k) in_spans = in_spans && (operand_[k].row_shaped || in_columns(k));
  const std::ptrdiff_t few = in_spans ? kFewInSpans : kFewNeighbours;
  const bool enough = last * classes_ >= (in_spans ? kFewElementsInSpans : kFewElements);
  if (last >= (in_columns(0) && enough ? few : kFewRows)) return;
  for (int d = 0; d < outer_.ndim; ++d) {
    if (outer_.size[d] > outer_.size[widest]) widest = d;
  }
  if (widest != outer_.ndim - 1) swap_dims(outer_, operands_, widest, outer_.ndim - 1);
}

std::ptrdiff_t RowSpace::run_length(std::ptrdiff_t first, std::ptrdiff_t limit) const {
  if (outer_.ndim == 0) return limit;
  const std::ptrdiff_t left = span() - first % span();
  return left < limit ? left : limit;
}

std::ptrdiff_t RowSpace::run_of_spans(std::ptrdiff_t first, std::ptrdiff_t limit) const {
  if (outer_.ndim <= 1) return limit;
  const std::ptrdiff_t all = span() * outer_.size[outer_.ndim - 2];
  const std::ptrdiff_t left = all - first % all;
  return left < limit ? left : limit;
}

Operand RowSpace::rows_at(int operand, std::ptrdiff_t first) const {
  Operand rows;
  rows.data = operand_[operand].data + outer_.offset(operand, first);
  rows.type = static_cast<Elements>(operand_[operand].dtype);
  rows.row_stride = outer_.ndim ? outer_.stride[operand][outer_.ndim - 1] : 0;
  rows.span_stride = outer_.ndim > 1 ? outer_.stride[operand][outer_.ndim - 2] : 0;
  rows.class_stride = classes_merged_.ndim ? classes_merged_.stride[operand][0] : item_size(operand_[operand].dtype);
  return rows;
}

bool RowSpace::contiguous(int operand) const {
  return classes_merged_.ndim == 0 ||
         (classes_merged_.ndim == 1 && classes_merged_.stride[operand][0] == item_size(operand_[operand].dtype));
}

namespace {

template <class F>
void with_item_type(std::ptrdiff_t size, F f) {
  if (size == 8) f(std::uint64_t{});
  if (size == 4) f(std::uint32_t{});
  if (size == 2) f(std::uint16_t{});
}

// Copies `count` rows of `classes` elements to contiguous rows of `row_length` elements, or back.
template <class Item, bool kGather>
void copy_rectangle(const Operand& rows, std::ptrdiff_t count, std::ptrdiff_t classes, char* memory,
                    std::ptrdiff_t row_length) {
  constexpr std::ptrdiff_t item = sizeof(Item);
  const auto copy = [](char* p, char* q, std::ptrdiff_t bytes) { std::memcpy(kGather ? q : p, kGather ? p : q, bytes); };
  if (rows.class_stride == item || classes == 1) {
    for (std::ptrdiff_t r = 0; r < count; ++r)
      copy(rows.data + r * rows.row_stride, memory + r * row_length * item, classes * item);
  } else if (rows.row_stride == item && count > 1) {
    transpose<Item, kGather>(rows.data, rows.class_stride, memory, row_length * item, count, classes);
  } else {
    // The smaller stride inside, so that neighbours in memory are touched together.
    const bool rows_inside = std::abs(rows.row_stride) < std::abs(rows.class_stride);
    const std::ptrdiff_t outer = rows_inside ? classes : count, inner = rows_inside ? count : classes;
    for (std::ptrdiff_t i = 0; i < outer; ++i) {
      for (std::ptrdiff_t j = 0; j < inner; ++j) {
        const std::ptrdiff_t r = rows_inside ? j : i, c = rows_inside ? i : j;
        copy(rows.data + r * rows.row_stride + c * rows.class_stride, memory + (r * row_length + c) * item, item);
      }
    }
  }
}

}  // namespace

template <bool kGather>
void RowSpace::copy_rows(int operand, std::ptrdiff_t first, std::ptrdiff_t count, char* memory) const {
  const std::ptrdiff_t inner = classes_merged_.ndim ? classes_merged_.size[classes_merged_.ndim - 1] : 1;
  with_item_type(item_size(operand_[operand].dtype), [&](auto item) {
    for (std::ptrdiff_t done = 0, run; done < count; done += run) {
      run = run_length(first + done, count - done);
      const Operand all = rows_at(operand, first + done);
      for (std::ptrdiff_t c = 0; c < classes_; c += inner) {
        Operand rows = all;
        rows.data += classes_merged_.offset(operand, c);
        rows.class_stride = classes_merged_.ndim ? classes_merged_.stride[operand][classes_merged_.ndim - 1] : 0;
        char* target = memory + (done * classes_ + c) * static_cast<std::ptrdiff_t>(sizeof item);
        copy_rectangle<decltype(item), kGather>(rows, run, inner, target, classes_);
      }
    }
  });
}

void RowSpace::gather(int operand, std::ptrdiff_t first, std::ptrdiff_t count, char* target) const {
  copy_rows<true>(operand, first, count, target);
}

void RowSpace::scatter(int operand, std::ptrdiff_t first, std::ptrdiff_t count, const char* source) const {
  copy_rows<false>(operand, first, count, const_cast<char*>(source));
}

}  // namespace crossent
