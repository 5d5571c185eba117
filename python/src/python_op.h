#pragma once

#include <arrow/python/common.h>
#include <nanobind/nanobind.h>

#include <string>

#include "penstock/custom_op.h"

namespace penstock::python {

/// An op written in Python.
///
/// Ownership: keeps its function.
/// Threads:   takes the GIL in Apply() and where it dies; nobody who waits for a worker may hold it.
class PythonOp final : public CustomOp {
 public:
  /// \param run  takes an ArrowExport of the rows and returns a contiguous buffer of the output. Needs the GIL.
  PythonOp(nanobind::object run, std::string name, Output output)
      : run_(run.release().ptr()), name_(std::move(name)), output_(std::move(output)) {}

  std::string name() const override { return name_; }
  arrow::Result<Output> OutputFor(const arrow::Field&) const override { return output_; }
  arrow::Status Apply(const arrow::Array& rows, const RowKey& key, uint8_t* out) const override;

  /// For the garbage collector, with the GIL: the function, and letting it go (no worker is left then).
  PyObject* run() const { return run_.obj(); }
  void Clear() const { run_.reset(); }

 private:
  mutable arrow::py::OwnedRefNoGIL run_;
  const std::string name_;
  const Output output_;
};

}  // namespace penstock::python
