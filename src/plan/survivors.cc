#include "plan/survivors.h"

#include <arrow/array/array_primitive.h>
#include <arrow/record_batch.h>

#include <algorithm>

#include "source/row_sample.h"

namespace penstock {
namespace {

constexpr int64_t kPieceRows = 64 * 1024;

arrow::Result<std::unique_ptr<PieceReader>> OpenPieces(const Projection& of_filter, const Input& input, int chunk,
                                                       const std::shared_ptr<Ledger>& ledger) {
  const int64_t piece_rows = std::min(kPieceRows, input.rows(chunk));
  const auto pool = ReservedPool::TryMake(ledger, input.PieceBytes(of_filter, chunk, piece_rows));
  if (pool == nullptr) {
    return arrow::Status::OutOfMemory(input.Where(chunk), ": to count rows for balance=\"rows\" takes ",
                                      input.PieceBytes(of_filter, chunk, piece_rows),
                                      " bytes, more than memory_budget has room for; raise it by that much");
  }
  return input.OpenPieces(of_filter, chunk, {}, pool, piece_rows, 0);
}

// The row of the chunk that is the `survivor`-th in the sample; the number of rows where there is none.
int64_t RowInSample(const RowSample& sample, const Input& input, int chunk, int64_t survivor) {
  const uint64_t key = SampleKey(sample, input.file(), input.begin_row(), chunk);
  int64_t row = 0;
  for (const int64_t num_rows = input.rows(chunk); row < num_rows; ++row) {
    if (IsInSample(sample, key, row) && survivor-- == 0) break;
  }
  return row;
}

}  // namespace

Projection FilterAlone(const Projection& projection) {
  Projection of_filter = projection;
  of_filter.outputs.clear();
  return of_filter;
}

int64_t RowsInSample(const RowSample& sample, const Input& input, int chunk) {
  const uint64_t key = SampleKey(sample, input.file(), input.begin_row(), chunk);
  const int64_t num_rows = input.rows(chunk);
  int64_t rows = 0;
  for (int64_t row = 0; row < num_rows; ++row) rows += IsInSample(sample, key, row) ? 1 : 0;
  return rows;
}

arrow::Result<int64_t> CountSurvivors(const Projection& of_filter, const Input& input, int chunk,
                                      const std::shared_ptr<Ledger>& ledger) {
  ARROW_ASSIGN_OR_RAISE(const bool may_match, input.MayMatch(of_filter, chunk));
  if (!may_match) return 0;
  if (of_filter.filter == nullptr) return RowsInSample(*of_filter.sample, input, chunk);
  ARROW_ASSIGN_OR_RAISE(const auto reader, OpenPieces(of_filter, input, chunk, ledger));
  int64_t rows = 0;
  while (true) {
    ARROW_ASSIGN_OR_RAISE(const auto piece, reader->Next());
    if (piece.rows == nullptr) return rows;
    rows += piece.rows->num_rows();
  }
}

arrow::Result<int64_t> RowOfSurvivor(const Projection& of_filter, const Input& input, int chunk, int64_t survivor,
                                     const std::shared_ptr<Ledger>& ledger) {
  if (of_filter.filter == nullptr) return RowInSample(*of_filter.sample, input, chunk, survivor);
  ARROW_ASSIGN_OR_RAISE(const auto reader, OpenPieces(of_filter, input, chunk, ledger));
  for (int64_t before = 0;;) {
    ARROW_ASSIGN_OR_RAISE(const auto piece, reader->Next());
    if (piece.rows == nullptr) {
      return arrow::Status::IOError(input.Where(chunk), ": fewer rows pass the filter than when they were counted");
    }
    const int64_t rows = piece.rows->num_rows();
    if (survivor < before + rows) {
      return static_cast<const arrow::Int64Array&>(*piece.row_numbers).Value(survivor - before);
    }
    before += rows;
  }
}

}  // namespace penstock
