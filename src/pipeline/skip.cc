// LoaderOptions::skips_errors: what takes the place of rows that cannot be read or converted.
//
// A row that does not convert, and every row of a row group from the one on that cannot be read, keeps its place in the
// slot: it gets the fill value where its columns have one, else it is marked as lost and closed up when its batch is
// handed over. So no other row moves to another batch. Only rows that a filter has not seen have no place.
#include <arrow/array/array_base.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/array/util.h>
#include <arrow/type.h>

#include <algorithm>

#include "pipeline/scheduler.h"
#include "source/constant_column.h"
#include "source/row_sample.h"
#include "source/skipping_source.h"

namespace penstock {
namespace {

// Whether a row that stands for one that cannot be read comes out of its chunk: one that has a place.
bool ComesOut(const Projection& projection, const ChunkSpec& spec, int64_t row) {
  if (projection.filter != nullptr || !projection.sample) return true;
  const Input& input = *spec.input;
  return IsInSample(*projection.sample, SampleKey(*projection.sample, input.file(), input.begin_row(), spec.index),
                    row);
}

arrow::Result<std::shared_ptr<arrow::Array>> RowNumbers(const Projection& projection, const ChunkSpec& spec,
                                                        const PieceReader::Piece& piece, arrow::MemoryPool* pool) {
  arrow::Int64Builder numbers(pool);
  for (int64_t row = piece.first_row; row < piece.first_row + piece.rows_read; ++row) {
    if (ComesOut(projection, spec, row)) ARROW_RETURN_NOT_OK(numbers.Append(row));
  }
  return numbers.Finish();
}

}  // namespace

arrow::Status Scheduler::CountError(const arrow::Status& status) {
  return TooManyErrors(plan_.stats->AddError(status.message()), plan_.max_errors, status);
}

// Missing values in place of rows that cannot be read.
arrow::Result<PieceReader::Piece> Scheduler::MissingPiece(const Chunk& chunk, const PieceStream& stream) const {
  PieceReader::Piece piece;
  piece.first_row = stream.next_row;
  piece.rows_read = std::min(stream.piece_rows, stream.lost_end_row - stream.next_row);
  int64_t rows = piece.rows_read;
  if (!plan_.is_counted()) {
    ARROW_ASSIGN_OR_RAISE(piece.row_numbers, RowNumbers(*plan_.projection, chunk.spec, piece, chunk.pool.get()));
    rows = piece.row_numbers->length();
  }
  arrow::FieldVector fields;
  arrow::ArrayVector columns;
  for (const int index : stream.outputs) {
    const OutputColumn& output = plan_.projection->outputs[static_cast<size_t>(index)];
    if (!output.is_read()) continue;
    fields.push_back(output.input_field);
    ARROW_ASSIGN_OR_RAISE(auto nulls, arrow::MakeArrayOfNull(output.input_field->type(), rows, chunk.pool.get()));
    columns.push_back(std::move(nulls));
  }
  auto missing = arrow::RecordBatch::Make(arrow::schema(std::move(fields)), rows, std::move(columns));
  const ConstantColumns constants(*plan_.projection, stream.outputs, chunk.spec.input->partition_values());
  ARROW_ASSIGN_OR_RAISE(piece.rows, constants.AddTo(std::move(missing), chunk.pool.get()));
  return piece;
}

// After a piece failed: a smaller one is tried until the very row is found from which on nothing can be read (or the
// one that cannot be prepared). False where this error is not to be passed over.
bool Scheduler::PassOverLocked(Chunk* chunk, PieceStream* stream, const Outcome& outcome, Doomed* doomed) {
  if (!plan_.skips_errors || !IsDataError(outcome.status)) return false;
  if (stream->is_at_lost()) return false;  // Not even missing values can stand in.
  const Projection& projection = *plan_.projection;
  // What cannot be prepared has passed the filter.
  const bool has_place =
      plan_.is_counted() || (projection.filter == nullptr && !projection.packing.is_any()) || outcome.is_row_error;
  if (!has_place && !plan_.may_lose_rows) return false;
  doomed->piece_readers.push_back(std::move(stream->reader));
  if (stream->piece_rows > 1) {
    stream->piece_rows /= 2;
    return true;
  }
  stream->piece_rows = stream->whole_piece_rows;
  if (has_place) {
    stream->lost_begin_row = stream->next_row;
    stream->lost_end_row = outcome.is_row_error ? stream->next_row + 1 : chunk->end_row;
    stream->error_row = stream->lost_begin_row;
    while (stream->error_row < stream->lost_end_row && !ComesOut(projection, chunk->spec, stream->error_row)) {
      ++stream->error_row;
    }
    stream->error = outcome.status.message();
    return true;
  }
  stream->failure = outcome.status;
  stream->is_passed_over = true;
  stream->is_done = true;
  return true;
}

void Scheduler::LoseRows(const Task& task, int64_t first, int64_t rows, Outcome* outcome) const {
  const int64_t slot_row = task.begin_row - task.slot * plan_.layout->rows() + first;
  for (int64_t i = 0; i < rows; ++i) outcome->lost.push_back(slot_row + i);
}

// After an error: row by row, so that the rest of them gets where it belongs.
arrow::Status Scheduler::ConvertByRows(const Task& task, const OutputColumn& output, const arrow::Array& array,
                                       const RowKey& key, SlotTarget target, Outcome* outcome) {
  const int64_t offset = task.lane->block_row + task.begin_row - task.lane->begin_row;
  for (int64_t i = 0; i < task.rows; ++i) {
    SlotTarget row_target = target;
    row_target.values += i * output.field.row_bytes();
    if (row_target.mask != nullptr) row_target.mask += i * output.field.items();
    const arrow::Status status = output.converter->ConvertArray(array, offset + i, 1, key.Advance(i), row_target);
    if (status.ok()) continue;
    if (!IsDataError(status)) return status;
    ARROW_RETURN_NOT_OK(CountError(
        status.WithMessage(task.chunk->spec.Where(), ", column '", output.path().ToString(), "': ", status.message())));
    if (output.converter->Fill(1, row_target)) {
      plan_.stats->AddFilled(1);
    } else {
      LoseRows(task, i, 1, outcome);
    }
  }
  return arrow::Status::OK();
}

}  // namespace penstock
