// Mixing the rows of windows into slots. What fills the windows is in mixer_fill.cc, the caller's side in
// mixer_consumer.cc.
#include "pipeline/mixer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <new>

namespace penstock {
namespace {

constexpr int64_t kStripRows = 2048;

}  // namespace

Mixer::Mixer(MixPlan plan, std::shared_ptr<Scheduler> source)
    : SlotGiver(plan.layout, plan.ledger, plan.stats, plan.held_batches, plan.gate),
      plan_(std::move(plan)),
      source_(std::move(source)),
      slab_bits_(std::countr_zero(static_cast<uint64_t>(plan_.slab_rows))),
      rows_(plan_.rows),
      source_place_(plan_.begin.value_or(SourcePlace())),
      last_place_(source_place_) {
  plan_.stats->SetSlots(plan_.sizing.open_slots + 1, 0);
}

Mixer::~Mixer() = default;

// What is mixed already is given first, in whole batches.
void Mixer::FailLocked(arrow::Status status) {
  if (failure_.ok()) failure_ = std::move(status);
  mix_.NotifyAll();
  ready_.NotifyAll();
}

int64_t Mixer::MixableRowsLocked() const {
  int64_t rows = 0;
  for (const auto& window : windows_) {
    if (!window->is_mixable()) break;
    rows += window->wanted_rows - window->taken_rows;
  }
  return rows;
}

bool Mixer::IsSlotOpenLocked() const { return !slots_.empty() && !slots_.back()->is_closed; }

// That can be copied now, to the slot that is open or to the next.
int64_t Mixer::JobRowsLocked() const {
  const int64_t taken = IsSlotOpenLocked() ? slots_.back()->taken_rows : 0;
  return std::min({MixableRowsLocked(), plan_.layout->rows() - taken, rows_ - mixed_rows_});
}

void Mixer::RunMixer() {
  MutexLock lock(mu_);
  while (!is_stopping_) {
    if (!MixLocked()) mix_.Wait(mu_);
  }
}

// Does a piece of work; false where there is none. Releases the mutex meanwhile.
bool Mixer::MixLocked() {
  // The window that is filled meanwhile is not to wait for its order, nor the caller for a slot.
  if (IsSlotReadyLocked() && OrderWindowLocked()) return true;
  if (JobRowsLocked() == 0 || is_opening_slot_ || !OpenSlotLocked()) return OrderWindowLocked();
  const Job job = TakeJobLocked();
  mix_.NotifyOne();  // There may be work for another.
  RunJobLocked(job);
  return true;
}

bool Mixer::OrderWindowLocked() {
  const bool is_counted = plan_.rows != kUnknownRows;  // Else the last window may become smaller.
  const auto next = std::find_if(windows_.begin(), windows_.end(), [&](const auto& window) PENSTOCK_REQUIRES(mu_) {
    return window->ordering == Ordering::kNone && (is_counted || window->is_full);
  });
  if (next == windows_.end()) return false;
  const std::shared_ptr<Filling> filling = *next;
  filling->ordering = Ordering::kRunning;
  ++running_;
  mu_.Unlock();
  const int64_t began_ns = NowNs();
  bool is_there = true;
  try {
    filling->order.resize(static_cast<size_t>(filling->window.rows));
  } catch (const std::bad_alloc&) {
    is_there = false;
  }
  if (is_there) filling->PutIntoOrder();
  plan_.stats->AddTask(Stage::kShuffle, NowNs() - began_ns, 0, 0);
  mu_.Lock();
  --running_;
  filling->ordering = Ordering::kDone;
  if (!is_there) {
    mixed_rows_ = rows_;  // Nothing comes after it.
    FailLocked(arrow::Status::OutOfMemory("the system refused ", filling->charged_bytes, " bytes for the order of a ",
                                          "shuffle_window"));
  }
  ready_.NotifyOne();
  return true;
}

// Slots in the caller's hand count, but for those it keeps beyond the one in use.
bool Mixer::MayHaveSlotLocked() const {
  const auto open = static_cast<int>(slots_.size());
  return open == 0 || open + user_slots_ < plan_.sizing.open_slots + 1 + kept_slots_;
}

bool Mixer::OpenSlotLocked() {
  if (IsSlotOpenLocked()) return true;
  if (!MayHaveSlotLocked()) return false;
  auto slot = std::make_unique<Slot>(*plan_.layout);
  TakeKept(plan_.pinned.get(), &spare_);
  if (!spare_.empty()) {
    slot->storage = std::move(spare_.back());
    spare_.pop_back();
    slots_.push_back(std::move(slot));
    is_slot_refused_ = false;
    return true;
  }
  const int64_t bytes = plan_.layout->bytes();
  if (!plan_.ledger->TryAdd(Account::kSlots, bytes)) {
    is_slot_refused_ = true;
    ready_.NotifyOne();
    return false;
  }
  is_opening_slot_ = true;
  ++running_;
  mu_.Unlock();
  auto memory = MapSlot(*plan_.layout, plan_.pinned.get());
  mu_.Lock();
  --running_;
  is_opening_slot_ = false;
  is_slot_refused_ = false;
  if (!memory.ok()) {
    plan_.ledger->Sub(Account::kSlots, bytes);
    mixed_rows_ = rows_;
    FailLocked(memory.status());
    return false;
  }
  slot->storage = {std::move(*memory), bytes, std::vector<int64_t>(static_cast<size_t>(plan_.layout->num_domains()))};
  slots_.push_back(std::move(slot));
  return true;
}

Mixer::Job Mixer::TakeJobLocked() {
  Slot& slot = *slots_.back();
  Job job{&slot, slot.taken_rows, {}, JobRowsLocked()};
  int64_t left = job.rows;
  for (const auto& window : windows_) {
    const int64_t n = std::min(left, window->wanted_rows - window->taken_rows);
    if (n == 0) continue;
    job.parts.push_back({window, window->taken_rows, n});
    if (plan_.begin) NotePlacesLocked(&slot, slot.taken_rows + job.rows - left, *window, n);
    // Here, where no other job of the slot can be writing to it: those that are under way have no lost rows.
    if (window->has_lost && slot.lost.empty()) slot.lost.resize(static_cast<size_t>(plan_.layout->rows()));
    window->taken_rows += n;
    slot.ends_padded = window->ends_padded && window->taken_rows == window->wanted_rows;
    left -= n;
    if (left == 0) break;
  }
  mixed_rows_ += job.rows;
  slot.taken_rows += job.rows;
  slot.is_closed = slot.taken_rows == plan_.layout->rows() || mixed_rows_ == rows_;
  return job;
}

void Mixer::RunJobLocked(const Job& job) {
  ++running_;
  mu_.Unlock();
  const int64_t began_ns = NowNs();
  arrow::Status status = Mix(job);
  plan_.stats->AddTask(Stage::kShuffle, NowNs() - began_ns, 1, job.rows * plan_.layout->bytes() / plan_.layout->rows());
  mu_.Lock();
  --running_;
  ready_.NotifyOne();
  if (!status.ok()) {
    // Of a slot with arenas: no other job is under way. Nothing comes after it.
    job.slot->taken_rows -= job.rows;
    job.slot->is_closed = false;
    mixed_rows_ = rows_;
    FailLocked(std::move(status));
    return;
  }
  for (const Part& part : job.parts) part.from->given_rows += part.rows;
  job.slot->done_rows += job.rows;
  DropEmptiedLocked();
}

// A window makes place for the next when its memory is given back, not before.
void Mixer::DropEmptiedLocked() {
  while (!windows_.empty() && windows_.front()->is_mixable() &&
         windows_.front()->given_rows == windows_.front()->wanted_rows) {
    const std::shared_ptr<Filling> emptied = windows_.front();
    if (std::exchange(emptied->is_emptying, true)) return;  // By another thread, which goes on with the next.
    mu_.Unlock();
    emptied->Empty();
    mu_.Lock();
    windows_.pop_front();
    fill_.NotifyOne();
  }
}

arrow::Status Mixer::Mix(const Job& job) {
  Slot& slot = *job.slot;
  uint8_t* const base = slot.storage.memory.data();
  const auto take = [&](const int64_t* used) { return TakeArenas(&slot, used); };
  std::array<SlabRow, kStripRows> rows;
  int64_t slot_row = job.slot_row;
  for (const Part& part : job.parts) {
    const Filling& from = *part.from;
    const int64_t first_slab = from.begin_row >> slab_bits_;
    for (const RowRange& range : Slice(from.window.wanted, part.first, part.first + part.rows)) {
      for (int64_t at = range.begin; at < range.end;) {
        const int64_t n = std::min(kStripRows, range.end - at);
        for (int64_t i = 0; i < n; ++i) {
          const int64_t row = from.begin_row + from.order[static_cast<size_t>(at + i)];
          rows[static_cast<size_t>(i)] = {static_cast<uint32_t>((row >> slab_bits_) - first_slab),
                                          static_cast<uint32_t>(row & (plan_.slab_rows - 1))};
        }
        const std::span<const SlabRow> strip(rows.data(), static_cast<size_t>(n));
        if (from.has_lost) GatherLost(from.slabs, strip, slot.lost.data() + slot_row);
        GatherFixed(from.slabs, strip, *plan_.layout, base, slot_row);
        ARROW_RETURN_NOT_OK(GatherVarying(from.slabs, strip, *plan_.layout, base, slot_row, &slot.fill, take));
        at += n;
        slot_row += n;
      }
    }
  }
  return arrow::Status::OK();
}

// Takes what the slot's arenas need beyond what it has; waits for slots to come back where that can help.
arrow::Status Mixer::TakeArenas(Slot* slot, const int64_t* used) {
  std::vector<int64_t>& touched = slot->storage.touched;
  for (size_t d = 0; d < touched.size(); ++d) touched[d] = std::max(touched[d], used[d]);
  const int64_t more_bytes = plan_.layout->bytes() + plan_.layout->ArenaBytes(touched.data()) - slot->storage.bytes;
  if (more_bytes <= 0) return arrow::Status::OK();
  MutexLock lock(mu_);
  while (!plan_.ledger->TryAdd(Account::kSlots, more_bytes)) {
    TakeKept(plan_.pinned.get(), &spare_);
    if (!spare_.empty()) {
      std::optional<ReturnedSlot> dropped(std::in_place, std::move(spare_.back()), plan_.ledger, Account::kSlots);
      spare_.pop_back();
      lock.Unlock();
      dropped.reset();
      lock.Lock();
      continue;
    }
    if (is_stopping_) return arrow::Status::Cancelled("the loader was closed");
    const bool may_come = plan_.is_threaded && (!is_consumer_waiting_ || IsSlotReadyLocked());
    if (!may_come) {
      return arrow::Status::OutOfMemory(
          "the rows of one slot take more than memory_budget has left beside the shuffle ",
          "window and the batch in your hand; raise memory_budget, or lower batch_size ", "or shuffle_window");
    }
    mix_.Wait(mu_);
  }
  slot->storage.bytes += more_bytes;
  return arrow::Status::OK();
}

void Mixer::Stop() {
  MutexLock lock(mu_);
  is_stopping_ = true;
  fill_.NotifyAll();
  mix_.NotifyAll();
  ready_.NotifyAll();
}

void Mixer::Clear() {
  std::deque<std::shared_ptr<Filling>> windows;
  std::deque<std::unique_ptr<Slot>> slots;
  std::vector<SlotStorage> spare;
  std::shared_ptr<const Slab> slab;
  arrow::Status failure;
  hand_ = {};
  {
    MutexLock lock(mu_);
    is_cleared_ = true;
    windows.swap(windows_);
    slots.swap(slots_);
    spare.swap(spare_);
    slab.swap(last_slab_);
    std::swap(failure, failure_);
  }
  for (const auto& slot : slots) spare.push_back(std::move(slot->storage));
  for (SlotStorage& storage : spare) {
    KeepOrFree(std::move(storage), plan_.pinned.get(), plan_.ledger, Account::kSlots);
  }
  plan_.records.reset();
  source_.reset();  // Batches in the caller's hand keep this, and need none of that.
}

}  // namespace penstock
