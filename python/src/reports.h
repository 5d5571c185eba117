#pragma once

#include <nanobind/nanobind.h>

#include "penstock/ledger.h"
#include "penstock/loader.h"
#include "penstock/stats.h"

namespace penstock::python {

/// Reports as plain dicts, with the names that design.md and the C++ headers give. All need the GIL.
nanobind::dict ToDict(const MemoryReport& report);
nanobind::dict ToDict(const StatsReport& report);
nanobind::dict ToDict(const Explanation& report);
nanobind::dict ToDict(const FileSummary& summary);

}  // namespace penstock::python
