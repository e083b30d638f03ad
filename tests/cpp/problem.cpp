// Building, calling and checking of one problem.
#include "problem.hpp"

#include <cfloat>
#include <cmath>
#include <cstring>

namespace crossent_test {
namespace {

// A (rows, classes) array in guarded memory, or one of a number a row or a class (one column).
class GuardedArray {
 public:
  GuardedArray(DType dtype, std::ptrdiff_t item, Size size, Layout layout, Place place)
      : dtype_(dtype), item_(item), shape_{size.rows, size.classes}, strides_{item, item}, memory_(arrange(layout), place) {}

  template <class Number>
  void fill(Number number) {
    for (std::ptrdiff_t r = 0; r < shape_[0]; ++r) {
      for (std::ptrdiff_t c = 0; c < shape_[1]; ++c) number(r, c, at(r, c));
    }
  }
  void protect() { memory_.protect(); }

  // The elements, in row-major order.
  void set(const std::vector<unsigned char>& bytes) {
    each_piece([&](unsigned char* p, std::size_t size, std::size_t done) { std::memcpy(p, bytes.data() + done, size); });
  }
  // The elements in row-major order; afterwards filler stands in their place.
  std::vector<unsigned char> take() {
    std::vector<unsigned char> bytes(static_cast<std::size_t>(shape_[0] * shape_[1] * item_));
    each_piece([&](unsigned char* p, std::size_t size, std::size_t done) {
      std::memcpy(bytes.data() + done, p, size);
      std::memset(p, Guarded::kFiller, size);
    });
    return bytes;
  }
  bool all_filler() const { return memory_.all_filler(); }

  Array matrix() { return {memory_.data(), dtype_, 2, shape_, strides_}; }
  ConstArray const_matrix() const { return {memory_.data(), dtype_, 2, shape_, strides_}; }
  // A column as a one-dimensional array.
  Array vector() { return {memory_.data(), dtype_, 1, shape_, strides_}; }
  ConstArray const_vector() const { return {memory_.data(), dtype_, 1, shape_, strides_}; }

 private:
  // Sets the strides and returns the bytes from the first element to the end of the last.
  std::size_t arrange(Layout layout) {
    if (layout == Layout::columns) {
      strides_[1] = item_ * shape_[0];
    } else {
      strides_[0] = item_ * (shape_[1] + (layout == Layout::padded_rows ? 3 : 0));
    }
    return static_cast<std::size_t>((shape_[0] - 1) * strides_[0] + (shape_[1] - 1) * strides_[1] + item_);
  }
  // Calls f(memory, bytes, bytes before) for contiguous pieces in row-major order.
  template <class F>
  void each_piece(F f) {
    const std::ptrdiff_t together = strides_[1] == item_ ? shape_[1] : 1, size = together * item_;
    std::ptrdiff_t done = 0;
    for (std::ptrdiff_t r = 0; r < shape_[0]; ++r) {
      for (std::ptrdiff_t c = 0; c < shape_[1]; c += together, done += size) {
        f(at(r, c), static_cast<std::size_t>(size), static_cast<std::size_t>(done));
      }
    }
  }
  unsigned char* at(std::ptrdiff_t r, std::ptrdiff_t c) const { return memory_.data() + r * strides_[0] + c * strides_[1]; }

