#include "pipeline/compact.h"

#include <arrow/array/array_base.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/compute/api_vector.h>
#include <arrow/compute/exec.h>
#include <arrow/datum.h>

#include <algorithm>
#include <cstring>

#include "pipeline/gather.h"

namespace penstock {
namespace {

/// Runs of rows that stay: positions in the batch.
std::vector<std::pair<int64_t, int64_t>> KeptRuns(const LostRows& lost, int64_t first_row, int64_t rows) {
  std::vector<std::pair<int64_t, int64_t>> runs;
  for (int64_t row = 0; row < rows; ++row) {
    if (lost[static_cast<size_t>(first_row + row)]) continue;
    if (!runs.empty() && runs.back().second == row) {
      ++runs.back().second;
    } else {
      runs.emplace_back(row, row + 1);
    }
  }
  return runs;
}

void CloseGaps(const std::vector<std::pair<int64_t, int64_t>>& runs, int64_t width, uint8_t* data) {
  uint8_t* to = data;
  for (const auto& [begin, end] : runs) {
    const auto bytes = static_cast<size_t>((end - begin) * width);
    std::memmove(to, data + begin * width, bytes);
    to += bytes;
  }
}

// Elements of the lists and strings lie behind each other, so they are copied out and in again.
arrow::Status CompactVarying(const SlotLayout& layout, int column, const std::vector<std::pair<int64_t, int64_t>>& runs,
                             int64_t batch, int64_t rows, uint8_t* base, ArenaFill* fill, arrow::MemoryPool* pool) {
  const VaryingColumn& varying = *(*layout.schema())[static_cast<size_t>(column)].varying;
  arrow::Int64Builder kept(pool);
  int64_t num_kept = 0;
  for (const auto& [begin, end] : runs) {
    for (int64_t row = begin; row < end; ++row) ARROW_RETURN_NOT_OK(kept.Append(row));
    num_kept += end - begin;
  }
  ARROW_ASSIGN_OR_RAISE(const auto indices, kept.Finish());
  std::shared_ptr<arrow::Array> copy;
  {
    const Batch whole = layout.View(base, fill, batch, rows, nullptr);
    ARROW_ASSIGN_OR_RAISE(const auto array, StorageColumn(whole, column));
    arrow::compute::ExecContext context(pool);
    ARROW_ASSIGN_OR_RAISE(const arrow::Datum taken,
                          arrow::compute::Take(array, indices, arrow::compute::TakeOptions::NoBoundsCheck(), &context));
    copy = taken.make_array();
  }
  const std::vector<uint8_t*> strands = layout.Strands(base, column);
  VaryingColumn::Target target;
  target.strands = strands.data();
  target.batch = batch;
  target.row = target.batch_row = batch * layout.batch_rows();
  if (fill != nullptr) {
    const int first_domain = layout.first_domain(column);
    target.first = target.batch_first = fill->first(batch) + first_domain;
    varying.Count(*copy, 0, num_kept, fill->counts(batch) + first_domain);
  }
  varying.Copy(*copy, 0, num_kept, target);
  return arrow::Status::OK();
}

}  // namespace

arrow::Result<int64_t> Compact(const SlotLayout& layout, const LostRows& lost, int64_t batch, int64_t rows,
                               uint8_t* base, ArenaFill* fill, arrow::MemoryPool* pool) {
  const int64_t first_row = batch * layout.batch_rows();
  const auto runs = KeptRuns(lost, first_row, rows);
  int64_t kept = 0;
  for (const auto& [begin, end] : runs) kept += end - begin;
  if (kept == rows || kept == 0) return kept;
  for (int column = 0; column < static_cast<int>(layout.schema()->size()); ++column) {
    const Field& field = (*layout.schema())[static_cast<size_t>(column)];
    if (field.varying != nullptr) {
      ARROW_RETURN_NOT_OK(CompactVarying(layout, column, runs, batch, rows, base, fill, pool));
      continue;
    }
    const SlotColumn at = layout.Column(base, column);
    CloseGaps(runs, field.row_bytes(), at.values + first_row * field.row_bytes());
    if (at.mask != nullptr) CloseGaps(runs, field.items(), at.mask + first_row * field.items());
  }
  return kept;
}

}  // namespace penstock
