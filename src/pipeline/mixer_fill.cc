// Filling windows, one ahead of the one that is emptied.
#include <utility>

#include "pipeline/mixer.h"

namespace penstock {
namespace {

constexpr size_t kMostWindows = 2;

}  // namespace

void Mixer::Filling::Empty() {
  slabs.clear();
  order = {};
  ledger->Sub(Account::kShuffle, std::exchange(charged_bytes, 0));
}

void Mixer::Filling::Add(std::shared_ptr<const Slab> slab) {
  has_lost = has_lost || !slab->lost.empty();
  slabs.push_back(std::move(slab));
}

void Mixer::Filling::PutIntoOrder() {
  std::span<uint32_t> rows(order);
  if (ends_padded) {
    rows.back() = static_cast<uint32_t>(rows.size() - 1);
    rows = rows.first(rows.size() - 1);
  }
  ShuffleWindow(window.key, window.number, rows);
}

void Mixer::RunFiller() {
  MutexLock lock(mu_);
  while (!is_stopping_) {
    // What it found may have changed while it had released the mutex: the end is told once.
    if (!FillLocked(std::nullopt) && !is_stopping_) fill_.Wait(mu_);
  }
}

// Opens a window, or takes a slab; false where there is neither to be done now. Releases the mutex meanwhile.
bool Mixer::FillLocked(Deadline deadline) {
  if (!failure_.ok()) return false;
  if (!windows_.empty() && !windows_.back()->is_full) {
    const bool may_come = windows_.size() == kMostWindows;
    mu_.Unlock();
    bool is_end = false;
    std::optional taken(TakeSlab(deadline, &is_end));
    mu_.Lock();
    if (!failure_.ok()) {  // Nothing comes behind it.
      mu_.Unlock();
      taken.reset();  // What a user's Python raised needs the GIL to die.
      mu_.Lock();
      return false;
    }
    auto& slab = *taken;
    if (slab.status().IsCapacityError() && may_come) {
      // The window before this one holds what is wanted.
      return windows_.size() < kMostWindows;
    }
    if (!slab.ok()) {
      FailLocked(slab.status());
    } else if (is_end) {
      EndLocked();
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
  (*filling)->begin = source_place_;
  window_rows_ += (*filling)->window.rows;
  wanted_rows_ += (*filling)->wanted_rows;
  windows_.push_back(std::move(*filling));
  mix_.NotifyOne();
  if (source_rows_ > windows_.back()->begin_row) {
    windows_.back()->Add(last_slab_);
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
  filling->wanted_rows = CountRows(window.wanted);
  filling->window = std::move(window);
  return filling;
}

// Null at the deadline, and at the end of what is not counted.
arrow::Result<std::shared_ptr<const Slab>> Mixer::TakeSlab(Deadline deadline, bool* is_end) {
  bool timed_out = false;
  ARROW_ASSIGN_OR_RAISE(auto batch, source_->Next(deadline, &timed_out));
  if (timed_out) return nullptr;
  if (!batch && plan_.rows == kUnknownRows) {
    *is_end = true;
    return nullptr;
  }
  if (!batch) return arrow::Status::IOError("the data has become shorter since the loader was made");
  return MakeSlab(std::move(*batch), source_->lost_rows(), plan_.records.get());
}

void Mixer::AddSlabLocked(std::shared_ptr<const Slab> slab) {
  source_rows_ += slab->num_rows;
  // Written only here: a window of known rows may be put into order meanwhile, without the mutex. It has no padding.
  if (source_->origin().ends_padded) windows_.back()->ends_padded = true;
  source_place_ = {source_->origin().source_rows.end, source_->origin().source_items};
  windows_.back()->Add(slab);
  last_slab_ = std::move(slab);
  CheckFullLocked();
}

// The window that is being filled is the last, and has what has come.
void Mixer::EndLocked() {
  is_last_window_open_ = true;
  Filling& last = *windows_.back();
  last.window.rows = source_rows_ - last.begin_row;
  last.window.wanted = Complement({{0, last.window.wanted.front().begin}}, last.window.rows);
  const int64_t rows_before = wanted_rows_ - last.wanted_rows;
  last.wanted_rows = CountRows(last.window.wanted);
  rows_ = rows_before + last.wanted_rows;
  last.end = source_place_;
  last.is_full = true;
  if (mixed_rows_ == rows_ && IsSlotOpenLocked()) slots_.back()->is_closed = true;
  mix_.NotifyAll();
  ready_.NotifyAll();
}

void Mixer::CheckFullLocked() {
  Filling& back = *windows_.back();
  if (source_rows_ < back.end_row()) return;
  back.is_full = true;
  back.end = source_place_;
  mix_.NotifyOne();
}

}  // namespace penstock
