// Checks and row feeding that all drivers share.
#include "driver.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "dispatch.hpp"
#include "elements.hpp"

namespace crossent {
namespace {

const char* const kDTypeNames[] = {"float32", "float64", "float16", "bfloat16", "bool",   "int8",  "int16",
                                   "int32",   "int64",   "uint8",   "uint16",   "uint32", "uint64"};
// Blocks are of so many elements, if rows are short.
constexpr std::ptrdiff_t kBlockElements = 1 << 15;
// And of so few rows that there are as many blocks, or of kMaxBlockRows.
constexpr std::ptrdiff_t kLeastBlocks = 16;
// If rows are few, there are about so many blocks, unless they would be smaller than this.
constexpr std::ptrdiff_t kBlocksOfFewRows = 8, kBlocksOfFewColumns = 4, kLeastElements = 1 << 14;
// Of long rows that go in turns, the first of a block is summed and the last one written alone; but each thread should have
// some blocks.
constexpr std::ptrdiff_t kLeastBlocksInTurns = 32;
// Rows that are gathered together share the cache lines that one of them touches, and should stay in the second-level cache.
constexpr std::ptrdiff_t kStageBytes = 1 << 20, kMostGathered = 64;
// Rows of more classes than this are not gathered together: that would take tens of megabytes.
constexpr std::ptrdiff_t kLongestGathered = 1 << 18;
// An output from this size on is written past the caches if its rows are long (1024 x 50257 float32: 0.57 -> 0.48 ns per
// element on Sapphire Rapids; shorter rows lose more at their ends than they gain).
constexpr std::ptrdiff_t kStreamBytes = 1 << 25, kStreamRowBytes = 1 << 16;
// So is an output of rows that would not stay in the second-level cache beside their exponentials (8 x 262144: softmax 0.61 ->
// 0.41).
constexpr std::ptrdiff_t kStreamLongRowBytes = 3 << 18;
// Columns gain earlier if they lie far apart, the most where they are many, since many of their cache lines fall together in a
// cache then (1000 x 1024 transposed: 1.29 -> 0.70 ns per element, 1000 x 256 0.93 -> 0.79; but 10 x 65536 0.72 -> 0.77). Near
// ones lose (axis 1 of 2048 x 64 x 32: 0.57 -> 1.87). Only whole lines go past the caches, and what does is not fetched:
// columns at other strides would have neither (100 x 41943: 0.57 -> 0.92).
constexpr std::ptrdiff_t kStreamColumnsBytes = 1 << 23, kStreamManyColumnsBytes = 3 << 18;
constexpr std::ptrdiff_t kManyColumns = 24, kFarColumnBytes = 1 << 10;
constexpr std::ptrdiff_t kLineBytes = 64;  // kVectorBytes of the kernels, too

}  // namespace

std::string dtype_name(DType dtype) { return kDTypeNames[static_cast<int>(dtype)]; }

std::string number_text(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", number);
  return text;
}

Status check_floating(const char* name, const ConstArray& array) {
  if (is_floating(array.dtype)) return {};
  return {Code::bad_type, std::string(name) + " must have a floating dtype, not " + dtype_name(array.dtype)};
}

Status check_output(const ConstArray& in, const char* in_name, const Array& out) {
  if (out.ndim != in.ndim || !std::equal(in.shape, in.shape + in.ndim, out.shape)) {
    return {Code::bad_value, "out has shape " + shape_text(out.ndim, out.shape) + ", but " + in_name + " has shape " +
                                 shape_text(in.ndim, in.shape)};
  }
  const bool widens = out.dtype == DType::float32 && compute_dtype(in.dtype) == DType::float32;
  if (out.dtype == in.dtype || widens) return {};
  return {Code::bad_value, "out has dtype " + dtype_name(out.dtype) + ", but the result has dtype " + dtype_name(in.dtype)};
}

Status out_of_memory() { return {Code::out_of_memory, "no memory for the scratch space of a row"}; }

void write_rows(const RowSpace& space, int operand, std::ptrdiff_t first, std::ptrdiff_t count, const double* values) {
  const DType dtype = space.dtype(operand);
  space.for_each_run(operand, first, count, [&](const Operand& rows, std::ptrdiff_t done, std::ptrdiff_t run) {
    if (dtype == DType::float32 && rows.row_stride == item_size(dtype)) {
      for (std::ptrdiff_t i = 0; i < run; ++i)
        write_element(rows.data + i * item_size(DType::float32), static_cast<float>(values[done + i]));
    } else {
      for (std::ptrdiff_t i = 0; i < run; ++i) write_floating(dtype, rows.data + i * rows.row_stride, values[done + i]);
    }
  });
}

void read_rows(const RowSpace& space, int operand, std::ptrdiff_t first, std::ptrdiff_t count, double* values) {
  const DType dtype = space.dtype(operand);
  space.for_each_run(operand, first, count, [&](const Operand& rows, std::ptrdiff_t done, std::ptrdiff_t run) {
    for (std::ptrdiff_t i = 0; i < run; ++i) values[done + i] = read_floating(dtype, rows.data + i * rows.row_stride);
  });
}

namespace {

// Left to the compiler, which vectorizes it.
template <class From, class To>
void convert_elements(const char* source, std::ptrdiff_t count, char* target) {
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    write_element(target + i * sizeof(To), static_cast<To>(read_element<From>(source + i * sizeof(From))));
  }
}

// Whether the output had better be written past the caches. Not in the place of an input, which is in a cache by then (333 x
// 50257 in place: 0.60 ns per element past the caches, 0.30 through them); nor results of 16 bits, which are converted from the
// cache; nor, of contiguous rows, pages that were just allocated, since they are cleared when they are first written to, which
// leaves them in a cache (1024 x 50257 into new memory: 1.55 and 1.15).
bool goes_past_caches(const RowSpace& space, const KernelOperands& operands, bool contiguous) {
  if (operands.output < 0 || space.rows() == 0 || item_size(space.dtype(operands.output)) <= 2) return false;
  const Operand output = space.rows_at(operands.output, 0);
  for (int operand : {operands.input, operands.second}) {
    if (operand >= 0 && space.rows_at(operand, 0).data == output.data) return false;
  }
  const std::ptrdiff_t size = item_size(space.dtype(operands.output)), row_bytes = space.classes() * size;
  const std::ptrdiff_t bytes = space.rows() * row_bytes;
  if (contiguous) {
    return (row_bytes >= kStreamLongRowBytes || (row_bytes >= kStreamRowBytes && bytes >= kStreamBytes)) && !operands.untouched;
  }
  const bool many = space.classes() >= kManyColumns, far = std::abs(output.class_stride) >= kFarColumnBytes;
  const bool whole_lines = output.row_stride == size && output.class_stride % kLineBytes == 0;
  return far && whole_lines && bytes >= (many ? kStreamManyColumnsBytes : kStreamColumnsBytes);
}

// Blocks of at most so many rows let threads share even few rows of many classes. Columns had better stay together: they are
// read and written in pieces as long as a block has rows (softmax of 512 x 4096 transposed: 64 rows 1.34, 512 1.00 ns per
// element).
std::ptrdiff_t rows_for_threads(std::ptrdiff_t rows, std::ptrdiff_t classes, bool contiguous) {
  const std::ptrdiff_t fair = rows / (contiguous ? kBlocksOfFewRows : kBlocksOfFewColumns);
  return (std::max({fair, kLeastElements / classes, std::ptrdiff_t{1}}) + 15) / 16 * 16;
}

}  // namespace

