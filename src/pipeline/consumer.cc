// The caller's side of an epoch.
#include <algorithm>

#include "pipeline/scheduler.h"

namespace penstock {
namespace {

constexpr int64_t kLeastGrowStepNs = 100'000;

}  // namespace

// The slot that can be handed over now, or -1.
int64_t Scheduler::DeliverableLocked() const {
  if (plan_.in_order) {
    const auto front = open_.find(next_slot_);
    const bool is_there = next_slot_ < failed_slot_ && front != open_.end();
    return is_there && IsCompleteLocked(front->first, front->second) ? next_slot_ : -1;
  }
  for (const auto& [index, slot] : open_) {
    if (index >= failed_slot_) break;
    if (!IsCompleteLocked(index, slot)) continue;
    // The short batch comes last.
    const bool is_short = SlotRowsLocked(index) < plan_.layout->rows();
    if (!is_short || delivered_slots_ == index) return index;
  }
  return -1;
}

bool Scheduler::IsEndLocked() const {
  return total_rows_ >= 0 && delivered_slots_ * plan_.layout->rows() >= total_rows_;
}

void Scheduler::HandOverLocked(int64_t index) {
  const auto found = open_.find(index);
  Slot& slot = found->second;
  plan_.ledger->Move(plan_.slot_account, plan_.hand_account, slot.storage.bytes);
  hand_ = {};
  hand_.base = slot.storage.memory.data();
  if (plan_.layout->num_domains() > 0) hand_.fill = std::make_shared<ArenaFill>(std::move(slot.fill));
  hand_.lost = std::move(slot.lost);
  hand_.keeps_lost = plan_.keeps_lost;
  hand_.num_rows = SlotRowsLocked(index);
  const int64_t batch_rows = plan_.layout->batch_rows();
  // Rows that a failure cut off from their batch are not given.
  const bool drops_last = plan_.drop_last || !plan_failure_.ok();
  hand_.num_batches = drops_last ? hand_.num_rows / batch_rows : (hand_.num_rows + batch_rows - 1) / batch_rows;
  hand_.lease = std::make_shared<SlotLease>(CopyGate::Before(gate_, shared_from_this()), std::move(slot.storage));
  hand_.first_row = index * plan_.layout->rows();
  if (!plan_.is_counted()) TakeSourcePlacesLocked(index);
  open_.erase(found);
  ++user_slots_;
  ++delivered_slots_;
  const int64_t now_ns = NowNs();
  if (handed_over_ns_ > 0) {
    const int64_t period_ns = now_ns - handed_over_ns_;
    slot_period_ns_ = slot_period_ns_ < 0 ? period_ns : slot_period_ns_ + (period_ns - slot_period_ns_) / 8;
  }
  handed_over_ns_ = now_ns;
  next_slot_ = index + 1;
}

void Scheduler::TakeSourcePlacesLocked(int64_t index) {
  const auto found = source_places_.find(index);
  if (found != source_places_.end()) {
    hand_.source_places = std::move(found->second);
    source_places_.erase(found);
  } else {
    hand_.source_places = {last_batch_end_};
  }
  // The short batch at the very end.
  if (static_cast<int64_t>(hand_.source_places.size()) <= hand_.num_batches)
    hand_.source_places.push_back(last_placed_end_);
}

arrow::Result<bool> Scheduler::TakeSlot(Deadline deadline, bool* timed_out) {
  std::shared_ptr<SlotLease> used_up =
      std::move(hand_.lease);  // Of a slot without a full batch; dies outside the mutex.
  hand_ = {};
  used_up.reset();
  MutexLock lock(mu_);
  kept_slots_ = std::max(0, user_slots_ - 1);
  bool is_opening_tried = false;
  int64_t waits_since_ns = 0;
  while (true) {
    if (is_stopping_) return arrow::Status::Cancelled("the loader was closed");
    if (IsEndLocked()) {
      ARROW_RETURN_NOT_OK(plan_failure_);
      return false;
    }
    const int64_t index = DeliverableLocked();
    if (index >= 0) {
      HandOverLocked(index);
      lock.Unlock();
      OpenSlots(/*is_worker=*/false);
      return true;
    }
    if (IsFailedLocked()) return failure_;
    const bool is_end_unknown = total_rows_ < 0 && frontier_row_ <= slot_end_ * plan_.layout->rows() &&
                                (is_planning_ || (!pending_.has_value() && !is_plan_done_));
    if (open_.empty() && mapping_slots_ == 0 && slot_end_ < WantedSlotsLocked() && !is_end_unknown) {
      if (is_opening_tried) return KeptBatches();
      is_opening_tried = true;
      lock.Unlock();
      OpenSlots(/*is_worker=*/false);
      lock.Lock();
      continue;
    }
    is_opening_tried = false;
    if (is_stuck_) return kept_slots_ > 0 ? KeptBatches() : ArenasRefusedLocked();
    if (plan_.num_workers == 0) {
      ARROW_RETURN_NOT_OK(WorkOnce());
      if (deadline && std::chrono::steady_clock::now() >= *deadline && DeliverableLocked() < 0 && !IsEndLocked()) {
        *timed_out = true;
        return false;
      }
      continue;
    }
    bool wants_slot = false;
    if (!WaitForSlotLocked(deadline, &waits_since_ns, &wants_slot)) {
      *timed_out = true;
      return false;
    }
    if (wants_slot) {
      lock.Unlock();
      OpenSlots(/*is_worker=*/false);
      lock.Lock();
    }
  }
}

// Whether somebody who was refused memory will try again before the failure.
bool Scheduler::IsStarvedLocked() const {
  if (std::any_of(starved_lanes_.begin(), starved_lanes_.end(),
                  [&](const Lane* lane) PENSTOCK_REQUIRES(mu_) { return IsWantedLocked(WorkPlaceOf(*lane)); })) {
    return true;
  }
  return plan_.is_counted() &&
         AnyStreamLocked([&](const Chunk& chunk, const PieceStream& stream) PENSTOCK_REQUIRES(mu_) {
           return stream.starved_at >= 0 && IsWantedLocked(WorkPlaceOf(chunk, stream));
         });
}

// Told when nothing that comes before it in the order of rows is left to do: of several failures the first.
bool Scheduler::IsFailedLocked() const {
  if (failed_slot_ == kNever || HasMorselLocked() || HasPieceLocked() || IsStarvedLocked()) return false;
  if (!plan_.in_order) return running_tasks_ == 0;
  return failed_slot_ <= next_slot_ && slot_end_ >= WantedSlotsLocked() &&
         (running_places_.empty() || failed_place_ <= *running_places_.begin());
}

// Sleeps until something may have changed; false at the deadline. Where the wait lasts beyond the usual and workers are
// idle for want of a slot, sets *wants_slot.
bool Scheduler::WaitForSlotLocked(Deadline deadline, int64_t* waits_since_ns, bool* wants_slot) {
  const int64_t now_ns = NowNs();
  if (*waits_since_ns == 0) *waits_since_ns = now_ns;
  const int64_t grow_after_ns = GrowAfterNsLocked();
  int64_t sleep_ns = grow_after_ns == kNever ? kNever : std::max<int64_t>(0, *waits_since_ns + grow_after_ns - now_ns);
  bool is_deadline = false;
  if (deadline) {
    const auto left =
        std::chrono::duration_cast<std::chrono::nanoseconds>(*deadline - std::chrono::steady_clock::now()).count();
    is_deadline = left <= sleep_ns;
    sleep_ns = std::min(sleep_ns, std::max<int64_t>(0, left));
  }
  is_consumer_waiting_ = true;
  bool is_timeout = false;
  if (sleep_ns == kNever) {
    ready_.Wait(mu_);
  } else {
    is_timeout = !ready_.WaitFor(mu_, std::chrono::nanoseconds(sleep_ns));
  }
  is_consumer_waiting_ = false;
  if (!is_timeout) return true;
  // A failure further on is nothing new: to come back at once for it would be to spin until this slot is complete.
  if (DeliverableLocked() >= 0 || IsEndLocked() || is_stopping_) return true;
  if (is_deadline) return false;
  *wants_slot = GrowLocked();
  *waits_since_ns += slot_period_ns_ + kLeastGrowStepNs;  // The next one after as long as one slot takes to fill.
  return true;
}

// With no workers: does what a worker would do next. Nobody else could free anything, so nothing to do is an error.
arrow::Status Scheduler::WorkOnce() {
  Task task;
  Doomed doomed;
  if (TakeLocked(&task, &doomed)) {
    RunTask(task, std::move(doomed));
  } else if (!doomed.empty()) {
    Destroy(std::move(doomed));
  } else if (failed_slot_ == kNever) {
    return KeptBatches();
  }
  return arrow::Status::OK();
}

}  // namespace penstock
