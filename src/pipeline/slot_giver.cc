#include "pipeline/slot_giver.h"

#include <string>
#include <utility>

#include "penstock/options.h"
#include "pipeline/fork_generation.h"

namespace penstock {

SlotGiver::SlotGiver(std::shared_ptr<const SlotLayout> layout, std::shared_ptr<Ledger> ledger,
                     std::shared_ptr<StatsCollector> stats, std::shared_ptr<std::atomic<int64_t>> held_batches,
                     std::shared_ptr<CopyGate> gate)
    : gate_(std::move(gate)),
      fork_generation_(ForkGeneration()),
      layout_(std::move(layout)),
      ledger_(std::move(ledger)),
      stats_(std::move(stats)),
      held_batches_(std::move(held_batches)) {}

arrow::Result<std::optional<Batch>> SlotGiver::Next(Deadline deadline, bool* timed_out) {
  while (true) {
    auto batch = NextInHand();
    is_over_ = is_over_ || !batch.ok();
    if (!batch.ok() || *batch) return batch;
    if (is_over_) return std::nullopt;
    auto taken = gate_ == nullptr ? TakeSlot(deadline, timed_out) : TakeSlotThroughGate(deadline, timed_out);
    if (!taken.ok()) {
      // Whoever held too many batches may let go of them and ask again; every other error is the end.
      if (!taken.status().IsCapacityError()) is_over_ = true;
      return taken.status();
    }
    if (*taken) continue;
    if (!*timed_out) is_over_ = true;
    return std::nullopt;
  }
}

std::optional<Batch> SlotGiver::NextAtHand() {
  // Closing up lost rows is work, and may fail.
  if (is_over_ || !hand_.lost.empty()) return std::nullopt;
  return NextInHand().ValueOr(std::nullopt);
}

// Slots that the gate holds look as if the caller kept them: it is not to be told of that before they have come back.
arrow::Result<bool> SlotGiver::TakeSlotThroughGate(Deadline deadline, bool* timed_out) {
  int most_waiting = 1;
  while (gate_->WaitUntilAtMost(most_waiting, deadline)) {
    const int64_t num_passed = gate_->num_passed();
    auto taken = TakeSlot(deadline, timed_out);
    if (!taken.status().IsCapacityError()) return taken;
    if (gate_->is_empty() && gate_->num_passed() == num_passed) return taken;
    most_waiting = 0;
  }
  *timed_out = true;
  return false;
}

arrow::Result<std::optional<Batch>> SlotGiver::NextInHand() {
  const int64_t batch = hand_.next_batch;
  ARROW_ASSIGN_OR_RAISE(auto next, hand_.Next(*layout_, ledger_, held_batches_));
  if (!next) return next;
  stats_->AddSkipped(hand_.lost_rows);
  const int64_t slot_rows_per_row = layout_->packing().slot_rows_per_row();
  const int64_t first_row = (hand_.first_row + batch * layout_->batch_rows()) / slot_rows_per_row;
  origin_.rows = origin_.source_rows = {first_row, first_row + next->num_rows() + hand_.lost_rows};
  origin_.ends_padded = batch + 1 == hand_.num_batches && hand_.num_rows % slot_rows_per_row != 0;
  origin_.is_empty = next->num_rows() == 0;
  if (!hand_.source_places.empty()) {
    const SourcePlace* end = &hand_.source_places[static_cast<size_t>(batch)];
    origin_.source_rows = {end[0].row, end[1].row};
    origin_.source_items = end[1].items;
  }
  return next;
}

bool SlotGiver::ComesBack(SlotStorage* storage, int64_t usual_bytes, Account account) const {
  if (ForkGeneration() != fork_generation_) {
    // In a forked child the mutex may be held for ever: the memory is the child's own copy, let it go with the process.
    new SlotStorage(std::move(*storage));
    return false;
  }
  // Arenas that grew for an outlier are not for ever.
  if (storage->bytes > 2 * usual_bytes) ledger_->Sub(account, TrimArenas(*layout_, storage));
  return true;
}

arrow::Status SlotGiver::KeptBatches() const {
  const int64_t held = held_batches_->load(std::memory_order_relaxed);
  const MemoryReport memory = ledger_->Report();
  const int64_t python_bytes = memory[Account::kPython].current_bytes;
  return arrow::Status::CapacityError(
      "no memory is left for the next batch: ", held, held == 1 ? " batch is" : " batches are", " still held (",
      FormatBytes(memory[Account::kUser].current_bytes), " of a budget of ", FormatBytes(ledger_->budget_bytes()),
      python_bytes > 0 ? ", and " + FormatBytes(python_bytes) + " by what collate_fn returned" : "",
      "). Let go of batches (or views of them) before asking for the next, copy what must be kept, or raise "
      "memory_budget.");
}

}  // namespace penstock
