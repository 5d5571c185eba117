// Slots: opening, growing, handing over, getting back.
#include <algorithm>

#include "pipeline/scheduler.h"

namespace penstock {
namespace {

constexpr int64_t kLeastGrowAfterNs = 1'000'000;

}  // namespace

int64_t Scheduler::SlotRowsLocked(int64_t slot) const {
  const int64_t rows = plan_.layout->rows();
  return total_rows_ < 0 ? rows : std::clamp<int64_t>(total_rows_ - slot * rows, 0, rows);
}

bool Scheduler::IsCompleteLocked(int64_t index, const Slot& slot) const {
  const int64_t rows = SlotRowsLocked(index);
  return rows > 0 && slot.filled_cells == rows * num_outputs_;
}

// Slots in the caller's hand count, but for those it keeps beyond the one in use: who keeps batches pays from the
// budget, not from the slots ahead. The slot that the caller waits for is always wanted.
bool Scheduler::WantsSlotLocked() const {
  if (is_stopping_ || slot_end_ + mapping_slots_ >= WantedSlotsLocked()) return false;
  if (total_rows_ >= 0 && (slot_end_ + mapping_slots_) * plan_.layout->rows() >= total_rows_) return false;
  const int open = static_cast<int>(open_.size()) + mapping_slots_;
  return open == 0 || open + user_slots_ < most_slots_ + kept_slots_;
}

// Whether one more is no luxury: the slots that were planned for are not all there, or none is left for the caller.
bool Scheduler::NeedsSlotLocked() const {
  const int open = static_cast<int>(open_.size()) + mapping_slots_;
  return open == 0 || open + user_slots_ < plan_.sizing.all_slots();
}

void Scheduler::InstallSlotLocked(SlotStorage storage) {
  open_.try_emplace(slot_end_++, *plan_.layout, std::move(storage));
}

// What the open slots are likely to take beside what they have: a further one must not take the room of their arenas.
// \param bytes_there  of memory that is there for it, and charged.
bool Scheduler::HasRoomForSlotLocked(int64_t bytes_there) const {
  if (plan_.layout->num_domains() == 0 || (open_.empty() && mapping_slots_ == 0)) return true;
  int64_t expected_bytes = std::max<int64_t>(0, plan_.sizing.slot_bytes - bytes_there) +
                           mapping_slots_ * (plan_.sizing.slot_bytes - plan_.layout->bytes());
  for (const auto& [index, slot] : open_) {
    expected_bytes += std::max<int64_t>(0, plan_.sizing.slot_bytes - slot.storage.bytes);
  }
  return expected_bytes <= plan_.ledger->FreeBytes(plan_.slot_account);
}

// Whether all slots of the epoch are complete. Then nobody needs the memory of those that come back before its end, and
// no caller has to wait while it is given to the system.
bool Scheduler::IsFilledLocked() const {
  if (total_rows_ < 0 || mapping_slots_ > 0 || slot_end_ * plan_.layout->rows() < total_rows_) return false;
  for (const auto& [index, slot] : open_) {
    if (!IsCompleteLocked(index, slot)) return false;
  }
  return true;
}

// Memory is mapped outside the mutex; what is reserved meanwhile counts as open.
void Scheduler::OpenSlots(bool is_worker) {
  const bool leaves_mapping = !is_worker && plan_.pinned != nullptr && plan_.num_workers > 0;
  std::vector<ReturnedSlot> dropped;
  MutexLock lock(mu_);
  if (plan_.ledger->FreeBytes(plan_.slot_account) < 0) dropped = DropSparesLocked();
  while (WantsSlotLocked()) {
    TakeKept(plan_.pinned.get(), &spare_);
    if (!HasRoomForSlotLocked(spare_.empty() ? 0 : spare_.back().bytes)) return;
    if (!spare_.empty()) {
      InstallSlotLocked(std::move(spare_.back()));
      spare_.pop_back();
      WakeOneLocked();
      continue;
    }
    if (is_growth_refused_ && !NeedsSlotLocked()) return;
    if (!plan_.ledger->TryAdd(plan_.slot_account, plan_.layout->bytes())) return;
    ++mapping_slots_;
    if (leaves_mapping) {
      ++unmapped_slots_;
      WakeOneLocked();
    } else if (!MapSlotLocked()) {
      return;
    }
  }
}

// Memory for a slot of mapping_slots_, which are paid for; false where it is refused. Releases the mutex meanwhile.
bool Scheduler::MapSlotLocked() {
  const int64_t bytes = plan_.layout->bytes();
  mu_.Unlock();
  auto memory = plan_.region != nullptr ? plan_.region->Take() : MapSlot(*plan_.layout, plan_.pinned.get());
  if (!memory.ok()) plan_.ledger->Sub(plan_.slot_account, bytes);
  mu_.Lock();
  --mapping_slots_;
  if (!memory.ok()) {
    SlotRefusedLocked(memory.status());
    return false;
  }
  InstallSlotLocked(
      {std::move(*memory), bytes, std::vector<int64_t>(static_cast<size_t>(plan_.layout->num_domains()))});
  WakeOneLocked();
  return true;
}

// An error where the slot is needed; else those that there are go on being used. Releases the mutex meanwhile.
void Scheduler::SlotRefusedLocked(const arrow::Status& status) {
  arrow::Status other;
  const bool is_needed = NeedsSlotLocked();
  if (is_needed) {
    other = FailLocked({slot_end_ * plan_.layout->rows(), 0}, status);
  } else {
    is_growth_refused_ = true;
    const int there = static_cast<int>(open_.size()) + mapping_slots_ + user_slots_ - kept_slots_;
    SetMostSlotsLocked(std::clamp(there, plan_.sizing.open_slots + 1, most_slots_));
  }
  ready_.NotifyOne();
  mu_.Unlock();
  other = arrow::Status::OK();
  if (!is_needed && plan_.pinned != nullptr) plan_.stats->AddLockRefused(status.message());
  mu_.Lock();
}

void Scheduler::SetMostSlotsLocked(int slots) {
  most_slots_ = slots;
  plan_.stats->SetSlots(most_slots_, most_slots_ - (plan_.sizing.open_slots + 1));
}

// A wait of twice the usual time between two slots is no matter of pace: something in the slot lasts.
int64_t Scheduler::GrowAfterNsLocked() const {
  return plan_.sizing.may_grow && slot_period_ns_ >= 0 ? std::max(kLeastGrowAfterNs, 2 * slot_period_ns_) : kNever;
}

// For workers that are idle while the caller waits: room to decode ahead where there is nothing to put into slots, as
// when the one column of a row group is one worker's; else one slot more. A quarter of the budget is left to decoding.
// \return whether a slot is to be opened.
bool Scheduler::GrowLocked() {
  if (idle_for_slot_ == 0 || is_stopping_ || is_last_try_ || slot_end_ + mapping_slots_ >= failed_slot_) return false;
  if (lanes_.empty() && IsDecodingLocked()) {
    blocks_ahead_ = std::min(2 * blocks_ahead_, kMostBlocksAhead);
    WakeOneLocked();
    return false;
  }
  // One at a time: a worker that is to map the one before is idle until it gets there.
  if (mapping_slots_ > 0 || is_growth_refused_) return false;
  if (total_rows_ >= 0 && slot_end_ * plan_.layout->rows() >= total_rows_) return false;
  if (plan_.ledger->FreeBytes(plan_.slot_account) - plan_.sizing.slot_bytes < plan_.ledger->budget_bytes() / 4)
    return false;
  SetMostSlotsLocked(most_slots_ + 1);
  return true;
}

// Whether memory that comes back and is not wanted now stays mapped: a fresh slot costs a page fault for each page. No
// more than may be there at once anyway.
bool Scheduler::KeepsSpareLocked() const {
  if (is_cleared_ || plan_.ledger->FreeBytes(plan_.slot_account) < 0) return false;
  if (plan_.keeps_slots || IsFilledLocked()) return true;
  const auto there = static_cast<int>(open_.size() + spare_.size()) + mapping_slots_ + user_slots_;
  return there < most_slots_ + plan_.sizing.collate_slots && !WantsSlotLocked() && !IsStarvedForArenasLocked();
}

// Where memory is short.
std::vector<ReturnedSlot> Scheduler::DropSparesLocked() {
  std::vector<ReturnedSlot> dropped;
  while (TakeKept(plan_.pinned.get(), &spare_)) {
  }
  for (SlotStorage& spare : spare_) dropped.emplace_back(std::move(spare), plan_.ledger, plan_.slot_account);
  spare_.clear();
  return dropped;
}

void Scheduler::ReturnSlot(SlotStorage storage) {
  if (!ComesBack(&storage, plan_.sizing.slot_bytes, plan_.hand_account)) return;
  const int64_t bytes = storage.bytes;
  bool is_over = false;
  {
    MutexLock lock(mu_);
    --user_slots_;
    kept_slots_ = std::min(kept_slots_, user_slots_);
    is_over = is_cleared_;
    // Beyond the budget (by what the user's code allocated) no slot stays, although it is there already.
    if (!is_cleared_ && WantsSlotLocked() && HasRoomForSlotLocked(bytes) &&
        plan_.ledger->FreeBytes(plan_.slot_account) >= 0) {
      plan_.ledger->Move(plan_.hand_account, plan_.slot_account, bytes);
      InstallSlotLocked(std::move(storage));
      is_stuck_ = false;
      WakeOneLocked();
      return;
    }
    if (KeepsSpareLocked()) {
      plan_.ledger->Move(plan_.hand_account, plan_.slot_account, bytes);
      spare_.push_back(std::move(storage));
      if (std::exchange(is_stuck_, false)) WakeOneLocked();  // Now there is something that can be dropped.
      return;
    }
  }
  KeepOrFree(std::move(storage), is_over ? plan_.pinned.get() : nullptr, plan_.ledger, plan_.hand_account);
  MutexLock lock(mu_);
  if (!is_stuck_) return;
  is_stuck_ = false;
  WakeOneLocked();
}

}  // namespace penstock
