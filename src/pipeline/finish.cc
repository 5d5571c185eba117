// What a finished task changes.
#include <algorithm>

#include "pipeline/scheduler.h"

namespace penstock {
namespace {

// Morsels of dear rows: enough of them in a batch for many workers.
constexpr int64_t kDearMorselsPerBatch = 512;

}  // namespace

void Scheduler::FinishLocked(const Task& task, Outcome&& outcome, Doomed* doomed) {
  switch (task.kind) {
    case Task::Kind::kPlan:
      FinishPlanLocked(task, std::move(outcome));
      break;
    case Task::Kind::kPiece:
      FinishPieceLocked(task, std::move(outcome), doomed);
      break;
    case Task::Kind::kMorsel:
      FinishMorselLocked(task, outcome, doomed);
      break;
    case Task::Kind::kMakeRoom:
      PlaceAllLocked(doomed);
      if (IsStarvedForArenasLocked()) GiveUpOnArenasLocked();
      break;
    case Task::Kind::kFetch:
    case Task::Kind::kNone:
      break;
  }
}

void Scheduler::FinishPlanLocked(const Task& task, Outcome&& outcome) {
  is_planning_ = false;
  if (is_consumer_waiting_) ready_.NotifyOne();  // It may be waiting to learn whether there is more at all.
  if (outcome.status.IsOutOfMemory() && !task.is_last_try) {
    // Row groups that were open hold other footers: again when one is done. What this very task lets go is not worth a
    // try.
    plan_starved_at_ = num_freed_ + 1;
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
  if (plan_.is_counted() || placing_[0].sequence == next_sequence_) SetTotalLocked(frontier_row_);
}

void Scheduler::FinishPieceLocked(const Task& task, Outcome&& outcome, Doomed* doomed) {
  Chunk& chunk = *task.chunk;
  PieceStream& stream = *task.stream;
  stream.is_in_flight = false;
  if (outcome.status.IsOutOfMemory()) {
    doomed->piece_readers.push_back(std::move(stream.reader));
    if (!task.is_last_try || stream.piece_rows > 1) {
      stream.piece_rows = std::max<int64_t>(1, stream.piece_rows / 2);
      stream.starved_at = num_freed_ + 1;  // What this very task lets go is not worth a try.
      return;
    }
    outcome.status = Refused(outcome.status, chunk);
  }
  const bool is_placed_in_order = IsPlacedInOrder(stream.number);
  if (!outcome.status.ok() && PassOverLocked(&chunk, &stream, outcome, doomed)) {
    if (is_placed_in_order) PlaceLocked(stream.number, doomed);
    return;
  }
  if (!outcome.status.ok()) {
    stream.is_done = true;
    if (plan_.is_counted()) {
      doomed->Add(FailLocked(WorkPlaceOf(task), std::move(outcome.status)));
    } else {
      stream.failure = std::move(outcome.status);
      PlaceLocked(stream.number, doomed);
    }
    return;
  }
  if (outcome.block != nullptr) stream.next_row = outcome.piece_first_row + outcome.piece_rows_read;
  if (outcome.block == nullptr || stream.next_row >= chunk.end_row) {
    stream.is_done = true;
    doomed->piece_readers.push_back(std::move(stream.reader));
  }
  if (outcome.block != nullptr) {
    int64_t rows = outcome.block->num_rows();
    if (plan_.is_counted()) rows = std::min(rows, chunk.end_row - outcome.piece_first_row);
    if (rows == 0) {
      doomed->blocks.push_back(std::move(outcome.block));
    } else if (is_placed_in_order) {
      stream.unplaced.push_back({std::move(outcome.block), 0, rows});
      ++stream.ready_blocks;
    } else {
      ++stream.ready_blocks;
      AddBlockLaneLocked(&chunk, &stream, std::move(outcome.block), 0, chunk.begin_row + outcome.piece_first_row, rows)
          ->is_end_of_block = true;
    }
  }
  if (is_placed_in_order) {
    PlaceLocked(stream.number, doomed);
  } else {
    RetireChunkLocked(&chunk, doomed);
  }
}

Lane* Scheduler::AddBlockLaneLocked(Chunk* chunk, PieceStream* stream, std::shared_ptr<const Block> block,
                                    int64_t block_row, int64_t begin_row, int64_t rows) {
  auto lane = std::make_unique<Lane>();
  lane->kind = Lane::Kind::kBlock;
  lane->chunk = chunk;
  lane->stream = stream;
  lane->number = next_lane_number_++;
  lane->outputs = stream->outputs;
  if (!plan_.is_counted()) lane->constants = chunk->spec.input->read_plan().constant;
  lane->begin_row = lane->next_row = begin_row;
  lane->end_row = begin_row + rows;
  lane->block = std::move(block);
  lane->block_row = block_row;
  for (int output : lane->outputs) {
    if (!plan_.projection->outputs[static_cast<size_t>(output)].is_dear()) continue;
    lane->morsel_rows = std::max<int64_t>(1, plan_.layout->batch_rows() / kDearMorselsPerBatch);
  }
  AddLaneLocked(lane.get());
  chunk->lanes.push_back(std::move(lane));
  return chunk->lanes.back().get();
}

void Scheduler::FinishMorselLocked(const Task& task, const Outcome& outcome, Doomed* doomed) {
  const arrow::Status& status = outcome.status;
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
    doomed->Add(FailLocked(WorkPlaceOf(task), status.IsOutOfMemory() ? Refused(status, *task.chunk) : status));
  } else {
    Slot& slot = open_.at(task.slot);
    slot.filled_cells += task.rows * lane->num_cells_per_row();
    if (!outcome.lost.empty()) slot.lost.resize(static_cast<size_t>(plan_.layout->rows()));
    for (const int64_t row : outcome.lost) slot.lost[static_cast<size_t>(row)] = true;
    if (is_consumer_waiting_ && IsCompleteLocked(task.slot, slot)) ready_.NotifyOne();
    if (lane->is_exclusive() && lane->next_row < lane->end_row) AddLaneLocked(lane);
  }
  if (!lane->is_done()) return;
  Chunk* chunk = lane->chunk;
  chunk->pool->LowerPromise(lane->promise_bytes);  // What it still uses stays reserved until it is freed.
  const auto owner =
      std::find_if(chunk->lanes.begin(), chunk->lanes.end(), [&](auto& each) { return each.get() == lane; });
  doomed->lanes.push_back(std::move(*owner));
  chunk->lanes.erase(owner);
  RetireChunkLocked(chunk, doomed);
}

void Scheduler::RetireChunkLocked(Chunk* chunk, Doomed* doomed) {
  if (!chunk->is_done()) return;
  for (size_t stream = 0; stream < placing_.size(); ++stream) {
    if (IsPlacedInOrder(static_cast<int>(stream)) && chunk->sequence >= placing_[stream].sequence) return;
  }
  const auto found = chunks_.find(chunk->sequence);
  doomed->chunks.push_back(std::move(found->second));
  chunks_.erase(found);
}

// The failure in the earliest slot counts; what comes before it is still delivered.
// The rows of pieces of discovered plans have no place yet; these fail in order as it is.
Scheduler::WorkPlace Scheduler::WorkPlaceOf(const Task& task) const {
  if (task.kind == Task::Kind::kMorsel) return {task.begin_row, task.lane->first_output()};
  if (task.kind == Task::Kind::kPiece && plan_.is_counted()) return WorkPlaceOf(*task.chunk, *task.stream);
  return {kNever, 0};
}

arrow::Status Scheduler::FailLocked(WorkPlace place, arrow::Status status) {
  if (!IsWantedLocked(place)) return status;
  failed_place_ = place;
  failed_slot_ = SlotOf(place.first);
  std::swap(failure_, status);
  std::erase_if(lanes_, [&](const LaneKey& key) { return WorkPlaceOf(*std::get<Lane*>(key)) >= place; });
  ready_.NotifyOne();
  return status;
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
