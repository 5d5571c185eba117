#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "batch/slot_layout.h"
#include "penstock/batch.h"
#include "pipeline/compact.h"
#include "pipeline/records.h"

namespace penstock {

/// Rows of an epoch before they are mixed: all of one slot of the scheduler, in that slot or as records.
struct Slab {
  int64_t num_rows = 0;
  std::unique_ptr<const RecordPool::Slab> records;  ///< Null: the rows are in `batch`...
  Batch batch;
  std::vector<std::shared_ptr<arrow::Array>> arrays;  ///< By column; null for columns of fixed size.
  std::vector<bool> has_missing;                      ///< By column: whether its mask, if any, is set anywhere.
  LostRows lost;
};

/// A column of varying size as VaryingColumn::Count() and Copy() take it, over the batch's memory: no extension types.
/// Call it once for a column. \return as Batch::ArrayColumn().
arrow::Result<std::shared_ptr<arrow::Array>> StorageColumn(const Batch& batch, int column);

/// \param lost  by row of the batch. \param pool  null where rows are to stay in their slot.
/// \return CapacityError where a column of a type with 32-bit offsets has too much in one slab; as RecordPool::Take().
arrow::Result<std::shared_ptr<const Slab>> MakeSlab(Batch batch, LostRows lost, RecordPool* pool);

/// Which of the rows are lost: a byte for each to `lost`.
void GatherLost(std::span<const std::shared_ptr<const Slab>> slabs, std::span<const SlabRow> rows, uint8_t* lost);

/// Copies rows of slabs (at least one) to rows of a slot: `rows` to the slot's rows from `slot_row` on. Columns of
/// fixed size.
///
/// Threads: any; every caller writes rows of its own.
void GatherFixed(std::span<const std::shared_ptr<const Slab>> slabs, std::span<const SlabRow> rows,
                 const SlotLayout& layout, uint8_t* base, int64_t slot_row);

/// The same for columns of varying size, whose arenas are filled in the order of rows: call it for the slot's rows from
/// front to back. Takes the arenas' memory before it is written.
/// \param take  takes so many bytes more for the slot; not OK where there are none.
arrow::Status GatherVarying(std::span<const std::shared_ptr<const Slab>> slabs, std::span<const SlabRow> rows,
                            const SlotLayout& layout, uint8_t* base, int64_t slot_row, ArenaFill* fill,
                            const std::function<arrow::Status(const int64_t* used)>& take);

}  // namespace penstock
