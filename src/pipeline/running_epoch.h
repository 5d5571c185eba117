#pragma once

#include <arrow/status.h>

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "pipeline/copy_gate.h"
#include "pipeline/mixer.h"
#include "pipeline/scheduler.h"

namespace penstock {

/// An epoch under way: what fills its slots, what mixes their rows where it is shuffled, and the threads of both.
///
/// Ownership: of the loader, by shared_ptr, so that one thread can stop what another one asks for batches.
/// Threads:   Stop() and giver() from any; everything else from one at a time.
/// Blocking:  End() joins the threads.
class RunningEpoch {
 public:
  /// \param mix   what is to be mixed; not set: rows stay in the order of the plan.
  /// \param gate  see EpochPlan.
  RunningEpoch(EpochPlan plan, PlanCursor cursor, std::optional<MixPlan> mix, std::shared_ptr<CopyGate> gate);
  ~RunningEpoch();
  RunningEpoch(const RunningEpoch&) = delete;
  RunningEpoch& operator=(const RunningEpoch&) = delete;

  /// UnknownError where the system refuses a thread; those that were started end with this.
  arrow::Status Start();
  /// Whom batches are asked of.
  const std::shared_ptr<SlotGiver>& giver() const { return giver_; }
  /// Makes every thread, and who asks for a batch, return soon. Idempotent.
  void Stop();
  /// Stops, joins, and drops all that the caller does not hold. Nobody may be asking for a batch.
  void End();

 private:
  void StartThreads();

  const int num_workers_;
  const std::shared_ptr<CopyGate> gate_;
  const std::shared_ptr<Scheduler> scheduler_;
  const std::shared_ptr<Mixer> mixer_;  // Between the scheduler and the caller; null where nothing is mixed.
  const std::shared_ptr<SlotGiver> giver_;
  std::vector<std::thread> threads_;
};

}  // namespace penstock
