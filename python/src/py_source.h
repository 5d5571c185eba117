#pragma once

#include <arrow/type_fwd.h>
#include <nanobind/nanobind.h>

#include <memory>

#include "penstock/options.h"

namespace penstock::python {

/// A table from an object with __arrow_c_stream__ or __arrow_c_array__; nothing is copied. Needs the GIL, and lets it
/// go while the stream is read.
std::shared_ptr<arrow::Table> ImportTable(nanobind::handle table);

/// Readers of what `open` (a function without arguments) returns: an object with __arrow_c_stream__, or an iterator of
/// objects with __arrow_c_array__ or __arrow_c_stream__. Readers take the GIL while they pull the next object and when
/// they die; an exception in it comes out of the loader as it was raised. Needs the GIL.
BatchReaderFactory MakeReaderFactory(nanobind::handle open);

}  // namespace penstock::python
