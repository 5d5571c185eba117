// Where decoded rows go: in discovered plans their place in slots, and the place of what varies in size in arenas.
#include <arrow/array/array_primitive.h>

#include <algorithm>
#include <utility>

#include "pipeline/explode.h"
#include "pipeline/scheduler.h"

namespace penstock {
namespace {

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/// The part of some rows that lies in one batch.
struct BatchRows {
  int64_t batch = 0;  ///< In its slot.
  bool is_first = false;
  int64_t begin_row = 0;  ///< Relative to the first of the rows.
  int64_t rows = 0;
};

std::vector<BatchRows> CutIntoBatches(int64_t slot_row, int64_t rows, int64_t batch_rows) {
  std::vector<BatchRows> cuts;
  for (int64_t row = 0; row < rows;) {
    const int64_t in_batch = (slot_row + row) % batch_rows;
    const int64_t n = std::min(rows - row, batch_rows - in_batch);
    cuts.push_back({(slot_row + row) / batch_rows, in_batch == 0, row, n});
    row += n;
  }
  return cuts;
}

// Behind a row of a piece that `run_row` rows of the run come before.
SourcePlace PlaceBehind(const PieceReader::Piece& piece, int64_t run_row, int64_t row) {
  if (piece.documents == nullptr) {
    return {run_row + static_cast<const arrow::Int64Array&>(*piece.row_numbers).Value(row) + 1, 0};
  }
  const ItemPlace place = PlaceOf(piece, row);
  return place.is_last ? SourcePlace{run_row + place.row + 1, 0} : SourcePlace{run_row + place.row, place.items};
}

}  // namespace

bool Scheduler::IsStarvedForArenasLocked() const {
  return std::any_of(placing_.begin(), placing_.end(), [](const Placing& placing) { return placing.is_starved; });
}

void Scheduler::PlaceAllLocked(Doomed* doomed) {
  for (size_t number = 0; number < placing_.size(); ++number) {
    if (placing_[number].is_blocked) PlaceLocked(static_cast<int>(number), doomed);
  }
}

// Gives the rows of a stream their places, in the order of the plan, as far as it is known and there is room.
void Scheduler::PlaceLocked(int number, Doomed* doomed) {
  Placing& placing = placing_[static_cast<size_t>(number)];
  placing.is_blocked = placing.is_starved = false;
  while (plan_.is_counted() || (total_rows_ < 0 && IsWantedLocked({frontier_row_, 0}))) {
    const auto found = chunks_.find(placing.sequence);
    if (found == chunks_.end()) {
      if (!plan_.is_counted()) EndOfPlacingLocked();
      return;
    }
    Chunk& chunk = *found->second;
    PieceStream& stream = chunk.streams[static_cast<size_t>(number)];
    while (!stream.unplaced.empty()) {
      if (!PlaceBlockLocked(&chunk, &stream, doomed)) return;
    }
    if (!plan_.is_counted()) {
      if (plan_.limit && frontier_row_ == *plan_.limit) {
        is_plan_done_ = true;
        SetTotalLocked(frontier_row_);
        return;
      }
      // Not before its turn: until then it may be dropped, and met again.
      if (stream.is_passed_over) stream.failure = CountError(std::exchange(stream.failure, arrow::Status::OK()));
      stream.is_passed_over = false;
      if (!stream.failure.ok()) {
        doomed->Add(FailLocked({frontier_row_, 0}, stream.failure));
        return;
      }
    }
    if (!stream.is_done || stream.is_in_flight) return;
    ++placing.sequence;
    RetireChunkLocked(&chunk, doomed);
  }
}

// Discovered plans: all chunks that are open have their places.
void Scheduler::EndOfPlacingLocked() {
  if (!is_plan_done_ || pending_.has_value() || placing_[0].sequence < next_sequence_) return;
  SetTotalLocked(frontier_row_);
}

// Places the first block that waits; false where it has to wait on.
bool Scheduler::PlaceBlockLocked(Chunk* chunk, PieceStream* stream, Doomed* doomed) {
  Placing& placing = placing_[static_cast<size_t>(stream->number)];
  PieceStream::Unplaced& rest = stream->unplaced.front();
  if (!plan_.is_counted() && plan_.limit) {
    rest.end_row = std::min(rest.end_row, rest.next_row + *plan_.limit - placing.next_row);
  }
  if (streams_with_arenas_[static_cast<size_t>(stream->number)] != 0) {
    if (!PlaceInArenasLocked(chunk, stream, &rest)) {
      placing.is_blocked = true;
      return false;
    }
  } else if (rest.next_row < rest.end_row) {
    NoteSourcePlacesLocked(*chunk, *rest.block, rest.next_row, rest.end_row - rest.next_row);
    AddBlockLaneLocked(chunk, stream, rest.block, rest.next_row, placing.next_row, rest.end_row - rest.next_row)
        ->is_end_of_block = true;
    placing.next_row += rest.end_row - rest.next_row;
    frontier_row_ = placing.next_row;
  }
  doomed->blocks.push_back(std::move(rest.block));
  stream->unplaced.pop_front();
  return true;
}

// Discovered plans: where in the run the batches end whose last rows are placed now, from the frontier on.
void Scheduler::NoteSourcePlacesLocked(const Chunk& chunk, const Block& block, int64_t block_row, int64_t rows) {
  const int64_t batch_rows = plan_.layout->batch_rows();
  const int64_t run_row = chunk.spec.run_row - chunk.spec.first_row;
  const auto place_behind = [&](int64_t row) { return PlaceBehind(block.piece, run_row, row); };
  for (int64_t row = RoundUp(frontier_row_ + 1, batch_rows); row <= frontier_row_ + rows; row += batch_rows) {
    const int64_t slot = SlotOf(row - 1);
    std::vector<SourcePlace>& ends = source_places_[slot];
    if (ends.empty()) ends.push_back(last_batch_end_);
    last_batch_end_ = place_behind(block_row + row - 1 - frontier_row_);
    ends.push_back(last_batch_end_);
  }
  last_placed_end_ = place_behind(block_row + rows - 1);
}

// Rows of varying size: cut at the ends of slots, into slots that are open. The arenas grow in the order of rows, so
// what is charged for a later slot never keeps an earlier one from being filled.
bool Scheduler::PlaceInArenasLocked(Chunk* chunk, PieceStream* stream, PieceStream::Unplaced* rest) {
  Placing& placing = placing_[static_cast<size_t>(stream->number)];
  while (rest->next_row < rest->end_row) {
    const int64_t slot_index = SlotOf(placing.next_row);
    if (slot_index >= slot_end_) return false;
    Slot& slot = open_.at(slot_index);
    const int64_t slot_end_row = (slot_index + 1) * plan_.layout->rows();
    const int64_t rows = std::min(rest->end_row - rest->next_row, slot_end_row - placing.next_row);
    std::vector<int64_t> before(slot.fill.used(), slot.fill.used() + plan_.layout->num_domains());
    if (!FillArenasLocked(&slot, *stream, *rest, placing.next_row, rows)) {
      placing.is_starved = true;
      return false;
    }
    if (!plan_.is_counted()) NoteSourcePlacesLocked(*chunk, *rest->block, rest->next_row, rows);
    Lane* lane = AddBlockLaneLocked(chunk, stream, rest->block, rest->next_row, placing.next_row, rows);
    lane->arena_first = std::move(before);
    rest->next_row += rows;
    lane->is_end_of_block = rest->next_row == rest->end_row;
    placing.next_row += rows;
    if (!plan_.is_counted()) frontier_row_ = placing.next_row;
  }
  return true;
}

// Takes room for these rows in the slot's arenas; false, and nothing changed, where the budget has none.
bool Scheduler::FillArenasLocked(Slot* slot, const PieceStream& stream, const PieceStream::Unplaced& rest,
                                 int64_t begin_row, int64_t rows) {
  const SlotLayout& layout = *plan_.layout;
  std::vector<int64_t> used(slot->fill.used(), slot->fill.used() + layout.num_domains());
  const auto cuts = CutIntoBatches(begin_row % layout.rows(), rows, layout.batch_rows());
  struct Place {
    int64_t batch, first, count;
    int domain;
    bool is_first;
  };
  std::vector<Place> places;
  std::vector<int64_t> counts;
  for (size_t i = 0; i < stream.outputs.size(); ++i) {
    const Field& field = (*layout.schema())[static_cast<size_t>(stream.outputs[i])];
    if (field.varying == nullptr) continue;
    const int first_domain = layout.first_domain(stream.outputs[i]);
    counts.resize(static_cast<size_t>(field.varying->num_domains()));
    for (const BatchRows& cut : cuts) {
      field.varying->Count(*rest.block->piece.rows->column(static_cast<int>(i)), rest.next_row + cut.begin_row,
                           cut.rows, counts.data());
      for (size_t d = 0; d < counts.size(); ++d) {
        const int domain = first_domain + static_cast<int>(d);
        int64_t& end = used[static_cast<size_t>(domain)];
        if (cut.is_first) end = RoundUp(end, VaryingColumn::kAlignment);
        places.push_back({cut.batch, end, counts[d], domain, cut.is_first});
        end += counts[d];
        if (end > layout.domain_capacity(domain)) return false;
      }
    }
  }
  std::vector<int64_t> touched = slot->storage.touched;
  for (size_t d = 0; d < used.size(); ++d) touched[d] = std::max(touched[d], used[d]);
  const int64_t more_bytes = layout.bytes() + layout.ArenaBytes(touched.data()) - slot->storage.bytes;
  if (more_bytes > 0) {
    if (!plan_.ledger->TryAdd(plan_.slot_account, more_bytes)) return false;
    slot->storage.bytes += more_bytes;
  }
  slot->storage.touched = std::move(touched);
  std::copy(used.begin(), used.end(), slot->fill.used());
  for (const Place& place : places) {
    if (place.is_first) {
      slot->fill.first(place.batch)[place.domain] = place.first;
      slot->fill.counts(place.batch)[place.domain] = 0;
    }
    slot->fill.counts(place.batch)[place.domain] += place.count;
  }
  return true;
}

// Everything that was decoded ahead of the rows that wait is dropped, to be decoded again; arenas that are not in use
// yet are given back.
void Scheduler::DropUnplacedLocked(Doomed* doomed) {
  const auto front = std::min_element(placing_.begin(), placing_.end(), [](const Placing& a, const Placing& b) {
    return std::pair(!a.is_starved, a.next_row) < std::pair(!b.is_starved, b.next_row);
  });
  for (auto& [sequence, chunk] : chunks_) {
    for (PieceStream& stream : chunk->streams) {
      const bool is_front = &placing_[static_cast<size_t>(stream.number)] == &*front && sequence == front->sequence;
      DropBlocks(&stream, /*keeps_first=*/is_front, doomed);
    }
  }
  for (auto& [index, slot] : open_) {
    if (index <= SlotOf(front->next_row) || slot.storage.bytes == plan_.layout->bytes()) continue;
    if (std::any_of(slot.fill.used(), slot.fill.used() + plan_.layout->num_domains(), [](int64_t n) { return n > 0; }))
      continue;
    plan_.ledger->Sub(plan_.slot_account, TrimArenas(*plan_.layout, &slot.storage));
  }
}

// What waits for its place in row groups behind this one.
void Scheduler::DropAheadLocked(int64_t sequence, Doomed* doomed) {
  for (auto chunk = chunks_.upper_bound(sequence); chunk != chunks_.end(); ++chunk) {
    for (PieceStream& stream : chunk->second->streams) DropBlocks(&stream, /*keeps_first=*/false, doomed);
  }
}

// The stream's reader must be closed, and its pieces done: it begins again where the first dropped block began. A block
// some of whose rows have their places stays.
void Scheduler::DropBlocks(PieceStream* stream, bool keeps_first, Doomed* doomed) {
  const size_t keep = keeps_first || (!stream->unplaced.empty() && stream->unplaced.front().next_row > 0) ? 1 : 0;
  if (stream->unplaced.size() <= keep) return;
  stream->next_row = stream->unplaced[keep].block->piece.first_row;
  stream->is_done = stream->is_passed_over = false;
  doomed->Add(std::exchange(stream->failure, arrow::Status::OK()));
  while (stream->unplaced.size() > keep) {
    doomed->blocks.push_back(std::move(stream->unplaced.back().block));
    stream->unplaced.pop_back();
    --stream->ready_blocks;
  }
}

// All room is made that can be made here. What is left is the caller's to give back, or there is none.
void Scheduler::GiveUpOnArenasLocked() {
  is_stuck_ = true;
  ready_.NotifyOne();
}

arrow::Status Scheduler::ArenasRefusedLocked() const {
  const auto front = std::min_element(placing_.begin(), placing_.end(), [](const Placing& a, const Placing& b) {
    return std::pair(!a.is_starved, a.next_row) < std::pair(!b.is_starved, b.next_row);
  });
  std::string where;
  const auto found = chunks_.find(front->sequence);
  if (found != chunks_.end()) {
    where = found->second->spec.Where() + ": ";
  }
  return arrow::Status::OutOfMemory(
      where, "the rows of one batch take more memory than the budget of ", FormatBytes(plan_.ledger->budget_bytes()),
      " has left beside the batch in your hand; raise memory_budget, or lower batch_size (rows of ",
      plan_.layout->rows(), " are put together at a time)");
}

}  // namespace penstock
