#pragma once

#include <nanobind/nanobind.h>

namespace penstock::python {

/// Lets the GIL go for a scope. Needs the GIL at both ends.
///
/// While the interpreter ends, Python kills whatever thread asks for the GIL by unwinding its stack, which C++ answers
/// with std::terminate(). So from EndOfPython() on, a thread other than the main one that comes back here is put to
/// sleep instead.
class GilRelease {
 public:
  GilRelease() : state_(PyEval_SaveThread()) {}
  ~GilRelease();
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_;
};

/// Whether this is Python's main thread, the only one that handles signals. Needs no GIL once it has been called with
/// it.
bool IsMainThread();

/// Says that the interpreter is about to end, and lets those threads have the GIL that were asking for it already.
/// Needs the GIL.
void EndOfPython();

}  // namespace penstock::python
