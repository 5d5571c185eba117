#include "pipeline/pinned_slots.h"

#include <utility>

#include "penstock/options.h"

namespace penstock {

PinnedSlots::PinnedSlots(std::shared_ptr<PageLocker> locker, bool is_required, arrow::Status refusal,
                         std::shared_ptr<Ledger> ledger, std::shared_ptr<StatsCollector> stats)
    : locker_(std::move(locker)), is_required_(is_required), ledger_(std::move(ledger)), stats_(std::move(stats)) {
  if (!refusal.ok()) (void)Refused(refusal);
}

PinnedSlots::~PinnedSlots() { Close(); }

arrow::Status PinnedSlots::Open(int most_kept) {
  {
    MutexLock lock(mu_);
    most_kept_ = static_cast<size_t>(most_kept);
  }
  if (is_refused_) return arrow::Status::OK();
  const arrow::Status status = locker_->Open();
  return status.ok() ? status : Refused(status);
}

arrow::Result<SlotMemory> PinnedSlots::Map(const SlotLayout& layout) {
  ARROW_ASSIGN_OR_RAISE(SlotMemory memory, SlotMemory::Map(layout.bytes(), layout.arena_address_bytes()));
  if (is_refused_) return memory;
  const int64_t began_ns = NowNs();
  const arrow::Status status = memory.Lock(locker_, layout.bytes());
  if (!status.ok()) {
    ARROW_RETURN_NOT_OK(Refused(status.WithMessage(
        "a slot of ", FormatBytes(layout.bytes()), " cannot be page-locked (", status.message(),
        "): lower batch_size or prefetch_batches, allow this process to lock more memory, or leave pin_memory out")));
    return memory;
  }
  stats_->AddSlotLocked(NowNs() - began_ns);
  return memory;
}

bool PinnedSlots::Keep(SlotStorage* storage, Account from) {
  MutexLock lock(mu_);
  const bool is_wanted = !is_closed_ && storage->memory.is_locked() && kept_.size() < most_kept_;
  if (!is_wanted || ledger_->FreeBytes(Account::kSlots) < 0) return false;
  if (from != Account::kSlots) ledger_->Move(from, Account::kSlots, storage->bytes);
  kept_.push_back(std::move(*storage));
  return true;
}

std::optional<SlotStorage> PinnedSlots::Take() {
  MutexLock lock(mu_);
  if (kept_.empty()) return std::nullopt;
  SlotStorage storage = std::move(kept_.back());
  kept_.pop_back();
  return storage;
}

void PinnedSlots::Close() {
  std::vector<SlotStorage> kept;
  {
    MutexLock lock(mu_);
    is_closed_ = true;
    kept.swap(kept_);
  }
  for (SlotStorage& storage : kept) ReturnedSlot(std::move(storage), ledger_, Account::kSlots);
}

arrow::Status PinnedSlots::Refused(const arrow::Status& status) {
  if (is_required_) return status;
  stats_->AddLockRefused(status.message());
  is_refused_ = true;
  return arrow::Status::OK();
}

bool TakeKept(PinnedSlots* pinned, std::vector<SlotStorage>* spare) {
  if (pinned == nullptr) return false;
  auto kept = pinned->Take();
  if (kept) spare->push_back(std::move(*kept));
  return kept.has_value();
}

void KeepOrFree(SlotStorage storage, PinnedSlots* pinned, const std::shared_ptr<Ledger>& ledger, Account from) {
  if (pinned != nullptr && pinned->Keep(&storage, from)) return;
  ReturnedSlot(std::move(storage), ledger, from);
}

arrow::Result<SlotMemory> MapSlot(const SlotLayout& layout, PinnedSlots* pinned) {
  return pinned != nullptr ? pinned->Map(layout) : SlotMemory::Map(layout.bytes(), layout.arena_address_bytes());
}

}  // namespace penstock
