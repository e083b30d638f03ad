// Views of NumPy arrays; the slow path of array-likes is crossent._intake.
#include "arrays.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <vector>

namespace crossent_python {
namespace {

// NumPy's type numbers, which never change.
enum { kBool, kInt8, kUint8, kInt16, kUint16, kInt32, kUint32, kLong, kUlong, kLongLong, kUlongLong, kFloat32, kFloat64 };
constexpr int kFloat16 = 23, kFirstUserType = 256;

// bfloat16 has the number that NumPy gave ml_dtypes when it was imported.
std::atomic<int> bfloat16_number{-1};

bool is_bfloat16(const py::dtype& dtype) {
  const int number = dtype.num();
  if (number < kFirstUserType) return false;
  if (number == bfloat16_number.load(std::memory_order_relaxed)) return true;
  if (dtype.itemsize() != 2 || py::str(dtype.attr("type").attr("__name__")).cast<std::string>() != "bfloat16") return false;
  bfloat16_number.store(number);
  return true;
}

std::optional<DType> floating_dtype(const py::dtype& dtype) {
  switch (dtype.num()) {
    case kFloat32:
      return DType::float32;
    case kFloat64:
      return DType::float64;
    case kFloat16:
      return DType::float16;
    default:
      return is_bfloat16(dtype) ? std::optional<DType>(DType::bfloat16) : std::nullopt;
  }
}

std::optional<DType> integer_dtype(const py::dtype& dtype) {
  constexpr bool long_is_64 = sizeof(long) == 8;
  switch (dtype.num()) {
    case kInt8:
      return DType::int8;
    case kUint8:
      return DType::uint8;
    case kInt16:
      return DType::int16;
    case kUint16:
      return DType::uint16;
    case kInt32:
      return DType::int32;
    case kUint32:
      return DType::uint32;
    case kLong:
      return long_is_64 ? DType::int64 : DType::int32;
    case kUlong:
      return long_is_64 ? DType::uint64 : DType::uint32;
    case kLongLong:
      return DType::int64;
    case kUlongLong:
      return DType::uint64;
    default:
      return std::nullopt;
  }
}

std::optional<DType> target_dtype(const py::dtype& dtype) {
  const std::optional<DType> integer = integer_dtype(dtype);
  return integer ? integer : floating_dtype(dtype);
}

bool is_native(const py::dtype& dtype) { return dtype.byteorder() == '=' || dtype.byteorder() == '|'; }

// An ndarray itself: subclasses and everything else take the slow path.
bool is_plain_array(py::handle object) {
  return reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) ==
         reinterpret_cast<PyObject*>(py::detail::npy_api::get().PyArray_Type_);
}

py::object intake(const char* function) { return py::module_::import("crossent._intake").attr(function); }

[[noreturn]] void raise_value_error(const std::string& message) { throw py::value_error(message); }

}  // namespace

ConstArray Argument::view() const {
  return {array.data(), dtype, static_cast<int>(array.ndim()), array.shape(), array.strides()};
}

Array Argument::mutable_view() const {
  return {const_cast<void*>(array.data()), dtype, static_cast<int>(array.ndim()), array.shape(), array.strides(), untouched};
}

Argument floating(py::handle object, const char* name) {
  if (is_plain_array(object)) {
    py::array array = py::reinterpret_borrow<py::array>(object);
    const py::dtype dtype = array.dtype();
    const std::optional<DType> known = floating_dtype(dtype);
    if (known && is_native(dtype)) return {std::move(array), *known};
  }
  py::array array = intake("as_floating")(object, name);
  const DType known = *floating_dtype(array.dtype());
  return {std::move(array), known};
}

Argument target(py::handle object, bool may_be_probabilities, const char* name) {
  if (is_plain_array(object)) {
    py::array array = py::reinterpret_borrow<py::array>(object);
    const py::dtype dtype = array.dtype();
    const std::optional<DType> known = target_dtype(dtype);
    if (known && is_native(dtype)) return {std::move(array), *known};
  }
  py::array array = intake("as_target")(object, name, may_be_probabilities);
  const DType known = *target_dtype(array.dtype());
  return {std::move(array), known};
}

void promote(Argument& a, Argument& b) {
  if (a.dtype == b.dtype) return;
  const bool wide = a.dtype == DType::float64 || b.dtype == DType::float64;
  for (Argument* argument : {&a, &b}) {
    argument->array = argument->array.attr("astype")(wide ? "float64" : "float32");
    argument->dtype = wide ? DType::float64 : DType::float32;
  }
}