  DType dtype_;
  std::ptrdiff_t item_;
  std::ptrdiff_t shape_[2], strides_[2];
  Guarded memory_;
};

using Holder = std::unique_ptr<GuardedArray>;

Holder floating(DType dtype, Size size, Layout layout, Place place) {
  return Holder(new GuardedArray(dtype, format(dtype).size, size, layout, place));
}

// Read-only.
Holder holding(const Numbers& numbers, Size size, Layout layout, Place place) {
  Holder array = floating(numbers.dtype, size, layout, place);
  array->set(numbers.bytes);
  array->protect();
  return array;
}

// number(r, c) for all elements.
template <class Number>
Numbers all_numbers(DType dtype, Size size, Number number) {
  Numbers all{dtype, {}, {}};
  const std::size_t item = static_cast<std::size_t>(format(dtype).size);
  all.bytes.resize(static_cast<std::size_t>(size.rows * size.classes) * item);
  for (std::ptrdiff_t r = 0; r < size.rows; ++r) {
    for (std::ptrdiff_t c = 0; c < size.classes; ++c) {
      unsigned char* p = all.bytes.data() + all.values.size() * item;
      all.values.push_back(number(r, c));
      encode(dtype, all.values.back(), p);
    }
  }
  return all;
}

Numbers numbers_of(Values kind, DType dtype, Size size) {
  return all_numbers(dtype, size,
                     [&](std::ptrdiff_t r, std::ptrdiff_t c) { return input_value(kind, dtype, r, c, size.classes); });
}

Expected expected(DType dtype, Limits limits, long double value, long double scale) {
  if (std::isinf(value)) return {value, 0};
  const long double size = std::fmax(std::fabs(value), scale);
  if (is_narrow(dtype)) {
    // Computed in float32 and rounded once.
    const long double before = scale > 0 ? static_cast<long double>(limits.float32) * spacing(DType::float32, scale) : 0;
    return {value, 0.505L * spacing(dtype, value) + before};
  }
  // Where long double is no wider than double, the formulas err, too.
  const double slack = LDBL_MANT_DIG > DBL_MANT_DIG ? 0 : 3;
  const double ulps = dtype == DType::float64 ? limits.float64 + slack : limits.float32;
  return {value, static_cast<long double>(ulps) * spacing(dtype, size)};
}

std::string describe_difference(const Expected& exact, long double actual, DType dtype) {
  char text[200];
  std::snprintf(text, sizeof text, "%.20Lg instead of %.20Lg: off by %.3Lf ULP, %.3Lf allowed", actual, exact.value,
                std::fabs(actual - exact.value) / spacing(dtype, exact.value), exact.allowed / spacing(dtype, exact.value));
  return text;
}

std::string first_error(const std::vector<unsigned char>& bytes, const std::vector<Expected>& expected, DType dtype,
                        std::ptrdiff_t columns) {
  const std::size_t item = static_cast<std::size_t>(format(dtype).size);
  if (bytes.size() != expected.size() * item) return "a wrong number of results";
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const long double actual = decode(dtype, bytes.data() + i * item);
    if (actual == expected[i].value || std::fabs(actual - expected[i].value) <= expected[i].allowed) continue;
    const std::ptrdiff_t position = static_cast<std::ptrdiff_t>(i);
    return "row " + std::to_string(position / columns) + ", class " + std::to_string(position % columns) + ": " +
           describe_difference(expected[i], actual, dtype);
  }
  return "";
}

}  // namespace

std::string Elements::name() const {
  const std::string from = format(in).name;
  return in == out ? from : from + "->" + format(out).name;
}

const std::vector<Elements>& all_elements() {
  static const std::vector<Elements> list = {{DType::float32, DType::float32}, {DType::float64, DType::float64},
                                             {DType::float16, DType::float16}, {DType::bfloat16, DType::bfloat16},
                                             {DType::float16, DType::float32}, {DType::bfloat16, DType::float32}};
  return list;
}

bool computes(const Function& function, const Elements& elements) {
  if (function.takes.out_in_score_dtype) return elements.out == loss_dtype(elements.in);
  return function.takes.gives_out || elements.in == elements.out;
}

const char* layout_name(Layout layout) {
  const char* names[] = {"rows", "padded rows", "columns"};
  return names[static_cast<int>(layout)];
}

Inputs::Inputs(DType dtype, Size size) : dtype_(dtype), size_(size) {
  for (Values kind : {Values::logits, Values::log_probs, Values::probabilities, Values::gradients}) {
    values_[static_cast<int>(kind)] = numbers_of(kind, dtype, size);
  }
  const DType wide = loss_dtype(dtype);
  wide_probabilities_ = numbers_of(Values::probabilities, wide, size);
  upstream_ = numbers_of(Values::gradients, wide, {size.rows, 1});
  weight_ = all_numbers(wide, {size.classes, 1}, [](std::ptrdiff_t c, std::ptrdiff_t) { return input_weight(c); });
  for (std::ptrdiff_t r = 0; r < size.rows; ++r) target_.push_back(input_target(r, size.classes));
}

