#include <nanobind/nanobind.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <utility>

#include "bindings.h"
#include "errors.h"
#include "gil.h"
#include "py_loader.h"

namespace penstock::python {

using namespace nb::literals;

namespace {

// How long the main thread waits before it looks after signals: they do not wake a condition variable.
constexpr std::chrono::milliseconds kSignalInterval{50};

/// One epoch of a loader, as iter(loader) gives it.
///
/// Ownership: keeps its loader alive. Its death ends the epoch where that is still open.
/// Threads:   under the GIL, which is let go while it waits.
class EpochIterator {
 public:
  EpochIterator(nb::object owner, PyLoader* loader)
      : owner_(std::move(owner)), loader_(loader), epoch_(loader->StartEpoch()) {}
  ~EpochIterator() { Finish(); }
  EpochIterator(const EpochIterator&) = delete;
  EpochIterator& operator=(const EpochIterator&) = delete;

  /// The next batch in the user's format; an invalid object at the end. Any exception ends the epoch.
  nb::object Next();
  /// For who hands batches on, from whatever thread: the next batch with its number of rows; None where only the
  /// consumer could free memory for it, unless it `is_last_try`. Throws StopIteration at the end.
  nb::object Take(bool is_last_try);
  /// Ends the epoch; throws where another thread is in Next(). Idempotent.
  void Close();
  /// Ends the epoch also where another thread is in Next(), which then raises.
  void Stop() { Finish(); }

 private:
  using Taken = arrow::Result<std::optional<Batch>>;

  void Finish();
  void CheckUsable() const;
  Taken TakeBatch() const;
  Taken TakeMindingSignals() const;
  std::optional<Batch> TakeOrCollectGarbage() const;
  [[noreturn]] void RaiseTaken(const arrow::Status& status) const;

  nb::object owner_;
  PyLoader* loader_;
  const int64_t epoch_;
  bool is_finished_ = false;
};

void EpochIterator::Finish() {
  if (std::exchange(is_finished_, true)) return;
  loader_->EndEpoch(epoch_);
}

void EpochIterator::Close() {
  PyLoader::Turn turn(loader_);
  Finish();
}

void EpochIterator::CheckUsable() const {
  if (loader_->epoch() != epoch_) {
    throw std::runtime_error("this iterator was closed when its loader started the next epoch");
  }
  if (!loader_->is_closing()) return;
  RaiseTaken(arrow::Status::Cancelled("the loader is closed"));
}

EpochIterator::Taken EpochIterator::TakeMindingSignals() const {
  while (true) {
    bool timed_out = false;
    Taken taken = [&] {
      GilRelease no_gil;
      return loader_->loader().NextFor(kSignalInterval, &timed_out);
    }();
    if (!timed_out) return taken;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

EpochIterator::Taken EpochIterator::TakeBatch() const {
  Loader& loader = loader_->loader();
  if (loader.options().num_workers > 0) {
    bool timed_out = false;  // A batch that is ready is taken without letting the GIL go.
    Taken taken = loader.NextFor(std::chrono::nanoseconds(0), &timed_out);
    if (!timed_out) return taken;
  }
  if (IsMainThread()) return TakeMindingSignals();
  GilRelease no_gil;
  return loader.Next();
}

void EpochIterator::RaiseTaken(const arrow::Status& status) const {
  if (status.IsCapacityError()) RaiseMemoryError(status);
  loader_->RaiseFromUse(status);
}

std::optional<Batch> EpochIterator::TakeOrCollectGarbage() const {
  Taken taken = TakeBatch();
  if (taken.ok()) return std::move(taken).ValueUnsafe();
  const arrow::Status status = taken.status();
  if (!status.IsCapacityError()) RaiseTaken(status);
  // Batches that only a reference cycle keeps alive need not be an error.
  nb::module_::import_("gc").attr("collect")();
  Taken again = TakeBatch();
  if (again.ok() && again->has_value()) return std::move(again).ValueUnsafe();
  RaiseTaken(again.ok() ? status : again.status());  // The end cannot be near: a batch was due.
}

nb::object EpochIterator::Next() {
  if (is_finished_) return {};
  CheckUsable();
  PyLoader::Turn turn(loader_);
  Loader& loader = loader_->loader();
  loader.ConsumerCalled();
  PyLoader::Made made = loader_->TakeMade();
  if (made.rows == 0) {
    try {
      const std::optional<Batch> batch = TakeOrCollectGarbage();
      if (batch) made = loader_->Make(*batch);
    } catch (...) {
      loader.ConsumerReturned(0);
      Finish();
      throw;
    }
  }
  loader.ConsumerReturned(made.rows);
  if (made.rows == 0) Finish();
  return std::move(made.batch);
}

nb::object EpochIterator::Take(bool is_last_try) {
  if (is_finished_) throw nb::stop_iteration();
  CheckUsable();
  PyLoader::Turn turn(loader_);
  try {
    std::optional<Batch> batch;
    if (is_last_try) {
      batch = TakeOrCollectGarbage();
    } else {
      Taken taken = TakeBatch();
      if (taken.status().IsCapacityError()) return nb::none();
      if (!taken.ok()) RaiseTaken(taken.status());
      batch = std::move(taken).ValueUnsafe();
    }
    if (batch) return nb::make_tuple(loader_->exporter().Export(*batch), batch->num_rows());
  } catch (...) {
    Finish();
    throw;
  }
  Finish();
  throw nb::stop_iteration();
}

PyObject* IterNext(PyObject* self) noexcept {
  try {
    return nb::inst_ptr<EpochIterator>(self)->Next().release().ptr();
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyObject* Self(PyObject* self) noexcept {
  Py_INCREF(self);
  return self;
}

PyType_Slot kIteratorSlots[] = {
    {Py_tp_iter, reinterpret_cast<void*>(&Self)}, {Py_tp_iternext, reinterpret_cast<void*>(&IterNext)}, {0, nullptr}};

}  // namespace

void BindEpochIterator(nb::module_& m) {
  IsMainThread();  // Remembers which one it is.
  nb::class_<EpochIterator>(m, "EpochIterator", nb::type_slots(kIteratorSlots),
                            nb::sig("class EpochIterator(collections.abc.Iterator[typing.Any])"),
                            "One epoch of a loader.")
      .def(
          "__init__",
          [](EpochIterator* self, nb::object loader) { new (self) EpochIterator(loader, nb::cast<PyLoader*>(loader)); },
          "loader"_a)
      .def("take", &EpochIterator::Take, "is_last_try"_a,
           nb::sig("def take(self, is_last_try: bool) -> tuple[typing.Any, int] | None"),
           "The next batch and its number of rows, on any thread; None where only the consumer could free memory.")
      .def("stop", &EpochIterator::Stop, "End the epoch, also where another thread is in take(). Idempotent.")
      .def("close", &EpochIterator::Close, "End the epoch now: workers are stopped and joined. Idempotent.");
}

}  // namespace penstock::python