Argument empty_like(const Argument& a) {
  const py::ssize_t ndim = a.array.ndim();
  std::vector<py::ssize_t> shape(a.array.shape(), a.array.shape() + ndim), strides(static_cast<std::size_t>(ndim));
  std::vector<py::ssize_t> order(static_cast<std::size_t>(ndim));
  for (py::ssize_t d = 0; d < ndim; ++d) order[static_cast<std::size_t>(d)] = d;
  std::stable_sort(order.begin(), order.end(),
                   [&](py::ssize_t p, py::ssize_t q) { return std::abs(a.array.strides(p)) > std::abs(a.array.strides(q)); });
  py::ssize_t stride = a.array.itemsize();
  for (auto d = order.rbegin(); d != order.rend(); ++d) {
    strides[static_cast<std::size_t>(*d)] = stride;
    stride *= std::max<py::ssize_t>(shape[static_cast<std::size_t>(*d)], 1);
  }
  return {py::array(a.array.dtype(), std::move(shape), std::move(strides)), a.dtype, true};
}

Argument empty_without(const Argument& a, const bool* removed, bool keepdims, DType dtype) {
  std::vector<py::ssize_t> shape;
  for (py::ssize_t d = 0; d < a.array.ndim(); ++d) {
    if (!removed[d]) {
      shape.push_back(a.array.shape(d));
    } else if (keepdims) {
      shape.push_back(1);
    }
  }
  const py::dtype type = dtype == DType::float64 ? py::dtype::of<double>() : py::dtype::of<float>();
  return {py::array(type, std::move(shape)), dtype};
}

py::object scalar(double value, DType dtype) {
  static py::object* types = [] {
    const py::module_ numpy = py::module_::import("numpy");
    return new py::object[2]{numpy.attr("float32"), numpy.attr("float64")};
  }();
  return types[dtype == DType::float64](value);
}

py::object unwrap(const Argument& a) { return a.array.ndim() == 0 ? a.array[py::tuple()] : py::object(a.array); }

namespace {

// Whether elements share memory. Every view that slicing, transposing and reshaping can make of an ordinary array steps over
// all that its smaller strides reach, and only that is tested: whether other strides, as as_strided takes them, happen to fall
// into gaps is a hard problem, so those are taken to overlap.
bool may_overlap_itself(const py::array& array) {
  std::vector<std::pair<py::ssize_t, py::ssize_t>> axes;  // stride and length
  for (py::ssize_t d = 0; d < array.ndim(); ++d) {
    if (array.shape(d) == 0) return false;
    if (array.shape(d) > 1) axes.emplace_back(std::abs(array.strides(d)), array.shape(d));
  }
  std::sort(axes.begin(), axes.end());
  py::ssize_t extent = array.itemsize();
  for (const auto& [stride, length] : axes) {
    if (stride < extent) return true;
    extent += (length - 1) * stride;
  }
  return false;
}

}  // namespace

Argument output(py::handle object) {
  if (!py::isinstance<py::array>(object)) {
    throw py::type_error("out must be a NumPy array, not " +
                         py::str(py::type::handle_of(object).attr("__name__")).cast<std::string>());
  }
  py::array array = py::reinterpret_borrow<py::array>(object);
  const py::dtype dtype = array.dtype();
  const std::optional<DType> known = floating_dtype(dtype);
  if (!known || !is_native(dtype)) {
    raise_value_error("out has dtype " + py::str(dtype).cast<std::string>() +
                      ", but must be float32, float64, float16 or bfloat16 in native byte order, as the result is");
  }
  if (!array.writeable()) raise_value_error("out is not writeable");
  if (may_overlap_itself(array)) {
    const int ndim = static_cast<int>(array.ndim());
    raise_value_error("out overlaps itself, or may do so: elements " + std::to_string(array.itemsize()) +
                      " bytes large, in shape " + crossent::shape_text(ndim, array.shape()) + " with the strides " +
                      crossent::shape_text(ndim, array.strides()));
  }
  return {std::move(array), *known};
}

