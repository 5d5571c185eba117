#pragma once

#include <arrow/result.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>

#include "pipeline/copy_gate.h"
#include "pipeline/slot_hand.h"
#include "plan/epoch_run.h"
#include "stats/collector.h"

namespace penstock {

/// Who fills slots and gives batches of them, one after the other: the consumer's side that all have in common.
///
/// Threads: Next(), NextAtHand(), origin() and lost_rows() from one thread at a time.
class SlotGiver : public SlotHome {
 public:
  using Deadline = std::optional<std::chrono::steady_clock::time_point>;

  /// See Loader::Next(). Sleeps; with no workers, does the work itself.
  arrow::Result<std::optional<Batch>> Next(Deadline deadline, bool* timed_out);
  /// See Loader::NextAtHand().
  std::optional<Batch> NextAtHand();
  /// Of the batch that was given last.
  const BatchOrigin& origin() const { return origin_; }
  /// Of the same batch, where batches keep their lost rows: by row of its slot.
  const LostRows& lost_rows() const { return hand_.lost; }

 protected:
  SlotGiver(std::shared_ptr<const SlotLayout> layout, std::shared_ptr<Ledger> ledger,
            std::shared_ptr<StatsCollector> stats, std::shared_ptr<std::atomic<int64_t>> held_batches,
            std::shared_ptr<CopyGate> gate);

  /// Hands the next slot over to hand_; false at the end of the run or, with *timed_out set, at the deadline.
  virtual arrow::Result<bool> TakeSlot(Deadline deadline, bool* timed_out) = 0;
  /// How ReturnSlot() begins: memory of arenas that grew for an outlier goes back to the system. False where there is
  /// nothing to do with the slot.
  /// \param usual_bytes  of a slot. \param account  that has the slot's bytes.
  bool ComesBack(SlotStorage* storage, int64_t usual_bytes, Account account) const;
  /// CapacityError: no slot can be had, since the caller holds the batches that have them.
  arrow::Status KeptBatches() const;

  SlotHand hand_;                         ///< Of the consumer's thread.
  const std::shared_ptr<CopyGate> gate_;  ///< For slots on their way back; null where nothing copies from them.

 private:
  arrow::Result<std::optional<Batch>> NextInHand();
  arrow::Result<bool> TakeSlotThroughGate(Deadline deadline, bool* timed_out);

  const int fork_generation_;
  const std::shared_ptr<const SlotLayout> layout_;
  const std::shared_ptr<Ledger> ledger_;
  const std::shared_ptr<StatsCollector> stats_;
  const std::shared_ptr<std::atomic<int64_t>> held_batches_;
  BatchOrigin origin_;
  bool is_over_ = false;
};

}  // namespace penstock