RowFeeder::RowFeeder(const KernelTable& kernels, const RowSpace& space, const KernelOperands& operands,
                     std::ptrdiff_t most_rows)
    : space_(space), operands_(operands) {
  const std::ptrdiff_t classes = std::max<std::ptrdiff_t>(space.classes(), 1);
  const std::ptrdiff_t tile_limit = kernels.tile_limit;
  bool contiguous = true, single_stride = true, in_columns = true;
  for (int operand : {operands.input, operands.second, operands.output}) {
    if (operand < 0) continue;
    contiguous = contiguous && space.contiguous(operand);
    single_stride = single_stride && space.single_stride(operand);
    in_columns = in_columns && space.in_columns(operand);
  }
  bool right_dtype = true;
  if (operands.second >= 0) {
    const DType given = space.dtype(operands.second), wanted = compute_dtype(space.dtype(operands.input));
    right_dtype = compute_dtype(given) == wanted;
    second_dtype_ = right_dtype ? given : wanted;
  }
  direct_ = right_dtype && (contiguous || (single_stride && classes <= tile_limit));
  stream_ = kernels.streams && direct_ && goes_past_caches(space, operands, contiguous);
  in_spans_ = direct_ && in_columns && !stream_;
  std::ptrdiff_t element_bytes = 0;
  for (int operand : {operands.input, operands.second, operands.output}) {
    if (operand >= 0) element_bytes += item_size(space.dtype(operand));
  }
  distant_ = direct_ && space.rows() * classes * element_bytes > kDistantBytes;
  fetches_far_ = distant_ && fetches_far();
  // Whole tiles where tiles are used, and blocks large enough to make the work per block small, but for some for each thread.
  const std::ptrdiff_t wanted = (kBlockElements / classes + 15) / 16 * 16, share = space.rows() / kLeastBlocks / 16 * 16;
  most_rows = std::clamp(share, kMaxBlockRows, most_rows);
  const std::ptrdiff_t least = contiguous && classes > tile_limit ? 1 : 16;
  block_rows_ = std::clamp<std::ptrdiff_t>(classes > tile_limit ? least : wanted, least, most_rows);
  // Nothing else is computed while the first columns of a block are read (past the caches, 64 x 65536: 512 columns a block 0.62
  // ns per element, 4096 0.56).
  if (direct_ && !contiguous) block_rows_ = std::clamp(stream_ ? most_rows : wanted, kMaxBlockRows, most_rows);
  block_rows_ = std::min(block_rows_, rows_for_threads(space.rows(), classes, contiguous));
  if (operands.in_turns && contiguous && stream_ && fetches_far_ &&
      item_size(space.dtype(operands.input)) == item_size(space.dtype(operands.output))) {
    block_rows_ = std::clamp<std::ptrdiff_t>(space.rows() / kLeastBlocksInTurns, 1, kMostInTurns);
  }
  kernel_bytes_ = (kernels.scratch_bytes(classes) + 63) / 64 * 64;
  if (!direct_) {
    std::ptrdiff_t item = operands.second >= 0 ? item_size(second_dtype_) : 0;
    for (int operand : {operands.input, operands.second, operands.output}) {
      if (operand >= 0) item = std::max(item, item_size(space.dtype(operand)));
    }
    const std::ptrdiff_t fitting = kStageBytes / (classes * item) / 16 * 16, most = std::max(kMostGathered, block_rows_);
    const std::ptrdiff_t together = classes > kLongestGathered ? 1 : std::clamp(fitting, least, most);
    block_rows_ = std::max(block_rows_, together);
    staged_rows_ = std::min(together, std::max<std::ptrdiff_t>(space.rows(), 1));
    stage_bytes_ = (static_cast<std::size_t>(staged_rows_ * classes * item) + 63) / 64 * 64;
  }
}

