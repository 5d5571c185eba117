#include "python_op.h"

#include <arrow/array/array_base.h>
#include <arrow/array/concatenate.h>
#include <arrow/device.h>

#include <cstring>
#include <memory>

#include "arrow_exchange.h"

namespace penstock::python {

namespace nb = nanobind;

namespace {

/// A Python object's memory, for reading. Needs the GIL.
class BufferView {
 public:
  explicit BufferView(nb::handle object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_C_CONTIGUOUS) != 0) throw nb::python_error();
  }
  ~BufferView() { PyBuffer_Release(&view_); }
  BufferView(const BufferView&) = delete;
  BufferView& operator=(const BufferView&) = delete;

  void CopyTo(uint8_t* out) const { std::memcpy(out, view_.buf, static_cast<size_t>(view_.len)); }

 private:
  Py_buffer view_;
};

// A copy: Python may keep the rows, and neither their block nor its memory pool would outlive the loader.
// Concatenate() makes the rows alone of what may be a slice of many, but shares dictionaries and the bytes of views.
arrow::Result<std::shared_ptr<arrow::Array>> Detach(const arrow::Array& rows) {
  ARROW_ASSIGN_OR_RAISE(const std::shared_ptr<arrow::Array> alone, arrow::Concatenate({rows.Slice(0)}));
  return alone->CopyTo(arrow::default_cpu_memory_manager());
}

}  // namespace

arrow::Status PythonOp::Apply(const arrow::Array& rows, const RowKey&, uint8_t* out) const {
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Array> copy, Detach(rows));
  arrow::py::PyAcquireGIL gil;
  try {
    const nb::object result = nb::handle(run_.obj())(ExportArray(std::move(copy)));
    BufferView(result).CopyTo(out);  // Its length is what the caller in Python checked.
    return arrow::Status::OK();
  } catch (nb::python_error& error) {
    error.restore();
    return arrow::py::ConvertPyError();
  } catch (const std::exception& error) {
    return arrow::Status::UnknownError(error.what());
  }
}

}  // namespace penstock::python
