#pragma once

#include <arrow/result.h>

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "batch/slot_layout.h"
#include "memory/page_locker.h"
#include "penstock/ledger.h"
#include "penstock/mutex.h"
#include "pipeline/slot_hand.h"
#include "stats/collector.h"

namespace penstock {

/// The page-locked slots of a loader. To lock one takes milliseconds: those of an epoch that has ended are kept, in
/// kSlots, for the next. Of slots with arenas the fixed part is locked, since how much of an arena is used shows late.
///
/// Ownership: by shared_ptr, from the loader and its epochs. Threads: any. Blocking: Open() and Map() lock pages or
/// make a context; the mutex is not held meanwhile, nor while something is unlocked.
class PinnedSlots {
 public:
  /// \param is_required  whether a refusal is an error; else the slot is used as it is, and no other is locked.
  /// \param locker  null, where there is none and it is not required: `refusal` says why.
  PinnedSlots(std::shared_ptr<PageLocker> locker, bool is_required, arrow::Status refusal,
              std::shared_ptr<Ledger> ledger, std::shared_ptr<StatsCollector> stats);
  ~PinnedSlots();
  PinnedSlots(const PinnedSlots&) = delete;
  PinnedSlots& operator=(const PinnedSlots&) = delete;

  /// At the start of an epoch, on the consumer's thread: see PageLocker::Open().
  /// \param most_kept  slots.
  arrow::Status Open(int most_kept) PENSTOCK_EXCLUDES(mu_);
  /// Memory for a slot. The ledger has its bytes already.
  arrow::Result<SlotMemory> Map(const SlotLayout& layout) PENSTOCK_EXCLUDES(mu_);

  /// Keeps a slot of an epoch that has ended and moves its bytes to kSlots; false where it is not wanted.
  bool Keep(SlotStorage* storage, Account from) PENSTOCK_EXCLUDES(mu_);
  /// One of those that are kept.
  std::optional<SlotStorage> Take() PENSTOCK_EXCLUDES(mu_);
  /// Gives back what is kept, and keeps nothing from then on.
  void Close() PENSTOCK_EXCLUDES(mu_);

 private:
  /// \return the error, or OK where it is none, and noted.
  arrow::Status Refused(const arrow::Status& status);

  const std::shared_ptr<PageLocker> locker_;
  const bool is_required_;
  const std::shared_ptr<Ledger> ledger_;
  const std::shared_ptr<StatsCollector> stats_;

  std::atomic<bool> is_refused_{false};

  Mutex mu_;
  bool is_closed_ PENSTOCK_GUARDED_BY(mu_) = false;
  size_t most_kept_ PENSTOCK_GUARDED_BY(mu_) = 0;
  std::vector<SlotStorage> kept_ PENSTOCK_GUARDED_BY(mu_);
};

/// Moves one that is kept to `spare`; false where there is none, or no `pinned`.
bool TakeKept(PinnedSlots* pinned, std::vector<SlotStorage>* spare);
/// For a slot that nobody wants in its epoch, charged to `from`: `pinned` keeps it where it can, else the system gets
/// it.
/// \param pinned  null: it is not to be kept.
void KeepOrFree(SlotStorage storage, PinnedSlots* pinned, const std::shared_ptr<Ledger>& ledger, Account from);
/// Memory for a slot of `layout`, page-locked where there is `pinned`.
arrow::Result<SlotMemory> MapSlot(const SlotLayout& layout, PinnedSlots* pinned);

}  // namespace penstock
