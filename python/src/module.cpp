// The module crossent._core.
#include "arrays.hpp"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  using namespace crossent_python;
  m.doc() = "The compiled part of crossent; use the functions of the package instead.";
  m.attr("__version__") = CROSSENT_VERSION;
  if (const Status status = crossent::simd_status(); !status) throw py::import_error(status.message);
  crossent::get_num_threads();  // reads the environment now, and sees forks from here on
  bind_arrays(m);
  bind_losses(m);
  bind_runtime(m);
  bind_scoring(m);
}
