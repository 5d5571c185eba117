#include "pipeline/slot_hand.h"

#include <algorithm>

#include "memory/scratch_pool.h"

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

int64_t TrimArenas(const SlotLayout& layout, SlotStorage* storage) {
  storage->memory.Discard(layout.bytes());
  std::fill(storage->touched.begin(), storage->touched.end(), 0);
  const int64_t before_bytes = std::exchange(storage->bytes, layout.bytes());
  return before_bytes - storage->bytes;
}

SlotLease::~SlotLease() { home_->ReturnSlot(std::move(storage_)); }

arrow::Result<std::optional<Batch>> SlotHand::Next(const SlotLayout& layout, const std::shared_ptr<Ledger>& ledger,
                                                   const std::shared_ptr<std::atomic<int64_t>>& held_batches) {
  if (next_batch == num_batches) return std::nullopt;
  const int64_t batch = next_batch++;
  int64_t rows = std::min(layout.batch_rows(), num_rows - batch * layout.batch_rows());
  lost_rows = 0;
  if (!lost.empty() && !keeps_lost) {
    ScratchPool scratch(ledger);
    ARROW_ASSIGN_OR_RAISE(const int64_t kept, Compact(layout, lost, batch, rows, base, fill.get(), &scratch));
    lost_rows = rows - kept;
    rows = kept;
  }
  std::shared_ptr<SlotLease> held = lease;
  if (next_batch == num_batches) lease.reset();  // From here on the batches alone hold the slot.
  auto hold = std::make_shared<BatchHold>(std::move(held), held_batches);
  return layout.View(base, fill.get(), batch, rows, std::move(hold));
}

}  // namespace penstock