// Gathered rows of the input, then of the output, then of the second operand as the kernel wants it and as it was.
std::size_t RowFeeder::scratch_bytes() const {
  const std::size_t stages = operands_.second >= 0 ? 4 : operands_.output >= 0 ? 2 : 1;
  return kernel_bytes_ + stages * stage_bytes_;
}

Operand RowFeeder::staged(char* memory, DType dtype) const {
  Operand rows;
  rows.data = memory;
  rows.type = static_cast<Elements>(dtype);
  rows.class_stride = item_size(dtype);
  rows.row_stride = rows.class_stride * space_.classes();
  return rows;
}

void RowFeeder::convert_second(std::ptrdiff_t first, std::ptrdiff_t rows, char* target, char* raw) const {
  const DType from = space_.dtype(operands_.second), to = second_dtype_;
  space_.gather(operands_.second, first, rows, from == to ? target : raw);
  if (from == to) return;
  const std::ptrdiff_t count = rows * space_.classes();
  const std::ptrdiff_t size = item_size(from), target_size = item_size(to);
  if (from == DType::float64 && to == DType::float32) {
    convert_elements<double, float>(raw, count, target);
  } else if (from == DType::float32 && to == DType::float64) {
    convert_elements<float, double>(raw, count, target);
  } else {
    for (std::ptrdiff_t i = 0; i < count; ++i)
      write_floating(to, target + i * target_size, read_floating(from, raw + i * size));
  }
}

std::ptrdiff_t RowFeeder::prepare(std::ptrdiff_t first, std::ptrdiff_t limit, char* scratch, Run& run) const {
  run.classes = space_.classes();
  run.scratch = scratch;
  run.stream = stream_;
  run.distant = distant_;
  run.fetches_far = fetches_far_;
  if (direct_) {
    run.rows = in_spans_ ? space_.run_of_spans(first, limit) : space_.run_length(first, limit);
    if (in_spans_) {
      run.span = space_.span();
      run.before = first % run.span;
    }
    run.input = space_.rows_at(operands_.input, first);
    if (operands_.second >= 0) run.second = space_.rows_at(operands_.second, first);
    if (operands_.output >= 0) run.output = space_.rows_at(operands_.output, first);
    return run.rows;
  }
  run.rows = std::min(limit, staged_rows_);
  char* stage = scratch + kernel_bytes_;
  run.input = staged(stage, space_.dtype(operands_.input));
  space_.gather(operands_.input, first, run.rows, run.input.data);
  if (operands_.second >= 0) {
    run.second = staged(stage + 2 * stage_bytes_, second_dtype_);
    convert_second(first, run.rows, run.second.data, stage + 3 * stage_bytes_);
  }
  if (operands_.output >= 0) run.output = staged(stage + stage_bytes_, space_.dtype(operands_.output));
  return run.rows;
}

void RowFeeder::finish(std::ptrdiff_t first, std::ptrdiff_t rows, const Run& run) const {
  if (!direct_ && operands_.output >= 0) space_.scatter(operands_.output, first, rows, run.output.data);
}

}  // namespace crossent
