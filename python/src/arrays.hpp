// From Python arguments to array views and back: the only code that looks into NumPy arrays.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>

#include "crossent/crossent.hpp"

namespace crossent_python {

namespace py = pybind11;
using crossent::Array;
using crossent::Axes;
using crossent::ConstArray;
using crossent::DType;
using crossent::Reduction;
using crossent::Status;

// An argument as an array that stays alive for the call, with its dtype known.
struct Argument {
  py::array array;
  DType dtype;
  bool untouched = false;  // just allocated

  ConstArray view() const;
  Array mutable_view() const;
};

// An array of one of the four floating dtypes, without a copy where NumPy can view it so. `name` is for messages.
Argument floating(py::handle object, const char* name);
// Class indices of an integer dtype, or an array of a floating one; whether that may be probabilities is for messages.
Argument target(py::handle object, bool may_be_probabilities, const char* name = "target");
// Two arrays of one floating dtype: where they differ, both are promoted.
void promote(Argument& a, Argument& b);

// A new array of a's shape and dtype, laid out like it.
Argument empty_like(const Argument& a);
// A new array of a's shape without the dimensions that are set in `removed` (kept with length 1 if `keepdims`).
Argument empty_without(const Argument& a, const bool* removed, bool keepdims, DType dtype);
// A float32 or float64 scalar, as NumPy's own reductions return them.
py::object scalar(double value, DType dtype);
// An array without dimensions becomes a scalar, as NumPy's reductions return it.
py::object unwrap(const Argument& a);

// The `out` argument: an array that may be written to, without elements that share memory.
Argument output(py::handle object);
// ValueError where `out` overlaps an input, except element for element where that is allowed.
void check_overlap(const Argument& out, const Argument& input, const char* name, bool may_be_same = true);

Axes parse_axes(py::handle axis, int ndim);
int parse_axis(py::handle axis, int ndim);
Reduction parse_reduction(py::handle reduction);
bool parse_bool(py::handle object, const char* name);
double parse_number(py::handle object, const char* name);
std::int64_t parse_int64(py::handle object, const char* name);

// Raises the Python exception for a status that is not ok.
void raise_for(const Status& status);

// Lets other Python threads run during calls that take longer than a switch.
class ReleaseGil {
 public:
  explicit ReleaseGil(py::ssize_t elements) {
    if (elements >= 4096) release_.emplace();
  }

 private:
  std::optional<py::gil_scoped_release> release_;
};

void bind_arrays(py::module_& m);
void bind_losses(py::module_& m);
void bind_runtime(py::module_& m);
void bind_scoring(py::module_& m);

}  // namespace crossent_python
