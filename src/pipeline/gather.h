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

namespace penstock {

/// Rows of an epoch before they are mixed: one slot of the scheduler, all of its rows.
struct Slab {
  Batch batch;
  std::vector<std::shared_ptr<arrow::Array>> arrays;  ///< By column; null for columns of fixed size.
  std::vector<bool> has_missing;                      ///< By column: whether its mask, if any, is set anywhere.
  LostRows lost;
};

/// A column of varying size as VaryingColumn::Count() and Copy() take it, over the batch's memory: no extension types.
/// Call it once for a column. \return as Batch::ArrayColumn().
arrow::Result<std::shared_ptr<arrow::Array>> StorageColumn(const Batch& batch, int column);

/// \param lost  by row of the batch. \return CapacityError where a column of a type with 32-bit offsets has too much in
/// one slab.
arrow::Result<std::shared_ptr<const Slab>> MakeSlab(Batch batch, LostRows lost);

/// Where a row of a window lies: slab and row in it.
struct SlabRow {
  uint32_t slab = 0;
  uint32_t row = 0;
};

/// Which of the rows are lost: a byte for each to `lost`.
void GatherLost(std::span<const std::shared_ptr<const Slab>> slabs, std::span<const SlabRow> rows, uint8_t* lost);

/// Copies rows of slabs to rows of a slot: `rows` to the slot's rows from `slot_row` on. Columns of fixed size.
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
