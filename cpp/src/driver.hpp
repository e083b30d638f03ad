// What all drivers share: from arrays of any layout to kernel calls on runs of rows.
#pragma once

#include "api.hpp"
#include "kernels.hpp"
#include "rows.hpp"

namespace crossent {

// Per-row numbers of a block stay in arrays on the stack. Where there are none, a block of short rows may be longer: what a
// kernel does once a call takes a while for 512 rows of 2 classes (softmax 1.4 -> 1.2 ns per element).
constexpr std::ptrdiff_t kMaxBlockRows = 512, kMaxRowsWithoutNumbers = 4096;
// Arrays that are larger together are not expected in a second-level cache.
constexpr std::ptrdiff_t kDistantBytes = 1 << 21;

std::string dtype_name(DType dtype);
// A number for messages, in as many digits as tell it from a limit next to it.
std::string number_text(double number);
// The type that arithmetic on a dtype is done in, and which kernels do it.
constexpr DType compute_dtype(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }
constexpr int compute_type(DType dtype) {
  return static_cast<int>(dtype == DType::float64 ? ComputeType::f64 : ComputeType::f32);
}
Status check_floating(const char* name, const ConstArray& array);
// Whether `out` may take the result of a computation on `in`.
Status check_output(const ConstArray& in, const char* in_name, const Array& out);

Status out_of_memory();

// Per-row numbers to a row-shaped operand, converted to its dtype; and back.
void write_rows(const RowSpace& space, int operand, std::ptrdiff_t first, std::ptrdiff_t count, const double* values);
void read_rows(const RowSpace& space, int operand, std::ptrdiff_t first, std::ptrdiff_t count, double* values);

// The class-shaped operands of a kernel call, by their numbers in the row space; -1: none.
struct KernelOperands {
  int input = 0;
  int second = -1;
  int output = -1;
  bool untouched = false;  // the output's memory was just allocated
  bool in_turns = false;   // the kernel can write a row while it sums the next one of its run
};

// Feeds blocks of rows to a kernel: as they lie where the kernel can take them, through scratch memory where not.
class RowFeeder {
 public:
  RowFeeder(const KernelTable& kernels, const RowSpace& space, const KernelOperands& operands,
            std::ptrdiff_t most_rows = kMaxBlockRows);

  // The division into blocks depends on shapes and layout only, never on threads.
  std::ptrdiff_t block_rows() const { return block_rows_; }
  std::ptrdiff_t blocks() const { return (space_.rows() + block_rows_ - 1) / block_rows_; }
  std::size_t scratch_bytes() const;

  // Calls call(run, first) for runs of rows that make up a block; `first` counts from the block's first row.
  template <class Call>
  void feed(std::ptrdiff_t block, char* scratch, Call call) const {
    const std::ptrdiff_t begin = block * block_rows_;
    const std::ptrdiff_t left = space_.rows() - begin;
    const std::ptrdiff_t count = left < block_rows_ ? left : block_rows_;
    for (std::ptrdiff_t done = 0; done < count;) {
      Run run;
      const std::ptrdiff_t rows = prepare(begin + done, count - done, scratch, run);
      call(static_cast<const Run&>(run), done);
      finish(begin + done, rows, run);
      done += rows;
    }
  }

 private:
  std::ptrdiff_t prepare(std::ptrdiff_t first, std::ptrdiff_t limit, char* scratch, Run& run) const;
  void finish(std::ptrdiff_t first, std::ptrdiff_t rows, const Run& run) const;
  Operand staged(char* memory, DType dtype) const;
  void convert_second(std::ptrdiff_t first, std::ptrdiff_t rows, char* target, char* raw) const;

  const RowSpace& space_;
  KernelOperands operands_;
  DType second_dtype_ = DType::float32;  // what a kernel can take; the operand is converted where it has another
  bool direct_, in_spans_ = false, stream_ = false, distant_ = false, fetches_far_ = false;
  std::ptrdiff_t block_rows_, staged_rows_ = 0;
  std::size_t kernel_bytes_, stage_bytes_ = 0;
};

}  // namespace crossent
