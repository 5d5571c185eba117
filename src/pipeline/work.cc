// What a worker does with a task, without the scheduler's mutex.
#include <arrow/array/array_base.h>
#include <arrow/array/array_primitive.h>
#include <arrow/scalar.h>

#include <algorithm>
#include <numeric>

#include "memory/scratch_pool.h"
#include "pipeline/explode.h"
#include "pipeline/scheduler.h"
#include "source/skipping_source.h"

namespace penstock {
namespace {

SlotTarget TargetOf(const SlotLayout& layout, uint8_t* base, int output, int64_t slot_row) {
  const SlotColumn column = layout.Column(base, output);
  return {column.values + slot_row * layout.row_bytes(output),
          column.mask == nullptr ? nullptr : column.mask + slot_row * layout.row_elements(output)};
}

// Which rows those of a piece are, from `offset` on.
RowKey RowKeyOf(const ChunkSpec& chunk, const PieceReader::Piece& piece, int64_t offset) {
  const auto* numbers =
      piece.documents != nullptr ? nullptr : static_cast<const arrow::Int64Array*>(piece.row_numbers.get());
  RowKey key(piece.first_row + offset, numbers == nullptr ? nullptr : numbers->raw_values() + offset);
  key.file = chunk.input->file();
  key.file_row = chunk.file_row;
  key.epoch = chunk.epoch;
  return key;
}

arrow::Status MissingValue(const PieceReader::Piece& piece, int64_t block_row) {
  const int64_t row = piece.row_numbers == nullptr
                          ? piece.first_row + block_row
                          : static_cast<const arrow::Int64Array&>(*piece.row_numbers).Value(block_row);
  return arrow::Status::Invalid("row ", row,
                                " has a missing value; pass nulls=\"mask\", or fill it with "
                                "ps.ops.fill_null");
}

// Leaves out the rows, or the survivors that come from rows, of the chunk that are not wanted.
void CutAt(int64_t end_row, PieceReader::Piece* piece) {
  if (piece->first_row + piece->rows_read <= end_row) return;
  if (piece->row_numbers == nullptr) {
    piece->rows_read = end_row - piece->first_row;
    piece->rows = piece->rows->Slice(0, piece->rows_read);
    return;
  }
  const auto& numbers = static_cast<const arrow::Int64Array&>(*piece->row_numbers);
  const int64_t* first = numbers.raw_values();
  const int64_t kept = std::lower_bound(first, first + numbers.length(), end_row) - first;
  piece->rows = piece->rows->Slice(0, kept);
  piece->row_numbers = piece->row_numbers->Slice(0, kept);
  piece->rows_read = end_row - piece->first_row;
}

// Rows of the piece, from this one of the chunk on, that the filter left out.
int64_t NumFilteredFrom(int64_t begin_row, const PieceReader::Piece& piece) {
  begin_row = std::max(begin_row, piece.first_row);
  const int64_t rows = piece.first_row + piece.rows_read - begin_row;
  if (rows <= 0 || piece.row_numbers == nullptr) return 0;
  const auto& numbers = static_cast<const arrow::Int64Array&>(*piece.row_numbers);
  const int64_t* end = numbers.raw_values() + numbers.length();
  return rows - (end - std::lower_bound(numbers.raw_values(), end, begin_row));
}

arrow::Status InColumn(const arrow::Status& status, const Chunk& chunk, const std::string& column) {
  if (status.ok()) return status;
  return status.WithMessage(chunk.spec.Where(), ", column '", column, "': ", status.message());
}

}  // namespace

Scheduler::Outcome Scheduler::Execute(const Task& task) {
  switch (task.kind) {
    case Task::Kind::kPlan:
      return ExecutePlan(task);
    case Task::Kind::kFetch:
      task.ranges->Start();
      return {};
    case Task::Kind::kPiece:
      return ExecutePiece(task);
    case Task::Kind::kMorsel: {
      Outcome outcome;
      outcome.status = ExecuteMorsel(task, &outcome);
      return outcome;
    }
    case Task::Kind::kMakeRoom:  // Room was made before this.
    case Task::Kind::kNone:
      break;
  }
  return {};
}

Scheduler::Outcome Scheduler::ExecutePlan(const Task& task) {
  Outcome outcome;
  if (plan_.limit && task.frontier >= *plan_.limit) return outcome;
  const int64_t pruned_before = cursor_.chunks_pruned();
  auto next = cursor_.Next();
  plan_.stats->AddPruned(cursor_.chunks_pruned() - pruned_before);
  if (!next.ok()) {
    outcome.status = next.status();
    return outcome;
  }
  outcome.spec = std::move(*next);
  if (outcome.spec) outcome.sizing = ChunkSizing::Of(*outcome.spec, *plan_.projection, plan_.most_decode_bytes);
  return outcome;
}

arrow::Status Scheduler::Prepare(const Chunk& chunk, const PieceStream& stream, PieceReader::Piece* piece) const {
  for (size_t i = 0; i < stream.outputs.size(); ++i) {
    const OutputColumn& output = plan_.projection->outputs[static_cast<size_t>(stream.outputs[i])];
    const auto column = static_cast<int>(i);
    const std::shared_ptr<arrow::Array> before = piece->rows->column(column);
    auto after = output.Prepare(before, chunk.pool.get());
    if (!after.ok()) return InColumn(after.status(), chunk, output.path().ToString());
    if (*after == before) continue;
    auto arrow_field = piece->rows->schema()->field(column)->WithType((*after)->type());
    ARROW_ASSIGN_OR_RAISE(piece->rows, piece->rows->SetColumn(column, std::move(arrow_field), std::move(*after)));
  }
  return arrow::Status::OK();
}

Scheduler::Outcome Scheduler::ExecutePiece(const Task& task) {
  Outcome outcome;
  Chunk& chunk = *task.chunk;
  PieceStream& stream = *task.stream;
  const bool is_lost = stream.is_at_lost();
  if (stream.reader == nullptr && !is_lost) {
    auto opened = chunk.spec.input->OpenPieces(*plan_.projection, chunk.spec.index, stream.outputs, chunk.pool,
                                               stream.piece_rows, stream.next_row);
    outcome.status = opened.status();
    if (!outcome.status.ok()) return outcome;
    stream.reader = std::move(*opened);
  }
  auto piece = is_lost ? MissingPiece(chunk, stream) : stream.reader->Next();
  outcome.status = piece.status();
  if (!outcome.status.ok() || piece->rows == nullptr) return outcome;
  outcome.piece_first_row = piece->first_row;
  outcome.piece_rows_read = piece->rows_read;
  if (!plan_.is_counted()) CutAt(chunk.spec.end_row, &*piece);
  outcome.status = Prepare(chunk, stream, &*piece);
  outcome.is_row_error = !outcome.status.ok();
  if (!outcome.status.ok()) return outcome;
  plan_.stats->AddFiltered(NumFilteredFrom(stream.filtered_end_row, *piece));
  stream.filtered_end_row = std::max(stream.filtered_end_row, piece->first_row + piece->rows_read);
  if (plan_.projection->packing.is_any()) {
    const int64_t skip_items = piece->first_row == chunk.spec.first_row ? chunk.spec.skip_items : 0;
    outcome.status = Explode(*plan_.projection, stream.outputs, skip_items, chunk.pool.get(), &*piece);
    if (!outcome.status.ok()) {
      outcome.status = outcome.status.WithMessage(chunk.spec.Where(), ", ", outcome.status.message());
      return outcome;
    }
  }
  auto block = std::make_shared<Block>(chunk.pool, std::move(*piece));
  block->is_lost = is_lost;
  if (is_lost && stream.error_row >= outcome.piece_first_row &&
      stream.error_row < outcome.piece_first_row + outcome.piece_rows_read) {
    block->error = stream.error;
  }
  outcome.block = std::move(block);
  return outcome;
}

arrow::Status Scheduler::ExecuteMorsel(const Task& task, Outcome* outcome) {
  Lane& lane = *task.lane;
  if (lane.kind == Lane::Kind::kConstant) return ConvertConstants(task);
  if (lane.kind == Lane::Kind::kBlock) {
    ARROW_RETURN_NOT_OK(ConvertBlock(task, outcome));
    return ConvertConstants(task);
  }
  const Chunk& chunk = *task.chunk;
  if (lane.reader == nullptr) {
    ARROW_ASSIGN_OR_RAISE(lane.reader, chunk.spec.input->OpenDirect(*plan_.projection, chunk.spec.index, lane.outputs,
                                                                    chunk.pool, task.begin_row - lane.begin_row));
  }
  std::vector<SlotColumn> targets;
  targets.reserve(lane.outputs.size());
  for (int output : lane.outputs) targets.push_back(plan_.layout->Column(task.base, output));
  return lane.reader->Read(task.rows, targets, task.begin_row - task.slot * plan_.layout->rows());
}

arrow::Status Scheduler::ConvertBlock(const Task& task, Outcome* outcome) {
  const Lane& lane = *task.lane;
  const PieceReader::Piece& piece = lane.block->piece;
  const int64_t offset = lane.block_row + task.begin_row - lane.begin_row;
  ScratchPool scratch(plan_.ledger);
  RowKey key = RowKeyOf(task.chunk->spec, piece, offset);
  key.seed = plan_.seed;
  key.pool = &scratch;
  if (!lane.block->error.empty() && offset == 0) {
    ARROW_RETURN_NOT_OK(CountError(arrow::Status::IOError(lane.block->error)));
  }
  for (size_t i = 0; i < lane.outputs.size(); ++i) {
    if (!lane.block->is_lost) {
      ARROW_RETURN_NOT_OK(ConvertColumn(task, i, offset, key, outcome));
    } else if (!FillColumn(task, i, offset)) {
      LoseRows(task, 0, task.rows, outcome);
    }
  }
  if (lane.block->is_lost && outcome->lost.empty()) plan_.stats->AddFilled(task.rows);
  return arrow::Status::OK();
}

arrow::Status Scheduler::ConvertColumn(const Task& task, size_t column, int64_t offset, const RowKey& key,
                                       Outcome* outcome) {
  const Lane& lane = *task.lane;
  const PieceReader::Piece& piece = lane.block->piece;
  const OutputColumn& output = plan_.projection->outputs[static_cast<size_t>(lane.outputs[column])];
  const arrow::Array& array = *piece.rows->column(static_cast<int>(column));
  const std::string name = output.path().ToString();
  if (output.converter == nullptr) {
    const VaryingColumn& varying = *output.field.varying;
    const int64_t end_row = offset + task.rows;
    for (int64_t row = varying.FindNull(array, offset, task.rows); row >= 0;
         row = varying.FindNull(array, row + 1, end_row - row - 1)) {
      const arrow::Status status = InColumn(MissingValue(piece, row), *task.chunk, name);
      if (!plan_.skips_errors) return status;
      ARROW_RETURN_NOT_OK(CountError(status));
      LoseRows(task, row - offset, 1, outcome);
    }
    CopyVarying(task, lane.outputs[column], array);
    return arrow::Status::OK();
  }
  const int64_t slot_row = task.begin_row - task.slot * plan_.layout->rows();
  const SlotTarget target = TargetOf(*plan_.layout, task.base, lane.outputs[column], slot_row);
  arrow::Status status = output.converter->ConvertArray(array, offset, task.rows, key, target);
  if (!status.ok() && plan_.skips_errors && IsDataError(status)) {
    return ConvertByRows(task, output, array, key, target, outcome);
  }
  if (!status.ok() && piece.documents != nullptr) {
    // Once more, for a message with the numbers of rows in place of those of items.
    std::vector<int64_t> rows(static_cast<size_t>(task.rows));
    for (int64_t i = 0; i < task.rows; ++i) rows[static_cast<size_t>(i)] = PlaceOf(piece, offset + i).row;
    RowKey by_rows = key;
    by_rows.row_numbers = rows.data();
    status = output.converter->ConvertArray(array, offset, task.rows, by_rows, target);
  }
  return InColumn(status, *task.chunk, name);
}

// What stands for rows that could not be read; false where the column has no fill value.
bool Scheduler::FillColumn(const Task& task, size_t column, int64_t offset) {
  const Lane& lane = *task.lane;
  const OutputColumn& output = plan_.projection->outputs[static_cast<size_t>(lane.outputs[column])];
  if (output.converter == nullptr) {
    const arrow::Array& array = *lane.block->piece.rows->column(static_cast<int>(column));
    CopyVarying(task, lane.outputs[column], array);
    return (output.partition_index >= 0 || !output.field.has_mask) &&
           output.field.varying->FindNull(array, offset, task.rows) < 0;
  }
  const int64_t slot_row = task.begin_row - task.slot * plan_.layout->rows();
  return output.converter->Fill(task.rows, TargetOf(*plan_.layout, task.base, lane.outputs[column], slot_row));
}

// Rows of one slot, batch by batch, to their place in its arenas.
void Scheduler::CopyVarying(const Task& task, int output, const arrow::Array& array) {
  const SlotLayout& layout = *plan_.layout;
  const Lane& lane = *task.lane;
  const VaryingColumn& varying = *(*layout.schema())[static_cast<size_t>(output)].varying;
  const std::vector<uint8_t*> strands = layout.Strands(task.base, output);
  const auto num_domains = static_cast<size_t>(varying.num_domains());
  const size_t first_domain = static_cast<size_t>(layout.first_domain(output));
  std::vector<int64_t> first(num_domains), counts(num_domains);
  const int64_t slot_begin_row = task.slot * layout.rows();
  for (int64_t row = task.begin_row; row < task.begin_row + task.rows;) {
    const int64_t batch = (row - slot_begin_row) / layout.batch_rows();
    const int64_t batch_row = batch * layout.batch_rows();
    const int64_t batch_end_row = slot_begin_row + batch_row + layout.batch_rows();
    const int64_t rows = std::min(task.begin_row + task.rows, batch_end_row) - row;
    // Counted from the batch's first row, or from the lane's where that comes later.
    const int64_t known_row = std::max(slot_begin_row + batch_row, lane.begin_row);
    const bool is_batch_start = known_row == slot_begin_row + batch_row;
    const int64_t* batch_first = task.fill->first(batch) + first_domain;
    const int64_t* known_first = is_batch_start ? batch_first : lane.arena_first.data() + first_domain;
    const int64_t known_offset = lane.block_row + known_row - lane.begin_row;
    const int64_t row_offset = lane.block_row + row - lane.begin_row;
    varying.Count(array, known_offset, row_offset - known_offset, counts.data());
    for (size_t d = 0; d < num_domains; ++d) first[d] = known_first[d] + counts[d];
    VaryingColumn::Target target;
    target.strands = strands.data();
    target.batch = batch;
    target.row = row - slot_begin_row;
    target.batch_row = batch_row;
    target.first = first.data();
    target.batch_first = batch_first;
    varying.Copy(array, row_offset, rows, target);
    row += rows;
  }
}

void Scheduler::WriteIdentity(const Task& task, const OutputColumn& output, SlotTarget target) {
  const ChunkSpec& spec = task.chunk->spec;
  if (output.identity == OutputColumn::Identity::kFile) {
    auto* codes = reinterpret_cast<int32_t*>(target.values);
    std::fill(codes, codes + task.rows, static_cast<int32_t>(spec.input->file()));
    return;
  }
  const Lane& lane = *task.lane;
  const int64_t lane_row = task.begin_row - lane.begin_row;
  if (output.identity == OutputColumn::Identity::kPosition) {
    WritePositions(lane.block->piece, lane.block_row + lane_row, task.rows, task.begin_row % plan_.layout->rows(),
                   plan_.layout->packing().length, reinterpret_cast<int32_t*>(target.values));
    return;
  }
  auto* ids = reinterpret_cast<int64_t*>(target.values);
  if (lane.kind == Lane::Kind::kConstant) {
    std::iota(ids, ids + task.rows, spec.file_row + lane_row);
    return;
  }
  const auto& numbers = static_cast<const arrow::Int64Array&>(*lane.block->piece.row_numbers);
  for (int64_t i = 0; i < task.rows; ++i) ids[i] = spec.file_row + numbers.Value(lane.block_row + lane_row + i);
}

arrow::Status Scheduler::ConvertConstants(const Task& task) {
  const int64_t slot_row = task.begin_row - task.slot * plan_.layout->rows();
  for (int index : task.lane->constants) {
    const OutputColumn& output = plan_.projection->outputs[static_cast<size_t>(index)];
    if (output.identity != OutputColumn::Identity::kNone) {
      WriteIdentity(task, output, TargetOf(*plan_.layout, task.base, index, slot_row));
      continue;
    }
    const auto& value = task.chunk->spec.input->partition_values()[static_cast<size_t>(output.partition_index)];
    ARROW_RETURN_NOT_OK(InColumn(
        output.converter->ConvertConstant(*value, task.rows, TargetOf(*plan_.layout, task.base, index, slot_row)),
        *task.chunk, output.path().ToString()));
  }
  return arrow::Status::OK();
}

}  // namespace penstock
