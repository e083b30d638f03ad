// Bindings of instruction sets, threads and build information.
#include <pybind11/stl.h>

#include "arrays.hpp"

namespace crossent_python {
namespace {

// OpenMP ends the process where the system cannot start as many.
constexpr long kMostThreads = 4096;

}  // namespace

void bind_runtime(py::module_& m) {
  m.def("simd_target", crossent::simd_target);
  m.def("simd_targets", crossent::simd_targets);
  m.def("select_simd", [](const std::string& name) { raise_for(crossent::select_simd(name)); });
  m.def("kernel_runs", crossent::kernel_runs);
  m.def("fetches_far", crossent::fetches_far);
  m.def("set_fetches_far", crossent::set_fetches_far);
  m.def("get_num_threads", crossent::get_num_threads);
  m.def("set_num_threads", [](py::handle n) {
    const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(n.ptr()));
    if (!index) throw py::error_already_set();
    int overflow = 0;
    const long count = PyLong_AsLongAndOverflow(index.ptr(), &overflow);
    if (overflow || count < 1 || count > kMostThreads) {
      throw py::value_error("the number of threads must be between 1 and " + std::to_string(kMostThreads) + ", not " +
                            py::str(index).cast<std::string>());
    }
    raise_for(crossent::set_num_threads(static_cast<int>(count)));
  });
  m.def("build_info", [] {
    return std::map<std::string, std::string>{{"compiler", CROSSENT_COMPILER},
                                              {"build_type", CROSSENT_BUILD_TYPE},
                                              {"openmp", crossent::has_openmp() ? "yes" : "no"}};
  });
}

}  // namespace crossent_python
