#include "pipeline/slot_hand.h"

#include <algorithm>

namespace penstock {
namespace {

/// One batch in the caller's hand.
struct BatchHold {
  BatchHold(std::shared_ptr<SlotLease> from, std::shared_ptr<std::atomic<int64_t>> counter)
      : lease(std::move(from)), held_batches(std::move(counter)) {
    held_batches->fetch_add(1, std::memory_order_relaxed);
  }
  ~BatchHold() { held_batches->fetch_sub(1, std::memory_order_relaxed); }
  BatchHold(const BatchHold&) = delete;
  BatchHold& operator=(const BatchHold&) = delete;

  std::shared_ptr<SlotLease> lease;
  std::shared_ptr<std::atomic<int64_t>> held_batches;
};

}  // namespace

SlotLease::~SlotLease() { home_->ReturnSlot(std::move(storage_)); }

std::optional<Batch> SlotHand::Next(const SlotLayout& layout,
                                    const std::shared_ptr<std::atomic<int64_t>>& held_batches) {
  if (next_batch == num_batches) return std::nullopt;
  const int64_t batch = next_batch++;
  const int64_t rows = std::min(layout.batch_rows(), num_rows - batch * layout.batch_rows());
  std::shared_ptr<SlotLease> held = lease;
  if (next_batch == num_batches) lease.reset();  // From here on the batches alone hold the slot.
  auto hold = std::make_shared<BatchHold>(std::move(held), held_batches);
  return layout.View(base, fill.get(), batch, rows, std::move(hold));
}

}  // namespace penstock