namespace {

struct Bounds {
  const char *begin, *end;
};
Bounds bounds(const py::array& a) {
  const char* low = static_cast<const char*>(a.data());
  const char* high = low + a.itemsize();
  for (py::ssize_t d = 0; d < a.ndim(); ++d) {
    if (a.shape(d) == 0) return {low, low};
    (a.strides(d) < 0 ? low : high) += (a.shape(d) - 1) * a.strides(d);
  }
  return {low, high};
}

bool element_for_element(const py::array& a, const py::array& b) {
  if (a.data() != b.data() || a.ndim() != b.ndim() || a.itemsize() != b.itemsize()) return false;
  for (py::ssize_t d = 0; d < a.ndim(); ++d) {
    if (a.shape(d) != b.shape(d) || (a.shape(d) > 1 && a.strides(d) != b.strides(d))) return false;
  }
  return true;
}

}  // namespace

void check_overlap(const Argument& out, const Argument& input, const char* name, bool may_be_same) {
  const Bounds a = bounds(out.array), b = bounds(input.array);
  if (a.begin >= b.end || b.begin >= a.end) return;
  if (may_be_same && element_for_element(out.array, input.array)) return;
  // Interleaved views: NumPy solves it exactly; where that takes it too long, they are taken to overlap.
  bool shared = true;
  try {
    shared = py::module_::import("numpy").attr("shares_memory")(out.array, input.array, 1000000).cast<bool>();
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_RuntimeError)) throw;
  }
  if (shared) raise_value_error(std::string("out overlaps ") + name + (may_be_same ? " other than element for element" : ""));
}

int parse_axis(py::handle axis, int ndim) {
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(axis.ptr()));
  if (!index) throw py::error_already_set();
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  const bool scalar_axis = ndim == 0 && (value == 0 || value == -1) && !overflow;
  if (overflow || (!scalar_axis && (value < -ndim || value >= ndim))) {
    py::object type = py::module_::import("numpy").attr("exceptions").attr("AxisError");
    PyErr_SetObject(type.ptr(), type(index, ndim).ptr());
    throw py::error_already_set();
  }
  return static_cast<int>(value);
}

Axes parse_axes(py::handle axis, int ndim) {
  if (axis.is_none()) return Axes::every();
  if (!PyTuple_Check(axis.ptr())) return Axes(parse_axis(axis, ndim));
  Axes axes{};
  for (py::handle item : py::reinterpret_borrow<py::tuple>(axis)) {
    const int value = parse_axis(item, ndim);
    if (axes.count == crossent::kMaxDims) raise_value_error("axis names more axes than an array may have");
    axes.axis[axes.count++] = value;
  }
  return axes;
}

Reduction parse_reduction(py::handle reduction) {
  if (py::isinstance<py::str>(reduction)) {
    const std::string name = reduction.cast<std::string>();
    if (name == "mean") return Reduction::mean;
    if (name == "none") return Reduction::none;
    if (name == "sum") return Reduction::sum;
  }
  raise_value_error("reduction must be 'none', 'mean' or 'sum', not " + py::repr(reduction).cast<std::string>());
}

bool parse_bool(py::handle object, const char* name) {
  const PyNumberMethods* number = Py_TYPE(object.ptr())->tp_as_number;
  // What says itself whether it is true, as NumPy's booleans and numbers do; of all else it would mean "not empty".
  if (!number || !number->nb_bool) {
    throw py::type_error(std::string(name) + " must be True or False, not " + py::repr(object).cast<std::string>());
  }
  const int value = PyObject_IsTrue(object.ptr());
  if (value < 0) throw py::error_already_set();
  return value;
}

double parse_number(py::handle object, const char* name) {
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1 && PyErr_Occurred()) {
    PyErr_Clear();
    throw py::type_error(std::string(name) + " must be a number, not " + py::repr(object).cast<std::string>());
  }
  return value;
}

std::int64_t parse_int64(py::handle object, const char* name) {
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
  if (!index) throw py::error_already_set();
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow) raise_value_error(std::string(name) + " does not fit a 64-bit integer");
  return value;
}

void raise_for(const Status& status) {
  switch (status.code) {
    case crossent::Code::ok:
      return;
    case crossent::Code::bad_type:
      throw py::type_error(status.message);
    case crossent::Code::bad_index:
      throw py::index_error(status.message);
    case crossent::Code::out_of_memory:
      py::set_error(PyExc_MemoryError, status.message.c_str());
      throw py::error_already_set();
    default:
      throw py::value_error(status.message);
  }
}

}  // namespace crossent_python
