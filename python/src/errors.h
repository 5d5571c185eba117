#pragma once

#include <arrow/result.h>
#include <arrow/status.h>

#include <utility>

namespace penstock::python {

/// Throws `status` as the Python exception that it stands for: the one place where a Status becomes an exception.
/// An exception that came from Python code on the way (a file system's) is raised as it was, with the message as a
/// note. Needs the GIL.
[[noreturn]] void Raise(const arrow::Status& status);

/// As Raise(), but always as a MemoryError.
[[noreturn]] void RaiseMemoryError(const arrow::Status& status);

/// Raise() where `status` is an error. Needs the GIL then.
inline void Check(const arrow::Status& status) {
  if (!status.ok()) Raise(status);
}

/// The value, or Raise().
template <typename T>
T Unwrap(arrow::Result<T> result) {
  Check(result.status());
  return std::move(result).ValueUnsafe();
}

}  // namespace penstock::python
