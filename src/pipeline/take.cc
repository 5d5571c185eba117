// What a worker does next: the oldest slot first.
#include <algorithm>

#include "pipeline/scheduler.h"

namespace penstock {
namespace {

// Of an object store, where more than one of its blocks is held.
constexpr int64_t kMostStoreBytes = int64_t{32} << 20;

}  // namespace

void Scheduler::AddLaneLocked(Lane* lane) {
  if (IsWantedLocked(WorkPlaceOf(*lane))) lanes_.insert(KeyOf(lane));
}

bool Scheduler::HasMorselLocked() const { return !lanes_.empty() && std::get<0>(*lanes_.begin()) < slot_end_; }

bool Scheduler::TakeLocked(Task* task, Doomed* doomed) {
  if (is_stopping_ || is_last_try_) return false;
  while (AdmitLocked()) {
  }
  if (!unfetched_.empty()) {
    task->kind = Task::Kind::kFetch;
    task->ranges = std::move(unfetched_.front());
    unfetched_.pop_front();
    return true;
  }
  PlaceAllLocked(doomed);
  // A caller that does the work itself is not to wait for a slow source while rows are there.
  const bool is_plan_last = plan_.num_workers == 0;
  return (!is_plan_last && TakePlanLocked(task, doomed)) || TakeOldestLocked(task) || TakeStarvedLocked(task, doomed) ||
         (is_plan_last && TakePlanLocked(task, doomed)) || TakeMakeRoomLocked(task, doomed);
}

// The plan is kept one row group ahead of what is admitted, so that the end is known as soon as it can be.
bool Scheduler::TakePlanLocked(Task* task, Doomed* doomed) {
  if (is_planning_ || is_plan_done_ || pending_.has_value() || !IsWantedLocked({frontier_row_, 0})) return false;
  const bool is_alone = chunks_.empty() && freeing_tasks_ == 0;
  const bool is_starved = plan_starved_at_ == num_freed_;
  if (is_starved && !is_alone) return false;
  // What a user's iterable gives is there before it can be refused: it is not asked while there is no room for as much.
  if (cursor_.next_pulled_bytes() > plan_.ledger->FreeBytes(Account::kBlocks) && !is_alone) return false;
  // What lies in a store is there whether or not it is asked for: little of it is held, so that the store stays free.
  // Of a row group that is done, it is held until that has died.
  const int64_t store_bytes = cursor_.next_store_bytes();
  if (store_bytes > 0 && !is_alone && plan_.ledger->HeldBytes(Account::kStore) + store_bytes > kMostStoreBytes) {
    return false;
  }
  if (is_starved) doomed->spares = DropSparesLocked();
  is_planning_ = true;
  task->kind = Task::Kind::kPlan;
  task->is_last_try = is_alone;
  task->frontier = frontier_row_;
  return true;
}

// What can be done at once is being done or waits for a worker.
bool Scheduler::HasWorkAheadLocked() const {
  int64_t missing = WorkAhead(plan_.num_workers) - running_tasks_;
  for (auto lane = lanes_.begin(); missing > 0 && lane != lanes_.end() && std::get<0>(*lane) < slot_end_; ++lane) {
    --missing;
  }
  for (const auto& [sequence, chunk] : chunks_) {
    for (const PieceStream& stream : chunk->streams) missing -= PieceSlotLocked(*chunk, stream) < slot_end_;
  }
  return missing <= 0;
}

// Opens the pending row group if slots are open for its rows, the budget admits it, and there is not enough to do
// without.
bool Scheduler::AdmitLocked() {
  is_admission_refused_ = false;
  if (!pending_.has_value() || !IsWantedLocked({frontier_row_, 0})) return false;
  // Whoever gives memory back comes by here next: the peak must not depend on who is quicker.
  if (freeing_tasks_ > 0) return false;
  bool is_ahead = false;
  if (plan_.is_counted()) {
    if (chunks_.size() >= kMaxOpenChunks) return false;
    // What lies on a server is asked for ahead.
    if (pending_sizing_.fetch.blocks.empty() && HasWorkAheadLocked()) return false;
    is_ahead = SlotOf(frontier_row_) >= slot_end_;
    if (is_ahead && !MayFetchAheadLocked() && !MayOpenAheadLocked()) return false;
  } else if (chunks_.size() >= static_cast<size_t>(std::max(2, plan_.num_workers + 1))) {
    return false;
  }
  auto pool = ReservedPool::TryMake(plan_.ledger, pending_sizing_.promise_bytes);
  if (pool == nullptr && is_ahead) return false;
  const bool is_promised = pool != nullptr;
  if (pool == nullptr && chunks_.empty()) {
    // Alone it may try with what there is: the estimate may be too high, and nobody else could make room.
    pool = ReservedPool::TryMake(plan_.ledger, 0);
  }
  if (pool == nullptr) {
    is_admission_refused_ = true;
    return false;
  }
  auto chunk = std::make_unique<Chunk>();
  chunk->sequence = next_sequence_++;
  chunk->spec = std::move(*pending_);
  chunk->end_row = chunk->spec.end_row;
  chunk->pool = std::move(pool);
  chunk->streams = MakeStreams(*chunk, *plan_.projection, pending_sizing_.piece_rows);
  chunk->begin_row = frontier_row_ - chunk->spec.first_row;
  if (is_promised && !pending_sizing_.fetch.blocks.empty()) {
    chunk->ranges = chunk->spec.input->Fetch(std::move(pending_sizing_.fetch), chunk->pool, fetchers_.get());
    chunk->spec.input = chunk->spec.input->Through(chunk->ranges);
    if (fetchers_ != nullptr) unfetched_.push_back(chunk->ranges);
  }
  pending_.reset();
  if (plan_.is_counted()) {
    if (plan_.limit) chunk->end_row = std::min(chunk->end_row, *plan_.limit - chunk->begin_row);
    frontier_row_ = chunk->begin_row + chunk->end_row;
    chunk->lanes = MakeLanes(chunk.get(), *plan_.projection, pending_sizing_.direct_bytes, &next_lane_number_);
    for (const auto& lane : chunk->lanes) AddLaneLocked(lane.get());
    if (plan_.limit && frontier_row_ == *plan_.limit) {
      is_plan_done_ = true;
      SetTotalLocked(frontier_row_);
    }
  }
  chunks_.emplace(chunk->sequence, std::move(chunk));
  return true;
}

// One row group beyond the open slots is on its way while those before it are decoded.
bool Scheduler::MayFetchAheadLocked() const {
  if (fetchers_ == nullptr || pending_sizing_.fetch.blocks.empty()) return false;
  if (chunks_.empty()) return true;
  const Chunk& last = *chunks_.rbegin()->second;
  return SlotOf(last.begin_row + last.spec.first_row) < slot_end_;
}

// Where the caller was found waiting for what one worker decodes while others are idle, decoding goes on ahead of the
// slots: of columns whose blocks wait for their places, since these can be dropped where memory is short.
bool Scheduler::MayDecodeAheadLocked() const {
  return blocks_ahead_ > kBlocksAhead && starved_lanes_.empty() && !HasStarvedStreamLocked() &&
         !IsStarvedForArenasLocked();
}

// A quarter of the budget is left to what comes before.
bool Scheduler::HasRoomAheadLocked(int64_t bytes) const {
  return plan_.ledger->FreeBytes(Account::kBlocks) - bytes > plan_.ledger->budget_bytes() / 4;
}

// A row group for whoever finds nothing to decode in those that are open.
bool Scheduler::MayOpenAheadLocked() const {
  return pending_sizing_.piece_rows > 0 && static_cast<int>(chunks_.size()) < plan_.num_workers &&
         MayDecodeAheadLocked() && !HasPieceLocked() && HasRoomAheadLocked(pending_sizing_.promise_bytes);
}

bool Scheduler::HasStarvedStreamLocked() const {
  return AnyStreamLocked([](const Chunk&, const PieceStream& stream) { return stream.starved_at >= 0; });
}

// Whether no open slot waits for the stream's next piece.
bool Scheduler::IsAheadLocked(const Chunk& chunk, const PieceStream& stream) const {
  if (!plan_.is_counted()) return chunk.sequence != placing_[0].sequence;
  return SlotOf(WorkPlaceOf(chunk, stream).first) >= slot_end_;
}

// The slot that the stream's next piece is for; kNever where none is wanted now.
int64_t Scheduler::PieceSlotLocked(const Chunk& chunk, const PieceStream& stream) const {
  if (stream.is_in_flight || stream.is_done || stream.starved_at >= 0) return kNever;
  const bool may_be_ahead = IsPlacedInOrder(stream.number) && MayDecodeAheadLocked();
  const int most_blocks = may_be_ahead && HasRoomAheadLocked(0) ? blocks_ahead_ : kBlocksAhead;  // That is promised.
  if (stream.ready_blocks >= most_blocks) return kNever;
  const int64_t last_slot = std::max<int64_t>(0, slot_end_ - 1);
  const int64_t latest_slot = may_be_ahead ? last_slot : kNever;
  if (plan_.is_counted()) {
    const WorkPlace place = WorkPlaceOf(chunk, stream);
    return IsWantedLocked(place) ? std::min(SlotOf(place.first), latest_slot) : kNever;
  }
  if (total_rows_ >= 0 || !stream.failure.ok() || !IsWantedLocked({frontier_row_, 0})) return kNever;
  // Pieces of later chunks have no place yet: they are for when nothing else is to be done.
  return chunk.sequence == placing_[0].sequence ? std::min(SlotOf(frontier_row_), latest_slot) : last_slot;
}

bool Scheduler::HasPieceLocked() const {
  return AnyStreamLocked([&](const Chunk& chunk, const PieceStream& stream)
                             PENSTOCK_REQUIRES(mu_) { return PieceSlotLocked(chunk, stream) < slot_end_; });
}

bool Scheduler::TakeOldestLocked(Task* task) {
  int64_t oldest = slot_end_;
  Chunk* piece_of = nullptr;
  PieceStream* piece_from = nullptr;
  for (const auto& [sequence, chunk] : chunks_) {
    for (PieceStream& stream : chunk->streams) {
      const int64_t slot = PieceSlotLocked(*chunk, stream);
      if (slot >= oldest) continue;
      oldest = slot;
      piece_of = chunk.get();
      piece_from = &stream;
    }
  }
  if (HasMorselLocked() && (piece_of == nullptr || std::get<0>(*lanes_.begin()) < oldest)) {
    TakeMorselLocked(std::get<Lane*>(*lanes_.begin()), task);
    return true;
  }
  if (piece_of == nullptr) return false;
  TakePieceLocked(piece_of, piece_from, task);
  return true;
}

void Scheduler::TakeMorselLocked(Lane* lane, Task* task) {
  lanes_.erase(KeyOf(lane));
  task->kind = Task::Kind::kMorsel;
  task->lane = lane;
  task->chunk = lane->chunk;
  task->slot = SlotOf(lane->next_row);
  const Slot& slot = open_.at(task->slot);
  task->base = slot.storage.memory.data();
  task->fill = &slot.fill;
  task->begin_row = lane->next_row;
  const int64_t slot_end_row = (task->slot + 1) * plan_.layout->rows();
  task->rows = std::min(lane->end_row, slot_end_row) - lane->next_row;
  if (lane->morsel_rows > 0) task->rows = std::min(task->rows, lane->morsel_rows);
  lane->next_row += task->rows;
  ++lane->in_flight;
  const bool has_more = lane->next_row < lane->end_row;
  if (has_more && !lane->is_exclusive()) AddLaneLocked(lane);
  if (!has_more && lane->is_end_of_block) --lane->stream->ready_blocks;
}

void Scheduler::TakePieceLocked(Chunk* chunk, PieceStream* stream, Task* task) {
  stream->is_in_flight = true;
  task->kind = Task::Kind::kPiece;
  task->chunk = chunk;
  task->stream = stream;
}

// Whoever was refused memory tries again when something has been freed; when nobody else works and nothing was freed,
// everybody else makes room, and the try is the last.
// One tries at a time: several would take from each other what each of them lacks, for ever.
bool Scheduler::TakeStarvedLocked(Task* task, Doomed* doomed) {
  if (is_retrying_) return false;
  const bool is_alone = running_tasks_ == 0;
  for (const auto& [sequence, chunk] : chunks_) {
    for (PieceStream& stream : chunk->streams) {
      if (stream.starved_at < 0) continue;
      // For what no slot waits for, memory may come back before one does.
      const bool is_last_try = is_alone && !IsAheadLocked(*chunk, stream);
      if (stream.starved_at == num_freed_ && !is_last_try) continue;
      is_retrying_ = task->is_retry = true;
      is_last_try_ = task->is_last_try = is_last_try;
      if (task->is_last_try) {
        SuspendOthersLocked(nullptr, &stream, doomed);
        DropAheadLocked(sequence, doomed);
      }
      stream.starved_at = -1;
      TakePieceLocked(chunk.get(), &stream, task);
      return true;
    }
  }
  const auto lane = std::min_element(starved_lanes_.begin(), starved_lanes_.end(),
                                     [&](Lane* a, Lane* b) { return KeyOf(a) < KeyOf(b); });
  if (lane == starved_lanes_.end() || ((*lane)->starved_at == num_freed_ && !is_alone)) return false;
  Lane* taken = *lane;
  starved_lanes_.erase(lane);
  is_retrying_ = task->is_retry = true;
  is_last_try_ = task->is_last_try = is_alone;
  if (task->is_last_try) {
    SuspendOthersLocked(taken, nullptr, doomed);
    DropAheadLocked(taken->chunk->sequence, doomed);
  }
  taken->starved_at = -1;
  TakeMorselLocked(taken, task);
  return true;
}

// Rows of varying size wait for room in their arenas, nobody works and nobody else could make room.
bool Scheduler::TakeMakeRoomLocked(Task* task, Doomed* doomed) {
  if (running_tasks_ > 0 || is_stuck_ || !IsStarvedForArenasLocked()) return false;
  SuspendOthersLocked(nullptr, nullptr, doomed);
  DropUnplacedLocked(doomed);
  task->kind = Task::Kind::kMakeRoom;
  is_last_try_ = task->is_last_try = true;
  return true;
}

// Closes every idle reader but the given one's; each is opened again where it stood when its turn comes. Spare slots
// go.
void Scheduler::SuspendOthersLocked(const Lane* lane, const PieceStream* stream, Doomed* doomed) {
  doomed->spares = DropSparesLocked();
  for (const auto& [sequence, each] : chunks_) {
    for (PieceStream& other : each->streams) {
      if (&other != stream && other.reader != nullptr && !other.is_in_flight) {
        doomed->piece_readers.push_back(std::move(other.reader));
      }
    }
    for (const auto& other : each->lanes) {
      if (other.get() != lane && other->reader != nullptr && other->in_flight == 0) {
        doomed->readers.push_back(std::move(other->reader));
      }
    }
    if (each->ranges != nullptr) doomed->ranges.push_back(each->ranges);
    each->pool->ReleasePromise();
  }
}

Lack Scheduler::LackLocked() const {
  if (is_last_try_ || !starved_lanes_.empty() || is_admission_refused_ || plan_starved_at_ == num_freed_)
    return Lack::kBudget;
  if (IsStarvedForArenasLocked()) return Lack::kBudget;
  if (HasStarvedStreamLocked()) return Lack::kBudget;
  // Something could be done if more slots were open.
  const bool is_more_ahead = !lanes_.empty() || (pending_.has_value() && plan_.is_counted());
  return is_more_ahead || IsHeldBackLocked() ? Lack::kSlot : Lack::kWork;
}

// Whether a worker decodes what others could decode the like of ahead.
bool Scheduler::IsDecodingLocked() const {
  return AnyStreamLocked(
      [&](const Chunk&, const PieceStream& stream) { return stream.is_in_flight && IsPlacedInOrder(stream.number); });
}

// Whether blocks that wait for slots keep a stream from being decoded further.
bool Scheduler::IsHeldBackLocked() const {
  return AnyStreamLocked(
      [](const Chunk&, const PieceStream& stream) { return !stream.is_done && stream.ready_blocks >= kBlocksAhead; });
}

}  // namespace penstock
