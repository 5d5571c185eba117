#include "gil.h"

#include <atomic>
#include <chrono>
#include <thread>

namespace penstock::python {

namespace nb = nanobind;

namespace {

std::atomic<bool> is_python_ending{false};

}  // namespace

GilRelease::~GilRelease() {
  while (is_python_ending && !IsMainThread()) std::this_thread::sleep_for(std::chrono::hours(1));
  PyEval_RestoreThread(state_);
}

bool IsMainThread() {
  static const auto ident =
      nb::cast<unsigned long>(nb::module_::import_("threading").attr("main_thread")().attr("ident"));
  return PyThread_get_thread_ident() == ident;
}

void EndOfPython() { is_python_ending = true; }

}  // namespace penstock::python
