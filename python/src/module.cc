#include <arrow/compute/initialize.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include "bindings.h"
#include "errors.h"
#include "gil.h"
#include "penstock/options.h"

namespace penstock::python {

using namespace nb::literals;

namespace {

void BindSizes(nb::module_& m) {
  m.def(
      "parse_bytes", [](std::string_view text) { return Unwrap(ParseBytes(text)); }, "text"_a,
      "Bytes in a size such as '256MiB', '1.5 GB' or '4096'; ValueError where it is none.");
  m.def("format_bytes", &FormatBytes, "size_bytes"_a, "A size in bytes as people read it: 268435456 -> '256.0 MiB'.");
  m.def("version", [] { return std::string(PENSTOCK_VERSION); }, "The version of the library, '1.2.3'.");
  m.def("available_cores", &AvailableCores, "Cores that this process may use (affinity, cgroup quota), >= 1.");
  m.def("available_memory_bytes", &AvailableMemoryBytes, "Memory that this process may use (cgroup limit), in bytes.");
}

}  // namespace

}  // namespace penstock::python

NB_MODULE(_core, m) {
  // At the end of a process whose daemon threads hold loaders, objects are left: nobody wants to read about it then.
  nanobind::set_leak_warnings(false);
  namespace py = penstock::python;
  py::Check(arrow::compute::Initialize());
  m.doc() = "The native part of penstock. Not public: use the names in `penstock`.";
  m.def("end_of_python", &py::EndOfPython, "Say that the interpreter is about to end.");
  py::BindSizes(m);
  py::BindOps(m);
  py::BindImage(m);
  py::BindArrowExport(m);
  py::BindSlotView(m);
  py::BindReports(m);
  py::BindState(m);
  py::BindLoader(m);
  py::BindEpochIterator(m);
}
