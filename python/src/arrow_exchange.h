#pragma once

#include <arrow/type_fwd.h>
#include <nanobind/nanobind.h>

#include <memory>
#include <vector>

namespace penstock::python {

/// Arrow data crosses between C++ and Python through the Arrow C data interface (PyCapsules): nothing is copied, and
/// what is exported is released exactly once, by whoever holds it last. All functions need the GIL.

/// From an object with __arrow_c_array__ (a pyarrow.Array).
std::shared_ptr<arrow::Array> ImportArray(nanobind::handle array);

/// Objects with __arrow_c_array__ or __arrow_c_schema__, for pyarrow.array(), pyarrow.record_batch() and
/// pyarrow.schema().
nanobind::object ExportArray(std::shared_ptr<arrow::Array> array);
nanobind::object ExportRecordBatch(std::shared_ptr<arrow::RecordBatch> batch);
nanobind::object ExportSchema(std::shared_ptr<arrow::Schema> schema);

}  // namespace penstock::python
