#include "gil.h"

#include <atomic>
#include <chrono>
#include <thread>

namespace penstock::python {

namespace nb = nanobind;

namespace {

std::atomic<bool> is_python_ending{false};
// Threads that are asking for the GIL; they have looked at the flag, or will find it set.
std::atomic<int> returning_threads{0};

}  // namespace

GilRelease::~GilRelease() {
  ++returning_threads;
  if (is_python_ending && !IsMainThread()) {
    --returning_threads;
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  PyEval_RestoreThread(state_);
  --returning_threads;
}

bool IsMainThread() {
  static const auto ident =
      nb::cast<unsigned long>(nb::module_::import_("threading").attr("main_thread")().attr("ident"));
  return PyThread_get_thread_ident() == ident;
}

void EndOfPython() {
  is_python_ending = true;
  PyThreadState* state = PyEval_SaveThread();
  while (returning_threads > 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
  PyEval_RestoreThread(state);
}

}  // namespace penstock::python
