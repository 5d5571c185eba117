// Filling windows and mixing their rows into slots. The caller's side is in mixer_consumer.cc.
#include "pipeline/mixer.h"

#include <algorithm>
#include <array>
#include <bit>

namespace penstock {
namespace {

constexpr int64_t kStripRows = 2048;
constexpr size_t kMostWindows = 2;

}  // namespace

Mixer::Mixer(MixPlan plan, std::shared_ptr<Scheduler> source)
    : SlotGiver(plan.layout, plan.ledger, plan.stats, plan.held_batches),
      plan_(std::move(plan)),
      source_(std::move(source)),
      slab_bits_(std::countr_zero(static_cast<uint64_t>(plan_.slab_rows))),
      fork_generation_(ForkGeneration()) {
  plan_.stats->SetSlots(plan_.sizing.open_slots + 1, 0);
}

Mixer::~Mixer() = default;

void Mixer::Filling::Empty() {
  slabs.clear();
  order = {};
  ledger->Sub(Account::kShuffle, std::exchange(charged_bytes, 0));
}

void Mixer::RunFiller() {
  MutexLock lock(mu_);
  while (!is_stopping_) {
    if (!FillLocked(std::nullopt)) fill_.Wait(mu_);
  }
}

// Opens a window, or takes a slab; false where there is neither to be done now. Releases the mutex meanwhile.
bool Mixer::FillLocked(Deadline deadline) {
  if (!failure_.ok()) return false;
  if (!windows_.empty() && !windows_.back()->is_full) {
    mu_.Unlock();
    auto slab = TakeSlab(deadline);
    mu_.Lock();
    if (!slab.ok()) {
      FailLocked(slab.status());
    } else if (*slab != nullptr) {
      AddSlabLocked(std::move(*slab));
    }
    return true;
  }
  if (is_last_window_open_ || windows_.size() == kMostWindows) return false;
  auto window = plan_.windows.Next();
  if (!window) {
    is_last_window_open_ = true;
    return true;
  }
  mu_.Unlock();
  auto filling = OpenWindow(std::move(*window));
  mu_.Lock();
  if (!filling.ok()) {
    FailLocked(filling.status());
    return true;
  }
  (*filling)->begin_row = window_rows_;
  window_rows_ += (*filling)->window.rows;
  windows_.push_back(std::move(*filling));
  if (source_rows_ > windows_.back()->begin_row) {
    windows_.back()->slabs.push_back(last_slab_);
    CheckFullLocked();
  }
  return true;
}

arrow::Result<std::shared_ptr<Mixer::Filling>> Mixer::OpenWindow(Window window) {
  auto filling = std::make_shared<Filling>();
  filling->ledger = plan_.ledger;
  const auto bytes = window.rows * static_cast<int64_t>(sizeof(uint32_t));
  if (!plan_.ledger->TryAdd(Account::kShuffle, bytes)) {
    return arrow::Status::OutOfMemory("the order of a shuffle_window of ", window.rows, " rows takes ",
                                      FormatBytes(bytes), ", more than memory_budget has left; raise it");
  }
  filling->charged_bytes = bytes;
  filling->order.resize(static_cast<size_t>(window.rows));
  ShuffleWindow(window.key, window.number, filling->order);
  filling->wanted_rows = CountRows(window.wanted);
  filling->window = std::move(window);
  return filling;
}

// Null at the deadline.
arrow::Result<std::shared_ptr<const Slab>> Mixer::TakeSlab(Deadline deadline) {
  bool timed_out = false;
  ARROW_ASSIGN_OR_RAISE(auto batch, source_->Next(deadline, &timed_out));
  if (timed_out) return nullptr;
  if (!batch) return arrow::Status::IOError("the data has become shorter since the loader was made");
  return MakeSlab(std::move(*batch), source_->lost_rows());
}

void Mixer::AddSlabLocked(std::shared_ptr<const Slab> slab) {
  source_rows_ += slab->batch.num_rows();
  windows_.back()->slabs.push_back(slab);
  last_slab_ = std::move(slab);
  CheckFullLocked();
}

void Mixer::CheckFullLocked() {
  Filling& back = *windows_.back();
  if (source_rows_ < back.end_row()) return;
  back.is_full = true;
  mix_.NotifyOne();
}

// What is mixed already is given first, in whole batches.
void Mixer::FailLocked(arrow::Status status) {
  if (failure_.ok()) failure_ = std::move(status);
  mix_.NotifyAll();
  ready_.NotifyAll();
}

int64_t Mixer::MixableRowsLocked() const {
  int64_t rows = 0;
  for (const auto& window : windows_) {
    if (!window->is_full) break;
    rows += window->wanted_rows - window->taken_rows;
  }
  return rows;
}

// That can be copied now, to the slot that is being filled.
int64_t Mixer::JobRowsLocked() const {
  const int64_t done = filling_slot_ == nullptr ? 0 : filling_slot_->rows;
  return std::min({MixableRowsLocked(), plan_.layout->rows() - done, plan_.rows - mixed_rows_});
}

void Mixer::RunMixer() {
  MutexLock lock(mu_);
  while (!is_stopping_) {
    auto job = TakeJobLocked();
    if (job) {
      RunJobLocked(std::move(*job));
    } else {
      mix_.Wait(mu_);
    }
  }
}

// Slots in the caller's hand count, but for those it keeps beyond the one in use.
bool Mixer::MayHaveSlotLocked() const {
  const auto open = static_cast<int>(mixed_.size());
  return open == 0 || open + user_slots_ < plan_.sizing.open_slots + 1 + kept_slots_;
}

bool Mixer::OpenSlotLocked() {
  if (filling_slot_ != nullptr) return true;
  if (!MayHaveSlotLocked()) return false;
  auto slot = std::make_unique<Slot>(*plan_.layout);
  if (!spare_.empty()) {
    slot->storage = std::move(spare_.back());
    spare_.pop_back();
  } else if (plan_.ledger->TryAdd(Account::kSlots, plan_.layout->bytes())) {
    slot->storage.bytes = plan_.layout->bytes();
    slot->storage.touched.resize(static_cast<size_t>(plan_.layout->num_domains()));
  } else {
    is_slot_refused_ = true;
    ready_.NotifyOne();
    return false;
  }
  filling_slot_ = std::move(slot);
  return true;
}

std::optional<Mixer::Job> Mixer::TakeJobLocked() {
  const int64_t rows = JobRowsLocked();
  if (rows == 0 || is_mixing_ || !OpenSlotLocked()) return std::nullopt;
  Job job{filling_slot_.get(), {}, rows};
  int64_t left = rows;
  for (const auto& window : windows_) {
    const int64_t n = std::min(left, window->wanted_rows - window->taken_rows);
    if (n == 0) continue;
    job.parts.push_back({window, window->taken_rows, n});
    window->taken_rows += n;
    left -= n;
    if (left == 0) break;
  }
  mixed_rows_ += rows;
  return job;
}

void Mixer::RunJobLocked(Job job) {
  is_mixing_ = true;
  mu_.Unlock();
  const int64_t began_ns = NowNs();
  arrow::Status status = Mix(job);
  plan_.stats->AddTask(Stage::kShuffle, NowNs() - began_ns, 1, job.rows * plan_.layout->bytes() / plan_.layout->rows());
  mu_.Lock();
  is_mixing_ = false;
  if (!status.ok()) {
    mixed_rows_ = plan_.rows;  // Nothing comes after it.
    FailLocked(std::move(status));
    return;
  }
  for (Part& part : job.parts) part.from->given_rows += part.rows;
  filling_slot_->rows += job.rows;
  if (filling_slot_->rows == plan_.layout->rows() || mixed_rows_ == plan_.rows) GiveSlotLocked();
  ready_.NotifyOne();
  // A window makes place for the next when its memory is given back, not before.
  while (!windows_.empty() && windows_.front()->is_full &&
         windows_.front()->given_rows == windows_.front()->wanted_rows) {
    const std::shared_ptr<Filling> emptied = windows_.front();
    mu_.Unlock();
    emptied->Empty();
    mu_.Lock();
    windows_.pop_front();
    fill_.NotifyOne();
  }
}

void Mixer::GiveSlotLocked() { mixed_.push_back(std::move(filling_slot_)); }

// After a failure: the whole batches of the slot that was being filled are given before it is told of.
bool Mixer::GiveRestLocked() {
  if (filling_slot_ == nullptr) return false;
  filling_slot_->rows -= filling_slot_->rows % plan_.layout->batch_rows();
  const bool has_batch = filling_slot_->rows > 0;
  if (has_batch) GiveSlotLocked();
  return has_batch;
}

arrow::Status Mixer::Mix(const Job& job) {
  Slot& slot = *job.slot;
  if (slot.storage.memory.data() == nullptr) {
    ARROW_ASSIGN_OR_RAISE(slot.storage.memory,
                          SlotMemory::Map(plan_.layout->bytes(), plan_.layout->arena_address_bytes()));
  }
  uint8_t* const base = slot.storage.memory.data();
  const auto take = [&](const int64_t* used) { return TakeArenas(&slot, used); };
  std::array<SlabRow, kStripRows> rows;
  int64_t slot_row = slot.rows;
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
        GatherLost(from.slabs, strip, plan_.layout->rows(), slot_row, &slot.lost);
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
    if (is_stopping_) return arrow::Status::Cancelled("the loader was closed");
    const bool may_come = plan_.is_threaded && (!is_consumer_waiting_ || !mixed_.empty());
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
  std::deque<std::unique_ptr<Slot>> mixed;
  std::vector<SlotStorage> spare;
  std::shared_ptr<const Slab> slab;
  arrow::Status failure;
  hand_ = {};
  {
    MutexLock lock(mu_);
    is_cleared_ = true;
    windows.swap(windows_);
    mixed.swap(mixed_);
    if (filling_slot_ != nullptr) mixed.push_back(std::move(filling_slot_));
    spare.swap(spare_);
    slab.swap(last_slab_);
    std::swap(failure, failure_);
  }
  for (const auto& slot : mixed) plan_.ledger->Sub(Account::kSlots, slot->storage.bytes);
  for (const SlotStorage& storage : spare) plan_.ledger->Sub(Account::kSlots, storage.bytes);
}

}  // namespace penstock
