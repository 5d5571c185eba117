#include "errors.h"

#include <arrow/python/common.h>
#include <arrow/util/io_util.h>
#include <nanobind/nanobind.h>

#include <string>

namespace penstock::python {

namespace nb = nanobind;

namespace {

// Some of Arrow's messages are not UTF-8.
nb::object ToText(const std::string& message) {
  return nb::steal(PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace"));
}

PyObject* ExceptionType(const arrow::Status& status) {
  switch (status.code()) {
    case arrow::StatusCode::Invalid:
    case arrow::StatusCode::CapacityError:
    case arrow::StatusCode::SerializationError:
      return PyExc_ValueError;
    case arrow::StatusCode::TypeError:
      return PyExc_TypeError;
    case arrow::StatusCode::IOError:
      return PyExc_OSError;
    case arrow::StatusCode::KeyError:
      return PyExc_KeyError;
    case arrow::StatusCode::IndexError:
      return PyExc_IndexError;
    case arrow::StatusCode::OutOfMemory:
      return PyExc_MemoryError;
    case arrow::StatusCode::NotImplemented:
      return PyExc_NotImplementedError;
    default:
      return PyExc_RuntimeError;
  }
}

// Raises what Python code raised, and says in a note (Python 3.11 on) what Penstock was doing.
[[noreturn]] void RaiseOriginal(const arrow::Status& status) {
  arrow::py::RestorePyError(status);
  nb::python_error error;
  if (nb::hasattr(error.value(), "add_note")) error.value().attr("add_note")(ToText(status.message()));
  error.restore();
  throw nb::python_error();
}

}  // namespace

void Raise(const arrow::Status& status) {
  if (arrow::py::IsPyError(status)) RaiseOriginal(status);
  nb::object text = ToText(status.message());
  const int error_number = status.IsIOError() ? arrow::internal::ErrnoFromStatus(status) : 0;
  if (error_number != 0) {
    // OSError(errno, text) makes itself a FileNotFoundError, PermissionError, ...
    nb::object error = nb::handle(PyExc_OSError)(error_number, text);
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  } else {
    PyErr_SetObject(ExceptionType(status), text.ptr());
  }
  throw nb::python_error();
}

void RaiseMemoryError(const arrow::Status& status) {
  PyErr_SetObject(PyExc_MemoryError, ToText(status.message()).ptr());
  throw nb::python_error();
}

}  // namespace penstock::python