Results call(const Function& function, const Elements& elements, const Inputs& inputs, Layout layout, Place place,
             std::string& error) {
  const Takes& takes = function.takes;
  const Size size = inputs.size(), column{size.rows, 1};
  const DType wide = loss_dtype(elements.in);
  Operands o;
  o.smoothing = takes.smoothing;
  const Holder x = holding(inputs.x(takes), size, layout, place);
  o.x = x->const_matrix();
  Holder second, target, upstream, weight, out, per_row;
  if (takes.second) {
    second = holding(inputs.second(takes), size, layout, place);
    o.second = second->const_matrix();
  }
  if (takes.target) {
    target.reset(new GuardedArray(DType::int64, 8, column, Layout::rows, place));
    target->fill([&](std::ptrdiff_t r, std::ptrdiff_t, unsigned char* p) {
      std::memcpy(p, &inputs.target()[static_cast<std::size_t>(r)], sizeof(std::int64_t));
    });
    target->protect();
    o.target = target->const_vector();
  }
  if (takes.upstream) {
    upstream = holding(inputs.upstream(), column, Layout::rows, place);
    o.upstream = upstream->const_vector();
  }
  if (takes.weight) {
    weight = holding(inputs.weight(), {size.classes, 1}, Layout::rows, place);
    o.weight = weight->const_vector();
  }
  if (takes.gives_out) {
    out = floating(elements.out, size, layout, place);
    o.out = out->matrix();
  }
  if (takes.gives_value) {
    per_row = floating(wide, column, Layout::rows, place);
    o.per_row = per_row->vector();
  }
  const Status status = function.call(o);
  if (!status) error = status.message;
  Results results;
  if (out) results.out = out->take();
  if (per_row) results.per_row = per_row->take();
  if ((out && !out->all_filler()) || (per_row && !per_row->all_filler())) error = "wrote beside the elements of its output";
  return results;
}

ExactRows::ExactRows(const Inputs& inputs)
    : inputs_(inputs), weight_(inputs.weight().values.begin(), inputs.weight().values.end()) {
  const std::ptrdiff_t classes = inputs.size().classes;
  for (std::ptrdiff_t r = 0; r < inputs.size().rows; ++r) {
    const double* x = inputs.logits().values.data() + r * classes;
    std::ptrdiff_t peak = 0;
    for (std::ptrdiff_t c = 0; c < classes; ++c) peak = x[c] > x[peak] ? c : peak;
    const long double max = static_cast<long double>(x[peak]);
    std::vector<long double> terms;
    long double rest = 0;  // the sum of exp(x - max) without the maximum's 1
    for (std::ptrdiff_t c = 0; c < classes; ++c) {
      terms.push_back(std::exp(static_cast<long double>(x[c]) - max));
      rest += c == peak ? 0 : terms.back();
    }
    max_.push_back(max);
    log_sum_.push_back(std::log1p(rest));
    for (std::ptrdiff_t c = 0; c < classes; ++c) {
      p_.push_back(terms[static_cast<std::size_t>(c)] / (1 + rest));
      log_p_.push_back((static_cast<long double>(x[c]) - max) - log_sum_.back());
    }
  }
}

Row ExactRows::row(const Takes& takes, std::ptrdiff_t r, const std::vector<long double>& x,
                   const std::vector<long double>& second) const {
  const std::size_t i = static_cast<std::size_t>(r);
  Row row;
  row.classes = inputs_.size().classes;
  row.x = x.data();
  if (takes.second) row.second = second.data();
  row.target = inputs_.target()[i];
  if (takes.weight) row.weight = weight_.data();
  row.smoothing = static_cast<long double>(takes.smoothing);
  if (takes.upstream) row.upstream = static_cast<long double>(inputs_.upstream().values[i]);
  row.p = p_.data() + r * row.classes;
  row.log_p = log_p_.data() + r * row.classes;
  row.max = max_[i];
  row.log_sum = log_sum_[i];
  return row;
}

Answers answers(const Function& function, const Elements& elements, const ExactRows& rows) {
  const Takes& takes = function.takes;
  const Inputs& inputs = rows.inputs();
  const std::ptrdiff_t classes = inputs.size().classes;
  Answers all;
  for (std::ptrdiff_t r = 0; r < inputs.size().rows; ++r) {
    const auto widened = [&](const std::vector<double>& values) {
      return std::vector<long double>(values.begin() + r * classes, values.begin() + (r + 1) * classes);
    };
    const std::vector<long double> x = widened(inputs.x(takes).values), second = widened(inputs.second(takes).values);
    const Row row = rows.row(takes, r, x, second);
    Answer answer;
    function.reference(row, answer);
    for (std::size_t c = 0; takes.gives_out && c < answer.out.size(); ++c) {
      const bool at_target = takes.target && static_cast<std::int64_t>(c) == row.target;
      all.out.push_back(expected(elements.out, at_target ? function.target_limits : function.out_limits, answer.out[c],
                                 answer.out_scale.empty() ? 0 : answer.out_scale[c]));
    }
    if (takes.gives_value) {
      all.per_row.push_back(expected(loss_dtype(elements.in), function.value_limits, answer.value, answer.value_scale));
    }
  }
  return all;
}

std::string first_error(const Results& results, const Answers& answers, const Elements& elements, Size size) {
  const std::string error = first_error(results.out, answers.out, elements.out, size.classes);
  return error.empty() ? first_error(results.per_row, answers.per_row, loss_dtype(elements.in), 1) : error;
}

}  // namespace crossent_test
