// What a finished task changes.
#include <algorithm>

#include "pipeline/scheduler.h"

namespace penstock {
namespace {

// Morsels of dear rows: enough of them in a batch for many workers.
constexpr int64_t kDearMorselsPerBatch = 512;

}  // namespace

void Scheduler::FinishLocked(const Task& task, Outcome outcome, Doomed* doomed) {
  switch (task.kind) {
    case Task::Kind::kPlan:
      FinishPlanLocked(std::move(outcome));
      break;
    case Task::Kind::kPiece:
      FinishPieceLocked(task, std::move(outcome), doomed);
      break;
    case Task::Kind::kMorsel:
      FinishMorselLocked(task, outcome.status, doomed);
      break;
    case Task::Kind::kNone:
      break;
  }
}

void Scheduler::FinishPlanLocked(Outcome outcome) {
  is_planning_ = false;
  if (is_consumer_waiting_) ready_.NotifyOne();  // It may be waiting to learn whether there is more at all.
  if (outcome.status.IsOutOfMemory() && !chunks_.empty()) {
    plan_starved_at_ = num_freed_;  // Row groups that are open hold other footers: again when one is done.
    return;
  }
  if (outcome.spec) {
    pending_ = std::move(outcome.spec);
    pending_sizing_ = outcome.sizing;
    return;
  }
  // A failure stands at the end of the rows that came before it.
  if (total_rows_ < 0) plan_failure_ = std::move(outcome.status);
  is_plan_done_ = true;
  if (plan_.is_counted() || placing_sequence_ == next_sequence_) SetTotalLocked(frontier_row_);
}

void Scheduler::FinishPieceLocked(const Task& task, Outcome outcome, Doomed* doomed) {
  Chunk& chunk = *task.chunk;
  chunk.is_piece_in_flight = false;
  if (outcome.status.IsOutOfMemory()) {
    doomed->piece_readers.push_back(std::move(chunk.pieces));
    if (!task.is_last_try || chunk.piece_rows > 1) {
      chunk.piece_rows = std::max<int64_t>(1, chunk.piece_rows / 2);
      chunk.starved_at = num_freed_ + 1;  // What this very task lets go is not worth a try.
      return;
    }
    outcome.status = Refused(outcome.status, chunk);
  }
  if (!outcome.status.ok()) {
    chunk.are_pieces_done = true;
    if (plan_.is_counted()) {
      FailLocked(SlotOf(chunk.begin_row + chunk.next_piece_row), std::move(outcome.status));
    } else {
      chunk.failure = std::move(outcome.status);
      PlaceBlocksLocked(doomed);
    }
    return;
  }
  if (outcome.block != nullptr) chunk.next_piece_row = outcome.piece_first_row + outcome.piece_rows_read;
  if (outcome.block == nullptr || chunk.next_piece_row >= chunk.rows) {
    chunk.are_pieces_done = true;
    doomed->piece_readers.push_back(std::move(chunk.pieces));
  }
  if (plan_.is_counted()) {
    if (outcome.block != nullptr) {
      const int64_t wanted = std::min(outcome.block->num_rows(), chunk.rows - outcome.piece_first_row);
      AddBlockLaneLocked(&chunk, std::move(outcome.block), chunk.begin_row + outcome.piece_first_row, wanted);
    }
    RetireChunkLocked(&chunk, doomed);
    return;
  }
  if (outcome.block != nullptr && outcome.block->num_rows() > 0) {
    chunk.unplaced.push_back(std::move(outcome.block));
    ++chunk.ready_blocks;
  } else if (outcome.block != nullptr) {
    doomed->blocks.push_back(std::move(outcome.block));
  }
  PlaceBlocksLocked(doomed);
}

// Discovered plans: gives rows their place, in the order of the plan, as far as it is known.
void Scheduler::PlaceBlocksLocked(Doomed* doomed) {
  while (total_rows_ < 0 && failed_slot_ == kNever) {
    const auto found = chunks_.find(placing_sequence_);
    if (found == chunks_.end()) {
      if (!is_plan_done_ || pending_.has_value()) return;
      if (placing_sequence_ < next_sequence_) return;
      SetTotalLocked(frontier_row_);
      return;
    }
    Chunk& chunk = *found->second;
    while (!chunk.unplaced.empty()) {
      std::shared_ptr<const Block> block = std::move(chunk.unplaced.front());
      chunk.unplaced.pop_front();
      --chunk.ready_blocks;
      int64_t rows = block->num_rows();
      if (plan_.limit) rows = std::min(rows, *plan_.limit - frontier_row_);
      if (rows > 0) AddBlockLaneLocked(&chunk, std::move(block), frontier_row_, rows);
      frontier_row_ += rows;
      if (block != nullptr) doomed->blocks.push_back(std::move(block));
    }
    if (plan_.limit && frontier_row_ == *plan_.limit) {
      is_plan_done_ = true;
      SetTotalLocked(frontier_row_);
      return;
    }
    if (!chunk.failure.ok()) {
      FailLocked(SlotOf(frontier_row_), chunk.failure);
      return;
    }
    if (!chunk.are_pieces_done || chunk.is_piece_in_flight) return;
    ++placing_sequence_;
    RetireChunkLocked(&chunk, doomed);
  }
}

void Scheduler::AddBlockLaneLocked(Chunk* chunk, std::shared_ptr<const Block> block, int64_t begin_row, int64_t rows) {
  auto lane = std::make_unique<Lane>();
  lane->kind = Lane::Kind::kBlock;
  lane->chunk = chunk;
  lane->number = next_lane_number_++;
  lane->outputs = chunk->spec.input->read_plan().through_arrow;
  if (!plan_.is_counted()) lane->constants = chunk->spec.input->read_plan().constant;
  lane->begin_row = lane->next_row = begin_row;
  lane->end_row = begin_row + rows;
  lane->block = std::move(block);
  for (int output : lane->outputs) {
    if (!plan_.projection->outputs[static_cast<size_t>(output)].converter->is_dear()) continue;
    lane->morsel_rows = std::max<int64_t>(1, plan_.layout->batch_rows() / kDearMorselsPerBatch);
  }
  ++chunk->ready_blocks;
  lanes_.insert(KeyOf(lane.get()));
  chunk->lanes.push_back(std::move(lane));
}

void Scheduler::FinishMorselLocked(const Task& task, const arrow::Status& status, Doomed* doomed) {
  Lane* lane = task.lane;
  --lane->in_flight;
  if (status.IsOutOfMemory() && lane->kind == Lane::Kind::kDirect && !task.is_last_try) {
    doomed->readers.push_back(std::move(lane->reader));
    lane->next_row = task.begin_row;
    lane->starved_at = num_freed_ + 1;  // What this very task lets go is not worth a try.
    starved_lanes_.push_back(lane);
    return;
  }
  if (!status.ok()) {
    FailLocked(task.slot, status.IsOutOfMemory() ? Refused(status, *task.chunk) : status);
  } else {
    Slot& slot = open_.at(task.slot);
    slot.filled_cells += task.rows * lane->num_cells_per_row();
    if (is_consumer_waiting_ && IsCompleteLocked(task.slot, slot)) ready_.NotifyOne();
    if (lane->is_exclusive() && lane->next_row < lane->end_row) lanes_.insert(KeyOf(lane));
  }
  if (!lane->is_done()) return;
  Chunk* chunk = lane->chunk;
  const auto owner =
      std::find_if(chunk->lanes.begin(), chunk->lanes.end(), [&](auto& each) { return each.get() == lane; });
  doomed->lanes.push_back(std::move(*owner));
  chunk->lanes.erase(owner);
  RetireChunkLocked(chunk, doomed);
}

void Scheduler::RetireChunkLocked(Chunk* chunk, Doomed* doomed) {
  if (!chunk->is_done()) return;
  if (!plan_.is_counted() && chunk->sequence >= placing_sequence_) return;
  const auto found = chunks_.find(chunk->sequence);
  doomed->chunks.push_back(std::move(found->second));
  chunks_.erase(found);
}

// The failure in the earliest slot counts; what comes before it is still delivered.
void Scheduler::FailLocked(int64_t slot, arrow::Status status) {
  if (slot >= failed_slot_) return;
  failed_slot_ = slot;
  failure_ = std::move(status);
  ready_.NotifyOne();
}

void Scheduler::SetTotalLocked(int64_t rows) {
  total_rows_ = rows;
  ready_.NotifyOne();  // The slot that waits may be the last and complete, or there may be none.
}

arrow::Status Scheduler::Refused(const arrow::Status& status, const Chunk& chunk) const {
  const int64_t missing = std::max<int64_t>(chunk.pool->refused_bytes(), 1);
  return arrow::Status::OutOfMemory(
      chunk.spec.Where(),
      ": decoding needs more memory than the budget has left, even alone; raise memory_budget to at least ",
      plan_.ledger->budget_bytes() + missing, " bytes, lower batch_size, or write smaller pages (", status.message(),
      ")");
}

}  // namespace penstock
