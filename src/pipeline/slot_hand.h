#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "batch/slot_layout.h"
#include "memory/slot_memory.h"
#include "penstock/batch.h"
#include "penstock/ledger.h"
#include "pipeline/compact.h"
#include "plan/epoch_run.h"

namespace penstock {

/// A slot's memory with what the ledger has for it.
struct SlotStorage {
  SlotMemory memory;
  int64_t bytes = 0;             ///< Charged: the fixed part, and the arenas as far as they have been used.
  std::vector<int64_t> touched;  ///< Per domain, the most elements that were ever used: their pages are there.
};

/// Gives the memory of the arenas back to the system; returns the bytes, which are the ledger's then.
int64_t TrimArenas(const SlotLayout& layout, SlotStorage* storage);

/// A slot's memory on its way back to the system; what was charged for it goes with it.
class ReturnedSlot {
 public:
  ReturnedSlot(SlotStorage storage, std::shared_ptr<Ledger> ledger, Account account)
      : storage_(std::move(storage)), ledger_(std::move(ledger)), account_(account) {}
  ReturnedSlot(ReturnedSlot&&) = default;
  ~ReturnedSlot() {
    if (ledger_ == nullptr) return;  // It was moved from.
    storage_.memory = SlotMemory();
    ledger_->Sub(account_, storage_.bytes);
  }

 private:
  SlotStorage storage_;
  std::shared_ptr<Ledger> ledger_;
  Account account_;
};

/// Who fills slots, and gets them back.
class SlotHome {
 public:
  virtual ~SlotHome() = default;
  /// Called when the last view of a slot dies, on whatever thread.
  virtual void ReturnSlot(SlotStorage storage) = 0;
};

/// A slot in the caller's hand; gives its memory back when the last view of it dies.
class SlotLease {
 public:
  SlotLease(std::shared_ptr<SlotHome> home, SlotStorage storage)
      : home_(std::move(home)), storage_(std::move(storage)) {}
  ~SlotLease();
  SlotLease(const SlotLease&) = delete;
  SlotLease& operator=(const SlotLease&) = delete;

 private:
  std::shared_ptr<SlotHome> home_;
  SlotStorage storage_;
};

/// The slot that the consumer takes batches from. Of the consumer's thread alone.
struct SlotHand {
  std::shared_ptr<SlotLease> lease;
  uint8_t* base = nullptr;
  std::shared_ptr<ArenaFill> fill;  ///< Null where there are no arenas.
  LostRows lost;
  bool keeps_lost = false;  ///< Batches keep their lost rows, for who asks for `lost`.
  int64_t next_batch = 0;
  int64_t num_batches = 0;
  int64_t num_rows = 0;
  int64_t first_row = 0;  ///< Of the iteration.
  std::vector<SourcePlace>
      source_places;  ///< Discovered plans: in the run, where the first batch begins and each ends.

  int64_t lost_rows = 0;  ///< Left out of the batch given last.

  /// The next batch; nullopt where none is left. It has no rows where all of them were lost.
  /// \return OutOfMemory where lost rows cannot be taken out.
  arrow::Result<std::optional<Batch>> Next(const SlotLayout& layout, const std::shared_ptr<Ledger>& ledger,
                                           const std::shared_ptr<std::atomic<int64_t>>& held_batches);
};

}  // namespace penstock
