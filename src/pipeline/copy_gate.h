#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "memory/page_locker.h"
#include "penstock/mutex.h"
#include "pipeline/slot_hand.h"

namespace penstock {

/// What page-locked slots pass on their way back, where the caller copies batches to a device: a copy that was begun
/// without waiting for its end may still read a slot when the last view of it dies. Each is held, as one in the
/// caller's hand, until the devices have done all that they had been given by then.
///
/// Waiting is done by a thread of the loader while an epoch runs, else by whoever let go of the slot.
///
/// Ownership: by shared_ptr; slots in the caller's hand keep it.
/// Threads:   Run() on one thread; the waits of the consumer on its own; everything else on any.
class CopyGate {
 public:
  using Deadline = std::optional<std::chrono::steady_clock::time_point>;

  explicit CopyGate(std::shared_ptr<PageLocker> locker);
  CopyGate(const CopyGate&) = delete;
  CopyGate& operator=(const CopyGate&) = delete;

  /// `home` as a slot's home, behind `gate` where there is one.
  static std::shared_ptr<SlotHome> Before(const std::shared_ptr<CopyGate>& gate, std::shared_ptr<SlotHome> home);

  /// From here on slots wait for Run().
  void Start() PENSTOCK_EXCLUDES(mu_);
  /// The thread's life: lets slots through until Stop(), and then those that are there.
  void Run() PENSTOCK_EXCLUDES(mu_);
  /// Makes Run() return. Idempotent.
  void Stop() PENSTOCK_EXCLUDES(mu_);

  /// For a consumer that is about to ask for a slot: waits until no more than `most_waiting` are held here, so that it
  /// is no further ahead of its device. False at the deadline.
  bool WaitUntilAtMost(int most_waiting, Deadline deadline) PENSTOCK_EXCLUDES(mu_);
  /// Slots that came through so far.
  int64_t num_passed() const PENSTOCK_EXCLUDES(mu_);
  bool is_empty() const PENSTOCK_EXCLUDES(mu_);

 private:
  class Home;
  struct Waiting {
    std::shared_ptr<SlotHome> home;
    SlotStorage storage;
  };
  void Return(std::shared_ptr<SlotHome> home, SlotStorage storage) PENSTOCK_EXCLUDES(mu_);

  const std::shared_ptr<PageLocker> locker_;
  const int fork_generation_;

  mutable Mutex mu_;
  CondVar arrived_;  // Run() sleeps here...
  CondVar passed_;   // ... and the consumer here.
  bool is_running_ PENSTOCK_GUARDED_BY(mu_) = false;
  bool is_stopping_ PENSTOCK_GUARDED_BY(mu_) = false;
  std::vector<Waiting> waiting_ PENSTOCK_GUARDED_BY(mu_);
  int num_held_ PENSTOCK_GUARDED_BY(mu_) = 0;  // Of these, and in Run()'s hands.
  int64_t num_passed_ PENSTOCK_GUARDED_BY(mu_) = 0;
};

}  // namespace penstock
