#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "penstock/ledger.h"
#include "source/input.h"
#include "source/source.h"

namespace penstock {

/// The batch of a chunk, with the columns that the projection needs at least; buffers come from `pool` where there are
/// new ones.
using BatchLoader =
    std::function<arrow::Result<std::shared_ptr<arrow::RecordBatch>>(const std::shared_ptr<arrow::MemoryPool>& pool)>;

/// A PieceReader of slices of one batch, which is loaded and validated in full when the first piece is asked for.
/// \param where  of the chunk, for messages.
/// \param sample_key  of the chunk (see SampleKey), where there is a sample.
/// \param owner  of what the loader reads from, kept as long as the reader and its pieces.
arrow::Result<std::unique_ptr<PieceReader>> OpenBatchPieces(
    BatchLoader load, std::string where, std::shared_ptr<const void> owner, const Projection& projection,
    const std::vector<int>& outputs, const arrow::ScalarVector& partition_values, std::shared_ptr<ReservedPool> pool,
    int64_t piece_rows, int64_t skip_rows, uint64_t sample_key);

/// How all columns of a source that is not Parquet are read.
ReadPlan PlanThroughArrow(const Projection& projection);

/// Record batches that are in memory, as an input: its chunks are the batches.
struct BatchInputParts {
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches;
  /// For messages; the number of the batch comes behind: "the table, record batch ".
  std::string prefix;
  int64_t first_number = 0;              ///< Of the first batch.
  int64_t file_index = 0;                ///< As Input::file().
  int64_t begin_row = 0;                 ///< As Input::begin_row().
  arrow::ScalarVector partition_values;  ///< Of its file, where there is one.
  std::shared_ptr<ReservedPool> pool;    ///< Of the batches; null where they come from elsewhere.
  int64_t pulled_bytes = 0;              ///< To be charged now; 0 for the caller's own memory.
  Account pulled_account = Account::kBlocks;
  std::shared_ptr<const void> owner;  ///< Of the batches: dies behind them.
};
/// Checks the first batch's schema. Errors start with its place.
arrow::Result<std::shared_ptr<const Input>> MakeBatchInput(BatchInputParts parts, const InputContext& context);

/// Bytes of memory behind a batch that are its own (sliced buffers count in part).
int64_t BatchBytes(const arrow::RecordBatch& batch);

/// A table that is the caller's: each epoch reads it again, nothing is charged.
arrow::Result<std::unique_ptr<Source>> MakeTableSource(std::shared_ptr<arrow::Table> table);

/// Batches that somebody gives one by one. `once`: the factory is called for one epoch alone.
arrow::Result<std::unique_ptr<Source>> MakeStreamSource(BatchReaderFactory open, bool once);

}  // namespace penstock
