#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <string_view>

#include "penstock/batch.h"

namespace penstock::python {

/// Turns batches into what the user asked for: a dict of tensors or arrays, a pyarrow.RecordBatch or a
/// pandas.DataFrame. Nothing is copied but by pandas: each object that comes out holds the slot until it dies.
///
/// Threads: one call at a time, under the GIL. What comes out may die on any thread.
class BatchExporter {
 public:
  virtual ~BatchExporter() = default;
  /// The batch as a Python object. Throws nb::python_error.
  virtual nanobind::object Export(const Batch& batch) = 0;
  /// How many batches are best made one right after the other. After a training step the code that makes tensors is in
  /// no cache, so the first one costs as much as many that follow it at once.
  virtual int most_together() const { return 1; }
};

/// \param format  "torch", "numpy", "arrow" or "pandas"; the package of that name must be installed (ImportError
/// otherwise).
std::unique_ptr<BatchExporter> MakeExporter(std::string_view format, const Schema& schema);

std::unique_ptr<BatchExporter> MakeTorchExporter(const Schema& schema);
std::unique_ptr<BatchExporter> MakeNumpyExporter(const Schema& schema);
std::unique_ptr<BatchExporter> MakeArrowExporter();
std::unique_ptr<BatchExporter> MakePandasExporter();

/// A key in a batch; interned, so that dict look-ups compare pointers.
nanobind::object ColumnKey(const std::string& name);

}  // namespace penstock::python
