#include "plan/survivors.h"

#include <arrow/array/array_primitive.h>
#include <arrow/record_batch.h>

#include <algorithm>
#include <optional>

#include "ops/list_reader.h"
#include "source/row_sample.h"

namespace penstock {
namespace {

constexpr int64_t kPieceRows = 64 * 1024;
constexpr int64_t kPieceBytes = 4 << 20;

arrow::Result<std::unique_ptr<PieceReader>> OpenPieces(const Projection& projection, const Input& input, int chunk,
                                                       const std::shared_ptr<Ledger>& ledger) {
  int64_t piece_rows = std::min(kPieceRows, input.rows(chunk));
  // Lists can be long.
  while (piece_rows > 1 && input.PieceBytes(projection, chunk, piece_rows) > kPieceBytes) piece_rows /= 2;
  const auto pool = ReservedPool::TryMake(ledger, input.PieceBytes(projection, chunk, piece_rows));
  if (pool == nullptr) {
    return arrow::Status::OutOfMemory(input.Where(chunk), ": to count rows for balance=\"rows\" takes ",
                                      input.PieceBytes(projection, chunk, piece_rows),
                                      " bytes, more than memory_budget has room for; raise it by that much");
  }
  return input.OpenPieces(projection, chunk, input.read_plan().through_arrow, pool, piece_rows, 0);
}

// Calls `visit` with each row of the chunk that passes and how many items it has, until it returns false.
template <typename Visit>
arrow::Status VisitLists(const Projection& of_items, const Input& input, int chunk,
                         const std::shared_ptr<Ledger>& ledger, const Visit& visit) {
  const auto pool = ReservedPool::TryMake(ledger, 0);
  ARROW_ASSIGN_OR_RAISE(const auto reader, OpenPieces(of_items, input, chunk, ledger));
  while (true) {
    ARROW_ASSIGN_OR_RAISE(const auto piece, reader->Next());
    if (piece.rows == nullptr) return arrow::Status::OK();
    ARROW_ASSIGN_OR_RAISE(const auto column,
                          of_items.outputs.front().Prepare(piece.rows->column(0), pool.get()));  // Out of its struct.
    ARROW_ASSIGN_OR_RAISE(const ListReader lists, ListReader::Open(*column->data()));
    const auto* numbers = static_cast<const arrow::Int64Array*>(piece.row_numbers.get());
    for (int64_t i = 0; i < piece.rows->num_rows(); ++i) {
      const int64_t row = numbers == nullptr ? piece.first_row + i : numbers->Value(i);
      if (!visit(row, lists.At(i).size)) return arrow::Status::OK();
    }
  }
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

arrow::Result<SourcePlace> PlaceOfSurvivor(const Projection& of_filter, const Input& input, int chunk, int64_t survivor,
                                           const std::shared_ptr<Ledger>& ledger) {
  if (of_filter.filter == nullptr) return SourcePlace{RowInSample(*of_filter.sample, input, chunk, survivor)};
  ARROW_ASSIGN_OR_RAISE(const auto reader, OpenPieces(of_filter, input, chunk, ledger));
  for (int64_t before = 0;;) {
    ARROW_ASSIGN_OR_RAISE(const auto piece, reader->Next());
    if (piece.rows == nullptr) {
      return arrow::Status::IOError(input.Where(chunk), ": fewer rows pass the filter than when they were counted");
    }
    const int64_t rows = piece.rows->num_rows();
    if (survivor < before + rows) {
      return SourcePlace{static_cast<const arrow::Int64Array&>(*piece.row_numbers).Value(survivor - before)};
    }
    before += rows;
  }
}

Projection ItemsAlone(const Projection& projection) {
  Projection of_items = projection;
  of_items.outputs.erase(of_items.outputs.begin() + 1, of_items.outputs.end());
  return of_items;
}

arrow::Result<int64_t> CountItems(const Projection& of_items, const Input& input, int chunk,
                                  const std::shared_ptr<Ledger>& ledger) {
  ARROW_ASSIGN_OR_RAISE(const bool may_match, input.MayMatch(of_items, chunk));
  if (!may_match) return 0;
  if (!of_items.selects_rows()) {
    const std::optional<int64_t> known = input.NumItems(of_items.outputs.front(), chunk);
    if (known) return *known;
  }
  int64_t items = 0;
  const auto add = [&](int64_t, int64_t size) {
    items += size;
    return true;
  };
  ARROW_RETURN_NOT_OK(VisitLists(of_items, input, chunk, ledger, add));
  return items;
}

arrow::Result<SourcePlace> PlaceOfItem(const Projection& of_items, const Input& input, int chunk, int64_t item,
                                       const std::shared_ptr<Ledger>& ledger) {
  std::optional<SourcePlace> place;
  const auto look = [&](int64_t row, int64_t size) {
    if (item < size) place = SourcePlace{row, item};
    item -= size;
    return !place;
  };
  ARROW_RETURN_NOT_OK(VisitLists(of_items, input, chunk, ledger, look));
  if (place) return *place;
  return arrow::Status::IOError(input.Where(chunk), ": fewer items than when they were counted");
}

}  // namespace penstock
