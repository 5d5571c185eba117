#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>
#include <nanobind/nanobind.h>

#include <memory>
#include <vector>

namespace penstock::python {

/// Arrow data crosses between C++ and Python through the Arrow C data interface (PyCapsules): nothing is copied, and
/// what is exported is released exactly once, by whoever holds it last. All functions need the GIL.

/// From an object with __arrow_c_array__ (a pyarrow.Array).
std::shared_ptr<arrow::Array> ImportArray(nanobind::handle array);

/// From an object with __arrow_c_array__ of a struct type (a pyarrow.RecordBatch).
arrow::Result<std::shared_ptr<arrow::RecordBatch>> ImportRecordBatch(nanobind::handle batch);

/// From an object with __arrow_c_stream__. The reader is to be asked without the GIL, which it takes where it needs it.
arrow::Result<std::shared_ptr<arrow::RecordBatchReader>> ImportStream(nanobind::handle stream);

/// Objects with __arrow_c_array__ or __arrow_c_schema__, for pyarrow.array(), pyarrow.record_batch() and
/// pyarrow.schema().
nanobind::object ExportArray(std::shared_ptr<arrow::Array> array);
nanobind::object ExportRecordBatch(std::shared_ptr<arrow::RecordBatch> batch);
nanobind::object ExportSchema(std::shared_ptr<arrow::Schema> schema);

}  // namespace penstock::python
