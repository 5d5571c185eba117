// The caller's side of a shuffled run.
#include <algorithm>

#include "pipeline/mixer.h"

namespace penstock {

// After a failure: the whole batches of the slot that was being filled are given before it is told of.
bool Mixer::GiveRestLocked() {
  if (slots_.empty()) return false;
  Slot& slot = *slots_.front();
  slot.taken_rows = slot.done_rows -= slot.done_rows % plan_.layout->batch_rows();
  slot.is_closed = slot.done_rows > 0;
  return slot.is_closed;
}

// Nothing more can be mixed.
bool Mixer::IsAtEndLocked() const {
  const bool is_order_missing = std::any_of(
      windows_.begin(), windows_.end(), [](const auto& window) { return window->is_full && !window->is_mixable(); });
  return running_ == 0 && ((!is_order_missing && JobRowsLocked() == 0) || mixed_rows_ == rows_);
}

// Of the batches whose last rows are among these, `rows` of the window's from its next one on.
void Mixer::NotePlacesLocked(Slot* slot, int64_t slot_row, const Filling& from, int64_t rows) {
  if (slot->places.empty()) slot->places.push_back(last_place_);
  const int64_t batch_rows = plan_.layout->batch_rows();
  for (int64_t n = batch_rows - slot_row % batch_rows; n <= rows; n += batch_rows) {
    last_place_ = from.taken_rows + n == from.wanted_rows ? from.end : from.begin;
    slot->places.push_back(last_place_);
  }
}

bool Mixer::HandOverLocked() {
  if (!IsSlotReadyLocked()) return false;
  Slot& slot = *slots_.front();
  plan_.ledger->Move(Account::kSlots, Account::kUser, slot.storage.bytes);
  hand_.base = slot.storage.memory.data();
  if (plan_.layout->num_domains() > 0) hand_.fill = std::make_shared<ArenaFill>(std::move(slot.fill));
  hand_.lost.assign(slot.lost.begin(), slot.lost.end());
  hand_.num_rows = slot.done_rows;
  const int64_t batch_rows = plan_.layout->batch_rows();
  const int64_t full_rows = slot.done_rows - (slot.ends_padded ? 1 : 0);
  hand_.num_batches = plan_.drop_last ? full_rows / batch_rows : (slot.done_rows + batch_rows - 1) / batch_rows;
  hand_.first_row = given_rows_;
  hand_.source_places = std::move(slot.places);
  if (plan_.begin && static_cast<int64_t>(hand_.source_places.size()) <= hand_.num_batches) {
    hand_.source_places.push_back(source_place_);  // Behind the short batch at the very end.
  }
  hand_.lease = std::make_shared<SlotLease>(CopyGate::Before(gate_, shared_from_this()), std::move(slot.storage));
  given_rows_ += slot.done_rows;
  slots_.pop_front();
  ++user_slots_;
  return true;
}

arrow::Result<bool> Mixer::TakeSlot(Deadline deadline, bool* timed_out) {
  hand_ = {};  // A slot without a full batch dies outside the mutex.
  MutexLock lock(mu_);
  kept_slots_ = std::max(0, user_slots_ - 1);
  is_slot_refused_ = false;
  if (!IsSlotReadyLocked()) mix_.NotifyOne();
  while (true) {
    if (is_stopping_) return arrow::Status::Cancelled("the loader was closed");
    if (HandOverLocked()) {
      mix_.NotifyOne();
      return true;
    }
    if (given_rows_ == rows_) return false;
    if (!failure_.ok() && IsAtEndLocked()) {
      if (GiveRestLocked()) continue;
      return failure_;
    }
    if (is_slot_refused_ && running_ == 0) return KeptBatches();
    if (!plan_.is_threaded) {
      if (!MixLocked() && !is_slot_refused_ && failure_.ok() && !FillLocked(deadline)) return KeptBatches();
      if (deadline && std::chrono::steady_clock::now() >= *deadline && !IsSlotReadyLocked()) {
        *timed_out = true;
        return false;
      }
      continue;
    }
    is_consumer_waiting_ = true;
    bool in_time = true;
    if (deadline) {
      in_time = ready_.WaitFor(mu_, std::max(std::chrono::nanoseconds(0),
                                             std::chrono::nanoseconds(*deadline - std::chrono::steady_clock::now())));
    } else {
      ready_.Wait(mu_);
    }
    is_consumer_waiting_ = false;
    if (!in_time && !IsSlotReadyLocked()) {
      *timed_out = true;
      return false;
    }
  }
}

void Mixer::ReturnSlot(SlotStorage storage) {
  if (!ComesBack(&storage, plan_.sizing.slot_bytes, Account::kUser)) return;
  const int64_t bytes = storage.bytes;
  bool is_over = false;
  {
    MutexLock lock(mu_);
    is_over = is_cleared_;
    --user_slots_;
    kept_slots_ = std::min(kept_slots_, user_slots_);
    const int there = static_cast<int>(slots_.size() + spare_.size()) + (is_opening_slot_ ? 1 : 0) + user_slots_;
    is_slot_refused_ = false;
    if (!is_cleared_ && there < plan_.sizing.all_slots() && plan_.ledger->FreeBytes(Account::kSlots) >= 0) {
      plan_.ledger->Move(Account::kUser, Account::kSlots, bytes);
      spare_.push_back(std::move(storage));
      mix_.NotifyOne();
      return;
    }
  }
  KeepOrFree(std::move(storage), is_over ? plan_.pinned.get() : nullptr, plan_.ledger, Account::kUser);
  MutexLock lock(mu_);
  mix_.NotifyOne();
}

}  // namespace penstock
