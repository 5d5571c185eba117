#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "batch_exporter.h"
#include "penstock/loader.h"

namespace penstock::python {

/// A Loader as Python owns it: adds which epoch is the current one, who is in next(), and how batches are exported.
///
/// Threads:  every method under the GIL, which Close(), the epochs' start and end and the destructor let go while
/// threads
///           are joined (the workers may need it for a Python file system).
/// Lifetime: EpochIterators keep it alive.
class PyLoader {
 public:
  PyLoader(LoaderOptions options, std::string format);
  ~PyLoader();
  PyLoader(const PyLoader&) = delete;
  PyLoader& operator=(const PyLoader&) = delete;

  Loader& loader() { return *loader_; }
  const std::string& format() const { return format_; }
  BatchExporter& exporter();

  /// Ends the epoch that is open, starts the next and returns its number. Throws where another thread is in next().
  int64_t StartEpoch();
  /// Ends `epoch` where it is still the current one.
  void EndEpoch(int64_t epoch);
  int64_t epoch() const { return epoch_; }

  /// A batch as Python gets it. `rows` is 0 where there is none.
  struct Made {
    nb::object batch;
    int64_t rows = 0;
  };
  /// Makes `batch`, and the further ones of its slot that are best made with it, for TakeMade(). Nothing is held by
  /// them that the slot in hand does not hold; they go with the epoch.
  Made Make(const Batch& batch);
  /// The next one that was made with an earlier one.
  Made TakeMade();
  int64_t made_batches() const { return static_cast<int64_t>(made_.size()); }
  /// Batches that the user holds.
  int64_t held_batches() const { return loader_->held_batches() - made_batches(); }

  /// From here on next() raises instead of asking the loader: who holds the GIL must not wait for the threads that are
  /// joined here.
  void Close();
  bool is_closing() const { return is_closing_; }
  /// As Close(), at the end of the interpreter: a daemon thread in next() is let out of it, and ends in silence.
  void CloseAtExit();
  /// Raise(), or where that is the matter the silent end of a daemon thread.
  [[noreturn]] void RaiseFromUse(const arrow::Status& status) const;

  /// Loader::PinRefusal(), the first time that there is one.
  std::string TakePinRefusal();

  /// Marks the calling thread as the one that starts an epoch or takes a batch; throws RuntimeError where there is one.
  class Turn {
   public:
    explicit Turn(PyLoader* loader);
    ~Turn() { loader_->is_taken_ = false; }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    PyLoader* loader_;
  };

 private:
  std::unique_ptr<Loader> loader_;
  const std::string format_;
  std::unique_ptr<BatchExporter> exporter_;
  std::deque<Made> made_;  // Ahead of the consumer.
  const pid_t pid_ = getpid();
  int64_t epoch_ = 0;  // Of epochs started.
  bool is_taken_ = false;
  bool is_refusal_taken_ = false;
  bool is_closing_ = false;
  bool is_closed_at_exit_ = false;
};

}  // namespace penstock::python
