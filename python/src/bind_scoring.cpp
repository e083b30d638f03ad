// Bindings of the scores: view, release the GIL, call.
#include "arrays.hpp"
#include "crossent/scoring.hpp"

namespace crossent_python {
namespace {

DType score_dtype(const Argument& logits) { return logits.dtype == DType::float64 ? DType::float64 : DType::float32; }

// A new array of scores with the shape of `like`.
Argument empty_scores(const Argument& logits, const Argument& like) {
  const bool removed[crossent::kMaxDims] = {};
  return empty_without(like, removed, false, score_dtype(logits));
}

py::object token_log_probs(py::handle logits_object, py::handle index_object, py::handle axis, py::handle out_object) {
  const Argument logits = floating(logits_object, "logits"), index = target(index_object, "index");
  const int class_axis = parse_axis(axis, static_cast<int>(logits.array.ndim()));
  Argument out = out_object.is_none() ? empty_scores(logits, index) : output(out_object);
  if (!out_object.is_none()) {
    check_overlap(out, logits, "logits");
    check_overlap(out, index, "index");
  }
  Status status;
  {
    const ReleaseGil release(logits.array.size());
    status = crossent::token_log_probs(logits.view(), index.view(), class_axis, out.mutable_view());
  }
  raise_for(status);
  return out_object.is_none() ? unwrap(out) : py::object(std::move(out.array));
}

}  // namespace

void bind_scoring(py::module_& m) { m.def("token_log_probs", token_log_probs); }

}  // namespace crossent_python
