#pragma once

#include <nanobind/nanobind.h>

#include "penstock/options.h"

namespace penstock::python {

namespace nb = nanobind;

// One function per area; module.cc calls them in this order.
void BindImage(nb::module_& m);
void BindOps(nb::module_& m);
void BindArrowExport(nb::module_& m);
void BindSlotView(nb::module_& m);
void BindReports(nb::module_& m);
void BindState(nb::module_& m);
void BindLoader(nb::module_& m);
void BindEpochIterator(nb::module_& m);

}  // namespace penstock::python
