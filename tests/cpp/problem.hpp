// One call of a function under test: its inputs in guarded memory of some layout, its results, and the exact answers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "functions.hpp"
#include "guarded.hpp"

namespace crossent_test {

struct Elements {
  DType in, out;
  std::string name() const;
};
// All pairs that the library computes.
const std::vector<Elements>& all_elements();

struct Size {
  std::ptrdiff_t rows, classes;
};

// Whether the function has such a pair: those without an array output once for each input.
bool computes(const Function& function, const Elements& elements);

enum class Layout { rows, padded_rows, columns };
constexpr Layout kLayouts[] = {Layout::rows, Layout::padded_rows, Layout::columns};
const char* layout_name(Layout layout);

// Results in row-major order, as bytes of their dtype.
struct Results {
  std::vector<unsigned char> out, per_row;
  bool operator==(const Results& other) const { return out == other.out && per_row == other.per_row; }
};

// Numbers in row-major order, and the bytes of their dtype.
struct Numbers {
  DType dtype = DType::float32;
  std::vector<double> values;
  std::vector<unsigned char> bytes;
};

// The numbers of inputs.hpp for all operands of a size; shared by all functions and layouts.
class Inputs {
 public:
  Inputs(DType dtype, Size size);
  DType dtype() const { return dtype_; }
  Size size() const { return size_; }
  const Numbers& x(const Takes& takes) const { return values_[static_cast<int>(takes.x)]; }
  const Numbers& second(const Takes& takes) const {
    return takes.second_in_compute_type ? wide_probabilities_ : values_[static_cast<int>(takes.second_values)];
  }
  const Numbers& logits() const { return values_[static_cast<int>(Values::logits)]; }
  const std::vector<std::int64_t>& target() const { return target_; }
  const Numbers& weight() const { return weight_; }
  const Numbers& upstream() const { return upstream_; }

 private:
  DType dtype_;
  Size size_;
  Numbers values_[4], wide_probabilities_, weight_, upstream_;
  std::vector<std::int64_t> target_;
};

// Calls the function on them. `error` says what went wrong, if anything did: a status, or a write to memory between the
// elements.
Results call(const Function& function, const Elements& elements, const Inputs& inputs, Layout layout, Place place,
             std::string& error);

struct Expected {
  long double value = 0, allowed = 0;  // and the error that is
};

// The same in long double, and softmax and log_softmax of the logits.
class ExactRows {
 public:
  explicit ExactRows(const Inputs& inputs);
  const Inputs& inputs() const { return inputs_; }
  // What the function's formula takes; `x` and `second` are the row's operands.
  Row row(const Takes& takes, std::ptrdiff_t r, const std::vector<long double>& x,
          const std::vector<long double>& second) const;

 private:
  const Inputs& inputs_;
  std::vector<long double> p_, log_p_, weight_, max_, log_sum_;
};

struct Answers {
  std::vector<Expected> out, per_row;
};
Answers answers(const Function& function, const Elements& elements, const ExactRows& rows);

// The first element that is off by more than allowed, in words; empty if there is none.
std::string first_error(const Results& results, const Answers& answers, const Elements& elements, Size size);

}  // namespace crossent_test
